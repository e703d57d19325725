"""Indexing: x[...], x[...] = v, and in-place filling and copying."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.graph import NO_GRAD, current_mode
from gradlite.ops.arithmetic import as_number, cast, sum_to
from gradlite.ops.table import NAMESPACES, Op, apply, apply1, apply_view, assign, check_inplace
from gradlite.tensor import Tensor, wrap


# -------------------------------------------------------------------------------- views
class BasicIndex(Op):
    """x[...] with integers, slices, None and an ellipsis: a view."""

    fname = "basic_index"
    grad_name = "SliceBackward0"

    def forward(xp: Any, x: Any, index: tuple[Any, ...]) -> Any:
        return x[index]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.basic_scatter(grad, tuple(ctx.shapes[0]), ctx.attrs[0]),)


class SelectIndex(BasicIndex):
    fname = "select_index"
    grad_name = "SelectBackward0"


class UnsqueezeIndex(BasicIndex):
    fname = "unsqueeze_index"
    grad_name = "UnsqueezeBackward0"


class AliasIndex(BasicIndex):
    fname = "alias_index"
    grad_name = "AliasBackward0"


class BasicScatter(Op):
    """Zeros with a view's gradient written into them."""

    def forward(xp: Any, x: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
        out = xp.zeros(shape, x.dtype)
        out[index] = x
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.basic_index(grad, ctx.attrs[1]),)


# ------------------------------------------------------------------------------ gathers
class Index(Op):
    """x[...] with index arrays or masks: a copy."""

    fname = "index"

    def forward(xp: Any, x: Any, index: tuple[Any, ...]) -> Any:
        return x[index]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.index_accumulate(grad, tuple(ctx.shapes[0]), ctx.attrs[0]),)


class IndexAccumulate(Op):
    """Zeros with values added at index arrays, repeated indices included."""

    def forward(xp: Any, x: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
        out = xp.zeros(shape, x.dtype)
        if all(isinstance(i, slice) or i.dtype == np.bool_ for i in index):
            out[index] = x  # a mask names no element twice
        else:
            xp.add.at(out, index, x)
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.index(grad, ctx.attrs[1]),)


class IndexPut(Op):
    """x with values written (or added) at index arrays."""

    reads = ((), ())

    def forward(xp: Any, x: Any, values: Any, index: tuple[Any, ...], accumulate: bool) -> Any:
        out = x.copy()
        if accumulate:
            xp.add.at(out, index, values)
        else:
            out[index] = values
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        index, accumulate = ctx.attrs
        left = right = None
        if ctx.edges[0] is not None:
            left = grad if accumulate else F.index_put(grad, F.zeros((), grad), index, False)
        if ctx.edges[1] is not None:
            right = sum_to(F, F.index(grad, index), tuple(ctx.shapes[1]))
        return left, right


# -------------------------------------------------------------------------- preparation
def _items(index: Any) -> list[Any]:
    """The parts of an index, with lists, arrays and Tensors as raw arrays."""
    if isinstance(index, tuple):
        items = list(index)
    elif isinstance(index, list) and any(isinstance(i, slice) or i is None for i in index):
        items = list(index)
    else:
        items = [index]
    return [_item(i) for i in items]


def _item(item: Any) -> Any:
    cls = item.__class__
    if cls is int or cls is slice or item is None or item is Ellipsis or cls is bool:
        return item
    if isinstance(item, Tensor):
        array = item.array
        if array.ndim == 0 and array.dtype.kind in "iu":
            return int(array)
    elif isinstance(item, (list, tuple, range)):
        array = np.asarray([_number(i) for i in item] if item else np.zeros(0, np.int64))
    elif isinstance(item, np.ndarray):
        array = item
        if array.ndim == 0 and array.dtype.kind in "iu":
            return int(array)
    elif hasattr(item, "__index__"):
        return int(item)
    else:
        array = None
    if array is None:
        raise IndexError(
            "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are "
            f"valid indices (got {cls.__name__})"
        )
    if array.dtype.kind not in "iub":
        raise IndexError(
            "tensors used as indices must be long, int, byte or bool tensors"
        )
    if array.dtype == np.uint8:
        array = array.astype(bool)
    return array


