"""Two GPUs, on the stand-in for CuPy: what computes on arrays beside the ops (checks of gradients,
Jacobians, L-BFGS), copies or scales them does it on the device of its tensors, whichever is
current."""

from __future__ import annotations

import copy
import pickle
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import func, nn
from gradlite.autograd import functional as AF
from gradlite.autograd import gradcheck, gradgradcheck
from tests import cupy_stand_in as stand_in
from tests.cupy_stand_in import runtime
from tests.test_stand_in import tensors

THERE = "cuda:1"


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    yield stand_in.install(monkeypatch, devices=2)
    assert runtime.current == [0]


def numbers(device: str, *shape: int) -> Any:
    values = np.sin(np.arange(1.0, 1 + np.prod(shape)).reshape(shape))
    return gradlite.tensor(values, device=device)


def leaf(device: str, *shape: int) -> Any:
    return numbers(device, *shape).requires_grad_()


def rows(x: Any) -> Any:
    return (x * x).sin().sum(-1)


def total(x: Any) -> Any:
    return (x**3).sum()


def unused(x: Any, y: Any) -> Any:
    return rows(x)


def minimise(device: str, search: str | None) -> Any:
    p = leaf(device, 3)
    optimizer = gradlite.optim.LBFGS([p], max_iter=4, line_search_fn=search)

    def closure() -> Any:
        optimizer.zero_grad()
        # What a closure makes on "cuda" is made on the caller's device.
        assert device == "cpu" or gradlite.zeros(1, device="cuda").device.index == 0
        loss = ((p - 1) ** 4).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    return p


CALLS: dict[str, Callable[[str], Any]] = {
    "gradcheck": lambda d: gradcheck(rows, (leaf(d, 2, 3),)),
    "gradcheck, fast": lambda d: gradcheck(rows, (leaf(d, 2, 3),), fast_mode=True),
    "gradcheck, independent": lambda d: gradcheck(lambda x: numbers(d, 2), (leaf(d, 2),)),
    "gradgradcheck": lambda d: gradgradcheck(rows, (leaf(d, 2, 3),)),
    "gradgradcheck, fast": lambda d: gradgradcheck(rows, (leaf(d, 2, 3),), fast_mode=True),
    "gradgradcheck, gaps": lambda d: gradgradcheck(
        rows, (leaf(d, 2, 3),), gen_non_contig_grad_outputs=True
    ),
    "jacobian": lambda d: AF.jacobian(rows, numbers(d, 2, 3)),
    "jacobian of an unused input": lambda d: AF.jacobian(unused, (numbers(d, 2, 3), numbers(d, 2))),
    "jacobian of nothing": lambda d: AF.jacobian(rows, numbers(d, 0, 3)),
    "jacobian, forward": lambda d: AF.jacobian(
        rows, numbers(d, 2, 3), vectorize=True, strategy="forward-mode"
    ),
    "jacobian with a graph": lambda d: AF.jacobian(rows, leaf(d, 2, 3), create_graph=True),
    "hessian": lambda d: AF.hessian(total, numbers(d, 3)),
    "vjp": lambda d: AF.vjp(unused, (numbers(d, 2, 3), numbers(d, 2)), numbers(d, 2)),
    "jvp": lambda d: AF.jvp(rows, numbers(d, 2, 3), numbers(d, 2, 3)),
    "hvp": lambda d: AF.hvp(total, numbers(d, 3), numbers(d, 3)),
    "vhp": lambda d: AF.vhp(total, numbers(d, 3), numbers(d, 3)),
    "func.grad": lambda d: func.grad(total)(numbers(d, 3)),
    "func.grad twice": lambda d: func.grad(lambda x: func.grad(total)(x).sum())(numbers(d, 3)),
    "func.vjp": lambda d: func.vjp(unused, numbers(d, 2, 3), numbers(d, 2))[1](numbers(d, 2)),
    "func.jvp": lambda d: func.jvp(rows, (numbers(d, 2, 3),), (numbers(d, 2, 3),)),
    "func.jacrev": lambda d: func.jacrev(rows)(numbers(d, 2, 3)),
    "func.jacfwd": lambda d: func.jacfwd(rows)(numbers(d, 2, 3)),
    "func.hessian": lambda d: func.hessian(total)(numbers(d, 3)),
    "func.vmap": lambda d: func.vmap(func.grad(total))(numbers(d, 2, 3)),
    "LBFGS": lambda d: minimise(d, None),
    "LBFGS, line search": lambda d: minimise(d, "strong_wolfe"),
}


