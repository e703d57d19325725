"""Smooth activation functions; the piecewise linear ones are in `piecewise`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite.backends import special
from gradlite.ops import elements_compiled
from gradlite.ops.activation_edits import activated
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply, apply1
from gradlite.ops.elementwise import float_op, logistic
from gradlite.ops.fused import activation_kernels, fused_slope
from gradlite.ops.layout import as_operands_lie
from gradlite.ops.op import Elementwise, Op
from gradlite.ops.operands import check_floating
from gradlite.ops.pointwise import slope
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
    "logsigmoid",
    "mish",
    "selu",
    "silu",
    "softplus",
    "softsign",
    "tanhshrink",
]


class Elu(Elementwise):
    """x, or alpha (exp(x s) - 1), all times scale."""

    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("elu")
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"

    def forward(xp: Any, x: Any, alpha: float, scale: float, input_scale: float) -> Any:
        kind = x.dtype.type
        negative = xp.expm1(xp.minimum(x, kind(0)) * kind(input_scale)) * kind(alpha * scale)
        return xp.where(x <= 0, negative, x * kind(scale))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        alpha, scale, input_scale = ctx.attrs
        below = F.exp(F.minimum(x, F.zeros(x.shape, x)) * input_scale)
        return (F.where(x <= 0, grad * below * (alpha * scale * input_scale), grad * scale),)


class Celu(Elu):
    """Elu whose input scale is the inverse of alpha."""


@public(samples=lambda: [*unary(distinct), S(distinct(5), 0.7)], torch="nn.functional.elu")
def elu(input: Tensor, alpha: float = 1.0, inplace: bool = False) -> Tensor:
    """x where positive, else ``alpha * (exp(x) - 1)`` (Clevert et al. 2016).

    >>> import gradlite
    >>> gradlite.nn.functional.elu(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.6321,  2.0000])
    """
    check_floating("elu_cpu", input)
    return activated(Elu, input, inplace, alpha, 1.0, 1.0)


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
    check_floating("elu_cpu", input)
    return activated(Celu, input, inplace, alpha, 1.0, 1.0 / alpha)


@public(samples=lambda: unary(distinct), torch="nn.functional.selu")
def selu(input: Tensor, inplace: bool = False) -> Tensor:
    """The self-normalising ELU (Klambauer et al. 2017).

    >>> import gradlite
    >>> gradlite.nn.functional.selu(gradlite.tensor([-1.0, 2.0]))
    tensor([-1.1113,  2.1014])
    """
    alpha, scale = 1.6732632423543772848170429916717, 1.0507009873554804934193349852946
    check_floating("elu_cpu", input)
    return activated(Elu, input, inplace, alpha, scale, 1.0)


_SQRT_HALF = math.sqrt(0.5)
_DENSITY_AT_0 = 1 / math.sqrt(2 * math.pi)


class Erf(Elementwise):
    reads = ((0,),)
    fused_backward = slope("erf", 2 / math.sqrt(math.pi), -1.0)

    def forward(xp: Any, x: Any) -> Any:
        made = elements_compiled.made(xp, "erf", x) if x.dtype.char == "f" else None
        return special.erf(xp, x) if made is None else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        return (grad * (F.exp(-(x * x)) * (2 / math.sqrt(math.pi))),)


class Erfc(Elementwise):
    reads = ((0,),)
    fused_backward = slope("erf", -2 / math.sqrt(math.pi), -1.0)

    def forward(xp: Any, x: Any) -> Any:
        made = elements_compiled.made(xp, "erfc", x) if x.dtype.char == "f" else None
        return special.erfc(xp, x) if made is None else made

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


class Gelu(Elementwise):
    """x Phi(x), Phi the normal cdf."""

    reads = ((0,),)
    has_aux = True
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"

    def fused_forward(K: Any, x: Any) -> Any:
        if not K.takes(x):
            return NotImplemented
        x = K.dense(x)
        out = K.empty_like(x)
        slope = K.empty_like(x) if K.serial else None  # on a GPU memory is slower than arithmetic
        K.elementwise("gelu_forward", x.dtype, x.size, x, out, slope, x.size)
        return out, (None, slope)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        if ctx.aux is not None and ctx.aux[1] is not None:
            return NotImplemented
        dx = fused_slope(K, "gelu_backward", grad, ctx.saved[0])
        return dx if dx is NotImplemented else (dx,)

    def forward(xp: Any, x: Any) -> Any:
        cdf = special.normal_cdf(xp, x)
        return x * cdf, (cdf, None)

    forward = as_operands_lie(forward, operands=1)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        if F.tensors:
            cdf = (F.erf(x * _SQRT_HALF) + 1) * 0.5
            return (grad * (cdf + x * (F.exp(x * x * -0.5) * _DENSITY_AT_0)),)
        cdf, slope = ctx.aux or (None, None)
        if slope is not None:
            return (grad * slope,)
        kind = x.dtype.type
        slope = np.asarray(x * x) if F.xp is np else x * x
        slope *= kind(-0.5)
        F.xp.exp(slope, out=slope)
        slope *= kind(_DENSITY_AT_0)
        slope *= x
        slope += special.normal_cdf(F.xp, x) if cdf is None else cdf
        slope *= grad
        return (slope,)


class GeluTanh(Elementwise):
    """0.5 x (1 + tanh(sqrt(2/pi) (x + 0.044715 x³)))."""

    reads = ((0,),)
    grad_name = "GeluBackward0"
    fused_forward, fused_backward = activation_kernels("gelu_tanh")
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"

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
    check_floating("GeluKernelImpl", input)
    if approximate == "none":
        return apply(Gelu, (input,))  # type: ignore[no-any-return]
    if approximate == "tanh":
        return apply1(GeluTanh, input)
    raise RuntimeError("approximate argument must be either none or tanh.")


class Silu(Elementwise):
    """x sigmoid(x)."""

    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("silu")
    native_from = native_backward_from = 1 << 14
    native_dtypes = "f"

    def forward(xp: Any, x: Any) -> Any:
        return x * logistic(xp, x)

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
    check_floating("silu_cpu", input)
    return activated(Silu, input, inplace)


class Softplus(Elementwise):
    """log(1 + exp(beta x)) / beta; x itself where beta x exceeds the threshold."""

    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("softplus")
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"

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
    autocast=("", "float32"),
)
def softplus(input: Tensor, beta: float = 1.0, threshold: float = 20.0) -> Tensor:
    """``log(1 + exp(beta * x)) / beta``, linear above ``threshold``.

    >>> import gradlite
    >>> gradlite.nn.functional.softplus(gradlite.tensor([-1.0, 2.0]))
    tensor([0.3133, 2.1269])
    """
    check_floating("softplus_cpu", input)
    return apply1(Softplus, input, beta, threshold)


class LogSigmoid(Op):
    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("logsigmoid")
    native_from = native_backward_from = 1 << 14
    native_dtypes = "f"
    row_major = True

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
    check_floating("log_sigmoid_cpu", input)
    return apply1(LogSigmoid, input)


class Mish(Elementwise):
    """x tanh(log(1 + exp(x)))."""

    reads = ((0,),)
    fused_forward, fused_backward = activation_kernels("mish")
    native_from = native_backward_from = 1 << 8
    native_dtypes = "f"

    def forward(xp: Any, x: Any) -> Any:
        return x * xp.tanh(xp.log1p(xp.exp(-xp.abs(x))) + xp.maximum(x, x.dtype.type(0)))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        t = F.tanh(F.softplus(x, 1.0, 20.0))
        return (grad * (t + x * F.sigmoid(x) * (1 - t * t)),)


@public(samples=lambda: unary(), torch="nn.functional.mish")
def mish(input: Tensor, inplace: bool = False) -> Tensor:
    """``x * tanh(softplus(x))`` (Misra 2020).

    >>> import gradlite
    >>> gradlite.nn.functional.mish(gradlite.tensor([-1.0, 2.0]))
    tensor([-0.3034,  1.9440])
    """
    check_floating("mish_cpu", input)
    return activated(Mish, input, inplace)


class Softsign(Elementwise):
    reads = ((0,),)
    grad_name = "DivBackward0"
    fused_forward, fused_backward = activation_kernels("softsign")
    native_from = native_backward_from = 1 << 16

    def forward(xp: Any, x: Any) -> Any:
        return x / (xp.abs(x) + x.dtype.type(1))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        below = F.abs(x) + 1
        return (grad / (below * below),)


@public(samples=lambda: unary(), torch="nn.functional.softsign")
def softsign(input: Tensor) -> Tensor:
    """``x / (1 + |x|)``.

    >>> import gradlite
    >>> gradlite.nn.functional.softsign(gradlite.tensor([-1.0, 3.0]))
    tensor([-0.5000,  0.7500])
    """
    return float_op(Softsign, input)


class Tanhshrink(Elementwise):
    reads = ((0,),)
    grad_name = "SubBackward0"
    fused_forward, fused_backward = activation_kernels("tanhshrink")
    native_from = native_backward_from = 1 << 16
    native_dtypes = "f"

    def forward(xp: Any, x: Any) -> Any:
        return x - xp.tanh(x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        t = F.tanh(x)
        return (grad * (t * t),)


@public(samples=lambda: unary(), torch="nn.functional.tanhshrink")
def tanhshrink(input: Tensor) -> Tensor:
    """``x - tanh(x)``.

    >>> import gradlite
    >>> gradlite.nn.functional.tanhshrink(gradlite.tensor([-1.0, 3.0]))
    tensor([-0.2384,  2.0049])
    """
    return float_op(Tanhshrink, input)


class Glu(Op):
    """The first half of a dimension times the sigmoid of the second."""

    reads = ((0,),)
    native_from = native_backward_from = 1 << 12
    native_dtypes = "f"

    def forward(xp: Any, x: Any, dim: int) -> Any:
        a, b = _halves(x, dim)
        return a * logistic(xp, b)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (x,) = ctx.saved
        (dim,) = ctx.attrs
        a, b = _halves(x, dim)
        s = F.sigmoid(b)
        return (F.cat([grad * s, grad * a * (s * (1 - s))], dim),)

    def fused_forward(K: Any, x: Any, dim: int) -> Any:
        if not K.takes(x):
            return NotImplemented
        x = K.dense(x)
        shape = *x.shape[:dim], x.shape[dim] // 2, *x.shape[dim + 1 :]
        out = K.empty(shape, x.dtype)
        rows, columns = math.prod(shape[:dim]), math.prod(shape[dim:])
        K.rows("glu_forward", x.dtype, rows, columns, x, out, rows, columns)
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        (x,) = ctx.saved
        (dim,) = ctx.attrs
        if not K.takes(grad, x):
            return NotImplemented
        grad, x = K.dense(grad), K.dense(x)
        dx = K.empty_like(x)
        rows, columns = math.prod(grad.shape[:dim]), math.prod(grad.shape[dim:])
        K.rows("glu_backward", x.dtype, rows, columns, grad, x, dx, rows, columns)
        return (dx,)


def _halves(x: Any, dim: int) -> tuple[Any, Any]:
    before, n = (slice(None),) * dim, x.shape[dim] // 2
    return x[(*before, slice(n))], x[(*before, slice(n, None))]


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
    return apply1(Glu, input, wrap_dim(dim, input.array.ndim))
