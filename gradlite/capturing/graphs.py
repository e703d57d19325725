"""GraphPlan: recorded calls as CUDA graphs.

The calls are made once more while a stream captures, so that nothing is computed, and what they
ask the GPU for becomes a graph: the very kernels of the recording, on memory of the plan's own.
What a graph cannot hold runs between graphs, in its place: Python code such as a schedule's, checks
of values, and copies from the host. Draws are taken from the generator before the graph is
launched. The kernels find the draws' places on the device, and the last graph moves them on as the
generator will; they are copied there when it has moved otherwise. So are the numbers of optimizers
whose updates are in the graph (`GraphUpdate`), when they have changed, and how many models there
are in an average of them (`GraphAverage`).

The graphs of a GPU share a pool of memory, from which each takes what it needs between its first
and last kernel alone. They may, because all of them are launched on one stream, one after another.
What outlives a launch, as results and gradients do, comes from another pool: a graph that was
captured earlier would write to it.
"""

from __future__ import annotations

import contextlib
import gc
import threading
import weakref
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite.backends import cuda, staging
from gradlite.backends.memory import address
from gradlite.capturing.arrays import bounds, on_gpu, owner
from gradlite.capturing.calls import (
    MADE,
    AnyCall,
    Buffer,
    Call,
    CaptureError,
    Guard,
    HostCall,
    Ref,
    bound,
    refs_of,
)
from gradlite.capturing.compare import name_of
from gradlite.capturing.guards import hoisted
from gradlite.capturing.plan import GuardError, placed_grads, with_grads
from gradlite.optim.in_graph import InGraph

Calls = list[AnyCall]


class Home:
    """Where the graphs of a GPU live.

    Attributes:
        pool: the memory pool that they share.
        lasting: the pool of what nobody else may write to between two launches of a graph.
        stream: what captures and launches them.
        side: the stream of copies that tables need while the other one captures.
        lock: held by whoever captures or launches.
    """

    def __init__(self, cupy: Any) -> None:
        held: list[Any] = []

        def take(size: int) -> Any:
            try:
                memory = cupy.cuda.Memory(size)
            except cupy.cuda.runtime.CUDARuntimeError:
                # What the steps before the capture had is still in the pool of all other arrays.
                cupy.get_default_memory_pool().free_all_blocks()
                memory = cupy.cuda.Memory(size)
            return cupy.cuda.MemoryPointer(memory, 0)

        def reserve(size: int) -> Any:
            # A pool that runs out of memory gives back what it does not use, graphs or not.
            held.append(take(size))
            return held[-1]

        self.pool = cupy.cuda.MemoryPool(reserve)
        self.lasting = cupy.cuda.MemoryPool(take)
        self.stream = cupy.cuda.Stream(non_blocking=True)
        self.side = cupy.cuda.Stream(non_blocking=True)
        self.before, self.after = (cupy.cuda.Event(disable_timing=True) for _ in range(2))
        self.lock = threading.RLock()


# As long as there are plans: the memory of a GPU is free again when its last graph is gone.
_homes: weakref.WeakValueDictionary[Any, Home] = weakref.WeakValueDictionary()


