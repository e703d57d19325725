"""Random functions written with other ops: rrelu and gumbel_softmax.

The draws come from the default generator.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.device import array_module
from gradlite.ops.dispatch import apply
from gradlite.ops.draws import drawn
from gradlite.ops.extrema import arg_extremum
from gradlite.ops.guard import on_its_device
from gradlite.ops.inplace import assign, check_inplace
from gradlite.ops.like import zeros_like
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op, type_name
from gradlite.ops.piecewise import leaky_relu
from gradlite.ops.pointwise import value_of
from gradlite.ops.samples import S, distinct, normal
from gradlite.ops.scatter import scatter
from gradlite.ops.shape import contiguous
from gradlite.ops.softmax import softmax
from gradlite.ops.table import public
from gradlite.random import default_generator
from gradlite.tensor import Tensor, wrap

__all__ = ["gumbel_softmax", "rrelu"]


def _constant(array: Any, like: Tensor) -> Any:
    return wrap(array_module(like.device).asarray(array, dtype=like.array.dtype))


def _result(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    if not inplace:
        return result
    check_inplace(input)
    return assign(input, result)


class Rrelu(Op):
    """x where x > 0, else a x, a drawn from ``lower`` to ``upper``; aux: the slopes, a or 1."""

    grad_name = "RreluWithNoiseBackward0"
    reads = ((), ())
    constants = (1,)
    has_aux = True

    def forward(xp: Any, x: Any, draws: Any, lower: float, upper: float) -> Any:
        slope = (draws * (upper - lower) + lower).astype(x.dtype, copy=False)
        slope = xp.where(x <= 0, slope, x.dtype.type(1))
        return x * slope, slope

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        slope = ctx.aux
        return grad * (wrap(slope) if F.tensors else slope), None

    def fused_forward(K: Any, x: Any, draws: Any, lower: float, upper: float) -> Any:
        if not K.takes(x, draws):
            return NotImplemented
        x, y, slope = K.dense(x), K.empty(x.shape, x.dtype), K.empty(x.shape, x.dtype)
        K.elementwise(
            "rrelu_forward", x.dtype, x.size,
            x, K.dense(draws), y, slope, x.size, float(lower), float(upper),
        )  # fmt: skip
        return y, slope


@public(
    samples=lambda: [S(distinct(3, 4)), S(distinct(5), 0.2, 0.6), S(distinct(5), 0.3, 0.3, True)],
    torch="nn.functional.rrelu",
    errors=lambda: [S(normal(3), 0.6, 0.2), S(np.arange(3), training=True)],
)
@on_its_device
def rrelu(
    input: Tensor,
    lower: float = 1.0 / 8,
    upper: float = 1.0 / 3,
    training: bool = False,
    inplace: bool = False,
) -> Tensor:
    """x where x > 0, else a x; a is drawn uniformly for each element in training, else their mean.

    >>> import gradlite
    >>> gradlite.nn.functional.rrelu(gradlite.tensor([1.0, -1.0]), 0.2, 0.4)
    tensor([ 1.0000, -0.3000])

    Raises:
        RuntimeError: lower exceeds upper.
    """
    if lower > upper:
        raise RuntimeError("Lower bound should be less than or equal to the upper bound")
    x: Any = input if inplace else contiguous(input)
    if not training:
        return _result(input, leaky_relu(x, (lower + upper) / 2), inplace)
    array = input.array
    if array.dtype not in dtypes.FLOATING:
        raise NotImplementedError(
            f"\"rrelu_with_noise_out_cpu\" not implemented for '{type_name(array.dtype)}'"
        )
    draws = drawn(default_generator, "random", array.shape, array.dtype, input.device)
    return _result(input, apply(Rrelu, (x, wrap(draws)), lower, upper), inplace)


def _gumbel(like: Tensor) -> Any:
    """Draws of Gumbel's distribution in double precision."""
    draws = drawn(default_generator, "random", like.array.shape, np.dtype(np.float64), like.device)
    tiny, K = float(np.finfo(np.float64).tiny), NAMESPACES[draws.__class__].launcher
    if K is not None and K.takes(draws):
        return value_of(K, "gumbel", draws, tiny)
    return -np.log(-np.log1p(-draws) + tiny)


@public(
    # Over one element the sample is 1, whatever is drawn.
    samples=lambda: [S(normal(3, 1)), S(normal(1, 4), 0.5, True, dim=0)],
    torch="nn.functional.gumbel_softmax",
)
@on_its_device
def gumbel_softmax(
    logits: Tensor, tau: float = 1, hard: bool = False, eps: float = 1e-10, dim: int = -1
) -> Tensor:
    """A sample of softmax((logits + g) / tau), g drawn from the Gumbel distribution.

    Jang et al. (2016). With ``hard`` the sample is one-hot, with the soft one's gradient.

    >>> import gradlite
    >>> gradlite.nn.functional.gumbel_softmax(gradlite.zeros(2, 3), hard=True).sum(-1)
    tensor([1., 1.])
    """
    gumbel = _constant(_gumbel(logits), logits)
    soft: Any = softmax((logits + gumbel) / tau, dim)
    if not hard:
        return soft  # type: ignore[no-any-return]
    sample = soft.detach()
    place = arg_extremum("max", "argmax", sample, dim, True)
    chosen: Any = scatter(zeros_like(sample), dim, place, 1.0)
    return chosen - sample + soft  # type: ignore[no-any-return]
