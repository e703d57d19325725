"""What one call of a step leaves for the next: tensors that are read where others are put.

To a recording they are further inputs, which every replay fetches from their places, and what the
step puts there is placed by the replay: copies of the plan's memory that lie in memory as those of
the step itself do, so that the next call finds what it would have found.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from gradlite.backends.memory import address
from gradlite.capturing.arrays import bounds, on_gpu, part
from gradlite.capturing.asked import OWN, pattern
from gradlite.capturing.calls import Buffer, CaptureError, HostCall, Ref, refs_of
from gradlite.capturing.effects import written_state
from gradlite.capturing.plan import at_address
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.results import nesting
from gradlite.capturing.watched import alike, read, spelled
from gradlite.graph_passes import node_of
from gradlite.tensor import Tensor, wrap
from gradlite.utils._pytree import tree_flatten

if TYPE_CHECKING:
    from gradlite.capturing.written import Written

PLAIN, LEAF, COMPUTED = range(3)  # no gradients; they end here; they go on to other calls
ANSWERED = ("stride", "is_contiguous", "is_inference")  # by what is compared before a replay
BYTE = np.dtype(np.uint8)


class UnsettledError(CaptureError):
    """What is there is another tensor of the step as well: perhaps not after the next call."""


class Kind(NamedTuple):
    """What a tensor must be like for a recording to hold."""

    cls: type
    array_class: type
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: Any
    inference: bool
    grade: int


def kind_of(tensor: Tensor) -> Kind:
    """What decides how a step takes a tensor that it finds, beside its values."""
    array = tensor.array
    return Kind(
        tensor.__class__, array.__class__, array.shape, array.strides, array.dtype,
        tensor._counter is None, _grade(tensor),
    )  # fmt: skip


class Carried:
    """The tensors that a step has found where it puts others.

    Args:
        places: where they were; see `Written`.
        recorder: what has recorded the step.
        kinds: what tensors were like before the step, by their ids.
        grads: the gradients from before the step.
        known: the ids of the step's other tensors, if the step may look which one is which.

    Attributes:
        tensors: those that were there.
        fed: the numbers of those whose values are read.
        names: the names of their places.

    Raises:
        UnsettledError: one of them lies in the memory of another tensor.
        CaptureError: the step does with them what a replay could not repeat.
    """

    def __init__(
        self,
        places: Sequence[Written],
        recorder: Recorder,
        kinds: Mapping[int, Kind],
        grads: Sequence[Tensor],
        known: frozenset[int],
    ) -> None:
        self._places = list(places)
        self.tensors = [t for place in places for t in place.found]
        self.names = [place.name for place in places for _ in place.found]
        self._read = [place.only_read for place in places for _ in place.found]
        self._count = len(self.tensors)
        self._pattern = pattern(self.tensors)
        self._kinds = [kinds.get(id(t)) or kind_of(t) for t in self.tensors]
        self._known = known
        self._refuse(recorder)
        self._refuse_graphs(recorder)
        self._groups: dict[Buffer, list[int]] = {}
        for number, tensor in enumerate(self.tensors):
            if self._pattern[number] == number and id(tensor) in recorder.touched:
                array = recorder.touched[id(tensor)][1]
                buffer = recorder.find(array) if array.size else None
                if buffer is not None:
                    self._groups.setdefault(buffer, []).append(number)
        self.fed = sorted(n for numbers in self._groups.values() for n in numbers)
        self._part_memory(recorder, grads)
        written = written_state(recorder)
        self.edited = [n for b, numbers in self._groups.items() if b in written for n in numbers]
        ranges = [(b.start, b.stop) for b in written - self._groups.keys()]
        ranges += map(bounds, _changed_by_python(recorder))
        self._written = _joined(ranges)
        self._refs: dict[int, Ref] = {}
        self._deltas: list[tuple[int, int, int]] = []
        for group, (buffer, numbers) in enumerate(self._groups.items()):
            self._move(recorder, buffer, numbers)
            recorder.own[buffer] = f"carried {group}"
            refs = [recorder.ref(self.tensors[n].array) for n in numbers]
            self._refs.update(zip(numbers, refs))
            self._deltas += [
                (n, numbers[0], ref.offset - refs[0].offset)
                for n, ref in zip(numbers[1:], refs[1:])
            ]
        for tensor in self.tensors:
            recorder.touched.pop(id(tensor), None)
        self._made: list[Made] = []
        self._views: list[tuple[int, int, Ref, bool]] = []
        self._values: list[list[tuple[str, Any]]] = []
        self._regions: list[tuple[Ref, list[int], bool]] = []
        self._copies: list[tuple[int, Any]] = []
        self._mine: dict[int, Any] = {}  # arrays of the last replay's, by their ids
        self._last: tuple[list[Any], list[Tensor]] = [], []

    def described(self) -> list[str]:
        """A line for each, for people."""
        ways = ("carried from call to call", "taken anew for every call")
        return [
            f"{ways[read]}: {name} [{'x'.join(map(str, kind.shape)) or '0-d'} {kind.dtype.name}]"
            for name, kind, read in zip(self.names, self._kinds, self._read)
        ]

    # -------------------------------------------------------------------- what is refused
    def _refuse(self, recorder: Recorder) -> None:
        for tensor, name, kind in zip(self.tensors, self.names, self._kinds):
            start = f"the step itself replaces {name}, "
            if id(tensor) in recorder.used_grads:
                raise CaptureError(
                    start + "whose gradient it reads or adds to: use autograd.grad(), or change "
                    "the tensor in place (copy_, add_)"
                )
            if kind_of(tensor) != kind:
                raise CaptureError(
                    start + "and before gives it another shape, other memory or a graph: put a new "
                    "tensor there instead"
                )
            if not _is_plain(tensor):
                raise CaptureError(
                    start + "which has hooks, attributes or a class of its own: change it in place "
                    "(copy_, add_), or put plain tensors there"
                )
            asked = sorted(recorder.asked_of.get(id(tensor), set()).difference(ANSWERED))
            if asked:
                raise CaptureError(
                    start + f"and asks for its {asked[0]}, which is another one at every call"
                )
        number = 0
        for place in self._places:
            for old, new in zip(place.before_leaves, place.leaves):
                if not isinstance(old, Tensor):
                    continue
                kind, number = self._kinds[number], number + 1
                if new is old:
                    continue
                start = f"the step itself replaces {place.name} by a tensor with "
                if id(new) in recorder.born and not _is_plain(new):
                    raise CaptureError(
                        start + "hooks, attributes or a class of its own: put a plain one there"
                    )
                if kind.grade == PLAIN and _grade(new) == COMPUTED:
                    raise UnsettledError(start + "its graph: put its detach() there")

    def _refuse_graphs(self, recorder: Recorder) -> None:
        """CaptureError when gradients would go on to the calls before."""
        ends = {
            id(node_of(tensor._edge)): name
            for tensor, name, kind in zip(self.tensors, self.names, self._kinds)
            if kind.grade == COMPUTED
        }
        stack = [t._edge for t, _ in recorder.touched.values() if id(t) in recorder.born]
        seen: set[int] = set()
        while ends and stack:
            node: Any = node_of(stack.pop())
            if node is None or id(node) in seen:
                continue
            seen.add(id(node))
            if id(node) in ends:
                continue
            for edge in getattr(node, "edges", ()):
                name = ends.get(id(node_of(edge))) if edge is not None else None
                if name is not None:
                    raise CaptureError(
                        f"the step goes on from {name} with its graph, so that gradients would go "
                        "back through all calls before: put its detach() there"
                    )
                stack.append(edge)

    def _part_memory(self, recorder: Recorder, grads: Sequence[Tensor]) -> None:
        """UnsettledError when another tensor of the step lies in the same memory."""
        own = {id(t) for t in self.tensors}
        others = [
            array
            for i, (_, array) in recorder.touched.items()
            if i not in own and i not in recorder.born
        ]
        others += [*(g.array for g in grads), *_changed_by_python(recorder)]
        taken = {recorder.find(array) for array in others if array.size}
        for buffer, numbers in self._groups.items():
            if buffer in taken or recorder.is_shown(buffer):
                raise UnsettledError(
                    f"the step itself replaces {self.names[numbers[0]]}, which shares memory with "
                    "another tensor of the step: put a clone() of it there"
                )

    def _move(self, recorder: Recorder, buffer: Buffer, numbers: Sequence[int]) -> None:
        """Let a buffer begin and end with the tensors in it: they may lie in a larger array."""
        places = [bounds(self.tensors[n].array) for n in numbers]
        start, stop = min(a for a, _ in places), max(b for _, b in places)
        shift = start - buffer.start
        refs = {id(r): r for call in recorder.calls for r in refs_of(call) if r.buffer is buffer}
        for ref in refs.values():
            first, last = _extent(ref)
            if first < shift or last > shift + stop - start:
                raise UnsettledError(
                    f"the step itself replaces {self.names[numbers[0]]}, and reads the memory "
                    "around it: put a clone() of it there"
                )
        for ref in refs.values():
            ref.offset -= shift
        buffer.start, buffer.stop = start, stop

    # ----------------------------------------------------------------------- what is put
    def note(self, recorder: Recorder, inputs: Sequence[Any]) -> None:
        """Take note of what the step has put in the places.

        Args:
            recorder: what has recorded the step.
            inputs: the recorded inputs.
        """
        numbers = {id(t): len(inputs) + n for n, t in enumerate(self.tensors)}
        numbers.update((id(t), n) for n, t in enumerate(inputs) if isinstance(t, Tensor))
        known: dict[int, tuple[str, int]] = {}
        for place in self._places:
            found: list[tuple[str, Any]] = []
            for leaf in place.leaves:
                if not isinstance(leaf, Tensor):
                    found.append(("value", leaf))
                elif id(leaf) in numbers:
                    found.append(("input", numbers[id(leaf)]))
                else:
                    if id(leaf) not in known:
                        known[id(leaf)] = self._noted(recorder, leaf, len(inputs))
                    found.append(known[id(leaf)])
            recorder.left.append((place.name, nesting(place.spec)))
            recorder.left += [(k, spelled(v) if k == "value" else v) for k, v in found]
            self._values.append(found)
            place.leaves = []
        recorder.left += [tuple(made) for made in self._made]
        recorder.left += self._views
        by_buffer: dict[Buffer, list[int]] = {}
        for number, made in enumerate(self._made):
            by_buffer.setdefault(made.ref.buffer, []).append(number)
        for buffer, parts in by_buffer.items():
            refs = [self._made[n].ref for n in parts]
            if recorder.lasts(buffer):
                # What lasts from call to call is to be seen in it.
                self._regions += [(ref, [n], True) for n, ref in zip(parts, refs)]
            elif len(parts) == 1 and _is_row_major(refs[0]):
                self._regions.append((refs[0], parts, False))
            else:
                first = min(_extent(ref)[0] for ref in refs)
                size = max(_extent(ref)[1] for ref in refs) - first
                self._regions.append((Ref(buffer, first, (size,), (1,), BYTE), parts, False))

    def _noted(self, recorder: Recorder, leaf: Tensor, base: int) -> tuple[str, int]:
        """A tensor of the step's own: its kind, and its number among those of that kind."""
        ref, inference = recorder.ref(leaf.array), leaf._counter is None
        first, last = _extent(ref)
        for n in self._groups.get(ref.buffer, ()):
            start, stop = _extent(self._refs[n])
            if start <= first and last <= stop:
                self._views.append((base + n, ref.offset - self._refs[n].offset, ref, inference))
                return "view", len(self._views) - 1
        if ref.buffer in self._groups:
            raise UnsettledError(
                f"the step itself replaces {self.names[0]} by a part of several tensors that were "
                "there: put a clone() of it there"
            )
        self._made.append(Made(ref, _grade(leaf) == LEAF, inference))
        return "tensor", len(self._made) - 1

    @property
    def kept(self) -> list[Ref]:
        """The arrays of the plan that are read when it has run."""
        return [ref for ref, _, _ in self._regions] + [self._refs[n] for n in self.edited]

    def settle(self, cupy: Any) -> list[Any]:
        """Give the values memory of the recording's own; the arrays that take them, as `fed`."""
        places: dict[int, Any] = {}
        for buffer, numbers in self._groups.items():
            refs = [self._refs[n] for n in numbers]
            library, size = cupy if buffer.on_gpu else np, buffer.stop - buffer.start
            if len(refs) == 1 and _is_row_major(refs[0]):
                buffer.root = library.empty(refs[0].shape, refs[0].dtype)
                places[numbers[0]] = buffer.root
            else:
                buffer.root = library.empty(size, BYTE)
                places.update((n, part(buffer.root, r.offset, r)) for n, r in zip(numbers, refs))
            buffer.start = address(buffer.root)
            buffer.stop = buffer.start + size
        self._copies = [(n, places[n]) for n in self.edited]
        self.tensors = []
        return [places[n] for n in self.fed]

    def bind(self, place_of: Callable[[Ref], Any]) -> None:
        """Find the arrays where a plan has them."""
        self._placed: list[tuple[Any, bool, list[tuple[int, int, Ref | None]]]] = []
        for ref, parts, lasting in self._regions:
            whole = ref is self._made[parts[0]].ref
            found: list[tuple[int, int, Ref | None]] = []
            for n in parts:
                made = self._made[n].ref
                found.append((n, 0, None) if whole else (n, made.offset - ref.offset, made))
            self._placed.append((place_of(ref), lasting, found))

    # ------------------------------------------------------------------------ a replay
    def find(self) -> list[Tensor] | None:
        """The tensors that are there now; None when they are not like those of the recording."""
        found: list[Tensor] = []
        values: list[Any] = []
        for place in self._places:
            try:
                value = read(place.container, place.key)
            except ValueError:  # an empty cell
                return None
            tensors = place.tensors(value)
            if tensors is None:
                return None
            found += tensors
            values.append(value)
        if len(found) != self._count or not all(map(_fits, found, self._kinds)):
            return None
        if self._count > 1 and pattern(found) != self._pattern:
            return None
        for number, first, delta in self._deltas:
            if address(found[number].array) - address(found[first].array) != delta:
                return None
        if self._written:
            for t in found:
                if id(t.array) not in self._mine and _meets(t.array, self._written):
                    return None
        self._last = values, found
        return found

    def found(self) -> list[Tensor] | None:
        """What `find` has just found, if it is still there; else what it finds now."""
        values, found = self._last
        self._last = [], []
        try:
            for place, value in zip(self._places, values):
                if read(place.container, place.key) is not value:
                    return self.find()
        except ValueError:
            return None
        return found if values else self.find()

    def changed(self) -> str | None:
        """The name of what is not like it was, or None."""
        if self.find() is not None:
            return None
        for place in self._places:
            tensors = place.current()
            if tensors is None:
                return place.name
        return self.names[0]

    def apart(self, leaves: Sequence[Any]) -> bool:
        """Whether a step that looks which tensor is which takes them for no other ones."""
        if not self._known:
            return True
        found = self.find()
        if found is None:
            return False
        ids = set(map(id, found))
        return self._known.isdisjoint(ids) and ids.isdisjoint(map(id, leaves))

    def check(self, leaves: Sequence[Any], found: Sequence[Tensor], edits: bool) -> None:
        """CaptureError where an edit of the step would show in another one of its tensors.

        Args:
            leaves: the inputs that were given.
            found: what is in the places.
            edits: whether the step edits an input.
        """
        if not edits and not self.edited:
            return
        ids = {id(t) for t in found}
        edited = [found[n] for n in self.edited]
        own = [bounds(t.array) for t in edited if t.array.size]
        others = [t for t in leaves if isinstance(t, Tensor)]
        others += [t for n, t in enumerate(found) if self._pattern[n] not in self.edited]
        places = [bounds(t.array) for t in others if t.array.size]
        if any(id(t) in ids for t in leaves) or any(
            a < stop and start < b for a, b in own for start, stop in places
        ):
            raise CaptureError(
                f"the step edits an input or {self.names[0]} in place, and these share memory: "
                "give it a clone"
            )

    def put(self, leaves: Sequence[Any]) -> None:
        """Do in a replay what the step does with the places.

        Args:
            leaves: the inputs, and then what `find` has found.
        """
        base = len(leaves) - self._count
        for number, array in self._copies:
            tensor = leaves[base + number]
            tensor.array[...] = array
            tensor._bump()
        made: list[Any] = [None] * len(self._made)
        self._mine = {}
        for array, lasting, parts in self._placed:
            memory = array if lasting else array.copy()
            for number, offset, ref in parts:
                _, leaf, inference = self._made[number]
                tensor = wrap(memory if ref is None else part(memory, offset, ref))
                tensor._requires_grad = leaf
                tensor._counter = None if inference else [0]
                made[number] = tensor
                if not lasting:
                    self._mine[id(tensor.array)] = tensor.array
        views = [_view(leaves[n], delta, ref) for n, delta, ref, _ in self._views]
        sources = {"input": leaves, "tensor": made, "view": views}
        for place, values in zip(self._places, self._values):
            if not place.only_read:
                place.write([v if kind == "value" else sources[kind][v] for kind, v in values])


