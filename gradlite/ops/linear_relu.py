"""A linear map and the relu of it as one node of the graph, for layers that stand in a row.

A step of a small network is mostly Python's time: a Tensor, a node and a rule less for each such
pair are 6 % of it (`benchmarks.training --workloads W1`). Who looks at the graph finds what two
calls would have made, since the node comes apart then.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import autocast_mode, graph
from gradlite.backends.cpu import clip, loud, quiet
from gradlite.grad_mode import INFERENCE, current_mode
from gradlite.graph import Node, next_sequence_number, record
from gradlite.ops import small
from gradlite.ops.dispatch import OUT
from gradlite.ops.matmul import Linear
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.piecewise import BOUNDS, Relu, ThresholdBackward
from gradlite.tensor import Tensor, gradient_edge

_new = object.__new__
_masked = ThresholdBackward.forward
_WIDE = {np.dtype(np.float32), np.dtype(np.float64)}  # which no twin computes in another dtype
# What the two ops are as long as nobody has put others in their place, to look at them.
_linear, _relu = Linear.forward, Relu.forward


class LinearRelu(Op):
    """relu(x @ weight.T + bias)."""

    reads = ((1, OUT), (0, OUT), (OUT,))
    grad_name = "ReluBackward0"

    def forward(xp: Any, x: Any, weight: Any, bias: Any) -> Any:
        return _relu(xp, _linear(xp, x, weight, bias))

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        x, weight, out = ctx.saved
        if (
            isinstance(grad, np.ndarray)
            and x is not None
            and x.ndim == 2
            and ctx.edges[2] is not None
            and small.worth_gradients(grad, x)
        ):
            made = small.gradients(np, grad, out, x, weight)
            return made if weight is not None else (None, *made)
        if grad.__class__ is np.ndarray:
            grad = _masked(np, grad, out)
        else:
            grad = F.threshold_backward(grad, F.detach(out))
        return Linear.gradients(ctx, x, weight, grad, F)

    @staticmethod
    def take_apart(node: Node) -> None:
        """Make relu's node of a node of this op, behind it a new one of the linear map."""
        inner = Node()
        inner.op, inner.edges, inner.shapes, inner.F = Linear, node.edges, node.shapes, node.F
        inner.attrs, inner.aux, inner.outputs, inner.extra = (), None, 1, None
        inner.seq = node.seq - 1
        saved, versions = node.saved, node.versions
        inner.saved = None if saved is None else saved.__class__(saved[:2])
        inner.versions = None if versions is None else versions[:2]
        node.saved = None if saved is None else saved.__class__(saved[2:])
        node.versions = None if versions is None else versions[2:]
        x, weight, _ = node.shapes
        node.op, node.edges, node.shapes = Relu, (inner,), ((*x[:-1], weight[0]),)


def linear_relu(input: Tensor, weight: Tensor, bias: Tensor) -> Tensor | None:
    """``relu(linear(input, weight, bias))``, or None where that is to be two calls."""
    x, w, b = input.array, weight.array, bias.array
    kind, rows, matrix = w.dtype, x.shape, w.shape
    if (
        x.__class__ is not np.ndarray
        or len(matrix) != 2
        or not rows
        or rows[-1] != matrix[1]
        or kind not in _WIDE
        or x.dtype != kind
        or b.dtype != kind
        or (autocast_mode.used and autocast_mode.current_autocast().cpu)
        or graph.anomaly_enabled
        or Linear.forward is not _linear
        or Relu.forward is not _relu
    ):
        return None
    mode, m, n = current_mode(), input._counter, weight._counter
    edges = None
    if mode == 0:
        to_w = gradient_edge(weight)
        if to_w is None or m is None or n is None:
            return None
        edges = (input._edge or gradient_edge(input), to_w, gradient_edge(bias))
    token = quiet()
    try:
        if x.ndim == 2 and small.worth(x, w):
            out = small.layer(np, x, w, b, True)
        else:
            out = _linear(np, x, w, b)
            zero, infinity = BOUNDS[kind]
            clip(out, zero, infinity, out)  # nobody else has it yet
    finally:
        loud(token)
    result = _new(Tensor)
    result.array = out
    result._edge = result._grad = result._view = None
    result._requires_grad = False
    result._counter = version = [0] if mode < INFERENCE else None
    if edges is not None:
        to_x = edges[0]
        next_sequence_number()  # for the node of the linear map, should there be one
        saved = (x, None if to_x is None else w, out)
        versions = ((m, m[0]), None if to_x is None else (n, n[0]), (version, 0))  # type: ignore[index]
        shapes = (rows, matrix, b.shape)
        F = NAMESPACES[np.ndarray]
        result._edge = record(LinearRelu, edges, saved, versions, (), F, None, shapes)
        result._requires_grad = True
    return result
