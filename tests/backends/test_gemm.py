"""Products on CUDA by cuBLASLt, on a stand-in that reads its descriptors as cuBLASLt does."""

from __future__ import annotations

import inspect
import itertools
import re
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from gradlite.backends import cublaslt, kernels, precision
from gradlite.backends.gemm import CupyGemm, described, gemm
from tests import cublaslt_stand_in
from tests import cupy_stand_in as stand_in
from tests.cublaslt_stand_in import enums

SIZES = (1, 2, 5)
TOLERANCE = {"bfloat16": 2e-2, "f2": 3e-3, "f4": 3e-6, "f8": 1e-12}


class Random:
    """Arrays with normal numbers, of the library whose matrices something multiplies."""

    def __init__(self, products: Any, dtype: str = "f8") -> None:
        self.xp, self.dtype = products.xp, dtype
        self.generator = np.random.default_rng(5)

    def __call__(self, *shape: int) -> Any:
        return self.xp.asarray(self.generator.standard_normal(shape).astype(self.dtype))


# How a matrix may lie in memory: from random numbers, rows and columns, a view with that shape.
LAYOUTS: dict[str, Callable[..., Any]] = {
    "rows": lambda r, *stack, m, n: r(*stack, m, n),
    "columns": lambda r, *stack, m, n: r(*stack, n, m).swapaxes(-1, -2),
    "part of wider rows": lambda r, *stack, m, n: r(*stack, m, n + 3)[..., 1 : n + 1],
    "part of longer columns": lambda r, *stack, m, n: (
        r(*stack, n, m + 2)[..., 1 : m + 1].swapaxes(-1, -2)
    ),
    "part of a larger stack": lambda r, *stack, m, n: r(*stack, m + 2, n)[..., 2:, :],
    "every other column": lambda r, *stack, m, n: r(*stack, m, 2 * n)[..., ::2],
    "every other row": lambda r, *stack, m, n: r(*stack, 2 * m, n)[..., ::2, :],
    "backwards": lambda r, *stack, m, n: r(*stack, m, n)[..., ::-1, :],
    "one row repeated": lambda r, *stack, m, n: r.xp.broadcast_to(
        r(*stack, 1, n), (*stack, m, n)
    ),
}  # fmt: skip
READ_IN_PLACE = [name for name in LAYOUTS if name not in (
    "every other column", "backwards", "one row repeated"
)]  # fmt: skip


def check(actual: Any, expected: np.ndarray, dtype: str = "f8") -> None:
    assert actual is not NotImplemented
    assert actual.dtype == np.dtype(dtype) and actual.shape == expected.shape
    scale = max(1.0, float(np.abs(expected).max(initial=0)))
    np.testing.assert_allclose(actual.get(), expected, TOLERANCE[dtype], TOLERANCE[dtype] * scale)


def wide(array: Any) -> np.ndarray:
    return array.get().astype("f8")


# ------------------------------------------------------------------------------ matrices
@pytest.mark.parametrize("left", LAYOUTS)
def test_products_of_matrices(products: Any, left: str) -> None:
    r = Random(products)
    for right, m, k, n in itertools.product(LAYOUTS, SIZES, SIZES, SIZES):
        a, b = LAYOUTS[left](r, m=m, n=k), LAYOUTS[right](r, m=k, n=n)
        check(products.matmul(a, b, None, -0.5), wide(a) @ wide(b) * -0.5)


@pytest.mark.parametrize("left", LAYOUTS)
def test_products_of_stacks(products: Any, left: str) -> None:
    r = Random(products)
    stacks = [((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 3), (2, 3)), ((2, 3), (3,)),
              ((2, 1), (1, 3)), ((1,), (1,)), ((2, 3), ()), ((1, 3), (2, 1))]  # fmt: skip
    for right, (s, t), m in itertools.product(LAYOUTS, stacks, (1, 2)):
        k, n = 3, 3 - m
        a, b = LAYOUTS[left](r, *s, m=m, n=k), LAYOUTS[right](r, *t, m=k, n=n)
        check(products.matmul(a, b), wide(a) @ wide(b))


