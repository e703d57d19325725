"""Module: the base class of every layer and model."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any, TypeVar

from gradlite import changes, compiler
from gradlite.nn.conversion import ConversionMethods
from gradlite.nn.hooks import HookMethods
from gradlite.nn.members import Members, type_name
from gradlite.nn.parameter import Parameter, is_buffer
from gradlite.nn.state_dict import StateDictMethods
from gradlite.tensor import Tensor

__all__ = ["Module"]

Self = TypeVar("Self", bound="Module")


class Module(ConversionMethods, HookMethods, StateDictMethods):
    """Base class of all layers and models: subclass it, make the parts, define `forward`.

    Parameters, buffers and modules that are assigned as attributes are registered under the
    attribute's name, so that `parameters`, `state_dict`, `to` and `train` find them.

    >>> import gradlite
    >>> from gradlite import nn
    >>> class Scale(nn.Module):
    ...     def __init__(self):
    ...         super().__init__()
    ...         self.factor = nn.Parameter(gradlite.tensor(2.0))
    ...     def forward(self, x):
    ...         return x * self.factor
    >>> Scale()(gradlite.ones(2))
    tensor([2., 2.], grad_fn=<MulBackward0>)
    """

    # The values live in the instance's dictionary like any attribute, which makes reading
    # `self.weight` an ordinary look-up; these tables say which names are registered as what.
    # The value of a buffer's name says whether it is persistent.
    _parameter_names: dict[str, bool]
    _buffer_names: dict[str, bool]
    _module_names: dict[str, bool]
    training: bool

    def __init__(self) -> None:
        attributes = self.__dict__
        attributes["training"] = True
        attributes["_parameter_names"] = {}
        attributes["_buffer_names"] = {}
        attributes["_module_names"] = {}

    def forward(self, *input: Any, **kwargs: Any) -> Any:
        """What the module computes; every subclass defines it."""
        raise NotImplementedError(
            f'Module [{type(self).__name__}] is missing the required "forward" function'
        )

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        if self._hooked:
            return self._call_with_hooks(args, kwargs)
        return self.forward(*args, **kwargs)

    # ------------------------------------------------------------------ registration
    def register_parameter(self, name: str, param: Parameter | None) -> None:
        """Register a parameter, or None to reserve its name.

        Raises:
            TypeError: the name is no string or the value no Parameter.
            KeyError: the name is empty, has a dot in it or is taken.
            ValueError: the value was computed by an op.
        """
        if "_parameter_names" not in self.__dict__:
            raise AttributeError("cannot assign parameter before Module.__init__() call")
        self._check_name("parameter", name, self._parameter_names)
        if param is not None:
            if not isinstance(param, Parameter):
                raise TypeError(
                    f"cannot assign '{type_name(param)}' object to parameter '{name}' "
                    "(gradlite.nn.Parameter or None required)"
                )
            if param.grad_fn is not None:
                raise ValueError(
                    f"Cannot assign non-leaf Tensor to parameter '{name}'. Model parameters must "
                    f"be created explicitly. To express '{name}' as a function of another Tensor, "
                    "compute the value in the forward() method."
                )
        changes.count[0] += 1
        self._parameter_names[name] = True
        self.__dict__[name] = param

    def register_buffer(self, name: str, tensor: Tensor | None, persistent: bool = True) -> None:
        """Register a tensor that is part of the state but no parameter, such as a running mean.

        ``persistent=False`` keeps it out of `state_dict`.
        """
        if "_buffer_names" not in self.__dict__:
            raise AttributeError("cannot assign buffer before Module.__init__() call")
        self._check_name("buffer", name, self._buffer_names)
        if tensor is not None and not isinstance(tensor, Tensor):
            raise TypeError(
                f"cannot assign '{type_name(tensor)}' object to buffer '{name}' "
                "(gradlite Tensor or None required)"
            )
        changes.count[0] += 1
        self._buffer_names[name] = persistent
        self.__dict__[name] = tensor

    def add_module(self, name: str, module: Module | None) -> None:
        """Register a child module under a name, or None to reserve the name."""
        if module is not None and not isinstance(module, Module):
            raise TypeError(f"{type_name(module)} is not a Module subclass")
        if "_module_names" not in self.__dict__:
            raise AttributeError("cannot assign module before Module.__init__() call")
        self._check_name("module", name, self._module_names)
        changes.count[0] += 1
        self._module_names[name] = True
        self.__dict__[name] = module

    register_module = add_module

    def _check_name(self, kind: str, name: str, names: dict[str, bool]) -> None:
        if not isinstance(name, str):
            raise TypeError(f"{kind} name should be a string. Got {type_name(name)}")
        if hasattr(self, name) and name not in names:
            raise KeyError(f"attribute '{name}' already exists")
        if "." in name:
            got = f", got: {name}" if kind == "module" else ""
            raise KeyError(f'{kind} name can\'t contain "."{got}')
        if name == "":
            raise KeyError(f'{kind} name can\'t be empty string ""')

    def __setattr__(self, name: str, value: Any) -> None:
        attributes = self.__dict__
        if attributes.get(name, attributes) is not value:  # as in train() of a model in training
            changes.count[0] += 1
        if isinstance(value, Parameter):
            if "_parameter_names" not in attributes:
                raise AttributeError("cannot assign parameters before Module.__init__() call")
            self._forget(name, self._parameter_names)
            self.register_parameter(name, value)
            return
        if isinstance(value, Module):
            if "_module_names" not in attributes:
                raise AttributeError("cannot assign module before Module.__init__() call")
            if name not in self._parameter_names:
                self._forget(name, self._module_names)
                self._module_names[name] = True
                attributes[name] = value
                return
        elif is_buffer(value):
            if "_buffer_names" not in attributes:
                raise AttributeError("cannot assign buffer before Module.__init__() call")
            if name not in self._parameter_names and name not in self._module_names:
                # Only another buffer gives way: a plain attribute is a KeyError.
                self.register_buffer(name, value, value.persistent)
                return
        if "_parameter_names" not in attributes:
            object.__setattr__(self, name, value)
        elif name in self._parameter_names:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type_name(value)}' as parameter '{name}' "
                    "(gradlite.nn.Parameter or None expected)"
                )
            attributes[name] = None
        elif name in self._module_names:
            if value is not None:
                raise TypeError(
                    f"cannot assign '{type_name(value)}' as child module '{name}' "
                    "(gradlite.nn.Module or None expected)"
                )
            attributes[name] = None
        elif name in self._buffer_names:
            if value is not None and not isinstance(value, Tensor):
                raise TypeError(
                    f"cannot assign '{type_name(value)}' as buffer '{name}' "
                    "(gradlite.nn.Buffer, gradlite.Tensor or None expected)"
                )
            attributes[name] = value
        else:
            object.__setattr__(self, name, value)

    def _forget(self, name: str, keep: dict[str, bool]) -> None:
        """Free a name for a registration in the table ``keep``."""
        for names in (self._parameter_names, self._buffer_names, self._module_names):
            if names is not keep:
                names.pop(name, None)
        if name not in keep:
            self.__dict__.pop(name, None)

    def __delattr__(self, name: str) -> None:
        changes.count[0] += 1
        if name not in self.__dict__:
            # Said here because Python itself says only the name.
            if not hasattr(type(self), name):
                raise AttributeError(f"'{type(self).__name__}' object has no attribute '{name}'")
            object.__delattr__(self, name)
            return
        del self.__dict__[name]
        for names in (self._parameter_names, self._buffer_names, self._module_names):
            names.pop(name, None)

    def __dir__(self) -> list[str]:
        return sorted(name for name in object.__dir__(self) if not name[0].isdigit())

    if TYPE_CHECKING:
        # Registered names are attributes that no checker can know of.
        def __getattr__(self, name: str) -> Any: ...

    @property
    def _parameters(self) -> Members:
        return Members(self.__dict__, self._parameter_names)

    @property
    def _buffers(self) -> Members:
        return Members(self.__dict__, self._buffer_names)

    @property
    def _modules(self) -> Members:
        return Members(self.__dict__, self._module_names)

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state)
        # A shallow copy registers names of its own.
        for table in ("_parameter_names", "_buffer_names", "_module_names"):
            if table in state:
                self.__dict__[table] = dict(state[table])

    # --------------------------------------------------------------------- traversal
    def named_modules(
        self, memo: set[Any] | None = None, prefix: str = "", remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Module]]:
        """This module and all modules below it with their dotted names, each once."""
        seen = set() if memo is None else memo
        if self in seen:
            return
        if remove_duplicate:
            seen.add(self)
        yield prefix, self
        for name, child in self._named_slots(self._module_names):
            if child is not None:
                inner = f"{prefix}.{name}" if prefix else name
                yield from child.named_modules(seen, inner, remove_duplicate)

    def modules(self, remove_duplicate: bool = True) -> Iterator[Module]:
        """This module and all modules below it, each once, or under each of its names."""
        for _, module in self.named_modules(remove_duplicate=remove_duplicate):
            yield module

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """The modules one level below with their names, each once."""
        seen = set()
        for name, child in self._named_slots(self._module_names):
            if child is not None and child not in seen:
                seen.add(child)
                yield name, child

    def children(self) -> Iterator[Module]:
        """The modules one level below, each once."""
        for _, child in self.named_children():
            yield child

    def _named_tensors(
        self, table: str, prefix: str, recurse: bool, remove_duplicate: bool
    ) -> Iterator[tuple[str, Any]]:
        seen = set()
        modules = [(prefix, self)]
        if recurse:
            modules = list(
                self.named_modules(prefix=prefix, remove_duplicate=remove_duplicate)  # type: ignore[arg-type]
            )
        for start, module in modules:
            for name, tensor in module._named_slots(getattr(module, table)):
                if tensor is None or tensor in seen:
                    continue
                if remove_duplicate:
                    seen.add(tensor)
                yield (f"{start}.{name}" if start else name), tensor

    def named_parameters(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Parameter]]:
        """The parameters with their dotted names; a tied parameter comes once, unless asked for."""
        yield from self._named_tensors("_parameter_names", prefix, recurse, remove_duplicate)

    def parameters(self, recurse: bool = True) -> Iterator[Parameter]:
        """The parameters, as an optimizer takes them."""
        for _, parameter in self.named_parameters(recurse=recurse):
            yield parameter

    def named_buffers(
        self, prefix: str = "", recurse: bool = True, remove_duplicate: bool = True
    ) -> Iterator[tuple[str, Tensor]]:
        """The buffers with their dotted names."""
        yield from self._named_tensors("_buffer_names", prefix, recurse, remove_duplicate)

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]:
        """The buffers."""
        for _, buffer in self.named_buffers(recurse=recurse):
            yield buffer

    def get_submodule(self, target: str) -> Module:
        """The module of a dotted name; the empty name is this module.

        Raises:
            AttributeError: there is no such attribute, or it is no module.
        """
        module = self
        for name in target.split(".") if target else []:
            if not hasattr(module, name):
                raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
            module = getattr(module, name)
            if not isinstance(module, Module):
                raise AttributeError(f"`{name}` is not an nn.Module")
        return module

    def set_submodule(self, target: str, module: Module, strict: bool = False) -> None:
        """Put a module in the place of a dotted name; ``strict`` wants one there already."""
        if target == "":
            raise ValueError("Cannot set the submodule without a target name!")
        path, _, name = target.rpartition(".")
        parent = self.get_submodule(path)
        if strict and not hasattr(parent, name):
            raise AttributeError(f"{parent._get_name()} has no attribute `{name}`")
        if hasattr(parent, name) and not isinstance(getattr(parent, name), Module):
            raise AttributeError(f"`{name}` is not an nn.Module")
        setattr(parent, name, module)

    def _get_tensor(self, target: str) -> tuple[Module, str, Any]:
        path, _, name = target.rpartition(".")
        module = self.get_submodule(path)
        if not hasattr(module, name):
            raise AttributeError(f"{module._get_name()} has no attribute `{name}`")
        return module, name, getattr(module, name)

    def get_parameter(self, target: str) -> Parameter:
        """The parameter of a dotted name."""
        _, name, value = self._get_tensor(target)
        if not isinstance(value, Parameter):
            raise AttributeError(f"`{name}` is not an nn.Parameter")
        return value

    def get_buffer(self, target: str) -> Tensor:
        """The buffer of a dotted name."""
        module, name, value = self._get_tensor(target)
        if name not in module._buffer_names:
            raise AttributeError(f"`{name}` is not a buffer")
        return value  # type: ignore[no-any-return]

    def apply(self: Self, fn: Callable[[Module], Any]) -> Self:
        """Call ``fn(module)`` on all modules, children first; returns this module."""
        for child in self.children():
            child.apply(fn)
        fn(self)
        return self

    def compile(self, **options: Any) -> None:
        """Nothing but what `gradlite.compile` does with its options: the module runs as it is.

        Raises:
            RuntimeError: no such backend or mode, or a mode and options.
            TypeError: no such option.
        """
        compiler.compile(self, **options, _stacklevel=3)

    # -------------------------------------------------------------------------- modes
    def train(self: Self, mode: bool = True) -> Self:
        """Switch dropout, batch norm and the like to training (or evaluation) behaviour."""
        if not isinstance(mode, bool):
            raise ValueError("training mode is expected to be boolean")
        self.training = mode
        for child in self.children():
            child.train(mode)
        return self

    def eval(self: Self) -> Self:
        """Switch to evaluation behaviour; the same as ``train(False)``."""
        return self.train(False)

    def requires_grad_(self: Self, requires_grad: bool = True) -> Self:
        """Freeze (False) or unfreeze all parameters."""
        for parameter in self.parameters():
            parameter.requires_grad_(requires_grad)
        return self

    def zero_grad(self, set_to_none: bool = True) -> None:
        """Drop the gradients of all parameters, or fill them with zeros."""
        for parameter in self.parameters():
            grad = parameter._grad
            if grad is None:
                continue
            if set_to_none:
                parameter._grad = None
            else:
                if grad.grad_fn is not None:
                    grad.detach_()
                else:
                    grad.requires_grad_(False)
                grad.zero_()  # type: ignore[attr-defined]

    # ------------------------------------------------------------------------ printing
    def _get_name(self) -> str:
        return self.__class__.__name__

    def extra_repr(self) -> str:
        """What stands between the parentheses of the module's ``repr``; override it."""
        return ""

    def __repr__(self) -> str:
        extra = self.extra_repr()
        lines = extra.split("\n") if extra else []
        if len(lines) == 1 and not self._module_names:
            return f"{self._get_name()}({extra})"
        for name, child in self._named_slots(self._module_names):
            lines.append(f"({name}): " + repr(child).replace("\n", "\n  "))
        body = "".join(f"\n  {line}" for line in lines)
        return f"{self._get_name()}({body}\n)" if lines else f"{self._get_name()}()"
