"""Small methods of Tensor, and memory formats, against PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from gradlite.ops import methods
from tests.library import library
from tests.oracle import same, torch


def images(T: Any) -> Any:
    return T.arange(24.0).reshape(1, 2, 3, 4)


def layout(t: Any) -> Any:
    return tuple(t.stride()), t.is_contiguous()


def resize_and_count(T: Any) -> Any:
    x, y = T.zeros(2), T.zeros(3)
    versions = []
    for change in (
        lambda: x.resize_(1, 2),
        lambda: x.resize_(1, 2),
        lambda: x.resize_as_(y),
        lambda: x.resize_(3),
        lambda: x.resize_as_(y),
    ):
        change()
        versions.append(x._version)
    return versions


PROGRAMS = {
    "flags": lambda T: [getattr(T.ones(1), name) for name in methods.NEVER],
    "questions": lambda T: [getattr(T.ones(1), name)() for name in methods.NEVER_METHODS],
    "itself": lambda T: [
        (lambda t: getattr(t, name)() is t)(T.ones(1))
        for name in ("conj", "resolve_conj", "resolve_neg")
    ],
    "real": lambda T: T.ones(2).real,
    "H": lambda T: (T.ones(2, 3).H, T.ones(4, 2, 3).mH),
    "ger": lambda T: T.arange(3.0).ger(T.arange(2.0)),
    "hardshrink": lambda T: T.tensor([-1.0, 0.2]).hardshrink(),
    "prelu": lambda T: T.tensor([-1.0, 0.2]).prelu(T.tensor([0.5])),
    "unsafe_split": lambda T: T.arange(5).unsafe_split(2),
    "unsafe_chunk": lambda T: T.arange(5).unsafe_chunk(2),
    "fill_diagonal_": lambda T: T.zeros(3, 4).fill_diagonal_(2.5),
    "fill_diagonal_ of a tall one": lambda T: T.zeros(7, 2).fill_diagonal_(1),
    "fill_diagonal_ wrapped": lambda T: T.zeros(7, 2).fill_diagonal_(1, wrap=True),
    "fill_diagonal_ in 3d": lambda T: T.zeros(3, 3, 3).fill_diagonal_(4),
    "resize_": lambda T: T.arange(6).resize_(2, 2),
    "resize_ up": lambda T: T.arange(2).resize_(3)[:2],
    "resize_as_": lambda T: T.arange(6).resize_as_(T.ones(2, 3)),
    "resize_ counts what it changes": resize_and_count,
    "set_": lambda T: T.zeros(3).set_(T.arange(4.0)[1:]),
    "apply_": lambda T: T.arange(4.0).reshape(2, 2).apply_(lambda v: v * 2 + 1),
    "map_": lambda T: T.arange(4.0).map_(T.ones(1), lambda a, b: a + 2 * b),
    "new": lambda T: (T.ones(2).new([1, 2]), T.ones(2).long().new(2, 3).shape[1], T.ones(1).new()),
    "narrow_copy": lambda T: (lambda t: t.narrow_copy(0, 1, 2)._is_view())(T.arange(4)),
    "is_same_size": lambda T: [T.ones(2).is_same_size(T.ones(n)) for n in (2, 3)],
    "is_set_to": lambda T: (lambda t: [t.is_set_to(t.view(4)), t.is_set_to(t[:2])])(T.ones(4)),
    "is_nonzero": lambda T: [T.tensor(v).is_nonzero() for v in (0.0, 3)],
    "ndimension": lambda T: T.ones(2, 3).ndimension(),
    "comparisons in place": lambda T: [
        getattr(T.arange(3.0), f"{name}_")(1.0)
        for name in ("greater", "greater_equal", "less", "less_equal", "not_equal")
    ],
    "swapaxes_": lambda T: T.arange(6).reshape(2, 3).swapaxes_(0, 1),
    "layout": lambda T: str(T.ones(1).layout) == f"{T.__name__}.strided",
}


@pytest.mark.parametrize("name", PROGRAMS)
def test_methods(name: str) -> None:
    same(lambda T: PROGRAMS[name](T))


REFUSED = {
    "H": lambda T: T.ones(2, 2, 2).H,
    "fill_diagonal_ of a vector": lambda T: T.zeros(3).fill_diagonal_(1),
    "fill_diagonal_ of a box": lambda T: T.zeros(2, 3, 2).fill_diagonal_(1),
    "resize_": lambda T: T.ones(2, requires_grad=True).resize_(3),
    "apply_": lambda T: T.ones(2, requires_grad=True).apply_(abs),
    "channels_last of a vector": lambda T: T.ones(3).contiguous(memory_format=T.channels_last),
    "preserve": lambda T: T.ones(2, 3).t().contiguous(memory_format=T.preserve_format),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused(name: str) -> None:
    same(lambda T: REFUSED[name](T), raises=RuntimeError)


def test_a_filled_diagonal_gets_no_gradient() -> None:
    def program(T: Any) -> Any:
        x = T.arange(6.0).reshape(3, 2).requires_grad_()
        y = x * 2
        y.fill_diagonal_(5.0)
        (y * y).sum().backward()
        return x.grad

    same(program)


def test_an_edited_copy_of_a_subclass_shares_memory() -> None:
    class Named(library.Tensor):  # type: ignore[name-defined, misc]
        pass

    x = library.zeros(2)
    named = x.as_subclass(Named)
    named += 1
    assert type(named) is Named and x.tolist() == [1.0, 1.0]


def test_memory_formats() -> None:
    def program(T: Any) -> Any:
        x = images(T).contiguous(memory_format=T.channels_last)
        five = T.ones(1, 2, 3, 4, 5)
        return [
            layout(x),
            [x.is_contiguous(memory_format=f) for f in (T.channels_last, T.contiguous_format)],
            x.contiguous(memory_format=T.channels_last) is x,
            layout(x * 2),
            layout(x.clone()),
            layout(x.clone(memory_format=T.contiguous_format)),
            layout(images(T).clone(memory_format=T.channels_last)),
            layout(x.contiguous()),
            layout(images(T).to(memory_format=T.channels_last)),
            layout(five.contiguous(memory_format=T.channels_last_3d)),
            T.ones(2, 3).is_contiguous(memory_format=T.channels_last),
            x,
        ]

    same(program)


def test_the_gradient_of_a_copy_in_another_format() -> None:
    def program(T: Any) -> Any:
        x = images(T).requires_grad_()
        y = x.contiguous(memory_format=T.channels_last)
        (y * y).sum().backward()
        return y, x.grad

    same(program)


def test_the_formats_are_pytorchs() -> None:
    for name in ("strided", "contiguous_format", "preserve_format", "channels_last"):
        assert repr(getattr(library, name)).rpartition(".")[2] == name
        assert repr(getattr(torch, name)).rpartition(".")[2] == name
