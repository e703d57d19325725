"""The text of the kernels: where ``kernels/`` is, what each file declares, includes expanded.

No compiler is needed for any of it. The names and the parameters of the kernels are read from
their declarations, so that a launch can be checked before it runs: a GPU takes whatever bytes
it is handed.
"""

from __future__ import annotations

import re
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradlite import dtypes

# The names of the storage dtypes, in the names of kernels and in GRADLITE_DTYPE.
SUFFIXES = {np.dtype(np.float16): "f16", np.dtype(np.float32): "f32", np.dtype(np.float64): "f64"}
_ACC = {np.dtype(np.float16): np.dtype(np.float32)}


@dtypes.when_loaded
def _enter_bfloat16(numpy_dtype: np.dtype) -> None:
    SUFFIXES[numpy_dtype], _ACC[numpy_dtype] = "bf16", np.dtype(np.float32)


_INCLUDE = re.compile(r'\s*#include "([\w.]+)"')
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_KERNEL = re.compile(
    r"\bKERNEL(?:_OF\((\w+),\s*(\d+)\)|(?:_BLOCKS)?\((\w+)(?:,\s*\d+)?\))\s*\(([^)]*)\)\s*\{"
)
_QUALIFIERS = re.compile(r"\b(?:const|__restrict__)\b")
THREADS = 256  # of a KERNEL's blocks, at most


class Parameter(NamedTuple):
    """One parameter of a kernel.

    Attributes:
        name: as declared.
        kind: "pointer", "int" (i64) or "float" (double).
        element: of a pointer, the type of what it points to, as ``scalar_t``.
        written: whether it is a pointer through which the kernel may write.
    """

    name: str
    kind: str
    element: str
    written: bool = False


class Kernel(NamedTuple):
    """A kernel as its declaration says: name, file, parameters and threads of a block at most."""

    name: str
    file: str
    parameters: tuple[Parameter, ...]
    threads: int


def acc_dtype(dtype: np.dtype) -> np.dtype:
    """The dtype of ``acc_t``, which a kernel computes in."""
    return _ACC.get(dtype, dtype)


@cache
def folder() -> Any:
    """Where the kernels are: inside an installed package, beside the package in a checkout."""
    from importlib.resources import files  # late: it takes a while, and few programs come here

    installed = files("gradlite") / "kernels"
    for place in (installed, Path(__file__).resolve().parents[2] / "kernels"):
        if (place / "common.cuh").is_file():
            return place
    raise FileNotFoundError(f"the kernels of gradlite are missing: there is no {installed}")


@cache
def text_of(file: str) -> str:
    """The text of one file of the folder."""
    text: str = (folder() / file).read_text(encoding="utf-8")
    return text


@cache
def source(file: str) -> str:
    """A kernel file with its includes in their places, once each.

    Every part says where it comes from, so that a compiler's messages do too.
    """
    return expand(file, text_of(file))


_DEFINITION = re.compile(
    r"^KERNEL(?:_OF|_BLOCKS)?\((\w+)[^)]*\)\s*\([^)]*\)\s*\{\n.*?^\}\n", re.DOTALL | re.MULTILINE
)


def alone(name: str, text: str) -> str:
    """The text of a file without the definitions of its other kernels."""
    return _DEFINITION.sub(lambda m: m[0] if m[1] == name else "\n" * m[0].count("\n"), text)


def expand(file: str, text: str) -> str:
    """A text with the includes of the folder in their places; ``file`` is its name in messages."""
    return "\n".join(_expanded(file, text, set())) + "\n"


def _expanded(file: str, text: str, seen: set[str]) -> list[str]:
    lines = [f'#line 1 "{file}"']
    for number, line in enumerate(text.splitlines(), start=1):
        include = _INCLUDE.match(line)
        if include is None:
            lines.append("" if line.startswith("#pragma once") else line)
            continue
        if include[1] not in seen:
            seen.add(include[1])
            lines += _expanded(include[1], text_of(include[1]), seen)
        lines.append(f'#line {number + 1} "{file}"')
    return lines


def declarations(file: str, text: str) -> list[Kernel]:
    """The kernels that a text declares with KERNEL, KERNEL_OF or KERNEL_BLOCKS."""
    found = []
    for match in _KERNEL.finditer(_COMMENT.sub("", text)):
        bounded, threads, plain, parameters = match.groups()
        name = bounded or plain
        listed = [p for p in parameters.split(",") if p.strip()]
        found.append(
            Kernel(
                name,
                file,
                tuple(_parameter(name, p) for p in listed),
                int(threads) if threads else THREADS,
            )
        )
    return found


def _parameter(kernel: str, declared: str) -> Parameter:
    plain = " ".join(_QUALIFIERS.sub("", declared).split())
    match = re.fullmatch(r"(\w+(?: ?\*)*) ?(\w+)", plain)
    kind = match[1].replace(" ", "") if match else ""
    if match and kind.endswith("*"):
        written = re.match(r"\s*const\b", declared) is None
        return Parameter(match[2], "pointer", kind[:-1], written)
    if match and kind in ("i64", "double"):
        return Parameter(match[2], "int" if kind == "i64" else "float", "")
    raise TypeError(
        f"kernel {kernel}: parameter '{' '.join(declared.split())}' is none of a pointer, an i64 "
        "and a double"
    )


@cache
def index() -> dict[str, Kernel]:
    """Every kernel of the folder by its name."""
    found: dict[str, Kernel] = {}
    for file in sorted(path.name for path in folder().iterdir() if path.name.endswith(".cu")):
        for kernel in declarations(file, text_of(file)):
            other = found.setdefault(kernel.name, kernel)
            if other is not kernel:
                raise ValueError(
                    f"kernel {kernel.name} is in two files, {other.file} and {kernel.file}"
                )
    return found


def kernel(name: str) -> Kernel:
    """A kernel by its name; LookupError when no file declares it."""
    found = index().get(name)
    if found is None:
        raise LookupError(f"no kernel is called {name!r}; the files in {folder()} declare none")
    return found
