"""Every op of the table on inputs of every layout: row-major results where PyTorch's are.

Only there does ``view`` work as it does in PyTorch; ours may be row-major in more places.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gradlite.ops.table import TABLE
from gradlite.tensor import Tensor, wrap
from tests.ops.test_table import describe, run, samples_of, torch_function

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")

Array = np.ndarray


def columns_first(array: Array) -> Array:
    return np.asfortranarray(array) if array.ndim else array


def with_gaps(array: Array) -> Array:
    host = np.zeros((*array.shape, 2), array.dtype)
    host[..., 0] = array
    return host[..., 0]


def swapped(array: Array, first: int, second: int) -> Array:
    if array.ndim < 2:
        return array
    return np.ascontiguousarray(array.swapaxes(first, second)).swapaxes(first, second)


LAYOUTS: dict[str, Callable[[Array], Array]] = {
    "columns first": columns_first,
    "gaps": with_gaps,
    "first two swapped": lambda array: swapped(array, 0, 1),
    "last two swapped": lambda array: swapped(array, -1, -2),
}
# PyTorch itself cannot view these inputs as it wants to.
NEEDS_ROW_MAJOR = {"kron", "take_along_dim", "view"}


@pytest.mark.filterwarnings("ignore:.*non-contiguous:UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", [n for n in sorted(TABLE) if TABLE[n].torch])
def test_results_are_row_major_where_those_of_pytorch_are(name: str, layout: str) -> None:
    entry, arrange = TABLE[name], LAYOUTS[layout]

    def ours(array: Array) -> Tensor:
        return wrap(arrange(np.array(array)))

    def theirs(array: Array) -> Any:
        return torch.from_numpy(arrange(np.array(array)))

    for number, sample in enumerate(samples_of(name)):
        what = f"{name} sample {number} {describe(sample)}"
        try:
            expected, _ = run(name, sample, theirs, torch_function(entry))
        except RuntimeError as error:
            assert name in NEEDS_ROW_MAJOR and "view size is not compatible" in str(error), what
            continue
        actual, _ = run(name, sample, ours, entry.function)
        for a, b in zip(actual, expected, strict=True):
            assert a.shape == b.shape, what
            assert a.is_contiguous() or not b.is_contiguous(), f"{what}: strides {a.stride()}"
