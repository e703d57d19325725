"""The graph: nodes and edges, the backward engine, leaf accumulation and the grad mode.

Read this file first. It knows no op, no device and no array library: a gradient is
anything with ``+``, and a rule is ``node.op.backward(ctx, grad, F)``. What PyTorch calls
``grad_fn`` is a `Node` here.

How a backward pass goes. Every recorded op makes one `Node` with a sequence number, the
edges to the nodes of its inputs, and the values its rule reads. `backward` keeps the
gradients that have arrived in a dictionary and the nodes they arrived at in a heap; the
node made last comes first, so all of its consumers have been there before it, and neither
a sorting pass nor recursion is needed. Leaves are nodes too (`AccumulateGrad`): made when
the leaf is first used, they come up after the last op that used it.
"""

from __future__ import annotations

import contextvars
import functools
import heapq
import inspect
import itertools
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterable, Sequence
from typing import Any, TypeVar

Gradient = Any
Callback = TypeVar("Callback", bound=Callable[..., Any])

# --------------------------------------------------------------------------- grad mode
# One integer per thread and per asyncio task: nothing is recorded unless it is 0.
NO_GRAD = 1
INFERENCE = 2
_mode: contextvars.ContextVar[int] = contextvars.ContextVar("gradlite_grad_mode", default=0)
current_mode = _mode.get


def is_grad_enabled() -> bool:
    """Whether ops on tensors that require grad are recorded."""
    return not current_mode() & NO_GRAD


def is_inference_mode_enabled() -> bool:
    """Whether the innermost `inference_mode` is on."""
    return bool(current_mode() & INFERENCE)


class _Mode:
    """Context manager and decorator that switches bits of the mode and restores them."""

    def __init__(self, set_bits: int, clear_bits: int) -> None:
        self._set, self._clear = set_bits, clear_bits
        self._previous: list[int] = []

    def __enter__(self) -> None:
        mode = current_mode()
        self._previous.append(mode)
        _mode.set(mode & ~self._clear | self._set)

    def __exit__(self, *exc: object) -> None:
        _mode.set(self._previous.pop())

    def _copy(self) -> _Mode:
        return _Mode(self._set, self._clear)

    def __call__(self, function: Callback) -> Callback:
        """Run the function, each step of a generator, or a coroutine in this mode."""
        wrapper: Any
        if inspect.isclass(function):
            warnings.warn(
                "Decorating classes is deprecated and will be disabled in future versions. You "
                "should only decorate functions or methods. To preserve the current behavior of "
                "class decoration, you can directly decorate the `__init__` method and nothing "
                "else.",
                FutureWarning,
                stacklevel=2,
            )
        if inspect.isgeneratorfunction(function):

            @functools.wraps(function)
            def generator(*args: Any, **kwargs: Any) -> Any:
                inner = function(*args, **kwargs)
                step: Callable[[], Any] = functools.partial(next, inner)
                while True:
                    try:
                        with self._copy():
                            item = step()
                    except StopIteration as stop:
                        return stop.value
                    try:
                        sent = yield item
                    except GeneratorExit:
                        with self._copy():
                            inner.close()
                        raise
                    except BaseException as error:  # handed on, exactly as it came
                        step = functools.partial(inner.throw, error)
                    else:
                        step = functools.partial(inner.send, sent)

            wrapper = generator
        elif inspect.isasyncgenfunction(function):

            @functools.wraps(function)
            async def async_generator(*args: Any, **kwargs: Any) -> Any:
                inner = function(*args, **kwargs)
                while True:
                    with self._copy():
                        try:
                            item = await inner.__anext__()
                        except StopAsyncIteration:
                            return
                    yield item

            wrapper = async_generator
        elif inspect.iscoroutinefunction(function):

            @functools.wraps(function)
            async def coroutine(*args: Any, **kwargs: Any) -> Any:
                with self._copy():
                    return await function(*args, **kwargs)

            wrapper = coroutine
        else:

            @functools.wraps(function)
            def plain(*args: Any, **kwargs: Any) -> Any:
                with self._copy():
                    return function(*args, **kwargs)

            wrapper = plain
        return wrapper


