"""How a training step's time and memory grow: with depth, width, batch and number of tensors.

    python -m benchmarks.scaling [--axes depth,width] [--mode eager,captured] [--vs torch]
                                 [--json NAME]

Each axis varies one size of a perceptron (Linear and ReLU, cross-entropy, SGD with momentum) and
leaves the others. ``layers`` is a depth too, of layers so narrow that 512 of them stay in the
caches of a processor: it tells what a layer costs from what memory does. ``tensors`` splits the
same number of parameters into more and more of them, all added to the input. Times are medians of
interleaved blocks; memory is what Python has allocated at the highest point of a step, over that
before the model, in a run of its own.

A straight line through the points (least squares of relative errors, so that small sizes count
as much as large ones) gives the fixed cost and that of each unit of work: layers, weights of a
layer, rows, tensors. Whether growth is linear says the exponent, the slope of the upper half of the
points on logarithmic scales: 1 is linear, 2 quadratic; a little above 1 is what memory does that no
longer fits into a cache. ``--vs torch`` times the same steps of PyTorch between ours: what the
memory of a layer costs, it pays as well.
"""

from __future__ import annotations

import argparse
import gc
import importlib
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import timing

MODES = ("eager", "captured")
PEER = "torch"
SIZES = {
    "depth": (2, 8, 32, 64, 128, 256, 512),
    "layers": (2, 8, 32, 64, 128, 256, 512),
    "width": (16, 32, 64, 128, 256, 512),
    "batch": (8, 32, 128, 512, 2048),
    "tensors": (1, 4, 16, 64, 256, 1024),
}
DEPTH, WIDTH, NARROW, BATCH, CLASSES, ELEMENTS = 4, 64, 16, 32, 10, 1 << 16
LABELS = {
    "width": "width squared",
    "depth": f"depth, of width {WIDTH}",
    "layers": f"depth, of width {NARROW}",
}
LINEAR = (0.85, 1.15)  # exponents


def work(axis: str, size: int) -> int:
    """What the time should be linear in."""
    return size * size if axis == "width" else size


