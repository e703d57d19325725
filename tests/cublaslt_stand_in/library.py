"""The calls of ``nvmath.bindings.cublasLt``, and what cuBLASLt refuses.

The rules are those of NVIDIA's cuBLAS documentation, and, where it is silent, what the library is
known to answer on a GPU: BGRADA needs op(A) = N and BGRADB op(B) = T, and alpha scales the sums
of neither.
"""

from __future__ import annotations

import ctypes
import itertools
from typing import Any

import numpy as np

from tests.cublaslt_stand_in import compute, enums, memory
from tests.cublaslt_stand_in.enums import INVALID_VALUE, NOT_SUPPORTED, Epilogue, N, T
from tests.cupy_stand_in import runtime

USED = 1 << 10  # the workspace that an algorithm takes which is allowed one


class cuBLASLtError(Exception):  # noqa: N801, N818
    """``nvmath.bindings.cublasLt.cuBLASLtError``."""

    def __init__(self, status: int, why: str = "") -> None:
        self.status, self.why = status, why
        super().__init__(f"CUBLAS_STATUS_{enums.STATUS[status]} ({status}): {why}")


class Descriptor(dict[Any, int]):
    """Attributes with their values; ``types`` gives type and default of each."""

    def __init__(self, types: dict[Any, Any], **values: int) -> None:
        super().__init__({a: default for a, (_, default) in types.items()})
        self.types = types
        self.named = {a.name: a for a in types}  # asked for dozens of times in a product
        for name, value in values.items():
            self[self.named[name]] = value

    def __getattr__(self, name: str) -> int:
        return self[self.named[name]]

    def put(self, attribute: int, buffer: int, size: int) -> None:
        found = next((a for a in self.types if a == attribute), None)
        if found is None:
            raise cuBLASLtError(INVALID_VALUE, f"unknown attribute {attribute}")
        dtype = np.dtype(self.types[found][0])
        if not buffer or size != dtype.itemsize:
            raise cuBLASLtError(INVALID_VALUE, f"{found.name} has {dtype.itemsize} bytes")
        self[found] = int(np.frombuffer(ctypes.string_at(buffer, size), dtype)[0])


