"""The table of ops, and the few functions through which every op runs.

A primitive op is a class: ``forward`` on raw arrays and ``backward``, its rule, written once
against operators and the namespace ``F``. The same rule runs on NumPy arrays, on CuPy arrays
and, under ``create_graph=True``, on Tensors, so second derivatives come by themselves.
`public` enters what users call into `TABLE`, which drives the generic tests, the Tensor
methods and the documentation.
"""

from __future__ import annotations

import re
import weakref
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, TypeVar

import numpy as np

from gradlite import dtypes, graph
from gradlite import tensor as tensor_module
from gradlite.backends.cpu import loud, quiet
from gradlite.device import device_of
from gradlite.grad_mode import INFERENCE, NO_GRAD, current_mode, enable_grad
from gradlite.graph import Node, OutputEdge, record
from gradlite.graph_errors import plain_name
from gradlite.graph_hooks import Packed, PackedArray, pack_saved, unpack_saved
from gradlite.tensor import Tensor, View, gradient_edge, wrap

OUT = -1
INFERENCE_SAVED = (
    "Inference tensors cannot be saved for backward. Please do not use Tensors created in "
    "inference mode in computation tracked by autograd. To work around this, you can make a "
    "clone to get a normal tensor and use it in autograd, or use `gradlite.no_grad()` instead of "
    "`gradlite.inference_mode()`."
)
Function = TypeVar("Function", bound=Callable[..., Any])
_new = object.__new__


# ------------------------------------------------------------------------ primitive ops
class Op:
    """Base of the primitive ops; subclasses are never instantiated.

    Attributes of a subclass:
        reads: for each tensor input, the positions (inputs from 0, `OUT` for the output) of the
            values its gradient reads. A value is kept only when such a gradient is wanted.
        outputs: number of outputs; 0 means as many as forward returns in its tuple.
        variadic: forward takes one list of arrays instead of one argument per array.
        has_aux: forward returns ``(out, aux)``; the rule finds aux in ``ctx.aux``.
        constants: positions of inputs that never get a gradient (indices, masks), which
            ``grad_fn.next_functions`` leaves out.
        fname: the op's name in the rules' namespace F; by default the class name in snake_case.
        used_up: whether one backward pass uses the node up although it saved no tensor (its
            aux or attrs hold what PyTorch saves); by default when it has aux.
        grad_name: what ``grad_fn`` shows; by default the class name + "Backward0".

    ``forward(xp, *arrays, *attrs)`` returns an array (or a tuple of them);
    ``backward(ctx, grad, F)`` returns one gradient or None per tensor input.
    """

    reads: tuple[tuple[int, ...], ...] = ((),)
    outputs = 1
    has_aux = False
    variadic = False
    used_up = False
    constants: tuple[int, ...] = ()
    fname = ""
    grad_name = ""
    saves: tuple[int, ...] = ()
    _plans: dict[Any, tuple[int | None, ...]]

    forward: Callable[..., Any]
    backward: Callable[..., Any]

    def __init_subclass__(cls) -> None:
        name = cls.__name__
        if "grad_name" not in cls.__dict__:
            cls.grad_name = f"{name}Backward0"
        if "has_aux" in cls.__dict__ and "used_up" not in cls.__dict__:
            cls.used_up = cls.has_aux
        if "fname" not in cls.__dict__:
            cls.fname = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", name).lower()
        for function in ("forward", "backward"):
            if function in cls.__dict__ and not isinstance(cls.__dict__[function], staticmethod):
                setattr(cls, function, staticmethod(cls.__dict__[function]))
        read = {position for positions in cls.reads for position in positions}
        cls.saves = (*sorted(p for p in read if p >= 0), *([OUT] if OUT in read else []))
        cls._plans = {}
        if not hasattr(cls, "forward"):
            return  # a base of several ops, or CopySlices, which nobody calls
        OPS[cls.fname] = cls
        for namespace in NAMESPACES.values():
            namespace.enter(cls)

    @classmethod
    def plan(cls, wanted: tuple[bool, ...]) -> tuple[int | None, ...]:
        """Which of `saves` to keep when these inputs' gradients are wanted (None: not kept)."""
        plan = cls._plans.get(wanted)
        if plan is None:
            reads = cls.reads
            if len(reads) < len(wanted):  # any number of inputs: all read the same
                reads = reads[:1] * len(wanted)
            read = {p for w, positions in zip(wanted, reads) if w for p in positions}
            plan = cls._plans[wanted] = tuple(p if p in read else None for p in cls.saves)
        return plan

    @staticmethod
    def tensor_context(node: Node, edges: tuple[Any, ...]) -> TensorContext:
        """What the rule sees under create_graph: saved values as Tensors in the graph."""
        return TensorContext(node, edges)

    @classmethod
    def saved_position(cls, node: Node, place: int) -> int:
        """Which input (or `OUT`) a saved value of the node is."""
        return cls.saves[place]

    @staticmethod
    def describe(value: Any) -> str:
        """A saved value in error messages, as ``gradlite.FloatTensor [3]``."""
        return describe(value)


