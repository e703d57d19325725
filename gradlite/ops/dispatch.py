"""The few functions through which every op runs, and is recorded when a gradient is wanted."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradlite import dtypes, graph
from gradlite.backends.cpu import loud, quiet
from gradlite.device import device_of
from gradlite.grad_mode import INFERENCE, current_mode, enable_grad
from gradlite.graph import Node, OutputEdge, record
from gradlite.ops import guard
from gradlite.ops.namespaces import NAMESPACES, OPS, Namespace
from gradlite.tensor import Tensor, gradient_edge, wrap

OUT = -1
INFERENCE_SAVED = (
    "Inference tensors cannot be saved for backward. Please do not use Tensors created in "
    "inference mode in computation tracked by autograd. To work around this, you can make a "
    "clone to get a normal tensor and use it in autograd, or use `gradlite.no_grad()` instead of "
    "`gradlite.inference_mode()`."
)
_new = object.__new__


def apply(op: Any, inputs: Sequence[Tensor | None], *attrs: Any) -> Any:
    """Run a primitive op and record it when a gradient is wanted.

    Args:
        op: the `Op` subclass.
        inputs: its tensor operands, of one device and already of the dtype to compute in.
        attrs: everything else its forward takes.

    Returns:
        A Tensor, or a tuple of them for ops with several outputs.
    """
    arrays: list[Any] = []
    tracked = False
    for t in inputs:
        if t is None:
            arrays.append(None)
        else:
            arrays.append(t.array)
            if t._requires_grad or t._view is not None:
                tracked = True
    F = NAMESPACES[arrays[0].__class__]
    if F.twins is not None:
        op = F.twins[op]
    token = quiet()
    try:
        if op.variadic:
            out = op.forward(F.xp, arrays, *attrs)
        else:
            out = op.forward(F.xp, *arrays, *attrs)
    finally:
        loud(token)
    aux = None
    if op.has_aux:
        out, aux = out
    if op.outputs != 1:
        return _several(op, inputs, attrs, arrays, out, aux, F)
    if out.__class__ not in NAMESPACES:  # a scalar; an array stays where the op put it
        out = F.xp.asarray(out)
    result = _new(Tensor)
    result.array = out
    result._edge = result._grad = result._view = None
    result._requires_grad = False
    mode = current_mode()
    result._counter = version = [0] if mode < INFERENCE else None
    if tracked and mode == 0 and out.dtype in dtypes.FLOATING:
        edges = edges_of(inputs)
        if edges is not None:
            if edges is NOWHERE:
                op, edges = Cut(op), (None,) * len(inputs)
            result._edge = recorded(op, edges, inputs, arrays, attrs, F, aux, out, version, 1)
            result._requires_grad = True
    return result


def edges_of(inputs: Sequence[Tensor | None]) -> tuple[Any, ...] | None:
    """The edges of some inputs, `NOWHERE`, or None when none of them requires grad."""
    edges = []
    found = False
    for t in inputs:
        edge = None
        if t is not None and (t._requires_grad or t._view is not None):
            edge = t._edge
            if edge is None or t._view is not None:
                edge = gradient_edge(t)
            if edge is not None:
                found = True
        edges.append(edge)
    if found:
        return tuple(edges)
    return NOWHERE if any(t is not None and t.requires_grad for t in inputs) else None


NOWHERE = (None,)  # of inputs that require grad, but have no place in the graph themselves


class Variant:
    """An op of a single node that is not quite the op it is made from."""

    __slots__ = ("op",)

    def __init__(self, op: Any) -> None:
        self.op = op

    def __getattr__(self, name: str) -> Any:
        return getattr(self.op, name)


class Cut(Variant):
    """An op whose node leads nowhere, since its inputs are views that require grad by their
    bases alone: as in PyTorch, the result requires grad, and no gradient comes of it."""

    __slots__ = ()

    @staticmethod
    def backward(ctx: Any, grad: Any, F: Any) -> tuple[None, ...]:
        return (None,) * len(ctx.edges)


def recorded(
    op: Any,
    edges: tuple[Any, ...],
    inputs: Sequence[Tensor | None],
    arrays: list[Any],
    attrs: tuple[Any, ...],
    F: Namespace,
    aux: Any,
    out: Any,
    out_version: Any,
    outputs: int,
    results: Sequence[Tensor] = (),
) -> Node:
    saved: Any = ()
    versions: Any = None
    if op.saves:
        wanted = tuple(map(bool, edges))
        saved = op.plans.get(wanted) or op.plan(wanted)
    if saved == _BOTH and (first := inputs[0]) is not None and (second := inputs[1]) is not None:
        a, b = first._counter, second._counter  # of products: what follows, written out
        if a is None or b is None:
            raise RuntimeError(INFERENCE_SAVED)
        saved, versions = (arrays[0], arrays[1]), ((a, a[0]), (b, b[0]))
    elif saved:
        plan, saved, versions = saved, [], []
        for position in plan:
            value = version = None
            if position is not None:
                if position == OUT:
                    value, version = out, (out_version, 0)
                elif position < OUT:
                    result = results[OUT - position]
                    value, version = result.array, (result._counter, 0)
                else:
                    value, source = arrays[position], inputs[position]
                    if source is not None:  # else a Python number
                        counter = source._counter
                        if counter is None:
                            raise RuntimeError(INFERENCE_SAVED)
                        version = (counter, counter[0])
            saved.append(value)
            versions.append(version)
        saved, versions = tuple(saved), tuple(versions)
    shapes = tuple([None if a is None else a.shape for a in arrays])
    return record(op, edges, saved, versions, attrs, F, aux, shapes, outputs)


def node_of_edit(op: Any, inputs: Sequence[Tensor], attrs: tuple[Any, ...]) -> Node | None:
    """The node of an op that is run on the memory of its first input, which its rule never reads.

    None where nothing is recorded, or where the rule reads that input or the result.
    """
    if current_mode() != 0 or min(op.saves, default=1) < 1:
        return None
    edges = edges_of(inputs)
    if edges is None:
        return None
    arrays = [t.array for t in inputs]
    F = NAMESPACES[arrays[0].__class__]
    if F.twins is not None:
        op = F.twins[op]
    if edges is NOWHERE:
        op, edges = Cut(op), (None,) * len(inputs)
    return recorded(op, edges, inputs, arrays, attrs, F, None, None, None, 1)


def _several(
    op: Any,
    inputs: Sequence[Tensor | None],
    attrs: tuple[Any, ...],
    arrays: list[Any],
    outs: Sequence[Any],
    aux: Any,
    F: Namespace,
) -> tuple[Tensor, ...]:
    """Wrap the outputs of an op that has several."""
    # An array stays where the op put it: CuPy would take it to the current device.
    arrays_out = [o if o.__class__ in NAMESPACES else F.xp.asarray(o) for o in outs]
    results = tuple(map(wrap, arrays_out))
    if current_mode() == 0:
        edges = edges_of(inputs)
        if edges is not None:
            if edges is NOWHERE:
                op, edges = Cut(op), (None,) * len(inputs)
            kept = results[op.kept] if results else None
            version = kept._counter if kept is not None else None
            array = kept.array if kept is not None else None
            # A node with one output carries its gradient bare, so it needs no OutputEdge.
            count = len(results)
            node = recorded(
                op, edges, inputs, arrays, attrs, F, aux, array, version, count, results
            )
            meta = [(r.array.shape, r.array.dtype) for r in results]
            node.shapes = (*node.shapes, meta)
            for nr, result in enumerate(results):
                if result.array.dtype in dtypes.FLOATING:
                    result._edge = node if len(results) == 1 else OutputEdge(node, nr)
                    result._requires_grad = True
    return results


def output_grads(ctx: Any, grads: Any, F: Any, like: Any) -> list[Any]:
    """The gradients of several outputs with zeros for those that got none.

    ``like`` is an array (or Tensor) whose device the zeros share.
    """
    meta = ctx.shapes[-1]
    if len(meta) == 1:
        return [grads]
    return [F.zeros(shape, like) if g is None else g for g, (shape, _) in zip(grads, meta)]


def apply1(op: Any, input: Tensor, *attrs: Any) -> Tensor:
    """`apply` for one input and one output without aux, which most calls are."""
    array = input.array
    F = NAMESPACES[array.__class__]
    if F.twins is not None:
        op = F.twins[op]
    token = quiet()
    try:
        out = op.forward(F.xp, array, *attrs) if attrs else op.forward(F.xp, array)
    finally:
        loud(token)
    if out.__class__ is not array.__class__:
        out = F.xp.asarray(out)
    result = _new(Tensor)
    result.array = out
    result._edge = result._grad = result._view = None
    result._requires_grad = False
    mode = current_mode()
    result._counter = [0] if mode < INFERENCE else None
    if mode == 0 and (input._requires_grad or input._view is not None):
        edge = input._edge
        if edge is None or input._view is not None:
            edge = gradient_edge(input)
            if edge is None:
                if not input.requires_grad:
                    return result
                op = Cut(op)
        saves = op.saves
        saved: tuple[Any, ...] = ()
        versions: Any = None
        if saves:
            counter = input._counter
            if saves == _OUTPUT_ONLY:
                saved, versions = (out,), ((result._counter, 0),)
            elif counter is None:
                raise RuntimeError(INFERENCE_SAVED)
            elif saves == _INPUT_ONLY:
                saved, versions = (array,), ((counter, counter[0]),)
            else:
                saved = (array, out)
                versions = ((counter, counter[0]), (result._counter, 0))
        result._edge = record(op, (edge,), saved, versions, attrs, F, None, (array.shape,))
        result._requires_grad = True
    return result


_OUTPUT_ONLY = (OUT,)
_INPUT_ONLY = (0,)
_BOTH = (0, 1)


def same_device(*tensors: Tensor) -> None:
    """RuntimeError when tensors live on different devices."""
    first = tensors[0].array
    library = first.__class__
    for other in tensors:
        if other.array.__class__ is not library:
            a, b = device_of(first), device_of(other.array)
            raise RuntimeError(guard.MIXED.format(a, b, a))
    if guard.several is not None:
        guard.several.place(*tensors)


def gradients_of(
    function: Callable[..., Any],
    inputs: Sequence[Tensor | None],
    grads: Sequence[Tensor | None],
    wanted: Sequence[bool],
) -> tuple[Tensor | None, ...]:
    """Differentiable gradients of a composition, for the rule of a fused op under create_graph.

    ``function`` computes the op's outputs from its inputs with other ops; what comes back are
    Tensors in the graph of ``inputs`` and ``grads``.
    """
    with enable_grad():
        # Aliases, so that the pass stops here even where one input was made from another.
        aliases = [
            apply1(OPS["clone"], t) if t is not None and w else t for t, w in zip(inputs, wanted)
        ]
        outputs = function(*aliases)
        pairs = [(o, g) for o, g in zip(outputs, grads) if g is not None]
        edges = [gradient_edge(t) for t, w in zip(aliases, wanted) if w and t is not None]
        results = iter(
            graph.backward(
                [gradient_edge(o) for o, _ in pairs], [g for _, g in pairs], True, True, edges,
                accumulate=False,
            )
        )  # fmt: skip
    return tuple(next(results) if w and t is not None else None for t, w in zip(inputs, wanted))
