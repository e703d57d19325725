"""Kernels compiled for the CPU, called as CuPy's are.

    add = CpuModule(text, ("-DGRADLITE_DTYPE=f32",)).get_function("add_f32")
    add((2,), (64,), (x, y, out, 100))

runs every CUDA thread of the launch as a fiber of its own. A fault of the kernel (a race, an access
outside the arrays that were passed, a divergent barrier, ...) is a `KernelError`; arguments that
the kernel would misread on a GPU are a TypeError.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import itertools
import os
import re
import shutil
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent
RUNTIME = ("runtime.cpp", "checks.cpp")
HEADERS = ("runtime.h", "launch.h", "internal.h")
BASE = (
    "-std=c++17 -fPIC -fvisibility=hidden -fno-math-errno -ffp-contract=off -U_FORTIFY_SOURCE"
).split()
PLACES = ("-g1", "-gdwarf-4")
WARNINGS = "-Wall -Wextra -Werror -Wno-unknown-pragmas -Wno-unused -Wno-unused-parameter".split()
# The instrumentation of the sanitizers, without their libraries: checks.cpp is called instead.
CHECKS = (
    "-fsanitize=thread "
    "-fsanitize=alignment,bounds,signed-integer-overflow,shift,integer-divide-by-zero,return"
).split()
KERNEL = re.compile(
    r'extern\s+"C"\s+__global__\s+void\s+(?:__launch_bounds__\s*\(([^,()]+)[^()]*\)\s*)?'
    r"(\w+)\s*\(([^)]*)\)"
)
SHARED_LIMIT = 48 << 10  # bytes of shared memory that a launch may ask for without an attribute


_one_at_a_time = threading.Lock()


class KernelError(RuntimeError):
    """What a kernel did wrong, with the block, the thread and the line of the source."""


@cache
def compiler() -> str | None:
    """The path of g++ on Linux, or None: checks.cpp defines what that one's sanitizers call."""
    return shutil.which("g++") if sys.platform == "linux" else None


@cache
def _compiler_version() -> str:
    return subprocess.run(
        [compiler() or "g++", "--version"], capture_output=True, text=True, check=True
    ).stdout


@cache
def _linker() -> list[str]:
    """The option for the linker that takes the least time, where there is one."""
    return ["-fuse-ld=gold"] if shutil.which("ld.gold") else []


def _cache_folder() -> Path:
    folder = Path(tempfile.gettempdir()) / f"gradlite-cuda-on-cpu-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    return folder


def _run(*command: str, text: str | None = None) -> str:
    done = subprocess.run(command, input=text, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)}:\n{done.stderr}")
    return done.stdout


def _key(*parts: str) -> str:
    own = [(HERE / name).read_text(encoding="utf-8") for name in (*RUNTIME, *HEADERS)]
    everything = "\0".join((*parts, *own, *BASE, *PLACES, *CHECKS, *WARNINGS, _compiler_version()))
    return hashlib.sha256(everything.encode()).hexdigest()[:20]


def _runtime_objects(cxx: str) -> list[str]:
    objects = []
    for name in RUNTIME:
        target = _cache_folder() / f"{_key(name)}-{name}.o"
        if not target.exists():
            with tempfile.TemporaryDirectory(dir=_cache_folder()) as folder:
                made = f"{folder}/object.o"
                _run(cxx, *BASE, *PLACES, *WARNINGS, "-O2", "-c", str(HERE / name), "-o", made)
                os.replace(made, target)
        objects.append(str(target))
    return objects


def _headers(cxx: str, flags: Sequence[str]) -> str:
    """A folder with launch.h precompiled, which saves a third of the time of a small kernel."""
    folder = _cache_folder() / _key("precompiled", *flags)
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=_cache_folder()) as place:
            text, made = Path(place) / "text.h", Path(place) / "made"
            text.write_text('#include "launch.h"\n', encoding="utf-8")
            made.mkdir()
            _run(cxx, *flags, *WARNINGS, f"-I{HERE}", str(text), "-o", f"{made}/launch.h.gch")
            with contextlib.suppress(OSError):  # another process was faster
                os.replace(made, folder)
    return str(folder)