_TYPE_NAMES = {
    "float16": "Half", "float32": "Float", "float64": "Double", "int64": "Long", "int32": "Int",
    "int16": "Short", "int8": "Char", "uint8": "Byte", "bool": "Bool",
}  # fmt: skip


def type_name(numpy_dtype: np.dtype[Any]) -> str:
    """A dtype in PyTorch's error messages: Float, Double, Long, ..."""
    return _TYPE_NAMES[numpy_dtype.name]


def describe(array: Any) -> str:
    """An array in error messages: type and shape."""
    sizes = ", ".join(map(str, array.shape))
    return f"gradlite.{type_name(array.dtype)}Tensor [{sizes}]"


class TensorContext:
    """A node as its rule sees it under create_graph."""

    __slots__ = ("saved", "edges", "attrs", "aux", "shapes", "F", "node")

    def __init__(self, node: Node, edges: tuple[Any, ...]) -> None:
        self.node, self.edges = node, edges
        self.attrs, self.aux, self.shapes = node.attrs, node.aux, node.shapes
        self.F = TENSORS
        saved = node.saved or ()
        packed = node.saved.__class__ is Packed
        if packed:
            saved, self.aux = unpack_saved(saved), unpack_saved(node.aux)
        self.saved = tuple(
            None if value is None else self._tensor(place, value, packed)
            for place, value in enumerate(saved)
        )

    def _tensor(self, place: int, array: Any, packed: bool) -> Any:
        if not hasattr(array, "shape"):
            return array  # a Python number
        position = self.node.op.saved_position(self.node, place)
        edge = self.node if position == OUT else self.node.edges[position]
        if edge is self.node and self.node.outputs > 1:
            edge = OutputEdge(self.node, 0)
        if packed:
            return stand_in(array, edge)
        if edge.__class__ is graph.AccumulateGrad:
            return edge.variable  # type: ignore[no-any-return]
        result = wrap(array)
        versions = self.node.versions
        if versions is not None and versions[place] is not None:
            result._counter = versions[place][0]  # edits are caught in this graph too
        if edge is not None:
            result._edge, result._requires_grad = edge, True
        return result

    @property
    def needs_input_grad(self) -> tuple[bool, ...]:
        """For each input, whether somebody needs its gradient."""
        return tuple(edge is not None for edge in self.edges)


def stand_in(array: Any, edge: Any) -> Tensor:
    """A Tensor around an array at the place in the graph that an edge says."""
    result = wrap(array)
    if edge is not None:
        result._requires_grad = True
        if edge.__class__ is graph.AccumulateGrad:
            result._accumulator = weakref.ref(edge)
        else:
            result._edge = edge
    return result


# ------------------------------------------------------------------ namespaces of rules
class Namespace:
    """What a rule calls F: every primitive op under its ``fname``, on arrays or on Tensors."""

    tensors = False

    def __init__(self, xp: Any) -> None:
        self.xp = xp
        for op in OPS.values():
            self.enter(op)

    def __getattr__(self, name: str) -> Any:
        raise AttributeError(f"no primitive op is called {name!r}")

    def enter(self, op: Any) -> None:
        """Enter one op."""
        setattr(self, op.fname, self._bind(op))

    def _bind(self, op: Any) -> Callable[..., Any]:
        forward, xp = op.forward, self.xp
        if op.has_aux:

            def call(*args: Any) -> Any:
                return forward(xp, *args)[0]

            return call
        return partial(forward, xp)

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        """Zeros with another array's dtype and device."""
        return self.xp.zeros(shape, like.dtype)

    def detach(self, value: Any) -> Any:
        """The value as a constant."""
        return value

    def array(self, value: Any) -> Any:
        """The raw array of a value."""
        return value


