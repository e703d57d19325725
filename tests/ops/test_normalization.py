"""Normalisation: statistics and their updates, accuracy, dtypes, blocks, derivatives, errors."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import standardize
from tests.oracle import same, torch

F = gradlite.nn.functional
Function = Callable[..., Any]


def layer(F: Any, x: Any, w: Any, b: Any) -> Any:
    return F.layer_norm(x, x.shape[-1:], w, b)


def rms(F: Any, x: Any, w: Any, b: Any) -> Any:
    return F.rms_norm(x, x.shape[-1:], w, 1e-6)


def batch(F: Any, x: Any, w: Any, b: Any) -> Any:
    return F.batch_norm(x, None, None, w, b, True)


def evaluation(F: Any, x: Any, w: Any, b: Any) -> Any:
    library = torch if isinstance(x, torch.Tensor) else gradlite
    dtype = x.dtype if w is None else w.dtype
    mean = library.tensor([-1.0, -0.3, 0.4, 1.1], dtype=library.float64).to(dtype)
    return F.batch_norm(x, mean, mean * mean + 0.5, w, b)


def group(F: Any, x: Any, w: Any, b: Any) -> Any:
    return F.group_norm(x, 2, w, b)


def instance(F: Any, x: Any, w: Any, b: Any) -> Any:
    return F.instance_norm(x, None, None, w, b)


# The function, the shape of its input, the number of weights.
CASES: dict[str, tuple[Function, tuple[int, ...], int]] = {
    "layer_norm": (layer, (5, 4, 6), 6),
    "layer_norm, many rows": (layer, (48, 6), 6),
    "layer_norm, one row": (layer, (7,), 7),
    "rms_norm": (rms, (5, 4, 6), 6),
    "rms_norm, many rows": (rms, (48, 6), 6),
    "batch_norm": (batch, (6, 4, 3, 5), 4),
    "batch_norm of vectors": (batch, (6, 4), 4),
    "batch_norm in evaluation": (evaluation, (6, 4, 5), 4),
    "group_norm": (group, (3, 6, 2, 4), 6),
    "group_norm of vectors": (group, (3, 6), 6),
    "instance_norm": (instance, (3, 4, 5), 4),
}
each_case = pytest.mark.parametrize("name", CASES)


def tensors(library: Any, name: str, offset: float = 0.0) -> list[Any]:
    _, shape, n = CASES[name]
    rng = np.random.default_rng(0)
    arrays = rng.standard_normal(shape) + offset, rng.standard_normal(n), rng.standard_normal(n)
    return [library.tensor(a, requires_grad=True) for a in arrays]


def first_derivatives(library: Any, name: str, offset: float = 0.0) -> Any:
    x, w, b = tensors(library, name, offset)
    y = CASES[name][0](library.nn.functional, x, w, b)
    inputs = (x, w) if "rms" in name else (x, w, b)
    g = library.tensor(np.random.default_rng(1).standard_normal(x.shape))
    return y.detach(), library.autograd.grad(y, inputs, g)


@each_case
@pytest.mark.parametrize("offset", [0.0, 3.0, 100.0])
@pytest.mark.parametrize("blocks", [None, 24])
@pytest.mark.parametrize("keep", [0, 1 << 20])
def test_values_and_gradients(
    name: str, offset: float, blocks: int | None, keep: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Near and far from mean 0, in one and in several blocks, rows kept and computed again."""
    monkeypatch.setattr(standardize, "KEEP_BYTES", keep)
    if blocks is not None:
        monkeypatch.setattr(standardize, "ROWS", blocks)
        monkeypatch.setattr(standardize, "PLANES", blocks)
        monkeypatch.setattr(standardize.in_blocks, "__defaults__", (blocks,))
    same(lambda library: first_derivatives(library, name, offset), rtol=1e-7, atol=1e-9)


@each_case
def test_each_gradient_alone_and_parameters_left_out(name: str) -> None:
    function = CASES[name][0]

    def program(library: Any) -> Any:
        results = []
        for wanted in range(2 if "rms" in name else 3):
            inputs = tensors(library, name)
            inputs = [t if i == wanted else t.detach() for i, t in enumerate(inputs)]
            (function(library.nn.functional, *inputs) ** 2).sum().backward()
            results.append(inputs[wanted].grad)
        x, w, b = tensors(library, name)
        for weight, bias in ((None, None), (w, None), (None, b)):
            y = function(library.nn.functional, x, weight, bias)
            results.append(library.autograd.grad((y**3).sum(), x))
        return results

    same(program, rtol=1e-8, atol=1e-8)


