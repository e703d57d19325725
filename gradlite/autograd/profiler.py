"""The profiler under its older name: `gradlite.profiler` is where it lives."""

from __future__ import annotations

from gradlite.profiler import EventList, ProfilerActivity, record_function
from gradlite.profiler import profile as _profile

__all__ = ["EventList", "profile", "record_function"]


class profile(_profile):
    """`gradlite.profiler.profile`, which may be switched off.

    Args:
        enabled: if False, nothing is measured.
        use_device: "cuda" to time kernels on a GPU as well.
        record_shapes: keep the shapes of the arrays that ops are given.
        with_flops, profile_memory, with_stack, with_modules: change nothing: the profile has the
            bytes of each op, and neither of the others.

    >>> import gradlite
    >>> with gradlite.autograd.profiler.profile() as prof:
    ...     y = gradlite.ones(3).exp()
    >>> [(event.key, event.count) for event in prof.key_averages()]
    [('exp', 1)]
    """

    def __init__(
        self,
        enabled: bool = True,
        *,
        use_cuda: bool = False,
        use_device: str | None = None,
        record_shapes: bool = False,
        with_flops: bool = False,
        profile_memory: bool = False,
        with_stack: bool = False,
        with_modules: bool = False,
    ) -> None:
        kinds = [ProfilerActivity.CPU]
        if use_cuda or use_device == "cuda":
            kinds.append(ProfilerActivity.CUDA)
        super().__init__(activities=kinds, record_shapes=record_shapes)
        self.enabled = enabled

    def start(self) -> None:
        """Begin, where enabled."""
        if self.enabled:
            super().start()

    def stop(self) -> None:
        """End, where enabled."""
        if self.enabled:
            super().stop()

    def table(self, sort_by: str | None = None, row_limit: int = 100) -> str:
        """The events, each in a row."""
        return self.events().table(sort_by=sort_by, row_limit=row_limit)

    @property
    def self_cpu_time_total(self) -> float:
        """Microseconds of the host inside of any event."""
        return self.events().self_cpu_time_total
