"""The table of layers: how to make each, and what to call it with, in PyTorch and in gradlite."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from tests.nn.inputs import classes, distribution, grid, probabilities, signs, x

Make = Callable[[Any], Any]


@dataclass
class Constant:
    """An input that gets no gradient."""

    array: Any


@dataclass
class Case:
    """A layer, its inputs (floating arrays require grad) and the modes to try it in."""

    make: Make
    inputs: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)
    modes: tuple[bool, ...] = (True, False)
    warns: str | None = None
    tolerance: float = 1e-9


def of(name: str, *args: Any, **kwargs: Any) -> Make:
    """Make ``nn.name(*args, **kwargs)``; lists and arrays stand for tensors."""

    def make(library: Any) -> Any:
        def convert(value: Any) -> Any:
            return library.tensor(value) if isinstance(value, np.ndarray) else value

        return getattr(library.nn, name)(
            *(convert(a) for a in args), **{k: convert(v) for k, v in kwargs.items()}
        )

    return make


CASES: dict[str, Case] = {}


def layer(label: str, make: Make, *inputs: Any, **options: Any) -> None:
    """Enter a layer into the table."""
    assert label not in CASES, label
    CASES[label] = Case(make, inputs, **options)


# ------------------------------------------------------------------------------ linear
layer("Identity", of("Identity", 3, a=4), x(2, 3))
layer("Linear", of("Linear", 3, 4), x(2, 3))
layer("Linear of a vector", of("Linear", 3, 4), x(3))
layer("Linear in 4d", of("Linear", 3, 4), x(2, 1, 5, 3))
layer("Linear without bias", of("Linear", 3, 4, bias=False), x(2, 3))
layer("Linear of an empty batch", of("Linear", 3, 4), x(0, 3))
layer("Bilinear", of("Bilinear", 3, 4, 5), x(2, 3), x(2, 4, seed=2))
layer("Bilinear without bias", of("Bilinear", 3, 4, 5, bias=False), x(2, 3), x(2, 4, seed=2))
layer("Flatten", of("Flatten"), x(2, 3, 4))
layer("Flatten all", of("Flatten", 0), x(2, 3, 4))
layer("Flatten some", of("Flatten", 1, 2), x(2, 3, 4, 5))
layer("Unflatten", of("Unflatten", 1, (2, 3)), x(2, 6))

# ------------------------------------------------------------------------- activations
for name, arguments in [
    ("ReLU", ()),
    ("ReLU6", ()),
    ("LeakyReLU", ()),
    ("LeakyReLU", (0.2,)),
    ("ELU", ()),
    ("ELU", (0.7,)),
    ("SELU", ()),
    ("CELU", ()),
    ("CELU", (0.7,)),
    ("GELU", ()),
    ("GELU", ("tanh",)),
    ("SiLU", ()),
    ("Mish", ()),
    ("Softplus", ()),
    ("Softplus", (2, 1)),
    ("Softsign", ()),
    ("Tanh", ()),
    ("Sigmoid", ()),
    ("LogSigmoid", ()),
    ("Hardtanh", ()),
    ("Hardtanh", (-0.5, 2.0)),
    ("Hardsigmoid", ()),
    ("Hardswish", ()),
    ("Hardshrink", ()),
    ("Hardshrink", (0.8,)),
    ("Softshrink", ()),
    ("Tanhshrink", ()),
    ("Threshold", (0.1, 20)),
    ("GLU", ()),
    ("GLU", (0,)),
    ("PReLU", ()),
    ("Softmax", (1,)),
    ("Softmin", (1,)),
    ("LogSoftmax", (0,)),
]:
    # PyTorch computes some constants of these two in float32.
    tolerance = 1e-7 if name in ("CELU", "Hardsigmoid") else 1e-9
    label = f"{name}{arguments or ''}"
    layer(label, of(name, *arguments), grid(4, 6) * 2, tolerance=tolerance)
layer("PReLU per channel", of("PReLU", 3, 0.1), grid(2, 3, 4))
layer("Softmax2d", of("Softmax2d"), x(2, 3, 4, 4))
for name in ["ReLU", "LeakyReLU", "ELU", "SELU", "SiLU", "Hardtanh", "Mish", "Hardswish"]:
    layer(f"{name} in place", of(name, inplace=True), Constant(x(3, 4)))
layer("RReLU", of("RReLU"), x(3, 4), modes=(False,))

# -------------------------------------------------------------------------- convolution
layer("Conv1d", of("Conv1d", 2, 3, 3), x(2, 2, 7))
layer("Conv1d with all", of("Conv1d", 4, 6, 3, 2, 1, 2, 2, False), x(2, 4, 9))
layer("Conv1d unbatched", of("Conv1d", 2, 3, 3), x(2, 7))
layer("Conv1d circular", of("Conv1d", 2, 3, 3, padding=1, padding_mode="circular"), x(2, 2, 7))
layer("Conv2d", of("Conv2d", 2, 3, 3), x(2, 2, 6, 5))
layer("Conv2d with all", of("Conv2d", 4, 6, (3, 2), (2, 1), (1, 2), (1, 2), 2), x(2, 4, 7, 6))
layer("Conv2d unbatched", of("Conv2d", 2, 3, 3, bias=False), x(2, 6, 5))
layer("Conv2d same", of("Conv2d", 2, 3, (3, 5), padding="same"), x(2, 2, 6, 5))
layer("Conv2d valid", of("Conv2d", 2, 3, 3, padding="valid"), x(2, 2, 6, 5))
layer("Conv2d depthwise", of("Conv2d", 4, 8, 3, groups=4, padding=1), x(2, 4, 5, 5))
for mode in ["reflect", "replicate", "circular"]:
    layer(f"Conv2d {mode}", of("Conv2d", 2, 3, 3, 2, (1, 2), padding_mode=mode), x(2, 2, 6, 5))
layer(
    "Conv2d same reflect",
    of("Conv2d", 2, 3, (3, 4), 1, "same", padding_mode="reflect"),
    x(2, 2, 6, 5),
)
layer("ConvTranspose2d", of("ConvTranspose2d", 2, 3, 3), x(2, 2, 4, 5))
layer(
    "ConvTranspose2d with all",
    of("ConvTranspose2d", 4, 6, (3, 2), (2, 3), (1, 0), (1, 2), 2, False, (2, 1)),
    x(2, 4, 4, 3),
)
layer(
    "ConvTranspose2d of a size",
    of("ConvTranspose2d", 2, 3, 3, stride=2, padding=1),
    x(2, 2, 4, 5),
    kwargs={"output_size": [8, 10]},
)
layer("ConvTranspose1d", of("ConvTranspose1d", 2, 3, 3, 2, 1, 1), x(2, 2, 5))

# ------------------------------------------------------------------- pooling and padding
layer("MaxPool1d", of("MaxPool1d", 2), grid(2, 3, 7))
layer("MaxPool1d with all", of("MaxPool1d", 3, 2, 1, 2, ceil_mode=True), grid(2, 3, 9))
layer("MaxPool2d", of("MaxPool2d", 2), grid(2, 3, 6, 7))
layer("MaxPool2d with all", of("MaxPool2d", (3, 2), 2, 1, (2, 1), ceil_mode=True), grid(2, 3, 8, 7))
layer("MaxPool2d unbatched", of("MaxPool2d", 2, 1), grid(3, 6, 7))
layer("MaxPool2d with indices", of("MaxPool2d", 2, return_indices=True), grid(2, 3, 6, 7))
layer("AvgPool1d", of("AvgPool1d", 2), x(2, 3, 7))
layer("AvgPool1d with all", of("AvgPool1d", 3, 2, 1, True, False), x(2, 3, 8))
layer("AvgPool2d", of("AvgPool2d", 2), x(2, 3, 6, 7))
layer("AvgPool2d with all", of("AvgPool2d", (3, 2), 2, 1, True, False), x(2, 3, 6, 7))
layer("AvgPool2d with a divisor", of("AvgPool2d", 2, divisor_override=3), x(2, 3, 6, 7))
layer("AdaptiveAvgPool1d", of("AdaptiveAvgPool1d", 3), x(2, 3, 7))
layer("AdaptiveAvgPool2d", of("AdaptiveAvgPool2d", 1), x(2, 3, 6, 7))
layer("AdaptiveAvgPool2d uneven", of("AdaptiveAvgPool2d", (4, None)), x(2, 3, 6, 7))
layer("AdaptiveMaxPool1d", of("AdaptiveMaxPool1d", 3), grid(2, 3, 7))
layer("AdaptiveMaxPool2d", of("AdaptiveMaxPool2d", (2, 3)), grid(2, 3, 6, 7))
layer("ZeroPad1d", of("ZeroPad1d", 1), x(2, 3, 4))
layer("ZeroPad2d", of("ZeroPad2d", (1, 2, 0, 3)), x(2, 3, 4, 5))
layer("ZeroPad2d that crops", of("ZeroPad2d", -1), x(2, 3, 4, 5))
layer("ZeroPad3d", of("ZeroPad3d", 1), x(2, 1, 2, 3, 2))
layer("ConstantPad1d", of("ConstantPad1d", (1, 2), 3.5), x(2, 3, 4))
layer("ConstantPad2d", of("ConstantPad2d", 1, 2), x(2, 3, 4, 5))
layer("ConstantPad3d", of("ConstantPad3d", 1, 0.5), x(2, 1, 2, 3, 2))
for name in ["Reflection", "Replication", "Circular"]:
    layer(f"{name}Pad1d", of(f"{name}Pad1d", (1, 2)), x(2, 3, 4))
    layer(f"{name}Pad2d", of(f"{name}Pad2d", (1, 2, 2, 1)), x(2, 3, 4, 5))
layer("Upsample", of("Upsample", scale_factor=2), x(2, 3, 4, 5))
layer("Upsample to a size", of("Upsample", (6, 7)), x(2, 3, 4, 5))
layer("UpsamplingNearest2d", of("UpsamplingNearest2d", scale_factor=3), x(2, 3, 4, 5))

layer("UpsamplingBilinear2d", of("UpsamplingBilinear2d", (6, 9)), x(2, 3, 4, 5))
layer("Upsample bilinear", of("Upsample", None, (1.5, 2), "bilinear"), x(2, 3, 4, 5))
layer("PixelShuffle", of("PixelShuffle", 2), x(2, 8, 3, 2))
layer("PixelUnshuffle", of("PixelUnshuffle", 3), x(2, 2, 3, 6))
layer("ChannelShuffle", of("ChannelShuffle", 2), x(2, 6, 3))
layer("Unfold", of("Unfold", (2, 3), 1, 1, 2), x(2, 2, 4, 5))
layer("Fold", of("Fold", (4, 5), 2), x(2, 8, 12))

# ------------------------------------------------------------------------ normalisation
layer("BatchNorm1d", of("BatchNorm1d", 3), x(5, 3))
layer("BatchNorm1d in 3d", of("BatchNorm1d", 3), x(5, 3, 4))
layer("BatchNorm2d", of("BatchNorm2d", 3), x(4, 3, 5, 2))
layer("BatchNorm2d plain", of("BatchNorm2d", 3, affine=False), x(4, 3, 5, 2))
layer("BatchNorm2d without bias", of("BatchNorm2d", 3, bias=False), x(4, 3, 5, 2))
layer("BatchNorm2d untracked", of("BatchNorm2d", 3, track_running_stats=False), x(4, 3, 5, 2))
layer("BatchNorm2d cumulative", of("BatchNorm2d", 3, 1e-3, None), x(4, 3, 5, 2))
layer("BatchNorm2d with a momentum", of("BatchNorm2d", 3, 1e-3, 0.3), x(4, 3, 5, 2))
layer("BatchNorm3d", of("BatchNorm3d", 2), x(2, 2, 3, 2, 2))
layer("InstanceNorm1d", of("InstanceNorm1d", 3), x(4, 3, 5))
layer("InstanceNorm1d unbatched", of("InstanceNorm1d", 3), x(3, 5))
layer("InstanceNorm2d", of("InstanceNorm2d", 3, affine=True), x(4, 3, 5, 2))
layer(
    "InstanceNorm2d tracked",
    of("InstanceNorm2d", 3, affine=True, track_running_stats=True),
    x(4, 3, 5, 2),
)
layer("InstanceNorm3d", of("InstanceNorm3d", 2), x(2, 2, 3, 2, 2))
layer("LayerNorm", of("LayerNorm", 6), x(4, 6))
layer("LayerNorm over two dimensions", of("LayerNorm", [5, 6], 1e-3), x(4, 5, 6))
layer("LayerNorm plain", of("LayerNorm", 6, elementwise_affine=False), x(4, 6))
layer("LayerNorm without bias", of("LayerNorm", (6,), bias=False), x(4, 6))
layer("GroupNorm", of("GroupNorm", 2, 6), x(4, 6, 3))
layer("GroupNorm plain", of("GroupNorm", 3, 6, 1e-3, False), x(4, 6, 3, 2))
layer("GroupNorm without bias", of("GroupNorm", 6, 6, bias=False), x(4, 6, 3, 2))
layer("RMSNorm", of("RMSNorm", 6), x(4, 6))
layer("RMSNorm over two dimensions", of("RMSNorm", (5, 6), 1e-3, False), x(4, 5, 6))

layer("LocalResponseNorm", of("LocalResponseNorm", 3, 0.5, 0.6, 2.0), x(2, 5, 4))

# --------------------------------------------------------------- embedding, dropout, distance
layer("Embedding", of("Embedding", 7, 3), classes(7, 4, 5))
layer("Embedding with padding", of("Embedding", 7, 3, padding_idx=-5), classes(7, 4, 5))
for name, shape in [
    ("Dropout", (3, 4)),
    ("Dropout1d", (3, 4, 2)),
    ("Dropout2d", (3, 4, 2, 2)),
    ("Dropout3d", (3, 4, 2, 2, 2)),
    ("AlphaDropout", (3, 4)),
    ("FeatureAlphaDropout", (3, 4, 2)),
]:
    layer(name, of(name, 0.3), x(*shape), modes=(False,))
    layer(f"{name} of nothing", of(name, 0), x(*shape))
layer("Dropout of all", of("Dropout", 1.0), x(3, 4))
layer("CosineSimilarity", of("CosineSimilarity"), x(3, 4), x(3, 4, seed=2))
layer("CosineSimilarity of rows", of("CosineSimilarity", -1, 0.5), x(3, 4), x(4, seed=2))
layer("PairwiseDistance", of("PairwiseDistance"), x(3, 4), x(3, 4, seed=2))
layer("PairwiseDistance in 1", of("PairwiseDistance", 1, 1e-3, True), x(3, 4), x(4, seed=2))

# ------------------------------------------------------------------------------- losses
a, b, c = x(4, 3), x(4, 3, seed=2), x(4, 3, seed=7)
TARGETS: dict[str, tuple[Any, ...]] = {
    "L1Loss": (a, b),
    "MSELoss": (a, b),
    "SmoothL1Loss": (a, b),
    "HuberLoss": (a, b),
    "CrossEntropyLoss": (a, classes(3, 4)),
    "NLLLoss": (a, classes(3, 4)),
    "BCELoss": (probabilities(4, 3), probabilities(4, 3, seed=9)),
    "BCEWithLogitsLoss": (a, probabilities(4, 3)),
    "KLDivLoss": (a, Constant(distribution(4, 3))),
    "PoissonNLLLoss": (a, Constant(classes(5, 4, 3).astype(float))),
    "GaussianNLLLoss": (a, b, probabilities(4, 3)),
    "HingeEmbeddingLoss": (a, Constant(signs(4, 3))),
    "SoftMarginLoss": (a, Constant(signs(4, 3))),
    "MarginRankingLoss": (a, b, Constant(signs(4, 3))),
    "CosineEmbeddingLoss": (a, b, Constant(signs(4))),
    "TripletMarginLoss": (a, b, c),
    "TripletMarginWithDistanceLoss": (a, b, c),
}
for name, inputs in TARGETS.items():
    for reduction in ["mean", "sum", "none"]:
        warns = "batchmean" if (name, reduction) == ("KLDivLoss", "mean") else None
        layer(f"{name} {reduction}", of(name, reduction=reduction), *inputs, warns=warns)
weights = np.array([0.2, 1.5, 0.7])
layer("SmoothL1Loss with beta", of("SmoothL1Loss", beta=0.3), a, b)
layer("HuberLoss with delta", of("HuberLoss", delta=0.3), a, b)
layer("CrossEntropyLoss with weights", of("CrossEntropyLoss", weights), a, classes(3, 4))
layer(
    "CrossEntropyLoss that ignores and smooths",
    of("CrossEntropyLoss", ignore_index=1, label_smoothing=0.1),
    a,
    classes(3, 4),
)
layer(
    "CrossEntropyLoss of an image",
    of("CrossEntropyLoss", weights),
    x(2, 3, 4, 4),
    classes(3, 2, 4, 4),
)
layer("CrossEntropyLoss of one sample", of("CrossEntropyLoss"), x(3), np.asarray(2))
layer("CrossEntropyLoss of probabilities", of("CrossEntropyLoss"), a, Constant(distribution(4, 3)))
layer("NLLLoss with weights", of("NLLLoss", weights, ignore_index=2), a, classes(3, 4))
layer(
    "BCELoss with weights",
    of("BCELoss", weights),
    probabilities(4, 3),
    Constant(probabilities(4, 3)),
)
layer(
    "BCEWithLogitsLoss with weights",
    of("BCEWithLogitsLoss", weights, pos_weight=weights * 2),
    a,
    Constant(probabilities(4, 3)),
)
layer(
    "KLDivLoss batchmean", of("KLDivLoss", reduction="batchmean"), a, Constant(distribution(4, 3))
)
layer("KLDivLoss of logs", of("KLDivLoss", reduction="sum", log_target=True), a, b)
layer(
    "PoissonNLLLoss in full",
    of("PoissonNLLLoss", log_input=False, full=True),
    probabilities(4, 3),
    Constant(classes(5, 4, 3).astype(float)),
)
layer(
    "GaussianNLLLoss in full", of("GaussianNLLLoss", full=True, eps=0.4), a, b, probabilities(4, 1)
)
layer("HingeEmbeddingLoss with a margin", of("HingeEmbeddingLoss", 0.3), a, Constant(signs(4, 3)))
layer("CosineEmbeddingLoss with a margin", of("CosineEmbeddingLoss", 0.3), a, b, Constant(signs(4)))
layer("TripletMarginLoss that swaps", of("TripletMarginLoss", 0.5, 1, swap=True), a, b, c)

# ---------------------------------------------------------------------------- recurrent
for name, state in [("RNN", 1), ("LSTM", 2), ("GRU", 1)]:
    h = x(1, 2, 5, seed=3)
    both = (h, x(1, 2, 5, seed=4)) if state == 2 else h
    layer(name, of(name, 3, 5), x(4, 2, 3))
    layer(f"{name} with a state", of(name, 3, 5), x(4, 2, 3), both)
    layer(f"{name} unbatched", of(name, 3, 5), x(4, 3))
    layer(f"{name} without bias", of(name, 3, 5, bias=False, batch_first=True), x(2, 4, 3))
    layer(f"{name} with layers", of(name, 3, 5, 2, bidirectional=True), x(4, 2, 3))
    layer(f"{name} with dropout", of(name, 3, 5, 2, dropout=0.5), x(4, 2, 3), modes=(False,))
    layer(f"{name}Cell", of(f"{name}Cell", 3, 5), x(2, 3))
    h = x(2, 5, seed=3)
    both = (h, x(2, 5, seed=4)) if state == 2 else h
    layer(f"{name}Cell with a state", of(f"{name}Cell", 3, 5, bias=False), x(2, 3), both)
    layer(f"{name}Cell unbatched", of(f"{name}Cell", 3, 5), x(3))
layer("RNN with relu", of("RNN", 3, 5, nonlinearity="relu"), x(4, 2, 3))
layer("RNNCell with relu", of("RNNCell", 3, 5, nonlinearity="relu"), x(2, 3))

# ---------------------------------------------------------------------------- attention
q, k, v = x(4, 2, 6), x(5, 2, 6, seed=2), x(5, 2, 6, seed=3)
hidden = np.array([[False] * 5, [False] * 3 + [True] * 2])
causal = np.triu(np.ones((4, 4), bool), 1)
additive = np.where(causal, -np.inf, 0.0)
layer("MultiheadAttention", of("MultiheadAttention", 6, 2), q, k, v)
layer(
    "MultiheadAttention per head",
    of("MultiheadAttention", 6, 2),
    q,
    k,
    v,
    kwargs={"average_attn_weights": False},
)
layer(
    "MultiheadAttention without weights",
    of("MultiheadAttention", 6, 3),
    q,
    k,
    v,
    kwargs={"need_weights": False},
)
layer("MultiheadAttention without bias", of("MultiheadAttention", 6, 2, bias=False), q, k, v)
layer(
    "MultiheadAttention batch first",
    of("MultiheadAttention", 6, 2, batch_first=True),
    x(2, 4, 6),
    v.swapaxes(0, 1),
    k.swapaxes(0, 1),
)
layer(
    "MultiheadAttention unbatched",
    of("MultiheadAttention", 6, 2),
    x(4, 6),
    x(5, 6, seed=2),
    x(5, 6, seed=3),
)
layer(
    "MultiheadAttention with its own sizes",
    of("MultiheadAttention", 6, 2, kdim=3, vdim=4),
    q,
    x(5, 2, 3),
    x(5, 2, 4),
)
layer(
    "MultiheadAttention with more keys",
    of("MultiheadAttention", 6, 2, add_bias_kv=True, add_zero_attn=True),
    q,
    k,
    v,
    kwargs={"key_padding_mask": hidden},
)
for need in [True, False]:
    suffix = "" if need else ", no weights"
    layer(
        f"MultiheadAttention that pads{suffix}",
        of("MultiheadAttention", 6, 2),
        q,
        k,
        v,
        kwargs={"key_padding_mask": hidden, "need_weights": need},
    )
    layer(
        f"MultiheadAttention with a mask{suffix}",
        of("MultiheadAttention", 6, 2),
        q,
        q * 2,
        q * 3,
        kwargs={"attn_mask": causal, "need_weights": need},
    )
    layer(
        f"MultiheadAttention with an additive mask{suffix}",
        of("MultiheadAttention", 6, 2),
        q,
        q * 2,
        q * 3,
        kwargs={"attn_mask": Constant(np.stack([additive] * 4)), "need_weights": need},
    )
    layer(
        f"MultiheadAttention that is causal{suffix}",
        of("MultiheadAttention", 6, 2),
        q,
        q * 2,
        q * 3,
        kwargs={"attn_mask": causal, "need_weights": need, "is_causal": True},
    )
sizes: tuple[Any, ...] = (6, 2, 8, 0.0)
src, tgt = x(4, 2, 6), x(3, 2, 6, seed=2)
layer("TransformerEncoderLayer", of("TransformerEncoderLayer", *sizes), src)
layer(
    "TransformerEncoderLayer norm first",
    of("TransformerEncoderLayer", *sizes, "gelu", 1e-3, True, True),
    src,
)
layer(
    "TransformerEncoderLayer without bias", of("TransformerEncoderLayer", *sizes, bias=False), src
)
layer(
    "TransformerEncoderLayer with a mask",
    of("TransformerEncoderLayer", *sizes),
    src,
    kwargs={"src_mask": Constant(additive), "is_causal": True},
)
layer("TransformerDecoderLayer", of("TransformerDecoderLayer", *sizes), tgt, src)
layer(
    "TransformerDecoderLayer norm first",
    of("TransformerDecoderLayer", *sizes, norm_first=True, batch_first=True),
    x(2, 3, 6),
    x(2, 4, 6),
)
layer(
    "TransformerDecoderLayer with masks",
    of("TransformerDecoderLayer", *sizes),
    src,
    tgt,
    kwargs={
        "tgt_mask": Constant(additive),
        "tgt_is_causal": True,
        "memory_key_padding_mask": np.array([[False, False, True]] * 2),
    },
)
layer("Transformer", of("Transformer", 6, 2, 2, 2, 8, 0.0), src, tgt)
layer(
    "Transformer norm first",
    of("Transformer", 6, 2, 1, 1, 8, 0.0, batch_first=True, norm_first=True),
    x(2, 4, 6),
    x(2, 3, 6, seed=2),
)


def encoder(library: Any) -> Any:
    nn = library.nn
    layer = nn.TransformerEncoderLayer(*sizes, batch_first=True)
    return nn.TransformerEncoder(layer, 2, nn.LayerNorm(6), enable_nested_tensor=False)


def decoder(library: Any) -> Any:
    return library.nn.TransformerDecoder(library.nn.TransformerDecoderLayer(*sizes), 2)


layer(
    "TransformerEncoder",
    encoder,
    x(2, 4, 6),
    kwargs={"src_key_padding_mask": np.array([[False] * 4, [False] * 3 + [True]])},
)
layer("TransformerEncoder with a mask", encoder, x(2, 4, 6), kwargs={"mask": Constant(additive)})
layer("TransformerDecoder", decoder, src, tgt, kwargs={"tgt_mask": Constant(additive)})