class TensorNamespace(Namespace):
    """The ops on Tensors, so that what the rule computes is recorded."""

    tensors = True

    def _bind(self, op: Any) -> Callable[..., Any]:
        arity = len(op.reads)

        def call(*args: Any) -> Any:
            if isinstance(args[0], (list, tuple)):
                return apply(op, [as_tensor_operand(a) for a in args[0]], *args[1:])
            inputs = [None if a is None else as_tensor_operand(a) for a in args[:arity]]
            return apply(op, inputs, *args[arity:])

        return call

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        array = like.array
        return wrap(NAMESPACES[array.__class__].xp.zeros(shape, array.dtype))

    def detach(self, value: Any) -> Any:
        return value.detach()

    def array(self, value: Any) -> Any:
        return value.array


class _Namespaces(dict[type, Namespace]):
    """The namespace of an array by its class; one look-up per op."""

    def __missing__(self, cls: type) -> Namespace:
        if issubclass(cls, (np.ndarray, np.generic)):
            return self[np.ndarray]
        if cls.__module__.partition(".")[0] == "cupy":
            import cupy

            self[cls] = namespace = Namespace(cupy)
            return namespace
        raise TypeError(f"expected a Tensor, but got {cls.__name__}")


OPS: dict[str, Any] = {}
NAMESPACES = _Namespaces()
NAMESPACES[np.ndarray] = Namespace(np)
TENSORS = TensorNamespace(np)
NAMESPACES[Tensor] = TENSORS


def as_tensor_operand(value: Any) -> Tensor:
    """A Tensor as it is; a raw array as a constant around it."""
    return value if isinstance(value, Tensor) else wrap(value)


# -------------------------------------------------------------------------- running ops
def apply(op: Any, inputs: Sequence[Tensor | None], *attrs: Any) -> Any:
    """Run a primitive op and record it when a gradient is wanted.

    Args:
        op: the `Op` subclass.
        inputs: its tensor operands, of one device and already of the dtype to compute in.
        attrs: everything else its forward takes.

    Returns:
        A Tensor, or a tuple of them for ops with several outputs.
    """
    arrays = [None if t is None else t.array for t in inputs]
    F = NAMESPACES[arrays[0].__class__]
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
    mode = current_mode()
    result._counter = [0] if mode < INFERENCE else None
    if mode == 0:
        for t in inputs:
            if t is not None and (t._requires_grad or t._view is not None):
                edges = edges_of(inputs)
                if edges is None or out.dtype not in dtypes.FLOATING:
                    break
                result._edge = _record(
                    op, edges, inputs, arrays, attrs, F, aux, out, result._counter, 1
                )
                result._requires_grad = True
                return result
    result._requires_grad = False
    return result


def edges_of(inputs: Sequence[Tensor | None]) -> tuple[Any, ...] | None:
    """The edges of some inputs, or None when none of them requires grad."""
    edges = tuple(
        [
            gradient_edge(t)
            if t is not None and (t._requires_grad or t._view is not None)
            else None
            for t in inputs
        ]
    )
    return edges if any(edges) else None


def _record(
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
) -> Node:
    saved: Any = ()
    versions: Any = None
    if op.saves:
        saved, versions = [], []
        for position in op.plan(tuple([e is not None for e in edges])):
            if position is None:
                saved.append(None)
                versions.append(None)
            elif position == OUT:
                saved.append(out)
                versions.append((out_version, 0))
            else:
                source = inputs[position]
                if source is None:  # a Python number
                    saved.append(arrays[position])
                    versions.append(None)
                    continue
                version = source._counter
                if version is None:
                    raise RuntimeError(INFERENCE_SAVED)
                saved.append(arrays[position])
                versions.append((version, version[0]))
        saved, versions = tuple(saved), tuple(versions)
    shapes = tuple([None if a is None else a.shape for a in arrays])
    return record(op, edges, saved, versions, attrs, F, aux, shapes, outputs)


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
    results = tuple(wrap(F.xp.asarray(o)) for o in outs)
    if current_mode() == 0:
        edges = edges_of(inputs)
        if edges is not None:
            first = results[0] if results else None
            version = first._counter if first is not None else None
            array = first.array if first is not None else None
            # A node with one output carries its gradient bare, so it needs no OutputEdge.
            node = _record(op, edges, inputs, arrays, attrs, F, aux, array, version, len(results))
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


