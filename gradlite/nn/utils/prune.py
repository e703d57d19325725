"""Pruning: parameters multiplied by masks of zeros and ones in front of every call of a module.

A pruned parameter ``weight`` is kept as ``weight_orig`` beside the buffer ``weight_mask``, and
``weight`` is their product, made anew in front of every call.
"""

from __future__ import annotations

import numbers
from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, TypeVar

from gradlite.nn.module import Module
from gradlite.nn.utils.convert_parameters import parameters_to_vector
from gradlite.ops.like import ones_like, zeros_like
from gradlite.ops.norms import norm as norm_of
from gradlite.ops.random import rand, rand_like
from gradlite.tensor import Tensor

__all__ = [
    "BasePruningMethod",
    "CustomFromMask",
    "Identity",
    "L1Unstructured",
    "LnStructured",
    "PruningContainer",
    "RandomStructured",
    "RandomUnstructured",
    "custom_from_mask",
    "global_unstructured",
    "identity",
    "is_pruned",
    "l1_unstructured",
    "ln_structured",
    "random_structured",
    "random_unstructured",
    "remove",
]

ModuleT = TypeVar("ModuleT", bound=Module)


class BasePruningMethod(ABC):
    """The base of ways to prune: a subclass defines `compute_mask` and ``PRUNING_TYPE``.

    Of a parameter that is pruned again, the type says what the next mask is computed from:
    "unstructured", the elements still there; "structured", the slices along the attribute
    ``dim`` of which an element is still there; "global", everything.
    """

    PRUNING_TYPE: ClassVar[str]
    _tensor_name: Any = None

    @abstractmethod
    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask for a tensor of importance, whose zeros include those of ``default_mask``."""

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self._tensor_name, self.apply_mask(module))

    def apply_mask(self, module: Module) -> Tensor:
        """The product of parameter and mask."""
        mask = getattr(module, f"{self._tensor_name}_mask")
        original = getattr(module, f"{self._tensor_name}_orig")
        return mask.to(dtype=original.dtype) * original  # type: ignore[no-any-return]

    @classmethod
    def apply(
        cls, module: Module, name: str, *args: Any, importance_scores: Any = None, **kwargs: Any
    ) -> BasePruningMethod:
        """Prune a parameter of a module, once more if it is pruned already.

        Args:
            importance_scores: what to compute the mask from, in the parameter's shape; by
                default the parameter itself.

        Returns:
            The forward pre-hook: the method, or a `PruningContainer` with it as the last.
        """
        method = cls(*args, **kwargs)
        method._tensor_name = name
        value: Any = getattr(module, name)
        scores = value if importance_scores is None else importance_scores
        if scores.shape != value.shape:
            raise AssertionError(
                "importance_scores should have the same shape as parameter "
                f"{name} of {module}, got {scores.shape} vs {value.shape}"
            )
        key = _hook_of(module, name)
        if key is None:
            mask = method.compute_mask(scores, default_mask=ones_like(value))
            module.register_parameter(f"{name}_orig", value)
            del module._parameters[name]
        else:
            earlier = module._forward_pre_hooks[key].function
            if not isinstance(earlier, PruningContainer):
                earlier = PruningContainer(earlier)
            earlier.add_pruning_method(method)
            method = earlier
            mask = method.compute_mask(scores, getattr(module, f"{name}_mask").detach().clone())
            del module._forward_pre_hooks[key]  # type: ignore[attr-defined]
        module.register_buffer(f"{name}_mask", mask)
        setattr(module, name, method.apply_mask(module))
        module.register_forward_pre_hook(method)
        return method

    def prune(self, t: Any, default_mask: Any = None, importance_scores: Any = None) -> Tensor:
        """A pruned copy of a tensor that belongs to no module."""
        scores = t if importance_scores is None else importance_scores
        if scores.shape != t.shape:
            raise AssertionError(
                "importance_scores should have the same shape as tensor t, "
                f"got {scores.shape} vs {t.shape}"
            )
        start = ones_like(t) if default_mask is None else default_mask
        return t * self.compute_mask(scores, default_mask=start)  # type: ignore[no-any-return]

    def remove(self, module: Module) -> None:
        """Make the product the parameter, and forget the mask."""
        name = self._tensor_name
        original = module._parameters[f"{name}_orig"]
        original.data = self.apply_mask(module).data
        delattr(module, name)
        del module._parameters[f"{name}_orig"]
        del module._buffers[f"{name}_mask"]
        setattr(module, name, original)


def _hook_of(module: Module, name: str) -> int | None:
    """The key of the forward pre-hook that prunes a parameter."""
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook.function, BasePruningMethod) and hook.function._tensor_name == name:
            return key
    return None


class PruningContainer(BasePruningMethod):
    """Several methods for one parameter, of which each prunes what those before it left."""

    def __init__(self, *args: BasePruningMethod) -> None:
        self._pruning_methods: tuple[BasePruningMethod, ...] = ()
        if len(args) == 1:
            self._tensor_name = args[0]._tensor_name
        for method in args:
            self.add_pruning_method(method)

    def add_pruning_method(self, method: BasePruningMethod) -> None:
        """Put a method for the same parameter at the end."""
        if not isinstance(method, BasePruningMethod):
            raise TypeError(f"{type(method)} is not a BasePruningMethod subclass")
        if self._tensor_name != method._tensor_name:
            raise ValueError(
                f"Can only add pruning methods acting on the parameter named "
                f"'{self._tensor_name}' to PruningContainer {self}. Found '{method._tensor_name}'"
            )
        self._pruning_methods += (method,)

    def __len__(self) -> int:
        return len(self._pruning_methods)

    def __iter__(self) -> Iterator[BasePruningMethod]:
        return iter(self._pruning_methods)

    def __getitem__(self, index: int) -> BasePruningMethod:
        return self._pruning_methods[index]

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """What the last method makes of the mask so far."""
        method = self._pruning_methods[-1]
        left = _what_is_left(method, default_mask, t.dim())
        mask = default_mask.to(dtype=t.dtype, copy=True)
        mask[left] = method.compute_mask(t[left], default_mask=default_mask[left]).to(mask.dtype)
        return mask


def _what_is_left(method: BasePruningMethod, mask: Any, dims: int) -> Any:
    """The index of the elements that a method may look at."""
    if method.PRUNING_TYPE == "unstructured":
        return mask == 1
    everything: list[Any] = [slice(None)] * dims
    if method.PRUNING_TYPE == "structured":
        if not hasattr(method, "dim"):
            raise AttributeError(
                'Pruning methods of PRUNING_TYPE "structured" need to have the attribute `dim` '
                "defined."
            )
        if method.dim < -dims:
            raise IndexError(f"Index is out of bounds for tensor with dimensions {dims}")
        dim = method.dim % dims
        everything[dim] = mask.sum(dim=[d for d in range(dims) if d != dim]) != 0
    elif method.PRUNING_TYPE != "global":
        raise ValueError(f"Unrecognized PRUNING_TYPE {method.PRUNING_TYPE}")
    return tuple(everything)


# ------------------------------------------------------------------------------- methods
class Identity(BasePruningMethod):
    """Prunes nothing, but makes mask and ``_orig``."""

    PRUNING_TYPE = "unstructured"

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask as it is."""
        return default_mask


