"""The memory of a recording: which arrays lie where, and what the step sees in their place."""

from __future__ import annotations

import bisect
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.backends import cuda
from gradlite.backends.memory import address
from gradlite.capturing.arrays import bounds, on_gpu, owner
from gradlite.capturing.calls import CONSTANT, STATE, AnyCall, Buffer, CaptureError, Ref
from gradlite.capturing.recorded import Face, Recorded, plain
from gradlite.capturing.recorded_gpu import RecordedGpu


class Memory:
    """What a recorder knows of arrays.

    Attributes:
        gpu: the number of the GPU whose arrays the step uses, if it uses any.
        kinds: the classes of arrays that get faces.
        calls: what has been recorded.
    """

    shown: Callable[[Any], Any]

    def __init__(self) -> None:
        self.gpu: int | None = None
        self._cupy = cuda.module() if cuda.in_use() else None
        self.kinds = (np.ndarray,) if self._cupy is None else (np.ndarray, self._cupy.ndarray)
        self.calls: list[AnyCall] = []
        self._starts: list[int] = []
        self._buffers: list[Buffer] = []
        self._faces: dict[int, Any] = {}
        self._shown: set[Buffer] = set()  # of NumPy's arrays from before the step
        self._mentioned: dict[Buffer, int] = {}  # constants: no later than which call

    def face(self, array: Any) -> Any:
        """The recorded array of an ordinary one, the same one every time."""
        known = self._faces.get(id(array))
        if known is None and on_gpu(array):
            known = self._faces[id(array)] = RecordedGpu(array)
        elif known is None:
            known = self._faces[id(array)] = array.view(Recorded)
            known.plain = array  # which keeps its id from being used again
        return known

    def state(self, array: np.ndarray[Any, Any]) -> Any:
        """The recorded array of one from before the step, which a replay reads as it is then."""
        buffer = self.find(array) or self._enter(array, STATE)
        buffer.kind = STATE
        self._shown.add(buffer)
        return self.shown(array)

    def is_shown(self, buffer: Buffer) -> bool:
        """Whether an array of NumPy's lies there that the step has been shown."""
        return buffer in self._shown

    def is_array(self, value: Any) -> bool:
        """Whether a value is an array or the face of one."""
        return isinstance(value, self.kinds) or isinstance(value, Face)

    def find(self, array: Any) -> Buffer | None:
        """The buffer in which an array lies, if it is known."""
        # One without elements may lie behind the last element of what it is a part of.
        at = address(array if array.size else owner(array))
        place = bisect.bisect_right(self._starts, at) - 1
        if place >= 0 and at < self._buffers[place].stop:
            return self._buffers[place]
        return None

    def _enter(self, array: Any, kind: str) -> Buffer:
        root = owner(array)
        start, stop = bounds(root)
        buffer = Buffer(root, start, max(stop, start + 1), kind, on_gpu(root))
        if buffer.on_gpu:
            self._note_gpu(int(root.device.id))
        place = bisect.bisect_left(self._starts, start)
        self._starts.insert(place, start)
        self._buffers.insert(place, buffer)
        return buffer

    def _note_gpu(self, index: int) -> None:
        assert self._cupy is not None
        if self.gpu is None:
            self.gpu = int(self._cupy.cuda.runtime.getDevice())
        if index != self.gpu:
            raise CaptureError(
                f"a captured step runs on one GPU, the current one: cuda:{self.gpu}, but it uses "
                f"a tensor of cuda:{index}"
            )

    def ref(self, array: Any) -> Ref:
        """The place of an array; the host has filled one that is not known yet."""
        buffer = self.find(array)
        if buffer is None:
            buffer = self._enter(array, CONSTANT)
        if buffer.kind == CONSTANT:
            self._mentioned.setdefault(buffer, len(self.calls))
        offset = address(array) - buffer.start
        return Ref(buffer, offset, array.shape, array.strides, array.dtype)

    def refs(self, value: Any) -> Any:
        """Arguments with a `Ref` in place of every array."""
        cls = value.__class__
        if self.is_array(value):
            array = plain(value)
            # A 0-d or empty array that nobody will write to may stand for itself.
            return self.ref(array) if array.size else array
        if cls is tuple or cls is list:
            return cls([self.refs(v) for v in value])
        if cls is dict:
            return {k: self.refs(v) for k, v in value.items()}
        return value
