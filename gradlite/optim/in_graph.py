"""A step of an elementwise optimizer inside a CUDA graph, in which no Python code runs.

The kernels of the graph find on the device what changes from step to step: the options of each
group, which `GraphUpdate.prepare` sends before a replay when they differ from the last ones, and
the counters, which the graph advances. Where the host keeps the counters (not ``capturable``),
`prepare` advances them as well, so that both stay the same without a copy, and sends them when
somebody else has changed them: a step outside of the graph, a state that was loaded. Where a
`GradScaler` may leave the step out, the device alone knows: the host asks it for the counters as
soon as somebody asks the optimizer for its state (`Mirror.catch_up`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from operator import is_
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.staging import Upload
from gradlite.ops import guard
from gradlite.optim.elementwise import ElementwiseOptimizer, Group, number, on_device
from gradlite.optim.launch import Launch
from gradlite.optim.optimizer import Optimizer, global_step_hooks, step_hooks
from gradlite.optim.plan import Cohort, Segment, Slot, launcher_for, place
from gradlite.tensor import Tensor

# What the kernels know of a rule: a class that has its own of these does something else.
RULE = (
    "_advance", "_apply", "_buffers", "_counters", "_device_numbers", "_kernels", "_launch",
    "_options", "_shrink", "_update", "_variant", "step",
)  # fmt: skip


def obstacle(optimizer: Optimizer, args: Sequence[Any], kwargs: dict[str, Any]) -> str | None:
    """Why a step cannot be part of a graph, in words; None when it can."""
    if any(value is not None for value in (*args, *kwargs.values())):
        return "it is given arguments"
    if _hooked(optimizer):
        return "it has hooks"
    if not isinstance(optimizer, ElementwiseOptimizer):
        return "there is no kernel for it"
    cls = type(optimizer)
    if not all(getattr(cls, name).__module__.startswith("gradlite.optim.") for name in RULE):
        return "its class overrides a method"
    params = [p for group in optimizer.param_groups for p in group["params"]]
    active = [p for p in params if p._grad is not None]
    if len(set(map(id, active))) < len(active):
        return "a parameter comes twice"
    if not active or any(p.is_cpu or launcher_for(p.array) is None for p in active):
        return "no kernel takes its parameters"
    for group in optimizer.param_groups:
        lr = group["lr"]
        if _on_gpu(lr) and lr.dtype is not dtypes.float32:
            return "its learning rate is on the GPU and not of float32"
        if any(_on_gpu(group[name]) for name in group if name not in ("lr", "params")):
            return "an option other than lr is on the GPU"
        if not optimizer._counters(group):
            continue
        if not on_device(group) and dtypes.get_default_dtype() is dtypes.float64:
            return "its counters are of double precision"
        for p in group["params"]:
            slot = optimizer._slots.get(id(p))
            if slot is not None and slot.segment.counters.dtype == np.float64:
                return "its counters are of double precision"
    return None


def _hooked(optimizer: Optimizer) -> bool:
    return any(step_hooks(optimizer)) or any(global_step_hooks())


def _on_gpu(value: Any) -> bool:
    if isinstance(value, (tuple, list)):
        return any(map(_on_gpu, value))
    return isinstance(value, Tensor) and not value.is_cpu


class Mirror:
    """Counters of the host on the device.

    Attributes:
        counters: the host's.
        array: where the device has them.
        values: what it has there; not a number where that is not known.
        ahead: whether the device may have counted more than the host, which has ``values`` then.
    """

    def __init__(self, xp: Any, counters: np.ndarray[Any, Any]) -> None:
        self.counters, self.ahead = counters, False
        self.array = xp.zeros(counters.shape, np.float32)
        self.values = np.full(counters.shape, np.nan, np.float32)
        self._upload = Upload(xp, self.array)

    def match(self) -> None:
        """Let the device have the host's counters."""
        if not (self.values == self.counters).all():
            self.catch_up()
            self._upload.send(self.counters)
            self.values[...] = self.counters

    def catch_up(self) -> None:
        """Let the host have the device's counters, but for those that it has been given."""
        if self.ahead:
            with guard.on(self.array):
                found = self.array.get()
            same = self.values == self.counters
            self.values[...], self.ahead = found, False
            self.counters[same] = found[same]


