"""Text as sequences of characters, to train language models on."""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import Any

import numpy as np

from gradlite.tensor import Tensor, wrap
from gradlite.utils.data.dataset import Dataset, rows_of


class Vocabulary:
    """A numbering of characters.

    Args:
        characters: the characters; number ``i`` is the ``i``-th of them.

    Raises:
        ValueError: a character that occurs twice.

    >>> vocabulary = Vocabulary.of("hello")
    >>> vocabulary.characters
    'ehlo'
    >>> vocabulary.encode("hole")
    tensor([1, 3, 2, 0])
    >>> vocabulary.decode([1, 0, 2, 2, 3])
    'hello'
    """

    def __init__(self, characters: Iterable[str]) -> None:
        self.characters = "".join(characters)
        self._codes = _code_points(self.characters)
        self._order = np.argsort(self._codes, kind="stable")
        self._sorted = self._codes[self._order]
        twice = self._sorted[1:][self._sorted[1:] == self._sorted[:-1]]
        if twice.size:
            raise ValueError(f"a vocabulary has each character once, but {chr(twice[0])!r} twice")

    @classmethod
    def of(cls, text: str) -> Vocabulary:
        """The characters of a text, in the order of their code points."""
        return cls(sorted(set(text)))

    def encode(self, text: str) -> Tensor:
        """The numbers of a text's characters, as int64.

        Raises:
            ValueError: a character that is not in the vocabulary.
        """
        codes = _code_points(text)
        if not codes.size:
            return wrap(np.empty(0, np.int64))
        if not self.characters:
            raise ValueError(f"character {text[0]!r} at position 0 is not in the vocabulary")
        places = np.searchsorted(self._sorted, codes)
        places[places == len(self)] = 0
        unknown = np.flatnonzero(self._sorted[places] != codes)
        if unknown.size:
            position = int(unknown[0])
            raise ValueError(
                f"character {text[position]!r} at position {position} is not in the vocabulary"
            )
        return wrap(self._order[places].astype(np.int64))

    def decode(self, numbers: Any) -> str:
        """The text for a tensor, array or list of numbers (or for a single one).

        Raises:
            IndexError: a number that is not in the vocabulary.
        """
        array = getattr(numbers, "array", numbers)
        if hasattr(array, "get") and not isinstance(array, np.ndarray):
            array = array.get()
        wanted = np.asarray(array).reshape(-1)
        if wanted.size and (wanted.min() < 0 or wanted.max() >= len(self)):
            raise IndexError(f"numbers must be from 0 to {len(self) - 1}")
        codes = self._codes[wanted.astype(np.int64)]
        return codes.astype("<u4").tobytes().decode("utf-32-le", "surrogatepass")

    def __len__(self) -> int:
        return len(self.characters)

    def __contains__(self, character: object) -> bool:
        return isinstance(character, str) and len(character) == 1 and character in self.characters

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Vocabulary) and other.characters == self.characters

    def __hash__(self) -> int:
        return hash(self.characters)

    def __repr__(self) -> str:
        return f"Vocabulary({self.characters!r})"


class TextDataset(Dataset[tuple[Tensor, Tensor]]):
    """Stretches of a text, each with the same stretch one character later as the target.

    Sample ``i`` is ``(numbers[s : s + length], numbers[s + 1 : s + length + 1])`` with
    ``s = i * stride``, both int64.

    Args:
        text: the text.
        length: how many characters a sample has.
        vocabulary: the numbering; by default that of the text's own characters.
        stride: how far apart samples start; ``stride=length`` makes them disjoint.

    Attributes:
        numbers: the whole text, an int64 tensor.
        vocabulary: the numbering.

    Raises:
        ValueError: ``length`` or ``stride`` is not positive, the text is not longer than
            ``length``, or has characters that are not in the vocabulary.

    >>> text = TextDataset("hello", length=3)
    >>> [text.vocabulary.decode(part) for part in text[1]]
    ['ell', 'llo']
    """

    def __init__(
        self, text: str, length: int, vocabulary: Vocabulary | None = None, stride: int = 1
    ) -> None:
        for name, value in (("length", length), ("stride", stride)):
            if value < 1:
                raise ValueError(f"{name} should be a positive integer, but got {name}={value}")
        if len(text) <= length:
            raise ValueError(
                f"a text of {len(text)} characters has no stretch of length={length} with a target"
            )
        self.vocabulary = vocabulary or Vocabulary.of(text)
        self.numbers = self.vocabulary.encode(text)
        self.length = length
        self.stride = stride

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        length: int,
        vocabulary: Vocabulary | None = None,
        stride: int = 1,
        encoding: str = "utf-8",
    ) -> TextDataset:
        """The dataset of a text file.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: the file is not in that encoding, or as for the class.
        """
        with open(path, encoding=encoding) as file:
            try:
                text = file.read()
            except UnicodeDecodeError as error:
                raise ValueError(f"{os.fspath(path)}: {error}") from error
        return cls(text, length, vocabulary, stride)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        if not -len(self) <= index < len(self):
            raise IndexError(f"index {index} is out of range for {len(self)} samples")
        start = index % len(self) * self.stride
        array = self.numbers.array
        stop = start + self.length
        return wrap(array[start:stop]), wrap(array[start + 1 : stop + 1])

    def _collated(self, indices: Any) -> list[Tensor] | None:
        rows = rows_of(indices, len(self))
        if rows is None:
            return None
        starts = rows % len(self) * self.stride
        places = starts[:, None] + np.arange(self.length)
        array = self.numbers.array
        return [wrap(array[places]), wrap(array[places + 1])]

    def __len__(self) -> int:
        return (len(self.numbers) - self.length - 1) // self.stride + 1


def _code_points(text: str) -> np.ndarray[Any, Any]:
    """A text's Unicode code points."""
    # surrogatepass: text read with surrogateescape has lone surrogates.
    return np.frombuffer(text.encode("utf-32-le", "surrogatepass"), "<u4").astype(np.uint32)
