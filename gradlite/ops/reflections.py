"""Householder reflections, whose products are the orthogonal matrices."""

from __future__ import annotations

from typing import Any

from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.gather import check_tensor
from gradlite.ops.matrices import eye
from gradlite.ops.op import Op, type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.ops.triangular import substituted
from gradlite.tensor import Tensor

__all__: list[str] = []


class HouseholderProduct(Op):
    """The first columns of H_1 ... H_k, H_i = 1 - tau_i v_i v_i^T: those of 1 - V T V^T.

    v_i has zeros above its i-th element, which is 1; below are the elements of A. With D the taus
    on a diagonal and S the part of V^T V above the diagonal, T = (1 + D S)^-1 D: Joffrain, Low,
    Quintana-Orti, van de Geijn and Van Zee, Accumulating Householder transformations, revisited
    (2006), theorem 2.
    """

    reads = ((0, 1), (0, 1))
    grad_name = "LinalgHouseholderProductBackward0"

    def forward(xp: Any, a: Any, tau: Any) -> Any:
        (m, n), k = a.shape[-2:], tau.shape[-1]
        if not a.size:
            return a.copy()
        v = xp.tril(a[..., :k], -1) + xp.eye(m, k, dtype=a.dtype)
        between = xp.triu(xp.matmul(v.swapaxes(-1, -2), v), 1)
        system = xp.eye(k, dtype=a.dtype) + tau[..., None] * between
        w = substituted(xp, system, tau[..., None] * v[..., :n, :].swapaxes(-1, -2), True, True)
        return xp.eye(m, n, dtype=a.dtype) - xp.matmul(v, w)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, tau = ctx.saved
        (m, n), k, rows = a.shape[-2:], tau.shape[-1], a.ndim - 2
        if 0 in (*a.shape, k):  # a constant
            return None, None
        v = F.tril(a[..., :k], -1) + eye(F, a, m)[:, :k]
        first, d = v[..., :n, :].swapaxes(-1, -2), tau[..., None]
        between = F.triu(F.matmul(v.swapaxes(-1, -2), v), 1)
        system = eye(F, a, k) + d * between
        w = F.solve_triangular(system, d * first, True, True)
        # Q = E - V W, (1 + D S) W = D V_1^T
        right = F.solve_triangular(
            system.swapaxes(-1, -2), -F.matmul(v.swapaxes(-1, -2), grad), False, True
        )
        of_system = -F.matmul(right, w.swapaxes(-1, -2))
        to_tau = (right * first).sum(-1) + (of_system * between).sum(-1)
        of_between = F.triu(d * of_system, 1)
        to_v = F.matmul(v, of_between + of_between.swapaxes(-1, -2))
        to_v = to_v - F.matmul(grad, w.swapaxes(-1, -2))
        top = (d * right).swapaxes(-1, -2)
        if m > n:
            below = (*top.shape[:-2], m - n, k)
            top = F.cat([top, F.zeros(below, top)], rows)
        to_a = F.tril(to_v + top, -1)
        if n > k:
            to_a = F.cat([to_a, F.zeros((*a.shape[:-1], n - k), a)], rows + 1)
        return to_a, to_tau


@public(
    samples=lambda: [
        S(normal(4, 3), normal(3)),
        S(normal(3, 3), normal(2)),
        S(normal(2, 4, 3), normal(2, 1)),
        S(normal(2, 4, 3), normal(2, 0)),
        S(normal(3, 0), normal(0)),
        S(normal(0, 3, 2), normal(0, 2)),
    ],
    torch="linalg.householder_product",
    errors=lambda: [
        S(normal(2, 3), normal(2)),
        S(normal(3), normal(2)),
        S(normal(3, 2), normal(3)),
        S(normal(3, 2), normal(1, 2)),
        S(normal(4, 3, 2), normal(3, 2)),
        S(normal(3, 2), 3),
    ],
    autocast=("float32", ""),
)
def householder_product(input: Tensor, tau: Tensor) -> Tensor:
    """The first n columns of a product of reflections, (*, m, n) of input (*, m, n) and tau (*, k).

    The i-th of them is ``1 - tau_i v v^T``, where v has zeros, a one, and below it the elements of
    the i-th column of the input under the diagonal. k is at most n, and n at most m.

    >>> import gradlite
    >>> A = gradlite.tensor([[1.0, 2.0], [0.0, 1.0], [2.0, 2.0]])
    >>> Q = gradlite.linalg.householder_product(A, 2 / (A.tril(-1).square().sum(0) + 1))
    >>> gradlite.allclose(Q.T @ Q, gradlite.eye(2), atol=1e-6)
    True

    Raises:
        RuntimeError: the shapes do not fit, or the dtypes are not the same.
    """
    name = "linalg.householder_product"
    check_tensor(name, "input", 1, input)
    check_tensor(name, "tau", 2, tau)
    same_device(input, tau)
    a, t = input.array, tau.array
    if a.ndim < 2:
        raise RuntimeError(f"gradlite.{name}: input must have at least 2 dimensions.")
    for holds, told in (
        (
            a.shape[-2] >= a.shape[-1],
            "input.shape[-2] must be greater than or equal to input.shape[-1]",
        ),
        (
            not t.ndim or a.shape[-1] >= t.shape[-1],
            "input.shape[-1] must be greater than or equal to tau.shape[-1]",
        ),
        (
            t.ndim == a.ndim - 1,
            "Expected tau to have one dimension less than input, but got tau.ndim equal to "
            f"{t.ndim} and input.ndim is equal to {a.ndim}",
        ),
        (
            t.shape[:-1] == a.shape[:-2],
            "Expected batch dimensions of tau to be equal to input.shape[:-2], but got "
            f"{list(t.shape[:-1])}",
        ),
        (
            t.dtype == a.dtype,
            f"tau dtype {type_name(t.dtype)} does not match input dtype {type_name(a.dtype)}",
        ),
    ):
        if not holds:
            raise RuntimeError(f"gradlite.{name}: {told}")
    if a.dtype.kind != "f" or a.dtype.itemsize == 2:
        raise NotImplementedError(f"\"orgqr_cpu\" not implemented for '{type_name(a.dtype)}'")
    result: Any = apply(HouseholderProduct, (input, tau))
    return result  # type: ignore[no-any-return]
