"""What a step can reach of NumPy's and Python's: arrays, iterators, random numbers."""

from __future__ import annotations

import pickle
import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite.capturing.reachable import Reachable
from gradlite.capturing.watched import Untaken, is_shown, progress, read, write


class HostValues:
    """Tells what a step does with them while it is recorded.

    Args:
        found: what it can reach.

    Attributes:
        draws: whether it has drawn random numbers, or set a seed.
    """

    draws = False

    def __init__(self, found: Reachable) -> None:
        self._arrays, self._iterators = found.arrays, found.iterators
        self._generators = found.generators
        self._progress = [(iterator, progress(iterator)) for iterator in found.loose]

    @contextmanager
    def random_numbers_moved(self) -> Iterator[None]:
        """Have Python's and NumPy's random numbers be further on for as long as a step runs.

        One that sets a seed, and so leaves them where it has found them, is told by that as well.
        """
        before = self._random_states()
        for generator in (random, np.random, *self._generators):
            generator.random()
        moved = [*map(pickle.dumps, self._random_states())]
        try:
            yield
        finally:
            now = [*map(pickle.dumps, self._random_states())]
            self.draws = now != moved
            for number, generator in enumerate((random, np.random, *self._generators)):
                if now[number] != moved[number]:
                    continue
                if isinstance(generator, np.random.Generator):
                    generator.bit_generator.state = before[number]
                elif hasattr(generator, "setstate"):
                    generator.setstate(before[number])
                else:
                    generator.set_state(before[number])

    def _random_states(self) -> list[Any]:
        states: list[Any] = [random.getstate(), np.random.get_state(legacy=False)]
        for generator in self._generators:
            if isinstance(generator, random.Random):
                states.append(generator.getstate())
            elif isinstance(generator, np.random.RandomState):
                states.append(generator.get_state(legacy=False))
            else:
                states.append(generator.bit_generator.state)
        return states

    @contextmanager
    def arrays_as(self, face: Callable[[Any], Any]) -> Iterator[None]:
        """Show the step others in place of NumPy's arrays that it can reach.

        So that what it does with them is recorded, and a replay sees how they have been edited.
        Iterators say that they are asked for an item.
        """
        shown: list[tuple[Any, Any, Any, Any]] = []
        try:
            for container, key in self._arrays:
                value = read(container, key)
                if is_shown(value) and value.size:
                    shown.append((container, key, value, face(value)))
                    write(container, key, shown[-1][3])
            for container, key in self._iterators:
                value = read(container, key)
                if isinstance(value, Iterator):
                    shown.append((container, key, value, Untaken(value)))
                    write(container, key, shown[-1][3])
            yield
        finally:
            for container, key, value, other in shown:
                if read(container, key) is other:
                    write(container, key, value)

    def taken(self) -> str | None:
        """The class of an iterator of which the step has taken an item."""
        for iterator, before in self._progress:
            if progress(iterator) != before:
                return type(iterator).__name__
        return None