class Library:
    """The module ``nvmath.bindings.cublasLt``.

    Attributes:
        calls: the names of all calls, in their order.
        refused: epilogues that no algorithm has, as on an older GPU.
    """

    Epilogue = Epilogue
    MatmulDescAttribute = enums.MatmulDescAttribute
    MatrixLayoutAttribute = enums.MatrixLayoutAttribute
    MatmulPreferenceAttribute = enums.MatmulPreferenceAttribute
    cuBLASLtError = cuBLASLtError  # noqa: N815
    matmul_heuristic_result_dtype = np.dtype(
        [("algo", [("data_", "<u8", (8,))]), ("workspace_size", "<u8"), ("state", "<i4"),
         ("waves_count", "<f4"), ("reserved", "<i4", (4,))]
    )  # fmt: skip

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self.calls: list[str] = []
        self.refused: set[int] = set()
        self.least = 0  # bytes of workspace without which there is no algorithm
        self.live: dict[int, Any] = {}
        self.algorithms: dict[int, Any] = {}
        self._number = itertools.count(0x1000, 16).__next__

    def _new(self, call: str, what: Any) -> int:
        self.calls.append(call)
        handle = self._number()
        self.live[handle] = what
        return handle

    def _get(self, handle: int, kind: Any) -> Any:
        found = self.live.get(handle)
        if found is None or (kind is str) != isinstance(found, str):
            raise cuBLASLtError(INVALID_VALUE, f"{handle:#x} is no handle of this kind")
        if kind is not str and found.types is not kind:
            raise cuBLASLtError(INVALID_VALUE, f"{handle:#x} is no descriptor of this kind")
        return found

    # ------------------------------------------------------------------------ life and death
    def get_version(self) -> int:
        return 130001

    def create(self) -> int:
        return self._new("create", "handle")

    def matmul_desc_create(self, compute_type: int, scale_type: int) -> int:
        desc = Descriptor(enums.DESC, COMPUTE_TYPE=compute_type, SCALE_TYPE=scale_type)
        return self._new("matmul_desc_create", desc)

    def matrix_layout_create(self, type: int, rows: int, cols: int, ld: int) -> int:
        layout = Descriptor(enums.LAYOUT, TYPE=type, ROWS=rows, COLS=cols, LD=ld)
        return self._new("matrix_layout_create", layout)

    def matmul_preference_create(self) -> int:
        return self._new("matmul_preference_create", Descriptor(enums.PREFERENCE))

    def _destroy(self, handle: int, kind: Any) -> None:
        self._get(handle, kind)
        del self.live[handle]

    def matmul_desc_destroy(self, desc: int) -> None:
        self._destroy(desc, enums.DESC)

    def matrix_layout_destroy(self, layout: int) -> None:
        self._destroy(layout, enums.LAYOUT)

    def matmul_preference_destroy(self, preference: int) -> None:
        self._destroy(preference, enums.PREFERENCE)

    # ---------------------------------------------------------------------------- attributes
    def matmul_desc_set_attribute(self, desc: int, attr: int, buf: int, size: int) -> None:
        self.calls.append("matmul_desc_set_attribute")
        self._get(desc, enums.DESC).put(attr, buf, size)

    def matrix_layout_set_attribute(self, layout: int, attr: int, buf: int, size: int) -> None:
        self.calls.append("matrix_layout_set_attribute")
        self._get(layout, enums.LAYOUT).put(attr, buf, size)

    def matmul_preference_set_attribute(self, pref: int, attr: int, buf: int, size: int) -> None:
        self.calls.append("matmul_preference_set_attribute")
        self._get(pref, enums.PREFERENCE).put(attr, buf, size)

    # -------------------------------------------------------------------------------- matmul
    def matmul_algo_get_heuristic(
        self, handle: int, desc: int, a: int, b: int, c: int, d: int, preference: int,
        requested: int, results: int, count: int,
    ) -> None:  # fmt: skip
        self.calls.append("matmul_algo_get_heuristic")
        self._get(handle, str)
        problem = self._problem(desc, a, b, c, d)
        wishes = self._get(preference, enums.PREFERENCE)
        if wishes.MAX_WORKSPACE_BYTES < self.least:
            raise cuBLASLtError(NOT_SUPPORTED, "no algorithm needs so little memory")
        needed = min(USED, wishes.MAX_WORKSPACE_BYTES)
        number = self._number()
        alignments = [wishes[which] for which in enums.ALIGNMENTS]
        self.algorithms[number] = (problem, alignments, needed)
        result = np.zeros(1, self.matmul_heuristic_result_dtype)
        result["algo"]["data_"][0, 0] = number
        result["workspace_size"] = needed
        ctypes.memmove(results, result.ctypes.data, result.nbytes)
        ctypes.memmove(count, np.int32(1).tobytes(), 4)

    def matmul(
        self, handle: int, desc: int, alpha: int, a: int, a_layout: int, b: int, b_layout: int,
        beta: int, c: int, c_layout: int, d: int, d_layout: int, algo: int, workspace: int,
        workspace_size: int, stream: int,
    ) -> None:  # fmt: skip
        self.calls.append("matmul")
        self._get(handle, str)
        problem = self._problem(desc, a_layout, b_layout, c_layout, d_layout)
        number = int(np.frombuffer(ctypes.string_at(algo, 8), np.uint64)[0])
        if number not in self.algorithms:
            raise cuBLASLtError(INVALID_VALUE, "the algorithm is not one of the heuristics")
        planned, alignments, needed = self.algorithms[number]
        if planned != problem:
            raise cuBLASLtError(INVALID_VALUE, "the algorithm is that of another product")
        if workspace_size < needed or not workspace or workspace % 16:
            raise cuBLASLtError(INVALID_VALUE, "the workspace is too small or not aligned")
        if c == d and c_layout != d_layout:
            raise cuBLASLtError(INVALID_VALUE, "C and D are one matrix in two layouts")
        for name, pointer, alignment in zip("ABCD", (a, b, c, d), alignments):
            if pointer % alignment:
                raise cuBLASLtError(INVALID_VALUE, f"{name} is not aligned to {alignment} bytes")
        current = self.cupy.cuda.get_current_stream().ptr
        if stream != current:
            raise cuBLASLtError(INVALID_VALUE, "not the stream that is current")
        descriptor = self._get(desc, enums.DESC)
        layouts = [self._get(x, enums.LAYOUT) for x in (a_layout, b_layout, c_layout, d_layout)]
        self._check_vector(descriptor)
        pointers, numbers = (a, b, c, d), compute.factors(descriptor, alpha, beta)
        capture = runtime.capturing()
        if capture is None:
            compute.run(descriptor, layouts, pointers, *numbers)
            return
        # The call has read its descriptors and numbers; the matrices it reads at a launch.
        kept = Descriptor(descriptor.types)
        kept.update(descriptor)
        owners = memory.owners((*pointers, descriptor.BIAS_POINTER))

        def multiply() -> None:
            memory.blocks.update({owner.ctypes.data: owner for owner in owners})
            compute.run(kept, layouts, pointers, *numbers)

        capture.add("matmul", multiply, ())

    def _problem(self, desc: int, a: int, b: int, c: int, d: int) -> Any:
        """Everything about a product that an algorithm is chosen for; an error if it is none."""
        descriptor = self._get(desc, enums.DESC)
        layouts = [self._get(x, enums.LAYOUT) for x in (a, b, c, d)]
        allowed = enums.COMPUTE.get((descriptor.COMPUTE_TYPE, descriptor.SCALE_TYPE))
        types = {layout.TYPE for layout in layouts}
        if allowed is None or len(types) != 1 or not types <= set(allowed):
            raise cuBLASLtError(NOT_SUPPORTED, f"types {types} in this computation")
        for name, layout in zip("ABCD", layouts):
            if not layout.ROWS or not layout.COLS or layout.ROWS >= 2**31 or layout.COLS >= 2**31:
                raise cuBLASLtError(INVALID_VALUE, f"{name} has {layout.ROWS}x{layout.COLS}")
            if layout.LD < layout.ROWS:
                raise cuBLASLtError(INVALID_VALUE, f"the columns of {name} overlap")
        la, lb, lc, ld = layouts
        m, n = ld.ROWS, ld.COLS
        ta, tb = descriptor.TRANSA, descriptor.TRANSB
        if not {ta, tb} <= {N, T} or descriptor.POINTER_MODE:
            raise cuBLASLtError(INVALID_VALUE, "not an operation, or not a pointer mode")
        k = la.ROWS if ta else la.COLS
        if (la.COLS if ta else la.ROWS) != m or (lc.ROWS, lc.COLS) != (m, n):
            raise cuBLASLtError(INVALID_VALUE, "the rows of A, C and D differ")
        if (lb.COLS if tb else lb.ROWS, lb.ROWS if tb else lb.COLS) != (k, n):
            raise cuBLASLtError(INVALID_VALUE, "A and B do not fit together")
        if len({layout.BATCH_COUNT for layout in layouts}) != 1 or la.BATCH_COUNT < 1:
            raise cuBLASLtError(INVALID_VALUE, "the batch counts differ")
        for name, layout in zip("CD", layouts[2:]):
            count, offset = ld.BATCH_COUNT, layout.STRIDED_BATCH_OFFSET
            apart = offset >= layout.LD * (n - 1) + m
            # Columns of one matrix between those of another do not overlap.
            between = offset >= m and (count - 1) * offset + m <= layout.LD
            if count > 1 and not (apart or between):
                raise cuBLASLtError(INVALID_VALUE, f"the matrices of {name} overlap")
        self._check_epilogue(descriptor)
        values = [v for key, v in descriptor.items() if key.name != "BIAS_POINTER"]
        return values, [list(layout.values()) for layout in layouts]

    def _check_epilogue(self, descriptor: Any) -> None:
        try:
            epilogue = Epilogue(descriptor.EPILOGUE)
        except ValueError:
            raise cuBLASLtError(INVALID_VALUE, f"epilogue {descriptor.EPILOGUE}") from None
        if epilogue in self.refused:
            raise cuBLASLtError(NOT_SUPPORTED, f"no algorithm has {epilogue.name}")
        if epilogue == Epilogue.BGRADA and descriptor.TRANSA != N:
            raise cuBLASLtError(NOT_SUPPORTED, "BGRADA needs op(A) = N")
        if epilogue == Epilogue.BGRADB and descriptor.TRANSB != T:
            raise cuBLASLtError(NOT_SUPPORTED, "BGRADB needs op(B) = T")

    def _check_vector(self, descriptor: Any) -> None:
        name = Epilogue(descriptor.EPILOGUE).name
        if name != "DEFAULT" and not descriptor.BIAS_POINTER:
            raise cuBLASLtError(INVALID_VALUE, f"{name} without a BIAS_POINTER")
