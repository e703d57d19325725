"""Compiled replays: every op against array calls, and what happens without a compiler."""

from __future__ import annotations

import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.backends import libraries, native
from gradlite.capturing.native.build import NativePlan, available
from gradlite.nn import functional as F
from gradlite.ops import samples
from gradlite.ops.table import TABLE
from gradlite.tensor import Tensor
from tests.test_stand_in import NO_HALVES, convert, tensors

needs_compiler = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
DTYPES = {"float32": (2e-5, 5e-5), "float64": (1e-11, 1e-12), "bfloat16": (1e-2, 1e-2)}
# Samples of each op: all of the dtype that shows most, since no digit of a number may get lost.
SAMPLES = {"float32": 2, "bfloat16": 1}
# Ops whose results are no function of their inputs, and ops on the host.
OTHERS = {"empty_like", "multinomial"}
# Ops with samples that read floating numbers on the host, which no recorded step may do.
REFUSED = {"histc", "histogram", "polygamma"}
# Captured steps of some 30 ops, so that the compiler is called a few dozen times. Neighbours in the
# table are in different ones: some families have thousands of calls each.
STEPS = 14


def prepared(name: str, dtype: Any) -> list[tuple[Any, Any]]:
    """Arguments for each sample of an op, floating tensors in a dtype and requiring grad."""
    samples.fresh()
    found = []
    for sample in TABLE[name].samples():
        args, kwargs = convert((sample.args, sample.kwargs), "cpu")
        args, kwargs = cast(args, dtype), cast(kwargs, dtype)
        found.append((args, kwargs))
    return found


def cast(value: Any, dtype: Any) -> Any:
    if isinstance(value, Tensor):
        if value.is_floating_point():
            return value.detach().to(dtype).requires_grad_(value.requires_grad)
        return value
    if isinstance(value, (list, tuple)):
        return type(value)(cast(v, dtype) for v in value)
    if isinstance(value, dict):
        return {k: cast(v, dtype) for k, v in value.items()}
    return value


def results_of(name: str, args: Any, kwargs: Any) -> list[Any]:
    """Outputs and gradients of one call, as a captured step computes them."""
    outs = tensors(TABLE[name].function(*args, **kwargs))
    leaves = [t for t in tensors((args, kwargs)) if t.requires_grad]
    kept = [o for o in outs if o.requires_grad]
    if not kept or not leaves or not TABLE[name].differentiable:
        return outs
    total = sum((o * o).sum() for o in kept)
    grads = gradlite.autograd.grad(total, leaves, allow_unused=True)
    return [*outs, *(g for g in grads if g is not None)]


def exists(name: str, args: Any, kwargs: Any) -> bool:
    """Whether there is such an op for that dtype: some are not there in half precision."""
    try:
        results_of(name, args, kwargs)
    except (RuntimeError, NotImplementedError) as error:
        assert NO_HALVES.search(str(error))
        return False
    return True


def recordable(name: str, args: Any, kwargs: Any) -> bool:
    """Whether a step may do this at all: nothing is read on the host."""
    captured = gradlite.capture(lambda: results_of(name, args, kwargs), warmup=0, native=False)
    try:
        for _ in range(3):
            captured()
    except gradlite.CaptureError:
        assert name in REFUSED, f"{name} cannot be recorded"
        return False
    return True


@pytest.mark.parametrize("name", sorted(REFUSED))
def test_the_ops_that_read_on_the_host_do_so(name: str) -> None:
    calls = prepared(name, gradlite.float32)
    assert not all(recordable(name, *call) for call in calls)