class Made(NamedTuple):
    """A tensor that the step has put somewhere.

    Attributes:
        ref: where a recording has it.
        leaf: whether it requires grad.
        inference: whether it is an inference tensor.
    """

    ref: Ref
    leaf: bool
    inference: bool


def are_data(old: Any, new: Any) -> bool:
    """Whether values are tensors alike, or nest some, that have nothing to do with gradients."""
    before, spec = tree_flatten(old)
    after, other = tree_flatten(new)
    if spec != other or not any(isinstance(v, Tensor) for v in before):
        return False
    for a, b in zip(before, after):
        if not isinstance(a, Tensor):
            if a is not b and not alike(a, b):
                return False
        elif not isinstance(b, Tensor) or not (_is_plain(a) and _is_plain(b)):
            return False
        elif kind_of(a) != kind_of(b) or _grade(a) != PLAIN:
            return False
    return True


def _grade(tensor: Tensor) -> int:
    if not tensor._requires_grad and tensor._view is None or not tensor.requires_grad:
        return PLAIN
    return LEAF if tensor.is_leaf else COMPUTED


def _is_plain(tensor: Tensor) -> bool:
    """Whether a tensor is nothing but its values and flags."""
    attributes = tensor.__dict__
    if tensor.__class__ is not Tensor or (attributes and attributes.keys() - OWN):
        return False
    extra = tensor._extra
    return extra is None or not (extra.prehooks or extra.post_accumulate)


