"""Norms of vectors and matrices."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import moments
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import OUT, apply1
from gradlite.ops.factorizations import svdvals
from gradlite.ops.guard import on_its_device
from gradlite.ops.matrices import check_dtype
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import cast, in_single
from gradlite.ops.pointwise import slope_of, value_of
from gradlite.ops.reduce import reduced_dims, spread
from gradlite.ops.samples import S, distinct, normal
from gradlite.ops.shape import contiguous
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["dist", "norm", "pdist", "renorm"]


class VectorNorm(Op):
    """(sum |x|^p)^(1/p) over dimensions; the limits for p = inf and -inf, the count for 0.

    The gradient is 0 where the norm is, and an extremum's ties share it evenly.
    """

    reads = ((0, OUT),)
    row_major = True
    grad_name = "LinalgVectorNormBackward0"
    native_from, native_backward_from = 1 << 14, 1 << 12

    def forward(xp: Any, x: Any, p: float, dims: tuple[int, ...], keepdim: bool) -> Any:
        if p == 2:
            if xp is np and len(dims) == x.ndim and x.flags.forc and not keepdim:
                row = x.ravel("K")
                return np.sqrt(row.dot(row))
            out = xp.sqrt((x * x).sum(axis=dims, keepdims=keepdim))
        elif p == 0:
            out = (x != 0).sum(axis=dims, keepdims=keepdim)
        else:
            size = xp.abs(x)
            if math.isinf(p):
                out = (size.max if p > 0 else size.min)(axis=dims, keepdims=keepdim)
            elif p == 1:
                out = size.sum(axis=dims, keepdims=keepdim)
            else:
                out = (size**p).sum(axis=dims, keepdims=keepdim) ** (1 / p)
        return xp.asarray(out).astype(x.dtype)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, out = ctx.saved
        p, dims, _ = ctx.attrs
        return (None if p == 0 else norm_gradient(F, grad, x, out, p, dims),)

    def fused_forward(K: Any, x: Any, p: float, dims: tuple[int, ...], keepdim: bool) -> Any:
        return moments.norm(K, x, p, dims, keepdim)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, out = ctx.saved
        p, dims, _ = ctx.attrs
        return moments.norm_gradient(K, grad, x, out, p, dims)


def norm_gradient(F: Any, grad: Any, x: Any, out: Any, p: float, dims: tuple[int, ...]) -> Any:
    """The gradient of ``x`` for one of ``out``, its p-norm over dimensions; p is not 0."""
    shape = tuple(x.shape)
    zero = F.zero_beside(grad)
    if p == 1:
        return spread(F, grad, shape, dims) * F.sign(x)
    if p == 2:
        none = out == 0
        return x * spread(F, F.where(none, zero, grad / F.where(none, zero + 1, out)), shape, dims)
    size = F.abs(x)
    if math.isinf(p):
        reached = F.to_copy(size == spread(F, out, shape, dims), F.array(grad).dtype)
        ties = F.sum(reached, dims, True)  # none where the norm is NaN
        share = reached / F.where(ties == 0, zero + 1, ties)
        return F.sign(x) * share * spread(F, grad, shape, dims)
    none = out == 0
    scale = F.where(none, zero, grad / F.where(none, zero + 1, out) ** (p - 1))
    if p < 2:  # the slope of |x|^p at 0 is infinite or undefined: take 0
        flat = x == 0
        powers = F.where(flat, zero, F.where(flat, zero + 1, size) ** (p - 1)) * F.sign(x)
    else:
        powers = x * size ** (p - 2)
    return powers * spread(F, scale, shape, dims)


def vector_norm_of(input: Tensor, p: float, dim: Any, keepdim: bool, dtype: Any) -> Tensor:
    """The p-norm over dimensions (None: all), with the arguments checked."""
    if isinstance(p, str) or isinstance(p, Tensor) or p is None:
        raise TypeError(
            "linalg_vector_norm(): argument 'ord' (position 2) must be Number, not "
            f"{p.__class__.__name__}"
        )
    input = _in_dtype("linalg.vector_norm", input, dtype)
    array = input.array
    dims = reduced_dims(dim, array.ndim)
    if array.size == 0 and (math.isinf(p) or p < 0):
        if dim is None or (isinstance(dim, (tuple, list)) and not dim):
            raise RuntimeError(
                f"linalg.vector_norm cannot compute the {_number(p)} norm on an empty tensor "
                "because the operation does not have an identity"
            )
        for d in dims:
            if array.shape[d] == 0:
                raise RuntimeError(
                    f"linalg.vector_norm cannot compute the {_number(p)} norm on the dimension {d}"
                    "because this dimension is empty and the operation does not have an identity"
                )
    return apply1(VectorNorm, input, float(p), dims, keepdim)


def _in_dtype(function: str, input: Tensor, dtype: Any) -> Tensor:
    """What to take the norm of: in a dtype that loses nothing of the input's."""
    own = input.array.dtype
    if own not in dtypes.FLOATING:
        raise RuntimeError(
            f"{function}: Expected a floating point or complex tensor as input. Got "
            f"{type_name(own)}"
        )
    if dtype is None:
        return input
    dtype = dtypes.as_dtype(dtype)
    if not dtype.is_floating_point:
        raise RuntimeError(
            f"{function}: dtype should be floating point or complex, but got "
            f"{type_name(dtype.numpy)}"
        )
    if dtypes.promote_types(input.dtype, dtype) is not dtype:
        raise RuntimeError(
            f"{function}: the dtype of the input ({type_name(own)}) should be convertible without "
            f"narrowing to the specified dtype ({type_name(dtype.numpy)})"
        )
    return cast(input, dtype.numpy)


