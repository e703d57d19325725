"""Pooling: ties, NaN, -inf, padding, ceil mode, indices, both ways to find maxima, errors."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops import pooling, windows
from tests.oracle import same

F = gradlite.nn.functional
INF, NAN = float("inf"), float("nan")


def values(shape: tuple[int, ...], kind: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    x = rng.standard_normal(shape)
    if kind == "ties":
        return np.round(x)
    if kind == "nan":
        x[rng.random(shape) < 0.2] = np.nan
    if kind == "-inf":
        x[rng.random(shape) < 0.7] = -np.inf
    return x


def pooled(library: Any, name: str, x: np.ndarray, *settings: Any, **options: Any) -> Any:
    """The result (or results), the gradient, and that of a sum of squared gradients."""
    t = library.tensor(x, requires_grad=True)
    result = getattr(library.nn.functional, name)(t, *settings, **options)
    y = result[0] if isinstance(result, tuple) else result
    g = library.tensor(np.random.default_rng(1).standard_normal(y.shape), requires_grad=True)
    (first,) = library.autograd.grad(y, t, g, create_graph=True)
    (second,) = library.autograd.grad((first * first).sum(), g)
    return result, first.detach(), second


SETTINGS = [
    (2,),
    (3, 2, 1),
    ((2, 3), (1, 2), (1, 0)),
    ((1, 4), (2, 1), (0, 2)),
    (4, 4),
    (2, 3),
    (5,),
]


@pytest.mark.parametrize("kind", ["plain", "ties", "nan", "-inf"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("many", [64, 2])
def test_max_pool2d(
    kind: str, settings: tuple[Any, ...], ceil_mode: bool, many: int, monkeypatch: Any
) -> None:
    """With few and with many elements in a window: they are found in different ways."""
    monkeypatch.setattr(pooling, "MANY_TAPS", many)
    monkeypatch.setattr(windows, "BLOCK_BYTES", 700)
    monkeypatch.setattr(pooling, "UNPADDED_BYTES", 700)
    x = values((2, 3, 7, 6), kind)
    for indices in (False, True):
        options = {"ceil_mode": ceil_mode, "return_indices": indices}
        same(
            lambda library, options=options: pooled(library, "max_pool2d", x, *settings, **options)
        )


@pytest.mark.parametrize("dilation", [2, (1, 3)])
@pytest.mark.parametrize("stride", [1, 2, (3, 1)])
def test_max_pool2d_with_dilation(stride: Any, dilation: Any) -> None:
    x = values((1, 2, 9, 8), "ties")
    for padding in (0, 1):
        same(
            lambda library, padding=padding: pooled(
                library, "max_pool2d", x, (3, 2), stride, padding, dilation, False, True
            )
        )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_without_gradients_the_same_maxima(settings: tuple[Any, ...]) -> None:
    def program(library: Any) -> Any:
        with library.no_grad():
            kinds = ("plain", "nan", "-inf")
            return [
                library.nn.functional.max_pool2d(
                    library.tensor(values((2, 2, 7, 6), kind)), *settings
                )
                for kind in kinds
            ]

    same(program)


@pytest.mark.parametrize("order", list(itertools.permutations(range(4)))[::5], ids=str)
def test_the_first_of_equal_maxima_gets_the_gradient(order: tuple[int, ...]) -> None:
    for equal in (2, 3, 4):
        x = np.zeros((1, 2, 2))
        x.reshape(-1)[list(order[:equal])] = 1.0
        t = gradlite.tensor(x, requires_grad=True)
        F.max_pool2d(t, 2).sum().backward()
        assert t.grad.array.reshape(-1).nonzero()[0].tolist() == [min(order[:equal])]


def test_infinite_gradients_reach_the_winner_alone() -> None:
    x = gradlite.tensor([[[1.0, 2.0], [0.0, 1.5]]], requires_grad=True)
    F.max_pool2d(x, 2).backward(gradlite.tensor([[[INF]]]))
    assert x.grad.tolist() == [[[0.0, INF], [0.0, 0.0]]]


@pytest.mark.parametrize("kind", ["plain", "ties", "nan"])
@pytest.mark.parametrize("settings", SETTINGS, ids=str)
def test_images_at_once_and_block_by_block(
    settings: tuple[Any, ...], kind: str, monkeypatch: Any
) -> None:
    x = gradlite.tensor(values((3, 2, 7, 6), kind).astype(np.float32)[..., ::-1].copy()).mT

    def results() -> list[bytes]:
        winners = F.max_pool2d(x, *settings, return_indices=True)
        with gradlite.no_grad():
            tensors = F.max_pool2d(x, *settings), F.avg_pool2d(x, *settings), *winners
        return [t.numpy().tobytes() for t in tensors]

    at_once = results()
    monkeypatch.setattr(windows, "BLOCK_BYTES", 100)
    monkeypatch.setattr(pooling, "UNPADDED_BYTES", 100)
    assert results() == at_once


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "int64", "int8", "uint8"])
def test_max_pool2d_of_other_dtypes(dtype: str) -> None:
    def program(library: Any) -> Any:
        x = (library.arange(60).view(1, 2, 5, 6) * 7 % 23).to(getattr(library, dtype))
        pool = library.nn.functional.max_pool2d
        return pool(x, 2), pool(x, 3, 2, 1, 1, True), pool(x, 2, return_indices=True)

    same(program)


def test_windows_that_miss_the_image_are_harmless() -> None:
    """Dilation 3 with padding steps over an image of 2: nothing is read or written outside."""
    x = gradlite.ones(1, 2, 2, requires_grad=True)
    y = F.max_pool2d(x, 2, 1, 1, 3)
    assert y.shape == (1, 1, 1)
    y.sum().backward()
    assert float(x.grad.sum()) in (0.0, 1.0)
    places = F.max_pool2d(x, 2, 1, 1, 3, return_indices=True)[1]
    assert 0 <= int(places.min()) and int(places.max()) < 4


def test_one_dimension() -> None:
    x = values((2, 3, 9), "ties")
    for settings in ((2,), (3, 2, 1), (2, 1, 0, 3), (3, 3, 1, 1, True), (4, 2, 2, 1, True, True)):
        same(
            lambda library, settings=settings: pooled(library, "max_pool1d", x, *settings),
        )
    for settings in ((2,), (3, 2, 1), (3, 2, 1, True), (3, 2, 1, True, False), ([2], (3,))):
        same(
            lambda library, settings=settings: pooled(library, "avg_pool1d", x, *settings),
            rtol=1e-9,
        )


@pytest.mark.parametrize("settings", SETTINGS, ids=str)
@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize("include", [False, True])
def test_avg_pool2d(
    settings: tuple[Any, ...], ceil_mode: bool, include: bool, monkeypatch: Any
) -> None:
    monkeypatch.setattr(windows, "BLOCK_BYTES", 700)
    monkeypatch.setattr(pooling, "UNPADDED_BYTES", 700)
    x = values((2, 3, 7, 6), "plain")
    options: dict[str, Any] = {"ceil_mode": ceil_mode, "count_include_pad": include}
    same(lambda library: pooled(library, "avg_pool2d", x, *settings, **options), rtol=1e-9)
    options["divisor_override"] = 3
    same(lambda library: pooled(library, "avg_pool2d", x, *settings, **options), rtol=1e-9)


def test_avg_pool2d_of_other_dtypes() -> None:
    def program(library: Any) -> Any:
        pool = library.nn.functional.avg_pool2d
        x = library.tensor([[[-3, -4, 5], [0, 0, 1], [7, 8, 9]]])
        return pool(x, 2), pool(x, 3, 1, 1), pool(x, 2, divisor_override=-3), pool(x.half(), 2)

    same(program)


def test_half_precision_sums_in_single() -> None:
    x = gradlite.full((1, 100, 100), 60.0).half()
    assert F.avg_pool2d(x, 100).item() == 60.0
    assert F.adaptive_avg_pool2d(x, (1, 3)).tolist() == [[[60.0, 60.0, 60.0]]]


@pytest.mark.parametrize("size", [(1, 1), 1, 2, (3, 4), (7, 6), (9, 2), (None, 3)])
@pytest.mark.parametrize("name", ["adaptive_avg_pool2d", "adaptive_max_pool2d"])
def test_adaptive(name: str, size: Any) -> None:
    kinds = ("plain",) if "avg" in name else ("plain", "ties", "nan")
    for kind, shape in itertools.product(kinds, [(2, 3, 7, 6), (3, 7, 6), (0, 3, 7, 6)]):
        x = values(shape, kind)
        same(lambda library, x=x: pooled(library, name, x, size), rtol=1e-9)
        if "max" in name:
            same(lambda library, x=x: pooled(library, name, x, size, return_indices=True))


def test_adaptive_to_nothing() -> None:
    def program(library: Any) -> Any:
        F, x = library.nn.functional, library.ones(2, 3, 4, 4)
        return F.adaptive_avg_pool2d(x, (0, 2)), F.adaptive_max_pool2d(x, (2, 0))

    same(program)


def test_adaptive_in_one_dimension() -> None:
    for size in (1, 3, 5, 8):
        x = values((2, 3, 7), "ties")
        for name in ("adaptive_avg_pool1d", "adaptive_max_pool1d"):
            same(
                lambda library, name=name, x=x, size=size: pooled(library, name, x, size),
                rtol=1e-9,
            )


WRONG: dict[str, Any] = {
    "dimensions": lambda F, T: F.max_pool2d(T(8, 8), 2),
    "kernel of three": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), (2, 2, 2)),
    "stride of three": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2, (1, 2, 3)),
    "padding of three": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2, padding=(1, 1, 1)),
    "dilation of three": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2, dilation=(1, 1, 1)),
    "kernel 0": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 0),
    "stride 0": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2, 0),
    "dilation 0": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2, dilation=0),
    "padding": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2, padding=2),
    "padding with dilation": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2, 1, 2, 3),
    "negative padding": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 3, padding=-1),
    "too small": lambda F, T: F.max_pool2d(T(2, 3, 2, 2), 3),
    "no channels": lambda F, T: F.max_pool2d(T(2, 0, 8, 8), 2),
    "bool": lambda F, T: F.max_pool2d(T(2, 3, 8, 8).bool(), 2),
    "no tensor": lambda F, T: F.max_pool2d("x", 2),
    "half a kernel": lambda F, T: F.max_pool2d(T(2, 3, 8, 8), 2.5),
    "1d: dimensions": lambda F, T: F.max_pool1d(T(8), 2),
    "1d: kernel of two": lambda F, T: F.max_pool1d(T(2, 3, 8), (2, 3)),
    "1d: kernel 0": lambda F, T: F.max_pool1d(T(2, 3, 8), 0),
    "1d: stride 0": lambda F, T: F.max_pool1d(T(2, 3, 8), 2, 0),
    "1d: dilation 0": lambda F, T: F.max_pool1d(T(2, 3, 8), 2, dilation=0),
    "1d: padding": lambda F, T: F.max_pool1d(T(2, 3, 8), 2, padding=2),
    "1d: negative padding": lambda F, T: F.max_pool1d(T(2, 3, 8), 2, padding=-2),
    "1d: too small": lambda F, T: F.max_pool1d(T(2, 3, 1), 2),
    "1d: integers": lambda F, T: F.max_pool1d(T(2, 3, 8).long(), 2),
    "avg: dimensions": lambda F, T: F.avg_pool2d(T(8, 8), 2),
    "avg: too many dimensions": lambda F, T: F.avg_pool2d(T(1, 2, 3, 8, 8), 2),
    "avg: padding": lambda F, T: F.avg_pool2d(T(2, 3, 8, 8), 2, padding=2),
    "avg: divisor": lambda F, T: F.avg_pool2d(T(2, 3, 8, 8), 2, divisor_override=0),
    "avg: too small": lambda F, T: F.avg_pool2d(T(2, 3, 2, 2), 3),
    "avg: bytes": lambda F, T: F.avg_pool2d(T(2, 3, 8, 8).byte(), 2),
    "avg 1d: dimensions": lambda F, T: F.avg_pool1d(T(8), 2),
    "avg 1d: kernel of two": lambda F, T: F.avg_pool1d(T(2, 3, 8), (2, 2)),
    "avg 1d: too small": lambda F, T: F.avg_pool1d(T(2, 3, 8), 20),
    "adaptive: dimensions": lambda F, T: F.adaptive_avg_pool2d(T(8, 8), (2, 3)),
    "adaptive: negative": lambda F, T: F.adaptive_avg_pool2d(T(2, 3, 8, 8), (-1, 3)),
    "adaptive: sizes": lambda F, T: F.adaptive_avg_pool2d(T(2, 3, 8, 8), (1, 2, 3)),
    "adaptive: empty": lambda F, T: F.adaptive_avg_pool2d(T(2, 3, 0, 8), 2),
    "adaptive: integers": lambda F, T: F.adaptive_avg_pool2d(T(2, 3, 8, 8).long(), 2),
    "adaptive 1d: dimensions": lambda F, T: F.adaptive_avg_pool1d(T(8), 3),
    "adaptive 1d: sizes": lambda F, T: F.adaptive_avg_pool1d(T(2, 3, 8), (3, 2)),
    "adaptive max: dimensions": lambda F, T: F.adaptive_max_pool2d(T(8, 8), (2, 3)),
    "adaptive max: negative": lambda F, T: F.adaptive_max_pool2d(T(2, 3, 8, 8), (-1, 3)),
    "adaptive max: sizes": lambda F, T: F.adaptive_max_pool2d(T(2, 3, 8, 8), (2, 3, 4)),
    "adaptive max: empty": lambda F, T: F.adaptive_max_pool2d(T(2, 3, 0, 8), (2, 3)),
    "adaptive max 1d: dimensions": lambda F, T: F.adaptive_max_pool1d(T(8), 3),
    "adaptive max 1d: no channels": lambda F, T: F.adaptive_max_pool1d(T(1, 0, 5), 3),
    "adaptive max 2d: no channels": lambda F, T: F.adaptive_max_pool2d(T(1, 0, 5, 4), 3),
    "adaptive max 3d: no channels": lambda F, T: F.adaptive_max_pool3d(T(1, 0, 5, 4, 4), 3),
    "adaptive 3d: empty": lambda F, T: F.adaptive_avg_pool3d(T(1, 2, 5, 0, 4), 3),
    "unpool 3d: kernel of two": lambda F, T: F.max_unpool3d(
        T(1, 3, 1, 1, 1), T(1, 3, 1, 1, 1).long(), (1, 1)
    ),
    "unpool 2d: kernel of one": lambda F, T: F.max_unpool2d(
        T(1, 3, 1, 1), T(1, 3, 1, 1).long(), (1,)
    ),
    "unpool 2d: kernel of three": lambda F, T: F.max_unpool2d(
        T(1, 3, 1, 1), T(1, 3, 1, 1).long(), (1, 1, 1)
    ),
    "unpool 2d: a place outside": lambda F, T: F.max_unpool2d(
        T(1, 3, 1, 1), T(1, 3, 1, 1).long() * 7, 2
    ),
    "unpool 2d: a negative place": lambda F, T: F.max_unpool2d(
        T(1, 3, 1, 1), T(1, 3, 1, 1).long() * -1, 2
    ),
    "unpool 3d: a place outside": lambda F, T: F.max_unpool3d(
        T(1, 3, 1, 1, 1), T(1, 3, 1, 1, 1).long() * 8, 2
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](library.nn.functional, library.ones),
        raises=(RuntimeError, TypeError, ValueError, IndexError, NotImplementedError),
        message="exact",
    )


POSITIONS: dict[str, Any] = {
    "max_pool1d": lambda F, x: F.max_pool1d(x[0], 2, return_indices=True),
    "max_pool2d": lambda F, x: F.max_pool2d(x, 2, return_indices=True),
    "adaptive_max_pool1d": lambda F, x: F.adaptive_max_pool1d(x[0], 2, return_indices=True),
    "adaptive_max_pool2d": lambda F, x: F.adaptive_max_pool2d(x, 2, return_indices=True),
}


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_that_were_edited_are_refused(name: str) -> None:
    def program(library: Any) -> None:
        x = library.ones(1, 2, 4, 4, requires_grad=True)
        result, positions = POSITIONS[name](library.nn.functional, x)
        positions.add_(1)
        result.sum().backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation", message="exact")


@pytest.mark.parametrize("name", POSITIONS)
def test_positions_do_not_require_gradients(name: str) -> None:
    def program(library: Any) -> Any:
        x = library.ones(1, 2, 4, 4, requires_grad=True)
        result, positions = POSITIONS[name](library.nn.functional, x)
        (slope,) = library.autograd.grad((result * result).sum(), x, create_graph=True)
        (slope * slope).sum().backward()
        return positions, result.output_nr, x.grad

    same(program)


@pytest.mark.parametrize("dims", [1, 2, 3])
@pytest.mark.parametrize("kind", ["avg", "max"])
def test_windows_of_no_output_have_no_gradient(kind: str, dims: int) -> None:
    def program(library: Any) -> None:
        pool = getattr(library.nn.functional, f"adaptive_{kind}_pool{dims}d")
        pool(library.ones(1, 2, *(4,) * dims, requires_grad=True), 0).sum().backward()

    wanted = "type" if dims == 3 else "exact"
    same(program, raises=RuntimeError, match="Expected grad_output", message=wanted)