@each_case
def test_create_graph_computes_the_same(name: str) -> None:
    x, w, b = tensors(gradlite, name, 2.0)
    y = CASES[name][0](F, x, w, b)
    inputs = (x, w) if "rms" in name else (x, w, b)
    plain = gradlite.autograd.grad((y**3).sum(), inputs, retain_graph=True)
    graph = gradlite.autograd.grad((y**3).sum(), inputs, create_graph=True)
    for one, other in zip(plain, graph):
        np.testing.assert_allclose(one.array, other.detach().array, rtol=1e-9, atol=1e-9)


@each_case
@pytest.mark.parametrize("mean, std", [(0.0, 1.0), (1000.0, 1.0), (0.5, 1e-3), (0.0, 1e8)])
def test_float32_is_as_good_as_its_input_allows(name: str, mean: float, std: float) -> None:
    """Within 1e-5 of float64, where PyTorch itself can be a thousand times worse."""
    if "evaluation" in name or ("vectors" in name and mean):
        pytest.skip("constant statistics, or means of so few values that they round themselves")
    function, shape, n = CASES[name]
    shape = (*shape[:1], *(6 * s for s in shape[1:])) if len(shape) > 1 else (500,)
    n = shape[-1] if "layer" in name or "rms" in name else shape[1]
    rng = np.random.default_rng(0)
    x = (rng.standard_normal(shape) * std + mean).astype(np.float32)
    w, b, g = rng.standard_normal(n), rng.standard_normal(n), rng.standard_normal(shape)

    def run(dtype: Any) -> list[np.ndarray]:
        inputs = [gradlite.tensor(a.astype(dtype), requires_grad=True) for a in (x, w, b)]
        y = function(F, *inputs)
        y.backward(gradlite.tensor(g.astype(dtype)))
        return [y.detach().array, *(t.grad.array for t in inputs if t.grad is not None)]

    for place, (single, double) in enumerate(zip(run(np.float32), run(np.float64))):
        error = abs(single - double).max() / abs(double).max()
        # Backward centres with the rounded mean, as the gradient of a rounded forward does.
        assert error < (1e-5 if place == 0 or not mean else 1e-4), (place, error)


# As CASES, with so many elements that kernels run on the CPU too.
LARGE: dict[str, tuple[Function, tuple[int, ...], int]] = {
    "layer_norm, many elements": (layer, (70, 64), 64),
    "layer_norm, one long row": (layer, (1, 5000), 5000),
    "rms_norm, many elements": (rms, (70, 64), 64),
    "rms_norm, many short rows": (rms, (1500, 3), 3),
    "batch_norm, many elements": (batch, (70, 4, 4, 5), 4),
    "batch_norm of many vectors": (batch, (70, 64), 64),
    "batch_norm of many in evaluation": (evaluation, (70, 4, 20), 4),
    "group_norm, many elements": (group, (70, 6, 12), 6),
    "instance_norm, many elements": (instance, (70, 4, 20), 4),
}


