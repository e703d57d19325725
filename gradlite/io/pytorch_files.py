"""Reading what ``torch.save`` wrote, without PyTorch and without running what is in the file.

Such a file is a zip archive: ``data.pkl`` is a program for pickle's machine that builds the saved
object, and every ``data/N`` holds the elements of one storage. Pickle would call whatever the
program names. Here the program is read step by step, and knows a few constructors alone: those of
tensors, parameters, sizes, dtypes, devices and ordered dicts. It is what PyTorch calls
``weights_only``.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlite import dtypes
from gradlite.description import Size
from gradlite.device import array_module
from gradlite.device import device as Device
from gradlite.tensor import Tensor, make

if TYPE_CHECKING:
    import zipfile

PROGRAM = "data.pkl"
_STORAGES = {
    "BFloat16Storage": "bfloat16",
    "BoolStorage": "bool",
    "ByteStorage": "uint8",
    "CharStorage": "int8",
    "DoubleStorage": "float64",
    "FloatStorage": "float32",
    "HalfStorage": "float16",
    "IntStorage": "int32",
    "LongStorage": "int64",
    "ShortStorage": "int16",
}
_DTYPES = frozenset(_STORAGES.values())
_MARK = object()


class UnsupportedError(ValueError):
    """A file of PyTorch's that is whole, but holds what is not read here."""


class _Constructor:
    """What a program may call. No instance reaches who loads the file, unless as a dtype."""

    def __init__(self, call: Callable[..., Any]) -> None:
        self.call = call


class _Storage:
    """The elements of tensors, in their order, and the device that they were saved from."""

    def __init__(self, elements: np.ndarray[Any, Any], location: str) -> None:
        self.elements, self.location = elements, location
        self.placed: Any = None  # a Tensor of one dimension, on the device where it is wanted


class PytorchFile:
    """An open archive of ``torch.save``.

    Args:
        archive: the archive.
        program: the member in which the program stands, such as ``"archive/data.pkl"``.
        read: reads a member into an array, checking its length and checksum.
        place: puts an array on the device where it is wanted, by the device it was saved from.
    """

    def __init__(
        self,
        archive: zipfile.ZipFile,
        program: str,
        read: Callable[[zipfile.ZipFile, str, np.ndarray[Any, Any]], None],
        place: Callable[[np.ndarray[Any, Any], str], Tensor],
    ) -> None:
        self._archive, self._program, self._read, self._place = archive, program, read, place
        self._folder = program.removesuffix(PROGRAM)
        self._storages: dict[str, _Storage] = {}
        self._constructors = {
            "__builtin__.set": _Constructor(set),
            "builtins.set": _Constructor(set),
            "collections.OrderedDict": _Constructor(_ordered),
            "_codecs.encode": _Constructor(_encode),
            "torch.Size": _Constructor(Size),
            "torch.device": _Constructor(Device),
            "torch._utils._rebuild_tensor": _Constructor(self._tensor),
            "torch._utils._rebuild_tensor_v2": _Constructor(self._tensor),
            "torch._utils._rebuild_parameter": _Constructor(_parameter),
        }
        order = self._folder + "byteorder"
        there = order in archive.namelist()
        self._big = there and archive.read(order).strip() == b"big"

    # ------------------------------------------------------------------ the machine
    def load(self) -> Any:
        """The object that was saved."""
        import pickletools

        stack: list[Any] = []
        memo: dict[int, Any] = {}
        argument: Any
        for opcode, argument, _ in pickletools.genops(self._archive.read(self._program)):
            name = opcode.name
            if name == "STOP":
                (result,) = stack
                return result
            if name in _PUTS:
                memo[len(memo) if name == "MEMOIZE" else argument] = stack[-1]
            elif name in _GETS:
                stack.append(memo[argument])
            elif name in _VALUES:
                stack.append(argument)
            elif name in _CONSTANTS:
                stack.append(_CONSTANTS[name]())
            elif name in _TUPLES:
                at = len(stack) - _TUPLES[name]
                stack[at:] = [tuple(stack[at:])]
            elif name in _FROM_MARK:
                at = len(stack) - 1 - stack[::-1].index(_MARK)
                items = stack[at + 1 :]
                del stack[at:]
                _FROM_MARK[name](stack, items)
            elif name == "APPEND":
                _append(stack, [stack.pop()])
            elif name == "SETITEM":
                value, key = stack.pop(), stack.pop()
                _set_items(stack, [key, value])
            elif name == "GLOBAL":
                stack.append(self._named(*argument.split(" ", 1)))
            elif name == "STACK_GLOBAL":
                attribute, module = stack.pop(), stack.pop()
                stack.append(self._named(module, attribute))
            elif name == "BINPERSID":
                stack.append(self._storage(*stack.pop()))
            elif name == "REDUCE":
                arguments, function = stack.pop(), stack.pop()
                if function.__class__ is not _Constructor:
                    raise UnsupportedError(f"it calls an object of type {type(function).__name__}")
                stack.append(function.call(*arguments))
            elif name == "BUILD":
                state, target = stack.pop(), stack[-1]
                if target.__class__ is not OrderedDict:
                    raise UnsupportedError(f"it sets the state of a {type(target).__name__}")
                target.__dict__.update(state)  # the versions of a state_dict's modules
            elif name not in ("PROTO", "FRAME"):
                raise UnsupportedError(f"it has pickle's {name}, which is never followed here")
        raise EOFError(f"{self._program} ends early")

    def _named(self, module: str, attribute: str) -> Any:
        """What a name in the program stands for."""
        name = f"{module}.{attribute}"
        if module == "torch":
            if attribute in _STORAGES:
                return dtypes.as_dtype(_STORAGES[attribute])
            if attribute in _DTYPES:
                return dtypes.as_dtype(attribute)
        found = self._constructors.get(name)
        if found is None:
            raise UnsupportedError(
                f"Unsupported global: GLOBAL {name} was not an allowed global by default"
            )
        return found

    # ------------------------------------------------------------------ what it makes
    def _storage(self, kind: str, dtype: Any, key: str, location: str, count: int) -> _Storage:
        if kind != "storage" or not isinstance(dtype, dtypes.dtype) or not isinstance(key, str):
            raise ValueError("a storage is not described as torch.save does")
        known = self._storages.get(key)
        if known is None:
            name = f"{self._folder}data/{key}"
            size = self._archive.getinfo(name).file_size
            if size != count * dtype.itemsize:  # before memory is asked for
                raise ValueError(f"{name} has {size} bytes, not {count * dtype.itemsize}")
            elements = np.empty(count, dtype.numpy)
            self._read(self._archive, name, elements)
            if self._big:
                elements = elements.byteswap()
            if dtype is dtypes.bool:
                elements = elements.view(np.uint8) != 0  # no byte but 0 and 1 is one of NumPy's
            known = self._storages[key] = _Storage(elements, location)
        if known.elements.dtype != dtype.numpy:
            raise UnsupportedError(f"storage {key} is read in two dtypes")
        return known

    def _tensor(
        self,
        storage: _Storage,
        offset: int,
        shape: Sequence[int],
        strides: Sequence[int],
        requires_grad: bool = False,
        hooks: Any = None,
        metadata: Any = None,
    ) -> Tensor:
        numbers = (offset, *shape, *strides)
        if len(shape) != len(strides) or not all(type(n) is int and n >= 0 for n in numbers):
            raise ValueError(f"no shape and strides of a tensor: {shape}, {strides}")
        count = storage.elements.size
        last = offset + sum((n - 1) * step for n, step in zip(shape, strides))
        if offset > count or (0 not in shape and last >= count):
            raise ValueError(f"a tensor of shape {tuple(shape)} reaches beyond its storage")
        if storage.placed is None:
            storage.placed = self._place(storage.elements, storage.location)
        whole = storage.placed
        elements = whole.array[offset:]
        as_strided = array_module(whole.device).lib.stride_tricks.as_strided
        steps = [step * elements.itemsize for step in strides]
        tensor: Tensor = make(Tensor, as_strided(elements, tuple(shape), steps))
        # Tensors that share elements share the version that counts their edits.
        tensor._counter = whole._counter
        return tensor.requires_grad_() if requires_grad else tensor


