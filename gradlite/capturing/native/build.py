"""NativePlan: a plan whose calls are compiled, as far as they can be, into a few functions."""

from __future__ import annotations

import ctypes
import os
import re
import subprocess
import zlib
from collections.abc import Iterable, Iterator, Sequence
from importlib.resources import files
from itertools import pairwise
from typing import Any

import numpy as np

from gradlite.backends import libraries, native, special
from gradlite.backends.threads import use_threads
from gradlite.capturing.arrays import bounds
from gradlite.capturing.calls import MADE, Buffer, Call, HostCall, Ref, refs_of
from gradlite.capturing.native.fusion import fused
from gradlite.capturing.native.inputs import Pointers
from gradlite.capturing.native.layout import batches_last
from gradlite.capturing.native.loops import ALWAYS, Place, Statement, emit, joins
from gradlite.capturing.native.optimizers import native_optimizer
from gradlite.capturing.native.segments import Segment
from gradlite.capturing.native.translate import Translator
from gradlite.capturing.plan import Plan, Step

MEMORY = re.compile(r"P\[(\d+)\] \+ (\d+)")
RETURN = re.compile(r"return (-?\d+);")
# The libraries that steps call, and what the calls look like.
LIBRARIES = {
    "products": ("product<", "inner_products<"),
    "convolution": (" convolve<", " weight_gradient<", " arranged<"),
    "batches": (" convolve_batch<", " weight_gradient_batch<"),
    "attention": (" attend(", " attention_gradients("),
}
ARENA = 0  # place of the plan's own memory in the table of pointers