def _is_whole(amount: Any) -> bool:
    return isinstance(amount, numbers.Integral)


class _Amount(BasePruningMethod):
    """Methods that prune a part (a float up to 1) or a number of elements or slices."""

    amount: float

    def __init__(self, amount: float) -> None:
        given: Any = amount
        if not isinstance(given, numbers.Real):
            raise TypeError(f"Invalid type for amount: {amount}. Must be int or float.")
        if amount < 0 or (not _is_whole(amount) and amount > 1):
            raise ValueError(
                f"amount={amount} should either be a float in the range [0, 1] or a non-negative "
                "integer"
            )
        self.amount = amount

    def _count(self, size: int) -> int:
        """How many of ``size`` to prune."""
        if not _is_whole(self.amount):
            return round(self.amount * size)
        if self.amount > size:
            raise ValueError(
                f"amount={self.amount} should be smaller than the number of parameters to "
                f"prune={size}"
            )
        return int(self.amount)


class _Unstructured(_Amount):
    PRUNING_TYPE = "unstructured"

    def _importance(self, t: Any) -> Any:
        raise NotImplementedError

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask with zeros for the least important elements."""
        count = self._count(t.numel())
        mask = default_mask.clone().contiguous()
        if count:
            least = self._importance(t).reshape(-1).topk(count, largest=False).indices
            mask.view(-1)[least] = 0
        return mask


class RandomUnstructured(_Unstructured):
    """Prunes elements by chance."""

    def _importance(self, t: Any) -> Any:
        return rand_like(t)


class L1Unstructured(_Unstructured):
    """Prunes the elements nearest to 0."""

    def _importance(self, t: Any) -> Any:
        return t.detach().abs()


class _Structured(_Amount):
    PRUNING_TYPE = "structured"
    dim: int

    def _importance(self, t: Any) -> Any:
        raise NotImplementedError

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """The mask with zeros for the least important slices along ``dim``."""
        if t.dim() <= 1:
            raise ValueError(
                "Structured pruning can only be applied to multidimensional tensors. Found tensor "
                f"of shape {t.shape} with {t.dim()} dims"
            )
        if self.dim >= t.dim():
            raise IndexError(f"Invalid index {self.dim} for tensor of size {t.shape}")
        size = t.shape[self.dim]
        count = self._count(size)
        if not count:
            return default_mask
        kept = self._importance(t).topk(size - count).indices
        place: list[Any] = [slice(None)] * t.dim()
        place[self.dim] = kept
        mask: Any = zeros_like(t)
        mask[tuple(place)] = 1
        return mask * default_mask.to(dtype=mask.dtype)


class RandomStructured(_Structured):
    """Prunes slices along a dimension by chance."""

    def __init__(self, amount: float, dim: int = -1) -> None:
        super().__init__(amount)
        self.dim = dim

    def _importance(self, t: Any) -> Any:
        return rand(t.shape[self.dim], device=t.device)


class LnStructured(_Structured):
    """Prunes the slices along a dimension with the smallest n-norm."""

    def __init__(self, amount: float, n: Any, dim: int = -1) -> None:
        super().__init__(amount)
        self.n, self.dim = n, dim

    def _importance(self, t: Any) -> Any:
        dims = [d for d in range(t.dim()) if d != self.dim % t.dim()]
        return norm_of(t.detach(), self.n, dims)


class CustomFromMask(BasePruningMethod):
    """Prunes where a given mask is 0."""

    PRUNING_TYPE = "global"

    def __init__(self, mask: Tensor) -> None:
        self.mask = mask

    def compute_mask(self, t: Any, default_mask: Any) -> Any:
        """Both masks at once."""
        if default_mask.shape != self.mask.shape:
            raise AssertionError(
                f"default_mask shape {default_mask.shape} must match self.mask shape "
                f"{self.mask.shape}"
            )
        return default_mask * self.mask.to(dtype=default_mask.dtype)


# ----------------------------------------------------------------------------- functions
def identity(module: ModuleT, name: str) -> ModuleT:
    """Give a parameter a mask of ones; returns the module, as all of these do."""
    Identity.apply(module, name)
    return module


def random_unstructured(module: ModuleT, name: str, amount: float) -> ModuleT:
    """Prune elements of a parameter by chance: a part (a float) or a number (an int) of them."""
    RandomUnstructured.apply(module, name, amount=amount)
    return module


def l1_unstructured(
    module: ModuleT, name: str, amount: float, importance_scores: Tensor | None = None
) -> ModuleT:
    """Prune the elements of a parameter (or of ``importance_scores``) nearest to 0.

    >>> import gradlite
    >>> from gradlite import nn
    >>> layer = nn.Linear(2, 1, bias=False)
    >>> with gradlite.no_grad():
    ...     _ = layer.weight.copy_(gradlite.tensor([[0.5, -2.0]]))
    >>> l1_unstructured(layer, "weight", amount=1).weight
    tensor([[ 0., -2.]], grad_fn=<MulBackward0>)
    """
    L1Unstructured.apply(module, name, amount=amount, importance_scores=importance_scores)
    return module


def random_structured(module: ModuleT, name: str, amount: float, dim: int) -> ModuleT:
    """Prune slices of a parameter along a dimension by chance."""
    RandomStructured.apply(module, name, amount=amount, dim=dim)
    return module


def ln_structured(
    module: ModuleT,
    name: str,
    amount: float,
    n: Any,
    dim: int,
    importance_scores: Tensor | None = None,
) -> ModuleT:
    """Prune the slices of a parameter along a dimension with the smallest n-norm."""
    LnStructured.apply(
        module, name, amount=amount, n=n, dim=dim, importance_scores=importance_scores
    )
    return module


def custom_from_mask(module: ModuleT, name: str, mask: Tensor) -> ModuleT:
    """Prune a parameter where a mask is 0."""
    CustomFromMask.apply(module, name, mask=mask)
    return module


def global_unstructured(
    parameters: Iterable[tuple[Module, str]],
    pruning_method: type[BasePruningMethod],
    importance_scores: dict[tuple[Module, str], Tensor] | None = None,
    **kwargs: Any,
) -> None:
    """Prune several parameters at once, as if they were one vector.

    Args:
        parameters: pairs of module and parameter name.
        pruning_method: an unstructured method, such as `L1Unstructured`; ``kwargs`` are its.
        importance_scores: what to compute the mask from, for pairs that are not to use their
            parameter itself.
    """
    if not isinstance(parameters, Iterable):
        raise TypeError("global_unstructured(): parameters is not an Iterable")
    given = {} if importance_scores is None else importance_scores
    if not isinstance(given, dict):
        raise TypeError("global_unstructured(): importance_scores must be of type dict")
    pairs = list(parameters)
    values: list[Any] = [getattr(module, name) for module, name in pairs]
    scores = parameters_to_vector(given.get(p, v) for p, v in zip(pairs, values, strict=True))
    masks = parameters_to_vector(
        getattr(module, f"{name}_mask") if hasattr(module, f"{name}_mask") else ones_like(v)
        for (module, name), v in zip(pairs, values, strict=True)
    )
    method = pruning_method(**kwargs)
    if method.PRUNING_TYPE != "unstructured":
        raise TypeError(
            'Only "unstructured" PRUNING_TYPE supported for the `pruning_method`. Found method '
            f"{pruning_method} of type {method.PRUNING_TYPE}"
        )
    mask: Any = PruningContainer(method).compute_mask(scores, masks)
    start = 0
    for (module, name), value in zip(pairs, values, strict=True):
        part = mask[start : start + value.numel()]
        custom_from_mask(module, name, part.view(value.shape))
        start += value.numel()


def remove(module: ModuleT, name: str) -> ModuleT:
    """Make pruning permanent: the parameter is the product from now on, without a mask.

    Raises:
        ValueError: the parameter is not pruned.
    """
    key = _hook_of(module, name)
    if key is None:
        raise ValueError(
            f"Parameter '{name}' of module {module} has to be pruned before pruning can be removed"
        )
    module._forward_pre_hooks[key].function.remove(module)
    del module._forward_pre_hooks[key]  # type: ignore[attr-defined]
    return module


def is_pruned(module: Module) -> bool:
    """Whether a parameter of the module, or of one below it, is pruned."""
    return any(
        isinstance(hook.function, BasePruningMethod)
        for each in module.modules()
        for hook in each._forward_pre_hooks.values()
    )
