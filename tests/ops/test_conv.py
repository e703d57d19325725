"""Convolutions: every path through the columns, odd numbers, dtypes, errors."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import columns, conv, grouped, windows
from tests.oracle import same, torch

# Shapes of input and weight, then stride, padding, dilation, groups.
CASES: dict[str, tuple[Any, ...]] = {
    "few channels": ((2, 3, 9, 8), (5, 3, 3, 3), 1, 1, 1, 1),
    "many channels": ((3, 6, 7, 8), (5, 6, 3, 3), 1, 1, 1, 1),
    "stride": ((2, 6, 9, 8), (5, 6, 3, 2), (2, 3), (1, 0), 1, 1),
    "stride, few channels": ((2, 2, 9, 8), (5, 2, 3, 2), (2, 3), (1, 2), 1, 1),
    "dilation": ((2, 6, 9, 9), (5, 6, 3, 3), 1, 2, (2, 3), 1),
    "dilation and stride": ((2, 6, 9, 9), (5, 6, 3, 3), 2, 1, 2, 1),
    "padding beyond the kernel": ((2, 6, 3, 3), (5, 6, 2, 2), 1, 3, 1, 1),
    "1x1": ((2, 6, 4, 5), (5, 6, 1, 1), 1, 0, 1, 1),
    "1x1 with stride": ((2, 6, 4, 5), (5, 6, 1, 1), (2, 3), 0, 1, 1),
    "1x1 with padding": ((2, 6, 4, 5), (5, 6, 1, 1), 1, 1, 1, 1),
    "rows": ((2, 6, 4, 5), (5, 6, 1, 3), 1, (0, 1), 1, 1),
    "groups": ((2, 6, 5, 5), (9, 2, 3, 3), 1, 1, 1, 3),
    "wide groups": ((2, 12, 5, 5), (4, 6, 3, 3), 2, 1, 1, 2),
    "depthwise": ((2, 6, 5, 6), (6, 1, 3, 3), 1, 1, 1, 6),
    "depthwise with stride": ((2, 6, 5, 6), (6, 1, 3, 3), 2, 1, 1, 6),
    "depthwise, two kernels a channel": ((2, 3, 5, 6), (6, 1, 2, 3), 1, 1, 2, 3),
    "one pixel": ((2, 6, 3, 3), (5, 6, 3, 3), 1, 0, 1, 1),
}


def tensors(library: Any, *shapes: tuple[int, ...], dtype: str = "float64") -> list[Any]:
    rng = np.random.default_rng(0)
    kind = getattr(library, dtype)
    return [library.tensor(rng.standard_normal(s), dtype=kind, requires_grad=True) for s in shapes]


def convolved(library: Any, case: tuple[Any, ...], dtype: str = "float64") -> Any:
    shape, kernel, *settings = case
    x, w, b = tensors(library, shape, kernel, (kernel[0],), dtype=dtype)
    y = library.nn.functional.conv2d(x, w, b, *settings)
    g = tensors(library, y.shape, dtype=dtype)[0].detach()
    return y, library.autograd.grad(y, (x, w, b), g)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("block", [600_000, 500])
@pytest.mark.parametrize("product", [1_000_000, 200])
def test_values_and_gradients(
    case: tuple[Any, ...], block: int, product: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(windows, "BLOCK_BYTES", block)
    monkeypatch.setattr(columns, "SMALL_PRODUCT", product)
    same(lambda library: convolved(library, case), rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_each_gradient_alone(case: tuple[Any, ...]) -> None:
    shape, kernel, *settings = case

    def program(library: Any) -> Any:
        results = []
        for wanted in range(3):
            inputs = tensors(library, shape, kernel, (kernel[0],))
            inputs = [t if i == wanted else t.detach() for i, t in enumerate(inputs)]
            y = library.nn.functional.conv2d(*inputs, *settings)
            (y * y).sum().backward()
            results.append(inputs[wanted].grad)
        return results

    same(program, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("case", CASES.values(), ids=CASES.keys())
def test_the_transpose_of_the_same_kernel(case: tuple[Any, ...]) -> None:
    shape, kernel, stride, padding, dilation, groups = case
    if padding == 3:
        pytest.skip("nothing would be left")

    def program(library: Any) -> Any:
        shapes = ((2, kernel[0], 4, 5), kernel, (kernel[1] * groups,))
        x, w, b = tensors(library, *shapes)
        transpose = library.nn.functional.conv_transpose2d
        y = transpose(x, w, b, stride, padding, 0, groups, dilation)
        g = tensors(library, y.shape)[0].detach()
        return y, library.autograd.grad(y, (x, w, b), g)

    same(program, rtol=1e-9, atol=1e-10)


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("name", ["few channels", "many channels", "depthwise"])
def test_other_dtypes(name: str, dtype: str) -> None:
    tolerance = {"float32": 2e-6, "float16": 5e-3, "bfloat16": 2e-2}[dtype]
    y, grads = convolved(gradlite, CASES[name], dtype)
    exact, exact_grads = convolved(torch, CASES[name])
    for mine, yours in zip((y, *grads), (exact, *exact_grads)):
        assert mine.dtype == getattr(gradlite, dtype)
        difference = mine.detach().double().numpy() - yours.detach().numpy()
        assert abs(difference).max() <= tolerance * abs(yours).max()


def test_half_precision_sums_in_single() -> None:
    x, w = gradlite.ones(1, 8, 20, 20).half(), gradlite.ones(1, 8, 20, 20).half()
    w[0, 0, 0, 0] = 2.0  # 3201 is no float16 number, but partial sums would end at 2048
    assert gradlite.nn.functional.conv2d(x, w).item() == 3200.0


def test_integers() -> None:
    def program(library: Any) -> Any:
        x, w = library.arange(50).view(1, 2, 5, 5), library.arange(36).view(2, 2, 3, 3)
        return library.nn.functional.conv2d(x, w, library.tensor([1, -1]), padding=1)

    same(program)


@pytest.mark.parametrize("kernel", [(2, 2), (4, 3), (1, 2)])
def test_same_padding_with_even_kernels_puts_more_after(kernel: tuple[int, int]) -> None:
    def program(library: Any) -> Any:
        x, w = tensors(library, (2, 6, 5, 6), (3, 6, *kernel))
        y = library.nn.functional.conv2d(x, w, padding="same", dilation=1)
        return y, *library.autograd.grad((y * y).sum(), (x, w))

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # PyTorch warns that it copies the input
        expected = program(torch)
    for mine, yours in zip(program(gradlite), expected):
        np.testing.assert_allclose(mine.detach().numpy(), yours.detach().numpy(), rtol=1e-9)


@pytest.mark.parametrize(
    "settings",
    [(2, 1, 1), (3, 0, 2), (2, 1, 2, 1, 3), ((2, 3), (0, 1), (1, 2)), (1, 0, 1, 1, 2)],
    ids=str,
)
def test_output_padding(settings: tuple[Any, ...]) -> None:
    """Larger than the stride too, as long as the dilation is larger still."""

    def program(library: Any) -> Any:
        x, w, b = tensors(library, (2, 6, 4, 5), (6, 5, 2, 3), (5,))
        y = library.nn.functional.conv_transpose2d(x, w, b, *settings)
        g = tensors(library, y.shape)[0].detach()
        return y, library.autograd.grad(y, (x, w, b), g)

    same(program, rtol=1e-9, atol=1e-10)


def test_one_dimension() -> None:
    def program(library: Any) -> Any:
        F = library.nn.functional
        x, w, v = tensors(library, (2, 6, 9), (4, 3, 3), (6, 2, 4))
        y = F.conv1d(x, w, None, 2, 1, 2, 2)
        z = F.conv_transpose1d(x, v, None, (2,), 1, 1, 3)
        return y, z, library.autograd.grad((y * y).sum() + (z * z).sum(), (x, w, v))

    same(program, rtol=1e-9, atol=1e-9)


def test_without_a_batch() -> None:
    def program(library: Any) -> Any:
        F = library.nn.functional
        x, w, s, v = tensors(library, (3, 5, 5), (4, 3, 2, 2), (3, 5), (4, 3, 2))
        return F.conv2d(x, w), F.conv1d(s, v), F.conv_transpose2d(F.conv2d(x, w), w)

    same(program, rtol=1e-9)


@pytest.mark.parametrize("kernel", [(4, 3, 3, 3), (4, 3, 1, 1), (3, 1, 3, 3)])
def test_empty_batches(kernel: tuple[int, ...]) -> None:
    def program(library: Any) -> Any:
        x, w, b = tensors(library, (0, 3, 5, 5), kernel, kernel[:1])
        y = library.nn.functional.conv2d(x, w, b, groups=3 // kernel[1])
        y.sum().backward()
        return y, x.grad, w.grad, b.grad

    same(program)


def test_no_input_channels() -> None:
    x, w = gradlite.ones(2, 0, 4, 4, requires_grad=True), gradlite.ones(3, 0, 2, 2)
    y = gradlite.nn.functional.conv2d(x, w, gradlite.arange(3.0))
    y.sum().backward()
    assert y.shape == (2, 3, 3, 3) and (y[:, 2] == 2).all() and x.grad.shape == x.shape


def test_lists_and_numbers_are_the_same() -> None:
    def program(library: Any) -> Any:
        F = library.nn.functional
        x, w = tensors(library, (2, 3, 6, 6), (4, 3, 2, 2))
        y = F.conv2d(x, w, None, [2, 1], [1], (1, 2))
        return y, F.conv_transpose2d(y, w, None, [2])

    same(program, rtol=1e-9)


def test_the_first_layers_input_gradient_is_not_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    x = gradlite.ones(2, 1, 6, 6)
    w = gradlite.ones(3, 1, 3, 3, requires_grad=True)
    y = gradlite.nn.functional.conv2d(x, w, padding=1)

    def forbidden(*args: Any) -> None:
        raise AssertionError("nobody wants this gradient")

    monkeypatch.setattr(grouped, "input_gradient", forbidden)
    monkeypatch.setattr(grouped, "gradients", forbidden)
    y.sum().backward()
    assert w.grad is not None


def test_only_what_gradients_need_is_saved() -> None:
    x, w = gradlite.ones(2, 3, 6, 6), gradlite.ones(3, 3, 3, 3, requires_grad=True)
    y = gradlite.nn.functional.conv2d(x, w)
    assert y.grad_fn is not None
    assert [value is None for value in y.grad_fn.saved] == [False, True]


def test_gradients_of_a_sum_of_products_are_exact_to_third_order() -> None:
    """The convolution is bilinear: of third order, only the loss on top remains."""

    def program(library: Any) -> Any:
        x, w = tensors(library, (1, 5, 4, 4), (2, 5, 2, 2))
        y = library.nn.functional.conv2d(x, w, padding=1, stride=2)
        (first,) = library.autograd.grad((y**3).sum(), x, create_graph=True)
        second = library.autograd.grad((first * first).sum(), (x, w), create_graph=True)
        third = library.autograd.grad(sum(s.sum() for s in second), (x, w))
        return first, second, third

    same(program, rtol=1e-8, atol=1e-8)


def test_infinite_and_nan_values_are_quiet() -> None:
    def program(library: Any) -> Any:
        x = library.ones(1, 6, 4, 4, dtype=library.float64)
        x[0, 0, 1, 1], x[0, 3, 2, 2] = float("inf"), float("nan")
        w = library.ones(2, 6, 3, 3, dtype=library.float64)
        return library.nn.functional.conv2d(x, w)

    same(program)


@pytest.mark.parametrize("order", ["transposed", "strided"])
def test_any_memory_layout(order: str) -> None:
    def program(library: Any) -> Any:
        x, w = tensors(library, (2, 6, 6, 6), (6, 6, 3, 3))
        a = x.transpose(1, 3) if order == "transposed" else x[:, :, ::2]
        v = w.transpose(0, 1)
        y = library.nn.functional.conv2d(a, v, padding=1)
        g = tensors(library, (*y.shape[:2], *y.shape[:1:-1]))[0].detach().transpose(2, 3)
        return y, library.autograd.grad(y, (x, w), g)

    same(program, rtol=1e-9, atol=1e-10)


def test_gradients_are_arrays_of_their_own() -> None:
    x, w, b = tensors(gradlite, (2, 6, 5, 5), (4, 6, 3, 3), (4,))
    conv.conv2d(x, w, b).sum().backward()
    arrays = [t.grad.array for t in (x, w, b)]
    assert all(a.flags.owndata and a.flags.c_contiguous for a in arrays)


WRONG: dict[str, Any] = {
    "channels": lambda F, T: F.conv2d(T(2, 4, 8, 8), T(4, 3, 3, 3)),
    "channels in groups": lambda F, T: F.conv2d(T(2, 4, 8, 8), T(4, 3, 3, 3), groups=2),
    "outputs in groups": lambda F, T: F.conv2d(T(2, 4, 8, 8), T(3, 2, 3, 3), groups=2),
    "no outputs": lambda F, T: F.conv2d(T(2, 4, 5, 5), T(0, 4, 3, 3)),
    "bias": lambda F, T: F.conv2d(T(2, 4, 8, 8), T(4, 4, 3, 3), T(3)),
    "bias dimensions": lambda F, T: F.conv2d(T(2, 4, 8, 8), T(4, 4, 3, 3), T(4, 1)),
    "input dimensions": lambda F, T: F.conv2d(T(4, 8), T(4, 4, 3, 3)),
    "too many dimensions": lambda F, T: F.conv1d(T(2, 3, 8, 8), T(4, 3, 3)),
    "weight dimensions": lambda F, T: F.conv2d(T(2, 4, 8, 8), T(4, 4, 3)),
    "too small": lambda F, T: F.conv2d(T(2, 4, 2, 2), T(4, 4, 3, 3)),
    "too small in 1d": lambda F, T: F.conv1d(T(2, 3, 2), T(4, 3, 3)),
    "negative padding": lambda F, T: F.conv2d(T(2, 4, 2, 2), T(4, 4, 3, 3), padding=-1),
    "stride 0": lambda F, T: F.conv2d(T(2, 4, 4, 4), T(4, 4, 3, 3), stride=0),
    "dilation 0": lambda F, T: F.conv2d(T(2, 4, 4, 4), T(4, 4, 3, 3), dilation=0),
    "groups 0": lambda F, T: F.conv2d(T(2, 4, 4, 4), T(4, 4, 3, 3), groups=0),
    "strides": lambda F, T: F.conv2d(T(2, 4, 4, 4), T(4, 4, 3, 3), stride=(1, 1, 1)),
    "paddings": lambda F, T: F.conv2d(T(2, 4, 4, 4), T(4, 4, 3, 3), padding=(1, 2, 3)),
    "padding's name": lambda F, T: F.conv2d(T(2, 4, 5, 5), T(4, 4, 3, 3), padding="some"),
    "same with stride": lambda F, T: F.conv2d(T(2, 4, 5, 5), T(4, 4, 3, 3), None, 2, "same"),
    "dtype": lambda F, T: F.conv2d(T(2, 4, 5, 5), T(4, 4, 3, 3).double()),
    "half": lambda F, T: F.conv2d(T(2, 4, 5, 5).half(), T(4, 4, 3, 3)),
    "bias's dtype": lambda F, T: F.conv2d(T(2, 4, 5, 5), T(4, 4, 3, 3), T(4).double()),
    "bool": lambda F, T: F.conv2d(T(2, 4, 5, 5).bool(), T(4, 4, 3, 3).bool()),
    "transpose: channels": lambda F, T: F.conv_transpose2d(T(2, 4, 5, 5), T(3, 4, 3, 3)),
    "transpose: bias": lambda F, T: F.conv_transpose2d(T(2, 4, 5, 5), T(4, 3, 3, 3), T(4)),
    "transpose: same": lambda F, T: F.conv_transpose2d(
        T(2, 4, 5, 5), T(4, 3, 3, 3), padding="same"
    ),
    "output padding": lambda F, T: F.conv_transpose2d(
        T(2, 4, 5, 5), T(4, 3, 3, 3), output_padding=1
    ),
    "negative output padding": lambda F, T: F.conv_transpose2d(
        T(2, 4, 5, 5), T(4, 3, 3, 3), output_padding=-1
    ),
    "output padding in 1d": lambda F, T: F.conv_transpose1d(
        T(2, 4, 5), T(4, 3, 3), output_padding=1
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.functional, library.ones),
        raises=(RuntimeError, TypeError, NotImplementedError),
        message="exact",
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda F, T: F.conv2d([1], T(4, 4, 3, 3)),
        lambda F, T: F.conv2d(T(2, 4, 5, 5), "kernel"),
        lambda F, T: F.conv2d(T(2, 4, 5, 5), T(4, 4, 3, 3), stride=1.5),
        lambda F, T: F.conv2d(T(2, 4, 5, 5), T(4, 4, 0, 3)),
        lambda F, T: F.conv_transpose2d(T(2, 4, 5, 5), T(4, 3, 3, 3), padding=4),
    ],
)
def test_wrong_arguments_with_messages_of_our_own(call: Any) -> None:
    same(
        lambda library: call(library.nn.functional, library.ones),
        raises=(RuntimeError, TypeError),
        message="type",
    )
