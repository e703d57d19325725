"""What the tests of kernels share: launchers for every way a kernel runs.

A test takes the fixture ``launcher`` (conftest.py) and uses it as the ops use ``K``: arrays come
from ``launcher.xp.asarray(...)`` and go back with `host`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.backends.kernel_source import SUFFIXES, Kernel
from gradlite.backends.kernels import Launcher
from tests.cuda_on_cpu import load


class ThreadsLauncher(Launcher):
    """Launches kernels on NumPy's arrays, every CUDA thread as a fiber of its own.

    Attributes:
        check: whether memory accesses and races are checked.
        seed: of the order of threads and blocks.
        regions: arrays that a kernel reaches through pointers in other arrays.
    """

    def __init__(self, check: bool = False, seed: int = 0) -> None:
        super().__init__(np, 4)
        self.check, self.seed = check, seed
        self.regions: Sequence[np.ndarray] = ()

    def address(self, array: Any) -> int:
        return int(array.ctypes.data)

    def _load(self, declared: Kernel, dtype: Any) -> Any:
        suffix = SUFFIXES[dtype]

        def run(grid: Any, block: Any, arguments: Any, shared: int) -> None:
            module = load(declared.file, suffix, check=self.check)
            module.get_function(f"{declared.name}_{suffix}")(
                grid, block, arguments, shared_mem=shared, seed=self.seed, regions=self.regions
            )

        return run


def host(array: Any) -> np.ndarray:
    """The values of a launcher's array in NumPy."""
    return array if isinstance(array, np.ndarray) else array.get()
