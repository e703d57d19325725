"""Random programs over a pool of tensors, written as source lines and run on two libraries at once.

An instruction is a kind and four small numbers. The writer of that kind (`tests/fuzz_writers.py`)
turns the numbers into one line of Python that fits the shapes in the pool, such as
``t5 = t3[:, 1:]``, so a failing program prints as code that anybody can run. Both libraries execute
every line; where one raises, the other must raise the same type, and the program goes on.
"""

from __future__ import annotations

from typing import Any

from hypothesis import reject

from tests.fuzz_pool import AmbiguousError, DifferenceError, Pool
from tests.fuzz_writers import WRITERS, leaf, unary

Instruction = tuple[str, int, int, int, int]


def run_program(instructions: list[Instruction], reference: Any, library: Any) -> Pool:
    """Writes and runs a program; raises `DifferenceError` where the libraries disagree."""
    pool = Pool(reference, library)
    try:
        for number in range(3):
            pool.run("leaf", leaf(pool, number, number, 1 + number, 0))
            pool.run("unary", unary(pool, 0, number, 0, 0))
        for name, *numbers in instructions:
            line = WRITERS[name](pool, *numbers) if pool.names else None
            if line is not None:
                pool.run(name, line)
        for name in [n for n in pool.names if pool.look(n, "grad_fn") is not None][-6:]:
            pool.run("last backward", f"{name}.sin().sum().backward(retain_graph=True)")
        pool.compare_everything()
    except DifferenceError as error:
        raise reduced(pool.lines, error, reference, library) from None
    except AmbiguousError:
        reject()
    return pool


def replay(lines: list[str], reference: Any, library: Any) -> DifferenceError | None:
    """Runs finished lines again."""
    pool = Pool(reference, library)
    try:
        for line in lines:
            pool.run("replay", line.partition("  #")[0])
        pool.compare_everything()
    except DifferenceError as error:
        return error
    except AmbiguousError:
        pass
    return None


def reduced(
    lines: list[str], error: DifferenceError, reference: Any, library: Any
) -> DifferenceError:
    """The difference of the shortest program that leaving out lines leads to."""
    size = len(lines)
    while size > 0:
        start = 0
        while start < len(lines):
            shorter = lines[:start] + lines[start + size :]
            found = replay(shorter, reference, library)
            if found is None:
                start += size
            else:
                lines, error = shorter, found
        size //= 2
    return error
