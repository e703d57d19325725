"""Gradient clipping does what PyTorch's does."""

from __future__ import annotations

import importlib
import math
from typing import Any

import numpy as np
import pytest

import gradlite
import gradlite.nn.utils.clip_grad
from tests.oracle import same

SHAPES = ((3, 4), (4,), (), (2, 3, 2))
ORDERS = (2, 2.0, 1, 3.5, math.inf, "inf", -math.inf, 0, 0.5)


def functions(T: Any) -> Any:
    return importlib.import_module(f"{T.__name__}.nn.utils.clip_grad")


def total_norm(T: Any) -> Any:
    module = functions(T)
    return getattr(module, "get_total_norm", None) or module._get_total_norm


def parameters(T: Any, dtype: str = "float32", scale: float = 1.0, grads: bool = True) -> Any:
    random = np.random.default_rng(3)
    params = []
    for shape in SHAPES:
        p = T.ones(shape, dtype=getattr(T, dtype), requires_grad=True)
        if grads and shape != (4,):
            grad = np.asarray(random.standard_normal(shape) * scale)
            p.grad = T.from_numpy(grad).to(getattr(T, dtype))
        params.append(p)
    return params


def grads(params: Any) -> Any:
    return [p.grad for p in params]


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("max_norm", [0.5, 1000.0, 0])
@pytest.mark.parametrize("order", ORDERS)
def test_clip_grad_norm(order: Any, max_norm: float, dtype: str) -> None:
    def program(T: Any) -> Any:
        params = parameters(T, dtype)
        return functions(T).clip_grad_norm_(params, max_norm, order), grads(params)

    same(program)


@pytest.mark.parametrize("scale", [1e-30, 1e15, 1e25])
def test_very_small_and_large_gradients(scale: float) -> None:
    def program(T: Any) -> Any:
        params = parameters(T, scale=scale)
        return functions(T).clip_grad_norm_(params, 1.0), grads(params)

    same(program, atol=0)


def test_half_precision_does_not_overflow() -> None:
    def program(T: Any) -> Any:
        params = parameters(T, "float16", 1000.0)
        return functions(T).clip_grad_norm_(params, 1.0), grads(params)

    same(program)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("order", ORDERS)
def test_gradients_that_are_not_finite(value: float, order: Any) -> None:
    def program(T: Any) -> Any:
        params = parameters(T)
        params[0].grad[1, 2] = value
        return functions(T).clip_grad_norm_(params, 1.0, order), grads(params)

    same(program)


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_error_if_nonfinite_leaves_the_gradients(value: float) -> None:
    params = parameters(gradlite)
    params[0].grad[1, 2] = value
    before = [g if g is None else g.clone() for g in grads(params)]

    def program(T: Any) -> Any:
        params = parameters(T)
        params[0].grad[1, 2] = value
        functions(T).clip_grad_norm_(params, 1.0, error_if_nonfinite=True)

    same(program, raises=RuntimeError, match="non-finite", message="exact")
    with pytest.raises(RuntimeError):
        functions(gradlite).clip_grad_norm_(params, 1.0, error_if_nonfinite=True)
    for grad, old in zip(grads(params), before):
        if old is not None:
            np.testing.assert_array_equal(grad.numpy(), old.numpy())


def test_forms_of_the_argument() -> None:
    def program(T: Any) -> Any:
        clip = functions(T).clip_grad_norm_
        params = parameters(T)
        return [
            clip(params[0], 0.5),
            clip(iter(params), 0.4),
            clip((p for p in params), 0.3, foreach=True),
            clip(params, max_norm=0.2, norm_type=1, foreach=False),
            clip([], 1.0),
            clip(parameters(T, grads=False), 1.0),
            grads(params),
        ]

    same(program)


def test_an_empty_generator_warns() -> None:
    same(
        lambda T: functions(T).clip_grad_norm_((p for p in ()), 1.0),
        warns="empty generator",
        message="exact",
    )


def test_the_deprecated_name_warns() -> None:
    def program(T: Any) -> Any:
        params = parameters(T)
        return functions(T).clip_grad_norm(params, 0.5), grads(params)

    same(program, warns="deprecated")


def test_norm_first_then_clip() -> None:
    def program(T: Any) -> Any:
        params = parameters(T)
        module = functions(T)
        clip = getattr(module, "clip_grads_with_norm_", None) or module._clip_grads_with_norm_
        total = total_norm(T)(p.grad for p in params if p.grad is not None)
        clip(params, 0.5, total)
        clip(params[0], 0.1, T.tensor(1.0))
        return total, grads(params), total_norm(T)(params[0].grad, math.inf), total_norm(T)([])

    same(program)


def test_mixed_dtypes() -> None:
    def program(T: Any) -> Any:
        params = parameters(T) + parameters(T, "float64")
        return functions(T).clip_grad_norm_(params, 0.5), grads(params)

    same(program)


def test_gradients_in_any_memory_order_and_aliases() -> None:
    array = np.asfortranarray(np.arange(12.0).reshape(3, 4))
    p = gradlite.ones(3, 4, dtype=gradlite.float64, requires_grad=True)
    p.grad = gradlite.from_numpy(array)
    version = p.grad._version
    total = functions(gradlite).clip_grad_norm_(p, 1.0)
    assert total.item() == pytest.approx(np.linalg.norm(np.arange(12.0)))
    assert not total.requires_grad and p.grad._version == version + 1
    np.testing.assert_allclose(array, np.arange(12.0).reshape(3, 4) / total.item(), rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("value", [0.5, 0, 100, -0.5])
def test_clip_grad_value(value: float, dtype: str) -> None:
    def program(T: Any) -> Any:
        params = parameters(T, dtype)
        params[0].grad[0, 0] = math.nan
        params[0].grad[0, 1] = math.inf
        result = functions(T).clip_grad_value_(params, value)
        functions(T).clip_grad_value_(params[0], value)
        functions(T).clip_grad_value_(iter(params), value, foreach=True)
        return result, grads(params)

    same(program)
