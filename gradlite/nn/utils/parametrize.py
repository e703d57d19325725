"""Parameters as functions of others: a module's weight that is computed at every look at it."""

from __future__ import annotations

import contextlib
import copy
from collections.abc import Iterator, Sequence
from typing import Any, TypeVar

from gradlite.grad_mode import no_grad
from gradlite.nn.module import Module
from gradlite.nn.modules.container import ModuleDict, ModuleList
from gradlite.nn.parameter import Parameter
from gradlite.tensor import Tensor

__all__ = [
    "ParametrizationList",
    "cached",
    "is_parametrized",
    "register_parametrization",
    "remove_parametrizations",
    "type_before_parametrizations",
]

ModuleT = TypeVar("ModuleT", bound=Module)

_users = 0  # of the cache
_cache: dict[tuple[int, str], Tensor] = {}


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Compute every parametrized tensor once in the region, however often it is looked at.

    >>> from gradlite import nn
    >>> import gradlite.nn.utils.parametrize as P
    >>> class Exp(nn.Module):
    ...     def forward(self, x):
    ...         return x.exp()
    >>> layer = P.register_parametrization(nn.Linear(2, 2), "weight", Exp())
    >>> layer.weight is layer.weight
    False
    >>> with P.cached():
    ...     layer.weight is layer.weight
    True
    """
    global _users
    _users += 1
    try:
        yield
    finally:
        _users -= 1
        if not _users:
            _cache.clear()


class ParametrizationList(ModuleList):
    """The parametrizations of one tensor in a row, and what they are functions of.

    That is the parameter or buffer ``original``, or, where the first one's ``right_inverse``
    gives several tensors, ``original0``, ``original1``, ... `register_parametrization` makes it.

    Args:
        modules: the parametrizations.
        original: the parameter or buffer.
        unsafe: do not check that dtype and shape stay.
    """

    def __init__(
        self, modules: Sequence[Module], original: Tensor | Parameter, unsafe: bool = False
    ) -> None:
        if not modules:
            raise ValueError("ParametrizationList requires one or more modules.")
        super().__init__(modules)
        self.unsafe = unsafe
        shape, dtype = original.shape, original.dtype
        new: Any = original
        with no_grad():
            for module in reversed(list(self)):
                if hasattr(module, "right_inverse"):
                    with contextlib.suppress(NotImplementedError):
                        new = module.right_inverse(new)
        if not isinstance(new, (Tensor, Sequence)):
            raise ValueError(
                "'right_inverse' must return a Tensor or a Sequence of tensors (list, tuple...). "
                f"Got {type(new).__name__}"
            )
        self.is_tensor = isinstance(new, Tensor)
        self.ntensors = 1 if isinstance(new, Tensor) else len(new)
        if isinstance(new, Tensor):
            for name in ("dtype", "device"):
                before, after = getattr(original, name), getattr(new, name)
                if before != after:
                    raise ValueError(
                        f"When `right_inverse` outputs one tensor, it may not change the {name}.\n"
                        f"original.{name}: {before}\n"
                        f"right_inverse(original).{name}: {after}"
                    )
            _put(original, new)
            _register(self, "original", original)
        else:
            for i, part in enumerate(new):
                if not isinstance(part, Tensor):
                    raise ValueError(
                        "'right_inverse' must return a Tensor or a Sequence of tensors "
                        f"(list, tuple...). Got element {i} of the sequence with type "
                        f"{type(part).__name__}."
                    )
                if isinstance(original, Parameter):
                    part = Parameter(part, original.requires_grad)
                _register(self, f"original{i}", part)
        if not unsafe:
            _check(self(), shape, dtype, "unparametrized {}", "parametrized {}", "`unsafe` flag")

    def right_inverse(self, value: Any) -> None:
        """Set what the tensor is computed of so that it becomes ``value``.

        Raises:
            RuntimeError: a parametrization has no ``right_inverse``.
            ValueError: one gives something else than the original tensors.
        """
        with no_grad():
            for module in reversed(list(self)):
                if not hasattr(module, "right_inverse"):
                    raise RuntimeError(
                        f"parametrization {type(module).__name__} does not implement right_inverse."
                    )
                value = module.right_inverse(value)
            if self.is_tensor:
                if not isinstance(value, Tensor):
                    got = type(value).__name__
                    raise ValueError(f"`right_inverse` should return a tensor. Got {got}")
                if value.dtype != self.original.dtype:
                    raise ValueError(
                        f"The tensor returned by `right_inverse` has dtype {value.dtype} "
                        f"while `original` has dtype {self.original.dtype}"
                    )
                _put(self.original, value)
                return
            if not isinstance(value, Sequence):
                got = type(value).__name__
                raise ValueError(f"'right_inverse' must return a sequence of tensors. Got {got}.")
            if len(value) != self.ntensors:
                raise ValueError(
                    "'right_inverse' must return a sequence of tensors of length "
                    f"{self.ntensors}. Got a sequence of length {len(value)}."
                )
            for i, part in enumerate(value):
                original = getattr(self, f"original{i}")
                if part.dtype != original.dtype:
                    raise ValueError(
                        f"Tensor {i} returned by `right_inverse` has dtype {part.dtype} "
                        f"while `original{i}` has dtype {original.dtype}"
                    )
                _put(original, part)

    def forward(self) -> Any:
        """The tensor as it is now."""
        first, *others = self
        if self.is_tensor:
            value = first(self.original)
        else:
            value = first(*(getattr(self, f"original{i}") for i in range(self.ntensors)))
        for module in others:
            value = module(value)
        return value


def register_parametrization(
    module: ModuleT, tensor_name: str, parametrization: Module, *, unsafe: bool = False
) -> ModuleT:
    """Make a module's parameter or buffer the result of ``parametrization``, of its former self.

    The former tensor moves to ``module.parametrizations.<name>.original``, which is what an
    optimizer updates. Several parametrizations of one tensor are applied one after the other.
    Where they have a method ``right_inverse`` the tensor may be assigned to.

    Args:
        tensor_name: the name of the parameter or buffer.
        parametrization: a module that maps a tensor to one of the same shape and dtype. Where its
            ``right_inverse`` gives several tensors it takes as many.
        unsafe: let shape and dtype change, and check nothing.

    Returns:
        The module, of a subclass of its class.

    >>> from gradlite import nn
    >>> import gradlite.nn.utils.parametrize as P
    >>> class Symmetric(nn.Module):
    ...     def forward(self, x):
    ...         return x.triu() + x.triu(1).T
    >>> layer = P.register_parametrization(nn.Linear(3, 3), "weight", Symmetric())
    >>> bool((layer.weight == layer.weight.T).all())
    True
    >>> [name for name, _ in layer.named_parameters()]
    ['bias', 'parametrizations.weight.original']

    Raises:
        ValueError: there is no such tensor, or a shape or dtype changes.
    """
    parametrization.train(module.training)
    if is_parametrized(module, tensor_name):
        if not unsafe:
            _check_another(module, tensor_name, parametrization)
        known = module.parametrizations[tensor_name]
        known.append(parametrization)
        known.unsafe |= unsafe
    elif tensor_name in module._parameters or tensor_name in module._buffers:
        original = getattr(module, tensor_name)
        made = ParametrizationList([parametrization], original, unsafe)
        delattr(module, tensor_name)
        if not is_parametrized(module):
            _give_class(module)
            module.parametrizations = ModuleDict()
        setattr(type(module), tensor_name, _property(tensor_name))
        module.parametrizations[tensor_name] = made
    else:
        raise ValueError(
            f"Module '{module}' does not have a parameter, a buffer, or a parametrized element "
            f"with name '{tensor_name}'"
        )
    return module


def is_parametrized(module: Module, tensor_name: str | None = None) -> bool:
    """Whether a module's tensor of that name, or any, is parametrized."""
    found = getattr(module, "parametrizations", None)
    if not isinstance(found, ModuleDict):
        return False
    return len(found) > 0 if tensor_name is None else tensor_name in found