@needs_compiler
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("start", range(STEPS))
def test_every_op_gives_the_same_from_array_calls_and_compiled_code(
    start: int, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Thousands of loops: what the optimiser makes of a loop is the business of the other tests.
    monkeypatch.setattr(libraries, "OPTIONS", (*libraries.OPTIONS, "-O0"))
    names = [n for n in sorted(TABLE)[start::STEPS] if n not in OTHERS]
    calls = [
        (name, args, kwargs)
        for name in names
        for args, kwargs in prepared(name, getattr(gradlite, dtype))[: SAMPLES.get(dtype)]
        if exists(name, args, kwargs)
        # Any other op that cannot be recorded is an error of the step below.
        and (name not in REFUSED or recordable(name, args, kwargs))
    ]

    def step() -> list[Any]:
        gradlite.manual_seed(3)
        return [results_of(*call) for call in calls]

    captured = gradlite.capture(step, state=[calls], warmup=0, native=True)
    plain = gradlite.capture(step, state=[calls], warmup=0, native=False)
    for _ in range(3):
        actual, expected = captured(), plain()
    assert captured.replays == plain.replays == 1
    results = zip(calls, actual, expected, step(), strict=True)
    for (name, *_), ours, theirs, uncaptured in results:
        for a, b, c in zip(ours, theirs, uncaptured, strict=True):
            assert a.dtype == b.dtype and a.shape == b.shape, name
            rtol, atol = DTYPES.get(a.dtype.name, DTYPES["float32"])
            x, y, z = (t.detach().double().numpy() for t in (a, b, c))
            # Array calls give the very bits of the step as it is.
            np.testing.assert_array_equal(y, z, err_msg=name)
            finite = (
                np.abs(y[np.isfinite(y)]).max(initial=0.0) if a.dtype.is_floating_point else 0.0
            )
            np.testing.assert_allclose(x, y, rtol, atol * max(1.0, finite), err_msg=name)


# What is large enough for compiled code of the ops' own, without capture too.
LARGE: dict[str, tuple[Any, list[tuple[int, ...]]]] = {
    "depthwise": (
        lambda x, w, b: F.conv2d(x, w, b, padding=1, groups=16),
        [(8, 16, 16, 16), (16, 1, 3, 3), (16,)],
    ),
    "cross_entropy": (lambda x: F.cross_entropy(x, gradlite.arange(512) % 300), [(512, 300)]),
    "binary": (
        lambda x: F.binary_cross_entropy_with_logits(x, (x > 0).to(x.dtype)), [(64, 300)],
    ),
    "triplet": (F.triplet_margin_loss, [(64, 30)] * 3),
    "attention": (F.scaled_dot_product_attention, [(2, 8, 64, 32)] * 3),
    "with a mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, gradlite.arange(64) % 3 > 0),
        [(2, 8, 64, 32)] * 3,
    ),
    "with a small mask": (
        lambda q, k, v: F.scaled_dot_product_attention(q, k, v, gradlite.eye(8) > 0),
        [(1, 2, 8, 8)] * 3,
    ),
    "norms": (lambda x: F.gelu(F.layer_norm(x, (256,))) + x.softmax(-1), [(64, 256)]),
}  # fmt: skip


@needs_compiler
@pytest.mark.parametrize("name", LARGE)
def test_array_calls_give_the_bits_of_large_ops(name: str) -> None:
    function, shapes = LARGE[name]
    gradlite.manual_seed(0)
    given = [gradlite.randn(*shape, requires_grad=True) for shape in shapes]

    def step() -> list[Any]:
        out = function(*given)  # squared: NumPy makes a scalar of such a gradient of a loss
        return [out, *gradlite.autograd.grad((out * out).sum(), given)]

    expected = step()  # which compiles what it needs: a step that does is recorded a call later
    captured = gradlite.capture(step, warmup=0, native=False)
    for _ in range(4):
        results = captured()
    assert captured.replays == 2
    for ours, theirs in zip(results, expected, strict=True):
        np.testing.assert_array_equal(ours.detach().array, theirs.detach().array)


@needs_compiler
def test_most_calls_are_compiled() -> None:
    """What users train with leaves nothing to array calls."""
    gradlite.manual_seed(0)
    model = nn.Sequential(
        nn.Embedding(11, 8), nn.Linear(8, 16), nn.GELU(), nn.LayerNorm(16), nn.Linear(16, 11)
    )
    optimizer = optim.AdamW(model.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = F.cross_entropy(model(x).flatten(0, 1), x.flatten())
        loss.backward()
        optimizer.step()
        return loss

    captured = gradlite.capture(step, native=True)
    x = gradlite.arange(22).reshape(2, 11) % 11
    losses = [captured(x).item() for _ in range(30)]
    assert losses[-1] < losses[0]
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    assert isinstance(plan, NativePlan) and not plan.reason
    listing = captured.explain()
    assert "calls are compiled" in listing
    assert "* " not in listing and ", 0 of them of Python code" in listing
    assert listing.splitlines()[-1].endswith("compiled: ElementwiseOptimizer.step")


@needs_compiler
def test_the_listing_tells_compiled_updates_from_those_in_python() -> None:
    p = gradlite.ones(3, requires_grad=True)
    for optimizer in (optim.Adagrad([p], lr=0.1), optim.AdamW([p], lr=0.1)):

        @gradlite.capture
        def step(x: Any, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad()
            loss = (p * x).sum()
            loss.backward()
            optimizer.step()
            return loss

        for _ in range(4):
            step(gradlite.ones(3))
        starred = re.findall(r"^ +\d+\* (.*)", step.explain(), re.MULTILINE)
        in_python = isinstance(optimizer, optim.Adagrad)
        assert starred == ["Python: ElementwiseOptimizer.step"] * in_python
        assert f"{len(starred)} of them of Python code" in step.explain()


@needs_compiler
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, 0.0, -0.0, 1e-40, 3e38, -200.0, 88.5])
def test_extreme_values(value: float) -> None:
    functions = "exp log tanh sigmoid relu sqrt reciprocal abs sign floor square softplus".split()

    def step(x: Any) -> list[Any]:
        results = [getattr(x, f)() if hasattr(x, f) else getattr(F, f)(x) for f in functions]
        return [*results, x.max(), x.min(), x.sum(), x.argmax(), x.softmax(0), x.clamp(-1, 1)]

    captured = gradlite.capture(step, native=True)
    plain = gradlite.capture(step, native=False)
    x = gradlite.linspace(-3, 3, 37)
    for _ in range(4):
        x[5] = value
        for ours, theirs in zip(captured(x), plain(x), strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-6, atol=1e-7)
    assert "not compiled" not in captured.explain()


