"""Indexing: x[...], x[...] = v and index_put."""

from __future__ import annotations

import contextlib
import math
from typing import Any

import numpy as np

from gradlite.grad_mode import NO_GRAD, current_mode
from gradlite.graph import add_part
from gradlite.ops import guard, indexing, positions
from gradlite.ops.binary import sum_to
from gradlite.ops.dispatch import apply, apply1, node_of_edit
from gradlite.ops.fill import FillFrom, FillTensor, copy_, fits, set_all
from gradlite.ops.guard import on_its_device
from gradlite.ops.index_items import WRONG_DTYPE, item_of, items_of, plain, split
from gradlite.ops.inplace import (
    assign,
    check_inplace,
    lies_apart,
    rebase,
    refuse_overlap,
    refuse_shared,
)
from gradlite.ops.layout import row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, tensor_type, type_name
from gradlite.ops.operands import as_number, beside, cast, filling
from gradlite.ops.samples import S, bools, integers, normal
from gradlite.ops.shape import View
from gradlite.ops.table import public
from gradlite.ops.views import apply_view
from gradlite.tensor import Tensor, refresh, wrap

__all__ = ["index_put"]

_WIDE = frozenset(map(np.dtype, ("float32", "float64")))
_FITTING = 1e30  # either holds a number below


# -------------------------------------------------------------------------------- views
class BasicIndex(Op):
    """x[...] with integers, slices and an ellipsis: a view."""

    moves = True
    fname = "basic_index"
    grad_name = "SliceBackward0"

    def forward(xp: Any, x: Any, index: tuple[Any, ...]) -> Any:
        return x[index]

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        if not F.tensors and add_part(ctx, 0, grad, ctx.attrs[0]):
            return (None,)
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
        moved = indexing.movable(x)
        if K.serial or not K.takes(moved) or not indexing.names_rows(index):
            return NotImplemented
        out = _taken(K, moved, len(index), *indexing.row_numbers(K, "index", x.shape, index))
        return out if moved is x else out.view(x.dtype)


def _taken(K: Any, x: Any, n: int, rows: Any, lowest: int) -> Any:
    """The rows of an array that numbers name, of the first n dimensions together."""
    table = K.dense(x).reshape(math.prod(x.shape[:n]), -1)
    return indexing.take_slices(K, "index", table, rows, 0, (*rows.shape, *x.shape[n:]), lowest)


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
        if not K.takes(x) or not indexing.names_rows(index):
            return NotImplemented
        out = K.zeros(shape, x.dtype)
        indexing.put_rows(K, "index", out, index, x, True)
        return out

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.index(grad, ctx.attrs[1]),)


class IndexPut(Op):
    """x with values written (or added) at index arrays."""

    used_up = True
    reads = ((), ())

    def forward(xp: Any, x: Any, values: Any, index: tuple[Any, ...], accumulate: bool) -> Any:
        if xp is not np:
            indexing.check_all("index_put", x, index)
        out = x.copy()
        if accumulate:
            return positions.add_indexed(xp, out, index, values)
        out[index] = values
        return out

    def fused_forward(K: Any, x: Any, values: Any, index: Any, accumulate: bool) -> Any:
        if not indexing.puts_rows(K, x, index, values, accumulate):
            return NotImplemented
        out = K.xp.array(x, order="C")
        indexing.put_rows(K, "index_put", out, index, values, accumulate)
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        index, accumulate = ctx.attrs
        if K.serial or not indexing.puts_rows(K, grad, index, grad, False):
            return NotImplemented
        n, left = len(index), grad
        rows, lowest = indexing.row_numbers(K, "index_put", grad.shape, index)
        if ctx.edges[0] is not None and not accumulate:
            left = K.xp.array(grad, order="C")
            table = left.reshape(math.prod(grad.shape[:n]), -1)
            indexing.put_slices(K, "index_put", table, rows, 0, lowest=lowest)
        right = None
        if ctx.edges[1] is not None:
            right = _taken(K, grad, n, rows, lowest)
            right = sum_to(NAMESPACES[grad.__class__], right, tuple(ctx.shapes[1]))
        return None if ctx.edges[0] is None else left, right

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        index, accumulate = ctx.attrs
        left = right = None
        if ctx.edges[0] is not None:
            left = grad if accumulate else F.index_put(grad, F.zeros((), grad), index, False)
        if ctx.edges[1] is not None:
            right = sum_to(F, F.index(grad, index), tuple(ctx.shapes[1]))
        return left, right


