"""What stands between the brackets of x[...]: its parts, checked, as steps of an index."""

from __future__ import annotations

import operator
import warnings
from typing import Any

import numpy as np

from gradlite.ops import indexing, shortcuts
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import number
from gradlite.ops.positions import least, most
from gradlite.tensor import Tensor

WRONG_TYPE = (
    "only integers, slices (`:`), ellipsis (`...`), None and long or byte Variables are valid "
    "indices (got {})"
)
WRONG_DTYPE = "tensors used as indices must be long, int, byte or bool tensors"
DIMENSIONS = "too many indices for tensor of dimension {}"
OF_A_NUMBER = (
    "invalid index of a 0-dim tensor. Use `tensor.item()` in Python or `tensor.item<T>()` in C++ "
    "to convert a 0-dim tensor to a number"
)
BYTES = (
    "indexing with dtype gradlite.uint8 is now deprecated, please use a dtype gradlite.bool "
    "instead."
)
NO_TUPLE = (
    "Using a non-tuple sequence for multidimensional indexing is deprecated and will be changed in "
    "pytorch 2.9; use x[tuple(seq)] instead of x[seq]. In pytorch 2.9 this will be interpreted as "
    "tensor index, x[torch.tensor(seq)], which will result either in an error or a different result"
)
INDEX_DTYPES = frozenset(map(np.dtype, ("int64", "int32", "bool")))
LONG = 32  # a list of so many parts is one index, whatever they are
_WHOLE = slice(None)


class Refused:
    """A part that is no index: its error, and whether other parts' errors come first."""

    __slots__ = ("error", "late")

    def __init__(self, error: Exception, late: bool = False) -> None:
        self.error, self.late = error, late


def items_of(index: Any) -> list[Any]:
    """The parts of an index, with lists, arrays and Tensors as raw arrays."""
    if isinstance(index, tuple):
        return [item_of(i) for i in index]
    if isinstance(index, list) and len(index) < LONG and any(map(_makes_a_tuple, index)):
        warnings.warn(NO_TUPLE, stacklevel=4)
        return [item_of(i) for i in index]
    return [item_of(index)]


def _makes_a_tuple(item: Any) -> bool:
    return (
        item is None
        or item is Ellipsis
        or isinstance(item, (Tensor, list, tuple, range, slice))
        # An element of a recorded array stands for a number of NumPy's.
        or (isinstance(item, np.ndarray) and (item.ndim > 0 or item.__class__ is np.ndarray))
    )


def item_of(item: Any) -> Any:
    """One part: an int, a bool, a slice, None, an Ellipsis, a raw array or what is wrong."""
    cls = item.__class__
    if cls is int or cls is slice or item is None or item is Ellipsis or cls is bool:
        return item
    if isinstance(item, Tensor):
        array = item.array
    elif isinstance(item, np.ndarray):
        array = item
    elif isinstance(item, (list, tuple, range)):
        array = np.asarray([_number(i) for i in item])
        if not array.size:
            array = array.astype(np.int64)
        elif array.dtype.kind == "O":
            first = next(i for i in item if not isinstance(i, (int, float, Tensor)))
            return Refused(RuntimeError(f"Could not infer dtype of {first.__class__.__name__}"))
    elif isinstance(item, (str, bytes)):
        return Refused(TypeError(f"new(): invalid data type '{cls.__name__}'"))
    elif hasattr(item, "__index__"):
        return operator.index(item)
    else:
        name = cls.__name__ if cls.__module__ == "builtins" else f"{cls.__module__}.{cls.__name__}"
        return Refused(IndexError(WRONG_TYPE.format(name)))
    dtype = array.dtype
    if array.ndim == 0 and dtype.kind in "iu" and dtype != np.uint8:
        return int(array)
    if dtype == np.uint8:
        if array.ndim:
            warnings.warn(BYTES, stacklevel=5)
        return array.astype(bool)
    if dtype not in INDEX_DTYPES:
        return Refused(IndexError(WRONG_DTYPE), late=True)
    return array


def _number(value: Any) -> Any:
    return value.tolist() if isinstance(value, Tensor) else value


def _whole_number(item: Any) -> int | None:
    """The whole number that a 0-d Tensor or a scalar of NumPy's is; None for anything else."""
    if isinstance(item, Tensor):
        array = item.array
        if array.__class__ is not np.ndarray or array.ndim or array.dtype not in INDEX_DTYPES:
            return None
        return int(array) if array.dtype.kind == "i" else None
    return int(item) if isinstance(item, np.integer) else None


def plain(
    shape: tuple[int, ...], index: Any
) -> tuple[tuple[int, ...] | None, tuple[Any, ...] | None, str] | None:
    """What `split` makes of an index of whole numbers, slices, None and ``...``, in a third of its
    time.

    Returns:
        The shape with new dimensions, the basic index and the name of the last view; None for any
        other index, or a wrong one.
    """
    items = index if index.__class__ is tuple else (index,)
    dim = 0
    ellipsis = cut = False
    basic: list[Any] = []
    places: list[int] = []  # of new dimensions
    last = "alias"
    try:
        for item in items:
            cls = item.__class__
            if cls is slice:
                start, stop, step = item.start, item.stop, item.step
                if not (
                    (start is None or start.__class__ is int)
                    and (stop is None or stop.__class__ is int)
                    and (step is None or (step.__class__ is int and step > 0))
                ):
                    return None
                n = shape[dim]
                if (
                    start
                    or (stop is not None and stop < n)
                    or (step or 1) != 1
                    or items is not index
                ):
                    cut, last = True, "slice"
                    start, stop, step = item.indices(n)
                    item = slice(start, stop if stop > start else start, step)
                else:
                    item = _WHOLE
                basic.append(item)
                dim += 1
            elif item is None:
                places.append(len(basic))
                basic.append(_WHOLE)
                last = "unsqueeze"
            elif item is Ellipsis and not ellipsis:
                ellipsis = True
                skipped = len(shape) + 1 - sum([i is not None for i in items])
                if skipped < 0:
                    return None
                basic += [_WHOLE] * skipped
                dim += skipped
            else:
                if cls is not int:
                    item = _whole_number(item)
                    if item is None:
                        return None
                n = shape[dim]
                if not -n <= item < n:
                    return None
                basic.append(item)
                dim += 1
                cut, last = True, "select"
    except IndexError:  # more parts than dimensions
        return None
    if not places:
        return None, (*basic, Ellipsis), last
    new = list(shape)
    for place in places:
        new.insert(place, 1)
    return tuple(new), (*basic, Ellipsis) if cut else None, last


