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

from gradlite.backends import kernels, launches
from gradlite.backends.kernel_source import SUFFIXES, Kernel, alone, expand, index, source
from gradlite.backends.kernels import Entry, Launcher, NoKernelError

OPTIONS = (
    "-std=c++17", "-O3", "-march=native", "-fno-math-errno", "-fno-trapping-math",
    "-fno-signed-zeros", "-fassociative-math", "-Wno-unknown-pragmas", "-shared", "-fPIC",
    "-DGRADLITE_NATIVE",
)  # fmt: skip


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


@cache
def vector_functions() -> tuple[str, ...]:
    """The option that lets loops call the C library's functions of whole vectors, if it has them.

    Those of glibc on x86-64, which are loaded here, are within 4 units in the last place.
    """
    library, version = platform.libc_ver()
    if library != "glibc" or platform.machine() != "x86_64":
        return ()
    try:
        ctypes.CDLL("libmvec.so.1", mode=ctypes.RTLD_GLOBAL)
    except OSError:
        return ()
    return (f"-DGRADLITE_MVEC={version.split('.')[1]}",)


def cache_folder() -> Path:
    """Where compiled kernels are kept: the variable GRADLITE_CACHE, or the user's cache folder."""
    chosen = os.environ.get("GRADLITE_CACHE")
    if chosen:
        return Path(chosen)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gradlite"
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache") / "gradlite"


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
                encoding="utf-8",  # whatever the locale
            )
            if result.returncode != 0:
                raise RuntimeError(f"{name} does not compile with {path}:\n{result.stderr}")
            os.replace(made, built)  # at once, so that another process sees all of it or nothing
    return built


class NativeLauncher(Launcher):
    """Launches kernels on NumPy's arrays: each launch is one call, whatever its grid."""

    serial = True

    def __init__(self, probe: ctypes.PyDLL) -> None:
        super().__init__(np, 1)
        self.probe = probe
        self._addresses = probe.gradlite_addresses
        self._addresses.argtypes = (ctypes.py_object,) * 3
        self._libraries: dict[tuple[str, Any], ctypes.PyDLL] = {}

    def address(self, array: Any) -> int:
        try:  # several times as fast as the array's own attribute
            return ctypes.addressof(ctypes.c_char.from_buffer(array))
        except (TypeError, ValueError):  # read-only, or of bfloat16
            return int(array.ctypes.data)

    def addresses(self, arrays: list[Any], dtype: Any, out: Any) -> bool:
        return self._addresses(arrays, dtype, out) == 1

    def elementwise(self, name: str, dtype: Any, n: int, *arguments: Any) -> None:
        self._launch(name, dtype, None, None, arguments, 0)

    def rows(self, name: str, dtype: Any, rows: int, columns: int, *arguments: Any) -> None:
        self._launch(name, dtype, None, None, arguments, 0)

    def kept_rows(
        self, name: str, dtype: Any, rows: int, columns: int, kept: int, *arguments: Any
    ) -> None:
        self._launch(name, dtype, None, None, arguments, 0)

    packed_rows = kept_rows

    def _launch(
        self, name: str, dtype: Any, grid: Any, block: Any, arguments: Any, shared: int
    ) -> None:
        entry = self._entries.get((name, dtype))
        if entry is None:
            entry = self._entries[name, dtype] = self._entry(name, dtype)
            self._check(entry, arguments, (32,) if block is None else block)
        elif kernels.check_all:
            self._check(entry, arguments, (32,) if block is None else block)
        if launches.recordings:
            launches.note(name)
        entry.run(arguments)  # which looks at the kinds of the arguments itself

    def runs(self, name: str, dtype: Any) -> Any:
        """What launches a kernel that has been launched before: it takes the arguments' tuple."""
        return self._entries[name, dtype].run

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        suffix = SUFFIXES[dtype]
        loaded = self._libraries.get((declared.file, dtype))
        if loaded is None:
            loaded = self._libraries[declared.file, dtype] = callable_from_python(
                declared.file,
                source(declared.file),
                [f"{k.name}_{suffix}" for k in index().values() if k.file == declared.file],
                (f"-DGRADLITE_DTYPE={suffix}",),
            )
        return _function(loaded, f"{declared.name}_{suffix}")


