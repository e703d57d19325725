"""What users do with the graph: hooks into what it saves, hooks on several gradients, edges."""

from __future__ import annotations

import contextlib
import contextvars
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, NamedTuple

from gradlite import changes, graph
from gradlite.graph import Node, OutputEdge
from gradlite.graph_hooks import RemovableHandle, saved_hooks
from gradlite.tensor import Tensor, gradient_edge

__all__ = [
    "GradientEdge",
    "Node",
    "allow_mutation_on_saved_tensors",
    "disable_saved_tensors_hooks",
    "get_gradient_edge",
    "increment_version",
    "register_multi_grad_hook",
    "save_on_cpu",
    "saved_tensors_hooks",
]

Hook = Callable[[Any], Any]


# ------------------------------------------------------------------- saved-tensor hooks
_disabled: contextvars.ContextVar[str | None] = contextvars.ContextVar(
    "gradlite_saved_hooks_disabled", default=None
)


class saved_tensors_hooks:
    """Pass every array that ops save for backward through a pair of functions.

    Inside the context, ``pack_hook(tensor)`` is called whenever an op saves something, and may
    return anything; ``unpack_hook`` is called with that when a backward pass reads it, and must
    return a tensor of the same values. Of nested pairs the innermost is called.

    >>> import gradlite
    >>> x = gradlite.ones(2, requires_grad=True)
    >>> with gradlite.autograd.graph.saved_tensors_hooks(lambda t: t.half(), lambda t: t.float()):
    ...     y = x.exp().sum()
    >>> y.backward()
    >>> x.grad
    tensor([2.7188, 2.7188])

    Raises:
        RuntimeError: on entry, under `disable_saved_tensors_hooks`; in forward, when
            ``pack_hook`` edits its argument in place.
        TypeError: in backward, when ``unpack_hook`` does not return a tensor.
    """

    def __init__(self, pack_hook: Hook, unpack_hook: Hook) -> None:
        self.pack_hook, self.unpack_hook = pack_hook, unpack_hook

    def _pack(self, tensor: Tensor) -> Any:
        version = None if tensor._counter is None else tensor._counter[0]
        packed = self.pack_hook(tensor)
        if tensor._counter is not None and tensor._counter[0] != version:
            raise RuntimeError(
                "A saved tensor pack hook is modifying its input in place. Tensors provided as "
                "input to pack hook cannot be modified by in-place operations as this can lead to "
                "unexpected side-effects. Please open an issue if you need to perform in-place "
                "operations on the input to a pack hook."
            )
        return packed

    def _unpack(self, packed: Any) -> Tensor:
        tensor = self.unpack_hook(packed)
        if not isinstance(tensor, Tensor):
            raise TypeError(
                "Output of saved tensor unpack_hook expected to be a Tensor but got result of type "
                f"{tensor.__class__.__name__}"
            )
        return tensor

    def __enter__(self) -> None:
        message = _disabled.get()
        if message is not None:
            raise RuntimeError(message)
        changes.count[0] += 1
        saved_hooks.set((*saved_hooks.get(), (self._pack, self._unpack)))

    def __exit__(self, *exc: object) -> None:
        changes.count[0] += 1
        saved_hooks.set(saved_hooks.get()[:-1])


class save_on_cpu(saved_tensors_hooks):
    """Keep what backward will read in host memory, and bring it back when it does.

    What is on the CPU already is kept as it is. With ``pin_memory`` it waits in page-locked
    memory, from where it comes back faster.
    """

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        def pack(tensor: Tensor) -> Any:
            kept: Any = tensor.cpu()  # type: ignore[attr-defined]
            if pin_memory and kept is not tensor:
                kept = kept.pin_memory()
            return tensor.device, kept

        def unpack(packed: Any) -> Tensor:
            device, tensor = packed
            return tensor.to(device, non_blocking=pin_memory)  # type: ignore[no-any-return]

        super().__init__(pack, unpack)


@contextlib.contextmanager
def disable_saved_tensors_hooks(error_message: str) -> Iterator[None]:
    """Refuse `saved_tensors_hooks` inside the context, with this message.

    Raises:
        RuntimeError: there are hooks already, or somebody enters some.
    """
    if saved_hooks.get():
        raise RuntimeError(error_message)
    token = _disabled.set(error_message)
    try:
        yield
    finally:
        _disabled.reset(token)


_allowed: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "gradlite_mutation_allowed", default=False
)


class _Handle:
    """Stands for one saved copy."""

    __slots__ = ("__weakref__",)


