"""Activation functions at the values where they bend, and at those that are no numbers."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import same

NAN, INF = float("nan"), float("inf")
EDGES = [NAN, INF, -INF, -0.0, 0.0, 3.0, -3.0, 1.0, -1.0, 0.5, -0.5, 6.0, 1e30, -1e30]
CALLS: dict[str, Any] = {
    name: {}
    for name in (
        "relu elu selu celu gelu silu mish softplus logsigmoid sigmoid tanh tanhshrink softsign "
        "leaky_relu hardtanh relu6 hardswish hardsigmoid hardshrink softshrink"
    ).split()
} | {"threshold": {"threshold": 0.5, "value": -1.0}, "gelu tanh": {"approximate": "tanh"}}
# At infinity PyTorch's softsign, a composition, has the gradient NaN, where the function has 0, and
# its gelu is NaN in one dtype and not in the other.
FINITE = ("softsign", "gelu")


# The gradient at a NaN depends, in PyTorch, on the vector width of the loop it falls into.
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("call", CALLS)
def test_edges_and_nans(call: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        name = call.split()[0]
        edges = [e for e in EDGES if call not in FINITE or abs(e) != INF]
        x = T.tensor(edges, dtype=getattr(T, dtype), requires_grad=True)
        y = getattr(T.nn.functional, name)(x, **CALLS[call])
        y.backward(T.ones_like(y) * 2)
        numbers = T.isnan(x).logical_not()
        return y, x.grad[numbers]

    same(program, rtol=1e-5 if dtype == "float32" else 1e-7, atol=1e-6)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_relu_lets_no_gradient_through_at_either_zero(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([-0.0, 0.0, 1.0, -1.0], dtype=getattr(T, dtype), requires_grad=True)
        T.relu(x).backward(T.tensor([INF, NAN, INF, NAN], dtype=x.dtype))
        return x.grad

    same(program)


IN_PLACE: dict[str, tuple[Any, ...]] = {
    "celu_": (0.7,),
    "elu_": (0.7,),
    "hardtanh_": (-0.5, 0.3),
    "leaky_relu_": (0.2,),
    "relu_": (),
    "rrelu_": (0.1, 0.3),
    "selu_": (),
    "threshold_": (0.2, 3.0),
}


@pytest.mark.parametrize("name", IN_PLACE)
def test_functions_in_place(name: str) -> None:
    def program(library: Any) -> Any:
        x = library.tensor([-1.5, -0.2, 0.1, 0.6, 2.0], requires_grad=True)
        y = x * 1
        function = getattr(library.nn.functional, name)
        z = function(y, *IN_PLACE[name])
        z.sum().backward()
        top = [n for n in IN_PLACE if hasattr(library, n)]
        return z is y, y.detach(), x.grad, top

    same(program)


@pytest.mark.parametrize("name", IN_PLACE)
def test_functions_in_place_refuse_what_other_writes_refuse(name: str) -> None:
    def program(library: Any) -> Any:
        leaf = library.ones(3, requires_grad=True)
        getattr(library.nn.functional, name)(leaf, *IN_PLACE[name])

    same(program, raises=RuntimeError, message="exact")
