"""Activation functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite.backends import special
from gradlite.ops.binary import sum_to
from gradlite.ops.choose import where
from gradlite.ops.dispatch import OUT, apply, apply1
from gradlite.ops.elementwise import float_op
from gradlite.ops.inplace import assign, check_inplace
from gradlite.ops.joining import chunk
from gradlite.ops.op import Op
from gradlite.ops.samples import S, distinct, normal, unary
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "celu",
    "elu",
    "erf",
    "erfc",
    "gelu",
    "glu",
    "hardshrink",
    "hardsigmoid",
    "hardswish",
    "hardtanh",
    "leaky_relu",
    "logsigmoid",
    "mish",
    "prelu",
    "relu",
    "relu6",
    "selu",
    "silu",
    "softplus",
    "softshrink",
    "softsign",
    "tanhshrink",
    "threshold",
]

try:  # three times as fast as np.maximum(x, 0) on floats
    from numpy._core.umath import clip as _clip  # type: ignore[attr-defined]
except ImportError:  # pragma: no cover - older or newer NumPy without it
    _clip = None
_BOUNDS = {
    np.dtype(k): (np.array(0, k), np.array(np.inf, k)) for k in ("float16", "float32", "float64")
}
_SHIFTS = {
    np.dtype("float32"): (np.dtype("int32"), np.array(31, np.int32)),
    np.dtype("float64"): (np.dtype("int64"), np.array(63, np.int64)),
}


class ThresholdBackward(Op):
    """grad where out > 0, else 0: exact for infinite and NaN gradients too."""

    reads = ((1,), ())

    def forward(xp: Any, grad: Any, out: Any) -> Any:
        kind = _SHIFTS.get(out.dtype)
        if xp is np and kind is not None and grad.__class__ is np.ndarray:
            if out.flags.c_contiguous and grad.flags.c_contiguous and out.ndim:
                # out >= 0, so -bits is negative exactly where out > 0: its sign bit, spread
                # over the word, is the mask.
                integer: Any = kind[0]
                shift: Any = kind[1]
                mask = np.negative(out.view(integer))
                np.right_shift(mask, shift, out=mask)
                np.bitwise_and(mask, grad.view(integer), out=mask)
                return mask.view(out.dtype)
        return xp.where(out > 0, grad, xp.zeros((), out.dtype))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return F.threshold_backward(grad, F.detach(out)), None


class Relu(Op):
    reads = ((OUT,),)

    def forward(xp: Any, x: Any) -> Any:
        bounds = _BOUNDS.get(x.dtype) if xp is np and _clip is not None else None
        return xp.maximum(x, 0) if bounds is None else _clip(x, *bounds)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (out,) = ctx.saved
        return (F.threshold_backward(grad, F.detach(out)),)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def relu(input: Tensor, inplace: bool = False) -> Tensor:
    """``max(x, 0)``; the gradient at 0 is 0.

    >>> import gradlite
    >>> gradlite.relu(gradlite.tensor([-1.0, 2.0]))
    tensor([0., 2.])
    """
    if inplace:
        return input.relu_()  # type: ignore[attr-defined,no-any-return]
    return apply1(Relu, input)


class LeakyRelu(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any, slope: float) -> Any:
        return xp.where(x > 0, x, x * x.dtype.type(slope))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (F.where(x > 0, grad, grad * ctx.attrs[0]),)


@public(
    samples=lambda: [*unary(distinct), S(distinct(5), 0.2), S(distinct(5), -0.5)],
    torch="nn.functional.leaky_relu",
)
def leaky_relu(input: Tensor, negative_slope: float = 0.01, inplace: bool = False) -> Tensor:
    """x where positive, else ``negative_slope * x``.

    >>> import gradlite
    >>> gradlite.nn.functional.leaky_relu(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.0100,  2.0000])
    """
    return _maybe_inplace(input, apply1(LeakyRelu, input, negative_slope), inplace)


def _maybe_inplace(input: Tensor, result: Tensor, inplace: bool) -> Tensor:
    """Write a result into the input when asked to."""
    if not inplace:
        return result

    check_inplace(input)
    return assign(input, result)


class Elu(Op):
    """x, or alpha (exp(x s) - 1), all times scale."""

    reads = ((0,),)

    def forward(xp: Any, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
        kind = x.dtype.type
        negative = xp.expm1(xp.minimum(x, kind(0)) * kind(input_scale)) * kind(alpha * scale)
        return xp.where(x > 0, x * kind(scale), negative)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        alpha, scale, input_scale = ctx.attrs
        below = F.exp(F.minimum(x, F.zeros(x.shape, x)) * input_scale)
        return (F.where(x > 0, grad * scale, grad * below * (alpha * scale * input_scale)),)


@public(samples=lambda: [*unary(distinct), S(distinct(5), 0.7)], torch="nn.functional.elu")
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016).

    >>> import gradlite
    >>> gradlite.nn.functional.elu(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """
    return _maybe_inplace(input, apply1(Elu, input, alpha, 1.0, 1.0), inplace)