@contextlib.contextmanager
def allow_mutation_on_saved_tensors() -> Iterator[None]:
    """Let tensors that were saved for backward be edited in place.

    Inside the context every saved value is a copy, made when it is saved, so this costs memory
    for values nobody edits, too. Backward must run inside the same context.

    Raises:
        RuntimeError: the context is entered a second time within itself.
        AssertionError: backward runs outside of it.
    """
    if _allowed.get():
        raise RuntimeError("allow_mutation_on_saved_tensors contexts cannot be nested")
    copies: weakref.WeakKeyDictionary[_Handle, Tensor] = weakref.WeakKeyDictionary()

    def pack(tensor: Tensor) -> _Handle:
        handle = _Handle()
        copies[handle] = tensor.clone()  # type: ignore[attr-defined]
        return handle

    def unpack(handle: _Handle) -> Tensor:
        if handle not in copies:
            raise AssertionError(
                "Trying to backward outside of the 'allow_mutation_on_saved_tensors' context "
                "in which the graph was originally recorded."
            )
        return copies[handle]

    token = _allowed.set(True)
    try:
        with saved_tensors_hooks(pack, unpack):
            yield
    finally:
        copies.clear()
        _allowed.reset(token)


# -------------------------------------------------------------------------------- edges
class GradientEdge(NamedTuple):
    """The place in the graph where a tensor's gradient arrives.

    `autograd.grad` and `backward` take it in the place of a tensor, whose values need not be kept
    then.
    """

    node: Node
    output_nr: int
    ownership_token: Any = None


class EdgeToken:
    """What a `GradientEdge` remembers: the engine's edge, and what its tensor looked like."""

    __slots__ = ("edge", "shape", "size", "dtype", "array_class", "device")

    def __init__(self, edge: Any, array: Any) -> None:
        self.edge, self.array_class, self.device = edge, array.__class__, array.device
        self.shape, self.size, self.dtype = array.shape, array.size, array.dtype

    def __repr__(self) -> str:
        return "<gradlite.autograd.graph.EdgeToken>"


def get_gradient_edge(tensor: Tensor) -> GradientEdge:
    """The edge at which the gradient of a tensor arrives.

    Raises:
        RuntimeError: the tensor requires no grad.
    """
    edge = gradient_edge(tensor)
    if edge is None:
        raise RuntimeError(
            "It is not possible to get the gradient edge for a Tensor that does not require "
            "gradients"
        )
    node, nr = (edge.node, edge.nr) if edge.__class__ is OutputEdge else (edge, 0)
    return GradientEdge(node.shown, nr, EdgeToken(edge, tensor.array))


def edge_of(target: Tensor | GradientEdge) -> Any:
    """The engine's edge of a Tensor or a `GradientEdge`; None when there is none."""
    if isinstance(target, Tensor):
        return gradient_edge(target)
    if isinstance(target.ownership_token, EdgeToken):
        return target.ownership_token.edge
    node = target.node.behind
    return node if node is None or node.outputs == 1 else OutputEdge(node, target.output_nr)


def increment_version(tensor: Tensor | Iterable[Tensor]) -> None:
    """Note that tensors were written to by code that autograd does not know."""
    for t in (tensor,) if isinstance(tensor, Tensor) else tensor:
        t._bump()


# ------------------------------------------------------------- hooks on several tensors
class _MultiHandle(RemovableHandle):
    __slots__ = ("handles",)

    def __init__(self, handles: tuple[RemovableHandle, ...]) -> None:
        self.handles = handles

    def remove(self) -> None:
        """Remove the hook; calling it again does nothing."""
        for handle in self.handles:
            handle.remove()


def register_multi_grad_hook(
    tensors: Sequence[Tensor], fn: Callable[[Any], None], *, mode: str = "all"
) -> RemovableHandle:
    """Call a function when the gradients of several tensors are known.

    Args:
        tensors: tensors that require grad.
        fn: with mode "all", called once in each backward pass, after the last of the gradients
            that it computes, with a list of one gradient (or None) per tensor; with mode "any",
            called with the first of them.

    Returns:
        A handle whose ``remove()`` takes the hook away.
    """
    if mode not in ("all", "any"):
        raise ValueError(f"Expects mode to be one of ('all', 'any') but got {mode}")
    nodes = []
    for t in tensors:
        edge = gradient_edge(t)
        if edge is None:
            raise AssertionError("Expected gradient function to be set")
        nodes.append(edge.node if edge.__class__ is OutputEdge else edge)
    passes: weakref.WeakKeyDictionary[Any, Any] = weakref.WeakKeyDictionary()

    def hook_of(place: int) -> Callable[[Tensor], None]:
        def all_known(grad: Tensor) -> None:
            current = graph.current_pass()
            assert current is not None  # hooks run in passes only
            if current not in passes:
                waiting = sum(current.reaches(node) for node in nodes)
                passes[current] = [waiting, [None] * len(nodes)]
            state = passes[current]
            state[0] -= 1
            state[1][place] = grad
            if state[0] == 0:
                del passes[current]
                fn(state[1])

        def first_known(grad: Tensor) -> None:
            current = graph.current_pass()
            if current not in passes:
                passes[current] = True
                fn(grad)

        return all_known if mode == "all" else first_known

    return _MultiHandle(tuple(t.register_hook(hook_of(i)) for i, t in enumerate(tensors)))
