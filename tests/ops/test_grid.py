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
