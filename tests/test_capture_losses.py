"""Losses with all their options in a captured step, and ops that look at values."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.nn import functional as F
from tests.oracle import outcome_of

OPTIONS: list[dict[str, Any]] = [
    {},
    {"reduction": "sum"},
    {"ignore_index": 2},
    {"ignore_index": 2, "reduction": "sum"},
    {"label_smoothing": 0.1},
    {"label_smoothing": 0.1, "ignore_index": 2},
    {"weight": True},
    {"weight": True, "ignore_index": 2},
    {"weight": True, "ignore_index": 2, "label_smoothing": 0.1},
]


def trained(options: dict[str, Any], loss: Any, native: bool | None) -> tuple[Any, Any, int]:
    """Losses and weights of eight steps, as they are (None) or captured; and the replays."""
    gradlite.manual_seed(1)
    options = dict(options)
    if options.get("weight"):
        options["weight"] = gradlite.tensor([0.5, 1.0, 2.0, 1.5, 0.1])
    model = nn.Linear(3, 5)
    optimizer = optim.SGD(model.parameters(), lr=0.5)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        value = loss(model(x), y, **options)
        value.backward()
        optimizer.step()
        return value

    run: Any = step if native is None else gradlite.capture(step, native=native)
    rng = np.random.default_rng(3)
    losses = []
    for _ in range(8):
        x = gradlite.tensor(rng.normal(size=(12, 3)), dtype=gradlite.float32)
        y = gradlite.tensor(rng.permutation(np.arange(12) % 5))  # each class in every batch
        losses.append(run(x, y).item())
    return losses, model.weight.detach().numpy().copy(), getattr(run, "replays", 0)


CASES = [("cross_entropy", o) for o in OPTIONS]
CASES += [("nll_loss", o) for o in OPTIONS if "label_smoothing" not in o]
EACH = [(*case, False) for case in CASES]
EACH += [(*case, True) for case in (CASES[0], CASES[8], CASES[-1])]  # which cost a compilation


@pytest.mark.parametrize(("loss", "options", "native"), EACH)
def test_a_replayed_loss_is_that_of_the_step_itself(
    loss: str, options: dict[str, Any], native: bool
) -> None:
    function = F.cross_entropy
    if loss == "nll_loss":
        function = lambda z, y, **o: F.nll_loss(z.log_softmax(1), y, **o)  # noqa: E731
    expected, weight, _ = trained(options, function, None)
    losses, actual, replays = trained(options, function, native)
    assert replays >= 4
    if native:
        np.testing.assert_allclose(losses, expected, rtol=1e-5)
        np.testing.assert_allclose(actual, weight, rtol=1e-4, atol=1e-6)
    else:
        assert losses == expected
        np.testing.assert_array_equal(actual, weight)


# Of (x, y in (0, 1)), on as many elements as kernels run for on the CPU.
OF_ELEMENTS: dict[str, Any] = {
    "poisson": lambda x, y: F.poisson_nll_loss(x, y, full=True),
    "hinge": lambda x, y: F.hinge_embedding_loss(x, (y * 10).long() * 2 - 1),
    "ranking": lambda x, y: F.margin_ranking_loss(x, y, (y - 0.5).sign(), margin=0.2),
    "gaussian": lambda x, y: F.gaussian_nll_loss(y, y, x.exp()),
    "gaussian of rows": lambda x, y: F.gaussian_nll_loss(x, y, y[:, :1], full=True),
    "gaussian of a number": lambda x, y: F.gaussian_nll_loss(x, y, 0.7),
    "soft margin": lambda x, y: F.soft_margin_loss(x, (y * 10).long() * 2 - 1),
    "labels": lambda x, y: F.multilabel_soft_margin_loss(x, y, reduction="none").mean(),
    "unit vectors": lambda x, y: (F.normalize(x) * y + F.normalize(x, dim=0)).mean(),
}


@pytest.mark.parametrize("loss", OF_ELEMENTS)
def test_losses_of_elements_are_replayed(loss: str) -> None:
    def step(x: Any, y: Any) -> tuple[Any, Any]:
        x = x.requires_grad_()
        value = OF_ELEMENTS[loss](x, y)
        return value.detach(), *gradlite.autograd.grad(value, x)

    run = gradlite.capture(step, native=False)
    gradlite.manual_seed(0)
    for _ in range(5):
        x, y = gradlite.randn(100, 100), gradlite.rand(100, 100)
        for found, expected in zip(run(x.clone(), y), step(x.clone(), y), strict=True):
            np.testing.assert_array_equal(found.numpy(), expected.numpy())
    assert run.replays >= 2


def test_a_negative_variance_is_an_error_in_a_replay_too() -> None:
    step = gradlite.capture(lambda x, v: F.gaussian_nll_loss(x, x, v), warmup=0, native=False)
    x = gradlite.ones(2000)
    for _ in range(3):
        step(x, gradlite.rand(2000))
    error = outcome_of(lambda: step(x, -x))
    assert step.replays >= 1 and isinstance(error, ValueError)
    assert str(error) == "var has negative entry/entries"


def test_a_class_out_of_range_is_an_error_in_a_replay_too() -> None:
    step = gradlite.capture(lambda x, y: F.cross_entropy(x, y), warmup=0, native=False)
    x = gradlite.randn(3, 4)
    for _ in range(3):
        step(x, gradlite.tensor([0, 1, 3]))
    error = outcome_of(lambda: step(x, gradlite.tensor([0, 1, 4])))
    assert step.replays == 1 and isinstance(error, IndexError)
    assert str(error) == "Target 4 is out of bounds."


@pytest.mark.parametrize(
    ("function", "one", "other"),
    [
        (gradlite.bincount, [1, 1, 3], [1, 5, 3]),
        (lambda n: gradlite.repeat_interleave(gradlite.arange(3), n), [1, 1, 3], [1, 2, 5]),
        (lambda i: gradlite.arange(4.0)[i], [1, 1, 3], [-4, 2, 0]),
    ],
    ids=["bincount", "repeat_interleave", "index"],
)
def test_results_are_of_the_size_that_the_values_say(function: Any, one: Any, other: Any) -> None:
    step = gradlite.capture(function, warmup=0, native=False)
    for values in (one, one, one, other, one, other):
        x = gradlite.tensor(values)
        assert step(x).tolist() == function(x).tolist()
    assert step.replays >= 2


def test_an_index_out_of_range_is_an_error_in_a_replay_too() -> None:
    step = gradlite.capture(lambda i: gradlite.arange(4.0)[i], warmup=0, native=False)
    for _ in range(3):
        step(gradlite.tensor([1, 3]))
    error = outcome_of(lambda: step(gradlite.tensor([1, 4])))
    assert step.replays == 1
    assert str(error) == "index 4 is out of bounds for dimension 0 with size 4"
