"""The order of a captured step's calls, and where their arrays lie: less memory, the same bits."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing import plan as plans
from gradlite.capturing.calls import MADE, Buffer, Call, Guard, HostCall, Ref, refs_of
from gradlite.capturing.native.build import available
from gradlite.capturing.order import _Order, ordered
from gradlite.capturing.packing import packed

compiled = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")
KIB = 1 << 10


# ------------------------------------------------------------------------------- packing
def test_nothing_lies_where_something_else_is_at_the_same_time() -> None:
    numbers = random.Random(0)
    for _ in range(60):
        pieces = {}
        for key in range(numbers.randrange(1, 40)):
            first = numbers.randrange(30)
            spans = [(first, first + numbers.randrange(12))]
            if numbers.random() < 0.2:
                spans.insert(0, (-1, numbers.randrange(-1, first + 1)))
            pieces[key] = numbers.choice([64, 128, 640, 4096, 8192]), spans
        places, total = packed(pieces)
        assert places.keys() == pieces.keys()
        for time in range(-1, 45):
            there = sorted(
                (places[key], places[key] + size)
                for key, (size, spans) in pieces.items()
                if any(first <= time <= last for first, last in spans)
            )
            assert all(stop <= start for (_, stop), (start, _) in zip(there, there[1:]))
            assert sum(stop - start for start, stop in there) <= total
            assert all(stop <= total for _, stop in there)


def test_another_order_of_the_pieces_is_tried_where_the_first_leaves_holes() -> None:
    # Largest first, the two that are there all the time end up with a hole between them.
    pieces = {"a": (4, [(0, 0)]), "b": (3, [(0, 1)]), "c": (2, [(1, 3)]), "d": (5, [(2, 3)])}
    assert packed(pieces)[1] == 7


def test_nothing_to_pack_takes_nothing() -> None:
    assert packed({}) == ({}, 0)


# --------------------------------------------------------------------------------- order
class Program:
    """Calls by what they read and write; every buffer has as many bytes as its name says."""

    def __init__(self) -> None:
        self.buffers: dict[str, Buffer] = {}
        self.calls: list[Call | HostCall | Guard] = []

    def ref(self, name: str) -> Ref:
        """The array of a name such as ``a100``."""
        size = int(name[1:])
        buffer = self.buffers.setdefault(name, Buffer(None, 0, size, MADE))
        return Ref(buffer, 0, (size,), (1,), np.dtype(np.int8))

    def call(self, out: str, *operands: str, function: Any = np.add) -> None:
        """``out = function(operands)``."""
        self.calls.append(Call(function, tuple(map(self.ref, operands)), {}, (self.ref(out),)))

    def order(self, *pinned: str) -> list[str]:
        """The results in their new order."""
        kept = {self.buffers[name] for name in pinned}
        names = {id(buffer): name for name, buffer in self.buffers.items()}
        found = ordered(self.calls, kept, refs_of)
        assert sorted(map(id, found)) == sorted(map(id, self.calls))
        return [
            names[id(c.outs[0].buffer)] if isinstance(c, Call) else type(c).__name__ for c in found
        ]


def linear_backward(between: Callable[[Program], None] = lambda p: None) -> Program:
    """A layer's gradients, that of its input first."""
    program = Program()
    program.call("x100")
    program.call("g90", "x100")
    program.call("i100", "g90", function=np.dot)
    between(program)
    program.call("w10", "g90", "x100", function=np.dot)
    program.call("e100", "i100")
    return program


def test_what_frees_more_than_it_makes_goes_first() -> None:
    assert linear_backward().order("w10") == ["x100", "g90", "w10", "i100", "e100"]


