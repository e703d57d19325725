"""The command line as a process of its own: signals, pipes, exit codes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import gradlite

COMMAND = [sys.executable, "-m", "gradlite"]


def environment() -> dict[str, str]:
    root = str(Path(gradlite.__file__).resolve().parents[1])
    return {**os.environ, "PYTHONPATH": root, "PYTHONIOENCODING": "utf-8"}


def run(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    command = [*COMMAND, *map(str, arguments)]
    return subprocess.run(
        command, cwd=folder, env=environment(), capture_output=True, text=True, timeout=120
    )


def test_info(tmp_path: Path) -> None:
    result = run(tmp_path, "info")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.startswith(f"gradlite     {gradlite.__version__}\n")


def test_bad_input_exits_with_2(tmp_path: Path) -> None:
    result = run(tmp_path, "train", "--data", "text:nowhere.txt")
    assert result.returncode == 2 and result.stdout == ""
    assert result.stderr.startswith("gradlite train: error: nowhere.txt: No such file")
    assert result.stderr.count("\n") == 1


@pytest.mark.skipif(os.name == "nt", reason="Windows delivers no SIGINT to a single process")
def test_ctrl_c_saves_and_the_run_resumes_exactly(tmp_path: Path, text_file: Path) -> None:
    options = ["train", "--data", f"text:{text_file}", "--model", "gru", "--batch-size", "2"]
    options += ["--epochs", "3", "--steps", "300"]
    process = subprocess.Popen(
        [*COMMAND, *options, "--out", "parts"],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("epoch 1/3"):
            process.send_signal(signal.SIGINT)
            break
    _, errors = process.communicate(timeout=120)
    assert process.returncode == 130
    resume = "python -m gradlite train --resume --out parts"
    assert errors == f"interrupted and saved; to continue: {resume}\n"

    resumed = run(tmp_path, *resume.split()[3:])
    assert resumed.returncode == 0, resumed.stderr
    assert "resuming in epoch 2" in resumed.stdout and "epoch 1/3" not in resumed.stdout
    assert run(tmp_path, *options, "--out", "whole").returncode == 0
    for name in ("metrics.csv", "checkpoint", "model.safetensors"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


@pytest.mark.skipif(os.name == "nt", reason="needs a POSIX pipe")
def test_a_reader_that_leaves_early_gets_no_traceback(tmp_path: Path, text_file: Path) -> None:
    options = ["train", "--data", f"text:{text_file}", "--model", "gru", "--steps", "3"]
    process = subprocess.Popen(
        [*COMMAND, *options],
        cwd=tmp_path,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    assert process.stdout is not None and process.stderr is not None
    process.stdout.close()
    errors = process.stderr.read()
    process.stderr.close()
    assert process.wait(timeout=120) == 1 and errors == b""


def test_a_terminal_that_lacks_characters(tmp_path: Path) -> None:
    path = tmp_path / "greek.txt"
    path.write_text("λόγος καὶ ἔργον\n" * 60, encoding="utf-8")
    options = ["train", "--data", f"text:{path}", "--model", "gru", "--steps", "1"]
    result = subprocess.run(
        [*COMMAND, *options],
        cwd=tmp_path,
        env={**environment(), "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        timeout=120,
    )
    assert (result.returncode, result.stderr) == (0, b"")
    assert b"?" in result.stdout.split(b"sample\n")[1]
