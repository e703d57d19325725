"""Hooks around forward and backward, in every combination PyTorch has."""

from __future__ import annotations

import copy
from typing import Any

import pytest

import gradlite
from gradlite import nn
from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same


def test_forward_pre_hooks_replace_arguments() -> None:
    def program(library: Any) -> Any:
        log: list[str] = []
        linear = fill(library, library.nn.Linear(2, 2))
        x = tensor(library, 1, 3, 2)

        def double(module: Any, args: Any) -> Any:
            log.append(f"double {len(args)}")
            return args[0] * 2

        def keep(module: Any, args: Any) -> None:
            log.append("keep")

        def as_tuple(module: Any, args: Any) -> Any:
            log.append("tuple")
            return (args[0] + 1,)

        linear.register_forward_pre_hook(double)
        linear.register_forward_pre_hook(keep)
        first = linear.register_forward_pre_hook(as_tuple, prepend=True)
        results = [linear(x)]
        first.remove()
        first.remove()
        results.append(linear(x))
        return log, results

    same(program)


def test_hooks_with_kwargs() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []

        class Add(library.nn.Module):
            def forward(self, x: Any, y: Any = 1) -> Any:
                return x + y

        add = Add()

        def pre(module: Any, args: Any, kwargs: Any) -> Any:
            log.append(("pre", len(args), sorted(kwargs)))
            return args, {"y": kwargs["y"] * 10}

        def post(module: Any, args: Any, kwargs: Any, output: Any) -> Any:
            log.append(("post", len(args), kwargs, output))
            return output + 1

        with add.register_forward_pre_hook(pre, with_kwargs=True):
            add.register_forward_hook(post, with_kwargs=True)
            add.register_forward_hook(lambda m, args, out: log.append(("plain", len(args), out)))
            results = [add(library.ones(1), y=2)]
        results.append(add(library.ones(1), y=2))
        add.register_forward_pre_hook(lambda m, a, k: 3, with_kwargs=True)
        return log, results, outcome_of(lambda: add(library.ones(1)))

    same(program, message="exact")


def test_always_call() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []

        class Broken(library.nn.Module):
            def forward(self, x: Any) -> Any:
                raise KeyError("broken")

        module = Broken()
        module.register_forward_hook(lambda m, a, out: log.append(("never", out)))
        module.register_forward_hook(lambda m, a, out: log.append(("first", out)), always_call=True)
        module.register_forward_hook(
            lambda m, a, k, out: log.append(("second", out)), always_call=True, with_kwargs=True
        )
        error = outcome_of(lambda: module(1))
        fine = library.nn.Identity()
        fine.register_forward_hook(lambda m, a, out: log.append(("once", out)), always_call=True)
        fine.register_forward_hook(lambda m, a, out: 1 / 0)
        return error, outcome_of(lambda: fine(3)), log

    same(program)


def test_an_always_called_hook_that_fails_too_only_warns() -> None:
    def program(library: Any) -> Any:
        class Broken(library.nn.Module):
            def forward(self, x: Any) -> Any:
                raise KeyError("broken")

        module = Broken()
        module.register_forward_hook(lambda m, a, out: 1 / 0, always_call=True)
        return outcome_of(lambda: module(1))

    same(program, warns="silenced", message="exact")


def grads(module: Any, x: Any) -> Any:
    return [x.grad, *(p.grad for p in module.parameters())]


def test_full_backward_hook_sees_and_replaces_grad_input() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []
        model = fill(
            library, library.nn.Sequential(library.nn.Linear(3, 2), library.nn.Linear(2, 2))
        )
        x = tensor(library, 1, 4, 3, requires_grad=True)

        def look(module: Any, grad_input: Any, grad_output: Any) -> None:
            log.append((type(module).__name__, list(grad_input), list(grad_output)))

        def double(module: Any, grad_input: Any, grad_output: Any) -> Any:
            return (grad_input[0] * 2,)

        model[0].register_full_backward_hook(look)
        model[1].register_full_backward_hook(double)
        model[1].register_full_backward_hook(look)
        model[1].register_full_backward_hook(look, prepend=True)
        model.register_full_backward_hook(look)
        out = model(x)
        out.sum().backward()
        return log, grads(model, x), out.grad_fn.name()

    same(program)


