"""Factors of matrices: singular values, eigenvalues of symmetric matrices, QR.

The derivatives are those of Townsend, "Differentiating the Singular Value Decomposition" (2016),
Giles, "An extended collection of matrix derivative results for forward and reverse mode algorithmic
differentiation" (2008), sections 3.1 and 3.2, and Walter, Lehmann and Lamour, "On evaluating
higher-order derivatives of the QR decomposition of tall matrices with full column rank in forward
and reverse mode algorithmic differentiation" (2012); of QR of wide matrices Roberts and Roberts,
"QR and LQ Decomposition Matrix Backpropagation Algorithms" (2020). With equal singular values or
eigenvalues, the gradients of vectors are infinite or NaN, as in PyTorch. The signs of vectors are
those of the library that computes them, so that a loss should not depend on them.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import return_types
from gradlite.grad_mode import is_grad_enabled
from gradlite.ops.dispatch import OUT, apply, output_grads
from gradlite.ops.guard import on_its_device
from gradlite.ops.matrices import (
    LinAlgError,
    check_dtype,
    check_matrices,
    check_square,
    eigh_of_arrays,
    eye,
    raising,
    svd_of_arrays,
    which,
)
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__: list[str] = []  # they are in ``gradlite.linalg``


def _skew(x: Any) -> Any:
    return x - x.swapaxes(-1, -2)


def _apart(F: Any, values: Any) -> Any:
    """Differences ``values[j] - values[i]``, and 1 on the diagonal."""
    n = values.shape[-1]
    return values[..., None, :] - values[..., :, None] + eye(F, values, n)


def _diagonal(F: Any, values: Any) -> Any:
    """Diagonal matrices."""
    zero = F.zero_beside(values)
    return F.where(eye(F, values, values.shape[-1]) == 1, values[..., None, :], zero)


class Svd(Op):
    """A = U diag(S) Vh, the singular values from the largest on."""

    reads = ((OUT, OUT - 1, OUT - 2),)
    outputs = 3
    grad_name = "LinalgSvdBackward0"

    def forward(xp: Any, a: Any, full_matrices: bool) -> Any:
        u, s, vh = svd_of_arrays(xp, a, full_matrices)
        return u, s, vh

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        u, s, vh = ctx.saved
        gu, gs, gvh = grads
        k = s.shape[-1]
        if ctx.attrs[0]:  # the rest of them is any basis of the rest of the space
            u, vh = u[..., :k], vh[..., :k, :]
            gu = None if gu is None else gu[..., :k]
            gvh = None if gvh is None else gvh[..., :k, :]
        if gu is None and gvh is None:
            return (F.matmul(u * gs[..., None, :], vh),)
        transposed, v = u.swapaxes(-1, -2), vh.swapaxes(-1, -2)
        inner = None if gs is None else _diagonal(F, gs)
        columns, rows, apart = s[..., None, :], s[..., :, None], _apart(F, s * s)
        if gu is not None:
            within = F.matmul(transposed, gu)
            term = _skew(within) / apart * columns
            inner = term if inner is None else inner + term
        if gvh is not None:
            across = F.matmul(gvh, v)
            term = _skew(across.swapaxes(-1, -2)) / apart * rows
            inner = term if inner is None else inner + term
        result = F.matmul(F.matmul(u, inner), vh)
        if gu is not None and u.shape[-2] > k:
            result = result + F.matmul((gu - F.matmul(u, within)) / columns, vh)
        if gvh is not None and vh.shape[-1] > k:
            result = result + F.matmul(u, (gvh - F.matmul(across, vh)) / rows)
        return (result,)


class Eigh(Op):
    """A V = V diag(L) of symmetric A, of which one triangle is read."""

    reads = ((OUT, OUT - 1),)
    outputs = 2
    grad_name = "LinalgEighBackward0"

    def forward(xp: Any, a: Any, uplo: str) -> Any:
        values, vectors = eigh_of_arrays(xp, a, uplo)
        return values, vectors

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        values, vectors = ctx.saved
        gl, gv = grads
        transposed = vectors.swapaxes(-1, -2)
        if gv is None:
            return (F.matmul(vectors * gl[..., None, :], transposed),)
        inner = _skew(F.matmul(transposed, gv)) / (_apart(F, values) * 2)
        if gl is not None:
            inner = inner + _diagonal(F, gl)
        return (F.matmul(vectors, F.matmul(inner, transposed)),)


class Qr(Op):
    """A = Q R with orthonormal columns in Q and an upper triangle R."""

    reads = ((OUT, OUT - 1),)
    outputs = 2
    grad_name = "LinalgQrBackward0"

    def forward(xp: Any, a: Any, mode: str) -> Any:
        with raising(xp):
            if mode == "r":
                return xp.empty((0,), a.dtype), xp.linalg.qr(a, mode)
            q, r = xp.linalg.qr(a, mode)
        return q, r

    def backward(ctx: Any, grads: Any, F: Any) -> tuple[Any, ...]:
        q, r = ctx.saved
        (mode,) = ctx.attrs
        rows, columns = r.shape[-2] if mode == "r" else q.shape[-2], r.shape[-1]
        if mode == "r":
            raise RuntimeError(
                "The derivative of linalg.qr depends on Q, which is not computed when mode='r'. "
                "Please use linalg.qr(A, mode='reduced') if you are going to differentiate "
                "through linalg.qr."
            )
        if mode == "complete" and rows > columns:
            raise RuntimeError(
                "The QR decomposition is not differentiable when mode='complete' and nrows > ncols."
            )
        gq, gr = output_grads(ctx, grads, F, q)
        if rows >= columns:
            return (_of_tall(F, q, r, gq, gr),)
        # A = Q [U V], where U is a square triangle: V = Q^T Y, with the right part Y of A.
        square, right, gright = r[..., :rows], r[..., rows:], gr[..., rows:]
        gq = gq + F.matmul(F.matmul(q, right), gright.swapaxes(-1, -2))
        left = _of_tall(F, q, square, gq, gr[..., :rows])
        return (F.cat([left, F.matmul(q, gright)], left.ndim - 1),)


def _of_tall(F: Any, q: Any, r: Any, gq: Any, gr: Any) -> Any:
    """The gradient of A from those of Q and R, where R is square."""
    inner = F.matmul(r, gr.swapaxes(-1, -2)) - F.matmul(gq.swapaxes(-1, -2), q)
    lower = F.tril(inner, -1)
    both = F.tril(inner, 0) + lower.swapaxes(-1, -2)
    right = gq + F.matmul(q, both)
    # X R^T = right
    return F.solve(r, right.swapaxes(-1, -2)).swapaxes(-1, -2)


# -------------------------------------------------------------------- singular values
def svd_of(name: str, A: Tensor, full_matrices: bool, driver: str | None = None) -> Any:
    """U, S and Vh, with the arguments checked."""
    check_matrices("linalg.svd", A)
    check_dtype("linalg.svd", A)
    if driver is not None and not A.is_cuda:
        raise RuntimeError(
            f"gradlite.{name}: keyword argument `driver=` is only supported on CUDA inputs with "
            "cuSOLVER backend."
        )
    try:
        return apply(Svd, (A,), bool(full_matrices))
    except np.linalg.LinAlgError:
        raise _not_converged(A.array) from None


@on_its_device
def _not_converged(array: Any) -> LinAlgError:
    xp = NAMESPACES[array.__class__].xp
    why = (
        "is ill-conditioned or has too many repeated singular values"
        if bool(xp.isfinite(array).all())
        else "contained non-finite values"
    )
    where = which(array, lambda xp, a: Svd.forward(xp, a, False))
    return LinAlgError(
        f"linalg.svd: {where}The algorithm failed to converge because the input matrix {why}."
    )


def _svd_samples() -> list[Any]:
    return [
        S(normal(4, 3), smooth=False),  # the last column of U is orthogonal to the rest, no more
        S(normal(3, 3)),
        S(normal(2, 2, 4), smooth=False),
        S(normal(4, 2), full_matrices=False),
        S(normal(2, 3, 4), False),
        S(np.zeros((2, 0, 3)), False),
    ]


@public(
    samples=_svd_samples,
    torch="",  # signs are the library's: tests/ops/test_factorizations.py compares what has none
    autocast=("float32", ""),
)
def linalg_svd(A: Tensor, full_matrices: bool = True, *, driver: str | None = None) -> Any:
    """The singular value decomposition ``A = U diag(S) Vh`` of matrices, (*, m, n).

    U is (*, m, m) and Vh (*, n, n), or (*, m, k) and (*, k, n) with ``full_matrices=False``, where
    k is the smaller of m and n. S is (*, k), the largest first. Gradients of U and Vh are finite
    where singular values are distinct and, of matrices that are not square, not 0.

    >>> import gradlite
    >>> gradlite.linalg.svd(gradlite.tensor([[0.0, 2.0], [3.0, 0.0]])).S
    tensor([3., 2.])

    Raises:
        LinAlgError: it does not converge.
    """
    return return_types.linalg_svd(svd_of("linalg.svd", A, full_matrices, driver))


@public(
    samples=lambda: [S(normal(4, 3)), S(normal(2, 2, 4)), S(normal(3, 3)), S(np.zeros((0, 3)))],
    torch="linalg.svdvals",
    errors=lambda: [S(normal(3)), S(np.ones((2, 2), np.int64))],
    autocast=("float32", ""),
)
def svdvals(A: Tensor, *, driver: str | None = None) -> Tensor:
    """The singular values of matrices, (*, m, n) -> (*, min(m, n)), the largest first.

    >>> import gradlite
    >>> gradlite.linalg.svdvals(gradlite.tensor([[0.0, 2.0], [3.0, 0.0]]))
    tensor([3., 2.])

    Raises:
        LinAlgError: it does not converge.
    """
    check_matrices("linalg.svd", A)
    if driver is not None or (A.requires_grad and is_grad_enabled()):
        return svd_of("linalg.svd", A, False, driver)[1]  # type: ignore[no-any-return]
    check_dtype("linalg.svd", A)
    return _values_alone(A)


@on_its_device
def _values_alone(A: Tensor) -> Tensor:
    xp = NAMESPACES[A.array.__class__].xp
    try:
        return wrap(svd_of_arrays(xp, A.array, compute_uv=False))
    except np.linalg.LinAlgError:
        raise _not_converged(A.array) from None


# ------------------------------------------------------------------------- eigenvalues
def eigh_of(A: Tensor, UPLO: str) -> Any:
    """Eigenvalues and eigenvectors, with the arguments checked."""
    check_square("linalg.eigh", A)
    if not isinstance(UPLO, str):
        raise TypeError(
            "linalg_eigh(): argument 'UPLO' must be str, not " + UPLO.__class__.__name__
        )
    if UPLO.upper() not in ("L", "U"):
        raise RuntimeError(f"Expected UPLO argument to be 'L' or 'U', but got {UPLO}")
    try:
        return apply(Eigh, (A,), UPLO.upper())
    except np.linalg.LinAlgError:
        where = which(A.array, lambda xp, a: Eigh.forward(xp, a, UPLO.upper()))
        raise LinAlgError(
            f"linalg.eigh: {where}The algorithm failed to converge because the input matrix is "
            "ill-conditioned or has too many repeated eigenvalues."
        ) from None


def symmetric(*shape: int) -> Any:
    """Symmetric matrices with eigenvalues that are well apart."""
    a = normal(*shape)
    return a + a.swapaxes(-1, -2) + np.diag(np.arange(shape[-1]) * 3.0)


def _eigh_samples() -> list[Any]:
    return [  # not smooth: a difference would move one triangle alone
        S(symmetric(3, 3), smooth=False),
        S(symmetric(2, 2, 2), smooth=False),
        S(symmetric(3, 3), UPLO="U", smooth=False),
        S(normal(3, 3), "L", smooth=False),
        S(np.zeros((0, 0)), smooth=False),
    ]


def _eigh_errors() -> list[Any]:
    return [S(normal(2, 3)), S(normal(2)), S(np.ones((2, 2), np.int64)), S(normal(2, 2), "X")]


@public(
    samples=_eigh_samples,
    torch="",  # signs are the library's: tests/ops/test_factorizations.py compares what has none
    errors=tuple,
    autocast=("float32", ""),
)
def eigh(A: Tensor, UPLO: str = "L") -> Any:
    """Eigenvalues, (*, n), in ascending order, and eigenvectors, (*, n, n), of symmetric matrices.

    Only the lower triangle of A is read, or the upper with ``UPLO="U"``; the gradient is that of a
    function of symmetric matrices. That of vectors is finite where eigenvalues are distinct.

    >>> import gradlite
    >>> gradlite.linalg.eigh(gradlite.tensor([[0.0, 2.0], [2.0, 0.0]])).eigenvalues
    tensor([-2.,  2.])

    Raises:
        LinAlgError: it does not converge.
    """
    return return_types.linalg_eigh(eigh_of(A, UPLO))


@public(
    samples=_eigh_samples,
    torch="linalg.eigvalsh",
    errors=_eigh_errors,
    autocast=("float32", ""),
)
def eigvalsh(A: Tensor, UPLO: str = "L") -> Tensor:
    """The eigenvalues of symmetric matrices, (*, n, n) -> (*, n), in ascending order.

    >>> import gradlite
    >>> gradlite.linalg.eigvalsh(gradlite.tensor([[0.0, 2.0], [2.0, 0.0]]))
    tensor([-2.,  2.])

    Raises:
        LinAlgError: it does not converge.
    """
    return eigh_of(A, UPLO)[0]  # type: ignore[no-any-return]


# --------------------------------------------------------------------------------- QR
@public(
    samples=lambda: [
        S(normal(4, 3)),
        S(normal(3, 3)),
        S(normal(2, 2, 4)),
        S(normal(2, 2, 4), mode="complete"),
        S(normal(2, 3, 3), "complete"),
        S(np.zeros((3, 0))),
        S(np.zeros((0, 3))),
    ],
    torch="linalg.qr",
    errors=lambda: [S(normal(3)), S(np.ones((2, 2), np.int64)), S(normal(2, 2), "full")],
    autocast=("float32", ""),
)
def linalg_qr(A: Tensor, mode: str = "reduced") -> Any:
    """The QR decomposition ``A = Q R`` of matrices, (*, m, n): Q is (*, m, k) and R (*, k, n).

    k is the smaller of m and n, and m with ``mode="complete"``. With ``mode="r"`` Q is empty and
    there is no derivative; nor is there one of complete decompositions of tall matrices.

    >>> import gradlite
    >>> gradlite.linalg.qr(gradlite.tensor([[0.0, 2.0], [3.0, 0.0]])).R
    tensor([[-3.,  0.],
            [ 0., -2.]])
    """
    check_matrices("linalg.qr", A)
    check_dtype("linalg.qr", A)
    if mode not in ("reduced", "complete", "r"):
        raise RuntimeError(
            f"qr received unrecognized mode '{mode}' but expected one of 'reduced' (default), "
            "'r', or 'complete'"
        )
    return return_types.linalg_qr(apply(Qr, (A,), mode))
