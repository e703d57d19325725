"""assert_close: PyTorch's verdicts, errors and messages."""

from __future__ import annotations

import warnings
from collections import OrderedDict
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite

torch = pytest.importorskip("torch")

NAN, INF = float("nan"), float("inf")


def both(a: Any, b: Any, dtype: str = "float32", other: str | None = None) -> Callable[[Any], Any]:
    """Two tensors, as a function of the library."""
    return lambda t: (
        t.tensor(a, dtype=getattr(t, dtype)),
        t.tensor(b, dtype=getattr(t, other or dtype)),
    )


PAIRS: dict[str, Callable[[Any], tuple[Any, Any]]] = {
    "equal": both([1.0, 2.0], [1.0, 2.0]),
    "one of three": both([1.0, 2.0, 3.0], [1.0, 2.5, 3.0]),
    "just within": both([1.0], [1.0 + 1.1e-5]),
    "just beyond": both([1.0], [1.0 + 1.2e-5]),
    "float64 within": both([1.0], [1.0 + 1.9e-7], "float64"),
    "float64 beyond": both([1.0], [1.0 + 2.1e-7], "float64"),
    "float16 within": both([1000.0], [1001.0], "float16"),
    "float16 beyond": both([1000.0], [1002.0], "float16"),
    "bfloat16 within": both([100.0], [101.0], "bfloat16"),
    "bfloat16 beyond": both([100.0], [102.0], "bfloat16"),
    "a matrix": both([[1.0, 2.0], [3.0, 4.0]], [[1.0, 2.0], [3.5, 0.0]]),
    "whole numbers": both([1, 2, 3], [1, 2, 4], "int64"),
    "small whole numbers": both([[1, 200]], [[1, 100]], "uint8"),
    "bools": both([True, False], [True, True], "bool"),
    "a scalar": both(1.5, 1.25),
    "a scalar of whole numbers": both(3, 4, "int64"),
    "zeros": both([0.0, 0.0], [0.0, 1.0]),
    "nan": both([NAN, 1.0], [NAN, 1.0]),
    "one nan": both([NAN, 1.0], [0.0, 1.0]),
    "inf": both([INF, -INF], [INF, INF]),
    "empty": both([], []),
    "shapes": both([1.0, 2.0], [[1.0, 2.0]]),
    "dtypes": both([1.0], [1.0], "float32", "float64"),
    "dtypes and values": both([1.0], [1.01], "float16", "float64"),
    "int and float": both([1], [1.0], "int64", "float32"),
    "strides": lambda t: (t.ones(2, 3), t.ones(3, 2).t()),
    "a graph": lambda t: (t.ones(2, requires_grad=True) * 2, t.ones(2)),
    "Parameter and Tensor": lambda t: (t.nn.Parameter(t.ones(2)), t.ones(2)),
    "numbers": lambda t: (1.0, 1.0 + 1e-8),
    "far numbers": lambda t: (1.0, 1.1),
    "int and float numbers": lambda t: (1, 1.0),
    "whole Python numbers": lambda t: (1, 2),
    "against zero": lambda t: (1e-3, 0.0),
    "NaN numbers": lambda t: (NAN, NAN),
    "complex numbers": lambda t: (1 + 1j, 1 + 2j),
    "NumPy numbers": lambda t: (np.float32(1.5), 1.5),
    "Python bools": lambda t: (True, False),
    "NumPy bools": lambda t: (np.True_, True),
    "None": lambda t: (None, None),
    "None and a number": lambda t: (None, 1),
    "arrays": lambda t: (np.ones(2), np.array([1.0, 1.5])),
    "array and tensor": lambda t: (np.ones(2, np.float32), t.ones(2)),
    "tensor and number": lambda t: (t.ones(()), 1.0),
    "words": lambda t: ("a", "a"),
    "sequences": lambda t: ([t.ones(1), 2.0], (t.ones(1), 2.0)),
    "deep in sequences": lambda t: ([1, [t.ones(2), [2.0]]], [1, [t.ones(2), [2.5]]]),
    "lengths": lambda t: ([1, 2], [1]),
    "mappings": lambda t: ({"a": t.ones(1), "b": 1}, OrderedDict(b=1, a=t.ones(1))),
    "in a mapping": lambda t: ({"a": t.ones(1)}, {"a": t.zeros(1)}),
    "keys": lambda t: ({"a": 1, "c": 1}, {"a": 1, "b": 1}),
    "keys without order": lambda t: ({"a": 1, 2: 1}, {2: 1, "a": 2}),
    "a type before a value": lambda t: ([1.0, "a"], [2.0, t.ones(1)]),
    "mapping and sequence": lambda t: ({"a": 1}, [1]),
}
OPTIONS: dict[str, dict[str, Any]] = {
    "as it is": {},
    "equality": {"rtol": 0, "atol": 0},
    "wide": {"rtol": 0.1, "atol": 0.5},
    "rtol alone": {"rtol": 0.1},
    "atol alone": {"atol": 0.1},
    "equal_nan": {"equal_nan": True},
    "any dtype": {"check_dtype": False},
    "strides": {"check_stride": True},
    "no subclasses": {"allow_subclasses": False},
    "message": {"msg": "they differ"},
    "made message": {"msg": lambda text: f"before\n{text}\nafter"},
}


def verdict(library: Any, pair: Callable[[Any], Any], **options: Any) -> tuple[str, str] | None:
    try:
        library.testing.assert_close(*pair(library), **options)
    except (AssertionError, TypeError, ValueError) as error:
        text = str(error).replace("torch.nn.parameter.", "gradlite.nn.parameter.")
        text = text.replace("<class 'torch.Tensor'>", f"{gradlite.Tensor}")
        return type(error).__name__, text.replace("torch.", "gradlite.")
    return None


@pytest.mark.parametrize("options", OPTIONS)
@pytest.mark.parametrize("name", PAIRS)
def test_verdict_and_message(name: str, options: str) -> None:
    ours = verdict(gradlite, PAIRS[name], **OPTIONS[options])
    assert ours == verdict(torch, PAIRS[name], **OPTIONS[options])


def test_nothing_stays_in_a_graph() -> None:
    x = gradlite.ones(2, requires_grad=True)
    with pytest.raises(AssertionError, match="1 / 2"):
        gradlite.testing.assert_close(x, gradlite.tensor([1.0, 2.0]))
    assert x.grad is None and x._version == 0


@pytest.mark.parametrize(
    "pair",
    [
        ([1.0, 2.0], [1.0, 2.0002]),
        ([1.0, 2.0], [1.0, 2.0003]),
        ([1, 2], [1.0, 2.0]),
        ([NAN], [NAN]),
        (1.0, 1.1),
    ],
)
@pytest.mark.parametrize("options", [{}, {"rtol": 0, "atol": 1}, {"msg": "far"}])
def test_assert_allclose(pair: tuple[Any, Any], options: dict[str, Any]) -> None:
    found = []
    for library in (gradlite, torch):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            try:
                library.testing.assert_allclose(*pair, **options)
                text = ""
            except AssertionError as error:
                text = str(error)
        found.append((text, [(w.category, w.filename) for w in caught]))
    assert found[0] == found[1]
    assert found[0][1] == [(FutureWarning, __file__)]
