"""Weight and spectral normalisation and orthogonal weights as parametrizations."""

from __future__ import annotations

from typing import Any, TypeVar

from gradlite.grad_mode import no_grad
from gradlite.nn import functional as F
from gradlite.nn.module import Module
from gradlite.nn.modules.conv import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from gradlite.nn.utils.orthogonal import orthogonal
from gradlite.nn.utils.parametrize import register_parametrization
from gradlite.nn.utils.weight_norm import length
from gradlite.tensor import Tensor

__all__ = ["orthogonal", "spectral_norm", "weight_norm"]

ModuleT = TypeVar("ModuleT", bound=Module)


class _WeightNorm(Module):
    def __init__(self, dim: int | None) -> None:
        super().__init__()
        self.dim = None if dim == -1 else dim

    def forward(self, weight_g: Any, weight_v: Any) -> Any:
        return weight_v * (weight_g / length(weight_v, self.dim))

    def right_inverse(self, weight: Any) -> Any:
        return length(weight, self.dim), weight


def weight_norm(module: ModuleT, name: str = "weight", dim: int | None = 0) -> ModuleT:
    """Parametrize a weight by its lengths ``original0`` and directions ``original1``.

    Args:
        dim: the dimension whose slices have a length each; None means one length for all.

    Returns:
        The module. A state saved with `gradlite.nn.utils.weight_norm` can be loaded into it.

    >>> from gradlite import nn
    >>> layer = nn.utils.parametrizations.weight_norm(nn.Linear(20, 40))
    >>> layer.parametrizations.weight.original0.shape
    gradlite.Size([40, 1])

    Source: Salimans and Kingma, Weight Normalization, 2016.
    """
    register_parametrization(module, name, _WeightNorm(dim), unsafe=True)

    def renamed(state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        old = f"{prefix}{name}_g", f"{prefix}{name}_v"
        if old[0] in state_dict and old[1] in state_dict:
            for i, key in enumerate(old):
                new = f"{prefix}parametrizations.{name}.original{i}"
                state_dict[new] = state_dict.pop(key)

    module._register_load_state_dict_pre_hook(renamed)
    return module


class _SpectralNorm(Module):
    def __init__(self, weight: Any, n_power_iterations: int, dim: int, eps: float) -> None:
        super().__init__()
        ndim = weight.dim()
        if not -ndim <= dim < ndim:
            raise IndexError(
                "Dimension out of range (expected to be in range of "
                f"[-{ndim}, {ndim - 1}] but got {dim})"
            )
        if n_power_iterations <= 0:
            raise ValueError(
                "Expected n_power_iterations to be positive, but "
                f"got n_power_iterations={n_power_iterations}"
            )
        self.dim, self.eps = dim % ndim, eps
        if ndim > 1:
            self.n_power_iterations = n_power_iterations
            matrix = self._matrix(weight)
            for name, size in zip(("_u", "_v"), matrix.shape):
                vector = matrix.new_empty(size).normal_(0, 1)
                self.register_buffer(name, F.normalize(vector, dim=0, eps=eps))
            self._iterate(matrix, 15)

    def _matrix(self, weight: Any) -> Any:
        others = [d for d in range(weight.dim()) if d != self.dim]
        return weight.permute(self.dim, *others).flatten(1)

    @no_grad()
    def _iterate(self, matrix: Any, times: int) -> None:
        for _ in range(times):
            self._u.copy_(F.normalize(matrix.mv(self._v), dim=0, eps=self.eps))
            self._v.copy_(F.normalize(matrix.T.mv(self._u), dim=0, eps=self.eps))

    def forward(self, weight: Any) -> Any:
        if weight.dim() == 1:
            return F.normalize(weight, dim=0, eps=self.eps)
        matrix = self._matrix(weight)
        if self.training:
            self._iterate(matrix, self.n_power_iterations)
        # Two forward passes before one backward need the vectors of each.
        u, v = self._u.clone(), self._v.clone()
        return weight / u.dot(matrix.mv(v))

    def right_inverse(self, value: Any) -> Any:
        return value


def spectral_norm(
    module: ModuleT,
    name: str = "weight",
    n_power_iterations: int = 1,
    eps: float = 1e-12,
    dim: int | None = None,
) -> ModuleT:
    """Divide a weight by its largest singular value, estimated anew at each look while training.

    Args:
        name: the weight, a matrix once ``dim`` is in front and the rest is flattened; a vector is
            divided by its length.
        n_power_iterations: how many steps of the power method a look takes.
        eps: the least length that a vector is divided by.
        dim: default 0, and 1 for transposed convolutions.

    >>> import numpy as np
    >>> from gradlite import nn
    >>> layer = nn.utils.parametrizations.spectral_norm(nn.Linear(20, 40))
    >>> bool(0.8 < np.linalg.norm(layer.weight.detach().numpy(), 2) < 1.2)
    True

    Raises:
        ValueError: there is no such tensor.

    Source: Miyato et al., Spectral Normalization for Generative Adversarial Networks, 2018.
    """
    weight = getattr(module, name, None)
    if not isinstance(weight, Tensor):
        raise ValueError(f"Module '{module}' has no parameter or buffer with name '{name}'")
    if dim is None:
        transposed = (ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
        dim = 1 if isinstance(module, transposed) else 0
    made = _SpectralNorm(weight, n_power_iterations, dim, eps)
    return register_parametrization(module, name, made)
