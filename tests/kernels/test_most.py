"""Kernels that count in 32 bits are left out where they would have to count further."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.nn import functional as F
from gradlite.ops import conv_launch, indexing
from tests import cupy_stand_in
from tests.cuda_on_cpu import compiler

# What is computed of x (2, 4, 6, 6), the numbers of some of its places and w (8, 1, 2, 2), and the
# kernels that serve where there are few elements.
CALLS: dict[str, tuple[Callable[..., Any], set[str]]] = {
    "a depthwise convolution": (
        lambda x, i, w: F.conv2d(x, w, padding=1, groups=4),
        {"depthwise_forward", "depthwise_input_gradient", "depthwise_weight_gradient"},
    ),
    "its transpose": (
        lambda x, i, w: F.conv_transpose2d(x[:, :, :3], w[:4], stride=3, groups=4),
        {"depthwise_input_gradient"},
    ),
    "a transposed convolution": (
        lambda x, i, w: F.conv_transpose2d(x[:, :, :3], w[:4], stride=4),
        {"columns_to_image"},
    ),
    "a gradient of an input alone": (
        lambda x, i, w: F.conv2d(F.pad(x, (1, 1, 1, 1)), w.detach().view(2, 4, 2, 2), stride=4),
        {"columns_to_image"},
    ),
    "a fill": (lambda x, i, w: x.index_fill(1, i, 2.0), {"put_along"}),
    "a sum of slices": (lambda x, i, w: x.index_add(2, i[:1], x[:, :, :1]), {"add_along"}),
    "a sum of elements": (
        lambda x, i, w: x.scatter_add(2, i[:1].expand(2, 4, 1, 6), x[:, :, :1]), {"add_along"}
    ),
    "slices": (lambda x, i, w: x.index_select(2, i[:1]), {"add_along"}),
    "elements": (lambda x, i, w: x.gather(2, i[:1].expand(2, 4, 1, 6)), {"add_along"}),
    "the largest": (lambda x, i, w: x.max(2)[0], {"add_along"}),
}  # fmt: skip
# More than anything that is read has, but no more than is written, or summed by a thread each.
MOST = {**dict.fromkeys(CALLS, 289), "a fill": 200, **dict.fromkeys(list(CALLS)[-5:], 48)}


def run(call: Callable[..., Any], device: str) -> tuple[list[Any], set[str]]:
    numbers = np.random.default_rng(0)
    x, w = (
        gradlite.tensor(numbers.standard_normal(shape), device=device, requires_grad=True)
        for shape in ((2, 4, 6, 6), (8, 1, 2, 2))
    )
    index = gradlite.tensor([3, 0, 2], device=device)
    with kernels.record() as launched:
        out = call(x, index, w)
        grads = gradlite.autograd.grad((out * out).sum(), (x, w), allow_unused=True)
    return [None if t is None else t.detach().cpu().numpy() for t in (out, *grads)], set(launched)


@pytest.mark.parametrize("name", CALLS)
def test_what_is_too_large_goes_by_the_rule(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy_stand_in.install(monkeypatch)
    call, names = CALLS[name]
    expected, _ = run(call, "cpu")
    for most in (1 << 31, MOST[name]):
        for module in (indexing, conv_launch):
            monkeypatch.setattr(module, "MOST", most)
        found, launched = run(call, "cuda")
        for ours, theirs in zip(found, expected, strict=True):
            assert (ours is None) == (theirs is None)
            if ours is not None:
                np.testing.assert_allclose(ours, theirs, 1e-6, 1e-6)
        assert launched.issuperset(names) if most == 1 << 31 else launched.isdisjoint(names)
