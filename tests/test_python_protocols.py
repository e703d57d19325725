"""Tensors as Python numbers, sequences and dictionary keys, copied and pickled, as in PyTorch."""

from __future__ import annotations

import copy
import math
import pickle
from typing import Any

import pytest

import gradlite
from tests.oracle import outcome_of, same

DTYPES = ["float16", "bfloat16", "float32", "float64"]
DTYPES += ["uint8", "int8", "int16", "int32", "int64", "bool"]


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- Python numbers


@pytest.mark.parametrize("dtype", DTYPES)
def test_item_and_tolist(dtype):
    def program(T):
        t = T.tensor([[1, 0], [1, 1]]).to(getattr(T, dtype))
        return (
            t[0, 0].item(),
            t.tolist(),
            T.tensor(1).to(getattr(T, dtype)).tolist(),
            t[:1, :1].item(),
        )

    same(program)


def test_item_of_a_graph_is_allowed():
    same(lambda T: ((leaf(T) * 2).sum().item(), int(leaf(T).sum()), leaf(T).tolist()))


@pytest.mark.parametrize("shape", [(2,), (0,), (1, 2)])
def test_item_needs_one_element(shape):
    same(
        lambda T: T.ones(shape).item(),
        raises=RuntimeError,
        match="cannot be converted to Scalar",
        message="exact",
    )


CONVERSIONS = [float, int, bool, complex, round, math.ceil, math.sqrt]


@pytest.mark.parametrize("convert", CONVERSIONS, ids=lambda f: f.__name__)
def test_conversions_of_one_element(convert):
    def program(T):
        tensors = [T.tensor(2.0), T.tensor([3.0]), T.tensor(4), T.tensor(True)]
        return [outcome_of(lambda t=t: convert(t)) for t in tensors]

    same(program, message="type")


@pytest.mark.parametrize("convert", [float, complex, math.sqrt], ids=lambda f: f.__name__)
def test_conversion_of_a_graph_warns(convert):
    same(
        lambda T: (convert((leaf(T) * 2).sum()), convert(leaf(T).sum().detach())),
        warns="Converting a tensor with requires_grad=True to a scalar",
        message="exact",
    )


@pytest.mark.parametrize("convert", [float, int, bool], ids=lambda f: f.__name__)
@pytest.mark.parametrize("shape", [(2,), (0,), (2, 2)])
def test_conversions_of_several_elements(convert, shape):
    same(lambda T: outcome_of(lambda: convert(T.ones(shape))), message="exact")


def test_the_truth_of_a_tensor():
    def program(T):
        return [bool(T.tensor(v)) for v in (0, 1, 0.0, 0.5, False, True, [0], [[3.0]])]

    same(program)


def test_the_message_for_an_ambiguous_truth():
    same(
        lambda T: bool(T.ones(2)),
        raises=RuntimeError,
        match="Boolean value of Tensor with more than one value is ambiguous",
        message="exact",
    )


def test_tensors_as_indices():
    def program(T):
        numbers = [10, 20, 30]
        return (
            numbers[T.tensor(1)],
            numbers[T.tensor([2])],
            list(range(T.tensor(3))),
            outcome_of(lambda: numbers[T.tensor(1.0)]),
            outcome_of(lambda: numbers[T.tensor([1, 2])]),
        )

    same(program, message="type")


def test_formatting():
    def program(T):
        t = T.tensor(3.14159)
        return (
            f"{t:.2f}",
            f"{t}",
            f"{T.tensor(3)}",
            f"{T.tensor([1.0])}",
            f"{T.tensor(2.0, requires_grad=True):.1f}",
        )

    same(program)


# ---------------------------------------------------------------- containers


def test_len_iteration_and_contains():
    def program(T):
        t = T.arange(6.0).reshape(3, 2)
        return len(t), list(t), 4.0 in t, 9.0 in t, t[0] in t, [row.tolist() for row in reversed(t)]

    same(program)


def test_iteration_of_a_graph():
    def program(T):
        x = leaf(T)
        a, b, c = x
        (a * b + c).backward()
        return x.grad

    same(program)


def test_a_zero_d_tensor_has_no_length():
    def program(T):
        t = T.tensor(1.0)
        return outcome_of(lambda: len(t)), outcome_of(lambda: list(t)), outcome_of(lambda: t[0])

    same(program, message="exact")


