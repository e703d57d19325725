"""Half precision: an op computes in float32, and what it gives is rounded once.

This is the one place that knows. NumPy's functions would round after each step of a sum or a
formula, and some of them give float32 for a bfloat16 and a Python number. So when the first
array of float16 or bfloat16 is asked for, every op gets a twin (`twins.py`): its forward hands the
op's forward float32 copies of such arrays and narrows what comes back, and its backward does the
same with the gradient and what was saved. Before that nothing of it is on the way of an op, and
kernels, which compute in float32 themselves, come first. Under create_graph a rule runs on
Tensors, op by op.

Ops that compute nothing (`Op.moves`) keep the arrays they are given: views must not be copied.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.graph import copy_node
from gradlite.ops import elements_compiled
from gradlite.ops.layout import copy_order

_SINGLE = np.dtype(np.float32)
_WIDER = frozenset((_SINGLE, np.dtype(np.float64)))


def single(array: Any) -> Any:
    """An array in float32 when it is in half precision; itself when not.

    NumPy sorts no NaN of bfloat16 to the end, and adds up halves in half precision.
    """
    return array.astype(_SINGLE) if array.dtype in dtypes.HALVES else array


def widened(array: Any, half: Any) -> Any:
    """A float32 copy of an array of half precision; anything else as it is."""
    if getattr(array, "dtype", None) != half:
        return array
    made = elements_compiled.cast(np, array, _SINGLE) if array.__class__ is np.ndarray else None
    return array.astype(_SINGLE, copy_order(array)) if made is None else made


def narrowed(array: Any, half: Any) -> Any:
    """A result in half precision when it is in float32."""
    if getattr(array, "dtype", None) != _SINGLE:
        return array
    made = elements_compiled.cast(np, array, half) if array.__class__ is np.ndarray else None
    return array.astype(half) if made is None else made


def all_arrays(values: Any) -> bool:
    """Whether there is no Python number among values: NumPy gives float32 for one of those."""
    return all(v is None or hasattr(v, "dtype") for v in values)


def found_among(kinds: frozenset[Any], arrays: Any) -> Any:
    """The dtype of the first of these arrays that has one of these dtypes, or None."""
    for array in arrays:
        dtype = getattr(array, "dtype", None)
        if dtype in kinds:
            return dtype
    return None


def _rule(function: Any) -> Any:
    """An op's own function, and not what measures it while a profile is on."""
    return getattr(function, "__wrapped__", function)


def forward_of(op: Any, kinds: frozenset[Any]) -> Any:
    """The op's forward for arrays that may be of half precision."""
    rule, arity = _rule(op.forward), len(op.reads)

    def forward(xp: Any, *args: Any) -> Any:
        inputs = args[0] if op.variadic else args[:arity]
        half = found_among(kinds, inputs)
        # Another floating dtype beside it is that of the result; but see Op.mixes.
        if half is None or not (op.mixes or found_among(_WIDER, inputs) is None):
            return rule(xp, *args)
        if op.one_step and all_arrays(inputs):
            return rule(xp, *args)
        wide = [widened(a, half) for a in inputs]
        if op.variadic:
            out = rule(xp, wide, *args[1:])
        else:
            out = rule(xp, *wide, *args[arity:])
        if op.has_aux:
            return _narrowed(op, out[0], half), out[1]
        return _narrowed(op, out, half)

    return forward


def _narrowed(op: Any, out: Any, half: Any) -> Any:
    if op.outputs == 1:
        return narrowed(out, half)
    return tuple([narrowed(o, half) for o in out])


def backward_of(op: Any, kinds: frozenset[Any]) -> Any:
    """The op's rule for gradients that may be of half precision."""
    rule = _rule(op.backward)

    def backward(ctx: Any, grad: Any, F: Any) -> Any:
        several = grad.__class__ is list
        half = None if F.tensors else found_among(kinds, grad if several else (grad,))
        if half is None:
            return rule(ctx, grad, F)
        if op.one_step and ctx.shapes is None and all_arrays(ctx.saved):
            return rule(ctx, grad, F)
        wide = [widened(g, half) for g in grad] if several else widened(grad, half)
        saved = tuple([widened(s, half) for s in ctx.saved])
        grads = rule(copy_node(ctx, ctx.edges, saved), wide, F)
        if op.mixes and ctx.attrs[-1] != half:
            return (narrowed(grads[0], half), *grads[1:])
        return tuple([narrowed(g, half) for g in grads])

    return backward
