"""Reductions and products as C++ text."""

from __future__ import annotations

import ctypes
import subprocess
from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np

from gradlite.backends import libraries
from gradlite.capturing.native.loops import Place, collapsed
from gradlite.capturing.native.types import CTYPES, HALVES, computing, named

# Kind of reduction: neutral element, how a value x joins the total t, how the compiler is told.
KINDS = {
    "sum": ("0", "t += x;", "reduction(+:t)"),
    "prod": ("1", "t *= x;", "reduction(*:t)"),
    "any": ("0", "t |= x != 0;", "reduction(|:t)"),
    "all": ("1", "t &= x != 0;", "reduction(&:t)"),
}

# So many numbers, and so many rows, are added one after another; then such sums are, in double
# precision. A vector has so many lanes, or fewer.
RUN, ROWS, LANES = 256, 64, 16
FEW = 16  # candidates for an extreme that are compared one by one


def reduction(kind: str, x: Place, axes: Sequence[int], out: Place) -> list[str] | None:
    """``out = kind of x over axes``; ``out`` has the other dimensions, perhaps ones between."""
    kept = [d for d in range(len(x.shape)) if d not in axes]
    if out.shape == x.shape[:0] and kept and any(x.shape[d] != 1 for d in kept):
        return None
    out_strides = _of_kept(x, kept, out)
    if out_strides is None or 0 in x.shape:
        return None
    count = int(np.prod([x.shape[d] for d in axes], dtype=np.int64))
    T, R = computing(x.dtype), CTYPES[named(out.dtype)]  # noqa: N806
    if kind in ("any", "all"):
        T = "bool"  # noqa: N806
    elif kind in ("sum", "prod", "mean") and x.dtype.kind in "iub":
        T = "i64"  # noqa: N806
    outer, (xo, oo) = collapsed(
        [x.shape[d] for d in kept], [[x.strides[d] for d in kept], out_strides]
    )
    inner, (xi,) = collapsed([x.shape[d] for d in axes], [[x.strides[d] for d in axes]])
    extreme = kind in ("max", "min")
    neutral, join, clause = KINDS.get("sum" if kind == "mean" else kind, ("", "", ""))
    loop = f"LOOP_FOR_{kind}" if extreme else f'_Pragma("omp simd {clause}")'
    finish = f"t / {T}({count})" if kind == "mean" else "t"
    # Compilers make no vectors of loops that touch bool in memory.
    read = f"{T}(*({'u8' if x.dtype.kind == 'b' else CTYPES[named(x.dtype)]}*)"
    lines = [f"{{ // {kind}", f"  char* const xb = P[{x.base}] + {x.offset};"]
    lines.append(f"  char* const ob = P[{out.base}] + {out.offset};")
    along = bool(inner) and (not outer or abs(xi[-1]) <= abs(xo[-1]))
    summed = kind in ("sum", "mean") and x.dtype.kind in "fV"
    if not along and outer and not extreme and oo[-1] == out.dtype.itemsize and T == R:
        # Many sums side by side: rows are added to rows.
        last, step, n = len(outer) - 1, xo[-1], outer[-1]
        over = f" / {T}({count})" if kind == "mean" else ""
        lines += open_loops("o", outer[:-1])
        lines.append(f"  char* const xo = xb{steps('o', xo[:-1])};")
        lines.append(f"  {R}* const y = ({R}*)(ob{steps('o', oo[:-1])});")
        in_runs = summed and count > 2 * ROWS
        if in_runs:
            lines.append(f"  double* const total = (double*)scratch<6>({n} * (8 + sizeof({T})));")
            lines.append(f"  {T}* const t = ({T}*)(total + {n});")
            lines.append(f"  LOOP for (i64 i = 0; i < {n}; i++) total[i] = 0;")
            lines.append("  i64 rows = 0;")
        else:
            lines.append(f"  {R}* const t = y;")
        lines.append(f"  LOOP for (i64 i = 0; i < {n}; i++) t[i] = {neutral};")
        rows = len(inner) - 1
        lines += open_loops("r", inner[:rows] if in_runs else inner)
        if in_runs:
            lines.append(f"  for (i64 start = 0; start < {inner[rows]}; start += {ROWS}) {{")
            lines.append(f"  const i64 stop = {_end(ROWS, inner[rows])};")
            lines.append(f"  for (i64 r{rows} = start; r{rows} < stop; r{rows}++) {{")
        lines.append(f"  char* const xr = xo{steps('r', xi)};")
        value = f"{read}(xr + i * {step}))"
        joined = join.replace("t ", "t[i] ", 1).replace("x", value)
        lines.append(f"  LOOP for (i64 i = 0; i < {n}; i++) {joined}")
        if in_runs:
            lines.append("  }")
            lines.append(f"  if ((rows += stop - start) >= {ROWS}) {{")
            lines.append(f"    LOOP for (i64 i = 0; i < {n}; i++) total[i] += t[i], t[i] = 0;")
            lines.append("    rows = 0;")
            lines.append("  }")
        lines += ["  }"] * len(inner)
        if in_runs:
            lines.append(f"  LOOP for (i64 i = 0; i < {n}; i++) y[i] = {R}(total[i] + t[i]){over};")
        elif over:
            lines.append(f"  LOOP for (i64 i = 0; i < {n}; i++) t[i] /= {T}({count});")
        lines += ["  }"] * last + ["}"]
        return lines
    lines += open_loops("o", outer)
    lines.append(f"  char* const xo = xb{steps('o', xo)};")
    if extreme:
        lines.append(f"  {T} t = {read}xo);")
        lines.append("  int nan = 0;")
        join = f"t = x {'>' if kind == 'max' else '<'} t ? x : t; nan |= x != x;"
        if x.dtype.kind in "fV":
            finish = "nan ? " + T + '(__builtin_nan("")) : t'
    else:
        lines.append(f"  {T} t = {neutral};")
    if inner:
        # Vectors' lanes are sums of their own.
        run = RUN * LANES if xi[-1] == x.dtype.itemsize else RUN
        in_runs, first, stop = summed and count > run, "0", str(inner[-1])
        if in_runs:
            lines[-1] = "  double total = 0;"
            finish = finish.replace("t", f"{T}(total)", 1)
        lines += open_loops("r", inner[:-1])
        lines.append(f"  char* const xr = xo{steps('r', xi[:-1])};")
        if in_runs:
            lines.append(f"  for (i64 start = 0; start < {inner[-1]}; start += {run}) {{")
            lines.append(f"  const i64 stop = {_end(run, inner[-1])};")
            lines.append(f"  {T} t = 0;")
            first, stop = "start", "stop"
        lines.append(f"  {loop}")
        lines.append(f"  for (i64 i = {first}; i < {stop}; i++) {{")
        lines.append(f"    const {T} x = {read}(xr + i * {xi[-1]}));")
        lines.append(f"    {join}")
        lines.append("  }")
        if in_runs:
            lines += ["  total += t;", "  }"]
        lines += ["  }"] * (len(inner) - 1)
    else:
        lines.append(f"  {{ const {T} x = {read}xo); {join} }}")
    lines.append(f"  *({R}*)(ob{steps('o', oo)}) = {R}({finish});")
    return lines + ["  }"] * len(outer) + ["}"]


