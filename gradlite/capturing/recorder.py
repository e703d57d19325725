"""The recorder: writes down every array call of one step while the step runs.

What is recorded is below the tensors: NumPy's functions with the arrays they read and write.
"""

from __future__ import annotations

import functools
import operator
import sys
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite.backends import cuda
from gradlite.capturing.array_functions import (
    DESCRIBING,
    DESCRIPTIONS,
    refuse_objects,
    written,
)
from gradlite.capturing.arrays import bounds, on_gpu, twin
from gradlite.capturing.asked import Questions
from gradlite.capturing.calls import (
    CONSTANT,
    MADE,
    STATE,
    AnyCall,
    Buffer,
    Call,
    CaptureError,
    Guard,
    HostCall,
    Ref,
    buffers_in,
    written_by,
)
from gradlite.capturing.code_names import catches, catches_at
from gradlite.capturing.handed import Handing, as_lists, is_of_step
from gradlite.capturing.recorded import Held, active, plain, plain_values
from gradlite.capturing.scaling import Scaling
from gradlite.capturing.sizes import FEW, NUMBERS, READS
from gradlite.capturing.trials import BY_VALUES, FACTORING, Factoring, Requirement, Trial
from gradlite.capturing.watched import Numbers
from gradlite.ops import shortcuts
from gradlite.optim.averages_in_graph import GraphAverage
from gradlite.optim.in_graph import GraphUpdate
from gradlite.tensor import Tensor

ANOTHER_STATE = (
    "the step puts a generator of random numbers into a state that it has not looked up itself, "
    "and that is another one at every call: do it outside of the step"
)
raw_array: Any = Tensor.__dict__["array"]


