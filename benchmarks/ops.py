"""Times single ops, forward and backward, against PyTorch at three sizes.

    python -m benchmarks.ops [--vs torch] [--ops exp,add] [--sizes 1,1000,100000] [--threads 1]

A call is the op on inputs that require grad, ``backward`` with a given gradient, and dropping
the gradients.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import timing

Inputs = tuple[Any, ...]
ROW = 64


def _matrix(n: int) -> tuple[int, ...]:
    """A shape of about n elements with rows of `ROW` (one short row when n is smaller)."""
    return (1, n) if n < ROW else (n // ROW, ROW)


def _square(n: int) -> tuple[int, ...]:
    side = max(1, math.isqrt(n))
    return side, side


def _image(n: int) -> tuple[int, ...]:
    side = max(2, min(28, 2 * math.isqrt(max(n // 8, 1))))
    return max(1, n // (4 * side * side)), 4, side, side


# op -> (shapes of the inputs for n elements, function of the library and the inputs)
OPS: dict[str, tuple[Callable[[int], Sequence[tuple[int, ...]]], Callable[[Any, Inputs], Any]]] = {
    "add": (lambda n: [(n,), (n,)], lambda T, t: t[0] + t[1]),
    "add scalar": (lambda n: [(n,)], lambda T, t: t[0] + 1.5),
    "add bias": (lambda n: [_matrix(n), _matrix(n)[1:]], lambda T, t: t[0] + t[1]),
    "mul": (lambda n: [(n,), (n,)], lambda T, t: t[0] * t[1]),
    "div": (lambda n: [(n,), (n,)], lambda T, t: t[0] / t[1]),
    "exp": (lambda n: [(n,)], lambda T, t: t[0].exp()),
    "log": (lambda n: [(n,)], lambda T, t: t[0].abs().log()),
    "pow 2": (lambda n: [(n,)], lambda T, t: t[0] ** 2),
    "sqrt": (lambda n: [(n,)], lambda T, t: t[0].abs().sqrt()),
    "tanh": (lambda n: [(n,)], lambda T, t: t[0].tanh()),
    "sigmoid": (lambda n: [(n,)], lambda T, t: t[0].sigmoid()),
    "relu": (lambda n: [(n,)], lambda T, t: t[0].relu()),
    "gelu": (lambda n: [(n,)], lambda T, t: T.nn.functional.gelu(t[0])),
    "silu": (lambda n: [(n,)], lambda T, t: T.nn.functional.silu(t[0])),
    "where": (lambda n: [(n,), (n,)], lambda T, t: T.where(t[0] > 0, t[0], t[1])),
    "sum": (lambda n: [(n,)], lambda T, t: t[0].sum()),
    "sum rows": (lambda n: [_matrix(n)], lambda T, t: t[0].sum(1)),
    "mean": (lambda n: [(n,)], lambda T, t: t[0].mean()),
    "max rows": (lambda n: [_matrix(n)], lambda T, t: t[0].max(1).values),
    "softmax": (lambda n: [_matrix(n)], lambda T, t: t[0].softmax(-1)),
    "log_softmax": (lambda n: [_matrix(n)], lambda T, t: t[0].log_softmax(-1)),
    "layer_norm": (
        lambda n: [_matrix(n), _matrix(n)[1:], _matrix(n)[1:]],
        lambda T, t: T.nn.functional.layer_norm(t[0], t[1].shape, t[1], t[2]),
    ),
    "matmul": (lambda n: [_square(n), _square(n)], lambda T, t: t[0] @ t[1]),
    "linear": (
        lambda n: [_matrix(n), (ROW, _matrix(n)[1]), (ROW,)],
        lambda T, t: T.nn.functional.linear(t[0], t[1], t[2]),
    ),
    "conv2d 3x3": (
        lambda n: [_image(n), (8, 4, 3, 3), (8,)],
        lambda T, t: T.nn.functional.conv2d(t[0], t[1], t[2], padding=1),
    ),
    "max_pool2d": (lambda n: [_image(n)], lambda T, t: T.nn.functional.max_pool2d(t[0], 2)),
    "transpose": (lambda n: [_matrix(n)], lambda T, t: t[0].transpose(0, 1).contiguous()),
    "reshape": (lambda n: [_matrix(n)], lambda T, t: t[0].reshape(-1)),
    "cat": (lambda n: [(n,), (n,)], lambda T, t: T.cat([t[0], t[1]])),
    "slice": (lambda n: [(n,)], lambda T, t: t[0][: (n_half(t[0]))]),
}


def n_half(tensor: Any) -> int:
    """Half the length, at least one."""
    return max(1, int(tensor.shape[0]) // 2)


def forward_and_backward(T: Any, name: str, size: int) -> Callable[[], Any]:
    """A call that runs one op both ways in a library, on the same numbers for every library."""
    import numpy as np

    shapes, op = OPS[name]
    rng = np.random.default_rng(0)
    inputs = tuple(
        T.tensor(rng.standard_normal(shape).astype(np.float32), requires_grad=True)
        for shape in shapes(size)
    )
    gradient = op(T, inputs).detach().clone()

    def call() -> None:
        op(T, inputs).backward(gradient)
        for tensor in inputs:
            tensor.grad = None

    return call


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops")
    parser.add_argument("--vs", default="torch", help="reference library")
    parser.add_argument("--library", default="gradlite", help="library to measure")
    parser.add_argument("--ops", default="all", help="comma-separated names, or 'all'")
    parser.add_argument("--sizes", default="1,1000,100000", help="numbers of elements")
    parser.add_argument("--threads", type=int, default=1, help="threads for each library")
    parser.add_argument("--blocks", type=int, default=7, help="timed blocks of each library")
    parser.add_argument("--block-ms", type=float, default=15.0, help="length of a block")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="what to read")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(argv)
    timing.restart_with_threads("benchmarks.ops", options.threads)
    libraries = [
        timing.load_library(name, options.threads) for name in (options.library, options.vs)
    ]
    facts = timing.machine(options.threads, libraries)
    print(timing.describe(facts) + "\n", flush=True)
    sizes = [int(size) for size in options.sizes.split(",")]
    names = list(OPS) if options.ops == "all" else options.ops.split(",")
    results = []
    for name in names:
        for size in sizes:
            calls = [forward_and_backward(T, name, size) for T in libraries]
            measured, base = timing.interleave(
                calls, options.blocks, options.block_ms / 1000, options.clock
            )
            results.append(
                {
                    "op": name,
                    "elements": size,
                    "us": measured.median * 1e6,
                    "reference_us": base.median * 1e6,
                    "ratio": timing.ratio(measured, base)[1],
                }
            )
    header = ["forward + backward, us"]
    for size in sizes:
        header += [f"{options.library} {size}", options.vs, "ratio"]
    rows = []
    for name in names:
        cells = [name]
        for result in (r for r in results if r["op"] == name):
            cells += [f"{result['us']:.1f}", f"{result['reference_us']:.1f}"]
            cells += [f"{result['ratio']:.2f}"]
        rows.append(cells)
    print(timing.table(header, rows))
    if options.json:
        payload = {"benchmark": "ops", "clock": options.clock, "machine": facts, "results": results}
        print(f"\nwritten: {timing.write_json(options.json, payload).name}")


if __name__ == "__main__":
    main()
