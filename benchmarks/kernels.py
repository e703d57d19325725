"""Times the fused kernels on a GPU against the memory's speed, the rules and PyTorch.

    python -m benchmarks.kernels [--kernels NAMES] [--sizes N,N] [--json NAME]

For each kernel: the bytes that it has to move over the time it takes, as a share of the bandwidth
of a copy measured on the same card in the same rounds, and what PyTorch's kernels take for the
same, where that is installed with CUDA; all of these from CUDA graphs of several calls, so that
the processor's time to launch them does not count. Beside it the whole op as a program calls it,
with the kernel and without, and PyTorch's. Times are between CUDA events, after a warm-up,
interleaved; medians are shown.
"""

from __future__ import annotations

import argparse
import importlib
import statistics
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import timing
from benchmarks.kernel_cases import CASES, Case

SIZES = tuple(1 << k for k in range(10, 27, 4))
LEAST_SHARE = 0.8
WARM_UP = 3
# What takes longer than this in one round is timed less often.
ROUND_SECONDS = 0.02
GRAPH_CALLS = 10
# How much slower than PyTorch's a kernel is named: two runs of one kernel differ by as much.
NOISE = 1.03


class NotLaunchedError(RuntimeError):
    """At a size, the op does without the kernel."""


class Watch:
    """The launches of one kernel by gradlite, caught so that they can be made again."""

    def __init__(self, launcher: Any, kernel: str) -> None:
        self.launcher, self.kernel, self.caught = launcher, kernel, []

    def __enter__(self) -> Watch:
        through = self.launcher._launch

        def launch(name: str, *rest: Any) -> None:
            if name == self.kernel:
                self.caught.append((name, *rest))
            through(name, *rest)

        self.launcher._launch = launch
        return self

    def __exit__(self, *exc: object) -> None:
        del self.launcher._launch

    def again(self) -> None:
        """Launch the kernel once more on the same arrays."""
        self.launcher._launch(*self.caught[0])


def program(case: Case, T: Any, n: int, own: bool) -> Callable[[], object]:
    """The call that a case times, in a library on the GPU."""
    x = T.rand(case.shape(n), device="cuda")
    more = case.more(T, x)
    call = case.own if own and case.own else case.call
    if case.step:
        x.grad = T.rand(case.shape(n), device="cuda")
        step = call(T, x.requires_grad_()).step
        step()  # which makes the states
        return step  # type: ignore[no-any-return]
    if case.backward:
        inputs = [x, more[0]] if case.both else [x]
        for operand in inputs:
            operand.requires_grad_()
        y = call(T, x, *more)
        grad = T.ones_like(y)
        return lambda: T.autograd.grad(y, inputs, grad, retain_graph=True)

    def forward() -> Any:
        with T.no_grad():
            return call(T, x, *more)

    return forward


def in_graph(T: Any, call: Callable[[], object]) -> Callable[[], object]:
    """`GRAPH_CALLS` calls by gradlite as one CUDA graph; they may take no memory."""
    import cupy

    stream = cupy.cuda.Stream(non_blocking=True)
    T.cuda.synchronize()
    with stream:
        stream.begin_capture()
        for _ in range(GRAPH_CALLS):
            call()
        graph = stream.end_capture()
    return graph.launch  # type: ignore[no-any-return]


def torch_in_graph(torch: Any, case: Case, n: int) -> Callable[[], object] | None:
    """`GRAPH_CALLS` calls by PyTorch as one CUDA graph, or None for what may stand in none."""
    if case.step:
        return None
    graph, stream = torch.cuda.CUDAGraph(), torch.cuda.Stream()
    try:
        with torch.cuda.stream(stream):  # a backward pass runs on the stream of the forward pass
            call = program(case, torch, n, own=False)
            for _ in range(WARM_UP):
                call()
            stream.synchronize()
            with torch.cuda.graph(graph, stream=stream):
                for _ in range(GRAPH_CALLS):
                    call()
    except RuntimeError:
        return None
    return graph.replay  # type: ignore[no-any-return]


def between_events(T: Any, call: Callable[[], object], repeats: int) -> float:
    """Seconds of a call on the GPU."""
    start, end = (T.cuda.Event(enable_timing=True) for _ in range(2))
    start.record()
    for _ in range(repeats):
        call()
    end.record()
    end.synchronize()
    return float(start.elapsed_time(end)) / 1e3 / repeats


def medians(
    calls: dict[str, tuple[Any, Callable[[], object]]], rounds: int, repeats: int
) -> dict[str, float]:
    """The median seconds of several calls, timed in turn: of slow ones fewer calls, and rounds."""
    each, found = {}, {}
    for name, (T, call) in calls.items():
        seconds = between_events(T, call, 1)
        if seconds < 10 * ROUND_SECONDS:
            between_events(T, call, WARM_UP)
            seconds = between_events(T, call, 1)
        each[name] = max(1, min(repeats, int(ROUND_SECONDS / max(seconds, 1e-9))))
        found[name] = [seconds] if each[name] == 1 else []
    for _ in range(rounds):
        for name, (T, call) in calls.items():
            if sum(found[name]) < 10 * ROUND_SECONDS:
                found[name].append(between_events(T, call, each[name]))
    return {name: statistics.median(values) for name, values in found.items()}


