"""Ops on the CPU run with kernels from the sizes on that they say, and by their rules below."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import gradlite
from benchmarks.native_cases import CASES, Case
from gradlite import nn, optim
from gradlite.backends import kernels, launches, native
from gradlite.nn import functional as F
from gradlite.ops import natively
from gradlite.ops.namespaces import OPS

DECLARING = [
    name
    for name, op in OPS.items()
    if op.native_from is not None or op.native_backward_from is not None
]
OPS_AND_DTYPES = [(n, np.dtype(c).name) for n in DECLARING for c in OPS[n].native_dtypes]
# Ops whose halves go by their rules at any size.
HALVES_BY_RULES = {
    "binary_cross_entropy_with_logits", "cross_entropy_loss", "gaussian_nll_loss",
    "hinge_embedding_loss", "huber_loss", "margin_ranking_loss", "multilabel_soft_margin_loss",
    "nll_loss", "normalize", "pointwise_l1", "pointwise_mse", "poisson_nll_loss", "smooth_l1_loss",
    "soft_margin_loss",
}  # fmt: skip
TOLERANCE = {"float32": 2e-6, "float64": 1e-14}
needs_kernels = pytest.mark.skipif(native.on_demand() is None, reason="kernels cannot be compiled")


class NoKernels(native.OnDemand):
    """A launcher for which no kernel compiles."""

    def _load(self, declared: Any, dtype: Any) -> Any:
        self.tries = [*getattr(self, "tries", []), declared.name]
        raise RuntimeError("does not compile")


@contextmanager
def rules_alone() -> Iterator[NoKernels]:
    """The same ops run, by their rules."""
    found, launcher = natively.LAUNCHERS[np], NoKernels(native.on_demand().probe)  # type: ignore[union-attr]
    natively.LAUNCHERS[np] = lambda: launcher
    try:
        yield launcher
    finally:
        natively.LAUNCHERS[np] = found


def size_of(name: str) -> int:
    """A size from which on all of an op runs with kernels, and its rows are odd."""
    op = OPS[name]
    return max(op.native_from or 0, op.native_backward_from or 0) * 9 // 8


def operands(case: Case, name: str, dtype: str, change: Callable[[Any], Any]) -> list[Any]:
    made = []
    for t in case.arguments(gradlite, size_of(name), getattr(gradlite, dtype)):
        grad, t = t.requires_grad, t.detach()
        if not made:
            t = change(t)
        made.append(t.requires_grad_(grad))
    return made


def run(case: Case, inputs: list[Any], values: Any = None) -> list[Any]:
    """The result of a call, and the gradients of its inputs for a gradient of many values.

    ``values``: a dtype that can hold that gradient.
    """
    leaves = [t for t in inputs if t.requires_grad]
    y = case.call(gradlite, *inputs)
    grad = gradlite.linspace(-1, 2, y.numel(), dtype=values or y.dtype).reshape(y.shape).to(y.dtype)
    return [t.detach().array for t in (y, *gradlite.autograd.grad(y, leaves, grad))]


def in_float64(inputs: list[Any]) -> list[Any]:
    wide = [t.detach().double() if t.is_floating_point() else t for t in inputs]
    return [w.requires_grad_(t.requires_grad) for w, t in zip(wide, inputs)]


def assert_close(actual: list[Any], expected: list[Any], dtype: str) -> None:
    """Errors relative to the largest value, since sums of many terms are among the results."""
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == dtype and a.shape == e.shape
        np.testing.assert_array_equal(np.isnan(a), np.isnan(e))
        finite = np.isfinite(e)
        np.testing.assert_array_equal(a[~finite], e[~finite].astype(dtype))
        bound = TOLERANCE[dtype] * max(1.0, float(np.abs(e[finite]).max(initial=0.0)))
        np.testing.assert_allclose(a[finite], e[finite], rtol=50 * TOLERANCE[dtype], atol=bound)


def as_it_is(x: Any) -> Any:
    return x


def transposed(x: Any) -> Any:
    """The same values in another order of memory."""
    return x.transpose(0, -1).contiguous().transpose(0, -1) if x.dim() > 1 else x


def scaled(x: Any) -> Any:
    return x * 30


def test_every_op_that_runs_natively_is_tested_here() -> None:
    assert DECLARING and set(DECLARING) <= set(CASES)


@needs_kernels
@pytest.mark.parametrize("change", [as_it_is, transposed, scaled])
@pytest.mark.parametrize(("name", "dtype"), OPS_AND_DTYPES)
def test_kernels_give_what_the_rule_gives(name: str, dtype: str, change: Any) -> None:
    case = CASES[name]
    inputs = operands(case, name, dtype, change)
    with launches.record() as names:
        actual = run(case, inputs)
    assert names
    with rules_alone(), launches.record() as none:
        expected = run(case, in_float64(inputs))
    assert not none
    assert_close(actual, expected, dtype)


@needs_kernels
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", DECLARING)
def test_halves_are_right_at_sizes_of_kernels(
    name: str, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What they get is in single precision, and what they hand on is rounded."""
    monkeypatch.setattr(kernels, "check_all", True)  # a wrong dtype would be memory overrun
    case = CASES[name]
    inputs, dtype = operands(case, name, half, as_it_is), getattr(gradlite, half)
    with launches.record() as names:
        actual = run(case, inputs)
    assert bool(names) is (name not in HALVES_BY_RULES)
    with rules_alone():
        expected = run(case, in_float64(inputs), dtype)
    within = 2**-7 if half == "bfloat16" else 2**-10
    for a, e in zip(actual, expected, strict=True):
        assert a.dtype == dtype.numpy and a.shape == e.shape
        finite = np.isfinite(a)  # what is too large for half precision
        bound = within * max(1.0, float(np.abs(e[finite]).max()))
        np.testing.assert_allclose(a[finite].astype(float), e[finite], rtol=within, atol=bound)
        with np.errstate(over="ignore"):
            np.testing.assert_array_equal(a[~finite], e[~finite].astype(a.dtype))


