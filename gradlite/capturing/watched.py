"""What surrounds a step, in forms that are read and compared quickly before every replay."""

from __future__ import annotations

import contextvars
import io
import operator
import sys
import types
import warnings
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from gradlite.capturing.calls import CaptureError
from gradlite.description import Size
from gradlite.device import device
from gradlite.dtypes import dtype
from gradlite.tensor import Tensor
from gradlite.utils._pytree import tree_flatten

SIMPLE = (bool, int, float, complex, str, bytes, type(None))
TAKEN = (
    "the step takes the next item of a {}, which a replay would not do: take it before, and give "
    "it to the step"
)
ABSENT: Any = object()  # in place of the value of a name that is not there


def read(container: Any, key: Any) -> Any:
    """What is in a cell, a list, or at a key; ValueError where a cell is empty."""
    if container.__class__ is types.CellType:
        return container.cell_contents
    if isinstance(container, list):
        return container[key] if key < len(container) else ABSENT
    return container.get(key, ABSENT)


def write(container: Any, key: Any, value: Any) -> None:
    """Put a value where `read` finds it."""
    if container.__class__ is types.CellType:
        container.cell_contents = value
    else:
        container[key] = value


def is_shown(value: Any) -> bool:
    """Whether the step is shown another array in place of one of NumPy's; others are compared."""
    return value.__class__ is np.ndarray and value.dtype.kind in "biuf"


def place_of(container: Any, key: Any) -> tuple[int, Any]:
    """What tells a place from others, for as long as the container lives."""
    if isinstance(container, Items):
        return id(container.container), Items
    return id(container.owner if isinstance(container, Slots) else container), key


def spelled(value: Any) -> Any:
    """Something that is equal for values that are the same to a step; None where identity counts.

    Zeros of either sign are no such values, and numbers of other types.
    """
    kind = value.__class__
    if kind is float or kind is complex or isinstance(value, (range, np.generic, np.dtype)):
        return kind, repr(value)
    if kind in SIMPLE or kind in (Size, device, dtype):
        return kind, value
    if kind is slice:
        parts = tuple(map(spelled, (value.start, value.stop, value.step)))
        return None if None in parts else (kind, parts)
    return None


def alike(a: Any, b: Any) -> bool:
    """Whether two values are the same to a step."""
    if a is b:
        return True
    found = spelled(a)
    return found is not None and found == spelled(b)


def distributions() -> Any:
    """The class of all distributions, for `isinstance`: none as long as nobody has imported it."""
    module = sys.modules.get("gradlite.distributions.distribution")
    return getattr(module, "Distribution", ())


def described(value: Any) -> Any:
    """Something that is equal for values that take part in a step in the same way."""
    if value.__class__ in SIMPLE:
        return repr(value)
    if isinstance(value, Tensor):
        extra = value._extra
        hooks = () if extra is None else (*extra.prehooks, "|", *extra.post_accumulate)
        return id(value), value._requires_grad, id(value.array), hooks
    if isinstance(value, (tuple, list)):
        return value.__class__, *map(described, value)
    if isinstance(value, dict):
        return value.__class__, *[(key, described(item)) for key, item in value.items()]
    return id(value)


def is_edited(value: Any) -> bool:
    """Whether a value is a container that programs edit, or holds one."""
    if isinstance(value, tuple):
        return any(map(is_edited, value))
    return isinstance(value, (list, dict))


def tensors_in(value: Any) -> list[Tensor]:
    """The tensors of a value that is one, or nests some in tuples, lists and dictionaries."""
    if value.__class__ in SIMPLE:
        return []
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, Tensor)]


def item_name(key: Any) -> str:
    """The name of a dictionary's item for people; the values of a tensor are none."""
    if isinstance(key, Tensor):
        return f"[{type(key).__name__} {list(key.array.shape)} at {id(key):#x}]"
    return f"[{key!r}]"


class Items:
    """The items of a list, set or deque, or the keys of a dictionary: read as one value."""

    __slots__ = ("container", "_known")

    def __init__(self, values: Iterable[Any]) -> None:
        self.container: Any = values
        self._known = tuple(values)

    def get(self, key: None, default: Any = None) -> tuple[Any, ...]:
        """The very same tuple as long as nothing is edited."""
        known, now = self._known, tuple(self.container)
        if len(now) == len(known) and (
            all(map(operator.is_, now, known)) or all(map(alike, now, known))
        ):
            return known
        return now

    __getitem__ = get


class Numbers:
    """A part of an array of NumPy's, as the numbers in it: read as one value.

    Attributes:
        known: the bytes of the numbers when this was made.
    """

    __slots__ = ("_array", "known")

    def __init__(self, array: Any) -> None:
        self._array: Any = array
        self.known: bytes = array.tobytes()

    def get(self, key: None, default: Any = None) -> bytes:
        """The very same bytes as long as nothing is edited."""
        now: bytes = self._array.tobytes()
        return self.known if now == self.known else now

    __getitem__ = get


