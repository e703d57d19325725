"""Functions as PyTorch has them at the top level: of layers, and about tensors and dtypes.

Most are those of `gradlite.nn.functional`; some take other arguments there.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.description import Size
from gradlite.ops import dropout as _dropout
from gradlite.ops import embedding as _embedding
from gradlite.ops import normalization as _normalization
from gradlite.ops.activation_inplace import celu_, relu_, rrelu_, selu_, threshold_
from gradlite.ops.adaptive_pool import adaptive_avg_pool1d
from gradlite.ops.adaptive_pool import adaptive_max_pool1d as _adaptive_max_pool1d
from gradlite.ops.bilinear import bilinear
from gradlite.ops.conv import conv1d, conv2d, conv_transpose1d, conv_transpose2d
from gradlite.ops.conv3d import conv3d, conv_transpose3d
from gradlite.ops.distance import cosine_similarity, pairwise_distance
from gradlite.ops.normalization import group_norm, layer_norm, rms_norm
from gradlite.ops.operands import operand
from gradlite.ops.pool import avg_pool1d, max_pool1d, max_pool2d
from gradlite.ops.pool3d import max_pool3d
from gradlite.ops.resize import channel_shuffle, pixel_shuffle, pixel_unshuffle
from gradlite.tensor import Tensor

__all__ = [
    "adaptive_avg_pool1d",
    "adaptive_max_pool1d",
    "avg_pool1d",
    "batch_norm",
    "bilinear",
    "broadcast_shapes",
    "can_cast",
    "celu_",
    "channel_shuffle",
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "cosine_similarity",
    "dropout",
    "e",
    "embedding",
    "group_norm",
    "inf",
    "instance_norm",
    "is_complex",
    "is_floating_point",
    "is_inference",
    "is_nonzero",
    "is_same_size",
    "is_signed",
    "layer_norm",
    "max_pool1d",
    "max_pool2d",
    "max_pool3d",
    "nan",
    "newaxis",
    "numel",
    "pairwise_distance",
    "pi",
    "pixel_shuffle",
    "pixel_unshuffle",
    "relu_",
    "result_type",
    "rms_norm",
    "rrelu_",
    "selu_",
    "threshold_",
    "typename",
]

e, inf, nan, pi = math.e, math.inf, math.nan, math.pi
newaxis = None


# -------------------------------------------------------------------------------- layers
def batch_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    training: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    """`nn.functional.batch_norm` with its arguments in another order."""
    return _normalization.batch_norm(
        input, running_mean, running_var, weight, bias, training, momentum, eps
    )


def instance_norm(
    input: Tensor,
    weight: Tensor | None,
    bias: Tensor | None,
    running_mean: Tensor | None,
    running_var: Tensor | None,
    use_input_stats: bool,
    momentum: float,
    eps: float,
    cudnn_enabled: bool = False,
) -> Tensor:
    """`nn.functional.instance_norm` with its arguments in another order."""
    return _normalization.instance_norm(
        input, running_mean, running_var, weight, bias, use_input_stats, momentum, eps
    )


def dropout(input: Tensor, p: float, train: bool) -> Tensor:
    """`nn.functional.dropout`, whose ``training`` has to be given, as ``train``."""
    return _dropout.dropout(input, p, train)


def embedding(
    weight: Tensor,
    indices: Tensor,
    padding_idx: int = -1,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """`nn.functional.embedding` with the table first; a negative ``padding_idx`` is none."""
    padding = None if padding_idx < 0 else padding_idx
    return _embedding.embedding(indices, weight, padding, None, 2.0, scale_grad_by_freq, sparse)


def adaptive_max_pool1d(input: Tensor, output_size: Any) -> tuple[Tensor, Tensor]:
    """`nn.functional.adaptive_max_pool1d` with the places of the maxima.

    >>> import gradlite
    >>> gradlite.adaptive_max_pool1d(gradlite.tensor([[1.0, 3.0, 2.0, 0.0]]), 2)
    (tensor([[3., 2.]]), tensor([[1, 2]]))
    """
    return _adaptive_max_pool1d(input, output_size, True)  # type: ignore[no-any-return]


# ------------------------------------------------------------------------- about tensors
def _checked(name: str, input: Any) -> Tensor:
    if not isinstance(input, Tensor):
        raise TypeError(
            f"{name}(): argument 'input' (position 1) must be Tensor, "
            f"not {input.__class__.__name__}"
        )
    return input


def numel(input: Tensor) -> int:
    """The number of elements."""
    return _checked("numel", input).numel()


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating one."""
    return _checked("is_floating_point", input).is_floating_point()


