"""Convolutions by the compiled functions of planes.hpp, against NumPy's columns."""

from __future__ import annotations

import itertools
import math
import platform
import threading
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import launches, libraries, native, small
from gradlite.nn import functional as F
from gradlite.ops import columns, conv_compiled, conv_few
from gradlite.ops.windows import Geometry
from tests.compiled_convolutions import all_sizes, library, needs_compiler
from tests.switched import launched

DTYPES = ("float32", "float64")
X86 = ("x86_64", "AMD64")


__all__ = ["all_sizes", "library"]  # which tests use by their names


@pytest.fixture
def fresh() -> Iterator[None]:
    """Libraries are looked for anew, in the test and after it."""
    cached = (conv_compiled._loaded, small.functions, libraries.found)
    forget = [function.cache_clear for function in cached]
    for clear in forget:
        clear()
    yield
    for clear in forget:
        clear()


def by_columns(function: Callable[..., Any], *args: Any) -> Any:
    """What NumPy's columns give in float64."""
    with pytest.MonkeyPatch.context() as patch:
        for module in (conv_compiled, conv_few):
            patch.setattr(module, "_loaded", lambda dtype: None)
        wide = [a.astype(np.float64) if isinstance(a, np.ndarray) else a for a in args]
        return function(np, *wide)


def close(made: Any, expected: Any, dtype: str) -> None:
    tolerance = 2e-5 if dtype == "float32" else 1e-12
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    assert made.dtype == dtype and made.shape == expected.shape and made.flags.c_contiguous
    np.testing.assert_allclose(made, expected, rtol=tolerance, atol=tolerance * scale)


def geometries() -> list[tuple[Any, ...]]:
    """Height, width, channels, outputs, kernel and geometry: each value meets many others."""
    strides = itertools.cycle([(1, 1), (2, 1), (1, 1), (3, 2)])
    pads = itertools.cycle(
        [((0, 0), (0, 0)), ((1, 1), (1, 1)), ((2, 0), (0, 3)), ((-1, 0), (0, -2))]
    )
    dilations = itertools.cycle([(1, 1), (1, 1), (1, 1), (2, 1), (1, 3)])
    sizes = itertools.cycle([(8, 8), (5, 20), (9, 7), (17, 6), (7, 33)])
    outs = itertools.cycle([1, 4, 7, 13, 6])
    found = []
    for kernel, c in itertools.product([(3, 3), (1, 3), (2, 2), (5, 1), (1, 1)], [1, 2, 5]):
        for _ in range(2):
            geometry = Geometry(next(strides), next(pads), next(dilations))
            (h, w), o = next(sizes), next(outs)
            if min(geometry.counts((h, w), kernel)) > 0:
                found.append((h, w, c, o, kernel, geometry))
    return found


def laid_out(x: Any, way: int) -> Any:
    """The same values in another layout."""
    if way == 1:  # channels last
        return np.ascontiguousarray(x.transpose(0, 2, 3, 1)).transpose(0, 3, 1, 2)
    if way == 2:  # backwards in memory
        return np.ascontiguousarray(x[::-1, ::-1, ::-1, ::-1])[::-1, ::-1, ::-1, ::-1]
    if way == 3:  # a part of more images and channels, which are not at a place for vectors
        whole = np.zeros((x.shape[0] * 2, x.shape[1] + 1, *x.shape[2:]), x.dtype)
        whole[::2, 1:] = x
        return whole[::2, 1:]
    if way == 4:  # not even at a place for numbers
        raw = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
        raw[...] = x
        return raw
    return x


def compared(x: Any, k: Any, bias: Any, geometry: Geometry, way: int) -> tuple[Any, list[str]]:
    """Compare a convolution and its gradients with `by_columns`.

    Returns:
        A gradient of the result, laid out in that way, and what has been launched.
    """
    kernel, size, dtype = k.shape[2:], x.shape[2:], x.dtype.name
    expected = by_columns(columns.convolve, x, k, geometry, bias)
    rng = np.random.default_rng(expected.size)
    g = laid_out(rng.standard_normal(expected.shape).astype(dtype), way)
    with launches.record() as names:
        close(columns.convolve(np, x, k, geometry, bias), expected, dtype)
        made = columns.weight_gradient(np, x, g, kernel, geometry)
        close(made, by_columns(columns.weight_gradient, x, g, kernel, geometry), dtype)
        made = columns.input_gradient(np, g, k, size, geometry)
        close(made, by_columns(columns.input_gradient, g, k, size, geometry), dtype)
    return g, names


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_all_geometries(dtype: str, all_sizes: None) -> None:
    rng = np.random.default_rng(0)
    lanes = 64 // np.dtype(dtype).itemsize
    batches = itertools.cycle([lanes, 2 * lanes - 1, 3 * lanes - 2])
    for number, (h, w, c, o, kernel, geometry) in enumerate(geometries()):
        n = next(batches)
        x = laid_out(rng.standard_normal((n, c, h, w)).astype(dtype), number % 5)
        k = rng.standard_normal((o, c, *kernel)).astype(dtype)
        k = k if number % 2 else k[:, :, ::-1].copy()[:, :, ::-1]
        bias = rng.standard_normal(o).astype(dtype)[::-1]
        g, names = compared(x, k, bias, geometry, (number + 2) % 5)
        if kernel == (1, 1):
            assert names == []  # a matrix product
        else:
            # Of each row and column that the stride makes differ, unless no tap reaches it.
            reached = [
                len({tap * far % step for tap in range(taps)})
                for taps, far, step in zip(kernel, geometry.dilation, geometry.stride)
            ]
            back = ["images_convolved"] * math.prod(reached)
            assert names == ["images_convolved", "kernels_gradient", *back]
            both = columns.gradients(np, x, g, k, geometry)
            for made, one in zip(both, by_columns(columns.gradients, x, g, k, geometry)):
                close(made, one, dtype)


