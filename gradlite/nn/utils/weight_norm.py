"""Weight normalisation: a weight as a length times a direction (Salimans and Kingma, 2016)."""

from __future__ import annotations

from typing import Any, TypeVar

from gradlite.grad_mode import no_grad
from gradlite.nn.module import Module
from gradlite.nn.parameter import Parameter, is_lazy
from gradlite.ops.norms import norm
from gradlite.tensor import Tensor

__all__ = ["remove_weight_norm", "weight_norm"]

ModuleT = TypeVar("ModuleT", bound=Module)


def length(v: Any, dim: int | None) -> Any:
    """The 2-norm over every dimension but one (over all, for None), which keeps its size."""
    if dim is None:
        return norm(v)
    others = [d for d in range(v.dim()) if d != dim % v.dim()]
    return norm(v, 2, others, True) if others else abs(v)


class _WeightNorm:
    """The forward pre-hook that makes the weight out of its two parameters."""

    def __init__(self, name: str, dim: int | None) -> None:
        self.name, self.dim = name, dim

    def weight(self, module: Module) -> Tensor:
        g = getattr(module, f"{self.name}_g")
        v = getattr(module, f"{self.name}_v")
        return v * (g / length(v, self.dim))  # type: ignore[no-any-return]

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.weight(module))


def _find(module: Module, name: str) -> int | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook.function, _WeightNorm) and hook.function.name == name:
            return key
    return None


def weight_norm(module: ModuleT, name: str = "weight", dim: int | None = 0) -> ModuleT:
    """Replace a parameter w by g v / |v|, with parameters ``<name>_g`` and ``<name>_v``.

    Args:
        dim: the dimension whose slices have a length each; None means one length for all.

    Returns:
        The module, which computes the weight anew in front of every call.

    Raises:
        RuntimeError: the parameter is normalised already.
    """
    if _find(module, name) is not None:
        raise RuntimeError(f"Cannot register two weight_norm hooks on the same parameter {name}")
    weight = getattr(module, name)
    if dim == -1:
        dim = None
    if is_lazy(weight):
        raise ValueError(
            "The module passed to `WeightNorm` can't have uninitialized parameters. Make sure to "
            "run the dummy forward before applying weight normalization"
        )
    hook = _WeightNorm(name, dim)
    del module._parameters[name]
    with no_grad():
        lengths = length(weight, dim)
    module.register_parameter(f"{name}_g", Parameter(lengths))
    module.register_parameter(f"{name}_v", Parameter(weight.data))
    setattr(module, name, hook.weight(module))
    module.register_forward_pre_hook(hook)
    return module


def remove_weight_norm(module: ModuleT, name: str = "weight") -> ModuleT:
    """Make the weight one parameter again, with its present value.

    Raises:
        ValueError: the parameter is not normalised.
    """
    key = _find(module, name)
    if key is None:
        raise ValueError(f"weight_norm of '{name}' not found in {module}")
    weight = module.__dict__["_forward_pre_hooks"].pop(key).function.weight(module)
    delattr(module, name)
    del module._parameters[f"{name}_g"], module._parameters[f"{name}_v"]
    setattr(module, name, Parameter(weight.data))
    return module
