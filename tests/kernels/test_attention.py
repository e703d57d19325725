"""Attention without its weights in memory: the rule in float64 is the reference."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.ops import attention
from gradlite.ops.attention import Attention
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, wide

TOLERANCES = {
    "bfloat16": (5e-3, 1.5e-2), "float16": (4e-3, 2e-2), "float32": (1e-5, 1e-4),
    "float64": (1e-10, 1e-10),
}  # fmt: skip
# Queries, keys, size of queries and keys, size of values.
SIZES = [(1, 1, 1, 1), (4, 5, 3, 7), (31, 33, 8, 8), (32, 32, 32, 32), (33, 31, 16, 40),
         (64, 64, 64, 64), (70, 20, 60, 33), (20, 70, 64, 1)]  # fmt: skip
LARGE = [(17, 33, 100, 128), (33, 17, 128, 5)]


@pytest.fixture(name="own")
def kernels_alone(wanted: Any) -> Any:
    """Not the products of matrices that one thread is faster with."""
    return wanted


def draw(lead: tuple[int, ...], sizes: Any, dtype: str) -> list[Any]:
    queries, keys, size, value_size = sizes
    generator = np.random.default_rng(sum(sizes))
    shapes = (queries, size), (keys, size), (keys, value_size), (queries, value_size)
    return [generator.standard_normal((*lead, *shape)).astype(dtype) for shape in shapes]


def compare(own: Any, arrays: list[Any], mask: Any, scale: float, causal: bool) -> None:
    *inputs, grad = arrays
    inputs.append(mask)
    wanted = (True, True, True, False)
    expected = by_rule(Attention, [wide(a) for a in inputs], (scale, causal), wide(grad), wanted)
    found = by_kernel(own, Attention, inputs, (scale, causal), grad, wanted)
    tolerance, looser = TOLERANCES[grad.dtype.name]
    np.testing.assert_allclose(found[0], expected[0], tolerance, tolerance)
    for one, other in zip(found[1:4], expected[1:4]):
        scale = max(1.0, float(np.abs(other).max()))
        np.testing.assert_allclose(one, other, looser, looser * scale / 4)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("sizes", SIZES, ids=str)
def test_values_and_gradients(own: Any, sizes: Any, causal: bool, dtype: str) -> None:
    compare(own, draw((2, 2), sizes, dtype), None, sizes[2] ** -0.5, causal)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
@pytest.mark.parametrize("sizes", LARGE, ids=str)
def test_large_heads(own: Any, sizes: Any, dtype: str) -> None:
    compare(own, draw((2,), sizes, dtype), None, sizes[2] ** -0.5, True)


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("kind", ["bool", "added"])
@pytest.mark.parametrize(
    "shape", [(9, 40), (40,), (2, 1, 1, 40), (1, 3, 9, 40), (3, 1, 40), (2, 3, 9, 40)], ids=str
)
def test_masks(own: Any, shape: Any, kind: str, dtype: str) -> None:
    generator = np.random.default_rng(len(shape))
    mask: Any = generator.random(shape) < 0.7
    if kind == "added":
        mask = np.where(mask, generator.standard_normal(shape), -np.inf).astype(dtype)
    for causal in (False, True):
        compare(own, draw((2, 3), (9, 40, 8, 8), dtype), mask, 0.4, causal)


def apart(dtype: str, batch: int = 2, heads: int = 3, size: int = 8) -> list[Any]:
    """Queries, keys and values as one projection leaves them, and a gradient as the next one does:
    (batch, position, head, size) in memory."""
    generator = np.random.default_rng(5)
    together = generator.standard_normal((batch, 35, 3, heads, size)).astype(dtype)
    grad = generator.standard_normal((batch, 35, heads, size)).astype(dtype)
    return [*together.transpose(2, 0, 3, 1, 4), grad.transpose(0, 2, 1, 3)]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_what_lies_apart_is_read_where_it_lies(
    own: Any, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    if own.array is np.ndarray:  # arrays as they are: the other launchers copy them
        monkeypatch.setattr(own, "dense", None)
    compare(own, apart(dtype), None, 0.5, True)


def strange() -> dict[str, list[Any]]:
    q, k, v, grad = apart("float32")
    return {
        "backwards": [q[:, ::-1], k[:, :, ::-1], v[..., ::-1], grad[::-1]],
        "broadcast": [q, np.broadcast_to(k[:1], k.shape), np.broadcast_to(v[:, :1], v.shape), grad],
        "columns apart": [a.swapaxes(-1, -2).copy().swapaxes(-1, -2) for a in (q, k, v, grad)],
        "a part of the rows": [q[:, :, 1::3], k[:, :, ::2], v[:, :, ::2], grad[:, :, 1::3]],
        "more samples": [a.reshape(2, 3, 5, 7, 8)[:, ::2] for a in (q, k, v, grad)],
        "samples that step unevenly": [
            np.broadcast_to(a[:, None], (2, 2, *a.shape[1:])) for a in (q, k, v, grad)
        ],
        "no heads": [a[:, 1] for a in (q, k, v, grad)],
        "one matrix": [a[1, 1] for a in (q, k, v, grad)],
        "one column": [a[..., 2:3] for a in (q, k, v, grad)],
    }


@pytest.mark.parametrize("name", strange())
def test_strange_layouts(own: Any, name: str) -> None:
    compare(own, strange()[name], None, 0.5, False)


def test_results_lie_as_projections_take_them(own: Any) -> None:
    *inputs, grad = (own.xp.asarray(a) for a in apart("float32"))
    out, aux = Attention.fused_forward(own, *inputs, None, 0.5, True)
    assert out.shape == grad.shape and out.swapaxes(1, 2).flags.c_contiguous
    assert aux[1] is out  # which backward reads where it lies


def test_queries_without_keys_and_large_scores(own: Any) -> None:
    mask = np.ones((40, 70), bool)
    mask[3] = False
    mask[39, 1:] = False
    arrays = draw((2,), (40, 70, 16, 16), "float32")
    compare(own, arrays, mask, 1.0, False)
    found = by_kernel(own, Attention, [*arrays[:3], mask], (1.0, False), arrays[3],
                      (True, True, True, False))  # fmt: skip
    assert (found[0][:, 3] == 0).all() and (found[1][:, 3] == 0).all()


@pytest.mark.parametrize(
    ("dtype", "limit"), [("bfloat16", 4e-3), ("float16", 1e-3), ("float32", 2e-4)]
)
def test_scores_up_to_some_hundreds(own: Any, dtype: str, limit: float) -> None:
    """Most weights are nearly 0 or 1; the scores' last places are worth more than the weights'."""
    arrays = draw((2,), (40, 70, 16, 16), dtype)
    arrays[0] *= 30
    inputs, wanted = [*arrays[:3], None], (True, True, True, False)
    expected = by_rule(Attention, [wide(a) for a in inputs], (1.0, True), wide(arrays[3]), wanted)
    found = by_kernel(own, Attention, inputs, (1.0, True), arrays[3], wanted)
    for one, other in zip(found[:4], expected[:4]):
        np.testing.assert_allclose(one, other, 4e-3, limit * np.abs(other).max())


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    mask = np.random.default_rng(0).random((9, 40)) < 0.7
    compare(threads, draw((2,), (9, 40, 5, 7), "float32"), mask, 0.5, False)
    compare(threads, draw((1,), (40, 33, 8, 8), "float32"), None, 0.5, True)
    compare(threads, [a[:, :2] for a in apart("float32")], None, 0.5, True)


def test_the_order_of_blocks_and_threads_changes_no_bit(threads: ThreadsLauncher) -> None:
    *inputs, grad = draw((2,), (40, 50, 8, 8), "float32")
    results = []
    for seed in (0, 1, 2):
        threads.seed = seed
        results.append(by_kernel(threads, Attention, [*inputs, None], (0.5, True), grad,
                                 (True, True, True, False)))  # fmt: skip
    for other in results[1:]:
        for one, same in zip(results[0][:4], other[:4]):
            np.testing.assert_array_equal(one, same)


def test_one_launch_each_way(own: Any) -> None:
    with kernels.record() as launches:
        compare(own, draw((2,), (9, 8, 5, 7), "float32"), None, 0.5, True)
    assert launches == ["attention_forward_32", "attention_backward_32"]


def test_what_is_left_to_products(own: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    xp = own.xp
    q, k, v, _ = (xp.asarray(a) for a in draw((2,), (9, 8, 5, 7), "float32"))
    assert attention.kernel_size(own, q, k, v) == 32
    wide_heads = xp.asarray(np.zeros((2, 8, 200), np.float32))
    assert attention.kernel_size(own, wide_heads, wide_heads, wide_heads) == 0
    doubles = xp.asarray(np.zeros((2, 8, 100)))
    assert attention.kernel_size(own, doubles, doubles, doubles) == 0
    monkeypatch.setattr(attention, "MOST_PRODUCTS", 9 * 8 * 2 * 32 - 1)
    assert attention.kernel_size(own, q, k, v) == 0
    monkeypatch.setattr(attention, "MOST_BYTES", 9 * 8 * 2 * 4 - 1)
    assert attention.kernel_size(own, q, k, v) == 32


# ---------------------------------------------------------------------------- as users call it
@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


@pytest.mark.parametrize("products", [False, True])
@pytest.mark.parametrize("options", [{}, {"is_causal": True}, {"mask": "bool"}, {"mask": "added"}],
                         ids=str)  # fmt: skip
def test_both_ways_on_a_device(
    cupy: Any, monkeypatch: pytest.MonkeyPatch, options: Any, products: bool
) -> None:
    monkeypatch.setattr(attention, "MOST_PRODUCTS", 0 if products else 1 << 27)
    mask: Any = np.random.default_rng(0).random((5, 6)) < 0.7
    if options.get("mask") == "added":
        mask = np.where(mask, 0.5, -np.inf).astype(np.float32)

    def program(device: str) -> list[Any]:
        arrays = draw((2, 3), (5, 6, 4, 7), "float32")
        q, k, v, w = (gradlite.tensor(a, device=device, requires_grad=True) for a in arrays)
        chosen = gradlite.tensor(mask, device=device) if "mask" in options else None
        causal = options.get("is_causal", False)
        out = gradlite.nn.functional.scaled_dot_product_attention(q, k, v, chosen, is_causal=causal)
        first = gradlite.autograd.grad((out * w).sum(), (q, k, v), create_graph=True)
        second = gradlite.autograd.grad(sum((g * g).sum() for g in first), (q, k, v))
        plain = gradlite.autograd.grad(
            (gradlite.nn.functional.scaled_dot_product_attention(q, k, v, chosen, is_causal=causal)
             * w).sum(), (q, k, v),
        )  # fmt: skip
        return [t.detach().cpu().numpy() for t in (out, *first, *second, *plain)]

    with kernels.record() as launches:
        there = program("cuda")
    for one, other in zip(there, program("cpu")):
        np.testing.assert_allclose(one, other, 1e-4, 1e-5)
    assert ("attention_forward_32" in launches) is not products
    assert ("attention_backward_32" in launches) is not products