def _fits(tensor: Tensor, kind: Kind) -> bool:
    array = tensor.array
    if (
        array.shape != kind.shape
        or array.strides != kind.strides
        or array.dtype != kind.dtype
        or array.__class__ is not kind.array_class
        or (tensor._counter is None) is not kind.inference
        or not _is_plain(tensor)
    ):
        return False
    # Of a graph that the step does not go on with nothing is to be seen.
    return _grade(tensor) in ((PLAIN, COMPUTED) if kind.grade == COMPUTED else (kind.grade,))


def _extent(ref: Ref) -> tuple[int, int]:
    """Where in its buffer an array's first byte is, and the one behind its last."""
    if 0 in ref.shape:
        return ref.offset, ref.offset
    steps = [(n - 1) * s for n, s in zip(ref.shape, ref.strides)]
    first = ref.offset + sum(s for s in steps if s < 0)
    return first, ref.offset + sum(s for s in steps if s > 0) + ref.dtype.itemsize


def _is_row_major(ref: Ref) -> bool:
    """Whether an array lies in memory as a copy of it would."""
    step = ref.dtype.itemsize
    for size, stride in zip(reversed(ref.shape), reversed(ref.strides)):
        if stride != step:
            return False
        step *= size
    return True


def _view(tensor: Tensor, delta: int, ref: Ref) -> Tensor:
    """A view of a tensor's memory, so many bytes behind its first element."""
    array = tensor.array
    if on_gpu(array):
        view = type(array)(ref.shape, ref.dtype, array.data + delta, ref.strides)
    else:
        view = at_address(array, address(array) + delta, ref)
    result = wrap(view)
    result._counter = tensor._counter
    return result


def _changed_by_python(recorder: Recorder) -> list[Any]:
    """The arrays that Python code of the step may write to, such as optimizers' parameters."""
    calls = [call for call in recorder.calls if isinstance(call, HostCall)]
    return [array for call in calls for array in call.changes if array.size]


def _joined(ranges: Iterable[tuple[int, int]]) -> tuple[list[int], list[int]] | None:
    """First addresses and ends of pieces of memory, in order and without overlaps."""
    starts: list[int] = []
    stops: list[int] = []
    for start, stop in sorted(ranges):
        if stops and start <= stops[-1]:
            stops[-1] = max(stops[-1], stop)
        else:
            starts.append(start)
            stops.append(stop)
    return (starts, stops) if starts else None


def _meets(array: Any, pieces: tuple[list[int], list[int]]) -> bool:
    """Whether an array lies in one of some pieces of memory."""
    starts, stops = pieces
    start, stop = bounds(array)
    place = bisect_left(starts, stop) - 1
    return place >= 0 and stops[place] > start
