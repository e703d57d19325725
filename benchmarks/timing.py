"""Interleaved timing of two libraries in one process, and what the tables say about the machine."""

from __future__ import annotations

import datetime
import importlib
import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
RESULTS = Path(__file__).parent / "results"


def restart_with_threads(module: str, threads: int) -> None:
    """Restarts the program under `threads` BLAS threads: NumPy reads the number when it loads."""
    if all(os.environ.get(name) == str(threads) for name in THREAD_VARIABLES):
        return
    os.environ.update(dict.fromkeys(THREAD_VARIABLES, str(threads)))
    os.execv(sys.executable, [sys.executable, "-m", module, *sys.argv[1:]])


def load_library(name: str, threads: int) -> Any:
    """Imports a library with PyTorch's API, on `threads` threads."""
    library = importlib.import_module(name)
    if hasattr(library, "set_num_threads"):
        library.set_num_threads(threads)
    return library


@dataclass(frozen=True)
class Timing:
    """Seconds per call, block by block."""

    blocks: tuple[float, ...]

    @property
    def median(self) -> float:
        return statistics.median(self.blocks)

    @property
    def quartiles(self) -> tuple[float, float]:
        if len(self.blocks) < 2:
            return self.blocks[0], self.blocks[0]
        low, _, high = statistics.quantiles(self.blocks, n=4)
        return low, high


# The wall clock, or this process's time on the processor: steadier on a busy machine, and
# fair only with one thread each.
CLOCKS: dict[str, Callable[[], float]] = {"wall": time.perf_counter, "cpu": time.process_time}


def time_block(
    call: Callable[[], object],
    repeats: int,
    clock: str = "wall",
    finish: Callable[[], object] | None = None,
) -> float:
    """Seconds per call over one block; ``finish`` waits for a device that is behind."""
    now = CLOCKS[clock]
    start = now()
    for _ in range(repeats):
        call()
    if finish is not None:
        finish()
    return (now() - start) / repeats


def repeats_for(
    call: Callable[[], object], block_seconds: float, finish: Callable[[], object] | None = None
) -> int:
    """Calls that fill about one block, after a warm-up."""
    call()
    repeats = 1
    while True:
        seconds = time_block(call, repeats, finish=finish) * repeats
        if seconds > block_seconds / 4:
            return max(1, round(repeats * block_seconds / seconds))
        repeats *= 4


def interleave(
    calls: Sequence[Callable[[], object]],
    blocks: int,
    block_seconds: float = 0.1,
    clock: str = "wall",
    finish: Callable[[], object] | None = None,
) -> list[Timing]:
    """Times several calls in alternating blocks, so that a drift of the machine meets all.

    Every round runs one block of each call, and every other round in reverse order.
    """
    repeats = [repeats_for(call, block_seconds, finish) for call in calls]
    seconds: list[list[float]] = [[] for _ in calls]
    for block in range(blocks):
        order = range(len(calls)) if block % 2 == 0 else reversed(range(len(calls)))
        for position in order:
            call = calls[position]
            seconds[position].append(time_block(call, repeats[position], clock, finish))
    return [Timing(tuple(values)) for values in seconds]


def ratio(measured: Timing, reference: Timing) -> tuple[float, float, float]:
    """Lower quartile, median and upper quartile of the block-by-block ratios."""
    ratios = Timing(tuple(m / r for m, r in zip(measured.blocks, reference.blocks, strict=True)))
    low, high = ratios.quartiles
    return low, ratios.median, high


def processor() -> str:
    """The processor's model name with its family and model number."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    facts = {
        key.strip(): value.strip() for key, _, value in (line.partition(":") for line in lines)
    }
    name = facts.get("model name", platform.machine())
    return f"{name} (family {facts.get('cpu family', '?')}, model {facts.get('model', '?')})"


def machine(threads: int, libraries: Sequence[Any]) -> dict[str, Any]:
    """What a reader needs to judge the numbers; no host name and no path."""
    import numpy

    blas = numpy.show_config(mode="dicts")["Build Dependencies"]["blas"]  # type: ignore[index]
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).date().isoformat(),
        "processor": processor(),
        "cores": os.cpu_count(),
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "numpy": numpy.__version__,
        "blas": f"{blas['name']} {blas['version']}",
        "threads": threads,
        **({"load": round(os.getloadavg()[0], 1)} if hasattr(os, "getloadavg") else {}),
        **{library.__name__: str(library.__version__) for library in libraries},
    }


def card(T: Any) -> dict[str, Any]:
    """The GPU, its driver, and the versions of what gradlite runs on there."""
    import cupy

    runtime = cupy.cuda.runtime
    return {
        "card": T.cuda.get_device_name(),
        "driver": runtime.driverGetVersion(),
        "cuda": runtime.runtimeGetVersion(),
        "cupy": str(getattr(cupy, "__version__", "?")),
    }


def describe(facts: dict[str, Any]) -> str:
    """The machine in two lines."""
    versions = {
        key: value
        for key, value in facts.items()
        if key not in ("date", "processor", "cores", "system", "threads", "load")
    }
    return (
        f"{facts['processor']}, {facts['cores']} cores, {facts['system']}, "
        f"{facts['threads']} thread(s) each, load {facts.get('load', '?')}, {facts['date']}\n"
        + ", ".join(f"{key} {value}" for key, value in versions.items())
    )


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A plain text table: the first column to the left, the others to the right."""
    widths = [max(len(row[i]) for row in (header, *rows)) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        first, *others = cells
        padded = [cell.rjust(width) for cell, width in zip(others, widths[1:], strict=True)]
        return "  ".join([first.ljust(widths[0]), *padded]).rstrip()

    return "\n".join([line(header), "  ".join("-" * width for width in widths), *map(line, rows)])


def write_json(path: str, payload: dict[str, Any]) -> Path:
    """Writes results; a bare file name goes into ``benchmarks/results``."""
    target = Path(path)
    if target.parent == Path("."):
        target = RESULTS / target
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f"{target.name}.part")
    part.write_text(json.dumps(payload, indent=1) + "\n")
    part.replace(target)
    return target
