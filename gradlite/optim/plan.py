"""How an elementwise optimizer lays out its state and cuts a step into array calls."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from gradlite.device import array_module, device_of
from gradlite.ops import guard
from gradlite.ops.namespaces import NAMESPACES
from gradlite.tensor import Tensor, gradient_edge, wrap

# The scratch arrays of a block should stay in the second-level cache between a rule's passes.
BLOCK_BYTES = 1 << 20
# From this size on, a parameter is worth array calls of its own: its gradient is not copied.
ALONE = 1 << 15
# In place, vector instructions are fastest on arrays that start at such an address.
ALIGNMENT = 64


def library_of(array: Any) -> Any:
    """NumPy or CuPy itself, also while a step is recorded: plans outlive that."""
    return np if isinstance(array, np.ndarray) else array_module(device_of(array))


def allocate(xp: Any, n: int, dtype: np.dtype[Any], fill: float) -> Any:
    """A flat array of ``n`` elements, aligned for vector instructions."""
    if xp is not np:
        return xp.full(n, fill, dtype)
    raw = np.empty(n * dtype.itemsize + ALIGNMENT, np.uint8)
    start = -raw.__array_interface__["data"][0] % ALIGNMENT
    array = raw[start : start + n * dtype.itemsize].view(dtype)
    array.fill(fill)
    return array


def place(array: Any) -> tuple[Any, ...]:
    """What parameters must share to be updated together: dtype and device."""
    device = device_of(array)
    return array.dtype, device.type, device.index


def block_sizes(xp: Any, dtype: np.dtype[Any], copies: bool) -> tuple[int, int]:
    """The largest block, and the smallest parameter that gets its own: on a GPU all go together.

    ``copies`` says that the rule copies every gradient, however it lies.
    """
    if xp is not np:
        return 1 << 62, 1 << 62
    limit = BLOCK_BYTES // dtype.itemsize
    return limit, limit if copies else min(ALONE, limit)


class Segment:
    """The state of parameters of one dtype and device that joined in the same step.

    Attributes:
        buffers: per name, one flat array with a part for every parameter.
        counters: one row per counter and one column per parameter, on the host or the device.
    """

    __slots__ = ("buffers", "counters")

    def __init__(self, buffers: dict[str, Any], counters: Any) -> None:
        self.buffers, self.counters = buffers, counters


class Slot:
    """Where the state of one parameter lies: its segment, column, and part of the buffers."""

    __slots__ = ("param", "entries", "segment", "column", "start", "stop")

    def __init__(
        self,
        param: Tensor,
        entries: dict[str, Tensor],
        segment: Segment,
        column: int,
        start: int,
        stop: int,
    ) -> None:
        self.param, self.entries, self.segment = param, entries, segment
        self.column, self.start, self.stop = column, start, stop

    def serves(self, param: Tensor, state: Any, names: Iterable[str]) -> bool:
        """Whether this is still the parameter's state, with everything a rule asks for."""
        buffers = self.segment.buffers
        return (
            self.param is param
            and self.stop - self.start == param.array.size
            and all(name in buffers for name in names)
            and all(state.get(name) is tensor for name, tensor in self.entries.items())
            and all(buffer.dtype == param.array.dtype for buffer in buffers.values())
        )


