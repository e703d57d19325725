"""An update of an `AveragedModel` inside a CUDA graph, in which no Python code runs.

The averaging is recorded call by call like all else. How many models there have been is a number
on the device, which the graph counts up: the host sends it when its own `n_averaged` is another.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.backends.staging import Upload
from gradlite.ops.namespaces import NAMESPACES
from gradlite.optim import swa_utils
from gradlite.optim.in_graph import InGraph
from gradlite.optim.swa_utils import AveragedModel
from gradlite.tensor import Tensor, wrap

HERE = swa_utils.__name__
PARTS = ("_average", "_copy_buffers", "_pairs", "update_parameters")


def obstacle(average: AveragedModel, args: Any, kwargs: Any) -> str | None:
    """Why an update cannot be part of a graph, in words; None when it can."""
    if len(args) != 1 or kwargs:
        return "its arguments are given by name"
    if any(getattr(type(average), name).__module__ != HERE for name in PARTS):
        return "its class overrides a method"
    for function in (average.avg_fn, average.multi_avg_fn):
        if function is not None and getattr(function, "__module__", "") != HERE:
            return "its averaging function may do anything"
    averaged, current = average._pairs(args[0])
    tensors = [*averaged, *current, *average.module.buffers(), *args[0].buffers()]
    if not averaged or any(t.is_cpu for t in tensors) or len({t.device for t in tensors}) > 1:
        return "not all of its tensors are on one GPU"
    if NAMESPACES[averaged[0].array.__class__].launcher is None:
        return "there is no kernel for it"
    if not all(t.is_floating_point() for t in averaged):
        return "it averages integers"
    if int(average.n_averaged.item()) == 0:
        return "the first update copies the model"
    return None


class GraphAverage(InGraph):
    """The number of models in an average, as the kernels of a graph find it and count it up.

    Args:
        average: there is no `obstacle`.
        like: a tensor of the GPU.

    Attributes:
        count: that number, an int64 tensor of the GPU, 0-d.
    """

    def __init__(self, average: AveragedModel, like: Tensor) -> None:
        self.average, self.number = average, average.n_averaged
        self.__name__ = "the number of models in an average"
        self._functions = average.avg_fn, average.multi_avg_fn, average.use_buffers
        self._upload: Upload | None = None
        self._sent: int | None = None  # what the device has
        self._counted = False
        # What there is to be seen of the number on the device: how often it has been written to.
        self._changes: int | None = None
        self.count = self.number
        if self.number.is_cpu:
            xp = NAMESPACES[like.array.__class__].xp
            self.count = wrap(xp.full((), self.number.item(), np.int64))

    def __eq__(self, other: object) -> bool:
        """Whether it is the same update, recorded once more."""
        return (
            isinstance(other, GraphAverage)
            and self.average is other.average
            and self._functions == other._functions
        )

    __hash__ = None  # type: ignore[assignment]

    def holds(self) -> bool:
        """Whether an update of the average would still be this one."""
        average, number = self.average, self.number
        functions = average.avg_fn, average.multi_avg_fn, average.use_buffers
        if average.n_averaged is not number or functions != self._functions:
            return False
        if number.is_cpu:
            return int(number.array) > 0
        if number._version != self._changes:  # somebody else has set it: this waits for the GPU
            self._changes = number._version if number.item() > 0 else None
        return self._changes is not None

    def build(self, mirrors: dict[int, Any]) -> None:
        """Make what sends the number to the device."""
        self._sent = None
        if self.count is not self.number:
            self._upload = Upload(NAMESPACES[self.count.array.__class__].xp, self.count.array)

    def __call__(self, count: Any) -> None:
        """Count the models of the device."""
        count += 1

    def prepare(self) -> None:
        """Let the device have the number of models, and count one more."""
        if self._upload is None:
            return
        number = int(self.number.array)
        if number != self._sent:
            self._upload.send(number)
        self.number.array[...] = self._sent = number + 1
        self.number._bump()
        self._counted = True

    def done(self) -> None:
        """The graph has been launched."""
        self._counted = False
        if self._changes is not None:
            self._changes += 1

    def undo(self) -> None:
        """Take back what `prepare` has counted, unless the graph has been launched."""
        if self._counted:
            self.number.array[...] -= 1
            self._counted, self._sent = False, None
