"""Elementwise functions of one and two arrays: the ops' rules in float64 are the reference."""

from __future__ import annotations

import re
from operator import attrgetter
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernel_source, kernels
from gradlite.ops import (
    activation,
    arithmetic,
    bivariate,
    blend,
    choose,
    elementwise,
    floats,
    norms,
    pointwise,
    pool_more,
    powers,
    rounding,
    special,
    trigonometry,
)
from gradlite.ops.twins import fused
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

INF, NAN = float("inf"), float("nan")


def positive(x: Any) -> Any:
    return np.abs(x) + 0.25


def inside(x: Any) -> Any:
    return 0.9 * np.tanh(x)


def probability(x: Any) -> Any:
    return 0.5 + 0.45 * np.tanh(x)


def beyond_one(x: Any) -> Any:
    return np.abs(x) + 1.25


def same(x: Any) -> Any:
    return x


# The op, its attributes, what is made of random numbers for it, and the name of PyTorch's function.
UNARY: dict[str, tuple[Any, tuple[Any, ...], Any, str]] = {
    "expm1": (elementwise.Expm1, (), same, "expm1"),
    "exp2": (elementwise.Exp2, (), same, "exp2"),
    "log2": (elementwise.Log2, (), positive, "log2"),
    "log10": (elementwise.Log10, (), positive, "log10"),
    "log1p": (elementwise.Log1p, (), positive, "log1p"),
    "sqrt": (elementwise.Sqrt, (), positive, "sqrt"),
    "rsqrt": (elementwise.Rsqrt, (), positive, "rsqrt"),
    "reciprocal": (elementwise.Reciprocal, (), positive, "reciprocal"),
    "abs": (elementwise.Abs, (), same, "abs"),
    "sin": (trigonometry.Sin, (), same, "sin"),
    "cos": (trigonometry.Cos, (), same, "cos"),
    "tan": (trigonometry.Tan, (), inside, "tan"),
    "asin": (trigonometry.Asin, (), inside, "asin"),
    "acos": (trigonometry.Acos, (), inside, "acos"),
    "atan": (trigonometry.Atan, (), same, "atan"),
    "sinh": (trigonometry.Sinh, (), same, "sinh"),
    "cosh": (trigonometry.Cosh, (), same, "cosh"),
    "asinh": (trigonometry.Asinh, (), same, "asinh"),
    "acosh": (trigonometry.Acosh, (), beyond_one, "acosh"),
    "atanh": (trigonometry.Atanh, (), inside, "atanh"),
    "erf": (activation.Erf, (), same, "erf"),
    "erfc": (activation.Erfc, (), same, "erfc"),
    "erfinv": (special.Erfinv, (), inside, "erfinv"),
    "logit": (special.Logit, (None,), probability, "logit"),
    "logit within": (special.Logit, (0.125,), probability, "logit"),
    "sinc": (special.Sinc, (), same, "sinc"),
    "entropy": (special.SpecialEntr, (), positive, "special.entr"),
    "sign": (rounding.Sign, (), same, "sign"),
    "angle": (floats.Angle, (), same, "angle"),
    "nan_to_num": (choose.NanToNum, (0.0, 1.0, -1.0), same, "nan_to_num"),
}
# The same of two operands; what is made of the random numbers for the second one.
BINARY: dict[str, tuple[Any, tuple[Any, ...], Any, str]] = {
    "product": (arithmetic.Mul, (), same, "mul"),
    "quotient": (arithmetic.Div, (), positive, "div"),
    "remainder": (arithmetic.Remainder, (), positive, "remainder"),
    "fmod": (bivariate.Fmod, (), positive, "fmod"),
    "atan2": (bivariate.Atan2, (), same, "atan2"),
    "hypot": (bivariate.Hypot, (), same, "hypot"),
    "logaddexp": (bivariate.Logaddexp, (), same, "logaddexp"),
    "logaddexp2": (bivariate.Logaddexp2, (), same, "logaddexp2"),
    "copysign": (bivariate.Copysign, (), same, "copysign"),
    "fmax": (bivariate.Fmax, (), np.round, "fmax"),
    "fmin": (bivariate.Fmin, (), np.round, "fmin"),
    "maximum": (arithmetic.Maximum, (), np.round, "maximum"),
    "minimum": (arithmetic.Minimum, (), np.round, "minimum"),
    "power": (powers.PowTensor, (), same, "pow"),
    "xlogy": (special.Xlogy, (), positive, "xlogy"),
    "xlog1py": (special.SpecialXlog1py, (), positive, "special.xlog1py"),
    "lerp": (blend.Lerp, (0.25,), same, "lerp"),
}
OPS = {**UNARY, **BINARY}
BROADCAST = [((3, 4), (4,)), ((3, 1), (1, 5)), ((), (33,)), ((2, 3, 4), (3, 1)),
             ((2, 3, 4), (2, 1, 4)), ((2, 1, 3, 1), (1, 2, 1, 5))]  # fmt: skip


