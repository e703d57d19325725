"""Users' kernels: launched on a stand-in for a GPU, compiled for the CPU, replaced by NumPy."""

from __future__ import annotations

import doctest
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import native
from gradlite.cuda import Kernel, kernel
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler
from tests.cupy_stand_in.kernels import Function

SOURCE = """
// swish(x) = x sigmoid(beta x), and its gradient
__device__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }

extern "C" __global__ void swish_forward(const float* __restrict__ x, float* y, float beta, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x)
    y[i] = x[i] * sigmoid(beta * x[i]);
}

extern "C" __global__ void __launch_bounds__(256)
swish_backward(const float* grad, float const *x, float* dx, float beta, int n) {
  for (int i = blockIdx.x * blockDim.x + threadIdx.x; i < n; i += gridDim.x * blockDim.x) {
    float s = sigmoid(beta * x[i]);
    dx[i] = grad[i] * (s + beta * x[i] * s * (1.0f - s));
  }
}

extern "C" __global__ void describe(const void* any, long long* sizes, bool flag) {
  sizes[0] = gridDim.x; sizes[1] = gridDim.y; sizes[2] = blockDim.x; sizes[3] = blockDim.z;
  sizes[4] = flag ? 1 : 0;
  sizes[5] = any == nullptr ? 1 : 0;
}
"""


def swish_numpy(x: Any, y: Any, beta: float, n: int) -> None:
    y[...] = x / (1 + np.exp(-beta * x))


def swish_backward_numpy(grad: Any, x: Any, dx: Any, beta: float, n: int) -> None:
    s = 1 / (1 + np.exp(-beta * x))
    dx[...] = grad * (s + beta * x * s * (1 - s))


class Way:
    """A device, and the kernels as they run there."""

    def __init__(self, device: str, references: bool) -> None:
        self.device = device
        given = (swish_numpy, swish_backward_numpy) if references else (None, None)
        self.forward = kernel(SOURCE, "swish_forward", reference=given[0])
        self.backward = kernel(SOURCE, "swish_backward", reference=given[1])
        self.describe = kernel(SOURCE, "describe")


@pytest.fixture(
    params=["stand-in", "native", "reference", pytest.param("cuda", marks=pytest.mark.cuda)]
)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Way:
    if request.param == "stand-in":
        if compiler() is None:
            pytest.skip("kernels run thread by thread on Linux with g++ alone")
        stand_in.install(monkeypatch)
    if request.param == "native" and native.launcher() is None:
        pytest.skip("kernels cannot be compiled natively here")
    return Way(
        "cuda" if request.param in ("cuda", "stand-in") else "cpu", request.param != "native"
    )


def test_a_kernel_computes(way: Way) -> None:
    x = gradlite.linspace(-3, 3, 100, device=way.device).reshape(4, 25)
    y = gradlite.empty_like(x)
    version = y._version
    way.forward(2, 32, x, y, 1.5, 100)
    np.testing.assert_allclose(y.tolist(), (x * gradlite.sigmoid(1.5 * x)).tolist(), rtol=1e-5)
    assert y._version == version + 1 and x._version == 0
    before = y.tolist()
    way.forward(0, 32, x, y, 1.5, 100)  # no block: nothing happens
    assert y.tolist() == before


