"""Hooks of modules: functions called around `forward` and around a module's backward.

A module without hooks never comes here: `Module.__call__` looks at one flag.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, NamedTuple

from gradlite.autograd import Function
from gradlite.grad_mode import is_grad_enabled
from gradlite.graph_hooks import RemovableHandle, add_hook
from gradlite.tensor import Tensor

if TYPE_CHECKING:
    from gradlite.nn.module import Module

__all__ = ["HookMethods"]

NO_HOOKS: Mapping[int, Any] = MappingProxyType({})


class _Hook(NamedTuple):
    function: Callable[..., Any]
    with_kwargs: bool = False
    always_call: bool = False


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


class HookMethods:
    """The part of `Module` that registers hooks and runs them."""

    forward: Callable[..., Any]
    # Class-level defaults: an instance gets its own on the first registration, so that
    # modules without hooks pay for one flag, in time and in memory.
    _hooked: bool = False
    _forward_pre_hooks: Mapping[int, Any] = NO_HOOKS
    _forward_hooks: Mapping[int, Any] = NO_HOOKS
    _backward_pre_hooks: Mapping[int, Any] = NO_HOOKS
    _backward_hooks: Mapping[int, Any] = NO_HOOKS

    def _register_hook(self, table: str, hook: Any, prepend: bool) -> RemovableHandle:
        hooks = self.__dict__.setdefault(table, OrderedDict())
        handle = add_hook(hooks, hook)
        if prepend:
            hooks.move_to_end(handle.id, last=False)
        self.__dict__["_hooked"] = True
        return handle

    def register_forward_pre_hook(
        self, hook: Callable[..., Any], *, prepend: bool = False, with_kwargs: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, args)`` before each `forward`.

        What it returns, a tuple or one value, replaces the positional arguments; None leaves
        them. With ``with_kwargs`` it is called as ``hook(module, args, kwargs)`` and returns
        None or a pair ``(args, kwargs)``. ``prepend`` runs it before the hooks already there.
        """
        return self._register_hook("_forward_pre_hooks", _Hook(hook, with_kwargs), prepend)

    def register_forward_hook(
        self,
        hook: Callable[..., Any],
        *,
        prepend: bool = False,
        with_kwargs: bool = False,
        always_call: bool = False,
    ) -> RemovableHandle:
        """Call ``hook(module, args, output)`` after each `forward`.

        What it returns replaces the output; None leaves it. With ``with_kwargs`` it is called
        as ``hook(module, args, kwargs, output)``. With ``always_call`` it also runs, with None
        for the output, when `forward` raises.
        """
        record = _Hook(hook, with_kwargs, always_call)
        return self._register_hook("_forward_hooks", record, prepend)

    def register_full_backward_pre_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, grad_output)`` before the module's backward.

        ``grad_output`` is a tuple, one gradient per output; what the hook returns replaces it.
        """
        return self._register_hook("_backward_pre_hooks", hook, prepend)

    def register_full_backward_hook(
        self, hook: Callable[..., Any], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` after the module's backward.

        ``grad_input`` has one entry per positional argument (None where there is no gradient);
        what the hook returns replaces it.
        """
        return self._register_hook("_backward_hooks", hook, prepend)

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        forward_hooks = self._forward_pre_hooks or self._forward_hooks
        if not (forward_hooks or self._backward_pre_hooks or self._backward_hooks):
            self.__dict__["_hooked"] = False  # All were removed: the short way again.
            return self.forward(*args, **kwargs)
        done: set[int] = set()
        output = None
        try:
            args, kwargs = self._run_forward_pre_hooks(args, kwargs)
            around = None
            if (self._backward_hooks or self._backward_pre_hooks) and is_grad_enabled():
                around = _BackwardHooks(self)  # type: ignore[arg-type]
                args = around.watch_inputs(args)
            output = self.forward(*args, **kwargs)
            for key, hook in list(self._forward_hooks.items()):
                done.add(key)
                changed = _call_forward_hook(self, hook, args, kwargs, output)
                if changed is not None:
                    output = changed
            return output if around is None else around.watch_outputs(output)
        except Exception:
            for key, hook in list(self._forward_hooks.items()):
                if not hook.always_call or key in done:
                    continue
                try:
                    changed = _call_forward_hook(self, hook, args, kwargs, output)
                    if changed is not None:
                        output = changed
                except Exception as error:
                    warnings.warn(
                        "module forward hook with ``always_call=True`` raised an exception that "
                        "was silenced as another error was raised in forward: " + str(error),
                        stacklevel=3,
                    )
            raise

    def _run_forward_pre_hooks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        for hook in list(self._forward_pre_hooks.values()):
            if hook.with_kwargs:
                changed = hook.function(self, args, kwargs)
                if changed is None:
                    continue
                if not (isinstance(changed, tuple) and len(changed) == 2):
                    raise RuntimeError(
                        "forward pre-hook must return None or a tuple of (new_args, "
                        f"new_kwargs), but got {changed}."
                    )
                args, kwargs = changed
            else:
                changed = hook.function(self, args)
                if changed is not None:
                    args = _as_tuple(changed)
        return args, kwargs


