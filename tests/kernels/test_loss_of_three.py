"""Losses of three operands with kernels: the formulas in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import loss_of_three as three
from gradlite.ops.loss_of_three import LossOfThree
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, host, wide

FORMULAS: dict[Any, float] = {
    three.PoissonOfLogarithm: 0.0,
    three.PoissonOfRate: 0.1,
    three.FullPoissonOfLogarithm: 0.0,
    three.FullPoissonOfRate: 0.1,
    three.HingeEmbedding: 0.7,
    three.Ranking: 0.3,
    three.Gaussian: 0.2,
    three.FullGaussian: 0.2,
}
TWO = [f for f in FORMULAS if not issubclass(f, (three.Ranking, three.Gaussian))]
GAUSSIANS = [three.Gaussian, three.FullGaussian]
SHAPES = [(), (1,), (31,), (32,), (33,), (5, 7), (1023,), (1024,), (1025,), (4, 2049), (100003,)]
TOLERANCES = {"bfloat16": 3.2e-2, "float16": 4e-3, "float32": 1e-5, "float64": 1e-12}


def operands(
    formula: Any, shape: tuple[int, ...], dtype: str, of_z: tuple[int, ...] | None
) -> list[Any]:
    """Away from the places where a gradient jumps, which rounding might cross."""
    generator = np.random.default_rng(len(shape))
    if formula is three.HingeEmbedding:
        x = generator.choice([-2.0, -0.5, 0.25, 0.5, 1.5], shape)
        y = generator.choice([-1.0, 1.0, 0.0], shape)
    elif formula is three.Ranking:
        x, y = (generator.choice([-2.0, -0.5, 0.25, 1.5], shape) for _ in range(2))
    elif formula in GAUSSIANS:
        x, y = (generator.standard_normal(shape) * 2 for _ in range(2))
    else:
        x, y = generator.random(shape) + 0.5, generator.integers(0, 6, shape) * 0.75
    z = None
    if of_z is not None:
        z = generator.choice([-1.0, 1.0], of_z)
        if formula in GAUSSIANS:
            z = generator.choice([0.0, 0.1, 0.5, 1.0, 3.0], of_z)
    return [a if a is None else np.asarray(a).astype(dtype) for a in (x, y, z)]


def compare(
    K: Any,
    formula: Any,
    shape: tuple[int, ...],
    dtype: str,
    reduction: str,
    *,
    of_z: Any = "whole",
    wanted: tuple[bool, ...] = (True, True, True),
) -> None:
    """With a z of the shape of x where a formula has one, or of another, or None for a number."""
    of_z = shape if of_z == "whole" else of_z
    inputs = operands(formula, shape, dtype, None if formula in TWO else of_z)
    has = [True, formula is not three.HingeEmbedding, inputs[2] is not None]
    wanted = tuple(a and b for a, b in zip(wanted, has))
    grad = np.random.default_rng(1).standard_normal(shape if reduction == "none" else ())
    grad = np.asarray(grad).astype(dtype)
    attrs = (formula, reduction, 0.75, FORMULAS[formula])
    exact = [None if a is None else wide(a) for a in inputs]
    expected = by_rule(LossOfThree, exact, attrs, wide(grad), wanted)
    found = by_kernel(K, LossOfThree, inputs, attrs, grad, wanted)
    losses = np.abs(LossOfThree.forward(np, *exact, formula, "none", *attrs[2:]))
    for place, (ours, reference, want) in enumerate(zip(found, expected, (True, *wanted))):
        if not want:
            continue
        assert ours.dtype == dtype and ours.shape == np.shape(reference)
        # A sum of numbers of either sign is as exact as the numbers are.
        size = float(np.abs(reference).max())
        if place == 0 and reduction == "sum":
            size = float(losses.sum())
        elif place == 3 and inputs[2].size < inputs[0].size:
            z = np.broadcast_to(exact[2], shape)
            each = by_rule(LossOfThree, [*exact[:2], z], attrs, wide(grad), wanted)[3]
            size = float(np.abs(each).sum(-1).max())
        tolerance = TOLERANCES[dtype]
        np.testing.assert_allclose(ours, reference, tolerance, tolerance * max(size, 1e-3))


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
@pytest.mark.parametrize("formula", GAUSSIANS, ids=lambda f: f.__name__)
@pytest.mark.parametrize(
    "shape", [(3, 4), (2, 1), (2, 31), (5, 33), (2, 3, 32), (4, 1025), (300, 7), (1, 4099)], ids=str
)
def test_a_variance_for_each_row(
    launcher: Any, shape: tuple[int, ...], formula: Any, dtype: str
) -> None:
    for reduction in ("mean", "none", "sum"):
        if reduction != "sum" or dtype != "float16" or np.prod(shape) < 2000:
            for wanted in ((True, True, True), (False, False, True), (True, True, False)):
                compare(
                    launcher, formula, shape, dtype, reduction, of_z=(*shape[:-1], 1),
                    wanted=wanted,
                )  # fmt: skip


@pytest.mark.parametrize("shape", [(), (5, 33), (4099,)], ids=str)
@pytest.mark.parametrize("formula", GAUSSIANS, ids=lambda f: f.__name__)
def test_a_variance_for_all(launcher: Any, shape: tuple[int, ...], formula: Any) -> None:
    for reduction in ("mean", "none", "sum"):
        compare(launcher, formula, shape, "float32", reduction, of_z=None)


@pytest.mark.parametrize(
    "wanted",
    [(True, False, False), (False, True, False), (False, False, True), (True, False, True)],
    ids=str,
)
@pytest.mark.parametrize("formula", [three.Ranking, three.Gaussian], ids=lambda f: f.__name__)
def test_only_the_gradients_that_somebody_wants(launcher: Any, formula: Any, wanted: Any) -> None:
    compare(launcher, formula, (5, 7), "float32", "mean", wanted=wanted)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    flat = np.random.default_rng(0).random(9000).astype("f4") + 0.5
    device = launcher.xp.asarray(flat)
    attrs = (three.FullGaussian, "sum", 0.0, 1e-6)
    for start in range(4):
        for other in (start, 0):
            places = start, other + 300, other + 700
            inputs = [device[p : p + 8192] for p in places]
            out = LossOfThree.fused_forward(launcher, *inputs, *attrs)
            exact = [wide(flat[p : p + 8192]) for p in places]
            np.testing.assert_allclose(
                host(out), LossOfThree.forward(np, *exact, *attrs), rtol=1e-5
            )


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("reduction", ["mean", "none"])
@pytest.mark.parametrize("shape", [(33,), (3, 4, 5), (2, 4501)], ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, shape: tuple[int, ...], reduction: str, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    for formula in (three.FullPoissonOfRate, three.Ranking, three.Gaussian):
        compare(threads, formula, shape, "float32", reduction)
    compare(threads, three.Gaussian, shape, "float32", reduction, of_z=(*shape[:-1], 1))


def test_the_same_bits_at_every_run(threads: ThreadsLauncher) -> None:
    inputs = operands(three.Gaussian, (3, 3001), "float32", (3, 1))
    runs = set()
    for threads.seed in range(3):
        attrs = (three.Gaussian, "mean", 0.0, 0.2)
        found = by_kernel(threads, LossOfThree, inputs, attrs, np.float32(1), (True,) * 3)
        runs.add(b"".join(a.tobytes() for a in found))
    assert len(runs) == 1


# ---- as PyTorch has them -----------------------------------------------------------------------

INF, NAN = float("inf"), float("nan")
EXTREMES = [0.0, 1.0, -1.0, 2.0, 0.5, 1e-30, 1e30, INF, -INF, NAN]


def pairs(first: list[float], second: list[float]) -> list[list[float]]:
    """Every number of one list beside every one of the other."""
    return [[a for a in first for _ in second], [b for _ in first for b in second]]


# Products of both stay finite: whether 1e60 is, before it is subtracted, is the compiler's choice.
COUNTS = pairs(EXTREMES, [0.0, 0.5, 1.0, 2.0, 1e5, NAN])
LABELS = pairs([*EXTREMES, 0.3], [1.0, -1.0, 0.0, 2.0])
RANKED = [*pairs([*EXTREMES, 1.3], [0.0, 1.0, INF, NAN])]
VARIANCES = [*pairs(EXTREMES[:7], [0.0, 1e-7, 1e-6, 0.5, 1e30, NAN])]
CASES: dict[str, Any] = {
    "poisson": ("poisson_nll_loss", COUNTS, {}, (0, 1)),
    "poisson rate": ("poisson_nll_loss", COUNTS, {"log_input": False}, (0, 1)),
    # PyTorch's derivative by a count of 0 is NaN, and that by others of 1 and less with it.
    "poisson full": ("poisson_nll_loss", COUNTS, {"full": True}, (0,)),
    "poisson rate full": ("poisson_nll_loss", COUNTS, {"log_input": False, "full": True}, (0,)),
    "hinge": ("hinge_embedding_loss", LABELS, {"margin": 0.3}, (0,)),
    "hinge at 1": ("hinge_embedding_loss", LABELS, {}, (0,)),
    **{
        f"ranking {y}": ("margin_ranking_loss", [*RANKED, [y] * 44], {"margin": 0.3}, (0, 1, 2))
        for y in (1.0, -1.0, 0.0)
    },
    "ranking at 0": ("margin_ranking_loss", [*RANKED, [1.0] * 44], {}, (0, 1, 2)),
    **{
        f"gaussian {y}": (
            "gaussian_nll_loss", [VARIANCES[0], [y] * 42, VARIANCES[1]], options, (0, 1, 2)
        )
        for y in (0.0, 1.0)
        for options in ({}, {"full": True, "eps": 1e-3})
    },
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_extreme_values_are_as_in_pytorch(launcher: Any, case: str) -> None:
    torch = pytest.importorskip("torch")
    name, given, options, wanted = CASES[case]
    theirs = [torch.tensor(a) for a in given]
    for i in wanted:
        theirs[i].requires_grad_()
    expected = getattr(torch.nn.functional, name)(*theirs, reduction="none", **options)
    gradients = torch.autograd.grad(expected.sum(), [theirs[i] for i in wanted])

    full, epsilon = options.get("full", False), options.get("eps", 1e-8)
    if name == "poisson_nll_loss":
        formula = three.POISSON[options.get("log_input", True), full]
    elif name == "gaussian_nll_loss":
        formula, epsilon = (three.FullGaussian if full else three.Gaussian), max(epsilon, 1e-6)
    else:
        formula = three.Ranking if len(given) == 3 else three.HingeEmbedding
        epsilon = options.get("margin", 0.0 if len(given) == 3 else 1.0)
    inputs = [np.asarray(a, np.float32) for a in given] + [None] * (3 - len(given))
    mask = tuple(i in wanted for i in range(3))
    attrs = (formula, "none", 0.0, epsilon)
    grad = np.ones(len(given[0]), np.float32)
    out, *found = by_kernel(launcher, LossOfThree, inputs, attrs, grad, mask)
    np.testing.assert_allclose(out, expected.detach().numpy(), 2e-6, 1e-6)
    for i, gradient in zip(wanted, gradients):
        np.testing.assert_allclose(found[i], gradient.numpy(), 2e-6, 1e-6, err_msg=str(i))


# ---- as the functions use them -----------------------------------------------------------------


def samples() -> dict[str, tuple[Any, list[gradlite.Tensor], dict[str, Any]]]:
    gradlite.manual_seed(0)
    x, y, z = (gradlite.rand(3, 4, dtype=gradlite.float64) + 0.5 for _ in "xyz")
    signs = gradlite.where(gradlite.rand(3, 4) < 0.5, 1.0, -1.0)
    signs = signs.to(gradlite.float64)
    return {
        "poisson": (F.poisson_nll_loss, [x, y], {}),
        "poisson of rates": (F.poisson_nll_loss, [x, 2 * y], {"log_input": False, "full": True}),
        "poisson of integers": (F.poisson_nll_loss, [x, (3 * y).long()], {"full": True}),
        "hinge": (F.hinge_embedding_loss, [x, signs], {"margin": 1.01}),
        "hinge of integers": (F.hinge_embedding_loss, [x, signs.long()], {}),
        "ranking": (F.margin_ranking_loss, [x, y, signs], {"margin": 0.013}),
        "ranking of integers": (F.margin_ranking_loss, [x, y, signs.long()], {"margin": 0.013}),
        "ranking of columns": (F.margin_ranking_loss, [x, y[:, :1], signs], {"margin": 0.013}),
        "gaussian": (F.gaussian_nll_loss, [x, y, z], {}),
        "gaussian of rows": (F.gaussian_nll_loss, [x, y, z[:, :1]], {"full": True}),
        "gaussian of rows without a dimension": (F.gaussian_nll_loss, [x, y, z[:, 0]], {}),
        "gaussian of columns": (F.gaussian_nll_loss, [x, y, z[:1]], {}),
        "gaussian of a number": (F.gaussian_nll_loss, [x, y], {"var": 0.7}),
        "soft margin of integers": (F.soft_margin_loss, [x, signs.long()], {}),
        "labels": (F.multilabel_soft_margin_loss, [x, y], {}),
        "labels of one": (F.multilabel_soft_margin_loss, [x[0], y[0]], {"weight": z[0]}),
        "labels of integers": (F.multilabel_soft_margin_loss, [x, (y > 1).long()], {}),
    }


# PyTorch's hinge is no function of labels that get a gradient.
GRADIENTS_OF_ONE = {"hinge"}


def leaves(name: str) -> tuple[Any, list[Any], dict[str, Any], list[Any]]:
    function, given, options = samples()[name]
    wants = [
        t.is_floating_point() and not (name in GRADIENTS_OF_ONE and i) for i, t in enumerate(given)
    ]
    given = [t.detach().clone().requires_grad_(w) for t, w in zip(given, wants)]
    return function, given, options, [t for t in given if t.requires_grad]


@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
@pytest.mark.parametrize("name", samples())
def test_functions_are_as_in_pytorch(native_kernels: None, name: str, reduction: str) -> None:
    torch = pytest.importorskip("torch")
    function, given, options, wanted = leaves(name)
    with kernels.record() as launched:
        result = function(*given, reduction=reduction, **options)
        weights = gradlite.rand(result.shape, dtype=gradlite.float64)
        gradients = gradlite.autograd.grad(result, wanted, weights)
    forward = [n for n in launched if n.startswith(("loss", "soft_label_rows"))]
    assert len(forward) == (2 if reduction == "none" else 3) - (name == "gaussian of rows") - (
        name == "gaussian of rows without a dimension"
    ), launched

    theirs = [torch.tensor(t.detach().numpy(), requires_grad=t.requires_grad) for t in given]
    more = {k: torch.tensor(v.numpy()) if k == "weight" else v for k, v in options.items()}
    expected = getattr(torch.nn.functional, function.__name__)(*theirs, reduction=reduction, **more)
    # PyTorch takes the logarithm of integers in single precision.
    near = 1e-6 if name == "poisson of integers" else 1e-12
    np.testing.assert_allclose(result.detach().numpy(), expected.detach().numpy(), near)
    reference = torch.autograd.grad(
        expected, [t for t in theirs if t.requires_grad], torch.tensor(weights.numpy())
    )
    for ours, gradient in zip(gradients, reference, strict=True):
        np.testing.assert_allclose(ours.numpy(), gradient.numpy(), 1e-12, 1e-14)


@pytest.mark.parametrize("reduction", ["sum", "none"])
@pytest.mark.parametrize("name", samples())
def test_derivatives_of_first_and_second_order(
    native_kernels: None, name: str, reduction: str
) -> None:
    function, given, options, wanted = leaves(name)
    rest = iter(wanted)
    places = [next(rest) if t.requires_grad else None for t in given]

    def of(*inputs: Any) -> Any:
        rest = iter(inputs)
        operands = [t if place is None else next(rest) for t, place in zip(given, places)]
        return function(*operands, reduction=reduction, **options)

    assert gradlite.autograd.gradcheck(of, wanted)
    assert gradlite.autograd.gradgradcheck(of, wanted)


def test_operands_that_kernels_do_not_take_are_composed(native_kernels: None) -> None:
    x = gradlite.rand(3, requires_grad=True)
    with kernels.record() as launched:
        for y in (gradlite.rand(3, dtype=gradlite.float64), gradlite.rand(3) > 0.5):
            F.poisson_nll_loss(x, y).backward()
        F.poisson_nll_loss(gradlite.rand(0), gradlite.rand(0))
    assert not any("loss" in name for name in launched)
    with pytest.raises(RuntimeError, match="must match the size"):
        F.poisson_nll_loss(x, gradlite.rand(4))
    with pytest.raises(ValueError, match="negative entry"):
        F.gaussian_nll_loss(x, x, gradlite.tensor([1.0, -1.0, 1.0]))
