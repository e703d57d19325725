"""Methods of optimizers, schedulers, scalers and averages while a step is recorded.

They have their arithmetic on the host, so that a replay calls them anew; what can be part of a CUDA
graph is recorded call by call.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import Any

from gradlite.amp import GradScaler
from gradlite.capturing.calls import CaptureError
from gradlite.capturing.code_names import is_library
from gradlite.capturing.recorded import active
from gradlite.capturing.scaling import needs_values
from gradlite.grad_mode import enable_grad
from gradlite.optim import averages_in_graph
from gradlite.optim.elementwise import ElementwiseOptimizer
from gradlite.optim.in_graph import obstacle
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.swa_utils import AveragedModel
from gradlite.tensor import Tensor


def on_the_host(original: Any, note: str = "") -> Any:
    """A method of an optimizer, scheduler or scaler that a replay calls anew."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(self, *args, **kwargs)
        if any(isinstance(a, Tensor) for a in (*args, *kwargs.values())):
            raise CaptureError(f"{original.__qualname__}() takes a tensor inside a captured step")
        params = [
            p
            for holder in (self, *args)
            if isinstance(holder, Optimizer)
            for group in holder.param_groups
            for p in group["params"]
        ]
        call = functools.partial(original, self, *args, **kwargs)
        functools.update_wrapper(call, original)
        return recorder.host_call(
            call,
            params,
            changed=lambda: _changed_by((self, *args)),
            of_host=isinstance(self, LRScheduler) and _computes_numbers(self),
            note=note,
        )

    return method


def _scaling(original: Any) -> Any:
    """A scaler's method: recorded call by call for a GPU, where that is possible."""

    @functools.wraps(original)
    def method(self: GradScaler, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None or (recorder.gpu is not None and not self.is_enabled()):
            return original(self, *args, **kwargs)
        scaling, step = recorder.scaling, original.__name__ == "step"
        with recorder.pause():
            inside = recorder.gpu is not None and scaling.takes(self)
            if inside and step:
                scaling.refused = scaling.refused or needs_values(args[0], args[1:], kwargs)
            if inside and scaling.refused:  # nobody will want the rest of the recording
                return original(self, *args, **kwargs)
        if not inside:
            note = f"between graphs, because {scaling.outside}" if scaling.outside else ""
            return on_the_host(original, note)(self, *args, **kwargs)
        if step and not getattr(args[0], "_step_supports_amp_scaling", False):
            return self._step_by_kernels(args[0])
        return original(self, *args, **kwargs)

    return method


def _averaging(original: Any) -> Any:
    """`AveragedModel.update_parameters`: recorded call by call for a GPU, where that can be."""

    @functools.wraps(original)
    def method(self: AveragedModel, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(self, *args, **kwargs)
        note = ""
        if recorder.gpu is not None:
            with recorder.pause():
                found = averages_in_graph.obstacle(self, args, kwargs)
            if found is None:
                return recorder.graph_average(self, *args)
            note = f"between graphs, because {found}"
        return on_the_host(original, note)(self, *args, **kwargs)

    return method


def _changed_by(holders: Iterable[Any]) -> list[Tensor]:
    """The tensors that methods of optimizers and the like may write to."""
    found: list[Tensor] = []
    for holder in holders:
        if isinstance(holder, LRScheduler):
            holder = holder.optimizer
        if isinstance(holder, Optimizer):
            found += [p for group in holder.param_groups for p in group["params"]]
            parts: list[Any] = [*holder.state.values(), *holder.param_groups]
        elif isinstance(holder, AveragedModel):
            parts = [holder.state_dict()]
        else:
            parts = [vars(holder)] if isinstance(holder, GradScaler) else []
        found += [v for part in parts for v in part.values() if isinstance(v, Tensor)]
    return found


def _computes_numbers(schedule: LRScheduler) -> bool:
    """Whether a schedule does nothing but set numbers: its place among array calls is free."""
    return (
        type(schedule).__module__.startswith("gradlite.optim.lr_scheduler.")
        and not any(map(callable, vars(schedule).values()))
        and not vars(schedule).keys() & {"lr_lambdas", "_schedulers"}
        and not any(isinstance(g["lr"], Tensor) for g in schedule.optimizer.param_groups)
    )


def step_taken(step: Any, self: Any, args: Any, kwargs: Any) -> tuple[Any] | None:
    """What an optimizer's step asks first: its result, if it has been taken care of."""
    recorder = active()
    if recorder is None:
        return None
    closure = args[0] if args else kwargs.get("closure")
    if closure is not None:
        return _step_with_closure(self, closure)
    note = ""
    params = [p for group in self.param_groups for p in group["params"]]
    if any(not p.is_cpu for p in params):
        with recorder.pause():
            found = obstacle(self, args, kwargs)
        if found is None:
            call = functools.partial(step, self, *args, **kwargs)
            return (recorder.graph_update(call, self, params),)
        note = f"between graphs, because {found}"
    return (on_the_host(step, note)(self, *args, **kwargs),)


def _step_with_closure(self: Any, closure: Callable[[], Any]) -> tuple[Any]:
    """The loss that a closure returns, recorded as any other part of the step, and a step."""
    if not isinstance(self, ElementwiseOptimizer) or not is_library(type(self).__module__):
        raise CaptureError(
            f"{type(self).__name__}.step() calls a function of the step as often as it likes, "
            "which a replay could not repeat: leave it out of the captured step"
        )
    with enable_grad():
        loss = closure()
    self.step()
    return (loss,)


def called_anew(method: Any, self: Any, args: Any, kwargs: Any) -> Any:
    """A call of a scheduler's, a scaler's or an average's method, which replays make anew."""
    kinds: tuple[tuple[type, Any], ...] = (
        (LRScheduler, on_the_host), (GradScaler, _scaling), (AveragedModel, _averaging),
    )  # fmt: skip
    (around,) = [way for kind, way in kinds if isinstance(self, kind)]
    return around(method)(self, *args, **kwargs)
