"""User-defined ops: `Function` with its forward, backward and context."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite import graph
from gradlite.graph import Node, OutputEdge, current_mode, no_grad, record
from gradlite.ops.arithmetic import sum_to
from gradlite.ops.table import NAMESPACES, TENSORS, describe, edges_of, rebase
from gradlite.tensor import Tensor, unwrap, wrap


class FunctionCtx:
    """What forward and backward of a `Function` share."""

    def __init__(self, needs_input_grad: tuple[bool, ...]) -> None:
        self.needs_input_grad = needs_input_grad
        self._to_save: tuple[Tensor | None, ...] = ()
        self._saved: Callable[[], tuple[Tensor | None, ...]] | None = None
        self._dirty: tuple[Tensor, ...] = ()
        self._non_differentiable: tuple[Tensor, ...] = ()
        self._materialize = True

    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward, watched against in-place edits; call it once."""
        for t in tensors:
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    "save_for_backward can only save variables, but argument 0 is of type "
                    f"{t.__class__.__name__}"
                )
        self._to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `save_for_backward` kept."""
        return self._to_save if self._saved is None else self._saved()

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs forward edits in place; they must be returned."""
        self._dirty = args

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which outputs carry no gradient."""
        self._non_differentiable = args

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for outputs nobody used."""
        self._materialize = value


class _FunctionOp:
    """The op of a Function's node, one per Function class."""

    def __init__(self, function: type[Function]) -> None:
        self.function = function
        self.grad_name = f"{function.__name__}Backward"

    def saved_position(self, node: Node, place: int) -> int:
        position: int = node.attrs[1][place]
        return position

    describe = staticmethod(describe)
    used_up = False

    def tensor_context(self, node: Node, edges: tuple[Any, ...]) -> Node:
        saved = graph._unpack(node.saved) if isinstance(node.saved, graph._Packed) else node.saved
        twin = graph.copy_node(node, edges, saved)
        twin.F = TENSORS
        return twin

    def backward(self, node: Node, grad: Any, F: Any) -> tuple[Any, ...]:
        ctx, positions, tensor_places, metas, count, origin = node.attrs
        grads = list(grad) if node.outputs > 1 else [grad]
        for nr, (g, meta) in enumerate(zip(grads, metas)):
            if g is None and ctx._materialize:
                shape, dtype, cls = meta
                g = NAMESPACES[cls].xp.zeros(shape, dtype)
            grads[nr] = None if g is None else wrap(g)
        ctx._saved = functools.partial(_unpacked, node, origin, positions)
        ctx.needs_input_grad = tuple(
            place in tensor_places and node.edges[tensor_places.index(place)] is not None
            for place in range(count)
        )
        try:
            results = self.function.backward(ctx, *grads)
        finally:
            ctx._saved = None  # it refers to the node, which refers to ctx
        results = results if isinstance(results, tuple) else (results,)
        if len(results) > count and all(r is None for r in results[count:]):
            results = results[:count]
        if len(results) != count:
            raise RuntimeError(
                f"function {self.grad_name} returned an incorrect number of gradients "
                f"(expected {count}, got {len(results)})"
            )
        parts = []
        for place, result in enumerate(results):
            if place not in tensor_places:
                if result is not None:
                    raise RuntimeError(
                        f"function {self.grad_name} returned a gradient different from None at "
                        f"position {place + 1}, but the corresponding forward input was not a "
                        "Variable"
                    )
                continue
            parts.append(self._checked(result, place, node.shapes[len(parts)], F))
        return tuple(parts)

    def _checked(self, result: Any, place: int, meta: Any, F: Any) -> Any:
        if result is None:
            return None
        if not isinstance(result, Tensor):
            raise RuntimeError(
                f"expected Variable or None (got {result.__class__.__name__})"
            )
        shape, dtype = meta
        if result.array.shape != shape:
            try:
                fits = np.broadcast_shapes(result.array.shape, shape) == result.array.shape
            except ValueError:
                fits = False
            if not fits:
                raise RuntimeError(
                    f"Function {self.grad_name} returned an invalid gradient at index {place} - "
                    f"got {list(result.array.shape)} but expected shape compatible with "
                    f"{list(shape)}"
                )
            result = sum_to(TENSORS, result, shape)
        if result.array.dtype != dtype:
            result = result.to(dtype)
        # A copy of the reference: the array may be one the user keeps.
        return result if F.tensors else unwrap(result).view()


def _unpacked(node: Node, origin: Any, positions: tuple[int, ...]) -> tuple[Tensor | None, ...]:
    """Saved values as Tensors in the graph again."""
    saved = node.saved
    if saved is None:
        raise RuntimeError(graph.SECOND_BACKWARD)
    original = origin()
    result: list[Tensor | None] = []
    for array, position in zip(saved, positions):
        if array is None:
            result.append(None)
            continue
        edge: Any = None
        if position >= 0:
            edge = original.edges[position]
        elif position > _CONSTANT:
            nr = -1 - position
            edge = original if original.outputs == 1 else OutputEdge(original, nr)
        if edge.__class__ is graph.AccumulateGrad:
            result.append(edge.variable)
            continue
        tensor = wrap(array)
        if edge is not None:
            tensor._edge, tensor._requires_grad = edge, True
        result.append(tensor)
    return tuple(result)


_CONSTANT = -1_000_000  # the "position" of a saved tensor that is no input and no output


