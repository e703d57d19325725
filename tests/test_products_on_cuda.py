"""Every op that multiplies matrices, on CUDA through cuBLASLt: the same values as on NumPy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import kernels
from gradlite.backends.cublaslt import CublasLt
from gradlite.nn import functional as F
from tests import cublaslt_stand_in
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler
from tests.test_stand_in import compare

MULTIPLY = """addbmm addmm addmv baddbmm bilinear bmm conv1d conv2d conv3d
    conv_transpose1d conv_transpose2d conv_transpose3d dot einsum gru_sequence linear lstm_sequence
    matmul mm multi_head_attention_forward mv rnn_sequence scaled_dot_product_attention
    tensordot""".split()


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy = stand_in.install(monkeypatch)

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise NotImplementedError("calling cuBLAS API during stream capture is unsupported")

    # What CuPy does with cuBLAS may not stand in a stream capture, so nothing may need it.
    for name in ("matmul", "dot", "tensordot", "vdot", "inner", "einsum"):
        monkeypatch.setattr(cupy, name, refuse)
    for name in ("__matmul__", "__rmatmul__", "dot"):
        monkeypatch.setattr(stand_in.Array, name, refuse)
    return cublaslt_stand_in.install(monkeypatch)


@pytest.mark.parametrize("name", MULTIPLY)
def test_values_and_gradients(library: Any, name: str) -> None:
    compare(name, False)
    # Attention of small heads is one kernel, without products in between.
    assert ("matmul" in library.calls) is (name != "scaled_dot_product_attention")


@pytest.mark.parametrize("name", MULTIPLY)
def test_what_cublaslt_has_no_algorithm_for_is_cupys(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.undo()  # CuPy may multiply here
    stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)
    asked = []

    def refuse(self: Any, *args: Any) -> Any:
        asked.append(args)
        return NotImplemented

    monkeypatch.setattr(CublasLt, "run", refuse)
    compare(name, False)
    assert bool(asked) is (name != "scaled_dot_product_attention")


@pytest.mark.parametrize(
    "name", ["addmm", "baddbmm", "bmm", "conv2d", "dot", "linear", "matmul", "mm", "mv"]
)
def test_second_derivatives(library: Any, name: str) -> None:
    compare(name, True)
    assert "matmul" in library.calls


def both(function: Any, *shapes: tuple[int, ...], dtype: str = "float64") -> None:
    """Values and gradients of a function of tensors, on both devices."""
    generator = np.random.default_rng(2)
    arrays = [generator.standard_normal(shape).astype(dtype) for shape in shapes]
    results = []
    for device in ("cpu", "cuda"):
        leaves = [gradlite.tensor(a, device=device, requires_grad=True) for a in arrays]
        out = function(*leaves)
        weights = np.random.default_rng(3).standard_normal(out.shape).astype(dtype)
        (out * gradlite.tensor(weights, device=device)).sum().backward()
        results.append([out.detach(), *(t.grad for t in leaves)])
    for ours, theirs in zip(results[1], results[0]):
        assert ours.is_cuda and ours.shape == theirs.shape and ours.dtype == theirs.dtype
        tolerance = {"float64": 1e-12, "float32": 2e-5, "float16": 2e-2}[dtype]
        np.testing.assert_allclose(ours.cpu().numpy(), theirs.numpy(), tolerance, tolerance)


SHAPES = [
    ((4, 3), (3, 5)), ((1, 3), (3, 5)), ((4, 1), (1, 5)), ((4, 3), (3, 1)), ((1, 1), (1, 1)),
    ((0, 3), (3, 2)), ((2, 0), (0, 3)), ((2, 3), (3, 0)), ((7, 33), (33, 17)),
    ((2, 4, 3), (2, 3, 5)), ((2, 4, 3), (3, 5)), ((4, 3), (2, 3, 5)), ((2, 1, 4, 3), (5, 3, 2)),
    ((2, 3, 1, 3), (3, 3, 1)), ((0, 4, 3), (0, 3, 2)), ((2, 0, 3), (3, 2)), ((2, 3, 0), (0, 2)),
    ((3,), (3,)), ((4, 3), (3,)), ((3,), (3, 4)), ((2, 4, 3), (3,)), ((3,), (2, 3, 4)),
]  # fmt: skip


def test_attention_of_large_heads_is_products(library: Any) -> None:
    both(F.scaled_dot_product_attention, *[(2, 3, 5, 300)] * 3)
    assert library.calls.count("matmul") >= 6


@pytest.mark.parametrize("shapes", SHAPES)
def test_matmul(shapes: Any) -> None:
    both(gradlite.matmul, *shapes)
    both(gradlite.matmul, *shapes, dtype="float32")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("batch", [(), (1,), (5,), (0,), (2, 3), (2, 0, 3)])
@pytest.mark.parametrize("features", [(3, 4), (1, 4), (3, 1), (1, 1), (0, 2), (8, 16)])
def test_linear(batch: Any, features: Any, dtype: str) -> None:
    inputs, outputs = features
    shapes = ((*batch, inputs), (outputs, inputs), (outputs,))
    both(F.linear, *shapes, dtype=dtype)
    both(F.linear, *shapes[:2], dtype=dtype)


@pytest.mark.parametrize(
    "function",
    [
        lambda x, y: x.t() @ y,
        lambda x, y: x.t() @ y.t().contiguous().t(),
        lambda x, y: x[:, 1:].t() @ y[:, ::2],
        lambda x, y: x.t()[::2] @ y.flip(0),
        lambda x, y: x[:1].expand(4, 4).t() @ y,
        lambda x, y: F.linear(x[:, ::2], y[:, :2], y[0]),
        lambda x, y: F.linear(x.t(), y.t(), y[:, 0]),
        lambda x, y: F.linear(x, y).t() @ x,
        lambda x, y: gradlite.addmm(y[0], x, y),
        lambda x, y: gradlite.addmm(y[:, 0], x.t(), y.t(), beta=2, alpha=0.5),
        lambda x, y: gradlite.addmm(y.t(), x.t(), y[:, :1].expand(4, 4)),
    ],
)
def test_views(function: Any) -> None:
    both(function, (4, 4), (4, 4))


def test_attention_of_heads_that_lie_apart() -> None:
    def attend(x: Any) -> Any:
        q, k, v = (p.reshape(2, 5, 3, 4).transpose(1, 2) for p in x.chunk(3, -1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return y.transpose(1, 2).reshape(2, 5, 12)

    both(attend, (2, 5, 36))


def test_integers_are_multiplied_by_cupy(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("matmul", "dot"):
        monkeypatch.setattr(
            stand_in.MODULE, name, stand_in.functions._function(getattr(np, name), name)
        )
    monkeypatch.setattr(stand_in.Array, "dot", stand_in.functions._method("dot"))
    a = gradlite.arange(6, device="cuda").reshape(2, 3)
    assert (a @ a.t()).tolist() == [[5, 14], [14, 50]]
    assert gradlite.addmm(a[:, :2], a, a.t(), alpha=2).tolist() == [[10, 29], [31, 104]]


def launches(step: Any) -> list[str]:
    with kernels.record() as names:
        step()
    return names


def test_a_linear_layer_is_three_products(library: Any) -> None:
    layer = nn.Linear(8, 4, device="cuda")
    x = gradlite.randn(16, 8, device="cuda", requires_grad=True)
    layer(x).sum().backward()
    y = layer(x)
    grad = gradlite.ones(16, 4, device="cuda")
    assert launches(lambda: layer(x)) == ["gemm_bias"]
    assert launches(lambda: y.backward(grad)) == ["gemm", "gemm_sums"]
    first = layer(gradlite.randn(16, 8, device="cuda"))
    assert launches(lambda: first.backward(grad)) == ["gemm_sums"]
    layer.weight.requires_grad_(False)
    y = layer(x)
    sums = ["columns_parts", "columns_total"]
    assert launches(lambda: y.backward(grad)) == ["gemm", *sums]


def test_a_training_step_sets_nothing_up_the_second_time(library: Any) -> None:
    gradlite.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3)).to("cuda")
    attention = nn.MultiheadAttention(8, 2, batch_first=True).to("cuda")
    convolution = nn.Conv2d(2, 3, 3, padding=1).to("cuda")
    for step in range(3):
        library.calls.clear()
        for module in (model, attention, convolution):
            module.zero_grad()
        x = gradlite.randn(4, 6, device="cuda")
        model(x).square().mean().backward()
        s = gradlite.randn(2, 5, 8, device="cuda")
        attention(s, s, s, need_weights=False)[0].square().mean().backward()
        convolution(gradlite.randn(2, 2, 5, 5, device="cuda")).square().mean().backward()
        if step:
            assert set(library.calls) == {"matmul", "matmul_desc_set_attribute"}
            # For a bias or its gradient, where it does not lie where the last one did.
            assert library.calls.count("matmul_desc_set_attribute") <= 8


def test_every_device_has_a_handle_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch, devices=2)
    library = cublaslt_stand_in.install(monkeypatch)
    for device in ("cuda:0", "cuda:1", "cuda:0"):
        x = gradlite.ones(2, 3, device=device, requires_grad=True)
        y = F.linear(x, gradlite.ones(4, 3, device=device), gradlite.ones(4, device=device))
        assert y.device == gradlite.device(device) and y.tolist() == [[4.0] * 4] * 2
        y.sum().backward()
        assert x.grad.device == x.device and x.grad.tolist() == [[4.0] * 3] * 2
    assert library.calls.count("create") == 2
