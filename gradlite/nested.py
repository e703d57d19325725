"""Nested lists of numbers, tensors and arrays as one array, by PyTorch's rules.

The shape is that of the first element, the first element's first element and so on; every other
element has to agree. A tensor counts as the number in it. The dtype is the promotion of those of
all elements, of which Python's numbers have the default float, int64 and bool.
"""

from __future__ import annotations

import functools
import operator
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import loud, quiet
from gradlite.description import Description

_PLAIN = frozenset({bool, int, float})
_MOST_DIMENSIONS = 64  # of NumPy's arrays
_OVERFLOW = "Overflow when unpacking long long"
_class = operator.attrgetter("__class__")  # of a recorded array that of an array


def array_of(data: Any, wanted: np.dtype[Any] | None = None) -> np.ndarray[Any, Any]:
    """Nested data as an array of a wanted dtype, or of the one that it promotes to.

    Arrays keep their dtype.

    Raises:
        ValueError: sequences of unequal length, tensors of several elements, or numbers too large.
        TypeError: what is no number, or no sequence where there are others.
        RuntimeError: data that no dtype fits, or a number that does not fit the wanted one.
    """
    if isinstance(data, (np.ndarray, np.generic)):
        array = np.asarray(data)
        dtypes.from_numpy_dtype(array.dtype)
        return array
    if isinstance(data, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{type(data).__name__}'")
    if type(data) in (list, tuple) and data and type(data[0]) is np.ndarray:
        first = data[0]
        if all(type(a) is np.ndarray and a.shape == first.shape for a in data):
            arrays = np.stack(data)  # the same at once
            dtypes.from_numpy_dtype(arrays.dtype)
            return arrays if wanted is None else arrays.astype(wanted)
    kind = type(data)
    if kind in _PLAIN and wanted is None and kind is not int:  # most single numbers
        return np.array(data, _dtype_of_plain({kind}))
    shape = _shape(data)
    if 0 in shape:
        return np.empty(shape, dtypes.get_default_dtype().numpy if wanted is None else wanted)
    numbers = _elements(data, shape)
    kinds = set(map(_class, numbers))
    if not kinds <= _PLAIN:
        if wanted is None:
            if len(kinds) == 1 and issubclass(type(numbers[0]), np.number):
                array = np.array(numbers).reshape(shape)
                dtypes.from_numpy_dtype(array.dtype)
                return array
            wanted = _promoted(numbers, kinds, data)
        joined = _joined(numbers, wanted)
        if joined is not None:
            return joined.reshape(shape)
        numbers = _plain(numbers, wanted)
        kinds = set(map(_class, numbers))
    elif wanted is None:
        wanted = _dtype_of_plain(kinds)
        if wanted.kind == "i":  # where too large a number is another error than below
            try:
                return np.array(numbers, wanted).reshape(shape)
            except OverflowError:
                raise ValueError(_OVERFLOW) from None
    return _stored(numbers, kinds, wanted).reshape(shape)


# ---------------------------------------------------------------------------------- shape
def _is_sequence(value: Any) -> bool:
    kind = type(value)
    if kind is list or kind is tuple:
        return True
    if isinstance(value, (Description, np.generic, dict)):
        return False
    if isinstance(value, np.ndarray):
        return value.ndim > 0
    # Not of the class's class, as those of an enumeration.
    return all(any(n in vars(c) for c in kind.__mro__) for n in ("__getitem__", "__len__"))


def _shape(data: Any) -> tuple[int, ...]:
    shape: list[int] = []
    while _is_sequence(data):
        if isinstance(data, bytes):
            raise TypeError("new(): invalid data type 'bytes'")
        if isinstance(data, str) or len(shape) == _MOST_DIMENSIONS:
            raise ValueError(f"too many dimensions '{_plain_name(data)}'")
        shape.append(len(data))
        if not shape[-1]:
            break
        data = data[0]
    return tuple(shape)


def _elements(data: Any, shape: tuple[int, ...]) -> list[Any]:
    """What the innermost sequences hold, one after the other."""
    sequences: list[Any] = [data]
    for dim, size in enumerate(shape):
        inner: list[Any] = []
        for sequence in sequences:
            if not _is_sequence(sequence):
                raise TypeError("not a sequence")
            if len(sequence) != size:
                raise ValueError(
                    f"expected sequence of length {size} at dim {dim} (got {len(sequence)})"
                )
            inner.extend(sequence)
        sequences = inner
    return sequences


# ---------------------------------------------------------------------------------- dtype
def _dtype_of_plain(kinds: set[type]) -> np.dtype[Any]:
    if float in kinds:
        return dtypes.get_default_dtype().numpy
    return dtypes.int64.numpy if int in kinds else dtypes.bool.numpy


def _promoted(values: list[Any], kinds: set[type], data: Any) -> np.dtype[Any]:
    """The dtype of elements some of which are no plain numbers."""
    found: set[np.dtype[Any]] = set()
    for kind in sorted(kinds, key=lambda kind: kind.__name__):
        if issubclass(kind, Description):
            found.update({v.array.dtype for v in values if v.__class__ is kind})
        elif issubclass(kind, (np.generic, np.ndarray)) and not issubclass(kind, (str, bytes)):
            found.update({v.dtype for v in values if v.__class__ is kind})
        elif issubclass(kind, (bool, int, float)):
            found.add(_dtype_of_plain({next(b for b in (bool, int, float) if issubclass(kind, b))}))
        elif issubclass(kind, complex):
            found.add(np.dtype(complex))
        else:
            _refuse(next(v for v in values if v.__class__ is kind), data)
            found.add(dtypes.int64.numpy)
    known = [dtypes.from_numpy_dtype(d) for d in found]
    return functools.reduce(dtypes.promote_types, known).numpy


def _refuse(value: Any, data: Any) -> None:
    """The error about an element without a dtype; a sequence among numbers gets its own later."""
    if isinstance(value, (str, bytes)):
        raise TypeError(f"new(): invalid data type '{_plain_name(value)}'")
    if not _is_sequence(value):
        raise RuntimeError(f"Could not infer dtype of {type(value).__name__}")
    if value is data:
        raise TypeError("new(): self-referential lists are incompatible")


def _plain_name(value: Any) -> str:
    return next((b.__name__ for b in (str, bytes) if isinstance(value, b)), type(value).__name__)


# --------------------------------------------------------------------------------- values
def _plain(values: list[Any], wanted: np.dtype[Any]) -> list[Any]:
    """The elements as Python's numbers."""
    whole = wanted.kind in "iu"
    return [v if type(v) in _PLAIN else _number(v, whole) for v in values]


def _joined(values: list[Any], wanted: np.dtype[Any]) -> Any:
    """Tensors, among numbers too, joined as arrays; None where some may not fit, or warn.

    A captured step may do so, where it may not go on with their values as Python's numbers.
    """
    arrays = []
    wide = wanted in (np.float32, np.float64)
    for value in values:
        if isinstance(value, Description):
            tensor: Any = value
            array = tensor.array
            if not isinstance(array, np.ndarray) or array.size != 1 or tensor.requires_grad:
                return None
            if not (wide or np.can_cast(array.dtype, wanted)):
                return None
            arrays.append(array.reshape(()))
        elif type(value) in _PLAIN and wide:
            arrays.append(np.array(value, wanted))
        elif type(value) is int and wanted == np.int64 and -(1 << 63) <= value < 1 << 63:
            arrays.append(np.array(value, wanted))
        else:
            return None
    token = quiet()  # too large a number is inf
    try:
        return np.stack([array.astype(wanted, copy=False) for array in arrays])
    finally:
        loud(token)


def _number(value: Any, whole: bool) -> Any:
    if isinstance(value, Description):
        tensor: Any = value
        array = tensor.array
        if whole and (array.size != 1 or array.dtype in dtypes.FLOATING):
            raise TypeError("only integer tensors of a single element can be converted to an index")
        if array.size != 1:
            raise ValueError("only one element tensors can be converted to Python scalars")
        # float() warns of the lost gradient.
        return float(tensor) if tensor.requires_grad else array.item()
    if isinstance(value, (np.generic, np.ndarray)):
        return value.item()
    kind = type(value)
    if isinstance(value, (bool, int, float)):
        return float(value) if isinstance(value, float) else int(value)
    if whole:
        if hasattr(kind, "__index__"):
            return value.__index__()
        raise TypeError(f"'{kind.__name__}' object cannot be interpreted as an integer")
    if isinstance(value, str) or not (hasattr(kind, "__float__") or hasattr(kind, "__index__")):
        raise TypeError(f"must be real number, not {kind.__name__}")
    return float(value)


def _stored(numbers: list[Any], kinds: set[type], wanted: np.dtype[Any]) -> np.ndarray[Any, Any]:
    """Python's numbers in a dtype."""
    if wanted.kind in "iu":
        return _whole(numbers, kinds, wanted)
    token = quiet()  # too large a number is inf
    try:
        if wanted.kind == "b":
            return np.array(numbers).astype(wanted)
        if wanted.itemsize == 2:  # PyTorch goes by way of float32, too
            return np.array(numbers, np.float32).astype(wanted)
        return np.array(numbers, wanted)
    finally:
        loud(token)


def _whole(numbers: list[Any], kinds: set[type], wanted: np.dtype[Any]) -> np.ndarray[Any, Any]:
    try:
        if float in kinds:
            if wanted.kind == "u" and any(n < 0 and n.__class__ is float for n in numbers):
                dtypes.check_fits(0, 1 << 64, wanted, "{}")  # only ints below 0 wrap around
            numbers = [int(n) for n in numbers]
        wide = np.array(numbers, np.int64)
    except (OverflowError, ValueError):  # inf and NaN are none either
        if float in kinds:
            dtypes.check_fits(0, 1 << 64, wanted, "{}")
        raise ValueError(_OVERFLOW) from None
    dtypes.check_fits(int(wide.min()), int(wide.max()), wanted, "{}")
    return wide.astype(wanted, copy=False)
