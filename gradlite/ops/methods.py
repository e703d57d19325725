"""Small methods of Tensor: what never differs here, other spellings, edits of shape and storage."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite import memory_format as formats
from gradlite.description import Size
from gradlite.grad_mode import INFERENCE, current_mode
from gradlite.memory_format import preserve_format
from gradlite.ops import guard
from gradlite.ops.binary import sum_to
from gradlite.ops.contraction import outer
from gradlite.ops.creation import empty, tensor
from gradlite.ops.dims import sizes
from gradlite.ops.fill import fill_
from gradlite.ops.inplace import check_inplace
from gradlite.ops.joining import chunk, narrow, split
from gradlite.ops.layout import row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import TENSORS, type_name
from gradlite.ops.operands import cast
from gradlite.ops.piecewise import hardshrink, prelu
from gradlite.ops.samples import S, normal
from gradlite.ops.shape import diagonal, transpose
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["adjoint", "fill", "split_with_sizes"]

# Kinds of tensors that do not exist here: attributes that are False, and methods that say so.
NEVER = (
    "is_ipu",
    "is_maia",
    "is_meta",
    "is_mkldnn",
    "is_mps",
    "is_mtia",
    "is_nested",
    "is_quantized",
    "is_sparse",
    "is_sparse_csr",
    "is_vulkan",
    "is_xla",
    "is_xpu",
)
NEVER_METHODS = ("is_conj", "is_distributed", "is_neg", "is_shared")
ITSELF = ("conj", "resolve_conj", "resolve_neg", "share_memory_", "to_dense")


# -------------------------------------------------------------------------------- functions
@public(samples=lambda: [S(normal(2, 3)), S(normal(2, 3, 4))], method=True)
def adjoint(input: Tensor) -> Tensor:
    """A view with the last two dimensions swapped: there are no complex numbers.

    >>> import gradlite
    >>> gradlite.adjoint(gradlite.ones(2, 3)).shape
    gradlite.Size([3, 2])
    """
    if input.array.ndim < 2:
        raise RuntimeError(
            "tensor.adjoint() is only supported on matrices or batches of matrices. "
            f"Got {input.array.ndim}-D tensor."
        )
    return transpose(input, -2, -1)


@public(samples=lambda: [S(normal(2, 3), 1.5), S(normal(2), normal())])
def fill(input: Tensor, value: Any) -> Tensor:
    """A tensor like the input with one value everywhere.

    >>> import gradlite
    >>> gradlite.fill(gradlite.zeros(2), 3)
    tensor([3., 3.])
    """
    return fill_(input.clone(), value)  # type: ignore[attr-defined]


@public(
    samples=lambda: [S(normal(5, 2), [2, 3]), S(normal(2, 4), (1, 3), -1)],
    method=True,
    errors=lambda: [S(normal(5), [2, 2]), S(normal(3), [4, -1])],
)
def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """`split` into views of given sizes.

    >>> import gradlite
    >>> gradlite.split_with_sizes(gradlite.arange(3), [1, 2])
    (tensor([0]), tensor([1, 2]))
    """
    for size in split_sizes:
        if size < 0:
            raise RuntimeError(
                "split_with_sizes expects split_sizes have only non-negative entries, but got "
                f"split_sizes={list(split_sizes)}"
            )
    return split(input, list(split_sizes), dim)


@public(
    samples=lambda: [S(normal(3, 4), 3, 1), S(normal(2, 3, 4), 4), S(normal(3, 4), (3, 4))],
    torch="Tensor.sum_to_size",
    method=True,
    errors=lambda: [S(normal(3, 4), 2), S(normal(4), 3, 4)],
)
def sum_to_size(input: Tensor, *size: Any) -> Tensor:
    """The sum over the dimensions along which a tensor of this size would be broadcast.

    >>> import gradlite
    >>> gradlite.ones(3, 4).sum_to_size(3, 1)
    tensor([[4.],
            [4.],
            [4.]])
    """
    target, own = sizes(size), input.array.shape
    lead = len(own) - len(target)
    if lead < 0 or any(n not in (1, m) for n, m in zip(target, own[lead:])):
        raise RuntimeError(f"size {{{list(target)}}} is not expandable to size {{{list(own)}}}.")
    if own == target == ():
        return input.sum()  # type: ignore[attr-defined,no-any-return]
    if own != target and input.array.dtype not in dtypes.FLOATING:
        input = cast(input, np.int64)
    return sum_to(TENSORS, input, target)  # type: ignore[no-any-return]


# -------------------------------------------------------------------------------- in place
def fill_diagonal_(self: Tensor, fill_value: float, wrap: bool = False) -> Tensor:
    """Set the elements whose indices are all equal; with ``wrap``, go on below a square.

    >>> import gradlite
    >>> gradlite.zeros(2, 2).fill_diagonal_(1)
    tensor([[1., 0.],
            [0., 1.]])
    """
    shape = self.array.shape
    if len(shape) < 2:
        raise RuntimeError("dimensions must larger than 1")
    if len(shape) == 2:
        rows, columns = shape
        step = columns + 1  # one row between the squares
        parts = range(0, rows, step) if wrap and columns else (0,)
        check_inplace(self)
        for first in parts:
            diagonal(narrow(self, 0, first, min(rows - first, columns))).fill_(fill_value)
        return self
    if len(set(shape)) != 1:
        raise RuntimeError("all dimensions of input must be of equal length")
    view: Any = self
    for _ in range(len(shape) - 1):
        view = diagonal(view, 0, 0, view.array.ndim - 1)
    view.fill_(fill_value)
    return self


@guard.on_its_device
def resize_(self: Tensor, *size: Any, memory_format: Any = None) -> Tensor:
    """Give the tensor another shape: the first elements stay, more are uninitialised.

    Raises:
        RuntimeError: the tensor requires grad.
    """
    if self.requires_grad and not current_mode() & INFERENCE:
        raise RuntimeError("cannot resize variables that require grad")
    target = sizes(size)
    if target == self.array.shape and memory_format is None:
        return self
    if any(n < 0 for n in target):
        raise RuntimeError(f"Trying to create tensor with negative dimension: {list(target)}")
    count = math.prod(target)
    if count * self.array.itemsize >= 1 << 63:
        raise RuntimeError(f"Storage size calculation overflowed with sizes={list(target)}")
    array = row_major(self.array).reshape(-1)
    if count > array.size:
        larger = NAMESPACES[array.__class__].xp.empty(count, array.dtype)
        larger[: array.size] = array
        array = larger
    order = range(len(target)) if memory_format is None else memory_format.order_of(len(target))
    array = array[:count].reshape([target[d] for d in order])
    self.array = array.transpose([list(order).index(d) for d in range(len(target))])
    self._bump()
    return self


def resize_as_(self: Tensor, other: Tensor, memory_format: Any = None) -> Tensor:
    """`resize_` to another tensor's shape, and to the order of its dimensions in memory where the
    format is ``preserve_format``."""
    if memory_format is preserve_format:
        strides = other.array.strides
        order = tuple(sorted(range(len(strides)), key=lambda d: -strides[d]))
        memory_format = formats.memory_format(memory_format.name, order)
    return resize_(self, other.array.shape, memory_format=memory_format)


def set_(self: Tensor, source: Tensor) -> Tensor:
    """Share another tensor's memory from now on, with its shape and strides."""
    if source.array.dtype != self.array.dtype:
        raise RuntimeError(
            f"Could not set tensor of type {type_name(source.array.dtype)} to a tensor of type "
            f"{type_name(self.array.dtype)}"
        )
    self.array = source.array
    self._bump()
    return self


