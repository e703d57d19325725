"""Instance normalisation: each channel of each sample by itself."""

from __future__ import annotations

import warnings
from typing import Any

from gradlite.nn import functional as F
from gradlite.nn.modules.batchnorm import _NormBase
from gradlite.tensor import Tensor

__all__ = ["InstanceNorm1d", "InstanceNorm2d", "InstanceNorm3d"]


class _InstanceNorm(_NormBase):
    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float = 0.1,
        affine: bool = False,
        track_running_stats: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(
            num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias
        )

    _batched_dim: int

    def _check_input_dim(self, input: Tensor) -> None:
        n = self._batched_dim
        if input.dim() not in (n - 1, n):
            raise ValueError(f"expected {n - 1}D or {n}D input (got {input.dim()}D input)")

    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        channels = 1 - self._batched_dim
        if input.shape[channels] != self.num_features:
            if self.affine:
                raise ValueError(
                    f"expected input's size at dim={input.dim() + channels} to match num_features "
                    f"({self.num_features}), but got: {input.shape[channels]}."
                )
            warnings.warn(
                f"input's size at dim={input.dim() + channels} does not match num_features. You "
                "can silence this warning by not passing in num_features, which is not used "
                "because affine=False",
                stacklevel=2,
            )
        single = input.dim() == self._batched_dim - 1
        output = F.instance_norm(
            input.unsqueeze(0) if single else input,  # type: ignore[attr-defined]
            *(self.running_mean, self.running_var, self.weight, self.bias),
            self.training or not self.track_running_stats,
            self.momentum if self.momentum is not None else 0.0,
            self.eps,
        )
        return output.squeeze(0) if single else output  # type: ignore[attr-defined]


class InstanceNorm1d(_InstanceNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics per sample and channel.

    Ulyanov et al. (2016). Unlike in batch normalisation, ``affine`` and
    ``track_running_stats`` are off unless asked for.

    Shapes: input and output ``(N, C, L)`` or ``(C, L)``.
    """

    _batched_dim = 3


class InstanceNorm2d(_InstanceNorm):
    """`InstanceNorm1d` for images ``(N, C, H, W)`` or ``(C, H, W)``."""

    _batched_dim = 4


class InstanceNorm3d(_InstanceNorm):
    """`InstanceNorm1d` for volumes ``(N, C, D, H, W)`` or ``(C, D, H, W)``."""

    _batched_dim = 5