@public(
    samples=lambda: [*unary(distinct), S(distinct(5), 0.7, rtol=1e-7)],  # PyTorch rounds 1/alpha
    torch="nn.functional.celu",
)
def celu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else ``alpha * (exp(x / alpha) - 1)`` (Barron 2017).

    >>> import gradlite
    >>> gradlite.nn.functional.celu(gradlite.tensor([-1.0, 2.0]), 2.0)
    tensor([-0.7869,  2.0000])
    """
    if alpha == 0:
        raise RuntimeError("ZeroDivisionError: alpha cannot be 0 for CELU")
    return _maybe_inplace(input, apply1(Elu, input, alpha, 1.0, 1.0 / alpha), inplace)


@public(samples=lambda: unary(distinct), torch="nn.functional.selu")
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The self-normalising ELU (Klambauer et al. 2017).

    >>> import gradlite
    >>> gradlite.nn.functional.selu(gradlite.tensor([-1.0, 2.0]))
    tensor([-1.1113,  2.1014])
    """
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    return _maybe_inplace(input, apply1(Elu, input, alpha, scale, 1.0), inplace)


_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)


class Erf(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return special.erf(xp, x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * (F.exp(-(x * x)) * (2 / math.sqrt(math.pi))),)


class Erfc(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return special.erfc(xp, x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * (F.exp(-(x * x)) * (-2 / math.sqrt(math.pi))),)


@public(samples=lambda: [*unary(), S(np.linspace(-7.3, 7.1, 60))], method=True, inplace=True)
def erf(input: Tensor) -> Tensor:
    """The error function, ``2 / sqrt(pi)`` times the integral of ``exp(-t**2)`` from 0 to x.

    >>> import gradlite
    >>> gradlite.erf(gradlite.tensor([0.0, 1.0]))
    tensor([0.0000, 0.8427])
    """
    return float_op(Erf, input)


@public(samples=lambda: [*unary(), S(np.linspace(-7.3, 7.1, 60))], method=True, inplace=True)
def erfc(input: Tensor) -> Tensor:
    """``1 - erf(x)``, accurate where that is tiny.

    >>> import gradlite
    >>> gradlite.erfc(gradlite.tensor([0.0, 1.0]))
    tensor([1.0000, 0.1573])
    """
    return float_op(Erfc, input)


class Gelu(Op):
    """x Phi(x), Phi the normal cdf."""

    reads = ((0,),)
    has_aux = True

    def forward(xp: Any, x: Any) -> Any:
        cdf = special.normal_cdf(xp, x)
        return x * cdf, cdf

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        if F.tensors:
            cdf = (F.erf(x * _SQRT_HALF) + 1) * 0.5
            return (grad * (cdf + x * (F.exp(x * x * -0.5) * _DENSITY_AT_0)),)
        kind = x.dtype.type
        slope = np.asarray(x * x) if F.xp is np else x * x
        slope *= kind(-0.5)
        F.xp.exp(slope, out=slope)
        slope *= kind(_DENSITY_AT_0)
        slope *= x
        slope += ctx.aux
        slope *= grad
        return (slope,)


class GeluTanh(Op):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))."""

    reads = ((0,),)
    grad_name = "GeluBackward0"

    def forward(xp: Any, x: Any) -> Any:
        kind = x.dtype.type
        inner = x * (x * x * kind(0.044715) + kind(1)) * kind(math.sqrt(2 / math.pi))
        return x * (xp.tanh(inner) + kind(1)) * kind(0.5)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        c = math.sqrt(2 / math.pi)
        square = x * x
        t = F.tanh(x * (square * 0.044715 + 1) * c)
        slope = (1 - t * t) * (square * (3 * 0.044715) + 1) * c
        return (grad * ((t + 1) * 0.5 + x * slope * 0.5),)


@public(samples=lambda: [*unary(), S(normal(5), approximate="tanh")], torch="nn.functional.gelu")
def gelu(input: Tensor, approximate: str = "none") -> Tensor:
    """``x * Phi(x)`` with the normal cdf Phi (Hendrycks & Gimpel 2016).

    Args:
        approximate: "none", or "tanh" for the authors' approximation.

    >>> import gradlite
    >>> gradlite.nn.functional.gelu(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.1587,  1.9545])
    """
    if approximate == "none":
        return apply(Gelu, (input,))  # type: ignore[no-any-return]
    if approximate == "tanh":
        return apply1(GeluTanh, input)
    raise RuntimeError("approximate argument must be either none or tanh.")


class Silu(Op):
    """x sigmoid(x)."""

    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        half = x.dtype.type(0.5)
        return x * (xp.tanh(x * half) * half + half)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        s = F.sigmoid(x)
        return (grad * (s * (x * (1 - s) + 1)),)


@public(samples=lambda: unary(), torch="nn.functional.silu")
def silu(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * sigmoid(x)``, also called swish.

    >>> import gradlite
    >>> gradlite.nn.functional.silu(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.2689,  1.7616])
    """
    return _maybe_inplace(input, apply1(Silu, input), inplace)


