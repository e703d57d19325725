"""Generic tests of every op in the table: values and gradients against PyTorch, derivatives of
first and second order against finite differences, layouts, dtypes, untouched inputs."""

from __future__ import annotations

import copy
import functools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import samples
from gradlite.ops.namespaces import NAMESPACES, OPS
from gradlite.ops.table import TABLE, Entry, Sample
from gradlite.tensor import Tensor, wrap

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

NAMES = sorted(TABLE)
DIFFERENTIABLE = [n for n in NAMES if TABLE[n].differentiable]


@functools.cache
def samples_of(name: str) -> list[Sample]:
    samples.fresh()
    return list(TABLE[name].samples())


def torch_function(entry: Entry) -> Any:
    for root in (torch, torch.nn.functional):
        found: Any = root
        for part in entry.torch.split("."):
            found = getattr(found, part, None)
        if found is not None:
            return found
    raise AssertionError(f"PyTorch has no {entry.torch}")


def convert(value: Any, make: Any) -> Any:
    """A sample's arguments with arrays turned into tensors."""
    if isinstance(value, np.ndarray):
        return make(value)
    if isinstance(value, (list, tuple)):
        return type(value)(convert(v, make) for v in value)
    if isinstance(value, dict):
        return {k: convert(v, make) for k, v in value.items()}
    if isinstance(value, samples.Dtype):
        return value.of(gradlite if make.__name__.startswith("ours") else torch)
    return value


def wants_grad(array: np.ndarray) -> bool:
    return array.dtype.kind == "f" and not isinstance(array, samples.Constant)


def ours(array: np.ndarray) -> Tensor:
    return gradlite.tensor(array, requires_grad=wants_grad(array))


def ours_constant(array: np.ndarray) -> Tensor:
    return gradlite.tensor(array)


def theirs(array: np.ndarray) -> Any:
    return torch.tensor(np.asarray(array), requires_grad=wants_grad(array))


def leaves(value: Any) -> list[Any]:
    """The tensors that require grad among some arguments."""
    if isinstance(value, (list, tuple)):
        return [leaf for v in value for leaf in leaves(v)]
    if isinstance(value, dict):
        return leaves(list(value.values()))
    return [value] if getattr(value, "requires_grad", False) else []


def outputs(result: Any) -> list[Any]:
    if isinstance(result, (list, tuple)):
        return [o for r in result for o in outputs(r)]
    return [result] if hasattr(result, "requires_grad") else []


def weights_for(outs: list[Any]) -> list[np.ndarray]:
    generator = np.random.default_rng(11)
    return [generator.standard_normal(tuple(o.shape)) for o in outs]


def run(name: str, sample: Sample, make: Any, function: Any) -> tuple[list[Any], list[Any]]:
    args, kwargs = convert(sample.args, make), convert(sample.kwargs, make)
    return outputs(function(*args, **kwargs)), leaves((args, kwargs))


def numpy_of(tensor: Any) -> np.ndarray:
    return tensor.detach().cpu().numpy(force=True)


def close(actual: Any, expected: Any, rtol: float, what: str) -> None:
    actual, expected = numpy_of(actual), numpy_of(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape} != {expected.shape}"
    assert actual.dtype == expected.dtype, f"{what}: dtype {actual.dtype} != {expected.dtype}"
    scale = max(1.0, float(np.abs(expected[np.isfinite(expected)]).max(initial=0.0)))
    np.testing.assert_allclose(actual, expected, rtol=rtol, atol=rtol * scale, err_msg=what)


@pytest.mark.parametrize("name", NAMES)
def test_has_samples_and_documentation(name: str) -> None:
    entry = TABLE[name]
    assert samples_of(name), "an op without samples is an op without tests"
    doc = entry.function.__doc__ or ""
    assert ">>> " in doc, "the docstring has no example"


