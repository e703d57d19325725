"""Images sampled with kernels: the rule on NumPy's arrays in float64 is the reference.

Coordinates are multiples of 1/64, so that places are exact in every dtype: what lies on a pixel or
half-way between two does so for the kernels too.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import grid_sampler
from gradlite.ops.grid_sampler import GridSampler2D, GridSampler3D
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, wide

TOLERANCES = {"bfloat16": 1e-2, "float16": 2e-3, "float32": 2e-6, "float64": 1e-13}
INF, NAN = float("inf"), float("nan")
# Images, and the shape of their points.
SHAPES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3, 5, 7), (3, 5)),
    ((1, 1, 1, 1), (1, 2)),
    ((1, 11, 4, 3), (31, 1)),
    ((2, 2, 6, 5), (9, 17)),
]
VOLUMES: list[tuple[tuple[int, ...], tuple[int, ...]]] = [
    ((2, 3, 4, 5, 3), (3, 2, 5)),
    ((1, 9, 2, 1, 3), (2, 33, 1)),
]
MODES = [
    *itertools.product(("nearest", "bilinear", "bicubic"), grid_sampler.PADDINGS, (False, True)),
]


def operands(
    shape: tuple[int, ...], points: tuple[int, ...], dtype: str, extreme: bool = False
) -> list[np.ndarray]:
    """An image, points inside and outside it, and a gradient."""
    rng = np.random.default_rng(0)
    dims = len(shape) - 2
    image = rng.integers(-64, 65, shape) / 32
    grid = rng.integers(-96, 97, (shape[0], *points, dims)) / 64
    grid.reshape(-1)[: 2 * dims] = [1.0] * dims + [-1.0] * dims
    if extreme:
        rare = np.array(list(itertools.product((NAN, INF, -INF, 0.25, -200.0), repeat=dims)))
        flat = grid.reshape(-1, dims)
        flat[: len(rare)] = rare[: len(flat)]
    grad = rng.integers(-64, 65, (*shape[:2], *points)) / 32
    return [a.astype(dtype) for a in (image, grid, grad)]


def compare(
    K: Any, case: Any, mode: tuple[Any, ...], dtype: str, wanted: Any = (True, True),
    extreme: bool = False,
) -> list[Any]:  # fmt: skip
    op = GridSampler2D if len(case[0]) == 4 else GridSampler3D
    image, grid, grad = operands(*case, dtype, extreme)
    with np.errstate(invalid="ignore"):
        expected = by_rule(op, [wide(image), wide(grid)], mode, wide(grad), wanted)
    found = by_kernel(K, op, [image, grid], mode, grad, wanted)
    for name, a, b in zip(("values", "images", "points"), found, expected):
        if b is None:
            continue
        assert a.dtype == dtype, name
        assert a.shape == b.shape, name
        size = np.abs(b[np.isfinite(b)]).max(initial=1)
        tolerance = TOLERANCES[dtype]
        np.testing.assert_allclose(wide(a), b, tolerance, tolerance * size, err_msg=name)
    return found


def fits(case: Any, mode: tuple[Any, ...]) -> bool:
    return len(case[0]) == 4 or mode[0] != "bicubic"


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("case", SHAPES + VOLUMES, ids=str)
def test_values_and_gradients(launcher: Any, case: Any, dtype: str) -> None:
    for mode in MODES:
        if fits(case, mode):
            compare(launcher, case, mode, dtype)


@pytest.mark.parametrize("wanted", [(True, False), (False, True)])
def test_one_gradient_alone(launcher: Any, wanted: Any) -> None:
    for case, mode in ((SHAPES[0], "bicubic"), (VOLUMES[0], "bilinear"), (SHAPES[2], "nearest")):
        compare(launcher, case, (mode, "zeros", False), "float32", wanted)


@pytest.mark.parametrize("mode", MODES, ids=str)
def test_points_that_are_far_away_or_no_numbers(launcher: Any, mode: tuple[Any, ...]) -> None:
    for case in (((1, 2, 5, 7), (6, 5)), ((1, 2, 3, 5, 2), (5, 5, 6))):
        if fits(case, mode):
            compare(launcher, case, mode, "float32", extreme=True)


def test_pixels_that_are_no_numbers_stay_where_they_are(launcher: Any) -> None:
    image = np.zeros((1, 1, 4, 4), "f4")
    image[0, 0, 1, 1], image[0, 0, 3, 3] = NAN, INF
    # Beside them, between them and others, and outside next to the last.
    grid = np.array([[-0.75, 0.75], [-0.5, -0.5], [1.5, 1.5], [1.0, 1.0]], "f4").reshape(1, 1, 4, 2)
    for mode in ("nearest", "bilinear"):
        attrs = (mode, "zeros", False)
        grad = np.ones((1, 1, 1, 4), "f4")
        expected = by_rule(GridSampler2D, [image, grid], attrs, grad, (True, True))
        found = by_kernel(launcher, GridSampler2D, [image, grid], attrs, grad, (True, True))
        for a, b in zip(found, expected):
            np.testing.assert_array_equal(a, b)
    assert np.isfinite(found[0]).tolist() == [[[[True, False, True, False]]]]


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for case in (((2, 9, 3, 4), (2, 5)), VOLUMES[1]):
        for mode in MODES[seed % 2 :: 2]:
            if fits(case, mode):
                compare(threads, case, mode, "float32", extreme=seed == 2)


def test_arrays_that_start_anywhere(launcher: Any) -> None:
    image, grid, grad = operands(*SHAPES[0], "float32")
    expected = by_rule(GridSampler2D, [image, grid], MODES[8], grad, (True, True))
    moved = []
    for array in (image, grid, grad):
        flat = np.zeros(array.size + 1, array.dtype)
        flat[1:] = array.reshape(-1)
        moved.append(flat[1:].reshape(array.shape))
    found = by_kernel(launcher, GridSampler2D, moved[:2], MODES[8], moved[2], (True, True))
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, 1e-5, 1e-5)


@pytest.fixture
def deterministic() -> Any:
    gradlite.use_deterministic_algorithms(True)
    yield
    gradlite.use_deterministic_algorithms(False)


@pytest.mark.parametrize("case", [SHAPES[3], VOLUMES[0]], ids=str)
def test_in_order_when_asked(threads: ThreadsLauncher, deterministic: Any, case: Any) -> None:
    op = GridSampler2D if len(case[0]) == 4 else GridSampler3D
    image, grid, grad = operands(*case, "float32")
    grad = np.random.default_rng(1).standard_normal(grad.shape).astype("f4")  # sums get rounded
    attrs = ("bilinear", "border", True)
    first: list[Any] = []
    for threads.seed in range(3):
        with kernels.record() as launched:
            found = by_kernel(threads, op, [image, grid], attrs, grad, (True, True))
        assert len(launched) == 3
        assert launched[1] == launched[2]
        first = first or found
        for a, b in zip(found, first):
            np.testing.assert_array_equal(a, b)
    expected = by_rule(op, [wide(image), wide(grid)], attrs, wide(grad), (True, True))
    for a, b in zip(first, expected):
        np.testing.assert_allclose(a, b, 1e-5, 1e-5)


def test_the_order_is_that_of_the_points(launcher: Any, deterministic: Any) -> None:
    image, grid = np.zeros((1, 2, 1, 1), "f4"), np.zeros((1, 1, 300, 2), "f4")
    grad = np.random.default_rng(0).standard_normal((1, 2, 1, 300)).astype("f4")
    attrs = ("nearest", "border", False)
    _, dx, _ = by_kernel(launcher, GridSampler2D, [image, grid], attrs, grad, (True, False))
    in_order = grad.reshape(2, 300).cumsum(1, dtype="f4")[:, -1]
    np.testing.assert_array_equal(dx.reshape(2), in_order)


def test_what_kernels_cannot_serve_is_left_to_the_rule(
    launcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    image, grid, _ = (launcher.xp.asarray(a) for a in operands(*SHAPES[0], "float32"))
    mode = ("bilinear", "zeros", False)
    assert GridSampler2D.fused_forward(launcher, image[:, :0], grid, *mode) is NotImplemented
    for most in (35, 90):  # of the pixels of an image, of the places of the result
        monkeypatch.setattr(grid_sampler, "MOST", most)
        assert GridSampler2D.fused_forward(launcher, image, grid, *mode) is NotImplemented
    monkeypatch.setattr(grid_sampler, "MOST", 91)
    assert GridSampler2D.fused_forward(launcher, image, grid, *mode) is not NotImplemented


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("dims", [2, 3])
def test_ops_use_them(monkeypatch: pytest.MonkeyPatch, dims: int, dtype: str) -> None:
    stand_in.install(monkeypatch)
    image, grid, _ = operands(*(SHAPES if dims == 2 else VOLUMES)[0], dtype)
    results = []
    for device in ("cpu", "cuda"):
        given = [gradlite.tensor(a).to(device).requires_grad_() for a in (image, grid)]
        with kernels.record() as launched:
            out = F.grid_sample(*given, align_corners=False)
            out.sum().backward()
        results.append([t.detach().float().cpu().numpy() for t in (out, *[g.grad for g in given])])
    name = "grid_sample_linear" if dims == 2 else "grid_sample_volume_linear"
    assert [n for n in launched if "grid" in n] == [name, f"{name}_backward"]
    tolerance = TOLERANCES[dtype]
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, tolerance, tolerance * np.abs(a).max())
