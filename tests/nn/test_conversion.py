"""Module.to and the casts: in place, on parameters, their gradients and buffers."""

from __future__ import annotations

from typing import Any

import pytest

from gradlite import nn
from tests.nn.programs import family
from tests.oracle import same


@pytest.mark.parametrize("method", ["float", "double", "half"])
def test_casts(method: str) -> None:
    def program(library: Any) -> Any:
        module = family(library)()
        parameter = module.first.weight
        parameter.grad = library.ones(2, 2)
        returned = getattr(module, method)()
        return [
            returned is module,
            module.first.weight is parameter,
            parameter.dtype,
            parameter.grad.dtype,
            parameter.is_leaf,
            [b.dtype for b in module.buffers()],
        ]

    same(program)


def test_to() -> None:
    def program(library: Any) -> Any:
        module = family(library)()
        dtypes = []
        for arguments, options in [
            ((library.float64,), {}),
            (("cpu",), {}),
            (("cpu", library.float32), {}),
            ((), {"dtype": library.float64}),
            ((), {"device": "cpu"}),
            ((library.ones(1),), {}),
            ((library.device("cpu"), library.float64, True), {}),
        ]:
            assert module.to(*arguments, **options) is module
            dtypes.append([p.dtype for p in module.parameters()])
        return dtypes, [b.dtype for b in module.buffers()], module.type(library.float32) is module

    same(program)


@pytest.mark.parametrize(
    "arguments",
    [
        lambda library: ((library.int32,), {}),
        lambda library: (("fpga?",), {}),
        lambda library: ((), {"blah": 3}),
    ],
)
def test_wrong_arguments_of_to(arguments: Any) -> None:
    def program(library: Any) -> Any:
        args, kwargs = arguments(library)
        library.nn.Linear(1, 1).to(*args, **kwargs)

    same(program, raises=(TypeError, RuntimeError), message="type")


def test_an_optimizer_still_knows_the_parameters_after_a_conversion() -> None:
    module = nn.Linear(2, 2)
    before = list(module.parameters())
    module.double()
    assert all(a is b for a, b in zip(before, module.parameters(), strict=True))


CALLS_OF_TO: dict[str, Any] = {
    "dtype, device": lambda L, m: m.to(L.float64, "cpu"),
    "two devices": lambda L, m: m.to("cpu", "cpu"),
    "a tensor and a number": lambda L, m: m.to(L.ones(1), 3),
    "a dict": lambda L, m: m.to({}),
    "a module": lambda L, m: m.to(m),
    "a keyword": lambda L, m: m.to(place="cpu"),
    "a flag for a dtype": lambda L, m: m.to("cpu", True),
    "too many": lambda L, m: m.to("cpu", L.float64, True, False, 1),
}


@pytest.mark.parametrize("what", CALLS_OF_TO)
def test_wrong_calls_of_to(what: str) -> None:
    same(
        lambda library: CALLS_OF_TO[what](library, library.nn.Linear(1, 1)),
        raises=TypeError,
        message="type",
    )


def test_to_empty() -> None:
    def program(library: Any) -> Any:
        model = library.nn.Sequential(library.nn.Linear(2, 3), library.nn.BatchNorm1d(3))
        same_weight = model[0].weight
        result = model.to_empty(device="cpu")
        sizes = {name: tuple(t.shape) for name, t in model.state_dict().items()}
        return result is model, model[0].weight is same_weight, sizes

    same(program)


def test_a_function_that_writes_in_place_is_noticed() -> None:
    def program(library: Any) -> None:
        model = library.nn.Linear(2, 2)
        y = (model.weight * model.weight).sum()
        model._apply(lambda t: t.add_(1))
        y.backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="prefix")


@pytest.mark.parametrize("copy", [True, False])
def test_to_does_not_copy(copy: bool) -> None:
    same(
        lambda library: library.nn.Linear(1, 1).to("cpu", copy=copy),
        raises=RuntimeError,
        message="exact",
    )
