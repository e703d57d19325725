"""interpolate and the shuffles: source positions, and what they refuse."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import same


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "linear"])
@pytest.mark.parametrize("size", [1, 2, 3, 7])
def test_every_pair_of_sizes(mode: str, size: int) -> None:
    def program(library: Any) -> Any:
        interpolate = library.nn.functional.interpolate
        x = library.arange(float(size)).reshape(1, 1, size)
        sizes = [interpolate(x, wanted, mode=mode) for wanted in range(1, 20)]
        scales = [interpolate(x, scale_factor=s, mode=mode) for s in (1.0, 1.3, 2, 2.7, 3)]
        return sizes, scales

    same(program)


@pytest.mark.parametrize(
    ("mode", "dims", "antialias"),
    [
        *((mode, dims, False) for mode in ("nearest", "nearest-exact") for dims in (1, 2, 3)),
        ("linear", 1, False), ("trilinear", 3, False),
        *((mode, 2, antialias) for mode in ("bilinear", "bicubic") for antialias in (False, True)),
    ],
)  # fmt: skip
def test_gradients_and_the_names_of_their_nodes(mode: str, dims: int, antialias: bool) -> None:
    x = np.random.default_rng(0).standard_normal((2, 3, 5, 4, 7)[: 2 + dims])

    def program(library: Any) -> Any:
        results = []
        for size in ((5, 4, 7), (2, 9, 7), (11, 3, 20), (1, 1, 1)):
            leaf = library.tensor(x, requires_grad=True)
            out = library.nn.functional.interpolate(
                leaf, size[:dims], mode=mode, antialias=antialias
            )
            results += [out, *library.autograd.grad((out * out).sum(), leaf)]
        return results

    same(program)


WRONG: dict[str, Any] = {
    "neither": lambda F, T: F.interpolate(T(1, 1, 4, 4)),
    "both": lambda F, T: F.interpolate(T(1, 1, 4, 4), 3, 2),
    "sizes": lambda F, T: F.interpolate(T(1, 1, 4, 4), (3, 2, 3)),
    "scales": lambda F, T: F.interpolate(T(1, 1, 4, 4), scale_factor=(1, 2, 3)),
    "align_corners": lambda F, T: F.interpolate(T(1, 1, 4, 4), 3, align_corners=True),
    "recompute": lambda F, T: F.interpolate(T(1, 1, 4), 2, recompute_scale_factor=True),
    "linear in 4d": lambda F, T: F.interpolate(T(1, 1, 4, 4), 3, mode="linear"),
    "bilinear in 3d": lambda F, T: F.interpolate(T(1, 1, 4), 3, mode="bilinear"),
    "shuffle dims": lambda F, T: F.pixel_shuffle(T(3, 2), 2),
    "shuffle channels": lambda F, T: F.pixel_shuffle(T(1, 3, 2, 2), 2),
    "shuffle factor": lambda F, T: F.pixel_shuffle(T(1, 4, 2, 2), 0),
    "unshuffle height": lambda F, T: F.pixel_unshuffle(T(1, 4, 3, 2), 2),
    "unshuffle width": lambda F, T: F.pixel_unshuffle(T(1, 4, 4, 3), 2),
    "unshuffle factor": lambda F, T: F.pixel_unshuffle(T(1, 4, 4, 4), 0),
    "channel groups": lambda F, T: F.channel_shuffle(T(1, 3, 2), 2),
    "channel dims": lambda F, T: F.channel_shuffle(T(1, 3), 3),
    "no groups": lambda F, T: F.channel_shuffle(T(1, 4, 2), 0),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.functional, library.ones),
        raises=(RuntimeError, ValueError, NotImplementedError),
        message="exact",
    )


@pytest.mark.parametrize("options", [{"size": (0, 3)}, {"size": 3, "mode": "sharp"}], ids=str)
def test_sizes_and_modes_that_cannot_be(options: dict[str, Any]) -> None:
    same(
        lambda library: library.nn.functional.interpolate(library.ones(1, 1, 4, 4), **options),
        raises=(RuntimeError, NotImplementedError),
        message="type",
    )


@pytest.mark.parametrize("mode", ["bilinear", "bicubic"])
@pytest.mark.parametrize("antialias", [False, True])
@pytest.mark.parametrize("align_corners", [False, True])
@pytest.mark.parametrize("size", [(3, 5), (7, 4), (1, 1), (31, 40), (16, 3)])
def test_images_of_bytes(mode: str, antialias: bool, align_corners: bool, size: Any) -> None:
    image = np.random.default_rng(0).integers(0, 256, (2, 4, 9, 7)).astype(np.uint8)
    same(
        lambda library: library.nn.functional.interpolate(
            library.tensor(image), size, mode=mode, align_corners=align_corners, antialias=antialias
        )
    )


@pytest.mark.parametrize(
    ("mode", "dtype", "shape"),
    [
        ("bilinear", "int64", (1, 1, 4, 4)),
        ("bicubic", "int32", (1, 1, 4, 4)),
        ("linear", "uint8", (1, 1, 4)),
        ("trilinear", "uint8", (1, 1, 4, 4, 4)),
    ],
)
def test_integers_that_no_weights_resize(mode: str, dtype: str, shape: tuple[int, ...]) -> None:
    same(
        lambda library: library.nn.functional.interpolate(
            library.ones(shape, dtype=getattr(library, dtype)), 3, mode=mode
        ),
        raises=NotImplementedError,
        message="type",
    )


@pytest.mark.parametrize("size", [2.5, (2.5, 3), 1e20, ("a", 2)], ids=str)
def test_sizes_that_are_no_integers(size: Any) -> None:
    same(
        lambda library: library.nn.functional.interpolate(library.ones(1, 1, 4, 4), size),
        raises=TypeError,
        message="exact" if isinstance(size, tuple) else "type",
    )


def test_a_size_in_a_tensor() -> None:
    same(
        lambda library: library.nn.functional.interpolate(
            library.ones(1, 1, 4, 4), library.tensor(3)
        )
    )


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_a_scale_beyond_all_sizes(mode: str) -> None:
    same(
        lambda library: library.nn.functional.interpolate(
            library.ones(1, 1, 4, 4), scale_factor=1e20, mode=mode
        ),
        raises=RuntimeError,
        message="exact",
    )
