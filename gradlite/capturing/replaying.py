"""One recording of a step: whether it holds for a call, and what a replay does."""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from typing import Any

from gradlite import autocast_mode, dtypes
from gradlite.autocast_mode import current_autocast
from gradlite.backends import cuda, sdp
from gradlite.capturing.asked import Answers, pattern
from gradlite.capturing.calls import HostCall
from gradlite.capturing.carried import Carried
from gradlite.capturing.effects import InputEffects, written_state
from gradlite.capturing.explain import listing
from gradlite.capturing.gradients import Gradients
from gradlite.capturing.graphs import GraphPlan
from gradlite.capturing.homes import Watched
from gradlite.capturing.native.build import NativePlan
from gradlite.capturing.plan import GuardError, Plan
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.surroundings import Surroundings
from gradlite.capturing.written import Written
from gradlite.grad_mode import current_mode
from gradlite.tensor import Tensor, wrap
from gradlite.utils._pytree import TreeSpec, tree_unflatten


class Recording:
    """One recording of a step, for one signature of its inputs and one state of its surroundings.

    Attributes:
        plan: what a replay does.
        replays: how often it has been done.
        avoidable: whether it holds only while ops may take the shortcuts that they took.
        listing: the text of `explain` once the plan has let go of its calls, compressed.
        carries: what it carries on from call to call, for people.
    """

    carries: Sequence[str] = ()

    def __init__(
        self,
        recorder: Recorder,
        surroundings: Surroundings,
        inputs: Sequence[Any],
        results: list[tuple[str, Any]],
        spec: TreeSpec,
        flat: bool,
        native: bool,
        effects: InputEffects,
        attributes: Sequence[tuple[dict[str, Any], str]],
        places: Sequence[Written],
        switches: Sequence[tuple[Any, str, bool]],
        answers: Answers,
        carried: Carried | None,
    ) -> None:
        self._answers = answers
        surroundings.note_memory(recorder)
        self.surroundings, self.spec, self.replays = surroundings, spec, 0
        self._mode, self._default = current_mode(), dtypes.get_default_dtype()
        self._autocast, self._attention = current_autocast().dtypes, sdp.enabled
        self._kinds = None
        numbers = pattern(inputs)
        if flat and all(isinstance(t, Tensor) for t in inputs) and len({*numbers}) == len(numbers):
            self._kinds = [
                (t.__class__, t.array.__class__, t.array.shape, t.array.dtype, t._counter is None)
                for t in inputs
            ]
        self._results = results
        self._gradients = Gradients(surroundings.old_grads, recorder)
        surroundings.old_grads = []  # to hold them on would double the gradients' memory
        kept = [ref for kind, ref in self._results if kind == "tensor"]
        kept += [*self._gradients.kept, *effects.kept]
        made = [(space, key, recorder.ref(space[key].array)) for space, key in attributes]
        kept += [ref for _, _, ref in made]
        kept += [ref for place in places for ref in place.kept]
        self._counters = self._written_counters(recorder)
        self.plan: Plan | GraphPlan
        tensors = [n for n, t in enumerate(inputs) if isinstance(t, Tensor)]
        self._places = [n for n in tensors if numbers[n] == n]
        arrays = [inputs[place].array for place in self._places]
        read = [recorder.find(array) if array.size else None for array in arrays]
        recorder.part(kept)
        arrays = [None if buffer is None else buffer.root for buffer in read]
        if carried is not None:
            kept += carried.kept
            self._places += [len(inputs) + n for n in carried.fed]
            arrays += carried.settle(None if recorder.gpu is None else cuda.module())
        if recorder.gpu is not None:
            self.plan = GraphPlan(recorder.calls, kept, arrays, recorder.gpu)
        else:
            self.plan = (NativePlan if native else Plan)(recorder.calls, kept, arrays)
        self._homes = Watched(home for _, home in recorder.moved.values())
        self.avoidable = recorder.avoids()
        self.listing: bytes | None = None
        self._outputs: list[tuple[str, Any]] = []
        self._effects = effects if effects else None
        self._made: list[tuple[dict[str, Any], str, Any]] = made
        self._written, self._switches = places, switches
        drawn = [c.generator for c in recorder.calls if isinstance(c, HostCall)]
        generators = {id(g): g for g in drawn if g is not None}
        # Those that a replay which does not hold has to set back.
        self._generators = list(generators.values()) if self.plan.guarded else []
        self._updates = self.plan.updates if isinstance(self.plan, GraphPlan) else ()
        self._scaling = recorder.scaling
        self._expected = self._gradients.expected
        # Whether there is more to ask than most recordings mind.
        self._puts = surroundings.filled.puts
        self._more = bool(
            self._updates
            or self._gradients.present
            or self._scaling
            or switches
            or places
            or self._puts
            or self._homes
        )

    @staticmethod
    def _written_counters(recorder: Recorder) -> list[list[int]]:
        written, counters = written_state(recorder), {}
        for tensor, array in recorder.touched.values():
            if array.size and recorder.find(array) in written and tensor._counter is not None:
                counters[id(tensor._counter)] = tensor._counter
        return list(counters.values())

    def accepts(self, args: Sequence[Any]) -> bool:
        """Whether arguments that are all tensors are like those of the recording."""
        kinds = self._kinds
        if kinds is None or len(args) != len(kinds) or current_mode() != self._mode:
            return False
        for a, (cls, kind, shape, dtype, inference) in zip(args, kinds):
            if a.__class__ is not cls or a._requires_grad or (a._counter is None) is not inference:
                return False
            array = a.array
            if array.__class__ is not kind or array.shape != shape or array.dtype is not dtype:
                return False  # perhaps of an equal dtype: `_signature` will say
        if autocast_mode.used and current_autocast().dtypes != self._autocast:
            return False
        if sdp.enabled is not self._attention and sdp.enabled != self._attention:
            return False
        return dtypes.get_default_dtype() is self._default

    def answered(self, leaves: Sequence[Any]) -> bool:
        """Whether inputs answer as those of the recording did; there was no question."""
        return True

    @property
    def outdated(self) -> bool:
        """Whether it will never fit again: an optimizer has been given another state."""
        return any(update.outdated for update in self._updates)

    def fits(self) -> bool:
        """Whether everything around the step is as it was recorded."""
        for p, grad in self._expected:
            if p._grad is not grad:
                return False
        if self._more:
            for p in self._gradients.present:
                if p._grad is None:
                    return False
            for update in self._updates:
                if not update.holds():
                    return False
            if not self._scaling.holds():
                return False
            if self._homes.held():
                return False
        return self.surroundings.unchanged() or self.surroundings.changed() is None

    def _bind(self) -> None:
        """Find the arrays of results and gradients, which the first replay has given a place."""
        bind = self.plan.array
        self._outputs = [(kind, bind(v) if kind == "tensor" else v) for kind, v in self._results]
        self._gradients.bind(bind)
        self._made = [(space, key, wrap(bind(ref))) for space, key, ref in self._made]
        if self._effects is not None:
            self._effects.bind(bind)
        for place in self._written:
            place.bind(bind)
        self._bind_more()
        if isinstance(self.plan, Plan):
            self.listing = zlib.compress(listing(self.plan).encode())
            self.plan.release()
            self._results = []

    def _bind_more(self) -> None:
        """The same for what the step carries on: nothing."""

    def replay(self, leaves: Sequence[Any]) -> Any:
        """Run the plan on new inputs; `GuardError` when it does not hold for them."""
        values = [leaves[place].array for place in self._places]
        if self._effects is not None:
            self._effects.check(leaves)
        if self._more:
            self._gradients.carry()
        before: Any = self._generators
        if before:
            before = [g.state_array() for g in self._generators]
        try:
            self.plan.replay(values)
        except GuardError:
            for generator, state in zip(self._generators, before):
                generator.set_state_array(state)
            raise
        if not self.replays:
            self._bind()
        for p, grad in self._gradients.left:
            p._grad = grad
        for counter in self._counters:
            counter[0] += 1
        for space, key, tensor in self._made:
            space[key] = wrap(tensor.array.copy())
        if self._effects is not None:
            self._effects.hand_on(leaves)
        if self._more:
            for holder, name, flag in self._switches:
                if getattr(holder, name) is not flag:
                    setattr(holder, name, flag)
            for place in self._written:
                place.put(leaves)
            if self._puts:
                self.surroundings.tell_others()
            self._homes.note()
        self.replays += 1
        results: list[Any] = [
            wrap(value.copy()) if kind == "tensor" else leaves[value] if kind == "input" else value
            for kind, value in self._outputs
        ]
        return results[0] if self.spec.kind is None else tree_unflatten(results, self.spec)


