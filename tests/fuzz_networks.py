"""Random networks: layers with random options in a row, built alike with either library.

A network is a list of lines such as ``("Conv2d", (3, 4, 2), {"stride": 2})``. Which layers fit
behind which PyTorch says: one that it refuses for what comes before is left out.
"""

from __future__ import annotations

import random
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tests.oracle import torch

Line = tuple[str, tuple[Any, ...], dict[str, Any]]
LARGEST = 2000  # elements behind a layer
CLASSES = 3
STEPS = 3

ACTIVATIONS: Sequence[Line] = [
    ("ReLU", (), {}), ("ReLU", (), {"inplace": True}), ("GELU", (), {}), ("SiLU", (), {}),
    ("GELU", (), {"approximate": "tanh"}), ("Tanh", (), {}), ("Sigmoid", (), {}),
    ("LeakyReLU", (0.1,), {}), ("ELU", (0.7,), {"inplace": True}), ("Softplus", (2.0,), {}),
    ("Hardswish", (), {}), ("Mish", (), {}), ("PReLU", (), {}), ("SELU", (), {}),
    ("Hardtanh", (-0.5, 1.5), {}), ("Softsign", (), {}), ("CELU", (2.0,), {}), ("ReLU6", (), {}),
    ("LogSigmoid", (), {}), ("Tanhshrink", (), {}), ("Hardsigmoid", (), {}),
    ("Softshrink", (0.1,), {}), ("Threshold", (0.1, -0.2), {}), ("Softmax", (1,), {}),
    ("Identity", (), {}),
]  # fmt: skip
MODES = {
    1: ("nearest", "linear"),
    2: ("nearest", "nearest-exact", "bilinear", "bicubic", "area"),
    3: ("nearest", "trilinear"),
}


def _sizes(r: random.Random, dims: int, *choices: int) -> tuple[int, ...]:
    """One number for all dimensions, or one for each."""
    if r.random() < 0.5:
        return (r.choice(choices),) * dims
    return tuple(r.choice(choices) for _ in range(dims))


def convolution(r: random.Random, shape: tuple[int, ...]) -> Line:
    channels, dims = shape[1], len(shape) - 2
    groups = r.choice([1, 1, channels, *(n for n in (2, 3) if channels % n == 0)])
    options: dict[str, Any] = {
        "stride": _sizes(r, dims, 1, 1, 2, 3),
        "padding": _sizes(r, dims, 0, 1, 1, 2),
        "dilation": _sizes(r, dims, 1, 1, 2),
        "groups": groups,
        "bias": r.random() < 0.7,
    }
    kind = "Conv"
    if r.random() < 0.25:
        kind, options["output_padding"] = "ConvTranspose", _sizes(r, dims, 0, 0, 1)
    else:
        options["padding_mode"] = r.choice(["zeros", "zeros", "reflect", "replicate", "circular"])
        if r.random() < 0.15:
            options["padding"] = r.choice(["same", "valid"])
    size = channels, groups * r.choice([1, 2, 3]), _sizes(r, dims, 1, 2, 3, 3, 4, 5)
    return f"{kind}{dims}d", size, options


def normalization(r: random.Random, shape: tuple[int, ...]) -> Line:
    channels, dims = shape[1], len(shape) - 2
    affine, kept = {"affine": r.random() < 0.8}, {"track_running_stats": r.random() < 0.8}
    groups = r.choice([n for n in range(1, channels + 1) if channels % n == 0])
    if np.prod(shape[2:]) * channels // groups == 1 or shape[-1] == 1:
        # One number less its own mean is zero but for rounding, which activations may see.
        return "Identity", (), {}
    return r.choice(
        [
            (f"BatchNorm{dims}d", (channels,), {"momentum": r.choice([0.3, None]), **affine}),
            (f"BatchNorm{dims}d", (channels,), kept),
            ("GroupNorm", (groups, channels), affine),
            (f"InstanceNorm{dims}d", (channels,), {**affine, **kept}),
            ("LayerNorm", (shape[r.choice([1, -1]) :],), {}),
            ("RMSNorm", (shape[-1],), {}),
            ("LocalResponseNorm", (3,), {}),
        ]
    )


