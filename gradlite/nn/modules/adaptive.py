"""An approximate softmax for many classes, of which few are frequent."""

from __future__ import annotations

from collections import namedtuple
from collections.abc import Sequence
from typing import Any

from gradlite.nn import functional as F
from gradlite.nn.module import Module
from gradlite.nn.modules.container import ModuleList, Sequential
from gradlite.nn.modules.linear import Linear
from gradlite.ops.joining import cat
from gradlite.tensor import Tensor

__all__ = ["AdaptiveLogSoftmaxWithLoss"]

_ASMoutput = namedtuple("_ASMoutput", ["output", "loss"])  # noqa: PYI024


class AdaptiveLogSoftmaxWithLoss(Module):
    """Grave et al.'s adaptive softmax (2017): frequent classes in a head, the others in clusters.

    The head tells the first ``cutoffs[0]`` classes and the clusters apart; cluster i has the
    classes from ``cutoffs[i]`` on, and sees the input in ``in_features / div_value ** (i + 1)``
    dimensions. Classes are to be numbered by frequency, the most frequent first.

    Args:
        in_features: size of the input.
        n_classes: number of classes.
        cutoffs: the first class of each cluster, increasing.
        div_value: how fast the clusters' inputs shrink.
        head_bias: whether the head has a bias.

    Shapes: input ``(N, in_features)`` or ``(in_features,)``, target ``(N,)`` or ``()``. Returns a
    named tuple of ``output``, the targets' log-probabilities, and ``loss``, their negative mean.

    >>> import gradlite
    >>> softmax = AdaptiveLogSoftmaxWithLoss(16, 20, cutoffs=[4, 10])
    >>> result = softmax(gradlite.randn(3, 16), gradlite.tensor([0, 5, 19]))
    >>> result.output.shape
    gradlite.Size([3])
    >>> softmax.log_prob(gradlite.randn(3, 16)).shape
    gradlite.Size([3, 20])

    Raises:
        ValueError: the cutoffs are not increasing, or not between 1 and ``n_classes - 1``.
        RuntimeError: shapes that do not fit, or a target out of range.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        starts = list(cutoffs)
        if not starts:
            raise ValueError("cutoffs should be a sequence of length larger than 0")
        increasing = starts == sorted(set(starts)) and all(int(c) == c for c in starts)
        if not increasing or starts[0] <= 0 or starts[-1] > n_classes - 1:
            raise ValueError(
                "cutoffs should be a sequence of unique, positive integers sorted in an "
                "increasing order, where each value is between 1 and n_classes-1"
            )
        where = {"device": device, "dtype": dtype}
        self.in_features = in_features
        self.n_classes = n_classes
        self.cutoffs = [*starts, n_classes]
        self.div_value = div_value
        self.head_bias = head_bias
        self.shortlist_size = starts[0]
        self.n_clusters = len(starts)
        self.head_size = self.shortlist_size + self.n_clusters
        self.head = Linear(in_features, self.head_size, bias=head_bias, **where)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            inner = int(in_features // div_value ** (i + 1))
            classes = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(
                    Linear(in_features, inner, bias=False, **where),
                    Linear(inner, classes, bias=False, **where),
                )
            )

    def reset_parameters(self) -> None:
        """Draw the initial values again."""
        for module in self.modules():
            if isinstance(module, Linear):
                module.reset_parameters()

    def forward(self, input_: Tensor, target_: Tensor) -> Any:
        """The log-probabilities of the targets, and the loss."""
        _check(input_, target_)
        single = target_.dim() == 0
        input: Any = input_.unsqueeze(0) if single else input_  # type: ignore[attr-defined]
        target: Any = target_.unsqueeze(0) if single else target_  # type: ignore[attr-defined]
        if bool(((target < 0) | (target >= self.n_classes)).any()):
            raise RuntimeError(
                f"Target values should be in [0, {self.n_classes - 1}], but values in range "
                f"[{target.min().item()}, {target.max().item()}] were found. "
            )
        output = input.new_zeros(target.shape[0])
        column = target.clone()  # in the head: of the class, or of its cluster
        for i, (start, stop) in enumerate(zip(self.cutoffs, self.cutoffs[1:])):
            rows = ((target >= start) & (target < stop)).nonzero().squeeze(1)
            if rows.numel() == 0:
                continue
            logp = F.log_softmax(self.tail[i](input.index_select(0, rows)), 1)
            own = (target.index_select(0, rows) - start).unsqueeze(1)
            output = output.index_add(0, rows, logp.gather(1, own).squeeze(1))
            column.index_fill_(0, rows, self.shortlist_size + i)
        head = F.log_softmax(self.head(input), 1)
        output = output + head.gather(1, column.unsqueeze(1)).squeeze(1)  # type: ignore[attr-defined]
        loss = (-output).mean()
        return _ASMoutput(output.squeeze(0) if single else output, loss)

    def log_prob(self, input: Tensor) -> Tensor:
        """The log-probabilities of all classes: ``(N, in_features)`` to ``(N, n_classes)``."""
        head: Any = F.log_softmax(self.head(input), 1)
        parts = [head[:, : self.shortlist_size]]
        for i, cluster in enumerate(self.tail):
            place = self.shortlist_size + i
            parts.append(F.log_softmax(cluster(input), 1) + head[:, place : place + 1])
        return cat(parts, 1)

    def predict(self, input: Tensor) -> Tensor:
        """The most probable class of each row."""
        best: Any = self.head(input).argmax(1)
        if bool((best < self.shortlist_size).all()):
            return best  # type: ignore[no-any-return]
        return self.log_prob(input).argmax(1)  # type: ignore[attr-defined,no-any-return]


def _check(input: Tensor, target: Tensor) -> None:
    if target.dim() > 1:
        raise RuntimeError("0D or 1D target tensor expected, multi-target not supported")
    if target.dim() == 1 and input.shape[0] != target.shape[0]:
        raise RuntimeError("Input and target should have the same size in the batch dimension.")
    if input.dim() != target.dim() + 1:
        raise RuntimeError(
            f"{target.dim()}D target tensor expects {target.dim() + 1}D input tensors, but found "
            f"inputs with size {input.shape}"
        )
