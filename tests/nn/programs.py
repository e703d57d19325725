"""What the programs of these tests have in common: weights that are the same in both libraries."""

from __future__ import annotations

from typing import Any

import numpy as np


def values(seed: int, *shape: int) -> np.ndarray:
    """Normal values in float64, the same in every run."""
    return np.random.default_rng(seed).standard_normal(shape)


def tensor(library: Any, seed: int, *shape: int, requires_grad: bool = False) -> Any:
    """A float64 tensor of normal values."""
    return library.tensor(values(seed, *shape), requires_grad=requires_grad)


def fill(library: Any, module: Any, seed: int = 0) -> Any:
    """The module in float64 with the same parameters and floating buffers in both libraries."""
    module.double()
    with library.no_grad():
        for number, (name, p) in enumerate([*module.named_parameters(), *module.named_buffers()]):
            if p.is_floating_point():
                new = values(seed + number, *p.shape) * 0.5
                p.copy_(library.tensor(abs(new) + 0.5 if name.endswith("running_var") else new))
    return module
