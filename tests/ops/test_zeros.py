"""Products without a factor's zeros (``compiled/zeros.hpp``): the bits of the whole product."""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import libraries, native
from gradlite.backends.threads import use_threads
from gradlite.capturing.native.build import available
from gradlite.ops import products

pytestmark = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")

PARTS = ("prelude", "shuffles", "tiles", "zeros")
CALLED = """
extern "C" int without_zeros_{T}({T}* a, i64 sm, i64 sk, {T}* b, i64 bk, i64 bn, {T}* c, i64 sc,
                                 i64 M, i64 N, i64 K, {T}* bias) {{
  return product_without_zeros<{T}>(a, sm, sk, b, bk, bn, c, sc, M, N, K, bias);
}}
extern "C" int whole_{T}({T}* a, i64 sm, i64 sk, {T}* b, i64 bk, i64 bn, {T}* c, i64 sc, i64 M,
                         i64 N, i64 K, {T}* bias) {{
  {T}* room = ({T}*)scratch<9>((PANEL * K + M + K) * Vector<{T}>::lanes * sizeof({T}));
  part_of_product<{T}>(a, sm, sk, b, bk, bn, c, sc, M, N, K, room, bias);
  return 1;
}}
"""


@pytest.fixture(scope="module")
def library() -> ctypes.CDLL:
    """The functions of zeros.hpp, and the product of tiles.hpp that looks at no zeros."""
    called = [CALLED.format(T=name) for name in ("float", "double")]
    text = "\n".join([libraries.text(*PARTS), *called])
    made = ctypes.CDLL(str(native.build("zeros_test", text, libraries.options())))
    use_threads(made)
    return made


@pytest.fixture(params=[1, 2])
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = gradlite.get_num_threads()
    gradlite.set_num_threads(request.param)
    yield
    gradlite.set_num_threads(before)


def padded(x: Any, turned: bool = False) -> Any:
    """The same values among NaNs, which no product may read; ``turned`` with columns in order."""
    rows, columns = x.shape[::-1] if turned else x.shape
    around = np.full((rows + 2, columns + 7), np.nan, x.dtype)
    inner = around[1:-1, 3:-4]
    inner = inner.T if turned else inner
    inner[...] = x
    return inner


