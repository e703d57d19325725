"""`linear` records what `apply` would record: it is written out for speed alone."""

from __future__ import annotations

import itertools
from typing import Any

import pytest

import gradlite
from gradlite.ops.dispatch import INFERENCE_SAVED, apply
from gradlite.ops.matmul import Linear

linear = gradlite.nn.functional.linear
WANTED = list(itertools.product((False, True), repeat=3))


def operands(wanted: tuple[bool, ...]) -> list[Any]:
    shapes = ((4, 3), (2, 3), (2,))
    return [gradlite.randn(*s, requires_grad=w) for s, w in zip(shapes, wanted)]


@pytest.mark.parametrize("wanted", WANTED)
def test_the_node(wanted: tuple[bool, ...]) -> None:
    inputs = operands(wanted)
    ours, general = linear(*inputs), apply(Linear, inputs)
    assert ours.tolist() == general.tolist()
    assert ours.requires_grad == general.requires_grad == any(wanted)
    if any(wanted):
        a, b = ours._edge, general._edge
        assert a.edges == b.edges and a.versions == b.versions and a.shapes == b.shapes
        assert [x is y for x, y in zip(a.saved, b.saved)] == [True, True]
        assert (a.op, a.attrs, a.aux, a.F, a.outputs) == (b.op, b.attrs, b.aux, b.F, b.outputs)


@pytest.mark.parametrize("place", range(3))
def test_a_view_that_requires_grad_by_its_base_alone(place: int) -> None:
    inputs = operands((False, False, False))
    base = inputs[place]
    inputs[place] = base.view(base.shape)
    base.requires_grad_()
    ours, general = linear(*inputs), apply(Linear, inputs)
    assert ours.requires_grad and ours._edge.edges == general._edge.edges == (None,) * 3
    ours.sum().backward()
    assert base.grad is None


def test_inference_tensors_cannot_be_saved() -> None:
    x, weight, bias = operands((True, True, True))
    with gradlite.inference_mode():
        made = gradlite.randn(4, 3)
    with pytest.raises(RuntimeError, match=INFERENCE_SAVED[:40]):
        linear(made, weight, bias)
    frozen = weight.detach()
    assert linear(made, frozen, bias).requires_grad  # of the bias alone: nothing is saved


def test_an_edit_between_forward_and_backward_is_seen() -> None:
    x, weight, bias = operands((True, True, True))
    out = linear(x * 1, weight, bias)
    with gradlite.no_grad():
        weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()