class GraphPlan:
    """Calls on a GPU, ready to be replayed.

    Attributes:
        calls: in their order.
        pieces: what is done at once: the positions of a graph's calls, or of another call.
        graphs: those of the pieces, once the first replay has captured them.
        guarded: whether a replay may find that it does not hold.
        inputs: the arrays that take the inputs' values, None for those that nobody reads.
        updates: the steps of optimizers, and averages of models, that are part of the graphs.
    """

    # Updates in a graph are calls like others: see `Plan`.
    compiled_steps: frozenset[int] = frozenset()

    def __init__(self, calls: Calls, kept: Iterable[Ref], inputs: Sequence[Any], gpu: int) -> None:
        self.inputs = list(inputs)
        self.calls = host_first(hoisted(calls))
        found = [c.function for c in self.calls if isinstance(c, Call)]
        self.updates = [f for f in found if isinstance(f, InGraph)]
        self.guarded = any(isinstance(call, Guard) for call in self.calls)
        self.pieces = _pieces(self.calls)
        graphs = [n for n, piece in enumerate(self.pieces) if _capturable(self.calls[piece[0]])]
        self._last_graph = max(graphs, default=-1)
        self.graphs: dict[int, Any] = {}
        self._gpu, self._cupy = gpu, cuda.module()
        self._reader: Any = None  # the stream of the last replay
        key = id(self._cupy), gpu
        with self._cupy.cuda.Device(gpu):
            self._home = _homes.get(key) or _homes.setdefault(key, Home(self._cupy))
        self._last: dict[Buffer, int] = {}
        homes: dict[Buffer, int] = {}
        # What other pieces or the caller read keeps its memory from replay to replay.
        self._retained = {ref.buffer for ref in kept}
        for number, piece in enumerate(self.pieces):
            for position in piece:
                for ref in refs_of(self.calls[position]):
                    self._last[ref.buffer] = position
                    if homes.setdefault(ref.buffer, number) != number:
                        self._retained.add(ref.buffer)
        self._forget()

    def _forget(self) -> None:
        self._roots: dict[Buffer, Any] = {}
        self._slots: staging.Staging | None = None
        self._moves: Any = None  # by how much a replay moves the places of draws
        self._tables: list[Any] = []
        self._lasting: set[int] = set()  # the sizes of arrays to come that outlive a launch
        self._held: list[Any] = []  # the memory of the same
        self._steps: list[Callable[[], None]] = []
        self.graphs.clear()

    # ------------------------------------------------------------------------ memory
    def array(self, ref: Ref) -> Any:
        """The array that a replay uses for a recorded one; after the first replay."""
        buffer = ref.buffer
        root = self._roots.get(buffer)
        if root is None:
            root = self._roots[buffer] = self._root(buffer)
        start = buffer.start if root is buffer.root else bounds(root)[0]
        at = start + ref.offset - address(root)
        if buffer.on_gpu:
            return self._cupy.ndarray(ref.shape, ref.dtype, root.data + at, ref.strides)
        flat = root.reshape(-1, order="A").view(np.uint8)
        return np.ndarray(ref.shape, ref.dtype, flat, at, ref.strides)

    def _root(self, buffer: Buffer) -> Any:
        if buffer.kind != MADE:
            return buffer.root
        library = self._cupy if buffer.on_gpu else np
        self._lasting = self._sizes((buffer,))
        return library.empty(buffer.stop - buffer.start, np.uint8)

    def _sizes(self, buffers: Iterable[Buffer]) -> set[int]:
        made = (b for b in buffers if b in self._retained and b.kind == MADE)
        return {b.stop - b.start for b in made if b.on_gpu and b not in self._roots}

    def _malloc(self, size: int) -> Any:
        """Memory for an array of a graph."""
        if size not in self._lasting:
            return self._home.pool.malloc(size)
        self._held.append(self._home.lasting.malloc(size))
        return self._held[-1]

    def _bind(self, value: Any) -> Any:
        return bound(value, self.array)

    # ----------------------------------------------------------------------- capture
    def _prepare(self) -> None:
        """Capture the graphs. Nothing is computed, so a failure leaves everything as it was."""
        home, cupy = self._home, self._cupy
        mirrors: dict[int, Any] = {}
        for update in self.updates:
            update.build(mirrors)
        cupy.cuda.get_current_stream().synchronize()  # which has made their tables
        home.stream.synchronize()  # which may still read those of plans that are gone
        collecting = gc.isenabled()
        gc.collect()  # what it would free during a capture could be a stream or a graph
        gc.disable()
        try:
            with cupy.cuda.using_allocator(home.lasting.malloc), home.stream:
                self._allocate_draws()
            with cupy.cuda.using_allocator(cuda.explaining(cupy, self._malloc)), home.stream:
                for number, piece in enumerate(self.pieces):
                    if _capturable(self.calls[piece[0]]):
                        last = number == self._last_graph
                        self.graphs[number] = self._capture(piece, last)
                        self._steps.append(self._launch(self.graphs[number], piece, last))
                    else:
                        self._steps.append(self._host_step(self.calls[piece[0]]))
            home.side.synchronize()
        except BaseException:
            self._forget()
            raise
        finally:
            if collecting:
                gc.enable()

    def _capture(self, piece: Sequence[int], last: bool) -> Any:
        stream, position = self._home.stream, piece[0]
        stream.begin_capture()
        try:
            with staging.beside(self._home.side) as tables:
                for position in piece:
                    tables.clear()
                    self._call(self.calls[position])
                    self._tables += tables.values()
                    self._free(position)
                if last and self._slots is not None:
                    array = self._slots.array
                    self._cupy.add(array, self._moves_there, array)
        except BaseException as error:
            with contextlib.suppress(Exception):  # it may be that it cannot become a graph
                stream.end_capture()
            if not isinstance(error, Exception):
                raise
            if isinstance(error, (CaptureError, cuda.OutOfMemoryError)):
                raise
            raise CaptureError(
                f"call {position} of the step, {name_of(self.calls[position])}, cannot be part of "
                f"a CUDA graph: {error}"
            ) from error
        try:
            return stream.end_capture()
        except Exception as error:
            raise CaptureError(f"the step cannot be captured: {error}") from error

    def _call(self, call: Any) -> None:
        """Make a call, and keep what it returns as the memory of its results."""
        args, kwargs = self._bind(call.args), self._bind(call.kwargs)
        if call.fresh is None:
            places = tuple(map(self.array, call.outs))
            kwargs["out"] = places[0] if len(places) == 1 else places
        self._lasting = self._sizes(ref.buffer for ref in call.outs)
        result = call.function(*args, **kwargs)
        results = result if isinstance(result, (tuple, list)) else (result,)
        for place, ref in zip(call.fresh or (), call.outs):
            self._adopt(ref, results[place])

    def _adopt(self, ref: Ref, array: Any) -> None:
        root, buffer = owner(array), ref.buffer
        if buffer not in self._roots:
            self._roots[buffer] = root
        start, stop = bounds(root)
        made = (array.shape, array.strides, address(array) - start, max(stop - start, 1))
        if made != (ref.shape, ref.strides, ref.offset, buffer.stop - buffer.start):
            raise CaptureError(f"an array of shape {ref.shape} lies in memory as it did not before")

    def _free(self, position: int) -> None:
        """Give the pool back what no later call reads: later kernels of the graph may have it."""
        for ref in refs_of(self.calls[position]):
            buffer = ref.buffer
            if self._last[buffer] == position and buffer not in self._retained:
                if buffer.kind == MADE:
                    self._roots.pop(buffer, None)

    def _allocate_draws(self) -> None:
        """Memory for the places of all draws, to be sent in one copy."""
        draws = [c.out.buffer for c in self.calls if isinstance(c, HostCall) and _drawn(c)]  # type: ignore[union-attr]
        if draws:
            self._slots = staging.Staging(self._cupy, 2 * len(draws))
            for number, buffer in enumerate(draws):
                self._roots[buffer] = self._slots.array[2 * number : 2 * number + 2]
            totals: dict[int, int] = {}
            takes = [c.takes for c in self.calls if isinstance(c, HostCall) and c.takes]
            for generator, blocks in takes:
                totals[id(generator)] = totals.get(id(generator), 0) + blocks
            self._moves = np.array([[0, totals[id(g)]] for g, _ in takes], np.int64).reshape(-1)
            self._moves_there = self._cupy.asarray(self._moves)
            self._cupy.add(self._moves_there, self._moves_there)  # compiled before the capture

    # ------------------------------------------------------------------------ replay
    def _launch(self, graph: Any, piece: Sequence[int], last: bool) -> Callable[[], None]:
        stream, slots, moves = self._home.stream, self._slots, self._moves
        functions = [self.calls[position].function for position in piece]  # type: ignore[union-attr]
        updates = [f for f in functions if isinstance(f, InGraph)]

        def launch() -> None:
            if slots is not None:
                slots.send()
            graph.launch(stream)
            if slots is not None and last:
                slots.added(moves)
            for update in updates:
                update.done()

        return launch

    def _host_step(self, call: Any) -> Callable[[], None]:
        """What is done between graphs, by the host."""
        if isinstance(call, Guard):
            array, expected = self.array(call.ref), call.value

            def check() -> None:
                if bool(array) is not expected:
                    raise GuardError

            return check
        if isinstance(call, HostCall):
            return self._python(call)
        function, args, kwargs = call.function, self._bind(call.args), self._bind(call.kwargs)
        outs = list(map(self.array, call.outs))
        places = range(len(outs)) if call.fresh is None else call.fresh
        if len(outs) == 1 and on_gpu(outs[0]) and function in (
            self._cupy.array, self._cupy.asarray, self._cupy.ascontiguousarray,
        ):  # fmt: skip
            upload = staging.Upload(self._cupy, outs[0])
            return lambda: upload.send(args[0])

        def run() -> None:
            result = function(*args, **kwargs)
            results = result if isinstance(result, (tuple, list)) else (result,)
            for out, place in zip(outs, places):
                out[...] = results[place]

        return run

    def _python(self, call: HostCall) -> Callable[[], None]:
        function = call.function
        if call.grads:
            grads = placed_grads(call, self.array)
            return lambda: with_grads(function, grads)
        if call.out is None:
            return lambda: function() and None
        if not _drawn(call):
            out = self.array(call.out)
            return lambda: np.copyto(out, function())
        slots = self._slots
        assert slots is not None
        number = (address(self.array(call.out)) - address(slots.array)) // 8
        place = slots.values[number : number + 2].view(np.uint64)
        return lambda: np.copyto(place, function())

    @contextmanager
    def _in_order(self) -> Iterator[None]:
        """The graphs' stream inside, after what the current one holds and before its next work.

        Where the last replay was asked for on another stream, what that one holds comes first as
        well: it may still copy the results, into whose memory this replay writes.
        """
        home, outer = self._home, self._cupy.cuda.get_current_stream()
        reader, self._reader = self._reader, outer
        for stream in (outer,) if reader in (None, outer) else (reader, outer):
            home.before.record(stream)
            home.stream.wait_event(home.before)
        try:
            with home.stream:
                yield
        finally:
            home.after.record(home.stream)
            outer.wait_event(home.after)

    def replay(self, values: Sequence[Any]) -> None:
        """Put the inputs' values in their places, and do what the step did.

        Raises:
            GuardError: a value that was branched on has changed; nothing outside has then.
            CaptureError: there is no graph of the step; nothing has been done.
        """
        with self._home.lock, self._cupy.cuda.Device(self._gpu):
            if not self._steps:
                self._prepare()
            with self._in_order():
                for place, value in zip(self.inputs, values):
                    if place is not None:
                        place[...] = value
                try:
                    for step in self._steps:
                        step()
                except BaseException:
                    for update in reversed(self.updates):
                        update.undo()
                    raise

    # -------------------------------------------------------------------- description
    def summary(self) -> str:
        """How much memory it keeps."""
        made = [b for b in self._retained if b.kind == MADE]
        size = sum(b.stop - b.start for b in made)
        launches = sum(len(p) for p in self.pieces if _capturable(self.calls[p[0]]))
        graphs = sum(_capturable(self.calls[p[0]]) for p in self.pieces)
        return f"{launches} of them in {graphs} CUDA graphs; {len(made)} arrays of {size} bytes"

    def notes(self) -> tuple[str, set[int]]:
        """A line for `explain`, and the positions of the calls that it marks with a star."""
        left = {p[0] for p in self.pieces if not _capturable(self.calls[p[0]])}
        return "those with a star run between the graphs", left


