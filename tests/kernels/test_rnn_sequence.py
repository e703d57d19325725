"""Recurrent layers in one launch each way; the rules in float64 are the reference."""

from __future__ import annotations

from itertools import product
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.ops import rnn_sequence
from tests import cupy_stand_in as stand_in
from tests.kernels.recurrent import (
    FUNCTIONS,
    LAYERS,
    TOLERANCES,
    Context,
    compare,
    inputs,
    rounded_products,  # noqa: F401
)
from tests.kernels.support import (
    DTYPES,
    ThreadsLauncher,
    epsilon,
    host,
    starting_anywhere,
)

SHAPES = [  # steps, batch, input, hidden
    (1, 1, 1, 1), (2, 3, 5, 7), (3, 16, 3, 32), (2, 65, 3, 33), (33, 1, 4, 128), (2, 2, 3, 175),
    (2, 3, 4, 200),
]  # fmt: skip
HALVES = ("float16", "bfloat16")
# A sum that is rounded to the other side of 0 has another slope of relu, so there are few.
CASES = [
    (*layer, shape, dtype)
    for layer, shape, dtype in product(LAYERS, SHAPES, TOLERANCES)
    if layer[1] != ("relu",) or dtype not in HALVES or shape[3] <= 7
]
serves = rnn_sequence.serves
pytestmark = pytest.mark.usefixtures("rounded_products")


@pytest.fixture(autouse=True)
def every_size(monkeypatch: pytest.MonkeyPatch) -> None:
    """However large the weights are."""
    monkeypatch.setattr(rnn_sequence, "serves", lambda *_: True)


@pytest.mark.parametrize("reverse", [False, True])
@pytest.mark.parametrize(("layer", "options", "shape", "dtype"), CASES, ids=str)
def test_values_and_gradients(
    wanted: Any, layer: str, options: Any, shape: Any, dtype: str, reverse: bool
) -> None:
    with kernels.record() as launched:
        compare(wanted, layer, options, shape, dtype, reverse)
    own = [name for name in launched if name.startswith(layer)]
    assert own == [f"{layer}_sequence_forward", f"{layer}_sequence_backward"]


@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("hidden", [5, 40])
@pytest.mark.parametrize("rows", [1, 2, 4])
@pytest.mark.parametrize("layer", ["lstm", "gru"])
def test_rows_of_a_block(
    wanted: Any, monkeypatch: pytest.MonkeyPatch, layer: str, rows: int, hidden: int, dtype: str
) -> None:
    monkeypatch.setattr(rnn_sequence, "ROWS", (rows,))
    compare(wanted, layer, (), (3, 7, 3, hidden), dtype, False)


@pytest.mark.parametrize(("layer", "options"), LAYERS, ids=str)
def test_without_biases(wanted: Any, layer: str, options: Any) -> None:
    compare(wanted, layer, options, (3, 2, 5, 4), "float32", True, bias=False)


@pytest.mark.parametrize(
    ("hidden", "rows"), [(8, 1), (8, 2), (8, 4), (33, 1), (33, 2), (33, 4), (128, 1)]
)
@pytest.mark.parametrize(("layer", "options"), LAYERS, ids=str)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher,
    monkeypatch: pytest.MonkeyPatch,
    layer: str,
    options: Any,
    hidden: int,
    rows: int,
) -> None:
    monkeypatch.setattr(rnn_sequence, "ROWS", (rows,))
    threads.check, threads.seed = True, rows
    compare(threads, layer, options, (3, 5 * rows - 1, 3, hidden), "float32", True)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("layer", ["lstm", "gru", "rnn"])
def test_weights_that_start_anywhere(wanted: Any, layer: str, dtype: str) -> None:
    if isinstance(wanted, ThreadsLauncher):
        wanted.check = True
    x, *states, w_ih, w_hh, b_ih, b_hh = (
        a.astype(dtype) for a in inputs(layer, (2, 2, 3, 8), True)
    )
    options = ("tanh",) if layer == "rnn" else ()
    run, back, _ = FUNCTIONS[layer]
    results = []
    for start in (0, 1):
        moved = starting_anywhere(wanted, [x, *states, w_ih, w_hh, b_ih, b_hh], start)
        out, aux = run(wanted, *moved, *options, False)
        grads = [wanted.xp.ones(o.shape, dtype) for o in out]
        context = Context(moved, out, (*options, False), aux)
        results.append([host(a) for a in (*out, *back(wanted, context, grads))])
    for found, expected in zip(*results):
        np.testing.assert_allclose(
            found.astype("f8"), expected.astype("f8"), TOLERANCES[dtype], TOLERANCES[dtype]
        )


