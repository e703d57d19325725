"""Dropout in its forms.

The mask is a draw of the default generator. The rule keeps it for backward; with kernels nothing
is kept but the place of the draw, and backward draws the same mask again.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite.ops.dispatch import apply
from gradlite.ops.draws import place, threshold
from gradlite.ops.inplace import assign, check_inplace
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.random import default_generator
from gradlite.tensor import Tensor

__all__ = [
    "alpha_dropout",
    "dropout",
    "dropout1d",
    "dropout2d",
    "dropout3d",
    "feature_alpha_dropout",
]

# SELU's value at minus infinity (Klambauer et al. 2017), with the other sign.
SELU_LIMIT = 1.0507009873554805 * 1.6732632423543772


class Dropout(Op):
    """x * mask, the mask holding 0 or a scale, broadcast to x.

    Its attrs are the mask's shape, the probability of an element to be kept, and the scale.
    """

    has_aux = True
    grad_name = "MulBackward0"

    def forward(
        xp: Any,
        x: Any,
        shape: tuple[int, ...],
        p: float,
        scale: float,
        kept: float = 0.0,
        dropped: float = 0.0,
    ) -> Any:
        kind = x.dtype.type
        keep = default_generator.bernoulli_mask(shape, p)
        mask = keep.astype(x.dtype)
        mask *= kind(scale)
        mask = xp.asarray(mask)
        out = x * mask
        if kept != dropped:
            out += xp.asarray(np.where(keep, kind(kept), kind(dropped)))
        return out, mask

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        mask = ctx.aux
        if isinstance(mask, tuple):  # the place of the draw
            array = F.array(grad)
            K = NAMESPACES[array.__class__].launcher
            mask = _masked(K, K.xp.ones(ctx.attrs[0], array.dtype), mask, *ctx.attrs[:3])
        return (grad * mask,)

    def fused_forward(K: Any, x: Any, *attrs: Any) -> Any:
        if not K.takes(x):
            return NotImplemented
        where = place(default_generator, math.prod(attrs[0]), 8)
        return _masked(K, x, where, *attrs), where

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        if not isinstance(ctx.aux, tuple) or not K.takes(grad):
            return NotImplemented
        return (_masked(K, grad, ctx.aux, *ctx.attrs[:3]),)


class AlphaDropout(Dropout):
    """x * mask + shift, with two more attrs: the shift of kept elements and of dropped ones."""

    grad_name = "AddBackward0"


def _masked(
    K: Any,
    x: Any,
    where: Any,
    shape: tuple[int, ...],
    p: float,
    scale: float,
    kept: float = 0.0,
    dropped: float = 0.0,
) -> Any:
    """x times the mask of the draw at a place, plus ``kept`` or ``dropped``, by a kernel."""
    x = K.dense(x)
    out = K.empty_like(x)
    lanes = math.prod(shape)
    columns = x.size // lanes
    values = threshold(p), scale, kept, dropped
    if columns == 1:
        K.elementwise("dropout", x.dtype, x.size, x, out, *where, x.size, *values)
    else:
        K.rows("dropout_rows", x.dtype, lanes, columns, x, out, *where, lanes, columns, *values)
    return out


def _check_p(p: float) -> None:
    if not 0.0 <= p <= 1.0:
        raise ValueError(f"dropout probability has to be between 0 and 1, but got {p}")


def _result(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    if inplace:
        check_inplace(input)
        return assign(input, result)
    return result


def _dropped(input: Tensor, shape: tuple[int, ...], p: float, inplace: bool) -> Tensor:
    """Dropout with one draw for all elements that an element of ``shape`` broadcasts to."""
    scale = 1.0 / (1.0 - p) if p < 1.0 else 1.0
    return _result(input, apply(Dropout, (input,), shape, 1.0 - p, scale), inplace)


def _alpha_dropped(input: Tensor, shape: tuple[int, ...], p: float, inplace: bool) -> Tensor:
    if p == 1.0:
        return _result(input, input * 0.0, inplace)
    # The affine map that gives back mean 0 and variance 1.
    scale = 1.0 / math.sqrt((SELU_LIMIT * SELU_LIMIT * p + 1) * (1 - p))
    shifts = SELU_LIMIT * scale * p, SELU_LIMIT * scale * (p - 1)
    return _result(input, apply(AlphaDropout, (input,), shape, 1.0 - p, scale, *shifts), inplace)


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
    if not training or p == 0.0 or input.array.size == 0:
        return input
    if n < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
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
    return _alpha_dropped(input, input.array.shape, p, inplace)


@public(
    samples=lambda: [
        S(normal(3, 4, 2), 0.3),
        S(normal(3, 4), 0.0, True),
        S(normal(2, 3), 1.0, True),
    ],
    torch="nn.functional.feature_alpha_dropout",
)
def feature_alpha_dropout(
    input: Tensor, p: float = 0.5, training: bool = False, inplace: bool = False
) -> Tensor:
    """`alpha_dropout` of whole channels of ``(N, C, *)``.

    >>> import gradlite
    >>> gradlite.nn.functional.feature_alpha_dropout(gradlite.ones(1, 2, 2), 0.5).shape
    gradlite.Size([1, 2, 2])

    Raises:
        ValueError: p is outside [0, 1].
    """
    _check_p(p)
    n = input.array.ndim
    if not training or p == 0.0 or input.array.size == 0:
        return input
    if n < 2:
        raise RuntimeError("Feature dropout requires at least 2 dimensions in the input")
    return _alpha_dropped(input, input.array.shape[:2] + (1,) * (n - 2), p, inplace)
