"""Random numbers on a device: the CPU's, made there by kernels (the stand-in for CuPy)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import distributions as D
from gradlite.nn import functional as F
from gradlite.random import Generator
from tests import cupy_stand_in as stand_in

DRAWS: dict[str, Callable[[str], Any]] = {
    "rand": lambda d: gradlite.rand(5, device=d),
    "rand of doubles": lambda d: gradlite.rand(5, dtype=gradlite.float64, device=d),
    "rand_like": lambda d: gradlite.rand_like(gradlite.ones(2, 3, device=d)),
    "randn": lambda d: gradlite.randn(5, 3, device=d),
    "randperm": lambda d: gradlite.randperm(9, device=d),
    "randint": lambda d: gradlite.randint(10, (7,), device=d),
    "randint of bytes": lambda d: gradlite.randint(3, 10, (7,), dtype=gradlite.uint8, device=d),
    "bernoulli": lambda d: gradlite.bernoulli(gradlite.full((20,), 0.5, device=d)),
    "uniform_": lambda d: gradlite.empty(6, device=d).uniform_(-1, 1),
    "normal_": lambda d: gradlite.empty(6, device=d).normal_(1, 2),
    "random_": lambda d: gradlite.empty(6, device=d).random_(3, 9),
    "bernoulli_": lambda d: gradlite.empty(20, device=d).bernoulli_(0.3),
    "exponential_": lambda d: gradlite.empty(6, device=d).exponential_(2.0),
    "cauchy_": lambda d: gradlite.empty(6, device=d).cauchy_(1.0, 2.0),
    "log_normal_": lambda d: gradlite.empty(6, device=d).log_normal_(0.0, 1.0),
    "geometric_": lambda d: gradlite.empty(6, device=d).geometric_(0.3),
    "dropout": lambda d: F.dropout(gradlite.ones(50, device=d), 0.3),
    "dropout1d": lambda d: F.dropout1d(gradlite.ones(5, 4, 3, device=d), 0.3),
    "dropout2d": lambda d: F.dropout2d(gradlite.ones(5, 4, 3, 2, device=d), 0.3),
    "dropout3d": lambda d: F.dropout3d(gradlite.ones(5, 4, 3, 2, 1, device=d), 0.3),
    "alpha_dropout": lambda d: F.alpha_dropout(gradlite.ones(50, device=d), 0.3, True),
    "feature_alpha_dropout": lambda d: F.feature_alpha_dropout(
        gradlite.ones(5, 4, 3, device=d), 0.3, True
    ),
    "rrelu": lambda d: F.rrelu(-gradlite.ones(9, device=d), training=True),
    "von Mises": lambda d: D.VonMises(gradlite.zeros(6, device=d), 2.0).sample(),
    "negative binomial": lambda d: D.NegativeBinomial(
        gradlite.full((6,), 3.0, device=d), 0.4
    ).sample(),
    "LKJ": lambda d: D.LKJCholesky(3, gradlite.ones(2, device=d)).sample(),
    "Wishart": lambda d: D.Wishart(4.0, scale_tril=gradlite.eye(2, device=d)).sample(),
    "low-rank normal": lambda d: D.LowRankMultivariateNormal(
        *(gradlite.ones(*shape, device=d) for shape in ((2,), (2, 1), (2,)))
    ).sample((3,)),
    "inverse gamma": lambda d: D.InverseGamma(gradlite.ones(4, device=d), 2.0).sample(),
    "continuous coins": lambda d: D.ContinuousBernoulli(
        gradlite.full((4,), 0.3, device=d)
    ).sample(),
    "generalised Pareto": lambda d: D.GeneralizedPareto(
        gradlite.ones(4, device=d), 2.0, 0.3
    ).sample(),
    "F": lambda d: D.FisherSnedecor(gradlite.ones(4, device=d), 2.0).sample(),
    "gumbel_softmax": lambda d: F.gumbel_softmax(gradlite.zeros(3, 4, device=d)),
}


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


@pytest.mark.parametrize("name", DRAWS)
def test_a_draw_is_made_on_the_device_and_is_the_cpus(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    gradlite.manual_seed(5)
    here = DRAWS[name]("cpu")
    state = gradlite.get_rng_state().tolist()

    def draw_on_the_host(*args: Any) -> Any:
        raise AssertionError("numbers for the device are drawn on the host")

    gradlite.manual_seed(5)
    monkeypatch.setattr(Generator, "_draw", draw_on_the_host)
    there = DRAWS[name]("cuda")
    assert there.is_cuda and here.dtype == there.dtype
    np.testing.assert_allclose(there.cpu().numpy(), here.numpy(), 1e-6)
    assert gradlite.get_rng_state().tolist() == state


@pytest.mark.parametrize("p", [0.3, 1.0])
@pytest.mark.parametrize("name", [n for n in DRAWS if "dropout" in n])
def test_gradients_of_both_orders_use_the_same_mask(name: str, p: float) -> None:
    def program(device: str) -> list[Any]:
        gradlite.manual_seed(5)
        x = (gradlite.arange(1.0, 25.0, device=device).reshape(2, 3, 4) / 7).requires_grad_()
        y = getattr(F, name)(x, p, True)
        found = [y]
        (first,) = gradlite.autograd.grad((y * y).sum(), x, retain_graph=True)
        (again,) = gradlite.autograd.grad((y * y * x).sum(), x, create_graph=True)
        (second,) = gradlite.autograd.grad((again * again).sum(), x)
        return [t.detach().cpu().numpy() for t in (*found, first, again, second)]

    for here, there in zip(program("cpu"), program("cuda")):
        np.testing.assert_allclose(there, here, 1e-5, 1e-6)


def test_a_mask_is_not_kept_for_backward() -> None:
    x = gradlite.ones(1000, device="cuda", requires_grad=True)
    node = F.dropout(x, 0.5).grad_fn
    assert not any(isinstance(value, stand_in.Array) for value in (*node.saved, *node.aux))


def test_pack_hooks_leave_the_place_of_a_mask_alone() -> None:
    gradlite.manual_seed(5)
    x = gradlite.ones(40, device="cuda", requires_grad=True)
    with gradlite.autograd.graph.saved_tensors_hooks(lambda t: t.cpu(), lambda t: t.cuda()):
        y = F.dropout(x, 0.5)
    y.sum().backward()
    assert (x.grad == y).all()
