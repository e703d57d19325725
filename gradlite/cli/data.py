"""The data of ``python -m gradlite train``, in the order in which a run sees them.

The order of an epoch depends on the seed and the number of the epoch alone, so that a resumed run
finds its place again without any stored order.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np

import gradlite
from gradlite import Tensor
from gradlite.cli.args import Settings
from gradlite.cli.errors import UserError, because, missing, optional
from gradlite.datasets import MNIST, Vocabulary, digits

Batch = tuple[Tensor, Tensor]
CONTEXT = 64
EVALUATION_BATCH = 256
EVALUATED_WINDOWS = 512
"""Windows of held-out text scored after each epoch; all of them are scored at the end."""
FEWEST = 10
SMALLEST = 4
"""Rows and columns that an image must have to be pooled."""
Arrays = tuple[np.ndarray, np.ndarray]
"""Images (N, H, W) as float32 in [0, 1], and labels (N,) as int64."""


def generator(seed: int, epoch: int) -> gradlite.Generator:
    """The generator of one epoch's order; epoch 0 is the split into training and test data."""
    return gradlite.Generator().manual_seed((seed << 20) + epoch)


class ImageData:
    """Grey images (N, 1, H, W) in [0, 1] with labels, split into training and test images."""

    held_out = "test"
    unit = "images"

    def __init__(
        self,
        kind: str,
        training: Arrays,
        test: Arrays,
        settings: Settings,
        device: gradlite.device,
        shift: bool,
    ) -> None:
        self.kind = kind
        self.seed, self.batch_size, self.epochs = (
            settings.seed,
            settings.batch_size,
            settings.epochs,
        )
        self.height, self.width = training[0].shape[1:]
        self.classes = int(max(training[1].max(), test[1].max())) + 1
        self.fingerprint = 0
        for array in (*training, *test):
            self.fingerprint = zlib.crc32(np.ascontiguousarray(array).data, self.fingerprint)
        self.device = device
        # A border of zeros, so that shifting an image is reading it from another corner.
        self.border = 1 if shift else 0
        border = ((0, 0), (self.border, self.border), (self.border, self.border))
        self.images = gradlite.from_numpy(np.pad(training[0], border)).to(device)
        self.labels = gradlite.from_numpy(training[1]).to(device)
        self.test_images = gradlite.from_numpy(test[0]).unsqueeze(1).to(device)
        self.test_labels = gradlite.from_numpy(test[1]).to(device)
        self.rows = gradlite.arange(self.height, device=device).reshape(1, -1, 1)
        self.columns = gradlite.arange(self.width, device=device).reshape(1, 1, -1)

    def __str__(self) -> str:
        return (
            f"{self.kind}: {len(self.labels):,} training and {len(self.test_labels):,} test "
            f"images of {self.height}x{self.width}, {self.classes} classes"
        )

    def steps(self, epoch: int) -> int:
        """Batches in that epoch (counted from 1)."""
        return -(-len(self.labels) // self.batch_size)

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """The batches of an epoch from number ``start`` on, each image shifted by up to a pixel."""
        order = gradlite.randperm(len(self.labels), generator=generator(self.seed, epoch))
        order = order.to(self.device)
        for first in range(start * self.batch_size, len(order), self.batch_size):
            chosen = order[first : first + self.batch_size]
            yield self._shifted(chosen), self.labels[chosen]

    def _shifted(self, chosen: Tensor) -> Tensor:
        if not self.border:
            return self.images[chosen].unsqueeze(1)
        shape = (2, len(chosen), 1, 1)
        down, right = gradlite.randint(0, 2 * self.border + 1, shape, device=self.device)
        index = (chosen.reshape(-1, 1, 1), self.rows + down, self.columns + right)
        return self.images[index].unsqueeze(1)

    def held_out_batches(self, everything: bool) -> Iterator[Batch]:
        """The test images, in batches."""
        for first in range(0, len(self.test_labels), EVALUATION_BATCH):
            last = first + EVALUATION_BATCH
            yield self.test_images[first:last], self.test_labels[first:last]


class TextData:
    """A text as character numbers; its last tenth is held out."""

    kind = "text"
    held_out = "validation"
    unit = "characters"
    context = CONTEXT

    def __init__(self, name: str, text: str, settings: Settings, device: gradlite.device) -> None:
        self.name = name
        self.seed, self.batch_size, self.epochs = (
            settings.seed,
            settings.batch_size,
            settings.epochs,
        )
        self.total_steps = settings.steps or 0
        self.vocabulary = Vocabulary.of(text)
        self.fingerprint = zlib.crc32(text.encode())
        self.device = device
        tokens = self.vocabulary.encode(text).to(device)
        split = len(tokens) * 9 // 10
        self.training, self.validation = tokens[:split], tokens[split:]
        if len(self.validation) <= self.context:
            raise UserError(
                f"{name} is too short: {len(text)} characters, at least "
                f"{10 * (self.context + 1)} are needed"
            )
        self.window = gradlite.arange(self.context + 1, device=device)

    def __str__(self) -> str:
        return (
            f"{self.name}: {len(self.training):,} training and {len(self.validation):,} "
            f"validation characters, {len(self.vocabulary)} distinct"
        )

    def steps(self, epoch: int) -> int:
        """Batches in that epoch (counted from 1): the run's steps, spread evenly."""
        return (
            self.total_steps * epoch // self.epochs - self.total_steps * (epoch - 1) // self.epochs
        )

    def batches(self, epoch: int, start: int) -> Iterator[Batch]:
        """Random windows of the training text, from batch number ``start`` of the epoch on."""
        starts = gradlite.randint(
            0,
            len(self.training) - self.context,
            (self.steps(epoch), self.batch_size, 1),
            generator=generator(self.seed, epoch),
        ).to(self.device)
        for first in starts[start:]:
            windows = self.training[first + self.window]
            yield windows[:, :-1], windows[:, 1:]

    def held_out_batches(self, everything: bool) -> Iterator[Batch]:
        """Windows of the validation text side by side: all of them, or some spread evenly."""
        count = (len(self.validation) - 1) // self.context
        if everything or count <= EVALUATED_WINDOWS:
            numbers = np.arange(count)
        else:
            numbers = np.arange(EVALUATED_WINDOWS) * count // EVALUATED_WINDOWS
        starts = gradlite.from_numpy(numbers * self.context).to(self.device)
        for first in range(0, len(numbers), EVALUATION_BATCH):
            chosen = starts[first : first + EVALUATION_BATCH].unsqueeze(1)
            windows = self.validation[chosen + self.window]
            yield windows[:, :-1], windows[:, 1:]


def load(settings: Settings, device: gradlite.device) -> ImageData | TextData:
    """Read the data that the settings name and put them on the device.

    Raises:
        UserError: a file or package is missing, or a file is damaged.
    """
    path = settings.data.partition(":")[2]
    if settings.kind == "text":
        return TextData(Path(path).name, _read_text(path), settings, device)
    if settings.kind == "digits":
        images, labels = _digits()
        training, test = _split(images, labels, len(labels) // 5, settings.seed)
    else:
        training, test = _mnist(Path(path), settings.seed)
    # Shifted digits teach a network that sees neighbourhoods; a plain MLP only gets confused.
    shift = settings.model != "mlp"
    return ImageData(settings.kind, training, test, settings, device, shift)


def _digits() -> Arrays:
    if optional("sklearn") is None:
        raise UserError(missing("scikit-learn", "--data digits"))
    images, labels = digits().tensors
    return images.squeeze(1).numpy(), labels.numpy()


def _split(
    images: np.ndarray, labels: np.ndarray, held_out: int, seed: int
) -> tuple[Arrays, Arrays]:
    order = gradlite.randperm(len(labels), generator=generator(seed, 0)).numpy()
    test, training = order[:held_out], order[held_out:]
    return (images[training], labels[training]), (images[test], labels[test])


def _mnist(folder: Path, seed: int) -> tuple[Arrays, Arrays]:
    """Both sets, or a tenth of the one that is there held out."""
    if not folder.is_dir():
        raise UserError(f"{folder} is not a folder of IDX files")
    training, test = _mnist_part(folder, True), _mnist_part(folder, False)
    if training and test:
        if _size(training) != _size(test):
            raise UserError(
                f"{folder}: training images are {_size(training)}, test images {_size(test)}"
            )
        return training, test
    part = training or test
    if part is None:
        names = "neither train-images-idx3-ubyte nor t10k-images-idx3-ubyte"
        raise UserError(f"{folder} holds {names} (with or without .gz)")
    images, labels = part
    return _split(images, labels, len(labels) // 10, seed)


def _mnist_part(folder: Path, train: bool) -> Arrays | None:
    """One of the two sets, or None where its images are not there."""
    try:
        part = MNIST(folder, train)
    except FileNotFoundError as error:
        if "-images" in str(error).partition(" ")[0]:
            return None
        raise UserError(because(error)) from error
    except ValueError as error:
        raise UserError(because(error)) from error
    images, labels = part.data.numpy(), part.targets.numpy()
    if len(images) < FEWEST or min(images.shape[1:]) < SMALLEST:
        size = "x".join(map(str, images.shape))
        raise UserError(f"{folder}: {size} images are too few or too small")
    return images.astype(np.float32) / 255, labels


def _size(part: Arrays) -> str:
    return "x".join(map(str, part[0].shape[1:]))


def _read_text(path: str) -> str:
    try:
        with open(path, encoding="utf-8", newline=None) as file:
            return file.read()
    except OSError as error:
        raise UserError(f"{path}: {because(error)}") from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: not UTF-8 text ({because(error)})") from error
