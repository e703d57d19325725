"""Interim."""

import gradlite.ops  # noqa
from gradlite.ops.table import TABLE


def __getattr__(name):
    try:
        return TABLE[name].function
    except KeyError:
        raise AttributeError(name) from None
