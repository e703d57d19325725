"""The functions, ufuncs and methods of the stand-in for CuPy: NumPy's on device arrays."""

from __future__ import annotations

import importlib.machinery
import types
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from tests.cupy_stand_in import arrays
from tests.cupy_stand_in.arrays import (
    ACCUMULATE,
    AT,
    HOST,
    IN_PLACE,
    MISSING,
    Array,
    _check,
    _computed,
    _first,
    _host,
    _in_place,
    _key,
    _wrapped,
)
from tests.cupy_stand_in.graphs import quiet
from tests.cupy_stand_in.runtime import (
    capturing,
    current,
    is_page_locked,
    refuse_copies,
    under_way,
)

SORTING = ("argsort", "median", "msort", "sort", "unique")


def _function(function: Any, name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        _check(name, kwargs)
        like = _first(args)
        if name == "repeat" and isinstance(args[1], Array):
            refuse_copies("D2H transfers")  # CuPy reads how often
        if name in HOST:
            if isinstance(args[0], Array) and args[0].device.id != current[0]:
                args = (args[0].copy(), *args[1:])  # to the current device
                like = args[0]
            given = args[0].host if isinstance(args[0], Array) else args[0]
            if like is None:
                refuse_copies("H2D transfers")
            if isinstance(given, (list, tuple)):
                given = _host(given)
            elif isinstance(given, np.ndarray) and like is None:
                # From page-locked memory CuPy copies while the caller goes on.
                if not kwargs.pop("blocking", False) and is_page_locked(given.ctypes.data):
                    under_way.append(given)
                given = given.copy()  # what was on the host does not share its memory
            if kwargs.get("copy") is False:
                kwargs = {**kwargs, "copy": None}
            if like is not None and function(given, *args[1:], **kwargs) is like.host:
                return like
            what = f"{name} of host" if like is None else name
            return _computed(what, lambda: function(given, *args[1:], **kwargs), like)
        if name in ("sort", "argsort"):
            kwargs["kind"] = "stable"
        inside, named = _host(args), {k: _host(v) for k, v in kwargs.items()}
        out = kwargs.get("out")
        if out is not None or name in IN_PLACE - {"sort", "partition"}:
            _in_place(name, lambda: function(*inside, **named), args, out)
            return out

        def compute() -> Any:
            result = function(*inside, **named)
            if name == "diagonal":
                result.flags.writeable = True
            return _of_bfloat16(name, result, inside)

        return _computed(name, compute, like, args)

    call.__name__ = name
    return call


LOOKED_AT = ("cholesky", "eigh", "inv", "qr", "solve", "svd")
# What CuPy does about a matrix that cuSOLVER cannot take, as in `cupyx.errstate`.
_state = ["ignore"]


@contextmanager
def errstate(*, linalg: str) -> Iterator[None]:
    """``cupyx.errstate``, as far as it is used."""
    before, _state[0] = _state[0], linalg
    try:
        yield
    finally:
        _state[0] = before


def _nans_like(results: Any) -> Any:
    if isinstance(results, tuple):
        return tuple(map(_nans_like, results))
    return np.full_like(results, np.nan)


def _unlooked_at(function: Any) -> Any:
    """A function of matrices: CuPy looks at what cuSOLVER says of them when it is asked to."""

    def call(*args: Any, **kwargs: Any) -> Any:
        a = args[0]
        try:
            return function(*args, **kwargs)
        except np.linalg.LinAlgError:
            blind = function.__name__ in ("svd", "eigh", "cholesky") and not np.isfinite(a).all()
            if _state[0] == "raise" and not blind:
                raise
            regular = np.broadcast_to(np.eye(*a.shape[-2:], dtype=a.dtype), a.shape)
            return _nans_like(function(regular, *args[1:], **kwargs))

    return call


def _halved(result: Any, operands: Any) -> Any:
    """The result in CuPy's dtype.

    ml_dtypes gives float32 for products of matrices of bfloat16, and CuPy for elements of it with
    a float of Python or NumPy.
    """
    kinds = {o.dtype for o in operands if isinstance(o, np.ndarray)}
    if [kind.name for kind in kinds] != ["bfloat16"] or isinstance(result, tuple):
        return result
    numbers = [o for o in operands if isinstance(o, (float, np.floating))]
    if result.dtype == np.float32 and not numbers:
        return result.astype(*kinds)
    return result.astype(np.float32) if numbers and result.dtype in kinds else result


def _of_bfloat16(name: str, result: Any, operands: Any) -> Any:
    """What CuPy makes of an array of bfloat16 in a function that is no ufunc."""
    halves = [o for o in operands if isinstance(o, np.ndarray) and o.dtype.name == "bfloat16"]
    if halves and name == "histogram":
        raise ValueError("Unsupported dtype (bfloat16)")
    if not halves or name not in (*SORTING, "clip", "round", "around", "tril", "triu", "where"):
        return result
    if name in SORTING:
        raise NotImplementedError("Sorting arrays with dtype 'bfloat16' is not supported")
    numbers = name != "where" or any(not isinstance(o, np.ndarray) for o in operands[1:])
    return result.astype(np.float32) if numbers else result


def _floor_divide(a: Any, b: Any, **kwargs: Any) -> Any:
    if np.result_type(a, b).kind == "f":  # which may round up to a whole number
        return np.floor(np.true_divide(a, b), **kwargs)
    return np.floor_divide(a, b, **kwargs)


def _fmod(a: Any, b: Any, **kwargs: Any) -> Any:
    kind = np.result_type(a, b)
    if kind.kind == "f":
        return np.fmod(a, b, **kwargs)
    return np.fmod(a, b, dtype=np.float64, casting="unsafe").astype(kind)


def _sinc(x: Any) -> Any:
    return np.where(np.isnan(x), x.dtype.type(1), np.sinc(x))


# What CuPy computes otherwise.
OTHERWISE: dict[str, Any] = {"floor_divide": _floor_divide, "fmod": _fmod, "sinc": _sinc}


class Ufunc:
    """A ufunc that takes arrays of the device and scalars."""

    def __init__(self, ufunc: Any) -> None:
        self.ufunc, self.__name__ = OTHERWISE.get(ufunc.__name__, ufunc), ufunc.__name__
        self.nin, self.nout = ufunc.nin, ufunc.nout

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        _check(self.__name__, kwargs)
        for value in (*args, *kwargs.values()):
            if isinstance(value, (list, np.ndarray)):
                raise TypeError(f"Unsupported type {type(value)}")
        out = kwargs.get("out")
        if isinstance(out, tuple):
            (out,) = out
        if out is not None:
            kwargs = {**kwargs, "out": _host(out)}
        elif len(args) > self.nin:
            *args, out = args  # type: ignore[assignment]
            kwargs = {**kwargs, "out": _host(out)}
        ufunc, inside = self.ufunc, [_host(a) for a in args]
        if out is None:
            return _computed(
                self.__name__, lambda: _halved(ufunc(*inside, **kwargs), inside), _first(args), args
            )
        _in_place(self.__name__, lambda: ufunc(*inside, **kwargs), args, out)
        return out

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        if self.__name__ not in AT:
            raise NotImplementedError(f"`{self.__name__}.at` is not supported yet")
        if a.dtype.name not in AT[self.__name__]:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        host, places, given = a.host, _key(indices), _host(b)

        def run() -> None:
            values = np.asarray(given).astype(a.dtype)
            if a.dtype.kind != "f" or self.__name__ == "add":
                self.ufunc.at(host, _wrapped(places, host.shape), values)
                return
            # Its atomics of float64 are fmaxf and fminf too: they round, and leave out NaN.
            wide = host.astype(np.float32)
            {"maximum": np.fmax, "minimum": np.fmin}[self.__name__].at(
                wide, places, values.astype(np.float32)
            )
            host[places] = wide[places]

        _in_place(f"{self.__name__}.at", run, a, indices, b)

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None,
               keepdims: bool = False) -> Any:  # fmt: skip
        if self.__name__ not in ACCUMULATE:
            raise NotImplementedError(f"`{self.__name__}.reduce` is not supported yet")
        name, inside = f"{self.__name__}.reduce", (_host(array), axis, dtype, None, keepdims)
        return _computed(name, lambda: self.ufunc.reduce(*inside), array)

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.__name__ not in ACCUMULATE:
            raise NotImplementedError(f"`{self.__name__}.accumulate` is not supported yet")
        name, inside = f"{self.__name__}.accumulate", (_host(array), axis, dtype, _host(out))
        if out is None:
            return _computed(name, lambda: self.ufunc.accumulate(*inside), array)
        _in_place(name, lambda: self.ufunc.accumulate(*inside), array, out)
        return out

    def outer(self, a: Any, b: Any) -> Any:
        name, inside = f"{self.__name__}.outer", (_host(a), _host(b))
        return _computed(name, lambda: self.ufunc.outer(*inside), _first((a, b)), a, b)