class no_grad(_Mode):
    """Record nothing: results do not require grad and keep no intermediate alive.

    A context manager and a decorator, for functions, generators and coroutines.

    >>> import gradlite
    >>> x = gradlite.ones(2, requires_grad=True)
    >>> with gradlite.no_grad():
    ...     y = x * 2
    >>> y.requires_grad
    False
    """

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is not None:  # used as a decorator without parentheses
            self.__init__()  # type: ignore[misc]
            return self(function)
        return self

    def __init__(self, function: None = None) -> None:
        super().__init__(NO_GRAD, 0)


class enable_grad(_Mode):
    """Record again inside a `no_grad` block; a context manager and a decorator."""

    def __new__(cls, function: Callable[..., Any] | None = None) -> Any:
        self = super().__new__(cls)
        if function is not None:
            self.__init__()  # type: ignore[misc]
            return self(function)
        return self

    def __init__(self, function: None = None) -> None:
        super().__init__(0, NO_GRAD)


class set_grad_enabled(_Mode):
    """Switch recording on or off: at once as a function, for a block as a context manager."""

    def __init__(self, mode: bool) -> None:
        super().__init__(0 if mode else NO_GRAD, NO_GRAD if mode else 0)
        before = current_mode()
        self._previous.append(before)
        _mode.set(before & ~self._clear | self._set)

    def __enter__(self) -> None:
        pass  # switched in __init__, so that a bare call works too

    def __call__(self, function: Callback) -> Callback:
        _mode.set(self._previous.pop())
        return super().__call__(function)


class inference_mode(_Mode):
    """Like `no_grad`, and the tensors made inside can never be used by autograd."""

    def __new__(cls, mode: bool | Callable[..., Any] = True) -> Any:
        self = super().__new__(cls)
        if callable(mode):
            self.__init__()  # type: ignore[misc]
            return self(mode)
        return self

    def __init__(self, mode: bool = True) -> None:
        if mode:
            super().__init__(NO_GRAD | INFERENCE, 0)
        else:
            super().__init__(0, NO_GRAD | INFERENCE)


# ------------------------------------------------------------------------------- nodes
_next_sequence_number = itertools.count(1).__next__
# What tensor.py hands in: wrap an array into a Tensor, take it out again, tell arrays from other
# values, look for NaNs.
wrap: Callable[[Any], Any]
unwrap: Callable[[Any], Any]
is_array: Callable[[Any], bool]
has_nan: Callable[[Any], bool]
# What the backend hands in: rules run without floating-point warnings.
quiet: Callable[[], Any]
loud: Callable[[Any], None]
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
        """What users see as this node: itself, but the context of a `Function`."""
        return self

    @property
    def behind(self) -> Node | None:
        """The engine's node of what users see."""
        return self

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes of the inputs, each with the number of the output that was used."""
        constants = getattr(self.op, "constants", ())
        if constants:
            return next_functions(e for p, e in enumerate(self.edges) if p not in constants)
        return next_functions(self.edges)

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

    def _extra(self) -> Extra:
        if self.extra is None:
            self.extra = Extra()
        return self.extra

    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn(grad_inputs, grad_outputs)`` after the rule; it may return new grad_inputs."""
        return _add_hook(self._extra().posthooks, fn)

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn(grad_outputs)`` before the rule; it may return new grad_outputs."""
        return _add_hook(self._extra().prehooks, (None, fn))


def next_functions(edges: Iterable[Any]) -> tuple[tuple[Node | None, int], ...]:
    """Edges as users see them: each a node and the number of its output."""
    return tuple(
        (None, 0)
        if edge is None
        else (edge.node.shown, edge.nr)
        if edge.__class__ is OutputEdge
        else (edge.shown, 0)
        for edge in edges
    )


class OutputEdge:
    """An edge to one output of a node that has several."""

    __slots__ = ("node", "nr")

    def __init__(self, node: Node, nr: int) -> None:
        self.node, self.nr = node, nr


class AccumulateGrad(Node):
    """The node of a leaf: adds what arrives to the leaf's ``.grad``.

    The node holds the leaf, the leaf holds the node weakly: together they die by reference
    counting.
    """

    __slots__ = ("variable",)

    class _Op:
        grad_name = "AccumulateGrad"

    def __init__(self, variable: Any, extra: Extra | None) -> None:
        self.variable = variable
        self.op = AccumulateGrad._Op
        self.edges = self.saved = self.attrs = ()
        self.versions = self.aux = self.shapes = self.F = None
        self.outputs = 1
        self.seq = _next_sequence_number()
        self.extra = extra


class Extra:
    """What few nodes carry: hooks, tensors that retain their grad, the forward's traceback."""

    __slots__ = ("prehooks", "posthooks", "post_accumulate", "retained", "trace", "metadata")

    def __init__(self) -> None:
        self.prehooks: dict[int, tuple[int | None, Callable[..., Any]]] = {}
        self.posthooks: dict[int, Callable[..., Any]] = {}
        self.post_accumulate: dict[int, Callable[..., Any]] = {}
        self.retained: dict[int, weakref.ref[Any]] = {}
        self.trace: list[str] | None = None
        self.metadata: dict[str, Any] = {}