def _restricted(parameters: str) -> str:
    """A letter for each parameter: of ``__restrict__`` pointers r, or w for one to write with."""
    return "".join(
        "-" if "__restrict__" not in p else "r" if re.match(r"\s*const\b", p) else "w"
        for p in parameters.split(",")
    )


def _build(text: str, options: Sequence[str], check: bool, only: str, places: bool) -> Path:
    """The shared library of a kernel file, from the cache or compiled."""
    cxx = compiler()
    if cxx is None:
        raise RuntimeError("kernels run thread by thread on Linux with g++ alone")
    defines = [o for o in options if o.startswith("-D")] + ["-DGRADLITE_CPU_THREADS"]
    target = _cache_folder() / f"{_key(text, *defines, str(check), only, str(places))}.so"
    if target.exists():
        return target
    # Only the preprocessor knows what the macros of a file make of the kernels' names.
    plain = _run(cxx, "-E", "-P", "-x", "c++", "-std=c++17", *defines, "-", text=text)
    table = "".join(
        f'CUDA_ON_CPU_KERNEL({name}, {most or 1024}, "{_restricted(parameters)}"),\n'
        for most, name, parameters in KERNEL.findall(plain)
        if only in ("", name)
    )
    whole = (
        f'#include "launch.h"\n{text}\n#line 1 "table of kernels"\n'
        f"CUDA_ON_CPU_TABLE = {{\n{table}{{nullptr, nullptr, 0, nullptr, nullptr}}}};\n"
    )
    with tempfile.TemporaryDirectory(dir=_cache_folder()) as folder:
        source, made = Path(folder) / "kernels.cpp", f"{folder}/kernels.so"
        source.write_text(whole, encoding="utf-8")
        speed = "-O0" if only else "-O1"  # one kernel is a planted bug: it runs till a test fails
        flags = [*BASE, speed, *(CHECKS if check else ()), *(PLACES if places else ())]
        found = [f"-I{_headers(cxx, flags)}", f"-I{HERE}"]
        _run(cxx, *flags, *WARNINGS, *found, *defines, "-c", str(source), "-o", f"{made}.o")
        objects = [f"{made}.o", *_runtime_objects(cxx)]
        _run(cxx, *_linker(), "-shared", "-Wl,-Bsymbolic", *objects, "-o", made)
        os.replace(made, target)
    return target


class _Launch(ctypes.Structure):  # cuda_on_cpu::Launch
    _fields_ = [
        ("grid", ctypes.c_uint * 3),
        ("block", ctypes.c_uint * 3),
        ("shared_bytes", ctypes.c_uint),
        ("region_count", ctypes.c_uint),
        ("exits_arrive", ctypes.c_uint),
        ("regions", ctypes.c_void_p),
        ("seed", ctypes.c_uint64),
        ("access_limit", ctypes.c_uint64),
        ("switches", ctypes.c_uint64),
        ("accesses", ctypes.c_uint64),
        ("code", ctypes.c_uint64 * 2),
        ("fault", ctypes.c_char * 512),
    ]


class _Entry(ctypes.Structure):  # cuda_on_cpu::Kernel
    _fields_ = [
        ("name", ctypes.c_char_p),
        ("signature", ctypes.c_char_p),
        ("max_threads", ctypes.c_int),
        ("restricted", ctypes.c_char_p),
        ("launch", ctypes.CFUNCTYPE(ctypes.c_int, ctypes.POINTER(_Launch), ctypes.c_void_p)),
    ]


class CpuModule:
    """The kernels of one text, as ``cupy.RawModule``.

    Args:
        code: CUDA C++ without includes.
        options: of the compiler; only definitions (``-DNAME=value``) are heeded.
        check: whether memory accesses are checked, which takes a launch several times as long.
        seed: how threads and blocks are ordered where `CpuKernel` is not told: 0 in order, an odd
            number any thread at any time, an even number one warp as long as it can run.
        only: the name of the one kernel to compile, which takes less time than all of them.
        places: whether a fault says where in the source it happened, for a fifth of the time that
            compiling takes.
    """

    def __init__(
        self,
        code: str,
        options: Sequence[str] = (),
        *,
        check: bool = True,
        seed: int = 0,
        only: str = "",
        places: bool = True,
    ) -> None:
        self.check, self.seed = check, seed
        self.path = _build(code, options, check, only, places)
        self._library = ctypes.CDLL(str(self.path))
        self._entries: dict[str, _Entry] = {}
        address = ctypes.addressof(ctypes.c_char.in_dll(self._library, "cuda_on_cpu_kernels"))
        while (entry := _Entry.from_address(address)).name:
            self._entries[entry.name.decode()] = entry
            address += ctypes.sizeof(_Entry)

    @property
    def names(self) -> list[str]:
        """The names of the kernels."""
        return list(self._entries)

    def get_function(self, name: str) -> CpuKernel:
        """The kernel of that name; KeyError when there is none."""
        return CpuKernel(self, name, self._entries[name])


