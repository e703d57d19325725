"""Order: sort, topk, kthvalue, unique, searchsorted."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import return_types
from gradlite.ops.dims import wrap_dim
from gradlite.ops.dispatch import apply
from gradlite.ops.extrema import Pick
from gradlite.ops.gather import Along, check_bounds, check_tensor
from gradlite.ops.guard import on_its_device
from gradlite.ops.halves import single
from gradlite.ops.layout import row_major
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import type_name
from gradlite.ops.operands import same_device_or_scalar
from gradlite.ops.samples import S, bools, constant, distinct, integers
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = [
    "argsort",
    "bucketize",
    "kthvalue",
    "msort",
    "searchsorted",
    "sort",
    "topk",
    "unique",
    "unique_consecutive",
]


FEW = 512  # elements, which are sorted sooner than parted
PART = 16  # numbers, of which only the largest counts at first


class Sort(Along):
    grad_name = "SortBackward0"


class Topk(Along):
    grad_name = "TopkBackward0"


class Kthvalue(Pick):
    grad_name = "KthvalueBackward0"


@on_its_device
def order_of(xp: Any, x: Any, dim: int, descending: bool, stable: bool = False) -> Any:
    """The indices that sort along a dimension; NaN is the largest."""
    if x.ndim == 0:
        return xp.zeros((), np.int64)
    options = {"kind": "stable"} if stable and xp is np else {}
    x = single(x)
    if not descending:
        return row_major(x.argsort(dim, **options))
    # Reversed twice, so that ties keep their order and NaNs come first.
    backwards = (slice(None),) * dim + (slice(None, None, -1),)
    order = x[backwards].argsort(dim, **options)
    return xp.ascontiguousarray(x.shape[dim] - 1 - order[backwards])


def _samples() -> list[Any]:
    return [
        S(distinct(3, 4)),
        S(distinct(3, 4), 0),
        S(distinct(3, 4), -1, True),
        S(distinct(2, 3, 4), dim=1, descending=True),
        S(distinct(5), stable=True),
        S(distinct()),
        S(distinct(0, 3), 1),
        S(integers(0, 3, 20), descending=True, stable=True),
        S(integers(0, 3, 20), stable=True),
        S(bools(5)),
        S(np.array([2.0, np.nan, 1.0, np.nan, 3.0]), stable=True, smooth=False),
        S(
            np.array([2.0, np.nan, 1.0, np.nan, 3.0]),
            dim=0,
            descending=True,
            stable=True,
            smooth=False,
        ),
    ]


@public(samples=_samples, method=True, errors=lambda: [S(distinct(3), 1)])
def sort(input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False) -> Any:
    """The elements in order along a dimension, with the indices they came from.

    Ties keep their order when ``stable`` is set; NaN counts as the largest.

    >>> import gradlite
    >>> values, indices = gradlite.sort(gradlite.tensor([3.0, 1.0, 2.0]))
    >>> values, indices
    (tensor([1., 2., 3.]), tensor([1, 2, 0]))
    """
    d = wrap_dim(dim, input.array.ndim)
    index = argsort(input, d, descending, stable=stable)
    return return_types.sort((apply(Sort, (input, index), d), index))


@public(samples=_samples, method=True, differentiable=False, errors=lambda: [S(distinct(3), 1)])
def argsort(
    input: Tensor, dim: int = -1, descending: bool = False, *, stable: bool = False
) -> Tensor:
    """The indices that sort along a dimension.

    >>> import gradlite
    >>> gradlite.argsort(gradlite.tensor([3.0, 1.0, 2.0]))
    tensor([1, 2, 0])
    """
    array = input.array
    xp = NAMESPACES[array.__class__].xp
    return wrap(order_of(xp, array, wrap_dim(dim, array.ndim), descending, stable))


@public(samples=lambda: [S(distinct(3, 4)), S(distinct(5)), S(integers(0, 3, 4, 2))], method=True)
def msort(input: Tensor) -> Tensor:
    """The elements in ascending order along the first dimension.

    >>> import gradlite
    >>> gradlite.msort(gradlite.tensor([[3, 1], [2, 5]]))
    tensor([[2, 1],
            [3, 5]])
    """
    return sort(input, 0).values  # type: ignore[no-any-return]


@public(
    samples=lambda: [
        S(distinct(3, 8), 3),
        S(distinct(3, 8), 3, largest=False),
        S(distinct(8, 3), 2, 0),
        S(distinct(8, 3), 8, 0, False),
        S(distinct(5), 0),
        S(distinct(), 1),
        S(np.array([2.0, np.nan, 1.0, 3.0]), 2, smooth=False),
        S(np.array([2.0, np.nan, 1.0, 3.0]), 2, largest=False, smooth=False),
        S(np.arange(9)[::-1].copy(), 4),
    ],
    method=True,
    errors=lambda: [S(distinct(3), 4), S(distinct(3), -1), S(distinct(3), 1, 1)],
)
@on_its_device
def topk(input: Tensor, k: int, dim: int = -1, largest: bool = True, sorted: bool = True) -> Any:
    """The k largest (or smallest) elements along a dimension in order, with their indices.

    >>> import gradlite
    >>> values, indices = gradlite.topk(gradlite.tensor([3.0, 1.0, 4.0, 2.0]), 2)
    >>> values, indices
    (tensor([4., 3.]), tensor([2, 0]))

    Raises:
        RuntimeError: k is negative or larger than the dimension.
    """
    array = input.array
    if isinstance(dim, bool):
        raise TypeError("topk(): argument 'dim' (position 2) must be int, not bool")
    d = wrap_dim(dim, array.ndim)
    n = array.shape[d] if array.ndim else 1
    if not 0 <= k <= n:
        raise RuntimeError("selected index k out of range")
    if array.dtype == np.bool_:
        raise RuntimeError("topk does not support bool dtypes on CPU")
    xp = NAMESPACES[array.__class__].xp
    if array.ndim == 0:
        index = xp.zeros((), np.int64)
    elif xp is np and 0 < k < n // 4 and array.size > FEW:
        array = single(array)
        index = _first_by_parts(array, k, d, largest)
        if index is None:
            index = _first_by_partition(array, k, d, largest)
    else:
        order = order_of(xp, array, d, largest, array.size <= FEW)
        index = order[(slice(None),) * d + (slice(0, k),)]
    places = wrap(xp.ascontiguousarray(index).reshape(index.shape))
    return return_types.topk((apply(Topk, (input, places), d), places))


def _first_by_partition(x: Any, k: int, d: int, largest: bool) -> Any:
    n = x.shape[d]
    where = x.argpartition(n - k if largest else k - 1, d)
    part = (slice(None),) * d + (slice(n - k, n) if largest else slice(0, k),)
    where = where[part].copy()
    where.sort(d)
    take = np.take if x.ndim == 1 else np.take_along_axis
    return take(where, order_of(np, take(x, where, d), d, largest), d)


def _first_by_parts(x: Any, k: int, d: int, largest: bool) -> Any:
    """The same for few of many numbers, or None where some are equal, NaN, or too many remain.

    The k-th largest of the maxima of parts is no larger than the k-th largest of all, so that few
    numbers have to be put in order: to find them costs two looks at all. Without equal numbers
    there is one order, which the other way has too.
    """
    n = x.shape[d]
    count = n // PART
    if x.__class__ is not np.ndarray or x.dtype.kind != "f" or count < 2 * k or n < FEW // 2:
        return None
    shape = (*x.shape[:d], *x.shape[d + 1 :])
    rows = np.ascontiguousarray(np.moveaxis(x, d, -1)).reshape(-1, n)
    if not largest:
        rows = -rows
    maxima = rows[:, : count * PART].reshape(-1, PART, count).max(1)
    if np.isnan(maxima).any() or (n % PART and np.isnan(rows[:, count * PART :]).any()):
        return None
    bounds = np.partition(maxima, count - k, 1)[:, count - k, None]
    found = np.flatnonzero(rows >= bounds)
    if found.size > 16 * k * len(rows):
        return None
    row, values = found // n, rows.reshape(-1)[found]
    order = np.lexsort((-values, row))
    row, values = row[order], values[order]
    if ((values[1:] == values[:-1]) & (row[1:] == row[:-1])).any():
        return None
    starts = np.searchsorted(row, np.arange(len(rows)))
    index = (found[order] % n)[starts[:, None] + np.arange(k)]
    return np.moveaxis(index.reshape(*shape, k), -1, d)


@public(
    samples=lambda: [
        S(distinct(3, 8), 3),
        S(distinct(3, 8), 1, 0, True),
        S(distinct(5), 5),
        S(distinct(), 1),
        S(np.array([2.0, np.nan, 1.0]), 3, smooth=False),
    ],
    method=True,
    errors=lambda: [S(distinct(3), 4), S(distinct(3), 0), S(distinct(3), 1, 1)],
)
@on_its_device
def kthvalue(input: Tensor, k: int, dim: int = -1, keepdim: bool = False) -> Any:
    """The k-th smallest element along a dimension (k counts from 1), with its index.

    >>> import gradlite
    >>> gradlite.kthvalue(gradlite.tensor([3.0, 1.0, 2.0]), 2).values
    tensor(2.)
    """
    array = input.array
    d = wrap_dim(dim, array.ndim)
    if array.ndim and array.shape[d] == 0:
        raise IndexError(f"kthvalue(): Expected reduction dim {d} to have non-zero size.")
    if array.dtype == np.bool_ and array.ndim:
        raise NotImplementedError("\"kthvalue_cpu\" not implemented for 'Bool'")
    if not 1 <= k <= (array.shape[d] if array.ndim else 1):
        raise RuntimeError(f"kthvalue(): selected number k out of range for dimension {d}")
    xp = NAMESPACES[array.__class__].xp
    if xp is np and array.ndim:
        order = single(array).argpartition(k - 1, d)
    else:
        order = order_of(xp, array, d, False)
    before = (slice(None),) * d
    index = order[(*before, slice(k - 1, k) if keepdim else k - 1)] if array.ndim else order
    places = wrap(xp.ascontiguousarray(index).reshape(index.shape))
    return return_types.kthvalue((apply(Kthvalue, (input, places), d), places))


# ----------------------------------------------------------------------------- distinct
@public(
    samples=lambda: [
        S(integers(0, 5, 12)),
        S(integers(0, 5, 3, 4), return_inverse=True),
        S(integers(0, 5, 12), return_counts=True),
        S(integers(0, 5, 3, 4), True, True, True),
        S(integers(0, 2, 6, 2), dim=0, return_inverse=True, return_counts=True),
        S(integers(0, 2, 2, 6), dim=1, return_inverse=True),
        S(bools(5)),
        S(constant(np.array([2.0, np.nan, 1.0, np.nan]))),
        S(np.zeros(0, np.int64), return_counts=True),
        S(np.array(3), return_inverse=True),
    ],
    method=True,
    differentiable=False,
)
@on_its_device
def unique(
    input: Tensor,
    sorted: bool = True,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The distinct elements in order (always sorted), or the distinct slices along ``dim``.

    With ``return_inverse``, also where each element went; with ``return_counts``, also how often
    each one occurs. NaNs differ from each other.

    >>> import gradlite
    >>> gradlite.unique(gradlite.tensor([3, 1, 3]), return_counts=True)
    (tensor([1, 3]), tensor([1, 2]))
    """
    array = input.array
    xp = NAMESPACES[array.__class__].xp
    _check_slices(array, dim)
    axis = None if dim is None else wrap_dim(dim, array.ndim)
    values, inverse, counts = xp.unique(
        single(array), return_inverse=True, return_counts=True, axis=axis, equal_nan=False
    )
    values = values.astype(array.dtype, copy=False)
    shape = array.shape if axis is None else (array.shape[axis],)
    return _results(values, inverse.reshape(shape), counts, return_inverse, return_counts)


