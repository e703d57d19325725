"""Square matrices: inverse, linear systems, determinants, Cholesky factors, powers."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes, return_types
from gradlite.ops.choose import where
from gradlite.ops.dispatch import OUT, apply, apply1, output_grads, same_device
from gradlite.ops.fill import masked_fill
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.matmul import matmul
from gradlite.ops.matrices import (
    LinAlgError,
    check_finite,
    check_square,
    positive_definite,
    raising,
    square_errors,
    square_samples,
    well_conditioned,
    which,
)
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import beside
from gradlite.ops.samples import S, normal
from gradlite.ops.shape import contiguous
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "cholesky",
    "det",
    "inverse",
    "logdet",
    "matrix_power",
    "slogdet",
]


class Inv(Op):
    """The inverses of square matrices."""

    reads = ((OUT,),)
    grad_name = "LinalgInvExBackward0"

    def forward(xp: Any, a: Any) -> Any:
        with raising(xp):
            return xp.linalg.inv(a)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        transposed = out.swapaxes(-1, -2)
        return (-F.matmul(transposed, F.matmul(grad, transposed)),)


class InvUnchecked(Inv):
    """The same, infinite or NaN for singular matrices."""

    grad_name = "LinalgSolveExBackward0"

    def forward(xp: Any, a: Any) -> Any:
        try:
            return xp.linalg.inv(a)  # CuPy's raises nothing
        except np.linalg.LinAlgError:
            matrices = a.reshape((-1, *a.shape[-2:]))
            return np.stack([_inverse(matrix) for matrix in matrices]).reshape(a.shape)


def _inverse(a: Any) -> Any:
    """The inverse of a matrix; of a singular one what substitution makes of it, as in PyTorch."""
    try:
        return np.linalg.inv(a)
    except np.linalg.LinAlgError:
        pass
    left, right = a.T.copy(), np.eye(len(a), dtype=a.dtype)
    for k in range(len(a)):
        rows = [k, k + int(np.abs(left[k:, k]).argmax())]
        left[rows], right[rows] = left[rows[::-1]], right[rows[::-1]]
        if left[k, k]:
            factors = left[k + 1 :, k : k + 1] / left[k, k]
            left[k + 1 :] -= factors * left[k]
            right[k + 1 :] -= factors * right[k]
    for k in reversed(range(len(a))):
        right[k] = (right[k] - left[k, k + 1 :] @ right[k + 1 :]) / left[k, k]
    return right.T


class Solve(Op):
    """X of A X = B, for batches of the same shape."""

    reads = ((0, OUT), (0,))
    grad_name = "LinalgSolveExBackward0"

    def forward(xp: Any, a: Any, b: Any) -> Any:
        with raising(xp):
            return xp.linalg.solve(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, out = ctx.saved
        right = F.solve(a.swapaxes(-1, -2), grad)
        left = None
        if ctx.edges[0] is not None:
            left = -F.matmul(right, out.swapaxes(-1, -2))
        return left, right if ctx.edges[1] is not None else None


class Det(Op):
    """Determinants; the gradient is the matrix of cofactors."""

    reads = ((0, OUT),)
    grad_name = "LinalgDetBackward0"

    def forward(xp: Any, a: Any) -> Any:
        return xp.linalg.det(a)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, out = ctx.saved
        if (F.array(out) == 0).any():
            return (
                F.unsqueeze(F.unsqueeze(grad, grad.ndim), grad.ndim + 1) * _cofactors(F.array(a)),
            )
        scale = F.unsqueeze(F.unsqueeze(grad * out, grad.ndim), grad.ndim + 1)
        return (scale * F.inv(a).swapaxes(-1, -2),)


def _cofactors(a: Any) -> Any:
    """The cofactors of matrices that may be singular, from A = U S V."""
    xp = NAMESPACES[a.__class__].xp
    u, s, v = xp.linalg.svd(a)
    n = s.shape[-1]
    others = xp.where(xp.eye(n, dtype=bool), 1, s[..., None, :]).prod(-1)
    sign = xp.linalg.det(u) * xp.linalg.det(v)
    return xp.matmul(u * (sign[..., None] * others)[..., None, :], v).astype(a.dtype)


class Slogdet(Op):
    """The sign and the logarithm of the absolute value of determinants."""

    reads = ((0,),)
    outputs = 2
    grad_name = "LinalgSlogdetBackward0"

    def forward(xp: Any, a: Any) -> Any:
        sign, logarithm = xp.linalg.slogdet(a)
        return xp.asarray(sign), xp.asarray(logarithm)

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        (a,) = ctx.saved
        grad = output_grads(ctx, grads, F, a)[1]
        scale = F.unsqueeze(F.unsqueeze(grad, grad.ndim), grad.ndim + 1)
        return (scale * F.inv_unchecked(a).swapaxes(-1, -2),)


class Cholesky(Op):
    """The lower triangular L with A = L L^T."""

    reads = ((OUT,),)
    grad_name = "LinalgCholeskyExBackward0"

    def forward(xp: Any, a: Any) -> Any:
        with raising(xp):
            factor = xp.linalg.cholesky(a)
        check_finite(xp, factor)
        return factor

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        transposed = out.swapaxes(-1, -2)
        # With P the lower triangle of L^T G, its diagonal halved: L^-T (P + P^T) / 2 L^-1.
        lower = F.tril(F.matmul(transposed, grad), 0)
        both = lower + F.tril(lower, -1).swapaxes(-1, -2)
        inner = F.solve_triangular(transposed, both, True, False)
        inner = F.solve_triangular(transposed, inner.swapaxes(-1, -2), True, False)
        return (inner.swapaxes(-1, -2) * 0.5,)


# ---------------------------------------------------------------------------- functions
@public(
    samples=square_samples,
    torch="linalg.inv",
    errors=square_errors,
    autocast=("float32", ""),
)
def inv(A: Tensor) -> Tensor:
    """The inverses of square matrices, (*, n, n) -> (*, n, n).

    >>> import gradlite
    >>> gradlite.linalg.inv(gradlite.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor([[0.5000, 0.0000],
            [0.0000, 0.2500]])

    Raises:
        LinAlgError: a matrix is singular.
    """
    check_square("linalg.inv", A)
    try:
        return apply1(Inv, A)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            f"linalg.inv: {which(A.array, Inv.forward)}The inversion could not be completed "
            "because the input matrix is singular."
        ) from None


@public(
    samples=lambda: [
        S(well_conditioned(normal(3, 3)), normal(3)),
        S(well_conditioned(normal(3, 3)), normal(3, 2)),
        S(well_conditioned(normal(2, 3, 3)), normal(2, 3, 1)),
        S(well_conditioned(normal(2, 3, 3)), normal(2, 3)),
        S(well_conditioned(normal(2, 3, 3)), normal(3, 2)),
        S(well_conditioned(normal(3, 3)), normal(2, 3), left=False),
    ],
    torch="linalg.solve",
    errors=lambda: [
        S(normal(2, 2), normal(3)),
        S(normal(2, 3), normal(2)),
        S(normal(2, 2), normal(2).astype(np.float32)),
    ],
    autocast=("float32", ""),
)
def solve(A: Tensor, B: Tensor, *, left: bool = True) -> Tensor:
    """X of ``A X = B`` (or ``X A = B`` with ``left=False``), B being vectors or matrices.

    B stands for vectors when it has one dimension, or those of A but the last.

    >>> import gradlite
    >>> A = gradlite.tensor([[2.0, 0.0], [0.0, 4.0]])
    >>> gradlite.linalg.solve(A, gradlite.tensor([2.0, 4.0]))
    tensor([1., 1.])

    Raises:
        LinAlgError: a matrix is singular.
    """
    check_square("linalg.solve", A)
    check_tensor("linalg.solve", "B", 2, B)
    same_device(A, B)
    a, b = A.array, B.array
    if a.dtype != b.dtype:
        raise RuntimeError(
            f"linalg.solve: Expected A and B to have the same dtype, but found A of type "
            f"{type_name(a.dtype)} and B of type {type_name(b.dtype)} instead"
        )
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    right: Any = B.unsqueeze(-1) if vector else B  # type: ignore[attr-defined]
    matrix: Any = A
    if not left:
        if vector:
            raise RuntimeError("linalg.solve: left=False needs matrices on the right-hand side")
        matrix, right = A.mT, right.mT  # type: ignore[attr-defined]
    n, shape = a.shape[-1], right.array.shape
    if shape[-2] != n:
        raise RuntimeError(
            "linalg.solve: Incompatible shapes of A and B for the equation AX = B "
            f"({n}x{n} and {shape[-2]}x{shape[-1]})"
        )
    batch = broadcast_shape(a.shape[:-2], shape[:-2])
    matrix = matrix if a.shape[:-2] == batch else matrix.expand(*batch, n, n)
    right = right if shape[:-2] == batch else right.expand(*batch, *shape[-2:])
    try:
        result: Any = apply(Solve, (matrix, right))
    except np.linalg.LinAlgError:
        raise LinAlgError(
            "gradlite.linalg.solve: The solver failed because the input matrix is singular."
        ) from None
    if not left:
        return contiguous(result.mT)
    return result.squeeze(-1) if vector else result  # type: ignore[no-any-return]


@public(
    samples=lambda: [*square_samples(), S(np.zeros((0, 0)))],
    method=True,
    errors=square_errors,
)
def det(A: Tensor) -> Tensor:
    """Determinants of square matrices, (*, n, n) -> (*); the gradient is right at 0 too.

    >>> import gradlite
    >>> gradlite.linalg.det(gradlite.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor(8.)
    """
    check_square("linalg.det", A)
    return apply1(Det, A)


@public(
    samples=square_samples,
    method=True,
    errors=square_errors,
)
def slogdet(A: Tensor) -> Any:
    """The signs and the logarithms of the absolute values of determinants.

    >>> import gradlite
    >>> gradlite.linalg.slogdet(gradlite.tensor([[0.0, 1.0], [1.0, 0.0]])).sign
    tensor(-1.)
    """
    check_square("linalg.slogdet", A)
    return return_types.linalg_slogdet(apply(Slogdet, (A,)))


@public(samples=lambda: [S(positive_definite(3, 3)), S(positive_definite(2, 2, 2))], method=True)
def logdet(input: Tensor) -> Tensor:
    """The logarithms of determinants; NaN where they are negative.

    >>> import gradlite
    >>> gradlite.logdet(gradlite.eye(2))
    tensor(0.)
    """
    sign, logarithm = slogdet(input)
    return masked_fill(logarithm, sign < 0, math.nan)


@public(
    samples=lambda: [  # not smooth: a difference would move one triangle alone
        S(positive_definite(3, 3), smooth=False),
        S(positive_definite(2, 2, 2), smooth=False),
        S(positive_definite(3, 3), upper=True, smooth=False),
    ],
    torch="linalg.cholesky",
    method=True,
    errors=square_errors,
    autocast=("float32", ""),
)
def cholesky(A: Tensor, *, upper: bool = False) -> Tensor:
    """The lower triangular L with ``A = L L^T`` (or its transpose) of positive definite matrices.

    Only the lower triangle of A is read; the gradient is symmetric.

    >>> import gradlite
    >>> gradlite.linalg.cholesky(gradlite.tensor([[4.0, 0.0], [0.0, 9.0]]))
    tensor([[2., 0.],
            [0., 3.]])

    Raises:
        LinAlgError: a matrix is not positive definite.
    """
    check_square("linalg.cholesky", A)
    try:
        lower: Any = apply1(Cholesky, A)
    except np.linalg.LinAlgError:
        raise LinAlgError(
            f"linalg.cholesky: {which(A.array, Cholesky.forward)}The factorization could not be "
            "completed because the input is not positive-definite."
        ) from None
    return lower.mT if upper else lower  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(positive_definite(3, 3), smooth=False),
        S(positive_definite(2, 2, 2), smooth=False),
        S(positive_definite(3, 3), upper=True, smooth=False),
    ],
    torch="linalg.cholesky_ex",
    errors=square_errors,
    autocast=("float32", ""),
)
def cholesky_ex(A: Tensor, *, upper: bool = False, check_errors: bool = False) -> Any:
    """`cholesky` that tells in ``info`` which matrices, (*, n, n), are not positive definite.

    ``info``, (*), in int32, is 0 for those that are; for the others it is the order of the first
    leading minor that is not, and the factor is NaN.

    >>> import gradlite
    >>> gradlite.linalg.cholesky_ex(gradlite.tensor([[1.0, 2.0], [2.0, 1.0]])).info
    tensor(2, dtype=gradlite.int32)

    Raises:
        LinAlgError: a matrix is not positive definite, and ``check_errors`` is True.
    """
    check_square("linalg.cholesky", A)
    try:
        lower: Any = apply1(Cholesky, A)
        info = wrap(beside(A.array, np.zeros(A.array.shape[:-2], np.int32)))
    except np.linalg.LinAlgError:
        orders = _orders(A)
        if check_errors:
            raise LinAlgError(_not_definite(orders)) from None
        info = wrap(beside(A.array, orders))
        failed: Any = (info != 0)[..., None, None]  # type: ignore[index]
        eye = wrap(beside(A.array, np.eye(A.array.shape[-1]), A.array.dtype))
        lower = where(failed, float("nan"), apply1(Cholesky, where(failed, eye, A)))
    return return_types.linalg_cholesky_ex((lower.mT if upper else lower, info))


@on_its_device
def _orders(A: Tensor) -> Any:
    """Of each matrix the order of the first leading minor that is not positive definite, or 0."""
    xp, a = NAMESPACES[A.array.__class__].xp, A.array

    def definite(matrix: Any) -> bool:
        try:
            Cholesky.forward(xp, matrix)
        except np.linalg.LinAlgError:
            return False
        return True

    found = []
    for matrix in a.reshape(-1, *a.shape[-2:]):
        least, most = 0, a.shape[-1] + 1  # the minors of order up to `least` are
        while most - least > 1:
            order = (least + most) // 2
            if definite(matrix[:order, :order]):
                least = order
            else:
                most = order
        found.append(most % (a.shape[-1] + 1))
    return np.array(found, np.int32).reshape(a.shape[:-2])


def _not_definite(orders: Any) -> str:
    place = int(np.flatnonzero(orders)[0])
    element = f"(Batch element {place}): " if orders.ndim else ""
    return (
        f"linalg.cholesky_ex: {element}The factorization could not be completed because the input "
        f"is not positive-definite (the leading minor of order {orders.flat[place]} is not "
        "positive-definite)."
    )


@public(
    samples=lambda: [
        S(well_conditioned(normal(3, 3)), 3),
        S(well_conditioned(normal(2, 3, 3)), -2),
        S(normal(3, 3), 0),
        S(normal(3, 3), 1),
    ],
    method=True,
    errors=lambda: [S(normal(2, 3), 2)],
)
def matrix_power(input: Tensor, n: int) -> Tensor:
    """Square matrices to an integer power, negative ones by way of the inverse.

    >>> import gradlite
    >>> gradlite.matrix_power(gradlite.tensor([[2.0, 0.0], [0.0, 3.0]]), 3)
    tensor([[ 8.,  0.],
            [ 0., 27.]])
    """
    if input.array.dtype in dtypes.FLOATING or n < 0:
        check_square("linalg.matrix_power", input)
    elif input.array.ndim < 2 or input.array.shape[-1] != input.array.shape[-2]:
        check_square("linalg.matrix_power", input.float())  # type: ignore[attr-defined]
    if n < 0:
        return matrix_power(inv(input), -n)
    if n == 0:
        eye = wrap(beside(input.array, np.eye(input.array.shape[-1])))
        return contiguous(input.clone()).copy_(eye)  # type: ignore[attr-defined,no-any-return]
    result, square = None, input
    while n:
        if n & 1:
            result = square if result is None else matmul(result, square)
        n >>= 1
        square = matmul(square, square) if n else square
    assert result is not None
    return contiguous(result.clone() if result is input else result)  # type: ignore[attr-defined]


def _attach() -> None:
    t: Any = Tensor
    t.inverse = inv


_attach()
inverse = inv