def test_after_every_move_the_bytes_in_use_are_those_of_the_new_order() -> None:
    numbers, moves = random.Random(1), 0
    for _ in range(200):
        program = Program()
        names = [f"{letter}{numbers.choice((1, 10, 90, 100))}" for letter in "abcdefghijkl"]
        for i, name in enumerate(names):
            program.call(name, *numbers.sample(names[:i], min(i, numbers.randrange(3))))
        for _ in range(12):
            program.call(*numbers.sample(names, 3))
        loops = {id(call): numbers.choice((None, None, "p", "q")) for call in program.calls}
        if numbers.random() < 0.5:
            loops = {id(call): "pq"[i // 9 % 2] for i, call in enumerate(program.calls)}
        pinned = {program.buffers[name] for name in numbers.sample(names, 2)}

        def count(calls: list[Any], pinned: Any = pinned, loops: Any = loops) -> _Order:
            return _Order(calls, pinned, refs_of, lambda c: loops[id(c)])

        order = count(program.calls)
        while order.improve():
            moves += 1
            assert order.used.tolist() == count(order.calls).used.tolist()
    assert moves > 100


def test_a_chain_of_calls_moves_as_one() -> None:
    program = Program()
    program.call("x100")
    program.call("c100", "x100")
    program.call("y9", "x100", "c100")
    program.call("g100", "y9")
    program.call("s100", "x100")  # the highest point: x, c, g and s
    program.call("s100", "s100", "c100")
    program.call("z100", "s100", "g100")
    assert program.order()[:4] == ["x100", "c100", "s100", "s100"]


def test_calls_stay_behind_what_they_read_and_what_reads_the_old_value() -> None:
    def read(program: Program) -> None:
        program.call("r1", "w10")  # the value from before

    def write(program: Program) -> None:
        program.call("x100", "x100", "i100")

    def ask(program: Program) -> None:
        program.calls.append(HostCall(lambda: None))

    def branch(program: Program) -> None:
        program.calls.append(Guard(program.ref("g90"), True))

    for between in (read, write, ask):
        program = linear_backward(between)
        before = [id(call) for call in program.calls]
        program.order("w10")
        found = ordered(program.calls, {program.buffers["w10"]}, refs_of)
        places = [before.index(id(call)) for call in found]
        assert places.index(3) < places.index(4)
    # What a failed check leaves as it was is not written before it; unless it is dropped anyway.
    assert linear_backward(branch).order("w10").index("Guard") < 4
    program = linear_backward(branch)
    assert program.order("w10").index("w10") > program.order("w10").index("Guard")
    program = linear_backward(branch)
    program.calls[3].keeps = False  # type: ignore[union-attr]
    assert program.order("w10").index("w10") < program.order("w10").index("Guard")


def test_what_writes_outside_does_not_move() -> None:
    program = linear_backward()
    program.buffers["w10"].kind = "state"
    assert program.order() == ["x100", "g90", "i100", "w10", "e100"]


# -------------------------------------------------------------------------- whole steps
def training(native: bool) -> tuple[nn.Module, Any]:
    """Layers of GELU and normalisation, whose gradients leave much to choose."""
    gradlite.manual_seed(0)
    layers = [
        m
        for _ in range(3)
        for m in (nn.Linear(32, 64), nn.GELU(), nn.Linear(64, 32), nn.LayerNorm(32))
    ]
    model = nn.Sequential(*layers)
    optimizer = optim.AdamW(model.parameters(), lr=0.01)

    def step(x: Any) -> Any:
        optimizer.zero_grad()
        loss = (x + model(x)).square().mean()
        loss.backward()
        optimizer.step()
        return loss

    return model, gradlite.capture(step, native=native)


@pytest.mark.parametrize("native", [False, pytest.param(True, marks=compiled)])
def test_another_order_gives_the_same_bits_in_less_memory(
    native: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x = gradlite.randn(128, 32)
    losses, weights, memory = [], [], []
    for moves in (True, False):
        if not moves:
            monkeypatch.setattr(plans, "ordered", lambda calls, *rest: calls)
        model, step = training(native)
        losses.append([step(x).item() for _ in range(8)])
        weights.append([p.detach().numpy().copy() for p in model.parameters()])
        (recording,) = [r for kept in step._kept.values() for r in kept]
        memory.append(recording.plan.arena.nbytes)
    assert losses[0] == losses[1]
    for ours, theirs in zip(*weights, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    # A kernel's gradient of GELU reads two arrays and makes a third, whatever the order.
    assert memory[0] <= memory[1] - (32 * KIB if native else 0)


@compiled
def test_what_one_loop_makes_and_reads_has_no_memory() -> None:
    def chain(x: Any) -> Any:
        y = x
        for _ in range(6):
            y = (y * 1.5 + x).tanh()
            y = y * y.exp() + (y - x).sigmoid()
        return y

    x = gradlite.rand(64, 64)
    step = gradlite.capture(chain)
    for _ in range(5):
        found = step(x)
    np.testing.assert_allclose(found.numpy(), chain(x).numpy(), 1e-5, 1e-5)
    (recording,) = [r for kept in step._kept.values() for r in kept]
    assert recording.plan.arena.nbytes < 17 * KIB  # the result's


def test_gradients_that_a_step_reads_before_it_drops_them_outlive_a_failed_check() -> None:
    w = gradlite.ones(256, requires_grad=True)

    def step(x: Any) -> Any:
        y = (x * w).exp()
        if y.sum() > 1e3:
            return w.grad * 1
        w.grad = None
        y.sum().backward()
        if y.sum() < 1:
            return y
        return y

    captured = gradlite.capture(step, native=False)
    for value in range(5):
        captured(gradlite.full((256,), 0.1 * value))
    assert captured.replays == 2
    (recording,) = [r for kept in captured._kept.values() for r in kept]
    gradient = w.grad.numpy().copy()
    np.testing.assert_array_equal(captured(gradlite.full((256,), 9.0)).numpy(), gradient)
    assert recording.replays == 2


# ------------------------------------------------------------------------------- inputs
@pytest.mark.parametrize("native", [False, pytest.param(True, marks=compiled)])
def test_a_part_of_an_input_among_the_results_is_that_of_this_call(native: bool) -> None:
    step = gradlite.capture(lambda x: (x.sum(), x[0]), native=native)
    for value in range(6):
        total, row = step(gradlite.full((128, 64), float(value)))
        assert total.item() == value * 128 * 64 and row[3].item() == value
    assert step.replays == 3


def test_array_calls_read_large_inputs_where_they_lie() -> None:
    def made(x: Any, y: Any) -> Any:
        rows = gradlite.stack([x, y[:128]])
        return (rows * 2).sum(0), x @ y[:64], x.t().exp()

    step = gradlite.capture(made, native=False)
    wide = np.random.default_rng(0).standard_normal((128, 256)).astype(np.float32)
    fixed = wide[:, :64].copy()
    fixed.flags.writeable = False
    for array in (wide[:, :64].copy(), wide[:, 64:128], fixed, wide[:64, :128].T, wide[:, ::4]):
        for _ in range(2):
            x, y = gradlite.from_numpy(array.copy()), gradlite.randn(256, 64)
            x.array = array
            for ours, theirs in zip(step(x, y), made(x, y), strict=True):
                np.testing.assert_array_equal(ours.numpy(), theirs.numpy())
    (recording,) = [r for kept in step._kept.values() for r in kept]
    assert recording.plan.inputs == [None, None] and step.replays == 7
    small = gradlite.capture(lambda x: x * 2, native=False)
    for _ in range(4):
        small(gradlite.ones(8))
    (recording,) = [r for kept in small._kept.values() for r in kept]
    assert recording.plan.inputs[0] is not None


def test_an_input_that_is_written_to_is_copied() -> None:
    def made(x: Any) -> Any:
        x.mul_(2)
        return x.sum()

    step = gradlite.capture(made, native=False)
    for value in range(6):
        x = gradlite.full((128, 64), float(value))
        assert step(x).item() == 2 * value * 128 * 64
    assert step.replays == 3


def test_array_calls_look_up_without_an_array_between() -> None:
    table = gradlite.randn(100, 64)

    def made(index: Any) -> Any:
        return table.index_select(0, index) * 1

    step = gradlite.capture(made, native=False)
    for _ in range(5):
        index = gradlite.randint(0, 100, (256,))
        np.testing.assert_array_equal(step(index).numpy(), made(index).numpy())
    assert step.replays == 2
    values, out = np.arange(12.0).reshape(4, 3), np.zeros((2, 3))
    plans._taken(out, values, np.array([-1, 2]))
    np.testing.assert_array_equal(out, values[[-1, 2]])
    for wrong in (4, -5):
        with pytest.raises(IndexError):
            plans._taken(out, values, np.array([0, wrong]))
    np.testing.assert_array_equal(out, values[[-1, 2]])


def test_masks_of_rows_choose_without_an_array_between() -> None:
    mask = gradlite.tril(gradlite.ones(64, 64)) == 0

    def made(x: Any) -> Any:
        return x.masked_fill(mask, float("-inf")).softmax(-1)

    step = gradlite.capture(made, native=False)
    for _ in range(5):
        x = gradlite.randn(8, 64, 64)
        np.testing.assert_array_equal(step(x).numpy(), made(x).numpy())
    assert step.replays == 2
