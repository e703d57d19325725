"""What takes NVRTC's place: CUDA C++ is compiled for the CPU, thread by thread.

The text is that which the program has, CuPy's own kernels and their headers among them; what CUDA
itself would bring is in tests/cuda_on_cpu/runtime.h and include/.
"""

from __future__ import annotations

import contextlib
import ctypes
import hashlib
import os
import re
import shlex
import tempfile
import traceback
from functools import cache
from pathlib import Path
from typing import Any

from tests.cuda_driver import build
from tests.cuda_on_cpu import module

KERNEL = re.compile(
    r'extern\s+"C"\s*(?:\{\s*)?__global__\s+void\s+'
    r"(?:__launch_bounds__\s*\(([^,()]+)[^()]*\)\s*)?(\w+)\s*\("
)
DYNAMIC = re.compile(
    r"extern\s+__shared__\s+(?:__align__\(\d+\)\s*)?([\w ]+?)\s+(\w+)\s*\[\s*\]\s*;"
)
FLAGS = (*module.BASE, "-O1", "-w", "-fpermissive")
COMPILER = ctypes.CFUNCTYPE(
    ctypes.c_int, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_void_p,
    ctypes.c_size_t,
)  # fmt: skip


def _answer(source: bytes, options: bytes, names: bytes, out: Any, room: int) -> int:
    try:
        said, made = library(source.decode(), options.decode().split("\n"), names.decode()), True
    except Exception as error:
        said = str(error) if isinstance(error, RuntimeError) else traceback.format_exc()
        made = False
    data = said.encode()[: room - 1] + b"\0"
    ctypes.memmove(out, data, len(data))
    return int(made)


answer = COMPILER(_answer)  # kept, because the driver calls it


def library(source: str, options: list[str], names: str) -> str:
    """The path of the shared library of a program's kernels."""
    defines = [o for o in options if o.startswith("-D")] + ["-DGRADLITE_CPU_THREADS"]
    folders = [o for o in options if o.startswith("-I")]
    of_cupy = "#include <cupy/" in source
    everything = "\0".join((source, *defines, *folders, names))
    name = hashlib.sha256(everything.encode()).hexdigest()[:24]
    target = build.kernels() / f"{name}.so"
    if target.exists():
        return str(target)
    text = DYNAMIC.sub(r"DYNAMIC_SHARED(\1, \2);", source)
    flags = [*FLAGS, *folders]
    header = "cupy_kernel.h" if of_cupy else "kernel.h"
    whole = f'#include "{header}"\n{text}\n{_table(text, defines, names.split())}'
    found = [f"-I{_precompiled(header, tuple(flags))}", f"-I{build.HERE / 'include'}"]
    compiler = module.compiler() or "g++"
    with tempfile.TemporaryDirectory(dir=build.kernels()) as place:
        file, made = Path(place) / "kernels.cpp", f"{place}/kernels.so"
        file.write_text(whole, encoding="utf-8")
        module._run(compiler, *flags, *found, *defines, "-c", str(file), "-o", f"{made}.o")
        objects = [f"{made}.o", *module._runtime_objects(compiler)]
        module._run(compiler, *module._linker(), "-shared", "-Wl,-Bsymbolic", *objects, "-o", made)
        os.replace(made, target)
    return str(target)


def _table(text: str, defines: list[str], names: list[str]) -> str:
    """The table of kernels that the driver reads; only the preprocessor knows all names."""
    plain = re.sub(r"^\s*#\s*(include|pragma).*$", "", text, flags=re.M)
    compiler = module.compiler() or "g++"
    plain = module._run(compiler, "-E", "-P", "-x", "c++", *defines, "-", text=plain)
    rows = [
        f'CUDA_ON_CPU_KERNEL({name}, {most or 1024}, "")' for most, name in KERNEL.findall(plain)
    ]
    rows += [f'CUDA_DRIVER_NAMED("{name}", {name})' for name in names]
    table = "".join(f"{row},\n" for row in dict.fromkeys(rows))
    return (
        '#line 1 "table of kernels"\n'
        f"CUDA_ON_CPU_TABLE = {{\n{table}{{nullptr, nullptr, 0, nullptr, nullptr}}}};\n"
    )


@cache
def _precompiled(header: str, flags: tuple[str, ...]) -> str:
    """A folder with a header precompiled: CuPy's own take longer than most of its kernels."""
    name = hashlib.sha256(shlex.join(flags).encode()).hexdigest()[:16]
    folder = build.kernels() / f"{header}-{name}"
    if not folder.exists():
        with tempfile.TemporaryDirectory(dir=build.kernels()) as place:
            made = Path(place) / "made"
            made.mkdir()
            source = build.HERE / "include" / header
            module._run(
                module.compiler() or "g++", *flags, "-DGRADLITE_CPU_THREADS", "-x", "c++-header",
                f"-I{source.parent}", str(source), "-o", f"{made}/{header}.gch",
            )  # fmt: skip
            with contextlib.suppress(OSError):  # another process was faster
                os.rename(made, folder)
    return str(folder)
