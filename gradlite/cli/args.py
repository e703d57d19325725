"""Options of the command line, and what they are where the user leaves them out."""

from __future__ import annotations

import argparse
import math
from dataclasses import dataclass
from typing import Any, NamedTuple, NoReturn

import gradlite
from gradlite.cli.errors import UserError

MODELS = ("mlp", "cnn", "gru", "gpt")
OPTIMIZERS = ("sgd", "adam", "adamw", "rmsprop")
STEPS_PER_EPOCH = 150
"""Text has no natural epoch: the loss on the held-out part is reported this often by default."""


class Recipe(NamedTuple):
    """Settings that train a model well; the learning rate is that of AdamW."""

    epochs: int
    batch_size: int
    lr: float


RECIPES = {
    ("mlp", "digits"): Recipe(30, 32, 5e-3),
    ("cnn", "digits"): Recipe(25, 64, 1e-2),
    ("gru", "digits"): Recipe(30, 64, 1e-2),
    ("mlp", "mnist"): Recipe(10, 64, 3e-3),
    ("cnn", "mnist"): Recipe(10, 64, 1e-2),
    ("gru", "mnist"): Recipe(8, 64, 5e-3),
    ("gru", "text"): Recipe(10, 16, 5e-3),
    ("gpt", "text"): Recipe(10, 16, 5e-3),
}
LR_FACTORS = {"sgd": 20.0, "adam": 1.0, "adamw": 1.0, "rmsprop": 1.0}


@dataclass(frozen=True)
class Settings:
    """Everything that decides what a run computes; a resumed run has those it began with."""

    model: str
    data: str
    device: str
    epochs: int
    steps: int | None
    """Steps of the whole run on text; None for images, whose epochs are passes over the data."""
    batch_size: int
    lr: float
    optimizer: str
    seed: int

    @property
    def kind(self) -> str:
        """``digits``, ``mnist`` or ``text``."""
        return self.data.partition(":")[0]


class Parser(argparse.ArgumentParser):
    """A parser whose errors are one line."""

    def error(self, message: str) -> NoReturn:
        raise UserError(f"{message} (see: {self.prog} --help)")


def parser() -> Parser:
    """The parser of ``python -m gradlite``."""
    root = Parser(
        prog="python -m gradlite",
        description="Train small models with gradlite.",
        allow_abbrev=False,
    )
    root.add_argument("--version", action="version", version=f"gradlite {gradlite.__version__}")
    commands = root.add_subparsers(dest="command", required=True, metavar="train | info")
    commands.add_parser(
        "info",
        help="versions, devices, and what CUDA would need",
        description="Print versions, devices, and what CUDA would need.",
        allow_abbrev=False,
    )
    train = commands.add_parser(
        "train",
        help="train a small model on digits, MNIST files or a text",
        description="Train a small model. Without options: a convolutional network on "
        "scikit-learn's digits, in seconds.",
        epilog="Writes model.safetensors, checkpoint, metrics.csv and curves.png. Ctrl-C saves "
        "first; --resume continues exactly where the run stopped. NumPy multiplies on one thread "
        "unless OMP_NUM_THREADS says otherwise.",
        allow_abbrev=False,
    )
    option = train.add_argument
    option("--model", choices=MODELS, help="default: cnn, or gpt when the data are a text")
    option(
        "--data",
        type=_data,
        metavar="DATA",
        help="digits (default), mnist:DIR (IDX files, .gz or not) or text:FILE (UTF-8)",
    )
    option(
        "--device",
        type=_device,
        metavar="auto|cpu|cuda",
        help="default: auto, which is cuda where there is a working GPU",
    )
    recipe = "default: depends on model and data"
    option("--epochs", type=_positive_int, metavar="N", help=recipe)
    option(
        "--steps",
        type=_positive_int,
        metavar="N",
        help=f"text only: steps of the whole run (default: {STEPS_PER_EPOCH} an epoch)",
    )
    option("--batch-size", type=_positive_int, metavar="N", help=recipe)
    option("--lr", type=_positive_float, metavar="LR", help="highest learning rate; " + recipe)
    option("--optimizer", choices=OPTIMIZERS, help="default: adamw")
    option("--seed", type=_seed, metavar="N", help="default: 0")
    option("--out", metavar="DIR", help="default: runs/<model>-<data>")
    option("--resume", action="store_true", help="continue the run in --out from its checkpoint")
    return root


