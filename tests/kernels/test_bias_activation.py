"""Activations of x + bias, and residual + dropout(x + bias): kernels, rules and their use."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops.bias_activation import ACTIVATIONS, bias_activation
from gradlite.ops.residual import BiasDropoutAdd
from gradlite.random import default_generator
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, by_kernel, by_rule, wide

PARAMETERS: dict[str, tuple[float, ...]] = {
    "leaky_relu": (0.1,), "elu": (0.7, 1.05, 1 / 0.7), "softplus": (2.0, 1.0),
    "hardtanh": (-0.4, 0.6),
}  # fmt: skip
SIZES = [(1, 1), (5, 7), (33, 32), (10, 130), (70, 257), (9, 1024), (1025, 3)]
TOLERANCES = {
    "bfloat16": (5e-3, 8e-3), "float16": (3e-3, 1e-2), "float32": (1e-5, 1e-4),
    "float64": (1e-12, 1e-11),
}  # fmt: skip


def draw(shape: tuple[int, ...], dtype: str, n: int = 0) -> Any:
    return np.random.default_rng(shape[0] + n).standard_normal(shape).astype(dtype)


def compare(K: Any, name: str, rows: int, columns: int, dtype: str) -> None:
    op, attrs = ACTIVATIONS[name], (name, *PARAMETERS.get(name, ()))
    inputs = draw((rows, columns), dtype), draw((columns,), dtype, 1)
    grad = draw((rows, columns), dtype, 2)
    found = by_kernel(K, op, inputs, attrs, grad, (True, True))
    arrays = [wide(a) for a in inputs]
    expected = by_rule(op, arrays, attrs, wide(grad), (True, True), wide(found[0]))
    tolerance, looser = TOLERANCES[dtype]
    np.testing.assert_allclose(found[0], expected[0], tolerance, tolerance)
    np.testing.assert_allclose(found[1], expected[1], looser, looser)
    scale = max(1.0, float(np.abs(expected[1]).sum(0).max()))
    np.testing.assert_allclose(found[2], expected[2], looser, looser * scale / 10)


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients(launcher: Any, name: str, dtype: str) -> None:
    for size in SIZES:
        compare(launcher, name, *size, dtype)


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_no_race_and_nothing_out_of_bounds(threads: ThreadsLauncher, seed: int) -> None:
    threads.check, threads.seed = True, seed
    for size in ((9, 12), (17, 33)):
        compare(threads, "gelu", *size, "float32")
        compare(threads, "relu", *size, "bfloat16")


@pytest.mark.parametrize("name", ACTIVATIONS)
def test_the_rule_passes_gradcheck(name: str) -> None:
    x = (gradlite.arange(12.0, dtype=gradlite.float64).reshape(3, 4) / 5 - 1.27).requires_grad_()
    b = gradlite.tensor([0.1, -0.2, 0.3, 0.05], dtype=gradlite.float64, requires_grad=True)
    call = lambda x, b: bias_activation(x, b, name, *PARAMETERS.get(name, ()))  # noqa: E731
    assert gradlite.autograd.gradcheck(call, (x, b))
    assert gradlite.autograd.gradgradcheck(call, (x, b))


def test_one_launch_forward_and_two_backward(launcher: Any) -> None:
    with kernels.record() as launches:
        compare(launcher, "gelu", 8, 8, "float32")
    assert launches == ["bias_gelu_forward", "bias_gelu_backward", "columns_total"]


# ---------------------------------------------------------------- residual + dropout(x + bias)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("size", SIZES, ids=str)
def test_residual(launcher: Any, size: tuple[int, int], dtype: str, bias: bool) -> None:
    x, residual, grad = (draw(size, dtype, n) for n in range(3))
    b = draw(size[1:], dtype, 3) if bias else None
    inputs, attrs, wanted = (x, b, residual), (size, 0.7, 1 / 0.7), (True, bias, True)
    state = default_generator.state_array()
    wide_inputs = [None if a is None else wide(a) for a in inputs]
    expected = by_rule(BiasDropoutAdd, wide_inputs, attrs, wide(grad), wanted)
    default_generator.set_state_array(state)
    found = by_kernel(launcher, BiasDropoutAdd, inputs, attrs, grad, wanted)
    tolerance, looser = TOLERANCES[dtype]
    for one, other in zip(found, expected):
        scale = 1.0 if other is None else max(1.0, float(np.abs(other).max()))
        if other is not None:
            np.testing.assert_allclose(one, other, tolerance, looser * scale)


# ------------------------------------------------------------------------ as layers use them
LAYERS: dict[str, Any] = {
    "relu": nn.ReLU, "relu in place": lambda: nn.ReLU(inplace=True), "gelu": nn.GELU,
    "gelu_tanh": lambda: nn.GELU("tanh"), "silu": nn.SiLU, "mish": nn.Mish, "tanh": nn.Tanh,
    "sigmoid": nn.Sigmoid, "softplus": nn.Softplus, "leaky_relu": nn.LeakyReLU, "elu": nn.ELU,
    "hardtanh": lambda: nn.Hardtanh(-0.3, 0.4), "relu6": nn.ReLU6, "hardswish": nn.Hardswish,
}  # fmt: skip


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def step(model: Any, device: str, *inputs: Any) -> list[Any]:
    """Output and gradients of a model that is moved to a device."""
    gradlite.manual_seed(7)
    model.to(device)
    moved = [x.detach().to(device).requires_grad_() for x in inputs]
    out = model(*moved)
    (out * out).sum().backward()
    grads = [t.grad.cpu().numpy() for t in (*moved, *model.parameters())]
    model.zero_grad()
    return [out.detach().cpu().numpy(), *grads]


def same_on_both(model: Any, *inputs: Any) -> list[str]:
    """Compare a model on both devices; the kernels that ran."""
    here = step(model, "cpu", *inputs)
    with kernels.record() as launches:
        there = step(model, "cuda", *inputs)
    for one, other in zip(there, here):
        np.testing.assert_allclose(one, other, 1e-4, 1e-5)
    return launches


@pytest.mark.parametrize("name", LAYERS)
def test_a_linear_layer_and_an_activation_in_sequential(cupy: Any, name: str) -> None:
    model = nn.Sequential(nn.Linear(5, 6), LAYERS[name](), nn.Linear(6, 3))
    launches = same_on_both(model, gradlite.randn(4, 2, 5))
    kernel = {"relu in place": "relu", "relu6": "hardtanh"}.get(name, name)
    assert (
        launches.count(f"bias_{kernel}_forward") == launches.count(f"bias_{kernel}_backward") == 1
    )


def test_layers_with_hooks_without_bias_and_of_other_kinds_are_called(cupy: Any) -> None:
    seen = []

    class Custom(nn.Linear):
        def forward(self, input: Any) -> Any:
            seen.append("custom")
            return super().forward(input)

    hooked = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    hooked[0].register_forward_hook(lambda *args: seen.append("linear"))
    watched = nn.Sequential(nn.Linear(4, 4), nn.ReLU())
    watched[1].register_forward_hook(lambda *args: seen.append("relu"))
    plain = nn.Sequential(nn.Linear(4, 4, bias=False), nn.ReLU(), Custom(4, 4), nn.GELU())
    pairs = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Softmax(-1))
    for model in (hooked, watched, plain, pairs):
        launches = same_on_both(model, gradlite.randn(3, 4))
        assert not any(name.startswith("bias_") for name in launches)
    assert seen == ["linear", "linear", "relu", "relu", "custom", "custom"]


@pytest.mark.parametrize("activation", ["relu", "gelu", F.silu, nn.SiLU()])
@pytest.mark.parametrize("norm_first", [False, True])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_transformer_layers(cupy: Any, dropout: float, norm_first: bool, activation: Any) -> None:
    options = {"dropout": dropout, "activation": activation, "norm_first": norm_first}
    encoder = nn.TransformerEncoderLayer(8, 2, 16, **options)
    decoder = nn.TransformerDecoderLayer(8, 2, 16, **options)
    x, memory = gradlite.randn(5, 3, 8), gradlite.randn(4, 3, 8)
    for model, inputs, sums in ((encoder, (x,), 2), (decoder, (x, memory), 3)):
        launches = same_on_both(model, *inputs)
        assert launches.count("bias_dropout_add_forward") == (sums if dropout else 0)
        fused = sum(name.startswith("bias_") and "dropout" not in name for name in launches)
        assert fused == (0 if activation is F.silu else 2)
