"""autograd.functional with every option and vector, in strict mode or not, as in PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def vector(T: Any) -> Any:
    return T.tensor([0.5, -1.0, 2.0], dtype=T.float64)


def other(T: Any) -> Any:
    return T.tensor([1.5, 0.25], dtype=T.float64)


def scalar(T: Any) -> Any:
    return T.tensor(0.7, dtype=T.float64)


OF_ONE = {
    "independent": lambda T, x: T.ones(2, dtype=T.float64),
    "linear": lambda T, x: x * 2,
    "square": lambda T, x: x**2,
    "sum": lambda T, x: x.sum(),
    "cubes": lambda T, x: (x**3).sum(),
    "tuple_of_one": lambda T, x: (x**2,),
    "list": lambda T, x: [x**2],
    "number": lambda T, x: 3,
    "partly_independent": lambda T, x: (x**2, T.ones(2, dtype=T.float64)),
    "squares": lambda T, x: (x * x).sum(),
}
OF_TWO = {
    "both": lambda T, x, y: (x.exp() * y.sum()).sum(),
    "first_only": lambda T, x, y: (x**3).sum(),
    "two_outputs": lambda T, x, y: (x * y.sum(), y.exp()),
    "bilinear": lambda T, x, y: x.sum() * y.sum(),
}
VECTORS = {
    "none": lambda T: None,
    "right": vector,
    "short": other,
    "scalar": scalar,
    "tuple": lambda T: (vector(T),),
    "pair": lambda T: (vector(T), vector(T)),
    "right_pair": lambda T: (vector(T), other(T)),
    "wrong_pair": lambda T: (vector(T), scalar(T)),
    "list": lambda T: [vector(T)],
}
OPTIONS = [
    {"create_graph": create_graph, "strict": strict}
    for create_graph in (False, True)
    for strict in (False, True)
]


def values(T: Any, result: Any) -> Any:
    """Without names of nodes, which depend on how sums of products are written."""
    if isinstance(result, (tuple, list)):
        return tuple(values(T, r) for r in result)
    if isinstance(result, T.Tensor):
        return result.detach(), result.requires_grad
    return result


def numbers(T: Any, result: Any) -> Any:
    if isinstance(result, (tuple, list)):
        return tuple(numbers(T, r) for r in result)
    return result.detach() if isinstance(result, T.Tensor) else result


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(k for k in o if o[k]) or "none")
@pytest.mark.parametrize("name", [*OF_ONE, *OF_TWO])
def test_matrices(name, options):
    def program(T):
        A = T.autograd.functional
        if name in OF_ONE:
            f, points = (lambda x: OF_ONE[name](T, x)), vector(T)
        else:
            f, points = (lambda x, y: OF_TWO[name](T, x, y)), (vector(T), other(T))
        return [
            values(T, outcome_of(lambda: A.jacobian(f, points, **options))),
            values(T, outcome_of(lambda: A.hessian(f, points, **options))),
        ]

    same(program, message="exact")


@pytest.mark.parametrize("options", OPTIONS, ids=lambda o: "-".join(k for k in o if o[k]) or "none")
@pytest.mark.parametrize("name", [*OF_ONE, *OF_TWO])
@pytest.mark.parametrize("product", ["vjp", "jvp", "vhp", "hvp"])
def test_products(name, product, options):
    def program(T):
        function = getattr(T.autograd.functional, product)
        if name in OF_ONE:
            f, points = (lambda x: OF_ONE[name](T, x)), vector(T)
        else:
            f, points = (lambda x, y: OF_TWO[name](T, x, y)), (vector(T), other(T))
        results = []
        for v in VECTORS.values():
            vectors = v(T)
            results.append(outcome_of(lambda v=vectors: function(f, points, v, **options)))
        return [values(T, r) for r in results]

    same(program, message="exact")


@pytest.mark.parametrize("vectorize", [False, True])
@pytest.mark.parametrize("strategy", ["reverse-mode", "forward-mode", "sideways"])
def test_strategies(vectorize, strategy):
    def program(T):
        A = T.autograd.functional

        def f(x, y):
            return OF_TWO["two_outputs"](T, x, y)

        def number(x, y):
            return OF_TWO["both"](T, x, y)

        points = (vector(T), other(T))
        options = {"vectorize": vectorize, "strategy": strategy}
        outer = {"vectorize": vectorize, "outer_jacobian_strategy": strategy}
        calls = [
            lambda: A.jacobian(f, points, **options),
            lambda: A.jacobian(f, points, strict=True, **options),
            lambda: A.jacobian(f, points, create_graph=True, **options),
            lambda: A.hessian(number, points, **outer),
        ]
        # Whether a block of zeros or of constants has a history differs with vectorize.
        return [numbers(T, outcome_of(call)) for call in calls]

    same(program, message="exact")


@pytest.mark.parametrize("inputs", ["list", "number", "tuple_of_a_number", "tuple_of_one"])
def test_inputs(inputs):
    def program(T):
        A = T.autograd.functional
        points = {
            "list": [vector(T)],
            "number": 3,
            "tuple_of_a_number": (3,),
            "tuple_of_one": (vector(T),),
        }[inputs]
        return [
            outcome_of(lambda name=name: getattr(A, name)(lambda x: (x**3).sum(), points))
            for name in ("jacobian", "hessian", "vjp")
        ]

    same(program, message="exact")


def test_in_no_grad():
    def program(T):
        A = T.autograd.functional
        with T.no_grad():
            return (
                A.vjp(lambda x: x**2, scalar(T)),
                A.jvp(lambda x: x**2, scalar(T)),
                A.hessian(lambda x: x**3, scalar(T)),
            )

    same(program)


def test_history_of_the_results():
    def program(T):
        A = T.autograd.functional
        x = vector(T).requires_grad_()
        results = [
            A.jacobian(lambda x: x**3, x, create_graph=True),
            A.vjp(lambda x: x**3, x, vector(T), create_graph=True)[1],
            A.jvp(lambda x: x**3, x, vector(T), create_graph=True)[1],
            A.hvp(lambda x: (x**4).sum(), x, vector(T), create_graph=True)[1],
            A.vhp(lambda x: (x**4).sum(), x, vector(T), create_graph=True)[1],
        ]
        sum(r.square().sum() for r in results).backward()
        return [r.detach() for r in results], x.grad

    same(program)
