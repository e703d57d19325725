"""Indexing: x[...], x[...] = v and index_put."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite.grad_mode import NO_GRAD, current_mode
from gradlite.ops import guard, indexing, positions, shortcuts
from gradlite.ops.binary import sum_to
from gradlite.ops.dispatch import apply, apply1
from gradlite.ops.fill import FillFrom, FillTensor, copy_, fits, set_all
from gradlite.ops.guard import on_its_device
from gradlite.ops.inplace import assign, check_inplace, refuse_overlap
from gradlite.ops.layout import row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, number, tensor_type, type_name
from gradlite.ops.operands import as_number, beside, cast
from gradlite.ops.samples import S, bools, integers, normal
from gradlite.ops.shape import View
from gradlite.ops.table import public
from gradlite.ops.views import apply_view
from gradlite.tensor import Tensor, wrap

__all__ = ["index_put"]


# -------------------------------------------------------------------------------- views
class BasicIndex(Op):
    """x[...] with integers, slices and an ellipsis: a view."""

    moves = True
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


class NewDims(View):
    """New dimensions, not by NumPy's index None, which gives them the stride 0."""

    fname = "new_dims"
    grad_name = "UnsqueezeBackward0"


class BasicScatter(Op):
    """Zeros with a view's gradient written into them."""

    moves = True

    def forward(xp: Any, x: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
        out = xp.zeros(shape, x.dtype)
        out[index] = x
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.basic_index(grad, ctx.attrs[1]),)


# ------------------------------------------------------------------------------ gathers
class Index(Op):
    """x[...] with index arrays or masks: a copy."""

    moves = True
    fname = "index"
    used_up = True

    def forward(xp: Any, x: Any, index: tuple[Any, ...]) -> Any:
        if xp is np and len(index) == 1 and index[0].dtype == np.int64 and x.ndim > 1:
            return x.take(index[0], axis=0)  # twice as fast as x[index]
        return row_major(x[index])

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.index_accumulate(grad, tuple(ctx.shapes[0]), ctx.attrs[0]),)

    def fused_forward(K: Any, x: Any, index: tuple[Any, ...]) -> Any:
        if K.serial or not K.takes(x):
            return NotImplemented
        rows = positions.row_numbers(K.xp, x.shape, index)
        if rows is None or not rows.size:
            return NotImplemented
        n = len(index)
        table = K.dense(x).reshape(math.prod(x.shape[:n]), -1)
        shape = (*rows.shape, *x.shape[n:])
        return indexing.take_slices(K, table, rows, 0, shape, -len(table))


class IndexAccumulate(Op):
    """Zeros with values added at index arrays, repeated indices included."""

    delegates = True

    def forward(xp: Any, x: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
        out = xp.zeros(shape, x.dtype)
        if all(isinstance(i, slice) or i.dtype == np.bool_ for i in index):
            out[index] = x  # a mask names no element twice
            return out
        return positions.add_indexed(xp, out, index, x)

    def fused_forward(K: Any, x: Any, shape: tuple[int, ...], index: tuple[Any, ...]) -> Any:
        rows = positions.row_numbers(K.xp, shape, index)
        if rows is None or not K.takes(x):
            return NotImplemented
        out = K.zeros(shape, x.dtype)
        table = out.reshape(math.prod(shape[: len(index)]), -1)
        indexing.add_rows(K, table, rows, x, -len(table))
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.index(grad, ctx.attrs[1]),)


class IndexPut(Op):
    """x with values written (or added) at index arrays."""

    used_up = True
    reads = ((), ())

    def forward(xp: Any, x: Any, values: Any, index: tuple[Any, ...], accumulate: bool) -> Any:
        out = x.copy()
        if accumulate:
            return positions.add_indexed(xp, out, index, values)
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
        raise IndexError("tensors used as indices must be long, int, byte or bool tensors")
    if array.dtype == np.uint8:
        array = array.astype(bool)
    return array


