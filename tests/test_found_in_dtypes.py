"""Programs of mixed dtypes that random testing found to differ from PyTorch once."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same

DTYPES = ["float16", "bfloat16", "float32", "float64", "int32", "int64"]


def tensor(T: Any, values: list[float], dtype: str, requires_grad: bool = False) -> Any:
    return T.tensor(values, dtype=getattr(T, dtype), requires_grad=requires_grad)


EDITS = {
    "add": lambda h, y: h.add_(y, alpha=2),
    "mul": lambda h, y: h.mul_(y),
    "div": lambda h, y: h.div_(y * y + 1),
    "copy": lambda h, y: h.copy_(y),
    "addcmul": lambda h, y: h.addcmul_(y, y),
    "masked_fill": lambda h, y: h.masked_fill_(h > 1, y[0]),
    "assignment": lambda h, y: h.__setitem__(slice(0, 2), y[1:]),
    "mask": lambda h, y: h.__setitem__(h > 1, y[:1]),
}


@pytest.mark.parametrize("edit", EDITS)
@pytest.mark.parametrize("place", ["base", "view"])
@pytest.mark.parametrize("dtypes", [("float32", "float64"), ("float64", "float32")])
def test_a_tensor_takes_elements_of_another_dtype_from_a_graph(edit, place, dtypes):
    def program(T):
        x = tensor(T, [1.0, 2.0, -3.0], dtypes[0], True)
        z = tensor(T, [3.0, -2.0, 1.5], dtypes[1], True)
        h = x * 2
        EDITS[edit](h if place == "base" else h[:], z.relu())
        h.sin().sum().backward()
        return h, x.grad, z.grad

    same(program, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("edit", EDITS)
def test_second_derivatives_of_elements_of_another_dtype(edit):
    def program(T):
        x = tensor(T, [1.0, 2.0, -3.0], "float32", True)
        z = tensor(T, [3.0, -2.0, 1.5], "float64", True)
        h = x * 2
        EDITS[edit](h, z.sin())
        (g,) = T.autograd.grad(h.sin().sum(), z, create_graph=True)
        g.pow(2).sum().backward()
        return g.detach(), x.grad, z.grad

    same(program, rtol=1e-5, atol=1e-5)


PROMOTED = {
    "mul": lambda T, x, c: x * c,
    "rmul": lambda T, x, c: c * x,
    "div": lambda T, x, c: x / c,
    "addcmul": lambda T, x, c: T.addcmul(x, x, c),
    "itself": lambda T, x, c: x.mul_(c),
}


@pytest.mark.parametrize("op", PROMOTED)
@pytest.mark.parametrize("dtype", DTYPES)
def test_edits_of_an_operand_that_was_promoted_are_caught(op, dtype):
    def program(T):
        x = tensor(T, [1.0, 2.0, 3.0], "float64", True)
        c = tensor(T, [3, 2, 1], dtype)
        y = PROMOTED[op](T, x * 1, c)
        c.add_(1)
        return outcome_of(y.sum().backward), x.grad

    same(program, message="type")


INDICES = {
    "array": lambda T, x: T.tensor([0, 1]),
    "list": lambda T, x: [1],
    "mask": lambda T, x: x[:, 0] > 0,
    "whole_mask": lambda T, x: x > 0,
    "two": lambda T, x: (x[:, 0] > 0, T.tensor([0])),
    "integer": lambda T, x: 0,
    "slice": lambda T, x: slice(0, 1),
    "true": lambda T, x: True,
}


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("shape", [(), (1,), (3,), (1, 1), (2, 3), (7,)], ids=str)
def test_which_dtypes_may_be_assigned(index, shape):
    def program(T):
        outcomes = []
        for target in DTYPES:
            for source in DTYPES:
                x = T.arange(1, 7).reshape(2, 3).to(getattr(T, target))
                value = T.full(shape, 9).to(getattr(T, source))
                error = outcome_of(lambda: x.__setitem__(INDICES[index](T, x), value))  # noqa: B023
                outcomes.append((x, error))
        return outcomes

    same(program)


@pytest.mark.parametrize("size", [0, 3])
@pytest.mark.parametrize("dtype", ["int32", "int64", "bool", "uint8"])
def test_what_integers_cannot_do(dtype, size):
    def program(T):
        x = T.ones(size, 2).to(getattr(T, dtype))
        return [
            outcome_of(lambda: x.softmax(0)),
            outcome_of(lambda: x.log_softmax(1)),
            outcome_of(lambda: x.mean()),
            outcome_of(lambda: x.relu()),
        ]

    same(program)


@pytest.mark.parametrize("wide", ["float32", "float64"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_a_half_that_is_written_into_wider_numbers_gets_a_gradient_of_its_own_dtype(half, wide):
    def program(T):
        x = T.full((1,), 0.5).to(getattr(T, half)).requires_grad_()
        y = T.ones(2, 3, dtype=getattr(T, wide), requires_grad=True) * 1.5
        y[..., 2] = x
        y.flip(0).sin().sum().backward()
        return x.grad.dtype, x.grad.double()

    same(program)
