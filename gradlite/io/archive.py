"""Saving and loading without pickle: nothing in a file is ever executed.

A file is a zip archive with ``tree.json``, which holds the structure and the plain values, and
one ``arrays/N.npy`` per array, uncompressed, so that NumPy alone can read what gradlite wrote::

    numpy.load(zipfile.ZipFile("model.pt").open("arrays/0.npy"))

Files are written under another name in the same directory and then moved to their place, so that
a crash leaves either the old file or the new one, never half of one.
"""

from __future__ import annotations

import errno
import io
import json
import math
import os
import stat
import struct
import zlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from gradlite import dtypes
from gradlite.description import Size
from gradlite.device import array_module, as_device
from gradlite.device import device as Device
from gradlite.io.files import replacing
from gradlite.tensor import Tensor, make

if TYPE_CHECKING:
    import zipfile

FORMAT = "gradlite"
VERSION = 1
_TREE = "tree.json"
# A fixed date makes equal contents equal files.
_DATE = (1980, 1, 1, 0, 0, 0)
_NPY_VERSION = (1, 0)
_CHUNK = 1 << 20

PathOrFile = str | os.PathLike[str] | IO[bytes]
MapLocation = str | Device | Mapping[str, str] | Callable[[Tensor, str], Tensor | None] | None


# -- public functions ---------------------------------------------------------------------------


def save(
    obj: Any,
    f: PathOrFile,
    pickle_module: Any = None,
    pickle_protocol: int = 2,
    _use_new_zipfile_serialization: bool = True,
    _disable_byteorder_record: bool = False,
) -> None:
    """Write nested dicts, lists and tuples of tensors, arrays and plain values to a file.

    Saved are Tensors and Parameters (with ``requires_grad``; not their graph or ``.grad``), NumPy
    arrays and scalars, dict, OrderedDict, list, tuple, ``Size``, None, bool, int, float, str,
    dtypes and devices. A tensor that occurs several times is written once, as are tensors that
    share the whole of one array, and they share it again when loaded.

    Args:
        obj: what to save, such as ``model.state_dict()``.
        f: a path, replaced in one step, or a file opened for writing bytes.
        pickle_module, pickle_protocol, _use_new_zipfile_serialization, _disable_byteorder_record:
            accepted for PyTorch's sake; nothing is pickled.

    Raises:
        TypeError: something in ``obj`` that cannot be saved; the message says where it is.
        ValueError: a container that contains itself.

    >>> import io
    >>> file = io.BytesIO()
    >>> save({"step": 3, "mean": np.zeros(2)}, file)
    >>> _ = file.seek(0)
    >>> load(file)
    {'step': 3, 'mean': array([0., 0.])}
    """
    encoder = _Encoder()
    root = encoder.encode(obj, "")
    tree = {
        "format": FORMAT,
        "version": VERSION,
        "tensors": encoder.tensors,
        "arrays": len(encoder.arrays),
        "root": root,
    }
    text = json.dumps(tree, allow_nan=False, separators=(",", ":")).encode()
    if not isinstance(f, str | os.PathLike):
        _write(f, text, encoder.arrays)
        return
    with replacing(f) as temporary, open(temporary, "wb") as file:
        _write(file, text, encoder.arrays)


def load(
    f: PathOrFile,
    map_location: MapLocation = None,
    pickle_module: Any = None,
    *,
    weights_only: bool | None = None,
    mmap: bool | None = None,
    **pickle_load_args: Any,
) -> Any:
    """Read what :func:`save` wrote, or the tensors in a file of PyTorch's ``torch.save``.

    Of PyTorch's files, nested dicts, lists, tuples and sets of tensors, parameters and plain values
    are read, such as a ``state_dict``; whole modules are not, since that would run code.

    Args:
        f: a path, or a file opened for reading bytes.
        map_location: where tensors go: a device, a dict from saved to wanted device, or a
            function of the tensor (on the CPU) and the name of its device. By default they go
            back to the device that they were saved from.
        pickle_module, weights_only, mmap, pickle_load_args: accepted for PyTorch's sake; no file
            can run code either way, and all of it is read.

    Returns:
        What was saved. Tensors that shared elements share them again.

    Raises:
        FileNotFoundError: there is no such file.
        LoadError: (a RuntimeError) the file is neither gradlite's nor PyTorch's, is damaged, holds
            what cannot be read without running code, or needs a device that is missing.
    """
    if not isinstance(f, str | os.PathLike):
        name = str(getattr(f, "name", "the file"))
        file = f if f.seekable() else io.BytesIO(f.read())
        return _read(file, name, map_location)
    with open(f, "rb") as file:
        return _read(file, os.fspath(f), map_location)


# -- writing ------------------------------------------------------------------------------------


