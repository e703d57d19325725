"""Sums with a product in them, elementwise: addcmul, addcdiv, lerp."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.kernels import NoKernelError
from gradlite.grad_mode import NO_GRAD, current_mode
from gradlite.ops import together
from gradlite.ops.binary import sum_to
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.gather import broadcast_shape, check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.inplace import assign, check_inplace
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.natively import launcher
from gradlite.ops.op import Elementwise, type_name
from gradlite.ops.operands import as_number, promote
from gradlite.ops.pointwise import slopes_of
from gradlite.ops.samples import S, normal, positive, uniform
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "addcdiv",
    "addcmul",
    "lerp",
]

# Of a factor that stands in front of its tensors.
LEGACY = (
    "This overload of {0} is deprecated:\n\t{0}(Number {1}, Tensor {2})\nConsider using one of the "
    "following signatures instead:\n\t{0}(Tensor {2}, *, Number {1} = 1)"
)


class Addcmul(Elementwise):
    """x + value * a * b."""

    reads = ((), (2,), (1,))
    native_from = 1 << 13

    def forward(xp: Any, x: Any, a: Any, b: Any, value: Any) -> Any:
        product = xp.multiply(a, b)
        return x + (product if value == 1 else product * value)

    def write(xp: Any, out: Any, a: Any, b: Any, value: Any) -> None:
        product = xp.multiply(a, b)
        if value != 1:
            product *= value
        out += product

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        (value,) = ctx.attrs
        shapes = ctx.shapes
        first = sum_to(F, grad, tuple(shapes[0])) if ctx.edges[0] is not None else None
        second = third = None
        if ctx.edges[1] is not None:
            second = sum_to(F, grad * (b * value), tuple(shapes[1]))
        if ctx.edges[2] is not None:
            third = sum_to(F, grad * (a * value), tuple(shapes[2]))
        return first, second, third

    def fused_forward(K: Any, x: Any, a: Any, b: Any, value: Any) -> Any:
        return together.forward(K, "addcmul_forward", (x, a, b), float(value))

    def fused_write(K: Any, out: Any, a: Any, b: Any, value: Any) -> Any:
        return together.write(K, "addcmul_forward", out, (a, b), float(value))

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return _gradients(K, "addcmul_backward", ctx, grad)


class Addcdiv(Elementwise):
    """x + value * a / b."""

    reads = ((), (2,), (1, 2))
    native_from = 1 << 13

    def forward(xp: Any, x: Any, a: Any, b: Any, value: Any) -> Any:
        quotient = xp.true_divide(a, b)
        return x + (quotient if value == 1 else quotient * value)

    def write(xp: Any, out: Any, a: Any, b: Any, value: Any) -> None:
        quotient = xp.true_divide(a, b)
        if value != 1:
            quotient *= value
        out += quotient

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        (value,) = ctx.attrs
        shapes = ctx.shapes
        first = sum_to(F, grad, tuple(shapes[0])) if ctx.edges[0] is not None else None
        second = third = None
        if ctx.edges[1] is not None:
            second = sum_to(F, grad * (value / b), tuple(shapes[1]))
        if ctx.edges[2] is not None:
            third = sum_to(F, -grad * (a * value / (b * b)), tuple(shapes[2]))
        return first, second, third

    def fused_forward(K: Any, x: Any, a: Any, b: Any, value: Any) -> Any:
        return together.forward(K, "addcdiv_forward", (x, a, b), float(value))

    def fused_write(K: Any, out: Any, a: Any, b: Any, value: Any) -> Any:
        return together.write(K, "addcdiv_forward", out, (a, b), float(value))

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        return _gradients(K, "addcdiv_backward", ctx, grad)


def _gradients(K: Any, kernel: str, ctx: Any, grad: Any) -> Any:
    """The gradients of an op above, of which that of x is one that comes in, summed."""
    own, *shapes = together.wanted_shapes(ctx, grad)
    first = None if own is None else sum_to(NAMESPACES[grad.__class__], grad, tuple(own))
    if shapes == [None, None]:
        return first, None, None
    value = float(ctx.attrs[0])
    found = together.gradients(K, kernel, grad, ctx.saved, tuple(shapes), value)
    return found if found is NotImplemented else (first, *found)


class Lerp(Elementwise):
    """start + weight * (end - start), from the nearer end."""

    reads = ((), ())
    grad_name = "LerpBackward0"
    native_from = 1 << 13

    def forward(xp: Any, start: Any, end: Any, weight: Any) -> Any:
        apart = end - start
        return start + apart * weight if abs(weight) < 0.5 else end - apart * (1 - weight)

    def write(xp: Any, out: Any, end: Any, weight: Any) -> None:
        apart = end - out
        if abs(weight) < 0.5:
            apart *= weight
            out += apart
        else:
            apart *= 1 - weight
            xp.subtract(end, apart, out=out)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (weight,) = ctx.attrs
        left = right = None
        if ctx.edges[0] is not None:
            left = sum_to(F, grad * (1 - weight), tuple(ctx.shapes[0]))
        if ctx.edges[1] is not None:
            right = sum_to(F, grad * weight, tuple(ctx.shapes[1]))
        return left, right

    def fused_forward(K: Any, start: Any, end: Any, weight: Any) -> Any:
        return together.forward(K, "lerp_forward", (start, end, None), float(weight))

    def fused_write(K: Any, out: Any, end: Any, weight: Any) -> Any:
        return together.write(K, "lerp_forward", out, (end, None), float(weight))

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        shapes = together.wanted_shapes(ctx, grad)
        if None in shapes:
            return NotImplemented  # which is one product
        return slopes_of(K, "lerp", grad, (), shapes, float(ctx.attrs[0]))


class LerpTensor(Elementwise):
    """`Lerp` with a tensor of weights."""

    reads = ((2,), (2,), (0, 1))
    grad_name = "LerpBackward1"
    native_from = 1 << 12

    def forward(xp: Any, start: Any, end: Any, weight: Any) -> Any:
        apart = end - start
        near = xp.abs(weight) < 0.5
        return xp.where(near, start + apart * weight, end - apart * (1 - weight))

    def write(xp: Any, out: Any, end: Any, weight: Any) -> None:
        out[...] = LerpTensor.forward(xp, out, end, weight)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        start, end, weight = ctx.saved
        shapes = ctx.shapes
        first = second = third = None
        if ctx.edges[0] is not None:
            first = sum_to(F, grad * (1 - weight), tuple(shapes[0]))
        if ctx.edges[1] is not None:
            second = sum_to(F, grad * weight, tuple(shapes[1]))
        if ctx.edges[2] is not None:
            third = sum_to(F, grad * (end - start), tuple(shapes[2]))
        return first, second, third

    def fused_forward(K: Any, start: Any, end: Any, weight: Any) -> Any:
        return together.forward(K, "lerp_forward", (start, end, weight), 0.0)

    def fused_write(K: Any, out: Any, end: Any, weight: Any) -> Any:
        return together.write(K, "lerp_forward", out, (end, weight), 0.0)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        shapes = together.wanted_shapes(ctx, grad)
        return together.gradients(K, "lerp_backward", grad, ctx.saved, shapes)


Call = tuple[Any, tuple[Any, ...], tuple[Any, ...]]


def _three(name: str, op: Any, input: Tensor, a: Any, b: Any, value: Any) -> Call:
    check_tensor(name, "tensor1", 2, a)
    check_tensor(name, "tensor2", 3, b)
    same_device(input, a, b)
    value = as_number(value.item() if isinstance(value, Tensor) else value)
    x, y, z = input.array, a.array, b.array
    if not x.dtype == y.dtype == z.dtype:
        common = dtypes.result_dtype([x, y, z])
        input, a, b = (promote(t, common) for t in (input, a, b))
        x = input.array
    if x.dtype not in dtypes.FLOATING:
        value = int(value)
    if not x.shape == y.shape == z.shape:
        broadcast_shape(broadcast_shape(x.shape, y.shape), z.shape)
    return op, (input, a, b), (value,)


def _addcmul(input: Tensor, tensor1: Any, tensor2: Any, *legacy: Any, value: Any = 1) -> Call:
    if legacy:
        warnings.warn(LEGACY.format("addcmul", "value", "tensor1, Tensor tensor2"), stacklevel=4)
        value, tensor1, tensor2 = tensor1, tensor2, *legacy
    return _three("addcmul", Addcmul, input, tensor1, tensor2, value)


def _addcdiv(input: Tensor, tensor1: Any, tensor2: Any, *legacy: Any, value: Any = 1) -> Call:
    if legacy:
        warnings.warn(LEGACY.format("addcdiv", "value", "tensor1, Tensor tensor2"), stacklevel=4)
        value, tensor1, tensor2 = tensor1, tensor2, *legacy
    if all(
        isinstance(t, Tensor) and t.array.dtype not in dtypes.FLOATING for t in (tensor1, tensor2)
    ):
        raise RuntimeError(
            "Integer division with addcdiv is no longer supported, and in a future  release "
            "addcdiv will perform a true division of tensor1 and tensor2. Convert them to a "
            "floating dtype, or use input + value * trunc(tensor1 / tensor2)."
        )
    return _three("addcdiv", Addcdiv, input, tensor1, tensor2, value)


def _lerp(input: Tensor, end: Any, weight: Any) -> Call:
    check_tensor("lerp", "end", 2, end)
    same_device(input, end)
    x, y = input.array, end.array
    if x.dtype != y.dtype:
        raise RuntimeError(f"expected dtype {_name(x)} for `end` but got dtype {_name(y)}")
    if x.dtype not in dtypes.FLOATING:
        raise NotImplementedError(
            f"\"lerp_kernel_scalar\" not implemented for '{type_name(x.dtype)}'"
        )
    shape = broadcast_shape(x.shape, y.shape)
    if not isinstance(weight, Tensor):
        return Lerp, (input, end), (as_number(weight),)
    if weight.array.dtype != x.dtype:
        raise RuntimeError(
            f"expected dtype {_name(x)} for `weight` but got dtype {_name(weight.array)}"
        )
    broadcast_shape(shape, weight.array.shape)
    return LerpTensor, (input, end, weight), ()


def _name(array: Any) -> str:
    return type_name(array.dtype).lower()


def _in_place(call: Callable[..., Call], name: str) -> Any:
    """The in-place form: into the array itself when nothing has to be recorded."""

    @on_its_device
    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(self)
        op, inputs, attrs = call(self, *args, **kwargs)
        array = self.array
        rest = [t.array for t in inputs[1:]]
        halves = array.dtype in dtypes.HALVES and NAMESPACES[array.__class__].launcher is None
        if (
            (current_mode() & NO_GRAD or not any(t.requires_grad for t in inputs))
            and inputs[0] is self
            and not halves  # whose op computes in single precision
            and all(broadcast_shape(array.shape, r.shape) == array.shape for r in rest)
        ):
            F = NAMESPACES[array.__class__]
            if not _written(F, op, array, (*rest, *attrs)):
                op.write(F.xp, array, *rest, *attrs)
            self._bump()
            return self
        return assign(self, apply(op, inputs, *attrs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place version of `{name[:-1]}`."
    return method


def _written(F: Any, op: Any, array: Any, rest: tuple[Any, ...]) -> bool:
    """Whether a kernel has written an op's result into an array; else nothing was done."""
    K = F.launcher or launcher(op, F.xp, array)
    try:
        return K is not None and op.fused_write(K, array, *rest) is not NotImplemented
    except NoKernelError:
        return False


