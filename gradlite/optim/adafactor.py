"""Adafactor: squared gradients kept as the means of rows and columns."""

from __future__ import annotations

import math
from typing import Any

from gradlite import dtypes
from gradlite.grad_mode import enable_grad, no_grad
from gradlite.optim.checks import one_number
from gradlite.optim.elementwise import number
from gradlite.optim.optimizer import Closure, Optimizer, Params
from gradlite.tensor import Tensor, wrap


class Adafactor(Optimizer):
    r"""Adam's second moment alone, of matrices as the product of a row and a column.

    .. math::
        \beta &= 1 - t^{\tau}, \qquad
            \alpha = \min(\gamma, t^{-1/2}) \cdot \max(\epsilon_2, \operatorname{RMS}(p)) \\
        R &\leftarrow \beta R + (1 - \beta) \operatorname{mean}_{-1}(g^2), \qquad
            C \leftarrow \beta C + (1 - \beta) \operatorname{mean}_{-2}(g^2) \\
        V &= R\, C / \max(\operatorname{mean}_{-2}(R), \epsilon_1), \qquad
            u = g / \sqrt{\max(V, \epsilon_1^2)} \\
        p &\leftarrow (1 - \gamma \lambda) p - \alpha\, u / \max(1, \operatorname{RMS}(u) / d)

    Parameters of one dimension keep all of :math:`V`, an average of :math:`g^2`.

    Args:
        params: parameters or parameter groups.
        lr: the largest relative step :math:`\gamma`, which also scales the weight decay.
        beta2_decay: :math:`\tau`, at most 0.
        eps: :math:`(\epsilon_1, \epsilon_2)`; None in the first place is the dtype's epsilon.
        d: updates are made smaller whose root mean square is above it.
        weight_decay: :math:`\lambda`, which is not part of the gradient.
        foreach: accepted for PyTorch's sake.
        maximize: go up instead of down.

    Raises:
        ValueError: an option is out of range.

    Source: Shazeer and Stern, "Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
    2018, with PyTorch's use of the learning rate and of :math:`\epsilon_1`.

    >>> import gradlite
    >>> weight = gradlite.ones(2, 3, requires_grad=True)
    >>> optimizer = gradlite.optim.Adafactor([weight], lr=0.5)
    >>> (weight * gradlite.tensor([1.0, 10.0, 100.0])).sum().backward()
    >>> optimizer.step()
    >>> weight
    tensor([[0.5000, 0.5000, 0.5000],
            [0.5000, 0.5000, 0.5000]], requires_grad=True)
    >>> {name: tuple(value.shape) for name, value in optimizer.state[weight].items()}
    {'step': (), 'row_var': (2, 1), 'col_var': (1, 3)}
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-2,
        beta2_decay: float = -0.8,
        eps: tuple[float | None, float] = (None, 1e-3),
        d: float = 1.0,
        weight_decay: float = 0.0,
        *,
        foreach: bool | None = None,
        maximize: bool = False,
    ) -> None:
        one_number(lr)
        if not 0.0 <= lr:
            raise ValueError(f"Learning rate should be >= 0 but is: {lr}")
        if not 0.0 >= beta2_decay:
            raise ValueError(f"beta2_decay should be <= 0 but is: {beta2_decay}")
        if eps[0] is not None and not 0.0 <= eps[0]:
            raise ValueError(f"epsilon1 should be >= 0 but is: {eps[0]}")
        if not 0.0 <= eps[1]:
            raise ValueError(f"epsilon2 should be >= 0 but is: {eps[1]}")
        if not 1.0 <= d:
            raise ValueError(f"Clipping threshold d should be >= 1 but is: {d}")
        if not 0.0 <= weight_decay:
            raise ValueError(f"weight_decay should be >= 0 but is: {weight_decay}")
        defaults = {
            "lr": lr,
            "beta2_decay": beta2_decay,
            "eps": eps,
            "d": d,
            "weight_decay": weight_decay,
            "foreach": foreach,
            "maximize": maximize,
        }
        super().__init__(params, defaults)

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)
        for group in self.param_groups:
            group.setdefault("foreach", None)

    def step(self, closure: Closure | None = None) -> Any:
        """Update the parameters that have a gradient; the others and their state stay as is.

        Args:
            closure: evaluates the model again and returns the loss, which step hands back.
        """
        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._update(p, -p.grad if group["maximize"] else p.grad, group)
        return loss

    def _update(self, p: Any, grad: Any, group: dict[str, Any]) -> None:
        state = self.state[p]
        if not state:
            state["step"] = wrap(dtypes.get_default_dtype().numpy.type(0.0).reshape(()).copy())
            self._begin(state, grad)
        state["step"] += 1
        step, lr, (eps1, eps2) = number(state["step"]), number(group["lr"]), group["eps"]
        if eps1 is None:
            eps1 = dtypes.finfo(p.dtype).eps
        size = p.norm().div_(math.sqrt(p.numel())).clamp_(min=eps2)
        size.mul_(min(lr, 1 / math.sqrt(step)))
        if group["weight_decay"]:
            p.mul_(1 - lr * group["weight_decay"])
        update = _variance(state, grad, step ** group["beta2_decay"], eps1)
        update.clamp_(min=eps1 * eps1).rsqrt_().mul_(grad)
        much = update.norm().div_(math.sqrt(update.numel()) * group["d"]).clamp_(min=1.0)
        p.sub_(update.mul_(size.div_(much)))

    @staticmethod
    def _begin(state: Any, grad: Any) -> None:
        shape = tuple(grad.shape)
        if grad.ndim > 1:
            state["row_var"] = grad.new_zeros((*shape[:-1], 1))
            state["col_var"] = grad.new_zeros((*shape[:-2], 1, shape[-1]))
        else:
            state["variance"] = grad.new_zeros(shape)


def _variance(state: Any, grad: Any, weight: float, eps: float) -> Any:
    """The estimate of the gradient's square, in memory of its own."""
    if "variance" in state:
        variance: Any = state["variance"]
        variance.lerp_(grad * grad, weight)
        return variance.clone()
    rows: Any = state["row_var"]
    columns: Any = state["col_var"]
    for averages, dim in ((rows, -1), (columns, -2)):
        squares: Any = grad.norm(dim=dim, keepdim=True)
        averages.lerp_(squares.square_().div_(grad.shape[dim]), weight)
    estimate: Tensor = rows @ columns
    return estimate.div_(rows.mean(dim=-2, keepdim=True).clamp_(min=eps))