class Recorder(Handing):
    """Records one run of a step; see `recording`.

    Attributes:
        old_grads: parameters with the gradients that they had before the step.
    """

    def __init__(self) -> None:
        super().__init__()
        self.paused = 0
        self.avoidable = False  # whether what is branched on now need not be
        self.shortcuts = True  # whether ops may take ways that depend on values
        self.thread = threading.get_ident()
        self.touched: dict[int, tuple[Tensor, Any]] = {}
        self.born: set[int] = set()  # tensors made during the recording
        self.replaced: list[Tensor] = []  # others that were given another array
        self.used_grads: dict[int, Tensor] = {}  # leaves whose gradients the step changes or reads
        self._elements: dict[int, tuple[Any, Any]] = {}  # of arrays shown: the arrays and indices
        self.is_of_step: Callable[[Any], bool] = lambda code: False
        self.questions = Questions((), ())  # what it asks of its inputs
        self.asked_of: dict[int, set[str]] = {}  # and what of other tensors, by their ids
        self.numbers: list[Numbers] = []  # parts of NumPy's arrays that Python has read
        self.asked_grads: dict[int, Tensor | None] = {}  # as the step's code first found them
        self.cleared: dict[int, Tensor] = {}  # leaves that are to have none, whatever they had
        self.missing: set[int] = set()  # leaves in used_grads that had none before the step
        self.old_grads: list[tuple[Tensor, Tensor | None]] = []
        self._random_states: dict[Any, list[Any]] = {}  # as looked up last, by their buffers
        self.scaling = Scaling()
        self.settings: Callable[[], Any] = list  # the options of optimizers, as they are
        self.left: list[Any] = []  # what the step returns and leaves; see `compare`
        self.own: dict[Buffer, Any] = {}  # inputs and gradients, which are others at every call
        self._set: Any = []

    # -------------------------------------------------------------------------- calls
    def run(
        self,
        function: Callable[..., Any],
        args: Sequence[Any],
        kwargs: Any,
        writes: list[Any] | None = None,
    ) -> Any:
        """Make a call with ordinary arrays and write it down.

        Args:
            function, args, kwargs: the call.
            writes: the arguments that it writes to; None: see `written`. With a list the result
                NotImplemented, or False, says that nothing has been done.
        """
        if not is_of_step(tuple(args)) and not is_of_step(tuple(kwargs.values())):
            return self._run(function, args, kwargs, writes)
        args = as_lists(tuple(args))
        kwargs = {name: as_lists(value) for name, value in kwargs.items()}
        out = kwargs.get("out")
        result = self._run(function, args, kwargs, writes)
        self.give_written(written(function, args, out if isinstance(out, tuple) else (out,)))
        return self.shown(result)

    def _run(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any, writes: Any
    ) -> Any:
        if self.is_sized_by_values(function, args):
            return self.sized(function, args, kwargs, writes)
        out = kwargs.get("out")
        given = out if out.__class__ is tuple else (out,) if out is not None else ()
        told, writes = writes is not None, [*(writes or []), *given]
        if not told:
            writes = written(function, args, given)
        refuse_objects(function, writes)
        for array in writes:
            self.fill_anew(array)
        try:
            with self.pause():
                result = function(*plain_values(tuple(args)), **plain_values(kwargs))
        except BY_VALUES as error:
            values = (*args, *kwargs.values())
            if not writes and self.gpu is None and self.depends(values):
                named = {name: self.refs(value) for name, value in kwargs.items()}
                # The step may catch it: replays hold while it is raised.
                self._tried(Call(function, self.refs(tuple(args)), named), type(error), True)
            raise
        if told and (result is NotImplemented or result is False or _refused(result)):
            return result
        if not writes and not self.depends(args) and not self.depends(tuple(kwargs.values())):
            return self._constant_result(result)
        refuse_objects(function, (result,))
        kwargs = {k: self.refs(v) for k, v in kwargs.items() if k != "out"}
        if given:
            outs = tuple(self.ref(plain(o)) for o in given if o is not None)
            self._add(Call(function, self.refs(tuple(args)), kwargs, outs, (), None))
            return out[0] if out.__class__ is tuple and len(out) == 1 else out
        if told:
            return self._add_told(Call(function, self.refs(tuple(args)), kwargs), writes, result)
        if writes:
            refs = tuple(self.ref(plain(w)) for w in writes)
            self._add(Call(function, self.refs(tuple(args)), kwargs, (), refs))
            return result
        if isinstance(result, (tuple, list)):
            parts = [r if self.is_array(r) else np.asarray(r) for r in result]
        elif self.is_array(result):
            parts = [result]
        elif isinstance(result, np.generic):
            parts = [np.asarray(result)]
            if function is operator.getitem and self.find(plain(args[0])) in self._shown:
                self._elements[id(parts[0])] = plain(args[0]), plain_values(args[1])
        elif function in DESCRIPTIONS or result is None:
            return result
        elif self._cupy is not None and getattr(function, "__name__", "") in DESCRIBING:
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
            places = tuple(range(len(outs)))
            call = Call(function, self.refs(tuple(args)), kwargs, outs, (), places)
            if function in FACTORING and self.gpu is None:
                self._factored(call)
            else:
                self._add(call)
        faces = [self.face(p) for p in parts]
        if not isinstance(result, (tuple, list)):
            return faces[0]
        return getattr(result, "_make", result.__class__)(faces)  # also of a named tuple

    def _add_told(self, call: Call, writes: Sequence[Any], result: Any) -> Any:
        """Enter a call of which its caller knows what it writes to; its result, with faces."""
        several = result.__class__ is tuple or result.__class__ is list
        results = list(result) if several else [result]
        arrays = {i: plain(r) for i, r in enumerate(results) if self.is_array(r)}
        fresh = [i for i, a in arrays.items() if a.size and self.find(a) is None]
        for i in fresh:
            if self.find(arrays[i]) is None:
                self._enter(arrays[i], MADE)
        call.outs, call.fresh = tuple(self.ref(arrays[i]) for i in fresh), tuple(fresh)
        call.writes = tuple(self.ref(plain(w)) for w in writes)
        self._add(call)
        results = [self.face(arrays[i]) if i in arrays else r for i, r in enumerate(results)]
        return result.__class__(results) if several else results[0]

    def _factored(self, call: Call) -> None:
        """Enter a call that finds a result now: a replay in which it does not is no replay.

        Where it comes too late to go back from, such a replay raises the error.
        """
        if not self.shortcuts and not self.is_caught():
            call.function = Factoring(call.function)
            self._add(call)
            return
        self.avoidable, before = self.shortcuts, self.avoidable
        try:
            self._tried(call, np.linalg.LinAlgError, False)
        finally:
            self.avoidable = before

    def is_caught(self) -> bool:
        """Whether the step's own code would catch an error that is raised now."""
        frame: Any = sys._getframe(1)
        while frame is not None:
            code = frame.f_code
            if self.is_of_step(code) and catches(code) and catches_at(code, frame.f_lasti):
                return True
            frame = frame.f_back
        return False

    def _tried(self, call: Call, error: type[Exception], failed: bool) -> None:
        flag = np.array(failed)
        self._enter(flag, MADE)
        call.function, call.outs = Trial(call.function, error), (self.ref(flag), *call.outs)
        call.fresh = tuple(range(len(call.outs)))
        self._add(call)
        self.guard(flag, failed)

    def depends(self, value: Any) -> bool:
        """Whether some array among the arguments may differ in a replay."""
        if self.is_array(value):
            buffer = self.find(plain(value))
            return buffer is not None and buffer.kind != CONSTANT
        if value.__class__ is tuple or value.__class__ is list:
            return any(map(self.depends, value))
        return False

    def lasts(self, buffer: Buffer) -> bool:
        """Whether memory is that of a tensor that every replay finds anew in its place."""
        return buffer.kind == STATE and buffer not in self.own

    def _constant_result(self, result: Any) -> Any:
        if isinstance(result, (tuple, list)):
            make = getattr(result, "_make", result.__class__)
            return make([self._constant_result(r) for r in result])
        if isinstance(result, np.generic):
            result = np.asarray(result)
        return self.made(result, False)

    def _add(self, call: AnyCall) -> None:
        self.calls.append(call)

    def fill_anew(self, array: Any) -> None:
        """Have replays fill a buffer that the host has filled, which is going to be written to."""
        ordinary = plain(array)
        buffer = self.find(ordinary) or self._enter(ordinary, CONSTANT)
        if buffer.kind == CONSTANT:
            buffer.kind = MADE
            whole = self.ref(buffer.root)
            if buffer.on_gpu:
                assert self._cupy is not None
                fill = Call(self._cupy.copyto, (whole, buffer.root.copy()), {}, (), (whole,))
            elif not buffer.root.any() and not np.signbit(buffer.root).any():
                fill = Call(np.ndarray.fill, (whole, 0), {}, (), (whole,))
            else:
                fill = Call(np.copyto, (whole, buffer.root.copy()), {}, (), (whole,))
            # Calls that were recorded as reading a constant must find it filled.
            self.calls.insert(self._mentioned.get(buffer, len(self.calls)), fill)

    def made(self, array: Any, blank: bool) -> Any:
        """An array that the library has made out of nothing; ``blank``: with any values."""
        if not self.is_array(array):
            return array
        array = plain(array)
        if array.size and self.find(array) is None:
            self._enter(array, MADE if blank else CONSTANT)
        return self.face(array)

    # ------------------------------------------------------------------------ the host
    def guard(self, array: Any, value: bool, detail: tuple[str, Any] | None = None) -> None:
        """Note that Python has branched on a value; see `Guard`."""
        ordinary = plain(array)
        buffer = self.find(ordinary)
        if buffer is not None and buffer.kind != CONSTANT:
            keeps = any(
                old is not None and (p._grad is old or id(old) in self.touched)
                for p, old in self.old_grads
            )
            self._add(Guard(self.ref(ordinary), value, keeps, self.avoidable, detail))

    def require(
        self,
        condition: Any,
        error: type[Exception],
        message: str | Callable[..., str],
        *values: Any,
    ) -> None:
        """Note a condition that a replay must meet; where it does not, it raises the error."""
        if self.is_caught():
            fine = bool(condition)  # which makes another recording where it is another one
            with self.pause():
                shortcuts.require(fine, error, message, *plain_values(values))
            return
        check, arguments = Requirement(error, message), (condition, *values)
        with self.pause():
            check(*plain_values(arguments))
        if self.depends(condition):
            self._add(Call(check, self.refs(arguments), {}))

    def went_as(self, other: Recorder) -> bool:
        """Whether it took the branches of another one, and inputs and gradients were alike."""
        return (
            self.branches() == other.branches()
            and self.missing == other.missing
            and self.questions.same(other.questions)
        )

    def clears(self, params: Iterable[Tensor], drop: bool) -> None:
        """Note tensors whose gradients are dropped, or filled with zeros: there may be none."""
        noted = self.cleared if drop else self.used_grads
        noted.update((id(p), p) for p in params if p._grad is None)

    def note_missing(self) -> None:
        """Remember which gradients that the step asked for or added to were not there."""
        self.missing = {id(p) for p, old in self.old_grads if old is None} & set(self.used_grads)

    def avoids(self) -> bool:
        """Whether some of those branches were of ops that have a way without."""
        return any(isinstance(call, Guard) and call.avoidable for call in self.calls)

    def read(self, array: Any, how: str) -> None:
        """Note that values of an array of NumPy's, or some whole ones, were asked for.

        Raises:
            CaptureError: they are others.
        """
        whole, key = self._elements.get(id(array), (array, ()))
        buffer = self.find(whole)
        if buffer in self._shown and not any(buffer in written_by(call) for call in self.calls):
            keys = key if key.__class__ is tuple else (key,)
            self.numbers.append(Numbers(whole[(*keys, ...)]))  # as they are now
        elif array.dtype.kind in "biu" and how in NUMBERS and array.size <= FEW:
            self.has_read = how
            self.of_one_value(self.face(array), READS.format(how))
        else:
            anew = ", or use int(), with which a step is recorded anew for each value"
            raise CaptureError(READS.format(how) + anew * (array.dtype.kind in "iu"))

    def start(self, settings: Callable[[], Any]) -> None:
        """Note the options of optimizers before the step."""
        self.settings, self._set = settings, settings()

    def check_settings(self) -> None:
        """CaptureError when the step has set an option of an optimizer itself."""
        if self.settings() != self._set:
            raise CaptureError(
                "the step sets an option of an optimizer, such as its learning rate, or edits its "
                "state, which a replay would not do: use a scheduler, a tensor, or do it outside "
                "of the step"
            )

    def save_random_state(self, generator: Any, save: Callable[[], Any]) -> Any:
        """The generator's state, which a replay will look up anew."""
        held: list[Any] = [None]

        def look() -> Any:
            held[0] = save()
            return held[0]

        state = self.host_call(look, undoable=True, generator=generator)
        self._random_states[self.find(plain(state))] = held
        return state

    def restore_random_state(
        self, generator: Any, restore: Callable[[Any], None], state: Any
    ) -> None:
        """Set the generator's state, in a replay to what was then looked up there."""
        array = plain(state)
        buffer = self.find(array)
        held = self._random_states.get(buffer)
        if held is None or any(
            buffer in written_by(call) for call in self.calls if isinstance(call, Call)
        ):
            if self.depends(array):
                self.of_one_value(self.face(array), ANOTHER_STATE)
            held = [array.copy()]
        self.host_call(lambda: restore(held[0]), undoable=True, generator=generator)

    @contextmanager
    def pause(self) -> Iterator[None]:
        """Run code that is not recorded."""
        self.paused += 1
        try:
            yield
        finally:
            self.paused -= 1

    def host_call(
        self,
        function: Callable[[], Any],
        params: Sequence[Tensor] = (),
        undoable: bool = False,
        changed: Callable[[], Iterable[Tensor]] = tuple,
        of_host: bool = False,
        note: str = "",
        generator: Any = None,
    ) -> Any:
        """Run Python code now, and again in every replay.

        Args:
            params: whose gradients it reads.
            changed: gives the tensors that it may have written to.
            undoable, of_host, note, generator: see `HostCall`.
        """
        with self.pause():
            if not undoable:
                self.check_settings()
            grads = [(p, None if p._grad is None else self._grad(p._grad)) for p in params]
            self.used_grads.update((id(p), p) for p, _ in grads)
            result = function()
            changes = [t.array for t in changed()]
            if not undoable:
                self._set = self.settings()
        out = None
        if isinstance(result, np.ndarray):
            if self.find(result) is not None:
                result = result.copy()
            self._enter(result, MADE)
            out = self.ref(result)
        call = HostCall(function, out, grads, undoable, changes, of_host, note)
        call.generator = generator
        self._add(call)
        return self.face(result) if out is not None else result

    def graph_update(
        self, step: Callable[[], Any], optimizer: Any, params: Sequence[Tensor]
    ) -> Any:
        """Make an optimizer's step now, and in every replay as kernels of the graph."""
        active_params = [p for p in params if p._grad is not None]
        with self.pause():
            self.check_settings()
            result = step()
            self._set = self.settings()
            update = GraphUpdate(optimizer, active_params)
            arrays = [t.array for t in (*active_params, *update.state())]
        # Those without a gradient must have none in a replay either.
        self.used_grads.update((id(p), p) for p in params)
        grads = [self.ref(plain(p._grad.array)) for p in active_params]  # type: ignore[union-attr]
        flags = [optimizer.__dict__.get(name) for name in ("found_inf", "grad_scale")]
        scaling = [None if flag is None else self.ref(plain(flag.array)) for flag in flags]
        writes = tuple([self.ref(plain(p.array)) for p in active_params])
        prepare = functools.partial(update.prepare)
        prepare.__qualname__ = f"the numbers of {update.__name__}"  # type: ignore[attr-defined]
        self._add(HostCall(prepare, changes=arrays, of_host=True))
        self._add(Call(update, (grads, *scaling), {}, (), writes))
        return result

    def graph_average(self, average: Any, model: Any) -> None:
        """Take a model into an average now, and in every replay by kernels of the graph."""
        averaged, current = average._pairs(model)
        with self.pause():
            update = GraphAverage(average, averaged[0])
        counts = HostCall(update.prepare, of_host=True)
        if update.count is not update.number:
            with self.pause():
                counts.changes = [update.number.array]
                update.number += 1
            self._add(counts)
        average._average(averaged, current, update.count)
        average._copy_buffers(model)
        count = plain(update.count.array)
        place = self.ref(count)
        self.own[place.buffer] = "count"
        self._add(Call(update, (place,), {}, (), (place,)))
        update(count)
        update.count._bump()

    def _grad(self, grad: Tensor) -> Ref:
        """The place of a gradient that Python code reads; it may be from before the step."""
        if grad.array.size and self.find(grad.array) is None:
            self.touched[id(grad)] = (grad, grad.array)
            self._enter(grad.array, STATE)
        return self.ref(grad.array)

    def draw_place(self, generator: Any, blocks: int) -> Any:
        """The state of a generator before a draw, on the GPU; a replay takes it anew."""
        cupy = self._cupy
        if cupy is None:
            return None

        # With arguments, which are compared: a generator that the step makes is another one.
        reserve = functools.partial(_reserved, generator, blocks)
        reserve.__qualname__ = "Generator.reserve"  # type: ignore[attr-defined]
        with self.pause():
            state = cupy.asarray(reserve())
        self._enter(state, MADE)
        takes = generator, blocks
        place = self.ref(state)
        self._add(HostCall(reserve, place, undoable=True, takes=takes, generator=generator))
        return Held(self.face(state))

    def check(self) -> None:
        """CaptureError when a GPU came into use too late to be recorded."""
        if self._cupy is None and cuda.in_use():
            raise CaptureError(
                "the step is the first to use CUDA: call it once before it is recorded (warmup=1)"
            )

    def part(self, kept: Iterable[Any] = ()) -> None:
        """Leave the memory that the program has been handed to the program alone.

        What the step puts somewhere may share memory with an input, to which replays write, or
        with a constant, which they read: from now on theirs are copies. Arrays are not found by
        their addresses any more then.

        Args:
            kept: what the step leaves beside `left`, with a `Ref` for every array.
        """
        given = {buffer for buffer, name in self.own.items() if name.__class__ is int}
        left = {b for b in buffers_in([*self.left, *kept]) if b.kind == CONSTANT}
        # Memory that is no array's, as of a memoryview, is read as it is then.
        own = {b for b in left if b.on_gpu or b.root.flags.owndata}
        for buffer in given | own:
            buffer.root = twin(buffer.root)
            buffer.start, buffer.stop = bounds(buffer.root)

    def release(self) -> None:
        """Let go of the memory of the recording; the calls stay."""
        for buffer in self._buffers:
            if buffer.kind == MADE:
                buffer.root = None
        self.touched.clear()
        self.old_grads = []
        self.asked_grads.clear()
        self._shown.clear()
        self._elements.clear()
        self._masks.clear()
        self._shown_faces.clear()
        self._read_in_c.clear()
        self._faces.clear()
        self._mentioned.clear()

    # --------------------------------------------------------------- while it records
    def read_array(self, tensor: Tensor) -> Any:
        """What ``tensor.array`` is during the recording."""
        array = raw_array.__get__(tensor)
        if active() is not self or array.__class__ not in self.kinds:
            return array
        if id(tensor) not in self.touched:
            self.touched[id(tensor)] = (tensor, array)
            if array.size:
                (self.find(array) or self._enter(array, STATE)).kind = STATE
        if self.is_of_step(sys._getframe(1).f_code) and not on_gpu(array):
            return self.shown(array)
        return self.face(array)

    def write_array(self, tensor: Tensor, array: Any) -> None:
        """What assigning ``tensor.array`` does during the recording."""
        array = plain(array)
        if active() is self and isinstance(array, self.kinds):
            if id(tensor) in self.touched and id(tensor) not in self.born:
                old = raw_array.__get__(tensor)
                if not self.questions.takes(tensor) and self.move(tensor, old, array):
                    raw_array.__set__(tensor, array)
                    return
                self.replaced.append(tensor)
            self.born.add(id(tensor))
            self.touched[id(tensor)] = (tensor, array)
            if array.size and self.find(array) is None:
                self._enter(array, CONSTANT)
        raw_array.__set__(tensor, array)


def _reserved(generator: Any, blocks: int) -> Any:
    return np.array(generator.reserve(blocks), np.uint64)


def _refused(result: Any) -> bool:
    """Whether the parts of a result say that nothing has been done."""
    return result.__class__ is tuple and any(part is NotImplemented for part in result)
