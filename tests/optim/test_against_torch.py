"""Every optimizer with every combination of options takes PyTorch's steps."""

from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import native
from tests.optim.table import FULL, NAMES, TABLE, Pair, made, torch

SINGLE = float(np.finfo(np.float32).eps)


@pytest.fixture(autouse=True, params=["array calls", "kernels"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """How a step is made."""
    if request.param == "array calls":
        monkeypatch.setattr(native, "on_demand", lambda: None)
    elif native.on_demand() is None:
        pytest.skip("kernels cannot be compiled here")


@pytest.mark.parametrize("name", NAMES)
def test_100_steps_in_double_precision(name: str) -> None:
    for options in TABLE[name]:
        pair = Pair(name, options)
        pair.steps(100)
        pair.compare()


@pytest.mark.parametrize("options", [{"betas": (0.5, 0.0)}, {"betas": (0.0, 0.0)}, {"lr": 0.0}])
def test_adam_with_extreme_options(options: dict[str, Any]) -> None:
    pair = Pair("Adam", options)
    pair.steps(20)
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_100_steps_in_single_precision_differ_by_roundings(name: str) -> None:
    for options in TABLE[name]:
        pair = Pair(name, options, np.float32)
        pair.steps(100)
        # Each of the 100 steps may round differently, at the size of parameter and path.
        pair.compare(rtol=8 * SINGLE, atol=64 * SINGLE)


@pytest.mark.parametrize("name", NAMES)
def test_parameters_that_skip_steps(name: str) -> None:
    """Step counts then differ from parameter to parameter."""
    pair = Pair(name, FULL[name])
    for without in ((), (1,), (1, 3), (0, 2, 4), (), (0, 1, 2, 3, 4), (2,), ()):
        pair.steps(3, without)
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_a_parameter_that_joins_late(name: str) -> None:
    pair = Pair(name, FULL[name])
    pair.steps(4, without=(0, 1, 4))
    pair.steps(4, without=(4,))
    pair.steps(4)
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_sizes_that_take_blocks_of_their_own(name: str) -> None:
    shapes = ((7,), (300, 200), (5, 5), (600_000,), (40_000,), (3,))
    for options in (FULL[name], TABLE[name][0], TABLE[name][-1]):
        pair = Pair(name, options, shapes=shapes)
        pair.steps(3)
        pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_parameters_and_gradients_in_any_memory_order(name: str) -> None:
    pair = Pair(name, FULL[name], shapes=((4, 6), (300, 200)))
    for q in pair.actual:
        q.data = gradlite.from_numpy(np.asfortranarray(q.detach().numpy()))
    for _ in range(3):
        pair.set_grads()
        for q in pair.actual:
            assert q.grad is not None
            q.grad = gradlite.from_numpy(np.asfortranarray(q.grad.numpy()))
        pair.reference.step()
        pair.optimizer.step()
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_groups_with_options_of_their_own(name: str) -> None:
    pair = Pair(name, FULL[name])
    for library, params in (("torch", pair.expected), ("gradlite", pair.actual)):
        module = torch if library == "torch" else gradlite
        groups = [{"params": params[:2]}, {"params": params[2:], "lr": 0.05}]
        optimizer = made(module, name)(groups, **FULL[name])
        if library == "torch":
            pair.reference = optimizer
        else:
            pair.optimizer = optimizer
    pair.steps(5)
    for optimizer in (pair.reference, pair.optimizer):
        optimizer.param_groups[0]["lr"] = 0.02
    pair.steps(5)
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_mixed_dtypes_in_one_group(name: str) -> None:
    double, single = Pair(name, FULL[name]), Pair(name, FULL[name], np.float32)
    optimizer = getattr(gradlite.optim, name)(double.actual + single.actual, **FULL[name])
    double.optimizer = single.optimizer = optimizer
    for _ in range(5):
        double.set_grads()
        single.set_grads()
        double.reference.step()
        single.reference.step()
        optimizer.step()
    double.compare()
    single.compare(rtol=8 * SINGLE, atol=8 * SINGLE)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision_parameters(half: str, name: str) -> None:
    without = ("SGD", "Rprop", "ASGD", "Lion")
    options = {**FULL[name], **({"eps": 1e-3} if name not in without else {})}
    pair = Pair(name, options, np.float32, half=half)
    pair.steps(5)
    for p, q in zip(pair.expected, pair.actual):
        assert [s.dtype == q.dtype for s in pair.optimizer.state.get(q, {}).values()] == [
            s.dtype == p.dtype for s in pair.reference.state.get(p, {}).values()
        ]
    tolerance = {"float16": 5e-3, "bfloat16": 4e-2}[half]
    pair.compare(rtol=tolerance, atol=tolerance, state=False)


@pytest.mark.parametrize("name", NAMES)
def test_a_tensor_as_learning_rate(name: str) -> None:
    pair = Pair(name, FULL[name])
    pair.reference.param_groups[0]["lr"] = torch.tensor(0.015625, dtype=torch.float64)
    pair.optimizer.param_groups[0]["lr"] = gradlite.tensor(0.015625, dtype=gradlite.float64)
    pair.steps(5)
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_default_dtype_decides_the_counters_dtype(name: str) -> None:
    torch.set_default_dtype(torch.float64)
    gradlite.set_default_dtype(gradlite.float64)
    try:
        pair = Pair(name, FULL[name])
        pair.steps(3)
        pair.compare()
    finally:
        torch.set_default_dtype(torch.float32)
        gradlite.set_default_dtype(gradlite.float32)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 0.0])
