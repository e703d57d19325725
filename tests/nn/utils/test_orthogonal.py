"""Orthogonal weights: the same as PyTorch's from the same values, and orthogonal after training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import same

MAPS = ["matrix_exp", "cayley", "householder", None]
SIZES = [(4, 2), (2, 4), (3, 3), (1, 3), (2, 4, 3)]


def values(*shape: int) -> np.ndarray:
    return np.random.default_rng(sum(shape)).standard_normal(shape)


def orthonormal(*shape: int) -> np.ndarray:
    n = max(shape[-2:])
    return np.linalg.qr(values(*shape[:-2], n, n))[0][..., : shape[-2], : shape[-1]].copy()


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("trivialization", [True, False])
def test_the_same_weight_and_gradient(
    shape: tuple[int, ...], map_: str | None, trivialization: bool
) -> None:
    wide = shape[-2] < shape[-1]
    lower = np.tril(values(*shape).swapaxes(-1, -2) if wide else values(*shape), -1)
    n = max(shape[-2:])
    lower = lower + np.eye(*lower.shape[-2:])
    original = lower.swapaxes(-1, -2) if wide else lower

    def program(T: Any) -> Any:
        module = T.nn.Module()
        module.w = T.nn.Parameter(T.tensor(orthonormal(*shape)))
        orthogonal = T.nn.utils.parametrizations.orthogonal
        orthogonal(module, "w", map_, use_trivialization=trivialization)
        found = [sorted(module.state_dict()), module.parametrizations.w.original.detach().clone()]
        if trivialization and shape[-2] == shape[-1]:  # PyTorch draws the rest of the others
            found.append(module.w.detach())
        with T.no_grad():
            module.parametrizations.w.original.copy_(T.tensor(original))
            if trivialization:
                base = T.tensor(orthonormal(*shape[:-2], n, n))
                module.parametrizations.w[0].base.copy_(base)
        weight = module.w
        (weight**3).sum().backward()
        return *found, weight.detach(), module.parametrizations.w.original.grad

    same(program, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("shape", SIZES, ids=str)
@pytest.mark.parametrize("trivialization", [True, False])
def test_values_that_are_assigned(
    shape: tuple[int, ...], map_: str | None, trivialization: bool
) -> None:
    one_of_these = map_ == "householder" or (map_ is None and shape[-2] != shape[-1])

    def program(T: Any) -> Any:
        module = T.nn.Module()
        module.w = T.nn.Parameter(T.zeros(shape, dtype=T.float64))
        orthogonal = T.nn.utils.parametrizations.orthogonal
        orthogonal(module, "w", map_, use_trivialization=trivialization)
        module.w = T.tensor(orthonormal(*shape))
        return module.w.detach()

    refused = not (trivialization or one_of_these)
    same(program, raises=NotImplementedError if refused else None, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    "arguments",
    [{"name": "w"}, {"name": "bias"}, {"orthogonal_map": "exp"}, {"name": "forward"}],
    ids=str,
)
def test_errors(arguments: dict[str, Any]) -> None:
    def program(T: Any) -> Any:
        return T.nn.utils.parametrizations.orthogonal(T.nn.Linear(2, 3), **arguments)

    same(program, raises=ValueError, message="exact")


def test_a_weight_of_another_shape() -> None:
    def program(T: Any) -> None:
        layer = T.nn.utils.parametrizations.orthogonal(T.nn.Linear(2, 3))
        layer.weight = T.ones(3, 3)

    same(program, raises=ValueError, message="exact")


@pytest.mark.parametrize("map_", MAPS)
@pytest.mark.parametrize("sizes", [(5, 3), (3, 5), (4, 4)])
def test_orthogonal_before_and_after_training(sizes: tuple[int, int], map_: str | None) -> None:
    gradlite.manual_seed(0)
    layer = gradlite.nn.Linear(*sizes)
    start = layer.weight.detach().clone()
    gradlite.nn.utils.parametrizations.orthogonal(layer, orthogonal_map=map_)
    optimizer = gradlite.optim.SGD(layer.parameters(), lr=0.1)
    one, seen = gradlite.eye(min(sizes)), []
    for _ in range(4):
        weight = layer.weight.detach()
        seen.append(weight.clone())
        product = weight @ weight.T if sizes[0] > sizes[1] else weight.T @ weight
        assert gradlite.allclose(product, one, atol=1e-5)
        optimizer.zero_grad()
        layer(gradlite.randn(8, sizes[0])).square().sum().backward()
        optimizer.step()
    assert not gradlite.allclose(seen[0], seen[-1], atol=1e-3)
    assert (seen[0] * start).sum() > 0.5 * start.norm()  # the columns point where they did


def test_a_state_brings_its_base() -> None:
    def layer() -> Any:
        return gradlite.nn.utils.parametrizations.orthogonal(gradlite.nn.Linear(3, 5))

    one, other = layer(), layer()
    other.load_state_dict(one.state_dict())
    assert other.weight.equal(one.weight)
