"""Optimizers with kernels: the same optimizer on arrays of float64 is the reference."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import amp, optim
from gradlite.backends import kernels
from gradlite.ops.namespaces import NAMESPACES
from gradlite.optim import plan
from gradlite.tensor import Tensor, wrap
from tests import cupy_stand_in as stand_in
from tests.kernels.support import ThreadsLauncher, host

TOLERANCES = {"bfloat16": 3e-2, "float16": 2e-2, "float32": 2e-5, "float64": 1e-11}
SIZES = (1, 31, 32, 33, 1025)
DECAY = {"weight_decay": 0.1, "maximize": True}
CASES: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}),
    ("SGD", DECAY),
    ("SGD", {"momentum": 0.9, "dampening": 0.3}),
    ("SGD", {"momentum": 0.9, "nesterov": True, **DECAY}),
    ("Adam", {}),
    ("Adam", {"amsgrad": True, **DECAY}),
    ("AdamW", {"weight_decay": 0.1}),
    ("NAdam", {}),
    ("NAdam", {"decoupled_weight_decay": True, **DECAY}),
    ("RAdam", {"betas": (0.8, 0.9)}),  # five steps are not rectified, then come those that are
    ("RAdam", DECAY),
    ("Adamax", {}),
    ("Adamax", DECAY),
    ("Lion", {}),
    ("Lion", DECAY),
    ("RMSprop", {"alpha": 0.9}),
    ("RMSprop", {"momentum": 0.5, **DECAY}),
    ("RMSprop", {"centered": True, "alpha": 0.9}),
    ("RMSprop", {"centered": True, "alpha": 0.9, "momentum": 0.5}),
    ("Adagrad", {"lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("Adagrad", DECAY),
    ("Adadelta", {}),
    ("Adadelta", DECAY),
    ("Rprop", {}),
    ("Rprop", {"maximize": True}),
    ("ASGD", {"t0": 2.0, "lambd": 0.01}),
    ("ASGD", DECAY),
]
IDS = ["-".join([name, *(k for k, v in options.items() if v)]) for name, options in CASES]


@pytest.fixture(name="K")
def installed(launcher: Any, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The launcher, for the optimizers alone: the ops stay with their rules."""
    monkeypatch.setattr(NAMESPACES[launcher.array], "launcher", launcher)
    return launcher


class Regions:
    """The arrays that an optimizer's tables point to, at the time of a launch."""

    def __init__(self, optimizer: optim.Optimizer) -> None:
        self.optimizer = optimizer

    def __iter__(self) -> Iterator[np.ndarray]:
        for group in self.optimizer.param_groups:
            for p in group["params"]:
                yield p.array
                if p.grad is not None:
                    yield p.grad.array
                if group.get("fused") and isinstance(group["lr"], Tensor):
                    yield group["lr"].array
        for slot in self.optimizer._slots.values():  # type: ignore[attr-defined]
            yield from slot.segment.buffers.values()
            yield slot.segment.counters


def parameters(xp: Any, dtype: str, sizes: Any) -> list[Tensor]:
    """Parameters of these sizes, the last of them at an odd address."""
    generator = np.random.default_rng(0)
    made = []
    for n in sizes:
        odd = int(n == sizes[-1])
        array = xp.asarray(generator.standard_normal(n + odd).astype("f2").astype(dtype))
        made.append(wrap(array[odd:]).requires_grad_())
    return made


def set_grads(params: list[Tensor], step: int) -> None:
    """Gradients not too near to 0, whose squares half precision holds; every third stays."""
    generator = np.random.default_rng(step + 1)
    for i, p in enumerate(params):
        values = generator.uniform(0.5, 1.5, p.shape) * generator.choice([-1, 1], p.shape)
        if step == 0 or i % 3:
            xp = NAMESPACES[p.array.__class__].xp
            p.grad = wrap(xp.asarray(values.astype("f2").astype(p.array.dtype)))


def run(
    xp: Any, name: str, options: dict[str, Any], dtype: str, counters: str, sizes: Any = SIZES,
    steps: int = 8,
) -> optim.Optimizer:  # fmt: skip
    params = parameters(xp, dtype, sizes)
    optimizer = getattr(optim, name)(params, **{"lr": 0.05, **options})
    # What a constructor lets through depends on the class; a step looks at the group.
    optimizer.param_groups[0]["fused"] = counters == "device"
    K = NAMESPACES[xp.ndarray].launcher
    if isinstance(K, ThreadsLauncher):
        K.regions = Regions(optimizer)  # type: ignore[assignment]
    for step in range(steps):
        set_grads(params, step)
        optimizer.step()
    return optimizer  # type: ignore[no-any-return]


def tensors(optimizer: optim.Optimizer) -> Iterator[np.ndarray]:
    for p in optimizer.param_groups[0]["params"]:
        yield host(p.array)
        for value in optimizer.state[p].values():
            yield host(value.array)


