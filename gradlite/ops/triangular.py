"""Systems with triangular matrices, and with Cholesky factors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops.dispatch import OUT, apply, apply1, same_device
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.matrices import (
    LinAlgError,
    check_matrices,
    check_squares,
    positive_definite,
    raising,
    well_conditioned,
)
from gradlite.ops.op import Op, type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.shape import contiguous
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["cholesky_inverse", "cholesky_solve"]


BLOCK = 64  # rows, up to which the general solver is no slower than two halves


def substituted(xp: Any, a: Any, b: Any, upper: bool, unit: bool) -> Any:
    """X of A X = B, where one triangle of A is read.

    Without a triangular solver in NumPy the general one does it, for blocks on the diagonal: what
    is between them are products of matrices, as in the recursive algorithms of LAPACK.
    """
    n = a.shape[-1]
    if n <= BLOCK or xp is not np:
        return _solved(xp, a, b, upper, unit)
    first, last = slice(0, n // 2), slice(n // 2, n)
    if upper:
        first, last = last, first
    x = substituted(xp, a[..., first, first], b[..., first, :], upper, unit)
    rest = b[..., last, :] - xp.matmul(a[..., last, first], x)
    y = substituted(xp, a[..., last, last], rest, upper, unit)
    return xp.concatenate((y, x) if upper else (x, y), -2)


def _solved(xp: Any, a: Any, b: Any, upper: bool, unit: bool) -> Any:
    """The same by the general solver, which makes LU factors.

    Of an upper triangle they are the identity and the triangle itself, so that no more is rounded
    than in substitution. A lower triangle is an upper one when rows and columns are reversed.
    """
    triangle = (xp.triu if upper else xp.tril)(a)
    if unit:
        eye = xp.eye(a.shape[-1], dtype=a.dtype)
        triangle = triangle * (1 - eye) + eye
    if not upper:
        triangle, b = triangle[..., ::-1, ::-1], b[..., ::-1, :]
    with raising(xp):
        x = xp.linalg.solve(triangle, b)
    return x if upper else x[..., ::-1, :]


def _divided(xp: Any, a: Any, b: Any, upper: bool, unit: bool) -> Any:
    """The same with zeros on the diagonal, row by row: inf and NaN, as LAPACK has them."""
    x, n = b.copy(), a.shape[-1]
    for i in range(n - 1, -1, -1) if upper else range(n):
        rest = slice(0, i) if upper else slice(i + 1, n)
        if not unit:
            x[..., i, :] = x[..., i, :] / a[..., i, i, None]
        x[..., rest, :] -= a[..., rest, i, None] * x[..., i, None, :]
    return x


class SolveTriangular(Op):
    """X of A X = B for triangular A."""

    reads = ((0, OUT), (0,))
    grad_name = "LinalgSolveTriangularBackward0"

    def forward(xp: Any, a: Any, b: Any, upper: bool, unit: bool) -> Any:
        try:
            return xp.ascontiguousarray(substituted(xp, a, b, upper, unit))
        except np.linalg.LinAlgError:
            return _divided(xp, a, b, upper, unit)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, out = ctx.saved
        upper, unit = ctx.attrs
        right = F.solve_triangular(a.swapaxes(-1, -2), grad, not upper, unit)
        left = None
        if ctx.edges[0] is not None:
            whole = -F.matmul(right, out.swapaxes(-1, -2))
            left = F.triu(whole, int(unit)) if upper else F.tril(whole, -int(unit))
        return left, right if ctx.edges[1] is not None else None


class CholeskySolve(Op):
    """X of A X = B, where A is L L^T or U^T U."""

    reads = ((1,), (1, OUT))
    grad_name = "CholeskySolveBackward0"

    def forward(xp: Any, b: Any, factor: Any, upper: bool) -> Any:
        turned = factor.swapaxes(-1, -2)
        first, second = (turned, factor) if upper else (factor, turned)
        inner = SolveTriangular.forward(xp, first, b, False, False)
        return SolveTriangular.forward(xp, second, inner, True, False)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        factor, out = ctx.saved
        (upper,) = ctx.attrs
        right = F.cholesky_solve(grad, factor, upper)
        left = None
        if ctx.edges[1] is not None:
            whole = F.matmul(right, out.swapaxes(-1, -2))
            left = _of_factor(F, whole + whole.swapaxes(-1, -2), factor, upper)
        return right if ctx.edges[0] is not None else None, left


class CholeskyInverse(Op):
    """The inverse of L L^T or U^T U."""

    reads = ((0, OUT),)
    grad_name = "CholeskyInverseBackward0"

    def forward(xp: Any, factor: Any, upper: bool) -> Any:
        n, turned = factor.shape[-1], factor.swapaxes(-1, -2)
        eye = xp.broadcast_to(xp.eye(n, dtype=factor.dtype), factor.shape)
        inverse = substituted(xp, turned if upper else factor, eye, False, False)
        return xp.matmul(inverse.swapaxes(-1, -2), inverse)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        factor, out = ctx.saved
        whole = F.matmul(F.matmul(out, grad + grad.swapaxes(-1, -2)), out)
        return (_of_factor(F, whole, factor, ctx.attrs[0]),)


def _of_factor(F: Any, whole: Any, factor: Any, upper: bool) -> Any:
    """The gradient of a factor from A^-1 times that of A^-1 times A^-1, made symmetric."""
    return -F.matmul(factor, whole) if upper else -F.matmul(whole, factor)


def _triangle(*shape: int) -> Any:
    return np.tril(well_conditioned(normal(*shape)))


def _check_kernel(name: str, array: Any) -> None:
    if array.dtype.kind != "f" or array.dtype.itemsize == 2:
        raise NotImplementedError(f"\"{name}\" not implemented for '{type_name(array.dtype)}'")


@public(
    samples=lambda: [
        S(_triangle(3, 3), normal(3, 2), upper=False),
        S(well_conditioned(normal(3, 3)), normal(3, 2), upper=True),
        S(well_conditioned(normal(2, 3, 3)), normal(3, 1), upper=True, unitriangular=True),
        S(_triangle(3, 3), normal(2, 2, 3), upper=False, left=False),
        S(_triangle(2, 2), normal(2, 2), upper=False, unitriangular=True),
        S(np.zeros((0, 0)), np.zeros((0, 2)), upper=True),
    ],
    torch="linalg.solve_triangular",
    errors=lambda: [
        S(normal(2, 3), normal(2, 2), upper=True),
        S(normal(2, 2), normal(2), upper=True),
        S(normal(2, 2), normal(3, 2), upper=True),
        S(normal(2, 2), normal(2, 2)),
        S(np.ones((2, 2), np.int64), np.ones((2, 2), np.int64), upper=True),
    ],
)
def solve_triangular(
    A: Tensor, B: Tensor, *, upper: bool, left: bool = True, unitriangular: bool = False
) -> Tensor:
    """X of ``A X = B``, or ``X A = B`` with ``left=False``, for triangular A, (*, n, n), (*, n, k).

    The other triangle is not read; nor is the diagonal with ``unitriangular=True``, where it counts
    as ones. Zeros on the diagonal give inf or NaN.

    >>> import gradlite
    >>> A = gradlite.tensor([[2.0, 0.0], [2.0, 1.0]])
    >>> gradlite.linalg.solve_triangular(A, gradlite.tensor([[2.0], [3.0]]), upper=False)
    tensor([[1.],
            [1.]])
    """
    name = "linalg.solve_triangular"
    check_matrices(name, A)
    check_tensor(name, "B", 2, B)
    same_device(A, B)
    if B.array.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor B must have at least 2 dimensions.")
    check_squares(name, A)
    n, (rows, columns) = A.array.shape[-1], B.array.shape[-2:]
    if n != (rows if left else columns):
        raise RuntimeError(
            f"{name}: Incompatible shapes of A and B for the equation {'AX' if left else 'XA'} = B "
            f"({n}x{n} and {rows}x{columns})"
        )
    _check_kernel("triangular_solve_cpu", A.array)
    matrix, right = _expanded(A, B)
    if left:
        result: Any = apply(SolveTriangular, (matrix, right), bool(upper), bool(unitriangular))
        return result  # type: ignore[no-any-return]
    turned = apply(SolveTriangular, (matrix.mT, right.mT), not upper, bool(unitriangular))
    return contiguous(turned.mT)


def _expanded(a: Any, b: Any) -> tuple[Any, Any]:
    """Two stacks of matrices with the same batch."""
    batch = broadcast_shape(b.array.shape[:-2], a.array.shape[:-2])
    return tuple(  # type: ignore[return-value]
        t if t.array.shape[:-2] == batch else t.expand(*batch, *t.array.shape[-2:]) for t in (a, b)
    )


def _factor(*shape: int) -> Any:
    return np.linalg.cholesky(positive_definite(*shape))


@public(
    samples=lambda: [
        # not smooth: a difference would move the other triangle
        S(normal(3, 2), _factor(3, 3), smooth=False),
        S(normal(2, 3, 1), _factor(3, 3), smooth=False),
        S(normal(3, 2), _factor(2, 3, 3), smooth=False),
        S(normal(3, 2), np.ascontiguousarray(_factor(3, 3).T), upper=True, smooth=False),
    ],
    method=True,
    errors=lambda: [
        S(normal(2), normal(2, 2)),
        S(normal(2, 2), normal(2)),
        S(normal(2, 2), normal(2, 3)),
        S(normal(3, 2), normal(2, 2)),
        S(np.ones((2, 2), np.int64), np.ones((2, 2), np.int64)),
    ],
    autocast=("float32", ""),
)
def cholesky_solve(B: Tensor, L: Tensor, upper: bool = False) -> Tensor:
    """X of ``L L^T X = B`` for Cholesky factors L, (*, n, n); of ``U^T U`` with ``upper=True``.

    >>> import gradlite
    >>> factor = gradlite.tensor([[2.0, 0.0], [0.0, 1.0]])
    >>> gradlite.cholesky_solve(gradlite.tensor([[4.0], [3.0]]), factor)
    tensor([[1.],
            [3.]])
    """
    check_tensor("cholesky_solve", "L", 2, L)
    same_device(B, L)
    b, a = B.array, L.array
    for name, array in (("b", b), ("u", a)):
        if array.ndim < 2:
            raise RuntimeError(
                f"{name} should have at least 2 dimensions, but has {array.ndim} dimensions instead"
            )
    if a.shape[-1] != a.shape[-2]:
        raise RuntimeError(
            f"A must be batches of square matrices, but they are {a.shape[-2]} by {a.shape[-1]} "
            "matrices"
        )
    if a.shape[-1] != b.shape[-2]:
        raise RuntimeError(
            f"Incompatible matrix sizes for cholesky_solve: each A matrix is {a.shape[-1]} by "
            f"{a.shape[-1]} but each b matrix is {b.shape[-2]} by {b.shape[-1]}"
        )
    if a.dtype != b.dtype:
        raise RuntimeError(
            f"Expected b and A to have the same dtype, but found b of type {type_name(b.dtype)} "
            f"and A of type {type_name(a.dtype)} instead."
        )
    _check_kernel("cholesky_solve_cpu", a)
    right, factor = _expanded(B, L)
    return apply(CholeskySolve, (right, factor), bool(upper))  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(_factor(3, 3), smooth=False),
        S(_factor(2, 2, 2), smooth=False),
        S(np.ascontiguousarray(_factor(3, 3).T), upper=True, smooth=False),
        S(np.zeros((0, 0))),
    ],
    method=True,
    errors=lambda: [S(normal(2)), S(normal(2, 3)), S(np.ones((2, 2), np.int64))],
    autocast=("float32", ""),
)
def cholesky_inverse(L: Tensor, upper: bool = False) -> Tensor:
    """The inverses of ``L L^T`` for Cholesky factors L, (*, n, n), or of ``U^T U`` for upper ones.

    >>> import gradlite
    >>> gradlite.cholesky_inverse(gradlite.tensor([[2.0, 0.0], [0.0, 1.0]]))
    tensor([[0.2500, 0.0000],
            [0.0000, 1.0000]])

    Raises:
        LinAlgError: there is a 0 on the diagonal.
    """
    check_squares("cholesky_inverse", L)
    _check_kernel("cholesky_inverse_out_cpu", L.array)
    try:
        return apply1(CholeskyInverse, L, bool(upper))
    except np.linalg.LinAlgError:
        raise LinAlgError(_zero_on_diagonal(L)) from None


def _zero_on_diagonal(factor: Tensor) -> str:
    zeros = factor.diagonal(dim1=-2, dim2=-1).reshape(-1, factor.array.shape[-1]) == 0
    place = zeros.nonzero()[0].tolist()
    where = f"(Batch element {place[0]}): " if factor.array.ndim > 2 else ""
    return (
        f"cholesky_inverse: {where}The diagonal element {place[1] + 1} is zero, the inversion "
        "could not be completed because the input matrix is singular."
    )
