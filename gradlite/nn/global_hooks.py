"""Hooks of all modules at once: `register_module_forward_hook` and its kin.

They run before a module's own. A program without them pays nothing: they set the flag that
`Module.__call__` looks at on the class, where it is found when a module has none of its own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple

from gradlite.graph_hooks import RemovableHandle, add_hook

__all__ = [
    "register_module_backward_hook",
    "register_module_forward_hook",
    "register_module_forward_pre_hook",
    "register_module_full_backward_hook",
    "register_module_full_backward_pre_hook",
]


class ForwardHook(NamedTuple):
    """A hook around `forward`, and how it is called."""

    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


class Hooked:
    """The flag that says whether a module has hooks, as all have while there are global ones."""

    _hooked: bool = False


forward_pre_hooks: OrderedDict[int, Any] = OrderedDict()
forward_hooks: OrderedDict[int, Any] = OrderedDict()
backward_pre_hooks: OrderedDict[int, Any] = OrderedDict()
backward_hooks: OrderedDict[int, Any] = OrderedDict()
node_hooks: OrderedDict[int, Any] = OrderedDict()
TABLES = (forward_pre_hooks, forward_hooks, backward_pre_hooks, backward_hooks, node_hooks)
TABLES = (forward_pre_hooks, forward_hooks, backward_pre_hooks, backward_hooks, node_hooks)


def _register(table: OrderedDict[int, Any], hook: Any) -> RemovableHandle:
    Hooked._hooked = True
    return add_hook(table, hook)


def register_module_forward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, args)`` before the `forward` of every module."""
    return _register(forward_pre_hooks, ForwardHook(hook))


def register_module_forward_hook(
    hook: Callable[..., Any], *, with_kwargs: bool = False, always_call: bool = False
) -> RemovableHandle:
    """Call ``hook(module, args, output)`` after the `forward` of every module.

    >>> from gradlite import nn, zeros
    >>> from gradlite.nn.modules.module import register_module_forward_hook
    >>> def show(module, args, output):
    ...     print(type(module).__name__, tuple(output.shape))
    >>> with register_module_forward_hook(show):
    ...     _ = nn.Sequential(nn.Linear(2, 3), nn.ReLU())(zeros(1, 2))
    Linear (1, 3)
    ReLU (1, 3)
    Sequential (1, 3)
    """
    return _register(forward_hooks, ForwardHook(hook, with_kwargs, always_call))


def register_module_full_backward_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_output)`` before the backward of every module."""
    return _register(backward_pre_hooks, hook)


def register_module_full_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(module, grad_input, grad_output)`` after the backward of every module."""
    if node_hooks:
        raise RuntimeError(MIXED)
    return _register(backward_hooks, hook)


def register_module_backward_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """The older form of `register_module_full_backward_hook`; see `Module.register_backward_hook`.

    Raises:
        RuntimeError: there are hooks of the newer form.
    """
    if backward_hooks:
        raise RuntimeError(MIXED)
    return _register(node_hooks, hook)


MIXED = (
    "Cannot use both regular backward hooks and full backward hooks as a global Module hook. "
    "Please use only one of them."
)
