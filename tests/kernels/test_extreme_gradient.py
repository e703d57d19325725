"""The gradient of extremes with kernels: the ops' rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels, native
from gradlite.ops.extrema import Amax, Amin, Max, Min
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.norms import VectorNorm
from tests.kernels.support import (
    ROW_TOLERANCES,
    Context,
    ThreadsLauncher,
    host,
    normals,
    starting_anywhere,
    wide,
)

INF, NAN = float("inf"), float("nan")
SHAPES = [
    ((1,), (0,)), ((31,), (0,)), ((3, 32), (1,)), ((2, 33), (1,)), ((5, 1023), (1,)),
    ((3, 1024), (1,)), ((2, 1025), (1,)), ((2100, 8), (1,)), ((31, 2), (0,)), ((1025, 3), (0,)),
    ((2, 3, 5), (0, 2)), ((3, 100003), (1,)), ((2, 3, 4097), (0, 2)), ((3, 4), ()),
]  # fmt: skip
OPS = {"amax": Amax, "amin": Amin, "max": Max, "min": Min}


def compare(
    K: Any, op: Any, x: np.ndarray, dims: Any, keepdim: bool = False, given: Any = None
) -> None:
    """With many ties; ``given`` is x where the kernel is to read it."""
    exact = wide(x)
    out = np.asarray(op.forward(np, exact, dims, keepdim))
    grad = np.asarray(normals(out.shape, x.dtype.name, 1))
    context = Context(op, [exact], (dims, keepdim), out, None, (True,))
    with np.errstate(all="ignore"):
        (expected,) = op.backward(context, wide(grad), NAMESPACES[np.ndarray])
    given = K.xp.asarray(x) if given is None else given
    result = K.xp.asarray(out.astype(x.dtype))
    context = Context(op, [given], (dims, keepdim), result, None, (True,))
    found = op.fused_backward(K, context, K.xp.asarray(grad))
    ours = host(found[0])
    assert ours.dtype == x.dtype and ours.shape == x.shape
    limit = ROW_TOLERANCES[x.dtype.name]
    np.testing.assert_allclose(ours, expected, limit, limit * 1e-2)


def tied(shape: Any, dtype: str) -> np.ndarray:
    return np.asarray(np.round(normals(shape, "float64") * 2) / 2).astype(dtype)


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
@pytest.mark.parametrize(("shape", "dims"), SHAPES, ids=str)
def test_gradients(wanted: Any, shape: Any, dims: Any, dtype: str) -> None:
    for name, op in OPS.items():
        own = dims if name in ("amax", "amin") else tuple(range(len(shape)))  # max is of all
        compare(wanted, op, tied(shape, dtype), own, name == "amin")


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("shape", [(5, 33), (2, 640), (1, 1), (2, 8200)], ids=str)
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, shape: Any, seed: int) -> None:
    threads.check, threads.seed = True, seed
    x = tied(shape, "float32")
    x.flags.writeable = False
    compare(threads, Amax, x, (1,))


def test_rows_that_start_anywhere(wanted: Any) -> None:
    for columns in (77, 80, 8200):
        x = tied((5, columns), "float32")
        for start in range(1, 4):
            (given,) = starting_anywhere(wanted, [x], start)
            compare(wanted, Amax, x, (1,), given=given)


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
@pytest.mark.parametrize(("shape", "dims"), SHAPES, ids=str)
def test_gradients_of_norms(wanted: Any, shape: Any, dims: Any, dtype: str) -> None:
    x = tied(shape, dtype)
    for p in (INF, -INF):
        exact = wide(x)
        out = VectorNorm.forward(np, exact, p, dims, False)
        grad = np.asarray(normals(out.shape, dtype, 1))
        attrs = (p, dims, False)
        context = Context(VectorNorm, [exact], attrs, out, None, (True,))
        (expected,) = VectorNorm.backward(context, wide(grad), NAMESPACES[np.ndarray])
        given = [wanted.xp.asarray(x)]
        context = Context(
            VectorNorm, given, attrs, wanted.xp.asarray(out.astype(dtype)), None, (True,)
        )
        (ours,) = VectorNorm.fused_backward(wanted, context, wanted.xp.asarray(grad))
        limit = ROW_TOLERANCES[dtype]
        np.testing.assert_allclose(host(ours), expected, limit, limit * 1e-2)


@pytest.mark.parametrize("p", [INF, -INF])
def test_norms_that_are_not_finite_are_as_in_pytorch(wanted: Any, p: float) -> None:
    torch = pytest.importorskip("torch")
    for row in ROWS:
        x = np.asarray(row, np.float32)
        theirs = torch.tensor(x, requires_grad=True)
        expected = torch.linalg.vector_norm(theirs, p)
        (gradient,) = torch.autograd.grad(expected, theirs)
        out = wanted.xp.asarray(expected.detach().numpy())
        given = wanted.xp.asarray(x)
        context = Context(VectorNorm, [given], (p, (0,), False), out, None, (True,))
        (found,) = VectorNorm.fused_backward(wanted, context, wanted.xp.ones((), "f4"))
        np.testing.assert_allclose(host(found), gradient.numpy(), 1e-6)


ROWS = [
    [1.0, 1.0, 0.0], [0.0, -0.0, 0.0], [INF, 1.0, INF], [NAN, 1.0, 2.0], [-INF, -INF, -INF],
    [NAN, NAN, INF], [1e30, 1e30, 1e-30],
]  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_extreme_values_are_as_in_pytorch(wanted: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    for row in ROWS:
        x = np.asarray([row] if name in ("amax", "amin") else row, np.float32)
        theirs = torch.tensor(x, requires_grad=True)
        dims = (1,) if x.ndim == 2 else (0,)
        function = getattr(torch, name)
        expected = function(theirs, 1) if x.ndim == 2 else function(theirs)
        (gradient,) = torch.autograd.grad(expected.sum(), theirs)
        out = wanted.xp.asarray(expected.detach().numpy())
        given = wanted.xp.asarray(x)
        context = Context(OPS[name], [given], (dims, False), out, None, (True,))
        found = OPS[name].fused_backward(wanted, context, wanted.xp.ones(out.shape, "f4"))
        np.testing.assert_allclose(host(found[0]), gradient.numpy(), 1e-6)


# ---- as the functions use them -----------------------------------------------------------------

CALLS = {
    "amax": lambda x: x.amax(1), "amin": lambda x: x.amin((0, 2), True),
    "aminmax": lambda x: gradlite.aminmax(x, dim=0).min,
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_launches_and_derivatives(
    native_kernels: None, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    call = CALLS[name]
    gradlite.manual_seed(0)
    x = gradlite.rand(2, 3, 4, dtype=gradlite.float64).requires_grad_()
    monkeypatch.setattr(native.launcher(), "serial", False)  # as on a GPU
    with kernels.record() as launched:
        call(x).sum().backward()
    assert launched.count("extreme_backward") == 1
    assert gradlite.autograd.gradcheck(call, [x])
    assert gradlite.autograd.gradgradcheck(call, [x])


def test_launches_of_one_long_row(native_kernels: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native.launcher(), "serial", False)  # as on a GPU
    x = gradlite.tensor(tied((20000,), "float32")).requires_grad_()
    for call, size in ((x.max, 1), (lambda: x.norm(INF), 2)):
        with kernels.record() as launched:
            (slope,) = gradlite.autograd.grad(call(), x)
        assert [n for n in launched if n.startswith("extreme")] == [
            *["extreme_rows"] * 2 * (size == 1), "extreme_ties", "extreme_share",
        ]  # fmt: skip
        assert slope.abs().sum() == 1