class NativePlan(Plan):
    """A plan that runs compiled code wherever its calls have a translation.

    Attributes:
        left: the calls that stay array calls, by position; all when nothing is compiled.
        reason: why nothing is compiled, or "".
    """

    def __init__(
        self,
        calls: list[Any],
        kept: Iterable[Ref],
        inputs: Sequence[np.ndarray[Any, Any] | None] = (),
    ) -> None:
        self.reason, self.left = "", list[int]()
        self._pointers: Pointers | None = None  # to inputs that are not copied
        self._copied: list[tuple[int, np.ndarray[Any, Any]]] = []
        super().__init__(calls, kept, inputs)

    def _settle(self) -> None:
        """Find a place for everything but what loops make and read, and for scratch memory."""
        self._spread_out()
        wanted = self._translate()
        unstored = self._unstored()
        settled = False
        while not settled:
            self._lay_out(unstored, wanted)
            self._translate()
            found = unstored & self._unstored()  # other places may part what was one loop
            settled, unstored = found == unstored, found

    def _translate(self) -> dict[int, int]:
        """Translate the calls; the bytes of scratch memory that they want, by position."""
        self._bases: dict[Buffer, int] = {}
        self._starts: dict[Buffer, int] = {}
        self._roots: list[Any] = [None]  # the arena, to come
        last: dict[Buffer, int] = {}
        for position, call in enumerate(self.calls):
            for ref in refs_of(call):
                last[ref.buffer.origin] = position
        pinned = self.pinned

        def last_mention(ref: Ref) -> int:
            buffer = ref.buffer.origin
            return last[buffer] if buffer.kind == MADE and buffer not in pinned else ALWAYS

        translator = Translator(self._place, self._constant, last_mention)
        self._pieces: list[Any] = []
        wanted: dict[int, int] = {}
        for i, call in enumerate(self.calls):
            translator.room = 0
            self._pieces.append(translator(i, call))
            if translator.room:
                wanted[i] = translator.room
        return wanted

    def _unstored(self) -> set[Buffer]:
        """The buffers that one loop makes and it alone reads."""
        loops: dict[int, int] = {}  # the calls that are part of one loop alone
        for number, group in enumerate(_grouped(self._pieces)):
            for statement in group if isinstance(group, list) else ():
                position = statement.position
                loops[position] = number if loops.get(position, number) == number else -1
        homes: dict[Buffer, set[int]] = {}
        for position, call in enumerate(self.calls):
            for ref in refs_of(call):
                homes.setdefault(ref.buffer.origin, set()).add(loops.get(position, -1))
        return {
            buffer
            for buffer, home in homes.items()
            if len(home) == 1 and -1 not in home
            if buffer.kind == MADE and buffer not in self.pinned
        }

    def _steps(self) -> list[Step]:
        """The calls of compiled functions, and those that stay array calls."""
        self._roots[ARENA] = self.arena
        pieces = self._pieces
        rooms = [self._rooms.get(i, 0) for i in range(len(pieces))]
        functions: list[list[tuple[list[str], int]]] = []
        numbered: list[int] = []  # functions by number, and the positions of the calls that stay
        position = 0
        while position < len(pieces):
            if pieces[position] is None:
                numbered.append(-1 - position)
                position += 1
                continue
            stop = position
            while stop < len(pieces) and pieces[stop] is not None:
                stop += 1
            numbered.append(len(functions))
            functions.append(_blocks(pieces[position:stop], rooms[position:stop]))
            position = stop
        source = _source(functions)
        self._source = zlib.compress(source.encode())
        lines = [line for blocks in functions for block, _ in blocks for line in block]
        try:
            code = ctypes.CDLL(str(native.build("captured", source, libraries.options())))
            use_threads(code)
            optimizers = libraries.load("optimizers")
            for name, words in LIBRARIES.items():
                if any(word in line for line in lines for word in words):
                    pointers = ctypes.c_void_p.in_dll(libraries.load(name), name)
                    ctypes.c_void_p.in_dll(code, name).value = ctypes.addressof(pointers)
        except (RuntimeError, OSError, subprocess.SubprocessError) as error:
            self.reason = str(error).splitlines()[0]
            self.left = list(range(len(pieces)))
            self._lay_out()
            self._allocate()
            return super()._steps()
        self.left = [i for i, piece in enumerate(pieces) if piece is None]
        self.silent = all(isinstance(self.calls[i], HostCall) for i in self.left)
        steps: list[Step] = []
        self._table = (ctypes.c_void_p * len(self._roots))(
            *[root.__array_interface__["data"][0] for root in self._roots]
        )
        table = ctypes.addressof(self._table)
        self._find_direct(pieces)
        for entry in numbered:
            if entry >= 0:
                steps.append((Segment(getattr(code, f"segment_{entry}"), table), ()))
                continue
            call, made = self.calls[-1 - entry], None
            if isinstance(call, HostCall):
                before = steps[-1][0] if steps else None
                segment = before if isinstance(before, Segment) else None
                made = native_optimizer(call, self.array, optimizers, segment)
            if made is None:
                steps.append(self._step(call))
                continue
            self.compiled_steps.add(-1 - entry)
            if segment is not None:
                steps.pop()  # the optimizer runs it
            steps.append((made, ()))
        return steps

    @property
    def source(self) -> str:
        """The generated C++."""
        return zlib.decompress(self._source).decode()

    def release(self) -> None:
        """Let go of what no replay needs: the calls, and the places of their arrays."""
        super().release()
        self._bases.clear()
        self._starts.clear()
        self._pieces = []

    def _find_direct(self, pieces: Sequence[Any]) -> None:
        """Which inputs compiled code alone reads: it does so where they are, without a copy."""
        elsewhere = set(self.pinned)
        written: set[Buffer] = set()
        # What is written to may be an input too, whose values have to be copied then.
        taken = [bounds(self.arena)]
        for call, piece in zip(self.calls, pieces):
            if isinstance(call, Call):
                written.update(ref.buffer for ref in (*call.outs, *call.writes))
            elif isinstance(call, HostCall):
                taken += map(bounds, call.changes)
            if piece is None:
                elsewhere.update(ref.buffer for ref in refs_of(call))
        places, sizes = {}, {}
        for buffer, number in self._bases.items():
            for place, array in enumerate(self.inputs):
                if array is buffer.root and array.nbytes:
                    if buffer not in elsewhere and buffer not in written:
                        places[place], sizes[place] = number, array.nbytes
                        self.inputs[place] = self._roots[number] = None
        taken += [(b.start, b.stop) for b in written if b.kind != MADE]
        self._pointers = Pointers(places, sizes, self._table, taken) if places else None
        self._copied = [(i, array) for i, array in enumerate(self.inputs) if array is not None]

    def replay(self, values: Sequence[Any] = ()) -> None:
        """Put the inputs, or their addresses, in their places, and make all calls."""
        if self._pointers is None:
            super().replay(values)
            return
        for place, array in self._copied:
            np.copyto(array, values[place])
        held = self._pointers.point(list(values))
        self.run()
        del held  # which compiled code has read

    def prepared(self, calls: list[Any]) -> list[Any]:
        """The calls in the form that compiled code does best."""
        return batches_last(fused(calls, self.pinned), self.pinned)

    def loop_of(self, call: Any) -> Any:
        """The shape of what is made element by element; None for all else."""
        if not isinstance(call, Call) or len(call.outs) != 1:
            return None
        function = call.function
        own = isinstance(function, np.ufunc) and function.signature is None
        return call.outs[0].shape if own or function is special.normal_cdf32 else None

    def notes(self) -> tuple[str, set[int]]:
        """What is compiled, and the positions of the calls that are not."""
        if self.reason:
            return f"not compiled: {self.reason}", set(self.left)
        left = set(self.left) - self.compiled_steps
        done = len(self.calls) - len(left)
        return f"{done} calls are compiled; those with a star are not", left

    def _place(self, ref: Ref) -> Place:
        buffer = ref.buffer.origin
        if buffer.kind == MADE:
            offset = self.places[buffer] + ref.offset
            return Place(ARENA, offset, ref.shape, ref.strides, ref.dtype)
        base = self._bases.get(buffer)
        if base is None:
            base = self._bases[buffer] = len(self._roots)
            # The root's first address may lie behind the buffer's: negative strides.
            root = buffer.root
            self._roots.append(root)
            self._starts[buffer] = buffer.start - root.__array_interface__["data"][0]
        return Place(base, ref.offset + self._starts[buffer], ref.shape, ref.strides, ref.dtype)

    def _constant(self, array: np.ndarray[Any, Any]) -> Place:
        self._roots.append(array)
        return Place(len(self._roots) - 1, 0, array.shape, array.strides, array.dtype)


