"""Gradient clipping by norm and by value."""

from __future__ import annotations

import math
import types
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.backends.cpu import loud, quiet
from gradlite.device import array_module, device_of
from gradlite.ops import many
from gradlite.tensor import Tensor, wrap

Tensors = Tensor | Iterable[Tensor]


def _listed(tensors: Tensors) -> list[Tensor]:
    return [tensors] if isinstance(tensors, Tensor) else list(tensors)


def _grads(parameters: Tensors) -> list[Tensor]:
    found = [p.grad for p in _listed(parameters)]
    return [grad for grad in found if grad is not None]


def _norm(xp: Any, array: Any, order: float) -> Any:
    """The norm of a flat array of at least single precision, as a 0-d array or scalar."""
    if order == 2.0:
        return xp.sqrt(array.dot(array))  # one pass, without an array for the squares
    if order == math.inf:
        return xp.maximum(array.max(), -array.min())
    size = xp.absolute(array)
    if order == -math.inf:
        return size.min()
    if order == 0.0:
        return xp.asarray(xp.count_nonzero(array), dtype=array.dtype)
    if order == 1.0:
        return size.sum()
    return (size**order).sum() ** (1.0 / order)


def _norm_of_norms(xp: Any, arrays: list[Any], order: float) -> Any:
    norms = []
    for array in arrays:
        array = array.ravel()
        if array.itemsize < 4:  # whose squares overflow half precision long before the norm
            array = array.astype(np.float32)
        norms.append(_norm(xp, array, order))
    if len(norms) == 1:
        return norms[0]
    return _norm(xp, np.array(norms) if xp is np else xp.stack(norms), order)


def get_total_norm(
    tensors: Tensors,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The norm of all tensors together, as if they were one vector.

    Args:
        tensors: a tensor or several, usually gradients.
        norm_type: the order: 2, 1, ``inf``, ...
        error_if_nonfinite: raise when the norm is NaN or infinite.
        foreach: accepted for PyTorch's sake.

    Returns:
        A 0-d tensor on the first tensor's device.

    Raises:
        RuntimeError: the norm is not finite and ``error_if_nonfinite`` is set.
    """
    arrays = [t.array for t in _listed(tensors)]
    order = float(norm_type)
    if not arrays:
        return wrap(np.zeros((), dtypes.get_default_dtype().numpy))
    dtype = arrays[0].dtype
    for array in arrays[1:]:
        if array.dtype is not dtype:
            dtype = np.promote_types(dtype, array.dtype)
    xp = array_module(device_of(arrays[0]))
    token = quiet()
    try:
        total = many.total_norm(arrays, order)
        if total is None:
            total = xp.asarray(_norm_of_norms(xp, arrays, order), dtype=dtype)
    finally:
        loud(token)
    if error_if_nonfinite and not xp.isfinite(total):
        raise RuntimeError(
            f"The total norm of order {order} for gradients from `parameters` is non-finite, so "
            "it cannot be clipped. To disable this error and scale the gradients by the "
            "non-finite norm anyway, set `error_if_nonfinite=False`"
        )
    return wrap(total)


def clip_grads_with_norm_(
    parameters: Tensors,
    max_norm: float,
    total_norm: Tensor,
    foreach: bool | None = None,
) -> None:
    """Scale the gradients by ``max_norm / (total_norm + 1e-6)`` where that is less than 1.

    Args:
        parameters: a tensor or several, whose ``.grad`` is scaled in place.
        max_norm: the largest norm allowed.
        total_norm: the norm that the gradients have, from `get_total_norm`.
        foreach: accepted for PyTorch's sake.
    """
    grads = _grads(parameters)
    if not grads:
        return
    total = total_norm.array
    if many.clip([grad.array for grad in grads], total, float(max_norm)):
        for grad in grads:
            grad._bump()
        return
    xp = array_module(device_of(total))
    factor: Any = xp.minimum(float(max_norm) / (total + 1e-6), 1.0)
    # Elsewhere the device decides: a look at the value would wait for it, or stop a recording.
    if total.__class__ is np.ndarray and factor == 1.0:
        return
    factors: dict[Any, Any] = {}
    token = quiet()
    try:
        for grad in grads:
            array = grad.array
            by = factors.get(array.dtype)
            if by is None:
                by = factors[array.dtype] = xp.asarray(factor, dtype=array.dtype)
            array *= by
            grad._bump()
    finally:
        loud(token)


def clip_grad_norm_(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """Scale the gradients so that their norm, taken together, is at most ``max_norm``.

    Args:
        parameters: a tensor or several, whose ``.grad`` is scaled in place.
        max_norm: the largest norm allowed.
        norm_type: the order of the norm; ``inf`` is the largest absolute value.
        error_if_nonfinite: raise when the norm is NaN or infinite.
        foreach: accepted for PyTorch's sake.

    Returns:
        The norm before clipping, a 0-d tensor.

    >>> import gradlite
    >>> weight = gradlite.tensor([3.0, 4.0], requires_grad=True)
    >>> (weight * weight / 2).sum().backward()
    >>> gradlite.nn.utils.clip_grad_norm_(weight, 1.0)
    tensor(5.)
    >>> weight.grad
    tensor([0.6000, 0.8000])
    """
    given = parameters
    parameters = _listed(parameters)
    if not parameters and isinstance(given, types.GeneratorType):
        warnings.warn(
            "`parameters` is an empty generator, no gradient clipping will occur.", stacklevel=2
        )
    total = get_total_norm(_grads(parameters), norm_type, error_if_nonfinite, foreach)
    clip_grads_with_norm_(parameters, max_norm, total, foreach)
    return total


def clip_grad_norm(
    parameters: Tensors,
    max_norm: float,
    norm_type: float = 2.0,
    error_if_nonfinite: bool = False,
    foreach: bool | None = None,
) -> Tensor:
    """The deprecated name of `clip_grad_norm_`."""
    warnings.warn(
        "`gradlite.nn.utils.clip_grad_norm` is now deprecated in favor of "
        "`gradlite.nn.utils.clip_grad_norm_`.",
        FutureWarning,
        stacklevel=2,
    )
    return clip_grad_norm_(parameters, max_norm, norm_type, error_if_nonfinite, foreach)


def clip_grad_value_(parameters: Tensors, clip_value: float, foreach: bool | None = None) -> None:
    """Clip every element of the gradients to ``[-clip_value, clip_value]``, in place.

    Args:
        parameters: a tensor or several, whose ``.grad`` is clipped.
        clip_value: the largest absolute value allowed.
        foreach: accepted for PyTorch's sake.
    """
    bound = float(clip_value)
    grads = _grads(parameters)
    if grads and many.clamp([grad.array for grad in grads], bound):
        for grad in grads:
            grad._bump()
        return
    bounds: dict[Any, Any] = {}
    for grad in grads:
        array = grad.array
        pair = bounds.get(array.dtype)
        if pair is None:
            xp = array_module(device_of(array))
            pair = [xp.asarray(value, dtype=array.dtype) for value in (-bound, bound)]
            bounds[array.dtype] = pair
        array.clip(*pair, out=array)
        grad._bump()