class Counted:
    """The columns of a segment's counters that a step advances, all of one group."""

    def __init__(self, group: int, segment: Segment, columns: list[int]) -> None:
        self.group, self.segment = group, segment
        first, last = min(columns), max(columns)
        whole = sorted(columns) == list(range(first, last + 1))
        self.columns: Any = slice(first, last + 1) if whole else sorted(columns)

    def advance(self, optimizer: ElementwiseOptimizer, group: Group, mirror: Mirror) -> None:
        """Count a step, on the host and in what is known of the device."""
        found = self.segment.counters[:, self.columns]
        names = tuple(optimizer._counters(group))
        if names == ("step",):
            found = found + np.float32(1)
        elif names == ("_begun",):
            found = np.ones_like(found)
        else:
            found = np.stack([self._next(optimizer, group, values) for values in found.T], 1)
        self.segment.counters[:, self.columns] = mirror.values[:, self.columns] = found

    @staticmethod
    def _next(optimizer: ElementwiseOptimizer, group: Group, values: Any) -> Any:
        counters = optimizer._advance(group, tuple(values.tolist()), np.float32)[0]
        return np.array(counters, np.float32)


class InGraph:
    """What is part of a graph and asks something of the host around its launches.

    `build` comes before the capture, and a call in the capture. Before each launch of the graph
    comes `prepare`, after it `done`, or `undo` where there is no launch after all.
    """

    outdated = False  # whether it will never hold again

    def __call__(self, *args: Any) -> None:
        """Launch the kernels."""
        raise NotImplementedError

    def build(self, mirrors: dict[int, Mirror]) -> None:
        """Make what the kernels read."""
        raise NotImplementedError

    def holds(self) -> bool:
        """Whether what the step does would still be this."""
        raise NotImplementedError

    def prepare(self) -> None:
        """Let the device have what the next launch of the graph needs."""
        raise NotImplementedError

    def done(self) -> None:
        """The graph has been launched."""
        raise NotImplementedError

    def undo(self) -> None:
        """Take back what `prepare` has done, unless the graph has been launched."""
        raise NotImplementedError


