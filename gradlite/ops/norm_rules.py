"""The ops of normalisation: one node each, with a fused rule from `gradlite.ops.standardize`.

Under create_graph they share one rule written with ops, `_rule`.
"""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.ops import standardize
from gradlite.ops.binary import sum_to
from gradlite.ops.column_sums import column_sums, sum_channels, sum_parts, total
from gradlite.ops.op import Op
from gradlite.tensor import wrap


def numel(shape: Sequence[int]) -> int:
    n = 1
    for size in shape:
        n *= size
    return n


def _shaped(array: Any, shape: tuple[int, ...]) -> Any:
    """The array in a shape; itself, rather than a view of it, when it has it."""
    return array if array.shape == shape else array.reshape(shape)


def _as(x: Any, dtype: Any) -> Any:
    return x if x is None or x.dtype == dtype else x.astype(dtype)


# ---------------------------------------------------------------------------------- rules
def _rule(
    ctx: Any,
    grad: Any,
    F: Any,
    view: tuple[int, ...],
    dims: tuple[int, ...],
    row: tuple[int, ...],
    *,
    center: bool = True,
    statistics: Any = None,
) -> tuple[Any, ...]:
    """The gradients of y = (x - mean) * rstd * weight + bias, written with ops.

    Args:
        view: the shape in which x is standardised over ``dims``.
        row: the shape of weight and bias there.
        center: whether the mean is subtracted.
        statistics: constant mean and rstd, of shape ``row``; by default those of x.
    """

    def cast(value: Any, dtype: Any) -> Any:
        return value if F.array(value).dtype == dtype else F.to_copy(value, dtype)

    x, weight = ctx.saved
    *_, eps, parameter_dtype = ctx.attrs
    own = F.array(grad).dtype
    exact = np.dtype(np.float32) if own in dtypes.HALVES else own
    g = cast(grad, exact).reshape(view)
    grad_x = grad_weight = grad_bias = None
    if ctx.edges[2] is not None:
        grad_bias = cast(sum_to(F, g, row).reshape(ctx.shapes[2]), parameter_dtype)
    if x is None:
        return None, None, grad_bias
    x = cast(x, exact).reshape(view)
    if statistics is None:
        centred = x - F.mean(x, dims, True) if center else x
        rstd = F.rsqrt(F.mean(centred * centred, dims, True) + eps)
    else:
        mean, rstd = statistics
        centred = x - mean
    unit = centred * rstd
    if ctx.edges[1] is not None:
        grad_weight = cast(sum_to(F, g * unit, row).reshape(ctx.shapes[1]), parameter_dtype)
    if ctx.edges[0] is not None:
        if weight is not None:
            g = g * cast(weight, exact).reshape(row)
        if statistics is None:
            along = unit * F.mean(g * unit, dims, True)
            g = g - along - F.mean(g, dims, True) if center else g - along
        grad_x = cast((g * rstd).reshape(ctx.shapes[0]), own)
    return grad_x, grad_weight, grad_bias


def _fused(ctx: Any, grads: tuple[Any, ...], own: Any) -> tuple[Any, ...]:
    """Gradients from raw arrays in the shapes and dtypes of the inputs."""
    dtypes_ = (own, ctx.attrs[-1], ctx.attrs[-1])
    return tuple(
        None if edge is None or g is None else _shaped(_as(g, dtype), shape)
        for edge, g, dtype, shape in zip(ctx.edges, grads, dtypes_, ctx.shapes)
    )


def _no_elements(ctx: Any, F: Any, grad: Any) -> tuple[Any, ...]:
    """The gradients when x has no elements."""
    return tuple(
        None if edge is None else F.zeros(shape, grad) for edge, shape in zip(ctx.edges, ctx.shapes)
    )


def _takes(K: Any, *arrays: Any) -> bool:
    """Whether kernels can serve the arrays that are not None."""
    return K.takes(*[a for a in arrays if a is not None])  # type: ignore[no-any-return]


def _dense(K: Any, array: Any) -> Any:
    return None if array is None else K.dense(array)


def _planes(K: Any, x: Any) -> tuple[int, int, int] | None:
    """(N, C, L) of an array that kernels can serve, which count its elements in 32 bits."""
    if not K.takes(x) or x.size >= 1 << 31:
        return None
    return x.shape[0], x.shape[1], x.size // (x.shape[0] * x.shape[1])