@pytest.mark.parametrize("dtype", ["bfloat16", "f2", "f4", "f8"])
def test_dtypes(products: Any, dtype: str) -> None:
    r = Random(products, dtype)
    for stack in ((), (2,)):
        a, b = r(*stack, 17, 33), r(*stack, 5, 33).swapaxes(-1, -2)
        check(products.matmul(a, b), wide(a) @ wide(b), dtype)


@pytest.mark.parametrize("shapes", [
    ((0, 3), (3, 2)), ((2, 3), (3, 0)), ((2, 0), (0, 3)), ((0, 0), (0, 0)),
    ((0, 2, 3), (0, 3, 4)), ((2, 2, 0), (0, 4)), ((4, 0, 3), (4, 3, 2)),
])  # fmt: skip
def test_products_of_nothing(products: Any, library: Any, shapes: Any) -> None:
    r = Random(products)
    a, b = (r(*shape) for shape in shapes)
    for _ in range(2):
        check(products.matmul(a, b), wide(a) @ wide(b))
    total = r(*np.matmul(a.get(), b.get()).shape)
    before = total.get()
    check(products.add_into(total, a, b), before)
    check(products.matmul(a, b, total), np.zeros(total.shape))
    assert "matmul" not in library.calls


@pytest.mark.parametrize("layout", READ_IN_PLACE)
def test_no_copy_of_what_can_be_read_in_place(
    products: Any, library: Any, monkeypatch: pytest.MonkeyPatch, layout: str
) -> None:
    read: list[tuple[int, int]] = []
    matmul = library.matmul
    monkeypatch.setattr(library, "matmul", lambda *x: (read.append((x[5], x[3])), matmul(*x)))
    r = Random(products)
    for stack in ((), (3,)):
        a, b = LAYOUTS[layout](r, *stack, m=4, n=3), LAYOUTS[layout](r, *stack, m=3, n=2)
        if len(stack) and layout == "every other row":
            continue  # the stack itself has no single stride: see the copies below
        check(products.matmul(a, b), wide(a) @ wide(b))
        assert read.pop() == (a.data.ptr, b.data.ptr)


def test_results_go_where_they_are_wanted(products: Any) -> None:
    r = Random(products)
    for stack, b_stack in (((), ()), ((3,), (3,)), ((3,), ()), ((), (3,)), ((2, 3), (3,))):
        whole = np.broadcast_shapes(stack, b_stack)
        a, b = r(*stack, 4, 3), r(*b_stack, 3, 2)
        expected = wide(a) @ wide(b)
        for target in (
            r(*whole, 4, 2), r(*whole, 4, 5)[..., 2:4], r(*whole, 6, 2)[..., 1:5, :],
            r(*whole, 2, 4).swapaxes(-1, -2), r(*whole, 4, 4)[..., ::2],
        ):  # fmt: skip
            assert products.matmul(a, b, target) is target
            check(target, expected)
            assert products.matmul(a, b, target, 3.0) is target
            check(target, 3 * expected)
            assert products.add_into(target, a, b) is target
            check(target, 4 * expected)
    with pytest.raises(ValueError, match=r"has shape \(4, 2\), but out has \(2, 4\)"):
        products.matmul(r(4, 3), r(3, 2), r(2, 4))
    with pytest.raises(ValueError, match="do not fit together"):
        products.matmul(r(4, 3), r(4, 2))


def test_sums_with_a_product(products: Any) -> None:
    r = Random(products)
    a, b = r(4, 3), r(5, 3).T
    product = wide(a) @ wide(b)
    for c in (r(4, 5), r(5), r(1, 5), r(4, 1), r(1), r(), r(5, 4).T, r(4, 10)[:, ::2]):
        check(products.addmm(c, a, b), wide(c) + product)
        check(products.addmm(c, a, b, 0.5, 2.0), 0.5 * wide(c) + 2 * product)
        check(products.addmm(c * np.nan, a, b, 0, -1.0), -product)
        before = wide(c)
        check(products.addmm(c, a, b, 1, 3), before + 3 * product)
        np.testing.assert_array_equal(wide(c), before)
    a, b, c = r(2, 4, 3), r(2, 3, 5), r(2, 4, 5)
    check(products.addmm(c, a, b, 2.0), 2 * wide(c) + wide(a) @ wide(b))
    check(products.addmm(c[0], a, b, 2.0), 2 * wide(c[0]) + wide(a) @ wide(b))
    check(products.addmm(c[0, 0], a, b), wide(c[0, 0]) + wide(a) @ wide(b))