def _number(p: float) -> str:
    return "inf" if p == math.inf else f"{p:g}"


ORDERS = (2, 1, math.inf, -math.inf, 0, 3, 1.5, 0.5)


def _order_samples() -> list[Any]:
    return [
        S(normal(3, 4)),
        *(S(distinct(3, 4), p) for p in ORDERS),
        *(S(distinct(3, 4), p, 1) for p in ORDERS),
        S(distinct(2, 3, 4), 2, (0, 2)),
        S(distinct(2, 3, 4), 3, (0, -1), True),
        S(normal(), 2),
        S(normal(0), 2),
        S(normal(0, 3), 1, 1),
        S(np.zeros(3), smooth=False),
        S(np.array([0.0, -2.0, 2.0]), math.inf, smooth=False),
        S(np.array([0.0, -2.0, 2.0]), 1, smooth=False),
        S(np.array([0.0, -2.0, 2.0]), 1.5, smooth=False),
    ]


@public(
    samples=lambda: [
        *_order_samples(),
        S(normal(3, 4), "fro"),
        S(normal(3, 4), "fro", (0, 1), True),
        S(normal(3, 4), "fro", dim=0),
    ],
    method=True,
    errors=lambda: [S(np.arange(3)), S(normal(3), "x"), S(normal(3), 2, 1), S(normal(0), math.inf)],
    autocast=("", "float32-result"),
)
def norm(
    input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Tensor:
    """The p-norm of all elements or over dimensions; "fro" is 2, "nuc" that of matrices.

    >>> import gradlite
    >>> gradlite.norm(gradlite.tensor([3.0, 4.0]))
    tensor(5.)

    Raises:
        RuntimeError: the dtype is not floating, or the order is unknown.
    """
    if p is None or p == "fro":
        p = 2
    if isinstance(p, str):
        dims = tuple(range(input.array.ndim)) if dim is None else dim
        return matrix_norm(input, p, dims, keepdim, dtype=dtype)
    return vector_norm_of(input, p, dim, keepdim, dtype)


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4)),
        S(normal(3, 4), normal(4), 1),
        S(normal(3), normal(3), math.inf),
    ],
    method=True,
    autocast=("", "float32"),
)
def dist(input: Tensor, other: Tensor, p: float = 2) -> Tensor:
    """The p-norm of the difference of two tensors, broadcast.

    >>> import gradlite
    >>> gradlite.dist(gradlite.tensor([3.0, 0.0]), gradlite.tensor([0.0, 4.0]))
    tensor(5.)
    """
    return norm(input - other, p)  # type: ignore[operator]