@pytest.mark.parametrize("name", [*CASES, *LARGE])
@pytest.mark.parametrize("parameters", ["float16", "float32"])
@pytest.mark.parametrize("half", ["float16", "bfloat16"])
def test_half_precision(
    name: str, parameters: str, half: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    for large, case in LARGE.items():
        monkeypatch.setitem(CASES, large, case)
    function = CASES[name][0]
    parameters = half if parameters == "float16" else parameters

    def run(library: Any, dtype: str, parameter_dtype: str) -> list[Any]:
        x, w, b = (t.detach() for t in tensors(library, name))
        x = x.to(getattr(library, half)).to(getattr(library, dtype)).requires_grad_()
        w, b = (
            p.to(getattr(library, half)).to(getattr(library, parameter_dtype)).requires_grad_()
            for p in (w, b)
        )
        y = function(library.nn.functional, x, w, b)
        inputs = (x, w) if "rms" in name else (x, w, b)
        grads = library.autograd.grad((y.float() ** 3).sum(), inputs)
        for tensor, grad in zip(inputs, grads):
            assert grad.dtype == tensor.dtype
        return [y, *grads]

    found, double = run(gradlite, half, parameters), run(torch, "float64", "float64")
    assert found[0].dtype == getattr(gradlite, half)
    within = 5e-3 if half == "float16" else 4e-2
    for mine, exact in zip(found, double):
        difference = abs(mine.detach().double().numpy() - exact.detach().numpy()).max()
        assert difference < within * float(abs(exact.detach()).max())


@pytest.mark.parametrize("weight", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.filterwarnings("ignore:Mismatch dtype")
def test_dtypes_of_rms_norm(dtype: str, weight: str) -> None:
    def program(library: Any) -> Any:
        x = library.ones(2, 3, dtype=getattr(library, dtype), requires_grad=True)
        w = library.ones(3, dtype=getattr(library, weight), requires_grad=True)
        y = library.nn.functional.rms_norm(x, (3,), w)
        y.sum().backward()
        return [str(t.dtype).rpartition(".")[2] for t in (y, x.grad, w.grad)]

    assert program(gradlite) == program(torch)


def test_half_precision_under_create_graph() -> None:
    x = gradlite.tensor([[1.0, 2.0, 4.0]]).half().requires_grad_()
    w = gradlite.ones(3, requires_grad=True)
    y = F.layer_norm(x, (3,), w)
    grads = gradlite.autograd.grad((y * y * y).sum(), (x, w), create_graph=True)
    assert [g.dtype for g in grads] == [gradlite.float16, gradlite.float32]


# ------------------------------------------------------------------------ running statistics
@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 5), (2, 3, 2, 3)], ids=str)
@pytest.mark.parametrize("momentum", [0.1, 0.0, 1.0])
def test_running_statistics_move(shape: tuple[int, ...], momentum: float) -> None:
    def program(library: Any) -> Any:
        mean, var = library.full((3,), 0.5), library.full((3,), 2.0)
        for step in range(3):
            x = library.tensor(
                np.random.default_rng(step).standard_normal(shape).astype(np.float32) + step
            )
            y = library.nn.functional.batch_norm(x, mean, var, None, None, True, momentum)
        return y, mean, var, library.nn.functional.batch_norm(x, mean, var)

    same(program, rtol=1e-5, atol=1e-6)


def test_running_statistics_of_other_dtypes() -> None:
    def program(library: Any) -> Any:
        results = []
        for dtype in (library.float16, library.float32):
            mean, var = library.zeros(2, dtype=dtype), library.ones(2, dtype=dtype)
            x = library.arange(12.0).view(3, 2, 2).half()
            library.nn.functional.batch_norm(x, mean, var, training=True)
            results += [mean, var]
        return results

    same(program, rtol=1e-3)


def test_the_update_of_running_statistics_bumps_their_versions() -> None:
    mean, var = gradlite.zeros(2), gradlite.ones(2)
    F.batch_norm(gradlite.ones(3, 2), mean, var)
    assert (mean._version, var._version) == (0, 0)
    F.batch_norm(gradlite.ones(3, 2), mean, var, training=True)
    assert (mean._version, var._version) == (1, 1)


def test_evaluation_keeps_the_statistics_it_used() -> None:
    mean, var = gradlite.zeros(2), gradlite.ones(2)
    x = gradlite.ones(3, 2, requires_grad=True)
    y = F.batch_norm(x, mean, var, eps=0.0)
    F.batch_norm(gradlite.arange(6.0).view(3, 2), mean, var, training=True)
    y.sum().backward()
    assert x.grad.tolist() == [[1.0, 1.0]] * 3


@pytest.mark.parametrize("use_input_stats", [True, False])
def test_instance_norm_with_running_statistics(use_input_stats: bool) -> None:
    def program(library: Any) -> Any:
        rng = np.random.default_rng(0)
        x = library.tensor(rng.standard_normal((2, 3, 4)), requires_grad=True)
        w = library.tensor(rng.standard_normal(3), requires_grad=True)
        mean = library.tensor([0.5, 0.0, -0.5], dtype=library.float64)
        var = library.tensor([2.0, 1.0, 0.5], dtype=library.float64)
        y = library.nn.functional.instance_norm(x, mean, var, w, None, use_input_stats, 0.3)
        return y, mean, var, library.autograd.grad((y**3).sum(), (x, w))

    same(program, rtol=1e-9, atol=1e-10)