class Softplus(Op):
    """log(1 + exp(beta x)) / beta; x itself where beta x exceeds the threshold."""

    reads = ((0,),)

    def forward(xp: Any, x: Any, beta: float, threshold: float) -> Any:
        kind = x.dtype.type
        scaled = x * kind(beta)
        soft = xp.log1p(xp.exp(-xp.abs(scaled))) + xp.maximum(scaled, kind(0))
        return xp.where(scaled > threshold, x, soft / kind(beta))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        beta, threshold = ctx.attrs
        scaled = x * beta
        return (F.where(scaled > threshold, grad, grad * F.sigmoid(scaled)),)


@public(
    samples=lambda: [*unary(), S(normal(5), 2.0, 1.0), S(np.array([-50.0, 50.0]))],
    torch="nn.functional.softplus",
)
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, linear above ``threshold``.

    >>> import gradlite
    >>> gradlite.nn.functional.softplus(gradlite.tensor([-1.0, 2.0]))
    tensor([0.3133, 2.1269])
    """
    return apply1(Softplus, input, beta, threshold)


class LogSigmoid(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        return xp.minimum(x, x.dtype.type(0)) - xp.log1p(xp.exp(-xp.abs(x)))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * F.sigmoid(-x),)


@public(samples=lambda: [*unary(), S(np.array([-80.0, 80.0]))], torch="nn.functional.logsigmoid")
def logsigmoid(input: Tensor) -> Tensor:
    """``log(sigmoid(x))`` without overflow.

    >>> import gradlite
    >>> gradlite.nn.functional.logsigmoid(gradlite.tensor([-1.0, 2.0]))
    tensor([-1.3133, -0.1269])
    """
    return apply1(LogSigmoid, input)


@public(samples=lambda: unary(), torch="nn.functional.mish")
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))`` (Misra 2020).

    >>> import gradlite
    >>> gradlite.nn.functional.mish(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.3034,  1.9440])
    """
    return _maybe_inplace(input, input * softplus(input).tanh(), inplace)


