"""Autocast regions: what enters the graph, what is kept, and what else has to know of them."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import nn, optim
from gradlite.nn import functional as F
from tests.oracle import same, torch

pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes")
HALF = {"rtol": 0.05, "atol": 0.05}


@pytest.fixture(autouse=True)
def modes_are_restored() -> Iterator[None]:
    yield
    assert not gradlite.is_autocast_enabled("cpu")
    assert not torch.is_autocast_enabled("cpu")
    assert gradlite.get_autocast_dtype("cpu") is gradlite.bfloat16


def filled(T: Any, *shape: int, seed: int = 0, grad: bool = False) -> Any:
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    return T.tensor(values, requires_grad=grad)


def with_values(T: Any, module: Any) -> Any:
    """A module with the same parameters in both libraries."""
    rng = np.random.default_rng(5)
    with T.no_grad():
        for parameter in module.parameters():
            values = rng.standard_normal(tuple(parameter.shape)) * 0.3
            parameter.copy_(T.tensor(values.astype(np.float32)))
    return module


# ------------------------------------------------------------------------ as in PyTorch
def test_casts_are_ops_in_the_graph() -> None:
    def program(T: Any) -> Any:
        x, w = filled(T, 2, 3), filled(T, 3, 4, seed=1, grad=True)
        with T.autocast("cpu"):
            y = T.mm(x, w)
        y.float().sum().backward()
        return y, [n.name() for n, _ in y.grad_fn.next_functions if n], w.grad

    same(program, **HALF)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_a_region_computes_as_pytorchs(dtype: str) -> None:
    def program(T: Any) -> Any:
        a, b = filled(T, 3, 4, grad=True), filled(T, 4, 5, seed=1, grad=True)
        with T.autocast("cpu", dtype=getattr(T, dtype)):
            y = a @ b
            z = T.nn.functional.mse_loss(y, T.zeros(3, 5))
            wide = a.double() @ b.double()
            whole = T.ones(2, 2, dtype=T.int64) @ T.ones(2, 2, dtype=T.int64)
            sums = y + a.sum()
        z.backward()
        return y, z, wide, whole, sums, a.grad, b.grad

    same(program, rtol=0.03, atol=0.03)


def test_regions_nest_and_are_left_again() -> None:
    def program(T: Any) -> Any:
        a, seen = filled(T, 2, 2), []
        with T.autocast("cpu"):
            seen.append((a @ a).dtype)
            with T.autocast("cpu", enabled=False):
                seen.append((a @ a).dtype)
                with T.autocast("cpu", dtype=T.float16):
                    seen.append((a @ a).dtype)
            seen.append((a @ a).dtype)
        seen.append((a @ a).dtype)
        with pytest.raises(KeyError), T.autocast("cpu"):
            raise KeyError
        seen.append((a @ a).dtype)
        return seen

    same(program)


def test_an_instance_can_be_entered_again_and_decorate() -> None:
    def program(T: Any) -> Any:
        region = T.autocast("cpu")
        a = filled(T, 2, 2)

        @region
        def product(x: Any) -> Any:
            """Its text."""
            return x @ x

        with region:
            inner = (a @ a).dtype
        with region:
            again = (a @ a).dtype
        return inner, again, product(a).dtype, (a @ a).dtype, product.__name__, product.__doc__

    same(program)


def test_an_instance_can_be_entered_inside_itself() -> None:
    """PyTorch forgets there that autocast was off before."""
    region, a = gradlite.autocast("cpu"), gradlite.ones(2, 2)
    with region, region:
        assert (a @ a).dtype is gradlite.bfloat16
    assert (a @ a).dtype is gradlite.float32


def test_edits_in_place_are_not_cast() -> None:
    def program(T: Any) -> Any:
        with T.autocast("cpu"):
            return T.zeros(2, 2).addmm_(T.ones(2, 2), T.ones(2, 2))

    same(program)


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_recurrent_layers_give_pytorchs_dtypes(kind: str) -> None:
    def program(T: Any) -> Any:
        layer = with_values(T, getattr(T.nn, kind)(3, 4))
        cell = with_values(T, getattr(T.nn, f"{kind}Cell")(3, 4))
        with T.autocast("cpu"), T.no_grad():
            return layer(filled(T, 5, 2, 3)), cell(filled(T, 2, 3))

    same(program, **HALF)


@pytest.mark.parametrize(
    "make",
    [
        lambda T: T.nn.Sequential(
            T.nn.Linear(6, 8), T.nn.LayerNorm(8), T.nn.GELU(), T.nn.Linear(8, 6)
        ),
        lambda T: T.nn.Sequential(
            T.nn.Unflatten(1, (1, 2, 3)), T.nn.Conv2d(1, 4, 2), T.nn.BatchNorm2d(4), T.nn.ReLU(),
            T.nn.MaxPool2d(1), T.nn.Flatten(), T.nn.Linear(8, 6),
        ),
        lambda T: T.nn.Sequential(
            T.nn.Unflatten(1, (3, 2)), T.nn.GroupNorm(3, 3), T.nn.Flatten(), T.nn.PReLU(),
            T.nn.Linear(6, 6), T.nn.Softmax(-1),
        ),
        lambda T: T.nn.Sequential(
            T.nn.Unflatten(1, (3, 2)),
            T.nn.TransformerEncoderLayer(2, 1, 4, dropout=0.0, batch_first=True),
            T.nn.Flatten(),
        ),
    ],
    ids=["mlp", "cnn", "norms", "transformer"],
)  # fmt: skip
def test_models_train_as_in_pytorch(make: Any) -> None:
    def program(T: Any) -> Any:
        model = with_values(T, make(T))
        optimizer = T.optim.SGD(model.parameters(), lr=0.05)
        x, target, losses, kinds = filled(T, 5, 6), T.tensor([0, 5, 2, 1, 3]), [], []
        for _ in range(4):
            optimizer.zero_grad()
            with T.autocast("cpu"):
                y = model(x)
                loss = T.nn.functional.cross_entropy(y, target)
            loss.backward()
            optimizer.step()
            losses.append(loss.detach())
            kinds.append((y.dtype, loss.dtype, [p.grad.dtype for p in model.parameters()]))
        return losses, kinds

    same(program, **HALF)


def test_a_function_of_ones_own() -> None:
    def program(T: Any) -> Any:
        seen = []

        class Product(T.autograd.Function):
            @staticmethod
            @T.amp.custom_fwd(device_type="cpu")
            def forward(ctx: Any, a: Any, b: Any) -> Any:
                ctx.save_for_backward(a, b)
                seen.append(("forward", a.dtype, T.is_autocast_enabled("cpu")))
                return a @ b

            @staticmethod
            @T.amp.custom_bwd(device_type="cpu")
            def backward(ctx: Any, grad: Any) -> Any:
                a, b = ctx.saved_tensors
                seen.append(("backward", grad.dtype, T.is_autocast_enabled("cpu")))
                return (grad @ b.t()).to(a.dtype), (a.t() @ grad).to(b.dtype)

        class Single(T.autograd.Function):
            @staticmethod
            @T.amp.custom_fwd(device_type="cpu", cast_inputs=T.float32)
            def forward(ctx: Any, a: Any, n: int, parts: Any) -> Any:
                seen.append((a.dtype, parts[0].dtype, n, T.is_autocast_enabled("cpu")))
                return a * n

            @staticmethod
            @T.amp.custom_bwd(device_type="cpu")
            def backward(ctx: Any, grad: Any) -> Any:
                seen.append(("backward", grad.dtype, T.is_autocast_enabled("cpu")))
                return grad * 3, None, None

        a, b = filled(T, 2, 3, grad=True), filled(T, 3, 2, seed=1, grad=True)
        with T.autocast("cpu"):
            y = Product.apply(a, b)
            z = Single.apply(y, 3, [y])
        z.float().sum().backward()
        Product.apply(a, b).sum().backward()
        return seen, y, z, a.grad, b.grad

    same(program, **HALF)


@pytest.mark.parametrize(
    "program",
    [
        lambda T: T.autocast("foo"),
        lambda T: T.autocast(3),
        lambda T: T.autocast(),
        lambda T: T.get_autocast_dtype("foo"),
        lambda T: T.is_autocast_enabled("foo"),
        lambda T: T.amp.is_autocast_available("foo"),
        lambda T: T.amp.custom_fwd(lambda ctx: None, device_type=3),
        lambda T: T.amp.custom_bwd(lambda ctx: None, device_type=3),
    ],
)
def test_bad_arguments_are_pytorchs_errors(program: Any) -> None:
    same(program, raises=(RuntimeError, ValueError, TypeError), message="type")


def test_an_unusable_dtype_or_device_switches_the_region_off_with_a_warning() -> None:
    def unusable_dtype(T: Any) -> Any:
        with T.autocast("cpu", dtype=T.float32):
            return T.is_autocast_enabled("cpu"), (T.ones(2, 2) @ T.ones(2, 2)).dtype

    def no_device(T: Any) -> Any:
        with T.autocast("cuda"):
            return T.is_autocast_enabled("cuda")

    same(unusable_dtype, warns="In CPU autocast")
    with pytest.warns(UserWarning, match="CUDA is not available"):
        assert no_device(gradlite) is False


def test_what_can_be_asked_and_set() -> None:
    def program(T: Any) -> Any:
        seen = [
            T.is_autocast_enabled("cpu"), T.is_autocast_enabled(), T.get_autocast_dtype("cpu"),
            T.get_autocast_dtype("cuda"), T.is_autocast_cache_enabled(),
            T.amp.is_autocast_available("cpu"), T.amp.is_autocast_available("cuda"),
        ]  # fmt: skip
        with T.autocast("cpu", dtype=T.float16, cache_enabled=False):
            seen += [T.is_autocast_enabled("cpu"), T.get_autocast_dtype("cpu")]
            seen += [T.is_autocast_cache_enabled()]
        T.set_autocast_enabled("cpu", True)
        T.set_autocast_dtype("cpu", T.float16)
        T.set_autocast_cache_enabled(False)
        try:
            seen += [(T.ones(2, 2) @ T.ones(2, 2)).dtype, T.is_autocast_cache_enabled()]
        finally:
            T.set_autocast_enabled("cpu", False)
            T.set_autocast_dtype("cpu", T.bfloat16)
            T.set_autocast_cache_enabled(True)
        return seen

    same(program)


# -------------------------------------------------------------------------- casts that are kept
def test_a_parameter_is_cast_once_in_a_region() -> None:
    def program(T: Any) -> Any:
        w = filled(T, 3, 3, grad=True)
        with T.autocast("cpu"):
            a, b = T.mm(w, w), T.mm(w, w)
            with T.autocast("cpu"):
                c = T.mm(w, w)
            kept = [n for y in (a, b, c) for n, _ in y.grad_fn.next_functions]
            T.clear_autocast_cache()
            anew = T.mm(w, w).grad_fn.next_functions[0][0]
        with T.autocast("cpu", cache_enabled=False):
            nodes = [n for n, _ in T.mm(w, w).grad_fn.next_functions]
        (a.sum() + b.sum() + c.sum()).float().backward()
        return len(set(kept)), anew is kept[0], len(set(nodes)), w.grad

    same(program, **HALF)


def test_an_edited_parameter_is_cast_anew() -> None:
    """PyTorch hands out the cast of the old values here."""
    w = gradlite.ones(2, 2, requires_grad=True)
    with gradlite.autocast("cpu"):
        before = gradlite.mm(w, w)
        with gradlite.no_grad():
            w.add_(1)
        after = gradlite.mm(w, w)
        w.data = gradlite.full((2, 2), 3.0)
        replaced = gradlite.mm(w, w)
    assert before[0, 0].item() == 2 and after[0, 0].item() == 8 and replaced[0, 0].item() == 18


def test_a_cast_without_a_graph_does_not_cut_a_later_graph() -> None:
    w = gradlite.ones(2, 2, requires_grad=True)
    with gradlite.autocast("cpu"):
        with gradlite.no_grad():
            gradlite.mm(w, w)
        y = gradlite.mm(w, w)
    y.float().sum().backward()
    assert w.grad is not None and w.grad[0, 0].item() == 4


def test_casts_die_with_their_region() -> None:
    import gc
    import weakref

    w = gradlite.ones(2, 2, requires_grad=True)
    gc.disable()
    try:
        with gradlite.autocast("cpu"):
            y = gradlite.mm(w, w)
            cast = weakref.ref(y.grad_fn.next_functions[0][0])
            del y
            assert cast() is not None
        assert cast() is None
    finally:
        gc.enable()


# ----------------------------------------------------------------- threads, tasks, other machinery
def test_regions_belong_to_a_thread_and_to_a_task() -> None:
    seen: dict[str, Any] = {}

    def work() -> None:
        seen["thread"] = gradlite.is_autocast_enabled("cpu")

    async def task(name: str, wait: asyncio.Event, tell: asyncio.Event, on: bool) -> None:
        with gradlite.autocast("cpu", enabled=on):
            tell.set()
            await wait.wait()
            seen[name] = gradlite.is_autocast_enabled("cpu")

    async def both() -> None:
        first, second = asyncio.Event(), asyncio.Event()
        await asyncio.gather(task("on", second, first, True), task("off", first, second, False))

    with gradlite.autocast("cpu"):
        thread = threading.Thread(target=work)
        thread.start()
        thread.join()
    asyncio.run(both())
    assert seen == {"thread": False, "on": True, "off": False}


@pytest.mark.parametrize("reentrant", [False, True])
def test_checkpoints_compute_again_in_the_same_dtypes(reentrant: bool) -> None:
    from gradlite.utils.checkpoint import checkpoint

    seen = []

    def block(x: Any) -> Any:
        y = x @ x
        seen.append(y.dtype)
        return y @ y

    def gradient(through: Any) -> Any:
        x = filled(gradlite, 3, 3, grad=True)
        with gradlite.autocast("cpu"):
            y = through(x)
        y.float().sum().backward()
        assert x.grad is not None
        return x.grad.numpy()

    expected = gradient(block)
    got = gradient(lambda x: checkpoint(block, x, use_reentrant=reentrant))
    assert seen == [gradlite.bfloat16] * 3
    np.testing.assert_array_equal(got, expected)


def test_gradient_scaling_trains_in_float16() -> None:
    model = with_values(gradlite, nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2)))
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    scaler = gradlite.amp.GradScaler("cpu")
    x = filled(gradlite, 32, 4)
    target = (x[:, 0] > 0).long()
    losses = []
    for _ in range(30):
        optimizer.zero_grad()
        with gradlite.autocast("cpu", dtype=gradlite.float16):
            loss = F.cross_entropy(model(x), target)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_derivatives_of_derivatives() -> None:
    def program(T: Any) -> Any:
        w = filled(T, 2, 2, grad=True)
        with T.autocast("cpu"):
            y = (T.mm(w, w) ** 2).float().sum()
        (g,) = T.autograd.grad(y, w, create_graph=True)
        (h,) = T.autograd.grad(g.sum(), w)
        return g, h

    same(program, rtol=0.1, atol=0.3)
