"""func beyond the basics: structures, arguments, errors and nesting, compared with PyTorch."""

from __future__ import annotations

from collections import OrderedDict, namedtuple
from typing import Any

import numpy as np
import pytest

from tests.library import T
from tests.oracle import outcome_of, same

Pair = namedtuple("Pair", "a b")


def vector(T: Any) -> Any:
    return T.tensor([0.5, -1.0, 2.0], dtype=T.float64)


def other(T: Any) -> Any:
    return T.tensor([1.5, 0.25], dtype=T.float64)


def scalar(T: Any) -> Any:
    return T.tensor(0.7, dtype=T.float64)


def matrix(T: Any) -> Any:
    return T.arange(12.0, dtype=T.float64).reshape(4, 3)


def squares(x: Any) -> Any:
    return (x**2).sum()


def compare(cases: dict[str, Any], name: str) -> None:
    same(lambda T: outcome_of(lambda: cases[name](T, T.func)), message="exact")


# ---------------------------------------------------------------- grad

GRAD = {
    "list_output": lambda T, F: F.grad(lambda x: [x.sum()])(vector(T)),
    "tuple_output": lambda T, F: F.grad(lambda x: (x.sum(), x))(vector(T)),
    "number_output": lambda T, F: F.grad(lambda x: 3.0)(vector(T)),
    "vector_output": lambda T, F: F.grad(lambda x: x.sum().reshape(1))(vector(T)),
    "constant_output": lambda T, F: F.grad(lambda x: T.tensor(1.0))(vector(T)),
    "missing_aux": lambda T, F: F.grad(lambda x: x.sum(), has_aux=True)(vector(T)),
    "long_aux": lambda T, F: F.grad(lambda x: (x.sum(), 1, 2), has_aux=True)(vector(T)),
    "number_aux": lambda T, F: F.grad(lambda x: (x.sum(), 1), has_aux=True)(vector(T)),
    "nested_aux": lambda T, F: F.grad(lambda x: (x.sum(), [x * 2, {"a": x}]), has_aux=True)(
        vector(T)
    ),
    "number_argument": lambda T, F: F.grad(lambda x: x**2)(2.0),
    "integer_argument": lambda T, F: F.grad(lambda x: x.sum())(T.tensor([1, 2])),
    "no_argument": lambda T, F: F.grad(lambda: 3)(),
    "constant_argument": lambda T, F: F.grad(lambda x, y: x.sum())(vector(T), None),
    "unused_argument": lambda T, F: F.grad(lambda x, y: x.sum(), argnums=(0, 1))(
        vector(T), other(T)
    ),
    "named_tuple": lambda T, F: tuple(
        F.grad(lambda p: (p.a.sum() * p.b).sum())(Pair(vector(T), other(T)))
    ),
    "ordered_dict": lambda T, F: F.grad(lambda p: (p["a"].sum() * p["b"]).sum())(
        OrderedDict(b=vector(T), a=other(T))
    ),
    "none_in_a_dict": lambda T, F: F.grad(lambda p: p["a"].sum())({"a": vector(T), "b": None}),
    "detached": lambda T, F: F.grad(lambda x: (x.detach() * x).sum())(vector(T)),
    "in_place_on_the_argument": lambda T, F: F.grad(lambda x: x.mul_(2).sum())(vector(T)),
    "in_place_on_a_copy": lambda T, F: F.grad(lambda x: (x * 1).mul_(x).sum())(vector(T)),
}


@pytest.mark.parametrize("name", GRAD)
def test_grad(name):
    compare(GRAD, name)


@pytest.mark.parametrize("argnums", [1, -2, 5, (0, 0), (), [0], "a", 1.0, (0, 5), (-1, 0)], ids=str)
def test_argnums(argnums):
    def program(T):
        def f(x, y):
            return (x * y.sum()).sum()

        # Not jacfwd: PyTorch's gives zeros for numbers from the end.
        return (
            outcome_of(lambda: T.func.grad(f, argnums=argnums)(vector(T), other(T))),
            outcome_of(lambda: T.func.jacrev(f, argnums=argnums)(vector(T), other(T))),
        )

    same(program, message="exact")


