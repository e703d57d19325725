"""The graph: nodes and edges, the backward engine and leaf accumulation.

Read this file first. It knows no op, no device and no array library: a gradient is
anything with ``+``, and a rule is ``node.op.backward(ctx, grad, F)``. What PyTorch calls
``grad_fn`` is a `Node` here.

How a backward pass goes. Every recorded op makes one `Node` with a sequence number, the
edges to the nodes of its inputs, and the values its rule reads. `backward` keeps the
gradients that have arrived in a dictionary and the nodes they arrived at in a heap; the
node made last comes first, so all of its consumers have been there before it, and neither
a sorting pass nor recursion is needed. Leaves are nodes too (`AccumulateGrad`): made when
the leaf is first used, they come up after the last op that used it.

Beside it lie `grad_mode` (whether ops are recorded), `graph_passes` (edges, and what is known of a
pass that runs), `graph_hooks` and `graph_errors`.
"""

from __future__ import annotations

import heapq
import itertools
import operator
import traceback
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from typing import Any

from gradlite import graph_hooks
from gradlite.grad_mode import NO_GRAD, current_mode, set_mode
from gradlite.graph_errors import (
    SECOND_BACKWARD,
    STALE_MULTIPLE_VIEW,
    check_nan,
    modified,
    plain_name,
    warn_trace,
)
from gradlite.graph_hooks import (
    Extra,
    Packed,
    RemovableHandle,
    add_hook,
    differentiable,
    pack_saved,
    remove_with,
    run_leaf_hooks,
    run_posthooks,
    run_prehooks,
    saved_hooks,
    unpack_saved,
)
from gradlite.graph_passes import OutputEdge as OutputEdge
from gradlite.graph_passes import Pass, in_another_thread, innermost_pass, node_of, reachable
from gradlite.graph_passes import current_pass as current_pass
from gradlite.graph_passes import next_functions as next_functions

Gradient = Any


# ------------------------------------------------------------------------------- nodes
next_sequence_number = itertools.count(1).__next__
packing = saved_hooks.get
# What the backend hands in: rules run without floating-point warnings.
quiet: Callable[[], Any]
loud: Callable[[Any], None]
# How gradients are added; where there are several GPUs, on that of the gradients.
add: Callable[[Any, Any], Any] = operator.add
add_in_place: Callable[[Any, Any], Any] = operator.iadd
anomaly_enabled = False
anomaly_check_nan = True


class Node:
    """One recorded op: what PyTorch shows as ``grad_fn``.

    Slots: ``op`` (name and rule), ``edges`` (one per input: a `Node`, an `OutputEdge` or
    None), ``saved`` (the values the rule reads; None once backward has freed them),
    ``versions`` (their version counters and the versions expected), ``attrs``, ``aux`` and
    ``shapes`` (what else the rule wants to know), ``F`` (the namespace it is written
    against), ``outputs`` (how many), ``seq`` (the order of the forward pass) and ``extra``
    (hooks and traces; None on almost every node).
    """

    __slots__ = (
        "op",
        "edges",
        "saved",
        "versions",
        "attrs",
        "aux",
        "shapes",
        "F",
        "outputs",
        "seq",
        "extra",
        "__weakref__",
    )
    op: Any
    edges: tuple[Any, ...]
    saved: tuple[Any, ...] | None
    versions: tuple[Any, ...] | None
    attrs: tuple[Any, ...]
    aux: Any
    shapes: Any
    F: Any
    outputs: int
    seq: int
    extra: Extra | None

    def name(self) -> str:
        """The op's name as PyTorch writes it, for example ``MulBackward0``."""
        return str(self.op.grad_name)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self):#x}>"

    @property
    def shown(self) -> Node:
        """What users see as this node: itself, but the context of a `Function`.

        A node of two ops comes apart first, into those that two calls would have made.
        """
        _take_apart(self)
        return self

    @property
    def behind(self) -> Node | None:
        """The engine's node of what users see."""
        return self

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes of the inputs, each with the number of the output that was used."""
        return next_functions(differentiable(self, self.edges))

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each input, whether somebody needs its gradient."""
        return tuple(edge is not None for edge in self.edges)

    @property
    def metadata(self) -> dict[str, Any]:
        """A dictionary for the user's own notes about this node."""
        return self._extra().metadata

    def _sequence_nr(self) -> int:
        return self.seq

    def __dir__(self) -> list[str]:
        plain = [name for name in object.__dir__(self) if "_saved_" not in name]
        return [*plain, *(f"_saved_{name}" for name in graph_hooks.saved_names(self))]

    def _extra(self) -> Extra:
        if self.extra is None:
            self.extra = Extra()
        return self.extra

    def __call__(self, *grad_outputs: Any) -> Any:
        """The rule on its own: what it makes of one Tensor per output, without any hook."""
        if len(grad_outputs) != self.outputs:
            raise TypeError(f"expected {self.outputs} arguments, got {len(grad_outputs)} instead")
        _check_saved(self)
        recording = current_mode() == 0
        grads = [g if recording else graph_hooks.unwrap(g) for g in grad_outputs]
        parts = _apply(self, self.edges, grads if self.outputs > 1 else grads[0], recording)
        tensors = [None if p is None else graph_hooks.wrap(p) for p in differentiable(self, parts)]
        return tuple(tensors) if len(tensors) > 1 else tensors[0]

    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn(grad_inputs, grad_outputs)`` after the rule; it may return new grad_inputs."""
        return add_hook(self._extra().posthooks, fn)

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn(grad_outputs)`` before the rule; it may return new grad_outputs."""
        return add_hook(self._extra().prehooks, (None, fn))


