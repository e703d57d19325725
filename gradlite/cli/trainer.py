"""The training loop, in steps small enough to stop and resume between any two of them."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import gradlite
import gradlite.nn.functional as F
from gradlite import Tensor, nn, optim
from gradlite.cli.args import Settings
from gradlite.cli.data import ImageData, TextData
from gradlite.cli.metrics import Row
from gradlite.optim import lr_scheduler

WARMUP = 0.1


def make_optimizer(settings: Settings, model: nn.Module) -> optim.Optimizer:
    """The optimizer that the settings name, over all parameters of the model."""
    parameters, lr = model.parameters(), settings.lr
    if settings.optimizer == "sgd":
        return optim.SGD(parameters, lr=lr, momentum=0.9, nesterov=True)
    if settings.optimizer == "adam":
        return optim.Adam(parameters, lr=lr)
    if settings.optimizer == "rmsprop":
        return optim.RMSprop(parameters, lr=lr)
    return optim.AdamW(parameters, lr=lr, weight_decay=0.1)


def warmup_cosine(total: int) -> Callable[[int], float]:
    """The learning rate's factor at each step: linear warm-up, then half a cosine down to 0."""
    warmup = max(1, round(WARMUP * total))

    def factor(step: int) -> float:
        if step < warmup:
            return (step + 1) / warmup
        return 0.5 * (1 + math.cos(math.pi * (step - warmup) / max(1, total - warmup)))

    return factor


class Trainer:
    """A model in training, with everything that decides how the training goes on.

    ``epoch`` counts from 1 and ``step`` is the number of batches of that epoch already seen;
    ``sums`` are the loss, the correct predictions and the predictions of the epoch so far.
    """

    def __init__(self, settings: Settings, data: ImageData | TextData, model: nn.Module) -> None:
        self.settings, self.data, self.model = settings, data, model
        self.total_steps = sum(data.steps(epoch + 1) for epoch in range(settings.epochs))
        self.optimizer = make_optimizer(settings, model)
        self.scheduler = lr_scheduler.LambdaLR(self.optimizer, warmup_cosine(self.total_steps))
        self.epoch = 1
        self.step = 0
        self.steps_done = 0
        self.sums = self._zeros()
        self.history: list[Row] = []

    @property
    def finished(self) -> bool:
        """Whether every epoch has been trained and scored."""
        return self.epoch > self.settings.epochs

    def train_epoch(self, after_step: Callable[[], bool]) -> bool:
        """Train to the end of the epoch; False where ``after_step`` asked to stop before it."""
        self.model.train()
        for inputs, targets in self.data.batches(self.epoch, self.step):
            loss, correct = _scores(self.model(inputs), targets)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            self.scheduler.step()
            self._count(self.sums, loss, correct, targets.numel())
            self.step += 1
            self.steps_done += 1
            if not after_step():
                return False
        return True

    def evaluate(self, everything: bool, proceed: Callable[[], bool]) -> tuple[float, float] | None:
        """Loss and accuracy on held-out data; None where ``proceed`` said no between batches."""
        sums = self._zeros()
        self.model.eval()
        with gradlite.no_grad():
            for inputs, targets in self.data.held_out_batches(everything):
                if not proceed():
                    return None
                loss, correct = _scores(self.model(inputs), targets)
                self._count(sums, loss, correct, targets.numel())
        return _means(sums)

    def end_epoch(self, validation: tuple[float, float]) -> Row:
        """Write down the epoch's scores and go to the next one."""
        train = self.train_scores()
        self.history.append(
            {
                "epoch": self.epoch,
                "step": self.steps_done,
                "lr": self.optimizer.param_groups[0]["lr"],
                "train_loss": train[0],
                "train_accuracy": train[1],
                "validation_loss": validation[0],
                "validation_accuracy": validation[1],
            }
        )
        self.epoch += 1
        self.step = 0
        self.sums = self._zeros()
        return self.history[-1]

    def train_scores(self) -> tuple[float, float]:
        """Loss and accuracy of the epoch so far, on the batches as they were trained."""
        return _means(self.sums)

    def state(self) -> dict[str, Any]:
        """Everything the rest of the run depends on."""
        return {
            "settings": vars(self.settings),
            "fingerprint": self.data.fingerprint,
            "epoch": self.epoch,
            "step": self.step,
            "steps_done": self.steps_done,
            "sums": self.sums.cpu(),
            "history": self.history,
            "model": self.model.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict(),
            "rng": gradlite.get_rng_state(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Go on from what ``state()`` gave.

        Raises:
            Exception: of several types, where the state does not fit this run.
        """
        self.epoch, self.step = state["epoch"], state["step"]
        self.steps_done = state["steps_done"]
        self.sums = state["sums"].to(self.data.device)
        self.history = list(state["history"])
        self.model.load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        self.scheduler.load_state_dict(state["scheduler"])
        gradlite.set_rng_state(state["rng"])

    def _zeros(self) -> Tensor:
        return gradlite.zeros(3, dtype=gradlite.float64, device=self.data.device)

    def _count(self, sums: Tensor, loss: Tensor, correct: Tensor, count: int) -> None:
        # The sums stay on the device: reading them here would wait for the GPU in every step.
        sums += gradlite.stack(
            [loss.detach().double() * count, correct.double(), gradlite.full_like(sums[0], count)]
        )


def _scores(outputs: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
    """The mean loss of a batch and its number of correct predictions."""
    logits, targets = outputs.flatten(0, -2), targets.flatten()
    return F.cross_entropy(logits, targets), (logits.detach().argmax(-1) == targets).sum()


def _means(sums: Tensor) -> tuple[float, float]:
    loss, correct, count = sums.tolist()
    return loss / max(count, 1), correct / max(count, 1)