def host_first(calls: Calls) -> Calls:
    """The calls with what is the host's alone as early as it may be: fewer graphs are needed.

    A draw changes nothing but the generator's state, so it may change places with all but other
    Python code. The numbers of schedules and optimizers may with what a GPU does, but not with a
    check, which has to find them as they were.
    """
    result: Calls = []
    draws = numbers = 0  # where the next one may go
    for call in calls:
        if isinstance(call, HostCall) and call.undoable:
            result.insert(draws, call)
            draws, numbers = draws + 1, numbers + 1
        elif isinstance(call, HostCall) and call.of_host:
            result.insert(numbers, call)
            numbers += 1
        else:
            result.append(call)
            if isinstance(call, HostCall):
                draws = len(result)
            if not _capturable(call):
                numbers = len(result)
    return result


def _drawn(call: HostCall) -> bool:
    """Whether what a call of Python code returns goes to the GPU: the place of a draw."""
    return call.out is not None and call.out.buffer.on_gpu


def _capturable(call: Any) -> bool:
    """Whether a call is the GPU's work alone."""
    return isinstance(call, Call) and all(ref.buffer.on_gpu for ref in refs_of(call))


def _pieces(calls: Calls) -> list[list[int]]:
    pieces: list[list[int]] = []
    for position, call in enumerate(calls):
        if pieces and _capturable(call) and _capturable(calls[pieces[-1][0]]):
            pieces[-1].append(position)
        else:
            pieces.append([position])
    return pieces
