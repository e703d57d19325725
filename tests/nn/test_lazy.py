"""Lazy modules: what the first input makes of them, before it, and states saved on either side."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import pytest

import gradlite
from gradlite import nn
from tests.nn.programs import fill, tensor
from tests.oracle import same

LAYERS: dict[str, tuple[tuple[int, ...], Any]] = {
    "LazyLinear": ((4, 5), lambda nn: nn.LazyLinear(3)),
    "LazyLinear without bias": ((2, 4, 5), lambda nn: nn.LazyLinear(3, bias=False)),
    "LazyConv1d": ((2, 4, 8), lambda nn: nn.LazyConv1d(6, 3, groups=2)),
    "LazyConv2d": ((2, 3, 8, 8), lambda nn: nn.LazyConv2d(4, 3, stride=2, padding=1)),
    "LazyConv2d unbatched": ((3, 8, 8), lambda nn: nn.LazyConv2d(4, 3, bias=False)),
    "LazyConv3d": ((2, 3, 4, 4, 4), lambda nn: nn.LazyConv3d(4, 3)),
    "LazyConvTranspose1d": ((2, 4, 8), lambda nn: nn.LazyConvTranspose1d(6, 3, 2, groups=2)),
    "LazyConvTranspose2d": ((2, 3, 4, 4), lambda nn: nn.LazyConvTranspose2d(4, 3, dilation=2)),
    "LazyConvTranspose3d": ((2, 3, 4, 4, 4), lambda nn: nn.LazyConvTranspose3d(4, 3)),
    "LazyBatchNorm1d": ((4, 3), lambda nn: nn.LazyBatchNorm1d()),
    "LazyBatchNorm2d": ((4, 3, 2, 2), lambda nn: nn.LazyBatchNorm2d(1e-3, 0.3)),
    "LazyBatchNorm2d plain": ((4, 3, 2, 2), lambda nn: nn.LazyBatchNorm2d(affine=False)),
    "LazyBatchNorm3d": ((4, 3, 2, 2, 2), lambda nn: nn.LazyBatchNorm3d(track_running_stats=False)),
    "LazyInstanceNorm1d": ((4, 3, 5), lambda nn: nn.LazyInstanceNorm1d()),
    "LazyInstanceNorm2d": ((4, 3, 5, 2), lambda nn: nn.LazyInstanceNorm2d(affine=False)),
    "LazyInstanceNorm3d": ((4, 3, 2, 2, 2), lambda nn: nn.LazyInstanceNorm3d()),
}


@pytest.mark.parametrize("name", LAYERS)
def test_what_the_first_input_makes_of_a_layer(name: str) -> None:
    shape, make = LAYERS[name]

    def program(library: Any) -> Any:
        layer = make(library.nn).double()
        before = repr(layer), sorted(layer.state_dict()), layer.has_uninitialized_params()
        x = tensor(library, 1, *shape)
        layer(x)  # draws values
        sizes = [(n, tuple(p.shape), p.requires_grad) for n, p in layer.named_parameters()]
        fill(library, layer)
        return before, repr(layer), type(layer).__name__, sizes, layer(x).detach()

    same(program, rtol=1e-5, atol=1e-6)


def test_a_layer_that_was_lazy_starts_as_one_that_was_not() -> None:
    gradlite.manual_seed(3)
    lazy = nn.LazyLinear(4)
    lazy(gradlite.ones(2, 3))
    gradlite.manual_seed(3)
    assert gradlite.equal(lazy.weight, nn.Linear(3, 4).weight)
    assert lazy._hooked is False


WRONG: dict[str, Any] = {
    "shape": lambda library, layer: layer.weight.shape,
    "sum": lambda library, layer: layer.weight.sum(),
    "requires_grad_": lambda library, layer: layer.requires_grad_(False),
    "numel": lambda library, layer: layer.weight.numel(),
    "times two": lambda library, layer: layer.weight * 2,
    "linear": lambda library, layer: library.nn.functional.linear(library.ones(1), layer.weight),
    "weight_norm": lambda library, layer: library.nn.utils.spectral_norm(layer),
    "an input without dimensions": lambda library, layer: library.nn.LazyConv2d(3, 2)(
        library.ones(3)
    ),
    "groups": lambda library, layer: library.nn.LazyConv2d(4, 2, groups=2)(
        library.ones(1, 3, 4, 4)
    ),
    "loaded into one that is not": lambda library, layer: library.nn.Linear(2, 3).load_state_dict(
        layer.state_dict()
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_not_possible(what: str) -> None:
    same(
        lambda library: WRONG[what](library, library.nn.LazyLinear(3)),
        raises=(ValueError, RuntimeError),
        message="type",
    )


def test_states_before_and_after_the_first_input() -> None:
    def program(library: Any) -> Any:
        nn, x = library.nn, tensor(library, 1, 4, 3)
        ready = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d()).double()
        ready(x)
        fill(library, ready)
        ready.eval()
        lazy = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d()).double().eval()
        fresh = nn.Sequential(nn.LazyLinear(5), nn.LazyBatchNorm1d())
        untouched = lazy.load_state_dict(fresh.state_dict())
        still = lazy[0].has_uninitialized_params()
        loaded = lazy.load_state_dict(ready.state_dict())
        sizes = [tuple(p.shape) for p in lazy.parameters()]
        return (
            tuple(untouched),
            still,
            tuple(loaded),
            sizes,
            repr(lazy),
            lazy(x),
            repr(lazy[0]),
            ready(x),
        )

    same(program)


def test_copies_and_casts_before_the_first_input() -> None:
    def program(library: Any) -> Any:
        layer = library.nn.LazyLinear(2).double()
        twin, x = copy.deepcopy(layer), library.ones(1, 3, dtype=library.float64)
        twin(x)
        pickled = pickle.loads(pickle.dumps(library.nn.LazyLinear(2)))
        pickled(x.float())
        return repr(twin), twin.weight.dtype is x.dtype, repr(layer), repr(pickled)

    same(program)


def test_an_optimizer_keeps_the_parameters() -> None:
    def program(library: Any) -> Any:
        layer = library.nn.LazyLinear(2).double()
        optimizer = library.optim.SGD(layer.parameters(), lr=0.1)
        x = tensor(library, 1, 4, 3)
        layer(x)
        fill(library, layer)
        layer(x).sum().backward()
        optimizer.step()
        return layer.weight.detach(), layer.bias.detach()

    same(program)


def test_a_class_of_ones_own() -> None:
    def program(library: Any) -> Any:
        class Scale(library.nn.modules.lazy.LazyModuleMixin, library.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.factor = library.nn.parameter.UninitializedParameter()
                self.seen = library.nn.parameter.UninitializedBuffer()

            def initialize_parameters(self, x: Any, *, value: float) -> None:
                if self.has_uninitialized_params():
                    self.factor.materialize(x.shape[-1])
                    self.seen.materialize((2, 1), dtype=library.float64)
                    with library.no_grad():
                        self.factor.fill_(value)
                        self.seen.fill_(0)

            def forward(self, x: Any, *, value: float) -> Any:
                return x * self.factor

        scale = Scale()
        calls: list[int] = []
        scale.register_forward_hook(lambda *a: calls.append(1))
        first, second = (scale(library.ones(2, 3), value=v).detach() for v in (2.0, 5.0))
        named = [n for n, _ in scale.named_buffers()], [n for n, _ in scale.named_parameters()]
        return first, second, scale.seen, named, calls, type(scale.factor).__name__

    same(program)


def test_one_that_does_not_initialize_all() -> None:
    def program(library: Any) -> None:
        class Forgets(library.nn.modules.lazy.LazyModuleMixin, library.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.factor = library.nn.parameter.UninitializedParameter()

            def initialize_parameters(self, x: Any) -> None: ...

        Forgets()(library.ones(1))

    same(program, raises=RuntimeError, message="exact")


def test_reparametrizations_want_a_shape() -> None:
    for name in ("weight_norm", "spectral_norm"):

        def program(library: Any, name: str = name) -> None:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # PyTorch calls the first of them deprecated
                getattr(library.nn.utils, name)(library.nn.LazyLinear(3))

        same(program, raises=ValueError, message="exact")


def test_data_has_no_elements_before_the_first_input() -> None:
    def program(T: Any) -> Any:
        layer = T.nn.LazyLinear(2)
        layer.weight.data.normal_(0, 0.01)
        layer.bias.data.fill_(3)
        before = layer.weight.data, type(layer.weight.data).__name__, repr(layer.weight)
        layer(T.ones(1, 4))
        return before, layer.weight.data.shape, layer.double().weight.data.dtype

    same(program)
