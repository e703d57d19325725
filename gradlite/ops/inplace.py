"""In-place edits: what they may write to, and how the graph takes them up."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite import dtypes, graph
from gradlite import tensor as tensor_module
from gradlite.grad_mode import INFERENCE, NO_GRAD, current_mode
from gradlite.graph import Node, record
from gradlite.graph_errors import plain_name
from gradlite.graph_hooks import Packed, PackedArray, pack_saved
from gradlite.memory_format import is_dense
from gradlite.ops import guard
from gradlite.ops.dispatch import OUT, Variant, apply
from gradlite.ops.layout import laid_out
from gradlite.ops.namespaces import NAMESPACES, OPS
from gradlite.ops.op import TENSORS, Op, type_name
from gradlite.ops.views import (
    IS_BEING,
    AsStrided,
    apply_view,
    forbidden_edit,
    hang_on,
    replay,
    take_over,
)
from gradlite.tensor import Tensor, gradient_edge


class CloneLaidOut(Op):
    """A copy with its dimensions in a given order of strides: where a base's views fit."""

    moves = True

    def forward(xp: Any, x: Any, order: tuple[int, ...]) -> Any:
        return laid_out(xp, x, order)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (grad,)


class CopySlices(Op):
    """An in-place edit of a view, as the base's graph sees it.

    Its attrs are the view's chain and the node recorded for the edit; its saved values and
    versions are that node's.
    """

    grad_name = "CopySlices"
    used_up = True

    @classmethod
    def saved_position(cls, node: Node, place: int) -> int:
        inner = node.attrs[1]
        position: int = inner.op.saved_position(inner, place)
        return position

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        chain, inner = ctx.attrs[:2]
        edges = ctx.edges  # of a constant base nobody wants the gradient, and no rule may expect it
        node = graph.copy_node(inner, edges, ctx.saved)
        node.aux = ctx.aux
        if F.tensors:
            result = part = F.clone_laid_out(grad, ctx.shapes[1])
            for op, attrs in chain:
                part = apply_view(op, part, *attrs)
            # What the edit read hangs on the view's old edge; the gradient goes to the base's.
            node.edges = inner.edges
            inner_ctx = inner.op.tensor_context(node, edges)
            if inner.op.saves[-1:] == (OUT,) and inner_ctx.saved[-1] is not None:
                # What the edit made is, from now on, a view of the edited base.
                outer, out = ctx.attrs[2], inner_ctx.saved[-1]
                F0 = NAMESPACES[out.array.__class__]
                shapes = (tuple(grad.shape),)
                out._edge = record(AsStrided, (outer,), (), None, (chain,), F0, None, shapes)
            grads = inner.op.backward(inner_ctx, part.clone(), F)
            part.zero_() if grads[0] is None else part.copy_(grads[0])
        else:
            with guard.on(grad):
                result = CloneLaidOut.forward(F.xp, grad, ctx.shapes[1])
                part = replay(chain, F.xp, result)
                grads = inner.op.backward(node, part.copy(), F)
                part[...] = 0 if grads[0] is None else grads[0]
        return (result, *grads[1:])

    @staticmethod
    def tensor_context(node: Node, edges: tuple[Any, ...]) -> Any:
        twin = graph.copy_node(node, edges, node.saved)  # the inner rule makes the Tensors
        twin.F = TENSORS
        twin.attrs = (*node.attrs, node)
        return twin


def check_history(t: Tensor) -> None:
    """RuntimeError when the graph does not let this tensor be changed in place."""
    mode = current_mode()
    if t._counter is None:
        if mode < INFERENCE:
            raise RuntimeError(
                "Inplace update to inference tensor outside InferenceMode is not allowed.You can "
                "make a clone to get a normal tensor before doing inplace update.See "
                "https://github.com/pytorch/rfcs/pull/17 for more details."
            )
        return
    view = t._view
    if mode & NO_GRAD == 0 and (
        t._requires_grad or (view is not None and view.base._requires_grad)
    ):
        if view is not None:
            if view.origin != "grad":
                raise forbidden_edit(t, IS_BEING)
            if view.base._edge is None:
                raise RuntimeError(
                    "a view of a leaf Variable that requires grad is being used in an in-place "
                    "operation."
                )
            tensor_module.refresh(t)
        if t._edge is None:
            raise RuntimeError(
                "a leaf Variable that requires grad is being used in an in-place operation."
            )


