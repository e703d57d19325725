"""Special functions: gamma and its derivatives, the inverse of erf, logit, sinc."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends import gamma
from gradlite.backends.special import erfinv as erfinv_of
from gradlite.ops import elements_compiled
from gradlite.ops.activation import erfc
from gradlite.ops.binary import Binary, binary_op, unbroadcast
from gradlite.ops.dispatch import OUT, apply1
from gradlite.ops.elementwise import float_op
from gradlite.ops.guard import on_its_device
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Elementwise
from gradlite.ops.operands import cast, in_single
from gradlite.ops.pointwise import slope, slope_of, slopes, value, value_of, value_of_two
from gradlite.ops.samples import S, integers, positive, unary, uniform
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "digamma",
    "erfinv",
    "lgamma",
    "logit",
    "mvlgamma",
    "polygamma",
    "sinc",
    "xlogy",
]


class Lgamma(Elementwise):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        made = elements_compiled.made(xp, "lgamma", x)
        return gamma.lgamma(xp, x) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        made = elements_compiled.slope(F, "lgamma_slope", grad, x)
        return (grad * F.digamma(x),) if made is None else made


class Digamma(Elementwise):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        made = elements_compiled.made(xp, "digamma", x)
        return gamma.digamma(xp, x) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        made = elements_compiled.slope(F, "digamma_slope", grad, x)
        return (grad * F.polygamma(x, 1),) if made is None else made


class Polygamma(Elementwise):
    reads = ((0,),)

    def forward(xp: Any, x: Any, n: int) -> Any:
        made = elements_compiled.made(xp, "trigamma", x) if n == 1 else None
        return gamma.polygamma(xp, n, x) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.polygamma(x, ctx.attrs[0] + 1),)


class Erfinv(Elementwise):
    reads = ((OUT,),)
    fused_backward = slope("erf", math.sqrt(math.pi) / 2, 1.0)

    def forward(xp: Any, x: Any) -> Any:
        made = elements_compiled.made(xp, "erfinv", x) if x.dtype.char == "f" else None
        return erfinv_of(xp, x) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (grad * (F.exp(out * out) * (math.sqrt(math.pi) / 2)),)


class Logit(Elementwise):
    """log(x / (1 - x)), x limited to [eps, 1 - eps] when there is an eps."""

    reads = ((0,),)

    def forward(xp: Any, x: Any, eps: float | None) -> Any:
        if eps is not None:
            x = xp.clip(x, x.dtype.type(eps), x.dtype.type(1 - eps))
        return xp.log(x / (1 - x))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        (eps,) = ctx.attrs
        low = 0.0 if eps is None else eps
        outside = (x < low) | (x > 1 - low)
        beyond = F.zero_beside(grad) + (math.nan if eps is None else 0.0)
        return (F.where(outside, beyond, grad / (x * (-x + 1))),)

    def fused_forward(K: Any, x: Any, eps: float | None) -> Any:
        bounds = (-math.inf, math.inf) if eps is None else (float(eps), 1 - eps)
        return value_of(K, "logit", x, *bounds)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (eps,) = ctx.attrs
        if eps is None:
            return slope_of(K, "unbounded_logit", grad, ctx.saved[0])
        return slope_of(K, "logit", grad, ctx.saved[0], float(eps), 1 - eps)


class Sinc(Elementwise):
    """sin(pi x) / (pi x), 1 at 0."""

    reads = ((0,),)
    fused_forward, fused_backward = value("sinc"), slope("sinc")

    def forward(xp: Any, x: Any) -> Any:
        return xp.sinc(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        zero = F.zero_beside(grad)
        at_zero = x * x * math.pi == 0  # or so near that the divisor vanishes
        safe = F.where(at_zero, zero + 1, x)
        angle = safe * math.pi
        slope = (F.cos(angle) * angle - F.sin(angle)) / (angle * safe)
        return (F.where(at_zero, zero, grad * slope),)


class Xlogy(Binary):
    """x log(y), 0 where x is 0 and y no NaN."""

    reads = ((0, 1), (0, 1))
    fused_forward, fused_backward = value_of_two("xlogy"), slopes("xlogy")

    def forward(xp: Any, x: Any, y: Any) -> Any:
        y = xp.asarray(y, x.dtype)  # also a number
        return xp.where((x == 0) & (y == y), x.dtype.type(0), x * xp.log(y))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            zero = F.zero_beside(grad)
            none = (x == 0) & (y <= 0)
            left = F.where(none, zero, grad * F.log(F.where(none, zero + 1, y)))
        if ctx.edges[1] is not None:
            right = grad * x / y
        return unbroadcast(ctx, F, left, right)


class SpecialXlog1py(Binary):
    """x log(1 + y), 0 where x is 0 and y no NaN."""

    reads = ((0, 1), (0, 1))
    fused_forward, fused_backward = value_of_two("xlog1py"), slopes("xlog1py")

    def forward(xp: Any, x: Any, y: Any) -> Any:
        y = xp.asarray(y, x.dtype)  # also a number
        return xp.where((x == 0) & (y == y), x.dtype.type(0), x * xp.log1p(y))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, y = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            zero = F.zero_beside(grad)
            none = (x == 0) & (y <= -1)
            left = F.where(none, zero, grad * F.log1p(F.where(none, zero, y)))
        if ctx.edges[1] is not None:
            right = grad * x / (y + 1)
        return unbroadcast(ctx, F, left, right)


class SpecialEntr(Elementwise):
    """-x log(x), 0 at 0 and -inf below."""

    reads = ((0,),)
    fused_forward, fused_backward = value("entropy"), slope("entropy")

    def forward(xp: Any, x: Any) -> Any:
        kind = x.dtype.type
        inside = xp.where(x == 0, kind(0), -x * xp.log(x))
        return xp.where(x < 0, kind(-math.inf), inside)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * (-F.log(x) - 1),)


def _gamma_samples() -> list[Any]:
    return [*unary(positive), S(uniform(-2.9, -2.1, 4)), S(integers(1, 9, 3))]


@public(samples=_gamma_samples, method=True, inplace=True)
def lgamma(input: Tensor) -> Tensor:
    """The logarithm of |gamma(x)|, elementwise.

    >>> import gradlite
    >>> gradlite.lgamma(gradlite.tensor([0.5, 1.0, 4.0]))
    tensor([0.5724, 0.0000, 1.7918])
    """
    return float_op(Lgamma, input)


# PyTorch's trigamma, the gradient of digamma, has a relative error of 1e-9.
@public(
    samples=lambda: [
        *unary(positive, rtol=1e-8),
        S(uniform(-2.9, -2.1, 4), rtol=1e-8),
        S(integers(1, 9, 3), rtol=1e-6),
    ],
    method=True,
    inplace=True,
)
def digamma(input: Tensor) -> Tensor:
    """The derivative of `lgamma`, elementwise.

    >>> import gradlite
    >>> gradlite.digamma(gradlite.tensor([0.5, 1.0]))
    tensor([-1.9635, -0.5772])
    """
    return float_op(Digamma, input)


@public(
    samples=lambda: [
        S(1, positive(3, 4), rtol=1e-8),
        S(2, positive(5)),
        S(0, positive(3), rtol=1e-8),
        S(1, uniform(-2.9, -2.1, 4), rtol=1e-8),
        S(3, integers(1, 9, 3)),
    ],
    errors=lambda: [S(-1, positive(2))],
)
def polygamma(n: int, input: Tensor) -> Tensor:
    """The ``n``-th derivative of `digamma`, elementwise.

    >>> import gradlite
    >>> gradlite.polygamma(1, gradlite.tensor([1.0, 2.0]))
    tensor([1.6449, 0.6449])
    """
    if n < 0:
        raise RuntimeError("polygamma(n, x) does not support negative n.")
    if input.array.dtype not in dtypes.FLOATING:
        input = cast(input, dtypes.get_default_dtype().numpy)
    return digamma(input) if n == 0 else apply1(Polygamma, input, n)


@public(
    samples=lambda: [S(positive(3) + 2, 3), S(positive(3) + 1, 1), S(integers(3, 9, 3), 2)],
    method=True,
    inplace="composed",
    errors=lambda: [S(positive(2), 0)],
)
@on_its_device
def mvlgamma(input: Tensor, p: int) -> Tensor:
    """The logarithm of the multivariate gamma function of dimension ``p``.

    The sum of lgamma(x - i / 2) over i < p, plus log(pi) p (p - 1) / 4.

    >>> import gradlite
    >>> gradlite.mvlgamma(gradlite.tensor([2.0, 3.0]), 2)
    tensor([0.4516, 1.5502])
    """
    if p < 1:
        raise RuntimeError("p has to be greater than or equal to 1")
    x: Any = input
    if x.array.dtype not in dtypes.FLOATING:
        x = cast(x, dtypes.get_default_dtype().numpy)
    if p > 1:
        halves: Any = wrap(NAMESPACES[x.array.__class__].xp.arange(p))
        x = x.unsqueeze(-1) - cast(halves / 2, x.array.dtype)
    total: Any = lgamma(x)
    return total if p == 1 else total.sum(-1) + p * (p - 1) / 4 * math.log(math.pi)  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        *[S(uniform(-0.95, 0.95, *shape)) for shape in ((3, 4), (), (0, 3))],
        S(np.array([0, 1])),
    ],
    method=True,
    inplace=True,
    autocast=("", "float32"),
)
def erfinv(input: Tensor) -> Tensor:
    """The inverse of `erf`, elementwise; infinite at -1 and 1, NaN beyond.

    >>> import gradlite
    >>> gradlite.erfinv(gradlite.tensor([0.0, 0.5]))
    tensor([0.0000, 0.4769])
    """
    return float_op(Erfinv, input)


@public(
    samples=lambda: [
        *[S(uniform(0.05, 0.95, *shape)) for shape in ((3, 4), (), (0, 3))],
        S(uniform(-0.5, 1.5, 6), smooth=False),
        S(uniform(-0.5, 1.5, 6), 0.1, smooth=False),
        S(np.array([0, 1]), eps=1e-3),
    ],
    method=True,
    inplace=True,
)
def logit(input: Tensor, eps: float | None = None) -> Tensor:
    """``log(x / (1 - x))``, the inverse of sigmoid, x first limited to [eps, 1 - eps].

    >>> import gradlite
    >>> gradlite.logit(gradlite.tensor([0.5, 0.8]))
    tensor([0.0000, 1.3863])
    """
    if input.array.dtype not in dtypes.FLOATING:
        input = cast(input, dtypes.get_default_dtype().numpy)
    return apply1(Logit, input, eps)


@public(
    samples=lambda: [*unary(), S(np.array([0.0, 1.0]), smooth=False)], method=True, inplace=True
)
def sinc(input: Tensor) -> Tensor:
    """``sin(pi x) / (pi x)``, 1 at 0, elementwise.

    >>> import gradlite
    >>> gradlite.sinc(gradlite.tensor([0.0, 0.5]))
    tensor([1.0000, 0.6366])
    """
    return float_op(Sinc, input)


@public(
    samples=lambda: [
        S(positive(3, 4), positive(4)),
        S(np.zeros(3), positive(3), smooth=False),
        S(positive(3), np.array([2, 3, 4])),
    ],
    method=True,
    inplace=True,
)
def xlogy(input: Any, other: Any) -> Tensor:
    """``x * log(y)``, 0 where x is 0.

    >>> import gradlite
    >>> gradlite.xlogy(gradlite.tensor([0.0, 2.0]), gradlite.tensor([0.0, 1.0]))
    tensor([0., 0.])
    """
    return binary_op(Xlogy, input, other, true_division=True)


@public(
    samples=lambda: [S(positive(3, 4), positive(4)), S(np.zeros(3), positive(3), smooth=False)],
    torch="special.xlog1py",
)
def xlog1py(input: Any, other: Any) -> Tensor:
    """``x * log(1 + y)``, 0 where x is 0.

    >>> import gradlite
    >>> gradlite.special.xlog1py(gradlite.tensor([0.0, 2.0]), gradlite.tensor([-1.0, 0.0]))
    tensor([0., 0.])
    """
    return binary_op(SpecialXlog1py, input, other, true_division=True)


@public(
    samples=lambda: [*unary(positive), S(np.array([-1.0, 0.5]), smooth=False)],
    torch="special.entr",
)
def entr(input: Tensor) -> Tensor:
    """``-x * log(x)``: 0 at 0, -inf for negative numbers.

    >>> import gradlite
    >>> gradlite.special.entr(gradlite.tensor([0.0, 0.5]))
    tensor([0.0000, 0.3466])
    """
    return float_op(SpecialEntr, input)


@public(samples=lambda: unary(), torch="special.ndtr")
@in_single
def ndtr(input: Tensor) -> Tensor:
    """The cumulative distribution function of the standard normal distribution.

    >>> import gradlite
    >>> gradlite.special.ndtr(gradlite.tensor([0.0, 1.0]))
    tensor([0.5000, 0.8413])
    """
    x: Any = input
    return erfc(x * -math.sqrt(0.5)) * 0.5  # type: ignore[operator, no-any-return]


@public(samples=lambda: [S(uniform(0.05, 0.95, 3, 4))], torch="special.ndtri")
@in_single
def ndtri(input: Tensor) -> Tensor:
    """The inverse of `ndtr`.

    >>> import gradlite
    >>> gradlite.special.ndtri(gradlite.tensor([0.5, 0.8413]))
    tensor([0.0000, 0.9998])
    """
    x: Any = input if input.array.dtype in dtypes.FLOATING else input.to(dtypes.get_default_dtype())  # type: ignore[attr-defined]
    return erfinv(x * 2 - 1) * math.sqrt(2)  # type: ignore[operator, no-any-return]


def _attach() -> None:
    t: Any = Tensor
    t.polygamma = lambda self, n: polygamma(n, self)


_attach()
