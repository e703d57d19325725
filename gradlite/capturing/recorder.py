"""The recorder: writes down every array call of one step while the step runs.

What is recorded is below the tensors: NumPy's functions with the arrays they read and write. An
array is known by its memory: a `Ref` names a `Buffer` and where in it the array lies, so that
views need no calls of their own, and an edit through one view is seen through all.
"""

from __future__ import annotations

import bisect
import functools
import operator
import sys
import threading
import types
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from gradlite.amp import GradScaler
from gradlite.capturing import recorded
from gradlite.capturing.recorded import Recorded, active, plain, plain_values
from gradlite.ops import columns, pooling
from gradlite.ops.namespaces import NAMESPACES, Namespace
from gradlite.optim import optimizer
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.swa_utils import AveragedModel
from gradlite.random import Generator
from gradlite.tensor import Tensor


class CaptureError(RuntimeError):
    """A step does something that a recording cannot repeat."""


@dataclass(eq=False, slots=True)
class Buffer:
    """A piece of memory that the recorded calls use.

    Attributes:
        root: the array that owns it, kept alive so that no other gets its address.
        start: its first address.
        stop: the address behind its last byte.
        kind: who puts values into it.
        same_as: the buffer of which it was a copy that turned out not to be needed.
    """

    root: Any
    start: int
    stop: int
    kind: str
    same_as: Buffer | None = None

    @property
    def origin(self) -> Buffer:
        """The buffer whose memory this one shares since a copy was left out; mostly itself."""
        return self if self.same_as is None else self.same_as.origin


# The kinds of buffers:
STATE = "state"  # a tensor's that was there before: a replay reads and writes the same memory
CONSTANT = "constant"  # filled by the host: a replay reads it; written to, it is filled anew first
MADE = "made"  # by the recorded calls: a replay has its own memory for it


@dataclass(eq=False, slots=True)
class Ref:
    """An array of the recording: where in which buffer it lies."""

    buffer: Buffer
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    dtype: np.dtype[Any]


@dataclass(eq=False, slots=True)
class Call:
    """One array call.

    Attributes:
        function: what is called; `operator.getitem` and `operator.setitem` stand for indexing.
        args, kwargs: its arguments, with a `Ref` for every array; without ``out``.
        outs: where the results go; empty when the call writes to its arguments (``writes``).
        writes: the arguments that it writes to.
    """

    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    outs: tuple[Ref, ...] = ()
    writes: tuple[Ref, ...] = ()


@dataclass(eq=False, slots=True)
class HostCall:
    """A call of Python code that a replay makes anew, such as an optimizer's step.

    Attributes:
        function: called without arguments.
        out: where the array that it returns goes, or None.
        grads: the parameters whose gradients it reads, with these gradients.
        undoable: whether all that it changes is the state of the random numbers.
    """

    function: Callable[[], Any]
    out: Ref | None = None
    grads: list[tuple[Tensor, Ref]] = field(default_factory=list)
    undoable: bool = False


@dataclass(eq=False, slots=True)
class Guard:
    """A value that Python branched on: a replay is right only while it stays the same."""

    ref: Ref
    value: bool


# Functions that write to their first argument and return nothing of interest.
WRITERS = frozenset(
    (
        np.copyto, np.put, np.place, np.putmask, np.put_along_axis, np.fill_diagonal,
        np.ndarray.fill, np.ndarray.put, np.ndarray.sort, np.ndarray.partition, operator.setitem,
    )
)  # fmt: skip
# Functions whose result is no array, and depends on shapes and dtypes alone.
DESCRIPTIONS = frozenset(
    (
        np.shape, np.ndim, np.size, np.result_type, np.can_cast, np.may_share_memory,
        np.shares_memory, np.iscomplexobj, np.isrealobj, np.broadcast_shapes,
    )
)  # fmt: skip
# Modules of gradlite that deal with the host's data and are left alone.
HOST_MODULES = ("capturing", "cli", "datasets", "io", "random", "utils.data", "printing")
# Recorded as one call each, so that compiled code can do them its own way.
CONVOLUTIONS = (
    columns.convolve, columns.input_gradient, columns.weight_gradient, columns.gradients,
)  # fmt: skip
POOLINGS = (pooling.maxima, pooling.scatter)
DRAWS = ("words", "random", "normal", "integers", "bernoulli_mask", "permutation", "multinomial")

