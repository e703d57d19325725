"""Which hooks run in which kind of backward pass, and what they see, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def doubled(T: Any) -> Any:
    class Doubled(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 2

        @staticmethod
        def backward(ctx, grad):
            return grad * 2

    return Doubled


OPS = {
    "mul": lambda T, a: a * 2,
    "product": lambda T, a: a * a,
    "exp": lambda T, a: a.exp(),
    "pow": lambda T, a: a**2,
    "function": lambda T, a: doubled(T).apply(a),
}


def plain(grads: Any) -> Any:
    return [None if g is None else g.detach().clone() for g in grads]


def listen(a: Any, b: Any) -> list[Any]:
    """Hooks of every kind on a leaf and on what was made of it; what they see, in order."""
    seen: list[Any] = []

    def on_node(node, name):
        node.register_prehook(lambda grads: seen.append((f"before {name}", plain(grads))))
        node.register_hook(
            lambda made, given: seen.append((f"after {name}", plain(made), plain(given)))
        )

    on_node(b.grad_fn, "b")
    on_node(b.grad_fn.next_functions[0][0], "a")
    b.register_hook(lambda grad: seen.append(("tensor b", grad.detach().clone())))
    a.register_hook(lambda grad: seen.append(("tensor a", grad.detach().clone())))
    a.register_post_accumulate_grad_hook(lambda t: seen.append(("grad of a", t.grad.clone())))
    return seen


@pytest.mark.parametrize("inputs", ["a", "b", "ab", ""])
@pytest.mark.parametrize("op", OPS)
def test_hooks_of_a_backward_that_stops_at_inputs(op, inputs):
    def program(T):
        a = T.tensor(1.5, requires_grad=True)
        b = OPS[op](T, a)
        seen = listen(a, b)
        named = {"a": a, "b": b}
        c = b * 3
        for _ in range(2):  # the second pass adds to .grad
            c.backward(inputs=[named[n] for n in inputs] or None, retain_graph=True)
        return seen, a.grad

    same(program)


@pytest.mark.parametrize("inputs", ["a", "b", "ab", "ba"])
@pytest.mark.parametrize("op", OPS)
def test_hooks_under_autograd_grad(op, inputs):
    def program(T):
        a = T.tensor(1.5, requires_grad=True)
        b = OPS[op](T, a)
        seen = listen(a, b)
        named = {"a": a, "b": b}
        return T.autograd.grad(b * 3, [named[n] for n in inputs]), seen, a.grad

    same(program)


def test_node_hooks_do_not_change_what_grad_returns_for_their_own_tensor():
    def program(T):
        a = T.tensor(1.5, requires_grad=True)
        b = a.clone()
        b.grad_fn.register_prehook(lambda grads: (grads[0] * 2,))
        b.register_hook(lambda grad: grad * 3)
        b.grad_fn.next_functions[0][0].register_prehook(lambda grads: (grads[0] * 5,))
        a.register_hook(lambda grad: grad * 7)
        return T.autograd.grad(b * 1, [a, b])

    same(program)


def test_retained_gradients_are_those_before_the_nodes_own_hooks():
    def program(T):
        a = T.tensor(1.5, requires_grad=True)
        b = a.clone()
        b.retain_grad()
        b.grad_fn.register_prehook(lambda grads: (grads[0] * 2,))
        b.register_hook(lambda grad: grad * 3)
        b.exp().backward()
        return a.grad, b.grad

    same(program)


@pytest.mark.parametrize("alone", [False, True])
def test_outputs_that_lead_to_none_of_the_inputs(alone):
    """Nothing of several is run, and of an only one the hooks of its tensor."""

    def program(T):
        a, z = T.tensor(1.5, requires_grad=True), T.tensor(2.0, requires_grad=True)
        b, y = a.exp(), z.exp()
        y.retain_grad()
        seen: list[Any] = []
        y.register_hook(lambda grad: seen.append("tensor"))
        y.grad_fn.register_prehook(lambda grads: seen.append("before"))
        y.grad_fn.register_hook(lambda made, given: seen.append("after"))
        outputs = [y] if alone else [b, y]
        return T.autograd.grad(outputs, [a], allow_unused=True), seen, y.grad, z.grad

    same(program)


def accumulator(a: Any) -> Any:
    return a.view_as(a).grad_fn.next_functions[0][0]


@pytest.mark.parametrize("kept", [True, False])
@pytest.mark.parametrize("first", ["node", "tensor"])
def test_hooks_of_a_leafs_node_go_with_the_node(kept, first):
    def program(T):
        a = T.tensor(1.5, requires_grad=True)
        seen: list[str] = []
        if first == "tensor":
            a.register_hook(lambda grad: seen.append("tensor"))
        node = accumulator(a)
        node.register_prehook(lambda grads: seen.append("before"))
        node.register_hook(lambda made, given: seen.append("after"))
        if first == "node":
            a.register_hook(lambda grad: seen.append("tensor"))
        if not kept:
            del node
        (a * 2).backward()
        (a * 2).backward()
        return seen

    same(program)


def test_the_order_of_all_hooks_of_a_leaf():
    def program(T):
        a = T.tensor([1.0, 2.0], requires_grad=True)
        node = accumulator(a)

        def added(t):
            t.grad.add_(0.5)

        def after(made, given):
            a.grad = given[0] * 10

        a.register_hook(lambda grad: grad - 2)
        node.register_prehook(lambda grads: (grads[0] / 5,))
        a.register_post_accumulate_grad_hook(added)
        handle = node.register_hook(after)
        a.sum().backward()
        seen = [a.grad.clone()]
        handle.remove()
        a.sum().backward()
        return seen, a.grad

    same(program)


CONSTANTS = {
    "pow": lambda T, a: a**2,
    "rsub": lambda T, a: 1 - a,
    "gather": lambda T, a: a.gather(0, T.tensor([0, 1])),
    "where": lambda T, a: T.where(a > 1, a, T.zeros(2)),
    "masked fill": lambda T, a: a.masked_fill(a > 1, 0.0),
    "embedding": lambda T, a: T.nn.functional.embedding(T.tensor([0]), a[None]),
}


@pytest.mark.parametrize("op", CONSTANTS)
def test_a_node_hook_sees_the_inputs_that_may_get_a_gradient(op):
    def program(T):
        a = T.tensor([1.0, 2.0], requires_grad=True)
        y = CONSTANTS[op](T, a)
        seen: list[Any] = []

        def hook(made, given):
            seen.extend([plain(made), plain(given)])
            return tuple(None if g is None else g * 10 for g in made)

        y.grad_fn.register_hook(hook)
        y.sum().backward()
        return seen, a.grad

    same(program)


# ------------------------------------------------------------------------ nodes as functions
@pytest.mark.parametrize("op", ["pow", "exp", "product"])
@pytest.mark.parametrize("recorded", [False, True])
def test_a_node_can_be_called(op, recorded):
    def program(T):
        a = T.tensor([1.5, -2.0], requires_grad=True)
        y = OPS[op](T, a)
        y.grad_fn.register_hook(lambda made, given: (_ for _ in ()).throw(AssertionError))
        with T.set_grad_enabled(recorded):
            return y.grad_fn(T.tensor([2.0, 3.0])), y.grad_fn(T.tensor([2.0, 3.0]))

    same(program)


@pytest.mark.parametrize("count", [0, 2])
def test_a_node_is_called_with_one_gradient_per_output(count):
    def program(T):
        node = (T.tensor([1.0], requires_grad=True) ** 2).grad_fn
        return outcome_of(lambda: node(*[T.ones(1)] * count))

    same(program)


# ----------------------------------------------------------------- when a pass is over
def queue(T: Any, callback: Any) -> None:
    T.autograd.Variable._execution_engine.queue_callback(callback)


def test_queued_callbacks_run_when_all_gradients_are_there():
    def program(T):
        a, w = T.tensor(1.5, requires_grad=True), T.tensor(2.0, requires_grad=True)
        seen: list[Any] = []

        def first():
            seen.append(("first", a.grad.clone(), w.grad.clone(), T.is_grad_enabled()))
            queue(T, lambda: seen.append("queued by the first"))

        def hook(grad):
            queue(T, first)
            queue(T, lambda: seen.append("second"))
            seen.append("hook")

        y = a.exp()
        y.register_hook(hook)
        w.register_post_accumulate_grad_hook(lambda t: seen.append("grad of w"))
        (y * w).backward()
        return seen

    same(program)


@pytest.mark.parametrize("from_inside", [False, True])
def test_callbacks_belong_to_the_pass_in_which_they_are_queued(from_inside):
    def program(T):
        seen: list[Any] = []

        def outer_hook(grad):
            if not from_inside:
                queue(T, lambda: seen.append("callback"))
            with T.enable_grad():
                y = T.tensor(2.0, requires_grad=True).exp()
            if from_inside:
                y.register_hook(lambda grad: queue(T, lambda: seen.append("callback")))
            y.backward()
            seen.append("end of the inner pass")

        z = T.tensor(1.5, requires_grad=True).exp()
        z.register_hook(outer_hook)
        z.backward()
        seen.append("end of the outer pass")
        return seen

    same(program)


def test_callbacks_do_not_run_after_an_error():
    def program(T):
        seen: list[Any] = []
        a = T.tensor(1.5, requires_grad=True)
        y = a.exp()
        y.register_hook(lambda grad: queue(T, lambda: seen.append("callback")))
        a.register_hook(lambda grad: 1 / 0)
        return outcome_of(y.backward), seen

    same(program)


def test_callbacks_are_queued_in_backward_passes_only():
    same(lambda T: outcome_of(lambda: queue(T, print)))


# --------------------------------------------------------------------- passes within passes
@pytest.mark.parametrize("depth", [59, 61, 400])
def test_a_backward_pass_may_run_others_in_its_rules_many_levels_deep(depth):
    def program(T):
        class Deep(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                with T.enable_grad():
                    ctx.x = x.detach().requires_grad_() - 1
                return ctx.x.detach()

            @staticmethod
            def backward(ctx, grad):
                if ctx.x >= 0:
                    with T.enable_grad():
                        Deep.apply(ctx.x).sum().backward()
                seen.append(T.is_grad_enabled())
                return grad * 2

        seen: list[bool] = []
        x = T.tensor(float(depth), requires_grad=True)
        Deep.apply(x).backward()
        return x.grad, len(seen), set(seen).pop(), len(set(seen))

    same(program)


def test_errors_come_out_of_deep_passes():
    def program(T):
        class Deep(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                with T.enable_grad():
                    ctx.x = x.detach().requires_grad_() - 1
                return ctx.x.detach()

            @staticmethod
            def backward(ctx, grad):
                if ctx.x < 0:
                    raise KeyError("the last")
                with T.enable_grad():
                    Deep.apply(ctx.x).sum().backward()
                return grad

        x = T.tensor(150.0, requires_grad=True)
        return outcome_of(Deep.apply(x).backward), x.grad

    same(program)
