"""Two GPUs, on the stand-in for CuPy, which refuses to compute where the arrays are not: what runs,
runs on the device of its tensors, whichever is current."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends.kernels import DevicesLauncher
from gradlite.nn import functional as F
from gradlite.ops.table import TABLE
from tests import cupy_stand_in as stand_in
from tests.cuda_on_cpu import compiler
from tests.cupy_stand_in import runtime
from tests.test_stand_in import MODELS, NAMES, SECOND_ORDER, compare, convert, tensors, train

THERE = "cuda:1"
MIXED = "Expected all tensors to be on the same device, but found at least two devices, "


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch, devices=2)


@pytest.fixture(autouse=True)
def same_current_device() -> Any:
    yield
    assert runtime.current == [0]


@pytest.mark.parametrize("name", NAMES)
def test_an_op_runs_where_its_tensors_are(name: str) -> None:
    compare(name, False, THERE)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_derivatives(name: str) -> None:
    compare(name, True, THERE)


@pytest.mark.parametrize("name", [name for name, entry in TABLE.items() if entry.inplace])
def test_an_edit_in_place_runs_where_its_tensor_is(name: str) -> None:
    for sample in TABLE[name].samples():
        results = []
        for device in ("cpu", THERE):
            args, kwargs = convert((sample.args, sample.kwargs), device)
            if not tensors(args[:1]):
                break
            try:
                with gradlite.no_grad():
                    results.append(getattr(args[0], f"{name}_")(*args[1:], **kwargs))
            except RuntimeError as error:  # a result of another dtype or shape: refused everywhere
                results.append(str(error).replace("cuda", "cpu"))
        if results:
            here, there = results
            assert isinstance(there, str) == isinstance(here, str)
            if isinstance(here, str):
                assert there == here
            else:
                assert there.device == gradlite.device(THERE)
                np.testing.assert_allclose(there.tolist(), here.tolist(), rtol=1e-12)


@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"])
@pytest.mark.parametrize("kind", MODELS)
def test_training_on_the_device_that_is_not_current(kind: str, optimizer: str) -> None:
    model, shape = MODELS[kind]

    def make(parameters: Any) -> Any:
        return getattr(gradlite.optim, optimizer)(parameters, lr=0.01)

    for a, b in zip(train(model, shape, make, THERE), train(model, shape, make, "cpu")):
        np.testing.assert_allclose(a, b, rtol=5e-3, atol=5e-4)


def test_a_model_on_two_devices_trains() -> None:
    first, second = nn.Linear(3, 4).cuda(0), nn.Linear(4, 2).cuda(1)
    x = gradlite.randn(5, 3)
    h = first(x.cuda(0)).tanh()
    h = (h * h + h).to(THERE)  # gradients add up on both devices
    y = second(h) + second(h * 2)
    assert y.device == gradlite.device(THERE)
    y.sum().backward()
    assert {p.grad.device.index for p in first.parameters()} == {0}
    assert {p.grad.device.index for p in second.parameters()} == {1}
    optimizer = gradlite.optim.SGD([*first.parameters(), *second.parameters()], lr=0.1)
    optimizer.step()
    optimizer.zero_grad()
    nn.utils.clip_grad_norm_(second.parameters(), 1.0)


def test_matrices_without_a_result_on_the_device_that_is_not_current() -> None:
    good, bad = gradlite.eye(2), gradlite.full((2, 2), float("nan"))
    batch = gradlite.stack([good, bad]).to("cuda:1")
    for name in ("svd", "svdvals", "pinv", "matrix_rank"):
        with pytest.raises(
            gradlite.linalg.LinAlgError, match=r"\(Batch element 1\).*failed to converge"
        ):
            getattr(gradlite.linalg, name)(batch)
    singular = gradlite.stack([good, gradlite.ones(2, 2)]).to("cuda:1")
    with pytest.raises(gradlite.linalg.LinAlgError, match=r"\(Batch element 1\)"):
        gradlite.linalg.inv(singular)
    assert gradlite.linalg.cond(singular, 1).tolist() == [1.0, float("inf")]
    assert gradlite.linalg.cholesky_ex(singular).info.tolist() == [0, 2]


def test_mixing_two_gpus_is_refused() -> None:
    a, b = gradlite.ones(2, 2, device="cuda:0"), gradlite.ones(2, 2, device=THERE)
    for call in (
        lambda: a + b,
        lambda: b * a,
        lambda: a @ b,
        lambda: F.linear(a, b),
        lambda: gradlite.cat([a, b]),
        lambda: gradlite.where(a > 0, a, b),
        lambda: a > b,
        lambda: a.add_(b),
        lambda: F.layer_norm(a, (2,), b[0]),
        lambda: F.embedding(a.long(), b),
    ):
        with pytest.raises(RuntimeError, match=f"{MIXED}cuda:[01] and cuda:[01]!"):
            call()


def test_copies_between_gpus_wait_for_both() -> None:
    a = gradlite.arange(4.0, device="cuda:0")
    side = gradlite.cuda.Stream("cuda:0")
    # Streams are ordered by events alone: a copy waits for the current streams of the two GPUs,
    # and the one of the first has to wait for the stream on which ``a`` was made.
    side.wait_stream(gradlite.cuda.current_stream("cuda:0"))
    with gradlite.cuda.stream(side):
        b = a[::2].to(THERE)
    assert b.device == gradlite.device(THERE) and b.tolist() == [0.0, 2.0]
    a.copy_(gradlite.ones(4, device=THERE))
    assert a.tolist() == [1.0] * 4 and a.device.index == 0
    assert a.to("cuda:0") is a and a.to("cuda") is a


def test_each_device_compiles_its_own_kernels() -> None:
    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    from gradlite.ops.namespaces import NAMESPACES

    launcher = NAMESPACES[stand_in.Array].launcher
    assert isinstance(launcher, DevicesLauncher)
    for device in ("cuda:0", THERE):
        F.softmax(gradlite.ones(2, 3, device=device), -1)
    assert sorted(launcher._launchers) == [0, 1]


def test_indexing_with_lists_masks_and_numpy() -> None:
    x = gradlite.arange(6.0, device=THERE).reshape(2, 3)
    assert x[[1, 0]][:, [2]].tolist() == [[5.0], [2.0]]
    assert x[x > 3].tolist() == [4.0, 5.0]
    x[[0], [1]] = 9.0
    x[1] = np.zeros(3, np.float32)
    x[0, 2] = gradlite.tensor(7.0, device=THERE)
    x[:, 0] = 5
    assert x.tolist() == [[5.0, 9.0, 7.0], [5.0, 0.0, 0.0]]
