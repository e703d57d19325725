"""One table of optimizers and their options, and pairs of the same optimizer in both libraries."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
import gradlite.optim

torch = pytest.importorskip("torch")

BOTH = (False, True)
DECAY = (0, 0.1)
SHAPES = ((3, 4), (4,), (), (2, 3, 2), (1,))


def product(**options: Any) -> list[dict[str, Any]]:
    return [dict(zip(options, values)) for values in itertools.product(*options.values())]


class Lion(torch.optim.Optimizer):
    """The paper's algorithm 2 on PyTorch's tensors, as PyTorch has no such optimizer."""

    def __init__(
        self,
        params: Any,
        lr: Any = 1e-4,
        betas: Any = (0.9, 0.99),
        weight_decay: float = 0.0,
        *,
        maximize: bool = False,
        foreach: bool | None = None,
        capturable: bool = False,
        differentiable: bool = False,
    ) -> None:
        options = {"lr": lr, "betas": betas, "weight_decay": weight_decay, "maximize": maximize}
        accepted = {"foreach": foreach, "capturable": capturable, "differentiable": differentiable}
        super().__init__(params, {**options, **accepted, "decoupled_weight_decay": True})

    @torch.no_grad()
    def step(self) -> None:
        for group in self.param_groups:
            (beta1, beta2), lr = group["betas"], group["lr"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                grad = -p.grad if group["maximize"] else p.grad
                state = self.state[p]
                if not state:
                    state.update(step=torch.tensor(0.0), exp_avg=torch.zeros_like(p))
                state["step"] += 1
                m = state["exp_avg"]
                update = (beta1 * m + (1 - beta1) * grad).sign()
                p.mul_(1 - lr * group["weight_decay"]).sub_(update, alpha=lr)
                m.copy_(beta2 * m + (1 - beta2) * grad)


TABLE: dict[str, list[dict[str, Any]]] = {
    "SGD": [
        options
        for options in product(
            momentum=(0, 0.9),
            dampening=(0, 0.3),
            weight_decay=DECAY,
            nesterov=BOTH,
            maximize=BOTH,
        )
        if not options["nesterov"] or (options["momentum"] and not options["dampening"])
    ],
    "Adam": product(
        weight_decay=DECAY,
        amsgrad=BOTH,
        maximize=BOTH,
        decoupled_weight_decay=BOTH,
        betas=((0.9, 0.999), (0.0, 0.5)),
        eps=(1e-8, 1e-2),
    ),
    "AdamW": product(weight_decay=DECAY, amsgrad=BOTH, maximize=BOTH),
    "RMSprop": product(
        weight_decay=DECAY, momentum=(0, 0.9), centered=BOTH, maximize=BOTH, alpha=(0.99, 0.8)
    ),
    "Adagrad": product(
        weight_decay=DECAY, lr_decay=(0, 0.1), initial_accumulator_value=(0, 0.2), maximize=BOTH
    ),
    "Adadelta": product(weight_decay=DECAY, rho=(0.9, 0.5), maximize=BOTH, lr=(1.0, 0.1)),
    "Adamax": product(weight_decay=DECAY, maximize=BOTH, betas=((0.9, 0.999), (0.5, 0.7))),
    "Lion": product(weight_decay=DECAY, maximize=BOTH, betas=((0.9, 0.99), (0.5, 0.7))),
    "NAdam": product(
        weight_decay=DECAY,
        maximize=BOTH,
        decoupled_weight_decay=BOTH,
        momentum_decay=(4e-3, 0.1),
    ),
    "RAdam": product(
        weight_decay=DECAY,
        maximize=BOTH,
        decoupled_weight_decay=BOTH,
        betas=((0.9, 0.999), (0.9, 0.8)),
    ),
    "Rprop": product(
        maximize=BOTH, etas=((0.5, 1.2), (0.3, 1.5)), step_sizes=((1e-6, 50), (0.005, 0.02))
    ),
    "ASGD": product(weight_decay=DECAY, maximize=BOTH, t0=(1e6, 10), lambd=(1e-4, 0.1)),
}
# For tests of what does not depend on the rule: one set of options that uses all of the state.
FULL: dict[str, dict[str, Any]] = {
    "SGD": {"momentum": 0.9, "weight_decay": 0.1},
    "Adam": {"amsgrad": True, "weight_decay": 0.1},
    "AdamW": {},
    "RMSprop": {"momentum": 0.9, "centered": True},
    "Adagrad": {"lr_decay": 0.1},
    "Adadelta": {},
    "Adamax": {},
    "Lion": {"weight_decay": 0.1},
    "NAdam": {},
    "RAdam": {"betas": (0.9, 0.8)},
    "Rprop": {},
    "ASGD": {"t0": 3},
}
NAMES = list(TABLE)


def made(library: Any, name: str) -> Any:
    """The class of an optimizer; for PyTorch, which has no Lion, the one from above."""
    return Lion if (library, name) == (torch, "Lion") else getattr(library.optim, name)


class Pair:
    """The same parameters and the same optimizer in PyTorch and in gradlite."""

    def __init__(
        self,
        name: str,
        options: dict[str, Any],
        dtype: Any = np.float64,
        shapes: Any = SHAPES,
        seed: int = 0,
        half: str = "",
    ) -> None:
        self.random = np.random.default_rng(seed)
        self.dtype, self.half = dtype, half
        values = [np.asarray(self.random.standard_normal(s), dtype) for s in shapes]
        self.expected = [self.of(torch, v).requires_grad_() for v in values]
        self.actual = [self.of(gradlite, v.copy()).requires_grad_() for v in values]
        self.reference = made(torch, name)(self.expected, **options)
        self.optimizer = made(gradlite, name)(self.actual, **options)

    def of(self, library: Any, array: np.ndarray) -> Any:
        """A tensor of the pair's dtype."""
        tensor = library.tensor(array)
        return tensor.to(getattr(library, self.half)) if self.half else tensor

    def set_grads(self, without: tuple[int, ...] = ()) -> None:
        """New random gradients for all parameters; none for those in ``without``."""
        for i, (p, q) in enumerate(zip(self.expected, self.actual)):
            if i in without:
                p.grad = q.grad = None
                continue
            grad = np.asarray(self.random.standard_normal(p.shape), self.dtype)
            p.grad, q.grad = self.of(torch, grad), self.of(gradlite, grad)

    def steps(self, n: int, without: tuple[int, ...] = ()) -> None:
        """``n`` steps, each with new gradients."""
        for _ in range(n):
            self.set_grads(without)
            self.reference.step()
            self.optimizer.step()

    def compare(self, rtol: float = 1e-12, atol: float = 1e-15, state: bool = True) -> None:
        """Fail unless parameters and state agree."""
        for i, (p, q) in enumerate(zip(self.expected, self.actual)):
            mine, yours = (t.detach().double().numpy() for t in (q, p))
            np.testing.assert_allclose(mine, yours, rtol, atol, err_msg=f"parameter {i}")
            expected = self.reference.state.get(p, {})
            actual = self.optimizer.state.get(q, {})
            assert list(actual) == list(expected)
            for key in expected if state else ():
                reference, value = expected[key].numpy(), actual[key].numpy()
                assert (value.dtype, value.shape) == (reference.dtype, reference.shape), key
                np.testing.assert_allclose(
                    value, reference, max(rtol, 1e-11), max(atol, 1e-14), err_msg=f"{key} of {i}"
                )
