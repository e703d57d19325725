"""gather, index_select, take, masked_select, nonzero: dtypes of indices, bounds, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.ops import positions
from tests.oracle import outcome_of, same


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8", "float32", "bool"])
@pytest.mark.parametrize("name", ["gather", "index_select", "take", "take_along_dim"])
def test_dtypes_of_indices(name: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1.0, 2.0, 3.0])
        index = T.tensor([1, 0]).to(getattr(T, dtype))
        arguments = {"take": (index,), "take_along_dim": (index, 0)}.get(name, (0, index))
        return outcome_of(lambda: getattr(t, name)(*arguments))

    same(program, message="type")


def test_messages() -> None:
    def program(T: Any) -> Any:
        t = T.ones(2, 3)
        long = T.tensor([[0]])
        return [
            outcome_of(lambda: t.gather(1, T.tensor([[5]]))),
            outcome_of(lambda: t.gather(1, T.tensor([[-1]]))),
            outcome_of(lambda: t.gather(1, T.tensor([0]))),
            outcome_of(lambda: t.gather(1, T.zeros(3, 1, dtype=T.int64))),
            outcome_of(lambda: t.gather(1, T.zeros(2, 1))),
            outcome_of(lambda: t.gather(2, long)),
            outcome_of(lambda: t.index_select(1, T.tensor([3]))),
            outcome_of(lambda: t.index_select(1, T.tensor([-1]))),
            outcome_of(lambda: t.index_select(1, long)),
            outcome_of(lambda: t.index_select(1, T.tensor([1.0]))),
            outcome_of(lambda: T.tensor(1.0).index_select(0, T.tensor([0, 0]))),
            outcome_of(lambda: t.take(T.tensor([6]))),
            outcome_of(lambda: t.take(T.tensor([0.0]))),
            outcome_of(lambda: t.masked_select(T.ones(2, 3))),
            outcome_of(lambda: t.masked_select(T.ones(4, dtype=T.bool))),
            outcome_of(lambda: t.take_along_dim(T.tensor([0]), 1)),
        ]

    same(program, message="exact")


def test_shapes_of_0_and_1_dimension_mix() -> None:
    def program(T: Any) -> Any:
        scalar, row = T.tensor(2.0, requires_grad=True), T.arange(3.0)
        result = scalar.gather(0, T.tensor([0, 0]))
        result.sum().backward()
        return (
            result,
            scalar.grad,
            scalar.gather(0, T.tensor(0)),
            row.gather(0, T.tensor(2)),
            row.index_select(0, T.tensor(1)),
            scalar.index_select(0, T.tensor([0])),
        )

    same(program)


def test_an_empty_index_gives_an_empty_result_in_the_graph() -> None:
    def program(T: Any) -> Any:
        x = T.ones(2, 3, requires_grad=True)
        result = x.gather(1, T.zeros(0, 5, dtype=T.int64))
        result.sum().backward()
        return result.shape, result.requires_grad, x.grad

    same(program)


def test_repeated_indices_add_their_gradients() -> None:
    def program(T: Any) -> Any:
        x = T.arange(6.0).reshape(2, 3).requires_grad_()
        weights = T.tensor([[1.0, 10.0, 100.0], [2.0, 20.0, 200.0]])
        (x.gather(1, T.tensor([[0, 0, 2], [1, 1, 1]])) * weights).sum().backward()
        (x.index_select(0, T.tensor([1, 1, 0]))[1:] * weights).sum().backward()
        (x.take(T.tensor([[5, 5, -1], [0, -6, 1]])) * weights).sum().backward()
        return x.grad

    same(program)


@pytest.mark.parametrize("name", ["gather", "index_select", "masked_select"])
def test_an_index_edited_before_backward_is_noticed(name: str) -> None:
    def program(T: Any) -> Any:
        x = T.ones(3, requires_grad=True)
        mask = name == "masked_select"
        index = T.tensor([True, True, False]) if mask else T.tensor([0, 1])
        result = getattr(x, name)(*(() if mask else (0,)), index)
        index.fill_(0)
        result.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="prefix")


def test_nonzero() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[0, 1], [2, 0]])
        return (
            t.nonzero(),
            T.nonzero(t, as_tuple=True),
            T.tensor(3).nonzero(),
            T.tensor(0).nonzero(),
            T.tensor(3).nonzero(as_tuple=True),
            T.zeros(0, 2).nonzero(),
            T.argwhere(T.tensor([0.0, float("nan")])),
            T.where(t > 0),
        )

    same(program)


def test_take_along_dim_sorts() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[3, 1, 2], [6, 5, 4]])
        return (
            T.take_along_dim(t, t.argsort(dim=1), dim=1),
            T.take_along_dim(t, T.tensor([[0, 2]]), 1),
            T.take_along_dim(t, T.tensor([5, 0])),
        )

    same(program)


@pytest.mark.parametrize("dim", range(3))
def test_places_are_those_that_are_looked_up(dim: int, monkeypatch: Any) -> None:
    """Where the rows of small indices start is kept; the others' is counted each time."""
    index = np.random.default_rng(dim).integers(0, 2, (2, 1, 3))
    x = np.arange(60).reshape(3, 4, 5)
    cut = tuple(slice(None if d == dim else n) for d, n in enumerate(index.shape))
    expected = np.take_along_axis(x[cut], index, dim)
    for few in (index.size, index.size, 0):
        monkeypatch.setattr(positions, "_FEW", few)
        places = positions.along(np, x.shape, index, dim)
        assert (x.reshape(-1)[places] == expected).all() and places.dtype == np.int64


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int8", "int64", "uint64"])
def test_least_and_most(dtype: str) -> None:
    for numbers in ([3, 1, 2], [[0, 5], [7, 7]], 4, [1, np.nan, 9]):
        if np.isnan(numbers).any() and dtype[0] != "f":
            continue
        array = np.array(numbers, dtype)
        for view in (array, array.T[::-1] if array.ndim else array):
            with np.errstate(invalid="ignore"):
                expected = view.min(), view.max()
            found = positions.least(view), positions.most(view)
            np.testing.assert_array_equal(found, expected)
