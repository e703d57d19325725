"""Captured steps with results as large as values say, and with whole numbers that Python reads."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing.recorder import Recorder
from gradlite.nn import functional as F
from tests.capture_support import replays  # noqa: F401

T = gradlite
CALLS = 14
STEPS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "mask": lambda out, y, m: F.cross_entropy(out[m], y[m]),
    "mask of all": lambda out, y, m: out[m[:, None] & (out.detach() > -9)].square().sum(),
    "mask and number": lambda out, y, m: out[m, 1].sum() ** 2 + out[m][:, 0].exp().sum(),
    "two masks of one": lambda out, y, m: out[m].sum() ** 2 + out[~m].square().sum(),
    "masked_select": lambda out, y, m: T.masked_select(out, m[:, None]).square().sum(),
    "nonzero": lambda out, y, m: F.cross_entropy(out[(i := m.nonzero().squeeze(1))], y[i]),
    "where": lambda out, y, m: out[T.where(m)].square().sum(),
    "argwhere": lambda out, y, m: out.take(T.argwhere(m)).square().sum(),
    "written": lambda out, y, m: _written(out, m).square().sum(),
    "int()": lambda out, y, m: out[: int(m.sum())].square().sum(),
    "item()": lambda out, y, m: out[: m.sum().item()].sum() / float(m.sum() + 1),
    "range of a tensor": lambda out, y, m: sum(out[i].square().sum() for i in range(m.sum())),
    "tolist()": lambda out, y, m: out.split([n := m.sum().tolist(), 10 - n])[0].square().sum(),
}
LENGTHS: dict[str, Callable[[Any, Any, Any], Any]] = {
    "arange": lambda out, y, m: out[T.arange(m.sum())].square().sum(),
    "linspace": lambda out, y, m: (out * T.linspace(0, m.sum(), 3)).square().sum(),
    "full": lambda out, y, m: (out * T.full((3,), m.sum())).square().sum(),
    "tril_indices": lambda out, y, m: out.view(6, 5)[(*T.tril_indices(m.sum() % 7, 5),)].sum() ** 2,
    "narrow": lambda out, y, m: out.narrow(0, -(m.sum() % 8) - 2, 2).square().sum(),
}
STEPS |= LENGTHS
# On a GPU there is no replay of these.
OF_THE_CPU: dict[str, Callable[[Any, Any, Any], Any]] = {
    "unique": lambda out, y, m: (out.sum(1) * _counts(y * m)).square().sum(),
    "one_hot": lambda out, y, m: (out[:, : int((y * m).max()) + 1] * F.one_hot(y * m)).sum() ** 2,
    "packed": lambda out, y, m: _packed(out, m).square().sum(),
    "repeat_interleave": lambda out, y, m: out.repeat_interleave(m.long() + 1, 0).square().sum(),
}


def _written(out: Any, mask: Any) -> Any:
    result = out.clone()
    result[mask] = out[mask].tanh()
    return result


def _counts(values: Any) -> Any:
    _, inverse, counts = T.unique(values, return_inverse=True, return_counts=True)
    return counts[inverse]


def _packed(out: Any, mask: Any) -> Any:
    lengths = T.stack([mask.sum() + 1, T.ones((), dtype=T.int64)]).cpu()
    return nn.utils.rnn.pack_padded_sequence(out.view(2, 5, 3), lengths, batch_first=True).data


def train(masks: list[Any], loss_of: Any, captures: bool) -> tuple[list[float], list[Any], Any]:
    """Losses and parameters of a small model, and its captured step."""
    gradlite.manual_seed(0)
    model = nn.Linear(4, 3)
    optimizer = optim.SGD(model.parameters(), lr=0.02, momentum=0.9)
    x, y = gradlite.randn(10, 4), gradlite.randint(0, 3, (10,))

    def step(mask: Any) -> Any:
        optimizer.zero_grad()
        loss = loss_of(model(x), y, mask)
        loss.backward()
        optimizer.step()
        return loss

    run = gradlite.capture(step) if captures else step
    losses = [run(gradlite.tensor(mask)).item() for mask in masks]
    return losses, [p.detach().cpu().numpy() for p in model.parameters()], run


def masks_of(*counts: int) -> list[Any]:
    """Masks that are true in so many of ten places, another one every time."""
    rng = np.random.default_rng(0)
    return [rng.permutation(np.arange(10) < count) for count in counts]


def compare(masks: list[Any], loss_of: Any) -> Any:
    losses, parameters, _ = train(masks, loss_of, False)
    ours, values, captured = train(masks, loss_of, True)
    np.testing.assert_allclose(ours, losses, rtol=2e-5, atol=1e-6)
    for a, b in zip(values, parameters, strict=True):
        np.testing.assert_allclose(a, b, rtol=2e-5, atol=2e-6)
    return captured


def steps(replays: str) -> dict[str, Any]:  # noqa: F811
    return STEPS if replays in ("stand-in", "gpu") else {**STEPS, **OF_THE_CPU}


@pytest.mark.parametrize("name", [*STEPS, *OF_THE_CPU])
def test_other_values_of_one_size_are_replayed(name: str, replays: str) -> None:  # noqa: F811
    if name not in steps(replays):
        pytest.skip("a GPU's graphs cannot hold it")
    captured = compare(masks_of(*[4] * CALLS), steps(replays)[name])
    if name not in ("unique", "one_hot"):  # whose sizes differ all the same
        assert (captured.recordings, captured.replays) == (1, CALLS - 3)


@pytest.mark.parametrize("name", [*STEPS, *OF_THE_CPU])
def test_each_size_has_a_recording_of_its_own(name: str, replays: str) -> None:  # noqa: F811
    if name not in steps(replays):
        pytest.skip("a GPU's graphs cannot hold it")
    captured = compare(masks_of(*[4, 3] * (CALLS // 2)), steps(replays)[name])
    assert captured.recordings >= 2 and captured.replays >= 2


@pytest.mark.parametrize("name", ["mask", "mask of all", "nonzero", "where", "written", "int()"])
def test_none_at_all_is_a_size_too(name: str, replays: str) -> None:  # noqa: F811
    def loss_of(out: Any, y: Any, mask: Any) -> Any:
        return STEPS[name](out, y, mask).nan_to_num() + out.square().mean()

    captured = compare(masks_of(*[0, 4] * 6), loss_of)
    assert captured.recordings == 2 and captured.replays >= 6


@pytest.mark.parametrize("name", STEPS)
def test_sizes_that_are_seen_for_the_first_time_run_as_they_are(name: str) -> None:
    counts = [4, 4, 4, 4, 2, 5, 6, 7, 8, 3, 1, 9, 2, 6, 4, 5, 7, 3, 8, 1, 4, 4]
    captured = compare(masks_of(*counts), STEPS[name])
    assert captured.replays >= 4


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("mask", "boolean mask gives a result whose size depends on values"),
        ("nonzero", r"nonzero\(\) gives a result whose size depends on values"),
        ("int()", r"int\(\) reads a tensor's value"),
        ("tolist()", r"tolist\(\) reads a tensor's value"),
    ],
)
def test_another_size_at_every_call_is_refused(name: str, message: str) -> None:
    with pytest.raises(gradlite.CaptureError, match=message):
        train(masks_of(*range(11)), STEPS[name], True)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64", "uint8", "int32", "bool"])
def test_places_of_any_dtype(dtype: str) -> None:
    captured = gradlite.capture(lambda x: x.nonzero())
    rng = np.random.default_rng(0)
    for _ in range(6):
        values = rng.permutation(np.arange(12) < 5).reshape(3, 4)
        x = gradlite.tensor(values).to(getattr(gradlite, dtype))
        np.testing.assert_array_equal(captured(x).cpu().numpy(), np.argwhere(values))
    assert captured.replays == 3


def test_a_mask_without_elements_holds_nowhere() -> None:
    def step(x: Any) -> Any:
        return x[x > 0].sum(), (x > 0).nonzero(), T.masked_select(x, x > 0)

    captured = gradlite.capture(step)
    for _ in range(4):
        total, places, chosen = captured(gradlite.ones(0, 3))
        assert (total.item(), places.shape, chosen.shape) == (0, (0, 2), (0,))
    assert captured.replays == 1


def test_a_mask_around_the_step_may_be_written_to() -> None:
    x, mask = gradlite.arange(6.0), gradlite.tensor([True, False, True, False, False, False])
    captured = gradlite.capture(lambda: x[mask] * 2)
    for _ in range(4):
        assert captured().tolist() == [0, 4]
    mask[:2] = ~mask[:2]
    assert captured().tolist() == [2, 4]
    assert captured.replays == 2
    mask[5] = True
    for _ in range(4):
        assert captured().tolist() == [2, 4, 10]
    assert captured.recordings == 2


def test_a_mask_that_the_step_writes_to_is_looked_up_anew() -> None:
    def step(x: Any) -> Any:
        mask = x > 2
        first = x[mask].sum()
        mask[0] = True
        return first, x[mask] * 2

    captured = gradlite.capture(step)
    for _ in range(5):
        first, second = captured(gradlite.arange(5.0))
        assert (first.item(), second.tolist()) == (7, [0, 6, 8])


def test_a_number_that_changes_is_seen() -> None:
    size = gradlite.tensor(2)
    captured = gradlite.capture(lambda x: x[: int(size)] * 2)
    x = gradlite.arange(4.0)
    for n in (2, 2, 2, 2, 3, 3, 3, 3, 2, 3):
        size.fill_(n)
        assert captured(x).tolist() == [0, 2, 4][:n]
    assert (captured.recordings, captured.replays) == (2, 5)


def test_running_averages_stay_as_they_were_where_a_size_behind_them_is_another(
    replays: str,  # noqa: F811
) -> None:
    """A kernel of batch norm makes them beside its result, which decides the size."""
    norms = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    optimizers = [optim.SGD(norm.parameters(), lr=0.01) for norm in norms]

    def step_of(norm: Any, optimizer: Any) -> Callable[[Any, Any], Any]:
        def step(x: Any, least: Any) -> Any:
            y = norm(x)
            loss = y[y.detach() > least].square().sum() / 1e4
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            return loss

        return step

    steps = [step_of(*pair) for pair in zip(norms, optimizers)]
    captured = gradlite.capture(steps[0])
    x = gradlite.randint(-2, 3, (4, 8, 32, 32)).float()
    for least in [0.3] * 5 + [9.0, 1.1, 1.1] + [0.3, 1.1, 9.0]:
        ours, theirs = (run(x, T.tensor(least)) for run in (captured, steps[1]))
        np.testing.assert_allclose(ours.item(), theirs.item(), rtol=1e-4)
        for a, b in zip(norms[0].state_dict().values(), norms[1].state_dict().values()):
            np.testing.assert_allclose(a.cpu().numpy(), b.cpu().numpy(), 1e-4, 1e-6)
    assert captured.replays >= 3


def test_a_number_that_the_step_itself_changes_is_refused() -> None:
    count = gradlite.tensor(0)

    def step(x: Any) -> Any:
        count.add_(1)
        return x * int(count)

    captured = gradlite.capture(step)
    with pytest.raises(gradlite.CaptureError, match="itself changed|reads a tensor's value"):
        for _ in range(8):
            captured(gradlite.ones(2))


# ------------------------------------------------------------------------------- programs
def graph_network(make: Callable[[Any], Any]) -> list[Any]:
    """A graph network that is trained where a mask of its data holds."""
    x, edges = gradlite.randn(20, 4), (gradlite.rand(20, 20) < 0.2).float()
    data = SimpleNamespace(y=gradlite.randint(0, 3, (20,)), train_mask=gradlite.rand(20) < 0.5)
    first, second = nn.Linear(4, 8), nn.Linear(8, 3)
    optimizer = optim.Adam([*first.parameters(), *second.parameters()], lr=0.01)

    def step() -> Any:
        optimizer.zero_grad()
        hidden = F.dropout(F.relu(edges @ first(x)), 0.2)
        out = F.log_softmax(edges @ second(hidden), 1)
        loss = F.nll_loss(out[data.train_mask], data.y[data.train_mask])
        loss.backward()
        optimizer.step()
        return loss

    run = make(step)
    return [run().item() for _ in range(10)]


def q_learning(make: Callable[[Any], Any]) -> list[Any]:
    """Deep Q-learning as it is taught: the next states are those that are not final."""
    policy, target = nn.Linear(4, 2), nn.Linear(4, 2)
    optimizer = optim.AdamW(policy.parameters(), lr=0.01)
    finals = np.random.default_rng(0).random((24, 12)) < 0.1

    def step(state: Any, action: Any, reward: Any, goes_on: Any, following: Any) -> Any:
        values = policy(state).gather(1, action)
        next_values = gradlite.zeros(12)
        with gradlite.no_grad():
            next_values[goes_on] = target(following).max(1).values
        loss = F.smooth_l1_loss(values, (next_values * 0.9 + reward).unsqueeze(1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        return loss

    run, losses = make(step), []
    for final in finals:
        state, action = gradlite.randn(12, 4), gradlite.randint(0, 2, (12, 1))
        goes_on = gradlite.tensor(~final)
        following = gradlite.randn(12, 4)[goes_on]
        losses.append(run(state, action, gradlite.randn(12), goes_on, following).item())
    return losses


@pytest.mark.parametrize("program", [graph_network, q_learning])
def test_programs_with_masks(program: Any) -> None:
    gradlite.manual_seed(0)
    expected = program(lambda step: step)
    captured = []

    def make(step: Any) -> Any:
        captured.append(gradlite.capture(step))
        return captured[0]

    gradlite.manual_seed(0)
    np.testing.assert_allclose(program(make), expected, rtol=2e-5, atol=1e-6)
    assert captured[0].replays >= 7


@pytest.mark.parametrize("name", ["mask", "nonzero", "int()"])
def test_sizes_and_numbers_that_nobody_compares_are_found(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    guard = Recorder.guard

    def of_branches(self: Recorder, array: Any, value: bool, detail: Any = None) -> None:
        if detail is None:
            guard(self, array, value)

    monkeypatch.setattr(Recorder, "guard", of_branches)
    with pytest.raises(AssertionError):
        compare(masks_of(4, 4, 4, 3, 5, 4), STEPS[name])
