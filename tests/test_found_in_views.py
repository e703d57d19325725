"""Programs of views that random testing found to differ from PyTorch once, each reduced to its
core: views of constants, views made in no_grad, views whose base was edited."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def edges(t: Any) -> list[bool]:
    return [node is None for node, _ in t.grad_fn.next_functions]


# ---------------------------------------------------------------- views made without grad


def test_a_view_made_in_no_grad_passes_no_gradient_on():
    def program(T):
        results = []
        for base in (leaf(T), leaf(T) * 2):
            with T.no_grad():
                v = base.view(-1)
            y = v * base
            results.append((v, edges(y)))
            y.sum().backward()
        return results

    same(program)


def test_a_view_made_in_no_grad_saves_nothing_for_its_own_gradient():
    def program(T):
        x, y = leaf(T), leaf(T)
        with T.no_grad():
            v = x.view(-1)
        h = v * y
        z = h * v
        h.relu_()
        z.sum().backward()
        return x.grad, y.grad

    same(program)


ON_A_VIEW_ALONE = {
    "number": lambda T, v: v * 2,
    "itself": lambda T, v: v * v,
    "quotient": lambda T, v: v / (v + 1),
    "power": lambda T, v: v**v,
    "sin": lambda T, v: v.sin(),
    "softmax": lambda T, v: v.softmax(0),
    "sum": lambda T, v: v.sum(),
    "view": lambda T, v: v.view(3, 1),
    "unbind": lambda T, v: v.unbind()[1],
    "cat": lambda T, v: T.cat([v, v]),
    "where": lambda T, v: T.where(v > 1, v, 0.5),
    "in_place": lambda T, v: T.ones(3).mul_(v),
    "assignment": lambda T, v: T.ones(2, 3).index_put_((T.tensor([0]),), v),
}


@pytest.mark.parametrize("of", ["leaf", "graph", "constant_made_a_leaf"])
@pytest.mark.parametrize("op", ON_A_VIEW_ALONE)
def test_an_op_on_a_view_without_a_place_in_the_graph(op, of):
    def program(T):
        x = leaf(T)
        base = {"leaf": x, "graph": x * 2, "constant_made_a_leaf": T.ones(3)}[of]
        if of == "constant_made_a_leaf":
            v = base.view(-1)
            base.requires_grad_()
        else:
            with T.no_grad():
                v = base.view(-1)
        y = ON_A_VIEW_ALONE[op](T, v)
        return (
            y,
            edges(y),
            outcome_of(lambda: y.sum().backward()),
            outcome_of(lambda: y.sum().backward()),
            outcome_of(lambda: T.autograd.grad(y.sum(), v)),
            outcome_of(lambda: T.autograd.grad(y.sum(), v, allow_unused=True)),
            outcome_of(lambda: T.autograd.grad(y.sum(), x, create_graph=True, allow_unused=True)),
            x.grad,
        )

    same(program)


def test_a_value_that_only_a_cut_gradient_would_read_is_guarded_as_in_pytorch():
    def program(T):
        outcomes = []
        for make in (
            lambda v: v.sin(),
            lambda v: v.softmax(0),
            lambda v: v * v,
            lambda v: v / v,
            lambda v: v**2,
        ):
            base = leaf(T) * 2
            with T.no_grad():
                v = base.view(-1)
            y = make(v)
            with T.no_grad():
                base.mul_(2)
                y.mul_(2)
            outcomes.append(outcome_of(lambda y=y: y.sum().backward()))
        return outcomes

    same(program, message="type")


def test_what_a_view_made_in_no_grad_can_do():
    def program(T):
        x = leaf(T)
        with T.no_grad():
            v = x.view(-1)
        calls = [
            lambda: v.retain_grad(),
            lambda: v.retains_grad,
            lambda: v.backward(T.ones(3)),
            lambda: v.sum().backward(),
            lambda: v.numpy(),
            lambda: v.detach_(),
            lambda: v.requires_grad_(False).requires_grad,
            lambda: edges(v * 2),
            lambda: v.requires_grad_().grad_fn,
            lambda: edges(v * 2),
            lambda: (v * 2).sum().backward(),
            lambda: (v.grad, x.grad),
        ]
        return [outcome_of(call) for call in calls]

    same(program)


MAKERS = {
    "view": lambda T, t: t.view(-1),
    "unbind": lambda T, t: t.view(1, -1).unbind()[0],
    "no_grad": lambda T, t: T.no_grad()(lambda: t.view(-1))(),
    "inference": lambda T, t: T.inference_mode()(lambda: t.view(-1))(),
    "unbind_in_no_grad": lambda T, t: T.no_grad()(lambda: t.view(1, -1).unbind()[0])(),
}


@pytest.mark.parametrize("first", MAKERS)
@pytest.mark.parametrize("second", MAKERS)
@pytest.mark.parametrize("of", ["graph", "constant"])
def test_what_is_said_of_edits_of_a_view_and_of_its_base(first, second, of):
    def program(T):
        x = leaf(T)

        def view():
            base = x * 2 if of == "graph" else T.ones(3)
            return base, MAKERS[second](T, MAKERS[first](T, base))

        edited, written, stale = view(), view(), view()
        return (
            outcome_of(lambda: edited[1].mul_(2) and None),
            outcome_of(lambda: written[1].mul_(x) and None),
            outcome_of(lambda: stale[0].mul_(x) and None),
            outcome_of(lambda: stale[1].grad_fn),
            outcome_of(lambda: stale[1] * 2),
        )

    same(program, message="exact")


# ---------------------------------------------------------------- views of constants


def test_a_view_of_a_constant_made_a_leaf_may_not_be_edited():
    def program(T):
        c = T.ones(3)
        v = c[0:].requires_grad_()
        w = v[1:]
        return (
            outcome_of(lambda: v.mul_(2) and None),
            outcome_of(lambda: w.mul_(2) and None),
            outcome_of(lambda: v.zero_() and None),
            c.mul_(2),
            w,
            edges(w),
        )

    same(program, message="exact")


@pytest.mark.parametrize("mode", ["enable_grad", "no_grad"])
def test_an_edited_constant_cuts_the_views_of_a_view_that_is_a_leaf(mode):
    def program(T):
        c = T.ones(3)
        with getattr(T, mode)():
            v = c.view(-1)
        v.requires_grad_()
        w = v[1:]
        c.neg_()
        return v, w, outcome_of(lambda: edges(w)), outcome_of(lambda: w.sum().backward()), v.grad

    same(program)


def test_a_flag_is_taken_from_a_view_whose_base_has_come_into_a_graph():
    def program(T):
        c = T.ones(3)
        v = c.view(-1)
        c.mul_(leaf(T))
        v.requires_grad_(False)
        return v, c

    same(program)


@pytest.mark.parametrize("how", ["view", "unbind"])
def test_backward_to_a_view_whose_base_has_come_into_a_graph(how):
    def program(T):
        c = T.ones(3)
        v = (c if how == "view" else c.view(1, 3)).unbind()[0]
        v.requires_grad_()
        y = (v + v).sum()
        c.mul_(leaf(T))
        return outcome_of(y.backward), outcome_of(lambda: v.is_leaf)

    same(program, message="type")


# ---------------------------------------------------------------- stale views


def test_a_stale_output_of_unbind_is_read_in_no_grad():
    def program(T):
        base, other = leaf(T) * 2, T.ones(())
        v = base.unbind()[0]
        base.mul_(2)
        with T.no_grad():
            other.add_(v)
            other.copy_(v)
            v.add_(v)
        return other, outcome_of(lambda: other.add_(v)), base

    same(program)


def test_retain_grad_of_stale_views():
    def program(T):
        base = leaf(T) * 2
        constant, kept, late = T.ones(3).unbind()[0], base.unbind()[0], base.unbind()[0]
        kept.retain_grad()
        base.mul_(leaf(T))
        return [outcome_of(t.retain_grad) for t in (kept, late)], outcome_of(constant.retain_grad)

    same(program)


def test_retain_grad_of_a_constant_view_whose_base_has_come_into_a_graph():
    def program(T):
        c = T.ones(3)
        v = c.unbind()[0]
        c.mul_(leaf(T))
        return outcome_of(v.retain_grad), v.retains_grad

    same(program)


def test_an_edit_after_retain_grad_and_detach_in_place():
    def program(T):
        x, s = leaf(T), T.tensor(0.5, requires_grad=True)
        h = x * 2
        h.retain_grad()
        h.detach_()
        h[1:] = s
        h.sum().backward()
        return h, h.is_leaf, x.grad, s.grad

    same(program)


def test_a_retained_gradient_of_one_of_several_outputs_survives_an_edit():
    def program(T):
        x = T.tensor([[1.0, 2.0], [4.0, 3.0]], requires_grad=True)
        values = x.max(1)[0]
        values.retain_grad()
        values.mul_(2)
        values.sin().sum().backward()
        return values, values.retains_grad, values.grad, x.grad

    same(program)


def test_the_gradient_of_an_empty_stale_view_is_a_constant():
    def program(T):
        s = T.tensor([[0.7]], requires_grad=True)
        base = s * 2
        v = base[:, 1:]
        base.mul_(0.5)
        (g,) = T.autograd.grad((v * v.sin()).sum(), base, create_graph=True)
        return g, outcome_of(lambda: (g**2).sum().backward())

    same(program)


# ---------------------------------------------------------------- reshaped in place

RESHAPES = {
    "unsqueeze": lambda t: t.unsqueeze_(-1),
    "squeeze": lambda t: t.squeeze_(),
    "squeeze_dim": lambda t: t.squeeze_(0),
    "squeeze_dims": lambda t: t.squeeze_((0, -1) if t.dim() > 1 else (-1,)),
    "transpose": lambda t: t.transpose_(0, -1),
    "t": lambda t: t.t_() if t.dim() < 3 else t.swapaxes_(1, 2),
    "twice": lambda t: t.transpose_(0, -1).unsqueeze_(0),
}


@pytest.mark.parametrize("reshape", RESHAPES)
@pytest.mark.parametrize("shape", [(2, 3), (1, 3), (2, 1, 3), (3,), ()])
def test_a_base_is_reshaped_in_place_under_its_views(reshape, shape):
    def program(T):
        x, s = T.ones(shape, requires_grad=True), T.tensor(0.5, requires_grad=True)
        base = x * 2
        before = base.view(-1)
        stale = base[...]
        RESHAPES[reshape](base)
        after = base.reshape(-1)[:1]
        seen = (before.grad_fn, after.grad_fn, base.grad_fn, edges(base))
        before.mul_(s)
        after.neg_()
        stale.add_(s)
        base.mul_(2)
        (base.exp().sum() + before.sum() + after.sum() + stale.sin().sum()).backward()
        return seen, base, before, after, stale, x.grad, s.grad

    same(program, rtol=1e-5)


@pytest.mark.parametrize("reshape", RESHAPES)
def test_a_view_is_reshaped_in_place(reshape):
    def program(T):
        x, s = T.ones(2, 1, 3, requires_grad=True), T.tensor(0.5, requires_grad=True)
        base = x * 2
        v = base[:, :, 1:]
        w = v[0]
        RESHAPES[reshape](v)
        seen = (v.grad_fn, edges(v), v._is_view(), w.grad_fn, base.grad_fn)
        v.mul_(s)
        w.add_(s)
        v.reshape(-1)[:1].neg_()
        (base.exp().sum() + v.sin().sum() + w.sum()).backward()
        return seen, v, w, base, x.grad, s.grad

    same(program, rtol=1e-5)


def test_what_may_be_reshaped_in_place():
    def program(T):
        x = T.ones(2, 3, requires_grad=True)
        with T.no_grad():
            v = x.view(3, 2)
        return (
            outcome_of(lambda: x.unsqueeze_(5)),
            outcome_of(lambda: x[0].unsqueeze_(0)),
            outcome_of(lambda: v.t_()),
            outcome_of(lambda: (x * 1).unbind()[0].unsqueeze_(0)),
            outcome_of(lambda: (x * 1).expand(2, 2, 3).transpose_(0, 1)),
            outcome_of(lambda: (x * 1).unsqueeze_(4)),
            outcome_of(lambda: (x * 1).squeeze_((0, -2))),
            outcome_of(lambda: (x * 1).squeeze((0, -2))),
            (x[:1] * 1).squeeze((0, 1)),
            outcome_of(lambda: T.no_grad()(lambda: x.t_())()),
        )

    same(program)


def test_a_stale_leaf_is_named_before_a_part_of_the_graph_that_is_used_up():
    def program(T):
        x = T.tensor([0.1, 0.2, 0.3], requires_grad=True)
        a = x.sin()
        with T.no_grad():
            view = a.unsqueeze(0).diagonal()
        b = 2 - a
        a.sum().backward()
        view.requires_grad_()
        b[0:1] = view
        with T.no_grad():
            a.relu_()
        return outcome_of(lambda: b.sin().sum().backward())

    same(program)


def test_a_leaf_that_waits_for_more_is_not_named_before_a_value_edited_in_place():
    def program(T):
        x = T.tensor([0.1, 0.2, 0.3], requires_grad=True)
        a, b = x.sin(), x * 0.5
        with T.no_grad():
            constant = T.ones(1) + x[:1]
        x.requires_grad_(False)
        x[::2] = constant.requires_grad_()
        return outcome_of(lambda: (a.sum() + b.sin().sum()).backward())

    same(program)


def test_what_can_have_no_gradient_may_be_made_of_a_stale_view():
    def program(T):
        def stale():
            base = T.tensor([0.1, 0.2, 0.3], requires_grad=True) * 1
            view = base.split(2, 0)[0]
            base[...] = T.tensor(1.0)
            return view

        return (
            outcome_of(lambda: stale().to(T.int64)),
            outcome_of(lambda: stale().bool()),
            outcome_of(lambda: stale().argmax()),
            outcome_of(lambda: stale().double()),
            outcome_of(lambda: stale().round()),
        )

    same(program)
