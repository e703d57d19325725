"""Programs that random testing found to differ from PyTorch once, each reduced to its core."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def scalar(T: Any) -> Any:
    return T.tensor(0.7, requires_grad=True)


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


ZERO_D_VIEWS = {
    "ellipsis": lambda t: t[...],
    "newaxis": lambda t: t[None],
    "view": lambda t: t.view(1, 1),
    "unsqueeze": lambda t: t.unsqueeze(0),
    "view_as": lambda t: t.view_as(t),
    "reshape": lambda t: t.reshape(1),
}
ZERO_D_UPDATES = {
    "mul": lambda T, v, s: v.mul_(0.5),
    "mul_by_a_graph": lambda T, v, s: v.mul_(s),
    "neg": lambda T, v, s: v.neg_(),
    "zero": lambda T, v, s: v.zero_(),
    "copy": lambda T, v, s: v.copy_(s * 3),
    "setitem": lambda T, v, s: v.__setitem__(Ellipsis, s * 3),
    "setitem_number": lambda T, v, s: v.__setitem__(Ellipsis, 0.75),
}


@pytest.mark.parametrize("view", ZERO_D_VIEWS)
@pytest.mark.parametrize("update", ZERO_D_UPDATES)
def test_a_view_of_a_zero_d_tensor_is_written(view, update):
    def program(T):
        s, other = scalar(T), scalar(T)
        base = s + 0.5
        v = ZERO_D_VIEWS[view](base)
        ZERO_D_UPDATES[update](T, v, other)
        (base.sin() + v.sum() ** 2).backward()
        return base, v, s.grad, other.grad

    same(program)


@pytest.mark.parametrize("update", ZERO_D_UPDATES)
def test_an_element_is_written_and_the_rest_expanded(update):
    def program(T):
        s, other = scalar(T), scalar(T)
        base = s + 0.5
        wide = base.expand(3)
        ZERO_D_UPDATES[update](T, base.unsqueeze(0), other)
        wide.sin().sum().backward()
        return base, wide, s.grad, other.grad

    same(program)


def test_a_part_of_an_expanded_tensor_is_written():
    def program(T):
        s, other = scalar(T), scalar(T)
        base = s + 0.5
        wide = base.expand(3)
        wide.narrow(0, 0, 1).copy_(other[None])
        return wide, base, outcome_of((wide * wide).sum().backward), s.grad, other.grad

    same(program)


@pytest.mark.parametrize("shape", [(3, 0), (0,), (0, 5), (2, 0, 7)])
def test_views_of_nothing(shape):
    def program(T):
        x = T.ones(0, 3, requires_grad=True)
        y = x.view(shape) * 2
        z = x[1:].reshape(shape)
        (y.sum() + z.sum()).backward()
        return y, z, x.grad

    same(program)


@pytest.mark.parametrize("dim", [0, 1, 2])
@pytest.mark.parametrize("shape", [(1, 0, 1), (0, 3, 2), (2, 3, 0)])
def test_rows_of_nothing(shape, dim):
    def program(T):
        x = T.ones(*shape, requires_grad=True)
        rows = T.tensor([0, 0] if shape[dim] else [])
        y = (x * 1).index_select(dim, rows.long())
        z = (x * 1).index_add(dim, rows.long(), y)
        (y.sum() + z.sum()).backward()
        return y, z, x.grad

    same(program)


def test_an_empty_softmax():
    def program(T):
        x = T.ones(3, 0, requires_grad=True)
        y = x.softmax(1)
        y.sum().backward()
        return y, x.grad

    same(program)


@pytest.mark.parametrize(
    "write",
    [
        lambda t, s: t.__setitem__(0, s),
        lambda t, s: t[1:].mul_(2),
        lambda t, s: t[1:].zero_(),
        lambda t, s: t.__setitem__(Ellipsis, 0.5),
        lambda t, s: t.fill_(0.5),
        lambda t, s: t.zero_(),
        lambda t, s: t.copy_(s),
        lambda t, s: t.mul_(2),
    ],
)
def test_which_in_place_ops_go_backward_twice(write):
    def program(T):
        x, s = leaf(T), scalar(T)
        h = x + 1
        write(h, s)
        h.sum().backward()
        return outcome_of(h.sum().backward), x.grad, s.grad

    same(program)


@pytest.mark.parametrize("base", ["leaf", "graph"])
@pytest.mark.parametrize("mode", ["no_grad", "inference_mode"])
@pytest.mark.parametrize("how", ["view", "unbind", "view_of_view"])
def test_what_a_stale_view_made_without_grad_shows(base, mode, how):
    def program(T):
        x = T.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
        t = x if base == "leaf" else x * 2
        with getattr(T, mode)():
            v = t.unbind()[0] if how == "unbind" else t.view(4)
            v = v.view(2, 2) if how == "view_of_view" else v
        before = v
        if base == "graph":
            t.mul_(2)
        else:
            with T.no_grad():
                t.mul_(2)
        return before, v, outcome_of(lambda: v.add_(1) and None), outcome_of(lambda: (v * 2) and 1)

    same(program)


@pytest.mark.parametrize(
    "index", [slice(None), slice(0, None), slice(0, 3), slice(None, None, 1)], ids=str
)
def test_a_slice_of_everything(index):
    def program(T):
        h = leaf(T) * 2
        v = h[index]
        name = v.grad_fn.name()
        h[index] = T.tensor(2.0, requires_grad=True)
        return name, v._is_view(), h

    same(program)


@pytest.mark.parametrize(
    "index", [slice(None), slice(0, None), Ellipsis, (slice(0, None), Ellipsis)], ids=str
)
def test_assignment_to_everything(index):
    def program(T):
        h = leaf(T) * 2
        h[index] = leaf(T) + 1
        return h

    same(program)


def test_messages_of_writes_to_one_of_several_views_of_a_leaf():
    def program(T):
        x = T.ones(2, 3, requires_grad=True)
        return [
            outcome_of(lambda: x.unbind(1)[2].sigmoid_() and None),
            outcome_of(lambda: x.chunk(2, 1)[1].sin_() and None),
            outcome_of(lambda: x.unbind(0)[1].__setitem__(0, 1.0)),
            outcome_of(lambda: (x * 1).split(2, 1)[0].__setitem__(slice(0, None), 1.0)),
            outcome_of(lambda: (x * 1).split(2, 1)[0].__setitem__(slice(1, None), 1.0)),
        ]

    same(program)


LAYOUTS = {
    "rows": lambda x: x * 2,
    "columns": lambda x: x.t() * 2,
    "part": lambda x: (x * 2)[:, 1:],
    "sum_of_layouts": lambda x: x * 2 + x.t().contiguous().t(),
    "expanded": lambda x: (x[:, :1] * 2).expand(3, 3),
    "flipped": lambda x: (x * 2).flip(0),
}
CHAINS = {
    "flat": lambda t: t.reshape(-1),
    "view": lambda t: t.view(-1),
    "flat_transpose": lambda t: t.t().reshape(-1),
    "view_transpose": lambda t: t.t().view(-1),
    "rows_of_flat": lambda t: t.reshape(-1)[2:5],
    "column": lambda t: t[:, 1],
    "diagonal": lambda t: t.diagonal(),
    "reversed_axes": lambda t: t.permute(1, 0)[1:].unsqueeze(0),
    "flatten": lambda t: t.flatten(),
    "unflattened": lambda t: t.view(1, t.shape[0], t.shape[1])[0].t(),
}
GRADIENTS = {
    "plain": lambda T, t: t.sin().sum(),
    "transposed": lambda T, t: t.t().contiguous().sin().sum() + t.t().exp().sum(),
    "expanded": lambda T, t: t.sum() * 3,
    "matmul": lambda T, t: (t @ T.ones(t.shape[1], 2)).sin().sum(),
    "column": lambda T, t: t[:, 1].exp().sum(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chain", CHAINS)
@pytest.mark.parametrize("gradient", GRADIENTS)
def test_a_view_is_written_whatever_the_layout_of_base_and_gradient(layout, chain, gradient):
    def program(T):
        x = T.arange(1.0, 10.0).reshape(3, 3).div(7).requires_grad_()
        base = LAYOUTS[layout](x)
        stale = base.t()
        error = outcome_of(lambda: CHAINS[chain](base).sigmoid_() and None)
        loss = outcome_of(lambda: GRADIENTS[gradient](T, base) + GRADIENTS[gradient](T, stale))
        if isinstance(loss, Exception):
            return error, loss
        return error, base, outcome_of(loss.backward), x.grad

    same(program, message="type", rtol=1e-5)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("chain", CHAINS)
def test_the_second_derivative_of_a_written_view_whatever_the_layout(layout, chain):
    def program(T):
        x = T.arange(1.0, 10.0).reshape(3, 3).div(7).requires_grad_()
        base = LAYOUTS[layout](x)
        error = outcome_of(lambda: CHAINS[chain](base).sin_() and None)

        def second():
            (g,) = T.autograd.grad((base.t() ** 3).sum(), x, create_graph=True)
            return T.autograd.grad((g * g).sum(), x)[0]

        return error, outcome_of(second)

    same(program, message="type", rtol=1e-4, atol=1e-5)


def test_in_place_ops_on_both_sides_of_a_transpose():
    def program(T):
        x = T.arange(1.0, 7.0).reshape(2, 3).requires_grad_()
        base = x * 0.25
        turned = base.transpose(1, 0)
        base.reshape(3, 2).neg_()
        turned[1:].mul_(2)
        base.view(-1)[::2].add_(1)
        base.view(-1)[1:].exp_()
        (turned.sin().sum() + base.sum()).backward()
        return base, turned, x.grad

    same(program, rtol=1e-5)


@pytest.mark.parametrize("root", ["itself", "product", "two"])
@pytest.mark.parametrize("retain", [False, True])
def test_backward_to_a_tensor_in_the_graph_uses_up_its_node(root, retain):
    def program(T):
        x = leaf(T)
        h = x.exp()
        loss = {
            "itself": lambda: h.sum(),
            "product": lambda: (h * h).sum(),
            "two": lambda: (h.sin() + x).sum(),
        }[root]()
        loss.backward(inputs=[h], retain_graph=retain)
        first = h.grad.clone()
        return first, outcome_of(lambda: (h * 2).sum().backward(inputs=[h])), h.grad, x.grad

    same(program)


def test_backward_to_a_tensor_whose_values_were_edited():
    def program(T):
        x = leaf(T)
        h = x.exp()
        loss = (h + 1).sum()
        h.add_(1)
        g = h * 2
        return outcome_of(lambda: g.sum().backward(inputs=[h])), outcome_of(loss.backward), x.grad

    same(program)


INDICES = {
    "beyond": lambda x: x[None, 1:],
    "from_the_end": lambda x: x[-5:, None],
    "whole": lambda x: x[None, 0:],
    "up_to": lambda x: x[None, :7],
    "negative_stop": lambda x: x[:, None, :-1],
}


@pytest.mark.parametrize("index", INDICES)
@pytest.mark.parametrize("shape", [(0, 3), (2, 3), (3, 0)])
def test_which_slices_of_an_index_are_views_of_their_own(index, shape):
    same(lambda T: INDICES[index](T.ones(*shape, requires_grad=True) * 1))


KEEPS_NOTHING = {
    "addcmul": lambda T, h, c: h.addcmul(c, c),
    "remainder": lambda T, h, c: T.remainder(h, c),
    "fmod": lambda T, h, c: T.fmod(h, c),
    "lerp": lambda T, h, c: T.lerp(h, c, 0.5),
    "where": lambda T, h, c: T.where(c > 1, h, c),
    "mul": lambda T, h, c: h * c,
    "div": lambda T, h, c: h / c,
    "hypot": lambda T, h, c: T.hypot(h, c),
    "masked_fill": lambda T, h, c: h.masked_fill(c > 1, c[0]),
    "index_add": lambda T, h, c: h.index_add(0, T.tensor([0]), c[:1]),
}


@pytest.mark.parametrize("op", KEEPS_NOTHING)
def test_which_ops_on_constants_go_backward_twice(op):
    def program(T):
        x, c = leaf(T), T.tensor([3.0, 2.0, 1.0])
        y = KEEPS_NOTHING[op](T, x, c)
        y.sum().backward()
        return outcome_of(y.sum().backward), x.grad

    same(program)


@pytest.mark.parametrize("name", ["max", "min", "sort", "median"])
@pytest.mark.parametrize("shape", [(2, 0, 3), (0, 3), (2, 1, 2, 0, 3)])
def test_extremes_of_rows_of_tensors_without_elements(name, shape):
    same(lambda T: tuple(getattr(T.zeros(*shape, requires_grad=True), name)(-1)))
