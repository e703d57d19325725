"""The order in which a run sees its data."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

import gradlite
from gradlite.cli.args import Settings
from gradlite.cli.data import ImageData, TextData, load
from tests.cli.conftest import write_idx

CPU = gradlite.device("cpu")


def settings(data: str, model: str = "mlp", seed: int = 0, batch_size: int = 16) -> Settings:
    steps = 20 if data.startswith("text") else None
    return Settings(model, data, "cpu", 3, steps, batch_size, 0.01, "adamw", seed)


def targets(data: ImageData | TextData, epoch: int, start: int = 0) -> list[np.ndarray]:
    return [labels.numpy() for _, labels in data.batches(epoch, start)]


@pytest.fixture(params=["mnist", "text"])
def data(request: pytest.FixtureRequest, mnist_folder: Path, text_file: Path) -> str:
    return f"mnist:{mnist_folder}" if request.param == "mnist" else f"text:{text_file}"


def test_an_epoch_goes_on_where_it_was_left(data: str) -> None:
    loaded = load(settings(data), CPU)
    whole = targets(loaded, 2)
    assert len(whole) == loaded.steps(2) > 4
    for start in (0, 1, 4, len(whole)):
        rest = targets(loaded, 2, start)
        assert len(rest) == len(whole) - start
        assert all((a == b).all() for a, b in zip(rest, whole[start:], strict=True))


def test_epochs_and_seeds_differ_in_their_order(data: str) -> None:
    one, two = targets(load(settings(data), CPU), 1), targets(load(settings(data), CPU), 2)
    other = targets(load(settings(data, seed=1), CPU), 1)
    assert not all((a == b).all() for a, b in zip(one, two, strict=False))
    assert not all((a == b).all() for a, b in zip(one, other, strict=False))


def test_an_epoch_of_images_has_each_image_once(mnist_folder: Path) -> None:
    loaded = load(settings(f"mnist:{mnist_folder}"), CPU)
    assert isinstance(loaded, ImageData)
    batches = [images.numpy() for images, _ in loaded.batches(1, 0)]
    assert [len(batch) for batch in batches] == [16] * 11 + [4]
    seen = {image.tobytes() for batch in batches for image in batch}
    held_out = {
        image.tobytes() for batch, _ in loaded.held_out_batches(True) for image in batch.numpy()
    }
    assert (len(seen), len(held_out), len(seen & held_out)) == (180, 20, 0)


def test_both_sets_are_used_as_they_are(mnist_folder: Path) -> None:
    labels = np.arange(30) % 10
    write_idx(mnist_folder / "train-images-idx3-ubyte", np.zeros((30, 12, 12)))
    write_idx(mnist_folder / "train-labels-idx1-ubyte.gz", labels)
    loaded = load(settings(f"mnist:{mnist_folder}"), CPU)
    assert isinstance(loaded, ImageData)
    assert (loaded.labels.numpy() == labels).all() and len(loaded.test_labels) == 200
    assert loaded.classes == 10


def test_images_are_shifted_by_at_most_a_pixel(mnist_folder: Path) -> None:
    plain = load(settings(f"mnist:{mnist_folder}"), CPU)
    shifted = load(settings(f"mnist:{mnist_folder}", model="cnn"), CPU)
    shifts = set()
    for (image, label), (moved, same) in zip(
        plain.batches(1, 0), shifted.batches(1, 0), strict=True
    ):
        assert (label == same).all() and image.shape == moved.shape
        for a, b in zip(image.numpy()[:, 0], moved.numpy()[:, 0], strict=True):
            padded = np.pad(a, 1)
            found = [
                (i, j)
                for i in range(3)
                for j in range(3)
                if (padded[i : i + 12, j : j + 12] == b).all()
            ]
            assert len(found) == 1
            shifts.update(found)
    assert len(shifts) == 9


def test_targets_are_the_next_characters(text_file: Path) -> None:
    loaded = load(settings(f"text:{text_file}", "gpt"), CPU)
    assert isinstance(loaded, TextData)
    text = text_file.read_text()
    for inputs, next_ones in loaded.batches(1, 0):
        assert inputs.shape == next_ones.shape == (16, 64)
        for row, target in zip(inputs.tolist(), next_ones.tolist(), strict=True):
            window = loaded.vocabulary.decode([*row, target[-1]])
            assert window in text[: len(text) * 9 // 10]
            assert row[1:] == target[:-1]


def test_every_held_out_character_is_scored_at_most_once(text_file: Path) -> None:
    loaded = load(settings(f"text:{text_file}", "gpt"), CPU)
    assert isinstance(loaded, TextData)
    scored = [t for _, batch in loaded.held_out_batches(True) for t in batch.flatten().tolist()]
    assert scored == loaded.validation.tolist()[1 : len(scored) + 1]
    assert len(loaded.validation) - 1 - len(scored) < 64


def test_any_characters_will_do(tmp_path: Path) -> None:
    path = tmp_path / "greek.txt"
    path.write_text("λόγος 🎲 καὶ ἔργον\r\n" * 60, encoding="utf-8", newline="")
    loaded = load(settings(f"text:{path}", "gru"), CPU)
    assert isinstance(loaded, TextData)
    assert "🎲" in loaded.vocabulary and "\r" not in loaded.vocabulary
