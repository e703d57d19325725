"""Runs of the command line in this process, and small data for them."""

from __future__ import annotations

import gzip
import os
import signal
import struct
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pytest

from gradlite.cli import main
from gradlite.cli.trainer import Trainer


class Outcome(NamedTuple):
    """What a command left: its exit code and what it printed."""

    code: int
    out: str
    err: str

    @property
    def error(self) -> str:
        """The one line of an error, without a traceback or anything else around it."""
        assert self.code == 2, self
        assert self.err.count("\n") == 1 and self.err.endswith("\n"), self.err
        assert "Traceback" not in self.err
        return self.err.strip()


Cli = Callable[..., Outcome]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Cli:
    """Run ``python -m gradlite ARGUMENTS`` in this process, in a folder of the test's own."""
    monkeypatch.chdir(tmp_path)

    def run(*arguments: object) -> Outcome:
        capsys.readouterr()
        code = main([str(argument) for argument in arguments])
        return Outcome(code, *capsys.readouterr())

    return run


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Some 5,000 characters that a language model can learn."""
    path = tmp_path / "rhyme.txt"
    lines = [f"{number} little birds sat on the wall\n" for number in range(150)]
    path.write_text("".join(lines), encoding="utf-8")
    return path


def write_idx(path: Path, array: np.ndarray) -> None:
    """An IDX file of bytes, gzipped where the name says so."""
    head = struct.pack(f">4B{array.ndim}I", 0, 0, 8, array.ndim, *array.shape)
    content = head + array.astype(np.uint8).tobytes()
    path.write_bytes(gzip.compress(content) if path.suffix == ".gz" else content)


@pytest.fixture
def mnist_folder(tmp_path: Path) -> Path:
    """A folder like MNIST's with its test set alone: 200 images of 12x12, five bright bars."""
    folder = tmp_path / "mnist"
    folder.mkdir()
    rng = np.random.default_rng(1)
    labels = rng.integers(0, 5, 200)
    images = rng.integers(0, 60, (200, 12, 12))
    for image, label in zip(images, labels, strict=True):
        image[2 * label + 1] = 255
    write_idx(folder / "t10k-images-idx3-ubyte.gz", images)
    write_idx(folder / "t10k-labels-idx1-ubyte", labels)
    return folder


@pytest.fixture
def interrupt(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Press Ctrl-C while the step of that number (of the whole run) is being computed."""
    original = Trainer._count

    def at(step: int) -> None:
        def count(self: Trainer, *arguments: object) -> None:
            if self.model.training and self.steps_done == step:
                os.kill(os.getpid(), signal.SIGINT)
            original(self, *arguments)  # type: ignore[arg-type]

        monkeypatch.setattr(Trainer, "_count", count if step >= 0 else original)

    return at
