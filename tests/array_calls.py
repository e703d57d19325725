"""What each op of the table asks of a GPU, by name, as the stand-in for CuPy counts it.

    python -m tests.array_calls [OP ...]

writes ``tests/array_calls.json`` anew, which ``tests/test_array_calls.py`` compares with; with the
names of ops it prints what they ask for, and writes nothing. Each line is the sample of an op that
asks for most: the kernels of ours (``kernel:``), the calls of the array library that launch or
copy, and the reads that wait for the device (``read:``), in the forward pass and in the backward.
"""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

import gradlite
from gradlite import autograd
from gradlite.backends import kernels
from gradlite.ops import samples
from gradlite.ops.table import TABLE, Entry, Sample
from tests.cupy_stand_in import arrays

PATH = Path(__file__).with_name("array_calls.json")
Counts = dict[str, dict[str, int]]


@contextmanager
def counting(into: dict[str, int]) -> Iterator[None]:
    """Count what the block asks of the device."""
    arrays.calls, arrays.reads = calls, reads = [], []
    try:
        with kernels.record() as launched:
            yield
    finally:
        arrays.calls = arrays.reads = None
    names = [*(f"kernel:{n}" for n in launched), *calls, *(f"read:{n}" for n in reads)]
    into.update(sorted(Counter(names).items()))


def _on_device(value: Any) -> Any:
    """A sample's arguments with arrays turned into tensors of the GPU, floats into float32."""
    if isinstance(value, np.ndarray):
        if value.dtype.kind != "f":
            return gradlite.tensor(value).cuda()
        wants_grad = not isinstance(value, samples.Constant)
        return gradlite.tensor(value.astype(np.float32)).cuda().requires_grad_(wants_grad)
    if isinstance(value, (list, tuple)):
        return type(value)(_on_device(v) for v in value)
    if isinstance(value, dict):
        return {key: _on_device(v) for key, v in value.items()}
    return value.of(gradlite) if isinstance(value, samples.Dtype) else value


def _arrays(value: Any) -> list[Any]:
    """The arrays in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [array for v in value for array in _arrays(v)]
    return [value] if isinstance(value, np.ndarray) else []


def _tensors(value: Any) -> list[Any]:
    """The tensors that require grad in a value."""
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for v in value for tensor in _tensors(v)]
    return [value] if getattr(value, "requires_grad", False) else []


def of_sample(entry: Entry, sample: Sample) -> Counts:
    """What the second forward and the second backward pass of one sample ask for."""
    for _ in range(2):  # what is made once is not counted
        counts: Counts = {"forward": {}, "backward": {}}
        args, kwargs = _on_device(sample.args), _on_device(sample.kwargs)
        with counting(counts["forward"]):
            result = entry.function(*args, **kwargs)
        outputs, inputs = _tensors(result), _tensors((args, kwargs))
        if outputs and inputs and entry.differentiable:
            weights = [gradlite.ones_like(o).contiguous() for o in outputs]
            with counting(counts["backward"]):
                autograd.grad(outputs, inputs, weights, allow_unused=True)
    return counts


def total(counts: Counts) -> int:
    """How often a sample asks the device for something."""
    return sum(sum(names.values()) for names in counts.values())


def of_op(name: str) -> Counts:
    """What the sample of an op asks for that asks for most."""
    samples.fresh()
    gradlite.manual_seed(0)
    entry = TABLE[name]
    every = list(entry.samples())
    # Rules run on empty arrays, and launch nothing there.
    full = [s for s in every if all(a.size for a in _arrays((s.args, s.kwargs)))]
    return max((of_sample(entry, sample) for sample in full or every), key=total)


def text(counts: Counts) -> str:
    """What a line of the table says."""
    return " | ".join(
        " ".join(name if n == 1 else f"{n}*{name}" for name, n in names.items())
        for names in counts.values()
    )


def _counted(line: str) -> Counter[str]:
    counts: Counter[str] = Counter()
    for word in line.replace("|", "").replace(" of host", "@host").split():
        n, star, name = word.partition("*")
        counts[name if star else word] += int(n) if star else 1
    return counts


def size(line: str) -> int:
    """How often a line of the table asks the device for something."""
    return _counted(line).total()


def more(now: str, most: str) -> bool:
    """Whether a line asks for more than another: at all, of the host, or by waiting."""

    def sizes(line: str) -> list[int]:
        counts = _counted(line)
        kinds = ("", "@host", "read:")
        return [sum(n for name, n in counts.items() if kind in name) for kind in kinds]

    return any(a > b for a, b in zip(sizes(now), sizes(most)))


def main(names: list[str]) -> None:
    """Write the table and print what has changed, or print the lines of some ops."""
    import pytest

    from tests import cublaslt_stand_in, cupy_stand_in

    with pytest.MonkeyPatch.context() as monkeypatch:
        cupy_stand_in.install(monkeypatch)
        cublaslt_stand_in.install(monkeypatch)
        table = {name: text(of_op(name)) for name in names or sorted(TABLE)}
    old = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    for name, line in table.items():
        if names or old.get(name) != line:
            print(f"{name}: {old.get(name)} -> {line}")
    if not names:
        print(f"{sum(map(size, old.values()))} -> {sum(map(size, table.values()))}")
        PATH.write_text(json.dumps(table, indent=0) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main(sys.argv[1:])
