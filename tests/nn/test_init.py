"""nn.init: the distributions, the exact fills, the messages."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.nn import init
from tests.oracle import outcome_of, same

NONLINEARITIES = [
    *("linear", "conv1d", "conv2d", "conv3d", "conv_transpose2d"),
    *("sigmoid", "tanh", "relu", "leaky_relu", "selu"),
]


def test_gains() -> None:
    def program(library: Any) -> Any:
        gain = library.nn.init.calculate_gain
        return [
            [float(gain(name)) for name in NONLINEARITIES],
            gain("leaky_relu", 2),
            gain("leaky_relu", 0.3),
            [outcome_of(lambda a=a: gain(*a)) for a in WRONG_GAINS],
        ]

    same(program, message="exact")


WRONG_GAINS = [("sin",), ("leaky_relu", "a"), ("leaky_relu", True)]


EXACT: dict[str, Any] = {
    "ones": lambda init, T: init.ones_(T(2, 3)),
    "zeros": lambda init, T: init.zeros_(T(2, 3)),
    "constant": lambda init, T: init.constant_(T(2, 3), 0.3),
    "eye": lambda init, T: init.eye_(T(2, 3)),
    "dirac 3d": lambda init, T: init.dirac_(T(3, 2, 3)),
    "dirac 4d": lambda init, T: init.dirac_(T(2, 4, 2, 3)),
    "dirac 5d": lambda init, T: init.dirac_(T(4, 2, 3, 3, 1), 2),
    "empty xavier": lambda init, T: init.xavier_normal_(T(0, 2)),
    "empty uniform": lambda init, T: init.uniform_(T(0)),
    "empty orthogonal": lambda init, T: init.orthogonal_(T(0, 3)),
}


@pytest.mark.parametrize("what", EXACT)
def test_exact(what: str) -> None:
    same(lambda library: EXACT[what](library.nn.init, library.ones))


WRONG: dict[str, Any] = {
    "xavier": lambda init, T: init.xavier_uniform_(T(3)),
    "kaiming": lambda init, T: init.kaiming_normal_(T(3)),
    "mode": lambda init, T: init.kaiming_uniform_(T(3, 2), mode="fan"),
    "nonlinearity": lambda init, T: init.kaiming_uniform_(T(3, 2), nonlinearity="sin"),
    "eye": lambda init, T: init.eye_(T(3)),
    "dirac": lambda init, T: init.dirac_(T(3)),
    "dirac groups": lambda init, T: init.dirac_(T(3, 2, 3), 2),
    "orthogonal": lambda init, T: init.orthogonal_(T(3)),
    "sparse": lambda init, T: init.sparse_(T(3), 0.1),
    "std": lambda init, T: init.normal_(T(2), 0, -1),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.init, library.ones),
        raises=(ValueError, RuntimeError),
        message="exact",
    )


def test_warnings() -> None:
    same(
        lambda library: library.nn.init.kaiming_normal_(library.ones(0, 2)),
        warns="zero-element",
        message="exact",
    )
    same(
        lambda library: library.nn.init.trunc_normal_(library.ones(3), mean=10).shape[0],
        warns="more than 2 std",
        message="exact",
    )


def moments(t: Any) -> tuple[float, float, float, float]:
    a = t.detach().numpy().astype(np.float64)
    return float(a.mean()), float(a.std()), float(a.min()), float(a.max())


SHAPE = (120, 30, 3, 2)
FAN_IN, FAN_OUT = 180, 720
RANDOM: dict[str, tuple[Any, float, float]] = {
    # how to fill, standard deviation, bound
    "uniform": (lambda t, g: init.uniform_(t, -1, 1, generator=g), 1 / math.sqrt(3), 1),
    "normal": (lambda t, g: init.normal_(t, 0, 0.5, generator=g), 0.5, math.inf),
    "xavier_uniform": (
        lambda t, g: init.xavier_uniform_(t, 2.0, generator=g),
        2 * math.sqrt(2 / 900),
        2 * math.sqrt(6 / 900),
    ),
    "xavier_normal": (
        lambda t, g: init.xavier_normal_(t, generator=g),
        math.sqrt(2 / 900),
        math.inf,
    ),
    "kaiming_uniform": (
        lambda t, g: init.kaiming_uniform_(t, nonlinearity="relu", generator=g),
        math.sqrt(2 / FAN_IN),
        math.sqrt(6 / FAN_IN),
    ),
    "kaiming_normal": (
        lambda t, g: init.kaiming_normal_(t, a=1, mode="fan_out", generator=g),
        math.sqrt(1 / FAN_OUT),
        math.inf,
    ),
    "trunc_normal": (
        lambda t, g: init.trunc_normal_(t, 0, 1, -1, 1, generator=g),
        0.5396,  # of the standard normal distribution cut off at -1 and 1
        1,
    ),
}


@pytest.mark.parametrize("name", RANDOM)
def test_distributions(name: str) -> None:
    fill, std, bound = RANDOM[name]
    t = nn.Parameter(gradlite.empty(*SHAPE))
    returned = fill(t, gradlite.Generator().manual_seed(3))
    assert returned is t
    assert t.is_leaf and t.requires_grad
    mean, actual, low, high = moments(t)
    n = t.numel()
    assert abs(mean) < 5 * std / math.sqrt(n)
    assert abs(actual - std) < 5 * std / math.sqrt(n)
    assert -bound <= low and high <= bound
    again = fill(gradlite.empty(*SHAPE), gradlite.Generator().manual_seed(3))
    assert t.tolist() == again.tolist()
    assert (
        fill(gradlite.empty(*SHAPE), gradlite.Generator().manual_seed(4)).tolist() != again.tolist()
    )


def test_trunc_normal_with_mean_and_std() -> None:
    t = init.trunc_normal_(gradlite.empty(50_000), mean=1.0, std=2.0, a=-1.0, b=4.0)
    a = t.numpy()
    assert a.min() >= -1 and a.max() <= 4
    # Mean and deviation of N(1, 2) between -1 and 4, from the textbook formulas.
    lo, hi = -1.0, 1.5

    def phi(z: float) -> float:
        return math.exp(-z * z / 2) / math.sqrt(2 * math.pi)

    mass = (math.erf(hi / math.sqrt(2)) - math.erf(lo / math.sqrt(2))) / 2
    shift = (phi(lo) - phi(hi)) / mass
    variance = 1 + (lo * phi(lo) - hi * phi(hi)) / mass - shift**2
    assert abs(a.mean() - (1 + 2 * shift)) < 0.03
    assert abs(a.std() - 2 * math.sqrt(variance)) < 0.03


@pytest.mark.parametrize("shape", [(5, 5), (3, 7), (7, 3), (4, 2, 3)])
def test_orthogonal(shape: tuple[int, ...]) -> None:
    t = init.orthogonal_(gradlite.empty(*shape, dtype=gradlite.float64), gain=2.0)
    q = t.numpy().reshape(shape[0], -1) / 2
    product = q @ q.T if q.shape[0] <= q.shape[1] else q.T @ q
    np.testing.assert_allclose(product, np.eye(len(product)), atol=1e-12)


def test_orthogonal_is_uniform() -> None:
    generator = gradlite.Generator().manual_seed(1)
    draws = np.stack(
        [init.orthogonal_(gradlite.empty(2, 2), generator=generator).numpy() for _ in range(400)]
    )
    assert abs(draws.mean()) < 0.08  # A sign fixed by the decomposition would show here.


def test_sparse() -> None:
    t = init.sparse_(gradlite.ones(10, 4), 0.25, std=0.1, generator=gradlite.Generator())
    zeros = (t.numpy() == 0).sum(0)
    assert zeros.tolist() == [3, 3, 3, 3]


def test_an_initialised_tensor_notices_its_edit() -> None:
    t = gradlite.ones(2, requires_grad=True)
    out = (t * t).sum()
    with gradlite.no_grad():
        init.zeros_(t)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.backward()


DEFAULTS: dict[str, tuple[Any, dict[str, float]]] = {
    # how to make the layer, and the bound (or 0, 1 for constants) of each parameter
    "Linear": (lambda nn: nn.Linear(50, 400), {"weight": 50**-0.5, "bias": 50**-0.5}),
    "Bilinear": (lambda nn: nn.Bilinear(25, 30, 200), {"weight": 0.2, "bias": 0.2}),
    "Conv1d": (lambda nn: nn.Conv1d(10, 300, 5), {"weight": 50**-0.5, "bias": 50**-0.5}),
    "Conv2d": (lambda nn: nn.Conv2d(8, 200, 3, groups=2), {"weight": 1 / 6, "bias": 1 / 6}),
    "ConvTranspose2d": (
        lambda nn: nn.ConvTranspose2d(20, 200, 3),
        {"weight": 1800**-0.5, "bias": 1800**-0.5},
    ),
    "LSTM": (
        lambda nn: nn.LSTM(30, 100),
        dict.fromkeys(["weight_ih_l0", "weight_hh_l0", "bias_ih_l0", "bias_hh_l0"], 0.1),
    ),
    "GRUCell": (
        lambda nn: nn.GRUCell(30, 100),
        dict.fromkeys(["weight_ih", "weight_hh", "bias_ih", "bias_hh"], 0.1),
    ),
    "MultiheadAttention": (
        lambda nn: nn.MultiheadAttention(60, 2),
        {"in_proj_weight": (6 / 240) ** 0.5, "out_proj.weight": 60**-0.5},
    ),
}


@pytest.mark.parametrize("name", DEFAULTS)
def test_default_initialisation(name: str) -> None:
    make, bounds = DEFAULTS[name]

    def spread(library: Any) -> dict[str, tuple[float, float]]:
        parameters = dict(make(library.nn).named_parameters())
        return {key: moments(parameters[key]) for key in bounds}

    import torch

    for actual in (spread(gradlite), spread(torch)):
        for key, (mean, std, low, high) in actual.items():
            bound = bounds[key]
            assert -bound * 1.0001 <= low < -0.9 * bound, key
            assert 0.9 * bound < high <= bound * 1.0001, key
            assert abs(std - bound / math.sqrt(3)) < 0.1 * bound, key
            assert abs(mean) < 0.2 * bound, key


def test_default_constants() -> None:
    def program(library: Any) -> Any:
        nn = library.nn
        layers = [
            nn.BatchNorm2d(3),
            nn.LayerNorm(3),
            nn.GroupNorm(1, 3),
            nn.RMSNorm(3),
            nn.InstanceNorm1d(3, affine=True, track_running_stats=True),
            nn.PReLU(3),
        ]
        attention = nn.MultiheadAttention(4, 2)
        states = [layer.state_dict() for layer in layers]
        return states, attention.in_proj_bias, attention.out_proj.bias

    same(program)


def test_embedding_starts_normal_with_zeros_for_padding() -> None:
    embedding = nn.Embedding(200, 50, padding_idx=3)
    mean, std, _, _ = moments(embedding.weight)
    assert abs(mean) < 0.05 and abs(std - 1) < 0.05
    assert not embedding.weight[3].any()


def test_seeds_fix_the_weights() -> None:
    gradlite.manual_seed(5)
    first = nn.Linear(3, 3).weight
    gradlite.manual_seed(5)
    assert nn.Linear(3, 3).weight.tolist() == first.tolist()
    assert nn.Linear(3, 3).weight.tolist() != first.tolist()


def test_factories_take_device_and_dtype() -> None:
    def program(library: Any) -> Any:
        nn, options = library.nn, {"device": "cpu", "dtype": library.float64}
        layers = [
            nn.Linear(2, 3, **options),
            nn.Conv2d(1, 2, 3, **options),
            nn.BatchNorm1d(2, **options),
            nn.LayerNorm(2, **options),
            nn.Embedding(2, 3, **options),
            nn.LSTM(2, 3, **options),
            nn.GRUCell(2, 3, **options),
            nn.PReLU(**options),
            nn.Bilinear(2, 3, 4, **options),
            nn.MultiheadAttention(4, 2, **options),
            nn.TransformerEncoderLayer(4, 2, 8, **options),
            nn.GroupNorm(1, 2, **options),
            nn.RMSNorm(2, **options),
        ]
        return [[str(t.dtype)[-5:] for t in layer.state_dict().values()] for layer in layers]

    same(program)


def test_embedding_from_pretrained() -> None:
    def program(library: Any) -> Any:
        rows = library.arange(6.0).reshape(3, 2)
        frozen = library.nn.Embedding.from_pretrained(rows)
        free = library.nn.Embedding.from_pretrained(rows, freeze=False, padding_idx=1)
        wrong = outcome_of(lambda: library.nn.Embedding.from_pretrained(rows[0]))
        return [
            *(repr(frozen), repr(free), frozen.weight.requires_grad, free.weight.requires_grad),
            *(free(library.tensor([1, 2])).detach(), wrong),
        ]

    same(program)
