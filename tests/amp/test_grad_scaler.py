"""GradScaler does what PyTorch's does."""

from __future__ import annotations

import math
import pickle
from typing import Any

import pytest

import gradlite.amp
import gradlite.optim  # noqa: F401
from tests.oracle import outcome_of, same


def begin(T: Any, **options: Any) -> tuple[Any, Any, Any]:
    p = T.tensor([1.0, -2.0], requires_grad=True)
    optimizer = T.optim.SGD([p, T.ones(1, requires_grad=True)], lr=0.25, momentum=0.5)
    return p, optimizer, T.amp.GradScaler("cpu", **options)


def iteration(T: Any, p: Any, optimizer: Any, scaler: Any, factor: float = 1.0) -> Any:
    optimizer.zero_grad()
    scaler.scale((p * p * factor).sum()).backward()
    result = scaler.step(optimizer)
    scaler.update()
    state = scaler.state_dict()
    return result, p.detach().clone(), scaler.get_scale(), state


@pytest.mark.parametrize("bad", [math.inf, math.nan, -math.inf])
def test_scale_grows_and_backs_off(bad: float) -> None:
    def program(T: Any) -> Any:
        p, optimizer, scaler = begin(
            T, init_scale=8.0, growth_interval=3, growth_factor=4.0, backoff_factor=0.25
        )
        seen = [iteration(T, p, optimizer, scaler, f) for f in (1, 1, 1, bad, 1, bad, bad, 1, 1, 1)]
        return seen, optimizer.state[p]["momentum_buffer"]

    same(program)


def test_scale_stays_finite() -> None:
    def program(T: Any) -> Any:
        p, optimizer, scaler = begin(T, init_scale=2.0**126, growth_interval=1)
        p.data = p.data * 1e-10
        return [iteration(T, p, optimizer, scaler)[2] for _ in range(4)]

    same(program)


def test_gradients_near_the_largest_number_are_finite() -> None:
    def program(T: Any) -> Any:
        p, optimizer, scaler = begin(T, init_scale=4.0)
        scaler.scale(p.sum())
        p.grad = T.tensor([3e38, 3e38])
        scaler.unscale_(optimizer)
        return scaler.step(optimizer), p.grad, p.detach()

    same(program)


def test_unscale_then_clip() -> None:
    def program(T: Any) -> Any:
        p, optimizer, scaler = begin(T)
        scaler.scale((p * p).sum()).backward()
        scaled = p.grad.clone()
        scaler.unscale_(optimizer)
        T.nn.utils.clip_grad.clip_grad_norm_([p], 0.5)
        scaler.step(optimizer)
        scaler.update()
        return scaled, p.grad, p.detach()

    import gradlite.nn.utils.clip_grad  # noqa: F401

    same(program)


def test_two_optimizers_and_containers() -> None:
    def program(T: Any) -> Any:
        p, first, scaler = begin(T, growth_interval=1)
        q = T.tensor([3.0], requires_grad=True)
        second = T.optim.Adam([q])
        losses = scaler.scale([(p * p).sum(), ((q * q).sum(), (q * p.detach()).sum())])
        for loss in (losses[0], *losses[1]):
            loss.backward()
        q.grad[0] = math.nan
        results = [scaler.step(first), scaler.step(second)]
        scaler.update()
        lazy = list(scaler.scale(x for x in (T.ones(1), T.ones(2))))
        return results, p.detach(), q.detach(), scaler.get_scale(), lazy, type(losses).__name__

    same(program)


def test_set_scale_and_settings() -> None:
    def program(T: Any) -> Any:
        p, optimizer, scaler = begin(T)
        iteration(T, p, optimizer, scaler)
        scaler.update(32.0)
        seen = [scaler.get_scale()]
        scaler.update(T.tensor(64.0))
        seen.append(scaler.get_scale())
        scaler.set_growth_factor(3.0)
        scaler.set_backoff_factor(0.1)
        scaler.set_growth_interval(1)
        seen += [scaler.get_growth_factor(), scaler.get_backoff_factor()]
        seen += [scaler.get_growth_interval(), scaler.is_enabled()]
        return seen, iteration(T, p, optimizer, scaler)

    same(program)


