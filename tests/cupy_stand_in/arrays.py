"""The arrays and functions of the stand-in for CuPy.

The arrays wrap NumPy's without being NumPy arrays, and refuse what CuPy refuses: NumPy arrays
and lists in ufuncs, silent conversion to NumPy, keywords and ufunc methods CuPy lacks. Results
of reductions and of indexing with integers are 0-d arrays, as in CuPy.
"""

from __future__ import annotations

import types
from typing import Any

import numpy as np

from tests.cupy_stand_in.graphs import quiet
from tests.cupy_stand_in.runtime import (
    Device,
    MemoryPointer,
    capturing,
    current,
    get_allocator,
    refuse_copies,
)

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
# The ufuncs that have `at`, and for which dtypes: those of 14.0, for 14.1 knows int64 as well.
_ATOMIC = {"int32", "uint32", "uint64", "float32", "float64"}
AT = {"add": _ATOMIC | {"float16"}, "maximum": _ATOMIC, "minimum": _ATOMIC}
HOST = {"asarray", "array", "ascontiguousarray", "asfortranarray"}
NO_LAUNCH = {"empty", "empty_like", "may_share_memory"}
IN_PLACE = set("copyto fill fill_diagonal partition place put put_along_axis putmask sort".split())
# While a stream captures: what waits for a value, and what cuBLAS and cuSOLVER compute.
WAITING = set("argwhere bincount compress extract flatnonzero histogram nonzero unique".split())
LIBRARIES = set(
    """cholesky det dot einsum eigh eigvalsh inner inv lstsq matmul pinv qr slogdet solve svd
    tensordot vdot""".split()
)
# Whose results lie row by row, where NumPy's lie as their operands do: all ufuncs, and these.
ROW_MAJOR = {name for name in dir(np) if isinstance(getattr(np, name), np.ufunc)} | set(
    """add.reduce all amax amin any clip concatenate count_nonzero diff getitem max mean median min
    multiply.reduce nanmax nanmean nanmin nansum partition prod round sort stack std sum take tril
    triu var where""".split()
)
# While a test has put lists here: the names of the calls that would launch kernels or copy from
# the host, and of those that wait for the device and read from it.
library: Any = None  # the module, which functions.py sets
calls: list[str] | None = None
reads: list[str] | None = None


class Flags:
    """``cupy.ndarray.flags``, which knows three of NumPy's flags."""

    def __init__(self, flags: Any) -> None:
        self.c_contiguous, self.f_contiguous = flags.c_contiguous, flags.f_contiguous
        self.owndata = flags.owndata


class Memory(np.ndarray):
    """The bytes that an array of the device lies in."""


class Pointer(MemoryPointer):
    """``cupy.ndarray.data``."""

    def __init__(self, memory: Any, root: Any, ptr: int) -> None:
        super().__init__(types.SimpleNamespace(buffer=root, block=memory), 0)
        self.memory, self.root, self.ptr = memory, root, ptr

    def __add__(self, bytes: int) -> Pointer:
        return Pointer(self.memory, self.root, self.ptr + bytes)


