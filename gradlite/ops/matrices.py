"""What the ops of linear algebra share: their errors, their checks, and how CuPy is made strict."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.gather import check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import type_name
from gradlite.ops.samples import S, normal
from gradlite.tensor import Tensor


class LinAlgError(RuntimeError):
    """A matrix for which there is no result: singular, or not positive definite."""


def raising(xp: Any) -> AbstractContextManager[Any]:
    """A context in which CuPy looks at what cuSOLVER says of a matrix, as NumPy always does."""
    if xp is np:
        return nullcontext()
    import cupyx

    return cupyx.errstate(linalg="raise")  # type: ignore[no-any-return]


def svd_of_arrays(xp: Any, a: Any, full_matrices: bool = True, compute_uv: bool = True) -> Any:
    """As `numpy.linalg.svd`, whose LinAlgError CuPy gives here too."""
    with raising(xp):
        found = xp.linalg.svd(a, full_matrices, compute_uv)
    check_finite(xp, found[1] if compute_uv else found)
    return found


def eigh_of_arrays(xp: Any, a: Any, uplo: str = "L") -> Any:
    """As `numpy.linalg.eigh`, whose LinAlgError CuPy gives here too."""
    with raising(xp):
        values, vectors = xp.linalg.eigh(a, uplo)
    check_finite(xp, values)
    return values, vectors


def check_finite(xp: Any, values: Any) -> None:
    """LinAlgError for NaNs: cuSOLVER finds nothing wrong with a matrix of them, and gives them."""
    if xp is not np and not bool(xp.isfinite(values).all()):
        raise np.linalg.LinAlgError("the matrix has values that are not finite")


@on_its_device
def which(array: Any, fails: Callable[[Any, Any], Any]) -> str:
    """Names the first matrix of a batch that a function of xp and a matrix cannot take."""
    if array.ndim == 2:
        return ""
    xp = NAMESPACES[array.__class__].xp
    for place, matrix in enumerate(array.reshape(-1, *array.shape[-2:])):
        try:
            fails(xp, matrix)
        except np.linalg.LinAlgError:
            return f"(Batch element {place}): "
    return ""


def eye(F: Any, like: Any, n: int) -> Any:
    """The identity matrix, as a constant, in the dtype and on the device of another value."""
    array = F.array(like)
    return NAMESPACES[array.__class__].xp.eye(n, dtype=array.dtype)


# ------------------------------------------------------------------------------- checks
# PyTorch's kernels, none of which there are for halves.
KERNELS = {
    "linalg.det": "lu_cpu",
    "linalg.solve": "lu_cpu",
    "linalg.cholesky": "cholesky_cpu",
    "linalg.svd": "linalg_svd_cpu",
    "linalg.eigh": "linalg_eigh_cpu",
    "linalg.qr": "geqrf_cpu",
}
TAKES_HALVES = ("linalg.matrix_exp", "linalg.matrix_power")


def check_matrices(name: str, a: Any) -> None:
    """RuntimeError unless there are two dimensions."""
    check_tensor(name, "A", 1, a)
    if a.array.ndim < 2:
        raise RuntimeError(f"{name}: The input tensor A must have at least 2 dimensions.")


def check_dtype(name: str, a: Tensor) -> None:
    """An error in PyTorch's words unless matrices are of a dtype that a function computes in."""
    array = a.array
    if array.dtype not in dtypes.FLOATING and name != "linalg.eigh":
        raise RuntimeError(
            f"{name}: Expected a floating point or complex tensor as input. Got "
            f"{type_name(array.dtype)}"
        )
    if array.dtype.kind == "f" and array.dtype.itemsize > 2:
        return
    if name in KERNELS:
        if not array.size:
            return
        raise NotImplementedError(
            f"\"{KERNELS[name]}\" not implemented for '{type_name(array.dtype)}'"
        )
    if name not in TAKES_HALVES:
        raise RuntimeError(
            f"{name}: Low precision dtypes not supported. Got {type_name(array.dtype)}"
        )


def check_squares(name: str, a: Tensor) -> None:
    """RuntimeError unless the last two dimensions are equal."""
    check_matrices(name, a)
    n, m = a.array.shape[-2:]
    if n != m:
        raise RuntimeError(
            f"{name}: A must be batches of square matrices, but they are {n} by {m} matrices"
        )


def check_square(name: str, a: Tensor) -> None:
    """The errors of functions of square matrices, in PyTorch's order and words."""
    check_squares(name, a)
    check_dtype(name, a)


# ------------------------------------------------------------------------------ samples
def well_conditioned(square: Any) -> Any:
    """A matrix near three times the identity."""
    return np.eye(square.shape[-1]) * 3 + 0.4 * square


def positive_definite(*shape: int) -> Any:
    """Symmetric matrices with eigenvalues above 2."""
    a = normal(*shape)
    return a @ a.swapaxes(-1, -2) + 2 * np.eye(shape[-1])


def square_samples() -> list[Any]:
    """Matrices that have an inverse."""
    return [
        S(well_conditioned(normal(3, 3))),
        S(well_conditioned(normal(2, 2, 2))),
        S(well_conditioned(normal(1, 1))),
    ]


def square_errors() -> list[Any]:
    """What is no square matrix of floats."""
    return [S(normal(2, 3)), S(normal(2)), S(np.ones((2, 2), np.int64))]
