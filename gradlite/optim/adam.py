"""Adam and AdamW."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gradlite.optim.checks import at_least_zero, learning_rate
from gradlite.optim.checks import betas as check_betas
from gradlite.optim.elementwise import Advance, ElementwiseOptimizer, Group, number
from gradlite.optim.optimizer import Params
from gradlite.optim.plan import Block
from gradlite.tensor import Tensor


class Adam(ElementwiseOptimizer):
    r"""Adaptive moment estimation.

    .. math::
        m &\leftarrow \beta_1 m + (1 - \beta_1) g \\
        v &\leftarrow \beta_2 v + (1 - \beta_2) g^2 \\
        p &\leftarrow p - \gamma \frac{m / (1 - \beta_1^t)}
            {\sqrt{v / (1 - \beta_2^t)} + \epsilon}

    Args:
        params: parameters or parameter groups.
        lr: learning rate :math:`\gamma`.
        betas: :math:`(\beta_1, \beta_2)`.
        eps: :math:`\epsilon`.
        weight_decay: :math:`\lambda`: adds :math:`\lambda p` to the gradient.
        amsgrad: divide by the largest v so far.
        maximize: go up instead of down.
        decoupled_weight_decay: shrink p by :math:`1 - \gamma \lambda` instead (AdamW).
        foreach, capturable, differentiable, fused: accepted for PyTorch's sake; `step`
            refuses ``differentiable=True``.

    Source: Kingma and Ba, "Adam: A Method for Stochastic Optimization", 2014; amsgrad: Reddi
    et al., "On the Convergence of Adam and Beyond", 2018.

    >>> import gradlite
    >>> weight = gradlite.tensor([1.0, -2.0], requires_grad=True)
    >>> optimizer = gradlite.optim.Adam([weight], lr=0.5)
    >>> (weight ** 2).sum().backward()
    >>> optimizer.step()
    >>> weight
    tensor([ 0.5000, -1.5000], requires_grad=True)
    """

    scratch = 0
    rescales = True

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0,
        amsgrad: bool = False,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
        decoupled_weight_decay: bool = False,
    ) -> None:
        if isinstance(lr, Tensor) and foreach and not capturable:
            raise ValueError(
                "lr as a Tensor is not supported for capturable=False and foreach=True"
            )
        learning_rate(lr)
        at_least_zero("epsilon value", eps)
        check_betas(betas)
        at_least_zero("weight_decay value", weight_decay)
        if not (
            all(isinstance(beta, float) for beta in betas)
            or all(isinstance(beta, Tensor) for beta in betas)
        ):
            raise ValueError("betas must be either both floats or both Tensors")
        for i, beta in enumerate(betas):
            if isinstance(beta, Tensor):
                if foreach and not capturable:
                    raise ValueError(
                        f"betas[{i}] as a Tensor is not supported for capturable=False and "
                        "foreach=True"
                    )
                if beta.numel() != 1:
                    raise ValueError(f"Tensor betas[{i}] must be 1-element")
        defaults = {
            "lr": lr,
            "betas": tuple(betas),
            "eps": eps,
            "weight_decay": weight_decay,
            "amsgrad": amsgrad,
            "maximize": maximize,
            "foreach": foreach,
            "capturable": capturable,
            "differentiable": differentiable,
            "fused": fused,
            "decoupled_weight_decay": decoupled_weight_decay,
        }
        super().__init__(params, defaults)

    def _variant(self, group: Group) -> tuple[Any, ...]:
        return (group["amsgrad"],)

    def _buffers(self, group: Group) -> dict[str, float]:
        names = {"exp_avg": 0.0, "exp_avg_sq": 0.0}
        return {**names, "max_exp_avg_sq": 0.0} if group["amsgrad"] else names

    def _advance(self, group: Group, counters: tuple[float, ...], round: Any) -> Advance:
        step = counters[0] + 1
        beta1, beta2 = group["betas"]
        beta1, beta2 = number(beta1), number(beta2)
        # The gradient arrives times 1 - beta1, and is scaled on before it is squared; and
        # sqrt(1 - beta2**t) moves out of the square root: three passes over memory less.
        scale = 1 - beta1
        correction = math.sqrt(1 - beta2**step)
        step_size = number(group["lr"]) / (1 - beta1**step) * correction
        eps = number(group["eps"]) * correction
        return (step,), scale, (beta1, math.sqrt(1 - beta2) / scale, beta2, eps, step_size)

    def _kernels(self, variant: Sequence[Any]) -> tuple[str, str]:
        return "adam_amsgrad" if variant[0] else "adam", "adam_advance"

    def _options(self, group: Group) -> tuple[Any, ...]:
        return *group["betas"], group["eps"]

    @staticmethod
    def _update(xp: Any, block: Block, constants: Any, variant: Any) -> None:
        beta1, ratio, beta2, eps, step_size = constants
        grad, out = block.grad, block.out
        exp_avg, exp_avg_sq = block.state[:2]
        multiply, add = xp.multiply, xp.add
        multiply(exp_avg, beta1, exp_avg)
        add(exp_avg, grad, exp_avg)
        multiply(exp_avg_sq, beta2, exp_avg_sq)
        multiply(grad, ratio, out)
        multiply(out, out, out)
        add(exp_avg_sq, out, exp_avg_sq)
        if variant[0]:
            largest = block.state[2]
            xp.maximum(largest, exp_avg_sq, out=largest)
            exp_avg_sq = largest
        xp.sqrt(exp_avg_sq, out)
        add(out, eps, out)
        # A moment without gradients ends as a denormal, which processors divide very slowly.
        xp.divide(step_size, out, out)
        multiply(out, exp_avg, out)


class AdamW(Adam):
    r"""Adam with decoupled weight decay.

    Before Adam's update, :math:`p \leftarrow p - \gamma \lambda p`: the decay enters neither of
    the moments.

    Args:
        params, lr, betas, eps, amsgrad, maximize: as in `Adam`.
        weight_decay: :math:`\lambda`.
        foreach, capturable, differentiable, fused: accepted for PyTorch's sake.

    Source: Loshchilov and Hutter, "Decoupled Weight Decay Regularization", 2017.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        betas: tuple[Any, Any] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
        fused: bool | None = None,
    ) -> None:
        super().__init__(
            params,
            lr,
            betas,
            eps,
            weight_decay,
            amsgrad,
            foreach=foreach,
            maximize=maximize,
            capturable=capturable,
            differentiable=differentiable,
            fused=fused,
            decoupled_weight_decay=True,
        )

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group["decoupled_weight_decay"] = True