# ----------------------------------------------------------------------------- epilogues
@pytest.mark.parametrize("dtype", ["bfloat16", "f2", "f4", "f8"])
@pytest.mark.parametrize("sizes", [(4, 3, 5), (1, 3, 5), (4, 1, 5), (4, 3, 1), (1, 1, 1)])
def test_biases(products: Any, sizes: Any, dtype: str) -> None:
    r = Random(products, dtype)
    m, k, n = sizes
    for bias in (r(n), r(2 * n)[::2]):
        a, b = r(m, k), r(n, k).T
        check(products.linear(a, b, bias), wide(a) @ wide(b) + wide(bias), dtype)
        a = r(2, m, k)
        check(products.linear(a, b, bias), wide(a) @ wide(b) + wide(bias), dtype)


@pytest.mark.parametrize("dtype", ["bfloat16", "f2", "f4", "f8"])
def test_sums_come_with_the_product(products: Any, dtype: str) -> None:
    r = Random(products, dtype)
    for rows, inputs, outputs in itertools.product((2, 7), SIZES, SIZES):
        grad, x = r(rows, outputs), r(rows, inputs)
        weight, bias = products.with_row_sums(grad.T, x)
        check(weight, wide(grad).T @ wide(x), dtype)
        check(bias, wide(grad).sum(0), dtype)
        weight, bias = products.with_column_sums(x.T, grad)
        check(weight, wide(x).T @ wide(grad), dtype)
        check(bias, wide(grad).sum(0), dtype)


def test_what_cublaslt_cannot_sum_is_left_to_a_kernel(products: Any) -> None:
    r = Random(products)
    x = r(6, 3)
    for grad in (r(5, 6).T, r(6, 10)[:, ::2], r(1, 5)):
        rows = x[: len(grad)]
        product, sums = products.with_row_sums(grad.T, rows)
        assert sums is None
        check(product, wide(grad).T @ wide(rows))
        if not grad.flags.c_contiguous:
            product, sums = products.with_column_sums(rows.T, grad)
            check(product, wide(rows).T @ wide(grad))
            assert sums is None or np.allclose(wide(sums), wide(grad).sum(0))


def test_an_epilogue_that_no_algorithm_has(products: Any, library: Any) -> None:
    r = Random(products)
    library.refused |= {cublaslt.BIAS, cublaslt.ROW_SUMS, cublaslt.COLUMN_SUMS}
    a, b, bias = r(4, 3), r(3, 5), r(5)
    for _ in range(2):
        check(products.linear(a, b, bias), wide(a) @ wide(b) + wide(bias))
        product, sums = products.with_row_sums(a.T, r(4, 2))
        assert product.shape == (3, 2) and sums is None
        product, sums = products.with_column_sums(a.T, r(4, 2))
        assert product.shape == (3, 2) and sums is None
    # Three refusals and two products without epilogue: the answers are kept as well.
    assert library.calls.count("matmul_algo_get_heuristic") == 5


def test_what_comes_with_a_product_is_an_epilogue(products: Any, library: Any) -> None:
    r = Random(products)
    products.linear(r(4, 3), r(3, 5), r(5))
    products.with_row_sums(r(4, 3).T, r(4, 5))
    products.with_column_sums(r(4, 3).T, r(4, 5))
    kind = library.MatmulDescAttribute.EPILOGUE
    used = [d[kind] for d in library.live.values() if not isinstance(d, str) and kind in d.types]
    assert [library.Epilogue(value).name for value in used] == ["BIAS", "BGRADB", "BGRADA"]