def test_unpacking():
    def program(T):
        first, *rest = T.arange(4.0)
        (a, b), (c, d) = T.arange(4).reshape(2, 2)
        return (
            first,
            rest,
            a,
            d,
            max(T.tensor([1.0, 3.0])),
            sum(T.tensor([1.0, 2.0])),
            sorted(T.tensor([3, 1])),
        )

    same(program)


def test_hash_and_equality_in_containers():
    def program(T):
        a, b = T.ones(1), T.ones(1)
        return len({a, b, a}), {a: "a"}[a], a in {a}, b in {a}, hash(a) == hash(a)

    same(program)


def test_size_is_a_tuple():
    def program(T):
        s = T.ones(2, 3).shape
        return (
            isinstance(s, tuple),
            s == (2, 3),
            s[0],
            s[-1],
            s.numel(),
            repr(s),
            tuple(s + (1,)),
            tuple(s[1:]),
            T.ones(s),
            T.Size([1, 2]) == (1, 2),
            T.ones(2, 3).size(),
            T.ones(2, 3).size(1),
            T.ones(2, 3).size(-1),
        )

    same(program)


def test_tensors_have_attributes():
    def program(T):
        t = T.ones(1)
        t.note = "kept"
        return t.note, outcome_of(lambda: t.missing)

    same(program, message="exact")


def test_inspection():
    def program(T):
        t = T.ones(2, 3)
        return (
            t.ndim,
            t.dim(),
            t.numel(),
            t.nelement(),
            t.element_size(),
            t.itemsize,
            t.nbytes,
            t.is_contiguous(),
            t.t().is_contiguous(),
            t.stride(),
            t.t().stride(),
            t[:, 1].storage_offset(),
            t.is_floating_point(),
            t.dtype.is_floating_point,
            t.device.type,
            t.is_cuda,
            t.type(),
            t.dtype,
            T.is_tensor(t),
            T.is_tensor(1),
            t.get_device(),
        )

    same(program)


# ---------------------------------------------------------------- copies


def test_deepcopy_of_leaves():
    def program(T):
        x = leaf(T)
        x.grad = T.tensor([7.0, 8.0, 9.0])
        y = copy.deepcopy(x)
        y.grad.add_(1)
        c = copy.deepcopy(T.tensor([1, 2]))
        return y is x, y, y.grad, x.grad, c, y.data_ptr() == x.data_ptr()

    same(program)


def test_deepcopy_of_a_non_leaf_is_refused():
    same(
        lambda T: copy.deepcopy(leaf(T) * 2),
        raises=RuntimeError,
        match="Only Tensors created explicitly by the user",
        message="prefix",
    )


def test_deepcopy_keeps_shared_tensors_shared():
    def program(T):
        x = leaf(T)
        a, b = copy.deepcopy([x, x])
        return a is b, a is x

    same(program)


def test_deepcopy_keeps_attributes_and_views_of_one_storage():
    def program(T):
        base = T.arange(4.0)
        pair = copy.deepcopy([base, base[1:]])
        pair[0].mul_(10)
        return pair, base

    same(program)


def test_copy_shares_storage():
    def program(T):
        x = leaf(T)
        y = copy.copy(x)
        with T.no_grad():
            y.add_(1)
        return y is x, x, y

    same(program)


@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_pickle(protocol):
    def program(T):
        x = leaf(T)
        values = [
            x,
            T.tensor([1, 2]),
            T.tensor(True),
            T.ones(0, 2),
            T.arange(6.0).reshape(2, 3).t(),
        ]
        return pickle.loads(pickle.dumps(values, protocol))

    same(program)


def test_pickle_of_small_types():
    def program(T):
        return pickle.loads(pickle.dumps([T.float32, T.int64, T.device("cpu"), T.Size([1, 2])]))

    same(program)


@pytest.mark.parametrize("way", ["pickle", "copy"])
def test_a_computed_tensor_is_pickled_as_a_leaf(way):
    def program(T):
        x = T.ones(2, 3, requires_grad=True) * 2
        copied = [
            pickle.loads(pickle.dumps(t)) if way == "pickle" else copy.copy(t) for t in (x, x.T)
        ]
        return copied, [t.is_leaf for t in copied]

    same(program)


def test_a_module_with_a_computed_weight_is_pickled():
    layer = gradlite.nn.utils.weight_norm(gradlite.nn.Linear(2, 3))
    twin = pickle.loads(pickle.dumps(layer))
    x = gradlite.ones(1, 2)
    assert gradlite.equal(twin(x), layer(x))
