"""Wrong calls of cuBLASLt, planted in its bindings: the products of `battery` catch each."""

from __future__ import annotations

from typing import Any

import pytest

from gradlite.backends import cublaslt
from tests import cublaslt_stand_in
from tests.backends.test_gemm import Random, check, wide


def wrong_transposes(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put, names = library.matmul_desc_set_attribute, library.MatmulDescAttribute
    swapped = {names.TRANSA: names.TRANSB, names.TRANSB: names.TRANSA}
    monkeypatch.setattr(
        library,
        "matmul_desc_set_attribute",
        lambda desc, attribute, *value: put(desc, swapped.get(attribute, attribute), *value),
    )


def no_transposes(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put, names = library.matmul_desc_set_attribute, library.MatmulDescAttribute
    monkeypatch.setattr(
        library,
        "matmul_desc_set_attribute",
        lambda desc, attribute, *value: (
            None if attribute in (names.TRANSA, names.TRANSB) else put(desc, attribute, *value)
        ),
    )


def wrong_leading_dimension(by: int) -> Any:
    def mutate(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        create = library.matrix_layout_create
        monkeypatch.setattr(
            library,
            "matrix_layout_create",
            lambda t, rows, cols, ld: create(t, rows, cols, ld + by),
        )

    return mutate


def dense_leading_dimension(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    create = library.matrix_layout_create
    monkeypatch.setattr(
        library, "matrix_layout_create", lambda t, rows, cols, ld: create(t, rows, cols, rows)
    )


def wrong_batch_stride(by: int) -> Any:
    def mutate(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
        put, names = library.matrix_layout_set_attribute, library.MatrixLayoutAttribute

        def change(layout: int, attribute: int, *value: Any) -> None:
            put(layout, attribute, *value)
            if attribute == names.STRIDED_BATCH_OFFSET:
                library.live[layout][names.STRIDED_BATCH_OFFSET] += by

        monkeypatch.setattr(library, "matrix_layout_set_attribute", change)

    return mutate


def no_batch_stride(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put, names = library.matrix_layout_set_attribute, library.MatrixLayoutAttribute
    monkeypatch.setattr(
        library,
        "matrix_layout_set_attribute",
        lambda layout, attribute, *value: (
            None if attribute == names.STRIDED_BATCH_OFFSET else put(layout, attribute, *value)
        ),
    )


def sums_of_the_other_operand(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cublaslt, "ROW_SUMS", cublaslt.COLUMN_SUMS)


def swapped_epilogues(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    put, names = library.matmul_desc_set_attribute, library.MatmulDescAttribute

    def change(desc: int, attribute: int, *value: Any) -> None:
        put(desc, attribute, *value)
        if attribute == names.EPILOGUE:
            was = library.live[desc][attribute]
            library.live[desc][attribute] = {256: 512, 512: 256}.get(was, was)

    monkeypatch.setattr(library, "matmul_desc_set_attribute", change)


def swapped_operands(library: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    matmul = library.matmul

    def change(*x: Any) -> None:
        matmul(*x[:3], x[5], x[4], x[3], *x[6:])

    monkeypatch.setattr(library, "matmul", change)


MUTANTS = {
    "swapped transposes": wrong_transposes,
    "no transposes": no_transposes,
    "leading dimension one too large": wrong_leading_dimension(1),
    "leading dimension one too small": wrong_leading_dimension(-1),
    "leading dimension of a dense matrix": dense_leading_dimension,
    "batch stride one too large": wrong_batch_stride(1),
    "batch stride one too small": wrong_batch_stride(-1),
    "no batch stride": no_batch_stride,
    "the sums of the other operand": sums_of_the_other_operand,
    "BGRADA for BGRADB": swapped_epilogues,
    "swapped operands": swapped_operands,
}


def battery(products: Any) -> None:
    """Products that a wrong call of cuBLASLt gets wrong."""
    r = Random(products)
    a, b, square = r(4, 6)[:, 1:4], r(5, 3).T, r(3, 3)
    check(products.matmul(a, b), wide(a) @ wide(b))
    check(products.matmul(square, r(3, 3).T[:] * 0 + square.T), wide(square) @ wide(square).T)
    check(products.matmul(square.T, square), wide(square).T @ wide(square))
    a, b = r(4, 3, 2)[:, :2], r(4, 2, 3)
    check(products.matmul(a, b), wide(a) @ wide(b))
    grad, x = r(4, 3), r(4, 3)
    product, sums = products.with_row_sums(grad.T, x)
    check(product, wide(grad).T @ wide(x))
    assert sums is not None
    check(sums, wide(grad).sum(0))
    product, sums = products.with_column_sums(x.T, grad)
    assert sums is not None
    check(sums, wide(grad).sum(0))


def test_the_battery_passes(products: Any) -> None:
    battery(products)


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_caught(
    products: Any, library: Any, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    MUTANTS[name](library, monkeypatch)
    with pytest.raises((AssertionError, RuntimeError, cublaslt_stand_in.cuBLASLtError, ValueError)):
        battery(products)