def flat(result: Any) -> list[Any]:
    if isinstance(result, (tuple, list)):
        return [value for part in result for value in flat(part)]
    return [result]


@pytest.mark.parametrize("name", CALLS)
def test_it_runs_where_its_tensors_are(name: str) -> None:
    here, there = flat(CALLS[name]("cpu")), flat(CALLS[name](THERE))
    assert len(here) == len(there)
    for expected, found in zip(here, there):
        if isinstance(found, bool):
            assert found is expected is True
        else:
            assert found.device == gradlite.device(THERE)
            np.testing.assert_allclose(found.tolist(), expected.tolist(), rtol=1e-9, atol=1e-12)


def test_a_wrong_rule_is_found_there_too() -> None:
    class Wrong(gradlite.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: Any) -> Any:
            return x * x

        @staticmethod
        def backward(ctx: Any, grad: Any) -> Any:
            return grad

    for fast in (False, True):
        x = leaf(THERE, 3)
        before = x.tolist()
        with pytest.raises(RuntimeError, match="Jacobian mismatch for output 0"):
            gradcheck(Wrong.apply, (x,), fast_mode=fast)
        assert x.tolist() == before


def test_derivatives_across_devices() -> None:
    x = numbers("cuda:0", 3)
    for strategy in ("reverse-mode", "forward-mode"):
        found = AF.jacobian(
            lambda x: x.to(THERE) * 2, x, vectorize=strategy == "forward-mode", strategy=strategy
        )
        assert found.tolist() == (2 * gradlite.eye(3)).tolist()


def test_functional_call_and_stacked_models() -> None:
    models = [nn.Linear(3, 2).to(THERE) for _ in range(2)]
    parameters, _ = func.stack_module_state(models)
    assert {p.device.index for p in parameters.values()} == {1}
    out = func.functional_call(
        models[0], dict(models[1].named_parameters()), (gradlite.ones(1, 3, device=THERE),)
    )
    assert out.tolist() == models[1](gradlite.ones(1, 3, device=THERE)).tolist()


# --------------------------------------------------- what is no op: copies, states, scalers, modes
def test_copies_stay_where_they_are_made_from() -> None:
    x = gradlite.arange(6.0, device=THERE).reshape(2, 3).T  # as its memory lies
    p = gradlite.ones(2, device=THERE, requires_grad=True)
    p.grad = gradlite.ones(2, device=THERE)
    buffer = nn.Buffer(gradlite.zeros(2, device=THERE))
    twin = copy.deepcopy(p)
    copies = [copy.deepcopy(x), copy.copy(x), pickle.loads(pickle.dumps(x)), twin, twin.grad,
              copy.deepcopy(nn.Parameter(x)),
              copy.deepcopy(buffer), gradlite.as_tensor(x.array),
              *copy.deepcopy(nn.Linear(2, 2).to(THERE)).state_dict().values()]  # fmt: skip
    assert {str(t.device) for t in copies} == {THERE}
    assert copies[0].tolist() == copies[1].tolist() == copies[2].tolist() == x.tolist()


@pytest.mark.parametrize(
    ("name", "fused"),
    [
        ("SGD", False),
        ("SGD", True),
        ("Adam", False),
        ("Adam", True),
        ("RMSprop", False),
        ("LBFGS", False),
    ],
)
def test_states_of_optimizers_are_taken_over_where_their_parameters_are(
    name: str, fused: bool
) -> None:
    options: dict[str, Any] = {"momentum": 0.9} if name in ("SGD", "RMSprop") else {}
    options |= {"fused": True} if fused else {}
    model = nn.Linear(3, 2).to(THERE)
    x = gradlite.randn(4, 3, device=THERE)

    def step(optimizer: Any) -> None:
        def closure() -> Any:
            optimizer.zero_grad()
            loss = model(x).pow(2).sum()
            loss.backward()
            return loss

        optimizer.step(closure)

    def make() -> Any:
        return getattr(gradlite.optim, name)(model.parameters(), lr=0.01, **options)

    optimizer, other = make(), make()
    step(optimizer)
    other.load_state_dict(optimizer.state_dict())
    step(other)
    for found in (other, copy.deepcopy(other)):
        tensors_of = [t for state in found.state.values() for t in tensors(dict(state)) if t.ndim]
        assert tensors_of and {str(t.device) for t in tensors_of} == {THERE}


def test_a_learning_rate_that_is_a_tensor_is_scheduled_where_it_is() -> None:
    model = nn.Linear(2, 2).to(THERE)
    optimizer = gradlite.optim.SGD(model.parameters(), lr=gradlite.tensor(0.5, device=THERE))
    schedule = gradlite.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)
    model(gradlite.ones(1, 2, device=THERE)).sum().backward()
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"].item() == 0.25


