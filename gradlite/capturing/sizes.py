"""What a step takes from values: how large results are, and whole numbers for Python to go on with.

A recording holds as long as they stay the same: `Guard` says so to replays.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gradlite.capturing.arrays import on_gpu
from gradlite.capturing.calls import CaptureError, Guard, written_by
from gradlite.capturing.homes import Homes
from gradlite.capturing.recorded import Face, plain, plain_values
from gradlite.capturing.recorded_gpu import RecordedGpu
from gradlite.ops import indexing
from gradlite.ops.namespaces import NAMESPACES

# Functions whose result has as many elements as some values say.
SIZED = frozenset(
    (
        np.unique, np.nonzero, np.flatnonzero, np.argwhere, np.ndarray.nonzero, np.extract,
        np.compress, np.ndarray.compress, np.bincount,
    )
)  # fmt: skip
SIZED_ON_GPU = frozenset(("unique", "nonzero", "flatnonzero", "argwhere", "extract"))
REPEATS = frozenset((np.repeat, np.ndarray.repeat))
SIZE_DEPENDS = (
    "{} gives a result whose size depends on values, which a recorded step cannot repeat where it "
    "is another size every time: use where() or masked_fill(), or, where a mask stays the same, "
    "the indices that its nonzero() gives before the step"
)
READS = (
    "{} reads a tensor's value inside a captured step; a replay would go on with the value of the "
    "recording. Return the tensor from the step and read it there"
)
# How whole numbers are read to go on with them, and how many: they are compared in every replay.
NUMBERS = frozenset(("tolist()", "int()", "index()", "item()", "float()"))
FEW = 1024
ANOTHER_BRANCH = (
    "the step is another one at every call: it always takes another branch, by values of tensors "
    "(`if x > 0`, `all(mask)`): choose with gradlite.where(), or capture the parts without it"
)


@dataclass(frozen=True, slots=True)
class OfOneSize:
    """A function as a replay calls it: also says whether its results have the recorded shapes.

    Results without elements are left out.
    """

    function: Callable[..., Any]
    shapes: tuple[tuple[int, ...], ...]

    @property
    def __name__(self) -> str:
        return f"as_many({self.function.__name__})"

    def __call__(self, *args: Any, **kwargs: Any) -> tuple[Any, ...]:
        result = self.function(*args, **kwargs)
        results = result if isinstance(result, tuple) else (result,)
        fits = tuple(r.shape for r in results) == self.shapes
        if not fits:
            results = tuple(np.zeros(n, r.dtype) for n, r in zip(self.shapes, results))
        return np.asarray(fits), *(r for r in results if r.size)


class Sizes(Homes):
    """What a recorder does where a step goes by values.

    Attributes:
        has_read: how the step has read whole numbers, if it has.
    """

    run: Callable[..., Any]
    pause: Callable[[], Any]
    guard: Callable[..., None]
    made: Callable[[Any, bool], Any]
    depends: Callable[[Any], bool]

    def __init__(self) -> None:
        super().__init__()
        self.has_read = ""
        self._masks: dict[int, tuple[int, Any]] = {}  # up to which call they hold where

    def is_sized_by_values(self, function: Any, args: Sequence[Any]) -> bool:
        """Whether a call has results of a size that values decide, or goes by a mask's."""
        if function is operator.getitem:
            return _has_mask(args[1])
        if function is operator.setitem:
            # Where the mask holds NumPy writes a number to; CuPy asks the GPU how often that is.
            return _has_mask(args[1]) and (np.ndim(args[2]) > 0 or on_gpu(plain(args[0])))
        if function is np.where and len(args) == 1:
            return self.depends(args)
        if function in REPEATS:
            return self.depends(args[1:])
        named = self._cupy is not None and getattr(function, "__name__", "") in SIZED_ON_GPU
        return (named or function in SIZED) and self.depends(args)

    def sized(self, function: Any, args: Sequence[Any], kwargs: Any, writes: Any) -> Any:
        """Make such a call, in a form whose results have the size that they have now."""
        if function is operator.getitem or function is operator.setitem:
            array, key, *value = args
            return self.run(function, (array, self._without_masks(key), *value), kwargs, writes)
        return self._of_one_size(function, args, kwargs, f"{function.__name__}()")

    def _of_one_size(
        self, function: Callable[..., Any], args: Sequence[Any], kwargs: Any, name: str
    ) -> Any:
        complaint = SIZE_DEPENDS.format(name)
        if any(on_gpu(plain(a)) for a in args if self.is_array(a)):
            if getattr(function, "__name__", "") != "nonzero":
                raise CaptureError(complaint)
            return self._places_on_gpu(args[0], complaint)
        with self.pause():
            result = function(*plain_values(tuple(args)), **plain_values(kwargs))
        results = result if isinstance(result, tuple) else (result,)
        shapes = tuple(r.shape for r in results)
        fits, *parts = self.run(OfOneSize(function, shapes), args, kwargs)
        self.guard(fits, True, (complaint, shapes))
        found = iter(parts)
        results = tuple(next(found) if r.size else self.made(r, False) for r in results)
        return getattr(result, "_make", tuple)(results) if isinstance(result, tuple) else results[0]

    def _places_on_gpu(self, x: Any, complaint: str) -> tuple[Any, ...]:
        """Where an array is not 0, by kernels that write as many places as there are now."""
        cupy: Any = self._cupy
        if not x.size:
            return tuple(self.made(cupy.empty(0, np.int64), False) for _ in x.shape)
        mask = x if x.dtype == np.bool_ else x != 0
        with self.pause():
            count = int(plain(mask).sum())
            numbers = cupy.arange(mask.size).reshape(mask.shape)
        K = NAMESPACES[RecordedGpu].launcher  # noqa: N806
        places, fits = indexing.true_places(K, self.made(numbers, False), mask, count)
        self.guard(fits, True, (complaint, count))
        found: list[Any] = []
        for n in reversed(x.shape[1:]):
            found.insert(0, places % n)
            places = places // n
        return places, *found

    def _without_masks(self, key: Any) -> tuple[Any, ...]:
        """An index with the places of what its masks hold true, which are as many in a replay."""
        found: list[Any] = []
        for k in key if key.__class__ is tuple else (key,):
            if not _is_mask(k):
                found.append(k)
            elif k.ndim:
                found += self._true_places(k)
            else:
                found.append(bool(k))
        return tuple(found)

    def _true_places(self, mask: Any) -> tuple[Any, ...]:
        """Where a mask holds; looked up once for as long as nothing writes to it."""
        buffer = self.find(plain(mask))
        calls, places = self._masks.get(id(plain(mask)), (0, None))
        if places is None or any(buffer in written_by(call) for call in self.calls[calls:]):
            name = "indexing with a boolean mask"
            places = self._of_one_size(np.nonzero, (mask,), {}, name)
        self._masks[id(plain(mask))] = len(self.calls), places
        return places  # type: ignore[no-any-return]

    def of_one_value(self, array: Any, complaint: str) -> None:
        """Note that Python goes on with the values that an array has now: a replay needs them."""
        with self.pause():
            now = plain(array).copy()
        self.of_one_array(array, now, complaint)

    def of_one_array(self, array: Any, now: Any, complaint: str) -> None:
        """Note that an array had these values where Python went on with them."""
        if now.size:
            with self.pause():
                values = now.tobytes()
            same = array == self.made(now, False)
            self.guard(same.all(), True, (complaint, values))

    def branches(self) -> tuple[Any, ...]:
        """Which way the step went wherever it branched on a value."""
        return tuple((g.value, g.detail) for g in self.calls if isinstance(g, Guard))

    def complaint(self, others: Sequence[Sizes]) -> str:
        """What is wrong with a step that goes another way every time."""
        for ways in zip(self.branches(), *(other.branches() for other in others)):
            asked: str | None = next((detail[0] for _, detail in ways if detail is not None), None)
            if len(set(ways)) > 1 and asked is not None:
                return asked
        return ANOTHER_BRANCH


def _is_mask(item: Any) -> bool:
    return isinstance(item, Face) and item.dtype == np.bool_  # type: ignore[attr-defined]


def _has_mask(key: Any) -> bool:
    return any(map(_is_mask, key if key.__class__ is tuple else (key,)))
