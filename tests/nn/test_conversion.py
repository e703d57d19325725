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
