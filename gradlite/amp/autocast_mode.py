"""Mixed precision regions: `autocast`, and what a `Function` of one's own does in them."""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable
from typing import Any

from gradlite import autocast_mode, dtypes
from gradlite.autocast_mode import (
    DEVICES,
    checked_device,
    current_autocast,
    get_autocast_dtype,
    is_autocast_enabled,
)
from gradlite.cuda.devices import is_available
from gradlite.ops.casting import converted

__all__ = ["autocast", "custom_bwd", "custom_fwd", "is_autocast_available"]

_HALVES = (dtypes.bfloat16, dtypes.float16)


def is_autocast_available(device_type: str) -> bool:
    """Whether ops on a type of device can be cast.

    >>> import gradlite
    >>> gradlite.amp.is_autocast_available("cpu")
    True
    """
    return checked_device(device_type) in DEVICES


class autocast:
    """Ops compute in the dtype that suits them: a context manager and a decorator.

    Products and convolutions run in lower precision, losses and other ops that need the exponents
    of float32 in float32; PyTorch's lists, as they stand for each type of device. Parameters and
    inputs stay float32. It should wrap the forward pass and the loss alone: backward runs in the
    dtypes that forward chose. Casts of parameters are kept until the outermost region ends, and
    made anew when a parameter was edited.

    Args:
        device_type: "cpu" or "cuda".
        dtype: the lower precision, bfloat16 or float16; by default bfloat16 on the CPU (which
            needs the package ml_dtypes) and float16 on CUDA.
        enabled: False switches casts off inside.
        cache_enabled: whether casts of parameters are kept; by default as outside.

    Raises:
        ValueError: ``device_type`` is not a string.
        RuntimeError: there is no such type of device.

    >>> import gradlite
    >>> model, x = gradlite.nn.Linear(4, 2), gradlite.randn(3, 4)
    >>> with gradlite.autocast("cpu", dtype=gradlite.float16):
    ...     y = model(x)
    ...     loss = gradlite.nn.functional.mse_loss(y, gradlite.zeros(3, 2))
    >>> y.dtype, loss.dtype
    (gradlite.float16, gradlite.float32)
    >>> loss.backward()
    >>> model.weight.grad.dtype
    gradlite.float32
    """

    def __init__(
        self,
        device_type: str,
        dtype: Any = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        if not isinstance(device_type, str):
            raise ValueError(
                f"Expected `device_type` of type `str`, got: `{device_type.__class__}`"
            )
        self.device = checked_device(device_type)
        mode = current_autocast()
        if dtype is None:
            dtype = get_autocast_dtype(self.device)
        self.fast_dtype = dtype
        self._cache_enabled = mode.cache_enabled if cache_enabled is None else bool(cache_enabled)
        if enabled and self.device == "cuda" and not is_available():
            warnings.warn("CUDA is not available. Disabling autocast.", UserWarning, stacklevel=2)
            enabled = False
        if enabled and dtype not in _HALVES:
            kind = self.device.upper()
            warnings.warn(
                f"In {kind} autocast, but the target dtype is not supported. Disabling autocast.\n"
                f"{kind} Autocast only supports dtypes of gradlite.bfloat16, gradlite.float16 "
                "currently.",
                UserWarning,
                stacklevel=2,
            )
            enabled = False
        if enabled:
            _ = dtype.numpy  # ImportError that says what bfloat16 needs
        self._enabled = bool(enabled)
        self._before: list[autocast_mode.Mode] = []

    def __enter__(self) -> autocast:
        mode = current_autocast()
        self._before.append(mode)
        changes: dict[str, Any] = {self.device: self._enabled}
        if self.fast_dtype in _HALVES:
            changes[f"{self.device}_dtype"] = self.fast_dtype
        cache = {} if mode.cache is None else mode.cache
        autocast_mode.set_mode(
            mode._replace(cache_enabled=self._cache_enabled, cache=cache, **changes)
        )
        return self

    def __exit__(self, *exc: object) -> None:
        autocast_mode.set_mode(self._before.pop())

    def __call__(self, function: Callable[..., Any]) -> Callable[..., Any]:
        """Run a function in such a region."""

        @functools.wraps(function)
        def decorated(*args: Any, **kwargs: Any) -> Any:
            with self:
                return function(*args, **kwargs)

        return decorated


def custom_fwd(
    fwd: Callable[..., Any] | None = None,
    *,
    device_type: str,
    cast_inputs: Any = None,
) -> Callable[..., Any]:
    """Decorates the ``forward`` of an `autograd.Function` that is called in autocast regions.

    With ``cast_inputs``, its floating-point arguments come in that dtype where autocast is on, and
    what it does inside is not cast; without, it runs in the mode that it is called in. `custom_bwd`
    decorates ``backward``.
    """
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{device_type.__class__}`")
    if fwd is None:
        return functools.partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)

    @functools.wraps(fwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        ctx, enabled = args[0], is_autocast_enabled(device_type)
        ctx._dtype = get_autocast_dtype(device_type)
        if cast_inputs is None:
            ctx._fwd_used_autocast = enabled
            return fwd(*args, **kwargs)
        ctx._fwd_used_autocast = False
        if not enabled:
            return fwd(*args, **kwargs)
        target, on_gpu = dtypes.as_dtype(cast_inputs).numpy, checked_device(device_type) == "cuda"
        with autocast(device_type, enabled=False, cache_enabled=False):
            given = converted((args, kwargs), target, on_gpu, current_autocast())
            return fwd(*given[0], **given[1])

    return decorated


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str) -> Callable[..., Any]:
    """Decorates the ``backward`` of an `autograd.Function`: it runs in the mode of ``forward``."""
    if not isinstance(device_type, str):
        raise ValueError(f"Expected `device_type` of type `str`, got: `{device_type.__class__}`")
    if bwd is None:
        return functools.partial(custom_bwd, device_type=device_type)

    @functools.wraps(bwd)
    def decorated(*args: Any, **kwargs: Any) -> Any:
        ctx = args[0]
        with autocast(device_type, enabled=ctx._fwd_used_autocast, dtype=ctx._dtype):
            return bwd(*args, **kwargs)

    return decorated
