"""Joining and splitting by NumPy's names: vstack, hstack, tensor_split, atleast_2d, ..."""

from __future__ import annotations

import builtins
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.ops.dims import wrap_dim
from gradlite.ops.joining import NO_SEQUENCE, cat, narrow
from gradlite.ops.keywords import other_keywords
from gradlite.ops.op import type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.shape import unsqueeze
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = [
    "atleast_1d",
    "atleast_2d",
    "atleast_3d",
    "column_stack",
    "dsplit",
    "dstack",
    "hsplit",
    "hstack",
    "row_stack",
    "tensor_split",
    "vsplit",
    "vstack",
]

_overloads = other_keywords(
    sections="indices_or_sections",
    indices="indices_or_sections",
    tensor_indices_or_sections="indices_or_sections",
)


# ---------------------------------------------------------------------------- stacking
def parts_of(tensors: Any) -> list[Tensor]:
    """Tensors given one by one or as one sequence."""
    if len(tensors) == 1 and isinstance(tensors[0], (list, tuple)):
        return list(tensors[0])
    return list(tensors)


def _each(function: Any, tensors: Any) -> Any:
    parts = parts_of(tensors)
    if len(parts) == 1 and isinstance(tensors[0], Tensor):
        return function(parts[0])
    return tuple(function(part) for part in parts)


def _at_least_1d(input: Any) -> Tensor:
    return input if input.array.ndim else input.reshape(1)  # type: ignore[no-any-return]


def _at_least_2d(input: Any) -> Tensor:
    return input if input.array.ndim > 1 else unsqueeze(_at_least_1d(input), 0)


def _at_least_3d(input: Any) -> Tensor:
    return input if input.array.ndim > 2 else unsqueeze(_at_least_2d(input), -1)


@public(samples=lambda: [S(normal()), S(normal(2)), S([normal(), normal(2, 2)])])
def atleast_1d(*tensors: Any) -> Any:
    """Views with at least one dimension.

    >>> import gradlite
    >>> gradlite.atleast_1d(gradlite.tensor(1))
    tensor([1])
    """
    return _each(_at_least_1d, tensors)


@public(samples=lambda: [S(normal()), S(normal(2)), S([normal(), normal(2, 2, 2)])])
def atleast_2d(*tensors: Any) -> Any:
    """Views with at least two dimensions, new ones in front.

    >>> import gradlite
    >>> gradlite.atleast_2d(gradlite.tensor([1, 2])).shape
    gradlite.Size([1, 2])
    """
    return _each(_at_least_2d, tensors)


@public(samples=lambda: [S(normal()), S(normal(2)), S([normal(2, 3), normal(2, 2, 2)])])
def atleast_3d(*tensors: Any) -> Any:
    """Views with at least three dimensions: (n) becomes (1, n, 1) and (n, m) becomes (n, m, 1).

    >>> import gradlite
    >>> gradlite.atleast_3d(gradlite.tensor([1, 2])).shape
    gradlite.Size([1, 2, 1])
    """
    return _each(_at_least_3d, tensors)


