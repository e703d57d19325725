"""Activations in place on a GPU: their kernel writes over what it reads."""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite.grad_mode import current_mode
from gradlite.graph import record
from gradlite.ops.dispatch import OUT, apply1
from gradlite.ops.guard import on
from gradlite.ops.inplace import assign, check_inplace, rebase
from gradlite.ops.namespaces import NAMESPACES
from gradlite.tensor import Tensor, gradient_edge


def activated(op: Any, input: Tensor, inplace: bool, *attrs: Any) -> Tensor:
    """What an op of `activation_kernels` makes of a tensor, on demand in the tensor itself."""
    if not inplace:
        return apply1(op, input, *attrs)
    if input.array.__class__ is not np.ndarray and edited(op, input, *attrs):
        return input
    result = apply1(op, input, *attrs)
    check_inplace(input)
    return assign(input, result)


def edited(op: Any, t: Tensor, *attrs: Any) -> bool:
    """Let an op's kernel edit an array of a GPU; False: it does not take it, and nothing is done.

    One launch, and a copy where the rule reads the values that are written over.
    """
    array = t.array
    F = NAMESPACES[array.__class__]
    K = F.launcher
    if K is None or not (array.flags.c_contiguous and K.takes(array)):
        return False
    recorded = current_mode() == 0 and t.requires_grad
    if recorded and t._view is not None:
        return False
    check_inplace(t)
    edge = gradient_edge(t) if recorded else None
    by_result = op.saves == (OUT,)
    with on(array):
        source = array if by_result or not recorded else array.copy()
        kernel, n = f"{op.fused_forward.activation}_forward", array.size
        K.elementwise(kernel, array.dtype, n, source, array, n, *map(float, attrs))
    t._bump()
    if recorded:  # now, as hooks may look at the values that are saved
        counter: Any = t._counter
        version = (counter, counter[0]) if by_result else None
        saved = array if by_result else source
        node = record(F.runs(op), (edge,), (saved,), (version,), attrs, F, None, (array.shape,))
        rebase(t, node)
    return True
