"""The arguments of the convolution functions: checks, and messages as PyTorch has them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.ops.dispatch import same_device
from gradlite.ops.op import type_name
from gradlite.tensor import Tensor

Shape = tuple[int, ...]


def hashable(value: Any) -> Any:
    """Lists as tuples."""
    return tuple(value) if isinstance(value, list) else value


def numbers(
    name: str, argument: str, value: Any, length: int, dims: int | None = None
) -> tuple[int, ...]:
    """An int or a sequence of 1 or ``length`` ints as a tuple of ``length``.

    ``dims``: of the function, for which a weight of other dimensions is an error.
    """
    given = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    for item in given:
        if isinstance(item, bool) or not hasattr(item, "__index__"):
            raise TypeError(
                f"{name}(): argument '{argument}' must be tuple of ints, "
                f"not {item.__class__.__name__}"
            )
    if dims is not None and dims != length and len(given) == 1:
        given = given * dims
    if len(given) not in (1, length):
        raise RuntimeError(
            f"expected {argument} to be a single integer value or a list of {length} values to "
            f"match the convolution dimensions, but got {argument}={given}"
        )
    numbers = tuple(int(item) for item in given)
    return numbers * length if len(numbers) == 1 else numbers


def with_batch(name: str, x: Tensor, dims: int) -> tuple[Tensor, bool]:
    """The input with a batch dimension, and whether it had one."""
    n = x.array.ndim
    if n not in (dims + 1, dims + 2):
        raise RuntimeError(
            f"Expected {dims + 1}D (unbatched) or {dims + 2}D (batched) input to {name}, but got "
            f"input of size: {list(x.array.shape)}"
        )
    return (x, True) if n == dims + 2 else (x.unsqueeze(0), False)


def check_tensors(name: str, x: Any, weight: Any, bias: Any) -> None:
    for place, (argument, value) in enumerate(
        (("input", x), ("weight", weight), ("bias", bias)), start=1
    ):
        if not isinstance(value, Tensor) and (value is not None or place < 3):
            raise TypeError(
                f"{name}(): argument '{argument}' (position {place}) must be Tensor, "
                f"not {value.__class__.__name__}"
            )


def check_dtypes(x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    a, b = x.array.dtype, weight.array.dtype
    if a == np.float32 and b == np.float64:
        raise RuntimeError(
            "Input type (gradlite.FloatTensor) and weight type (gradlite.DoubleTensor) should be "
            "the same or input should be a MKLDNN tensor and weight is a dense tensor"
        )
    if a != b:
        raise RuntimeError(f"expected scalar type {type_name(a)} but found {type_name(b)}")
    if bias is not None and bias.array.dtype != a:
        raise RuntimeError(
            f"Input type ({type_name(a).lower()}) and bias type "
            f"({type_name(bias.array.dtype).lower()}) should be the same"
        )
    if a == np.bool_:
        raise NotImplementedError("\"slow_conv2d_cpu\" not implemented for 'Bool'")
    same_device(x, weight, *([] if bias is None else [bias]))


def check_shapes(
    shape: Shape,
    w: Shape,
    bias: Shape | None,
    stride: Shape,
    padding: Shape,
    dilation: Shape,
    groups: int,
    transposed: bool,
) -> None:
    """RuntimeError when the shapes of input, weight and bias or the numbers do not fit."""
    weight = list(w)
    if len(w) < 3:
        raise RuntimeError("weight should have at least three dimensions")
    if groups <= 0:
        raise RuntimeError("non-positive groups is not supported")
    if min(padding) < 0:
        raise RuntimeError("negative padding is not supported")
    if min(stride) <= 0:
        raise RuntimeError("non-positive stride is not supported")
    if min(dilation) <= 0:
        raise RuntimeError("non-positive dilation is not supported")
    if w[0] < groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be at least {groups} at dimension 0, but "
            f"got weight of size {weight} instead"
        )
    if w[0] % groups:
        raise RuntimeError(
            f"Given groups={groups}, expected weight to be divisible by {groups} at dimension 0, "
            f"but got weight of size [{weight}] instead"
        )
    expected, outputs = (w[0], w[1] * groups) if transposed else (w[1] * groups, w[0])
    if shape[1] != expected:
        raise RuntimeError(
            f"Given {'transposed=1' if transposed else f'groups={groups}'}, weight of size "
            f"{weight}, expected input{list(shape)} to have {expected} channels, but got "
            f"{shape[1]} channels instead"
        )
    if bias is not None and bias != (outputs,):
        raise RuntimeError(
            f"Given {'transposed=1, ' if transposed else ''}weight of size {weight}, expected "
            f"bias to be 1-dimensional with {outputs} elements, but got bias of size {list(bias)} "
            "instead"
        )
    if min(w[2:]) <= 0:
        raise RuntimeError(
            f"kernel size should be greater than zero, but got weight of size {weight}"
        )


def check_filled(shape: Shape) -> None:
    """RuntimeError when the images have channels, but no places."""
    if 0 in shape[2:] and 0 not in shape[:2]:
        sizes = [*shape[:2], 1, shape[2]] if len(shape) == 3 else list(shape)
        raise RuntimeError(
            f"Only zero batch or zero channel inputs are supported, but got input shape: {sizes}"
        )


# --------------------------------------------------------------------- shapes of raw arrays
def lift(x: Any) -> Any:
    """A (N, C, L) array as (N, C, 1, L)."""
    return x.reshape((*x.shape[:2], 1, x.shape[2])) if x.ndim == 3 else x


def size_of(shape: Any) -> Any:
    """The sizes of images or volumes; sequences are images of height 1."""
    return (1, shape[2]) if len(shape) == 3 else shape[2:]


def shaped(x: Any, shape: tuple[int, ...]) -> Any:
    """The array in a shape; itself, rather than a view of it, when it has it."""
    return x if x.shape == shape else x.reshape(shape)
