"""Indexing with arrays: gradients at repeated indices, edits of an index, speed's special cases."""

from __future__ import annotations

import random
import warnings
from functools import partial
from typing import Any

import numpy as np
import pytest

from gradlite.ops import index_items
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


@pytest.mark.parametrize("shape", [(1, 1, 2), (1, 2, 2), (1, 1, 1, 1)], ids=str)
def test_values_with_more_dimensions_have_gradients(shape: tuple[int, ...]) -> None:
    def program(T: Any) -> Any:
        x = T.arange(12.0).reshape(4, 3).requires_grad_()
        values = T.ones(shape).requires_grad_()
        out = x * 1
        out[T.tensor([0, 3]), T.tensor([[1], [0]])] = values
        (out * T.arange(12.0).reshape(4, 3)).sum().backward()
        return out, x.grad, values.grad

    same(program)


ONES_IN_FRONT = [
    (3,), (1, 3), (1, 1, 3), (1,), (1, 1), (1, 1, 1), (2, 3), (1, 2, 3), (1, 1, 2, 3), (4, 1, 3),
    (1, 4, 2, 3), (1, 1, 2), (1, 3, 1), (1, 0), (),
]  # fmt: skip


@pytest.mark.parametrize(
    "index",
    [
        lambda T: T.tensor([0, 1]),
        lambda T: (T.tensor([0, 1, 2]), T.tensor([0, 1, 1])),
        lambda T: T.tensor([True, True, False, False]),
        lambda T: T.ones(4, 3) > 0,
        lambda T: (slice(None), T.tensor([0, 1])),
        lambda T: (0, T.tensor([0, 1])),
        lambda T: (None, T.tensor([0, 1])),
        lambda T: slice(1, 3),
        lambda T: 0,
        lambda T: (0, 0),
        lambda T: ...,
    ],
)
def test_values_may_have_ones_in_front(index: Any) -> None:
    def program(T: Any) -> Any:
        results = []
        for shape in ONES_IN_FRONT:
            x, values = T.zeros(4, 3), T.ones(shape, requires_grad=True)

            def write(x: Any = x, values: Any = values) -> Any:
                x[index(T)] = values * 2
                return x, *T.autograd.grad((x * T.arange(12.0).view(4, 3)).sum(), values)

            results.append(outcome_of(write))
        return results

    same(program, message="exact")


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize(
    "indices",
    [
        lambda T: [T.tensor([0, 1])],
        lambda T: (T.tensor([0, 1, 2]), T.tensor([0, 1, 1])),
        lambda T: (T.tensor([[0, 1], [2, 3]]),),
        lambda T: (T.tensor(1),),
        lambda T: (T.tensor(1), T.tensor(2)),
        lambda T: (T.tensor([True, True, False, False]),),
    ],
)
def test_values_of_index_put_may_not(indices: Any, accumulate: bool) -> None:
    def program(T: Any) -> Any:
        results = []
        for shape in ONES_IN_FRONT:
            for name in ("index_put", "index_put_"):
                x, values = T.zeros(4, 3), T.ones(shape)
                put = partial(getattr(x, name), indices(T), values, accumulate)
                results.append(outcome_of(put))
        return results

    same(program, message="exact")


def test_index_put_takes_tensors_alone() -> None:
    def program(T: Any) -> Any:
        x, v = T.zeros(4, 3), T.ones(3)
        rows = T.tensor([0])
        bad = [([0, 1],), (1,), (rows, 0.5), (rows, slice(None))]
        return [outcome_of(partial(x.index_put, indices, v)) for indices in bad]

    same(program, message="exact")


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


# Parts of an index, alone and in pairs, of tensors of 0 to 3 dimensions.
PARTS = {
    "0": lambda T: 0,
    "True": lambda T: True,
    "False": lambda T: False,
    "None": lambda T: None,
    "...": lambda T: ...,
    ":": lambda T: slice(None),
    "1:": lambda T: slice(1, None),
    "tensor slice": lambda T: slice(T.tensor(0), T.tensor(1)),
    "float slice": lambda T: slice(0.0, None),
    "tensor 1": lambda T: T.tensor(1),
    "tensor True": lambda T: T.tensor(True),
    "tensor False": lambda T: T.tensor(False),
    "byte 1": lambda T: T.tensor(1, dtype=T.uint8),
    "byte 0": lambda T: T.tensor(0, dtype=T.uint8),
    "mask": lambda T: T.tensor([True, False]),
    "bytes": lambda T: T.tensor([1, 0], dtype=T.uint8),
    "mask of two": lambda T: T.tensor([[True, False, True], [False, True, True]]),
    "indices": lambda T: T.tensor([0, 1]),
    "int8": lambda T: T.tensor([0, 1], dtype=T.int8),
    "floats": lambda T: T.tensor([0.0]),
    "no indices": lambda T: T.tensor([], dtype=T.int64),
    "[]": lambda T: [],
    "[0, 1]": lambda T: [0, 1],
    "[[0, 1], [1, 0]]": lambda T: [[0, 1], [1, 0]],
    "[[0, 1]]": lambda T: [[0, 1]],
    "[tensors]": lambda T: [T.tensor(0), T.tensor(1)],
    "[True, False]": lambda T: [True, False],
    "[slice]": lambda T: [slice(None)],
    "array": lambda T: np.array([0, 1]),
    "text": lambda T: "a",
    "1.0": lambda T: 1.0,
}
SHAPES = [(), (2,), (2, 3), (2, 3, 2), (2, 0)]