@public(samples=lambda: unary(), torch="nn.functional.softsign")
def softsign(input: Tensor) -> Tensor:
    """``x / (1 + |x|)``.

    >>> import gradlite
    >>> gradlite.nn.functional.softsign(gradlite.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])
    """
    return input / (input.abs() + 1)


@public(samples=lambda: unary(), torch="nn.functional.tanhshrink")
def tanhshrink(input: Tensor) -> Tensor:
    """``x - tanh(x)``.

    >>> import gradlite
    >>> gradlite.nn.functional.tanhshrink(gradlite.tensor([-1.0, 3.0]))
    tensor([-0.2384,  2.0049])
    """
    return input - input.tanh()


class Hardtanh(Op):
    """Between bounds; the gradient at the bounds is 0."""

    reads = ((0,),)

    def forward(xp: Any, x: Any, low: float, high: float) -> Any:
        kind = x.dtype.type
        return xp.minimum(xp.maximum(x, kind(low)), kind(high))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        low, high = ctx.attrs
        return (F.where((x > low) & (x < high), grad, F.zeros((), grad)),)


@public(
    samples=lambda: [*unary(distinct), S(distinct(5), -0.4, 0.6)], torch="nn.functional.hardtanh"
)
def hardtanh(
    input: Tensor, min_val: float = -1.0, max_val: float = 1.0, inplace: bool = False
) -> Tensor:
    """x limited to [min_val, max_val].

    >>> import gradlite
    >>> gradlite.nn.functional.hardtanh(gradlite.tensor([-3.0, 0.5]))
    tensor([-1.0000,  0.5000])
    """
    if min_val > max_val:
        raise ValueError("min_val cannot be greater than max_val")
    return _maybe_inplace(input, apply1(Hardtanh, input, min_val, max_val), inplace)


@public(samples=lambda: [*unary(distinct), S(distinct(5) * 5)], torch="nn.functional.relu6")
def relu6(input: Tensor, inplace: bool = False) -> Tensor:
    """x limited to [0, 6].

    >>> import gradlite
    >>> gradlite.nn.functional.relu6(gradlite.tensor([-3.0, 8.0]))
    tensor([0., 6.])
    """
    return hardtanh(input, 0.0, 6.0, inplace)


@public(
    # PyTorch's gradient multiplies by a float32 sixth
    samples=lambda: [*unary(distinct, rtol=1e-7), S(distinct(5) * 3, rtol=1e-7)],
    torch="nn.functional.hardsigmoid",
)
def hardsigmoid(input: Tensor, inplace: bool = False) -> Tensor:
    """``x / 6 + 1/2`` limited to [0, 1].

    >>> import gradlite
    >>> gradlite.nn.functional.hardsigmoid(gradlite.tensor([-4.0, 0.0, 1.5]))
    tensor([0.0000, 0.5000, 0.7500])
    """
    return _maybe_inplace(input, hardtanh(input + 3, 0.0, 6.0) / 6, inplace)


class Hardswish(Op):
    reads = ((0,),)

    def forward(xp: Any, x: Any) -> Any:
        kind = x.dtype.type
        return x * xp.minimum(xp.maximum(x + kind(3), kind(0)), kind(6)) / kind(6)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        middle = grad * (x / 3 + 0.5)
        return (F.where(x <= -3, F.zeros((), grad), F.where(x < 3, middle, grad)),)


@public(samples=lambda: [*unary(distinct), S(distinct(5) * 3)], torch="nn.functional.hardswish")
def hardswish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * relu6(x + 3) / 6`` (Howard et al. 2019).

    >>> import gradlite
    >>> gradlite.nn.functional.hardswish(gradlite.tensor([-4.0, 1.5]))
    tensor([-0.0000,  1.1250])
    """
    return _maybe_inplace(input, apply1(Hardswish, input), inplace)


@public(samples=lambda: [S(distinct(3, 4)), S(distinct(5), 0.3)], torch="nn.functional.hardshrink")
def hardshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x where ``|x| > lambd``, else 0.

    >>> import gradlite
    >>> gradlite.nn.functional.hardshrink(gradlite.tensor([-0.3, 2.0]))
    tensor([0., 2.])
    """
    return where((input > lambd) | (input < -lambd), input, 0.0)


