"""The whole library as on CUDA, on a stand-in for CuPy: same values and gradients as on NumPy."""

from __future__ import annotations

import re
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn
from gradlite.nn import functional as F
from gradlite.ops import guard, samples
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.table import TABLE
from gradlite.tensor import Tensor, wrap
from tests import cupy_stand_in as stand_in

NAMES = sorted(TABLE)
SECOND_ORDER = [
    "exp",
    "matmul",
    "softmax",
    "layer_norm",
    "conv2d",
    "cross_entropy",
    "gather",
    "std",
]
# What ops say that have no half precision.
NO_HALVES = re.compile("not implemented|Low precision|float (or|and) double|of float, double")
RANDOM_VALUES = {"empty_like"}
# Outputs of vectors that are right with either sign, and the dimension that these lie along.
EITHER_SIGN = {"eigh": {1: -2}, "svd": {0: -2, 2: -2}, "linalg_svd": {0: -2, 2: -1}}


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def convert(value: Any, device: str) -> Any:
    """A sample's arguments with arrays turned into tensors of a device."""
    if isinstance(value, np.ndarray):
        wanted = value.dtype.kind == "f" and not isinstance(value, samples.Constant)
        return gradlite.tensor(np.asarray(value), device=device, requires_grad=wanted)
    if isinstance(value, (list, tuple)):
        return type(value)(convert(v, device) for v in value)
    if isinstance(value, dict):
        return {k: convert(v, device) for k, v in value.items()}
    return value.of(gradlite) if isinstance(value, samples.Dtype) else value


def tensors(value: Any) -> list[Tensor]:
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [t for v in value for t in tensors(v)]
    return [value] if isinstance(value, Tensor) else []


def sign_of(vectors: Tensor, dim: int) -> Tensor:
    """The sign of the largest element of each vector."""
    values = vectors.detach().cpu().numpy()
    largest = np.abs(values).argmax(dim, keepdims=True)
    signs = np.sign(np.take_along_axis(values, largest, dim))
    return gradlite.tensor(signs, device=vectors.device)


def run(name: str, sample: Any, device: str, create_graph: bool) -> tuple[list[Any], list[Any]]:
    """Outputs and gradients (of second order too, on demand) of a sample on a device."""
    gradlite.manual_seed(3)
    args, kwargs = convert((sample.args, sample.kwargs), device)
    outs = tensors(TABLE[name].function(*args, **kwargs))
    for out in outs:
        assert not tensors((args, kwargs)) or str(out.device).startswith(device), (
            f"{name}: output on {out.device}"
        )
    for place, dim in EITHER_SIGN.get(name, {}).items():
        if outs[place].numel():
            outs[place] = outs[place] * sign_of(outs[place], dim)
    leaves = [t for t in tensors((args, kwargs)) if t.requires_grad and t.is_leaf]
    kept = [o for o in outs if o.requires_grad]
    if not kept or not leaves or not TABLE[name].differentiable:
        return outs, []
    generator = np.random.default_rng(11)
    weights = [gradlite.tensor(generator.standard_normal(o.shape), device=device) for o in kept]
    total = sum((o * w).sum() for o, w in zip(kept, weights))
    options = {"allow_unused": True, "create_graph": create_graph}
    grads = list(gradlite.autograd.grad(total, leaves, **options))
    if create_graph:
        along = sum((g * g).sum() for g in grads if g is not None)
        if along.requires_grad:
            grads += gradlite.autograd.grad(along, leaves, allow_unused=True)
    for grad in grads:
        assert grad is None or str(grad.device).startswith(device), (
            f"{name}: a gradient on {grad.device}"
        )
    return outs, grads


def compare(name: str, create_graph: bool, device: str = "cuda") -> None:
    samples.fresh()
    for number, sample in enumerate(TABLE[name].samples()):
        expected = run(name, sample, "cpu", create_graph)
        actual = run(name, sample, device, create_graph)
        for kind, ours, theirs in zip(("output", "gradient"), actual, expected):
            assert len(ours) == len(theirs)
            for a, b in zip(ours, theirs):
                what = f"{name} sample {number}: {kind}"
                assert (a is None) == (b is None), what
                if b is None or name in RANDOM_VALUES:
                    continue
                assert a.dtype == b.dtype and a.shape == b.shape, what
                x, y = a.detach().cpu().numpy(), b.detach().numpy()
                scale = max(1.0, float(np.abs(y[np.isfinite(y)]).max(initial=0.0)))
                single = y.dtype.kind == "f" and y.dtype.itemsize <= 4  # of what computes so
                tolerance = 1e-6 if single else 1e-10
                np.testing.assert_allclose(x, y, tolerance, tolerance * scale, err_msg=what)


@pytest.mark.parametrize("name", NAMES)
def test_an_op_gives_the_same_values_and_gradients_on_both_devices(name: str) -> None:
    compare(name, False)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_second_derivatives_are_the_same_on_both_devices(name: str) -> None:
    compare(name, True)