def test_the_mode_inside_and_outside():
    def program(T):
        seen = []

        def f(x):
            seen.append((x.requires_grad, x.is_leaf, T.is_grad_enabled()))
            with T.no_grad():
                c = squares(x)
            return squares(x) * c

        results = [T.func.grad(f)(vector(T))]
        with T.no_grad():
            results.append(T.func.grad(f)(vector(T)))
            results.append(T.func.grad_and_value(f)(vector(T).requires_grad_()))
        return results, seen

    same(program)


def test_what_has_a_history_afterwards():
    """Results depend on what requires grad outside, and on nothing else."""

    def program(T):
        x, w = vector(T).requires_grad_(), vector(T).requires_grad_()
        grad, both = T.func.grad, T.func.grad_and_value
        results = [
            grad(squares)(x),
            grad(lambda x: x.sum())(x),
            both(squares)(x),
            grad(lambda x: (x * w).sum())(vector(T)),
            grad(lambda x: (x * w).sum() + squares(x))(vector(T)),
            both(lambda x: (x * w).sum())(vector(T)),
            grad(squares)(vector(T)),
        ]
        value, pullback = T.func.vjp(lambda x: x.exp(), x)
        results.append((value, pullback(vector(T))))
        return results

    same(program)


NESTED = {
    "grad_of_grad": lambda T, F: F.grad(lambda x: F.grad(squares)(x).sum())(vector(T)),
    "four_times": lambda T, F: F.grad(F.grad(F.grad(F.grad(lambda x: x**5))))(scalar(T)),
    "two_variables": lambda T, F: F.grad(lambda x: F.grad(lambda y: x * y**2)(x))(scalar(T)),
    "confusable": lambda T, F: F.grad(lambda x: x * F.grad(lambda y: x + y)(scalar(T)))(scalar(T)),
    "no_grad_between": lambda T, F: F.grad(lambda x: (no_grad(T, F, x) * x).sum())(vector(T)),
    "grad_of_vjp": lambda T, F: F.grad(
        lambda u: squares(F.vjp(lambda x: x.exp(), vector(T))[1](u)[0])
    )(vector(T)),
    "grad_of_vjp_at_the_point": lambda T, F: F.grad(
        lambda x: squares(F.vjp(lambda y: y.exp() * x, x)[1](x)[0])
    )(vector(T)),
    "grad_of_jvp": lambda T, F: F.grad(
        lambda x: F.jvp(lambda y: y**3, (x,), (vector(T),))[1].sum()
    )(vector(T)),
    "grad_of_jvp_by_its_vector": lambda T, F: F.grad(
        lambda x: F.jvp(lambda y: y**3, (vector(T),), (x,))[1].sum()
    )(vector(T)),
    "jvp_of_jvp": lambda T, F: F.jvp(
        lambda x: F.jvp(lambda y: y**3, (x,), (vector(T),))[1], (vector(T),), (vector(T),)
    ),
    "jvp_of_grad": lambda T, F: F.jvp(F.grad(squares), (vector(T),), (vector(T),)),
    "jacrev_of_jacfwd": lambda T, F: F.jacrev(F.jacfwd(lambda x: x**3))(vector(T)),
    "jacfwd_of_jacfwd": lambda T, F: F.jacfwd(F.jacfwd(lambda x: x**3))(vector(T)),
    "grad_of_jacrev": lambda T, F: F.grad(lambda x: F.jacrev(lambda y: y**3)(x).sum())(vector(T)),
    "grad_of_jacfwd": lambda T, F: F.grad(lambda x: F.jacfwd(lambda y: y**3)(x).sum())(vector(T)),
    "vmap_of_vjp": lambda T, F: F.vmap(F.vjp(lambda x: x.exp(), vector(T))[1])(
        T.eye(3, dtype=T.float64)
    ),
    "vmap_of_jacrev": lambda T, F: F.vmap(F.jacrev(lambda x: x.exp()))(matrix(T) / 9),
    "vmap_of_vmap": lambda T, F: F.vmap(
        F.vmap(lambda x, y: x * y, in_dims=(None, 0)), in_dims=(0, None)
    )(vector(T), other(T)),
    "grad_of_vmap": lambda T, F: F.grad(lambda x: F.vmap(squares)(x).sum())(matrix(T)),
}


