"""Matrix products: mm, bmm, matmul, linear."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import autocast_mode
from gradlite.backends.cpu import loud, quiet
from gradlite.grad_mode import INFERENCE, current_mode
from gradlite.graph import record
from gradlite.ops import products, small
from gradlite.ops.binary import sum_to
from gradlite.ops.casting import lowered
from gradlite.ops.column_sums import column_sums
from gradlite.ops.dispatch import NOWHERE, Cut, apply, edges_of, recorded, same_device
from gradlite.ops.layout import row_major
from gradlite.ops.matmul_errors import broadcast, refusal
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.products import LEAST_SIZE, known_gradient
from gradlite.ops.reduce import ColumnSums, ones
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, gradient_edge, wrap

__all__ = [
    "bmm",
    "dot",
    "linear",
    "matmul",
    "mm",
    "mv",
    "spmm",
]

_new = object.__new__
_column_sums = ColumnSums.forward


def check_operands(name: str, a: Tensor, b: Tensor) -> None:
    if not isinstance(a, Tensor) or not isinstance(b, Tensor):
        place = int(isinstance(a, Tensor))
        raise TypeError(
            f"{name}(): argument '{('input', 'other')[place]}' (position {place + 1}) must be "
            f"Tensor, not {(a, b)[place].__class__.__name__}"
        )
    same_device(a, b)
    if a.array.dtype != b.array.dtype:
        if name in ("dot", "vdot"):
            raise RuntimeError(
                "dot : expected both vectors to have same dtype, but found "
                f"{type_name(a.array.dtype)} and {type_name(b.array.dtype)}"
            )
        raise RuntimeError(
            f"expected m1 and m2 to have the same dtype, but got: {_ctype(a)} != {_ctype(b)}"
        )


def _ctype(t: Tensor) -> str:
    return {"Long": "long int"}.get(type_name(t.array.dtype), type_name(t.array.dtype).lower())


class Mm(Op):
    """A product of two matrices."""

    reads = ((1,), (0,))
    multiplies = True

    def fused_forward(K: Any, a: Any, b: Any) -> Any:
        return K.gemm.matmul(a, b)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return products.mm(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        left = None if b is None else F.mm(grad, b.swapaxes(0, 1))
        right = None if a is None else F.mm(a.swapaxes(0, 1), grad)
        return left, right


class Matmul(Op):
    """A product of matrices, batched and broadcast over the leading dimensions."""

    reads = ((1,), (0,))
    grad_name = "BmmBackward0"
    multiplies = True

    def fused_forward(K: Any, a: Any, b: Any) -> Any:
        return K.gemm.matmul(a, b)

    def forward(xp: Any, a: Any, b: Any) -> Any:
        out = products.matmul(a, b) if xp is np else xp.matmul(a, b)
        return row_major(out) if out.ndim > 3 else out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        left = right = None
        if len(ctx.shapes[1]) == 2:  # the same b for all: the rows of one matrix
            return _of_rows(F, a, b, grad, ctx.shapes[0])
        if b is not None:
            left = sum_to(F, F.matmul(grad, b.swapaxes(-1, -2)), tuple(ctx.shapes[0]))
        if a is not None:
            right = sum_to(F, F.matmul(a.swapaxes(-1, -2), grad), tuple(ctx.shapes[1]))
        return left, right


def _of_rows(F: Any, a: Any, b: Any, grad: Any, shape: Any) -> tuple[Any, Any]:
    """The gradients of a stack of matrices, of that shape, times one matrix."""
    rows = math.prod(shape[:-1])
    grad = grad.reshape((rows, grad.shape[-1]))
    left = right = None
    if b is not None:
        left = F.mm(grad, b.swapaxes(0, 1)).reshape(tuple(shape))
    if a is not None:
        right = F.mm(a.reshape((rows, shape[-1])).swapaxes(0, 1), grad)
    return left, right


class MatmulFolded(Matmul):
    """A product whose operands PyTorch first brings to three dimensions."""

    grad_name = "UnsafeViewBackward0"


class Dot(Op):
    """The inner product of two vectors."""

    reads = ((1,), (0,))
    multiplies = True

    def fused_forward(K: Any, a: Any, b: Any) -> Any:
        product = K.gemm.matmul(a[None], b[:, None])
        return product if product is NotImplemented else product[0, 0]

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.dot(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return (None if b is None else grad * b, None if a is None else grad * a)


class Mv(Op):
    """A matrix times a vector."""

    reads = ((1,), (0,))
    multiplies = True

    def fused_forward(K: Any, a: Any, x: Any) -> Any:
        product = K.gemm.matmul(a, x[:, None])
        return product if product is NotImplemented else product[:, 0]

    def forward(xp: Any, a: Any, x: Any) -> Any:
        return xp.dot(a, x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, x = ctx.saved
        left = None if x is None else grad.reshape((-1, 1)) * x
        right = None if a is None else F.mv(a.swapaxes(0, 1), grad)
        return left, right


@public(
    samples=lambda: [
        S(normal(2, 3), normal(3, 4)),
        S(normal(0, 3), normal(3, 2)),
        S(normal(2, 0), normal(0, 2)),
    ],
    method=True,
)
def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """The product of two matrices, (n, m) @ (m, p) -> (n, p).

    >>> import gradlite
    >>> gradlite.mm(gradlite.ones(2, 3), gradlite.ones(3, 1))
    tensor([[3.],
            [3.]])

    Raises:
        RuntimeError: not matrices, sizes that do not fit, or different dtypes.
    """
    if autocast_mode.used:
        input, mat2 = lowered(input, mat2)
    check_operands("mm", input, mat2)
    a, b = input.array, mat2.array
    if a.ndim != 2:
        raise RuntimeError("self must be a matrix")
    if b.ndim != 2:
        raise RuntimeError("mat2 must be a matrix")
    if a.shape[1] != b.shape[0]:
        raise RuntimeError(
            "mat1 and mat2 shapes cannot be multiplied "
            f"({a.shape[0]}x{a.shape[1]} and {b.shape[0]}x{b.shape[1]})"
        )
    return apply(Mm, (input, mat2))  # type: ignore[no-any-return]


spmm = mm  # for sparse matrices in PyTorch, which takes dense ones there too


@public(
    samples=lambda: [S(normal(2, 3, 4), normal(2, 4, 5)), S(normal(0, 3, 4), normal(0, 4, 2))],
    method=True,
)
def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of two batches of matrices, (b, n, m) @ (b, m, p) -> (b, n, p).

    >>> import gradlite
    >>> gradlite.bmm(gradlite.ones(2, 3, 4), gradlite.ones(2, 4, 5)).shape
    gradlite.Size([2, 3, 5])
    """
    if autocast_mode.used:
        input, mat2 = lowered(input, mat2)
    check_operands("bmm", input, mat2)
    a, b = input.array, mat2.array
    if a.ndim != 3:
        raise RuntimeError("batch1 must be a 3D tensor")
    if b.ndim != 3:
        raise RuntimeError("batch2 must be a 3D tensor")
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise RuntimeError(
            "Expected size for first two dimensions of batch2 tensor to be: "
            f"[{a.shape[0]}, {a.shape[2]}] but got: [{b.shape[0]}, {b.shape[1]}]."
        )
    return apply(Matmul, (input, mat2))  # type: ignore[no-any-return]