def _written(self: Tensor, values: Any) -> Tensor:
    check_inplace(self)
    guard.fill(self.array, np.asarray(values, self.array.dtype).reshape(self.array.shape))
    self._bump()
    return self


def apply_(self: Tensor, callable: Callable[[Any], Any]) -> Tensor:
    """Replace each element by a Python function of it; slow, on the CPU alone."""
    if self.requires_grad:
        raise RuntimeError("Can't call apply_() on Variable that requires grad.")
    if not self.is_cpu:
        raise TypeError("apply_ is only implemented on CPU tensors")
    return _written(self, [callable(v) for v in self.array.reshape(-1).tolist()])


def map_(self: Tensor, tensor: Tensor, callable: Callable[[Any, Any], Any]) -> Tensor:
    """Replace each element by a Python function of it and another tensor's; on the CPU alone."""
    if self.requires_grad or tensor.requires_grad:
        raise RuntimeError("Can't call map_() on Variable that requires grad.")
    if not self.is_cpu:
        raise TypeError("map_ is only implemented on CPU tensors")
    other = np.broadcast_to(tensor.array, self.array.shape)
    pairs = zip(self.array.reshape(-1).tolist(), other.reshape(-1).tolist())
    return _written(self, [callable(a, b) for a, b in pairs])