class Layout:
    """What an array of NumPy's is beside its values, which programs may set in place."""

    __slots__ = ("_array", "_known")

    def __init__(self, array: Any) -> None:
        self._array, self._known = array, _layout(array)

    def get(self, key: None, default: Any = None) -> tuple[Any, ...]:
        """The very same tuple as long as nothing is set."""
        now = _layout(self._array)
        return self._known if now == self._known else now

    __getitem__ = get


def _layout(array: Any) -> tuple[Any, ...]:
    return array.shape, array.strides, array.dtype, array.flags.writeable


class Referent:
    """Whether a weak reference still has something to refer to, and of which class."""

    __slots__ = ("_reference",)

    def __init__(self, reference: Any) -> None:
        self._reference = reference

    def get(self, key: None, default: Any = None) -> type:
        """The class, or that of None."""
        return type(self._reference())

    __getitem__ = get


class Memory:
    """The bytes of an object that hands out its memory, or keeps a text: read as one value."""

    __slots__ = ("_known", "_owner")

    def __init__(self, owner: Any) -> None:
        self._owner = owner
        self._known = _memory(owner)

    def get(self, key: None, default: Any = None) -> Any:
        """The very same value as long as nothing is edited; ValueError when it is closed."""
        now = _memory(self._owner)
        return self._known if now == self._known else now

    __getitem__ = get


def _memory(owner: Any) -> Any:
    if isinstance(owner, (io.StringIO, io.BytesIO)):
        return owner.tell(), owner.getvalue()
    with memoryview(owner) as view:
        return view.tobytes()


def has_memory(value: Any) -> bool:
    """Whether `Memory` can tell what an object of Python's, or of ``ctypes``, holds."""
    try:
        _memory(value)
    except (TypeError, ValueError):
        return False
    return True


class Elements:
    """The elements of an array of objects, whatever its shape."""

    __slots__ = ("_array",)

    def __init__(self, array: Any) -> None:
        self._array = array

    def __iter__(self) -> Iterator[Any]:
        return iter(self._array.flat)


class Cached:
    """What `functools.lru_cache` keeps for a function: another one when it has been emptied."""

    __slots__ = ("_function", "_known", "_times")

    def __init__(self, function: Any) -> None:
        self._function, self._times = function, 0
        self._known = function.cache_info()

    def get(self, key: None, default: Any = None) -> int:
        """How often it has been emptied, as far as that can be told."""
        known = self._known
        self._known = now = self._function.cache_info()
        if now.hits < known.hits or now.misses < known.misses:
            self._times += 1
        return self._times

    __getitem__ = get


class Filling:
    """Whether there is something in a cell."""

    __slots__ = ("_cell",)

    def __init__(self, cell: types.CellType) -> None:
        self._cell = cell

    def get(self, key: None, default: Any = None) -> bool:
        """The answer."""
        try:
            read(self._cell, None)
        except ValueError:
            return False
        return True

    __getitem__ = get


class Slots:
    """The attributes of an object that has no dictionary of them."""

    __slots__ = ("owner",)

    def __init__(self, owner: Any) -> None:
        self.owner = owner

    def get(self, key: str, default: Any = None) -> Any:
        return getattr(self.owner, key, default)

    def __getitem__(self, key: str) -> Any:
        return getattr(self.owner, key)

    def __setitem__(self, key: str, value: Any) -> None:
        setattr(self.owner, key, value)


class Current:
    """The value of a context variable, where it is asked for."""

    __slots__ = ("_variable",)

    def __init__(self, variable: contextvars.ContextVar[Any]) -> None:
        self._variable = variable

    def get(self, key: None, default: Any = None) -> Any:
        """The value, or what is given."""
        return self._variable.get(default)


def progress(value: Any, depth: int = 5) -> Any:
    """Something that is equal as long as nobody takes an item of an iterator, if it tells."""
    if isinstance(value, types.GeneratorType):
        frame = value.gi_frame
        if frame is None:
            return None
        variables = [(name, spelled(v) or id(v)) for name, v in frame.f_locals.items()]
        return frame.f_lasti, tuple(variables)
    if isinstance(value, Iterator) and depth:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # newer versions of Python are about to stop telling
            try:
                value = value.__reduce__()
            except Exception:  # it cannot be told
                return None
    if isinstance(value, (tuple, list)):
        return tuple([progress(part, depth - 1) for part in value]) if depth else None
    return spelled(value) or id(value)


class Untaken(Iterator[Any]):
    """An iterator that a step must not take items of: a replay would not."""

    __slots__ = ("_iterator",)

    def __init__(self, iterator: Iterator[Any]) -> None:
        self._iterator = iterator

    def __next__(self) -> Any:
        raise CaptureError(TAKEN.format(type(self._iterator).__name__))

    def __getattr__(self, name: str) -> Any:
        if name in ("send", "throw", "read", "readline", "readlines"):
            return self.__next__()
        return getattr(self._iterator, name)
