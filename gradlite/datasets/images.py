"""Images of digits: MNIST's IDX files, and scikit-learn's small ones."""

from __future__ import annotations

import gzip
import os
import struct
import zlib
from collections.abc import Callable, Sequence
from typing import IO, Any

import numpy as np

from gradlite.tensor import Tensor, wrap
from gradlite.utils.data.dataset import Dataset, TensorDataset, rows_of

Path = str | os.PathLike[str]

_GZIP_MAGIC = b"\x1f\x8b"
_IDX_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}


def read_idx(path: Path) -> np.ndarray[Any, Any]:
    """The array in an IDX file, compressed with gzip or not.

    An IDX file is two zero bytes, a byte for the type, a byte for the number of dimensions, the
    sizes as 32-bit big-endian integers, and the elements, big-endian.
    Source: Y. LeCun, C. Cortes, C. Burges, "The MNIST database", yann.lecun.com/exdb/mnist.

    Returns:
        An array in the machine's byte order.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is not IDX, is cut short, has bytes too many, or is damaged.
    """
    name = os.fspath(path)
    with open(name, "rb") as raw:
        compressed = raw.read(2) == _GZIP_MAGIC
        raw.seek(0)
        if not compressed:
            return _parse_idx(raw, name)
        try:
            with gzip.GzipFile(fileobj=raw) as file:
                return _parse_idx(file, name)
        except (EOFError, OSError, zlib.error) as error:
            raise ValueError(f"{name}: damaged gzip file: {error}") from error


def _parse_idx(file: IO[bytes] | gzip.GzipFile, name: str) -> np.ndarray[Any, Any]:
    head = file.read(4)
    if len(head) < 4:
        raise ValueError(f"{name}: truncated: an IDX header has 4 bytes, found {len(head)}")
    zeros, code, ndim = struct.unpack(">HBB", head)
    if zeros or code not in _IDX_TYPES or not ndim:
        raise ValueError(
            f"{name}: not an IDX file: expected two zero bytes, a type (8, 9, 11, 12, 13 or 14) "
            f"and a number of dimensions, found {head.hex(' ')}"
        )
    sizes = file.read(4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(
            f"{name}: truncated: expected {4 * ndim} bytes for {ndim} sizes, found {len(sizes)}"
        )
    shape = struct.unpack(f">{ndim}I", sizes)
    dtype = np.dtype(_IDX_TYPES[code])
    expected = dtype.itemsize
    for size in shape:
        expected *= size
    # Read in parts: a damaged size must not ask for terabytes.
    blocks, found = [], 0
    while found <= expected:
        block = file.read(min(expected + 1 - found, 1 << 24))
        if not block:
            break
        blocks.append(block)
        found += len(block)
    if found != expected:
        kind, count = ("truncated", str(found)) if found < expected else ("trailing bytes", "more")
        raise ValueError(
            f"{name}: {kind}: expected {expected} bytes for shape {shape} of {dtype.name}, "
            f"found {count}"
        )
    array = np.frombuffer(b"".join(blocks), dtype).reshape(shape)
    return array.astype(dtype.newbyteorder("="))


class MNIST(Dataset[Any]):
    """Handwritten digits, read from IDX files in a directory (nothing is downloaded).

    The files are ``train-images-idx3-ubyte`` and ``train-labels-idx1-ubyte``, or the same with
    ``t10k`` for the test set, each with or without ``.gz``, in ``root``, ``root/raw`` or
    ``root/MNIST/raw``. Other data sets in the same files (Fashion-MNIST, KMNIST) can be read too.

    Args:
        root: the directory.
        train: the training set, otherwise the test set.
        transform: applied to each image, a uint8 array of shape (28, 28).
        target_transform: applied to each label, an int.

    Attributes:
        data: all images, a uint8 tensor of shape (n, 28, 28).
        targets: all labels, an int64 tensor of shape (n,).

    Raises:
        FileNotFoundError: a file is missing; the message lists the places looked at.
        ValueError: a file is damaged, or images and labels differ in number.
    """

    classes: Sequence[str] = (
        "0 - zero", "1 - one", "2 - two", "3 - three", "4 - four",
        "5 - five", "6 - six", "7 - seven", "8 - eight", "9 - nine",
    )  # fmt: skip

    def __init__(
        self,
        root: Path,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[Any], Any] | None = None,
    ) -> None:
        self.root = os.fspath(root)
        self.train = train
        self.transform = transform
        self.target_transform = target_transform
        prefix = "train" if train else "t10k"
        images_file = self._find(f"{prefix}-images", "idx3-ubyte")
        labels_file = self._find(f"{prefix}-labels", "idx1-ubyte")
        images, labels = read_idx(images_file), read_idx(labels_file)
        for name, array, ndim in ((images_file, images, 3), (labels_file, labels, 1)):
            if array.dtype != np.uint8 or array.ndim != ndim:
                raise ValueError(
                    f"{name}: expected uint8 with {ndim} dimensions, found {array.dtype} with "
                    f"shape {array.shape}"
                )
        if len(images) != len(labels):
            raise ValueError(
                f"{images_file} has {len(images)} images, but {labels_file} has {len(labels)} "
                "labels"
            )
        self.data: Tensor = wrap(images)
        self.targets: Tensor = wrap(labels.astype(np.int64))

    def _find(self, stem: str, suffix: str) -> str:
        places = []
        for folder in ("", "raw", os.path.join("MNIST", "raw")):
            for separator in "-.":
                for ending in ("", ".gz"):
                    name = f"{stem}{separator}{suffix}{ending}"
                    places.append(os.path.join(self.root, folder, name))
        for place in places:
            if os.path.isfile(place):
                return place
        raise FileNotFoundError(
            f"{stem}-{suffix} was not found in {self.root!r}; looked for " + ", ".join(places)
        )

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.data.array[index], int(self.targets.array[index])
        if self.transform is not None:
            image = self.transform(image)
        return image, target if self.target_transform is None else self.target_transform(target)

    def _collated(self, indices: Any) -> list[Tensor] | None:
        if self.transform is not None or self.target_transform is not None:
            return None
        rows = rows_of(indices, len(self))
        return None if rows is None else [wrap(t.array[rows]) for t in (self.data, self.targets)]

    def __len__(self) -> int:
        return len(self.data)


def digits() -> TensorDataset:
    """The 1797 images of handwritten digits that come with scikit-learn, 8x8 pixels each.

    Returns:
        A `TensorDataset` of images, float32 in [0, 1] of shape (1797, 1, 8, 8), and labels, int64.
        Source: E. Alpaydin, C. Kaynak, "Optical recognition of handwritten digits", UCI, 1998.

    Raises:
        ImportError: scikit-learn is missing.
    """
    try:
        from sklearn.datasets import load_digits  # type: ignore[import-untyped]
    except ImportError as error:
        raise ImportError(
            "digits() reads a data set that comes with scikit-learn: pip install scikit-learn"
        ) from error
    images, labels = load_digits(return_X_y=True)
    pixels = (images / 16.0).astype(np.float32).reshape(-1, 1, 8, 8)
    return TensorDataset(wrap(pixels), wrap(labels.astype(np.int64)))
