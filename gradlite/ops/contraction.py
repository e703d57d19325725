"""Products of vectors and tensors: outer, inner, cross, kron, tensordot."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops.arithmetic import mul
from gradlite.ops.binary import sum_to
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.matmul import dot, matmul
from gradlite.ops.op import Op
from gradlite.ops.samples import S, integers, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "cross",
    "ger",
    "inner",
    "kron",
    "outer",
    "tensordot",
    "vdot",
]


@public(
    samples=lambda: [
        S(normal(3), normal(4)),
        S(integers(0, 9, 2), normal(3)),
        S(normal(0), normal(2)),
    ],
    method=True,
    errors=lambda: [S(normal(2, 2), normal(3)), S(normal(2), normal(3, 1))],
)
def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """The products of all pairs of elements of two vectors, (n), (m) -> (n, m).

    >>> import gradlite
    >>> gradlite.outer(gradlite.tensor([1, 2]), gradlite.tensor([3, 4]))
    tensor([[3, 4],
            [6, 8]])
    """
    for name, value in (("self", input), ("vec2", vec2)):
        if value.array.ndim != 1:
            raise RuntimeError(f"outer: Expected 1-D argument {name}, but got {value.array.ndim}-D")
    column: Any = input.reshape(-1, 1)  # type: ignore[attr-defined]
    return mul(column, vec2)


ger = outer


@public(
    samples=lambda: [
        S(normal(2, 3), normal(4, 3)),
        S(normal(3), normal(3)),
        S(normal(), normal(3)),
    ],
    method=True,
    errors=lambda: [S(normal(2, 3), normal(4, 2))],
)
def inner(input: Tensor, other: Tensor) -> Tensor:
    """Inner products along the last dimensions, (*, n), (+, n) -> (*, +).

    >>> import gradlite
    >>> gradlite.inner(gradlite.tensor([1, 2]), gradlite.tensor([[3, 4], [5, 6]]))
    tensor([11, 17])
    """
    a, b = input.array.shape, other.array.shape
    if not a or not b:
        return mul(input, other)
    if a[-1] != b[-1]:
        raise RuntimeError(
            "inner() the last dimension must match on both input tensors but got shapes "
            f"{list(a)} and {list(b)}"
        )
    return tensordot(input, other, ([-1], [-1]))


@public(
    samples=lambda: [S(normal(3), normal(3))],
    method=True,
    autocast=("", "widest"),
)
def vdot(input: Tensor, other: Tensor) -> Tensor:
    """The inner product of two vectors: `dot`, since there are no complex numbers.

    >>> import gradlite
    >>> gradlite.vdot(gradlite.tensor([1, 2]), gradlite.tensor([3, 4]))
    tensor(11)
    """
    return dot(input, other)


@public(
    samples=lambda: [S(normal(2, 3), normal(2, 2)), S(normal(2), normal(3, 1, 2))],
    method=True,
)
def kron(input: Tensor, other: Tensor) -> Tensor:
    """The Kronecker product: each element of ``input`` times all of ``other``, in blocks.

    >>> import gradlite
    >>> gradlite.kron(gradlite.tensor([1, 2]), gradlite.tensor([3, 4]))
    tensor([3, 4, 6, 8])
    """
    n = max(input.array.ndim, other.array.ndim)
    a = (1,) * (n - input.array.ndim) + tuple(input.array.shape)
    b = (1,) * (n - other.array.ndim) + tuple(other.array.shape)
    left: Any = input.reshape([size for m in a for size in (m, 1)])  # type: ignore[attr-defined]
    right: Any = other.reshape([size for m in b for size in (1, m)])  # type: ignore[attr-defined]
    return (left * right).reshape([m * k for m, k in zip(a, b)])  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------- cross
class LinalgCross(Op):
    """The vector product along a dimension of size 3."""

    row_major = True
    reads = ((1,), (0,))
    fname = "cross"

    def forward(xp: Any, a: Any, b: Any, dim: int) -> Any:
        a, b = xp.broadcast_arrays(a, b)
        return xp.cross(a, b, axis=dim)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        (dim,) = ctx.attrs
        left = right = None
        if ctx.edges[0] is not None:
            left = sum_to(F, F.cross(b, grad, dim), tuple(ctx.shapes[0]))
        if ctx.edges[1] is not None:
            right = sum_to(F, F.cross(grad, a, dim), tuple(ctx.shapes[1]))
        return left, right


def linalg_cross(input: Tensor, other: Tensor, *, dim: int = -1) -> Tensor:
    """The vector product along a dimension of size 3; the other dimensions broadcast."""
    check_tensor("linalg.cross", "other", 2, other)
    same_device(input, other)
    a, b = input.array, other.array
    if a.ndim != b.ndim:
        raise RuntimeError("linalg.cross: inputs must have the same number of dimensions.")
    d = wrap_dim(dim, a.ndim)
    if a.shape[d] != 3 or b.shape[d] != 3:
        raise RuntimeError(
            f"linalg.cross: inputs dimension {dim} must have length 3. Got {a.shape[d]} and "
            f"{b.shape[d]}"
        )
    broadcast_shape(a.shape, b.shape)
    return apply(LinalgCross, (input, other), d)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3), normal(3), dim=0),
        S(normal(2, 3), normal(2, 3), dim=1),
        S(normal(3, 2), normal(3, 1), 0),
    ],
    method=True,
    errors=lambda: [S(normal(2, 2), normal(2, 2), 1)],
    autocast=("", "widest"),
)
def cross(input: Tensor, other: Tensor, dim: int | None = None) -> Tensor:
    """The vector product along a dimension of size 3, by default the first such one.

    >>> import gradlite
    >>> x, y = gradlite.tensor([1.0, 0.0, 0.0]), gradlite.tensor([0.0, 1.0, 0.0])
    >>> gradlite.cross(x, y, dim=0)
    tensor([0., 0., 1.])
    """
    if dim is None:
        shape = input.array.shape
        dim = next((d for d, n in enumerate(shape) if n == 3), None)
        if dim is None:
            raise RuntimeError("no dimension of size 3 in input")
    return linalg_cross(input, other, dim=dim)


# ---------------------------------------------------------------------------- tensordot
@public(
    samples=lambda: [
        S(normal(2, 3, 4), normal(3, 4, 5)),
        S(normal(2, 3), normal(3, 4), 1),
        S(normal(2, 3), normal(4), 0),
        S(normal(2, 3, 4), normal(4, 2, 5), ([0, 2], [1, 0])),
        S(normal(2, 3), normal(2, 3), dims=([0, 1], [0, 1])),
        S(normal(2, 3, 4), normal(4, 5), ([-1], [0])),
    ],
    errors=lambda: [
        S(normal(2, 3), normal(3, 2), ([0, 1], [0, 1])),
        S(normal(2, 3), normal(3, 2), ([0], [0, 1])),
        S(normal(2, 3), normal(3, 2), -1),
    ],
    autocast=("", "widest"),
)
def tensordot(a: Tensor, b: Tensor, dims: Any = 2) -> Tensor:
    """Products summed over dimensions of both: the last ``dims`` of ``a`` with the first of
    ``b``, or the pairs of two lists.

    >>> import gradlite
    >>> gradlite.tensordot(gradlite.ones(2, 3), gradlite.ones(3, 4), 1).shape
    gradlite.Size([2, 4])
    """
    n, m = a.array.ndim, b.array.ndim
    if isinstance(dims, Tensor):
        dims = dims.tolist()
    if isinstance(dims, int):
        if dims < 0:
            raise RuntimeError(f"tensordot expects dims >= 0, but got dims={dims}")
        if dims > min(n, m):
            raise RuntimeError(f"tensordot expects dims < ndim_a or ndim_b, but got dims={dims}")
        first, second = list(range(n - dims, n)), list(range(dims))
    else:
        first, second = ([d] if isinstance(d, int) else list(d) for d in dims)
        if len(first) != len(second):
            raise RuntimeError("both dimension lists should have same length")
        first = [wrap_dim(d, n) for d in first]
        second = [wrap_dim(d, m) for d in second]
    for p, q in zip(first, second):
        if a.array.shape[p] == 1 != b.array.shape[q]:
            b = b.sum(q, keepdim=True, dtype=b.dtype)  # type: ignore[attr-defined]
        elif b.array.shape[q] == 1 != a.array.shape[p]:
            a = a.sum(p, keepdim=True, dtype=a.dtype)  # type: ignore[attr-defined]
        if a.array.shape[p] != b.array.shape[q]:
            raise RuntimeError(
                "contracted dimensions need to match, but first has size "
                f"{a.array.shape[p]} in dim {p} and second has size {b.array.shape[q]} in dim {q}"
            )
    rest, others = ([d for d in range(k) if d not in used] for k, used in ((n, first), (m, second)))
    if not rest and not others and n:
        return dot(a.permute(first).reshape(-1), b.permute(second).reshape(-1))  # type: ignore[attr-defined,no-any-return]
    size = int(np.prod([a.array.shape[d] for d in first], dtype=np.int64))
    rows, columns = [a.array.shape[d] for d in rest], [b.array.shape[d] for d in others]
    left: Any = a.permute(rest + first).reshape(int(np.prod(rows, dtype=np.int64)), size)  # type: ignore[attr-defined]
    right: Any = b.permute(second + others).reshape(size, int(np.prod(columns, dtype=np.int64)))  # type: ignore[attr-defined]
    return matmul(left, right).reshape(rows + columns)  # type: ignore[attr-defined,no-any-return]