class _Encoder:
    """Turns an object into a JSON tree and lists of tensors and arrays."""

    def __init__(self) -> None:
        self.tensors: list[dict[str, Any]] = []
        self.arrays: list[np.ndarray[Any, Any]] = []
        self._tensor_numbers: dict[int, int] = {}
        self._array_numbers: dict[Any, int] = {}
        self._open: set[int] = set()
        # Numbers are keyed by id, so what has one must stay alive.
        self._kept: list[Any] = []

    def encode(self, obj: Any, path: str) -> Any:
        """The JSON value for an object; ``path`` says in errors where it is."""
        kind = type(obj)
        if obj is None or kind in (bool, int, str):
            return obj
        if kind is float:
            return obj if math.isfinite(obj) else {"float": repr(obj)}
        if isinstance(obj, Tensor):
            return {"tensor": self._tensor(obj, path)}
        if isinstance(obj, np.ndarray):
            return {"array": self._array(obj, path)}
        if isinstance(obj, np.generic):
            return {"scalar": self._array(np.asarray(obj), path)}
        if isinstance(obj, dtypes.dtype):
            return {"dtype": obj.name}
        if isinstance(obj, Device):
            return {"device": str(obj)}
        if id(obj) in self._open:
            raise ValueError(f"cannot save an object that contains itself, at obj{path}")
        self._open.add(id(obj))
        try:
            return self._container(obj, path)
        finally:
            self._open.remove(id(obj))

    def _container(self, obj: Any, path: str) -> Any:
        if isinstance(obj, dict):
            pairs = [
                [self.encode(key, f"{path} key {key!r}"), self.encode(value, f"{path}[{key!r}]")]
                for key, value in obj.items()
            ]
            return {"ordered" if isinstance(obj, OrderedDict) else "dict": pairs}
        names: dict[type, str] = {list: "list", tuple: "tuple", Size: "size"}
        name = names.get(type(obj))
        if name is None:
            raise TypeError(
                f"cannot save an object of type {type(obj).__module__}.{type(obj).__qualname__} "
                f"(at obj{path}): use dicts, lists and tuples of tensors, arrays, numbers and "
                "strings, such as a state_dict()"
            )
        return {name: [self.encode(value, f"{path}[{i}]") for i, value in enumerate(obj)]}

    def _tensor(self, tensor: Tensor, path: str) -> int:
        number = self._tensor_numbers.get(id(tensor))
        if number is None:
            from gradlite.nn.parameter import Parameter

            number = self._tensor_numbers[id(tensor)] = len(self.tensors)
            self._kept.append(tensor)
            self.tensors.append(
                {
                    "array": self._array(tensor.array, path),
                    "device": str(tensor.device),
                    "requires_grad": tensor.requires_grad,
                    "parameter": isinstance(tensor, Parameter),
                }
            )
        return number

    def _array(self, array: Any, path: str) -> int:
        if isinstance(array, np.ndarray):
            if array.dtype.hasobject:
                raise TypeError(f"cannot save an array of dtype {array.dtype} (at obj{path})")
            pointer = array.ctypes.data
        else:
            pointer = array.data.ptr
        # Two Tensor objects around one array, as a state_dict of tied weights has them.
        key = (type(array), pointer, array.shape, array.strides, array.dtype.str)
        number = self._array_numbers.get(key) if array.size else None
        if number is None:
            number = self._array_numbers[key] = len(self.arrays)
            self._kept.append(array)
            self.arrays.append(array if isinstance(array, np.ndarray) else array.get())
        return number


def _write(file: IO[bytes], tree: bytes, arrays: list[np.ndarray[Any, Any]]) -> None:
    import zipfile  # not above: it would cost every `import gradlite` several milliseconds

    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(_member(_TREE), tree)
        for number, array in enumerate(arrays):
            with archive.open(_member(_array_name(number)), "w", force_zip64=True) as member:
                np.lib.format.write_array(member, array, _NPY_VERSION, allow_pickle=False)


def _member(name: str) -> zipfile.ZipInfo:
    import zipfile

    info = zipfile.ZipInfo(name, _DATE)
    info.external_attr = (stat.S_IFREG | 0o644) << 16
    return info


def _array_name(number: int) -> str:
    return f"arrays/{number}.npy"


# How NumPy's format, which has no name for it, writes bfloat16.
_TWO_BYTES = np.dtype("V2")


# -- reading ------------------------------------------------------------------------------------

# What zipfile, json, numpy and the decoder raise on damaged bytes.
_DAMAGE = (
    ArithmeticError,
    AttributeError,
    EOFError,
    LookupError,
    RuntimeError,
    SyntaxError,
    TypeError,
    ValueError,
    struct.error,
    zlib.error,
)


class LoadError(RuntimeError):
    """A file that is not gradlite's, or is damaged, or needs a device that is missing."""


