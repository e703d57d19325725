"""``size_average`` and ``reduce``, the older way to say a loss's ``reduction``."""

from __future__ import annotations

import warnings


def legacy_reduction(
    size_average: bool | None, reduce: bool | None, reduction: str, stacklevel: int = 3
) -> str:
    """The reduction that the two older arguments mean, with a warning when they are given."""
    if size_average is None and reduce is None:
        return reduction
    averaged = size_average is None or size_average
    reduction = "none" if reduce is False else "mean" if averaged else "sum"
    warnings.warn(
        "size_average and reduce args will be deprecated, please use "
        f"reduction='{reduction}' instead.",
        stacklevel=stacklevel + 1,
    )
    return reduction
