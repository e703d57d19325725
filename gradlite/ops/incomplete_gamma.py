"""The regularised incomplete gamma functions: the gamma distribution's function and its rest."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.backends import incomplete_gamma
from gradlite.ops.binary import Binary, unbroadcast
from gradlite.ops.bivariate import floating_op
from gradlite.ops.samples import S, constant, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["igamma", "igammac"]


class Igamma(Binary):
    """P(a, x)."""

    reads = ((0, 1), (0, 1))

    def forward(xp: Any, a: Any, x: Any) -> Any:
        return incomplete_gamma.lower(xp, a, x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return unbroadcast(ctx, F, None, grad * _density("igamma", ctx, F))


class Igammac(Binary):
    """Q(a, x) = 1 - P(a, x)."""

    reads = ((0, 1), (0, 1))

    def forward(xp: Any, a: Any, x: Any) -> Any:
        return incomplete_gamma.upper(xp, a, x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return unbroadcast(ctx, F, None, -grad * _density("igammac", ctx, F))


def _density(name: str, ctx: Any, F: Any) -> Any:
    """The gamma distribution's density at x."""
    # True stands for the base, without gradient, of a view that was edited.
    if ctx.edges[0] is not None and ctx.edges[0] is not True:
        raise NotImplementedError(f"the derivative for '{name}: input' is not implemented.")
    a, x = ctx.saved
    return F.exp((a - 1) * F.log(x) - x - F.lgamma(a))


def _samples() -> list[Any]:
    return [
        S(constant(positive(3, 4)), positive(4)),
        S(constant(np.array([0.3, 4.0, 30.0])), positive(2, 1) * 8),
        S(constant(np.full(3, 2.5)), positive()),
        S(constant(np.zeros((0, 3))), positive(3)),
        S(constant(np.array([0.0, 2.0])), constant(np.array([1.0, 0.0]))),
    ]


def _errors() -> list[Any]:
    return [S(np.arange(3), np.arange(3)), S(normal(3), 2.0), S(positive(2), positive(3))]


@public(samples=_samples, method=True, inplace=True, errors=_errors)
def igamma(input: Tensor, other: Tensor) -> Tensor:
    """The part of gamma(a) that the integral of t^(a-1) exp(-t) from 0 to x has, elementwise.

    a is ``input`` and x is ``other``, neither negative: NaN where one is.

    >>> import gradlite
    >>> gradlite.igamma(gradlite.tensor([1.0, 3.0]), gradlite.tensor([0.5, 3.0]))
    tensor([0.3935, 0.5768])

    Raises:
        NotImplementedError: integers, and in backward a gradient with respect to ``input``.
    """
    return floating_op("igamma", Igamma, input, other)


@public(samples=_samples, method=True, inplace=True, errors=_errors)
def igammac(input: Tensor, other: Tensor) -> Tensor:
    """``1 - igamma(input, other)``, precise where it is small.

    >>> import gradlite
    >>> gradlite.igammac(gradlite.tensor([1.0]), gradlite.tensor([20.0]))
    tensor([2.0612e-09])

    Raises:
        NotImplementedError: integers, and in backward a gradient with respect to ``input``.
    """
    return floating_op("igammac", Igammac, input, other)
