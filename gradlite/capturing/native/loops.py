"""Loops over elements: runs of calls over the same elements become one loop.

A value that one call of the run makes and another reads stays in a register, and what nothing
outside of the run reads is not stored at all.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from gradlite.capturing.native.types import CTYPES, HALVES, computing, literal, named

Expression = Callable[[list[str]], str]
ALWAYS = 1 << 62  # behind all calls: when something outside of the plan reads an array


@dataclass(frozen=True)
class Place:
    """An array as the generated code sees it: base pointer, offset in bytes, layout."""

    base: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]

    def spread(self, shape: tuple[int, ...]) -> Place:
        """The same array broadcast to a shape."""
        missing = len(shape) - len(self.shape)
        strides = (0,) * missing + tuple(
            0 if n == 1 and m != 1 else s
            for n, m, s in zip(self.shape, shape[missing:], self.strides)
        )
        return Place(self.base, self.offset, shape, strides, self.dtype)

    @cached_property  # asked for thousands of times
    def span(self) -> tuple[int, int]:
        """The first byte, and the one behind the last."""
        low = high = self.offset
        for n, s in zip(self.shape, self.strides):
            if s < 0:
                low += s * (n - 1)
            else:
                high += s * (n - 1)
        return low, high + self.dtype.itemsize

    def overlaps(self, other: Place) -> bool:
        """Whether the two share memory, to be on the safe side."""
        if self.base != other.base:
            return False
        (a, b), (c, d) = self.span, other.span
        return a < d and c < b

    def coincides(self, other: Place) -> bool:
        """Whether element i of one is element i of the other, perhaps seen as another dtype."""
        return (
            self.base == other.base
            and self.offset == other.offset
            and self.dtype.itemsize == other.dtype.itemsize
            and (
                self.strides == other.strides
                or all(n == 1 or s == t for n, s, t in zip(self.shape, self.strides, other.strides))
            )
        )


@dataclass(frozen=True)
class Statement:
    """``out[i] = expression(operands[i], ...)`` for every i.

    Attributes:
        operands: places (broadcast to the shape of ``out``) and numbers.
        kinds: the dtypes in which the operands are read.
        result: the dtype of the expression's value.
        position: the number of the call.
        last: the number of the last call that mentions ``out``, or `ALWAYS`.
        note: the call's name, for the reader of the generated code.
    """

    out: Place
    operands: tuple[Any, ...]
    kinds: tuple[np.dtype[Any], ...]
    result: np.dtype[Any]
    expression: Expression
    position: int
    last: int
    note: str

    @cached_property
    def read(self) -> list[Place]:
        """The operands that are arrays."""
        return [operand for operand in self.operands if isinstance(operand, Place)]

    @cached_property
    def touched(self) -> list[Place]:
        """All arrays."""
        return [*self.read, self.out]


MOST = 96  # statements of one loop: as many as compile quickly
SHARED = 1 << 15  # elements times statements for one thread: some 10 us of work


def joins(group: Sequence[Statement], new: Statement) -> bool:
    """Whether a statement may run in the same loop as those before it."""
    if not group:
        return True
    if group[0].out.shape != new.out.shape or len(group) >= MOST:
        return False
    # Planning asks this more often than anything else: the tests of `Place.overlaps` in line.
    own, (low, high) = new.out, new.out.span
    read = [(place, place.base, *place.span) for place in new.read]
    for earlier in group:
        base, (start, stop) = earlier.out.base, earlier.out.span
        for place, at, first, end in read:
            if first < stop and start < end and at == base and not place.coincides(earlier.out):
                return False
        for place in earlier.touched:
            start, stop = place.span
            if low < stop and start < high and own.base == place.base and not own.coincides(place):
                return False
    return True


def collapsed(shape: Sequence[int], strides: list[list[int]]) -> tuple[list[int], list[list[int]]]:
    """The fewest loops for some arrays: ``(sizes, strides of each array)``, outermost first.

    The first array's strides decide the order.
    """
    dims = [d for d, n in enumerate(shape) if n != 1]
    dims.sort(key=lambda d: -abs(strides[0][d]))
    sizes: list[int] = []
    columns: list[list[int]] = []
    for d in dims:
        step = [s[d] for s in strides]
        if sizes and all(c == s * shape[d] for c, s in zip(columns[-1], step)):
            sizes[-1] *= shape[d]
            columns[-1] = step
        else:
            sizes.append(shape[d])
            columns.append(step)
    return sizes, [[c[i] for c in columns] for i in range(len(strides))]


def emit(group: Sequence[Statement], end: int) -> list[str]:
    """The C++ lines of one loop, which stores what calls from number ``end`` on mention.

    No line when that is nothing.
    """
    stored = [s.last >= end for s in group]
    if not any(stored):
        return []
    shape = group[0].out.shape
    places: list[Place] = [group[0].out]
    for s in group:
        for p in (*s.operands, s.out):
            if isinstance(p, Place) and p not in places:
                places.append(p)
    sizes, strides = collapsed(shape, [list(p.strides) for p in places])
    lines = ["{ // " + ", ".join(s.note for s in group)]
    for i, p in enumerate(places):
        lines.append(f"  char* const q{i} = P[{p.base}] + {p.offset};")
    each = _chunk(sizes, len(group))
    if each:
        outer = "i0" if len(sizes) > 1 else "i"
        lines += [
            f"  if (threads() > 1) parallel(true, {-(-sizes[0] // each)}, [=](i64 chunk) {{",
            f"  const i64 from = chunk * {each};",
            f"  const i64 to = from + {each} < {sizes[0]} ? from + {each} : {sizes[0]};",
            *_nest(
                group,
                stored,
                places,
                sizes,
                strides,
                f"i64 {outer} = from; {outer} < to; {outer}++",
            ),
            "  }); else {",
        ]
    lines += _nest(group, stored, places, sizes, strides)
    return [*lines, "  }}" if each else "}"]


def _nest(
    group: Sequence[Statement],
    stored: Sequence[bool],
    places: list[Place],
    sizes: list[int],
    strides: list[list[int]],
    outermost: str | None = None,
) -> list[str]:
    """The loops themselves; ``outermost`` replaces the bounds of the first one."""
    lines: list[str] = []
    depth = len(sizes)
    bounds = [f"i64 i{k} = 0; i{k} < {n}; i{k}++" for k, n in enumerate(sizes)]
    if depth:
        bounds[-1] = f"i64 i = 0; i < {sizes[-1]}; i++"
        bounds[0] = outermost or bounds[0]
    lines += [f"  for ({bound}) {{" for bound in bounds[:-1]]
    for i, own in enumerate(strides):
        terms = [f" + i{k} * {own[k]}" for k in range(depth - 1) if own[k]]
        lines.append(f"  char* const p{i} = q{i}{''.join(terms)};")
    body: list[str] = []
    numbers = itertools.count()
    values: list[tuple[Place, str]] = []  # what is in registers
    stores: list[tuple[Place, str]] = []

    def address(p: Place) -> str:
        i = places.index(p)
        # Compilers make no vectors of loops that touch bool in memory.
        kind = "u8" if p.dtype.kind == "b" else CTYPES[named(p.dtype)]
        step = strides[i][-1] if depth else 0
        if step == 0:
            return f"*({kind}*)p{i}"
        if step == p.dtype.itemsize:
            return f"(({kind}*)p{i})[i]"
        return f"*({kind}*)(p{i} + i * {step})"

    def read(p: Place, kind: np.dtype[Any]) -> str:
        for known, name in reversed(values):
            if p.coincides(known):
                if known.dtype != p.dtype:
                    name = f"bits<{CTYPES[named(p.dtype)]}>({name})"
                break
        else:
            name = f"r{next(numbers)}"
            line = f"  const {CTYPES[named(p.dtype)]} {name} = {address(p)};"
            i = places.index(p)
            written = any(p.overlaps(s.out) for s in group)
            if depth and strides[i][-1] == 0 and not written:
                lines.append(line)  # the same in the whole inner loop
            else:
                body.append("  " + line)
            values.append((p, name))
        return (
            name
            if p.dtype == kind and named(kind) not in HALVES
            else f"({computing(kind)})({name})"
        )

    for number, s in enumerate(group):
        texts = [
            f"({read(o, k) if isinstance(o, Place) else literal(o, k)})"
            for o, k in zip(s.operands, s.kinds)
        ]
        kind = CTYPES[named(s.out.dtype)]
        value = s.expression(texts)
        body.append(f"    const {kind} v{number} = ({kind})(({computing(s.result)})({value}));")
        # Stores come last, and one for each element: what a store just wrote makes loads wait whose
        # addresses look alike to the processor.
        stores = [(p, text) for p, text in stores if not p.coincides(s.out)]
        if stored[number]:
            stores.append((s.out, f"    {address(s.out)} = v{number};"))
        values[:] = [(p, n) for p, n in values if not p.overlaps(s.out)]
        values.append((s.out, f"v{number}"))
    body += [text for _, text in stores]
    if not depth:
        return lines + body
    return [*lines, f"  LOOP for ({bounds[-1]}) {{", *body, "  }", *["  }"] * (depth - 1)]


def _chunk(sizes: Sequence[int], statements: int) -> int:
    """How much of the outer loop one thread takes at a time; 0 where threads are not worth it."""
    inner = math.prod(sizes[1:]) * statements
    if not sizes or sizes[0] * inner < 4 * SHARED:
        return 0
    return max(SHARED // inner, 1)