@public(
    samples=lambda: [
        S(normal(4, 3)),
        S(normal(4, 3), 1.0),
        S(distinct(4, 3), math.inf),
        S(normal(3, 2), 0.5),
        S(normal(1, 3)),
        S(np.ones((3, 2)), smooth=False),
    ],
    torch="nn.functional.pdist",
    errors=lambda: [S(normal(3)), S(normal(3, 2), -1.0)],
    autocast=("", "float32"),
)
@on_its_device
def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """The p-norm distances between all pairs of rows, (n, d) -> (n (n - 1) / 2,).

    >>> import gradlite
    >>> gradlite.pdist(gradlite.tensor([[0.0, 0.0], [3.0, 4.0], [0.0, 1.0]]))
    tensor([5.0000, 1.0000, 4.2426])
    """
    if input.array.ndim != 2:
        raise RuntimeError("pdist only supports 2D tensors, got: " + f"{input.array.ndim}D")
    if p < 0:
        raise RuntimeError("pdist only supports non-negative p values")
    xp = NAMESPACES[input.array.__class__].xp
    first, second = (wrap(xp.asarray(i)) for i in np.triu_indices(input.array.shape[0], 1))
    apart: Any = input[first] - input[second]  # type: ignore[index, operator]
    return vector_norm_of(apart, p, -1, False, None)


class Limit(Op):
    """What brings a size down to the largest one that is allowed: most / (size + eps), or 1."""

    reads = ((0,),)

    def forward(xp: Any, size: Any, most: float, eps: float) -> Any:
        return xp.where(size > most, most / (size + eps), size.dtype.type(1))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (size,), (most, eps) = ctx.saved, ctx.attrs
        beyond = size + eps
        return (F.where(size > most, -grad * most / (beyond * beyond), F.zero_beside(grad)),)

    def fused_forward(K: Any, size: Any, most: float, eps: float) -> Any:
        return value_of(K, "limit", size, most, eps)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return slope_of(K, "limit", grad, ctx.saved[0], *ctx.attrs)


@public(
    samples=lambda: [
        S(normal(3, 4), 2, 0, 1.0),
        S(normal(3, 4), 1, 1, 2.0),
        S(normal(2, 3, 4), 2.5, -1, 0.7),
        S(normal(3, 4), 2, 0, 100.0),
    ],
    method=True,
    inplace="composed",
    errors=lambda: [
        S(normal(3), 2, 0, 1.0),
        S(normal(3, 4), 0, 0, 1.0),
        S(normal(3, 4), 2, 0, -1.0),
    ],
    autocast=("", "float32"),
)
@in_single
def renorm(input: Tensor, p: float, dim: int, maxnorm: float) -> Tensor:
    """The slices along ``dim`` whose p-norm exceeds ``maxnorm`` scaled down to it.

    >>> import gradlite
    >>> gradlite.renorm(gradlite.tensor([[3.0, 4.0], [0.3, 0.4]]), 2, 0, 1.0)
    tensor([[0.6000, 0.8000],
            [0.3000, 0.4000]])
    """
    n = input.array.ndim
    if p <= 0:
        raise RuntimeError("renorm: non-positive-norm not supported")
    if maxnorm < 0:
        raise RuntimeError(f"renorm: expected maxnorm to be >= 0 but got {maxnorm}")
    if n < 2:
        raise RuntimeError(f"renorm: input needs at least 2 dimensions, got {n} dimensions")
    d = wrap_dim(dim, n)
    size: Any = vector_norm_of(input, p, [k for k in range(n) if k != d], True, None)
    scale: Any = apply1(Limit, size, float(maxnorm), 1e-7)
    return contiguous(input) * scale  # type: ignore[no-any-return]


def _matrix_dims(name: str, array: Any, dim: Any) -> tuple[int, int]:
    if array.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")
    pair = dim if isinstance(dim, (tuple, list)) else (dim,)
    if len(pair) != 2:
        raise RuntimeError(f"{name}: dim must be a 2-tuple. Got {' '.join(map(str, pair))}")
    rows, columns = (wrap_dim(d, array.ndim) for d in pair)
    if rows == columns:
        raise RuntimeError(f"{name}: dims must be different. Got ({dim[0]}, {dim[1]})")
    return rows, columns


