"""Every layer on the inputs of PyTorch's own tests, with PyTorch's weights, against PyTorch.

``module_db`` of the installed PyTorch says what to build and to call; what is compared is what both
libraries make of it: values, gradients, buffers, the state_dict, what is printed, exceptions.
"""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.oracle import normalised, prefix, torch
from tests.torch_databases import AbsentError, Translation, module_db

TOLERANCES = {"float32": 1e-4, "float64": 1e-10}

# Layers that gradlite has not.
MISSING = {
    "nn.FractionalMaxPool2d",
    "nn.FractionalMaxPool3d",
    "nn.LinearCrossEntropyLoss",
}
# What they return in training depends on the generator, which is another one.
RANDOM = ("nn.Dropout", "nn.AlphaDropout", "nn.FeatureAlphaDropout", "nn.RReLU")


def layers() -> Iterator[tuple[Any, Any]]:
    """The entries of the layers that gradlite has, and its classes."""
    for info in module_db():
        # Lazy layers have no weights to copy before the first input: tests/nn/test_lazy.py
        if info.name not in MISSING and not info.name.startswith("nn.Lazy"):
            yield info, getattr(nn, info.name.removeprefix("nn."))


def leaves(value: Any) -> list[Any]:
    """The tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, (list, tuple)):
        return [leaf for item in value for leaf in leaves(item)]
    if isinstance(value, dict):
        return leaves(list(value.values()))
    return [value] if isinstance(value, (torch.Tensor, gradlite.Tensor)) else []


def close(ours: Any, theirs: Any, tolerance: float, what: str) -> None:
    assert (ours is None) == (theirs is None), f"{what} is {ours}, PyTorch has {theirs}"
    if theirs is None:
        return
    assert str(ours.dtype) == normalised(theirs.dtype), what
    assert ours.requires_grad == theirs.requires_grad, what
    found, expected = ours.detach().numpy(), theirs.detach().numpy()
    assert found.shape == expected.shape, what
    np.testing.assert_allclose(found, expected, tolerance, tolerance, err_msg=what)


def built(info: Any, cls: Any, given: Any, dtype: Any, training: bool) -> tuple[Any, Any]:
    """A layer of PyTorch and one of gradlite, with the same weights."""
    options = dict(given.kwargs)
    takes_dtype = "dtype" in inspect.signature(info.module_cls.__init__).parameters
    if takes_dtype:
        options["dtype"] = dtype
    theirs = info.module_cls(*given.args, **options)
    translated = Translation()
    ours = cls(*translated(list(given.args)), **translated(options))
    if not takes_dtype:
        theirs, ours = theirs.to(dtype), ours.to(translated(dtype))
    assert list(ours.state_dict()) == list(theirs.state_dict())
    ours.load_state_dict(Translation()(dict(theirs.state_dict())))
    return ours.train(training), theirs.train(training)


def compare(ours: Any, theirs: Any, given: Any, tolerance: float, random: bool) -> None:
    """Fails where two layers differ in what they are, or in a step on the same input."""
    assert repr(ours) == normalised(repr(theirs))
    for kind in ("named_parameters", "named_buffers", "named_modules"):
        names = [name for name, _ in getattr(theirs, kind)()]
        assert [name for name, _ in getattr(ours, kind)()] == names
    if given is None:
        return
    translated = Translation()
    args, kwargs = translated(list(given.args)), translated(dict(given.kwargs))
    expected = theirs(*given.args, **given.kwargs)
    result = ours(*args, **kwargs)
    assert type(result).__name__ == type(expected).__name__
    found, wanted = leaves(result), leaves(expected)
    assert len(found) == len(wanted)
    if random:
        for a, b in zip(found, wanted):
            assert a.shape == tuple(b.shape)
            assert a.requires_grad == b.requires_grad
        return
    for place, (a, b) in enumerate(zip(found, wanted)):
        close(a, b, tolerance, f"output {place}")
    pairs = [(a, b) for a, b in zip(found, wanted) if b.requires_grad]
    if pairs:
        generator = np.random.default_rng(7)
        weights = [generator.standard_normal(tuple(b.shape)) for _, b in pairs]
        ones, others = zip(*pairs)
        gradlite.autograd.backward(
            ones, [gradlite.tensor(w, dtype=a.dtype) for w, a in zip(weights, ones)]
        )
        torch.autograd.backward(
            others, [torch.tensor(w, dtype=b.dtype) for w, b in zip(weights, others)]
        )
    for (name, a), (_, b) in zip(ours.named_parameters(), theirs.named_parameters()):
        close(a.grad, b.grad, 10 * tolerance, f"the gradient of {name}")
    inputs = leaves([args, kwargs]), leaves([list(given.args), dict(given.kwargs)])
    for place, (a, b) in enumerate(zip(*inputs)):
        if b.is_leaf:
            close(a.grad, b.grad, 10 * tolerance, f"the gradient of input {place}")
    for (name, a), (_, b) in zip(ours.named_buffers(), theirs.named_buffers()):
        close(a, b, tolerance, f"the buffer {name}")


def differences(dtype: Any, training: bool) -> tuple[int, list[str]]:
    """How many layers were compared, and what was different."""
    name = normalised(dtype).rpartition(".")[2]
    failed, count = [], 0
    for info, cls in layers():
        if dtype not in info.dtypes:
            continue
        inputs = info.module_inputs_func(
            info, device="cpu", dtype=dtype, requires_grad=True, training=training
        )
        random = training and info.name.startswith(RANDOM)
        for number, case in enumerate(inputs):
            count += 1
            try:
                pair = built(info, cls, case.constructor_input, dtype, training)
                compare(*pair, case.forward_input, TOLERANCES[name], random)
            except Exception as error:
                what = f"{info.name} {number} {case.desc}: "
                failed.append(what + f"{type(error).__name__}: {str(error).strip()[:300]}")
    return count, failed


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("training", [True, False], ids=["train", "eval"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layers_compute_what_pytorch_computes(dtype: str, training: bool) -> None:
    count, failed = differences(getattr(torch, dtype), training)
    assert not failed, f"{len(failed)} of {count}:\n" + "\n".join(failed)
    assert count > 800


@pytest.mark.filterwarnings("ignore")
def test_a_layer_that_computes_something_else_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """The negative control: a formula, a gradient, a buffer and a name that are wrong."""
    tanh, linear, norm = nn.Tanh.forward, nn.Linear.forward, nn.BatchNorm2d.forward

    def forward_of_tanh(self: Any, input: Any) -> Any:
        return tanh(self, input) * 1.001

    def forward_of_linear(self: Any, input: Any) -> Any:
        return (
            linear(self, input) + (self.weight * 1e-3).sum() - (self.weight * 1e-3).sum().detach()
        )

    def forward_of_norm(self: Any, input: Any) -> Any:
        result = norm(self, input)
        if self.training and self.running_var is not None:
            self.running_var.mul_(1.001)
        return result

    monkeypatch.setattr(nn.Tanh, "forward", forward_of_tanh)
    monkeypatch.setattr(nn.Linear, "forward", forward_of_linear)
    monkeypatch.setattr(nn.BatchNorm2d, "forward", forward_of_norm)
    monkeypatch.setattr(nn.GELU, "extra_repr", lambda self: "")
    chosen = ("nn.Tanh", "nn.Linear", "nn.BatchNorm2d", "nn.GELU", "nn.ReLU")
    few = [info for info in module_db() if info.name in chosen]
    monkeypatch.setattr(f"{__name__}.module_db", lambda: few)
    _, failed = differences(torch.float64, True)
    assert {text.split()[0] for text in failed} == set(chosen) - {"nn.ReLU"}


@pytest.mark.filterwarnings("ignore")
def test_layers_refuse_what_pytorch_refuses() -> None:
    count, failed = 0, []
    for info, cls in layers():
        if info.module_error_inputs_func is None:
            continue
        cases = info.module_error_inputs_func(
            info, device="cpu", dtype=torch.float32, requires_grad=False, training=True
        )
        for number, case in enumerate(cases):
            given = case.module_error_input
            theirs = error_of(info.module_cls, given, lambda value: value)
            try:
                ours = error_of(cls, given, Translation())
            except AbsentError:
                continue
            count += 1
            if ours != theirs:
                failed.append(f"{info.name} {number}: {ours}, PyTorch has {theirs}")
    assert not failed, "\n".join(failed)
    assert count > 60


def error_of(cls: Any, given: Any, translated: Any) -> Any:
    """The type and the message's first sentence of what a layer raises; None of none."""
    build, call = given.constructor_input, given.forward_input
    try:
        layer = cls(*translated(list(build.args)), **translated(dict(build.kwargs)))
        if call is not None:
            layer(*translated(list(call.args)), **translated(dict(call.kwargs)))
    except AbsentError:
        raise
    except Exception as error:
        return type(error).__name__, prefix(str(error))
    return None


def test_the_layers_that_are_missing_are_missing() -> None:
    names = {info.name for info in module_db()}
    assert {name for name in names if not hasattr(nn, name.removeprefix("nn."))} == MISSING
