"""The array libraries as the ops see them during a recording: what they make is recorded."""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from gradlite.backends.kernel_source import kernel
from gradlite.backends.kernels import Launcher
from gradlite.capturing.calls import CaptureError
from gradlite.capturing.recorded import Face, Held, active, plain_values
from gradlite.capturing.recorded_gpu import RecordedGpu
from gradlite.capturing.recorder import Recorder

WRITING = ("copyto", "fill_diagonal", "place", "put", "put_along_axis", "putmask")
# Of a launcher: its geometry, what it is able to do, and what it keeps.
ARRAYLESS = (
    "acc", "compile", "constants", "elementwise_grid", "errors", "kept_geometry", "multiplies",
    "packed_geometry", "processors", "ready", "row_geometry", "serial", "table_blocks",
)  # fmt: skip
LIKE = ("empty_like", "zeros_like", "ones_like", "full_like")


class Library(types.ModuleType):
    """NumPy as the ops see it during a recording: the arrays that it makes are recorded."""

    def __init__(self, source: Any, recorder: Recorder) -> None:
        super().__init__(source.__name__)
        self._source, self._recorder = source, recorder

    def __getattr__(self, name: str) -> Any:
        found = self._replaced(name, getattr(self._source, name))
        setattr(self, name, found)
        return found

    def _replaced(self, name: str, found: Any) -> Any:
        if isinstance(found, types.ModuleType):
            return Library(found, self._recorder)
        if callable(found) and not isinstance(found, (type, np.ufunc)):
            return _function(found, name, self._recorder)
        return found


class GpuLibrary(Library):
    """CuPy, or a part of it, as the ops see it during a recording."""

    def __init__(self, source: Any, recorder: Recorder, ufunc: type) -> None:
        super().__init__(source, recorder)
        self._ufunc = ufunc

    def _replaced(self, name: str, found: Any) -> Any:
        if name == "cuda":
            return found
        if name == "ndarray":
            return RecordedGpu
        if isinstance(found, types.ModuleType):
            return GpuLibrary(found, self._recorder, self._ufunc)
        if isinstance(found, self._ufunc):
            return _Ufunc(found, self._recorder)
        if callable(found) and not isinstance(found, type):
            return _function(found, name, self._recorder)
        return found


def _function(function: Any, name: str, recorder: Recorder) -> Any:
    blank = name.startswith("empty")

    def call(*args: Any, **kwargs: Any) -> Any:
        if active() is not recorder:
            return function(*args, **kwargs)
        if mentions_recorded(args) or mentions_recorded(tuple(kwargs.values())):
            args, kwargs = recorder.hidden(args), recorder.hidden(kwargs)
            if name in LIKE:
                return recorder.made(function(*plain_values(args), **plain_values(kwargs)), blank)
            on_gpu = args and isinstance(args[0], RecordedGpu)
            return recorder.run(
                function, args, kwargs, [args[0]] if on_gpu and name in WRITING else None
            )
        return recorder.made(function(*args, **kwargs), blank)

    call.__name__ = name
    return call


def mentions_recorded(value: Any) -> bool:
    """Whether there is a recorded array among arguments."""
    if value.__class__ is tuple or value.__class__ is list:
        return any(map(mentions_recorded, value))
    return isinstance(value, Face)


class _Ufunc:
    """A ufunc of CuPy's."""

    def __init__(self, ufunc: Any, recorder: Recorder) -> None:
        self._ufunc, self._recorder = ufunc, recorder
        self.__name__, self.nin, self.nout = ufunc.__name__, ufunc.nin, ufunc.nout

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if active() is not self._recorder:
            return self._ufunc(*plain_values(args), **plain_values(kwargs))
        if len(args) > self.nin:
            args, kwargs = args[: self.nin], {**kwargs, "out": args[self.nin :]}
        return self._recorder.run(self._ufunc, args, kwargs)

    def __getattr__(self, name: str) -> Any:
        if name not in ("accumulate", "at", "outer", "reduce", "reduceat"):
            raise AttributeError(f"{self.__name__} has no attribute {name!r}")
        method = getattr(self._ufunc, name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if active() is not self._recorder:
                return method(*plain_values(args), **plain_values(kwargs))
            return self._recorder.run(method, args, kwargs, [args[0]] if name == "at" else None)

        return call


class RecordingLauncher:
    """Launches kernels, and has every launch recorded; ``K`` as the fused functions see it.

    Args:
        K: the launcher of the arrays themselves.
        library: what the fused functions find under ``K.xp``.
        face: the class of the recorded arrays.
    """

    def __init__(
        self, K: Any, library: Library, recorder: Recorder, face: type = RecordedGpu
    ) -> None:
        self._real, self.xp, self._recorder = K, library, recorder
        self.array = face
        self.empty, self.zeros = library.empty, library.zeros
        self.tables: dict[Any, Any] = {}  # what is kept of one step must not come into others

    def __getattr__(self, name: str) -> Any:
        # What would get arrays must not get faces of them.
        if name not in ARRAYLESS:
            raise AttributeError(f"a launcher that records has no {name!r}")
        return getattr(self._real, name)

    takes, dense, empty_like = Launcher.takes, Launcher.dense, Launcher.empty_like
    reach = Launcher.reach
    elementwise, prepared, rows = Launcher.elementwise, Launcher.prepared, Launcher.rows
    kept_rows, packed_rows = Launcher.kept_rows, Launcher.packed_rows
    launch = Launcher.launch

    @property
    def gemm(self) -> Any:
        """The products of matrices, recorded."""
        return _Products(self._real.gemm, self._recorder)

    def address(self, array: Any) -> int:
        """CaptureError: an address would not be that of a replay."""
        raise CaptureError("a captured step needs the address of an array, which a replay moves")

    def addresses(self, arrays: list[Any], dtype: Any, out: Any) -> bool:
        """CaptureError, as `address`."""
        raise CaptureError("a captured step needs addresses of arrays, which a replay moves")

    def _launch(
        self, name: str, dtype: Any, grid: Any, block: Any, arguments: Any, shared: int
    ) -> None:
        if active() is not self._recorder:
            self._real._launch(name, dtype, grid, block, plain_values(arguments), shared)
            return
        values = tuple(a.face if a.__class__ is Held else a for a in arguments)
        parameters = kernel(name).parameters
        # What is no face is the library's own, as the place where errors are noted.
        writes = [a for a, p in zip(values, parameters) if p.written and isinstance(a, Face)]
        self._recorder.run(
            self._real._launch, (name, dtype, grid, block, values, shared), {}, writes
        )


class _Products:
    """The products of a GPU, with every call recorded."""

    def __init__(self, products: Any, recorder: Recorder) -> None:
        self._products, self._recorder = products, recorder

    def __getattr__(self, name: str) -> Any:
        method = getattr(self._products, name)
        # Which argument a product is written to, where one is given.
        place = {"matmul": 2, "add_into": 0, "with_row_sums": 2}.get(name)

        def call(*args: Any, **kwargs: Any) -> Any:
            if active() is not self._recorder:
                return method(*plain_values(args), **plain_values(kwargs))
            written = kwargs.pop("out", kwargs.pop("total", None))
            if written is not None:
                args = (*args[:place], written, *args[place:])  # type: ignore[misc]
            elif place is not None and len(args) > place:
                written = args[place]
            return self._recorder.run(method, args, kwargs, [] if written is None else [written])

        return call
