"""User-defined ops: `Function` with its forward and backward."""

from __future__ import annotations

import functools
import inspect
import warnings
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite import dtypes, graph
from gradlite.autograd.context import CONSTANT, FunctionCtx, FunctionNode, Kept
from gradlite.grad_mode import current_mode, is_grad_enabled, no_grad
from gradlite.graph import Node, OutputEdge
from gradlite.ops import guard
from gradlite.ops.binary import sum_to
from gradlite.ops.dispatch import NOWHERE, edges_of
from gradlite.ops.inplace import rebase
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import TENSORS, describe
from gradlite.tensor import Tensor, View, unwrap, wrap

__all__ = ["Function", "FunctionCtx", "InplaceFunction", "once_differentiable"]

Context = Any


class _FunctionOp:
    """The op of a Function's nodes, one per Function class.

    A node's attrs are its context, the number of arguments, which of them are tensors, and the
    shape, dtype and array class of each output (None for what is no Tensor); its shapes are those
    of the tensor arguments.
    """

    user_defined = True
    saves: tuple[int, ...] = ()  # its context knows what it saved,
    kept = 0  # and where
    used_up = False  # a second pass fails where backward asks for freed values, and only there

    def __init__(self, function: type[Function]) -> None:
        self.function = function
        self.grad_name = f"{function.__name__}Backward"

    @staticmethod
    def saved_position(node: Node, place: int) -> int:
        """Which input (or, negative, output) a saved value of the node is."""
        kept: Kept = node.attrs[0]._kept[place]
        return kept.place

    @staticmethod
    def describe(value: Kept) -> str:
        """A saved value in error messages."""
        return describe(value.array)

    @staticmethod
    def tensor_context(node: Node, edges: tuple[Any, ...]) -> Node:
        """What the rule sees under create_graph."""
        twin = graph.copy_node(node, edges, ())
        twin.F = TENSORS
        return twin

    def backward(self, node: Node, grad: Any, F: Any) -> tuple[Any, ...]:
        """Run the user's backward and check what it returns."""
        ctx, count, tensor_places, metas = node.attrs
        grads = list(grad) if len(metas) > 1 else [grad]
        for nr, (g, meta) in enumerate(zip(grads, metas)):
            if g is None and ctx._materialize and meta is not None:
                shape, dtype, cls = meta
                with guard.on(*(g for g in grads if g is not None)):
                    g = NAMESPACES[cls].xp.zeros(shape, dtype)
            grads[nr] = None if g is None else wrap(g)
        ctx._opened = ()
        try:
            results = _backward_of(self.function)(ctx, *grads)
        finally:
            ctx._opened = None
        results = results if isinstance(results, tuple) else (results,)
        if len(results) > count and all(r is None for r in results[count:]):
            results = results[:count]
        if len(results) != count:
            raise RuntimeError(
                f"function {self.grad_name} returned an incorrect number of gradients "
                f"(expected {count}, got {len(results)})"
            )
        parts: list[Any] = []
        for place, result in enumerate(results):
            if place in tensor_places:
                parts.append(self._checked(result, place, node.shapes[len(parts)], F))
            elif result is not None:
                raise RuntimeError(
                    f"function {self.grad_name} returned a gradient different than None at "
                    f"position {place + 1}, but the corresponding forward input was not a Variable"
                )
        return tuple(parts)

    def _checked(self, result: Any, place: int, meta: Any, F: Any) -> Any:
        if result is None:
            return None
        if not isinstance(result, Tensor):
            raise RuntimeError(f"expected Variable or None (got {result.__class__.__name__})")
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
        # A view, which no leaf adopts as its .grad: the array may be one the user keeps.
        return result if F.tensors else unwrap(result).view()


def _backward_of(function: type[Function]) -> Callable[..., Any]:
    own_backward = function.backward is not Function.backward
    if function.vjp is not Function.vjp:
        if own_backward:
            raise RuntimeError(
                "Implementing both 'backward' and 'vjp' for a custom Function is not allowed. You "
                "should only implement one of them."
            )
        return function.vjp
    return function.backward


