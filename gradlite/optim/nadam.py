"""NAdam: Adam with Nesterov momentum."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.checks import betas as check_betas
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class NAdam(ElementwiseOptimizer):
    r"""Adam with Nesterov momentum, whose decay follows a schedule.

    .. math::
        \mu_t &= \beta_1 (1 - \tfrac12 0.96^{t \psi}) \\
        m &\leftarrow \beta_1 m + (1 - \beta_1) g, \qquad
        v \leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        p &\leftarrow p - \gamma \frac{\mu_{t+1} m / (1 - \prod_{i \le t+1} \mu_i)
            + (1 - \mu_t) g / (1 - \prod_{i \le t} \mu_i)}
            {\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`: adds :math:`\lambda p` to the gradient.
        momentum_decay: :math:`\psi`.
        decoupled_weight_decay: shrink p by :math:`1 - \gamma \lambda` instead.
        maximize: go up instead of down.
        foreach, capturable, differentiable: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Dozat, "Incorporating Nesterov Momentum into Adam", 2016.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum_decay: float = 4e-3,
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
        at_least_zero("momentum_decay value", momentum_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "weight_decay": weight_decay,
            "momentum_decay": momentum_decay,
            "decoupled_weight_decay": decoupled_weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _counters(self, group: Group) -> dict[str, float]:
        return {"step": 0.0, "mu_product": 1.0}

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"exp_avg": 0.0, "exp_avg_sq": 0.0}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        step = counters[0] + 1
        lr, decay = number(group["lr"]), number(group["momentum_decay"])
        beta1, beta2 = map(number, group["betas"])
        mu = beta1 * (1.0 - 0.5 * 0.96 ** (step * decay))
        mu_next = beta1 * (1.0 - 0.5 * 0.96 ** ((step + 1) * decay))
        # The product is kept, and so multiplied, in the counters' precision.
        product = float(round(counters[1]) * round(mu))
        correction = math.sqrt(1 - beta2**step)
        return (
            (step, product),
            1.0,
            (
                1 - beta1,
                beta2,
                1 - beta2,
                number(group["eps"]) * correction,
                lr * (1.0 - mu) / (1.0 - product) * correction,
                lr * mu_next / (1.0 - product * mu_next) * correction,
            ),
        )

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "nadam", "nadam_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return *group["betas"], group["eps"], group["momentum_decay"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        weight1, beta2, weight2, eps, grad_size, avg_size = constants
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
        multiply(grad, grad_size, out)
        multiply(exp_avg, avg_size, other)
        add(out, other, out)
        xp.sqrt(exp_avg_sq, other)
        add(other, eps, other)
        xp.divide(out, other, out)