def _wide(K: Any, x: Any, *arrays: Any) -> int | None:
    """1 if the arrays that are not None have the dtype in which kernels compute, 0 if that of x.

    None where they have neither, or not the same.
    """
    found = {a.dtype for a in arrays if a is not None} or {x.dtype}
    if found == {x.dtype}:
        return 0
    return 1 if found == {K.acc(x.dtype)} else None


def _wide_forward(function: Any) -> Any:
    """``fused_forward`` also for halves beside parameters in the dtype in which kernels compute."""

    def fused_forward(K: Any, x: Any, w: Any, b: Any, *attrs: Any) -> Any:
        if _wide(K, x, w, b) != 1:
            return function(K, x, w, b, *attrs)
        found = function(K, x.astype(K.acc(x.dtype)), w, b, *attrs)
        return found if found is NotImplemented else (found[0].astype(x.dtype), found[1])

    return fused_forward


def _wide_backward(function: Any) -> Any:
    """``fused_backward`` likewise."""

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        wide, own = np.dtype(ctx.attrs[-1]), grad.dtype
        if wide == own or wide != K.acc(own):
            return function(K, ctx, grad)
        x, w = ctx.saved
        inner = SimpleNamespace(
            saved=(_as(x, wide), w), attrs=ctx.attrs, aux=ctx.aux, edges=ctx.edges
        )
        found = function(K, inner, grad.astype(wide))
        return found if found is NotImplemented else (_as(found[0], own), *found[1:])

    return fused_backward


def _short(K: Any, rows: int, columns: int, dtype: Any) -> bool:
    """Whether rows are so short, and so many, that the kernels for short ones are faster."""
    return not K.serial and 4096 <= rows < 1 << 31 and columns * dtype.itemsize <= 512


