"""SGD: stochastic gradient descent, with momentum."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block


class SGD(ElementwiseOptimizer):
    r"""Stochastic gradient descent, optionally with (Nesterov) momentum.

    .. math::
        g &\leftarrow g + \lambda p \\
        b &\leftarrow \mu b + (1 - \tau) g \qquad (b \leftarrow g \text{ in the first step}) \\
        p &\leftarrow p - \gamma b \qquad
            (p \leftarrow p - \gamma (g + \mu b) \text{ with nesterov})

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        momentum: :math:`\mu`; 0 keeps no state.
        dampening: :math:`\tau`.
        weight_decay: :math:`\lambda`.
        nesterov: look ahead along the momentum.
        maximize: go up instead of down.
        foreach, differentiable, fused: accepted for PyTorch's sake; `step` refuses
            ``differentiable=True``.

    Source: Sutskever et al., "On the importance of initialization and momentum in deep
    learning", 2013.

    >>> import gradlite
    >>> weight = gradlite.tensor([1.0], requires_grad=True)
    >>> optimizer = gradlite.optim.SGD([weight], lr=0.25, momentum=0.5)
    >>> for _ in range(2):
    ...     optimizer.zero_grad()
    ...     (weight * 2).sum().backward()
    ...     optimizer.step()
    >>> weight
    tensor([-0.2500], requires_grad=True)
    """

    restartable = True

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        momentum: float = 0,
        dampening: float = 0,
        weight_decay: Any = 0,
        nesterov: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        learning_rate(lr)
        at_least_zero("momentum value", momentum)
        at_least_zero("weight_decay value", weight_decay)
        defaults = {
            "lr": lr,
            "momentum": momentum,
            "dampening": dampening,
            "weight_decay": weight_decay,
            "nesterov": nesterov,
            "maximize": maximize,
            "foreach": foreach,
            "differentiable": differentiable,
            "fused": fused,
        }
        if nesterov and (momentum <= 0 or dampening != 0):
            raise ValueError("Nesterov momentum requires a momentum and zero dampening")
        super().__init__(params, defaults)

    def _variant(self, group: Group) -> tuple[Any, ...]:
        return (group["momentum"] != 0, group["nesterov"])

    def _counters(self, group: Group) -> dict[str, float]:
        # Whether there has been a step: the first one takes the gradient undampened.
        return {"_begun": 0.0} if group["momentum"] != 0 else {}

    def _buffers(self, group: Group) -> dict[str, float]:
        return {"momentum_buffer": 0.0} if group["momentum"] != 0 else {}

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        lr, momentum = number(group["lr"]), group["momentum"]
        if momentum == 0:
            return (), lr, ()
        scale = 1 - number(group["dampening"]) if counters[0] else 1.0
        return (1.0,), scale, (lr, number(momentum))

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        momentum, nesterov = variant
        if not momentum:
            return "sgd", "sgd_advance"
        return "sgd_nesterov" if nesterov else "sgd_momentum", "sgd_momentum_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return group["momentum"], group["dampening"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        has_momentum, nesterov = variant
        if not has_momentum:
            return
        grad, out, (buffer,) = block.grad, block.out, block.state
        lr, momentum = constants
        multiply, add = xp.multiply, xp.add
        multiply(buffer, momentum, buffer)
        add(buffer, grad, buffer)
        if nesterov:
            (ahead,) = block.scratch
            multiply(buffer, momentum, ahead)
            add(grad, ahead, out)
            multiply(out, lr, out)
        else:
            multiply(buffer, lr, out)
