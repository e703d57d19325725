"""Every schedule sets PyTorch's learning rates and momentums, over 150 steps."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import pytest

import gradlite
import gradlite.optim.lr_scheduler
import gradlite.optim.swa_utils
from tests.optim.table import product, torch
from tests.oracle import outcome_of, same

STEPS = 150
Make = Callable[[Any, Any], Any]


class Halving:
    """A callable object: its attributes are part of the schedule's state."""

    def __init__(self, every: int) -> None:
        self.every = every

    def __call__(self, epoch: float) -> float:
        return 0.5 ** (epoch // self.every)


def simple(name: str, **options: Any) -> tuple[str, Make]:
    # Not the address of a function: processes that share the tests know them by their names.
    text = ", ".join(f"{k}={getattr(v, '__name__', v)}" for k, v in options.items())
    return (
        f"{name}({text})",
        lambda T, optimizer: getattr(T.optim.lr_scheduler, name)(optimizer, **options),
    )


def swalr(**options: Any) -> tuple[str, Make]:
    return (
        f"SWALR({options})",
        lambda T, optimizer: T.optim.swa_utils.SWALR(optimizer, **options),
    )


def sequence(*names: str, milestones: Any) -> tuple[str, Make]:
    def make(T: Any, optimizer: Any) -> Any:
        S = T.optim.lr_scheduler
        made = {
            "constant": lambda: S.ConstantLR(optimizer, factor=0.1, total_iters=3),
            "linear": lambda: S.LinearLR(optimizer, total_iters=10),
            "exponential": lambda: S.ExponentialLR(optimizer, gamma=0.9),
            "cosine": lambda: S.CosineAnnealingLR(optimizer, T_max=20),
            "step": lambda: S.StepLR(optimizer, step_size=7),
            "polynomial": lambda: S.PolynomialLR(optimizer, total_iters=30),
        }
        return S.SequentialLR(optimizer, [made[name]() for name in names], list(milestones))

    return f"SequentialLR({', '.join(names)}, {milestones})", make


def chain(*names: str) -> tuple[str, Make]:
    def make(T: Any, optimizer: Any) -> Any:
        S = T.optim.lr_scheduler
        made = {
            "constant": lambda: S.ConstantLR(optimizer, factor=0.1, total_iters=3),
            "exponential": lambda: S.ExponentialLR(optimizer, gamma=0.9),
            "multiplicative": lambda: S.MultiplicativeLR(optimizer, lambda epoch: 0.99),
        }
        return S.ChainedScheduler([made[name]() for name in names], optimizer)

    return f"ChainedScheduler({', '.join(names)})", make


SCHEDULES: dict[str, Make] = dict(
    [
        simple("LambdaLR", lr_lambda=lambda epoch: 0.95**epoch),
        simple("LambdaLR", lr_lambda=[lambda epoch: 1 / (1 + epoch), Halving(5)]),
        simple("MultiplicativeLR", lr_lambda=lambda epoch: 0.95),
        simple("MultiplicativeLR", lr_lambda=[Halving(100), lambda epoch: 1.01]),
        *(simple("StepLR", **o) for o in product(step_size=(1, 7), gamma=(0.1, 0.9))),
        simple("MultiStepLR", milestones=[3, 10, 10, 90], gamma=0.3),
        *(simple("ConstantLR", **o) for o in product(factor=(0.5, 1.0), total_iters=(0, 1, 20))),
        *(
            simple("LinearLR", **o)
            for o in product(start_factor=(0.1, 1.0), end_factor=(1.0, 0.2), total_iters=(1, 50))
        ),
        simple("ExponentialLR", gamma=0.97),
        *(simple("PolynomialLR", **o) for o in product(total_iters=(1, 40, 200), power=(1.0, 2.5))),
        *(simple("CosineAnnealingLR", **o) for o in product(T_max=(1, 10, 200), eta_min=(0, 0.01))),
        *(
            simple("CosineAnnealingWarmRestarts", **o)
            for o in product(T_0=(1, 10), T_mult=(1, 2), eta_min=(0.0, 0.01))
        ),
        *(
            simple("OneCycleLR", max_lr=0.3, total_steps=STEPS, **o)
            for o in product(
                pct_start=(0.3, 0.5),
                anneal_strategy=("cos", "linear"),
                cycle_momentum=(True, False),
                three_phase=(False, True),
            )
        ),
        simple("OneCycleLR", max_lr=[0.3, 0.1], epochs=15, steps_per_epoch=10),
        *(
            simple("CyclicLR", base_lr=0.01, max_lr=0.1, step_size_up=9, **o)
            for o in product(
                mode=("triangular", "triangular2", "exp_range"),
                step_size_down=(None, 4),
                gamma=(1.0, 0.99),
                cycle_momentum=(True, False),
            )
        ),
        simple("CyclicLR", base_lr=[0.01, 0.02], max_lr=[0.1, 0.3], step_size_up=5),
        simple(
            "CyclicLR",
            base_lr=0.01,
            max_lr=0.1,
            step_size_up=5,
            scale_fn=Halving(3),
            scale_mode="iterations",
        ),
        sequence("constant", "exponential", milestones=[5]),
        sequence("linear", "cosine", "step", milestones=[10, 60]),
        sequence("polynomial", "exponential", milestones=[0]),
        sequence("step", milestones=[]),
        chain("constant", "exponential"),
        chain("exponential", "multiplicative", "constant"),
        swalr(swa_lr=0.02),
        swalr(swa_lr=[0.02, 0.5], anneal_epochs=20, anneal_strategy="linear"),
        swalr(swa_lr=0.02, anneal_epochs=0),
    ]
)


def optimizer_of(T: Any, cls: str = "SGD") -> Any:
    params = [T.ones(2, requires_grad=True) for _ in range(2)]
    options: dict[str, Any] = {"momentum": 0.9} if cls == "SGD" else {}
    return getattr(T.optim, cls)(
        [{"params": params[:1]}, {"params": params[1:], "lr": 0.5}], lr=0.1, **options
    )


def rates(scheduler: Any) -> list[Any]:
    """What a schedule has set, in the optimizer and in its own account."""
    return [
        [group["lr"], group.get("momentum"), list(group.get("betas", ())), last]
        for group, last in zip(scheduler.optimizer.param_groups, scheduler.get_last_lr())
    ]


@pytest.mark.parametrize("cls", ["SGD", "Adam"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_learning_rates(name: str, cls: str) -> None:
    def program(T: Any) -> Any:
        scheduler = SCHEDULES[name](T, optimizer_of(T, cls))
        seen = [rates(scheduler)]
        for _ in range(STEPS - 1):
            scheduler.optimizer.step()
            scheduler.step()
            seen.append(rates(scheduler))
        return seen

    same(program, rtol=1e-13, atol=1e-300)


def test_a_sequence_inside_a_sequence() -> None:
    def program(T: Any) -> Any:
        S = T.optim.lr_scheduler
        optimizer = optimizer_of(T)
        first = S.SequentialLR(
            optimizer,
            [S.ConstantLR(optimizer, factor=0.1), S.ExponentialLR(optimizer, gamma=0.9)],
            milestones=[3],
        )
        scheduler = S.SequentialLR(optimizer, [first, S.StepLR(optimizer, 5)], milestones=[40])
        seen = []
        for _ in range(60):
            optimizer.step()
            scheduler.step()
            seen.append(rates(scheduler))
        return seen

    same(program, warns="before `optimizer.step", rtol=1e-13, atol=1e-300)


def keys(state: dict[str, Any]) -> dict[str, Any]:
    return {
        key: [keys(inner) for inner in value] if key == "_schedulers" else None
        for key, value in sorted(state.items())
    }


@pytest.mark.parametrize("name", SCHEDULES)
def test_state_dict_round_trip_in_the_middle(name: str) -> None:
    """A schedule resumed in a new process goes on where it was."""

    def program(T: Any) -> Any:
        optimizer = optimizer_of(T)
        scheduler = SCHEDULES[name](T, optimizer)
        for _ in range(40):
            optimizer.step()
            scheduler.step()
        state = pickle.loads(pickle.dumps(scheduler.state_dict()))
        optimizer_state = copy.deepcopy(optimizer.state_dict())
        optimizer = optimizer_of(T)
        resumed = SCHEDULES[name](T, optimizer)
        seen: list[Any] = [keys(state)]
        optimizer.load_state_dict(optimizer_state)
        resumed.load_state_dict(state)
        for _ in range(60):
            optimizer.step()
            resumed.step()
            seen.append(rates(resumed))
        return seen

    same(program, rtol=1e-13, atol=1e-300)


@pytest.mark.parametrize("name", SCHEDULES)
def test_loads_pytorchs_state_dict(name: str) -> None:
    reference, ours = SCHEDULES[name](torch, optimizer_of(torch)), None
    for _ in range(30):
        reference.optimizer.step()
        reference.step()
    ours = SCHEDULES[name](gradlite, optimizer_of(gradlite))
    ours.optimizer.load_state_dict(reference.optimizer.state_dict())
    ours.load_state_dict(reference.state_dict())
    for _ in range(30):
        for scheduler in (reference, ours):
            scheduler.optimizer.step()
            scheduler.step()
        for actual, expected in zip(rates(ours), rates(reference)):
            assert actual[0] == pytest.approx(expected[0], rel=1e-13, abs=0)
            assert actual[1] == pytest.approx(expected[1], rel=1e-13)


CLOSED_FORM = [
    simple("StepLR", step_size=3),
    simple("MultiStepLR", milestones=[2, 5]),
    simple("ConstantLR"),
    simple("LinearLR"),
    simple("ExponentialLR", gamma=0.9),
    simple("PolynomialLR", power=2.0),
    simple("CosineAnnealingLR", T_max=6, eta_min=0.01),
    simple("LambdaLR", lr_lambda=lambda epoch: 0.95**epoch),
    simple("CosineAnnealingWarmRestarts", T_0=3, T_mult=2),
]


@pytest.mark.parametrize(("name", "make"), CLOSED_FORM)
def test_going_to_an_epoch(name: str, make: Make) -> None:
    def program(T: Any) -> Any:
        scheduler = make(T, optimizer_of(T))
        seen = []
        scheduler.optimizer.step()
        for epoch in (1, 4, 9, 2, 0, 7):
            scheduler.step(epoch)
            seen.append(rates(scheduler))
        return seen

    warns = None if "Warm" in name else "epoch parameter in `scheduler.step"
    if warns is None:
        same(program, rtol=1e-13)
    else:
        same(program, warns=warns, message="exact", rtol=1e-13)


@pytest.mark.parametrize("T_mult", [1, 2])
def test_warm_restarts_at_fractional_epochs(T_mult: int) -> None:
    def program(T: Any) -> Any:
        S = T.optim.lr_scheduler
        scheduler = S.CosineAnnealingWarmRestarts(optimizer_of(T), T_0=3, T_mult=T_mult)
        seen = []
        for i in range(100):
            scheduler.step(i / 4)
            seen.append([rates(scheduler), float(scheduler.T_cur), float(scheduler.T_i)])
        return [*seen, outcome_of(lambda: scheduler.step(-1))]

    same(program, rtol=1e-13)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"factor": 0.5, "patience": 2},
        {"patience": 0, "cooldown": 3, "min_lr": 1e-3},
        {"patience": 1, "threshold": 0.1, "min_lr": [1e-3, 0.2]},
        {"patience": 1, "threshold": 0.1, "threshold_mode": "abs"},
        {"mode": "max", "patience": 2},
        {"mode": "max", "patience": 2, "threshold": 0.05, "threshold_mode": "abs", "eps": 1e-3},
    ],
)
def test_reduce_on_plateau(options: dict[str, Any]) -> None:
    def program(T: Any) -> Any:
        optimizer = optimizer_of(T)
        scheduler = T.optim.lr_scheduler.ReduceLROnPlateau(optimizer, **options)
        metric, seen = 3.0, []
        for i in range(STEPS):
            metric += (((i * 7919) % 101) / 100 - 0.52) * (1 if i % 3 else 0.1)
            scheduler.step(T.tensor(metric) if i % 2 else metric)
            if i == 60:
                state = pickle.loads(pickle.dumps(scheduler.state_dict()))
                scheduler = T.optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=99)
                scheduler.load_state_dict(state)
                seen.append(list(state))
            seen.append([rates(scheduler), scheduler.num_bad_epochs, scheduler.in_cooldown])
        return seen

    same(program, rtol=1e-6)