@pytest.mark.parametrize("name", NAMES)
def test_special_gradients(name: str, value: float) -> None:
    pair = Pair(name, FULL[name])
    pair.steps(2)
    for _ in range(3):
        pair.set_grads()
        for p, q in zip(pair.expected, pair.actual):
            p.grad.view(-1)[0] = value
            assert q.grad is not None
            q.grad.numpy().reshape(-1)[0] = value
        pair.reference.step()
        pair.optimizer.step()
    # An infinite moment may become NaN a step earlier or later: the parameter is NaN in both.
    pair.compare(state=False)


# ------------------------------------------------------------------------- saved state
def arrays(state_dict: dict[str, Any]) -> dict[str, Any]:
    """A PyTorch state dict with NumPy arrays in place of tensors."""
    return {
        "state": {
            number: {key: value.numpy().copy() for key, value in entries.items()}
            for number, entries in state_dict["state"].items()
        },
        "param_groups": state_dict["param_groups"],
    }


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_has_pytorchs_format(name: str) -> None:
    for options in TABLE[name]:
        pair = Pair(name, options)
        pair.steps(2, without=(1,))
        expected, actual = pair.reference.state_dict(), pair.optimizer.state_dict()
        assert actual["param_groups"] == expected["param_groups"]
        assert {k: list(v) for k, v in actual["state"].items()} == {
            k: list(v) for k, v in expected["state"].items()
        }
        assert repr(pair.optimizer) == repr(pair.reference)


@pytest.mark.parametrize("form", [arrays, lambda state_dict: state_dict])
@pytest.mark.parametrize("name", NAMES)
def test_goes_on_from_pytorchs_state_dict(name: str, form: Any) -> None:
    for options in (TABLE[name][0], TABLE[name][-1], FULL[name]):
        pair = Pair(name, options)
        for _ in range(5):
            pair.set_grads(without=(3,))
            pair.reference.step()
        for p, q in zip(pair.expected, pair.actual):
            with gradlite.no_grad():
                q.copy_(gradlite.tensor(p.detach().numpy()))
        pair.optimizer.load_state_dict(form(copy.deepcopy(pair.reference.state_dict())))
        pair.compare()
        pair.steps(5)
        pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_state_dict_round_trip_in_the_middle(name: str) -> None:
    pair = Pair(name, FULL[name])
    pair.steps(5, without=(1,))
    saved = pickle.loads(pickle.dumps(pair.optimizer.state_dict()))
    pair.optimizer = getattr(gradlite.optim, name)(pair.actual)
    pair.optimizer.load_state_dict(saved)
    pair.steps(5)
    pair.compare()


@pytest.mark.parametrize("name", NAMES)
def test_loading_copies(name: str) -> None:
    pair = Pair(name, FULL[name])
    pair.steps(3)
    saved = pair.optimizer.state_dict()
    before = copy.deepcopy(saved)
    twin = getattr(gradlite.optim, name)(pair.actual, **FULL[name])
    twin.load_state_dict(saved)
    pair.set_grads()
    twin.step()
    for number, entries in before["state"].items():
        for key, value in entries.items():
            np.testing.assert_array_equal(saved["state"][number][key].numpy(), value.numpy())


@pytest.mark.parametrize("duplicate", [copy.deepcopy, lambda o: pickle.loads(pickle.dumps(o))])
@pytest.mark.parametrize("name", NAMES)
def test_copies_and_pickles_go_on_by_themselves(name: str, duplicate: Any) -> None:
    pair = Pair(name, FULL[name])
    pair.steps(3)
    pair.set_grads()
    twin = duplicate(pair.optimizer)
    assert repr(twin) == repr(pair.optimizer)
    params = twin.param_groups[0]["params"]
    assert all(p is not q for p, q in zip(params, pair.actual))
    for p, q in zip(params, pair.actual):
        p.grad = copy.deepcopy(q.grad)
    twin.step()
    pair.reference.step()
    pair.optimizer.step()
    pair.compare()
    for p, q in zip(params, pair.actual):
        np.testing.assert_array_equal(p.detach().numpy(), q.detach().numpy())


@pytest.mark.parametrize("name", NAMES)
def test_state_that_the_user_replaces_or_clears(name: str) -> None:
    pair = Pair(name, FULL[name])
    pair.steps(3)
    for p, q in zip(pair.expected, pair.actual):
        for key in list(pair.reference.state[p]):
            if key == "step":
                continue
            value = np.abs(pair.random.standard_normal(pair.reference.state[p][key].shape))
            dtype = pair.optimizer.state[q][key].numpy().dtype
            pair.reference.state[p][key] = torch.tensor(value.astype(dtype))
            pair.optimizer.state[q][key] = gradlite.tensor(value.astype(dtype))
    pair.steps(3)
    pair.compare()
    for p, q in zip(pair.expected[:2], pair.actual[:2]):
        pair.reference.state[p]["step" if name != "SGD" else "momentum_buffer"].fill_(7.0)
        pair.optimizer.state[q]["step" if name != "SGD" else "momentum_buffer"].fill_(7.0)
    pair.steps(3)
    pair.compare()
    for p, q in zip(pair.expected[:2], pair.actual[:2]):
        del pair.reference.state[p]
        del pair.optimizer.state[q]
    pair.steps(3)
    pair.compare()
    pair.reference.state.clear()
    pair.optimizer.state.clear()
    pair.steps(3)
    pair.compare()
    for params, optimizer in ((pair.expected, pair.reference), (pair.actual, pair.optimizer)):
        other = {key: value.clone() for key, value in optimizer.state[params[0]].items()}
        optimizer.state.update({params[0]: other})
        optimizer.state |= {params[0]: {key: value * 2 for key, value in other.items()}}
    pair.steps(3)
    pair.compare()
