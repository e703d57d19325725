"""Padding: every mode in every number of dimensions, cutting, borders that meet, errors."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import same, torch

F = gradlite.nn.functional
PADS = [(1, 2), (2, 0, 1, 1), (0, 1, 1, 0, 2, 1)]
MODES = ["constant", "reflect", "replicate", "circular"]


def padded(library: Any, shape: tuple[int, ...], pad: Any, mode: str, *value: float) -> Any:
    """The result, the gradient, and the gradient of a sum of squared gradients."""
    x = library.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
    y = library.nn.functional.pad(x, pad, mode, *value)
    (first,) = library.autograd.grad((y**3).sum(), x, create_graph=True)
    (second,) = library.autograd.grad((first * first).sum(), x)
    return y.detach(), first.detach(), second


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("pad", PADS, ids=str)
@pytest.mark.parametrize("batch", [(2,), (2, 3), (0, 3)], ids=str)
def test_values_and_derivatives(mode: str, pad: tuple[int, ...], batch: tuple[int, ...]) -> None:
    shape = (*batch, 3, 4, 5)[: len(batch)] + (3, 4, 5)[3 - len(pad) // 2 :]
    same(lambda library: padded(library, shape, pad, mode), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("pad", [(-1, 2), (2, -1, -1, 0), (-2, -1), (-1, 3, 0, -1)], ids=str)
@pytest.mark.parametrize("mode", MODES)
def test_negative_numbers_cut(mode: str, pad: tuple[int, ...]) -> None:
    same(lambda library: padded(library, (2, 4, 5), pad, mode), rtol=1e-9, atol=1e-10)


def test_a_constant_in_any_dimension() -> None:
    def program(library: Any) -> Any:
        pad = library.nn.functional.pad
        x = library.arange(6).view(1, 2, 1, 3)
        widths = (1, 0, 0, 1, 2, 0, 0, 1)
        flags = pad(x > 2, (1, 1), value=1)
        return pad(x, widths, value=7.9), pad(x.double(), widths, "constant", -0.5), flags

    same(program)


@pytest.mark.parametrize("mode", ["reflect", "replicate"])
def test_borders_wider_than_the_input_and_borders_that_meet(mode: str) -> None:
    """One element is copied to several places: its gradient is the sum."""
    pad = (4, 4) if mode == "reflect" else (9, 7)
    same(lambda library: padded(library, (2, 5), pad, mode), rtol=1e-9, atol=1e-10)


def test_circular_by_the_whole_size() -> None:
    same(lambda library: padded(library, (2, 3), (3, 3), "circular"), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int64", "uint8"])
def test_dtypes_stay(mode: str, dtype: str) -> None:
    def program(library: Any) -> Any:
        x = library.arange(8).view(2, 4).to(getattr(library, dtype))
        return library.nn.functional.pad(x, (2, 1), mode)

    same(program)


def test_nothing_to_pad_is_a_copy() -> None:
    x = gradlite.ones(3)
    y = F.pad(x, ())
    y[0] = 5.0
    assert x.tolist() == [1.0, 1.0, 1.0]


def test_names_of_the_nodes() -> None:
    for mode in MODES[:3]:
        for pad in PADS:
            shape = (2, 3, 4, 5)[3 - len(pad) // 2 :]
            names = [
                library.nn.functional.pad(
                    library.ones(shape, requires_grad=True), pad, mode
                ).grad_fn.name()
                for library in (torch, gradlite)
            ]
            assert names[0] == names[1]


WRONG: dict[str, Any] = {
    "odd": lambda F, T: F.pad(T(2, 3), (1,)),
    "too many": lambda F, T: F.pad(T(2, 3), (1, 2, 3, 4, 5, 6)),
    "a number": lambda F, T: F.pad(T(2, 3), 1),
    "a float": lambda F, T: F.pad(T(2, 3), (1.5, 2)),
    "cut too much": lambda F, T: F.pad(T(2, 3), (-4, 0)),
    "cut too much at both ends": lambda F, T: F.pad(T(2, 3), (-2, -2)),
    "mode": lambda F, T: F.pad(T(2, 3), (1, 2), "mirror"),
    "value": lambda F, T: F.pad(T(2, 3), (1, 2), "reflect", 1),
    "reflect too far": lambda F, T: F.pad(T(2, 3), (1, 3), "reflect"),
    "reflect too far down": lambda F, T: F.pad(T(2, 3, 4), (1, 1, 3, 1), "reflect"),
    "circle twice": lambda F, T: F.pad(T(2, 3), (1, 4), "circular"),
    "dimensions": lambda F, T: F.pad(T(3), (1, 1), "reflect"),
    "pads for dimensions": lambda F, T: F.pad(T(2, 3, 4, 5), (1, 1), "circular"),
    "no channels": lambda F, T: F.pad(T(2, 0, 4), (1, 1), "replicate"),
    "nothing inside": lambda F, T: F.pad(T(2, 3, 0), (1, 1), "reflect"),
    "nothing left": lambda F, T: F.pad(T(2, 3, 4), (-3, -1), "replicate"),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.functional, library.ones),
        raises=(RuntimeError, TypeError, NotImplementedError),
        message="exact",
    )