@guard.on_its_device
def build_segment(
    params: Sequence[Tensor],
    buffers: dict[str, float],
    counters: dict[str, float],
    counter_dtype: Any,
    on_device: bool = False,
    copies: bool = False,
) -> list[Slot]:
    """Allocate the state of parameters that share a `place`, filled with initial values.

    With ``on_device``, the counters are where the parameters are; ``copies``: see `block_sizes`.
    """
    array = params[0].array
    xp, dtype = library_of(array), array.dtype
    limit, alone = block_sizes(xp, dtype, copies)
    per_line = ALIGNMENT // dtype.itemsize
    starts, total, run = [], 0, 0
    for p in params:
        n = p.array.size
        # Here a new block will begin, or what a kernel reads in vectors.
        if n >= alone or run + n > limit or xp is not np:
            total, run = -(-total // per_line) * per_line, 0
        starts.append(total)
        total += n
        run = run + n if n < alone else limit
    segment = Segment(
        {name: allocate(xp, total, dtype, fill) for name, fill in buffers.items()},
        (xp if on_device else np).empty((len(counters), len(params)), counter_dtype),
    )
    for row, value in enumerate(counters.values()):
        segment.counters[row].fill(value)
    slots = []
    for column, (p, start) in enumerate(zip(params, starts)):
        stop = start + p.array.size
        entries = {
            name: wrap(segment.counters[row, column, ...])
            for row, name in enumerate(counters)
            if not name.startswith("_")
        }
        for name, buffer in segment.buffers.items():
            entries[name] = wrap(buffer[start:stop].reshape(p.array.shape))
        slots.append(Slot(p, entries, segment, column, start, stop))
    return slots


class Block:
    """A run of elements that the rule is applied to at once.

    Attributes:
        numbers: of the gradients that belong to it.
        params: the parameters, or a slice of a large one.
        parts: where each of them lies in ``out``, in its shape.
        copies: where each of them lies in ``param``, for rules that read them.
        bounds: None, or where the slice begins and ends.
        grad: the gradient that the rule reads: mostly ``out``, or the user's own array.
        out: an array for what is to be subtracted from the parameters.
        param: an array for copies of the parameters, or None.
        state: the flat state, in the order of `ElementwiseOptimizer._buffers`.
        scratch: arrays for intermediate results.
    """

    __slots__ = (
        "bounds",
        "copies",
        "grad",
        "numbers",
        "out",
        "param",
        "params",
        "parts",
        "scratch",
        "state",
    )

    def __init__(self, scratch: Sequence[Any], state: tuple[Any, ...], reads_param: bool) -> None:
        self.numbers: list[int] = []
        self.params: list[Any] = []
        self.parts: list[Any] = []
        self.copies: list[Any] = []
        self.bounds: tuple[int, int] | None = None
        self.out, *rest = scratch
        self.grad = self.out
        self.param = rest.pop() if reads_param else None
        self.state, self.scratch = state, tuple(rest)

    def add(self, number: int, param: Any, start: int) -> None:
        """Let gradient ``number`` and its parameter take part, from ``start`` on."""
        self.numbers.append(number)
        self.params.append(param)
        stop = start + param.size
        self.parts.append(self.out[start:stop].reshape(param.shape))
        if self.param is not None:
            self.copies.append(self.param[start:stop].reshape(param.shape))

    def select(self, grads: list[Any]) -> list[Any]:
        """This block's part of the gradients of the whole group."""
        if self.bounds is not None:
            start, stop = self.bounds
            return [grads[self.numbers[0]].reshape(-1)[start:stop]]
        return [grads[i] for i in self.numbers]


class Cohort:
    """Parameters that have been updated equally often.

    Attributes:
        launcher: of the kernel that updates them, or None.
        members: with a launcher, (number of the gradient, parameter, state, slot) of each.
        blocks: without one, what the rule is applied to.
        on_device: whether the counters are there, so that the host does not know them.
        rows: for each counter on the host, the parts of `Segment.counters` that hold it.
        values: what these parts hold.
    """

    __slots__ = (
        "_cells",
        "_constants",
        "_held",
        "blocks",
        "launcher",
        "members",
        "on_device",
        "place",
        "round",
        "rows",
        "values",
        "xp",
    )

    def __init__(
        self,
        array: Any,
        slots: Sequence[Slot],
        launcher: Any = None,
        on_device: bool = False,
    ) -> None:
        self.place, dtype = place(array), array.dtype
        self.xp, self.launcher, self.on_device = library_of(array), launcher, on_device
        self.rows: list[list[np.ndarray[Any, Any]]] = []
        self.round: Any = float
        self.blocks: list[Block] = []
        self.members: list[tuple[int, Any, tuple[Any, ...], Slot | None]] = []
        if slots and not on_device:
            self.round = slots[0].segment.counters.dtype.type
            runs: list[tuple[np.ndarray[Any, Any], int, int]] = []
            for slot in slots:
                counters, column = slot.segment.counters, slot.column
                if runs and runs[-1][0] is counters and runs[-1][2] == column:
                    runs[-1] = (counters, runs[-1][1], column + 1)
                else:
                    runs.append((counters, column, column + 1))
            self.rows = [
                [counters[row, start:stop] for counters, start, stop in runs]
                for row in range(len(runs[0][0]))
            ]
        self.values = tuple(row[0].item(0) for row in self.rows)
        # NumPy is fastest with 0-d arrays of the right dtype; half precision is computed in
        # single. CuPy passes Python numbers to its kernels without a copy to the device.
        self._cells = np.empty(0, np.float32 if dtype.itemsize < 4 else dtype)
        self._constants: list[Any] = []
        self._held: Sequence[float] = ()

    def numbers(self) -> list[int]:
        """The numbers of the gradients that belong here."""
        if self.launcher is not None:
            return [member[0] for member in self.members]
        return sorted({number for block in self.blocks for number in block.numbers})

    def refresh(self) -> bool:
        """Read the counters, which others may have set; False when they differ by now."""
        values = []
        for parts in self.rows:
            value = parts[0].item(0)
            for part in parts:
                found = part.tolist()
                if found.count(value) != len(found):
                    return False
            values.append(value)
        self.values = tuple(values)
        return True

    def advance(self, values: Sequence[float]) -> None:
        """Store the counters' new values."""
        for parts, value in zip(self.rows, values):
            for part in parts:
                part.fill(value)
        self.values = tuple([parts[0].item(0) for parts in self.rows])

    def fill(self, constants: Sequence[float]) -> Sequence[Any]:
        """A rule's numbers in the form that its arrays want."""
        if self.xp is not np:
            return constants
        if constants == self._held:
            return self._constants
        if len(constants) != len(self._constants):
            self._cells = np.empty(len(constants), self._cells.dtype)
            self._constants = [self._cells[i, ...] for i in range(len(constants))]
        self._cells[:] = constants
        self._held = constants
        return self._constants


class Plan:
    """What a step over one parameter group does, as long as nothing changes.

    Attributes:
        arrays: for each parameter its array, or None when it takes no part.
        shapes: their shapes.
        versions: the version counters of the parameters that take part.
        accumulators: their nodes in the graph, which need not be made again for every step then.
        again: parameters that come a second time in the group.
        options: for which options the plan was made.
        changes: for which count of changes to the optimizer's state.
    """

    __slots__ = (
        "accumulators", "again", "arrays", "changes", "cohorts", "options", "shapes", "versions",
    )  # fmt: skip

    def __init__(self, params: Sequence[Tensor], options: tuple[Any, ...]) -> None:
        self.arrays: list[Any] = []
        self.shapes: list[Any] = []
        self.versions: list[list[int]] = []
        self.again: list[Tensor] = []
        # One with hooks takes its turn in the order of the graph, in which an old one is last.
        self.accumulators = [
            gradient_edge(p) for p in params if p._edge is None is p._view and p._extra is None
        ]
        self.options, self.changes = options, -1
        self.cohorts: list[Cohort] = []
        seen: set[int] = set()
        for p in params:
            active = p._grad is not None
            if active and id(p) in seen:
                self.again.append(p)
                active = False
            seen.add(id(p))
            self.arrays.append(p.array if active else None)
            self.shapes.append(p.array.shape)
            if active and p._counter is not None:
                self.versions.append(p._counter)

    def collect(self, params: list[Tensor]) -> list[Any] | None:
        """The gradients' arrays, or None when the plan does not fit any more."""
        arrays = self.arrays
        if len(params) != len(arrays):
            return None
        grads = []
        for p, array, shape in zip(params, arrays, self.shapes):
            grad = p._grad
            if grad is None:
                if array is not None:
                    return None
            elif p.array is not array:
                return None
            else:
                grad_array = grad.array
                if grad_array.shape != shape:
                    return None
                grads.append(grad_array)
        for cohort in self.cohorts:
            if not cohort.refresh():
                return None
        return grads


def build_cohorts(
    arrays: Sequence[Any],
    slots: Sequence[Slot | None],
    names: Sequence[str],
    scratch: int,
    reads_param: bool,
    on_device: bool = False,
    kernel: str | None = None,
    copies: bool = False,
) -> list[Cohort]:
    """Sort the arrays of the parameters that take part into cohorts.

    ``slots[i]`` is None for rules without state; gradient ``i`` belongs to ``arrays[i]``. With
    ``on_device``, the counters of those that kernels update are with them. ``kernel`` is what
    updates NumPy's arrays faster than array calls do; ``copies``: see `block_sizes`.
    """
    members: dict[Any, list[int]] = {}
    for i, (array, slot) in enumerate(zip(arrays, slots)):
        launcher = launcher_for(array)
        there = on_device and launcher is not None
        if launcher is None and kernel is not None:
            launcher = _native_launcher(array, kernel)
        values = ()
        if slot is not None and not there:
            values = slot.segment.counters[:, slot.column].tolist()
        members.setdefault((launcher, there, place(array), *values), []).append(i)
    cohorts = []
    for (launcher, there, *_), numbers in members.items():
        if launcher is None:
            numbers.sort(key=lambda i: _position(slots[i]))
        own = [s for i in numbers if (s := slots[i]) is not None]
        cohort = Cohort(arrays[numbers[0]], own, launcher, there)
        if launcher is None:
            _build_blocks(cohort, numbers, arrays, slots, names, 1 + scratch, reads_param, copies)
        else:
            for i in numbers:
                slot = slots[i]
                state: tuple[Any, ...] = ()
                if slot is not None:
                    buffers = slot.segment.buffers
                    state = tuple(buffers[name][slot.start : slot.stop] for name in names)
                cohort.members.append((i, arrays[i], state, slot))
        cohorts.append(cohort)
    return cohorts


def launcher_for(array: Any) -> Any:
    """What launches kernels on a parameter's array, or None: then the rule runs on arrays."""
    K = NAMESPACES[array.__class__].launcher
    return K if K is not None and K.takes(array) and array.flags.c_contiguous else None


def _native_launcher(array: Any, kernel: str) -> Any:
    """What launches a kernel on NumPy's arrays, or None where it cannot."""
    if array.__class__ is not np.ndarray or not array.flags.c_contiguous:
        return None
    from gradlite.backends import native  # late: it takes a while, and not every program trains

    K = native.on_demand()
    if K is None or array.itemsize < 4 or not K.takes(array):
        return None
    return K if K.ready(kernel, array.dtype) else None


def _build_blocks(
    cohort: Cohort,
    numbers: Sequence[int],
    arrays: Sequence[Any],
    slots: Sequence[Slot | None],
    names: Sequence[str],
    scratch: int,
    reads_param: bool,
    copies: bool,
) -> None:
    xp, dtype = cohort.xp, arrays[numbers[0]].dtype
    runs = _runs(numbers, arrays, slots, *block_sizes(xp, dtype, copies))
    largest = max((run[2] for run in runs), default=0)
    with guard.on(arrays[numbers[0]]):
        rows = [allocate(xp, largest, dtype, 0.0) for _ in range(scratch + reads_param)]
    for run, offset, n in runs:
        first = slots[run[0]]
        state: tuple[Any, ...] = ()
        if first is not None:
            start = first.start + (offset or 0)
            state = tuple(first.segment.buffers[name][start : start + n] for name in names)
        block = Block([row[:n] for row in rows], state, reads_param)
        if offset is None:
            at = 0
            for i in run:
                block.add(i, arrays[i], at)
                at += arrays[i].size
        else:
            block.add(run[0], arrays[run[0]].reshape(-1)[offset : offset + n], 0)
            block.bounds = (offset, offset + n)
        cohort.blocks.append(block)


def _position(slot: Slot | None) -> tuple[int, int]:
    return (id(slot.segment), slot.start) if slot is not None else (0, 0)


def _runs(
    numbers: Sequence[int],
    arrays: Sequence[Any],
    slots: Sequence[Slot | None],
    limit: int,
    alone: int,
) -> list[tuple[list[int], int | None, int]]:
    """``(parameters, None, elements)`` to do together, or ``([one], offset, elements)``."""
    runs: list[tuple[list[int], int | None, int]] = []
    for i in numbers:
        array, slot = arrays[i], slots[i]
        n = array.size
        if n >= alone and array.flags.c_contiguous:
            runs += [([i], at, min(limit, n - at)) for at in range(0, n, limit)]
            continue
        if runs:
            run, offset, size = runs[-1]
            before = slots[run[-1]]
            joins = slot is None or (
                before is not None and before.segment is slot.segment and before.stop == slot.start
            )
            if offset is None and joins and size + n <= limit:
                runs[-1] = (run + [i], None, size + n)
                continue
        runs.append(([i], None, n))
    return runs
