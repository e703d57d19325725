"""Weight averaging: `AveragedModel`, its averaging functions, `SWALR`, `update_bn`."""

from __future__ import annotations

import copy
import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

from gradlite.grad_mode import no_grad
from gradlite.nn import Module
from gradlite.ops import guard, many
from gradlite.ops.creation import tensor
from gradlite.optim.lr_scheduler.base import LRScheduler, per_group
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.replayed import replay_own, replayed
from gradlite.tensor import Tensor, unwrap

AverageFunction = Callable[[Any, Any, Any], Any]
MultiAverageFunction = Callable[[Sequence[Any], Sequence[Any], Any], None]


def _check_decay(decay: float) -> None:
    if decay < 0.0 or decay > 1.0:
        raise ValueError(
            f"Invalid decay value {decay} provided. Please provide a value in [0,1] range."
        )


def _move_all(
    averaged: Sequence[Tensor], current: Sequence[Tensor], weight: float, count: Any = None
) -> None:
    arrays = [old.array for old in averaged], [new.array for new in current]
    if many.average(*arrays, weight, unwrap(count)):
        for old in averaged:
            old._bump()
        return
    by: Any = weight
    if count is not None:  # on a GPU without waiting for it
        with guard.on(count):
            by = 1 / (float(count) + 1 if count.is_cpu else count.array + 1)
    for old, new in zip(averaged, current):
        with guard.on(old):
            if old.is_floating_point():
                change = new.array - old.array
                change *= by
                old.array[...] += change
            elif count is None:
                old.array[...] = old.array * (1 - weight) + new.array * weight
            else:
                old.array[...] = old.array + (new.array - old.array) / (float(count) + 1)
        old._bump()


def get_ema_multi_avg_fn(decay: float = 0.999) -> MultiAverageFunction:
    """An exponential moving average of lists of tensors, for `AveragedModel`."""
    _check_decay(decay)

    def ema_update(averaged: Sequence[Tensor], current: Sequence[Tensor], _: Any) -> None:
        _move_all(averaged, current, 1 - decay)

    return ema_update


def get_swa_multi_avg_fn() -> MultiAverageFunction:
    """The mean of all models so far, of lists of tensors, for `AveragedModel`."""

    def swa_update(averaged: Sequence[Tensor], current: Sequence[Tensor], n: Any) -> None:
        _move_all(averaged, current, 0.0, n)

    return swa_update


def get_ema_avg_fn(decay: float = 0.999) -> AverageFunction:
    """An exponential moving average, for `AveragedModel`."""
    _check_decay(decay)

    @no_grad()
    def ema_update(averaged: Any, current: Any, num_averaged: Any) -> Any:
        return decay * averaged + (1 - decay) * current

    return ema_update


def get_swa_avg_fn() -> AverageFunction:
    """The mean of all models so far, for `AveragedModel`."""

    @no_grad()
    def swa_update(averaged: Any, current: Any, num_averaged: Any) -> Any:
        return averaged + (current - averaged) / (num_averaged + 1)

    return swa_update


