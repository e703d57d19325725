"""The adaptive softmax: log-probabilities, losses, gradients, predictions and what it refuses."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import same


def adaptive(library: Any, **options: Any) -> Any:
    return fill(library, library.nn.AdaptiveLogSoftmaxWithLoss(16, 12, [2, 5, 9], 2.0, **options))


@pytest.mark.parametrize("target", [[0, 1], [0, 3, 6, 11, 1, 10], [4], [2, 2, 2]], ids=str)
@pytest.mark.parametrize("head_bias", [False, True])
def test_loss_and_gradients(target: list[int], head_bias: bool) -> None:
    def program(library: Any) -> Any:
        layer = adaptive(library, head_bias=head_bias)
        x = tensor(library, 1, len(target), 16, requires_grad=True)
        result = layer(x, library.tensor(target))
        result.loss.backward()
        grads = {name: p.grad for name, p in layer.named_parameters()}
        return result.output.detach(), result.loss.detach(), x.grad, grads, repr(layer)

    same(program, rtol=1e-9, atol=1e-12)


def test_one_sample() -> None:
    def program(library: Any) -> Any:
        result = adaptive(library)(tensor(library, 1, 16), library.tensor(7))
        return result.output.detach(), result.loss.detach()

    same(program, rtol=1e-9)


def test_all_classes_and_predictions() -> None:
    def program(library: Any) -> Any:
        layer, x = adaptive(library), tensor(library, 1, 40, 16) * 3
        logp, best = layer.log_prob(x), layer.predict(x)
        frequent = layer.predict(x[(best < 2)])
        return logp.detach(), best, frequent

    same(program, rtol=1e-9)


WRONG: dict[str, Any] = {
    "no cutoffs": lambda L, A: A(16, 10, []),
    "decreasing cutoffs": lambda L, A: A(16, 10, [5, 2]),
    "equal cutoffs": lambda L, A: A(16, 10, [5, 5]),
    "a cutoff of 0": lambda L, A: A(16, 10, [0, 5]),
    "a cutoff too high": lambda L, A: A(16, 10, [5, 10]),
    "batches": lambda L, A: A(16, 10, [5])(L.ones(2, 16), L.tensor([1, 2, 3])),
    "a target of two dimensions": lambda L, A: A(16, 10, [5])(L.ones(2, 16), L.tensor([[1, 2]])),
    "an input of three": lambda L, A: A(16, 10, [5])(L.ones(2, 16, 1), L.tensor([1, 2])),
    "one target for two samples": lambda L, A: A(16, 10, [5])(L.ones(2, 16), L.tensor(1)),
    "a target too high": lambda L, A: A(16, 10, [5])(L.ones(2, 16), L.tensor([1, 10])),
    "a negative target": lambda L, A: A(16, 10, [5])(L.ones(2, 16), L.tensor([1, -1])),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what: str) -> None:
    same(
        lambda library: WRONG[what](library, library.nn.AdaptiveLogSoftmaxWithLoss),
        raises=(ValueError, RuntimeError),
        message="exact",
    )