@pytest.mark.parametrize("layer", ["lstm", "gru", "rnn"])
def test_outputs_without_a_gradient(wanted: Any, layer: str) -> None:
    given = [wanted.xp.asarray(a) for a in inputs(layer, (3, 2, 3, 4), True)]
    options = ("relu",) if layer == "rnn" else ()
    run, back, _ = FUNCTIONS[layer]
    out, aux = run(wanted, *given, *options, False)
    context = Context(given, out, (*options, False), aux)
    random = np.random.default_rng(2)
    whole = [random.uniform(-1, 1, o.shape) for o in out]
    for used in range(len(out)):
        some = [wanted.xp.asarray(g) if i == used else None for i, g in enumerate(whole)]
        zeros = [wanted.xp.asarray(g * (i == used)) for i, g in enumerate(whole)]
        for a, b in zip(back(wanted, context, some), back(wanted, context, zeros)):
            np.testing.assert_array_equal(host(a), host(b))


@pytest.mark.parametrize(("dtype", "large"), [("bfloat16", 3e38), ("float32", 1e4)])
def test_large_sums_saturate(wanted: Any, dtype: str, large: float) -> None:
    asarray = wanted.xp.asarray
    gates = asarray(np.array([[[1, 1, -1, 1, -1, -1, 1, -1]]]) * large, dtype=dtype)
    w, h0, c0 = (wanted.xp.full(s, v, dtype) for s, v in [((8, 2), 0.5), ((1, 2), 1), ((1, 2), 3)])
    _, cs, h, c = rnn_sequence.lstm_forward(wanted, gates, h0, c0, w, None, None, False)
    assert host(gates).tolist() == [[[1, 1, 0, 1, -1, -1, 1, 0]]]
    np.testing.assert_allclose(host(h).astype("f8"), [[np.tanh(-1), 0]], epsilon(dtype))
    assert host(c).tolist() == [[-1, 2]] and host(cs).tolist() == [[[3, 3]], [[-1, 2]]]


def test_a_cell_is_not_rounded_between_steps(wanted: Any) -> None:
    """1/512 is lost beside 1 in bfloat16, but not when it comes 512 times."""
    steps, large = 512, 100.0  # gates of exactly 1, and the third one 1/512
    third = np.arctanh(1 / 512)
    gates = wanted.xp.asarray(np.tile([[[large, large, third, large]]], (steps, 1, 1)), "bfloat16")
    w, zero = wanted.xp.zeros((4, 1), "bfloat16"), wanted.xp.zeros((1, 1), "bfloat16")
    one = wanted.xp.ones((1, 1), "bfloat16")
    *_, c = rnn_sequence.lstm_forward(wanted, gates, zero, one, w, None, None, False)
    np.testing.assert_allclose(host(c).astype("f8"), [[2]], 2e-2)


class Shape(kernels.Launcher):
    """A launcher for a GPU with so many multiprocessors, which launches nothing."""

    def __init__(self, processors: int = 132) -> None:
        super().__init__(np, processors)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("gates", [1, 3, 4])
