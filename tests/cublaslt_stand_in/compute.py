"""What ``cublasLtMatmul`` computes: D = epilogue(alpha op(A) op(B) + beta C), by columns."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from tests.cublaslt_stand_in import enums, memory
from tests.cublaslt_stand_in.enums import Epilogue


def factors(descriptor: Any, alpha: int, beta: int) -> tuple[float, float]:
    """The numbers at the addresses of alpha and beta."""
    cell = ctypes.c_double if descriptor.SCALE_TYPE == 1 else ctypes.c_float
    return cell.from_address(alpha).value, cell.from_address(beta).value


def run(
    descriptor: Any, layouts: Sequence[Any], pointers: Sequence[int], alpha: float, beta: float
) -> None:
    """Compute a product that the library has checked."""
    dtype = enums.TYPES[layouts[3].TYPE]
    wide = np.float64 if dtype is np.float64 else np.float32
    factor, share = wide(alpha), wide(beta)
    a, b, c, d = (
        matrices(name, layout, address, dtype)
        for name, layout, address in zip("ABCD", layouts, pointers)
    )
    a, b = (x.astype(wide) for x in (a, b))
    if descriptor.COMPUTE_TYPE == enums.TF32:
        a, b = tf32(a), tf32(b)
    op_a = a.swapaxes(1, 2) if descriptor.TRANSA else a
    op_b = b.swapaxes(1, 2) if descriptor.TRANSB else b
    result = factor * np.matmul(op_a, op_b)
    if share != 0:  # with beta 0 nobody reads C
        result = result + share * c.astype(wide)
    d[...] = finish(descriptor, result, op_a, op_b, dtype).astype(dtype)


def matrices(name: str, layout: Any, address: int, dtype: Any) -> np.ndarray[Any, Any]:
    """The matrices of a batch, (count, rows, columns)."""
    if address % np.dtype(dtype).itemsize:
        raise memory.IllegalAddressError(f"cudaErrorMisalignedAddress: {name}")
    shape = (layout.BATCH_COUNT, layout.ROWS, layout.COLS)
    return memory.view(name, address, dtype, shape, (layout.STRIDED_BATCH_OFFSET, 1, layout.LD))


def tf32(x: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """float32 numbers with 10 bits of mantissa."""
    bits = x.view(np.uint32)
    return ((bits + np.uint32(0x1000)) & np.uint32(0xFFFFE000)).view(np.float32)


def finish(descriptor: Any, result: Any, op_a: Any, op_b: Any, dtype: Any) -> Any:
    """The epilogue."""
    epilogue = Epilogue(descriptor.EPILOGUE)
    if epilogue == Epilogue.DEFAULT:
        return result
    count, m, n = result.shape
    length = n if epilogue == Epilogue.BGRADB else m
    steps = (descriptor.BIAS_BATCH_STRIDE, 1)
    vector = memory.view("the bias", descriptor.BIAS_POINTER, dtype, (count, length), steps)
    if epilogue == Epilogue.BIAS:
        return result + vector[:, :, None].astype(result.dtype)
    # Over k: A's rows, or B's columns.
    vector[...] = op_a.sum(2) if epilogue == Epilogue.BGRADA else op_b.sum(1)
    return result
