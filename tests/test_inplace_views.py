"""In-place ops: version counters, gradients, views and their bases, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same
from tests.views import VIEWS


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def matrix(T: Any) -> Any:
    return T.tensor([[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]], requires_grad=True)


# Changes a (2, 3) tensor, or any of its views, in place.
UPDATES = {
    "add_": lambda T, t: t.add_(1),
    "sub_": lambda T, t: t.sub_(0.5),
    "mul_": lambda T, t: t.mul_(2),
    "div_": lambda T, t: t.div_(2),
    "pow_": lambda T, t: t.pow_(2),
    "neg_": lambda T, t: t.neg_(),
    "exp_": lambda T, t: t.exp_(),
    "log_": lambda T, t: t.log_(),
    "sqrt_": lambda T, t: t.sqrt_(),
    "relu_": lambda T, t: t.relu_(),
    "tanh_": lambda T, t: t.tanh_(),
    "sigmoid_": lambda T, t: t.sigmoid_(),
    "abs_": lambda T, t: t.abs_(),
    "clamp_": lambda T, t: t.clamp_(1.5, 4.5),
    "zero_": lambda T, t: t.zero_(),
    "fill_": lambda T, t: t.fill_(7),
    "copy_": lambda T, t: t.copy_(T.ones(t.shape)),
    "copy_a_scalar_": lambda T, t: t.copy_(T.tensor(3.0)),
    "masked_fill_": lambda T, t: t.masked_fill_(t > 2, 0.0),
    "setitem_all": lambda T, t: t.__setitem__(Ellipsis, 2.0),
    "setitem_number": lambda T, t: t.__setitem__(0, 5.0),
    "setitem_tensor": lambda T, t: t.__setitem__(0, t[-1] * 2),
    "setitem_mask": lambda T, t: t.__setitem__(t > 2, 0.0),
    "setitem_index": lambda T, t: t.__setitem__(T.tensor([0, 1]), 9.0),
    "iadd": lambda T, t: t.__iadd__(2),
    "imul": lambda T, t: t.__imul__(3),
    "add_tensor_": lambda T, t: t.add_(t, alpha=2),
    "mul_tensor_": lambda T, t: t.mul_(T.ones(t.shape) * 2),
}


# ---------------------------------------------------------------- version counters


@pytest.mark.parametrize("name", UPDATES)
def test_an_in_place_op_raises_the_version(name):
    def program(T):
        t = matrix(T).detach()
        before = t._version
        UPDATES[name](T, t)
        return before, t._version, t

    same(program)


def test_in_place_ops_return_the_same_object():
    def program(T):
        t = T.ones(3)
        methods = [
            "zero_",
            "exp_",
            "relu_",
            "neg_",
            "abs_",
            "sqrt_",
            "tanh_",
            "sigmoid_",
            "detach_",
        ]
        binary = ["add_", "sub_", "mul_", "div_", "copy_"]
        return [getattr(t, m)() is t for m in methods] + [
            getattr(t, m)(T.ones(3)) is t for m in binary
        ]

    same(program)


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_shares_values_and_version_with_its_base(name):
    def program(T):
        base = matrix(T).detach()
        view = VIEWS[name](base)
        view.add_(10)
        first = (base.clone(), base._version, view._version)
        base.mul_(2)
        return first, view, base, base._version, view._version

    same(program)


@pytest.mark.parametrize("name", VIEWS)
def test_views_know_their_base(name):
    def program(T):
        base = matrix(T)
        view = VIEWS[name](base)
        return view._is_view(), view._base is base, base._is_view(), base._base, view.is_leaf

    same(program)


COPIES = {
    "clone": lambda t: t.clone(),
    "add": lambda t: t + 0,
    "index": lambda t: t[[0, 1]],
    "mask": lambda t: t[t > 1],
    "contiguous_of_transpose": lambda t: t.t().contiguous(),
    "reshape_of_transpose": lambda t: t.t().reshape(6),
    "flatten_of_transpose": lambda t: t.t().flatten(),
    "repeat": lambda t: t.repeat(1, 1),
    "roll": lambda t: t.roll(1),
    "flip": lambda t: t.flip(0),
    "index_select": lambda t: t.index_select(0, (t[:, 0] > 100).long()),
}


@pytest.mark.parametrize("name", COPIES)
def test_a_copy_shares_nothing(name):
    def program(T):
        base = matrix(T).detach()
        copy = COPIES[name](base)
        copy.add_(10)
        return base, base._version, copy, copy._is_view()

    same(program)


def test_in_place_on_the_out_of_place_result_does_not_touch_the_input():
    def program(T):
        t = T.ones(3)
        u = t.float()
        v = t.contiguous()
        u.add_(1)
        v.add_(1)
        return t, t._version

    same(program)


def test_a_change_in_numpy_memory_is_seen_but_not_counted():
    def program(T):
        t = T.ones(3)
        t.numpy()[0] = 5.0
        return t, t._version

    same(program)


# ---------------------------------------------------------------- gradients of in-place ops


@pytest.mark.parametrize("name", UPDATES)
def test_an_in_place_op_on_a_non_leaf_is_differentiated(name):
    def program(T):
        x = matrix(T)
        h = x * 1.5
        UPDATES[name](T, h)
        facts = h, h._version
        error = outcome_of((h * h).sum().backward)
        return facts, error, x.grad

    same(program)


@pytest.mark.parametrize("name", UPDATES)
@pytest.mark.parametrize(
    "view", ["slice", "select", "transpose", "view", "of_a_view", "unsqueeze", "diagonal"]
)
def test_an_in_place_op_on_a_view_changes_the_graph_of_its_base(name, view):
    def program(T):
        x = matrix(T)
        base = x * 1.5
        v = VIEWS[view](base)
        if v.shape and v.shape[0] < 2 and name == "setitem_index":
            return None
        error = outcome_of(lambda: UPDATES[name](T, v) and None)
        facts = base, v, base._version, v._version
        backward_error = outcome_of((base * base).sum().backward)
        return error, facts, backward_error, x.grad

    same(program)


@pytest.mark.parametrize("name", UPDATES)
def test_an_in_place_op_on_the_base_changes_the_graph_of_its_views(name):
    def program(T):
        x = matrix(T)
        base = x * 1.5
        v = base[:, 1:]
        error = outcome_of(lambda: UPDATES[name](T, base) and None)
        facts = base, v
        backward_error = outcome_of((v * v).sum().backward)
        return error, facts, backward_error, x.grad

    same(program)


@pytest.mark.parametrize("view", [name for name in VIEWS if name != "detach"])
def test_copy_slices_for_every_kind_of_view(view):
    def program(T):
        x = matrix(T)
        base = x * 1.5
        v = VIEWS[view](base)
        before = v.grad_fn.name()
        v.mul_(T.arange(1.0, 1 + v.numel()).reshape(v.shape))
        (base.exp().sum() + (v * v).sum()).backward()
        return before, base, v, base.grad_fn.next_functions[0][0], x.grad

    same(program)


def test_a_constant_base_starts_requiring_grad_when_a_view_is_written():
    def program(T):
        x = leaf(T)
        buffer = T.zeros(2, 3)
        row = buffer[1]
        row.copy_(x * 2)
        (buffer * buffer).sum().backward()
        return buffer, row, x.grad

    same(program)


def test_filling_a_buffer_row_by_row():
    def program(T):
        x = leaf(T)
        buffer = T.zeros(4, 3)
        for number in range(4):
            buffer[number] = x * number
        buffer.exp().sum().backward()
        return buffer, x.grad, buffer._version

    same(program)


def test_filling_a_buffer_from_earlier_rows():
    def program(T):
        x = leaf(T)
        buffer = T.zeros(4, 3)
        buffer[0] = x
        for number in range(1, 4):
            buffer[number] = buffer[number - 1].clone() * 2 + 1
        buffer.sum().backward()
        return buffer, x.grad

    same(program)


def test_setitem_gives_gradients_to_the_value_and_to_what_is_left():
    def program(T):
        x, value = matrix(T), T.tensor([7.0, 8.0], requires_grad=True)
        h = x * 2
        h[:, 0] = value
        (h * h).sum().backward()
        return h, x.grad, value.grad

    same(program)


SETITEMS = {
    "int": lambda T: 1,
    "negative": lambda T: -1,
    "slice": lambda T: slice(0, 1),
    "column": lambda T: (slice(None), 1),
    "step": lambda T: (slice(None), slice(None, None, 2)),
    "ellipsis": lambda T: (Ellipsis, 0),
    "none": lambda T: (None, 0),
    "mask": lambda T: T.tensor([[True, False, True], [False, True, False]]),
    "row_mask": lambda T: T.tensor([True, False]),
    "list": lambda T: [0, 1],
    "tensor": lambda T: T.tensor([1, 0]),
    "pair": lambda T: (T.tensor([0, 1]), T.tensor([2, 0])),
    "tensor_and_slice": lambda T: (T.tensor([0, 1]), slice(1, None)),
    "slice_and_tensor": lambda T: (slice(None), T.tensor([2, 0])),
    "zero_d": lambda T: T.tensor(1),
    "empty": lambda T: slice(2, 2),
    "bool": lambda T: True,
}


@pytest.mark.parametrize("name", SETITEMS)
@pytest.mark.parametrize("kind", ["number", "tensor", "constant", "scalar_tensor"])
def test_setitem_with_every_kind_of_index(name, kind):
    def program(T):
        x, s = matrix(T), T.tensor(3.0, requires_grad=True)
        h = x * 1.5
        index = SETITEMS[name](T)
        shape = h[index].shape
        value = {
            "number": 5.0,
            "tensor": s * T.ones(shape),
            "constant": T.ones(shape) * 4,
            "scalar_tensor": s * 2,
        }[kind]
        h[index] = value
        (h * h).sum().backward()
        return h, h._version, x.grad, s.grad

    same(program)


def test_setitem_broadcasts_and_drops_leading_ones():
    def program(T):
        v = T.ones(1, 1, 3, requires_grad=True)
        h = matrix(T) * 1
        h[0] = v
        h[:, :2] = T.tensor([[1.0], [2.0]])
        h.sum().backward()
        return h, v.grad

    same(program)


@pytest.mark.parametrize(
    "value",
    [lambda T: T.ones(4), lambda T: T.ones(2, 3), lambda T: [1.0], lambda T: "no", lambda T: None],
    ids=["shape", "rank", "list", "string", "none"],
)
def test_setitem_refuses_what_does_not_fit(value):
    def program(T):
        (matrix(T) * 1).__setitem__(0, value(T))

    # The wording depends on what PyTorch tries first.
    same(program, raises=(RuntimeError, TypeError, ValueError, IndexError), message="type")


@pytest.mark.parametrize("index", [2, -3, (0, 3), (0, 0, 0), slice(0, 2, -1), 1.5], ids=str)
def test_setitem_refuses_a_bad_index(index):
    same(
        lambda T: (matrix(T) * 1).__setitem__(index, 1.0),
        raises=(IndexError, ValueError, TypeError),
    )


def test_in_place_with_broadcasting_of_the_other_operand():
    def program(T):
        x, row, s = matrix(T), leaf(T), T.tensor(2.0, requires_grad=True)
        h = x * 1
        h.mul_(row).add_(s)
        h.sum().backward()
        return h, x.grad, row.grad, s.grad

    same(program)


def test_in_place_cannot_grow_the_tensor():
    same(
        lambda T: T.ones(3).add_(T.ones(2, 3)),
        raises=RuntimeError,
        match="doesn't match the broadcast shape",
        message="exact",
    )


def test_in_place_cannot_change_the_dtype():
    same(
        lambda T: T.tensor([1, 2]).add_(1.5),
        raises=RuntimeError,
        match="can't be cast",
        message="exact",
    )


def test_in_place_keeps_the_dtype_of_the_target():
    def program(T):
        t = T.ones(3)
        t.add_(T.ones(3, dtype=T.float64))
        t[0] = T.tensor(2.5, dtype=T.float64)
        t.copy_(T.tensor([1, 2, 3]))
        return t

    same(program)


def test_copy_converts_the_gradient():
    def program(T):
        x = T.tensor([1.0, 2.0], dtype=T.float64, requires_grad=True)
        buffer = T.zeros(2)
        buffer.copy_(x)
        (buffer * 3).sum().backward()
        return buffer, x.grad

    same(program)


def test_in_place_with_itself():
    def program(T):
        x = matrix(T)
        h = x * 1
        h.mul_(h)
        h.add_(h)
        error = outcome_of(h.sum().backward)
        return h, error, x.grad

    same(program)


def test_in_place_between_overlapping_parts_of_a_tensor_is_refused():
    def program(T):
        t, u = T.arange(6.0), T.arange(4.0).view(2, 2)
        return (
            outcome_of(lambda: u.copy_(u.t())),
            outcome_of(lambda: t[1:].add_(t[:-1])),
            outcome_of(lambda: t[1:].copy_(t[:-1])),
            t,
            u,
        )

    same(program)


def test_an_expanded_tensor_cannot_be_written():
    same(
        lambda T: T.ones(1, 3).expand(2, 3).add_(1),
        raises=RuntimeError,
        match="more than one element of the written-to tensor refers to a single memory location",
    )


# ---------------------------------------------------------------- leaves

LEAF_UPDATES = {
    name: UPDATES[name]
    for name in ("add_", "mul_", "exp_", "zero_", "copy_", "fill_", "iadd", "clamp_")
}


@pytest.mark.parametrize("name", LEAF_UPDATES)
def test_a_leaf_that_requires_grad_cannot_be_changed(name):
    same(
        lambda T: UPDATES[name](T, matrix(T)),
        raises=RuntimeError,
        match="a leaf Variable that requires grad is being used in an in-place operation",
        message="exact",
    )


def test_setitem_on_a_leaf_names_the_view():
    same(
        lambda T: leaf(T).__setitem__(0, 1.0),
        raises=RuntimeError,
        match="a view of a leaf Variable that requires grad is being used in an in-place operation",
        message="exact",
    )


def test_setitem_by_mask_on_a_leaf():
    def program(T):
        x = leaf(T)
        x[T.tensor([True, False, True])] = 0.0

    same(program, raises=RuntimeError, match="leaf Variable", message="exact")


@pytest.mark.parametrize("view", [name for name in VIEWS if name not in ("detach", "expand")])
def test_a_view_of_a_leaf_cannot_be_changed(view):
    same(
        lambda T: VIEWS[view](matrix(T)).add_(1),
        raises=RuntimeError,
        match="a view of a leaf Variable that requires grad is being used in an in-place operation",
        message="exact",
    )


def test_a_refused_change_leaves_the_tensor_alone():
    def program(T):
        x = leaf(T)
        error = outcome_of(lambda: x.add_(1))
        return error, x, x._version

    same(program)


def test_a_leaf_may_be_changed_in_no_grad_and_the_version_counts():
    def program(T):
        x = matrix(T)
        with T.no_grad():
            x.add_(1)
            x[0] = 0.0
            x[:, 1].mul_(3)
        return x, x._version

    same(program)


def test_a_leaf_changed_in_no_grad_after_it_was_saved():
    def program(T):
        x = leaf(T)
        y = (x * x).sum()
        with T.no_grad():
            x.add_(1)
        y.backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="exact")


def test_a_constant_leaf_may_be_changed_and_take_a_graph():
    def program(T):
        x, c = leaf(T), T.ones(3)
        c.mul_(x)
        c.exp_()
        c.sum().backward()
        return c, x.grad

    same(program)


def test_an_integer_tensor_may_be_changed():
    def program(T):
        t = T.tensor([1, 2, 3])
        t += 2
        t *= t
        t[0] = -1
        return t, t._version

    same(program)
