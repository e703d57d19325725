"""Freeing of saved values, retain_graph and create_graph, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- a second time

TWICE = {
    "add": lambda T, x: x + x,
    "add_scalar": lambda T, x: x + 1,
    "sub": lambda T, x: x - 2 * x,
    "neg": lambda T, x: -x,
    "mul_scalar": lambda T, x: x * 3,
    "mul_constant": lambda T, x: x * T.ones(3),
    "mul": lambda T, x: x * x,
    "div_scalar": lambda T, x: x / 3,
    "div": lambda T, x: x / x,
    "rdiv": lambda T, x: 1 / x,
    "pow_1": lambda T, x: x**1,
    "pow_2": lambda T, x: x**2,
    "pow_0": lambda T, x: x**0,
    "exp": lambda T, x: x.exp(),
    "log": lambda T, x: x.log(),
    "sqrt": lambda T, x: x.sqrt(),
    "sin": lambda T, x: x.sin(),
    "tanh": lambda T, x: x.tanh(),
    "sigmoid": lambda T, x: x.sigmoid(),
    "relu": lambda T, x: x.relu(),
    "abs": lambda T, x: x.abs(),
    "sign": lambda T, x: x.sign(),
    "floor": lambda T, x: x.floor(),
    "clamp": lambda T, x: x.clamp(0, 2),
    "sum": lambda T, x: x.sum(),
    "mean": lambda T, x: x.mean(),
    "max": lambda T, x: x.max(),
    "max_dim": lambda T, x: x.max(0)[0],
    "amax": lambda T, x: x.amax(0),
    "prod": lambda T, x: x.prod(),
    "var": lambda T, x: x.var(),
    "cumsum": lambda T, x: x.cumsum(0),
    "softmax": lambda T, x: x.softmax(0),
    "log_softmax": lambda T, x: x.log_softmax(0),
    "logsumexp": lambda T, x: x.logsumexp(0),
    "matmul": lambda T, x: x @ x,
    "matmul_2d": lambda T, x: x[None] @ x[:, None],
    "mm_constant": lambda T, x: x[None] @ T.ones(3, 2),
    "view": lambda T, x: x.view(3, 1),
    "transpose": lambda T, x: x.view(3, 1).transpose(0, 1),
    "expand": lambda T, x: x.expand(2, 3),
    "slice": lambda T, x: x[1:],
    "select": lambda T, x: x[0],
    "index": lambda T, x: x[[0, 0]],
    "mask": lambda T, x: x[x > 1],
    "unsqueeze": lambda T, x: x.unsqueeze(0),
    "clone": lambda T, x: x.clone(),
    "double": lambda T, x: x.double(),
    "cat": lambda T, x: T.cat([x, x]),
    "stack": lambda T, x: T.stack([x, x]),
    "where": lambda T, x: T.where(x > 1, x, 0.0),
    "masked_fill": lambda T, x: x.masked_fill(x > 1, 0.0),
    "gather": lambda T, x: x.gather(0, T.tensor([1, 1])),
    "index_select": lambda T, x: x.index_select(0, T.tensor([1, 1])),
    "flip": lambda T, x: x.flip(0),
    "repeat": lambda T, x: x.repeat(2),
    "tril": lambda T, x: x.view(1, 3).tril(),
    "sort": lambda T, x: x.sort()[0],
    "maximum": lambda T, x: T.maximum(x, T.zeros(3)),
    "mse_loss": lambda T, x: T.nn.functional.mse_loss(x, T.zeros(3)),
    "gelu": lambda T, x: T.nn.functional.gelu(x),
    "cross_entropy": lambda T, x: T.nn.functional.cross_entropy(x[None], T.tensor([1])),
    "linear": lambda T, x: T.nn.functional.linear(x, T.ones(2, 3)),
    "setitem": lambda T, x: setitem(x.clone()),
    "add_": lambda T, x: x.clone().add_(1),
    "mul_": lambda T, x: x.clone().mul_(2),
    "exp_": lambda T, x: x.clone().exp_(),
}


def setitem(t: Any) -> Any:
    t[0] = 0.0
    return t


@pytest.mark.parametrize("name", TWICE)
def test_a_second_backward_fails_exactly_where_values_were_saved(name):
    def program(T):
        x = leaf(T)
        y = TWICE[name](T, x)
        y.backward(T.ones(y.shape, dtype=y.dtype))
        return outcome_of(lambda: y.backward(T.ones(y.shape, dtype=y.dtype))), x.grad

    same(program)


@pytest.mark.parametrize("name", TWICE)
def test_retain_graph_allows_a_second_backward(name):
    def program(T):
        x = leaf(T)
        y = TWICE[name](T, x)
        y.backward(T.ones(y.shape, dtype=y.dtype), retain_graph=True)
        y.backward(T.ones(y.shape, dtype=y.dtype))
        return x.grad

    same(program)


def test_the_message_of_a_second_backward():
    def program(T):
        y = (leaf(T) ** 2).sum()
        y.backward()
        y.backward()

    same(
        program,
        raises=RuntimeError,
        match="Trying to backward through the graph a second time",
        message="exact",
    )


def test_a_shared_part_of_two_graphs_is_freed_by_the_first_backward():
    def program(T):
        x = leaf(T)
        h = x.exp()
        (h * 2).sum().backward()
        return outcome_of((h * 3).sum().backward), x.grad

    same(program)


def test_a_failing_second_backward_leaves_earlier_gradients():
    def program(T):
        x, y = leaf(T), leaf(T)
        z = (x.exp() + y).sum()
        z.backward()
        error = outcome_of(z.backward)
        return error, x.grad

    same(program)


def test_part_of_a_graph_that_was_not_visited_is_not_freed():
    def program(T):
        x = leaf(T)
        h = x.exp()
        a, b = h.sin(), h.cos()
        T.autograd.grad(a.sum(), h)
        error = outcome_of(lambda: T.autograd.grad(a.sum(), h))
        b.sum().backward()
        return error, x.grad

    same(program)


# ---------------------------------------------------------------- create_graph


def test_create_graph_warns_about_the_cycle():
    def program(T):
        x = leaf(T)
        (x**3).sum().backward(create_graph=True)
        return x.grad.requires_grad, x.grad.detach()

    same(program, warns="create_graph=True", message="prefix")


def test_create_graph_makes_a_differentiable_grad():
    def program(T):
        x = leaf(T)
        (x**3).sum().backward(create_graph=True)
        first = x.grad
        x.grad = None
        first.sum().backward()
        return first.requires_grad, first.detach(), x.grad

    same(program, warns="create_graph=True")


def test_create_graph_accumulates_out_of_place():
    def program(T):
        x = leaf(T)
        (x**2).sum().backward()
        before = x.grad
        (x**3).sum().backward(create_graph=True)
        return before, x.grad.requires_grad, x.grad.detach(), x.grad is before

    same(program, warns="create_graph=True")


def test_create_graph_implies_retain_graph():
    def program(T):
        x = leaf(T)
        y = (x**3).sum()
        (g,) = T.autograd.grad(y, x, create_graph=True)
        y.backward()
        return g, x.grad

    same(program)


@pytest.mark.parametrize("order", [1, 2, 3, 4])
def test_derivatives_of_every_order(order):
    def program(T):
        x = T.tensor(0.7, dtype=T.float64, requires_grad=True)
        y = x.sin() * x.exp() + x**5 / (1 + x * x)
        for _ in range(order):
            (y,) = T.autograd.grad(y, x, create_graph=True)
        return y.detach()

    same(program)
