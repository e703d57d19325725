"""Data types: PyTorch's names over NumPy's dtypes, and PyTorch's promotion rule.

The raw arrays carry NumPy dtypes; the objects here are what users see (``gradlite.float32``)
and pass. Promotion lives here alone, because PyTorch's table differs from NumPy's:
``int64 + float32`` is float32, and a 0-d tensor or a Python number never widens a
dimensioned tensor of the same kind.

NumPy has no bfloat16: its arrays are of the package ml_dtypes, as CuPy's and JAX's are. It is
imported when the first of them is asked for (`dtype.numpy`), and what has to know of it by then
has asked to be told (`when_loaded`). So is the first use of either half precision (`when_used`),
before which nothing of it is on the way of an op.
"""

from __future__ import annotations

import builtins
import functools
from collections.abc import Callable
from typing import Any

import numpy as np


class dtype:
    """A data type, as ``gradlite.float32``; compare with ``==`` or ``is``.

    Attributes:
        numpy: the ``numpy.dtype`` of the arrays that carry it.
        is_floating_point: whether tensors of this type can require gradients.
        itemsize: bytes per element.
    """

    __slots__ = ("name", "numpy", "is_floating_point", "is_signed", "itemsize", "category")
    numpy: np.dtype[Any]

    def __init__(self, name: str, category: builtins.int, itemsize: builtins.int) -> None:
        self.name = name
        self.category = category  # 0 bool, 1 integral, 2 floating: a higher one always wins
        self.is_floating_point = category == 2
        self.is_signed = category != 0 and name != "uint8"
        self.itemsize = itemsize
        if name not in ("float16", "bfloat16"):
            self.numpy = np.dtype(name)

    def __getattr__(self, name: str) -> Any:  # of what is not there yet: `numpy` of a half
        if name != "numpy":
            raise AttributeError(f"'dtype' object has no attribute {name!r}")
        return _use(self)

    @property
    def is_complex(self) -> builtins.bool:
        """Always False: complex numbers are not part of gradlite."""
        return False

    def __repr__(self) -> str:
        return f"gradlite.{self.name}"

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"


float16 = half = dtype("float16", 2, 2)
bfloat16 = dtype("bfloat16", 2, 2)
float32 = dtype("float32", 2, 4)
float = float32
float64 = double = dtype("float64", 2, 8)
uint8 = dtype("uint8", 1, 1)
int8 = dtype("int8", 1, 1)
int16 = short = dtype("int16", 1, 2)
int32 = dtype("int32", 1, 4)
int = int32
int64 = long = dtype("int64", 1, 8)
bool = bool_ = dtype("bool", 0, 1)

ALL = (float16, bfloat16, float32, float64, uint8, int8, int16, int32, int64, bool)
_FROM_NUMPY: dict[np.dtype[Any], dtype] = {d.numpy: d for d in ALL if d not in (float16, bfloat16)}
_HALVES = {d.name: d for d in (float16, bfloat16)}
_FROM_PYTHON = {builtins.float: float64, builtins.int: int64, builtins.bool: bool}
FLOATING = {np.dtype(kind) for kind in (np.float16, np.float32, np.float64)}
HALVES = {np.dtype(np.float16)}  # the floating dtypes of 16 bits
_default = float32
_waiting: list[Callable[[np.dtype[Any]], None]] = []  # for bfloat16
_concerned: list[Callable[[], None]] = []  # by the use of either


def when_loaded(tell: Callable[[np.dtype[Any]], None]) -> None:
    """Call a function with the NumPy dtype of bfloat16 once that is known."""
    if bfloat16_is_loaded():
        tell(bfloat16.numpy)
    else:
        _waiting.append(tell)


def bfloat16_is_loaded() -> builtins.bool:
    """Whether there may be arrays of bfloat16."""
    return len(HALVES) > 1


def when_used(tell: Callable[[], None]) -> None:
    """Call a function whenever the first array of a dtype of half precision is asked for."""
    _concerned.append(tell)


def halves_in_use() -> frozenset[np.dtype[Any]]:
    """The dtypes of half precision of which there may be arrays."""
    return frozenset(HALVES.intersection(_FROM_NUMPY))