# ---------------------------------------------------------------------------------- the rest
@pytest.mark.parametrize("shape", [(0, 4), (0, 4, 3)], ids=str)
def test_empty_batches(shape: tuple[int, ...]) -> None:
    def program(library: Any) -> Any:
        F = library.nn.functional
        results = []
        for function in (batch, group, layer, rms):
            n = shape[-1] if function in (layer, rms) else 4
            x = library.ones(shape, requires_grad=True)
            w = library.ones(n, requires_grad=True)
            y = function(F, x, w, None)
            y.sum().backward()
            results += [y.detach(), x.grad, w.grad]
        return results, F.instance_norm(library.ones(0, 4, 3))

    same(program)


def test_rows_of_no_elements() -> None:
    same(lambda library: library.nn.functional.layer_norm(library.ones(3, 0), (0,)))


def test_constant_rows_become_zero() -> None:
    x = gradlite.full((6, 100), 7.1)
    results = (
        F.layer_norm(x, (100,)),
        F.group_norm(x.view(6, 4, 25), 2),
        F.batch_norm(x, None, None, training=True),
    )
    assert all(abs(y.array).max() < 1e-8 for y in results)


def test_nan_and_infinite_values_are_quiet() -> None:
    def program(library: Any) -> Any:
        F = library.nn.functional
        x = library.ones(2, 4, 3)
        x[0, 0, 1], x[1, 2, 2] = float("inf"), float("nan")
        return F.layer_norm(x, (3,)), F.group_norm(x, 2), F.batch_norm(x, None, None, training=True)

    same(program, atol=1e-5)


