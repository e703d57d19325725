"""Gradient scaling as part of a recording for a GPU: a scaler's arithmetic goes into the graph.

What a scaler does to arrays is recorded like all else. What it remembers in between, it forgets in
`GradScaler.update`; so a step that has all of an iteration can be replayed, and another one has
the scaler's methods called anew.
"""

from __future__ import annotations

from typing import Any

from gradlite.amp import GradScaler
from gradlite.optim.in_graph import obstacle
from gradlite.optim.optimizer import Optimizer


class Scaling:
    """The scalers whose arithmetic a recording holds.

    Attributes:
        outside: why it may hold none, if it may not.
        refused: what keeps it from being replayed, if anything does.
    """

    def __init__(self) -> None:
        self.outside = self.refused = ""
        self._used: list[tuple[GradScaler, Any]] = []

    def __bool__(self) -> bool:
        return bool(self._used)

    def takes(self, scaler: GradScaler) -> bool:
        """Whether a method of the scaler is to be recorded call by call; arrays are as they are."""
        if any(used is scaler for used, _ in self._used):
            return True
        scale = scaler._scale
        if (
            self.outside
            or not type(scaler).__module__.startswith("gradlite.")
            or scaler._per_optimizer_states
            or scale is None
            or scale.is_cpu
        ):
            return False
        self._used.append((scaler, _settings(scaler)))
        return True

    def unfinished(self) -> str:
        """Why the recording cannot be replayed; nothing when it can."""
        if not self.refused and any(s._per_optimizer_states for s, _ in self._used):
            return "update() is not called in the step"
        return self.refused

    def holds(self) -> bool:
        """Whether the scalers are as they were."""
        for scaler, settings in self._used:
            if _settings(scaler) != settings or scaler._per_optimizer_states:
                return False
        return True


def _settings(scaler: GradScaler) -> tuple[Any, ...]:
    return (
        id(scaler._scale),
        id(scaler._growth_tracker),
        scaler._growth_factor,
        scaler._backoff_factor,
        scaler._growth_interval,
    )


def needs_values(optimizer: Optimizer, args: Any, kwargs: Any) -> str:
    """Why the host has to look at values for an optimizer's step; nothing when it has not."""
    of_its_own = getattr(optimizer, "_step_supports_amp_scaling", False)
    if of_its_own and not all(group.get("fused") for group in optimizer.param_groups):
        return "a group of its optimizer is not fused"
    found = obstacle(optimizer, args, kwargs)
    return f"its optimizer does not step in a graph: {found}" if found else ""
