"""Compiled convolutions of batches, joined with relu and pooling, against the step as it is."""

from __future__ import annotations

import platform
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import libraries, native
from gradlite.capturing.native.build import available
from gradlite.capturing.plan import Plan
from gradlite.nn import functional as F

needs_compiler = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
JOINED = ["convolve_and_pool", "spread_gradients", "spread_weight_gradient"]
# Batch, channels, height, width, outputs; kernel, stride, padding, dilation; what comes behind.
NETS: list[tuple[tuple[int, ...], tuple[int, ...], str]] = [
    ((32, 6, 8, 8, 6), (1, 1, 0, 1), "relu pool"),
    ((48, 7, 13, 12, 10), (3, 1, 1, 2), "relu pool"),
    ((16, 1, 9, 13, 7), (5, 2, 2, 1), "pool"),
    ((16, 5, 12, 7, 9), (5, 1, 1, 1), "pool relu"),
    ((16, 3, 7, 9, 19), (3, 1, 1, 1), "relu"),
    ((32, 2, 6, 5, 4), (3, 1, 2, 1), ""),
]
LAYERS = {"relu": nn.ReLU, "pool": lambda: nn.MaxPool2d(2)}


@pytest.fixture(autouse=True)
def calls_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Plan, "release", lambda self: None)


def names(captured: Any) -> list[str]:
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    return [getattr(getattr(c, "function", None), "__name__", "") for c in plan.calls]


def agree(captured: Any, step: Any, *inputs: Any, rtol: float = 2e-6) -> None:
    for ours, theirs in zip(captured(*inputs), step(*inputs), strict=True):
        x, y = ours.detach().numpy(), theirs.detach().numpy()
        np.testing.assert_allclose(x, y, rtol, rtol * float(np.abs(y[np.isfinite(y)]).max()))


def recorded(step: Any, *inputs: Any) -> Any:
    captured = gradlite.capture(step, warmup=0, native=True)
    for _ in range(3):
        captured(*inputs)
    assert captured.replays == 1
    return captured


def network(dtype: Any, sizes: Any, options: Any, behind: str) -> tuple[Any, Any]:
    n, c, h, w, o = sizes
    gradlite.manual_seed(7)
    layers = [nn.Conv2d(c, o, *options), *(LAYERS[name]() for name in behind.split())]
    model = nn.Sequential(*layers, nn.Conv2d(o, 7, 3, padding=1), nn.ReLU()).to(dtype)
    return model, gradlite.randn(n, c, h, w, dtype=dtype)


def gradients_of(model: Any) -> Any:
    def step(x: Any) -> list[Any]:
        y = model(x)
        return [y, *gradlite.autograd.grad(y.square().sum(), list(model.parameters()))]

    return step


@needs_compiler
@pytest.mark.parametrize("narrow", [False, True])
@pytest.mark.parametrize("dtype", [gradlite.float32, gradlite.float64])
@pytest.mark.parametrize(("sizes", "options", "behind"), NETS)
def test_networks(
    sizes: Any,
    options: Any,
    behind: str,
    dtype: Any,
    narrow: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if narrow:
        if platform.machine() not in ("x86_64", "AMD64"):
            pytest.skip("the option is one of x86-64")
        monkeypatch.setattr(libraries, "OPTIONS", (*libraries.OPTIONS, "-mno-avx512f"))
    model, x = network(dtype, sizes, options, behind)
    step = gradients_of(model)
    captured = recorded(step, x)
    agree(captured, step, x, rtol=2e-6 if dtype is gradlite.float32 else 1e-13)
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    assert not plan.left and "_batch<" in plan.source
    assert ("convolve_and_pool" in names(captured)) == ("pool" in behind)


@needs_compiler
def test_images_stay_in_the_order_of_vectors() -> None:
    """Nothing between the first convolution and the last is transposed."""
    gradlite.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(8, 6, 3)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(24, 5))
    step = gradients_of(model)
    x = gradlite.randn(32, 1, 12, 12)
    captured = recorded(step, x)
    agree(captured, step, x)
    assert [n for n in names(captured) if n in JOINED] == [JOINED[0], *JOINED]
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    images = [r for c in plan.calls for r in getattr(c, "outs", ()) if len(r.shape) == 4]
    inner = [r for r in images if r.shape[0] == 32]
    assert len(inner) > 8 and all(r.strides[0] == r.dtype.itemsize for r in inner)


