"""Strides of results: what decides whether a later ``view`` works is as in PyTorch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import samples
from gradlite.ops.table import TABLE
from tests import cupy_stand_in
from tests.library import library
from tests.oracle import outcome_of, same, torch
from tests.test_stand_in import convert, tensors

INPUTS = {
    "rows": lambda T: T.arange(24.0).reshape(2, 3, 4),
    "transposed": lambda T: T.arange(24.0).reshape(2, 4, 3).transpose(1, 2),
    "permuted": lambda T: T.arange(24.0).reshape(4, 3, 2).permute(2, 1, 0),
    "moved": lambda T: T.arange(24.0).reshape(3, 2, 4).transpose(0, 1),
    "sliced": lambda T: T.arange(48.0).reshape(2, 3, 8)[:, :, ::2],
    "part": lambda T: T.arange(48.0).reshape(2, 6, 4)[:, 1:4],
    "expanded": lambda T: T.arange(4.0).expand(2, 3, 4),
    "expanded_middle": lambda T: T.arange(8.0).reshape(2, 1, 4).expand(2, 3, 4),
}
OPS = {
    "add_number": lambda T, x: x + 1,
    "mul_itself": lambda T, x: x * x,
    "mul_rows": lambda T, x: x * T.ones(2, 3, 4),
    "rows_mul": lambda T, x: T.ones(2, 3, 4) * x,
    "mul_vector": lambda T, x: x * T.ones(4),
    "mul_column": lambda T, x: x * T.ones(3, 1),
    "exp": lambda T, x: x.exp(),
    "relu": lambda T, x: x.relu(),
    "gt": lambda T, x: x > 3,
    "double": lambda T, x: x.double(),
    "to_int": lambda T, x: x.long(),
    "clone": lambda T, x: x.clone(),
    "contiguous": lambda T, x: x.contiguous(),
    "where": lambda T, x: T.where(x > 3, x, -x),
    "masked_fill": lambda T, x: x.masked_fill(x > 3, 0.0),
    "clamp": lambda T, x: x.clamp(1, 5),
    "pow": lambda T, x: x**2,
    "neg": lambda T, x: -x,
    "zeros_like": lambda T, x: T.zeros_like(x),
    "empty_like": lambda T, x: T.empty_like(x),
    "rand_like": lambda T, x: T.rand_like(x),
    "sum_0": lambda T, x: x.sum(0),
    "sum_1": lambda T, x: x.sum(1),
    "sum_2_keep": lambda T, x: x.sum(2, keepdim=True),
    "mean_01": lambda T, x: x.mean((0, 1)),
    "max_1": lambda T, x: x.max(1)[0],
    "argmax_2": lambda T, x: x.argmax(2),
    "var_1": lambda T, x: x.var(1),
    "logsumexp": lambda T, x: x.logsumexp(2),
    "softmax": lambda T, x: x.softmax(1),
    "log_softmax": lambda T, x: x.log_softmax(-1),
    "cumsum": lambda T, x: x.cumsum(1),
    "sort": lambda T, x: x.sort(1)[0],
    "cat_0": lambda T, x: T.cat([x, x]),
    "cat_2": lambda T, x: T.cat([x, x], 2),
    "stack_0": lambda T, x: T.stack([x, x]),
    "stack_3": lambda T, x: T.stack([x, x], 3),
    "flip": lambda T, x: x.flip(1),
    "roll": lambda T, x: x.roll(1, 2),
    "repeat": lambda T, x: x.repeat(1, 2, 1),
    "index_list": lambda T, x: x[[1, 0]],
    "index_last": lambda T, x: x[..., [0, 2]],
    "index_pair": lambda T, x: x[[0, 1], :, [1, 2]],
    "mask": lambda T, x: x[x > 3],
    "index_select": lambda T, x: x.index_select(1, T.tensor([0, 2])),
    "gather": lambda T, x: x.gather(1, T.zeros(2, 1, 4, dtype=T.int64)),
    "take_rows_and_slice": lambda T, x: x[T.tensor([0, 1]), 1:],
    "matmul": lambda T, x: x @ T.ones(4, 5),
    "batched_matmul": lambda T, x: x @ x.mT,
    "matmul_of_transposed": lambda T, x: x.mT @ T.ones(3, 2),
    "tril": lambda T, x: x.tril(),
    "linear": lambda T, x: T.nn.functional.linear(x, T.ones(5, 4), T.ones(5)),
    "layer_norm": lambda T, x: T.nn.functional.layer_norm(x, (4,)),
    "gelu": lambda T, x: T.nn.functional.gelu(x),
    "one_hot": lambda T, x: T.nn.functional.one_hot(x.long() % 3),
    "dropout_off": lambda T, x: T.nn.functional.dropout(x, 0.0),
    "pad": lambda T, x: T.nn.functional.pad(x, (1, 1)),
}
VIEWS = {
    "reshape_flat": lambda T, x: x.reshape(-1),
    "reshape_2d": lambda T, x: x.reshape(6, 4),
    "flatten_1": lambda T, x: x.flatten(1),
    "unsqueeze": lambda T, x: x.unsqueeze(1),
    "squeeze": lambda T, x: x[:1].squeeze(),
    "select": lambda T, x: x[:, 1],
    "step": lambda T, x: x[:, ::2],
    "diagonal": lambda T, x: x.diagonal(0, 1, 2),
    "mT": lambda T, x: x.mT,
    "movedim": lambda T, x: x.movedim(0, 2),
    "expand": lambda T, x: x[:, :1].expand(2, 3, 4),
    "expand_new": lambda T, x: x.expand(5, 2, 3, 4),
    "split": lambda T, x: x.split(2, 1)[1],
    "unbind": lambda T, x: x.unbind(1)[2],
    "unfold": lambda T, x: x.unfold(2, 2, 1),
    "newaxis": lambda T, x: x[:, None, 1:],
    "detach": lambda T, x: x.detach(),
    "view_dtype": lambda T, x: x.view_as(x),
}


SHAPES = [(24,), (6, 4), (2, 12), (3, 8), (4, 6), (2, 3, 2, 2), (1, 2, 3, 4)]


def layout(t: Any) -> dict[str, Any]:
    return {"shape": tuple(t.shape), "strides": tuple(t.stride()), "dense": t.is_contiguous()}


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", INPUTS)
def test_results_are_contiguous_where_those_of_pytorch_are(op, name):
    """So that ``view`` works wherever it does in PyTorch; it may work in more places."""
    expected = OPS[op](torch, INPUTS[name](torch))
    actual = OPS[op](library, INPUTS[name](library))
    assert tuple(actual.shape) == tuple(expected.shape)
    assert actual.is_contiguous() or not expected.is_contiguous()


@pytest.mark.parametrize("op", VIEWS)
@pytest.mark.parametrize("name", INPUTS)
def test_strides_and_offsets_of_views(op, name):
    def program(T):
        x = INPUTS[name](T)
        v = VIEWS[op](T, x)
        shares = v._is_view() and v.data_ptr() >= x.data_ptr()
        return layout(v), shares, v.storage_offset() if shares else None

    same(program)


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("shape", SHAPES)
def test_which_views_are_possible(name, shape):
    def program(T):
        x = INPUTS[name](T)
        v = outcome_of(lambda: x.view(shape))
        r = x.reshape(shape)
        return v if isinstance(v, Exception) else layout(v), layout(r), r._is_view(), r

    same(program, message="exact")


@pytest.mark.parametrize("op", OPS)
@pytest.mark.parametrize("name", INPUTS)
def test_gradients_of_leaves_lie_as_the_leaves_do(op, name):
    """As PyTorch promises: `view`, `flatten` and fused updates of a gradient count on it."""

    def program(T):
        x = INPUTS[name](T).detach().requires_grad_()
        y = OPS[op](T, x)
        if not y.requires_grad:
            return None
        for _ in range(2):
            (y * y).sum().backward(retain_graph=True)
        return layout(x.grad)

    same(program)


@pytest.mark.parametrize("op", ["exp", "mul_itself", "relu", "add_number", "clamp", "pow", "neg"])
@pytest.mark.parametrize("name", ["rows", "transposed", "permuted", "moved"])
def test_elementwise_ops_keep_the_layout(op, name):
    same(lambda T: layout(OPS[op](T, INPUTS[name](T))))


LARGE = {
    "addcmul": lambda T, x: T.addcmul(x, x, x),
    "gelu": lambda T, x: T.nn.functional.gelu(x),
    "isclose": lambda T, x: T.isclose(x, x),
    "mse_loss": lambda T, x: T.nn.functional.mse_loss(x, x, reduction="none"),
    "normalize": lambda T, x: T.nn.functional.normalize(x, dim=1),
    "prelu": lambda T, x: T.nn.functional.prelu(x, T.arange(150.0)),
    "rsqrt": lambda T, x: x.rsqrt(),
    "silu": lambda T, x: T.nn.functional.silu(x),
}


@pytest.mark.parametrize("op", LARGE)
def test_elementwise_results_of_kernels_keep_the_layout(op: str) -> None:
    def program(T: Any) -> Any:
        y = LARGE[op](T, T.arange(30000.0).reshape(2, 100, 150).transpose(1, 2))
        return layout(y), y

    same(program)


# What lies otherwise on a GPU: results of cuBLASLt, the heads side by side, and masks of channels.
ELSEWHERE = set(
    """addbmm addcdiv addcmul addr dropout1d dropout2d glu gru_sequence kron lstm_sequence
    rnn_sequence scaled_dot_product_attention""".split()
)


@pytest.mark.parametrize("where", ["stand-in", pytest.param("gpu", marks=pytest.mark.cuda)])
def test_results_lie_on_a_gpu_as_on_the_cpu(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if where == "stand-in":
        cupy_stand_in.install(monkeypatch)

    def turned(value: Any, device: str) -> Any:
        if isinstance(value, np.ndarray) and value.ndim > 1:
            return convert(value.swapaxes(-1, -2).copy(), device).detach().mT
        if isinstance(value, (list, tuple)):
            return type(value)(turned(v, device) for v in value)
        if isinstance(value, dict):
            return {k: turned(v, device) for k, v in value.items()}
        return convert(value, device)

    def strides(name: str, sample: Any, device: str) -> Any:
        gradlite.manual_seed(0)
        args, kwargs = turned((sample.args, sample.kwargs), device)
        found = outcome_of(lambda: tensors(TABLE[name].function(*args, **kwargs)))
        if isinstance(found, Exception):  # as of a view of what is no longer in one piece
            return type(found)
        return [[s for n, s in zip(t.shape, t.stride()) if n > 1] for t in found]

    samples.fresh()
    found = [
        (name, strides(name, sample, "cuda"), strides(name, sample, "cpu"))
        for name in sorted(set(TABLE) - ELSEWHERE)
        for sample in TABLE[name].samples()[:2]
    ]
    assert [case for case in found if case[1] != case[2]] == []


@pytest.mark.parametrize("name", [name for name in INPUTS if "expanded" not in name])
def test_in_place_ops_keep_the_layout(name):
    def program(T):
        x = INPUTS[name](T)
        x.mul_(2).add_(T.ones(4)).clamp_(0, 30)
        x[0] = 1.0
        return layout(x), x

    same(program)


@pytest.mark.parametrize("maker", ["zeros_like", "ones_like", "empty_like", "full_like"])
@pytest.mark.parametrize("name", ["preserve_format", "contiguous_format", "channels_last"])
def test_tensors_like_another_take_a_memory_format(maker: str, name: str) -> None:
    def program(library: Any) -> Any:
        fill = (2.0,) if maker == "full_like" else ()
        x = library.ones(2, 3, 4, 5)
        made = getattr(library, maker)(x, *fill, memory_format=getattr(library, name))
        flat = getattr(library, maker)(x[0, 0], *fill, memory_format=library.preserve_format)
        nothing = library.zeros_like(made)
        return made.stride(), flat.stride(), nothing if maker == "empty_like" else made

    same(program)


def test_a_memory_format_of_another_rank_is_refused() -> None:
    def program(library: Any) -> Any:
        return library.zeros_like(library.ones(2, 3), memory_format=library.channels_last)

    same(program, raises=RuntimeError)


def test_a_tensor_of_a_memory_format_starts_anew_in_every_replay() -> None:
    @gradlite.capture(native=False)
    def step(x: gradlite.Tensor) -> gradlite.Tensor:
        total = gradlite.zeros_like(x, memory_format=gradlite.channels_last)
        total += x
        return total

    for i in range(6):
        x = gradlite.full((1, 2, 2, 2), float(i))
        assert (step(x) == x).all()
    assert step.replays > 0


def test_gradients_with_a_graph_are_copies_that_lie_as_the_leaves_do() -> None:
    """Not the tensor that was given, nor that of another leaf, which would change with it."""

    def program(library: Any) -> Any:
        seen = []
        for permuted in (False, True):
            x = library.arange(12.0).reshape(3, 4)
            x = (x.T if permuted else x).detach().requires_grad_()
            y = library.ones_like(x).requires_grad_()
            given = library.full_like(x, 2.0)
            ((x + y).T * 1.0).backward(given.T, create_graph=True)
            seen += [x.grad is given, x.grad.grad_fn, layout(x.grad)]
            x.grad.zero_()
            seen += [given, y.grad, x.grad]
            x.grad = None
            (x * x.T.sum() * y).sum().backward(create_graph=True)
            seen += [x.grad.grad_fn.name(), layout(x.grad), x.grad]
            (again,) = library.autograd.grad(x.grad.square().sum(), x)
            seen.append(again)
        return seen

    same(program, warns="create_graph=True")