def _use(half: dtype) -> np.dtype[Any]:
    if half is bfloat16:
        _load_bfloat16()
    else:
        float16.numpy = np.dtype(np.float16)
        _FROM_NUMPY[float16.numpy] = float16
    for tell in _concerned:
        tell()
    return half.numpy


def _load_bfloat16() -> None:
    try:
        import ml_dtypes
    except ImportError as error:
        raise ImportError(
            "tensors of gradlite.bfloat16 need the package ml_dtypes: pip install ml_dtypes"
        ) from error
    numpy_dtype: np.dtype[Any] = np.dtype(ml_dtypes.bfloat16)
    bfloat16.numpy = numpy_dtype
    _FROM_NUMPY[numpy_dtype] = bfloat16
    FLOATING.add(numpy_dtype)
    HALVES.add(numpy_dtype)
    for tell in _waiting:
        tell(numpy_dtype)


def from_numpy_dtype(numpy_dtype: np.dtype[Any]) -> dtype:
    """The gradlite dtype of a NumPy dtype; TypeError when tensors cannot hold it."""
    found = _FROM_NUMPY.get(numpy_dtype)
    if found is None:
        native = numpy_dtype.newbyteorder("=")
        found = _HALVES.get(native.name)
        if found is None:
            found = _FROM_NUMPY.get(native)
        else:
            _ = found.numpy  # there are arrays of it
    if found is None:
        names = ", ".join(d.name for d in ALL)
        raise TypeError(
            f"can't convert np.ndarray of type {numpy_dtype}. "
            f"The only supported types are: {names}."
        )
    return found


def as_dtype(value: Any) -> dtype:
    """Accept what users write for a dtype: gradlite's, NumPy's, a Python type or a name."""
    if value.__class__ is dtype:
        return value
    try:
        if value in _FROM_PYTHON:
            return _FROM_PYTHON[value]
    except TypeError:
        pass
    if value.__class__ is str and value == "bfloat16":  # a name that NumPy may not know yet
        return bfloat16
    try:
        return from_numpy_dtype(np.dtype(value))
    except TypeError:
        raise TypeError(
            f"dtype must be a gradlite.dtype such as gradlite.float32, got {value!r}"
        ) from None


def get_default_dtype() -> dtype:
    """The dtype of tensors made from Python floats; float32 unless changed."""
    return _default


def set_default_dtype(d: Any) -> None:
    """Set the dtype of tensors made from Python floats.

    Raises:
        TypeError: the dtype is not a floating one.
    """
    global _default
    d = as_dtype(d)
    if not d.is_floating_point:
        raise TypeError(f"only floating-point types are supported as the default type, got {d}")
    _default = d


def category(numpy_dtype: np.dtype[Any]) -> builtins.int:
    """0 for bool, 1 for integers, 2 for floating types."""
    return _CATEGORIES.get(numpy_dtype.kind, 1)


_CATEGORIES = {"b": 0, "f": 2, "V": 2}  # V: bfloat16


