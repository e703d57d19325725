"""Sequences of different lengths: padded into one tensor or packed without padding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from gradlite import dtypes
from gradlite.ops.creation import full
from gradlite.ops.guard import on_its_device
from gradlite.ops.joining import cat
from gradlite.tensor import Tensor, wrap

__all__ = [
    "PackedSequence",
    "invert_permutation",
    "pack_padded_sequence",
    "pack_sequence",
    "pad_packed_sequence",
    "pad_sequence",
    "unpack_sequence",
    "unpad_sequence",
]


class PackedSequence(NamedTuple):
    """Sequences stored step by step without padding, the longest first.

    Attributes:
        data: the first steps of all sequences, then their second steps, and so on.
        batch_sizes: how many sequences are that long, for every step (int64, on the CPU).
        sorted_indices: the original place of every sequence; None when they came sorted.
        unsorted_indices: the inverse of it.
    """

    data: Any
    batch_sizes: Any
    sorted_indices: Any = None
    unsorted_indices: Any = None

    def to(self, *args: Any, **kwargs: Any) -> PackedSequence:
        """The data with another dtype or on another device; see `Tensor.to`."""
        data = self.data.to(*args, **kwargs)
        if data is self.data:
            return self
        indices = [
            None if i is None else i.to(data.device)
            for i in (self.sorted_indices, self.unsorted_indices)
        ]
        return PackedSequence(data, self.batch_sizes, *indices)

    def cpu(self) -> PackedSequence:
        """The data on the CPU."""
        return self.to("cpu")

    def cuda(self, device: Any = None) -> PackedSequence:
        """The data on a CUDA device."""
        return self.to("cuda" if device is None else device)

    def double(self) -> PackedSequence:
        """The data in float64."""
        return self.to(dtypes.float64)

    def float(self) -> PackedSequence:
        """The data in float32."""
        return self.to(dtypes.float32)

    def half(self) -> PackedSequence:
        """The data in float16."""
        return self.to(dtypes.float16)

    def bfloat16(self) -> PackedSequence:
        """The data in bfloat16."""
        return self.to(dtypes.bfloat16)

    def byte(self) -> PackedSequence:
        """The data in uint8."""
        return self.to(dtypes.uint8)

    def char(self) -> PackedSequence:
        """The data in int8."""
        return self.to(dtypes.int8)

    def short(self) -> PackedSequence:
        """The data in int16."""
        return self.to(dtypes.int16)

    def int(self) -> PackedSequence:
        """The data in int32."""
        return self.to(dtypes.int32)

    def long(self) -> PackedSequence:
        """The data in int64."""
        return self.to(dtypes.int64)

    @property
    def is_cuda(self) -> bool:
        """Whether the data lives on a CUDA device."""
        return bool(self.data.is_cuda)


@on_its_device
def invert_permutation(permutation: Tensor | None) -> Tensor | None:
    """The permutation that undoes another one."""
    if permutation is None:
        return None
    array = permutation.array
    inverse = array.copy()
    inverse[array] = range_like(array)
    return wrap(inverse)


@on_its_device
def range_like(array: Any) -> Any:
    """0, 1, 2, ... as an array of the same length, dtype and device."""
    return (array * 0 + 1).cumsum() - 1


def _lengths(lengths: Any) -> np.ndarray[Any, Any]:
    if isinstance(lengths, Tensor):
        if lengths.is_cuda:
            raise RuntimeError(
                "'lengths' argument should be a 1D CPU int64 tensor, but got "
                f"{lengths.dim()}D {lengths.device} {lengths.dtype.name} tensor"
            )
        # Shapes depend on them: read as numbers, which a captured step refuses by that name.
        return np.asarray(lengths.tolist(), dtype=np.int64)  # type: ignore[attr-defined]
    return np.asarray(lengths, dtype=np.int64)


def pack_padded_sequence(
    input: Tensor, lengths: Any, batch_first: bool = False, enforce_sorted: bool = True
) -> PackedSequence:
    """Pack a padded batch of sequences.

    Args:
        input: ``(T, N, *)``, or ``(N, T, *)`` with ``batch_first``.
        lengths: the length of each of the N sequences, as a list or a CPU tensor.
        enforce_sorted: insist on falling lengths; False sorts them.

    Raises:
        RuntimeError: lengths that are not positive, not sorted or not N.
    """
    sizes = _lengths(lengths)
    sorted_indices = None
    if not enforce_sorted:
        order = np.argsort(-sizes, kind="stable")
        sizes = sizes[order]
        sorted_indices = wrap(order).to(input.device)  # type: ignore[attr-defined]
        input = input.index_select(0 if batch_first else 1, sorted_indices)  # type: ignore[attr-defined]
    if input.numel() == 0:
        raise RuntimeError("Cannot pack empty tensors.")
    if batch_first:
        input = input.transpose(0, 1)  # type: ignore[attr-defined]
    batch_size = input.shape[1]
    if len(sizes) != batch_size:
        raise RuntimeError(
            f"Expected `len(lengths)` to be equal to batch_size, but got {len(sizes)} "
            f"(batch_size={batch_size})"
        )
    if sizes[-1] <= 0:
        raise RuntimeError(
            "Length of all samples has to be greater than 0, but found an element in 'lengths' "
            "that is <= 0"
        )
    if (np.diff(sizes) > 0).any():
        raise RuntimeError(
            "`lengths` array must be sorted in decreasing order when `enforce_sorted` is True. "
            "You can pass `enforce_sorted=False` to pack_padded_sequence and/or pack_sequence to "
            "sidestep this requirement if you do not need ONNX exportability."
        )
    batch_sizes = (np.arange(sizes[0])[:, None] < sizes).sum(1)
    parts = [
        input[start:stop, :size].reshape(-1, *input.shape[2:])  # type: ignore[index]
        for start, stop, size in runs(batch_sizes)
    ]
    data = parts[0] if len(parts) == 1 else cat(parts)
    return PackedSequence(
        data, wrap(batch_sizes), sorted_indices, invert_permutation(sorted_indices)
    )


def runs(batch_sizes: np.ndarray[Any, Any]) -> list[tuple[int, int, int]]:
    """The spans of steps with one batch size, as (start, stop, batch size)."""
    starts = np.flatnonzero(np.diff(batch_sizes, prepend=-1))
    stops = np.append(starts[1:], len(batch_sizes))
    return [
        (int(start), int(stop), int(batch_sizes[start]))
        for start, stop in zip(starts, stops, strict=True)
    ]


def pad_packed_sequence(
    sequence: PackedSequence,
    batch_first: bool = False,
    padding_value: float = 0.0,
    total_length: int | None = None,
) -> tuple[Tensor, Tensor]:
    """Undo `pack_padded_sequence`.

    Returns:
        The padded sequences ``(T, N, *)``, or ``(N, T, *)`` with ``batch_first``, in their
        original order, and their lengths. T is the longest length, or ``total_length``.
    """
    batch_sizes = sequence.batch_sizes.array
    longest = len(batch_sizes)
    if total_length is not None and total_length < longest:
        raise ValueError(
            "Expected total_length to be at least the length of the longest sequence in input, "
            f"but got total_length={total_length} and max sequence length being {longest}"
        )
    data = sequence.data
    columns, steps, offset = int(batch_sizes[0]), [], 0

    def padding(*shape: int) -> Tensor:
        shape = (*shape, *data.shape[1:])
        return full(shape, padding_value, dtype=data.dtype, device=data.device)

    for start, stop, size in runs(batch_sizes):
        count = (stop - start) * size
        step = data[offset : offset + count].reshape(stop - start, size, *data.shape[1:])
        offset += count
        if size < columns:
            step = cat([step, padding(stop - start, columns - size)], 1)
        steps.append(step)
    if total_length is not None and total_length > longest:
        steps.append(padding(total_length - longest, columns))
    padded: Any = steps[0] if len(steps) == 1 else cat(steps)
    lengths = (batch_sizes[:, None] > np.arange(columns)).sum(0)
    if sequence.unsorted_indices is not None:
        padded = padded.index_select(1, sequence.unsorted_indices)
        lengths = lengths[sequence.unsorted_indices.cpu().array]
    return (padded.transpose(0, 1) if batch_first else padded), wrap(lengths)


def pad_sequence(
    sequences: Any,
    batch_first: bool = False,
    padding_value: float = 0.0,
    padding_side: str = "right",
) -> Tensor:
    """Stack tensors ``(L_i, *)`` of different lengths along a new dimension, padded to the longest.

    Returns:
        ``(T, N, *)``, or ``(N, T, *)`` with ``batch_first``.
    """
    if not isinstance(sequences, Iterable):
        raise RuntimeError(
            "pad_sequence: Expected iterable for input sequences, but got arg of type: "
            f"{type(sequences)}"
        )
    sequences = list(sequences)
    if not sequences:
        raise RuntimeError("received an empty list of sequences")
    if padding_side not in ("left", "right"):
        raise RuntimeError(
            f"Expected padding_side to be one of left or right, but got {padding_side}."
        )
    longest = max(len(s) for s in sequences)
    rows = []
    for sequence in sequences:
        if len(sequence) < longest:
            gap = full(
                (longest - len(sequence), *sequence.shape[1:]),
                padding_value,
                dtype=sequence.dtype,
                device=sequence.device,
            )
            sequence = cat([sequence, gap] if padding_side == "right" else [gap, sequence])
        rows.append(sequence.unsqueeze(0))
    padded: Any = cat(rows)
    return padded if batch_first else padded.transpose(0, 1)  # type: ignore[no-any-return]


def unpad_sequence(
    padded_sequences: Tensor, lengths: Tensor, batch_first: bool = False
) -> list[Tensor]:
    """Undo `pad_sequence`: a list of tensors of their own lengths."""
    if not batch_first:
        padded_sequences = padded_sequences.transpose(0, 1)  # type: ignore[attr-defined]
    return [
        padded_sequences[place, :length]  # type: ignore[index]
        for place, length in enumerate(lengths.tolist())
    ]


def pack_sequence(sequences: Sequence[Tensor], enforce_sorted: bool = True) -> PackedSequence:
    """Pack tensors ``(L_i, *)`` of different lengths."""
    lengths = [len(s) for s in sequences]
    return pack_padded_sequence(pad_sequence(sequences), lengths, enforce_sorted=enforce_sorted)


def unpack_sequence(packed_sequences: PackedSequence) -> list[Tensor]:
    """Undo `pack_sequence`: a list of tensors of their own lengths."""
    padded, lengths = pad_packed_sequence(packed_sequences, batch_first=True)
    return unpad_sequence(padded, lengths, batch_first=True)
