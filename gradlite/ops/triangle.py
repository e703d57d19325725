"""Triangles and diagonals of matrices: tril, triu, diag, diag_embed, trace."""

from __future__ import annotations

from functools import lru_cache
from operator import index
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.device import array_module, device, get_default_device
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply1
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.samples import S, integers, normal
from gradlite.ops.shape import DiagonalScatter
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "diag",
    "diag_embed",
    "trace",
    "tril",
    "tril_indices",
    "triu",
    "triu_indices",
]


def _triangle(xp: Any, rows: int, columns: int, diagonal: int) -> Any:
    if xp is np:
        return _kept_triangle(rows, columns, diagonal)
    return xp.tri(rows, columns, diagonal, dtype=bool)  # on the device that is current


@lru_cache(maxsize=64)
def _kept_triangle(rows: int, columns: int, diagonal: int) -> Any:
    return np.tri(rows, columns, diagonal, dtype=bool)


class Tril(Op):
    """The lower triangle of matrices."""

    row_major = True
    native_from = 1 << 13

    def forward(xp: Any, x: Any, diagonal: int) -> Any:
        return xp.where(_triangle(xp, x.shape[-2], x.shape[-1], diagonal), x, xp.zeros((), x.dtype))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.tril(grad, ctx.attrs[0]),)

    def fused_forward(K: Any, x: Any, diagonal: int) -> Any:
        return _by_kernel(K, x, diagonal, True)


class Triu(Op):
    """The upper triangle of matrices."""

    row_major = True
    native_from = 1 << 13

    def forward(xp: Any, x: Any, diagonal: int) -> Any:
        return xp.where(
            _triangle(xp, x.shape[-2], x.shape[-1], diagonal - 1), xp.zeros((), x.dtype), x
        )

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.triu(grad, ctx.attrs[0]),)

    def fused_forward(K: Any, x: Any, diagonal: int) -> Any:
        return _by_kernel(K, x, diagonal, False)


def _by_kernel(K: Any, x: Any, diagonal: int, lower: bool) -> Any:
    if not K.takes(x) or x.size >= 1 << 31:
        return NotImplemented
    x = K.dense(x)
    out = K.empty(x.shape, x.dtype)
    K.elementwise(
        "triangle", x.dtype, 4 * x.size,
        x, out, x.size, *x.shape[-2:], max(min(diagonal, 1 << 31), -1 << 31), int(lower),
    )  # fmt: skip
    return out


def _triangle_samples() -> list[Any]:
    return [
        S(normal(3, 4)),
        S(normal(4, 3), 1),
        S(normal(2, 3, 3), diagonal=-1),
        S(normal(2, 3, 3), -9),
        S(normal(0, 3)),
        S(integers(0, 9, 3, 3)),
    ]


def _triangle_errors() -> list[Any]:
    return [S(normal(3)), S(normal(3, 3), "a")]


def _check(name: str, input: Tensor, diagonal: Any) -> int:
    if not isinstance(diagonal, int):
        raise TypeError(
            f"{name}(): argument 'diagonal' (position 2) must be int, "
            f"not {diagonal.__class__.__name__}"
        )
    if input.array.ndim < 2:
        raise RuntimeError(f"{name}: input tensor must have at least 2 dimensions")
    return diagonal


@public(samples=_triangle_samples, method=True, inplace=True, errors=_triangle_errors)
def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """The lower triangle of matrices, 0 elsewhere; ``diagonal`` moves its edge up.

    >>> import gradlite
    >>> gradlite.tril(gradlite.ones(2, 2))
    tensor([[1., 0.],
            [1., 1.]])
    """
    return apply1(Tril, input, _check("tril", input, diagonal))


@public(samples=_triangle_samples, method=True, inplace=True, errors=_triangle_errors)
def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """The upper triangle of matrices, 0 elsewhere; ``diagonal`` moves its edge up.

    >>> import gradlite
    >>> gradlite.triu(gradlite.ones(2, 2))
    tensor([[1., 1.],
            [0., 1.]])
    """
    return apply1(Triu, input, _check("triu", input, diagonal))


def _indices(rows: Any, columns: Any, dtype: Any, where: Any) -> Tensor:
    xp = array_module(get_default_device() if where is None else device(where))
    found = np.stack([rows, columns]).astype(dtypes.as_dtype(dtype or np.int64).numpy)
    return wrap(xp.asarray(found))


