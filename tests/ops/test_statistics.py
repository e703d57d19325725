"""Variance, median, sums without NaN, histograms: warnings, dtypes, degenerate inputs."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

NAN = float("nan")


@pytest.mark.parametrize("name", ["std", "var"])
def test_too_few_elements_warn(name: str) -> None:
    same(
        lambda T: getattr(T.ones(1), name)(),
        warns="degrees of freedom is <= 0",
        message="exact",
    )


@pytest.mark.parametrize("name", ["std_mean", "var_mean"])
def test_the_warning_names_the_function(name: str) -> None:
    same(lambda T: getattr(T, name)(T.ones(1)), warns=f"{name}\\(\\): degrees", message="exact")


@pytest.mark.parametrize(
    "arguments",
    [(), (False,), (0,), (0, False), (0, True, True), ((0, 1),), (None,)],
    ids=repr,
)
def test_the_forms_of_a_call(arguments: Any) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 8.0]])
        return t.std(*arguments), T.var(t, *arguments), T.std_mean(t, *arguments)

    same(program)


def test_corrections() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1.0, 2.0, 4.0], [3.0, 3.0, 8.0]])
        return [t.var(1, correction=c) for c in (0, 1, 2)] + [t.std(correction=0, keepdim=True)]

    same(program)


@pytest.mark.parametrize("name", ["std", "var"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64", "bool"])
def test_dtypes(name: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1, 0, 1, 1]).to(getattr(T, dtype))
        return outcome_of(lambda: getattr(t, name)())

    same(program, message="exact")


def test_the_slope_of_a_deviation_of_0_is_0() -> None:
    def program(T: Any) -> Any:
        x = T.full((3,), 2.0, requires_grad=True)
        x.std().backward()
        return x.grad

    same(program)


def test_a_large_mean_costs_no_accuracy() -> None:
    import gradlite

    values = np.random.default_rng(0).standard_normal(1000) + 1e4
    t = gradlite.tensor(values.astype(np.float32))
    assert t.var().item() == pytest.approx(
        values.astype(np.float32).astype(float).var(ddof=1), rel=1e-4
    )


@pytest.mark.parametrize("name", ["median", "nanmedian"])
def test_medians(name: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[3.0, NAN, 1.0, 2.0], [7.0, 5.0, 6.0, 8.0]])
        return (
            getattr(t, name)(),
            getattr(t, name)(1),
            getattr(t, name)(dim=0, keepdim=True),
            getattr(T.tensor([4, 1, 3]), name)(),
            getattr(T.tensor([]), name)(),
            outcome_of(lambda: getattr(T.tensor([True]), name)()),
        )

    same(program, message="exact")


def test_sums_and_means_without_nan() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1.0, NAN, 3.0], [NAN, NAN, NAN]])
        return (
            t.nansum(),
            t.nansum(1),
            t.nanmean(),
            t.nanmean(1, keepdim=True),
            T.nansum(t, dim=0, dtype=T.float64),
            outcome_of(lambda: T.nanmean(T.tensor([1, 2]))),
        )

    same(program, message="exact")


def test_histograms() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([0.0, 1.0, 1.0, 2.5, 3.0, 9.0, -1.0])
        return (
            T.histc(t, bins=3, min=0, max=3),
            T.histc(t, 5),
            t.histc(bins=2, min=1, max=1),
            T.histc(T.ones(4), 3),
            outcome_of(lambda: T.histc(t, 0, 0, 3)),
            outcome_of(lambda: T.histc(t, 3, 4, 3)),
            outcome_of(lambda: T.histc(T.tensor([1, 2]), 3)),
        )

    same(program, message="exact")


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64"])
def test_bincount(dtype: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1, 1, 3]).to(getattr(T, dtype))
        return (
            t.bincount(),
            T.bincount(t, minlength=6),
            T.bincount(t, weights=T.tensor([0.5, 1.0, 2.0])),
            T.bincount(t, T.tensor([1, 2, 3])),
            outcome_of(lambda: T.bincount(t, minlength=-1)),
            outcome_of(lambda: T.bincount(t, weights=T.ones(2))),
            outcome_of(lambda: T.bincount(T.tensor([-1]))),
            outcome_of(lambda: T.bincount(T.tensor([1.0]))),
        )

    same(program, message="exact")


def test_histograms_refuse_what_they_cannot_count() -> None:
    def program(T: Any) -> Any:
        x, n = T.tensor([1.0, 2.0]), T.tensor([1, 2])
        return (
            T.histogram(T.zeros(0), 2),
            outcome_of(lambda: T.histc(n, 4, 5, 1)),
            outcome_of(lambda: T.histc(x, 4, 1, float("inf"))),
            outcome_of(lambda: T.histogram(x, T.tensor([[1.0, 2.0]]))),
            outcome_of(lambda: T.histogram(x, T.zeros(0))),
            outcome_of(lambda: T.histogram(x, n)),
            outcome_of(lambda: T.histogram(x, 4, range=(2, 1))),
            outcome_of(lambda: T.histogram(x, 4, range=(1.0, float("nan")))),
            outcome_of(lambda: T.histogram(x, 4, range=(1.0, 2.0, 3.0))),
            outcome_of(lambda: T.histogram(x, 2, weight=n)),
        )

    same(program)


@pytest.mark.parametrize("odd", [None, float("nan"), float("inf"), "all"])
@pytest.mark.parametrize("dim", [None, 0, 1])
@pytest.mark.parametrize("name", ["nansum", "nanmean"])
def test_sums_without_nan_where_there_is_one_and_where_there_is_none(
    name: str, dim: int | None, odd: Any
) -> None:
    """Without one they are the plain sums, and the gradients with it."""

    def program(T: Any) -> Any:
        x = T.arange(12.0).reshape(3, 4)
        if odd == "all":
            x[0, :3] = T.tensor([float("inf"), -float("inf"), float("nan")])
        elif odd is not None:
            x[1, 2] = odd
        x.requires_grad_()
        y = getattr(T, name)(x) if dim is None else getattr(T, name)(x, dim, True)
        y.backward(T.ones_like(y))
        return y.detach(), x.grad

    same(program)
