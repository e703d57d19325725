"""Casts of an op's operands under autocast (`gradlite.autocast`).

Which ops are cast, and how, is PyTorch's list for each type of device; an op's policy stands in
its entry of the table (`public(autocast=...)`). Casts are ops in the graph, in front of the op that
is cast: what it saves for backward is in lower precision, and its gradient comes back through
them. Tensors of float64 and of integers are never cast.

The policies:

===============  ===================================================================
lower            all operands in the region's dtype: products, convolutions
float32          all operands in float32: losses, norms, what needs a wide exponent
float32-result   the same, unless the caller chose a dtype: sums, softmax
widest           float32 if an operand is, else the region's dtype
plain            no casts, also not of the ops that the function consists of
refused          RuntimeError
===============  ===================================================================
"""

from __future__ import annotations

import functools
import weakref
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

import numpy as np

from gradlite import autocast_mode, dtypes
from gradlite.autocast_mode import Mode, current_autocast
from gradlite.grad_mode import is_grad_enabled
from gradlite.ops.operands import cast
from gradlite.tensor import Tensor

Function = TypeVar("Function", bound=Callable[..., Any])
# The name of a policy ("" for none), or what chooses one from the arguments.
Choice = str | Callable[..., str]
Policy = Choice | tuple[Choice, Choice]  # for all devices, or for the CPU and for CUDA

REFUSED = (
    "{0} and {1} are unsafe to autocast.\nMany models use a sigmoid layer right before the binary "
    "cross entropy layer.\nIn this case, combine the two layers using {0}_with_logits\nor "
    "gradlite.nn.BCEWithLogitsLoss.  binary_cross_entropy_with_logits and BCEWithLogits are\nsafe "
    "to autocast."
)


def under(policy: Policy, function: Function) -> Function:
    """A function whose operands are cast by a policy where autocast is on."""
    cpu, cuda = policy if isinstance(policy, tuple) else (policy, policy)

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        if autocast_mode.used:
            mode = current_autocast()
            if mode.cpu or mode.cuda:
                return _cast_call(function, cpu, cuda, mode, args, kwargs)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


def lowered(*tensors: Any) -> tuple[Any, ...]:
    """The operands of an op with the policy "lower".

    For functions that are called too often for a wrapper; they ask `autocast_mode.used` first.
    """
    mode = current_autocast()
    first = next(tensors_of(tensors), None)
    if first is None or not mode.casts_on(first.is_cuda):
        return tensors
    return tuple(converted(tensors, mode.lower(first.is_cuda), first.is_cuda, mode))


def _cast_call(
    function: Callable[..., Any], cpu: Choice, cuda: Choice, mode: Mode, args: Any, kwargs: Any
) -> Any:
    first = next(tensors_of((args, kwargs)), None)
    on_gpu = first is not None and first.is_cuda
    choice = cuda if on_gpu else cpu
    policy = choice if isinstance(choice, str) else choice(*args, **kwargs)
    if first is None or not policy or not mode.casts_on(on_gpu):
        return function(*args, **kwargs)
    if policy == "refused":
        name = f"gradlite.nn.functional.{function.__name__}"
        raise RuntimeError(REFUSED.format(name, "gradlite.nn.BCELoss"))
    lower = mode.lower(on_gpu)
    target: Any = np.dtype(np.float32)
    if policy == "lower":
        target = lower
    elif policy == "widest":
        if all(t.array.dtype == lower for t in _eligible((args, kwargs), on_gpu)):
            target = lower
    elif policy == "plain" or (policy == "float32-result" and kwargs.get("dtype") is not None):
        target = None
    if target is not None:
        args = converted(args, target, on_gpu, mode)
        kwargs = converted(kwargs, target, on_gpu, mode)
    autocast_mode.set_mode(mode.off)  # what is inside computes in the dtypes that it gets
    try:
        return function(*args, **kwargs)
    finally:
        autocast_mode.set_mode(mode)


def tensors_of(value: Any) -> Iterator[Tensor]:
    """All Tensors in nested tuples, lists and dictionaries."""
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for part in value:
            yield from tensors_of(part)
    elif isinstance(value, dict):
        yield from tensors_of(tuple(value.values()))


def _can_be_cast(tensor: Tensor, on_gpu: bool) -> bool:
    dtype = tensor.array.dtype
    return dtype in dtypes.FLOATING and dtype.itemsize < 8 and tensor.is_cuda == on_gpu


def _eligible(value: Any, on_gpu: bool) -> Iterable[Tensor]:
    return (t for t in tensors_of(value) if _can_be_cast(t, on_gpu))


def converted(value: Any, target: Any, on_gpu: bool, mode: Mode) -> Any:
    """Nested operands with every Tensor that can be cast in a dtype."""
    if isinstance(value, Tensor):
        if value.array.dtype == target or not _can_be_cast(value, on_gpu):
            return value
        return _kept(value, target, mode)
    if value.__class__ in (tuple, list):
        return value.__class__(converted(part, target, on_gpu, mode) for part in value)
    if value.__class__ is dict:
        return {name: converted(part, target, on_gpu, mode) for name, part in value.items()}
    return value


def _kept(tensor: Tensor, target: Any, mode: Mode) -> Tensor:
    """The cast of a tensor; that of a parameter in float32 to halves is made once in a region.

    It is made anew when the parameter was edited, or when the cast that is there was made in
    another grad mode.
    """
    cache = mode.cache if mode.cache_enabled else None
    parameter = tensor.requires_grad and tensor.is_leaf and tensor._view is None
    lowers = target in dtypes.HALVES and tensor.array.dtype == np.float32
    if cache is None or not parameter or not lowers or tensor.is_inference():
        return cast(tensor, target)
    known = cache.get(id(tensor))
    if known is not None:
        owner, array, version, made = known
        if (
            owner() is tensor
            and array is tensor.array
            and version == tensor._version
            and made.requires_grad == is_grad_enabled()
            and made.array.dtype == target
        ):
            return made  # type: ignore[no-any-return]
    made = cast(tensor, target)
    cache[id(tensor)] = (weakref.ref(tensor), tensor.array, tensor._version, made)
    return made