# ------------------------------------------------------------------------------ x[index]
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
    with guard.on(array):
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
    found = plain(array.shape, index)
    if found is not None:
        new, basic, last = found
        result = self if new is None else apply_view(NewDims, self, new)
        return result if basic is None else apply_view(_BY_NAME[last], result, basic)
    alone = isinstance(index, slice)
    new, basic, advanced, last = split(array, items_of(index), index, alone)
    result = self if new is None else apply_view(NewDims, self, new)
    if basic is not None:
        result = apply_view(_BY_NAME[last], result, basic)
    if advanced is not None:
        advanced = _to_device(array, advanced)
        if current_mode() == 0 and self.requires_grad:
            with guard.on(array):
                # The caller may edit an index before backward runs.
                advanced = tuple([i if isinstance(i, slice) else i.copy() for i in advanced])
        try:
            result = apply1(Index, result, advanced)
        except (IndexError, ValueError) as error:
            raise _mismatch(error, advanced) from None
    return result


def _mismatch(error: Exception, index: tuple[Any, ...]) -> Exception:
    """The library's error of index arrays that do not broadcast, as PyTorch says it."""
    if "broadcast" not in str(error):
        return error
    shapes = [
        [int(i.sum())] if i.dtype == np.bool_ else list(i.shape)
        for i in index
        if not isinstance(i, slice)
    ]
    return IndexError(
        "shape mismatch: indexing tensors could not be broadcast together with shapes "
        + ", ".join(map(str, shapes))
    )


def setitem(self: Tensor, index: Any, value: Any) -> None:
    """``self[index] = value``: copy a broadcast value into the place that the index names."""
    array = self.array
    if not isinstance(value, (Tensor, bool, int, float, np.ndarray, np.generic)):
        raise TypeError(f"can't assign a {value.__class__.__name__} to a {tensor_type(array)}")
    if index is False:
        return
    new: tuple[int, ...] | None = None
    basic: tuple[Any, ...] | None
    advanced: tuple[Any, ...] | None = None
    found = plain(array.shape, index if index.__class__ is tuple else (index,))
    if found is not None:
        new, basic, last = found
        if new is None and basic is not None and _set_at_once(self, array, basic, value):
            return
    else:
        items = items_of(None if index is True else index)
        try:
            new, basic, advanced, last = split(array, items, index)
        except IndexError:
            _check_shape_first(array, items, value)
            raise
    target = self if new is None else apply_view(NewDims, self, new)
    if basic is not None and last != "alias":
        target = apply_view(_BY_NAME[last], target, basic)
    if not isinstance(value, Tensor):
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
        place = target.array.shape
        if value.array.shape != place:
            value = _without_leading_ones(value)
            shape = value.array.shape
            if len(shape) > len(place) or not fits(shape, place):
                raise RuntimeError(_expand_message(value, place))
            if value.array.shape != place:
                value = value.expand(place)  # whose elements lie apart: `x[:] = x[0]` is fine
        copy_(target, value)
        return
    where, value = _to_device(array, advanced), _without_leading_ones(value)
    if value.array.dtype != array.dtype and not (value.array.size == 1 and _is_one_mask(where)):
        check_inplace(target)
        raise _put_error(target.array, where, value)
    _put(target, where, cast(value, array.dtype), False)