def _call_forward_hook(
    module: Any, hook: _Hook, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    if hook.with_kwargs:
        return hook.function(module, args, kwargs, output)
    return hook.function(module, args, output)


class _BackwardHooks:
    """The backward hooks of one call of a module.

    Identities put around the module show where its backward begins (the node behind its
    outputs) and where it ends (the node before its inputs).
    """

    def __init__(self, module: Module) -> None:
        self.module = module
        self.hooks = list(module._backward_hooks.values())
        self.pre_hooks = list(module._backward_pre_hooks.values())
        self.grad_outputs: tuple[Any, ...] | None = None
        self.input_places: list[int] | None = None
        self.inputs = 0

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        watched, node, places = _identity(args)
        self.inputs = len(args)
        if node is not None:
            self.input_places = places
            node.register_hook(self._after)
        return watched

    def watch_outputs(self, output: Any) -> Any:
        watched, node, places = _identity(_as_tuple(output))
        if node is None:
            return output
        self.outputs, self.output_places = len(watched), places
        node.register_prehook(self._before)
        return watched if isinstance(output, tuple) else watched[0]

    def _before(self, grads: tuple[Any, ...]) -> tuple[Any, ...]:
        grad_outputs = _spread(grads, self.output_places, self.outputs)
        for hook in self.pre_hooks:
            changed = hook(self.module, grad_outputs)
            if changed is None:
                continue
            if len(changed) != len(grad_outputs):
                raise RuntimeError(
                    "Backward pre hook returned an invalid number of grad_output, "
                    f"got {len(changed)}, but expected {len(grad_outputs)}"
                )
            grad_outputs = changed
        if self.input_places is None:
            if self.hooks:
                warnings.warn(
                    "Full backward hook is firing when gradients are computed with respect to "
                    "module outputs since no inputs require gradients.",
                    stacklevel=2,
                )
            for hook in self.hooks:
                changed = hook(self.module, _spread((), [], self.inputs), grad_outputs)
                if changed is not None and any(g is not None for g in _as_tuple(changed)):
                    raise RuntimeError(
                        "Backward hook for Modules where no input requires gradient should "
                        "always return None or None for all gradients."
                    )
        else:
            self.grad_outputs = grad_outputs
        return tuple(grad_outputs[place] for place in self.output_places)

    def _after(self, grads: tuple[Any, ...], _: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if self.grad_outputs is None:  # The module's outputs took no part in this backward.
            return None
        assert self.input_places is not None
        grad_inputs = _spread(grads, self.input_places, self.inputs)
        for hook in self.hooks:
            changed = hook(self.module, grad_inputs, self.grad_outputs)
            if changed is None:
                continue
            if len(changed) != len(grad_inputs):
                raise RuntimeError(
                    "Backward hook returned an invalid number of grad_input, "
                    f"got {len(changed)}, but expected {len(grad_inputs)}"
                )
            grad_inputs = changed
        self.grad_outputs = None
        return tuple(grad_inputs[place] for place in self.input_places)


def _spread(values: tuple[Any, ...], places: list[int], length: int) -> tuple[Any, ...]:
    spread: list[Any] = [None] * length
    for place, value in zip(places, values, strict=True):
        spread[place] = value
    return tuple(spread)


class BackwardHookFunction(Function):
    """Hands its tensors on; its node is where the hooks hang."""

    @staticmethod
    def forward(ctx: Any, *tensors: Tensor) -> tuple[Tensor, ...]:
        outputs = tuple(t.detach() for t in tensors)
        ctx.mark_non_differentiable(
            *(o for t, o in zip(tensors, outputs, strict=True) if not t.requires_grad)
        )
        return outputs

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        return grads


def _identity(args: tuple[Any, ...]) -> tuple[tuple[Any, ...], Any, list[int]]:
    """Pass the tensors of ``args`` through one node; also the node and the tensors' places."""
    places = [place for place, arg in enumerate(args) if isinstance(arg, Tensor)]
    if not any(args[place].requires_grad for place in places):
        return args, None, places
    outputs = _as_tuple(BackwardHookFunction.apply(*(args[place] for place in places)))
    node = next(output.grad_fn for output in outputs if output.grad_fn is not None)
    watched = list(args)
    for place, output in zip(places, outputs, strict=True):
        watched[place] = output
    return tuple(watched), node, places
