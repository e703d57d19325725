"""Every kernel compiles in every dtype for GPUs old and new, keeps its values in registers, and
keeps within the table of these.

No GPU is needed: NVIDIA's run-time compiler comes from a package (see tools/nvrtc.py). It takes
minutes of two processors the first time; what was compiled is kept in the folder for temporary
files as long as the text is the same.
"""

from __future__ import annotations

import json
from itertools import product
from typing import Any

import pytest

from gradlite.backends.kernel_source import index, kernel, source
from gradlite.ops import ctc_launch
from tools import nvrtc, registers

pytestmark = pytest.mark.skipif(
    nvrtc.library() is None, reason="needs NVRTC: pip install nvidia-cuda-nvrtc-cu12"
)
SMALL = """
extern "C" __global__ void __launch_bounds__(256) small_f32(const float* x, float* out) {
  __shared__ float parts[64];
  parts[threadIdx.x % 64] = x[threadIdx.x];
  __syncthreads();
  out[threadIdx.x] = parts[(threadIdx.x + 1) % 64];
}
extern "C" __global__ void __launch_bounds__(1024, 2) crowded_f32(const double* x, double* out) {
  double values[48];
#pragma unroll
  for (int i = 0; i < 48; i++) values[i] = x[threadIdx.x + i * 1024];
  __syncthreads();
  double total = 0;
#pragma unroll
  for (int i = 0; i < 48; i++) total = total * values[i] + values[47 - i];
  out[threadIdx.x] = total;
}
__device__ __noinline__ double crowd(const double* x, double values[48]) {
  double total = 0;
#pragma unroll
  for (int i = 0; i < 48; i++) values[i] = x[i * 1024];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < 48; i++) total = total * values[i] + values[47 - i];
  return total;
}
extern "C" __global__ void __launch_bounds__(1024, 2) calling_f32(const double* x, double* out) {
  double values[48];
  out[threadIdx.x] = crowd(x + threadIdx.x, values);
}
"""


@pytest.fixture(scope="module")
def measured() -> dict[registers.Target, dict[str, nvrtc.Resources]]:
    return registers.measure(registers.targets())


def test_every_kernel_is_there_in_every_dtype_for_every_gpu(measured: Any) -> None:
    assert {(t.dtype, t.gpu) for t in measured} == set(product(registers.DTYPES, registers.GPUS))
    assert len(measured) == len(registers.files()) * len(registers.DTYPES) * len(registers.GPUS)
    for target, found in measured.items():
        declared = {f"{k.name}_{target.dtype}" for k in index().values() if k.file == target.file}
        assert set(found) == declared, target


def test_no_registers_are_kept_in_memory(measured: Any) -> None:
    spilled = {
        (symbol, target.gpu): resources.spilled
        for target, found in measured.items()
        for symbol, resources in found.items()
        if resources.spilled
    }
    assert not spilled, "KERNEL_BLOCKS in common.cuh leaves a kernel more registers"


def test_registers_are_within_the_table(measured: Any) -> None:
    table = registers.ceilings()
    over = {
        (symbol, target.gpu): resources.registers
        for target, found in measured.items()
        for symbol, resources in found.items()
        if resources.registers > table[symbol.rpartition("_")[0]][target.dtype]
    }
    assert not over, "more registers than the table allows; if meant: python -m tools.registers"


def test_the_table_lists_the_kernels_and_no_others() -> None:
    table = registers.ceilings()
    assert list(table) == sorted(index()), "out of date: python -m tools.registers"
    for row in table.values():
        assert tuple(row) == registers.DTYPES


def test_a_block_of_every_kernel_fits_a_multiprocessor(measured: Any) -> None:
    for target, found in measured.items():
        for symbol, resources in found.items():
            threads = kernel(symbol.rpartition("_")[0]).threads
            assert threads * resources.registers <= 64 << 10, symbol
            dynamic = ctc_launch.ROOM if target.file == "ctc.cu" else 0
            assert resources.shared + dynamic <= 48 << 10, symbol


