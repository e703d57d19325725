"""Operands: Python numbers, arrays and Tensors, and the dtype and device they meet on."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, TypeVar

import numpy as np

from gradlite import dtypes
from gradlite.ops import elements_compiled
from gradlite.ops.dispatch import apply, same_device
from gradlite.ops.guard import on_its_device
from gradlite.ops.layout import copy_order
from gradlite.ops.namespaces import NAMESPACES, OPS
from gradlite.ops.op import Op, type_name
from gradlite.tensor import Tensor, wrap

Function = TypeVar("Function", bound=Callable[..., Any])


class ToCopy(Op):
    """A change of dtype."""

    moves = True
    has_aux = True
    used_up = False

    def forward(xp: Any, x: Any, numpy_dtype: Any) -> Any:
        made = elements_compiled.cast(xp, x, numpy_dtype)
        return x.astype(numpy_dtype, copy_order(x)) if made is None else made, x.dtype

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.to_copy(grad, ctx.aux),)


def cast(input: Tensor, numpy_dtype: Any) -> Tensor:
    """The tensor in another dtype; itself when it has it already."""
    if input.array.dtype == numpy_dtype:
        return input
    return apply(ToCopy, (input,), np.dtype(numpy_dtype))  # type: ignore[no-any-return]


def in_single(function: Function) -> Function:
    """Let a function of several ops compute with halves in float32, and round its result once.

    For what is one kernel in PyTorch, where nothing between the steps is rounded.
    """

    @functools.wraps(function)
    def call(input: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        half = input.array.dtype if isinstance(input, Tensor) else None
        if half not in dtypes.HALVES:
            return function(input, *args, **kwargs)
        return cast(function(cast(input, np.float32), *args, **kwargs), half)

    return call  # type: ignore[return-value]


def as_number(value: Any) -> Any:
    """A Python number as it is; NumPy's scalars as Python numbers."""
    return value.item() if isinstance(value, np.generic) else value


def number_of(value: Any) -> Any:
    """A Python number, also of a 0-d tensor: a whole one as an index, which steps may record."""
    if isinstance(value, Tensor):
        return int(value) if value.array.dtype.kind in "iu" else value.item()
    return as_number(value)


def operand(value: Any) -> Any:
    """What the binary ops take besides Tensors: Python numbers and NumPy or CuPy arrays."""
    cls = value.__class__
    if cls is float or cls is int or cls is bool or isinstance(value, Tensor):
        return value
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray) or hasattr(cls, "__cuda_array_interface__"):
        dtypes.from_numpy_dtype(value.dtype)
        return wrap(value)
    if isinstance(value, (float, int)):
        return value
    raise TypeError(f"unsupported operand: expected a Tensor or a number, not {cls.__name__}")


def promoted(a: Any, b: Any, *, true_division: bool = False) -> tuple[Any, Any]:
    """Both operands in the dtype that PyTorch computes in (Python numbers stay numbers)."""
    arrays = [x.array if isinstance(x, Tensor) else x for x in (a, b)]
    common = dtypes.result_dtype(arrays)
    if true_division and dtypes.category(common) < 2:
        common = dtypes.get_default_dtype().numpy
    a = promote(a, common) if isinstance(a, Tensor) else a
    b = promote(b, common) if isinstance(b, Tensor) else b
    if not isinstance(a, Tensor):
        a = wrap(beside(b.array, fitting(a, common), common))
    elif b.__class__ is int:
        b = fitting(b, common)
    return a, b


def check_floating(kernel: str, input: Tensor) -> None:
    """Refuse the integers and bools for which PyTorch has no such kernel."""
    if input.array.dtype not in dtypes.FLOATING:
        name = type_name(input.array.dtype)
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{name}'")


def fitting(value: Any, numpy_dtype: np.dtype[Any]) -> Any:
    """A Python int that an integer dtype cannot hold as the one that it wraps around to."""
    if value.__class__ is int and numpy_dtype.kind in "iu":
        return dtypes.wrapped(value, numpy_dtype)
    return value


def filling(value: Any, numpy_dtype: np.dtype[Any], rounds: bool = False) -> Any:
    """A number as the one that fills a tensor; RuntimeError where the dtype cannot hold it.

    `rounds`: where PyTorch makes inf of what is too large for a half.
    """
    if value is True or value is False or numpy_dtype.kind == "b":
        return value
    if numpy_dtype.kind in "iu":
        if value.__class__ is int:
            dtypes.check_fits(value, value, numpy_dtype)
            return dtypes.wrapped(value, numpy_dtype)
        least, most, name = dtypes.limits(numpy_dtype)
        if not least <= value <= most:
            raise RuntimeError(f"value cannot be converted to type {name} without overflow")
        return int(value)
    if value.__class__ is int:
        dtypes.wrapped(value, _INT64)  # refused when it is larger
    if -60000 < value < 60000 or numpy_dtype.itemsize == 8:  # also float16 holds these
        return value
    _, most, name = dtypes.limits(numpy_dtype)
    if abs(value) <= most or not math.isfinite(value):
        return value
    if rounds and numpy_dtype in dtypes.HALVES:
        return math.copysign(math.inf, value)
    raise RuntimeError(f"value cannot be converted to type {name} without overflow")


_INT64 = np.dtype(np.int64)


def promote(operand: Tensor, numpy_dtype: Any) -> Tensor:
    """An operand in the dtype to compute in: what is saved of it counts as the operand itself."""
    result = cast(operand, numpy_dtype)
    result._counter = operand._counter
    return result


@on_its_device
def beside(array: Any, value: Any, dtype: Any = None) -> Any:
    """A number or an array of the host as an array on another array's device."""
    return placed(NAMESPACES[array.__class__].xp, value, dtype)


def placed(xp: Any, value: Any, dtype: Any = None) -> Any:
    """A number, or an array of any device, as an array of a library's current device."""
    if xp is not np and isinstance(value, (bool, int, float)):  # a launch, and no copy
        return xp.full((), value, np.asarray(value).dtype if dtype is None else dtype)
    return xp.asarray(value, dtype=dtype)


def same_device_or_scalar(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """Both on one device: a 0-d CPU tensor may meet a CUDA tensor, as in PyTorch."""
    if a.array.__class__ is b.array.__class__:
        return a, b
    for scalar, other in ((a, b), (b, a)):
        if scalar.array.ndim == 0 and scalar.is_cpu:
            moved = apply(OPS["to_device"], (scalar,), other.device, True)
            return (moved, b) if scalar is a else (a, moved)
    same_device(a, b)
    return a, b


def plain(value: Any) -> Any:
    value = operand(value)
    return value.array if isinstance(value, Tensor) else value