class RemovableHandle:
    """Returned by every ``register_*hook``; ``remove()`` takes the hook away again."""

    __slots__ = ("_hooks", "id", "__weakref__")

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        self._hooks = hooks
        self.id = key

    def remove(self) -> None:
        """Remove the hook; calling it again does nothing."""
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


_next_hook_id = itertools.count().__next__


def _add_hook(hooks: dict[int, Any], value: Any) -> RemovableHandle:
    key = _next_hook_id()
    hooks[key] = value
    return RemovableHandle(hooks, key)


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
    if _saved_hooks.get():
        # What is packed may be a copy, so in-place edits of the original are no error.
        saved, versions, aux = _Packed(_pack(saved)), None, _pack(aux)
    node.saved = saved
    node.versions = versions
    node.attrs = attrs
    node.aux = aux
    node.shapes = shapes
    node.F = F
    node.outputs = outputs
    node.extra = None
    node.seq = _next_sequence_number()
    if anomaly_enabled:
        node._extra().trace = traceback.format_stack()[:-3]
    return node


def copy_node(node: Node, edges: tuple[Any, ...], saved: tuple[Any, ...] | None) -> Node:
    """A node for one use by a rule, with other edges or unpacked values."""
    twin = Node()
    for slot in ("op", "versions", "attrs", "aux", "shapes", "F", "outputs", "seq"):
        setattr(twin, slot, getattr(node, slot))
    if saved is not node.saved and node.saved.__class__ is _Packed:
        twin.aux = _unpack(node.aux)
    twin.edges, twin.saved, twin.extra = edges, saved, None
    return twin


# ------------------------------------------------------------------- saved-tensor hooks
_saved_hooks: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar(
    "gradlite_saved_hooks", default=()
)


class _Packed(tuple[Any, ...]):
    """The saved values of a node whose arrays went through a pack hook."""

    __slots__ = ()


class _PackedArray:
    """What the pack hook made of one array, with the hook that unpacks it."""

    __slots__ = ("value", "unpack", "source")

    def __init__(self, value: Any, unpack: Callable[[Any], Any], source: int) -> None:
        self.value, self.unpack, self.source = value, unpack, source  # the array's id


def _pack(value: Any) -> Any:
    """Arrays, and those inside of tuples, through the innermost pack hook; the rest as it is."""
    if isinstance(value, tuple):
        return tuple([_pack(v) for v in value])
    if not is_array(value):
        return value
    pack, unpack = _saved_hooks.get()[-1]
    with no_grad():
        return _PackedArray(pack(wrap(value)), unpack, id(value))


def _unpack(value: Any) -> Any:
    """What went into `_pack`."""
    if isinstance(value, tuple):
        return tuple([_unpack(v) for v in value])
    return unwrap(value.unpack(value.value)) if value.__class__ is _PackedArray else value


