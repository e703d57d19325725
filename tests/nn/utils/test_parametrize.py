"""Parametrizations: values, gradients, states and errors as in PyTorch."""

from __future__ import annotations

import copy
import importlib
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
from gradlite.nn.utils import parametrizations, parametrize
from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same


def tools(library: Any) -> Any:
    return importlib.import_module(f"{library.__name__}.nn.utils.parametrize")


def module_of(library: Any, forward: Callable[..., Any], inverse: Any = None) -> Any:
    """A parametrization made of functions."""

    class Made(library.nn.Module):  # type: ignore[misc, name-defined]
        def forward(self, *x: Any) -> Any:
            return forward(*x)

    class MadeWithInverse(Made):
        def right_inverse(self, x: Any) -> Any:
            return inverse(x)

    return Made() if inverse is None else MadeWithInverse()


def symmetric(library: Any) -> Any:
    return module_of(library, lambda x: x.triu() + x.triu(1).T, lambda x: x.triu())


def squared(library: Any) -> Any:
    return module_of(library, lambda x: x * x)


def rank_one(library: Any) -> Any:
    return module_of(
        library, lambda a, b: a.unsqueeze(-1) @ b.unsqueeze(-2), lambda x: (x[:, 0], x[0] / x[0, 0])
    )


def observed(library: Any, module: Any, x: Any) -> list[Any]:
    output = module(x)
    output.sum().backward()
    return [
        *(output.detach(), module.weight.detach(), repr(module), type(module).__name__),
        {name: (p.detach().clone(), p.grad) for name, p in module.named_parameters()},
        {name: value.clone() for name, value in module.state_dict().items()},
        tools(library).is_parametrized(module),
        tools(library).is_parametrized(module, "bias"),
        tools(library).type_before_parametrizations(module).__name__,
    ]


@pytest.mark.parametrize("kinds", [[symmetric], [squared], [rank_one], [symmetric, squared]])
def test_use_and_removal(kinds: list[Callable[[Any], Any]]) -> None:
    def program(library: Any) -> Any:
        P = tools(library)
        x = tensor(library, 1, 4, 3)

        def build() -> Any:
            module = fill(library, library.nn.Linear(3, 3))
            for kind in kinds:
                assert P.register_parametrization(module, "weight", kind(library)) is module
            return module

        module, other = build(), build()
        found = observed(library, module, x)
        copied = copy.deepcopy(module)
        with library.no_grad():
            next(iter(module.parametrizations.weight.parameters())).mul_(2)
        found += [copied(x).detach(), module(x).detach(), list(copied.state_dict())]
        copied.load_state_dict(module.state_dict())
        found += [copied(x).detach()]
        found += [
            outcome_of(lambda: len(P.remove_parametrizations(other, "weight", False)._modules))
        ]
        found += [other.weight.detach(), type(other).__name__, list(other.state_dict())]
        P.remove_parametrizations(module, "weight")
        found += [module.weight.detach(), type(module).__name__, list(module.state_dict())]
        return [*found, module(x).detach(), type(module.weight).__name__, module.weight.is_leaf]

    same(program, rtol=1e-9, atol=1e-9)


def test_assignment() -> None:
    def program(library: Any) -> Any:
        P = tools(library)
        module = fill(library, library.nn.Linear(3, 3))
        values = tensor(library, 1, 3, 3)
        P.register_parametrization(module, "weight", symmetric(library))
        module.weight = values + values.T
        first = module.weight.detach()
        many = fill(library, library.nn.Linear(3, 3))
        P.register_parametrization(many, "weight", rank_one(library))
        many.weight = values
        plain = P.register_parametrization(
            fill(library, library.nn.Linear(3, 3)), "bias", squared(library)
        )
        return [
            *(first, many.weight.detach(), many.state_dict()),
            outcome_of(lambda: setattr(plain, "bias", values[0])),
            outcome_of(lambda: setattr(module, "weight", library.nn.Parameter(values))),
            outcome_of(lambda: setattr(module, "weight", values.float())),
            outcome_of(lambda: pickle.dumps(module)),
        ]

    same(program, rtol=1e-9, atol=1e-9, message="exact")


def test_a_buffer_and_training_mode() -> None:
    def program(library: Any) -> Any:
        P = tools(library)
        module = library.nn.BatchNorm1d(3).eval()
        module.running_mean.add_(2)
        made = squared(library)
        P.register_parametrization(module, "running_mean", made)
        found = [made.training, module.running_mean, module.train().training, made.training]
        found += [list(module.state_dict()), [name for name, _ in module.named_buffers()]]
        P.remove_parametrizations(module, "running_mean")
        return [*found, module.running_mean, [name for name, _ in module.named_buffers()]]

    same(program)


def test_cached() -> None:
    calls = []

    def counted(x: Any) -> Any:
        calls.append(1)
        return x * 2

    linear = gradlite.nn.Linear(2, 2)
    parametrize.register_parametrization(linear, "weight", module_of(gradlite, counted))
    calls.clear()
    with parametrize.cached():
        with parametrize.cached():
            first = linear.weight
        assert linear.weight is first and len(calls) == 1
    assert linear.weight is not first and len(calls) == 2
    with pytest.raises(KeyError), parametrize.cached():
        raise KeyError
    assert linear.weight is not linear.weight


