"""The products of `test_gemm` by cuBLASLt itself, and in a stream capture."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from gradlite.backends import cuda
from gradlite.backends.cublaslt import CublasLt
from gradlite.backends.gemm import gemm
from tests.backends.test_gemm import (  # noqa: F401  the same tests, on what `products` is here
    Random,
    check,
    test_biases,
    test_dtypes,
    test_every_alignment_has_a_plan_of_its_own,
    test_products_of_matrices,
    test_products_of_stacks,
    test_results_go_where_they_are_wanted,
    test_sums_come_with_the_product,
    test_sums_with_a_product,
    test_what_cublaslt_cannot_sum_is_left_to_a_kernel,
    wide,
)
from tests.backends.test_gemm_mutants import battery

pytestmark = pytest.mark.cuda


@pytest.fixture
def products() -> Any:
    pytest.importorskip("nvmath", reason="nvmath-python is what is tested")
    found = gemm(cuda.module())
    assert isinstance(found, CublasLt), found.reason
    return found


def test_the_battery_passes(products: Any) -> None:
    battery(products)


def test_products_stand_in_a_stream_capture(products: Any) -> None:
    r = Random(products, "f4")
    a, b, bias, out = r(32, 16), r(16, 8), r(8), r(32, 8)

    def run() -> tuple[Any, Any, Any]:
        products.matmul(a, b, out)
        linear = products.linear(a, b, bias)
        return (linear, *products.with_row_sums(out.T, a))

    stream = products.xp.cuda.Stream(non_blocking=True)
    products.xp.cuda.Device().synchronize()  # the other stream does not wait for what made them
    with stream:
        run()
        stream.begin_capture()
        linear, weight, sums = run()
        graph = stream.end_capture()
        a[...] = r(32, 16)
        graph.launch()
    stream.synchronize()
    check(out, wide(a) @ wide(b), "f4")
    check(linear, wide(a) @ wide(b) + wide(bias), "f4")
    check(weight, wide(out).T @ wide(a), "f4")
    np.testing.assert_allclose(wide(sums), wide(out).sum(0), 1e-4, 1e-4)