def remove_parametrizations(
    module: ModuleT, tensor_name: str, leave_parametrized: bool = True
) -> ModuleT:
    """Make a parametrized tensor an ordinary parameter or buffer again.

    Args:
        leave_parametrized: with its present value; otherwise with that of ``original``.

    Raises:
        ValueError: the tensor is not parametrized, or it is a function of several and shall not
            have its present value.
    """
    if not is_parametrized(module, tensor_name):
        raise ValueError(f"Module {module} does not have a parametrization on {tensor_name}")
    known = module.parametrizations[tensor_name]
    if known.is_tensor:
        original = known.original
        if leave_parametrized:
            with no_grad():
                _put(original, getattr(module, tensor_name))
    elif leave_parametrized:
        value = getattr(module, tensor_name)
        original = Parameter(value.detach()) if value.requires_grad else value
    else:
        raise ValueError(
            "Cannot leave unparametrized (`leave_parametrized=False`) a tensor that is "
            "parametrized in terms of a sequence of tensors."
        )
    delattr(type(module), tensor_name)
    del module.parametrizations[tensor_name]
    _register(module, tensor_name, original)
    if not is_parametrized(module):
        del module.parametrizations
        module.__class__ = type(module).__bases__[0]
    return module


def type_before_parametrizations(module: Module) -> type:
    """The class of a module as it was before its first parametrization."""
    return type(module).__bases__[0] if is_parametrized(module) else type(module)