@pytest.mark.parametrize("name", [n for n in NAMES if TABLE[n].torch])
def test_values_and_gradients_agree_with_pytorch(name: str) -> None:
    entry = TABLE[name]
    reference = torch_function(entry)
    for number, sample in enumerate(samples_of(name)):
        what = f"{name} sample {number} {describe(sample)}"
        mine, my_leaves = run(name, sample, ours, entry.function)
        yours, your_leaves = run(name, sample, theirs, reference)
        assert len(mine) == len(yours), what
        for a, b in zip(mine, yours):
            close(a, b, sample.rtol, what)
            if entry.differentiable:
                assert a.requires_grad == b.requires_grad, f"{what}: requires_grad"
        pairs = [(a, b) for a, b in zip(mine, yours) if b.requires_grad]
        if not pairs or not entry.differentiable:
            continue
        weights = weights_for([b for _, b in pairs])
        my_total = sum((a * wrap(w)).sum() for (a, _), w in zip(pairs, weights))
        your_total = sum((b * torch.tensor(w)).sum() for (_, b), w in zip(pairs, weights))
        my_total.backward()
        your_total.backward()
        for place, (a, b) in enumerate(zip(my_leaves, your_leaves)):
            assert (a.grad is None) == (b.grad is None), f"{what}: gradient {place} is None"
            if b.grad is not None:
                close(a.grad, b.grad, sample.rtol, f"{what}: gradient {place}")


def describe(sample: Sample) -> str:
    def short(value: Any) -> str:
        if isinstance(value, np.ndarray):
            return f"{value.dtype.name}{list(value.shape)}"
        if isinstance(value, (list, tuple)):
            return "[" + ", ".join(map(short, value)) + "]"
        return repr(value)

    parts = [short(a) for a in sample.args]
    parts += [f"{k}={short(v)}" for k, v in sample.kwargs.items()]
    return f"({', '.join(parts)})"


def numeric_directional(function: Any, arrays: list[np.ndarray], v: list[np.ndarray]) -> float:
    """The derivative along v by a central difference of fourth order."""
    h = 1e-4

    def at(step: float) -> float:
        return function([a + step * d for a, d in zip(arrays, v)])

    return (8 * (at(h) - at(-h)) - (at(2 * h) - at(-2 * h))) / (12 * h)


def scalar_function(entry: Entry, sample: Sample) -> tuple[Any, list[np.ndarray]]:
    """The op as a scalar function of its differentiable arrays, with fixed output weights."""
    arrays: list[np.ndarray] = []

    def strip(value: Any) -> Any:
        if isinstance(value, np.ndarray) and wants_grad(value):
            arrays.append(value)
            return Slot(len(arrays) - 1)
        if isinstance(value, (list, tuple)):
            return type(value)(strip(v) for v in value)
        if isinstance(value, dict):
            return {k: strip(v) for k, v in value.items()}
        return value

    pattern = strip((sample.args, sample.kwargs))

    def fill(value: Any, tensors: list[Tensor]) -> Any:
        if isinstance(value, Slot):
            return tensors[value.place]
        if isinstance(value, np.ndarray):
            return gradlite.tensor(value)
        if isinstance(value, (list, tuple)):
            return type(value)(fill(v, tensors) for v in value)
        if isinstance(value, dict):
            return {k: fill(v, tensors) for k, v in value.items()}
        if isinstance(value, samples.Dtype):
            return value.of(gradlite)
        return value

    def function(tensors: list[Tensor]) -> Tensor | None:
        args, kwargs = fill(pattern, tensors)
        outs = [o for o in outputs(entry.function(*args, **kwargs)) if o.dtype.is_floating_point]
        total = None
        for out, weight in zip(outs, weights_for(outs)):
            term = (out * wrap(weight)).sum()
            total = term if total is None else total + term
        return total

    return function, arrays


class Slot:
    def __init__(self, place: int) -> None:
        self.place = place


def check_derivatives(function: Any, arrays: list[np.ndarray], what: str, tol: float) -> None:
    """First and second derivatives along random directions against differences."""
    generator = np.random.default_rng(5)
    directions = [generator.standard_normal(a.shape) for a in arrays]

    def value(points: list[np.ndarray]) -> float:
        with gradlite.no_grad():
            return float(function([gradlite.tensor(p) for p in points]))

    def slope(points: list[np.ndarray]) -> float:
        tensors = [gradlite.tensor(p, requires_grad=True) for p in points]
        out = function(tensors)
        if not out.requires_grad:
            return 0.0
        grads = gradlite.autograd.grad(out, tensors, create_graph=True, materialize_grads=True)
        return float(sum(float((g.detach() * wrap(d)).sum()) for g, d in zip(grads, directions)))

    numeric, analytic = numeric_directional(value, arrays, directions), slope(arrays)
    assert analytic == pytest.approx(numeric, rel=tol, abs=tol), f"{what}: first derivative"
    tensors = [gradlite.tensor(a, requires_grad=True) for a in arrays]
    out = function(tensors)
    if not out.requires_grad:
        return
    grads = gradlite.autograd.grad(out, tensors, create_graph=True, materialize_grads=True)
    along = sum((g * wrap(d)).sum() for g, d in zip(grads, directions))
    analytic = 0.0
    if along.requires_grad:
        second = gradlite.autograd.grad(along, tensors, materialize_grads=True)
        analytic = float(sum(float((s * wrap(d)).sum()) for s, d in zip(second, directions)))
    numeric = numeric_directional(slope, arrays, directions)
    assert analytic == pytest.approx(numeric, rel=tol, abs=tol), f"{what}: second derivative"


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_first_and_second_derivatives_agree_with_differences(name: str) -> None:
    for number, sample in enumerate(samples_of(name)):
        if not sample.smooth:
            continue
        function, arrays = scalar_function(TABLE[name], sample)
        if not arrays or function([gradlite.tensor(a) for a in arrays]) is None:
            continue
        check_derivatives(function, arrays, f"{name} sample {number} {describe(sample)}", 2e-6)