_raw_array: Any = Tensor.__dict__["array"]


def is_recording() -> bool:
    """Whether this thread records a step."""
    recorder = recorded.current
    return recorder is not None and recorder.thread == threading.get_ident()


class Recorder:
    """Records one run of a step; see `recording`."""

    def __init__(self) -> None:
        self.calls: list[Call | HostCall | Guard] = []
        self.paused = 0
        self.thread = threading.get_ident()
        self.touched: dict[int, tuple[Tensor, Any]] = {}
        self.born: set[int] = set()  # tensors made during the recording
        self.replaced: list[Tensor] = []  # others that were given another array
        self._starts: list[int] = []
        self._buffers: list[Buffer] = []
        self._faces: dict[int, Recorded] = {}
        self.used_grads: dict[int, Tensor] = {}  # leaves whose gradients the step changes or reads
        self._random_states: dict[int, tuple[Any, list[Any]]] = {}
        self._mentioned: dict[Buffer, int] = {}  # constants: no later than which call

    # ------------------------------------------------------------------------- arrays
    def face(self, array: np.ndarray[Any, Any]) -> Recorded:
        """The recorded array of an ordinary one, the same one every time."""
        known = self._faces.get(id(array))
        if known is None:
            known = self._faces[id(array)] = array.view(Recorded)
            known.plain = array  # which keeps its id from being used again
        return known

    def find(self, array: Any) -> Buffer | None:
        """The buffer in which an array lies, if it is known."""
        address = array.__array_interface__["data"][0]
        place = bisect.bisect_right(self._starts, address) - 1
        if place >= 0 and address < self._buffers[place].stop:
            return self._buffers[place]
        return None

    def _enter(self, array: np.ndarray[Any, Any], kind: str) -> Buffer:
        root = array
        while isinstance(root.base, np.ndarray):
            root = root.base
        start, stop = byte_bounds(root)
        buffer = Buffer(root, start, max(stop, start + 1), kind)
        place = bisect.bisect_left(self._starts, start)
        self._starts.insert(place, start)
        self._buffers.insert(place, buffer)
        return buffer

    def ref(self, array: np.ndarray[Any, Any]) -> Ref:
        """The place of an array; the host has filled one that is not known yet."""
        buffer = self.find(array)
        if buffer is None:
            buffer = self._enter(array, CONSTANT)
        if buffer.kind == CONSTANT:
            self._mentioned.setdefault(buffer, len(self.calls))
        address = array.__array_interface__["data"][0]
        return Ref(buffer, address - buffer.start, array.shape, array.strides, array.dtype)

    def refs(self, value: Any) -> Any:
        """Arguments with a `Ref` in place of every array."""
        cls = value.__class__
        if isinstance(value, np.ndarray):
            array = plain(value)
            # A 0-d or empty array that nobody will write to may stand for itself.
            return self.ref(array) if array.size else array
        if cls is tuple or cls is list:
            return cls([self.refs(v) for v in value])
        if cls is dict:
            return {k: self.refs(v) for k, v in value.items()}
        return value

    # -------------------------------------------------------------------------- calls
    def run(self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any) -> Any:
        """Make a call with ordinary arrays and write it down."""
        if any(self._has_mask(k) for k in args[1:2] if function is operator.getitem):
            raise CaptureError(
                "indexing with a boolean mask gives a result whose size depends on values, which "
                "a recorded step cannot repeat: use where() or masked_fill()"
            )
        out = kwargs.get("out")
        given = out if out.__class__ is tuple else (out,) if out is not None else ()
        writes = self._written(function, args, given)
        for array in writes:
            self._before_write(array)
        with self.pause():
            result = function(*plain_values(tuple(args)), **plain_values(kwargs))
        if not writes and not self._depends(args) and not self._depends(tuple(kwargs.values())):
            return self._constant_result(result)
        kwargs = {k: self.refs(v) for k, v in kwargs.items() if k != "out"}
        if given:
            outs = tuple(self.ref(plain(o)) for o in given if o is not None)
            self._add(Call(function, self.refs(tuple(args)), kwargs, outs))
            return out[0] if out.__class__ is tuple and len(out) == 1 else out
        if writes:
            refs = tuple(self.ref(plain(w)) for w in writes)
            self._add(Call(function, self.refs(tuple(args)), kwargs, (), refs))
            return result
        if result.__class__ is tuple or result.__class__ is list:
            parts = [np.asarray(r) for r in result]
        elif isinstance(result, (np.ndarray, np.generic)):
            parts = [np.asarray(result)]
        elif function in DESCRIPTIONS or result is None:
            return result
        else:
            raise CaptureError(
                f"{getattr(function, '__name__', function)}() hands a value to Python, which a "
                "recorded step cannot repeat: keep it in a tensor"
            )
        parts = [plain(p) for p in parts]
        fresh = [p for p in parts if self.find(p) is None]
        if any(p.size for p in fresh):
            if len(fresh) != len(parts):
                raise CaptureError(f"{function} returned both views and new arrays")
            for part in fresh:
                if self.find(part) is None:
                    self._enter(part, MADE)
            outs = tuple(map(self.ref, fresh))
            self._add(Call(function, self.refs(tuple(args)), kwargs, outs))
        faces = [self.face(p) for p in parts]
        return faces[0] if not isinstance(result, (tuple, list)) else result.__class__(faces)

    def _depends(self, value: Any) -> bool:
        """Whether some array among the arguments may differ in a replay."""
        if isinstance(value, np.ndarray):
            buffer = self.find(plain(value))
            return buffer is not None and buffer.kind != CONSTANT
        if value.__class__ is tuple or value.__class__ is list:
            return any(map(self._depends, value))
        return False

    def _constant_result(self, result: Any) -> Any:
        if result.__class__ is tuple or result.__class__ is list:
            return result.__class__([self._constant_result(r) for r in result])
        if isinstance(result, np.generic):
            result = np.asarray(result)
        return self.made(result, False)

    def _add(self, call: Call | HostCall | Guard) -> None:
        self.calls.append(call)

    @staticmethod
    def _has_mask(key: Any) -> bool:
        keys = key if key.__class__ is tuple else (key,)
        return any(k.__class__ is Recorded and k.dtype == np.bool_ for k in keys)

    @staticmethod
    def _written(function: Any, args: Sequence[Any], given: Sequence[Any]) -> list[Any]:
        if given:
            return [o for o in given if o is not None]
        name = getattr(function, "__name__", "")
        owner = getattr(function, "__self__", None)
        if function in WRITERS or (name == "at" and isinstance(owner, np.ufunc)):
            return [args[0]]
        return []

    def _before_write(self, array: Any) -> None:
        """A buffer that the host has filled is filled anew by every replay, if it is written to."""
        ordinary = plain(array)
        buffer = self.find(ordinary) or self._enter(ordinary, CONSTANT)
        if buffer.kind == CONSTANT:
            buffer.kind = MADE
            whole = self.ref(buffer.root)
            fill = Call(np.copyto, (whole, buffer.root.copy()), {}, (), (whole,))
            # Calls that were recorded as reading a constant must find it filled.
            self.calls.insert(self._mentioned.get(buffer, len(self.calls)), fill)

    def made(self, array: Any, blank: bool) -> Any:
        """An array that the library has made out of nothing; ``blank``: with any values."""
        if not isinstance(array, np.ndarray):
            return array
        array = plain(array)
        if array.size and self.find(array) is None:
            self._enter(array, MADE if blank else CONSTANT)
        return self.face(array)

    # ------------------------------------------------------------------------ the host
    def guard(self, array: Any, value: bool) -> None:
        """Note that Python has branched on a value."""
        ordinary = plain(array)
        buffer = self.find(ordinary)
        if buffer is not None and buffer.kind != CONSTANT:
            self._add(Guard(self.ref(ordinary), value))

    def refuse_read(self, how: str) -> None:
        """CaptureError: a value was asked for as a Python number."""
        raise CaptureError(
            f"{how} reads a tensor's value inside a captured step; a replay would go on with the "
            "value of the recording. Return the tensor from the step and read it there"
        )

    def save_random_state(self, save: Callable[[], Any]) -> Any:
        """The generator's state, which a replay will look up anew."""
        held: list[Any] = [None]

        def look() -> None:
            held[0] = save()

        self.host_call(look, undoable=True)
        state = held[0]
        self._random_states[id(state)] = (state, held)
        return state

    def restore_random_state(self, restore: Callable[[Any], None], state: Any) -> None:
        """Set the generator's state, in a replay to what was then looked up there."""
        _, held = self._random_states.get(id(plain(state)), (None, [np.array(plain(state))]))
        self.host_call(lambda: restore(held[0]), undoable=True)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Run code that is not recorded."""
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1

    def host_call(
        self, function: Callable[[], Any], params: Sequence[Tensor] = (), undoable: bool = False
    ) -> Any:
        """Run Python code now, and again in every replay."""
        with self.pause():
            grads = [(p, self.ref(p._grad.array)) for p in params if p._grad is not None]
            self.used_grads.update((id(p), p) for p, _ in grads)
            result = function()
        out = None
        if isinstance(result, np.ndarray):
            if self.find(result) is not None:
                result = result.copy()
            self._enter(result, MADE)
            out = self.ref(result)
        self._add(HostCall(function, out, grads, undoable))
        return self.face(result) if out is not None else result

    def release(self) -> None:
        """Let go of the memory of the recording; the calls stay."""
        for buffer in self._buffers:
            if buffer.kind == MADE:
                buffer.root = None
        self.touched.clear()
        self._faces.clear()
        self._mentioned.clear()

    # --------------------------------------------------------------- while it records
    def read_array(self, tensor: Tensor) -> Any:
        """What ``tensor.array`` is during the recording."""
        array = _raw_array.__get__(tensor)
        if active() is not self or array.__class__ is not np.ndarray:
            return array
        if id(tensor) not in self.touched:
            self.touched[id(tensor)] = (tensor, array)
            if array.size:
                (self.find(array) or self._enter(array, STATE)).kind = STATE
        return self.face(array)

    def write_array(self, tensor: Tensor, array: Any) -> None:
        """What assigning ``tensor.array`` does during the recording."""
        array = plain(array)
        if active() is self and isinstance(array, np.ndarray):
            if id(tensor) in self.touched and id(tensor) not in self.born:
                self.replaced.append(tensor)
            self.born.add(id(tensor))
            self.touched[id(tensor)] = (tensor, array)
            if array.size and self.find(array) is None:
                self._enter(array, CONSTANT)
        _raw_array.__set__(tensor, array)


class _Library(types.ModuleType):
    """NumPy as the ops see it during a recording: the arrays that it makes are recorded."""

    def __init__(self, source: Any, recorder: Recorder) -> None:
        super().__init__(source.__name__)
        self._source, self._recorder = source, recorder

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._source, name)
        if isinstance(found, types.ModuleType):
            found = _Library(found, self._recorder)
        elif callable(found) and not isinstance(found, (type, np.ufunc)):
            found = _function(found, name, self._recorder)
        setattr(self, name, found)
        return found


def _function(function: Any, name: str, recorder: Recorder) -> Any:
    blank = name.startswith("empty")

    def call(*args: Any, **kwargs: Any) -> Any:
        if active() is not recorder:
            return function(*args, **kwargs)
        if _mentions_recorded(args) or _mentions_recorded(tuple(kwargs.values())):
            if name in ("empty_like", "zeros_like", "ones_like", "full_like"):
                return recorder.made(function(*plain_values(args), **plain_values(kwargs)), blank)
            return recorder.run(function, args, kwargs)
        return recorder.made(function(*args, **kwargs), blank)

    call.__name__ = name
    return call


def _mentions_recorded(value: Any) -> bool:
    cls = value.__class__
    if cls is tuple or cls is list:
        return any(_mentions_recorded(v) for v in value)
    return cls is Recorded


def _drawn(original: Any) -> Any:
    name = original.__name__

    def draw(self: Generator, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(self, *args, **kwargs)
        arguments = plain_values(args)
        if name == "multinomial":
            raise CaptureError("multinomial() reads its weights on the host: draw outside the step")
        return recorder.host_call(lambda: original(self, *arguments, **kwargs), undoable=True)

    draw.__name__ = name
    return draw


def _noting_leaf(original: Any) -> Any:
    def _accumulate(self: Tensor, *args: Any) -> None:
        recorder = active()
        if recorder is not None:
            recorder.used_grads[id(self)] = self
        original(self, *args)

    return _accumulate


def _as_one_call(original: Any) -> Any:
    @functools.wraps(original)
    def call(xp: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(xp, *args, **kwargs)
        return recorder.run(original, (np, *args), kwargs)

    return call


def _state_saved(original: Any) -> Any:
    def state_array(self: Generator) -> Any:
        recorder = active()
        if recorder is None:
            return original(self)
        return recorder.save_random_state(lambda: original(self))

    return state_array


def _state_restored(original: Any) -> Any:
    def set_state_array(self: Generator, state: Any) -> None:
        recorder = active()
        if recorder is None:
            original(self, state)
        else:
            recorder.restore_random_state(lambda value: original(self, value), state)

    return set_state_array


def _on_the_host(original: Any) -> Any:
    """A method of an optimizer, scheduler or scaler that a replay calls anew."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(self, *args, **kwargs)
        if any(isinstance(a, Tensor) for a in (*args, *kwargs.values())):
            raise CaptureError(f"{original.__qualname__}() takes a tensor inside a captured step")
        params = [
            p
            for holder in (self, *args)
            if isinstance(holder, Optimizer)
            for group in holder.param_groups
            for p in group["params"]
        ]
        call = functools.partial(original, self, *args, **kwargs)
        functools.update_wrapper(call, original)
        return recorder.host_call(call, params)

    return method


