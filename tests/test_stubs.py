"""What editors and type checkers see of Tensor: up to date, and good enough for programs."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

import gradlite
from gradlite._methods import TensorMethods
from tools import stubs

PROGRAM = """
import gradlite
from gradlite import Tensor, nn, optim
from gradlite.nn import functional as F
from gradlite.utils.data import DataLoader, TensorDataset


class Model(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Linear(2, 8), nn.ReLU(), nn.Linear(8, 2))
        self.scale = nn.Parameter(gradlite.ones(1))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.layers(x)
        return y * self.scale


def main(device: gradlite.device) -> float:
    gradlite.manual_seed(0)
    gradlite.randn(2, requires_grad=True).relu().sum().backward()
    x = gradlite.randn(8, 2).to(device)
    target = (x[:, 0] > 0).long()
    model = Model()
    optimizer = optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for inputs, targets in DataLoader(TensorDataset(x, target), batch_size=4, shuffle=True):
        optimizer.zero_grad()
        loss = F.cross_entropy(model(inputs), targets)
        loss.backward()
        optimizer.step()
    with gradlite.no_grad():
        hits = model(x).argmax(1).eq(target).float().mean()
    z = (x @ x.T).softmax(-1).add_(1).view(-1)[None].squeeze(0)
    z += 1
    for row in x:
        z = -z / row.norm() + 2**z
    return float(hits.item() + z.sum(0, keepdim=True).item())
"""


def test_up_to_date() -> None:
    assert stubs.PATH.read_text(encoding="utf-8") == stubs.generate(), (
        "the methods of Tensor have changed: run python -m tools.stubs"
    )


def test_the_class_is_empty_at_run_time() -> None:
    assert TensorMethods.__slots__ == ()
    assert not [name for name in vars(TensorMethods) if not name.startswith("__")]


def test_every_public_attribute_can_be_found() -> None:
    """What ``x.`` completes is in the text that editors read."""
    text = stubs.PATH.read_text(encoding="utf-8")
    for module in ("gradlite.tensor", "gradlite.description"):
        text += Path(sys.modules[module].__file__ or "").read_text(encoding="utf-8")
    names = [n for n in dir(gradlite.Tensor) if not n.startswith("_")]
    missing = [n for n in names if f"def {n}(" not in text and f'"{n}"' not in text]
    assert not [n for n in missing if f"\n    {n} = " not in text and f"\n    {n}: " not in text]
    assert len(names) > 300


@pytest.mark.skipif(importlib.util.find_spec("mypy") is None, reason="mypy is not installed")
def test_a_program_type_checks(tmp_path: Path) -> None:
    good = tmp_path / "program.py"
    good.write_text(PROGRAM)
    bad = tmp_path / "mistaken.py"
    bad.write_text("import gradlite\n\ngradlite.randn(2).relu().summ()\n")
    result = subprocess.run(
        [sys.executable, "-m", "mypy", "--strict", "--follow-imports=silent", "--config-file=",
         f"--cache-dir={tmp_path / 'cache'}", str(good), str(bad)],
        capture_output=True,
        text=True,
        cwd=stubs.PATH.parent.parent,
    )  # fmt: skip
    lines = [line for line in result.stdout.splitlines() if ": error:" in line]
    assert len(lines) == 1, result.stdout + result.stderr
    assert 'mistaken.py:3: error: "Tensor" has no attribute "summ"' in lines[0]
