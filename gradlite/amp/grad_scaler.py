"""GradScaler: loss scaling that adapts itself."""

from __future__ import annotations

import inspect
import warnings
from collections import defaultdict
from collections.abc import Iterable
from enum import Enum
from typing import Any

import numpy as np

from gradlite.backends import cuda
from gradlite.backends.cpu import loud, quiet
from gradlite.device import array_module, device_of
from gradlite.ops import guard, many
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.replayed import replay_own, replayed
from gradlite.tensor import Tensor, wrap


class OptState(Enum):
    """How far an optimizer has come in this iteration."""

    READY = 0
    UNSCALED = 1
    STEPPED = 2


def _fresh_state() -> dict[str, Any]:
    return {"stage": OptState.READY, "found_inf_per_device": {}}


class GradScaler:
    """Scales losses up, gradients down again, and skips steps whose gradients overflowed.

    The gradients of half-precision activations are often too small for half precision. Scaled
    up by a large factor they are not. When the factor is too large, some gradients become
    infinite: the step is skipped and the factor is lowered; after a number of steps without
    that it is raised.

    Args:
        device: ``"cuda"`` or ``"cpu"``; without CUDA, a scaler for it warns and does nothing.
        init_scale: the first factor.
        growth_factor: above 1: how much it is raised.
        backoff_factor: below 1: how much it is lowered.
        growth_interval: after how many good steps it is raised.
        enabled: if False, every method does nothing or what would be done without it.

    Source: Micikevicius et al., "Mixed Precision Training", 2017.

    >>> import gradlite
    >>> weight = gradlite.tensor([1.0], requires_grad=True)
    >>> optimizer = gradlite.optim.SGD([weight], lr=0.5)
    >>> scaler = gradlite.amp.GradScaler("cpu", init_scale=1024.0)
    >>> scaler.scale((weight * weight).sum()).backward()
    >>> weight.grad
    tensor([2048.])
    >>> _ = scaler.step(optimizer)
    >>> scaler.update()
    >>> weight
    tensor([0.], requires_grad=True)
    """

    def __init_subclass__(cls) -> None:
        replay_own(cls, "step", "update", "unscale_")

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device = device
        self._enabled = enabled
        if device == "cuda" and enabled and not cuda.status()[0]:
            warnings.warn(
                "gradlite.cuda.amp.GradScaler is enabled, but CUDA is not available.  Disabling.",
                stacklevel=2,
            )
            self._enabled = False
        if not self._enabled:
            return
        if growth_factor <= 1.0:
            raise AssertionError("The growth factor must be > 1.0.")
        if backoff_factor >= 1.0:
            raise AssertionError("The backoff factor must be < 1.0.")
        self._init_scale = init_scale
        self._growth_factor = growth_factor
        self._backoff_factor = backoff_factor
        self._growth_interval = growth_interval
        self._init_growth_tracker = 0
        # Made on the device of the first outputs to be scaled.
        self._scale: Tensor | None = None
        self._growth_tracker: Tensor | None = None
        self._per_optimizer_states: dict[int, dict[str, Any]] = defaultdict(_fresh_state)

    # ------------------------------------------------------------------- one iteration
    def scale(self, outputs: Any) -> Any:
        """The outputs times the factor: a tensor, or tensors in lists, tuples, iterables."""
        if not self._enabled:
            return outputs
        if isinstance(outputs, Tensor):
            return outputs * self._scale_on(outputs)
        if isinstance(outputs, Iterable):
            scaled = map(self.scale, outputs)
            return type(outputs)(scaled) if isinstance(outputs, (list, tuple)) else scaled  # type: ignore[call-arg]
        raise ValueError("outputs must be a Tensor or an iterable of Tensors")

    def _scale_on(self, outputs: Tensor) -> Any:
        scale: Any = self._scale
        if scale is None:
            xp = array_module(outputs.device)
            with guard.on(outputs):
                self._scale = scale = wrap(xp.asarray(self._init_scale, dtype=np.float32))
                self._growth_tracker = wrap(xp.asarray(self._init_growth_tracker, dtype=np.int32))
        return scale if scale.device == outputs.device else scale.to(outputs.device)

    @replayed
    def unscale_(self, optimizer: Optimizer) -> None:
        """Divide the gradients of an optimizer's parameters by the factor, in place.

        Call it before `step` to clip or look at the gradients; otherwise `step` does it.

        Raises:
            RuntimeError: called twice in an iteration, or after `step`.
            ValueError: a gradient is in half precision.
        """
        if not self._enabled:
            return
        scale, _ = self._started("unscale_")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.UNSCALED:
            raise RuntimeError(
                "unscale_() has already been called on this optimizer since the last update()."
            )
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError("unscale_() is being called after step().")
        with guard.on(scale):
            inverse = wrap((1.0 / scale.array.astype(np.float64)).astype(np.float32))
        state["found_inf_per_device"] = _unscale(optimizer, inverse, allow_half=False)
        state["stage"] = OptState.UNSCALED

    @replayed
    def step(self, optimizer: Optimizer, *args: Any, **kwargs: Any) -> Any:
        """Call the optimizer's ``step``, unless gradients are infinite or NaN.

        Returns:
            What the optimizer's step returns, None when it was skipped.
        """
        if not self._enabled:
            return optimizer.step(*args, **kwargs)
        if "closure" in kwargs:
            raise RuntimeError("Closure use is not currently supported if GradScaler is enabled.")
        self._started("step")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if getattr(optimizer, "_step_supports_amp_scaling", False):
            result = self._step_of_its_own(optimizer, state, *args, **kwargs)
            state["stage"] = OptState.STEPPED
            return result
        if state["stage"] is OptState.READY:
            self.unscale_(optimizer)
        found = state["found_inf_per_device"]
        if not found:
            raise AssertionError("No inf checks were recorded for this optimizer.")
        result = None
        if not sum(value.item() for value in found.values()):
            result = optimizer.step(*args, **kwargs)
        state["stage"] = OptState.STEPPED
        return result

    def _step_by_kernels(self, optimizer: Any) -> None:
        """Step an optimizer whose kernels see for themselves whether gradients overflowed."""
        scale, _ = self._started("step")
        state = self._per_optimizer_states[id(optimizer)]
        if state["stage"] is OptState.STEPPED:
            raise RuntimeError("step() has already been called since the last update().")
        if state["stage"] is OptState.READY:
            self.unscale_(optimizer)
        optimizer.found_inf = sum(
            v.to(scale.device) for v in state["found_inf_per_device"].values()
        )
        try:
            optimizer.step()
        finally:
            del optimizer.found_inf
        state["stage"] = OptState.STEPPED

    def _step_of_its_own(
        self, optimizer: Any, state: dict[str, Any], *args: Any, **kwargs: Any
    ) -> Any:
        """Step an optimizer that unscales by itself: it finds the factor in an attribute."""
        if "grad_scaler" in inspect.signature(optimizer.step).parameters:
            warnings.warn(
                "GradScaler is going to stop passing itself as a keyword argument to the passed "
                "optimizer. In the near future GradScaler registers `grad_scale: Tensor` and "
                "`found_inf: Tensor` to the passed optimizer and let the optimizer use them "
                "directly.",
                FutureWarning,
                stacklevel=3,
            )
            return optimizer.step(*args, grad_scaler=self, **kwargs)
        scale, _ = self._started("step")
        if state["stage"] is OptState.READY:
            one = wrap(np.ones((), np.float32))
            state["found_inf_per_device"] = _unscale(optimizer, one, allow_half=True)
        found = [value.to(scale.device) for value in state["found_inf_per_device"].values()]
        given = getattr(optimizer, "grad_scale", None)
        if state["stage"] is not OptState.UNSCALED:
            given = scale * (1 if given is None else given)  # type: ignore[operator]
        optimizer.grad_scale, optimizer.found_inf = given, sum(found)
        try:
            return optimizer.step(*args, **kwargs)
        finally:
            del optimizer.grad_scale, optimizer.found_inf

    @replayed
    def update(self, new_scale: float | Tensor | None = None) -> None:
        """Raise or lower the factor, at the end of an iteration.

        Args:
            new_scale: a factor to set instead.
        """
        if not self._enabled:
            return
        scale, tracker = self._started("update")
        with guard.on(scale):
            self._set_or_adapt(scale, tracker, new_scale)
        scale._bump()
        self._per_optimizer_states = defaultdict(_fresh_state)

    def _set_or_adapt(
        self, scale: Tensor, tracker: Tensor, new_scale: float | Tensor | None
    ) -> None:
        if isinstance(new_scale, Tensor):
            if (
                new_scale.device.type != self._device
                or new_scale.numel() != 1
                or new_scale.requires_grad
            ):
                raise AssertionError(
                    "new_scale should be a float or a 1-element torch.cuda.FloatTensor or "
                    "torch.FloatTensor with requires_grad=False."
                )
            scale.array[...] = new_scale.to(scale.device).array.reshape(())  # type: ignore[attr-defined]
        elif new_scale is not None:
            scale.array[...] = float(new_scale)
        else:
            found = [
                value
                for state in self._per_optimizer_states.values()
                for value in state["found_inf_per_device"].values()
            ]
            if not found:
                raise AssertionError("No inf checks were recorded prior to update.")
            flags = [value.to(scale.device).array for value in found]
            settings = (self._growth_factor, self._backoff_factor, self._growth_interval)
            if not many.adapt_scale(scale.array, tracker.array, flags, *settings):
                self._adapt(scale, tracker, any(value.item() for value in found))

    def _adapt(self, scale: Tensor, tracker: Tensor, overflowed: bool) -> None:
        if overflowed:
            scale.array[...] *= self._backoff_factor
            tracker.array[...] = 0
            return
        tracker.array[...] += 1
        if tracker.item() == self._growth_interval:
            token = quiet()
            try:
                grown = scale.array * np.float32(self._growth_factor)
            finally:
                loud(token)
            if float(grown) <= np.finfo(np.float32).max:
                scale.array[...] = grown
            tracker.array[...] = 0

    def _started(self, method: str) -> tuple[Tensor, Tensor]:
        fix = (
            "This may indicate your script did not use scaler.scale(loss or outputs) earlier in "
            "the iteration."
        )
        if self._scale is None:
            raise AssertionError(f"Attempted {method} but _scale is None.  " + fix)
        if self._growth_tracker is None:
            raise AssertionError(f"Attempted {method} but _growth_tracker is None.  " + fix)
        return self._scale, self._growth_tracker

    # ----------------------------------------------------------------- settings, state
    def get_scale(self) -> float:
        """The factor; 1.0 when disabled."""
        if not self._enabled:
            return 1.0
        return self._init_scale if self._scale is None else float(self._scale.item())

    def get_growth_factor(self) -> float:
        """How much the factor is raised."""
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        """Set how much the factor is raised."""
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        """How much the factor is lowered."""
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        """Set how much the factor is lowered."""
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        """After how many good steps the factor is raised."""
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        """Set after how many good steps the factor is raised."""
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        tracker = self._growth_tracker
        return self._init_growth_tracker if tracker is None else int(tracker.item())

    def is_enabled(self) -> bool:
        """Whether the scaler does anything."""
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """Factor, settings and the number of good steps; empty when disabled."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` has returned; nothing when disabled."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError(
                "The source state dict is empty, possibly because it was saved from a disabled "
                "instance of GradScaler."
            )
        self._init_scale = state_dict["scale"]
        self._growth_factor = state_dict["growth_factor"]
        self._backoff_factor = state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        self._init_growth_tracker = state_dict["_growth_tracker"]
        if self._scale is not None:
            guard.fill(self._scale.array, self._init_scale)
        if self._growth_tracker is not None:
            guard.fill(self._growth_tracker.array, self._init_growth_tracker)

    def __getstate__(self) -> dict[str, Any]:
        state = self.__dict__.copy()
        if self._enabled:
            if self._per_optimizer_states:
                raise AssertionError(
                    "A GradScaler instance may only be pickled at the beginning of an iteration, "
                    "or at the end after scaler.update()."
                )
            state["_init_scale"] = self.get_scale()
            state["_init_growth_tracker"] = self._get_growth_tracker()
            state["_scale"] = state["_growth_tracker"] = None
        return state


def _unscale(optimizer: Optimizer, inverse: Any, allow_half: bool) -> dict[Any, Tensor]:
    """Multiply the gradients; per device, a tensor that is 1 where one was not finite."""
    grads = []
    for group in optimizer.param_groups:
        for p in group["params"]:
            grad = p._grad
            if grad is None:
                continue
            if grad.array.dtype == np.float16 and not allow_half:
                raise ValueError("Attempting to unscale FP16 gradients.")
            grads.append(grad)
    together: dict[Any, list[Any]] = {}
    for grad in grads:
        together.setdefault(device_of(grad.array), []).append(grad.array)
    found = {}
    token = quiet()
    try:
        for device, arrays in together.items():
            xp = array_module(device)
            with guard.on(arrays[0]):
                flag = xp.zeros((), np.float32)
                factor = inverse.to(device).array
                if not many.unscale(arrays, factor, flag):
                    flag[...] = _unscale_each(xp, arrays, factor)
            found[device] = wrap(flag)
        for grad in grads:
            grad._bump()
    finally:
        loud(token)
    return found


def _unscale_each(xp: Any, arrays: list[Any], factor: Any) -> Any:
    """Multiply arrays of one device; whether an element was infinite or not a number."""
    bad: Any = False
    for array in arrays:
        if xp is np:
            # A finite sum has finite terms only: one pass when all is well.
            bad = bad or not (np.isfinite(array.sum()) or np.isfinite(array).all())
        else:  # decided on the device: a look at the value would wait for it
            bad = xp.maximum(~xp.isfinite(array).all(), bad)
        array *= factor.astype(array.dtype)
    return bad