BAD: dict[str, Callable[[Any, Any, Any], Any]] = {
    "no optimizer": lambda T, S, o: S.StepLR(1, 2),
    "no optimizer, plateau": lambda T, S, o: S.ReduceLROnPlateau(1),
    "no optimizer, one cycle": lambda T, S, o: S.OneCycleLR(1, 0.1, 5),
    "resuming without initial_lr": lambda T, S, o: S.StepLR(o, 2, last_epoch=3),
    "number of lambdas": lambda T, S, o: S.LambdaLR(o, [abs]),
    "number of factors": lambda T, S, o: S.MultiplicativeLR(o, [abs]),
    "a factor that is no function": lambda T, S, o: S.MultiplicativeLR(o, 0.9),
    "constant factor": lambda T, S, o: S.ConstantLR(o, factor=1.5),
    "start factor": lambda T, S, o: S.LinearLR(o, start_factor=0),
    "end factor": lambda T, S, o: S.LinearLR(o, end_factor=2),
    "plateau factor": lambda T, S, o: S.ReduceLROnPlateau(o, factor=1.0),
    "plateau mode": lambda T, S, o: S.ReduceLROnPlateau(o, mode="up"),
    "plateau threshold mode": lambda T, S, o: S.ReduceLROnPlateau(o, threshold_mode="up"),
    "plateau min_lr": lambda T, S, o: S.ReduceLROnPlateau(o, min_lr=[1]),
    "cyclic mode": lambda T, S, o: S.CyclicLR(o, 0.1, 0.2, mode="up"),
    "cyclic lr": lambda T, S, o: S.CyclicLR(o, [0.1], 0.2),
    "cyclic momentum": lambda T, S, o: S.CyclicLR(T.optim.Adagrad([T.ones(1)]), 0.1, 0.2),
    "one cycle without steps": lambda T, S, o: S.OneCycleLR(o, 0.1),
    "one cycle steps": lambda T, S, o: S.OneCycleLR(o, 0.1, total_steps=0),
    "one cycle epochs": lambda T, S, o: S.OneCycleLR(o, 0.1, epochs=1.5, steps_per_epoch=1),
    "one cycle start": lambda T, S, o: S.OneCycleLR(o, 0.1, 10, pct_start=2),
    "one cycle strategy": lambda T, S, o: S.OneCycleLR(o, 0.1, 10, anneal_strategy="up"),
    "one cycle momentum": lambda T, S, o: S.OneCycleLR(T.optim.Adagrad([T.ones(1)]), 0.1, 10),
    "restarts T_0": lambda T, S, o: S.CosineAnnealingWarmRestarts(o, 0),
    "restarts T_mult": lambda T, S, o: S.CosineAnnealingWarmRestarts(o, 1, 1.5),
    "restarts eta_min": lambda T, S, o: S.CosineAnnealingWarmRestarts(o, 1, 1, "low"),
    "empty sequence": lambda T, S, o: S.SequentialLR(o, [], []),
    "empty chain": lambda T, S, o: S.ChainedScheduler([]),
    "sequence of numbers": lambda T, S, o: S.SequentialLR(o, [1], []),
    "milestones": lambda T, S, o: S.SequentialLR(o, [S.StepLR(o, 1)], [1]),
    "plateau in a sequence": lambda T, S, o: S.SequentialLR(o, [S.ReduceLROnPlateau(o)], []),
    "plateau in a chain": lambda T, S, o: S.ChainedScheduler([S.ReduceLROnPlateau(o)]),
    "another optimizer": lambda T, S, o: S.ChainedScheduler(
        [S.StepLR(o, 1), S.StepLR(optimizer_of(T), 1)]
    ),
    "SWA strategy": lambda T, S, o: T.optim.swa_utils.SWALR(o, 0.1, anneal_strategy="up"),
    "SWA epochs": lambda T, S, o: T.optim.swa_utils.SWALR(o, 0.1, anneal_epochs=-1),
    "SWA rates": lambda T, S, o: T.optim.swa_utils.SWALR(o, [0.1]),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case: str) -> None:
    same(
        lambda T: BAD[case](T, T.optim.lr_scheduler, optimizer_of(T)),
        raises=(ValueError, TypeError, KeyError),
        message="exact",
    )