@needs_compiler
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan, -0.0, 3e38])
def test_extreme_values(value: float) -> None:
    model, x = network(gradlite.float32, *NETS[1])
    step = gradients_of(model)

    def forward(x: Any) -> list[Any]:
        return step(x)[:1]

    captured = recorded(forward, x)
    x[3, 1, 4:6, 7] = value
    agree(captured, forward, x)


@needs_compiler
@pytest.mark.parametrize(
    "edit",
    [
        lambda h, p: p.mul_(-2),  # the maxima change after they were used
        lambda h, p: p + h.mean(),  # another reader of the pixels
        lambda h, p: p + F.max_pool2d(h, 2),
        lambda h, p: p * F.max_pool2d(h, 3, 1)[:, :, ::2, ::2].mean(),
    ],
)
def test_what_others_read_or_change_stays_as_it_is(edit: Any) -> None:
    gradlite.manual_seed(1)
    first, second = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(5, 3, 3)
    leaves = [*first.parameters(), *second.parameters()]

    def step(x: Any) -> list[Any]:
        h = first(x).relu()
        y = second(edit(h, F.max_pool2d(h, 2)))
        return [y, *gradlite.autograd.grad(y.square().sum(), leaves)]

    x = gradlite.randn(16, 2, 10, 8)
    agree(recorded(step, x), step, x)


@needs_compiler
def test_pixels_that_are_returned_are_kept() -> None:
    model, x = network(gradlite.float32, *NETS[0])

    def step(x: Any) -> list[Any]:
        y = model[0](x)
        h = y.relu()
        return [y, h, F.max_pool2d(h, 2)]

    agree(recorded(step, x), step, x)


@needs_compiler
def test_other_batches_are_not_joined() -> None:
    model, x = network(gradlite.float32, (10, *NETS[0][0][1:]), *NETS[0][1:])
    step = gradients_of(model)
    captured = recorded(step, x)
    agree(captured, step, x)
    assert not set(JOINED) & set(names(captured))


@needs_compiler
def test_the_joined_calls_without_compiled_code(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What cannot be compiled after all is replayed by array calls."""
    broken = tmp_path / "broken"
    broken.write_text("#!/bin/sh\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr(native, "compiler", lambda: str(broken))
    monkeypatch.setenv("GRADLITE_CACHE", str(tmp_path / "cache"))
    for sizes, options, behind in NETS[1:4]:
        model, x = network(gradlite.float32, sizes, options, behind)
        step = gradients_of(model)
        captured = recorded(step, x)
        assert "not compiled" in captured.explain() and JOINED[0] in names(captured)
        agree(captured, step, x)


@needs_compiler
@pytest.mark.parametrize("dtype", [gradlite.float32, gradlite.float64])
@pytest.mark.parametrize("batch", [3, 16, 32])
@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "dilation"),
    [
        *[(3, 2, 1, 1), (2, 2, 0, 1), (4, 2, 1, 1), (1, 2, 0, 1), (3, 3, 2, 2), (5, 2, 0, 3)],
        *[((3, 1), (2, 1), (1, 0), 1), ((2, 5), (3, 2), (0, 2), (2, 1)), (2, 3, 0, 3)],
    ],
)
def test_input_gradients_of_strides(
    kernel: Any, stride: Any, padding: Any, dilation: Any, batch: int, dtype: Any
) -> None:
    """And transposed convolutions, which are the same; elements that no tap reaches get zero."""
    gradlite.manual_seed(3)
    x = gradlite.randn(batch, 3, 14, 15, dtype=dtype)
    w = gradlite.randn(5, 3, *(kernel if isinstance(kernel, tuple) else (kernel, kernel)))
    w = w.to(dtype)

    def step(x: Any, w: Any) -> list[Any]:
        x, w = (t.clone().requires_grad_() for t in (x, w))
        y = F.conv2d(x, w, None, stride, padding, dilation)
        back = F.conv_transpose2d(y.detach(), w, None, stride, padding, 0, 1, dilation)
        return [y, back, *gradlite.autograd.grad(y.square().sum(), [x, w])]

    captured = recorded(step, x, w)
    agree(captured, step, x, w, rtol=1e-5 if dtype is gradlite.float32 else 1e-12)
    (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
    assert not plan.reason and plan.left == []