def _run(call: Call) -> Tensor:
    op, inputs, attrs = call
    return apply(op, inputs, *attrs)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4), normal(3, 4)),
        S(normal(3, 4), normal(4), normal(3, 1), value=-0.5),
        S(normal(4), normal(3, 4), normal(), value=2),
        S(np.arange(3), np.arange(3), np.arange(3), value=2),
    ],
    method=True,
    inplace=True,
    errors=lambda: [S(normal(3), normal(2), normal(3)), S(normal(3), normal(3), 2.0)],
    autocast=("", "widest"),
)
def addcmul(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *legacy: Any, value: Any = 1
) -> Tensor:
    """``input + value * tensor1 * tensor2``, broadcast.

    >>> import gradlite
    >>> x = gradlite.tensor([2.0, 3.0])
    >>> gradlite.addcmul(gradlite.ones(2), x, x, value=0.5)
    tensor([3.0000, 5.5000])
    """
    return _run(_addcmul(input, tensor1, tensor2, *legacy, value=value))


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4), positive(3, 4)),
        S(normal(3, 4), normal(4), positive(3, 1), value=-0.5),
        S(normal(4), normal(3, 4), positive(), value=2),
    ],
    method=True,
    inplace=True,
    errors=lambda: [S(np.arange(3), np.arange(3), np.arange(3))],
    autocast=("", "widest"),
)
def addcdiv(
    input: Tensor, tensor1: Tensor, tensor2: Tensor, *legacy: Any, value: Any = 1
) -> Tensor:
    """``input + value * tensor1 / tensor2``, broadcast.

    >>> import gradlite
    >>> x = gradlite.tensor([2.0, 3.0])
    >>> gradlite.addcdiv(gradlite.ones(2), x, x, value=0.5)
    tensor([1.5000, 1.5000])
    """
    return _run(_addcdiv(input, tensor1, tensor2, *legacy, value=value))


@public(
    samples=lambda: [
        S(normal(3, 4), normal(3, 4), 0.25),
        S(normal(3, 4), normal(4), 0.75),
        S(normal(3, 4), normal(3, 4), uniform(0, 1, 4)),
        S(normal(3), normal(3), uniform(0, 1)),
        S(normal(3), normal(3), 1.5),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(3), normal(3).astype(np.float32), 0.5),
        S(np.arange(3), np.arange(3), 0.5),
        S(normal(3), normal(2), 0.5),
    ],
)
def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """``input + weight * (end - input)``, broadcast; the weight is a number or a tensor.

    >>> import gradlite
    >>> gradlite.lerp(gradlite.tensor([0.0, 10.0]), gradlite.tensor([1.0, 20.0]), 0.25)
    tensor([ 0.2500, 12.5000])
    """
    return _run(_lerp(input, end, weight))


def _attach() -> None:
    t: Any = Tensor
    t.addcmul_ = _in_place(_addcmul, "addcmul_")
    t.addcdiv_ = _in_place(_addcdiv, "addcdiv_")
    t.lerp_ = _in_place(_lerp, "lerp_")


_attach()
