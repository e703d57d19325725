"""Mixed precision regions on a GPU, under their deprecated names."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from gradlite import amp, dtypes


def _deprecated(name: str, instead: str) -> None:
    warnings.warn(
        f"`gradlite.cuda.amp.{name}(args...)` is deprecated. "
        f"Please use `gradlite.amp.{instead}` instead.",
        FutureWarning,
        stacklevel=3,
    )


class autocast(amp.autocast):
    """``amp.autocast("cuda", ...)``: deprecated.

    >>> import gradlite, warnings
    >>> with warnings.catch_warnings():
    ...     warnings.simplefilter("ignore")
    ...     with gradlite.cuda.amp.autocast(enabled=False):
    ...         y = gradlite.ones(2, 2) @ gradlite.ones(2, 2)
    >>> y.dtype
    gradlite.float32
    """

    def __init__(
        self, enabled: bool = True, dtype: Any = dtypes.float16, cache_enabled: bool = True
    ) -> None:
        _deprecated("autocast", "autocast('cuda', args...)")
        super().__init__("cuda", enabled=enabled, dtype=dtype, cache_enabled=cache_enabled)


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, cast_inputs: Any = None
) -> Callable[..., Any]:
    """``amp.custom_fwd(..., device_type="cuda")``: deprecated."""
    _deprecated("custom_fwd", "custom_fwd(args..., device_type='cuda')")
    return amp.custom_fwd(fwd, device_type="cuda", cast_inputs=cast_inputs)


def custom_bwd(bwd: Callable[..., Any]) -> Callable[..., Any]:
    """``amp.custom_bwd(..., device_type="cuda")``: deprecated."""
    _deprecated("custom_bwd", "custom_bwd(args..., device_type='cuda')")
    return amp.custom_bwd(bwd, device_type="cuda")