def no_grad(T: Any, F: Any, x: Any) -> Any:
    with T.no_grad():
        return F.grad(squares)(x)


@pytest.mark.parametrize("name", NESTED)
def test_nested_transforms(name):
    compare(NESTED, name)


# ---------------------------------------------------------------- products

PRODUCTS = {
    "vjp": lambda T, F: F.vjp(lambda x: x.exp(), vector(T))[1](vector(T)),
    "vjp_of_a_dict": lambda T, F: F.vjp(lambda x: {"a": x.exp()}, vector(T))[1]({"a": vector(T)}),
    "vjp_by_a_dict": lambda T, F: F.vjp(
        lambda p: squares(p["a"] * p["b"][0]), {"a": vector(T), "b": [vector(T)]}
    )[1](scalar(T)),
    "vjp_other_structure": lambda T, F: F.vjp(lambda x: x.exp(), vector(T))[1]((vector(T),)),
    "vjp_other_shape": lambda T, F: F.vjp(lambda x: x.exp(), vector(T))[1](other(T)),
    "vjp_number": lambda T, F: F.vjp(lambda x: x, 1.0),
    "vjp_integer_output": lambda T, F: F.vjp(lambda x: T.tensor([1]), vector(T)),
    "vjp_number_output": lambda T, F: F.vjp(lambda x: 3, vector(T)),
    "vjp_no_output": lambda T, F: F.vjp(lambda x: None, vector(T)),
    "vjp_missing_aux": lambda T, F: F.vjp(lambda x: x, vector(T), has_aux=True),
    "vjp_independent": lambda T, F: F.vjp(lambda x: scalar(T), vector(T))[1](scalar(T)),
    "jvp": lambda T, F: F.jvp(lambda x: x.exp(), (vector(T),), (vector(T),)),
    "jvp_linear": lambda T, F: F.jvp(lambda x: x * 3, (vector(T),), (vector(T),)),
    "jvp_kink": lambda T, F: F.jvp(lambda x: x.relu(), (vector(T),), (vector(T),)),
    "jvp_no_tuple": lambda T, F: F.jvp(lambda x: x.exp(), vector(T), (vector(T),)),
    "jvp_other_structure": lambda T, F: F.jvp(lambda x: x.exp(), (vector(T),), vector(T)),
    "jvp_other_length": lambda T, F: F.jvp(lambda x: x, (vector(T),), (other(T), other(T))),
    "jvp_other_shape": lambda T, F: F.jvp(lambda x: x.exp(), (vector(T),), (other(T),)),
    "jvp_nothing": lambda T, F: F.jvp(lambda: 1, (), ()),
    "jvp_number": lambda T, F: F.jvp(lambda x: x, (1.0,), (1.0,)),
    "jvp_independent": lambda T, F: F.jvp(lambda x: scalar(T), (vector(T),), (vector(T),)),
    "jvp_strict": lambda T, F: F.jvp(lambda x: scalar(T), (vector(T),), (vector(T),), strict=True),
    "jvp_integer_output": lambda T, F: F.jvp(
        lambda x: (T.tensor([1]), x * 2), (vector(T),), (vector(T),)
    ),
    "jvp_aux": lambda T, F: F.jvp(
        lambda x: (x * 2, x * 3), (vector(T),), (vector(T),), has_aux=True
    ),
    "jvp_of_dicts": lambda T, F: F.jvp(
        lambda p: {"o": p["a"] * 2}, ({"a": vector(T)},), ({"a": vector(T)},)
    ),
}


@pytest.mark.parametrize("name", PRODUCTS)
def test_products(name):
    compare(PRODUCTS, name)


def two(x: Any, y: Any) -> Any:
    return x * y.sum(), {"k": y.exp()}


