"""Bad input gets one clear line on stderr and exit code 2."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest

import gradlite
from gradlite.backends import cuda
from tests.cli.conftest import Cli, write_idx

BAD_OPTIONS = [
    ([], "required"),
    (["fly"], "invalid choice: 'fly'"),
    (["info", "--verbose"], "unrecognized arguments: --verbose"),
    (["train", "--rate", "1"], "unrecognized arguments: --rate 1"),
    (["train", "--epoch", "1"], "unrecognized arguments: --epoch 1"),
    (["train", "--model", "vit"], "invalid choice: 'vit'"),
    (["train", "--optimizer", "lion"], "invalid choice: 'lion'"),
    (["train", "--device", "tpu"], "'tpu' is none of auto, cpu, cuda"),
    (["train", "--device", "cuda:x"], "'cuda:x' is none of"),
    (["train", "--data", "cifar"], "'cifar' is none of digits, mnist:DIR, text:FILE"),
    (["train", "--data", "digits:here"], "'digits:here' is none of"),
    (["train", "--data", "text:"], "'text:' lacks a path"),
    (["train", "--data", "mnist"], "'mnist' lacks a path"),
    (["train", "--lr", "-0.1"], "--lr: -0.1 is not a positive number"),
    (["train", "--lr", "nan"], "nan is not a positive number"),
    (["train", "--lr", "inf"], "inf is not a positive number"),
    (["train", "--lr", "fast"], "'fast' is not a number"),
    (["train", "--epochs", "0"], "--epochs: 0 is not positive"),
    (["train", "--epochs", "1.5"], "'1.5' is not a whole number"),
    (["train", "--batch-size", "-3"], "--batch-size: -3 is not positive"),
    (["train", "--seed", "-1"], "-1 is not between 0 and 2**32 - 1"),
    (["train", "--seed", str(2**32)], "is not between"),
    (["train", "--epochs"], "expected one argument"),
    (["train", "--model", "gpt"], "gpt models text: add --data text:FILE"),
    (["train", "--model", "gpt", "--data", "mnist:x"], "gpt models text"),
    (["train", "--model", "cnn", "--data", "text:x"], "cnn classifies images"),
    (["train", "--model", "mlp", "--data", "text:x"], "mlp classifies images"),
    (["train", "--steps", "5"], "--steps is for text"),
    (["train", "--data", "text:x", "--steps", "2", "--epochs", "3"], "2 is too few for --epochs 3"),
    (["train", "--data", "text:nowhere.txt"], "nowhere.txt: No such file or directory"),
    (["train", "--data", "text:."], "Is a directory"),
    (["train", "--data", "mnist:nowhere"], "nowhere is not a folder of IDX files"),
    (
        ["train", "--data", "mnist:."],
        "holds neither train-images-idx3-ubyte nor t10k-images-idx3-ubyte",
    ),
]


@pytest.mark.parametrize(
    ("arguments", "message"), BAD_OPTIONS, ids=[" ".join(case[0]) for case in BAD_OPTIONS]
)
def test_bad_options(cli: Cli, tmp_path: Path, arguments: list[str], message: str) -> None:
    assert message in cli(*arguments).error
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("arguments", "printed"),
    [
        (("--help",), "train"),
        (("train", "--help"), "--resume"),
        (("info", "--help"), "CUDA"),
        (("--version",), f"gradlite {gradlite.__version__}\n"),
    ],
)
def test_help_is_not_an_error(
    cli: Cli, capsys: pytest.CaptureFixture[str], arguments: tuple[str, ...], printed: str
) -> None:
    with pytest.raises(SystemExit) as stopped:
        cli(*arguments)
    assert stopped.value.code == 0
    assert printed in capsys.readouterr().out


def test_cuda_where_there_is_none(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cuda, "status", lambda: (False, "CuPy is not installed: pip install it"))
    error = cli("train", "--device", "cuda").error
    assert error.endswith("CUDA is not available: CuPy is not installed: pip install it")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "too short"),
        (b"abc" * 50, "too short"),
        ("ä".encode() * 400, "too short"),
        (b"\xff\xfe\x00bad", "not UTF-8 text"),
    ],
)
def test_bad_texts(cli: Cli, tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "bad.txt"
    path.write_bytes(content)
    error = cli("train", "--data", f"text:{path}").error
    assert "bad.txt" in error and message in error


IMAGES, LABELS = "t10k-images-idx3-ubyte.gz", "t10k-labels-idx1-ubyte"


def cut(path: Path, keep: int) -> None:
    path.write_bytes(path.read_bytes()[:keep])


def test_a_truncated_gzip_file(cli: Cli, mnist_folder: Path) -> None:
    cut(mnist_folder / IMAGES, 500)
    assert IMAGES in cli("train", "--data", f"mnist:{mnist_folder}").error


def test_a_gzip_file_with_flipped_bits(cli: Cli, mnist_folder: Path) -> None:
    path = mnist_folder / IMAGES
    content = bytearray(path.read_bytes())
    for place in range(100, 200):
        content[place] ^= 0x55
    path.write_bytes(content)
    assert IMAGES in cli("train", "--data", f"mnist:{mnist_folder}").error


def test_a_file_that_is_not_gzip(cli: Cli, mnist_folder: Path) -> None:
    (mnist_folder / IMAGES).write_bytes(b"not gzip at all")
    assert IMAGES in cli("train", "--data", f"mnist:{mnist_folder}").error


@pytest.mark.parametrize("keep", [0, 3, 6, 100])
def test_a_truncated_idx_file(cli: Cli, mnist_folder: Path, keep: int) -> None:
    cut(mnist_folder / LABELS, keep)
    assert LABELS in cli("train", "--data", f"mnist:{mnist_folder}").error


def test_an_idx_file_with_bytes_too_many(cli: Cli, mnist_folder: Path) -> None:
    path = mnist_folder / LABELS
    path.write_bytes(path.read_bytes() + b"\0")
    assert LABELS in cli("train", "--data", f"mnist:{mnist_folder}").error


def test_an_idx_file_that_promises_more_than_there_is(cli: Cli, mnist_folder: Path) -> None:
    path = mnist_folder / IMAGES
    content = bytearray(gzip.decompress(path.read_bytes()))
    content[4:8] = b"\x7f\xff\xff\xff"
    path.write_bytes(gzip.compress(content))
    assert IMAGES in cli("train", "--data", f"mnist:{mnist_folder}").error


def test_labels_where_images_should_be(cli: Cli, mnist_folder: Path) -> None:
    write_idx(mnist_folder / IMAGES, np.zeros(200))
    assert (
        "expected uint8 with 3 dimensions" in cli("train", "--data", f"mnist:{mnist_folder}").error
    )


def test_images_without_their_labels(cli: Cli, mnist_folder: Path) -> None:
    (mnist_folder / LABELS).unlink()
    assert (
        "t10k-labels-idx1-ubyte was not found"
        in cli("train", "--data", f"mnist:{mnist_folder}").error
    )


def test_more_images_than_labels(cli: Cli, mnist_folder: Path) -> None:
    write_idx(mnist_folder / LABELS, np.zeros(150))
    assert "200 images" in (error := cli("train", "--data", f"mnist:{mnist_folder}").error)
    assert "150 labels" in error


def test_too_few_images(cli: Cli, mnist_folder: Path) -> None:
    write_idx(mnist_folder / IMAGES, np.zeros((5, 8, 8)))
    write_idx(mnist_folder / LABELS, np.zeros(5))
    assert "5x8x8 images are too few" in cli("train", "--data", f"mnist:{mnist_folder}").error


def test_training_and_test_images_of_two_sizes(cli: Cli, mnist_folder: Path) -> None:
    write_idx(mnist_folder / "train-images-idx3-ubyte", np.zeros((50, 9, 9)))
    write_idx(mnist_folder / "train-labels-idx1-ubyte", np.zeros(50))
    error = cli("train", "--data", f"mnist:{mnist_folder}").error
    assert "training images are 9x9, test images 12x12" in error


def test_images_too_small_for_the_network(cli: Cli, mnist_folder: Path) -> None:
    write_idx(mnist_folder / IMAGES, np.zeros((200, 1, 7)))
    assert (
        "200x1x7 images are too few or too small"
        in cli("train", "--data", f"mnist:{mnist_folder}").error
    )


def test_out_that_is_a_file(cli: Cli, tmp_path: Path) -> None:
    pytest.importorskip("sklearn")
    (tmp_path / "taken").touch()
    for out in ("taken", "taken/run"):
        assert f"cannot write {out}" in cli("train", "--out", out).error


def test_out_that_cannot_be_written(
    cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn")

    def refuse(self: Path, *arguments: object, **options: object) -> None:
        raise PermissionError(13, "Permission denied", str(self))

    monkeypatch.setattr(Path, "touch", refuse)
    assert "cannot write locked: Permission denied" in cli("train", "--out", "locked").error


def test_a_disk_that_fills_up(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("sklearn")
    command = ("train", "--model", "mlp", "--epochs", 1, "--out", "run")
    assert cli(*command).code == 0
    before = {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()}

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    error = cli(*command, "--seed", 1).error
    assert "cannot write" in error and "No space left on device" in error
    assert {path.name: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_too_little_memory(cli: Cli, text_file: Path) -> None:
    error = cli("train", "--data", f"text:{text_file}", "--batch-size", 10**15).error
    assert "smaller --batch-size" in error
