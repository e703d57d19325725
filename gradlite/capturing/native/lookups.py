"""Look-ups by indices, and running sums, products and extremes, as C++ text."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from gradlite.capturing.native.loops import Place, collapsed
from gradlite.capturing.native.reductions import open_loops, steps
from gradlite.capturing.native.types import CTYPES, HALVES, named

INDICES = ("int64", "int32")


def rows(
    kind: str, x: Place, indices: Sequence[Place], lead: int, values: Place, code: int
) -> list[str] | None:
    """Look up, set or add parts: ``values = x[:, ..., i, j, ...]``, or the reverse.

    Args:
        kind: "take", "set", or "add" for ``x[...] += values``.
        indices: for dimensions of ``x`` that follow each other; broadcast together.
        lead: how many dimensions are before those.
        code: what ends the segment when an index is out of range.
    """
    count = len(indices)
    if any(named(i.dtype) not in INDICES for i in indices) or len(x.shape) < lead + count:
        return None
    if _overlapping(kind, x, values, *indices):
        return None
    found = np.broadcast_shapes(*(i.shape for i in indices))
    before, after = x.shape[:lead], x.shape[lead + count :]
    whole = (*before, *found, *after)
    if len(values.shape) > len(whole) or (kind == "take" and values.shape != whole):
        return None
    spread = values.spread(whole)
    first, last = list(spread.strides[:lead]), list(spread.strides[lead + len(found) :])
    outer, (xo, vo) = collapsed(before, [list(x.strides[:lead]), first])
    # In this order whatever the strides are: of equal indices the last one is set.
    in_order = np.empty(found, np.uint8).strides
    middle, (_, vm, *im) = collapsed(
        found,
        [
            list(in_order),
            list(spread.strides[lead : lead + len(found)]),
            *(list(i.spread(found).strides) for i in indices),
        ],
    )
    inner, (xt, vt) = collapsed(after, [list(x.strides[lead + count :]), last])
    T, V = CTYPES[named(x.dtype)], CTYPES[named(values.dtype)]  # noqa: N806
    lines = [
        f"{{ // {kind} rows",
        f"  char* const xb = P[{x.base}] + {x.offset};",
        f"  char* const vb = P[{values.base}] + {values.offset};",
    ]
    lines += [f"  char* const b{n} = P[{i.base}] + {i.offset};" for n, i in enumerate(indices)]
    lines += [*open_loops("o", outer), *open_loops("m", middle)]
    for n, index in enumerate(indices):
        lines += _checked(f"b{n}{steps('m', im[n])}", index, x.shape[lead + n], f"i{n}", code)
    at = "".join(f" + i{n} * {x.strides[lead + n]}" for n in range(count))
    one = f"*({T}*)(xr{steps('t', xt)})"
    other = f"*({V}*)(vr{steps('t', vt)})"
    act = f"{other} = {V}({one});"
    if kind != "take":
        act = f"{one} {'+=' if kind == 'add' else '='} {T}({other});"
    return [
        *lines,
        f"  char* const xr = xb{at}{steps('o', xo)};",
        f"  char* const vr = vb{steps('o', vo)}{steps('m', vm)};",
        *open_loops("t", inner),
        f"  {act}",
        *["  }"] * (len(outer) + len(middle) + len(inner)),
        "}",
    ]


def nonzero(x: Place, fits: Place, places: Sequence[Place], count: int) -> list[str]:
    """Find where an array is not 0, and whether that is in ``count`` places.

    Args:
        places: for each dimension where to put the indices; none where ``count`` is 0.
    """
    lines = [
        f"{{ // places in {x.shape}",
        f"  char* const xb = P[{x.base}] + {x.offset};",
        *(f"  char* const b{n} = P[{p.base}] + {p.offset};" for n, p in enumerate(places)),
        "  i64 found = 0;",
        *open_loops("t", list(x.shape)),
        f"  if (*({CTYPES[named(x.dtype)]}*)(xb{steps('t', list(x.strides))}) != 0) {{",
        f"  if (found < {count}) {{",
    ]
    put = [f"*(i64*)(b{n} + found * {p.strides[0]})" for n, p in enumerate(places)]
    lines += [f"  {to} = t{n};" for n, to in enumerate(put)]
    lines += ["  }", "  found++;", "  }", *["  }"] * len(x.shape)]
    lines += [
        f"  *(bool*)(P[{fits.base}] + {fits.offset}) = found == {count};",
        f"  for (; found < {count}; found++) {{",
        *(f"  {to} = 0;" for to in put),
        "  }",
        "}",
    ]
    return lines


def along(
    kind: str, x: Place, index: Place, axis: int, values: Place, code: int
) -> list[str] | None:
    """`numpy.take_along_axis` ("take") or `numpy.put_along_axis` ("set")."""
    if named(index.dtype) not in INDICES or len(x.shape) != len(index.shape):
        return None
    if _overlapping(kind, x, values, index):
        return None
    # Broadcast together but for the axis, along which the index has a length of its own.
    shape = list(np.broadcast_shapes(_without(x.shape, axis), _without(index.shape, axis)))
    shape[axis] = index.shape[axis]
    in_order = np.empty(tuple(shape), np.uint8).strides  # of equal indices the last one is set
    if values.shape != tuple(shape) and kind == "take":
        return None
    if len(values.shape) > len(shape) or 0 in x.shape:
        return None
    own = list(x.spread((*shape[:axis], x.shape[axis], *shape[axis + 1 :])).strides)
    step, own[axis] = own[axis], 0
    loops, (_, vs, ns, xs) = collapsed(
        shape,
        [
            list(in_order),
            list(values.spread(tuple(shape)).strides),
            list(index.spread(tuple(shape)).strides),
            own,
        ],
    )
    T, V = CTYPES[named(x.dtype)], CTYPES[named(values.dtype)]  # noqa: N806
    one = f"*({T}*)(xb + at * {step}{steps('o', xs)})"
    other = f"*({V}*)(vb{steps('o', vs)})"
    return [
        f"{{ // {kind} along dimension {axis}",
        f"  char* const xb = P[{x.base}] + {x.offset};",
        f"  char* const ib = P[{index.base}] + {index.offset};",
        f"  char* const vb = P[{values.base}] + {values.offset};",
        *open_loops("o", loops),
        *_checked(f"ib{steps('o', ns)}", index, x.shape[axis], "at", code),
        f"  {other} = {V}({one});" if kind == "take" else f"  {one} = {T}({other});",
        *["  }"] * len(loops),
        "}",
    ]


def _overlapping(kind: str, x: Place, values: Place, *indices: Place) -> bool:
    """Whether what is written shares memory with what is read: NumPy would copy that first."""
    written, read = (values, x) if kind == "take" else (x, values)
    return any(written.overlaps(place) for place in (read, *indices))


def _without(shape: tuple[int, ...], axis: int) -> tuple[int, ...]:
    return (*shape[:axis], 1, *shape[axis + 1 :])


def _checked(address: str, index: Place, size: int, name: str, code: int) -> list[str]:
    """The lines that read an index, count it from the end when negative, and refuse a wrong one."""
    return [
        f"  i64 {name} = *({CTYPES[named(index.dtype)]}*)({address});",
        f"  if ({name} < 0) {name} += {size};",
        f"  if ({name} < 0 || {name} >= {size}) return {code};",
    ]


# How a running value t takes the next one, x.
RUNNING = {
    "add": "t + x",
    "multiply": "t * x",
    "maximum": "f_max(t, x)",
    "minimum": "f_min(t, x)",
}


def running(kind: str, x: Place, axis: int, out: Place) -> list[str] | None:
    """``ufunc.accumulate`` along a dimension, in the dtype of the result."""
    if x.shape != out.shape or 0 in x.shape or named(x.dtype) in HALVES:
        return None
    kinds = x.dtype.kind + out.dtype.kind
    if x.dtype != out.dtype and kinds not in ("ii", "uu", "iu", "ui", "bi", "bu", "ff"):
        return None
    if out.dtype.kind == "b" or (x.overlaps(out) and not x.coincides(out)):
        return None
    shape = _without(x.shape, axis)
    loops, (xs, ys) = collapsed(shape, [list(x.strides), list(out.strides)])
    S, T = CTYPES[named(x.dtype)], CTYPES[named(out.dtype)]  # noqa: N806
    return [
        f"{{ // running {kind} along dimension {axis}",
        f"  char* const xb = P[{x.base}] + {x.offset};",
        f"  char* const yb = P[{out.base}] + {out.offset};",
        *open_loops("o", loops),
        f"  {T} t = *({S}*)(xb{steps('o', xs)});",
        f"  *({T}*)(yb{steps('o', ys)}) = t;",
        f"  for (i64 i = 1; i < {x.shape[axis]}; i++) {{",
        f"    const {T} x = *({S}*)(xb + i * {x.strides[axis]}{steps('o', xs)});",
        f"    t = {RUNNING[kind]};",
        f"    *({T}*)(yb + i * {out.strides[axis]}{steps('o', ys)}) = t;",
        "  }",
        *["  }"] * len(loops),
        "}",
    ]