def call(library: ctypes.CDLL, name: str, a: Any, b: Any, bias: Any = None) -> tuple[int, Any]:
    """What a function returns, and the product that it has made."""
    item = a.itemsize
    around = np.full((a.shape[0] + 2, b.shape[1] + 9), 777.0, a.dtype)
    out = around[1:-1, 4:-5]
    numbers = [s // item for s in (*a.strides, *b.strides)]
    arguments: list[Any] = [
        a.ctypes.data, *numbers[:2], b.ctypes.data, *numbers[2:], out.ctypes.data,
        out.strides[0] // item, a.shape[0], b.shape[1], a.shape[1],
        None if bias is None else bias.ctypes.data,
    ]  # fmt: skip
    function = library[f"{name}_{'float' if item == 4 else 'double'}"]
    pointers = {0, 3, 6, 11}
    function.argtypes = [ctypes.c_void_p if n in pointers else ctypes.c_longlong for n in range(12)]
    made = function(*arguments)
    result = out.copy()
    out[...] = 777.0
    assert (around == 777.0).all()  # nothing but the product was written
    return made, result


def blocky(rng: Any, rows: int, columns: int, dtype: str) -> Any:
    """A matrix like rows of images: runs of numbers, and of zeros of both signs."""
    x = rng.standard_normal((rows, columns)).astype(dtype)
    start, length = rng.integers(0, columns, rows), columns // 5
    away = (np.arange(columns) - start[:, None]) % columns >= length
    x[away] = np.where(rng.random(int(away.sum())) < 0.5, 0.0, -0.0)
    x[:, columns // 3 : columns // 2] = 0
    return x


def one_hot(rng: Any, rows: int, columns: int, dtype: str) -> Any:
    x = np.zeros((rows, columns), dtype)
    x[np.arange(rows), rng.integers(0, columns, rows)] = 1
    return x


# More rows, columns and sums than tiles and panels hold, and some left over: more than the few
# columns of which inner products, in another order, would be made.
SIZES = [(128, 784, 256), (134, 301, 150), (64, 1000, 70), (262, 129, 140)]


@pytest.mark.parametrize("kind", [blocky, one_hot])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("turned", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.parametrize("size", SIZES)
def test_the_bits_of_the_whole_product(
    library: ctypes.CDLL, threads: None, kind: Any, dtype: str, turned: Any, size: Any
) -> None:
    """With the zeros in either factor, rows or columns in order."""
    rng = np.random.default_rng(0)
    rows, summed, columns = size
    few = padded(kind(rng, rows, summed, dtype), turned[0])
    others = padded(rng.standard_normal((summed, columns)).astype(dtype), turned[1])
    bias = rng.standard_normal(columns).astype(dtype)
    for a, b, added in ((few, others, None), (few, others, bias), (others.T, few.T, None)):
        made, result = call(library, "without_zeros", a, b, added)
        assert made == 1
        # Fewer columns than inner products are for are summed in another order.
        np.testing.assert_array_equal(result, call(library, "whole", a, b, added)[1])
        expected = a.astype(np.float64) @ b.astype(np.float64)
        tolerance = 2e-6 if dtype == "float32" else 1e-13
        expected = expected if added is None else expected + added
        np.testing.assert_allclose(result, expected, tolerance, 20 * tolerance)


def test_more_than_the_lists_hold_at_once(library: ctypes.CDLL, threads: None) -> None:
    """Rows by rows: some of them with no zeros, or beside an infinity, as the others."""
    rng = np.random.default_rng(4)
    few = one_hot(rng, 200, 60_000, "float32")
    few[110:150] = rng.standard_normal((40, 60_000))
    others = rng.standard_normal((60_000, 70)).astype("f4")
    for a, b in ((few, others), (others.T, few.T)):
        made, result = call(library, "without_zeros", a, b)
        assert made == 1
        np.testing.assert_array_equal(result, call(library, "whole", a, b)[1])
    others[30_000, 5] = np.inf
    made, result = call(library, "without_zeros", few, others)
    assert made == 1
    np.testing.assert_array_equal(result, call(library, "whole", few, others)[1])


@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_a_zero_does_not_silence(library: ctypes.CDLL, value: float, dtype: str) -> None:
    """Zero times an infinity is no number, wherever it stands; other huge numbers are none."""
    rng = np.random.default_rng(1)
    a = blocky(rng, 128, 300, dtype)
    for place in ((0, 0), (110, 63), (299, 149)):
        b = rng.standard_normal((300, 150)).astype(dtype)
        b[place] = value
        for x, y in ((a, b), (a, np.asfortranarray(b)), (b.T, a.T)):
            assert call(library, "without_zeros", x, y)[0] == 0
    b[place] = np.finfo(dtype).max
    assert call(library, "without_zeros", a, b)[0] == 1
    a[5, 7] = value  # among what has the zeros it is a number as others
    for x, y in ((a, b), (b.T, a.T)):
        made, result = call(library, "without_zeros", x, y)
        assert made == 1
        np.testing.assert_array_equal(result, call(library, "whole", x, y)[1])


def test_what_is_not_worth_it(library: ctypes.CDLL) -> None:
    """Small products, and zeros that are not side by side."""
    rng = np.random.default_rng(2)
    dense = rng.standard_normal((256, 256)).astype("f4")
    relu = np.maximum(dense, 0)
    scattered = dense * (rng.random((256, 256)) < 0.3)
    for few in (dense, relu, scattered.astype("f4")):
        assert call(library, "without_zeros", few, dense)[0] == 0
        assert call(library, "without_zeros", dense, few)[0] == 0
    few = blocky(rng, 64, 128, "float32")
    assert call(library, "without_zeros", few, dense[:128, :120])[0] == 0
    assert call(library, "without_zeros", few, dense[:128])[0] == 1


def test_products_and_layers_of_images(threads: None) -> None:
    """Tensors and captured steps take them: the same losses as with every zero multiplied."""
    rng = np.random.default_rng(3)
    images = blocky(rng, 128, 784, "float32")
    weight = rng.standard_normal((256, 784)).astype("f4")
    expected = images.astype(np.float64) @ weight.T.astype(np.float64)
    np.testing.assert_allclose(products.mm(images, weight.T), expected, 1e-5, 1e-4)

    def train(captured: bool) -> list[float]:
        gradlite.manual_seed(0)
        layer = gradlite.nn.Linear(784, 256)
        optimizer = gradlite.optim.SGD(layer.parameters(), lr=0.1)

        def step(x: gradlite.Tensor) -> gradlite.Tensor:
            optimizer.zero_grad()
            loss = layer(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss.detach()

        run = gradlite.capture(step) if captured else step
        return [run(gradlite.tensor(images)).item() for _ in range(6)]

    np.testing.assert_allclose(train(True), train(False), 1e-5)
