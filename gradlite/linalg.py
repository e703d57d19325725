"""Linear algebra under PyTorch's names: ``gradlite.linalg.inv``, ``.solve``, ``.norm``, ..."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

from gradlite.ops.arguments import take_arguments
from gradlite.ops.contraction import linalg_cross as cross
from gradlite.ops.creation import arange as _arange
from gradlite.ops.factorizations import eigh, eigvalsh, svdvals
from gradlite.ops.factorizations import linalg_qr as qr
from gradlite.ops.factorizations import linalg_svd as svd
from gradlite.ops.least_squares import cond, lstsq, matrix_rank, pinv
from gradlite.ops.linear_systems import (
    cholesky,
    cholesky_ex,
    det,
    inv,
    matrix_power,
    slogdet,
    solve,
)
from gradlite.ops.matmul import matmul
from gradlite.ops.matrices import LinAlgError
from gradlite.ops.matrix_functions import matrix_exp, tensorinv, tensorsolve
from gradlite.ops.norms import linalg_norm as norm
from gradlite.ops.norms import matrix_norm, vector_norm
from gradlite.ops.out import take_out
from gradlite.ops.reflections import householder_product
from gradlite.ops.shape import diagonal as _diagonal
from gradlite.ops.triangular import solve_triangular
from gradlite.tensor import Tensor

__all__ = [
    "LinAlgError",
    "cholesky",
    "cholesky_ex",
    "cond",
    "cross",
    "det",
    "diagonal",
    "eigh",
    "eigvalsh",
    "householder_product",
    "inv",
    "lstsq",
    "matmul",
    "matrix_exp",
    "matrix_norm",
    "matrix_power",
    "matrix_rank",
    "multi_dot",
    "norm",
    "pinv",
    "qr",
    "slogdet",
    "solve",
    "solve_triangular",
    "svd",
    "svdvals",
    "tensorinv",
    "tensorsolve",
    "vander",
    "vecdot",
    "vector_norm",
]


def diagonal(A: Tensor, *, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """A view of the diagonals of matrices, (*, n, m) -> (*, min(n, m)).

    >>> import gradlite
    >>> gradlite.linalg.diagonal(gradlite.eye(2))
    tensor([1., 1.])
    """
    return _diagonal(A, offset, dim1, dim2)


def vander(x: Tensor, *, N: int | None = None) -> Tensor:
    """The powers 0 to N - 1 of each element, (*, n) -> (*, n, N); N is n where it is not given.

    >>> import gradlite
    >>> gradlite.linalg.vander(gradlite.tensor([2, 3]), N=3)
    tensor([[1, 2, 4],
            [1, 3, 9]])
    """
    x = x if x.array.ndim else x.reshape(1)  # type: ignore[attr-defined]
    n = x.array.shape[-1] if N is None else N
    if n <= 1:
        raise RuntimeError("N must be greater than 1.")
    return x.unsqueeze(-1) ** _arange(n, device=x.device)  # type: ignore[attr-defined,no-any-return]


def vecdot(x: Tensor, y: Tensor, *, dim: int = -1) -> Tensor:
    """Inner products of vectors along a dimension; the others broadcast.

    >>> import gradlite
    >>> gradlite.linalg.vecdot(gradlite.ones(2, 3), gradlite.ones(3))
    tensor([3., 3.])
    """
    product: Any = x * y  # type: ignore[operator]
    return product.sum(dim)  # type: ignore[no-any-return]


def _check_chain(parts: list[Tensor]) -> None:
    last = len(parts) - 1
    for place, part in enumerate(parts):
        ndim = part.array.ndim
        if place in (0, last):
            if ndim not in (1, 2):
                which = "last" if place else "first"
                raise RuntimeError(
                    f"multi_dot(): the {which} tensor must be 1D or 2D but got {ndim}D"
                )
        elif ndim != 2:
            raise RuntimeError(f"multi_dot(): tensor {place} must be 2D but got {ndim}D")
        if part.array.dtype != parts[0].array.dtype:
            raise RuntimeError(
                "multi_dot(): all tensors must have be the same dtype but tensor 0 is "
                f"{parts[0].dtype.name} and tensor {place} {part.dtype.name}"
            )
    for place, (one, other) in enumerate(zip(parts, parts[1:])):
        if one.array.shape[-1] != other.array.shape[0]:
            raise RuntimeError(
                f"multi_dot(): tensors {place} and {place + 1} with shapes "
                f"{list(one.array.shape)} and {list(other.array.shape)} cannot be multiplied"
            )


def multi_dot(tensors: Sequence[Tensor]) -> Tensor:
    """The product of several matrices (the first and last may be vectors), in the cheapest order.

    >>> import gradlite
    >>> gradlite.linalg.multi_dot([gradlite.ones(2, 3), gradlite.ones(3, 4), gradlite.ones(4)])
    tensor([12., 12.])
    """
    parts = list(tensors)
    if len(parts) < 2:
        raise RuntimeError(f"multi_dot(): expected at least 2 tensors but got {len(parts)}")
    _check_chain(parts)
    sizes = [p.array.shape[0] if p.array.ndim > 1 else 1 for p in parts[:1]]
    sizes += [p.array.shape[0] for p in parts[1:]]
    sizes.append(parts[-1].array.shape[1] if parts[-1].array.ndim > 1 else 1)

    best: dict[tuple[int, int], tuple[int, int]] = {(i, i): (0, i) for i in range(len(parts))}
    for span in range(1, len(parts)):
        for first in range(len(parts) - span):
            last = first + span
            best[first, last] = min(
                (
                    best[first, cut][0]
                    + best[cut + 1, last][0]
                    + sizes[first] * sizes[cut + 1] * sizes[last + 1],
                    cut,
                )
                for cut in range(first, last)
            )

    def product(first: int, last: int) -> Tensor:
        if first == last:
            return parts[first]
        cut = best[first, last][1]
        return matmul(product(first, cut), product(cut + 1, last))

    return product(0, len(parts) - 1)


def chain_matmul(*matrices: Tensor) -> Tensor:
    """The product of several matrices: deprecated, as ``gradlite.chain_matmul``; see `multi_dot`.

    >>> import gradlite
    >>> import warnings
    >>> warnings.simplefilter("ignore")
    >>> gradlite.chain_matmul(gradlite.ones(1, 2), gradlite.ones(2, 1))
    tensor([[2.]])
    """
    warnings.warn(
        "gradlite.chain_matmul is deprecated and will be removed in a future PyTorch release. Use "
        "gradlite.linalg.multi_dot instead, which accepts a list of two or more tensors rather "
        "than multiple parameters.",
        UserWarning,
        stacklevel=2,
    )
    if not matrices:
        raise RuntimeError("chain_matmul(): Expected one or more matrices")
    for matrix in matrices:
        if matrix.array.ndim != 2:
            raise RuntimeError(f"Tensor dimension is {matrix.array.ndim}, expected 2 instead.")
    return matrices[0] if len(matrices) == 1 else multi_dot(matrices)


# What programs ask for that is not here, and what there is instead.
_INSTEAD = {
    **dict.fromkeys(
        ("eig", "eigvals"),
        "eigenvalues of matrices that are not symmetric are complex numbers, and there are none; "
        "eigh and eigvalsh take symmetric matrices, and numpy.linalg.eig takes Tensor.numpy()",
    ),
    **dict.fromkeys(
        ("lu", "lu_factor", "lu_factor_ex", "lu_solve", "ldl_factor", "ldl_factor_ex", "ldl_solve"),
        "NumPy gives no LU factors; solve, inv, det and slogdet compute with them",
    ),
}


def __getattr__(name: str) -> Any:
    instead = f": {_INSTEAD[name]}" if name in _INSTEAD else ""
    raise AttributeError(f"module 'gradlite.linalg' has no attribute {name!r}{instead}")


take_out(globals(), prefix="linalg_")
take_arguments(globals(), "linalg_")
