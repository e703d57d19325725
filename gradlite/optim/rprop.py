"""Rprop: steps from the signs of the gradients alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import learning_rate
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class Rprop(ElementwiseOptimizer):
    r"""Resilient backpropagation: step sizes that grow while the gradient keeps its sign.

    Where the gradient has the sign of the step before, the step size grows by
    :math:`\eta_+`; where the sign has changed, it shrinks by :math:`\eta_-` and the element
    rests for a step. Then :math:`p \leftarrow p - \operatorname{sign}(g) \cdot
    \text{step\_size}`.

    Args:
        params: parameters or parameter groups.
        lr: the first step size.
        etas: :math:`(\eta_-, \eta_+)`.
        step_sizes: the smallest and the largest step size.
        maximize: go up instead of down.
        capturable, foreach, differentiable: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Riedmiller and Braun, "A Direct Adaptive Method for Faster Backpropagation
    Learning: The RPROP Algorithm", 1993.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        etas: tuple[float, float] = (0.5, 1.2),
        step_sizes: tuple[float, float] = (1e-6, 50),
        *,
        capturable: bool = False,
        foreach: bool | None = None,
        maximize: bool = False,
        differentiable: bool = False,
    ) -> None:
        learning_rate(lr)
        if not 0.0 < etas[0] < 1.0 < etas[1]:
            raise ValueError(f"Invalid eta values: {etas[0]}, {etas[1]}")
        defaults = {
            "lr": lr,
            "etas": etas,
            "step_sizes": step_sizes,
            "foreach": foreach,
            "maximize": maximize,
            "differentiable": differentiable,
            "capturable": capturable,
        }
        super().__init__(params, defaults)

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"prev": 0.0, "step_size": number(group["lr"])}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        numbers = map(number, (*group["etas"], *group["step_sizes"]))
        return (counters[0] + 1,), 1.0, (*numbers, 0.0, 1.0)

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "rprop", "rprop_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return *group["etas"], *group["step_sizes"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        shrink, grow, smallest, largest, zero, one = constants
        grad, out, (sign,) = block.grad, block.out, block.scratch
        prev, step_size = block.state
        xp.multiply(grad, prev, sign)
        turned = xp.less(sign, zero)
        factor = xp.where(turned, shrink, xp.where(xp.greater(sign, zero), grow, one))
        xp.multiply(step_size, factor, step_size)
        xp.maximum(step_size, smallest, out=step_size)
        xp.minimum(step_size, largest, out=step_size)
        prev[...] = xp.where(turned, zero, grad)
        # Comparisons, because an element whose gradient is not a number has no sign: it rests.
        xp.negative(step_size, sign)
        out[...] = xp.where(
            xp.greater(prev, zero), step_size, xp.where(xp.less(prev, zero), sign, zero)
        )
