"""Random numbers made by kernels: the very bits of gradlite.random's NumPy stream."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.ops.draws import _by_kernel, signed
from gradlite.random import Generator
from tests.kernels.support import DTYPES, ThreadsLauncher, epsilon, host, wide

SIZES = [1, 3, 4, 7, 8, 9, 16, 17, 1000, 10007]
# Around the places where a seed's or an offset's bits could be lost.
PLACES = [(0, 0), (7, 3), (2**63 + 5, 2**32 - 1), (2**64 - 1, 2**63 - 2), (1, 2**64 - 3)]


def at(seed: int, offset: int) -> Generator:
    generator = Generator().manual_seed(seed)
    generator.set_offset(offset)
    return generator


def draw(K: Any, method: str, n: int, dtype: Any, place: tuple[int, int], *args: Any) -> Any:
    """The values by kernel and by NumPy; both generators end at the same place."""
    ours, theirs = at(*place), at(*place)
    made = host(_by_kernel(K, ours, method, (n,), np.dtype(dtype), args))
    if method == "bernoulli_mask":
        expected = theirs.bernoulli_mask((n,), *args)
    elif method == "permutation":
        expected = theirs.permutation(n)
    else:
        expected = getattr(theirs, method)(*args, (n,), np.dtype(dtype))
    assert ours.get_offset() == theirs.get_offset()
    assert made.dtype == expected.dtype and made.shape == expected.shape
    return made, expected


def exact_normals(generator: Generator, n: int) -> np.ndarray:
    """Box and Muller's float64 normals, in long doubles and with the turn's quarters exact."""
    words = (generator.words(-(-n // 4) * 4) >> np.uint64(11)).astype(np.longdouble)
    quarters = words[1::2] / 2.0**51
    whole = np.floor(quarters + 0.5)
    rest = (quarters - whole) * (2 * np.arctan(np.longdouble(1)))
    radius = np.sqrt(-2 * np.log((words[0::2] + 1) / 2.0**53))
    c, s, quadrant = np.cos(rest), np.sin(rest), whole.astype(int) % 4
    both = np.choose(quadrant, [c, -s, -c, s]), np.choose(quadrant, [s, c, -s, -c])
    return (radius * np.stack(both)).T.reshape(-1)[:n].astype(np.float64)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_uniform_numbers_are_the_same_bits(launcher: Any, dtype: str, place: Any) -> None:
    for n in SIZES:
        made, expected = draw(launcher, "random", n, dtype, place)
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize(
    "bounds", [(0, 10), (-5, 6), (0, 2**63), (-(2**63), 2**63), (3, 4), (0, 2**40 + 1)], ids=str
)
def test_integers_are_the_same(launcher: Any, bounds: Any, place: Any) -> None:
    for n in SIZES:
        made, expected = draw(launcher, "integers", n, "int64", place, *bounds)
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("dtype", ["int32", "uint8", "float32"])
def test_integers_of_other_dtypes_are_the_same(launcher: Any, dtype: str) -> None:
    made, expected = draw(launcher, "integers", 1000, dtype, (7, 3), 0, 200)
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("place", PLACES, ids=str)
@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 1 - 2**-32, 1.0])
def test_masks_are_the_same_bits(launcher: Any, p: float, place: Any) -> None:
    for n in SIZES:
        made, expected = draw(launcher, "bernoulli_mask", n, "bool", place, p)
        np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("n", SIZES)
def test_permutations_are_the_same(launcher: Any, n: int) -> None:
    made, expected = draw(launcher, "permutation", n, "int64", (7, 3))
    np.testing.assert_array_equal(made, expected)


@pytest.mark.parametrize("place", PLACES[:2], ids=str)
@pytest.mark.parametrize("dtype", DTYPES)
def test_normal_numbers_are_the_same_but_for_rounding(
    launcher: Any, dtype: str, place: Any
) -> None:
    for n in SIZES:
        made, expected = draw(launcher, "normal", n, dtype, place)
        if dtype != "float64":
            np.testing.assert_allclose(wide(made), wide(expected), epsilon(dtype), 1e-15)
            assert (made != expected).mean() <= 1e-4
            continue
        # The angle that NumPy's functions are given is rounded.
        np.testing.assert_allclose(made, expected, 1e-15, 4e-15)
        on_cpu = launcher.xp is np and np.finfo(np.longdouble).eps < 1e-18
        if on_cpu:
            np.testing.assert_allclose(made, exact_normals(at(*place), n), 1e-15, 0)


def test_nothing_is_launched_for_nothing(launcher: Any) -> None:
    for method, dtype, args in (
        ("random", "float32", ()), ("normal", "float64", ()), ("permutation", "int64", ()),
        ("integers", "int64", (0, 3)), ("bernoulli_mask", "bool", (0.5,)),
    ):  # fmt: skip
        made, _ = draw(launcher, method, 0, dtype, (7, 3), *args)
        assert made.shape == (0,)


@pytest.mark.parametrize("dtype", DTYPES)
def test_numbers_that_start_anywhere_are_the_same_bits(launcher: Any, dtype: str) -> None:
    xp, n = launcher.xp, 1100
    for kernel in ("random_uniform", "random_normal"):
        outs = [xp.zeros(n + start, np.dtype(dtype))[start:] for start in range(3)]
        for out in outs:
            launcher.elementwise(kernel, np.dtype(dtype), n, out, None, 7, 3, n)
        for out in outs[1:]:
            np.testing.assert_array_equal(host(out), host(outs[0]))


@pytest.mark.parametrize("kernel", ["random_uniform", "random_mask"])
def test_a_state_in_memory_takes_the_place_of_the_numbers(launcher: Any, kernel: str) -> None:
    xp, n = launcher.xp, 100
    mask = kernel == "random_mask"
    state = xp.asarray(np.array([2**63 + 11, 40], np.uint64))
    more = (2**31,) if mask else ()
    dtype = np.dtype(np.float32)
    outs = [xp.zeros(n, bool if mask else dtype) for _ in range(3)]
    launcher.elementwise(kernel, dtype, n, outs[0], state, 0, 5, n, *more)
    launcher.elementwise(kernel, dtype, n, outs[1], None, signed(2**63 + 11), 45, n, *more)
    state[1] = 41
    launcher.elementwise(kernel, dtype, n, outs[2], state, 0, 4, n, *more)
    np.testing.assert_array_equal(host(outs[0]), host(outs[1]))
    np.testing.assert_array_equal(host(outs[0]), host(outs[2]))
    generator = at(2**63 + 11, 45)
    expected = generator.bernoulli_mask((n,), 0.5) if mask else generator.random((n,), dtype)
    np.testing.assert_array_equal(host(outs[0]), expected)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for n in (5, 37, 700):
        for dtype in DTYPES:
            draw(threads, "random", n, dtype, (7, 3))
            draw(threads, "normal", n, dtype, (7, 3))
        draw(threads, "integers", n, "int64", (7, 3), 0, 10)
        draw(threads, "bernoulli_mask", n, "bool", (7, 3), 0.5)
        draw(threads, "permutation", n, "int64", (7, 3))
