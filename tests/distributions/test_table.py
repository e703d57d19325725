"""Every distribution beside PyTorch's: what it computes, says and refuses."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from tests.distributions.table import CASES, Case
from tests.oracle import outcome_of, same, torch

QUANTITIES = ("mean", "mode", "variance", "stddev", "entropy", "perplexity")
FUNCTIONS = ("log_prob", "cdf")

cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.id)


def values_of(T: Any, values: Any, grad: bool = False) -> Any:
    array = np.asarray(values)
    return T.tensor(array, requires_grad=grad and array.dtype.kind == "f")


def with_gradients(T: Any, result: Any, inputs: Any) -> Any:
    """A result without its place in the graph, and the gradients of inputs."""
    if isinstance(result, Exception):
        return result
    if not result.requires_grad:
        return result, False
    wanted = [t for t in inputs if T.is_tensor(t) and t.requires_grad]
    weights = T.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).reshape(result.shape)
    found = T.autograd.grad((result * weights).sum(), wanted, allow_unused=True)
    return result.detach(), [None if g is None else g.detach() for g in found]


@cases
def test_shapes_words_and_constraints(case: Case) -> None:
    def program(T: Any) -> Any:
        d = case.make(T)
        told = {name: repr(c) for name, c in d.arg_constraints.items()}
        cls = type(d)
        return (
            [tuple(d.batch_shape), tuple(d.event_shape), repr(d), repr(d.support), told],
            [d.has_rsample, d.has_enumerate_support, d.support.is_discrete, d.support.event_dim],
            [T.distributions.constraints.is_dependent(cls.support), repr(cls.support)],
            [base.__name__ for base in cls.__mro__ if base.__name__ not in NOT_OURS],
        )

    same(program)


# Bases that are PyTorch's alone, or gradlite's alone.
NOT_OURS = ("Generic", "OfProbability", "OfCovariance", "object")


@cases
@pytest.mark.parametrize("name", QUANTITIES)
def test_quantities(case: Case, name: str) -> None:
    def program(T: Any) -> Any:
        tensors = case.tensors(T)
        d = getattr(T.distributions, case.name)(**tensors)
        result = outcome_of(lambda: getattr(d, name))
        if callable(result):
            result = outcome_of(result)
        return with_gradients(T, result, tensors.values())

    same(program, rtol=case.rtol, atol=1e-12, message="type")


@cases
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_of_values(case: Case, name: str) -> None:
    def program(T: Any) -> Any:
        tensors = case.tensors(T)
        d = getattr(T.distributions, case.name)(**tensors)
        value = values_of(T, case.values, grad=True)
        result = outcome_of(lambda: getattr(d, name)(value))
        if name == "cdf" and case.name in SHAPES_OF_CDF:
            asked = outcome_of(lambda: result.sum().backward(retain_graph=True))
            assert isinstance(asked, NotImplementedError)
            tensors.pop(SHAPES_OF_CDF[case.name])
        return with_gradients(T, result, [*tensors.values(), value])

    same(program, rtol=case.rtol, atol=1e-12, message="type")


# Of igamma, which PyTorch has no derivative of by its first argument.
SHAPES_OF_CDF = {"Gamma": "concentration", "Chi2": "df", "InverseGamma": "concentration"}


@cases
def test_quantiles(case: Case) -> None:
    def program(T: Any) -> Any:
        tensors = case.tensors(T)
        d = getattr(T.distributions, case.name)(**tensors)
        shape = (3, *[1] * len(d.batch_shape), *d.event_shape)
        places = T.tensor([0.1, 0.5, 0.95], dtype=T.float64).reshape(3, *[1] * (len(shape) - 1))
        result = outcome_of(lambda: d.icdf(places.expand(shape)))
        return with_gradients(T, result, tensors.values())

    same(program, rtol=case.rtol, message="type")


@cases
def test_expand(case: Case) -> None:
    def program(T: Any) -> Any:
        d = case.make(T)
        shape = (2, *([2] if not d.batch_shape else d.batch_shape))
        wide = d.expand(T.Size(shape))
        value = values_of(T, case.values)
        results = [outcome_of(lambda: wide.mean), outcome_of(lambda: wide.variance)]
        if case.name != "Multinomial":  # PyTorch's has no entropy once it is expanded
            results.append(outcome_of(wide.entropy))
        if not d.batch_shape:
            value = value.reshape(-1, *[1] * len(d.event_shape))[:1].squeeze(-1)
            value = values_of(T, case.values) if d.event_shape else value
        results.append(wide.log_prob(value))
        return [
            tuple(wide.batch_shape), tuple(wide.event_shape), type(wide).__name__, repr(wide),
            [r if isinstance(r, Exception) else r.detach() for r in results],
            wide.sample((2,)).shape == (2, *shape, *d.event_shape),
        ]  # fmt: skip

    same(program, rtol=case.rtol, message="type")


@cases
def test_the_support_is_enumerated(case: Case) -> None:
    def program(T: Any) -> Any:
        d = case.make(T)
        wide = outcome_of(lambda: d.enumerate_support().clone())
        return wide, outcome_of(lambda: d.enumerate_support(expand=False).clone())

    same(program, message="type")


@cases
def test_what_is_refused(case: Case) -> None:
    def asked(T: Any, values: Any, changed: Any) -> Any:
        return case.make(T, **changed).log_prob(values_of(T, values)).detach()

    def refused(values: Any, changed: dict[str, Any]) -> None:
        same(lambda T: asked(T, values, changed), raises=ValueError, message="exact")
        changed = {**changed, "validate_args": False}
        rtol = case.rtol if case.rtol >= 1e-5 else None
        same(lambda T: outcome_of(lambda: asked(T, values, changed)), message="type", rtol=rtol)

    if case.outside is not None:
        refused(case.outside, {})
    if case.wrong:
        refused(case.values, case.wrong)
    d = case.make(gradlite)
    if d.event_shape:
        refused(np.zeros((2, d.event_shape[0] + 1)), {})
    if d.batch_shape:
        refused(np.zeros((d.batch_shape[-1] + 1, *d.event_shape)), {})
    if case.name not in ("Gamma", "Chi2"):  # which take numbers
        same(lambda T: case.make(T).log_prob(0.5), raises=ValueError, message="exact")


@cases
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_samples_have_pytorchs_shape_and_dtype(case: Case, dtype: str) -> None:
    def program(T: Any) -> Any:
        tensors = {
            name: value.detach().to(getattr(T, dtype)).requires_grad_()
            if T.is_tensor(value)
            else value
            for name, value in case.tensors(T).items()
        }
        d = getattr(T.distributions, case.name)(**tensors)
        found: list[Any] = []
        for draw in (d.sample, d.rsample):
            result = outcome_of(lambda draw=draw: draw((3, 2)))
            if isinstance(result, Exception):
                found.append(result)
                continue
            assert d.support.check(result).all()
            found.append([tuple(result.shape), str(result.dtype), result.requires_grad])
        return found, tuple(d.sample().shape)

    same(program, message="type")


def test_a_wrong_density_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a log probability off by one part in a million."""
    right = gradlite.distributions.Normal.log_prob
    monkeypatch.setattr(
        gradlite.distributions.Normal, "log_prob", lambda self, x: right(self, x) * (1 + 1e-6)
    )
    with pytest.raises(AssertionError, match="Not equal"):
        test_functions_of_values(CASES[0], "log_prob")


def test_all_names_are_pytorchs() -> None:
    assert set(gradlite.distributions.__all__) == set(torch.distributions.__all__)
