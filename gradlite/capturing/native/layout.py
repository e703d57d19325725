"""Batches last: the order (C, H, W, N) for images that convolutions make and read.

Compiled convolutions of batches work on as many images at once as a vector has lanes. When all
calls that mention an array can deal with any order, its images lie element by element side by
side, so that nothing is transposed between a convolution and the next.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.capturing.calls import MADE, AnyCall, Buffer, Call, Ref, refs_of
from gradlite.capturing.native import fusion
from gradlite.ops import columns, conv_maxima

# Which arguments and results are images.
IMAGES: dict[Any, tuple[tuple[int, ...], tuple[int, ...]]] = {
    columns.convolve: ((1,), (0,)),
    columns.input_gradient: ((1,), (0,)),
    columns.weight_gradient: ((1, 2), ()),
    columns.gradients: ((1, 2), (0,)),
    conv_maxima.convolve_and_pool: ((1,), (0, 1)),
    conv_maxima.spread_gradients: ((1, 2, 5), (0,)),
    conv_maxima.spread_weight_gradient: ((1, 2, 5), ()),
}


def images_of(call: Any) -> list[Ref]:
    """The images among the arguments and results of a convolution of a suitable batch."""
    if not isinstance(call, Call) or call.function not in IMAGES:
        return []
    args, outs = IMAGES[call.function]
    found = [call.args[i] for i in args] + [call.outs[i] for i in outs]
    if not all(isinstance(ref, Ref) for ref in found):
        return []
    return found if found[0].shape[0] % fusion.lanes(found[0].dtype) == 0 else []


def batches_last(calls: list[AnyCall], pinned: set[Buffer]) -> list[AnyCall]:
    """The calls with the order of images changed where all that mention them allow it."""
    batch: dict[Buffer, int] = {}  # which buffers may change, and how many images each holds
    touched: set[Buffer] = set()
    for call in calls:
        for ref in images_of(call):
            touched.add(ref.buffer.origin)
    if not touched:
        return calls
    sizes = {ref.shape[0] for call in calls for ref in images_of(call)}
    refused = set(pinned)
    together: list[set[Buffer]] = []
    for call in calls:
        images = images_of(call)
        for ref in refs_of(call):
            buffer = ref.buffer.origin
            n = ref.shape[0] if ref.shape else 0
            fits = buffer.kind == MADE and n in sizes and batch.setdefault(buffer, n) == n
            if not fits or moved(ref, n) is None or not (ref in images or _any_order(call, ref)):
                refused.add(buffer)
        if not images and isinstance(call, Call) and _elementwise(call):
            shape = call.outs[0].shape
            same = {r.buffer.origin for r in refs_of(call) if r.shape == shape}
            together.append(same)
    while True:  # elements that meet each other lie in the same order
        more = {b for group in together if group & refused for b in group} - refused
        if not more:
            break
        refused |= more
    while True:
        more = {b for group in together if group & touched for b in group} - touched
        if not more:
            break
        touched |= more
    chosen = touched - refused
    if not chosen:
        return calls
    return [_changed(call, chosen, batch) for call in calls]


def moved(ref: Ref, n: int) -> Ref | None:
    """An array of a buffer with n images, after the images were laid side by side."""
    size = ref.buffer.stop - ref.buffer.start
    row, rest = divmod(size, n)
    if rest or ref.shape[0] != n or ref.strides[0] != row or not 0 <= ref.offset < row:
        return None
    end = ref.offset + ref.dtype.itemsize
    for m, s in zip(ref.shape[1:], ref.strides[1:]):
        if s < 0:
            return None
        end += (m - 1) * s
    if end > row:
        return None
    strides = (ref.dtype.itemsize, *(s * n for s in ref.strides[1:]))
    return Ref(ref.buffer, ref.offset * n, ref.shape, strides, ref.dtype)


def _elementwise(call: Call) -> bool:
    return (
        isinstance(call.function, np.ufunc) and call.function is not np.matmul and call.outs != ()
    )


def _any_order(call: Any, ref: Ref) -> bool:
    """Whether a call other than a convolution gives the same for any order of an array."""
    if not isinstance(call, Call):
        return False
    if _elementwise(call):
        return ref.shape == call.outs[0].shape and len(call.outs) == 1 and not call.kwargs
    if call.function in (np.dot, np.ndarray.dot):
        return len(ref.shape) == 2
    if call.function is conv_maxima.channel_sums:
        return ref is call.args[1]
    return call.function is np.ndarray.sum and ref is call.args[0]


def _changed(call: Any, chosen: set[Buffer], batch: dict[Buffer, int]) -> Any:
    def new(value: Any) -> Any:
        if isinstance(value, Ref):
            buffer = value.buffer.origin
            return moved(value, batch[buffer]) if buffer in chosen else value
        return value

    if not isinstance(call, Call) or not any(r.buffer.origin in chosen for r in refs_of(call)):
        return call
    return Call(
        call.function,
        tuple(map(new, call.args)),
        {k: new(v) for k, v in call.kwargs.items()},
        tuple(map(new, call.outs)),
        tuple(map(new, call.writes)),
    )