def _take_apart(node: Node) -> None:
    take_apart = getattr(node.op, "take_apart", None)
    if take_apart is not None:
        take_apart(node)


class AccumulateGrad(Node):
    """The node of a leaf: adds what arrives to the leaf's ``.grad``.

    The node holds the leaf, the leaf holds the node weakly: together they die by reference
    counting. `gradlite.tensor.gradient_edge` makes it.
    """

    __slots__ = ("variable",)

    class _Op:
        grad_name = "AccumulateGrad"

    # One is made for every leaf in every step: what is the same for all stands in the class.
    op = _Op
    edges = attrs = ()
    saved = versions = aux = shapes = F = None
    outputs = 1
    variable: Any

    # The hooks of the leaf itself stay with the leaf, these go with the node.
    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn((), grad_outputs)`` after ``.grad`` has been added to."""
        return remove_with(self, super().register_hook(fn))

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn(grad_outputs)`` before; it may return new grad_outputs."""
        return remove_with(self, super().register_prehook(fn))


def record(
    op: Any,
    edges: tuple[Any, ...],
    saved: tuple[Any, ...],
    versions: tuple[Any, ...] | None,
    attrs: tuple[Any, ...],
    F: Any,
    aux: Any = None,
    shapes: Any = None,
    outputs: int = 1,
) -> Node:
    """Make the node of an op that has just run."""
    node = Node()
    node.op = op
    node.edges = edges
    if packing():
        # What is packed may be a copy, so in-place edits of the original are no error.
        sources = [edges[p] if 0 <= p < len(edges) else None for p in op.saves[: len(saved)]]
        packed = [pack_saved(*pair) for pair in itertools.zip_longest(saved, sources)]
        saved, versions, aux = Packed(packed), None, pack_saved(aux)
    node.saved = saved
    node.versions = versions
    node.attrs = attrs
    node.aux = aux
    node.shapes = shapes
    node.F = F
    node.outputs = outputs
    node.extra = None
    node.seq = next_sequence_number()
    if anomaly_enabled:
        trace_forward(node, 4)
    return node


def trace_forward(node: Node, frames: int) -> None:
    """Note where a node is made, ``frames`` up from here; in a pass, by the rule of which node."""
    running, extra = current_pass(), node._extra()
    extra.trace = traceback.format_stack()[:-frames]
    extra.induced_by = None if running is None else running.node


def copy_node(node: Node, edges: tuple[Any, ...], saved: tuple[Any, ...] | None) -> Node:
    """A node for one use by a rule, with other edges or unpacked values."""
    twin = Node()
    for slot in ("op", "versions", "attrs", "aux", "shapes", "F", "outputs", "seq"):
        setattr(twin, slot, getattr(node, slot))
    if saved is not node.saved and node.saved.__class__ is Packed:
        twin.aux = unpack_saved(node.aux)
    twin.edges, twin.saved, twin.extra = edges, saved, node.extra
    return twin


