"""CUDA C++ compiled for any GPU, without one: NVIDIA's run-time compiler through ctypes.

    pip install nvidia-cuda-nvrtc-cu12 nvidia-cuda-nvcc-cu12

needs neither a driver nor CuPy nor the CUDA toolkit. ``python -m tools.nvrtc`` compiles what
it reads, a text with its name, options and GPUs, and prints what the kernels take, both in JSON:
the compiler takes one text at a time in each process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple


class Resources(NamedTuple):
    """What one kernel takes on one kind of GPU, as the assembler says.

    Attributes:
        registers: of a thread.
        spilled: bytes of registers that a thread keeps in memory, stores and loads together, in
            the kernel and in what it calls.
        stack: bytes of memory of a thread for local arrays and calls.
        shared: bytes of shared memory of a block, besides the dynamic.
    """

    registers: int
    spilled: int
    stack: int
    shared: int


# Of the GPUs that the compiler has the same text in PTX for, the first.
FRONTS = (75, 100)
# But what becomes of these depends on each GPU.
ATOMIC = re.compile(r"\batomic[A-Z]\w*\(")


def _installed(pattern: str) -> list[Path]:
    """Files of NVIDIA's packages."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    return [path for folder in places or () for path in sorted(Path(folder).glob(pattern))]


@cache
def library() -> ctypes.CDLL | None:
    """The compiler's library, or None where its package is not installed."""
    for path in _installed("*/lib/libnvrtc.so.*"):
        if "alt" not in path.name:
            return ctypes.CDLL(str(path))
    return None


@cache
def assembler() -> str | None:
    """The path of the compiler's own assembler, or None where its package is not installed."""
    for path in _installed("*/bin/ptxas"):
        said = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
        if "release {}.{},".format(*version()) in said.stdout:
            return str(path)
    return None


def version() -> tuple[int, int]:
    """Of the compiler."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return major.value, minor.value


def compile(text: str, name: str, options: Sequence[str]) -> dict[str, Resources]:
    """Compile a text; what each of its kernels takes.

    Args:
        text: CUDA C++ without includes.
        name: of the text, in messages.
        options: of the compiler.

    Raises:
        RuntimeError: the text does not compile; the message is the compiler's.
    """
    log, _ = _compiled(text, name, (*options, "--ptxas-options=-v"))
    return dict(_resources(log))


def compile_for(
    text: str, name: str, options: Sequence[str], gpus: Sequence[int]
) -> list[dict[str, Resources]]:
    """What `compile` gives for each of some GPUs, in half of the time.

    The text is translated to PTX once for all GPUs that share it, and assembled for each: the two
    take the same time. Without an assembler, everything is done for each.
    """
    if assembler() is None or ATOMIC.search(text):
        return [compile(text, name, (*options, f"-arch=sm_{gpu}")) for gpu in gpus]
    fronts = [max(front for front in FRONTS if front <= gpu) for gpu in gpus]
    shared = {
        front: _compiled(text, name, (*options, f"-arch=compute_{front}"))[1]
        for front in dict.fromkeys(fronts)
    }
    return [_assembled(shared[front], name, gpu) for front, gpu in zip(fronts, gpus)]


def _compiled(text: str, name: str, options: Sequence[str]) -> tuple[str, bytes]:
    """The compiler's log, and the PTX that it made."""
    nvrtc, program = _library(), ctypes.c_void_p()
    status = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), name.encode(), 0, None, None
    )
    if status:
        raise RuntimeError(f"{name}: NVRTC has no room for a program (status {status})")
    try:
        given = [o.encode() for o in options]
        status = nvrtc.nvrtcCompileProgram(
            program, len(given), (ctypes.c_char_p * len(given))(*given)
        )
        log = _read(nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog, program).decode()
        if status:
            raise RuntimeError(f"{name} does not compile with {' '.join(options)}:\n{log}")
        return log, _read(nvrtc.nvrtcGetPTXSize, nvrtc.nvrtcGetPTX, program)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _read(size_of: Any, read: Any, program: ctypes.c_void_p) -> bytes:
    size = ctypes.c_size_t()
    size_of(program, ctypes.byref(size))
    found = ctypes.create_string_buffer(size.value)
    read(program, found)
    return found.value


def _assembled(ptx: bytes, name: str, gpu: int) -> dict[str, Resources]:
    with tempfile.NamedTemporaryFile(suffix=".ptx") as file:
        file.write(ptx)
        file.flush()
        command = [assembler() or "ptxas", "-v", f"-arch=sm_{gpu}", file.name, "-o", os.devnull]
        done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{name} cannot be assembled for sm_{gpu}:\n{done.stderr}")
    return dict(_resources(done.stderr))


def _library() -> Any:
    found = library()
    if found is None:
        raise RuntimeError("NVRTC is missing: pip install nvidia-cuda-nvrtc-cu12")
    return found


_KERNEL = re.compile(r"Compiling entry function '(\w+)'")
_MEMORY = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers(?:[^\n]*?(\d+) bytes smem)?")


def _resources(log: str) -> Any:
    """Of each kernel in the assembler's log: its own, then the functions that it calls."""
    _, *parts = _KERNEL.split(log)
    for name, text in zip(parts[::2], parts[1::2]):
        memory = [tuple(map(int, found)) for found in _MEMORY.findall(text)]
        used = _USED.search(text)
        if used is None:
            raise RuntimeError(f"the log does not say what {name} takes:\n{text}")
        yield (
            name,
            Resources(
                int(used[1]),
                sum(stores + loads for _, stores, loads in memory),
                sum(stack for stack, _, _ in memory),
                int(used[2] or 0),
            ),
        )


if __name__ == "__main__":
    json.dump(compile_for(*json.load(sys.stdin)), sys.stdout)