def reference(monkeypatch: pytest.MonkeyPatch, *args: Any, **kwargs: Any) -> list[np.ndarray]:
    with monkeypatch.context() as patch:
        patch.setattr(NAMESPACES[np.ndarray], "launcher", None)
        patch.setattr(plan, "_native_launcher", lambda array, kernel: None)
        return list(tensors(run(np, *args, "float64", "host", **kwargs)))


@pytest.mark.parametrize("counters", ["host", "device"])
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_steps(
    K: Any, monkeypatch: pytest.MonkeyPatch, name: str, options: Any, dtype: str, counters: str
) -> None:
    expected = reference(monkeypatch, name, options)
    with kernels.record() as launched:
        optimizer = run(K.xp, name, options, dtype, counters)
    found = list(tensors(optimizer))
    assert len(launched) == (8 if counters == "host" else 16)
    assert len(found) == len(expected)
    tolerance = TOLERANCES[dtype]
    for a, b in zip(found, expected):
        scale = max(1.0, float(np.abs(b).max()))
        np.testing.assert_allclose(a.astype("f8"), b, tolerance, tolerance * scale)


@pytest.mark.parametrize("seed", [0, 1, 2])
@pytest.mark.parametrize(("name", "options"), CASES, ids=IDS)
def test_no_race_and_nothing_out_of_bounds(
    threads: ThreadsLauncher, monkeypatch: pytest.MonkeyPatch, name: str, options: Any, seed: int
) -> None:
    threads.check, threads.seed = True, seed
    expected = reference(monkeypatch, name, options, sizes=(33, 1025), steps=2)
    monkeypatch.setattr(NAMESPACES[np.ndarray], "launcher", threads)
    optimizer = run(np, name, options, "float32", "device", (33, 1025), 2)
    for a, b in zip(tensors(optimizer), expected):
        np.testing.assert_allclose(a, b, 1e-5, 1e-5)