def test_state_dict_and_pickle_in_the_middle() -> None:
    def program(T: Any) -> Any:
        p, optimizer, scaler = begin(T, growth_interval=3)
        for _ in range(2):
            iteration(T, p, optimizer, scaler)
        loaded = T.amp.GradScaler("cpu")
        loaded.load_state_dict(scaler.state_dict())
        unpickled = pickle.loads(pickle.dumps(scaler))
        started = T.amp.GradScaler("cpu")
        started.scale(T.ones(1))
        started.load_state_dict(scaler.state_dict())
        return [iteration(T, p, optimizer, s) for s in (loaded, unpickled, started)]

    same(program)


def test_disabled() -> None:
    def program(T: Any) -> Any:
        p, optimizer, _ = begin(T)
        scaler = T.amp.GradScaler("cpu", enabled=False)
        result = iteration(T, p, optimizer, scaler, math.inf)
        scaler.unscale_(optimizer)
        scaler.load_state_dict({})
        return result, scaler.is_enabled(), scaler._get_growth_tracker()

    same(program)


def test_without_cuda_it_disables_itself() -> None:
    same(lambda T: T.amp.GradScaler().is_enabled(), warns="CUDA is not available", message="type")


MISUSE: dict[str, Any] = {
    "growth factor": lambda T, p, o, s: T.amp.GradScaler("cpu", growth_factor=1.0),
    "backoff factor": lambda T, p, o, s: T.amp.GradScaler("cpu", backoff_factor=1.0),
    "step before scale": lambda T, p, o, s: s.step(o),
    "unscale before scale": lambda T, p, o, s: s.unscale_(o),
    "update before scale": lambda T, p, o, s: s.update(),
    "update before step": lambda T, p, o, s: [s.scale(p), s.update()],
    "no gradients": lambda T, p, o, s: [s.scale(p), s.step(o)],
    "closure": lambda T, p, o, s: [s.scale(p), s.step(o, closure=lambda: None)],
    "scale a number": lambda T, p, o, s: s.scale(3),
    "empty state": lambda T, p, o, s: s.load_state_dict({}),
    "scale that requires grad": lambda T, p, o, s: [s.scale(p), s.update(p)],
}


@pytest.mark.parametrize("case", MISUSE)
def test_misuse(case: str) -> None:
    same(
        lambda T: MISUSE[case](T, *begin(T)),
        raises=(AssertionError, RuntimeError, ValueError),
    )


def test_order_of_calls_in_an_iteration() -> None:
    def program(T: Any) -> Any:
        p, optimizer, scaler = begin(T)
        scaler.scale(p.sum()).backward()
        scaler.unscale_(optimizer)
        seen = [outcome_of(lambda: scaler.unscale_(optimizer))]
        seen.append(outcome_of(lambda: pickle.dumps(scaler)))
        scaler.step(optimizer)
        seen.append(outcome_of(lambda: scaler.step(optimizer)))
        seen.append(outcome_of(lambda: scaler.unscale_(optimizer)))
        return seen

    same(program)


def test_half_precision_gradients_are_refused() -> None:
    def program(T: Any) -> Any:
        p = T.ones(2, dtype=T.float16, requires_grad=True)
        optimizer, scaler = T.optim.SGD([p]), T.amp.GradScaler("cpu")
        scaler.scale(p)
        p.grad = T.ones(2, dtype=T.float16)
        scaler.unscale_(optimizer)

    same(program, raises=ValueError, match="FP16", message="exact")


def test_an_optimizer_that_unscales_by_itself() -> None:
    def program(T: Any) -> Any:
        seen: list[Any] = []

        class Own(T.optim.SGD):  # type: ignore[name-defined,misc]
            _step_supports_amp_scaling = True

            def step(self, closure: Any = None) -> str:
                seen.append([self.grad_scale, self.found_inf.item()])
                return "stepped"

        p = T.ones(2, requires_grad=True)
        optimizer = Own([p])
        scaler = T.amp.GradScaler("cpu", init_scale=8.0)
        for value in (1.0, math.inf):
            p.grad = T.tensor([1.0, value])
            scaler.scale(p)
            seen.append(scaler.step(optimizer))
            scaler.update()
            seen.append([p.grad, hasattr(optimizer, "grad_scale"), scaler.get_scale()])
        return seen

    same(program)