def _of_kept(x: Place, kept: Sequence[int], out: Place) -> list[int] | None:
    """The strides of the result along the dimensions that stay."""
    sizes = [x.shape[d] for d in kept]
    if list(out.shape) == sizes:
        return list(out.strides)
    if len(out.shape) == len(x.shape):  # keepdims
        if all(out.shape[d] == (x.shape[d] if d in kept else 1) for d in range(len(x.shape))):
            return [out.strides[d] for d in kept]
    return None


def _end(run: int, n: int) -> str:
    """Where a run of some numbers of n ends that begins at ``start``."""
    return f"start + {run} < {n} ? start + {run} : {n}"


def open_loops(letter: str, sizes: Sequence[int]) -> list[str]:
    """The heads of nested loops, their counters a letter and a number."""
    return [
        f"  for (i64 {letter}{k} = 0; {letter}{k} < {n}; {letter}{k}++) {{"
        for k, n in enumerate(sizes)
    ]


def steps(letter: str, strides: Sequence[int]) -> str:
    """What the counters of `open_loops` add to an address."""
    return "".join(f" + {letter}{k} * {s}" for k, s in enumerate(strides) if s)


def arg_extreme(kind: str, x: Place, axis: int, out: Place) -> list[str] | None:
    """argmax or argmin along one axis: the first of the largest; a NaN is the largest."""
    kept = [d for d in range(len(x.shape)) if d != axis]
    out_strides = _of_kept(x, kept, out)
    if out_strides is None or 0 in x.shape or named(out.dtype) != "int64":
        return None
    outer, (xo, oo) = collapsed(
        [x.shape[d] for d in kept], [[x.strides[d] for d in kept], out_strides]
    )
    if named(x.dtype) in HALVES:
        return None
    T, sign = CTYPES[named(x.dtype)], ">" if kind == "argmax" else "<"  # noqa: N806
    n, step = x.shape[axis], x.strides[axis]
    search = [
        f"  for (i64 i = 1; i < {n} && t == t; i++) {{",
        f"    const {T} x = *({T}*)(xo + i * {step});",
        f"    if (x {sign} t || x != x) {{ t = x; at = i; }}",
        "  }",
    ]
    if n < FEW:  # without branches, which nobody could foresee
        search[0] = f"  for (i64 i = 1; i < {n}; i++) {{"
        search[2:3] = [
            f"    const bool other = (x {sign} t || x != x) && t == t;",
            "    t = other ? x : t;",
            "    at = other ? i : at;",
        ]
    if x.dtype.kind == "f" and step == x.dtype.itemsize and FEW <= n < 1 << 31:
        # First the extreme, then its first place: how many elements are left there at most.
        extreme = "max" if kind == "argmax" else "min"
        search = [
            "  int nan = 0;",
            f"  LOOP_FOR_{extreme}",
            f"  for (i64 i = 0; i < {n}; i++) {{",
            f"    const {T} x = (({T}*)xo)[i];",
            f"    t = x {sign} t ? x : t; nan |= x != x;",
            "  }",
            f"  const {T}* const row = ({T}*)xo;",
            "  if (nan) {",
            "    while (row[at] == row[at]) at++;",
            "  } else {",
            "    int left = 0;",
            '    _Pragma("omp simd reduction(max:left)")',
            f"    for (int i = 0; i < {n}; i++) {{",
            f"      const int own = row[i] == t ? {n} - i : 0;",
            "      left = own > left ? own : left;",
            "    }",
            f"    at = {n} - left;",
            "  }",
        ]
    return [
        f"{{ // {kind}",
        f"  char* const xb = P[{x.base}] + {x.offset};",
        f"  char* const ob = P[{out.base}] + {out.offset};",
        *open_loops("o", outer),
        f"  char* const xo = xb{steps('o', xo)};",
        f"  {T} t = *({T}*)xo; i64 at = 0;",
        *search,
        f"  *(i64*)(ob{steps('o', oo)}) = at;",
        *["  }"] * len(outer),
        "}",
    ]


