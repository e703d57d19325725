"""Tensor.unfold: windows as a view, and what in-place edits of either do to the other."""

from __future__ import annotations

from typing import Any

import pytest

from tests.library import library
from tests.oracle import same


def test_windows_share_memory_and_version() -> None:
    def program(T: Any) -> Any:
        x = T.arange(6.0)
        windows = x.unfold(0, 2, 2)
        x[2] = 10.0
        windows[0, 1] = 20.0
        return x, windows, x._version, windows._version, windows._base is x

    same(program)


def test_an_edit_of_the_base_reaches_the_gradient_of_its_windows() -> None:
    def program(T: Any) -> Any:
        leaf = T.arange(6.0, requires_grad=True)
        x = leaf * 1
        windows = x.unfold(0, 3, 1)
        x.mul_(T.arange(6.0))
        (windows * windows).sum().backward()
        return leaf.grad, windows

    same(program)


@pytest.mark.parametrize("step", [2, 3])
def test_an_edit_of_the_windows_reaches_the_base(step: int) -> None:
    def program(T: Any) -> Any:
        leaf = T.arange(14.0).reshape(2, 7).requires_grad_()
        x = leaf * 2
        x.unfold(1, 2, step).mul_(T.tensor([3.0, 5.0]))
        (x * x).sum().backward()
        return leaf.grad, x

    same(program)


def test_windows_of_windows() -> None:
    def program(T: Any) -> Any:
        x = T.arange(30.0).reshape(5, 6).requires_grad_()
        patches = x.unfold(0, 3, 1).unfold(1, 2, 2)
        (patches * T.arange(54.0).reshape(3, 3, 3, 2)).sum().backward()
        return patches, patches.stride(), x.grad

    same(program)


def test_windows_of_a_leaf_that_requires_grad_cannot_be_edited() -> None:
    def program(T: Any) -> Any:
        T.ones(4, requires_grad=True).unfold(0, 2, 2).add_(1)

    same(program, raises=RuntimeError)


def test_a_saved_window_that_was_overwritten_is_noticed() -> None:
    def program(T: Any) -> Any:
        x = T.arange(4.0, requires_grad=True) * 1
        y = x.unfold(0, 2, 1).exp()
        z = (y * x.unfold(0, 2, 1)).sum()
        x.add_(1)
        z.backward()

    same(program, raises=RuntimeError, match="modified by an inplace operation")


def test_storage_offsets_count_from_the_memory_that_views_share() -> None:
    x = library.arange(24.0).reshape(4, 6)
    assert x.storage_offset() == 0
    assert x[1:, 2:].storage_offset() == 8
    assert x[1:, 2:].detach().T.storage_offset() == 8
    assert x[2].expand(3, 6).storage_offset() == 12
    assert x[2].clone().storage_offset() == 0
