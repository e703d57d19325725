"""Grids: points that are no numbers, images without channels, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

from tests.oracle import same

INF, NAN = float("inf"), float("nan")
POINTS = [NAN, INF, -INF, 0.3, 1e5, -3.0]


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
def test_points_that_are_far_away_or_no_numbers(mode: str, padding: str, align: bool) -> None:
    image = np.random.default_rng(0).standard_normal((1, 1, 5, 7)).astype(np.float32)
    grid = np.array(list(itertools.product(POINTS, repeat=2)), np.float32).reshape(1, 6, 6, 2)
    same(
        lambda library: library.nn.functional.grid_sample(
            library.tensor(image), library.tensor(grid), mode, padding, align
        ),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize(("channels", "sizes"), [(3, (5, 7)), (80, (5, 7)), (3, (4, 5, 6))])
def test_gradients_on_pixels_at_borders_and_outside(
    mode: str, padding: str, align: bool, channels: int, sizes: tuple[int, ...]
) -> None:
    if mode == "bicubic" and len(sizes) == 3:
        mode = "bilinear"
    rng, dims = np.random.default_rng(0), len(sizes)
    places = [0.25, 1e3, -3.0, -1.0, 1.0, 0.0, 1.5, 1 + 1 / 4, 1 - 1 / 4][: 9 if dims == 2 else 6]
    points = np.array(list(itertools.product(places, repeat=dims))).reshape(
        1, len(places), -1, dims
    )
    points = points if dims == 2 else points[:, :, None]
    image = rng.standard_normal((1, channels, *sizes))
    grad = rng.standard_normal((1, channels, *points.shape[1:-1]))

    def gradients(library: Any) -> Any:
        given = [library.tensor(a, requires_grad=True) for a in (image, points)]
        out = library.nn.functional.grid_sample(*given, mode, padding, align)
        return library.autograd.grad(out, given, library.tensor(grad))

    same(gradients)


@pytest.mark.parametrize("dims", [2, 3])
def test_no_numbers_outside_are_passed_on_by_images_alone(dims: int) -> None:
    image = np.ones((1, 1, *(3,) * dims), np.float32)
    grid = np.full((1, *(1,) * dims, dims), NAN, np.float32)
    grid[..., 0] = 0.5

    def gradients(library: Any) -> Any:
        given = [library.tensor(a, requires_grad=True) for a in (image, grid)]
        out = library.nn.functional.grid_sample(*given, align_corners=False)
        return [out.detach(), *library.autograd.grad(out.sum(), given)]

    same(gradients)


@pytest.mark.parametrize("dims", [2, 3])
@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
@pytest.mark.parametrize("kinds", ["int64 float32", "float32 float64", "float32 int64"])
def test_dtypes_that_are_refused(dims: int, mode: str, kinds: str) -> None:
    of_image, of_grid = kinds.split()
    same(
        lambda library: library.nn.functional.grid_sample(
            library.ones(1, 1, *(2,) * dims, dtype=getattr(library, of_image)),
            library.zeros(1, *(1,) * dims, dims, dtype=getattr(library, of_grid)),
            mode,
            align_corners=False,
        ),
        raises=(NotImplementedError, RuntimeError),
        message="exact",
    )


@pytest.mark.parametrize("dims", [2, 3])
def test_images_without_channels(dims: int) -> None:
    same(
        lambda library: library.nn.functional.grid_sample(
            library.ones(2, 0, *(3,) * dims),
            library.ones(2, *(1,) * dims, dims),
            align_corners=False,
        )
    )


WRONG: dict[str, Any] = {
    "input of three dimensions": lambda F, T: F.grid_sample(
        T(1, 1, 2), T(1, 1, 1, 2), align_corners=False
    ),
    "three coordinates": lambda F, T: F.grid_sample(
        T(1, 1, 2, 2), T(1, 1, 1, 3), align_corners=False
    ),
    "batches": lambda F, T: F.grid_sample(T(2, 1, 2, 2), T(1, 1, 1, 2), align_corners=False),
    "no rows": lambda F, T: F.grid_sample(T(1, 1, 0, 2), T(1, 1, 1, 2), align_corners=False),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.functional, library.ones),
        raises=RuntimeError,
        message="exact",
    )


def test_a_grid_of_one_row_between_centres_warns() -> None:
    same(
        lambda library: library.nn.functional.affine_grid(
            library.ones(2, 2, 3), [2, 1, 1, 5], align_corners=True
        ),
        warns="unit-size grids",
        message="exact",
    )