def test_a_function_with_kernels_trains(way: Way) -> None:
    class Swish(gradlite.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any, beta: float) -> Any:
            x = x.contiguous()
            y = gradlite.empty_like(x)
            way.forward(-(-x.numel() // 64), 64, x, y, beta, x.numel())
            ctx.save_for_backward(x)
            ctx.beta = beta
            return y

        @staticmethod
        @gradlite.autograd.function.once_differentiable
        def backward(ctx: Any, grad: Any) -> Any:
            (x,) = ctx.saved_tensors
            dx = gradlite.empty_like(x)
            grad = grad.contiguous()
            way.backward(-(-x.numel() // 64), 64, grad, x, dx, ctx.beta, x.numel())
            return dx, None

    x = gradlite.randn(5, 7).to(way.device).requires_grad_()
    (Swish.apply(x, 0.7) ** 2).sum().backward()
    z = x.detach().clone().requires_grad_()
    ((z * gradlite.sigmoid(0.7 * z)) ** 2).sum().backward()
    np.testing.assert_allclose(x.grad.tolist(), z.grad.tolist(), rtol=1e-4, atol=1e-6)


def test_grid_block_flags_and_null_pointers_arrive(way: Way) -> None:
    if way.device == "cpu" and native.launcher() is None:
        pytest.skip("kernels cannot be compiled natively here")
    sizes = gradlite.zeros(6, dtype=gradlite.int64, device=way.device)
    way.describe((2, 3), [32, 1, 2], None, sizes, True)
    assert sizes.tolist() == [2, 3, 32, 2, 1, 1]
    way.describe(1, 1, sizes, sizes, False)
    assert sizes.tolist() == [1, 1, 1, 1, 0, 0]


WRONG: list[tuple[Any, type[Exception], str]] = [
    (lambda k, x: k(1, 32, x, x, 1.0), TypeError,
     r"\(\) takes 4 arguments \(x, y, beta, n\), but 3 were given"),
    (lambda k, x: k(1, 32, x, x.double(), 1.0, 4), TypeError,
     "y must be a Tensor of dtype float32, but is one of float64"),
    (lambda k, x: k(1, 32, x.array, x, 1.0, 4), TypeError, "x must be a Tensor of dtype float32"),
    (lambda k, x: k(1, 32, x, x.t(), 1.0, 4), RuntimeError,
     r"y must be contiguous: pass y\.contiguous\(\)"),
    (lambda k, x: k(1, 32, x, x, 1.0, 4.0), TypeError,
     "n must be a number of type int32, but is of type float"),
    (lambda k, x: k(1, 32, x, x, True, 4), TypeError, "beta must .* but is of type bool"),
    (lambda k, x: k(1, 32, x, x, 1.0, 1 << 31), TypeError, "n is 2147483648, which no int32 holds"),
    (lambda k, x: k(1, 32, None, None, 1.0, 4), TypeError, "none of the arguments is a Tensor"),
    (lambda k, x: k(1, 1025, x, x, 1.0, 4), ValueError, "a block has 1 to 1024 threads, not 1025"),
    (lambda k, x: k(1, 0, x, x, 1.0, 4), ValueError, "a block has 1 to 1024 threads, not 0"),
    (lambda k, x: k(-1, 32, x, x, 1.0, 4), TypeError, "grid must be 1 to 3 ints, got -1"),
    (lambda k, x: k(1, (32, 1, 1, 1), x, x, 1.0, 4), TypeError, "block must be 1 to 3 ints"),
    (lambda k, x: k(1, 32, x.clone().requires_grad_(), x, 1.0, 4), RuntimeError,
     "x requires grad, and a kernel is not recorded"),
]  # fmt: skip


@pytest.mark.parametrize(("call", "error", "message"), WRONG)
def test_wrong_launches_are_refused(way: Way, call: Any, error: Any, message: str) -> None:
    x = gradlite.zeros(2, 2, device=way.device)
    with pytest.raises(error, match=f"swish_forward.*{message}"):
        call(way.forward, x)


def test_numbers_of_numpy_and_ints_for_floats_are_taken(way: Way) -> None:
    x = gradlite.ones(4, device=way.device)
    y = gradlite.empty_like(x)
    way.forward(1, 32, x, y, 1, np.int64(4))
    assert y[0].item() == pytest.approx(1 / (1 + np.exp(-1)))
    with gradlite.no_grad():
        way.forward(1, 32, x.requires_grad_(), y, np.float64(1), 4)


def test_mixed_devices_are_refused(way: Way) -> None:
    if way.device == "cpu":
        pytest.skip("there is one CPU")
    x = gradlite.ones(4)
    with pytest.raises(RuntimeError, match="at least two devices, cuda:0 and cpu"):
        way.forward(1, 32, x.to(way.device), x, 1.0, 4)


def test_a_launch_goes_to_the_current_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    stand_in.install(monkeypatch, devices=2)
    streams: list[Any] = []
    monkeypatch.setattr(Function, "streams", streams)
    x = gradlite.ones(4, device="cuda:1")
    side = gradlite.cuda.Stream()
    forward = kernel(SOURCE, "swish_forward")
    with gradlite.cuda.stream(side):
        forward(1, 32, x, x, 1.0, 4)
    forward(1, 32, x, x, 1.0, 4)
    assert streams == [side.cupy_stream, stand_in.runtime.Stream.null]


# ------------------------------------------------------------------------------- sources
def test_a_file_is_read(tmp_path: Path) -> None:
    path = tmp_path / "swish.cu"
    path.write_text(SOURCE)
    for given in (path, str(path)):
        assert (
            repr(kernel(given, "swish_backward")) == "<kernel swish_backward(grad, x, dx, beta, n)>"
        )


def test_parameters_are_read_with_their_types() -> None:
    found = kernel(SOURCE, "swish_backward").parameters
    assert [(p.name, str(p.dtype), p.pointer, p.written) for p in found] == [
        ("grad", "float32", True, False),
        ("x", "float32", True, False),
        ("dx", "float32", True, True),
        ("beta", "float32", False, False),
        ("n", "int32", False, False),
    ]
    made = Kernel('extern "C" KERNEL', "k", "unsigned long long n, const __half *h", None, ())
    assert [str(p.dtype) for p in made.parameters] == ["uint64", "float16"]


@pytest.mark.parametrize(
    ("source", "name", "message"),
    [
        (SOURCE, "swish_sideways", "declares no kernel extern \"C\" __global__ void swish_s"),
        ("// __global__ void k(int n) {}", "k", "the source declares no kernel"),
        ("__global__ void k(int n) {}", "k", 'declare it extern "C"'),
        ('extern "C" __global__ void k(float4 v) {}', "k", "'float4 v' is of no type known"),
        ('extern "C" __global__ void k(float** v) {}', "k", r"'float\*\* v' is of no type"),
    ],
)  # fmt: skip
def test_sources_without_such_a_kernel_are_refused(source: str, name: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        kernel(source, name)


def test_a_compiler_says_what_is_wrong(way: Way) -> None:
    broken = 'extern "C" __global__ void k(float* x) { x[0] = nothing; }'
    x = gradlite.ones(1, device=way.device)
    expected = "kernel k cannot run on the CPU" if way.device == "cpu" else "k does not compile"
    with pytest.raises(RuntimeError, match=f"(?s){expected}.*nothing"):
        kernel(broken, "k")(1, 32, x)


def test_barriers_need_a_reference_on_the_cpu() -> None:
    if native.launcher() is None:
        pytest.skip("kernels cannot be compiled natively here")
    source = 'extern "C" __global__ void k(float* x) { __syncthreads(); x[0] = 2; }'
    x = gradlite.ones(1)
    with pytest.raises(RuntimeError, match="without barriers, shared memory and warps: pass refer"):
        kernel(source, "k")(1, 32, x)
    kernel(source, "k", reference=lambda a: a.fill(2))(1, 32, x)
    assert x.item() == 2


def test_the_example_of_the_readme_runs_on_a_device(way: Way) -> None:
    text = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")
    section = text[text.index("## A kernel of one's own") :].split("\n## ")[0]
    names: dict[str, Any] = {"gradlite": gradlite}
    for example in doctest.DocTestParser().get_examples(section):
        exec(example.source, names)
    if way.forward._reference is None:
        for name in ("swish", "swish_backward"):
            names[name] = kernel(names["source"], name)
    x = gradlite.linspace(-2, 2, 9).to(way.device).requires_grad_()
    y = names["Swish"].apply(x)
    y.sum().backward()
    z = x.detach().clone().requires_grad_()
    (z * z.sigmoid()).sum().backward()
    np.testing.assert_allclose(y.tolist(), (z * z.sigmoid()).tolist(), rtol=1e-5)
    np.testing.assert_allclose(x.grad.tolist(), z.grad.tolist(), rtol=1e-5, atol=1e-7)
