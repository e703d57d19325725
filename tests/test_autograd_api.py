"""autograd.grad, anomaly detection and small public parts of autograd, compared with PyTorch."""

from __future__ import annotations

import re
import warnings
from typing import Any

import pytest

from tests.library import library
from tests.oracle import outcome_of, same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- autograd.grad


def test_grad_returns_a_tuple_and_touches_no_grad():
    def program(T):
        x, y = leaf(T), leaf(T)
        x.grad = T.zeros(3)
        result = T.autograd.grad((x * y).sum(), (x, y))
        return type(result).__name__, result, x.grad, y.grad

    same(program)


@pytest.mark.parametrize("form", ["tensor", "tuple", "list"])
def test_grad_takes_a_tensor_or_a_sequence(form):
    def program(T):
        x = leaf(T)
        y = (x * x).sum()
        wrap = {"tensor": lambda t: t, "tuple": lambda t: (t,), "list": lambda t: [t]}[form]
        return T.autograd.grad(wrap(y), wrap(x))

    same(program)


def test_grad_of_several_outputs_adds_up():
    def program(T):
        x, y = leaf(T), leaf(T)
        return T.autograd.grad([(x * y).sum(), x.exp().sum(), y[0]], [x, y])

    same(program)


def test_grad_of_an_intermediate():
    def program(T):
        x = leaf(T)
        h = x * 2
        return T.autograd.grad((h * h).sum(), [h, x])

    same(program)


def test_grad_of_the_output_itself():
    def program(T):
        x = T.tensor(2.0, requires_grad=True)
        y = x * x
        return T.autograd.grad(y, [y, x]), T.autograd.grad(x, x)

    same(program)


def test_grad_of_the_same_input_twice():
    def program(T):
        x = leaf(T)
        a, b = T.autograd.grad((x * x).sum(), [x, x])
        return a, b

    same(program)


def test_grad_outputs_weigh_the_outputs():
    def program(T):
        x = leaf(T)
        weights = T.tensor([1.0, 0.0, -2.0])
        return [
            T.autograd.grad(x * x, x, weights),
            T.autograd.grad([x * x], [x], [weights]),
            T.autograd.grad([x * x, (x * 2).sum()], x, grad_outputs=[weights, None]),
            T.autograd.grad(outputs=x * x, inputs=x, grad_outputs=(weights,)),
        ]

    same(program)


@pytest.mark.parametrize("shape", [(), (2,), (1, 3), (3, 1)])
def test_grad_outputs_of_the_wrong_shape(shape):
    def program(T):
        x = leaf(T)
        T.autograd.grad(x * x, x, T.ones(shape))

    same(program, raises=RuntimeError, match="Mismatch in shape", message="exact")


def test_grad_of_a_non_scalar_needs_grad_outputs():
    def program(T):
        x = leaf(T)
        T.autograd.grad(x * x, x)

    same(
        program,
        raises=RuntimeError,
        match="grad can be implicitly created only for scalar outputs",
        message="exact",
    )


def test_an_unused_input_is_an_error_unless_allowed():
    def program(T):
        x, y = leaf(T), leaf(T)
        z = x.sum()
        return outcome_of(lambda: T.autograd.grad(z, [x, y])), T.autograd.grad(
            z, [x, y], allow_unused=True
        )

    same(program, message="exact")


def test_the_message_for_an_unused_input():
    def program(T):
        x, y = leaf(T), leaf(T)
        T.autograd.grad((x * 2).sum(), [x, y])

    same(program, raises=RuntimeError, match="differentiated Tensor at index 1", message="prefix")


def test_materialize_grads_gives_zeros():
    def program(T):
        x, y = leaf(T), T.ones(2, 2, dtype=T.float64, requires_grad=True)
        return T.autograd.grad(x.sum(), [x, y], materialize_grads=True)

    same(program)


def test_materialized_zeros_can_be_differentiated_with_create_graph():
    def program(T):
        x, y = leaf(T), leaf(T)
        (g,) = T.autograd.grad((x * y).sum(), x, create_graph=True)
        (gg,) = T.autograd.grad(g.sum(), x, create_graph=True, materialize_grads=True)
        return gg, T.autograd.grad(gg.sum(), x, materialize_grads=True)

    same(program)


def test_materialize_grads_excludes_a_refusal_of_unused_inputs():
    def program(T):
        x = leaf(T)
        T.autograd.grad(x.sum(), x, allow_unused=False, materialize_grads=True)

    same(program, raises=ValueError, match="allow_unused", message="exact")


def test_an_input_that_does_not_require_grad():
    def program(T):
        x = leaf(T)
        T.autograd.grad(x.sum(), [x, T.ones(3)])

    same(
        program,
        raises=RuntimeError,
        match="One of the differentiated Tensors does not require grad",
        message="exact",
    )


