"""Transforms of images, one sample at a time.

Images are NumPy arrays or Tensors whose last two dimensions are height and width: (H, W) or
(C, H, W). What comes in as an array goes out as an array, a Tensor as a Tensor (a gradient finds
its way back through it); a new object each time, never the input edited. Random numbers come from
gradlite's global generator, which `gradlite.manual_seed` sets and a DataLoader seeds anew in each
of its workers.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops.choose import where
from gradlite.ops.creation import as_tensor
from gradlite.random import default_generator
from gradlite.tensor import Tensor, wrap

Size = int | Sequence[int]
_PADDING_MODES = ("constant", "edge", "reflect", "symmetric")


class Compose:
    """One transform after the other.

    >>> Compose([CenterCrop(2), lambda image: image + 1])(np.zeros((4, 4)))
    array([[1., 1.],
           [1., 1.]])
    """

    def __init__(self, transforms: Sequence[Callable[[Any], Any]]) -> None:
        self.transforms = transforms

    def __call__(self, img: Any) -> Any:
        for transform in self.transforms:
            img = transform(img)
        return img

    def __repr__(self) -> str:
        lines = "".join(f"\n    {transform}" for transform in self.transforms)
        return f"{type(self).__name__}({lines}\n)"


class Lambda:
    """A function as a transform.

    Raises:
        TypeError: ``lambd`` cannot be called.
    """

    def __init__(self, lambd: Callable[[Any], Any]) -> None:
        if not callable(lambd):
            raise TypeError(f"Argument lambd should be callable, got {type(lambd).__name__!r}")
        self.lambd = lambd

    def __call__(self, img: Any) -> Any:
        return self.lambd(img)

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


class ToTensor:
    """An array of shape (H, W) or (H, W, C), or a PIL image, as a Tensor of shape (C, H, W).

    uint8 values become the default dtype in [0, 1]; other dtypes keep their values.

    Raises:
        TypeError: not an image.
        ValueError: an array that has neither 2 nor 3 dimensions.

    >>> ToTensor()(np.full((1, 2), 255, np.uint8))
    tensor([[[1., 1.]]])
    """

    def __call__(self, pic: Any) -> Tensor:
        if not isinstance(pic, np.ndarray):
            if not hasattr(pic, "__array_interface__"):
                raise TypeError(f"pic should be PIL Image or ndarray. Got {type(pic)}")
            pic = np.asarray(pic)
        if pic.ndim not in (2, 3):
            raise ValueError(f"pic should be 2/3 dimensional. Got {pic.ndim} dimensions.")
        planes = pic[None] if pic.ndim == 2 else pic.transpose(2, 0, 1)
        if pic.dtype == np.uint8:
            return wrap(_divided(planes, 255, dtypes.get_default_dtype().numpy))
        return as_tensor(np.array(planes, order="C"))

    def __repr__(self) -> str:
        return f"{type(self).__name__}()"


def _divided(array: np.ndarray[Any, Any], divisor: int, dtype: Any) -> np.ndarray[Any, Any]:
    quotient = array.astype(dtype, order="C")
    quotient /= divisor
    return quotient


class Normalize:
    """``(img - mean) / std``, channel by channel.

    Args:
        mean: one number per channel, or a single one.
        std: the same.
        inplace: edit the image instead of a copy.

    Raises:
        TypeError: an image whose dtype is not a floating one.
        ValueError: a ``std`` of zero.

    >>> Normalize([1.0, 0.0], [2.0, 1.0])(np.ones((2, 1, 1)))
    array([[[0.]],
    <BLANKLINE>
           [[1.]]])
    """

    def __init__(
        self, mean: float | Sequence[float], std: float | Sequence[float], inplace: bool = False
    ) -> None:
        self.mean = mean
        self.std = std
        self.inplace = inplace

    def __call__(self, tensor: Any) -> Any:
        array = _array(tensor)
        if array.dtype not in dtypes.FLOATING:
            raise TypeError(f"Input tensor should be a float tensor. Got {tensor.dtype}.")
        _size_of(array)
        mean, std = (np.asarray(value, array.dtype) for value in (self.mean, self.std))
        if (std == 0).any():
            raise ValueError(
                f"std evaluated to zero after conversion to {tensor.dtype}, leading to division "
                "by zero."
            )
        mean, std = (_per_channel(value, tensor) for value in (mean, std))
        if self.inplace:
            tensor -= mean
            tensor /= std
            return tensor
        return (tensor - mean) / std

    def __repr__(self) -> str:
        return f"{type(self).__name__}(mean={self.mean}, std={self.std})"


class CenterCrop:
    """The middle of an image; an image that is too small is padded with zeros first."""

    def __init__(self, size: Size) -> None:
        self.size = _pair(size)

    def __call__(self, img: Any) -> Any:
        (height, width), (h, w) = self.size, _size_of(_array(img))
        top, left = _centered(h, height), _centered(w, width)
        return _cut(img, top, left, height, width, 0)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size})"


class RandomCrop:
    """A window at a random place.

    Args:
        size: height and width, or one number for both.
        padding: rows and columns to add around the image: one number, (left and right, top and
            bottom), or (left, top, right, bottom).
        pad_if_needed: pad an image that is smaller than the window.
        fill: the value of the padding, or one per channel.
        padding_mode: ``"constant"``, ``"edge"``, ``"reflect"`` or ``"symmetric"``.

    Raises:
        ValueError: an image that is smaller than the window.

    >>> RandomCrop(2)(np.zeros((3, 28, 28))).shape
    (3, 2, 2)
    """

    def __init__(
        self,
        size: Size,
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float | Sequence[float] = 0,
        padding_mode: str = "constant",
    ) -> None:
        if padding_mode not in _PADDING_MODES:
            raise ValueError("Padding mode should be either constant, edge, reflect or symmetric")
        self.size = _pair(size)
        self.padding = padding
        self.pad_if_needed = pad_if_needed
        self.fill = fill
        self.padding_mode = padding_mode
        self._sides = _sides(padding)

    def __call__(self, img: Any) -> Any:
        height, width = self.size
        h, w = _size_of(_array(img))
        left, top, right, bottom = self._sides
        if self.pad_if_needed:
            missing = max(0, width - (w + left + right))
            left, right = left + missing, right + missing
            missing = max(0, height - (h + top + bottom))
            top, bottom = top + missing, bottom + missing
        padded = h + top + bottom, w + left + right
        if padded[0] < height or padded[1] < width:
            raise ValueError(
                f"Required crop size {self.size} is larger than input image size {padded}"
            )
        i = j = 0
        if padded != self.size:
            i = int(default_generator.integers(0, padded[0] - height + 1, ()))
            j = int(default_generator.integers(0, padded[1] - width + 1, ()))
        if self.padding_mode == "constant":
            return _cut(img, i - top, j - left, height, width, self.fill)
        rows = self._places(h, top, bottom)[i : i + height]
        return _gather(img, rows, self._places(w, left, right)[j : j + width], self.fill)

    def _places(self, size: int, before: int, after: int) -> np.ndarray[Any, Any]:
        """For each row of the padded image the row that it shows."""
        # The mode is typed as one of a few literals in NumPy's stubs.
        mode: Any = self.padding_mode
        return np.pad(np.arange(size), (before, after), mode=mode)

    def __repr__(self) -> str:
        return f"{type(self).__name__}(size={self.size}, padding={self.padding})"


class _RandomFlip:
    axis: int

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def __call__(self, img: Any) -> Any:
        _size_of(_array(img))
        flipped = bool(default_generator.bernoulli_mask((), self.p))
        if isinstance(img, Tensor):
            return img.flip(self.axis) if flipped else img.clone()
        return np.flip(img, self.axis).copy() if flipped else img.copy()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(p={self.p})"


class RandomHorizontalFlip(_RandomFlip):
    """Left and right swapped, with probability ``p``.

    >>> RandomHorizontalFlip(p=1.0)(np.arange(4).reshape(2, 2))
    array([[1, 0],
           [3, 2]])
    """

    axis = -1


class RandomVerticalFlip(_RandomFlip):
    """Top and bottom swapped, with probability ``p``.

    >>> RandomVerticalFlip(p=1.0)(np.arange(4).reshape(2, 2))
    array([[2, 3],
           [0, 1]])
    """

    axis = -2


class RandomRotation:
    """The image turned by a random angle, counter-clockwise.

    Args:
        degrees: (smallest, largest) angle, or ``d`` for ``(-d, d)``.
        interpolation: ``"nearest"`` or ``"bilinear"`` (of floating dtypes).
        expand: make the result large enough to hold the whole turned image.
        center: (x, y) of the point to turn about, from the upper left corner; by default the
            middle.
        fill: the value of what lies outside, or one per channel.

    Raises:
        ValueError: a negative number of degrees, or an unknown interpolation.

    >>> RandomRotation((90, 90))(np.arange(4).reshape(2, 2))
    array([[1, 3],
           [0, 2]])
    """

    def __init__(
        self,
        degrees: float | Sequence[float],
        interpolation: str = "nearest",
        expand: bool = False,
        center: Sequence[float] | None = None,
        fill: float | Sequence[float] = 0,
    ) -> None:
        if isinstance(degrees, int | float):
            if degrees < 0:
                raise ValueError("If degrees is a single number, it must be positive.")
            degrees = (-degrees, degrees)
        elif len(degrees) != 2:
            raise ValueError("degrees should be a sequence of length 2.")
        if center is not None and len(center) != 2:
            raise ValueError("center should be a sequence of length 2.")
        if interpolation not in ("nearest", "bilinear"):
            raise ValueError(
                f"interpolation should be 'nearest' or 'bilinear', but got {interpolation!r}"
            )
        self.degrees = [float(degree) for degree in degrees]
        self.interpolation = interpolation
        self.expand = expand
        self.center = center
        self.fill = fill

    def __call__(self, img: Any) -> Any:
        low, high = self.degrees
        angle = low + (high - low) * float(default_generator.random((), np.float64))
        return self.rotate(img, angle)

    def rotate(self, img: Any, angle: float) -> Any:
        """The image turned by ``angle`` degrees."""
        h, w = _size_of(_array(img))
        cos, sin = math.cos(math.radians(angle)), math.sin(math.radians(angle))
        # Coordinates are those of the pixels' middles, relative to the middle of the image.
        x0, y0 = (
            (0.0, 0.0) if self.center is None else (c - s / 2 for c, s in zip(self.center, (w, h)))
        )
        height, width = h, w
        if self.expand:
            # Rounded first, or a quarter turn's 1e-16 would add a row.
            width = math.ceil(round(abs(w * cos) + abs(h * sin), 6))
            height = math.ceil(round(abs(w * sin) + abs(h * cos), 6))
            x0 = y0 = 0.0
        x = np.arange(width) - (width - 1) / 2 - x0
        y = (np.arange(height) - (height - 1) / 2 - y0)[:, None]
        columns = cos * x - sin * y + x0 + (w - 1) / 2
        rows = sin * x + cos * y + y0 + (h - 1) / 2
        # Keeps exact turns exact.
        rows, columns = np.round(rows, 9), np.round(columns, 9)
        if self.interpolation == "nearest":
            return _gather(img, np.rint(rows), np.rint(columns), self.fill)
        return _bilinear(img, rows, columns, self.fill)

    def __repr__(self) -> str:
        return (
            f"{type(self).__name__}(degrees={self.degrees}, interpolation={self.interpolation}, "
            f"expand={self.expand}, fill={self.fill})"
        )


# -- what the transforms share ------------------------------------------------------------------


def _array(img: Any) -> Any:
    """The raw array of an image."""
    array = img.array if isinstance(img, Tensor) else img
    if not hasattr(array, "shape"):
        raise TypeError(f"img should be a Tensor or an ndarray. Got {type(img)}")
    return array


def _size_of(array: Any) -> tuple[int, int]:
    """Height and width."""
    if array.ndim < 2:
        raise ValueError(
            f"Expected an image of size (..., C, H, W) or (H, W). Got shape {tuple(array.shape)}"
        )
    return array.shape[-2], array.shape[-1]


def _pair(size: Size) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if len(size) == 1:
        return size[0], size[0]
    if len(size) != 2:
        raise ValueError("Please provide only two dimensions (h, w) for size.")
    return size[0], size[1]


def _sides(padding: int | Sequence[int] | None) -> tuple[int, int, int, int]:
    """Left, top, right and bottom padding."""
    if padding is None:
        return 0, 0, 0, 0
    if isinstance(padding, int):
        return padding, padding, padding, padding
    if len(padding) not in (1, 2, 4):
        raise ValueError(
            f"Padding must be an int or a 1, 2, or 4 element tuple, not a {len(padding)} element "
            "tuple"
        )
    left, top, right, bottom = (tuple(padding) * 4)[:4]
    return left, top, right, bottom


def _centered(size: int, wanted: int) -> int:
    """Where a window of the wanted size starts; negative where padding comes first."""
    # As in torchvision: padding puts the odd row behind, cropping rounds half to even.
    return -((wanted - size) // 2) if wanted > size else round((size - wanted) / 2.0)


def _cut(img: Any, top: int, left: int, height: int, width: int, fill: Any) -> Any:
    """A window of the image; ``fill`` where it reaches beyond."""
    if isinstance(img, Tensor) and (img.requires_grad or not img.is_cpu):
        return _gather(img, np.arange(top, top + height), np.arange(left, left + width), fill)
    array = _array(img)
    h, w = _size_of(array)
    first_row, last_row = max(top, 0), min(top + height, h)
    first_column, last_column = max(left, 0), min(left + width, w)
    part = array[..., first_row:last_row, first_column:last_column]
    if part.shape[-2:] == (height, width):
        window = part.copy()
    else:
        window = np.empty((*array.shape[:-2], height, width), array.dtype)
        window[...] = _per_channel(fill, array)
        rows = slice(first_row - top, max(first_row, last_row) - top)
        columns = slice(first_column - left, max(first_column, last_column) - left)
        window[..., rows, columns] = part
    return wrap(window) if isinstance(img, Tensor) else window


def _per_channel(value: Any, img: Any) -> Any:
    """A number or one per channel, in a shape and kind that goes with the image."""
    array = np.asarray(value)
    if array.ndim == 1:
        array = array[:, None, None]
    if not isinstance(img, Tensor):
        return array
    return as_tensor(array, dtype=img.dtype, device=img.device)


def _gather(img: Any, rows: Any, columns: Any, fill: Any) -> Any:
    """The pixels at the given rows and columns; ``fill`` where these lie outside of the image.

    Rows and columns are vectors, or matrices of the same shape that give each pixel its place.
    """
    array = _array(img)
    h, w = _size_of(array)
    rows, columns = np.asarray(rows, np.int64), np.asarray(columns, np.int64)
    if rows.ndim == 1:
        rows, columns = np.ix_(rows, columns)
    inside = (rows >= 0) & (rows < h) & (columns >= 0) & (columns < w)
    if inside.all():
        return _at(img, rows, columns)
    pixels = _at(img, rows.clip(0, h - 1), columns.clip(0, w - 1))
    return _where(inside, pixels, fill)


def _at(img: Any, rows: Any, columns: Any) -> Any:
    if isinstance(img, Tensor):
        return img[..., as_tensor(rows, device=img.device), as_tensor(columns, device=img.device)]
    return img[..., rows, columns]


def _where(inside: np.ndarray[Any, Any], pixels: Any, fill: Any) -> Any:
    values = _per_channel(np.asarray(fill).astype(_array(pixels).dtype), pixels)
    if not isinstance(pixels, Tensor):
        return np.where(inside, pixels, values)
    return where(as_tensor(inside, device=pixels.device), pixels, values)


def _bilinear(img: Any, rows: Any, columns: Any, fill: Any) -> Any:
    """The image between its pixels, by weighting the four around; ``fill`` stands outside."""
    if _array(img).dtype not in dtypes.FLOATING:
        raise TypeError(f"bilinear interpolation needs a float image. Got {img.dtype}.")
    top, left = np.floor(rows), np.floor(columns)
    down, right = rows - top, columns - left
    result: Any = 0
    for row, row_weight in ((top, 1 - down), (top + 1, down)):
        for column, column_weight in ((left, 1 - right), (left + 1, right)):
            weight = (row_weight * column_weight).astype(_array(img).dtype)
            pixels = _gather(img, row, column, fill)
            result = result + pixels * _per_channel(weight, pixels)
    return result
