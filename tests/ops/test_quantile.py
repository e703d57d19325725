"""Quantiles, modes and scatter_reduce: NaN, shapes, messages."""

from __future__ import annotations

from typing import Any

import pytest

import gradlite
from tests import cupy_stand_in
from tests.oracle import outcome_of, same

NAN = float("nan")


@pytest.mark.parametrize("name", ["quantile", "nanquantile"])
@pytest.mark.parametrize("interpolation", ["linear", "lower", "higher", "midpoint", "nearest"])
def test_fractions_between_and_at_elements(name: str, interpolation: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[4.0, 1.0, 3.0, 2.0, 9.0], [NAN, 7.0, 5.0, NAN, 6.0], [NAN] * 5])
        q = T.tensor([0.0, 0.2, 0.25, 0.5, 0.9, 1.0])
        function = getattr(T, name)
        return (
            function(t, q, dim=1, interpolation=interpolation),
            function(t, 0.4, interpolation=interpolation),
            function(t, q, 0, True, interpolation=interpolation),
            function(t[0], 0.5, keepdim=True, interpolation=interpolation),
        )

    same(program)


@pytest.mark.parametrize("name", ["quantile", "nanquantile"])
def test_messages(name: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1.0, 2.0])
        function = getattr(T, name)
        return [
            outcome_of(lambda: function(t, 1.5)),
            outcome_of(lambda: function(t, T.tensor([-0.5]))),
            outcome_of(lambda: function(t, T.tensor(0.5, dtype=T.float64))),
            outcome_of(lambda: function(t, T.ones(1, 1))),
            outcome_of(lambda: function(t, 0.5, interpolation="x")),
            outcome_of(lambda: function(T.tensor([1, 2]), 0.5)),
            outcome_of(lambda: function(T.tensor([]), 0.5)),
        ]

    same(program, message="exact")


def test_modes() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[3, 1, 1, 3], [2, 2, 2, 0]])
        return (
            t.mode(),
            t.mode(0),
            t.mode(1, True),
            T.mode(T.tensor(5.0)),
            outcome_of(lambda: T.mode(T.zeros(0, 2), 0)),
        )

    same(program, message="exact")


@pytest.mark.parametrize("include_self", [True, False])
@pytest.mark.parametrize("reduce", ["sum", "mean", "amax", "amin"])
def test_scatter_reduce_with_ties(reduce: str, include_self: bool) -> None:
    def program(T: Any) -> Any:
        # PyTorch counts the input among the ties even where it takes no part.
        own = [2.0, 1.0, 5.0] if include_self else [7.0, 8.0, 5.0]
        x = T.tensor(own, requires_grad=True)
        src = T.tensor([2.0, 2.0, 1.0, 0.0], requires_grad=True)
        index = T.tensor([0, 0, 1, 1])
        result = x.scatter_reduce(0, index, src, reduce, include_self=include_self)
        (result * T.tensor([1.0, 10.0, 100.0])).sum().backward()
        ints = T.tensor([2, 1, 5]).scatter_reduce(
            0, index, T.tensor([3, 4, 8, 9]), reduce, include_self=include_self
        )
        return result.detach(), x.grad, src.grad, ints

    same(program)


def test_what_scatter_reduce_refuses() -> None:
    def program(T: Any) -> Any:
        t = T.ones(2)
        return [
            outcome_of(lambda: t.scatter_reduce(0, T.tensor([0]), T.ones(1), "x")),
            outcome_of(lambda: t.scatter_reduce(0, T.tensor([2]), T.ones(1), "sum")),
        ]

    same(program, message="exact")


def test_the_mode_of_rows_with_nans() -> None:
    rows = gradlite.tensor([[1.0, NAN, NAN, 2.0], [NAN, 2.0, 2.0, 1.0], [NAN] * 4])
    values, indices = gradlite.mode(rows)
    assert indices.tolist() == [2, 2, 3]
    assert str(values.tolist()) == "[nan, 2.0, nan]"


def test_fractions_on_another_device_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    cupy_stand_in.install(monkeypatch)
    x, q = gradlite.rand(3), gradlite.tensor([0.5])
    for values, fractions in ((x.cuda(), q), (x, q.cuda())):
        with pytest.raises(RuntimeError, match="q tensor must be on the same device as the input"):
            gradlite.quantile(values, fractions)
    found = gradlite.quantile(x.cuda(), q.cuda())
    assert found.cpu().equal(gradlite.quantile(x, q))