# ------------------------------------------------------------------------------ engine
SECOND_BACKWARD = (
    "Trying to backward through the graph a second time (or directly access saved tensors "
    "after they have already been freed). Saved intermediate values of the graph are freed "
    "when you call .backward() or autograd.grad(). Specify retain_graph=True if you need to "
    "backward through the graph a second time or if you need to access saved tensors after "
    "calling backward."
)


MOVED_LEAF = "leaf variable has been moved into the graph interior"
STALE_MULTIPLE_VIEW = (
    "is a view and its base or another view of its base has been modified inplace. This view is "
    "the output of a function that returns multiple views. Such functions do not allow the output "
    "views to be modified inplace. You should replace the inplace operation by an out-of-place one."
)


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
    pending: dict[Node, Any] = {}
    owned: set[Node] = set()  # the sum in `pending` is ours to add to in place
    shared: set[Node] = set()  # the first gradient came straight from elsewhere
    queue: list[tuple[int, Node]] = []
    leaves: list[AccumulateGrad] = []  # without hooks: order does not matter, so no queueing
    for edge, grad in zip(roots, grads):
        _deliver(edge, grad, pending, owned, queue, create_graph)
        shared.add(edge.node if edge.__class__ is OutputEdge else edge)
    push, pop = heapq.heappush, heapq.heappop
    wanted, needed = (None, None) if inputs is None else _targets(roots, inputs)
    results: list[Gradient] = [None] * (0 if inputs is None else len(inputs))
    before = current_mode()
    this_pass = _current_pass.set(Pass(roots, needed))
    _mode.set(before & ~NO_GRAD if create_graph else before | NO_GRAD)
    token = quiet()
    try:
        while queue:
            node = pop(queue)[1]
            grad = pending.pop(node)
            extra = node.extra
            edges = node.edges
            if wanted is not None:
                edges = tuple([e if _node_of(e) in needed else None for e in edges])  # type: ignore[operator]
                goes_on = any(edges)
                # As in PyTorch, hooks change what is returned only where the pass ends.
                if extra is not None and not goes_on:
                    grad = _run_prehooks(node, extra, grad)
                if node in wanted:
                    for place, nr in wanted[node]:
                        results[place] = grad[nr] if node.outputs > 1 else grad
                if not goes_on and not (
                    accumulate and node in wanted and node.__class__ is AccumulateGrad
                ):
                    continue
            if extra is not None:
                if wanted is None or goes_on:
                    grad = _run_prehooks(node, extra, grad)
                shared.add(node)  # a hook may have handed in an array of its own
                owned.discard(node)
            if node.__class__ is AccumulateGrad:
                if accumulate:
                    private = node in owned or node not in shared
                    _accumulate(node, grad, private, create_graph)  # type: ignore[arg-type]
                continue
            saved = node.saved
            if saved is None:
                raise RuntimeError(SECOND_BACKWARD)
            versions = node.versions
            if versions is not None:
                for version in versions:
                    if version is not None and version[0][0] != version[1]:
                        _raise_modified(node, versions.index(version), version)
            op = node.op
            ctx: Any = node
            if create_graph:
                ctx = op.tensor_context(node, edges)
            elif edges is not node.edges or saved.__class__ is _Packed:
                values = _unpack(saved) if saved.__class__ is _Packed else saved
                ctx = copy_node(node, edges, values)
            try:
                results_of_rule = op.backward(ctx, grad, ctx.F)
            except Exception:
                if anomaly_enabled:
                    _warn_trace(node)
                raise
            if anomaly_enabled and anomaly_check_nan:
                _check_nan(node, results_of_rule)
            if extra is not None and extra.posthooks:
                results_of_rule = _run_posthooks(extra, results_of_rule, grad)
            if not retain_graph and (saved or op.used_up):
                node.saved = node.aux = None
            for edge, part in zip(edges, results_of_rule):
                if edge is None or part is None:
                    continue
                cls = edge.__class__
                if cls is OutputEdge or edge in pending:
                    _deliver(edge, part, pending, owned, queue, create_graph)
                    continue
                pending[edge] = part
                if part is grad:
                    shared.add(edge)
                if cls is AccumulateGrad and edge.extra is None and wanted is None:
                    leaves.append(edge)
                else:
                    push(queue, (-edge.seq, edge))
        for leaf in leaves:
            if leaf.variable._edge is not None:
                raise RuntimeError(MOVED_LEAF)
            leaf.variable._accumulate(
                pending[leaf], leaf in owned or leaf not in shared, create_graph
            )
    finally:
        loud(token)
        _mode.set(before)
        _current_pass.reset(this_pass)
    return results


