"""Results of no_grad, inference_mode and detach, and what they keep alive, as in PyTorch."""

from __future__ import annotations

import gc
import tracemalloc
import weakref
from typing import Any

import pytest

from tests.library import ON_TORCH, library
from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


def modes(T: Any) -> tuple[bool, bool]:
    return T.is_grad_enabled(), T.is_inference_mode_enabled()


# ---------------------------------------------------------------- what no_grad does


def test_no_grad_alters_no_flag():
    def program(T):
        x = leaf(T)
        y = x * 2
        with T.no_grad():
            inside = (x.requires_grad, y.requires_grad, y.grad_fn)
            made = T.ones(2, requires_grad=True)
            constant = T.ones(2).requires_grad_()
        return inside, x, y, made, constant

    same(program)


def test_a_leaf_made_in_no_grad_takes_part_afterwards():
    def program(T):
        with T.no_grad():
            w = T.ones(3, requires_grad=True)
        (w * 2).sum().backward()
        return w.grad

    same(program)


def test_no_grad_allows_in_place_updates_of_leaves():
    def program(T):
        w = leaf(T)
        for _ in range(3):
            (w * w).sum().backward()
            with T.no_grad():
                w -= 0.1 * w.grad
                w.grad.zero_()
        return w, w.grad, w._version

    same(program)


def test_enable_grad_inside_no_grad_records():
    def program(T):
        x = leaf(T)
        with T.no_grad():
            h = x * 2
            with T.enable_grad():
                y = (x * 3 + h).sum()
        y.backward()
        return h, y, x.grad

    same(program)


