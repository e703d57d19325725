"""The models of the workloads, written once for every library with PyTorch's API.

`T` is the library: ``torch`` or ``gradlite``.
"""

from __future__ import annotations

import itertools
import math
from typing import Any


def mlp(T: Any, sizes: list[int]) -> Any:
    """Linear layers with ReLU between them."""
    layers: list[Any] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [T.nn.Linear(fan_in, fan_out), T.nn.ReLU()]
    return T.nn.Sequential(*layers[:-1])


def cnn(T: Any, channels: tuple[int, int] = (16, 32), size: int = 28) -> Any:
    """Two 3x3 convolutions, each with ReLU and 2x2 max-pooling, and a linear layer of 10."""
    first, second = channels
    nn = T.nn
    return nn.Sequential(
        nn.Conv2d(1, first, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Conv2d(first, second, 3, padding=1),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(second * (size // 4) ** 2, 10),
    )


def recurrent(T: Any, kind: str, vocabulary: int, embedding: int, hidden: int) -> Any:
    """Embedding, one ``nn.LSTM`` or ``nn.GRU`` layer, and a linear layer over the vocabulary."""
    nn = T.nn

    class Recurrent(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.embedding = nn.Embedding(vocabulary, embedding)
            self.layer = getattr(nn, kind)(embedding, hidden, batch_first=True)
            self.head = nn.Linear(hidden, vocabulary)

        def forward(self, tokens: Any) -> Any:
            states, _ = self.layer(self.embedding(tokens))
            return self.head(states)

    return Recurrent()


def gpt(
    T: Any, *, layers: int, width: int, heads: int, block: int, vocabulary: int, fused: bool
) -> Any:
    """A decoder-only transformer with LayerNorm before each part and GELU inside.

    With `fused` attention is ``scaled_dot_product_attention``, otherwise it is written out.
    """
    nn, F = T.nn, T.nn.functional
    head_width = width // heads

    class Attention(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.qkv = nn.Linear(width, 3 * width)
            self.proj = nn.Linear(width, width)
            self.register_buffer("mask", T.tril(T.ones(block, block)) == 0, persistent=False)

        def forward(self, x: Any) -> Any:
            batch, length, _ = x.shape
            q, k, v = (
                part.view(batch, length, heads, head_width).transpose(1, 2)
                for part in self.qkv(x).split(width, dim=2)
            )
            if fused:
                y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
            else:
                scores = (q @ k.transpose(-2, -1)) * (1.0 / math.sqrt(head_width))
                scores = scores.masked_fill(self.mask[:length, :length], float("-inf"))
                y = F.softmax(scores, dim=-1) @ v
            return self.proj(y.transpose(1, 2).contiguous().view(batch, length, width))

    class Block(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.norm1, self.attention = nn.LayerNorm(width), Attention()
            self.norm2 = nn.LayerNorm(width)
            self.mlp = nn.Sequential(
                nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
            )

        def forward(self, x: Any) -> Any:
            x = x + self.attention(self.norm1(x))
            return x + self.mlp(self.norm2(x))

    class GPT(nn.Module):  # type: ignore[misc, name-defined]
        def __init__(self) -> None:
            super().__init__()
            self.tokens = nn.Embedding(vocabulary, width)
            self.positions = nn.Embedding(block, width)
            self.blocks = nn.Sequential(*(Block() for _ in range(layers)))
            self.norm = nn.LayerNorm(width)
            self.head = nn.Linear(width, vocabulary, bias=False)

        def forward(self, tokens: Any) -> Any:
            positions = T.arange(tokens.shape[1], device=tokens.device)
            return self.head(
                self.norm(self.blocks(self.tokens(tokens) + self.positions(positions)))
            )

    return GPT()