@public(
    samples=lambda: [S(3, 3), S(3, 4, 1), S(4, 2, offset=-1), S(0, 3)],
    differentiable=False,
)
def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """Row and column numbers of a lower triangle, (2, count).

    >>> import gradlite
    >>> gradlite.tril_indices(2, 2)
    tensor([[0, 1, 1],
            [0, 0, 1]])
    """
    return _indices(*np.tril_indices(index(row), index(offset), index(col)), dtype, device)


@public(
    samples=lambda: [S(3, 3), S(3, 4, 1), S(4, 2, offset=-1), S(0, 3)],
    differentiable=False,
)
def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = None, device: Any = None
) -> Tensor:
    """Row and column numbers of an upper triangle, (2, count).

    >>> import gradlite
    >>> gradlite.triu_indices(2, 2)
    tensor([[0, 0, 1],
            [0, 1, 1]])
    """
    return _indices(*np.triu_indices(index(row), index(offset), index(col)), dtype, device)


# ----------------------------------------------------------------------------- diagonals
class DiagEmbed(DiagonalScatter):
    """Zeros with the last dimension written on a diagonal."""


@public(
    samples=lambda: [
        S(normal(2, 3)),
        S(normal(2, 3), 1),
        S(normal(2, 3), -2, 0, 2),
        S(normal(3), offset=1, dim1=1, dim2=0),
        S(integers(0, 9, 3)),
    ],
    method=True,
    errors=lambda: [S(normal(2, 3), 0, 1, 1), S(normal(2, 3), 0, 3, 1)],
)
def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """Matrices with the input's last dimension on a diagonal.

    >>> import gradlite
    >>> gradlite.diag_embed(gradlite.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    shape = input.array.shape
    first, second = (wrap_dim(d, len(shape) + 1) for d in (dim1, dim2))
    if first == second:
        raise RuntimeError(f"diagonal dimensions cannot be identical {dim1}, {dim2}")
    size = shape[-1] + abs(offset)
    target = list(shape[:-1])
    for d in sorted((first, second)):
        target.insert(d, size)
    return apply1(DiagEmbed, input, tuple(target), offset, first, second)


@public(
    samples=lambda: [
        S(normal(3)),
        S(normal(3), -1),
        S(normal(3, 4)),
        S(normal(4, 3), 1),
        S(normal(0)),
    ],
    method=True,
    errors=lambda: [S(normal()), S(normal(2, 2, 2))],
)
def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """A matrix with a vector on its diagonal, or a copy of a matrix's diagonal.

    >>> import gradlite
    >>> gradlite.diag(gradlite.tensor([1, 2]))
    tensor([[1, 0],
            [0, 2]])
    """
    n = input.array.ndim
    if n == 1:
        return diag_embed(input, diagonal)
    if n == 2:
        return input.diagonal(diagonal).clone()  # type: ignore[no-any-return]
    raise RuntimeError(f"diag(): Supports 1D or 2D tensors. Got {n}D")


class Trace(Op):
    """The sum of a matrix's diagonal."""

    def forward(xp: Any, x: Any) -> Any:
        if xp is np and x.dtype.char in "fd":
            return x.diagonal().sum(dtype=np.float64).astype(x.dtype)
        return x.trace(dtype=None if x.dtype in dtypes.FLOATING else np.int64)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        shape = tuple(ctx.shapes[0])
        eye = NAMESPACES[F.array(grad).__class__].xp.eye(*shape, dtype=F.array(grad).dtype)
        return (grad * eye,)


@public(
    samples=lambda: [S(normal(3, 4)), S(normal(3, 3)), S(integers(0, 9, 2, 2))],
    method=True,
    errors=lambda: [S(normal(3))],
    autocast=("float32", ""),
)
def trace(input: Tensor) -> Tensor:
    """The sum of a matrix's diagonal.

    >>> import gradlite
    >>> gradlite.trace(gradlite.tensor([[1.0, 2.0], [3.0, 4.0]]))
    tensor(5.)
    """
    if input.array.ndim != 2:
        raise RuntimeError(f"trace: expected a matrix, but got tensor with dim {input.array.ndim}")
    if input.array.dtype == np.bool_:
        raise NotImplementedError("\"trace\" not implemented for 'Bool'")
    return apply1(Trace, input)
