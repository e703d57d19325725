"""What Python and NumPy keep for a whole program, and a step may ask for: by names in its code."""

from __future__ import annotations

import locale
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np


def _printing() -> Any:
    return repr(np.get_printoptions())


def _errors() -> Any:
    return np.geterr()


def _locale() -> Any:
    return locale.setlocale(locale.LC_ALL)


def _zone() -> Any:
    return time.timezone, time.altzone, time.daylight, time.tzname


def _decimal_context() -> Any:
    context = sys.modules["decimal"].getcontext()
    # Not the flags: they say what has been computed.
    return context.prec, context.rounding, context.Emin, context.Emax, repr(context.traps)


# By the names of functions, classes and attributes: for people, and what to ask.
ASKED: dict[str, tuple[str, Callable[[], Any]]] = {
    **dict.fromkeys(("get_printoptions",), ("NumPy's options for printing", _printing)),
    **dict.fromkeys(("geterr",), ("what NumPy does about floating point errors", _errors)),
    **dict.fromkeys(("getlocale", "localeconv", "setlocale"), ("the locale", _locale)),
    **dict.fromkeys(("altzone", "daylight", "timezone", "tzname"), ("the time zone", _zone)),
    **dict.fromkeys(("getrecursionlimit",), ("the recursion limit", sys.getrecursionlimit)),
}
OF_DECIMALS = ("the context of decimal numbers", _decimal_context)


def asked(names: set[str]) -> dict[str, Callable[[], Any]]:
    """What code with some names may ask for: functions, by the names for people."""
    found = dict(ASKED[name] for name in sorted(names & ASKED.keys()))
    if "decimal" in sys.modules and not names.isdisjoint(("Decimal", "decimal", "getcontext")):
        found.update([OF_DECIMALS])
    return found
