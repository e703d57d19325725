"""LRScheduler: the base of all learning rate schedules."""

from __future__ import annotations

import functools
import types
import warnings
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from gradlite.device import beside
from gradlite.ops import guard
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.replayed import replay_own, replayed
from gradlite.tensor import Tensor, wrap

EPOCH_DEPRECATION_WARNING = (
    "The epoch parameter in `scheduler.step()` was not necessary and is being deprecated where "
    "possible. Please use `scheduler.step()` to step the scheduler. During the deprecation, if "
    "epoch is different from None, the closed form is used instead of the new chainable form, "
    "where available. Please open an issue if you are unable to replicate your use case: "
    "https://github.com/pytorch/pytorch/issues/new/choose."
)
_ORDER_HELP = (
    "See more details at https://pytorch.org/docs/stable/optim.html#how-to-adjust-learning-rate"
)


def copied(value: Any) -> Any:
    """A value that shares no memory with the optimizer's: tensors are cloned."""
    if not isinstance(value, Tensor):
        return value
    with beside(value.array):
        return wrap(value.array.copy())


def group_values(optimizer: Optimizer, key: str) -> list[Any]:
    """An option of every parameter group."""
    return [copied(group[key]) for group in optimizer.param_groups]


def set_group_value(group: dict[str, Any], key: str, value: Any) -> None:
    """Set an option of a group; one that is a tensor keeps its identity."""
    known = group[key]
    if isinstance(known, Tensor):
        guard.fill(known.array, value.array if isinstance(value, Tensor) else value)
        known._bump()
    else:
        group[key] = value


def per_group(name: str, optimizer: Optimizer, value: Any) -> list[Any]:
    """One value per parameter group, from one for all or a list."""
    groups = optimizer.param_groups
    if isinstance(value, (list, tuple)):
        if len(value) != len(groups):
            raise ValueError(
                f"{name} must have the same length as optimizer.param_groups. "
                f"{name} has {len(value)} values, param_groups has {len(groups)}."
            )
        return list(map(copied, value))
    return [copied(value) for _ in groups]


def check_optimizer(optimizer: Any) -> None:
    """TypeError unless this is an `Optimizer`."""
    if not isinstance(optimizer, Optimizer):
        raise TypeError(f"{type(optimizer).__name__} is not an Optimizer")


def saved_functions(functions: list[Any]) -> list[dict[str, Any] | None]:
    """What can be saved of callables: the attributes of objects, nothing of functions."""
    return [
        None if isinstance(function, types.FunctionType) else function.__dict__.copy()
        for function in functions
    ]


