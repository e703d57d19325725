"""Steps of optimizers in one call of compiled code, together with the segment before them."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from typing import Any

import numpy as np

from gradlite.capturing.native.segments import Segment, fail
from gradlite.optim.adam import Adam, AdamW
from gradlite.optim.elementwise import ElementwiseOptimizer, number
from gradlite.optim.optimizer import global_step_hooks, step_hooks
from gradlite.optim.sgd import SGD
from gradlite.tensor import Tensor, wrap

ADAM_OPTIONS = ("lr", "betas", "eps", "weight_decay", "amsgrad", "maximize")
SGD_OPTIONS = ("lr", "momentum", "dampening", "weight_decay", "nesterov", "maximize")
ROW = 6  # numbers that describe a parameter: prelude.hpp


class UnsuitableError(Exception):
    """The compiled update does not do what this optimizer would do now."""


class NativeOptimizer:
    """An optimizer's step in compiled code, and in Python whenever that does not fit.

    Args:
        optimizer: an SGD, Adam or AdamW.
        grads: its parameters, with their gradients' arrays, which never move, or None.
        python: the step as it is.
        library: the compiled prelude.
        before: the segment that runs before it.

    The options are compared at every step and the state's tensors looked up anew when they were
    replaced, so that schedulers, edits of ``param_groups`` and loaded states count at once.
    """

    def __init__(
        self,
        optimizer: ElementwiseOptimizer,
        grads: list[tuple[Tensor, np.ndarray[Any, Any] | None]],
        python: Callable[[], Any],
        library: ctypes.CDLL,
        before: Segment | None,
    ) -> None:
        self.optimizer, self.python, self.library = optimizer, python, library
        self.before = before
        self._replay = library.replay
        self._replay.argtypes, self._replay.restype = [ctypes.c_void_p], ctypes.c_longlong
        self._grads = {id(p): (p, array) for p, array in grads if array is not None}
        with_grads = [p for p, _ in self._grads.values()]
        self._versions = [p._counter for p in with_grads if p._counter is not None]
        self._tensors = [(p, None if array is None else wrap(array)) for p, array in grads]
        self._changes = -1
        self._jobs: list[Any] = []
        self._live = False  # whether tensors are among the options
        self._keep: list[Any] = []
        self._alone = self._whole = 0  # addresses of what the compiled function is to do

    def __call__(self) -> None:
        """Run the segment before, and make the step."""
        if self._ready() and not self._live:
            code = self._replay(self._whole)
        else:
            if self.before is not None:
                self.before()
            if not self._ready():  # now that the segment may have changed tensors among the options
                for p, grad in self._tensors:
                    p._grad = grad
                self.python()
                return
            code = self._replay(self._alone)
        if code:
            fail(code)
        for version in self._versions:
            version[0] += 1

    def _ready(self) -> bool:
        """Take over what is new in the options and the state; False when only Python can do it."""
        optimizer = self.optimizer
        try:
            if optimizer._state.changes[0] != self._changes or len(self._jobs) != len(
                optimizer.param_groups
            ):
                self._bind()
            self._live = False
            for job, group in zip(self._jobs, optimizer.param_groups):
                job.check(group)
                self._live = self._live or job.live
        except UnsuitableError:
            self._changes = -1
            return False
        return True

    def _bind(self) -> None:
        optimizer = self.optimizer
        if (
            any(step_hooks(optimizer))
            or any(global_step_hooks())
            or type(optimizer).__dict__.get("step") is not None
        ):
            raise UnsuitableError
        self._jobs = [_Job(self, group) for group in optimizer.param_groups]
        updates = np.array([update for job in self._jobs for update in job.updates], np.int64)
        where, count = updates.__array_interface__["data"][0], len(updates)
        alone = np.array([0, 0, where, count], np.int64)
        whole = alone.copy()
        if self.before is not None:
            whole[:2] = _function_address(self.before.function), self.before.table
        self._keep = [updates, alone, whole]
        self._alone, self._whole = (a.__array_interface__["data"][0] for a in self._keep[1:])
        self._changes = optimizer._state.changes[0]


class _Job:
    """One parameter group: its tables, and the options they were made for."""

    def __init__(self, step: NativeOptimizer, group: dict[str, Any]) -> None:
        kind = type(step.optimizer)
        self._adam = kind is not SGD
        if kind not in (SGD, Adam, AdamW):
            raise UnsuitableError
        self._names = ADAM_OPTIONS if self._adam else SGD_OPTIONS
        self._options: Any = None
        self.live = False  # whether a tensor is among them, whose value may change
        self._params = list(group["params"])
        self._group = group
        self._numbers = np.zeros(8)
        self._table: dict[tuple[str, str], list[int]] = {}
        for p in self._params:
            if id(p) in step._grads:
                self._enter(step, p, step._grads[id(p)][1])
        address = self._numbers.__array_interface__["data"][0]
        self.updates: list[tuple[int, int, int, int]] = []  # as in optimizers.hpp
        self._keep = []
        for (dtype, counter), rows in self._table.items():
            table = np.array(rows, np.int64)
            self._keep.append(table)
            name = f"{'adam' if self._adam else 'sgd'}_{dtype}_{counter}"
            function = _function_address(getattr(step.library, name))
            where = table.__array_interface__["data"][0]
            self.updates.append((function, where, len(rows) // ROW, address))

    def _enter(self, step: NativeOptimizer, p: Tensor, grad: np.ndarray[Any, Any]) -> None:
        array = p.array
        names = step.optimizer._buffers(self._group)
        slot = step.optimizer._slots.get(id(p))
        if (
            array.dtype.name not in ("float32", "float64")
            or not array.flags.c_contiguous
            or not grad.flags.c_contiguous
            or not array.flags.writeable
            or grad.shape != array.shape
            or grad.dtype != array.dtype
            or p._counter is None
            or len(names) > 2
        ):
            raise UnsuitableError
        states, counter, kind = [0, 0], 0, "float32"
        if names:
            if slot is None or not slot.serves(p, step.optimizer._state.get(p, {}), names):
                raise UnsuitableError
            for place, name in enumerate(names):
                buffer = slot.segment.buffers[name][slot.start : slot.stop]
                states[place] = buffer.__array_interface__["data"][0]
            cell = slot.segment.counters[0, slot.column, ...]
            counter, kind = cell.__array_interface__["data"][0], cell.dtype.name
        elif self._adam:
            raise UnsuitableError
        addresses = [a.__array_interface__["data"][0] for a in (array, grad)]
        row = [*addresses, *states, array.size, counter]
        self._table.setdefault((array.dtype.name, kind), []).extend(row)

    def check(self, group: dict[str, Any]) -> None:
        """Take over changed options; `UnsuitableError` when they ask for something else."""
        options = tuple(map(group.__getitem__, self._names))
        if not self.live and options == self._options and group is self._group:
            return
        if group is not self._group or len(group["params"]) != len(self._params):
            raise UnsuitableError
        lr, decay = number(group["lr"]), number(group["weight_decay"])
        sign = -1.0 if group["maximize"] else 1.0
        if self._adam:
            decoupled = bool(group.get("decoupled_weight_decay"))
            if group["amsgrad"]:
                raise UnsuitableError
            beta1, beta2 = map(number, group["betas"])
            values = [lr, beta1, beta2, number(group["eps"])]
            values += [0.0 if decoupled else decay, decay if decoupled else 0.0, sign]
        else:
            momentum = number(group["momentum"])
            if (momentum != 0) != bool(self._group_has_momentum()):
                raise UnsuitableError
            undamped = 1 - number(group["dampening"])
            values = [lr, momentum, undamped, decay, sign, float(bool(group["nesterov"]))]
        self._numbers[: len(values)] = values
        self._options = options
        self.live = any(isinstance(o, Tensor) for o in (*options, *group.get("betas", ())))

    def _group_has_momentum(self) -> bool:
        return any(rows[2] != 0 for rows in self._table.values())


def _function_address(function: Any) -> int:
    address = ctypes.cast(function, ctypes.c_void_p).value
    assert address is not None
    return address


def native_optimizer(
    call: Any, bind: Callable[[Any], Any], library: Any, before: Segment | None = None
) -> NativeOptimizer | None:
    """The compiled step for a recorded call of Python code, or None when it is none."""
    function = call.function
    arguments: Any = getattr(function, "args", ())
    if len(arguments) != 1 or getattr(function, "keywords", None):
        return None
    (optimizer,) = arguments
    if type(optimizer) not in (SGD, Adam, AdamW):
        return None
    grads = [(p, None if ref is None else bind(ref)) for p, ref in call.grads]
    return NativeOptimizer(optimizer, grads, function, library, before)