def test_the_checker_catches_a_rule_that_is_wrong_by_a_thousandth() -> None:
    op = NAMESPACES[np.ndarray].runs(OPS["sin"])
    right = op.backward

    def wrong(ctx: Any, grad: Any, F: Any) -> Any:
        return (right(ctx, grad, F)[0] * 1.001,)

    function, arrays = scalar_function(TABLE["sin"], Sample((np.array([0.3, 0.7]),)))
    check_derivatives(function, arrays, "sin", 2e-6)
    op.backward = staticmethod(wrong)
    try:
        with pytest.raises(AssertionError, match="first derivative"):
            check_derivatives(function, arrays, "sin", 2e-6)
    finally:
        op.backward = staticmethod(right)


def test_the_checker_catches_a_wrong_second_derivative() -> None:
    op = NAMESPACES[np.ndarray].runs(OPS["sin"])
    right = op.backward

    def wrong(ctx: Any, grad: Any, F: Any) -> Any:
        (x,) = ctx.saved
        return (grad * F.detach(F.cos(x)),)  # right at first order, constant at second

    function, arrays = scalar_function(TABLE["sin"], Sample((np.array([0.3, 0.7]),)))
    op.backward = staticmethod(wrong)
    try:
        with pytest.raises(AssertionError, match="second derivative"):
            check_derivatives(function, arrays, "sin", 2e-6)
    finally:
        op.backward = staticmethod(right)


def strided(array: np.ndarray) -> Tensor:
    """The same values with gaps between them, in reversed dimension order in memory."""
    host = np.zeros(tuple(2 * n for n in reversed(array.shape)), array.dtype)
    inner = host[(*(slice(None, None, 2) for _ in array.shape), ...)].T
    inner[...] = array
    return wrap(np.asarray(inner)).requires_grad_(wants_grad(array))


@pytest.mark.parametrize("name", NAMES)
def test_memory_layout_does_not_matter_and_inputs_stay_untouched(name: str) -> None:
    entry = TABLE[name]
    for number, sample in enumerate(samples_of(name)):
        what = f"{name} sample {number} {describe(sample)}"
        if entry.torch == "Tensor.view":
            continue  # a view of another shape needs fitting strides, by definition
        before = copy.deepcopy(sample.args)
        plain, plain_leaves = run(name, sample, ours, entry.function)
        gaps, gaps_leaves = run(name, sample, strided_ours, entry.function)
        for a, b in zip(gaps, plain):
            close(a, b, 1e-12, what)
        if entry.differentiable and any(o.requires_grad for o in plain):
            for outs in (plain, gaps):
                kept = [o for o in outs if o.requires_grad]
                total = sum((o * wrap(w)).sum() for o, w in zip(kept, weights_for(kept)))
                total.backward()
            for a, b in zip(gaps_leaves, plain_leaves):
                if b.grad is not None:
                    close(a.grad, b.grad, 1e-11, f"{what}: gradient")
        for now, then in zip(sample.args, before):
            if isinstance(now, np.ndarray):
                np.testing.assert_array_equal(now, then, err_msg=f"{what}: input changed")


