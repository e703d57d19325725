"""Products by the compiled functions of multiply.hpp, against NumPy's and PyTorch's."""

from __future__ import annotations

import importlib
import itertools
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import launches, libraries, multiply, native, small
from gradlite.nn import functional as F
from gradlite.ops import products
from tests.oracle import same
from tests.switched import launched

needs_code = pytest.mark.skipif(
    multiply.function("f") is None, reason="no compiled products: no compiler, or narrow vectors"
)
DTYPES = ("float32", "float64")


@pytest.fixture
def all_sizes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Compiled code for all products that it can do, however small."""
    for name in ("LEAST_SIZE", "SMALL", "SMALL_TURNED", "FEW_COLUMNS"):
        monkeypatch.setattr(products, name, 0)


@pytest.fixture
def fresh() -> Iterator[None]:
    """Libraries are looked for anew, in the test and after it."""
    cached = (multiply.function, small.functions, libraries.found)
    forget = [function.cache_clear for function in cached]
    for clear in forget:
        clear()
    yield
    for clear in forget:
        clear()


def layouts(x: Any) -> list[Any]:
    """The same values in other layouts."""
    spaced = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)[..., ::2]
    spaced[...] = x
    turned = np.ascontiguousarray(x.swapaxes(-1, -2)).swapaxes(-1, -2)
    backwards = np.ascontiguousarray(x[..., ::-1, :])[..., ::-1, :]
    return [x, turned, spaced, backwards]


@needs_code
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("lead", [(), (3,), (2, 3)])
def test_sizes_and_layouts(dtype: str, lead: tuple[int, ...], all_sizes: None) -> None:
    rng = np.random.default_rng(0)
    sizes = itertools.product((2, 7, 12, 37), (1, 5, 33), (1, 3, 8, 16, 70, 97))
    multiplied = 0
    for rows, summed, columns in sizes:
        a = rng.standard_normal((*lead, rows, summed)).astype(dtype)
        b = rng.standard_normal((*lead, summed, columns)).astype(dtype)
        expected = a.astype(np.float64) @ b.astype(np.float64)
        for x, y in zip(layouts(a), reversed(layouts(b))):
            with launches.record() as names:
                made = products.matmul(x, y) if lead else products.mm(x, y)
            multiplied += names == ["multiply"]
            assert made.dtype == dtype and made.flags.c_contiguous
            tolerance = 1e-5 if dtype == "float32" else 1e-13
            np.testing.assert_allclose(made, expected, rtol=tolerance, atol=8 * tolerance)
    assert multiplied == 4 * 3 * 6 * 4


@needs_code
def test_repeated_rows_and_places_for_results(all_sizes: None) -> None:
    rng = np.random.default_rng(1)
    a = np.broadcast_to(rng.standard_normal((1, 9, 20)).astype("f4"), (4, 9, 20))
    b = np.broadcast_to(rng.standard_normal((4, 1, 40)).astype("f4"), (4, 20, 40))
    out = np.zeros((9, 4, 40), "f4").swapaxes(0, 1)
    with launches.record() as names:
        assert products.matmul(a, b, out) is out
    assert names == ["multiply"]
    np.testing.assert_allclose(out, a @ b, rtol=1e-5, atol=1e-5)
    with launches.record() as names:  # rows that do not lie side by side are NumPy's
        columns = np.zeros((4, 40, 9), "f4").swapaxes(1, 2)
        products.matmul(a, b, columns)
    assert names == []
    np.testing.assert_array_equal(columns, a @ b)


@needs_code
@pytest.mark.parametrize("dtype", DTYPES)
def test_products_and_a_bias(dtype: str, all_sizes: None) -> None:
    rng = np.random.default_rng(6)
    tolerance = {"rtol": 1e-5 if dtype == "float32" else 1e-12, "atol": 1e-5}
    for rows, summed, columns in itertools.product((2, 12, 37), (3, 40), (1, 3, 7, 16, 70, 130)):
        a = rng.standard_normal((rows, summed)).astype(dtype)
        b = rng.standard_normal((summed, columns)).astype(dtype)
        for bias in (rng.standard_normal(columns).astype(dtype), np.full(columns, np.inf, dtype)):
            for x, y in zip(layouts(a), layouts(b)):
                with launches.record() as names:
                    made = products.mm(x, y, bias)
                assert names == ["multiply"]
                np.testing.assert_allclose(made, a @ b + bias, **tolerance)
    spaced = np.arange(260, dtype=dtype)[::2]
    for bias in (spaced, np.broadcast_to(spaced[1], 130)):  # whose elements lie apart
        with launches.record() as names:
            made = products.mm(a, b, bias)
        assert names == []
        np.testing.assert_array_equal(made, a.dot(b) + bias)


@needs_code
@pytest.mark.parametrize("dtype", DTYPES)
def test_addmm_is_pytorchs(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    rng = np.random.default_rng(7)
    arrays = [rng.standard_normal(shape).astype(dtype) for shape in ((70,), (150, 120), (120, 70))]
    for x in (arrays[0], arrays[0][None], rng.standard_normal((150, 70)).astype(dtype)):
        for options in ({}, {"alpha": 2}, {"beta": 0.5}):
            made, expected = [], []
            for library, values in ((gradlite, made), (torch, expected)):
                tensors = [library.tensor(v).requires_grad_() for v in (x, *arrays[1:])]
                y = library.addmm(*tensors, **options)
                (y * y).sum().backward()
                values += [y.detach().numpy(), *(t.grad.numpy() for t in tensors)]
            for mine, theirs in zip(made, expected):
                scale = float(np.abs(theirs).max())
                np.testing.assert_allclose(mine, theirs, rtol=1e-4, atol=1e-6 * scale)


@needs_code
def test_what_it_does_not_take_is_numpys(all_sizes: None) -> None:
    x = np.arange(12.0).reshape(3, 4)
    raw = np.zeros(12 * 8 + 1, np.uint8)
    askew = raw[1:].view("f8").reshape(4, 3)
    askew[...] = x.T
    pairs = [
        (x.astype(">f8"), x.T.astype(">f8")),
        (x, askew),
        (x, x.T.astype("f4")),
        (x.astype("f2"), x.T.astype("f2")),
        (x.astype(int), x.T.astype(int)),
        (x[:0], x.T[:, :0]),
    ]
    for a, b in pairs:
        with launches.record() as names:
            made = products.mm(a, b)
        assert names == []
        np.testing.assert_array_equal(made, np.dot(a, b))
    assert products.mm(x[:, :0], x.T[:0]).tolist() == [[0.0] * 3] * 3
    with launches.record() as names:  # stacks that are broadcast
        made = products.matmul(np.stack([x, x]), x.T[None])
    assert names == [] and made.shape == (2, 3, 3)


@needs_code
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite(dtype: str, all_sizes: None) -> None:
    rng = np.random.default_rng(2)
    a, b = rng.standard_normal((20, 30)).astype(dtype), rng.standard_normal((30, 50)).astype(dtype)
    a[3, 4], a[5, 6], b[7, 8] = np.inf, np.nan, -np.inf
    with np.errstate(all="ignore"):
        made, expected = products.mm(a, b), np.dot(a, b)
    np.testing.assert_allclose(made, expected, rtol=1e-4, atol=1e-4)


def layer(dtype: Any = None) -> tuple[Any, Any]:
    """A layer whose products are large ones, and its input."""
    gradlite.manual_seed(0)
    model = nn.Sequential(nn.Linear(64, 256, dtype=dtype), nn.Linear(256, 65, dtype=dtype))
    return model, gradlite.randn(4, 120, 64, dtype=dtype)


def gradients(model: Any, *inputs: Any) -> list[Any]:
    model.zero_grad()
    model(*inputs).square().mean().backward()
    return [p.grad for p in model.parameters()]


@needs_code
def test_what_runs_compiled_depends_on_the_shapes() -> None:
    model, x = layer()
    with launches.record() as names:
        model(x)
    assert names.count("multiply") == 2
    with launches.record() as names:
        model(x[:1, :8])
    assert "multiply" not in names


@needs_code
@pytest.mark.parametrize("dtype", DTYPES)
def test_linear_and_its_gradients_are_pytorchs(dtype: str) -> None:
    torch = pytest.importorskip("torch")
    model, x = layer(getattr(gradlite, dtype))
    x.requires_grad_()
    theirs = torch.nn.Sequential(torch.nn.Linear(64, 256), torch.nn.Linear(256, 65)).double()
    theirs.load_state_dict({k: torch.tensor(v.numpy()) for k, v in model.state_dict().items()})
    other = torch.tensor(x.detach().numpy()).double().requires_grad_()
    with launches.record() as names:
        made = gradients(model, x)
    assert names.count("multiply") == 6
    theirs(other).square().mean().backward()
    expected = [p.grad for p in theirs.parameters()]
    tolerance = 1e-4 if dtype == "float32" else 1e-11
    for mine, other_grad in zip([x.grad, *made], [other.grad, *expected]):
        scale = float(other_grad.abs().max())
        np.testing.assert_allclose(
            mine.numpy(), other_grad.numpy(), rtol=tolerance, atol=tolerance * scale
        )


class Attention(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.qkv, self.out = nn.Linear(64, 192), nn.Linear(64, 64)

    def forward(self, x: Any) -> Any:
        b, t, c = x.shape
        q, k, v = self.qkv(x).view(b, t, 3, 4, 16).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        products = (y @ y.transpose(-1, -2)) @ v
        return self.out((y + products).transpose(1, 2).reshape(b, t, c))


@needs_code
@pytest.mark.parametrize("make", [lambda: layer(), lambda: (Attention(), gradlite.ones(8, 64, 64))])
def test_a_replay_of_array_calls_is_eager_to_the_bit(make: Any) -> None:
    model, x = make()
    with launches.record() as names:
        expected = [g.numpy().copy() for g in gradients(model, x)]
    assert names.count("multiply") >= 5
    step = gradlite.capture(lambda x: gradients(model, x), native=False)
    for _ in range(4):
        made = step(x)
    with launches.record() as again:
        made = [g.numpy() for g in step(x)]
    assert again.count("multiply") == names.count("multiply")
    for a, b in zip(made, expected):
        np.testing.assert_array_equal(a, b)


@needs_code
def test_compiled_plans_make_products_of_their_own() -> None:
    model, x = layer()
    expected = [g.numpy().copy() for g in gradients(model, x)]
    step = gradlite.capture(lambda x: gradients(model, x))
    for _ in range(4):
        made = step(x)
    with launches.record() as names:
        made = [g.numpy() for g in step(x)]
    assert "multiply" not in names
    for a, b in zip(made, expected):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6)


@needs_code
def test_calls_from_several_threads_and_on_several() -> None:
    rng = np.random.default_rng(3)
    a = rng.standard_normal((400, 120)).astype("f4")
    b = rng.standard_normal((120, 210)).astype("f4")
    stack = rng.standard_normal((40, 64, 64)).astype("f4")
    before = gradlite.get_num_threads()
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            rows = 400 - 30 * number  # other sizes, so that shared memory would be seen
            if not np.array_equal(products.mm(a[:rows], b), expected[:rows]):
                wrong.append(number)
            if not np.array_equal(products.matmul(stack, stack), squares):
                wrong.append(number)

    try:
        gradlite.set_num_threads(1)
        expected, squares = products.mm(a, b), products.matmul(stack, stack)
        np.testing.assert_allclose(squares, stack @ stack, rtol=1e-4, atol=1e-4)
        for count in (1, 2):
            gradlite.set_num_threads(count)
            threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
    finally:
        gradlite.set_num_threads(before)
    assert wrong == []


# -------------------------------------------------------------------------------- fallback
def test_without_a_compiler_it_is_numpys(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)
    a, b = np.ones((200, 100), "f4"), np.ones((100, 200), "f4")
    with launches.record() as names:
        np.testing.assert_array_equal(products.mm(a, b), np.dot(a, b))
    assert names == []


def test_the_variable_switches_it_off(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLITE_NATIVE", "1")  # whatever these tests run with
    code = "gradlite.ones(512, 64) @ gradlite.ones(64, 256)"
    for value in ("0", "1"):
        compiled = value == "1" and multiply.function("f") is not None
        assert launched(code, value) == str(["multiply"] if compiled else [])


def test_small_products_compile_nothing(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the layers' own library, which takes a fraction of a second."""
    loaded: list[str] = []
    monkeypatch.setattr(libraries, "load", lambda name, *rest: loaded.append(name))
    model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
    gradients(model, gradlite.ones(32, 64))
    assert set(loaded) <= {"small"}


