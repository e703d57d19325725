"""A module's members as a mapping, and the names of types in messages."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterator, MutableMapping
from typing import Any

from gradlite import changes
from gradlite.tensor import Tensor

__all__ = ["Members", "type_name"]


class Members(MutableMapping[str, Any]):
    """One kind of a module's members by name: a view that writes through to the module."""

    __slots__ = ("_values", "_names")

    def __init__(self, values: dict[str, Any], names: dict[str, bool]) -> None:
        self._values, self._names = values, names

    def __getitem__(self, name: str) -> Any:
        if name not in self._names:
            raise KeyError(name)
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        changes.count[0] += 1
        self._names.setdefault(name, True)
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        changes.count[0] += 1
        del self._names[name]
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def __contains__(self, name: object) -> bool:
        return name in self._names

    def copy(self) -> dict[str, Any]:
        return OrderedDict(self)

    def __repr__(self) -> str:
        return repr(dict(self))


def type_name(value: Any) -> str:
    """The type of a value as error messages name it: ``int``, ``gradlite.FloatTensor``, ..."""
    if isinstance(value, Tensor):
        return str(value.type())  # type: ignore[attr-defined]
    named = value if hasattr(value, "__qualname__") else value.__class__
    if named.__module__ in ("builtins", "__main__", None):
        return str(named.__qualname__)
    return f"{named.__module__}.{named.__qualname__}"
