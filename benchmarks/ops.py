"""Times single ops, forward and backward, against PyTorch and JAX at three sizes.

    python -m benchmarks.ops [--vs torch] [--ops exp,add] [--sizes 1,1000,100000] [--threads 1]
    python -m benchmarks.ops --vs torch,jax --mode eager,captured [--device cpu]

A call is the op on inputs that require grad, ``backward`` with a given gradient, and dropping
the gradients; captured, a replay of that; in JAX the op with its ``jax.vjp``, compiled by
``jax.jit``. Ratios are to the first library of ``--vs``, block by block in one run.
"""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks import pictures, timing
from benchmarks.training import load, references_of

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


# What differs from `OPS` in JAX, whose arrays lack these methods.
JAX_OPS: dict[str, Callable[[Any, Inputs], Any]] = {
    "exp": lambda J, t: J.numpy.exp(t[0]),
    "log": lambda J, t: J.numpy.log(abs(t[0])),
    "sqrt": lambda J, t: J.numpy.sqrt(abs(t[0])),
    "tanh": lambda J, t: J.numpy.tanh(t[0]),
    "sigmoid": lambda J, t: J.nn.sigmoid(t[0]),
    "relu": lambda J, t: J.nn.relu(t[0]),
    "gelu": lambda J, t: J.nn.gelu(t[0], approximate=False),
    "silu": lambda J, t: J.nn.silu(t[0]),
    "where": lambda J, t: J.numpy.where(t[0] > 0, t[0], t[1]),
    "max rows": lambda J, t: t[0].max(1),
    "softmax": lambda J, t: J.nn.softmax(t[0], -1),
    "log_softmax": lambda J, t: J.nn.log_softmax(t[0], -1),
    "layer_norm": lambda J, t: J.nn.standardize(t[0], -1) * t[1] + t[2],
    "linear": lambda J, t: t[0] @ t[1].T + t[2],
    "conv2d 3x3": lambda J, t: (
        J.lax.conv_general_dilated(t[0], t[1], (1, 1), ((1, 1), (1, 1))) + t[2][:, None, None]
    ),
    "max_pool2d": lambda J, t: J.lax.reduce_window(
        t[0], -math.inf, J.lax.max, (1, 1, 2, 2), (1, 1, 2, 2), "VALID"
    ),
    "transpose": lambda J, t: t[0].T,
    "cat": lambda J, t: J.numpy.concatenate([t[0], t[1]]),
}


def numbers(name: str, size: int) -> list[Any]:
    """The inputs of an op, as NumPy arrays: the same for every library."""
    import numpy as np

    rng = np.random.default_rng(0)
    return [rng.standard_normal(shape).astype(np.float32) for shape in OPS[name][0](size)]


def forward_and_backward(
    T: Any, name: str, size: int, captured: bool = False, device: str = "cpu"
) -> Callable[[], Any]:
    """A call that runs one op both ways in a library."""
    op = OPS[name][1]
    inputs = tuple(T.tensor(x, device=device, requires_grad=True) for x in numbers(name, size))
    gradient = op(T, inputs).detach().clone()

    def call() -> None:
        op(T, inputs).backward(gradient)
        for tensor in inputs:
            tensor.grad = None

    def step() -> Any:
        for tensor in inputs:
            tensor.grad = None
        y = op(T, inputs)
        y.backward(gradient)
        return y.detach()

    return T.capture(step) if captured else call


def compiled_by_jax(J: Any, name: str, size: int) -> Callable[[], Any]:
    """A call that runs one op both ways in JAX."""
    op = JAX_OPS.get(name, OPS[name][1])
    inputs = [J.numpy.asarray(x) for x in numbers(name, size)]

    def both(inputs: Any, gradient: Any) -> Any:
        y, back = J.vjp(lambda *t: op(J, t), *inputs)
        return y, back(gradient)

    both = J.jit(both)
    gradient = J.numpy.asarray(op(J, tuple(inputs)))

    def call() -> None:
        J.block_until_ready(both(inputs, gradient))

    return call


def check(name: str, size: int, J: Any, T: Any) -> None:
    """RuntimeError where the op in JAX and in a library differ."""
    import numpy as np

    values = numbers(name, size)
    ours = OPS[name][1](T, tuple(T.tensor(x) for x in values)).numpy()
    op = JAX_OPS.get(name, OPS[name][1])
    theirs = np.asarray(op(J, tuple(J.numpy.asarray(x) for x in values)))
    if ours.shape != theirs.shape or not np.allclose(ours, theirs, 1e-3, 1e-4):
        raise RuntimeError(f"{name} of {size} elements is another op in JAX: nothing is timed")


