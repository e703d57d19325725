"""requires_grad, leaves, grad_fn and the walk of backward(), each compared with PyTorch."""

from __future__ import annotations

import gc
from typing import Any

import pytest

from tests.library import library
from tests.oracle import outcome_of, same

FACTORIES = {
    "tensor": lambda T, **k: T.tensor([1.0, 2.0], **k),
    "zeros": lambda T, **k: T.zeros(2, 3, **k),
    "ones": lambda T, **k: T.ones((2, 3), **k),
    "full": lambda T, **k: T.full((2,), 3.0, **k),
    "arange": lambda T, **k: T.arange(0.0, 4.0, **k),
    "linspace": lambda T, **k: T.linspace(0, 1, 5, **k),
    "eye": lambda T, **k: T.eye(3, **k),
    "zeros_like": lambda T, **k: T.zeros_like(T.ones(2), **k),
    "ones_like": lambda T, **k: T.ones_like(T.ones(2), **k),
    "full_like": lambda T, **k: T.full_like(T.ones(2), 4.0, **k),
}
RANDOM_FACTORIES = {
    "rand": lambda T, **k: T.rand(2, 3, **k),
    "randn": lambda T, **k: T.randn((2, 3), **k),
    "empty": lambda T, **k: T.empty(2, **k),
    "rand_like": lambda T, **k: T.rand_like(T.ones(2), **k),
    "randn_like": lambda T, **k: T.randn_like(T.ones(2), **k),
    "empty_like": lambda T, **k: T.empty_like(T.ones(2), **k),
}
ALL_FACTORIES = {**FACTORIES, **RANDOM_FACTORIES}


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- requires_grad on creation


@pytest.mark.parametrize("name", FACTORIES)
def test_factories_do_not_require_grad_by_default(name):
    same(lambda T: FACTORIES[name](T))


@pytest.mark.parametrize("name", ALL_FACTORIES)
def test_factories_take_requires_grad(name):
    def program(T):
        t = ALL_FACTORIES[name](T, requires_grad=True)
        return t.requires_grad, t.is_leaf, t.grad_fn, t.grad, t.shape, t.dtype

    same(program)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_every_float_dtype_can_require_grad(dtype):
    same(lambda T: T.ones(2, dtype=getattr(T, dtype), requires_grad=True))


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "bool"])
@pytest.mark.parametrize("factory", ["zeros", "ones", "empty"])
def test_other_dtypes_cannot_require_grad_at_creation(dtype, factory):
    same(
        lambda T: getattr(T, factory)(2, dtype=getattr(T, dtype), requires_grad=True),
        raises=RuntimeError,
        match="floating point",
        message="exact",
    )


@pytest.mark.parametrize("values", [[1, 2], [True], 3])
def test_tensor_of_integers_cannot_require_grad(values):
    same(
        lambda T: T.tensor(values, requires_grad=True),
        raises=RuntimeError,
        match="Only Tensors of floating point and complex dtype can require gradients",
        message="exact",
    )


@pytest.mark.parametrize("dtype", ["uint8", "int32", "int64", "bool"])
def test_other_dtypes_cannot_be_switched_on(dtype):
    def program(T):
        return T.zeros(2, dtype=getattr(T, dtype)).requires_grad_()

    same(program, raises=RuntimeError, match="floating point", message="exact")


def test_the_setter_refuses_integer_tensors_with_its_own_words():
    def program(T):
        t = T.tensor([1, 2])
        t.requires_grad = True

    same(program, raises=RuntimeError, match="floating point", message="exact")


def test_integer_tensors_may_be_switched_off():
    same(lambda T: T.tensor([1]).requires_grad_(False))


def test_a_failed_switch_changes_nothing():
    def program(T):
        t = T.tensor([1])
        error = outcome_of(lambda: t.requires_grad_())
        return error, t

    same(program)


def test_requires_grad_argument_may_be_given_explicitly_off():
    same(lambda T: T.tensor([1, 2], requires_grad=False))


# ---------------------------------------------------------------- switching leaves


def test_requires_grad_switches_a_leaf_and_returns_it():
    def program(T):
        t = T.ones(2)
        other = t.requires_grad_()
        return other is t, t, t.requires_grad_(False) is t, t, t.requires_grad_(True)

    same(program)


def test_requires_grad_setter_switches_a_leaf():
    def program(T):
        t = T.ones(2)
        t.requires_grad = True
        states = [t.requires_grad]
        t.requires_grad = False
        return [*states, t.requires_grad]

    same(program)


@pytest.mark.parametrize("how", ["method", "setter"])
def test_a_non_leaf_cannot_be_switched_off(how):
    def program(T):
        y = leaf(T) * 2
        if how == "method":
            y.requires_grad_(False)
        else:
            y.requires_grad = False

    same(program, raises=RuntimeError, match="use .*detach", message="exact")


def test_a_non_leaf_that_requires_grad_may_be_switched_on_again():
    def program(T):
        y = leaf(T) * 2
        return y.requires_grad_() is y, y

    same(program)


def test_a_leaf_switched_off_after_forward_still_gets_its_gradient():
    def program(T):
        x = leaf(T)
        y = (x * x).sum()
        x.requires_grad_(False)
        error = outcome_of(y.backward)
        return x.grad, error

    same(program)


def test_the_flag_must_be_a_bool():
    def program(T):
        t = T.ones(1)
        t.requires_grad = "yes"

    same(program, raises=RuntimeError, match="must be a bool", message="exact")