def test_matrices_without_a_result_are_errors() -> None:
    batch = gradlite.stack([gradlite.eye(2), gradlite.zeros(2, 2)]).cuda()
    for name in ("inv", "cholesky"):
        with pytest.raises(gradlite.linalg.LinAlgError, match=r"\(Batch element 1\)"):
            getattr(gradlite.linalg, name)(batch)
    factor, info = gradlite.linalg.cholesky_ex(batch)
    assert info.is_cuda and info.tolist() == [0, 1] and factor[1].isnan().all()
    assert gradlite.linalg.cond(batch, 1).tolist() == [1.0, float("inf")]
    bad = batch * float("nan")
    with pytest.raises(gradlite.linalg.LinAlgError, match="is not positive-definite"):
        gradlite.linalg.cholesky(bad[1])
    for name in ("svd", "svdvals", "pinv"):
        with pytest.raises(gradlite.linalg.LinAlgError, match="algorithm failed to converge"):
            getattr(gradlite.linalg, name)(bad)
    with pytest.raises(gradlite.linalg.LinAlgError, match="the input matrix is singular"):
        gradlite.linalg.solve(batch[1], batch[0])


# ------------------------------------------------------------------------------ moving
@pytest.mark.parametrize("devices", [1, 2])
def test_a_copy_to_the_gpu_may_be_the_first_op_of_a_process(
    monkeypatch: pytest.MonkeyPatch, devices: int
) -> None:
    cupy = stand_in.install(monkeypatch, devices)
    monkeypatch.delitem(NAMESPACES, cupy.ndarray)
    assert gradlite.ones(2).to(f"cuda:{devices - 1}").sum().item() == 2.0
    assert nn.Linear(2, 2).cuda()(gradlite.ones(1, 2).cuda()).is_cuda
    assert (guard.several is None) == (devices == 1)


def test_round_trips_between_devices_carry_gradients() -> None:
    x = gradlite.tensor([1.0, 2.0, 3.0], requires_grad=True)
    there = x.cuda()
    assert there.device == gradlite.device("cuda:0") and there.is_cuda
    assert there.grad_fn is not None and there.to("cuda") is there
    back = (there * there).cpu()
    assert back.device.type == "cpu" and isinstance(back.numpy(force=True), np.ndarray)
    (back * gradlite.tensor([1.0, 10.0, 100.0])).sum().backward()
    assert x.grad.device.type == "cpu"
    assert x.grad.tolist() == [2.0, 40.0, 600.0]
    y = gradlite.ones(2, device="cuda", requires_grad=True)
    y.to("cpu", gradlite.float64).sum().backward()
    assert y.grad.device.type == "cuda" and y.grad.dtype == gradlite.float32
    with pytest.raises(TypeError, match="can't convert cuda:0 device type tensor to numpy"):
        y.detach().numpy()
    assert repr(y.detach()) == "tensor([1., 1.], device='cuda:0')"


def test_mixing_devices_is_refused() -> None:
    here, there = gradlite.ones(2), gradlite.ones(2, device="cuda")
    text = "Expected all tensors to be on the same device, but found at least two devices"
    square = gradlite.ones(2, 2)
    for call in (
        lambda: here + there,
        lambda: there * here,
        lambda: there + here.double(),
        lambda: square @ there,
        lambda: F.linear(there, square),
        lambda: gradlite.cat([here, there]),
        lambda: gradlite.stack([there, here]),
        lambda: gradlite.where(there > 0, here, there),
    ):
        with pytest.raises(RuntimeError, match=text) as caught:
            call()
        assert "cuda:0" in str(caught.value) and "cpu" in str(caught.value)


def test_a_cpu_scalar_joins_tensors_of_a_gpu() -> None:
    scale = gradlite.tensor(3.0, requires_grad=True)
    there = gradlite.ones(2, device="cuda", requires_grad=True)
    for out in (there * scale, scale * there, there + scale, scale - there):
        assert out.device.type == "cuda"
    (there * scale).sum().backward()
    assert scale.grad.device.type == "cpu" and scale.grad.item() == 2.0
    assert there.grad.cpu().tolist() == [3.0, 3.0]


def test_factories_indexing_and_editing() -> None:
    with gradlite.device("cuda"):
        x = gradlite.arange(6.0).reshape(2, 3)
    assert x.is_cuda and x[1, 2].item() == 5.0 and x[0].sum().shape == ()
    x[0, 1] = 7.0
    x[1] = gradlite.zeros(3, device="cuda")
    x[:, 2] += 1
    assert x.tolist() == [[0.0, 7.0, 3.0], [0.0, 0.0, 1.0]]
    assert x[x > 2].tolist() == [7.0, 3.0]
    assert x.new_zeros(2).is_cuda and gradlite.zeros_like(x).is_cuda
    assert np.shares_memory(gradlite.as_tensor(x.array).array.host, x.array.host)


