"""NumPy's ufuncs on Tensors: which library computes, and which way gradients flow."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.interop import NUMBERS_TOO, TENSORS_ONLY
from gradlite.tensor import Tensor

OPERATORS = [
    operator.add,
    operator.sub,
    operator.mul,
    operator.truediv,
    operator.pow,
    operator.mod,
]
COMPARISONS = [operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne]
# Inputs in the domain of all unary functions but arccosh.
INSIDE = {"arccosh": [1.5, 2.5]}
WITHOUT_GRADIENT = {"floor_divide", "isnan", "isinf", "isfinite"}
WITHOUT_GRADIENT |= {
    n for n in NUMBERS_TOO | TENSORS_ONLY if n.split("_")[0] in ("logical", "bitwise")
}
WITHOUT_GRADIENT |= {
    "invert",
    "equal",
    "not_equal",
    "less",
    "less_equal",
    "greater",
    "greater_equal",
}


def leaf(*values: float) -> Any:
    return gradlite.tensor(values or (0.25, 0.5, 0.75), requires_grad=True, dtype=gradlite.float64)


@pytest.mark.parametrize("name", sorted({**NUMBERS_TOO, **TENSORS_ONLY}))
def test_every_mapped_ufunc_computes_what_numpy_does(name: str) -> None:
    ufunc = getattr(np, name)
    values = np.array(INSIDE.get(name, [0.25, 0.75]))
    if name.startswith("bitwise") or name == "invert":
        values = np.array([5, 6])
    arrays = [values, values[::-1].copy()][: ufunc.nin]
    expected = ufunc(*arrays)
    result = ufunc(*map(gradlite.tensor, arrays))
    assert isinstance(result, Tensor)
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-12)
    for place in range(ufunc.nin):  # a Tensor on one side alone
        mixed: list[Any] = list(arrays)
        mixed[place] = gradlite.tensor(mixed[place])
        one_sided = ufunc(*mixed)
        assert isinstance(one_sided, Tensor)
        np.testing.assert_allclose(one_sided.numpy(), expected, rtol=1e-12)


@pytest.mark.parametrize("name", sorted({*NUMBERS_TOO, *TENSORS_ONLY} - WITHOUT_GRADIENT))
def test_mapped_ufuncs_keep_the_graph(name: str) -> None:
    ufunc = getattr(np, name)
    x = leaf(*INSIDE.get(name, [0.25, 0.75]))
    result = ufunc(*[x, np.array([0.5, 0.5])][: ufunc.nin])
    assert result.requires_grad
    result.sum().backward()
    assert x.grad.shape == x.shape


@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
def test_gradients_flow_past_an_array_on_either_side(op: Any) -> None:
    array = np.array([2.0, 3.0, 4.0])
    for arguments in (lambda t: (array, t), lambda t: (t, array)):
        x, y = leaf(), leaf()
        result = op(*arguments(x))
        wrapped = op(*(gradlite.tensor(a) if a is array else a for a in arguments(y)))
        assert isinstance(result, Tensor)
        np.testing.assert_array_equal(result.detach().numpy(), wrapped.detach().numpy())
        result.sum().backward()
        wrapped.sum().backward()
        assert x.grad.tolist() == y.grad.tolist()


@pytest.mark.parametrize("op", COMPARISONS, ids=lambda op: op.__name__)
def test_comparisons_with_an_array_on_either_side(op: Any) -> None:
    values, array = np.array([1.0, 2.0, 3.0]), np.array([3.0, 2.0, 1.0])
    x = leaf(*values)
    for left, right, expected in ((array, x, op(array, values)), (x, array, op(values, array))):
        result = op(left, right)
        assert isinstance(result, Tensor) and result.dtype == gradlite.bool
        assert result.tolist() == expected.tolist()


@pytest.mark.parametrize(
    "scalar", [np.float32(2), np.float64(2), np.int64(2)], ids=lambda s: s.dtype.name
)
@pytest.mark.parametrize("op", OPERATORS, ids=lambda op: op.__name__)
def test_a_numpy_scalar_counts_as_a_python_number(op: Any, scalar: Any) -> None:
    x = gradlite.tensor([1.0, 2.0], requires_grad=True)
    result, expected = op(scalar, x), op(scalar.item(), x)
    assert result.dtype == gradlite.float32 == expected.dtype
    assert result.tolist() == expected.tolist()
    assert result.grad_fn.name() == expected.grad_fn.name()


def test_matrix_products_with_arrays() -> None:
    x = gradlite.ones(2, 3, requires_grad=True)
    left = np.arange(4.0, dtype=np.float32).reshape(2, 2) @ x
    right = x @ np.arange(3.0, dtype=np.float32)
    assert left.tolist() == [[1.0] * 3, [5.0] * 3] and right.tolist() == [3.0, 3.0]
    (left.sum() + right.sum()).backward()
    assert x.grad.tolist() == [[2.0, 3.0, 4.0], [4.0, 5.0, 6.0]]


def test_a_double_array_times_a_float_matrix_is_double() -> None:
    x = gradlite.ones(2, 2, requires_grad=True)
    result = np.eye(2) @ x
    assert result.dtype == gradlite.float64
    result.sum().backward()
    assert x.grad.dtype == gradlite.float32


def test_a_ufunc_without_an_op_needs_a_tensor_without_grad() -> None:
    assert np.cbrt(gradlite.tensor([8.0])).tolist() == [2.0]
    with pytest.raises(RuntimeError, match=r"Can't call numpy\(\) on Tensor that requires grad"):
        np.cbrt(leaf())
    with gradlite.no_grad():  # no gradient to lose
        assert not np.cbrt(leaf()).requires_grad


def test_methods_of_ufuncs() -> None:
    t = gradlite.tensor([1.0, 2.0, 3.0])
    assert np.add.reduce(t).item() == 6.0
    assert np.multiply.accumulate(t).tolist() == [1.0, 2.0, 6.0]
    assert np.multiply.outer(t, t).shape == (3, 3)
    with pytest.raises(RuntimeError, match=r"Can't call numpy\(\)"):
        np.add.reduce(leaf())


def test_several_outputs() -> None:
    fraction, whole = np.modf(gradlite.tensor([1.5, 2.25]))
    assert isinstance(fraction, Tensor) and fraction.tolist() == [0.5, 0.25]
    assert whole.tolist() == [1.0, 2.0]


def test_where_is_refused() -> None:
    with pytest.raises(TypeError, match="numpy.add of a Tensor does not take where="):
        np.add(leaf(), 1.0, where=np.array([True, False, True]))


def test_out_takes_numpy_arrays_only() -> None:
    t = gradlite.tensor([1.0, 2.0])
    out = np.zeros(2, np.float32)
    assert np.add(t, 1, out=out) is out and out.tolist() == [2.0, 3.0]
    with pytest.raises(TypeError, match=r"cannot write into a Tensor with out="):
        np.add(np.ones(2), 1, out=gradlite.zeros(2))


def test_arrays_are_added_to_in_place() -> None:
    array = np.ones(2, np.float32)
    same = array
    array += gradlite.tensor([1.0, 2.0])
    assert array is same and array.tolist() == [2.0, 3.0]
    with pytest.raises(RuntimeError, match=r"Can't call numpy\(\)"):
        array += gradlite.tensor([1.0, 2.0], requires_grad=True)


def test_other_functions_of_numpy_give_tensors_where_pytorchs_do() -> None:
    t = gradlite.tensor([0.5, 1.5])
    for result in (np.clip(t, 0, 1), np.round(t), np.cumsum(t), np.reshape(t, (2, 1))):
        assert isinstance(result, Tensor)


def test_arrays_of_foreign_dtypes_are_refused() -> None:
    with pytest.raises(TypeError, match="can't convert np.ndarray of type complex128"):
        np.add(np.array([1j, 2j, 3j]), leaf())


REDUCTIONS: dict[str, list[dict[str, Any]]] = {
    name: [{}, {"axis": 0}, {"axis": -1, "keepdims": True}]
    for name in ("sum", "mean", "prod", "max", "min", "amax", "amin", "any", "all", "std", "var")
}
REDUCTIONS["sum"] += [{"axis": (0, 1)}, {"dtype": np.float32}]
REDUCTIONS["std"] += [{"ddof": 1}, {"axis": 1, "correction": 1}]


@pytest.mark.parametrize("name", REDUCTIONS)
def test_numpys_reductions_compute_what_numpy_does(name: str) -> None:
    array = np.array([[1.0, 2.0, 0.5], [0.25, -3.0, 4.0]])
    for options in REDUCTIONS[name]:
        tensor = gradlite.tensor(array, requires_grad=True)
        expected = getattr(np, name)(array, **options)
        result = getattr(np, name)(tensor, **options)
        assert isinstance(result, Tensor) and result.requires_grad == (name not in ("any", "all"))
        assert tuple(result.shape) == np.shape(expected)
        assert result.detach().numpy().dtype == expected.dtype
        np.testing.assert_allclose(result.detach().numpy(), expected)


def test_numpys_reductions_refuse_what_they_cannot_do() -> None:
    tensor = gradlite.ones(2, 3)
    with pytest.raises(TypeError, match="where="):
        np.sum(tensor, where=np.ones((2, 3), bool))
    with pytest.raises(TypeError, match="out="):
        np.sum(tensor, out=np.zeros(()))


def test_numpys_other_functions_work_as_they_always_did() -> None:
    tensor = gradlite.tensor([[3.0, 1.0], [2.0, 4.0]])
    assert np.argmax(tensor) == 3
    assert np.concatenate([tensor, tensor]).shape == (4, 2)
    np.testing.assert_allclose(np.median(tensor), 2.5)
    assert np.array_equal(tensor, tensor.numpy())
    assert isinstance(np.clip(tensor, 2, 3), Tensor)