class Function:
    """Base of user-defined ops with a gradient of their own.

    Subclasses write static methods ``forward(ctx, *args)`` and ``backward(ctx, *grads)``, or
    ``forward(*args)`` with ``setup_context(ctx, inputs, output)``; call ``MyOp.apply(*args)``.
    Backward returns one gradient, or None, per argument of forward; written with ops on
    ``ctx.saved_tensors``, it can be differentiated again.

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
    _context: type[FunctionCtx]

    def __init_subclass__(cls) -> None:
        cls._op = _FunctionOp(cls)
        cls._context = type(f"{cls.__name__}Backward", (FunctionCtx,), {"_forward_cls": cls})

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        warnings.warn(
            f"{self.__class__} should not be instantiated. Methods on autograd functions are all "
            "static, so you should invoke them on the class itself. Instantiating an autograd "
            "function will raise an error in a future version of PyTorch.",
            DeprecationWarning,
            stacklevel=2,
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        raise RuntimeError(
            "Legacy autograd function with non-static forward method is deprecated. Please use "
            "new-style autograd function with static forward method. (Example: "
            "https://pytorch.org/docs/stable/autograd.html#torch.autograd.Function)"
        )

    @staticmethod
    def forward(*args: Any, **kwargs: Any) -> Any:
        """Compute the outputs; runs without recording."""
        raise NotImplementedError(
            "You must implement the forward function for custom autograd.Function."
        )

    @staticmethod
    def setup_context(ctx: Context, inputs: tuple[Any, ...], output: Any) -> None:
        """Keep what backward needs, when forward takes no ctx."""
        raise NotImplementedError("setup_context is not implemented.")

    @staticmethod
    def backward(ctx: Context, *grad_outputs: Any) -> Any:
        """One gradient (or None) per argument of forward."""
        raise NotImplementedError(
            "You must implement either the backward or vjp method for your custom "
            "autograd.Function to use it with backward mode AD."
        )

    vjp = backward

    @classmethod
    def apply(cls, *args: Any, **kwargs: Any) -> Any:
        """Run forward and record the op."""
        with_setup = cls.setup_context is not Function.setup_context
        if kwargs or with_setup:
            args = _bound(cls.forward, args, kwargs, with_setup)
        tensor_places = [place for place, a in enumerate(args) if isinstance(a, Tensor)]
        tensors = [args[place] for place in tensor_places]
        edges = edges_of(tensors) if current_mode() == 0 else None
        if edges is NOWHERE:
            edges = (None,) * len(tensors)
        needs = [False] * len(args)
        for place, t in zip(tensor_places, tensors):
            needs[place] = t.requires_grad
        ctx = getattr(cls, "_context", FunctionCtx)()
        ctx.needs_input_grad = tuple(needs)
        if edges is not None:
            ctx._edges = edges
        with no_grad():
            if with_setup:
                output = cls.forward(*args)
                cls.setup_context(ctx, args, output)
            else:
                output = cls.forward(ctx, *args)
        single = not isinstance(output, tuple)
        outputs = (output,) if single else output
        results = _results(ctx, tensors, outputs)
        if edges is not None:
            _record(cls, ctx, edges, len(args), tensor_places, tensors, outputs, results)
        ctx._to_save = ctx._dirty = ctx._non_differentiable = ()
        return results[0] if single else tuple(results)


class InplaceFunction(Function):
    """The base of Functions that edit their inputs, in old programs; they need none of their own.

    >>> import gradlite
    >>> class Increment(gradlite.autograd.function.InplaceFunction):
    ...     @staticmethod
    ...     def forward(ctx, x):
    ...         ctx.mark_dirty(x)
    ...         return x.add_(1)
    ...     @staticmethod
    ...     def backward(ctx, grad):
    ...         return grad
    >>> Increment.apply(gradlite.ones(2, requires_grad=True) * 2)
    tensor([3., 3.], grad_fn=<IncrementBackward>)
    """


def _bound(
    forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any], with_setup: bool
) -> tuple[Any, ...]:
    """The arguments by position, with forward's defaults for those left out."""
    signature = inspect.signature(forward)
    try:
        bound = (
            signature.bind(*args, **kwargs) if with_setup else signature.bind(0, *args, **kwargs)
        )
    except TypeError:
        return args  # forward itself says what is wrong
    bound.apply_defaults()
    return bound.args if with_setup else bound.args[1:]


def _is_one_of(value: Any, values: Sequence[Any]) -> bool:
    return any(value is v for v in values)


