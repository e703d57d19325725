"""``python -m gradlite train``: from options to a trained model and its files."""

from __future__ import annotations

import argparse
import math
import shlex
import sys
import time
from pathlib import Path

import gradlite
from gradlite import io
from gradlite.backends import cuda
from gradlite.cli import checkpoint, metrics, models, plots, progress
from gradlite.cli.args import Settings, out_for, resumed_settings, settings_for
from gradlite.cli.data import TextData, load
from gradlite.cli.errors import INTERRUPTED, UserError, because, missing, optional
from gradlite.cli.files import prepare_folder, writing
from gradlite.cli.sample import sample
from gradlite.cli.trainer import Trainer


def train(options: argparse.Namespace) -> int:
    """Start or resume the run that the options describe; returns the exit code."""
    folder = Path(out_for(options))
    saved = checkpoint.read(folder) if options.resume else None
    settings = resumed_settings(options, saved["settings"]) if saved else settings_for(options)
    device = choose_device(settings.device)
    data = load(settings, device)
    if saved and saved["fingerprint"] != data.fingerprint:
        raise UserError(f"cannot resume: {settings.data} is not the data the run was started with")
    if not saved and (folder / checkpoint.NAME).exists():
        say(f"note     {folder} holds an earlier run, which this one replaces")
    prepare_folder(folder)
    gradlite.manual_seed(settings.seed)
    model = models.build(settings.model, data).to(device)
    trainer = Trainer(settings, data, model)
    if saved:
        try:
            trainer.load_state(saved)
        except Exception as error:  # whatever it is, the checkpoint does not fit
            raise UserError(f"cannot resume from {folder}: {because(error)}") from error
    describe(settings, trainer, device)
    if saved and not trainer.finished:
        say(f"resuming in epoch {trainer.epoch}, {trainer.step} steps into it")
    started = time.perf_counter()
    final = run(trainer, folder)
    if final is None:
        command = f"python -m gradlite train --resume --out {shlex.quote(str(folder))}"
        print(f"interrupted and saved; to continue: {command}", file=sys.stderr)
        return INTERRUPTED
    finish(trainer, folder, final, time.perf_counter() - started)
    return 0


def choose_device(name: str) -> gradlite.device:
    """The device of that name; ``auto`` is CUDA where it works.

    Raises:
        UserError: CUDA was asked for and cannot be used.
    """
    if name == "cpu":
        return gradlite.device("cpu")
    ok, reason = cuda.status()
    if ok:
        device = gradlite.device("cuda" if name == "auto" else name)
        try:
            gradlite.zeros(1, device=device)
        except Exception as error:
            if name != "auto":
                raise UserError(f"--device {name}: {because(error)}") from error
            ok = False
    if ok:
        return device
    if name == "auto":
        return gradlite.device("cpu")
    raise UserError(f"--device {name}: CUDA is not available: {reason}")


def describe(settings: Settings, trainer: Trainer, device: gradlite.device) -> None:
    """Say what is about to be trained, on what and where."""
    parameters = sum(parameter.numel() for parameter in trainer.model.parameters())
    say(f"device   {device}")
    say(f"data     {trainer.data}")
    say(f"model    {trainer.model}")
    say(f"         {parameters:,} parameters")
    say(
        f"training {settings.epochs} epochs, {trainer.total_steps} steps of "
        f"{settings.batch_size}, {settings.optimizer}, lr {settings.lr:g}, seed {settings.seed}"
    )
    if note := progress.note_without_bar():
        say(f"note     {note}")


def run(trainer: Trainer, folder: Path) -> tuple[float, float] | None:
    """Train to the end and score all held-out data; None after Ctrl-C, with the run saved."""
    epochs = trainer.settings.epochs
    with progress.Interrupt() as interrupt:

        def proceed() -> bool:
            return not interrupt.requested

        while not trainer.finished:
            started = time.perf_counter()
            total = trainer.data.steps(trainer.epoch)
            description = f"epoch {trainer.epoch}/{epochs}"
            with progress.Bar(description, trainer.step, total, lambda: scores(trainer)) as bar:

                def after_step(bar: progress.Bar = bar) -> bool:
                    bar.step()
                    return proceed()

                trained = trainer.train_epoch(after_step)
            validation = trainer.evaluate(False, proceed) if trained else None
            if not math.isfinite(trainer.train_scores()[0]):
                raise UserError(
                    f"the loss is no longer finite in epoch {trainer.epoch}: "
                    f"try a lower --lr than {trainer.settings.lr:g}"
                )
            if validation is None:
                save(trainer, folder)
                return None
            row = trainer.end_epoch(validation)
            save(trainer, folder)
            say(metrics.line(row, epochs, f"{time.perf_counter() - started:.1f} s"))
        return trainer.evaluate(True, proceed)


def scores(trainer: Trainer) -> str:
    """Loss and accuracy of the epoch so far, for the bar."""
    loss, accuracy = trainer.train_scores()
    return f"loss {loss:.4f}, accuracy {accuracy:.2%}"


def save(trainer: Trainer, folder: Path) -> None:
    """Write the files from which a run can be read, used or resumed."""
    checkpoint.write(folder, trainer.state())
    metrics.write(folder / "metrics.csv", trainer.history)
    if optional("safetensors") is not None:
        path = folder / "model.safetensors"
        with writing(path):
            io.save_safetensors(trainer.model.state_dict(), path)


def finish(trainer: Trainer, folder: Path, final: tuple[float, float], seconds: float) -> None:
    """Write what a finished run leaves, and say how well it did."""
    data, settings = trainer.data, trainer.settings
    loss, accuracy = final
    written = [checkpoint.NAME, "metrics.csv"]
    if optional("safetensors") is None:
        say(f"note     {missing('safetensors', 'model.safetensors')}")
    else:
        written.insert(0, "model.safetensors")
    if optional("matplotlib") is None:
        say(f"note     {missing('matplotlib', 'curves.png')}")
    else:
        title = f"{settings.model.upper()} on {settings.kind}: {data.held_out} "
        title += f"loss {loss:.3f}" if settings.kind == "text" else f"accuracy {accuracy:.2%}"
        plots.draw(folder / "curves.png", trainer.history, title, settings.kind == "text")
        written.append("curves.png")
    if isinstance(data, TextData):
        say("sample")
        say(sample(trainer.model, data, settings.seed))
    unit = " nats per character" if isinstance(data, TextData) else ""
    say(f"{data.held_out} accuracy {accuracy:.2%}, loss {loss:.4f}{unit}, in {seconds:.1f} s")
    say(f"wrote    {', '.join(written)} into {folder}")


def say(text: str) -> None:
    """Print a line at once, also into a pipe and where the terminal lacks a character."""
    encoding = getattr(sys.stdout, "encoding", None) or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding), flush=True)