def _set_at_once(self: Tensor, array: Any, basic: tuple[Any, ...], value: Any) -> bool:
    """Write a value of the right shape where no graph has to know; False: it is not that simple."""
    free = current_mode() & NO_GRAD
    if array.__class__ is not np.ndarray or self._counter is None:
        return False
    if not free and self.requires_grad:
        return False
    place = array[basic]
    if 0 in place.strides:
        return False
    if isinstance(value, Tensor):
        given = value.array
        if given.__class__ is not np.ndarray or not (free or not value.requires_grad):
            return False
        if given.ndim:
            if given.shape != place.shape:
                return False  # it is another one's to say whether it fits
            if value._view is not None and not current_mode():
                refresh(value)  # a view that can no longer be used says so first
            refuse_shared(place, given)
    elif value.__class__ is float or value.__class__ is int:
        if array.dtype not in _WIDE or not -_FITTING < value < _FITTING:
            return False
        given = value
    else:
        return False
    place[...] = given
    self._bump()
    return True


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


def _put(
    target: Tensor,
    index: tuple[Any, ...],
    values: Tensor,
    accumulate: bool,
    ndim: int | None = None,
) -> Tensor:
    """Write or add values at index arrays, in place; ``ndim`` is for `_put_error`."""
    check_inplace(target)
    array = target.array
    if (
        values.array.ndim or getattr(index[0], "dtype", None) != np.bool_
    ):  # else PyTorch fills by the mask
        refuse_overlap(target, values, same_too=True)
    recorded = current_mode() & NO_GRAD == 0 and (target.requires_grad or values.requires_grad)
    try:
        if not recorded and _written(array, index, values.array, accumulate):
            target._bump()
            return target
        if recorded and lies_apart(target, (values.array,)):
            node = node_of_edit(IndexPut, (target, values), (index, accumulate))
            if node is not None and _written_by_kernel(array, index, values.array, accumulate):
                target._bump()
                rebase(target, node)
                return target
        return assign(target, apply(IndexPut, (target, values), index, accumulate))
    except (IndexError, ValueError, TypeError):  # TypeError: NumPy's, of masks of all dimensions
        raise _put_error(array, index, values, ndim) from None


def _written(array: Any, index: tuple[Any, ...], values: Any, accumulate: bool) -> bool:
    """Write values, or add them, into an array that no graph knows of; False: nothing was done."""
    if _written_by_kernel(array, index, values, accumulate):
        return True
    if accumulate:
        return False
    with guard.on(array):
        if NAMESPACES[array.__class__].launcher is not None:
            indexing.check_all("index_put", array, index)
        array[index] = values
        return True


def _written_by_kernel(array: Any, index: tuple[Any, ...], values: Any, accumulate: bool) -> bool:
    K = NAMESPACES[array.__class__].launcher
    if K is None or not array.flags.c_contiguous:
        return False
    with guard.on(array):
        if not indexing.puts_rows(K, array, index, values, accumulate):
            return False
        indexing.put_rows(K, "index_put", array, index, values, accumulate)
        return True


def _put_error(
    array: Any, index: tuple[Any, ...], values: Tensor, ndim: int | None = None
) -> Exception:
    try:
        array[index]
    except (IndexError, ValueError) as error:
        return _mismatch(error, index)
    wrong = _wrong_shape(array, index, values, ndim)
    return RuntimeError(_dtypes_differ(array, values) if wrong is None else wrong)


def _check_shape_first(array: Any, items: list[Any], values: Any) -> None:
    """RuntimeError where values do not fit an index whose numbers are out of bounds besides."""
    if not (isinstance(array, np.ndarray) and isinstance(values, Tensor)):
        return
    firsts = [
        np.zeros_like(i) if isinstance(i, np.ndarray) and i.dtype.kind == "i" else i for i in items
    ]
    with contextlib.suppress(IndexError):
        new, basic, advanced, _ = split(array, firsts)
        if new is None and basic is None and advanced is not None:
            wrong = _wrong_shape(array, advanced, _without_leading_ones(values), None)
            if wrong is not None:
                raise RuntimeError(wrong)


def _wrong_shape(
    array: Any, index: tuple[Any, ...], values: Tensor, ndim: int | None
) -> str | None:
    """What is wrong with values for an index, by which an array has ``ndim`` dimensions."""
    shape, own = array[index].shape, values.array.shape
    if ndim is not None:
        shape = shape[len(shape) - ndim :]
    if len(own) <= len(shape) and fits(own, shape):
        return None
    return (
        f"shape mismatch: value tensor of shape {list(own)} cannot be broadcast "
        f"to indexing result of shape {list(shape)}"
    )