def test_gradients_are_scaled_on_both_devices() -> None:
    here, there = nn.Linear(3, 2).cuda(0), nn.Linear(2, 2).to(THERE)
    parameters = [*here.parameters(), *there.parameters()]
    for fused in (False, True):
        scaler = gradlite.amp.GradScaler("cuda", init_scale=8.0, growth_interval=1)
        optimizer = gradlite.optim.Adam(parameters, lr=0.1, fused=fused)
        for factor in (1.0, float("inf")):
            optimizer.zero_grad()
            out = there(here(gradlite.ones(4, 3, device="cuda:0")).to(THERE))
            scaler.scale((out * factor).sum()).backward()
            before = [p.tolist() for p in parameters]
            scaler.step(optimizer)
            scaler.update()
            assert (before == [p.tolist() for p in parameters]) == (factor != 1)
        assert scaler.get_scale() == 8.0  # doubled, and halved
        state = scaler.state_dict()
        for new_scale in (4.0, gradlite.tensor(4.0, device="cuda:0")):
            scaler.update(new_scale)
            assert scaler.get_scale() == 4.0
        scaler.load_state_dict(state)
        assert scaler.get_scale() == 8.0


def test_initial_values_and_anomalies_are_found_on_the_device_that_is_not_current() -> None:
    for name, *arguments in (("eye_",), ("dirac_",), ("sparse_", 0.5), ("constant_", 2.0)):
        empty = gradlite.empty(*((2, 2, 3) if name == "dirac_" else (2, 2)), device=THERE)
        assert getattr(nn.init, name)(empty, *arguments) is empty
    x = gradlite.zeros(2, device=THERE, requires_grad=True)
    with gradlite.autograd.set_detect_anomaly(True), pytest.warns(UserWarning, match="Traceback"):
        with pytest.raises(RuntimeError, match="returned nan"):
            (x / x).sum().backward()


def test_what_is_copied_for_a_graph_stays_with_its_tensor() -> None:
    for device in ("cpu", THERE):
        x = gradlite.arange(1.0, 7.0, device=device).reshape(3, 2).requires_grad_()
        rows = x[[0, 2]] + x[gradlite.tensor([0, 2], device=device)] + x[np.array([1, 1])]
        y = x * 1
        y.mul_(x * 2)  # whose rule reads what is written over
        with gradlite.autograd.graph.save_on_cpu():
            z = x * 1
            z.mul_(x * 2)
        (rows.sum() + (y + z).sum()).backward()
        assert x.grad.device == gradlite.device(device)
        assert x.grad.tolist() == [[10.0, 18.0], [26.0, 34.0], [42.0, 50.0]], device
        out = gradlite.add(x.detach(), 1, out=gradlite.zeros(0, device=device))
        assert out.tolist() == (x + 1).tolist() and out.device == x.device
        assert sorted(gradlite.randperm(3, dtype=gradlite.int32, device=device).tolist()) == [
            0,
            1,
            2,
        ]


def test_helpers_of_training_compute_on_the_device_that_is_not_current() -> None:
    table = gradlite.full((4, 2), 5.0, device=THERE)
    found = nn.functional.embedding(gradlite.tensor([1, 1], device=THERE), table, max_norm=1.0)
    assert found.norm(dim=1).tolist() == pytest.approx([1.0, 1.0], rel=1e-4)
    sequences = [gradlite.ones(n, 2, device=THERE) * n for n in (1, 3, 2)]
    packed = nn.utils.rnn.pack_sequence(sequences, enforce_sorted=False)
    out, state = nn.GRU(2, 3).to(THERE)(packed)
    assert out.data.device == state.device == gradlite.device(THERE)
    data = gradlite.utils.data.TensorDataset(gradlite.arange(6.0, device=THERE))
    batches = [b.tolist() for (b,) in gradlite.utils.data.DataLoader(data, batch_size=4)]
    assert batches == [[0.0, 1.0, 2.0, 3.0], [4.0, 5.0]]
    averages = gradlite.optim.swa_utils
    for options in ({"use_buffers": True}, {"multi_avg_fn": averages.get_ema_multi_avg_fn(0.5)}):
        model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)).to(THERE)
        averaged = averages.AveragedModel(model, **options)
        averaged.update_parameters(model)
        averaged.update_parameters(model)
        assert averaged.module[0].weight.tolist() == model[0].weight.tolist()
