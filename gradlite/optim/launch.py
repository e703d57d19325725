"""A step of an elementwise optimizer as one kernel launch over all its parameters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from gradlite.backends.staging import Staging
from gradlite.backends.tables import BLOCK, chunk_table
from gradlite.optim.plan import Cohort, Segment
from gradlite.tensor import Tensor

STATES = 3  # addresses of state in a row of kernels/optimizer.cu
NUMBERS = 10  # in a row of constants, and in a row of options


class Launch:
    """The parameters of one dtype and device that one kernel updates, whatever their groups.

    The tables stay on the device. What changes from step to step, the gradients' addresses and
    the rule's numbers, is copied there in one piece. Gradients are not gathered in a buffer that
    never moves instead: an address costs less than a copy, and nobody else has to know.

    Args:
        K: the launcher.
        kernels: the names of the update's kernel and of the one that advances counters.
        cohorts: parameters and their state; either all of them count on the device or none.
        counters: gives a segment's counters on the device, if these are not its own.
    """

    def __init__(
        self,
        K: Any,
        kernels: tuple[str, str],
        cohorts: Sequence[Cohort],
        counters: Callable[[Segment], Any] = attrgetter("counters"),
    ) -> None:
        self.K, (self.kernel, self.advance_kernel) = K, kernels
        self.cohorts = cohorts
        self.on_device = cohorts[0].on_device
        members = [(row, *member) for row, c in enumerate(cohorts) for member in c.members]
        arrays = [array for _, _, array, _, _ in members]
        numbers = [member[0] for member in cohorts[0].members]
        # Whether the gradients of one group are all that there is, in their order.
        self._all = len(cohorts) == 1 and numbers == list(range(len(numbers)))
        self.dtype = arrays[0].dtype
        self.count = len(arrays)
        address, xp = K.address, K.xp
        table = np.zeros((self.count, 3 + STATES), np.int64)
        for i, (row, _, array, states, _) in enumerate(members):
            # On the device every parameter has counters, and so constants, of its own.
            table[i, :3] = array.size, address(array), i if self.on_device else row
            table[i, 3 : 3 + len(states)] = [address(state) for state in states]
        self.tensors = xp.asarray(table.reshape(-1))
        self.chunks, self.chunk_count, self.chunk_size = chunk_table(K, [a.size for a in arrays])
        staging = self._staging = Staging(xp, self.count + len(cohorts) * NUMBERS)
        self._addresses = staging.values[: self.count]
        self._numbers = staging.values[self.count :].view(np.float64).reshape(-1, NUMBERS)
        self.grads = staging.array[: self.count]
        self.numbers = staging.array[self.count :].view(np.float64)
        self._held: Any = None  # the numbers that are there
        self._usual = (
            self.tensors, self.grads, self.chunks, self.numbers, None, 0, self.chunk_count,
            self.chunk_size,
        )  # fmt: skip
        if self.on_device:
            self._prepare_advance(members, counters)

    def _write_addresses(self, grads: list[Any]) -> list[tuple[Any, Any]]:
        """Where the gradients are; those that no kernel can read, and copies that it can."""
        K, dtype = self.K, self.dtype
        if K.addresses(grads, dtype, self._addresses):
            return []
        dense = [
            g
            if g.flags.c_contiguous and g.dtype == dtype
            else K.xp.array(g, dtype=dtype, order="C")
            for g in grads
        ]
        self._addresses[:] = [K.address(g) for g in dense]
        return [(g, d) for g, d in zip(grads, dense) if g is not d]

    def _prepare_advance(self, members: Sequence[Any], place: Callable[[Segment], Any]) -> None:
        rows = np.zeros((self.count, 4), np.int64)
        for i, (row, _, _, _, slot) in enumerate(members):
            rows[i, 0] = row
            if slot is not None and len(slot.segment.counters):
                counters = place(slot.segment)
                rows[i, 2:] = self.K.address(counters[0, slot.column :]), counters.shape[1]
        self._counters = Staging(self.K.xp, rows.size)
        self._counters.values[...] = rows.reshape(-1)
        self._rates = self._counters.values.reshape(-1, 4)[:, 1]
        self._rows = rows[:, 0]
        self.constants = self.K.xp.zeros(self.count * NUMBERS, np.float64)

    def run(
        self,
        grads: Sequence[list[Any]],
        numbers: Sequence[Sequence[float]],
        rates: Sequence[Tensor | None] = (),
        found_inf: Any = None,
        grad_scale: Any = None,
    ) -> None:
        """Update the parameters.

        Args:
            grads: for each cohort the gradients of its group.
            numbers: for each cohort the constants of the rule, or its options where the counters
                are on the device.
            rates: for each cohort the learning rate where it is on the device as well.
            found_inf, grad_scale: arrays of one float32 on the device, or None.
        """
        if self._all and len(grads[0]) == self.count:
            own = grads[0]
        else:
            own = [g[member[0]] for c, g in zip(self.cohorts, grads) for member in c.members]
        copies = self._write_addresses(own)
        self.send(numbers, rates)
        self._launch(copies, found_inf, grad_scale)

    def send(self, numbers: Sequence[Sequence[float]], rates: Sequence[Tensor | None] = ()) -> None:
        """Let the launches that follow see new numbers and rates: see `run`."""
        if numbers != self._held:
            for row, given in zip(self._numbers, numbers):
                row[: len(given)] = given
            self._held = numbers
        self._staging.send()
        if self.on_device:
            at = [0 if rate is None else self.K.address(rate.array) for rate in rates]
            self._rates[:] = np.array(at)[self._rows]
            self._counters.send()

    def capture(self, grads: Sequence[Any], found_inf: Any = None, grad_scale: Any = None) -> None:
        """Launch the kernels while the stream captures.

        What they do when the graph is launched is as `send` has last had it.

        Args:
            grads: in the order of the cohorts' members. They stay where they are.
            found_inf, grad_scale: as in `run`.
        """
        copies = self._write_addresses(list(grads))
        self._staging.send()
        self._launch(copies, found_inf, grad_scale)

    def _launch(self, copies: list[tuple[Any, Any]], found_inf: Any, grad_scale: Any) -> None:
        K, dtype = self.K, self.dtype
        grid, block = (self.chunk_count,), (BLOCK,)
        if found_inf is None is grad_scale and not self.on_device:
            K.launch(self.kernel, dtype, grid, block, *self._usual)
            return
        constants = self.numbers
        if self.on_device:
            constants = self.constants
            K.elementwise(
                self.advance_kernel, dtype, self.count, self._counters.array, self.numbers,
                found_inf, grad_scale, constants, self.count,
            )  # fmt: skip
        unscale = int(grad_scale is not None)
        K.launch(
            self.kernel, dtype, grid, block, self.tensors, self.grads, self.chunks, constants,
            found_inf, unscale, self.chunk_count, self.chunk_size,
        )  # fmt: skip
        if unscale:
            for original, grad in copies:
                original[...] = grad