def test_an_output_that_does_not_require_grad():
    same(
        lambda T: T.autograd.grad(T.ones(1), leaf(T)),
        raises=RuntimeError,
        match="element 0 of tensors does not require grad",
        message="exact",
    )


def test_inputs_may_not_be_empty():
    def program(T):
        return T.autograd.grad(leaf(T).sum(), [])

    same(program, raises=(RuntimeError, ValueError))


def test_grad_frees_the_graph_unless_told_otherwise():
    def program(T):
        x = leaf(T)
        y, z = x.exp().sum(), x.exp().sum()
        T.autograd.grad(y, x)
        T.autograd.grad(z, x, retain_graph=True)
        return outcome_of(lambda: T.autograd.grad(y, x)), T.autograd.grad(z, x)

    same(program)


def test_grad_in_no_grad():
    def program(T):
        x = leaf(T)
        y = (x**3).sum()
        with T.no_grad():
            g = T.autograd.grad(y, x, create_graph=True)
        return g

    same(program)


def test_higher_derivatives_of_several_inputs():
    def program(T):
        x = T.tensor([0.5, 1.5], dtype=T.float64, requires_grad=True)
        y = T.tensor([1.0, -1.0], dtype=T.float64, requires_grad=True)
        z = (x.sin() * y.exp() + x**2 * y**3).sum()
        gx, gy = T.autograd.grad(z, (x, y), create_graph=True)
        gxy = T.autograd.grad(gx.sum(), y, create_graph=True)[0]
        gxyx = T.autograd.grad(gxy.sum() + gy.sum(), x)[0]
        return gx.detach(), gy.detach(), gxy.detach(), gxyx

    same(program)


def test_create_graph_through_grad_outputs():
    """A product with the Jacobian, by differentiating one with its transpose."""

    def program(T):
        x = leaf(T)
        v = T.zeros(3, requires_grad=True)
        (g,) = T.autograd.grad(x**3, x, v, create_graph=True)
        return T.autograd.grad(g, v, T.tensor([1.0, 10.0, 100.0]))

    same(program)


def test_a_gradient_penalty():
    def program(T):
        w = T.tensor([[0.5, -1.0], [2.0, 0.3]], requires_grad=True)
        x = T.tensor([[1.0, 2.0], [3.0, -1.0]], requires_grad=True)
        out = (x @ w).tanh().sum()
        (g,) = T.autograd.grad(out, x, create_graph=True)
        penalty = ((g.norm(dim=1) - 1) ** 2).mean()
        penalty.backward()
        return penalty, w.grad

    same(program, rtol=1e-5, atol=1e-6)


def test_backward_through_an_optimizer_step_by_hand():
    def program(T):
        rate = T.tensor(0.1, dtype=T.float64, requires_grad=True)
        w = T.tensor([1.0, 2.0], dtype=T.float64, requires_grad=True)
        current = w
        for _ in range(4):
            (g,) = T.autograd.grad((current**4).sum() / 10, current, create_graph=True)
            current = current - rate * g
        (current**2).sum().backward()
        return current, rate.grad, w.grad

    same(program)


def test_is_grads_batched():
    def program(T):
        x = leaf(T)
        return T.autograd.grad(x**2, x, T.eye(3), is_grads_batched=True)

    same(program)


# ---------------------------------------------------------------- anomaly detection


def test_anomaly_mode_is_off_by_default_and_scoped():
    def program(T):
        seen = [T.is_anomaly_enabled()]
        with T.autograd.detect_anomaly():
            seen.append(T.is_anomaly_enabled())
        seen.append(T.is_anomaly_enabled())
        with T.autograd.set_detect_anomaly(True):
            seen.append(T.is_anomaly_enabled())
            with T.autograd.set_detect_anomaly(False):
                seen.append(T.is_anomaly_enabled())
            seen.append(T.is_anomaly_enabled())
        T.autograd.set_detect_anomaly(True)
        seen.append(T.is_anomaly_enabled())
        T.autograd.set_detect_anomaly(False)
        seen.append(T.is_anomaly_enabled())
        return seen

    same(program, warns="Anomaly Detection has been enabled")


NANS = {
    "sqrt": lambda T, x: ((x * 0).sqrt() * 0, "SqrtBackward0"),
    "log": lambda T, x: ((x * 0 - 1).log(), None),
    "div": lambda T, x: ((x * 0) / (x * 0), "DivBackward0"),
    "pow": lambda T, x: ((x * 0 - 1) ** 0.5, "PowBackward0"),
}


@pytest.mark.parametrize("name", NANS)
def test_a_nan_gradient_raises_and_names_the_node(name):
    def program(T):
        x = leaf(T)
        with T.autograd.set_detect_anomaly(True):
            y, _ = NANS[name](T, x)
            return outcome_of(y.sum().backward), x.grad

    warns = "Error detected in" if NANS[name](library, leaf(library))[1] else None
    same(program, warns=warns, message="details")