class OnDemand(NativeLauncher):
    """Compiles each kernel by itself, in a fraction of the time that its file takes.

    One that cannot be compiled is a `NoKernelError`, and is not tried again.
    """

    def __init__(self, probe: ctypes.PyDLL) -> None:
        super().__init__(probe)
        self._missing: set[tuple[str, Any]] = set()

    def ready(self, name: str, dtype: np.dtype[Any]) -> bool:
        """Whether a kernel can be launched; compiles it unless that has been done."""
        if (name, dtype) not in self._entries:
            try:
                self._entries[name, dtype] = self._entry(name, dtype)
            except NoKernelError:
                return False
        return True

    def _entry(self, name: str, dtype: Any) -> Entry:
        if (name, dtype) not in self._missing:
            try:
                return super()._entry(name, dtype)
            except (RuntimeError, OSError, subprocess.SubprocessError):
                self._missing.add((name, dtype))
        raise NoKernelError(f"{name} cannot be compiled for {dtype}")

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        name, suffix = declared.name, SUFFIXES[dtype]
        loaded = callable_from_python(
            name,
            alone(name, source(declared.file)),
            [f"{name}_{suffix}"],
            (f"-DGRADLITE_DTYPE={suffix}",),
        )
        return _function(loaded, f"{name}_{suffix}")


def callable_from_python(
    name: str, text: str, kernels: Sequence[str], options: Sequence[str] = ()
) -> ctypes.PyDLL:
    """A text with kernels, as a library that takes Python's arguments to them."""
    called = "".join(f"CALLED_FROM_PYTHON({kernel})\n" for kernel in kernels)
    header = f"-DGRADLITE_OBJECT_HEADER={object.__basicsize__}"
    whole = expand("calls", f'{text}\n#include "from_python.h"\n{called}')
    loaded = ctypes.PyDLL(str(build(name, whole, (*options, header))))
    bind = loaded.gradlite_bind
    bind.argtypes, bind.restype = (ctypes.py_object, ctypes.py_object), None
    bind(None, np.ndarray)
    return loaded


def _function(loaded: ctypes.PyDLL, name: str) -> Any:
    function = loaded[f"{name}_called"]
    function.argtypes, function.restype = (ctypes.py_object,), None
    return function


PROBE = """
typedef long long i64;
extern "C" void probe(double* out, const float* in, i64 n, double scale) {
  for (i64 i = 0; i < n; i++) out[i] = in == nullptr ? scale : scale * in[i];
}
"""


@cache
def launcher() -> NativeLauncher | None:
    """The launcher of this process, or None where kernels cannot be compiled or are not wanted.

    The variable GRADLITE_NATIVE=0 switches them off.
    """
    if os.environ.get("GRADLITE_NATIVE") == "0":
        return None
    try:
        loaded = callable_from_python("probe", PROBE, ["probe"])
        probe = _function(loaded, "probe")
        out = np.zeros(3)
        probe((out, np.arange(5, dtype=np.float32)[1:], 2, 2.0))
        probe((out[2:], None, 1, 7.0))
    except (RuntimeError, OSError, subprocess.SubprocessError):
        return None
    if out.tolist() != [2.0, 4.0, 7.0]:
        return None
    found = NativeLauncher(loaded)
    return found if _finds_addresses(found) else None


@cache
def on_demand() -> OnDemand | None:
    """A launcher for single kernels that are faster than NumPy; None where `launcher` is."""
    found = launcher()
    return None if found is None else OnDemand(found.probe)


def _finds_addresses(found: NativeLauncher) -> bool:
    """Whether NumPy's array object is what kernels/from_python.h takes it for."""
    array, out = np.zeros((2, 3), np.float32), np.zeros(2, np.int64)
    fits = [
        found.addresses([array, other], array.dtype, out)
        for other in (array[1:], array.T, array[:, 1:], array.astype(np.float64), None)
    ]
    ours = [array.ctypes.data, array[1:].ctypes.data]
    return fits == [True, False, False, False, False] and out.tolist() == ours