def test_full_backward_pre_hook() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []
        model = fill(library, library.nn.Linear(3, 2))
        x = tensor(library, 1, 4, 3, requires_grad=True)
        model.register_full_backward_pre_hook(lambda m, grad_output: (grad_output[0] * 3,))
        model.register_full_backward_pre_hook(lambda m, g: log.append(list(g)))
        first = model.register_full_backward_pre_hook(lambda m, g: (g[0] + 1,), prepend=True)
        model(x).sum().backward()
        first.remove()
        model(x).sum().backward()
        return log, grads(model, x)

    same(program)


def test_several_inputs_and_outputs() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []

        class Two(library.nn.Module):
            def forward(self, a: Any, b: Any, c: Any, factor: Any) -> Any:
                return a * b, c * factor, a.detach()

        module = Two()
        module.register_full_backward_hook(lambda m, gi, go: log.append((list(gi), list(go))))
        a, b = (tensor(library, seed, 2, requires_grad=True) for seed in (1, 2))
        c = tensor(library, 3, 2)
        first, second, third = module(a, b, c, 2.0)
        first.sum().backward()
        first, second, third = module(a, b, c, 2.0)
        (first.sum() + second.sum()).backward()
        return log, a.grad, b.grad, third.requires_grad, second.requires_grad

    same(program)


def test_without_inputs_that_require_grad() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []
        model = fill(library, library.nn.Linear(3, 2))
        model.register_full_backward_hook(lambda m, gi, go: log.append((list(gi), list(go))))
        model(tensor(library, 1, 4, 3)).sum().backward()
        return log, [p.grad for p in model.parameters()]

    same(program, warns="no inputs require gradients", message="prefix")


@pytest.mark.parametrize(
    "hook", [lambda m, gi, go: (gi[0], gi[0]), lambda m, gi, go: 3], ids=["two", "number"]
)
def test_wrong_results_of_a_backward_hook(hook: Any) -> None:
    def program(library: Any) -> Any:
        model = library.nn.Linear(3, 2)
        model.register_full_backward_hook(hook)
        model(library.ones(4, 3, requires_grad=True)).sum().backward()

    same(program, raises=(RuntimeError, TypeError))


def test_no_backward_hook_runs_without_a_graph() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []
        model = library.nn.Linear(3, 2)
        model.register_full_backward_hook(lambda m, gi, go: log.append("called"))
        with library.no_grad():
            out = model(library.ones(1, 3))
        return log, out.requires_grad

    same(program)


def test_double_backward_through_a_hooked_module() -> None:
    def program(library: Any) -> Any:
        count: list[int] = []
        model = fill(library, library.nn.Linear(3, 1))
        model.register_full_backward_hook(lambda m, gi, go: count.append(1))
        x = tensor(library, 1, 4, 3, requires_grad=True)
        (grad,) = library.autograd.grad((model(x) ** 2).sum(), x, create_graph=True)
        (second,) = library.autograd.grad((grad**2).sum(), x)
        return grad, second

    same(program)


def test_a_module_without_hooks_takes_the_short_way() -> None:
    linear = nn.Linear(1, 1)
    assert not linear._hooked
    handle = linear.register_forward_hook(lambda m, a, out: out)
    assert linear._hooked
    handle.remove()
    assert len(linear._forward_hooks) == 0
    linear(gradlite.ones(1))
    assert not linear._hooked
    assert not nn.Linear._hooked and len(nn.Linear._forward_hooks) == 0


def test_hooks_are_copied_with_the_module() -> None:
    calls: list[Any] = []
    linear = nn.Linear(1, 1)
    linear.register_forward_hook(lambda m, a, out: calls.append(m))
    twin = copy.deepcopy(linear)
    twin(gradlite.ones(1))
    assert calls == [twin]
    twin._forward_hooks.clear()
    twin(gradlite.ones(1))
    linear(gradlite.ones(1))
    assert calls == [twin, linear]
