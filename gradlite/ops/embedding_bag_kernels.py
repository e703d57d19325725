"""Bags of rows of a look-up table as one op, with kernels and with NumPy.

``kernels/embedding_bag.cu`` says what the kernels compute. Where a bag starts stays on the device,
and so does the check of the indices.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.ops import bags as rules
from gradlite.ops import indexing
from gradlite.ops.dispatch import gradients_of
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.tensor import Tensor, wrap

MODES = ("sum", "mean", "max")


def _noted(K: Any) -> Any:
    return K.errors("embedding_bag", "index", "offset")


class EmbeddingBag(Op):
    """(rows, columns) and indices in one row -> (bags, columns).

    Where each bag starts may be followed by where the last one ends, which kernels look at.

    aux: how many rows there are in each bag, at least 1, and for maxima the place among the indices
    of each one, -1 where there is none.
    """

    reads = ((1, 2, 3), (), (), (0, 1, 2))
    constants = (1, 2)
    has_aux = True

    def forward(
        xp: Any, weight: Any, index: Any, starts: Any, factors: Any, bags: int, padding: int,
        mode: str, by_freq: bool,
    ) -> Any:  # fmt: skip
        starts = None if starts is None else starts[:bags]
        out, counts, *chosen = rules.pool(xp, weight, index, starts, factors, bags, padding, mode)
        return out, (counts, chosen[0] if chosen else None)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        bags, padding, mode, by_freq = ctx.attrs
        weight, index, starts, factors = ctx.saved
        counts, chosen = ctx.aux
        index = F.array(index)
        xp = NAMESPACES[index.__class__].xp
        starts = None if starts is None else F.array(starts)[:bags]
        shape = tuple(ctx.shapes[0])
        if F.tensors:
            bag = rules.bags_of(xp, starts, index.size, bags)
            parts = (xp.arange(index.size)[:, None] == chosen[bag]) if mode == "max" else None
            share = 1 / counts if mode == "mean" else None
            known = weight  # a sum's gradient is the same for every table
            if known is None:
                known = wrap(xp.zeros(shape, grad.array.dtype)).requires_grad_()
            dweight, dfactors = gradients_of(
                lambda w, f: (_composed(w, f, index, bag, padding, parts, share, bags),),
                *((known, factors), (grad,), (ctx.edges[0] is not None, ctx.edges[3] is not None)),
            )
            if by_freq and dweight is not None:
                dweight = dweight / wrap(rules.frequencies(xp, index, shape[0]))  # type: ignore[operator]
            return dweight, None, None, dfactors
        dweight = dfactors = None
        if ctx.edges[0] is not None:
            size = index.size
            values = rules.spread(xp, grad, starts, factors, counts, chosen, size, mode)
            dweight = F.embedding_dense_backward(values, index, shape[0], padding, by_freq)
        if ctx.edges[3] is not None:
            dfactors = rules.slopes(xp, grad, weight, index, starts, padding)
        return dweight, None, None, dfactors

    def fused_forward(
        K: Any, weight: Any, index: Any, starts: Any, factors: Any, bags: int, padding: int,
        mode: str, by_freq: bool,
    ) -> Any:  # fmt: skip
        if not (K.takes(weight) and index.size and bags):
            return NotImplemented
        rows, columns = weight.shape
        out, counts = K.empty((bags, columns), weight.dtype), K.empty(bags, np.int64)
        chosen = K.empty(out.shape, np.int64) if mode == "max" else None
        ends = int(starts is not None and starts.size > bags)
        K.rows(
            "embedding_bag_forward", weight.dtype, bags, columns, K.dense(weight), index, starts,
            factors, out, counts, chosen, _noted(K), bags, index.size, index.size // bags, rows,
            columns, padding, MODES.index(mode), ends,
        )  # fmt: skip
        return out, (counts, chosen)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        bags, padding, mode, by_freq = ctx.attrs
        weight, index, starts, factors = ctx.saved
        if not (K.takes(grad) and index.size):
            return NotImplemented
        grad, (rows, columns) = K.dense(grad), ctx.shapes[0]
        sizes = (bags, index.size, index.size // bags, rows, columns, padding)
        dweight = dfactors = None
        if ctx.edges[0] is not None:
            values = K.empty((index.size, columns), grad.dtype)
            K.rows(
                "embedding_bag_spread", grad.dtype, bags, columns, grad, starts, factors, *ctx.aux,
                values, _noted(K), *sizes, MODES.index(mode),
            )  # fmt: skip
            dweight = K.zeros((rows, columns), grad.dtype)
            indexing.add_rows(K, "embedding_bag", dweight, index, values, skipped=padding)
            if by_freq:
                dweight /= rules.frequencies(K.xp, index, rows)
        if ctx.edges[3] is not None:
            dfactors = K.empty(index.shape, grad.dtype)
            K.rows(
                "embedding_bag_factors", grad.dtype, bags, columns, grad, K.dense(weight), index,
                starts, dfactors, _noted(K), *sizes,
            )  # fmt: skip
        return dweight, None, None, dfactors


def _composed(
    weight: Any, factors: Any, index: Any, bag: Any, padding: int, parts: Any, share: Any, bags: int
) -> Tensor:
    """The same from ops that can be differentiated any number of times.

    ``parts`` says which elements the maxima are, ``share`` what a row counts in a mean.
    """
    xp = NAMESPACES[index.__class__].xp
    rows: Any = weight[wrap(index)]
    if factors is not None:
        rows = rows * factors[:, None]
    counted = (index != padding)[:, None]
    counted = counted if parts is None else counted & parts
    each = counted if share is None else counted * share[bag][:, None]
    rows = rows * wrap(xp.asarray(each).astype(weight.array.dtype))
    zeros: Any = rows.new_zeros(bags, rows.shape[1])
    return zeros.index_add(0, wrap(bag), rows)  # type: ignore[no-any-return]
