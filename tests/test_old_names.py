"""Names that PyTorch has renamed or made easier to say since: they work, and warn as it does."""

from __future__ import annotations

import importlib
from typing import Any

import pytest

import gradlite
from tests import cupy_stand_in as stand_in
from tests.oracle import same

OLD_INITS = {
    "uniform": (0.5, 0.5),
    "normal": (0.5, 0.0),
    "constant": (0.3,),
    "eye": (),
    "dirac": (),
    "xavier_uniform": (0.0,),
    "xavier_normal": (0.0,),
}


@pytest.fixture
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch, devices=2)


@pytest.mark.parametrize("name", OLD_INITS)
def test_inits_without_an_underscore(name: str) -> None:
    def program(T: Any) -> Any:
        shape = (3, 2, 3) if name == "dirac" else (3, 2)
        return getattr(T.nn.init, name)(T.zeros(*shape), *OLD_INITS[name])

    same(program, warns=f"`nn.init.{name}` is now deprecated", message="exact")


@pytest.mark.parametrize("name", ["kaiming_uniform", "kaiming_normal", "orthogonal", "sparse"])
def test_random_inits_without_an_underscore(name: str) -> None:
    arguments = (0.5,) if name == "sparse" else ()
    same(
        lambda T: (getattr(T.nn.init, name)(T.zeros(3, 2), *arguments).sum() != 0).item(),
        warns="is now deprecated in favor of",
        message="exact",
    )


@pytest.mark.parametrize("name", ["upsample", "upsample_nearest", "upsample_bilinear"])
def test_upsample(name: str) -> None:
    def program(T: Any) -> Any:
        x = T.arange(12.0, dtype=T.float64).reshape(1, 2, 2, 3)
        f = getattr(T.nn.functional, name)
        return f(x, scale_factor=2), f(x, (3, 4)), f(x, size=5)

    same(program, warns=f"`nn.functional.{name}` is deprecated", message="exact")


def test_upsample_with_a_mode() -> None:
    def program(T: Any) -> Any:
        x = T.arange(12.0, dtype=T.float64).reshape(1, 2, 2, 3)
        return T.nn.functional.upsample(x, None, 2, "bilinear", True)

    same(program, warns="is deprecated", message="exact")


def test_the_old_mixed_precision_without_cuda() -> None:
    def program(T: Any) -> Any:
        scaler = T.cuda.amp.GradScaler(init_scale=8.0)
        with T.cuda.amp.autocast(enabled=False):
            y = T.ones(2, 2) @ T.ones(2, 2)
        names = T.cuda.amp.autocast_mode.autocast is T.cuda.amp.autocast
        return scaler.is_enabled(), scaler.scale(y), names, T.cuda.amp.grad_scaler is not None

    same(program, warns="autocast.args.*is deprecated", message="exact")


def test_the_old_mixed_precision_on_a_gpu(cupy: Any) -> None:
    with pytest.warns(FutureWarning, match=r"Please use `gradlite.amp.autocast\('cuda', args"):
        region = gradlite.cuda.amp.autocast()
    x = gradlite.ones(2, 2, device="cuda")
    with region:
        assert (x @ x).dtype is gradlite.float16
    with pytest.warns(FutureWarning, match="cuda.amp.GradScaler"):
        scaler = gradlite.cuda.amp.GradScaler(init_scale=8.0)
    assert scaler.scale(x).tolist() == [[8.0, 8.0], [8.0, 8.0]]


def test_the_old_decorators_of_functions_of_ones_own() -> None:
    def program(T: Any) -> Any:
        class Twice(T.autograd.Function):  # type: ignore[misc,name-defined]
            @staticmethod
            @T.cuda.amp.custom_fwd  # type: ignore[untyped-decorator]
            def forward(ctx: Any, x: Any) -> Any:
                return x * 2

            @staticmethod
            @T.cuda.amp.custom_bwd  # type: ignore[untyped-decorator]
            def backward(ctx: Any, grad: Any) -> Any:
                return grad * 2

        x = T.ones(2, requires_grad=True)
        Twice.apply(x).sum().backward()
        return x.grad

    same(program, warns="custom_fwd.args.*is deprecated", message="exact")


