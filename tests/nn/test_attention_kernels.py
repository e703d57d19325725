"""Choosing how attention is computed: PyTorch's choices and errors on the CPU."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.nn import functional as F
from gradlite.nn.attention import SDPBackend, sdpa_kernel
from tests.oracle import torch

NAMES = ["ERROR", "MATH", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION"]
CHOICES = [*([name] for name in NAMES), [], ["MATH", "FLASH_ATTENTION"]]
CHOICES += [["EFFICIENT_ATTENTION", "FLASH_ATTENTION"], ["MATH", "EFFICIENT_ATTENTION"]]

# ERROR has no place in PyTorch's list of priorities.
ORDERS = [(names, p) for names in CHOICES for p in (False, True) if not p or "ERROR" not in names]


def query(library: Any) -> Any:
    values = np.random.default_rng(0).standard_normal((2, 2, 4, 8)).astype(np.float32)
    return library.from_numpy(values).requires_grad_()


CALLS: dict[str, Callable[[Any, Any], Any]] = {
    "plain": lambda f, q: f(q, q, q),
    "causal": lambda f, q: f(q, q, q, is_causal=True),
    "masked": lambda f, q: f(q, q, q, (q[0, 0] @ q[0, 0].T).detach()),
    "mask requires grad": lambda f, q: f(q, q, q, q[0, 0] @ q[0, 0].T),
    "dropout": lambda f, q: f(q, q, q, dropout_p=0.5),
    "broadcast": lambda f, q: f(q, q[:1], q[:1]),
    "double": lambda f, q: f(q.double(), q.double(), q.double()),
}


def outcome(library: Any, names: list[str], priority: bool, call: Callable[..., Any]) -> Any:
    attention = library.nn.attention
    q, backends = query(library), [getattr(attention.SDPBackend, name) for name in names]
    with warnings.catch_warnings(), attention.sdpa_kernel(backends, set_priority=priority):
        warnings.simplefilter("ignore")  # PyTorch says there why a kernel was not used
        try:
            return call(library.nn.functional.scaled_dot_product_attention, q)
        except RuntimeError as error:
            return " ".join(str(error).split())[:40]


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize(("names", "priority"), ORDERS)
def test_choice(name: str, names: list[str], priority: bool) -> None:
    ours, theirs = (outcome(t, names, priority, CALLS[name]) for t in (gradlite, torch))
    if isinstance(ours, str) or isinstance(theirs, str):
        assert ours == theirs
        return
    if name != "masked":  # fused here where it pays, and where nothing else is allowed
        fused = "ScaledDotProductFlashAttentionForCpuBackward0"
        assert (ours.grad_fn.name() == fused) == (theirs.grad_fn.name() == fused)
    if name != "dropout":
        found, expected = ours.detach().numpy(), theirs.detach().numpy()
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)


def test_restored_after_an_error_and_nested() -> None:
    q = query(gradlite)

    def fused() -> bool:
        out = F.scaled_dot_product_attention(q, q, q)
        return bool(out.grad_fn.name().startswith("ScaledDotProduct"))

    with pytest.raises(KeyError), sdpa_kernel(SDPBackend.MATH):
        raise KeyError
    assert fused()
    with sdpa_kernel(SDPBackend.MATH):
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION]):
            assert fused()
        assert not fused()
    assert fused()
    decorated = sdpa_kernel(SDPBackend.MATH)(fused)
    assert not decorated() and not decorated() and fused()


@pytest.mark.parametrize("wrong", [1, (), None])
def test_wrong_argument(wrong: Any) -> None:
    messages = []
    for library in (gradlite, torch):
        with pytest.raises(AssertionError) as error, library.nn.attention.sdpa_kernel(wrong):
            pass
        messages.append(str(error.value))
    assert messages[0] == messages[1]


@pytest.mark.parametrize("name", ["flash", "math", "mem_efficient", "cudnn"])
def test_switches(name: str) -> None:
    for library in (gradlite, torch):
        cuda = library.backends.cuda
        enable, enabled = getattr(cuda, f"enable_{name}_sdp"), getattr(cuda, f"{name}_sdp_enabled")
        try:
            assert enabled()
            enable(False)
            assert not enabled()
            with library.nn.attention.sdpa_kernel(library.nn.attention.SDPBackend.MATH):
                assert enabled() == (name == "math")
            assert not enabled()
        finally:
            enable(True)
        assert enabled()


def test_deprecated_switches() -> None:
    for library in (gradlite, torch):
        with pytest.warns(FutureWarning, match="is deprecated") as caught:
            with library.backends.cuda.sdp_kernel(enable_flash=False):
                assert not library.backends.cuda.flash_sdp_enabled()
                assert library.backends.cuda.math_sdp_enabled()
        assert library.backends.cuda.flash_sdp_enabled()
        assert library is torch or caught[0].filename == __file__


def test_another_way_is_another_recording() -> None:
    @gradlite.capture(native=False)
    def step(q: Any) -> Any:
        return F.scaled_dot_product_attention(q, q, q)

    q = query(gradlite).detach()
    for _ in range(4):
        usual = step(q)
    assert step.recordings == 1
    with sdpa_kernel(SDPBackend.MATH):
        for _ in range(4):
            composed = step(q)
    assert step.recordings == 2 and step.replays == 2
    assert composed.allclose(usual)
    # The composed way looks for rows that are masked whole, the fused one does not.
    fused, composition = str(step.explain()).split("recording 1")
    assert "isfinite(" in composition and "isfinite(" not in fused
