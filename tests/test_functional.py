"""autograd.functional and func: Jacobians, Hessians and products with them, as in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def vector(T: Any) -> Any:
    return T.tensor([0.5, -1.0, 2.0], dtype=T.float64)


def other(T: Any) -> Any:
    return T.tensor([1.5, 0.25], dtype=T.float64)


def cubic(x: Any) -> Any:
    return (x**3 * x.flip(0).sin()).sum()


def elementwise(x: Any) -> Any:
    return x.exp() * x.sum()


def of_two(x: Any, y: Any) -> Any:
    return x.sin() * y.sum(), y.exp() * x[0]


def scalar_of_two(x: Any, y: Any) -> Any:
    return (x.sin().sum() * y**2).sum()


# ---------------------------------------------------------------- autograd.functional


@pytest.mark.parametrize("options", [{}, {"vectorize": True}, {"create_graph": True}], ids=str)
def test_jacobian_of_one_input(options):
    same(lambda T: T.autograd.functional.jacobian(elementwise, vector(T), **options).detach())


def test_jacobian_of_several_inputs_and_outputs():
    same(lambda T: T.autograd.functional.jacobian(of_two, (vector(T), other(T))))


def test_jacobian_of_a_scalar_function_is_the_gradient():
    same(lambda T: T.autograd.functional.jacobian(cubic, vector(T)))


def test_jacobian_of_matrices():
    def program(T):
        x = T.arange(6.0, dtype=T.float64).reshape(2, 3)
        return T.autograd.functional.jacobian(lambda x: x @ x.t(), x)

    same(program)


def test_jacobian_of_an_independent_output():
    def program(T):
        independent = T.autograd.functional.jacobian(
            lambda x: T.ones(2, dtype=T.float64), vector(T)
        )
        strict = outcome_of(
            lambda: T.autograd.functional.jacobian(
                lambda x: T.ones(2, dtype=T.float64), vector(T), strict=True
            )
        )
        return independent, strict

    same(program)


def test_jacobian_with_create_graph_is_differentiable():
    def program(T):
        x = vector(T).requires_grad_()
        j = T.autograd.functional.jacobian(elementwise, x, create_graph=True)
        (j * j).sum().backward()
        return j.detach(), x.grad

    same(program)


@pytest.mark.parametrize("options", [{}, {"vectorize": True}], ids=str)
def test_hessian(options):
    same(lambda T: T.autograd.functional.hessian(cubic, vector(T), **options))


def test_hessian_of_several_inputs():
    same(lambda T: T.autograd.functional.hessian(scalar_of_two, (vector(T), other(T))))


def test_hessian_needs_a_scalar():
    same(
        lambda T: T.autograd.functional.hessian(elementwise, vector(T)),
        raises=RuntimeError,
        match="should return a single value|single element|scalar",
        message="exact",
    )


def test_vjp():
    def program(T):
        v = T.tensor([1.0, 0.0, -2.0], dtype=T.float64)
        return T.autograd.functional.vjp(elementwise, vector(T), v)

    same(program)


def test_vjp_of_several_inputs_and_outputs():
    def program(T):
        return T.autograd.functional.vjp(of_two, (vector(T), other(T)), (vector(T), other(T)))

    same(program)


def test_vjp_of_a_scalar_needs_no_vector():
    same(lambda T: T.autograd.functional.vjp(cubic, vector(T)))


def test_vjp_of_a_vector_needs_one():
    same(
        lambda T: T.autograd.functional.vjp(elementwise, vector(T)),
        raises=RuntimeError,
        message="exact",
    )


def test_vjp_checks_the_shape_of_its_vector():
    same(
        lambda T: T.autograd.functional.vjp(elementwise, vector(T), other(T)),
        raises=RuntimeError,
        message="exact",
    )


def test_jvp():
    def program(T):
        v = T.tensor([1.0, 0.0, -2.0], dtype=T.float64)
        return T.autograd.functional.jvp(elementwise, vector(T), v)

    same(program)


def test_jvp_of_several_inputs_and_outputs():
    def program(T):
        return T.autograd.functional.jvp(of_two, (vector(T), other(T)), (vector(T), other(T)))

    same(program)


def test_hvp_and_vhp():
    def program(T):
        v = T.tensor([1.0, 0.5, -2.0], dtype=T.float64)
        return (
            T.autograd.functional.hvp(cubic, vector(T), v),
            T.autograd.functional.vhp(cubic, vector(T), v),
        )

    same(program)


def test_hvp_of_several_inputs():
    def program(T):
        return T.autograd.functional.hvp(
            scalar_of_two, (vector(T), other(T)), (vector(T) * 2, other(T))
        )

    same(program)


def test_functional_leaves_its_inputs_alone():
    def program(T):
        x = vector(T)
        leaf = vector(T).requires_grad_()
        T.autograd.functional.jacobian(elementwise, x)
        T.autograd.functional.hessian(cubic, leaf)
        return x, leaf, leaf.grad

    same(program)


# ---------------------------------------------------------------- func


def test_func_grad():
    same(lambda T: T.func.grad(cubic)(vector(T)))


@pytest.mark.parametrize("argnums", [0, 1, (0, 1), (1,), -1], ids=str)
def test_func_grad_of_several_arguments(argnums):
    same(lambda T: T.func.grad(scalar_of_two, argnums=argnums)(vector(T), other(T)))


def test_func_grad_composes():
    def program(T):
        x = T.tensor(0.7, dtype=T.float64)
        f = T.sin
        results = []
        for _ in range(4):
            f = T.func.grad(f)
            results.append(f(x))
        return results

    same(program)


def test_func_grad_with_auxiliary_output():
    def program(T):
        return T.func.grad(lambda x: (cubic(x), {"twice": x * 2}), has_aux=True)(vector(T))

    same(program)


def test_func_grad_and_value():
    def program(T):
        return (
            T.func.grad_and_value(cubic)(vector(T)),
            T.func.grad_and_value(scalar_of_two, argnums=(0, 1))(vector(T), other(T)),
            T.func.grad_and_value(lambda x: (cubic(x), x + 1), has_aux=True)(vector(T)),
        )

    same(program)


def test_func_grad_takes_keyword_arguments_and_constants():
    def program(T):
        def f(x, scale, *, shift):
            return (x * scale + shift).exp().sum()

        return T.func.grad(f)(vector(T), 2.0, shift=0.1)

    same(program)


def test_func_grad_of_nested_structures():
    def program(T):
        parameters = {"w": vector(T), "b": [other(T)]}
        return T.func.grad(lambda p: p["w"].exp().sum() + (p["b"][0] ** 2).sum())(parameters)

    same(program)


def test_func_grad_needs_a_scalar():
    same(
        lambda T: T.func.grad(elementwise)(vector(T)),
        raises=RuntimeError,
        match="scalar",
        message="prefix",
    )


def test_func_grad_does_not_touch_the_leaf():
    def program(T):
        x = vector(T).requires_grad_()
        g = T.func.grad(cubic)(x)
        g.sum().backward()
        return g.detach(), x.grad

    same(program)


def test_func_vjp():
    def program(T):
        value, pullback = T.func.vjp(elementwise, vector(T))
        return value, pullback(T.ones(3, dtype=T.float64)), pullback(vector(T))

    same(program)


def test_func_vjp_of_several():
    def program(T):
        value, pullback = T.func.vjp(of_two, vector(T), other(T))
        return value, pullback((vector(T), other(T)))

    same(program)


def test_func_vjp_with_auxiliary_output():
    def program(T):
        value, pullback, aux = T.func.vjp(lambda x: (x.sin(), x * 3), vector(T), has_aux=True)
        return value, pullback(vector(T)), aux

    same(program)


def test_func_jvp():
    def program(T):
        return (
            T.func.jvp(elementwise, (vector(T),), (vector(T) * 2,)),
            T.func.jvp(of_two, (vector(T), other(T)), (vector(T), other(T))),
        )

    same(program)


@pytest.mark.parametrize("name", ["jacrev", "jacfwd"])
def test_func_jacobians(name):
    def program(T):
        transform = getattr(T.func, name)
        return (
            transform(elementwise)(vector(T)),
            transform(cubic)(vector(T)),
            transform(of_two, argnums=1)(vector(T), other(T)),
            transform(of_two, argnums=(0, 1))(vector(T), other(T)),
        )

    same(program)


def test_func_hessian():
    def program(T):
        return (
            T.func.hessian(cubic)(vector(T)),
            T.func.hessian(scalar_of_two, argnums=(0, 1))(vector(T), other(T)),
        )

    same(program)


def test_func_compositions():
    def program(T):
        x = vector(T)
        return (
            T.func.jacrev(T.func.grad(cubic))(x),
            T.func.grad(lambda x: T.func.jacrev(elementwise)(x).sum())(x),
            T.func.jacrev(T.func.jacrev(elementwise))(x),
        )

    same(program)


def small_model(T: Any) -> Any:
    model = T.nn.Sequential(T.nn.Linear(3, 2), T.nn.Tanh(), T.nn.Linear(2, 1)).double()
    with T.no_grad():
        for p in model.parameters():
            p.copy_(T.linspace(-1, 1, p.numel(), dtype=T.float64).reshape(p.shape))
    return model


def test_functional_call():
    def program(T):
        model = small_model(T)
        parameters = {name: p.detach() * 2 for name, p in model.named_parameters()}
        x = T.arange(6.0, dtype=T.float64).reshape(2, 3)
        out = T.func.functional_call(model, parameters, (x,))
        partly = T.func.functional_call(model, {"0.weight": parameters["0.weight"]}, x)
        return out, partly, model(x)

    same(program)


def test_functional_call_gives_gradients_to_the_parameters_it_was_given():
    def program(T):
        model = small_model(T)
        parameters = {name: p.detach() for name, p in model.named_parameters()}
        x = T.arange(6.0, dtype=T.float64).reshape(2, 3)

        def loss(parameters):
            return (T.func.functional_call(model, parameters, (x,)) ** 2).mean()

        return T.func.grad(loss)(parameters), [p.grad for p in model.parameters()]

    same(program)


def test_functional_call_restores_the_module_after_an_error():
    def program(T):
        model = small_model(T)
        parameters = {name: p.detach() * 0 for name, p in model.named_parameters()}
        before = [p.clone() for p in model.parameters()]
        error = outcome_of(
            lambda: T.func.functional_call(model, parameters, (T.ones(2, 7, dtype=T.float64),))
        )
        same_values = [bool((a == b).all()) for a, b in zip(before, model.parameters())]
        return type(error).__name__, same_values, [p.is_leaf for p in model.parameters()]

    same(program)


# ---------------------------------------------------------------- vmap


@pytest.mark.parametrize(
    "f",
    [
        lambda x: x.sin() * 2,
        lambda x: x.sum(),
        lambda x: x * x.mean(),
        lambda x: x @ x,
        lambda x: (x, x.exp()),
        lambda x: x[1:],
        lambda x: x.reshape(3, 1) + x,
    ],
)
def test_vmap_over_one_argument(f):
    def program(T):
        return T.func.vmap(f)(T.arange(12.0, dtype=T.float64).reshape(4, 3))

    same(program)


def test_vmap_in_and_out_dims():
    def program(T):
        x = T.arange(12.0, dtype=T.float64).reshape(4, 3)
        y = T.arange(3.0, dtype=T.float64)
        return (
            T.func.vmap(lambda a, b: a * b, in_dims=(0, None))(x, y),
            T.func.vmap(lambda a: a.sum(), in_dims=1)(x),
            T.func.vmap(lambda a: a * 2, in_dims=1, out_dims=1)(x),
        )

    same(program)


def test_vmap_of_grad_gives_gradients_per_sample():
    def program(T):
        w = T.tensor([0.1, -0.2, 0.3], dtype=T.float64)
        x = T.arange(12.0, dtype=T.float64).reshape(4, 3) / 10

        def loss(w, x):
            return (x * w).sum().tanh()

        return T.func.vmap(T.func.grad(loss), in_dims=(None, 0))(w, x)

    same(program)


def test_vmap_needs_equal_sizes():
    same(
        lambda T: T.func.vmap(lambda a, b: a + b)(T.ones(3), T.ones(4)),
        raises=ValueError,
        match="inconsistent sizes|Expected all tensors to have the same size",
    )
