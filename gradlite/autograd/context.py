"""The context of a user-defined op: what forward and backward share, and what saves tensors.

The context is what users find as ``grad_fn``, as in PyTorch. It is a namespace of the user's own,
so the engine works with another object, a `FunctionNode`, which holds the context; the context
knows its node weakly, so that neither keeps the other alive.
"""

from __future__ import annotations

import warnings
import weakref
from collections.abc import Callable
from typing import Any

from gradlite import graph
from gradlite.grad_mode import no_grad
from gradlite.graph import AccumulateGrad, Node, OutputEdge, raise_modified
from gradlite.graph_errors import SECOND_BACKWARD
from gradlite.graph_hooks import Extra, RemovableHandle, add_hook, saved_hooks
from gradlite.ops.dispatch import INFERENCE_SAVED
from gradlite.tensor import Tensor, unwrap, wrap


class FunctionCtx(Node):
    """What forward and backward of a `Function` share, and the ``grad_fn`` of its results.

    Attributes set on it in forward are found again in backward; tensors that are inputs or
    outputs belong in `save_for_backward` instead.
    """

    _forward_cls: type
    needs_input_grad: tuple[bool, ...] = ()
    _edges: tuple[Any, ...] = ()
    _to_save: tuple[Tensor | None, ...] = ()
    _dirty: tuple[Tensor, ...] = ()
    _non_differentiable: tuple[Tensor, ...] = ()
    _materialize = True
    _kept: tuple[Kept | None, ...] | None = ()
    # While backward runs, saved values are opened once, as opening may mean recomputing.
    _opened: tuple[Tensor | None, ...] | None = None
    _node: Callable[[], FunctionNode | None] = staticmethod(lambda: None)

    # --------------------------------------------------------------- for forward's use
    def save_for_backward(self, *tensors: Tensor | None) -> None:
        """Keep tensors for backward, watched against in-place edits; call it once.

        Raises:
            TypeError: something that is neither a Tensor nor None.
        """
        for place, t in enumerate(tensors):
            if t is not None and not isinstance(t, Tensor):
                raise TypeError(
                    f"save_for_backward can only save variables, but argument {place} is of type "
                    f"{t.__class__.__name__}"
                )
        self._to_save = tensors

    def mark_dirty(self, *args: Tensor) -> None:
        """Say which inputs forward edits in place; they must be returned."""
        self._dirty = _only_tensors(args, "mark_dirty can only accept variables, but argument")

    def mark_non_differentiable(self, *args: Tensor) -> None:
        """Say which outputs carry no gradient."""
        self._non_differentiable = _only_tensors(
            args, "mark_non_differentiable only accepts variable arguments, but argument"
        )

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward gets zeros (the default) or None for outputs nobody used."""
        self._materialize = value

    # -------------------------------------------------------------- for backward's use
    @property
    def saved_tensors(self) -> tuple[Tensor | None, ...]:
        """What `save_for_backward` kept, in the graph where it was.

        Raises:
            RuntimeError: it was changed in place since, or freed by a backward pass.
        """
        if self._opened:
            return self._opened
        kept = self._kept
        if kept is None:
            raise RuntimeError(SECOND_BACKWARD)
        node = self._node()
        tensors = tuple(
            None if item is None else item.open(self, node, place)
            for place, item in enumerate(kept)
        )
        if self._opened is not None:
            self._opened = tensors
        return tensors

    @property
    def saved_variables(self) -> tuple[Tensor | None, ...]:
        """`saved_tensors` under its older name."""
        warnings.warn(
            "'saved_variables' is deprecated; use 'saved_tensors'", DeprecationWarning, stacklevel=2
        )
        return self.saved_tensors

    # -------------------------------------------------------------------- as a grad_fn
    __call__ = None  # type: ignore[assignment]  # as in PyTorch, unlike other nodes

    @property
    def behind(self) -> Node | None:
        """The engine's node of what users see."""
        return self._node()

    def name(self) -> str:
        """The Function's name and "Backward"."""
        return f"{self._forward_cls.__name__}Backward"

    def __repr__(self) -> str:
        return f"<gradlite.autograd.function.{self.name()} object at {id(self):#x}>"

    @property
    def next_functions(self) -> tuple[tuple[Node | None, int], ...]:
        """The nodes of the inputs, each with the number of the output that was used."""
        return graph.next_functions(self._edges)

    @property
    def metadata(self) -> dict[str, Any]:
        """A dictionary for the user's own notes about this node."""
        return self._extra().metadata

    def _sequence_nr(self) -> int:
        node = self._node()
        return 0 if node is None else node.seq

    def _extra(self) -> Extra:
        node = self._node()
        return Extra() if node is None else node._extra()

    def register_hook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn(grad_inputs, grad_outputs)`` after backward; it may return new ones."""
        return add_hook(self._extra().posthooks, fn)

    def register_prehook(self, fn: Callable[..., Any]) -> RemovableHandle:
        """Call ``fn(grad_outputs)`` before backward; it may return new ones."""
        return add_hook(self._extra().prehooks, (None, fn))


def _only_tensors(values: tuple[Any, ...], complaint: str) -> tuple[Tensor, ...]:
    for place, value in enumerate(values):
        if not isinstance(value, Tensor):
            raise RuntimeError(f"{complaint} {place} is of type {value.__class__.__name__}")
    return values


class FunctionNode(Node):
    """The engine's node of a Function; users see its context."""

    __slots__ = ("ctx",)
    ctx: FunctionCtx

    @property
    def shown(self) -> Node:
        """The node as ``grad_fn`` shows it."""
        return self.ctx

    # Saved values live in the context, where `saved_tensors` finds them. Freed ones are an
    # error only when backward asks for them, so the engine never sees None.
    @property
    def saved(self) -> Any:  # type: ignore[override]
        return self.ctx._kept or ()

    @saved.setter
    def saved(self, value: Any) -> None:
        self.ctx._kept = value