def _parameter(data: Tensor, requires_grad: bool, hooks: Any = None) -> Tensor:
    from gradlite.nn.parameter import Parameter

    parameter = make(Parameter, data.array)
    parameter._counter = data._counter
    return parameter.requires_grad_(requires_grad)  # type: ignore[no-any-return]


def _ordered(items: Sequence[Any] = ()) -> OrderedDict[Any, Any]:
    return OrderedDict(items)


def _encode(text: str, encoding: str) -> bytes:
    """How pickle's second protocol writes bytes."""
    if encoding != "latin1":
        raise UnsupportedError(f"it encodes text as {encoding}")
    return text.encode("latin1")


# -- pickle's instructions, by what they do --------------------------------------------------------


def _append(stack: list[Any], items: list[Any]) -> None:
    if stack[-1].__class__ is not list:
        raise ValueError("it appends to what is no list")
    stack[-1].extend(items)


def _set_items(stack: list[Any], items: list[Any]) -> None:
    if stack[-1].__class__ not in (dict, OrderedDict):
        raise ValueError("it sets items of what is no dict")
    stack[-1].update(zip(items[::2], items[1::2], strict=True))


def _add(stack: list[Any], items: list[Any]) -> None:
    if stack[-1].__class__ is not set:
        raise ValueError("it adds to what is no set")
    stack[-1].update(items)


_PUTS = {"PUT", "BINPUT", "LONG_BINPUT", "MEMOIZE"}
_GETS = {"GET", "BINGET", "LONG_BINGET"}
_VALUES = {
    *("BININT", "BININT1", "BININT2", "LONG1", "LONG4", "BINFLOAT"),
    *("BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8"),
}
_CONSTANTS: dict[str, Callable[[], Any]] = {
    "NONE": lambda: None,
    "NEWTRUE": lambda: True,
    "NEWFALSE": lambda: False,
    "EMPTY_DICT": dict,
    "EMPTY_LIST": list,
    "EMPTY_TUPLE": tuple,
    "EMPTY_SET": set,
    "MARK": lambda: _MARK,
}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_FROM_MARK: dict[str, Callable[[list[Any], list[Any]], None]] = {
    "TUPLE": lambda stack, items: stack.append(tuple(items)),
    "LIST": lambda stack, items: stack.append(items),
    "DICT": lambda stack, items: stack.append(dict(zip(items[::2], items[1::2], strict=True))),
    "FROZENSET": lambda stack, items: stack.append(frozenset(items)),
    "APPENDS": _append,
    "SETITEMS": _set_items,
    "ADDITEMS": _add,
}
