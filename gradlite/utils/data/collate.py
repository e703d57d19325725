"""Batches out of samples: the default ``collate_fn`` of a DataLoader."""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, MutableMapping, MutableSequence, Sequence
from typing import Any

import numpy as np

from gradlite.ops.creation import as_tensor, tensor
from gradlite.ops.joining import stack
from gradlite.tensor import Tensor, wrap

CollateMap = Mapping[Any, Callable[..., Any]]

_UNKNOWN = (
    "default_collate: batch must contain tensors, numpy arrays, numbers, dicts or lists; found {}"
)


def collate(batch: Sequence[Any], *, collate_fn_map: CollateMap | None = None) -> Any:
    """Put samples together, element by element through mappings, tuples and lists.

    Args:
        batch: the samples.
        collate_fn_map: from an element's type (or a tuple of types) to the function that puts
            such elements together, called as ``function(batch, collate_fn_map=...)``. A type that
            is not in it is looked up as a subclass of its entries, in their order.

    Raises:
        RuntimeError: lists of unequal lengths.
        TypeError: an element of a type that nothing handles.

    >>> join = {str: lambda batch, *, collate_fn_map: "+".join(batch)}
    >>> collate([("a", "b"), ("c", "d")], collate_fn_map=join)
    ['a+c', 'b+d']
    """
    first = batch[0]
    kind = type(first)
    if collate_fn_map is not None:
        function = collate_fn_map.get(kind)
        if function is None:
            matches = (f for types, f in collate_fn_map.items() if isinstance(first, types))
            function = next(matches, None)
        if function is not None:
            return function(batch, collate_fn_map=collate_fn_map)

    if isinstance(first, Mapping):
        columns = {
            key: collate([sample[key] for sample in batch], collate_fn_map=collate_fn_map)
            for key in first
        }
        return _like_mapping(first, columns)
    if isinstance(first, tuple) and hasattr(first, "_fields"):
        return kind(*(collate(c, collate_fn_map=collate_fn_map) for c in zip(*batch, strict=True)))
    if isinstance(first, Sequence):
        if any(len(sample) != len(first) for sample in batch):
            raise RuntimeError("each element in list of batch should be of equal size")
        parts = [collate(c, collate_fn_map=collate_fn_map) for c in zip(*batch, strict=True)]
        return parts if isinstance(first, tuple) else _like_sequence(first, parts)
    raise TypeError(_UNKNOWN.format(kind))


def _like_mapping(original: Mapping[Any, Any], values: dict[Any, Any]) -> Any:
    """The values in a mapping of the original's type, its other attributes kept."""
    try:
        if isinstance(original, MutableMapping):
            twin = copy.copy(original)
            twin.update(values)
            return twin
        return type(original)(values)  # type: ignore[call-arg]
    except TypeError:  # a type that cannot be copied or made from a dict
        return values


def _like_sequence(original: Sequence[Any], values: list[Any]) -> Any:
    """The values in a sequence of the original's type, its other attributes kept."""
    try:
        if isinstance(original, MutableSequence):
            twin = copy.copy(original)
            for i, value in enumerate(values):
                twin[i] = value
            return twin
        return type(original)(values)  # type: ignore[call-arg]
    except TypeError:  # a range, for one
        return values


def _collate_tensors(batch: Sequence[Tensor], *, collate_fn_map: CollateMap | None) -> Tensor:
    return stack(list(batch), 0)


def _collate_arrays(
    batch: Sequence[np.ndarray[Any, Any]], *, collate_fn_map: CollateMap | None
) -> Any:
    dtype = batch[0].dtype
    if dtype.kind in "SUO":
        raise TypeError(_UNKNOWN.format(dtype))
    return collate([as_tensor(array) for array in batch], collate_fn_map=collate_fn_map)


def _collate_numpy_scalars(
    batch: Sequence[np.generic], *, collate_fn_map: CollateMap | None
) -> Tensor:
    return as_tensor(np.array(batch))


def _collate_floats(batch: Sequence[float], *, collate_fn_map: CollateMap | None) -> Tensor:
    return wrap(np.array(batch, dtype=np.float64))


def _collate_ints(batch: Sequence[int], *, collate_fn_map: CollateMap | None) -> Tensor:
    return tensor(list(batch))


def _collate_strings(batch: Sequence[Any], *, collate_fn_map: CollateMap | None) -> Any:
    return batch


default_collate_fn_map: dict[Any, Callable[..., Any]] = {
    Tensor: _collate_tensors,
    np.ndarray: _collate_arrays,
    (np.bool_, np.number, np.object_): _collate_numpy_scalars,
    float: _collate_floats,
    int: _collate_ints,
    str: _collate_strings,
    bytes: _collate_strings,
}


def default_collate(batch: Sequence[Any]) -> Any:
    """Put samples together: tensors, arrays and numbers are stacked, strings listed.

    Tuples become lists of batches, mappings mappings of batches. Python floats become float64,
    integers int64, as in PyTorch.

    Raises:
        RuntimeError: tensors or lists of unequal sizes.
        TypeError: samples of a type that cannot be stacked.

    >>> default_collate([(1, "a"), (2, "b")])
    [tensor([1, 2]), ('a', 'b')]
    """
    return collate(batch, collate_fn_map=default_collate_fn_map)


def default_convert(data: Any) -> Any:
    """Turn NumPy arrays and numbers into tensors, through mappings, tuples and lists.

    This is the default ``collate_fn`` of a DataLoader that makes no batches.

    >>> default_convert({"x": np.array([1, 2]), "name": "a"})
    {'x': tensor([1, 2]), 'name': 'a'}
    """
    if isinstance(data, Tensor | str | bytes):
        return data
    if isinstance(data, np.ndarray | np.generic):
        return data if data.dtype.kind in "SUO" else as_tensor(data)
    if isinstance(data, Mapping):
        return _like_mapping(data, {key: default_convert(data[key]) for key in data})
    if isinstance(data, tuple) and hasattr(data, "_fields"):
        return type(data)(*(default_convert(value) for value in data))
    if isinstance(data, tuple):
        return [default_convert(value) for value in data]
    if isinstance(data, Sequence):
        return _like_sequence(data, [default_convert(value) for value in data])
    return data