# ---------------------------------------------------------------- propagation


@pytest.mark.parametrize("a", [False, True])
@pytest.mark.parametrize("b", [False, True])
@pytest.mark.parametrize("mode", [False, True])
def test_a_result_requires_grad_when_an_input_does_and_the_mode_is_on(a, b, mode):
    def program(T):
        x, y = T.ones(2, requires_grad=a), T.ones(2, requires_grad=b)
        with T.set_grad_enabled(mode):
            return [x + y, x * y, x @ y, T.cat([x, y]), T.where(x > 0, x, y), x.sum(), x > y]

    same(program)


def test_constants_make_no_graph_nodes():
    def program(T):
        x = leaf(T)
        y = x * T.tensor(2.0) + T.ones(3)
        return [node for node, _ in y.grad_fn.next_functions], y

    same(program)


@pytest.mark.parametrize(
    "expression",
    [
        lambda x: x.argmax(),
        lambda x: x > 1,
        lambda x: x == x,
        lambda x: x.long(),
        lambda x: x.bool(),
        lambda x: x.isnan(),
        lambda x: x.argsort(),
        lambda x: x.nonzero(),
        lambda x: (x > 0).any(),
    ],
)
def test_results_of_other_dtypes_never_require_grad(expression):
    same(lambda T: expression(leaf(T)))


def test_sort_gives_values_with_and_indices_without_a_gradient():
    same(lambda T: tuple(T.tensor([3.0, 1.0, 2.0], requires_grad=True).sort()))


# ---------------------------------------------------------------- leaves


def test_is_leaf():
    def program(T):
        x, c = leaf(T), T.ones(3)
        y = x * 2
        with T.no_grad():
            z = x * 2
        return [t.is_leaf for t in (x, c, c + 1, y, z, y.detach(), x.data, y.data)]

    same(program)


def test_retains_grad_and_output_nr():
    def program(T):
        x = leaf(T)
        y = x * 2
        before = (x.retains_grad, y.retains_grad, x.output_nr, y.output_nr)
        y.retain_grad()
        x.retain_grad()
        parts = x.unbind()
        return before, x.retains_grad, y.retains_grad, [part.output_nr for part in parts]

    same(program)


def test_grad_fn_cannot_be_set():
    def program(T):
        leaf(T).grad_fn = None

    same(program, raises=AttributeError, message="type")


def test_a_constant_becomes_a_leaf_that_requires_grad_in_the_middle_of_a_program():
    def program(T):
        c = T.ones(3) * 3
        c.requires_grad_()
        (c * c).sum().backward()
        return c, c.grad

    same(program)


# ---------------------------------------------------------------- order and sums


def test_a_diamond_visits_each_node_once():
    def program(T):
        x = leaf(T)
        a = x * 2
        calls = []
        a.register_hook(lambda g: calls.append(g.clone()))
        (a * a + a.exp() + a).sum().backward()
        return x.grad, calls

    same(program)


def test_a_tensor_used_twice_by_one_op():
    def program(T):
        x = leaf(T)
        (x * x + x @ x + T.cat([x, x]).sum()).sum().backward()
        return x.grad

    same(program)


def test_deep_diamonds_take_linear_time():
    """Visiting paths instead of nodes would need 2**200 steps."""

    def program(T):
        x = T.tensor([1.0], requires_grad=True)
        y = x
        for _ in range(200):
            y = (y + y) / 2
        y.backward()
        return x.grad

    same(program)


def test_a_gradient_is_complete_before_it_flows_on():
    def program(T):
        x = leaf(T)
        h = x * 2
        branch = h
        for _ in range(10):
            branch = branch.sin()
        seen = []
        h.register_hook(lambda g: seen.append(g.clone()))
        (h.sum() + branch.sum()).backward()
        return seen, x.grad

    same(program)


def test_several_roots_of_one_graph():
    def program(T):
        x = leaf(T)
        h = x.exp()
        T.autograd.backward([h.sum(), (h * h).sum(), h[0]])
        return x.grad

    same(program)


def test_unused_outputs_get_zeros():
    def program(T):
        x = T.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        first, _ = x.unbind()
        first.sum().backward()
        return x.grad

    same(program)


LENGTH = 1_000_000


def test_a_chain_of_a_million_ops_goes_backward_and_is_freed_without_recursion(no_gc):
    x = library.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = y + 1.0
    y.backward()
    assert x.grad.item() == 1.0
    del y
    assert gc.collect() < 1000


def test_a_chain_of_a_million_ops_is_freed_without_a_backward(no_gc):
    x = library.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(LENGTH):
        y = y + 1.0
    del y
    assert x.requires_grad


def test_a_long_chain_of_in_place_ops(no_gc):
    x = library.tensor([1.0], requires_grad=True)
    y = x.clone()
    for _ in range(20_000):
        y.add_(1.0)
    y.backward()
    assert x.grad.item() == 1.0


def test_a_long_chain_of_views(no_gc):
    x = library.tensor([1.0, 2.0], requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y.view(2)
    y.sum().backward()
    assert x.grad.tolist() == [1.0, 1.0]


def test_a_long_chain_with_create_graph(no_gc):
    x = library.tensor([1.0], requires_grad=True)
    y = x
    for _ in range(20_000):
        y = y + x * 1e-4
    (g,) = library.autograd.grad(y, x, create_graph=True)
    assert g.requires_grad is False or g.grad_fn is not None
    del y, g