def test_a_launch_fits_a_block(gates: int, dtype: str) -> None:
    K, storage = Shape(), np.dtype(dtype)
    served = 0
    for hidden in range(1, 600):
        for batch in (1, 16, 132, 133, 264, 265, 5000):
            if not serves(K, storage, (9, batch, hidden), gates):
                continue
            served += 1
            for depth, width in ((hidden, gates * hidden), (gates * hidden, hidden)):
                plan = rnn_sequence.plan(K, storage, (batch, hidden), depth, width)
                assert plan.rows * hidden <= plan.threads <= 512 and plan.threads % 32 == 0
                assert plan.shared <= 48 << 10
                assert plan.grid * plan.rows >= batch > (plan.grid - 1) * plan.rows
                assert 1 <= plan.groups <= -(-depth // 4)
    assert served > 500


def test_rows_fill_the_multiprocessors_once() -> None:
    rows = {n: rnn_sequence.plan(Shape(), np.dtype("f4"), (n, 128), 128, 512).rows
            for n in (1, 16, 132, 133, 264, 265, 528, 529, 5000)}  # fmt: skip
    assert [*rows.values()] == [1, 1, 1, 2, 2, 4, 4, 4, 4]
    assert rnn_sequence.plan(Shape(), np.dtype("f4"), (5000, 256), 256, 1024).rows == 2
    assert rnn_sequence.plan(Shape(), np.dtype("f4"), (5000, 512), 512, 512).rows == 1


def test_large_weights_are_multiplied_step_by_step() -> None:
    K = Shape()

    def whole(dtype: str, batch: int, hidden: int, gates: int = 4, steps: int = 9) -> bool:
        return serves(K, np.dtype(dtype), (steps, batch, hidden), gates)

    assert whole("f4", 16, 202) and not whole("f4", 16, 203)
    assert whole("f2", 16, 202) and not whole("f2", 16, 203)
    assert whole("f8", 16, 143) and not whole("f8", 16, 144)
    assert whole("f4", 16, 404, 1) and not whole("f4", 16, 405, 1)
    assert whole("f4", 1056, 128) and not whole("f4", 1057, 128)
    assert whole("f2", 528, 128) and not whole("f2", 529, 128)
    assert not whole("f4", 16, 513, 1) and not whole("f4", 1, 1, steps=1 << 31)
    K.serial = True
    assert not whole("f4", 16, 8)


@pytest.mark.parametrize(
    ("make", "layer", "directions"),
    [
        (lambda: gradlite.nn.LSTM(3, 4, num_layers=2, bidirectional=True), "lstm", 4),
        (lambda: gradlite.nn.GRU(3, 4), "gru", 1),
        (lambda: gradlite.nn.RNN(3, 4, nonlinearity="relu"), "rnn", 1),
    ],
)
def test_layers_use_them(
    monkeypatch: pytest.MonkeyPatch, make: Any, layer: str, directions: int
) -> None:
    stand_in.install(monkeypatch)
    values = np.random.default_rng(0).standard_normal((5, 2, 3)).astype("f4")
    results = []
    for device in ("cpu", "cuda"):
        gradlite.manual_seed(1)
        module = make().to(device)
        x = gradlite.tensor(values, device=device, requires_grad=True)
        with kernels.record() as launched:
            out, _ = module(x)
            (out * out).sum().backward()
        tensors = [out, x.grad, *[p.grad for p in module.parameters()]]
        results.append([t.detach().cpu().numpy() for t in tensors])
    for a, b in zip(*results):
        np.testing.assert_allclose(b, a, 1e-4, 1e-5)
    for way in ("forward", "backward"):
        assert launched.count(f"{layer}_sequence_{way}") == directions
        assert not launched.count(f"{layer}_{way}")


def test_what_one_way_leaves_the_other_can_read(
    launcher: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Forward in one launch and backward step by step, and the other way round."""
    for layer, options in LAYERS:
        given = [launcher.xp.asarray(a) for a in inputs(layer, (4, 3, 2, 5), True)]
        run, back, _ = FUNCTIONS[layer]
        results = []
        for first, second in ((True, False), (False, True), (True, True)):
            monkeypatch.setattr(rnn_sequence, "serves", lambda *_, way=first: way)
            out, aux = run(launcher, *given, *options, True)
            monkeypatch.setattr(rnn_sequence, "serves", lambda *_, way=second: way)
            grads = [launcher.xp.ones(o.shape) for o in out]
            gradients = back(launcher, Context(given, out, (*options, True), aux), grads)
            results.append([host(a) for a in (*out, *gradients)])
        for found in results[:2]:
            for a, b in zip(found, results[2]):
                np.testing.assert_allclose(a, b, 1e-12, 1e-12)
