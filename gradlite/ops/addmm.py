"""Sums with a product of matrices in them: addmm, baddbmm, addbmm, addmv, addr."""

from __future__ import annotations

from typing import Any

from gradlite.dtypes import category, result_dtype
from gradlite.ops import products
from gradlite.ops.binary import sum_to
from gradlite.ops.choose import where
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.gather import check_tensor
from gradlite.ops.matmul import bmm
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, describe, type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "addbmm",
    "addmm",
    "addmv",
    "addr",
    "baddbmm",
]


class Baddbmm(Op):
    """beta * x + alpha * a @ b, for batches of matrices and for a matrix and a vector."""

    reads = ((), (2,), (1,))
    multiplies = True

    def fused_forward(K: Any, x: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Any:
        if b.ndim == 1:
            out = K.gemm.addmm(x[..., None], a, b[:, None], beta, alpha)
            return out if out is NotImplemented else out[:, 0]
        return K.gemm.addmm(x, a, b, beta, alpha)

    def forward(xp: Any, x: Any, a: Any, b: Any, beta: Any, alpha: Any) -> Any:
        if a.ndim == b.ndim == 2:
            if alpha == beta == 1 and x.shape == b.shape[1:]:
                return products.mm(a, b, x)
            out = products.mm(a, b)
        else:
            out = xp.matmul(a, b)
        if alpha != 1:
            out *= out.dtype.type(alpha)
        if beta != 0:  # then NaNs in x do not matter
            out += x if beta == 1 else x * x.dtype.type(beta)
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        beta, alpha = ctx.attrs
        first = second = third = None
        if ctx.edges[0] is not None:
            first = sum_to(F, grad if beta == 1 else grad * beta, tuple(ctx.shapes[0]))
        scaled = grad if alpha == 1 else grad * alpha
        if ctx.edges[1] is not None:
            if b.ndim == 1:
                second = scaled.reshape((-1, 1)) * b
            else:
                second = F.matmul(scaled, b.swapaxes(-1, -2))
        if ctx.edges[2] is not None:
            transposed = a.swapaxes(-1, -2)
            third = F.mv(transposed, scaled) if grad.ndim == 1 else F.matmul(transposed, scaled)
        return first, second, third


class Addmv(Baddbmm):
    pass


class Addmm(Baddbmm):
    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        a, b = ctx.saved
        if ctx.attrs != (1, 1) or len(ctx.shapes[0]) != 1 or ctx.edges[0] is None or a is None:
            return NotImplemented
        # A linear layer with its weight as (in, out): the bias's gradient comes with the weight's.
        third, first = K.gemm.with_column_sums(a.T, grad)
        if third is NotImplemented:
            return third
        if first is None or first.shape != ctx.shapes[0]:
            first = sum_to(NAMESPACES[grad.__class__], grad, ctx.shapes[0])
        return first, None if b is None else products.product(grad, b.T), third


def _same_dtype(name: str, *tensors: Any) -> None:
    for place, t in enumerate(tensors):
        check_tensor(name, ("input", "tensor1", "tensor2")[place], place + 1, t)
    same_device(*tensors)
    for t in tensors[1:]:
        if t.array.dtype != tensors[0].array.dtype:
            raise RuntimeError(
                f"{name}: expected all tensors to have the same dtype, but got "
                f"{type_name(tensors[0].array.dtype).lower()} and "
                f"{type_name(t.array.dtype).lower()}"
            )


def _with(input: Tensor, product: Any, beta: Any, alpha: Any) -> Tensor:
    """``beta * input + alpha * product``, of which a factor of 0 leaves no NaN of the input."""
    _check_expands(input.array, product.array.shape)
    common = result_dtype([input.array, product.array])
    if category(common) < 2:
        for name, factor in (("beta", beta), ("alpha", alpha)):
            if isinstance(factor, float):
                raise RuntimeError(
                    f"For integral input tensors, argument {name} must not be a floating point "
                    "number."
                )
    if category(common) == 0:
        beta, alpha = bool(beta), bool(alpha)
    if beta == 0:
        nowhere = NAMESPACES[input.array.__class__].xp.zeros((), bool)
        input = where(wrap(nowhere), input, 0)
    return input * beta + product * alpha  # type: ignore[operator,no-any-return]


def _check_expands(x: Any, shape: tuple[int, ...]) -> None:
    for d in range(1, x.ndim + 1):
        if x.shape[-d] not in (1, shape[-d]):
            raise RuntimeError(
                f"The expanded size of the tensor ({shape[-d]}) must match the existing size "
                f"({x.shape[-d]}) at non-singleton dimension {len(shape) - d}.  Target sizes: "
                f"{list(shape)}.  Tensor sizes: {list(x.shape)}"
            )


@public(
    samples=lambda: [
        S(normal(2, 3, 5), normal(2, 3, 4), normal(2, 4, 5)),
        S(normal(5), normal(2, 3, 4), normal(2, 4, 5), beta=0.5, alpha=2),
        S(normal(2, 1, 1), normal(2, 3, 4), normal(2, 4, 5), alpha=-1),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(2), normal(2, 3, 4), normal(2, 4, 5)),
        S(normal(5), normal(2, 3, 4), normal(2, 3, 5)),
    ],
    autocast="lower",
)
def baddbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``beta * input + alpha * batch1 @ batch2`` for batches of matrices.

    >>> import gradlite
    >>> a, b = gradlite.ones(1, 1, 3), gradlite.ones(1, 3, 2)
    >>> gradlite.baddbmm(gradlite.ones(2), a, b, alpha=2)
    tensor([[[7., 7.]]])
    """
    dtypes = [t.array.dtype for t in (input, batch1, batch2)]
    if not dtypes[0] == dtypes[1] == dtypes[2]:
        names = [type_name(d).lower() for d in dtypes]
        raise RuntimeError(
            f"Input dtypes must be the same, got: input {names[0]}, batch1: {names[1]}, "
            f"batch2: {names[2]}"
        )
    a, b = batch1.array, batch2.array
    if a.ndim != 3:
        raise RuntimeError("batch1 must be a 3D tensor")
    if b.ndim != 3:
        raise RuntimeError("batch2 must be a 3D tensor")
    if a.shape[0] != b.shape[0] or a.shape[2] != b.shape[1]:
        raise RuntimeError(
            "Expected size for first two dimensions of batch2 tensor to be: "
            f"[{a.shape[0]}, {a.shape[2]}] but got: [{b.shape[0]}, {b.shape[1]}]."
        )
    if input.array.ndim > 3:
        raise RuntimeError(f"baddbmm: input has {input.array.ndim} dimensions, at most 3 fit")
    _check_expands(input.array, (a.shape[0], a.shape[1], b.shape[2]))
    return apply(Baddbmm, (input, batch1, batch2), beta, alpha)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(2, 4), normal(2, 3), normal(3, 4)),
        S(normal(4), normal(2, 3), normal(3, 4)),
        S(normal(4), normal(2, 3), normal(3, 4), beta=0.5, alpha=2),
        S(normal(2, 1), normal(2, 3), normal(3, 4), alpha=-1),
        S(normal(1), normal(2, 0), normal(0, 4)),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(2), normal(2, 3), normal(3, 4)),
        S(normal(1, 1, 4), normal(2, 3), normal(3, 4)),
        S(normal(4), normal(2, 3), normal(4, 4)),
        S(normal(4), normal(3), normal(3, 4)),
        S(normal(4), normal(2, 3), normal(3)),
    ],
    autocast="lower",
)
def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * mat1 @ mat2``; the input broadcasts.

    >>> import gradlite
    >>> gradlite.addmm(gradlite.ones(1), gradlite.ones(1, 2), gradlite.ones(2, 1))
    tensor([[3.]])

    Raises:
        RuntimeError: not matrices, sizes that do not fit, or different dtypes.
    """
    for place, name in enumerate(("input", "mat1", "mat2")):
        check_tensor("addmm", name, place + 1, (input, mat1, mat2)[place])
    same_device(input, mat1, mat2)
    x, a, b = input.array, mat1.array, mat2.array
    for name, matrix in (("mat1", a), ("mat2", b)):
        if matrix.ndim != 2:
            raise RuntimeError(f"{name} must be a matrix, got {matrix.ndim}-D tensor")
    for name, matrix in (("mat1", a), ("self", x)):
        if matrix.dtype != b.dtype:
            raise RuntimeError(
                f"{name} and mat2 must have the same dtype, but got {type_name(matrix.dtype)} and "
                f"{type_name(b.dtype)}"
            )
    (n, m), (k, p) = a.shape, b.shape
    if m != k:
        raise RuntimeError(f"mat1 and mat2 shapes cannot be multiplied ({n}x{m} and {k}x{p})")
    if x.ndim > 2:
        raise RuntimeError(
            f"expand({describe(x)}, size=[{n}, {p}]): the number of sizes provided (2) must be "
            f"greater or equal to the number of dimensions in the tensor ({x.ndim})"
        )
    _check_expands(x, (n, p))
    return apply(Addmm, (input, mat1, mat2), beta, alpha)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(2), normal(2, 3), normal(3)),
        S(normal(1), normal(2, 3), normal(3), beta=0.5, alpha=2),
        S(normal(), normal(2, 3), normal(3)),
    ],
    method=True,
    inplace=True,
    errors=lambda: [S(normal(3), normal(2, 3), normal(3)), S(normal(2), normal(2, 3), normal(2))],
    autocast=("", "lower"),
)
def addmv(input: Tensor, mat: Tensor, vec: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input + alpha * mat @ vec``.

    >>> import gradlite
    >>> gradlite.addmv(gradlite.ones(2), gradlite.ones(2, 3), gradlite.ones(3), beta=2)
    tensor([5., 5.])
    """
    _same_dtype("addmv", input, mat, vec)
    x, a, b = input.array, mat.array, vec.array
    if a.ndim != 2 or b.ndim != 1 or x.ndim > 1:
        raise RuntimeError(f"vector + matrix @ vector expected, got {x.ndim}, {a.ndim}, {b.ndim}")
    if a.shape[1] != b.shape[0] or x.size not in (1, a.shape[0]):
        raise RuntimeError(
            f"size mismatch, got input ({x.size}), mat ({a.shape[0]}x{a.shape[1]}), "
            f"vec ({b.shape[0]})"
        )
    return apply(Addmv, (input, mat, vec), beta, alpha)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3, 5), normal(2, 3, 4), normal(2, 4, 5)),
        S(normal(5), normal(2, 3, 4), normal(2, 4, 5), beta=0.5, alpha=2),
    ],
    method=True,
    autocast="lower",
)
def addbmm(
    input: Tensor, batch1: Tensor, batch2: Tensor, *, beta: Any = 1, alpha: Any = 1
) -> Tensor:
    """``beta * input + alpha * sum of batch1[i] @ batch2[i]``.

    >>> import gradlite
    >>> a, b = gradlite.ones(2, 1, 3), gradlite.ones(2, 3, 2)
    >>> gradlite.addbmm(gradlite.ones(2), a, b)
    tensor([[7., 7.]])
    """
    product: Any = bmm(batch1, batch2)
    if category(product.array.dtype) < 2:
        product, beta, alpha = product.sum(0, dtype=product.dtype), int(beta), int(alpha)
    else:
        product = product.sum(0)
    return _with(input, product, beta, alpha)


@public(
    samples=lambda: [
        S(normal(2, 3), normal(2), normal(3)),
        S(normal(3), normal(2), normal(3), beta=0.5, alpha=2),
    ],
    method=True,
    inplace=True,
    autocast=("", "lower"),
)
def addr(input: Tensor, vec1: Tensor, vec2: Tensor, *, beta: Any = 1, alpha: Any = 1) -> Tensor:
    """``beta * input`` plus ``alpha`` times the outer product of two vectors.

    >>> import gradlite
    >>> gradlite.addr(gradlite.zeros(2, 2), gradlite.tensor([1.0, 2.0]), gradlite.ones(2))
    tensor([[1., 1.],
            [2., 2.]])
    """
    for place, vector in ((1, vec1), (2, vec2)):
        if vector.array.ndim != 1:
            raise RuntimeError(
                f"addr: Expected 1-D argument vec{place}, but got {vector.array.ndim}-D"
            )
    product: Any = vec1.reshape(-1, 1) * vec2  # type: ignore[attr-defined]
    return _with(input, product, beta, alpha)