class Function:
    """Base of user-defined ops with a gradient of their own.

    Subclasses write static methods ``forward(ctx, *args)`` and ``backward(ctx, *grads)``, or
    ``forward(*args)`` with ``setup_context(ctx, inputs, output)``; call ``MyOp.apply(*args)``.

    >>> import gradlite
    >>> class Double(gradlite.autograd.Function):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         return x * 2
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         return grad * 2
    >>> x = gradlite.ones(2, requires_grad=True)
    >>> Double.apply(x)
    tensor([2., 2.], grad_fn=<DoubleBackward>)
    """

    _op: _FunctionOp

    def __init_subclass__(cls) -> None:
        cls._op = _FunctionOp(cls)

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; runs without recording."""
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what backward needs, when forward takes no ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Any, *grad_outputs: Any) -> Any:
        """One gradient (or None) per argument of forward."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Run forward and record the op."""
        tensor_places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        tensors = [args[i] for i in tensor_places]
        edges = edges_of(tensors) if current_mode() == 0 else None
        needs = [False] * len(args)
        for place, t in zip(tensor_places, tensors):
            needs[place] = t.requires_grad
        ctx = FunctionCtx(tuple(needs))
        with no_grad():
            if cls.setup_context is Function.setup_context:
                output = cls.forward(ctx, *args)
            else:
                output = cls.forward(*args)
                cls.setup_context(ctx, args, output)
        single = not isinstance(output, tuple)
        outputs = (output,) if single else output
        for dirty in ctx._dirty:
            if not any(dirty is o for o in outputs):
                raise RuntimeError(
                    "Some elements marked as dirty during the forward method were not returned as "
                    "output. The inputs that are modified inplace must all be outputs of the "
                    "Function."
                )
            if current_mode() == 0 and dirty.requires_grad and dirty.is_leaf:
                raise RuntimeError(
                    "a leaf Variable that requires grad is being used in an in-place operation."
                )
            dirty._bump()
        results = []
        for o in outputs:
            if isinstance(o, Tensor) and any(o is t for t in tensors):
                if not any(o is d for d in ctx._dirty):
                    alias = wrap(o.array)  # an input handed back: a new Tensor on its storage
                    alias._counter = o._counter
                    o = alias
            results.append(o)
        if edges is not None:
            cls._record(ctx, edges, args, tensor_places, outputs, results)
        return results[0] if single else tuple(results)

    @classmethod
    def _record(
        cls,
        ctx: FunctionCtx,
        edges: tuple[Any, ...],
        args: tuple[Any, ...],
        tensor_places: list[int],
        outputs: tuple[Any, ...],
        results: list[Any],
    ) -> None:
        tensors = [args[i] for i in tensor_places]
        made = [r for r in results if isinstance(r, Tensor)]
        saved: list[Any] = []
        versions: list[Any] = []
        positions: list[int] = []
        for t in ctx._to_save:
            if t is None:
                saved.append(None)
                versions.append(None)
                positions.append(_CONSTANT)
                continue
            position = next((i for i, u in enumerate(tensors) if u is t), _CONSTANT)
            if position == _CONSTANT or any(t is d for d in ctx._dirty):
                nr = next((i for i, o in enumerate(outputs) if o is t), None)
                position = _CONSTANT if nr is None else -1 - nr
            saved.append(t.array)
            versions.append(None if t._counter is None else (t._counter, t._counter[0]))
            positions.append(position)
        metas = [(r.array.shape, r.array.dtype, r.array.__class__) for r in made]
        shapes = tuple((t.array.shape, t.array.dtype) for t in tensors)
        F = NAMESPACES[tensors[0].array.__class__]
        node = record(
            cls._op, edges, tuple(saved), tuple(versions), (), F, None, shapes, max(len(made), 1)
        )
        origin = graph.weakref.ref(node)
        node.attrs = (ctx, tuple(positions), tensor_places, metas, len(args), origin)
        ctx._to_save = ()
        for nr, r in enumerate(made):
            if any(r is n or outputs[nr] is n for n in ctx._non_differentiable):
                continue
            if r.array.dtype.kind != "f":
                continue
            if any(r is d for d in ctx._dirty):
                if node.outputs == 1:
                    rebase(r, node)
                else:
                    r._edge, r._requires_grad = OutputEdge(node, nr), True
                continue
            r._view = None
            r._edge = node if node.outputs == 1 else OutputEdge(node, nr)
            r._requires_grad = True


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a Function's backward whose own result cannot be differentiated again."""

    @functools.wraps(fn)
    def wrapper(ctx: Any, *args: Any) -> Any:
        with no_grad():
            results = fn(ctx, *args)
        if not graph.is_grad_enabled() or not any(
            isinstance(a, Tensor) and a.requires_grad for a in args
        ):
            return results
        many = results if isinstance(results, tuple) else (results,)
        parts = tuple(
            _DifferentiatedTwice.apply(r, *(a for a in args if isinstance(a, Tensor)))
            if isinstance(r, Tensor)
            else r
            for r in many
        )
        return parts if isinstance(results, tuple) else parts[0]

    return wrapper


class _DifferentiatedTwice(Function):
    @staticmethod
    def forward(ctx: Any, result: Tensor, *tensors: Tensor) -> Tensor:
        return wrap(result.array)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise RuntimeError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )
