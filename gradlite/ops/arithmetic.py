"""Arithmetic and comparison of two operands: tensors, NumPy arrays or Python numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import loud, quiet
from gradlite.grad_mode import INFERENCE, current_mode
from gradlite.graph import record
from gradlite.ops.dispatch import INFERENCE_SAVED, OUT, apply, same_device
from gradlite.ops.inplace import assign, check_inplace, refuse_overlap
from gradlite.ops.namespaces import NAMESPACES, OPS
from gradlite.ops.op import Op
from gradlite.ops.samples import S, binary, distinct, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor, gradient_edge, wrap

__all__ = [
    "add",
    "div",
    "divide",
    "eq",
    "floor_divide",
    "ge",
    "greater",
    "greater_equal",
    "gt",
    "le",
    "less",
    "less_equal",
    "lt",
    "maximum",
    "minimum",
    "mul",
    "multiply",
    "ne",
    "not_equal",
    "pow",
    "remainder",
    "rsub",
    "sub",
    "subtract",
    "true_divide",
]


Number = int | float | bool
_new = object.__new__


# ------------------------------------------------------------------------- conversion
class ToCopy(Op):
    """A change of dtype."""

    has_aux = True
    used_up = False

    def forward(xp: Any, x: Any, numpy_dtype: Any) -> Any:
        return x.astype(numpy_dtype), x.dtype

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.to_copy(grad, ctx.aux),)


def cast(input: Tensor, numpy_dtype: Any) -> Tensor:
    """The tensor in another dtype; itself when it has it already."""
    if input.array.dtype == numpy_dtype:
        return input
    return apply(ToCopy, (input,), np.dtype(numpy_dtype))  # type: ignore[no-any-return]


# --------------------------------------------------------------------------- machinery
def sum_to(F: Any, grad: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient over the dimensions along which its operand was broadcast."""
    if tuple(grad.shape) == shape:
        return grad
    extra = len(grad.shape) - len(shape)
    dims = tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(shape) if n == 1 and grad.shape[extra + i] != 1
    )
    if dims:
        grad = F.sum(grad, dims, False)
    return grad.reshape(shape)


def _unbroadcast(ctx: Any, F: Any, left: Any, right: Any) -> tuple[Any, Any]:
    shapes = ctx.shapes
    if shapes is None:
        return left, right
    if left is not None:
        left = sum_to(F, left, shapes[0])
    if right is not None:
        right = sum_to(F, right, shapes[1])
    return left, right


def as_number(value: Any) -> Any:
    """A Python number as it is; NumPy's scalars as Python numbers."""
    return value.item() if isinstance(value, np.generic) else value


def operand(value: Any) -> Any:
    """What the binary ops take besides Tensors: Python numbers and NumPy or CuPy arrays."""
    cls = value.__class__
    if cls is float or cls is int or cls is bool or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) or hasattr(value, "__cuda_array_interface__"):
        dtypes.from_numpy_dtype(value.dtype)
        return wrap(value)
    if isinstance(value, (float, int)):
        return value
    raise TypeError(f"unsupported operand: expected a Tensor or a number, not {cls.__name__}")


def promoted(a: Any, b: Any, *, true_division: bool = False) -> tuple[Any, Any]:
    """Both operands in the dtype that PyTorch computes in (Python numbers stay numbers)."""
    arrays = [x.array if isinstance(x, Tensor) else x for x in (a, b)]
    common = dtypes.result_dtype(arrays)
    if true_division and dtypes.category(common) < 2:
        common = dtypes.get_default_dtype().numpy
    a = cast(a, common) if isinstance(a, Tensor) else a
    b = cast(b, common) if isinstance(b, Tensor) else b
    if not isinstance(a, Tensor):
        a = wrap(NAMESPACES[b.array.__class__].xp.asarray(a, dtype=common))
    return a, b


