"""Multi-head attention: every way through it against PyTorch, and what it asks of a GPU."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests import array_calls, cublaslt_stand_in, cupy_stand_in
from tests.cuda_on_cpu import compiler
from tests.oracle import same

T, S, N, E, HEADS = 3, 4, 2, 6, 2
PLAIN: dict[str, Any] = {}
OPTIONS = {
    "plain": PLAIN,
    "without bias": {"bias": False},
    "more keys": {"add_bias_kv": True, "add_zero_attn": True},
    "its own sizes": {"kdim": 4, "vdim": 5},
}
MASKS = ["none", "padding", "bool", "floats", "one per head", "padding and floats"]


def _numbers(shape: tuple[int, ...], seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal(shape)


def _layer(library: Any, options: dict[str, Any], device: str = "cpu") -> Any:
    layer = library.nn.MultiheadAttention(E, HEADS, **options, dtype=library.float64)
    for seed, parameter in enumerate(layer.parameters()):
        parameter.data.copy_(library.tensor(_numbers(tuple(parameter.shape), seed) / 2))
    return layer.to(device)


def _masks(library: Any, kind: str, keys: int, device: str) -> dict[str, Any]:
    hidden = np.zeros((N, keys), bool)
    hidden[0, -1] = True
    floats = np.where(np.tri(T, keys, 1), 0, -np.inf) + 0.1 * _numbers((T, keys), 9)
    made: dict[str, Any] = {
        "padding": {"key_padding_mask": hidden},
        "bool": {"attn_mask": ~np.tri(T, keys, 1, bool)},
        "floats": {"attn_mask": floats},
        "one per head": {"attn_mask": _numbers((N * HEADS, T, keys), 8)},
        "padding and floats": {
            "key_padding_mask": np.where(hidden, -np.inf, 0), "attn_mask": floats},
    }.get(kind, {})  # fmt: skip
    return {name: library.tensor(mask).to(device) for name, mask in made.items()}


def _inputs(library: Any, kind: str, options: dict[str, Any], device: str) -> list[Any]:
    """Queries, keys and values: one tensor, or two, or three."""
    sizes = [(T, E), (S, options.get("kdim", E)), (S, options.get("vdim", E))]
    first = options.get("batch_first", False)
    given = []
    for seed, (rows, width) in enumerate(sizes):
        values = _numbers((rows, N, width), seed + 20)
        values = np.ascontiguousarray(values.swapaxes(0, 1)) if first else values
        given.append(library.tensor(values).to(device).requires_grad_())
    if kind == "self":
        return [given[0]] * 3
    return [given[0], given[1], given[1] if kind == "memory" else given[2]]


def _run(library: Any, kind: str, mask: str, options: Any, call: Any, device: str = "cpu") -> Any:
    layer = _layer(library, options, device)
    inputs = _inputs(library, kind, options, device)
    keys = T if kind == "self" else S
    output, weights = layer(*inputs, **_masks(library, mask, keys, device), **call)
    total = (output * output).sum()
    if weights is not None:
        total = total + (weights * weights).sum()
    total.backward()
    results = [output.detach(), weights if weights is None else weights.detach()]
    leaves = [*{id(x): x for x in inputs}.values(), *layer.parameters()]
    return [*results, *[leaf.grad for leaf in leaves]]


CASES = [
    (name, kind, first, call)
    for name, kind, first, call in itertools.product(
        OPTIONS,
        ["self", "memory", "apart"],
        [False, True],
        [{}, {"need_weights": False}, {"average_attn_weights": False}],
    )
    if name != "its own sizes" or kind == "apart"
]


@pytest.mark.parametrize(("name", "kind", "first", "call"), CASES, ids=str)
def test_values_and_gradients(name: str, kind: str, first: bool, call: dict[str, Any]) -> None:
    options = {**OPTIONS[name], "batch_first": first}

    def program(library: Any) -> Any:
        return [_run(library, kind, mask, options, call) for mask in MASKS]

    same(program, rtol=1e-9)


@pytest.mark.parametrize(("name", "kind", "first", "call"), CASES[::2], ids=str)
def test_a_gpu_gives_the_same(
    monkeypatch: pytest.MonkeyPatch, name: str, kind: str, first: bool, call: dict[str, Any]
) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy_stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)
    options = {**OPTIONS[name], "batch_first": first}
    for mask in ("none", "padding and floats"):
        found = _run(gradlite, kind, mask, options, call, "cuda")
        expected = _run(gradlite, kind, mask, options, call)
        for ours, reference in zip(found, expected, strict=True):
            assert (ours is None) == (reference is None)
            if ours is not None:
                gradlite.testing.assert_close(ours.cpu(), reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("need_weights", [False, True])
@pytest.mark.parametrize("zeros", [False, True])
@pytest.mark.parametrize("which", [("static_k",), ("static_v",), ("static_k", "static_v")])
def test_keys_and_values_that_are_projected_already(
    which: tuple[str, ...], zeros: bool, need_weights: bool
) -> None:
    def program(library: Any) -> Any:
        query, key, value = _inputs(library, "apart", {}, "cpu")
        given = {
            name: library.tensor(_numbers((N * HEADS, S, E // HEADS), place)).requires_grad_()
            for place, name in enumerate(which)
        }
        weights = [library.tensor(_numbers(s, 5)) for s in ((3 * E, E), (3 * E,), (E, E), (E,))]
        output, attention = library.nn.functional.multi_head_attention_forward(
            *(query, key, value, E, HEADS, *weights[:2], None, None, zeros, 0.0, *weights[2:]),
            **given,
            **_masks(library, "padding", S, "cpu"),
            need_weights=need_weights,
        )
        output.square().sum().backward()
        attention = attention if attention is None else attention.detach()
        return output.detach(), attention, query.grad, *[g.grad for g in given.values()]

    same(program, rtol=1e-9)


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("need_weights", [False, True])
def test_dropout_is_that_of_the_weights(need_weights: bool, batch_first: bool) -> None:
    options = {"batch_first": batch_first, "dropout": 0.5}
    layer = _layer(gradlite, options)
    (x, *_) = _inputs(gradlite, "self", options, "cpu")
    gradlite.manual_seed(3)
    output, weights = layer(x, x, x, need_weights=need_weights, average_attn_weights=False)
    assert (weights is not None) == need_weights

    rows = x.transpose(0, 1) if batch_first else x
    projected = rows @ layer.in_proj_weight.mT + layer.in_proj_bias
    q, k, v = (
        part.reshape(T, N, HEADS, E // HEADS).permute(1, 2, 0, 3) for part in projected.chunk(3, -1)
    )
    gradlite.manual_seed(3)
    kept = nn.functional.dropout((q @ k.mT / (E // HEADS) ** 0.5).softmax(-1), 0.5)
    joined = (kept @ v).permute(2, 0, 1, 3).reshape(T, N, E)
    expected = joined @ layer.out_proj.weight.mT + layer.out_proj.bias
    expected = expected.transpose(0, 1) if batch_first else expected
    gradlite.testing.assert_close(output, expected)
    mine = gradlite.autograd.grad(output.square().sum(), x)[0]
    gradlite.testing.assert_close(mine, gradlite.autograd.grad(expected.square().sum(), x)[0])
    if need_weights:
        gradlite.testing.assert_close(weights, kept)


@pytest.mark.parametrize("need_weights", [False, True])
def test_a_query_without_keys(need_weights: bool) -> None:
    """With weights it is NaN, and else 0 in dropout too, as without."""

    def program(library: Any) -> Any:
        layer = _layer(library, {"dropout": 0.0})
        x = _inputs(library, "self", {}, "cpu")[0]
        hidden = library.ones(T, T, dtype=library.bool).triu(0)
        return layer(x, x, x, attn_mask=hidden, need_weights=need_weights)[0].detach()

    same(program)
    layer = _layer(gradlite, {"dropout": 0.5})
    x = _inputs(gradlite, "self", {}, "cpu")[0]
    hidden = gradlite.ones(T, T, dtype=gradlite.bool).triu(0)
    output = layer(x, x, x, attn_mask=hidden, need_weights=need_weights)[0]
    assert output[-1].isfinite().all()
    assert bool(output[0].isnan().all()) == need_weights


# Forward and backward, with the gradients of four parameters and of the inputs.
CALLS = {
    ("self", False, False): (4, 7), ("self", False, True): (3, 6),
    ("self", True, False): (7, 10), ("self", True, True): (7, 11),
    ("memory", False, False): (5, 12), ("memory", False, True): (4, 10),
    ("memory", True, False): (8, 14), ("memory", True, True): (10, 17),
}  # fmt: skip


@pytest.mark.parametrize(("kind", "need_weights", "first"), CALLS, ids=str)
def test_what_it_asks_of_a_gpu(
    monkeypatch: pytest.MonkeyPatch, kind: str, need_weights: bool, first: bool
) -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy_stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)
    options = {"batch_first": first}
    layer = _layer(gradlite, options, "cuda").float()
    inputs = [
        x.detach().float().requires_grad_() for x in _inputs(gradlite, "memory", options, "cuda")
    ]
    asked = [inputs[0]] * 3 if kind == "self" else [inputs[0], inputs[1], inputs[1]]
    for _ in range(2):  # what is made once is not counted
        forward: dict[str, int] = {}
        backward: dict[str, int] = {}
        with array_calls.counting(forward):
            output = layer(*asked, need_weights=need_weights)[0]
        slope = gradlite.ones_like(output)
        leaves = [*layer.parameters(), *{id(x): x for x in asked}.values()]
        with array_calls.counting(backward):
            gradlite.autograd.grad(output, leaves, slope)
    assert (sum(forward.values()), sum(backward.values())) == CALLS[kind, need_weights, first]
