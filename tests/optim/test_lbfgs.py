"""L-BFGS takes PyTorch's steps."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

import gradlite
import gradlite.optim
from tests.optim.table import product, torch
from tests.oracle import same


def rosenbrock(T: Any, x: Any, y: Any) -> Any:
    return ((1 - x) ** 2).sum() + 10 * ((y - x * x) ** 2).sum()


def quadratic(T: Any, x: Any, y: Any) -> Any:
    scale = T.tensor([1.0, 4.0, 9.0], dtype=T.float64)
    return (scale * x * x).sum() + ((y - 1) ** 2).sum()


def wavy(T: Any, x: Any, y: Any) -> Any:
    return (x**2 + 0.5 * (3 * x).sin()).sum() + (y**4 - y**2).sum()


FUNCTIONS = {f.__name__: f for f in (rosenbrock, quadratic, wavy)}


def begin(T: Any, dtype: str = "float64") -> tuple[Any, Any]:
    kind = getattr(T, dtype)
    x = T.tensor([-1.0, 0.5, 2.0], dtype=kind, requires_grad=True)
    y = T.tensor([2.0, -0.25, 1.5], dtype=kind, requires_grad=True)
    return x, y


def run(T: Any, optimizer: Any, function: Any, x: Any, y: Any, steps: int) -> Any:
    calls: list[float] = []

    def closure() -> Any:
        optimizer.zero_grad()
        loss = function(T, x, y)
        loss.backward()
        calls.append(loss.item())
        return loss

    seen = []
    for _ in range(steps):
        loss = optimizer.step(closure)
        seen.append([loss.item(), x.detach().clone(), y.detach().clone()])
    return calls, seen


@pytest.mark.parametrize(
    "options",
    [
        *product(lr=(0.5, 1), max_iter=(1, 4), history_size=(2, 100)),
        *product(line_search_fn=("strong_wolfe",), max_iter=(1, 5), history_size=(1, 10)),
        {"line_search_fn": "strong_wolfe", "lr": 50.0},
        {"line_search_fn": "strong_wolfe", "lr": 1e-4, "max_eval": 6},
        {"line_search_fn": "strong_wolfe", "max_iter": 50, "tolerance_grad": 1e-2},
        {"lr": 0.1, "max_iter": 50, "tolerance_change": 1e-2},
    ],
)
@pytest.mark.parametrize("function", FUNCTIONS)
def test_steps(function: str, options: dict[str, Any]) -> None:
    def program(T: Any) -> Any:
        x, y = begin(T)
        optimizer = T.optim.LBFGS([x, y], **options)
        result = run(T, optimizer, FUNCTIONS[function], x, y, 5)
        state = optimizer.state[x]
        return result, sorted(state), state["n_iter"], state["func_evals"]

    same(program, rtol=1e-6, atol=1e-7)


def test_state_dict_round_trip_and_pytorchs() -> None:
    options: dict[str, Any] = {"line_search_fn": "strong_wolfe", "max_iter": 3}
    expected = begin(torch)
    reference = torch.optim.LBFGS(expected, **options)
    run(torch, reference, rosenbrock, *expected, 2)
    actual = begin(gradlite)
    with gradlite.no_grad():
        for q, p in zip(actual, expected):
            q.copy_(gradlite.from_numpy(p.detach().numpy()))
    optimizer = gradlite.optim.LBFGS(actual, **options)
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    _, one = run(torch, reference, rosenbrock, *expected, 2)
    _, other = run(gradlite, optimizer, rosenbrock, *actual, 2)
    assert [s[0] for s in other] == pytest.approx([s[0] for s in one], rel=1e-6)
    assert repr(optimizer) == repr(reference)
    again = gradlite.optim.LBFGS(actual)
    again.load_state_dict(optimizer.state_dict())
    assert again.state_dict()["state"][0]["n_iter"] == optimizer.state[actual[0]]["n_iter"]


def test_without_progress_or_gradient() -> None:
    def program(T: Any) -> Any:
        x, y = T.zeros(3, requires_grad=True), T.ones(2, requires_grad=True)
        optimizer = T.optim.LBFGS([x, y])
        seen = run(T, optimizer, lambda T, x, y: (x * x).sum(), x, y, 2)
        return seen, dict(optimizer.state[x])

    same(program)


def test_single_precision_converges() -> None:
    x, y = begin(gradlite, "float32")
    optimizer = gradlite.optim.LBFGS([x, y], line_search_fn="strong_wolfe")
    run(gradlite, optimizer, rosenbrock, x, y, 5)
    np.testing.assert_allclose(x.tolist() + y.tolist(), np.ones(6), rtol=1e-3)


@pytest.mark.parametrize("at", [1, 2, 4])
@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_a_closure_that_raises_changes_nothing(search: str | None, at: int) -> None:
    x, y = begin(gradlite)
    optimizer = gradlite.optim.LBFGS([x, y], lr=0.01, line_search_fn=search)
    calls = 0

    def closure() -> Any:
        nonlocal calls
        calls += 1
        if calls == at:
            raise KeyError("in the closure")
        optimizer.zero_grad()
        loss = rosenbrock(gradlite, x, y)
        loss.backward()
        return loss

    before = [x.tolist(), y.tolist()]
    with pytest.raises(KeyError):
        optimizer.step(closure)
    assert [x.tolist(), y.tolist()] == before
    assert "old_dirs" not in optimizer.state[x]


BAD: dict[str, Any] = {
    "groups": lambda T: T.optim.LBFGS([{"params": [T.ones(1)]}, {"params": [T.ones(1)]}]),
    "lr": lambda T: T.optim.LBFGS([T.ones(1)], lr=-1),
    "no closure": lambda T: T.optim.LBFGS([T.ones(1)]).step(),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_arguments(case: str) -> None:
    same(BAD[case], raises=(ValueError, TypeError), message="type")


def test_unknown_line_search() -> None:
    def program(T: Any) -> Any:
        x, y = begin(T)
        optimizer = T.optim.LBFGS([x, y], line_search_fn="golden")
        run(T, optimizer, rosenbrock, x, y, 1)

    same(program, raises=RuntimeError, match="only 'strong_wolfe'", message="exact")


@pytest.mark.parametrize("search", [None, "strong_wolfe"])
def test_what_a_closure_does_to_the_parameters_itself_stays(search: str | None) -> None:
    """As a projection of them does: the next step starts from there, but for line searches."""

    def projected(T: Any, x: Any, y: Any) -> Any:
        with T.no_grad():
            x.clamp_(-1.25, 1.25)
            y.mul_(0.99)
        return rosenbrock(T, x, y)

    found = []
    for T in (torch, gradlite):
        x, y = begin(T)
        optimizer = T.optim.LBFGS([x, y], lr=0.5, max_iter=6, line_search_fn=search)
        calls, seen = run(T, optimizer, projected, x, y, 3)
        values = [*calls, *(v for _, *tensors in seen for t in tensors for v in t.tolist())]
        found.append(values)
    np.testing.assert_allclose(found[1], found[0], 1e-9)
