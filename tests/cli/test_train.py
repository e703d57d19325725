"""Whole runs in this process: what they print, what they write, how well they do."""

from __future__ import annotations

import csv
import re
import struct
from pathlib import Path

import pytest

import gradlite
from gradlite import io
from gradlite.cli import metrics
from tests.cli.conftest import Cli

pytest.importorskip("sklearn")


def rows(folder: Path) -> list[dict[str, float]]:
    with open(folder / "metrics.csv", encoding="utf-8") as file:
        return [{name: float(v) for name, v in row.items()} for row in csv.DictReader(file)]


def test_the_default_run_reaches_98_percent(cli: Cli, tmp_path: Path) -> None:
    result = cli("train")
    assert result.code == 0, result.err
    score = re.search(r"^test accuracy ([\d.]+)%, loss ([\d.]+)", result.out, re.MULTILINE)
    assert score is not None and float(score[1]) >= 98
    folder = tmp_path / "runs" / "cnn-digits"
    assert {path.name for path in folder.iterdir()} == {
        "model.safetensors",
        "checkpoint",
        "metrics.csv",
        "curves.png",
    }
    history = rows(folder)
    assert [row["epoch"] for row in history] == list(range(1, 26))
    assert list(history[0]) == list(metrics.COLUMNS)
    assert history[-1]["validation_accuracy"] == pytest.approx(float(score[1]) / 100, abs=1e-4)
    assert history[-1]["lr"] < 1e-6 < history[0]["lr"]
    assert len(re.findall(r"^epoch +\d+/25  loss", result.out, re.MULTILINE)) == 25
    assert "device   cpu" in result.out and "Conv2d(1, 16" in result.out
    assert "9,978 parameters" in result.out


@pytest.mark.parametrize("model", ["mlp", "cnn", "gru"])
@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "rmsprop"])
def test_every_image_model_learns_with_every_optimizer(
    cli: Cli, tmp_path: Path, mnist_folder: Path, model: str, optimizer: str
) -> None:
    options = ("--model", model, "--optimizer", optimizer, "--epochs", 20, "--batch-size", 32)
    result = cli("train", "--data", f"mnist:{mnist_folder}", "--out", "run", *options)
    assert result.code == 0, result.err
    assert "mnist: 180 training and 20 test images of 12x12, 5 classes" in result.out
    history = rows(tmp_path / "run")
    assert history[-1]["train_loss"] < 0.7 * history[0]["train_loss"]


@pytest.mark.parametrize("model", ["gru", "gpt"])
def test_text_models_learn_and_write(cli: Cli, tmp_path: Path, text_file: Path, model: str) -> None:
    options = ("--model", model, "--steps", 40, "--epochs", 4, "--batch-size", 4)
    result = cli("train", "--data", f"text:{text_file}", *options)
    assert result.code == 0, result.err
    history = rows(tmp_path / "runs" / f"{model}-text")
    assert [row["step"] for row in history] == [10, 20, 30, 40]
    assert history[-1]["validation_loss"] < 0.8 * history[0]["validation_loss"]
    sample = result.out.split("sample\n")[1].split("\nvalidation accuracy")[0]
    assert len(sample) == 400 and set(sample) <= set(text_file.read_text())
    assert "nats per character" in result.out


def test_text_without_a_model_trains_a_gpt(cli: Cli, tmp_path: Path, text_file: Path) -> None:
    assert cli("train", "--data", f"text:{text_file}", "--steps", 1).code == 0
    assert len(rows(tmp_path / "runs" / "gpt-text")) == 1


def test_steps_are_spread_over_the_epochs(cli: Cli, tmp_path: Path, text_file: Path) -> None:
    options = ("--model", "gru", "--steps", 8, "--epochs", 3, "--out", "run")
    assert cli("train", "--data", f"text:{text_file}", *options).code == 0
    assert [row["step"] for row in rows(tmp_path / "run")] == [2, 5, 8]


def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    cli: Cli, tmp_path: Path
) -> None:
    for folder, seed in (("a", 5), ("b", 5), ("c", 6)):
        assert cli("train", "--epochs", 1, "--seed", seed, "--out", folder).code == 0
    for name in ("model.safetensors", "metrics.csv"):
        a, b, c = ((tmp_path / folder / name).read_bytes() for folder in "abc")
        assert a == b != c


def test_the_saved_weights_are_those_of_the_checkpoint(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    assert cli("train", "--model", "mlp", "--epochs", 1, "--out", "run").code == 0
    weights = io.load_safetensors(tmp_path / "run" / "model.safetensors")
    checkpoint = io.load(tmp_path / "run" / "checkpoint")
    assert set(weights) == set(checkpoint["model"])
    assert all(gradlite.equal(weights[name], checkpoint["model"][name]) for name in weights)


def test_the_curves_are_a_picture(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    assert cli("train", "--model", "mlp", "--epochs", 1, "--out", "run").code == 0
    content = (tmp_path / "run" / "curves.png").read_bytes()
    assert content.startswith(b"\x89PNG")
    assert struct.unpack(">II", content[16:24]) == (1500, 630)


def test_a_new_run_says_that_it_replaces_an_old_one(cli: Cli) -> None:
    command = ("train", "--model", "mlp", "--epochs", 1, "--out", "run")
    assert "replaces" not in cli(*command).out
    assert "run holds an earlier run, which this one replaces" in cli(*command).out


def test_a_batch_larger_than_the_data_is_all_of_them(cli: Cli, tmp_path: Path) -> None:
    options = ("--model", "mlp", "--epochs", 1, "--batch-size", 100_000, "--out", "run")
    assert cli("train", *options).code == 0
    assert rows(tmp_path / "run")[0]["step"] == 1


def test_a_loss_that_is_no_longer_finite_ends_the_run(cli: Cli, tmp_path: Path) -> None:
    # Batch normalisation would tame any learning rate; an MLP overflows.
    options = ("--model", "mlp", "--optimizer", "sgd", "--lr", "1e30", "--out", "run")
    assert "the loss is no longer finite in epoch 1" in cli("train", *options).error
    assert not (tmp_path / "run" / "checkpoint").exists()
