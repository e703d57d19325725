"""`compile` and TorchScript's names: what programs give them runs as it is, and they say so."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

import gradlite
from gradlite import nn
from tests.oracle import same, torch


@pytest.mark.parametrize(
    "options",
    [{"mode": "fast"}, {"mode": "default", "options": {"trace.enabled": True}}],
    ids=["mode", "both"],
)
@pytest.mark.parametrize("way", ["function", "method"])
def test_options_that_pytorch_does_not_take(way: str, options: dict[str, Any]) -> None:
    def program(T: Any) -> Any:
        model = T.nn.Linear(2, 2)
        return model.compile(**options) if way == "method" else T.compile(model, **options)

    same(program, raises=RuntimeError, message="exact")


@pytest.mark.parametrize("way", ["function", "method"])
def test_an_option_that_nobody_has(way: str) -> None:
    model = nn.Linear(2, 2)
    with pytest.raises(TypeError, match="unexpected keyword argument 'full_graph'"):
        model.compile(full_graph=True) if way == "method" else gradlite.compile(full_graph=True)


def test_backends_that_pytorch_does_not_know() -> None:
    for library in (torch, gradlite):
        with pytest.raises(RuntimeError, match="Invalid backend: 'nothing', "):
            library.compile(len, backend="nothing")


@pytest.mark.parametrize("model", [5, "a", gradlite.ones(2)], ids=type)
def test_only_what_can_be_called(model: Any) -> None:
    with pytest.raises(AssertionError, match="A callable function is expected, but <class"):
        gradlite.compile(model, disable=True)


def test_compiled_code_is_asked_for_and_there_is_none() -> None:
    model = nn.Linear(2, 2)
    with pytest.warns(UserWarning, match=r"runs as it is: gradlite\.capture\(step\)") as found:
        assert gradlite.compile(model, mode="max-autotune", fullgraph=True) is model
        assert gradlite.compile(dynamic=True)(len) is len
        assert model.compile() is None
    assert [warning.filename for warning in found] == [__file__] * 3
    with pytest.raises(RuntimeError, match="would be given a graph to compile"):
        gradlite.compile(model, backend=len)


def test_nobody_is_warned_who_does_not_ask_for_it() -> None:
    model = nn.Linear(2, 2)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert gradlite.compile(model, backend="eager") is model
        assert gradlite.compile(disable=True)(model) is model
        assert model.compile(backend="aot_eager") is None


def test_names_around_it() -> None:
    T = gradlite.compiler
    assert not any((T.is_compiling(), T.is_dynamo_compiling(), T.is_exporting()))
    assert T.disable(len) is len and T.disable(reason="slow")(len) is len
    assert T.allow_in_graph(len) is len and T.allow_in_graph([len, max]) == [len, max]
    assert T.reset() is None and T.cudagraph_mark_step_begin() is None
    assert all(hasattr(torch.compiler, name) for name in T.__all__)


@pytest.mark.filterwarnings("ignore:.* gives back what it is given:DeprecationWarning")
def test_programs_with_torchscript() -> None:
    T = gradlite

    @T.jit.script
    def scale(x: T.Tensor, by: float) -> T.Tensor:
        return x * by

    class Net(T.nn.Module):
        @T.jit.ignore
        def one(self, x: T.Tensor) -> T.Tensor:
            return x

        @T.jit.unused
        def two(self) -> None:
            pass

        @T.jit.export
        def forward(self, x: T.Tensor) -> T.Tensor:
            assert not T.jit.is_scripting() and not T.jit.is_tracing()
            return scale(self.one(x), T.jit.annotate(float, 3.0))

    x = T.arange(4.0)
    net = T.jit.trace(T.jit.script(Net()), x)
    assert net(x).tolist() == [0.0, 3.0, 6.0, 9.0]
    assert T.jit.ignore(drop=True)(scale) is T.jit.script_if_tracing(scale) is scale
    assert all(hasattr(torch.jit, name) for name in T.jit.__all__)


def test_a_trace_calls_what_it_traces() -> None:
    calls: list[Any] = []
    with pytest.warns(DeprecationWarning, match=r"gradlite\.capture\(step\)") as found:
        gradlite.jit.trace(lambda *a, **k: calls.append((a, k)), (1, 2))
        gradlite.jit.trace(lambda *a, **k: calls.append((a, k)), 3)
        gradlite.jit.trace(lambda *a, **k: calls.append((a, k)), example_kwarg_inputs={"x": 4})
    assert calls == [((1, 2), {}), ((3,), {}), ((), {"x": 4})]
    assert {warning.filename for warning in found} == {__file__}
    with pytest.warns(DeprecationWarning), pytest.raises(RuntimeError, match="should be a dict"):
        gradlite.jit.trace(len)
    with pytest.raises(TypeError, match="expected a module or a function, not int"):
        gradlite.jit.script(5)