# --------------------------------------------------------------------------------- plans
def kinds(r: Any) -> list[Callable[[Any], Any]]:
    """A product of every kind, with arrays of its own at every call."""
    return [
        lambda p: p.matmul(r(4, 3), r(3, 5)),
        lambda p: p.matmul(r(3, 4).T, r(5, 3).T, r(4, 5)),
        lambda p: p.matmul(r(2, 4, 3), r(2, 3, 5), None, 0.5),
        lambda p: p.linear(r(4, 3), r(3, 5), r(5)),
        lambda p: p.addmm(r(4, 5), r(4, 3), r(3, 5), 0.5, 2.0),
        lambda p: p.add_into(r(4, 5), r(4, 3), r(3, 5)),
        lambda p: p.with_row_sums(r(4, 3).T, r(4, 5)),
        lambda p: p.with_column_sums(r(4, 3).T, r(4, 5)),
    ]


def test_the_second_product_of_a_kind_sets_nothing_up(products: Any, library: Any) -> None:
    for call in kinds(Random(products, "f4")):
        call(products)
        first = list(library.calls)
        assert "matmul_algo_get_heuristic" in first
        for _ in range(2):
            library.calls.clear()
            call(products)
            vector = "matmul_desc_set_attribute" in library.calls
            assert library.calls == ["matmul_desc_set_attribute"] * vector + ["matmul"]
        library.calls.clear()


def test_only_the_result_is_allocated(products: Any, cupy: Any) -> None:
    r = Random(products, "f4")
    a, b, out, bias = r(4, 3), r(3, 5), r(4, 5), r(5)

    class Counter(stand_in.runtime.MemoryHook):
        sizes: list[int] = []

        def malloc_postprocess(self, **call: Any) -> None:
            self.sizes.append(call["mem_size"])

    for call, expected in (
        (lambda: products.matmul(a, b, out), 0),
        (lambda: products.matmul(a, b), 1),
        (lambda: products.linear(a, b, bias), 1),
        (lambda: products.add_into(out, a, b), 0),
        (lambda: products.with_row_sums(out.T, a), 2),
    ):
        call()
        with Counter() as counter:
            counter.sizes.clear()
            kept = call()
        assert len(counter.sizes) == expected
        del kept


def test_plans_are_bounded_and_freed(
    products: Any, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cublaslt, "PLANS", 3)
    r = Random(products)
    for n in range(1, 9):
        products.matmul(r(2, 3), r(3, n))
        products.matmul(r(2, 3), r(3, n), None, 2.0)
        assert len(products.plans) == min(n, 3)
        assert len(library.live) == 1 + 4 * min(n, 3)  # a handle; descriptor and three layouts
    del products.plans
    assert len(library.live) == 1


def test_every_alignment_has_a_plan_of_its_own(products: Any) -> None:
    r = Random(products, "f4")
    for start in (0, 1, 2, 4, 3):
        a, b = r(40)[start : start + 12].reshape(4, 3), r(3, 5)
        check(products.matmul(a, b), wide(a) @ wide(b), "f4")
        check(products.matmul(b.T, a.T), wide(b).T @ wide(a).T, "f4")
        bias = r(40)[start : start + 5]
        check(products.linear(a, b, bias), wide(a) @ wide(b) + wide(bias), "f4")
        out = r(40)[start : start + 20].reshape(4, 5)
        check(products.matmul(a, b, out), wide(a) @ wide(b), "f4")
    assert len({key[6] for key in products.plans}) > 2


def test_each_stream_has_a_workspace_of_its_own(
    products: Any, library: Any, cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int, int]] = []
    matmul = library.matmul
    monkeypatch.setattr(library, "matmul", lambda *x: (seen.append(x[-3:]), matmul(*x)))
    r = Random(products)
    streams = [cupy.cuda.Stream.null, cupy.cuda.Stream(non_blocking=True)]
    for stream in (*streams, *streams):
        with stream:
            products.matmul(r(2, 3), r(3, 2))
    assert [s[2] for s in seen] == [s.ptr for s in (*streams, *streams)]
    assert seen[:2] == seen[2:] and seen[0][0] != seen[1][0]
    assert all(s[1] == 32 << 20 for s in seen)  # the stand-in is of Hopper's generation


