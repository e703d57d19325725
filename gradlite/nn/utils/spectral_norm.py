"""Spectral normalisation by a hook: a weight divided by its largest singular value."""

from __future__ import annotations

from typing import Any, TypeVar

from gradlite.grad_mode import no_grad
from gradlite.nn import functional as F
from gradlite.nn.module import Module
from gradlite.nn.modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from gradlite.nn.parameter import Parameter, is_lazy
from gradlite.tensor import Tensor

__all__ = ["remove_spectral_norm", "spectral_norm"]

ModuleT = TypeVar("ModuleT", bound=Module)


class _SpectralNorm:
    """The forward pre-hook that makes the weight out of its parameter and two vectors."""

    def __init__(self, name: str, n_power_iterations: int, dim: int, eps: float) -> None:
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but "
                f"got n_power_iterations={n_power_iterations}"
            )
        self.name, self.n_power_iterations = name, n_power_iterations
        self.dim, self.eps = dim, eps

    def matrix(self, weight: Any) -> Any:
        """The weight with its dimension in front, and the rest in one."""
        others = [d for d in range(weight.dim()) if d != self.dim]
        return weight.permute(self.dim, *others).reshape(weight.size(self.dim), -1)

    def weight(self, module: Module, iterate: bool) -> Tensor:
        weight = getattr(module, f"{self.name}_orig")
        u, v = getattr(module, f"{self.name}_u"), getattr(module, f"{self.name}_v")
        matrix = self.matrix(weight)
        if iterate:
            with no_grad():
                for _ in range(self.n_power_iterations):
                    v.copy_(F.normalize(matrix.T.mv(u), dim=0, eps=self.eps))
                    u.copy_(F.normalize(matrix.mv(v), dim=0, eps=self.eps))
            # Two forward passes before one backward need the vectors of each.
            u, v = u.clone(), v.clone()
        return weight / u.dot(matrix.mv(v))  # type: ignore[no-any-return]

    def __call__(self, module: Module, inputs: Any) -> None:
        setattr(module, self.name, self.weight(module, module.training))


def _find(module: Module, name: str) -> int | None:
    for key, hook in module._forward_pre_hooks.items():
        if isinstance(hook.function, _SpectralNorm) and hook.function.name == name:
            return key
    return None


def spectral_norm(
    module: ModuleT,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> ModuleT:
    """Replace a parameter w by w / s, with s its largest singular value as a matrix.

    The parameter is ``<name>_orig`` then, and the vectors of the power method are the buffers
    ``<name>_u`` and ``<name>_v``, which every call while training improves.
    `gradlite.nn.utils.parametrizations.spectral_norm` does the same without a hook.

    Args:
        n_power_iterations: how many steps of the power method a call takes.
        eps: the least length that a vector is divided by.
        dim: the dimension of the weight that are the matrix's rows; default 0, and 1 for
            transposed convolutions.

    Returns:
        The module, which computes the weight anew in front of every call.

    >>> import numpy as np
    >>> from gradlite import nn, randn
    >>> layer = nn.utils.spectral_norm(nn.Linear(20, 40))
    >>> for _ in range(100):
    ...     _ = layer(randn(1, 20))
    >>> bool(0.9 < np.linalg.norm(layer.weight.detach().numpy(), 2) < 1.1)
    True

    Raises:
        RuntimeError: the parameter is normalised already.
        ValueError: ``n_power_iterations`` is not positive, or the parameter is None.

    Source: Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018.
    """
    if _find(module, name) is not None:
        raise RuntimeError(f"Cannot register two spectral_norm hooks on the same parameter {name}")
    if dim is None:
        transposed = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
        dim = 1 if isinstance(module, transposed) else 0
    hook = _SpectralNorm(name, n_power_iterations, dim, eps)
    weight = module._parameters[name]
    if weight is None:
        raise ValueError(f"`SpectralNorm` cannot be applied as parameter `{name}` is None")
    if is_lazy(weight):
        raise ValueError(
            "The module passed to `SpectralNorm` can't have uninitialized parameters. Make sure to "
            "run the dummy forward before applying spectral normalization"
        )
    with no_grad():
        rows, columns = hook.matrix(weight).shape
        u, v = (
            F.normalize(weight.new_empty(size).normal_(0, 1), dim=0, eps=eps)
            for size in (rows, columns)
        )
    del module._parameters[name]
    module.register_parameter(f"{name}_orig", weight)
    setattr(module, name, weight.data)
    module.register_buffer(f"{name}_u", u)
    module.register_buffer(f"{name}_v", v)
    module.register_forward_pre_hook(hook)
    return module


def remove_spectral_norm(module: ModuleT, name: str = "weight") -> ModuleT:
    """Make the weight one parameter again, with its present value.

    Raises:
        ValueError: the parameter is not normalised.
    """
    key = _find(module, name)
    if key is None:
        raise ValueError(f"spectral_norm of '{name}' not found in {module}")
    hook = module.__dict__["_forward_pre_hooks"].pop(key).function
    with no_grad():
        weight = hook.weight(module, False)
    delattr(module, name)
    del module._parameters[f"{name}_orig"]
    del module._buffers[f"{name}_u"], module._buffers[f"{name}_v"]
    setattr(module, name, Parameter(weight.detach()))
    return module
