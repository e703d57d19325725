"""The memory of GPUs: what tensors hold, what the allocator holds, what is free."""

from __future__ import annotations

from typing import Any

from gradlite.backends import stream_uses
from gradlite.backends.cuda import in_units
from gradlite.backends.cuda import module as cupy_module
from gradlite.cuda.devices import DeviceLike, index_of, is_initialized

_peaks: dict[int, Any] = {}  # of each watched GPU: [bytes now, most bytes]
_hooks: list[Any] = []
_reserved: dict[int, int] = {}  # the most bytes of each GPU that the allocator was seen to hold


def _pool_bytes(device: DeviceLike, method: str) -> int:
    """A number that CuPy's pool knows of a GPU; 0 before CUDA is first used."""
    if not is_initialized():
        return 0
    cupy = cupy_module()
    with cupy.cuda.Device(index_of(device, cupy)):
        return int(getattr(cupy.get_default_memory_pool(), method)())


def empty_cache() -> None:
    """Give the memory that no tensor holds back to the GPU. Does nothing before CUDA is used."""
    if is_initialized():
        cupy = cupy_module()
        stream_uses.release(cupy, wait=True)
        max_memory_reserved()  # as it is for the last time
        cupy.get_default_memory_pool().free_all_blocks()
        cupy.get_default_pinned_memory_pool().free_all_blocks()


def set_per_process_memory_fraction(fraction: float, device: DeviceLike = None) -> None:
    """Let this process take no more than a fraction of a GPU's memory for tensors.

    Args:
        fraction: from 0 to 1, of the GPU's whole memory.

    Raises:
        TypeError: ``fraction`` is not a float.
        ValueError: ``fraction`` is not between 0 and 1.
    """
    if not isinstance(fraction, float):
        raise TypeError("Invalid type for fraction argument, must be `float`")
    if not 0 <= fraction <= 1:
        raise ValueError(f"Invalid fraction value: {fraction}. Allowed range: 0~1")
    cupy = cupy_module()
    with cupy.cuda.Device(index_of(device, cupy)):
        total = cupy.cuda.runtime.memGetInfo()[1]
        # A limit of 0 bytes is none in CuPy.
        cupy.get_default_memory_pool().set_limit(size=max(1, int(fraction * total)))


def get_per_process_memory_fraction(device: DeviceLike = None) -> float:
    """The fraction of a GPU's memory that this process may take: 1.0 when nobody has set it."""
    limit = _pool_bytes(device, "get_limit")
    return limit / mem_get_info(device)[1] if limit else 1.0


def memory_allocated(device: DeviceLike = None) -> int:
    """Bytes of a GPU's memory held by tensors (and everything else made with CuPy)."""
    return _pool_bytes(device, "used_bytes")


def memory_reserved(device: DeviceLike = None) -> int:
    """Bytes of a GPU's memory held by the allocator, whether or not a tensor uses them."""
    return _pool_bytes(device, "total_bytes")


def mem_get_info(device: DeviceLike = None) -> tuple[int, int]:
    """Free and total bytes of a GPU's memory."""
    cupy = cupy_module()
    with cupy.cuda.Device(index_of(device, cupy)):
        free, total = cupy.cuda.runtime.memGetInfo()
    return int(free), int(total)


def reset_peak_memory_stats(device: DeviceLike = None) -> None:
    """Start measuring `max_memory_allocated` anew, from what is allocated now."""
    cupy = cupy_module()
    index = index_of(device, cupy)
    now = memory_allocated(index)
    _reserved.pop(index, None)
    if not _hooks:
        _hooks.append(_peak_hook(cupy))
        _hooks[0].__enter__()
    _peaks[index] = [now, now]


def max_memory_allocated(device: DeviceLike = None) -> int:
    """The most bytes that were allocated at once since `reset_peak_memory_stats`.

    CuPy keeps no peak by itself, and watching every allocation costs time, so the measurement
    begins with the first `reset_peak_memory_stats`, in the thread that calls it; before, this
    is the number of bytes the allocator has reserved, which the peak cannot exceed unless the
    cache was emptied meanwhile.
    """
    if not is_initialized():
        return 0
    index = index_of(device, cupy_module())
    peak = _peaks.get(index)
    if peak is None:
        return memory_reserved(index)
    now = memory_allocated(index)
    peak[0], peak[1] = now, max(peak[1], now)
    return int(peak[1])


def max_memory_reserved(device: DeviceLike = None) -> int:
    """The most bytes that the allocator has held at once since `reset_peak_memory_stats`.

    It gives nothing back but in `empty_cache`, or when the GPU is full.
    """
    if not is_initialized():
        return 0
    index = index_of(device, cupy_module())
    most = _reserved[index] = max(_reserved.get(index, 0), memory_reserved(index))
    return most


def memory_stats(device: DeviceLike = None) -> dict[str, int]:
    """What is known of a GPU's memory, in bytes, by PyTorch's names.

    The names are ``allocated_bytes.all.current`` and ``.peak``, and the same of
    ``reserved_bytes``; CuPy's pool counts nothing else. Empty before CUDA is first used.
    """
    if not is_initialized():
        return {}
    return {
        "allocated_bytes.all.current": memory_allocated(device),
        "allocated_bytes.all.peak": max_memory_allocated(device),
        "reserved_bytes.all.current": memory_reserved(device),
        "reserved_bytes.all.peak": max_memory_reserved(device),
    }


def memory_summary(device: DeviceLike = None, abbreviated: bool = False) -> str:
    """`memory_stats` as a table to print, with what is free on the GPU.

    Args:
        abbreviated: accepted for PyTorch's sake.
    """
    cupy = cupy_module()
    index = index_of(device, cupy)
    stats = memory_stats(index)
    free, total = mem_get_info(index)
    lines = [f"{f'memory of cuda:{index}':24}{'now':>12}{'most':>12}"]
    for title, name in (("held by tensors", "allocated"), ("held by the allocator", "reserved")):
        values = [stats[f"{name}_bytes.all.{which}"] for which in ("current", "peak")]
        lines.append(f"{title:24}" + "".join(f"{in_units(value):>12}" for value in values))
    return "\n".join([*lines, f"{'free':24}{in_units(free):>12} of {in_units(total)}"])


def _peak_hook(cupy: Any) -> Any:
    """A CuPy memory hook that keeps ``[bytes now, most bytes]`` of each watched GPU."""

    class Peak(cupy.cuda.MemoryHook):  # type: ignore[misc]
        name = "gradlite peak memory"

        def malloc_postprocess(self, **call: Any) -> None:
            peak = _peaks.get(call["device_id"])
            if peak is not None:
                peak[0] += call["mem_size"]
                if peak[0] > peak[1]:
                    peak[1] = peak[0]

        def free_postprocess(self, **call: Any) -> None:
            peak = _peaks.get(call["device_id"])
            if peak is not None:
                peak[0] -= call["mem_size"]

    return Peak()