@needs_compiler
@pytest.mark.parametrize("dtype", [gradlite.float32, gradlite.float64])
@pytest.mark.parametrize("columns", [5, 16, 65])
def test_places_of_extremes(columns: int, dtype: Any) -> None:
    """The first of equal ones, and the first NaN of any."""
    x = np.random.default_rng(columns).integers(-3, 4, (40, columns)).astype(np.float64)
    x[1] = -np.inf
    x[2, 3:] = np.inf
    x[3, 4] = x[4, 0] = x[4, -1] = x[5, -1] = np.nan
    x[6] = np.nan
    x[7] = -0.0
    x[7, -1] = 0.0
    given = gradlite.tensor(x, dtype=dtype)

    def step(x: Any) -> list[Any]:
        return [x.argmax(1), x.argmin(1), x.argmax(0), x.T.argmax(1), (x > 0).any(1), x.softmax(1)]

    captured = gradlite.capture(step, native=True)
    for _ in range(4):
        actual = captured(given)
    assert captured.replays > 0 and "not compiled" not in captured.explain()
    for ours, theirs in zip(actual, step(given), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5)


@needs_compiler
def test_what_one_loop_alone_reads_is_not_stored() -> None:
    def step(x: Any) -> Any:
        return (x * 3 + 1).exp() - x

    captured = gradlite.capture(step, native=True)
    x = gradlite.linspace(-1, 1, 40)
    for _ in range(4):
        y = captured(x)
    np.testing.assert_allclose(y.numpy(), step(x).numpy(), rtol=1e-6)
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    assert len(re.findall(r" = v[0-9]+;", plan.source)) == 1


@needs_compiler
def test_what_a_later_part_of_the_same_call_reads_is_stored() -> None:
    def step(x: Any) -> Any:
        y = x * 3
        return gradlite.cat([y, y[:2]]) + 1

    captured = gradlite.capture(step, native=True)
    x = gradlite.arange(12.0).reshape(3, 4)
    for _ in range(4):
        y = captured(x)
        x += 1
    np.testing.assert_array_equal(y.numpy(), step(x - 1).numpy())


