"""bfloat16: the dtype object, the package it needs, and programs that use it, as in PyTorch."""

from __future__ import annotations

import copy
import io
import pickle
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.io import load, load_safetensors, save, save_safetensors
from tests.oracle import assert_equal, outcome_of, same, snapshot, torch

WITHOUT = """
import sys
sys.modules["ml_dtypes"] = None
import gradlite as T
"""


def fresh(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
    return done.stdout


def halves(T: Any, *values: float) -> Any:
    return T.tensor(values, dtype=T.bfloat16, requires_grad=True)


# ------------------------------------------------------------------------ the package ml_dtypes
def test_the_dtype_needs_no_package() -> None:
    told = fresh(
        WITHOUT
        + """
x = T.ones(2)
print(T.bfloat16, T.finfo(T.bfloat16), T.bfloat16.itemsize, T.bfloat16 == T.float16)
print((x + x).sum().item(), T.can_cast(T.bfloat16, T.int64), x.dtype in (T.bfloat16, T.float32))
"""
    )
    info = str(torch.finfo(torch.bfloat16))
    assert told == f"gradlite.bfloat16 {info} 2 False\n4.0 False True\n"


@pytest.mark.parametrize(
    "making",
    [
        "T.tensor([1.0], dtype=T.bfloat16)",
        "T.zeros(2, dtype=T.bfloat16)",
        "T.randn(2, dtype=T.bfloat16)",
        "T.ones(2).bfloat16()",
        "T.ones(2).to(T.bfloat16)",
        "T.nn.Linear(2, 2).bfloat16()",
        "T.promote_types(T.bfloat16, T.float32)",
        "T.BFloat16Tensor([1.0])",
    ],
)
def test_without_the_package_a_tensor_is_one_clear_error(making: str) -> None:
    code = f"""
try:
    {making}
except ImportError as error:
    print(error)
"""
    wanted = "tensors of gradlite.bfloat16 need the package ml_dtypes: pip install ml_dtypes\n"
    assert fresh(WITHOUT + code) == wanted


def test_the_package_is_imported_at_the_first_tensor() -> None:
    told = fresh(
        """
import sys, gradlite as T
T.ones(2).half().sum(), repr(T.bfloat16), T.finfo(T.bfloat16), T.get_default_dtype()
print("ml_dtypes" in sys.modules)
T.ones(2).bfloat16()
print("ml_dtypes" in sys.modules)
"""
    )
    assert told == "False\nTrue\n"


# --------------------------------------------------------------------------- the dtype's object
def test_the_dtype() -> None:
    def program(T: Any) -> Any:
        d = T.bfloat16
        info = T.finfo(d)
        facts = [info.bits, info.eps, info.max, info.min, info.tiny, info.smallest_normal]
        return (
            d,
            [d.is_floating_point, d.is_signed, d.is_complex, d.itemsize],
            [*facts, info.resolution, info.dtype, str(info)],
            [hash(d) == hash(T.bfloat16), pickle.loads(pickle.dumps(d)) is d, copy.copy(d) is d],
        )

    same(program, rtol=0)


@pytest.mark.parametrize("spelling", ["bfloat16", "numpy", "type", "same"])
def test_spellings(spelling: str) -> None:
    numpy_dtype = gradlite.bfloat16.numpy
    spelled = {
        "bfloat16": "bfloat16",
        "numpy": numpy_dtype,
        "type": numpy_dtype.type,
        "same": gradlite.bfloat16,
    }[spelling]
    assert gradlite.zeros(2, dtype=spelled).dtype is gradlite.bfloat16


def test_promotion_with_every_dtype() -> None:
    names = ["float16", "bfloat16", "float32", "float64", "uint8", "int8", "int16", "int32"]

    def program(T: Any) -> Any:
        kinds = [getattr(T, name) for name in (*names, "int64", "bool")]
        return [
            [(T.promote_types(a, b), T.can_cast(a, b)) for a in kinds for b in kinds],
            [
                (T.ones(s, dtype=a) + T.ones(t, dtype=b)).dtype
                for a in kinds
                for b in kinds
                for s, t in (((2,), (2,)), ((), (2,)), ((2,), ()), ((), ()))
            ],
            [(T.ones(2, dtype=a) * n).dtype for a in kinds for n in (2, 0.5, True)],
            [(T.ones((), dtype=a) * n).dtype for a in kinds for n in (2, 0.5, True)],
        ]

    same(program)


def test_default_dtype() -> None:
    def program(T: Any) -> Any:
        before = T.get_default_dtype()
        T.set_default_dtype(T.bfloat16)
        try:
            layer = T.nn.Linear(2, 2)
            made = [T.tensor(0.1), T.ones(2), T.arange(0.0, 1.0, 0.25), T.tensor([1]) / 3]
            return made, layer.weight.dtype, repr(T.ones(2)), T.get_default_dtype()
        finally:
            T.set_default_dtype(before)

    same(program)


# ---------------------------------------------------------------------------------- conversions
def test_conversions_round_to_the_nearest_even() -> None:
    odd = [0.1, 1 / 3, 1.00390625, 1.01171875, 1e-40, 3.4e38, -0.0, float("inf"), float("nan")]

    def program(T: Any) -> Any:
        x = T.tensor(odd, dtype=T.float64)
        single, half = x.float().bfloat16(), T.tensor(odd[:4]).half().bfloat16()
        ints = T.tensor([257, -3, 2**40 + 1]).bfloat16()
        back = [ints.long(), half.half(), half.double(), half.bool(), half.to(T.uint8)]
        return x.bfloat16(), single, half, ints, back, x.type(), half.type()

    same(program, rtol=0, atol=0)


def test_numpy_does_not_have_it() -> None:
    def program(T: Any) -> Any:
        x = T.ones(2, dtype=T.bfloat16)
        return [outcome_of(x.numpy), outcome_of(lambda: x.numpy(force=True)), x.tolist()]

    same(program, message="exact")
    array = gradlite.ones(2, dtype=gradlite.bfloat16).array
    assert array.dtype == gradlite.bfloat16.numpy
    assert gradlite.from_numpy(array).dtype is gradlite.tensor(array[0]).dtype is gradlite.bfloat16


def unpickled(x: Any) -> Any:
    return pickle.loads(pickle.dumps(x))


@pytest.mark.parametrize("make", [copy.copy, copy.deepcopy, unpickled])
def test_copies(make: Any) -> None:
    x = halves(gradlite, 0.1, 2.0)
    y = make(x)
    assert y.dtype is gradlite.bfloat16 and y.tolist() == x.tolist() and y.requires_grad


def test_printing() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([[0.1, 1e-9], [3e5, float("nan")]], dtype=T.bfloat16, requires_grad=True)
        texts = [repr(t) for t in (x, x[0] * 2, x[:0], x.sum(), x[1, 0].detach(), x.to(T.int64))]
        return texts, f"{x[0, 0].detach():.3f}", repr(T.nn.Parameter(x.detach()[0]))

    same(program)


# --------------------------------------------------------------------------------------- saving
def test_save_and_load() -> None:
    x, file = halves(gradlite, 0.1, -2.0, float("inf")), io.BytesIO()
    saved = {"x": x, "t": x.detach()[::2], "d": gradlite.bfloat16, "raw": x.array, "n": x.array[0]}
    save(saved, file)
    file.seek(0)
    found = load(file)
    assert_equal(snapshot(found["x"]), snapshot(x), atol=0, rtol=0)
    assert_equal(snapshot(found["t"]), snapshot(saved["t"]), atol=0, rtol=0)
    assert found["d"] is gradlite.bfloat16
    assert found["raw"].dtype == found["n"].dtype == gradlite.bfloat16.numpy


def test_safetensors_of_pytorch_and_for_it(tmp_path: Path) -> None:
    library = pytest.importorskip("safetensors.torch", reason="needs safetensors")
    values = [[0.1, -2.0], [3e38, 1e-40]]
    ours, theirs = (T.tensor(values, dtype=T.bfloat16) for T in (gradlite, torch))
    save_safetensors({"x": ours}, tmp_path / "ours")
    library.save_file({"x": theirs}, tmp_path / "theirs")
    assert torch.equal(library.load_file(tmp_path / "ours")["x"], theirs)
    found = load_safetensors(tmp_path / "theirs")["x"]
    assert found.dtype is gradlite.bfloat16 and gradlite.equal(found, ours)


# --------------------------------------------------------------------------------- computations
def test_sums_are_in_single() -> None:
    def program(T: Any) -> Any:
        x = T.ones(5000, dtype=T.bfloat16)
        table = T.full((100, 300), 0.3, dtype=T.bfloat16)
        return [
            *(x.sum(), x.mean(), x.cumsum(0)[-1], x @ x, table.sum(0), table.sum(1), table.mean()),
            *(table @ table.t(), table.norm(), table.std(), table.logsumexp(1), table.prod(1)),
        ]

    same(program)


def test_numbers_beside_tensors() -> None:
    def program(T: Any) -> Any:
        x = halves(T, 0.1, 0.3, -2.0)
        mine = [x * 0.1, 0.1 - x, x / 3, x**2, 2.0**x, x == 0.1, x > 0.3, x + True, x // 0.1]
        y = x.detach().clone()
        y += 0.1
        y *= 3
        y[0] = 1 / 3
        (g,) = T.autograd.grad((x * 0.1 * x.exp()).sum(), x)
        return mine, y, g, T.where(x > 0, x, 0.1), x.clamp(-0.1, 0.1)

    same(program)


def test_views_share_memory_and_history() -> None:
    def program(T: Any) -> Any:
        x = T.arange(12.0).bfloat16().requires_grad_()
        y = x * 1.5
        rows = y.view(3, 4)
        rows[1] *= 2
        rows.t()[0] += 1
        part = y[2:7:2]
        part.mul_(2)
        y.split(5)[1].detach().zero_()
        (y * 2).sum().backward()
        base = x.detach()
        base.unsqueeze(0).expand(2, 12)[0, 3].fill_(7)
        return y, x, x.grad, y.flip(0), y.unfold(0, 4, 3), T.cat([y, y]), T.stack([y, y])

    same(program)


def test_gradients_of_higher_order() -> None:
    def program(T: Any) -> Any:
        x = halves(T, 0.5, -1.0, 2.0)
        (g,) = T.autograd.grad((x.sin() * x * x).sum(), x, create_graph=True)
        (h,) = T.autograd.grad((g * g).sum(), x)
        return g, h

    same(program, rtol=3e-2, atol=3e-2)


def test_gradients_accumulate_and_mix_with_single() -> None:
    def program(T: Any) -> Any:
        x, w = halves(T, 0.1, 2.0, -3.0), T.tensor([1.0, 2.0, 3.0], requires_grad=True)
        for _ in range(3):
            y = x * 0.3
            (y.float() * w + x * w).sum().backward()
        return x.grad, w.grad, (x * w).dtype

    same(program)


PARAMETERS = ["bfloat16", "float32"]


@pytest.mark.parametrize("parameters", PARAMETERS)
@pytest.mark.parametrize("norm", ["layer_norm", "group_norm", "batch_norm"])
def test_norms_with_parameters_of_either_dtype(norm: str, parameters: str) -> None:
    def program(T: Any) -> Any:
        x = (T.arange(24.0).view(2, 4, 3) ** 2 / 50).sin().bfloat16().requires_grad_()
        size = 3 if norm == "layer_norm" else 4
        w, b = (T.linspace(0.5, 2, size).to(getattr(T, parameters)) for _ in "wb")
        w, b = w.requires_grad_(), b.requires_grad_()
        F = T.nn.functional
        kept = [t.to(getattr(T, parameters)) for t in (T.zeros(4), T.ones(4))]
        y = {
            "layer_norm": lambda: F.layer_norm(x, (3,), w, b),
            "group_norm": lambda: F.group_norm(x, 2, w, b),
            "batch_norm": lambda: F.batch_norm(x, *kept, w, b, training=True),
        }[norm]()
        weights = T.arange(24.0).view(2, 4, 3).cos().bfloat16()
        y.backward(weights)
        return y, x.grad, w.grad, b.grad, kept

    same(program, rtol=2e-2, atol=2e-2)


# ------------------------------------------------------------------------------------- training
def model(T: Any) -> Any:
    layers = (T.nn.Linear(6, 16), T.nn.LayerNorm(16), T.nn.GELU(), T.nn.Linear(16, 3))
    net = T.nn.Sequential(*layers)
    with T.no_grad():
        for place, p in enumerate(net.parameters()):
            values = np.random.default_rng(place).standard_normal(tuple(p.shape)) * 0.4
            p.copy_(T.tensor(values))
    return net.bfloat16()


@pytest.mark.parametrize("optimizer", ["SGD", "AdamW"])
def test_training_in_bfloat16(optimizer: str) -> None:
    def program(T: Any) -> Any:
        net, generator = model(T), np.random.default_rng(1)
        x = T.tensor(generator.standard_normal((32, 6))).bfloat16()
        target = T.tensor(generator.integers(0, 3, 32))
        steps = getattr(T.optim, optimizer)(net.parameters(), lr=0.05)
        losses = []
        for _ in range(8):
            steps.zero_grad()
            loss = T.nn.functional.cross_entropy(net(x), target)
            loss.backward()
            T.nn.utils.clip_grad_norm_(net.parameters(), 1.0)
            steps.step()
            losses.append(loss.detach())
        return losses, [p.dtype for p in net.parameters()], net.state_dict()["0.weight"].dtype

    same(program, rtol=3e-2, atol=3e-2)


def test_a_module_and_back() -> None:
    net = nn.BatchNorm1d(3)
    assert net.bfloat16() is net
    kinds = {name: t.dtype for name, t in net.state_dict().items()}
    assert kinds.pop("num_batches_tracked") is gradlite.int64
    assert set(kinds.values()) == {gradlite.bfloat16}
    assert {p.dtype for p in net.to(gradlite.float32).parameters()} == {gradlite.float32}


def test_scaled_gradients() -> None:
    def program(T: Any) -> Any:
        p = halves(T, 1.0, 2.0)
        scaler, optimizer = T.amp.GradScaler("cpu", init_scale=4.0), T.optim.SGD([p], lr=0.1)
        for factor in (0.5, float("inf"), 0.5):
            optimizer.zero_grad()
            scaler.scale((p * factor).sum()).backward()
            scaler.step(optimizer)
            scaler.update()
        return p, scaler.get_scale()

    same(program)


def test_random_numbers() -> None:
    g = gradlite.Generator().manual_seed(5)
    x = gradlite.rand(4000, dtype=gradlite.bfloat16, generator=g)
    steps = x.double() * 256
    assert gradlite.equal(steps, steps.round()) and x.min() == 0 and x.max() < 1
    assert abs(float(x.double().mean()) - 0.498) < 0.02
    g.manual_seed(5)
    single = gradlite.randn(100, generator=g)
    g.manual_seed(5)
    half = gradlite.randn(100, dtype=gradlite.bfloat16, generator=g)
    assert gradlite.equal(half, single.bfloat16())
