"""A run that was stopped and resumed computes exactly what an uninterrupted one does."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path

import pytest

from gradlite import io
from gradlite.cli.trainer import Trainer
from tests.cli.conftest import Cli, Outcome

pytest.importorskip("sklearn")

Interrupt = Callable[[int], None]
FILES = ("model.safetensors", "metrics.csv", "checkpoint")


def contents(folder: Path) -> list[bytes]:
    return [(folder / name).read_bytes() for name in FILES]


def interrupted(result: Outcome, folder: str) -> bool:
    line = f"to continue: python -m gradlite train --resume --out {folder}\n"
    return result.code == 130 and result.err.endswith(line) and result.err.count("\n") == 1


@pytest.fixture(params=["cnn", "mlp", "gru", "gpt", "char-gru"])
def run(request: pytest.FixtureRequest, mnist_folder: Path, text_file: Path) -> tuple[object, ...]:
    """A run of two epochs for each model, of several steps each."""
    if request.param in ("gpt", "char-gru"):
        model = request.param.removeprefix("char-")
        data = ("--data", f"text:{text_file}", "--steps", 11, "--batch-size", 3)
    else:
        model = request.param
        data = ("--data", f"mnist:{mnist_folder}", "--batch-size", 32)
    return ("train", "--model", model, "--epochs", 2, "--seed", 3, *data)


@pytest.mark.parametrize("step", [0, 2, 5, 8], ids=lambda step: f"step{step}")
def test_resume_is_exact(
    cli: Cli, tmp_path: Path, run: tuple[object, ...], interrupt: Interrupt, step: int
) -> None:
    assert cli(*run, "--out", "whole").code == 0
    interrupt(step)
    assert interrupted(cli(*run, "--out", "parts"), "parts")
    assert {path.name for path in (tmp_path / "parts").iterdir()} == set(FILES)
    interrupt(-1)
    resumed = cli("train", "--resume", "--out", "parts")
    assert resumed.code == 0, resumed.err
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "rmsprop"])
def test_resume_is_exact_with_every_optimizer(
    cli: Cli, tmp_path: Path, mnist_folder: Path, interrupt: Interrupt, optimizer: str
) -> None:
    run = ("train", "--data", f"mnist:{mnist_folder}", "--epochs", 2, "--optimizer", optimizer)
    assert cli(*run, "--out", "whole").code == 0
    interrupt(4)
    assert cli(*run, "--out", "parts").code == 130
    interrupt(-1)
    assert cli("train", "--resume", "--out", "parts").code == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_run_may_be_stopped_many_times(
    cli: Cli, tmp_path: Path, mnist_folder: Path, interrupt: Interrupt
) -> None:
    run = ("train", "--data", f"mnist:{mnist_folder}", "--epochs", 3)
    assert cli(*run, "--out", "whole").code == 0
    interrupt(0)
    assert cli(*run, "--out", "parts").code == 130
    for step in range(1, 9):
        interrupt(step)
        assert cli("train", "--resume", "--out", "parts").code == 130
    interrupt(-1)
    assert cli("train", "--resume", "--out", "parts").code == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_ctrl_c_during_the_scoring_is_exact_too(
    cli: Cli, tmp_path: Path, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = ("train", "--data", f"mnist:{mnist_folder}", "--epochs", 2)
    assert cli(*run, "--out", "whole").code == 0
    evaluate = Trainer.evaluate

    def pressed(self: Trainer, everything: bool, proceed: Callable[[], bool]) -> object:
        signal.raise_signal(signal.SIGINT)
        return evaluate(self, everything, proceed)

    monkeypatch.setattr(Trainer, "evaluate", pressed)
    assert interrupted(cli(*run, "--out", "parts"), "parts")
    assert io.load(tmp_path / "parts" / "checkpoint")["epoch"] == 1
    monkeypatch.undo()
    monkeypatch.chdir(tmp_path)
    assert cli("train", "--resume", "--out", "parts").code == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_crash_between_two_files_leaves_no_duplicate_rows(
    cli: Cli, tmp_path: Path, mnist_folder: Path, interrupt: Interrupt
) -> None:
    run = ("train", "--data", f"mnist:{mnist_folder}", "--epochs", 2)
    assert cli(*run, "--out", "whole").code == 0
    interrupt(4)
    assert cli(*run, "--out", "parts").code == 130
    interrupt(-1)
    # The rows of both epochs are there, the checkpoint stands within the second.
    (tmp_path / "parts" / "metrics.csv").write_bytes(
        (tmp_path / "whole" / "metrics.csv").read_bytes()
    )
    assert cli("train", "--resume", "--out", "parts").code == 0
    assert contents(tmp_path / "parts") == contents(tmp_path / "whole")


def test_a_second_ctrl_c_stops_at_once(
    cli: Cli, tmp_path: Path, mnist_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pressed(self: Trainer, *arguments: object) -> None:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)

    monkeypatch.setattr(Trainer, "_count", pressed)
    result = cli("train", "--data", f"mnist:{mnist_folder}", "--out", "run")
    assert (result.code, result.err) == (130, "interrupted\n")
    assert list((tmp_path / "run").iterdir()) == []


def test_a_finished_run_resumed_says_its_score_again(cli: Cli, mnist_folder: Path) -> None:
    run = ("train", "--data", f"mnist:{mnist_folder}", "--epochs", 1, "--out", "run")
    first, again = cli(*run), cli(*run, "--resume")
    assert again.code == 0
    assert "epoch 1/1" in first.out and "epoch 1/1" not in again.out
    score = [line for line in first.out.splitlines() if line.startswith("test accuracy")][0]
    assert score.partition(", in")[0] in again.out


def test_resume_accepts_the_same_settings_and_another_place_of_the_same_data(
    cli: Cli, tmp_path: Path, mnist_folder: Path, interrupt: Interrupt
) -> None:
    run = ("train", "--model", "mlp", "--epochs", 2, "--seed", 3, "--lr", "0.01")
    interrupt(1)
    assert cli(*run, "--data", f"mnist:{mnist_folder}", "--out", "run").code == 130
    interrupt(-1)
    mnist_folder.rename(tmp_path / "moved")
    resumed = ("--resume", "--device", "cpu", "--data", f"mnist:{tmp_path / 'moved'}")
    assert cli(*run, *resumed, "--out", "run").code == 0


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("--epochs", 3),
        ("--batch-size", 7),
        ("--lr", 0.5),
        ("--optimizer", "sgd"),
        ("--seed", 4),
        ("--model", "cnn"),
        ("--data", "digits"),
        ("--steps", 10),
    ],
)
def test_resume_refuses_other_settings(
    cli: Cli, mnist_folder: Path, interrupt: Interrupt, option: str, value: object
) -> None:
    interrupt(1)
    data = ("--data", f"mnist:{mnist_folder}")
    assert cli("train", "--model", "mlp", "--epochs", 2, *data, "--out", "run").code == 130
    error = cli("train", "--resume", "--out", "run", option, value).error
    assert f"cannot resume: the run was started with {option}" in error
    assert error.endswith(f"not {value}")


def test_resume_refuses_other_data(
    cli: Cli, mnist_folder: Path, text_file: Path, interrupt: Interrupt
) -> None:
    interrupt(1)
    assert cli("train", "--data", f"text:{text_file}", "--out", "run").code == 130
    text_file.write_text(text_file.read_text().replace("birds", "words"))
    error = cli("train", "--resume", "--out", "run").error
    assert "is not the data the run was started with" in error


@pytest.mark.parametrize("damage", ["empty", "text", "cut", "flipped", "foreign"])
def test_resume_refuses_a_damaged_checkpoint(
    cli: Cli, tmp_path: Path, mnist_folder: Path, interrupt: Interrupt, damage: str
) -> None:
    interrupt(1)
    assert cli("train", "--data", f"mnist:{mnist_folder}", "--out", "run").code == 130
    interrupt(-1)
    path = tmp_path / "run" / "checkpoint"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    changed = {"empty": b"", "text": b"hello", "cut": content[:-100], "flipped": content}
    if damage == "foreign":
        io.save({"model": 1}, path)
    else:
        path.write_bytes(changed[damage])
    error = cli("train", "--resume", "--out", "run").error
    assert "run/checkpoint is not a" in error.replace("\\", "/")


def test_resume_refuses_the_checkpoint_of_another_version(
    cli: Cli, tmp_path: Path, mnist_folder: Path, interrupt: Interrupt
) -> None:
    interrupt(1)
    assert cli("train", "--data", f"mnist:{mnist_folder}", "--out", "run").code == 130
    path = tmp_path / "run" / "checkpoint"
    state = io.load(path)
    state["settings"]["momentum"] = 0.5
    io.save(state, path)
    error = cli("train", "--resume", "--out", "run").error
    assert "cannot resume a run of another version" in error and "momentum" in error
    del state["settings"]["momentum"]
    state["model"].popitem()
    io.save(state, path)
    assert "cannot resume from run: " in cli("train", "--resume", "--out", "run").error


def test_resume_without_a_checkpoint(cli: Cli) -> None:
    error = cli("train", "--resume").error
    assert "nothing to resume: there is no" in error and "cnn-digits" in error