@pytest.fixture(params=["its own", "narrower"])
def vectors(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Vectors as this processor has them, and as one without AVX-512 has them."""
    if request.param == "narrower":
        if platform.machine() not in ("x86_64", "AMD64"):
            pytest.skip("the options are those of x86-64")
        monkeypatch.setattr(libraries, "OPTIONS", (*libraries.OPTIONS, "-mno-avx512f"))


@needs_compiler
@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("rows", [1, 2, 7, 16, 33])
def test_products_of_all_sizes(rows: int) -> None:
    rng = np.random.default_rng(rows)

    def array(*shape: int) -> Any:
        return gradlite.tensor(rng.standard_normal(shape).astype(np.float32))

    a, v, w, stack = array(rows, 19), array(19), array(rows), array(3, rows, 19)
    others = [(array(19, n), array(n, 19)) for n in (1, 2, 5, 16, 31, 64, 65, 100)]

    def step() -> list[Any]:
        results = [a.T @ a, a @ v, w @ a, v @ v, stack @ stack.mT, a.T[1:] @ a[:, ::2]]
        for b, c in others:
            results += [a @ b, a @ c.T, b.T @ a.T, v @ b, stack @ b, b.T @ stack.mT]
        return results

    captured = gradlite.capture(step, warmup=0, native=True)
    for _ in range(3):
        actual = captured()
    assert captured.replays == 1
    for ours, theirs in zip(actual, step(), strict=True):
        np.testing.assert_allclose(ours.numpy(), theirs.numpy(), rtol=1e-5, atol=1e-5)


@needs_compiler
@pytest.mark.usefixtures("vectors")
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("padding", [0, 1, 2])
@pytest.mark.parametrize("dtype", [gradlite.float32, gradlite.float64])
def test_convolutions(stride: int, padding: int, dtype: Any) -> None:
    rng = np.random.default_rng(stride * 7 + padding)
    cases = [
        (2, 3, 9, 11, 5, 3, 3, 1), (1, 1, 7, 7, 9, 5, 2, 1), (3, 5, 8, 6, 2, 1, 1, 1),
        (2, 2, 12, 10, 3, 3, 2, 2), (2, 17, 5, 5, 13, 3, 3, 1),
    ]  # fmt: skip
    arguments = []
    for n, c, h, w, o, kh, kw, dilation in cases:
        shapes = (n, c, h, w), (o, c, kh, kw), (o,)
        tensors = [gradlite.tensor(rng.standard_normal(s), dtype=dtype) for s in shapes]
        arguments.append(([t.requires_grad_() for t in tensors], dilation))

    def step() -> list[Any]:
        results = []
        for leaves, dilation in arguments:
            y = F.conv2d(*leaves, stride=stride, padding=padding, dilation=dilation)
            results += [y, *gradlite.autograd.grad((y * y).sum(), leaves)]
        return results

    captured = gradlite.capture(step, warmup=0, native=True)
    for _ in range(3):
        actual = captured()
    assert captured.replays == 1
    rtol = 1e-5 if dtype is gradlite.float32 else 1e-12
    for ours, theirs in zip(actual, step(), strict=True):
        x, y = ours.detach().numpy(), theirs.detach().numpy()
        np.testing.assert_allclose(x, y, rtol, rtol * float(np.abs(y).max()))


@needs_compiler
@pytest.mark.parametrize("make", [
    lambda p: optim.SGD(p, 0.1),
    lambda p: optim.SGD(p, 0.1, momentum=0.9, dampening=0.3, weight_decay=0.01),
    lambda p: optim.SGD(p, 0.1, momentum=0.9, nesterov=True, maximize=True),
    lambda p: optim.Adam(p, 0.01, weight_decay=0.1, maximize=True),
    lambda p: optim.AdamW(p, 0.01, betas=(0.8, 0.95), eps=1e-3),
    lambda p: optim.Adam(p, 0.01, amsgrad=True),
])  # fmt: skip
@pytest.mark.parametrize("dtype", [gradlite.float32, gradlite.float64])
def test_optimizers_go_on_from_and_to_python(make: Any, dtype: Any) -> None:
    """Steps with and without capture take turns on the same state."""

    def model() -> Any:
        gradlite.manual_seed(5)
        return nn.Linear(5, 3).to(dtype)

    a, b = model(), model()
    x = gradlite.randn(7, 5, dtype=dtype)
    first, second = make(a.parameters()), make(b.parameters())

    def stepper(net: Any, optimizer: Any) -> Any:
        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = net(x).square().mean()
            loss.backward()
            optimizer.step()
            return loss

        return step

    eager, plain = stepper(a, first), stepper(b, second)
    captured = gradlite.capture(plain, native=True)
    for i in range(16):
        eager(x)
        (plain if i in (9, 13) else captured)(x)
        if i == 11:
            first.param_groups[0]["lr"] = second.param_groups[0]["lr"] = 0.003
        for p, q in zip(a.parameters(), b.parameters()):
            np.testing.assert_allclose(p.detach(), q.detach(), rtol=2e-5, atol=2e-6)
    assert captured.replays > 8
    for p, q in zip(a.parameters(), b.parameters()):
        ours, theirs = second.state.get(q, {}), first.state.get(p, {})
        assert ours.keys() == theirs.keys()
        for key in theirs:
            np.testing.assert_allclose(ours[key], theirs[key], rtol=1e-4, atol=1e-5)


@needs_compiler
@pytest.mark.parametrize("kind", [optim.SGD, optim.Adam])
def test_options_that_are_tensors_count_as_they_are_at_the_step(kind: Any) -> None:
    """Edited between steps, edited by the step itself, and put in the place of a number."""

    def train(native: bool | None) -> list[Any]:
        w, rate = nn.Parameter(gradlite.ones(4)), gradlite.tensor(0.5)
        optimizer = kind([w], lr=rate)

        def step(x: Any) -> Any:
            optimizer.zero_grad()
            loss = (w * x).square().sum()
            loss.backward()
            rate.mul_(0.9)
            optimizer.step()
            return loss

        run = step if native is None else gradlite.capture(step, native=native)
        weights = []
        for i in range(14):
            if i == 7:
                rate.fill_(0.25)
            if i == 10:
                optimizer.param_groups[0]["lr"] = 0.125
            if i == 12:
                optimizer.param_groups[0]["lr"] = rate
            run(gradlite.tensor([0.25, 0.5, 0.75, 0.125]))
            weights.append(w.detach().numpy().copy())
        assert native is None or run.replays >= 10
        return weights

    for compiled in (True, False):
        for ours, theirs in zip(train(compiled), train(None), strict=True):
            np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=2e-6)


@needs_compiler
def test_an_optimizer_behind_a_failed_look_up_does_nothing() -> None:
    table = nn.Parameter(gradlite.ones(5, 3))
    optimizer = optim.SGD([table], lr=0.1, momentum=0.9)

    def step(index: Any) -> Any:
        optimizer.zero_grad()
        loss = F.embedding(index, table).square().sum()
        loss.backward()
        optimizer.step()
        return loss

    captured = gradlite.capture(step, native=True)
    for _ in range(5):
        captured(gradlite.tensor([1, 2, 4]))
    before, version = table.detach().numpy().copy(), table._version
    with pytest.raises(IndexError):
        captured(gradlite.tensor([1, 2, 5]))
    np.testing.assert_array_equal(table.detach().numpy(), before)
    assert table._version == version
    captured(gradlite.tensor([1, 2, 4]))
    assert not np.array_equal(table.detach().numpy(), before)


# ------------------------------------------------------------------- without a compiler
def doubled(**options: Any) -> Any:
    captured = gradlite.capture(lambda x: x * 2 + 1, **options)
    for i in range(5):
        assert captured(gradlite.full((3,), float(i))).tolist() == [2.0 * i + 1] * 3
    return captured


def test_no_compiler_means_array_calls(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "compiler", lambda: None)
    assert not available()
    assert "compiled" not in doubled().explain()
    assert "not compiled: no C++ compiler" in doubled(native=True).explain()


def test_a_variable_switches_compiled_code_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLITE_NATIVE", "0")
    assert "compiled" not in doubled().explain()


def test_a_compiler_that_fails_means_array_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\necho no such option >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(native, "compiler", lambda: str(broken))
    monkeypatch.setenv("GRADLITE_CACHE", str(tmp_path / "cache"))
    assert "not compiled: captured does not compile" in doubled(native=True).explain()


@needs_compiler
def test_a_cache_that_cannot_be_written_means_array_calls(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("in the way")
    monkeypatch.setenv("GRADLITE_CACHE", str(blocked))
    assert "not compiled: " in doubled(native=True).explain()


@needs_compiler
def test_two_processes_compile_at_once(tmp_path: Path) -> None:
    code = (
        "import gradlite as g\n"
        "f = g.capture(lambda x: (x.exp() * 3).sum(), native=True)\n"
        "print([f(g.ones(4)).item() for _ in range(4)], 'not compiled' in f.explain())"
    )
    environment = {"GRADLITE_CACHE": str(tmp_path / "cache"), "PATH": "/usr/bin:/bin"}
    running = [
        subprocess.Popen(
            [sys.executable, "-c", code], stdout=subprocess.PIPE, text=True, env=environment
        )
        for _ in range(2)
    ]
    printed = {process.communicate(timeout=240)[0] for process in running}
    assert len(printed) == 1 and "False" in printed.pop()


@needs_compiler
@pytest.mark.parametrize("dtype", [gradlite.float32, gradlite.float64])
def test_pooling(dtype: Any) -> None:
    rng = np.random.default_rng(4)
    x = gradlite.tensor(rng.integers(0, 5, (2, 3, 9, 10)), dtype=dtype).requires_grad_()
    options = [(2, None, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), ((1, 4), (2, 3), 0, 1)]

    def step() -> list[Any]:
        results = []
        for kernel, stride, padding, dilation in options:
            y = F.max_pool2d(x, kernel, stride, padding, dilation)
            results += [y, *gradlite.autograd.grad((y * y).sum(), x)]
        return results

    captured = gradlite.capture(step, warmup=0, native=True)
    for _ in range(3):
        captured()
    for value in (1.0, float("inf"), float("-inf"), float("nan")):
        with gradlite.no_grad():
            x[0, 1, 3:5, 2] = value
        for ours, theirs in zip(captured(), step(), strict=True):
            np.testing.assert_array_equal(ours.detach().numpy(), theirs.detach().numpy())
    assert captured.replays >= 3  # a NaN is a branch of its own for the step as it is