class _CallersError(Exception):
    """What the caller's ``map_location`` raised, which is not to be taken for damage."""

    def __init__(self, error: Exception) -> None:
        self.error = error


def _read(file: Any, name: str, map_location: MapLocation) -> Any:
    import zipfile

    start = file.tell()
    head = file.read(4)
    file.seek(start)
    if head[:2] != b"PK":
        raise LoadError(f"{name} is not a file saved by gradlite{_guess(head)}")
    try:
        with zipfile.ZipFile(file) as archive:
            program = _program_of_pytorch(archive)
            if program is not None:
                return _read_pytorch(archive, program, name, map_location)
            tree = _read_tree(archive, name)
            arrays = [_read_array(archive, number) for number in range(_index(tree["arrays"]))]
        decoder = _Decoder(arrays, [_Description(**entry) for entry in tree["tensors"]])
    except LoadError:
        raise
    except _CallersError as error:
        raise error.error from None
    except (*_DAMAGE, zipfile.BadZipFile) as error:
        raise _damaged(name, error) from error
    except OSError as error:
        if error.errno == errno.EINVAL:  # an offset that points before the file
            raise _damaged(name, error) from error
        raise
    # Apart from the rest, so that errors of the user's function are not taken for damage.
    decoder.make_tensors(name, map_location)
    try:
        return decoder.decode(tree["root"])
    except _DAMAGE as error:
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> LoadError:
    return LoadError(f"{name} is damaged: {type(error).__name__}: {error}")


def _read_tree(archive: zipfile.ZipFile, name: str) -> dict[str, Any]:
    if _TREE not in archive.namelist():
        raise LoadError(f"{name} is a zip file, but not one saved by gradlite")
    tree: dict[str, Any] = json.loads(archive.read(_TREE))
    if tree["format"] != FORMAT:
        raise LoadError(f"{name} is not a file saved by gradlite")
    if tree["version"] != VERSION:
        raise LoadError(
            f"{name} has version {tree['version']} of gradlite's format; this release reads "
            f"version {VERSION}"
        )
    return tree


def _program_of_pytorch(archive: zipfile.ZipFile) -> str | None:
    """The member that makes an archive one of ``torch.save``."""
    names = archive.namelist()
    if _TREE in names:
        return None
    return next((n for n in names if n.count("/") == 1 and n.endswith("/data.pkl")), None)


def _read_pytorch(
    archive: zipfile.ZipFile, program: str, name: str, map_location: MapLocation
) -> Any:
    from gradlite.io.pytorch_files import PytorchFile, UnsupportedError

    def read(archive: zipfile.ZipFile, member_name: str, elements: np.ndarray[Any, Any]) -> None:
        with archive.open(member_name) as member:
            _fill(elements, member, member_name)

    def place(array: np.ndarray[Any, Any], location: str) -> Tensor:
        try:
            return _placed(array, location, name, map_location)
        except LoadError:
            raise
        except Exception as error:
            raise _CallersError(error) from error

    try:
        return PytorchFile(archive, program, read, place).load()
    except UnsupportedError as error:
        raise LoadError(
            f"Weights only load failed. {name} was saved by PyTorch, and to read all of it would "
            f"run code: {error}. Load it with PyTorch and save its tensors alone, such as "
            "model.state_dict(), by torch.save or as safetensors"
        ) from None


def _guess(head: bytes) -> str:
    if not head:
        return ": it is empty"
    if head[:1] == b"\x80":
        return (
            " but a pickle, which can run code: load it with the program that wrote it and save "
            "it as safetensors"
        )
    return ""


def _read_array(archive: zipfile.ZipFile, number: int) -> np.ndarray[Any, Any]:
    name = _array_name(number)
    info = archive.getinfo(name)
    with archive.open(info) as member:
        if np.lib.format.read_magic(member) != _NPY_VERSION:
            raise ValueError(f"{name} is not in version {_NPY_VERSION} of NumPy's format")
        shape, fortran_order, dtype = np.lib.format.read_array_header_1_0(member)
        if dtype.hasobject:
            raise ValueError(f"{name} holds Python objects")
        if dtype == _TWO_BYTES:
            dtype = dtypes.bfloat16.numpy
        count = 1
        for size in shape:
            count *= size
        # Known before memory is asked for: a damaged header must not ask for terabytes.
        if member.tell() + count * dtype.itemsize != info.file_size:
            raise ValueError(
                f"{name} should have {member.tell() + count * dtype.itemsize} bytes for shape "
                f"{shape} and dtype {dtype}, but has {info.file_size}"
            )
        flat = np.empty(count, dtype)
        _fill(flat, member, name)
    return flat.reshape(shape[::-1]).T if fortran_order else flat.reshape(shape)


