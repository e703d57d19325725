"""Batch normalisation folded into convolutions and linear layers, and prefixes of states."""

from __future__ import annotations

import importlib
from collections import OrderedDict
from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import same

LAYERS: dict[str, Any] = {
    "Conv1d": (lambda nn: (nn.Conv1d(2, 4, 3), nn.BatchNorm1d(4)), (3, 2, 7)),
    "Conv2d without bias": (
        lambda nn: (nn.Conv2d(2, 4, 3, bias=False), nn.BatchNorm2d(4)),
        (3, 2, 5, 5),
    ),
    "Conv2d, plain norm": (
        lambda nn: (nn.Conv2d(2, 4, 3, groups=2), nn.BatchNorm2d(4, affine=False)),
        (3, 2, 5, 5),
    ),
    "ConvTranspose2d": (
        lambda nn: (nn.ConvTranspose2d(2, 4, 3), nn.BatchNorm2d(4)),
        (3, 2, 5, 5),
    ),
    "Linear": (lambda nn: (nn.Linear(5, 4), nn.BatchNorm1d(4)), (3, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_a_fused_layer_does_what_both_do(name: str) -> None:
    make, shape = LAYERS[name]

    def program(library: Any) -> Any:
        layer, norm = (fill(library, m, seed).eval() for seed, m in enumerate(make(library.nn)))
        norm.running_var.abs_()
        x, utils = tensor(library, 1, *shape), library.nn.utils
        if name == "Linear":
            fused = utils.fuse_linear_bn_eval(layer, norm)
        else:
            fused = utils.fuse_conv_bn_eval(layer, norm, "Transpose" in name)
        difference = (fused(x) - norm(layer(x))).abs().max().item()
        flags = fused.weight.requires_grad, fused.bias.requires_grad, type(fused).__name__
        return difference < 1e-12, flags, fused.weight.detach(), fused.bias.detach()

    same(program, rtol=1e-9)


WRONG: dict[str, Any] = {
    "training": lambda nn: nn.utils.fuse_conv_bn_eval(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4).eval()),
    "features": lambda nn: nn.utils.fuse_linear_bn_eval(
        nn.Linear(3, 4).eval(), nn.BatchNorm1d(3).eval()
    ),
    "no statistics": lambda nn: nn.utils.fuse_conv_bn_eval(
        nn.Conv2d(2, 4, 3).eval(), nn.BatchNorm2d(4, track_running_stats=False).eval()
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_is_refused(what: str) -> None:
    same(lambda library: WRONG[what](library.nn), raises=AssertionError, message="exact")


def test_a_prefix_is_taken_off() -> None:
    def program(library: Any) -> Any:
        utils = importlib.import_module(f"{library.__name__}.nn.modules.utils")
        state: Any = OrderedDict([("module.a.weight", 1), ("steps", 2), ("module.b", 3)])
        state._metadata = OrderedDict(
            [("", {"v": 0}), ("module", {"v": 1}), ("module.a", {"v": 2})]
        )
        utils.consume_prefix_in_state_dict_if_present(state, "module.")
        return dict(sorted(state.items())), dict(sorted(state._metadata.items()))

    same(program)