def _number(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _split(
    x: Any, items: list[Any], alone: bool = False
) -> tuple[tuple[int, ...] | None, tuple[Any, ...] | None, tuple[Any, ...] | None, str]:
    """Divide an index into steps: a shape with new dimensions, a basic and an advanced index.

    PyTorch applies integers and slices first, as views, and index arrays to the result. The
    last item is the name of the last view.
    """
    used = 0
    for item in items:
        if isinstance(item, bool) or item is None or item is Ellipsis:
            continue
        used += item.ndim if hasattr(item, "ndim") and item.dtype == np.bool_ else 1
    if used > x.ndim == 0:
        raise IndexError(
            "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or "
            "`tensor.item<T>()` in C++ to convert a 0-dim tensor to a number"
        )
    if used > x.ndim:
        raise IndexError(f"too many indices for tensor of dimension {x.ndim}")
    basic: list[Any] = []
    advanced: list[Any] = []
    has_advanced = has_cut = False
    places: list[int] = []  # of new dimensions
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
            places.append(len(basic))
            basic.append(slice(None))
            advanced.append(slice(None))
            last = "unsqueeze"
        elif isinstance(item, bool):
            places.append(len(basic))
            basic.append(slice(None))
            advanced.append(np.array([item]))
            has_advanced, last = True, "unsqueeze"
        elif isinstance(item, int):
            n = x.shape[dim]
            if not -n <= item < n:
                raise IndexError(f"index {item} is out of bounds for dimension {dim} with size {n}")
            basic.append(item)
            dim += 1
            has_cut, last = True, "select"
        elif isinstance(item, slice):
            part = slice(
                *(None if v is None else int(v) for v in (item.start, item.stop, item.step))
            )
            if part.step is not None and part.step <= 0:
                raise ValueError("step must be greater than zero")
            start, stop, step = part.indices(x.shape[dim])
            # PyTorch skips slices of everything, unless one is all that the index consists of.
            to_the_end = part.stop is None or part.stop >= x.shape[dim]
            whole = to_the_end and (part.start or 0, step) == (0, 1)
            if not whole or alone:
                has_cut, last = True, "slice"
            basic.append(slice(start, max(start, stop), step))
            advanced.append(slice(None))
            dim += 1
        else:
            _check_bounds(x, dim, item)
            step = item.ndim if item.dtype == np.bool_ else 1
            basic.extend([slice(None)] * step)
            advanced.append(item)
            dim += step
            has_advanced = True
    while advanced and isinstance(advanced[-1], slice):
        advanced.pop()
    shape = list(x.shape) if places else []
    for place in places:
        shape.insert(place, 1)
    return (
        tuple(shape) if places else None,
        (*basic, Ellipsis) if has_cut or not (places or has_advanced) else None,
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
    if item.size:
        inside = (item.min() >= -n) & (item.max() < n)
        shortcuts.require(inside, IndexError, _out_of_bounds, item, dim, n)


def _out_of_bounds(item: Any, dim: int, n: int) -> str:
    bad = item.max() if item.max() >= n else item.min()
    return f"index {number(bad)} is out of bounds for dimension {dim} with size {n}"


_BY_NAME = {
    "slice": BasicIndex,
    "select": SelectIndex,
    "unsqueeze": UnsqueezeIndex,
    "alias": AliasIndex,
}


@on_its_device
def _to_device(array: Any, advanced: tuple[Any, ...]) -> tuple[Any, ...]:
    xp = NAMESPACES[array.__class__].xp
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
    new, basic, advanced, last = _split(array, _items(index), isinstance(index, slice))
    result = self if new is None else apply_view(NewDims, self, new)
    if basic is not None:
        result = apply_view(_BY_NAME[last], result, basic)
    if advanced is not None:
        advanced = _to_device(array, advanced)
        if current_mode() == 0 and self.requires_grad:
            # The caller may edit an index before backward runs.
            advanced = tuple([i if isinstance(i, slice) else i.copy() for i in advanced])
        try:
            result = apply1(Index, result, advanced)
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
    new, basic, advanced, last = _split(array, _items(None if index is True else index))
    target = self if new is None else apply_view(NewDims, self, new)
    if basic is not None and last != "alias":
        target = apply_view(_BY_NAME[last], target, basic)
    if not isinstance(value, Tensor):
        if not isinstance(value, (bool, int, float, np.ndarray, np.generic)):
            raise TypeError(f"can't assign a {value.__class__.__name__} to a {tensor_type(array)}")
        if advanced is None and not isinstance(value, np.ndarray):
            if target is self and self.array.ndim:
                set_all(self, as_number(value), FillFrom)
                return
        value = wrap(beside(array, _plain_value(value, array.dtype)))
    if advanced is None:
        if value.array.ndim == 0 and target.array.ndim and value.is_cpu == target.is_cpu:
            check_inplace(target)
            if current_mode() & NO_GRAD or not (target.requires_grad or value.requires_grad):
                guard.fill(target.array, value.array)
                target._bump()
            else:
                assign(target, apply(FillTensor, (target, value)))
            return
        value = _drop_leading(value, target.array.ndim)
        shape, place = value.array.shape, target.array.shape
        if shape != place and (len(shape) > len(place) or not fits(shape, place)):
            raise RuntimeError(_expand_message(value, place))
        copy_(target, value)
        return
    where = _to_device(array, advanced)
    if value.array.dtype != array.dtype and not (value.array.size == 1 and _is_one_mask(where)):
        check_inplace(target)
        raise RuntimeError(_put_message(target.array, where, value))
    if value.array.ndim > 1 and value.array.size == 1 and _is_one_mask(where):
        value = value.view(())
    _put(target, where, cast(value, array.dtype), False)


def _is_one_mask(index: tuple[Any, ...]) -> bool:
    """Whether an index is one mask, through which PyTorch fills as `masked_fill_` does."""
    (item, *others) = [i for i in index if not isinstance(i, slice)]
    return not others and item.dtype == np.bool_


def _expand_message(value: Tensor, target: tuple[int, ...]) -> str:
    shape = value.array.shape
    if len(shape) > len(target):
        return (
            f"expand({tensor_type(value.array)}{{{list(shape)}}}, "
            f"size={list(target)}): the number of sizes provided ({len(target)}) must be greater "
            f"or equal to the number of dimensions in the tensor ({len(shape)})"
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


def _put(target: Tensor, index: tuple[Any, ...], values: Tensor, accumulate: bool) -> Tensor:
    """Write or add values at index arrays, in place."""
    check_inplace(target)
    array = target.array
    if (
        values.array.ndim or getattr(index[0], "dtype", None) != np.bool_
    ):  # else PyTorch fills by the mask
        refuse_overlap(target, values, same_too=True)
    recorded = current_mode() & NO_GRAD == 0 and (target.requires_grad or values.requires_grad)
    try:
        if not recorded and not accumulate:
            with guard.on(array):
                array[index] = values.array
            target._bump()
            return target
        return assign(target, apply(IndexPut, (target, values), index, accumulate))
    except (ValueError, TypeError):  # TypeError: NumPy's, of masks of all dimensions
        raise RuntimeError(_put_message(array, index, values)) from None


def _put_message(array: Any, index: tuple[Any, ...], values: Tensor) -> str:
    shape, own = array[index].shape, _drop_leading(values, array[index].ndim).array.shape
    fits = len(own) <= len(shape) and all(n in (1, m) for n, m in zip(own[::-1], shape[::-1]))
    if fits:
        return _dtypes_differ(array, values)
    return (
        f"shape mismatch: value tensor of shape {list(values.array.shape)} cannot be broadcast "
        f"to indexing result of shape {list(shape)}"
    )


def _dtypes_differ(array: Any, values: Tensor) -> str:
    return (
        "Index put requires the source and destination dtypes match, got "
        f"{type_name(array.dtype)} for the destination and {type_name(values.array.dtype)} for the "
        "source."
    )


def _put_index(self: Tensor, indices: Any, values: Tensor) -> tuple[Any, ...]:
    """The index arrays of `index_put`, checked."""
    if not isinstance(indices, (tuple, list)):
        raise TypeError(
            "index_put(): argument 'indices' (position 1) must be tuple of Tensors, "
            f"not {indices.__class__.__name__}"
        )
    if values.array.dtype != self.array.dtype:
        raise RuntimeError(_dtypes_differ(self.array, values))
    items = [slice(None) if i is None else _item_array(i) for i in indices]
    *_, advanced, _ = _split(self.array, items)
    return _to_device(self.array, advanced or (slice(None),))


def _item_array(item: Any) -> Any:
    array = _item(item)
    return np.array(array) if isinstance(array, int) else array


@public(
    samples=lambda: [
        S(normal(3, 4), (np.array([0, 2]),), normal(2, 4)),
        S(normal(3, 4), (np.array([0, 2]), np.array([1, 1])), normal(2)),
        S(normal(3, 4), (np.array([0, 2, 0]), np.array([1, 1, 1])), normal(3), accumulate=True),
        S(normal(3, 4), (np.array([-1, 2, 2]),), normal(4), accumulate=True),
        S(normal(3, 4), (bools(3, 4),), normal()),
        S(normal(3), (integers(0, 3, 2, 2),), normal(2, 2), accumulate=True),
    ],
    method=True,
    inplace=True,
    errors=lambda: [
        S(normal(3), (np.array([0, 3]),), normal(2)),
        S(normal(3, 2), (np.array([0, 1]),), normal(3)),
        S(normal(3), (np.array([0]),), np.arange(1)),
    ],
    autocast=("", "widest"),
)
@on_its_device
def index_put(input: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """A copy of the input with values written, or added, at index tensors or masks.

    >>> import gradlite
    >>> rows = gradlite.tensor([0, 0])
    >>> gradlite.index_put(gradlite.zeros(2), (rows,), gradlite.ones(2), accumulate=True)
    tensor([2., 0.])
    """
    index = _put_index(input, indices, values)
    try:
        return apply(IndexPut, (input, values), index, accumulate)  # type: ignore[no-any-return]
    except ValueError:
        raise RuntimeError(_put_message(input.array, index, values)) from None


@on_its_device
def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """In-place version of `index_put`."""
    return _put(self, _put_index(self, indices, values), values, accumulate)


def _plain_value(value: Any, numpy_dtype: Any) -> Any:
    return np.asarray(as_number(value), dtype=numpy_dtype)


def _drop_leading(value: Tensor, ndim: int) -> Tensor:
    """PyTorch lets leading dimensions of size 1 of an assigned value go."""
    shape = value.array.shape
    extra = len(shape) - ndim
    if extra > 0 and all(n == 1 for n in shape[:extra]):
        return value.view(shape[extra:])
    return value


def _attach() -> None:
    t: Any = Tensor
    t.__getitem__, t.__setitem__ = getitem, setitem
    t.index_put_ = index_put_


_attach()
