"""Recorded: a NumPy array that tells the recorder of everything that is done with it.

While a step is recorded, ``Tensor.array`` hands out arrays of this class. They share the memory of
ordinary arrays, and every ufunc, function and method applied to them comes to `Recorder.run`.
Outside a recording they behave as ordinary arrays. `Face` is what they have in common with those
of a GPU.
"""

from __future__ import annotations

import operator
import sys
import threading
from typing import Any

import numpy as np

from gradlite.capturing.calls import CaptureError
from gradlite.tensor import Tensor


class Held:
    """The state of a draw, which ops hand on to kernels as if it were no array."""

    __slots__ = ("face",)

    def __init__(self, face: Any) -> None:
        self.face = face


# The recorder of the thread that records; None while none does.
current: Any = None


def active() -> Any:
    """The recorder if this thread records just now, else None."""
    recorder = current
    if recorder is None or recorder.paused or recorder.thread != threading.get_ident():
        return None
    return recorder


def current_recorder() -> Any:
    """The recorder if this thread records, also where it does not note what is called."""
    recorder = current
    return None if recorder is None or recorder.thread != threading.get_ident() else recorder


METHODS = (
    "all any argmax argmin argpartition argsort astype choose clip compress conj conjugate copy "
    "cumprod cumsum "
    "diagonal dot fill flatten max mean min nonzero partition prod put ravel "
    "repeat reshape round searchsorted sort squeeze std sum swapaxes take trace transpose var view"
).split()


class Face:
    """Another face of an ordinary array, its attribute ``plain``, with the same memory."""

    __slots__ = ()

    def __iter__(self: Any) -> Any:
        return (self[i] for i in range(len(self)))

    # ------------------------------------------------------- values that reach the host
    def __bool__(self) -> bool:
        value = bool(plain(self))
        recorder = active()
        if recorder is not None:
            recorder.guard(self, value)
        return value

    def _read(self, how: str) -> None:
        recorder = active()
        if recorder is not None and recorder.depends(self):
            recorder.read(plain(self), how)

    def item(self, *args: Any) -> Any:
        """A value as a Python number: in a recording a whole one."""
        self._read("item()")
        return plain(self).item(*args)

    def tolist(self) -> Any:
        """The values as Python numbers: in a recording whole ones."""
        self._read("tolist()")
        return plain(self).tolist()

    def tobytes(self, *args: Any) -> bytes:
        """The values as bytes: refused in a recording."""
        self._read("tobytes()")
        return plain(self).tobytes(*args)

    def __float__(self) -> float:
        self._read("float()")
        return float(plain(self))

    def __int__(self) -> int:
        self._read("int()")
        return int(plain(self))

    def __index__(self) -> int:
        self._read("index()")
        return operator.index(plain(self))

    def __repr__(self) -> str:
        self._read("repr()")
        return repr(plain(self))

    def __str__(self) -> str:
        self._read("str()")
        return str(plain(self))

    def __format__(self, spec: str) -> str:
        self._read("format()")
        return format(plain(self), spec)

    # ------------------------------------------------------------------- views of itself
    @property
    def T(self: Any) -> Any:  # noqa: N802
        """The array with its dimensions in reverse order."""
        return self.transpose()

    @property
    def mT(self: Any) -> Any:  # noqa: N802
        """The array with its last two dimensions swapped."""
        return self.swapaxes(-1, -2)

    @property
    def real(self) -> Any:
        """The array itself: there are no complex numbers."""
        return self

    def __copy__(self: Any) -> Any:
        return self.copy()

    def __deepcopy__(self: Any, memo: Any) -> Any:
        return self.copy()


