"""Elementwise kernels of several operands: the ops' rules in float64 are the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import arithmetic, blend, choose, noise, triangle
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.truth import close_by_kernel
from tests.kernels.support import (
    ROW_TOLERANCES,
    Context,
    ThreadsLauncher,
    by_kernel,
    by_rule,
    host,
    normals,
    starting_anywhere,
    wide,
)

SIZES = [1, 31, 32, 33, 1023, 1024, 1025, 100003]
# The op, how many operands it has, and its attributes.
OPS: dict[str, tuple[Any, int, tuple[Any, ...]]] = {
    "add scaled": (arithmetic.AddScaled, 2, (-1.5,)),
    "sub scaled": (arithmetic.SubScaled, 2, (0.75,)),
    "addcmul": (blend.Addcmul, 3, (-1.5,)),
    "addcdiv": (blend.Addcdiv, 3, (0.5,)),
    "lerp": (blend.Lerp, 2, (0.25,)),
    "lerp from the end": (blend.Lerp, 2, (1.75,)),
    "lerp_tensor": (blend.LerpTensor, 3, ()),
    "where": (choose.Where, 3, ()),
    "clamp": (choose.Clamp, 1, (-0.5, 0.75)),
    "clamp between": (choose.ClampBetween, 3, ()),
    "tril": (triangle.Tril, 1, (1,)),
    "triu": (triangle.Triu, 1, (-1,)),
}


def operands(name: str, shapes: Any, dtype: str) -> list[np.ndarray]:
    """Random ones; divisors are above 0."""
    arrays = [np.asarray(normals(shape, dtype, k)) for k, shape in enumerate(shapes)]
    if name == "where":
        arrays[0] = np.asarray(arrays[0] > 0)
    if name == "addcdiv":
        arrays[2] = (np.abs(arrays[2]) + arrays[2].dtype.type(0.5)).astype(dtype)
    return arrays


def check(
    K: Any,
    name: str,
    shapes: Any,
    dtype: str,
    wanted: Any = None,
    arrays: Any = None,
    given: Any = None,
) -> list[Any]:
    """Compare an op's kernels with its rule in float64, each way that has one.

    ``given`` are the arrays where the kernels are to read them.
    """
    op, count, attrs = OPS[name]
    arrays = operands(name, shapes, dtype) if arrays is None else arrays
    wanted = wanted or [place not in op.constants for place in range(count)]
    exact = [wide(a) for a in arrays]
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    grad = np.asarray(normals(shape, dtype, 9))
    given = given or [K.xp.asarray(a) for a in arrays]
    out = None
    if "fused_forward" in vars(op) or name in ("tril", "triu"):
        out = host(op.fused_forward(K, *given, *attrs))
    first, *slopes = by_rule(op, exact, attrs, wide(grad), wanted)
    found = [out]
    if "fused_backward" in vars(op):
        result = K.xp.asarray(first.astype(dtype))
        context = Context(op, given, attrs, result, None, tuple(wanted))
        results = op.fused_backward(K, context, K.xp.asarray(grad))
        found += [None if r is None else np.asarray(host(r)) for r in results]
    limit = ROW_TOLERANCES[dtype]
    for ours, reference, want in zip(found, (first, *slopes), (True, *wanted)):
        assert ours is None or want
        if ours is not None:
            assert ours.dtype == dtype and ours.shape == reference.shape
            size = float(np.nanmax(np.abs(reference), initial=1e-2))
            np.testing.assert_allclose(ours, reference, limit, limit * size)
    return found


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
@pytest.mark.parametrize("name", [n for n in OPS if n not in ("tril", "triu")])
def test_values_and_gradients(launcher: Any, name: str, dtype: str) -> None:
    for size in SIZES:
        check(launcher, name, ((size,),) * OPS[name][1], dtype)


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
@pytest.mark.parametrize("name", ["tril", "triu"])
def test_triangles(launcher: Any, name: str, dtype: str) -> None:
    op = OPS[name][0]
    for shape in [(1, 1), (1, 33), (31, 1), (3, 4), (2, 5, 32), (33, 31), (40, 1025), (2, 1, 3, 3)]:
        x = normals(shape, dtype)
        for diagonal in (0, 1, -1, 40, -40, 1 << 40, -(1 << 40)):
            found = op.fused_forward(launcher, launcher.xp.asarray(x), diagonal)
            near = max(min(diagonal, 1 << 20), -1 << 20)
            np.testing.assert_array_equal(host(found), op.forward(np, x, near))


BROADCAST = [((3, 4), (4,)), ((3, 1), (1, 5)), ((), (33,)), ((2, 33), ()), ((2, 3, 4), (3, 1))]


@pytest.mark.parametrize(
    "name", ["add scaled", "addcmul", "addcdiv", "lerp_tensor", "where", "clamp between"]
)
@pytest.mark.parametrize("shapes", BROADCAST, ids=str)
def test_operands_that_broadcast(launcher: Any, name: str, shapes: Any) -> None:
    count = OPS[name][1]
    for turn in range(count):
        own = [shapes[(k + turn) % 2] if k < 2 else shapes[turn % 2] for k in range(count)]
        check(launcher, name, own, "float32")


@pytest.mark.parametrize("name", ["addcmul", "addcdiv", "lerp_tensor", "where", "clamp between"])
def test_gradients_that_are_not_wanted(launcher: Any, name: str) -> None:
    op, count, _ = OPS[name]
    places = [place for place in range(count) if place not in op.constants]
    for kept in places:
        wanted = [place == kept for place in range(count)]
        check(launcher, name, ((3, 40),) * count, "float32", wanted)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize("name", OPS)
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, name: str, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shape in ((3, 11), (5, 64), (1, 1)):
        arrays = operands(name, (shape,) * OPS[name][1], "float32")
        for array in arrays:
            array.flags.writeable = False
        check(threads, name, None, "float32", arrays=arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["add scaled", "addcmul", "lerp_tensor", "where", "clamp"])
def test_arrays_that_start_anywhere(launcher: Any, name: str, dtype: str) -> None:
    op, count, attrs = OPS[name]
    arrays = operands(name, ((77,),) * count, dtype)
    for start in range(1, 5):
        given = starting_anywhere(launcher, arrays, start)
        if "fused_forward" in vars(op):
            found = op.fused_forward(launcher, *given, *attrs)
            reference = op.forward(np, *map(wide, arrays), *attrs)
            limit = ROW_TOLERANCES[dtype]
            np.testing.assert_allclose(host(found), reference, limit, limit)
        check(launcher, name, None, dtype, arrays=arrays, given=given)


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
def test_drawn_slopes(launcher: Any, dtype: str) -> None:
    for size in (1, 33, 1025, 100003):
        x = normals((size,), dtype)
        x[0] = 0
        draws = np.random.default_rng(1).random(size).astype(dtype)
        given = [launcher.xp.asarray(a) for a in (x, draws)]
        found = noise.Rrelu.fused_forward(launcher, *given, 0.125, 0.5)
        expected = noise.Rrelu.forward(np, wide(x), wide(draws), 0.125, 0.5)
        for ours, reference in zip(found, expected):
            assert ours.dtype == dtype
            np.testing.assert_allclose(host(ours), reference, 2 * ROW_TOLERANCES[dtype])


def test_drawn_slopes_in_place_of_a_chain(native_kernels: None) -> None:
    x = gradlite.randn(50).requires_grad_()
    with kernels.record() as launched:
        y = F.rrelu(x, 0.2, 0.6, training=True)
    assert launched == ["rrelu_forward"]
    (slope,) = gradlite.autograd.grad(y.sum(), x, create_graph=True)
    np.testing.assert_allclose((slope * x).detach(), y.detach(), 1e-6)
    assert ((slope >= 0.2) & (slope <= 0.6) | (slope == 1)).all()


def test_bounds_in_place(threads: ThreadsLauncher) -> None:
    threads.check = True
    for n, start in ((1, 0), (33, 0), (2000, 0), (2000, 1)):
        x = np.zeros(n + 4, np.float32)[start : start + n]
        x[...] = normals((n,), "float32")
        expected = x.clip(-0.5, 0.75)
        threads.elementwise("clamp_forward", x.dtype, n, x, x, n, -0.5, 0.75)
        np.testing.assert_array_equal(x, expected)


def test_outputs_that_start_anywhere(threads: ThreadsLauncher) -> None:
    threads.check = True
    grad, x, y = (normals((64,), "float32", k) for k in range(3))
    for start in (1, 2):
        dx, dy = (np.zeros(68, np.float32)[start : start + 64] for _ in range(2))
        arguments = grad, x, y, dx, dy, 64, 1.0, 1, 64, 1, 64, 1, 64
        threads.elementwise("addcmul_backward", grad.dtype, 64, *arguments)
        np.testing.assert_array_equal(dx, grad * y)
        np.testing.assert_array_equal(dy, grad * x)


INF, NAN = float("inf"), float("nan")
EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, -0.5, 0.75, -1.5, 1e30, -1e30, 1e-30, INF, -INF, NAN]


def in_torch(name: str, torch: Any, arrays: list[Any]) -> Any:
    calls = {
        "addcmul": lambda x, a, b: torch.addcmul(x, a, b, value=-1.5),
        "addcdiv": lambda x, a, b: torch.addcdiv(x, a, b, value=0.5),
        "lerp_tensor": torch.lerp, "clamp": lambda x: torch.clamp(x, -0.5, 0.75),
        "where": torch.where,
    }  # fmt: skip
    return calls[name](*arrays)


@pytest.mark.parametrize("name", ["addcmul", "addcdiv", "lerp_tensor", "where", "clamp"])
def test_extreme_values_are_as_in_pytorch(launcher: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    op, count, attrs = OPS[name]
    grid = np.meshgrid(*[np.asarray(EDGES, np.float32)] * min(count, 2), indexing="ij")
    arrays = [np.ascontiguousarray(a.reshape(-1)) for a in grid]
    if count == 3:
        arrays.append(np.where(np.arange(arrays[0].size) % 2, 0.25, 1).astype(np.float32))
    if name == "where":
        arrays[0] = arrays[0] > 0
    theirs = [torch.tensor(a, requires_grad=a.dtype.kind == "f") for a in arrays]
    expected = in_torch(name, torch, theirs)
    weights = np.linspace(1, 2, expected.numel(), dtype=np.float32)
    leaves = [t for t in theirs if t.requires_grad]
    slopes = iter(torch.autograd.grad(expected, leaves, torch.tensor(weights)))
    given = [launcher.xp.asarray(a) for a in arrays]
    out = expected.detach().numpy()
    if "fused_forward" in vars(op):
        found = host(op.fused_forward(launcher, *given, *attrs))
        np.testing.assert_allclose(found, out, 1e-6)
    wanted = tuple(t.requires_grad for t in theirs)
    context = Context(op, given, attrs, launcher.xp.asarray(out), None, wanted)
    for ours in op.fused_backward(launcher, context, launcher.xp.asarray(weights)):
        if ours is not None:
            np.testing.assert_allclose(host(ours), next(slopes).numpy(), 2e-5, 1e-30)


# ---- as the functions use them -----------------------------------------------------------------


def leaves(*shapes: tuple[int, ...]) -> list[Any]:
    gradlite.manual_seed(0)
    return [(gradlite.rand(s, dtype=gradlite.float64) + 0.5).requires_grad_() for s in shapes]


CALLS: dict[str, tuple[Any, list[str]]] = {
    "where": (lambda x, y, z: gradlite.where(x > y, x, y), ["where_backward"]),
    "clamp": (lambda x, y, z: x.clamp(0.6, 1.2), ["clamp_forward", "clamp_backward"]),
    "clamp of tensors": (
        lambda x, y, z: x.clamp(y, z), ["clamp_between_forward", "clamp_between_backward"],
    ),
    "addcmul": (
        lambda x, y, z: gradlite.addcmul(x, y, z), ["addcmul_forward", "addcmul_backward"],
    ),
    "addcdiv": (
        lambda x, y, z: gradlite.addcdiv(x, y, z), ["addcdiv_forward", "addcdiv_backward"],
    ),
    "lerp": (lambda x, y, z: gradlite.lerp(x, y, z), ["lerp_forward", "lerp_backward"]),
    "tril": (lambda x, y, z: x.tril(), ["triangle", "triangle"]),
    "triu": (lambda x, y, z: x.triu(1), ["triangle", "triangle"]),
}  # fmt: skip


@pytest.mark.parametrize("name", CALLS)
def test_launches_and_derivatives(native_kernels: None, name: str) -> None:
    call, expected = CALLS[name]
    operands = leaves((3, 4), (3, 4), (3, 4))
    with kernels.record() as launched:
        call(*operands).square().sum().backward()
    others = ("reduce", "unary_backward")  # of the square and the sum
    assert [n for n in launched if not n.startswith(others)] == expected
    assert gradlite.autograd.gradcheck(call, operands)
    assert gradlite.autograd.gradgradcheck(call, operands)


@pytest.mark.parametrize("name", ["addcmul_", "addcdiv_", "lerp_"])
def test_in_place(native_kernels: None, name: str) -> None:
    base, y, z = (t.detach() for t in leaves((6, 5), (6, 5), (6, 5)))
    rules = NAMESPACES[np.ndarray]
    for cut, operands in (
        (slice(None), (y, z)), (slice(1, 4), (y[:3], z[:3])), (slice(None), (y[0], z)),
    ):  # fmt: skip
        ours, theirs = base.clone(), base.clone()
        with kernels.record() as launched:
            getattr(ours[cut], name)(*operands)
        assert launched == [f"{name}forward"]
        K = rules.launcher
        rules.use(None)
        getattr(theirs[cut], name)(*operands)
        rules.use(K)
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), 1e-14)


def test_in_place_of_what_overlaps(native_kernels: None) -> None:
    x = gradlite.arange(10.0)
    with kernels.record() as launched:
        x[1:].addcmul_(x[:-1], gradlite.ones(9))
    assert not launched
    np.testing.assert_array_equal(x.numpy()[1:], 2 * np.arange(1.0, 10) - 1)


def test_what_kernels_do_not_take(native_kernels: None) -> None:
    with kernels.record() as launched:
        gradlite.ones(3, 3, dtype=gradlite.int64).tril()
        gradlite.rand(3).clamp(1.0, 0.0)
        gradlite.rand(0, 3).clamp(0.0, 1.0)
        gradlite.rand(3).clamp(float("nan"), 1.0)
        (gradlite.rand(3).requires_grad_() ** 0).sum().backward()
    assert not [name for name in launched if not name.startswith("reduce")]


@pytest.mark.parametrize("left_out", [None, 1, 2])
def test_bounds_in_every_order(launcher: Any, left_out: int | None) -> None:
    numbers = np.array([-1.0, 0.0, 1.0, np.nan, np.inf, -np.inf], np.float32)
    arrays: list[Any] = [a.reshape(-1).copy() for a in np.meshgrid(numbers, numbers, numbers)]
    if left_out is not None:
        arrays[left_out] = None
    wanted = [a is not None for a in arrays]
    grad = np.arange(1, 217, dtype=np.float32)
    expected = by_rule(choose.ClampBetween, arrays, (), grad, wanted)
    found = by_kernel(launcher, choose.ClampBetween, arrays, (), grad, wanted)
    for ours, reference in zip(found, expected):
        np.testing.assert_array_equal(ours, reference)


@pytest.mark.parametrize("equal_nan", [False, True])
@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
def test_what_is_close(native_kernels: None, dtype: str, equal_nan: bool) -> None:
    torch = pytest.importorskip("torch")
    numbers = np.array([0, 1, -1, 1.0001, 1.01, 300, 300.5, 301, np.nan, np.inf, -np.inf])
    results = []
    for T in (gradlite, torch):
        x = T.tensor(numbers, dtype=getattr(T, dtype))
        with kernels.record() as launched:
            found = [
                T.isclose(x[:, None], x, rtol, atol, equal_nan)
                for rtol, atol in ((1e-3, 1e-2), (0.0, 0.5), (1e-2, 0.0), (0.0, 0.0))
            ]
        results.append([f.numpy() for f in found])
        assert T is torch or launched == ["is_close"] * 4
    np.testing.assert_array_equal(*results)


@pytest.mark.parametrize("seed", [0, 1])
def test_no_race_where_things_are_close(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    x, y = normals((5, 33), "float32"), normals((33,), "float32", 1)
    x[1] = y
    x.flags.writeable = y.flags.writeable = False
    found = close_by_kernel(threads, x, y, 0.1, 0.2, False)
    np.testing.assert_array_equal(found, np.isclose(x, y, 0.1, 0.2))
