"""Hooks on tensors, leaves and graph nodes, and hooks on saved tensors, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- Tensor.register_hook


def test_a_hook_sees_the_gradient_of_a_leaf():
    def program(T):
        x = leaf(T)
        seen = []
        x.register_hook(lambda g: seen.append(g.clone()))
        (x * x).sum().backward()
        return seen, x.grad

    same(program)


def test_a_hook_sees_the_gradient_of_an_intermediate():
    def program(T):
        x = leaf(T)
        y = x * 2
        seen = []
        y.register_hook(lambda g: seen.append(g.clone()))
        (y * y).sum().backward()
        return seen, x.grad

    same(program)


@pytest.mark.parametrize("on", ["leaf", "intermediate", "root"])
def test_a_hooks_result_replaces_the_gradient(on):
    def program(T):
        x = leaf(T)
        y = x * 2
        z = (y * y).sum()
        {"leaf": x, "intermediate": y, "root": z}[on].register_hook(lambda g: g * 10)
        z.backward()
        return x.grad

    same(program)


def test_a_hook_that_returns_none_changes_nothing():
    def program(T):
        x = leaf(T)
        x.register_hook(lambda g: None)
        (x * 3).sum().backward()
        return x.grad

    same(program)


def test_hooks_run_in_the_order_of_registration_each_on_the_last_result():
    def program(T):
        x = leaf(T)
        seen = []

        def add(g):
            seen.append(("add", g.clone()))
            return g + 1

        def double(g):
            seen.append(("double", g.clone()))
            return g * 2

        x.register_hook(add)
        x.register_hook(double)
        x.register_hook(lambda g: seen.append(("look", g.clone())))
        (x * 3).sum().backward()
        return seen, x.grad

    same(program)


def test_a_removed_hook_does_not_run():
    def program(T):
        x = leaf(T)
        calls = []
        first = x.register_hook(lambda g: calls.append("first"))
        x.register_hook(lambda g: calls.append("second"))
        first.remove()
        first.remove()
        (x * 3).sum().backward()
        return calls

    same(program)


def test_a_handle_is_a_context_manager():
    def program(T):
        x = leaf(T)
        calls = []
        with x.register_hook(lambda g: calls.append("inside")):
            (x * 3).sum().backward()
        (x * 3).sum().backward()
        return calls, x.grad

    same(program)


def test_a_hook_removed_between_two_backwards():
    def program(T):
        x = leaf(T)
        y = x * 2
        handle = y.register_hook(lambda g: g * 100)
        z = y.sum()
        z.backward(retain_graph=True)
        first = x.grad.clone()
        handle.remove()
        x.grad = None
        z.backward()
        return first, x.grad

    same(program)


def test_a_hook_gets_the_sum_of_all_branches_once():
    def program(T):
        x = leaf(T)
        y = x * 2
        seen = []
        y.register_hook(lambda g: seen.append(g.clone()))
        (y.sum() + (y * y).sum() + y.exp().sum()).backward()
        return seen, x.grad

    same(program)


def test_a_leaf_hook_runs_once_per_backward_before_accumulation():
    def program(T):
        x = leaf(T)
        seen = []
        x.register_hook(
            lambda g: seen.append((g.clone(), None if x.grad is None else x.grad.clone()))
        )
        for _ in range(2):
            (x * x + x).sum().backward()
        return seen, x.grad

    same(program)


def test_a_hook_on_a_tensor_nobody_uses_does_not_run():
    def program(T):
        x = leaf(T)
        calls = []
        unused = x * 2
        unused.register_hook(lambda g: calls.append("unused"))
        (x * 3).sum().backward()
        return calls, unused.sum()

    same(program)


def test_hooks_run_in_reverse_order_of_the_graph():
    def program(T):
        x = leaf(T)
        calls = []
        x.register_hook(lambda g: calls.append("x"))
        h = x
        for number in range(5):
            h = h * 2
            h.register_hook(lambda g, number=number: calls.append(number))
        h.sum().backward()
        return calls

    same(program)


def test_hooks_on_each_output_of_one_op():
    def program(T):
        x = leaf(T)
        a, b, c = x.unbind()
        calls = []
        for name, t in (("a", a), ("b", b), ("c", c)):
            t.register_hook(
                lambda g, name=name: calls.append((name, None if g is None else g.clone()))
            )
        (a * b).backward()
        return sorted(calls, key=lambda call: call[0]), x.grad

    same(program)


def test_hooks_run_under_autograd_grad_for_reached_tensors():
    def program(T):
        x = leaf(T)
        y = x * 2
        calls = []
        x.register_hook(lambda g: calls.append("x"))
        y.register_hook(lambda g: calls.append("y"))
        g = T.autograd.grad((y * y).sum(), y)
        first = list(calls)
        h = T.autograd.grad((y * y).sum(), x)
        return g, first, h, calls, x.grad

    same(program)


def test_a_hook_on_the_input_changes_what_autograd_grad_returns():
    def program(T):
        x = leaf(T)
        x.register_hook(lambda g: g * 7)
        y = x * 2
        y.register_hook(lambda g: g + 1)
        return T.autograd.grad(y.sum(), [x, y])

    same(program)


def test_a_hook_is_differentiable_with_create_graph():
    def program(T):
        x = leaf(T)
        x.register_hook(lambda g: g * g)
        (g,) = T.autograd.grad((x**3).sum(), x, create_graph=True)
        (h,) = T.autograd.grad(g.sum(), x)
        return g.detach(), h

    same(program)


def test_a_hooks_gradient_has_no_graph_without_create_graph():
    def program(T):
        x = leaf(T)
        seen = []
        x.register_hook(lambda g: seen.append((g.requires_grad, g.grad_fn)))
        (x**3).sum().backward()
        return seen

    same(program)


def test_a_failing_hook_ends_backward_with_its_own_exception():
    def program(T):
        x = leaf(T)
        y = x * 2

        def fail(g):
            raise ZeroDivisionError("in the hook")

        y.register_hook(fail)
        y.sum().backward()

    same(program, raises=ZeroDivisionError, match="in the hook", message="exact")


@pytest.mark.parametrize("result", [1.0, "text", [1.0, 2.0, 3.0]])
def test_a_hook_must_return_a_tensor_or_none(result):
    def program(T):
        x = leaf(T)
        x.register_hook(lambda g: result)
        (x * 2).sum().backward()

    same(program, raises=TypeError)


def test_a_hook_may_not_change_the_shape():
    def program(T):
        x = leaf(T)
        y = x * 2
        y.register_hook(lambda g: g[:2])
        (y * y).sum().backward()

    same(program, raises=RuntimeError, message="type")


def test_a_hook_needs_a_tensor_that_requires_grad():
    same(
        lambda T: T.ones(1).register_hook(lambda g: g),
        raises=RuntimeError,
        match="cannot register a hook on a tensor that doesn't require gradient",
        message="exact",
    )


def test_retained_grad_is_the_gradient_after_the_hooks():
    def program(T):
        results = []
        for hook_first in (True, False):
            x = leaf(T)
            y = x * 2
            if hook_first:
                y.register_hook(lambda g: g * 10)
                y.retain_grad()
            else:
                y.retain_grad()
                y.register_hook(lambda g: g * 10)
            y.sum().backward()
            results.append(y.grad)
        return results

    same(program)


def test_a_hook_may_run_another_backward():
    def program(T):
        x, w = leaf(T), leaf(T)
        y = x * 2
        y.register_hook(lambda g: (w * g).sum().backward())
        y.sum().backward()
        return x.grad, w.grad

    # PyTorch turns grad mode off in the hook, so the inner product has no graph.
    same(program, raises=RuntimeError, match="does not require grad")


def test_a_hook_may_run_another_backward_with_grad_mode_on():
    def program(T):
        x, w = leaf(T), leaf(T)
        y = x * 2

        def inner(g):
            with T.enable_grad():
                (w * g).sum().backward()

        y.register_hook(inner)
        y.sum().backward()
        return x.grad, w.grad

    same(program)


def test_a_hook_may_register_and_remove_hooks():
    def program(T):
        x = leaf(T)
        calls = []

        def once(g):
            calls.append("once")
            handle.remove()

        handle = x.register_hook(once)
        for _ in range(2):
            (x * 2).sum().backward()
        return calls

    same(program)


def test_hooks_stay_with_a_tensor_changed_in_place():
    """Each hook belongs to the value at registration: in place, the tensor gets a new node."""

    def program(T):
        x = leaf(T)
        y = x * 2
        seen = []
        y.register_hook(lambda g: seen.append(("before", g.clone())))
        y.mul_(5)
        y.register_hook(lambda g: seen.append(("after", g.clone())))
        y.sum().backward()
        return seen, x.grad

    same(program)


def test_a_hook_on_a_module_parameter():
    def program(T):
        layer = T.nn.Linear(3, 2)
        layer.weight.register_hook(lambda g: g * 0)
        layer(T.ones(4, 3)).sum().backward()
        return layer.weight.grad, layer.bias.grad

    same(program)


def test_hook_handles_have_ids_in_order():
    def program(T):
        x = leaf(T)
        first, second = x.register_hook(lambda g: g), x.register_hook(lambda g: g)
        return second.id > first.id

    same(program)


# ---------------------------------------------------------------- post-accumulate hooks


def test_a_post_accumulate_hook_sees_the_leaf_after_accumulation():
    def program(T):
        x = leaf(T)
        seen = []
        x.register_post_accumulate_grad_hook(lambda p: seen.append((p is x, p.grad.clone())))
        for _ in range(2):
            (x * x).sum().backward()
        return seen

    same(program)


def test_a_post_accumulate_hook_may_step_and_clear():
    """The optimizer step inside backward."""

    def program(T):
        layers = [leaf(T), leaf(T), leaf(T)]

        def step(p):
            with T.no_grad():
                p -= 0.1 * p.grad
            p.grad = None

        for p in layers:
            p.register_post_accumulate_grad_hook(step)
        for _ in range(3):
            sum((p * p).sum() for p in layers).backward()
        return layers, [p.grad for p in layers]

    same(program)


def test_post_accumulate_hooks_run_in_order_and_can_be_removed():
    def program(T):
        x = leaf(T)
        calls = []
        first = x.register_post_accumulate_grad_hook(lambda p: calls.append("first"))
        x.register_post_accumulate_grad_hook(lambda p: calls.append("second"))
        x.sum().backward()
        first.remove()
        x.sum().backward()
        return calls

    same(program)


def test_post_accumulate_hooks_run_after_tensor_hooks():
    def program(T):
        x = leaf(T)
        calls = []
        x.register_post_accumulate_grad_hook(lambda p: calls.append("post"))
        x.register_hook(lambda g: calls.append("tensor"))
        x.sum().backward()
        return calls

    same(program)


def test_post_accumulate_hooks_do_not_run_for_autograd_grad():
    def program(T):
        x = leaf(T)
        calls = []
        x.register_post_accumulate_grad_hook(lambda p: calls.append("post"))
        T.autograd.grad(x.sum(), x)
        return calls

    same(program)


def test_post_accumulate_hooks_are_for_leaves():
    same(
        lambda T: (leaf(T) * 2).register_post_accumulate_grad_hook(lambda p: None),
        raises=RuntimeError,
        match="post accumulate grad hooks cannot be registered on non-leaf tensors",
        message="exact",
    )


def test_post_accumulate_hooks_need_requires_grad():
    same(
        lambda T: T.ones(1).register_post_accumulate_grad_hook(lambda p: None),
        raises=RuntimeError,
        match="cannot register a hook on a tensor that doesn't require gradient",
        message="exact",
    )


@pytest.mark.parametrize("result", [lambda p: p * 100, lambda p: 1])
def test_a_post_accumulate_hook_must_return_none(result):
    def program(T):
        x = leaf(T)
        x.register_post_accumulate_grad_hook(result)
        x.sum().backward()

    same(program, raises=(RuntimeError, TypeError), message="exact")


def test_a_post_accumulate_hook_runs_while_other_leaves_wait():
    def program(T):
        first, second = leaf(T), leaf(T)
        seen = []
        second.register_post_accumulate_grad_hook(lambda p: seen.append(first.grad is None))
        (first.exp() * second).sum().backward()
        return seen

    same(program)
