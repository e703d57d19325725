"""Covariances, correlations and histograms; which elements are in a set."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gradlite import dtypes, return_types
from gradlite.ops.choose import clamp
from gradlite.ops.dispatch import same_device
from gradlite.ops.guard import on_its_device
from gradlite.ops.halves import single
from gradlite.ops.layout import row_major
from gradlite.ops.matmul import matmul
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import type_name
from gradlite.ops.operands import cast, placed
from gradlite.ops.samples import S, constant, integers, normal, positive
from gradlite.ops.table import public
from gradlite.tensor import Tensor, wrap

__all__ = ["corrcoef", "cov", "histogram", "isin"]


def _weights(name: str, given: Tensor | None, count: int, floating: bool) -> Any:
    if given is None:
        return None
    array = given.array
    if array.ndim > 1:
        raise RuntimeError(f"cov(): expected {name} to have one or fewer dimensions but got 2")
    if (array.dtype in dtypes.FLOATING) != floating:
        kind = "floating point" if floating else "integral"
        raise RuntimeError(
            f"cov(): expected {name} to have {kind} dtype but got {name} with "
            f"{type_name(array.dtype)} dtype"
        )
    if array.size != count:
        raise RuntimeError(
            f"cov(): expected {name} to have the same numel as there are observations in the "
            f"input but got {array.size} != {count}"
        )
    if array.size and (array < 0).any():
        raise RuntimeError(f"cov(): {name} cannot be negative")
    return given


@public(
    samples=lambda: [
        S(normal(3, 5)),
        S(normal(5)),
        S(normal(3, 5), correction=0),
        S(normal(3, 4), fweights=np.array([1, 2, 3, 1])),
        S(normal(3, 4), aweights=constant(positive(4))),
        S(normal(3, 4), fweights=np.array([1, 2, 3, 1]), aweights=constant(positive(4))),
        S(integers(0, 9, 2, 6), rtol=1e-6),
    ],
    method=True,
    errors=lambda: [
        S(normal(2, 2, 2)),
        S(np.ones((2, 2), bool)),
        S(normal(2, 3), fweights=np.array([1, 2])),
        S(normal(2, 3), fweights=constant(normal(3))),
        S(normal(2, 3), aweights=constant(-positive(3))),
    ],
)
@on_its_device
def cov(
    input: Tensor,
    *,
    correction: int = 1,
    fweights: Tensor | None = None,
    aweights: Tensor | None = None,
) -> Tensor:
    """The covariances of variables, one a row, from observations, one a column.

    Args:
        correction: the divisor is the number of observations minus this.
        fweights: how often each observation was made (integers).
        aweights: how much each observation weighs (floating).

    >>> import gradlite
    >>> gradlite.cov(gradlite.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    x: Any = input
    if x.array.ndim > 2:
        raise RuntimeError(
            f"cov(): expected input to have two or fewer dimensions but got an input with "
            f"{x.array.ndim} dimensions"
        )
    if x.array.dtype == np.bool_:
        raise RuntimeError("cov(): bool dtype is not supported for input")
    x = x if x.array.dtype in dtypes.FLOATING else cast(x, dtypes.get_default_dtype().numpy)
    x = x if x.array.ndim == 2 else x.reshape(1, -1)
    count = x.array.shape[1]
    often = _weights("fweights", fweights, count, False)
    weights = _weights("aweights", aweights, count, True)
    factors = weights if often is None else often if weights is None else often * weights
    if factors is None:
        total: Any = count
        mean = x.mean(1, keepdim=True)
    else:
        total = factors.sum()
        mean = (x * factors).sum(1, keepdim=True) / total
    if often is not None and weights is not None and correction:
        divisor = total - correction * (often * weights * weights).sum() / total
    elif weights is not None and correction:
        divisor = total - correction * (weights * weights).sum() / total
    else:
        divisor = total - correction
    if not isinstance(divisor, Tensor):
        divisor = max(divisor, 0)
    centred = x - mean
    other = centred if factors is None else centred * factors
    result: Any = matmul(centred, other.t()) / divisor
    return result.squeeze()  # type: ignore[no-any-return]


@public(samples=lambda: [S(normal(3, 5)), S(normal(5)), S(normal(2, 4) * 9)], method=True)
def corrcoef(input: Tensor) -> Tensor:
    """Pearson's correlation coefficients of variables, one a row.

    >>> import gradlite
    >>> gradlite.corrcoef(gradlite.tensor([[0.0, 1.0, 2.0], [2.0, 1.0, 0.0]]))
    tensor([[ 1., -1.],
            [-1.,  1.]])
    """
    if input.array.ndim > 2:
        raise RuntimeError(
            f"corrcoef(): expected input to have two or fewer dimensions but got an input with "
            f"{input.array.ndim} dimensions"
        )
    c: Any = cov(input)
    if c.array.ndim == 0:
        return c / c  # type: ignore[no-any-return]
    deviation = c.diag().sqrt()
    return clamp(c / deviation.unsqueeze(1) / deviation.unsqueeze(0), -1.0, 1.0)


def _check_edges(x: Any, edges: Any) -> None:
    if edges.dtype != x.dtype:
        raise RuntimeError(
            "gradlite.histogramdd: input tensor and bins tensors should have the same dtype, but "
            f"got input with dtype {x.dtype} and bins for dimension 0 with dtype {edges.dtype}"
        )
    if edges.ndim != 1:
        raise RuntimeError(
            "gradlite.histogramdd: bins tensor should have one dimension, but got "
            f"{edges.ndim} dimensions in the bins tensor for dimension 0"
        )
    if edges.size == 0:
        raise RuntimeError(
            "gradlite.histogramdd: bins tensor should have at least 1 element, but got 0 elements "
            "in the bins tensor for dimension 0"
        )


def _bounds(x: Any, range: Any) -> tuple[float, float]:
    """From where to where bins of equal width reach."""
    low, high = 0.0, 0.0 if x.size else 1.0
    if range is not None:
        if len(range) != 2:
            raise RuntimeError(
                "gradlite.histogramdd: for a 1-dimensional histogram range should have 2 "
                f"elements, but got {len(range)}"
            )
        low, high = map(float, range)
    elif x.size:
        low, high = float(x.min()), float(x.max())
    if not math.isfinite(low) or not math.isfinite(high):
        raise RuntimeError(
            f"gradlite.histogramdd: dimension 0's range [{low:g}, {high:g}] is not finite"
        )
    if low > high:
        raise RuntimeError(
            "gradlite.histogramdd: min should not exceed max, but got "
            f"min {low:g} max {high:g} for dimension 0"
        )
    return (low - 0.5, high + 0.5) if low == high else (low, high)


@public(
    samples=lambda: [
        S(constant(normal(50)), 6),
        S(constant(normal(50)), 4, range=(-1.0, 1.0)),
        S(constant(normal(50)), constant(np.array([-1.0, 0.0, 0.5, 2.0]))),
        S(constant(normal(50)), 5, weight=constant(positive(50))),
        S(constant(normal(50)), 5, density=True),
        S(constant(np.ones(3)), 4),
    ],
    method=True,
    differentiable=False,
    errors=lambda: [
        S(constant(normal(3)), 0),
        S(np.arange(3), 4),
        S(constant(normal(3)), 2, weight=constant(positive(4))),
    ],
)
@on_its_device
def histogram(
    input: Tensor,
    bins: Any,
    *,
    range: Any = None,
    weight: Tensor | None = None,
    density: bool = False,
) -> Any:
    """``(hist, bin_edges)``: how many elements, or what weight, is in each bin.

    Bins contain their left edge, and the last one its right edge too.

    Args:
        bins: how many of equal width, or their edges as an increasing tensor.
        range: from where to where; by default the elements' own range.
        density: divide by the bins' widths and the total.

    >>> import gradlite
    >>> hist, edges = gradlite.histogram(gradlite.tensor([1.0, 2.0, 1.0]), 4, range=(0.0, 3.0))
    >>> hist
    tensor([0., 2., 1., 0.])
    """
    x = input.array
    counted = isinstance(bins, int) and range is None and x.dtype in dtypes.HALVES
    if x.dtype not in dtypes.FLOATING or counted:
        raise NotImplementedError(f"\"histogram_cpu\" not implemented for '{type_name(x.dtype)}'")
    if isinstance(bins, int) and bins <= 0:
        raise RuntimeError(
            f"gradlite.histogram(): bins must be > 0, but got {bins} for dimension 0"
        )
    if weight is not None and weight.array.dtype != x.dtype:
        raise RuntimeError(
            "gradlite.histogramdd: if weight tensor is provided, input tensor and weight tensor "
            f"should have the same dtype, but got input({input.dtype.name}), and "
            f"weight({weight.dtype.name})"
        )
    if weight is not None and weight.array.shape != x.shape:
        raise RuntimeError(
            "gradlite.histogramdd: if weight tensor is provided it should have the same shape as "
            f"the input tensor excluding its innermost dimension, but got input with shape "
            f"{list(x.shape)} and weight with shape {list(weight.array.shape)}"
        )
    xp = NAMESPACES[x.__class__].xp
    if isinstance(bins, Tensor):
        same_device(input, bins)
        edges = row_major(bins.array).copy()
        _check_edges(x, edges)
    else:
        low, high = _bounds(x, range)
        edges = xp.linspace(low, high, bins + 1, dtype=x.dtype)
    values = None if weight is None else single(weight.array).reshape(-1)
    # CuPy counts no bfloat16.
    counts, _ = xp.histogram(single(x).reshape(-1), single(edges), weights=values)
    counts = counts.astype(x.dtype)
    if density:
        counts = counts / (counts.sum() * xp.diff(edges))
    return return_types.histogram((wrap(counts.astype(x.dtype)), wrap(edges)))


@public(
    samples=lambda: [
        S(integers(0, 9, 3, 4), integers(0, 9, 5)),
        S(integers(0, 9, 3, 4), integers(0, 9, 5), invert=True),
        S(integers(0, 9, 4), 3),
        S(3, integers(0, 9, 4)),
        S(constant(np.array([0.5, 1.0])), np.array([1, 2])),
        S(np.array([1, 2]), np.zeros(0, np.int64)),
    ],
    differentiable=False,
)
@on_its_device
def isin(
    elements: Any, test_elements: Any, *, assume_unique: bool = False, invert: bool = False
) -> Tensor:
    """Whether each element is among those of another tensor; whether not, with ``invert``.

    >>> import gradlite
    >>> gradlite.isin(gradlite.tensor([1, 2, 3]), gradlite.tensor([2, 9]))
    tensor([False,  True, False])
    """
    tensor = elements if isinstance(elements, Tensor) else test_elements
    xp = NAMESPACES[tensor.array.__class__].xp
    a, b = (placed(xp, getattr(v, "array", v)) for v in (elements, test_elements))
    return wrap(xp.asarray(xp.isin(a, b, invert=invert)))