def test_a_nan_gradient_is_silent_without_anomaly_mode():
    def program(T):
        x = leaf(T)
        ((x * 0).sqrt() * 0).sum().backward()
        return x.grad

    same(program)


def test_check_nan_can_be_switched_off():
    def program(T):
        x = leaf(T)
        with T.autograd.set_detect_anomaly(True, check_nan=False):
            ((x * 0).sqrt() * 0).sum().backward()
        return x.grad

    same(program)


def test_anomaly_mode_names_the_number_of_the_output():
    def program(T):
        x, y = leaf(T), leaf(T)
        with T.autograd.set_detect_anomaly(True):
            z = (x + 0) / (y * 0)
            (z * 0).sum().backward()

    same(
        program,
        raises=RuntimeError,
        match=r"returned nan values in its \d+th output",
        warns="Error detected",
        message="exact",
    )


def test_anomaly_mode_shows_the_forward_line_that_made_the_node():
    T = library
    with warnings.catch_warnings(record=True) as caught, T.autograd.set_detect_anomaly(True):
        warnings.simplefilter("always")
        x = leaf(T)
        bad = (x * 0).sqrt() * 0  # the guilty line
        with pytest.raises(RuntimeError, match="SqrtBackward0"):
            bad.sum().backward()
    texts = "\n".join(str(item.message) for item in caught)
    assert "the guilty line" in texts and "Traceback of forward call" in texts
    assert re.search(r"test_autograd_api\.py", texts)


def test_anomaly_mode_reports_errors_of_custom_functions_too():
    def program(T):
        class Broken(T.autograd.Function):
            @staticmethod
            def forward(ctx, x):
                return x.clone()

            @staticmethod
            def backward(ctx, g):
                raise ValueError("in the rule")

        with T.autograd.set_detect_anomaly(True):
            y = Broken.apply(leaf(T))
            y.sum().backward()

    same(
        program,
        raises=ValueError,
        match="in the rule",
        warns="Error detected in BrokenBackward",
        message="prefix",
    )


def test_anomaly_mode_on_in_backward_only_has_no_forward_line():
    def program(T):
        y = ((leaf(T) * 0).sqrt() * 0).sum()
        with T.autograd.set_detect_anomaly(True):
            y.backward()

    same(
        program,
        raises=RuntimeError,
        match="SqrtBackward0",
        warns="No forward pass information available",
        message="exact",
    )


def test_anomaly_mode_does_not_change_results():
    def program(T):
        x = leaf(T)
        with T.autograd.set_detect_anomaly(True):
            y = (x.exp() * x.sin()).sum()
            (g,) = T.autograd.grad(y, x, create_graph=True)
            (h,) = T.autograd.grad(g.sum(), x)
        return g.detach(), h

    same(program)


# ---------------------------------------------------------------- small public parts


def test_modes_are_reachable_from_autograd():
    def program(T):
        return [
            T.autograd.no_grad is T.no_grad,
            T.autograd.enable_grad is T.enable_grad,
            T.autograd.set_grad_enabled is T.set_grad_enabled,
            T.autograd.inference_mode is T.inference_mode,
            T.autograd.grad_mode.no_grad is T.no_grad,
        ]

    same(program)


def test_nodes_are_instances_of_node():
    def program(T):
        y = leaf(T) * 2
        node = T.autograd.graph.Node
        return isinstance(y.grad_fn, node), isinstance(y.grad_fn.next_functions[0][0], node)

    same(program)


def test_variable_is_the_tensor():
    def program(T):
        return isinstance(T.ones(1), T.autograd.Variable), T.autograd.Variable(
            T.ones(2), requires_grad=True
        )

    same(program)


def test_variables_of_old_programs():
    def program(T):
        Variable = T.autograd.Variable
        return Variable(T.ones(2), volatile=True), Variable(), [
            outcome_of(lambda: Variable(T.ones(2), requires_grad=True, volatile=True)),
            outcome_of(lambda: Variable(3)),
        ]  # fmt: skip

    same(program, message="exact", warns="volatile was removed")


def test_gradient_edges():
    def program(T):
        x = leaf(T)
        y = x * 2
        edge = T.autograd.graph.get_gradient_edge(y)
        z = (y * y).sum()
        return edge.node is y.grad_fn, edge.output_nr, T.autograd.grad(z, edge)

    same(program)


def test_allow_mutation_on_saved_tensors():
    def program(T):
        x = leaf(T)
        with T.autograd.graph.allow_mutation_on_saved_tensors():
            h = x * 1
            y = h.sin().sum()
            h.zero_()
            y.backward()
        return x.grad

    same(program)
