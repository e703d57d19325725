"""The arrays and functions of the stand-in for CuPy.

The arrays wrap NumPy's without being NumPy arrays, and refuse what CuPy refuses: NumPy arrays
and lists in ufuncs, silent conversion to NumPy, keywords and ufunc methods CuPy lacks. Results
of reductions and of indexing with integers are 0-d arrays, as in CuPy.
"""

from __future__ import annotations

import importlib.machinery
import types
from typing import Any

import numpy as np

from tests.cupy_stand_in.runtime import Device, current, get_allocator

# Public names of NumPy that CuPy 14 does not have.
MISSING = set(
    """bmat block char core ctypeslib datetime64 einsum_path emath errstate f2py frompyfunc
    geomspace get_include getbufsize geterr geterrcall histogram_bin_edges info insert isnat ma
    matrix matvec memmap nanpercentile nanquantile ndenumerate nditer nested_iters polyder polydiv
    polyint rec recarray seterr setbufsize seterrcall spacing strings test timedelta64 typecodes
    unstack vecdot vecmat void""".split()
)
REFUSED = {"where", "initial", "subok", "like"}
ACCUMULATE = {"add", "multiply"}
AT = {"add", "maximum", "minimum"}
AT_DTYPES = {"int32", "uint32", "uint64", "float16", "float32", "float64"}
HOST = {"asarray", "array", "ascontiguousarray", "asfortranarray"}
NO_LAUNCH = {"empty", "empty_like"}
# While a test has put lists here: the names of the calls that would launch kernels or copy from
# the host, and of those that wait for the device and read from it.
calls: list[str] | None = None
reads: list[str] | None = None


class Flags:
    """``cupy.ndarray.flags``, which knows three of NumPy's flags."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata = flags.owndata


class Memory(np.ndarray):
    """The bytes that an array of the device lies in."""


def placed(like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array with that shape, dtype and order where CuPy's pool puts one: at 512 times n."""
    memory = Memory((like.nbytes + 512,), np.uint8)
    start = -memory.ctypes.data % 512
    return np.ndarray(like.shape, like.dtype, memory, start, like.strides)