def default_types(T: Any) -> Any:
    try:
        T.set_default_tensor_type(T.DoubleTensor)
        first = T.ones(2)
        T.set_default_tensor_type(f"{T.__name__}.HalfTensor")
        return first, T.ones(2)
    finally:
        T.set_default_dtype(T.float32)


def test_the_default_tensor_type() -> None:
    same(default_types, warns="set_default_tensor_type.. is deprecated", message="exact")


@pytest.mark.parametrize("wrong", ["LongTensor", "float32"])
def test_wrong_default_tensor_types(wrong: str) -> None:
    same(
        lambda T: T.set_default_tensor_type(getattr(T, wrong)),
        raises=TypeError,
        warns="is deprecated",
        message="exact",
    )


def test_tensor_types_of_gpus_without_one() -> None:
    with pytest.raises(
        TypeError, match="type gradlite.cuda.FloatTensor not available: .*CUDA|CuPy"
    ):
        gradlite.cuda.FloatTensor([1.0])
    assert not isinstance(gradlite.ones(1), gradlite.cuda.FloatTensor)
    for kind in (gradlite.cuda.FloatTensor, "torch.cuda.FloatTensor"):
        with pytest.raises(RuntimeError, match="CUDA is not available"):
            gradlite.ones(1).type(kind)
    with pytest.warns(UserWarning), pytest.raises(TypeError, match="not available"):
        gradlite.set_default_tensor_type("gradlite.cuda.FloatTensor")


def test_tensor_types_of_gpus(cupy: Any) -> None:
    made = gradlite.cuda.LongTensor([1, 2])
    assert made.device == gradlite.device("cuda:0") and made.dtype is gradlite.int64
    assert isinstance(made, gradlite.cuda.LongTensor) and not isinstance(made, gradlite.LongTensor)
    assert gradlite.cuda.HalfTensor(2, 3).shape == (2, 3) and gradlite.cuda.ByteTensor().is_cuda
    x = gradlite.ones(2)
    for kind in (gradlite.cuda.DoubleTensor, "gradlite.cuda.DoubleTensor"):
        assert x.type(kind).is_cuda and x.type(kind).dtype is gradlite.float64
        assert x.to("cuda:1").type(kind).device.index == 1
    for kind in (gradlite.DoubleTensor, "gradlite.DoubleTensor"):
        assert x.cuda().type(kind).is_cpu
    assert x.cuda().type(gradlite.float64).is_cuda
    assert x.cuda().type() == "gradlite.cuda.FloatTensor"


def test_a_default_tensor_type_says_where_too(cupy: Any) -> None:
    try:
        with pytest.warns(UserWarning, match="deprecated"):
            gradlite.set_default_tensor_type(gradlite.cuda.DoubleTensor)
        assert gradlite.ones(1).is_cuda and gradlite.ones(1).dtype is gradlite.float64
        with pytest.warns(UserWarning, match="deprecated"):
            gradlite.set_default_tensor_type("torch.FloatTensor")
        assert gradlite.ones(1).is_cpu and gradlite.ones(1).dtype is gradlite.float32
    finally:
        gradlite.set_default_dtype(gradlite.float32)
        gradlite.set_default_device(None)


def test_the_profiler_of_autograd() -> None:
    profiler = gradlite.autograd.profiler
    with profiler.profile(record_shapes=True, profile_memory=True) as prof:
        with profiler.record_function("mine"):
            gradlite.ones(3).exp()
    assert {event.key: event.count for event in prof.key_averages()} == {"mine": 1, "exp": 1}
    assert "mine" in prof.table(sort_by="cpu_time_total") and prof.self_cpu_time_total > 0
    with profiler.profile(enabled=False) as off:
        gradlite.ones(3).exp()
    assert not off.events()


@pytest.mark.parametrize(
    ("module", "name"),
    [
        ("nn.modules.module", "Module"),
        ("nn.modules.activation", "MultiheadAttention"),
        ("nn.parallel", "DataParallel"),
        ("optim.adamw", "AdamW"),
        ("cuda.amp.grad_scaler", "GradScaler"),
    ],
)
def test_places_that_programs_import_from(module: str, name: str) -> None:
    def program(T: Any) -> Any:
        found = getattr(importlib.import_module(f"{T.__name__}.{module}"), name)
        return found.__name__

    assert same(program) == name
