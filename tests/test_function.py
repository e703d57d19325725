"""autograd.Function in both styles, compared with PyTorch."""

from __future__ import annotations

from typing import Any

from tests.function_support import exp_function, leaf, product_function, split_function
from tests.oracle import outcome_of, same

# ---------------------------------------------------------------- both styles


def test_a_function_with_a_context():
    def program(T):
        x = leaf(T)
        y = exp_function(T).apply(x)
        (y * 2).sum().backward()
        return y, x.grad

    same(program)


def test_a_function_with_setup_context():
    def program(T):
        x, y = leaf(T), leaf(T)
        z = product_function(T).apply(x, y, 3.0)
        z.sum().backward()
        return z, x.grad, y.grad

    same(program)


def test_the_node_is_named_after_the_class():
    def program(T):
        y = exp_function(T).apply(leaf(T))
        return y.grad_fn.name(), [child.name() for child, _ in y.grad_fn.next_functions]

    same(program)


def test_printing_shows_the_name():
    same(lambda T: repr(exp_function(T).apply(T.tensor(0.0, requires_grad=True))))


def test_constants_give_no_node():
    def program(T):
        return exp_function(T).apply(T.ones(3)), product_function(T).apply(
            T.ones(3), T.ones(3), 1.0
        )

    same(program)


def test_the_result_requires_grad_when_any_input_does():
    def program(T):
        x, c = leaf(T), T.ones(3)
        f = product_function(T)
        results = f.apply(x, c, 2.0), f.apply(c, x, 2.0)
        sum(r.sum() for r in results).backward()
        return results, x.grad, c.grad

    same(program)


