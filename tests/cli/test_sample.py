"""Text from a GPT, with the keys and values of earlier characters kept or computed anew."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import Tensor
from gradlite.cli.args import Settings
from gradlite.cli.data import TextData
from gradlite.cli.models import GPT, KeysAndValues
from gradlite.cli.sample import sample
from gradlite.ops import attention, attention_weights
from gradlite.profiler import profile

CHARACTERS = 18
TEXT = "".join(chr(ord("a") + i * i % 17) + "\n" * (i % 11 == 0) for i in range(600))


def gpt(context: int = 16, characters: int = CHARACTERS) -> GPT:
    """A model whose logits are far apart, as after training."""
    model = GPT(characters, context, width=32, layers=2, heads=4)
    with gradlite.no_grad():
        for parameter in model.parameters():
            parameter.mul_(4)
    return model.eval()


def tokens(count: int) -> list[Tensor]:
    numbers = np.random.default_rng(0).integers(0, CHARACTERS, (count, 1, 1))
    return [gradlite.tensor(n) for n in numbers]


@pytest.mark.parametrize("captured", [False, True])
@pytest.mark.parametrize("context", [1, 2, 3, 7, 16])
def test_logits_are_those_without_a_cache(context: int, captured: bool) -> None:
    model = gpt(context)
    with gradlite.no_grad():
        cached, plain = model.sampler(captured=captured), model.sampler(cached=False)
        for token in tokens(3 * context + 5):
            np.testing.assert_allclose(
                cached(token).numpy(), plain(token).numpy(), rtol=2e-5, atol=2e-5
            )


def test_several_characters_at_once_are_as_one_by_one() -> None:
    model, characters = gpt(8), tokens(40)
    with gradlite.no_grad():
        for cut in (1, 5, 8, 9, 13, 30):
            at_once = model.sampler(captured=cut % 2 == 0)
            one_by_one = model.sampler(cached=False)
            for token in characters[:cut]:
                expected = one_by_one(token)
            found = at_once(gradlite.cat(characters[:cut], dim=1))
            np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-5, atol=2e-5)
            for token in characters[cut:]:
                found, expected = at_once(token), one_by_one(token)
                np.testing.assert_allclose(found.numpy(), expected.numpy(), rtol=2e-5, atol=2e-5)


def test_the_window_begins_anew_with_its_half() -> None:
    model = gpt(6)
    assert [model.window(n) for n in range(1, 16)] == [
        1, 2, 3, 4, 5, 6, 3, 4, 5, 6, 3, 4, 5, 6, 3,
    ]  # fmt: skip
    assert [gpt(1).window(n) for n in (1, 2, 9)] == [1, 1, 1]


def data(context: int) -> TextData:
    settings = Settings("gpt", "text:text", "cpu", 1, 1, 4, 1e-3, "adamw", 0)
    made = TextData("text", TEXT, settings, gradlite.device("cpu"))
    made.context = context
    return made


@pytest.mark.parametrize("seed", range(4))
def test_the_same_seed_gives_the_same_text_without_a_cache(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    about = data(16)
    model = gpt(16, len(about.vocabulary.characters))
    with_cache = sample(model, about, seed, 120, temperature=4)
    plain: Callable[..., Any] = GPT.sampler
    monkeypatch.setattr(GPT, "sampler", lambda self: plain(self, cached=False))
    assert sample(model, about, seed, 120, temperature=4) == with_cache
    assert len(set(with_cache)) > 5


def test_a_character_costs_one_position() -> None:
    model = gpt(16)
    feed = model.sampler()
    costs: list[int] = []
    with gradlite.no_grad():
        for token in tokens(40):
            with profile() as prof:
                feed(token)
            shapes = [e.input_shapes[0] for e in prof.events() if e.name == "linear"]
            costs.append(shapes[0][1])
    # At the 17th the window begins anew with 8 characters, which lasts for 9.
    assert costs == [1] * 16 + [8, *[1] * 8] * 2 + [8, *[1] * 5]


def test_no_mask_is_made(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: Any) -> Any:
        raise AssertionError("a causal mask was made")

    model = gpt(16)
    feed = model.sampler()
    for module in (attention, attention_weights):
        monkeypatch.setattr(module, "causal_ones", refuse)
    with gradlite.no_grad():
        for token in tokens(16):
            feed(token)
    with pytest.raises(AssertionError, match="mask"):  # the check notices one
        model(gradlite.cat(tokens(4), dim=1))


def test_a_cache_that_forgets_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    whole = KeysAndValues.append

    def forgetful(self: KeysAndValues, *arguments: Any) -> tuple[Tensor, Tensor]:
        keys, values = whole(self, *arguments)
        return keys[:, :, -3:], values[:, :, -3:]

    monkeypatch.setattr(KeysAndValues, "append", forgetful)
    with pytest.raises(AssertionError, match="Not equal to tolerance"):
        test_logits_are_those_without_a_cache(7, captured=False)


def test_a_captured_character_is_replayed() -> None:
    model, steps = gpt(16), list[Any]()
    capture = gradlite.capture

    def noted(step: Any) -> Any:
        steps.append(capture(step))
        return steps[0]

    with pytest.MonkeyPatch.context() as patch, gradlite.no_grad():
        patch.setattr(gradlite, "capture", noted)
        feed = model.sampler(captured=True)
        for token in tokens(40):
            feed(token)
    assert steps[0].recordings == 1 and steps[0].replays > 30


def test_nothing_is_recorded() -> None:
    logits = gpt().sampler()(tokens(1)[0])
    assert not logits.requires_grad
