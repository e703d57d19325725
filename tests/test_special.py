"""Special functions where it is difficult: extreme arguments, and the names of torch.special."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import same, torch

POINTS = np.concatenate(
    [
        np.linspace(-12.3, 12.4, 41),
        [0.0, -0.0, -1.0, -7.0, 1.0, 2.0, 1e-10, -1e-10, 1e5, 171.0, np.inf, np.nan],
    ]
)
INSIDE = np.concatenate([np.linspace(-1, 1, 21), [1 - 1e-12, -1 + 1e-9, 1e-300, 1.5, np.nan]])


@pytest.mark.parametrize(
    ("name", "points", "rtol"),
    [
        ("lgamma", POINTS, 1e-12),
        ("digamma", POINTS, 1e-12),
        ("erfinv", INSIDE, 1e-13),
        ("sinc", POINTS, 1e-12),
        ("logit", INSIDE, 1e-13),
    ],
)
def test_values_everywhere(name: str, points: Any, rtol: float) -> None:
    same(lambda T: getattr(T, name)(T.tensor(points)), rtol=rtol, atol=1e-13)


BESSEL = np.concatenate([POINTS[np.abs(POINTS) < 700], [8.0, -8.0, np.inf, np.nan]])


@pytest.mark.parametrize("name", ["i0", "i0e", "i1", "i1e"])
def test_bessel_functions_everywhere(name: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor(BESSEL[np.isfinite(BESSEL)], requires_grad=True)
        y = getattr(T.special, name)(x)
        (grad,) = T.autograd.grad(y.sum(), x)
        return y.detach(), grad

    same(program, rtol=2e-14, atol=1e-15)
    same(lambda T: getattr(T.special, name)(T.tensor(BESSEL)).isnan())


def test_bessel_functions_near_the_largest_number() -> None:
    """Where PyTorch, which multiplies with exp(x), has inf; mpmath has these."""
    x = gradlite.tensor(712.5, dtype=gradlite.float64)
    assert gradlite.i0(x).item() == pytest.approx(4.068293090664341e307, rel=1e-13)
    assert gradlite.special.i1(-x).item() == pytest.approx(-4.0654371450013245e307, rel=1e-13)


@pytest.mark.parametrize("n", [1, 2, 5])
def test_polygamma_everywhere(n: int) -> None:
    # PyTorch's trigamma is right to 1e-9 only, and no infinity at -1, -2, ...; sums that do not
    # end are NaN there.
    poles = (POINTS < 0) & (POINTS == np.floor(POINTS)) & (n == 1)
    points = POINTS[np.isfinite(POINTS) & ~poles]
    same(lambda T: T.polygamma(n, T.tensor(points)), rtol=1e-8, atol=1e-12)


SHAPES = np.array([1e-6, 1e-3, 0.3, 1.0, 2.5, 9.5, 10.5, 40.0, 300.0, 5e3])[:, None]
PLACES = np.array([1e-3, 0.2, 0.8, 1.0, 1.3, 2.5, 8.0])


@pytest.mark.parametrize("name", ["igamma", "igammac"])
def test_incomplete_gamma_functions_everywhere(name: str) -> None:
    """PyTorch's have nine digits around shapes of 30."""

    def program(T: Any) -> Any:
        found = [getattr(T, name)(T.tensor(SHAPES), T.tensor(x)) for x in (SHAPES * PLACES, PLACES)]
        a = T.tensor([0, 0, 0, 1, 1, np.inf, np.inf, 2, -1, np.nan, 1, np.inf, 3])
        x = T.tensor([0, 1, np.inf, 0, np.inf, 1, np.inf, -1, 1, 1, np.nan, 0, -0.0])
        return *found, getattr(T, name)(a, x)

    same(program, rtol=4e-9, atol=1e-300)


def test_incomplete_gamma_functions_of_large_shapes() -> None:
    """Where PyTorch's lose all but two digits: sums of a Poisson distribution's probabilities."""
    for n in (1000, 100_000, 4_000_000):
        steps = np.arange(int(20 * n**0.5))
        for sigmas in (-5.5, -1.0, 0.1, 3.0, 7.0):
            x = n + sigmas * n**0.5
            a, place = (gradlite.tensor(float(t), dtype=gradlite.float64) for t in (n, x))
            lower, upper = gradlite.igamma(a, place).item(), gradlite.igammac(a, place).item()
            k = n - 1 - steps if sigmas > 0 else n + steps
            logs = k * np.log(x) - x - gradlite.lgamma(gradlite.tensor(k + 1.0)).numpy()
            found = upper if sigmas > 0 else lower
            np.testing.assert_allclose(found, np.exp(logs).sum(), rtol=1e-7)
            np.testing.assert_allclose(lower + upper, 1, rtol=1e-14)


ARGUMENTS: dict[str, list[Any]] = {
    "multigammaln": [[3.0, 4.5], 3],
    "polygamma": [2, [0.5, 3.0]],
    "gammainc": [(0.5, 3.0, 20.0), [0.1, 3.5, 17.0]],
    "gammaincc": [(0.5, 3.0, 20.0), [0.1, 3.5, 17.0]],
    "softmax": [[[1.0, 2.0]], 1],
    "log_softmax": [[[1.0, 2.0]], 1],
    "logsumexp": [[[1.0, 2.0]], 1],
    "xlogy": [[0.0, 2.0, 0.5], [0.0, 3.0, 2.0]],
    "xlog1py": [[0.0, 2.0, 0.5], [-1.0, 3.0, 2.0]],
    "entr": [[0.0, 0.5, -1.0, 2.0]],
    "ndtri": [[0.1, 0.5, 0.9]],
    "erfinv": [[0.1, -0.5, 0.9]],
    "logit": [[0.1, 0.5, 0.9]],
}


@pytest.mark.parametrize("name", gradlite.special.__all__)
def test_the_functions_of_torch_special(name: str) -> None:
    def program(T: Any) -> Any:
        arguments = ARGUMENTS.get(name, [[0.3, 1.7, 2.5]])
        tensors = [
            a if isinstance(a, int) else T.tensor(a, dtype=T.float64, requires_grad=type(a) is list)
            for a in arguments
        ]
        out = getattr(T.special, name)(*tensors)
        leaves = [t for t in tensors if T.is_tensor(t) and t.requires_grad]
        grads = T.autograd.grad(out.sum(), leaves, materialize_grads=True)
        # A gradient that is 0 everywhere may be no array in PyTorch.
        return out.detach(), [g + T.zeros(1, dtype=T.float64) for g in grads]

    same(program, rtol=1e-8)


def test_every_name_is_pytorchs() -> None:
    assert set(gradlite.special.__all__) <= set(dir(torch.special))