class CpuKernel:
    """One kernel, called as a ``cupy.RawKernel``: ``kernel(grid, block, args, shared_mem=0)``.

    Attributes:
        parameters: what the kernel takes, "i8" or "f8" for a scalar, "*f4" for an array.
        max_dynamic_shared_size_bytes: as in CuPy, the limit of ``shared_mem``.
        switches, accesses: of the last launch, between fibers and to memory.
    """

    def __init__(self, module: CpuModule, name: str, entry: _Entry) -> None:
        self.name, self._module, self._entry = name, module, entry
        self.parameters = entry.signature.decode().split(",")[:-1]
        self.max_dynamic_shared_size_bytes = SHARED_LIMIT
        self.switches = self.accesses = 0

    def __call__(
        self,
        grid: Sequence[int],
        block: Sequence[int],
        args: Sequence[Any],
        *,
        shared_mem: int = 0,
        stream: Any = None,
        seed: int | None = None,
        regions: Iterable[np.ndarray] = (),
        access_limit: int = 500_000_000,
    ) -> None:
        """Run the kernel.

        Args:
            grid: blocks, in up to three directions.
            block: threads of a block, in up to three directions.
            args: NumPy arrays, NumPy scalars, Python ints and floats, None for a null pointer.
                They are handed over as CuPy hands them over: an int as int64, a float as float64.
            shared_mem: bytes of dynamic shared memory.
            stream: not looked at.
            seed: of the order of threads and blocks; the module's when None.
            regions: arrays that the kernel reaches through pointers in other arrays.
            access_limit: accesses to memory after which a kernel is taken to loop for ever.

        Raises:
            TypeError: the arguments do not fit the kernel's parameters.
            ValueError: CUDA would refuse the size of grid, block or shared memory.
            KernelError: the kernel did something that is wrong on a GPU.
        """
        how = _Launch(shared_bytes=shared_mem, access_limit=access_limit)
        how.seed = self._module.seed if seed is None else seed
        how.grid[:], how.block[:] = self._geometry(grid, block, shared_mem)
        values = self._arguments(args)
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        self._check_restricted(args)
        if self._module.check:
            table = _regions([*args, *regions])
            how.region_count, how.regions = len(table), table.ctypes.data
        with _one_at_a_time:  # the fibers of a library are in variables of its own
            failed = self._entry.launch(ctypes.byref(how), pointers)
        self.switches, self.accesses = how.switches, how.accesses
        if failed:
            raise KernelError(f"{self.name}: {how.fault.decode()}{self._places(how.code)}")

    def _geometry(self, grid: Sequence[int], block: Sequence[int], shared_mem: int) -> Any:
        blocks, threads = (tuple(map(int, size)) + (1, 1) for size in (grid, block))
        count = int(np.prod(block))
        if not 1 <= len(grid) <= 3 or not 1 <= len(block) <= 3:
            raise ValueError(f"{self.name}: grid {grid} and block {block} have 1 to 3 directions")
        if min(grid) < 1 or blocks[0] >= 1 << 31 or max(blocks[1:3]) > 65535:
            raise ValueError(f"{self.name}: grid {grid} is outside CUDA's limits")
        if min(block) < 1 or count > self._entry.max_threads or threads[2] > 64:
            raise ValueError(
                f"{self.name}: block {block} is outside its limits: "
                f"{self._entry.max_threads} threads, (1024, 1024, 64)"
            )
        if shared_mem > self.max_dynamic_shared_size_bytes:
            raise ValueError(
                f"{self.name}: {shared_mem} bytes of shared memory are more than "
                f"{self.max_dynamic_shared_size_bytes}"
            )
        return blocks[:3], threads[:3]

    def _arguments(self, args: Sequence[Any]) -> list[np.ndarray]:
        """Each argument as an array that holds the bytes the kernel gets."""
        if len(args) != len(self.parameters):
            raise TypeError(
                f"{self.name}: {len(args)} arguments for {len(self.parameters)} parameters"
            )
        values = []
        for position, (arg, parameter) in enumerate(zip(args, self.parameters)):
            value = _as_cupy_passes(arg)
            if arg is None or isinstance(arg, np.ndarray):
                fits = parameter[0] == "*" and (arg is None or _fits(arg.dtype, parameter[1:]))
            else:
                fits = value.dtype.str[1:] == parameter or (
                    parameter[0] == "*" and value.dtype.str[1:] in ("i8", "u8")
                )
            if not fits:
                what = f"an array of {arg.dtype}" if isinstance(arg, np.ndarray) else value.dtype
                raise TypeError(
                    f"{self.name}: argument {position} is {what}, the kernel takes {parameter}"
                )
            values.append(value)
        return values

    def _check_restricted(self, args: Sequence[Any]) -> None:
        """Promises of ``__restrict__``: no memory that one pointer writes is another's, too."""
        promises = self._entry.restricted.decode()
        arrays = [
            (i, arg, promise)
            for i, (arg, promise) in enumerate(zip(args, promises))
            if promise != "-" and isinstance(arg, np.ndarray) and arg.size
        ]
        for (i, a, first), (j, b, second) in itertools.combinations(arrays, 2):
            if "w" in (first, second) and np.may_share_memory(a, b):
                raise KernelError(
                    f"{self.name}: arguments {i} and {j} overlap, and are __restrict__ pointers"
                )

    def _places(self, code: Sequence[int]) -> str:
        """Where in the source the fault happened, and its other half."""
        found = [
            _run("addr2line", "-i", "-s", "-e", str(self._module.path), hex(address - 1))
            for address in code
            if address
        ]
        places = [" called from ".join(re.findall(r"^\S+:[0-9?]+", f, re.M)) for f in found]
        return "".join(
            f"\n  {what} {place}"
            for what, place in zip(("at", "the other access at"), places)
            if "?" not in place
        )


