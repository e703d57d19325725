"""Plan: recorded calls with memory of their own, ready to be made again.

`Plan` lays out the buffers that the calls write (those whose lifetimes do not overlap share
memory), turns every `Ref` into an array, and every call into the cheapest form that NumPy has for
it: ufuncs and products with the place of the result, copies instead of methods that would allocate.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping, Sequence, Set
from functools import partial
from types import MappingProxyType
from typing import Any

import numpy as np

from gradlite.backends import special
from gradlite.backends.cpu import loud, quiet
from gradlite.backends.kernels import Launcher
from gradlite.capturing.aliases import in_place, without_copies
from gradlite.capturing.calls import (
    MADE,
    STATE,
    AnyCall,
    Buffer,
    Call,
    Guard,
    HostCall,
    Ref,
    bound,
    refs_of,
)
from gradlite.capturing.guards import guards_first, hoisted
from gradlite.capturing.inputs import WORTH_MOVING, MovingInputs
from gradlite.capturing.order import ordered
from gradlite.capturing.packing import Piece, packed
from gradlite.ops import conv_maxima, products, small
from gradlite.tensor import Tensor, wrap

ALIGNMENT = 64
PAGE = 4096  # loads wait for stores to addresses that differ by a multiple of it
# Functions with a parameter `out` for the result, and methods of arrays with one.
WITH_OUT = frozenset(
    (np.dot, np.concatenate, np.einsum, np.take, np.cumsum, np.cumprod, np.stack, np.clip,
     np.max, np.min, np.amax, np.amin, np.sum, np.mean, np.prod, np.argmax, np.argmin,
     special.normal_cdf32, products.multiplied, small.layer)
)  # fmt: skip
# Functions that may use places for their two or three results.
SEVERAL = (conv_maxima.convolve_and_pool, conv_maxima.spread_gradients, small.gradients)
METHODS_WITH_OUT = frozenset(
    (np.ndarray.sum, np.ndarray.mean, np.ndarray.max, np.ndarray.min, np.ndarray.prod,
     np.ndarray.argmax, np.ndarray.argmin, np.ndarray.cumsum, np.ndarray.cumprod, np.ndarray.var,
     np.ndarray.std, np.ndarray.any, np.ndarray.all, np.ndarray.dot, np.ndarray.clip)
)  # fmt: skip
LARGE = 1 << 14  # bytes of a result for which it pays to look at all indices first
NO_ROOMS: Mapping[int, int] = MappingProxyType({})
Step = tuple[Callable[..., Any], tuple[Any, ...]]


class GuardError(Exception):
    """A value on which the recorded step had branched is another one now."""


class Plan:
    """Calls ready to be replayed.

    Attributes:
        steps: functions and their arguments, in order.
        arena: the memory of the buffers that the calls write.
        pinned: the buffers that something outside of the plan reads.
        guarded: whether a replay may find that it does not hold.
        inputs: the arrays that take the inputs' values, None for those that nobody reads there.
        compiled_steps: the steps of optimizers that compiled code makes, by position.
    """

    def __init__(
        self,
        calls: list[AnyCall],
        kept: Iterable[Ref],
        inputs: Sequence[np.ndarray[Any, Any] | None] = (),
    ) -> None:
        kept = list(kept)
        self.inputs = list(inputs)
        self.silent = False  # whether no call can warn
        self.compiled_steps: set[int] = set()
        calls = without_copies(guards_first(hoisted(calls)), kept)
        self.guarded = any(isinstance(call, Guard) for call in calls)
        pinned = {ref.buffer for ref in kept}
        for call in calls:
            if isinstance(call, HostCall):
                pinned.update(ref.buffer for _, ref in call.grads if ref)
        self.pinned = {buffer.origin for buffer in pinned}
        self.calls = self.prepared(calls)
        in_place(self.calls, self.pinned)
        for _ in range(2):  # in another order others are the last to read an operand
            self.calls = ordered(self.calls, self.pinned, refs_of, self.loop_of)
            in_place(self.calls, self.pinned)
        self._settle()
        self._allocate()
        self._arrays: dict[int, np.ndarray[Any, Any]] = {}
        self._moving: MovingInputs | None = None
        self.steps = self._steps()

    def prepared(self, calls: list[AnyCall]) -> list[AnyCall]:
        """The calls as this kind of plan makes them."""
        return calls

    def loop_of(self, call: AnyCall) -> Any:
        """See `ordered`: array calls are loops of their own."""
        return None

    def _steps(self) -> list[Step]:
        steps = [self._step(call) for call in self.calls]
        given = [np.empty(0) if a is None else a for a in self.inputs]
        moving = MovingInputs(
            given, self.calls, steps, refs_of, self.array, self.pinned, self.arena
        )
        if moving.places:
            self._moving = moving
            self.inputs = [None if i in moving.places else a for i, a in enumerate(self.inputs)]
        return steps

    # ------------------------------------------------------------------------- memory
    def _settle(self) -> None:
        """Find a place for everything."""
        self._lay_out()

    def _lay_out(
        self, unstored: Set[Buffer] = frozenset(), rooms: Mapping[int, int] = NO_ROOMS
    ) -> None:
        """Give every made buffer a place in the arena.

        Args:
            unstored: buffers that nobody stores; they get places behind the arena.
            rooms: the scratch memory that calls want, in bytes by their positions.
        """
        lives: dict[Buffer, list[int]] = {}
        sure = -1  # from here on nothing asks for what the last replay left
        for position, call in enumerate(self.calls):
            if isinstance(call, Guard) and call.keeps:
                sure = position
            for ref in refs_of(call):
                buffer = ref.buffer.origin
                if buffer.kind == MADE:
                    life = lives.setdefault(buffer, [position, position])
                    life[1] = position
        spans = {buffer: [(first, last)] for buffer, (first, last) in lives.items()}
        # Never in the order of a set, which is another one in each process: equal steps have equal
        # plans, and what was compiled for one process serves the next.
        for buffer in dict.fromkeys((*lives, *self.pinned)):
            if buffer in self.pinned and buffer.kind == MADE:
                # What a replay leaves stays until the next one is sure to write it anew.
                first = max(lives.get(buffer, (0,))[0], sure)
                spans[buffer] = [(first, len(self.calls))]
                if sure >= 0:
                    spans[buffer].insert(0, (-1, sure))
        pieces: dict[Buffer | int, Piece] = {}
        for buffer in spans:
            if buffer in unstored:
                continue
            size = -(-(buffer.stop - buffer.start) // ALIGNMENT) * ALIGNMENT
            if size % PAGE == 0:
                size += 5 * ALIGNMENT
            pieces[buffer] = size, spans[buffer]
        for position, size in rooms.items():
            pieces[position] = -(-size // ALIGNMENT) * ALIGNMENT, [(position, position)]
        places, self._total = packed(pieces)
        self.places = {b: at for b, at in places.items() if isinstance(b, Buffer)}
        self._rooms = {i: at for i, at in places.items() if isinstance(i, int)}
        behind = self._total
        for buffer in spans:
            if buffer in unstored:
                self.places[buffer] = behind
                behind += buffer.stop - buffer.start

    def _spread_out(self) -> None:
        """Give every made buffer a place of its own, to see which calls can be one loop."""
        self.places, at = {}, 0
        for call in self.calls:
            for ref in refs_of(call):
                buffer = ref.buffer.origin
                if buffer.kind == MADE and buffer not in self.places:
                    self.places[buffer] = at
                    at += -(-(buffer.stop - buffer.start) // ALIGNMENT) * ALIGNMENT

    def _allocate(self) -> None:
        raw = np.zeros(self._total + ALIGNMENT, np.uint8)
        shift = -raw.__array_interface__["data"][0] % ALIGNMENT
        self.arena = raw[shift : shift + self._total]

    def array(self, ref: Ref) -> np.ndarray[Any, Any]:
        """The array that a replay uses for a recorded one."""
        known = self._arrays.get(id(ref))
        if known is None:
            known = self._arrays[id(ref)] = self._view(ref)
        return known

    def _view(self, ref: Ref) -> np.ndarray[Any, Any]:
        buffer = ref.buffer.origin
        if buffer.kind == MADE:
            return np.ndarray(
                ref.shape, ref.dtype, self.arena, self.places[buffer] + ref.offset, ref.strides
            )
        root = buffer.root
        whole = np.lib.stride_tricks.as_strided(root, ref.shape, ref.strides)
        if (
            root.dtype == ref.dtype
            and root.__array_interface__["data"][0] == buffer.start + ref.offset
        ):
            return whole
        return at_address(root, buffer.start + ref.offset, ref)

    def bind(self, value: Any) -> Any:
        """Arguments with arrays in place of their `Ref`."""
        return bound(value, self.array)

    # -------------------------------------------------------------------------- calls
    def _step(self, call: AnyCall) -> Step:
        if isinstance(call, Guard):
            return _check, (self.array(call.ref), call.value)
        if isinstance(call, HostCall):
            if call.grads:
                return with_grads, (call.function, placed_grads(call, self.array))
            if call.out is None:
                return call.function, ()
            return _fill, (self.array(call.out), call.function)
        args, kwargs = self.bind(call.args), self.bind(call.kwargs)
        outs = tuple(map(self.array, call.outs))
        function = call.function
        if not outs:
            if is_launch(call):
                name, dtype, _, _, arguments, _ = args
                return function.__self__.runs(name, dtype), (arguments,)  # type: ignore[attr-defined]
            if function is operator.setitem:
                return _assignment(*args)
            return (partial(function, **kwargs) if kwargs else function), args
        if isinstance(function, np.ufunc):
            args = _as_arrays(args)
            if function in (np.maximum, np.minimum):  # which want the place as a keyword
                return partial(function, out=outs[0], **kwargs), args
            return (partial(function, **kwargs) if kwargs else function), (*args, *outs)
        if function in (small.layer, small.gradients):
            # Larger ones may be replaced by arrays that it would not take.
            if all(a.nbytes < WORTH_MOVING for a in args if isinstance(a, np.ndarray)):
                found = small.direct(function, args, outs)
                if found is not None:
                    return found[0], (found[1],)
        owner = getattr(function, "__self__", None)
        (out,) = outs if len(outs) == 1 else (None,)
        if (
            isinstance(owner, np.ufunc)
            and function.__name__ == "reduce"
            and not (kwargs.keys() - {"axis", "dtype", "keepdims"})
        ):
            given = {"axis": 0, "dtype": None, "keepdims": False}
            given.update(zip(("axis", "dtype"), args[1:3]))
            given.update(kwargs)
            return function, (args[0], given["axis"], given["dtype"], out, given["keepdims"])
        if out is not None:
            if function is np.ndarray.astype or function is np.ndarray.copy:
                return partial(np.copyto, casting="unsafe"), (out, args[0])
            if function in (np.ndarray.reshape, np.ndarray.flatten, np.ndarray.ravel):
                if out.flags.c_contiguous and not kwargs and "F" not in args[1:]:
                    return np.copyto, (out.reshape(args[0].shape), args[0])
            if function is products.multiplied or function in (np.dot, np.ndarray.dot):
                if not kwargs and out.flags.c_contiguous and out.ndim:
                    return function, (*args, out)
            if isinstance(owner, np.ufunc) or function in WITH_OUT or function in METHODS_WITH_OUT:
                if out.flags.c_contiguous or function not in (np.dot, np.ndarray.dot):
                    return partial(function, out=out, **kwargs), args
            if function in (np.asarray, np.array, np.ascontiguousarray, np.copy):
                if len(args) == 1 and isinstance(args[0], np.ndarray) and "like" not in kwargs:
                    return partial(np.copyto, casting="unsafe"), (out, args[0])
            if function is np.where and len(args) == 3 and args[0].size < out.size:
                return _chosen, (out, *args)  # a mask: of one for each element it is slower
            if function in (np.take, np.ndarray.take) and out.nbytes >= LARGE:
                if len(args) == 2 and kwargs == {"axis": 0} and out.flags.c_contiguous:
                    return _taken, (out, *args)
        if function in SEVERAL and len(outs) > 1 and all(o.flags.c_contiguous for o in outs):
            function = partial(function, out=outs)
        return _copied, (outs, partial(function, **kwargs) if kwargs else function, args)

    def release(self) -> None:
        """Let go of what no replay needs: the calls, and the places of their arrays."""
        self._arrays.clear()
        self.calls, self.places, self.pinned = [], {}, set()

    def replay(self, values: Sequence[Any] = ()) -> None:
        """Put the inputs' values in their places, and make all calls.

        Raises:
            GuardError: a value that was branched on has changed; nothing outside has then.
        """
        for place, value in zip(self.inputs, values):
            if place is not None:
                np.copyto(place, value)
        if self._moving is not None:
            self._moving.point(values, self.steps)
        self.run()

    def run(self) -> None:
        """Make all calls."""
        if self.silent:
            for function, args in self.steps:
                function(*args)
            return
        token = quiet()
        try:
            for function, args in self.steps:
                function(*args)
        finally:
            loud(token)

    # -------------------------------------------------------------------- description
    def summary(self) -> str:
        """How much memory it keeps."""
        made = sum(b.stop - b.start for b in self.places)
        return f"{len(self.places)} arrays of {size_of(made)} in {size_of(self.arena.nbytes)}"

    def notes(self) -> tuple[str, set[int]]:
        """A line for `explain`, or "", and the positions of the calls that it marks."""
        return "", set()


def size_of(n: float) -> str:
    """A number of bytes for people."""
    for unit in ("B", "KiB"):
        if n < 1024:
            return f"{n:.0f} {unit}" if unit == "B" else f"{n:.1f} {unit}"
        n /= 1024
    return f"{n:.1f} MiB"


def is_launch(call: Call) -> bool:
    """Whether a call launches a kernel: name, dtype, grid, block, arguments, shared memory."""
    return isinstance(getattr(call.function, "__self__", None), Launcher)


def at_address(root: Any, address: int, ref: Ref) -> np.ndarray[Any, Any]:
    """An array anywhere in the memory of another one, which it keeps alive."""

    class Interface:
        __array_interface__ = {
            "data": (address, not root.flags.writeable),
            "shape": ref.shape,
            "strides": ref.strides,
            "typestr": ref.dtype.str,
            "version": 3,
        }
        owner = root

    return np.asarray(Interface()).view(ref.dtype)  # the interface has no name for bfloat16


def _check(array: Any, value: bool) -> None:
    if bool(array) is not value:
        raise GuardError


def placed_grads(call: HostCall, place: Callable[[Ref], Any]) -> list[tuple[Tensor, Tensor | None]]:
    """The gradients that Python code must find: one from before the step stays as it is."""
    return [
        (p, None if ref is None else wrap(place(ref)))
        for p, ref in call.grads
        if ref is None or ref.buffer.kind != STATE
    ]


def with_grads(function: Callable[[], Any], grads: list[tuple[Tensor, Tensor | None]]) -> None:
    """Call Python code that reads gradients, which are put in their places before."""
    for p, grad in grads:
        p._grad = grad
    function()


def _fill(out: Any, function: Callable[[], Any]) -> None:
    np.copyto(out, function())


def _assignment(target: Any, key: Any, value: Any) -> Step:
    """``target[key] = value`` as a copy into a view where that is possible."""
    keys = key if key.__class__ is tuple else (key,)
    if all(k is None or k is Ellipsis or k.__class__ in (int, slice) for k in keys):
        view = target[(*keys, ...)] if Ellipsis not in keys else target[keys]
        return partial(np.copyto, casting="unsafe"), (view, value)
    return operator.setitem, (target, key, value)


def _copied(outs: tuple[Any, ...], function: Callable[..., Any], args: tuple[Any, ...]) -> None:
    """Call what has no place for its result, and copy the result to its place."""
    result = function(*args)
    if len(outs) == 1 and not isinstance(result, (tuple, list)):
        result = (result,)
    for out, value in zip(outs, result):
        if value is not out:
            np.copyto(out, value)


def _chosen(out: Any, condition: Any, a: Any, b: Any) -> None:
    """``where(condition, a, b)``, which has no parameter for the place of its result."""
    np.copyto(out, b, casting="unsafe")
    np.copyto(out, a, casting="unsafe", where=condition)


def _taken(out: Any, x: Any, index: Any) -> None:
    """``x.take(index, axis=0)``, which would make a copy first, to raise before it writes."""
    rows = x.shape[0]
    if index.max() >= rows or index.min() < -rows:
        x.take(index, axis=0)  # raises
    np.take(x, index, axis=0, out=out, mode="wrap")


def _as_arrays(args: tuple[Any, ...]) -> tuple[Any, ...]:
    """Python numbers as 0-d arrays of the dtype that they take on, which NumPy reads faster."""
    kinds = {a.dtype for a in args if isinstance(a, np.ndarray)}
    if len(kinds) != 1:
        return args
    (kind,) = kinds
    if kind.kind != "f":
        return args
    return tuple(np.asarray(a, kind) if a.__class__ in (int, float) else a for a in args)
