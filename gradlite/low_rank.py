"""Singular values of large matrices by random projections: ``svd_lowrank``, ``pca_lowrank``.

Halko, Martinsson and Tropp, "Finding structure with randomness: probabilistic algorithms for
constructing approximate matrix decompositions" (2009), algorithms 4.4 and 5.1.
"""

from __future__ import annotations

from typing import Any

from gradlite.linalg import qr, svd
from gradlite.ops.random import randn
from gradlite.tensor import Tensor

__all__ = ["pca_lowrank", "svd_lowrank"]


def svd_lowrank(
    A: Tensor, q: int | None = 6, niter: int | None = 2, M: Tensor | None = None
) -> tuple[Tensor, Tensor, Tensor]:
    """U, S and V of the matrices of rank ``q`` near ``A = U diag(S) V^T``, (*, m, n).

    U is (*, m, q), S (*, q) and V (*, n, q), of A - M where there is an M. More than the q largest
    singular values must be small, or ``niter``, the number of subspace iterations, large; what is
    near 0 is not accurate. The projections are drawn from the device's default generator.

    >>> import gradlite
    >>> A = gradlite.outer(gradlite.ones(100), gradlite.ones(30))
    >>> U, S, V = gradlite.svd_lowrank(A, q=1)
    >>> gradlite.allclose(U @ gradlite.diag(S) @ V.T, A, atol=1e-4)
    True
    """
    q, niter = 6 if q is None else q, 2 if niter is None else niter
    matrix: Any = A if M is None else A - M.broadcast_to(A.shape)  # type: ignore[attr-defined, operator]
    rows, columns = matrix.shape[-2:]
    wide = rows < columns
    matrix = matrix.mT if wide else matrix
    draws = randn(matrix.shape[-1], q, dtype=matrix.dtype, device=matrix.device)
    basis = qr(matrix @ draws).Q
    for _ in range(niter):  # orthonormal bases in between, or the small directions would be lost
        basis = qr(matrix.mT @ basis).Q
        basis = qr(matrix @ basis).Q
    u, s, vh = svd(basis.mT @ matrix, full_matrices=False)
    u, v = basis @ u, vh.mT
    return (v, s, u) if wide else (u, s, v)


def pca_lowrank(
    A: Tensor, q: int | None = None, center: bool = True, niter: int = 2
) -> tuple[Tensor, Tensor, Tensor]:
    """Principal components: `svd_lowrank` of the rows of A less their mean, (*, m, n).

    The columns of V, (*, n, q), are the principal directions, and ``S**2 / (m - 1)`` estimates the
    variances along them. ``q`` is at most, and by default, the smallest of 6, m and n.

    >>> import gradlite
    >>> A = gradlite.outer(gradlite.arange(9.0), gradlite.tensor([3.0, 4.0]))
    >>> gradlite.pca_lowrank(A, q=1)[2].abs().T
    tensor([[0.6000, 0.8000]])

    Raises:
        ValueError: q or niter is out of bounds.
    """
    rows, columns = A.array.shape[-2:]
    least = min(rows, columns)
    if q is None:
        q = min(6, least)
    elif not 0 <= q <= least:
        raise ValueError(
            f"q(={q}) must be non-negative integer and not greater than min(m, n)={least}"
        )
    if niter < 0:
        raise ValueError(f"niter(={niter}) must be non-negative integer")
    matrix: Any = A
    mean = matrix.mean(-2, keepdim=True) if center else None
    return svd_lowrank(matrix, q, niter, mean)
