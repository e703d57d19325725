"""Hooks on nodes, on leaves and on saved values: few graphs have any, and the engine runs them."""

from __future__ import annotations

import contextvars
import itertools
import weakref
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from gradlite import changes
from gradlite.grad_mode import no_grad

if TYPE_CHECKING:
    from gradlite.graph import Node

Gradient = Any
# What tensor.py hands in: wrap an array into a Tensor, take it out again, tell arrays from other
# values.
wrap: Callable[[Any], Any]
unwrap: Callable[[Any], Any]
is_array: Callable[[Any], bool]
saved_names: Callable[[Node], tuple[str, ...]]  # handed in by autograd/saved.py
in_graph: Callable[[Any, Any], Any]  # a Tensor of an array and an edge; a leaf itself


# ------------------------------------------------------------------------ registering
class Extra:
    """What few nodes carry: hooks, tensors that retain their grad, the forward's traceback."""

    __slots__ = (
        "prehooks",
        "posthooks",
        "post_accumulate",
        "retained",
        "trace",
        "induced_by",
        "metadata",
    )

    def __init__(self) -> None:
        self.prehooks: dict[int, tuple[int | None, Callable[..., Any]]] = {}
        self.posthooks: dict[int, Callable[..., Any]] = {}
        self.post_accumulate: dict[int, Callable[..., Any]] = {}
        self.retained: dict[int, weakref.ref[Any]] = {}
        self.trace: list[str] | None = None
        self.induced_by: Node | None = None
        self.metadata: dict[str, Any] = {}


class RemovableHandle:
    """Returned by every ``register_*hook``; ``remove()`` takes the hook away again."""

    __slots__ = ("_hooks", "id", "__weakref__")

    def __init__(self, hooks: dict[int, Any], key: int) -> None:
        self._hooks = hooks
        self.id = key

    def remove(self) -> None:
        """Remove the hook; calling it again does nothing."""
        changes.count[0] += 1
        self._hooks.pop(self.id, None)

    def __enter__(self) -> RemovableHandle:
        return self

    def __exit__(self, *exc: object) -> None:
        self.remove()


_next_hook_id = itertools.count().__next__


def add_hook(hooks: dict[int, Any], value: Any) -> RemovableHandle:
    """Enter a hook, after those that are there already."""
    changes.count[0] += 1
    key = _next_hook_id()
    hooks[key] = value
    return RemovableHandle(hooks, key)


def remove_with(owner: Any, handle: RemovableHandle) -> RemovableHandle:
    """The handle of a hook that is removed when its owner dies, if not before."""
    weakref.finalize(owner, handle.remove).atexit = False
    return handle


# ------------------------------------------------------------------- saved-tensor hooks
saved_hooks: contextvars.ContextVar[tuple[Any, ...]] = contextvars.ContextVar(
    "gradlite_saved_hooks", default=()
)


class Packed(tuple[Any, ...]):
    """The saved values of a node whose arrays went through a pack hook."""

    __slots__ = ()


class PackedArray:
    """What the pack hook made of one array, with the hook that unpacks it."""

    __slots__ = ("value", "unpack", "source")

    def __init__(self, value: Any, unpack: Callable[[Any], Any], source: int) -> None:
        self.value, self.unpack, self.source = value, unpack, source  # the array's id


def pack_saved(value: Any, edge: Any = None) -> Any:
    """Arrays, and those inside of tuples, through the innermost pack hook; the rest as it is.

    The hook is given the tensor that the edge is of: a leaf itself, or another of its values.
    """
    if isinstance(value, tuple):
        return tuple([pack_saved(v) for v in value])
    if not is_array(value):
        return value
    pack, unpack = saved_hooks.get()[-1]
    with no_grad():
        tensor = wrap(value) if edge is None else in_graph(value, edge)
        return PackedArray(pack(tensor), unpack, id(value))


def unpack_saved(value: Any) -> Any:
    """What went into `pack_saved`."""
    if isinstance(value, tuple):
        return tuple([unpack_saved(v) for v in value])
    return unwrap(value.unpack(value.value)) if value.__class__ is PackedArray else value


# --------------------------------------------------------------- what the engine runs
def _as_tensor(grad: Gradient) -> Any:
    return None if grad is None else wrap(grad)


def _as_gradient(tensor: Any, like: Gradient) -> Gradient:
    """Back to what the engine is carrying: an array, or a Tensor under create_graph."""
    return tensor if tensor is None or wrap(like) is like else unwrap(tensor)


def run_prehooks(node: Node, extra: Extra, grad: Gradient, runs: bool = True) -> Gradient:
    """The gradient as the hooks before a rule leave it.

    As in PyTorch, those of its tensors come first; what they leave is retained where somebody
    asked for that. The node's own follow if it ``runs``.
    """
    several = node.outputs > 1
    parts = list(grad) if several else [grad]
    like = next((p for p in parts if p is not None), None)
    hooks = list(extra.prehooks.values())
    for nr, hook in hooks:
        if nr is not None:
            result = hook(_as_tensor(parts[nr]))
            if result is not None:
                parts[nr] = _as_gradient(_checked(result, parts[nr]), like)
    for nr, reference in extra.retained.items():
        tensor = reference()
        if tensor is not None and parts[nr] is not None:
            tensor._retain(parts[nr])
    for nr, hook in hooks if runs else ():
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
    return parts if several else parts[0]


def _checked(result: Any, grad: Gradient) -> Any:
    if unwrap(result) is result:
        raise TypeError(f"expected Variable, but hook returned '{result.__class__.__name__}'")
    if grad is not None and tuple(result.shape) != tuple(grad.shape):
        raise RuntimeError("hook has changed the size of value")
    return result


def differentiable(node: Node, values: Sequence[Any]) -> Sequence[Any]:
    """Of one value per input of a node, those of inputs that may get a gradient."""
    constants = getattr(node.op, "constants", ())
    return [v for p, v in enumerate(values) if p not in constants] if constants else values


def run_posthooks(
    node: Node, extra: Extra, grads: Sequence[Gradient], grad: Gradient
) -> Sequence[Gradient]:
    """What a rule made of ``grad``, as the hooks after it leave it."""
    outputs = grad if isinstance(grad, list) else [grad]
    like = next((p for p in outputs if p is not None), None)
    for hook in list(extra.posthooks.values()):
        given = tuple(_as_tensor(g) for g in differentiable(node, grads))
        result = hook(given, tuple(_as_tensor(g) for g in outputs))
        if result is not None:
            result = result if isinstance(result, tuple) else (result,)
            if len(result) != len(given):
                raise RuntimeError(
                    f"hook '{getattr(hook, '__name__', hook)}' has returned an incorrect number "
                    f"of values (got {len(result)}, but expected {len(given)})"
                )
            changed = iter(result)
            constants = getattr(node.op, "constants", ())
            grads = [
                None if place in constants else _as_gradient(next(changed), like)
                for place in range(len(grads))
            ]
    return grads


def run_leaf_hooks(extra: Extra, variable: Any, grad: Gradient) -> None:
    """What is registered on a leaf and its node, after a gradient was added to its ``.grad``."""
    for hook in list(extra.post_accumulate.values()):
        result = hook(variable)
        if result is not None:
            if unwrap(result) is result:
                raise TypeError(
                    f"expected Variable, but hook returned '{result.__class__.__name__}'"
                )
            raise RuntimeError("Tensor post accumulate grad hooks should return None.")
    for post in list(extra.posthooks.values()):
        post((), (_as_tensor(grad),))
