"""Attention over no samples, no queries and no keys; keys that were projected before."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import same

MODULES: dict[str, Any] = {
    "encoder layer": lambda nn: nn.TransformerEncoderLayer(4, 2, 8, dropout=0.0),
    "decoder layer": lambda nn: nn.TransformerDecoderLayer(4, 2, 8, dropout=0.0),
    "transformer": lambda nn: nn.Transformer(4, 2, 1, 1, 8, dropout=0.0, batch_first=True),
}


@pytest.mark.parametrize("name", MODULES)
@pytest.mark.parametrize("training", [True, False])
def test_no_samples(name: str, training: bool) -> None:
    def program(library: Any) -> Any:
        model = fill(library, MODULES[name](library.nn)).train(training)
        shape = (0, 3, 4) if name == "transformer" else (3, 0, 4)
        inputs = [tensor(library, 1, *shape, requires_grad=True)]
        inputs += [] if name == "encoder layer" else [tensor(library, 2, *shape)]
        output = model(*inputs)
        output.sum().backward()
        return tuple(output.shape), inputs[0].grad

    same(program)


@pytest.mark.parametrize("need_weights", [True, False])
@pytest.mark.parametrize(
    ("queries", "keys"), [((0, 2, 4), (0, 2, 4)), ((3, 0, 4), (3, 0, 4)), ((3, 2, 4), (0, 2, 4))]
)
def test_attention_of_nothing(need_weights: bool, queries: Any, keys: Any) -> None:
    def program(library: Any) -> Any:
        layer = fill(library, library.nn.MultiheadAttention(4, 2))
        x = tensor(library, 1, *queries, requires_grad=True)
        y = x if keys == queries else tensor(library, 2, *keys)
        output, weights = layer(x, y, y, need_weights=need_weights)
        (output * output).sum().backward()
        return output.detach(), weights is None or tuple(weights.shape), x.grad

    same(program, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize(
    ("masks", "need_weights"),
    [("attn_mask", True), ("attn_mask", False), ("key_padding_mask", True)],
)
def test_masks_of_no_samples(masks: str, need_weights: bool) -> None:
    def program(library: Any) -> Any:
        layer = fill(library, library.nn.MultiheadAttention(4, 2))
        x = tensor(library, 1, 3, 0, 4)
        mask = library.zeros((3, 3) if masks == "attn_mask" else (0, 3), dtype=library.bool)
        return tuple(layer(x, x, x, need_weights=need_weights, **{masks: mask})[0].shape)

    same(program)


STATIC: dict[str, dict[str, Any]] = {
    "heads of keys": {"static_k": (3, 3, 2)},
    "size of keys": {"static_k": (4, 3, 3)},
    "heads of values": {"static_v": (5, 3, 2)},
    "a bias and keys": {"static_k": (4, 3, 2), "bias": True},
    "a bias and values": {"static_v": (4, 3, 2), "bias": True},
}


@pytest.mark.parametrize("what", STATIC)
def test_keys_and_values_projected_before_are_checked(what: str) -> None:
    options = dict(STATIC[what])

    def program(library: Any) -> Any:
        ones = library.ones
        x, extra = ones(3, 2, 4), ones(1, 1, 4) if "bias" in options else None
        given = {name: ones(shape) for name, shape in options.items() if name != "bias"}
        return library.nn.functional.multi_head_attention_forward(
            *(x, x, x, 4, 2, ones(12, 4), ones(12), extra, extra, False, 0.0, ones(4, 4), ones(4)),
            **given,
        )

    same(program, raises=AssertionError, message="exact")
