"""Convolution and pooling of volumes: odd numbers, ties, NaN and messages as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import same

# Shapes of input and weight, then stride, padding, output_padding, groups, dilation.
TRANSPOSED: dict[str, tuple[Any, ...]] = {
    "plain": ((2, 2, 3, 2, 3), (2, 3, 2, 2, 2), 1, 0, 0, 1, 1),
    "padding beyond the kernel": ((1, 2, 3, 4, 3), (2, 2, 1, 2, 1), 1, 1, 0, 1, 1),
    "output padding without padding": ((1, 2, 3, 2, 3), (2, 2, 2, 3, 1), 2, 0, (1, 0, 1), 1, 1),
    "all": ((2, 4, 3, 2, 3), (4, 3, 2, 3, 2), (2, 1, 3), (1, 1, 0), (1, 0, 2), 2, (2, 1, 2)),
}
WRONG_TRANSPOSED: dict[str, tuple[Any, ...]] = {
    "too much output padding": ((1, 2, 3, 2, 3), (2, 2, 2, 2, 2), 2, 0, (0, 2, 1), 1, 1),
    "too much padding": ((1, 2, 2, 2, 2), (2, 2, 1, 2, 2), 1, 2, 0, 1, 1),
}
POOLS: dict[str, tuple[Any, ...]] = {
    "ties": ((1, 2, 4, 4, 4), (2, 2, 2), 1, 0),
    "padding": ((2, 1, 3, 4, 5), (3, 2, 3), 2, 1),
}
WRONG_POOLS: dict[str, tuple[Any, ...]] = {
    "no room along the depth": ((1, 2, 2, 5, 5), (3, 2, 2), 1, 0),
    "no room along the width": ((1, 2, 5, 5, 2), (2, 2, 3), 1, 0),
    "too much padding": ((1, 2, 5, 5, 5), 2, 1, (1, 2, 1)),
    "no step": ((1, 2, 5, 5, 5), 2, (1, 0, 1), 0),
}


def tensors(library: Any, *shapes: tuple[int, ...]) -> list[Any]:
    rng = np.random.default_rng(0)
    return [library.tensor(rng.standard_normal(s), requires_grad=True) for s in shapes]


def transposed(library: Any, case: tuple[Any, ...]) -> Any:
    x, w, b = tensors(library, *case[:2], (case[1][1] * case[5],))
    y = library.nn.functional.conv_transpose3d(x, w, b, *case[2:])
    return y, library.autograd.grad((y * y).sum(), (x, w, b))


def pooled(library: Any, case: tuple[Any, ...], kind: str) -> Any:
    """The result of pooling of few different values and one NaN, and the gradient."""
    shape, *settings = case
    array = np.random.default_rng(0).integers(0, 4, shape).astype(float)
    array.flat[3] = np.nan
    x = library.tensor(array, requires_grad=True)
    pool = getattr(library.nn.functional, f"{kind}_pool3d")
    outputs = pool(x, *settings, return_indices=True) if kind == "max" else [pool(x, *settings)]
    (grad,) = library.autograd.grad(outputs[0].nan_to_num().sum(), x)
    return [o.detach() for o in outputs], grad


@pytest.mark.parametrize("case", TRANSPOSED.values(), ids=TRANSPOSED.keys())
def test_transposed_convolutions(case: tuple[Any, ...]) -> None:
    same(lambda library: transposed(library, case))


@pytest.mark.parametrize("case", WRONG_TRANSPOSED.values(), ids=WRONG_TRANSPOSED.keys())
def test_transposed_convolutions_that_are_refused(case: tuple[Any, ...]) -> None:
    same(lambda library: transposed(library, case), raises=RuntimeError, message="exact")


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("case", POOLS.values(), ids=POOLS.keys())
def test_pooling(case: tuple[Any, ...], kind: str) -> None:
    same(lambda library: pooled(library, case, kind))


@pytest.mark.parametrize("kind", ["max", "avg"])
@pytest.mark.parametrize("case", WRONG_POOLS.values(), ids=WRONG_POOLS.keys())
def test_pooling_that_is_refused(case: tuple[Any, ...], kind: str) -> None:
    same(lambda library: pooled(library, case, kind), raises=RuntimeError, message="exact")


def test_a_dilated_maximum_skips_frames() -> None:
    def program(library: Any) -> Any:
        x = library.arange(27.0).reshape(1, 3, 3, 3)
        return library.nn.functional.max_pool3d(x, 2, 1, 0, 2, return_indices=True)

    same(program)