class Namespace(types.ModuleType):
    """A part of the library: NumPy's names, less those CuPy lacks, taking device arrays."""

    def __init__(self, name: str, source: Any) -> None:
        super().__init__(name)
        self.__spec__ = importlib.machinery.ModuleSpec(name, None)
        self._source = source

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name in MISSING:
            raise AttributeError(f"module 'cupy' has no attribute '{name}'")
        found = getattr(self._source, name)
        if isinstance(found, np.ufunc):
            found = Ufunc(found)
        elif isinstance(found, types.ModuleType):
            found = Namespace(f"{self.__name__}.{name}", found)
        elif callable(found) and not isinstance(found, type):
            if name in LOOKED_AT:
                found = _unlooked_at(found)
            found = _function(OTHERWISE.get(name, found), name)
        setattr(self, name, found)
        return found


def _method(name: str) -> Any:
    def method(self: Array, *args: Any, **kwargs: Any) -> Any:
        _check(name, kwargs)
        if name in ("sort", "argsort"):
            kwargs["kind"] = "stable"
        inside, named = _host(args), {k: _host(v) for k, v in kwargs.items()}
        if name == "take":
            named["mode"] = "wrap"
        host, out = self.host, kwargs.get("out")
        if out is not None or name in IN_PLACE:
            _in_place(name, lambda: getattr(host, name)(*inside, **named), self, args, out)
            return out

        def compute() -> Any:
            result = getattr(host, name)(*inside, **named)
            if name == "argsort" and inside and result.ndim:  # it sorts along the last dimension
                result = np.ascontiguousarray(result.swapaxes(inside[0], -1))
                result = result.swapaxes(inside[0], -1)
            if name == "diagonal":
                result.flags.writeable = True
            return _of_bfloat16(name, result, (host, *inside))

        if name in ("astype", "ravel", "reshape", "squeeze", "view"):
            with quiet() if capturing() is not None else nullcontext():
                if compute() is host:
                    return self
        return _computed(name, compute, self, args)

    method.__name__ = name
    return method


