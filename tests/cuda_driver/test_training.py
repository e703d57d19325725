"""Training on CuPy itself gives the numbers of training on NumPy."""

from __future__ import annotations

import importlib.util
import json

import pytest

from tests.cuda_driver.test_driver import pytestmark as pytestmark
from tests.cuda_driver.test_driver import run

PROGRAM = """
import json
import gradlite
from gradlite import nn, optim
from gradlite.cli.models import GPT
from gradlite.nn import functional as F

STEPS, WIDTH = 25, 8

def trained(device):
    gradlite.manual_seed(5)
    model = GPT(7, 5, width=WIDTH, heads=2, layers=1).to(device, gradlite.{dtype})
    optimizer = optim.AdamW(model.parameters(), lr=1e-2)
    for seed in range(STEPS):
        rng = np.random.default_rng(seed)
        x, y = (gradlite.tensor(rng.integers(0, 7, (2, 5))).pin_memory() for _ in range(2))
        optimizer.zero_grad()
        logits = model(x.to(device, non_blocking=True))
        F.cross_entropy(logits.flatten(0, 1), y.to(device, non_blocking=True).flatten()).backward()
        optimizer.step()
    return {{name: (p.detach().cpu().numpy(), p.grad.cpu().numpy())
             for name, p in model.named_parameters()}}

there, here = trained("cuda"), trained("cpu")
keys = slice(WIDTH, 2 * WIDTH)
slopes = [float(abs(run["blocks.0.qkv.bias"][1][keys]).max()) for run in (there, here)]
for run in (there, here):
    run["blocks.0.qkv.bias"][0][keys] = 0
off = {{name: float(abs(there[name][0] - here[name][0]).max()) for name in here}}
print(json.dumps([off, slopes]))
"""


@pytest.mark.skipif(
    importlib.util.find_spec("nvmath") is None, reason="products need nvmath-python's cuBLASLt"
)
@pytest.mark.parametrize(("dtype", "most"), [("float32", 2e-6), ("float64", 1e-13)])
def test_a_gpt_is_trained_to_the_same_parameters(dtype: str, most: float) -> None:
    """All but the bias of the keys, which moves by what rounding leaves.

    It adds the same number to all scores of a query, which softmax takes away again: its gradient
    is 0 but for rounding, and Adam divides by its size. In any two ways to compute it differs from
    the fourth digit on, and no loss depends on it.
    """
    said, _ = run(PROGRAM.format(dtype=dtype))
    off, slopes = json.loads(said)
    assert max(off.values()) <= most, off
    assert 0 < max(slopes) <= most / 100