def test_one_cycle_ends() -> None:
    def program(T: Any) -> Any:
        scheduler = T.optim.lr_scheduler.OneCycleLR(optimizer_of(T), 0.1, total_steps=5)
        scheduler.optimizer.step()
        for _ in range(7):
            scheduler.step()

    same(program, raises=ValueError, match="Tried to step", message="exact")


def test_stepping_before_the_optimizer_warns() -> None:
    def program(T: Any) -> Any:
        optimizer = optimizer_of(T)
        scheduler = T.optim.lr_scheduler.StepLR(optimizer, 1)
        scheduler.step()
        optimizer.step()
        scheduler.step()
        return rates(scheduler)

    same(program, warns="before `optimizer.step", message="exact")


def test_replacing_step_warns() -> None:
    def program(T: Any) -> Any:
        optimizer = optimizer_of(T)
        scheduler = T.optim.lr_scheduler.StepLR(optimizer, 1)
        optimizer.step = lambda: None
        scheduler.step()

    same(program, warns="has been overridden", message="exact")


def test_get_lr_outside_step_warns() -> None:
    same(
        lambda T: T.optim.lr_scheduler.StepLR(optimizer_of(T), 3).get_lr(),
        warns="please use `get_last_lr",
        message="exact",
    )


def test_resuming_at_an_epoch() -> None:
    def program(T: Any) -> Any:
        optimizer = optimizer_of(T)
        for group in optimizer.param_groups:
            group["initial_lr"] = group["lr"] * 2
        S = T.optim.lr_scheduler
        seen = []
        for make in (
            lambda: S.CosineAnnealingLR(optimizer, 10, last_epoch=4),
            lambda: S.ExponentialLR(optimizer, 0.9, last_epoch=4),
            lambda: S.StepLR(optimizer, 5, last_epoch=4),
            lambda: S.LinearLR(optimizer, last_epoch=2),
            lambda: S.PolynomialLR(optimizer, 20, last_epoch=4),
        ):
            scheduler = make()
            optimizer.step()
            seen.append(rates(scheduler))
            scheduler.step()
            seen.append(rates(scheduler))
        return seen

    same(program, rtol=1e-13)