def binary_op(op: Any, a: Any, b: Any, *attrs: Any, true_division: bool = False) -> Tensor:
    """Run a `Binary` op on two operands, at least one of them a Tensor."""
    if isinstance(a, Tensor):
        x = a.array
        if isinstance(b, Tensor):
            y = b.array
            if x.dtype != y.dtype:
                same_device_or_scalar(a, b)
                a, b = promoted(a, b)
                x, y = a.array, b.array
            if x.__class__ is not y.__class__:
                a, b = same_device_or_scalar(a, b)
                x, y = a.array, b.array
            other = b
            if true_division and x.dtype not in dtypes.FLOATING:
                a, b = promoted(a, b, true_division=True)
                x, y, other = a.array, b.array, b
        else:
            if b.__class__ is not float and b.__class__ is not int:
                b = operand(b)
                if isinstance(b, Tensor):
                    return binary_op(op, a, b, *attrs, true_division=true_division)
            if x.dtype not in dtypes.FLOATING:
                a, b = promoted(a, b, true_division=true_division)
                x = a.array
            y, other = b, None
    else:
        a = operand(a)
        if not isinstance(a, Tensor):
            if not isinstance(b, Tensor):
                b = wrap(np.asarray(operand(b)))
            a, b = promoted(a, b, true_division=true_division)
        return binary_op(op, a, b, *attrs, true_division=true_division)
    F = NAMESPACES[x.__class__]
    token = quiet()
    try:
        out = op.forward(F.xp, x, y, *attrs)
    except ValueError:
        raise RuntimeError(_mismatch(x, y)) from None
    finally:
        loud(token)
    if out.__class__ not in NAMESPACES:
        out = F.xp.asarray(out)
    result = _new(Tensor)
    result.array = out
    result._edge = result._grad = result._view = None
    result._requires_grad = False
    mode = current_mode()
    result._counter = version = [0] if mode < INFERENCE else None
    if mode == 0:
        p = gradient_edge(a) if a._requires_grad or a._view is not None else None
        q = (
            gradient_edge(other)
            if other is not None and (other._requires_grad or other._view is not None)
            else None
        )
        if p is not None or q is not None:
            saved: Any = ()
            versions: Any = None
            if op.saves:
                saved, versions = _saved(op, p, q, a, other, x, y, out, version)
            shape = out.shape
            if x.shape == shape and (other is None or y.shape == shape):
                shapes = None
            else:
                shapes = (x.shape, y.shape if other is not None else ())
            result._edge = record(op, (p, q), saved, versions, attrs, F, None, shapes)
            result._requires_grad = True
    return result


def _mismatch(x: Any, y: Any) -> str:
    """PyTorch's words for shapes that do not broadcast."""
    shapes = x.shape, y.shape
    n = max(len(shape) for shape in shapes)
    a, b = ((1,) * (n - len(shape)) + shape for shape in shapes)
    for dim in range(n - 1, -1, -1):
        if a[dim] != b[dim] and a[dim] != 1 and b[dim] != 1:
            return (
                f"The size of tensor a ({a[dim]}) must match the size of tensor b ({b[dim]}) at "
                f"non-singleton dimension {dim}"
            )
    return f"shapes {list(shapes[0])} and {list(shapes[1])} cannot be broadcast together"


def _saved(
    op: Any, p: Any, q: Any, a: Any, b: Any, x: Any, y: Any, out: Any, version: Any
) -> tuple[Any, Any]:
    """Saved values and their versions; a Python number has none."""
    saved: list[Any] = []
    versions: list[Any] = []
    for position in op.plan((p is not None, q is not None)):
        if position is None:
            saved.append(None)
            versions.append(None)
            continue
        if position == OUT:
            value, counter = out, version
        else:
            source = b if position else a
            value = y if position else x
            if source is None:
                saved.append(value)
                versions.append(None)
                continue
            counter = source._counter
            if counter is None:
                raise RuntimeError(INFERENCE_SAVED)
        saved.append(value)
        versions.append((counter, counter[0]))
    return tuple(saved), tuple(versions)