def backward(
    roots: Sequence[Any],
    grads: Sequence[Gradient],
    retain_graph: bool,
    create_graph: bool,
    inputs: Sequence[Any] | None = None,
    accumulate: bool = True,
) -> list[Gradient]:
    """Carry gradients from the root edges down the graph.

    Args:
        roots: edges of the outputs (`Node`, `OutputEdge`).
        grads: their gradients: arrays, or Tensors when ``create_graph``.
        inputs: edges whose gradients are returned; None means every leaf. The rules are
            asked only for gradients on the way to them.
        accumulate: whether leaves among what is reached get their ``.grad``.

    Returns:
        The gradients of ``inputs`` in their order, None where nothing arrived.
    """
    outer = current_pass()
    if outer is not None and outer.is_deep():
        start = partial(backward, roots, grads, retain_graph, create_graph, inputs, accumulate)
        return in_another_thread(start)  # type: ignore[no-any-return]
    pending: dict[Node, Any] = {}
    owned: set[Node] = set()  # the sum in `pending` is ours to add to in place
    shared: set[Node] = set()  # the first gradient came straight from elsewhere
    queue: list[tuple[int, Node]] = []
    # The next node where no other waits, and its gradient: that saves the queue.
    following: Any = None
    coming: Any = None
    leaves: list[AccumulateGrad] = []  # without hooks: order does not matter, so no queueing
    if len(roots) == 1 and roots[0].__class__ is not OutputEdge:
        following, coming = roots[0], grads[0]
        shared.add(following)
    else:
        for edge, grad in zip(roots, grads):
            _deliver(edge, grad, pending, owned, queue, create_graph)
            shared.add(edge.node if edge.__class__ is OutputEdge else edge)
    push, pop = heapq.heappush, heapq.heappop
    wanted, needed = (None, None) if inputs is None else _targets(roots, inputs)
    results: list[Gradient] = [None] * (0 if inputs is None else len(inputs))
    before = current_mode()
    to_all = accumulate and inputs is None and not create_graph and not anomaly_enabled
    plain, frees = inputs is None and not create_graph, not retain_graph
    this_pass = Pass(roots, needed, to_all, outer)
    if not create_graph and not anomaly_enabled:
        this_pass.sums, this_pass.owned = pending, owned
    token_of_pass = innermost_pass.set(this_pass)
    set_mode(before & ~NO_GRAD if create_graph else before | NO_GRAD)
    token = quiet()
    try:
        while following is not None or queue:
            if following is None:
                node = pop(queue)[1]
                grad = pending.pop(node)
            else:
                node, grad, following = following, coming, None
            edges, extra, saved = node.edges, node.extra, node.saved
            if plain and extra is None and saved.__class__ is tuple and not anomaly_enabled:
                # Most nodes by far: what follows below for the others, without its questions.
                versions = node.versions
                if versions is not None:
                    for version in versions:
                        if version is not None and version[0][0] != version[1]:
                            raise_modified(node, versions.index(version), version)
                op = node.op
                parts = op.backward(node, grad, node.F)
                if frees and (saved or op.used_up):
                    node.saved = node.aux = None
            else:
                if wanted is not None:
                    if node not in needed:  # type: ignore[operator]
                        # An output that none of the inputs leads to; PyTorch enters an only one.
                        if extra is not None and len(roots) == 1:
                            run_prehooks(node, extra, grad, runs=False)
                        continue
                    edges = tuple([e if node_of(e) in needed else None for e in edges])  # type: ignore[operator]
                    goes_on = any(edges)
                    # As in PyTorch, hooks change what is returned only where the pass ends.
                    if extra is not None and not goes_on:
                        grad = run_prehooks(node, extra, grad, runs=accumulate)
                    if node in wanted:
                        for place, nr in wanted[node]:
                            results[place] = grad[nr] if node.outputs > 1 else grad
                    if not goes_on:
                        if not accumulate:
                            continue
                        if node.__class__ is not AccumulateGrad:
                            _stop(node, grad, retain_graph, create_graph)
                            continue
                if extra is not None:
                    if wanted is None or goes_on:
                        grad = run_prehooks(node, extra, grad)
                    shared.add(node)  # a hook may have handed in an array of its own
                    owned.discard(node)
                if node.__class__ is AccumulateGrad:
                    if accumulate:
                        private = node in owned or node not in shared
                        _accumulate(node, grad, private, create_graph)  # type: ignore[arg-type]
                    continue
                parts = _run(node, edges, grad, retain_graph, create_graph)
            for edge, part in zip(edges, parts):
                if edge is None or part is None:
                    continue
                kind = edge.__class__
                if kind is OutputEdge or edge in pending:
                    _deliver(edge, part, pending, owned, queue, create_graph)
                elif kind is AccumulateGrad:
                    pending[edge] = part
                    if part is grad:
                        shared.add(edge)
                    if edge.extra is None and wanted is None:
                        leaves.append(edge)
                    else:
                        push(queue, (-edge.seq, edge))
                elif edge is following:  # from the other operand of a product, say
                    coming = add(coming, part)
                elif following is None and not queue:
                    following, coming = edge, part
                else:
                    pending[edge] = part
                    push(queue, (-edge.seq, edge))
            if queue and following is not None:
                pending[following] = coming
                push(queue, (-following.seq, following))
                following = None
        for leaf in leaves:
            leaf.variable._accumulate(
                pending[leaf], leaf in owned or leaf not in shared, create_graph
            )
        if this_pass.callbacks is not None:
            for callback in this_pass.callbacks:  # which may append to the list
                callback()
    except RuntimeError:
        ahead = reachable((node, following, *(n for _, n in queue)))
        for leaf in leaves:  # where all has arrived, PyTorch would have come to it first
            if leaf not in ahead:
                leaf.variable._check_leaf()
        raise
    finally:
        loud(token)
        set_mode(before)
        innermost_pass.reset(token_of_pass)
    return results


