"""Adamax: Adam with the infinity norm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.checks import betas as check_betas
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class Adamax(ElementwiseOptimizer):
    r"""Adam with a decaying maximum in place of the second moment.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        u &\leftarrow \max(\beta_2 u, |g| + \epsilon) \\
        p &\leftarrow p - \frac{\gamma}{1 - \beta_1^t} \frac{m}{u}

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`: adds :math:`\lambda p` to the gradient.
        maximize: go up instead of down.
        foreach, differentiable, capturable: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014, section 7.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
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
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_inf": 0.0}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        step = counters[0] + 1
        beta1, beta2 = map(number, group["betas"])
        step_size = number(group["lr"]) / (1 - beta1**step)
        return (step,), 1.0, (1 - beta1, beta2, number(group["eps"]), step_size)

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "adamax", "adamax_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return *group["betas"], group["eps"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        weight1, beta2, eps, step_size = constants
        grad, out, (change,) = block.grad, block.out, block.scratch
        exp_avg, exp_inf = block.state
        xp.subtract(grad, exp_avg, change)
        xp.multiply(change, weight1, change)
        xp.add(exp_avg, change, exp_avg)
        xp.multiply(exp_inf, beta2, exp_inf)
        xp.absolute(grad, out)
        xp.add(out, eps, out)
        xp.maximum(exp_inf, out, out=exp_inf)
        xp.divide(exp_avg, exp_inf, out)
        xp.multiply(out, step_size, out)
