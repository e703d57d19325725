"""PyTorch's place of what goes with states of wrapped modules."""

from __future__ import annotations

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


def _strip(entries: dict[str, Any], prefix: str) -> None:
    for key in [key for key in entries if key and key.startswith(prefix)]:
        entries[key[len(prefix) :]] = entries.pop(key)
