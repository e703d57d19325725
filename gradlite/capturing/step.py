"""capture: a training step recorded once and replayed."""

from __future__ import annotations

import functools
import sys
import threading
import warnings
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import Any, NamedTuple

from gradlite import graph
from gradlite.capturing.asked import Questions, pattern
from gradlite.capturing.attempt import Attempt, detached
from gradlite.capturing.calls import (
    CaptureError,
    LateGuardError,
)
from gradlite.capturing.carried import Carried, UnsettledError
from gradlite.capturing.compare import difference
from gradlite.capturing.explain import explain
from gradlite.capturing.native.build import available
from gradlite.capturing.plan import GuardError
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.recording import is_recording, recording
from gradlite.capturing.replaying import Recording
from gradlite.capturing.surroundings import Surroundings, modes
from gradlite.capturing.watched import spelled
from gradlite.capturing.watching import Findings
from gradlite.tensor import Tensor
from gradlite.utils._pytree import TreeSpec, tree_flatten, tree_unflatten

__all__ = ["CaptureError", "CapturedStep", "capture"]

GIVEN_ANEW = 3  # recordings in a row for which somebody has put other tensors somewhere
IN_VAIN = 8  # recordings without a replay between them, then a warning
MEETINGS = 16  # recordings that meet code which was not found before
ATTEMPTS = 3  # recordings in a row that may differ from each other
WAITING = 8  # times the recordings that are kept: signatures recorded once, for comparison
IN_A_ROW = 2  # recordings without two alike, then ops do without shortcuts that depend on values
BRANCHES = 4  # ways through a step that are recorded beside the first; others run as they are


