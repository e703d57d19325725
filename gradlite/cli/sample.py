"""Text from a trained character model."""

from __future__ import annotations

import gradlite
from gradlite import nn
from gradlite.cli.data import TextData, generator

LENGTH = 400
TEMPERATURE = 0.8


def sample(
    model: nn.Module,
    data: TextData,
    seed: int,
    length: int = LENGTH,
    temperature: float = TEMPERATURE,
) -> str:
    """Characters drawn one after the other, beginning as after a line break.

    Args:
        model: a ``CharGRU`` or a ``GPT``.
        data: the text it was trained on, which says what its outputs mean.
        seed: the same seed gives the same text.
        length: characters to draw.
        temperature: what the logits are divided by; lower is more predictable.
    """
    draws = gradlite.rand(length, generator=generator(seed, 0), dtype=gradlite.float64).tolist()
    vocabulary = data.vocabulary
    text = "\n" if "\n" in vocabulary else vocabulary.characters[0]
    model.eval()
    with gradlite.no_grad():
        feed = model.sampler()
        for draw in draws:
            logits = feed(vocabulary.encode(text[-1]).to(data.device).unsqueeze(0)).double()
            cumulative = (logits / temperature).softmax(0).cumsum(0).tolist()
            # Rounding can leave the last sum a little below 1, and the draw above it.
            index = sum(value <= draw for value in cumulative)
            text += vocabulary.characters[min(index, len(cumulative) - 1)]
    return text[1:]
