"""Products of matrices by cuBLASLt, through nvmath-python's bindings.

cuBLASLt wants descriptors, layouts and an algorithm for each product. All of it is made at the
first product of a kind (dtype, shapes, strides, alignment, epilogue, precision) and kept in a
`Plan`; the next one of that kind is a look-up and one call. Nothing is allocated and nothing waits
for the GPU, so a product may stand in a stream capture.

cuBLASLt thinks in columns, our arrays lie in rows: a row-major matrix is its transpose in
columns, hence it is asked for ``out.T = b.T @ a.T``. What it calls A is our ``b``, its B is our
``a``, its m is our n. A transposed view is a flag, not a copy.
"""

from __future__ import annotations

import ctypes
import sys
import threading
from typing import Any

import numpy as np

from gradlite.backends import precision
from gradlite.backends.launches import note, recordings
from gradlite.backends.strides import Matrix, collapse, matrix, spread_strides

PLANS = 4096  # the most that are kept
# Numbers of cuBLASLt's epilogues, and of CUDA's types (library_types.h, cublas_api.h).
PLAIN, BIAS = 1, 4
COLUMN_SUMS, ROW_SUMS = 256, 512  # BGRADA sums what cuBLASLt calls A, our b; BGRADB our a
_NAMES = {PLAIN: "gemm", BIAS: "gemm_bias", COLUMN_SUMS: "gemm_sums", ROW_SUMS: "gemm_sums"}
_TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
_R_32F, _R_64F = 0, 1
_COMPUTE_32F, _COMPUTE_64F, _COMPUTE_32F_FAST_TF32 = 68, 70, 77
_BIAS_POINTER = 8  # as an attribute of a descriptor
_IN_THE_ACCUMULATOR = 2  # partial sums are added in float32, not rounded to float16 first
_LARGEST = 2**31 - 1
_OF_EACH_THREAD = 2  # cudaStreamPerThread: one number for a stream of every thread
_LOWEST_BIT = tuple((i | 256) & -(i | 256) for i in range(256))
# For a library that sometimes writes a little beyond the workspace it has asked for.
_MARGIN = 256
_ONE = {np.float32: ctypes.c_float(1.0), np.float64: ctypes.c_double(1.0)}
_ZERO = {np.float32: ctypes.c_float(0.0), np.float64: ctypes.c_double(0.0)}


def _short(m: int, n: int, k: int, count: int) -> bool:
    """Whether a product's sums are too short to be cut up, and added by a second kernel.

    With a workspace at hand cuBLASLt cuts up short sums of small results too: of products with 16
    to 128 rows a third to a tenth of the time was left without one (H200, cuBLASLt 13.1, float32).
    """
    return m * n * count <= 1 << 18 and k <= (1024 if min(m, n) <= 16 else 256)


class Plan:
    """Everything that a product of one kind needs, or what to do instead.

    Attributes:
        shape: of the result.
        instead: called in the place of cuBLASLt, with the arguments of `CublasLt.run`; or None.
        copied: which of a, b, c and out cuBLASLt cannot read or write where they are.
        desc, a, b, c, d: cuBLASLt's descriptor, and its layouts of A, B, C and D.
        found: what its heuristics found.
        scalar: the type of alpha and beta in C.
        constants: the arguments that are the same at each call: alpha and beta, when they are 1
            and 0, the descriptor, the layouts, the algorithm.
        pointer: the address of the epilogue's vector that the descriptor holds; ``lock`` keeps it
            until a call has read it.
    """

    __slots__ = ("lt", "shape", "instead", "copied", "desc", "a", "b", "c", "d", "found", "scalar",
                 "constants", "pointer", "lock")  # fmt: skip
    found: Any
    scalar: Any
    constants: tuple[int, ...]

    def __init__(self, lt: Any, shape: tuple[int, ...], instead: Any = None) -> None:
        self.lt, self.shape, self.instead = lt, shape, instead
        self.copied: tuple[bool, ...] = ()
        self.desc = self.a = self.b = self.c = self.d = 0
        self.found = None
        self.pointer, self.lock = ctypes.c_int64(0), threading.Lock()

    def __del__(self, at_exit: Any = sys.is_finalizing) -> None:
        if at_exit():
            return  # the library may be gone
        if self.desc:
            self.lt.matmul_desc_destroy(self.desc)
        for layout in {self.a, self.b, self.c, self.d}:
            if layout:
                self.lt.matrix_layout_destroy(layout)

    def point(self, address: int) -> None:
        """Let the epilogue read or write the vector at an address."""
        if self.pointer.value != address:
            self.pointer.value = address
            self.lt.matmul_desc_set_attribute(
                self.desc, _BIAS_POINTER, ctypes.addressof(self.pointer), 8
            )


