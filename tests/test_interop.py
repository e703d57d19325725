"""Tensors to and from NumPy, mixed arithmetic and DLPack, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.library import ON_TORCH, library
from tests.oracle import outcome_of, same, torch

DTYPES = ["float16", "float32", "float64", "uint8", "int8", "int16", "int32", "int64", "bool"]


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- to NumPy


@pytest.mark.parametrize("dtype", DTYPES)
def test_numpy_shares_memory_and_keeps_the_dtype(dtype):
    def program(T):
        t = T.ones(2, 3, dtype=getattr(T, dtype))
        a = t.numpy()
        a[0, 0] = 0
        return a, t, a.flags.writeable

    same(program)


def test_numpy_of_a_view_has_its_strides():
    def program(T):
        t = T.arange(6.0).reshape(2, 3)
        return (
            t.t().numpy(),
            t.t().numpy().strides,
            t[:, 1].numpy().strides,
            T.tensor(3.0).numpy().shape,
        )

    same(program)


def test_numpy_of_a_tensor_that_requires_grad_is_refused():
    same(
        lambda T: leaf(T).numpy(),
        raises=RuntimeError,
        match=r"Can't call numpy\(\) on Tensor that requires grad. Use tensor.detach\(\).numpy\(\)",
        message="exact",
    )


def test_numpy_of_a_non_leaf_is_refused():
    same(
        lambda T: (leaf(T) * 2).numpy(),
        raises=RuntimeError,
        match="Can't call numpy",
        message="exact",
    )


def test_numpy_force():
    same(lambda T: ((leaf(T) * 2).numpy(force=True), T.ones(2).numpy(force=True)))


def test_numpy_of_a_graph_is_refused_in_no_grad_too():
    def program(T):
        x = leaf(T)
        with T.no_grad():
            return outcome_of(lambda: x.numpy()), (x * 2).numpy()

    same(program, message="exact")


@pytest.mark.parametrize(
    "convert", [np.asarray, np.array, lambda t: t.__array__()], ids=["asarray", "array", "dunder"]
)
def test_numpy_functions_take_tensors(convert):
    def program(T):
        t = T.tensor([[1.0, 2.0], [3.0, 4.0]])
        return convert(t), outcome_of(lambda: convert(leaf(T)))

    same(program)


def test_asarray_with_a_dtype():
    def program(T):
        t = T.tensor([1.5, 2.5])
        return (
            np.asarray(t, dtype=np.float64),
            np.array(t, dtype=np.int32),
            np.asarray(t).dtype.name,
        )

    same(program)


def test_asarray_shares_and_array_copies():
    def program(T):
        t = T.zeros(2)
        np.asarray(t)[0] = 1
        np.array(t)[1] = 1
        return t

    same(program)


def test_numpy_reductions_of_tensors():
    same(
        lambda T: (
            float(np.max(np.asarray(T.tensor([1.0, 5.0])))),
            np.stack([T.ones(2), T.zeros(2)]),
        )
    )


# ---------------------------------------------------------------- from NumPy


@pytest.mark.parametrize("dtype", DTYPES)
def test_from_numpy_shares_memory_and_keeps_the_dtype(dtype):
    def program(T):
        a = np.ones((2, 3), dtype=dtype)
        t = T.from_numpy(a)
        a[0, 0] = 0
        return t

    same(program)


def test_in_place_ops_on_a_tensor_from_numpy_write_the_array():
    def program(T):
        a = np.ones(3)
        t = T.from_numpy(a)
        t.add_(1)
        t[0] = 7
        return a, t._version

    same(program)


def test_from_numpy_of_a_strided_array():
    def program(T):
        a = np.arange(12.0).reshape(3, 4)
        t = T.from_numpy(a[::2, 1:].T)
        return t, t.is_contiguous(), t.stride()

    same(program)


@pytest.mark.parametrize(
    "value", [[1, 2], 3, "a", np.float64(1.0)], ids=["list", "int", "str", "scalar"]
)
def test_from_numpy_wants_an_array(value):
    same(
        lambda T: T.from_numpy(value),
        raises=TypeError,
        match="expected np.ndarray",
        message="exact",
    )


@pytest.mark.parametrize("dtype", ["U3", "O", "datetime64[s]"])
def test_from_numpy_refuses_unknown_dtypes(dtype):
    same(
        lambda T: T.from_numpy(np.zeros(2, dtype=dtype)),
        raises=TypeError,
        match="can't convert np.ndarray of type",
        message="type",
    )


def test_tensor_copies_and_as_tensor_shares():
    def program(T):
        a = np.zeros(2)
        copied, shared = T.tensor(a), T.as_tensor(a)
        a[0] = 5
        return copied, shared, T.as_tensor(a, dtype=T.float32)

    same(program)


def test_as_tensor_returns_a_tensor_as_it_is():
    def program(T):
        t = leaf(T)
        return T.as_tensor(t) is t, T.as_tensor(t, dtype=T.float64)

    same(program)


def test_tensor_of_a_tensor_warns():
    def program(T):
        return T.tensor(leaf(T))

    same(program, warns="To copy construct from a tensor")


@pytest.mark.parametrize(
    "value",
    [
        1,
        1.5,
        True,
        [1, 2],
        [1, 2.5],
        [True, 2],
        [[1.0], [2.0]],
        [],
        [[]],
        (1, 2),
        np.float32(1.5),
        np.int16(3),
        np.arange(3),
        [np.float64(1.0), 2.0],
        [np.array([1, 2]), np.array([3, 4])],
        range(3),
        2**40,
        float("nan"),
        float("inf"),
        -0.0,
    ],
    ids=repr,
)
def test_what_tensor_makes_of_python_values(value):
    same(lambda T: (T.tensor(value), outcome_of(lambda: T.as_tensor(value))))


@pytest.mark.parametrize(
    "value", [[[1, 2], [3]], "text", None, [1, "a"], {"a": 1}, [None], 2**70, object], ids=repr
)
def test_what_tensor_refuses(value):
    same(lambda T: T.tensor(value), raises=(TypeError, ValueError, RuntimeError), message="type")


def test_tensor_of_a_list_of_tensors():
    same(lambda T: T.tensor([T.tensor(1.0), T.tensor(2.0)]))


# ---------------------------------------------------------------- mixed arithmetic

OPERATIONS = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "pow": lambda a, b: a**b,
    "floordiv": lambda a, b: a // b,
    "mod": lambda a, b: a % b,
    "gt": lambda a, b: a > b,
    "eq": lambda a, b: a == b,
}
SCALARS = {
    "float64": np.float64(2.5),
    "float32": np.float32(2.5),
    "float16": np.float16(2.5),
    "int64": np.int64(2),
    "int8": np.int8(2),
    "python_int": 2,
    "python_float": 2.5,
    "python_bool": True,
}


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize("scalar", SCALARS)
def test_a_scalar_on_the_right(operation, scalar):
    def program(T):
        f, s = OPERATIONS[operation], SCALARS[scalar]
        return [
            outcome_of(lambda t=t: f(t, s)) for t in (leaf(T), T.tensor([1, 2, 3]), T.tensor(2.0))
        ]

    same(program, message="type")


@pytest.mark.parametrize("operation", OPERATIONS)
@pytest.mark.parametrize(
    "scalar", ["python_int", "python_float", "python_bool", "float64", "float32", "int64"]
)
def test_a_scalar_on_the_left_keeps_the_tensor_and_its_graph(operation, scalar):
    """A NumPy scalar must not swallow the tensor: ``np.float64(2) * t`` stays a tensor."""

    def program(T):
        f, s = OPERATIONS[operation], SCALARS[scalar]
        if T is torch and isinstance(s, np.generic):
            s = s.item()  # PyTorch lets NumPy make an array of the tensor
        # PyTorch has no gradient of the remainder of a number by a tensor.
        x = leaf(T).detach() if operation == "mod" else leaf(T)
        results = [outcome_of(lambda t=t: f(s, t)) for t in (x, T.tensor([1, 2, 3]))]
        if scalar.startswith("python"):
            return results
        return [r if isinstance(r, Exception) else (r.detach(), r.requires_grad) for r in results]

    same(program, message="type", rtol=1e-6)


def test_a_numpy_array_on_the_left_of_a_graph():
    """NumPy must leave the operation to the tensor, not make an array of objects."""
    if ON_TORCH:
        pytest.skip("PyTorch asks NumPy to convert the tensor, which fails for a graph")
    x = leaf(library)
    y = np.array([1.0, 2.0, 3.0], dtype=np.float32) * x
    assert isinstance(y, library.Tensor) and y.requires_grad
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 2.0, 3.0]


@pytest.mark.parametrize("operation", [name for name in OPERATIONS if name != "gt"])
def test_a_numpy_array_on_the_right(operation):
    def program(T):
        a = np.array([1.0, 2.0, 3.0], dtype=np.float32)
        return outcome_of(lambda: OPERATIONS[operation](T.tensor([1.0, 2.0, 3.0]), a))

    same(program, message="type")


def test_comparison_with_something_foreign():
    def program(T):
        t = T.tensor([1.0, 2.0])
        none = None
        return t == "text", t == none, t != none

    same(program)


@pytest.mark.parametrize("operand", ["text", None, [1.0, 2.0, 3.0], {}], ids=repr)
@pytest.mark.parametrize("operation", ["add", "mul", "gt"])
def test_foreign_operands_are_refused(operation, operand):
    same(lambda T: OPERATIONS[operation](leaf(T), operand), raises=TypeError, message="type")


# ---------------------------------------------------------------- DLPack


def test_dlpack_to_numpy_and_back_shares_memory():
    def program(T):
        t = T.arange(6.0).reshape(2, 3)
        a = np.from_dlpack(t)
        t[0, 0] = 50.0
        back = T.from_dlpack(a)
        return a, back, back.data_ptr() == t.data_ptr(), t.__dlpack_device__()[1]

    same(program)


def test_dlpack_of_a_graph_is_refused():
    same(
        lambda T: np.from_dlpack(leaf(T)),
        raises=(BufferError, RuntimeError),
        match="requires? grad",
        message="prefix",
    )


def test_dlpack_between_the_libraries():
    ours = library.arange(6.0)
    theirs = torch.from_dlpack(ours)
    theirs.add_(1)
    assert ours.tolist() == [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]
    again = library.from_dlpack(torch.arange(3))
    assert again.tolist() == [0, 1, 2] and str(again.dtype).endswith("int64")
