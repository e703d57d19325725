"""What a captured step asks of its inputs beside their values: memory, identity, attributes."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.capture_support import close, replays

__all__ = ["replays"]  # which is used by every test

CALLS = 6
Inputs = Callable[[], tuple[Any, ...]]


def same(step: Any, *makers: Inputs, least: int = 3) -> Any:
    """The step gives captured what it gives as it is, with inputs of several makers in turn."""
    captured = gradlite.capture(step)
    for make in (*makers, makers[0]):
        for _ in range(CALLS):
            close(captured(*make()).tolist(), step(*make()).tolist())
    assert captured.replays >= least
    return captured


def plain() -> tuple[Any]:
    return (gradlite.arange(6.0).reshape(2, 3),)


def turned() -> tuple[Any]:
    return (gradlite.arange(6.0).reshape(3, 2).t(),)


# ------------------------------------------------------------------------------- memory
@pytest.mark.parametrize(
    "ask",
    [
        lambda x: x.is_contiguous(),
        lambda x: x.stride() == (3, 1),
        lambda x: x.stride(0) == 3,
        lambda x: x.stride(-1) == 1,
    ],
)
def test_how_an_input_lies(ask: Any) -> None:
    captured = same(lambda x: x * 2 if ask(x) else x * 3, plain, turned, least=9)
    assert captured.recordings == 2


def test_what_is_not_asked_makes_no_other_recording() -> None:
    captured = same(lambda x: x * 2, plain, turned, least=3 * CALLS - 3)
    assert captured.recordings == 1


def test_where_an_input_begins(replays: str) -> None:
    if replays == "stand-in":
        pytest.skip("its arrays do not say where the memory begins that they share")
    whole = gradlite.arange(12.0)
    same(lambda x: x * (1 + x.storage_offset()), lambda: (whole[:6],), lambda: (whole[6:],))


def test_whose_memory_an_input_is() -> None:
    own, other = gradlite.arange(6.0), gradlite.arange(6.0)
    same(
        lambda x: x * 2 if x.data_ptr() == own.data_ptr() else x * 3,
        lambda: (own.detach(),),
        lambda: (other,),
    )


@pytest.mark.parametrize("ask", [lambda x: x._is_view(), lambda x: x._base is not None])
def test_whether_an_input_is_a_view(ask: Any) -> None:
    flat = gradlite.arange(6.0)
    same(lambda x: x * 2 if ask(x) else x * 3, lambda: (flat,), lambda: (flat.view(6),))


def test_how_often_an_input_was_edited() -> None:
    def edited() -> tuple[Any]:
        (x,) = plain()
        return (x.add_(0),)

    same(lambda x: x * (2 + x._version), lambda: (gradlite.ones(3),), lambda: (*edited(),))


def test_where_an_input_was_made() -> None:
    def inference() -> tuple[Any]:
        with gradlite.inference_mode():
            return (gradlite.arange(6.0).reshape(2, 3),)

    same(lambda x: x * 2 if x.is_inference() else x * 3, plain, inference)


def test_addresses_that_are_others_at_every_call_are_complained_of() -> None:
    captured = gradlite.capture(lambda x: x * 2 if x.data_ptr() else x)
    kept = [gradlite.ones(2) for _ in range(40)]
    with pytest.warns(UserWarning, match=r"what it asks of its inputs \(data_ptr\) changes"):
        for x in kept:
            captured(x)


# ------------------------------------------------------------------------------ identity
def test_one_input_twice() -> None:
    x, y = gradlite.ones(2), gradlite.ones(2)
    same(lambda a, b: a * 2 if a is b else a * 3, lambda: (x, x), lambda: (x, y), least=9)


def test_one_input_twice_that_is_edited() -> None:
    def step(a: Any, b: Any) -> Any:
        a.add_(1)
        return a + b

    captured = gradlite.capture(step)
    for i in range(2 * CALLS):
        x, y = gradlite.full((2,), float(i)), gradlite.zeros(2)
        assert captured(x, x).tolist() == [2.0 * i + 2] * 2
        assert x.tolist() == [i + 1.0] * 2
        assert captured(x, y).tolist() == [i + 2.0] * 2
        assert x.tolist() == [i + 2.0] * 2
    assert (captured.recordings, captured.replays) == (2, 4 * CALLS - 6)


def test_an_input_that_is_a_tensor_of_the_step() -> None:
    own, other = gradlite.ones(2), gradlite.ones(2)
    captured = same(
        lambda x: x * 2 if x is own else x * 3, lambda: (other,), lambda: (own,), least=3
    )
    assert captured.replays == 2 * CALLS - 3  # those with its own one run as they are


def test_an_input_among_tensors_of_the_step() -> None:
    layers = [gradlite.ones(2), gradlite.zeros(2)]
    same(
        lambda x: x * 2 if any(x is p for p in layers) else x * 3,
        lambda: (gradlite.ones(2),),
        lambda: (layers[1],),
    )


def test_a_tensor_of_the_step_as_a_key_is_refused() -> None:
    own = gradlite.ones(2)
    table = {own: 2.0}
    captured = gradlite.capture(lambda x: x * table.get(x, 3.0))
    captured(own)
    with pytest.raises(gradlite.CaptureError, match="looks up an input"):
        captured(own)
    for _ in range(CALLS):
        assert captured(gradlite.ones(2)).tolist() == [3.0, 3.0]


# -------------------------------------------------------------------- classes, attributes
class Marked(gradlite.Tensor):
    """A class of tensors with a number."""

    by = 4.0


def test_the_class_of_an_input() -> None:
    captured = same(
        lambda x: x * (2 if isinstance(x, nn.Parameter) else getattr(x, "by", 3.0)),
        plain,
        lambda: (nn.Parameter(plain()[0], requires_grad=False),),
        lambda: (plain()[0].as_subclass(Marked),),
        least=12,
    )
    assert captured.recordings == 3


def test_a_number_of_the_class_of_an_input() -> None:
    captured = gradlite.capture(lambda x: x * x.by)
    try:
        for number in (4.0, 5.0):
            Marked.by = number
            for _ in range(CALLS):
                x = gradlite.ones(2).as_subclass(Marked)
                assert captured(x).tolist() == [number] * 2
    finally:
        Marked.by = 4.0
    assert captured.replays >= 6


def tagged(value: Any) -> Inputs:
    def make() -> tuple[Any]:
        (x,) = plain()
        x.tag = value
        return (x,)

    return make


def test_an_attribute_of_an_input() -> None:
    same(lambda x: x * x.tag, tagged(2.0), tagged(5.0), least=9)
    same(lambda x: x * getattr(x, "tag", 3.0), plain, tagged(5.0), tagged(2.0), least=12)
    same(lambda x: x * 2 if hasattr(x, "tag") else x * 3, plain, tagged(5.0))


def test_an_attribute_of_an_input_that_is_no_number_is_refused() -> None:
    captured = gradlite.capture(lambda x: x * x.tag, warmup=0)
    with pytest.raises(gradlite.CaptureError, match="the attribute 'tag' of an input"):
        captured(*tagged(gradlite.ones(3))())


def test_setting_an_attribute_of_an_input_is_refused() -> None:
    def step(x: Any) -> Any:
        x.seen = True
        return x * 2

    captured = gradlite.capture(step, warmup=0)
    with pytest.raises(gradlite.CaptureError, match="sets the attribute 'seen' of an input"):
        captured(*plain())


def test_an_attribute_that_nobody_has_is_an_error() -> None:
    captured = gradlite.capture(lambda x: x.nothing, warmup=0)
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'nothing'"):
        captured(*plain())
    with pytest.raises(AttributeError, match="'Tensor' object has no attribute 'nothing'"):
        plain()[0].nothing  # noqa: B018


# ---------------------------------------------------------------------------- gradients
def with_gradient() -> tuple[Any]:
    (x,) = plain()
    x.grad = gradlite.ones(2, 3)
    return (x,)


def squared(x: Any) -> Any:
    x.requires_grad_()
    (x * x).sum().backward()
    return x.grad * 1


@pytest.mark.parametrize("step", [squared, lambda x: x * 2 if x.grad is None else x * x.grad])
def test_a_gradient_of_an_input_from_before_is_refused(step: Any) -> None:
    captured = gradlite.capture(step)
    for _ in range(CALLS):
        np.testing.assert_allclose(captured(*plain()).cpu(), plain()[0].cpu() * 2)
    with pytest.raises(gradlite.CaptureError, match="the gradient of an input"):
        for _ in range(2):
            captured(*with_gradient())
    assert captured.replays == CALLS - 3


def test_hooks_of_an_input_are_refused() -> None:
    captured = gradlite.capture(squared)
    for _ in range(CALLS):
        captured(*plain())
    (x,) = plain()
    x.requires_grad_().register_hook(lambda grad: grad * 5)
    x.requires_grad_(False)
    with pytest.raises(gradlite.CaptureError, match="has hooks"):
        captured(x)


def test_an_input_made_in_inference_mode_is_refused_as_without_capture() -> None:
    w = gradlite.ones(3, requires_grad=True)
    captured = gradlite.capture(lambda x: (x * w).sum())
    for _ in range(4):
        captured(gradlite.ones(3))
    with gradlite.inference_mode():
        x = gradlite.ones(3)
    with pytest.raises(RuntimeError, match="Inference tensors cannot be saved for backward"):
        captured(x)
    assert captured(gradlite.ones(3)).item() == 3.0
