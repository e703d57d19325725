"""Arguments that ops refuse, or understand, as PyTorch does: dimensions, dtypes, shapes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

OVER_DIMENSIONS = {
    "sum": lambda T, x, d: x.sum(d),
    "mean": lambda T, x, d: x.mean(d),
    "amax": lambda T, x, d: x.amax(d),
    "all": lambda T, x, d: x.all(d),
    "argmax": lambda T, x, d: x.argmax(d),
    "max": lambda T, x, d: x.max(d),
    "cumsum": lambda T, x, d: x.cumsum(d),
    "prod": lambda T, x, d: x.prod(d),
    "softmax": lambda T, x, d: x.softmax(d),
    "unsqueeze": lambda T, x, d: x.unsqueeze(d),
    "transpose": lambda T, x, d: x.transpose(0, d),
    "cat": lambda T, x, d: T.cat([x, x], d),
    "sort": lambda T, x, d: T.sort(x, dim=d),
    "norm": lambda T, x, d: T.linalg.vector_norm(x, dim=d),
}


@pytest.mark.parametrize("dim", [True, 1.0, "a"])
@pytest.mark.parametrize("op", OVER_DIMENSIONS)
def test_what_is_no_dimension(op: str, dim: Any) -> None:
    def program(T: Any) -> Any:
        return OVER_DIMENSIONS[op](T, T.ones(2, 3), dim)

    same(program, raises=TypeError, message="type")


@pytest.mark.parametrize("op", OVER_DIMENSIONS)
def test_what_counts_as_a_dimension(op: str) -> None:
    def program(T: Any) -> Any:
        function, x = OVER_DIMENSIONS[op], T.arange(6.0).reshape(2, 3)
        return function(T, x, np.int64(1)), function(T, x, T.tensor(-1))

    same(program)


def test_sets_and_ranges_are_no_dimensions() -> None:
    def program(T: Any) -> Any:
        x = T.ones(2, 2)
        return (
            outcome_of(lambda: x.sum(range(2))),
            outcome_of(lambda: x.sum({0, 1})),
            outcome_of(lambda: x.sum((0.0,))),
            x.sum([np.int64(0), T.tensor(1)]),
            outcome_of(lambda: x.max(keepdim=True)),
            outcome_of(lambda: T.min(x, keepdim=True)),
        )

    same(program, message="type")


def test_the_kth_value_and_the_largest_of_what_has_none() -> None:
    def program(T: Any) -> Any:
        bools = T.tensor([True, False])
        return (
            outcome_of(lambda: T.kthvalue(T.ones(2, 0), 1)),
            outcome_of(lambda: T.kthvalue(T.ones(0, 2), 1, dim=0)),
            outcome_of(lambda: T.kthvalue(bools, 1)),
            outcome_of(lambda: T.topk(bools, 1)),
            outcome_of(lambda: T.trace(T.ones(2, 2, dtype=T.bool))),
        )

    same(program, message="exact")


@pytest.mark.parametrize("function", ["unique", "unique_consecutive"])
def test_distinct_slices_of_what_has_none(function: str) -> None:
    def program(T: Any) -> Any:
        return (
            outcome_of(lambda: getattr(T, function)(T.tensor(1.0), dim=0)),
            outcome_of(lambda: getattr(T, function)(T.ones(0, 3), dim=1)),
            getattr(T, function)(T.ones(0, 3), dim=0),
        )

    same(program, message="type")


def test_norms_refuse() -> None:
    def program(T: Any) -> Any:
        x, n, L = T.ones(2, 2), T.ones(2, 2, dtype=T.int32), T.linalg
        calls = [
            lambda: L.vector_norm(x, dtype=T.int32),
            lambda: L.vector_norm(n, dtype=T.float64),
            lambda: T.norm(n, dtype=T.float32),
            lambda: L.norm(x, 1, dtype=T.float16),
            lambda: L.vector_norm(x, dtype=T.float16),
            lambda: L.norm(x, dim=()),
            lambda: L.norm(x, dim=(0, 1, 0)),
            lambda: L.norm(x[0], "fro"),
            lambda: L.norm(x, "fro", dim=0),
            lambda: L.matrix_norm(x, dim=(0,)),
            lambda: L.vector_norm(x, "fro"),
        ]
        return [outcome_of(call) for call in calls]

    same(program, message="exact")


@pytest.mark.parametrize("order", [1, float("inf")])
def test_norms_of_matrices_without_elements(order: float) -> None:
    def program(T: Any) -> Any:
        shapes = [(0, 3), (3, 0), (2, 0, 3)]
        norm = T.linalg.matrix_norm
        return [norm(T.ones(*s), order) for s in shapes], norm(T.ones(3, 0), order, keepdim=True)

    same(program)


def test_sums_with_products() -> None:
    def program(T: Any) -> Any:
        nan = T.full((2, 2), float("nan"), requires_grad=True)
        v, n, b = T.tensor([1.0, 2.0]), T.tensor([1, 2]), T.tensor([True, False])
        square, batch = T.ones(2, 2, dtype=T.int64), T.ones(3, 2, 2)
        kept = T.addr(nan, v, v, beta=0)
        kept.sum().backward()
        return (
            kept.detach(),
            nan.grad,
            T.addbmm(nan.detach(), batch, batch, beta=0, alpha=2),
            T.addr(T.ones(2, 2, dtype=T.bool), b, b, beta=2),
            T.addr(square, n, n, beta=2, alpha=3),
            outcome_of(lambda: T.addr(square, n, n, beta=1.5)),
            outcome_of(lambda: T.addr(square, n, n, alpha=1.5)),
            outcome_of(lambda: T.addr(T.ones(2, 2), T.ones(2, 2), v)),
            outcome_of(lambda: T.addr(T.ones(2, 3), v, v)),
            outcome_of(lambda: T.dot(v, v.double())),
            outcome_of(lambda: T.ones(2, 2) @ square),
        )

    same(program, message="exact")


def test_chains_of_products_refuse() -> None:
    def program(T: Any) -> Any:
        product, x = T.linalg.multi_dot, T.ones(2, 2)
        return (
            outcome_of(lambda: product([T.tensor(1.0), T.ones(2)])),
            outcome_of(lambda: product([x, T.ones(2, 2, 2), T.ones(2)])),
            outcome_of(lambda: product([x, T.ones(3, 2)])),
            outcome_of(lambda: product([T.ones(2), T.ones(2, dtype=T.float64)])),
            product([T.ones(2), T.ones(2, 3), T.ones(3)]),
        )

    same(program)


def test_powers_of_matrices_of_integers() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([[1, 2], [0, 1]])
        return (
            [T.linalg.matrix_power(x, n) for n in (0, 1, 5)],
            outcome_of(lambda: T.matrix_power(x, -1)),
            outcome_of(lambda: T.matrix_power(T.ones(2, 3, dtype=T.int64), 2)),
        )

    same(program, message="type")


def test_an_equation_without_operands() -> None:
    def program(T: Any) -> Any:
        return (
            outcome_of(lambda: T.einsum("i")),
            outcome_of(lambda: T.einsum(1, T.ones(2))),
            T.einsum(T.ones(2), [0], T.ones(2), [0], []),
        )

    same(program, message="exact")


def test_shrinking_refuses() -> None:
    def program(T: Any) -> Any:
        x, F = T.ones(2), T.nn.functional
        return (
            outcome_of(lambda: F.hardshrink(T.tensor([1, 2]))),
            outcome_of(lambda: F.softshrink(x, -1)),
            outcome_of(lambda: F.softshrink(x, float("inf"))),
        )

    same(program, message="exact")


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_limits_of_dtypes(dtype: str) -> None:
    def program(T: Any) -> Any:
        return (
            T.finfo(getattr(T, dtype)).resolution,
            outcome_of(lambda: T.iinfo(getattr(T, dtype))),
            outcome_of(lambda: T.finfo(T.int8)),
            outcome_of(lambda: T.iinfo(T.bool)),
        )

    same(program, message="exact")


def test_numbers_that_no_distribution_has() -> None:
    def program(T: Any) -> Any:
        def x() -> Any:
            return T.ones(2)

        n, b = T.ones(2, dtype=T.int64), T.ones(2, dtype=T.bool)
        calls = [
            lambda: x().exponential_(0),
            lambda: n.exponential_(),
            lambda: x().cauchy_(0, 0),
            lambda: x().log_normal_(0, -1.5),
            lambda: n.log_normal_(),
            lambda: x().geometric_(0),
            lambda: x().geometric_(1),
            lambda: b.geometric_(0.5),
            lambda: x().normal_(0, -1),
            lambda: n.normal_(),
            lambda: x().uniform_(1, 0),
            lambda: n.uniform_(),
            lambda: x().requires_grad_().cauchy_(),
        ]
        return [outcome_of(call) for call in calls], n.geometric_(0.5).dtype == T.int64

    same(program, message="exact")


def test_no_bits_of_floats() -> None:
    def program(T: Any) -> Any:
        return outcome_of(lambda: ~T.ones(2)), outcome_of(lambda: T.bitwise_not(T.ones(2).half()))

    same(program, message="exact")


def test_powers_of_each_element() -> None:
    def program(T: Any) -> Any:
        vander = T.linalg.vander
        return (
            vander(T.tensor([1.0, 2.0, 3.0])),
            vander(T.tensor([[1, 2], [3, 4]]), N=3),
            outcome_of(lambda: vander(T.tensor(1.0))),
            outcome_of(lambda: vander(T.ones(2), N=1)),
        )

    same(program, message="exact")


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float32"])
def test_the_bound_of_a_shrinking_is_rounded(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1.0, 0.3008, 0.6016, 0.6001], dtype=getattr(T, dtype))
        return T.nn.functional.hardshrink(x, 0.6), T.nn.functional.hardshrink(x, 0.3)

    same(program)


INTEGERS = [-1, 300, -300, 1 << 40, 1.7, -1.7, float("inf"), float("nan"), 1e30, True]
FILLS = {
    "full": lambda T, x, n: T.full((2,), n, dtype=x.dtype),
    "new_full": lambda T, x, n: x.new_full((2,), n),
    "full_like": lambda T, x, n: T.full_like(x, n),
    "fill_": lambda T, x, n: x.fill_(n),
    "tensor": lambda T, x, n: T.tensor(n, dtype=x.dtype),
    "tensor of a list": lambda T, x, n: T.tensor([n], dtype=x.dtype),
    "assignment": lambda T, x, n: (x.__setitem__(0, n), x),
    "masked_fill": lambda T, x, n: x.masked_fill(x > 1, n),
    "where": lambda T, x, n: (T.where(x > 1, x, n), T.where(x > 1, n, x)),
    "clamp": lambda T, x, n: x.clamp(min=n),
    "clamp above": lambda T, x, n: x.clamp(max=n),
    "index_fill": lambda T, x, n: x.index_fill(0, T.tensor([0]), n),
    "scatter": lambda T, x, n: x.scatter(0, T.tensor([0]), n),
    "pad": lambda T, x, n: T.nn.functional.pad(x, (1, 0), value=n),
    "threshold": lambda T, x, n: T.nn.functional.threshold(x, 1, n),
}


@pytest.mark.parametrize("number", INTEGERS)
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", ["uint8", "int8", "int32"])
def test_numbers_that_integers_cannot_hold(fill: str, number: Any, dtype: str) -> None:
    def program(T: Any) -> Any:
        return outcome_of(lambda: FILLS[fill](T, T.tensor([1, 2], dtype=getattr(T, dtype)), number))

    same(program, message="exact")


@pytest.mark.parametrize("number", [1e5, 1e39, -1e39, 3, float("inf")])
@pytest.mark.parametrize("fill", FILLS)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "bool"])
def test_numbers_that_floats_cannot_hold(fill: str, number: Any, dtype: str) -> None:
    def program(T: Any) -> Any:
        return outcome_of(lambda: FILLS[fill](T, T.tensor([1, 2], dtype=getattr(T, dtype)), number))

    same(program, message="exact")


@pytest.mark.parametrize(
    "name",
    "gelu silu mish softplus logsigmoid elu selu celu leaky_relu hardsigmoid hardswish "
    "hardshrink softshrink softsign tanhshrink hardtanh".split(),
)
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float32"])
def test_activations_of_integers(name: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0, 1, 2], dtype=getattr(T, dtype))
        return outcome_of(lambda: getattr(T.nn.functional, name)(x))

    same(program, message="exact")


@pytest.mark.parametrize("name", ["abs", "floor", "ceil", "trunc", "round", "frac"])
def test_no_rounding_of_bools(name: str) -> None:
    def program(T: Any) -> Any:
        function, b, n = getattr(T, name), T.tensor([True, False]), T.tensor([1, -2])
        return outcome_of(lambda: function(b)), outcome_of(lambda: function(n))

    same(program, message="exact")


def test_an_array_like_tensor_keeps_its_place_in_the_graph_or_leaves_it() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1.0, 2.0], requires_grad=True) + 1
        cut = T.asarray(x, requires_grad=False)
        return (
            T.asarray(x, copy=True, requires_grad=True),
            T.asarray(x, requires_grad=True),
            cut,
            cut.data_ptr() == x.data_ptr(),
            T.asarray([1.0, 2.0], requires_grad=True),
        )

    same(program)
