"""Gradients added to ``.grad`` by the product that computes them, on CUDA, as if they were not."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from tests import cublaslt_stand_in
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler


@pytest.fixture(autouse=True)
def library(monkeypatch: pytest.MonkeyPatch) -> Any:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    stand_in.install(monkeypatch)
    return cublaslt_stand_in.install(monkeypatch)


def tensors(device: str = "cuda") -> tuple[Any, Any, Any]:
    """An input, a weight and a bias."""
    generator = np.random.default_rng(4)
    arrays = [generator.standard_normal(shape) for shape in ((5, 3), (4, 3), (4,))]
    return tuple(gradlite.tensor(a, device=device, requires_grad=True) for a in arrays)


def added(library: Any, run: Callable[[], Any]) -> int:
    """How many products of a run are added to what there is: C is D, and beta is not 0."""
    inside: list[bool] = []
    matmul = library.matmul

    def look(*x: Any) -> None:
        inside.append(x[8] == x[10] and ctypes.c_double.from_address(x[7]).value != 0)
        matmul(*x)

    library.matmul = look
    try:
        run()
    finally:
        library.matmul = matmul
    return sum(inside)


def as_on_the_cpu(program: Callable[..., Any]) -> None:
    """A program leaves the same gradients on both devices."""
    results = []
    for device in ("cpu", "cuda"):
        leaves = tensors(device)
        program(*leaves)
        results.append([None if t.grad is None else t.grad.cpu().numpy() for t in leaves])
    for ours, theirs in zip(results[1], results[0]):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            np.testing.assert_allclose(ours, theirs, 1e-12, 1e-12)


def passes(x: Any, w: Any, b: Any) -> None:
    for factor in (1.0, 2.0, 3.0):
        (F.linear(x * factor, w, b) ** 2).sum().backward()


def without_bias(x: Any, w: Any, b: Any) -> None:
    for _ in range(2):
        (F.linear(x, w) ** 2).sum().backward()


def twice_in_a_graph(x: Any, w: Any, b: Any) -> None:
    for _ in range(2):
        y = F.linear(F.linear(x, w, b), w.t(), None)
        (F.linear(y, w, b) ** 2).sum().backward()


def in_three_dimensions(x: Any, w: Any, b: Any) -> None:
    for _ in range(2):
        (F.linear(x.reshape(5, 1, 3).expand(5, 2, 3), w, b) ** 2).sum().backward()


def with_a_gradient_that_lies_otherwise(x: Any, w: Any, b: Any) -> None:
    w.grad = (w.detach() * 2).t().contiguous().t()
    (F.linear(x, w, b) ** 2).sum().backward()


def with_its_gradient_as_an_operand(x: Any, w: Any, b: Any) -> None:
    F.linear(x, w, b).sum().backward()
    F.linear(w.grad, w, b).sum().backward()
    y = F.linear(x[:4, :].detach(), w[:3].detach().requires_grad_(), None)
    y.sum().backward()


@pytest.mark.parametrize(
    "program",
    [
        passes, without_bias, twice_in_a_graph, in_three_dimensions,
        with_a_gradient_that_lies_otherwise, with_its_gradient_as_an_operand,
    ],
)  # fmt: skip
def test_programs(program: Any) -> None:
    as_on_the_cpu(program)


def test_the_product_adds(library: Any) -> None:
    x, w, b = tensors()
    F.linear(x.detach(), w, b).sum().backward()
    first = w.grad
    version = first._version
    with kernels.record() as names:
        y = F.linear(x.detach(), w, b)
        assert added(library, y.sum().backward) == 1
    assert [n for n in names if n.startswith("gemm")] == ["gemm_bias", "gemm_sums"]
    assert w.grad is first and w.grad._version == version + 1
    w.grad = None
    assert added(library, F.linear(x, w, b).sum().backward) == 0


def hook_of_the_leaf(x: Any, w: Any, b: Any, seen: list[Any]) -> None:
    w.register_hook(lambda g: seen.append(g.clone()) or g * 2)


def hook_after_accumulation(x: Any, w: Any, b: Any, seen: list[Any]) -> None:
    w.register_post_accumulate_grad_hook(lambda t: seen.append(t.grad.clone()))


@pytest.mark.parametrize("hook", [hook_of_the_leaf, hook_after_accumulation])
def test_hooks_of_leaves_see_what_they_would(library: Any, hook: Any) -> None:
    results = []
    for device in ("cpu", "cuda"):
        x, w, b = tensors(device)
        seen: list[Any] = []
        hook(x, w, b, seen)
        for _ in range(2):
            y = (F.linear(x, w, b) ** 2).sum()
            assert added(library, y.backward) == 0
        results.append([t.cpu().numpy() for t in (*seen, w.grad, b.grad)])
    for ours, theirs in zip(results[1], results[0]):
        np.testing.assert_allclose(ours, theirs, 1e-12)


def test_hooks_of_nodes_see_the_gradient(library: Any) -> None:
    x, w, b = tensors()
    F.linear(x, w, b).sum().backward()
    before = w.grad.clone()
    for packed in (False, True):
        seen: list[Any] = []
        hooks = gradlite.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t)
        if packed:
            with hooks:
                y = F.linear(x, w, b)
        else:
            y = F.linear(x, w, b)
        y.grad_fn.register_hook(lambda ins, outs, seen=seen: seen.append(ins))
        assert added(library, y.sum().backward) == 0
        assert all(g is not None for g in seen[0])
        w.grad.copy_(before)


def test_passes_that_do_not_add_to_every_leaf(library: Any) -> None:
    x, w, b = tensors()
    F.linear(x, w, b).sum().backward()
    kept = w.grad.clone()

    def grad() -> None:
        (g,) = gradlite.autograd.grad(F.linear(x, w, b).sum(), w)
        assert g is not w.grad and (w.grad == kept).all()

    assert added(library, grad) == 0
    assert added(library, lambda: F.linear(x, w, b).sum().backward(inputs=[w])) == 0
    assert gradlite.allclose(w.grad, 2 * kept)
    with pytest.warns(UserWarning, match="create_graph=True will create a reference cycle"):
        assert added(library, lambda: F.linear(x, w, b).sum().backward(create_graph=True)) == 0
    w.grad = w.grad.detach()
    assert gradlite.allclose(w.grad, 3 * kept)
    with gradlite.autograd.set_detect_anomaly(True):
        assert added(library, F.linear(x, w, b).sum().backward) == 0
    w.requires_grad_(False)
    assert added(library, F.linear(x, w, b).sum().backward) == 0
    assert gradlite.allclose(w.grad, 4 * kept)


def test_a_gradient_of_another_dtype_or_memory_in_use_is_left_alone(library: Any) -> None:
    x, w, b = tensors()
    F.linear(x, w, b).sum().backward()
    assert added(library, lambda: F.linear(w.grad, w, b).sum().backward()) == 0
    y = F.linear(x[:4], w[:, :].t().t()[:, :3], b)
    assert added(library, lambda: y.backward(gradlite.ones(4, 4, device="cuda").double())) == 0
