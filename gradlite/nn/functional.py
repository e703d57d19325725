"""Interim."""

import importlib

import gradlite.ops  # noqa: F401
from gradlite.ops.table import TABLE

for _name in (
    "activation",
    "softmax",
    "loss",
    "distance",
    "loss_derived",
    "conv",
    "norm",
    "rnn",
    "dropout",
    "embedding",
    "attention",
    "multihead",
    "resize",
    "noise",
    "pool",
    "pooling",
    "pad",
    "padding",
):
    try:
        importlib.import_module(f"gradlite.ops.{_name}")
    except ImportError:
        pass


def __getattr__(name):
    try:
        return TABLE[name].function
    except KeyError:
        raise AttributeError(name) from None