def _fill(flat: np.ndarray[Any, Any], member: IO[bytes], name: str) -> None:
    """Read the rest of a member into an array."""
    raw: memoryview = flat.view(np.uint8).data if flat.nbytes else memoryview(b"")
    done = 0
    while done < len(raw):
        block = member.read(min(_CHUNK, len(raw) - done))
        if not block:
            raise EOFError(f"{name} ends early")
        raw[done : done + len(block)] = block
        done += len(block)
    # Reading up to the end is what makes zipfile compare the checksum.
    if member.read(1):
        raise ValueError(f"{name} has more bytes than its header says")


@dataclass(frozen=True)
class _Description:
    """What the tree says of a tensor; checked, because the file may say anything."""

    array: int
    device: str
    requires_grad: bool
    parameter: bool

    def __post_init__(self) -> None:
        _index(self.array)
        Device(self.device)
        if not isinstance(self.requires_grad, bool) or not isinstance(self.parameter, bool):
            raise TypeError("requires_grad and parameter must be true or false")


class _Decoder:
    """Turns a JSON tree back into an object."""

    def __init__(
        self, arrays: list[np.ndarray[Any, Any]], descriptions: list[_Description]
    ) -> None:
        self._arrays = arrays
        self._descriptions = descriptions
        self._tensors: list[Tensor] = []
        for description in descriptions:
            dtype = dtypes.from_numpy_dtype(arrays[description.array].dtype)
            if description.requires_grad and not dtype.is_floating_point:
                raise TypeError(f"a tensor of dtype {dtype} cannot require grad")

    def make_tensors(self, name: str, map_location: MapLocation) -> None:
        """Make all tensors, on the devices where ``map_location`` wants them."""
        shared: dict[tuple[int, str], Tensor] = {}
        for description in self._descriptions:
            key = (description.array, description.device)
            first = shared.get(key)
            if first is None:
                array = self._arrays[description.array]
                first = shared[key] = _placed(array, description.device, name, map_location)
            cls: type[Tensor] = Tensor
            if description.parameter:
                from gradlite.nn.parameter import Parameter

                cls = Parameter
            tensor = make(cls, first.array)
            # Tensors that share elements share the version that counts their edits.
            tensor._counter = first._counter
            if description.requires_grad:
                tensor.requires_grad_()
            self._tensors.append(tensor)

    def decode(self, node: Any) -> Any:
        """The object for a JSON value."""
        if node is None or isinstance(node, bool | int | float | str):
            return node
        ((kind, value),) = node.items()
        if kind in _SEQUENCES:
            return _SEQUENCES[kind](self.decode(item) for item in value)
        if kind in _MAPPINGS:
            return _MAPPINGS[kind]((self.decode(key), self.decode(item)) for key, item in value)
        if kind == "tensor":
            return self._tensors[_index(value)]
        if kind == "array":
            return self._arrays[_index(value)]
        if kind == "scalar":
            return self._arrays[_index(value)][()]
        return _ATOMS[kind](value)


_SEQUENCES: dict[str, Callable[[Any], Any]] = {"list": list, "tuple": tuple, "size": Size}
_MAPPINGS: dict[str, Callable[[Any], Any]] = {"dict": dict, "ordered": OrderedDict}
_ATOMS: dict[str, Callable[[Any], Any]] = {
    "float": {"nan": math.nan, "inf": math.inf, "-inf": -math.inf}.__getitem__,
    "dtype": lambda name: dtypes.as_dtype(name),
    "device": Device,
}


def _placed(array: np.ndarray[Any, Any], saved_on: str, name: str, wanted: MapLocation) -> Tensor:
    """A tensor on the device where ``map_location`` wants it."""
    if callable(wanted):
        placed = wanted(make(Tensor, array), saved_on)
        if placed is not None:
            return placed
        wanted = None
    if isinstance(wanted, Mapping):
        wanted = wanted.get(saved_on)
    where = as_device(saved_on if wanted is None else wanted)
    if wanted is None and where.type != "cpu":
        try:
            array_module(where)
        except RuntimeError as error:
            raise LoadError(
                f"Attempting to deserialize object on a CUDA device ({name} has tensors from "
                f"{saved_on}), but {error}. To load them to the CPU, use "
                "gradlite.load(..., map_location='cpu')"
            ) from error
    return make(Tensor, on_device(array, where))  # type: ignore[no-any-return]


def _index(number: Any) -> int:
    if not isinstance(number, int) or number < 0:
        raise ValueError(f"not the number of a tensor or array: {number!r}")
    return number


def on_device(array: np.ndarray[Any, Any], where: Device) -> Any:
    """The array on a device."""
    if where.type == "cpu":
        return array
    module = array_module(where)
    with module.cuda.Device(where.index):
        return module.asarray(array)
