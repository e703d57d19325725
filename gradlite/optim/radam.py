"""RAdam: Adam with a rectified variance."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.checks import betas as check_betas
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class RAdam(ElementwiseOptimizer):
    r"""Adam that divides by the second moment only once its variance is tractable.

    .. math::
        \rho_\infty &= \tfrac{2}{1 - \beta_2} - 1, \qquad
        \rho_t = \rho_\infty - \frac{2 t \beta_2^t}{1 - \beta_2^t} \\
        r_t &= \sqrt{\frac{(\rho_t - 4)(\rho_t - 2) \rho_\infty}
            {(\rho_\infty - 4)(\rho_\infty - 2) \rho_t}} \\
        p &\leftarrow p - \gamma \frac{m}{1 - \beta_1^t} \cdot \begin{cases}
            r_t \sqrt{1 - \beta_2^t} / (\sqrt{v} + \epsilon) & \rho_t > 5 \\
            1 & \text{else} \end{cases}

    with m and v as in `Adam`.

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`: adds :math:`\lambda p` to the gradient.
        decoupled_weight_decay: shrink p by :math:`1 - \gamma \lambda` instead.
        maximize: go up instead of down.
        foreach, capturable, differentiable: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Liu et al., "On the Variance of the Adaptive Learning Rate and Beyond", 2019.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        decoupled_weight_decay: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        learning_rate(lr)
        at_least_zero("epsilon value", eps)
        check_betas(betas)
        at_least_zero("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "decoupled_weight_decay": decoupled_weight_decay,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        step = counters[0] + 1
        beta1, beta2 = map(number, group["betas"])
        correction2 = 1 - beta2**step
        step_size = number(group["lr"]) / (1 - beta1**step)
        longest = 2 / (1 - beta2) - 1
        length = longest - 2 * step * beta2**step / correction2
        rectified = length > 5.0
        if rectified:
            step_size *= math.sqrt(
                (length - 4) * (length - 2) * longest / ((longest - 4) * (longest - 2) * length)
            ) * math.sqrt(correction2)
        numbers = (1 - beta1, beta2, 1 - beta2, number(group["eps"]), step_size)
        return (step,), 1.0, (*numbers, float(rectified))

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "radam", "radam_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return *group["betas"], group["eps"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        weight1, beta2, weight2, eps, step_size, rectified = constants
        grad, out, (other,) = block.grad, block.out, block.scratch
        exp_avg, exp_avg_sq = block.state
        multiply, add = xp.multiply, xp.add
        xp.subtract(grad, exp_avg, other)
        multiply(other, weight1, other)
        add(exp_avg, other, exp_avg)
        multiply(exp_avg_sq, beta2, exp_avg_sq)
        multiply(grad, weight2, other)
        multiply(other, grad, other)
        add(exp_avg_sq, other, exp_avg_sq)
        multiply(exp_avg, step_size, out)
        if rectified:
            xp.sqrt(exp_avg_sq, other)
            add(other, eps, other)
            xp.divide(out, other, out)