def _number(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _split(x: Any, items: list[Any]) -> tuple[tuple[Any, ...] | None, tuple[Any, ...] | None, str]:
    """Divide an index into its basic part, its advanced part and the name of the last step.

    PyTorch applies integers and slices first, as views, and index arrays to the result.
    """
    used = 0
    for item in items:
        if isinstance(item, bool) or item is None or item is Ellipsis:
            continue
        used += item.ndim if hasattr(item, "ndim") and item.dtype == np.bool_ else 1
    if used > x.ndim:
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}")
    basic: list[Any] = []
    advanced: list[Any] = []
    has_advanced = has_basic = False
    last = "alias"
    dim = 0
    seen_ellipsis = False
    for item in items:
        if item is Ellipsis:
            if seen_ellipsis:
                raise IndexError("an index can only have a single ellipsis ('...')")
            seen_ellipsis = True
            skipped = x.ndim - used
            basic.extend([slice(None)] * skipped)
            advanced.extend([slice(None)] * skipped)
            dim += skipped
        elif item is None:
            basic.append(None)
            advanced.append(slice(None))
            has_basic, last = True, "unsqueeze"
        elif isinstance(item, bool):
            basic.append(None)
            advanced.append(np.array([item]))
            has_basic = has_advanced = True
        elif isinstance(item, int):
            n = x.shape[dim]
            if not -n <= item < n:
                raise IndexError(
                    f"index {item} is out of bounds for dimension {dim} with size {n}"
                )
            basic.append(item)
            dim += 1
            has_basic, last = True, "select"
        elif isinstance(item, slice):
            part = slice(*(None if v is None else int(v) for v in (item.start, item.stop, item.step)))
            if part.step is not None and part.step <= 0:
                raise ValueError("step must be greater than zero")
            start, stop, step = part.indices(x.shape[dim])
            if (start, step) != (0, 1) or stop < x.shape[dim]:
                last = "slice"
            basic.append(slice(start, max(start, stop), step))
            advanced.append(slice(None))
            dim += 1
            has_basic = True
        else:
            _check_bounds(x, dim, item)
            step = item.ndim if item.dtype == np.bool_ else 1
            basic.extend([slice(None)] * step)
            advanced.append(item)
            dim += step
            has_advanced = True
    while advanced and isinstance(advanced[-1], slice):
        advanced.pop()
    return (
        (*basic, Ellipsis) if has_basic or not has_advanced else None,
        tuple(advanced) if has_advanced else None,
        last,
    )


def _check_bounds(x: Any, dim: int, item: Any) -> None:
    if item.dtype == np.bool_:
        for k, n in enumerate(item.shape):
            if n != x.shape[dim + k]:
                raise IndexError(
                    f"The shape of the mask {list(item.shape)} at index {k} does not match the "
                    f"shape of the indexed tensor {list(x.shape)} at index {dim + k}"
                )
        return
    n = x.shape[dim]
    if item.size and not (-n <= int(item.min()) and int(item.max()) < n):
        bad = int(item.max()) if int(item.max()) >= n else int(item.min())
        raise IndexError(f"index {bad} is out of bounds for dimension {dim} with size {n}")


_BY_NAME = {
    "slice": BasicIndex,
    "select": SelectIndex,
    "unsqueeze": UnsqueezeIndex,
    "alias": AliasIndex,
}


def _to_device(xp: Any, advanced: tuple[Any, ...]) -> tuple[Any, ...]:
    if xp is np:
        return advanced
    return tuple(i if isinstance(i, slice) else xp.asarray(i) for i in advanced)


def getitem(self: Tensor, index: Any) -> Tensor:
    """``self[index]``: a view for integers, slices, None and ``...``; else a copy.

    >>> import gradlite
    >>> gradlite.arange(6).view(2, 3)[1, ::2]
    tensor([3, 5])

    Raises:
        IndexError: out of bounds, too many indices, or an index of the wrong type.
    """
    array = self.array
    basic, advanced, last = _split(array, _items(index))
    result = self
    if basic is not None:
        result = apply_view(_BY_NAME[last], self, basic)
    if advanced is not None:
        xp = NAMESPACES[array.__class__].xp
        try:
            result = apply1(Index, result, _to_device(xp, advanced))
        except (IndexError, ValueError) as error:
            if "broadcast" in str(error):
                shapes = ", ".join(str(list(i.shape)) for i in advanced if not isinstance(i, slice))
                raise IndexError(
                    "shape mismatch: indexing tensors could not be broadcast together with "
                    f"shapes {shapes}"
                ) from None
            raise
    return result


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value``: copy a broadcast value into the place that the index names."""
    array = self.array
    basic, advanced, last = _split(array, _items(index))
    target = self
    if basic is not None:
        target = apply_view(_BY_NAME[last], self, basic)
    xp = NAMESPACES[array.__class__].xp
    if not isinstance(value, Tensor):
        value = wrap(xp.asarray(_plain_value(value, array.dtype)))
    if advanced is None:
        copy_(target, _drop_leading(value, target.array.ndim))
        return
    check_inplace(target)
    value = cast(value, array.dtype)
    try:
        result = apply(IndexPut, (target, value), _to_device(xp, advanced), False)
    except ValueError:
        selected = target.array[_to_device(xp, advanced)].shape
        raise RuntimeError(
            f"shape mismatch: value tensor of shape {list(value.array.shape)} cannot be broadcast "
            f"to indexing result of shape {list(selected)}"
        ) from None
    assign(target, result)


def _plain_value(value: Any, numpy_dtype: Any) -> Any:
    return np.asarray(as_number(value), dtype=numpy_dtype)


def _drop_leading(value: Tensor, ndim: int) -> Tensor:
    """PyTorch lets leading dimensions of size 1 of an assigned value go."""
    shape = value.array.shape
    extra = len(shape) - ndim
    if extra > 0 and all(n == 1 for n in shape[:extra]):
        return value.view(shape[extra:])
    return value


# ----------------------------------------------------------------------- copy, fill, zero
class CopyInto(Op):
    """A source's values in the shape and dtype of a destination."""

    reads = ((), ())
    has_aux = True
    grad_name = "CopyBackwards"

    def forward(xp: Any, x: Any, source: Any) -> Any:
        return xp.broadcast_to(source.astype(x.dtype), x.shape), source.dtype

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        left = right = None
        if ctx.edges[0] is not None:
            left = F.zeros(grad.shape, grad)
        if ctx.edges[1] is not None:
            right = sum_to(F, grad, tuple(ctx.shapes[1]))
            if right.dtype != ctx.aux:
                right = F.to_copy(right, ctx.aux)
        return left, right