def placed(like: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """An array with that shape, dtype and order where CuPy's pool puts one: at 512 times n."""
    memory = Memory((like.nbytes + 512,), np.uint8)
    start = -memory.ctypes.data % 512
    return np.ndarray(like.shape, like.dtype, memory, start, like.strides)


class Array:
    """``cupy.ndarray``."""

    __slots__ = ("host", "root", "device", "memory", "base", "__weakref__")
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
        self.device, self.base = Device(), None
        if memptr is None:
            self.host = self.root = placed(np.empty(shape, dtype, order))
            self.memory = get_allocator()(self.host.nbytes)
            capture = capturing()
            if capture is not None:
                capture.add_result(self)
        elif isinstance(memptr, Pointer):
            self.root = root = memptr.root
            memory = root if root.base is None else root.base
            flat = memory if isinstance(memory, Memory) else root.reshape(-1, order="A")
            at = memptr.ptr - flat.ctypes.data
            self.host = np.ndarray(shape, dtype, flat.view(np.uint8).reshape(-1), at, strides)
            self.memory = memptr.memory
        else:
            self.host = np.ndarray(shape, dtype, memptr.mem.buffer, memptr.offset, strides)
            self.root = self.host
            self.memory = memptr

    # -- to and from the host
    def get(
        self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True
    ) -> np.ndarray[Any, Any]:
        if stream is None or stream.is_capturing():
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
        refuse_copies("H2D transfers")
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
        ours = getattr(library, ufunc.__name__, None)
        if ours is None or any(isinstance(x, np.ndarray) for x in inputs):
            return NotImplemented
        if "out" in kwargs:
            (kwargs["out"],) = kwargs["out"]
        return getattr(ours, method)(*inputs, **kwargs)

    def __array_function__(self, func: Any, types: Any, args: Any, kwargs: Any) -> Any:
        place = library
        for part in func.__module__.split(".")[1:]:
            place = getattr(place, part, place)
        ours = getattr(place, func.__name__, None)
        if ours is None or not all(issubclass(t, (Array, np.ndarray)) for t in types):
            return NotImplemented
        return ours(*args, **kwargs)

    # -- attributes
    @property
    def shape(self) -> tuple[int, ...]:
        return self.host.shape

    @shape.setter
    def shape(self, shape: Any) -> None:
        try:
            self.host = np.reshape(self.host, shape, copy=False)
        except ValueError:
            raise AttributeError("incompatible shape") from None

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
    data = property(lambda self: Pointer(self.memory, self.root, self.host.ctypes.data))

    # -- elements
    def __getitem__(self, key: Any) -> Array:
        host, inside = self.host, _key(key)
        keys = inside if isinstance(inside, tuple) else (inside,)
        if any(_is_mask(k) or isinstance(k, (bool, np.bool_)) for k in keys):
            refuse_copies("D2H transfers")
        if host.size and all(k is None or k is Ellipsis or isinstance(k, slice) for k in keys):
            part = host[inside]
            if not part.size:  # CuPy's lies where it would begin, be that behind the last element
                return self._nothing_at(_start(keys, host), part)

        def compute() -> Any:
            try:
                found = host[_wrapped(inside, host.shape)]
            except IndexError as error:
                if "broadcast" in str(error):  # as CuPy says it
                    raise ValueError("operands could not be broadcast together") from None
                raise
            # CuPy gives a view where NumPy gives a scalar.
            return found if isinstance(found, np.ndarray) else host[(*keys, ...)]

        return _computed("getitem", compute, self, key)

    def _nothing_at(self, start: int, like: np.ndarray[Any, Any]) -> Array:
        """A part without elements, so many bytes behind the first one."""
        part = Array(like.shape, like.dtype, self.data + start, like.strides)
        part.base, part.device = self if self.base is None else self.base, self.device
        return part

    def __setitem__(self, key: Any, value: Any) -> None:
        if isinstance(value, np.ndarray) and value.ndim:
            raise ValueError("non-scalar numpy.ndarray cannot be used for fill")
        if isinstance(value, (list, tuple)):
            raise TypeError("a list cannot be assigned to a cupy.ndarray")
        host, inside, values = self.host, _key(key), _host(value)
        _in_place(
            "setitem",
            lambda: host.__setitem__(_wrapped(inside, host.shape), values),
            self, key, value,
        )  # fmt: skip

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
    refuse_copies("D2H transfers")
    if reads is not None:
        reads.append(name)


def _launched(name: str, *values: Any) -> None:
    """Note a call that launches a kernel; RuntimeError unless its arrays are where it runs."""
    if calls is not None and name not in NO_LAUNCH:
        calls.append(name)
    if name == "may_share_memory":  # it compares addresses, of whichever device
        return
    if name in WAITING:
        refuse_copies("D2H transfers")
    if name in LIBRARIES and capturing() is not None:
        raise NotImplementedError(
            "calling cuBLAS API during stream capture is currently unsupported"
        )
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


def _computed(name: str, compute: Any, like: Any, *values: Any) -> Any:
    """A result of NumPy as CuPy would hand it out; a capture keeps how it is computed."""
    capture = capturing()
    if capture is None:
        result = compute()
    else:
        with quiet():
            result = compute()
    first = result[0] if isinstance(result, (list, tuple)) and result else result
    view = _is_view(first, like)
    if not view:
        _launched(name, like, *values)
        if name in ROW_MAJOR:
            result = _row_major(result)
    made = _wrap(result, like, *_arrays(values))
    if capture is not None and not view:
        hosts = [array.host for array in _arrays(made)]

        def again() -> None:
            result = compute()
            parts = result if isinstance(result, (list, tuple)) else [result]
            for host, part in zip(hosts, parts):
                host[...] = part

        if name not in NO_LAUNCH:
            capture.add(name, again, _arrays((like, values)))
        for array in _arrays(made):
            capture.add_result(array)
    return made


def _row_major(result: Any) -> Any:
    if isinstance(result, tuple):
        return tuple(map(_row_major, result))
    return np.asarray(result, order="C") if isinstance(result, np.ndarray) else result


def _in_place(name: str, compute: Any, *values: Any) -> None:
    """A call of NumPy that writes to its arguments; a capture keeps it for later."""
    _launched(name, *values)
    capture = capturing()
    if capture is None:
        compute()
    else:
        capture.add(name, compute, _arrays(values))


def _arrays(value: Any) -> list[Array]:
    """All arrays in a value."""
    if isinstance(value, (list, tuple)):
        return [array for v in value for array in _arrays(v)]
    return [value] if isinstance(value, Array) else []


def _wrap(result: Any, *likes: Any) -> Any:
    """A result of NumPy as CuPy would hand it out: perhaps a view of one of some arrays."""
    if isinstance(result, (np.ndarray, np.generic)):
        array = object.__new__(Array)
        array.host = host = np.asarray(result)
        array.base = None
        like = next((like for like in likes if _is_view(host, like)), None)
        if like is not None:
            array.device, array.memory, array.root = like.device, like.memory, like.root
            array.base = like if like.base is None else like.base
        else:
            array.host = array.root = placed(np.empty_like(host, subok=False))
            array.host[...] = host
            array.device, array.memory = Device(), get_allocator()(host.nbytes)
        return array
    if isinstance(result, tuple) and hasattr(result, "_fields"):
        return type(result)(*(_wrap(r, *likes) for r in result))
    if isinstance(result, (list, tuple)):
        return type(result)(_wrap(r, *likes) for r in result)
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
    if isinstance(key, (list, np.ndarray)):
        refuse_copies("H2D transfers")
    if isinstance(key, tuple):
        return tuple(_key(k) for k in key)
    return key.host if isinstance(key, Array) else key


def _wrapped(key: Any, shape: tuple[int, ...]) -> Any:
    """An index with the numbers in its arrays brought into the bounds, as CuPy does it."""
    keys, rest, found = key if isinstance(key, tuple) else (key,), list(shape), []
    for k in keys:
        if k is Ellipsis:
            behind = sum(k.ndim if _is_mask(k) else k is not None for k in keys[len(found) + 1 :])
            rest = rest[len(rest) - behind :]
        elif k is not None:
            n = rest[0] if rest else 1
            rest = rest[k.ndim if _is_mask(k) else 1 :]
            if isinstance(k, np.ndarray) and k.ndim and k.dtype.kind in "iu" and n:
                k = k % n
        found.append(k)
    return tuple(found) if isinstance(key, tuple) else found[0]


def _start(keys: Any, host: np.ndarray[Any, Any]) -> int:
    """How many bytes behind an array's first element the slices of an index begin."""
    ahead = list(keys[: keys.index(Ellipsis)] if Ellipsis in keys else keys)
    behind = keys[len(ahead) + 1 :]
    missing = host.ndim - sum(k is not None for k in (*ahead, *behind))
    parts = [k for k in (*ahead, *[slice(None)] * missing, *behind) if k is not None]
    starts = [k.indices(n)[0] for k, n in zip(parts, host.shape)]
    return sum(start * step for start, step in zip(starts, host.strides))


def _is_mask(key: Any) -> bool:
    return isinstance(key, np.ndarray) and key.dtype == np.bool_


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
        refused = key in REFUSED and (name, key) != ("copyto", "where")
        if refused or (name == "take" and key == "mode"):
            raise TypeError(f"{name}() got an unexpected keyword argument '{key}'")
    if kwargs.get("kind") not in (None, "stable"):
        raise ValueError(f"{name}: CuPy knows only stable sorting")
