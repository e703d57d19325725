"""Stream capture and graphs: what was asked of a capturing stream is kept, and run by launches.

As on a GPU nothing happens while a stream captures: results have their shapes, and any values.
What CUDA and CuPy refuse then is refused with their errors (``tests/cupy_tests/cuda_tests/
test_graph.py`` of CuPy tells which), and so is what would go wrong later: memory of the default
pool taken during a capture, and a launch after memory that the graph uses was given back.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np


class CUDARuntimeError(RuntimeError):
    """``cupy.cuda.runtime.CUDARuntimeError``."""


INVALIDATED = (
    "cudaErrorStreamCaptureInvalidated: operation failed due to a previous error during capture"
)


class Capture:
    """What a stream has been asked for since its capture began.

    Attributes:
        operations: what to run, in order.
        names: of the operations.
        invalid: whether something illegal has happened, so that no graph will come of it.
    """

    def __init__(self) -> None:
        self.operations: list[Callable[[], Any]] = []
        self.names: list[str] = []
        self.invalid = False
        # By a block's id, weakly: block, pool, the memory it is part of; and what uses it.
        self.used: dict[int, tuple[Any, Any, Any, str]] = {}
        self.fresh: list[tuple[Any, np.ndarray[Any, Any]]] = []  # block, weak, and its array

    def add(self, name: str, operation: Callable[[], Any], arrays: Iterable[Any]) -> None:
        """Keep an operation that reads and writes device arrays."""
        self.operations.append(operation)
        self.names.append(name)
        for array in arrays:
            block = getattr(array, "memory", None)
            if hasattr(block, "pool"):
                self._use(block, name)

    def add_result(self, array: Any) -> None:
        """Note an array that the last operation makes: it has any values until then."""
        block = array.memory
        self._use(block, "result")
        self.fresh.append((weakref.ref(block), array.host))
        spoil(array.host)

    def _use(self, block: Any, name: str) -> None:
        chunk = None if block.chunk is None else weakref.ref(block.chunk.mem)
        weak = weakref.ref(block), weakref.ref(block.pool), chunk
        self.used.setdefault(id(block), (*weak, name))

    def refuse(self, error: str) -> CUDARuntimeError:
        """The error of a call that ends what a capture can become."""
        self.invalid = True
        return CUDARuntimeError(error)


def spoil(array: np.ndarray[Any, Any]) -> None:
    """Put values in an array that nobody should see."""
    array[...] = np.nan if array.dtype.kind == "f" else 0


class Graph:
    """``cupy.cuda.Graph``; ``names`` is the stand-in's own."""

    def __init__(self, capture: Capture, current: Callable[[], Any]) -> None:
        self.names = capture.names
        self._capture, self._current = capture, current

    def upload(self, stream: Any = None) -> None:
        pass

    def launch(self, stream: Any = None) -> None:
        stream = self._current() if stream is None else stream
        if stream.capture is not None:
            raise NotImplementedError("the stand-in knows no graphs inside of graphs")
        for block, pool, chunk, name in self._capture.used.values():
            # What a pool of the graph's own has back stays its memory while the pool lives, and
            # does not give it back itself.
            gone = pool() is None or pool().is_default or (chunk is not None and chunk() is None)
            if block() is None and gone:
                raise CUDARuntimeError(f"cudaErrorIllegalAddress: {name} uses memory given back")
        for block, array in self._capture.fresh:
            if block() is None:  # others may have used the memory since
                spoil(array)
        with quiet():
            for operation in self._capture.operations:
                operation()


@contextmanager
def quiet() -> Iterator[None]:
    """Computing with any values warns of many things."""
    with np.errstate(all="ignore"):
        yield