def _grouped(pieces: Sequence[Any]) -> Iterator[list[Statement] | int]:
    """Runs of statements that are joined to loops, and the positions of all other calls."""
    group: list[Statement] = []
    for position, piece in enumerate(pieces):
        if piece and isinstance(piece[0], Statement):
            for statement in piece:
                if not joins(group, statement):
                    yield group
                    group = []
                group.append(statement)
        elif piece or piece is None:
            if group:
                yield group
            group = []
            yield position
    if group:
        yield group


def _blocks(pieces: list[Any], rooms: list[int]) -> list[tuple[list[str], int]]:
    """The pieces of one function as blocks of lines, each with the place of its scratch memory."""
    blocks: list[tuple[list[str], int]] = []
    groups = [*_grouped(pieces), ALWAYS]
    for group, following in pairwise(groups):
        if isinstance(group, int):
            blocks.append((pieces[group], rooms[group]))
            continue
        end = group[-1].position + 1
        if isinstance(following, list):
            end = min(end, following[0].position)
        block = emit(group, end)
        if block:
            blocks.append((block, 0))
    return blocks


def _source(functions: list[list[tuple[list[str], int]]]) -> str:
    """The C++ text, each block a function of its own: compilers optimise big ones badly.

    Blocks that differ in their memory alone share a function, and what calls them is a table, not
    code: that keeps the text of loops over time short, and quick to compile.
    """
    parts: dict[str, int] = {}  # texts of blocks, and their numbers
    segments = []
    for number, blocks in enumerate(functions):
        words: list[str] = []
        calls: list[str] = []
        most = 0
        for block, room in blocks:
            memory: dict[str, int] = {}
            codes: list[str] = []

            def pointer(match: re.Match[str], memory: dict[str, int] = memory) -> str:
                return f"A[{memory.setdefault(f'at({match[1]}, {match[2]})', len(memory))}]"

            def code(match: re.Match[str], codes: list[str] = codes) -> str:
                codes.append(match[1])
                return "return 1;"

            text = MEMORY.sub(pointer, "\n".join(f"  {line}" for line in block))
            text = RETURN.sub(code, text)
            part = parts.setdefault(text, len(parts))
            words += memory
            most = max(most, len(memory))
            calls.append(f"{{part_{part}, {room}, {len(memory)}, {codes[0] if codes else 0}}}")
        listed = ",\n  ".join(calls)
        segments.append(
            f"static const i64 words_{number}[] = {{{', '.join(words)}}};\n"
            f"static const Call calls_{number}[] = {{\n  {listed}\n}};\n"
            f'extern "C" i64 segment_{number}(char* const* P) {{\n'
            f"  return run<{most}>(calls_{number}, {len(calls)}, words_{number}, P);\n}}"
        )
    texts = [
        f"NEVER_INLINE i64 part_{number}(char* const* A, char* room) {{\n"
        f"  (void)room;\n{text}\n  return 0;\n}}"
        for text, number in parts.items()
    ]
    used = ["pooling"] if any("const Windows" in text for text in texts) else []
    shared = libraries.text("prelude", "shuffles", "images", "heads", *used)
    return "\n\n".join([shared, _called(), *texts, *segments]) + "\n"


def _called() -> str:
    return files("gradlite.capturing.native").joinpath("called.hpp").read_text("utf-8")


def available() -> bool:
    """Whether plans can be compiled: there is a compiler, and GRADLITE_NATIVE is not 0."""
    return os.environ.get("GRADLITE_NATIVE", "1") != "0" and native.compiler() is not None
