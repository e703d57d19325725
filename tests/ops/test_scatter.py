"""scatter, index_add, index_copy, index_fill and their in-place forms: edits, graph, messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same

EDITS = {
    "scatter_": lambda T, t: t.scatter_(0, T.tensor([0, 2]), T.tensor([5.0, 6.0])),
    "scatter_value_": lambda T, t: t.scatter_(0, T.tensor([0, 2]), 7.0),
    "scatter_add_": lambda T, t: t.scatter_add_(0, T.tensor([1, 1]), T.tensor([5.0, 6.0])),
    "index_add_": lambda T, t: t.index_add_(0, T.tensor([2, 2]), T.tensor([5.0, 6.0]), alpha=2),
    "index_copy_": lambda T, t: t.index_copy_(0, T.tensor([2, 0]), T.tensor([5.0, 6.0])),
    "index_fill_": lambda T, t: t.index_fill_(0, T.tensor([2, 0]), 9),
    "index_put_": lambda T, t: t.index_put_((T.tensor([2, 0]),), T.tensor([5.0, 6.0])),
    "index_put_add_": lambda T, t: t.index_put_((T.tensor([2, 2]),), T.tensor([5.0, 6.0]), True),
    "masked_fill_": lambda T, t: t.masked_fill_(T.tensor([True, False, True]), 3),
    "masked_scatter_": lambda T, t: t.masked_scatter_(T.tensor([True, False, True]), T.ones(2)),
    "setitem_array": lambda T, t: t.__setitem__(T.tensor([0, 2]), T.tensor([5.0, 6.0])),
    "setitem_mask": lambda T, t: t.__setitem__(T.tensor([True, False, True]), 4.0),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_of_a_tensor_without_a_graph(edit: Any) -> None:
    def program(T: Any) -> Any:
        t = T.arange(3.0)
        same_storage = t.detach()
        before = t._version
        result = edit(T, t)
        return t, same_storage, result is t, t._version - before

    same(program)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_of_a_strided_view(edit: Any) -> None:
    def program(T: Any) -> Any:
        base = T.arange(6.0)
        edit(T, base[::2])
        return base

    same(program)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_in_a_graph(edit: Any) -> None:
    def program(T: Any) -> Any:
        x = T.arange(3.0, requires_grad=True)
        t = x * 2
        edit(T, t)
        (t * T.tensor([1.0, 10.0, 100.0])).sum().backward()
        return t, x.grad, t.grad_fn

    same(program)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_leaves_that_require_grad_are_left_alone(edit: Any) -> None:
    same(
        lambda T: edit(T, T.ones(3, requires_grad=True)),
        raises=RuntimeError,
        match="a leaf Variable that requires grad is being used in an in-place operation",
        message="exact",
    )


def test_the_gradient_of_written_values() -> None:
    def program(T: Any) -> Any:
        weights = T.tensor([1.0, 10.0, 100.0])
        grads = []
        for name in ("scatter", "scatter_add", "index_add", "index_copy"):
            x, source = T.zeros(3, requires_grad=True), T.ones(2, requires_grad=True)
            (getattr(x, name)(0, T.tensor([2, 0]), source) * weights).sum().backward()
            grads += [x.grad, source.grad]
        value = T.tensor(2.0, requires_grad=True)
        (T.zeros(3).index_fill(0, T.tensor([0, 1]), value) * weights).sum().backward()
        (T.zeros(3).masked_fill(T.tensor([False, True, True]), value) * weights).sum().backward()
        return grads, value.grad

    same(program)


def test_reductions() -> None:
    def program(T: Any) -> Any:
        t, index = T.tensor([2.0, 3.0, 4.0]), T.tensor([1, 1])
        return t.scatter(0, index, 5.0, reduce="add"), t.scatter(0, index, 5.0, reduce="multiply")

    same(program)


def test_a_source_may_be_larger_than_the_index() -> None:
    same(lambda T: T.zeros(2, 3).scatter(1, T.tensor([[2], [1]]), T.arange(6.0).reshape(2, 3)))


def test_dtypes_are_not_mixed() -> None:
    def program(T: Any) -> Any:
        t, index, double = T.zeros(3), T.tensor([0]), T.ones(1, dtype=T.float64)
        return [
            outcome_of(lambda: t.scatter(0, index, double)),
            outcome_of(lambda: t.scatter_add(0, index, double)),
            outcome_of(lambda: t.index_add(0, index, double)),
            outcome_of(lambda: t.index_copy(0, index, double)),
            outcome_of(lambda: t.index_put((index,), double)),
            outcome_of(lambda: t.scatter(0, T.tensor([0.0]), 1.0)),
            outcome_of(lambda: t.index_add(0, T.tensor([0.0]), T.ones(1))),
            outcome_of(lambda: t.index_fill(0, T.tensor([0.0]), 1.0)),
        ]

    same(program, message="exact")


def test_messages() -> None:
    def program(T: Any) -> Any:
        t, long = T.zeros(2, 3), T.tensor([[2], [1]])
        return [
            outcome_of(lambda: t.scatter(1, T.tensor([[5]]), 1.0)),
            outcome_of(lambda: t.scatter(1, T.tensor([0]), 1.0)),
            outcome_of(lambda: t.scatter(1, long, T.ones(1, 2))),
            outcome_of(lambda: t.scatter_add(1, long, 2)),
            outcome_of(lambda: t.index_add(1, T.tensor([2, 0]), T.ones(2, 3))),
            outcome_of(lambda: t.index_add(1, T.tensor([2, 0]), T.ones(3, 2))),
            outcome_of(lambda: t.index_add(1, T.tensor([3]), T.ones(2, 1))),
            outcome_of(lambda: t.index_copy(1, T.tensor([2, 0]), T.ones(2, 3))),
            outcome_of(lambda: t.index_copy(1, T.tensor([2, 3]), T.ones(2, 2))),
            outcome_of(lambda: t.index_fill(1, T.tensor([4]), 1.0)),
            outcome_of(lambda: t.index_fill(1, T.tensor([0]), T.ones(1))),
            outcome_of(lambda: t.index_put((T.tensor([0, 4]),), T.ones(2, 3))),
            outcome_of(lambda: t.index_put((T.tensor([0, 1]),), T.ones(4))),
            outcome_of(lambda: t.masked_fill(T.ones(2, 3), 1.0)),
            outcome_of(lambda: t.masked_fill(T.ones(4, dtype=T.bool), 1.0)),
            outcome_of(lambda: t.masked_fill(T.ones(3, dtype=T.bool), T.ones(1))),
            outcome_of(lambda: T.zeros(3).masked_fill_(T.ones(2, 3, dtype=T.bool), 1.0)),
        ]

    same(program, message="exact")
