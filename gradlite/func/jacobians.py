"""jacrev, jacfwd and hessian: Jacobians of functions of Tensors."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gradlite.autograd.strict import unit_vectors, zeros
from gradlite.func.arguments import Argnums
from gradlite.func.transforms import (
    JVP,
    Evaluation,
    check_floating,
    pulled_back,
    pushed_forward,
)
from gradlite.ops.joining import stack
from gradlite.tensor import Tensor
from gradlite.utils._pytree import tree_unflatten

__all__ = ["hessian", "jacfwd", "jacrev"]


def jacrev(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    *,
    has_aux: bool = False,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """The function that computes the Jacobian of another, a backward pass per output element.

    Args:
        argnums: the argument to differentiate by, or a tuple of several.
        has_aux: the function returns ``(output, aux)``, and the Jacobian's ``(jacobian, aux)``.
        chunk_size: accepted; the passes run one by one.

    Returns:
        A function of the same arguments. It returns, in the structure of the output, the
        structure of the chosen arguments, of Tensors of both shapes, the output's first.

    >>> import gradlite
    >>> gradlite.func.jacrev(lambda x: x**2)(gradlite.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if not (chunk_size is None or chunk_size > 0):
        raise ValueError("jacrev: `chunk_size` should be greater than 0.")

    @functools.wraps(func)
    def wrapper(*args: Any) -> Any:
        at = Evaluation(func, args, argnums, has_aux, "vjp(f, *primals)")
        check_floating(at.outputs)
        blocks = []
        for output in at.outputs:
            rows = [pulled_back(at, (output,), (v,)) for v in unit_vectors(output)]
            blocks.append(
                [
                    _joined([row[i] for row in rows], output, point)
                    for i, point in enumerate(at.points)
                ]
            )
        return _result(at, blocks, has_aux)

    return wrapper


def jacfwd(
    func: Callable[..., Any],
    argnums: Argnums = 0,
    has_aux: bool = False,
    *,
    randomness: str = "error",
) -> Callable[..., Any]:
    """The function that computes the Jacobian of another, column by column.

    One evaluation of the function and one backward pass per element of the arguments, which is
    less work than `jacrev` when there are fewer of these than output elements. For arguments and
    results see `jacrev`; ``randomness`` is accepted.
    """

    @functools.wraps(func)
    def wrapper(*args: Any) -> Any:
        at = Evaluation(func, args, argnums, has_aux, JVP)
        stand_ins, transposed = at.transpose()
        blocks: list[list[Tensor]] = [[] for _ in at.outputs]
        for point, image in zip(at.points, transposed):
            columns = [
                pushed_forward(at, stand_ins, (image,), (v,), retain_graph=True)
                for v in unit_vectors(point)
            ]
            for nr, output in enumerate(at.outputs):
                blocks[nr].append(_side_by_side([c[nr] for c in columns], output, point))
        return _result(at, blocks, has_aux)

    return wrapper


def hessian(func: Callable[..., Any], argnums: Argnums = 0) -> Callable[..., Any]:
    """The function that computes the second derivatives of another: `jacfwd` of `jacrev`.

    >>> import gradlite
    >>> gradlite.func.hessian(lambda x: (x**3).sum())(gradlite.tensor([1.0, 2.0]))
    tensor([[ 6.,  0.],
            [ 0., 12.]])
    """
    return jacfwd(jacrev(func, argnums), argnums)


def _joined(rows: list[Tensor], output: Tensor, point: Tensor) -> Tensor:
    shape = (*output.array.shape, *point.array.shape)
    if not rows:
        return zeros(point).new_zeros(shape)  # type: ignore[attr-defined,no-any-return]
    return stack(rows).reshape(shape)  # type: ignore[attr-defined,no-any-return]


def _side_by_side(columns: list[Tensor], output: Tensor, point: Tensor) -> Tensor:
    shape = (*output.array.shape, *point.array.shape)
    if not columns:
        return zeros(output).new_zeros(shape)  # type: ignore[attr-defined,no-any-return]
    return stack(columns, -1).reshape(shape)  # type: ignore[attr-defined,no-any-return]


def _result(at: Evaluation, blocks: Sequence[Sequence[Tensor]], has_aux: bool) -> Any:
    rows = [tree_unflatten(row, at.spec) for row in blocks]
    result = tree_unflatten(rows, at.out_spec)
    return (result, at.aux) if has_aux else result
