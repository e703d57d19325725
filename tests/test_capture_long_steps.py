"""Steps of thousands of calls: what is made of them grows with them, and no faster."""

from __future__ import annotations

import random
import re
from dataclasses import replace
from typing import Any

import pytest

import gradlite
from gradlite import nn, optim
from gradlite.capturing import guards, packing
from gradlite.capturing.calls import MADE, Buffer, Call, Guard, Ref, refs_of, written_by
from gradlite.capturing.native.build import NativePlan, available
from gradlite.nn import functional as F

needs_compiler = pytest.mark.skipif(not available(), reason="no C++ compiler, or GRADLITE_NATIVE=0")


def unrolled(steps: int) -> Any:
    """A recurrence written as a loop over time, trained for one step; and what it takes."""
    gradlite.manual_seed(0)
    cell, head = nn.GRUCell(3, 5), nn.Linear(5, 4)
    parameters = [*cell.parameters(), *head.parameters()]
    optimizer = optim.SGD(parameters, lr=0.1)

    def step(x: Any, y: Any) -> Any:
        optimizer.zero_grad()
        h, loss = gradlite.zeros(2, 5), 0
        for t in range(steps):
            h = cell(x[t], h)
            loss = loss + F.cross_entropy(head(h), y[t])
        loss.backward()
        optimizer.step()
        return loss

    return step, gradlite.randn(steps, 2, 3), gradlite.randint(0, 4, (steps, 2))


@needs_compiler
def test_loops_over_time_add_lines_to_tables_and_not_code() -> None:
    code = []
    for steps in (8, 32):
        step, *given = unrolled(steps)
        captured = gradlite.capture(step)
        for _ in range(3):
            captured(*given)
        (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
        assert isinstance(plan, NativePlan) and not plan.reason
        rows = re.findall(r"^  \{part_\d+, .*\},?$", plan.source, re.MULTILINE)
        assert len(rows) > 20 * steps
        text = re.sub(r"^static const i64 words_.*$", "", plan.source, flags=re.MULTILINE)
        code.append(len(text.splitlines()) - len(rows))
    assert code[1] < 1.05 * code[0]


@pytest.mark.parametrize("seed", range(20))
def test_pieces_take_the_lowest_place_that_is_free(seed: int) -> None:
    source = random.Random(seed)
    end = source.choice([4, 30, 100])
    pieces: dict[int, Any] = {}
    for key in range(source.choice([0, 1, 2, 10, 60, 120])):
        first = source.randrange(end)
        spans = [(first, source.randrange(first, end))]
        if source.random() < 0.2:  # what one replay leaves until the next one makes it anew
            spans = [(-1, source.randrange(-1, first)), (first, end)]
        pieces[key] = source.randrange(0, 20) * 64, spans
    for order in packing.ORDERS:
        places, total = packing._first_fit(pieces, order)
        done: list[int] = []
        for key in sorted(pieces, key=lambda k: order(pieces[k])):
            size, spans = pieces[key]
            beside = [k for k in done if packing._meet(spans, pieces[k][1])]
            free = [
                at
                for at in [0, *(places[k] + pieces[k][0] for k in beside)]
                if all(at >= places[k] + pieces[k][0] or at + size <= places[k] for k in beside)
            ]
            assert places[key] == min(free)
            done.append(key)
        ends = [places[k] + pieces[k][0] for k in pieces]
        assert total == max(ends, default=0)


def some_calls(seed: int) -> list[Any]:
    """Calls and guards that read and write a few buffers at random."""
    source = random.Random(seed)
    refs = [
        Ref(Buffer(None, 64 * i, 64 * i + 4, MADE), 0, (), (), None)  # type: ignore[arg-type]
        for i in range(source.choice([3, 8, 20]))
    ]
    calls: list[Any] = []
    for _ in range(source.choice([5, 20, 40])):
        if source.random() < 0.3:
            calls.append(Guard(source.choice(refs), True))
        else:
            args = tuple(source.sample(refs, source.randrange(3)))
            calls.append(Call(max, args, {}, (source.choice(refs),)))
    return calls


def test_a_changed_copy_of_a_call_mentions_what_it_is_given() -> None:
    first, second = (
        Ref(Buffer(None, 64 * i, 64 * i + 4, MADE), 0, (), (), None)  # type: ignore[arg-type]
        for i in range(2)
    )
    call = Call(max, (first,), {}, (first,))
    assert list(refs_of(call)) == [first, first]
    assert list(refs_of(replace(call, args=(second,), outs=(second,)))) == [second, second]


@pytest.mark.parametrize("seed", range(40))
def test_guards_come_first_with_what_they_need_where_nothing_sees_it(seed: int) -> None:
    calls = some_calls(seed)
    expected: set[int] = set()
    for place, guard in enumerate(calls):
        if not isinstance(guard, Guard):
            continue
        needed, moved = {guard.ref.buffer}, {place}
        for position in range(place - 1, -1, -1):
            if not needed.isdisjoint(written_by(calls[position])):
                needed.update(ref.buffer for ref in refs_of(calls[position]))
                moved.add(position)
        written = set().union(*(written_by(calls[i]) for i in moved))
        passed = [calls[i] for i in range(place) if i not in moved | expected]
        if len(moved) <= guards.FEW:
            if written.isdisjoint(ref.buffer for call in passed for ref in refs_of(call)):
                expected |= moved
    rest = [call for i, call in enumerate(calls) if i not in expected]
    assert guards.guards_first(calls) == [calls[i] for i in sorted(expected)] + rest


@needs_compiler
def test_equal_steps_are_compiled_once() -> None:
    sources = set()
    for _ in range(3):  # other processes have other addresses too
        step, *given = unrolled(12)
        captured = gradlite.capture(step)
        for _ in range(3):
            captured(*given)
        (plan,) = [r.plan for kept in captured._kept.values() for r in kept]
        sources.add(plan.source)
    assert len(sources) == 1