def test_forward_runs_without_grad_mode():
    def program(T):
        seen = []

        class Look(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                seen.append((T.is_grad_enabled(), x.requires_grad, (x * 2).requires_grad))
                return x * 2

            @staticmethod
            def backward(ctx, g):
                seen.append((T.is_grad_enabled(), g.requires_grad))
                return g * 2

        y = Look.apply(leaf(T))
        y.sum().backward()
        return seen

    same(program)


# ---------------------------------------------------------------- outputs


def test_several_outputs():
    def program(T):
        x = leaf(T)
        a, b = split_function(T).apply(x)
        (a * b).sum().backward()
        return a, b, a.output_nr, b.output_nr, a.grad_fn is b.grad_fn, x.grad

    same(program)


def test_an_unused_output_gets_zeros():
    def program(T):
        seen = []
        x = leaf(T)
        _, b = split_function(T, seen).apply(x)
        b.sum().backward()
        return seen, x.grad

    same(program)


def test_an_unused_output_gets_none_on_request():
    def program(T):
        seen = []

        class Split(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.set_materialize_grads(False)
                return x * 2, x * 3

            @staticmethod
            def backward(ctx, first, second):
                seen.append((first, second))
                return second * 3

        x = leaf(T)
        Split.apply(x)[1].sum().backward()
        return seen, x.grad

    same(program)


def test_outputs_that_are_not_tensors():
    def program(T):
        class Mixed(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2, "text", 5, None

            @staticmethod
            def backward(ctx, g, *rest):
                return g * 2

        x = leaf(T)
        y, *rest = Mixed.apply(x)
        y.sum().backward()
        return rest, x.grad

    same(program)


def test_integer_outputs_do_not_require_grad():
    def program(T):
        class WithIndex(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2, x.argmax()

            @staticmethod
            def backward(ctx, g, _):
                return g * 2

        return WithIndex.apply(leaf(T))

    same(program)


def test_an_input_returned_as_it_is_becomes_a_view():
    def program(T):
        class Identity(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x

            @staticmethod
            def backward(ctx, g):
                return g * 5

        x = leaf(T)
        y = Identity.apply(x)
        y.sum().backward()
        return y is x, y, x.grad, y.data_ptr() == x.data_ptr()

    same(program)


def test_a_view_returned_by_forward():
    def program(T):
        class First(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x[:2]

            @staticmethod
            def backward(ctx, g):
                return T.cat([g, T.zeros(1)])

        x = leaf(T)
        y = First.apply(x * 1)
        y.sum().backward()
        return y, x.grad

    same(program)


# ---------------------------------------------------------------- marks


def test_mark_non_differentiable():
    def program(T):
        seen = []

        class Sort(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                values, extra = x * 2, x * 0
                ctx.mark_non_differentiable(extra)
                return values, extra

            @staticmethod
            def backward(ctx, g, g_extra):
                seen.append(g_extra)
                return g * 2

        x = leaf(T)
        values, extra = Sort.apply(x)
        values.sum().backward()
        return values, extra, seen, x.grad

    same(program)


def increment(T: Any, mark: bool = True) -> Any:
    class Increment(T.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            x.add_(1)
            if mark:
                ctx.mark_dirty(x)
            return x

        @staticmethod
        def backward(ctx, g):
            return g * 10

    return Increment


def test_mark_dirty_on_a_non_leaf():
    def program(T):
        x = leaf(T)
        h = x * 2
        y = increment(T).apply(h)
        (y * y).sum().backward()
        return y is h, y, h, h._version, x.grad

    same(program)


def test_mark_dirty_on_a_leaf_that_requires_grad():
    same(
        lambda T: increment(T).apply(leaf(T)),
        raises=RuntimeError,
        match="a leaf Variable that requires grad has been used in an in-place operation",
        message="exact",
    )


def test_mark_dirty_on_a_view_writes_through_to_the_base():
    def program(T):
        x = leaf(T)
        base = x * 2
        v = base[:2]
        y = increment(T).apply(v)
        (base * base).sum().backward()
        return y, base, x.grad

    same(program)


def test_mark_dirty_on_a_constant():
    def program(T):
        c = T.ones(3)
        return increment(T).apply(c), c, c._version

    same(program)


def test_a_saved_input_that_is_dirty_is_caught():
    def program(T):
        x = leaf(T)
        h = x * 1
        y = h.sin()
        increment(T).apply(h)
        return outcome_of(y.sum().backward)

    same(program)


def test_mark_dirty_of_a_tensor_that_is_not_returned():
    def program(T):
        class Lost(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                x.add_(1)
                ctx.mark_dirty(x)
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g

        return outcome_of(lambda: Lost.apply(leaf(T) * 1))

    same(program)


def test_once_differentiable():
    def program(T):
        from_module = T.autograd.function.once_differentiable

        class Square(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                return x * x

            @staticmethod
            @from_module
            def backward(ctx, g):
                (x,) = ctx.saved_tensors
                return 2 * x * g

        x = leaf(T)
        (g,) = T.autograd.grad(Square.apply(x).sum(), x)
        (h,) = T.autograd.grad(Square.apply(x).sum(), x, create_graph=True)
        return g, h.requires_grad, outcome_of(lambda: T.autograd.grad(h.sum(), x))

    same(program, message="exact")


def test_needs_input_grad():
    def program(T):
        seen = []

        class Three(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, number, y, z):
                seen.append(ctx.needs_input_grad)
                return x * y * z * number

            @staticmethod
            def backward(ctx, g):
                seen.append(ctx.needs_input_grad)
                return g, None, g, g

        x, y, z = leaf(T), T.ones(3), leaf(T)
        Three.apply(x, 2, y, z).sum().backward()
        return seen, y.grad

    same(program)


def test_needs_input_grad_with_inputs_of_backward():
    def program(T):
        seen = []

        class Product(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, y):
                ctx.save_for_backward(x, y)
                return x * y

            @staticmethod
            def backward(ctx, g):
                seen.append(ctx.needs_input_grad)
                x, y = ctx.saved_tensors
                return g * y, g * x

        x, y = leaf(T), leaf(T)
        result = T.autograd.grad(Product.apply(x, y).sum(), x)
        return seen, result, y.grad

    same(program)


# ---------------------------------------------------------------- arguments


def test_arguments_that_are_not_tensors():
    def program(T):
        class Options(T.autograd.Function):
            @staticmethod
            def forward(ctx, x, number, text, sequence, mapping, nothing):
                ctx.number = number
                return x * number + len(text) + sum(sequence) + mapping["a"]

            @staticmethod
            def backward(ctx, g):
                return g * ctx.number, None, None, None, None, None

        x = leaf(T)
        y = Options.apply(x, 3, "text", [1, 2], {"a": 4}, None)
        y.sum().backward()
        return y, x.grad

    same(program)


def test_tensors_inside_a_list_are_not_tracked():
    def program(T):
        class Total(T.autograd.Function):
            @staticmethod
            def forward(ctx, tensors):
                return sum(tensors)

            @staticmethod
            def backward(ctx, g):
                return None

        return Total.apply([leaf(T), leaf(T)])

    same(program)


def test_the_same_tensor_twice():
    def program(T):
        x = leaf(T)
        product_function(T).apply(x, x, 1.0).sum().backward()
        return x.grad

    same(program)


def test_attributes_of_the_context_survive_until_backward():
    def program(T):
        class Keeps(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.shape = x.shape
                ctx.anything = {"scale": 4.0}
                return x.sum()

            @staticmethod
            def backward(ctx, g):
                return g.expand(ctx.shape) * ctx.anything["scale"]

        x = T.ones(2, 3, requires_grad=True)
        Keeps.apply(x).backward()
        return x.grad

    same(program)


def test_the_context_is_read_and_changed_through_the_node():
    def program(T):
        class Scale(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                ctx.save_for_backward(x)
                ctx.scale = 2.0
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g * ctx.scale

        x = leaf(T)
        y = Scale.apply(x)
        before = y.grad_fn.scale, y.grad_fn.needs_input_grad, y.grad_fn.saved_tensors
        y.grad_fn.scale = 5.0
        y.sum().backward()
        return before, x.grad, outcome_of(lambda: y.grad_fn.missing)

    same(program)
