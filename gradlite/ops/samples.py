"""Sample inputs for the table of ops: small float64 arrays from a fixed stream.

Floating arrays in a sample become tensors that require grad, other arrays tensors that do
not. Each call draws anew from a generator that `fresh` resets, so samples are the same in
every run and never equal to each other.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops.table import Sample


class _Stream:
    """NumPy's generator, made at the first draw: numpy.random takes long to import."""

    def __getattr__(self, name: str) -> Any:
        fresh()
        return getattr(_generator, name)


_generator: Any = _Stream()


def fresh() -> None:
    """Start the stream anew; the generic tests call it before each op."""
    global _generator
    _generator = np.random.Generator(np.random.Philox(7))


def normal(*shape: int) -> np.ndarray[Any, Any]:
    """Standard normal values."""
    return np.asarray(_generator.standard_normal(shape))


def uniform(low: float, high: float, *shape: int) -> np.ndarray[Any, Any]:
    """Uniform values of an interval."""
    return np.asarray(_generator.uniform(low, high, shape))


def positive(*shape: int) -> np.ndarray[Any, Any]:
    """Values between 0.2 and 3."""
    return uniform(0.2, 3.0, *shape)


def distinct(*shape: int) -> np.ndarray[Any, Any]:
    """A shuffled, evenly spaced grid without 0: no ties, no kinks for a difference to hit."""
    n = int(np.prod(shape, dtype=int))
    values = (np.arange(n) - n / 2 + 0.3) * (4.0 / max(n, 4))
    return _generator.permutation(values).reshape(shape)


def integers(low: int, high: int, *shape: int) -> np.ndarray[Any, Any]:
    """int64 values of [low, high)."""
    return np.asarray(_generator.integers(low, high, shape))


def bools(*shape: int) -> np.ndarray[Any, Any]:
    """Random truth values."""
    return np.asarray(_generator.random(shape) < 0.5)


def S(*args: Any, rtol: float = 1e-9, smooth: bool = True, **kwargs: Any) -> Sample:
    """One sample: the positional and keyword arguments of a call."""
    return Sample(args, kwargs, rtol, smooth)


def unary(draw: Any = normal, *args: Any, **kwargs: Any) -> list[Sample]:
    """Samples of a one-tensor op in the shapes that matter: matrix, vector, 0-d, empty."""
    return [S(draw(*shape), *args, **kwargs) for shape in ((3, 4), (5,), (), (0, 3), (2, 1, 3))]


def binary(left: Any = normal, right: Any = normal, **kwargs: Any) -> list[Sample]:
    """Samples of a two-tensor op: equal shapes, every kind of broadcasting, 0-d, empty."""
    shapes = [
        ((3, 4), (3, 4)),
        ((3, 4), (4,)),
        ((3, 1), (1, 4)),
        ((2, 3, 4), (3, 1)),
        ((), (3,)),
        ((3,), ()),
        ((), ()),
        ((0, 3), (3,)),
        ((2, 1), (2, 5)),
    ]
    return [S(left(*a), right(*b), **kwargs) for a, b in shapes]


class Constant(np.ndarray[Any, Any]):
    """A floating array that becomes a tensor without requires_grad."""


def constant(array: np.ndarray[Any, Any]) -> Constant:
    """Mark a floating array of a sample as one that gets no gradient."""
    return array.view(Constant)


class Dtype:
    """A dtype by name in a sample, since gradlite and PyTorch each have their own objects."""

    def __init__(self, name: str) -> None:
        self.name = name

    def of(self, library: Any) -> Any:
        """The dtype object of a library."""
        return getattr(library, self.name)

    def __repr__(self) -> str:
        return self.name
