"""How an op of two operands runs: promotion, broadcasting, recording."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import loud, quiet
from gradlite.grad_mode import INFERENCE, current_mode
from gradlite.graph import Node, record
from gradlite.ops.dispatch import INFERENCE_SAVED, NOWHERE, OUT, Cut, edges_of
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Elementwise
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


def binary_op(
    op: Any, a: Any, b: Any, attrs: tuple[Any, ...] = (), true_division: bool = False
) -> Tensor:
    """Run a `Binary` op on two operands, at least one of them a Tensor."""
    if isinstance(a, Tensor):
        x = a.array
        if isinstance(b, Tensor):
            y = b.array
            if x.dtype != y.dtype:
                same_device_or_scalar(a, b)
                a, b = promoted(a, b, true_division=true_division)
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
                    return binary_op(op, a, b, attrs, true_division)
            if x.dtype not in dtypes.FLOATING:
                a, b = promoted(a, b, true_division=true_division)
                x = a.array
            y, other = b, None
    else:
        a = operand(a)
        if not isinstance(a, Tensor):
            if not isinstance(b, Tensor):
                b = operand(b)
                kind = dtypes.get_default_dtype().numpy if b.__class__ is float else None
                b = wrap(np.asarray(b, kind))
            a, b = promoted(a, b, true_division=true_division)
        return binary_op(op, a, b, attrs, true_division)
    F = NAMESPACES[x.__class__]
    if F.twins is not None:
        op = F.twins[op]
    token = quiet()
    try:
        if attrs:
            out = op.forward(F.xp, x, y, *attrs)
        elif other is None and op.takes_cells and x.__class__ is np.ndarray:
            cell = _cells.get((y, x.dtype))
            out = op.forward(np, x, _cell(y, x.dtype) if cell is None else cell)
        else:
            out = op.forward(F.xp, x, y)
    except ValueError:
        raise RuntimeError(mismatch(x.shape, y.shape)) from None
    finally:
        loud(token)
    if out.__class__ is not x.__class__ and out.__class__ not in NAMESPACES:
        out = F.xp.asarray(out)
    result = _new(Tensor)
    result.array = out
    result._edge = result._grad = result._view = None
    result._requires_grad = False
    mode = current_mode()
    result._counter = version = [0] if mode < INFERENCE else None
    if mode == 0:
        p = q = None
        cut = False
        if a._view is not None:
            p = gradient_edge(a)
            cut = p is None and a.requires_grad
        elif a._requires_grad:
            p = a._edge or gradient_edge(a)
        if other is not None:
            if other._view is not None:
                q = gradient_edge(other)
                cut = cut or (q is None and other.requires_grad)
            elif other._requires_grad:
                q = other._edge or gradient_edge(other)
        if p is not None or q is not None or cut:
            if p is q is None:
                op = Cut(op)
            saved: Any = ()
            versions: Any = None
            saves = op.saves
            if saves:
                wanted = (p is not None, q is not None)
                plan = op.plans.get(wanted) or op.plan(wanted)
                if not plan:
                    saved = plan
                elif saves == _BOTH and other is not None:
                    saved, versions = _operands(plan, a, other, x, y)
                else:
                    saved, versions = _saved(plan, a, other, x, y, out, version)
            shape = out.shape
            if x.shape == shape and (other is None or y.shape == shape):
                shapes = None
            else:
                shapes = (x.shape, y.shape if other is not None else ())
            result._edge = record(op, (p, q), saved, versions, attrs, F, None, shapes)
            result._requires_grad = True
    return result


def node_of_operand_edit(op: Any, a: Tensor, b: Any, attrs: tuple[Any, ...]) -> Node | None:
    """The node of an op that is run on the memory of its first operand.

    None where nothing is recorded, or where the rule reads that operand or the result. The other
    one is a Tensor of the same dtype and device, which broadcasts to the first, or a number.
    """
    other = b if isinstance(b, Tensor) else None
    edges = edges_of((a, other))
    if edges is None:
        return None
    x, y = a.array, b if other is None else other.array
    F = NAMESPACES[x.__class__]
    if F.twins is not None:
        op = F.twins[op]
    if edges is NOWHERE:
        op, edges = Cut(op), (None, None)
    wanted = tuple(map(bool, edges))
    saved: Any = op.plans.get(wanted) or op.plan(wanted) if op.saves else ()
    versions: Any = None
    if any(position is not None and position < 1 for position in saved):
        return None
    if saved:
        saved, versions = _saved(saved, a, other, x, y, None, None)
    shapes = None
    if other is not None and y.shape != x.shape:
        shapes = (x.shape, y.shape)
    elif other is None and x.shape:
        shapes = (x.shape, ())
    return record(op, edges, saved, versions, attrs, F, None, shapes)


# Numbers as 0-d arrays, of which NumPy makes one at every call that it is given a number.
_cells: dict[tuple[Any, np.dtype[Any]], Any] = {}


def _cell(number: Any, dtype: np.dtype[Any]) -> Any:
    """A number as an operand beside an array of a floating dtype, kept for the next time."""
    if dtype.kind != "f" or dtype.itemsize < 4 or not number or not -1e9 < number < 1e9:
        # Beside halves PyTorch does not round numbers; 0.0 and -0.0 would be the same key.
        return number
    if len(_cells) >= 1024:
        _cells.clear()
    cell = _cells[number, dtype] = np.array(number, dtype)
    return cell


def mismatch(*shapes: tuple[int, ...]) -> str:
    """PyTorch's words for two shapes that do not broadcast."""
    n = max(len(shape) for shape in shapes)
    a, b = ((1,) * (n - len(shape)) + shape for shape in shapes)
    for dim in range(n - 1, -1, -1):
        if a[dim] != b[dim] and a[dim] != 1 and b[dim] != 1:
            return (
                f"The size of tensor a ({a[dim]}) must match the size of tensor b ({b[dim]}) at "
                f"non-singleton dimension {dim}"
            )
    return f"shapes {list(shapes[0])} and {list(shapes[1])} cannot be broadcast together"


def _operands(plan: Any, a: Any, b: Any, x: Any, y: Any) -> tuple[Any, Any]:
    """`_saved` for two tensors, either or both of which are kept."""
    first, second = plan
    m, n = a._counter, b._counter
    if (m is None and first is not None) or (n is None and second is not None):
        raise RuntimeError(INFERENCE_SAVED)
    if first is None:
        return (None, y), (None, (n, n[0]))
    if second is None:
        return (x, None), ((m, m[0]), None)
    return (x, y), ((m, m[0]), (n, n[0]))


_BOTH = (0, 1)


def _saved(
    plan: Any, a: Any, b: Any, x: Any, y: Any, out: Any, version: Any
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Saved values and their versions; a Python number has none."""
    saved: list[Any] = []
    versions: list[Any] = []
    for position in plan:
        if position is None:
            value = counter = None
        elif position == 0:
            value, counter = x, a._counter
            if counter is None:
                raise RuntimeError(INFERENCE_SAVED)
        elif position == OUT:
            value, counter = out, version
        else:
            value, counter = y, None
            if b is not None:
                counter = b._counter
                if counter is None:
                    raise RuntimeError(INFERENCE_SAVED)
        saved.append(value)
        versions.append(None if counter is None else (counter, counter[0]))
    return tuple(saved), tuple(versions)


class Binary(Elementwise):
    """Base of the two-operand ops.

    Attributes:
        takes_cells: whether forward may be given a Python number as a 0-d array.
    """

    reads: tuple[tuple[int, ...], ...] = ((), ())
    takes_cells = False

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        raise NotImplementedError