def same_device_or_scalar(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both on one device: a 0-d CPU tensor may meet a CUDA tensor, as in PyTorch."""
    if a.array.__class__ is b.array.__class__:
        return a, b
    for scalar, other in ((a, b), (b, a)):
        if scalar.array.ndim == 0 and scalar.is_cpu:
            moved = apply(OPS["to_device"], (scalar,), other.device, True)
            return (moved, b) if scalar is a else (a, moved)
    same_device(a, b)
    return a, b


class Binary(Op):
    """Base of the two-operand ops; the rule of a subclass is `partial`, before unbroadcasting."""

    reads: tuple[tuple[int, ...], ...] = ((), ())

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        raise NotImplementedError


class Add(Binary):
    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.add(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return _unbroadcast(ctx, F, grad, grad if ctx.edges[1] is not None else None)


class Sub(Binary):
    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.subtract(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return _unbroadcast(ctx, F, grad, -grad if ctx.edges[1] is not None else None)


class Rsub(Binary):
    grad_name = "RsubBackward1"

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.subtract(b, a)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = -grad if ctx.edges[0] is not None else None
        return _unbroadcast(ctx, F, left, grad)


class AddScaled(Binary):
    """a + alpha b."""

    grad_name = "AddBackward0"

    def forward(xp: Any, a: Any, b: Any, alpha: Any) -> Any:
        return xp.add(a, b * alpha)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        right = grad * ctx.attrs[0] if ctx.edges[1] is not None else None
        return _unbroadcast(ctx, F, grad, right)


class SubScaled(Binary):
    """a - alpha b."""

    grad_name = "SubBackward0"

    def forward(xp: Any, a: Any, b: Any, alpha: Any) -> Any:
        return xp.subtract(a, b * alpha)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        right = grad * -ctx.attrs[0] if ctx.edges[1] is not None else None
        return _unbroadcast(ctx, F, grad, right)


class Mul(Binary):
    reads = ((1,), (0,))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.multiply(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return _unbroadcast(
            ctx, F, None if b is None else grad * b, None if a is None else grad * a
        )


class Div(Binary):
    reads = ((1,), (0, 1))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.true_divide(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        left = grad / b
        right = -left * (a / b) if ctx.edges[1] is not None else None
        return _unbroadcast(ctx, F, left if ctx.edges[0] is not None else None, right)


class Pow(Binary):
    """x ** y; d/dx = y x**(y-1), 0 where y is 0; d/dy = x**y log x, 0 where x = 0 and y >= 0."""

    reads = ((0, 1), (0, 1, OUT))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        if b.__class__ is int and b == 2:
            return xp.multiply(a, a)
        return xp.power(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b, out = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            if hasattr(b, "shape"):
                zero = b == 0
                left = grad * F.where(zero, F.zeros(out_shape(a, b), a), b * a ** (b - 1))
            elif b == 0:
                left = grad * 0
            else:
                left = grad * (2 * a if b == 2 else b * a ** (b - 1))
        if ctx.edges[1] is not None:
            masked = (a == 0) & (b >= 0)
            shape = out_shape(a, b)
            safe = F.where(masked, F.zeros(shape, b) + 1, a)
            right = grad * F.where(masked, F.zeros(shape, b), out * F.log(safe))
        return _unbroadcast(ctx, F, left, right)


def out_shape(a: Any, b: Any) -> tuple[int, ...]:
    """The broadcast shape of two arrays or Tensors, either possibly a Python number."""
    return np.broadcast_shapes(getattr(a, "shape", ()), getattr(b, "shape", ()))


class DivFloor(Binary):
    """floor(a / b); its gradient is 0."""

    grad_name = "DivBackward2"

    def forward(xp: Any, a: Any, b: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            return xp.floor_divide(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = F.zeros(grad.shape, grad) if ctx.edges[0] is not None else None
        right = F.zeros(grad.shape, grad) if ctx.edges[1] is not None else None
        return _unbroadcast(ctx, F, left, right)


class DivTrunc(DivFloor):
    """a / b without its fraction; its gradient is 0."""

    grad_name = "DivBackward2"

    def forward(xp: Any, a: Any, b: Any) -> Any:
        with np.errstate(divide="ignore", invalid="ignore"):
            if a.dtype.kind == "f":
                return xp.trunc(xp.true_divide(a, b))
            quotient = xp.abs(a) // xp.abs(b)
            return xp.where((a < 0) != (b < 0), -quotient, quotient).astype(a.dtype)


class FloorDivide(DivFloor):
    """`DivFloor`, for which PyTorch has no gradient."""

    grad_name = "NotImplemented"

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        raise RuntimeError("derivative for aten::floor_divide is not implemented")


class PowTensor(Pow):
    """`Pow` with a tensor as exponent."""

    grad_name = "PowBackward1"


class PowOfNumber(Pow):
    """`Pow` of a Python number."""

    grad_name = "PowBackward2"


class Remainder(Binary):
    """a - b * floor(a / b), the sign of b: Python's %."""

    reads = ((), (0, 1))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        if a.dtype.kind != "f":
            return xp.remainder(a, b)
        with np.errstate(invalid="ignore", divide="ignore"):
            return xp.remainder(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        right = None
        if ctx.edges[1] is not None:
            right = -grad * F.floor(F.detach(a) / F.detach(b))
        return _unbroadcast(ctx, F, grad if ctx.edges[0] is not None else None, right)


class Maximum(Binary):
    """The larger one; a tie gives half of the gradient to each, as in PyTorch."""

    reads = ((0, 1), (0, 1))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.maximum(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return _extremum(ctx, grad, F, a > b, a < b)


class Minimum(Binary):
    """The smaller one; a tie gives half of the gradient to each, as in PyTorch."""

    reads = ((0, 1), (0, 1))

    def forward(xp: Any, a: Any, b: Any) -> Any:
        return xp.minimum(a, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        a, b = ctx.saved
        return _extremum(ctx, grad, F, a < b, a > b)


def _extremum(ctx: Any, grad: Any, F: Any, first: Any, second: Any) -> tuple[Any, Any]:
    tie = ~(first | second)
    left = right = None
    if ctx.edges[0] is not None:
        left = F.where(tie, grad * 0.5, F.where(first, grad, F.zeros((), grad)))
    if ctx.edges[1] is not None:
        right = F.where(tie, grad * 0.5, F.where(second, grad, F.zeros((), grad)))
    return _unbroadcast(ctx, F, left, right)


# ---------------------------------------------------------------------------- functions
def _refuse_bools(*operands: Any) -> None:
    for x in operands:
        if isinstance(x, bool) or (isinstance(x, Tensor) and x.array.dtype == np.bool_):
            raise RuntimeError(
                "Subtraction, the `-` operator, with a bool tensor is not supported. If you are "
                "trying to invert a mask, use the `~` or `logical_not()` operator instead."
            )


def _scaled(op: Any, input: Any, other: Any, alpha: Any) -> Tensor:
    arrays = [_plain(input), _plain(other)]
    if dtypes.category(dtypes.result_dtype(arrays)) < 2 and isinstance(alpha, float):
        raise RuntimeError(
            "For integral input tensors, argument alpha must not be a floating point number."
        )
    return binary_op(op, input, other, alpha)


@public(
    samples=lambda: [*binary(), S(normal(3), 2.0), S(normal(3), normal(3), alpha=3)], method=True
)
def add(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """``input + alpha * other``, broadcast; dtypes promote as in PyTorch.

    >>> import gradlite
    >>> gradlite.add(gradlite.tensor([1.0, 2.0]), 10)
    tensor([11., 12.])
    """
    return binary_op(Add, input, other) if alpha == 1 else _scaled(AddScaled, input, other, alpha)


@public(
    samples=lambda: [*binary(), S(normal(3), 2.0), S(normal(3), normal(3), alpha=3)], method=True
)
def sub(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """``input - alpha * other``, broadcast.

    >>> import gradlite
    >>> gradlite.sub(gradlite.tensor([1.0, 2.0]), 10)
    tensor([-9., -8.])

    Raises:
        RuntimeError: an operand is bool (use ``^`` or ``logical_not``).
    """
    _refuse_bools(input, other)
    return binary_op(Sub, input, other) if alpha == 1 else _scaled(SubScaled, input, other, alpha)


@public(samples=lambda: [*binary(), S(normal(3), 2.0)])
def rsub(input: Any, other: Any, *, alpha: Number = 1) -> Tensor:
    """``other - alpha * input``.

    >>> import gradlite
    >>> gradlite.rsub(gradlite.tensor([1.0, 2.0]), 10)
    tensor([9., 8.])
    """
    _refuse_bools(input, other)
    return sub(other, input, alpha=alpha) if alpha != 1 else binary_op(Rsub, input, other)


@public(samples=lambda: [*binary(), S(normal(3), 2.0)], method=True)
def mul(input: Any, other: Any) -> Tensor:
    """``input * other``, broadcast.

    >>> import gradlite
    >>> gradlite.mul(gradlite.tensor([1.0, 2.0]), 10)
    tensor([10., 20.])
    """
    return binary_op(Mul, input, other)


@public(
    samples=lambda: [
        *binary(normal, positive),
        S(normal(3), 2.0),
        S(distinct(4), 0.7, rounding_mode="floor", smooth=False),
        S(distinct(4), positive(4), rounding_mode="trunc", smooth=False),
        S(np.arange(5), 2, rounding_mode="floor"),
    ],
    method=True,
)
def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """``input / other``; integers give floats. ``rounding_mode`` is None, "trunc" or "floor".

    >>> import gradlite
    >>> gradlite.div(gradlite.tensor([1, 2]), 4)
    tensor([0.2500, 0.5000])
    """
    if rounding_mode is None:
        return binary_op(Div, input, other, true_division=True)
    if rounding_mode == "floor":
        _check_integer_zero(input, other)
        return binary_op(DivFloor, input, other)
    if rounding_mode == "trunc":
        _check_integer_zero(input, other)
        return binary_op(DivTrunc, input, other)
    raise RuntimeError(
        "div expected rounding_mode to be one of None, 'trunc', or 'floor' "
        f"but found '{rounding_mode}'"
    )


def _plain(value: Any) -> Any:
    value = operand(value)
    return value.array if isinstance(value, Tensor) else value


@public(
    samples=lambda: [
        *binary(positive, normal),
        *(S(positive(4), p) for p in (2, 3, 0.5, -1, 0, 1)),
        S(2.0, normal(3)),
    ],
    method=True,
)
def pow(input: Any, exponent: Any) -> Tensor:
    """``input ** exponent``, broadcast.

    >>> import gradlite
    >>> gradlite.pow(gradlite.tensor([1.0, 2.0, 3.0]), 2)
    tensor([1., 4., 9.])

    Raises:
        RuntimeError: integers to a negative integer power.
    """
    if isinstance(exponent, int) and exponent < 0:
        if isinstance(input, Tensor) and dtypes.category(input.array.dtype) < 2:
            raise RuntimeError("Integers to negative integer powers are not allowed.")
    if isinstance(exponent, Tensor):
        return binary_op(PowTensor if isinstance(input, Tensor) else PowOfNumber, input, exponent)
    return binary_op(Pow, input, exponent)


@public(
    samples=lambda: [S(distinct(3, 4), positive(4)), S(distinct(5), 0.7), S(distinct(5), -0.7)],
    method=True,
)
def remainder(input: Any, other: Any) -> Tensor:
    """The remainder with the sign of ``other``, as Python's ``%``.

    >>> import gradlite
    >>> gradlite.remainder(gradlite.tensor([-3.0, 5.0]), 2)
    tensor([1., 1.])
    """
    _check_integer_zero(input, other)
    return binary_op(Remainder, input, other)


def _check_integer_zero(input: Any, other: Any) -> None:
    a, b = _plain(input), _plain(other)
    if dtypes.category(dtypes.result_dtype([a, b])) < 2 and np.any(np.equal(b, 0)):
        raise RuntimeError("ZeroDivisionError")


@public(
    samples=lambda: [S(distinct(5), 0.7), S(distinct(5), -0.7), S(np.arange(5), 3)],
    method=True,
    differentiable=False,
)
def floor_divide(input: Any, other: Any) -> Tensor:
    """``floor(input / other)``, without a gradient.

    >>> import gradlite
    >>> gradlite.floor_divide(gradlite.tensor([-3, 5]), 2)
    tensor([-2,  2])
    """
    _check_integer_zero(input, other)
    return binary_op(FloorDivide, input, other)


@public(
    samples=lambda: [*binary(distinct, normal), S(np.ones(3), np.ones(3), smooth=False)],
    method=True,
)
def maximum(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise larger one; NaN wins.

    >>> import gradlite
    >>> gradlite.maximum(gradlite.tensor([1, 5]), gradlite.tensor([3, 2]))
    tensor([3, 5])
    """
    _both_tensors("maximum", input, other)
    return binary_op(Maximum, input, other)


@public(
    samples=lambda: [*binary(distinct, normal), S(np.ones(3), np.ones(3), smooth=False)],
    method=True,
)
def minimum(input: Tensor, other: Tensor) -> Tensor:
    """The elementwise smaller one; NaN wins.

    >>> import gradlite
    >>> gradlite.minimum(gradlite.tensor([1, 5]), gradlite.tensor([3, 2]))
    tensor([1, 2])
    """
    _both_tensors("minimum", input, other)
    return binary_op(Minimum, input, other)


def _both_tensors(name: str, input: Any, other: Any) -> None:
    for position, value in ((1, input), (2, other)):
        if not isinstance(value, Tensor):
            raise TypeError(
                f"{name}(): argument '{('input', 'other')[position - 1]}' (position {position}) "
                f"must be Tensor, not {value.__class__.__name__}"
            )


# -------------------------------------------------------------------------- comparisons
def _compare(function: str, input: Any, other: Any) -> Tensor:
    a, b = operand(input), operand(other)
    x, y = _plain(a), _plain(b)
    if isinstance(a, Tensor) and isinstance(b, Tensor):
        a, b = same_device_or_scalar(a, b)
        x, y = a.array, b.array
        if x.dtype != y.dtype:
            common = dtypes.result_dtype([x, y])
            x, y = x.astype(common), y.astype(common)
    else:
        common = dtypes.result_dtype([x, y])
        if isinstance(a, Tensor):
            x = x if x.dtype == common else x.astype(common)
        else:
            y = y if y.dtype == common else y.astype(common)
    xp = NAMESPACES[(a if isinstance(a, Tensor) else b).array.__class__].xp
    return wrap(xp.asarray(getattr(xp, function)(x, y)))


def _comparison_samples() -> list[Any]:
    return [*binary(), S(np.arange(4.0), 2), S(np.arange(4), np.arange(4)), S(np.arange(3), 1.5)]


@public(samples=_comparison_samples, method=True, inplace=True, differentiable=False)
def eq(input: Any, other: Any) -> Tensor:
    """Elementwise ``input == other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.eq(gradlite.tensor([1, 2]), 2)
    tensor([False,  True])
    """
    return _compare("equal", input, other)


@public(samples=_comparison_samples, method=True, inplace=True, differentiable=False)
def ne(input: Any, other: Any) -> Tensor:
    """Elementwise ``input != other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.ne(gradlite.tensor([1, 2]), 2)
    tensor([ True, False])
    """
    return _compare("not_equal", input, other)


@public(samples=_comparison_samples, method=True, inplace=True, differentiable=False)
def lt(input: Any, other: Any) -> Tensor:
    """Elementwise ``input < other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.lt(gradlite.tensor([1, 2]), 2)
    tensor([ True, False])
    """
    return _compare("less", input, other)


@public(samples=_comparison_samples, method=True, inplace=True, differentiable=False)
def le(input: Any, other: Any) -> Tensor:
    """Elementwise ``input <= other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.le(gradlite.tensor([1, 2]), 1)
    tensor([ True, False])
    """
    return _compare("less_equal", input, other)


@public(samples=_comparison_samples, method=True, inplace=True, differentiable=False)
def gt(input: Any, other: Any) -> Tensor:
    """Elementwise ``input > other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.gt(gradlite.tensor([1, 2]), 1)
    tensor([False,  True])
    """
    return _compare("greater", input, other)


@public(samples=_comparison_samples, method=True, inplace=True, differentiable=False)
def ge(input: Any, other: Any) -> Tensor:
    """Elementwise ``input >= other``, a bool tensor.

    >>> import gradlite
    >>> gradlite.ge(gradlite.tensor([1, 2]), 2)
    tensor([False,  True])
    """
    return _compare("greater_equal", input, other)


# ----------------------------------------------------------------------------- in place
def _inplace(function: Any, ufunc: str, name: str) -> Any:
    """The in-place form: one ufunc with ``out=`` when nothing has to be recorded."""

    def method(self: Tensor, other: Any, **options: Any) -> Tensor:
        check_inplace(self)
        array = self.array
        if isinstance(other, Tensor):
            refuse_overlap(self, other)
        if (
            not options
            and (current_mode() or not (self._requires_grad or self._view is not None))
            and (
                other.__class__ is float
                or other.__class__ is int
                or (
                    isinstance(other, Tensor)
                    and other.array.dtype == array.dtype
                    and other.array.shape == array.shape
                    and (current_mode() or not other.requires_grad)
                )
            )
            and array.dtype in dtypes.FLOATING
        ):
            value = other.array if isinstance(other, Tensor) else other
            if array.__class__ is getattr(value, "__class__", None) or value is other:
                getattr(NAMESPACES[array.__class__].xp, ufunc)(array, value, out=array)
                self._bump()
                return self
        return assign(self, function(self, other, **options))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place version of `{function.__name__}`."
    return method


def _operators() -> None:
    """Give Tensor its operators; the functions above are the methods themselves."""
    t: Any = Tensor
    for function, ufunc in (
        (add, "add"),
        (sub, "subtract"),
        (mul, "multiply"),
        (div, "true_divide"),
        (pow, "power"),
        (remainder, "remainder"),
        (floor_divide, "floor_divide"),
    ):
        setattr(t, f"{function.__name__}_", _inplace(function, ufunc, f"{function.__name__}_"))
    t.__add__, t.__iadd__ = _operator(add), t.add_
    t.__radd__ = _operator(_swapped(add))
    t.__sub__, t.__isub__, t.__rsub__ = _operator(sub), t.sub_, _operator(rsub)
    t.__mul__, t.__imul__ = _operator(mul), t.mul_
    t.__rmul__ = _operator(_swapped(mul))
    t.__truediv__, t.__itruediv__ = _operator(div), t.div_
    t.__rtruediv__ = _operator(lambda self, other: self.reciprocal() * other)
    t.__pow__, t.__ipow__ = _operator(pow), t.pow_
    t.__rpow__ = _operator(_swapped(pow))
    t.__mod__, t.__imod__ = _operator(remainder), t.remainder_
    t.__rmod__ = _operator(_swapped(remainder))
    t.__floordiv__, t.__ifloordiv__ = _operator(floor_divide), t.floor_divide_
    t.__rfloordiv__ = _operator(_swapped(floor_divide))
    t.__eq__, t.__ne__ = _comparison(eq), _comparison(ne)
    t.__lt__, t.__le__, t.__gt__, t.__ge__ = map(_operator, (lt, le, gt, ge))
    t.subtract, t.multiply, t.divide, t.true_divide = sub, mul, div, div
    t.subtract_, t.multiply_, t.divide_, t.true_divide_ = t.sub_, t.mul_, t.div_, t.div_
    t.greater, t.greater_equal, t.less, t.less_equal, t.not_equal = gt, ge, lt, le, ne


def _swapped(function: Any) -> Any:
    def reflected(self: Tensor, other: Any) -> Tensor:
        return function(other, self)  # type: ignore[no-any-return]

    return reflected


def _operator(function: Any) -> Any:
    """An operator method: NotImplemented for operands that are no numbers or arrays."""

    def method(self: Tensor, other: Any) -> Any:
        try:
            return function(self, other)
        except TypeError:
            if isinstance(other, (Tensor, int, float, np.ndarray, np.generic)):
                raise
            return NotImplemented

    return method


def _comparison(function: Any) -> Any:
    """``==`` and ``!=``: anything that is no operand is simply different."""
    return _operator(function)


_operators()
subtract, multiply, divide, true_divide = sub, mul, div, div
greater, greater_equal, less, less_equal, not_equal = gt, ge, lt, le, ne
