"""Distributions inside captured steps: fresh samples in every replay, checked arguments."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import distributions as D
from gradlite import optim
from gradlite.distributions import Bernoulli, Categorical, Independent, Normal, OneHotCategorical
from tests.capture_support import CALLS, close, replays  # noqa: F401


def both(step: Callable[..., Any], *arguments: Any) -> tuple[list[Any], list[Any]]:
    """What a step gives by itself and captured, from the same seed."""
    found = []
    for run in (step, gradlite.capture(step)):
        gradlite.manual_seed(5)
        results = [run(*arguments) for _ in range(CALLS)]
        found.append([[t.detach().cpu().numpy() for t in result] for result in results])
    return found[0], found[1]


FAMILIES: dict[str, Callable[[Any], Any]] = {
    "Normal": lambda x: Normal(x, x.exp()),
    "Independent": lambda x: Independent(Normal(x, 2.0), 1),
    "Bernoulli": lambda x: Bernoulli(logits=x),
    "Categorical": lambda x: Categorical(logits=x),
    "Categorical by probs": lambda x: Categorical(x.softmax(-1)),
    "OneHotCategorical": lambda x: OneHotCategorical(logits=x),
    "Uniform": lambda x: D.Uniform(x, x + 2),
    "Laplace": lambda x: D.Laplace(x, x.exp()),
    "Gumbel": lambda x: D.Gumbel(x, x.exp()),
    "Exponential": lambda x: D.Exponential(x.exp()),
    "Gamma": lambda x: D.Gamma(x.exp(), 2.0),
    "Beta": lambda x: D.Beta(x.exp(), 2.0),
    "Poisson": lambda x: D.Poisson(5 * x.exp()),
    "Binomial": lambda x: D.Binomial(10, logits=x),
    "VonMises": lambda x: D.VonMises(x, x.exp()),
    "NegativeBinomial": lambda x: D.NegativeBinomial(4, logits=x),
    "Weibull": lambda x: D.Weibull(x.exp(), 2.0),
    "LKJCholesky": lambda x: D.LKJCholesky(3, x.exp()),
    "Geometric": lambda x: D.Geometric(logits=x),
    "Multinomial": lambda x: D.Multinomial(5, logits=x),
    "LogNormal": lambda x: D.LogNormal(x, 1.0),
    "MultivariateNormal": lambda x: D.MultivariateNormal(
        x, scale_tril=gradlite.eye(3, dtype=x.dtype) * 2
    ),
    "tanh of a normal": lambda x: D.TransformedDistribution(
        D.Normal(x, 1.0), [D.TanhTransform(cache_size=1), D.AffineTransform(0.0, 2.0, cache_size=1)]
    ),
    "mixture": lambda x: D.MixtureSameFamily(Categorical(logits=x), Normal(x, 0.5)),
    "RelaxedBernoulli": lambda x: D.RelaxedBernoulli(gradlite.tensor(0.5), logits=x),
    "RelaxedOneHotCategorical": lambda x: D.RelaxedOneHotCategorical(
        gradlite.tensor(0.5), logits=x
    ),
}


@pytest.mark.parametrize("name", FAMILIES)
def test_samples_of_replays_are_fresh(name: str) -> None:
    def step(x: Any) -> Any:
        d = FAMILIES[name](x)
        value = d.sample()
        try:
            return value, d.log_prob(value), d.mean, d.entropy()
        except NotImplementedError:
            return value, d.log_prob(value)

    x = gradlite.tensor(np.linspace(-1, 1, 60).reshape(20, 3))
    alone, captured = both(step, x)
    for one, other in zip(alone, captured, strict=True):
        for a, b in zip(one, other, strict=True):
            close(b, a)
    assert len({first.tobytes() for first, *_ in captured}) == CALLS


def test_a_policy_learns_the_same_in_replays() -> None:
    """The score function's gradient, with actions drawn inside the step."""

    def train(capture: bool) -> Any:
        gradlite.manual_seed(0)
        policy = gradlite.nn.Linear(4, 3)
        optimizer = optim.SGD(policy.parameters(), lr=0.5)

        def step(x: Any) -> Any:
            d = Categorical(logits=policy(x))
            actions = d.sample()
            reward = (actions == 1).to(x.dtype)
            loss = -(d.log_prob(actions) * (reward - 0.5)).mean() - 0.01 * d.entropy().mean()
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return reward.mean()

        run = gradlite.capture(step) if capture else step
        x = gradlite.randn(64, 4)
        rewards = [run(x).item() for _ in range(30)]
        return rewards, policy.weight.detach().cpu().numpy()

    rewards, weight = train(False)
    captured_rewards, captured_weight = train(True)
    assert rewards[-1] > 0.8 > 0.6 > rewards[0]
    close(captured_rewards, rewards)
    np.testing.assert_allclose(captured_weight, weight, rtol=1e-4, atol=1e-5)


PARAMETRISED = [name for name in FAMILIES if FAMILIES[name](gradlite.zeros(1, 3)).has_rsample]


@pytest.mark.parametrize("name", PARAMETRISED)
def test_gradients_flow_through_samples_of_replays(name: str) -> None:
    def step(x: Any) -> Any:
        leaf = x.detach().requires_grad_()
        value = FAMILIES[name](leaf).rsample()
        (grad,) = gradlite.autograd.grad((value**2).sum(), leaf)
        return value, grad

    alone, captured = both(step, gradlite.linspace(-1, 1, 15).reshape(5, 3))
    for one, other in zip(alone, captured, strict=True):
        for a, b in zip(one, other, strict=True):
            close(b, a)
    assert len({grad.tobytes() for _, grad in captured}) == CALLS


def test_checks_behind_an_update_stay_in_replays() -> None:
    """What they look at depends on what the step has changed, so that it cannot go back."""

    def trained(capture: bool) -> Any:
        policy = gradlite.nn.Linear(3, 3, bias=False)
        gradlite.nn.init.eye_(policy.weight)
        optimizer = optim.SGD(policy.parameters(), lr=0.1)

        def step(x: Any, actions: Any) -> Any:
            for _ in range(2):
                loss = -Categorical(logits=policy(x)).log_prob(actions).mean()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
            return loss

        run = gradlite.capture(step) if capture else step
        x, actions = gradlite.eye(3), gradlite.tensor([1, 2, 0])
        losses = [run(x, actions).item() for _ in range(CALLS)]
        return losses, getattr(run, "replays", None)

    expected, _ = trained(False)
    losses, replayed = trained(True)
    close(losses, expected)
    assert replayed > 0


def test_wrong_arguments_of_replays_are_refused(replays: str) -> None:  # noqa: F811
    if replays in ("stand-in", "gpu"):
        pytest.skip("a CUDA graph cannot stop: the calls before the recording check")
    step = gradlite.capture(lambda x, a: Categorical(logits=x).log_prob(a))
    x, a = gradlite.zeros(2, 3), gradlite.tensor([0, 2])
    for _ in range(4):
        expected = step(x, a)
    for _ in range(2):
        with pytest.raises(ValueError, match="Expected parameter logits"):
            step(x * np.nan, a)
        with pytest.raises(ValueError, match=r"to be within the support \(IntegerInterval"):
            step(x, a + 1)
        assert (step(x, a) == expected).all()
