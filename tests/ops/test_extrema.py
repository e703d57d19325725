"""max, min, argmax and their kin: named results, ties, NaN, empty tensors, messages."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest

from tests.oracle import outcome_of, same

NAN = float("nan")


@pytest.mark.parametrize("name", ["max", "min"])
def test_results_along_a_dimension_have_names(name: str) -> None:
    def program(T: Any) -> Any:
        result = getattr(T.tensor([[1.0, 5.0], [7.0, 2.0]]), name)(dim=1)
        values, indices = result
        return (
            result.values is values,
            result.indices is indices,
            result[0],
            result[-1],
            len(result),
            isinstance(result, tuple),
            repr(result),
            type(result).__name__,
            type(result) is getattr(T.return_types, name),
            outcome_of(lambda: result.size),
        )

    same(program, message="exact")


def test_named_results_are_made_from_a_sequence() -> None:
    def program(T: Any) -> Any:
        kind = T.return_types.sort
        pair = (T.tensor([1.0]), T.tensor([0]))
        return kind(pair), kind(list(pair)).indices, outcome_of(lambda: kind((1,)))

    same(program, message="exact")


def test_named_results_are_copied_and_pickled() -> None:
    import gradlite

    result = gradlite.tensor([1.0, 3.0]).max(0)
    for twin in (copy.deepcopy(result), pickle.loads(pickle.dumps(result))):
        assert type(twin) is gradlite.return_types.max
        assert twin.values.item() == 3.0 and twin.indices.item() == 1


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin"])
@pytest.mark.parametrize("arguments", [(), (0,), (1, True)], ids=str)
def test_how_ties_share_the_gradient(name: str, arguments: Any) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([[2.0, 2.0, 1.0], [1.0, 2.0, 2.0]], requires_grad=True)
        result = getattr(x, name)(*arguments)
        result = result[0] if isinstance(result, tuple) else result
        result.sum().backward()
        return result, x.grad

    same(program)


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin", "aminmax", "median"])
def test_nan_wins_and_takes_the_gradient(name: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([3.0, NAN, NAN, 1.0], requires_grad=True)
        result = getattr(x, name)()
        result = result[1] if isinstance(result, tuple) else result
        result.backward()
        return result, x.grad

    same(program)


@pytest.mark.parametrize("name", ["max", "min", "argmax", "argmin", "cummax", "cummin"])
def test_nan_along_a_dimension(name: str) -> None:
    same(lambda T: getattr(T.tensor([[3.0, NAN, NAN], [1.0, 0.0, NAN]]), name)(dim=1))


DTYPES = ["uint8", "int8", "int32", "int64", "float16", "bfloat16", "bool"]


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", ["max", "min", "amax", "amin", "argmax", "cummax", "aminmax"])
def test_dtypes(name: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1, 0, 1], [0, 0, 1]]).to(getattr(T, dtype))
        return (
            outcome_of(lambda: getattr(t, name)(dim=0)),
            outcome_of(lambda: getattr(t, name)()),
        )

    same(program, message="type")


@pytest.mark.parametrize("name", ["max", "min", "amax", "amin", "argmax", "argmin", "aminmax"])
def test_messages_for_empty_tensors(name: str) -> None:
    def program(T: Any) -> Any:
        t = T.zeros(0, 3)
        return [
            outcome_of(lambda: getattr(t, name)()),
            outcome_of(lambda: getattr(t, name)(dim=0)),
            getattr(t, name)(dim=1),
            outcome_of(lambda: getattr(t, name)(dim=2)),
        ]

    same(program, message="exact")


def test_the_binary_form() -> None:
    def program(T: Any) -> Any:
        a, b = T.tensor([1.0, 5.0], requires_grad=True), T.tensor([3.0, 2.0])
        result = T.max(a, b)
        result.sum().backward()
        return result, a.grad, T.min(a, other=b), a.max(b), T.max(T.tensor([1, 2]), T.tensor([1.5]))

    same(program)


@pytest.mark.parametrize("dim", ["a", (0, 1), 1.0], ids=repr)
def test_only_whole_numbers_name_a_dimension(dim: Any) -> None:
    same(lambda T: T.ones(2, 2).max(dim), raises=TypeError, message="type")


def test_the_names_of_numpy() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1.0, 5.0], [7.0, 2.0]])
        return t.max(axis=1), t.argmax(axis=0), T.amax(t, axis=0, keepdims=True), t.all(axis=0)

    same(program)


def test_the_index_is_where_the_value_is() -> None:
    import gradlite

    x = gradlite.rand(7, 50)
    for name in ("max", "min"):
        values, indices = getattr(x, name)(1)
        assert (x.gather(1, indices.unsqueeze(1)).squeeze(1) == values).all()


def test_an_index_edited_in_place_is_noticed() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([[1.0, 2.0]], requires_grad=True)
        values, indices = x.max(1)
        indices.fill_(0)
        values.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="prefix")


@pytest.mark.parametrize("name", ["maximum", "minimum"])
def test_where_one_of_two_is_nan_both_have_the_gradient(name: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([float("nan"), 1.0, 2.0, float("nan"), 3.0], requires_grad=True)
        y = T.tensor([1.0, float("nan"), 2.0, float("nan"), 1.0], requires_grad=True)
        getattr(T, name)(x, y).sum().backward()
        return x.grad, y.grad

    same(program)