class LRScheduler:
    """Base class of the schedules: sets every group's ``"lr"`` each time `step` is called.

    A subclass overrides `get_lr`, which computes the next learning rates from the present ones
    (so that schedules can be chained), and may give ``_get_closed_form_lr``, which computes
    them from ``last_epoch`` alone.

    Args:
        optimizer: whose groups to schedule; each keeps its first ``"lr"`` as ``"initial_lr"``.
        last_epoch: -1, or where to resume.

    >>> import gradlite
    >>> from gradlite.optim.lr_scheduler import StepLR
    >>> optimizer = gradlite.optim.SGD([gradlite.ones(1, requires_grad=True)], lr=1.0)
    >>> scheduler = StepLR(optimizer, step_size=2, gamma=0.5)
    >>> for epoch in range(4):
    ...     optimizer.step()
    ...     scheduler.step()
    ...     print(scheduler.get_last_lr())
    [1.0]
    [0.5]
    [0.5]
    [0.25]
    """

    _get_lr_called_within_step = False
    _is_initial = False
    optimizer: Optimizer
    base_lrs: list[Any]
    last_epoch: int
    _last_lr: list[Any]

    def __init_subclass__(cls) -> None:
        replay_own(cls, "step")

    def __init__(self, optimizer: Optimizer, last_epoch: int = -1) -> None:
        check_optimizer(optimizer)
        self.optimizer = optimizer
        for i, group in enumerate(optimizer.param_groups):
            if last_epoch == -1:
                group.setdefault("initial_lr", copied(group["lr"]))
            elif "initial_lr" not in group:
                raise KeyError(
                    f"param 'initial_lr' is not specified in param_groups[{i}] when resuming "
                    "scheduler with last_epoch >= 0.\nThis typically happens when:\n"
                    "1. You're trying to resume training from a checkpoint but haven't properly "
                    "loaded the optimizer state\n"
                    "2. You're using last_epoch >= 0 for a fresh training run (not recommended)"
                )
        self.base_lrs = group_values(optimizer, "initial_lr")
        self.last_epoch = last_epoch
        _watch_steps(optimizer)
        self._initial_step()

    def _initial_step(self) -> None:
        self._step_count = 0
        self._is_initial = True
        try:
            self.step()
        finally:
            self._is_initial = False

    def state_dict(self) -> dict[str, Any]:
        """All of the schedule's attributes but the optimizer."""
        return {key: value for key, value in self.__dict__.items() if key != "optimizer"}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over what `state_dict` has returned."""
        self.__dict__.update(state_dict)

    def get_last_lr(self) -> list[Any]:
        """The learning rates that the last `step` has set, one per group."""
        return self._last_lr

    def get_lr(self) -> list[Any]:
        """Compute the next learning rates; to look at the present ones use `get_last_lr`."""
        raise NotImplementedError

    @replayed
    def step(self, epoch: int | None = None) -> None:
        """Set the next learning rates; call it after the optimizer's ``step``.

        Args:
            epoch: deprecated: where to go, by the closed form where there is one.
        """
        if self._step_count == 1:
            if not hasattr(self.optimizer.step, "_wrapped_by_lr_sched"):
                warnings.warn(
                    "Seems like `optimizer.step()` has been overridden after learning rate "
                    "scheduler initialization. Please, make sure to call `optimizer.step()` "
                    "before `lr_scheduler.step()`. " + _ORDER_HELP,
                    UserWarning,
                    stacklevel=2,
                )
            elif not getattr(self.optimizer, "_opt_called", False):
                warnings.warn(
                    "Detected call of `lr_scheduler.step()` before `optimizer.step()`. In PyTorch "
                    "1.1.0 and later, you should call them in the opposite order: "
                    "`optimizer.step()` before `lr_scheduler.step()`.  Failure to do this will "
                    "result in PyTorch skipping the first value of the learning rate schedule. "
                    + _ORDER_HELP,
                    UserWarning,
                    stacklevel=2,
                )
        self._step_count += 1
        if epoch is not None:
            warnings.warn(EPOCH_DEPRECATION_WARNING, UserWarning, stacklevel=2)
        self._update_lr(epoch)

    def _update_lr(self, epoch: int | None = None) -> None:
        with self._within_step():
            if epoch is None:
                self.last_epoch += 1
                values = self.get_lr()
            else:
                self.last_epoch = epoch
                values = getattr(self, "_get_closed_form_lr", self.get_lr)()
        self._set(values)

    def _set(self, values: list[Any]) -> None:
        for group, lr in zip(self.optimizer.param_groups, values):
            set_group_value(group, "lr", lr)
        self._last_lr = group_values(self.optimizer, "lr")

    @contextmanager
    def _within_step(self) -> Iterator[None]:
        self._get_lr_called_within_step = True
        try:
            yield
        finally:
            self._get_lr_called_within_step = False

    def _warn_outside_step(self) -> None:
        if not self._get_lr_called_within_step:
            warnings.warn(
                "To get the last learning rate computed by the scheduler, please use "
                "`get_last_lr()`.",
                UserWarning,
                stacklevel=3,
            )

    def _present(self) -> list[Any]:
        return group_values(self.optimizer, "lr")

    def _scaled(self, factor: float) -> list[Any]:
        return [group["lr"] * factor for group in self.optimizer.param_groups]


class _LRScheduler(LRScheduler):
    """The old name of `LRScheduler`, for subclasses written for it."""


def _watch_steps(optimizer: Optimizer) -> None:
    """Let the optimizer note when its step is called, to warn about the wrong order."""
    step = optimizer.step
    if hasattr(step, "_wrapped_by_lr_sched"):
        return
    reference = weakref.ref(optimizer)
    function = step.__func__  # type: ignore[attr-defined]

    @functools.wraps(function)
    def watched(*args: Any, **kwargs: Any) -> Any:
        owner: Any = reference()
        owner._opt_called = True
        return function(owner, *args, **kwargs)

    watched._wrapped_by_lr_sched = True  # type: ignore[attr-defined]
    optimizer.step = watched  # type: ignore[method-assign]
