"""backward(): accumulation, arguments and errors, each compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- .grad


def test_grad_is_none_before_backward():
    same(lambda T: leaf(T).grad)


def test_grad_accumulates_until_cleared():
    def program(T):
        x = leaf(T)
        history = []
        for _ in range(3):
            (x * x).sum().backward()
            history.append(x.grad.clone())
        x.grad = None
        (x * 3).sum().backward()
        return history, x.grad

    same(program)


def test_grad_has_the_leafs_shape_and_dtype():
    def program(T):
        x = T.ones(2, 1, dtype=T.float64, requires_grad=True)
        s = T.tensor(2.0, requires_grad=True)
        h = T.ones(3, dtype=T.float16, requires_grad=True)
        ((x * s).sum() + (h.float() * s).sum() + (x + T.ones(4, 2, 5)).sum()).backward()
        return x.grad, s.grad, h.grad

    same(program)


def test_grad_is_a_leaf_without_a_graph():
    def program(T):
        x = leaf(T)
        (x * x).sum().backward()
        return x.grad, x.grad.is_leaf

    same(program)


def test_accumulation_adds_in_place_to_the_same_tensor():
    def program(T):
        x = leaf(T)
        (x * x).sum().backward()
        first = x.grad
        (x * x).sum().backward()
        return x.grad is first, first

    same(program)


def test_accumulation_does_not_write_into_the_callers_gradient():
    def program(T):
        x = leaf(T)
        given = T.ones(3)
        x.backward(given)
        x.backward(given)
        return given, x.grad

    same(program)


def test_gradients_of_two_leaves_never_share_memory():
    def program(T):
        x, y = leaf(T), leaf(T)
        (x + y).backward(T.ones(3))
        x.grad.mul_(5)
        (x + y).backward(T.ones(3))
        return x.grad, y.grad

    same(program)


def test_an_expanded_gradient_is_stored_as_a_dense_one():
    def program(T):
        x = leaf(T)
        x.sum().backward()
        x.grad[0] = 7.0
        return x.grad

    same(program)


def test_grad_may_be_set():
    def program(T):
        x = leaf(T)
        x.grad = T.tensor([5.0, 6.0, 7.0])
        (x * 1).sum().backward()
        kept = x.grad
        del x.grad
        return kept, x.grad

    same(program)


@pytest.mark.parametrize(
    "value",
    [
        lambda T, x: T.ones(2),
        lambda T, x: T.ones(3, dtype=T.float64),
        lambda T, x: 1.0,
        lambda T, x: "no",
        lambda T, x: x,
    ],
    ids=["shape", "dtype", "number", "string", "itself"],
)
def test_an_unfit_grad_is_refused(value):
    def program(T):
        x = leaf(T)
        error = outcome_of(lambda: setattr(x, "grad", value(T, x)))
        assert isinstance(error, Exception)
        return error

    same(program)


def test_grad_of_a_non_leaf_warns_and_is_none():
    def program(T):
        y = leaf(T) * 2
        y.sum().backward()
        return y.grad

    same(program, warns="not a leaf Tensor", message="exact")


def test_grad_of_a_non_leaf_after_retain_grad():
    def program(T):
        y = leaf(T) * 2
        y.retain_grad()
        before = y.grad
        (y * y).sum().backward()
        return before, y.grad, y.retains_grad

    same(program)


def test_retained_grad_accumulates_over_backward_calls():
    def program(T):
        y = leaf(T) * 2
        y.retain_grad()
        for _ in range(2):
            (y * 3).sum().backward(retain_graph=True)
        return y.grad

    same(program)


def test_retain_grad_twice_counts_once():
    def program(T):
        y = leaf(T) * 2
        y.retain_grad()
        y.retain_grad()
        y.sum().backward()
        return y.grad

    same(program)


def test_retain_grad_on_a_leaf_does_nothing():
    def program(T):
        x = leaf(T)
        x.retain_grad()
        x.sum().backward()
        return x.grad, x.retains_grad

    same(program)


def test_retain_grad_needs_requires_grad():
    same(lambda T: T.ones(1).retain_grad(), raises=RuntimeError, match="retain", message="exact")


def test_grad_of_a_constant_is_none_without_a_warning():
    same(lambda T: (T.ones(2) * 2).grad)


def test_the_root_may_be_a_leaf():
    def program(T):
        x = T.tensor(3.0, requires_grad=True)
        x.backward()
        x.backward(T.tensor(2.0))
        return x.grad

    same(program)


# ---------------------------------------------------------------- the gradient argument


def test_a_non_scalar_needs_a_gradient():
    same(
        lambda T: (leaf(T) * 2).backward(),
        raises=RuntimeError,
        match="grad can be implicitly created only for scalar outputs",
        message="exact",
    )


@pytest.mark.parametrize("shape", [(), (1,), (1, 1), (1, 1, 1)])
def test_one_element_is_a_scalar_whatever_its_shape(shape):
    def program(T):
        x = T.ones(shape, requires_grad=True)
        (x * 2).backward()
        return x.grad

    same(program)


def test_no_element_is_not_a_scalar():
    same(lambda T: (T.ones(0, requires_grad=True) * 2).backward(), raises=RuntimeError)


def test_gradient_weighs_the_elements():
    def program(T):
        x = leaf(T)
        (x * x).backward(T.tensor([1.0, 0.0, -1.0]))
        (x * x).backward(gradient=T.tensor([1.0, 0.5, 0.5]))
        return x.grad

    same(program)


@pytest.mark.parametrize("shape", [(), (1,), (2,), (4,), (1, 3), (3, 1)])
def test_a_gradient_of_the_wrong_shape_is_refused(shape):
    same(
        lambda T: (leaf(T) * 2).backward(T.ones(shape)),
        raises=RuntimeError,
        match="Mismatch in shape: grad_output\\[0\\]",
        message="exact",
    )


def test_a_gradient_of_another_float_dtype_is_converted():
    def program(T):
        x = leaf(T)
        (x * 2).backward(T.ones(3, dtype=T.float64))
        return x.grad

    same(program)


@pytest.mark.parametrize("gradient", [1.0, [1.0, 1.0, 1.0], "ones"])
def test_a_gradient_must_be_a_tensor(gradient):
    same(lambda T: (leaf(T) * 2).backward(gradient), raises=TypeError, message="type")


def test_the_number_of_gradients_must_match():
    def program(T):
        y = leaf(T) * 2
        T.autograd.backward([y, y], [T.ones(3)])

    same(program, raises=RuntimeError, match="got 2 tensors and 1 gradients", message="exact")


def test_autograd_backward_takes_a_tensor_or_a_sequence():
    def program(T):
        x = leaf(T)
        T.autograd.backward((x * 2).sum())
        T.autograd.backward((x * 2, x * 3), (T.ones(3), T.ones(3)))
        T.autograd.backward([(x * 2).sum(), x * 3], [None, T.ones(3)])
        T.autograd.backward(tensors=x * 4, grad_tensors=T.ones(3))
        return x.grad

    same(program)


def test_autograd_backward_of_nothing():
    same(lambda T: T.autograd.backward([]))


def test_a_gradient_that_requires_grad_leaves_no_graph_without_create_graph():
    def program(T):
        x = leaf(T)
        seed = T.ones(3, requires_grad=True)
        (x * 2).backward(seed)
        return x.grad

    same(program)


# ---------------------------------------------------------------- inputs=


def test_inputs_restricts_accumulation():
    def program(T):
        x, y = leaf(T), leaf(T)
        (x * y).sum().backward(inputs=[x])
        (x * y).sum().backward(inputs=y)
        return x.grad, y.grad

    same(program)


def test_inputs_may_be_a_non_leaf():
    def program(T):
        x = leaf(T)
        h = x * 2
        (h * h).sum().backward(inputs=[h])
        return x.grad, h.grad

    same(program)


def test_inputs_may_hold_leaf_and_non_leaf():
    def program(T):
        x = leaf(T)
        h = x * 2
        h.retain_grad()
        (h * h).sum().backward(inputs=[x, h])
        return x.grad, h.grad

    same(program)


def test_inputs_may_not_be_empty():
    same(
        lambda T: leaf(T).sum().backward(inputs=[]),
        raises=RuntimeError,
        match="cannot be empty",
        message="exact",
    )


def test_inputs_that_do_not_require_grad():
    same(lambda T: leaf(T).sum().backward(inputs=[T.ones(1)]), raises=RuntimeError, message="exact")


def test_inputs_that_are_unreachable_get_nothing():
    def program(T):
        x, y = leaf(T), leaf(T)
        x.sum().backward(inputs=[y])
        return x.grad, y.grad

    same(program)


# ---------------------------------------------------------------- nothing to differentiate


@pytest.mark.parametrize(
    "root",
    [
        lambda T: T.ones(1),
        lambda T: T.tensor(1.0),
        lambda T: T.tensor(1.0).sum() * 2,
        lambda T: leaf(T).sum().detach(),
        lambda T: leaf(T).argmax(),
        lambda T: (leaf(T) > 1).all(),
    ],
)
def test_a_root_without_a_graph_is_refused(root):
    same(
        lambda T: root(T).backward(),
        raises=RuntimeError,
        match="element 0 of tensors does not require grad and does not have a grad_fn",
        message="exact",
    )


def test_the_number_of_the_root_is_named():
    def program(T):
        T.autograd.backward([leaf(T).sum(), T.tensor(1.0)])

    same(program, raises=RuntimeError, match="element 1 of tensors", message="exact")


def test_a_root_made_without_grad_mode_is_refused():
    def program(T):
        with T.no_grad():
            y = leaf(T).sum()
        y.backward()

    same(program, raises=RuntimeError, match="does not have a grad_fn", message="exact")


def test_backward_works_inside_no_grad_for_a_graph_made_outside():
    def program(T):
        x = leaf(T)
        y = (x * x).sum()
        with T.no_grad():
            y.backward()
        return x.grad

    same(program)
