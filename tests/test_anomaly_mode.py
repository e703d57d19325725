"""Where anomaly mode says that a failing gradient comes from, compared with PyTorch."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from typing import Any

import pytest

from tests.oracle import same


def functions(T: Any) -> Any:
    """A Function whose backward applies another, whose backward makes a NaN."""

    class Inner(T.autograd.Function):
        @staticmethod
        def forward(ctx, a, b):
            return a * 2 + b

        @staticmethod
        def backward(ctx, grad):
            return grad.clone(), grad * float("nan")

    class Outer(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            (x,) = ctx.saved_tensors
            return Inner.apply(grad * x, grad + x)

    return Outer.apply


PROGRAMS = {"function": functions, "op": lambda T: lambda x: x**1.5}


def told(action: Any) -> list[Any]:
    """The warnings of an action that fails: their first lines, and whose code they quote."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        with pytest.raises(RuntimeError, match="returned nan values"):
            action()
    texts = [str(item.message).strip() for item in caught]
    return [
        (text.partition("\n")[0], re.findall(r"made = \w+|second = \w+", text)) for text in texts
    ]


@pytest.mark.parametrize("name", PROGRAMS)
@pytest.mark.parametrize("forward_too", [True, False])
def test_a_node_made_in_backward_is_traced_to_the_node_whose_rule_made_it(name, forward_too):
    def program(T):
        f = PROGRAMS[name](T)

        def forward(x):
            made = f(x)
            ones = T.ones(1, requires_grad=True)
            (second,) = T.autograd.grad(made, x, ones, create_graph=True)
            return second

        def backward(second):
            second.register_hook(lambda grad: grad * float("inf") * 0)
            second.sum().backward()

        def both():
            with T.autograd.set_detect_anomaly(True):
                backward(forward(x))

        x = T.tensor([2.0], requires_grad=True)
        if forward_too:
            return told(both)
        second = forward(x)
        with T.autograd.set_detect_anomaly(True):
            return told(lambda: backward(second))

    same(program)


def test_the_error_itself_is_raised_where_warnings_are_errors():
    def program(T):
        x = T.ones(3, requires_grad=True)
        y = x + 1
        written = io.StringIO()
        with warnings.catch_warnings(), contextlib.redirect_stderr(written):
            warnings.simplefilter("error")
            with T.autograd.set_detect_anomaly(True):
                z = y**2
                y += 1
                with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                    z.sum().backward()
        return written.getvalue().partition("\n")[0]

    same(program)
