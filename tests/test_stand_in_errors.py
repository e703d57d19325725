"""What is refused on the CPU is refused on a GPU, in the same words, on the stand-in for CuPy.

The calls are those that the table says are errors, and its first samples with one array of
another shape or dtype. A GPU is not asked for numbers: of an index or a class number out of
bounds the error comes late, as an assert's, which names the op.
"""

from __future__ import annotations

import contextlib
import re
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import samples
from gradlite.ops.table import TABLE
from tests import cupy_stand_in as stand_in
from tests.test_stand_in import convert

ASSERT = re.compile(
    r"CUDA error: device-side assert triggered"
    r"(\n[a-z_]+: ([\w ]+ -?\d+ is out of bounds for dimension with size \d+"
    r"|all elements of input should be between 0 and 1))+"
)


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def altered(array: np.ndarray[Any, Any]) -> Iterator[np.ndarray[Any, Any]]:
    """The array in shapes and dtypes that may not fit the others, or the op."""
    whole = np.asarray(array)
    if whole.dtype.kind == "i":
        yield whole + 1000
        yield whole - 1000
        yield whole.astype(np.float32)
    if whole.dtype.kind == "f":
        yield whole - 9
        yield whole + 9
        yield whole * np.nan
    if whole.ndim and whole.size:
        yield whole[..., :-1]
        yield whole[:0]
        yield whole[0]


def variants(value: Any) -> Iterator[Any]:
    """A sample's arguments with one array altered, in every way."""
    if isinstance(value, np.ndarray):
        for other in altered(value):
            yield other.view(type(value))
    elif isinstance(value, dict):
        for key, part in value.items():
            yield from ({**value, key: other} for other in variants(part))
    elif isinstance(value, (list, tuple)):
        for place, part in enumerate(value):
            for other in variants(part):
                yield type(value)((*value[:place], other, *value[place + 1 :]))


def refusal(function: Any, given: Any, device: str) -> BaseException | None:
    gradlite.manual_seed(3)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            args, kwargs = convert(given, device)
            function(*args, **kwargs)
            if device == "cuda":
                gradlite.cuda.synchronize()
    except Exception as error:
        with contextlib.suppress(RuntimeError):
            gradlite.cuda.synchronize()  # which may have found it too
        return error
    return None


@pytest.mark.parametrize("name", sorted(TABLE))
def test_what_is_refused_is_refused_in_the_same_words(name: str) -> None:
    entry = TABLE[name]
    samples.fresh()
    calls = [(s.args, s.kwargs) for s in entry.errors()]
    for sample in [*entry.samples()][:1]:
        calls += variants((sample.args, sample.kwargs))
    for number, given in enumerate(calls):
        expected, found = (refusal(entry.function, given, device) for device in ("cpu", "cuda"))
        if expected is None:
            continue
        what = f"{name} call {number}: {found!r}; on the CPU {expected!r}"
        if not ASSERT.fullmatch(str(found)):
            assert type(found) is type(expected), what
            assert str(found).replace("cuda:0", "cpu").replace("CUDA", "CPU") == str(expected), what