def capture(
    step: Callable[..., Any] | None = None,
    *,
    state: Iterable[Any] = (),
    warmup: int = 1,
    max_recordings: int = 8,
    native: bool | None = None,
) -> Any:
    """Record a step once and replay it from then on, without Python's cost per operation.

    The first calls run as they are; two more are recorded and compared, and from then on a call
    copies its inputs to the recorded ones' place and makes the recorded array calls again. A
    function, or a decorator.

    On a GPU the recorded calls become CUDA graphs at the first replay, in memory of their own, with
    the very bits of the step as it is; products of matrices then need nvmath-python. The updates of
    optimizers are part of the graphs, what changes of their numbers is sent before, and so is a
    `GradScaler` whose `update` is called in the step: a count of steps that it may have left out,
    asked of ``optimizer.state`` or saved, waits for the GPU. What is Python's, schedules, and
    optimizers with hooks, arguments or rules of one's own, runs between the graphs, and inputs
    on the CPU are copied there by the step's own ``to("cuda")``.
    Besides what is refused on the CPU no step may copy to it (``cpu()``), use two GPUs, or call
    what waits for a value or what CuPy has from cuSOLVER. While a step is recorded all its
    intermediate results are kept at once.

    What a replay honours: new values of all inputs, parameters, buffers, gradients, optimizer state
    and hyperparameters (learning rates, schedulers, a `GradScaler`), and random numbers, which go
    on in the same stream. Edits in place of an input, ``requires_grad_()`` and its gradient reach
    the tensor that is given; an input is read as it was when the call began, also where it shares
    memory with what the step changes. The next replay uses the memory of the gradients that one
    leaves: clone those that you keep. Tensors that the step has computed and puts into variables,
    attributes, dictionaries or lists are put there anew, copies of your own; a list is to be
    cleared and filled. Where the step reads what the last call has put there, as hidden states,
    running averages and sums, every replay goes on from what it finds in the place then, yours or
    its own, and is another recording for another shape, dtype, layout or ``requires_grad``; when a
    replay raises an error it is still there. Put ``detach()`` of it there, or read it with
    ``detach()``: a graph that goes on from call to call is refused, and so is a tensor that the
    step reads by another way as well, or that shares memory with one that lasts. Data that somebody
    else puts into a variable, an attribute or a container for every call, as the next batch, are
    taken for inputs once that has been seen. `explain` lists the places of both. A tensor
    that the step gives other data (``p.data = values``) has them where it was before, which is
    refused while the program has another tensor there; an array of NumPy's or CuPy's that was made
    of it before the recording shows them too.
    What makes another recording: inputs of another shape, dtype or number, train and eval
    mode, grad mode, a layer frozen or unfrozen, another module, tensor or number behind a variable
    of the step or in what it leads to (containers, attributes, classes, modules, hooks), another
    answer to what the step asks of its inputs (layout, address, identity, attributes), a branch on
    a tensor's value that goes another way, a matrix that has no factor or solution where it had
    one (`linalg.cholesky`, `linalg.solve`), a boolean mask that holds in more or fewer places, as
    `nonzero` and on the CPU `unique` may find them, another whole number that ``item()``,
    ``int()``, ``float()``, ``tolist()`` or an index reads of a tensor of whole numbers, other
    values of an array that code in C reads (``table[a]``, ``table.dot(a)``, SciPy's functions).
    What is refused: reading a value in another way (``item()`` of other tensors, as of a loss,
    text), sizes and whole numbers that are others at every call,
    branching on a value after the step has changed it, counting in Python, a list that grows,
    asking for the time, for files or for random numbers of the system, opening a file to read it,
    editing a list or a dictionary among the arguments, setting a seed of Python's or NumPy's, and
    whatever differs between the two recordings, such as random numbers of theirs. Python code of
    the step does not run in a replay: it prints, logs and warns of nothing then, and writes to no
    file (writing into an ``io.StringIO`` is refused). Of what is put into the ``__dict__`` of a
    layer of the library's, past `setattr`, parameters and buffers are not noticed. Tensors, layers
    and optimizers that the step knows by weak references live as long as a recording of it.

    Args:
        step: the function: its arguments and results may be nested in tuples, lists and
            dictionaries. Tensors among the results are yours: copies, outside of any graph.
        state: objects that the step uses and that cannot be found in its closure, its globals or
            the object it is a method of.
        warmup: how many calls run as they are before the recordings.
        max_recordings: how many recordings are kept, the ones used last.
        native: whether replays on the CPU run compiled code instead of array calls. By default
            they do where there is a C++ compiler, unless the variable ``GRADLITE_NATIVE`` is 0.
            Array calls give the very bits that the step gives without capture, unless an op takes
            a shortcut by values that a recording does without: such as come of parameters the step
            has updated, go another way too often, or are the lengths of CTC's targets; compiled
            code rounds differently.

    Raises:
        CaptureError: a `RuntimeError`: the step does what a replay could not repeat.

    >>> import gradlite
    >>> from gradlite import nn, optim
    >>> model = nn.Linear(2, 1)
    >>> optimizer = optim.SGD(model.parameters(), lr=0.1)
    >>> @gradlite.capture
    ... def step(x, y):
    ...     optimizer.zero_grad()
    ...     loss = nn.functional.mse_loss(model(x), y)
    ...     loss.backward()
    ...     optimizer.step()
    ...     return loss
    >>> x, y = gradlite.randn(8, 2), gradlite.randn(8, 1)
    >>> losses = [step(x, y).item() for _ in range(20)]
    >>> losses[-1] < losses[0], step.replays
    (True, 17)
    """
    if step is None:
        return functools.partial(
            capture, state=state, warmup=warmup, max_recordings=max_recordings, native=native
        )
    if not callable(step):
        raise TypeError(f"capture() takes a function, not {type(step).__name__}")
    return CapturedStep(step, tuple(state), warmup, max_recordings, native)


class Earlier(NamedTuple):
    """A recording that waits for another one.

    Attributes:
        recorder: what has recorded the step.
        surroundings: what was there then.
        attempts: how many recordings before it were others.
    """

    recorder: Recorder
    surroundings: Surroundings
    attempts: int


