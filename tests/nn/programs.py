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


def family(library: Any) -> Any:
    """A module class of the library with a parameter, a buffer, children and a tied parameter."""
    nn = library.nn

    class Inner(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(library.ones(2))
            self.register_buffer("count", library.tensor(3))
            self.register_buffer("scratch", library.zeros(2), persistent=False)

        def forward(self, x: Any) -> Any:
            return x * self.scale

    class Outer(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Linear(2, 2)
            self.inner = Inner()
            self.again = self.inner
            self.tied = self.first.weight
            self.register_parameter("absent", None)
            self.register_module("nothing", None)
            self.register_buffer("empty", None)

        def forward(self, x: Any) -> Any:
            return self.inner(self.first(x))

    return Outer
