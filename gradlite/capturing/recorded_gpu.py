"""RecordedGpu: what stands for an array of a GPU while a step is recorded.

CuPy's functions do not tell anybody of their calls, so this is no array of CuPy's but a face of
one: its operators and methods, and the functions of `library.GpuLibrary`, come to `Recorder.run`.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from typing import Any

from gradlite.capturing.calls import CaptureError
from gradlite.capturing.recorded import METHODS, Face, active, plain, plain_values

WRITING_METHODS = ("fill", "partition", "put", "set", "sort")


class RecordedGpu(Face):
    """A face of an array of a GPU.

    Attributes:
        plain: the array.
    """

    __slots__ = ("plain", "__weakref__")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 200

    def __init__(self, array: Any) -> None:
        self.plain = array

    shape = property(lambda self: self.plain.shape)
    dtype = property(lambda self: self.plain.dtype)
    ndim = property(lambda self: self.plain.ndim)
    size = property(lambda self: self.plain.size)
    itemsize = property(lambda self: self.plain.itemsize)
    nbytes = property(lambda self: self.plain.nbytes)
    strides = property(lambda self: self.plain.strides)
    flags = property(lambda self: self.plain.flags)
    device = property(lambda self: self.plain.device)
    base = property(lambda self: self.plain.base)
    data = property(lambda self: self.plain.data)

    def __len__(self) -> int:
        return len(self.plain)

    def __getitem__(self, key: Any) -> Any:
        return _run(operator.getitem, (self, key))

    def __setitem__(self, key: Any, value: Any) -> None:
        _run(operator.setitem, (self, key, value), writes=[self])

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        function = ufunc if method == "__call__" else getattr(ufunc, method)
        if "out" in kwargs:
            kwargs["out"] = tuple(kwargs["out"])
        return _run(function, inputs, kwargs, [inputs[0]] if method == "at" else None)

    def __array_function__(self, function: Any, types: Any, args: Any, kwargs: Any) -> Any:
        return _run(function, args, kwargs)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        """For other libraries: outside of recordings, because none would hear of what they do."""
        if active() is not None:
            raise CaptureError(
                "a captured step hands a tensor's memory to code that is not gradlite's: what that "
                "does, a replay would not do. Keep it out of the step"
            )
        return self.plain.__cuda_array_interface__  # type: ignore[no-any-return]

    def get(self, *args: Any, **kwargs: Any) -> Any:
        """The values on the host: refused in a recording."""
        self._read("a copy to the CPU")
        return self.plain.get(*args, **kwargs)


def _run(
    function: Callable[..., Any],
    args: Sequence[Any],
    kwargs: dict[str, Any] | None = None,
    writes: list[Any] | None = None,
) -> Any:
    recorder = active()
    if recorder is None:
        return function(*plain_values(tuple(args)), **plain_values(kwargs or {}))
    return recorder.run(function, args, kwargs or {}, writes)


def _method(name: str) -> Any:
    def method(self: RecordedGpu, *args: Any, **kwargs: Any) -> Any:
        function = getattr(type(plain(self)), name)
        return _run(function, (self, *args), kwargs, [self] if name in WRITING_METHODS else None)

    method.__name__ = name
    return method


for _name in (*METHODS, "set"):
    setattr(RecordedGpu, _name, _method(_name))


def _operators(name: str, function: Any, in_place: Any) -> None:
    def forward(self: RecordedGpu, other: Any) -> Any:
        return _run(function, (self, other))

    def reflected(self: RecordedGpu, other: Any) -> Any:
        return _run(function, (other, self))

    def changed(self: RecordedGpu, other: Any) -> Any:
        return _run(in_place, (self, other), writes=[self])

    setattr(RecordedGpu, f"__{name}__", forward)
    if in_place is not None:
        setattr(RecordedGpu, f"__r{name}__", reflected)
        setattr(RecordedGpu, f"__i{name}__", changed)


for _name in "add sub mul truediv floordiv mod pow matmul and or xor lshift rshift".split():
    _word = f"{_name}_" if _name in ("and", "or") else _name
    _operators(_name, getattr(operator, _word), getattr(operator, f"i{_name}"))
for _name in "lt le gt ge eq ne".split():
    _operators(_name, getattr(operator, _name), None)


def _unary(name: str) -> Any:
    function = getattr(operator, name)

    def method(self: RecordedGpu) -> Any:
        return _run(function, (self,))

    return method


for _name in ("neg", "pos", "abs", "invert"):
    setattr(RecordedGpu, f"__{_name}__", _unary(_name))
