"""Functions where they are tiny: as many digits as PyTorch has, not only as many decimals."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import torch

FAR = [-85.0, -40.0, -20.0, -17.0, -12.0, -9.0, -5.0, -1.0, 0.0, 0.5, 3.0]
CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "sigmoid": lambda t, x: t.sigmoid(x),
    "silu": lambda t, x: t.nn.functional.silu(x),
    "glu": lambda t, x: t.nn.functional.glu(t.stack([x * 0 + 1, x]), 0),
    "softplus": lambda t, x: t.nn.functional.softplus(x),
    "logsigmoid": lambda t, x: t.nn.functional.logsigmoid(-x),
    "mish": lambda t, x: t.nn.functional.mish(x),
    "log of sigmoid": lambda t, x: t.log(t.sigmoid(x)),
    "BCE of sigmoid": lambda t, x: t.nn.functional.binary_cross_entropy(
        t.sigmoid(x), t.ones_like(x), reduction="none"
    ),
    "soft margin": lambda t, x: t.nn.functional.soft_margin_loss(
        x, -t.ones_like(x), reduction="none"
    ),
}


@pytest.mark.parametrize("repeats", [1, 1000])  # the latter for kernels, where there are any
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CALLS)
def test_digits(name: str, dtype: Any, repeats: int) -> None:
    found = []
    for library in (gradlite, torch):
        x = library.from_numpy(np.tile(np.array(FAR, dtype), repeats)).requires_grad_()
        y = CALLS[name](library, x)
        y.sum().backward()
        found.append((y.detach().numpy(), x.grad.numpy()))
    # PyTorch's formula for the gradient of BCE has a constant in it that rounds.
    rtol = 2e-5 if dtype is np.float32 else 1e-7 if name == "BCE of sigmoid" else 1e-12
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=rtol, atol=1e-37)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_sinc_beside_zero(dtype: Any) -> None:
    values = np.array([0.0, 1e-300, 1e-30, -1e-20, 1e-10, 1e-3, 0.5], dtype)
    found = []
    for library in (gradlite, torch):
        x = library.from_numpy(values.copy()).requires_grad_()
        library.sinc(x).sum().backward()
        found.append(x.grad.numpy())
    np.testing.assert_allclose(found[0], found[1], rtol=1e-3, atol=1e-6)