def test_a_custom_function_is_not_recorded_in_no_grad():
    def program(T):
        class Double(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x * 2

            @staticmethod
            def backward(ctx, g):
                return g * 2

        with T.no_grad():
            off = Double.apply(leaf(T))
        return off, Double.apply(leaf(T))

    same(program)


def test_the_mode_is_off_inside_a_custom_function_and_in_backward():
    def program(T):
        seen = []

        class Look(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                seen.append(modes(T))
                return x.clone()

            @staticmethod
            def backward(ctx, g):
                seen.append(modes(T))
                return g

        x = leaf(T)
        T.autograd.grad(Look.apply(x).sum(), x)
        T.autograd.grad(Look.apply(x).sum(), x, create_graph=True)
        return seen, modes(T)

    same(program)


def test_a_hook_runs_with_the_mode_of_create_graph():
    def program(T):
        seen = []
        for create_graph in (False, True):
            x = leaf(T)
            y = x * x
            y.register_hook(lambda g: seen.append(modes(T)))
            T.autograd.grad(y.sum(), x, create_graph=create_graph)
        return seen

    same(program)


# ---------------------------------------------------------------- nothing is kept


def evaluation_peak(T: Any, layers: int) -> int:
    """Peak of the memory that `layers` layers of 1 MB each allocate under no_grad."""
    w = T.ones(1, requires_grad=True)
    x = T.ones(262_144)
    gc.collect()
    tracemalloc.start()
    try:
        with T.no_grad():
            for number in range(layers):
                x = x * w if number % 2 else x.tanh()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.skipif(ON_TORCH, reason="tracemalloc does not see PyTorch's memory")
def test_a_deep_evaluation_peaks_at_two_neighbouring_layers(no_gc):
    megabyte = 262_144 * 4
    peak = evaluation_peak(library, 50)
    assert peak < 2.1 * megabyte, f"{peak / megabyte:.1f} layers were alive at once"


@pytest.mark.skipif(ON_TORCH, reason="tracemalloc does not see PyTorch's memory")
def test_a_module_evaluation_peaks_at_the_widest_pair(no_gc):
    T = library
    widths = [512, 1024, 512, 2048, 256, 1024, 512] * 4
    model = T.nn.Sequential(*[T.nn.Linear(a, b) for a, b in zip(widths, widths[1:])])
    x = T.ones(256, widths[0])
    widest_pair = max(a + b for a, b in zip(widths, widths[1:])) * 256 * 4
    with T.no_grad():
        model(x)
    gc.collect()
    tracemalloc.start()
    try:
        with T.no_grad():
            model(x)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 1.25 * widest_pair


@pytest.mark.skipif(ON_TORCH, reason="weak references to a PyTorch tensor do not show its memory")
def test_an_intermediate_dies_at_once_in_no_grad(no_gc):
    x = leaf(library)
    with library.no_grad():
        h = x.exp()
        died = weakref.ref(h)
        y = h.sin()
        del h
        assert died() is None
    assert y.grad_fn is None


# ---------------------------------------------------------------- inference mode


def test_inference_tensors():
    def program(T):
        x = leaf(T)
        with T.inference_mode():
            y = x * 2
            z = T.ones(2)
            view = x[0]
            inside = [t.is_inference() for t in (x, y, z, view)]
        return (
            inside,
            y.requires_grad,
            y.is_leaf,
            [t.is_inference() for t in (x, y, z, view, y + 1, y[0])],
        )

    same(program)


def test_a_leaf_made_in_inference_mode_takes_the_flag():
    same(lambda T: made_in_inference_mode(T, requires_grad=True).requires_grad)


def made_in_inference_mode(T: Any, **options: Any) -> Any:
    with T.inference_mode():
        return T.ones(3, **options)


def test_inference_tensors_may_be_read_outside():
    def program(T):
        t = made_in_inference_mode(T)
        x = leaf(T)
        y = x + t
        y.sum().backward()
        return t * 2, t.sum(), y, x.grad

    same(program)


def test_inference_tensors_cannot_be_saved_for_backward():
    same(
        lambda T: leaf(T) * made_in_inference_mode(T),
        raises=RuntimeError,
        match="Inference tensors cannot be saved for backward",
        message="exact",
    )


@pytest.mark.parametrize(
    "update",
    [
        lambda t: t.add_(1),
        lambda t: t.mul_(2),
        lambda t: t.zero_(),
        lambda t: t.__setitem__(0, 5.0),
        lambda t: t.copy_(t + 1),
    ],
)
def test_inference_tensors_cannot_be_changed_outside(update):
    same(
        lambda T: update(made_in_inference_mode(T)),
        raises=RuntimeError,
        match="Inplace update to inference tensor outside InferenceMode is not allowed",
        message="exact",
    )


def test_inference_tensors_may_be_changed_inside():
    def program(T):
        with T.inference_mode():
            t = T.ones(3)
            t.add_(1)
            t[0] = 7.0
        return t * 1

    same(program)


def test_normal_tensors_may_be_changed_in_inference_mode():
    def program(T):
        t = T.ones(3)
        before = t._version
        with T.inference_mode():
            t.add_(1)
        return t, t._version - before

    same(program)


def test_inference_tensors_cannot_be_made_to_require_grad():
    same(
        lambda T: made_in_inference_mode(T).requires_grad_(),
        raises=RuntimeError,
        match="inference tensor",
        message="exact",
    )


def test_inference_tensors_have_no_version_counter():
    same(
        lambda T: made_in_inference_mode(T)._version,
        raises=RuntimeError,
        match="Inference tensors do not track version counter",
        message="exact",
    )


def test_a_clone_of_an_inference_tensor_is_normal():
    def program(T):
        t = made_in_inference_mode(T).clone()
        t.requires_grad_()
        (t * t).sum().backward()
        return t.is_inference(), t.grad

    same(program)


def test_backward_is_refused_in_inference_mode():
    def program(T):
        y = (leaf(T) ** 2).sum()
        with T.inference_mode():
            z = y * 2
            return z.requires_grad, outcome_of(z.backward)

    same(program)


# ---------------------------------------------------------------- detach and data


def test_detach_shares_storage_and_version_and_cuts_the_graph():
    def program(T):
        x = leaf(T)
        y = x * 2
        d = y.detach()
        facts = d, d.data_ptr() == y.data_ptr(), d._version == y._version
        d.add_(1)
        return facts, y, y._version, d._version

    same(program)


def test_detach_of_a_leaf_requires_no_grad():
    same(lambda T: leaf(T).detach())


def test_a_change_through_a_detached_alias_is_caught():
    def program(T):
        y = leaf(T).exp()
        y.detach().mul_(2)
        y.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="exact")


def test_a_change_through_data_is_not_caught():
    def program(T):
        x = leaf(T)
        y = x.exp()
        y.data.mul_(2)
        y.sum().backward()
        return y, x.grad, y._version

    same(program)


def test_data_is_detached_and_may_be_replaced():
    def program(T):
        w = leaf(T)
        w.data.add_(1)
        w.data = T.tensor([9.0, 8.0, 7.0, 6.0])
        (w * w).sum().backward()
        return w, w.data, w.data.requires_grad, w.grad, w._version

    same(program)


def test_detach_in_place():
    def program(T):
        x = leaf(T)
        y = x * 2
        z = y.exp()
        result = y.detach_()
        z.sum().backward()
        return result is y, y, x.grad

    same(program)


def test_detach_in_place_of_a_view_is_refused():
    def program(T):
        y = leaf(T) * 2
        y[:2].detach_()

    same(program, raises=RuntimeError, match="Can't detach views in-place", message="exact")


def test_detach_in_place_of_a_leaf_switches_it_off():
    same(lambda T: leaf(T).detach_())


def test_a_detached_branch_gets_no_gradient():
    def program(T):
        x = leaf(T)
        (x * x.detach()).sum().backward()
        return x.grad

    same(program)
