"""Arithmetic of integers and bools: numbers that wrap around, powers, divisions, sums."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same

SMALL = ["uint8", "int8", "int16", "int32"]
VALUES = [0, 1, 2, 3, 7, 100, 127]

BESIDE_A_NUMBER = {
    "add": lambda T, x, n: (x + n, n + x, outcome_of(lambda: T.add(x, x, alpha=n))),
    "sub": lambda T, x, n: (x - n, n - x, outcome_of(lambda: T.sub(x, x, alpha=n))),
    "mul": lambda T, x, n: (x * n, n * x),
    "floor_divide": lambda T, x, n: outcome_of(lambda: x // n),
    "remainder": lambda T, x, n: outcome_of(lambda: x % n),
    "fmod": lambda T, x, n: outcome_of(lambda: x.fmod(n)),
    "trunc": lambda T, x, n: outcome_of(lambda: T.div(x, n, rounding_mode="trunc")),
    "pow": lambda T, x, n: outcome_of(lambda: x**n),
    "of a number": lambda T, x, n: n ** x.clamp(max=3),
    "bits": lambda T, x, n: (x & n, x | n, n ^ x),
    "compare": lambda T, x, n: (x < n, x <= n, x > n, x >= n, x == n, n != x),
    "itself": lambda T, x, n: x.add_(n).mul_(n),
    "div": lambda T, x, n: x / n,
}


@pytest.mark.parametrize("op", BESIDE_A_NUMBER)
@pytest.mark.parametrize("dtype", SMALL)
@pytest.mark.parametrize("number", [-1, 256, 1000, 70000, 1 << 40])
def test_a_number_out_of_range_wraps_around(op: str, dtype: str, number: int) -> None:
    def program(T: Any) -> Any:
        return BESIDE_A_NUMBER[op](T, T.tensor(VALUES, dtype=getattr(T, dtype)), number)

    same(program, message="exact")


@pytest.mark.parametrize("dtype", SMALL)
def test_a_number_of_more_than_64_bits_is_refused(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1, 2], dtype=getattr(T, dtype))
        return outcome_of(lambda: x + (1 << 70)), outcome_of(lambda: x < (1 << 70))

    same(program, message="exact")


@pytest.mark.parametrize("dtype", ["int8", "int16", "int32", "int64"])
@pytest.mark.parametrize("other", ["uint8", "int8", "int64"])
def test_negative_powers_of_integers(dtype: str, other: str) -> None:
    def program(T: Any) -> Any:
        base = T.tensor([[0], [1], [-1], [2], [-3]], dtype=getattr(T, dtype))
        exponents = T.tensor([-3, -2, -1, 0, 1, 2, 3]).to(getattr(T, other))
        return base**exponents, 2**exponents, base ** exponents[0]

    same(program)


def test_powers_of_bools() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([True, False])
        return x**True, x**False, x**2, outcome_of(lambda: x**x)

    same(program, message="exact")


def test_minus_one_half_as_an_exponent() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([4.0, 0.0, -0.0, float("inf"), -float("inf"), -1.0], requires_grad=True)
        y = x**-0.5
        y[0].backward()
        return y.detach(), x.grad[0], T.tensor([4, 9]) ** -0.5

    same(program)


@pytest.mark.parametrize(
    "divide",
    [
        lambda T, a, b: a // b,
        lambda T, a, b: a % b,
        lambda T, a, b: T.fmod(a, b),
        lambda T, a, b: T.div(a, b, rounding_mode="floor"),
        lambda T, a, b: T.div(a, b, rounding_mode="trunc"),
    ],
)
def test_bools_have_no_integer_division(divide: Any) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([True, False])
        return outcome_of(lambda: divide(T, x, x)), outcome_of(lambda: divide(T, x, True))

    same(program, message="exact")


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_a_remainder_of_zero_has_the_sign_of_the_dividend(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0.0, -0.0, 4.0, -4.0, 3.0, -3.0], dtype=getattr(T, dtype))
        found = [x % 2, x % -2, x % T.tensor(2.0), 0.0 % (x + 9)]
        return found, [T.signbit(r) for r in found]

    same(program)


def test_scaled_sums_of_bools() -> None:
    def program(T: Any) -> Any:
        x, y = T.tensor([True, False, False]), T.tensor([True, True, False])
        f = T.tensor([1.0, 2.0, 3.0])
        return (
            T.add(x, y, alpha=2),
            T.add(x, y, alpha=True),
            T.add(x, y, alpha=False),
            outcome_of(lambda: T.add(f, f, alpha=True)),
            outcome_of(lambda: T.sub(f, f, alpha=True)),
            outcome_of(lambda: T.add(x, y, alpha=2.5)),
            outcome_of(lambda: x - y),
            outcome_of(lambda: f - x),
        )

    same(program, message="exact")


@pytest.mark.parametrize("name", ["div", "atan2", "copysign", "xlogy"])
def test_integers_are_floats_before_they_meet(name: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0, 1, 2, 255], dtype=T.uint8)
        return getattr(T, name)(x, T.tensor(-1, dtype=T.int8))

    same(program)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64", "int32"])
def test_xlogy_beside_a_number(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0, 1, 2], dtype=getattr(T, dtype))
        return T.xlogy(x, 3), T.xlogy(2.5, x), T.special.xlog1py(x, 3.0), T.special.xlog1py(2, x)

    same(program)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_ldexp_with_exponents_beyond_the_range(dtype: str) -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0.5, 0.0, 2.0**-126], dtype=getattr(T, dtype), requires_grad=True)
        y = T.ldexp(x, T.tensor([128, 200, -20]))
        return y.detach(), T.ldexp(T.tensor([3]), T.tensor([2], dtype=T.uint8))

    same(program)


def test_float_power_in_place() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1.0, 2.0], dtype=T.float64)
        return x.float_power_(3), outcome_of(lambda: T.ones(2).float_power_(2))

    same(program, message="exact")


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "int32", "int64", "bool", "float16"])
def test_sums_in_a_dtype(dtype: str) -> None:
    def program(T: Any) -> Any:
        d = getattr(T, dtype)
        x = T.tensor([[100.0, 100.0, 100.0], [1.7, 1.7, 0.0]])
        n = T.tensor([[16] * 17], dtype=T.uint8)
        return (
            T.sum(x, dtype=d),
            x.sum(0, dtype=d),
            x.sum((0, 1), keepdim=True, dtype=d),
            T.nansum(x, 1, dtype=d),
            n.sum(dtype=d),
            T.ones(0).sum(dtype=d),
        )

    same(program)


def test_means_are_of_floating_dtypes() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([1.0, 2.0])
        return (
            outcome_of(lambda: x.mean(dtype=T.int32)),
            outcome_of(lambda: x.nanmean(dtype=T.uint8)),
            T.tensor([1, 2]).mean(dtype=T.float64),
        )

    same(program, message="exact")
