"""NumPy's functions on Tensors: ``np.exp(t)``, ``array + t``, ``array @ t``, ``np.sum(t, axis=0)``.

A ufunc that has a counterpart among the ops runs as that op, so its result is a Tensor that
gradients flow through, on whichever side the Tensor stands. Other ufuncs compute on the array
of a Tensor that requires no grad, and hand back a Tensor; one that requires grad refuses, since
its gradient would be lost. Reductions run as ops too; NumPy's other functions call what they
always do: a method of the Tensor, or its array.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import (
    arithmetic,
    bivariate,
    comparison,
    cumulative,
    elementwise,
    extrema,
    logic,
    powers,
    reduce,
    rounding,
    statistics,
    trigonometry,
    truth,
)
from gradlite.ops.matmul import matmul
from gradlite.ops.operands import promoted
from gradlite.tensor import Tensor, wrap

# By the ufunc's own name; the aliases np.divide, np.mod, np.abs, np.radians carry those.
NUMBERS_TOO: dict[str, Callable[..., Any]] = {
    "add": arithmetic.add,
    "subtract": arithmetic.sub,
    "multiply": arithmetic.mul,
    "divide": arithmetic.div,
    "true_divide": arithmetic.div,
    "power": powers.pow,
    "float_power": bivariate.float_power,
    "floor_divide": arithmetic.floor_divide,
    "remainder": arithmetic.remainder,
    "fmod": bivariate.fmod,
    "equal": comparison.eq,
    "not_equal": comparison.ne,
    "less": comparison.lt,
    "less_equal": comparison.le,
    "greater": comparison.gt,
    "greater_equal": comparison.ge,
    "bitwise_and": logic.bitwise_and,
    "bitwise_or": logic.bitwise_or,
    "bitwise_xor": logic.bitwise_xor,
    "copysign": bivariate.copysign,
}
# With a number on the left, as Python's operators do it.
REFLECTED = {"subtract": "__rsub__", "divide": "__rtruediv__", "power": "__rpow__"}
TENSORS_ONLY: dict[str, Callable[..., Any]] = {
    "maximum": arithmetic.maximum,
    "minimum": arithmetic.minimum,
    "fmax": bivariate.fmax,
    "fmin": bivariate.fmin,
    "arctan2": bivariate.atan2,
    "hypot": bivariate.hypot,
    "logaddexp": bivariate.logaddexp,
    "logaddexp2": bivariate.logaddexp2,
    "logical_and": logic.logical_and,
    "logical_or": logic.logical_or,
    "logical_xor": logic.logical_xor,
    "logical_not": logic.logical_not,
    "invert": logic.bitwise_not,
    "isnan": logic.isnan,
    "isinf": logic.isinf,
    "isfinite": logic.isfinite,
    "exp": elementwise.exp,
    "exp2": elementwise.exp2,
    "expm1": elementwise.expm1,
    "log": elementwise.log,
    "log2": elementwise.log2,
    "log10": elementwise.log10,
    "log1p": elementwise.log1p,
    "sqrt": elementwise.sqrt,
    "square": elementwise.square,
    "reciprocal": elementwise.reciprocal,
    "negative": elementwise.neg,
    "positive": elementwise.positive,
    "absolute": elementwise.abs,
    "fabs": elementwise.abs,
    "sign": rounding.sign,
    "floor": rounding.floor,
    "ceil": rounding.ceil,
    "trunc": rounding.trunc,
    "rint": rounding.round,
    "deg2rad": trigonometry.deg2rad,
    "radians": trigonometry.deg2rad,
    "rad2deg": trigonometry.rad2deg,
    "degrees": trigonometry.rad2deg,
    **{
        name: getattr(trigonometry, name)
        for name in ("sin", "cos", "tan", "sinh", "cosh", "tanh", "arcsin", "arccos", "arctan",
                     "arcsinh", "arccosh", "arctanh")
    },
}  # fmt: skip


def array_ufunc(self: Tensor, ufunc: Any, method: str, *inputs: Any, **options: Any) -> Any:
    """What NumPy calls for ``ufunc(*inputs)`` when an input is a Tensor.

    >>> import numpy as np
    >>> import gradlite
    >>> t = gradlite.tensor([1.0, 4.0], requires_grad=True)
    >>> np.sqrt(t)
    tensor([1., 2.], grad_fn=<SqrtBackward0>)
    >>> np.array([2.0, 3.0], dtype=np.float32) * t
    tensor([ 2., 12.], grad_fn=<MulBackward0>)

    Raises:
        TypeError: ``where=``, or ``out=`` other than NumPy arrays.
        RuntimeError: the ufunc has no op, and a Tensor requires grad.
    """
    if options.get("where", True) is not True:
        raise TypeError(f"numpy.{ufunc.__name__} of a Tensor does not take where=")
    out = options.get("out")
    if out is not None and any(isinstance(o, Tensor) for o in out):
        raise TypeError(
            f"numpy.{ufunc.__name__} cannot write into a Tensor with out=; use the Tensor's own "
            "methods, such as copy_"
        )
    if method == "__call__" and not options:
        name = ufunc.__name__
        if name in NUMBERS_TOO:
            first, second = map(_operand, inputs)
            if name in REFLECTED and not isinstance(first, Tensor):
                return getattr(second, REFLECTED[name])(first)
            return NUMBERS_TOO[name](first, second)
        if name in TENSORS_ONLY:
            return TENSORS_ONLY[name](*map(_tensor, inputs))
        if name == "matmul":
            return matmul(*promoted(*map(_tensor, inputs)))
    arrays = [i.numpy() if isinstance(i, Tensor) else i for i in inputs]
    result = getattr(ufunc, method)(*arrays, **options)
    if out is not None:
        return result
    return tuple(map(_as_tensor, result)) if isinstance(result, tuple) else _as_tensor(result)


def _operand(value: Any) -> Any:
    """A Tensor or a number as it is; anything else that NumPy takes as a Tensor."""
    if isinstance(value, np.generic):
        return value.item()
    return value if isinstance(value, (Tensor, int, float)) else _tensor(value)


def _tensor(value: Any) -> Tensor:
    if isinstance(value, Tensor):
        return value
    array = np.asarray(value)
    dtypes.from_numpy_dtype(array.dtype)
    return wrap(array)


def _as_tensor(result: Any) -> Any:
    """A result of NumPy's as a Tensor, when there is a dtype for it."""
    if not isinstance(result, (np.ndarray, np.generic)):
        return result
    try:
        dtypes.from_numpy_dtype(result.dtype)
    except TypeError:
        return result
    return wrap(result)