def measure(
    name: str,
    size: int,
    library: Any,
    references: dict[str, Any],
    modes: Sequence[str],
    options: argparse.Namespace,
) -> list[dict[str, Any]]:
    """One op at one size in some modes, with the ratios to the references."""
    calls = []
    for key, T in references.items():
        if key == "jax":
            check(name, size, T, library)
            calls.append(compiled_by_jax(T, name, size))
        else:
            calls.append(forward_and_backward(T, name, size, device=options.device))
    for mode in modes:
        calls.append(forward_and_backward(library, name, size, mode == "captured", options.device))

    for call in calls:  # a captured step is replayed from the fifth call on
        for _ in range(6):
            call()

    def finish() -> None:
        for T in (library, *references.values()):
            if hasattr(T, "cuda"):
                T.cuda.synchronize()

    waits = finish if options.device == "cuda" else None
    timed = timing.interleave(calls, options.blocks, options.block_ms / 1000, options.clock, waits)
    beside = dict(zip(references, timed, strict=False))
    found = []
    for mode, own in zip(modes, timed[len(beside) :], strict=True):
        result: dict[str, Any] = {
            "op": name, "elements": size, "mode": mode, "us": own.median * 1e6,
            "quartiles_us": [q * 1e6 for q in own.quartiles],
        }  # fmt: skip
        for place, (key, other) in enumerate(beside.items()):
            low, median, high = timing.ratio(own, other)
            entry = {"reference_us": other.median * 1e6, "ratio": median}
            entry["ratio_quartiles"] = [low, high]
            if place == 0:
                base = other
                result |= entry
            else:
                entry["reference_ratio"] = timing.ratio(other, base)[1]
                result.setdefault("others", {})[key] = entry
        found.append(result)
    return found


def row(results: Sequence[dict[str, Any]]) -> list[str]:
    """One line of the table: an op at a size in all modes."""
    first = results[0]
    cells = [first["op"], str(first["elements"])]
    if "reference_us" in first:
        cells.append(f"{first['reference_us']:.1f}")
        cells += [f"{other['reference_us']:.1f}" for other in first.get("others", {}).values()]
    for result in results:
        cells.append(f"{result['us']:.1f}")
        if "ratio" in result:
            low, high = result["ratio_quartiles"]
            cells += [f"{result['ratio']:.2f}", f"{low:.2f}-{high:.2f}"]
            cells += [f"{other['ratio']:.2f}" for other in result.get("others", {}).values()]
    return cells


def header(library: str, references: Sequence[str], modes: Sequence[str]) -> list[str]:
    """The names of the columns of `row`."""
    cells = ["forward + backward", "elements", *(f"{name} us" for name in references)]
    for mode in modes:
        cells.append(f"{library} {mode} us")
        for place, name in enumerate(references):
            cells += [f"/ {name}", *(["quartiles"] if place == 0 else [])]
    return cells


def arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ops")
    parser.add_argument("--vs", default="torch", help="comma-separated: torch, jax; or 'none'")
    parser.add_argument("--library", default="gradlite", help="library to measure")
    parser.add_argument("--mode", default="eager", help="comma-separated: eager, captured")
    parser.add_argument("--ops", default="all", help="comma-separated names, or 'all'")
    parser.add_argument("--sizes", default="1,1000,100000", help="numbers of elements")
    parser.add_argument("--threads", type=int, default=1, help="threads for each library")
    parser.add_argument("--blocks", type=int, default=7, help="timed blocks of each library")
    parser.add_argument("--block-ms", type=float, default=15.0, help="length of a block")
    parser.add_argument("--clock", choices=timing.CLOCKS, default="wall", help="what to read")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu", help="where to run")
    parser.add_argument("--json", metavar="PATH", help="also write the results to PATH")
    options = parser.parse_args(argv)
    if options.device == "cuda" and options.clock != "wall":
        parser.error("the processor's clock does not see what a GPU takes: use --clock wall")
    return options


def main(argv: Sequence[str] | None = None) -> None:
    options = arguments(argv)
    timing.restart_with_threads("benchmarks.ops", options.threads)
    modes = options.mode.split(",")
    strange = [mode for mode in modes if mode not in ("eager", "captured")]
    if strange:
        raise SystemExit(f"unknown modes {strange}; there are eager, captured")
    names = list(OPS) if options.ops == "all" else options.ops.split(",")
    unknown = [name for name in names if name not in OPS]
    if unknown:
        raise SystemExit(f"unknown ops {unknown}; there are {', '.join(OPS)}")
    sizes = [int(size) for size in options.sizes.split(",")]
    wanted = references_of(options.vs, compiler=False)
    references = {name: load(name, options.threads) for name in wanted}
    library = timing.load_library(options.library, options.threads)
    loaded = {T.__name__: T for T in (library, *references.values())}
    facts = timing.machine(options.threads, list(loaded.values()))
    print(timing.describe(facts) + "\n", flush=True)
    results: list[dict[str, Any]] = []
    rows = []
    for name in names:
        for size in sizes:
            found = measure(name, size, library, references, modes, options)
            results += found
            rows.append(row(found))
    print(timing.table(header(options.library, list(references), modes), rows))
    if options.json:
        payload = {
            "benchmark": "ops",
            "clock": options.clock,
            "device": options.device,
            "machine": facts,
            "results": results,
        }
        written = timing.write_json(options.json, payload)
        print(f"\nwritten: {', '.join([written.name, *pictures.beside(written)])}")


if __name__ == "__main__":
    main()
