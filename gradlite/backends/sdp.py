"""Which ways of computing attention `scaled_dot_product_attention` may take."""

from __future__ import annotations

import enum
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager


class SDPBackend(enum.Enum):
    """A way of computing attention.

    ``MATH`` is composed of products, a softmax and dropout; the others are one fused op, which is
    the same one here whatever its name. As in PyTorch the CPU has ``FLASH_ATTENTION`` alone of
    them; on a GPU all but ``OVERRIDEABLE`` serve.
    """

    ERROR = -1
    MATH = 0
    FLASH_ATTENTION = 1
    EFFICIENT_ATTENTION = 2
    CUDNN_ATTENTION = 3
    OVERRIDEABLE = 4

    def __int__(self) -> int:
        return self.value

    def __str__(self) -> str:
        return f"SDPBackend.{self.name}"

    def __repr__(self) -> str:
        return f"<SDPBackend.{self.name}: {self.value}>"


_FUSED_ON_CPU = (SDPBackend.FLASH_ATTENTION,)
_FUSED_ON_GPU = (*_FUSED_ON_CPU, SDPBackend.EFFICIENT_ATTENTION, SDPBackend.CUDNN_ATTENTION)
_ALL: tuple[SDPBackend, ...] = (
    SDPBackend.FLASH_ATTENTION,
    SDPBackend.EFFICIENT_ATTENTION,
    SDPBackend.MATH,
    SDPBackend.CUDNN_ATTENTION,
    SDPBackend.OVERRIDEABLE,
)
enabled = _ALL  # in all threads, as in PyTorch; what comes first is preferred
as_usual = True  # what attention looks at


def _enable(backends: Iterable[SDPBackend]) -> None:
    global enabled, as_usual
    found = tuple(backend for backend in backends if backend in _ALL)
    as_usual = set(found) == set(_ALL) and found.index(SDPBackend.MATH) > 0
    enabled = _ALL if found == _ALL else found


def chosen(on_gpu: bool, fusable: bool) -> SDPBackend:
    """The way to take: fused or ``MATH``.

    Raises:
        RuntimeError: no way that is enabled can be taken.
    """
    fused = [b for b in enabled if b in (_FUSED_ON_GPU if on_gpu else _FUSED_ON_CPU)]
    math = SDPBackend.MATH in enabled
    if not fused and not math:
        raise RuntimeError(
            "No viable backend for scaled_dot_product_attention was found. This is likely due to "
            "turning off both the math kernel and the fused kernels."
        )
    if fused and fusable:
        # On the CPU PyTorch heeds no order.
        first = not math or not on_gpu or enabled.index(fused[0]) < enabled.index(SDPBackend.MATH)
        return fused[0] if first else SDPBackend.MATH
    if not math:
        raise RuntimeError(
            "No available kernel. Aborting execution. The fused op takes no dropout, no mask that "
            "requires grad, no empty tensors, and query, key and value of one batch: enable "
            "SDPBackend.MATH too"
        )
    return SDPBackend.MATH


@contextmanager
def sdpa_kernel(
    backends: list[SDPBackend] | SDPBackend, set_priority: bool = False
) -> Iterator[dict[str, bool]]:
    """Let `scaled_dot_product_attention` take these ways alone: a context manager or decorator.

    Args:
        backends: one or a list.
        set_priority: whether the list's order says which is preferred.

    >>> import gradlite
    >>> from gradlite.nn.attention import SDPBackend, sdpa_kernel
    >>> q = gradlite.ones(1, 1, 2, 4, requires_grad=True)
    >>> with sdpa_kernel(SDPBackend.MATH):
    ...     out = gradlite.nn.functional.scaled_dot_product_attention(q, q, q)
    >>> out.grad_fn.name()
    'UnsafeViewBackward0'

    Raises:
        RuntimeError: from attention, where none of them can be taken.
    """
    if not isinstance(backends, (list, SDPBackend)):
        raise AssertionError(
            "Backend must be an instance of SDPBackend or a list of SDPBackend instances, "
            f"got {type(backends).__name__}"
        )
    wanted = [backends] if isinstance(backends, SDPBackend) else list(dict.fromkeys(backends))
    before = enabled
    _enable(wanted if set_priority else [b for b in _order() if b in wanted])
    try:
        yield {}
    finally:
        _enable(before)


def _order() -> list[SDPBackend]:
    return [*enabled, *(b for b in _ALL if b not in enabled)]


def _switch(backend: SDPBackend, on: bool) -> None:
    _enable(b for b in _order() if (on if b is backend else b in enabled))


def enable_flash_sdp(enabled: bool) -> None:
    """Allow ``FLASH_ATTENTION`` or not."""
    _switch(SDPBackend.FLASH_ATTENTION, enabled)


def enable_mem_efficient_sdp(enabled: bool) -> None:
    """Allow ``EFFICIENT_ATTENTION`` or not."""
    _switch(SDPBackend.EFFICIENT_ATTENTION, enabled)


def enable_math_sdp(enabled: bool) -> None:
    """Allow ``MATH`` or not."""
    _switch(SDPBackend.MATH, enabled)


def enable_cudnn_sdp(enabled: bool) -> None:
    """Allow ``CUDNN_ATTENTION`` or not."""
    _switch(SDPBackend.CUDNN_ATTENTION, enabled)


def flash_sdp_enabled() -> bool:
    """Whether ``FLASH_ATTENTION`` is allowed."""
    return SDPBackend.FLASH_ATTENTION in enabled


def mem_efficient_sdp_enabled() -> bool:
    """Whether ``EFFICIENT_ATTENTION`` is allowed."""
    return SDPBackend.EFFICIENT_ATTENTION in enabled


def math_sdp_enabled() -> bool:
    """Whether ``MATH`` is allowed."""
    return SDPBackend.MATH in enabled


def cudnn_sdp_enabled() -> bool:
    """Whether ``CUDNN_ATTENTION`` is allowed."""
    return SDPBackend.CUDNN_ATTENTION in enabled


@contextmanager
def sdp_kernel(
    enable_flash: bool = True,
    enable_math: bool = True,
    enable_mem_efficient: bool = True,
    enable_cudnn: bool = True,
) -> Iterator[dict[str, bool]]:
    """Deprecated as in PyTorch: `gradlite.nn.attention.sdpa_kernel` with a switch for each way."""
    warnings.warn(
        "`gradlite.backends.cuda.sdp_kernel()` is deprecated. In the future, this context manager "
        "will be removed. Please see `gradlite.nn.attention.sdpa_kernel()` for the new context "
        "manager, with updated signature.",
        FutureWarning,
        stacklevel=3,
    )
    switches = {
        SDPBackend.FLASH_ATTENTION: enable_flash,
        SDPBackend.EFFICIENT_ATTENTION: enable_mem_efficient,
        SDPBackend.MATH: enable_math,
        SDPBackend.CUDNN_ATTENTION: enable_cudnn,
    }
    with sdpa_kernel([backend for backend, on in switches.items() if on]) as state:
        yield state
