"""Lion: steps of one size from the signs of a momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.checks import betas as check_betas
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class Lion(ElementwiseOptimizer):
    r"""Evolved sign momentum: one state to a parameter, and steps of the same size everywhere.

    .. math::
        u &\leftarrow \operatorname{sign}(\beta_1 m + (1 - \beta_1) g) \\
        p &\leftarrow (1 - \gamma \lambda) p - \gamma u \\
        m &\leftarrow \beta_2 m + (1 - \beta_2) g

    Since every element moves by :math:`\gamma`, learning rates are 3 to 10 times smaller than
    Adam's, and weight decays as many times larger. PyTorch has no such optimizer; the arguments
    are those of the authors' own.

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        betas: :math:`(\beta_1, \beta_2)`.
        weight_decay: :math:`\lambda`, which is not part of the gradient.
        maximize: go up instead of down.
        foreach, differentiable, capturable: as in other optimizers; `step` refuses
            ``differentiable=True``.

    Source: Chen et al., "Symbolic Discovery of Optimization Algorithms", 2023, algorithm 2.

    >>> import gradlite
    >>> weight = gradlite.tensor([1.0, -2.0, 3.0], requires_grad=True)
    >>> optimizer = gradlite.optim.Lion([weight], lr=0.25)
    >>> (weight * gradlite.tensor([0.1, 10.0, 0.0])).sum().backward()
    >>> optimizer.step()
    >>> weight
    tensor([ 0.7500, -2.2500,  3.0000], requires_grad=True)
    """

    scratch = 2

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-4,
        betas: tuple[float, float] = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        learning_rate(lr)
        check_betas(betas)
        at_least_zero("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "betas": betas,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "decoupled_weight_decay": True,
        }
        super().__init__(params, defaults)

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"exp_avg": 0.0}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        beta1, beta2 = map(number, group["betas"])
        numbers = (beta1, 1 - beta1, beta2, 1 - beta2, number(group["lr"]), 0.0)
        return (counters[0] + 1,), 1.0, numbers

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "lion", "lion_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return tuple(group["betas"])

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        beta1, weight1, beta2, weight2, lr, zero = constants
        grad, out, (ahead, part) = block.grad, block.out, block.scratch
        (exp_avg,) = block.state
        xp.multiply(exp_avg, beta1, ahead)
        xp.multiply(grad, weight1, part)
        xp.add(ahead, part, ahead)
        xp.multiply(exp_avg, beta2, exp_avg)
        xp.multiply(grad, weight2, part)
        xp.add(exp_avg, part, exp_avg)
        xp.sign(ahead, out)
        xp.multiply(out, lr, out)
        out[...] = xp.where(xp.equal(out, out), out, zero)  # as PyTorch's: no number has no sign