def test_the_stream_of_each_thread_has_a_workspace_for_each(
    products: Any, library: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    monkeypatch.setattr(library, "matmul", lambda *x: seen.append(x[-3]))
    monkeypatch.setattr(products, "_stream", lambda: SimpleNamespace(ptr=2))
    r = Random(products)
    a, b = r(2, 3), r(3, 2)
    thread = threading.Thread(target=lambda: products.matmul(a, b))
    thread.start()
    thread.join()
    for _ in range(2):
        products.matmul(a, b)
    assert seen[0] != seen[1] == seen[2]


def test_products_are_recorded_by_name(products: Any) -> None:
    with kernels.record() as names:
        for call in kinds(Random(products)):
            call(products)
    assert names == ["gemm", "gemm", "gemm", "gemm_bias", "gemm", "gemm", "gemm_sums", "gemm_sums"]


# ----------------------------------------------------------------------------- precision
def test_tf32_is_used_where_it_is_allowed(products: Any) -> None:
    r = Random(products, "f4")
    a, b = r(20, 30), r(30, 10)

    def error(x: Any, y: Any) -> float:
        return float(np.abs(wide(products.matmul(x, y)) - wide(x) @ wide(y)).max())

    assert error(a, b) < 1e-5
    try:
        for choice in ("high", "medium"):
            precision.set_float32_matmul_precision(choice)
            assert precision.matmul.allow_tf32 and 1e-4 < error(a, b) < 1e-1
            assert error(a[:1], b) < 1e-5 and error(a, b[:, :1]) < 1e-5
            assert error(a.astype("f8"), b.astype("f8")) < 1e-12
    finally:
        precision.set_float32_matmul_precision("highest")
    assert error(a, b) < 1e-5 and not precision.matmul.allow_tf32


@pytest.fixture
def wishes(library: Any, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What the heuristics are asked for, by name."""
    seen: list[dict[str, Any]] = []
    ask = library.matmul_algo_get_heuristic

    def record(*arguments: Any) -> None:
        wish = library.live[arguments[6]]
        seen.append({attribute.name: value for attribute, value in dict(wish).items()})
        ask(*arguments)

    monkeypatch.setattr(library, "matmul_algo_get_heuristic", record)
    return seen


def test_partial_sums_are_added_in_float32(products: Any, wishes: Any) -> None:
    r = Random(products, "f2")
    products.matmul(r(4, 3), r(3, 5))
    assert wishes[-1]["REDUCTION_SCHEME_MASK"] == 2
    assert wishes[-1]["MAX_WORKSPACE_BYTES"] == 32 << 20


@pytest.mark.parametrize(
    ("shapes", "short"),
    [
        (((16, 256), (256, 512)), True),
        (((16, 1024), (1024, 64)), True),
        (((17, 300), (300, 64)), False),
        (((16, 1025), (1025, 64)), False),
        (((1024, 8), (8, 512)), False),
        (((3, 4, 8), (3, 8, 5)), True),
    ],
    ids=str,
)
def test_short_sums_are_not_cut_up(products: Any, wishes: Any, shapes: Any, short: bool) -> None:
    a, b = (Random(products, "f4")(*shape) for shape in shapes)
    products.matmul(a, b)
    assert [wish["MAX_WORKSPACE_BYTES"] for wish in wishes] == [0 if short else 32 << 20]
    products.matmul(a.astype("f8"), b.astype("f8"))
    assert wishes[-1]["MAX_WORKSPACE_BYTES"] == 32 << 20


def test_what_needs_a_workspace_gets_one(products: Any, library: Any, wishes: Any) -> None:
    library.least = 1
    r = Random(products, "f4")
    a, b = r(4, 3), r(3, 5)
    np.testing.assert_allclose(products.matmul(a, b).get(), a.get() @ b.get(), 1e-5)
    assert [wish["MAX_WORKSPACE_BYTES"] for wish in wishes] == [0, 32 << 20]


# ------------------------------------------------------------------------- without nvmath
@pytest.mark.parametrize("dtype", ["bfloat16", "f2", "f4", "f8"])
def test_cupys_products(cupy: Any, dtype: str) -> None:
    products = gemm(cupy)
    assert isinstance(products, CupyGemm)
    r = Random(products, dtype)
    for stack, b_stack in (((), ()), ((2,), (2,)), ((2,), ()), ((), (2,))):
        a, b, bias = r(*stack, 4, 3), r(*b_stack, 5, 3).swapaxes(-1, -2), r(5)
        expected = wide(a) @ wide(b)
        check(products.matmul(a, b), expected, dtype)
        check(products.linear(a, b, bias), expected + wide(bias), dtype)
        check(products.addmm(bias, a, b, 2, 0.5), 2 * wide(bias) + expected / 2, dtype)
        out = r(*expected.shape)
        assert products.matmul(a, b, out) is out and products.add_into(out, a, b) is out
        check(out, 2 * expected, dtype)
        assert products.matmul(a, b, out, 2.0) is out
        check(out, 2 * expected, dtype)
    a, b = r(3, 4).T, r(3, 5)
    for product, sums in (products.with_row_sums(a, b), products.with_column_sums(a, b)):
        assert sums is None
        check(product, wide(a) @ wide(b), dtype)
    with kernels.record() as names:
        products.matmul(a, b)
    assert names == ["matmul"]


def test_integers_are_no_business_of_either(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    a = cupy.asarray(np.arange(6).reshape(2, 3))
    for products in (gemm(cupy), cublaslt_stand_in.install(monkeypatch) and gemm(cupy)):
        assert products.matmul(a, a.T) is NotImplemented
        assert products.linear(a, a.T, a[0, :2]) is NotImplemented
        assert products.addmm(a[0, :2], a, a.T, 2, 3) is NotImplemented
        assert products.add_into(a[:, :2], a, a.T) is NotImplemented
        assert products.with_row_sums(a, a.T) == (NotImplemented, None)


def test_what_multiplies_is_told_in_a_line(cupy: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert described(gemm(cupy)) == "CuPy (nvmath-python is not installed), not capturable"
    library = cublaslt_stand_in.install(monkeypatch)
    assert described(gemm(cupy)) == "cuBLASLt 13.0.1 by nvmath-python"

    def refuse() -> None:
        raise RuntimeError("libcublasLt.so.13: cannot open shared object file")

    monkeypatch.setattr(library, "create", refuse)
    line = described(gemm(cupy))
    assert line.startswith("CuPy (cuBLASLt cannot be used: libcublasLt.so.13: cannot open")
    assert "\n" not in line


def test_the_stand_in_has_the_names_and_numbers_of_nvmath() -> None:
    real = pytest.importorskip(
        "nvmath.bindings.cublasLt", reason="nvmath-python is what is compared with"
    )
    stand = cublaslt_stand_in.Library
    enumerations = (
        "Epilogue", "MatmulDescAttribute", "MatrixLayoutAttribute", "MatmulPreferenceAttribute"
    )  # fmt: skip
    for name in enumerations:
        for member in getattr(stand, name):
            assert getattr(real, name)[member.name] == member, (name, member)
    for attributes, dtype_of in (
        (enums.DESC, real.get_matmul_desc_attribute_dtype),
        (enums.LAYOUT, real.get_matrix_layout_attribute_dtype),
        (enums.PREFERENCE, real.get_matmul_preference_attribute_dtype),
    ):
        for attribute, (dtype, _) in attributes.items():
            assert np.dtype(dtype_of(attribute)) == np.dtype(dtype), attribute
    assert real.matmul_heuristic_result_dtype == stand.matmul_heuristic_result_dtype
    for name in [n for n in vars(stand) if n.startswith(("matmul", "matrix", "create", "get_v"))]:
        if callable(getattr(stand, name)):
            expected = re.findall(r"(\w+)[,)]", getattr(real, name).__doc__.split(" ->")[0])
            assert len(inspect.signature(getattr(stand, name)).parameters) - 1 == len(expected), (
                name
            )