# ------------------------------------------------------------------------------------ parts
def _put(target: Tensor, value: Tensor) -> None:
    target.set_(value)  # type: ignore[attr-defined]


def _register(module: Module, name: str, tensor: Tensor) -> None:
    if isinstance(tensor, Parameter):
        module.register_parameter(name, tensor)
    else:
        module.register_buffer(name, tensor)


def _check(
    value: Any, shape: Any, dtype: Any, before: str, after: str, flag: str = "the `unsafe` flag"
) -> None:
    if not isinstance(value, Tensor):
        raise ValueError(f"A parametrization must return a tensor. Got {type(value).__name__}.")
    for name, old, new in (("dtype", dtype, value.dtype), ("shape", shape, value.shape)):
        if old != new:
            raise ValueError(
                f"Registering a parametrization may not change the {name} of the tensor, unless "
                f"{flag} is enabled.\n"
                f"{before.format(name)}: {old}\n"
                f"{after.format(name)}: {new}"
            )


def _check_another(module: Module, name: str, parametrization: Any) -> None:
    """Whether one more parametrization fits behind those that a tensor has."""
    now = getattr(module, name)
    value = parametrization(now)
    whole = f"module.{name}"
    _check(value, now.shape, now.dtype, f"{whole}.{{}}", f"parametrization({whole}).{{}}")
    if not hasattr(parametrization, "right_inverse"):
        return
    try:
        back = parametrization.right_inverse(value)
    except NotImplementedError:
        return
    if not isinstance(back, Tensor):
        got = type(back).__name__
        raise ValueError(f"parametrization.right_inverse must return a tensor. Got: {got}")
    for kind, old, new in (("dtype", now.dtype, back.dtype), ("shape", now.shape, back.shape)):
        if old != new:
            raise ValueError(
                f"The tensor returned by parametrization.right_inverse must have the same {kind} "
                f"as {whole}, unless the `unsafe` flag is enabled.\n"
                f"{whole}.{kind}: {old}\n"
                f"returned {kind}: {new}"
            )


def _give_class(module: Module) -> None:
    """Give a module a class of its own, which can have properties for it alone."""
    cls = type(module)

    def deepcopied(self: Any, memo: dict[int, Any]) -> Any:
        if id(self) in memo:
            return memo[id(self)]
        replica = memo[id(self)] = self.__new__(type(self))
        replica.__dict__.update(copy.deepcopy(self.__dict__, memo))
        return replica

    def refused(self: Any) -> Any:
        raise RuntimeError(
            "Serialization of parametrized modules is only supported through state_dict(). See:\n"
            "https://pytorch.org/tutorials/beginner/saving_loading_models.html"
            "#saving-loading-a-general-checkpoint-for-inference-and-or-resuming-training"
        )

    methods: dict[str, Any] = {"__getstate__": refused}
    if not hasattr(cls, "__deepcopy__"):
        methods["__deepcopy__"] = deepcopied
    module.__class__ = type(f"Parametrized{cls.__name__}", (cls,), methods)


def _property(name: str) -> property:
    def value(self: Any) -> Any:
        made = self.parametrizations[name]
        if not _users:
            return made()
        key = id(self), name
        if key not in _cache:
            _cache[key] = made()
        return _cache[key]

    def assign(self: Any, new: Any) -> None:
        self.parametrizations[name].right_inverse(new)

    return property(value, assign)
