"""The driver's shared library, from the cache or compiled, and CuPy's ways to it.

CuPy's wheel finds the driver, NVRTC and cuBLASLt by the names of their libraries: a library of
that name that is loaded already is what it gets. The CUDA runtime and Thrust are inside of CuPy's
own files; a jump is written over the beginning of each of their functions.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import re
import struct
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from tests.cuda_on_cpu import module

HERE = Path(__file__).parent
SOURCES = ("streams", "memory", "modules", "devices", "cublaslt", "sorting")
# What is looked for by name; the others hand on what is in the first.
LIBRARIES = (
    "libcuda.so.1", "libcudart.so.12", "libnvrtc.so.12", "libcublasLt.so.12",
)  # fmt: skip
FLAGS = "-std=c++17 -O2 -fPIC -fvisibility=hidden -Wall -Wextra -Werror".split()
MISSING = "cuda_driver_missing"


def why_not() -> str | None:
    """Why there can be no driver here, or None."""
    if module.compiler() is None:
        return "the driver needs g++ on Linux"
    if platform.machine() != "x86_64":
        return "the driver writes jumps of x86-64"
    return None


def _texts(pattern: str) -> list[str]:
    return [path.read_text("utf-8") for path in sorted(HERE.glob(pattern))]


@cache
def folder() -> Path:
    """Where the driver is, compiled."""
    texts = [*_texts("*.cpp"), *_texts("*.h"), *FLAGS]
    return _made(f"driver-{module._key(*texts)}", _build)


@cache
def kernels() -> Path:
    """Where what it compiles for programs goes."""
    texts = [*_texts("compile.py"), *_texts("include/*")]
    return _made(f"driver-kernels-{module._key(*texts)}", _toolkit)


def _made(name: str, make: Callable[[Path], None]) -> Path:
    """A folder of the cache, which is there whole or not at all."""
    found = module._cache_folder() / name
    if not found.exists():
        with tempfile.TemporaryDirectory(dir=module._cache_folder()) as place:
            made = Path(place) / "made"
            made.mkdir()
            make(made)
            with contextlib.suppress(OSError):  # another process was faster
                os.rename(made, found)
    return found


def _build(made: Path) -> None:
    compiler = module.compiler() or "g++"
    objects = []
    for name in SOURCES:
        objects.append(f"{made}/{name}.o")
        module._run(compiler, *FLAGS, "-c", f"{HERE}/{name}.cpp", "-o", objects[-1])
    shared = (compiler, "-shared", "-Wl,-z,now")
    first, *others = LIBRARIES
    module._run(*shared, f"-Wl,-soname,{first}", *objects, "-o", f"{made}/{first}")
    for name in others:
        needed = ("-Wl,--no-as-needed", f"{made}/{first}")
        module._run(*shared, f"-Wl,-soname,{name}", *needed, "-o", f"{made}/{name}")
    for path in objects:
        os.remove(path)


def _toolkit(made: Path) -> None:
    """What CuPy looks for to know that there are headers."""
    (made / "toolkit" / "include").mkdir(parents=True)
    (made / "toolkit" / "include" / "cuda_runtime.h").write_text("#pragma once\n", "utf-8")


def load() -> ctypes.CDLL:
    """Load the libraries, so that a search for their names finds them."""
    place = folder()
    libraries = [ctypes.CDLL(f"{place}/{name}", ctypes.RTLD_GLOBAL) for name in LIBRARIES]
    return libraries[0]


# ---- functions inside of CuPy's files ---------------------------------------------------------


def functions(path: str) -> dict[str, int]:
    """The functions of an ELF file, with their places in it."""
    data = Path(path).read_bytes()
    (start,) = struct.unpack_from("<Q", data, 40)
    size, count = struct.unpack_from("<HH", data, 58)
    found: dict[str, int] = {}
    for i in range(count):
        header = struct.unpack_from("<IIQQQQIIQQ", data, start + i * size)
        if header[1] != 2:  # a table of symbols
            continue
        (strings,) = struct.unpack_from("<Q", data, start + header[6] * size + 24)
        for at in range(header[4], header[4] + header[5], 24):
            name, kind, _, _, value, _ = struct.unpack_from("<IBBHQQ", data, at)
            if kind & 15 == 2 and value:
                end = data.index(b"\0", strings + name)
                found[data[strings + name : end].decode()] = value
    return found


def _base(path: str) -> int:
    """Where a library lies in memory."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, _, offset, _, _, *name = line.split(None, 5)
        if name and name[0] == os.path.realpath(path) and int(offset, 16) == 0:
            return int(span.split("-")[0], 16)
    raise RuntimeError(f"{path} is not loaded")


def redirect(path: str, library: ctypes.CDLL, pattern: str) -> int:
    """Let a loaded file's functions jump to the driver's of the same name; how many there are."""
    base, count = _base(path), 0
    libc = ctypes.CDLL(None)
    for name, place in functions(path).items():
        matched = re.fullmatch(pattern, name)
        if matched is None:
            continue
        target = getattr(library, matched[1], None) or getattr(library, MISSING)
        address = base + place
        page = address & ~4095
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(8192), 7):
            raise OSError(f"{path} cannot be written to in memory")
        goal = ctypes.cast(target, ctypes.c_void_p).value or 0
        jump = b"\x48\xb8" + struct.pack("<Q", goal) + b"\xff\xe0"  # mov rax, goal; jmp rax
        ctypes.memmove(address, jump, len(jump))
        count += 1
    return count
