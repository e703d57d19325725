"""The context of an autograd.Function as a namespace and as grad_fn; its rarer uses."""

from __future__ import annotations

import weakref
from typing import Any

import pytest

from tests.library import T
from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def make(T: Any, forward: Any, backward: Any = lambda ctx, *g: g[0], name: str = "Fn") -> Any:
    members = {"forward": staticmethod(forward), "backward": staticmethod(backward)}
    return type(name, (T.autograd.Function,), members)


NAMES = ["op", "edges", "saved", "versions", "attrs", "aux", "shapes", "F", "outputs", "seq",
         "extra", "node", "shape", "x"]  # fmt: skip


@pytest.mark.parametrize("name", NAMES)
def test_any_attribute_name_is_the_users(name):
    def program(T):
        def forward(ctx, x):
            setattr(ctx, name, 7.0)
            ctx.save_for_backward(x)
            return x * 7

        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * getattr(ctx, name) + 0 * x

        x = leaf(T)
        y = make(T, forward, backward).apply(x)
        (g,) = T.autograd.grad(y.sum(), x, create_graph=True)
        return getattr(y.grad_fn, name), y, g.detach()

    same(program)


def test_the_context_outlives_its_results():
    def program(T):
        fn = make(T, lambda ctx, x: x * 2).apply(leaf(T) * 1).grad_fn
        return (
            fn.name(),
            [node for node, _ in fn.next_functions],
            fn.saved_tensors,
            fn.needs_input_grad,
            fn.metadata,
        )

    same(program)


def test_saved_tensors_are_the_same_objects_where_possible():
    def program(T):
        seen = []

        def forward(ctx, x, h, c):
            out = h * 2 + c
            ctx.save_for_backward(x, h, c, out, None)
            return out

        def backward(ctx, g):
            a, b, d, out, nothing = ctx.saved_tensors
            seen.append((a is x, b is h, d is c, out is y, out.grad_fn is y.grad_fn, nothing))
            return g, g, g

        x, c = leaf(T), T.ones(3)
        h = x * 1
        y = make(T, forward, backward).apply(x, h, c)
        y.sum().backward()
        return seen

    same(program)


def test_what_is_saved_last_counts():
    def program(T):
        def forward(ctx, x):
            seen.append(ctx.saved_tensors)
            ctx.save_for_backward(x)
            ctx.save_for_backward(x * 2)
            return x * 3

        def backward(ctx, g):
            seen.append(ctx.saved_tensors)
            return g

        seen = []
        make(T, forward, backward).apply(leaf(T)).sum().backward()
        return seen

    same(program)


def test_freed_or_changed_values_matter_only_when_they_are_read():
    def program(T):
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * 2

        f = make(T, forward, lambda ctx, g: g * 2).apply
        x = leaf(T)
        y = f(x).sum()
        y.backward()
        y.backward()
        h = leaf(T) * 1
        z = f(h).sum()
        h.add_(1)
        z.backward()
        return x.grad

    same(program)


def test_keyword_and_default_arguments():
    def program(T):
        class Scale(T.autograd.Function):
            @staticmethod
            def forward(x, factor=3):
                return x * factor

            @staticmethod
            def setup_context(ctx, inputs, output):
                ctx.factor = inputs[1]

            @staticmethod
            def backward(ctx, g):
                return g * ctx.factor, None

        x = leaf(T)
        results = Scale.apply(x), Scale.apply(x, 4), Scale.apply(x, factor=5), Scale.apply(x=x)
        sum(r.sum() for r in results).backward()

        def old(ctx, x, factor=2):
            return x * factor

        return results, x.grad, make(T, old).apply(x), make(T, old).apply(x, factor=6)

    same(program)