def test_layer_norm_over_several_dimensions() -> None:
    def program(library: Any) -> Any:
        rng = np.random.default_rng(0)
        x, w, b = (
            library.tensor(rng.standard_normal(s), requires_grad=True)
            for s in ((2, 5, 3, 4), (3, 4), (3, 4))
        )
        y = library.nn.functional.layer_norm(x.transpose(0, 1), [3, 4], w, b)
        return y, library.autograd.grad((y**3).sum(), (x, w, b))

    same(program, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("shape", [(2, 5, 3), (2, 5, 2, 3)], ids=str)
@pytest.mark.parametrize("size", [1, 2, 3, 5])
def test_local_response_norm(shape: tuple[int, ...], size: int) -> None:
    def program(library: Any) -> Any:
        x = library.tensor(np.random.default_rng(0).standard_normal(shape), requires_grad=True)
        y = library.nn.functional.local_response_norm(x, size, 0.1, 0.5, 2.0)
        return y, library.autograd.grad((y**3).sum(), x)

    same(program, rtol=1e-9, atol=1e-10)


def test_gradients_are_arrays_of_their_own() -> None:
    for name in ("layer_norm, many rows", "batch_norm", "group_norm"):
        x, w, b = tensors(gradlite, name)
        CASES[name][0](F, x, w, b).sum().backward()
        arrays = [t.grad.array for t in (x, w, b)]
        assert not any(np.shares_memory(a, c) for a in arrays for c in (x.array, w.array))
        assert not any(np.shares_memory(arrays[i], arrays[j]) for i, j in ((0, 1), (0, 2), (1, 2)))


WRONG: dict[str, Any] = {
    "layer: size": lambda F, T: F.layer_norm(T(4, 3), (4,)),
    "layer: sizes": lambda F, T: F.layer_norm(T(4, 3), (2, 4, 3)),
    "layer: no sizes": lambda F, T: F.layer_norm(T(4, 3), ()),
    "layer: a number": lambda F, T: F.layer_norm(T(4, 3), 3),
    "layer: weight": lambda F, T: F.layer_norm(T(4, 3), (3,), T(4)),
    "layer: bias": lambda F, T: F.layer_norm(T(4, 3), (3,), T(3), T(3, 1)),
    "layer: integers": lambda F, T: F.layer_norm(T(4, 3).long(), (3,)),
    "layer: double input": lambda F, T: F.layer_norm(T(4, 3).double(), (3,), T(3)),
    "layer: double weight": lambda F, T: F.layer_norm(T(4, 3), (3,), T(3).double()),
    "rms: size": lambda F, T: F.rms_norm(T(4, 3), (4,)),
    "rms: weight": lambda F, T: F.rms_norm(T(4, 3), (3,), T(4)),
    "batch: one value": lambda F, T: F.batch_norm(T(1, 3, 1), None, None, training=True),
    "batch: no statistics": lambda F, T: F.batch_norm(T(4, 3), None, None),
    "batch: no variance": lambda F, T: F.batch_norm(T(4, 3), T(3), None),
    "batch: only a mean": lambda F, T: F.batch_norm(T(4, 3), T(3), None, training=True),
    "batch: mean": lambda F, T: F.batch_norm(T(4, 3), T(4), T(3), training=True),
    "batch: variance": lambda F, T: F.batch_norm(T(4, 3), T(3), T(4), training=True),
    "batch: weight": lambda F, T: F.batch_norm(T(4, 3), T(3), T(3), T(4)),
    "batch: bias": lambda F, T: F.batch_norm(T(4, 3), T(3), T(3), T(3), T(4)),
    "batch: eps 0": lambda F, T: F.batch_norm(T(4, 3), None, None, training=True, eps=0),
    "batch: eps": lambda F, T: F.batch_norm(T(4, 3), T(3), T(3), eps=-1),
    "batch: momentum": lambda F, T: F.batch_norm(T(4, 3), T(3), T(3), momentum=None),
    "batch: integers": lambda F, T: F.batch_norm(T(4, 3).long(), T(3), T(3)),
    "batch: double": lambda F, T: F.batch_norm(T(4, 3).double(), T(3), T(3)),
    "batch: gradient of a mean": lambda F, T: F.batch_norm(
        T(4, 3, requires_grad=True), T(3, requires_grad=True), T(3)
    ),
    "group: dimensions": lambda F, T: F.group_norm(T(6), 2),
    "group: division": lambda F, T: F.group_norm(T(4, 6, 5), 4),
    "group: negative": lambda F, T: F.group_norm(T(4, 6, 5), -2),
    "group: zero": lambda F, T: F.group_norm(T(4, 6, 5), 0),
    "group: weight": lambda F, T: F.group_norm(T(4, 6, 5), 2, T(5)),
    "group: one value": lambda F, T: F.group_norm(T(1, 2), 2),
    "instance: one value": lambda F, T: F.instance_norm(T(2, 3, 1)),
    "instance: dimensions": lambda F, T: F.instance_norm(T(2, 3)),
    "instance: weight": lambda F, T: F.instance_norm(T(2, 3, 4), weight=T(4)),
    "instance: mean": lambda F, T: F.instance_norm(T(2, 3, 4), T(4), T(4)),
    "instance: no statistics": lambda F, T: F.instance_norm(T(2, 3, 4), use_input_stats=False),
    "response: dimensions": lambda F, T: F.local_response_norm(T(2, 3), 2),
    "response: size": lambda F, T: F.local_response_norm(T(2, 3, 4), 0),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.functional, library.ones),
        raises=(RuntimeError, TypeError, ValueError, NotImplementedError, ZeroDivisionError),
        message="exact",
    )


def test_samples_by_themselves_with_eps_of_0() -> None:
    def program(library: Any) -> Any:
        layer = library.nn.InstanceNorm1d(2, eps=0, momentum=1, track_running_stats=True)
        y = layer(library.tensor([[[1.0, 2.0, 4.0], [3.0, 1.0, 2.0]]]))
        return y, layer.running_mean, layer.running_var

    same(program)


def test_statistics_that_are_no_longer_tracked() -> None:
    def program(library: Any) -> Any:
        layer = library.nn.BatchNorm1d(2)
        layer(library.tensor([[1.0, 2.0], [3.0, 5.0]]))
        layer.track_running_stats = False
        layer(library.tensor([[7.0, 2.0], [3.0, 5.0]]))
        return layer.num_batches_tracked, layer.running_mean, layer.running_var

    same(program)
