"""Launching kernels: what the ops' fused functions see as ``K``.

One `Launcher` serves one array library. It finds a kernel by its name, compiles its file once
for each dtype and device, checks the arguments against the declaration, and chooses the size
of the launch. The cost of a launch counts as much as the kernel for small arrays, so everything
that can be known is kept, and what a launch still does is a few look-ups.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cached_property, lru_cache
from typing import Any

import numpy as np

from gradlite.backends import asserts
from gradlite.backends.kernel_source import SUFFIXES, Kernel, acc_dtype, kernel, source
from gradlite.backends.launches import note, recordings
from gradlite.backends.launches import record as record

BLOCK = 256
CONSTANTS_KEPT = 1024
_ELEMENTS = {  # of pointers, the dtype that does not depend on the storage dtype
    "i64": "int64", "u64": "uint64", "int": "int32", "u32": "uint32", "u16": "uint16",
    "u8": "uint8", "i8": "int8", "bool": "bool", "float": "float32", "double": "float64",
}  # fmt: skip
# Every launch is compared with its declaration in full, and not only the first of its kind.
check_all = False


class NoKernelError(RuntimeError):
    """A kernel cannot be compiled on this machine, and the op has to do without."""


class Entry:
    """A kernel, compiled for a dtype and a device.

    Attributes:
        run: ``run(grid, block, arguments, shared)`` launches it.
        seen: the classes of arguments that have been compared with the declaration.
    """

    __slots__ = ("kernel", "dtype", "run", "seen")

    def __init__(self, declared: Kernel, dtype: Any, run: Any) -> None:
        self.kernel, self.dtype, self.run = declared, dtype, run
        self.seen: set[tuple[type, ...]] = set()


class Launcher:
    """Launches kernels on the arrays of one library.

    Args:
        xp: the array library.
        processors: the multiprocessors of a device, which decide how many blocks a launch has.
    """

    multiplies = False  # whether it has `gemm`
    # Whether a launch is one serial loop: a kernel may then be slower than NumPy's own loops.
    serial = False

    def __init__(self, xp: Any, processors: int) -> None:
        self.xp = xp
        self.array = xp.ndarray
        self.empty = xp.empty
        self.zeros = xp.zeros
        self._entries: dict[Any, Entry] = {}
        self._notes: dict[int, asserts.Notes] = {}
        self.tables: dict[Any, Any] = {}  # those of tables.py
        self._constants: dict[Any, tuple[Any, ...]] = {}
        self.set_processors(processors)

    def set_processors(self, processors: int) -> None:
        """Choose launch sizes for a device with that many multiprocessors."""
        self.processors = processors
        # 2048 threads fit on one: twice as many blocks let the last ones even out the load.
        most = 16 * processors
        # Blocks of 32 waves that come and go keep memory busier than some that stay: 4 to 7 % on
        # an H100 at 64 Mi elements.
        waves = 256 * processors

        @lru_cache(maxsize=4096)
        def elementwise_grid(n: int) -> tuple[int]:
            return (min(-(-n // (4 * BLOCK)), waves),)

        def table_blocks(n: int) -> int:
            return min(-(-n // (4 * BLOCK)), most)

        @lru_cache(maxsize=4096)
        def row_geometry(rows: int, columns: int) -> tuple[tuple[int], tuple[int, int]]:
            # A warp to a row needs no barrier, but a long row keeps its 32 threads busy alone.
            if columns <= 256 or (columns <= 1024 and rows >= 8 * most):
                return (min(-(-rows // 8), most),), (32, 8)
            threads = min(BLOCK, max(64, 32 * -(-columns // 128)))
            return (min(rows, 4 * most),), (threads, 1)

        @lru_cache(maxsize=4096)
        def kept_geometry(rows: int, size: int) -> tuple[tuple[int], tuple[int, int]]:
            # Four packs of 16 bytes to a thread keep memory busy; a warp takes eight at most.
            packs = -(-size // 16)
            if packs <= 64 or (packs <= 256 and rows >= most):
                return (min(-(-rows // 8), most),), (32, 8)
            threads = min(BLOCK, max(64, 32 * -(-packs // 128)))
            return (min(rows, 4 * most),), (threads, 1)

        @lru_cache(maxsize=4096)
        def packed_geometry(rows: int, size: int) -> tuple[tuple[int], tuple[int, int]]:
            # As above, but few packs get few lanes of a warp, though four where there are as many,
            # which read 64 bytes together; and a thread takes eight of many rows.
            packs = -(-size // 16)
            lanes = max(-(-packs // (8 if rows >= most else 4)), min(packs, 4))
            if lanes > 32:
                return (min(rows, 4 * most),), (min(BLOCK, 32 * -(-lanes // 32)), 1)
            lanes = 1 << (lanes - 1).bit_length()
            return (min(-(-rows // (BLOCK // lanes)), most),), (lanes, BLOCK // lanes)

        self.elementwise_grid, self.row_geometry = elementwise_grid, row_geometry
        self.kept_geometry, self.packed_geometry = kept_geometry, packed_geometry
        self.table_blocks = table_blocks

    # ----------------------------------------------------------------------------- arrays
    acc = staticmethod(acc_dtype)

    def takes(self, *arrays: Any) -> bool:
        """Whether kernels can serve these arrays: one floating dtype, and none is empty."""
        dtype = arrays[0].dtype
        if dtype not in SUFFIXES:
            return False
        cls = self.array
        for array in arrays:
            if array.__class__ is not cls or not array.size or array.dtype != dtype:
                return False
        return True

    def dense(self, array: Any) -> Any:
        """The array itself when it is row-major, or a row-major copy."""
        return array if array.flags.c_contiguous else self.xp.ascontiguousarray(array)

    def reach(self, array: Any) -> Any:
        """The memory from an array's first element to its last, for kernels that take strides.

        The array itself when it is row-major; else a row-major view in one dimension.
        """
        if array.flags.c_contiguous:
            return array
        steps = (step * (size - 1) for step, size in zip(array.strides, array.shape))
        span = sum(steps) // array.itemsize + 1
        return self.xp.lib.stride_tricks.as_strided(array, (span,), (array.itemsize,))

    def empty_like(self, array: Any) -> Any:
        """A row-major array of the same shape and dtype, with any values."""
        return self.empty(array.shape, array.dtype)

    def address(self, array: Any) -> int:
        """Where an array's memory begins, for tables of pointers; the array has to outlive them."""
        return int(array.data.ptr)

    def constants(self, key: Any, make: Callable[[], tuple[Any, ...]]) -> tuple[Any, ...]:
        """What ``make`` gives for a key, its arrays of the host copied to the device, once.

        They stay for good, since captured steps read them; with very many, others are not kept.
        Each stream has its own: copies are ordered with its launches alone.
        """
        if self.xp is not np:
            cuda = self.xp.cuda
            key = (key, cuda.runtime.getDevice(), cuda.get_current_stream().ptr)
        found = self._constants.get(key)
        if found is None:
            asarray = self.xp.asarray
            found = tuple(asarray(a) if isinstance(a, np.ndarray) else a for a in make())
            if len(self._constants) < CONSTANTS_KEPT:
                self._constants[key] = found
        return found

    def errors(self, op: str, *what: str) -> Any:
        """Where kernels of an op note an index out of bounds: `asserts.check` makes an error of it.

        Args:
            op: its public name.
            what: the numbers that its kernels look at, each of which has three places, one after
                another (``noting`` in ``checks.cuh``); "index" alone by default.
        """
        if asserts.watched:
            asserts.check()
        device = 0 if self.xp is np else self.xp.cuda.runtime.getDevice()
        notes = self._notes.get(device)
        if notes is None:
            notes = self._notes[device] = asserts.Notes(self.xp, device)
        return notes.place(op, *(what or ("index",)))

    def addresses(self, arrays: list[Any], dtype: Any, out: Any) -> bool:
        """Write the addresses of arrays into one of NumPy; False unless all are fit for a kernel.

        That is, row-major and of a dtype. What is in ``out`` then does not count.
        """
        for i, array in enumerate(arrays):
            if not array.flags.c_contiguous or array.dtype != dtype:
                return False
            out[i] = self.address(array)
        return True

    # --------------------------------------------------------------------------- launches
    def ready(self, name: str, dtype: Any) -> bool:
        """Whether a kernel can be launched; here one that cannot be compiled is an error."""
        return True

    def compile(self, dtype: Any, *names: str) -> None:
        """Compile kernels before the first of them is launched.

        For an op that edits what it gets: one that cannot be compiled must not stop it half-way.

        Raises:
            RuntimeError: one of them does not compile.
        """
        for name in names:
            if (name, dtype) not in self._entries:
                self._entries[name, dtype] = self._entry(name, dtype)

    def elementwise(self, name: str, dtype: Any, n: int, *arguments: Any) -> None:
        """Launch a kernel whose threads share ``n`` elements."""
        self._launch(name, dtype, self.elementwise_grid(n), (BLOCK,), arguments, 0)

    def prepared(self, name: str, dtype: Any, n: int, *arguments: Any) -> None:
        """The same with fewer blocks, which stay, for a kernel whose threads prepare something."""
        self._launch(name, dtype, (self.table_blocks(n),), (BLOCK,), arguments, 0)

    def rows(self, name: str, dtype: Any, rows: int, columns: int, *arguments: Any) -> None:
        """Launch a kernel whose teams take a row each."""
        grid, block = self.row_geometry(rows, columns)
        self._launch(name, dtype, grid, block, arguments, 0)

    def kept_rows(
        self, name: str, dtype: Any, rows: int, columns: int, kept: int, *arguments: Any
    ) -> None:
        """Launch a kernel whose teams keep ``kept`` rows at a time in registers (`rows.cuh`)."""
        grid, block = self.kept_geometry(rows, columns * kept * dtype.itemsize)
        self._launch(name, dtype, grid, block, arguments, 0)

    def packed_rows(
        self, name: str, dtype: Any, rows: int, columns: int, kept: int, *arguments: Any
    ) -> None:
        """The same for a kernel whose teams may be a few lanes of a warp (`FewLanes`)."""
        grid, block = self.packed_geometry(rows, columns * kept * dtype.itemsize)
        self._launch(name, dtype, grid, block, arguments, 0)

    def launch(
        self,
        name: str,
        dtype: Any,
        grid: tuple[int, ...],
        block: tuple[int, ...],
        *arguments: Any,
        shared: int = 0,
    ) -> None:
        """Launch a kernel.

        Args:
            name: as in its declaration ``KERNEL(name)``.
            dtype: the storage dtype.
            grid: the number of blocks, in each direction.
            block: the number of threads of a block, in each direction.
            arguments: of the kernel, in order: arrays, ints, floats, None for a null pointer.
            shared: bytes of dynamic shared memory.

        Raises:
            TypeError: an argument does not fit its parameter.
            RuntimeError: the kernel's file does not compile.
        """
        self._launch(name, dtype, grid, block, arguments, shared)

    def _launch(
        self, name: str, dtype: Any, grid: Any, block: Any, arguments: Any, shared: int
    ) -> None:
        entry = self._entries.get((name, dtype))
        if entry is None:
            entry = self._entries[name, dtype] = self._entry(name, dtype)
        classes = tuple(map(type, arguments))
        if check_all or classes not in entry.seen:
            self._check(entry, arguments, block)
            entry.seen.add(classes)
        if recordings:
            note(name)
        entry.run(grid, block, arguments, shared)

    def _entry(self, name: str, dtype: Any) -> Entry:
        dtype = np.dtype(dtype)
        if dtype not in SUFFIXES:
            raise TypeError(f"{name}: kernels hold no {dtype}")
        declared = kernel(name)
        return Entry(declared, dtype, self._load(declared, dtype))

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        """``run(grid, block, arguments, shared)`` of a kernel compiled for a dtype."""
        raise NotImplementedError

    def _check(self, entry: Entry, arguments: Sequence[Any], block: Sequence[int]) -> None:
        """TypeError when arguments or block do not fit the declaration of the kernel."""
        name, parameters = entry.kernel.name, entry.kernel.parameters
        if len(arguments) != len(parameters):
            names = ", ".join(p.name for p in parameters)
            raise TypeError(
                f"{name}: {len(parameters)} arguments are expected ({names}), "
                f"{len(arguments)} were given"
            )
        for argument, parameter in zip(arguments, parameters):
            what = f"{name}: parameter '{parameter.name}'"
            if parameter.kind == "pointer":
                if argument is not None:
                    self._check_array(what, argument, parameter.element, entry.dtype)
            elif type(argument).__name__ != parameter.kind:
                raise TypeError(
                    f"{what} takes a Python {parameter.kind}, not {type(argument).__name__}"
                )
        threads = int(np.prod(block))
        if threads % 32 or not 0 < threads <= entry.kernel.threads:
            raise TypeError(
                f"{name}: blocks of {threads} threads; expected a multiple of 32 up to "
                f"{entry.kernel.threads}"
            )

    def _check_array(self, what: str, array: Any, element: str, dtype: Any) -> None:
        if array.__class__ is not self.array:
            raise TypeError(f"{what} takes an array of {self.xp.__name__}, not {type(array)}")
        if not array.flags.c_contiguous:
            raise TypeError(f"{what} takes a row-major array; use K.dense(array)")
        expected = {"scalar_t": dtype, "acc_t": acc_dtype(dtype)}.get(element)
        if expected is None and element in _ELEMENTS:
            expected = np.dtype(_ELEMENTS[element])
        if expected is not None and array.dtype != expected:
            raise TypeError(f"{what} points to {expected}, but the array holds {array.dtype}")


