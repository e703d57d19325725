"""RMSprop: gradients divided by a running root mean square."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class RMSprop(ElementwiseOptimizer):
    r"""Gradients divided by the root of a running mean of their squares.

    .. math::
        v &\leftarrow \alpha v + (1 - \alpha) g^2 \\
        p &\leftarrow p - \gamma \frac{g}{\sqrt{v} + \epsilon}

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        alpha: :math:`\alpha`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`: adds :math:`\lambda p` to the gradient.
        momentum: if not 0, the quotient feeds a momentum buffer, which is then applied.
        centered: subtract the square of the gradient's running mean from v under the root.
        maximize: go up instead of down.
        capturable, foreach, differentiable: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Hinton, "Neural Networks for Machine Learning", lecture 6, 2012; centered: Graves,
    "Generating Sequences With Recurrent Neural Networks", 2013.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0,
        momentum: float = 0,
        centered: bool = False,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        learning_rate(lr)
        at_least_zero("epsilon value", eps)
        at_least_zero("momentum value", momentum)
        at_least_zero("weight_decay value", weight_decay)
        at_least_zero("alpha value", alpha)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "alpha": alpha,
            "eps": eps,
            "centered": centered,
            "weight_decay": weight_decay,
            "capturable": capturable,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
        }
        super().__init__(params, defaults)

    def _variant(self, group: Group) -> tuple[Any, ...]:
        return (group["momentum"] > 0, group["centered"])

    def _buffers(self, group: Group) -> dict[str, float]:
        names = {"square_avg": 0.0}
        if group["momentum"] > 0:
            names["momentum_buffer"] = 0.0
        if group["centered"]:
            names["grad_avg"] = 0.0
        return names

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        alpha = number(group["alpha"])
        numbers = (alpha, 1 - alpha, number(group["eps"]), number(group["lr"]))
        return (counters[0] + 1,), 1.0, (*numbers, number(group["momentum"]))

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        momentum, centered = variant
        name = "rmsprop" + "_centered" * centered + "_momentum" * momentum
        return name, "rmsprop_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return group["alpha"], group["eps"], group["momentum"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        alpha, weight, eps, lr, momentum = constants
        has_momentum, centered = variant
        grad, out, (root,) = block.grad, block.out, block.scratch
        square_avg, *others = block.state
        multiply, add = xp.multiply, xp.add
        multiply(square_avg, alpha, square_avg)
        multiply(grad, weight, root)
        multiply(root, grad, root)
        add(square_avg, root, square_avg)
        if centered:
            grad_avg = others[-1]
            xp.subtract(grad, grad_avg, root)
            multiply(root, weight, root)
            add(grad_avg, root, grad_avg)
            multiply(grad_avg, grad_avg, root)
            xp.subtract(square_avg, root, root)
            xp.sqrt(root, root)
        else:
            xp.sqrt(square_avg, root)
        add(root, eps, root)
        xp.divide(grad, root, out)
        if has_momentum:
            buffer = others[0]
            multiply(buffer, momentum, buffer)
            add(buffer, out, buffer)
            multiply(buffer, lr, out)
        else:
            multiply(out, lr, out)
