"""sort, topk, unique and searchsorted: order of ties and NaN, dtypes, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

NAN = float("nan")
DTYPES = ["uint8", "int8", "int32", "int64", "float16", "bfloat16", "float32", "bool"]


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("dtype", DTYPES)
def test_stable_sort_keeps_the_order_of_ties(dtype: str, descending: bool) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[3, 1, 3, 0, 1, 3], [0, 0, 1, 1, 0, 0]]).to(getattr(T, dtype))
        return T.sort(t, stable=True, dim=1, descending=descending)

    same(program)


@pytest.mark.parametrize("descending", [False, True])
def test_nan_is_the_largest(descending: bool) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1.0, NAN, -1.0, float("inf")])
        return t.sort(descending=descending), t.argsort(descending=descending)

    same(program)


def test_sort_of_a_large_row_is_a_permutation_in_order() -> None:
    import gradlite

    x = gradlite.rand(3, 1000)
    for descending in (False, True):
        values, indices = x.sort(descending=descending)
        expected = np.sort(x.numpy(), axis=1)
        np.testing.assert_array_equal(values.numpy(), expected[:, ::-1] if descending else expected)
        assert (x.gather(1, indices) == values).all()


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("k", [1, 5, 400, 999, 1000])
def test_topk_agrees_with_sort(k: int, largest: bool) -> None:
    import gradlite

    x = gradlite.randperm(3000).reshape(3, 1000)
    values, indices = x.topk(k, largest=largest)
    assert (values == x.sort(descending=largest).values[:, :k]).all()
    assert (x.gather(1, indices) == values).all()


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize("dim", [0, -1])
@pytest.mark.parametrize("kind", ["distinct", "equal", "nan", "nan at the end", "inf", "few large"])
def test_topk_of_many_numbers(kind: str, dim: int, largest: bool) -> None:
    """Few of so many that most are never put in order."""
    x = np.random.default_rng(0).standard_normal((3, 517)).astype(np.float32)
    if kind == "equal":
        x = x.round(1)
    elif kind == "nan":
        x[1, [5, 300]] = np.nan
    elif kind == "nan at the end":
        x[2, -1] = np.nan
    elif kind == "inf":
        x[0, [3, 4, 400]], x[1, 7] = np.inf, -np.inf
    elif kind == "few large":
        x[:, 2 :: 517 // 16] += np.float32(100.0 if largest else -100.0)
    whole = np.ascontiguousarray(x.T) if dim == 0 else x

    def program(T: Any) -> Any:
        found = T.tensor(whole).topk(9, dim, largest)
        return found.values, found.indices if kind in ("distinct", "few large") else None

    same(program)


def test_messages() -> None:
    def program(T: Any) -> Any:
        t = T.arange(3.0)
        return [
            outcome_of(lambda: t.topk(4)),
            outcome_of(lambda: t.topk(-1)),
            outcome_of(lambda: t.kthvalue(0)),
            outcome_of(lambda: t.kthvalue(4)),
            outcome_of(lambda: t.sort(1)),
            outcome_of(lambda: T.searchsorted(t, t, side="x")),
            outcome_of(lambda: T.searchsorted(t, t, side="left", right=True)),
            outcome_of(lambda: T.searchsorted(T.ones(2, 3), t)),
            outcome_of(lambda: T.bucketize(t, T.ones(1, 3))),
        ]

    same(program, message="exact")


@pytest.mark.parametrize("dtype", DTYPES)
def test_unique(dtype: str) -> None:
    def program(T: Any) -> Any:
        if dtype == "float16":
            return None  # PyTorch has no kernel for it
        t = T.tensor([[3, 1, 3], [0, 1, 0]]).to(getattr(T, dtype))
        return (
            t.unique(),
            t.unique(return_inverse=True, return_counts=True),
            t.unique(dim=1, return_inverse=True),
            t.unique_consecutive(return_counts=True),
        )

    same(program)


def test_unique_of_nothing_and_of_numbers() -> None:
    def program(T: Any) -> Any:
        return (
            T.unique(T.tensor([])),
            T.unique(T.tensor([]), return_inverse=True, return_counts=True),
            T.unique(T.tensor(3), return_inverse=True),
            T.unique(T.tensor([NAN, 1.0, NAN]), return_counts=True),
        )

    same(program)


@pytest.mark.parametrize("right", [False, True])
def test_searchsorted_takes_numbers_and_other_dtypes(right: bool) -> None:
    def program(T: Any) -> Any:
        bounds = T.tensor([1, 2, 2, 4])
        return (
            T.searchsorted(bounds, 2, right=right),
            T.searchsorted(bounds, T.tensor([1.5, 2.0]), right=right),
            T.bucketize(T.tensor([[2, 5], [0, 4]]), bounds, right=right),
            T.bucketize(2.5, bounds, right=right, out_int32=True),
        )

    same(program)


def test_gradients_of_sorted_values() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([3.0, 1.0, 2.0], requires_grad=True)
        weights = T.tensor([1.0, 10.0, 100.0])
        (x.sort().values * weights).sum().backward()
        (x.topk(2).values * weights[:2]).sum().backward()
        x.kthvalue(2).values.backward()
        return x.grad

    same(program)