def _run(
    node: Node, edges: tuple[Any, ...], grad: Gradient, retain_graph: bool, create_graph: bool
) -> Sequence[Gradient]:
    """What a node's rule makes of a gradient, for the edges that are still wanted."""
    saved, extra = node.saved, node.extra
    _check_saved(node)
    if anomaly_enabled and (running := current_pass()) is not None:
        running.node = node
    try:
        parts = _apply(node, edges, grad, create_graph)
    except Exception:
        if anomaly_enabled:
            warn_trace(node)
        raise
    if anomaly_enabled and anomaly_check_nan:
        check_nan(node, parts)
    if extra is not None and extra.posthooks:
        parts = run_posthooks(node, extra, parts, grad)
    if not retain_graph and (saved or node.op.used_up):
        node.saved = node.aux = None
    return parts


def _check_saved(node: Node) -> None:
    """RuntimeError about values that were freed, or edited in place."""
    if node.saved is None:
        raise RuntimeError(SECOND_BACKWARD)
    for place, version in enumerate(node.versions or ()):
        if version is not None and version[0][0] != version[1]:
            raise_modified(node, place, version)


def _apply(
    node: Node, edges: tuple[Any, ...], grad: Gradient, create_graph: bool
) -> Sequence[Gradient]:
    """A node's rule on a gradient, without hooks."""
    saved, ctx = node.saved, node
    if create_graph:
        ctx = node.op.tensor_context(node, edges)
    elif edges is not node.edges or saved.__class__ is Packed:
        ctx = copy_node(node, edges, unpack_saved(saved) if saved.__class__ is Packed else saved)
    return node.op.backward(ctx, grad, ctx.F)  # type: ignore[no-any-return]


def _stop(node: Node, grad: Gradient, retain_graph: bool, create_graph: bool) -> None:
    """Run a node at which `Tensor.backward` stops, as nobody wants what its rule would make."""
    if node.op.user_defined:
        _run(node, node.edges, grad, retain_graph, create_graph)
        return
    _check_saved(node)
    if node.extra is not None and node.extra.posthooks:
        run_posthooks(node, node.extra, (None,) * len(node.edges), grad)
    if not retain_graph and (node.saved or node.op.used_up):
        node.saved = node.aux = None


def leaf_at(ctx: Any, place: int) -> Any:
    """The leaf behind an edge when a rule may add to its ``.grad`` by itself; else None.

    It then returns None as that gradient. Not so where a hook is to see it on its way.
    """
    edge, this = ctx.edges[place], current_pass()
    if this is None or not this.to_all or edge.__class__ is not AccumulateGrad:
        return None
    return None if ctx.extra is not None or edge.extra is not None else edge.variable