def test_a_tensor_as_learning_rate_keeps_its_identity() -> None:
    def program(T: Any) -> Any:
        lr = T.tensor(0.5)
        optimizer = T.optim.SGD([T.ones(2, requires_grad=True)], lr=lr)
        scheduler = T.optim.lr_scheduler.StepLR(optimizer, 1, gamma=0.5)
        optimizer.step()
        before = scheduler.get_last_lr()
        scheduler.step()
        last = scheduler.get_last_lr()[0]
        group = optimizer.param_groups[0]
        return lr, before, group["lr"] is lr, last is lr, scheduler.base_lrs

    same(program)


def test_a_schedule_written_by_the_user() -> None:
    def program(T: Any) -> Any:
        class InverseSquareRoot(T.optim.lr_scheduler.LRScheduler):  # type: ignore[name-defined,misc]
            def get_lr(self) -> Any:
                return [lr / (1 + self.last_epoch) ** 0.5 for lr in self.base_lrs]

        optimizer = optimizer_of(T)
        scheduler = InverseSquareRoot(optimizer)
        seen = []
        for _ in range(5):
            optimizer.step()
            scheduler.step()
            seen.append(rates(scheduler))
        return seen, sorted(scheduler.state_dict())

    same(program)


def test_momentum_schedule_moves_the_parameters() -> None:
    def program(T: Any) -> Any:
        p = T.tensor([1.0, -2.0, 3.0], requires_grad=True)
        optimizer = T.optim.Adam([p], lr=0.1)
        scheduler = T.optim.lr_scheduler.OneCycleLR(optimizer, 0.1, total_steps=30)
        for _ in range(30):
            p.grad = p.detach() * 2
            optimizer.step()
            scheduler.step()
        return p.detach()

    same(program, rtol=1e-5)
