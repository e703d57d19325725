"""CUDA C++ compiled for any GPU, without one: NVIDIA's run-time compiler through ctypes.

    pip install nvidia-cuda-nvrtc-cu12

needs neither a driver nor CuPy nor the CUDA toolkit. ``python -m tools.nvrtc`` compiles what
it reads, a list of texts with names and options, and prints what the kernels take, both in JSON:
the compiler takes one text at a time in each process.
"""

from __future__ import annotations

import ctypes
import importlib.util
import json
import re
import sys
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


@cache
def library() -> ctypes.CDLL | None:
    """The compiler's library, or None where its package is not installed."""
    spec = importlib.util.find_spec("nvidia")
    places = spec.submodule_search_locations if spec else None
    for folder in places or ():
        for path in sorted(Path(folder).glob("*/lib/libnvrtc.so.*")):
            if "alt" not in path.name:
                return ctypes.CDLL(str(path))
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
    nvrtc, program = _library(), ctypes.c_void_p()
    status = nvrtc.nvrtcCreateProgram(
        ctypes.byref(program), text.encode(), name.encode(), 0, None, None
    )
    if status:
        raise RuntimeError(f"{name}: NVRTC has no room for a program (status {status})")
    try:
        given = [o.encode() for o in (*options, "--ptxas-options=-v")]
        status = nvrtc.nvrtcCompileProgram(
            program, len(given), (ctypes.c_char_p * len(given))(*given)
        )
        size = ctypes.c_size_t()
        nvrtc.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        nvrtc.nvrtcGetProgramLog(program, log)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))
    message = log.value.decode()
    if status:
        raise RuntimeError(f"{name} does not compile with {' '.join(options)}:\n{message}")
    return dict(_resources(message))


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
    json.dump([compile(*job) for job in json.load(sys.stdin)], sys.stdout)
