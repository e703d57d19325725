"""gradcheck and gradgradcheck accept right rules and refuse slightly wrong ones, as in PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.oracle import outcome_of, same


def double_leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (0.3, 0.7, 1.2), dtype=T.float64, requires_grad=True)


def square(T: Any, *, first: float = 1.0, second: float = 1.0) -> Any:
    """x**2 whose first and second derivatives are wrong by these factors."""

    class SquareGrad(T.autograd.Function):
        @staticmethod
        def forward(ctx, x, g):
            ctx.save_for_backward(x, g)
            return 2 * first * x * g

        @staticmethod
        def backward(ctx, gg):
            x, g = ctx.saved_tensors
            return 2 * first * second * g * gg, 2 * first * x * gg

    class Square(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return SquareGrad.apply(x, g)

    return Square.apply


RIGHT = {
    "sin": lambda T, x: x.sin(),
    "product": lambda T, x: (x * x.exp()).sum(),
    "matmul": lambda T, x: x[:, None] @ x[None],
    "two_outputs": lambda T, x: (x.exp(), x.log()),
    "index": lambda T, x: x[[0, 0, 2]],
    "in_place": lambda T, x: x.clone().mul_(x).exp_(),
    "view": lambda T, x: x.view(1, 3).expand(2, 3) * x,
    "custom": lambda T, x: square(T)(x),
    "with_integer_output": lambda T, x: (x * 2, x.argmax()),
    "constant": lambda T, x: x * 0 + 1,
}


@pytest.mark.parametrize("name", RIGHT)
def test_right_rules_pass(name):
    def program(T):
        return T.autograd.gradcheck(lambda x: RIGHT[name](T, x), (double_leaf(T),))

    same(program)


@pytest.mark.parametrize("name", RIGHT)
def test_right_second_rules_pass(name):
    def program(T):
        return outcome_of(
            lambda: T.autograd.gradgradcheck(lambda x: RIGHT[name](T, x), (double_leaf(T),))
        )

    same(program, message="type")


@pytest.mark.parametrize("factor", [1.003, 0.99, 0.0, -1.0, float("nan")])
def test_a_wrong_rule_fails(factor):
    def program(T):
        f = square(T, first=factor)
        return (
            T.autograd.gradcheck(f, (double_leaf(T) * 10,), raise_exception=False),
            outcome_of(lambda: T.autograd.gradcheck(f, (double_leaf(T) * 10,))),
        )

    result = same(program, message="type")
    assert result[0] is False


def test_a_rule_wrong_by_a_thousandth_fails_at_a_tight_tolerance():
    def program(T):
        f = [square(T), square(T, first=1.001)]
        x = double_leaf(T) * 10
        return [
            T.autograd.gradcheck(one, (x,), rtol=1e-5, atol=1e-6, raise_exception=False)
            for one in f
        ]

    assert same(program) == [True, False]


def test_the_message_of_a_wrong_rule():
    def program(T):
        T.autograd.gradcheck(square(T, first=1.1), (double_leaf(T),))

    same(
        program,
        raises=RuntimeError,
        match="Jacobian mismatch for output 0 with respect to input 0",
        message="prefix",
    )


def test_the_error_is_a_gradcheck_error():
    def program(T):
        module = importlib.import_module(T.__name__ + ".autograd.gradcheck")
        error = outcome_of(lambda: T.autograd.gradcheck(square(T, first=1.1), (double_leaf(T),)))
        return isinstance(error, module.GradcheckError), isinstance(error, RuntimeError)

    same(program)


@pytest.mark.parametrize("factor", [1.003, 0.99, 0.0])
def test_a_wrong_second_rule_fails_only_the_second_check(factor):
    def program(T):
        f = square(T, second=factor)
        x = double_leaf(T) * 10
        return (
            T.autograd.gradcheck(f, (x,)),
            T.autograd.gradgradcheck(f, (x,), grad_outputs=T.ones_like(x), raise_exception=False),
        )

    assert same(program) == (True, False)


def test_a_rule_without_a_second_derivative_fails_the_second_check():
    def program(T):
        class Square(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.kept = x.detach()
                return x * x

            @staticmethod
            def backward(ctx, g):
                return 2 * ctx.kept * g

        x = double_leaf(T)
        return (
            T.autograd.gradcheck(Square.apply, (x,)),
            outcome_of(lambda: T.autograd.gradgradcheck(Square.apply, (x,), T.ones_like(x))),
        )

    same(program, message="type")


def test_a_kink_fails():
    def program(T):
        x = T.tensor([0.0, 1.0], dtype=T.float64, requires_grad=True)
        return T.autograd.gradcheck(lambda x: x.relu(), (x,), raise_exception=False)

    assert same(program) is False


def test_several_inputs_and_constants():
    def program(T):
        x, y = double_leaf(T), double_leaf(T, 2.0)
        c = T.ones(3, dtype=T.float64)
        i = T.tensor([0, 2])
        return T.autograd.gradcheck(lambda x, c, y, i: (x * y + c)[i], (x, c, y, i))

    same(program)


def test_an_input_that_is_not_a_tuple():
    same(lambda T: T.autograd.gradcheck(T.sin, double_leaf(T)))


def test_single_precision_inputs_give_a_warning():
    def program(T):
        x = T.tensor([1.0, 2.0], requires_grad=True)
        return T.autograd.gradcheck(lambda x: x * 2, (x,), eps=1e-2, atol=1e-2)

    same(program, warns="double precision floating point")


def test_no_input_requires_grad():
    def program(T):
        T.autograd.gradcheck(T.sin, (T.ones(2, dtype=T.float64),))

    same(
        program,
        raises=ValueError,
        match="gradcheck expects at least one input tensor to require gradient",
        message="exact",
    )


def test_tolerances_are_arguments():
    def program(T):
        f = square(T, first=1.01)
        return [
            T.autograd.gradcheck(f, (double_leaf(T),), rtol=rtol, atol=0.0, raise_exception=False)
            for rtol in (1e-3, 0.1)
        ]

    assert same(program) == [False, True]


def test_fast_mode_finds_wrong_rules_too():
    def program(T):
        f = [square(T), square(T, first=1.01)]
        return [
            T.autograd.gradcheck(one, (double_leaf(T) * 10,), fast_mode=True, raise_exception=False)
            for one in f
        ]

    assert same(program) == [True, False]


def test_a_function_that_changes_its_result_between_calls():
    def program(T):
        calls = []

        class Drifts(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, g):
                calls.append(1)
                return g * 2 + len(calls) * 1e-6

        return outcome_of(lambda: T.autograd.gradcheck(Drifts.apply, (double_leaf(T),)))

    same(program, message="type")


def test_inputs_are_left_as_they_were():
    def program(T):
        x = double_leaf(T)
        T.autograd.gradcheck(lambda x: x.exp() * x, (x,))
        T.autograd.gradgradcheck(lambda x: x.exp() * x, (x,))
        return x, x.grad, x._version > 1000

    same(program)


def test_zero_d_and_empty_inputs():
    def program(T):
        s = T.tensor(0.5, dtype=T.float64, requires_grad=True)
        e = T.ones(0, 2, dtype=T.float64, requires_grad=True)
        return T.autograd.gradcheck(T.sin, (s,)), T.autograd.gradcheck(T.sin, (e,))

    same(program)


def test_non_contiguous_inputs():
    def program(T):
        x = T.arange(6.0, dtype=T.float64).reshape(2, 3).t().requires_grad_()
        return T.autograd.gradcheck(lambda x: x.sin() @ x.t(), (x,))

    same(program)


@pytest.mark.parametrize("changes", ["shape", "dtype"])
@pytest.mark.parametrize("fast_mode", [False, True])
def test_outputs_may_not_change_their_kind_with_the_values(changes, fast_mode):
    def program(T):
        def f(x):
            if not bool((x >= 1).all()):
                return x
            return T.cat([x, x]) if changes == "shape" else x.float()

        x = T.ones(1, dtype=T.float64, requires_grad=True)
        return outcome_of(lambda: T.autograd.gradcheck(f, (x,), fast_mode=fast_mode))

    same(program, message="type")