# ---- the check itself ------------------------------------------------------------------------


def test_what_a_kernel_takes_is_read_from_the_compiler() -> None:
    found = nvrtc.compile(SMALL, "small.cu", (*registers.OPTIONS, "-arch=sm_80"))
    assert found["small_f32"].shared == 256 and found["small_f32"].spilled == 0
    assert 4 <= found["small_f32"].registers <= 32
    assert found["crowded_f32"].registers == 32 and found["crowded_f32"].spilled > 0
    assert found["calling_f32"].spilled > 0  # in what it calls alone


# Half precision and warps that exchange values, and float64, in a file that compiles quickly.
@pytest.mark.parametrize(("file", "dtype"), [("columns.cu", "bf16"), ("columns.cu", "f64")])
def test_what_gpus_share_is_what_each_gets(file: str, dtype: str) -> None:
    """Translated once and assembled for each, kernels take what they take compiled as they run."""
    if nvrtc.assembler() is None:
        pytest.skip("needs the assembler: pip install nvidia-cuda-nvcc-cu12")
    options = (*registers.OPTIONS, f"-DGRADLITE_DTYPE={dtype}")
    found = nvrtc.compile_for(source(file), file, options, registers.GPUS)
    for gpu, shared in zip(registers.GPUS, found, strict=True):
        assert shared == nvrtc.compile(source(file), file, (*options, f"-arch=sm_{gpu}"))


def test_an_error_names_the_place() -> None:
    text = '#line 7 "wrong.cu"\nextern "C" __global__ void wrong(float* x) { x[0] = y; }'
    with pytest.raises(RuntimeError, match=r"wrong\.cu\(7\): error: identifier \"y\" is undefined"):
        nvrtc.compile(text, "wrong.cu", ("-arch=sm_90",))


def test_a_missing_and_a_stale_row_are_noticed(monkeypatch: Any, tmp_path: Any) -> None:
    first, *others = registers.ceilings().items()
    for rows in (others, [first, *others, ("no_such_kernel", first[1])]):
        path = tmp_path / "registers.json"
        path.write_text(json.dumps(dict(rows)))
        monkeypatch.setattr(registers, "TABLE", path)
        with pytest.raises(AssertionError):
            test_the_table_lists_the_kernels_and_no_others()


def test_a_kernel_that_grows_is_noticed(measured: Any, monkeypatch: Any, tmp_path: Any) -> None:
    table = registers.ceilings()
    row = table["softmax_backward"]
    row["f64"] = 16
    (tmp_path / "registers.json").write_text(json.dumps(table))
    monkeypatch.setattr(registers, "TABLE", tmp_path / "registers.json")
    with pytest.raises(AssertionError, match="more registers than the table allows"):
        test_registers_are_within_the_table(measured)


def test_a_spilling_kernel_is_refused(monkeypatch: Any) -> None:
    target = registers.Target("small.cu", "f32", 80)
    monkeypatch.setattr(registers, "targets", lambda only: [target])
    monkeypatch.setattr(registers, "source", lambda file: SMALL)
    with pytest.raises(RuntimeError, match="calling_f32 spills .* bytes on sm_80"):
        registers.measured_ceilings()


@pytest.mark.parametrize("dtype", ["f32", "f64"])
def test_what_arrays_would_round_step_by_step_is_not_fused(dtype: str) -> None:
    options = (*registers.OPTIONS, f"-DGRADLITE_DTYPE={dtype}", "-arch=compute_75")
    _, ptx = nvrtc._compiled(source("blend.cu"), "blend.cu", options)
    body = ptx.decode().split(f".entry is_close_{dtype}(")[1].split(".entry")[0]
    assert f"mul.rn.{dtype}" in body.replace(".ftz", "") and "fma." not in body