@public(samples=lambda: [S(distinct(3, 4)), S(distinct(5), 0.3)], torch="nn.functional.softshrink")
def softshrink(input: Tensor, lambd: float = 0.5) -> Tensor:
    """x moved towards 0 by ``lambd``, 0 within.

    >>> import gradlite
    >>> gradlite.nn.functional.softshrink(gradlite.tensor([-0.3, 2.0]))
    tensor([0.0000, 1.5000])
    """
    if lambd < 0:
        raise RuntimeError(f"lambda must be greater or equal to 0, but found to be {lambd}.")
    return where(input > lambd, input - lambd, where(input < -lambd, input + lambd, 0.0))


@public(samples=lambda: [S(distinct(3, 4), 0.3, -1.0)], torch="nn.functional.threshold")
def threshold(input: Tensor, threshold: float, value: float, inplace: bool = False) -> Tensor:
    """x where above the threshold, else ``value``.

    >>> import gradlite
    >>> gradlite.nn.functional.threshold(gradlite.tensor([0.1, 2.0]), 0.5, -1.0)
    tensor([-1.,  2.])
    """
    return _maybe_inplace(input, where(input > threshold, input, value), inplace)


class Prelu(Op):
    reads = ((0, 1), (0,))
    grad_name = "PreluKernelBackward0"

    def forward(xp: Any, x: Any, weight: Any) -> Any:
        return xp.where(x > 0, x, weight * x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, weight = ctx.saved
        left = right = None
        if ctx.edges[0] is not None:
            left = F.where(x > 0, grad, grad * weight)
        if ctx.edges[1] is not None:
            part = F.where(x > 0, F.zeros((), grad), grad * x)
            right = sum_to(F, part, tuple(ctx.shapes[1]))
        return left, right


@public(
    samples=lambda: [S(distinct(2, 3, 4), normal(1)), S(distinct(2, 3, 4), normal(3))],
    torch="nn.functional.prelu",
)
def prelu(input: Tensor, weight: Tensor) -> Tensor:
    """x where positive, else ``weight * x``; one weight, or one per channel (dimension 1).

    >>> import gradlite
    >>> gradlite.nn.functional.prelu(gradlite.tensor([-2.0, 2.0]), gradlite.tensor([0.1]))
    tensor([-0.2000,  2.0000])
    """
    n = weight.array.size
    if n != 1:
        channels = input.array.shape[1] if input.array.ndim > 1 else 1
        if n != channels:
            raise RuntimeError(
                "Mismatch of parameter numbers and input channel size. Found parameter numbers = "
                f"{n} and channel size = {channels}."
            )
        weight = weight.reshape(  # type: ignore[attr-defined]
            tuple(n if d == 1 else 1 for d in range(input.array.ndim))
        )
    elif input.array.ndim != 1:
        weight = weight.reshape((1,) * input.array.ndim)  # type: ignore[attr-defined]
    return apply(Prelu, (input, weight))  # type: ignore[no-any-return]


@public(samples=lambda: [S(normal(3, 4)), S(normal(4, 3), 0)], torch="nn.functional.glu")
def glu(input: Tensor, dim: int = -1) -> Tensor:
    """The first half of a dimension times the sigmoid of the second (Dauphin et al. 2017).

    >>> import gradlite
    >>> gradlite.nn.functional.glu(gradlite.tensor([3.0, 0.0]))
    tensor([1.5000])
    """
    if input.array.ndim == 0:
        raise RuntimeError("glu does not support 0-dimensional tensors")
    n = input.array.shape[dim]
    if n % 2:
        raise RuntimeError(
            f"Halving dimension must be even, but dimension {dim % input.array.ndim} is size {n}"
        )
    a, b = chunk(input, 2, dim)
    return a * b.sigmoid()
