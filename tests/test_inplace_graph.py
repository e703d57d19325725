"""Views in a graph: several outputs, views made in no_grad, chains, aliases, as in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.library import ON_TORCH, library
from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def matrix(T: Any) -> Any:
    return T.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)


# ---------------------------------------------------------------- chains of views


def test_a_write_through_a_chain_of_views():
    def program(T):
        x = matrix(T)
        base = x * 2
        v = base.t()[1:][:, 0].unsqueeze(0)
        v.mul_(T.tensor([[10.0, 100.0]]))
        (base * base).sum().backward()
        return base, v, x.grad

    same(program)


def test_two_views_written_one_after_the_other():
    def program(T):
        x = matrix(T)
        base = x * 2
        a, b = base[0], base[:, 1]
        a.mul_(3)
        b.exp_()
        (base.sum() + a.sum() + (b * b).sum()).backward()
        return base, a, b, x.grad

    same(program)


def test_a_view_made_before_a_write_sees_it_in_its_graph():
    def program(T):
        x = matrix(T)
        base = x * 2
        before = base[0]
        base[0] = 0.0
        before.sum().backward()
        return before, x.grad

    same(program)


def test_a_view_made_after_a_write():
    def program(T):
        x = matrix(T)
        base = x * 2
        base[0].mul_(5)
        after = base[0]
        after.sum().backward()
        return after, x.grad

    same(program)


def test_the_grad_fn_of_a_stale_view_is_made_anew():
    def program(T):
        base = matrix(T) * 2
        v = base[:, 1:]
        names = [v.grad_fn.name()]
        base.add_(1)
        names.append(v.grad_fn.name())
        v.mul_(2)
        names.extend([v.grad_fn.name(), base.grad_fn.name()])
        w = v[0]
        base.zero_()
        names.extend([w.grad_fn.name(), v.grad_fn.name(), base.grad_fn.name()])
        return names

    same(program)


def test_writes_between_uses_of_views_and_base():
    def program(T):
        x, y = matrix(T), leaf(T)
        base = x * 2
        total = base.sum()
        v = base[1]
        v.add_(y)
        total = total + base.sum()
        base.mul_(3)
        total = total + (v * y).sum()
        total.backward()
        return total, x.grad, y.grad

    same(program)


def test_a_write_of_one_view_into_another():
    def program(T):
        x = matrix(T)
        base = x * 1
        base[0].copy_(base[1])
        (base * T.tensor([[1.0, 2.0, 3.0], [10.0, 20.0, 30.0]])).sum().backward()
        return base, x.grad

    same(program)


def test_a_write_into_a_reshaped_tensor_that_had_to_copy():
    def program(T):
        x = matrix(T)
        base = x * 1
        copy = base.t().reshape(6)
        copy.mul_(100)
        (base.sum() + copy.sum()).backward()
        return base, copy, x.grad, copy._version, base._version

    same(program)


def test_a_saved_view_that_is_written_later():
    def program(T):
        x = matrix(T)
        base = x * 1
        v = base[0]
        y = v * v
        base[1].add_(1)
        return outcome_of(y.sum().backward)

    same(program)


def test_the_base_of_a_view_of_a_leaf_keeps_its_gradient_path():
    def program(T):
        x = matrix(T)
        v = x[0]
        with T.no_grad():
            v.mul_(2)
        y = (x * x).sum()
        y.backward()
        return x, v, x.grad, x._version

    same(program)


def test_a_long_chain_of_writes_to_views_of_one_base():
    def program(T):
        x = leaf(T)
        base = x * 1
        for number in range(50):
            base[number % 3].mul_(1.01)
        base.sum().backward()
        return base, x.grad, base._version

    same(program, rtol=1e-5)


def test_double_backward_through_a_written_view():
    def program(T):
        x = matrix(T)
        base = x * x
        base[0].mul_(x[1])
        base[:, 1:].sin_()
        base.mul_(0.01)
        (g,) = T.autograd.grad((base * x).sum(), x, create_graph=True)
        (h,) = T.autograd.grad((g * g).sum(), x)
        return g.detach(), h

    same(program, rtol=1e-5)


def test_hooks_and_retained_grads_on_a_written_view():
    def program(T):
        x = matrix(T)
        base = x * 2
        v = base[0]
        seen = []
        v.register_hook(lambda g: seen.append(("v before", g.clone())))
        v.mul_(3)
        v.register_hook(lambda g: seen.append(("v after", g.clone())))
        base.register_hook(lambda g: seen.append(("base", g.clone())))
        (base.sum() + v.sum()).backward()
        return seen, x.grad

    same(program)


def test_retain_grad_follows_an_in_place_op():
    def program(T):
        x = leaf(T)
        y = x * 2
        y.retain_grad()
        y.mul_(3)
        y.sum().backward()
        return y.retains_grad, y.grad, x.grad

    same(program)


def test_retain_grad_of_a_base_written_through_a_view():
    def program(T):
        x = matrix(T)
        base = x * 2
        base.retain_grad()
        base[0].mul_(3)
        base.sum().backward()
        return base.retains_grad, base.grad, x.grad

    same(program)


# ---------------------------------------------------------------- views of several outputs

MULTI = {
    "unbind": lambda t: t.unbind(0),
    "unbind_1": lambda t: t.unbind(1),
    "split": lambda t: t.split(2, 1),
    "split_sizes": lambda t: t.split([1, 2], 1),
    "chunk": lambda t: t.chunk(2, 1),
    "iteration": lambda t: tuple(t),
    "tensor_split": lambda t: t.tensor_split(2, 1),
}


@pytest.mark.parametrize("name", MULTI)
def test_one_of_several_views_of_a_graph_cannot_be_written(name):
    def program(T):
        base = matrix(T) * 2
        parts = MULTI[name](base)
        return outcome_of(lambda: parts[0].mul_(2) and None), base, base._version

    same(program)


def test_the_message_for_one_of_several_views():
    def program(T):
        (matrix(T) * 2).unbind()[0].mul_(2)

    same(
        program,
        raises=RuntimeError,
        match="is a view and is being modified inplace. This view is the output of a function",
        message="exact",
    )


@pytest.mark.parametrize("name", MULTI)
def test_one_of_several_views_of_a_constant_may_be_written(name):
    def program(T):
        base = matrix(T).detach()
        parts = MULTI[name](base)
        parts[0].mul_(2)
        return base, parts[1], base._version, parts[1]._version

    same(program)


@pytest.mark.parametrize("name", MULTI)
def test_writing_a_graph_into_one_of_several_views_of_a_constant(name):
    def program(T):
        x = T.tensor(2.0, requires_grad=True)
        base = matrix(T).detach()
        parts = MULTI[name](base)
        error = outcome_of(lambda: parts[0].mul_(x) and None)
        return error, base, parts[0]

    same(program)


@pytest.mark.parametrize("name", MULTI)
def test_the_base_of_several_views_may_be_written(name):
    def program(T):
        x = matrix(T)
        base = x * 2
        parts = MULTI[name](base)
        base.mul_(3)
        error = outcome_of(lambda: parts[0].grad_fn.name())
        return base, error, outcome_of(base.sum().backward), x.grad

    same(program)


@pytest.mark.parametrize("name", MULTI)
def test_one_of_several_views_may_be_written_in_no_grad(name):
    def program(T):
        base = matrix(T) * 2
        parts = MULTI[name](base)
        with T.no_grad():
            error = outcome_of(lambda: parts[0].mul_(2) and None)
        return error, base

    same(program)


@pytest.mark.parametrize("name", MULTI)
def test_several_views_are_saved_and_the_base_is_changed(name):
    def program(T):
        x = matrix(T)
        base = x * 2
        y = MULTI[name](base)[1].sin()
        base.add_(1)
        return outcome_of(y.sum().backward)

    same(program)


# ---------------------------------------------------------------- views made in no_grad


def test_a_view_made_in_no_grad_cannot_be_written_with_grad_mode_on():
    def program(T):
        base = matrix(T) * 2
        with T.no_grad():
            v = base[0]
        return v, outcome_of(lambda: v.mul_(2) and None)

    same(program)


def test_the_message_for_a_view_made_in_no_grad():
    def program(T):
        x = matrix(T)
        with T.no_grad():
            v = x[0]
        v.mul_(2)

    same(program, raises=RuntimeError, match="A view was created in no_grad mode", message="exact")


def test_a_view_made_in_no_grad_may_be_written_there():
    def program(T):
        x = matrix(T)
        with T.no_grad():
            v = x[0]
            v.mul_(2)
        return x, v, x._version

    same(program)


def test_a_view_of_a_constant_made_in_no_grad_may_be_written_anywhere():
    def program(T):
        c = T.ones(2, 3)
        with T.no_grad():
            v = c[0]
        v.mul_(2)
        return c, v

    same(program)


def test_writing_a_graph_into_a_view_of_a_constant_made_in_no_grad():
    def program(T):
        x = leaf(T)
        c = T.ones(2, 3)
        with T.no_grad():
            v = c[0]
        return outcome_of(lambda: v.mul_(x) and None), c

    same(program)


def test_a_view_made_in_inference_mode():
    def program(T):
        x = matrix(T)
        with T.inference_mode():
            v = x[0]
        return v.is_inference(), v.requires_grad, outcome_of(lambda: v.mul_(2) and None)

    same(program)


def test_a_write_in_no_grad_to_a_view_of_a_graph():
    def program(T):
        x = matrix(T)
        base = x * 2
        v = base[0]
        with T.no_grad():
            v.mul_(3)
        (base * base).sum().backward()
        return base, v, base.grad_fn, v.grad_fn, x.grad

    same(program)


# ---------------------------------------------------------------- aliases


def test_detached_aliases_share_values_and_versions():
    def program(T):
        x = leaf(T)
        h = x * 2
        d = h.detach()
        d[0] = 100.0
        (h * 3).sum().backward()
        return h, d, h._version, d._version, d._is_view(), d._base is None, x.grad

    same(program)


def test_a_detached_alias_may_require_grad_on_its_own():
    def program(T):
        x = leaf(T)
        d = (x * 2).detach().requires_grad_()
        (d * d).sum().backward()
        return d.grad, x.grad, outcome_of(lambda: d.mul_(2) and None)

    same(program)


def test_writing_a_graph_into_a_detached_alias_does_not_reach_the_original():
    def program(T):
        x, y = leaf(T), leaf(T)
        h = x * 2
        d = h.detach()
        d.mul_(y)
        (h.sum() + d.sum()).backward()
        return h, d, x.grad, y.grad

    same(program)


def test_data_has_its_own_version():
    def program(T):
        x = leaf(T)
        y = x.sin()
        x.data.mul_(2)
        y.sum().backward()
        return x, x._version, x.data._version, x.grad

    same(program)


def test_setting_data_between_forward_and_backward():
    """PyTorch gives the gradient at the new values, silently; here it is that of the forward."""

    def program(T):
        x = leaf(T)
        y = (x * x).sum()
        x.data = T.tensor([5.0, 6.0, 7.0])
        y.backward()
        return x, y, x.grad.shape

    same(program)
    x = leaf(library)
    y = (x * x).sum()
    x.data = library.tensor([5.0, 6.0, 7.0])
    y.backward()
    assert x.grad.tolist() == ([10.0, 12.0, 14.0] if ON_TORCH else [2.0, 4.0, 6.0])


@pytest.mark.parametrize("dtype", ["float64", "int64"])
def test_setting_data_of_another_dtype(dtype):
    def program(T):
        x = leaf(T)
        error = outcome_of(lambda: setattr(x, "data", T.ones(3).to(getattr(T, dtype))))
        return error, x

    same(program)


def test_clone_keeps_the_graph_and_not_the_storage():
    def program(T):
        x = leaf(T)
        c = x.clone()
        c.mul_(2)
        c.sum().backward()
        return x, c, x.grad, c._version, x._version

    same(program)


def test_swapping_rows_by_assignment():
    def program(T):
        x = matrix(T)
        h = x * 1
        h[[0, 1]] = h[[1, 0]]
        (h * T.tensor([[1.0, 1.0, 1.0], [5.0, 5.0, 5.0]])).sum().backward()
        return h, x.grad

    same(program)


def test_augmented_assignment_rebinds_nothing():
    def program(T):
        x = matrix(T)
        h = x * 1
        alias = h
        h += 1
        h *= 2
        h -= 3
        h /= 4
        h **= 2
        h[0] += 5
        h[:, 1] *= 6
        h.sum().backward()
        return alias is h, h, h._version, x.grad

    same(program)


def test_augmented_assignment_to_a_python_name_of_a_leaf_fails():
    def program(T):
        x = leaf(T)
        x += 1

    same(program, raises=RuntimeError, match="a leaf Variable", message="exact")


def test_an_in_place_relu_in_a_model():
    def program(T):
        w = T.tensor([[1.0, -2.0], [-1.0, 3.0]], requires_grad=True)
        h = T.nn.functional.relu(T.ones(2, 2) @ w, inplace=True)
        h = T.nn.ReLU(inplace=True)(h @ w)
        h.sum().backward()
        return h, w.grad

    same(program)


def test_in_place_ops_on_an_output_that_its_own_backward_needs():
    def program(T):
        x = leaf(T)
        return [outcome_of(lambda op=op: backward_of(op(x * 1))) for op in CHAINS]

    def backward_of(y):
        y.sum().backward()

    CHAINS = [
        lambda h: h.exp_().add_(1),
        lambda h: h.sigmoid_().mul_(2),
        lambda h: h.relu_().add_(1),
        lambda h: h.tanh_().neg_(),
        lambda h: h.add_(1).exp_(),
        lambda h: h.mul_(2).mul_(3),
        lambda h: h.sqrt_().sqrt_(),
    ]
    same(program)


def test_in_place_arithmetic_between_parts_of_one_tensor():
    def program(T):
        x = T.arange(6.0, requires_grad=True)
        h = x * 1
        h[:3] += h[3:]
        h[3:] *= h[:3]
        error = outcome_of(h.sum().backward)
        return h, error, x.grad

    same(program)
