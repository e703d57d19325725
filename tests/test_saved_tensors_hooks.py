"""Hooks that pack and unpack saved tensors, compared with PyTorch."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- saved_tensors_hooks


def test_saved_tensors_hooks_pack_and_unpack():
    def program(T):
        log = []

        def pack(t):
            log.append(("pack", t.clone()))
            return t * 1

        def unpack(t):
            log.append(("unpack", t.clone()))
            return t

        x = leaf(T)
        with T.autograd.graph.saved_tensors_hooks(pack, unpack):
            y = x.exp() * 3
        before = len(log)
        y.sum().backward()
        return before, [name for name, _ in log], x.grad

    same(program)


def test_saved_tensors_hooks_pack_inputs_of_a_product():
    def program(T):
        packed = []
        x, y = leaf(T), T.tensor([4.0, 5.0, 6.0], requires_grad=True)

        def pack(t):
            packed.append(t.detach().clone())
            return t

        with T.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            z = x * y
        z.sum().backward()
        return sorted(t.tolist() for t in packed), x.grad, y.grad

    same(program)


def test_packed_values_may_be_anything():
    def program(T):
        storage = {}

        def pack(t):
            storage[len(storage)] = t.detach().numpy().copy()
            return len(storage) - 1

        x = leaf(T)
        with T.autograd.graph.saved_tensors_hooks(pack, lambda key: T.from_numpy(storage[key])):
            y = x.sin() * x
        y.sum().backward()
        return x.grad, len(storage)

    same(program)


def test_saved_tensors_hooks_nest_and_the_innermost_runs():
    def program(T):
        calls = []

        def named(name):
            return lambda t: calls.append(name) or t

        x = leaf(T)
        hooks = T.autograd.graph.saved_tensors_hooks
        with hooks(named("outer pack"), named("outer unpack")):
            y = x.exp()
            with hooks(named("inner pack"), named("inner unpack")):
                z = y.sin()
            w = z.cos()
        w.sum().backward()
        return calls, x.grad

    same(program)


def test_saved_tensors_hooks_end_after_an_exception():
    def program(T):
        calls = []

        def enter_and_fail():
            with T.autograd.graph.saved_tensors_hooks(
                lambda t: calls.append("pack") or t, lambda t: t
            ):
                raise ValueError("on purpose")

        outcome_of(enter_and_fail)
        leaf(T).exp()
        return calls

    same(program)


def test_nothing_is_packed_in_no_grad_or_for_constants():
    def program(T):
        calls = []
        with T.autograd.graph.saved_tensors_hooks(lambda t: calls.append("pack") or t, lambda t: t):
            with T.no_grad():
                leaf(T).exp()
            T.ones(3).exp()
        return calls

    same(program)


def test_unpacking_runs_for_each_backward():
    def program(T):
        calls = []
        x = leaf(T)
        with T.autograd.graph.saved_tensors_hooks(
            lambda t: t * 1, lambda t: calls.append("unpack") or t
        ):
            y = x.exp().sum()
        y.backward(retain_graph=True)
        y.backward()
        return calls, x.grad

    same(program)


def test_saved_tensors_of_a_function_are_packed():
    def program(T):
        calls = []

        class Square(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return 2 * x * g

        def pack(t):
            calls.append("pack")
            return t * 2

        def unpack(t):
            calls.append("unpack")
            return t

        x = leaf(T)
        with T.autograd.graph.saved_tensors_hooks(pack, unpack):
            y = Square.apply(x)
        y.sum().backward()
        return calls, x.grad

    same(program)


def test_a_failing_pack_hook_ends_forward():
    def program(T):
        def pack(t):
            raise ValueError("cannot pack")

        with T.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
            leaf(T).exp()

    same(program, raises=ValueError, match="cannot pack", message="exact")


def test_a_failing_unpack_hook_ends_backward():
    def program(T):
        def unpack(t):
            raise ValueError("cannot unpack")

        with T.autograd.graph.saved_tensors_hooks(lambda t: t, unpack):
            y = leaf(T).exp()
        y.sum().backward()

    same(program, raises=ValueError, match="cannot unpack", message="exact")


def test_an_unpack_hook_must_give_a_tensor():
    def program(T):
        with T.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: 1):
            y = leaf(T).exp()
        y.sum().backward()

    same(program, raises=TypeError, message="type")


def test_double_backward_through_saved_tensors_hooks():
    def program(T):
        x = leaf(T)
        with T.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            y = (x**3).sum()
            (g,) = T.autograd.grad(y, x, create_graph=True)
        (h,) = T.autograd.grad(g.sum(), x)
        return g.detach(), h

    same(program)


def test_disable_saved_tensors_hooks():
    def program(T):
        graph = T.autograd.graph
        with (
            graph.disable_saved_tensors_hooks("not here"),
            graph.saved_tensors_hooks(lambda t: t, lambda t: t),
        ):
            leaf(T).exp()

    same(program, raises=RuntimeError, match="not here", message="exact")


def test_save_on_cpu():
    def program(T):
        x = leaf(T)
        with T.autograd.graph.save_on_cpu():
            y = x.exp() * x.sin()
        y.sum().backward()
        return y, x.grad

    same(program)


def test_a_packed_value_changed_in_place_is_still_caught():
    def program(T):
        x = leaf(T)
        h = x * 1
        with T.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
            y = h.sin()
        h.add_(1)
        return outcome_of(y.sum().backward), x.grad

    same(program)


def test_pack_hooks_are_given_tensors_in_the_graph():
    def program(T):
        a, b = T.tensor([0.1, 0.2], requires_grad=True), T.nn.Parameter(T.tensor([0.3, 0.4]))
        c = a.exp()
        seen: list[Any] = []

        def pack(tensor):
            is_parameter = isinstance(tensor, T.nn.Parameter)
            seen.append((tensor, tensor.requires_grad, tensor.is_leaf, is_parameter, tensor is b))
            return tensor

        with T.autograd.graph.saved_tensors_hooks(pack, lambda x: x):
            product = c * b
            loss = (product * T.ones(2) @ product).sin()
        loss.backward()
        facts = sorted((round(float(t.detach().sum()), 3), *facts) for t, *facts in seen)
        return facts, a.grad, b.grad

    same(program)


def test_a_hook_that_packs_all_but_parameters():
    def program(T):
        linear = T.nn.Linear(2, 2)
        linear.load_state_dict({"weight": T.arange(4.0).view(2, 2), "bias": T.ones(2)})
        kept: list[Any] = []

        def pack(tensor):
            if isinstance(tensor, T.nn.Parameter):
                return tensor
            kept.append(tensor.clone())
            return len(kept) - 1

        x = T.ones(3, 2, requires_grad=True)
        with T.autograd.graph.saved_tensors_hooks(
            pack, lambda p: kept[p] if isinstance(p, int) else p
        ):
            y = (x * 2) @ linear.weight * linear.bias
        y.sum().backward()
        return len(kept), x.grad, linear.weight.grad, linear.bias.grad

    same(program)


@pytest.mark.parametrize("through", ["hooks", "checkpoint"])
def test_a_function_gets_a_saved_constant_itself_back(through):
    def program(T):
        class Scaled(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, factor):
                ctx.save_for_backward(factor)
                return x * factor

            @staticmethod
            def backward(ctx, grad):
                (factor,) = ctx.saved_tensors
                found.append(factor)
                return grad * factor, None

        found: list[Any] = []
        x, factor = T.tensor(1.5, requires_grad=True), T.tensor(2.0)
        if through == "hooks":
            with T.autograd.graph.saved_tensors_hooks(lambda t: t, lambda t: t):
                y = Scaled.apply(x, factor)
        else:
            checkpoint = importlib.import_module(f"{T.__name__}.utils.checkpoint").checkpoint
            y = checkpoint(Scaled.apply, x, factor, use_reentrant=False)
        y.backward()
        return found[0] is factor, x.grad

    same(program)