@needs_kernels
@pytest.mark.parametrize("name", DECLARING)
def test_what_is_not_finite_comes_out_as_from_the_rule(name: str) -> None:
    case = CASES[name]

    def spoiled(x: Any) -> Any:
        for place, value in enumerate((np.nan, np.inf, -np.inf)):
            x.view(-1)[place * (x.numel() // 4) + 1] = value
        return x

    inputs = operands(case, name, "float32", spoiled)
    with rules_alone():
        expected = run(case, inputs)
    for a, e in zip(run(case, inputs), expected):
        np.testing.assert_array_equal(np.isfinite(a), np.isfinite(e))


@needs_kernels
def test_a_kernel_that_is_slightly_wrong_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    real = native.OnDemand._launch

    def launch(self: Any, name: str, dtype: Any, grid: Any, block: Any, a: Any, shared: int) -> Any:
        real(self, name, dtype, grid, block, a, shared)
        if name == "leaky_relu_backward":
            a[2][...] *= dtype.type(1 + 5e-4)

    monkeypatch.setattr(native.OnDemand, "_launch", launch)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_kernels_give_what_the_rule_gives("leaky_relu", "float32", as_it_is)


@pytest.mark.parametrize("name", DECLARING)
def test_below_the_size_nobody_asks_for_kernels(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    op = OPS[name]
    least = min(n for n in (op.native_from, op.native_backward_from) if n is not None)

    def asked() -> Any:
        raise AssertionError("kernels were asked for")

    case = CASES[name]
    x, *more = case.arguments(gradlite, least // 4, gradlite.float32)
    monkeypatch.setitem(natively.LAUNCHERS, np, asked)
    if x.numel() >= least:  # images, of which there is no smaller one
        x = x.detach()[..., :2, :2].requires_grad_()
    run(case, [x, *more])


@needs_kernels
@pytest.mark.parametrize("dtype", [gradlite.float16, gradlite.bfloat16])
def test_halves_run_in_float32_and_are_rounded_once(dtype: Any) -> None:
    single = gradlite.randn(size_of("leaky_relu")).to(dtype).float().requires_grad_()
    half = single.detach().to(dtype).requires_grad_()
    expected = F.leaky_relu(single)
    with launches.record() as names:
        found = F.leaky_relu(half)
        found.sum().backward()
    expected.sum().backward()
    assert names == ["leaky_relu_forward", "leaky_relu_backward"]
    assert gradlite.equal(found, expected.to(dtype))
    assert gradlite.equal(half.grad, single.grad.to(dtype))


@needs_kernels
@pytest.mark.parametrize("name", ["leaky_relu", "native_layer_norm", "native_batch_norm"])
def test_a_gradient_that_is_differentiated_is_the_rule(name: str) -> None:
    case = CASES[name]
    x, *more = case.arguments(gradlite, size_of(name), gradlite.float64)
    y = case.call(gradlite, x, *more)
    with launches.record() as names:
        (g,) = gradlite.autograd.grad(y.square().mean(), x, create_graph=True)
    assert not [n for n in names if "backward" in n]
    with rules_alone():
        z = case.call(gradlite, x, *more)
        (e,) = gradlite.autograd.grad(z.square().mean(), x, create_graph=True)
        (second,) = gradlite.autograd.grad(e.square().sum(), x)
    np.testing.assert_allclose(g.detach().numpy(), e.detach().numpy(), atol=1e-14)
    (actual,) = gradlite.autograd.grad(g.square().sum(), x)
    np.testing.assert_allclose(actual.numpy(), second.numpy(), atol=1e-14)


@needs_kernels
def test_a_kernel_that_does_not_compile_is_the_rule(monkeypatch: pytest.MonkeyPatch) -> None:
    case = CASES["hardtanh"]
    inputs = operands(case, "hardtanh", "float32", as_it_is)
    with rules_alone() as launcher:
        actual = [run(case, inputs) for _ in range(2)]
    monkeypatch.delitem(natively.LAUNCHERS, np)
    expected = run(case, inputs)
    for made in actual:
        for a, e in zip(made, expected):
            np.testing.assert_array_equal(a, e)
    assert launcher.tries == ["hardtanh_forward", "hardtanh_backward"]  # once each


@needs_kernels
def test_running_statistics_are_updated_once_where_a_later_kernel_does_not_compile(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Some(native.OnDemand):
        def _load(self, declared: Any, dtype: Any) -> Any:
            if declared.name == "batch_norm_forward":
                raise RuntimeError("does not compile")
            return super()._load(declared, dtype)

    launcher = Some(native.on_demand().probe)  # type: ignore[union-attr]
    x = gradlite.randn(8, 4, 16, 16)
    kept = []
    for found in (lambda: launcher, lambda: None):
        monkeypatch.setitem(natively.LAUNCHERS, np, found)
        layer = gradlite.nn.BatchNorm2d(4)
        y = layer(x)
        kept.append([t.detach().numpy() for t in (layer.running_mean, layer.running_var, y)])
    for a, b in zip(*kept):
        np.testing.assert_array_equal(a, b)


PROGRAM = """
import gradlite, sys
from gradlite.backends import launches
with launches.record() as names:
    x = gradlite.randn(300, 300, requires_grad=True)
    gradlite.nn.functional.layer_norm(x, (300,)).sum().backward()
print(len(names), sys.modules["gradlite.backends.native"].compiler.cache_info().misses)
"""


@pytest.mark.parametrize("small", [False, True])
def test_a_process_without_kernels(small: bool) -> None:
    """With the switch off none is launched, and a small program does not look for a compiler."""
    program = PROGRAM.replace("300", "12") if small else PROGRAM
    environment = dict(os.environ) if small else {**os.environ, "GRADLITE_NATIVE": "0"}
    result = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, text=True, env=environment, check=True
    )
    assert result.stdout.split() == ["0", "0"]


def gpt() -> Any:
    """A model whose arrays are large enough for kernels in most ops."""

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.norms = nn.ModuleList([nn.LayerNorm(32) for _ in range(2)])
            self.qkv, self.out = nn.Linear(32, 96), nn.Linear(32, 32)
            self.mlp = nn.Sequential(nn.Linear(32, 128), nn.GELU(), nn.Linear(128, 32))

        def forward(self, x: Any) -> Any:
            q, k, v = (
                part.view(8, 32, 2, 16).transpose(1, 2)
                for part in self.qkv(self.norms[0](x)).split(32, dim=2)
            )
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            x = x + self.out(y.transpose(1, 2).reshape(8, 32, 32))
            return x + F.dropout(self.mlp(self.norms[1](x)), 0.1)

    return nn.Sequential(nn.Embedding(50, 32), Block(), nn.LayerNorm(32), nn.Linear(32, 50))


def recurrent() -> Any:
    class Recurrent(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.table, self.lstm = nn.Embedding(50, 32), nn.LSTM(32, 64, batch_first=True)
            self.out = nn.Linear(64, 50)

        def forward(self, tokens: Any) -> Any:
            return self.out(self.lstm(self.table(tokens))[0])

    return Recurrent()


@needs_kernels
@pytest.mark.parametrize(
    ("make", "kernel"), [(gpt, "layer_norm_backward"), (recurrent, "lstm_backward")]
)
def test_recorded_array_calls_are_the_very_launches(make: Any, kernel: str) -> None:
    def trainer() -> tuple[Any, Any]:
        gradlite.manual_seed(3)
        model = make()
        optimizer = optim.AdamW(model.parameters(), lr=1e-2)

        def step(tokens: Any) -> Any:
            optimizer.zero_grad()
            logits = model(tokens[:, :-1]).reshape(-1, 50)
            loss = F.cross_entropy(logits, tokens[:, 1:].reshape(-1))
            loss.backward()
            optimizer.step()
            return loss

        return model, step

    (eager, step), (other, same) = trainer(), trainer()
    captured = gradlite.capture(same, native=False)
    with launches.record() as names:
        for seed in range(10):
            gradlite.manual_seed(seed)
            tokens = gradlite.randint(0, 50, (8, 33))
            state = gradlite.get_rng_state()
            expected = step(tokens).item()
            gradlite.set_rng_state(state)
            assert captured(tokens).item() == expected
    assert {kernel, kernel.replace("backward", "forward")} <= set(names)
    assert captured.replays == 7 and kernel in captured.explain()
    for a, b in zip(eager.parameters(), other.parameters()):
        np.testing.assert_array_equal(a.detach().numpy(), b.detach().numpy())


@needs_kernels
def test_recordings_to_be_compiled_are_of_the_rules() -> None:
    norm = nn.LayerNorm(64)
    captured = gradlite.capture(lambda x: norm(x).sum(), native=True)
    x = gradlite.randn(128, 64)
    for _ in range(5):
        value = captured(x)
    np.testing.assert_allclose(value.item(), norm(x).sum().item(), rtol=1e-4, atol=1e-3)
    assert "layer_norm_forward" not in captured.explain()


@needs_kernels
@pytest.mark.parametrize("name", ["addcmul_", "addcdiv_", "lerp_"])
def test_edits_are_made_by_the_rule_where_no_kernel_compiles(name: str) -> None:
    x, a, b = gradlite.randn(3, 20_000).unbind()
    rest: tuple[Any, ...] = (a, 0.3) if name == "lerp_" else (a, b + 9)
    expected = getattr(x.clone(), name)(*rest)
    with rules_alone() as launcher:
        edited = getattr(x.clone(), name)(*rest)
    assert launcher.tries
    np.testing.assert_allclose(edited.numpy(), expected.numpy(), rtol=2e-6, atol=1e-6)
