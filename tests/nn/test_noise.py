"""Layers that draw: the shares, the scales and the seeds of what they do in training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.nn import functional as F

LAYERS = {
    # name, shape, the dimensions behind which one draw counts for all
    "Dropout": ((50, 40, 3), 3),
    "Dropout1d": ((50, 40, 3), 2),
    "Dropout2d": ((50, 40, 3, 2), 2),
    "Dropout3d": ((50, 40, 3, 2, 2), 2),
}


@pytest.mark.parametrize("name", LAYERS)
def test_dropout_zeroes_a_share_and_scales_the_rest(name: str) -> None:
    shape, lead = LAYERS[name]
    x = gradlite.ones(*shape, requires_grad=True)
    layer = getattr(nn, name)(0.3)
    out = layer(x)
    out.sum().backward()
    a = out.detach().numpy()
    assert set(np.unique(a)) == {np.float32(0), np.float32(1 / np.float32(0.7))}
    draws = a.reshape(*shape[:lead], -1)
    assert (draws == draws[..., :1]).all()
    share = (draws[..., 0] == 0).mean()
    assert abs(share - 0.3) < 5 * np.sqrt(0.21 / draws[..., 0].size)
    np.testing.assert_array_equal(x.grad.numpy(), a)
    assert not np.array_equal(layer(x).detach().numpy(), a)


@pytest.mark.parametrize("name", ["AlphaDropout", "FeatureAlphaDropout"])
def test_alpha_dropout_keeps_mean_and_variance(name: str) -> None:
    shape = (400, 300) if name == "AlphaDropout" else (400, 300, 2)
    x = gradlite.randn(*shape, dtype=gradlite.float64, requires_grad=True)
    out = getattr(nn, name)(0.2)(x)
    a = out.detach().numpy()
    assert abs(a.mean()) < 0.02
    assert abs(a.std() - 1) < 0.02
    out.sum().backward()
    grad = x.grad.numpy()
    if name == "FeatureAlphaDropout":
        assert (grad == grad[..., :1]).all()
        grad = grad[..., 0]
    assert len(np.unique(grad)) == 2
    assert abs((grad == 0).mean() - 0.2) < 0.01
    assert len(np.unique(a.reshape(*grad.shape, -1)[grad == 0])) == 1


def test_rrelu_draws_its_slopes() -> None:
    x = -gradlite.ones(2000, requires_grad=True)
    out = nn.RReLU(0.2, 0.6)(x).detach().numpy()
    assert -0.6 <= out.min() < -0.59 and -0.21 < out.max() <= -0.2
    assert abs(out.mean() + 0.4) < 0.02


@pytest.mark.parametrize("training", [False, True])
def test_the_gradient_of_rrelu_is_what_x_was_multiplied_with(training: bool) -> None:
    torch = pytest.importorskip("torch")
    values = [0.0, -0.0, -1.0, 2.0, float("nan"), float("inf"), -float("inf")]
    x, y = (
        T.tensor(values, requires_grad=True) for T in (gradlite, torch)
    )  # whose draws differ, but not with one slope alone
    for T, leaf in ((gradlite, x), (torch, y)):
        out = T.nn.functional.rrelu(leaf, 0.25, 0.25, training)
        out.sum().backward()
    np.testing.assert_array_equal(x.grad.numpy(), y.grad.numpy())
    x = gradlite.linspace(-2, 0, 400, requires_grad=True)
    out = F.rrelu(x, 0.2, 0.6, training)
    out.sum().backward()
    np.testing.assert_allclose(out.detach().numpy(), (x * x.grad).detach().numpy(), 1e-6)
    assert 0.2 <= x.grad[-1].item() <= 0.6


def test_gumbel_softmax_draws_from_the_distribution() -> None:
    logits = gradlite.tensor([0.1, 0.6, 0.3]).log().expand(20_000, 3)
    hard = F.gumbel_softmax(logits, hard=True).numpy()
    assert set(np.unique(hard)) == {0, 1}
    np.testing.assert_array_equal(hard.sum(1), 1)
    np.testing.assert_allclose(hard.mean(0), [0.1, 0.6, 0.3], atol=0.02)
    soft = F.gumbel_softmax(logits, tau=0.5).numpy()
    np.testing.assert_allclose(soft.sum(1), 1, rtol=1e-5)


def test_gumbel_softmax_hard_has_the_soft_gradient() -> None:
    grads = []
    for hard in [True, False]:
        gradlite.manual_seed(3)
        logits = gradlite.zeros(4, 3, requires_grad=True)
        (F.gumbel_softmax(logits, hard=hard) * gradlite.arange(3.0)).sum().backward()
        grads.append(logits.grad.numpy())
    np.testing.assert_allclose(grads[0], grads[1])
    assert abs(grads[0]).max() > 0


def models() -> dict[str, Any]:
    return {
        "Dropout": (nn.Dropout(0.5), (6, 7)),
        "LSTM": (nn.LSTM(3, 4, 2, dropout=0.5), (5, 2, 3)),
        "MultiheadAttention": (nn.TransformerEncoderLayer(4, 2, 8), (5, 2, 4)),
    }


@pytest.mark.parametrize("name", models())
def test_a_seed_repeats_the_draws(name: str) -> None:
    model, shape = models()[name]
    x = gradlite.ones(*shape)

    def run(seed: int) -> Any:
        gradlite.manual_seed(seed)
        out = model(x)
        return (out[0] if isinstance(out, tuple) else out).tolist()

    assert run(1) == run(1)
    assert run(1) != run(2)
    model.eval()
    assert run(1) == run(2)


def test_dropout_in_place() -> None:
    x = gradlite.ones(20, 20)
    out = nn.Dropout(0.5, inplace=True)(x)
    assert out is x
    assert set(np.unique(x.numpy())) == {0, 2}
