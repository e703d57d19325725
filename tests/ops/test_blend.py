"""addcmul, addcdiv, lerp and the products with a sum: in place, dtypes, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import outcome_of, same

EDITS = {
    "addcmul_": lambda T, t, a, b: t.addcmul_(a, b, value=0.5),
    "addcdiv_": lambda T, t, a, b: t.addcdiv_(a, b, value=-2),
    "lerp_": lambda T, t, a, b: t.lerp_(a, 0.1),
    "lerp_far_": lambda T, t, a, b: t.lerp_(a, 0.9),
    "lerp_tensor_": lambda T, t, a, b: t.lerp_(a, b / 10),
}


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_of_a_parameter_without_grad_mode(edit: Any) -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1.0, 2.0, 3.0], requires_grad=True)
        a, b = T.tensor([4.0, 5.0, 6.0], requires_grad=True), T.tensor([1.0, 2.0, 4.0])
        shared, before = t.detach(), t._version
        with T.no_grad():
            result = edit(T, t, a, b)
        return t, shared, result is t, t._version - before

    same(program)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_in_a_graph(edit: Any) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1.0, 2.0, 3.0], requires_grad=True)
        a, b = (T.tensor([4.0, 5.0, 8.0], requires_grad=True) for _ in range(2))
        t = x * 2
        edit(T, t, a, b)
        t.square().sum().backward()
        return t, x.grad, a.grad, b.grad

    same(program)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_edits_of_views_and_of_operands_that_share_memory(edit: Any) -> None:
    def program(T: Any) -> Any:
        base = T.arange(6.0) + 1
        edit(T, base[::2], base[1::2], T.ones(3))
        whole = T.arange(3.0) + 1
        edit(T, whole, whole, whole)
        return base, whole

    same(program)


@pytest.mark.parametrize("edit", EDITS.values(), ids=EDITS)
def test_operands_may_not_be_wider(edit: Any) -> None:
    def program(T: Any) -> Any:
        return outcome_of(lambda: edit(T, T.ones(3), T.ones(2, 3), T.ones(2, 3)))

    same(program, message="exact")


def test_dtypes() -> None:
    def program(T: Any) -> Any:
        ints, singles = T.tensor([1, 2]), T.tensor([1.0, 2.0])
        doubles = singles.double()
        return [
            T.addcmul(ints, ints, ints, value=3),
            T.addcmul(singles, doubles, ints),
            T.addcdiv(ints, singles, singles),
            outcome_of(lambda: T.lerp(singles, doubles, 0.5)),
            outcome_of(lambda: T.lerp(singles, singles, doubles)),
            outcome_of(lambda: T.lerp(ints, ints, 0.5)),
        ]

    same(program, message="exact")


def test_integers_are_not_divided() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([1, 2])
        return T.addcdiv(t, t, t)

    same(program, raises=RuntimeError, match="Integer division with addcdiv", message="type")


def test_weights_of_1_and_0_give_the_ends() -> None:
    def program(T: Any) -> Any:
        start, end = T.tensor([0.1, 1e8]), T.tensor([0.3, 1.0])
        return start.lerp(end, 1.0), start.lerp(end, 0.0), start.lerp(end, T.tensor([1.0, 0.0]))

    same(program, rtol=0, atol=0)


def test_products_with_a_sum() -> None:
    def program(T: Any) -> Any:
        a, b = T.arange(12.0).reshape(2, 2, 3), T.arange(6.0).reshape(2, 3, 1)
        nan = T.full((1,), float("nan"))
        return (
            T.baddbmm(nan, a, b, beta=0),
            T.baddbmm(T.ones(2, 1), a, b, beta=0.5, alpha=2),
            T.addbmm(T.ones(1), a, b),
            T.addmv(T.ones(2), a[0], b[0, :, 0], alpha=-1),
            T.addr(T.ones(3), T.arange(2.0), T.arange(3.0), beta=2),
            outcome_of(lambda: T.baddbmm(T.ones(2), a, T.ones(2, 3, 3))),
            outcome_of(lambda: T.baddbmm(T.ones(1), a, a)),
            outcome_of(lambda: T.addmv(T.ones(3), a[0], T.ones(3))),
        )

    same(program, message="exact")


def test_large_edits_in_place_agree_with_numpy() -> None:
    import gradlite

    x, y, z = (np.random.default_rng(s).standard_normal(10_000) for s in range(3))
    t = gradlite.tensor(x)
    t.addcmul_(gradlite.tensor(y), gradlite.tensor(z), value=0.3)
    np.testing.assert_allclose(t.numpy(), x + 0.3 * y * z, rtol=1e-12, atol=1e-14)


@pytest.mark.parametrize("size", [7, 20_000])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16", "int64"])
def test_edits_give_the_bits_of_what_they_edit_with(dtype: str, size: int) -> None:
    kind = getattr(gradlite, dtype)
    x, y, z = ((gradlite.randn(size) * 9).to(kind) for _ in range(3))
    whole = not kind.is_floating_point
    calls: list[tuple[str, tuple[Any, ...], dict[str, Any]]] = [
        ("add", (y,), {"alpha": 3 if whole else -0.3}),
        ("sub", (y,), {"alpha": 2}),
        ("sub", (2 if whole else 2.5,), {"alpha": 3}),
        ("addcmul", (y, z), {"value": 2}),
        *([] if whole else [("addcdiv", (y, z), {"value": 0.5}), ("lerp", (y, 0.3), {})]),
    ]
    for name, args, options in calls:
        expected = getattr(x, name)(*args, **options)
        edited = getattr(x.clone(), f"{name}_")(*args, **options)
        assert gradlite.equal(edited, expected), name
