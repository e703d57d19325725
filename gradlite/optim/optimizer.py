"""Optimizer: parameter groups, state, its saved form and hooks; no update rule yet."""

from __future__ import annotations

import copy
import functools
import itertools
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from types import MappingProxyType
from typing import Any

import numpy as np

from gradlite import changes, dtypes
from gradlite.device import beside
from gradlite.graph_hooks import RemovableHandle, add_hook
from gradlite.ops import many
from gradlite.ops.conversion import array_on
from gradlite.tensor import Tensor, wrap

Params = Iterable[Tensor] | Iterable[dict[str, Any]] | Iterable[tuple[str, Tensor]]
Closure = Callable[[], Any]
StateDict = dict[str, Any]

_NO_HOOKS: Any = MappingProxyType({})
_global_optimizer_pre_hooks: dict[int, Callable[..., Any]] = {}
_global_optimizer_post_hooks: dict[int, Callable[..., Any]] = {}
# Set while a step is recorded: takes over the steps of optimizers, which a replay makes anew.
intercept: Callable[..., tuple[Any] | None] | None = None


class _RequiredParameter:
    """Marks an option that every parameter group must give itself."""

    def __repr__(self) -> str:
        return "<required parameter>"


required = _RequiredParameter()


def register_optimizer_step_pre_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` before every step of every optimizer."""
    return add_hook(_global_optimizer_pre_hooks, hook)


def register_optimizer_step_post_hook(hook: Callable[..., Any]) -> RemovableHandle:
    """Call ``hook(optimizer, args, kwargs)`` after every step of every optimizer."""
    return add_hook(_global_optimizer_post_hooks, hook)


# ------------------------------------------------------------------------------- state
def _noting(name: str) -> Any:
    method = getattr(dict, name)

    @functools.wraps(method)
    def noted(self: Any, *args: Any, **kwargs: Any) -> Any:
        self.changes[0] += 1
        return method(self, *args, **kwargs)

    return noted


class ParameterState(dict[Any, Any]):
    """The state of one parameter: a dictionary that counts its changes in ``changes``.

    An optimizer that keeps the same tensors in flat buffers looks at the count alone to know
    that nobody has put others in their place.
    """

    __slots__ = ("changes",)

    def __init__(self, changes: list[int], entries: Any = ()) -> None:
        super().__init__(entries)
        self.changes = changes

    def __reduce__(self) -> Any:
        return dict, (dict(self),)


class State(defaultdict[Any, Any]):
    """The state of all parameters: parameter to `ParameterState`, sharing one count."""

    def __init__(self, entries: Any = ()) -> None:
        super().__init__(dict)
        self.changes = [0]
        for key, value in dict(entries).items():
            self[key] = value

    def __missing__(self, key: Any) -> ParameterState:
        self[key] = {}
        return self[key]  # type: ignore[no-any-return]

    def __setitem__(self, key: Any, value: Any) -> None:
        self.changes[0] += 1
        if isinstance(value, dict):
            value = ParameterState(self.changes, value)
        super().__setitem__(key, value)

    def update(self, *args: Any, **kwargs: Any) -> None:
        for key, value in dict(*args, **kwargs).items():
            self[key] = value

    def __ior__(self, other: Any) -> State:  # type: ignore[override, misc]
        self.update(other)
        return self

    def setdefault(self, key: Any, default: Any = None) -> Any:
        if key not in self:
            self[key] = default
        return self[key]

    def __reduce__(self) -> Any:
        return _plain_state, ([(key, value) for key, value in self.items()],)


def _plain_state(entries: list[tuple[Any, Any]]) -> State:
    return State(entries)


for _name in ("__setitem__", "__delitem__", "__ior__", "clear", "pop", "popitem", "setdefault"):
    setattr(ParameterState, _name, _noting(_name))
ParameterState.update = _noting("update")  # type: ignore[method-assign]
for _name in ("__delitem__", "clear", "pop", "popitem"):
    setattr(State, _name, _noting(_name))


# --------------------------------------------------------------------------- optimizer
def global_step_hooks() -> tuple[dict[int, Callable[..., Any]], ...]:
    """The hooks around the steps of all optimizers."""
    return _global_optimizer_pre_hooks, _global_optimizer_post_hooks


def step_hooks(optimizer: Optimizer) -> tuple[dict[int, Callable[..., Any]], ...]:
    """The hooks around the steps of one optimizer."""
    return optimizer._optimizer_step_pre_hooks, optimizer._optimizer_step_post_hooks


def _with_hooks(step: Callable[..., Any]) -> Callable[..., Any]:
    """A step that calls the hooks around itself, once even when it calls a parent's step."""

    @functools.wraps(step)
    def hooked(self: Any, *args: Any, **kwargs: Any) -> Any:
        if intercept is not None:
            taken = intercept(hooked, self, args, kwargs)
            if taken is not None:
                return taken[0]
        if self._in_hooked_step or not (
            self._optimizer_step_pre_hooks
            or self._optimizer_step_post_hooks
            or _global_optimizer_pre_hooks
            or _global_optimizer_post_hooks
        ):
            return step(self, *args, **kwargs)
        for hook in (
            *_global_optimizer_pre_hooks.values(),
            *self._optimizer_step_pre_hooks.values(),
        ):
            result = hook(self, (self, *args), kwargs)
            if result is not None:
                if not (isinstance(result, tuple) and len(result) == 2):
                    raise RuntimeError(
                        f"{step} must return None or a tuple of (new_args, new_kwargs), "
                        f"but got {result}."
                    )
                args, kwargs = result[0][1:], result[1]
        self._in_hooked_step = True
        try:
            out = step(self, *args, **kwargs)
        finally:
            self._in_hooked_step = False
        for hook in (
            *self._optimizer_step_post_hooks.values(),
            *_global_optimizer_post_hooks.values(),
        ):
            hook(self, (self, *args), kwargs)
        return out

    return hooked


def _typename(value: Any) -> str:
    """The name of a value's type as PyTorch's messages write it."""
    if isinstance(value, Tensor):
        kind = {"float32": "Float", "float64": "Double", "float16": "Half", "int64": "Long"}
        kind["bfloat16"] = "BFloat16"
        return f"gradlite.{kind.get(value.dtype.name, value.dtype.name.capitalize())}Tensor"
    cls = value if isinstance(value, type) else value.__class__
    module = cls.__module__
    return cls.__qualname__ if module in ("builtins", "") else f"{module}.{cls.__qualname__}"


class Optimizer:
    """Base class of the optimizers: holds parameter groups and per-parameter state.

    A subclass gives its options as ``defaults`` and overrides `step`.

    Args:
        params: tensors, ``(name, tensor)`` pairs, or dictionaries ("parameter groups") with the
            key ``"params"`` and options that differ from the defaults.
        defaults: the options of groups that do not say otherwise.

    Raises:
        TypeError: ``params`` is a tensor, or holds something that is no tensor.
        ValueError: no parameter at all, a non-leaf one, or one in two groups.

    >>> import gradlite
    >>> weight = gradlite.ones(2, requires_grad=True)
    >>> optimizer = gradlite.optim.SGD([{"params": [weight], "lr": 0.5}], lr=0.1)
    >>> weight.sum().backward()
    >>> optimizer.step()
    >>> weight
    tensor([0.5000, 0.5000], requires_grad=True)
    """

    _in_hooked_step = False
    # Of wrappers around another optimizer, which do without the initialisation of this class.
    _optimizer_step_pre_hooks: dict[int, Callable[..., Any]] = _NO_HOOKS
    _optimizer_step_post_hooks: dict[int, Callable[..., Any]] = _NO_HOOKS
    param_groups: list[dict[str, Any]]
    defaults: dict[str, Any]

    def __init__(self, params: Params, defaults: dict[str, Any]) -> None:
        self.defaults = defaults
        self._make_hooks()
        if isinstance(params, Tensor):
            raise TypeError(
                "params argument given to the optimizer should be an iterable of Tensors or "
                f"dicts, but got {_typename(params)}"
            )
        self.state = State()
        self.param_groups = []
        groups: list[Any] = list(params)
        if not groups:
            raise ValueError("optimizer got an empty parameter list")
        if not isinstance(groups[0], dict):
            groups = [{"params": groups}]
        for group in groups:
            self.add_param_group(group)

    def __init_subclass__(cls) -> None:
        if "step" in cls.__dict__:
            cls.step = _with_hooks(cls.__dict__["step"])  # type: ignore[method-assign]

    def _make_hooks(self) -> None:
        for name in (
            "_optimizer_step_pre_hooks",
            "_optimizer_step_post_hooks",
            "_optimizer_state_dict_pre_hooks",
            "_optimizer_state_dict_post_hooks",
            "_optimizer_load_state_dict_pre_hooks",
            "_optimizer_load_state_dict_post_hooks",
        ):
            self.__dict__.setdefault(name, {})

    @property
    def state(self) -> State:
        """Per parameter, a dictionary of what the update rule remembers."""
        self._catch_up()
        return self._state

    @state.setter
    def state(self, value: Any) -> None:
        self._state = value if isinstance(value, State) else State(value)

    def _catch_up(self) -> None:
        """Let the state say what a device alone knows by now."""

    def __getstate__(self) -> dict[str, Any]:
        return {"defaults": self.defaults, "state": self.state, "param_groups": self.param_groups}

    def __setstate__(self, state: dict[str, Any]) -> None:
        for key, value in state.items():
            setattr(self, key, value)
        self._make_hooks()
        self.defaults.setdefault("differentiable", False)

    def __repr__(self) -> str:
        text = f"{self.__class__.__name__} ("
        for i, group in enumerate(self.param_groups):
            text += f"\nParameter Group {i}\n"
            for key in sorted(group):
                if key != "params":
                    text += f"    {key}: {group[key]}\n"
        return text + ")"

    # ---------------------------------------------------------------------- parameters
    def add_param_group(self, param_group: dict[str, Any]) -> None:
        """Add a parameter group, for example layers that are unfrozen later.

        Args:
            param_group: a dictionary with the key ``"params"`` and any options.
        """
        if not isinstance(param_group, dict):
            raise TypeError(f"param_group must be a dict, but got {type(param_group)}")
        changes.count[0] += 1
        given = param_group["params"]
        if isinstance(given, Tensor):
            given = [given]
        elif isinstance(given, set):
            raise TypeError(
                "optimizer parameters need to be organized in ordered collections, but the "
                "ordering of tensors in sets will change between runs. Please use a list instead."
            )
        given = list(given)
        params = [item[1] if isinstance(item, tuple) else item for item in given]
        names = [item[0] for item in given if isinstance(item, tuple)]
        param_group["params"] = params
        if names:
            if len(names) != len(params):
                raise ValueError(
                    "all optimizer params should be with/without names. "
                    "Some param names are missing"
                )
            param_group["param_names"] = names
        for param in params:
            if not isinstance(param, Tensor):
                raise TypeError(
                    "optimizer can only optimize Tensors, but one of the params is "
                    + _typename(param)
                )
            if not self.defaults.get("differentiable") and not (
                param.is_leaf or param.retains_grad
            ):
                raise ValueError("can't optimize a non-leaf Tensor")
        for name, default in self.defaults.items():
            if default is required and name not in param_group:
                raise ValueError(
                    "parameter group didn't specify a value of required optimization parameter "
                    + name
                )
            param_group.setdefault(name, default)
        if len(params) != len(set(map(id, params))):
            warnings.warn(
                "optimizer contains a parameter group with duplicate parameters; in future, this "
                "will cause an error; see github.com/pytorch/pytorch/issues/40967 for more "
                "information",
                stacklevel=3,
            )
        for group in self.param_groups:
            if ("param_names" in param_group) != ("param_names" in group):
                text = "with names" if "param_names" in param_group else "without names"
                raise ValueError(
                    "all optimizer param groups should be with/without names. "
                    f"cannot add param group {text} to the optimizer"
                )
        known = {id(p) for group in self.param_groups for p in group["params"]}
        if not known.isdisjoint(map(id, params)):
            raise ValueError("some parameters appear in more than one parameter group")
        self.param_groups.append(param_group)

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Clear the gradients of all parameters.

        Args:
            set_to_none: drop them (the default); otherwise fill them with zeros in place.
        """
        grads = []
        for group in self.param_groups:
            if set_to_none:
                for p in group["params"]:
                    p._grad = None
                continue
            for p in group["params"]:
                grad = p._grad
                if grad is not None:
                    if grad.grad_fn is not None:
                        grad.detach_()
                    else:
                        grad.requires_grad_(False)
                    grads.append(grad)
        if grads and not many.zero([grad.array for grad in grads]):
            for grad in grads:
                grad.array.fill(0)
        for grad in grads:
            grad._bump()

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters from their gradients.

        Args:
            closure: evaluates the model again and returns the loss, which step hands back.
        """
        raise NotImplementedError

    # --------------------------------------------------------------------- saved state
    def state_dict(self) -> StateDict:
        """The optimizer's state in plain containers.

        Returns:
            ``{"state": {0: {...}, ...}, "param_groups": [{..., "params": [0, ...]}, ...]}``:
            tensors of the state under the parameter's number, and every group's options with
            numbers in place of parameters. The tensors are not copies.
        """
        for pre_hook in self._optimizer_state_dict_pre_hooks.values():
            pre_hook(self)
        numbers: dict[int, int] = {}
        start = 0
        groups = []
        for group in self.param_groups:
            packed = {key: value for key, value in group.items() if key != "params"}
            for number, p in enumerate(group["params"], start):
                numbers.setdefault(id(p), number)
            packed["params"] = [numbers[id(p)] for p in group["params"]]
            start += len(packed["params"])
            groups.append(packed)
        state = {
            numbers[id(key)] if isinstance(key, Tensor) else key: (
                dict(value) if isinstance(value, ParameterState) else value
            )
            for key, value in self.state.items()
        }
        result: StateDict = {"state": state, "param_groups": groups}
        for post_hook in self._optimizer_state_dict_post_hooks.values():
            replaced = post_hook(self, result)
            if replaced is not None:
                result = replaced
        return result

    def load_state_dict(self, state_dict: StateDict) -> None:
        """Take over a state that `state_dict` has returned, of this or of PyTorch's optimizer.

        Tensors and arrays are copied, with the dtype and device of their parameter.

        Raises:
            ValueError: the number of groups or of their parameters differs.
        """
        changes.count[0] += 1
        state_dict = state_dict.copy()
        for pre_hook in self._optimizer_load_state_dict_pre_hooks.values():
            replaced = pre_hook(self, state_dict)
            if replaced is not None:
                state_dict = replaced
        groups = self.param_groups
        saved_groups = copy.deepcopy(state_dict["param_groups"])
        if len(groups) != len(saved_groups):
            raise ValueError("loaded state dict has a different number of parameter groups")
        if any(len(g["params"]) != len(s["params"]) for g, s in zip(groups, saved_groups)):
            raise ValueError(
                "loaded state dict contains a parameter group that doesn't match the size of "
                "optimizer's group"
            )
        params = {
            number: (p, saved)
            for group, saved in zip(groups, saved_groups)
            for p, number in zip(group["params"], saved["params"])
        }
        state = State()
        for key, value in state_dict["state"].items():
            if key in params:
                p, saved = params[key]
                state[p] = _cast(p, value, saved)
            else:
                state[key] = value
        for group, saved in zip(groups, saved_groups):
            saved["params"] = group["params"]
            if "param_names" in group:
                saved.setdefault("param_names", group["param_names"])
        self.__setstate__({"state": state, "param_groups": saved_groups})
        for post_hook in self._optimizer_load_state_dict_post_hooks.values():
            post_hook(self)

    # --------------------------------------------------------------------------- hooks
    def register_step_pre_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` before each step; it may return new ones."""
        return add_hook(self._optimizer_step_pre_hooks, hook)

    def register_step_post_hook(self, hook: Callable[..., Any]) -> RemovableHandle:
        """Call ``hook(optimizer, args, kwargs)`` after each step."""
        return add_hook(self._optimizer_step_post_hooks, hook)

    def register_state_dict_pre_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` before `state_dict`."""
        return _add_ordered(self._optimizer_state_dict_pre_hooks, hook, prepend)

    def register_state_dict_post_hook(
        self, hook: Callable[[Optimizer, StateDict], StateDict | None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` after `state_dict`; it may return another."""
        return _add_ordered(self._optimizer_state_dict_post_hooks, hook, prepend)

    def register_load_state_dict_pre_hook(
        self, hook: Callable[[Optimizer, StateDict], StateDict | None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer, state_dict)`` before `load_state_dict`."""
        return _add_ordered(self._optimizer_load_state_dict_pre_hooks, hook, prepend)

    def register_load_state_dict_post_hook(
        self, hook: Callable[[Optimizer], None], prepend: bool = False
    ) -> RemovableHandle:
        """Call ``hook(optimizer)`` after `load_state_dict`."""
        return _add_ordered(self._optimizer_load_state_dict_post_hooks, hook, prepend)

    _optimizer_state_dict_pre_hooks: dict[int, Callable[..., Any]]
    _optimizer_state_dict_post_hooks: dict[int, Callable[..., Any]]
    _optimizer_load_state_dict_pre_hooks: dict[int, Callable[..., Any]]
    _optimizer_load_state_dict_post_hooks: dict[int, Callable[..., Any]]


def _add_ordered(
    hooks: dict[int, Callable[..., Any]], hook: Callable[..., Any], prepend: bool
) -> RemovableHandle:
    earlier = list(hooks.items()) if prepend else []
    handle = add_hook(hooks, hook)
    for key, value in earlier:
        del hooks[key]
        hooks[key] = value
    return handle


def _is_array(value: Any) -> bool:
    """Whether a saved value is a tensor of any library: of ours, NumPy's, or PyTorch's."""
    return isinstance(value, Tensor) or (hasattr(value, "__array__") and hasattr(value, "shape"))


def _cast(p: Tensor, value: Any, group: dict[str, Any], key: Any = None) -> Any:
    """A copy of a saved value, its tensors with the dtype and device of their parameter."""
    if _is_array(value):
        if not isinstance(value, Tensor):
            value = wrap(np.asarray(value.detach() if hasattr(value, "detach") else value))
        array = value.array
        if key == "step":
            if not (group.get("capturable") or group.get("fused")):
                with beside(array):
                    return wrap(array.copy())
            return wrap(array_on(array, p.device, np.float32, copy=False))
        dtype = p.array.dtype if p.array.dtype in dtypes.FLOATING else array.dtype
        return wrap(array_on(array, p.device, dtype, copy=True))
    if isinstance(value, dict):
        return {k: _cast(p, v, group, k) for k, v in value.items()}
    if isinstance(value, Iterable) and not isinstance(value, (str, bytes)):
        return type(value)(_cast(p, v, group) for v in itertools.chain(value))  # type: ignore[call-arg]
    return value
