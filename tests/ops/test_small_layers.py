"""Layers by the compiled functions of small.hpp, against float64 and PyTorch."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import launches, libraries
from gradlite.backends import small as compiled
from gradlite.ops import small
from tests.ops.test_products import layouts
from tests.oracle import torch

needs_code = pytest.mark.skipif(
    compiled.functions("f") is None, reason="no compiled layers: no compiler, or GRADLITE_NATIVE=0"
)
DTYPES = ("float32", "float64")
SIZES = list(itertools.product((1, 2, 8, 13, 37), (1, 3, 16, 33), (1, 7, 16, 17, 40)))
SPECIAL = (np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-40, 3e38)


def drawn(rng: Any, *shape: int, dtype: str = "float32") -> Any:
    return rng.standard_normal(shape).astype(dtype)


def exact(x: Any, weight: Any, bias: Any, relu: bool) -> Any:
    out = x.astype(np.float64) @ weight.astype(np.float64).T + bias
    return np.maximum(out, 0) if relu else out


def exact_gradients(grad: Any, result: Any, x: Any, weight: Any) -> list[Any]:
    g = grad.astype(np.float64)
    if result is not None:
        g = np.where(result <= 0, 0, g)
    return [g @ weight.astype(np.float64), g.T @ x.astype(np.float64), g.sum(0)]


def close(made: Any, expected: Any, dtype: str) -> None:
    assert made.dtype == dtype and made.flags.c_contiguous
    tolerance = 1e-5 if dtype == "float32" else 1e-13
    np.testing.assert_allclose(made, expected, rtol=tolerance, atol=20 * tolerance)


@needs_code
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("relu", [False, True])
def test_layers_and_their_gradients(dtype: str, relu: bool) -> None:
    rng = np.random.default_rng(0)
    for rows, summed, columns in SIZES:
        x, weight = drawn(rng, rows, summed, dtype=dtype), drawn(rng, columns, summed, dtype=dtype)
        bias, grad = drawn(rng, columns, dtype=dtype), drawn(rng, rows, columns, dtype=dtype)
        for a, w, g in zip(layouts(x), reversed(layouts(weight)), layouts(grad)):
            with launches.record() as names:
                out = small.layer(np, a, w, bias, relu)
                result = out if relu else None
                made = small.gradients(np, g, result, a, w)
                without = small.gradients(np, g, result, a, None)
            assert names == ["layer", "layer_gradients", "layer_gradients"]
            close(out, exact(x, weight, bias, relu), dtype)
            for ours, theirs in zip(made, exact_gradients(grad, result, x, weight), strict=True):
                close(ours, theirs, dtype)
            assert all((a == b).all() for a, b in zip(made[1:], without, strict=True))


@needs_code
@pytest.mark.parametrize("wrong", ["weight", "bias", "grad", "result"])
def test_a_part_in_a_thousand_would_be_noticed(wrong: str) -> None:
    rng = np.random.default_rng(1)
    x, weight, bias, grad = (drawn(rng, *s) for s in ((8, 16), (16, 16), (16,), (8, 16)))
    result = small.layer(np, x, weight, bias, True)
    given = {"weight": weight, "bias": bias, "grad": grad, "result": result.copy()}
    if wrong == "result":
        given["result"][result > 0] *= -1
    else:
        given[wrong] = given[wrong] * np.float32(1.001)
    out = small.layer(np, x, given["weight"], given["bias"], True)
    made = small.gradients(np, given["grad"], given["result"], x, given["weight"])
    with pytest.raises(AssertionError):
        close(out, exact(x, weight, bias, True), "float32")
        for ours, theirs in zip(made, exact_gradients(grad, result, x, weight), strict=True):
            close(ours, theirs, "float32")


@pytest.mark.parametrize("place", ["input", "weight", "bias", "gradient"])
@pytest.mark.parametrize("value", SPECIAL)
def test_special_values_go_where_they_go_in_pytorch(value: float, place: str) -> None:
    rng = np.random.default_rng(2)
    arrays = [drawn(rng, *s) for s in ((9, 5), (20, 5), (20,), (9, 20))]
    which = ("input", "weight", "bias", "gradient").index(place)
    arrays[which].reshape(-1)[3] = value

    def run(T: Any) -> list[Any]:
        layers = T.nn.Sequential(T.nn.Linear(5, 20), T.nn.ReLU())
        with T.no_grad():
            layers[0].weight.copy_(T.tensor(arrays[1]))
            layers[0].bias.copy_(T.tensor(arrays[2]))
        x = T.tensor(arrays[0], requires_grad=True)
        out = layers(x)
        out.backward(T.tensor(arrays[3]))
        parts = (out.detach(), x.grad, layers[0].weight.grad, layers[0].bias.grad)
        return [p.numpy() for p in parts]

    for ours, theirs in zip(run(gradlite), run(torch), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("frozen", [(), ("input",), ("weight",), ("bias",), ("input", "bias")])
@pytest.mark.parametrize("relu", [False, True])
def test_frozen_parts_get_no_gradient(frozen: tuple[str, ...], relu: bool) -> None:
    rng = np.random.default_rng(3)
    arrays = {"input": drawn(rng, 6, 4), "weight": drawn(rng, 3, 4), "bias": drawn(rng, 3)}

    def run(T: Any) -> list[Any]:
        layers = T.nn.Sequential(T.nn.Linear(4, 3), *[T.nn.ReLU()] * relu)
        with T.no_grad():
            layers[0].weight.copy_(T.tensor(arrays["weight"]))
            layers[0].bias.copy_(T.tensor(arrays["bias"]))
        x = T.tensor(arrays["input"])
        parts = {"input": x, "weight": layers[0].weight, "bias": layers[0].bias}
        for name, part in parts.items():
            part.requires_grad_(name not in frozen)
        (layers(x) * T.tensor(np.arange(18.0, dtype=np.float32).reshape(6, 3))).sum().backward()
        return [None if p.grad is None else p.grad.numpy() for p in parts.values()]

    ours, theirs = run(gradlite), run(torch)
    assert [g is None for g in ours] == [n in frozen for n in arrays]
    for a, b in zip(ours, theirs, strict=True):
        if b is not None:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_expanded_and_empty_gradients() -> None:
    layer, rows = nn.Linear(4, 3), gradlite.randn(5, 4)
    layer(rows).sum().backward()  # one element, seen fifteen times
    assert layer.weight.grad is not None and layer.bias.grad is not None
    expected = np.broadcast_to(rows.numpy().sum(0), (3, 4))
    np.testing.assert_allclose(layer.weight.grad.numpy(), expected, rtol=1e-5, atol=1e-6)
    assert layer.bias.grad.tolist() == [5.0] * 3
    layer.zero_grad()
    layer(rows[:0]).sum().backward()
    assert not layer.weight.grad.numpy().any() and not layer.bias.grad.numpy().any()


@needs_code
def test_arrays_that_compiled_code_does_not_take_are_numpys() -> None:
    rng = np.random.default_rng(4)
    x, weight, bias = drawn(rng, 6, 4), drawn(rng, 3, 4), drawn(rng, 3)
    memory = np.zeros(6 * 4 * 4 + 1, np.uint8)
    crooked = memory[1:].view(np.float32).reshape(6, 4)
    crooked[...] = x
    spaced = np.repeat(bias, 2)[::2]
    for a, b in ((crooked, bias), (x, spaced)):
        with launches.record() as names:
            made = small.layer(np, a, weight, b, True)
        assert names == []
        close(made, exact(x, weight, bias, True), "float32")
    with launches.record() as names:
        made = small.gradients(np, made, made, crooked, weight)
    assert names == []


def test_what_is_large_is_left_to_blas() -> None:
    def fits(rows: int, summed: int, columns: int) -> bool:
        return small.worth(np.zeros((rows, summed), "f4"), np.zeros((columns, summed), "f4"))

    if compiled.functions("f") is not None:
        assert fits(32, 16, 16) and fits(8, 64, 64) and fits(2, 3, 4)
    assert not fits(1, 64, 64) and not fits(64, 64, 128) and not fits(2000, 10, 10)


@needs_code
@pytest.mark.parametrize("native", [False, True])
@pytest.mark.parametrize("relu", [False, True])
def test_captured_steps_make_the_same_calls(native: bool, relu: bool) -> None:
    layers = nn.Sequential(nn.Linear(6, 5), *[nn.ReLU()] * relu, nn.Linear(5, 2))
    optimizer = gradlite.optim.SGD(layers.parameters(), lr=0.1)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = layers(x).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    start = {k: v.clone() for k, v in layers.state_dict().items()}
    batches = [gradlite.randn(7, 6) for _ in range(9)]
    plain = [step(x).item() for x in batches]
    layers.load_state_dict(start)
    captured = gradlite.capture(step, native=native)
    replayed = [captured(x).item() for x in batches]
    assert captured.replays == 6
    if native:
        np.testing.assert_allclose(replayed, plain, rtol=1e-6)
    else:
        assert replayed == plain
    listing = captured.explain()
    assert ("layer(" in listing) is not native, listing


def test_without_a_compiler_layers_are_numpys(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GRADLITE_NATIVE", "0")
    caches = (compiled.functions, libraries.found)
    for cached in caches:
        cached.cache_clear()
    try:
        layer, x = nn.Linear(4, 3), gradlite.randn(5, 4)
        with launches.record() as names:
            layer(x).sum().backward()
        assert names == []
    finally:
        for cached in caches:
            cached.cache_clear()
