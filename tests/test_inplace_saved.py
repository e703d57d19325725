"""Saved values changed in place are caught exactly where PyTorch catches them."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same
from tests.views import VIEWS


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def matrix(T: Any) -> Any:
    return T.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)


# ---------------------------------------------------------------- a saved value was changed

SAVING = {
    "exp": lambda T, h: h.exp(),
    "log": lambda T, h: h.log(),
    "sin": lambda T, h: h.sin(),
    "sqrt": lambda T, h: h.sqrt(),
    "tanh": lambda T, h: h.tanh(),
    "sigmoid": lambda T, h: h.sigmoid(),
    "relu": lambda T, h: h.relu(),
    "abs": lambda T, h: h.abs(),
    "pow": lambda T, h: h**2,
    "square": lambda T, h: h * h,
    "mul_constant": lambda T, h: h * T.ones(h.shape),
    "mul_number": lambda T, h: h * 2,
    "add": lambda T, h: h + h,
    "sub": lambda T, h: 1 - h,
    "div": lambda T, h: h / T.ones(h.shape),
    "rdiv": lambda T, h: 1 / h,
    "neg": lambda T, h: -h,
    "sum": lambda T, h: h.sum(),
    "mean": lambda T, h: h.mean(0),
    "prod": lambda T, h: h.prod(),
    "max": lambda T, h: h.max(),
    "max_dim": lambda T, h: h.max(0)[0],
    "amax": lambda T, h: h.amax(0),
    "var": lambda T, h: h.var(),
    "matmul": lambda T, h: h @ T.ones(3, 2),
    "rmatmul": lambda T, h: T.ones(4, 2) @ h,
    "softmax": lambda T, h: h.softmax(0),
    "log_softmax": lambda T, h: h.log_softmax(0),
    "logsumexp": lambda T, h: h.logsumexp(0),
    "cumsum": lambda T, h: h.cumsum(0),
    "clone": lambda T, h: h.clone(),
    "cat": lambda T, h: T.cat([h, h]),
    "where": lambda T, h: T.where(h > 2, h, 0.0),
    "clamp": lambda T, h: h.clamp(0, 3),
    "gather": lambda T, h: h.gather(0, T.zeros(1, 3, dtype=T.int64)),
    "index": lambda T, h: h[[0, 1]],
    "mask": lambda T, h: h[h > 2],
    "norm": lambda T, h: h.norm(),
    "gelu": lambda T, h: T.nn.functional.gelu(h),
    "softplus": lambda T, h: T.nn.functional.softplus(h),
    "mse_loss": lambda T, h: T.nn.functional.mse_loss(h, T.zeros(2, 3)),
    "cross_entropy": lambda T, h: T.nn.functional.cross_entropy(h, T.tensor([0, 1])),
    "layer_norm": lambda T, h: T.nn.functional.layer_norm(h, (3,)),
    "linear": lambda T, h: T.nn.functional.linear(h, T.ones(2, 3)),
    "maximum": lambda T, h: T.maximum(h, T.zeros(2, 3)),
    "addmm": lambda T, h: T.addmm(T.zeros(2, 2), h, T.ones(3, 2)),
}


@pytest.mark.parametrize("name", SAVING)
def test_a_changed_input_is_caught_exactly_where_it_was_saved(name):
    def program(T):
        x = matrix(T)
        h = x * 1
        y = SAVING[name](T, h)
        h.add_(1)
        return outcome_of(y.sum().backward), x.grad

    same(program, message="details")


@pytest.mark.parametrize("name", SAVING)
def test_a_changed_output_is_caught_exactly_where_it_was_saved(name):
    def program(T):
        x = matrix(T)
        y = SAVING[name](T, x * 1)
        y.mul_(2)
        return outcome_of(y.sum().backward), x.grad

    same(program, message="details")


@pytest.mark.parametrize("view", VIEWS)
def test_a_change_through_any_view_is_caught(view):
    def program(T):
        h = matrix(T) * 1
        y = h.sin()
        VIEWS[view](h).add_(1)
        y.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation")


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "detach"])
def test_a_change_of_the_base_after_a_view_was_saved_is_caught(view):
    def program(T):
        h = matrix(T) * 1
        y = VIEWS[view](h).sin()
        h.add_(1)
        y.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation")


def test_the_message_names_the_tensor_the_op_and_both_versions():
    def program(T):
        y = leaf(T).exp()
        y.add_(1)
        y.add_(1)
        y.sum().backward()

    same(
        program,
        raises=RuntimeError,
        match=r"\[torch.FloatTensor \[3\]\], which is output 0 of Exp, is at version 2; expected",
        message="exact",
    )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_the_message_names_the_type_of_the_tensor(dtype):
    def program(T):
        x = T.ones(2, 3, dtype=getattr(T, dtype), requires_grad=True)
        w = T.ones(2, 3, dtype=getattr(T, dtype))
        y = x * w
        w.add_(1)
        y.sum().backward()

    same(program, raises=RuntimeError, match="is at version 1; expected version 0", message="exact")


def test_the_message_for_an_input_that_is_a_leaf():
    def program(T):
        x, w = leaf(T), leaf(T)
        y = x * w
        with T.no_grad():
            w.mul_(2)
        y.sum().backward()

    same(program, raises=RuntimeError, message="exact")


def test_the_message_when_anomaly_mode_is_on():
    def program(T):
        with T.autograd.detect_anomaly(check_nan=False):
            y = leaf(T).exp()
            y.add_(1)
            y.sum().backward()

    # Beside the error PyTorch warns with the forward traceback, and gives another hint.
    same(
        program,
        raises=RuntimeError,
        match="modified by an inplace operation",
        warns="Anomaly Detection",
        message="prefix",
    )


def test_a_value_changed_and_changed_back_is_still_caught():
    def program(T):
        h = leaf(T) * 1
        y = h.sin()
        h.add_(1)
        h.sub_(1)
        y.sum().backward()

    same(program, raises=RuntimeError, match="is at version 2; expected version 0")


def test_a_change_between_two_backwards_is_caught_by_the_second():
    def program(T):
        x = leaf(T)
        h = x * 1
        y = h.sin().sum()
        y.backward(retain_graph=True)
        h.add_(1)
        return outcome_of(y.backward), x.grad

    same(program)


def test_changing_what_nobody_needs_is_fine():
    def program(T):
        x = leaf(T)
        h = x * 2
        y = (h + 1).sum()
        h.zero_()
        y.backward()
        return x.grad, h

    same(program)


def test_optimizing_a_weight_twice_without_a_new_forward_is_caught():
    def program(T):
        w = T.ones(3, 3, requires_grad=True)
        v = T.ones(3, 3, requires_grad=True)
        y = ((T.ones(2, 3) @ w) @ v).sum()
        y.backward(retain_graph=True)
        with T.no_grad():
            for p in (w, v):
                p -= p.grad
        return outcome_of(y.backward)

    same(program)


def test_changes_of_running_statistics_are_not_caught():
    def program(T):
        layer = T.nn.BatchNorm1d(3)
        x = T.tensor([[1.0, 2.0, 3.0], [3.0, 2.0, 5.0]], requires_grad=True)
        first = layer(x)
        second = layer(x)
        (first + second).sum().backward()
        return x.grad, layer.running_mean

    same(program, rtol=1e-4, atol=1e-6)
