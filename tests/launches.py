"""What one training step, or an op, asks of a GPU, by name, as the stand-in for CuPy counts it.

    python -m tests.launches

writes ``tests/launches.json`` anew, which ``tests/test_launches.py`` compares with. Fewer is
better: a launch costs microseconds whatever it computes, and a read waits for the device.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import gradlite
from gradlite.backends import kernels
from gradlite.cli.models import CNN, GPT, MLP, CharGRU
from gradlite.nn import functional as F
from tests.cupy_stand_in import arrays

PATH = Path(__file__).with_name("launches.json")
BATCH, LENGTH, CHARACTERS = 4, 6, 11


def _images(model: Callable[[], Any]) -> tuple[Any, Any, Any]:
    return model(), gradlite.randn(BATCH, 1, 8, 8), gradlite.randint(10, (BATCH,))


def _text(model: Callable[[], Any]) -> tuple[Any, Any, Any]:
    x, y = (gradlite.randint(CHARACTERS, (BATCH, LENGTH)) for _ in range(2))
    return model(), x, y


MODELS: dict[str, Callable[[], tuple[Any, Any, Any]]] = {
    "mlp": lambda: _images(lambda: MLP(8, 8, 10, hidden=16)),
    "cnn": lambda: _images(lambda: CNN(8, 8, 10, channels=(3, 4))),
    "gpt": lambda: _text(lambda: GPT(CHARACTERS, LENGTH, width=16, heads=2, layers=2)),
    "gru": lambda: _text(lambda: CharGRU(CHARACTERS, hidden=8, embedding=4)),
}


# Ops composed of many others, and the shapes of what they are called with: forward and backward.
OPS: dict[str, tuple[Callable[..., Any], tuple[tuple[int, ...], ...]]] = {
    "matrix_exp": (gradlite.matrix_exp, ((2, 4, 4),)),
    "matrix_exp of one": (gradlite.matrix_exp, ((4, 4),)),
    "gradient": (lambda x: gradlite.gradient(x, dim=1)[0], ((5, 6),)),
    "gradient of order 2": (lambda x: gradlite.gradient(x, dim=1, edge_order=2)[0], ((5, 6),)),
    "diff": (gradlite.diff, ((5, 6),)),
    "lstsq": (lambda a, b: gradlite.linalg.lstsq(a, b).solution, ((6, 3), (6, 2))),
    "cov": (gradlite.cov, ((3, 8),)),
    "corrcoef": (gradlite.corrcoef, ((3, 8),)),
    "ldexp": (gradlite.ldexp, ((3, 8), (8,))),
    "ldexp of integers": (lambda x: gradlite.ldexp(x, x.detach().int()), ((3, 8),)),
    "mvlgamma": (lambda x: gradlite.mvlgamma(x, 4), ((3, 8),)),
    "normalize": (lambda x: F.normalize(x, p=3), ((3, 8),)),
    "det": (gradlite.det, ((4, 4),)),
}


def _step_of(op: str) -> Callable[[], None]:
    function, shapes = OPS[op]
    inputs = [gradlite.randn(shape).cuda().requires_grad_() for shape in shapes]
    ones = gradlite.ones_like(function(*inputs))
    return lambda: function(*inputs).backward(ones, inputs=inputs)


def _step_of_training(name: str) -> Callable[[], None]:
    model, x, y = MODELS[name]()
    model, x, y = model.cuda(), x.cuda(), y.cuda()
    optimizer = gradlite.optim.AdamW(model.parameters(), lr=1e-3)

    def step() -> None:
        optimizer.zero_grad()
        logits = model(x)
        loss = F.cross_entropy(logits.reshape(-1, logits.shape[-1]), y.reshape(-1))
        loss.backward()
        optimizer.step()

    return step


def counted(name: str) -> dict[str, dict[str, int]]:
    """The kernels, the calls of the array library and the reads of the second step."""
    gradlite.manual_seed(0)
    step = _step_of(name) if name in OPS else _step_of_training(name)
    step()  # what is made once is not counted
    arrays.calls, arrays.reads = calls, reads = [], []
    try:
        with kernels.record() as launched:
            step()
    finally:
        arrays.calls = arrays.reads = None
    counts = {"kernels": launched, "calls": calls, "reads": reads}
    return {kind: dict(sorted(Counter(names).items())) for kind, names in counts.items()}


def difference(was: dict[str, dict[str, int]], now: dict[str, dict[str, int]]) -> list[str]:
    """One line for each name whose count has changed."""
    return [
        f"{kind}: {name} {was[kind].get(name, 0)} -> {now[kind].get(name, 0)}"
        for kind in now
        for name in sorted({*was[kind], *now[kind]})
        if was[kind].get(name, 0) != now[kind].get(name, 0)
    ]


def main() -> None:
    """Write the table, and print what has changed and the sums."""
    import pytest

    from tests import cublaslt_stand_in, cupy_stand_in

    old = json.loads(PATH.read_text(encoding="utf-8")) if PATH.exists() else {}
    table = {}
    for name in (*MODELS, *OPS):
        with pytest.MonkeyPatch.context() as monkeypatch:
            cupy_stand_in.install(monkeypatch)
            cublaslt_stand_in.install(monkeypatch)
            table[name] = counted(name)
        sums = ", ".join(f"{sum(v.values())} {kind}" for kind, v in table[name].items())
        print(f"{name}: {sums}")
        for line in difference(old.get(name, dict.fromkeys(table[name], {})), table[name]):
            print(f"  {line}")
    PATH.write_text(json.dumps(table, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
