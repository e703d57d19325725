"""Tensor's operators and in-place arithmetic: the functions of the modules beside, as methods."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.grad_mode import current_mode
from gradlite.ops import guard
from gradlite.ops.arithmetic import (
    Add,
    AddScaled,
    Div,
    Mul,
    Sub,
    SubScaled,
    add,
    div,
    floor_divide,
    mul,
    remainder,
    rsub,
    sub,
)
from gradlite.ops.binary import node_of_operand_edit
from gradlite.ops.blend import LEGACY
from gradlite.ops.comparison import eq, ge, gt, le, lt, ne
from gradlite.ops.fill import fits
from gradlite.ops.inplace import assign, check_inplace, lies_apart, rebase, refuse_overlap
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.powers import pow
from gradlite.ops.together import write
from gradlite.tensor import Tensor

LARGE = 1e4  # any floating dtype holds a number below


def _inplace(function: Any, ufunc: str, name: str) -> Any:
    """The in-place form: one ufunc with ``out=`` when nothing has to be recorded."""

    def method(self: Tensor, other: Any, *legacy: Any, **options: Any) -> Tensor:
        if legacy:
            if name not in ("add_", "sub_") or len(legacy) > 1:
                raise TypeError(
                    f"{name}() takes 1 positional argument but {1 + len(legacy)} were given"
                )
            warnings.warn(LEGACY.format(name, "alpha", "other"), stacklevel=2)
            options["alpha"], (other,) = other, legacy
        check_inplace(self)
        array = self.array
        if isinstance(other, Tensor):
            refuse_overlap(self, other)
        if (
            (not options or _is_scaled(name, array, options))
            and (current_mode() or not self.requires_grad)
            and (
                other.__class__ is float
                or other.__class__ is int
                or (
                    isinstance(other, Tensor)
                    and other.array.dtype == array.dtype
                    and other.array.shape == array.shape
                    and (current_mode() or not other.requires_grad)
                )
            )
            and array.dtype in dtypes.FLOATING
        ):
            value = other.array if isinstance(other, Tensor) else other
            if array.__class__ is getattr(value, "__class__", None) or value is other:
                edit = getattr(NAMESPACES[array.__class__].xp, ufunc)
                if options:
                    value = value * options["alpha"]
                if guard.several is None:
                    edit(array, value, out=array)
                else:
                    with guard.several.on(array, value):
                        edit(array, value, out=array)
                self._bump()
                return self
        if array.__class__ is not np.ndarray and _edited(self, name, ufunc, other, options):
            return self
        return assign(self, function(self, other, **options))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place version of `{function.__name__}`."
    return method


# Whose rules may be asked for a node before the edit; with ``alpha``, those behind.
_OPS: dict[str, tuple[Any, Any]] = {
    "add_": (Add, AddScaled), "sub_": (Sub, SubScaled), "mul_": (Mul, None), "div_": (Div, None),
}  # fmt: skip


def _edited(self: Tensor, name: str, ufunc: str, other: Any, options: dict[str, Any]) -> bool:
    """Edit an array of a GPU by one launch, which `assign` needs a copy more for.

    False, and nothing is done: an operand is of another dtype or device, or shares its memory, or
    the rule of what has to be recorded reads the values that are written over.
    """
    plain, scaled = _OPS.get(name, (None, None))
    alpha: Any = options.get("alpha")
    op = scaled if options else plain
    if op is None or len(options) > 1 or (options and alpha.__class__ not in (int, float)):
        return False
    array, value = self.array, other
    floating = array.dtype in dtypes.FLOATING
    if isinstance(other, Tensor):
        value = other.array
        if value.__class__ is not array.__class__ or value.dtype != array.dtype:
            return False
        if value.shape != array.shape and not fits(value.shape, array.shape):
            return False
        if other is self:
            return False
    elif other.__class__ is not int and (other.__class__ is not float or not floating):
        return False
    elif options:
        return False
    elif not floating and (array.dtype.char not in "ilq" or not -LARGE < other < LARGE):
        return False  # what no element can hold wraps around, which array libraries refuse
    if not floating and (name == "div_" or options or array.dtype.kind not in "iu"):
        return False
    node = None
    if current_mode() == 0 and (self.requires_grad or getattr(other, "requires_grad", False)):
        if not lies_apart(self, (value,)):
            return False
        node = node_of_operand_edit(op, self, other, (alpha,) if options else ())
        if node is None:
            return False
    F = NAMESPACES[array.__class__]
    with guard.on(array, value):
        if options:
            alpha = float(-alpha if name == "sub_" else alpha)
            if F.launcher is None or (
                write(F.launcher, "add_scaled_forward", array, (value,), alpha) is NotImplemented
            ):
                return False
        else:
            getattr(F.xp, ufunc)(array, value, out=array)
    self._bump()
    if node is not None:
        rebase(self, node)
    return True


def _is_scaled(name: str, array: Any, options: dict[str, Any]) -> bool:
    """Whether an edit has an ordinary ``alpha`` alone, and NumPy computes in its dtype."""
    alpha = options.get("alpha")
    return (
        name in ("add_", "sub_")
        and len(options) == 1
        and alpha.__class__ in (int, float)
        and -LARGE < alpha < LARGE
        and isinstance(array, np.ndarray)
        and array.dtype.char in "fd"
    )


def _operators() -> None:
    """Give Tensor its operators; the functions above are the methods themselves."""
    t: Any = Tensor
    for function, ufunc in (
        (add, "add"),
        (sub, "subtract"),
        (mul, "multiply"),
        (div, "true_divide"),
        (pow, "power"),
        (remainder, "remainder"),
        (floor_divide, "floor_divide"),
    ):
        setattr(t, f"{function.__name__}_", _inplace(function, ufunc, f"{function.__name__}_"))
    t.__add__, t.__iadd__ = _operator(add), t.add_
    t.__radd__ = _operator(add)
    t.__sub__, t.__isub__, t.__rsub__ = _operator(sub), t.sub_, _operator(rsub)
    t.__mul__, t.__imul__ = _operator(mul), t.mul_
    t.__rmul__ = _operator(mul)
    t.__truediv__, t.__itruediv__ = _operator(div), t.div_
    t.__rtruediv__ = _operator(lambda self, other: self.reciprocal() * other)
    t.__pow__, t.__ipow__ = _operator(pow), t.pow_
    t.__rpow__ = _operator(_swapped(pow))
    t.__mod__, t.__imod__ = _operator(remainder), t.remainder_
    t.__rmod__ = _operator(_swapped(remainder))
    t.__floordiv__, t.__ifloordiv__ = _operator(floor_divide), t.floor_divide_
    t.__rfloordiv__ = _operator(_swapped(floor_divide))
    t.__eq__, t.__ne__ = _comparison(eq), _comparison(ne)
    t.__lt__, t.__le__, t.__gt__, t.__ge__ = map(_operator, (lt, le, gt, ge))
    t.subtract, t.multiply, t.divide, t.true_divide = sub, mul, div, div
    t.subtract_, t.multiply_, t.divide_, t.true_divide_ = t.sub_, t.mul_, t.div_, t.div_
    t.greater, t.greater_equal, t.less, t.less_equal, t.not_equal = gt, ge, lt, le, ne


def _swapped(function: Any) -> Any:
    def reflected(self: Tensor, other: Any) -> Tensor:
        return function(other, self)  # type: ignore[no-any-return]

    return reflected


def _operator(function: Any) -> Any:
    """An operator method: NotImplemented for operands that are no numbers or arrays."""

    def method(self: Tensor, other: Any) -> Any:
        try:
            return function(self, other)
        except TypeError:
            if isinstance(other, (Tensor, int, float, np.ndarray, np.generic)):
                raise
            return NotImplemented

    return method


def _comparison(function: Any) -> Any:
    """``==`` and ``!=``: anything that is no operand is simply different."""
    return _operator(function)


_operators()
