"""Rearranging, stacking, splitting and triangles: forms of a call, views, messages."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same


def test_messages_of_rearranging() -> None:
    def program(T: Any) -> Any:
        t = T.arange(6).reshape(2, 3)
        return [
            outcome_of(lambda: t.roll((1, 1))),
            outcome_of(lambda: t.roll(1, (0, 1))),
            outcome_of(lambda: t.roll(1, 2)),
            outcome_of(lambda: t.rot90(1, (0, 0))),
            outcome_of(lambda: t.rot90(1, (0,))),
            outcome_of(lambda: T.arange(3).rot90()),
            outcome_of(lambda: T.arange(3).fliplr()),
            outcome_of(lambda: T.tensor(1).flipud()),
            outcome_of(lambda: t.repeat_interleave(T.tensor([1, 2, 3]), dim=0)),
            outcome_of(lambda: t.repeat_interleave(-1)),
            outcome_of(lambda: t.repeat_interleave(T.tensor([1.0]))),
        ]

    same(program, message="exact")


@pytest.mark.parametrize("k", range(-5, 6))
def test_quarter_turns(k: int) -> None:
    def program(T: Any) -> Any:
        t = T.arange(6).reshape(2, 3)
        return t.rot90(k), T.rot90(t, k, (1, 0)), T.rot90(t.reshape(1, 2, 3), k, dims=(-1, 0))

    same(program)


def test_rolling() -> None:
    def program(T: Any) -> Any:
        t = T.arange(6).reshape(2, 3)
        return [
            t.roll(1),
            t.roll(-7),
            t.roll((1, -1), (0, 1)),
            t.roll(2, dims=-1),
            T.roll(t, shifts=(1, 1), dims=(1, 1)),
            T.roll(T.zeros(0, 2), 1, 0),
        ]

    same(program)


def test_tiling() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1, 2], [3, 4]])
        return t.tile(2), t.tile(2, 1), t.tile((2, 1, 2)), T.tile(t, (2, 2)), T.tile(t[0], (0,))

    same(program)


def test_repeating() -> None:
    def program(T: Any) -> Any:
        t = T.tensor([[1, 2], [3, 4]])
        counts = T.tensor([0, 3])
        return [
            t.repeat_interleave(2),
            t.repeat_interleave(2, dim=0),
            t.repeat_interleave(counts, dim=1),
            t.repeat_interleave(T.tensor([2]), 0),
            T.repeat_interleave(counts),
            T.repeat_interleave(t, counts, dim=0, output_size=3),
        ]

    same(program)


def test_meshgrid_without_indexing_warns() -> None:
    same(
        lambda T: T.meshgrid(T.arange(2), T.arange(3)),
        warns="it will be required to pass the indexing argument",
        message="exact",
    )


def test_grids() -> None:
    def program(T: Any) -> Any:
        x, y, z = T.arange(2), T.arange(3), T.tensor(7)
        return (
            T.meshgrid(x, y, indexing="xy"),
            T.meshgrid([x, y, z], indexing="ij"),
            T.cartesian_prod(x, y),
            T.cartesian_prod(x),
            outcome_of(lambda: T.meshgrid(x, y, indexing="zz")),
            outcome_of(lambda: T.meshgrid(x, y.float(), indexing="ij")),
        )

    same(program, message="exact")


@pytest.mark.parametrize("name", ["vstack", "hstack", "dstack", "column_stack", "row_stack"])
def test_stacking(name: str) -> None:
    def program(T: Any) -> Any:
        function = getattr(T, name)
        return (
            function([T.arange(2), T.arange(2) + 5]),
            function([T.ones(2, 2), T.zeros(2, 2)]),
            function((T.tensor(1), T.tensor(2))),
            function([T.ones(2, 2, 1), T.zeros(2, 2, 1)]),
            outcome_of(lambda: function([T.ones(3), T.ones(2, 2)])),
        )

    same(program, message="type")


def test_stacking_nothing() -> None:
    def program(T: Any) -> Any:
        return [outcome_of(lambda f=f: f([])) for f in (T.vstack, T.hstack, T.dstack)]

    same(program, message="exact")


@pytest.mark.parametrize("name", ["atleast_1d", "atleast_2d", "atleast_3d"])
def test_at_least_some_dimensions(name: str) -> None:
    def program(T: Any) -> Any:
        tensors = [T.tensor(1), T.arange(2), T.ones(2, 3), T.ones(1, 2, 3, 4)]
        function = getattr(T, name)
        return [function(t) for t in tensors], function(*tensors), function(tensors)

    same(program)


@pytest.mark.parametrize("where", [1, 3, 9, (1, 3), [2, 2], (3, 1), [-1, 9], (0,), ()], ids=str)
def test_splitting_in_nearly_equal_pieces(where: Any) -> None:
    def program(T: Any) -> Any:
        t = T.arange(10).reshape(2, 5)
        return t.tensor_split(where, 1), T.tensor_split(t, where), T.hsplit(t[:, :3], 3)

    same(program)


def test_pieces_are_views() -> None:
    def program(T: Any) -> Any:
        t = T.arange(4)
        T.tensor_split(t, 2)[1].fill_(9)
        T.vsplit(t.reshape(2, 2), 2)[0].fill_(7)
        return t, T.tensor_split(t, T.tensor([1, 3])), T.tensor_split(t, T.tensor(2))

    same(program)


def test_messages_of_splitting() -> None:
    def program(T: Any) -> Any:
        return [
            outcome_of(lambda: T.tensor_split(T.arange(3), 0)),
            outcome_of(lambda: T.tensor_split(T.tensor(1), 2)),
            outcome_of(lambda: T.hsplit(T.tensor(1), 1)),
            outcome_of(lambda: T.hsplit(T.arange(3), 2)),
            outcome_of(lambda: T.vsplit(T.arange(3), 3)),
            outcome_of(lambda: T.vsplit(T.ones(3, 2), 2)),
            outcome_of(lambda: T.dsplit(T.ones(3, 2), 2)),
        ]

    same(program, message="exact")


@pytest.mark.parametrize("name", ["tril", "triu"])
@pytest.mark.parametrize("diagonal", [-9, -1, 0, 1, 9])
def test_triangles(name: str, diagonal: int) -> None:
    def program(T: Any) -> Any:
        t = T.arange(24.0).reshape(2, 3, 4) + 1
        edited = t.clone()
        getattr(edited, f"{name}_")(diagonal)
        mask = T.full((3, 3), float("-inf"))
        return (
            getattr(t, name)(diagonal),
            edited,
            getattr(T, f"{name}_indices")(3, 4, diagonal),
            getattr(mask, name)(diagonal=diagonal),
            outcome_of(lambda: getattr(T.ones(3), name)()),
        )

    same(program, message="exact")


def test_diagonals() -> None:
    def program(T: Any) -> Any:
        row, matrix = T.arange(3.0), T.arange(6.0).reshape(2, 3)
        return (
            T.diag(row),
            row.diag(-1),
            matrix.diag(1),
            T.diag_embed(matrix, 1, 0, 2),
            matrix.trace(),
            outcome_of(lambda: T.diag(T.ones(2, 2, 2))),
            outcome_of(lambda: T.diag(T.tensor(1.0))),
            outcome_of(lambda: T.diag_embed(matrix, 0, 1, 1)),
            outcome_of(lambda: row.trace()),
        )

    same(program, message="exact")


def test_a_diagonal_is_copied() -> None:
    def program(T: Any) -> Any:
        matrix = T.zeros(2, 2)
        matrix.diag().fill_(1)
        return matrix

    same(program)