def strided_ours(array: np.ndarray) -> Tensor:
    return strided(array)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_float32_stays_near_float64(name: str) -> None:
    entry = TABLE[name]
    for number, sample in enumerate(samples_of(name)):
        what = f"{name} sample {number} {describe(sample)}"
        exact, exact_leaves = run(name, sample, ours, entry.function)
        single, single_leaves = run(name, sample, ours_single, entry.function)
        kept = [(a, b) for a, b in zip(single, exact) if b.requires_grad]
        for a, b in kept:
            assert a.dtype == gradlite.float32 or b.dtype != gradlite.float64, what
            near(a, b, 2e-5, what)
        if not kept:
            continue
        weights = weights_for([b for _, b in kept])
        sum((b * wrap(w)).sum() for (_, b), w in zip(kept, weights)).backward()
        sum((a * wrap(w.astype(np.float32))).sum() for (a, _), w in zip(kept, weights)).backward()
        for a, b in zip(single_leaves, exact_leaves):
            if b.grad is not None:
                assert a.grad.dtype == gradlite.float32, f"{what}: gradient dtype"
                near(a.grad, b.grad, 2e-4, f"{what}: gradient")


def ours_single(array: np.ndarray) -> Tensor:
    single = array.astype(np.float32) if array.dtype == np.float64 else array
    return gradlite.tensor(single, requires_grad=wants_grad(array))


def near(actual: Any, expected: Any, rtol: float, what: str) -> None:
    a, e = numpy_of(actual).astype(np.float64), numpy_of(expected).astype(np.float64)
    scale = max(1.0, float(np.abs(e[np.isfinite(e)]).max(initial=0.0)))
    np.testing.assert_allclose(a, e, rtol=rtol, atol=rtol * scale, err_msg=what)


@pytest.mark.parametrize("name", DIFFERENTIABLE)
def test_gradients_share_no_memory_with_inputs_or_each_other(name: str) -> None:
    for number, sample in enumerate(samples_of(name)):
        what = f"{name} sample {number} {describe(sample)}"
        outs, inputs = run(name, sample, ours, TABLE[name].function)
        kept = [o for o in outs if o.requires_grad]
        if not kept:
            continue
        sum((o * wrap(w)).sum() for o, w in zip(kept, weights_for(kept))).backward()
        grads = [leaf.grad.array for leaf in inputs if leaf.grad is not None]
        others = [leaf.array for leaf in inputs] + [o.array for o in outs]
        for place, grad in enumerate(grads):
            for other in others + grads[:place]:
                assert not np.shares_memory(grad, other), f"{what}: gradient {place}"


@pytest.mark.parametrize("name", [n for n in NAMES if list(TABLE[n].errors())])
def test_refuses_what_pytorch_refuses(name: str) -> None:
    entry = TABLE[name]
    for number, sample in enumerate(entry.errors()):
        what = f"{name} error sample {number} {describe(sample)}"
        with pytest.raises(Exception) as expected:
            run(name, sample, theirs, torch_function(entry))
        with pytest.raises(expected.type):
            run(name, sample, ours, entry.function)
            pytest.fail(f"{what}: PyTorch raises {expected.type.__name__}")


def edited_in_place(name: str, sample: Sample, make: Any) -> Any:
    """The in-place method on a clone of the first argument, and a backward pass after it."""
    args, kwargs = convert(sample.args, make), convert(sample.kwargs, make)
    target = args[0].clone()
    before = target._version
    try:
        result = getattr(target, f"{name}_")(*args[1:], **kwargs)
    except (RuntimeError, NotImplementedError) as error:
        return type(error), None, None
    assert result is target and target._version > before
    failed = None
    if target.requires_grad:
        try:
            target.sum().backward()
        except NotImplementedError:
            return None, None, None  # PyTorch has no gradient for this one in place
        except RuntimeError as error:
            failed = type(error)
    return failed, target, leaves((args, kwargs))


@pytest.mark.parametrize("name", [n for n in NAMES if TABLE[n].inplace])
def test_the_in_place_form_behaves_as_pytorchs(name: str) -> None:
    entry = TABLE[name]
    for number, sample in enumerate(samples_of(name)):
        what = f"{name}_ sample {number} {describe(sample)}"
        make = ours if entry.differentiable else ours_constant
        mine = edited_in_place(name, sample, make)
        yours = edited_in_place(name, sample, theirs if entry.differentiable else torch.tensor)
        if yours[:2] == (None, None):
            continue
        assert mine[0] == yours[0], f"{what}: {mine[0]} instead of {yours[0]}"
        if yours[1] is None:
            continue
        close(mine[1], yours[1], sample.rtol, what)
        for a, b in zip(mine[2], yours[2]):
            if yours[0] is None:
                assert (a.grad is None) == (b.grad is None), what
                if b.grad is not None:
                    close(a.grad, b.grad, sample.rtol, f"{what}: gradient")
