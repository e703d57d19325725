"""The ways in which factories are told sizes, bounds and distributions, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

import gradlite
from tests.oracle import outcome_of, same

SHAPED = ["zeros", "ones", "empty", "rand", "randn"]


def look(t: Any) -> Any:
    """What is the same of random tensors."""
    return tuple(t.shape), str(t.dtype).rpartition(".")[2], t.requires_grad


@pytest.mark.parametrize("name", SHAPED)
def test_sizes_by_name(name: str) -> None:
    def program(T: Any) -> Any:
        make = getattr(T, name)
        sizes = [(2, 3), [2], (), T.Size([4])]
        return (
            [look(make(size=size)) for size in sizes],
            look(make(size=(2,), dtype=T.float64, requires_grad=True)),
            look(make((2, 3))),
            outcome_of(lambda: make(2, size=(2,))).__class__,
        )

    same(program)


@pytest.mark.parametrize("name", ["new_zeros", "new_ones", "new_empty"])
def test_sizes_by_name_of_methods(name: str) -> None:
    same(lambda T: look(getattr(T.ones(1, dtype=T.float64), name)(size=(2, 3))))


BOUNDS = {
    "high and size": lambda T: T.randint(1, (2, 3)),
    "high, size by name": lambda T: T.randint(1, size=(2, 3)),
    "high by name": lambda T: T.randint(high=1, size=(2, 3)),
    "low and high": lambda T: T.randint(4, 5, (2, 3)),
    "low and high by name": lambda T: T.randint(low=4, high=5, size=[2]),
    "like": lambda T: T.randint_like(T.ones(2, 3), 1),
    "like, high by name": lambda T: T.randint_like(T.ones(2, 3), high=1),
    "like, low and high": lambda T: T.randint_like(T.ones(2, 3), -2, -1),
}


@pytest.mark.parametrize("name", BOUNDS)
def test_bounds_of_integers(name: str) -> None:
    same(lambda T: BOUNDS[name](T))


@pytest.mark.parametrize("arguments", [(0,), (5, 5), (5, 2)])
def test_empty_ranges_of_integers(arguments: tuple[int, ...]) -> None:
    same(lambda T: T.randint(*arguments, size=(2,)), raises=RuntimeError, message="exact")


def test_uniform_bounds() -> None:
    x = gradlite.empty(1000).uniform_(2, to=3)
    assert 2 <= x.min() < x.max() < 3


def test_normal_numbers_of_numbers() -> None:
    def program(T: Any) -> Any:
        return [
            look(T.normal(0.0, 1.0, (2, 3))),
            look(T.normal(mean=0.0, std=1.0, size=[2], dtype=T.float64, requires_grad=True)),
            T.normal(2.0, 0.0, (2,)),
            T.normal(2, 0, size=(2,), device="cpu"),
        ]

    same(program)
    gradlite.manual_seed(1)
    x = gradlite.normal(3.0, 2.0, (10000,), dtype=gradlite.float64)
    assert abs(x.mean() - 3) < 0.1 and abs(x.std() - 2) < 0.1


def test_normal_numbers_of_tensors_are_constants_of_their_means_and_spreads() -> None:
    def program(T: Any) -> Any:
        mean = T.tensor([1.0, 2.0], requires_grad=True)
        std = T.zeros(3, 2, dtype=T.float64, requires_grad=True)
        both, of_mean, of_std = T.normal(mean, std), T.normal(mean, 0.0), T.normal(2.0, std)
        (both.sum() + of_mean.sum() + of_std.sum()).backward()
        plain = T.normal(mean.detach(), std.detach())
        return both, of_mean, of_std, mean.grad, std.grad, plain, both.tolist(), of_std.tolist()

    same(program)
    gradlite.manual_seed(1)
    x = gradlite.normal(gradlite.full((10000,), 3.0), gradlite.tensor(2.0))
    assert abs(x.mean() - 3) < 0.1 and abs(x.std() - 2) < 0.1


WRONG: dict[str, Any] = {
    "negative std": lambda T: T.normal(0.0, -1.0, (2,)),
    "negative std of a mean": lambda T: T.normal(T.zeros(2), -1.0),
    "negative stds": lambda T: T.normal(0.0, T.tensor([1.0, -1.0])),
    "dtype of a tensor": lambda T: T.normal(T.zeros(2), 1.0, dtype=T.float64),
    "no size": lambda T: T.normal(0.0, 1.0),
}


@pytest.mark.parametrize("name", WRONG)
def test_wrong_normals(name: str) -> None:
    exact = name.startswith("negative")
    same(
        lambda T: WRONG[name](T),
        raises=(RuntimeError, TypeError),
        message="exact" if exact else "type",
    )


def test_normal_numbers_in_a_captured_step() -> None:
    mean = gradlite.zeros(3)
    step = gradlite.capture(lambda std: gradlite.normal(mean, std))
    gradlite.manual_seed(5)
    captured = [step(gradlite.tensor([1.0, 2.0, 0.0])) for _ in range(6)]
    gradlite.manual_seed(5)
    for got in captured:
        assert got.tolist() == gradlite.normal(mean, gradlite.tensor([1.0, 2.0, 0.0])).tolist()
    assert step.replays == 3
    with pytest.raises(RuntimeError, match="all elements of std >= 0.0"):
        step(gradlite.tensor([1.0, -1.0, 0.0]))


def test_joining_nothing() -> None:
    same(lambda T: T.cat([]), raises=ValueError, message="exact")
    same(lambda T: T.stack([]), raises=RuntimeError, message="exact")


# ------------------------------------------------------------------------- values of tensors
def made_of_tensors(T: Any) -> list[Any]:
    third, whole = T.tensor(1 / 3), T.tensor(-2)
    x, start = T.arange(6.0), T.tensor(-4)
    return [
        T.full((2,), third),
        T.full((2,), third.double(), dtype=T.float32),
        T.full((2,), third.double()),
        T.full((2,), whole),
        T.full((2,), third, dtype=T.int64),
        T.zeros(3).fill_(third),
        T.zeros(3, dtype=T.int8).fill_(T.tensor(300)),
        x.clone().fill_(third),
        (y := x.clone()).fill_(y[2]),
        T.tensor([third, whole]),
        T.tensor([[third, 2], [True, whole]]),
        T.tensor([third.double(), 1.5]),
        T.tensor([whole, T.tensor(3, dtype=T.int32)]),
        T.tensor([whole, 1 << 62]),
        T.tensor([T.tensor(True), False]),
        T.tensor([third.half(), 2.0]),
        T.tensor([third, third], dtype=T.float16),
        T.tensor([T.tensor(1e300, dtype=T.float64), 0.0], dtype=T.float32),
        T.arange(T.tensor(3, dtype=T.int32)),
        T.linspace(0, T.tensor(3), 4),
        x.narrow(0, start, 2),
        start,
    ]


def test_values_of_tensors_as_pytorch_takes_them() -> None:
    torch = pytest.importorskip("torch")
    for ours, theirs in zip(made_of_tensors(gradlite), made_of_tensors(torch), strict=True):
        assert str(ours.dtype).split(".")[1] == str(theirs.dtype).split(".")[1]
        assert ours.tolist() == theirs.tolist()
    for wrong in lambda T: T.tensor([3]), lambda T: T.tensor(3.0, requires_grad=True):
        for T in torch, gradlite:
            with pytest.raises(TypeError, match="must be Number, not Tensor"):
                T.full((2,), wrong(T))
    assert made_of_tensors(gradlite)[-1]._version == 0


def test_values_of_tensors_in_a_captured_step() -> None:
    captured = gradlite.capture(
        lambda x: [
            gradlite.tensor([x.sum(), 2.5, x[0].double()]),
            gradlite.full((2,), x.mean()),
            x.clone().fill_(x[1]),
        ]
    )
    for _ in range(7):
        x = gradlite.randn(3)
        first, second, third = captured(x)
        assert first.tolist() == pytest.approx([x.sum().item(), 2.5, x[0].item()], rel=1e-5)
        assert second.tolist() == pytest.approx([x.mean().item()] * 2, rel=1e-5)
        assert third.tolist() == [x[1].item()] * 3
    assert captured.replays == 4
