"""Adagrad: gradients divided by the root of the sum of their squares."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class Adagrad(ElementwiseOptimizer):
    r"""Gradients divided by the root of the sum of all their squares.

    .. math::
        s &\leftarrow s + g^2 \\
        p &\leftarrow p - \frac{\gamma}{1 + (t - 1) \eta} \frac{g}{\sqrt{s} + \epsilon}

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        lr_decay: :math:`\eta`.
        weight_decay: :math:`\lambda`: adds :math:`\lambda p` to the gradient.
        initial_accumulator_value: s at the beginning.
        eps: :math:`\epsilon`.
        maximize: go up instead of down.
        foreach, differentiable, fused: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Duchi et al., "Adaptive Subgradient Methods for Online Learning and Stochastic
    Optimization", 2011.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        lr_decay: float = 0,
        weight_decay: float = 0,
        initial_accumulator_value: float = 0,
        eps: float = 1e-10,
        foreach: bool | None = None,
        *,
        maximize: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        learning_rate(lr)
        at_least_zero("lr_decay value", lr_decay)
        at_least_zero("weight_decay value", weight_decay)
        at_least_zero("initial_accumulator_value value", initial_accumulator_value)
        at_least_zero("epsilon value", eps)
        defaults = {
            "lr": lr,
            "lr_decay": lr_decay,
            "eps": eps,
            "weight_decay": weight_decay,
            "initial_accumulator_value": initial_accumulator_value,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "fused": fused,
        }
        super().__init__(params, defaults)
        for group in self.param_groups:
            self._join(group, group["params"])

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"sum": self.defaults["initial_accumulator_value"]}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        lr = number(group["lr"]) / (1 + counters[0] * number(group["lr_decay"]))
        return (counters[0] + 1,), 1.0, (number(group["eps"]), lr)

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "adagrad", "adagrad_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return group["lr_decay"], group["eps"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        eps, lr = constants
        grad, out, (root,), (total,) = block.grad, block.out, block.scratch, block.state
        xp.multiply(grad, grad, root)
        xp.add(total, root, total)
        xp.sqrt(total, root)
        xp.add(root, eps, root)
        xp.divide(grad, root, out)
        xp.multiply(out, lr, out)
