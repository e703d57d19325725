"""Denormal numbers: kept unless `set_flush_denormal` says otherwise, by optimizers too."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.capturing.native.build import available
from tests.oracle import torch

needs_compiler = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
SMALL = 1e-39


@pytest.fixture
def flushing() -> Iterator[None]:
    if not gradlite.set_flush_denormal(True):
        pytest.skip("this processor, or no compiler, cannot flush denormal numbers")
    yield
    gradlite.set_flush_denormal(False)


def halved(T: Any) -> float:
    return float((T.full((1000,), SMALL) * 0.5).max())


def test_they_are_kept_at_first() -> None:
    assert halved(gradlite) == halved(torch) > 0


def test_they_are_flushed_as_in_pytorch(flushing: None) -> None:
    assert halved(gradlite) == halved(torch) == 0
    assert float(gradlite.tensor([1e-3]) * 1e-3) > 0
    gradlite.set_flush_denormal(False)
    assert halved(gradlite) == halved(torch) > 0


def test_another_thread_is_asked_itself(flushing: None) -> None:
    found: list[float] = []

    def work() -> None:
        gradlite.set_flush_denormal(False)
        found.append(halved(gradlite))

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0] > 0
    assert halved(gradlite) == 0


@needs_compiler
@pytest.mark.parametrize("flush", [False, True])
def test_the_threads_of_compiled_code_do_as_their_caller(flush: bool) -> None:
    before = gradlite.get_num_threads()
    gradlite.set_num_threads(3)
    try:
        step = gradlite.capture(lambda x: x * 0.5 + x * 0.25, native=True)
        x = gradlite.full((600, 1000), SMALL)
        for _ in range(3):
            step(x)  # recorded while nothing is flushed
        gradlite.set_flush_denormal(flush)
        results = [step(x).numpy() for _ in range(4)]
    finally:
        gradlite.set_flush_denormal(False)
        gradlite.set_num_threads(before)
    assert step.replays >= 4
    for result in results:
        assert (result == 0).all() if flush else (result > 0).all()


@pytest.mark.parametrize("mode", [1, None, "yes"])
def test_the_mode_is_a_bool(mode: Any) -> None:
    with pytest.raises(RuntimeError, match="flush_denormal expects a bool"):
        gradlite.set_flush_denormal(mode)
    with pytest.raises(RuntimeError, match="flush_denormal expects a bool"):
        torch.set_flush_denormal(mode)


def test_without_a_compiler_it_says_no() -> None:
    code = "import gradlite; print(gradlite.set_flush_denormal(True))"
    env = {**os.environ, "CXX": "", "PATH": ""}
    result = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True)
    assert result.stdout == "False\n", result.stderr


@needs_compiler
@pytest.mark.parametrize("native_step", [False, True])
@pytest.mark.parametrize("gradient", [0.0, 1e25])
def test_moments_and_weights_at_the_ends_of_floats(native_step: bool, gradient: float) -> None:
    """A moment may be denormal, or its square infinite: the weights stay as PyTorch's do."""

    def train(T: Any, capture: Any) -> Any:
        w = T.nn.Parameter(T.full((40,), 0.5))
        with T.no_grad():
            w[:20] = 1e-37
        optimizer = T.optim.Adam([w], lr=0.1, eps=1e-8)
        w.grad = T.zeros(40)
        optimizer.step()
        state = optimizer.state[w]
        with T.no_grad():
            state["exp_avg"][:] = T.tensor(np.linspace(0, 2e-38, 40, dtype=np.float32))
            state["exp_avg_sq"][:10] = 1e-20
        factor = T.full((40,), gradient)

        def step(factor: Any) -> Any:
            optimizer.zero_grad()
            loss = (w * factor).sum()
            loss.backward()
            optimizer.step()
            return loss

        run = capture(step)
        for _ in range(6):
            run(factor)
        return w.detach().numpy(), state["exp_avg"].numpy(), state["exp_avg_sq"].numpy()

    ours = train(gradlite, lambda f: gradlite.capture(f, native=native_step))
    theirs = train(torch, lambda f: f)
    for actual, expected in zip(ours, theirs):
        assert np.isfinite(actual).tolist() == np.isfinite(expected).tolist()
    finite = np.isfinite(theirs[2])
    np.testing.assert_allclose(ours[0], theirs[0], rtol=1e-6)
    np.testing.assert_allclose(ours[1], theirs[1], rtol=1e-5, atol=2e-44)
    np.testing.assert_allclose(ours[2][finite], theirs[2][finite], rtol=1e-5)
    if not gradient:
        assert ((ours[1] > 0) & (ours[1] < np.finfo(np.float32).tiny)).any()


@pytest.mark.parametrize("kind", ["eager", "array calls", "compiled"])
@pytest.mark.parametrize("eps", [1e-8, 1e-13, 1e-18, 1e-20])
@pytest.mark.parametrize("name", ["Adam", "NAdam", "RMSprop", "Adagrad"])
def test_roots_of_denormal_squares_count_beside_a_small_eps(
    name: str, eps: float, kind: str
) -> None:
    """The squares of these gradients, and so the averages, are denormal numbers."""
    gradients = np.linspace(1e-20, 5e-20, 40, dtype=np.float32)

    def train(T: Any, capture: Any) -> Any:
        w = T.nn.Parameter(T.full((40,), 0.5))
        optimizer = getattr(T.optim, name)([w], lr=1e-3, eps=eps)

        def step(factor: Any) -> Any:
            optimizer.zero_grad()
            (w * factor).sum().backward()
            optimizer.step()

        run = capture(step)
        for _ in range(6):
            run(T.tensor(gradients))
        return 0.5 - w.detach().numpy()

    options = {"native": kind == "compiled"}
    if kind == "compiled" and not available():
        pytest.skip("no C++ compiler, or GRADLITE_NATIVE=0")
    ours = train(gradlite, lambda f: f if kind == "eager" else gradlite.capture(f, **options))
    theirs = train(torch, lambda f: f)
    # Averages are whole multiples of the smallest denormal number: no two ways to add agree more.
    np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=3e-7)
    if eps < 1e-16:
        assert theirs.min() > 1e-5
