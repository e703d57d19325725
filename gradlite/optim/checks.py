"""Checks of the optimizers' options, with PyTorch's messages."""

from __future__ import annotations

from typing import Any

from gradlite.tensor import Tensor


def at_least_zero(what: str, value: Any) -> None:
    """ValueError unless the value is zero or more."""
    if not 0.0 <= value:
        raise ValueError(f"Invalid {what}: {value}")


def one_number(lr: Any) -> None:
    """ValueError if a learning rate is a tensor of several numbers."""
    if isinstance(lr, Tensor) and lr.numel() != 1:
        raise ValueError("Tensor lr must be 1-element")


def learning_rate(lr: Any) -> None:
    """ValueError unless a learning rate is one number, zero or more."""
    one_number(lr)
    at_least_zero("learning rate", lr)


def betas(values: Any) -> None:
    """ValueError unless both decay rates lie in [0, 1)."""
    for i, beta in enumerate(values[:2]):
        if not 0.0 <= beta < 1.0:
            raise ValueError(f"Invalid beta parameter at index {i}: {beta}")