for _name in """all any argmax argmin argpartition argsort astype clip compress copy cumprod cumsum
    diagonal dot fill flatten max mean min nonzero partition prod put ravel repeat reshape round
    searchsorted sort squeeze std sum swapaxes take trace transpose var view""".split():
    setattr(Array, _name, _method(_name))

MODULE: Any = Namespace("cupy", np)
arrays.library = MODULE
MODULE.ndarray = Array
MODULE.asnumpy = lambda a: a.get() if isinstance(a, Array) else np.asarray(a)


def _operator(ufunc: Any, kind: str) -> Any:
    def forward(self: Array, other: Any) -> Any:
        return ufunc(self, other)

    def reflected(self: Array, other: Any) -> Any:
        return ufunc(other, self)

    def inplace(self: Array, other: Any) -> Any:
        return ufunc(self, other, out=self)

    return {"": forward, "r": reflected, "i": inplace}[kind]


for _name, _ufunc in {
    "add": "add", "sub": "subtract", "mul": "multiply", "truediv": "true_divide",
    "floordiv": "floor_divide", "mod": "remainder", "pow": "power", "matmul": "matmul",
    "and": "bitwise_and", "or": "bitwise_or", "xor": "bitwise_xor",
    "lshift": "left_shift", "rshift": "right_shift",
}.items():  # fmt: skip
    for _kind in ("", "r", "i"):
        setattr(Array, f"__{_kind}{_name}__", _operator(getattr(MODULE, _ufunc), _kind))
for _name, _ufunc in {"lt": "less", "le": "less_equal", "gt": "greater", "ge": "greater_equal",
                      "eq": "equal", "ne": "not_equal"}.items():  # fmt: skip
    setattr(Array, f"__{_name}__", _operator(getattr(MODULE, _ufunc), ""))
Array.__neg__ = lambda self: MODULE.negative(self)  # type: ignore[attr-defined]
Array.__pos__ = lambda self: MODULE.positive(self)  # type: ignore[attr-defined]
Array.__abs__ = lambda self: MODULE.absolute(self)  # type: ignore[attr-defined]
Array.__invert__ = lambda self: MODULE.invert(self)  # type: ignore[attr-defined]
