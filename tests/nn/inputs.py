"""Inputs of layers: arrays that are the same in every run."""

from __future__ import annotations

import numpy as np

from tests.nn.programs import values


def x(*shape: int, seed: int = 1) -> np.ndarray:
    return values(seed, *shape)


def grid(*shape: int) -> np.ndarray:
    """Shuffled, evenly spaced values: no ties and no kinks."""
    n = int(np.prod(shape))
    steps = np.random.default_rng(5).permutation(n)
    return ((steps - n / 2 + 0.3) * (6.0 / n)).reshape(shape)


def probabilities(*shape: int, seed: int = 3) -> np.ndarray:
    return np.random.default_rng(seed).uniform(0.1, 0.9, shape)


def distribution(*shape: int) -> np.ndarray:
    p = probabilities(*shape)
    return p / p.sum(1, keepdims=True)


def classes(high: int, *shape: int) -> np.ndarray:
    return np.random.default_rng(4).integers(0, high, shape)


def signs(*shape: int) -> np.ndarray:
    return np.where(np.random.default_rng(6).random(shape) < 0.5, -1.0, 1.0)