def add_part(ctx: Any, place: int, part: Any, index: Any) -> bool | None:
    """Add the gradient of a part of an input to the sum behind an edge, in place.

    Returns:
        True: it is done, and the rule returns None as that gradient. False: not so, where the rule
        returns the gradient of the whole. None: likewise, in an array of its own, to which the
        next parts are added.
    """
    this = current_pass()
    if ctx.__class__ is not Node or ctx.extra is not None or this is None or this.sums is None:
        return False  # a rule of another's, or one whose gradients a hook is to see
    edge = ctx.edges[place]
    if edge.__class__ is OutputEdge:
        return False
    known = this.sums.get(edge)
    if known is None:
        this.owned.add(edge)
        return None
    fits = known.__class__ is part.__class__ and known.shape == ctx.shapes[place]
    if not fits or known.dtype != part.dtype or edge not in this.owned:
        return False
    add_in_place(known[index], part)
    return True


def _deliver(
    edge: Any,
    grad: Gradient,
    pending: dict[Node, Any],
    owned: set[Node],
    queue: list[tuple[int, Node]],
    create_graph: bool,
) -> None:
    """Borrow the first gradient of a node, allocate at the second, then add in place."""
    if edge.__class__ is OutputEdge:
        node, nr = edge.node, edge.nr
        parts = pending.get(node)
        if parts is None:
            parts = pending[node] = [None] * node.outputs
            heapq.heappush(queue, (-node.seq, node))
        parts[nr] = grad if parts[nr] is None else add(parts[nr], grad)
        return
    known = pending.get(edge)
    if known is None:
        pending[edge] = grad
        heapq.heappush(queue, (-edge.seq, edge))
    elif edge in owned and not create_graph:
        pending[edge] = add_in_place(known, grad)
    else:
        pending[edge] = add(known, grad)
        owned.add(edge)


def _targets(
    roots: Iterable[Any], inputs: Sequence[Any]
) -> tuple[dict[Node, list[tuple[int, int]]], set[Node]]:
    """The input nodes with their places, and every node on a path to one of them."""
    wanted: dict[Node, list[tuple[int, int]]] = {}
    for place, edge in enumerate(inputs):
        node, nr = (edge.node, edge.nr) if edge.__class__ is OutputEdge else (edge, 0)
        if node is not None:
            wanted.setdefault(node, []).append((place, nr))
    lowest = min((node.seq for node in wanted), default=0)
    needed = set(wanted)
    # Parents are always older than their consumers: collect downwards, then judge upwards.
    seen: set[Node] = set()
    stack = [node_of(edge) for edge in roots]
    while stack:
        node = stack.pop()
        if node is None or node in seen or node.seq < lowest:
            continue
        seen.add(node)
        _take_apart(node)  # what is needed is known by node, and hooks may look at them
        stack.extend(node_of(edge) for edge in node.edges if edge is not None)
    for node in sorted(seen, key=lambda n: n.seq):
        if any(node_of(edge) in needed for edge in node.edges if edge is not None):
            needed.add(node)
    return wanted, needed


def _accumulate(node: AccumulateGrad, grad: Gradient, private: bool, create_graph: bool) -> None:
    variable = node.variable
    first = variable._grad is None
    variable._accumulate(grad, private, create_graph)
    if node.extra is not None:
        # The first gradient has become .grad: who edits that edits this.
        run_leaf_hooks(node.extra, variable, variable._grad if first else grad)


def raise_modified(node: Node, place: int, version: tuple[list[Any], int]) -> None:
    """RuntimeError about a saved value that has been edited in place."""
    position = node.op.saved_position(node, place)
    edge: Any = node if position < 0 else node.edges[position]
    made_by, nr = edge, max(-1 - position, 0)
    if edge.__class__ is OutputEdge:
        made_by, nr = edge.node, edge.nr
        if getattr(made_by.op, "multiple_views", False):
            raise RuntimeError(f"Output {nr} of {plain_name(made_by)} {STALE_MULTIPLE_VIEW}")
    maker = ""
    if position >= 0 and len(version[0]) > 1:  # the last op that wrote to it in place
        maker = f"output 0 of {version[0][1]}"
    elif position < 0 and node.op.kept:
        pass  # positions have no place in the graph
    elif made_by is not None and made_by.__class__ is not AccumulateGrad:
        maker = f"output {nr} of {plain_name(made_by)}"
    if anomaly_enabled:
        warn_trace(node)
    raise modified(node, place, version, maker, anomaly_enabled)