def settings_for(options: argparse.Namespace) -> Settings:
    """Complete the options of a new run.

    Raises:
        UserError: options that do not go together.
    """
    data = options.data or "digits"
    kind = data.partition(":")[0]
    model = options.model or ("gpt" if kind == "text" else "cnn")
    if (model, kind) not in RECIPES:
        if kind == "text":
            raise UserError(f"{model} classifies images: for text use --model gru or --model gpt")
        raise UserError(f"{model} models text: add --data text:FILE, or use another --model")
    recipe = RECIPES[model, kind]
    epochs, steps = options.epochs or recipe.epochs, options.steps
    if kind == "text":
        if steps is None:
            steps = epochs * STEPS_PER_EPOCH
        elif options.epochs is None:
            epochs = min(epochs, steps)
        elif steps < epochs:
            raise UserError(f"--steps {steps} is too few for --epochs {epochs}")
    elif steps is not None:
        raise UserError("--steps is for text: the length of a run on images is set by --epochs")
    optimizer = options.optimizer or "adamw"
    return Settings(
        model=model,
        data=data,
        device=options.device or "auto",
        epochs=epochs,
        steps=steps,
        batch_size=options.batch_size or recipe.batch_size,
        lr=options.lr or recipe.lr * LR_FACTORS[optimizer],
        optimizer=optimizer,
        seed=options.seed or 0,
    )


def out_for(options: argparse.Namespace) -> str:
    """The folder of the run: ``--out``, or ``runs/<model>-<data>``."""
    if options.out:
        return str(options.out)
    settings = settings_for(options)
    return f"runs/{settings.model}-{settings.kind}"


def resumed_settings(options: argparse.Namespace, saved: dict[str, Any]) -> Settings:
    """The settings of a checkpoint, where the options given now do not contradict them.

    The device may differ, and the data may lie elsewhere.

    Raises:
        UserError: an option differs from the run's.
    """
    try:
        settings = Settings(**saved)
    except TypeError as error:
        raise UserError(f"cannot resume a run of another version of gradlite: {error}") from error
    for name, value in saved.items():
        given = getattr(options, name)
        if given is None or given == value or name == "device":
            continue
        if name == "data" and given.partition(":")[0] == settings.kind:
            continue
        flag = "--" + name.replace("_", "-")
        raise UserError(f"cannot resume: the run was started with {flag} {value}, not {given}")
    merged = {name: getattr(options, name) for name in ("data", "device")}
    return Settings(**saved | {name: value for name, value in merged.items() if value})


def _data(text: str) -> str:
    kind, colon, path = text.partition(":")
    if text == "digits" or (kind in ("mnist", "text") and path):
        return text
    if kind in ("mnist", "text"):
        raise argparse.ArgumentTypeError(f"{text!r} lacks a path, as in {kind}:PATH")
    raise argparse.ArgumentTypeError(f"{text!r} is none of digits, mnist:DIR, text:FILE")


def _device(text: str) -> str:
    kind, colon, index = text.partition(":")
    if text in ("auto", "cpu", "cuda") or (kind == "cuda" and index.isdecimal()):
        return text
    raise argparse.ArgumentTypeError(f"{text!r} is none of auto, cpu, cuda")


def _int(text: str) -> int:
    try:
        return int(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number") from None


def _positive_int(text: str) -> int:
    value = _int(text)
    if value < 1:
        raise argparse.ArgumentTypeError(f"{text} is not positive")
    return value


def _seed(text: str) -> int:
    value = _int(text)
    if not 0 <= value < 2**32:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 2**32 - 1")
    return value


def _positive_float(text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    if not (value > 0 and math.isfinite(value)):
        raise argparse.ArgumentTypeError(f"{text} is not a positive number")
    return value
