"""Margin losses of classes and label sets, and the CTC loss, as modules; see `loss`."""

from __future__ import annotations

from typing import Any

from gradlite.nn import functional as F
from gradlite.nn.modules.loss import _Loss, _WeightedLoss
from gradlite.tensor import Tensor

__all__ = ["CTCLoss", "MultiLabelMarginLoss", "MultiLabelSoftMarginLoss", "MultiMarginLoss"]


class MultiMarginLoss(_WeightedLoss):
    """Sum over classes j but the target y of weight[y] max(0, margin - x[y] + x[j])^p, over C.

    Shapes: input ``(N, C)`` or ``(C)``, target ``(N)`` or ``()`` of class numbers.
    """

    def __init__(
        self,
        p: int = 1,
        margin: float = 1.0,
        weight: Tensor | None = None,
        size_average: bool | None = None,
        reduce: bool | None = None,
        reduction: str = "mean",
    ) -> None:
        super().__init__(weight, size_average, reduce, reduction)
        if p not in (1, 2):
            raise ValueError("only p == 1 and p == 2 supported")
        if weight is not None and weight.dim() != 1:
            raise ValueError(
                f"MultiMarginLoss: expected weight to be None or 1D tensor, got {weight.dim()}D "
                "instead"
            )
        self.p = p
        self.margin = margin

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multi_margin_loss(
            *(input, target, self.p, self.margin, self.weight), reduction=self.reduction
        )


class MultiLabelMarginLoss(_Loss):
    """Sum over labels y and other classes j of max(0, 1 - x[y] + x[j]), over C.

    Shapes: input and target ``(N, C)`` or ``(C)``; a row of the target lists labels up to the
    first -1.
    """

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_margin_loss(input, target, reduction=self.reduction)


class MultiLabelSoftMarginLoss(_WeightedLoss):
    """The mean over classes of the cross-entropy of sigmoids with labels of 0 and 1."""

    def forward(self, input: Tensor, target: Tensor) -> Tensor:
        return F.multilabel_soft_margin_loss(
            input, target, weight=self.weight, reduction=self.reduction
        )


class CTCLoss(_Loss):
    """-log of the probability of label sequences shorter than the input (Graves et al., 2006).

    Args:
        blank: the label that stands for none.
        zero_infinity: give 0 with no gradient for targets that are longer than the input.

    Shapes: log_probs ``(T, N, C)`` or ``(T, C)``, from log_softmax; targets ``(N, S)``, or all
    one after another; input_lengths and target_lengths ``(N)``.
    """

    def __init__(
        self, blank: int = 0, reduction: str = "mean", zero_infinity: bool = False
    ) -> None:
        super().__init__(reduction=reduction)
        self.blank = blank
        self.zero_infinity = zero_infinity

    def forward(
        self, log_probs: Tensor, targets: Tensor, input_lengths: Any, target_lengths: Any
    ) -> Tensor:
        return F.ctc_loss(
            *(log_probs, targets, input_lengths, target_lengths),
            *(self.blank, self.reduction, self.zero_infinity),
        )