class OfHost(Face):
    """A face of an array of NumPy's."""

    __slots__ = ()

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        recorder = active()
        if any(isinstance(value, Tensor) for value in inputs):
            return NotImplemented  # which is asked next, as if this were an ordinary array
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if recorder is None:
            return function(*map(plain, inputs), **plain_values(kwargs))
        if "out" in kwargs:
            kwargs["out"] = tuple(kwargs["out"])
        return recorder.run(function, inputs, kwargs)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        recorder = active()
        if any(issubclass(kind, Tensor) for kind in types):
            return NotImplemented
        if recorder is None:
            return function(*plain_values(args), **plain_values(kwargs))
        return recorder.run(function, args, kwargs)

    def __getitem__(self, key: Any) -> Any:
        recorder = active()
        if recorder is None:
            return plain(self)[plain_values(key)]
        return recorder.run(operator.getitem, (self, key), {})

    def __setitem__(self, key: Any, value: Any) -> None:
        recorder = active()
        if recorder is None:
            plain(self)[plain_values(key)] = plain(value)
        else:
            recorder.run(operator.setitem, (self, key, value), {})

    def _show(self, how: str) -> None:
        """The same for memory that the program or files ask for; CuPy may copy from it."""
        recorder, frame = active(), sys._getframe(2)
        name = frame.f_globals.get("__name__") or ""
        of_step = recorder is not None and recorder.is_of_step(frame.f_code)
        if of_step or name.startswith("gradlite.io"):
            self._read(how)

    @property
    def data(self) -> Any:
        """The memory: refused in a recording."""
        self._show("a buffer")
        return plain(self).data

    @property
    def ctypes(self) -> Any:
        """The memory for C: refused in a recording."""
        self._show("ctypes")
        return plain(self).ctypes

    def tofile(self, *args: Any, **kwargs: Any) -> None:
        """Write the values to a file: refused in a recording."""
        self._show("tofile()")
        plain(self).tofile(*args, **kwargs)

    def __reduce_ex__(self, protocol: Any) -> Any:
        self._read("pickle")
        return plain(self).__reduce_ex__(protocol)


class Recorded(OfHost, np.ndarray):  # type: ignore[misc, override]
    """An array whose uses are recorded; see the module's description.

    Attributes:
        plain: the ordinary array with the same memory, of which this is another face.
    """

    __array_priority__ = 1.0  # a method of an ordinary array gives one of these too: see `plain`
    plain: np.ndarray[Any, Any] | None

    def __array_finalize__(self, source: Any) -> None:
        self.plain = None

    def setflags(self, *args: Any, **kwargs: Any) -> None:
        np.ndarray.setflags(self, *args, **kwargs)
        plain(self).setflags(*args, **kwargs)

    def __pow__(self, other: Any, *modulus: Any) -> Any:
        if isinstance(other, np.ndarray) and not modulus:
            return np.power(self, other)  # before 2.3 NumPy looks whether a 0-d one is, say, 2
        return super().__pow__(other, *modulus)


def plain(value: Any) -> Any:
    """The ordinary array behind a recorded one; anything else as it is.

    Raises:
        CaptureError: the recorder has not seen who made the array.
    """
    if value.__class__ is not Recorded:
        return value.plain if isinstance(value, Face) else value  # type: ignore[attr-defined]
    if value.plain is None:
        if active() is not None:
            raise CaptureError(
                "a method of an array that is none of the step's own was called with one that is, "
                "as in a.dot(b), which is not recorded: call NumPy's function, np.dot(a, b)"
            )
        value.plain = np.ndarray.view(value, np.ndarray)
    return value.plain


def plain_values(value: Any) -> Any:
    """`plain` for arguments: also inside tuples, lists, dictionaries and slices."""
    cls = value.__class__
    if isinstance(value, Face):
        return plain(value)
    if cls is tuple or cls is list:
        return cls([plain_values(v) for v in value])
    if cls is dict:
        return {k: plain_values(v) for k, v in value.items()}
    return value


def _method(name: str) -> Any:
    function = getattr(np.ndarray, name)

    def method(self: OfHost, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return function(plain(self), *plain_values(args), **plain_values(kwargs))
        return recorder.run(function, (self, *args), kwargs)

    method.__name__ = name
    return method


for _name in METHODS:
    setattr(OfHost, _name, _method(_name))
