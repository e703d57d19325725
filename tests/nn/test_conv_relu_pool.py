"""Sequential runs a convolution, relu and max-pooling as one op on the CPU."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.backends import launches
from gradlite.capturing.native.build import available
from gradlite.ops import conv_compiled
from tests.compiled_convolutions import all_sizes, library, needs_compiler

JOINED = "maxima_of_convolved"


__all__ = ["all_sizes", "library"]  # which tests use by their names
pytestmark = pytest.mark.usefixtures("all_sizes")


def layers(dtype: str = "float32", c: int = 2, o: int = 7, **options: Any) -> list[Any]:
    gradlite.manual_seed(0)
    conv = nn.Conv2d(c, o, options.pop("kernel", 3), padding=options.pop("padding", 1), **options)
    return [conv.to(getattr(gradlite, dtype)), nn.ReLU(), nn.MaxPool2d(2)]


def images(dtype: str, *shape: int) -> Any:
    return gradlite.randn(*shape, dtype=getattr(gradlite, dtype), requires_grad=True)


def run(model: Any, x: Any, names: list[str] | None = None) -> list[Any]:
    """The result and all gradients."""
    leaves = [x, *model.parameters()]
    for leaf in leaves:
        leaf.grad = None
    with launches.record() as launched:
        y = model(x)
    if y.requires_grad:
        gradlite.manual_seed(1)
        grad = gradlite.randn(*y.shape, dtype=y.dtype)
        with launches.record() as more:
            y.backward(grad)
        launched += more
    if names is not None:
        names += launched
    return [y.detach().numpy(), *[g.grad.numpy() for g in leaves if g.grad is not None]]


def is_joined(model: Any, x: Any) -> bool:
    """Whether all layers ran as one op: its gradients are those of the leaves."""
    node = model(x).grad_fn
    return all(f.name().endswith("AccumulateGrad") for f, _ in node.next_functions if f)


def one_by_one(modules: list[Any]) -> Any:
    """The same layers, which a hook keeps apart."""
    model = nn.Sequential(*modules)
    modules[1].register_forward_hook(lambda *_: None)
    return model


CASES: dict[str, Any] = {
    "padded": ((16, 2, 8, 10), {}),
    "several vectors": ((48, 1, 12, 8), {"o": 16, "c": 1}),
    "wide": ((16, 3, 4, 36), {"c": 3, "o": 5}),
    "no bias, no padding": ((16, 2, 10, 10), {"bias": False, "padding": 0}),
    "dilated": ((32, 2, 10, 8), {"dilation": 2, "padding": 2}),
    "large kernel": ((16, 2, 12, 12), {"kernel": 5, "padding": 2}),
    "same": ((16, 2, 6, 6), {"padding": "same"}),
    "kernels of one row": ((16, 2, 6, 8), {"kernel": (1, 3), "padding": (0, 1)}),
}


@pytest.fixture(params=["compiled", "numpy"])
def compiled(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    if request.param == "numpy":
        monkeypatch.setattr(conv_compiled, "_loaded", lambda dtype: None)
    else:
        request.getfixturevalue("library")
    return bool(request.param == "compiled")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES)
def test_results_are_those_of_the_layers(case: str, dtype: str, compiled: bool) -> None:
    shape, options = CASES[case]
    x, names = images(dtype, *shape), []
    model = nn.Sequential(*layers(dtype, **dict(options)))
    assert is_joined(model, x)
    made = run(model, x, names)
    assert names == ([JOINED, "spread_convolved", "spread_kernels_gradient"] if compiled else [])
    expected = run(one_by_one(layers(dtype, **dict(options))), x)
    tolerance = 1e-5 if dtype == "float32" else 1e-12
    assert len(made) == len(expected) >= 3
    for a, b in zip(made, expected):
        assert a.dtype == b.dtype and a.flags.c_contiguous
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance * np.abs(b).max())


@needs_compiler
def test_only_what_is_wanted() -> None:
    x = images("float32", 16, 2, 8, 8)
    model, names = nn.Sequential(*layers()), list[str]()
    expected = run(model, x)
    made = run(model, x.detach(), names)
    assert names == [JOINED, "spread_kernels_gradient"]
    np.testing.assert_array_equal(made[1], expected[2])
    np.testing.assert_array_equal(made[2], expected[3])
    model[0].weight.requires_grad = False
    frozen = run(model, x)
    np.testing.assert_allclose(frozen[1], expected[1], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(frozen[2], expected[3])
    with gradlite.no_grad():
        np.testing.assert_array_equal(run(model, x)[0], expected[0])


def test_values_that_are_not_finite(compiled: bool) -> None:
    x = gradlite.randn(16, 2, 8, 8)
    for place, value in (((0, 1, 3, 3), np.nan), ((5, 0, 7, 0), np.inf), ((15, 1, 0, 7), -np.inf)):
        x[place] = value
    made = run(nn.Sequential(*layers()), x.detach())[0]
    expected = run(one_by_one(layers()), x.detach())[0]
    assert np.isnan(made).any() and np.isinf(made).any()
    np.testing.assert_allclose(made, expected, rtol=1e-5, atol=1e-6)


def test_second_derivatives(compiled: bool) -> None:
    conv, relu, pool = layers("float64", c=1, o=2)
    x = images("float64", 8, 1, 4, 4)

    def joined(x: Any, weight: Any, bias: Any) -> Any:
        functional = gradlite.func.functional_call
        model = nn.Sequential(conv, relu, pool)
        return functional(model, {"0.weight": weight, "0.bias": bias}, (x,))

    with launches.record() as names:
        joined(x, conv.weight, conv.bias)
    assert names == ([JOINED] if compiled else [])
    inputs = (x[:, :, :, :].detach().requires_grad_(), conv.weight, conv.bias)
    assert gradlite.autograd.gradgradcheck(joined, inputs)


@needs_compiler
def test_what_does_not_fit_runs_layer_by_layer() -> None:
    def launched(modules: list[Any], *shape: int) -> list[str]:
        names: list[str] = []
        run(nn.Sequential(*modules), images("float32", *shape), names)
        return names

    conv, relu, pool = layers()
    assert JOINED in launched([conv, relu, pool], 16, 2, 8, 8)
    assert JOINED not in launched([conv, relu, pool], 24, 2, 8, 8)  # half a vector is empty
    assert JOINED not in launched([conv, relu, pool], 16, 2, 9, 8)  # an odd height
    for other in (nn.MaxPool2d(3), nn.MaxPool2d(2, 1), nn.MaxPool2d(2, 2, 1), nn.AvgPool2d(2)):
        assert JOINED not in launched([conv, relu, other], 16, 2, 8, 8)
    assert JOINED not in launched([conv, nn.ReLU6(), pool], 16, 2, 8, 8)
    strided = nn.Conv2d(2, 4, 3, stride=2)
    assert JOINED not in launched([strided, relu, pool], 16, 2, 17, 17)
    assert JOINED not in launched([nn.Conv2d(2, 4, 3, groups=2), relu, pool], 16, 2, 8, 8)
    around = nn.Conv2d(2, 4, 3, padding=1, padding_mode="circular")
    assert JOINED not in launched([around, relu, pool], 16, 2, 8, 8)
    relu.forward = lambda input: input  # type: ignore[method-assign]
    assert JOINED not in launched([conv, relu, pool], 16, 2, 8, 8)


def test_errors_are_those_of_the_convolution() -> None:
    model = nn.Sequential(*layers())
    for shape in ((16, 3, 8, 8), (16, 2, 8)):
        with pytest.raises(RuntimeError, match="Given|Expected|expected"):
            model(gradlite.randn(*shape))
    with pytest.raises(RuntimeError):
        model(gradlite.randn(16, 2, 8, 8, dtype=gradlite.float64))


@pytest.mark.parametrize("native", [False, True])
def test_captured_steps(native: bool, compiled: bool) -> None:
    if native and not available():
        pytest.skip("no C++ compiler, or GRADLITE_NATIVE=0")
    modules = [*layers(c=2, o=4), nn.Conv2d(4, 6, 3, padding=1), nn.ReLU(), nn.MaxPool2d(2)]
    model = nn.Sequential(*modules)
    x = gradlite.randn(16, 2, 8, 8)
    weights = gradlite.randn(16, 6, 2, 2)
    step = gradlite.capture(lambda x: gradients_of(model, x, weights), native=native)
    for _ in range(4):
        made = step(x)
    with launches.record() as names:
        made = [m.numpy() for m in step(x)]
    assert names.count(JOINED) == (2 if compiled and not native else 0)
    direct = [m.numpy() for m in gradients_of(model, x, weights)]
    for a, b in zip(made, direct):
        if native:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(a, b)


def gradients_of(model: Any, x: Any, weights: Any) -> list[Any]:
    model.zero_grad()
    y = model(x)
    (y * weights).sum().backward()
    return [y.detach(), *[p.grad for p in model.parameters()]]


@needs_compiler
def test_autocast_casts_the_layers_and_joins_them_again_afterwards() -> None:
    model, x = nn.Sequential(*layers()), images("float32", 16, 2, 8, 8)
    with gradlite.autocast("cpu", dtype=gradlite.float16):
        assert model(x).dtype is gradlite.float16
    assert is_joined(model, x) and model(x).dtype is gradlite.float32
