"""What singular values tell: pseudo-inverses, least squares, ranks, condition numbers.

The derivative of the pseudo-inverse is that of Golub and Pereyra, "The differentiation of
pseudo-inverses and nonlinear least squares problems whose variables separate" (1973), equation
4.12; it holds where the rank does not change nearby.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import return_types
from gradlite.ops import guard
from gradlite.ops.choose import where
from gradlite.ops.dispatch import OUT, apply, same_device
from gradlite.ops.factorizations import eigvalsh, svdvals, symmetric
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.linear_systems import inv
from gradlite.ops.matrices import (
    LinAlgError,
    check_squares,
    eigh_of_arrays,
    raising,
    square_samples,
    svd_of_arrays,
    well_conditioned,
)
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.norms import matrix_norm
from gradlite.ops.op import Op, type_name
from gradlite.ops.operands import beside, cast
from gradlite.ops.samples import S, constant, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["pinverse"]


def _inverted(xp: Any, values: Any, size: Any, atol: Any, rtol: Any) -> Any:
    """1 over the values whose size is above a tolerance, 0 for the others."""
    least = rtol * size.max(-1)
    if atol.__class__ is not float or atol:
        least = xp.maximum(atol, least)
    kept = size > least[..., None]
    return xp.where(kept, 1 / xp.where(kept, values, 1), 0).astype(values.dtype)


class Pinv(Op):
    """The pseudo-inverses of matrices, with two tolerances for what counts as 0."""

    reads = ((0, OUT), (), ())
    constants = (1, 2)
    grad_name = "LinalgPinvBackward0"

    def forward(xp: Any, a: Any, atol: Any, rtol: Any, hermitian: bool) -> Any:
        if not a.size:
            return xp.zeros((*a.shape[:-2], a.shape[-1], a.shape[-2]), a.dtype)
        if hermitian:
            values, right = eigh_of_arrays(xp, a)
            inverse = _inverted(xp, values, xp.abs(values), atol, rtol)
            return xp.matmul(right * inverse[..., None, :], right.swapaxes(-1, -2))
        u, s, vh = svd_of_arrays(xp, a, full_matrices=False)
        inverse = _inverted(xp, s, s, atol, rtol)
        return xp.matmul(vh.swapaxes(-1, -2) * inverse[..., None, :], u.swapaxes(-1, -2))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, out = ctx.saved
        return _of_inverse(F, grad, out, a), None, None


def _of_inverse(F: Any, grad: Any, inverse: Any, a: Any) -> Any:
    """The gradient of A from that of its pseudo-inverse P.

    With dP = -P dA P + P P^T dA^T (I - A P) + (I - P A) dA^T P^T P.
    """
    transposed, turned = inverse.swapaxes(-1, -2), grad.swapaxes(-1, -2)
    left = F.matmul(turned, F.matmul(inverse, transposed))
    right = F.matmul(F.matmul(transposed, inverse), turned)
    result = left - F.matmul(a, F.matmul(inverse, left))
    result = result + right - F.matmul(F.matmul(right, inverse), a)
    return result - F.matmul(transposed, F.matmul(grad, transposed))


class Lstsq(Op):
    """The X of least norm among those that minimise the Frobenius norm of A X - B.

    It is computed from A's singular values, and what counts as 0 of them is 0 already.
    """

    reads = ((0, 1, 2, 3, 4, OUT), (0, 2, 3, 4), (), (), ())
    constants = (2, 3, 4)
    grad_name = "LinalgLstsqBackward0"

    def forward(
        xp: Any, a: Any, b: Any, u: Any, inverse: Any, vh: Any, rtol: float, full: bool
    ) -> Any:
        F = NAMESPACES[a.__class__]
        inside = F.matmul(u.swapaxes(-1, -2), b) * inverse[..., :, None]
        return F.matmul(vh.swapaxes(-1, -2), inside)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        """With P the pseudo-inverse, Q = P^T G and R = B - A X.

        Those of B and of A are Q and R (P Q)^T - Q X^T + P^T X (G - A^T Q)^T, from that of P
        (`_of_inverse`). R is 0 where A has full rank and is wide, and the last where it is not.
        """
        a, b, u, inverse, vh, x = ctx.saved
        if F.tensors:
            like, (rtol, full) = F.array(a), ctx.attrs
            none, rtol = (beside(like, value, like.dtype) for value in (0.0, rtol))
            p = F.pinv(a, none, rtol, False)
        else:
            full = ctx.attrs[1]
            p = F.matmul(vh.swapaxes(-1, -2) * inverse[..., None, :], u.swapaxes(-1, -2))
        m, n = a.shape[-2:]
        turned = p.swapaxes(-1, -2)
        q = F.matmul(turned, grad)
        if ctx.edges[0] is None:
            return None, q, None, None, None
        left = F.matmul(q, x.swapaxes(-1, -2)) * -1
        if not full or m > n:
            left = left + F.matmul(b - F.matmul(a, x), F.matmul(p, q).swapaxes(-1, -2))
        if not full or m < n:
            rest = grad - F.matmul(a.swapaxes(-1, -2), q)
            left = left + F.matmul(F.matmul(turned, x), rest.swapaxes(-1, -2))
        return left, q if ctx.edges[1] is not None else None, None, None, None


# ------------------------------------------------------------------------- tolerances
def _tolerance(name: str, what: str, value: Any, A: Tensor) -> Tensor | None:
    """A tolerance in the matrices' dtype, on their device; None where none is given."""
    if value is None:
        return None
    if not isinstance(value, Tensor):
        return wrap(beside(A.array, float(value), A.array.dtype))
    if value.requires_grad:
        raise RuntimeError(
            f"The function '{name}' is not differentiable with respect to argument '{what}'. "
            "This input cannot have requires_grad True."
        )
    same_device(A, value)
    return cast(value, A.array.dtype)


