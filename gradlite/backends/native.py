"""The kernels on the CPU: compiled by the system's C++ compiler, called on NumPy's arrays.

A kernel file is compiled at its first use and kept in the user's cache folder, under a hash of
all that decides the result: the text, the options, the compiler and the processor. A machine
without compiler or cache folder does without: `launcher` gives None there.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from gradlite.backends.kernel_source import SUFFIXES, Kernel, source
from gradlite.backends.kernels import Launcher

OPTIONS = (
    "-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math",
    "-fno-signed-zeros", "-fassociative-math", "-Wno-unknown-pragmas", "-shared", "-fPIC",
    "-DGRADLITE_NATIVE",
)  # fmt: skip
_CTYPES: dict[str, Any] = {
    "pointer": ctypes.c_void_p,
    "int": ctypes.c_longlong,
    "float": ctypes.c_double,
}


@cache
def compiler() -> str | None:
    """The path of a C++ compiler: that of the variable CXX, or what the system calls one."""
    for name in (os.environ.get("CXX"), "g++", "clang++", "c++"):
        found = shutil.which(name) if name else None
        if found is not None:
            return found
    return None


@cache
def _machine() -> str:
    """What -march=native depends on: code for another processor may not run here."""
    features = ""
    with contextlib.suppress(OSError), open("/proc/cpuinfo", encoding="utf-8") as file:
        features = next((line for line in file if line.startswith(("flags", "Features"))), "")
    return f"{platform.system()} {platform.machine()} {platform.processor()} {features}"


@cache
def _version(path: str) -> str:
    result = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=60)
    return result.stdout


def cache_folder() -> Path:
    """Where compiled kernels are kept: the variable GRADLITE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("GRADLITE_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gradlite"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gradlite"


def library(name: str, text: str, options: Sequence[str] = ()) -> ctypes.CDLL:
    """`build`, and load what was built."""
    return ctypes.CDLL(str(build(name, text, options)))


def build(name: str, text: str, options: Sequence[str] = ()) -> Path:
    """A C++ text as a shared library, compiled unless the cache has it.

    Args:
        name: what the text is called in messages and in the cache.
        text: the source.
        options: further options of the compiler.

    Raises:
        RuntimeError: there is no compiler, or it refuses the text.
        OSError: the cache folder cannot be written.
    """
    path = compiler()
    if path is None:
        raise RuntimeError("no C++ compiler was found: install g++ or clang++, or set CXX")
    options = (*OPTIONS, *options)
    key = "\0".join((text, *options, path, _version(path), _machine()))
    digest = hashlib.sha256(key.encode()).hexdigest()[:24]
    folder = cache_folder()
    built = folder / f"{name}-{digest}.so"
    if not built.exists():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            made = Path(place) / "library.so"
            result = subprocess.run(
                [path, *options, "-x", "c++", "-", "-o", str(made)],
                input=text,
                capture_output=True,
                text=True,
            )
            if result.returncode != 0:
                raise RuntimeError(f"{name} does not compile with {path}:\n{result.stderr}")
            os.replace(made, built)  # at once, so that another process sees all of it or nothing
    return built


class NativeLauncher(Launcher):
    """Launches kernels on NumPy's arrays: each launch is one call, whatever its grid."""

    def __init__(self) -> None:
        super().__init__(np, 1)
        self._libraries: dict[tuple[str, Any], ctypes.CDLL] = {}

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        suffix = SUFFIXES[dtype]
        loaded = self._libraries.get((declared.file, dtype))
        if loaded is None:
            loaded = self._libraries[declared.file, dtype] = library(
                declared.file, source(declared.file), (f"-DGRADLITE_DTYPE={suffix}",)
            )
        function = loaded[f"{declared.name}_{suffix}"]
        function.restype = None
        function.argtypes = [_CTYPES[p.kind] for p in declared.parameters]

        def run(grid: Any, block: Any, arguments: Any, shared: int) -> None:
            function(
                *[
                    a.__array_interface__["data"][0] if a.__class__ is np.ndarray else a
                    for a in arguments
                ]
            )

        return run


@cache
def launcher() -> NativeLauncher | None:
    """The launcher of this process, or None where kernels cannot be compiled or are not wanted.

    The variable GRADLITE_NATIVE=0 switches them off.
    """
    if os.environ.get("GRADLITE_NATIVE") == "0":
        return None
    try:
        probe = library("probe", 'extern "C" int gradlite_probe() { return 1; }\n')
    except (RuntimeError, OSError, subprocess.SubprocessError):
        return None
    return NativeLauncher() if probe.gradlite_probe() == 1 else None
