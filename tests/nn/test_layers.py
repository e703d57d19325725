"""Every layer of the table against PyTorch: repr, state, outputs, gradients, copies."""

from __future__ import annotations

import copy
import pickle
import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.nn import cases_rest, cases_volumes  # noqa: F401
from tests.nn.cases import CASES, Case, Constant
from tests.nn.programs import fill, values
from tests.oracle import same


def as_tensors(library: Any, value: Any, leaves: list[Any]) -> Any:
    """Arrays as tensors; floating ones require grad and are collected."""
    if isinstance(value, tuple):
        return tuple(as_tensors(library, v, leaves) for v in value)
    if isinstance(value, Constant):
        return library.tensor(value.array)
    if not isinstance(value, np.ndarray):
        return value
    tensor = library.tensor(value, requires_grad=value.dtype.kind == "f")
    if tensor.requires_grad:
        leaves.append(tensor)
    return tensor


def tensors_in(value: Any) -> list[Any]:
    if isinstance(value, (tuple, list)):
        return [t for v in value for t in tensors_in(v)]
    return [] if value is None else [value]


def call(library: Any, module: Any, case: Case) -> tuple[list[Any], list[Any]]:
    """The outputs and the inputs that require grad, after a backward pass."""
    leaves: list[Any] = []
    arguments = as_tensors(library, case.inputs, leaves)
    options = {k: as_tensors(library, v, []) for k, v in case.kwargs.items()}
    outputs = tensors_in(module(*arguments, **options))
    loss = 0.0
    for number, output in enumerate(outputs):
        if output.requires_grad:
            loss = loss + (output * library.tensor(values(90 + number, *output.shape))).sum()
    if outputs[0].requires_grad:
        loss.backward()  # type: ignore[attr-defined]
    return outputs, leaves


def report(library: Any, case: Case, train: bool) -> Any:
    """What can be seen of a layer before and after it is used."""
    with warnings.catch_warnings():
        # What PyTorch has to say about nested tensors.
        warnings.filterwarnings("ignore", "enable_nested_tensor")
        module = fill(library, case.make(library)).train(train)
    before = (repr(module), list(module.state_dict()), [n for n, _ in module.named_parameters()])
    outputs, leaves = call(library, module, case)
    return [
        before,
        [o.detach() for o in outputs],
        [o.requires_grad for o in outputs],
        [leaf.grad for leaf in leaves],
        {name: p.grad for name, p in module.named_parameters()},
        {name: b.clone() for name, b in module.named_buffers()},
    ]


@pytest.mark.parametrize("name", CASES)
def test_layer(name: str) -> None:
    case = CASES[name]
    for train in case.modes:
        same(
            lambda library, train=train: report(library, case, train),
            warns=case.warns,
            rtol=case.tolerance,
            atol=case.tolerance,
        )


@pytest.mark.filterwarnings("ignore:reduction. 'mean' divides")
@pytest.mark.parametrize("name", CASES)
def test_copies_compute_the_same(name: str) -> None:
    case = CASES[name]
    module = fill(gradlite, case.make(gradlite)).eval()
    expected = [o.detach().numpy() for o in call(gradlite, module, case)[0]]
    other = case.make(gradlite).double().eval()
    other.load_state_dict(module.state_dict())
    for twin in (copy.deepcopy(module), pickle.loads(pickle.dumps(module)), other):
        assert repr(twin) == repr(module)
        outputs = [o.detach().numpy() for o in call(gradlite, twin, case)[0]]
        for actual, wanted in zip(outputs, expected, strict=True):
            np.testing.assert_array_equal(actual, wanted)


def test_every_layer_is_in_the_table() -> None:
    bases = {"Module", "RNNBase", "RNNCellBase"}
    without_case = {
        name
        for name in nn.__all__
        if isinstance(getattr(nn, name), type)
        and issubclass(getattr(nn, name), nn.Module)
        and not any(label.split("(")[0].split()[0] == name for label in CASES)
    }
    containers = {"Sequential", "ModuleList", "ModuleDict", "ParameterList", "ParameterDict"}
    elsewhere = {name for name in nn.__all__ if name.startswith("Lazy")}  # test_lazy.py
    elsewhere |= {"AdaptiveLogSoftmaxWithLoss", "DataParallel"}  # test_adaptive.py
    assert without_case == bases | containers | elsewhere


def test_layers_are_pytorchs_by_name_and_signature() -> None:
    import inspect

    import torch

    for name in nn.__all__:
        ours, theirs = getattr(nn, name), getattr(torch.nn, name)
        if not isinstance(ours, type) or not issubclass(ours, nn.Module):
            continue
        if name in ("RNN", "LSTM", "GRU", "Module", "Sequential"):
            continue  # Their signatures are *args.
        expected = [
            p
            for p in inspect.signature(theirs.__init__).parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        ]
        actual = {
            p.name: p
            for p in inspect.signature(ours.__init__).parameters.values()
            if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)
        }
        for parameter in expected:
            if name == "Hardtanh" and parameter.name in ("min_value", "max_value"):
                continue
            assert parameter.name in actual, (name, parameter.name)
            if isinstance(parameter.default, (int, float, str, bool, type(None))):
                assert actual[parameter.name].default == parameter.default, (name, parameter.name)
        positional = [p.name for p in expected if p.kind is p.POSITIONAL_OR_KEYWORD]
        ours_positional = [p.name for p in actual.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
        ignored = ("min_value", "max_value")
        assert ours_positional == [p for p in positional if p not in ignored], name