BAD: dict[str, Callable[[Any], Any]] = {
    "no such name": lambda t: ("other", squared(t)),
    "a number": lambda t: ("weight", module_of(t, lambda x: 1.0)),
    "another shape": lambda t: ("weight", module_of(t, lambda x: x[0])),
    "another dtype": lambda t: ("weight", module_of(t, lambda x: x.float())),
    "inverse is no tensor": lambda t: ("weight", module_of(t, lambda x: x, lambda x: 1)),
    "inverse has no tensors": lambda t: ("weight", module_of(t, lambda x: x, lambda x: [1])),
    "inverse of another dtype": lambda t: ("weight", module_of(t, lambda x: x, lambda x: x.int())),
}


@pytest.mark.parametrize("second", [False, True])
@pytest.mark.parametrize("name", BAD)
def test_refused(name: str, second: bool) -> None:
    def program(library: Any) -> Any:
        P = tools(library)
        module = fill(library, library.nn.Linear(2, 2))
        if second:
            P.register_parametrization(module, "weight", squared(library))
        found = outcome_of(lambda: P.register_parametrization(module, *BAD[name](library)))
        assert not isinstance(found, library.nn.Module)
        return found

    same(program, message="exact")


def test_refused_removal() -> None:
    def program(library: Any) -> Any:
        module = library.nn.Linear(2, 2)
        return outcome_of(lambda: tools(library).remove_parametrizations(module, "weight"))

    same(program, message="exact")


def test_unsafe_may_change_the_shape() -> None:
    def program(library: Any) -> Any:
        module = fill(library, library.nn.Linear(3, 2))
        halved = module_of(library, lambda x: x[:1])
        tools(library).register_parametrization(module, "weight", halved, unsafe=True)
        return module.weight.detach(), module.parametrizations.weight.unsafe

    same(program)


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_weight_norm(dim: int | None) -> None:
    def program(library: Any) -> Any:
        from_file = importlib.import_module(f"{library.__name__}.nn.utils.parametrizations")
        linear = fill(library, library.nn.Linear(3, 2))
        x = tensor(library, 1, 4, 3, requires_grad=True)
        before = linear(x).detach()
        module = from_file.weight_norm(linear, dim=dim)
        found = observed(library, module, x)
        state = {
            key.replace("parametrizations.weight.original0", "weight_g").replace(
                "parametrizations.weight.original1", "weight_v"
            ): value * 2
            for key, value in module.state_dict().items()
        }
        module.load_state_dict(state)
        return [before, found, module(x).detach(), module.state_dict()]

    same(program, rtol=1e-9, atol=1e-9)


LAYERS: dict[str, tuple[Callable[[Any], Any], tuple[int, ...], dict[str, Any]]] = {
    "linear": (lambda nn: nn.Linear(3, 4), (2, 3), {}),
    "two iterations": (lambda nn: nn.Linear(3, 4), (2, 3), {"n_power_iterations": 2}),
    "columns": (lambda nn: nn.Linear(3, 4), (2, 3), {"dim": -1}),
    "convolution": (lambda nn: nn.Conv2d(2, 3, 2), (1, 2, 4, 4), {}),
    "transposed": (lambda nn: nn.ConvTranspose2d(2, 3, 2), (1, 2, 4, 4), {}),
    "a vector": (lambda nn: nn.Linear(3, 4), (2, 3), {"name": "bias"}),
}


@pytest.mark.parametrize("name", LAYERS)
def test_spectral_norm(name: str) -> None:
    make, shape, options = LAYERS[name]

    def program(library: Any) -> Any:
        from_file = importlib.import_module(f"{library.__name__}.nn.utils.parametrizations")
        module = fill(library, make(library.nn))
        from_file.spectral_norm(module, **options)
        for seed, (_, buffer) in enumerate(module.named_buffers()):  # drawn at random
            buffer.copy_(tensor(library, seed, *buffer.shape))
        x = tensor(library, 1, *shape)
        found = []
        (module(x).sum() - (module(x) ** 2).sum()).backward()  # two looks before one backward
        found += [(name, p.detach(), p.grad) for name, p in module.named_parameters()]
        found += [module(x).detach(), module.eval()(x).detach(), module(x).detach()]
        return [*found, module.state_dict(), repr(module)]

    same(program, rtol=1e-8, atol=1e-8)


def test_spectral_norm_refused() -> None:
    def program(library: Any) -> Any:
        from_file = importlib.import_module(f"{library.__name__}.nn.utils.parametrizations")
        calls = [{"name": "other"}, {"dim": 2}, {"n_power_iterations": 0}]
        return [
            outcome_of(lambda kw=kw: from_file.spectral_norm(library.nn.Linear(2, 2), **kw))
            for kw in calls
        ]

    same(program, message="exact")


@pytest.mark.parametrize("make", [parametrizations.weight_norm, parametrizations.spectral_norm])
@pytest.mark.parametrize("native", [False, True])
def test_captured(make: Callable[[Any], Any], native: bool) -> None:
    def trained(capture: bool) -> list[gradlite.Tensor]:
        gradlite.manual_seed(0)
        nn = gradlite.nn
        model = nn.Sequential(make(nn.Linear(3, 8)), nn.Tanh(), make(nn.Linear(8, 2)))
        optimizer = gradlite.optim.Adam(model.parameters(), lr=0.05)
        x = gradlite.randn(6, 3)

        def step(x: gradlite.Tensor) -> gradlite.Tensor:
            optimizer.zero_grad()
            loss: gradlite.Tensor = model(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        run = gradlite.capture(step, native=native) if capture else step
        losses = [run(x).detach() for _ in range(6)]
        assert not capture or run.replays > 0
        return [*losses, *(value.clone() for value in model.state_dict().values())]

    for ours, expected in zip(trained(True), trained(False), strict=True):
        gradlite.testing.assert_close(ours, expected, rtol=1e-4, atol=1e-5)