def _check_slices(array: Any, dim: int | None) -> None:
    """Refuse dimensions along which there are no distinct slices to find."""
    if dim is None:
        return
    if array.ndim == 0:
        raise IndexError(f"Dimension specified as {dim} but tensor has no dimensions")
    d = wrap_dim(dim, array.ndim)
    if array.shape[d] and not array.size:
        raise RuntimeError(
            "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied"
        )


def _results(values: Any, inverse: Any, counts: Any, *wanted: bool) -> Any:
    extra = [a for a, want in zip((inverse, counts), wanted) if want]
    found = tuple(wrap(a) for a in (values, *(e.astype(np.int64) for e in extra)))
    return found if extra else found[0]


@public(
    samples=lambda: [
        S(np.array([1, 1, 2, 2, 1, 3])),
        S(np.array([1, 1, 2, 2, 1, 3]), True, True),
        S(np.array([[1, 1], [2, 1]]), return_inverse=True),
        S(np.array([[1, 1], [1, 1], [2, 1]]), dim=0, return_counts=True),
        S(np.zeros(0, np.int64), return_counts=True),
    ],
    method=True,
    differentiable=False,
)
@on_its_device
def unique_consecutive(
    input: Tensor,
    return_inverse: bool = False,
    return_counts: bool = False,
    dim: int | None = None,
) -> Any:
    """The elements (or slices along ``dim``) without those equal to the one before.

    >>> import gradlite
    >>> gradlite.unique_consecutive(gradlite.tensor([1, 1, 2, 1]))
    tensor([1, 2, 1])
    """
    array = input.array
    xp = NAMESPACES[array.__class__].xp
    _check_slices(array, dim)
    d = 0 if dim is None else wrap_dim(dim, array.ndim)
    rows = array.reshape(-1) if dim is None else xp.moveaxis(array, d, 0)
    n = rows.shape[0]
    if dim is not None and n and not array.size:
        raise RuntimeError(
            "There are 0 sized dimensions, and they aren't selected, so unique cannot be applied"
        )
    first = xp.ones(n, bool)
    if n > 1:
        first[1:] = (rows[1:] != rows[:-1]).reshape(n - 1, -1).any(axis=1)
    starts = first.nonzero()[0]
    values = rows[starts] if dim is None else xp.moveaxis(rows[starts], 0, d)
    inverse = xp.cumsum(first) - 1
    if dim is None:
        inverse = inverse.reshape(array.shape)
    counts = xp.diff(xp.append(starts, n))
    return _results(values, inverse, counts, return_inverse, return_counts)


