"""Adadelta: steps in the units of the parameters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class Adadelta(ElementwiseOptimizer):
    r"""Gradients scaled by the ratio of running root mean squares of steps and gradients.

    .. math::
        v &\leftarrow \rho v + (1 - \rho) g^2 \\
        \Delta &= \sqrt{\frac{u + \epsilon}{v + \epsilon}} \, g \\
        u &\leftarrow \rho u + (1 - \rho) \Delta^2 \\
        p &\leftarrow p - \gamma \Delta

    Args:
        params: parameters or parameter groups.
        lr: :math:`\gamma`.
        rho: :math:`\rho`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`: adds :math:`\lambda p` to the gradient.
        maximize: go up instead of down.
        foreach, capturable, differentiable: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Zeiler, "ADADELTA: An Adaptive Learning Rate Method", 2012.
    """

    scratch = 2

    def __init__(
        self,
        params: Params,
        lr: Any = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0,
        foreach: bool | None = None,
        *,
        capturable: bool = False,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        learning_rate(lr)
        if not 0.0 <= rho <= 1.0:
            raise ValueError(f"Invalid rho value: {rho}")
        at_least_zero("epsilon value", eps)
        at_least_zero("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "rho": rho,
            "eps": eps,
            "weight_decay": weight_decay,
            "maximize": maximize,
            "capturable": capturable,
            "foreach": foreach,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"square_avg": 0.0, "acc_delta": 0.0}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        rho = number(group["rho"])
        return (counters[0] + 1,), 1.0, (rho, 1 - rho, number(group["eps"]), number(group["lr"]))

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "adadelta", "adadelta_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return group["rho"], group["eps"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        rho, weight, eps, lr = constants
        grad, out, (root, delta) = block.grad, block.out, block.scratch
        square_avg, acc_delta = block.state
        multiply, add, sqrt = xp.multiply, xp.add, xp.sqrt
        multiply(square_avg, rho, square_avg)
        multiply(grad, weight, root)
        multiply(root, grad, root)
        add(square_avg, root, square_avg)
        add(square_avg, eps, root)
        sqrt(root, root)
        add(acc_delta, eps, delta)
        sqrt(delta, delta)
        xp.divide(delta, root, delta)
        multiply(delta, grad, out)
        multiply(acc_delta, rho, acc_delta)
        multiply(out, weight, root)
        multiply(root, out, root)
        add(acc_delta, root, acc_delta)
        multiply(out, lr, out)