@public(
    samples=lambda: [S(normal(3), normal(3)), S(normal(0), normal(0))],
    method=True,
    autocast=("", "widest"),
)
def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """The inner product of two vectors.

    >>> import gradlite
    >>> gradlite.dot(gradlite.tensor([1, 2]), gradlite.tensor([3, 4]))
    tensor(11)
    """
    check_operands("dot", input, tensor)
    if input.array.ndim != 1 or tensor.array.ndim != 1:
        raise RuntimeError(
            f"1D tensors expected, but got {input.array.ndim}D and {tensor.array.ndim}D tensors"
        )
    if input.array.shape != tensor.array.shape:
        raise RuntimeError(
            "inconsistent tensor size, expected tensor "
            f"{list(input.array.shape)} and src {list(tensor.array.shape)} to have the same number "
            f"of elements, but got {input.array.size} and {tensor.array.size} elements respectively"
        )
    return apply(Dot, (input, tensor))  # type: ignore[no-any-return]


@public(
    samples=lambda: [S(normal(2, 3), normal(3))],
    method=True,
    autocast=("", "lower"),
)
def mv(input: Tensor, vec: Tensor) -> Tensor:
    """A matrix times a vector, (n, m) @ (m,) -> (n,).

    >>> import gradlite
    >>> gradlite.mv(gradlite.ones(2, 3), gradlite.ones(3))
    tensor([3., 3.])
    """
    check_operands("mv", input, vec)
    if input.array.ndim != 2 or vec.array.ndim != 1:
        raise RuntimeError(
            f"vector + matrix @ vector expected, got 1, {input.array.ndim}, {vec.array.ndim}"
        )
    if input.array.shape[1] != vec.array.shape[0]:
        raise RuntimeError(
            f"size mismatch, got input ({input.array.shape[0]}), mat "
            f"({input.array.shape[0]}x{input.array.shape[1]}), vec ({vec.array.shape[0]})"
        )
    return apply(Mv, (input, vec))  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3), normal(3)),
        S(normal(2, 3), normal(3)),
        S(normal(3), normal(3, 2)),
        S(normal(2, 3), normal(3, 4)),
        S(normal(5, 2, 3), normal(3, 4)),
        S(normal(2, 3), normal(5, 3, 4)),
        S(normal(5, 1, 2, 3), normal(4, 3, 2)),
        S(normal(5, 2, 3), normal(3)),
        S(normal(3), normal(5, 3, 2)),
    ],
    method=True,
)
def matmul(input: Tensor, other: Tensor) -> Tensor:
    """The matrix product with NumPy's rules: vectors are rows or columns, batches broadcast.

    >>> import gradlite
    >>> gradlite.matmul(gradlite.ones(5, 2, 3), gradlite.ones(3, 4)).shape
    gradlite.Size([5, 2, 4])

    Raises:
        RuntimeError: sizes that do not fit, a 0-d operand or different dtypes.
    """
    if autocast_mode.used:
        input, other = lowered(input, other)
    check_operands("matmul", input, other)
    n, m = input.array.ndim, other.array.ndim
    if n == 2 and m == 2:
        return mm(input, other)
    if n == 0 or m == 0:
        raise RuntimeError(
            f"both arguments to matmul need to be at least 1D, but they are {n}D and {m}D"
        )
    if n == 1 and m == 1:
        return dot(input, other)
    if n == 2 and m == 1:
        return mv(input, other)
    if n == 1 or m == 1:
        if input.array.shape[-1] != other.array.shape[-2 if n == 1 else 0]:
            raise RuntimeError(refusal(input, other))
        if n == 1:
            return matmul(input.unsqueeze(0), other).squeeze(-2)
        return matmul(input, other.unsqueeze(-1)).squeeze(-1)
    a, b = input.array.shape, other.array.shape
    if a[-1] != b[-2] or not broadcast(a[:-2], b[:-2]):
        raise RuntimeError(refusal(input, other))
    return apply(MatmulFolded, (input, other))  # type: ignore[no-any-return]