def outcome(x: Any, index: Any) -> Any:
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        try:
            result = x[index]
        except Exception as error:
            return type(error).__name__, str(error)[:25] if x.numel() else ""
    shares = result.numel() > 0 and result.data_ptr() == x.data_ptr()
    kinds = [str(w.message)[:20] for w in seen]
    return tuple(result.shape), result.tolist(), shares, kinds


def written(x: Any, index: Any, value: Any) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            x[index] = value
        except Exception as error:
            return type(error).__name__
    return x.tolist()


def indices_of_parts(first: str, T: Any) -> list[Any]:
    pairs = [(PARTS[first](T), make(T)) for make in PARTS.values()]
    return [PARTS[first](T), (PARTS[first](T),), *pairs, *[(None, *pair) for pair in pairs]]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("first", PARTS)
def test_parts_of_an_index_are_read_as_pytorch_reads_them(
    first: str, shape: tuple[int, ...]
) -> None:
    torch = pytest.importorskip("torch", reason="PyTorch is the oracle of this test")
    import gradlite

    count = int(np.prod(shape))
    for mine, yours in zip(indices_of_parts(first, gradlite), indices_of_parts(first, torch)):
        x, reference = (T.arange(float(count)).reshape(shape) for T in (gradlite, torch))
        assert outcome(x, mine) == outcome(reference, yours), (mine, yours)
        if "uint8" in str(yours):
            continue  # PyTorch fills by masks of bool alone
        for number in (5, 5.0):
            filled = written(x.clone(), mine, number)
            assert filled == written(reference.clone(), yours, number), yours


@pytest.mark.parametrize(
    ("index", "value"),
    [(0, [1.0]), ("a", [1.0]), (False, None), (True, None), (None, None)],
    ids=str,
)
def test_what_may_be_assigned(index: Any, value: Any) -> None:
    def program(T: Any) -> Any:
        x = T.zeros(2)
        values = [T.tensor([5.0, 6.0]), T.tensor([[5.0, 6.0]]), T.tensor([5])]
        return [written(x.clone(), index, v) for v in ([value] if value else values)]

    same(program)


def _random_part(source: random.Random) -> Any:
    kind = source.random()
    if kind < 0.35:
        return source.randrange(-4, 4)
    if kind < 0.8:
        ends = [source.choice([None, source.randrange(-6, 7)]) for _ in range(2)]
        return slice(*ends, source.choice([None, None, 1, 2, 3, 0, -1]))
    if kind < 0.87:
        return Ellipsis
    if kind < 0.95:
        return None
    return source.choice([True, np.int64(1), slice(np.int64(0), 2)])


def _cut(x: Any, new: Any, basic: Any) -> Any:
    if basic is None:
        return None
    view = x.reshape(x.shape if new is None else new)[basic]
    return view.shape, view.strides, view.ctypes.data


@pytest.mark.parametrize("seed", range(8))
def test_plain_indices_are_what_any_index_is(seed: int) -> None:
    source, served = random.Random(seed), 0
    for _ in range(2000):
        shape = tuple(source.randrange(4) for _ in range(source.randrange(4)))
        index: Any = tuple(_random_part(source) for _ in range(source.randrange(5)))
        if source.random() < 0.2:
            index = _random_part(source)
        found = index_items.plain(shape, index)
        if found is None:
            continue
        served += 1
        whole = isinstance(index, slice)
        x = np.zeros(shape)
        expected = index_items.split(x, index_items.items_of(index), index, whole)
        new, basic, last = found
        assert (new, None, last) == (expected[0], *expected[2:])
        # A slice of everything is one without ends there.
        assert _cut(x, new, basic) == _cut(x, new, expected[1])
    assert served > 500


def test_parts_are_assigned_from_parts_of_the_same_memory() -> None:
    """Rows written to all rows, parts onto themselves, and parts that overlap."""
    rows, first = slice(0, 2), slice(0, 3)

    def program(T: Any) -> Any:
        def edited(*edits: Any) -> Any:
            x = T.arange(8.0).view(2, 4)
            found = [outcome_of(lambda e=e: e(x)) for e in edits]
            return x, x._version, found

        def add(x: Any, at: Any, what: Any) -> None:
            x[at] += what

        return [
            edited(lambda x: x.__setitem__(rows, x[1])),
            edited(lambda x: x.__setitem__(rows, x[1:2])),
            edited(lambda x: x.__setitem__((0, first), x[0, 1:2])),
            edited(lambda x: x.__setitem__((0, first), x[0, 1:4])),
            edited(lambda x: x.__setitem__((0, first), x[0, 0:3])),
            edited(lambda x: x.__setitem__(1, x[0])),
            edited(lambda x: add(x, 1, 2.0), lambda x: add(x, T.tensor(0), x[1])),
            edited(lambda x: add(x, np.int64(1), x[1]), lambda x: add(x, (0, first), x[0, 1:4])),
            edited(lambda x: x.__setitem__((1, 2), 7), lambda x: x.__setitem__((0, 0), 1e39)),
        ]

    same(program)
