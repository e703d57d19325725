"""Times the kernels of ops on the CPU against the ops' rules in NumPy: where `native_from` is from.

    python -m benchmarks.native [--ops NAMES] [--sizes N,N] [--dtype NAME] [--json NAME]

For each op and number of elements the time of its kernels over that of its rule, forward and
backward; below 1 the kernels are faster. Both run in turn in one process, in one thread, as whole
ops: with what tensors cost. An op says in its class from how many elements on its kernels run
(``gradlite/ops/natively.py``); beside the ratios stands what it says.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from benchmarks import timing
from benchmarks.native_cases import CASES, Case

SIZES = tuple(1 << k for k in range(10, 19, 2))


@contextmanager
def kernels(wanted: bool) -> Iterator[None]:
    """Every op with kernels runs with them on NumPy's arrays, whatever the size, or none does."""
    import numpy as np

    from gradlite.backends import native
    from gradlite.ops import natively
    from gradlite.ops.namespaces import NAMESPACES

    sized = natively.LAUNCHERS.pop(np)
    NAMESPACES[np.ndarray].use(native.on_demand() if wanted else None)
    try:
        yield
    finally:
        NAMESPACES[np.ndarray].use(None)
        natively.LAUNCHERS[np] = sized


def calls(T: Any, case: Case, n: int, dtype: str) -> dict[str, Callable[[], object]]:
    """The op's forward and its backward pass, ready to be timed."""
    x, *more = case.arguments(T, n, getattr(T, dtype))

    def forward() -> Any:
        with T.no_grad():
            return case.call(T, x, *more)

    leaves = [t for t in (x, *more) if t.requires_grad]
    y = case.call(T, x, *more)
    grad = T.ones_like(y)
    return {
        "forward": forward,
        "backward": lambda: T.autograd.grad(y, leaves, grad, retain_graph=True),
    }


def measure(T: Any, name: str, n: int, dtype: str, rounds: int) -> dict[str, Any]:
    """The ratios of one op at one size."""
    made = {}
    for wanted in (False, True):
        with kernels(wanted):
            made[wanted] = calls(T, CASES[name], n, dtype)
    found: dict[str, Any] = {"op": name, "elements": n, "dtype": dtype}
    for way in ("forward", "backward"):
        both = [made[False][way], made[True][way]]
        times: list[list[float]] = [[], []]
        repeats = max(1, 20000 // n) * 4
        for number in range(rounds):
            for wanted in (False, True) if number % 2 else (True, False):
                with kernels(wanted):
                    timing.time_block(both[wanted], 1)
                    times[wanted].append(timing.time_block(both[wanted], repeats, "cpu"))
        found[f"{way}_us"] = statistics.median(times[False]) * 1e6
        found[way] = statistics.median(k / r for r, k in zip(*times))
    return found


def table(results: Sequence[dict[str, Any]]) -> str:
    """A line for each op and direction: the ratios at each size, and what the op says."""
    from gradlite.ops.namespaces import OPS

    sizes = list(dict.fromkeys(r["elements"] for r in results))
    lines = []
    for name in dict.fromkeys(r["op"] for r in results):
        own = {r["elements"]: r for r in results if r["op"] == name}
        op = OPS[name]
        for way, says in (("forward", op.native_from), ("backward", op.native_backward_from)):
            ratios = [f"{own[n][way]:.2f}" for n in sizes]
            lines.append([f"{name} {way}", *ratios, "never" if says is None else str(says)])
    return timing.table(["op", *map(str, sizes), "runs from"], lines)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.native")
    parser.add_argument("--ops", default="all", help="comma-separated names, or 'all'")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of elements")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float64"))
    parser.add_argument("--rounds", type=int, default=11, help="rounds of interleaved timing")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(argv)
    names = list(CASES) if options.ops == "all" else options.ops.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise SystemExit(f"unknown ops {unknown}; there are {', '.join(CASES)}")
    timing.restart_with_threads("benchmarks.native", 1)
    library = importlib.import_module("gradlite")
    from gradlite.backends import native

    if native.on_demand() is None:
        raise SystemExit("no kernel can be compiled here: there is no C++ compiler")
    facts = timing.machine(1, [library])
    print(f"{timing.describe(facts)}; kernel / rule, {options.dtype}\n", flush=True)
    sizes = [int(size) for size in options.sizes.split(",")]
    results = [
        measure(library, name, n, options.dtype, options.rounds) for name in names for n in sizes
    ]
    print(table(results))
    if options.json:
        payload = {"benchmark": "native", "machine": facts, "results": results}
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")


if __name__ == "__main__":
    main()
