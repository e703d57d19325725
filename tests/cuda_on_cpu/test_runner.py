"""The runner is tested with kernels that do one thing wrong, and with their right twins.

Every wrong kernel has to be caught under every schedule, every right one has to pass and to give
the right result under every schedule.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.cuda_on_cpu import CpuModule, KernelError, compiler

pytestmark = pytest.mark.skipif(compiler() is None, reason="needs Linux and g++")
SEEDS = range(5)

KERNELS = Path(__file__).with_name("faults.cu").read_text(encoding="utf-8")


@cache
def module(check: bool = True) -> CpuModule:
    return CpuModule(KERNELS, check=check)


MISSING_BARRIER = "race: (read|write) after a (read|write)|shared memory that nobody has written"


def launch(name: str, block: Any, *args: Any, grid: Any = (1,), check: bool = True, **how: Any):
    block = block if isinstance(block, tuple) else (block,)
    module(check).get_function(name)(grid, block, args, **how)


def caught(message: str, name: str, block: int, *args: Any, **how: Any) -> None:
    for seed in SEEDS:
        copies = [a.copy() if isinstance(a, np.ndarray) and a.base is None else a for a in args]
        for copy, arg in zip(copies, args):
            if isinstance(arg, np.ndarray):
                copy.flags.writeable = arg.flags.writeable
        with pytest.raises(KernelError, match=message):
            launch(name, block, *copies, seed=seed, **how)


def read_only(array: np.ndarray) -> np.ndarray:
    array.flags.writeable = False
    return array


def floats(n: int) -> np.ndarray:
    return read_only(np.arange(n, dtype=np.float32))


def nans(n: int) -> np.ndarray:
    return np.full(n, np.nan, np.float32)


# ---- what has to pass ------------------------------------------------------------------------


@pytest.mark.parametrize("check", [True, False])
@pytest.mark.parametrize("seed", SEEDS)
def test_right_kernels_pass(seed: int, check: bool) -> None:
    out = nans(5 * 3 * 64)
    how: Any = {"seed": seed, "check": check}
    launch("block_sum", 64, floats(5 * 3 * 64), out, 5, grid=(3,), **how)
    expected = floats(5 * 3 * 64).reshape(15, 64).sum(1, keepdims=True)
    np.testing.assert_array_equal(out.reshape(15, 64), np.broadcast_to(expected, (15, 64)))

    launch("reverse", 32, floats(32), out := nans(32), **how)
    np.testing.assert_array_equal(out, floats(32)[::-1])

    launch("halves", 32, floats(32), out := nans(32), **how)
    np.testing.assert_array_equal(out, np.repeat([8 * 120, 120 + 16 * 16], 16))

    x = read_only(np.random.default_rng(0).integers(0, 7, 256).astype(np.int32))
    launch("count", 64, x, counts := np.zeros(7, np.int32), grid=(4,), **how)
    np.testing.assert_array_equal(counts, np.bincount(x))
    launch("count_over_blocks", 64, x, counts := np.zeros(7, np.int32), grid=(4,), **how)
    assert counts[0] == 4

    launch("dynamic_shared", 96, floats(96), out := nans(96), shared_mem=96 * 4, **how)
    np.testing.assert_array_equal(out, floats(96)[::-1])

    x = np.zeros(64, np.int32)
    x[8:16] = 1
    launch("votes", 64, x, votes := np.zeros(64, np.int32), **how)
    np.testing.assert_array_equal(votes, [4096 + 1 + 4 + 16 * 8] * 32 + [4 + 16 * 8] * 32)

    x = read_only(np.arange(32.0))
    launch("shuffles", 32, x, out := np.full(128, np.nan), **how)
    lane = np.arange(32)
    for got, source in zip(
        out.reshape(4, 32),
        (
            np.where(lane < 3, lane, lane - 3),
            np.where(lane % 16 + 5 < 16, lane + 5, lane),
            lane // 8 * 8 + 1,
            lane ^ 24,
        ),
    ):
        np.testing.assert_array_equal(got, source)


def test_every_thread_of_every_block_runs_once() -> None:
    out = np.full(2 * 3 * 4 * 5 * 6 * 2, -1, np.int32)
    launch("place", (5, 6, 2), out, grid=(2, 3, 4))
    block, thread = np.divmod(np.arange(out.size), 60)
    np.testing.assert_array_equal(out, block * 1000 + thread)


def test_schedules_differ_and_repeat() -> None:
    def order(seed: int) -> list[int]:
        module = CpuModule(
            'extern "C" __global__ void ticket(int* next, int* out)'
            "{ out[atomicAdd(next, 1)] = blockIdx.x * blockDim.x + threadIdx.x; }",
            check=False,
        )
        out = np.full(4 * 64, -1, np.int32)
        module.get_function("ticket")((4,), (64,), (np.zeros(1, np.int32), out), seed=seed)
        assert sorted(out) == list(range(4 * 64))
        return out.tolist()

    assert order(0) == list(range(4 * 64))
    orders = [order(seed) for seed in range(6)]
    assert orders == [order(seed) for seed in range(6)]
    assert len({tuple(o) for o in orders}) == 6


def test_integer_intrinsics() -> None:
    x = np.array([0xFEDCBA9876543210, 0x0123456789ABCDEF], np.uint64)
    out, d = np.zeros(2, np.uint64), np.zeros(2)
    launch("words", 1, out, d, x, 2**40)
    assert int(out[0]) == int(x[0]) * int(x[1]) >> 64
    assert int(out[1]) == 0x76543210 * 0x89ABCDEF >> 32
    assert d.tolist() == [5.5, 2.0**40]


def test_pointers_in_tables_reach_the_regions_alone() -> None:
    job = np.dtype([("x", np.uint64), ("out", np.uint64), ("n", np.int64)])
    arrays = [(floats(n), nans(n)) for n in (5, 200)]
    jobs = np.array([(x.ctypes.data, o.ctypes.data, len(x)) for x, o in arrays], job)
    reached = [a for pair in arrays for a in pair]
    launch("many", 64, jobs, grid=(2,), regions=reached)
    for x, out in arrays:
        np.testing.assert_array_equal(out, 2 * x)
    with pytest.raises(KernelError, match="outside every array"):
        launch("many", 64, jobs, grid=(2,), regions=reached[:3])
    jobs["n"][0] = 6
    with pytest.raises(KernelError, match="past the end|outside every array"):
        launch("many", 64, jobs, grid=(2,), regions=reached)


def test_subnormal_numbers_are_zero_as_on_the_gpu_under_ftz() -> None:
    x = read_only(np.array([1e-40, 1e-30], np.float32))
    launch("subnormal", 2, x, out := nans(2))
    np.testing.assert_array_equal(out, np.array([0, 1e-10], np.float32))
    assert np.float32(1e-40) * np.float32(1e20) > 0  # and only there


def test_a_fault_leaves_the_runner_usable() -> None:
    for _ in range(3):
        with pytest.raises(KernelError):
            launch("divergent_barrier", 64, nans(64))
        launch("reverse", 32, floats(32), out := nans(32))
        np.testing.assert_array_equal(out, floats(32)[::-1])


# ---- what has to be caught -------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "block_sum_no_first_barrier",
        "block_sum_no_second_barrier",
        "block_sum_warps_only",
        "block_sum_no_write_after_read_in_warp",
    ],
)
def test_missing_block_barriers(name: str) -> None:
    caught(MISSING_BARRIER, name, 64, floats(192), nans(192), 3)


@pytest.mark.parametrize(
    "name", ["reverse_no_syncwarp", "reverse_half_a_warp", "reverse_shuffle_is_no_fence"]
)
def test_missing_syncwarp(name: str) -> None:
    caught(MISSING_BARRIER, name, 32, floats(32), nans(32))


def test_missing_atomics() -> None:
    x = read_only(np.zeros(128, np.int32))
    counts = np.zeros(80, np.int32)
    caught("race: .* of the same block", "count_without_atomics", 64, x, counts)
    caught("race: .* of another block", "count_without_atomics", 1, x, counts, grid=(2,))
    caught("race: .* of another block", "count_over_blocks_without_atomics", 64, x, counts,
           grid=(2,))  # fmt: skip
    caught("race: ", "atomic_and_plain_read", 64, x, counts)
    caught("race: .* of another block", "read_of_another_block", 1, x, counts, grid=(2,))


@pytest.mark.parametrize(
    "name, message",
    [
        ("divergent_barrier", "divergent barrier"),
        ("two_barriers", "divergent barrier: threads of one block meet in .* of lines"),
        ("early_return_before_barrier", "divergent barrier: .*return"),
        ("early_return_before_shuffle", "has returned|lane returns"),
        ("divergent_shuffle", "a lane returns while|names a lane that has returned"),
        ("shuffle_outside_mask", "a shuffle reads a lane outside the mask"),
        ("not_in_own_mask", "not in its own"),
        ("two_shuffles", "different ..sync calls"),
    ],
)
@pytest.mark.parametrize("check", [True, False])
def test_divergence(name: str, message: str, check: bool) -> None:
    caught(message, name, 64, nans(64), check=check)


def test_a_block_of_broken_warps_has_no_lanes_to_shuffle_with() -> None:
    x = read_only(np.arange(24.0))
    caught("a shuffle reads a lane outside the mask", "shuffles", 24, x, np.zeros(128))


def test_accesses_outside_the_arrays() -> None:
    x, out = floats(64), nans(64)
    caught("read (past the end|outside)", "shift", 64, x, out, 1, 0)
    caught("read outside every array", "shift", 64, x, out, -1, 0)
    caught("write (past the end|outside)", "shift", 64, x, out, 0, 1)
    caught("write outside every array", "shift", 64, x, out, 0, -1)
    caught("outside every array", "shift", 64, None, out, 0, 0)
    caught("past the end of an array", "copy4", 2, floats(7), nans(8))
    caught("write to a read-only array", "write_input", 64, x, out)
    caught("index outside a fixed-size array", "fixed_array", 1, out, 4)
    launch("shift", 32, x, out, 32, 32)
    np.testing.assert_array_equal(out[32:], x[32:])


def test_part_of_an_array_is_what_was_passed() -> None:
    whole, out = floats(64), nans(64)
    caught("past the end|outside", "shift", 32, whole[:32], out, 1, 0)
    launch("shift", 32, whole[1:33], out, 0, 0)
    np.testing.assert_array_equal(out[:32], whole[1:33])


def test_restricted_pointers_share_no_memory_that_is_written() -> None:
    x, out = floats(64), nans(64)
    both = np.zeros(96, np.float32)
    with pytest.raises(KernelError, match="arguments 0 and 1 overlap"):
        launch("scaled", 32, both[:32], both[31:63], x)
    with pytest.raises(KernelError, match="arguments 0 and 1 overlap"):
        launch("scaled", 32, both[32:64], both[32:64], x)
    launch("scaled", 32, both[:32], both[32:64], both[32:64])  # the third makes no promise
    launch("scaled", 32, x, out, x)
    np.testing.assert_array_equal(out[:32], 3 * x[:32])


def test_misaligned_vectors() -> None:
    x, out = floats(24), nans(24)
    caught("misaligned", "copy4", 4, x[1:17], out)
    caught("misaligned", "copy4", 4, x, out[3:19])
    launch("copy4", 4, x[4:20], out[8:24])
    np.testing.assert_array_equal(out[8:24], x[4:20])


def test_undefined_arithmetic() -> None:
    out = np.zeros(8, np.int64)
    caught("integer overflow at .*:", "int_overflow", 8, nans(8), 1000)
    caught("integer division by zero", "divide", 8, out, 0)
    caught("shift by", "shift_bits", 8, out, 64)
    launch("int_overflow", 8, nans(8), 100)


def test_shared_memory_is_read_after_it_is_written() -> None:
    caught("shared memory that nobody has written", "unwritten_shared", 64, nans(64))
    launch("unwritten_shared", 64, out := nans(64), check=False)
    assert np.isnan(out).sum() == 1  # poisoned, so that a result without checks is wrong too


def test_dynamic_shared_memory_is_as_large_as_the_launch_says() -> None:
    x, out = floats(64), nans(64)
    caught("past the end|outside", "dynamic_shared", 64, x, out, shared_mem=63 * 4)
    caught("outside every array", "dynamic_shared", 64, x, out)


def test_an_endless_loop_ends() -> None:
    x = read_only(np.zeros(1, np.float32))
    caught("more memory accesses than the limit", "for_ever", 1, x, nans(1), access_limit=1000)


def test_a_fault_says_where() -> None:
    text = '#line 7 "wrong.cu"\n' + "\n".join(
        [
            'extern "C" __global__ void wrong(float* x) {',
            "  x[0] = threadIdx.x;",
            "  if (threadIdx.x == 3) x[100] = 0;",
            "}",
        ]
    )
    kernel = CpuModule(text).get_function("wrong")
    with pytest.raises(KernelError) as fault:
        kernel((1,), (2,), (nans(1),))
    assert str(fault.value) == (
        "wrong: race: write after a write by thread 0 of the same block, with no barrier between "
        "(block 0,0,0 thread 1,0,0)\n  at wrong.cu:8\n  the other access at wrong.cu:8"
    )


# ---- arguments and launches ------------------------------------------------------------------


def test_scalars_have_the_width_that_cupy_gives_them() -> None:
    with pytest.raises(TypeError, match="argument 1 is int64, the kernel takes i4"):
        launch("narrow_scalar", 4, nans(4), 4, np.float32(1))
    with pytest.raises(TypeError, match="argument 2 is float64, the kernel takes f4"):
        launch("narrow_scalar", 4, nans(4), np.int32(4), 1.0)
    with pytest.raises(TypeError, match="argument 2 is float64, the kernel takes i8"):
        launch("shift", 4, floats(4), nans(4), 0.0, 0)
    with pytest.raises(TypeError, match="argument 1 is bool, the kernel takes i8"):
        launch("divide", 4, np.zeros(4, np.int64), True)
    launch("narrow_scalar", 4, out := nans(4), np.int32(3), np.float32(2))
    np.testing.assert_array_equal(out, [2, 2, 2, np.nan])


def test_arguments_fit_the_parameters() -> None:
    with pytest.raises(TypeError, match="3 arguments for 4 parameters"):
        launch("shift", 4, floats(4), nans(4), 0)
    with pytest.raises(TypeError, match=r"an array of float64, the kernel takes \*f4"):
        launch("reverse", 32, np.zeros(32), nans(32))
    with pytest.raises(TypeError, match=r"an array of int32, the kernel takes \*i8"):
        launch("divide", 4, np.zeros(4, np.int32), 1)
    with pytest.raises(TypeError, match="takes i8"):
        launch("divide", 4, np.zeros(4, np.int64), np.zeros(4, np.int64))
    with pytest.raises(TypeError, match=r"float64, the kernel takes \*f4"):
        launch("reverse", 32, 1.0, nans(32))
    with pytest.raises(TypeError, match="no list"):
        launch("reverse", 32, [1.0], nans(32))
    with pytest.raises(KeyError):
        module().get_function("unknown")


@pytest.mark.parametrize(
    "grid, block, shared",
    [
        ((0,), (32,), 0),
        ((1, 70000), (32,), 0),
        ((1,), (0,), 0),
        ((1,), (512,), 0),  # the kernel says __launch_bounds__(256)
        ((1,), (1, 1, 65), 0),
        ((1, 1, 1, 1), (32,), 0),
        ((1,), (32,), 49153),
    ],
)
def test_launches_that_cuda_refuses(grid: Any, block: Any, shared: int) -> None:
    with pytest.raises(ValueError):
        launch("dynamic_shared", block, floats(32), nans(32), grid=grid, shared_mem=shared)


def test_a_kernel_that_does_not_compile_shows_the_compiler_message() -> None:
    with pytest.raises(RuntimeError, match="unknown_function"):
        CpuModule('extern "C" __global__ void f(float* x) { x[0] = unknown_function(); }')