@public(
    samples=_order_samples,
    torch="linalg.vector_norm",
    autocast=("", "float32-result"),
)
def vector_norm(
    x: Tensor, ord: float = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """The p-norm of all elements or over dimensions, as ``gradlite.linalg.vector_norm``.

    >>> import gradlite
    >>> gradlite.linalg.vector_norm(gradlite.tensor([[3.0, 4.0], [6.0, 8.0]]), dim=1)
    tensor([ 5., 10.])
    """
    return vector_norm_of(x, ord, dim, keepdim, dtype)


@public(
    samples=lambda: [
        S(normal(3, 4)),
        *(S(normal(3, 4), p) for p in ("fro", 1, -1, math.inf, -math.inf)),
        *(S(normal(2, 3, 4), p) for p in ("nuc", 2, -2)),
        S(normal(2, 3, 4), 1, (0, 2), True),
        S(normal(2, 3, 4), "nuc", (2, 0), True),
        S(normal(3, 2, 4), 2, (0, -1)),
        S(normal(2, 3, 4), math.inf),
    ],
    torch="linalg.matrix_norm",
    autocast=("", "float32-result"),
)
def matrix_norm(
    A: Tensor, ord: Any = "fro", dim: Any = (-2, -1), keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """A norm of matrices: "fro", "nuc", 1, 2, inf, or with another sign the minimum instead.

    1 is the largest sum of a column's absolute values and inf of a row's; 2 is the largest singular
    value, and "nuc" the sum of all.

    >>> import gradlite
    >>> gradlite.linalg.matrix_norm(gradlite.tensor([[1.0, -2.0], [3.0, 4.0]]), 1)
    tensor(6.)
    """
    rows, columns = _matrix_dims("linalg.matrix_norm", A.array, dim)
    if ord == "fro":
        return vector_norm_of(A, 2, (rows, columns), keepdim, dtype)
    if ord not in ("nuc", 1, -1, 2, -2, math.inf, -math.inf):
        raise RuntimeError(f"linalg.matrix_norm: Order {ord} not supported.")
    A = _in_dtype("linalg.matrix_norm", A, dtype)
    if ord in ("nuc", 2, -2):
        return _norm_of_values(A, ord, rows, columns, keepdim)
    summed, chosen = (columns, rows) if math.isinf(ord) else (rows, columns)
    sums: Any = vector_norm_of(A, 1, summed, True, None)
    if A.array.shape[chosen] == 0 and ord > 0:  # the largest of no sums is 0
        return sums.sum((rows, columns), keepdim)  # type: ignore[no-any-return]
    result = sums.amax(chosen, True) if ord > 0 else sums.amin(chosen, True)
    return result if keepdim else result.squeeze((rows, columns))  # type: ignore[no-any-return]


def _norm_of_values(A: Tensor, ord: Any, rows: int, columns: int, keepdim: bool) -> Tensor:
    """The norms of matrices that are functions of their singular values."""
    check_dtype("linalg.matrix_norm", A)
    s: Any = svdvals(A.movedim((rows, columns), (-2, -1)))  # type: ignore[attr-defined]
    if ord == "nuc" or (ord == 2 and not s.array.shape[-1]):
        result = s.sum(-1)
    else:
        result = s.amax(-1) if ord == 2 else s.amin(-1)
    for d in sorted((rows, columns)) if keepdim else ():
        result = result.unsqueeze(d)
    return result  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3, 4)),
        S(distinct(3, 4), 1),
        S(distinct(4), 3),
        S(distinct(2, 3, 4), dim=1),
        S(distinct(2, 3, 4), math.inf, (1, 2)),
        S(distinct(3, 4), "fro", keepdim=True),
    ],
    torch="linalg.norm",
    autocast=("", "float32-result"),
)
def linalg_norm(
    A: Tensor, ord: Any = None, dim: Any = None, keepdim: bool = False, *, dtype: Any = None
) -> Tensor:
    """A norm of vectors or matrices, by the number of dimensions it reduces.

    >>> import gradlite
    >>> gradlite.linalg.norm(gradlite.tensor([[3.0, 4.0]]))
    tensor(5.)
    """
    if isinstance(dim, (tuple, list)) and len(dim) not in (1, 2):
        raise RuntimeError(
            f"linalg.norm: If dim is specified, it must be of length 1 or 2. Got {list(dim)}"
        )
    if ord is None:
        return vector_norm_of(A, 2, dim, keepdim, dtype)
    if dim is None and A.array.ndim not in (1, 2):
        raise RuntimeError(
            "linalg.norm: If dim is not specified but ord is, the input must be 1D or 2D. Got "
            f"{A.array.ndim}D."
        )
    matrix = A.array.ndim == 2 if dim is None else isinstance(dim, (tuple, list)) and len(dim) == 2
    if matrix or isinstance(ord, str):
        return matrix_norm(A, ord, (-2, -1) if dim is None else dim, keepdim, dtype=dtype)
    return vector_norm_of(A, ord, dim, keepdim, dtype)
