"""The numbers of cuBLASLt and nvmath, as far as the stand-in knows them."""

from __future__ import annotations

import enum
from typing import Any

import ml_dtypes
import numpy as np

SUCCESS, NOT_INITIALIZED, INVALID_VALUE, NOT_SUPPORTED = 0, 1, 7, 15
STATUS = {1: "NOT_INITIALIZED", 7: "INVALID_VALUE", 15: "NOT_SUPPORTED"}
N, T = 0, 1  # cublasOperation_t
# cudaDataType_t
TYPES: dict[int, Any] = {0: np.float32, 1: np.float64, 2: np.float16, 14: ml_dtypes.bfloat16}
# By compute type and scale type, the types that A, B, C and D may have.
COMPUTE = {
    (68, 0): (0, 2, 14),  # COMPUTE_32F, R_32F
    (77, 0): (0,),  # COMPUTE_32F_FAST_TF32
    (70, 1): (1,),  # COMPUTE_64F
}
TF32 = 77


class Epilogue(enum.IntEnum):
    """Those that gradlite uses; of the others, the activations, the stand-in knows nothing."""

    DEFAULT = 1
    BIAS = 4
    BGRADA = 256
    BGRADB = 512


class MatmulDescAttribute(enum.IntEnum):
    COMPUTE_TYPE = 0
    SCALE_TYPE = 1
    POINTER_MODE = 2
    TRANSA = 3
    TRANSB = 4
    EPILOGUE = 7
    BIAS_POINTER = 8
    BIAS_BATCH_STRIDE = 10


class MatrixLayoutAttribute(enum.IntEnum):
    TYPE = 0
    ORDER = 1
    ROWS = 2
    COLS = 3
    LD = 4
    BATCH_COUNT = 5
    STRIDED_BATCH_OFFSET = 6


class MatmulPreferenceAttribute(enum.IntEnum):
    SEARCH_MODE = 0
    MAX_WORKSPACE_BYTES = 1
    REDUCTION_SCHEME_MASK = 3
    MIN_ALIGNMENT_A_BYTES = 5
    MIN_ALIGNMENT_B_BYTES = 6
    MIN_ALIGNMENT_C_BYTES = 7
    MIN_ALIGNMENT_D_BYTES = 8


I32, U32, I64, U64 = np.int32, np.uint32, np.int64, np.uint64
# Type and default of each attribute.
DESC = {
    MatmulDescAttribute.COMPUTE_TYPE: (I32, 0),
    MatmulDescAttribute.SCALE_TYPE: (I32, 0),
    MatmulDescAttribute.POINTER_MODE: (I32, 0),
    MatmulDescAttribute.TRANSA: (I32, N),
    MatmulDescAttribute.TRANSB: (I32, N),
    MatmulDescAttribute.EPILOGUE: (U32, Epilogue.DEFAULT),
    MatmulDescAttribute.BIAS_POINTER: (I64, 0),
    MatmulDescAttribute.BIAS_BATCH_STRIDE: (I64, 0),
}
LAYOUT = {
    MatrixLayoutAttribute.TYPE: (U32, 0),
    MatrixLayoutAttribute.ORDER: (I32, 0),
    MatrixLayoutAttribute.ROWS: (U64, 0),
    MatrixLayoutAttribute.COLS: (U64, 0),
    MatrixLayoutAttribute.LD: (I64, 0),
    MatrixLayoutAttribute.BATCH_COUNT: (I32, 1),
    MatrixLayoutAttribute.STRIDED_BATCH_OFFSET: (I64, 0),
}
PREFERENCE = {
    MatmulPreferenceAttribute.SEARCH_MODE: (U32, 0),
    MatmulPreferenceAttribute.MAX_WORKSPACE_BYTES: (U64, 0),
    MatmulPreferenceAttribute.REDUCTION_SCHEME_MASK: (U32, 7),
    MatmulPreferenceAttribute.MIN_ALIGNMENT_A_BYTES: (U32, 256),
    MatmulPreferenceAttribute.MIN_ALIGNMENT_B_BYTES: (U32, 256),
    MatmulPreferenceAttribute.MIN_ALIGNMENT_C_BYTES: (U32, 256),
    MatmulPreferenceAttribute.MIN_ALIGNMENT_D_BYTES: (U32, 256),
}
ALIGNMENTS = [getattr(MatmulPreferenceAttribute, f"MIN_ALIGNMENT_{m}_BYTES") for m in "ABCD"]
