"""Hooks on graph nodes and on modules, compared with PyTorch."""

from __future__ import annotations

from typing import Any

from tests.oracle import same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- Node hooks


def test_a_node_hook_sees_input_and_output_gradients():
    def program(T):
        x, y = leaf(T), leaf(T)
        z = x * y
        seen = []
        z.grad_fn.register_hook(
            lambda grad_inputs, grad_outputs: seen.append((grad_inputs, grad_outputs))
        )
        z.sum().backward()
        return seen

    same(program)


def test_a_node_hook_replaces_the_input_gradients():
    def program(T):
        x, y = leaf(T), leaf(T)
        z = x * y
        z.grad_fn.register_hook(
            lambda grad_inputs, grad_outputs: (grad_inputs[0] * 10, grad_inputs[1])
        )
        z.sum().backward()
        return x.grad, y.grad

    same(program)


def test_a_node_hook_sees_none_for_constants():
    def program(T):
        x = leaf(T)
        z = x * T.ones(3)
        seen = []
        z.grad_fn.register_hook(lambda grad_inputs, grad_outputs: seen.append(grad_inputs))
        z.sum().backward()
        return seen

    same(program)


def test_a_node_prehook_replaces_the_output_gradients():
    def program(T):
        x = leaf(T)
        z = x.exp()
        seen = []

        def prehook(grad_outputs):
            seen.append(grad_outputs)
            return (grad_outputs[0] * 3,)

        z.grad_fn.register_prehook(prehook)
        z.sum().backward()
        return seen, x.grad

    same(program)


def test_a_node_prehook_sees_unused_outputs_as_none():
    def program(T):
        x = leaf(T)
        a, b, c = x.unbind()
        seen = []
        a.grad_fn.register_prehook(lambda grad_outputs: seen.append(grad_outputs))
        (a * c).backward()
        return seen, x.grad

    same(program)


def test_the_order_of_all_hooks_of_one_node():
    def program(T):
        x = leaf(T)
        y = x * 2
        calls = []
        y.grad_fn.register_hook(lambda gi, go: calls.append("node"))
        y.grad_fn.register_prehook(lambda go: calls.append("prehook"))
        y.register_hook(lambda g: calls.append("tensor"))
        y.grad_fn.register_prehook(lambda go: calls.append("second prehook"))
        y.retain_grad()
        x.register_hook(lambda g: calls.append("leaf"))
        x.register_post_accumulate_grad_hook(lambda p: calls.append("post"))
        y.sum().backward()
        return calls

    same(program)


def test_node_hooks_can_be_removed():
    def program(T):
        x = leaf(T)
        y = x * 2
        calls = []
        hook = y.grad_fn.register_hook(lambda gi, go: calls.append("hook"))
        prehook = y.grad_fn.register_prehook(lambda go: calls.append("prehook"))
        z = y.sum()
        z.backward(retain_graph=True)
        hook.remove()
        prehook.remove()
        z.backward()
        return calls

    same(program)


def test_a_hook_on_an_accumulate_grad_node():
    def program(T):
        x = leaf(T)
        node = (x * 2).grad_fn.next_functions[0][0]
        seen = []
        node.register_hook(lambda gi, go: seen.append((gi, go, x.grad.clone())))
        node.register_prehook(lambda go: seen.append(("prehook", go, x.grad)))
        (x * 3).sum().backward()
        return seen, x.grad

    same(program)


def test_a_node_hook_of_the_wrong_length_is_refused():
    def program(T):
        x = leaf(T)
        y = x * 2
        y.grad_fn.register_hook(lambda gi, go: (gi[0],) * 5)
        y.sum().backward()

    same(program, raises=RuntimeError, match="incorrect number of values", message="exact")


def test_a_node_hook_on_a_custom_function():
    def program(T):
        class Scale(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, factor):
                ctx.factor = factor
                return x * factor

            @staticmethod
            def backward(ctx, g):
                return g * ctx.factor, None

        x = leaf(T)
        y = Scale.apply(x, 3.0)
        seen = []
        y.grad_fn.register_hook(lambda gi, go: seen.append((gi, go)))
        y.grad_fn.register_prehook(lambda go: (go[0] + 1,))
        y.sum().backward()
        return seen, x.grad

    same(program)


def test_node_metadata_is_a_dictionary_kept_with_the_node():
    def program(T):
        y = leaf(T) * 2
        y.grad_fn.metadata["layer"] = 3
        return y.grad_fn.metadata["layer"]

    same(program)


def test_register_multi_grad_hook():
    def program(T):
        x, y = leaf(T), leaf(T)
        seen = []
        handle = T.autograd.graph.register_multi_grad_hook(
            (x, y), lambda grads: seen.append(list(grads))
        )
        (x * y).sum().backward()
        (x * 2).sum().backward()
        handle.remove()
        (x * y).sum().backward()
        return seen

    same(program)


# ---------------------------------------------------------------- module hooks


def test_module_hooks_run_around_forward_and_backward():
    def program(T):
        calls = []
        model = T.nn.Sequential(T.nn.Linear(3, 2), T.nn.Tanh())
        for layer in model:
            name = type(layer).__name__
            layer.register_forward_pre_hook(lambda m, args, name=name: calls.append(("pre", name)))
            layer.register_forward_hook(
                lambda m, args, out, name=name: calls.append(("forward", name))
            )
            layer.register_full_backward_pre_hook(
                lambda m, g, name=name: calls.append(("backward pre", name))
            )
            layer.register_full_backward_hook(
                lambda m, gi, go, name=name: calls.append(("backward", name))
            )
        model(T.ones(4, 3, requires_grad=True)).sum().backward()
        return calls

    same(program)


def test_a_forward_hook_replaces_the_output():
    def program(T):
        layer = T.nn.Tanh()
        handle = layer.register_forward_hook(lambda m, args, out: out * 2)
        x = leaf(T)
        first = layer(x)
        handle.remove()
        return first, layer(x)

    same(program)


def test_a_full_backward_hook_replaces_the_input_gradient():
    def program(T):
        layer = T.nn.Tanh()
        layer.register_full_backward_hook(lambda m, gi, go: (gi[0] * 5,))
        x = leaf(T)
        layer(x).sum().backward()
        return x.grad

    same(program)
