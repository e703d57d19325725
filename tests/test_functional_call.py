"""Modules as functions of their parameters, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def matrix(T: Any) -> Any:
    return T.arange(12.0, dtype=T.float64).reshape(4, 3)


def model(T: Any) -> Any:
    result = T.nn.Sequential(T.nn.Linear(3, 2), T.nn.BatchNorm1d(2)).double()
    with T.no_grad():
        for p in result.parameters():
            p.copy_(T.linspace(-1, 1, p.numel(), dtype=T.float64).reshape(p.shape))
    return result


def tied(T: Any) -> Any:
    class Tied(T.nn.Module):
        def __init__(self):
            super().__init__()
            self.a = T.nn.Linear(3, 3, bias=False).double()
            self.b = T.nn.Linear(3, 3, bias=False).double()
            self.b.weight = self.a.weight
            with T.no_grad():
                self.a.weight.copy_(T.eye(3, dtype=T.float64))

        def forward(self, x):
            return self.b(self.a(x)) * 1

    return Tied()


def twice(T: Any) -> Any:
    return T.eye(3, dtype=T.float64) * 2


def once(T: Any) -> Any:
    return T.eye(3, dtype=T.float64)


CALLS = {
    "no_dict": lambda T, f: f(model(T), 3, (matrix(T),)),
    "no_dicts": lambda T, f: f(model(T), [3], (matrix(T),)),
    "twice_given": lambda T, f: f(
        model(T), [{"0.weight": matrix(T)}, {"0.weight": matrix(T)}], (matrix(T),)
    ),
    "unknown_module": lambda T, f: f(model(T), {"9.weight": matrix(T)}, (matrix(T),)),
    "unknown_names_strict": lambda T, f: f(
        model(T), {"9.weight": matrix(T)}, (matrix(T),), strict=True
    ),
    "missing_names_strict": lambda T, f: f(
        model(T), {"0.weight": matrix(T)[:2]}, (matrix(T),), strict=True
    ),
    "a_module": lambda T, f: f(model(T), {"0": matrix(T)}, (matrix(T),)),
    "a_number": lambda T, f: f(model(T), {"0.weight": 3}, (matrix(T),)),
    "keywords": lambda T, f: f(T.nn.Identity(), {}, None, {"input": matrix(T)}),
    "one_argument": lambda T, f: f(T.nn.Identity(), {}, matrix(T)),
    "tied_first": lambda T, f: f(tied(T), {"a.weight": twice(T)}, (matrix(T),)),
    "tied_second": lambda T, f: f(tied(T), {"b.weight": twice(T)}, (matrix(T),)),
    "tied_strict": lambda T, f: f(tied(T), {"a.weight": twice(T)}, (matrix(T),), strict=True),
    "tied_both": lambda T, f: f(tied(T), {"a.weight": twice(T), "b.weight": once(T)}, (matrix(T),)),
    "not_tied": lambda T, f: f(
        tied(T), {"a.weight": twice(T)}, (matrix(T),), tie_weights=False
    ).detach(),
}


@pytest.mark.parametrize("name", CALLS)
def test_functional_call(name):
    def program(T):
        return outcome_of(lambda: CALLS[name](T, T.func.functional_call))

    same(program, message="exact")


def test_functional_call_changes_the_buffers_it_was_given():
    def program(T):
        m = model(T)
        parameters = {k: p.detach() * 2 for k, p in m.named_parameters()}
        buffers = {k: b.clone() for k, b in m.named_buffers()}
        out = T.func.functional_call(m, (parameters, buffers), matrix(T))
        own = T.func.functional_call(m, parameters, matrix(T))
        return out, buffers, own, dict(m.named_buffers())

    same(program)


def test_a_buffer_that_forward_assigns_anew():
    def program(T):
        class Counts(T.nn.Module):
            def __init__(self):
                super().__init__()
                self.register_buffer("calls", T.zeros(1))

            def forward(self, x):
                self.calls = self.calls + 1
                return x + self.calls

        m, state = Counts(), {"calls": T.ones(1)}
        return T.func.functional_call(m, state, T.zeros(2)), state, m.calls

    same(program)


def test_stacked_state():
    def program(T):
        parameters, buffers = T.func.stack_module_state([model(T), model(T)])
        frozen = [T.nn.Linear(2, 2), T.nn.Linear(2, 2)]
        frozen[1].weight.requires_grad_(False)
        stack = T.func.stack_module_state
        return (
            parameters,
            buffers,
            outcome_of(lambda: stack([])),
            outcome_of(lambda: stack([model(T), model(T).eval()])),
            outcome_of(lambda: stack([T.nn.ReLU(), T.nn.Tanh()])),
            outcome_of(lambda: stack(frozen)),
        )

    same(program, message="exact")


def test_an_ensemble():
    def program(T):
        models = [model(T).eval() for _ in range(3)]
        for nr, m in enumerate(models):
            m[0].weight.data.mul_(nr)
        parameters, buffers = T.func.stack_module_state(models)

        def run(parameters, buffers, x):
            return T.func.functional_call(models[0], (parameters, buffers), (x,))

        return T.func.vmap(run, in_dims=(0, 0, None))(parameters, buffers, matrix(T)).detach()

    same(program)


def test_none_in_the_place_of_a_parameter():
    def program(T):
        linear, x = T.nn.Linear(3, 2), T.arange(6.0).view(2, 3)
        linear.load_state_dict({"weight": T.arange(6.0).view(2, 3), "bias": T.ones(2)})
        return T.func.functional_call(linear, {"bias": None}, (x,)).detach(), linear.bias

    same(program)