class Pass:
    """One backward pass, for the hooks that run in it."""

    __slots__ = ("_roots", "_needed", "_reached", "__weakref__")

    def __init__(self, roots: Iterable[Any], needed: set[Node] | None) -> None:
        self._roots, self._needed = roots, needed
        self._reached: set[Node] | None = None

    def reaches(self, node: Node) -> bool:
        """Whether the pass will bring a gradient to a node, or has done so."""
        if self._reached is None:
            self._reached, stack = set(), list(self._roots)
            while stack:
                found = _node_of(stack.pop())
                if found is None or found in self._reached:
                    continue
                if self._needed is None or found in self._needed:
                    self._reached.add(found)
                    stack.extend(found.edges)
        return node in self._reached


_current_pass: contextvars.ContextVar[Pass | None] = contextvars.ContextVar(
    "gradlite_current_pass", default=None
)
current_pass = _current_pass.get


def _node_of(edge: Any) -> Node | None:
    return edge.node if edge.__class__ is OutputEdge else edge


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
        parts[nr] = grad if parts[nr] is None else parts[nr] + grad
        return
    known = pending.get(edge)
    if known is None:
        pending[edge] = grad
        heapq.heappush(queue, (-edge.seq, edge))
    elif edge in owned and not create_graph:
        known += grad
        pending[edge] = known
    else:
        pending[edge] = known + grad
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
    stack = [_node_of(edge) for edge in roots]
    while stack:
        node = stack.pop()
        if node is None or node in seen or node.seq < lowest:
            continue
        seen.add(node)
        stack.extend(_node_of(edge) for edge in node.edges if edge is not None)
    for node in sorted(seen, key=lambda n: n.seq):
        if any(_node_of(edge) in needed for edge in node.edges if edge is not None):
            needed.add(node)
    return wanted, needed


def _accumulate(node: AccumulateGrad, grad: Gradient, private: bool, create_graph: bool) -> None:
    variable = node.variable
    if variable._edge is not None:
        raise RuntimeError(MOVED_LEAF)
    variable._accumulate(grad, private, create_graph)
    extra = node.extra
    if extra is not None:
        for hook in list(extra.post_accumulate.values()):
            result = hook(variable)
            if result is not None:
                if unwrap(result) is result:
                    raise TypeError(
                        f"expected Variable, but hook returned '{result.__class__.__name__}'"
                    )
                raise RuntimeError("Tensor post accumulate grad hooks should return None.")
        for post in list(extra.posthooks.values()):
            post((), (variable.grad,))


# ------------------------------------------------------------------------------- hooks
def _as_tensor(grad: Gradient) -> Any:
    return None if grad is None else wrap(grad)


def _as_gradient(tensor: Any, like: Gradient) -> Gradient:
    """Back to what the engine is carrying: an array, or a Tensor under create_graph."""
    return tensor if tensor is None or wrap(like) is like else unwrap(tensor)


def _run_prehooks(node: Node, extra: Extra, grad: Gradient) -> Gradient:
    several = node.outputs > 1
    parts = list(grad) if several else [grad]
    like = next((p for p in parts if p is not None), None)
    # Hooks on tensors run before hooks on the node, whatever the order of registration.
    for nr, hook in sorted(extra.prehooks.values(), key=lambda entry: entry[0] is None):
        if nr is None:
            given = tuple(_as_tensor(p) for p in parts)
            result = hook(given)
            if result is not None:
                result = result if isinstance(result, tuple) else (result,)
                if len(result) != len(given):
                    raise RuntimeError(
                        f"hook '{getattr(hook, '__name__', hook)}' has returned an incorrect "
                        f"number of values (got {len(result)}, but expected {len(given)})"
                    )
                parts = [_as_gradient(r, like) for r in result]
        else:
            result = hook(_as_tensor(parts[nr]))
            if result is not None:
                parts[nr] = _as_gradient(_checked(result, parts[nr]), like)
    for nr, reference in extra.retained.items():
        tensor = reference()
        if tensor is not None and parts[nr] is not None:
            tensor._retain(parts[nr])
    return parts if several else parts[0]


