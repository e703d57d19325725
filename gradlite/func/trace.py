"""One application of a transform: its own Tensors, and what else a result depends on.

A transform evaluates the user's function at new Tensors, which nobody else knows, and
differentiates by these alone. That keeps nested transforms apart: the Tensors of the inner one are
not those of the outer. Results are handed out without history, unless they depend on something
besides the transform's own Tensors that requires grad: arguments of an enclosing transform, a
parameter in a closure.
"""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Sequence
from typing import Any

from gradlite import graph
from gradlite.autograd.backward import grad
from gradlite.grad_mode import is_grad_enabled
from gradlite.graph import AccumulateGrad, Node, OutputEdge
from gradlite.tensor import Tensor, gradient_edge

__all__ = ["Trace", "gradients"]

# The nodes of every trace's own Tensors: once the trace is left, nobody differentiates by them.
_owned: weakref.WeakSet[Node] = weakref.WeakSet()


class Trace:
    """The own Tensors of one application of a transform."""

    def __init__(self) -> None:
        self._outside_records = is_grad_enabled()
        self._start = graph.next_sequence_number()
        self._own: list[Node] = []

    def enter(self, value: Any) -> Tensor:
        """A new Tensor of the same values to differentiate by.

        Raises:
            ValueError: the value is no Tensor.
            RuntimeError: its dtype is not floating.
        """
        if not isinstance(value, Tensor):
            raise ValueError(f"Thing passed to transform API must be Tensor, got {type(value)}")
        if self._outside_records and value.requires_grad:
            return value.view_as(value)  # type: ignore[attr-defined,no-any-return]
        own: Tensor = value.detach().requires_grad_()
        node = gradient_edge(own)
        self._own.append(node)  # a leaf holds its node weakly
        _owned.add(node)
        return own

    def reaches_outside(self, values: Iterable[Any]) -> bool:
        """Whether values depend on something that requires grad and is not the trace's own."""
        if not self._outside_records:
            return False
        stack = [gradient_edge(v) for v in values if isinstance(v, Tensor) and v.requires_grad]
        seen: set[Node] = set()
        while stack:
            edge = stack.pop()
            node = edge.node if edge.__class__ is OutputEdge else edge
            if node is None or node in seen:
                continue
            if node.seq < self._start:
                return True
            if node.__class__ is AccumulateGrad and node not in _owned:
                return True
            seen.add(node)
            stack.extend(node.edges)
        return False

    def leave(self, value: Any) -> Tensor:
        """A result as the caller gets it.

        Raises:
            RuntimeError: the value is no Tensor.
        """
        if not isinstance(value, Tensor):
            raise RuntimeError(f"Expected tensors, got unsupported type {type(value)}")
        if not value.requires_grad or self.reaches_outside((value,)):
            return value
        return value.detach()


def gradients(
    outputs: Sequence[Tensor | None],
    inputs: Sequence[Tensor],
    vectors: Sequence[Tensor | None],
    create_graph: bool,
    retain_graph: bool | None = None,
) -> list[Tensor | None]:
    """`autograd.grad` that passes over outputs without history; None for inputs without a part."""
    pairs = [(o, v) for o, v in zip(outputs, vectors) if o is not None and o.requires_grad]
    if not pairs:
        return [None] * len(inputs)
    tensors, weights = zip(*pairs)
    return list(grad(tensors, inputs, weights, retain_graph, create_graph, allow_unused=True))
