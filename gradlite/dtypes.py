"""Data types: PyTorch's names over NumPy's dtypes, and PyTorch's promotion rule.

The raw arrays carry NumPy dtypes; the objects here are what users see (``gradlite.float32``)
and pass. Promotion lives here alone, because PyTorch's table differs from NumPy's:
``int64 + float32`` is float32, and a 0-d tensor or a Python number never widens a
dimensioned tensor of the same kind.
"""

from __future__ import annotations

import builtins
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

    def __init__(self, name: str, numpy_name: str, category: builtins.int) -> None:
        self.name = name
        self.numpy = np.dtype(numpy_name)
        self.category = category  # 0 bool, 1 integral, 2 floating: a higher one always wins
        self.is_floating_point = category == 2
        self.is_signed = self.numpy.kind != "u" and category != 0
        self.itemsize = self.numpy.itemsize

    @property
    def is_complex(self) -> builtins.bool:
        """Always False: complex numbers are not part of gradlite."""
        return False

    def __repr__(self) -> str:
        return f"gradlite.{self.name}"

    def __reduce__(self) -> str:
        return self.name if self.name != "bool" else "bool_"


float16 = half = dtype("float16", "float16", 2)
float32 = dtype("float32", "float32", 2)
float = float32
float64 = double = dtype("float64", "float64", 2)
uint8 = dtype("uint8", "uint8", 1)
int8 = dtype("int8", "int8", 1)
int16 = short = dtype("int16", "int16", 1)
int32 = dtype("int32", "int32", 1)
int = int32
int64 = long = dtype("int64", "int64", 1)
bool = bool_ = dtype("bool", "bool", 0)

ALL = (float16, float32, float64, uint8, int8, int16, int32, int64, bool)
_FROM_NUMPY: dict[np.dtype[Any], dtype] = {d.numpy: d for d in ALL}
_FROM_PYTHON = {builtins.float: None, builtins.int: int64, builtins.bool: bool}
FLOATING = frozenset(d.numpy for d in ALL if d.is_floating_point)
_default = float32


def from_numpy_dtype(numpy_dtype: np.dtype[Any]) -> dtype:
    """The gradlite dtype of a NumPy dtype; TypeError when tensors cannot hold it."""
    found = _FROM_NUMPY.get(numpy_dtype)
    if found is None:
        native = numpy_dtype.newbyteorder("=")
        found = _FROM_NUMPY.get(native)
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
            return _FROM_PYTHON[value] or _default
    except TypeError:
        pass
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
    kind = numpy_dtype.kind
    return 2 if kind == "f" else (0 if kind == "b" else 1)


def _promote_same(a: np.dtype[Any], b: np.dtype[Any]) -> np.dtype[Any]:
    """PyTorch's table for two dimensioned tensors."""
    ca, cb = category(a), category(b)
    if ca != cb:
        return a if ca > cb else b
    return np.promote_types(a, b)


def promote_types(type1: Any, type2: Any) -> dtype:
    """The dtype of a result of two dimensioned tensors.

    >>> promote_types(int64, float16)
    gradlite.float16
    """
    return from_numpy_dtype(_promote_same(as_dtype(type1).numpy, as_dtype(type2).numpy))


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
                "Use gradlite.iinfo to handle integer types"
            )
        info = np.finfo(self._dtype.numpy)
        self.bits = info.bits
        self.eps = builtins.float(info.eps)
        self.max = builtins.float(info.max)
        self.min = builtins.float(info.min)
        self.tiny = self.smallest_normal = builtins.float(info.tiny)
        self.resolution = builtins.float(info.resolution)
        self.dtype = self._dtype.name

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
        if self._dtype.category != 1:
            raise TypeError(f"gradlite.iinfo() requires an integer input type, got {self._dtype}")
        info = np.iinfo(self._dtype.numpy)
        self.bits = info.bits
        self.max = builtins.int(info.max)
        self.min = builtins.int(info.min)
        self.dtype = self._dtype.name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min:g}, max={self.max:g}, dtype={self.dtype})"