def test_vjp_is_another_name_of_backward():
    def program(T):
        class Double(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def vjp(ctx, g):
                return g * 2

        class Both(Double):
            @staticmethod
            def backward(ctx, g):
                return g * 2

        x = leaf(T)
        Double.apply(x).sum().backward()
        return x.grad, outcome_of(Both.apply(leaf(T)).sum().backward)

    same(program, message="exact")


MARKS = {
    "dirty_result": lambda ctx, x: _marked(ctx.mark_dirty, x * 2),
    "non_differentiable_input": lambda ctx, x: _marked(ctx.mark_non_differentiable, x) * 2,
}


def _marked(mark: Any, tensor: Any) -> Any:
    mark(tensor)
    return tensor


@pytest.mark.parametrize("name", MARKS)
def test_marks_on_the_wrong_tensor(name):
    def program(T):
        return make(T, MARKS[name]).apply(leaf(T))

    same(program, warns="not an input" if name == "dirty_result" else None)


VIEWS = {
    "slice": lambda ctx, x: x[:2],
    "whole": lambda ctx, x: x.view_as(x),
    "itself": lambda ctx, x: x,
    "one_of_two": lambda ctx, x: (x[:2], x * 2),
}


@pytest.mark.parametrize("name", VIEWS)
def test_views_made_by_forward_are_not_written_to(name):
    def program(T):
        def view():
            base = leaf(T) * 1
            result = make(T, VIEWS[name]).apply(base)
            return base, result[0] if isinstance(result, tuple) else result

        base, y = view()
        facts = y._is_view(), y._base is not None
        written = outcome_of(lambda: y.add_(1).shape)
        base, y = view()
        base.add_(1)
        return facts, written, outcome_of(lambda: y.grad_fn.name())

    same(program, message="prefix")


def test_dirty_views_among_several_results():
    def program(T):
        def forward(ctx, x):
            x.add_(1)
            ctx.mark_dirty(x)
            return x, x * 2

        base = leaf(T) * 1
        return outcome_of(lambda: make(T, forward).apply(base[:2]))

    same(program)


def test_a_graph_made_inside_forward_stays_inside():
    def program(T):
        w = leaf(T)

        def forward(ctx, x):
            with T.enable_grad():
                return (x.detach() * w).exp()

        with T.no_grad():
            outside = make(T, forward).apply(T.ones(3))
        return outside, make(T, forward).apply(leaf(T))

    same(program)


def test_contexts_and_graphs_die_by_reference_counting(no_gc):
    def forward(ctx: Any, x: Any) -> Any:
        y = x * x
        ctx.save_for_backward(x, y)
        ctx.mark_non_differentiable(x + 1)
        ctx.itself = ctx.needs_input_grad
        return y

    def backward(ctx: Any, g: Any) -> Any:
        x, _ = ctx.saved_tensors
        return 2 * x * g

    f = make(T, forward, backward).apply
    for run in (
        lambda y: None,
        lambda y: y.sum().backward(),
        lambda y: T.autograd.grad(y.sum(), y, create_graph=True),
    ):
        x = leaf(T)
        y = f(x * 1)
        context = weakref.ref(y.grad_fn)
        run(y)
        del y
        assert context() is None


@pytest.mark.parametrize("materialize", [True, False])
def test_results_that_are_no_tensors_have_places_among_the_gradients(materialize):
    def program(T):
        seen = []

        def forward(ctx, x, k):
            ctx.set_materialize_grads(materialize)
            y, z = x * k, x + k
            ctx.save_for_backward(z, x)
            return k, y, None, "text", z

        def backward(ctx, *grads):
            z, x = ctx.saved_tensors
            seen.append([None if g is None else g.detach().clone() for g in grads])
            seen.append([z.detach().clone(), x.detach().clone()])
            return grads[1] * z, None

        x = leaf(T)
        made = make(T, forward, backward).apply(x, 3.0)
        made[1].grad_fn.register_prehook(lambda grads: seen.append(len(grads)))
        (g,) = T.autograd.grad(made[1].sum(), x, create_graph=True)
        return made, made[1].output_nr, made[4].output_nr, seen, g.detach()

    same(program)


def test_a_saved_output_after_one_that_is_no_tensor_is_in_the_graph():
    def program(T):
        def forward(ctx, x):
            y = x.exp()
            ctx.save_for_backward(y)
            return "text", y

        def backward(ctx, nothing, grad):
            (y,) = ctx.saved_tensors
            return grad * y

        x = leaf(T, 0.5, -1.0)
        _, y = make(T, forward, backward).apply(x)
        (g,) = T.autograd.grad(y.sum(), x, create_graph=True)
        return T.autograd.grad(g.sum(), x)

    same(program)


def test_saved_variables_is_the_older_name_of_saved_tensors():
    def program(T):
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        x = leaf(T)
        y = make(T, forward, lambda ctx, g: g * 2 * ctx.saved_variables[0]).apply(x)
        y.sum().backward()
        return x.grad

    same(program, warns="deprecated")


def test_a_function_derived_from_inplace_function():
    def program(T):
        class Doubled(T.autograd.function.InplaceFunction):
            @staticmethod
            def forward(ctx, x):
                ctx.mark_dirty(x)
                return x.mul_(2)

            @staticmethod
            def backward(ctx, grad):
                return grad * 2

        x = leaf(T)
        y = x.clone()
        z = Doubled.apply(y)
        z.sum().backward()
        return z is y, z, x.grad

    same(program)


@pytest.mark.parametrize("edit", ["add_", "copy_"])
@pytest.mark.parametrize("several", [False, True])
def test_views_of_constants_made_by_forward_are_not_written_to_with_gradients(edit, several):
    def program(T):
        def forward(ctx, x):
            return (x.view(2, 1), x[:1]) if several else x.view(2, 1)

        x = T.ones(2)
        made = make(T, forward).apply(x)
        view = made[0] if several else made
        return outcome_of(lambda: getattr(view, edit)(T.ones(1, requires_grad=True)))

    same(program)


def test_a_function_on_views_it_edits_is_differentiated_twice():
    def program(T):
        def forward(ctx, x, y):
            ctx.mark_dirty(x)
            return x.add_(y)

        added = make(T, forward, lambda ctx, g: (g, g))
        a = T.arange(16.0).view(4, 4).requires_grad_()
        b = T.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        x = a.clone()
        added.apply(x.narrow(1, 2, 2).narrow(0, 1, 2), b)
        added.apply(x.narrow(1, 0, 2).narrow(0, 1, 2), b)
        first = T.autograd.grad((x**3).sum(), [a, b], create_graph=True)
        return first, T.autograd.grad(sum(g.sum() for g in first), [a, b])

    same(program)