def _checked(result: Any, grad: Gradient) -> Any:
    if unwrap(result) is result:
        raise TypeError(f"expected Variable, but hook returned '{result.__class__.__name__}'")
    if grad is not None and tuple(result.shape) != tuple(grad.shape):
        raise RuntimeError("hook has changed the size of value")
    return result


def _run_posthooks(extra: Extra, grads: Sequence[Gradient], grad: Gradient) -> Sequence[Gradient]:
    outputs = grad if isinstance(grad, list) else [grad]
    like = next((p for p in outputs if p is not None), None)
    for hook in list(extra.posthooks.values()):
        given = tuple(_as_tensor(g) for g in grads)
        result = hook(given, tuple(_as_tensor(g) for g in outputs))
        if result is not None:
            result = result if isinstance(result, tuple) else (result,)
            if len(result) != len(given):
                raise RuntimeError(
                    f"hook '{getattr(hook, '__name__', hook)}' has returned an incorrect number "
                    f"of values (got {len(result)}, but expected {len(given)})"
                )
            grads = [_as_gradient(r, like) for r in result]
    return grads


# ------------------------------------------------------------------------------ errors
def _raise_modified(node: Node, place: int, version: tuple[list[int], int]) -> None:
    position = node.op.saved_position(node, place)
    made_by: Any = node if position < 0 else node.edges[position]
    nr = 0
    if made_by.__class__ is OutputEdge:
        made_by, nr = made_by.node, made_by.nr
        if getattr(made_by.op, "multiple_views", False):
            raise RuntimeError(f"Output {nr} of {plain_name(made_by)} {STALE_MULTIPLE_VIEW}")
    which = ""
    if position >= 0 and len(version[0]) > 1:  # the last op that wrote to it in place
        which = f", which is output 0 of {version[0][1]},"
    elif made_by is not None and made_by.__class__ is not AccumulateGrad:
        which = f", which is output {nr} of {plain_name(made_by)},"
    assert node.saved is not None
    value = node.saved[place]
    described = node.op.describe(value)
    hint = (
        "Hint: enable anomaly detection to find the operation that failed to compute its "
        "gradient, with gradlite.autograd.set_detect_anomaly(True, check_nan=False)."
    )
    if anomaly_enabled:
        _warn_trace(node)
        hint = (
            "Hint: the backtrace further above shows the operation that failed to compute its "
            "gradient. The variable in question was changed in there or anywhere later. Good luck!"
        )
    raise RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace "
        f"operation: [{described}]{which} is at version {version[0][0]}; expected version "
        f"{version[1]} instead. {hint}"
    )


def plain_name(node: Node) -> str:
    """The op's name in messages: without "Backward" and a final 0."""
    name, _, variant = node.name().partition("Backward")
    return name + variant.removeprefix("0")


def _check_nan(node: Node, grads: Sequence[Gradient]) -> None:
    for place, grad in enumerate(grads):
        if grad is not None and has_nan(grad):
            _warn_trace(node)
            raise RuntimeError(
                f"Function '{node.name()}' returned nan values in its {place}th output."
            )


def _warn_trace(node: Node) -> None:
    trace = node.extra.trace if node.extra is not None else None
    if trace is None:
        text = (
            f"Error detected in {node.name()}. No forward pass information available. Enable "
            "detect anomaly during forward pass for more information."
        )
    else:
        text = (
            f"Error detected in {node.name()}. Traceback of forward call that caused the error:\n"
            + "".join(trace)
        )
    warnings.warn(text, UserWarning, stacklevel=3)
