"""How an op of two operands runs: promotion, broadcasting, recording."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import loud, quiet
from gradlite.grad_mode import INFERENCE, current_mode
from gradlite.graph import record
from gradlite.ops.dispatch import INFERENCE_SAVED, OUT, Cut
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.operands import operand, promoted, same_device_or_scalar
from gradlite.tensor import Tensor, gradient_edge, wrap

_new = object.__new__


def broadcast_dims(shape: tuple[int, ...], operand: tuple[int, ...]) -> tuple[int, ...]:
    """The dimensions of a result along which an operand of a shape was broadcast."""
    extra = len(shape) - len(operand)
    return tuple(range(extra)) + tuple(
        extra + i for i, n in enumerate(operand) if n == 1 and shape[extra + i] != 1
    )


def sum_to(F: Any, grad: Any, shape: tuple[int, ...]) -> Any:
    """Sum a gradient over the dimensions along which its operand was broadcast."""
    if tuple(grad.shape) == shape:
        return grad
    dims = broadcast_dims(grad.shape, shape)
    if dims:
        grad = F.sum(grad, dims, False)
    return grad.reshape(shape)


def unbroadcast(ctx: Any, F: Any, left: Any, right: Any) -> tuple[Any, Any]:
    shapes = ctx.shapes
    if shapes is None:
        return left, right
    if left is not None:
        left = sum_to(F, left, shapes[0])
    if right is not None:
        right = sum_to(F, right, shapes[1])
    return left, right


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
    if F.twins:
        op = F.twins.get(op, op)
    token = quiet()
    try:
        out = op.forward(F.xp, x, y, *attrs)
    except ValueError:
        raise RuntimeError(mismatch(x, y)) from None
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
        if (
            p is not None
            or q is not None
            or (a._view is not None and a.requires_grad)
            or (other is not None and other._view is not None and other.requires_grad)
        ):
            if p is q is None:
                op = Cut(op)
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


def mismatch(x: Any, y: Any) -> str:
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
    plan = op.plan((p is not None, q is not None))
    if not plan:
        return plan, None
    for position in plan:
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


class Binary(Op):
    """Base of the two-operand ops; the rule of a subclass is `partial`, before unbroadcasting."""

    reads: tuple[tuple[int, ...], ...] = ((), ())

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        raise NotImplementedError