def test_many_elements(K: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ("Adam", {"amsgrad": True, **DECAY})
    expected = reference(monkeypatch, *case, sizes=(100_003, 5, 70_001), steps=2)
    optimizer = run(K.xp, *case, "float32", "host", (100_003, 5, 70_001), 2)
    for a, b in zip(tensors(optimizer), expected):
        np.testing.assert_allclose(a, b, 2e-5, 2e-5)


def groups(xp: Any, dtype: str) -> optim.Optimizer:
    a, b, c, d = parameters(xp, dtype, (5, 40, 3, 9))
    empty = wrap(xp.zeros(0, dtype)).requires_grad_()
    matrix = wrap(xp.asarray(np.arange(12, dtype=dtype).reshape(3, 4)).T).requires_grad_()
    return optim.Adam(
        [
            {"params": [a, empty], "lr": 0.1},
            {"params": [b, c], "weight_decay": 0.2, "maximize": True},
            {"params": [d, matrix], "lr": 0.02, "betas": (0.5, 0.6)},
        ]
    )


def set_group_grads(optimizer: optim.Optimizer, step: int, skip: bool) -> None:
    """Gradients of all parameters, or of all but one; some columns first, some spread out."""
    generator = np.random.default_rng(step + 1)
    for g, group in enumerate(optimizer.param_groups):
        for i, p in enumerate(group["params"]):
            values = generator.uniform(0.5, 1.5, p.shape).astype(p.array.dtype)
            xp = NAMESPACES[p.array.__class__].xp
            if g == 1:
                wide = xp.zeros((2 * p.numel(),), values.dtype)
                wide[::2] = xp.asarray(values)
                p.grad = wrap(wide[::2])
            else:
                p.grad = wrap(xp.asarray(values))
            if skip and (g, i) == (1, 0):
                p.grad = None


def test_groups_and_parameters_of_all_kinds_need_one_launch(
    K: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def steps(xp: Any, dtype: str) -> tuple[list[np.ndarray], list[list[str]]]:
        optimizer, names = groups(xp, dtype), []
        for step in range(6):
            set_group_grads(optimizer, step, skip=step in (1, 2))
            with kernels.record() as launched:
                optimizer.step()
            names.append(launched)
        params = [p for group in optimizer.param_groups for p in group["params"]]
        return [host(p.array) for p in params], names

    with monkeypatch.context() as patch:
        patch.setattr(NAMESPACES[np.ndarray], "launcher", None)
        patch.setattr(plan, "_native_launcher", lambda array, kernel: None)
        expected, names = steps(np, "float64")
        assert names == [[]] * 6
    found, names = steps(K.xp, "float32")
    assert names == [["adam"]] * 6
    for a, b in zip(found, expected):
        np.testing.assert_allclose(a, b, 1e-5, 1e-5)


def test_dtypes_and_variants_have_launches_of_their_own(K: Any) -> None:
    params = [*parameters(K.xp, "float32", (3, 4)), *parameters(K.xp, "float64", (3, 4))]
    optimizer = optim.Adam([{"params": params[:1], "amsgrad": True}, {"params": params[1:]}])
    set_grads(params, 0)
    with kernels.record() as launched:
        optimizer.step()
    assert sorted(launched) == ["adam", "adam", "adam_amsgrad"]


@pytest.mark.parametrize("counters", ["host", "device"])
def test_gradients_that_overflowed_change_nothing(K: Any, counters: str) -> None:
    optimizer: Any = run(K.xp, "Adam", {}, "float32", counters, steps=2)
    before = [x.copy() for x in tensors(optimizer)]
    optimizer.found_inf = wrap(K.xp.ones((), "f4"))
    optimizer.grad_scale = wrap(K.xp.asarray(4.0, dtype="f4"))
    params = optimizer.param_groups[0]["params"]
    set_grads(params, 0)
    grads = [host(p.grad.array).copy() for p in params]
    optimizer.step()
    for a, b in zip(tensors(optimizer), before):
        np.testing.assert_array_equal(a, b)
    optimizer.found_inf = wrap(K.xp.zeros((), "f4"))
    optimizer.step()
    other = run(K.xp, "Adam", {}, "float32", counters, steps=2)
    for p, q, grad in zip(params, other.param_groups[0]["params"], grads):
        np.testing.assert_allclose(host(p.grad.array), grad / 4)  # what clipping would look at
        q.grad = wrap(K.xp.asarray(grad / 4))
    other.step()
    for a, b in zip(tensors(optimizer), tensors(other)):
        np.testing.assert_allclose(a, b, 1e-6)


def test_a_scaler_leaves_a_fused_step_to_the_device(monkeypatch: pytest.MonkeyPatch) -> None:
    stand_in.install(monkeypatch)
    weight = gradlite.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    optimizer = optim.SGD([weight], lr=0.5, momentum=0.9, fused=True)
    scaler = amp.GradScaler("cuda", init_scale=4.0, growth_interval=1)
    read: list[Any] = []
    with monkeypatch.context() as patch:
        patch.setattr(stand_in.Array, "get", lambda self: read.append(self))
        for factor in (1.0, float("inf"), 1.0):
            optimizer.zero_grad()
            scaler.scale((weight * factor).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
    assert read == []  # nothing waited for the device
    np.testing.assert_allclose(weight.tolist(), [-0.45, 0.55], 1e-6)
    assert scaler.get_scale() == 4 * 2 / 2 * 2


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def test_a_learning_rate_on_the_device_is_read_there(cupy: Any) -> None:
    weight = gradlite.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    lr = gradlite.tensor(0.5, device="cuda")
    optimizer = optim.SGD([weight], lr=lr, fused=True)
    weight.grad = gradlite.ones(2, device="cuda")
    optimizer.step()
    lr.fill_(0.25)
    optimizer.step()
    assert weight.tolist() == [0.25, 1.25]


def test_counters_move_to_where_they_are_wanted(cupy: Any) -> None:
    weight = gradlite.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    first = optim.Adam([weight], lr=0.1)
    weight.grad = gradlite.ones(2, device="cuda")
    first.step()
    assert first.state[weight]["step"].device.type == "cpu"
    second = optim.Adam([weight], lr=0.1, capturable=True)
    second.load_state_dict(
        {**first.state_dict(), "param_groups": second.state_dict()["param_groups"]}
    )
    second.step()
    step = second.state[weight]["step"]
    assert step.device.type == "cuda" and step.item() == 2
    copied = gradlite.tensor(weight.tolist(), requires_grad=True)
    np.testing.assert_allclose(copied.tolist(), [0.8, 1.8], 1e-5)


@pytest.mark.parametrize("option", ["capturable", "fused"])
def test_counters_move_to_the_device_when_the_group_says_so(cupy: Any, option: str) -> None:
    weights = [gradlite.tensor([1.0, 2.0], device="cuda", requires_grad=True) for _ in range(2)]
    optimizer, expected = (optim.NAdam([weight], lr=0.1) for weight in weights)
    for i in range(6):
        for weight in weights:
            weight.grad = gradlite.full((2,), float(i + 1), device="cuda")
        if i == 2:
            optimizer.param_groups[0][option] = True
        for each in (optimizer, expected):
            each.param_groups[0]["weight_decay"] = 0.1 * (i > 1)
            each.step()
        assert optimizer.state[weights[0]]["step"].item() == i + 1
    assert optimizer.state[weights[0]]["step"].device.type == "cuda"
    np.testing.assert_allclose(weights[0].tolist(), weights[1].tolist(), 1e-6)


def test_what_does_not_change_is_not_copied_again(cupy: Any, monkeypatch: Any) -> None:
    copies: list[int] = []
    put = stand_in.Array.set
    monkeypatch.setattr(stand_in.Array, "set", lambda a, b: (copies.append(b.nbytes), put(a, b)))
    weight = gradlite.tensor([1.0, 2.0], device="cuda", requires_grad=True)
    optimizer = optim.SGD([weight], lr=0.5)
    weight.grad = gradlite.ones(2, device="cuda")
    optimizer.step()
    first = len(copies)
    for _ in range(9):
        optimizer.step()
    assert len(copies) == first
    optimizer.param_groups[0]["lr"] = 0.25
    optimizer.step()
    weight.grad = gradlite.ones(2, device="cuda")
    optimizer.step()
    assert len(copies) == first + 2
    assert weight.tolist() == [1 - 5.5, 2 - 5.5]
