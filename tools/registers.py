"""What the kernels take on every kind of GPU, compared with a table of ceilings.

    python -m tools.registers               # write tests/kernels/registers.json
    python -m tools.registers softmax.cu    # only the rows of these files
    python -m tools.registers --check       # exit code 1 when it is out of date

A ceiling is the largest number of registers over the GPUs, rounded up to a multiple of 8: a kernel
that grows past it runs fewer threads at a time. A kernel that keeps registers in memory is refused,
whatever the compiler gains by it: KERNEL_BLOCKS (common.cuh) or shorter loops help.
"""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

from gradlite.backends.kernel_source import index, source
from tools import nvrtc

ROOT = Path(__file__).resolve().parent.parent
TABLE = ROOT / "tests" / "kernels" / "registers.json"
DTYPES = ("f16", "bf16", "f32", "f64")
# Turing, Ampere (data centre, desktop), Ada, Hopper, Blackwell (data centre, desktop).
GPUS = (75, 80, 86, 89, 90, 100, 120)
# CuPy's own options and ours, so that what is compiled here is what runs there.
OPTIONS = ("-ftz=true", "--device-as-default-execution-space", "-std=c++17")


class Target(NamedTuple):
    """One compilation: a kernel file, a storage dtype and a compute capability."""

    file: str
    dtype: str
    gpu: int


def files() -> list[str]:
    """The kernel files."""
    return sorted({kernel.file for kernel in index().values()})


def targets(only: Iterable[str] = ()) -> list[Target]:
    """Every file, or only these, in every dtype for every GPU."""
    return [Target(f, d, g) for f in only or files() for d in DTYPES for g in GPUS]


def measure(wanted: Iterable[Target]) -> dict[Target, dict[str, nvrtc.Resources]]:
    """What every kernel takes on every target, by the name of its symbol.

    As many processes compile as there are processors. Results are kept in the folder for
    temporary files, and used again as long as text, options and compiler are the same.

    Raises:
        RuntimeError: a file does not compile.
    """
    nvrtc.version()  # found before there are threads: the importer's caches are not safe with them
    groups: dict[tuple[str, str], list[Target]] = {}
    for target in wanted:
        groups.setdefault((target.file, target.dtype), []).append(target)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        return {t: r for results in pool.map(_measure, groups.values()) for t, r in results}


def _measure(group: list[Target]) -> list[tuple[Target, dict[str, nvrtc.Resources]]]:
    file, dtype, _ = group[0]
    job = (source(file), file, (*OPTIONS, f"-DGRADLITE_DTYPE={dtype}"))
    kept = {target: _cache_file((*job, target.gpu)) for target in group}
    missing = [target for target in group if not kept[target].exists()]
    if missing:
        done = subprocess.run(
            [sys.executable, "-m", "tools.nvrtc"],
            input=json.dumps([*job, [target.gpu for target in missing]]),
            capture_output=True,
            text=True,
            cwd=ROOT,
        )
        if done.returncode:
            raise RuntimeError(done.stderr)
        for target, found in zip(missing, json.loads(done.stdout)):
            partial = kept[target].with_suffix(f".{os.getpid()}")
            partial.write_text(json.dumps(found))
            os.replace(partial, kept[target])
    return [
        (t, {name: nvrtc.Resources(*r) for name, r in json.loads(kept[t].read_text()).items()})
        for t in group
    ]


def _cache_file(job: Any) -> Path:
    folder = Path(tempfile.gettempdir()) / f"gradlite-nvrtc-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    key = hashlib.sha256(repr((nvrtc.version(), job)).encode()).hexdigest()
    return folder / f"{key[:24]}.json"


def ceilings() -> dict[str, dict[str, int]]:
    """The table: registers of a thread at most, by kernel and dtype."""
    table: dict[str, dict[str, int]] = json.loads(TABLE.read_text(encoding="utf-8"))
    return table


def measured_ceilings(only: Iterable[str] = ()) -> dict[str, dict[str, int]]:
    """The table as it should be, or only the rows of these files.

    Raises:
        RuntimeError: a kernel spills.
    """
    most: dict[str, dict[str, int]] = {}
    for target, found in measure(targets(only)).items():
        for symbol, resources in found.items():
            name, _, dtype = symbol.rpartition("_")
            row = most.setdefault(name, dict.fromkeys(DTYPES, 0))
            row[dtype] = max(row[dtype], -(-resources.registers // 8) * 8)
            if resources.spilled:
                raise RuntimeError(f"{symbol} spills {resources.spilled} bytes on sm_{target.gpu}")
    return most


def _lines(table: dict[str, dict[str, int]]) -> Iterator[str]:
    yield "{"
    last = max(table)
    for name, row in sorted(table.items()):
        yield f"  {json.dumps(name)}: {json.dumps(row)}{',' if name != last else ''}"
    yield "}"


def main(arguments: list[str]) -> int:
    """Write the table, or say that it is out of date."""
    check, only = "--check" in arguments, [a for a in arguments if a.endswith(".cu")]
    rows = ceilings() if only else {}
    rows |= measured_ceilings(only)
    text = "\n".join(_lines({name: row for name, row in rows.items() if name in index()})) + "\n"
    if not check:
        TABLE.write_text(text, encoding="utf-8")
    elif TABLE.read_text(encoding="utf-8") != text:
        print(f"{TABLE.name} is out of date: run python -m tools.registers", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
