"""Every optimizer with the options of PyTorch's own tests, step by step against PyTorch.

``optim_db`` of the installed PyTorch says which options there are and which must be refused; what
is compared is what both libraries make of them: steps, the state_dict, what is printed, exceptions.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import optim
from tests.oracle import normalised, prefix, torch
from tests.torch_databases import AbsentError, Translation, optim_db

TOLERANCES = {"float32": 1e-5, "float64": 1e-11}
STEPS = 6
SHAPES: tuple[tuple[int, ...], ...] = ((3, 4), (4,), (2, 3, 2), ())
# What differs, by the optimizer's name and PyTorch's name of the options.
KNOWN = {
    ("LBFGS", "Tensor lr"): "the last step's length is kept as a number, also where lr is a tensor",
}
MISSING = {"SparseAdam"}
MATRICES = ((3, 4), (4, 4), (5, 2))
# Products in bfloat16 differ in the last place from one machine to the next.
ROUNDED = {"Muon": 1e-4}


def optimizers() -> Iterator[tuple[Any, Any]]:
    """The entries of the optimizers that gradlite has, and its classes."""
    for info in optim_db():
        if info.optim_cls.__name__ not in MISSING:
            yield info, getattr(optim, info.optim_cls.__name__)


def closure(optimizer: Any, parameters: list[Any]) -> Any:
    def evaluate() -> Any:
        optimizer.zero_grad()
        loss = sum((p * p).sum() for p in parameters)
        loss.backward()
        return loss

    return evaluate


def compare(info: Any, cls: Any, options: dict[str, Any], dtype: str) -> None:
    """Fails where some steps with the same gradients end differently."""
    generator = np.random.default_rng(3)
    tolerance = ROUNDED.get(cls.__name__, TOLERANCES[dtype])
    shapes = MATRICES if cls is optim.Muon else SHAPES
    start = [np.asarray(generator.standard_normal(shape), dtype) for shape in shapes]
    theirs = [torch.nn.Parameter(torch.tensor(a)) for a in start]
    ours = [gradlite.nn.Parameter(gradlite.tensor(a)) for a in start]
    reference = info.optim_cls(theirs, **options)
    optimizer = cls(ours, **Translation()(options))
    for step in range(STEPS):
        for p, q in zip(ours, theirs):
            g = np.asarray(generator.standard_normal(tuple(q.shape)), dtype)
            skipped = step == 3 and g.ndim == 1
            p.grad = None if skipped else gradlite.tensor(g)
            q.grad = None if skipped else torch.tensor(g)
        if info.step_requires_closure:
            optimizer.step(closure(optimizer, ours))
            reference.step(closure(reference, theirs))
        else:
            optimizer.step()
            reference.step()
        for place, (p, q) in enumerate(zip(ours, theirs)):
            same_value(p, q, tolerance, f"parameter {place} after step {step}")
    assert repr(optimizer) == normalised(repr(reference))
    same_value(optimizer.state_dict(), reference.state_dict(), 10 * tolerance, "the state_dict")


def same_value(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    if isinstance(theirs, torch.Tensor):
        assert str(ours.dtype) == normalised(theirs.dtype), what
        assert tuple(ours.shape) == tuple(theirs.shape), what
        found, expected = ours.detach().numpy(), theirs.detach().numpy()
        np.testing.assert_allclose(found, expected, tolerance, tolerance, err_msg=what)
    elif isinstance(theirs, dict):
        assert list(ours) == list(theirs), what
        for key, value in theirs.items():
            same_value(ours[key], value, tolerance, f"{what}[{key!r}]")
    elif isinstance(theirs, (list, tuple)):
        assert type(ours) is type(theirs), what
        assert len(ours) == len(theirs), what
        for place, value in enumerate(theirs):
            same_value(ours[place], value, tolerance, f"{what}[{place}]")
    elif isinstance(theirs, (int, float)) and not isinstance(theirs, bool):
        assert type(ours) in (int, float), what  # a learning rate of 1 is kept as 1.0
        np.testing.assert_allclose(ours, theirs, tolerance, tolerance, err_msg=what)
    else:
        assert type(ours) is type(theirs), what
        assert ours == theirs, what


def differences(dtype: str) -> tuple[int, list[str]]:
    """How many ways of optimizing were compared, and what was different."""
    failed, count = [], 0
    for info, cls in optimizers():
        for given in info.optim_inputs_func(device="cpu"):
            count += 1
            known = (cls.__name__, given.desc) in KNOWN
            try:
                compare(info, cls, dict(given.kwargs), dtype)
                if known:
                    failed.append(f"{cls.__name__} {given.desc} no longer differs")
            except Exception as error:
                if known:
                    continue
                what = f"{cls.__name__} {given.desc} {given.kwargs}: "
                failed.append(what + f"{type(error).__name__}: {str(error).strip()[:300]}")
    return count, failed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_optimizers_take_the_steps_of_pytorch(dtype: str) -> None:
    count, failed = differences(dtype)
    assert not failed, f"{len(failed)} of {count}:\n" + "\n".join(failed)
    assert count > 60


@pytest.mark.filterwarnings("ignore")
def test_an_optimizer_that_steps_otherwise_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a step, and a key of the state, that are wrong."""
    step, state_dict = optim.SGD.step, optim.Adagrad.state_dict

    def step_of_sgd(self: Any, closure: Any = None) -> Any:
        result = step(self, closure)
        with gradlite.no_grad():
            self.param_groups[0]["params"][2].mul_(1.0001)
        return result

    def state_of_adagrad(self: Any) -> Any:
        found = state_dict(self)
        for kept in found["state"].values():
            kept["total"] = kept.pop("sum")
        return found

    monkeypatch.setattr(optim.SGD, "step", step_of_sgd)
    monkeypatch.setattr(optim.Adagrad, "state_dict", state_of_adagrad)
    few = [i for i in optim_db() if i.optim_cls.__name__ in ("SGD", "Adagrad", "Adam")]
    monkeypatch.setattr(f"{__name__}.optim_db", lambda: few)
    _, failed = differences("float64")
    cases = {i.optim_cls.__name__: len(i.optim_inputs_func(device="cpu")) for i in few}
    assert len(failed) == cases["SGD"] + cases["Adagrad"]


@pytest.mark.filterwarnings("ignore")
def test_optimizers_refuse_what_pytorch_refuses() -> None:
    count, failed = 0, []
    for info, cls in optimizers():
        for number, case in enumerate(
            info.optim_error_inputs_func(device="cpu", dtype=torch.float32)
        ):
            given = case.optimizer_error_input
            theirs = error_of(info.optim_cls, given.params, given.kwargs, torch)
            translated = Translation()
            try:
                args = translated(given.params), translated(dict(given.kwargs))
            except AbsentError:  # complex numbers
                continue
            ours = error_of(cls, *args, gradlite)
            count += 1
            if ours != theirs:
                failed.append(f"{cls.__name__} {number} {given.desc}: {ours}, PyTorch has {theirs}")
    assert not failed, "\n".join(failed)
    assert count > 60


def error_of(cls: Any, parameters: Any, options: dict[str, Any], library: Any) -> Any:
    """The type and the message's first sentence of what an optimizer raises; None of none."""
    if parameters is None:
        parameters = [library.nn.Parameter(library.ones(2, 3))]
    try:
        cls(parameters, **options)
    except Exception as error:
        return type(error).__name__, prefix(str(error))
    return None


def test_the_optimizers_that_are_missing_are_missing() -> None:
    names = {info.optim_cls.__name__ for info in optim_db()}
    assert {name for name in names if not hasattr(optim, name)} == MISSING