def make(axis: str, size: int, mode: str) -> Callable[[], Any]:
    """A training step of that size; `PEER` is a mode like ours."""
    T: Any = importlib.import_module(PEER if mode == PEER else "gradlite")
    T.manual_seed(0)
    depth = size if axis in ("depth", "layers") else DEPTH
    width = {"width": size, "layers": NARROW}.get(axis, WIDTH)
    batch = size if axis == "batch" else BATCH
    if axis == "tensors":
        parameters = [
            T.nn.Parameter(T.zeros(1, ELEMENTS // size).normal_(0, 0.1)) for _ in range(size)
        ]
        inputs = T.randn(1, ELEMENTS // size)

        def loss_of() -> Any:
            total = inputs
            for parameter in parameters:
                total = total + parameter
            return total.square().mean()

    else:
        layers: list[Any] = []
        for _ in range(depth - 1):
            layers += [T.nn.Linear(width, width), T.nn.ReLU()]
        model = T.nn.Sequential(*layers, T.nn.Linear(width, CLASSES))
        parameters = list(model.parameters())
        rng = np.random.default_rng(0)
        inputs = T.tensor(rng.standard_normal((batch, width)).astype(np.float32))
        targets = T.tensor(rng.integers(0, CLASSES, batch))

        def loss_of() -> Any:
            return T.nn.functional.cross_entropy(model(inputs), targets)

    optimizer = T.optim.SGD(parameters, lr=1e-3, momentum=0.9)

    def step() -> Any:
        optimizer.zero_grad()
        loss = loss_of()
        loss.backward()
        optimizer.step()
        return loss

    return T.capture(step) if mode == "captured" else step


def allocated(axis: str, size: int, mode: str) -> float | None:
    """MiB that Python has allocated at the highest point of a warm step, without what was there.

    None where Python knows nothing of it.
    """
    if mode == PEER:
        return None
    gc.collect()
    tracemalloc.start()
    try:
        step = make(axis, size, mode)
        for _ in range(5):
            step()
        gc.collect()
        tracemalloc.reset_peak()
        for _ in range(2):
            step()
        return tracemalloc.get_traced_memory()[1] / (1 << 20)
    finally:
        tracemalloc.stop()


def line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Offset and slope of ``y = offset + slope * x``, neither below 0, by relative errors."""
    xs, ys = np.asarray(x, float), np.asarray(y, float)
    columns = np.stack([np.ones_like(xs), xs], 1) / ys[:, None]
    (offset, slope), *_ = np.linalg.lstsq(columns, np.ones_like(ys), rcond=None)
    if offset < 0:
        offset, slope = 0.0, float((xs / ys).sum() / ((xs / ys) ** 2).sum())
    elif slope < 0:
        offset, slope = float((1 / ys).sum() / ((1 / ys) ** 2).sum()), 0.0
    return float(offset), float(slope)


def exponent(x: Sequence[float], y: Sequence[float]) -> float:
    """``y`` grows like ``x`` to the power of this, by the upper half of the points."""
    upper = len(x) // 2
    return float(np.polyfit(np.log(x[upper:]), np.log(y[upper:]), 1)[0])


def fit(x: Sequence[float], y: Sequence[float]) -> dict[str, Any]:
    """The line through some points, how far they are from it, and how they grow."""
    offset, slope = line(x, y)
    off = [value / (offset + slope * at) - 1 for at, value in zip(x, y, strict=True)]
    power = exponent(x, y)
    growth = "less than" if power < LINEAR[0] else "more than" if power > LINEAR[1] else ""
    return {
        "offset": offset,
        "slope": slope,
        "worst": max(off, key=abs),
        "exponent": power,
        "growth": f"{growth} linear".strip(),
    }


def measure(axis: str, modes: Sequence[str], blocks: int, clock: str) -> list[dict[str, Any]]:
    """One axis: times and memory in each mode."""
    results: list[dict[str, Any]] = []
    for size in SIZES[axis]:
        steps = [make(axis, size, mode) for mode in modes]
        for step in steps:
            for _ in range(4):
                step()
        for mode, timed in zip(modes, timing.interleave(steps, blocks, 0.05, clock), strict=True):
            results.append(
                {
                    "axis": axis,
                    "size": size,
                    "work": work(axis, size),
                    "mode": mode,
                    "us": timed.median * 1e6,
                    "quartiles_us": [value * 1e6 for value in timed.quartiles],
                    "mib": allocated(axis, size, mode),
                }
            )
        times = ", ".join(f"{r['mode']} {r['us']:.0f} us" for r in results[-len(modes) :])
        print(f"{axis} {size}: {times}", flush=True)
    return results


def fits(results: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The lines through the times and the memory of each axis and mode."""
    found = []
    for axis, mode in dict.fromkeys((r["axis"], r["mode"]) for r in results):
        points = [r for r in results if (r["axis"], r["mode"]) == (axis, mode)]
        x = [float(r["work"]) for r in points]
        for what in ("us", "mib"):
            if points[0][what] is None:
                continue
            made = fit(x, [r[what] for r in points])
            found.append({"axis": axis, "mode": mode, "of": what, **made})
    return found


def picture(results: Sequence[dict[str, Any]], lines: Sequence[dict[str, Any]], path: Path) -> None:
    """Times and memory over each axis with the lines, on logarithmic scales."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    axes = list(dict.fromkeys(r["axis"] for r in results))
    figure, grid = pyplot.subplots(
        2, len(axes), figsize=(3.4 * len(axes), 6), squeeze=False, layout="constrained"
    )
    for column, axis in enumerate(axes):
        for row, what in enumerate(("us", "mib")):
            panel = grid[row][column]
            for color, mode in zip(("C0", "C1", "C7"), (*MODES, PEER), strict=True):
                points = [r for r in results if (r["axis"], r["mode"]) == (axis, mode)]
                if not points or points[0][what] is None:
                    continue
                x = np.array([r["work"] for r in points], float)
                panel.loglog(x, [r[what] for r in points], "o", color=color, label=mode)
                of = next(f for f in lines if (f["axis"], f["mode"], f["of"]) == (axis, mode, what))
                dense = np.geomspace(x[0], x[-1], 100)
                panel.loglog(dense, of["offset"] + of["slope"] * dense, "-", color=color, lw=1)
            panel.set_xlabel(LABELS.get(axis, axis))
            panel.grid(alpha=0.3)
            if column == 0:
                panel.set_ylabel("us a step" if what == "us" else "MiB allocated at most")
    grid[0][0].legend()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling")
    parser.add_argument("--axes", default=",".join(SIZES), help="comma-separated")
    parser.add_argument("--mode", default="eager,captured", help="comma-separated")
    parser.add_argument("--vs", choices=(PEER, "none"), default="none", help="whose steps as well")
    parser.add_argument("--blocks", type=int, default=7, help="timed blocks of each step")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="what to read")
    parser.add_argument("--json", metavar="NAME", help="also write the results, and a picture")
    options = parser.parse_args(argv)
    timing.restart_with_threads("benchmarks.scaling", 1)
    axes, modes = options.axes.split(","), options.mode.split(",")
    strange = [name for name in axes if name not in SIZES] + [m for m in modes if m not in MODES]
    if strange:
        raise SystemExit(f"unknown {strange}; there are {', '.join((*SIZES, *MODES))}")
    names = ["gradlite"] + ([PEER] if options.vs == PEER else [])
    modes += names[1:]
    facts = timing.machine(1, [timing.load_library(name, 1) for name in names])
    print(timing.describe(facts) + "\n", flush=True)
    results = [r for axis in axes for r in measure(axis, modes, options.blocks, options.clock)]
    header = ["axis", "size", "mode", "us a step", "us per unit", "MiB"]
    rows = [
        [
            r["axis"], str(r["size"]), r["mode"], f"{r['us']:.0f}",
            f"{r['us'] / r['work']:.3g}", "" if r["mib"] is None else f"{r['mib']:.2f}",
        ]
        for r in results
    ]  # fmt: skip
    print("\n" + timing.table(header, rows))
    lines = fits(results)
    header = ["growth", "mode", "of", "fixed", "per unit", "furthest point", "exponent", ""]
    rows = [
        [
            f["axis"] + (" squared" if f["axis"] == "width" else ""),
            f["mode"],
            "time, us" if f["of"] == "us" else "memory, MiB",
            f"{f['offset']:.3g}", f"{f['slope']:.3g}", f"{100 * f['worst']:+.0f} %",
            f"{f['exponent']:.2f}",
            f["growth"],
        ]
        for f in lines
    ]  # fmt: skip
    print("\n" + timing.table(header, rows))
    if options.json:
        payload = {
            "benchmark": "scaling",
            "clock": options.clock,
            "machine": facts,
            "results": results,
            "fits": lines,
        }
        written = timing.write_json(options.json, payload)
        picture(results, lines, written.with_suffix(".png"))
        print(f"\nwritten: {written.name} and {written.with_suffix('.png').name}")


if __name__ == "__main__":
    main()
