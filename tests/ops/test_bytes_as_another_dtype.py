"""`Tensor.view(dtype)`: the same bytes as elements of another dtype."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import outcome_of, same

INPUTS = {
    "rows": lambda T: T.arange(24.0).reshape(4, 6),
    "odd": lambda T: T.arange(6.0).reshape(2, 3),
    "transposed": lambda T: T.arange(24.0).reshape(4, 6).t(),
    "columns": lambda T: T.arange(24.0).reshape(4, 6)[:, 1:3],
    "even_columns": lambda T: T.arange(24.0).reshape(4, 6)[:, 2:4],
    "steps": lambda T: T.arange(24.0).reshape(4, 6)[:, ::2],
    "odd_rows": lambda T: T.arange(6.0).reshape(2, 3)[:, :2],
    "number": lambda T: T.tensor(1.5),
    "no_rows": lambda T: T.zeros(0, 4),
    "no_columns": lambda T: T.zeros(4, 0),
}


@pytest.mark.parametrize("dtype", ["int8", "uint8", "bool", "int16", "float16", "int32", "int64"])
@pytest.mark.parametrize("name", INPUTS)
def test_values_strides_and_errors(name: str, dtype: str) -> None:
    def program(T: Any) -> Any:
        x = INPUTS[name](T)
        v = outcome_of(lambda: x.view(getattr(T, dtype)))
        if isinstance(v, Exception):
            return v
        values = v.long() if dtype != "float16" else v.view(T.int16)
        strides = v.stride() if v.numel() else None  # what they are then has no meaning
        return tuple(v.shape), strides, v.storage_offset(), v.dtype.itemsize, values

    same(program, message="exact")


def test_an_edit_reaches_the_other_and_no_gradient_passes() -> None:
    def program(T: Any) -> Any:
        x = T.ones(3, requires_grad=True)
        y = x * 1
        bits = y.view(dtype=T.int32)
        before = y._version
        bits[0] = 0
        bits -= 1
        known = bits.requires_grad, bits.is_leaf, y.view(T.float32).requires_grad
        return y, y._version - before, known, outcome_of(lambda: y.sin().sum().backward()), x.grad

    same(program)
