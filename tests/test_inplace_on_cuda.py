"""Arithmetic in place, on the stand-in for CuPy: one launch, and the values of the CPU."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from tests import cupy_stand_in as stand_in
from tests.array_calls import counting

EDITS: dict[str, Callable[..., Any]] = {
    "add_": lambda x, y: x.add_(y),
    "sub_": lambda x, y: x.sub_(y),
    "mul_": lambda x, y: x.mul_(y),
    "div_": lambda x, y: x.div_(y),
    "add_ scaled": lambda x, y: x.add_(y, alpha=0.5),
    "sub_ scaled": lambda x, y: x.sub_(y, alpha=-3),
}
# Of the two operands: shapes, which of them require grad, and whether the first is a view.
OPERANDS: dict[str, tuple[Any, Any, str, bool]] = {
    "alike": ((3, 4), (3, 4), "", False),
    "broadcast": ((3, 4), (4,), "", False),
    "a view": ((3, 4), (4,), "", True),
    "recorded": ((3, 4), (3, 4), "left", False),
    "recorded and broadcast": ((2, 3, 4), (3, 1), "left", False),
    "recorded with both": ((3, 4), (3, 4), "both", False),
    "recorded with the second": ((3, 4), (4,), "right", False),
    "a recorded view": ((3, 4), (4,), "left", True),
    "a number": ((3, 4), 2.5, "left", False),
    "a whole number": ((), 3, "left", False),
}


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def outcome(edit: str, which: str, dtype: str, device: str) -> tuple[list[Any], dict[str, int]]:
    """What is edited, the gradients, and what the edit asks the device for."""
    shape, other, wanted, view = OPERANDS[which]
    generator = np.random.default_rng(0)

    def leaf(size: Any, place: str) -> Any:
        values = generator.integers(1, 9, size) + (0.25 if dtype.startswith("float") else 0)
        grad = wanted in (place, "both")
        kind = getattr(gradlite, dtype)
        return gradlite.tensor(values, dtype=kind, device=device, requires_grad=grad)

    x = leaf(shape, "left")
    y = leaf(other, "right") if isinstance(other, tuple) else other
    whole = x.clone()
    counts: dict[str, int] = {}
    target = whole[1:] if view else whole
    version = whole._version
    with counting(counts):
        assert EDITS[edit](target, y) is target
    assert whole._version == version + 1
    found = [whole]
    leaves = [t for t in (x, y) if getattr(t, "requires_grad", False)]
    if leaves:
        found += gradlite.autograd.grad((whole * whole).sum(), leaves)
    return [(t.dtype, t.detach().cpu().numpy()) for t in found], counts


@pytest.mark.parametrize("which", OPERANDS)
@pytest.mark.parametrize("edit", EDITS)
def test_an_edit_is_one_launch(edit: str, which: str) -> None:
    _, other, wanted, view = OPERANDS[which]
    for dtype in ("float32", "float64", "float16"):
        if "scaled" in edit and not isinstance(other, tuple):
            continue
        theirs, _ = outcome(edit, which, dtype, "cpu")
        ours, counts = outcome(edit, which, dtype, "cuda")
        for (kind, mine), (expected_kind, expected) in zip(ours, theirs, strict=True):
            assert kind == expected_kind
            tolerance = {"float16": 2e-3, "float32": 1e-6, "float64": 1e-15}[dtype]
            np.testing.assert_allclose(mine, expected, tolerance)
        reads_itself = edit in ("mul_", "div_") and wanted in ("right", "both")
        if not (wanted and (view or reads_itself)):
            assert sum(counts.values()) == 1, counts


@pytest.mark.parametrize("edit", ["add_", "sub_", "mul_"])
def test_whole_numbers(edit: str) -> None:
    for which in ("alike", "broadcast", "a view"):
        (expected,), _ = outcome(edit, which, "int64", "cpu")
        (found,), counts = outcome(edit, which, "int64", "cuda")
        assert found[0] == expected[0] and (found[1] == expected[1]).all()
        assert sum(counts.values()) == 1, counts
    x = gradlite.tensor([1, 2], device="cuda", dtype=gradlite.uint8)
    assert x.add_(3).tolist() == [4, 5] and x.mul_(100).tolist() == [144, 244]


def test_what_is_read_from_the_memory_that_is_written() -> None:
    for device in ("cpu", "cuda"):
        x = gradlite.arange(6.0, device=device).reshape(2, 3)
        x.add_(x)
        x.sub_(x, alpha=0.5)
        assert x.tolist() == [[0.0, 1.0, 2.0], [3.0, 4.0, 5.0]]
        with pytest.raises(RuntimeError, match="refer to a single memory location"):
            x.add_(x[1])
        x[0].add_(x[1], alpha=2)
        assert x.tolist() == [[6.0, 9.0, 12.0], [3.0, 4.0, 5.0]]


@pytest.mark.parametrize("recorded", [False, True])
@pytest.mark.parametrize("name", ["relu", "sigmoid", "tanh"])
def test_a_method_of_an_activation_is_one_launch(name: str, recorded: bool) -> None:
    values = np.array([[-1.0, 2.0, -0.5], [0.0, 3.0, np.nan]], np.float32)
    found = []
    for device in ("cpu", "cuda"):
        x = gradlite.tensor(values, device=device, requires_grad=recorded)
        y = x * 1
        with counting(counts := {}), gradlite.autograd.graph.save_on_cpu():
            assert getattr(y, f"{name}_")() is y and y._version == 1
        found.append([y.detach().cpu().numpy().copy()])
        if recorded:
            assert y.grad_fn.name() == f"{name.capitalize()}Backward0"
            z = (y * y).sum()
            found[-1] += [g.cpu().numpy() for g in gradlite.autograd.grad(z, x, retain_graph=True)]
            y.mul_(2)
            with pytest.raises(RuntimeError, match="modified by an inplace operation"):
                z.backward()
    assert {k: n for k, n in counts.items() if name in k} == {f"kernel:{name}_forward": 1}
    assert "setitem" not in counts
    for ours, theirs in zip(*found):
        np.testing.assert_allclose(ours, theirs, 0 if name == "relu" else 1e-6)


def test_a_view_of_a_constant_that_comes_into_a_graph() -> None:
    x = gradlite.tensor(2.0, device="cuda", requires_grad=True)
    base = gradlite.tensor(3.0, device="cuda")
    view = base.unsqueeze(0)
    view.mul_(x)
    (base.sum() + view.sum()).backward()
    assert x.grad.item() == 6.0


def test_what_is_read_may_not_be_what_is_written_to() -> None:
    x = gradlite.arange(6.0, device="cuda").reshape(2, 3)
    for edit in (
        lambda: x.__setitem__([0], x[:1]),
        lambda: x[1:].copy_(x.reshape(-1)[1:4].reshape(1, 3)),
        lambda: x.view(-1)[1:].add_(x.view(-1)[:-1]),
    ):
        with pytest.raises(RuntimeError, match="refer to a single memory location"):
            edit()
    x[0].copy_(x[1])
    x.add_(x)
    assert x.tolist() == [[6.0, 8.0, 10.0]] * 2


ACTIVATIONS: dict[str, tuple[Any, ...]] = {
    "relu": (), "relu6": (), "leaky_relu": (0.2,), "elu": (0.7,), "celu": (0.7,), "selu": (),
    "silu": (), "mish": (), "hardtanh": (-0.5, 0.75), "hardsigmoid": (), "hardswish": (),
    "threshold": (0.1, 0.5),
}  # fmt: skip


@pytest.mark.parametrize("wanted", [False, True])
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations(name: str, wanted: bool) -> None:
    values = np.random.default_rng(2).normal(0, 2, (3, 5))
    found: list[list[Any]] = []
    for device in ("cpu", "cuda"):
        x = gradlite.tensor(values, device=device, requires_grad=wanted)
        y = x.clone()
        with counting(counts := {}):
            out = getattr(gradlite.nn.functional, name)(y, *ACTIVATIONS[name], inplace=True)
        assert out is y and y._version == 1
        found.append([y.detach().cpu().numpy()])
        if wanted:
            (slope,) = gradlite.autograd.grad((y * y).sum(), x, create_graph=True)
            found[-1] += [slope.detach().cpu().numpy()]
            if slope.requires_grad:
                (curve,) = gradlite.autograd.grad(slope.sum(), x)
                found[-1] += [curve.cpu().numpy()]
    kept = wanted and name != "relu"
    assert sum(counts.values()) == (2 if kept else 1), counts
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, 1e-12, 1e-12)


@pytest.mark.parametrize(
    "bounds", [(-0.5, 0.75), (None, 1), (0.25, None), (1.0, 1.0), (2.0, -2.0), (0, 1e300)], ids=str
)
def test_bounds(bounds: tuple[Any, Any]) -> None:
    values = np.array([[-2.0, 0.5, np.nan, np.inf], [3.0, 1.0, -np.inf, -0.25]])
    for dtype in ("float16", "float32", "float64"):
        found = []
        for device in ("cpu", "cuda"):
            x = gradlite.tensor(values, device=device, dtype=getattr(gradlite, dtype))
            with counting(counts := {}):
                try:
                    assert x.clamp_(*bounds) is x and x._version == 1
                except RuntimeError as error:  # a bound that the dtype does not hold
                    found.append(str(error))
                    continue
            found.append(x.tolist())
        assert repr(found[0]) == repr(found[1])
        assert not isinstance(found[1], list) or bounds[0] == 2.0 or sum(counts.values()) == 1


@pytest.mark.parametrize("edit", ["mul_", "div_"])
def test_a_value_that_a_rule_reads_is_noticed_where_it_is_edited(edit: str) -> None:
    x = gradlite.ones(3, device="cuda", requires_grad=True)
    y = gradlite.ones(3, device="cuda")
    out = EDITS[edit](x * 1, y)
    y.add_(1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        out.sum().backward()


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "float64", "int8", "int64"])
def test_a_number_is_added_to_one_number(dtype: str) -> None:
    x = gradlite.ones((), dtype=getattr(gradlite, dtype), device="cuda")
    x.scatter_add_(0, gradlite.zeros((), dtype=gradlite.int64, device="cuda"), x.clone())
    assert x.item() == 2