def _as_cupy_passes(arg: Any) -> np.ndarray:
    if arg is None:
        return np.array(0, np.uint64)
    if isinstance(arg, np.ndarray):
        return np.array(arg.ctypes.data, np.uint64)
    if isinstance(arg, np.generic):
        return np.array(arg)
    if isinstance(arg, bool):
        return np.array(arg)
    if isinstance(arg, int):
        return np.array(arg, np.int64)
    if isinstance(arg, float):
        return np.array(arg, np.float64)
    raise TypeError(f"a kernel takes no {type(arg).__name__}")


def _fits(dtype: np.dtype, element: str) -> bool:
    """Whether an array of that dtype holds what the kernel takes a pointer to."""
    if element == "v":
        return True
    if element[0] == "*":  # a table of pointers
        return dtype.str[1:] in ("i8", "u8")
    if element[0] == "s":  # a struct: half_t and bfloat16_t are uint16 or float16 to NumPy
        return dtype.itemsize == int(element[1:]) or dtype.kind == "V" or int(element[1:]) > 2
    kinds = {"f": "f", "b": "biu", "i": "iu", "u": "iub"}[element[0]]
    return dtype.kind in kinds and dtype.itemsize == int(element[1:])


def _regions(args: Iterable[Any]) -> np.ndarray:
    """Address, bytes, bytes per cell and read-only of the memory behind arrays, overlaps joined."""
    found: list[list[int]] = []
    for array in args:
        if not isinstance(array, np.ndarray) or not array.size:
            continue
        low, high = np.lib.array_utils.byte_bounds(array)
        cell = min(8, array.itemsize & -array.itemsize)
        found.append([low, high, cell, int(not array.flags.writeable)])
    joined: list[list[int]] = []
    for low, high, cell, read_only in sorted(found):
        if joined and low < joined[-1][1]:
            last = joined[-1]
            last[1:] = [max(high, last[1]), min(cell, last[2]), read_only & last[3]]
        else:
            joined.append([low, high, cell, read_only])
    return np.array([[low, high - low, *rest] for low, high, *rest in joined] or
                    np.empty((0, 4)), np.uint64)  # fmt: skip