class CublasLt:
    """Products of CuPy's matrices on one device; stacks of matrices broadcast as in NumPy.

    Where a product cannot be had (of integers, or too large a one) the methods return
    NotImplemented.
    """

    def __init__(self, xp: Any, lt: Any) -> None:
        self.xp, self.lt = xp, lt
        self.handle = lt.create()
        self.plans: dict[Any, Plan] = {}
        self._array = xp.ndarray  # `empty` without a call of Python code
        self._stream = xp.cuda.get_current_stream
        self._workspaces: dict[int, Any] = {}
        runtime = xp.cuda.runtime
        hopper = runtime.getDeviceProperties(runtime.getDevice())["major"] >= 9
        self.workspace_bytes = (32 if hopper else 4) << 20

    # --------------------------------------------------------------------------- products
    def matmul(self, a: Any, b: Any, out: Any = None, alpha: float = 1.0) -> Any:
        """``alpha * a @ b``, into ``out`` when given."""
        return self.run(a, b, out, alpha)

    def linear(self, a: Any, b: Any, bias: Any) -> Any:
        """``a @ b + bias`` with a number for each column, in one kernel."""
        if bias.strides[0] != bias.dtype.itemsize:
            bias = self.xp.ascontiguousarray(bias)
        out = self.run(a, b, None, 1.0, 0.0, None, BIAS, bias)
        if out is NotImplemented:
            out = self.run(a, b)
            if out is not NotImplemented:
                out += bias
        return out

    def addmm(self, c: Any, a: Any, b: Any, beta: float = 1.0, alpha: float = 1.0) -> Any:
        """``beta * c + alpha * a @ b``; ``c`` broadcasts, and is not read when beta is 0."""
        if beta == 0:
            return self.run(a, b, None, alpha)
        if c.ndim == 1 and beta == 1 and alpha == 1 and c.shape[0] == b.shape[-1]:
            return self.linear(a, b, c)
        shape = (*_broadcast(a.shape[:-2], b.shape[:-2]), a.shape[-2], b.shape[-1])
        if c.shape != shape:
            c = self.xp.ascontiguousarray(self.xp.broadcast_to(c, shape))
        return self.run(a, b, None, alpha, beta, c)

    def add_into(self, total: Any, a: Any, b: Any) -> Any:
        """``total += a @ b``."""
        return self.run(a, b, total, 1.0, 1.0, total)

    def with_row_sums(self, a: Any, b: Any, total: Any = None) -> tuple[Any, Any]:
        """``a @ b`` and the sums of the rows of ``a``; None for those where they cost a kernel.

        With ``a`` the transposed gradient of a linear layer's output and ``b`` its input, these
        are the gradients of its weight and of its bias. The product is added to ``total`` when
        that is given.
        """
        sums = self._array(a.shape[:1], a.dtype)
        beta = 0.0 if total is None else 1.0
        out = self.run(a, b, total, 1.0, beta, total, ROW_SUMS, sums)
        if out is NotImplemented:
            return self.run(a, b, total, 1.0, beta, total), None
        return out, sums

    def with_column_sums(self, a: Any, b: Any) -> tuple[Any, Any]:
        """``a @ b`` and the sums of the columns of ``b``, as `with_row_sums`."""
        sums = self._array(b.shape[1:], b.dtype)
        out = self.run(a, b, None, 1.0, 0.0, None, COLUMN_SUMS, sums)
        return (self.run(a, b), None) if out is NotImplemented else (out, sums)

    # ------------------------------------------------------------------------ one product
    def run(
        self,
        a: Any,
        b: Any,
        out: Any = None,
        alpha: float = 1.0,
        beta: float = 0.0,
        c: Any = None,
        epilogue: int = PLAIN,
        vector: Any = None,
    ) -> Any:
        """``alpha * a @ b + beta * c`` with an epilogue, whose vector is read or written."""
        pa, pb = a.data.ptr, b.data.ptr
        low = pa | pb
        pd = pv = 0
        more: Any = None
        if out is not None:
            pd = out.data.ptr
            low |= pd
            more = (out.shape, out.strides)
        pc = pd
        if c is not None:
            pc = c.data.ptr
            low |= pc
            more = (more, c.shape, c.strides, c is out)
        if vector is not None:
            pv = vector.data.ptr
            low |= pv
        key = (
            a.dtype.num, b.dtype.num, a.shape, a.strides, b.shape, b.strides,
            _LOWEST_BIT[low & 255], epilogue, precision.tf32, more,
        )  # fmt: skip
        plan = self.plans.get(key)
        if plan is None:
            plan = self._keep(key, self._plan(a, b, out, c, epilogue, vector, key[6]))
        if plan.instead is not None:
            return plan.instead(plan, a, b, out, alpha, beta, c, epilogue, vector)
        if out is None:
            out = self._array(plan.shape, a.dtype)
            pd = out.data.ptr
            pc = pc or pd
        stream = self._stream().ptr
        whose = stream if stream != _OF_EACH_THREAD else -threading.get_ident()
        workspace = self._workspaces.get(whose) or self._workspace(whose)
        one, zero, desc, la, lb, lc, ld, algorithm = plan.constants
        if alpha != 1.0:
            alpha_cell = plan.scalar(alpha)  # cuBLASLt has read it when the call returns
            one = ctypes.addressof(alpha_cell)
        if beta != 0.0:
            beta_cell = plan.scalar(beta)
            zero = ctypes.addressof(beta_cell)
        if recordings:
            note(_NAMES[epilogue])
        if not pv:
            self.lt.matmul(
                self.handle, desc, one, pb, la, pa, lb, zero, pc, lc, pd, ld, algorithm,
                workspace[0], self.workspace_bytes, stream,
            )  # fmt: skip
            return out
        with plan.lock:
            plan.point(pv)
            self.lt.matmul(
                self.handle, desc, one, pb, la, pa, lb, zero, pc, lc, pd, ld, algorithm,
                workspace[0], self.workspace_bytes, stream,
            )  # fmt: skip
        return out

    def _workspace(self, whose: int) -> tuple[int, Any]:
        """Address and memory that the products of a stream use one after another."""
        memory = self.xp.empty(self.workspace_bytes + _MARGIN, np.uint8)
        self._workspaces[whose] = found = (memory.data.ptr, memory)
        return found

    # ------------------------------------------------------------------------------ plans
    def _keep(self, key: Any, plan: Plan) -> Plan:
        while len(self.plans) >= PLANS:
            self.plans.pop(next(iter(self.plans)), None)
        self.plans[key] = plan
        return plan

    def _plan(
        self, a: Any, b: Any, out: Any, c: Any, epilogue: int, vector: Any, alignment: int
    ) -> Plan:
        (m, k), (k2, n) = a.shape[-2:], b.shape[-2:]
        stack = _broadcast(a.shape[:-2], b.shape[:-2])
        shape = (*stack, m, n)
        for name, array in (("out", out), ("c", c)):
            if array is not None and array.shape != shape:
                raise ValueError(f"the product has shape {shape}, but {name} has {array.shape}")
        length = {BIAS: n, COLUMN_SUMS: n, ROW_SUMS: m}.get(epilogue, 0)
        if k != k2 or (vector is not None and vector.shape != (length,)):
            raise ValueError(f"shapes {a.shape} and {b.shape} do not fit together")
        others = [x for x in (out, c, vector) if x is not None]
        if a.dtype.name not in _TYPES or any(x.dtype != a.dtype for x in (b, *others)):
            return Plan(self.lt, shape, _refuse)
        if 0 in shape or not k:
            return Plan(self.lt, shape, self._empty)
        transposed_first = (epilogue == ROW_SUMS, False, False, False)
        found = [
            None if x is None else _matrix_of(x, stack, first)
            for x, first in zip((a, b, c, out), transposed_first)
        ]
        written = [f is not None and not f.transposed for f in found[2:]]
        copied = (
            found[0] is None,
            found[1] is None,
            c is not None and not written[0],
            out is not None and not written[1],
        )
        if any(copied):
            plan = Plan(self.lt, shape, self._copied)
            plan.copied = copied
            return plan
        count = int(np.prod(stack, dtype=np.int64))
        left, right, added, result = found
        if result is None:
            result = Matrix(False, n, m * n)
        return self._descriptors(
            Plan(self.lt, shape), a.dtype, (m, n, k), count, left, right,
            result if c is out or added is None else added, result, epilogue, vector, alignment,
            c is not None and c is not out,
        )  # fmt: skip

    def _descriptors(
        self,
        plan: Plan,
        dtype: np.dtype[Any],
        sizes: tuple[int, int, int],
        count: int,
        a: Any,
        b: Any,
        c: Matrix,
        d: Matrix,
        epilogue: int,
        vector: Any,
        alignment: int,
        apart: bool,
    ) -> Plan:
        """Fill a plan; it refuses when cuBLASLt has no algorithm. ``apart``: c is not d."""
        m, n, k = sizes
        if count > 1 and not b.stride and not a.transposed:  # one b for all: rows of one matrix
            folded = [x.folded(m) for x in (a, c, d)]
            if None not in folded:
                a, c, d = (x for x in folded if x is not None)
                m, count = m * count, 1
        # What cuBLASLt sums has to lie in one of the two orders; before 12.3.4 also k > 1.
        sums = (epilogue == ROW_SUMS and (not a.transposed or k == 1)) or (
            epilogue == COLUMN_SUMS and (b.transposed or k == 1)
        )
        if sums or max(m, n, k, count, a.ld, b.ld, c.ld, d.ld) > _LARGEST:
            plan.instead = _refuse
            return plan
        lt = self.lt
        double = dtype.itemsize == 8
        tf32 = precision.tf32 and dtype.name == "float32" and min(m, n) > 1
        compute = _COMPUTE_64F if double else _COMPUTE_32F_FAST_TF32 if tf32 else _COMPUTE_32F
        scalar = np.float64 if double else np.float32
        plan.scalar = type(_ONE[scalar])
        kind = _TYPES[dtype.name]
        plan.desc = lt.matmul_desc_create(compute, _R_64F if double else _R_32F)
        attribute = lt.MatmulDescAttribute
        _set(lt.matmul_desc_set_attribute, plan.desc, attribute.TRANSA, np.int32(b.transposed))
        _set(lt.matmul_desc_set_attribute, plan.desc, attribute.TRANSB, np.int32(a.transposed))
        if epilogue != PLAIN:
            _set(lt.matmul_desc_set_attribute, plan.desc, attribute.EPILOGUE, np.uint32(epilogue))
            plan.point(vector.data.ptr)  # its alignment counts among what the heuristics look at
        plan.a = self._layout(kind, b, n, k, count)
        plan.b = self._layout(kind, a, k, m, count)
        plan.d = self._layout(kind, d, n, m, count)
        plan.c = self._layout(kind, c, n, m, count) if apart else plan.d
        if compute == _COMPUTE_32F and kind == _TYPES["float32"] and _short(m, n, k, count):
            plan.found = self._algorithm(plan, alignment, 0)
        if plan.found is None:
            plan.found = self._algorithm(plan, alignment, self.workspace_bytes)
        if plan.found is None:
            plan.instead = _refuse
            return plan
        plan.constants = (
            ctypes.addressof(_ONE[scalar]), ctypes.addressof(_ZERO[scalar]), plan.desc, plan.a,
            plan.b, plan.c, plan.d, plan.found.ctypes.data,  # which begins with the algorithm
        )  # fmt: skip
        return plan

    def _layout(self, kind: int, x: Matrix, rows: int, columns: int, count: int) -> int:
        """The layout of a matrix with these rows and columns in cuBLASLt's eyes, op() applied."""
        if x.transposed:
            rows, columns = columns, rows
        layout = self.lt.matrix_layout_create(kind, rows, columns, x.ld)
        if count > 1:
            attribute = self.lt.MatrixLayoutAttribute
            set_attribute = self.lt.matrix_layout_set_attribute
            _set(set_attribute, layout, attribute.BATCH_COUNT, np.int32(count))
            _set(set_attribute, layout, attribute.STRIDED_BATCH_OFFSET, np.int64(x.stride))
        return layout  # type: ignore[no-any-return]

    def _algorithm(self, plan: Plan, alignment: int, workspace: int) -> Any:
        """The result of the heuristics that cuBLASLt likes best; None when it has none."""
        lt = self.lt
        preference = lt.matmul_preference_create()
        attribute = lt.MatmulPreferenceAttribute
        set_attribute = lt.matmul_preference_set_attribute
        result = np.zeros(1, lt.matmul_heuristic_result_dtype)
        found = np.zeros(1, np.int32)
        try:
            _set(set_attribute, preference, attribute.MAX_WORKSPACE_BYTES, np.uint64(workspace))
            _set(set_attribute, preference, attribute.REDUCTION_SCHEME_MASK,
                 np.uint32(_IN_THE_ACCUMULATOR))  # fmt: skip
            for which in "ABCD":
                name = getattr(attribute, f"MIN_ALIGNMENT_{which}_BYTES")
                _set(set_attribute, preference, name, np.uint32(alignment))
            lt.matmul_algo_get_heuristic(
                self.handle, plan.desc, plan.a, plan.b, plan.c, plan.d, preference, 1,
                result.ctypes.data, found.ctypes.data,
            )  # fmt: skip
        except lt.cuBLASLtError:
            return None
        finally:
            lt.matmul_preference_destroy(preference)
        return result if found[0] and not result["state"][0] else None

    # ---------------------------------------------------------------------------- detours
    def _empty(self, plan: Plan, a: Any, b: Any, out: Any, alpha: float, beta: float, c: Any,
               epilogue: int, vector: Any) -> Any:  # fmt: skip
        """A sum of no products: zeros, to which the rest is added."""
        if epilogue in (ROW_SUMS, COLUMN_SUMS):
            return NotImplemented
        if out is None:
            out = self.xp.zeros(plan.shape, a.dtype)
        elif c is not out:
            out[...] = 0
        if c is not None and c is not out:
            out += c * a.dtype.type(beta)
        if epilogue == BIAS:
            out += vector
        return out

    def _copied(self, plan: Plan, a: Any, b: Any, out: Any, alpha: float, beta: float, c: Any,
                epilogue: int, vector: Any) -> Any:  # fmt: skip
        """The product of row-major copies of what cannot be read or written where it is."""
        a, b, c = (
            self._dense(x, plan.shape[:-2]) if copy else x
            for x, copy in zip((a, b, c), plan.copied)
        )
        if not plan.copied[3]:
            return self.run(a, b, out, alpha, beta, c, epilogue, vector)
        result = self.run(a, b, None, alpha, beta, c, epilogue, vector)
        if result is NotImplemented:
            return result
        out[...] = result
        return out

    def _dense(self, x: Any, stack: tuple[int, ...]) -> Any:
        if x.flags.c_contiguous:  # it lies well, but not for this broadcasting
            x = self.xp.broadcast_to(x, (*stack, *x.shape[-2:]))
        return self.xp.ascontiguousarray(x)


def _refuse(*arguments: Any) -> Any:
    return NotImplemented


def _set(function: Any, handle: int, attribute: Any, value: Any) -> None:
    """Set an attribute to a NumPy scalar of the type that it has in C."""
    cell = np.asarray(value)
    function(handle, attribute, cell.ctypes.data, cell.nbytes)


def _broadcast(a: tuple[int, ...], b: tuple[int, ...]) -> tuple[int, ...]:
    return a if a == b else np.broadcast_shapes(a, b)


def _matrix_of(x: Any, stack: tuple[int, ...], transposed_first: bool) -> Matrix | None:
    """How the matrices of an array lie in memory; None when only a copy can be used."""
    size = x.dtype.itemsize
    if any(s % size for s in x.strides):
        return None
    strides = tuple([s // size for s in x.strides])
    found = matrix(x.shape[-2:], strides[-2:], transposed_first)
    step = collapse(stack, spread_strides(stack, x.shape[:-2], strides[:-2]))
    return None if found is None or step is None else found._replace(stride=step)