def _promote_same(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """PyTorch's table for two dimensioned tensors."""
    ca, cb = category(a), category(b)
    if ca != cb:
        return a if ca > cb else b
    if ca == 2 and a != b and a.itemsize == b.itemsize:  # float16 and bfloat16
        return float32.numpy
    return np.promote_types(a, b)


def promote_types(type1: Any, type2: Any) -> dtype:
    """The dtype of a result of two dimensioned tensors.

    >>> promote_types(int64, float16)
    gradlite.float16
    """
    return from_numpy_dtype(_promote_same(as_dtype(type1).numpy, as_dtype(type2).numpy))


def check_fits(
    least: builtins.int, most: builtins.int, numpy_dtype: np.dtype[Any], named: str = "{}_t"
) -> None:
    """RuntimeError when ints are too large for a dtype to be filled with.

    As in PyTorch, numbers below 0 wrap around where the dtype is unsigned.
    """
    top = (1 << 8 * numpy_dtype.itemsize - (numpy_dtype.kind == "i")) - 1
    if most > top or least < (-top if numpy_dtype.kind == "u" else -top - 1):
        name = named.format(from_numpy_dtype(numpy_dtype).name).replace("int32_t", "int")
        raise RuntimeError(f"value cannot be converted to type {name} without overflow")


@functools.cache
def limits(numpy_dtype: np.dtype[Any]) -> tuple[Any, Any, str]:
    """The least and the largest number of a dtype, and its name in C++."""
    d = from_numpy_dtype(numpy_dtype)
    if d.category == 1:
        integers = iinfo(d)
        return integers.min, integers.max, "int" if d is int32 else f"{d.name}_t"
    names = {"float16": "c10::Half", "bfloat16": "c10::BFloat16", "float32": "float"}
    return finfo(d).min, finfo(d).max, names.get(d.name, "double")


def wrapped(number: builtins.int, numpy_dtype: np.dtype[Any]) -> builtins.int:
    """A Python int as it counts beside a tensor of an integer dtype: modulo its range.

    >>> wrapped(-1, np.dtype(np.uint8))
    255
    """
    if not -(1 << 63) <= number < 1 << 63:
        raise OverflowError("int too big to convert")
    bits = 8 * numpy_dtype.itemsize
    number &= (1 << bits) - 1
    return number - (1 << bits) if numpy_dtype.kind == "i" and number >> bits - 1 else number


def result_dtype(operands: builtins.list[Any] | tuple[Any, ...]) -> np.dtype[Any]:
    """The NumPy dtype that PyTorch computes in for raw arrays and Python numbers together.

    Dimensioned arrays come first, then 0-d arrays, then Python numbers: a later group
    decides only when its category (bool < integer < float) is higher than all before it.
    """
    groups: builtins.list[np.dtype[Any] | None] = [None, None, None]
    for operand in operands:
        if isinstance(operand, builtins.bool):
            place, d = 2, bool.numpy
        elif isinstance(operand, builtins.int):
            place, d = 2, int64.numpy
        elif isinstance(operand, builtins.float):
            place, d = 2, _default.numpy
        else:
            place, d = (0 if operand.ndim else 1), operand.dtype
        seen = groups[place]
        groups[place] = d if seen is None else _promote_same(seen, d)
    result: np.dtype[Any] | None = None
    for place, known in enumerate(groups):
        if known is None:
            continue
        if result is None or category(known) > category(result):
            # A lone Python float beside integer tensors means the default dtype.
            result = _default.numpy if place == 2 and category(known) == 2 else known
    assert result is not None
    return result


class finfo:
    """Limits of a floating dtype: ``bits eps max min tiny smallest_normal resolution``."""

    def __init__(self, type: Any = None) -> None:
        self._dtype = as_dtype(type) if type is not None else _default
        if not self._dtype.is_floating_point:
            raise TypeError(
                "gradlite.finfo() requires a floating point input type. "
                "Use gradlite.iinfo to handle 'gradlite.finfo'"
            )
        self.bits = 8 * self._dtype.itemsize
        self.dtype = self._dtype.name
        if self._dtype is bfloat16:  # the exponents of float32, and 8 bits of precision
            self.eps, self.max, self.resolution = 2.0**-7, (2 - 2.0**-7) * 2.0**127, 0.01
            self.tiny = 2.0**-126
        else:
            info = np.finfo(self._dtype.numpy)
            self.eps, self.max = builtins.float(info.eps), builtins.float(info.max)
            self.resolution, self.tiny = 10.0**-info.precision, builtins.float(info.tiny)
        self.min, self.smallest_normal = -self.max, self.tiny

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, "
            f"eps={self.eps:g}, smallest_normal={self.smallest_normal:g}, "
            f"tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer dtype: ``bits max min``."""

    def __init__(self, type: Any) -> None:
        self._dtype = as_dtype(type)
        if self._dtype is bool:
            raise TypeError("gradlite.bool is not supported by gradlite.iinfo")
        if self._dtype.is_floating_point:
            raise TypeError(
                "gradlite.iinfo() requires an integer input type. "
                "Use gradlite.finfo to handle 'gradlite.iinfo'"
            )
        info = np.iinfo(self._dtype.numpy)
        self.bits = info.bits
        self.max = builtins.int(info.max)
        self.min = builtins.int(info.min)
        self.dtype = self._dtype.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
