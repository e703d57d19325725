"""Surroundings: everything that decides what a step does, compared before every replay.

A recording is right as long as all that the step can reach stays the same, so `Surroundings`
remembers what was there, compares it quickly before every replay, and says what has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Container, Iterable, Sequence
from typing import Any

from gradlite import changes, dtypes
from gradlite.autocast_mode import current_autocast
from gradlite.backends import sdp
from gradlite.capturing.calls import STATE
from gradlite.capturing.carried import Carried
from gradlite.capturing.conditions import Conditions
from gradlite.capturing.definitions import Definitions
from gradlite.capturing.filled import Filled
from gradlite.capturing.homes import lasting
from gradlite.capturing.host_values import HostValues
from gradlite.capturing.layers import Layers
from gradlite.capturing.places import Places
from gradlite.capturing.reachable import Reachable
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.watched import Numbers, place_of, tensors_in
from gradlite.capturing.watching import Findings, Watch
from gradlite.capturing.written import Written
from gradlite.grad_mode import current_mode
from gradlite.tensor import Tensor


class Surroundings:
    """What a step can reach, as it was when it was recorded.

    Args:
        function: the step.
        declared: other objects that it uses.
        findings: what its recordings have met.

    Attributes:
        host: NumPy's and Python's arrays, iterators and random numbers.
        filled: the places that the step fills itself.
        old_grads: the tensors with their gradients.
    """

    def __init__(
        self, function: Callable[..., Any], declared: Iterable[Any], findings: Findings
    ) -> None:
        self._source = function, tuple(declared), findings
        self._found = found = Reachable(*self._source)
        self._places = Places(found.places)
        self._definitions = Definitions(found)
        self._layers = Layers(found)
        self.host = HostValues(found)
        self.filled = Filled(found, self._places, self._layers, findings)
        self.old_grads = [(p, p._grad) for p in found.parameters()]
        self._memory: list[tuple[Tensor, Any]] = []
        self._measurings = changes.measurings[0]
        self._unchanged: Callable[[], bool] | None = None  # of `unchanged`, once it is asked

    # ------------------------------------------------------------- while it is recorded
    def looks_which(self) -> bool:
        """Whether some code may ask which object another one is."""
        return self._found.looks_which()

    def settings(self) -> list[Any]:
        """Every option of every optimizer; see `Options`."""
        return self._found.options.settings()

    def watch(self, paused: Callable[[], bool]) -> Watch:
        """What looks at the step's calls for all that was not found in its code."""
        return self._found.watch(self._source[2], paused)

    def tensor_ids(self) -> frozenset[int]:
        """The ids of all tensors."""
        return frozenset(map(id, self._found.parameters()))

    def add_numbers(self, read: Iterable[Numbers]) -> None:
        """Take numbers of NumPy's arrays, as the step has read them, into what must stay."""
        self._places.add_numbers(read)
        self._renew()

    def add_absent(self, places: Iterable[tuple[Any, Any, str]]) -> None:
        """Take places into what must stay in which the step has found nothing."""
        self._places.add_absent(places)
        self._renew()

    def lasting(self) -> tuple[list[Tensor], set[int]]:
        """The tensors that the step has found around itself and left there; ids of the others."""
        return lasting(self.filled.replaced(), self._places, self._found.parameters())

    def rewritten(
        self, recorder: Recorder, inputs: Sequence[Any], looked: Container[int]
    ) -> list[Written]:
        """The places that the step has filled; see `Filled`."""
        found = self.filled.rewritten(recorder, inputs, looked)
        self._renew()
        return found

    def left(self) -> tuple[str | None, list[tuple[Any, str, bool]]]:
        """What the step itself has changed: what no replay does, and the flags that each sets."""
        found = self._places.changed(self.filled.grown) or self._definitions.changed()
        if not self._layers.has_begun():
            found = found or self._layers.options_changed()
        if found is None and self._layers.counted:
            return self._layers.left()
        return found, []

    def has_begun(self) -> bool:
        """Whether optimizers have begun to keep a state that the step reads."""
        return self._layers.has_begun()

    def carry(
        self, recorder: Recorder, places: Sequence[Written], identity: bool
    ) -> Carried | None:
        """What the step reads where it puts something else; from now on it may be another one.

        Args:
            recorder: what has recorded the step.
            places: the places that it has filled.
            identity: whether it may look which tensor one is.

        Raises:
            CaptureError: a replay could not do the same.
        """
        carried = None
        if any(w.carries for w in places):
            spots = {place_of(w.container, w.key) for w in places}
            others = Reachable(*self._source, without=spots)
            elsewhere = {id(t) for t in others.parameters()}
            own = {id(t) for w in places if w.carries for t in w.found}
            known = self.tensor_ids() - own if identity else frozenset[int]()
            grads = [old for _, old in self.old_grads if old is not None]
            carried = self.filled.carry(recorder, places, elsewhere, known, grads)
            self._let_go(own)
        self.filled.forget_before()
        return carried

    def _let_go(self, own: set[int]) -> None:
        """Hold on to no tensor, nor compare it, of which the step puts others in the place."""
        self._layers.leave_out(own)
        self.old_grads = [(p, grad) for p, grad in self.old_grads if id(p) not in own]
        kept = [(v, set(map(id, tensors_in(v)))) for v in self._found.kept]
        own = own.union(id(v) for v, ids in kept if not own.isdisjoint(ids))
        self._found.kept = [v for v in self._found.kept if id(v) not in own]

    def note_memory(self, recorder: Recorder) -> None:
        """Remember the arrays of the tensors that the step reads or changes, and that last."""
        touched = recorder.touched
        found = [touched[id(p)] for p in self._found.parameters() if id(p) in touched]
        self._memory = [(p, array) for p, array in found if _lasts(recorder.find(array))]
        self._unchanged = None

    # ------------------------------------------------------------------ before a replay
    def unchanged(self) -> bool:
        """Whether everything is the very same: a quicker answer than that of `changed`."""
        if self._unchanged is None:
            self._unchanged = self._conditions()
        return self._unchanged()

    def _conditions(self) -> Callable[[], bool]:
        conditions = Conditions()
        self._layers.conditions(conditions)
        self._places.conditions(conditions)
        for tensor, array in self._memory:
            conditions.add("{}.array is {}", tensor, array)
        self._measurings = changes.measurings[0]
        self._definitions.conditions(conditions)
        self.filled.conditions(conditions)
        return conditions.function()

    def _renew(self) -> None:
        """Have the conditions be put together anew."""
        self._layers.note_groups()
        self._unchanged = None

    def _has_memory(self) -> bool:
        """Whether ``tensor.array = ...`` has given no tensor another array."""
        return all(tensor.array is array for tensor, array in self._memory)

    def changed(self) -> str | None:
        """The name of what has changed since, or None."""
        found = self.filled.changed() or self._places.changed()
        found = found or self._definitions.changed() or self._layers.options_changed()
        if self._definitions.outdated:
            self._unchanged = None
        if found is None and self._measurings != changes.measurings[0]:
            self._unchanged = None
        if found is None and (self._layers.touched or not self._has_memory()):
            found = self._layers.changed()
            if found is None and (self._unchanged is None or not self._unchanged()):
                self._layers.note_attributes()
                self._unchanged = None
        return found

    def tell_others(self) -> None:
        """Have other recordings look whether they read what a replay has put into modules."""
        self._layers.tell_others()


def modes() -> tuple[Any, ...]:
    """The modes that a thread is in: two calls must share them to be served by one recording."""
    autocast = current_autocast().dtypes
    return current_mode(), dtypes.get_default_dtype(), autocast, sdp.enabled


def _lasts(buffer: Any) -> bool:
    return buffer is not None and buffer.kind == STATE
