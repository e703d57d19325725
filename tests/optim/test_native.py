"""Steps of optimizers on the CPU: by kernels where these are faster, by array calls elsewhere."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import optim
from gradlite.backends import kernels, native
from gradlite.backends.kernel_source import alone, declarations, source


@pytest.fixture(autouse=True)
def compiled() -> None:
    if native.on_demand() is None:
        pytest.skip("kernels cannot be compiled here")


def launched(optimizer: Any, *params: Any) -> list[str]:
    """The kernels of a step from gradients of ones."""
    for p in params:
        p.grad = gradlite.ones_like(p)
    with kernels.record() as names:
        optimizer.step()
    return names


def test_a_step_is_one_launch() -> None:
    params = [gradlite.ones(3, requires_grad=True), gradlite.ones(2, 2, requires_grad=True)]
    optimizer = optim.Adam(params, lr=0.5)
    assert launched(optimizer, *params) == ["adam"]
    for p in params:
        np.testing.assert_allclose(p.detach().numpy(), 0.5, rtol=1e-6)
    assert params[0]._version == 1


@pytest.mark.parametrize("n", [1, 8, 1 << 14])
def test_plain_sgd_is_a_launch_from_one_element_on(n: int) -> None:
    p = gradlite.ones(n, requires_grad=True)
    optimizer = optim.SGD([p], lr=0.5)
    assert launched(optimizer, p) == ["sgd"]
    assert p.tolist() == [0.5] * n
    optimizer.param_groups[0]["lr"] = 0.25  # which the kernel's table has to take up
    assert launched(optimizer, p) == ["sgd"]
    assert p.tolist() == [0.25] * n


@pytest.mark.parametrize("dtype", [gradlite.float16, gradlite.float32, gradlite.float64])
def test_every_dtype(dtype: Any) -> None:
    p = gradlite.ones(4, dtype=dtype, requires_grad=True)
    optimizer = optim.Adam([p], lr=0.25)
    assert launched(optimizer, p) == ([] if dtype is gradlite.float16 else ["adam"])
    assert p.dtype is dtype
    np.testing.assert_allclose(p.detach().numpy(), 0.75, rtol=1e-3)


def test_what_kernels_cannot_read() -> None:
    columns = gradlite.ones(4, 3).t().requires_grad_()
    assert not columns.is_contiguous()
    assert launched(optim.Adam([columns]), columns) == []


def test_a_gradient_of_another_layout() -> None:
    p = gradlite.zeros(2, 3, requires_grad=True)
    p.grad = gradlite.arange(6.0).reshape(3, 2).t()
    optim.SGD([p], lr=1.0, momentum=0.5).step()
    assert p.tolist() == [[0.0, -2.0, -4.0], [-1.0, -3.0, -5.0]]


def test_a_kernel_that_does_not_compile_is_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise RuntimeError("adam does not compile")

    launcher = native.OnDemand(native.on_demand().probe)  # type: ignore[union-attr]
    monkeypatch.setattr(launcher, "_load", refuse)
    monkeypatch.setattr(native, "on_demand", lambda: launcher)
    p = gradlite.ones(4, requires_grad=True)
    assert launched(optim.Adam([p], lr=0.5), p) == []
    np.testing.assert_allclose(p.detach().numpy(), 0.5, rtol=1e-6)


def test_a_kernel_compiled_alone_is_the_only_one_in_its_text() -> None:
    text = source("optimizer.cu")
    assert len(declarations("optimizer.cu", text)) > 10
    (left,) = declarations("optimizer.cu", alone("adam", text))
    assert left.name == "adam"
    assert alone("adam", text).count("\n") == text.count("\n")  # messages name the right lines
