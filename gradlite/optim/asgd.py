"""ASGD: stochastic gradient descent with an average of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class ASGD(ElementwiseOptimizer):
    r"""Stochastic gradient descent that averages the parameters on the way, in ``ax``.

    .. math::
        p &\leftarrow (1 - \lambda \eta_t) p - \eta_t g \\
        a &\leftarrow a + \mu_t (p - a), \qquad \mu_t = 1 / \max(1, t - t_0) \\
        \eta_{t+1} &= \frac{\gamma}{(1 + \lambda \gamma t)^\alpha}

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        lambd: :math:`\lambda`.
        alpha: :math:`\alpha`.
        t0: the step at which averaging begins.
        weight_decay: adds ``weight_decay * p`` to the gradient.
        foreach, differentiable, capturable: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.
        maximize: go up instead of down.

    Source: Polyak and Juditsky, "Acceleration of Stochastic Approximation by Averaging", 1992.
    """

    scratch = 0
    reads_param = True

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        lambd: float = 1e-4,
        alpha: float = 0.75,
        t0: float = 1e6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
        capturable: bool = False,
    ) -> None:
        learning_rate(lr)
        at_least_zero("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "lambd": lambd,
            "alpha": alpha,
            "t0": t0,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _counters(self, group: Group) -> dict[str, float]:
        return {"step": 0.0, "eta": number(group["lr"]), "mu": 1.0}

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"ax": 0.0}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        step, eta, mu = counters
        step += 1
        lr, lambd = number(group["lr"]), number(group["lambd"])
        next_eta = lr / (1 + lambd * lr * step) ** number(group["alpha"])
        next_mu = 1 / max(1, step - number(group["t0"]))
        return (step, next_eta, next_mu), eta, (mu,)

    def _shrink(self, group: Group, weight_decay: float, counters: tuple[float, ...]) -> float:
        return 1 - number(group["lambd"]) * counters[1]

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "asgd", "asgd_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return group["lambd"], group["alpha"], group["t0"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        (mu,) = constants
        param, out, (ax,) = block.param, block.out, block.state
        if block.grad is not out:
            out[...] = block.grad
        xp.subtract(param, out, param)
        if mu == 1:
            ax[...] = param
        else:
            xp.subtract(param, ax, param)
            xp.multiply(param, mu, param)
            xp.add(ax, param, ax)