def check_inplace(t: Tensor) -> None:
    """RuntimeError when PyTorch would not let this tensor be written to in place."""
    check_history(t)
    array = t.array
    if (
        0 in array.strides
        and array.size
        and any(s == 0 and n > 1 for s, n in zip(array.strides, array.shape))
    ):
        raise RuntimeError(
            "unsupported operation: more than one element of the written-to tensor refers to a "
            "single memory location. Please clone() the tensor before performing the operation."
        )


def refuse_overlap(target: Tensor, source: Tensor, *, same_too: bool = False) -> None:
    """RuntimeError when a tensor to be written shares part of its memory with one to be read.

    As in PyTorch, arrays with gaps are given the benefit of the doubt, and the very same
    elements in the same order are fine unless ``same_too``.
    """
    if source._view is not None and current_mode() == 0:
        tensor_module.refresh(source)  # a view that can no longer be used says so first
    refuse_shared(target.array, source.array, same_too)


def refuse_shared(written: Any, read: Any, same_too: bool = False) -> None:
    """`refuse_overlap` of arrays."""
    if written.__class__ is not read.__class__:
        return
    F = NAMESPACES.get(written.__class__)
    if F is None or written.__class__ is not F.xp.ndarray:
        return  # what a captured step is recorded with
    if (written is read and not same_too) or _own_memory(written, read):
        return
    if not (written.size and read.size and F.xp.may_share_memory(written, read)):
        return
    if not same_too and written.shape == read.shape and written.strides == read.strides:
        if _start_together(written, read):
            return
    if is_dense(written) and is_dense(read):
        raise RuntimeError(
            "unsupported operation: some elements of the input tensor and the written-to tensor "
            "refer to a single memory location. Please clone() the tensor before performing the "
            "operation."
        )


def _own_memory(a: Any, b: Any) -> bool:
    """Whether arrays are of two that have memory of their own each, which takes no addresses."""
    first, second = a.base, b.base
    first, second = a if first is None else first, b if second is None else second
    return (
        first is not second
        and first.__class__ is np.ndarray
        and second.__class__ is np.ndarray
        and first.base is None
        and second.base is None
        and first.flags.owndata
        and second.flags.owndata
    )


def _start_together(a: Any, b: Any) -> bool:
    """Whether the first elements of two arrays are one; of NumPy's addresses are slow to ask."""
    if a.__class__ is np.ndarray:
        first = (0,) * a.ndim + (Ellipsis,)
        return np.may_share_memory(a[first], b[first])
    return bool(a.data.ptr == b.data.ptr)


def assign(t: Tensor, result: Tensor) -> Tensor:
    """Write an op's result into a tensor and let it take over the result's history.

    The values are copied into ``t.array``, the version shared by all views is bumped, and
    the graph is rebased: on the tensor itself, or on its base for a view.
    """
    array, value = t.array, result.array
    _check_result(array, value)
    edge = result._edge
    if edge is not None:
        if t._view is not None and t._view.origin != "grad":
            raise forbidden_edit(t, IS_BEING)
        _keep_input(edge, t)
        if value.dtype != array.dtype:
            edge.op = Narrowed(edge.op, value.dtype)
    elif current_mode() == 0 and t.requires_grad:
        F = NAMESPACES[array.__class__]
        edge = record(Overwrite, (gradient_edge(t),), (), None, (), F)
    guard.fill(array, value)
    t._bump()
    if edge is not None:
        saves_output(edge, t)
        rebase(t, edge)
    return t


def lies_apart(t: Tensor, others: Sequence[Any]) -> bool:
    """Whether an edit of a tensor that is no view may write where arrays are not read from."""
    return t._view is None and not any(
        o is t.array or getattr(o, "base", None) is not None for o in others
    )


def _check_result(array: Any, value: Any) -> None:
    if value.shape != array.shape:
        if value.ndim > array.ndim or np.broadcast_shapes(value.shape, array.shape) != array.shape:
            raise RuntimeError(
                f"output with shape {list(array.shape)} doesn't match the broadcast shape "
                f"{list(value.shape)}"
            )
    if dtypes.category(value.dtype) > dtypes.category(array.dtype):
        raise RuntimeError(
            f"result type {type_name(value.dtype)} can't be cast to the desired output type "
            f"{type_name(array.dtype)}"
        )


