"""Weight averaging does what PyTorch's does."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite.nn
import gradlite.optim.swa_utils  # noqa: F401
from tests.oracle import same

AVERAGES: dict[str, Callable[[Any], dict[str, Any]]] = {
    "default": lambda S: {},
    "ema": lambda S: {"avg_fn": S.get_ema_avg_fn(0.9)},
    "multi ema": lambda S: {"multi_avg_fn": S.get_ema_multi_avg_fn(0.9)},
    "swa": lambda S: {"avg_fn": S.get_swa_avg_fn()},
    "multi swa": lambda S: {"multi_avg_fn": S.get_swa_multi_avg_fn()},
    "own": lambda S: {"avg_fn": lambda old, new, n: (old * n + new * 2) / (n + 2)},
}


def set_values(T: Any, model: Any, random: np.random.Generator) -> None:
    with T.no_grad():
        for p in model.parameters():
            p.copy_(T.from_numpy(random.standard_normal(tuple(p.shape)).astype(np.float32)))
        for b in model.buffers():
            if b.dtype == T.float32:
                b.copy_(T.from_numpy(random.standard_normal(tuple(b.shape)).astype(np.float32)))
            else:
                b += 3


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("average", AVERAGES)
def test_averaged_model(average: str, use_buffers: bool) -> None:
    if average == "multi swa" and use_buffers:
        pytest.skip("PyTorch refuses to average integer buffers this way")

    def program(T: Any) -> Any:
        random = np.random.default_rng(0)
        model = T.nn.Sequential(T.nn.Linear(3, 4), T.nn.BatchNorm1d(4))
        set_values(T, model, random)
        options = AVERAGES[average](T.optim.swa_utils)
        averaged = T.optim.swa_utils.AveragedModel(model, use_buffers=use_buffers, **options)
        for _ in range(5):
            set_values(T, model, random)
            averaged.update_parameters(model)
        averaged.eval()
        out = averaged(T.ones(2, 3)).detach()
        state = averaged.state_dict()
        return out, {key: value.detach() for key, value in state.items()}, averaged.training

    same(program, rtol=1e-5, atol=1e-6)


def test_averaged_model_copies_and_round_trips() -> None:
    def program(T: Any) -> Any:
        model = T.nn.Linear(2, 2)
        averaged = T.optim.swa_utils.AveragedModel(model)
        set_values(T, model, np.random.default_rng(0))
        averaged.update_parameters(model)
        twin = T.optim.swa_utils.AveragedModel(T.nn.Linear(2, 2))
        twin.load_state_dict(averaged.state_dict())
        third = copy.deepcopy(averaged)
        for each in (averaged, twin, third):
            set_values(T, model, np.random.default_rng(1))
            each.update_parameters(model)
        return [[p.detach() for p in each.parameters()] for each in (averaged, twin, third)]

    same(program)


def test_bad_arguments() -> None:
    for decay in (-0.1, 1.1):
        for name in ("get_ema_avg_fn", "get_ema_multi_avg_fn"):
            same(
                lambda T, name=name, decay=decay: getattr(T.optim.swa_utils, name)(decay),
                raises=ValueError,
                message="exact",
            )
    same(
        lambda T: T.optim.swa_utils.AveragedModel(
            T.nn.Linear(1, 1), avg_fn=lambda *_: None, multi_avg_fn=lambda *_: None
        ),
        raises=AssertionError,
        message="exact",
    )


@pytest.mark.parametrize("form", ["tensors", "pairs"])
def test_update_bn(form: str) -> None:
    def program(T: Any) -> Any:
        random = np.random.default_rng(0)
        model = T.nn.Sequential(T.nn.BatchNorm1d(3, momentum=0.3), T.nn.BatchNorm1d(3))
        set_values(T, model, random)
        model.eval()
        model[1].train()
        batches = [random.standard_normal((n, 3)).astype(np.float32) for n in (4, 4, 2)]
        loader: Any = [T.from_numpy(batch) for batch in batches]
        if form == "pairs":
            loader = [(x, T.zeros(len(x))) for x in loader]
        T.optim.swa_utils.update_bn(loader, model)
        T.optim.swa_utils.update_bn(loader, T.nn.Linear(1, 1))
        modes = [model.training, model[0].training, model[1].training]
        momenta = [model[0].momentum, model[1].momentum]
        return modes, momenta, list(model.buffers())

    same(program, rtol=1e-5, atol=1e-6)