# The places of saved tensors: inputs count from 0, output n is -1 - n, others have this one.
CONSTANT = -1_000_000


class Kept:
    """One saved tensor: its array or what the pack hook made of it, and where it belongs.

    Slots: ``array``, ``version`` (its counter and the version expected), ``place``, ``source``
    (the Tensor, weakly, so that nobody keeps an output alive by saving it) and ``unpack``.
    """

    __slots__ = ("array", "version", "place", "source", "unpack")

    def __init__(self, tensor: Tensor, place: int) -> None:
        if tensor._counter is None:
            raise RuntimeError(INFERENCE_SAVED)
        self.array: Any = tensor.array
        self.version: Any = (tensor._counter, tensor._counter[0])
        self.place = place
        self.source = weakref.ref(tensor)
        self.unpack: Callable[[Any], Any] | None = None
        hooks = saved_hooks.get()
        if hooks:
            pack, self.unpack = hooks[-1]
            given = tensor if place >= 0 else wrap(tensor.array)
            with no_grad():
                self.array, self.version = pack(given), None

    def open(self, ctx: FunctionCtx, node: FunctionNode | None, nr: int) -> Tensor:
        """The tensor again: the same object where that is possible."""
        version = self.version
        if version is not None and version[0][0] != version[1]:
            if node is not None:
                raise_modified(node, nr, version)
            raise RuntimeError(
                "one of the variables needed for gradient computation has been modified by an "
                "inplace operation"
            )
        unpacked = self.array if self.unpack is None else self.unpack(self.array)
        array = unwrap(unpacked)
        if self.place >= 0 and self.unpack is None:
            source = self.source()
            if source is not None and source.array is array:
                return source
        edge: Any = None
        if self.place >= 0:
            edge = ctx._edges[self.place] if ctx._edges else None
        elif self.place > CONSTANT and node is not None:
            edge = node if node.outputs == 1 else OutputEdge(node, -1 - self.place)
        if self.unpack is not None and edge is None and not unpacked.requires_grad:
            return unpacked  # type: ignore[no-any-return]
        tensor = wrap(array)
        if version is not None:
            tensor._counter = version[0]  # edits are caught where backward saves it again
        if edge is None:
            return tensor
        if edge.__class__ is AccumulateGrad:
            if self.unpack is None:
                return edge.variable  # type: ignore[no-any-return]
            tensor = wrap(array.view())  # what is unpacked may be a tensor of the user's
            tensor._accumulator = weakref.ref(edge)
        else:
            tensor = wrap(array.view()) if self.unpack is not None else tensor
            tensor._edge = edge
        tensor._requires_grad = True
        return tensor
