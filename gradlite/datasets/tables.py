"""Tables of numbers from text files."""

from __future__ import annotations

import csv
import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite.tensor import Tensor, wrap
from gradlite.utils.data.dataset import TensorDataset


class CSVDataset(TensorDataset):
    """The rows of a CSV file of numbers, as (features, target) or (features,).

    Args:
        path: the file.
        target: the column to predict, by name or number (negative ones count from the end); None
            leaves all columns among the features.
        columns: the columns to use as features, by name or number; by default all others.
        header: whether the first line holds names.
        delimiter: what separates the values.
        dtype: of the features; by default the default dtype.
        target_dtype: of the target; by default int64 if all its values are whole numbers, else
            ``dtype``.

    Attributes:
        features: shape (n, columns).
        targets: shape (n,), or None.
        column_names: the features' names (``"0"``, ``"1"``, ... without a header).

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a line with too few or too many values, a value that is no number, no lines,
            or an unknown column; the message names file, line and column.

    >>> import tempfile, os
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     path = os.path.join(folder, "t.csv")
    ...     with open(path, "w") as file:
    ...         _ = file.write("height,width,label\\n1.5,2,0\\n3,4,1\\n")
    ...     table = CSVDataset(path, target="label")
    >>> table[1]
    (tensor([3., 4.]), tensor(1))
    """

    features: Tensor
    targets: Tensor | None
    column_names: list[str]

    def __init__(
        self,
        path: str | os.PathLike[str],
        target: str | int | None = None,
        *,
        columns: Sequence[str | int] | None = None,
        header: bool = True,
        delimiter: str = ",",
        dtype: Any = None,
        target_dtype: Any = None,
    ) -> None:
        self.path = os.fspath(path)
        names, table = _read_numbers(self.path, header, delimiter)
        target_column = None if target is None else self._column(target, names)
        if columns is None:
            chosen = [i for i in range(len(names)) if i != target_column]
        else:
            chosen = [self._column(column, names) for column in columns]
        kind = _numpy_dtype(dtype, dtypes.get_default_dtype())
        self.column_names = [names[i] for i in chosen]
        self.features = wrap(np.ascontiguousarray(table[:, chosen], kind))
        self.targets = None
        if target_column is None:
            super().__init__(self.features)
            return
        values = table[:, target_column]
        whole = bool((values == np.floor(values)).all() and np.isfinite(values).all())
        target_kind = _numpy_dtype(target_dtype, dtypes.int64 if whole else kind)
        self.targets = wrap(values.astype(target_kind))
        super().__init__(self.features, self.targets)

    def _column(self, column: str | int, names: list[str]) -> int:
        if isinstance(column, str):
            if column in names:
                return names.index(column)
        elif -len(names) <= column < len(names):
            return column % len(names)
        raise ValueError(f"{self.path}: no column {column!r} among {names}")


def _numpy_dtype(dtype: Any, default: Any) -> np.dtype[Any]:
    wanted = default if dtype is None else dtype
    result: np.dtype[Any] = dtypes.as_dtype(wanted).numpy
    return result


def _read_numbers(
    path: str, header: bool, delimiter: str
) -> tuple[list[str], np.ndarray[Any, Any]]:
    """The column names and the values, as float64."""
    rows: list[list[float]] = []
    names: list[str] | None = None
    # utf-8-sig: spreadsheets put a byte order mark in front.
    with open(path, newline="", encoding="utf-8-sig") as file:
        reader = csv.reader(file, delimiter=delimiter)
        try:
            for fields in reader:
                if not fields:
                    continue
                if names is None:
                    names = [field.strip() for field in fields]
                    if header:
                        continue
                    names = [str(i) for i in range(len(fields))]
                rows.append(_row(fields, names, f"{path}:{reader.line_num}"))
        except (csv.Error, UnicodeDecodeError) as error:
            raise ValueError(f"{path}:{reader.line_num + 1}: {error}") from error
    if names is None or not rows:
        raise ValueError(f"{path}: no rows of numbers")
    return names, np.array(rows, np.float64)


def _row(fields: list[str], names: list[str], place: str) -> list[float]:
    if len(fields) != len(names):
        raise ValueError(f"{place}: expected {len(names)} values, found {len(fields)}")
    values = []
    for name, field in zip(names, fields, strict=True):
        try:
            values.append(float(field))
        except ValueError:
            raise ValueError(f"{place}: column {name!r}: not a number: {field!r}") from None
    return values
