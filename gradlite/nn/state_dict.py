"""Saving and loading the state of a module by name: the `state_dict` part of `Module`."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from gradlite.grad_mode import no_grad
from gradlite.graph_hooks import RemovableHandle, add_hook
from gradlite.nn.hooks import NO_HOOKS
from gradlite.nn.parameter import Parameter, is_lazy
from gradlite.tensor import Tensor

if TYPE_CHECKING:
    from gradlite.nn.module import Module

__all__ = ["StateDictMethods"]

EXTRA_STATE_KEY = "_extra_state"


class _IncompatibleKeys(
    namedtuple("_IncompatibleKeys", ["missing_keys", "unexpected_keys"])  # noqa: PYI024
):
    """What `Module.load_state_dict` returns: the keys it missed and those it did not expect."""

    __slots__ = ()

    def __repr__(self) -> str:
        if not self.missing_keys and not self.unexpected_keys:
            return "<All keys matched successfully>"
        return super().__repr__()

    __str__ = __repr__


class StateDictMethods:
    """The part of `Module` that turns it into a dictionary of tensors and back."""

    _version: int = 1
    _parameter_names: dict[str, bool]
    _buffer_names: dict[str, bool]
    _module_names: dict[str, bool]
    # Class-level defaults: an instance gets its own on the first registration.
    _state_dict_hooks: Mapping[int, Any] = NO_HOOKS
    _state_dict_pre_hooks: Mapping[int, Any] = NO_HOOKS
    _load_state_dict_pre_hooks: Mapping[int, Any] = NO_HOOKS
    _load_state_dict_post_hooks: Mapping[int, Any] = NO_HOOKS

    # ------------------------------------------------------------------------- saving
    def state_dict(
        self,
        *,
        destination: dict[str, Any] | None = None,
        prefix: str = "",
        keep_vars: bool = False,
    ) -> dict[str, Any]:
        """All parameters and persistent buffers by their dotted names.

        The tensors share memory with the module; they are detached from the graph unless
        ``keep_vars``. Names get ``prefix`` in front and are put into ``destination`` if given.
        """
        if destination is None:
            destination = OrderedDict()
            destination._metadata = OrderedDict()  # type: ignore[attr-defined]
        local_metadata = {"version": self._version}
        if hasattr(destination, "_metadata"):
            destination._metadata[prefix[:-1]] = local_metadata
        for hook in list(self._state_dict_pre_hooks.values()):
            hook(self, prefix, keep_vars)
        self._save_to_state_dict(destination, prefix, keep_vars)
        for name, child in self._named_slots(self._module_names):
            if child is not None:
                child.state_dict(
                    destination=destination, prefix=f"{prefix}{name}.", keep_vars=keep_vars
                )
        for hook, may_replace in list(self._state_dict_hooks.values()):
            changed = hook(self, destination, prefix, local_metadata)
            if changed is not None:
                if not may_replace:
                    raise RuntimeError("state_dict post-hook must return None")
                destination = changed
        return destination

    def _save_to_state_dict(
        self, destination: dict[str, Any], prefix: str, keep_vars: bool
    ) -> None:
        """Put this module's own state into ``destination``, without its children's."""
        for name, tensor in self._named_slots(self._parameter_names):
            if tensor is not None:
                destination[prefix + name] = tensor if keep_vars else tensor.detach()
        for name, tensor in self._named_slots(self._buffer_names):
            if tensor is not None and self._buffer_names[name]:
                destination[prefix + name] = tensor if keep_vars else tensor.detach()
        if _overrides(self, "get_extra_state"):
            destination[prefix + EXTRA_STATE_KEY] = self.get_extra_state()

    def get_extra_state(self) -> Any:
        """Override to keep something that is no tensor in the state dict, under a key of its own.

        Raises:
            RuntimeError: not overridden.
        """
        raise RuntimeError(_no_extra_state("get_extra_state"))

    def set_extra_state(self, state: Any) -> None:
        """Override together with `get_extra_state`; called by `load_state_dict`.

        Raises:
            RuntimeError: not overridden.
        """
        raise RuntimeError(_no_extra_state("set_extra_state"))

    def register_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata)`` at the end of `state_dict`.

        It may change the dictionary in place and must return None.
        """
        return self._add_state_hook("_state_dict_hooks", (hook, False))

    def _register_state_dict_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        return self._add_state_hook("_state_dict_hooks", (hook, True))

    def register_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, prefix, keep_vars)`` at the beginning of `state_dict`."""
        return self._add_state_hook("_state_dict_pre_hooks", hook)

    def _add_state_hook(self, table: str, hook: Any) -> RemovableHandle:
        return add_hook(self.__dict__.setdefault(table, OrderedDict()), hook)

    # ------------------------------------------------------------------------ loading
    def load_state_dict(
        self, state_dict: Mapping[str, Any], strict: bool = True, assign: bool = False
    ) -> _IncompatibleKeys:
        """Copy parameters and buffers out of a `state_dict`.

        With ``assign`` the tensors themselves are put in place of the module's own, keeping
        the dtype and device they have in ``state_dict``.

        Returns:
            The missing and the unexpected keys, as two lists.

        Raises:
            TypeError: ``state_dict`` is no mapping.
            RuntimeError: naming every tensor whose size does not match and, when ``strict``,
                every missing and every unexpected key. What matches has been loaded.
        """
        if not isinstance(state_dict, Mapping):
            raise TypeError(f"Expected state_dict to be dict-like, got {type(state_dict)}.")
        missing: list[str] = []
        unexpected: list[str] = []
        errors: list[str] = []
        metadata = getattr(state_dict, "_metadata", None)
        state = OrderedDict(state_dict)  # Hooks may change it, and the caller keeps the original.
        if metadata is not None:
            state._metadata = metadata  # type: ignore[attr-defined]
        incompatible = _IncompatibleKeys(missing, unexpected)

        _load(self, state, "", metadata, assign, incompatible, errors)  # type: ignore[arg-type]
        if strict:
            if unexpected:
                errors.insert(0, f"Unexpected key(s) in state_dict: {_quoted(unexpected)}. ")
            if missing:
                errors.insert(0, f"Missing key(s) in state_dict: {_quoted(missing)}. ")
        if errors:
            listed = "\n\t".join(errors)
            raise RuntimeError(
                f"Error(s) in loading state_dict for {type(self).__name__}:\n\t{listed}"
            )
        return incompatible

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        """Take this module's own state out of ``state_dict``, without its children's.

        Override to read the state of older versions (``local_metadata["version"]``).
        """
        state = (state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys)
        for hook, with_module in list(self._load_state_dict_pre_hooks.values()):
            given = (self, *state) if with_module else state
            hook(*given, error_msgs)
        assign = local_metadata.get("assign_to_params_buffers", False)
        slots = self._named_slots(self._parameter_names) + [
            slot for slot in self._named_slots(self._buffer_names) if self._buffer_names[slot[0]]
        ]
        own = {name: tensor for name, tensor in slots if tensor is not None}
        for name, tensor in own.items():
            key = prefix + name
            if key not in state_dict:
                if strict:
                    missing_keys.append(key)
                continue
            error = self._load_tensor(name, tensor, key, state_dict[key], assign)
            if error:
                error_msgs.append(error)

        extra_key = prefix + EXTRA_STATE_KEY
        wants_extra = _overrides(self, "set_extra_state")
        if wants_extra and extra_key in state_dict:
            self.set_extra_state(state_dict[extra_key])
        elif wants_extra and strict:
            missing_keys.append(extra_key)
        if not strict:
            return
        for key in state_dict:
            if not key.startswith(prefix):
                continue
            name, *rest = key[len(prefix) :].split(".", 1)
            if key == extra_key:
                known = wants_extra
            else:
                known = name in self._module_names if rest else name in own
            if not known:
                unexpected_keys.append(key)

    def _load_tensor(self, name: str, own: Any, key: str, value: Any, assign: bool) -> str | None:
        """Load one tensor; what is wrong with it, or None."""
        if not isinstance(value, Tensor):
            return (
                f'While copying the parameter named "{key}", expected gradlite.Tensor or '
                f"Tensor-like object from checkpoint but received {type(value)}"
            )
        if is_lazy(own) and is_lazy(value):
            return None
        if not is_lazy(own) and own.ndim == 0 and value.shape == (1,):
            value = value[0]  # type: ignore[index]  # Scalars were once saved with one dimension.
        if own.shape != value.shape:
            return (
                f"size mismatch for {key}: copying a param with shape {value.shape} from "
                f"checkpoint, the shape in current model is {own.shape}."
            )
        try:
            with no_grad():
                if not assign:
                    own.copy_(value)
                elif isinstance(own, Parameter) and not isinstance(value, Parameter):
                    setattr(self, name, Parameter(value, own.requires_grad))
                else:
                    if isinstance(own, Parameter):
                        value.requires_grad_(own.requires_grad)
                    setattr(self, name, value)
        except Exception as error:
            return (
                f'While copying the parameter named "{key}", whose dimensions in the model are '
                f"{own.shape} and whose dimensions in the checkpoint are {value.shape}, "
                f"an exception occurred : {error.args}."
            )
        return None

    def register_load_state_dict_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, state_dict, prefix, local_metadata, strict, missing_keys,
        unexpected_keys, error_msgs)`` before this module's state is loaded."""
        return self._register_load_state_dict_pre_hook(hook, with_module=True)

    def _register_load_state_dict_pre_hook(
        self, hook: Callable[..., Any], with_module: bool = False
    ) -> RemovableHandle:
        return self._add_state_hook("_load_state_dict_pre_hooks", (hook, with_module))

    def register_load_state_dict_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(module, incompatible_keys)`` after this module's state was loaded.

        It may change the two lists in place, which decide what ``strict`` complains about.
        """
        return self._add_state_hook("_load_state_dict_post_hooks", hook)

    def _named_slots(self, names: dict[str, bool]) -> list[tuple[str, Any]]:
        """The pairs of name and value that a table of names stands for."""
        values = self.__dict__
        return [(name, values[name]) for name in names]


def _load(
    module: Module,
    state: dict[str, Any],
    prefix: str,
    metadata: Any,
    assign: bool,
    incompatible: _IncompatibleKeys,
    errors: list[str],
) -> None:
    """Load a module and those below it."""
    # No closure that calls itself: it would keep the tensors until the garbage collector runs.
    local_metadata = {} if metadata is None else metadata.get(prefix[:-1], {})
    if assign:
        local_metadata = {**local_metadata, "assign_to_params_buffers": True}
    module._load_from_state_dict(state, prefix, local_metadata, True, *incompatible, errors)
    for name, child in module._named_slots(module._module_names):
        if child is not None:
            start = f"{prefix}{name}."
            own = {key: value for key, value in state.items() if key.startswith(start)}
            _load(child, own, start, metadata, assign, incompatible, errors)
    for hook in list(module._load_state_dict_post_hooks.values()):
        if hook(module, incompatible) is not None:
            raise AssertionError(
                "Hooks registered with ``register_load_state_dict_post_hook`` are not"
                "expected to return new values, if incompatible_keys need to be "
                "modified,it should be done inplace."
            )


def _overrides(module: StateDictMethods, method: str) -> bool:
    return getattr(type(module), method) is not getattr(StateDictMethods, method)


def _quoted(keys: list[str]) -> str:
    return ", ".join(f'"{key}"' for key in keys)


def _no_extra_state(method: str) -> str:
    return (
        f"Reached a code path in Module.{method}() that should never be called. Override "
        "get_extra_state and set_extra_state together to keep extra state."
    )