def measure(
    kernel: str, n: int, T: Any, torch: Any | None, rounds: int, repeats: int
) -> dict[str, Any]:
    """Times of one kernel, and of the op that it serves, at one size."""
    from gradlite.ops.namespaces import NAMESPACES

    case = CASES[kernel]
    source, target = T.rand(n, device="cuda"), T.rand(n, device="cuda")
    namespace = NAMESPACES[source.array.__class__]
    launcher = namespace.launcher
    op = program(case, T, n, own=True)
    with Watch(launcher, kernel) as watch:
        op()
    if not watch.caught:
        raise NotLaunchedError(f"the op does without it at {n} elements")
    calls = {
        "copy": (T, in_graph(T, lambda: target.copy_(source))),
        "kernel": (T, in_graph(T, watch.again)),
        "op": (T, op),
    }
    if torch is not None:
        theirs = torch_in_graph(torch, case, n)
        calls |= {} if theirs is None else {"torch_kernel": (torch, theirs)}
        calls["torch"] = (torch, program(case, torch, n, own=False))
    found = medians(calls, rounds, repeats)
    for name in ("copy", "kernel", "torch_kernel"):
        if name in found:
            found[name] /= GRAPH_CALLS
    namespace.use(None)
    try:
        rule = program(case, T, n, own=True)
        found["rule"] = medians({"rule": (T, rule)}, min(rounds, 3), repeats)["rule"]
    finally:
        namespace.use(launcher)
    itemsize = source.element_size()
    moved = case.passes * n * itemsize
    bandwidth = 2 * n * itemsize / found["copy"]
    return {
        "kernel": kernel,
        "elements": n,
        "bytes": moved,
        "share": moved / found["kernel"] / bandwidth,
        "copy_bandwidth": bandwidth,
        **{f"{name}_us": seconds * 1e6 for name, seconds in found.items()},
    }


# Columns beside a kernel's own time.
OTHERS = {
    "PyTorch's": "torch_kernel_us",
    "op": "op_us",
    "rule": "rule_us",
    "PyTorch": "torch_us",
}


def at_once(result: dict[str, Any]) -> str:
    """What is said of a result at once."""
    beside = ", ".join(
        f"{title} {result[key]:.1f} us" for title, key in OTHERS.items() if key in result
    )
    return (
        f"{result['kernel']} at {result['elements']}: {result['kernel_us']:.1f} us, "
        f"{result['share']:.0%} of a copy; {beside}"
    )


def table(results: Sequence[dict[str, Any]]) -> str:
    """All results in lines."""
    header = ["kernel", "elements", "us", "of copy", *(f"{title} us" for title in OTHERS)]
    lines = [
        [
            r["kernel"],
            str(r["elements"]),
            f"{r['kernel_us']:.1f}",
            f"{r['share']:.0%}",
            *(f"{r[key]:.1f}" if key in r else "" for key in OTHERS.values()),
        ]
        for r in results
    ]
    return timing.table(header, lines)


def slow(results: Sequence[dict[str, Any]]) -> list[str]:
    """A line for each kernel below `LEAST_SHARE` at its largest size, or slower than PyTorch."""
    lines = []
    for kernel in dict.fromkeys(r["kernel"] for r in results):
        own = [r for r in results if r["kernel"] == kernel]
        last = max(own, key=lambda r: r["elements"])
        if last["share"] < LEAST_SHARE:
            lines.append(f"{kernel}: {last['share']:.0%} of a copy at {last['elements']} elements")
        lines += [
            f"{kernel}: {r['kernel_us'] / r['torch_kernel_us']:.2f} of PyTorch's time at "
            f"{r['elements']} elements"
            for r in own
            if "torch_kernel_us" in r and r["kernel_us"] > NOISE * r["torch_kernel_us"]
        ]
    return lines


def torch_with_cuda() -> Any | None:
    """PyTorch where it is installed and sees the GPU."""
    try:
        torch = importlib.import_module("torch")
    except ImportError:
        return None
    return torch if torch.cuda.is_available() else None


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.kernels")
    parser.add_argument("--kernels", default="all", help="comma-separated names, or 'all'")
    parser.add_argument("--sizes", default=",".join(map(str, SIZES)), help="numbers of elements")
    parser.add_argument("--rounds", type=int, default=15, help="rounds of interleaved timing")
    parser.add_argument("--repeats", type=int, default=20, help="calls between two events")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(argv)
    names = list(CASES) if options.kernels == "all" else options.kernels.split(",")
    unknown = [name for name in names if name not in CASES]
    if unknown:
        raise SystemExit(f"unknown kernels {unknown}; there are {', '.join(CASES)}")
    library, torch = importlib.import_module("gradlite"), torch_with_cuda()
    if not library.cuda.is_available():
        library.zeros(1, device="cuda")  # whose error says what is missing
    facts = timing.machine(1, [library] + ([torch] if torch else [])) | timing.card(library)
    print(f"{facts['card']}, {timing.describe(facts)}\n", flush=True)
    sizes = [int(size) for size in options.sizes.split(",")]
    results: list[dict[str, Any]] = []
    failed: list[str] = []
    payload = {"benchmark": "kernels", "machine": facts, "results": results, "failed": failed}
    for name in names:
        for n in sizes:
            try:
                results.append(measure(name, n, library, torch, options.rounds, options.repeats))
                print(at_once(results[-1]), flush=True)
            except NotLaunchedError as reason:
                print(f"{name}: {reason}", flush=True)
            except Exception as error:  # the other kernels' times count all the same
                failed.append(f"{name} at {n} elements: {type(error).__name__}: {error}")
                print(failed[-1], flush=True)
        if options.json:  # what comes later may end the process
            timing.write_json(options.json, payload)
    print(f"\n{table(results)}")
    for line in slow(results):
        print(line)
    if options.json:
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")
    if failed:
        raise SystemExit("\n".join([f"{len(failed)} failed:", *failed]))


if __name__ == "__main__":
    main()
