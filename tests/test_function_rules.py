"""What the backward of an autograd.Function gets, saves and returns, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.function_support import exp_function, leaf, product_function, split_function
from tests.oracle import outcome_of, same

# ---------------------------------------------------------------- saved tensors


def test_saved_tensors_after_backward():
    def program(T):
        x = leaf(T)
        y = exp_function(T).apply(x).sum()
        y.backward()
        return outcome_of(y.backward), x.grad

    same(program, message="exact")


def test_a_function_that_saves_nothing_may_run_twice():
    def program(T):
        x = leaf(T)
        a, _ = split_function(T).apply(x)
        z = (a + 1).sum()
        z.backward()
        z.backward()
        return x.grad

    same(program)


def test_saved_tensors_of_the_node_are_readable_before_backward():
    def program(T):
        y = exp_function(T).apply(leaf(T))
        before = y.grad_fn.saved_tensors
        y.sum().backward()
        return before, outcome_of(lambda: y.grad_fn.saved_tensors)

    same(program)


def test_a_saved_input_changed_in_place_is_caught():
    def program(T):
        x, y = leaf(T), leaf(T)
        h = x * 1
        z = product_function(T).apply(h, y, 1.0)
        h.add_(1)
        z.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="exact")


def test_a_saved_output_changed_in_place_is_caught():
    def program(T):
        y = exp_function(T).apply(leaf(T))
        y.add_(1)
        y.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="exact")


def test_none_may_be_saved():
    def program(T):
        class Maybe(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, bias):
                ctx.save_for_backward(x, bias)
                return x * x if bias is None else x * x + bias

            @staticmethod
            def backward(ctx, g):
                x, bias = ctx.saved_tensors
                return 2 * x * g, None if bias is None else g

        x = leaf(T)
        Maybe.apply(x, None).sum().backward()
        return x.grad

    same(program)


def test_only_tensors_may_be_saved():
    def program(T):
        class Wrong(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x, 3)
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g

        Wrong.apply(leaf(T))

    same(
        program,
        raises=TypeError,
        match="save_for_backward can only save variables",
        message="prefix",
    )


def test_a_saved_tensor_keeps_its_place_in_the_graph():
    def program(T):
        class Square(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                seen.append((x.requires_grad, x.grad_fn))
                return 2 * x * g

        seen = []
        x = leaf(T)
        Square.apply(x * 1).sum().backward()
        return seen

    same(program)


# ---------------------------------------------------------------- what backward returns


def returning(T: Any, result: Any) -> Any:
    class Returns(T.autograd.Function):
        @staticmethod
        def forward(ctx, x, y):
            return x * y

        @staticmethod
        def backward(ctx, g):
            return result(T, g)

    return Returns


RETURNS = {
    "too_few": lambda T, g: g,
    "too_many": lambda T, g: (g, g, g),
    "too_many_nones": lambda T, g: (g, g, None, None),
    "list": lambda T, g: [g, g],
    "none": lambda T, g: None,
    "nones": lambda T, g: (None, None),
    "one_none": lambda T, g: (g, None),
    "number": lambda T, g: (g, 1.0),
    "wrong_shape": lambda T, g: (g, T.ones(2)),
    "scalar": lambda T, g: (g, g.sum()),
    "broadcastable": lambda T, g: (g, T.ones(2, 3)),
    "other_dtype": lambda T, g: (g, g.double()),
    "integers": lambda T, g: (g, g.long()),
    "string": lambda T, g: (g, "gradient"),
}


@pytest.mark.parametrize("name", RETURNS)
def test_what_backward_may_return(name):
    def program(T):
        x, y = leaf(T), leaf(T)
        z = returning(T, RETURNS[name]).apply(x, y)
        return outcome_of(z.sum().backward), x.grad, y.grad

    same(program, message="exact")


def test_a_gradient_for_an_input_that_does_not_require_grad_is_dropped():
    def program(T):
        x, c = leaf(T), T.ones(3)
        returning(T, lambda T, g: (g, g)).apply(x, c).sum().backward()
        return x.grad, c.grad

    same(program)


def test_a_gradient_for_an_input_that_is_not_a_tensor_is_refused():
    def program(T):
        class Scale(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, factor):
                return x * factor

            @staticmethod
            def backward(ctx, g):
                return g, g

        return outcome_of(Scale.apply(leaf(T), 2.0).sum().backward)

    same(program)


def test_an_error_in_backward_reaches_the_caller():
    def program(T):
        def fail(T, g):
            raise KeyError("in backward")

        returning(T, fail).apply(leaf(T), leaf(T)).sum().backward()

    same(program, raises=KeyError, message="exact")


def test_an_error_in_forward_reaches_the_caller_and_keeps_the_mode():
    def program(T):
        class Fails(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                raise KeyError("in forward")

        return outcome_of(lambda: Fails.apply(leaf(T))), T.is_grad_enabled()

    same(program)


def test_a_missing_forward():
    def program(T):
        class Empty(T.autograd.Function):
            pass

        Empty.apply(leaf(T))

    same(program, raises=NotImplementedError, message="exact")


def test_a_missing_backward():
    def program(T):
        class OneWay(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

        OneWay.apply(leaf(T)).sum().backward()

    same(program, raises=NotImplementedError, message="exact")


def test_a_function_cannot_be_called_or_made():
    def program(T):
        f = exp_function(T)
        return outcome_of(lambda: f()(T.ones(1)))

    same(program, warns="should not be instantiated", message="type")


# ---------------------------------------------------------------- composition


def test_double_backward_through_a_function():
    def program(T):
        x = leaf(T)
        y = exp_function(T).apply(x * x)
        (g,) = T.autograd.grad(y.sum(), x, create_graph=True)
        (h,) = T.autograd.grad(g.sum(), x)
        return g.detach(), h

    same(program, rtol=1e-5)


def test_double_backward_needs_saved_tensors_not_attributes():
    """What is kept as an attribute is a constant for the second derivative."""

    def program(T):
        class Square(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.kept = x.detach()
                return x * x

            @staticmethod
            def backward(ctx, g):
                return 2 * ctx.kept * g

        x = leaf(T)
        (g,) = T.autograd.grad(Square.apply(x).sum(), x, create_graph=True)
        return g.requires_grad, g

    same(program)


def test_a_function_inside_a_function():
    def program(T):
        exp = exp_function(T)

        class Outer(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                with T.enable_grad():
                    inner = x.detach().requires_grad_()
                    y = exp.apply(inner).sum()
                ctx.inner, ctx.y = inner, y
                return y.detach()

            @staticmethod
            def backward(ctx, g):
                return T.autograd.grad(ctx.y, ctx.inner)[0] * g

        x = leaf(T)
        Outer.apply(x).backward()
        return x.grad

    same(program)


def test_a_straight_through_estimator():
    def program(T):
        class Round(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.round()

            @staticmethod
            def backward(ctx, g):
                return g

        x = T.tensor([0.2, 1.7, -2.5], requires_grad=True)
        y = Round.apply(x) * x
        y.sum().backward()
        return y, x.grad

    same(program)


def test_a_gradient_reversal_layer():
    def program(T):
        class Reverse(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, weight):
                ctx.weight = weight
                return x.view_as(x)

            @staticmethod
            def backward(ctx, g):
                return -ctx.weight * g, None

        x = leaf(T)
        h = x * 2
        (Reverse.apply(h, 0.5).sum() + h.sum()).backward()
        return x.grad

    same(program)


def test_hooks_on_the_result_of_a_function():
    def program(T):
        x = leaf(T)
        y = exp_function(T).apply(x)
        y.register_hook(lambda g: g * 2)
        y.retain_grad()
        y.sum().backward()
        return y.grad, x.grad

    same(program)


def test_inheritance_between_functions():
    def program(T):
        base = exp_function(T)

        class Tenfold(base):
            @staticmethod
            def backward(ctx, g):
                return base.backward(ctx, g) * 10

        x = leaf(T)
        y = Tenfold.apply(x)
        y.sum().backward()
        return y.grad_fn.name(), x.grad

    same(program)


def test_zero_d_and_empty_inputs():
    def program(T):
        f = exp_function(T)
        s, e = T.tensor(1.0, requires_grad=True), T.ones(0, 3, requires_grad=True)
        f.apply(s).backward()
        f.apply(e).sum().backward()
        return s.grad, e.grad

    same(program)
