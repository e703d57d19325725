"""Ops of arrays without elements, on the stand-in for CuPy: as on NumPy, and nothing is launched.

The samples of the table with one dimension of the first array, and of those like it, cut to 0.
"""

from __future__ import annotations

import contextlib
import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import samples
from gradlite.ops.table import TABLE
from tests import cupy_stand_in as stand_in
from tests.test_stand_in import RANDOM_VALUES, convert, tensors

NAMES = sorted(set(TABLE) - RANDOM_VALUES)


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def arrays_of(value: Any) -> list[np.ndarray[Any, Any]]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [array for v in value for array in arrays_of(v)]
    return [value] if isinstance(value, np.ndarray) else []


def cut(value: Any, shape: tuple[int, ...], dim: int) -> Any:
    """Arguments with arrays of a shape, or as long as those, without elements along a dimension.

    Floats become those that NumPy makes of no Python number.
    """
    if isinstance(value, dict):
        return {k: cut(v, shape, dim) for k, v in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(cut(v, shape, dim) for v in value)
    if not isinstance(value, np.ndarray):
        return value
    made = value.astype(np.float32) if value.dtype == np.float64 else value
    if value.shape == shape or (dim == 0 and value.shape[:1] == shape[:1]):
        made = made[(slice(None),) * dim + (slice(0),)]
    return made.view(type(value))


def outcome(name: str, sample: Any, dim: int, device: str) -> Any:
    """Dtypes, shapes and values of outputs and gradients; None where there is an error."""
    gradlite.manual_seed(3)
    given = (sample.args, sample.kwargs)
    args, kwargs = convert(cut(given, arrays_of(given)[0].shape, dim), device)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of means of nothing, and of no degrees of freedom
            outs = tensors(TABLE[name].function(*args, **kwargs))
        leaves = [t for t in tensors((args, kwargs)) if t.requires_grad and t.is_leaf]
        kept = [o for o in outs if o.requires_grad]
        if kept and leaves and TABLE[name].differentiable:
            ones = [gradlite.ones_like(o) for o in kept]
            outs += gradlite.autograd.grad(kept, leaves, ones, allow_unused=True)
        if device == "cuda":
            gradlite.cuda.synchronize()
    except (RuntimeError, IndexError, ValueError, AssertionError):
        with contextlib.suppress(RuntimeError):
            gradlite.cuda.synchronize()  # which may have found it too
        return None
    return [o if o is None else (o.dtype, o.shape, o.detach().cpu().numpy()) for o in outs]


@pytest.mark.parametrize("name", NAMES)
def test_of_nothing_comes_the_same_on_both_devices(name: str) -> None:
    samples.fresh()
    for number, sample in enumerate(TABLE[name].samples()):
        arrays = arrays_of((sample.args, sample.kwargs))
        for dim in range(arrays[0].ndim if arrays else 0):
            what = f"{name} sample {number} without elements in dimension {dim}"
            expected, found = (outcome(name, sample, dim, d) for d in ("cpu", "cuda"))
            assert (found is None) == (expected is None), what
            for ours, theirs in zip(found or (), expected or (), strict=True):
                assert (ours is None) == (theirs is None), what
                if theirs is not None:
                    assert ours[:2] == theirs[:2], what
                    np.testing.assert_allclose(ours[2], theirs[2], 1e-5, 1e-5, err_msg=what)
