"""Which element each place of a padded dimension copies: indices, which depend on sizes alone.

They are the host's arrays, and constants of a captured step.
"""

from __future__ import annotations

from typing import Any

import numpy as np


def longest_run(source: Any) -> tuple[int, int, int]:
    """The longest run of consecutive sources: its place, its first source, its length."""
    if not len(source):
        return 0, 0, 0
    breaks = [0, *(np.flatnonzero(np.diff(source) != 1) + 1).tolist(), len(source)]
    lengths = [b - a for a, b in zip(breaks, breaks[1:])]
    longest = int(np.argmax(lengths))
    start = breaks[longest]
    return start, int(source[start]), lengths[longest]


def sources(mode: str, n: int, before: int, after: int) -> Any:
    """For each element along a padded dimension of size n, the element that it copies."""
    places = np.arange(-before, n + after)
    if mode == "replicate":
        return np.clip(places, 0, n - 1)
    if mode == "circular":
        kept = max(n + min(before, 0) + min(after, 0), 1)  # what is cut off is cut off first
        return max(-before, 0) + np.arange(-max(before, 0), n + after - max(-before, 0)) % kept
    if n == 1:
        return np.zeros_like(places)
    # A mirror at both ends: the pattern repeats after 2 (n - 1) elements.
    period = 2 * (n - 1)
    places = places % period
    return np.minimum(places, period - places)