@needs_compiler
@pytest.mark.parametrize(("options", "fits"), [(("-mno-avx512f",), True), (("-mno-avx",), False)])
def test_vectors_of_other_processors(
    options: tuple[str, ...], fits: bool, all_sizes: None, fresh: None,
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    if platform.machine() not in X86:
        pytest.skip("the options are those of x86-64")
    # -O1, because it is about the way of the numbers, not about speed.
    monkeypatch.setattr(libraries, "OPTIONS", (*libraries.OPTIONS, *options, "-O1"))
    rng = np.random.default_rng(0)
    geometry = Geometry((1, 1), ((1, 1), (1, 1)))
    x = rng.standard_normal((30, 3, 9, 14)).astype(np.float32)
    k = rng.standard_normal((7, 3, 3, 3)).astype(np.float32)
    with launches.record() as names:
        y = columns.convolve(np, x, k, geometry)
        grads = columns.gradients(np, x, y, k, geometry)
    assert (len(names) == 3) is fits
    close(y, by_columns(columns.convolve, x, k, geometry), "float32")
    for made, expected in zip(grads, by_columns(columns.gradients, x, y, k, geometry)):
        close(made, expected, "float32")


@needs_compiler
def test_images_and_channels_that_are_the_same_memory(all_sizes: None) -> None:
    x = np.broadcast_to(np.random.default_rng(0).random((1, 1, 6, 6), np.float32), (16, 3, 6, 6))
    k = np.ones((4, 3, 3, 3), np.float32)
    close(
        columns.convolve(np, x, k, Geometry()),
        by_columns(columns.convolve, x, k, Geometry()),
        "float32",
    )


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
def test_values_that_are_not_finite_stay_where_they_belong(dtype: str, all_sizes: None) -> None:
    rng = np.random.default_rng(0)
    n = 64 // np.dtype(dtype).itemsize * 2 - 2
    geometry = Geometry((1, 1), ((1, 1), (1, 1)))
    x = rng.standard_normal((n, 3, 6, 7)).astype(dtype)
    g = rng.standard_normal((n, 5, 6, 7)).astype(dtype)
    for array in (x, g):
        array[0, 1, 2, 3], array[3, 0, 5, 6], array[-1, 2, 0, 0] = np.inf, np.nan, -np.inf
    big = x.copy()
    big[5, :, 1, 1] = np.finfo(dtype).max / 1e3
    k = rng.standard_normal((5, 3, 3, 3)).astype(dtype) * 0.1
    k[2, 1] = 0  # times infinity
    for function, args in (
        (columns.convolve, (big, k, geometry)),
        (columns.input_gradient, (g, k, (6, 7), geometry)),
        (columns.weight_gradient, (x, g, (3, 3), geometry)),
        (columns.weight_gradient, (np.nan_to_num(x, posinf=1, neginf=1), g, (3, 3), geometry)),
    ):
        with launches.record() as names, np.errstate(all="ignore"):
            made = function(np, *args)
            expected = by_columns(function, *args)
        assert len(names) == 1 and not np.isfinite(made).all()
        np.testing.assert_array_equal(np.isnan(made), np.isnan(expected))
        infinite = np.isinf(expected)
        np.testing.assert_array_equal(made[infinite], expected[infinite])
        rest = np.isfinite(expected)
        np.testing.assert_allclose(made[rest], expected[rest], rtol=1e-4, atol=1e-4)


@needs_compiler
def test_a_batch_that_leaves_most_of_a_vector_empty_is_numpys(all_sizes: None) -> None:
    k = np.ones((4, 3, 3, 3), np.float32)
    for n, names in ((0, []), (1, []), (10, []), (11, ["images_convolved"]), (17, [])):
        with launches.record() as launched:
            y = columns.convolve(np, np.ones((n, 3, 6, 6), np.float32), k, Geometry())
        assert launched == names
        np.testing.assert_array_equal(y, np.full((n, 4, 4, 4), 27, np.float32))


@needs_compiler
def test_mixed_and_swapped_dtypes_are_numpys(all_sizes: None) -> None:
    x, k = np.ones((16, 3, 6, 6)), np.ones((4, 3, 3, 3))
    for a, b in ((x.astype(">f8"), k.astype(">f8")), (x, k.astype("f4")), (x.astype("f2"), k)):
        assert conv_compiled.convolve(a, b, Geometry()) is None


# ------------------------------------------------------------------------------------ models
def network(groups: int = 1) -> tuple[Any, Any]:
    gradlite.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(2, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2),
        nn.Conv2d(8, 12, 3, groups=groups), nn.Flatten(), nn.Linear(12 * 5 * 5, 3),
    )  # fmt: skip
    return model, gradlite.randn(16, 2, 14, 14)


