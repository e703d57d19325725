"""Making tensors: from data, filled, ranges."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends import cuda, transfer
from gradlite.device import array_module, as_device, device
from gradlite.nested import array_of
from gradlite.ops.conversion import array_on
from gradlite.ops.dims import sizes
from gradlite.ops.op import type_name
from gradlite.ops.operands import filling, number_of
from gradlite.tensor import Tensor, check_can_require_grad, wrap

__all__ = [
    "arange",
    "as_tensor",
    "asarray",
    "empty",
    "eye",
    "from_dlpack",
    "from_numpy",
    "full",
    "linspace",
    "logspace",
    "ones",
    "scalar_tensor",
    "tensor",
    "zeros",
]

# Where a parameter is called device.
_Device = device


def finish(array: Any, requires_grad: bool) -> Tensor:
    if requires_grad:
        check_can_require_grad(array.dtype, factory=True)
    result = wrap(array)
    if requires_grad:
        result._requires_grad = True
    return result


def _dtype(dtype: Any) -> np.dtype[Any]:
    return (dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)).numpy


# ---------------------------------------------------------------------------- from data
def tensor(
    data: Any,
    *,
    dtype: Any = None,
    device: str | int | device | None = None,
    requires_grad: bool = False,
    pin_memory: bool = False,
) -> Tensor:
    """A new leaf with a copy of the data: a number, nested lists, an array or a Tensor.

    Python floats give the default dtype, ints int64, bools bool; arrays keep theirs.

    >>> import gradlite
    >>> gradlite.tensor([[1, 2], [3, 4]], dtype=gradlite.float32)
    tensor([[1., 2.],
            [3., 4.]])

    Raises:
        ValueError: nested lists of unequal length, or tensors of several elements in them.
        TypeError, RuntimeError: data that no dtype fits, or ``requires_grad`` of a dtype that
            is not floating.
    """
    if isinstance(data, Tensor):
        warnings.warn(
            "To copy construct from a tensor, it is recommended to use "
            "sourceTensor.detach().clone() or "
            "sourceTensor.detach().clone().requires_grad_(True), rather than "
            "gradlite.tensor(sourceTensor).",
            UserWarning,
            stacklevel=2,
        )
        where = data.device if device is None else as_device(device)
        source, copy = data.array, True
    else:
        where = as_device(device)
        given = None if dtype is None else dtypes.as_dtype(dtype).numpy
        copy = hasattr(type(data), "__cuda_array_interface__")
        source = data if copy else array_of(data, given)
        copy = copy or source is data
    wanted = source.dtype if dtype is None else dtypes.as_dtype(dtype).numpy
    wanted = dtypes.from_numpy_dtype(wanted).numpy
    array = array_on(source, where, wanted, copy)
    if pin_memory:
        array = _pinned(array)
    return finish(array, requires_grad)


def _pinned(array: Any) -> Any:
    if not isinstance(array, np.ndarray):
        raise RuntimeError("Only dense CPU tensors can be pinned")
    cuda.module()  # says what is missing
    return transfer.pinned(array)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Tensor:
    """A tensor that shares the data's memory when dtype and device allow it.

    >>> import gradlite, numpy
    >>> a = numpy.zeros(2)
    >>> t = gradlite.as_tensor(a)
    >>> t[0] = 5
    >>> a
    array([5., 0.])
    """
    if isinstance(data, Tensor):
        if dtype is None and device is None:
            return data
        return data.to(device=device, dtype=dtype)  # type: ignore[attr-defined,no-any-return]
    if isinstance(data, np.ndarray) and device is None:
        wanted = dtypes.from_numpy_dtype(data.dtype) if dtype is None else dtypes.as_dtype(dtype)
        if as_device(None).type == "cpu":
            return wrap(np.asarray(data, dtype=wanted.numpy))
    if device is None and hasattr(type(data), "__cuda_array_interface__"):  # stays on its device
        cupy = array_module(_Device("cuda"))
        array = data if isinstance(data, cupy.ndarray) else cupy.asarray(data)
        dtypes.from_numpy_dtype(array.dtype)  # an error, or halves that ops hear of
        return as_tensor(wrap(array), dtype=dtype)
    return tensor(data, dtype=dtype, device=device)


def asarray(
    obj: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    copy: bool | None = None,
    requires_grad: bool | None = None,
) -> Tensor:
    """A tensor of anything array-like: an alias where possible, unless ``copy`` is true.

    It is in the graph of a tensor that requires grad, with a warning where ``requires_grad`` is
    not given; ``requires_grad=False`` takes it out of there.

    Raises:
        ValueError: ``copy=False`` where the dtype, the device or the kind of object needs a copy.

    >>> import gradlite
    >>> gradlite.asarray([1, 2], dtype=gradlite.float32)
    tensor([1., 2.])
    """
    result = as_tensor(obj, dtype, device)
    source = obj.array if isinstance(obj, Tensor) else obj
    shared = isinstance(source, result.array.__class__) and _shares(source, result.array)
    if copy and shared:
        result = result.clone()  # type: ignore[attr-defined]
    if copy is False and not shared:
        if not isinstance(obj, (Tensor, np.ndarray)):
            raise ValueError("can't alias arbitrary sequence into a tensor.")
        given, wanted = (type_name(a.dtype) for a in (source, result.array))
        if given != wanted:
            raise ValueError(f"can't alias tensor with dtype '{given}' into dtype '{wanted}'.")
        raise ValueError(f"can't alias tensor into device '{result.device}'.")
    if requires_grad is None and result.requires_grad:
        warnings.warn(KEEPS_GRAD, stacklevel=2)
    if requires_grad is False and result.requires_grad:
        result = result.detach()
    if requires_grad and not result.requires_grad:
        result = result.detach().requires_grad_()
    return result


KEEPS_GRAD = (
    "gradlite.asarray: unspecified requires_grad now defaults to obj.requires_grad instead of "
    "False. Pass requires_grad=False explicitly to get the old behavior and silence this warning."
)


def _shares(source: Any, array: Any) -> bool:
    return (
        bool(np.shares_memory(source, array)) if isinstance(array, np.ndarray) else source is array
    )


def from_numpy(ndarray: np.ndarray[Any, Any]) -> Tensor:
    """A tensor that shares the array's memory.

    >>> import gradlite, numpy
    >>> gradlite.from_numpy(numpy.arange(3))
    tensor([0, 1, 2])

    Raises:
        TypeError: not an array, or of a dtype that tensors cannot hold.
    """
    if not isinstance(ndarray, np.ndarray):
        kind = ndarray.__class__
        prefix = "numpy." if kind.__module__ == "numpy" else ""
        raise TypeError(f"expected np.ndarray (got {prefix}{kind.__name__})")
    dtypes.from_numpy_dtype(ndarray.dtype)
    if any(s < 0 for s in ndarray.strides):
        raise ValueError(
            "At least one stride in the given numpy array is negative, and tensors with negative "
            "strides are not currently supported. (You can probably work around this by making a "
            "copy of your array  with array.copy().) "
        )
    return wrap(np.asarray(ndarray))


def from_dlpack(ext_tensor: Any) -> Tensor:
    """A tensor on the memory of another library's array, through DLPack.

    >>> import gradlite, numpy
    >>> gradlite.from_dlpack(numpy.arange(3))
    tensor([0, 1, 2])
    """
    if isinstance(ext_tensor, Tensor) and not ext_tensor.requires_grad:
        return wrap(ext_tensor.array[...])
    kind = ext_tensor.__dlpack_device__()[0]
    xp = np if int(kind) in (1, 3) else array_module(device("cuda"))
    array = xp.from_dlpack(ext_tensor)
    if xp is np and not array.flags.writeable:
        array = array.copy()
    dtypes.from_numpy_dtype(array.dtype)
    return wrap(array)


def scalar_tensor(
    s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """A 0-d tensor of the default dtype.

    >>> import gradlite
    >>> gradlite.scalar_tensor(3)
    tensor(3.)
    """
    return tensor(s, dtype=_dtype(dtype), device=device, requires_grad=requires_grad)


# ------------------------------------------------------------------------------- filled
def filled(
    maker: str, shape: Any, dtype: Any, where: Any, requires_grad: bool, *fill: Any
) -> Tensor:
    if min(shape, default=0) < 0:
        bad = next(n for n in shape if n < 0)
        raise RuntimeError(f"Trying to create tensor with negative dimension {bad}: {list(shape)}")
    if fill:
        fill = (filling(fill[0], dtype, rounds=math.prod(shape) == 1),)
    d = as_device(where)
    xp = array_module(d)
    if math.prod(shape) >= 1 << 60:
        raise RuntimeError(f"Storage size calculation overflowed with sizes={list(shape)}")
    if d.type == "cpu":  # and not by the library: another thread may begin to record meanwhile
        return finish(getattr(xp, maker)(shape, *fill, dtype=dtype), requires_grad)
    with xp.cuda.Device(d.index):
        return finish(getattr(xp, maker)(shape, *fill, dtype=dtype), requires_grad)


def zeros(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of zeros.

    >>> import gradlite
    >>> gradlite.zeros(2, 3)
    tensor([[0., 0., 0.],
            [0., 0., 0.]])
    """
    return filled("zeros", sizes(shape, size), _dtype(dtype), device, requires_grad)