def _dtypes_differ(array: Any, values: Tensor) -> str:
    return (
        "Index put requires the source and destination dtypes match, got "
        f"{type_name(array.dtype)} for the destination and {type_name(values.array.dtype)} for the "
        "source."
    )


def _put_index(
    self: Tensor, indices: Any, values: Tensor, accumulate: bool
) -> tuple[tuple[Any, ...], Tensor, int]:
    """The index arrays of `index_put`, its values, and how many dimensions the index leads to."""
    if not isinstance(indices, (tuple, list)):
        raise TypeError(
            "index_put(): argument 'indices' (position 1) must be tuple of Tensors, "
            f"not {indices.__class__.__name__}"
        )
    for place, item in enumerate(indices):
        if not (item is None or isinstance(item, Tensor)):
            raise TypeError(
                f"expected Tensor as element {place} in argument 0, "
                f"but got {item.__class__.__name__}"
            )
        if item is not None and item.array.dtype not in _INDICES:
            raise IndexError(WRONG_DTYPE)
    if values.array.dtype != self.array.dtype:
        raise RuntimeError(_dtypes_differ(self.array, values))
    if not indices:
        raise RuntimeError("index_put(): there is no index")
    items = [slice(None) if i is None else _item_array(i) for i in indices]
    try:
        *_, advanced, _ = split(self.array, items, adds=accumulate)
    except IndexError:
        _check_shape_first(self.array, items, values)
        raise
    index = _to_device(self.array, advanced or (slice(None),))
    used = dims = 0
    arrays = [i.array for i in indices if i is not None]
    for array in arrays:
        is_mask = array.dtype in MASKS
        used += array.ndim if is_mask else 1
        dims = max(dims, min(array.ndim, 1) if is_mask else array.ndim)
    ndim = self.array.ndim - used + dims
    if values.array.ndim > ndim:  # those of x[...] = values may have ones in front
        fills = len(arrays) == 1 and arrays[0].dtype in MASKS and values.array.size == 1
        if not fills or accumulate or not values.is_cpu:
            raise _put_error(self.array, index, values, ndim)
        values = values.view(())
    return index, values, ndim


MASKS = frozenset(map(np.dtype, ("bool", "uint8")))
_INDICES = MASKS | {np.dtype(np.int64), np.dtype(np.int32)}


def _item_array(item: Tensor) -> Any:
    """An index array; a GPU is not asked for one that is a number."""
    array = item.array
    if array.ndim == 0 and array.dtype.kind in "iu" and array.dtype not in MASKS:
        return array.reshape(1)
    return item_of(item)


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
        S(normal(3, 2), (np.array([0, 3]),), normal(3)),
        S(normal(3), (np.array([0], np.int8),), normal(1)),
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
    index, values, ndim = _put_index(input, indices, values, accumulate)
    try:
        return apply(IndexPut, (input, values), index, accumulate)  # type: ignore[no-any-return]
    except (IndexError, ValueError):
        raise _put_error(input.array, index, values, ndim) from None


@on_its_device
def index_put_(self: Tensor, indices: Any, values: Tensor, accumulate: bool = False) -> Tensor:
    """In-place version of `index_put`."""
    index, values, ndim = _put_index(self, indices, values, accumulate)
    return _put(self, index, values, accumulate, ndim)


def _plain_value(value: Any, numpy_dtype: Any) -> Any:
    value = as_number(value)
    if isinstance(value, (int, float)):
        value = filling(value, numpy_dtype, rounds=True)
    return np.asarray(value, dtype=numpy_dtype)


def _without_leading_ones(value: Tensor) -> Tensor:
    """An assigned value without its leading dimensions of size 1, as PyTorch reads it."""
    shape = value.array.shape
    ones = next((place for place, n in enumerate(shape) if n != 1), len(shape))
    return value.view(shape[ones:]) if ones else value


def _attach() -> None:
    t: Any = Tensor
    t.__getitem__, t.__setitem__ = getitem, setitem
    t.index_put_ = index_put_


_attach()