# -------------------------------------------------------------------------------- views
def apply_view(op: Any, input: Tensor, *attrs: Any) -> Tensor:
    """Run an op whose result shares the input's storage."""
    result = apply1(op, input, *attrs)
    mode = current_mode()
    origin = "grad" if mode == 0 else "no_grad" if mode < INFERENCE else "inference"
    _link(result, input, op, attrs, origin)
    return result


def apply1(op: Any, input: Tensor, *attrs: Any) -> Tensor:
    """`apply` for one input and one output without aux, which most calls are."""
    array = input.array
    F = NAMESPACES[array.__class__]
    token = quiet()
    try:
        out = op.forward(F.xp, array, *attrs)
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
        edge = gradient_edge(input)
        if edge is not None:
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


def _link(result: Tensor, input: Tensor, op: Any, attrs: Any, origin: str) -> None:
    """Enter a result as a view of the input's base."""
    version = result._counter = input._counter
    if version is None:
        return
    above = input._view
    if above is None:
        result._view = View(input, ((op, attrs),), version[0], origin)
    else:
        if above.origin != "grad":
            origin = above.origin
        result._view = View(above.base, (*above.chain, (op, attrs)), version[0], origin)


def _multi_origin() -> str:
    mode = current_mode()
    return "multi" if mode == 0 else "no_grad" if mode < INFERENCE else "inference"


def link_views(
    results: Sequence[Tensor], input: Tensor, op: Any, attrs_of: Callable[[int], tuple[Any, ...]]
) -> None:
    """Enter the outputs of an op that returns several views (split, unbind)."""
    for nr, result in enumerate(results):
        _link(result, input, op, attrs_of(nr), _multi_origin())


def replay(chain: tuple[Any, ...], xp: Any, array: Any) -> Any:
    """A chain of view ops on a raw array."""
    for op, attrs in chain:
        array = op.forward(xp, array, *attrs)
    return array


class AsStrided(Op):
    """A view's chain as one node: the edge of a view after its base was edited in place."""

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
    base = view.base
    edge = gradient_edge(base) if base._requires_grad else None
    if edge is not None:
        F = NAMESPACES[base.array.__class__]
        if view.origin != "grad":
            raise RuntimeError(_stale_view(tensor, view.origin))
        view.seen = tensor._counter[0]
        shapes = (base.array.shape,)
        _take_over(tensor, record(AsStrided, (edge,), (), None, (view.chain,), F, None, shapes))
        tensor._requires_grad = True


def _ambiguous_view(origin: str) -> str:
    start = (
        "A view was created in no_grad mode and is being modified inplace with grad mode enabled. "
    )
    block = "no_grad"
    if origin == "inference":
        start = (
            "A view was created in inference mode and is being modified inplace in normal mode. "
        )
        block = "inference_mode"
    if origin == "multi":
        return start + (
            "This view is the output of a function that returns multiple views. Such functions do "
            "not allow the output views to be modified inplace. You should replace the inplace "
            "operation by an out-of-place one."
        )
    return start + (
        "Given that this use case is ambiguous and error-prone, it is forbidden. You can clarify "
        f"your code by moving both the view and the inplace either both inside the {block} block "
        "(if you don't want the inplace to be tracked) or both outside (if you want the inplace "
        "to be tracked)."
    )


def _stale_view(tensor: Tensor, origin: str) -> str:
    if origin in ("no_grad", "inference"):
        where, block = "with grad mode enabled", "no_grad"
        if origin == "inference":
            where, block = "in normal mode", "inference_mode"
        return (
            f"A view was created in {origin} mode and its base or another view of its base has "
            f"been modified inplace {where}. Given that this use case is ambiguous "
            "and error-prone, it is forbidden. You can clarify your code by moving both the view "
            f"and the inplace either both inside the {block} block (if you don't want the inplace "
            "to be tracked) or both outside (if you want the inplace to be tracked)."
        )
    return _multi_view(tensor, "is a view and its base or another view of its base has been")