def _norm_short(
    K: Any, way: str, dtype: Any, rows: int, groups: int, columns: int, arrays: Any, *eps: float
) -> None:
    """Launch a kernel for short rows: eight threads each."""
    grid = min(-(-rows // 32), 1 << 16)
    K.launch(f"norm_short_{way}", dtype, (grid,), (8, 32), *arrays, rows, groups, columns, *eps)


# ---------------------------------------------------------------------------------- ops
class NativeLayerNorm(Op):
    """Rows of the last dimensions standardised; aux: see `standardize.rows_forward`."""

    mixes = True
    reads = ((0, 1), (0,), ())
    has_aux = True
    native_from = native_backward_from = 1 << 8

    def forward(
        xp: Any,
        x: Any,
        w: Any,
        b: Any,
        shape: tuple[int, ...],
        center: bool,
        eps: float,
        parameter_dtype: Any,
    ) -> Any:
        if not x.size:
            return xp.empty(x.shape, x.dtype), None
        rows = xp.ascontiguousarray(x).reshape(-1, numel(shape))
        w, b = (None if p is None else _as(p, rows.dtype).reshape(-1) for p in (w, b))
        y, aux = standardize.rows_forward(xp, rows, w, b, eps, center)
        return _shaped(_as(y, x.dtype), x.shape), aux

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        shape, center, _, _ = ctx.attrs
        if ctx.aux is None:
            return _no_elements(ctx, F, grad)
        n = numel(shape)
        if F.tensors:
            view = (numel(ctx.shapes[0]) // n, n)
            return _rule(ctx, grad, F, view, (1,), (1, n), center=center)
        x, w = ctx.saved
        xp = F.xp
        rows = xp.ascontiguousarray(grad).reshape(-1, n)
        if x is None:
            return None, None, _shaped(_as(rows.sum(0), ctx.attrs[-1]), shape)
        x = xp.ascontiguousarray(x).reshape(rows.shape)
        if w is not None:
            w = _as(w, rows.dtype).reshape(-1)
        grads = standardize.rows_backward(xp, rows, x, w, ctx.aux, ctx.edges[0] is not None)
        return _fused(ctx, grads, grad.dtype)

    def fused_forward(
        K: Any,
        x: Any,
        w: Any,
        b: Any,
        shape: tuple[int, ...],
        center: bool,
        eps: float,
        parameter_dtype: Any,
    ) -> Any:
        if not _takes(K, x, w, b):
            return NotImplemented
        x, columns = K.dense(x), numel(shape)
        rows = x.size // columns
        y, mean, rstd = K.empty_like(x), None, K.empty((rows,), K.acc(x.dtype))
        if center:
            mean = K.empty_like(rstd)
        arrays = x, _dense(K, w), _dense(K, b), y, mean, rstd
        if _short(K, rows, columns, x.dtype):
            _norm_short(K, "forward", x.dtype, rows, 1, columns, arrays, float(eps))
        else:
            sizes = rows, columns, float(eps)
            K.kept_rows("layer_norm_forward", x.dtype, rows, columns, 1, *arrays, *sizes)
        return y, (mean, rstd, None)

    fused_forward = _wide_forward(fused_forward)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, w = ctx.saved
        shape, *_, parameter_dtype = ctx.attrs
        if ctx.aux is None or not _takes(K, grad, x, w):
            return NotImplemented
        grad, columns, dtype = K.dense(grad), numel(shape), grad.dtype
        if x is None:
            sums = column_sums(K, grad.reshape(-1, columns)).reshape(shape)
            return None, None, _as(sums, parameter_dtype)
        x, rows = K.dense(x), x.size // columns
        mean, rstd, _ = ctx.aux
        dx = dw = db = None
        if ctx.edges[1] is not None or ctx.edges[2] is not None:
            partials, _ = sum_parts(
                K, "layer_norm_parameters", dtype, 2, rows, columns, grad, x, mean, rstd
            )
            dw = K.empty(shape, dtype)
            db = K.empty(shape, dtype) if ctx.edges[2] is not None else None
            total(K, dtype, partials, dw, db)
            dw = None if ctx.edges[1] is None else _as(dw, parameter_dtype)
            db = _as(db, parameter_dtype)
        if ctx.edges[0] is not None:
            dx = K.empty_like(x)
            arrays = grad, x, _dense(K, w), mean, rstd, dx
            if _short(K, rows, columns, dtype):
                _norm_short(K, "backward", dtype, rows, 1, columns, arrays)
            else:
                K.kept_rows("layer_norm_backward", dtype, rows, columns, 2, *arrays, rows, columns)
        return dx, dw, db

    fused_backward = _wide_backward(fused_backward)


class RmsNorm(NativeLayerNorm):
    """Rows of the last dimensions divided by their root mean square."""

    grad_name = "MulBackward0"


class NativeBatchNorm(Op):
    """Channels standardised, by the batch's statistics or by the running ones."""

    mixes = True
    reads = ((0, 1), (0,), ())
    has_aux = True
    native_from = native_backward_from = 1 << 8

    def forward(
        xp: Any,
        x: Any,
        w: Any,
        b: Any,
        running: tuple[Any, Any] | None,
        training: bool,
        momentum: float,
        eps: float,
        parameter_dtype: Any,
    ) -> Any:
        channels = _channels(xp, x)
        w, b = (None if p is None else _as(p, channels.dtype) for p in (w, b))
        if training:
            mean, variance = standardize.channel_statistics(xp, channels)
            if running is not None:
                count = x.size // x.shape[1]
                for kept, new in zip(running, (mean, variance * (count / (count - 1)))):
                    kept[...] = (1 - momentum) * _as(kept, mean.dtype) + momentum * new
        else:
            # Copies, row-major as kernels want them in backward: the others may be edited by then.
            mean, variance = (xp.array(kept, channels.dtype, order="C") for kept in running or ())
        rstd = 1 / xp.sqrt(variance + channels.dtype.type(eps))
        y = standardize.channels_forward(xp, channels, mean, rstd, w, b)
        return _shaped(_as(y, x.dtype), x.shape), (mean, rstd)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        training = ctx.attrs[1]
        mean, rstd = ctx.aux
        if F.tensors:
            n, c, *rest = ctx.shapes[0]
            constant = None
            if not training:
                constant = tuple(wrap(s.reshape(1, c, 1)) for s in (mean, rstd))
            view = (n, c, numel(rest))
            return _rule(ctx, grad, F, view, (0, 2), (1, c, 1), statistics=constant)
        x, w = ctx.saved
        xp = F.xp
        g = _channels(xp, grad)
        x = None if x is None else _channels(xp, x)
        w = None if w is None else _as(w, g.dtype)
        grads = standardize.channels_backward(
            xp, g, x, w, mean, rstd, training, ctx.edges[0] is not None
        )
        return _fused(ctx, grads, grad.dtype)

    def fused_forward(
        K: Any,
        x: Any,
        w: Any,
        b: Any,
        running: tuple[Any, Any] | None,
        training: bool,
        momentum: float,
        eps: float,
        parameter_dtype: Any,
    ) -> Any:
        kept = running or (None, None)
        shape, wide_kept = _planes(K, x), _wide(K, x, *kept)
        wide = _wide(K, x, w, b)
        if shape is None or wide is None or wide_kept is None:
            return NotImplemented
        if any(s is not None and not s.flags.c_contiguous for s in kept):
            return NotImplemented  # they are written in place
        x, w, b = K.dense(x), _dense(K, w), _dense(K, b)
        dtype, channels = x.dtype, shape[1]
        y = K.empty_like(x)
        mean, rstd = (K.empty((channels,), K.acc(dtype)) for _ in range(2))
        if not training:
            K.prepared(
                "batch_norm_inference", dtype, x.size,
                x, w, b, *kept, mean, rstd, y, wide, wide_kept, *shape, float(eps),
            )  # fmt: skip
            return y, (mean, rstd)
        partials, parts, inner = sum_channels(K, "batch_norm", dtype, shape, x)
        K.compile(dtype, "batch_norm_statistics", "batch_norm_forward")  # the first updates `kept`
        K.rows(
            "batch_norm_statistics", dtype, channels, parts * inner,
            x, partials, mean, rstd, *kept, wide_kept, *shape, parts, inner,
            float(momentum), float(eps),
        )  # fmt: skip
        K.prepared("batch_norm_forward", dtype, x.size, x, w, b, mean, rstd, y, wide, *shape)
        return y, (mean, rstd)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, w = ctx.saved
        shape, wide = _planes(K, grad), _wide(K, grad, w)
        if shape is None or wide is None or (x is not None and not K.takes(grad, x)):
            return NotImplemented
        training, dtype = ctx.attrs[1], grad.dtype
        mean, rstd = ctx.aux
        grad, w = K.dense(grad), _dense(K, w)
        x = grad if x is None else K.dense(x)  # only the sums of grad are wanted
        dx = totals = None
        wants_input = ctx.edges[0] is not None
        if wants_input and training:
            totals = K.empty((2, shape[1]), K.acc(dtype))
        dw, db = _parameter_gradients(K, ctx, grad, x, mean, rstd, shape, 0, totals)
        if wants_input:
            dx = K.empty_like(grad)
            if training:
                K.prepared(
                    "batch_norm_backward", dtype, dx.size,
                    grad, x, w, mean, rstd, totals, dx, wide, *shape,
                )  # fmt: skip
            else:
                K.prepared(
                    "batch_norm_forward", dtype, dx.size,
                    grad, w, None, None, rstd, dx, wide, *shape,
                )  # fmt: skip
        return dx, dw, db


def _parameter_gradients(
    K: Any,
    ctx: Any,
    grad: Any,
    x: Any,
    mean: Any,
    rstd: Any,
    shape: tuple[int, int, int],
    inner: int,
    totals: Any = None,
) -> tuple[Any, Any]:
    """The gradients of weight and bias of (C,), as far as wanted, and the sums they are made of.

    ``inner`` is the number of channels that share mean and rstd, 0 when all samples do.
    """
    dtype, parameter_dtype = grad.dtype, np.dtype(ctx.attrs[-1])
    # Parameters of half precision come in single on the CPU: kernels know these two alone.
    held = parameter_dtype if parameter_dtype in (dtype, K.acc(dtype)) else dtype
    dw, db = (None if edge is None else K.empty((shape[1],), held) for edge in ctx.edges[1:])
    if dw is None and db is None and totals is None:
        return None, None
    partials, parts, length = sum_channels(
        K, "norm_slopes", dtype, shape, grad, x, mean, rstd, extra=(inner,)
    )
    K.rows(
        "norm_slopes_total", dtype, shape[1], parts * length,
        partials, totals, dw, db, int(held != dtype), shape[1], parts, length,
    )  # fmt: skip
    return _as(dw, parameter_dtype), _as(db, parameter_dtype)


def _channels(xp: Any, x: Any) -> Any:
    """(N, C, ...) as a contiguous (N, C, L) in at least float32."""
    return xp.ascontiguousarray(x).reshape(x.shape[0], x.shape[1], numel(x.shape[2:]))


class NativeGroupNorm(Op):
    """Groups of channels of each sample standardised; aux: their means and rstd."""

    mixes = True
    reads = ((0, 1), (0,), ())
    has_aux = True
    native_from = native_backward_from = 1 << 8

    def forward(
        xp: Any, x: Any, w: Any, b: Any, groups: int, eps: float, parameter_dtype: Any
    ) -> Any:
        if not x.size:
            return xp.empty(x.shape, x.dtype), None
        channels = _channels(xp, x)
        w, b = (None if p is None else _as(p, channels.dtype) for p in (w, b))
        y, *aux = standardize.groups_forward(xp, channels, groups, w, b, eps)
        return _shaped(_as(y, x.dtype), x.shape), aux

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        if ctx.aux is None:
            return _no_elements(ctx, F, grad)
        groups = ctx.attrs[0]
        if F.tensors:
            n, c, *rest = ctx.shapes[0]
            view = (n, groups, c // groups, numel(rest))
            return _rule(ctx, grad, F, view, (2, 3), (1, groups, c // groups, 1))
        x, w = ctx.saved
        xp = F.xp
        g = _channels(xp, grad)
        if x is None:
            return None, None, _as(g.sum((0, 2)), ctx.attrs[-1])
        w = None if w is None else _as(w, g.dtype)
        mean, rstd = ctx.aux
        grads = standardize.groups_backward(
            xp, g, _channels(xp, x), w, mean, rstd, ctx.edges[0] is not None
        )
        return _fused(ctx, grads, grad.dtype)

    def fused_forward(
        K: Any, x: Any, w: Any, b: Any, groups: int, eps: float, parameter_dtype: Any
    ) -> Any:
        shape = _planes(K, x)
        if shape is None or not _takes(K, x, w, b):
            return NotImplemented
        n, c, length = shape
        rows, inner = n * groups, c // groups
        x, y = K.dense(x), K.empty_like(x)
        mean, rstd = (K.empty((n, groups), K.acc(x.dtype)) for _ in range(2))
        arrays = x, _dense(K, w), _dense(K, b), y, mean, rstd
        if length == 1 and _short(K, rows, inner, x.dtype):
            _norm_short(K, "forward", x.dtype, rows, groups, inner, arrays, float(eps))
        else:
            sizes = rows, groups, inner, length, float(eps)
            K.kept_rows("group_norm_forward", x.dtype, rows, inner * length, 1, *arrays, *sizes)
        return y, [mean, rstd]

    fused_forward = _wide_forward(fused_forward)

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        x, w = ctx.saved
        shape = _planes(K, grad)
        if shape is None or not _takes(K, grad, x, w):
            return NotImplemented
        (n, c, length), groups = shape, ctx.attrs[0]
        rows, inner = n * groups, c // groups
        mean, rstd = ctx.aux
        grad, dx = K.dense(grad), None
        x = grad if x is None else K.dense(x)
        dw, db = _parameter_gradients(K, ctx, grad, x, mean, rstd, shape, inner)
        if ctx.edges[0] is not None:
            dx = K.empty_like(x)
            arrays = grad, x, _dense(K, w), mean, rstd, dx
            if length == 1 and _short(K, rows, inner, x.dtype):
                _norm_short(K, "backward", x.dtype, rows, groups, inner, arrays)
            else:
                sizes = rows, groups, inner, length
                K.kept_rows(
                    "group_norm_backward", x.dtype, rows, inner * length, 2, *arrays, *sizes
                )
        return dx, dw, db

    fused_backward = _wide_backward(fused_backward)


class InstanceNorm(NativeGroupNorm):
    """One group per channel."""

    grad_name = "ViewBackward0"
