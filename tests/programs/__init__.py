"""Small programs as people write them for PyTorch: each takes the library and gives a step.

A program is a function of the library, ``torch`` or ``gradlite``. It returns what one training
step is: a function, its inputs, and the parameters it trains.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass
class Program:
    """One training step, called with the inputs, and what it trains."""

    step: Callable[..., Any]
    inputs: tuple[Any, ...]
    parameters: list[Any]


def filled(torch: Any, module: Any, seed: int = 0, scale: float | None = None) -> Any:
    """A module with the same random parameters in both libraries."""
    rng = np.random.default_rng(seed)
    with torch.no_grad():
        for p in module.parameters():
            spread = max(1, p.shape[-1]) ** -0.5 if scale is None else scale
            values = rng.standard_normal(tuple(p.shape)) * spread
            p.copy_(torch.from_numpy(values.astype(np.float32)))
    return module


def normal(torch: Any, *shape: int, seed: int = 1) -> Any:
    """A tensor of random numbers."""
    values = np.random.default_rng(seed).standard_normal(shape)
    return torch.from_numpy(values.astype(np.float32))


def integers(torch: Any, high: int, *shape: int, seed: int = 2) -> Any:
    """A tensor of random whole numbers below ``high``."""
    return torch.from_numpy(np.random.default_rng(seed).integers(0, high, shape))


def parameters(*modules: Any) -> list[Any]:
    """The parameters of some modules."""
    return [p for module in modules for p in module.parameters()]


PROGRAMS: dict[str, Callable[[Any], Program]] = {}


def program(function: Callable[[Any], Program]) -> Callable[[Any], Program]:
    """Enter a program into the table."""
    PROGRAMS[function.__name__] = function
    return function


def minimising(
    optimizer: Any, loss: Callable[..., Any], after: Iterable[Callable[[], Any]] = ()
) -> Callable[..., Any]:
    """The usual step: gradients of a loss, an update, and what comes after it."""

    def step(*inputs: Any) -> Any:
        optimizer.zero_grad()
        value = loss(*inputs)
        value.backward()
        optimizer.step()
        for call in after:
            call()
        return value

    return step