def _multi_view(tensor: Tensor, what: str) -> str:
    edge = tensor._edge
    nr, node = (edge.nr, edge.node) if edge.__class__ is OutputEdge else (0, edge)
    name = plain_name(node) if node is not None else "a view op"
    if tensor._view is not None and tensor._view.origin == "custom":
        return (
            f"Output {nr} of {name} {what} modified inplace. This view was created inside a custom "
            "Function (or because an input was returned as-is) and the autograd logic to handle "
            "view+inplace would override the custom backward associated with the custom Function, "
            "leading to incorrect gradients. This behavior is forbidden. You can fix this by "
            "cloning the output of the custom Function."
        )
    return (
        f"Output {nr} of {name} {what} modified inplace. This view is the output of a function "
        "that returns multiple views. Such functions do not allow the output views to be modified "
        "inplace. You should replace the inplace operation by an out-of-place one."
    )


tensor_module.renew_view = _renew_view


# ----------------------------------------------------------------------- in-place edits
class CloneLaidOut(Op):
    """A copy with its dimensions in a given order of strides: where a base's views fit."""

    def forward(xp: Any, x: Any, order: tuple[int, ...]) -> Any:
        out = xp.empty([x.shape[d] for d in order], x.dtype)
        out = out.transpose(sorted(range(len(order)), key=order.__getitem__))
        out[...] = x
        return out

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
        edges = (ctx.edges[0] or True, *ctx.edges[1:])
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


def check_inplace(t: Tensor) -> None:
    """RuntimeError when PyTorch would not let this tensor be edited in place."""
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
    if mode & NO_GRAD == 0:
        if t.requires_grad and t._edge is None:
            if view is None or not view.base._requires_grad:
                raise RuntimeError(
                    "a leaf Variable that requires grad is being used in an in-place operation."
                )
        if view is not None and view.base.requires_grad:
            if view.origin in ("multi", "custom"):
                raise RuntimeError(_multi_view(t, "is a view and is being"))
            if view.origin != "grad":
                raise RuntimeError(_ambiguous_view(view.origin))
            if view.base._edge is None:
                raise RuntimeError(
                    "a view of a leaf Variable that requires grad is being used in an in-place "
                    "operation."
                )
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
    if source._view is not None:
        tensor_module.refresh(source)  # a view that can no longer be used says so first
    written, read = target.array, source.array
    if written.__class__ is not np.ndarray or read.__class__ is not np.ndarray:
        return
    if written is read and not same_too:
        return
    if not (written.size and read.size and np.may_share_memory(written, read)):
        return
    if not (_dense(written) and _dense(read)):
        return
    same = (
        written.__array_interface__["data"] == read.__array_interface__["data"]
        and written.shape == read.shape
        and written.strides == read.strides
    )
    if not same or same_too:
        raise RuntimeError(
            "unsupported operation: some elements of the input tensor and the written-to tensor "
            "refer to a single memory location. Please clone() the tensor before performing the "
            "operation."
        )


def _dense(array: Any) -> bool:
    expected = array.itemsize
    for stride, n in sorted(zip(array.strides, array.shape)):
        if n != 1:
            if stride != expected:
                return False
            expected *= n
    return True


def assign(t: Tensor, result: Tensor) -> Tensor:
    """Write an op's result into a tensor and let it take over the result's history.

    The values are copied into ``t.array``, the version shared by all views is bumped, and
    the graph is rebased: on the tensor itself, or on its base for a view.
    """
    array, value = t.array, result.array
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
    edge = result._edge
    if edge is not None:
        if t._view is not None and t._view.origin != "grad":
            raise RuntimeError(_ambiguous_view(t._view.origin))
        _keep_input(edge, t)
    elif current_mode() == 0 and t.requires_grad:
        F = NAMESPACES[array.__class__]
        edge = record(Overwrite, (gradient_edge(t),), (), None, (), F)
    array[...] = value
    t._bump()
    if edge is not None:
        saves_output(edge, t)
        rebase(t, edge)
    return t


class Overwrite(Op):
    """New values that do not depend on the old ones in a differentiable way."""

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad),)