@on_its_device
def _tolerances(name: str, A: Tensor, atol: Any, rtol: Any) -> tuple[Tensor, Tensor]:
    """Both tolerances: by default epsilon times the larger dimension, unless atol is above 0."""
    absolute, relative = (_tolerance(name, *what, A) for what in (("atol", atol), ("rtol", rtol)))
    if relative is None:
        usual = _usual(A.array)
        relative = wrap(beside(A.array, usual, A.array.dtype))
        if absolute is not None:
            relative = where(absolute > 0, 0.0, relative)
    if absolute is None:
        absolute = wrap(beside(A.array, 0.0, A.array.dtype))
    return absolute, relative


def _usual(array: Any) -> float:
    return float(np.finfo(array.dtype).eps) * max(array.shape[-2:])


# --------------------------------------------------------------------- pseudo-inverses
def _low_rank(*shape: int) -> Any:
    """Matrices of rank 1."""
    return normal(*shape[:-1], 1) @ normal(*shape[:-2], 1, shape[-1])


@public(
    samples=lambda: [
        S(normal(4, 3)),
        S(normal(2, 3)),
        S(well_conditioned(normal(2, 3, 3))),
        S(_low_rank(3, 4), smooth=False),  # the rank is another one nearby
        S(normal(4, 3), 0.9, smooth=False),
        S(normal(3, 2), atol=1e-3),
        S(normal(2, 3, 2), atol=constant(np.array([1e-9, 0.1]))),
        S(symmetric(3, 3), hermitian=True, smooth=False),
        S(np.zeros((0, 3))),
    ],
    torch="linalg.pinv",
    errors=lambda: [S(normal(3)), S(np.ones((2, 2), np.int64)), S(normal(3, 2), hermitian=True)],
    autocast=("float32", ""),
)
def pinv(
    A: Tensor, rcond: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """The pseudo-inverses of matrices, (*, m, n) -> (*, n, m).

    Singular values up to the larger of ``atol`` and ``rtol`` times the largest count as 0; by
    default ``rtol`` is the dtype's epsilon times the larger of m and n. Tolerances are numbers or
    tensors of the batch's shape; ``rcond`` is another name of ``rtol``. With ``hermitian=True`` the
    lower triangle of symmetric matrices is read, and no more.

    >>> import gradlite
    >>> gradlite.linalg.pinv(gradlite.tensor([[2.0, 0.0], [0.0, 4.0], [0.0, 0.0]]))
    tensor([[0.5000, 0.0000, 0.0000],
            [0.0000, 0.2500, 0.0000]])

    Raises:
        LinAlgError: the singular values do not converge.
    """
    check_tensor("linalg.pinv", "A", 1, A)
    array = A.array
    if array.ndim < 2 or array.dtype.kind != "f" or array.dtype.itemsize == 2:
        raise RuntimeError(
            f"linalg.pinv({type_name(array.dtype)}{{{list(array.shape)}}}): expected a tensor with "
            "2 or more dimensions of float, double, cfloat or cdouble types"
        )
    if hermitian:
        check_squares("linalg.eigh", A)
    absolute, relative = _tolerances("linalg_pinv", A, atol, rtol if rcond is None else rcond)
    batch = broadcast_shape(array.shape[:-2], absolute.array.shape)
    batch = broadcast_shape(batch, relative.array.shape)
    if batch != array.shape[:-2]:
        A = A.expand(*batch, *array.shape[-2:])  # type: ignore[attr-defined]
    try:
        return apply(Pinv, (A, absolute, relative), bool(hermitian))  # type: ignore[no-any-return]
    except np.linalg.LinAlgError:
        eigvalsh(A) if hermitian else svdvals(A)  # which say what is wrong
        raise


@public(
    samples=lambda: [S(normal(4, 3)), S(normal(2, 2, 3)), S(normal(3, 3), 1e-3)],
    method=True,
    errors=lambda: [S(normal(3))],
    autocast=("float32", ""),
)
def pinverse(input: Tensor, rcond: float = 1e-15) -> Tensor:
    """The pseudo-inverses of matrices; see ``linalg.pinv``, whose tolerance depends on the dtype.

    >>> import gradlite
    >>> gradlite.pinverse(gradlite.tensor([[2.0], [0.0]]))
    tensor([[0.5000, 0.0000]])
    """
    return pinv(input, rcond)


@public(
    samples=lambda: [
        S(normal(4, 3)),
        S(_low_rank(2, 3, 4)),
        S(normal(3, 3), 1e9),
        S(normal(3, 3), atol=0.5),
        S(normal(2, 3, 3), atol=constant(np.array([1e-9, 0.3]))),
        S(symmetric(3, 3), hermitian=True),
        S(np.zeros((2, 0, 3))),
    ],
    torch="linalg.matrix_rank",
    differentiable=False,
    errors=lambda: [S(normal(3)), S(np.ones((2, 2), np.int64)), S(normal(3, 2), hermitian=True)],
    autocast=("float32", ""),
)
@on_its_device
def matrix_rank(
    input: Tensor, tol: Any = None, hermitian: bool = False, *, atol: Any = None, rtol: Any = None
) -> Tensor:
    """The numbers of singular values that are not 0, (*, m, n) -> (*), in int64.

    The tolerances are those of `pinv`, except that ``tol`` is another name of ``atol``.

    >>> import gradlite
    >>> gradlite.linalg.matrix_rank(gradlite.tensor([[1.0, 2.0], [2.0, 4.0]]))
    tensor(1)
    """
    check_tensor("linalg.matrix_rank", "input", 1, input)
    array = input.array
    if array.dtype.kind != "f" or array.dtype.itemsize == 2:
        raise RuntimeError("This function doesn't handle types other than float and double")
    if array.ndim < 2:
        raise RuntimeError(
            "gradlite.linalg.matrix_rank: The input tensor input must have at least 2 dimensions."
        )
    if hermitian:
        check_squares("linalg.eigh", input)
    input = input.detach()  # type: ignore[attr-defined]
    if tol is not None:
        atol, rtol = tol, 0.0
    absolute, relative = _tolerances("linalg_matrix_rank", input, atol, rtol)
    xp = NAMESPACES[array.__class__].xp
    if not array.size:
        return wrap(xp.zeros(array.shape[:-2], np.int64))
    sizes: Any = eigvalsh(input).abs() if hermitian else svdvals(input)  # type: ignore[attr-defined]
    limit = xp.maximum(absolute.array, relative.array * sizes.array.max(-1))
    return wrap(xp.asarray((sizes.array > limit[..., None]).sum(-1, dtype=np.int64)))


# ---------------------------------------------------------------------- least squares
_DRIVERS = ("gels", "gelsy", "gelsd", "gelss")


def _check_systems(A: Tensor, B: Tensor, driver: str | None) -> str:
    check_tensor("linalg.lstsq", "input", 1, A)
    check_tensor("linalg.lstsq", "b", 2, B)
    same_device(A, B)
    a, b = A.array, B.array
    if a.dtype.kind != "f" or a.dtype.itemsize == 2:
        raise RuntimeError("This function doesn't handle types other than float and double")
    name = "gradlite.linalg.lstsq"
    if a.ndim < 2:
        raise RuntimeError(f"{name}: input must have at least 2 dimensions.")
    if b.ndim < 1:
        raise RuntimeError(f"{name}: other must have at least 1 dimension.")
    if a.dtype != b.dtype:
        raise RuntimeError(
            f"{name}: Expected input and other to have the same dtype, but got input's dtype "
            f"{type_name(a.dtype)} and other's dtype {type_name(b.dtype)}"
        )
    if not 0 <= a.ndim - b.ndim <= 1:
        raise RuntimeError(
            f"{name}: input.dim() must be greater or equal to other.dim() and (input.dim() - "
            "other.dim()) <= 1"
        )
    if driver is not None and driver not in _DRIVERS:
        raise RuntimeError(f"{name}: parameter `driver` should be one of ({', '.join(_DRIVERS)})")
    if A.is_cuda and driver not in (None, "gels"):
        raise RuntimeError(f"{name}: `driver` other than `gels` is not supported on CUDA")
    return driver or ("gels" if A.is_cuda else "gelsy")


@public(
    samples=lambda: [
        S(normal(4, 3), normal(4, 2), driver="gels"),
        S(normal(2, 3), normal(2, 2), driver="gels"),
        S(normal(4, 3), normal(4), driver="gels"),
        S(normal(2, 4, 2), normal(2, 4), driver="gels"),
        S(normal(2, 3, 3), normal(2, 3, 1), 1e-9, driver="gels"),
    ],
    torch="",  # drivers and what they return: tests/ops/test_least_squares.py
    autocast=("float32", ""),
)
def lstsq(A: Tensor, B: Tensor, rcond: Any = None, *, driver: str | None = None) -> Any:
    """X that minimises ``|A X - B|``, and the one of least norm of several: (*, m, n), (*, m, k).

    Singular values up to ``rcond`` times the largest count as 0; by default it is the dtype's
    epsilon times the larger of m and n. It is computed from the singular values for every driver;
    which of the other results are empty is the driver's: residuals, (*, k), of "gelsy" and where
    they are 0 or A has not full rank; the rank, (*), of "gels"; the singular values of both.

    >>> import gradlite
    >>> A = gradlite.tensor([[2.0], [0.0]])
    >>> gradlite.linalg.lstsq(A, gradlite.tensor([[4.0], [3.0]])).solution
    tensor([[2.]])

    Raises:
        LinAlgError: A has not full rank and the driver is "gels", which is CUDA's.
    """
    driver = _check_systems(A, B, driver)
    a, b = A.array, B.array
    vector = b.ndim == 1 or (b.ndim == a.ndim - 1 and b.shape == a.shape[:-1])
    right: Any = B.unsqueeze(-1) if vector else B  # type: ignore[attr-defined]
    if right.array.shape[-2] != a.shape[-2]:
        raise RuntimeError("gradlite.linalg.lstsq: input.size(-2) should match other.size(-2)")
    batch = broadcast_shape(a.shape[:-2], right.array.shape[:-2])
    matrix: Any = A if a.shape[:-2] == batch else A.expand(*batch, *a.shape[-2:])  # type: ignore[attr-defined]
    if right.array.shape[:-2] != batch:
        right = right.expand(*batch, *right.array.shape[-2:])
    rtol = _usual(a) if rcond is None else float(rcond)
    u, values, vh, inverse, rank, full = _factors(matrix, rtol, driver)
    if driver == "gels" and not full:
        raise LinAlgError(
            "gradlite.linalg.lstsq: The least squares solution could not be computed because the "
            "input matrix does not have full rank."
        )
    solution: Any = apply(Lstsq, (matrix, right, u, inverse, vh), rtol, full)
    with guard.on(a):
        none: Any = wrap(NAMESPACES[a.__class__].xp.empty(0, a.dtype))
    residuals = solution.reshape(-1)[:0].clone()  # in the graph even then, as in PyTorch
    if full and a.shape[-2] > a.shape[-1]:
        residuals = (matrix @ solution - right).square().sum(-2)
    return return_types.linalg_lstsq(
        (
            solution.squeeze(-1) if vector else solution,
            residuals,
            none.long() if driver == "gels" else rank,
            none if driver in ("gels", "gelsy") else values,
        )
    )


@on_its_device
def _factors(A: Tensor, rtol: float, driver: str) -> tuple[Any, ...]:
    """U, S and Vh of matrices, 1 / S where that is not 0, their ranks, and whether all are full.

    "gels" has no ranks, and "gelsy" does not look whether they are full.
    """
    xp, a = NAMESPACES[A.array.__class__].xp, A.array
    try:
        u, s, vh = svd_of_arrays(xp, a, full_matrices=False)
    except np.linalg.LinAlgError:
        svdvals(A)  # which says what is wrong
        raise
    inverse, rank = _inverted(xp, s, s, 0.0, rtol) if s.size else s, None
    full = driver != "gelsy" and bool((inverse != 0).all())
    if driver != "gels":
        rank = wrap(xp.asarray((inverse != 0).sum(-1, dtype=np.int64)))
    return (*map(wrap, (u, s, vh, inverse)), rank, full)


# ------------------------------------------------------------------ condition numbers
@public(
    samples=lambda: [
        *square_samples(),
        S(normal(4, 3)),
        *(S(well_conditioned(normal(2, 3, 3)), p) for p in (2, -2, 1, -1, math.inf, -math.inf)),
        *(S(well_conditioned(normal(3, 3)), p) for p in ("fro", "nuc")),
        S(constant(np.stack([np.ones((2, 2)), np.eye(2)])), 1),
        S(np.zeros((2, 0, 0)), smooth=False),
    ],
    torch="",  # whose backward raises for some orders: tests/ops/test_least_squares.py
    autocast=("float32", ""),
)
def cond(A: Tensor, p: Any = None) -> Tensor:
    """Condition numbers of matrices, (*, m, n) -> (*): norms of A times those of its inverse.

    ``p`` is an order of ``linalg.matrix_norm``; None, 2 and -2 are quotients of singular values,
    also of matrices that are not square. Those of singular matrices are infinite.

    >>> import gradlite
    >>> gradlite.linalg.cond(gradlite.tensor([[2.0, 0.0], [0.0, 4.0]]))
    tensor(2.)
    """
    check_tensor("linalg.cond", "A", 1, A)
    array = A.array
    if array.ndim < 2:
        raise RuntimeError("linalg.cond: The input tensor must have at least 2 dimensions.")
    if p is not None and p not in (2, -2):
        if isinstance(p, str) or p in (1, -1, math.inf, -math.inf):
            check_squares(f"linalg.cond(ord={p})", A)
        if p not in ("fro", "nuc", 1, -1, math.inf, -math.inf):
            raise RuntimeError(f"linalg.cond got an invalid norm type: {p}")
    if not array.size:
        zeros: Any = A.new_zeros(array.shape[:-2])  # type: ignore[attr-defined]
        return zeros  # type: ignore[no-any-return]
    if p is None or p in (2, -2, "nuc"):
        s: Any = svdvals(A)
        if p == "nuc":
            return s.sum(-1) * s.reciprocal().sum(-1)  # type: ignore[no-any-return]
        quotient = s[..., 0] / s[..., -1]
        return quotient.reciprocal() if p == -2 else quotient  # type: ignore[no-any-return]
    try:
        inverse = inv(A)
        return matrix_norm(A, p) * matrix_norm(inverse, p)  # type: ignore[operator, no-any-return]
    except LinAlgError:
        singular = _singular(A)
    regular = where(singular[..., None, None], wrap(beside(array, np.eye(array.shape[-1]))), A)
    product: Any = matrix_norm(A, p) * matrix_norm(inv(cast(regular, array.dtype)), p)  # type: ignore[operator]
    return where(singular, math.inf, product)


@on_its_device
def _singular(A: Tensor) -> Any:
    """Which matrices have no inverse."""
    xp, a = NAMESPACES[A.array.__class__].xp, A.array
    found = []
    for matrix in a.reshape(-1, *a.shape[-2:]):
        try:
            with raising(xp):
                xp.linalg.inv(matrix)
            found.append(False)
        except np.linalg.LinAlgError:
            found.append(True)
    return wrap(xp.asarray(np.array(found).reshape(a.shape[:-2])))
