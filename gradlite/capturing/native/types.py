"""C++ types and expressions for NumPy's dtypes and functions of elements."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np

CTYPES = {
    "float16": "_Float16",
    "bfloat16": "bfloat16_t",
    "float32": "float",
    "float64": "double",
    "int8": "i8",
    "int16": "i16",
    "int32": "int",
    "int64": "i64",
    "uint8": "u8",
    "uint16": "u16",
    "uint32": "u32",
    "uint64": "u64",
    "bool": "bool",
}

HALVES = ("float16", "bfloat16")  # computed in float


@cache  # asked for tens of thousands of times, and NumPy puts the name together every time
def named(dtype: np.dtype[Any]) -> str:
    """The name of a dtype."""
    return dtype.name


# Ufuncs of elements: their value from operands of the loop's type T.
EXPRESSIONS = {
    "positive": "{0}",
    "add": "{0} + {1}",
    "subtract": "{0} - {1}",
    "multiply": "{0} * {1}",
    "divide": "{0} / {1}",
    "negative": "-{0}",
    "square": "{0} * {0}",
    "reciprocal": "{T}(1) / {0}",
    "maximum": "f_max({0}, {1})",
    "minimum": "f_min({0}, {1})",
    "clip": "f_clip({0}, {1}, {2})",
    "exp": "f_exp({0})",
    "expm1": "f_expm1({0})",
    "log": "f_log({0})",
    "log1p": "f_log1p({0})",
    "tanh": "f_tanh({0})",
    "sin": "f_sin({0})",
    "cos": "f_cos({0})",
    "sqrt": "f_sqrt({0})",
    "absolute": "f_abs({0})",
    "fabs": "f_abs({0})",
    "sign": "f_sign({0})",
    "floor": "f_floor({0})",
    "ceil": "f_ceil({0})",
    "rint": "f_rint({0})",
    "trunc": "f_trunc({0})",
    "copysign": "f_copysign({0}, {1})",
    "power": "f_pow({0}, {1})",
    "less": "{0} < {1}",
    "less_equal": "{0} <= {1}",
    "greater": "{0} > {1}",
    "greater_equal": "{0} >= {1}",
    "equal": "{0} == {1}",
    "not_equal": "{0} != {1}",
    "isnan": "{0} != {0}",
    "isfinite": "f_isfinite({0})",
    "logical_and": "({0} != 0) && ({1} != 0)",
    "logical_or": "({0} != 0) || ({1} != 0)",
    "logical_not": "{0} == 0",
    "bitwise_and": "{0} & {1}",
    "bitwise_or": "{0} | {1}",
    "bitwise_xor": "{0} ^ {1}",
    "right_shift": "{0} >> {1}",
    "left_shift": "{0} << {1}",
    "invert": "f_invert({0})",
    "logical_xor": "({0} != 0) != ({1} != 0)",
    "remainder": "f_remainder({0}, {1})",
    "floor_divide": "f_floor_divide({0}, {1})",
    "fmod": "f_fmod({0}, {1})",
    "fmax": "f_fmax({0}, {1})",
    "fmin": "f_fmin({0}, {1})",
    "isinf": "f_isinf({0})",
    "signbit": "f_signbit({0})",
    "tan": "f_tan({0})",
    "arcsin": "f_asin({0})",
    "arccos": "f_acos({0})",
    "arctan": "f_atan({0})",
    "sinh": "f_sinh({0})",
    "cosh": "f_cosh({0})",
    "arcsinh": "f_asinh({0})",
    "arccosh": "f_acosh({0})",
    "arctanh": "f_atanh({0})",
    "exp2": "f_exp2({0})",
    "log2": "f_log2({0})",
    "log10": "f_log10({0})",
    "arctan2": "f_atan2({0}, {1})",
    "hypot": "f_hypot({0}, {1})",
    "logaddexp": "f_logaddexp({0}, {1})",
}
# These exist for floats alone.
OF_FLOATS = frozenset(
    "reciprocal exp expm1 log log1p tanh sin cos sqrt fabs floor ceil rint trunc copysign power "
    "divide isfinite isinf signbit tan arcsin arccos arctan sinh cosh arcsinh arccosh arctanh "
    "exp2 log2 log10 arctan2 hypot logaddexp".split()
)


def loop_dtypes(ufunc: np.ufunc, operands: list[Any], out: np.dtype[Any]) -> Any:
    """The dtypes in which NumPy runs a ufunc's loop, or None when it is none of ours."""
    if ufunc.__name__ not in EXPRESSIONS or ufunc.nout != 1:
        return None
    kinds = [
        type(o) if o.__class__ in (bool, int, float) else o.dtype if hasattr(o, "dtype") else None
        for o in operands
    ]
    if any(kind is None for kind in kinds):  # dtype("float64") == None
        return None
    return _resolved(ufunc, tuple(kinds))


@cache
def _resolved(ufunc: np.ufunc, kinds: tuple[Any, ...]) -> Any:
    try:
        found = ufunc.resolve_dtypes((*kinds, None))
    except (TypeError, ValueError):
        return None
    if any(d.name not in CTYPES for d in found):
        return None
    if ufunc.__name__ in OF_FLOATS and any(d.kind not in "fV" for d in found[:-1]):
        return None
    if ufunc.__name__ in ("add", "multiply", "subtract") and found[0].kind == "b":
        return None  # logical operations under arithmetic names
    return found


def computing(dtype: np.dtype[Any]) -> str:
    """The C++ type in which values of a dtype are computed: half precision in single."""
    name = named(dtype)
    return "float" if name in HALVES else CTYPES[name]


def literal(value: Any, dtype: np.dtype[Any]) -> str:
    """A number as a C++ expression of a dtype's computing type."""
    kind = computing(dtype)
    number = dtype.type(value)
    if dtype.kind in "fV":
        number = float(number)
        if number != number:
            return f'({kind})(__builtin_nan(""))'
        if number in (float("inf"), float("-inf")):
            return f"({kind})({'-' if number < 0 else ''}__builtin_inf())"
        return f"({kind})({number.hex()})"
    if dtype.kind == "b":
        return "true" if number else "false"
    text = int(number)
    return f"({kind})({text}ll)" if text != -(1 << 63) else f"{kind}(-9223372036854775807ll - 1)"
