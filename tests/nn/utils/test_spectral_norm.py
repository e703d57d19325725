"""Spectral normalisation by a hook."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same

LAYERS = {
    "linear": (lambda nn: nn.Linear(3, 5), (4, 3)),
    "conv": (lambda nn: nn.Conv2d(2, 3, 2), (1, 2, 4, 4)),
    "transposed conv": (lambda nn: nn.ConvTranspose2d(2, 3, 2), (1, 2, 4, 4)),
}


def normed(library: Any, layer: Any, **options: Any) -> Any:
    """With the same vectors in both libraries, which draw them differently."""
    module = library.nn.utils.spectral_norm(layer, **options)
    for seed, vector in enumerate((module.weight_u, module.weight_v)):
        value = tensor(library, 5 + seed, *vector.shape).to(vector.dtype)
        vector.copy_(value / value.norm())
    return module


@pytest.mark.parametrize("name", LAYERS)
@pytest.mark.parametrize("options", [{}, {"n_power_iterations": 3}, {"dim": 1}])
def test_spectral_norm(name: str, options: dict[str, Any]) -> None:
    make, shape = LAYERS[name]

    def program(library: Any) -> Any:
        layer = fill(library, make(library.nn))
        x = tensor(library, 1, *shape, requires_grad=True)
        module = normed(library, layer, **options)
        before = [module.weight.detach().clone(), module.weight.requires_grad]
        # Two passes before the gradients, whose vectors are different.
        output = module(x) + 2 * module(x * 2)
        output.sin().sum().backward()
        results = [module is layer, before, output.detach(), module.weight_orig.grad, x.grad]
        module.eval()
        results += [module(x).detach(), module(x).detach()]
        names = [list(module.state_dict()), [n for n, _ in module.named_parameters()]]
        return [*results, dict(module.state_dict()), names, repr(module)]

    same(program, rtol=1e-8, atol=1e-8)


def test_removal_and_errors() -> None:
    def program(library: Any) -> Any:
        utils = library.nn.utils
        layer = normed(library, fill(library, library.nn.Linear(3, 2)))
        x = tensor(library, 1, 4, 3)
        first = layer(x).detach()
        twice = outcome_of(lambda: utils.spectral_norm(layer))
        utils.remove_spectral_norm(layer)
        return [
            *(first, layer(x).detach(), list(layer.state_dict()), type(layer.weight), twice),
            outcome_of(lambda: utils.remove_spectral_norm(layer)),
            outcome_of(lambda: utils.spectral_norm(layer, n_power_iterations=0)),
            outcome_of(lambda: utils.spectral_norm(library.nn.Linear(2, 2, bias=False), "bias")),
        ]

    same(program, message="exact", rtol=1e-9, atol=1e-9)


def test_the_vectors_are_unit_vectors() -> None:
    def program(library: Any) -> Any:
        layer = library.nn.utils.spectral_norm(library.nn.Linear(7, 9).double())
        return [layer.weight_u.norm(), layer.weight_v.norm(), layer.weight_u.shape]

    same(program, rtol=1e-9, atol=1e-9)