class Fill(Op):
    """A constant in the shape of the input: no gradient but zeros."""

    grad_name = "FillBackward0"

    def forward(xp: Any, x: Any, value: Any) -> Any:
        return xp.full_like(x, value)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad),)


class Zero(Fill):
    grad_name = "ZeroBackward0"


def copy_(self: Tensor, src: Tensor, non_blocking: bool = False) -> Tensor:
    """Write a tensor's values, broadcast and converted, into this one."""
    check_inplace(self)
    if not isinstance(src, Tensor):
        raise TypeError(
            f"copy_(): argument 'other' (position 1) must be Tensor, not {src.__class__.__name__}"
        )
    array, value = self.array, src.array
    if value.ndim > array.ndim or not _fits(value.shape, array.shape):
        raise RuntimeError(
            _expand_message(value.shape, array.shape)
        )
    if value.__class__ is not array.__class__:
        xp = NAMESPACES[array.__class__].xp
        moved = xp.asarray(value if isinstance(value, np.ndarray) else value.get())
        src = src.to(self.device) if src.requires_grad else wrap(moved)  # type: ignore[attr-defined]
        value = src.array
    if current_mode() & NO_GRAD or not (self.requires_grad or src.requires_grad):
        array[...] = value
        self._bump()
        return self
    result = apply(CopyInto, (self, src))
    return assign(self, result)


def _fits(shape: tuple[int, ...], target: tuple[int, ...]) -> bool:
    return all(n == 1 or n == m for n, m in zip(reversed(shape), reversed(target)))


def _expand_message(shape: tuple[int, ...], target: tuple[int, ...]) -> str:
    if len(shape) > len(target):
        return (
            f"expand(gradlite.FloatTensor{{{list(shape)}}}, size={list(target)}): the number of "
            f"sizes provided ({len(target)}) must be greater or equal to the number of dimensions "
            f"in the tensor ({len(shape)})"
        )
    lead = len(target) - len(shape)
    for place in range(len(target) - 1, lead - 1, -1):
        n = shape[place - lead]
        if n != 1 and n != target[place]:
            return (
                f"The expanded size of the tensor ({target[place]}) must match the existing size "
                f"({n}) at non-singleton dimension {place}.  Target sizes: {list(target)}.  Tensor "
                f"sizes: {list(shape)}"
            )
    return ""


def fill_(self: Tensor, value: Any) -> Tensor:
    """Set all elements to one value."""
    if isinstance(value, Tensor):
        if value.array.ndim:
            raise RuntimeError(
                "fill_ only supports 0-dimension value tensor but got tensor with "
                f"{value.array.ndim} dimensions."
            )
        if value.requires_grad:
            return copy_(self, value)
        value = value.item()
    return _set_all(self, as_number(value), Fill)


def zero_(self: Tensor) -> Tensor:
    """Set all elements to 0."""
    return _set_all(self, 0, Zero)


def _set_all(self: Tensor, value: Any, op: Any) -> Tensor:
    check_inplace(self)
    if current_mode() & NO_GRAD or not self.requires_grad:
        self.array[...] = value
        self._bump()
        return self
    return assign(self, apply1(op, self, value))


def _attach() -> None:
    t: Any = Tensor
    t.__getitem__, t.__setitem__ = getitem, setitem
    t.copy_, t.fill_, t.zero_ = copy_, fill_, zero_


_attach()
