"""The exponential of matrices, and inverses of tensors that stand for matrices."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gradlite.ops.dispatch import apply1
from gradlite.ops.linear_systems import inv, solve
from gradlite.ops.matrices import check_square
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["matrix_exp"]

# exp(A) = exp(A / 2^s)^(2^s), with s so large that the first terms of the power series suffice:
# 0.7^17 / 17! is 7e-18.
LARGEST_NORM = 0.7
TERMS = 16


@cache
def _weights(dtype: Any) -> Any:
    """What each power up to the fourth counts in a quarter of the series, (4, 5), in order.

    A power of 4 and more belongs to the next quarter, but for the last one's.
    """
    weights = np.zeros((4, 5))
    for power in range(TERMS):
        weights[divmod(power, 4)] = 1 / math.factorial(power)
    weights[3, 4] = 1 / math.factorial(TERMS)
    return weights.astype(dtype)


def _series(F: Any, a: Any) -> Any:
    """The power series of exp to degree 16 of (batch, n, n), by six products and one of weights.

    Paterson and Stockmeyer, "On the number of nonscalar multiplications necessary to evaluate
    polynomials" (1973).
    """
    second = F.matmul(a, a)
    third, fourth = F.matmul(second, a), F.matmul(second, second)
    eye = F.xp.broadcast_to(F.xp.eye(a.shape[-1], dtype=a.dtype), a.shape)
    powers = F.xp.stack([eye, a, second, third, fourth])
    weights = _weights(a.dtype)
    if F.launcher is not None and F.xp is not np:
        (weights,) = F.launcher.constants(("matrix_exp", a.dtype), lambda: (weights,))
    parts = F.matmul(F.xp.asarray(weights), powers.reshape(5, -1)).reshape(4, *a.shape)
    result = parts[3]
    for part in (2, 1, 0):
        result = F.baddbmm(parts[part], result, fourth, 1, 1)
    return result


class MatrixExp(Op):
    """exp(A), by scaling and squaring.

    The gradient is a block of an exponential of twice the size: Mathias, "A chain rule for matrix
    functions and applications" (1996), theorem 2.1.
    """

    reads = ((0,),)
    grad_name = "LinalgMatrixExpBackward0"

    def forward(xp: Any, a: Any) -> Any:
        if not a.size:
            return a.copy()
        F = NAMESPACES[a.__class__]
        batch = a.reshape(-1, *a.shape[-2:])
        norm = F.amax(F.vector_norm(batch, 1.0, (1,), True), (2,), True)
        scale = xp.floor(xp.log2(LARGEST_NORM / xp.maximum(norm, LARGEST_NORM)))
        scale = xp.where(xp.isfinite(scale), scale, 0)  # 0 or less
        result = _series(F, batch * xp.exp2(scale))
        least, done = scale if len(batch) == 1 else scale.min(), 0
        while bool(least < done):
            square = F.matmul(result, result)
            result = square if len(batch) == 1 else xp.where(scale < done, square, result)
            done -= 1
        return result.reshape(a.shape)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (a,) = ctx.saved
        n, last, turned = a.shape[-1], a.ndim - 1, a.swapaxes(-1, -2)
        upper = F.cat([turned, grad], last)
        lower = F.cat([F.zeros(tuple(a.shape), a), turned], last)
        return (F.matrix_exp(F.cat([upper, lower], last - 1))[..., :n, n:],)


@public(
    samples=lambda: [
        S(normal(3, 3)),
        S(normal(2, 2, 2) * np.array([0.01, 9.0])[:, None, None]),
        S(normal(1, 1)),
        S(np.zeros((2, 0, 0))),
    ],
    method=True,
    errors=lambda: [S(normal(2, 3)), S(normal(2)), S(np.ones((2, 2), np.int64))],
)
def matrix_exp(A: Tensor) -> Tensor:
    """The exponentials of square matrices, (*, n, n): the sum of all A^k / k!.

    >>> import gradlite
    >>> gradlite.matrix_exp(gradlite.zeros(2, 2))
    tensor([[1., 0.],
            [0., 1.]])
    """
    check_square("linalg.matrix_exp", A)
    return apply1(MatrixExp, A)


# ---------------------------------------------------------- tensors that stand for matrices
def _invertible(n: int, *shape: int) -> Any:
    return (np.eye(n) * 3 + 0.4 * normal(n, n)).reshape(shape)


@public(
    samples=lambda: [
        S(_invertible(6, 2, 3, 6)),
        S(_invertible(6, 6, 3, 2), ind=1),
        S(_invertible(4, 4, 4), 1),
    ],
    torch="linalg.tensorinv",
    errors=lambda: [S(normal(2, 3, 2)), S(normal(4, 4), 0)],
    autocast=("float32", ""),
)
def tensorinv(A: Tensor, ind: int = 2) -> Tensor:
    """The inverse with respect to ``tensordot`` over ``ind`` dimensions, which it has in the end.

    >>> import gradlite
    >>> gradlite.linalg.tensorinv(gradlite.eye(6).reshape(2, 3, 6)).shape
    gradlite.Size([6, 2, 3])

    Raises:
        LinAlgError: there is none.
    """
    if ind <= 0:
        raise RuntimeError(f"Expected a strictly positive integer for 'ind', but got {ind}")
    first, last = A.array.shape[:ind], A.array.shape[ind:]
    n, m = math.prod(first), math.prod(last)
    if n != m:
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[ind:]) == "
            f"prod(self.shape[:ind]), but got {m} != {n}"
        )
    matrix = A.reshape(n, m)  # type: ignore[attr-defined]
    return inv(matrix).reshape(*last, *first)  # type: ignore[attr-defined,no-any-return]


@public(
    samples=lambda: [
        S(_invertible(6, 2, 3, 6), normal(2, 3)),
        S(_invertible(6, 6, 3, 2), normal(6)),
        S(_invertible(6, 3, 6, 2), normal(3, 2), dims=(1,)),
    ],
    torch="linalg.tensorsolve",
    errors=lambda: [S(normal(2, 3, 2), normal(2))],
    autocast=("float32", ""),
)
def tensorsolve(A: Tensor, B: Tensor, dims: Sequence[int] | None = None) -> Tensor:
    """X of ``tensordot(A, X, X.ndim) = B``; ``dims`` of A are moved to its end before.

    >>> import gradlite
    >>> A = gradlite.eye(6).reshape(2, 3, 6)
    >>> gradlite.linalg.tensorsolve(A, gradlite.ones(2, 3))
    tensor([1., 1., 1., 1., 1., 1.])

    Raises:
        LinAlgError: there is none, or several.
    """
    if dims is not None:
        A = A.movedim(tuple(dims), tuple(range(-len(dims), 0)))  # type: ignore[attr-defined]
    count = B.array.ndim
    first, last = A.array.shape[:count], A.array.shape[count:]
    n, m = math.prod(first), math.prod(last)
    if n != m:
        raise RuntimeError(
            "Expected self to satisfy the requirement prod(self.shape[other.ndim:]) == "
            f"prod(self.shape[:other.ndim]), but got {m} != {n}"
        )
    matrix, vector = A.reshape(n, m), B.reshape(-1)  # type: ignore[attr-defined]
    return solve(matrix, vector).reshape(last)  # type: ignore[attr-defined,no-any-return]
