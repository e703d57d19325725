"""Indexing with arrays: gradients at repeated indices, edits of an index, speed's special cases."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

INDICES = {
    "one": lambda T: T.tensor([0, 2, 0, -1]),
    "matrix": lambda T: T.tensor([[0, 2], [2, 2]]),
    "two": lambda T: (T.tensor([0, -1, 0]), T.tensor([1, -2, 1])),
    "two_broadcast": lambda T: (T.tensor([[0], [2]]), T.tensor([1, 0, 1])),
    "three": lambda T: (T.tensor([0, 0]), T.tensor([1, 1]), T.tensor([4, -1])),
    "behind_a_slice": lambda T: (slice(None), T.tensor([1, 1, 0])),
    "around_a_slice": lambda T: (T.tensor([0, 0]), slice(None), T.tensor([2, 2])),
    "behind_a_step": lambda T: (slice(1, None), T.tensor([1, 1])),
    "mask": lambda T: T.tensor([True, False, True]),
    "mask_of_two": lambda T: T.arange(12).reshape(3, 4) % 3 == 0,
    "mask_and_index": lambda T: (T.tensor([True, False, True]), T.tensor([1, 1])),
    "ellipsis": lambda T: (..., T.tensor([0, 0, 4])),
    "none": lambda T: (None, T.tensor([0, 0])),
    "number_and_index": lambda T: (1, T.tensor([3, 3])),
    "list": lambda T: [0, 0, 2],
    "empty": lambda T: T.tensor([], dtype=T.int64),
    "bytes": lambda T: T.tensor([0, 1, 1], dtype=T.int32),
}


@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_reading_and_its_gradient(index: Any) -> None:
    def program(T: Any) -> Any:
        x = T.arange(60.0).reshape(3, 4, 5).requires_grad_()
        result = x[index(T)]
        (result * T.arange(float(result.numel())).reshape(result.shape)).sum().backward()
        return result, x.grad

    same(program)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("index", INDICES.values(), ids=INDICES)
def test_writing_agrees_with_numpy(index: Any, accumulate: bool) -> None:
    import gradlite

    chosen = index(gradlite)
    x = gradlite.arange(60.0).reshape(3, 4, 5)
    plain = tuple(
        i.numpy() if isinstance(i, gradlite.Tensor) else i
        for i in (chosen if isinstance(chosen, tuple) else (chosen,))
    )
    expected = x.numpy().copy()
    values = np.full(expected[plain].shape, 7.0, np.float32)
    if accumulate:
        if any(i is None or i is Ellipsis or isinstance(i, (int, slice, list)) for i in plain):
            return  # index_put takes tensors alone
        np.add.at(expected, plain, values)
        result = x.index_put(
            tuple(map(gradlite.tensor, plain)), gradlite.tensor(values), accumulate=True
        )
    else:
        expected[plain] = values
        result = x.clone()
        result[chosen] = gradlite.tensor(values)
    np.testing.assert_array_equal(result.numpy(), expected)


def test_an_index_may_be_edited_before_backward() -> None:
    import gradlite

    x = gradlite.arange(3.0, requires_grad=True)
    index = gradlite.tensor([0, 0])
    result = x[index]
    index.fill_(2)
    result.sum().backward()
    assert x.grad.tolist() == [2.0, 0.0, 0.0]


def test_an_index_behind_a_whole_slice_is_one_node() -> None:
    def program(T: Any) -> Any:
        x = T.ones(2, 3, requires_grad=True)
        return x[:, T.tensor([0])].grad_fn.next_functions[0][0]

    same(program)


def test_index_put_takes_none_for_whole_dimensions() -> None:
    def program(T: Any) -> Any:
        x = T.zeros(2, 3)
        return x.index_put((None, T.tensor([0, 2])), T.tensor(5.0))

    import gradlite

    result = program(gradlite)
    assert result.tolist() == [[5.0, 0.0, 5.0]] * 2


def test_messages() -> None:
    def program(T: Any) -> Any:
        x = T.zeros(2, 3)
        return [
            outcome_of(lambda: x[T.tensor([2])]),
            outcome_of(lambda: x[T.tensor([0]), T.tensor([0]), T.tensor([0])]),
            outcome_of(lambda: x[T.tensor([True])]),
            outcome_of(lambda: x[T.tensor([0, 1]), T.tensor([0, 1, 2])]),
            outcome_of(lambda: x[T.tensor([0.5])]),
        ]

    same(program, message="prefix")


def test_gradients_of_long_tables() -> None:
    import gradlite

    generator = np.random.default_rng(1)
    index = generator.integers(0, 2000, 5000)
    grad = generator.standard_normal((5000, 8)).astype(np.float32)
    x = gradlite.zeros(2000, 8, requires_grad=True)
    x[gradlite.tensor(index)].backward(gradlite.tensor(grad))
    expected = np.zeros((2000, 8))
    np.add.at(expected, index, grad)
    np.testing.assert_allclose(x.grad.numpy(), expected, rtol=1e-4, atol=1e-5)


def test_second_derivatives() -> None:
    import gradlite

    x = gradlite.rand(3, 4, dtype=gradlite.float64, requires_grad=True)
    rows, columns = gradlite.tensor([0, 0, -1]), gradlite.tensor([1, 1, 3])

    def function(t: Any) -> Any:
        return t[rows, columns].exp() * t[rows].sum()

    assert gradlite.autograd.gradcheck(function, (x,))
    assert gradlite.autograd.gradgradcheck(function, (x,))
