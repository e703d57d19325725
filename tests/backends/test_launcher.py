"""The launcher: what it checks before a launch, what it compiles, what it counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import asserts, kernels
from gradlite.backends.kernels import CudaLauncher
from gradlite.ops.namespaces import NAMESPACES
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler


@pytest.fixture(name="K")
def launcher(monkeypatch: pytest.MonkeyPatch) -> Any:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    return CudaLauncher(stand_in.install(monkeypatch))


def arguments(K: Any) -> tuple[Any, ...]:
    x = K.xp.asarray(np.arange(6, dtype=np.float32).reshape(2, 3))
    return x, K.empty_like(x), 2, 3


def softmax(K: Any, *arguments: Any) -> None:
    K.rows("softmax_forward", np.float32, 2, 3, *arguments)


def test_a_launch_runs_the_kernel(K: Any) -> None:
    x, y, rows, columns = arguments(K)
    softmax(K, x, y, rows, columns)
    expected = np.exp(x.get()) / np.exp(x.get()).sum(1, keepdims=True)
    np.testing.assert_allclose(y.get(), expected, rtol=1e-6)
    K.launch("softmax_forward", np.dtype("float32"), (1,), (64, 1), x, y, 1, 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x, y, m, n: (x, y, m), r"4 arguments are expected \(x, y, rows, columns\), 3 were"),
        (lambda x, y, m, n: (x, y, m, 3.0), "parameter 'columns' takes a Python int, not float"),
        (lambda x, y, m, n: (x, y, np.int64(m), n), "'rows' takes a Python int, not int64"),
        (lambda x, y, m, n: (x, y, True, n), "'rows' takes a Python int, not bool"),
        (lambda x, y, m, n: (x.get(), y, m, n), "'x' takes an array of cupy, not .*numpy.ndarray"),
        (lambda x, y, m, n: (x.T, y, m, n), "'x' takes a row-major array"),
        (lambda x, y, m, n: (x, y.astype("f8"), m, n), "'y' points to float32, .* holds float64"),
        (lambda x, y, m, n: (x, 0, m, n), "'y' takes an array of cupy, not <class 'int'>"),
    ],
)
def test_what_does_not_fit_the_declaration_is_refused(K: Any, change: Any, message: str) -> None:
    with pytest.raises(TypeError, match=f"softmax_forward: (parameter )?.*{message}"):
        softmax(K, *change(*arguments(K)))


def test_blocks_are_whole_warps_within_the_bound(K: Any) -> None:
    for block in ((33,), (512,), (0,), (32, 16)):
        with pytest.raises(TypeError, match="expected a multiple of 32 up to 256"):
            K.launch("softmax_forward", np.float32, (1,), block, *arguments(K))


def test_later_launches_check_the_classes_alone(K: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "check_all", False)
    x, y, rows, columns = arguments(K)
    softmax(K, x, y, rows, columns)
    calls = []
    monkeypatch.setattr(K, "_check", lambda *a: calls.append(a))
    softmax(K, x, y, rows, columns)
    assert not calls
    monkeypatch.setattr(kernels, "check_all", True)
    softmax(K, x, y, rows, columns)
    assert len(calls) == 1


def test_a_file_is_compiled_once_for_each_dtype(K: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []
    module = K.xp.RawModule

    def compile(**options: Any) -> Any:
        made.append(options["options"])
        return module(**options)

    monkeypatch.setattr(K.xp, "RawModule", compile)
    x, y, rows, columns = arguments(K)
    softmax(K, x, y, rows, columns)
    softmax(K, x, y, rows, columns)
    K.rows("softmax_backward", x.dtype, rows, columns, x, x, y, rows, columns, 1.0)
    x, y = x.astype("f8"), y.astype("f8")
    K.rows("softmax_forward", x.dtype, rows, columns, x, y, rows, columns)
    assert made == [("-std=c++17", f"-DGRADLITE_DTYPE={d}") for d in ("f32", "f64")]


def test_a_compiler_error_names_the_file(K: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "source", lambda file: '#line 7 "softmax.cu"\nno C++ at all\n')
    with pytest.raises(RuntimeError, match=r"kernels/softmax.cu does not compile for float32:\n"):
        softmax(K, *arguments(K))
    with pytest.raises(RuntimeError, match="softmax.cu:7:"):
        softmax(K, *arguments(K))


def test_launches_are_recorded_by_name(K: Any) -> None:
    with kernels.record() as outer:
        softmax(K, *arguments(K))
        with kernels.record() as inner:
            softmax(K, *arguments(K))
    softmax(K, *arguments(K))
    assert outer == ["softmax_forward"] * 2 and inner == ["softmax_forward"]


def test_what_kernels_can_serve(K: Any) -> None:
    x, y, *_ = arguments(K)
    assert K.takes(x) and K.takes(x, y) and K.takes(x.astype("f2")) and K.takes(x.T)
    assert not K.takes(x, y.astype("f8"))
    assert not K.takes(x.astype("i8"))
    assert not K.takes(x[:0])
    assert not K.takes(x, x.get())
    assert K.dense(x) is x
    assert K.dense(x.T).tolist() == x.T.tolist() and K.dense(x.T).flags.c_contiguous
    assert K.acc(np.dtype("float16")) == np.float32 and K.acc(np.dtype("float64")) == np.float64


def test_launch_sizes(K: Any) -> None:
    assert K.elementwise_grid(1) == (1,) and K.elementwise_grid(1025) == (2,)
    assert K.elementwise_grid(1 << 40) == (1024,)  # 4 multiprocessors
    assert K.table_blocks(1025) == 2 and K.table_blocks(1 << 40) == 64
    assert K.row_geometry(1, 1) == ((1,), (32, 8))
    assert K.row_geometry(100, 256) == ((13,), (32, 8))
    assert K.row_geometry(3, 257) == ((3,), (96, 1))
    assert K.row_geometry(1 << 40, 100_000) == ((256,), (256, 1))
    assert K.packed_geometry(1, 4) == ((1,), (1, 256))
    assert K.packed_geometry(100, 144) == ((2,), (4, 64))
    assert K.packed_geometry(3, 2052) == ((3,), (64, 1))
    assert K.packed_geometry(64, 4096) == ((8,), (32, 8))  # twice as much to a thread
    assert K.packed_geometry(1 << 40, 128) == ((64,), (4, 64))
    assert K.packed_geometry(1 << 40, 16384) == ((256,), (128, 1))
    assert K.packed_geometry(1 << 40, 1 << 20) == ((256,), (256, 1))


# ------------------------------------------------------------------------ ops with kernels
def launched(function: Any, *args: Any) -> tuple[Any, list[str]]:
    with kernels.record() as names:
        result = function(*args)
    return result, names


def test_an_op_runs_its_kernels_and_keeps_its_name(K: Any) -> None:
    x = gradlite.randn(4, 5, device="cuda", requires_grad=True)
    y, names = launched(gradlite.softmax, x, -1)
    assert names == ["softmax_forward"]
    assert y.grad_fn.name() == "SoftmaxBackward0"
    assert launched(y.sum().backward)[1] == ["softmax_backward"]
    assert launched(gradlite.softmax, x, 0)[1] == ["softmax_strided_forward"]
    assert launched(gradlite.flip, x, (0,))[1] == []  # no kernel: the rule runs
    assert launched(gradlite.softmax, gradlite.randn(4, 5), 1)[1] == []


def test_under_create_graph_the_rule_runs(K: Any) -> None:
    x = gradlite.randn(4, 5, device="cuda", requires_grad=True)
    y = gradlite.softmax(x, 1)
    (grad,), names = launched(lambda: gradlite.autograd.grad((y * y).sum(), x, create_graph=True))
    assert "softmax_backward" not in names and grad.requires_grad
    # What the rule recorded reads y, so this pass goes through softmax again, on arrays now.
    names = launched(lambda: gradlite.autograd.grad(grad.sum(), x))[1]
    others = [name for name in names if name != "product_backward"]
    assert others == ["reduce_rows", "reduce_rows", "softmax_backward"]


def test_a_rule_uses_the_kernels_of_other_ops(K: Any) -> None:
    x = K.xp.asarray(np.ones((2, 3), np.float32))
    assert launched(NAMESPACES[x.__class__].softmax, x, 1)[1] == ["softmax_forward"]


def test_an_error_that_is_half_written_is_waited_for(
    cupy: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    notes = asserts.Notes(cupy)
    assert len(notes.place("gather", "index")) == 1 and len(notes.place("bag", "row", "start")) == 2
    row = notes.host[2]
    row[0] = 1
    monkeypatch.setattr(cupy.cuda.Device, "synchronize", lambda self: row.__setitem__(1, 7))
    with pytest.raises(
        RuntimeError, match="triggered\nbag: start 7 is out of bounds for dimension with size 0$"
    ):
        asserts.check()
    assert not notes.host.any()
    asserts.check()


def test_an_error_says_all_that_was_noted(cupy: Any) -> None:
    notes = asserts.Notes(cupy)
    for op in ("gather", "nll_loss"):
        notes.place(op, "index")[...] = cupy.asarray([[1, 8, 5]])
    with pytest.raises(RuntimeError, match="\ngather: index 8 is out of.*\nnll_loss: index 8 is"):
        asserts.check()
    asserts.check()


def test_there_is_room_for_more_kinds_of_numbers_than_ops_look_at(cupy: Any) -> None:
    notes = asserts.Notes(cupy)
    for kind in range(asserts.KINDS):
        notes.place(f"op {kind}", "index")
    with pytest.raises(RuntimeError, match="more than 64 kinds"):
        notes.place("another op", "index")
    assert notes.place("op 0", "index").shape == (1, 3)
