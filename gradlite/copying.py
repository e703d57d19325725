"""Copies and pickles of tensors."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np

from gradlite.backends import transfer
from gradlite.backends.memory import address
from gradlite.description import owner
from gradlite.device import CPU, array_module, beside, device, device_of
from gradlite.tensor import Tensor, make

_OF_THE_GRAPH = ("_accumulator", "_extra", "_redo", "_retains", "_undo")


def _attributes(tensor: Tensor) -> dict[str, Any]:
    """What users have set on a tensor."""
    return {k: v for k, v in tensor.__dict__.items() if k not in _OF_THE_GRAPH}


def copied(array: Any, memo: dict[Any, Any]) -> Any:
    """A copy of an array in a copy of all of its memory.

    What shares memory shares it in the copies too: ``memo`` holds the copies by their owners.
    """
    with beside(array):
        return _copied(array, memo)


def _copied(array: Any, memo: dict[Any, Any]) -> Any:
    whole = owner(array)
    dense = whole.flags.c_contiguous or whole.flags.f_contiguous
    if not dense or whole.__class__ is not array.__class__:
        return array.copy()
    key = ("the memory of", id(whole))
    twin = memo.get(key)
    if twin is None:
        twin = memo[key] = whole.copy(order="A")
    if array.shape == whole.shape and array.strides == whole.strides:
        return twin
    elements = twin.reshape(-1, order="A").view(array.dtype)
    start = (address(array) - address(whole)) // array.itemsize
    as_strided = array_module(device_of(array)).lib.stride_tricks.as_strided
    return as_strided(elements[start:], array.shape, array.strides)


def _deepcopy(self: Tensor, memo: dict[Any, Any]) -> Any:
    """A leaf of its own with the same values, ``.grad`` and attributes; see `copied`."""
    if id(self) in memo:
        return memo[id(self)]
    if not self.is_leaf:
        raise RuntimeError(
            "Only Tensors created explicitly by the user (graph leaves) support the deepcopy "
            "protocol at the moment.  If you were attempting to deepcopy a module, this may "
            "be because of a gradlite.nn.utils.weight_norm usage, see "
            "https://github.com/pytorch/pytorch/pull/103001"
        )
    twin = make(self.__class__, copied(self.array, memo), self.requires_grad)
    memo[id(self)] = twin
    twin._grad = copy.deepcopy(self._grad, memo)
    for key, value in _attributes(self).items():
        twin.__dict__[key] = copy.deepcopy(value, memo)
    return twin


def _reduce(self: Tensor, protocol: Any) -> tuple[Any, ...]:
    """What pickle keeps: a leaf, also of a tensor that was computed."""
    array = self.array if isinstance(self.array, np.ndarray) else self.array.get()
    arguments = (self.__class__, array, self.requires_grad, str(self.device))
    return _rebuild, arguments, _attributes(self) or None


def _rebuild(cls: type, array: Any, requires_grad: bool, where: str) -> Any:
    if where != str(CPU):
        array = transfer.to_gpu(array, device(where).index, array.dtype, False, False)
    return make(cls, array, requires_grad)


_methods: Any = Tensor
_methods.__deepcopy__, _methods.__reduce_ex__ = _deepcopy, _reduce