def gradients(model: Any, x: Any) -> list[Any]:
    model.zero_grad()
    F.cross_entropy(model(x), gradlite.arange(16) % 3).backward()
    return [p.grad.numpy().copy() for p in model.parameters()]


@needs_compiler
@pytest.mark.parametrize("groups", [1, 4])
def test_a_replay_of_array_calls_is_eager_to_the_bit(
    groups: int, all_sizes: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, x = network(groups)
    with launches.record() as names:
        expected = gradients(model, x)
    assert "images_convolved" in names and "kernels_gradient" in names
    step = gradlite.capture(lambda x: gradients_of(model, x), native=False)
    for _ in range(4):
        made = step(x)
    with launches.record() as again:
        made = [m.numpy() for m in step(x)]
    assert sorted(again) == sorted(names)
    for a, b in zip(made, expected):
        np.testing.assert_array_equal(a, b)


def gradients_of(model: Any, x: Any) -> list[Any]:
    model.zero_grad()
    F.cross_entropy(model(x), gradlite.arange(16) % 3).backward()
    return [p.grad for p in model.parameters()]


@needs_compiler
def test_calls_from_several_threads_and_on_several(all_sizes: None) -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((64, 8, 14, 14)).astype(np.float32)
    k = rng.standard_normal((24, 8, 3, 3)).astype(np.float32)
    geometry = Geometry((1, 1), ((1, 1), (1, 1)))
    expected = columns.convolve(np, x, k, geometry)
    gradient = columns.weight_gradient(np, x, expected, (3, 3), geometry)
    wrong: list[int] = []

    def work(number: int) -> None:
        for _ in range(10):
            # Sizes that differ between threads, so that shared memory would be seen.
            n = 64 - 16 * (number % 3)
            made = columns.convolve(np, x[:n], k, geometry)
            if not np.array_equal(made, expected[:n]):
                wrong.append(number)

    before = gradlite.get_num_threads()
    try:
        for count in (1, 2):
            gradlite.set_num_threads(count)
            threads = [threading.Thread(target=work, args=(i,)) for i in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            made = columns.weight_gradient(np, x, expected, (3, 3), geometry)
            close(made, gradient, "float32")
    finally:
        gradlite.set_num_threads(before)
    assert wrong == []


# -------------------------------------------------------------------------------- fallback
def test_without_a_compiler_it_is_numpys(
    all_sizes: None, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)
    model, x = network()
    with launches.record() as names:
        assert all(np.isfinite(g).all() for g in gradients(model, x))
    assert names == []


@needs_compiler
def test_a_compiler_that_fails_means_numpy(
    all_sizes: None, fresh: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(libraries, "OPTIONS", ("--no-such-option",))
    model, x = network()
    with launches.record() as names:
        gradients(model, x)
    assert names == []


def test_the_variable_switches_it_off() -> None:
    code = "gradlite.conv2d(gradlite.ones(32, 8, 16, 16), gradlite.ones(16, 8, 3, 3))"
    for value in ("0", "1"):
        there = native.compiler() is not None and platform.machine() in X86
        compiled = value == "1" and there
        assert launched(code, value) == str(["images_convolved"] if compiled else [])


def test_a_small_step_compiles_nothing(fresh: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """But for the layers' own library, which takes a fraction of a second."""
    loaded: list[str] = []
    monkeypatch.setattr(libraries, "load", lambda name, *rest: loaded.append(name))
    model, x = network()
    gradients(model, x)
    assert set(loaded) <= {"small"}
    work = 16 * 8 * 14 * 14 * 2 * 9
    assert work < conv_compiled.LEAST_WORK < 100 * work
