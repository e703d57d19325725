"""Weight normalisation."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same


def normed(library: Any, *args: Any) -> Any:
    """PyTorch deprecates its function in favour of one that needs parametrizations."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return library.nn.utils.weight_norm(*args)


@pytest.mark.parametrize("dim", [0, 1, -1, None])
def test_weight_norm(dim: int | None) -> None:
    def program(library: Any) -> Any:
        linear = fill(library, library.nn.Linear(3, 2))
        x = tensor(library, 1, 4, 3, requires_grad=True)
        before = linear(x).detach()
        module = normed(library, linear, "weight", dim)
        state = {key: value.clone() for key, value in module.state_dict().items()}
        with library.no_grad():
            module.weight_g.mul_(2)
        output = module(x)
        output.sum().backward()
        return [
            *(module is linear, before, state, list(dict(module.named_parameters()))),
            *(output.detach(), module.weight_g.grad, module.weight_v.grad, x.grad),
            repr(module),
        ]

    same(program, rtol=1e-9, atol=1e-9)


def test_convolutions_and_removal() -> None:
    def program(library: Any) -> Any:
        conv = fill(library, library.nn.Conv2d(2, 3, 2))
        x = tensor(library, 1, 1, 2, 4, 4)
        module = normed(library, conv)
        twice = outcome_of(lambda: normed(library, module))
        shapes = [tuple(p.shape) for p in module.parameters()]
        first = module(x).detach()
        library.nn.utils.remove_weight_norm(module)
        return [
            *(shapes, first, module(x).detach(), list(module.state_dict())),
            *(type(module.weight), module.weight.is_leaf, twice),
            outcome_of(lambda: library.nn.utils.remove_weight_norm(module)),
        ]

    same(program, message="exact", rtol=1e-9, atol=1e-9)
