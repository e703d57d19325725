"""state_dict and load_state_dict: keys, sharing, strictness, messages, hooks."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same


def model_of(library: Any) -> Any:
    nn = library.nn
    return fill(library, nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1)))


def test_state_dict_of_a_model() -> None:
    def program(library: Any) -> Any:
        model = model_of(library)
        state = model.state_dict(prefix="net.")
        given: Any = OrderedDict(mine=1)
        returned = model[0].state_dict(destination=given, prefix="x.")
        return [
            state,
            returned is given,
            list(given),
            model.state_dict()._metadata,
            [v.requires_grad for v in model.state_dict(keep_vars=True).values()],
            model.state_dict(keep_vars=True)["0.weight"] is model[0].weight,
            type(state).__name__,
        ]

    same(program)


def test_state_shares_memory_with_the_module() -> None:
    linear = nn.Linear(2, 2)
    state = linear.state_dict()
    with gradlite.no_grad():
        linear.weight.fill_(7)
    assert state["weight"].tolist() == [[7, 7], [7, 7]]
    assert not state["weight"].requires_grad


def test_round_trip() -> None:
    def program(library: Any) -> Any:
        source, target = model_of(library), model_of(library)
        fill(library, target, seed=50)
        weight = target[0].weight
        result = target.load_state_dict(source.state_dict())
        same_object = target[0].weight is weight
        return list(target.state_dict().values()), repr(result), same_object, list(result)

    same(program)


LOADS: dict[str, Any] = {
    "missing": lambda library: {"0.weight": library.ones(3, 2)},
    "unexpected": lambda library: {**model_of(library).state_dict(), "x": 1, "0.y": 2, "0.y.z": 3},
    "sizes": lambda library: {
        **model_of(library).state_dict(),
        "0.weight": library.ones(2, 2),
        "2.bias": library.ones(4),
    },
    "everything": lambda library: {
        "0.weight": library.ones(2, 2),
        "other.weight": library.ones(1),
        "1": library.ones(1),
    },
    "types": lambda library: {
        **model_of(library).state_dict(),
        "0.weight": 3,
        "0.bias": np.ones(3),
        "2.bias": [1.0],
    },
    "dtypes": lambda library: {
        key: value.float() if value.is_floating_point() else value
        for key, value in model_of(library).state_dict().items()
    },
    "0-d": lambda library: {
        **model_of(library).state_dict(),
        "1.num_batches_tracked": library.tensor([5]),
    },
    "number": lambda library: 3,
}


@pytest.mark.parametrize("strict", [True, False])
@pytest.mark.parametrize("assign", [False, True])
@pytest.mark.parametrize("what", LOADS)
def test_loading(what: str, strict: bool, assign: bool) -> None:
    def program(library: Any) -> Any:
        model = model_of(library)
        result = outcome_of(
            lambda: model.load_state_dict(LOADS[what](library), strict=strict, assign=assign)
        )
        if not isinstance(result, Exception):
            result = (repr(result), list(result.missing_keys), list(result.unexpected_keys))
        return result, list(model.state_dict().values())

    same(program, message="exact")


def test_assigned_tensors_become_parameters() -> None:
    def program(library: Any) -> Any:
        model = model_of(library)
        model[0].bias.requires_grad_(False)
        state = {k: v.clone() for k, v in model_of(library).float().state_dict().items()}
        model.load_state_dict(state, assign=True)
        return [
            [(type(p), p.dtype, p.requires_grad) for p in model.parameters()],
            [b is state[name] for name, b in model.named_buffers()],
        ]

    same(program)


def test_the_callers_dictionary_is_left_alone() -> None:
    model = model_of(gradlite)
    state = dict(model.state_dict())
    del state["1.num_batches_tracked"]
    before = list(state)
    with pytest.raises(RuntimeError):
        model.load_state_dict({**state, "x": gradlite.ones(1)})
    model.load_state_dict(state, strict=False)
    assert list(state) == before


def test_loading_while_the_parameters_are_in_use_is_noticed() -> None:
    def program(library: Any) -> Any:
        linear = fill(library, library.nn.Linear(2, 2))
        x = tensor(library, 1, 3, 2, requires_grad=True)
        out = linear(x)
        linear.load_state_dict(linear.state_dict())
        out.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="type")


def test_extra_state() -> None:
    def program(library: Any) -> Any:
        class Counter(library.nn.Module):
            def __init__(self) -> None:
                super().__init__()
                self.steps = 0

            def get_extra_state(self) -> Any:
                return {"steps": self.steps}

            def set_extra_state(self, state: Any) -> None:
                self.steps = state["steps"]

        model = library.nn.Sequential(Counter())
        model[0].steps = 5
        state = model.state_dict()
        model[0].steps = 0
        model.load_state_dict(state)
        return [
            state,
            model[0].steps,
            outcome_of(lambda: model.load_state_dict({})),
            outcome_of(lambda: library.nn.ReLU().load_state_dict({"_extra_state": 1})),
        ]

    same(program, message="exact")


def test_hooks() -> None:
    def program(library: Any) -> Any:
        log: list[Any] = []
        model = model_of(library)

        def rename(module: Any, state: Any, prefix: Any, *rest: Any) -> None:
            log.append(("load pre", prefix, len(rest)))
            if prefix + "old" in state:
                state[prefix + "weight"] = state.pop(prefix + "old")

        def post(module: Any, incompatible: Any) -> None:
            log.append(("load post", list(incompatible.missing_keys)))
            incompatible.missing_keys.clear()

        def saved(module: Any, state: Any, prefix: Any, metadata: Any) -> None:
            log.append(("save post", prefix, metadata))
            state[prefix + "added"] = 1

        model[0].register_load_state_dict_pre_hook(rename)
        model[0]._register_load_state_dict_pre_hook(lambda state, *rest: log.append(len(rest)))
        model[2].register_load_state_dict_post_hook(post)
        model[1].register_state_dict_post_hook(saved)
        model[2].register_state_dict_pre_hook(lambda m, prefix, keep: log.append((prefix, keep)))
        handle = model._register_state_dict_hook(lambda m, state, p, meta: OrderedDict(only=1))
        short = model.state_dict()
        handle.remove()
        state = model.state_dict()
        keys = list(state)
        state["0.old"] = state.pop("0.weight")
        del state["1.added"], state["2.bias"]
        return log, short, keys, repr(model.load_state_dict(state)), list(state)

    same(program)


def test_a_post_hook_must_return_none() -> None:
    def program(library: Any) -> Any:
        model = library.nn.Linear(1, 1)
        model.register_state_dict_post_hook(lambda *args: 1)
        model.state_dict()

    same(program, raises=RuntimeError, message="exact")


def test_batch_norm_loads_states_without_its_counter() -> None:
    def program(library: Any) -> Any:
        norm = library.nn.BatchNorm1d(2)
        state = norm.state_dict()
        del state["num_batches_tracked"]
        del state._metadata
        norm.num_batches_tracked.fill_(3)
        return repr(norm.load_state_dict(state)), norm.num_batches_tracked

    same(program)