class GraphUpdate(InGraph):
    """One step of an optimizer, captured with the gradients in the places that they have then.

    Args:
        optimizer: there is no `obstacle`, and it has made such a step.
        params: those that have a gradient.
    """

    def __init__(self, optimizer: ElementwiseOptimizer, params: Sequence[Tensor]) -> None:
        self.optimizer, self.params = optimizer, list(params)
        self._scaled = "found_inf" in optimizer.__dict__
        self.__name__ = f"{type(optimizer).__name__}.step"
        self._arrays = [p.array for p in params]
        # A rule that needs no state leaves what there is of another one alone.
        slots = {
            id(p): optimizer._slots.get(id(p))
            for group in self._all()
            if optimizer._buffers(group) or optimizer._counters(group)
            for p in group["params"]
        }
        self._slots: list[Slot | None] = [slots.get(id(p)) for p in params]
        self._groups = [list(group["params"]) for group in self._all()]
        self._kinds = [self._kind(group) for group in self._all()]
        # The counter itself as well: the state may be another one, changed as often.
        self._changes = (counter := optimizer._state.changes), counter[0]
        self._launches: list[tuple[Launch, list[int], list[int]]] = []
        self._counted: list[Counted] = []
        self._mirrors: dict[int, Mirror] = {}
        self._before: list[tuple[Mirror, Any]] = []

    def move(self, homes: Mapping[int, Any]) -> None:
        """Take the arrays that parameters have from now on, by the ids of those they had."""
        self._arrays = [homes.get(id(array), array) for array in self._arrays]

    def _all(self) -> list[Group]:
        return self.optimizer.param_groups

    def _kind(self, group: Group) -> tuple[Any, ...]:
        """What decides which kernels and which state a group needs."""
        return on_device(group), group.get("differentiable"), self.optimizer._variant(group)

    def __eq__(self, other: object) -> bool:
        """Whether it is the same step, recorded once more."""
        return (
            isinstance(other, GraphUpdate)
            and self.optimizer is other.optimizer
            and self._kinds == other._kinds
            and self._scaled is other._scaled
            and list(map(id, self.params)) == list(map(id, other.params))
        )

    __hash__ = None  # type: ignore[assignment]

    def state(self) -> Iterable[Tensor]:
        """The tensors of the optimizer's that the step writes to."""
        for slot in self._slots:
            if slot is not None:
                yield from slot.entries.values()

    def holds(self) -> bool:
        """Whether a step of the optimizer would still be this one."""
        optimizer, groups = self.optimizer, self._all()
        if _hooked(optimizer) or len(groups) != len(self._groups):
            return False
        for group, params, kind in zip(groups, self._groups, self._kinds):
            now = group["params"]
            if len(now) != len(params) or not all(map(is_, now, params)):
                return False
            if self._kind(group) != kind:
                return False
        for p, array in zip(self.params, self._arrays):
            if p.array is not array:
                return False
        counter, count = self._changes
        now = optimizer._state.changes
        if now is not counter or now[0] != count:
            if not all(map(self._serves, self.params, self._slots)):
                return False
            self._changes = now, now[0]
        return True

    @property
    def outdated(self) -> bool:  # type: ignore[override]
        """Whether the state that the step writes to is not the optimizer's any more."""
        slots = self.optimizer._slots
        return any(s and slots.get(id(p)) is not s for p, s in zip(self.params, self._slots))

    def _serves(self, p: Tensor, slot: Slot | None) -> bool:
        if slot is None:
            return True
        found = self.optimizer._slots.get(id(p)), self.optimizer._state.get(p, {})
        return found[0] is slot and slot.serves(p, found[1], slot.segment.buffers)

    # ----------------------------------------------------------------------- the capture
    def build(self, mirrors: dict[int, Mirror]) -> None:
        """Make the tables that the kernels read.

        Args:
            mirrors: those of all steps of the graph, by the segments' ids.
        """
        optimizer, self._mirrors = self.optimizer, mirrors
        numbers = {id(p): i for i, p in enumerate(self.params)}
        together: dict[Any, dict[int, list[Any]]] = {}
        columns: dict[tuple[int, int], list[int]] = {}
        segments: dict[int, Segment] = {}
        for row, group in enumerate(self._all()):
            kernels = optimizer._kernels(optimizer._variant(group))
            names = tuple(optimizer._buffers(group))
            for i in [numbers[id(p)] for p in group["params"] if id(p) in numbers]:
                array, slot, state = self._arrays[i], self._slots[i], ()
                if slot is not None:
                    segment = slot.segment
                    state = tuple(segment.buffers[n][slot.start : slot.stop] for n in names)
                    if isinstance(segment.counters, np.ndarray) and len(segment.counters):
                        segments[id(segment)] = segment
                        columns.setdefault((row, id(segment)), []).append(slot.column)
                kind = (kernels, launcher_for(array), place(array))
                together.setdefault(kind, {}).setdefault(row, []).append((i, array, state, slot))
        self._counted = [Counted(row, segments[s], found) for (row, s), found in columns.items()]
        self._launches = []
        for (kernels, K, _), rows in together.items():
            for segment in segments.values():
                if id(segment) not in mirrors:
                    mirrors[id(segment)] = Mirror(K.xp, segment.counters)
            cohorts = [Cohort(members[0][1], (), K, True) for members in rows.values()]
            for cohort, members in zip(cohorts, rows.values()):
                cohort.members = members
            order = [member[0] for members in rows.values() for member in members]
            self._launches.append((Launch(K, kernels, cohorts, self._place), list(rows), order))

    def _place(self, segment: Segment) -> Any:
        """A segment's counters on the device."""
        mirror = self._mirrors.get(id(segment))
        return segment.counters if mirror is None else mirror.array

    def __call__(  # type: ignore[override]
        self, grads: Sequence[Any], found_inf: Any = None, grad_scale: Any = None
    ) -> None:
        """Launch the kernels.

        Args:
            grads: the gradients of `params`.
            found_inf, grad_scale: of a `GradScaler`: see `Launch.run`.
        """
        for launch, _, order in self._launches:
            launch.capture([grads[i] for i in order], found_inf, grad_scale)

    # ------------------------------------------------------------------------ the replay
    def prepare(self) -> None:
        """Let the device have what the next launch of the graph needs, and count the step.

        Raises:
            RuntimeError: a schedule inside the step has made another rule of it.
        """
        optimizer, groups = self.optimizer, self._all()
        rows = []
        for group, kind in zip(groups, self._kinds):
            if self._kind(group) != kind:
                raise RuntimeError(
                    f"a captured step itself changes an option of {type(optimizer).__name__} that "
                    "decides what the optimizer does: change it outside of the step"
                )
            decay = number(group.get("weight_decay", 0))
            l2 = bool(decay) and not group.get("decoupled_weight_decay")
            rows.append(optimizer._device_numbers(group, (group["maximize"], l2), decay))
        for launch, at, _ in self._launches:
            launch.send([rows[i][0] for i in at], [rows[i][1] for i in at])
        self._before = []
        for counted in self._counted:
            key = id(counted.segment)
            mirror = self._mirrors[key]
            if optimizer._ahead and optimizer._ahead.get(key) is not mirror:
                optimizer._catch_up()  # with another graph's
            mirror.match()
            self._before.append((mirror, mirror.counters.copy()))
            if not (self._scaled or mirror.ahead):
                counted.advance(optimizer, groups[counted.group], mirror)

    def done(self) -> None:
        """The graph has been launched."""
        self._before = []
        if self._scaled:
            for counted in self._counted:
                mirror = self._mirrors[id(counted.segment)]
                mirror.ahead = True
                self.optimizer._ahead[id(counted.segment)] = mirror

    def undo(self) -> None:
        """Take back what `prepare` has counted, unless the graph has been launched."""
        for mirror, before in reversed(self._before):
            if not mirror.ahead:
                mirror.counters[...] = before
                mirror.values.fill(np.nan)
        self._before = []