# --------------------------------------------------------------------------- other methods
def new(self: Tensor, *data: Any) -> Tensor:
    """A tensor of the same dtype and device: of sizes, uninitialised, or from data."""
    where: dict[str, Any] = {"dtype": self.dtype, "device": self.device}
    if not data or isinstance(data[0], (int, Size)):
        return empty(*data or (0,), **where)
    return tensor(data[0], **where)


def narrow_copy(self: Tensor, dim: int, start: int, length: int) -> Tensor:
    """`narrow` as a copy."""
    return narrow(self, dim, start, length).clone()  # type: ignore[attr-defined,no-any-return]


def is_same_size(self: Tensor, other: Tensor) -> bool:
    """Whether another tensor has the same shape."""
    return bool(self.array.shape == other.array.shape)


def is_set_to(self: Tensor, tensor: Tensor) -> bool:
    """Whether another tensor has the same memory, shape and strides."""
    a, b = self.array, tensor.array
    same = a.shape == b.shape and a.strides == b.strides
    return same and self.data_ptr() == tensor.data_ptr()


def is_nonzero(self: Tensor) -> bool:
    """Whether the only element is not 0."""
    return bool(self)


def ndimension(self: Tensor) -> int:
    """The number of dimensions."""
    return self.dim()


def as_subclass(self: Tensor, cls: Any) -> Any:
    """The same tensor as an instance of a subclass of Tensor, sharing memory and graph."""
    result = object.__new__(cls)
    for name in ("array", "_counter", "_edge", "_grad", "_requires_grad", "_view"):
        setattr(result, name, getattr(self, name))
    result._grad = None
    return result


def _false(name: str) -> Any:
    def method(self: Tensor) -> bool:
        return False

    method.__name__ = method.__qualname__ = name
    method.__doc__ = "Always False."
    return method


def _itself(name: str) -> Any:
    def method(self: Tensor) -> Tensor:
        return self

    method.__name__ = method.__qualname__ = name
    method.__doc__ = "The tensor itself: there are no other kinds here."
    return method


def _matrix(name: str) -> property:
    def transposed(self: Tensor) -> Tensor:
        if self.array.ndim != 2 and name == "H":
            raise RuntimeError(
                "tensor.H is only supported on matrices (2-D tensors). "
                f"Got {self.array.ndim}-D tensor. For batches of matrices, consider using "
                "tensor.mH"
            )
        return adjoint(self)

    return property(transposed)


def _attach() -> None:
    t: Any = Tensor
    for name in NEVER:
        setattr(t, name, property(_false(name)))
    for name in NEVER_METHODS:
        setattr(t, name, _false(name))
    for name in ITSELF:
        setattr(t, name, _itself(name))
    t.H, t.mH = _matrix("H"), _matrix("mH")
    t.real = property(lambda self: self)
    t.ger, t.hardshrink, t.prelu = outer, hardshrink, prelu
    t.split_with_sizes = t.unsafe_split_with_sizes = split_with_sizes
    t.unsafe_split, t.unsafe_chunk = split, chunk
    for function in (
        *(fill_diagonal_, resize_, resize_as_, set_, apply_, map_, new, narrow_copy),
        *(is_same_size, is_set_to, is_nonzero, ndimension, as_subclass),
    ):
        setattr(t, function.__name__, function)
    t.greater_, t.greater_equal_, t.less_, t.less_equal_ = t.gt_, t.ge_, t.lt_, t.le_
    t.not_equal_ = t.ne_


_attach()