class AnsweredRecording(Recording):
    """A recording of a step that asks something of its inputs beside their values."""

    def accepts(self, args: Sequence[Any]) -> bool:
        """Whether arguments are like those of the recording, and answer as they did."""
        return super().accepts(args) and self.answered(args)

    def answered(self, leaves: Sequence[Any]) -> bool:
        """Whether inputs answer as those of the recording did."""
        return self._answers.hold(leaves)


class CarryingRecording(AnsweredRecording):
    """A recording of a step that goes on from tensors which its last call has put somewhere."""

    def __init__(self, *args: Any) -> None:
        super().__init__(*args)
        self._carried: Carried = args[-1]
        self.carries = self._carried.described()

    def answered(self, leaves: Sequence[Any]) -> bool:
        """Whether inputs answer as those of the recording did."""
        return super().answered(leaves) and self._carried.apart(leaves)

    def fits(self) -> bool:
        """Whether everything around the step is as it was recorded, or alike."""
        return super().fits() and self._carried.find() is not None

    def _bind_more(self) -> None:
        self._carried.bind(self.plan.array)

    def replay(self, leaves: Sequence[Any]) -> Any:
        """Run the plan on new inputs and on what is carried; put the next there."""
        found = self._carried.found()
        if found is None:  # another thread has been faster
            raise GuardError
        edits = self._effects is not None and self._effects.edits
        self._carried.check(leaves, found, edits)
        leaves = [*leaves, *found]
        result = super().replay(leaves)
        self._carried.put(leaves)
        return result
