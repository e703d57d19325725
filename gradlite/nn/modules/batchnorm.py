"""Batch normalisation, and the base it shares with instance normalisation."""

from __future__ import annotations

from typing import Any

from gradlite import dtypes
from gradlite.grad_mode import no_grad
from gradlite.nn import functional as F
from gradlite.nn import init
from gradlite.nn.module import Module
from gradlite.nn.parameter import Parameter
from gradlite.ops import guard
from gradlite.ops.creation import empty, zeros
from gradlite.ops.like import zeros_like
from gradlite.tensor import Tensor

__all__ = ["BatchNorm1d", "BatchNorm2d", "BatchNorm3d"]


class _NormBase(Module):
    _version = 2  # Version 1 had no num_batches_tracked.
    weight: Parameter | None
    bias: Parameter | None
    running_mean: Tensor | None
    running_var: Tensor | None
    num_batches_tracked: Tensor | None

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__()
        self.num_features = num_features
        self.eps = eps
        self.momentum = momentum
        self.affine = affine
        self.track_running_stats = track_running_stats
        where = {"device": device, "dtype": dtype}
        for name, wanted in (("weight", affine), ("bias", affine and bias)):
            value = Parameter(empty(num_features, **where)) if wanted else None
            self.register_parameter(name, value)
        tracked = track_running_stats
        for name in ("running_mean", "running_var"):
            self.register_buffer(name, empty(num_features, **where) if tracked else None)
        count = zeros((), dtype=dtypes.int64, device=device) if tracked else None
        self.register_buffer("num_batches_tracked", count)
        self.reset_parameters()

    def reset_running_stats(self) -> None:
        """Forget the running statistics: mean 0, variance 1, no batch seen."""
        if self.track_running_stats:
            assert self.running_mean is not None and self.running_var is not None
            assert self.num_batches_tracked is not None
            init.zeros_(self.running_mean)
            init.ones_(self.running_var)
            init.zeros_(self.num_batches_tracked)

    def reset_parameters(self) -> None:
        """Set the initial values again."""
        self.reset_running_stats()
        if self.weight is not None:
            init.ones_(self.weight)
        if self.bias is not None:
            init.zeros_(self.bias)

    def _check_input_dim(self, input: Tensor) -> None:
        raise NotImplementedError

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        *lists: Any,
    ) -> None:
        key = prefix + "num_batches_tracked"
        if (local_metadata.get("version") or 1) < 2 and self.track_running_stats:
            if key not in state_dict:
                state_dict[key] = self.num_batches_tracked
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *lists)

    def extra_repr(self) -> str:
        return (
            f"{self.num_features}, eps={self.eps}, momentum={self.momentum}, "
            f"affine={self.affine}, bias={self.bias is not None}, "
            f"track_running_stats={self.track_running_stats}"
        )


class _BatchNorm(_NormBase):
    def forward(self, input: Tensor) -> Tensor:
        self._check_input_dim(input)
        count = self.num_batches_tracked
        if self.training and self.track_running_stats and count is not None:
            # Straight on the array: an op with its checks would cost more than the addition.
            array = count.array
            with guard.on(array):
                array += 1
            count._bump()
            mean, var = self.running_mean, self.running_var
            if self.momentum is None and mean is not None and var is not None:
                return self._averaging(input, (mean, var), count)
        use_batch = self.training or self.running_mean is None
        keep = not self.training or self.track_running_stats
        return F.batch_norm(
            input,
            self.running_mean if keep else None,
            self.running_var if keep else None,
            *(self.weight, self.bias, use_batch, self.momentum or 0.0, self.eps),
        )

    def _averaging(self, input: Tensor, kept: tuple[Tensor, Tensor], count: Tensor) -> Tensor:
        """In training, with averages over all batches: how many those were nobody has to read.

        To read it would make a GPU wait, and a captured step would go on with the same number.
        """
        mean, var = map(zeros_like, kept)
        out = F.batch_norm(input, mean, var, self.weight, self.bias, True, 1.0, self.eps)
        with no_grad():
            share = 1.0 / count.double()
            for average, latest in zip(kept, (mean, var)):
                average.mul_(1 - share).add_(latest.mul_(share))
        return out


class BatchNorm1d(_BatchNorm):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, statistics per channel over the batch.

    Ioffe and Szegedy (2015). In training the batch's own statistics are used (the biased
    variance) and the running ones move towards them: running = (1 - momentum) running +
    momentum batch (the unbiased variance); in evaluation the running ones are used.

    Args:
        num_features: number of channels.
        momentum: None means the plain average over all batches seen.
        affine: whether there are ``weight`` and ``bias``.
        track_running_stats: False uses the batch's statistics in evaluation too.

    Shapes: input and output ``(N, C)`` or ``(N, C, L)``; all parameters and buffers ``(C,)``.

    Initialised to weight 1, bias 0, running mean 0, running variance 1.
    """

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 2 and input.dim() != 3:
            raise ValueError(f"expected 2D or 3D input (got {input.dim()}D input)")


class BatchNorm2d(_BatchNorm):
    """`BatchNorm1d` for images ``(N, C, H, W)``."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 4:
            raise ValueError(f"expected 4D input (got {input.dim()}D input)")


class BatchNorm3d(_BatchNorm):
    """`BatchNorm1d` for volumes ``(N, C, D, H, W)``."""

    def _check_input_dim(self, input: Tensor) -> None:
        if input.dim() != 5:
            raise ValueError(f"expected 5D input (got {input.dim()}D input)")