JACOBIANS = {
    "two": lambda T, J: J(two, argnums=(0, 1))(vector(T), other(T)),
    "one_of_two": lambda T, J: J(two, argnums=1)(vector(T), other(T)),
    "tuple_of_one": lambda T, J: J(two, argnums=(1,))(vector(T), other(T)),
    "dict": lambda T, J: J(lambda p: p["a"].exp() * p["b"])({"a": vector(T), "b": scalar(T)}),
    "list": lambda T, J: J(lambda x: [x.exp()])(vector(T)),
    "scalar": lambda T, J: J(lambda x: x.sum())(vector(T)),
    "independent": lambda T, J: J(lambda x: scalar(T))(vector(T)),
    "matrix": lambda T, J: J(lambda x: x @ x.t())(matrix(T)),
    "aux": lambda T, J: J(lambda x: (x.exp(), x * 2), has_aux=True)(vector(T)),
    "number_output": lambda T, J: J(lambda x: 3)(vector(T)),
    "no_output": lambda T, J: J(lambda x: None)(vector(T)),
    "nothing": lambda T, J: J(lambda x: x * 2)(T.zeros(0, dtype=T.float64)),
}


@pytest.mark.parametrize("transform", ["jacrev", "jacfwd"])
@pytest.mark.parametrize("name", JACOBIANS)
def test_jacobians(name, transform):
    def program(T):
        return outcome_of(lambda: JACOBIANS[name](T, getattr(T.func, transform)))

    same(program, message="exact")


@pytest.mark.parametrize("chunk_size", [None, 1, 2, 0])
def test_jacrev_in_chunks(chunk_size):
    def program(T):
        return outcome_of(
            lambda: T.func.jacrev(lambda x: x.exp(), chunk_size=chunk_size)(vector(T))
        )

    same(program, message="exact")


def test_hessians_of_structures():
    def program(T):
        return (
            T.func.hessian(lambda x: x**3)(vector(T)),
            T.func.hessian(lambda p: (p["a"] ** 2).sum() * p["b"])(
                {"a": vector(T), "b": scalar(T)}
            ),
        )

    same(program)


# ---------------------------------------------------------------- vmap


@pytest.mark.parametrize(
    "in_dims",
    [0, 1, -1, 2, -3, "a", 1.0, (0,), (0, 1), [0], {"a": 0}, ((0,),), None, (None,)],
    ids=str,
)
def test_vmap_in_dims(in_dims):
    def program(T):
        return outcome_of(lambda: T.func.vmap(lambda x: x.sum(), in_dims=in_dims)(matrix(T)))

    same(program, message="exact")


@pytest.mark.parametrize(
    "out_dims", [0, 1, -1, 2, -3, "a", 1.0, (0,), (0, 1), [0], None, {"a": 0}], ids=str
)
def test_vmap_out_dims(out_dims):
    def program(T):
        return outcome_of(lambda: T.func.vmap(lambda x: x * 2, out_dims=out_dims)(matrix(T)))

    same(program, message="exact")


@pytest.mark.parametrize("out_dims", [0, (0, 1), (0, None), (0, (1,)), [0, 1]], ids=str)
def test_vmap_out_dims_of_a_tuple(out_dims):
    def program(T):
        f = T.func.vmap(lambda x: (x * 2, x * 3), out_dims=out_dims)
        return outcome_of(lambda: f(matrix(T)))

    same(program, message="exact")


