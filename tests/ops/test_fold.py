"""unfold and fold: each other's transposes, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import same


def tensor(library: Any, *shape: int) -> Any:
    values = np.random.default_rng(0).standard_normal(shape)
    return library.tensor(values, requires_grad=True)


@pytest.mark.parametrize(
    "settings",
    [(3,), ((2, 3), 2, 1, (2, 1)), (2, 1, 0, 2), ((1, 2), 1, (0, 2), 3), ((3, 1), 2)],
    ids=str,
)
@pytest.mark.parametrize("batch", [(2,), (), (0,)], ids=str)
def test_there_and_back(settings: tuple[Any, ...], batch: tuple[int, ...]) -> None:
    def program(library: Any) -> Any:
        F = library.nn.functional
        x = tensor(library, *batch, 3, 6, 7)
        y = F.unfold(x, *settings)
        z = F.fold(y * y, (6, 7), *settings)
        return y, z, library.autograd.grad((z * z).sum(), x)

    same(program, rtol=1e-9, atol=1e-10)


def test_unfolding_gives_the_columns_of_a_convolution() -> None:
    def program(library: Any) -> Any:
        F = library.nn.functional
        x, w = tensor(library, 2, 3, 5, 5), tensor(library, 4, 3, 2, 2)
        product = w.view(4, -1) @ F.unfold(x, 2)
        return product.view(2, 4, 4, 4) - F.conv2d(x, w)

    assert abs(same(lambda library: program(library) * 0).values).max() == 0
    same(program, atol=1e-12)


WRONG: dict[str, Any] = {
    "no window fits": lambda F, T: F.unfold(T(2, 3, 2, 2), 3),
    "kernel 0": lambda F, T: F.unfold(T(2, 3, 6, 6), 0),
    "dilation 0": lambda F, T: F.unfold(T(2, 3, 6, 6), 3, dilation=0),
    "stride 0": lambda F, T: F.unfold(T(2, 3, 6, 6), 3, stride=0),
    "negative padding": lambda F, T: F.unfold(T(2, 3, 6, 6), 3, padding=-1),
    "no channels": lambda F, T: F.unfold(T(2, 0, 6, 6), 3),
    "dimensions": lambda F, T: F.unfold(T(6, 6), 3),
    "kernel of one": lambda F, T: F.unfold(T(2, 3, 6, 6), (3,)),
    "kernel of three": lambda F, T: F.unfold(T(2, 3, 6, 6), (3, 2, 1)),
    "integers": lambda F, T: F.unfold(T(2, 3, 6, 6).long(), 3),
    "length": lambda F, T: F.fold(T(2, 28, 16), (6, 6), 3),
    "windows": lambda F, T: F.fold(T(2, 27, 15), (6, 6), 3),
    "no windows": lambda F, T: F.fold(T(2, 27, 16), (2, 2), 3),
    "too many dimensions": lambda F, T: F.fold(T(2, 27, 15, 1), (6, 6), 3),
    "output size of one": lambda F, T: F.fold(T(2, 27, 16), (6,), 3),
    "fold with stride 0": lambda F, T: F.fold(T(2, 27, 16), (6, 6), 3, stride=0),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.functional, library.ones),
        raises=(RuntimeError, IndexError, NotImplementedError),
        message="exact",
    )