class Array:
    """``cupy.ndarray``."""

    __slots__ = ("host", "device", "memory", "__weakref__")
    __hash__ = None  # type: ignore[assignment]
    __array_priority__ = 100

    def __init__(
        self,
        shape: Any,
        dtype: Any = float,
        memptr: Any = None,
        strides: Any = None,
        order: str = "C",
    ) -> None:
        self.device = Device()
        if memptr is None:
            self.host = placed(np.empty(shape, dtype, order))
            self.memory = get_allocator()(self.host.nbytes)
        else:
            self.host = np.ndarray(shape, dtype, memptr.mem.buffer, memptr.offset, strides)
            self.memory = memptr

    # -- to and from the host
    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> np.ndarray[Any, Any]:
        _read("get")
        if out is None:
            return self.host.copy()
        if out.dtype != self.host.dtype or out.shape != self.host.shape:
            raise ValueError("Shape mismatch")
        out[...] = self.host
        return out  # type: ignore[no-any-return]

    def set(self, array: Any, stream: Any = None) -> None:
        if not isinstance(array, np.ndarray):
            raise TypeError("Only numpy.ndarray can be set to cupy.ndarray")
        if array.dtype != self.host.dtype:
            raise TypeError(f"{array.dtype} array cannot be set to {self.host.dtype} array")
        if array.shape != self.host.shape:
            raise ValueError("Shape mismatch")
        _launched("set")  # which goes to the device of the array by itself
        self.host[...] = array

    def __array__(self, *args: Any, **kwargs: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. Please use `.get()` to "
            "construct a NumPy array explicitly."
        )

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {**self.host.__array_interface__, "version": 3}

    # -- NumPy's functions on this array, as CuPy takes them over
    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kwargs: Any) -> Any:
        ours = getattr(MODULE, ufunc.__name__, None)
        if ours is None or any(isinstance(x, np.ndarray) for x in inputs):
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        return getattr(ours, method)(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        place = MODULE
        for part in func.__module__.split(".")[1:]:
            place = getattr(place, part, place)
        ours = getattr(place, func.__name__, None)
        if ours is None or not all(issubclass(t, (Array, np.ndarray)) for t in types):
            return NotImplemented
        return ours(*args, **kwargs)

    # -- attributes
    shape = property(lambda self: self.host.shape)
    dtype = property(lambda self: self.host.dtype)
    ndim = property(lambda self: self.host.ndim)
    size = property(lambda self: self.host.size)
    itemsize = property(lambda self: self.host.itemsize)
    nbytes = property(lambda self: self.host.nbytes)
    strides = property(lambda self: self.host.strides)
    flags = property(lambda self: Flags(self.host.flags))
    T = property(lambda self: _wrap(self.host.T, self))
    mT = property(lambda self: _wrap(self.host.mT, self))  # noqa: N815
    real = property(lambda self: _wrap(self.host.real, self))
    base = property(lambda self: None if isinstance(self.host.base, Memory) else self)
    data = property(lambda self: types.SimpleNamespace(ptr=self.host.ctypes.data))

    # -- elements
    def __getitem__(self, key: Any) -> Array:
        inside = _key(key)
        found = self.host[inside]
        if not isinstance(found, np.ndarray):  # CuPy gives a view where NumPy gives a scalar
            found = self.host[(*inside, ...) if isinstance(inside, tuple) else (inside, ...)]
        return _computed("getitem", found, self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if isinstance(value, (list, tuple)):
            raise TypeError("a list cannot be assigned to a cupy.ndarray")
        _launched("setitem", self, key, value)
        self.host[_key(key)] = _host(value)

    def __len__(self) -> int:
        return len(self.host)

    def __iter__(self) -> Any:
        return (self[i] for i in range(len(self.host)))

    def __bool__(self) -> bool:
        _read("bool")
        return bool(self.host)

    def __int__(self) -> int:
        _read("int")
        return int(self.host)

    def __float__(self) -> float:
        _read("float")
        return float(self.host)

    def __index__(self) -> int:
        _read("index")
        return self.host.__index__()

    def __repr__(self) -> str:
        return repr(self.host)

    def __format__(self, spec: str) -> str:
        return format(self.host, spec)

    def __copy__(self) -> Array:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Array:
        return self.copy()

    def item(self, *args: Any) -> Any:
        _read("item")
        return self.host.item(*args)

    def tolist(self) -> Any:
        _read("tolist")
        return self.host.tolist()

    def tobytes(self, *args: Any) -> bytes:
        _read("tobytes")
        return self.host.tobytes(*args)


def _read(name: str) -> None:
    if reads is not None:
        reads.append(name)


def _launched(name: str, *values: Any) -> None:
    """Note a call that launches a kernel; RuntimeError unless its arrays are where it runs."""
    if calls is not None and name not in NO_LAUNCH:
        calls.append(name)
    for value in values:
        if isinstance(value, Array):
            if value.device.id != current[0] and name != "copy":
                raise RuntimeError(
                    f"{name}: the device where the array resides ({value.device.id}) is different "
                    f"from the current device ({current[0]})."
                )
        elif isinstance(value, (list, tuple)):
            _launched("empty", *value)


def _is_view(host: Any, like: Any) -> bool:
    return (
        like is not None
        and isinstance(host, np.ndarray)
        and host.base is not None
        and np.may_share_memory(host, like.host)
    )


def _computed(name: str, result: Any, like: Any, *values: Any) -> Any:
    """A result of a function of NumPy as CuPy would hand it out."""
    first = result[0] if isinstance(result, (list, tuple)) and result else result
    if not _is_view(first, like):
        _launched(name, like, *values)
    return _wrap(result, like)


def _wrap(result: Any, like: Any = None) -> Any:
    """A result of NumPy as CuPy would hand it out."""
    if isinstance(result, (np.ndarray, np.generic)):
        array = object.__new__(Array)
        array.host = host = np.asarray(result)
        if _is_view(host, like):
            array.device, array.memory = like.device, like.memory
        else:
            array.host = placed(np.empty_like(host, subok=False))
            array.host[...] = host
            array.device, array.memory = Device(), get_allocator()(host.nbytes)
        return array
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(_wrap(r, like) for r in result))
    if isinstance(result, (list, tuple)):
        return type(result)(_wrap(r, like) for r in result)
    return result


def _host(value: Any) -> Any:
    """An argument as NumPy takes it; TypeError for what CuPy refuses."""
    if isinstance(value, Array):
        return value.host
    if isinstance(value, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(value, (list, tuple)):
        return type(value)(_host(v) for v in value)
    return value


def _key(key: Any) -> Any:
    """An index; CuPy copies NumPy arrays in it to the device."""
    if isinstance(key, tuple):
        return tuple(_key(k) for k in key)
    return key.host if isinstance(key, Array) else key


def _first(args: Any) -> Any:
    for value in args:
        if isinstance(value, Array):
            return value
        if isinstance(value, (list, tuple)):
            found = _first(value)
            if found is not None:
                return found
    return None


def _check(name: str, kwargs: dict[str, Any]) -> None:
    for key in kwargs:
        if key in REFUSED or (name == "take" and key == "mode"):
            raise TypeError(f"{name}() got an unexpected keyword argument '{key}'")
    if kwargs.get("kind") not in (None, "stable"):
        raise ValueError(f"{name}: CuPy knows only stable sorting")


def _function(function: Any, name: str) -> Any:
    def call(*args: Any, **kwargs: Any) -> Any:
        _check(name, kwargs)
        if name in HOST:
            given = args[0].host if isinstance(args[0], Array) else args[0]
            like = _first(args)
            if isinstance(given, (list, tuple)):
                given = _host(given)
            elif isinstance(given, np.ndarray) and like is None:
                given = given.copy()  # what was on the host does not share its memory
            if like is not None and kwargs.get("copy") is False:
                kwargs = {**kwargs, "copy": None}
            elif kwargs.get("copy") is False:
                kwargs = {**kwargs, "copy": None}
            result = function(given, *args[1:], **kwargs)
            if like is not None and result is like.host:
                return like
            return _computed(name, result, like)
        like = _first(args)
        if name in ("sort", "argsort"):
            kwargs["kind"] = "stable"
        result = function(*_host(args), **{k: _host(v) for k, v in kwargs.items()})
        if name == "diagonal":
            result.flags.writeable = True
        out = kwargs.get("out")
        if out is not None:
            _launched(name, args, out)
            return out
        return _computed(name, result, like, args)

    call.__name__ = name
    return call


class Ufunc:
    """A ufunc that takes arrays of the device and scalars."""

    def __init__(self, ufunc: Any) -> None:
        self.ufunc, self.__name__ = ufunc, ufunc.__name__
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
        _launched(self.__name__, args, out)
        result = self.ufunc(*(_host(a) for a in args), **kwargs)
        return out if out is not None else _wrap(result, _first(args))

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        if self.__name__ not in AT:
            raise NotImplementedError(f"`{self.__name__}.at` is not supported yet")
        if a.dtype.name not in AT_DTYPES:
            raise TypeError(f"cupy.{self.__name__}.at does not support {a.dtype}")
        _launched(f"{self.__name__}.at", a, indices, b)
        self.ufunc.at(a.host, _key(indices), _host(b))

    def reduce(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None,
               keepdims: bool = False) -> Any:  # fmt: skip
        if self.__name__ not in ACCUMULATE:
            raise NotImplementedError(f"`{self.__name__}.reduce` is not supported yet")
        _launched(f"{self.__name__}.reduce", array)
        return _wrap(self.ufunc.reduce(_host(array), axis, dtype, None, keepdims), array)

    def accumulate(self, array: Any, axis: Any = 0, dtype: Any = None, out: Any = None) -> Any:
        if self.__name__ not in ACCUMULATE:
            raise NotImplementedError(f"`{self.__name__}.accumulate` is not supported yet")
        _launched(f"{self.__name__}.accumulate", array, out)
        result = self.ufunc.accumulate(_host(array), axis, dtype, _host(out))
        return out if out is not None else _wrap(result, array)

    def outer(self, a: Any, b: Any) -> Any:
        _launched(f"{self.__name__}.outer", a, b)
        return _wrap(self.ufunc.outer(_host(a), _host(b)), a)


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
            found = _function(found, name)
        setattr(self, name, found)
        return found


def _method(name: str) -> Any:
    def method(self: Array, *args: Any, **kwargs: Any) -> Any:
        _check(name, kwargs)
        if name in ("sort", "argsort"):
            kwargs["kind"] = "stable"
        result = getattr(self.host, name)(*_host(args), **{k: _host(v) for k, v in kwargs.items()})
        out = kwargs.get("out")
        if out is not None or result is None:
            _launched(name, self, args, out)
            return out
        if name == "diagonal":
            result.flags.writeable = True
        return self if result is self.host else _computed(name, result, self, args)

    method.__name__ = name
    return method


for _name in """all any argmax argmin argpartition argsort astype clip compress copy cumprod cumsum
    diagonal dot fill flatten max mean min nonzero partition prod put ravel repeat reshape round
    searchsorted sort squeeze std sum swapaxes take trace transpose var view""".split():
    setattr(Array, _name, _method(_name))

MODULE: Any = Namespace("cupy", np)
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
