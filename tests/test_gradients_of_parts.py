"""Gradients of parts of a tensor, which are added to one array, as if each had its own."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests import cupy_stand_in as stand_in
from tests.cupy_stand_in import arrays
from tests.oracle import same

PARTS = {
    "slices": lambda y: [y[1:], y[:-1], y[::2]],
    "numbers": lambda y: [y[0], y[-1], y[2], y[0]],
    "columns": lambda y: [y[:, 1:], y[..., 0], y[1, 2]],
    "narrow": lambda y: [y.narrow(0, 1, 2), y.narrow(1, 0, 3), y.narrow(0, 0, 4)],
    "select": lambda y: [y.select(0, -1), y.select(1, 0), y.select(0, 1)],
    "chunk": lambda y: [*y.chunk(2), y.tensor_split(3)[1], *y.unbind()[1:]],
    "of parts": lambda y: [y[1:][:, 1:], y[1:][0], y[:2].T[1:]],
    "new": lambda y: [y[None, 1:], y[:1, None]],
    "differences": lambda y: [y.diff(), y.diff(dim=0)],
}


def total(T: Any, parts: Any) -> Any:
    """A number whose gradients are different everywhere."""
    result = 0
    for k, part in enumerate(parts):
        weights = T.arange(1.0, part.numel() + 1).reshape(part.shape).to(part.dtype)
        result = result + (part * weights * (k + 1)).sum() + (part * part).sum()
    return result


def made(T: Any, dtype: str = "float64") -> tuple[Any, Any]:
    x = (T.arange(16.0) / 8).reshape(4, 4).to(getattr(T, dtype)).requires_grad_()
    return x, x * 2


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
@pytest.mark.parametrize("leaf", [True, False])
def test_parts_and_the_whole(parts: Any, leaf: bool) -> None:
    def program(T: Any) -> Any:
        x, y = made(T)
        source = x if leaf else y
        total(T, [*parts(source), source, source.T]).backward()
        first = x.grad.clone()
        total(T, [source.exp(), *parts(source * 1)]).backward()
        return first, x.grad

    def once(T: Any) -> Any:
        x, y = made(T)
        total(T, parts(x if leaf else y)).backward()
        return x.grad

    if leaf:
        same(program)
    same(once)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_dtypes(dtype: str) -> None:
    def program(T: Any) -> Any:
        x, y = made(T, dtype)
        (y[1:].sum() * 2 + y[:2].sum() * 3 + y[1].sum()).backward()
        return x.grad

    same(program)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_gradients_of_inputs_of_a_pass(parts: Any) -> None:
    def program(T: Any) -> Any:
        x, y = made(T)
        out = total(T, [*parts(y), *parts(x)])
        first = T.autograd.grad(out, [y, x], retain_graph=True)
        second = T.autograd.grad(out, [x], retain_graph=True)
        third = T.autograd.grad(out, [x, y], create_graph=True)
        return *first, *second, *third, *T.autograd.grad(third[0].sum(), [x])

    same(program)


def test_hooks_see_what_they_saw() -> None:
    def program(T: Any) -> Any:
        x, y = made(T)
        parts, seen = [y[1:], y[:3], y[2], y[0]], []
        y.register_hook(lambda grad: seen.append(grad) or grad * 2)
        y.retain_grad()
        parts[1].register_hook(lambda grad: grad * 3)
        for part in parts[1:3]:
            part.grad_fn.register_hook(lambda into, _: seen.append(into[0]))
        total(T, parts).backward()
        return x.grad, y.grad, *seen

    same(program)


def test_gradients_that_are_given_stay_as_they_are() -> None:
    def program(T: Any) -> Any:
        x, y = made(T)
        given, own = T.ones(4, 4).double(), T.ones(3, 4).double()
        T.autograd.backward([y, y[1:], y[:3], y[0].sum()], [given, own, own, None])
        return x.grad, given, own

    same(program)


def test_a_gradient_that_went_elsewhere_too() -> None:
    def program(T: Any) -> Any:
        x, y = made(T)
        z = y[1:] + y[:3]  # whose gradients are one array
        (z * z).sum().backward()
        whole = y.clone().detach().requires_grad_()
        (whole.narrow(0, 0, 4) + whole[1] + whole.narrow(0, 0, 4).exp()).sum().backward()
        return x.grad, whole.grad

    same(program)


def test_edits_of_parts() -> None:
    def program(T: Any) -> Any:
        x, y = made(T)
        y[1] = y[0] * 3
        y[:, 0].mul_(2)
        total(T, [y[1:], y[0], y[:, 1:]]).backward()
        return x.grad

    same(program)


@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_captured_steps(parts: Any) -> None:
    x = made(gradlite)[0]

    def step(factor: Any) -> Any:
        x.grad = None
        y = x * factor
        out = total(gradlite, [*parts(y), *parts(x)])
        out.backward()
        return out

    captured = gradlite.capture(step)
    for k in range(4):
        factor = gradlite.tensor(float(k), dtype=gradlite.float64)
        captured(factor)
        found = x.grad.numpy().copy()
        step(factor)
        np.testing.assert_allclose(found, x.grad.numpy(), 1e-12)


def test_one_array_of_zeros_for_all(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    x = gradlite.ones(6, 5, device="cuda", requires_grad=True)
    out = sum((x[k] * (k + 1)).sum() for k in range(6))
    arrays.calls = calls = []
    try:
        out.backward()
    finally:
        arrays.calls = None
    assert calls.count("zeros") == 1 and calls.count("setitem") == 1
    assert x.grad[:, 0].tolist() == [1, 2, 3, 4, 5, 6]