class CudaLauncher(Launcher):
    """Launches kernels on CuPy's arrays, on the current device and its current stream."""

    OPTIONS = ("-std=c++17",)
    multiplies = True

    def __init__(self, cupy: Any) -> None:
        runtime = cupy.cuda.runtime
        properties = runtime.getDeviceProperties(runtime.getDevice())
        super().__init__(cupy, int(properties["multiProcessorCount"]))
        self.empty = cupy.ndarray  # the same without a call of Python code
        self._modules: dict[tuple[str, Any], Any] = {}

    def reach(self, array: Any) -> Any:
        """See `Launcher`; made at once, as a view by strides takes CuPy several times as long."""
        if array.flags.c_contiguous:
            return array
        last = sum([step * (size - 1) for step, size in zip(array.strides, array.shape)])
        return self.array((last // array.itemsize + 1,), array.dtype, array.data)

    @cached_property
    def gemm(self) -> Any:
        """The products of matrices: see `gradlite.backends.gemm`."""
        from gradlite.backends.gemm import gemm  # late: nvmath takes a while to import

        return gemm(self.xp)

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        suffix = SUFFIXES[dtype]
        module = self._modules.get((declared.file, dtype))
        if module is None:
            module = self._modules[declared.file, dtype] = self.xp.RawModule(
                code=source(declared.file),
                options=(*self.OPTIONS, f"-DGRADLITE_DTYPE={suffix}"),
            )
        try:
            return module.get_function(f"{declared.name}_{suffix}").kernel
        except self.xp.cuda.compiler.CompileException as error:
            raise RuntimeError(
                f"kernels/{declared.file} does not compile for {dtype}:\n{error}"
            ) from error


class DevicesLauncher(CudaLauncher):
    """Launches kernels where there are several GPUs, each of which has modules of its own.

    The device of the arrays is the current one when an op runs (``ops/guard.py``).
    """

    def __init__(self, cupy: Any) -> None:
        super().__init__(cupy)
        self._current = cupy.cuda.runtime.getDevice
        self._launchers: dict[int, CudaLauncher] = {}

    def _here(self) -> CudaLauncher:
        index = self._current()
        found = self._launchers.get(index)
        if found is None:
            found = self._launchers[index] = CudaLauncher(self.xp)
        return found

    @property
    def gemm(self) -> Any:  # type: ignore[override]
        """The products of matrices of the current device."""
        return self._here().gemm

    def _launch(
        self, name: str, dtype: Any, grid: Any, block: Any, arguments: Any, shared: int
    ) -> None:
        self._here()._launch(name, dtype, grid, block, arguments, shared)

    def compile(self, dtype: Any, *names: str) -> None:
        """Compile kernels for the current device."""
        self._here().compile(dtype, *names)
