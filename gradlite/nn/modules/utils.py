"""PyTorch's place of helpers that programs import: sizes as tuples, prefixes of states."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import repeat
from typing import Any

__all__ = ["consume_prefix_in_state_dict_if_present"]


def consume_prefix_in_state_dict_if_present(state_dict: dict[str, Any], prefix: str) -> None:
    """Take a prefix off the keys of a state in place, such as the "module." of `DataParallel`.

    >>> state = {"module.weight": 1, "steps": 2}
    >>> consume_prefix_in_state_dict_if_present(state, "module.")
    >>> sorted(state)
    ['steps', 'weight']
    """
    _strip(state_dict, prefix)
    metadata = getattr(state_dict, "_metadata", None)
    if metadata is not None:
        whole = prefix.replace(".", "")
        if whole and whole in metadata:
            metadata[""] = metadata.pop(whole)
        _strip(metadata, prefix)


def _ntuple(n: int, name: str = "parse") -> Callable[[Any], tuple[Any, ...]]:
    """A function that makes a tuple of ``n`` of one value, and one of what has several."""

    def parse(x: Any) -> tuple[Any, ...]:
        return tuple(x) if isinstance(x, Iterable) else tuple(repeat(x, n))

    parse.__name__ = name
    return parse


_single, _pair = _ntuple(1, "_single"), _ntuple(2, "_pair")
_triple, _quadruple = _ntuple(3, "_triple"), _ntuple(4, "_quadruple")


def _strip(entries: dict[str, Any], prefix: str) -> None:
    for key in [key for key in entries if key and key.startswith(prefix)]:
        entries[key[len(prefix) :]] = entries.pop(key)