# ---------------------------------------------------------------------------- searching
def _check_sorter(rows: Any, sorter: Any) -> None:
    what = "gradlite.searchsorted(): "
    if sorter.shape != rows.shape:
        raise RuntimeError(
            f"{what}boundary and sorter must have the same size, but got boundary tensor "
            f"{list(rows.shape)}and got sorter tensor {list(sorter.shape)}"
        )
    if sorter.dtype != np.int64:
        raise RuntimeError(
            f"{what}sorter must be a tensor of long dtype but got dtype {type_name(sorter.dtype)}"
        )
    if sorter.size:
        text = f"{what}sorter index out of range"
        check_bounds("searchsorted", sorter, -1, sorter.shape[-1], text=text)


@public(
    samples=lambda: [
        S(np.array([1.0, 2.0, 2.0, 3.0]), np.array([[2.0, 5.0], [0.0, 2.5]])),
        S(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 5.0]), right=True),
        S(np.array([1.0, 2.0, 2.0, 3.0]), np.array([2.0, 5.0]), side="right", out_int32=True),
        S(np.array([1.0, 2.0, 3.0]), 2.0),
        S(np.array([1, 2, 3]), np.array([2.5, 1.0])),
        S(np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]]), np.array([[2.0, 5.0], [2.0, 3.0]])),
        S(np.array([3.0, 1.0, 2.0]), np.array([2.0, 5.0]), sorter=np.array([1, 2, 0])),
    ],
    differentiable=False,
    errors=lambda: [
        S(np.array([1.0]), np.array([2.0]), side="x"),
        S(np.array([1.0]), np.array([2.0]), side="left", right=True),
        S(np.array([[1.0], [2.0]]), np.array([2.0])),
        S(np.array([1.0, 2.0]), np.array([2.0]), sorter=np.array([0, 2])),
        S(np.array([1.0, 2.0]), np.array([2.0]), sorter=np.array([-1, 0])),
        S(np.array([1.0, 2.0]), np.array([2.0]), sorter=np.array([0])),
        S(np.array([1.0, 2.0]), np.array([2.0]), sorter=np.array([0, 1], np.int32)),
    ],
)
@on_its_device
def searchsorted(
    sorted_sequence: Tensor,
    input: Any,
    *,
    out_int32: bool = False,
    right: bool = False,
    side: str | None = None,
    sorter: Tensor | None = None,
) -> Tensor:
    """Where values would go in an ascending sequence (row by row when it has dimensions).

    The place is before equal elements, or after them with ``right`` (``side="right"``).

    >>> import gradlite
    >>> gradlite.searchsorted(gradlite.tensor([1.0, 2.0, 3.0]), gradlite.tensor([2.0, 5.0]))
    tensor([1, 3])
    """
    check_tensor("searchsorted", "sorted_sequence", 1, sorted_sequence)
    if side not in (None, "left", "right"):
        raise RuntimeError(
            f"gradlite.searchsorted(): side can only be 'left' or 'right' but got {side}"
        )
    if side == "left" and right:
        raise RuntimeError(
            "gradlite.searchsorted(): side and right can't be set to opposites, got side of left "
            "while right was True"
        )
    rows = sorted_sequence.array
    F = NAMESPACES[rows.__class__]
    xp = F.xp
    if isinstance(input, Tensor):
        values = same_device_or_scalar(input, sorted_sequence)[0].array
    else:
        values = xp.asarray(input)
    if rows.ndim != 1 and rows.shape[:-1] != values.shape[:-1]:
        raise RuntimeError(
            "gradlite.searchsorted(): boundaries tensor should be 1 dimension or the first N-1 "
            "dimensions of boundaries tensor and input value tensor must match, but we got "
            f"boundaries tensor {list(rows.shape)} and input value tensor {list(values.shape)}"
        )
    if sorter is not None:
        _check_sorter(rows, sorter.array)
        rows = F.gather(rows, sorter.array, rows.ndim - 1)
    rows, values = single(rows), single(values)
    where = "right" if right or side == "right" else "left"
    if rows.ndim == 1:
        found = xp.searchsorted(rows, values, side=where)
    else:
        flat, wanted = rows.reshape(-1, rows.shape[-1]), values.reshape(-1, values.shape[-1])
        found = xp.stack([xp.searchsorted(r, v, side=where) for r, v in zip(flat, wanted)])
        found = found.reshape(values.shape)
    return wrap(xp.asarray(found, dtype=np.int32 if out_int32 else np.int64))


@public(
    samples=lambda: [
        S(np.array([[2.0, 5.0], [0.0, 2.5]]), np.array([1.0, 2.0, 3.0])),
        S(np.array([2.0, 5.0]), np.array([1.0, 2.0, 3.0]), right=True, out_int32=True),
        S(2, np.array([1.0, 2.0, 3.0])),
    ],
    differentiable=False,
    errors=lambda: [S(np.array([2.0]), np.array([[1.0]]))],
)
def bucketize(
    input: Any, boundaries: Tensor, *, out_int32: bool = False, right: bool = False
) -> Tensor:
    """The index of the bucket between ascending boundaries that each value falls in.

    >>> import gradlite
    >>> gradlite.bucketize(gradlite.tensor([0.5, 1.5]), gradlite.tensor([1.0, 2.0]))
    tensor([0, 1])
    """
    check_tensor("bucketize", "boundaries", 2, boundaries)
    if boundaries.array.ndim != 1:
        raise RuntimeError(
            f"boundaries tensor must be 1 dimension, but got dim({boundaries.array.ndim})"
        )
    return searchsorted(boundaries, input, out_int32=out_int32, right=right)
