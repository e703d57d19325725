"""The random stream: its exact mapping, its statistics, its state."""

from __future__ import annotations

import copy
import math
import pickle
import threading
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import random as R
from gradlite.backends import native, orders
from gradlite.ops import draws
from gradlite.random import Generator

U64 = 1 << 64


@pytest.fixture(
    params=[
        "numpy",
        pytest.param(
            "compiled",
            marks=pytest.mark.skipif(
                native.on_demand() is None, reason="kernels cannot be compiled"
            ),
        ),
    ],
    autouse=True,
)
def draws_by(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everything by NumPy alone, and everything that can be by compiled code, however little."""
    if request.param == "numpy":
        monkeypatch.setattr(Generator, "compiled", staticmethod(lambda *_: False))
    monkeypatch.setattr(draws, "LEAST", 0)
    monkeypatch.setattr(R, "_WORTH_COMPILED", 0 if request.param == "compiled" else math.inf)


def seeded(seed: int = 1234) -> Generator:
    return Generator().manual_seed(seed)


def words_of(seed: int, count: int, offset: int = 0) -> np.ndarray:
    """Words of the stream, from NumPy's own generator."""
    bits = np.random.Philox(key=seed)
    bits.random_raw(4 * offset, output=False)
    return bits.random_raw(count)


def philox_block(seed: int, block: int) -> list[int]:
    """One block in plain integers, from the published algorithm."""
    counter, key = [block + 1, 0, 0, 0], [seed, 0]
    for _ in range(10):
        first, second = counter[0] * 0xD2E7470EE14C6C93, counter[2] * 0xCA5A826395121157
        counter = [
            (second >> 64) ^ counter[1] ^ key[0],
            second % U64,
            (first >> 64) ^ counter[3] ^ key[1],
            first % U64,
        ]
        key = [(key[0] + 0x9E3779B97F4A7C15) % U64, (key[1] + 0xBB67AE8584CAA73B) % U64]
    return counter


# -- the mapping from counter to value ----------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 1, 67280421310721, U64 - 1])
def test_words_are_philox(seed: int) -> None:
    g = seeded(seed)
    words = g.words(12)
    assert words.dtype == np.uint64
    assert words.tolist() == np.random.Philox(key=seed).random_raw(12).tolist()
    assert words.tolist() == [w for b in range(3) for w in philox_block(seed, b)]


def test_known_answers() -> None:
    """Values written down once: a change of the stream breaks every saved experiment."""
    assert seeded(0).words(2).tolist() == [213000021201967259, 4455796210202625458]
    assert seeded(7).random((2,), np.float32).tolist() == [0.16372650861740112, 0.8720734119415283]
    assert seeded(7).integers(0, 1000, (4,)).tolist() == [872, 295, 420, 405]
    assert seeded(7).permutation(5).tolist() == [4, 1, 3, 2, 0]
    np.testing.assert_array_equal(
        seeded(7).normal((2,), np.float32), np.float32([1.3202364, -1.3697047])
    )


@pytest.mark.parametrize("count", [0, 1, 5, 8, 9, 31, 1000])
def test_uniform_mapping(count: int) -> None:
    words = words_of(3, 4 * count + 4)
    lanes = words.view("<u4")
    quarters = words.view("<u2")
    expected = {
        np.float16: (quarters[:count] >> 5) * 2.0**-11,
        np.float32: (lanes[:count] >> 8) * 2.0**-24,
        np.float64: (words[:count] >> np.uint64(11)) * 2.0**-53,
    }
    for kind, values in expected.items():
        got = seeded(3).random((count,), kind)
        assert got.dtype == kind and got.shape == (count,)
        assert got.tolist() == values.tolist()


@pytest.mark.parametrize("count", [1, 2, 7, 8, 40_001])
def test_normal_mapping(count: int) -> None:
    words = words_of(3, count + 9)
    lanes = words.view("<u4").astype(np.float64)

    def box_muller(a: np.ndarray, b: np.ndarray, unit: float) -> np.ndarray:
        r = np.sqrt(-2.0 * np.log((a + 1.0) * unit))
        t = b * (2.0 * math.pi * unit)
        return np.stack([r * np.cos(t), r * np.sin(t)], 1).reshape(-1)[:count]

    single = box_muller(lanes[0::2], lanes[1::2], 2.0**-32).astype(np.float32)
    np.testing.assert_array_equal(seeded(3).normal((count,), np.float32), single)
    half = seeded(3).normal((count,), np.float16)
    assert half.dtype == np.float16
    np.testing.assert_array_equal(half, single.astype(np.float16))
    high = (words >> np.uint64(11)).astype(np.float64)
    if len(high) % 2:
        high = high[:-1]
    double = box_muller(high[0::2], high[1::2], 2.0**-53)
    np.testing.assert_array_equal(seeded(3).normal((count,), np.float64), double)


@pytest.mark.parametrize(
    ("low", "high"),
    [
        (0, 1),
        (0, 10),
        (-5, 5),
        (0, 2**32 - 1),
        (0, 2**32),
        (3, 2**32 + 4),
        (-(2**62), 2**62),
        (-(2**63), 2**63 - 1),
        (-(2**63), 2**63),
    ],
)
def test_integers_mapping(low: int, high: int) -> None:
    expected = [low + (w * (high - low) >> 64) for w in words_of(3, 500).tolist()]
    assert seeded(3).integers(low, high, (500,)).tolist() == expected


def test_integers_hit_both_ends() -> None:
    top = np.array([0, U64 - 1, U64 // 2], np.uint64)
    for width in (1, 2, 7, 2**32 - 1, 2**32, 2**32 + 1, 2**63, 2**64 - 1):
        expected = [0, ((U64 - 1) * width) >> 64, ((U64 // 2) * width) >> 64]
        assert R._multiply_high(top, width).tolist() == expected


def test_mask_mapping() -> None:
    lanes = words_of(3, 50).view("<u4")
    for p in (0.0, 1e-12, 0.1, 0.5, 0.999, 1.0):
        mask = seeded(3).bernoulli_mask((100,), p)
        assert mask.dtype == np.bool_
        assert mask.tolist() == [int(v) < math.floor(p * 2**32 + 0.5) for v in lanes]


@pytest.mark.parametrize("n", [0, 1, 2, 9, 1000, 5000, 40_001])
def test_permutation_is_the_stable_argsort(n: int) -> None:
    order = seeded(3).permutation(n)
    assert order.dtype == np.int64
    assert order.tolist() == np.argsort(words_of(3, n), kind="stable").tolist()
    assert sorted(order.tolist()) == list(range(n))


def test_permutation_with_ties_keeps_their_order() -> None:
    rng = np.random.default_rng(0)
    few = rng.integers(0, 50, 3000, dtype=np.uint64)
    in_low_bits = few | np.uint64(1 << 40)
    in_high_bits = few << np.uint64(50)
    in_both = rng.integers(0, 6, 3000, dtype=np.uint64) | few << np.uint64(58)
    for keys in (few, in_low_bits, in_high_bits, in_both):
        expected = np.argsort(keys, kind="stable")
        np.testing.assert_array_equal(R._stable_argsort(keys), expected)
        found = orders.argsort(keys)
        if found is not None:
            np.testing.assert_array_equal(found, expected)


def test_the_last_blocks_of_a_stream_are_followed_by_the_first() -> None:
    """The counter of 64 bits carries, and the place in the stream begins again."""
    bits = np.random.Philox(key=3)
    bits.advance(U64 - 3)
    g = seeded(3)
    g.set_offset(U64 - 3)
    assert g.words(20).tolist() == bits.random_raw(20).tolist()
    assert g.get_offset() == 2


# -- blocks -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("draw", "per_block"),
    [
        (lambda g, n: g.random((n,), np.float16), 16),
        (lambda g, n: g.random((n,), np.float32), 8),
        (lambda g, n: g.random((n,), np.float64), 4),
        (lambda g, n: g.normal((n,), np.float16), 8),
        (lambda g, n: g.normal((n,), np.float32), 8),
        (lambda g, n: g.normal((n,), np.float64), 4),
        (lambda g, n: g.integers(0, 9, (n,)), 4),
        (lambda g, n: g.bernoulli_mask((n,), 0.3), 8),
        (lambda g, n: g.permutation(n), 4),
        (lambda g, n: g.words(n), 4),
    ],
)
def test_draws_take_whole_blocks_and_interleave(draw, per_block: int) -> None:
    g = seeded(5)
    used = 0
    for n in (0, 1, 3, 17, 64, 100):
        got = draw(g, n)
        used += -(-n // per_block)
        assert g.get_offset() == used
        # A draw depends on where it starts, not on what was drawn before.
        fresh = seeded(5)
        fresh.set_offset(used - -(-n // per_block))
        np.testing.assert_array_equal(got, draw(fresh, n))
    assert g.words(4).tolist() == words_of(5, 4, offset=used).tolist()


def test_shapes_and_dtypes() -> None:
    g = seeded()
    for shape in ((), (3,), (2, 0, 4), (2, 3, 4), 6):
        expected = (6,) if shape == 6 else shape
        for array in (
            g.random(shape, np.float32),
            g.normal(shape, np.float64),
            g.integers(0, 5, shape),
            g.bernoulli_mask(shape, 0.5),
        ):
            assert isinstance(array, np.ndarray)
            assert array.shape == expected
            assert array.flags.writeable
    for spelling in (np.float32, np.dtype(np.float32), "float32"):
        assert g.random((2,), spelling).dtype == np.float32
    for kind in (np.uint8, np.int8, np.int16, np.int32, np.int64, np.float16, np.float32):
        values = g.integers(0, 100, (64,), kind)
        assert values.dtype == kind
        assert values.min() >= 0 and values.max() < 100


def test_bad_arguments() -> None:
    g = seeded()
    with pytest.raises(RuntimeError, match="from=5 >= to=5"):
        g.integers(5, 5, (2,))
    with pytest.raises(RuntimeError, match="wider than 64 bits"):
        g.integers(0, 2**64 + 1, (2,))
    for p in (-0.1, 1.5, math.nan):
        with pytest.raises(RuntimeError, match=r"bernoulli_ expects p to be in \[0, 1\]"):
            g.bernoulli_mask((2,), p)
    with pytest.raises(RuntimeError, match="use a float dtype"):
        g.random((2,), np.int64)
    with pytest.raises(RuntimeError, match="negative dimension"):
        g.random((-2,), np.float32)
    with pytest.raises(RuntimeError, match="negative dimension"):
        g.permutation(-1)
    assert g.get_offset() == 0


def test_reserve_leaves_the_blocks_to_a_kernel() -> None:
    g = seeded(9)
    g.random((3,), np.float32)
    assert g.reserve(10) == (9, 1)
    assert g.words(4).tolist() == words_of(9, 4, offset=11).tolist()


def test_failed_draw_does_not_desynchronise() -> None:
    g = seeded(9)

    def fail() -> np.ndarray:
        g._philox.random_raw(2)
        raise MemoryError

    with pytest.raises(MemoryError):
        g._draw(4, fail)
    assert g.words(4).tolist() == words_of(9, 4, offset=g.get_offset() - 1).tolist()


# -- seeds and state ----------------------------------------------------------------------------


@pytest.mark.parametrize("seed", [0, 5, 2**63, 2**64 - 1, -1, -(2**63)])
def test_seeds_as_in_torch(seed: int) -> None:
    torch = pytest.importorskip("torch")
    g = Generator()
    assert g.manual_seed(seed) is g
    assert g.initial_seed() == torch.Generator().manual_seed(seed).initial_seed()


@pytest.mark.parametrize("seed", [2**64, -(2**63) - 1, 1.5, True, "a", None])
def test_seed_errors_as_in_torch(seed) -> None:
    torch = pytest.importorskip("torch")
    with pytest.raises(Exception) as expected:
        torch.Generator().manual_seed(seed)
    with pytest.raises(expected.type) as got:
        Generator().manual_seed(seed)
    assert str(got.value) == str(expected.value)


def test_a_new_generator_has_the_default_seed_and_the_global_one_has_not() -> None:
    torch = pytest.importorskip("torch")
    assert Generator().initial_seed() == torch.Generator().initial_seed()
    assert Generator().random((4,), np.float32).tolist() == (
        Generator().random((4,), np.float32).tolist()
    )
    g = Generator()
    first, second = g.seed(), g.seed()
    assert first != second and g.initial_seed() == second < 2**53


def test_state_round_trip() -> None:
    g = seeded(-3)
    g.normal((100,), np.float32)
    state = g.state_array()
    assert state.dtype == np.uint8 and state.shape == (16,)
    assert state.view("<u8").tolist() == [2**64 - 3, 13]
    expected = [g.random((5,), np.float32).tolist(), g.permutation(9).tolist()]
    other = Generator()
    other.set_state_array(state)
    assert other.initial_seed() == 2**64 - 3
    assert [other.random((5,), np.float32).tolist(), other.permutation(9).tolist()] == expected
    assert state.view("<u8").tolist() == [2**64 - 3, 13]


def test_state_through_get_state_clone_pickle_and_deepcopy() -> None:
    g = seeded(11)
    g.random((3,), np.float32)
    same = Generator()
    same.set_state(g.get_state())
    others = [same, g.clone_state(), pickle.loads(pickle.dumps(g)), copy.deepcopy(g)]
    expected = g.words(8).tolist()
    for other in others:
        assert other.words(8).tolist() == expected
        assert other.device == g.device


def test_state_errors() -> None:
    g = Generator()
    with pytest.raises(RuntimeError, match=r"of size 16 but found .* to be 4"):
        g.set_state_array(np.zeros(4, np.uint8))
    with pytest.raises(TypeError, match=r"RNG state must be a gradlite\.ByteTensor"):
        g.set_state_array(np.zeros(16, np.float32))
    with pytest.raises(TypeError, match=r"expected a gradlite\.ByteTensor, but got int"):
        g.set_state(4)


def test_threads_never_share_a_block() -> None:
    g = seeded(21)
    parts: list[np.ndarray] = []

    def work() -> None:
        for _ in range(200):
            parts.append(g.words(8))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    drawn = sorted(np.concatenate(parts).tolist())
    assert drawn == sorted(words_of(21, 4 * 200 * 8).tolist())


def test_unknown_device() -> None:
    with pytest.raises(RuntimeError, match="device type at start of device string: foo"):
        Generator("foo")
    assert Generator("cpu").device.type == "cpu"


# -- statistics: fixed seeds, so these pass or fail for good ------------------------------------

N = 200_000


def chi_square(counts: np.ndarray) -> float:
    """The z-score of a chi-square statistic for equal cells (Wilson and Hilferty)."""
    expected = counts.sum() / counts.size
    statistic = float(((counts - expected) ** 2).sum() / expected)
    k = counts.size - 1
    return ((statistic / k) ** (1 / 3) - (1 - 2 / (9 * k))) / math.sqrt(2 / (9 * k))


def kolmogorov(values: np.ndarray) -> float:
    """sqrt(n) times the largest gap to the uniform distribution; above 1.95 in 1 of 1000."""
    ordered = np.sort(values.astype(np.float64))
    grid = np.arange(1, ordered.size + 1) / ordered.size
    gap = np.maximum(np.abs(grid - ordered), np.abs(grid - 1 / ordered.size - ordered)).max()
    return float(gap * math.sqrt(ordered.size))


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_uniform_statistics(kind, seed: int) -> None:
    x = seeded(seed).random((N,), kind).astype(np.float64)
    assert x.min() >= 0.0 and x.max() < 1.0
    offset = {np.float16: 2.0**-12, np.float32: 2.0**-25, np.float64: 0.0}[kind]
    assert abs(x.mean() + offset - 0.5) < 4 * math.sqrt(1 / 12 / N)
    assert abs(x.var() - 1 / 12) < 4 * math.sqrt(1 / 180 / N)
    cells = 64
    assert abs(chi_square(np.bincount((x * cells).astype(int), minlength=cells))) < 4
    pairs = (x[0::2] * 16).astype(int) * 16 + (x[1::2] * 16).astype(int)
    assert abs(chi_square(np.bincount(pairs, minlength=256))) < 4
    if kind != np.float16:
        assert kolmogorov(x) < 1.95


@pytest.mark.parametrize("kind", [np.float32, np.float64])
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_normal_statistics(kind, seed: int) -> None:
    x = seeded(seed).normal((N,), kind).astype(np.float64)
    for power, moment, variance in ((1, 0, 1), (2, 1, 2), (3, 0, 15), (4, 3, 96), (6, 15, 10170)):
        assert abs((x**power).mean() - moment) < 4 * math.sqrt(variance / N)
    uniform = np.array([0.5 * math.erfc(-v / math.sqrt(2)) for v in x[:50_000]])
    assert kolmogorov(uniform) < 1.95
    # The two values of a pair are independent, and so are their magnitudes.
    assert abs((x[0::2] * x[1::2]).mean()) < 4 * math.sqrt(2 / N)
    assert abs(((x[0::2] ** 2 - 1) * (x[1::2] ** 2 - 1)).mean()) < 4 * math.sqrt(8 / N)
    assert 4.0 < np.abs(x).max() < 6.67


@pytest.mark.parametrize(("low", "high"), [(0, 2), (0, 10), (-50, 50), (0, 1000)])
def test_integer_statistics(low: int, high: int) -> None:
    x = seeded(4).integers(low, high, (N,))
    assert x.min() == low and x.max() == high - 1
    assert abs(chi_square(np.bincount(x - low, minlength=high - low))) < 4


@pytest.mark.parametrize("p", [0.01, 0.1, 0.5, 0.9])
def test_mask_statistics(p: float) -> None:
    mask = seeded(4).bernoulli_mask((N,), p)
    assert abs(mask.mean() - p) < 4 * math.sqrt(p * (1 - p) / N)


def test_permutation_statistics() -> None:
    g = seeded(4)
    counts: dict[tuple[int, ...], int] = {}
    for _ in range(6000):
        order = tuple(g.permutation(4).tolist())
        counts[order] = counts.get(order, 0) + 1
    assert len(counts) == 24
    assert abs(chi_square(np.array(list(counts.values())))) < 4
    fixed = sum(int((g.permutation(100) == np.arange(100)).sum()) for _ in range(2000))
    assert abs(fixed / 2000 - 1) < 4 / math.sqrt(2000)


def drawn_by_weight(g: Generator, weights: Any, count: int, replacement: bool) -> Any:
    return gradlite.multinomial(gradlite.tensor(weights), count, replacement, generator=g).numpy()


@pytest.mark.parametrize("replacement", [True, False])
def test_multinomial_statistics(replacement: bool) -> None:
    weights = np.array([0.0, 1.0, 2.0, 0.0, 5.0, 2.0, 0.0])
    g = seeded(4)
    if replacement:
        first = drawn_by_weight(g, weights, 50_000, True)
    else:
        draws = np.stack([drawn_by_weight(g, weights, 4, False) for _ in range(20_000)])
        assert (np.sort(draws, axis=1) == [1, 2, 4, 5]).all()
        first = draws[:, 0]
    counts = np.bincount(first, minlength=7)
    expected = weights / weights.sum()
    deviation = np.sqrt(expected * (1 - expected) / first.size) * 4
    assert (np.abs(counts / first.size - expected) <= deviation).all()


def test_multinomial_rows_and_errors() -> None:
    torch = pytest.importorskip("torch")
    weights = np.eye(3)[[2, 0, 1]]
    assert drawn_by_weight(seeded(), weights, 2, True).tolist() == [[2, 2], [0, 0], [1, 1]]
    assert drawn_by_weight(seeded(), weights, 1, False).tolist() == [[2], [0], [1]]
    assert drawn_by_weight(seeded(), weights[0].astype(np.float32), 1, False).tolist() == [2]
    bad: list[tuple[list[float], int, bool]] = [
        ([0.0, 0.0], 1, True),
        ([1.0, 0.0], 3, False),
        ([1.0, -1.0], 1, True),
        ([1.0, math.nan], 1, True),
        ([1.0, math.inf], 1, False),
        ([1.0, 1.0], 0, True),
    ]
    for row, count, replacement in bad:
        with pytest.raises(RuntimeError) as expected:
            torch.multinomial(torch.tensor(row), count, replacement)
        with pytest.raises(RuntimeError) as got:
            drawn_by_weight(seeded(), np.array(row), count, replacement)
        assert str(got.value) == str(expected.value)


def test_one_sample_is_the_first_of_several() -> None:
    weights = seeded(5).random((20, 9), np.float64)
    weights[weights < 0.3] = 0
    one, two = (drawn_by_weight(seeded(6), weights, count, False) for count in (1, 2))
    assert (one == two[:, :1]).all()


def test_multinomial_is_the_same_whichever_way_it_searches() -> None:
    """Few places are compared with all weights, many are searched for."""
    weights, few = seeded(5).random((700,), np.float64), 450
    assert 700 * few < 1 << 20 < 700 * 4 * few
    compared = drawn_by_weight(seeded(6), weights, few, True)
    searched = drawn_by_weight(seeded(6), weights, 4 * few, True)
    assert (searched[:few] == compared).all()
    assert compared.min() < 20 and 680 < compared.max() < 700


@pytest.mark.parametrize("pair", [(0, 1), (1, 2), (5, 2**32 + 5), (7, -7), (0, 2**63)])
def test_streams_of_different_seeds_are_independent(pair: tuple[int, int]) -> None:
    x, y = (seeded(seed).normal((N,), np.float32).astype(np.float64) for seed in pair)
    assert abs((x * y).mean()) < 4 / math.sqrt(N)
    u, v = (seeded(seed).random((N,), np.float32) for seed in pair)
    cells = (u * 16).astype(int) * 16 + (v * 16).astype(int)
    assert abs(chi_square(np.bincount(cells, minlength=256))) < 4
    assert not np.intersect1d(seeded(pair[0]).words(1000), seeded(pair[1]).words(1000)).size


def test_the_functions_of_the_module_are_those_of_the_package() -> None:
    for name in (
        "manual_seed", "seed", "initial_seed", "get_rng_state", "set_rng_state", "fork_rng"
    ):  # fmt: skip
        assert getattr(gradlite.random, name) is getattr(gradlite, name)
    gradlite.random.manual_seed(5)
    first = gradlite.rand(3).tolist()
    gradlite.manual_seed(5)
    assert gradlite.rand(3).tolist() == first


def test_a_probability_for_all_elements() -> None:
    gradlite.manual_seed(0)
    ours = gradlite.bernoulli(gradlite.zeros(N, dtype=gradlite.float64), 0.3)
    assert ours.dtype == gradlite.float64 and set(ours.tolist()) == {0.0, 1.0}
    assert abs(ours.mean().item() - 0.3) < 5 * (0.3 * 0.7 / N) ** 0.5
    gradlite.manual_seed(0)
    assert gradlite.zeros(N).bernoulli(0.3).tolist() == ours.tolist()
    with pytest.raises(RuntimeError, match="expects p to be in"):
        gradlite.zeros(2).bernoulli(1.5)


def test_integers_up_to_a_bound_by_name() -> None:
    x = gradlite.zeros(1000, dtype=gradlite.int64).random_(to=3)
    assert set(x.tolist()) == {0, 1, 2}
    assert set(x.random_(2, to=4).tolist()) == {2, 3}
