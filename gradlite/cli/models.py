"""The four models that ``python -m gradlite train`` offers, each for images, text or both."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import gradlite
import gradlite.nn.functional as F
from gradlite import Tensor, nn
from gradlite.cli.data import ImageData, TextData


class MLP(nn.Sequential):
    """Two hidden layers on the flattened image: (N, 1, H, W) -> (N, classes)."""

    def __init__(self, height: int, width: int, classes: int, hidden: int = 128) -> None:
        super().__init__(
            nn.Flatten(),
            nn.Linear(height * width, hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, hidden),
            nn.ReLU(),
            nn.Dropout(0.2),
            nn.Linear(hidden, classes),
        )


class CNN(nn.Sequential):
    """Two 3x3 convolutions with batch normalisation: (N, 1, H, W) -> (N, classes).

    Images larger than 8x8 are halved after the first convolution too, so that the linear layer
    stays small.
    """

    def __init__(
        self, height: int, width: int, classes: int, channels: tuple[int, int] = (16, 32)
    ) -> None:
        first, second = channels
        layers: list[nn.Module] = [
            nn.Conv2d(1, first, 3, padding=1, bias=False),
            nn.BatchNorm2d(first),
            nn.ReLU(),
        ]
        if min(height, width) > 8:
            layers.append(nn.MaxPool2d(2))
            height, width = height // 2, width // 2
        layers += [
            nn.Conv2d(first, second, 3, padding=1, bias=False),
            nn.BatchNorm2d(second),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Dropout(0.25),
            nn.Linear(second * (height // 2) * (width // 2), classes),
        ]
        super().__init__(*layers)


class RowGRU(nn.Module):
    """A GRU that reads an image row by row: (N, 1, H, W) -> (N, classes)."""

    def __init__(self, width: int, classes: int, hidden: int = 96) -> None:
        super().__init__()
        self.gru = nn.GRU(width, hidden, batch_first=True)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(hidden, classes)

    def forward(self, images: Tensor) -> Tensor:
        outputs, _ = self.gru(images.squeeze(1))
        logits: Tensor = self.head(self.dropout(outputs[:, -1]))
        return logits


class CharGRU(nn.Module):
    """A character language model with a GRU: (N, T) int64 -> (N, T, characters)."""

    def __init__(self, characters: int, hidden: int = 256, embedding: int = 64) -> None:
        super().__init__()
        self.embedding = nn.Embedding(characters, embedding)
        self.gru = nn.GRU(embedding, hidden, batch_first=True)
        self.head = nn.Linear(hidden, characters)

    def forward(self, tokens: Tensor) -> Tensor:
        outputs, _ = self.gru(self.embedding(tokens))
        logits: Tensor = self.head(outputs)
        return logits

    def sampler(self) -> Callable[[Tensor], Tensor]:
        """A function from the next characters (1, T) to the logits that follow the last one."""
        state: Tensor | None = None

        def feed(tokens: Tensor) -> Tensor:
            nonlocal state
            outputs, state = self.gru(self.embedding(tokens), state)
            logits: Tensor = self.head(outputs[0, -1])
            return logits

        return feed


class KeysAndValues:
    """What a block's attention has computed of the positions before: (N, heads, context, size)."""

    def __init__(self, context: int) -> None:
        self.context = context
        self.length = 0
        self._keys: Tensor | None = None
        self._values: Tensor | None = None

    def append(
        self, key: Tensor, value: Tensor, place: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Add positions; returns the keys and values of all that there are.

        Where a tensor says at which ``place``, so that a captured step can be told, they are those
        of the whole context, and counting is the caller's.
        """
        batch, heads, time, size = key.shape
        if self._keys is None or self._values is None:
            self._keys, self._values = key.new_zeros(2, batch, heads, self.context, size).unbind(0)
        if place is not None:
            return self._keys.index_copy_(2, place, key), self._values.index_copy_(2, place, value)
        first, self.length = self.length, self.length + time
        self._keys[:, :, first : self.length] = key
        self._values[:, :, first : self.length] = value
        return self._keys[:, :, : self.length], self._values[:, :, : self.length]


class Block(nn.Module):
    """One pre-norm transformer block: causal self-attention, then a wide GELU layer."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1 = nn.LayerNorm(width)
        self.qkv = nn.Linear(width, 3 * width)
        self.projection = nn.Linear(width, width)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = nn.Sequential(
            nn.Linear(width, 4 * width),
            nn.GELU(approximate="tanh"),
            nn.Linear(4 * width, width),
        )
        self.dropout = nn.Dropout(dropout)

    def attention(
        self, x: Tensor, seen: KeysAndValues | None = None, place: Tensor | None = None
    ) -> Tensor:
        batch, time, width = x.shape
        query, key, value = (
            part.reshape(batch, time, self.heads, width // self.heads).transpose(1, 2)
            for part in self.qkv(x).chunk(3, dim=-1)
        )
        mask = None
        if seen is not None:
            key, value = seen.append(key, value, place)
            if place is not None:
                mask = gradlite.arange(seen.context, device=x.device) <= place
        # A single position sees all there is, so it needs no mask.
        mixed = F.scaled_dot_product_attention(query, key, value, mask, is_causal=time > 1)
        projected: Tensor = self.projection(mixed.transpose(1, 2).reshape(batch, time, width))
        return projected

    def forward(
        self, x: Tensor, seen: KeysAndValues | None = None, place: Tensor | None = None
    ) -> Tensor:
        x = x + self.dropout(self.attention(self.norm1(x), seen, place))
        x = x + self.dropout(self.mlp(self.norm2(x)))
        return x


class GPT(nn.Module):
    """A character transformer: (N, T) int64 with T <= context -> (N, T, characters).

    The initial weights follow GPT-2 (Radford et al., 2019): normal with standard deviation 0.02,
    smaller by sqrt(2 * layers) where a block adds to the residual stream.
    """

    def __init__(
        self,
        characters: int,
        context: int,
        width: int = 128,
        layers: int = 3,
        heads: int = 4,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        self.context = context
        self.embedding = nn.Embedding(characters, width)
        self.position = nn.Embedding(context, width)
        self.blocks = nn.ModuleList([Block(width, heads, dropout) for _ in range(layers)])
        self.norm = nn.LayerNorm(width)
        self.head = nn.Linear(width, characters, bias=False)
        for name, parameter in self.named_parameters():
            if name.endswith(("projection.weight", "mlp.2.weight")):
                nn.init.normal_(parameter, std=0.02 / (2 * layers) ** 0.5)
            elif parameter.dim() == 2:
                nn.init.normal_(parameter, std=0.02)
            elif name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        tokens: Tensor,
        seen: Sequence[KeysAndValues] | None = None,
        place: Tensor | None = None,
    ) -> Tensor:
        positions = place
        if positions is None:
            first = 0 if seen is None else seen[0].length
            positions = gradlite.arange(first, first + tokens.shape[1], device=tokens.device)
        x = self.embedding(tokens) + self.position(positions)
        for number, block in enumerate(self.blocks):
            x = block(x, None if seen is None else seen[number], place)
        logits: Tensor = self.head(self.norm(x))
        return logits

    def window(self, length: int) -> int:
        """How many of the last characters of a text are looked at.

        All of them until they fill the context. The character after that makes the window begin
        anew with the last half, which then grows again: a character keeps its place while the
        window grows, so that what was computed of it stays true. A window that slides by one
        would move every character to another place, and nothing could be kept.
        """
        if length <= self.context:
            return length
        half = max(1, self.context // 2)
        return half + (length - self.context - 1) % (self.context - half + 1)

    def sampler(self, cached: bool = True, captured: bool = False) -> Callable[[Tensor], Tensor]:
        """A function from the next characters (1, T) to the logits that follow the last one.

        It looks at the last `window` characters.

        Args:
            cached: keep the keys and values of the window's characters, so that a new one costs a
                single position. The logits are those without, but for float rounding.
            captured: also capture the step of a single character, which pays for long texts.
        """
        text: Tensor | None = None
        length = 0
        seen = [KeysAndValues(self.context) for _ in self.blocks]

        def one(token: Tensor, place: Tensor) -> Tensor:
            logits: Tensor = self(token, seen, place)[0, -1]
            return logits

        step = gradlite.capture(one) if captured else one

        def feed(tokens: Tensor) -> Tensor:
            nonlocal text, length
            length += tokens.shape[1]
            window = self.window(length)
            text = tokens if text is None else gradlite.cat([text, tokens], dim=1)
            text = text[:, -window:]
            if not cached:
                logits: Tensor = self(text)[0, -1]
                return logits
            goes_on = tokens.shape[1] == 1 and seen[0].length + 1 == window
            if not goes_on:
                tokens = text
                for block in seen:
                    block.length = 0
            with gradlite.no_grad():
                if not (captured and goes_on and window > 1):
                    return self(tokens, seen)[0, -1]  # type: ignore[no-any-return]
                place = gradlite.tensor([window - 1], device=tokens.device)
                for block in seen:
                    block.length = window
                return step(tokens, place)  # type: ignore[no-any-return]

        return feed


def build(name: str, data: ImageData | TextData) -> nn.Module:
    """The model of that name for those data."""
    if isinstance(data, TextData):
        characters = len(data.vocabulary)
        return CharGRU(characters) if name == "gru" else GPT(characters, data.context)
    if name == "mlp":
        return MLP(data.height, data.width, data.classes)
    if name == "cnn":
        return CNN(data.height, data.width, data.classes)
    return RowGRU(data.width, data.classes)