def operands(name: str, shapes: Any, dtype: str) -> list[np.ndarray]:
    arrays = [np.asarray(normals(shape, "float64", k)) for k, shape in enumerate(shapes)]
    arrays[-1] = np.asarray(OPS[name][2](arrays[-1]))
    if name in ("fmax", "fmin", "maximum", "minimum"):  # with ties
        arrays[0] = np.round(arrays[0])
    if name == "power":
        arrays[0] = positive(arrays[0])
    return [a.astype(dtype) for a in arrays]


def spread(K: Any, grad: np.ndarray, dims: Any) -> Any:
    """A gradient of the first elements in some dimensions, as a sum spreads it."""
    first = tuple(slice(0, 1) if d in dims else slice(None) for d in range(grad.ndim))
    return K.xp.broadcast_to(K.xp.asarray(np.ascontiguousarray(grad[first])), grad.shape)


def check(
    K: Any, name: str, arrays: Any, wanted: Any = None, given: Any = None, dims: Any = ()
) -> None:
    """Compare an op's kernels with its rule in float64, each way that has one.

    ``given`` are the arrays where the kernels are to read them; in ``dims`` the gradient is spread.
    """
    op, attrs = OPS[name][:2]
    dtype = arrays[0].dtype
    wanted = tuple(wanted or [True] * len(arrays))
    exact = [wide(a) for a in arrays]
    given = given or [K.xp.asarray(a) for a in arrays]
    shape = np.broadcast_shapes(*(a.shape for a in arrays))
    grad: Any = spread(K, np.asarray(normals(shape, dtype.name, 9)), dims)
    first, *_ = by_rule(op, exact, attrs, np.ones(shape), wanted)
    result = np.asarray(first.astype(dtype))  # which gradients read rounded
    slopes = by_rule(op, exact, attrs, wide(host(grad)), wanted, wide(result))[1:]
    limit = ROW_TOLERANCES[dtype.name]

    def compare(ours: Any, reference: Any) -> None:
        ours = np.asarray(host(ours))
        assert ours.dtype == dtype and ours.shape == np.shape(reference)
        size = float(np.nanmax(np.abs(reference), initial=1e-2))
        np.testing.assert_allclose(ours, reference, limit, limit * size)

    forward = fused(op, "forward")
    if forward is not None:
        compare(forward(K, *given, *attrs), first)
    backward = fused(op, "backward")
    if backward is None:
        return
    context = Context(op, given, attrs, K.xp.asarray(result), None, wanted)
    found = backward(K, context, grad)
    if found is NotImplemented:  # there is a single step
        assert not all(wanted)
        return
    for ours, reference, want in zip(found, slopes, wanted, strict=True):
        assert (ours is not None) == want
        if want:
            compare(ours, reference)


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
@pytest.mark.parametrize("name", OPS)
def test_values_and_gradients(launcher: Any, name: str, dtype: str) -> None:
    for size in (1, 31, 4099):
        check(launcher, name, operands(name, ((size,),) * (1 + (name in BINARY)), dtype))


