"""Packing and padding of sequences, and recurrent modules on packed ones."""

from __future__ import annotations

from typing import Any

import pytest

from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same


def utils(library: Any) -> Any:
    return library.nn.utils.rnn


LENGTHS = {
    "sorted": ([4, 2, 1], True),
    "equal": ([3, 3, 3], True),
    "unsorted": ([1, 4, 2], False),
    "one": ([4], True),
    "long padding": ([2, 1, 1], True),
}


def fields(packed: Any) -> list[Any]:
    return [None if field is None else field.detach() for field in packed]


@pytest.mark.parametrize("batch_first", [False, True])
@pytest.mark.parametrize("what", LENGTHS)
def test_pack_and_pad(what: str, batch_first: bool) -> None:
    lengths, enforce_sorted = LENGTHS[what]

    def program(library: Any) -> Any:
        rnn, n = utils(library), len(lengths)
        x = tensor(library, 1, *((n, 4) if batch_first else (4, n)), 3, requires_grad=True)
        packed = rnn.pack_padded_sequence(x, lengths, batch_first, enforce_sorted)
        padded, sizes = rnn.pad_packed_sequence(packed, batch_first, -1.5)
        longer, _ = rnn.pad_packed_sequence(packed, total_length=6)
        (padded * tensor(library, 2, *padded.shape)).sum().backward()
        return [
            *(fields(packed), padded.detach(), sizes, longer.detach(), x.grad),
            *(packed.is_cuda, str(packed.batch_sizes.dtype)),
            [s.detach() for s in rnn.unpack_sequence(packed)],
        ]

    same(program)


def test_lengths_as_a_tensor() -> None:
    def program(library: Any) -> Any:
        x = tensor(library, 1, 4, 3)
        packed = utils(library).pack_padded_sequence(x, library.tensor([4, 3, 2]))
        return fields(packed), repr(packed)[:14]

    same(program)


def test_sequences_of_their_own_lengths() -> None:
    def program(library: Any) -> Any:
        rnn = utils(library)
        sequences = [tensor(library, n, n, 2, requires_grad=True) for n in (3, 1, 2)]
        plain = rnn.pad_sequence(sequences)
        left = rnn.pad_sequence(sequences, True, 7.0, "left")
        packed = rnn.pack_sequence(sequences, enforce_sorted=False)
        (packed.data**2).sum().backward()
        return [
            *(plain.detach(), left.detach(), fields(packed)),
            [s.grad for s in sequences],
            [s.detach() for s in rnn.unpad_sequence(plain, library.tensor([3, 1, 2]))],
            rnn.invert_permutation(library.tensor([2, 0, 1])),
            rnn.invert_permutation(None),
        ]

    same(program)


def test_conversions_of_a_packed_sequence() -> None:
    def program(library: Any) -> Any:
        rnn = utils(library)
        packed = rnn.pack_padded_sequence(tensor(library, 1, 4, 2), [2, 4], enforce_sorted=False)
        return [
            *(fields(packed.to(library.float32)), packed.to(library.float64) is packed),
            *(packed.float().data.dtype, packed.half().data.dtype, packed.double() is packed),
            packed.cpu() is packed,
        ]

    same(program)


WRONG: dict[str, Any] = {
    "unsorted": lambda rnn, T: rnn.pack_padded_sequence(T(3, 2, 1), [1, 3]),
    "zero": lambda rnn, T: rnn.pack_padded_sequence(T(3, 2, 1), [3, 0]),
    "count": lambda rnn, T: rnn.pack_padded_sequence(T(3, 2, 1), [3]),
    "empty": lambda rnn, T: rnn.pack_padded_sequence(T(0, 2), [1]),
    "no sequences": lambda rnn, T: rnn.pad_sequence([]),
    "no iterable": lambda rnn, T: rnn.pad_sequence(3),
    "side": lambda rnn, T: rnn.pad_sequence([T(2)], padding_side="top"),
    "total_length": lambda rnn, T: rnn.pad_packed_sequence(
        rnn.pack_padded_sequence(T(3, 2), [3, 2]), total_length=2
    ),
    "unsorted sequences": lambda rnn, T: rnn.pack_sequence([T(1), T(3)]),
}


@pytest.mark.parametrize("what", WRONG)
def test_wrong_arguments(what: str) -> None:
    same(
        lambda library: WRONG[what](utils(library), library.ones),
        raises=(RuntimeError, ValueError),
        message="type" if what in ("side", "no sequences") else "exact",
    )


@pytest.mark.parametrize("name", ["RNN", "LSTM", "GRU"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("what", LENGTHS)
@pytest.mark.parametrize("with_state", [False, True])
def test_recurrent_modules_on_packed_sequences(
    name: str, bidirectional: bool, what: str, with_state: bool
) -> None:
    lengths, enforce_sorted = LENGTHS[what]

    def program(library: Any) -> Any:
        n, layers = len(lengths), 2
        module = getattr(library.nn, name)(3, 5, layers, bidirectional=bidirectional)
        fill(library, module)
        x = tensor(library, 40, 4, n, 3, requires_grad=True)
        shape = (layers * (2 if bidirectional else 1), n, 5)
        states = [tensor(library, seed, *shape, requires_grad=True) for seed in (41, 42)]
        states = states if name == "LSTM" else states[:1]
        packed = utils(library).pack_padded_sequence(x, lengths, enforce_sorted=enforce_sorted)
        hx = (tuple(states) if name == "LSTM" else states[0]) if with_state else None
        output, last = module(packed, hx)
        lasts = list(last) if isinstance(last, tuple) else [last]
        loss = (output.data * tensor(library, 43, *output.data.shape)).sum()
        for number, h in enumerate(lasts):
            loss = loss + (h * tensor(library, 44 + number, *h.shape)).sum()
        loss.backward()
        return [
            *(type(output).__name__, fields(output), [h.detach() for h in lasts], x.grad),
            [p.grad for p in module.parameters()],
            [state.grad for state in states] if with_state else None,
        ]

    same(program, rtol=1e-9, atol=1e-9)


def test_a_packed_sequence_of_another_size() -> None:
    def program(library: Any) -> Any:
        packed = utils(library).pack_sequence([library.ones(3, 1), library.ones(1, 1)])
        return outcome_of(lambda: library.nn.GRU(2, 2)(packed))

    same(program, message="exact")


@pytest.mark.parametrize("name", ["byte", "char", "short", "int", "long", "half", "double"])
def test_casts_of_a_packed_sequence(name: str) -> None:
    def program(library: Any) -> Any:
        rnn = library.nn.utils.rnn
        sequences = [library.arange(n).float() for n in (2, 3)]
        packed = rnn.pack_sequence(sequences, enforce_sorted=False)
        return tuple(getattr(packed, name)())

    same(program)
