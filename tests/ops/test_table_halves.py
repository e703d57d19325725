"""Every op of the table on half precision: computed in float32, rounded once.

The reference is PyTorch in float64, on the same numbers. An op that is one kernel in PyTorch may
be off by one rounding; what PyTorch itself composes of several may be off as it is.
"""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.table import TABLE, Sample
from tests.ops.test_table import (
    NAMES,
    describe,
    run,
    samples_of,
    torch,
    torch_function,
    wants_grad,
    weights_for,
)

HALVES = ["bfloat16", "float16"]
ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}  # relative, at most
# Roundings at which an op may end up that has more steps than PyTorch's; by default once.
MORE = {
    "binary_cross_entropy_with_logits": 8,
    "cdist": 6,
    "embedding_bag": 2,
    "gaussian_nll_loss": 2.5,
    "gradient": 6,
    "huber_loss": 2,
    "hypot": 2,
    "local_response_norm": 3,
    "lp_pool3d": 3,
    "pdist": 4,
    "smooth_l1_loss": 1.5,
    "softmax": 6,
    "triplet_margin_with_distance_loss": 2,
    "vander": 1.5,
}


def made_by(library: Any, dtype: str, exact: bool = False) -> Any:
    """What makes a sample's array a tensor of half precision, or of float64 with its numbers."""

    def make(array: np.ndarray) -> Any:
        tensor = library.tensor(np.asarray(array))
        if array.dtype != np.float64:
            return tensor
        tensor = tensor.to(getattr(library, dtype))
        return (tensor.double() if exact else tensor).requires_grad_(wants_grad(array))

    make.__name__ = "ours" if library is gradlite else "theirs"
    return make


def tried(name: str, sample: Sample, make: Any, function: Any) -> Any:
    try:
        return run(name, sample, make, function)
    except (RuntimeError, NotImplementedError) as error:
        return error


def values(tensor: Any) -> np.ndarray:
    return tensor.detach().double().numpy(force=True)


def roundings(actual: Any, exact: Any, dtype: str, what: str) -> float:
    """The largest error in roundings: of each number, or of a tenth of the largest one."""
    a, e = values(actual), values(exact)
    assert a.shape == e.shape, f"{what}: shape {a.shape} != {e.shape}"
    np.testing.assert_array_equal(np.isnan(a), np.isnan(e), err_msg=what)
    finite = np.isfinite(a) & np.isfinite(e)
    a, e = a[finite], e[finite]
    size = np.maximum(np.abs(e), max(0.1 * np.abs(e).max(initial=0.0), 1e-3))
    return float((np.abs(a - e) / (ROUNDING[dtype] * size)).max(initial=0.0))


def gradients(outs: list[Any], leaves: list[Any], dtype: str) -> list[Any]:
    kept = [o for o in outs if o.requires_grad]
    if kept:
        library: Any = gradlite if isinstance(kept[0], gradlite.Tensor) else torch
        half = getattr(library, dtype)
        weights = [library.tensor(w).to(half).to(o.dtype) for o, w in zip(kept, weights_for(kept))]
        library.autograd.backward(kept, weights)
    return [leaf.grad for leaf in leaves]


# What PyTorch makes inf and NaN of; tests/test_halves_on_cuda.py compares it with float64.
BROKEN_THERE = {"matrix_exp"}


@pytest.mark.parametrize("dtype", HALVES)
@pytest.mark.parametrize("name", [n for n in NAMES if TABLE[n].torch and n not in BROKEN_THERE])
def test_half_precision_is_rounded_once(name: str, dtype: str) -> None:
    entry = TABLE[name]
    reference = torch_function(entry)
    for number, sample in enumerate(samples_of(name)):
        what = f"{name} sample {number} {describe(sample)}"
        mine = tried(name, sample, made_by(gradlite, dtype), entry.function)
        yours = tried(name, sample, made_by(torch, dtype), reference)
        if isinstance(mine, Exception):
            assert isinstance(yours, type(mine)), f"{what}: {mine!r}"
            continue
        exact, exact_leaves = run(name, sample, made_by(torch, dtype, exact=True), reference)
        known = not isinstance(yours, Exception)
        pairs = [(what, mine[0], exact, yours[0] if known else exact)]
        if entry.differentiable:
            grads = [gradients(*mine, dtype), gradients(exact, exact_leaves, dtype)]
            try:
                theirs = gradients(*yours, dtype) if known else grads[1]
            except NotImplementedError:
                theirs = grads[1]
            pairs.append((f"{what}: gradient", grads[0], grads[1], theirs))
        for where, actual, right, other in pairs:
            assert len(actual) == len(right), where
            for a, e, b in zip(actual, right, other):
                assert (a is None) == (e is None), where
                if a is None:
                    continue
                if known and other is not right:
                    assert str(a.dtype).rpartition(".")[2] == str(b.dtype).rpartition(".")[2], where
                limit = 1.01 if other is right else 2 * roundings(b, e, dtype, where)
                limit = max(limit, MORE.get(name, 1.01))
                error = roundings(a, e, dtype, where)
                assert error <= limit, f"{where}: off by {error:.2f} roundings, not {limit:.2f}"


FRESH = """
import sys, numpy as np, gradlite as T
from gradlite import dtypes
x = T.randn(3, 4, requires_grad=True)
(T.nn.Linear(4, 2)(x) * 2).sum().backward()
print(sorted(map(str, dtypes.halves_in_use())))
{making}
print(sorted(map(str, dtypes.halves_in_use())), "ml_dtypes" in sys.modules)
"""
ON_A_GPU = (
    "from tests import cupy_stand_in as c; import pytest; cupy = c.install(pytest.MonkeyPatch())"
)


@pytest.mark.parametrize(
    "making",
    [
        "T.ones(2, dtype=T.float16)",
        "x.half()",
        "T.from_numpy(np.ones(2, np.float16))",
        "T.tensor(np.ones(2, '>f2'))",
        "T.as_tensor(np.ones(2, np.float16))",
        "T.nn.Linear(2, 2).half()",
        "T.rand(2, dtype=np.float16)",
        f"{ON_A_GPU}; T.as_tensor(cupy.ones(2, np.float16))",
    ],
)
def test_nothing_of_it_is_on_the_way_before_it_is_asked_for(making: str) -> None:
    code = FRESH.format(making=making)
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    assert done.stdout == "[]\n['float16'] False\n"
