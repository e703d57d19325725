"""PyTorch's own sample inputs of every op that gradlite has under the same name: numbers, dtypes,
shapes, strides, aliasing of the input, requires_grad and gradients are PyTorch's.

Where they are not is in `KNOWN`, with the reason; an entry that is no longer true fails.
"""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import gradlite

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

from tests.ops.torch_samples import Op, differences, ops  # noqa: E402

# PyTorch's table is loaded when a test runs, so its ops cannot be the tests' parameters.
PARTS = 16

# On how many of its samples an op is tried.
LIMITS = {
    "float64": 24,
    "float32": 8,
    "int64": 10,
    "uint8": 6,
    "bool": 4,
    "float16": 4,
    "bfloat16": 6,
}

REALS = "float64 float32"
FLOATS = "float64 float32 float16 bfloat16"
TIES = "which of several equal elements comes first is left open, and differs"
COLUMNS = "LAPACK's results lie column by column there, row by row here"
LAST = "the result has its channels last there, as the input has"
NOTHING = "the gradient of how many differ is zeros there, and none here"
REPEATED = "a place that is named twice counts twice there, though it is filled once"

# {op: (what differs, in which dtypes, why)}
KNOWN: dict[str, tuple[str, str, str]] = {
    "argsort": ("values", "bool uint8 float16 bfloat16", TIES),
    "kthvalue": ("values", "int64 uint8", TIES),
    "mode": ("values", "int64", TIES),
    "sort": ("values", "bool uint8 float16 bfloat16", TIES),
    "topk": ("values", "int64 uint8", TIES),
    "cat": ("strides", "float64 int64", LAST),
    "nn.functional.interpolate.nearest": ("strides", "float64", LAST),
    "nn.functional.interpolate.nearest-exact": ("strides", "float64", LAST),
    "nn.functional.max_unpool2d.grad": ("strides", REALS, LAST),
    "unravel_index": ("strides", "int64 uint8", "the results are parts of one tensor there"),
    "cholesky": ("strides", REALS, COLUMNS),
    "cholesky_inverse": ("strides", REALS, COLUMNS),
    "cholesky_solve": ("strides", REALS, COLUMNS),
    "linalg.cholesky": ("strides", REALS, COLUMNS),
    "linalg.cholesky_ex": ("strides", REALS, COLUMNS),
    "linalg.eigh": ("strides, values", REALS, "vectors of other signs, column by column there"),
    "linalg.householder_product": ("strides", REALS, COLUMNS),
    "linalg.inv": ("strides", REALS, COLUMNS),
    "linalg.lstsq": ("strides", REALS, COLUMNS),
    "linalg.lstsq.grad_oriented": ("strides", REALS, COLUMNS),
    "linalg.matrix_power": ("strides", "float64", COLUMNS),
    "linalg.qr": ("strides", REALS, COLUMNS),
    "linalg.solve": ("strides", REALS, COLUMNS),
    "linalg.tensorinv": ("strides", REALS, COLUMNS),
    "pca_lowrank": ("strides", REALS, COLUMNS),
    "qr": ("strides", REALS, COLUMNS),
    "svd": ("strides", "float64", COLUMNS),
    "svd_lowrank": ("strides", REALS, COLUMNS),
    "matrix_exp": ("values", "float16 bfloat16", "NaN there"),
    "nn.functional.grid_sample": ("values", "bfloat16", "coordinates are rounded there"),
    "linalg.svd": ("strides", "float64", COLUMNS),
    "nn.functional.pdist": ("gradient dtypes", REALS, NOTHING),
    "nn.functional.hardsigmoid": ("gradients", "float64", "1/6 is a float32 there"),
    "nn.functional.dropout3d": ("identity", FLOATS, "a view of the input there, the input here"),
    "nn.functional.batch_norm": ("raises", FLOATS, "an empty vector is refused here"),
    "nn.functional.avg_pool3d": ("raises", "int64", "means of integers are refused here"),
    "normal.number_mean": ("raises", FLOATS, "there is one layout here, and no argument for it"),
    "new_empty_strided": ("raises", f"{FLOATS} int64 uint8 bool", "strides cannot be given here"),
    "max_pool2d_with_indices_backward": ("raises", FLOATS, "max_pool2d has return_indices here"),
    "index_fill": ("gradients", REALS, REPEATED),
}


def known(name: str, dtype: str) -> set[str]:
    what, dtypes, _ = KNOWN.get(name, ("", "", ""))
    return set(what.split(", ")) if dtype in dtypes.split() else set()


def report(op: Op, dtype: str, limit: int) -> list[str]:
    """What is wrong with an op, beyond what is known, and what is known and wrong no longer."""
    found: dict[str, str] = {}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for what, how in differences(op, dtype, limit):
            found.setdefault(what, how)
    expected = known(op.name, dtype)
    lines = [f"{op.name}: {what}: {how}" for what, how in found.items() if what not in expected]
    return lines + [f"{op.name}: {what} no longer differ" for what in expected - found.keys()]


@pytest.mark.parametrize("part", range(PARTS))
@pytest.mark.parametrize("dtype", LIMITS)
def test_results_are_those_of_pytorch_on_its_samples(dtype: str, part: int) -> None:
    wrong = []
    for op in ops()[part::PARTS]:
        if op.takes(dtype):
            wrong += report(op, dtype, LIMITS[dtype])
    assert not wrong, "\n".join([f"in {dtype}:", *wrong])


def test_most_ops_are_here() -> None:
    names = {op.name for op in ops()}
    assert len(names) > 490
    assert names >= KNOWN.keys()


def one_off(x: Any) -> Any:
    return gradlite.sin(x) * 1.00005


def wrong_rule(x: Any) -> Any:
    return gradlite.sin(x) + 1e-4 * (x - x.detach())


@pytest.mark.parametrize(
    "name, replaced, dtype, what",
    [
        ("sin", one_off, "float32", "values"),
        ("sin", wrong_rule, "float64", "gradients"),
        ("sin", lambda x: gradlite.sin(x).double(), "float32", "dtypes"),
        ("sin", lambda x: gradlite.sin(x.detach()), "float64", "requires_grad"),
        ("sin", lambda x: (gradlite.sin(x),), "float64", "kind"),
        ("sin", lambda x: gradlite.sin(x.abs().reshape(3, -1)), "float64", "raises"),
        ("t", lambda x: x.t().clone(), "int64", "aliases"),
        ("add", lambda x, y, **options: x.add_(y, **options), "int64", "inputs"),
        ("fliplr", lambda x: x.flipud(), "int64", "values"),
    ],
)
def test_what_is_wrong_is_found(name: str, replaced: Any, dtype: str, what: str) -> None:
    op = next(op for op in ops() if op.name == name)
    theirs, _ = op.variants["function"]
    planted = Op(op.info, {"function": (theirs, replaced)})
    assert f"{name}: {what}: " in "\n".join(report(planted, dtype, 10))
    assert not report(Op(op.info, {"function": op.variants["function"]}), dtype, 10)
