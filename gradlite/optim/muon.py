"""Muon: momentum whose matrices are made nearly orthogonal."""

from __future__ import annotations

import math
from typing import Any

from gradlite import dtypes
from gradlite.grad_mode import enable_grad, no_grad
from gradlite.ops.addmm import addmm
from gradlite.optim.checks import one_number
from gradlite.optim.elementwise import number
from gradlite.optim.optimizer import Closure, Optimizer, Params
from gradlite.tensor import Tensor

ADJUSTMENTS = ("original", "match_rms_adamw")


class Muon(Optimizer):
    r"""Steps along the momentum with all singular values brought to about 1, for hidden layers.

    .. math::
        b &\leftarrow \mu b + (1 - \mu) g \\
        u &\leftarrow \operatorname{NS}(\mu b + (1 - \mu) g) \qquad
            (\operatorname{NS}(b) \text{ without nesterov}) \\
        p &\leftarrow (1 - \gamma \lambda) p - \gamma s u

    where a step of the Newton-Schulz iteration NS is :math:`x \leftarrow a x + (b x x^T + c (x
    x^T)^2) x`, in bfloat16, and :math:`s` depends on the shape alone. It is for matrices; biases,
    embeddings and the last layer go to another optimizer, such as AdamW.

    Args:
        params: parameters of two dimensions, or parameter groups.
        lr: learning rate :math:`\gamma`.
        weight_decay: :math:`\lambda`, which is not part of the gradient.
        momentum: :math:`\mu`.
        nesterov: look ahead along the momentum.
        ns_coefficients: :math:`a`, :math:`b` and :math:`c`.
        eps: the least norm that a matrix is divided by.
        ns_steps: how many steps of the iteration, fewer than 100.
        adjust_lr_fn: how :math:`s` comes from a matrix of m rows and n columns:
            ``"original"`` (or None) is :math:`\sqrt{\max(1, m / n)}`, and ``"match_rms_adamw"``
            is :math:`0.2 \sqrt{\max(m, n)}`, with which Adam's learning rates fit.

    Raises:
        ValueError: an option is out of range, or a parameter is no matrix.

    Source: Jordan et al., "Muon: An optimizer for hidden layers in neural networks", 2024; Liu et
    al., "Muon is Scalable for LLM Training", 2025.

    >>> import gradlite
    >>> weight = gradlite.zeros(2, 2, requires_grad=True)
    >>> optimizer = gradlite.optim.Muon([weight], lr=0.1)
    >>> (weight * gradlite.tensor([[3.0, 0.0], [0.0, 0.5]])).sum().backward()
    >>> optimizer.step()
    >>> weight.detach().round(decimals=1).abs()
    tensor([[0.1000, 0.0000],
            [0.0000, 0.1000]])
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        weight_decay: float = 0.1,
        momentum: float = 0.95,
        nesterov: bool = True,
        ns_coefficients: tuple[float, float, float] = (3.4445, -4.7750, 2.0315),
        eps: float = 1e-7,
        ns_steps: int = 5,
        adjust_lr_fn: str | None = None,
    ) -> None:
        one_number(lr)
        for title, value in (
            ("Learning rate", lr), ("momentum", momentum), ("weight decay", weight_decay),
        ):  # fmt: skip
            if not 0.0 <= value:
                raise ValueError(f"{title} should be >= 0 but is: {value}")
        if adjust_lr_fn is not None and adjust_lr_fn not in ADJUSTMENTS:
            raise ValueError(f"Adjust learning rate function {adjust_lr_fn} is not supported")
        defaults = {
            "lr": lr,
            "weight_decay": weight_decay,
            "momentum": momentum,
            "nesterov": nesterov,
            "ns_coefficients": ns_coefficients,
            "eps": eps,
            "ns_steps": ns_steps,
            "adjust_lr_fn": adjust_lr_fn,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            for p in group["params"]:
                if p.ndim != 2:
                    raise ValueError(
                        "Muon only supports 2D parameters whereas we found a parameter with size: "
                        f"{p.size()}"
                    )

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters that have a gradient; the others and their state stay as is.

        Args:
            closure: evaluates the model again and returns the loss, which step hands back.

        Raises:
            ValueError: an option of a group is out of range. Nothing has changed then.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        for group in self.param_groups:
            _check(group)
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._update(p, p.grad, group)
        return loss

    def _update(self, p: Any, grad: Any, group: dict[str, Any]) -> None:
        state = self.state[p]
        if "momentum_buffer" not in state:
            state["momentum_buffer"] = grad.new_zeros(grad.shape)
        buffer, momentum, lr = state["momentum_buffer"], group["momentum"], number(group["lr"])
        buffer.lerp_(grad, 1 - momentum)
        ahead = grad.lerp(buffer, momentum) if group["nesterov"] else buffer
        step = orthogonalized(ahead, group["ns_coefficients"], group["ns_steps"], group["eps"])
        p.mul_(1 - lr * group["weight_decay"])
        p.add_(step, alpha=-lr * _adjustment(group["adjust_lr_fn"], p.shape))


def _check(group: dict[str, Any]) -> None:
    if group["ns_steps"] >= 100:
        raise ValueError("Number of steps must be less than 100 for computational efficiency")
    if len(group["ns_coefficients"]) != 3:
        raise ValueError("Coefficients must be a tuple of exactly 3 values")
    for p in group["params"]:
        if p.grad is not None and p.grad.ndim != 2:
            raise ValueError("Param gradient must be a 2D matrix")


def orthogonalized(
    matrix: Tensor, coefficients: tuple[float, float, float], steps: int, eps: float
) -> Tensor:
    """A matrix with the same singular vectors and all singular values near 1, in bfloat16.

    Five steps with Muon's coefficients bring those that are not below a hundredth of the matrix's
    norm to between 0.5 and 1.5.
    """
    a, b, c = coefficients
    x: Any = matrix.to(dtypes.bfloat16)
    tall = x.shape[0] > x.shape[1]
    x = x.T if tall else x
    x = x / x.norm().clamp(min=eps)  # no singular value is above 1
    for _ in range(steps):
        gram = x @ x.T
        x = addmm(x, addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
    return x.T if tall else x  # type: ignore[no-any-return]


def _adjustment(kind: str | None, shape: Any) -> float:
    rows, columns = shape
    if kind == "match_rms_adamw":
        return 0.2 * math.sqrt(max(rows, columns))
    return math.sqrt(max(1, rows / columns))