class Narrowed(Variant):
    """An op whose result was written into a tensor of another dtype."""

    __slots__ = ("dtype",)

    def __init__(self, op: Any, dtype: Any) -> None:
        super().__init__(op)
        self.dtype = dtype

    def backward(self, ctx: Any, grad: Any, F: Any) -> Any:
        return self.op.backward(ctx, F.to_copy(grad, self.dtype), F)


class Overwrite(Op):
    """New values that do not depend on the old ones in a differentiable way."""

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad),)


def _keep_input(node: Node, t: Tensor) -> None:
    """Let a node that reads the old values of an edited tensor keep a copy of them."""
    with guard.on(t.array):  # where copies go
        _keep_copy(node, t)


def _keep_copy(node: Node, t: Tensor) -> None:
    if node.saved.__class__ is Packed:
        # Packed anew, as the hook may have kept the array itself.
        node.saved = Packed(
            pack_saved(t.array.copy())
            if item.__class__ is PackedArray and item.source == id(t.array)
            else item
            for item in node.saved
        )
        return
    if node.saved.__class__ is not tuple or not node.saved:
        return
    for place, (position, version) in enumerate(zip(node.op.saves, node.versions or ())):
        if position == 0 and version is not None and version[0] is t._counter:
            saved, versions = list(node.saved), list(node.versions or ())
            if saved[place] is t.array:  # else it is a copy in another dtype already
                saved[place] = t.array.copy()
            versions[place] = None
            node.saved, node.versions = tuple(saved), tuple(versions)


def saves_output(node: Node, t: Tensor) -> None:
    """Let a node that saved its output refer to the tensor it was written into."""
    op = node.op
    if node.saved.__class__ is not tuple:  # packed: its hook has seen the values
        return
    if op.saves and op.saves[-1] == OUT and node.saved and node.saved[-1] is not None:
        node.saved = (*node.saved[:-1], t.array)
        assert node.versions is not None and t._counter is not None
        node.versions = (*node.versions[:-1], (t._counter, t._counter[0]))


def rebase(t: Tensor, node: Node) -> None:
    """Make a node, recorded for an in-place edit of ``t``, the history of ``t`` and its base."""
    view = t._view
    if view is None:
        take_over(t, node)
        t._requires_grad = True
        assert t._counter is not None
        t._counter[1:] = [plain_name(node)]  # type: ignore[list-item]
        return
    base = view.base
    base_edge = gradient_edge(base)
    F = NAMESPACES[base.array.__class__]
    strides = base.array.strides
    layout = tuple(sorted(range(len(strides)), key=lambda d: -strides[d]))
    outer = record(
        CopySlices,
        (base_edge, *node.edges[1:]),
        (),
        node.versions,
        (view.path(), node),
        F,
        None,
        (base.array.shape, layout),
    )
    # Handed over, so that backward frees them; after record, which would pack them again.
    outer.saved, outer.aux = node.saved, node.aux
    if node.__class__ is Node:
        node.saved, node.aux = (), None
    take_over(base, outer)
    base._requires_grad = True
    assert t._counter is not None
    view.seen = t._counter[0]
    hang_on(t, outer)


def inplace_method(
    function: Callable[..., Any], name: str, edit: Callable[..., bool] | None = None
) -> Callable[..., Any]:
    """The in-place method of an op: compute out of place, then `assign`.

    Args:
        edit: what lets a kernel write over an array of a GPU instead, and says whether it did.
    """

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        if edit is not None and self.array.__class__ is not np.ndarray:
            if edit(self, *args, **kwargs):
                return self
        check_inplace(self)
        return assign(self, function(self, *args, **kwargs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place version of `{function.__name__}`."
    return method


def composed_inplace_method(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The in-place method of a function written with several ops.

    The last of them need not read the tensor itself, as `assign` takes for granted: so it works
    on a clone, and what is assigned is a copy of its result.
    """

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(self)
        source: Any = self
        result = function(source.clone(), *args, **kwargs)
        if result._edge is not None:
            _check_result(self.array, result.array)
            result = apply(OPS["copy_into"], (self, result))
        return assign(self, result)

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place version of `{function.__name__}`."
    return method