def _step_on_the_host(step: Any, self: Any, args: Any, kwargs: Any) -> tuple[Any] | None:
    """What an optimizer's step asks first: its result, if it has been taken care of."""
    return None if active() is None else (_on_the_host(step)(self, *args, **kwargs),)


def _methods_of_the_host() -> Iterator[tuple[type, str]]:
    """The methods whose arithmetic is on the host: steps of schedulers and scalers."""
    stack: list[tuple[type, tuple[str, ...]]] = [
        (LRScheduler, ("step",)),
        (GradScaler, ("step", "update", "unscale_")),
        (AveragedModel, ("update_parameters",)),
    ]
    while stack:
        cls, names = stack.pop()
        yield from ((cls, name) for name in names if name in cls.__dict__)
        children: list[type] = cls.__subclasses__()
        stack += [(child, names) for child in children]


_lock = threading.Lock()


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record what this thread does inside the block.

    While it lasts ``Tensor.array`` is a property, ``np`` in the library's modules is a `_Library`,
    and the generator's draws note themselves; other threads see no difference.
    """
    _lock.acquire()
    recorder = Recorder()
    library = _Library(np, recorder)
    tensor_class: Any = Tensor
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("gradlite.")
        and not name.removeprefix("gradlite.").startswith(HOST_MODULES)
        and module.__dict__.get("np") is np
    ]
    methods: list[tuple[Any, str, Any, Any]] = [
        (Generator, name, Generator.__dict__[name], _drawn) for name in DRAWS
    ]
    methods += [(c, n, c.__dict__[n], _on_the_host) for c, n in _methods_of_the_host()]
    for name, around in (
        ("state_array", _state_saved),
        ("set_state_array", _state_restored),
        ("manual_seed", _on_the_host),
    ):
        methods.append((Generator, name, Generator.__dict__[name], around))
    methods.append((Tensor, "_accumulate", Tensor._accumulate, _noting_leaf))
    whole: list[tuple[Any, Any]] = [(columns, f) for f in CONVOLUTIONS]
    whole += [(pooling, f) for f in POOLINGS]
    methods += [(module, f.__name__, f, _as_one_call) for module, f in whole]
    methods.append((optimizer, "intercept", optimizer.intercept, lambda _: _step_on_the_host))
    try:
        for module in modules:
            module.__dict__["np"] = library
        for cls, name, original, wrapped in methods:
            setattr(cls, name, wrapped(original))
        tensor_class.array = property(recorder.read_array, recorder.write_array)
        NAMESPACES[Recorded] = Namespace(library)
        recorded.current = recorder
        yield recorder
    finally:
        recorded.current = None
        NAMESPACES.pop(Recorded, None)
        tensor_class.array = _raw_array
        for cls, name, original, _ in methods:
            setattr(cls, name, original)
        for module in modules:
            module.__dict__["np"] = np
        _lock.release()