def is_complex(input: Tensor) -> bool:
    """Always False: there are no complex numbers."""
    return _checked("is_complex", input).is_complex()


def is_signed(input: Tensor) -> bool:
    """Whether the dtype is signed."""
    return _checked("is_signed", input).is_signed()


def is_inference(input: Tensor) -> bool:
    """Whether the tensor was made in inference mode."""
    return _checked("is_inference", input).is_inference()


def is_nonzero(input: Tensor) -> bool:
    """Whether the only element is not 0.

    Raises:
        RuntimeError: there is not exactly one element.
    """
    return bool(_checked("is_nonzero", input))


def is_same_size(input: Tensor, other: Tensor) -> bool:
    """Whether two tensors have the same shape."""
    return bool(_checked("is_same_size", input).array.shape == other.array.shape)


def typename(obj: Any) -> str:
    """A tensor's type as ``gradlite.FloatTensor``; another object's class with its module."""
    if isinstance(obj, Tensor):
        return str(obj.type())
    cls = obj if isinstance(obj, type) else type(obj)
    module = getattr(obj, "__module__", None) or cls.__module__
    return cls.__qualname__ if module == "builtins" else f"{module}.{cls.__qualname__}"


# --------------------------------------------------------------------- shapes and dtypes
def broadcast_shapes(*shapes: int | Iterable[int]) -> Size:
    """The shape to which tensors of these shapes broadcast.

    >>> import gradlite
    >>> gradlite.broadcast_shapes((2,), (3, 1))
    gradlite.Size([3, 2])

    Raises:
        RuntimeError: sizes that differ, none of them 1.
    """
    result: list[int] = []
    for place, given in enumerate(shapes):
        shape = (given,) if isinstance(given, int) else tuple(given)
        if any(n < 0 for n in shape):
            raise ValueError("Attempting to broadcast a dimension with negative length!")
        result = [1] * (len(shape) - len(result)) + result
        for d in range(-1, -len(shape) - 1, -1):
            if shape[d] == 1 or shape[d] == result[d]:
                continue
            if result[d] != 1:
                raise RuntimeError(
                    f"Attempting to broadcast a dimension of length {shape[d]} at {d}! Mismatching "
                    f"argument at index {place} had {shape}; but expected shape should be "
                    f"broadcastable to {result}"
                )
            result[d] = shape[d]
    return Size(result)


def result_type(tensor1: Any, tensor2: Any) -> dtypes.dtype:
    """The dtype of arithmetic between two tensors or numbers.

    >>> import gradlite
    >>> gradlite.result_type(gradlite.tensor([1, 2]), 1.0)
    gradlite.float32
    """
    values = [v.array if isinstance(v, Tensor) else v for v in map(operand, (tensor1, tensor2))]
    return dtypes.from_numpy_dtype(np.dtype(dtypes.result_dtype(values)))


def can_cast(from_: dtypes.dtype, to: dtypes.dtype) -> bool:
    """Whether PyTorch's rules let results of one dtype be stored in another.

    >>> import gradlite
    >>> gradlite.can_cast(gradlite.float64, gradlite.float32)
    True
    >>> gradlite.can_cast(gradlite.float32, gradlite.int64)
    False
    """
    return from_.category <= to.category
