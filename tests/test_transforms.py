"""Transforms of images, on arrays and Tensors, against PyTorch's functions."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import transforms as T
from gradlite.random import default_generator

rng = np.random.default_rng(0)
SHAPES = [(6, 7), (1, 6, 7), (3, 6, 7), (2, 3, 6, 7)]
TRANSFORMS = [
    T.CenterCrop(4),
    T.CenterCrop((9, 3)),
    T.RandomCrop((4, 5)),
    T.RandomCrop(6, padding=2, fill=1),
    T.RandomCrop(9, padding=(1, 2), pad_if_needed=True, padding_mode="reflect"),
    T.RandomHorizontalFlip(0.5),
    T.RandomVerticalFlip(0.5),
    T.RandomRotation(30),
    T.RandomRotation((10, 50), interpolation="bilinear", expand=True, fill=2.0),
    T.Normalize(0.5, 2.0),
    T.Lambda(lambda image: image * 2),
    T.Compose([T.RandomHorizontalFlip(), T.RandomCrop(3)]),
]


def image(*shape: int) -> np.ndarray:
    return rng.random(shape).astype(np.float32)


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
@pytest.mark.parametrize("shape", SHAPES)
def test_arrays_and_tensors_agree(transform: Any, shape: tuple[int, ...]) -> None:
    array = image(*shape)
    original = array.copy()
    results: list[Any] = []
    leaf = gradlite.tensor(array, requires_grad=True)
    for value in (array, gradlite.tensor(array), leaf):
        gradlite.manual_seed(4)
        results.append(transform(value))
        assert type(results[-1]) is type(value)
    got = results[0]
    assert got.dtype == np.float32 and got.flags.writeable and got.shape[:-2] == shape[:-2]
    for other in results[1:]:
        assert other.dtype == gradlite.float32
        np.testing.assert_allclose(other.array, got, rtol=1e-6)
    assert (array == original).all() and not np.shares_memory(got, array)
    results[2].sum().backward()
    assert leaf.grad is not None and leaf.grad.shape == leaf.shape


@pytest.mark.parametrize("transform", TRANSFORMS, ids=lambda t: type(t).__name__)
def test_the_global_seed_repeats(transform: Any) -> None:
    array = image(3, 9, 9)
    results = []
    for _ in range(2):
        gradlite.manual_seed(9)
        results.append([transform(array) for _ in range(5)])
    for first, second in zip(*results, strict=True):
        np.testing.assert_array_equal(first, second)


# -- each by itself -----------------------------------------------------------------------------


def test_to_tensor() -> None:
    grey = rng.integers(0, 256, (4, 5)).astype(np.uint8)
    colour = rng.integers(0, 256, (4, 5, 3)).astype(np.uint8)
    got = T.ToTensor()(grey)
    assert got.dtype == gradlite.float32 and got.shape == (1, 4, 5)
    np.testing.assert_array_equal(got.array[0], grey.astype(np.float32) / 255)
    got = T.ToTensor()(colour)
    assert got.shape == (3, 4, 5) and got.is_contiguous()
    np.testing.assert_array_equal(got.array, colour.transpose(2, 0, 1).astype(np.float32) / 255)
    integers = colour.astype(np.int64)
    got = T.ToTensor()(integers)
    assert got.dtype == gradlite.int64 and not np.shares_memory(got.array, integers)
    np.testing.assert_array_equal(got.array, integers.transpose(2, 0, 1))
    for bad, error, message in (
        ("text", TypeError, "pic should be PIL Image or ndarray"),
        (np.zeros(3), ValueError, "2/3 dimensional. Got 1 dim"),
        (np.zeros((1, 2, 3, 4)), ValueError, "2/3 dimensional. Got 4 dim"),
    ):
        with pytest.raises(error, match=message):
            T.ToTensor()(bad)
    image_module = pytest.importorskip("PIL.Image")
    got = T.ToTensor()(image_module.fromarray(colour))
    np.testing.assert_array_equal(got.array, T.ToTensor()(colour).array)


def test_normalize() -> None:
    array = image(3, 4, 5)
    mean, std = [0.1, 0.2, 0.3], [0.5, 0.25, 2.0]
    expected = (array - np.float32(mean)[:, None, None]) / np.float32(std)[:, None, None]
    np.testing.assert_array_equal(T.Normalize(mean, std)(array), expected)
    np.testing.assert_array_equal(T.Normalize(0.5, 2.0)(array), (array - 0.5) / 2)
    for value in (array.copy(), gradlite.tensor(array)):
        assert T.Normalize(mean, std, inplace=True)(value) is value
        np.testing.assert_allclose(getattr(value, "array", value), expected, rtol=1e-6)
    with pytest.raises(TypeError, match=r"should be a float tensor\. Got uint8"):
        T.Normalize(0, 1)(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(TypeError, match=r"Got gradlite\.int64"):
        T.Normalize(0, 1)(gradlite.zeros(1, 2, 2, dtype=gradlite.int64))
    with pytest.raises(ValueError, match="std evaluated to zero"):
        T.Normalize([0, 0, 0], [1, 0, 1])(array)
    with pytest.raises(ValueError, match=r"Got shape \(3,\)"):
        T.Normalize(0, 1)(np.zeros(3))


@pytest.mark.parametrize(("size", "wanted"), [(7, 3), (6, 3), (5, 5), (3, 6), (3, 7), (4, 7)])
def test_center_crop(size: int, wanted: int) -> None:
    array = image(2, size, size)
    got = T.CenterCrop(wanted)(array)
    assert got.shape == (2, wanted, wanted)
    if wanted <= size:
        start = round((size - wanted) / 2)
        np.testing.assert_array_equal(got, array[:, start : start + wanted, start : start + wanted])
    else:
        before = (wanted - size) // 2
        sides = (before, wanted - size - before)
        np.testing.assert_array_equal(got, np.pad(array, ((0, 0), sides, sides)))


@pytest.mark.parametrize("mode", ["constant", "edge", "reflect", "symmetric"])
@pytest.mark.parametrize("padding", [2, (1, 2), (0, 1, 2, 3), (3,)])
def test_random_crop_cuts_windows_of_the_padded_image(mode: str, padding: Any) -> None:
    array = image(2, 6, 7)
    transform = T.RandomCrop((5, 4), padding=padding, padding_mode=mode)
    left, top, right, bottom = transform._sides
    width: Any = ((0, 0), (top, bottom), (left, right))
    name: Any = mode
    windows = np.lib.stride_tricks.sliding_window_view(np.pad(array, width, mode=name), (2, 5, 4))
    seen = set()
    for _ in range(300):
        matches = (windows[0] == transform(array)).all((-1, -2, -3))
        assert matches.any()
        seen.add(tuple(np.argwhere(matches)[0]))
    corners = {(0, 0), (windows.shape[1] - 1, windows.shape[2] - 1)}
    assert corners <= seen and len(seen) > 0.8 * windows[0].shape[0] * windows[0].shape[1]


def test_random_crop_limits() -> None:
    array = image(3, 4, 5)
    np.testing.assert_array_equal(T.RandomCrop((4, 5))(array), array)
    with pytest.raises(ValueError, match=r"crop size \(5, 5\) is larger than input image size"):
        T.RandomCrop(5)(array)
    assert T.RandomCrop(9, pad_if_needed=True)(array).shape == (3, 9, 9)
    got = T.RandomCrop((4, 9), padding=(4, 0), fill=[7, 8, 9])(array)
    assert set(np.unique(got[1])) <= {8.0, *np.unique(array[1])} and (got[1] == 8).any()
    with pytest.raises(ValueError, match="Padding mode should be either"):
        T.RandomCrop(2, padding_mode="wrap")
    with pytest.raises(ValueError, match="1, 2, or 4 element tuple, not a 3"):
        T.RandomCrop(2, padding=(1, 2, 3))
    with pytest.raises(ValueError, match="two dimensions"):
        T.RandomCrop((1, 2, 3))


def test_flips() -> None:
    array = image(3, 4, 5)
    np.testing.assert_array_equal(T.RandomHorizontalFlip(1.0)(array), array[..., ::-1])
    np.testing.assert_array_equal(T.RandomVerticalFlip(1.0)(array), array[..., ::-1, :])
    for transform in (T.RandomHorizontalFlip(0.0), T.RandomVerticalFlip(0.0)):
        np.testing.assert_array_equal(transform(array), array)
    flip = T.RandomHorizontalFlip(0.3)
    count = sum(bool((flip(array) != array).any()) for _ in range(2000))
    assert abs(count / 2000 - 0.3) < 0.05


@pytest.mark.parametrize("quarter", [-2, -1, 0, 1, 2, 3])
@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
def test_quarter_turns_are_exact(quarter: int, interpolation: str) -> None:
    transform = T.RandomRotation((90 * quarter, 90 * quarter), interpolation)
    square = image(3, 5, 5)
    np.testing.assert_array_equal(transform(square), np.rot90(square, quarter, (1, 2)))
    even = image(4, 4)
    np.testing.assert_array_equal(transform(even), np.rot90(even, quarter))
    transform = T.RandomRotation((90 * quarter, 90 * quarter), interpolation, expand=True)
    oblong = image(3, 4, 7)
    np.testing.assert_array_equal(transform(oblong), np.rot90(oblong, quarter, (1, 2)))


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear"])
@pytest.mark.parametrize("angle", [17.0, -40.0, 133.0])
@pytest.mark.parametrize("shape", [(2, 8, 8), (2, 9, 6)])
def test_rotation_as_grid_sample(interpolation: str, angle: float, shape: Any) -> None:
    torch = pytest.importorskip("torch")
    array = image(*shape)
    _, h, w = shape
    cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
    # grid_sample's coordinates run from -1 to 1 in both directions.
    theta = torch.tensor([[[cos, -sin * h / w, 0.0], [sin * w / h, cos, 0.0]]]).double()
    grid = torch.nn.functional.affine_grid(theta, [1, *shape], align_corners=False)
    expected = torch.nn.functional.grid_sample(
        torch.tensor(array)[None].double(), grid, mode=interpolation, align_corners=False
    )[0].numpy()
    got = T.RandomRotation((angle, angle), interpolation)(array)
    if interpolation == "nearest":
        # A place half-way between two pixels may round either way.
        assert (got != expected.astype(np.float32)).mean() < 0.02
    else:
        np.testing.assert_allclose(got, expected, atol=1e-6)


def test_rotation_options() -> None:
    array = np.ones((3, 6, 6), np.float32)
    got = T.RandomRotation((45, 45), fill=[7, 8, 9])(array)
    assert got[:, 0, 0].tolist() == [7, 8, 9] and got[:, 3, 3].tolist() == [1, 1, 1]
    expanded = T.RandomRotation((45, 45), expand=True)(array)
    assert expanded.shape == (3, 9, 9)
    point = np.zeros((5, 5))
    point[0, 0] = 1
    # Turned about its own middle, a pixel stays where it is.
    assert T.RandomRotation((90, 90), center=(0.5, 0.5))(point)[0, 0] == 1
    labels = np.arange(9).reshape(3, 3)
    assert T.RandomRotation((90, 90))(labels).dtype == labels.dtype
    with pytest.raises(TypeError, match="bilinear interpolation needs a float image"):
        T.RandomRotation(5, "bilinear")(labels)
    for options, message in (
        ({"degrees": -1}, "it must be positive"),
        ({"degrees": (1, 2, 3)}, "sequence of length 2"),
        ({"degrees": 1, "center": (1,)}, "center should be a sequence of length 2"),
        ({"degrees": 1, "interpolation": "cubic"}, "'nearest' or 'bilinear', but got 'cubic'"),
    ):
        with pytest.raises(ValueError, match=message):
            T.RandomRotation(**options)
    angles = []
    spy = T.RandomRotation((10, 20))
    spy.rotate = lambda img, angle: angles.append(angle)  # type: ignore[method-assign]
    for _ in range(200):
        spy(labels)
    assert min(angles) >= 10 and max(angles) < 20 and max(angles) - min(angles) > 9


def test_lambda_and_compose() -> None:
    with pytest.raises(TypeError, match="should be callable, got 'int'"):
        T.Lambda(3)  # type: ignore[arg-type]
    chain = T.Compose([T.ToTensor(), T.Normalize((0.5,), (0.5,))])
    got = chain(np.full((2, 2), 255, np.uint8))
    assert got.tolist() == [[[1.0, 1.0], [1.0, 1.0]]]
    assert repr(chain) == "Compose(\n    ToTensor()\n    Normalize(mean=(0.5,), std=(0.5,))\n)"
    assert repr(T.RandomHorizontalFlip()) == "RandomHorizontalFlip(p=0.5)"
    assert repr(T.CenterCrop(3)) == "CenterCrop(size=(3, 3))"
    assert repr(T.RandomCrop(3, 1)) == "RandomCrop(size=(3, 3), padding=1)"


def test_bad_images() -> None:
    for transform in TRANSFORMS[:9]:
        with pytest.raises(TypeError, match="img should be a Tensor or an ndarray"):
            transform([1, 2])
        with pytest.raises(ValueError, match="Expected an image"):
            transform(np.zeros(3))


def test_a_transform_draws_whole_blocks_only_when_needed() -> None:
    before = default_generator.get_offset()
    T.RandomCrop(4)(image(4, 4))
    assert default_generator.get_offset() == before
    T.RandomCrop(3)(image(4, 4))
    assert default_generator.get_offset() == before + 2