def _nonempty(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if isinstance(tensors, Tensor):
        raise TypeError(NO_SEQUENCE.format(name))
    parts = list(tensors)
    if not parts:
        raise RuntimeError(f"{name} expects a non-empty TensorList")
    return parts


@public(
    samples=lambda: [S([normal(3), normal(3)]), S([normal(1, 3), normal(2, 3)])],
    errors=lambda: [S([])],
)
def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the first dimension; vectors become rows.

    >>> import gradlite
    >>> gradlite.vstack([gradlite.tensor([1, 2]), gradlite.tensor([3, 4])])
    tensor([[1, 2],
            [3, 4]])
    """
    return cat([_at_least_2d(t) for t in _nonempty("vstack", tensors)], 0)


@public(
    samples=lambda: [
        S([normal(3), normal(2)]),
        S([normal(2, 1), normal(2, 3)]),
        S([normal(), normal()]),
    ],
    errors=lambda: [S([])],
)
def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the second dimension, vectors along their only one.

    >>> import gradlite
    >>> gradlite.hstack([gradlite.tensor([1, 2]), gradlite.tensor([3])])
    tensor([1, 2, 3])
    """
    parts = [_at_least_1d(t) for t in _nonempty("hstack", tensors)]
    return cat(parts, 0 if parts[0].array.ndim == 1 else 1)


@public(
    samples=lambda: [S([normal(3), normal(3)]), S([normal(2, 3, 1), normal(2, 3, 2)])],
    errors=lambda: [S([])],
)
def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the third dimension.

    >>> import gradlite
    >>> gradlite.dstack([gradlite.tensor([1, 2]), gradlite.tensor([3, 4])])
    tensor([[[1, 3],
             [2, 4]]])
    """
    return cat([_at_least_3d(t) for t in _nonempty("dstack", tensors)], 2)


@public(
    samples=lambda: [
        S([normal(3), normal(3)]),
        S([normal(3), normal(3, 2)]),
        S([normal(), normal()]),
    ]
)
def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Join tensors along the second dimension; vectors become columns.

    >>> import gradlite
    >>> gradlite.column_stack([gradlite.tensor([1, 2]), gradlite.tensor([3, 4])])
    tensor([[1, 3],
            [2, 4]])
    """
    parts: list[Any] = _nonempty("column_stack", tensors)
    return hstack([p if p.array.ndim > 1 else p.reshape(p.array.size, 1) for p in parts])


row_stack = vstack


# ---------------------------------------------------------------------------- splitting
@public(
    samples=lambda: [
        S(normal(7), 3),
        S(normal(7), (1, 5)),
        S(normal(2, 4), 3, dim=1),
        S(normal(7), [1, 10, 3]),
        S(normal(2), 4),
    ],
    method=True,
    errors=lambda: [S(normal(7), 0), S(normal(), 2), S(normal(3), 2, 1)],
)
@_overloads
def tensor_split(input: Tensor, indices_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of ``n`` pieces of nearly equal size, or of the pieces between indices.

    >>> import gradlite
    >>> gradlite.tensor_split(gradlite.arange(5), 2)
    (tensor([0, 1, 2]), tensor([3, 4]))
    """
    if input.array.ndim == 0:
        raise RuntimeError(
            "tensor_split expected at least a 1-dimensional tensor, but got a tensor with 0 dims"
        )
    d = wrap_dim(dim, input.array.ndim)
    n = input.array.shape[d]
    if isinstance(indices_or_sections, Tensor):
        indices = indices_or_sections.array
        if indices.dtype != np.int64:
            raise RuntimeError(
                "tensor_split expected tensor_indices_or_sections to have dtype of long, but got "
                f"{type_name(indices.dtype)}"
            )
        if indices.ndim > 1:
            raise RuntimeError(
                "tensor_split expected tensor_indices_or_sections to be a zero-dimensional or "
                f"one-dimensional tensor, but got a tensor with {indices.ndim} dims"
            )
        indices_or_sections = indices_or_sections.tolist()
    if isinstance(indices_or_sections, int):
        count = indices_or_sections
        if count <= 0:
            raise RuntimeError(f"number of sections must be larger than 0, got {count}")
        short, longer = divmod(n, count)
        bounds = [0]
        for place in range(count):
            bounds.append(bounds[-1] + short + (place < longer))
    else:
        bounds = [0, *(slice(0, int(i)).indices(n)[1] for i in indices_or_sections), n]
    pairs = zip(bounds[:-1], bounds[1:])
    return tuple(narrow(input, d, a, builtins.max(b - a, 0)) for a, b in pairs)


def _nsplit(name: str, input: Tensor, indices_or_sections: Any, dim: int) -> tuple[Tensor, ...]:
    n = input.array.ndim
    if n <= (0 if name == "hsplit" else dim):
        least = {"hsplit": 1, "vsplit": 2, "dsplit": 3}[name]
        raise RuntimeError(
            f"gradlite.{name} requires a tensor with at least {least} dimension, "
            f"but got a tensor with {n} dimensions!"
        )
    if isinstance(indices_or_sections, str):
        raise TypeError(
            f"{name}() received an invalid combination of arguments - got (Tensor, str), but "
            "expected one of:\n * (Tensor input, int sections)\n * (Tensor input, tuple of ints "
            "indices)\n"
        )
    if isinstance(indices_or_sections, int):
        size = input.array.shape[dim]
        if indices_or_sections <= 0 or size % indices_or_sections:
            raise RuntimeError(
                f"gradlite.{name} attempted to split along dimension {dim}, but the size of the "
                f"dimension {size} is not divisible by the split_size {indices_or_sections}!"
            )
    return tensor_split(input, indices_or_sections, dim)


@public(
    samples=lambda: [S(normal(4), 2), S(normal(2, 4), (1, 3))],
    method=True,
    errors=lambda: [S(normal(), 1), S(normal(4), 3)],
)
@_overloads
def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the second dimension, of vectors along their only one.

    >>> import gradlite
    >>> gradlite.hsplit(gradlite.arange(4), 2)
    (tensor([0, 1]), tensor([2, 3]))
    """
    return _nsplit("hsplit", input, indices_or_sections, 0 if input.array.ndim == 1 else 1)


@public(samples=lambda: [S(normal(4, 2), 2)], method=True, errors=lambda: [S(normal(4), 2)])
@_overloads
def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the first dimension.

    >>> import gradlite
    >>> gradlite.vsplit(gradlite.tensor([[1], [2]]), 2)
    (tensor([[1]]), tensor([[2]]))
    """
    if input.array.ndim < 2:
        return _nsplit("vsplit", input, indices_or_sections, 1)
    return _nsplit("vsplit", input, indices_or_sections, 0)


@public(samples=lambda: [S(normal(1, 2, 4), 2)], method=True, errors=lambda: [S(normal(4, 2), 2)])
@_overloads
def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """`tensor_split` along the third dimension.

    >>> import gradlite
    >>> len(gradlite.dsplit(gradlite.ones(1, 1, 4), 2))
    2
    """
    return _nsplit("dsplit", input, indices_or_sections, 2)
