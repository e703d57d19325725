"""Shown: what the step's own code has in place of NumPy's arrays while it is recorded.

An array of a class derived from NumPy's can be read in C without a trace: ``table[x]``,
``table.dot(x)``, ``table[:] = x``, SciPy's functions. So this is none, though it says so to
`isinstance`: what is done with it comes to `Recorder.run`, and code that reads memory has to ask
for an array first.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.capturing.calls import CaptureError
from gradlite.capturing.recorded import OfHost, Recorded, current_recorder

UNSEEN = (
    "the step hands an array to code that reads memory by itself, which a recording cannot follow "
    "({}): call it outside of the step and give its result to the step, or use functions of "
    "NumPy's or gradlite's"
)


class Shown(OfHost):
    """A face of an array of NumPy's, for the step's own code.

    Attributes:
        plain: the array.
    """

    __slots__ = ("plain", "__weakref__")

    def __init__(self, array: Any) -> None:
        self.plain = array

    __class__ = property(lambda self: Recorded)  # type: ignore[assignment]
    dtype = property(lambda self: self.plain.dtype)
    ndim = property(lambda self: self.plain.ndim)
    size = property(lambda self: self.plain.size)
    itemsize = property(lambda self: self.plain.itemsize)
    nbytes = property(lambda self: self.plain.nbytes)
    flags = property(lambda self: self.plain.flags)
    base = property(lambda self: self.plain.base)
    shape = property(lambda self: self.plain.shape)
    strides = property(lambda self: self.plain.strides)

    @property
    def flat(self) -> Any:
        """All elements in a row, in the same memory.

        Raises:
            CaptureError: they do not lie so.
        """
        if not self.plain.flags.c_contiguous:
            raise CaptureError(UNSEEN.format("flat"))
        return self.reshape(-1)

    @property
    def imag(self) -> Any:
        """Zeros: there are no complex numbers."""
        return np.multiply(self, 0)  # type: ignore[call-overload]

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or not hasattr(np.ndarray, name):
            raise AttributeError(f"'numpy.ndarray' object has no attribute {name!r}")
        raise CaptureError(UNSEEN.format(name))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        """An array for code that reads memory: its values are noted, and nobody may change them."""
        array, recorder = self.plain, current_recorder()
        if recorder is not None:
            recorder.give(array)
            array = array.view()
            array.flags.writeable = False
        return np.array(array, dtype) if copy else array.astype(dtype or array.dtype, copy=False)

    def __buffer__(self, flags: int) -> memoryview:
        return memoryview(self.__array__())  # type: ignore[arg-type]

    def __hash__(self) -> int:
        if self.plain.ndim:
            raise TypeError("unhashable type: 'numpy.ndarray'")
        self._read("int()")  # as a key of a dictionary
        return hash(self.plain.item())

    def __len__(self) -> int:
        return len(self.plain)

    def __contains__(self, item: Any) -> bool:
        return bool((self == item).any())

    def __round__(self, digits: int | None = None) -> Any:
        return round(self.item(), digits)  # as NumPy's scalars do

    def __complex__(self) -> complex:
        return complex(float(self))

    def setflags(self, *args: Any, **kwargs: Any) -> None:
        self.plain.setflags(*args, **kwargs)


def _defers(other: Any) -> bool:
    """Whether an operator is the other operand's, as a tensor's."""
    if isinstance(other, (np.ndarray, np.generic, int, float)):
        return False
    if hasattr(type(other), "__array_ufunc__"):
        return type(other).__array_ufunc__ is None
    return getattr(type(other), "__array_priority__", -1.0) > 0


def _operators(name: str, function: Callable[..., Any], kinds: str) -> None:
    def forward(self: Shown, other: Any) -> Any:
        return NotImplemented if _defers(other) else function(self, other)

    def reflected(self: Shown, other: Any) -> Any:
        return NotImplemented if _defers(other) else function(other, self)

    def in_place(self: Shown, other: Any) -> Any:
        return function(self, other, out=(self,))

    for prefix, method in (("", forward), ("r", reflected), ("i", in_place)):
        if prefix in kinds.split(","):
            setattr(Shown, f"__{prefix}{name}__", method)


ARITHMETIC: dict[str, Any] = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "truediv": np.true_divide,
    "floordiv": np.floor_divide, "mod": np.remainder, "pow": np.power, "matmul": np.matmul,
    "and": np.bitwise_and, "or": np.bitwise_or, "xor": np.bitwise_xor, "lshift": np.left_shift,
    "rshift": np.right_shift,
}  # fmt: skip
COMPARISONS: dict[str, Any] = {
    "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal, "eq": np.equal,
    "ne": np.not_equal,
}  # fmt: skip
UNARY: dict[str, Any] = {
    "neg": np.negative, "pos": np.positive, "abs": np.absolute, "invert": np.invert,
}  # fmt: skip
for _name, _ufunc in ARITHMETIC.items():
    _operators(_name, _ufunc, ",r,i")
_operators("divmod", np.divmod, ",r")
for _name, _ufunc in COMPARISONS.items():
    _operators(_name, _ufunc, "")
for _name, _ufunc in UNARY.items():
    setattr(Shown, f"__{_name}__", lambda self, function=_ufunc: function(self))


def shown_to(step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
    """What a step gives that finds such arrays.

    Raises:
        CaptureError: some code in it takes nothing but NumPy's own.
    """
    try:
        return step(*args, **kwargs)
    except (TypeError, RuntimeError) as error:
        text = str(error)
        buffer = "buffer" in text and isinstance(error, TypeError)
        if (Shown.__name__ in text or buffer) and not isinstance(error, CaptureError):
            raise CaptureError(
                UNSEEN.format(str(error).replace(Shown.__name__, "numpy.ndarray"))
            ) from error
        raise