class Linear(Op):
    """x @ weight.T + bias as one node; the products of its gradients are plain GEMMs."""

    reads = ((1,), (0,), ())
    grad_name = "AddmmBackward0"
    multiplies = True

    def fused_forward(K: Any, x: Any, weight: Any, bias: Any) -> Any:
        rows = x if x.ndim == 2 else x.reshape((math.prod(x.shape[:-1]), x.shape[-1]))
        gemm = K.gemm
        out = gemm.matmul(rows, weight.T) if bias is None else gemm.linear(rows, weight.T, bias)
        if x.ndim == 2 or out is NotImplemented:
            return out
        return out.reshape((*x.shape[:-1], weight.shape[0]))

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, weight = ctx.saved
        shape = ctx.shapes[0]
        count = math.prod(shape[:-1])
        grad = K.dense(grad.reshape((count, grad.shape[-1])))
        grad_x = grad_weight = grad_bias = None
        if weight is not None:
            grad_x = K.gemm.matmul(grad, weight)
            if grad_x is NotImplemented:
                return grad_x
            grad_x = grad_x.reshape(shape)
        if x is not None:
            rows = x.reshape((count, shape[-1]))
            known = known_gradient(ctx, 1, grad, rows)
            total = None if known is None else known.array
            if ctx.edges[2] is not None:
                grad_weight, grad_bias = K.gemm.with_row_sums(grad.T, rows, total)
            elif total is None:
                grad_weight = K.gemm.matmul(grad.T, rows)
            else:
                grad_weight = K.gemm.add_into(total, grad.T, rows)
            if grad_weight is NotImplemented:
                return grad_weight
            if known is not None:
                known._bump()
                grad_weight = None
        if grad_bias is None and ctx.edges[2] is not None:
            grad_bias = column_sums(K, grad) if K.takes(grad) else grad.sum(0)
        return grad_x, grad_weight, grad_bias

    def forward(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
        if x.ndim == 2:
            if bias is not None and isinstance(x, np.ndarray) and small.worth(x, weight):
                return small.layer(xp, x, weight, bias, False)
            return products.mm(x, weight.T, bias)
        count = -1 if x.size else math.prod(x.shape[:-1])
        rows = products.mm(x.reshape((count, x.shape[-1])), weight.T, bias)
        return rows.reshape((*x.shape[:-1], weight.shape[0]))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, weight = ctx.saved
        return Linear.gradients(ctx, x, weight, grad, F)

    @staticmethod
    def gradients(ctx: Any, x: Any, weight: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        """The rule for what was saved of x and the weight."""
        shape = ctx.shapes[0]
        if isinstance(grad, np.ndarray) and F.twins is None and len(shape) == 2:
            # The rule below, written out for small networks.
            rows, bias = grad.T, ctx.edges[2]
            if x is not None and bias is not None and small.worth_gradients(grad, x):
                made = small.gradients(np, grad, None, x, weight)
                return made if weight is not None else (None, *made)
            if grad.size < LEAST_SIZE:
                return (
                    None if weight is None else grad.dot(weight),
                    None if x is None else rows.dot(x),
                    None if bias is None else rows.dot(ones(rows.shape[1], grad.dtype)),
                )
            return (
                None if weight is None else products.mm(grad, weight),
                None if x is None else products.mm(rows, x),
                None if bias is None else _column_sums(np, grad),
            )
        if len(shape) != 2:
            count = math.prod(shape[:-1])
            grad = grad.reshape((count, grad.shape[-1]))
        grad_x = grad_weight = grad_bias = None
        if weight is not None:
            grad_x = F.mm(grad, weight)
            if len(shape) != 2:
                grad_x = grad_x.reshape(shape)
        if x is not None:
            rows = x if len(shape) == 2 else x.reshape((count, shape[-1]))
            grad_weight = F.mm(grad.swapaxes(0, 1), rows)
        if ctx.edges[2] is not None:
            grad_bias = F.column_sums(grad)
        return grad_x, grad_weight, grad_bias


@public(
    samples=lambda: [
        S(normal(4, 3), normal(2, 3), normal(2)),
        S(normal(4, 3), normal(2, 3)),
        S(normal(2, 4, 3), normal(5, 3), normal(5)),
        S(normal(3), normal(2, 3), normal(2)),
        S(normal(0, 3), normal(2, 3), normal(2)),
        S(normal(2, 3, 0), normal(2, 0), normal(2)),
    ],
    torch="nn.functional.linear",
)
def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """``input @ weight.T + bias``: (*, in) with weight (out, in) gives (*, out).

    >>> import gradlite
    >>> gradlite.nn.functional.linear(gradlite.ones(1, 3), gradlite.ones(2, 3), gradlite.ones(2))
    tensor([[4., 4.]])

    Raises:
        RuntimeError: sizes that do not fit, or different dtypes.
    """
    if autocast_mode.used:
        input, weight, bias = lowered(input, weight, bias)
    x, w = input.array, weight.array
    kind = w.dtype
    if x.dtype != kind or (bias is not None and bias.array.dtype != kind):
        other = weight if x.dtype != w.dtype else bias
        raise RuntimeError(
            "mat1 and mat2 must have the same dtype, but got "
            f"{type_name(x.dtype)} and {type_name(other.array.dtype)}"  # type: ignore[union-attr]
        )
    if x.ndim == 0 or w.ndim != 2 or x.shape[-1] != w.shape[1]:
        if x.ndim == 0:
            raise RuntimeError(
                "both arguments to linear need to be at least 1D, but they are 0D and 2D"
            )
        if w.ndim != 2:
            if w.ndim == 1 and bias is None:
                return matmul(input, weight)
            raise RuntimeError(f"t() expects a tensor with <= 2 dimensions, but self is {w.ndim}D")
        rows = x.size // x.shape[-1] if x.shape[-1] else 0
        raise RuntimeError(
            "mat1 and mat2 shapes cannot be multiplied "
            f"({rows}x{x.shape[-1]} and {w.shape[1]}x{w.shape[0]})"
        )
    if x.__class__ is not w.__class__:
        same_device(input, weight)
    F = NAMESPACES[x.__class__]
    if x.__class__ is not np.ndarray or bias is None or F.twins is not None:
        return apply(Linear, (input, weight, bias))  # type: ignore[no-any-return]
    return _linear(F, input, weight, bias)


def _linear(F: Any, input: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """`apply` written out for the op that small networks spend most of their time in."""
    x, w, b = input.array, weight.array, bias.array
    token = quiet()
    try:
        out = Linear.forward(np, x, w, b)
    finally:
        loud(token)
    result = _new(Tensor)
    result.array = out
    result._edge = result._grad = result._view = None
    result._requires_grad = False
    mode = current_mode()
    result._counter = [0] if mode < INFERENCE else None
    if mode == 0:
        to_x = input._edge
        if to_x is None or input._view is not None:
            to_x = gradient_edge(input)
        to_w = gradient_edge(weight)
        m, n = input._counter, weight._counter
        if to_w is not None and m is not None is not n:
            shapes = (x.shape, w.shape, b.shape)
            edges = (to_x, to_w, gradient_edge(bias))
            of_w = None if to_x is None else (n, n[0])
            saved = (x, None if to_x is None else w)
            result._edge = record(Linear, edges, saved, ((m, m[0]), of_w), (), F, None, shapes)
            result._requires_grad = True
        else:
            _record_linear(F, (input, weight, bias), [x, w, b], result)
    return result


def _record_linear(F: Any, inputs: tuple[Tensor, ...], arrays: list[Any], result: Tensor) -> None:
    """The rarer cases of `_linear`: a weight that is frozen or a view of one that is not."""
    edges, op = edges_of(inputs), Linear
    if edges is None:
        return
    if edges is NOWHERE:
        op, edges = Cut(op), (None, None, None)  # type: ignore[assignment]
    out, version = result.array, result._counter
    result._edge = recorded(op, edges, inputs, arrays, (), F, None, out, version, 1)
    result._requires_grad = True


def _attach() -> None:
    t: Any = Tensor

    def operator(self: Tensor, other: Any) -> Any:
        if not isinstance(other, Tensor):
            if not isinstance(other, np.ndarray):
                return NotImplemented
            other = _from_array(other)
        return matmul(self, other)

    def reflected(self: Tensor, other: Any) -> Any:
        if isinstance(other, np.ndarray):
            other = _from_array(other)
        return matmul(other, self) if isinstance(other, Tensor) else NotImplemented

    t.__matmul__, t.__rmatmul__ = operator, reflected


def _from_array(array: np.ndarray[Any, Any]) -> Tensor:
    return wrap(array)


_attach()