VMAP = {
    "dict_out": lambda T, F: F.vmap(lambda x: {"a": x, "b": [x.sum()]})(matrix(T)),
    "constant_out": lambda T, F: F.vmap(lambda x: scalar(T))(matrix(T)),
    "number_out": lambda T, F: F.vmap(lambda x: 3)(matrix(T)),
    "number_out_unmapped": lambda T, F: F.vmap(lambda x: (x, 3), out_dims=(0, None))(matrix(T)),
    "integers_out": lambda T, F: F.vmap(lambda x: x.argmax())(matrix(T)),
    "list_in": lambda T, F: F.vmap(lambda x: x[0] + x[1])([matrix(T), matrix(T)]),
    "dict_in": lambda T, F: F.vmap(lambda x: x["a"] + x["b"], in_dims=({"a": 0, "b": None},))(
        {"a": matrix(T), "b": vector(T)}
    ),
    "number_in": lambda T, F: F.vmap(lambda x, y: x * y, in_dims=(0, None))(matrix(T), 2.0),
    "number_mapped": lambda T, F: F.vmap(lambda x, y: x * y)(matrix(T), 2.0),
    "keyword": lambda T, F: F.vmap(lambda x, y: x * y)(matrix(T), y=vector(T)),
    "nothing_in": lambda T, F: F.vmap(lambda: 1)(),
    "no_dimension": lambda T, F: F.vmap(lambda x: x)(scalar(T)),
    "name": lambda T, F: F.vmap(T.sin, in_dims=5)(matrix(T)),
    "sizes": lambda T, F: F.vmap(lambda x, y: x)(matrix(T), vector(T)),
    "empty": lambda T, F: F.vmap(lambda x: (x.sum(), x * 2))(T.zeros(0, 3)),
    "chunks": lambda T, F: F.vmap(lambda x: x * 2, chunk_size=3)(matrix(T)),
    "no_chunks": lambda T, F: F.vmap(lambda x: x * 2, chunk_size=0)(matrix(T)),
    "random": lambda T, F: F.vmap(lambda x: x + T.rand(3))(matrix(T)),
    "randomness": lambda T, F: F.vmap(lambda x: x, randomness="x")(matrix(T)),
    "same": lambda T, F: equal_rows(F.vmap(lambda x: T.rand(3), randomness="same")(matrix(T))),
    "different": lambda T, F: equal_rows(
        F.vmap(lambda x: T.rand(3) + 0 * x, randomness="different")(matrix(T))
    ),
    "named_results": lambda T, F: F.vmap(lambda x: x.max(0))(matrix(T)).values,
    "named_results_at_the_end": lambda T, F: F.vmap(T.sort, out_dims=1)(matrix(T)).indices,
    "named_results_by_a_tuple": lambda T, F: F.vmap(T.sort, out_dims=(0, 0))(matrix(T)),
    "slogdet": lambda T, F: F.vmap(T.linalg.slogdet)(T.eye(2).expand(3, 2, 2) * 2).logabsdet,
    "top_level": lambda T, F: T.vmap is F.vmap,
}


def equal_rows(x: Any) -> bool:
    return bool((x[0] == x[1]).all())


@pytest.mark.parametrize("name", VMAP)
def test_vmap(name):
    compare(VMAP, name)


def test_vmap_is_differentiable():
    def program(T):
        x = matrix(T).requires_grad_()
        T.func.vmap(lambda row: row.exp().sum() * row[0])(x / 9).square().sum().backward()
        return x.grad

    same(program)


# ---------------------------------------------------------------- against finite differences


def test_derivatives_agree_with_finite_differences():
    """A negative control, too: the comparison must notice a thousandth."""

    def f(x: Any) -> Any:
        return (x.sin() * x.flip(0).exp()).cumsum(0)

    x, step = vector(T), 1e-6
    columns = [(f(x + step * e) - f(x - step * e)).numpy() / (2 * step) for e in T.eye(3).double()]
    numerical = np.stack(columns, axis=1)
    for transform in (T.func.jacrev, T.func.jacfwd):
        jacobian = transform(f)(x).numpy()
        np.testing.assert_allclose(jacobian, numerical, rtol=1e-7, atol=1e-8)
        with pytest.raises(AssertionError):
            np.testing.assert_allclose(jacobian * 1.001, numerical, rtol=1e-7, atol=1e-8)


@pytest.mark.parametrize("transform", ["jacrev", "vjp"])
def test_integers_have_no_derivatives(transform):
    def program(T):
        def f(x):
            return x.topk(2)

        if transform == "vjp":
            return outcome_of(lambda: T.func.vjp(f, vector(T)))
        return outcome_of(lambda: T.func.jacrev(f)(vector(T)))

    same(program)