def array_wrap(self: Tensor, array: Any, context: Any = None, return_scalar: bool = False) -> Any:
    """What NumPy's other functions call on a result: ``np.clip(t, 0, 1)`` is a Tensor too."""
    return _as_tensor(array)


# NumPy's reductions, by the functions themselves.
REDUCTIONS: dict[Any, Any] = {
    getattr(np, name): op
    for name, op in {
        "sum": reduce.sum, "mean": reduce.mean, "prod": cumulative.prod, "all": truth.all,
        "any": truth.any, "max": extrema.amax, "amax": extrema.amax, "min": extrema.amin,
        "amin": extrema.amin, "std": statistics.std, "var": statistics.var,
    }.items()
}  # fmt: skip


def array_function(
    self: Tensor, function: Any, types: Any, args: tuple[Any, ...], kwargs: dict[str, Any]
) -> Any:
    """What NumPy calls for its functions, when an argument is a Tensor.

    >>> import numpy as np
    >>> import gradlite
    >>> t = gradlite.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    >>> np.sum(t, axis=0)
    tensor([4., 6.], grad_fn=<SumBackward1>)

    Raises:
        TypeError: a reduction with an argument that the op does not take, such as ``where=``.
    """
    op = REDUCTIONS.get(function)
    if op is None:
        return function._implementation(*args, **kwargs)
    given = dict(inspect.signature(function).bind(*args, **kwargs).arguments)
    options: dict[str, Any] = {"dim": given.pop("axis", None)}
    if given.pop("keepdims", np._NoValue) is True:  # type: ignore[attr-defined]
        options["keepdim"] = True
    dtype, divisor = given.pop("dtype", None), given.pop("ddof", 0)
    if op in (statistics.std, statistics.var):
        options["correction"] = given.pop("correction", divisor)
    source, out = given.pop("a"), given.pop("out", None)
    unknown = [k for k, v in given.items() if v is not np._NoValue]  # type: ignore[attr-defined]
    if out is not None or unknown:
        raise TypeError(
            f"numpy.{function.__name__} of a Tensor does not take {(unknown or ['out'])[0]}="
        )
    source = source if dtype is None else source.to(dtypes.as_dtype(dtype))
    return op(source, **options)


def _attach() -> None:
    t: Any = Tensor
    t.__array_ufunc__, t.__array_wrap__ = array_ufunc, array_wrap
    t.__array_function__ = array_function


_attach()