class AveragedModel(Module):
    """A copy of a model whose parameters are an average of the model's.

    Args:
        model: the model; it is copied.
        device: where to keep the average.
        avg_fn: ``avg_fn(averaged, current, n)`` gives the new average of one parameter.
        multi_avg_fn: ``multi_avg_fn(averaged, current, n)`` updates lists of parameters in place.
            With neither, the mean of all models so far.
        use_buffers: average the buffers too; otherwise they are copied.

    Source: Izmailov et al., "Averaging Weights Leads to Wider Optima and Better
    Generalization", 2018.

    >>> import gradlite
    >>> model = gradlite.nn.Linear(1, 1, bias=False)
    >>> averaged = gradlite.optim.swa_utils.AveragedModel(model)
    >>> for value in (1.0, 2.0, 6.0):
    ...     _ = gradlite.nn.init.constant_(model.weight, value)
    ...     averaged.update_parameters(model)
    >>> averaged.module.weight.item()
    3.0
    """

    n_averaged: Any  # a buffer

    def __init_subclass__(cls) -> None:
        replay_own(cls, "update_parameters")

    def __init__(
        self,
        model: Module,
        device: Any = None,
        avg_fn: AverageFunction | None = None,
        multi_avg_fn: MultiAverageFunction | None = None,
        use_buffers: bool = False,
    ) -> None:
        super().__init__()
        if avg_fn is not None and multi_avg_fn is not None:
            raise AssertionError("Only one of avg_fn and multi_avg_fn should be provided")
        self.module = copy.deepcopy(model)
        if device is not None:
            self.module = self.module.to(device)
        self.register_buffer("n_averaged", tensor(0, device=device))
        self.avg_fn = avg_fn
        self.multi_avg_fn = multi_avg_fn
        self.use_buffers = use_buffers

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        """What the averaged model gives."""
        return self.module(*args, **kwargs)

    @replayed
    def update_parameters(self, model: Module) -> None:
        """Take the present parameters of ``model`` into the average."""
        averaged, current = self._pairs(model)
        if self.n_averaged.item() == 0:
            for old, new in zip(averaged, current):
                old.copy_(new)
        else:
            self._average(averaged, current, self.n_averaged)
        self._copy_buffers(model)
        self.n_averaged += 1

    def _pairs(self, model: Module) -> tuple[list[Tensor], list[Tensor]]:
        """What is averaged, and what of a model goes into it, on the same devices."""
        ours: Iterable[Any] = self.module.parameters()
        theirs: Iterable[Any] = model.parameters()
        if self.use_buffers:
            ours = itertools.chain(ours, self.module.buffers())
            theirs = itertools.chain(theirs, model.buffers())
        averaged = [p.detach() for p in ours]
        return averaged, [p.detach().to(old.device) for p, old in zip(theirs, averaged)]

    def _average(self, averaged: list[Tensor], current: list[Tensor], count: Tensor) -> None:
        """Move averages of ``count`` models towards a model's."""
        if self.avg_fn is not None:
            for old, new in zip(averaged, current):
                old.copy_(self.avg_fn(old, new, count.to(old.device)))
            return
        together: dict[Any, tuple[list[Any], list[Any]]] = {}
        for old, new in zip(averaged, current):
            olds, news = together.setdefault((old.device, old.dtype), ([], []))
            olds.append(old)
            news.append(new)
        update = self.multi_avg_fn or get_swa_multi_avg_fn()
        for (device, _), (olds, news) in together.items():
            update(olds, news, count.to(device))

    def _copy_buffers(self, model: Module) -> None:
        """Let the average have the model's buffers, unless they are averaged too."""
        if not self.use_buffers:
            pairs: Iterable[Any] = zip(self.module.buffers(), model.buffers())
            for mine, other in pairs:
                mine.detach().copy_(other.detach().to(mine.device))


@no_grad()
def update_bn(loader: Iterable[Any], model: Module, device: Any = None) -> None:
    """Compute the running statistics of a model's batch norms anew, in one pass over data.

    Args:
        loader: batches: a tensor each, or a list or tuple whose first item is the input.
        model: whose statistics to update; its mode is restored.
        device: where to move the inputs.
    """
    from gradlite.nn.modules.batchnorm import _BatchNorm

    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    if not norms:
        return
    momenta = [module.momentum for module in norms]
    was_training = model.training
    model.train()
    for module in norms:
        module.reset_running_stats()
        module.momentum = None  # a plain mean over all batches
    for batch in loader:
        x = batch[0] if isinstance(batch, (list, tuple)) else batch
        model(x if device is None else x.to(device))
    for module, momentum in zip(norms, momenta):
        module.momentum = momentum
    model.train(was_training)


def _linear(t: float) -> float:
    return t


def _cosine(t: float) -> float:
    return (1 - math.cos(math.pi * t)) / 2


class SWALR(LRScheduler):
    """Anneals the learning rate to a value of its own for weight averaging.

    Args:
        optimizer: whose groups to schedule.
        swa_lr: the final learning rate, or a list of one per group.
        anneal_epochs: epochs until then.
        anneal_strategy: ``"cos"`` or ``"linear"``.
        last_epoch: -1, or where to resume.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        swa_lr: float | list[float],
        anneal_epochs: int = 10,
        anneal_strategy: Literal["cos", "linear"] = "cos",
        last_epoch: int = -1,
    ) -> None:
        for group, lr in zip(optimizer.param_groups, per_group("swa_lr", optimizer, swa_lr)):
            group["swa_lr"] = lr
        if anneal_strategy not in ("cos", "linear"):
            raise ValueError(
                f"anneal_strategy must be one of 'cos' or 'linear', instead got {anneal_strategy}"
            )
        self._anneal_strategy = anneal_strategy
        if not isinstance(anneal_epochs, int) or anneal_epochs < 0:
            raise ValueError(f"anneal_epochs must be equal or greater than 0, got {anneal_epochs}")
        self.anneal_epochs = anneal_epochs
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        """Compute the next learning rates."""
        self._warn_outside_step()
        anneal = _cosine if self._anneal_strategy == "cos" else _linear
        step = self._step_count - 1
        if self.anneal_epochs == 0:
            step = max(1, step)
        epochs = max(1, self.anneal_epochs)
        before = anneal(max(0, min(1, (step - 1) / epochs)))
        now = anneal(max(0, min(1, step / epochs)))
        values = []
        for group in self.optimizer.param_groups:
            lr, final = group["lr"], group["swa_lr"]
            # The learning rate that the annealing began with, from where it is now.
            first = final if before == 1 else (lr - before * final) / (1 - before)
            values.append(final * now + first * (1 - now))
        return values