@pytest.mark.parametrize("exponent", [-1, 0.5, 2, 2.5, 3])
def test_powers(launcher: Any, exponent: float) -> None:
    x, grad = positive(normals((77,), "float64")).astype("f4"), normals((77,), "float32", 1)
    saved = launcher.xp.asarray(x), exponent, None
    context = SimpleNamespace(saved=saved, edges=(True, None), shapes=None)
    slope, none = powers.Pow.fused_backward(launcher, context, launcher.xp.asarray(grad))
    assert none is None
    expected = grad * (exponent * wide(x) ** (exponent - 1))
    np.testing.assert_allclose(host(slope), expected, 1e-5)


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
def test_roots(launcher: Any, dtype: str) -> None:
    x, grad = positive(normals((4099,), "float64")).astype(dtype), normals((4099,), dtype, 1)
    x[::7] = 0
    attrs = (4.0, 1 / 3)
    found = by_kernel(launcher, pool_more.Root, [x], attrs, grad, [True])
    expected = by_rule(pool_more.Root, [wide(x)], attrs, wide(grad), [True])
    limit = ROW_TOLERANCES[dtype]
    for ours, reference in zip(found, expected):
        assert ours.dtype == dtype
        np.testing.assert_allclose(ours.astype("f8"), reference, limit, limit)
    assert (found[1][::7] == 0).all() and found[1][1::7].any()


@pytest.mark.parametrize("dtype", ROW_TOLERANCES)
def test_limits_of_sizes(launcher: Any, dtype: str) -> None:
    x, grad = np.abs(normals((4099,), dtype)), normals((4099,), dtype, 1)
    x[:3] = 0.75, np.inf, np.nan
    attrs = (0.75, 0.25)
    found = by_kernel(launcher, norms.Limit, [x], attrs, grad, [True])
    expected = by_rule(norms.Limit, [wide(x)], attrs, wide(grad), [True])
    limit = ROW_TOLERANCES[dtype]
    for ours, reference in zip(found, expected):
        np.testing.assert_allclose(ours.astype("f8"), reference, limit, limit)
    assert found[0][0] == 1 and found[1][0] == 0


def test_draws_of_gumbel(launcher: Any) -> None:
    uniform = np.concatenate([[0, 1 - 2.0**-53, 1e-300], np.linspace(0.001, 0.999, 999)])
    tiny = float(np.finfo(np.float64).tiny)
    found = pointwise.value_of(launcher, "gumbel", launcher.xp.asarray(uniform), tiny)
    np.testing.assert_allclose(host(found), -np.log(-np.log1p(-uniform) + tiny), 1e-12, 1e-12)


@pytest.mark.parametrize("name", BINARY)
@pytest.mark.parametrize("shapes", BROADCAST, ids=str)
def test_operands_that_broadcast(launcher: Any, name: str, shapes: Any) -> None:
    for own in (shapes, shapes[::-1]):
        check(launcher, name, operands(name, own, "float32"))


@pytest.mark.parametrize("name", ["sqrt", "sinc", "product", "atan2", "copysign"])
def test_gradients_that_a_sum_has_spread(launcher: Any, name: str) -> None:
    arrays = operands(name, ((2, 3, 8),) * (1 + (name in BINARY)), "float32")
    for dims in ((0, 1, 2), (0,), (2,), (0, 2), (1,)):
        check(launcher, name, arrays, dims=dims)


@pytest.mark.parametrize("name", BINARY)
def test_gradients_that_are_not_wanted(launcher: Any, name: str) -> None:
    for wanted in ((True, False), (False, True)):
        op = OPS[name][0]
        if op is bivariate.Copysign and wanted[1]:
            continue  # which has none
        check(launcher, name, operands(name, ((3, 40),) * 2, "float32"), wanted)


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize("name", OPS)
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, name: str, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for shapes in (((3, 11), (3, 11)), ((5, 64), (5, 64)), ((5, 64), (5, 1))):
        arrays = operands(name, shapes[: 1 + (name in BINARY)], "float32")
        for array in arrays:
            array.flags.writeable = False
        check(threads, name, arrays)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("name", ["sqrt", "logit", "quotient", "remainder", "hypot"])
