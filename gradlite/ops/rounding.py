"""Rounding and other step functions, whose gradient is 0."""

from __future__ import annotations

from typing import Any

from gradlite.ops import elements_compiled
from gradlite.ops.dispatch import apply1
from gradlite.ops.op import Elementwise
from gradlite.ops.operands import check_floating
from gradlite.ops.pointwise import value
from gradlite.ops.samples import S, distinct, unary
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "ceil",
    "fix",
    "floor",
    "frac",
    "round",
    "sign",
    "trunc",
]


class Flat(Elementwise):
    """Base of the step functions: their gradient is 0 everywhere."""

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad),)


class Sign(Flat):
    fused_forward = value("sign")

    def forward(xp: Any, x: Any) -> Any:
        if x.dtype.kind == "b":
            return x.copy()
        made = elements_compiled.made(xp, "sign", x)
        if made is not None:
            return made
        out = xp.sign(x)
        # NumPy keeps NaNs, PyTorch gives 0.
        return out if x.dtype.kind in "iu" else xp.where(out == out, out, out.dtype.type(0))


class Floor(Flat):
    def forward(xp: Any, x: Any) -> Any:
        return xp.floor(x) if x.dtype.kind == "f" else x.copy()


class Ceil(Flat):
    def forward(xp: Any, x: Any) -> Any:
        return xp.ceil(x) if x.dtype.kind == "f" else x.copy()


class Trunc(Flat):
    def forward(xp: Any, x: Any) -> Any:
        return xp.trunc(x) if x.dtype.kind == "f" else x.copy()


class Round(Flat):
    """To the nearest integer (or decimal place), halves to the even one."""

    def forward(xp: Any, x: Any, decimals: int) -> Any:
        return xp.round(x, decimals) if x.dtype.kind == "f" else x.copy()


def _refuse_bools(kernel: str, input: Tensor) -> None:
    if input.array.dtype.kind == "b":
        raise NotImplementedError(f"\"{kernel}\" not implemented for 'Bool'")


@public(samples=lambda: unary(), method=True, inplace=True)
def sign(input: Tensor) -> Tensor:
    """-1, 0 or 1 by the sign of each element; the gradient is 0.

    >>> import gradlite
    >>> gradlite.sign(gradlite.tensor([3.0, -2.0, 0.0]))
    tensor([ 1., -1.,  0.])
    """
    return apply1(Sign, input)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def floor(input: Tensor) -> Tensor:
    """The largest integer not above each element; the gradient is 0.

    >>> import gradlite
    >>> gradlite.floor(gradlite.tensor([1.5, -1.5]))
    tensor([ 1., -2.])
    """
    _refuse_bools("floor_vml_cpu", input)
    return apply1(Floor, input)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def ceil(input: Tensor) -> Tensor:
    """The smallest integer not below each element; the gradient is 0.

    >>> import gradlite
    >>> gradlite.ceil(gradlite.tensor([1.5, -1.5]))
    tensor([ 2., -1.])
    """
    _refuse_bools("ceil_vml_cpu", input)
    return apply1(Ceil, input)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def trunc(input: Tensor) -> Tensor:
    """Each element without its fraction; the gradient is 0.

    >>> import gradlite
    >>> gradlite.trunc(gradlite.tensor([1.5, -1.5]))
    tensor([ 1., -1.])
    """
    _refuse_bools("trunc_vml_cpu", input)
    return apply1(Trunc, input)


@public(samples=lambda: [*unary(distinct), S(distinct(4), decimals=1)], method=True, inplace=True)
def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """To the nearest integer, halves to the even one; the gradient is 0.

    >>> import gradlite
    >>> gradlite.round(gradlite.tensor([0.5, 1.5, 2.4]))
    tensor([0., 2., 2.])
    """
    _refuse_bools("round_vml_cpu", input)
    return apply1(Round, input, decimals)


@public(samples=lambda: unary(distinct), method=True, inplace=True)
def frac(input: Tensor) -> Tensor:
    """The fraction of each element, with its sign.

    >>> import gradlite
    >>> gradlite.frac(gradlite.tensor([1.5, -1.25]))
    tensor([ 0.5000, -0.2500])
    """
    check_floating("frac_cpu", input)
    return input - input.trunc()


def _attach() -> None:
    t: Any = Tensor
    t.fix, t.fix_ = trunc, t.trunc_


_attach()
fix = trunc
