"""Hooks of modules: functions called around `forward` and around a module's backward.

A module without hooks never comes here: `Module.__call__` looks at one flag.
"""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TYPE_CHECKING, Any

from gradlite.autograd import Function
from gradlite.grad_mode import is_grad_enabled
from gradlite.graph_hooks import RemovableHandle, add_hook
from gradlite.nn import global_hooks, node_hooks
from gradlite.nn.global_hooks import ForwardHook, Hooked
from gradlite.tensor import Tensor

if TYPE_CHECKING:
    from gradlite.nn.module import Module

__all__ = ["HookMethods"]

NO_HOOKS: Mapping[int, Any] = MappingProxyType({})


def _as_tuple(value: Any) -> tuple[Any, ...]:
    return value if isinstance(value, tuple) else (value,)


class HookMethods(Hooked):
    """The part of `Module` that registers hooks and runs them."""

    forward: Callable[..., Any]
    # Class-level defaults: an instance gets its own on the first registration, so that
    # modules without hooks pay for one flag, in time and in memory.
    _forward_pre_hooks: Mapping[int, Any] = NO_HOOKS
    _forward_hooks: Mapping[int, Any] = NO_HOOKS
    _backward_pre_hooks: Mapping[int, Any] = NO_HOOKS
    _backward_hooks: Mapping[int, Any] = NO_HOOKS
    _node_hooks: Mapping[int, Any] = NO_HOOKS
    _is_full_backward_hook: bool | None = None

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
        return self._register_hook("_forward_pre_hooks", ForwardHook(hook, with_kwargs), prepend)

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
        record = ForwardHook(hook, with_kwargs, always_call)
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
        self._want_backward_hooks(full=True)
        return self._register_hook("_backward_hooks", hook, prepend)

    def register_backward_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, grad_input, grad_output)`` after the backward of the last op.

        The older form of `register_full_backward_hook`: of a module of several ops it sees the
        gradients of the last one's operands, and warns.

        Raises:
            RuntimeError: the module has hooks of the newer form.
        """
        self._want_backward_hooks(full=False)
        return self._register_hook("_node_hooks", hook, False)

    def _want_backward_hooks(self, full: bool) -> None:
        if self._is_full_backward_hook is (not full):
            raise RuntimeError(
                "Cannot use both regular backward hooks and full backward hooks on a single "
                "Module. Please use only one of them."
            )
        self.__dict__["_is_full_backward_hook"] = full

    def _own_hooks(self) -> bool:
        return bool(
            self._forward_pre_hooks
            or self._forward_hooks
            or self._backward_pre_hooks
            or self._backward_hooks
            or self._node_hooks
        )

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if not self._own_hooks():  # All were removed: the short way again.
            self.__dict__.pop("_hooked", None)
            if not any(global_hooks.TABLES):
                Hooked._hooked = False
                return self.forward(*args, **kwargs)
        done: set[int] = set()
        output = None
        try:
            args, kwargs = self._run_forward_pre_hooks(args, kwargs)
            around = _BackwardHooks.around(self)  # type: ignore[arg-type]
            if around is not None:
                args = around.watch_inputs(args)
            output = self.forward(*args, **kwargs)
            for key, hook in [*global_hooks.forward_hooks.items(), *self._forward_hooks.items()]:
                done.add(key)
                changed = _call_forward_hook(self, hook, args, kwargs, output)
                if changed is not None:
                    output = changed
            if around is not None:
                output = around.watch_outputs(output)
            hooks = [*global_hooks.node_hooks.values(), *self._node_hooks.values()]
            if hooks:
                node_hooks.attach(self, hooks, args, output)
            return output
        except Exception:
            self._run_forward_hooks_that_are_always_called(args, kwargs, output, done)
            raise

    def _run_forward_hooks_that_are_always_called(
        self, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any, done: set[int]
    ) -> None:
        everywhere = [("global ", *item) for item in global_hooks.forward_hooks.items()]
        for whose, key, hook in [*everywhere, *(("", *i) for i in self._forward_hooks.items())]:
            if not hook.always_call or key in done:
                continue
            try:
                changed = _call_forward_hook(self, hook, args, kwargs, output)
                if changed is not None:
                    output = changed
            except Exception as error:
                warnings.warn(
                    f"{whose}module forward hook with ``always_call=True`` raised an exception "
                    "that was silenced as another error was raised in forward: " + str(error),
                    stacklevel=4,
                )

    def _run_forward_pre_hooks(
        self, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> tuple[tuple[Any, ...], dict[str, Any]]:
        everywhere = global_hooks.forward_pre_hooks.values()
        for hook in [*everywhere, *self._forward_pre_hooks.values()]:
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
    module: Any, hook: ForwardHook, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any
) -> Any:
    if hook.with_kwargs:
        return hook.function(module, args, kwargs, output)
    return hook.function(module, args, output)


class _BackwardHooks:
    """The backward hooks of one call of a module.

    Identities put around the module show where its backward begins (the node behind its
    outputs) and where it ends (the node before its inputs).
    """

    def __init__(self, module: Module, hooks: list[Any], pre_hooks: list[Any]) -> None:
        self.module = module
        self.hooks = hooks
        self.pre_hooks = pre_hooks
        self.grad_outputs: tuple[Any, ...] | None = None
        self.input_places: list[int] | None = None
        self.inputs = 0

    @classmethod
    def around(cls, module: Module) -> _BackwardHooks | None:
        """Those of a module that is about to be called, if there are any to be run."""
        hooks = [*global_hooks.backward_hooks.values(), *module._backward_hooks.values()]
        pre_hooks = [*global_hooks.backward_pre_hooks.values()]
        pre_hooks += module._backward_pre_hooks.values()
        if not (hooks or pre_hooks) or not is_grad_enabled():
            return None
        return cls(module, hooks, pre_hooks)

    def watch_inputs(self, args: tuple[Any, ...]) -> tuple[Any, ...]:
        watched, node, places = _identity(args)
        self.inputs = len(args)
        if node is not None:
            self.input_places = places
            node.register_hook(self._after)
        return watched

    def watch_outputs(self, output: Any) -> Any:
        if not isinstance(output, (Tensor, tuple)):
            warnings.warn(
                "For backward hooks to be called, module output should be a Tensor or a tuple of "
                f"Tensors but received {type(output)}",
                stacklevel=4,
            )
        watched, node, places = _identity(_as_tuple(output))
        if node is None:
            return output
        self.outputs, self.output_places = len(watched), places
        node.register_prehook(self._before)
        if not isinstance(output, tuple):
            return watched[0]
        named = hasattr(output, "_fields")
        return type(output)(*watched) if named else watched

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