def split(
    x: Any, items: list[Any], index: Any = (), alone: bool = False, adds: bool = False
) -> tuple[tuple[int, ...] | None, tuple[Any, ...] | None, tuple[Any, ...] | None, str]:
    """Divide an index into steps: a shape with new dimensions, a basic and an advanced index.

    PyTorch applies integers and slices first, as views, and index arrays to the result. The
    last item is the name of the last view. ``index`` is what the parts were taken from, ``alone``
    whether that is one slice, which is a view of its own where it is read. ``adds``: values are
    added at the index, not moved.
    """
    used = 0
    for item in items:
        if isinstance(item, bool) or item is None or item is Ellipsis:
            continue
        used += item.ndim if hasattr(item, "ndim") and item.dtype == np.bool_ else 1
    if used > x.ndim:
        raise IndexError(_too_many(x, items, index))
    basic: list[Any] = []
    advanced: list[Any] = []
    has_advanced = has_cut = False
    places: list[int] = []  # of new dimensions
    arrays: list[tuple[int, Any]] = []  # index arrays and the dimensions where they stand
    late = None
    last = "alias"
    dim = 0
    seen_ellipsis = False
    for place, item in enumerate(items):
        if item is Ellipsis:
            skipped = 0 if seen_ellipsis else x.ndim - used
            if seen_ellipsis and place < len(items) - 1:
                raise IndexError("an index can only have a single ellipsis ('...')")
            seen_ellipsis = True
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
            advanced.append(np.zeros(int(item), np.int64))
            has_advanced, last = True, "unsqueeze"
        elif isinstance(item, int):
            n = x.shape[dim]
            if not -n <= item < n:
                raise IndexError(f"index {item} is out of bounds for dimension {dim} with size {n}")
            basic.append(item)
            dim += 1
            has_cut, last = True, "select"
        elif isinstance(item, slice):
            part = _whole_numbers(item)
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
        elif item.__class__ is Refused:
            if not item.late:
                raise item.error
            late = item.error
            dim += 1
        elif item.ndim == 0:  # a mask of nothing: of a new dimension
            places.append(len(basic))
            basic.append(slice(None))
            advanced.append(item.reshape(1))
            has_advanced, last = True, "unsqueeze"
        else:
            arrays.append((dim, item))
            step = item.ndim if item.dtype == np.bool_ else 1
            basic.extend([slice(None)] * step)
            advanced.append(item)
            dim += step
            has_advanced = True
    if late is not None:
        raise late
    for dim, item in arrays:
        _check_bounds(x, dim, item, adds, items)
    while advanced and isinstance(advanced[-1], slice):
        advanced.pop()
    shape = list(x.shape) if places else []
    for new in places:
        shape.insert(new, 1)
    return (
        tuple(shape) if places else None,
        (*basic, Ellipsis) if has_cut or not (places or has_advanced) else None,
        tuple(advanced) if has_advanced else None,
        last,
    )


def _too_many(x: Any, items: list[Any], index: Any) -> str:
    if x.ndim == 0 and not isinstance(index, tuple):
        if isinstance(index, slice):
            _whole_numbers(index)
            return "slice() cannot be applied to a 0-dim tensor."
        if isinstance(items[0], int) and not isinstance(index, (Tensor, list)):
            return OF_A_NUMBER
    return DIMENSIONS.format(x.ndim)


def _whole_numbers(part: slice) -> slice:
    try:
        return slice(
            *(None if v is None else operator.index(v) for v in (part.start, part.stop, part.step))
        )
    except TypeError:
        if any(isinstance(v, Tensor) for v in (part.start, part.stop, part.step)):
            raise
        raise TypeError(
            "slice indices must be integers or None or have an __index__ method"
        ) from None


def _check_bounds(x: Any, dim: int, item: Any, adds: bool, items: list[Any]) -> None:
    """Errors for an index array, unless it is one of those that kernels look at themselves."""
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
        if not n:
            raise IndexError("index is out of bounds for dimension with size 0")
        K = NAMESPACES[item.__class__].launcher
        if K is None or K.serial:
            inside = (least(item) >= -n) & (most(item) < n)
            shortcuts.require(inside, IndexError, _out_of_bounds, item, dim, n)
        elif not (all(map(_are_numbers, items)) and K.takes(x if adds else indexing.movable(x))):
            # A GPU is not asked, since that would wait for it.
            indexing.check(K, "index", item, -n, n)


def _are_numbers(item: Any) -> bool:
    return hasattr(item, "dtype") and item.dtype != np.bool_


def _out_of_bounds(item: Any, dim: int, n: int) -> str:
    bad = item.max() if item.max() >= n else item.min()
    return f"index {number(bad)} is out of bounds for dimension {dim} with size {n}"
