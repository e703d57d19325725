"""Many arrays in one launch: their addresses and sizes as tables on the device."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.backends.staging import Staging

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
    blocks = K.elementwise_grid(total)[0]
    size = CHUNK * max(1, -(-total // (blocks * CHUNK)))
    pairs = [(i, start) for i, n in enumerate(sizes) for start in range(0, n, size)]
    return K.xp.asarray(np.array(pairs, np.int64).reshape(-1)), len(pairs), size


class TensorTable:
    """Rows of a table, one per tensor, for kernels that take all of them at once.

    Args:
        K: the launcher.
        sizes: the number of elements of each tensor.
        columns: how many addresses follow it in a row.
    """

    def __init__(self, K: Any, sizes: Sequence[int], columns: int) -> None:
        self.K = K
        self.chunks, self.chunk_count, self.chunk_size = chunk_table(K, sizes)
        self._staging = Staging(K.xp, len(sizes) * (1 + columns))
        self._rows = self._staging.values.reshape(len(sizes), 1 + columns)
        self._rows[:, 0] = sizes

    def launch(self, kernel: str, dtype: Any, columns: Sequence[Sequence[Any]], *rest: Any) -> None:
        """Launch a kernel over dense arrays: those of each column have the sizes of the table."""
        address = self.K.address
        for place, arrays in enumerate(columns, start=1):
            self._rows[:, place] = [address(array) for array in arrays]
        self._staging.send()
        self.K.launch(
            kernel, dtype, (self.chunk_count,), (BLOCK,), self._staging.array, self.chunks, *rest,
            self.chunk_count, self.chunk_size,
        )  # fmt: skip


def table(K: Any, arrays: Sequence[Any], columns: int = 1) -> TensorTable:
    """The table for arrays of such sizes on such a device, made at the first call."""
    device = getattr(getattr(arrays[0], "device", None), "id", 0)
    sizes = tuple([array.size for array in arrays])
    found = K.tables.get((device, sizes, columns))
    if found is None:
        if len(K.tables) >= TABLES_KEPT:
            K.tables.clear()
        found = K.tables[device, sizes, columns] = TensorTable(K, sizes, columns)
    return found  # type: ignore[no-any-return]