def pooling(r: random.Random, shape: tuple[int, ...]) -> Line:
    dims = len(shape) - 2
    size, stride, rounded = r.choice([2, 3]), r.choice([None, 1, 2]), r.random() < 0.4
    padding, options = r.choice([0, 0, size // 2]), {"ceil_mode": rounded}
    counted = {**options, "count_include_pad": r.random() < 0.5}
    to = _sizes(r, dims, 1, 2, 3, 5)
    return r.choice(
        [
            (f"MaxPool{dims}d", (size, stride, padding), options),
            (f"AvgPool{dims}d", (size, stride, padding), counted),
            (f"LPPool{dims}d", (2, size, stride), options),
            (f"AdaptiveAvgPool{dims}d", (to,), {}),
            (f"AdaptiveMaxPool{dims}d", (to,), {}),
        ]
    )


def resizing(r: random.Random, shape: tuple[int, ...]) -> Line:
    dims = len(shape) - 2
    mode = r.choice(MODES[dims])
    options = {"scale_factor": r.choice([2, 1.5, 0.7]), "mode": mode}
    if mode.endswith(("linear", "cubic")):
        options["align_corners"] = r.random() < 0.5
    return r.choice(
        [
            ("Upsample", (), options),
            ("PixelShuffle", (2,), {}),
            ("PixelUnshuffle", (2,), {}),
            ("ChannelShuffle", (2,), {}),
            (f"ReflectionPad{dims}d", ((1, 0) * dims,), {}),
            (f"ConstantPad{dims}d", ((0, 1) * dims, 0.5), {}),
            (f"CircularPad{dims}d", ((1, 1) * dims,), {}),
        ]
    )


# What follows one another, each with how often it is there.
PARTS: Sequence[tuple[Callable[[random.Random, tuple[int, ...]], Line], float]] = [
    (convolution, 1.0),
    (normalization, 0.5),
    (lambda r, shape: r.choice(ACTIVATIONS), 0.8),
    (pooling, 0.5),
    (resizing, 0.2),
]


def along_channels(r: random.Random) -> tuple[list[Line], np.ndarray[Any, Any]]:
    """A network of convolutions and what stands between them, and a batch for it."""
    dims, channels = r.choice([1, 2, 2, 3]), r.choice([1, 2, 3, 4, 6])
    sizes = [r.choice([5, 6, 7, 9]) for _ in range(dims)]
    shape: tuple[int, ...] = (r.choice([1, 2, 3, 5]), channels, *sizes)
    batch = np.random.default_rng(r.getrandbits(32)).standard_normal(shape)
    lines: list[Line] = []
    for _ in range(r.randint(1, 4)):
        for make, chance in PARTS:
            if r.random() < chance:
                line = make(r, shape)
                found = _shape_behind(line, shape)
                if found is not None and np.prod(found) <= LARGEST:
                    lines.append(line)
                    shape = found
    features = int(np.prod(shape[1:]))
    return [*lines, ("Flatten", (), {}), ("Linear", (features, CLASSES), {})], batch


def _shape_behind(line: Line, shape: tuple[int, ...]) -> tuple[int, ...] | None:
    """The shape of what PyTorch makes of a batch in training, None where it refuses that."""
    name, args, kwargs = line
    try:
        with warnings.catch_warnings(), torch.no_grad():
            warnings.simplefilter("ignore")
            found = getattr(torch.nn, name)(*args, **kwargs)(torch.ones(shape))
    except (RuntimeError, ValueError):
        return None
    return tuple(found.shape) if found.ndim == len(shape) and found.numel() else None


@dataclass
class Sequences:
    """The options of a network on sequences: an embedding, layers, a mean, and a linear layer."""

    kind: str
    layers: int
    hidden: int
    width: int
    words: int
    bias: bool
    batch_first: bool
    two_ways: bool
    causal: bool
    padded: bool
    more: dict[str, Any]
    table: dict[str, Any]

    def build(self, T: Any) -> Any:
        n, o, first = T.nn, self, {"batch_first": self.batch_first}

        class Network(n.Module):  # type: ignore[misc, name-defined]
            def __init__(self) -> None:
                super().__init__()
                self.table = n.Embedding(o.words, o.width, **o.table)
                out = o.width
                if o.kind in ("RNN", "LSTM", "GRU"):
                    self.body = getattr(n, o.kind)(
                        o.width, o.hidden, o.layers, bias=o.bias, bidirectional=o.two_ways,
                        **first, **o.more,
                    )  # fmt: skip
                    out = (o.more.get("proj_size") or o.hidden) * (1 + o.two_ways)
                elif o.kind == "MultiheadAttention":
                    self.body = n.MultiheadAttention(o.width, 2, bias=o.bias, **first, **o.more)
                else:
                    layer = getattr(n, o.kind)(
                        o.width, 2, o.hidden, 0.0, bias=o.bias, **first, **o.more
                    )
                    stack = o.kind.removesuffix("Layer")
                    kwargs = {"enable_nested_tensor": False} if "Encoder" in stack else {}
                    self.body = getattr(n, stack)(layer, o.layers, **kwargs)
                self.head = n.Linear(out, CLASSES)

            def forward(self, x: Any) -> Any:
                length = x.shape[1]
                y = self.table(x)
                y = y if o.batch_first else y.transpose(0, 1)
                mask = T.ones(length, length).triu(1).bool() if o.causal else None
                pad = (x == 1) & (T.arange(length) > 0) if o.padded else None
                if o.kind == "MultiheadAttention":
                    need = o.layers == 1
                    y, weights = self.body(y, y, y, pad, need_weights=need, attn_mask=mask)
                    y = y * weights.square().sum() if need else y
                elif o.kind == "TransformerEncoderLayer":
                    y = self.body(y, mask, pad)
                elif o.kind == "TransformerDecoderLayer":
                    y = self.body(y, y * 0.5, tgt_mask=mask, tgt_key_padding_mask=pad)
                else:
                    y = self.body(y)[0]
                return self.head(y.mean(1 if o.batch_first else 0))

        return Network()


def along_time(r: random.Random) -> tuple[Sequences, np.ndarray[Any, Any]]:
    """A network on sequences of words, and a batch for it."""
    kind = r.choice(
        ["RNN", "LSTM", "LSTM", "GRU", "MultiheadAttention", "TransformerEncoderLayer"]
        + ["TransformerDecoderLayer"]
    )
    hidden, words, more = r.choice([4, 6]), r.choice([5, 11]), dict[str, Any]()
    if kind == "RNN":
        more["nonlinearity"] = r.choice(["tanh", "relu"])
    elif kind == "LSTM":
        more["proj_size"] = r.choice([0, 0, 2])
    elif kind == "MultiheadAttention":
        more.update(add_bias_kv=r.random() < 0.3, add_zero_attn=r.random() < 0.3)
    elif kind != "GRU":
        more.update(norm_first=r.random() < 0.5, activation=r.choice(["relu", "gelu"]))
    table = {"padding_idx": r.choice([None, 0]), "max_norm": r.choice([None, None, 1.0])}
    size = r.choice([1, 2, 4]), r.choice([1, 3, 5, 7])
    batch = np.random.default_rng(r.getrandbits(32)).integers(0, words, size)
    flags = [r.random() < chance for chance in (0.8, 0.5, 0.4, 0.5, 0.4)]
    options = kind, r.choice([1, 2]), hidden, r.choice([4, 6, 8]), words
    return Sequences(*options, *flags, more, table), batch


LOSSES: Sequence[Callable[[Any, Any, Any], Any]] = [
    lambda F, out, y: F.cross_entropy(out, y),
    lambda F, out, y: F.cross_entropy(out, y, label_smoothing=0.1, reduction="sum"),
    lambda F, out, y: F.cross_entropy(out, y, ignore_index=0, reduction="sum"),
    lambda F, out, y: F.mse_loss(out, F.one_hot(y, CLASSES).to(out.dtype)),
    lambda F, out, y: F.binary_cross_entropy_with_logits(out, F.one_hot(y, CLASSES).to(out.dtype)),
    lambda F, out, y: F.smooth_l1_loss(out, F.one_hot(y, CLASSES).to(out.dtype), beta=0.4),
    lambda F, out, y: F.multi_margin_loss(out, y),
    lambda F, out, y: (out.logsumexp(1) - out.gather(1, y[:, None])[:, 0]).mean(),
]


@dataclass
class Training:
    """A network with its batch, targets and loss, all of one seed."""

    network: list[Line] | Sequences
    batch: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    loss: Callable[[Any, Any, Any], Any]
    clips: bool

    def build(self, T: Any) -> Any:
        """The network in double precision, with numbers that are PyTorch's."""
        torch.manual_seed(0)
        theirs, model = self._made(torch), self._made(T)
        model.load_state_dict({k: T.tensor(v.numpy()) for k, v in theirs.state_dict().items()})
        return model.double()

    def _made(self, T: Any) -> Any:
        if isinstance(self.network, Sequences):
            return self.network.build(T)
        return T.nn.Sequential(*(getattr(T.nn, name)(*a, **k) for name, a, k in self.network))

    def run(
        self,
        T: Any,
        steps: int,
        wrap: Callable[[Any], Any] = lambda step: step,
        spoil: Callable[[Any], Any] | None = None,
    ) -> dict[str, np.ndarray[Any, Any]]:
        """The losses, the state, and what the network makes in evaluation, after some steps.

        Args:
            T: the library.
            steps: how many.
            wrap: what makes another step of the step.
            spoil: what is done to the model first.
        """
        model = self.build(T)
        if spoil is not None:
            spoil(model)
        parameters = list(model.parameters())
        # No optimizer that divides by a gradient, which may be nothing but rounding.
        optimizer = T.optim.SGD(parameters, lr=0.05, momentum=0.8, weight_decay=0.01)
        x, y = T.tensor(self.batch), T.tensor(self.targets)

        def step(x: Any, y: Any) -> Any:
            optimizer.zero_grad()
            loss = self.loss(T.nn.functional, model(x), y)
            loss.backward()
            if self.clips:
                T.nn.utils.clip_grad_norm_(parameters, 1.0)
            optimizer.step()
            return loss

        step = wrap(step)
        found = {"losses": np.array([step(x, y).item() for _ in range(steps)])}
        found.update((k, v.detach().numpy().copy()) for k, v in model.state_dict().items())
        model.eval()
        with T.no_grad():
            found["evaluation"] = model(x).numpy()
        return found


def training(seed: int) -> Training:
    """The training of a seed."""
    r = random.Random(seed)
    network, batch = r.choice([along_channels, along_channels, along_time])(r)
    targets = np.random.default_rng(r.getrandbits(32)).integers(0, CLASSES, len(batch))
    return Training(network, batch, targets, r.choice(LOSSES), r.random() < 0.3)


def difference(
    found: dict[str, np.ndarray[Any, Any]], expected: dict[str, np.ndarray[Any, Any]], near: float
) -> str | None:
    """What differs first, None where all is alike."""
    for name in expected:
        a, b = found[name], expected[name]
        if a.shape != b.shape or a.dtype != b.dtype:
            return f"{name}: {a.dtype} {a.shape}, not {b.dtype} {b.shape}"
        if not np.allclose(a, b, rtol=near, atol=near, equal_nan=True):
            return f"{name}: off by {np.nanmax(np.abs(a - b)):.3g}; losses {found['losses']}"
    return None
