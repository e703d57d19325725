"""einsum against PyTorch: random equations, the forms of a call, messages."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from tests.oracle import outcome_of, same

SIZES = dict(zip("abcdef", (2, 3, 1, 4, 2, 3)))


def random_equation(seed: int) -> tuple[str, list[tuple[int, ...]]]:
    """Up to four operands with some of six letters each, and an output of some of those."""
    generator = np.random.default_rng(seed)
    terms = []
    for _ in range(generator.integers(1, 5)):
        count = generator.integers(0, 4)
        letters = list(generator.choice(list(SIZES), count, replace=False))
        if letters and generator.random() < 0.2:
            letters.append(letters[0])  # a diagonal
        terms.append("".join(letters))
    seen = sorted(set("".join(terms)))
    output = "".join(generator.permutation([s for s in seen if generator.random() < 0.5]))
    equation = ",".join(terms) + ("->" + output if generator.random() < 0.8 else "")
    return equation, [tuple(SIZES[s] for s in term) for term in terms]


@pytest.mark.parametrize("seed", range(60))
def test_random_equations(seed: int) -> None:
    equation, shapes = random_equation(seed)
    generator = np.random.default_rng(seed)
    arrays = [generator.standard_normal(s) for s in shapes]

    def program(T: Any) -> Any:
        operands = [T.tensor(a, requires_grad=True) for a in arrays]
        result = T.einsum(equation, *operands)
        result.sin().sum().backward()
        return result.detach(), [o.grad for o in operands]

    same(program, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("...ij,...jk->...ik", [(2, 3, 4), (4, 5)]),
        ("...ij,...jk", [(2, 1, 3, 4), (5, 4, 2)]),
        ("i...->...", [(2, 3, 4)]),
        ("...,...->...", [(2, 3), (3,)]),
        ("...i,...i->...", [(2, 3), (2, 3)]),
        ("bqhd,bkhd->bhqk", [(2, 3, 2, 4), (2, 5, 2, 4)]),
        ("ij,j->i", [(2, 3), (1,)]),
        ("ij,kj->ik", [(2, 1), (4, 3)]),
        ("ij, jk -> ik", [(2, 3), (3, 4)]),
        ("aBc,cB->aB", [(2, 3, 4), (4, 3)]),
        ("ij->", [(2, 3)]),
        ("i,j,k->kji", [(2,), (3,), (4,)]),
        ("ij,jk,kl,lm->im", [(2, 3), (3, 4), (4, 2), (2, 3)]),
    ],
)
def test_equations(equation: str, shapes: list[tuple[int, ...]]) -> None:
    generator = np.random.default_rng(0)
    arrays = [generator.standard_normal(s) for s in shapes]

    def program(T: Any) -> Any:
        operands = [T.tensor(a, requires_grad=True) for a in arrays]
        result = T.einsum(equation, *operands)
        result.sin().sum().backward()
        return result.detach(), [o.grad for o in operands]

    same(program, rtol=1e-9, atol=1e-9)


def test_the_forms_of_a_call() -> None:
    def program(T: Any) -> Any:
        a, b = T.arange(6.0).reshape(2, 3), T.arange(12.0).reshape(3, 4)
        return (
            T.einsum("ij,jk->ik", [a, b]),
            T.einsum("ij,jk->ik", (a, b)),
            T.einsum(a, [0, 1], b, [1, 2], [0, 2]),
            T.einsum(a, [0, 1], b, [1, 2]),
            T.einsum(a, [..., 1], [1, ...]),
        )

    same(program)


@pytest.mark.parametrize(
    ("equation", "shapes"),
    [
        ("ij,kj->ik", [(2, 3), (3, 4)]),
        ("ij,j->ik", [(2, 3), (3,)]),
        ("ij->iij", [(2, 3)]),
        ("ij", [(3,)]),
        ("ij,jk->ik", [(2, 3)]),
        ("ij->ij", [(2, 3), (2, 3)]),
        ("i1->i", [(2, 3)]),
        ("ij->i->", [(2, 3)]),
        ("i.->i", [(2, 3)]),
        ("ij...->i", [(2,)]),
    ],
)
def test_messages(equation: str, shapes: list[tuple[int, ...]]) -> None:
    def program(T: Any) -> Any:
        return outcome_of(lambda: T.einsum(equation, *[T.ones(s) for s in shapes]))

    same(program, message="exact")


def test_dtypes_are_not_mixed() -> None:
    same(
        lambda T: T.einsum("i,i", T.ones(2), T.ones(2, dtype=T.float64)),
        raises=RuntimeError,
        message="type",
    )


def test_a_result_never_shares_its_node_with_an_operand() -> None:
    import gradlite

    x = gradlite.ones(2, 3)
    assert gradlite.einsum("ij->ij", x) is not x


def test_second_derivatives() -> None:
    import gradlite

    a, b = (gradlite.rand(2, 3, 3, dtype=gradlite.float64, requires_grad=True) for _ in range(2))

    def function(x: Any, y: Any) -> Any:
        return gradlite.einsum("bij,bkj->bik", x, y.sin())

    assert gradlite.autograd.gradgradcheck(function, (a, b))