def row_products(a: Place, b: Place, out: Place) -> list[str] | None:
    """The inner products of two arrays along their last dimension."""
    if not (a.dtype == b.dtype == out.dtype) or named(a.dtype) not in ("float32", "float64"):
        return None
    if a.shape != b.shape or 0 in a.shape or out.shape != a.shape[:-1]:
        return None
    T, item = CTYPES[named(a.dtype)], a.dtype.itemsize  # noqa: N806
    strides = [list(p.strides) for p in (a, b)]
    outer, (ao, bo, oo) = collapsed(
        out.shape, [strides[0][:-1], strides[1][:-1], list(out.strides)]
    )
    # A stride of one that the compiler knows makes loads of vectors.
    ai, bi = (s[-1] // item if s[-1] % item == 0 else None for s in strides)
    if ai is None or bi is None:
        return None
    n = a.shape[-1]
    return [
        f"{{ // products of rows, {a.shape}",
        *(
            f"  char* const {name}b = P[{p.base}] + {p.offset};"
            for name, p in (("a", a), ("b", b), ("y", out))
        ),
        *open_loops("o", outer),
        f"  const {T} *const x = ({T}*)(ab{steps('o', ao)});",
        f"  const {T} *const w = ({T}*)(bb{steps('o', bo)});",
        "  double total = 0;",
        f"  for (i64 start = 0; start < {n}; start += {RUN * LANES}) {{",
        f"  const i64 stop = {_end(RUN * LANES, n)};",
        f"  {T} t = 0;",
        '  _Pragma("omp simd reduction(+:t)")',
        f"  for (i64 i = start; i < stop; i++) t += x[i * {ai}] * w[i * {bi}];",
        "  total += t;",
        "  }",
        f"  *({T}*)(yb{steps('o', oo)}) = {T}(total);",
        *["  }"] * len(outer),
        "}",
    ]


# ------------------------------------------------------------------------------ products
def product(a: Place, b: Place, out: Place, matmul: bool) -> tuple[list[str], int] | None:
    """``out = a @ b`` as text, and how many bytes of scratch memory it wants."""
    if not (a.dtype == b.dtype == out.dtype) or named(a.dtype) not in ("float32", "float64"):
        return None
    if 0 in out.shape or 0 in a.shape or not a.shape or not b.shape:
        return None
    item = a.dtype.itemsize
    if any(s % item for p in (a, b, out) for s in p.strides):
        return None
    n, m = len(a.shape), len(b.shape)
    if not matmul and m > 2:
        return None
    # Everything as batches of (M, K) @ (K, N); a vector is a matrix with one row or column.
    sa = [s // item for s in a.strides]
    sb = [s // item for s in b.strides]
    so = [s // item for s in out.strides]
    M, am = (a.shape[-2], sa[-2]) if n > 1 else (1, 0)  # noqa: N806
    K, ak = a.shape[-1], sa[-1]  # noqa: N806
    N, bk, bn = (b.shape[-1], sb[-2], sb[-1]) if m > 1 else (1, sb[-1], 0)  # noqa: N806
    batch: list[tuple[int, int, int, int]] = []  # size, and steps of a, b and out
    rest = list(zip(out.shape, so))
    on = rest.pop()[1] if m > 1 else 0
    om = rest.pop()[1] if n > 1 else 0
    lead_a, lead_b = list(zip(a.shape, sa))[:-2], list(zip(b.shape, sb))[:-2]
    if matmul:
        for k, (size, step) in enumerate(reversed(rest), 1):
            ka = lead_a[-k] if k <= len(lead_a) else (1, 0)
            kb = lead_b[-k] if k <= len(lead_b) else (1, 0)
            batch.insert(0, (size, 0 if ka[0] == 1 else ka[1], 0 if kb[0] == 1 else kb[1], step))
    else:
        batch = [(size, step, 0, own) for (size, step), (_, own) in zip(lead_a, rest)]
    # Rows that follow each other like those of a bigger matrix make one.
    while batch and batch[-1][2] == 0 and n > 1:
        size, step, _, own = batch[-1]
        if step == M * am and own == M * om and M > 1:
            M *= size  # noqa: N806
            batch.pop()
        elif M == 1:
            M, am, om = size, step, own  # noqa: N806
            batch.pop()
        else:
            break
    T = CTYPES[named(a.dtype)]  # noqa: N806
    lines = [
        f"{{ // product of {M}x{K} and {K}x{N}",
        f"  {T}* const ab = ({T}*)(P[{a.base}] + {a.offset});",
        f"  {T}* const bb = ({T}*)(P[{b.base}] + {b.offset});",
        f"  {T}* const cb = ({T}*)(P[{out.base}] + {out.offset});",
        *open_loops("o", [size for size, *_ in batch]),
        f"  {T} *x = ab{steps('o', [s[1] for s in batch])};",
        f"  {T} *y = bb{steps('o', [s[2] for s in batch])};",
        f"  {T} *z = cb{steps('o', [s[3] for s in batch])};",
    ]
    room = 0
    if min(M, N) <= 4 and (ak == 1 or K == 1) and (bk == 1 or K == 1):
        if N <= M:
            call = f"inner_products<{T}>(x, {am}, y, {bn}, z, {om}, {on}, {M}, {N}, {K})"
        else:
            call = f"inner_products<{T}>(y, {bn}, x, {am}, z, {on}, {om}, {N}, {M}, {K})"
    elif (on == 1 or N == 1) and not (N == am == om == 1):
        call = f"product<{T}>(x, {am}, {ak}, y, {bk}, {bn}, z, {om}, {M}, {N}, {K}, ({T}*)room)"
        room = _room(item, M, N, K, ak, bk, bn)
    elif om == 1 or M == 1:  # the transposed product: its rows are contiguous, as those of sums
        call = f"product<{T}>(y, {bn}, {bk}, x, {ak}, {am}, z, {on}, {N}, {M}, {K}, ({T}*)room)"
        room = _room(item, N, M, K, bk, ak, am)
    else:
        return None
    return [*lines, f"  {call};", *["  }"] * len(batch), "}"], room


@cache
def _product_room() -> Any:
    function = libraries.load("products").product_room
    function.argtypes, function.restype = [ctypes.c_longlong] * 7, ctypes.c_longlong
    return function


def _room(item: int, *sizes: int) -> int:
    """How many bytes of scratch memory a product wants."""
    try:
        return int(_product_room()(item, *sizes))
    except (RuntimeError, OSError, subprocess.SubprocessError):
        return 0  # nothing will be compiled