def _keep_input(node: Node, t: Tensor) -> None:
    """Let a node that reads the old values of an edited tensor keep a copy of them."""
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
    for place, position in enumerate(node.op.saves):
        if position == 0 and node.saved[place] is t.array:
            assert node.versions is not None
            saved, versions = list(node.saved), list(node.versions)
            saved[place], versions[place] = t.array.copy(), None
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


def _take_over(t: Tensor, node: Node) -> None:
    """Give a tensor a new node; a retained gradient is retained there from now on."""
    retained = t.retains_grad
    if retained:
        old: Any = t._edge.node if t._edge.__class__ is OutputEdge else t._edge
        old.extra.retained.pop(t.output_nr, None)
    t._edge = node
    if retained:
        node._extra().retained[0] = weakref.ref(t)


def rebase(t: Tensor, node: Node) -> None:
    """Make a node, recorded for an in-place edit of ``t``, the history of ``t`` and its base."""
    view = t._view
    if view is None:
        if t.retains_grad:
            del t._edge.extra.retained[t.output_nr]
            node._extra().retained[0] = weakref.ref(t)
        t._edge = node
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
        (view.chain, node),
        F,
        None,
        (base.array.shape, layout),
    )
    # Handed over, so that backward frees them; after record, which would pack them again.
    outer.saved, outer.aux = node.saved, node.aux
    if node.__class__ is Node:
        node.saved, node.aux = (), None
    _take_over(base, outer)
    base._requires_grad = True
    assert t._counter is not None
    view.seen = t._counter[0]
    shapes = (base.array.shape,)
    _take_over(t, record(AsStrided, (outer,), (), None, (view.chain,), F, None, shapes))
    t._requires_grad = True


def inplace(function: Callable[..., Any], name: str) -> Callable[..., Any]:
    """The in-place method of an op: compute out of place, then `assign`."""

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        check_inplace(self)
        return assign(self, function(self, *args, **kwargs))

    method.__name__ = method.__qualname__ = name
    method.__doc__ = f"In-place version of `{function.__name__}`."
    return method


# ------------------------------------------------------------------------------ entries
@dataclass
class Sample:
    """Arguments to try an op with: arrays stand for tensors (floating ones require grad)."""

    args: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    rtol: float = 1e-9
    smooth: bool = True  # False at a kink or jump, which no finite difference can cross


@dataclass
class Entry:
    """One public op: what users call, and what the generic tests need to know of it."""

    name: str
    function: Callable[..., Any]
    samples: Callable[[], Iterable[Sample]]
    torch: str
    method: bool
    inplace: bool
    differentiable: bool
    errors: Callable[[], Iterable[Sample]]


TABLE: dict[str, Entry] = {}


def public(
    samples: Callable[[], Iterable[Sample]],
    *,
    torch: str | None = None,
    method: bool | str = False,
    inplace: bool = False,
    differentiable: bool = True,
    errors: Callable[[], Iterable[Sample]] = tuple,
) -> Callable[[Function], Function]:
    """Enter a public function into the table.

    Args:
        samples: calls to try it with, in the generic tests.
        torch: PyTorch's name for it below ``torch.``; by default the same name, looked for
            in ``torch`` and then in ``torch.nn.functional``; "" when it has none.
        method: also make it a Tensor method (of another name, when a string).
        inplace: also make the method with an underscore.
        differentiable: whether its float inputs get gradients.
        errors: calls that PyTorch refuses, and so must we, with the same exception type.
    """

    def enter(function: Function) -> Function:
        name = function.__name__
        TABLE[name] = Entry(
            name,
            function,
            samples,
            name if torch is None else torch,
            bool(method),
            inplace,
            differentiable,
            errors,
        )
        if method:
            setattr(Tensor, method if isinstance(method, str) else name, function)
        if inplace:
            setattr(Tensor, f"{name}_", globals()["inplace"](function, f"{name}_"))
        return function

    return enter


def same_device(*tensors: Tensor) -> None:
    """RuntimeError when tensors live on different devices."""
    first = tensors[0]
    for other in tensors[1:]:
        if other.array.__class__ is not first.array.__class__:
            a, b = device_of(first.array), device_of(other.array)
            raise RuntimeError(
                "Expected all tensors to be on the same device, but found at least two devices, "
                f"{a} and {b}! Move one with .to('{a}')."
            )


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
