"""What the distributions share: parameters made alike, probabilities and logits, lazy values."""

from __future__ import annotations

import functools
from collections.abc import Callable
from numbers import Number
from typing import Any

from gradlite import dtypes
from gradlite.dtypes import get_default_dtype
from gradlite.grad_mode import enable_grad
from gradlite.ops.assemble import broadcast_tensors
from gradlite.ops.creation import tensor
from gradlite.ops.pad import pad
from gradlite.ops.softmax import softmax
from gradlite.tensor import Tensor

__all__ = [
    "broadcast_all",
    "clamp_probs",
    "euler_constant",
    "lazy_property",
    "logits_to_probs",
    "probs_to_logits",
    "tril_matrix_to_vec",
    "vec_to_tril_matrix",
]

euler_constant = 0.57721566490153286060


def broadcast_all(*values: Any) -> tuple[Any, ...]:
    """Numbers and tensors as tensors of one shape.

    Numbers take the dtype and device of the first tensor, or the default dtype.

    >>> import gradlite
    >>> broadcast_all(gradlite.ones(2), 0.5)
    (tensor([1., 1.]), tensor([0.5000, 0.5000]))

    Raises:
        ValueError: something that is neither a number nor a tensor.
    """
    if not all(isinstance(v, (Tensor, Number)) for v in values):
        raise ValueError(
            "Input arguments must all be instances of Number, gradlite.Tensor or objects "
            "implementing __torch_function__."
        )
    first = next((v for v in values if isinstance(v, Tensor)), None)
    dtype: Any = get_default_dtype() if first is None else first.dtype
    device = None if first is None else first.device
    return tuple(
        broadcast_tensors(
            *[v if isinstance(v, Tensor) else tensor(v, dtype=dtype, device=device) for v in values]
        )
    )


def sum_rightmost(value: Any, dim: int) -> Any:
    """The sums over the last ``dim`` dimensions."""
    if dim == 0:
        return value
    return value.reshape((*value.shape[:-dim], -1)).sum(-1)


def logits_to_probs(logits: Any, is_binary: bool = False) -> Any:
    """Probabilities of log odds (binary), or of log probabilities up to a constant."""
    return logits.sigmoid() if is_binary else softmax(logits, -1)


def clamp_probs(probs: Any) -> Any:
    """Probabilities limited to what has a finite logarithm on both sides."""
    eps = dtypes.finfo(probs.dtype).eps
    return probs.clamp(min=eps, max=1 - eps)


def probs_to_logits(probs: Any, is_binary: bool = False) -> Any:
    """Log odds (binary) or log probabilities, finite even for probabilities of 0 and 1."""
    clamped = clamp_probs(probs)
    return clamped.log() - (-clamped).log1p() if is_binary else clamped.log()


def _places(n: int, diag: int) -> list[list[int]]:
    """The columns of each row of an n x n matrix that lie on a diagonal or below it."""
    return [list(range(min(max(row + diag + 1, 0), n))) for row in range(n)]


def tril_matrix_to_vec(mat: Any, diag: int = 0) -> Any:
    """What lies on a diagonal of matrices and below it, row by row: a vector for each matrix.

    >>> import gradlite
    >>> tril_matrix_to_vec(gradlite.tensor([[1.0, 0.0], [2.0, 3.0]]))
    tensor([1., 2., 3.])

    Raises:
        ValueError: a diagonal that the matrices do not have.
    """
    n = mat.shape[-1]
    if not -n <= diag < n:
        raise ValueError(f"diag ({diag}) provided is outside [{-n}, {n - 1}].")
    places = [row * n + column for row, part in enumerate(_places(n, diag)) for column in part]
    flat = mat.reshape((*mat.shape[:-2], n * n))
    return flat.index_select(-1, tensor(places, dtype=dtypes.int64, device=mat.device))


def vec_to_tril_matrix(vec: Any, diag: int = 0) -> Any:
    """The lower triangular matrices that `tril_matrix_to_vec` makes these vectors of.

    >>> import gradlite
    >>> vec_to_tril_matrix(gradlite.tensor([1.0, 2.0, 3.0]))
    tensor([[1., 0.],
            [2., 3.]])

    Raises:
        ValueError: a length that no triangle has.
    """
    count = vec.shape[-1]
    n = max(-diag, 1)
    while sum(map(len, _places(n, diag))) < count:
        n += 1
    rows = _places(n, diag)
    if sum(map(len, rows)) != count:
        raise ValueError(
            f"The size of last dimension is {count} which cannot be expressed as the lower "
            "triangular part of a square D x D matrix."
        )
    # Every place takes the number that belongs there, or the 0 behind them all.
    places, taken = [], 0
    for row in rows:
        places += [*range(taken, taken + len(row)), *[count] * (n - len(row))]
        taken += len(row)
    chosen = tensor(places, dtype=dtypes.int64, device=vec.device)
    wide: Any = pad(vec, [0, 1])
    return wide.index_select(-1, chosen).reshape((*vec.shape[:-1], n, n))


class Unsaid:
    """An attribute that a subclass has to have: NotImplementedError where it does not."""

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        raise NotImplementedError


class lazy_property:  # noqa: N801
    """A method whose value is computed at the first look and kept as an attribute."""

    def __init__(self, wrapped: Callable[[Any], Any]) -> None:
        self.wrapped = wrapped
        functools.update_wrapper(self, wrapped)  # type: ignore[arg-type]

    def __get__(self, instance: Any, owner: Any = None) -> Any:
        if instance is None:
            return self
        with enable_grad():
            value = self.wrapped(instance)
        setattr(instance, self.wrapped.__name__, value)
        return value
