"""One run of a step while it is recorded: what it does, refused where no replay could do it."""

from __future__ import annotations

import operator
import sys
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from gradlite.capturing.asked import Answers, Questions, replicas
from gradlite.capturing.calls import CaptureError
from gradlite.capturing.carried import Carried
from gradlite.capturing.effects import InputEffects
from gradlite.capturing.recorded import plain
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.replaying import AnsweredRecording, CarryingRecording, Recording
from gradlite.capturing.results import note
from gradlite.capturing.shown import shown_to
from gradlite.capturing.surroundings import Surroundings, modes
from gradlite.capturing.watched import TAKEN
from gradlite.capturing.watching import Findings, Watch, watching
from gradlite.capturing.written import Written
from gradlite.tensor import Tensor
from gradlite.utils._pytree import TreeSpec, tree_flatten, tree_unflatten


class Attempt:
    """A run of a step, from what surrounds it to what it leaves; the methods in their order.

    Args:
        step: the function.
        declared: other objects that it uses.
        findings: what its recordings have met.
        leaves: the inputs that were given.
        spec: how they are nested.

    Attributes:
        surroundings: what the step can reach, as it was.
        questions: what it asks of its inputs.
        recorder: what has recorded it.
        places: those that it has filled.
    """

    recorder: Recorder
    _watch: Watch
    _result: list[Any]
    _result_spec: TreeSpec
    _attributes: list[tuple[dict[str, Any], str]]
    _switches: list[tuple[Any, str, bool]]
    _effects: InputEffects
    _results: list[Any]
    places: list[Written]

    def __init__(
        self,
        step: Callable[..., Any],
        declared: Iterable[Any],
        findings: Findings,
        leaves: Sequence[Any],
        spec: TreeSpec,
    ) -> None:
        self._step, self._leaves, self._spec = step, leaves, spec
        self._inputs = inputs = replicas(leaves)
        others = [v.__class__ if isinstance(v, Tensor) else v for v in leaves]
        self._findings, self._known = findings, findings.size()
        findings.blind = sys.getprofile() is not None
        self.surroundings = Surroundings(step, (*declared, *others), findings)
        self.questions = Questions(inputs, leaves)
        self.questions.identity = self.surroundings.looks_which()
        self._around = self.surroundings.tensor_ids()
        self._carried: Carried | None = None
        self._found: list[Tensor] = []  # what is carried on

    @property
    def met(self) -> bool:
        """Whether it has run code that nobody had found before."""
        return self._findings.size() != self._known

    def mistakes_an_input(self) -> bool:
        """Whether the step may look for an input that is one of its own tensors: this is a copy."""
        return self.questions.identity and not self._around.isdisjoint(map(id, self._leaves))

    def run(self, context: AbstractContextManager[Recorder]) -> None:
        """Run the step on copies of its inputs.

        Args:
            context: a `recording`.
        """
        before, args_and_names = self.surroundings, tree_unflatten(self._inputs, self._spec)
        self._modes = modes()
        with context as recorder:
            self.recorder = recorder
            recorder.old_grads, recorder.questions = before.old_grads, self.questions
            recorder.start(before.settings)
            self._watch = watch = before.watch(lambda: recorder.paused > 0)
            recorder.is_of_step = watch.foresees
            host = before.host
            with host.random_numbers_moved(), host.arrays_as(recorder.state), watching(watch):
                result = shown_to(self._step, *args_and_names)
            if not _same_nesting(tree_flatten(args_and_names), self._inputs, self._spec):
                raise CaptureError(
                    "the step edits a list or a dictionary that it is given, which a replay would "
                    "not do: work on a copy of it, as dict(batch), and return what it puts there"
                )
            before.add_numbers(recorder.numbers)
            before.add_absent(watch.missed.places())
            self._result, self._result_spec = tree_flatten(result)

    def check(self, holders: Iterable[Surroundings]) -> None:
        """Refuse what a replay could not repeat.

        Args:
            holders: others' surroundings, which hold on to what the last calls have found.

        Raises:
            CaptureError: the step does such a thing.
        """
        recorder, before = self.recorder, self.surroundings
        recorder.check()
        recorder.check_settings()
        if recorder.moved:
            lasting, gone = before.lasting()
            for holder in holders:
                gone.update(holder.tensor_ids())
            recorder.return_home(recorder.touched, lasting, gone)
        self._watch.finish(recorder.has_read)
        if modes() != self._modes:
            raise CaptureError(
                "the step leaves another mode than it has found (set_grad_enabled(), the default "
                "dtype), which a replay would not do: set it outside of the step, or for a block"
            )
        self.questions.check()
        taken = before.host.taken()
        if taken is not None:
            raise CaptureError(TAKEN.format(taken))
        if self.mistakes_an_input():
            raise CaptureError(
                "the step looks up an input, which is also one of its own tensors: give it a view"
            )
        if before.host.draws:
            raise CaptureError(
                "the step is another one at every call: it draws random numbers of Python's or "
                "NumPy's, or sets their seed, which a replay would not do: use gradlite's, or give "
                "them to the step"
            )

    def find_places(self) -> None:
        """Find what the step has put into variables, containers and attributes.

        Raises:
            CaptureError: it is something that no replay puts there.
        """
        recorder, before = self.recorder, self.surroundings
        looked = {*recorder.touched, *recorder.used_grads, *map(id, self._result)}
        self._attributes = before.filled.made_anew(recorder, looked)
        for space, name in self._attributes:
            space[name] = space[name].detach()  # without the graph of the recording
        self.places = before.rewritten(recorder, self._inputs, looked)
        changed, self._switches = before.left()
        if changed is not None:
            raise CaptureError(
                f"the step itself replaces {changed}, which a replay would not do: change tensors "
                "in place (copy_, add_), give and return the value, or count outside of the step. "
                "What may be put there anew at every call are tensors, in a list all of them"
            )

    def hand_on(self, carried: Carried | None) -> bool:
        """Do to inputs and places what the step has done to its copies and in the recording.

        Args:
            carried: what the step carries on from call to call; None where nothing is, or where
                that is still to be seen.

        Returns:
            whether it is known what is carried on.

        Raises:
            CaptureError: that would show in other tensors as well.
        """
        recorder, leaves = self.recorder, self._leaves
        self._carried, self._found = carried, carried.tensors if carried else []
        self._effects = effects = InputEffects(self._inputs, recorder)
        if recorder.replaced or not recorder.moved.keys().isdisjoint(map(id, self._found)):
            raise CaptureError("the step gives a tensor other memory (.data = ...): use copy_()")
        if effects:
            effects.check([*leaves, *self._found])
            effects.hand_on(leaves)
            effects.bind(None)
        if carried is not None:
            carried.check(leaves, self._found, effects.edits)
        left = [leaf for place in self.places for leaf in place.leaves]
        made = (space[name] for space, name in self._attributes)
        recorder.check_leaves([*self._result, *left, *made])
        for place in self.places:
            place.leave([*self._inputs, *self._found], [*leaves, *self._found])
        return len(self._found) >= sum(len(place.found) for place in self.places)

    def note(self) -> None:
        """Take note of what the step returns and leaves, for another recording to compare."""
        recorder = self.recorder
        self._results = note(
            recorder,
            self._inputs,
            self._result,
            self.surroundings.old_grads,
            self._result_spec,
            self._found,
        )
        if self._carried is not None:
            self._carried.note(recorder, self._inputs)
            self.places = [place for place in self.places if not place.carries]
        for place in self.places:
            place.note(recorder, [*self._inputs, *self._found])
        recorder.note_missing()

    def recording(self, native: bool) -> Recording:
        """The recording for replays."""
        answers = Answers(self.questions, self._leaves, self._around, self._effects.edits)
        kind: type[Recording] = AnsweredRecording if answers else Recording
        return (kind if self._carried is None else CarryingRecording)(
            self.recorder,
            self.surroundings,
            self._inputs,
            self._results,
            self._result_spec,
            self._is_flat(),
            native,
            self._effects,
            self._attributes,
            self.places,
            self._switches,
            answers,
            self._carried,
        )

    def _is_flat(self) -> bool:
        """Whether the inputs are the step's arguments, by place and not nested."""
        args, kwargs = tree_unflatten(self._inputs, self._spec)
        same = len(args) == len(self._inputs) and all(map(operator.is_, args, self._inputs))
        return not kwargs and same

    def result(self) -> Any:
        """What the step has returned, outside of any graph; nothing can be recorded any more."""
        self.recorder.release()
        return detached(self._result, self._result_spec)


def _same_nesting(found: tuple[list[Any], TreeSpec], leaves: Sequence[Any], spec: TreeSpec) -> bool:
    """Whether a step's arguments are what they were, in the very order."""
    now, nesting = found
    return (
        len(now) == len(leaves)
        and all(map(operator.is_, now, leaves))
        and repr(nesting) == repr(spec)
    )


def detached(leaves: Sequence[Any], spec: TreeSpec) -> Any:
    """A step's results, outside of any graph."""
    results = [v.detach() if isinstance(v, Tensor) else plain(v) for v in leaves]
    return results[0] if spec.kind is None else tree_unflatten(results, spec)
