"""Views: results that share their input's storage, and how their history is renewed."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite import tensor as tensor_module
from gradlite.grad_mode import INFERENCE, current_mode
from gradlite.graph import Node, OutputEdge, record
from gradlite.graph_errors import plain_name
from gradlite.ops.dispatch import Cut, apply1
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.tensor import Tensor, View, gradient_edge


def apply_view(op: Any, input: Tensor, *attrs: Any) -> Tensor:
    """Run an op whose result shares the input's storage."""
    result = apply1(op, input, *attrs)
    mode = current_mode()
    origin = "grad" if mode == 0 else "no_grad" if mode < INFERENCE else "inference"
    _link(result, input, op, attrs, origin)
    return result


def _link(result: Tensor, input: Tensor, op: Any, attrs: Any, origin: str) -> None:
    """Enter a result as a view of the input's base."""
    version = result._counter = input._counter
    if version is None:  # of an inference tensor: no view, and outside of every graph
        result._edge, result._requires_grad = None, False
        return
    base, chain, origin = _base_of(input, origin)
    result._view = View(base, (*chain, (op, attrs)), version[0], origin)


def _base_of(input: Tensor, origin: str) -> tuple[Tensor, tuple[Any, ...], str]:
    """What views of a tensor are views of, the chain from there, and their origin."""
    above = input._view
    if above is None:
        return input, input._redo, origin
    if origin == "grad" or above.origin == "inference":
        origin = above.origin
    return above.base, above.chain, origin


def link_views(
    results: Sequence[Tensor], input: Tensor, op: Any, attrs_of: Callable[[int], tuple[Any, ...]]
) -> None:
    """Enter the outputs of an op that returns several views (split, unbind)."""
    mode, version = current_mode(), input._counter
    origin = "multi" if mode == 0 else "no_grad" if mode < INFERENCE else "inference"
    base, chain, origin = _base_of(input, origin)
    for nr, result in enumerate(results):
        result._counter = version
        if version is None:
            result._edge, result._requires_grad = None, False
        else:
            result._view = View(base, (*chain, (op, attrs_of(nr))), version[0], origin)


def replay(chain: tuple[Any, ...], xp: Any, array: Any) -> Any:
    """A chain of view ops on a raw array."""
    for op, attrs in chain:
        array = op.forward(xp, array, *attrs)
    return array


class AsStrided(Op):
    """A view's chain as one node: the edge of a view after its base was edited in place."""

    moves = True

    def forward(xp: Any, x: Any, chain: tuple[Any, ...]) -> Any:
        return replay(chain, xp, x)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        (chain,) = ctx.attrs
        return (_embed(chain, ctx.shapes[0], grad, F),)


class _Link:
    """The context of one rule within a chain."""

    __slots__ = ("attrs", "shapes", "saved", "aux", "edges", "F")

    def __init__(self, attrs: Any, shape: Any, F: Any) -> None:
        self.attrs, self.shapes, self.F = attrs, (shape,), F
        self.saved, self.aux, self.edges = (), None, (True,)


def _embed(chain: tuple[Any, ...], shape: tuple[int, ...], grad: Any, F: Any) -> Any:
    """The gradient of a view carried back to its base's shape."""
    if 0 in grad.shape:  # as in PyTorch a constant: nothing of it is differentiated again
        return F.zeros(shape, grad)
    shapes = []
    stand_in = np.broadcast_to(np.zeros((), bool), shape)
    for op, attrs in chain:
        shapes.append(stand_in.shape)
        stand_in = op.forward(np, stand_in, *attrs)
    for (op, attrs), inner in zip(reversed(chain), reversed(shapes)):
        (grad,) = op.backward(_Link(attrs, inner, F), grad, F)
    return grad


def _renew_view(tensor: Tensor) -> None:
    view = tensor._view
    assert view is not None and tensor._counter is not None
    if tensor._edge is None and not view.base._requires_grad:
        return  # a constant
    if view.origin != "grad":
        raise forbidden_edit(tensor, BASE_HAS_BEEN)
    view.seen = tensor._counter[0]
    hang_on(tensor, gradient_edge(view.base))


def hang_on(tensor: Tensor, edge: Any) -> None:
    """Make a view's gradient go to its base, straight."""
    view = tensor._view
    assert view is not None
    base = view.base.array
    F, shapes = NAMESPACES[base.__class__], (base.shape,)
    op = AsStrided if edge is not None else Cut(AsStrided)
    take_over(tensor, record(op, (edge,), (), None, (view.path(),), F, None, shapes))
    tensor._requires_grad = True


def forbidden_edit(tensor: Tensor, edited: str) -> RuntimeError:
    """What to raise for an edit of a view, or for the use of a view after an edit of its base.

    ``edited`` says which of the two it is, in PyTorch's words.
    """
    view, edge = tensor._view, tensor._edge
    assert view is not None
    nr, node = (edge.nr, edge.node) if edge.__class__ is OutputEdge else (0, edge)
    made_by = "" if node is None else f"Output {nr} of {plain_name(node)} is a view "
    if node is not None and view.origin in ("multi", "custom"):
        return RuntimeError(f"{made_by}and {edited} modified inplace. {_WHY[view.origin]}")
    subject = "A view was" if node is None else f"{made_by}of a view which was"
    mode, where = "no_grad", "with grad mode enabled"
    if view.origin == "inference":
        mode, where = "inference", "in normal mode"
    return RuntimeError(
        f"{subject} created in {mode} mode and {edited} modified inplace {where}. "
        f"{_WHY[view.origin]}"
    )


IS_BEING = "is being"
BASE_HAS_BEEN = "its base or another view of its base has been"
_AMBIGUOUS = (
    "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify your "
    "code by moving both the view and the inplace either both inside the {0} block (if you don't "
    "want the inplace to be tracked) or both outside (if you want the inplace to be tracked)."
)
_WHY = {
    "custom": "This view was created inside a custom Function (or because an input was returned "
    "as-is) and the autograd logic to handle view+inplace would override the custom backward "
    "associated with the custom Function, leading to incorrect gradients. This behavior is "
    "forbidden. You can fix this by cloning the output of the custom Function.",
    "multi": "This view is the output of a function that returns multiple views. Such functions "
    "do not allow the output views to be modified inplace. You should replace the inplace "
    "operation by an out-of-place one.",
    "no_grad": _AMBIGUOUS.format("no_grad"),
    "inference": _AMBIGUOUS.format("inference_mode"),
}


def take_over(t: Tensor, node: Node) -> None:
    """Give a tensor a new node; a retained gradient is retained there from now on."""
    if t.retains_grad:
        old: Any = t._edge.node if t._edge.__class__ is OutputEdge else t._edge
        del old.extra.retained[t.output_nr]
        node._extra().retained[0] = weakref.ref(t)
    t._edge = node


tensor_module.renew_view = _renew_view
