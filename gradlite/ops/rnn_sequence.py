"""Recurrent layers on a GPU, a whole sequence in one launch (``kernels/rnn_sequence.cu``).

A block of the kernels walks through time with a few rows of the batch, and reads the recurrent
weights again at every step. That beats a product and a kernel for each step as long as the weights
are small: see `BYTES`.
"""

from __future__ import annotations

from typing import Any, NamedTuple

BLOCK = 512
QUAD = 4  # of the kernels: how far a product's depth is unrolled
ROWS = (1, 2, 4)  # of the batch, for a block
ROOM = 47 * 1024  # bytes of shared memory, of 48 that a block has
# What a multiprocessor may read of weights in a step, in all the blocks that it runs one after
# another. On an H100 that takes 1 us for every 100 KB or so beyond the first 100, halves as long as
# float32, since they are converted; a product and a kernel that wait for each other take 4 to 6.
BYTES = 640 << 10


class Plan(NamedTuple):
    """How a kernel is launched.

    Attributes:
        rows: of the batch, for a block.
        groups: parts that a product's depth is divided into.
        grid, threads, shared: of the launch.
    """

    rows: int
    groups: int
    grid: int
    threads: int
    shared: int


def _rows(K: Any, batch: int, hidden: int) -> int:
    """As few rows to a block as fill the multiprocessors once."""
    fit = [rows for rows in ROWS if rows * hidden <= BLOCK]
    enough = [rows for rows in fit if -(-batch // rows) <= K.processors]
    return (enough or fit[-1:])[0]


def serves(K: Any, dtype: Any, shape: tuple[int, ...], gates: int) -> bool:
    """Whether a sequence is run in one launch, by its (steps, batch, hidden)."""
    steps, batch, hidden = shape
    if K.serial or hidden > BLOCK or steps >= 1 << 31:
        return False
    turns = -(-batch // (_rows(K, batch, hidden) * K.processors))
    if turns > 1 and dtype.itemsize == 2:  # tensor cores are faster
        return False
    return turns * gates * hidden * hidden * max(dtype.itemsize, 4) <= BYTES


def plan(K: Any, dtype: Any, shape: tuple[int, int], depth: int, width: int) -> Plan:
    """The launch of a kernel whose products are by weights (depth, width)."""
    batch, hidden = shape
    rows, acc = _rows(K, batch, hidden), K.acc(dtype).itemsize
    lanes = 16 // dtype.itemsize
    across = width // lanes if width % lanes == 0 else width
    parts = -(-depth // QUAD)
    threads = min(BLOCK, -(-max(rows * hidden, across * parts) // 32) * 32)
    kept = rows * (QUAD * parts + hidden)
    groups = max(1, min(parts, threads // across, (ROOM // acc - kept) // (rows * width)))
    shared = (kept + groups * rows * width) * acc
    return Plan(rows, groups, min(-(-batch // rows), 65535), threads, shared)


def _launch(
    K: Any, kernel: str, dtype: Any, how: Plan, steps: int, shape: tuple[int, int], reverse: bool,
    *arguments: Any,
) -> None:  # fmt: skip
    K.launch(
        kernel, dtype, (how.grid,), (how.threads,), *arguments, steps, *shape, how.rows,
        how.groups, int(reverse), shared=how.shared,
    )  # fmt: skip


def _dense(K: Any, *arrays: Any) -> list[Any]:
    return [None if a is None else K.dense(a) for a in arrays]


def lstm_forward(
    K: Any, gates: Any, h0: Any, c0: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
) -> tuple[Any, ...]:
    """All hidden and cell states and the last of each; ``gates`` becomes the gates."""
    steps, dtype, shape = len(gates), gates.dtype, h0.shape
    hs, cs = (K.empty((steps + 1, *shape), dtype) for _ in range(2))
    h, c = (K.empty(shape, dtype) for _ in range(2))
    how = plan(K, dtype, shape, shape[1], 4 * shape[1])
    _launch(
        K, "lstm_sequence_forward", dtype, how, steps, shape, reverse, gates, K.dense(w_hh.T),
        *_dense(K, b_ih, b_hh, h0, c0), hs, cs, h, c,
    )  # fmt: skip
    return hs, cs, h, c


def lstm_backward(
    K: Any, grads: Any, gates: Any, cs: Any, w_hh: Any, reverse: bool
) -> tuple[Any, Any, Any]:
    """The gradients of the gates' sums, of the first hidden and of the first cell state."""
    steps, dtype, shape = len(gates), gates.dtype, cs.shape[1:]
    d, h, c = K.empty_like(gates), K.empty(shape, dtype), K.empty(shape, dtype)
    how = plan(K, dtype, shape, 4 * shape[1], shape[1])
    _launch(
        K, "lstm_sequence_backward", dtype, how, steps, shape, reverse, *_dense(K, *grads), gates,
        cs, K.dense(w_hh), d, h, c,
    )  # fmt: skip
    return d, h, c


def gru_forward(
    K: Any, gates: Any, h0: Any, w_hh: Any, b_ih: Any, b_hh: Any, reverse: bool
) -> tuple[Any, Any, Any]:
    """All hidden states, h_n + b of all steps, the last hidden state; ``gates`` as in the LSTM."""
    steps, dtype, shape = len(gates), gates.dtype, h0.shape
    hs, inner = K.empty((steps + 1, *shape), dtype), K.empty((steps, *shape), dtype)
    h = K.empty(shape, dtype)
    how = plan(K, dtype, shape, shape[1], 3 * shape[1])
    _launch(
        K, "gru_sequence_forward", dtype, how, steps, shape, reverse, gates, K.dense(w_hh.T),
        *_dense(K, b_ih, b_hh, h0), hs, inner, h,
    )  # fmt: skip
    return hs, inner, h


def gru_backward(
    K: Any, grads: Any, gates: Any, hs: Any, inner: Any, w_hh: Any, reverse: bool
) -> tuple[Any, Any, Any]:
    """The gradients of the input's sums, of the hidden state's, and of the first hidden state."""
    steps, dtype, shape = len(gates), gates.dtype, hs.shape[1:]
    own, back, h = K.empty_like(gates), K.empty_like(gates), K.empty(shape, dtype)
    how = plan(K, dtype, shape, 3 * shape[1], shape[1])
    _launch(
        K, "gru_sequence_backward", dtype, how, steps, shape, reverse, *_dense(K, *grads), gates,
        hs, inner, K.dense(w_hh), own, back, h,
    )  # fmt: skip
    return own, back, h


def rnn_forward(
    K: Any, sums: Any, h0: Any, w_hh: Any, b_ih: Any, b_hh: Any, nonlinearity: str, reverse: bool
) -> tuple[Any, Any]:
    """All hidden states and the last one."""
    steps, dtype, shape = len(sums), sums.dtype, h0.shape
    hs, h = K.empty((steps + 1, *shape), dtype), K.empty(shape, dtype)
    how = plan(K, dtype, shape, shape[1], shape[1])
    _launch(
        K, "rnn_sequence_forward", dtype, how, steps, shape, reverse, sums, K.dense(w_hh.T),
        *_dense(K, b_ih, b_hh, h0), hs, h, int(nonlinearity == "relu"),
    )  # fmt: skip
    return hs, h


def rnn_backward(
    K: Any, grads: Any, hs: Any, w_hh: Any, nonlinearity: str, reverse: bool
) -> tuple[Any, Any]:
    """The gradients of the sums, and of the first hidden state."""
    steps, dtype, shape = len(hs) - 1, hs.dtype, hs.shape[1:]
    d, h = K.empty((steps, *shape), dtype), K.empty(shape, dtype)
    how = plan(K, dtype, shape, shape[1], shape[1])
    _launch(
        K, "rnn_sequence_backward", dtype, how, steps, shape, reverse, *_dense(K, *grads), hs,
        K.dense(w_hh), d, h, int(nonlinearity == "relu"),
    )  # fmt: skip
    return d, h