def ones(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of ones.

    >>> import gradlite
    >>> gradlite.ones(2)
    tensor([1., 1.])
    """
    return filled("ones", sizes(shape, size), _dtype(dtype), device, requires_grad)


def empty(
    *shape: Any,
    size: Any = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of uninitialised values.

    >>> import gradlite
    >>> gradlite.empty(2, 0).shape
    gradlite.Size([2, 0])
    """
    return filled("empty", sizes(shape, size), _dtype(dtype), device, requires_grad)


def full(
    size: Sequence[int],
    fill_value: Any,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A tensor of one value; its type decides the dtype unless one is given.

    >>> import gradlite
    >>> gradlite.full((2,), 7)
    tensor([7, 7])
    """
    if isinstance(fill_value, Tensor) and (fill_value.array.ndim or fill_value.requires_grad):
        raise TypeError("full(): argument 'fill_value' (position 2) must be Number, not Tensor")
    if isinstance(fill_value, Tensor) and fill_value.array.dtype in dtypes.FLOATING:
        wanted = _dtype(dtype)
        if wanted in dtypes.FLOATING:
            made = filled("zeros", sizes((size,)), wanted, device, False)
            return made.fill_(fill_value).requires_grad_(requires_grad)  # type: ignore
    value = number_of(fill_value)
    if value.__class__ is int:
        value = filling(value, _dtype(dtypes.int64 if dtype is None else dtype))
    if dtype is None:
        kinds = {bool: dtypes.bool, int: dtypes.int64}
        dtype = kinds.get(value.__class__)
    return filled("full", sizes((size,)), _dtype(dtype), device, requires_grad, value)


def eye(
    n: int,
    m: int | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A matrix with ones on the diagonal.

    >>> import gradlite
    >>> gradlite.eye(2)
    tensor([[1., 0.],
            [0., 1.]])
    """
    for name, size in (("n", n), ("m", m)):
        if size is not None and size < 0:
            raise RuntimeError(f"{name} must be greater or equal to 0, got {size}")
    d = as_device(device)
    array = np.eye(n, n if m is None else m, dtype=_dtype(dtype))
    return finish(array_on(array, d, array.dtype, copy=False), requires_grad)


_LARGE = 1 << 62


def arange(
    start: Any,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Numbers from ``start`` (0) up to but without ``end`` in steps.

    >>> import gradlite
    >>> gradlite.arange(0, 1, 0.25)
    tensor([0.0000, 0.2500, 0.5000, 0.7500])

    Raises:
        RuntimeError: a step of 0 or of the wrong sign.
    """
    if end is None:
        start, end = 0, start
    if start.__class__ is end.__class__ is step.__class__ is int and dtype is None and step > 0:
        # The most common kind at once.
        if -_LARGE < start <= end < _LARGE and as_device(device).type == "cpu":
            return finish(np.arange(start, end, step, dtype=np.int64), requires_grad)
    start, end, step = map(number_of, (start, end, step))
    if step == 0:
        raise RuntimeError("step must be nonzero")
    if not (math.isfinite(start) and math.isfinite(end)):
        raise RuntimeError(f"unsupported range: {start} -> {end}")
    if max(abs(start), abs(end)) >= 1 << 63:
        raise RuntimeError("value cannot be converted to type int64_t without overflow")
    if (step > 0 and start > end) or (step < 0 and start < end):
        raise RuntimeError("upper bound and lower bound inconsistent with step sign")
    if dtype is None:
        floating = any(isinstance(v, float) for v in (start, end, step))
        dtype = dtypes.get_default_dtype() if floating else dtypes.int64
    numpy_dtype = _dtype(dtype)
    if numpy_dtype == np.bool_:
        raise NotImplementedError("\"arange_cpu\" not implemented for 'Bool'")
    count = math.ceil((end - start) / step)
    whole = all(isinstance(v, int) for v in (start, step))
    where = as_device(device)
    if whole and where.type != "cpu":  # counted there: a copy from the host would wait for it
        xp = array_module(where)
        with xp.cuda.Device(where.index):
            numbers = xp.arange(start, start + count * step, step, np.int64)
            return finish(numbers.astype(numpy_dtype, copy=False), requires_grad)
    values = start + np.arange(count, dtype=np.int64 if whole else np.float64) * step
    return finish(array_on(values, where, numpy_dtype, copy=False), requires_grad)


def linspace(
    start: Any,
    end: Any,
    steps: int,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``steps`` evenly spaced numbers from ``start`` to ``end``, both included.

    >>> import gradlite
    >>> gradlite.linspace(0, 1, 5)
    tensor([0.0000, 0.2500, 0.5000, 0.7500, 1.0000])
    """
    values = _evenly("linspace", start, end, steps)
    if dtype is not None and _dtype(dtype) == np.bool_:
        raise NotImplementedError("\"linspace_cpu\" not implemented for 'Bool'")
    return finish(array_on(values, as_device(device), _dtype(dtype), copy=False), requires_grad)


def _evenly(name: str, start: Any, end: Any, steps: int) -> Any:
    ends = [(what, v) for what, v in (("start", start), ("end", end)) if getattr(v, "ndim", 0)]
    if ends:
        found = " and ".join(f"{what} with {v.ndim} dimension(s)" for what, v in ends)
        raise RuntimeError(
            f"{name} only supports 0-dimensional start and end tensors, but got {found}."
        )
    if steps < 0:
        raise RuntimeError("number of steps must be non-negative")
    return np.linspace(float(number_of(start)), float(number_of(end)), steps)


def logspace(
    start: float,
    end: float,
    steps: int,
    base: float = 10.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """``base`` to the powers of `linspace`.

    >>> import gradlite
    >>> gradlite.logspace(0, 2, 3)
    tensor([  1.,  10., 100.])
    """
    values = float(base) ** _evenly("logspace", start, end, steps)
    return finish(array_on(values, as_device(device), _dtype(dtype), copy=False), requires_grad)
