"""Many arrays in one launch: their addresses and sizes as tables on the device."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.backends.staging import Staging, not_captured, own_tables

BLOCK = 256
# A chunk is what a block does at a time: all threads have work, and vectors stay aligned.
CHUNK = 1024
TABLES_KEPT = 64


def chunk_table(K: Any, sizes: Sequence[int]) -> tuple[Any, int, int]:
    """Arrays of these sizes cut up for the blocks of a launch.

    Returns:
        The table, (tensor, first element) of each chunk, the number of chunks, and their size.
    """
    total = sum(sizes)
    blocks = K.table_blocks(total)
    size = CHUNK * max(1, -(-total // (blocks * CHUNK)))
    pairs = [(i, start) for i, n in enumerate(sizes) for start in range(0, n, size)]
    return K.xp.asarray(np.array(pairs, np.int64).reshape(-1)), len(pairs), size


class TensorTable:
    """Rows of a table, one per tensor, for kernels that take all of them at once.

    Args:
        K: the launcher.
        dtype: of the tensors.
        sizes: the number of elements of each.
        columns: how many addresses follow it in a row.
    """

    def __init__(self, K: Any, dtype: Any, sizes: Sequence[int], columns: int) -> None:
        self.K, self.dtype = K, dtype
        self.chunks, self.chunk_count, self.chunk_size = chunk_table(K, sizes)
        self._staging = Staging(K.xp, len(sizes) * (1 + columns))
        self._rows = self._staging.values.reshape(len(sizes), 1 + columns)
        self._rows[:, 0] = sizes
        self._addresses = np.empty(len(sizes), np.int64)

    def point(self, *columns: list[Any]) -> bool:
        """Let the rows point to arrays of the table's sizes; False where kernels cannot take them.

        These are different, row-major and of the table's dtype.
        """
        arrays = columns[0] if len(columns) == 1 else [a for column in columns for a in column]
        if len(set(map(id, arrays))) < len(arrays):
            return False
        for place, column in enumerate(columns, start=1):
            if not self.K.addresses(column, self.dtype, self._addresses):
                return False
            self._rows[:, place] = self._addresses
        return True

    def launch(self, kernel: str, *rest: Any) -> None:
        """Launch a kernel over the arrays that the rows point to."""
        self._staging.send()
        self.K.launch(
            kernel, self.dtype, (self.chunk_count,), (BLOCK,), self._staging.array, self.chunks,
            *rest, self.chunk_count, self.chunk_size,
        )  # fmt: skip


def table(K: Any, arrays: Sequence[Any], columns: int = 1) -> TensorTable:
    """The table for arrays of such sizes, dtype and device, made at the first call.

    Each thread has its own, and each stream of a GPU, whose launches are not ordered with those
    of others: they would find the addresses of somebody else's arrays.
    """
    kind = (arrays[0].dtype, tuple([array.size for array in arrays]), columns)
    if K.xp is np:
        key: Any = (threading.get_ident(), *kind)
    else:
        stream = K.xp.cuda.get_current_stream()
        key = (threading.get_ident(), arrays[0].device.id, stream.ptr, *kind)
    own = own_tables()
    tables = K.tables if own is None else own
    found = tables.get(key)
    if found is None:
        if len(tables) >= TABLES_KEPT:
            tables.clear()
        with not_captured():
            found = tables[key] = TensorTable(K, *kind)
    return found  # type: ignore[no-any-return]
