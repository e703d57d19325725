"""A linear layer and a relu behind it in a Sequential: one node, which nobody can tell from two."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite as g
from gradlite import nn
from gradlite.ops.linear_relu import LinearRelu

F = nn.functional


def _model(*sizes: int) -> Any:
    g.manual_seed(0)
    layers: list[Any] = []
    for fan_in, fan_out in zip(sizes, sizes[1:]):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    return nn.Sequential(*layers)


def _by_calls(model: Any, x: Any) -> Any:
    for layer in model:
        x = F.relu(x) if isinstance(layer, nn.ReLU) else F.linear(x, layer.weight, layer.bias)
    return x


def _input(*shape: int, seed: int = 1, requires_grad: bool = True) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return g.tensor(values, requires_grad=requires_grad)


def _graph(node: Any) -> Any:
    return None if node is None else (node.name(), [_graph(n) for n, _ in node.next_functions])


def _is_one_node(out: Any) -> bool:
    return out._edge.op is LinearRelu


@pytest.mark.parametrize("shape", [(5, 4), (2, 3, 4), (4,)])
@pytest.mark.parametrize("dtype", [g.float32, g.float64])
def test_values_and_gradients_are_those_of_two_calls(shape: tuple[int, ...], dtype: Any) -> None:
    results = []
    for run in (lambda m, x: m(x), _by_calls):
        model, x = _model(4, 6, 3).to(dtype), _input(*shape).detach().to(dtype).requires_grad_()
        out = run(model, x)
        (out * out).sum().backward()
        results.append([out.detach().numpy(), x.grad.numpy()])
        results[-1] += [p.grad.numpy() for p in model.parameters()]
    assert _is_one_node(_model(4, 6).to(dtype)(x))
    for one, two in zip(*results):
        np.testing.assert_array_equal(one, two)


@pytest.mark.parametrize("look", ["before", "after", "twice"])
def test_who_looks_sees_the_graph_of_two_calls(look: str) -> None:
    model, x = _model(4, 6, 3), _input(5, 4)
    out, expected = model(x), _by_calls(model, x)
    assert _is_one_node(out) and _is_one_node(_model(4, 6)(x))
    if look != "after":
        assert _graph(out.grad_fn) == _graph(expected.grad_fn)
        assert not _is_one_node(out)
    if look == "twice":
        inner = out.grad_fn.next_functions[0][0]
        assert inner is out.grad_fn.next_functions[0][0]
        assert inner._sequence_nr() < out.grad_fn._sequence_nr()
    out.sum().backward()
    grads = [p.grad.numpy().copy() for p in model.parameters()]
    if look == "after":
        assert _graph(out.grad_fn) == _graph(expected.grad_fn)
    with pytest.raises(RuntimeError, match="a second time"):
        out.sum().backward()
    model.zero_grad()
    expected.sum().backward()
    for grad, p in zip(grads, model.parameters()):
        np.testing.assert_array_equal(grad, p.grad.numpy())


def test_a_hook_on_the_inner_node_sees_its_gradient() -> None:
    model, x = _model(4, 6), _input(5, 4)
    seen: list[Any] = []
    out = model(x)
    inner = out.grad_fn.next_functions[0][0]
    assert inner.name() == "AddmmBackward0"
    inner.register_prehook(lambda grads: seen.append(grads[0].numpy().copy()))
    out.sum().backward()
    np.testing.assert_array_equal(seen[0], (out.detach().numpy() > 0).astype(np.float32))


@pytest.mark.parametrize("asks", [False, True])
def test_a_hook_may_look_at_the_graph_that_is_being_run(asks: bool) -> None:
    model, x = _model(4, 6, 6, 3), _input(5, 4)
    hidden = model[:4](x)
    out = model[4:](hidden)
    names: list[Any] = []
    out.register_hook(lambda grad: names.append(_graph(hidden.grad_fn)))
    if asks:
        (found,) = g.autograd.grad(out.sum(), x)
    else:
        out.sum().backward()
        found = x.grad
    expected_x = _input(5, 4)
    _by_calls(model, expected_x).sum().backward()
    assert names == [_graph(_by_calls(model[:4], expected_x).grad_fn)]
    np.testing.assert_array_equal(found.numpy(), expected_x.grad.numpy())


def test_gradients_of_some_inputs_and_of_gradients() -> None:
    results = []
    for run in (lambda m, x: m(x), _by_calls):
        model, x = _model(4, 6, 3).double(), _input(5, 4).detach().double().requires_grad_()
        out = (run(model, x) ** 2).sum()
        first = g.autograd.grad(out, [x, model[0].weight], create_graph=True)
        second = g.autograd.grad((first[0] ** 2).sum(), [x, *model.parameters()])
        results.append([t.detach().numpy() for t in (*first, *second)])
    for one, two in zip(*results):
        np.testing.assert_allclose(one, two, rtol=1e-12)


@pytest.mark.parametrize("frozen", [["weight"], ["bias"], ["weight", "bias"], []])
@pytest.mark.parametrize("requires_grad", [True, False])
def test_what_is_frozen_gets_no_gradient(frozen: list[str], requires_grad: bool) -> None:
    outs, grads = [], []
    for run in (lambda m, x: m(x), _by_calls):
        model, x = _model(4, 6), _input(5, 4, requires_grad=requires_grad)
        for name in frozen:
            getattr(model[0], name).requires_grad_(False)
        out = run(model, x)
        outs.append((out.requires_grad, _graph(out.grad_fn)))
        if out.requires_grad:
            out.sum().backward()
        grads.append([None if t.grad is None else t.grad.numpy() for t in (x, *model.parameters())])
    assert outs[0] == outs[1]
    for one, two in zip(*grads):
        assert (one is None) == (two is None)
        if one is not None:
            np.testing.assert_array_equal(one, two)


def test_modes() -> None:
    model, x = _model(4, 6), _input(5, 4)
    with g.no_grad():
        assert not model(x).requires_grad
    with g.inference_mode():
        out = model(x)
        made_inside = g.ones(5, 4)
    assert out.is_inference()
    for run in (model, lambda x: _by_calls(model, x)):
        with pytest.raises(RuntimeError, match="Inference tensors cannot be saved"):
            run(made_inside)


@pytest.mark.parametrize("edited", ["weight", "input", "output"])
def test_edits_in_place_are_found(edited: str) -> None:
    messages = []
    for run in (lambda m, x: m(x), _by_calls):
        model, x = _model(3, 4, 6), _input(5, 3)
        hidden = run(model[:2], x)
        out = run(model[2:], hidden)
        total = out.sum()
        with g.no_grad():
            {"weight": model[2].weight, "input": hidden, "output": out}[edited].add_(1)
        with pytest.raises(RuntimeError, match="modified by an inplace operation") as caught:
            total.backward()
        messages.append(str(caught.value))
    assert messages[0] == messages[1]


def test_saved_tensors_are_packed_in_the_order_of_two_calls() -> None:
    shapes: list[Any] = []

    def pack(tensor: Any) -> Any:
        shapes.append(tuple(tensor.shape))
        return tensor.numpy().copy()

    orders = []
    for run in (lambda m, x: m(x), _by_calls):
        model, x = _model(4, 6, 3), _input(5, 4)
        with g.autograd.graph.saved_tensors_hooks(pack, g.tensor):
            out = run(model, x)
        assert _is_one_node(out) == (run is not _by_calls)
        assert _graph(out.grad_fn) == _graph(_by_calls(model, x).grad_fn)
        out.sum().backward()
        orders.append((shapes[:], [p.grad.tolist() for p in model.parameters()]))
        shapes.clear()
    assert len(orders[0][0]) == 6
    assert orders[0] == orders[1]


def _double(self: Any, input: Any) -> Any:
    return input * 2


def _hooked(model: Any, at: int) -> None:
    model[at].register_forward_hook(lambda module, args, out: out * 2)


def _own_forward(model: Any, at: int) -> None:
    model[at].forward = lambda input: F.linear(input, model[0].weight) if at == 0 else input * 2


@pytest.mark.parametrize("change", [_hooked, _own_forward])
@pytest.mark.parametrize("at", [0, 1])
def test_a_layer_that_was_changed_is_called(change: Callable[..., None], at: int) -> None:
    model, x = _model(4, 6), _input(5, 4)
    plain = model(x)
    change(model, at)
    changed = model(x)
    assert not _is_one_node(changed)
    expected = model[1](model[0](x))
    np.testing.assert_array_equal(changed.detach().numpy(), expected.detach().numpy())
    assert not np.array_equal(changed.detach().numpy(), plain.detach().numpy())


@pytest.mark.parametrize("kind", [nn.Linear, nn.ReLU])
def test_a_class_that_was_changed_is_called(kind: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    model, x = _model(4, 4), _input(5, 4)
    monkeypatch.setattr(kind, "forward", _double)
    expected = F.relu(x * 2) if kind is nn.Linear else F.linear(x, *model[0].parameters()) * 2
    np.testing.assert_array_equal(model(x).detach().numpy(), expected.detach().numpy())


def test_anomaly_mode_names_the_op_that_failed() -> None:
    model, x = _model(4, 6), _input(5, 4)
    with g.no_grad():
        model[0].weight.fill_(float("inf"))
    with pytest.warns(UserWarning), g.autograd.detect_anomaly():
        with pytest.raises(RuntimeError, match="'AddmmBackward0' returned nan"):
            model(x).sum().backward()


def test_wrong_sizes_are_named_as_by_the_layer() -> None:
    model = _model(4, 6)
    for run in (model, lambda x: _by_calls(model, x)):
        with pytest.raises(RuntimeError, match=r"cannot be multiplied \(5x3 and 4x6\)"):
            run(_input(5, 3))
        with pytest.raises(RuntimeError, match="must have the same dtype"):
            run(_input(5, 4).double())


def test_copies_have_graphs_of_their_own() -> None:
    model, x = _model(4, 6), _input(5, 4)
    twin = copy.deepcopy(model)
    (model(x).sum() + twin(x).sum()).backward()
    np.testing.assert_array_equal(model[0].weight.grad.numpy(), twin[0].weight.grad.numpy())


def test_under_autocast_and_after() -> None:
    model, x = _model(4, 6), _input(5, 4)
    with g.autocast("cpu", dtype=g.bfloat16):
        assert model(x).dtype is g.bfloat16
    assert _is_one_node(model(x))