@needs_code
def test_the_benchmark_marks_what_runs_compiled() -> None:
    benchmark = importlib.import_module("benchmarks.products")
    for size, ways in (((40, 70, 100), [False, True, False, False]), ((200, 70, 100), [True] * 4)):
        found = [benchmark.ratio(way, size, "float32", 1) for way in benchmark.WAYS]
        assert [taken for _, taken in found] == ways
        assert all(0 < ratio for ratio, _ in found)


@needs_code
def test_the_benchmark_of_layers_marks_what_runs_compiled() -> None:
    benchmark = importlib.import_module("benchmarks.products")
    for size, both in (((8, 4, 3), [True] * 2), ((1, 64, 64), [False, True])):
        found = benchmark.of_layer(size, "float32", 1)
        assert [taken for _, taken in found] == both
        assert all(0 < ratio for ratio, _ in found)


def test_sizes_that_do_not_fit() -> None:
    shapes = [(3,), (0,), (3, 4), (4, 5), (0, 4), (2, 3, 4), (2, 5, 3), (2, 2, 3, 4), (2, 2, 5, 3),
              (3, 2, 4, 3), (2, 1, 4, 3), (2, 2, 4, 0), (1, 2, 2, 4, 5)]  # fmt: skip
    for a, b in itertools.product(shapes, shapes):
        contracted = b[-2] if len(b) > 1 else b[0]
        batches = itertools.zip_longest(a[-3::-1], b[-3::-1], fillvalue=1)
        if a[-1] == contracted and all(n == m or 1 in (n, m) for n, m in batches):
            continue
        if len(a) == 1 and 0 in b:
            continue  # of nothing PyTorch says something else, which is right as well
        for wants in (False, True):
            refused(a, b, wants)


def refused(a: tuple[int, ...], b: tuple[int, ...], wants: bool) -> None:
    same(lambda T: T.ones(a, requires_grad=wants) @ T.ones(b), raises=RuntimeError, message="exact")
