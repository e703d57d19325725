"""In-place forms of view ops: the tensor itself gets another shape over the same elements."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply1
from gradlite.ops.inplace import check_history
from gradlite.ops.shape import Squeeze, SqueezeDim, Transpose, Unsqueeze, View, squeezed
from gradlite.ops.views import take_over
from gradlite.tensor import Tensor


class UnsqueezeInPlace(Unsqueeze):
    grad_name = "UnsqueezeBackward1"


class SqueezeInPlace(Squeeze):
    grad_name = "SqueezeBackward3"


class SqueezeDimInPlace(SqueezeDim):
    grad_name = "SqueezeBackward4"
    fname = "squeeze_dim_in_place"


class SqueezeDimsInPlace(SqueezeDim):
    grad_name = "SqueezeBackward5"
    fname = "squeeze_dims_in_place"


class TransposeInPlace(Transpose):
    grad_name = "TransposeBackward1"


class TInPlace(Transpose):
    grad_name = "TBackward1"
    fname = "t_in_place"


def _reshape(t: Tensor, op: Any, attrs: tuple[Any, ...], inverse: tuple[Any, ...]) -> Tensor:
    """Give a tensor what a view op makes of it; ``inverse`` is the view op back, and its attrs.

    Views of it stay what they are: their base knows the way back to its former shape.
    """
    result = apply1(op, t, *attrs)
    t.array = result.array
    t._bump()
    view = t._view
    if view is None:
        t._undo, t._redo = (inverse, *t._undo), (*t._redo, (op, attrs))
    else:
        view.chain = (*view.chain, (op, attrs))
        view.seen = t._version
    if result._edge is not None:
        take_over(t, result._edge)
        t._requires_grad = True
    return t


def unsqueeze_(self: Tensor, dim: int) -> Tensor:
    """In-place version of `unsqueeze`."""
    check_history(self)
    shape = self.array.shape
    d = wrap_dim(dim, len(shape) + 1)
    return _reshape(self, UnsqueezeInPlace, (d,), (View, (shape,)))


def squeeze_(self: Tensor, dim: int | Sequence[int] | None = None) -> Tensor:
    """In-place version of `squeeze`."""
    check_history(self)
    shape = self.array.shape
    if dim is None:
        op: Any = SqueezeInPlace
        kept = tuple(n for n in shape if n != 1)
    else:
        op = SqueezeDimInPlace if isinstance(dim, int) else SqueezeDimsInPlace
        kept = squeezed(shape, dim)
    return _reshape(self, op, (kept,), (View, (shape,)))


def transpose_(self: Tensor, dim0: int, dim1: int) -> Tensor:
    """In-place version of `transpose`."""
    check_history(self)
    n = self.array.ndim
    dims = (wrap_dim(dim0, n), wrap_dim(dim1, n))
    return _reshape(self, TransposeInPlace, dims, (Transpose, dims))


def t_(self: Tensor) -> Tensor:
    """In-place version of `t`."""
    check_history(self)
    n = self.array.ndim
    if n > 2:
        raise RuntimeError(f"t_() expects a tensor with <= 2 dimensions, but self is {n}D")
    dims = (0, n - 1 if n else 0)
    return _reshape(self, TInPlace, dims, (Transpose, dims))


def _attach() -> None:
    m: Any = Tensor
    m.unsqueeze_, m.squeeze_, m.t_ = unsqueeze_, squeeze_, t_
    m.transpose_ = m.swapaxes_ = m.swapdims_ = transpose_


_attach()