def test_arrays_that_start_anywhere(launcher: Any, name: str, dtype: str) -> None:
    arrays = operands(name, ((77,),) * (1 + (name in BINARY)), dtype)
    for start in range(1, 5):
        check(launcher, name, arrays, given=starting_anywhere(launcher, arrays, start))


def test_outputs_that_start_anywhere(threads: ThreadsLauncher) -> None:
    threads.check = True
    grad, x, y = (normals((64,), "float32", k) for k in range(3))
    for start in (1, 2):
        dx, dy = (np.zeros(68, np.float32)[start : start + 64] for _ in range(2))
        arguments = grad, x, y, dx, dy, 64, 1, 64, 1, 64, 1, 64
        threads.elementwise("product_backward", grad.dtype, 64, *arguments)
        np.testing.assert_array_equal(dx, grad * y)
        np.testing.assert_array_equal(dy, grad * x)


@pytest.mark.parametrize("name", ["remainder", "xlogy", "xlog1py"])
def test_numbers_in_the_place_of_the_second(launcher: Any, name: str) -> None:
    op = OPS[name][0]
    x = normals((3, 50), "float32")
    for number in (0.75, 2, NAN):
        found = op.fused_forward(launcher, launcher.xp.asarray(x), number)
        np.testing.assert_allclose(host(found), op.forward(np, wide(x), number), 1e-5, 1e-6)


# Where PyTorch has another idea of it than the rule: of -0.0, of divisors whose quotient is out of
# range, and of what is not finite with another sign.
AS_THE_RULE: dict[str, Any] = {
    "logit": lambda x: (x == 0) & np.signbit(x),
    "remainder": lambda x, y: np.maximum(np.abs(x), np.abs(y)) > 1e29,
    "copysign": lambda x, y: ~np.isfinite(x),
}
EDGES = [0.0, -0.0, 1.0, -1.0, 2.0, -2.0, -0.5, 0.75, 0.125, -1.5, 1e30, -1e30, 1e-30, INF, -INF,
         NAN]  # fmt: skip


@pytest.mark.parametrize("name", OPS)
def test_extreme_values_are_as_in_pytorch(launcher: Any, name: str) -> None:
    torch = pytest.importorskip("torch")
    op, attrs, _, theirs = OPS[name]
    count = 1 + (name in BINARY)
    grid = np.meshgrid(*[np.asarray(EDGES, np.float32)] * count, indexing="ij")
    arrays = [np.ascontiguousarray(a.reshape(-1)) for a in grid]
    leaves = [torch.tensor(a, requires_grad=True) for a in arrays]
    call = attrgetter(theirs)(torch)
    expected = call(*leaves, *attrs) if attrs != (None,) else call(*leaves)
    weights = np.linspace(1, 2, expected.numel(), dtype=np.float32)
    slopes = torch.autograd.grad(expected, leaves, torch.tensor(weights), allow_unused=True)
    given = [launcher.xp.asarray(a) for a in arrays]
    out = expected.detach().numpy()
    references = [out, *(s.numpy() for s in slopes)]
    if name in AS_THE_RULE:
        with np.errstate(all="ignore"):
            own = by_rule(op, arrays, attrs, weights, (True,) * count)
        where = AS_THE_RULE[name](*arrays)
        references = [np.where(where, *both) for both in zip(own, references, strict=True)]
    forward = fused(op, "forward")
    if forward is not None:
        found = host(forward(launcher, *given, *attrs))
        np.testing.assert_allclose(found, references[0], 2e-6)
    backward = fused(op, "backward")
    if backward is None:
        return
    context = Context(op, given, attrs, launcher.xp.asarray(out), None, (True,) * count)
    found = backward(launcher, context, launcher.xp.asarray(weights))
    for ours, reference in zip(found, references[1:], strict=True):
        np.testing.assert_allclose(host(ours), reference, 2e-5, 1e-28)