def _results(ctx: FunctionCtx, tensors: list[Tensor], outputs: Sequence[Any]) -> list[Any]:
    """The outputs as the caller gets them: dirty inputs themselves, other inputs as views."""
    dirty = []
    for t in ctx._dirty:
        if not _is_one_of(t, tensors):
            warnings.warn(
                "ctx.mark_dirty() received a tensor that was not an input. Only input Tensors that "
                "have been mutated should be passed to ctx.mark_dirty().",
                UserWarning,
                stacklevel=4,
            )
            continue
        if not _is_one_of(t, outputs):
            raise RuntimeError(
                "Some elements marked as dirty during the forward method were not returned as "
                "output. The inputs that are modified inplace must all be outputs of the Function."
            )
        if current_mode() == 0 and t.requires_grad and t.is_leaf:
            raise RuntimeError(
                "a leaf Variable that requires grad has been used in an in-place operation."
            )
        t._bump()
        dirty.append(t)
    ctx._dirty = tuple(dirty)
    results = []
    for output in outputs:
        if isinstance(output, Tensor) and not _is_one_of(output, dirty):
            if _is_one_of(output, tensors):
                output = _alias(output)
            elif output._requires_grad:
                output = output.detach()  # a graph made inside forward stays inside
            if output._view is not None:
                output._view.origin = "custom"
        results.append(output)
    return results


def _alias(tensor: Tensor) -> Tensor:
    """A new Tensor that is a view of the whole of another."""
    result = wrap(tensor.array)
    counter = result._counter = tensor._counter
    if counter is not None:
        above = tensor._view
        base, chain = (tensor, tensor._redo) if above is None else (above.base, above.chain)
        result._view = View(base, chain, counter[0], "custom")
    return result


def _record(
    cls: type[Function],
    ctx: FunctionCtx,
    edges: tuple[Any, ...],
    count: int,
    tensor_places: list[int],
    tensors: list[Tensor],
    outputs: Sequence[Any],
    results: list[Any],
) -> None:
    """Make the node and put the results into the graph."""
    made = sum(isinstance(r, Tensor) for r in results)
    views = [d for d in ctx._dirty if d._view is not None]
    if views and made > 1:
        raise RuntimeError(
            "If your Function modifies inplace an input that is a view of another Tensor, your "
            "Function cannot return more than one Tensor. This is not supported by the current "
            "autograd engine. You should either make sure the input is not a view (using .clone() "
            "for example) or make your Function only return one Tensor (potentially splitting it "
            "into two Functions: one doing the inplace that returns a single Tensor and a second "
            "one that does the other operations)."
        )
    ctx._kept = tuple(
        None if t is None else Kept(t, _place_of(t, tensors, outputs, ctx._dirty))
        for t in ctx._to_save
    )
    metas = [
        (r.array.shape, r.array.dtype, r.array.__class__) if isinstance(r, Tensor) else None
        for r in results
    ]
    node = FunctionNode()
    node.ctx, node.op, node.edges, node.versions, node.aux = ctx, cls._op, edges, None, None
    node.attrs = (ctx, count, tensor_places, metas)
    node.shapes = tuple((t.array.shape, t.array.dtype) for t in tensors)
    node.F = NAMESPACES[tensors[0].array.__class__]
    node.outputs = max(len(results), 1)
    node.extra, node.seq = None, graph.next_sequence_number()
    if graph.anomaly_enabled:
        graph.trace_forward(node, 3)
    ctx._node = weakref.ref(node)
    differentiable = [
        (nr, r)
        for nr, (output, r) in enumerate(zip(outputs, results))
        if isinstance(r, Tensor)
        and r.array.dtype in dtypes.FLOATING
        and not _is_one_of(output, ctx._non_differentiable)
    ]
    for nr, r in differentiable:
        edge = node if node.outputs == 1 else OutputEdge(node, nr)
        if _is_one_of(r, ctx._dirty) and r._view is not None:
            rebase(r, node)
            continue
        if r._view is not None and r._counter is not None:
            r._view.seen = r._counter[0]
            if len(differentiable) > 1:
                r._view.origin = "multi"
        r._edge = edge
        r._requires_grad = True


def _place_of(
    t: Tensor, tensors: list[Tensor], outputs: Sequence[Any], dirty: Sequence[Tensor]
) -> int:
    if not _is_one_of(t, dirty):
        for place, u in enumerate(tensors):
            if t is u:
                return place
    for nr, o in enumerate(outputs):
        if t is o:
            return -1 - nr
    return CONSTANT


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Decorate a Function's backward whose own result cannot be differentiated again."""

    @functools.wraps(fn)
    def wrapper(ctx: Context, *args: Any) -> Any:
        with no_grad():
            results = fn(ctx, *args)
        if not is_grad_enabled() or not any(
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
    def forward(ctx: Context, result: Tensor, *tensors: Tensor) -> Tensor:
        return wrap(result.array)

    @staticmethod
    def backward(ctx: Context, *grads: Any) -> Any:
        raise RuntimeError(
            "trying to differentiate twice a function that was marked with @once_differentiable"
        )
