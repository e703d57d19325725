"""The CTC loss: random lengths and targets, impossible ones, derivatives through log_softmax."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import native
from gradlite.nn import functional as F
from gradlite.ops import ctc_states
from tests.oracle import same


@pytest.fixture(params=["rule", "kernels"])
def how(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """With NumPy alone and with kernels, whatever the size."""
    if request.param == "kernels" and native.launcher() is None:
        pytest.skip("kernels cannot be compiled natively here")
    monkeypatch.setattr(ctc_states, "NATIVE_FROM", 1 << 62 if request.param == "rule" else 0)
    return str(request.param)


@pytest.mark.parametrize("seed", range(6))
def test_random_targets(how: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    times, batch, classes, longest = rng.integers(1, 9), 3, 4, 4
    scores = rng.standard_normal((times, batch, classes))
    targets = rng.integers(0, classes - 1, (batch, longest))
    steps, lengths = rng.integers(1, times + 1, batch), rng.integers(0, longest + 1, batch)

    def program(T: Any) -> Any:
        x = T.tensor(scores, requires_grad=True)
        losses = T.nn.functional.ctc_loss(
            x.log_softmax(2), T.tensor(targets), T.tensor(steps), T.tensor(lengths),
            blank=classes - 1, reduction="none",
        )  # fmt: skip
        possible = losses.detach() < 1e30
        losses.masked_fill(~possible, 0.0).sum().backward()
        grad = x.grad.transpose(0, 1)[possible]
        return losses.detach(), grad

    same(program, rtol=1e-9)


@pytest.mark.parametrize("flat", [False, True], ids=["rows", "flat"])
@pytest.mark.parametrize("longest", [0, 1, 2, 5, 31, 33])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_argument(how: str, dtype: str, longest: int, flat: bool) -> None:
    rng = np.random.default_rng(longest)
    times, batch, classes, blank = longest + 20, 4, 5, 2
    scores = rng.standard_normal((times, batch, classes)).astype(dtype)
    steps, lengths = rng.integers(0, times + 1, batch), rng.integers(0, longest + 1, batch)
    counts = np.arange(longest) < lengths[:, None]
    # A blank in its target is no label of PyTorch's either; behind it anything may stand.
    targets = np.array([0, 1, 3, 4])[rng.integers(0, 4, counts.shape)]
    targets = targets[counts] if flat else np.where(counts, targets, -100)
    weight = rng.standard_normal(batch).astype(dtype)

    def program(T: Any) -> Any:
        results = []
        for tensors in (False, True):
            given = [T.tensor(n) if tensors else tuple(n.tolist()) for n in (steps, lengths)]
            for turned in (False, True):
                x = T.tensor(scores, requires_grad=True)
                lp = x.log_softmax(2)
                if turned:  # another order in memory
                    lp = lp.transpose(0, 1).contiguous().transpose(0, 1)
                for reduction in ("none", "mean", "sum"):
                    for zero_infinity in (False, True):
                        loss = T.nn.functional.ctc_loss(
                            lp, T.tensor(targets), *given, blank, reduction, zero_infinity
                        )
                        weights = T.tensor(weight) if reduction == "none" else None
                        (grad,) = T.autograd.grad(loss, lp, weights, retain_graph=True)
                        results += [loss.detach(), grad]
        return results

    rtol, atol = (2e-5, 2e-5) if dtype == "float32" else (1e-9, 1e-12)
    same(program, rtol=rtol, atol=atol)


def test_one_sequence(how: str) -> None:
    scores = np.random.default_rng(0).standard_normal((7, 4))

    def program(T: Any) -> Any:
        results = []
        for targets in ([1, 2, 2], [[1, 2, 2]]):
            for reduction in ("none", "mean", "sum"):
                lp = T.tensor(scores).log_softmax(1).requires_grad_()
                lengths = T.tensor(6), T.tensor(3)
                loss = T.nn.functional.ctc_loss(
                    lp, T.tensor(targets), *lengths, reduction=reduction
                )
                loss.backward()
                results += [loss.detach(), loss.grad_fn.name(), lp.grad]
        return results

    same(program, rtol=1e-9)


REFUSED: dict[str, Any] = {
    "half precision": lambda T, p, t: (p.half(), t, (5, 5), (2, 2), 9),
    "whole numbers": lambda T, p, t: (p.long(), t, (5,), (2, 2)),
    "no step": lambda T, p, t: (p[:0], t, (5,), (2, -3)),
    "no class": lambda T, p, t: (p[..., :0], t, (5, 5), (2, 2), 7),
    "the blank before the sizes": lambda T, p, t: (p, t, (5,), (2, 2), 9),
    "a blank below 0": lambda T, p, t: (p, t, (5, 5), (2, 2), -1),
    "four dimensions": lambda T, p, t: (p[None], t, (5, 5), (2, 2)),
    "targets of three": lambda T, p, t: (p, t[None], (5,), (2, 2)),
    "a target of none": lambda T, p, t: (p, t[0, 0], (5, 5), (2, 2)),
    "a few steps too many": lambda T, p, t: (p, t, (9, -1), (2, 2)),
    "fewer steps than none": lambda T, p, t: (p, t, T.tensor([5, -1]), T.tensor([2, 2])),
    "fewer labels than none": lambda T, p, t: (p, t[:1], (5, 5), (2, -3)),
    "rows missing": lambda T, p, t: (p, t[:1], (9, 5), (2, 3)),
    "a row too short": lambda T, p, t: (p, t, T.tensor([9, 5]), T.tensor([4, 3])),
    "labels left over": lambda T, p, t: (p, t.flatten(), (5, 5), (1, 2)),
    "of one sequence": lambda T, p, t: (p[:, 0], t.flatten(), (5,), (3,)),
    "lengths of floats": lambda T, p, t: (p, t, T.tensor([5.0, 5]), T.tensor([2, 2])),
    "lengths of truth": lambda T, p, t: (p, t, T.tensor([5, 5]), T.tensor([True, True])),
    "a reduction": lambda T, p, t: (p, t, (5, 5), (2, 2), 0, "most"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_refuses_as_pytorch_does(what: str) -> None:
    def program(T: Any) -> Any:
        p, t = T.zeros(5, 2, 4), T.tensor([[1, 2], [3, 1]])
        return T.nn.functional.ctc_loss(*REFUSED[what](T, p, t))

    same(program, raises=(RuntimeError, ValueError))


def test_a_label_that_is_none(how: str) -> None:
    p = gradlite.zeros(5, 2, 4)
    for label in (4, -1):
        targets = gradlite.tensor([[1, 2], [label, 1]])
        with pytest.raises(IndexError, match=f"Target {label} is out of bounds."):
            F.ctc_loss(p, targets, (5, 5), (2, 1))
        F.ctc_loss(p, targets.flip(1), (5, 5), (2, 1))  # where it does not count


def test_an_edit_of_the_targets_is_noticed() -> None:
    def program(T: Any) -> Any:
        p, t = T.zeros(5, 2, 4, requires_grad=True), T.tensor([[1, 2], [3, 1]])
        loss = T.nn.functional.ctc_loss(p, t, (5, 5), (2, 2))
        t[0, 0] = 3
        loss.backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation")


def test_impossible_targets_give_infinity_or_nothing(how: str) -> None:
    def program(T: Any) -> Any:
        x = T.zeros(2, 2, 3, requires_grad=True)
        arguments = (T.tensor([[1, 1], [1, 2]]), (2, 2), (2, 2))
        infinite = T.nn.functional.ctc_loss(x.log_softmax(2), *arguments, reduction="none")
        loss = T.nn.functional.ctc_loss(x.log_softmax(2), *arguments, zero_infinity=True)
        loss.backward()
        return infinite.detach(), loss.detach(), x.grad

    same(program)


def test_derivatives_through_log_softmax(how: str) -> None:
    rng = np.random.default_rng(0)
    x = gradlite.tensor(rng.standard_normal((5, 2, 4)), requires_grad=True)
    targets = gradlite.tensor([[1, 1], [2, 3]])

    def loss(scores: Any) -> Any:
        return F.ctc_loss(scores.log_softmax(2), targets, (5, 4), (2, 1), reduction="sum")

    assert gradlite.autograd.gradcheck(loss, (x,))
    assert gradlite.autograd.gradgradcheck(loss, (x,))
