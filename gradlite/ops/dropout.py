"""Dropout in its forms; the masks come from the default generator's counter."""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np

from gradlite.ops.dispatch import apply
from gradlite.ops.inplace import assign, check_inplace
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.random import default_generator
from gradlite.tensor import Tensor

__all__ = ["alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d"]


class Dropout(Op):
    """x * mask, the mask holding 0 or 1 / (1 - p), broadcast to x."""

    has_aux = True
    grad_name = "MulBackward0"

    def forward(xp: Any, x: Any, draw: Any) -> Any:
        mask = draw(xp, x)
        return x * mask, mask

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad * ctx.aux,)


def _mask(shape: tuple[int, ...], p: float, xp: Any, x: Any) -> Any:
    """Scaled keep-mask of a shape that broadcasts to the input."""
    keep = default_generator.bernoulli_mask(shape, 1.0 - p).astype(x.dtype)
    if p < 1.0:
        keep *= x.dtype.type(1.0 / (1.0 - p))
    return xp.asarray(keep)


def _check_p(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _dropped(input: Tensor, shape: tuple[int, ...], p: float, inplace: bool) -> Tensor:
    result: Tensor = apply(Dropout, (input,), partial(_mask, shape, p))
    if inplace:
        check_inplace(input)
        return assign(input, result)
    return result


@public(
    samples=lambda: [S(normal(3, 4), 0.0), S(normal(3, 4), 0.5, False), S(normal(3), 1.0)],
    torch="nn.functional.dropout",
)
def dropout(input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False) -> Tensor:
    """Zero each element with probability p and scale the rest by ``1 / (1 - p)``.

    Outside training the input passes unchanged (Srivastava et al. 2014).

    >>> import gradlite
    >>> gradlite.nn.functional.dropout(gradlite.ones(3), 0.5, training=False)
    tensor([1., 1., 1.])

    Raises:
        ValueError: p is outside [0, 1].
    """
    _check_p(p)
    if not training or p == 0.0 or input.array.size == 0:
        return input
    return _dropped(input, input.array.shape, p, inplace)


@public(
    samples=lambda: [S(normal(2, 3, 4), 0.5, False), S(normal(2, 3, 4), 1.0)],
    torch="nn.functional.dropout1d",
)
def dropout1d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of (N, C, L) or (C, L).

    >>> import gradlite
    >>> gradlite.nn.functional.dropout1d(gradlite.ones(1, 2, 3), 0.5, training=False).shape
    gradlite.Size([1, 2, 3])
    """
    return _channels(input, p, training, inplace, 1 if input.array.ndim == 2 else 2)


@public(
    samples=lambda: [S(normal(2, 3, 4, 4), 0.5, False), S(normal(2, 3, 4, 4), 1.0)],
    torch="nn.functional.dropout2d",
)
def dropout2d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of (N, C, H, W) (Tompson et al. 2015).

    >>> import gradlite
    >>> gradlite.nn.functional.dropout2d(gradlite.ones(1, 2, 3, 3), 0.5, training=False).shape
    gradlite.Size([1, 2, 3, 3])
    """
    return _channels(input, p, training, inplace, 2)


@public(
    samples=lambda: [S(normal(2, 3, 2, 2, 2), 0.5, False)],
    torch="nn.functional.dropout3d",
)
def dropout3d(
    input: Tensor, p: float = 0.5, training: bool = True, inplace: bool = False
) -> Tensor:
    """Zero whole channels of (N, C, D, H, W).

    >>> import gradlite
    >>> x = gradlite.ones(1, 2, 3, 3, 3)
    >>> gradlite.nn.functional.dropout3d(x, 0.5, training=False).shape
    gradlite.Size([1, 2, 3, 3, 3])
    """
    return _channels(input, p, training, inplace, 2)


def _channels(input: Tensor, p: float, training: bool, inplace: bool, lead: int) -> Tensor:
    """Dropout with one draw for everything behind the first ``lead`` dimensions."""
    _check_p(p)
    n = input.array.ndim
    if n < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    if not training or p == 0.0 or input.array.size == 0:
        return input
    return _dropped(input, input.array.shape[:lead] + (1,) * (n - lead), p, inplace)


@public(
    samples=lambda: [S(normal(3, 4), 0.5, False), S(normal(3, 4), 0.0, True)],
    torch="nn.functional.alpha_dropout",
)
def alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """Dropout that keeps mean and variance of SELU activations (Klambauer et al. 2017).

    >>> import gradlite
    >>> gradlite.nn.functional.alpha_dropout(gradlite.ones(3), 0.5)
    tensor([1., 1., 1.])
    """
    _check_p(p)
    if not training or p == 0.0 or input.array.size == 0:
        return input
    if p == 1.0:
        return input * 0.0
    alpha = 1.7580993408473766
    a = 1.0 / float(np.sqrt((alpha * alpha * p + 1) * (1 - p)))
    keep = default_generator.bernoulli_mask(input.array.shape, 1.0 - p)
    x = input.array
    xp = NAMESPACES[x.__class__].xp
    shift = xp.asarray(((keep - 1) * (alpha * a) + alpha * a * p).astype(x.dtype))
    scale = xp.asarray((keep * a).astype(x.dtype))
    scaled: Tensor = apply(Dropout, (input,), lambda *_: scale)
    result = scaled + shift
    if inplace:
        check_inplace(input)
        return assign(input, result)
    return result