class CapturedStep:
    """A function that is recorded and replayed; made by `capture`.

    Attributes:
        step: the function itself.
        recordings: how many recordings are kept.
        replays: how many calls were replays.
    """

    def __init__(
        self,
        step: Callable[..., Any],
        state: tuple[Any, ...],
        warmup: int,
        limit: int,
        native: bool | None,
    ) -> None:
        functools.update_wrapper(self, step)
        self._options = (state, warmup, limit, native)
        self.step = step
        self._findings, self._meetings = Findings(), 0
        self._declared, self._warmup, self._limit = state, warmup, limit
        self._native = available() if native is None else native
        self._calls: dict[Any, int] = {}
        self._shortcuts = True  # whether ops of a recording may choose by values
        self._no_scaling = ""  # why scalers' arithmetic cannot be part of a CUDA graph
        self._branches: dict[Any, int] = {}  # recordings because of a branch
        self._unsettled = 0  # recordings in a row that find one tensor in two places
        self._pending: dict[Any, list[Earlier]] = {}
        self._kept: OrderedDict[Any, list[Recording]] = OrderedDict()
        self._latest: Recording | None = None
        self._in_vain = 0
        self._lock = threading.Lock()  # a replay has its memory for itself
        self._turns = threading.RLock()  # one thread records at a time
        self.replays = 0

    def __reduce__(self) -> Any:
        """A copy has no recordings, which are of the memory of this one's surroundings."""
        name = getattr(self, "__qualname__", "")
        if getattr(sys.modules.get(self.__module__), name, None) is self:
            return name
        return CapturedStep, (self.step, *self._options)

    @property
    def recordings(self) -> int:
        """How many recordings are kept."""
        return sum(map(len, self._kept.values()))

    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        return self if instance is None else functools.partial(self, instance)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        latest, missed = self._latest, None
        if latest is not None and not kwargs and latest.accepts(args) and latest.fits():
            try:
                return self._replay(latest, args)
            except GuardError:
                missed = latest
        if is_recording():
            return self.step(*args, **kwargs)  # a captured step inside another is part of it
        if graph.anomaly_enabled:  # a replay would look for no NaNs
            return detached(*tree_flatten(self.step(*args, **kwargs)))
        leaves, spec = tree_flatten((args, kwargs))
        key = _signature(leaves, spec)
        known = self._kept.get(key, ())
        fitting = [r for r in known if r.answered(leaves) and r.fits()]
        for other in fitting:
            if other is not missed:
                try:
                    return self._replay(other, leaves)
                except GuardError:
                    pass  # the step takes another branch: another recording may have taken it
        if fitting:
            tries = self._branches.get(key, 0)
            alike = [r for r in fitting if self._shortcuts or not r.avoidable]
            avoidable = self._shortcuts and any(r.avoidable for r in fitting)
            if len(alike) > BRANCHES or tries >= (BRANCHES if avoidable else 4 * BRANCHES):
                if not avoidable:
                    return detached(*tree_flatten(self.step(*args, **kwargs)))
                self._without_shortcuts(key)
                tries = 0
            self._branches[key] = tries + 1
        else:
            if known:
                self._complain(known[0].surroundings)
            calls = self._calls.get(key, 0)
            if calls < self._warmup:
                self._calls[key] = calls + 1
                return detached(*tree_flatten(self.step(*args, **kwargs)))
        with self._turns:
            return self._record(key, leaves, spec)

    def _without_shortcuts(self, key: Any) -> None:
        """Let the next recordings do without branches that ops need not take."""
        self._shortcuts = False
        self._pending.pop(key, None)

    def _replay(self, recording: Recording, leaves: Sequence[Any]) -> Any:
        with self._lock:
            result = recording.replay(leaves)
        self._latest = recording
        self._in_vain = 0
        self.replays += 1
        return result

    def _complain(
        self, surroundings: Surroundings, questions: Questions | None = None, depth: int = 3
    ) -> None:
        """Have data that changes taken for inputs; warn when nothing is ever replayed.

        Args:
            surroundings: those of a recording that does not fit.
            questions: of another one that was made at the call behind it, if it was.
            depth: how many calls deep the program's own is.
        """
        self._in_vain += 1
        if questions is not None or self._in_vain == GIVEN_ANEW:
            surroundings.filled.given_anew()
        if self._in_vain == IN_VAIN:
            name = surroundings.changed() or "a gradient that was there before"
            if questions is not None and questions.answers:
                name = f"what it asks of its inputs ({next(iter(questions.answers))[1]})"
            warnings.warn(
                f"this captured step has been recorded {IN_VAIN} times and not replayed, because "
                f"{name} changes between the calls: give it to the step as a tensor, or keep it "
                "out of the step",
                UserWarning,
                stacklevel=depth,
            )

    def reset(self) -> None:
        """Forget all recordings; the next calls warm up and record anew."""
        self._calls.clear()
        self._findings, self._meetings = Findings(), 0
        self._branches.clear()
        self._pending.clear()
        self._kept.clear()
        self._latest = None

    def explain(self) -> str:
        """What the recordings do, call by call."""
        return explain([r for recordings in self._kept.values() for r in recordings])

    def _record(self, key: Any, leaves: Sequence[Any], spec: TreeSpec) -> Any:
        attempt = Attempt(self.step, self._declared, self._findings, leaves, spec)
        if attempt.mistakes_an_input():
            args, kwargs = tree_unflatten(leaves, spec)
            return detached(*tree_flatten(self.step(*args, **kwargs)))
        pending = self._pending.get(key, [])
        alike = [e for e in pending if e.surroundings.changed() is None]
        attempt.run(recording(not self._native, self._shortcuts, self._no_scaling))
        attempt.check(e.surroundings for e in pending)
        attempt.find_places()
        settled = attempt.hand_on(self._carry(attempt))
        if settled and self._has_met_all(attempt):
            attempt.note()
            self._compare(key, attempt, pending, alike)
        return attempt.result()

    def _carry(self, attempt: Attempt) -> Carried | None:
        """What the step carries on from call to call; None too where that is still to be seen."""
        before, places = attempt.surroundings, attempt.places
        try:
            carried = before.carry(attempt.recorder, places, attempt.questions.identity)
        except CaptureError as error:
            if before.filled.keep_given(places):
                return None
            self._unsettled += 1
            if not isinstance(error, UnsettledError) or self._unsettled > ATTEMPTS:
                raise
            return None
        self._unsettled = 0
        return carried

    def _has_met_all(self, attempt: Attempt) -> bool:
        """Whether all code that has run was found before, and all is part of the recording."""
        unfinished = attempt.recorder.scaling.unfinished()
        self._no_scaling = unfinished or self._no_scaling
        if attempt.met:
            self._meetings += 1
            if self._meetings > MEETINGS:
                raise CaptureError("the step is another one at every call: it runs other code")
        return not unfinished and not attempt.met and not attempt.surroundings.has_begun()

    def _compare(
        self, key: Any, attempt: Attempt, pending: list[Earlier], alike: Sequence[Earlier]
    ) -> None:
        """Compare a recording with earlier ones, and keep it for replays, or for the next one.

        Args:
            key: the signature of the inputs.
            attempt: what has recorded the step.
            pending: earlier recordings of this signature.
            alike: those among them whose surroundings were like these.
        """
        recorder = attempt.recorder
        alike = [e for e in alike if attempt.questions.same(e.recorder.questions)]
        earlier = next((e for e in alike if recorder.went_as(e.recorder)), None)
        if pending and not alike:
            self._complain(pending[-1].surroundings, attempt.questions, depth=5)
        if earlier is None and len(alike) >= IN_A_ROW and self._shortcuts and recorder.avoids():
            # Of many ops with a shortcut each, some other one goes another way every time.
            self._without_shortcuts(key)
            return
        if earlier is None and len(alike) > BRANCHES and key not in self._kept:
            raise CaptureError(recorder.complaint([e.recorder for e in alike]))
        attempts = 1
        if earlier is not None:
            pending.remove(earlier)
            if not pending:
                del self._pending[key]
            reason = difference(earlier.recorder, recorder)
            if reason is None:
                try:
                    self._keep(key, attempt.recording(self._native))
                except LateGuardError:
                    self._without_shortcuts(key)  # which were taken too late to go back
                return
            attempts = earlier.attempts + 1
            if attempts > ATTEMPTS:
                raise CaptureError(f"the step is another one at every call: {reason}")
        recorder.part()
        self._wait(key, pending, Earlier(recorder, attempt.surroundings, attempts))

    def _wait(self, key: Any, pending: list[Earlier], recorded: Earlier) -> None:
        """Keep a recording until there is another one to compare it with."""
        pending.append(recorded)
        self._pending[key] = pending
        del pending[: -self._limit]
        while len(self._pending) > WAITING * self._limit:  # of signatures that never came again
            del self._pending[next(iter(self._pending))]

    def _keep(self, key: Any, recording: Recording) -> None:
        kept = self._kept.setdefault(key, [])
        kept[:] = [recording, *(r for r in kept if not r.outdated)]
        self._kept.move_to_end(key)
        while self.recordings > self._limit:
            oldest = next(iter(self._kept))
            self._kept[oldest].pop()
            if not self._kept[oldest]:
                del self._kept[oldest]


def _signature(leaves: Sequence[Any], spec: TreeSpec) -> Any:
    """What two calls must share to be served by one recording."""
    parts: list[Any] = [*modes(), repr(spec)]
    for leaf in leaves:
        if isinstance(leaf, Tensor):
            array = leaf.array
            kinds = leaf.__class__, array.__class__, leaf._counter is None  # made for inference
            parts.append((*kinds, array.shape, array.dtype, leaf._requires_grad))
        else:
            found = spelled(leaf)
            parts.append((leaf.__class__, id(leaf)) if found is None else found)
    return tuple(parts), pattern(leaves) if len({*map(id, leaves)}) < len(leaves) else None