# ---- as the functions use them -----------------------------------------------------------------
ONE, TWO, PRODUCT = "unary_backward", "binary_backward", "product_backward"
CALLS: dict[str, tuple[Any, list[str]]] = {
    "sqrt": (lambda x, y: x.sqrt(), [ONE]),
    "rsqrt": (lambda x, y: x.rsqrt(), ["unary_forward", ONE]),
    "square": (lambda x, y: x.square(), [ONE]),
    "cube": (lambda x, y: x**3, [ONE]),
    "abs": (lambda x, y: x.abs(), [ONE]),
    "logit": (lambda x, y: (x * 0.25).logit(), ["unary_forward", ONE]),
    "product": (lambda x, y: x * y, [PRODUCT]),
    "product by a number": (lambda x, y: x * 2, []),
    "of a column and a row": (lambda x, y: x.sum(1, keepdim=True) * y.sum(0), [PRODUCT]),
    "quotient": (lambda x, y: x / y, [TWO]),
    "quotient by a number": (lambda x, y: x / 2, []),
    "remainder": (lambda x, y: x % y, ["binary_forward", TWO]),
    "remainder by a number": (lambda x, y: x % 0.75, ["binary_forward"]),
    "atan2": (lambda x, y: gradlite.atan2(x, y), [TWO]),
    "copysign": (lambda x, y: gradlite.copysign(x, y), [TWO]),
    "maximum": (lambda x, y: gradlite.maximum(x, y), [TWO]),
    "minimum": (lambda x, y: gradlite.minimum(x, y[0]), [TWO]),
    "power": (lambda x, y: x**y, [TWO]),
    "xlogy": (lambda x, y: gradlite.xlogy(x, y), ["binary_forward", TWO]),
    "lerp": (lambda x, y: gradlite.lerp(x, y, 0.3), ["lerp_forward", TWO]),
}


@pytest.mark.parametrize("name", CALLS)
def test_launches_and_derivatives(native_kernels: None, name: str) -> None:
    call, expected = CALLS[name]
    gradlite.manual_seed(0)
    x, y = [(gradlite.rand(3, 4, dtype=gradlite.float64) + 0.5).requires_grad_() for _ in "xy"]
    with kernels.record() as launched:
        call(x, y).sum().backward()
    assert [n for n in launched if not n.startswith("reduce")] == expected
    if name != "copysign":  # whose second gradient is 0
        assert gradlite.autograd.gradcheck(call, (x, y))
        assert gradlite.autograd.gradgradcheck(call, (x, y))


def test_what_kernels_do_not_take(native_kernels: None) -> None:
    x = gradlite.rand(3, 4).requires_grad_()
    with kernels.record() as launched:
        gradlite.rand(0, 3).requires_grad_().sqrt().sum().backward()
        gradlite.autograd.grad(x.sqrt().sum(), x, create_graph=True)
        (gradlite.arange(4) % 3).add_(1)
        gradlite.autograd.grad((x.t() * x.t().detach().clone().requires_grad_()).sum(), x)
    assert not [name for name in launched if not name.startswith("reduce")]


def test_functions_have_the_numbers_that_the_kernels_know_them_by() -> None:
    text = kernel_source.text_of("pointwise.cu")
    bodies = text.split("switch (function)")[1:]
    lists = (pointwise.VALUES, pointwise.SLOPES, pointwise.VALUES_OF_TWO, pointwise.SLOPES_OF_TWO)
    for body, functions in zip(bodies, lists, strict=True):
        cases = [int(n) for n in re.findall(r"case (\d+):", body)]
        assert cases == list(range(len(functions) - 1))  # and the default
