"""Modules that take the size of their input from the first one they see."""

from __future__ import annotations

from typing import Any

from gradlite.grad_mode import no_grad
from gradlite.nn.module import Module
from gradlite.nn.parameter import is_lazy

__all__ = ["LazyModuleMixin"]


class LazyModuleMixin(Module):
    """The base, beside the layer's class, of modules with uninitialized parameters.

    A subclass defines `initialize_parameters`, which is called with the first input and
    materializes the parameters, and ``cls_to_become``, the class that the module has from then
    on (None: its own).

    >>> import gradlite
    >>> from gradlite import nn
    >>> model = nn.Sequential(nn.LazyLinear(4), nn.ReLU(), nn.LazyLinear(1))
    >>> model(gradlite.zeros(2, 3)).shape
    gradlite.Size([2, 1])
    >>> model[0]
    Linear(in_features=3, out_features=4, bias=True)
    """

    cls_to_become: type[Any] | None = None
    _hooked = True  # so that every call comes to `_call_with_hooks`
    _inferred = False

    def initialize_parameters(self, *args: Any, **kwargs: Any) -> None:
        """Materialize the parameters by the sizes of an input; every subclass defines it."""
        raise NotImplementedError(
            f"initialize_parameters is not implemented for {type(self).__name__}"
        )

    def has_uninitialized_params(self) -> bool:
        """Whether a parameter or buffer has no shape yet."""
        slots = self._named_slots(self._parameter_names) + self._named_slots(self._buffer_names)
        return any(is_lazy(value) for _, value in slots)

    def _infer_parameters(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        self.initialize_parameters(*args, **kwargs)
        if self.has_uninitialized_params():
            raise RuntimeError(f"module {self._get_name()} has not been fully initialized")
        self.__dict__["_inferred"] = True
        if self.cls_to_become is not None:
            del self.__dict__["_inferred"]
            self.__class__ = self.cls_to_become

    def _call_with_hooks(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if self._inferred:
            return super()._call_with_hooks(args, kwargs)
        self._infer_parameters(args, kwargs)
        return self(*args, **kwargs)

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        slots = self._named_slots(self._parameter_names) + self._named_slots(self._buffer_names)
        for name, value in slots:
            given = state_dict.get(prefix + name)
            if given is not None and is_lazy(value) and not is_lazy(given):
                with no_grad():
                    value.materialize(given.shape)
        super()._load_from_state_dict(state_dict, prefix, *rest)
