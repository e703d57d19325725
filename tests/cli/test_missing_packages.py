"""Optional packages: asked for where they are indispensable, done without where they are not."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Cli

COMMAND = 'pip install "gradlite[examples]"'


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def hide(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    for name in [name for name in sys.modules if name.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, package, None)


def test_without_sklearn_there_are_no_digits(cli: Cli, monkeypatch: pytest.MonkeyPatch) -> None:
    hide(monkeypatch, "sklearn")
    error = cli("train").error
    assert "--data digits needs scikit-learn" in error and COMMAND in error


def test_without_sklearn_other_data_still_train(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, mnist_folder: Path
) -> None:
    hide(monkeypatch, "sklearn")
    assert cli("train", "--data", f"mnist:{mnist_folder}", "--epochs", 1).code == 0


@pytest.mark.parametrize(
    ("package", "file"), [("matplotlib", "curves.png"), ("safetensors", "model.safetensors")]
)
def test_a_file_that_cannot_be_written_is_left_out_with_a_note(
    cli: Cli,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    mnist_folder: Path,
    package: str,
    file: str,
) -> None:
    hide(monkeypatch, package)
    result = cli("train", "--data", f"mnist:{mnist_folder}", "--epochs", 1, "--out", "run")
    assert (result.code, result.err) == (0, "")
    assert f"{file} needs {package}" in result.out and COMMAND in result.out
    assert result.out.count(package) == result.out.count(f"needs {package}") + (
        package == "safetensors"
    )
    assert not (tmp_path / "run" / file).exists()


def test_without_tqdm_a_terminal_gets_lines(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, mnist_folder: Path
) -> None:
    hide(monkeypatch, "tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    result = cli("train", "--data", f"mnist:{mnist_folder}", "--epochs", 2)
    assert result.code == 0 and terminal.getvalue() == ""
    assert "a progress bar needs tqdm" in result.out and COMMAND in result.out
    assert "epoch 1/2" in result.out and "epoch 2/2" in result.out


def test_with_tqdm_a_terminal_gets_a_bar(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, mnist_folder: Path
) -> None:
    pytest.importorskip("tqdm")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    result = cli("train", "--data", f"mnist:{mnist_folder}", "--epochs", 1, "--batch-size", 1)
    assert result.code == 0
    bar = terminal.getvalue()
    assert "epoch 1/1" in bar and "/180" in bar and "loss " in bar and "accuracy " in bar
    assert "epoch 1/1" in result.out


def test_without_a_terminal_there_is_no_bar(cli: Cli, mnist_folder: Path) -> None:
    assert cli("train", "--data", f"mnist:{mnist_folder}", "--epochs", 1).err == ""