# ---------------------------------------------------------------------- random numbers
@pytest.mark.parametrize(
    "draw",
    [
        lambda d: gradlite.rand(5, device=d),
        lambda d: gradlite.randn(5, 3, device=d),
        lambda d: gradlite.randperm(9, device=d),
        lambda d: gradlite.randint(10, (7,), device=d),
        lambda d: gradlite.bernoulli(gradlite.full((20,), 0.5, device=d)),
        lambda d: F.dropout(gradlite.ones(50, device=d), 0.3),
        lambda d: gradlite.empty(6, device=d).normal_(),
        lambda d: gradlite.empty(6, device=d).uniform_(-1, 1),
    ],
    ids="rand randn randperm randint bernoulli dropout normal_ uniform_".split(),
)
def test_a_seed_gives_the_same_numbers_on_both_devices(draw: Any) -> None:
    gradlite.manual_seed(5)
    here = draw("cpu")
    gradlite.manual_seed(5)
    there = draw("cuda")
    assert there.is_cuda and here.tolist() == there.tolist()


# ---------------------------------------------------------------------------- training
class Recurrent(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.rnn, self.head = nn.GRU(3, 5, batch_first=True), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.rnn(x)[0][:, -1])


class Transformer(nn.Module):
    """A GPT of one block, with dropout wherever GPTs have it."""

    def __init__(self) -> None:
        super().__init__()
        self.token, self.place = nn.Embedding(11, 8), nn.Embedding(5, 8)
        self.norms = nn.ModuleList(nn.LayerNorm(8) for _ in range(3))
        # Without a bias, as that of the keys has no gradient but rounding errors.
        self.qkv, self.out = nn.Linear(8, 24, bias=False), nn.Linear(8, 8)
        self.mlp = nn.Sequential(nn.Linear(8, 16), nn.GELU(), nn.Linear(16, 8), nn.Dropout(0.1))
        self.head, self.drop = nn.Linear(8, 2), nn.Dropout(0.1)

    def forward(self, x: Tensor) -> Tensor:
        tokens = (x.sum(2) * 3).long() % 11
        h = self.drop(self.token(tokens) + self.place(gradlite.arange(5, device=x.device)))
        q, k, v = (
            t.reshape(-1, 5, 2, 4).transpose(1, 2) for t in self.qkv(self.norms[0](h)).chunk(3, -1)
        )
        mixed = F.scaled_dot_product_attention(q, k, v, dropout_p=0.1, is_causal=True)
        h = h + self.drop(self.out(mixed.transpose(1, 2).reshape(-1, 5, 8)))
        h = h + self.mlp(self.norms[1](h))
        return self.head(self.norms[2](h)[:, -1])


MODELS: dict[str, Any] = {
    "mlp": (
        lambda: nn.Sequential(nn.Linear(6, 8), nn.GELU(), nn.Dropout(0.2), nn.Linear(8, 2)),
        (4, 6),
    ),
    "cnn": (
        lambda: nn.Sequential(
            nn.Conv2d(1, 3, 3, padding=1, bias=False), nn.BatchNorm2d(3), nn.ReLU(),
            nn.MaxPool2d(2), nn.Flatten(), nn.Linear(27, 2),
        ),
        (4, 1, 6, 6),
    ),
    "gru": (Recurrent, (4, 5, 3)),
    "gpt": (Transformer, (4, 5, 3)),
}  # fmt: skip
# Optimizers divide by the size of a gradient, so what a small one lost to rounding shows.
TOLERANCES = {"float32": 2e-3, "float64": 1e-9}


def train(model: Any, shape: Any, optimizer: Any, device: str) -> list[np.ndarray[Any, Any]]:
    gradlite.manual_seed(1)
    net = model().to(device)
    x = gradlite.randn(*shape).to(device)
    target = gradlite.tensor([0, 1, 1, 0], device=device)
    steps = optimizer(net.parameters())
    for _ in range(3):
        steps.zero_grad()
        F.cross_entropy(net(x), target).backward()
        steps.step()
    values = list(net.state_dict().values())
    assert all(str(v.device).startswith(device) for v in values)
    return [v.cpu().numpy() for v in values]


@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("optimizer", ["SGD", "Adam", "AdamW", "RMSprop"])
@pytest.mark.parametrize("kind", MODELS)
def test_training_gives_the_same_parameters_on_both_devices(
    kind: str, optimizer: str, dtype: str
) -> None:
    model, shape = MODELS[kind]
    options = {"lr": 0.05, **({"momentum": 0.9} if optimizer == "SGD" else {})}

    def make(parameters: Any) -> Any:
        return getattr(gradlite.optim, optimizer)(parameters, **options)

    gradlite.set_default_dtype(getattr(gradlite, dtype))
    try:
        there, here = (train(model, shape, make, device) for device in ("cuda", "cpu"))
    finally:
        gradlite.set_default_dtype(gradlite.float32)
    tolerance = TOLERANCES[dtype]
    for a, b in zip(there, here):
        np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance / 10)


def test_wrapped_arrays_of_the_device_are_recognised() -> None:
    assert wrap(stand_in.MODULE.zeros(2)).device == gradlite.device("cuda:0")
