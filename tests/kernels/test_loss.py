"""Losses of elements with kernels: the formulas in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import pointwise_loss as pointwise
from gradlite.ops.pointwise_loss import PointwiseLoss
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, host, taken, wide

FORMULAS = {
    pointwise.SquaredError: 0.0,
    pointwise.AbsoluteError: 0.0,
    pointwise.SmoothAbsoluteError: 0.7,
    pointwise.HuberError: 0.7,
    pointwise.BinaryEntropy: 0.0,
    pointwise.LogisticEntropy: 0.0,
    pointwise.Divergence: 0.0,
    pointwise.LogDivergence: 0.0,
    pointwise.SoftMargin: 0.0,
    pointwise.SoftLabel: 0.0,
}
SHAPES = [(), (1,), (31,), (33,), (5, 7), (1025,), (4, 2049), (10000,), (100003,)]
TOLERANCES = {"bfloat16": 3.2e-2, "float16": 4e-3, "float32": 1e-5, "float64": 1e-12}


def operands(formula: Any, shape: tuple[int, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    generator = np.random.default_rng(len(shape))
    x, y = (np.asarray(generator.standard_normal(shape)) * 2 for _ in range(2))
    if formula is pointwise.BinaryEntropy:
        x = 0.05 + 0.9 * np.asarray(generator.random(shape))
    if formula in (
        pointwise.BinaryEntropy, pointwise.LogisticEntropy, pointwise.Divergence,
        pointwise.SoftLabel,
    ):  # fmt: skip
        y = 0.05 + 0.9 * np.asarray(generator.random(shape))
    if formula is pointwise.SoftMargin:
        y = np.sign(y)
    return np.asarray(x).astype(dtype), np.asarray(y).astype(dtype)


def compare(
    K: Any,
    formula: Any,
    shape: tuple[int, ...],
    dtype: str,
    reduction: str,
    *,
    weights: tuple[Any, Any] = (None, None),
    wanted: tuple[bool, ...] = (True, True, False, False),
) -> None:
    x, y = operands(formula, shape, dtype)
    of_loss = {"none": shape, "rows": shape[:-1]}.get(reduction, ())
    grad = np.asarray(np.random.default_rng(1).standard_normal(of_loss)).astype(dtype)
    attrs = (formula, reduction, FORMULAS[formula])
    inputs = [x, y, *(None if w is None else w.astype(dtype) for w in weights)]
    exact = [None if a is None else wide(a) for a in inputs]
    expected = by_rule(PointwiseLoss, exact, attrs, wide(grad), wanted)
    found = by_kernel(K, PointwiseLoss, inputs, attrs, grad, wanted)
    tolerance = TOLERANCES[dtype]
    for ours, reference, want in zip(found, expected, (True, *wanted)):
        if want:
            assert ours.dtype == dtype and ours.shape == np.shape(reference)
            # A sum of losses of either sign is as exact as the losses are.
            losses = np.abs(formula.value(_arrays(), *exact[:2], exact[3], attrs[2]))
            summed = reference is expected[0] and "sum" in reduction
            size = float(losses.sum()) if summed else 1.0
            size = max(size, float(np.abs(reference).max()), 1e-3)
            np.testing.assert_allclose(ours, reference, tolerance, tolerance * size)


def _arrays() -> Any:
    from gradlite.ops.namespaces import NAMESPACES

    return NAMESPACES[np.ndarray]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.__name__)
def test_values_and_gradients(
    launcher: Any, formula: Any, shape: tuple[int, ...], dtype: str
) -> None:
    for reduction in ("mean", "none", "sum"):
        if reduction != "sum" or dtype != "float16" or np.prod(shape) < 2000:
            compare(launcher, formula, shape, dtype, reduction)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("reduction", pointwise.OF_ROWS.values())
@pytest.mark.parametrize(
    "shape", [(1,), (3, 1), (2, 31), (2, 2, 33), (4, 1025), (1500, 7), (2, 100003)], ids=str
)
def test_means_of_rows(launcher: Any, shape: tuple[int, ...], reduction: str, dtype: str) -> None:
    weight = np.random.default_rng(0).random(shape[-1:]) + 0.5
    if dtype == "float16" and reduction != "rows" and shape[0] == 1500:
        shape = (15, 7)  # whose sum is a number of half precision
    for weights in ((None, None), (weight, None)):
        for wanted in ((True, True, False, False), (True, False, False, False)):
            compare(
                launcher, pointwise.SoftLabel, shape, dtype, reduction,
                weights=weights, wanted=wanted,
            )  # fmt: skip


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize(
    "shapes", [((3, 4), (3, 4)), ((4,), (4,)), ((1,), None), (None, ()), ((), (3, 4))]
)
def test_weights(launcher: Any, shapes: tuple[Any, Any], reduction: str) -> None:
    generator = np.random.default_rng(0)
    weights = tuple(s if s is None else generator.random(s) + 0.5 for s in shapes)
    weights = tuple(w if w is None else np.asarray(w) for w in weights)
    for wanted in ((True, True, False, False), (True, False, False, False)):
        compare(
            launcher, pointwise.LogisticEntropy, (3, 4), "float32", reduction,
            weights=weights, wanted=wanted,
        )  # fmt: skip
    compare(
        launcher, pointwise.SquaredError, (3, 4), "float32", reduction, weights=(weights[0], None)
    )


@pytest.mark.parametrize("wanted", [(True, False, False, False), (False, True, False, False)])
@pytest.mark.parametrize("formula", FORMULAS, ids=lambda f: f.__name__)
def test_only_the_gradients_that_somebody_wants(launcher: Any, formula: Any, wanted: Any) -> None:
    compare(launcher, formula, (5, 7), "float32", "mean", wanted=wanted)


def values(K: Any, formula: Any, x: Any, y: Any, parameter: float = 0.0) -> np.ndarray:
    given = [K.xp.asarray(np.asarray(a, np.float32)) for a in (x, y)]
    return host(PointwiseLoss.fused_forward(K, *given, None, None, formula, "none", parameter))


def test_extreme_values(launcher: Any) -> None:
    inf, nan = np.inf, np.nan
    large = [1e4, -1e4, 1e-30, 100.0, -100.0]
    np.testing.assert_allclose(
        values(launcher, pointwise.LogisticEntropy, large, [1, 0, 0, 0, 1]),
        [0, 0, np.log(2), 100, 100], rtol=1e-6,
    )  # fmt: skip
    np.testing.assert_allclose(
        values(launcher, pointwise.BinaryEntropy, [0, 1, 0, 1], [1, 0, 0, 1]), [100, 100, 0, 0]
    )
    assert np.isnan(values(launcher, pointwise.BinaryEntropy, [-0.1, 1.1, nan], [0.5] * 3)).all()
    np.testing.assert_array_equal(values(launcher, pointwise.Divergence, [-1, -1], [0, 1]), [0, 1])
    np.testing.assert_allclose(
        values(launcher, pointwise.SoftLabel, [inf, -inf, inf, -inf, 1e-30], [0, 1, 0.5, 0.5, 1]),
        [inf, inf, inf, inf, np.log(2)], rtol=1e-6,
    )  # fmt: skip
    found = values(launcher, pointwise.SoftLabel, [inf, -inf, nan, 0], [1, 0, 0, nan])
    assert np.isnan(found).all()
    for formula in (pointwise.SmoothAbsoluteError, pointwise.HuberError, pointwise.AbsoluteError):
        found = values(launcher, formula, [inf, -inf, nan, inf], [0, 0, 0, inf], 1.0)
        assert (found[:2] == inf).all() and np.isnan(found[2:]).all()


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    flat = np.random.default_rng(0).standard_normal(9000).astype("f4")
    device = launcher.xp.asarray(flat)
    for start in range(4):
        for other in (start, 0):
            x, y = device[start : start + 8192], device[other + 700 : other + 8892]
            attrs = (None, None, pointwise.SquaredError, "sum", 0.0)
            out = PointwiseLoss.fused_forward(launcher, x, y, *attrs)
            difference = wide(flat[start : start + 8192]) - flat[other + 700 : other + 8892]
            np.testing.assert_allclose(host(out), (difference**2).sum(), rtol=1e-5)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(33,), (3, 4, 5), (9001,)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, ...], reduction: str, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    compare(threads, pointwise.HuberError, shape, "float32", reduction)
    weights = (np.ones(shape[-1:]), np.ones(shape[-1:]))
    compare(threads, pointwise.LogisticEntropy, shape, "float32", reduction, weights=weights)
    compare(threads, pointwise.SoftLabel, shape, "float32", "rows", weights=(weights[0], None))


@pytest.mark.parametrize("bad", [-0.25, 1.5, float("nan")])
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_what_is_no_probability_is_noted(launcher: Any, bad: float, reduction: str) -> None:
    x, y = operands(pointwise.BinaryEntropy, (5, 7), "float32")
    attrs = (pointwise.BinaryEntropy, reduction, 0.0)
    wanted = (True, True, False, False)
    grad = np.ones(() if reduction == "sum" else x.shape, np.float32)
    x[0, :2] = 0, 1
    taken(launcher)
    by_kernel(launcher, PointwiseLoss, [x, y, None, None], attrs, grad, wanted)
    assert taken(launcher) == []
    x[3, 2] = bad
    by_kernel(launcher, PointwiseLoss, [x, y, None, None], attrs, grad, wanted)
    assert taken(launcher) == [": ".join(pointwise.BinaryEntropy.range)]


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    x, y = operands(pointwise.SquaredError, (9001,), "float32")
    runs = set()
    for threads.seed in range(3):
        attrs = (None, None, pointwise.SquaredError, "mean", 0.0)
        runs.add(host(PointwiseLoss.fused_forward(threads, x, y, *attrs)).tobytes())
    assert len(runs) == 1


# ---- as the functions use them -----------------------------------------------------------------


LOSSES: dict[str, Any] = {
    "mse_loss": {},
    "l1_loss": {},
    "smooth_l1_loss": {"beta": 0.5},
    "huber_loss": {"delta": 0.5},
    "binary_cross_entropy": {},
    "binary_cross_entropy_with_logits": {},
    "kl_div": {"log_target": True},
    "soft_margin_loss": {},
}


def pair() -> list[gradlite.Tensor]:
    gradlite.manual_seed(0)
    return [
        (gradlite.rand(3, 4, dtype=gradlite.float64) * 0.8 + 0.1).requires_grad_() for _ in "xy"
    ]


@pytest.mark.parametrize("name", LOSSES)
def test_one_kernel_backward(native_kernels: None, name: str) -> None:
    with kernels.record() as launched:
        getattr(F, name)(*pair(), reduction="sum", **LOSSES[name]).backward()
    assert launched == ["loss_parts", "losses_total", "loss_backward"]


@pytest.mark.parametrize("name", LOSSES)
@pytest.mark.parametrize("reduction", ["sum", "none"])
def test_derivatives_of_first_and_second_order(
    native_kernels: None, name: str, reduction: str
) -> None:
    def function(x: Any, y: Any) -> Any:
        return getattr(F, name)(x, y, reduction=reduction, **LOSSES[name])

    assert gradlite.autograd.gradcheck(function, pair())
    if name != "l1_loss":
        assert gradlite.autograd.gradgradcheck(function, pair())


def test_weights_that_get_a_gradient_are_composed(native_kernels: None) -> None:
    x, y = pair()
    weight = gradlite.ones(4, dtype=gradlite.float64, requires_grad=True)
    F.binary_cross_entropy_with_logits(x, y, weight, pos_weight=weight).backward()
    assert weight.grad is not None


def test_on_the_cpu_a_probability_outside_0_and_1_is_an_error(native_kernels: None) -> None:
    with pytest.raises(RuntimeError, match="between 0 and 1"):
        F.binary_cross_entropy(gradlite.tensor([0.5, 1.5]), gradlite.tensor([0.0, 1.0]))
