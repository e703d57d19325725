"""Kernels of one's own: CUDA C++ launched on Tensors, with its arguments checked."""

from __future__ import annotations

import ctypes
import os
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from gradlite.backends import cuda as backend
from gradlite.backends import native
from gradlite.backends.kernel_source import text_of
from gradlite.grad_mode import is_grad_enabled
from gradlite.ops.dispatch import same_device
from gradlite.tensor import Tensor

Size = int | Sequence[int]
# What C++ calls them, as dtypes. A pointer may also be void*, which takes any tensor.
_TYPES = {
    "float": "float32", "double": "float64", "half": "float16", "__half": "float16",
    "bool": "bool", "char": "int8", "signed char": "int8", "int8_t": "int8",
    "unsigned char": "uint8", "uint8_t": "uint8", "short": "int16", "int16_t": "int16",
    "int": "int32", "int32_t": "int32", "unsigned": "uint32", "unsigned int": "uint32",
    "uint32_t": "uint32", "long long": "int64", "int64_t": "int64",
    "unsigned long long": "uint64", "uint64_t": "uint64", "size_t": "uint64",
}  # fmt: skip
_COMMENT = re.compile(r"//[^\n]*|/\*.*?\*/", re.DOTALL)
_MOST_THREADS = 1024


class Parameter(NamedTuple):
    """A parameter of a kernel: name, dtype (None for void*), and whether it is a pointer that the
    kernel writes through."""

    name: str
    dtype: np.dtype[Any] | None
    pointer: bool
    written: bool


def kernel(
    source: str | os.PathLike[str],
    name: str,
    signature: str | None = None,
    *,
    reference: Callable[..., None] | None = None,
    options: Sequence[str] = (),
) -> Kernel:
    """A CUDA kernel to launch on Tensors: ``kernel(grid, block, *arguments, shared=0)``.

    The arguments are the kernel's: a contiguous Tensor of the right dtype for a pointer (or None
    for a null pointer), a number for a scalar. A launch goes to the device of the tensors and to
    its current stream. On CPU tensors ``reference`` runs, or, without one, the kernel itself,
    compiled by the system's C++ compiler, one thread after another: this needs a kernel without
    barriers, shared memory and warp functions. Nothing is recorded for autograd: write an
    `autograd.Function` whose forward and backward launch kernels.

    Args:
        source: CUDA C++, or the path of a file of it.
        name: of a function ``extern "C" __global__ void name(...)`` in the source.
        signature: its parameters as in C++, where a macro makes them: ``"const float* x, int n"``.
        reference: called as ``reference(*arguments)`` with NumPy arrays instead of tensors, in
            which it writes what the kernel would.
        options: of the compiler, as ``"-use_fast_math"``.

    >>> import gradlite
    >>> source = '''
    ... extern "C" __global__ void axpy(float a, const float* x, float* y, int n) {
    ...   int i = blockIdx.x * blockDim.x + threadIdx.x;
    ...   if (i < n) y[i] += a * x[i];
    ... }'''
    >>> def axpy_numpy(a, x, y, n):
    ...     y += a * x
    >>> axpy = gradlite.cuda.kernel(source, "axpy", reference=axpy_numpy)
    >>> x, y = gradlite.arange(4.0), gradlite.ones(4)
    >>> axpy(1, 128, 2.0, x, y, 4)  # on tensors of a GPU: one block of 128 threads
    >>> y
    tensor([1., 3., 5., 7.])
    >>> axpy(1, 128, 2.0, x, y.double(), 4)
    Traceback (most recent call last):
    TypeError: axpy: y must be a Tensor of dtype float32, but is one of float64

    Raises:
        ValueError: the source declares no such kernel, or with parameters of an unknown type.
        TypeError: at a launch: an argument does not fit its parameter.
        RuntimeError: at a launch: the tensors are on several devices, not contiguous, or require
            grad while gradients are recorded; or the source does not compile.
    """
    is_text = isinstance(source, str) and "__global__" in source
    text = str(source) if is_text else Path(source).read_text(encoding="utf-8")
    return Kernel(text, name, signature, reference, tuple(options))


class Kernel:
    """What `kernel` makes.

    Attributes:
        name: of the kernel.
        parameters: of the kernel, in order.
    """

    def __init__(
        self,
        source: str,
        name: str,
        signature: str | None,
        reference: Callable[..., None] | None,
        options: tuple[str, ...],
    ) -> None:
        self.name = name
        self.parameters = _parameters(source, name, signature)
        self._source, self._reference, self._options = source, reference, options
        self._on_gpu: Any = None
        self._on_cpu: Any = None

    def __repr__(self) -> str:
        return f"<kernel {self.name}({', '.join(p.name for p in self.parameters)})>"

    def __call__(self, grid: Size, block: Size, *arguments: Any, shared: int = 0) -> None:
        """Launch the kernel: blocks in each direction, threads of a block, its arguments."""
        blocks, threads = self._size("grid", grid), self._size("block", block)
        count = threads[0] * threads[1] * threads[2]
        if not 0 < count <= _MOST_THREADS:
            raise ValueError(f"{self.name}: a block has 1 to {_MOST_THREADS} threads, not {count}")
        values, tensors, written = self._checked(arguments)
        if 0 in blocks:
            return
        if not tensors:
            raise TypeError(f"{self.name}: none of the arguments is a Tensor")
        if tensors[0].is_cpu:
            self._run_on_cpu(blocks, threads, arguments, values)
        else:
            self._launch(blocks, threads, values, shared)
        for tensor in written:
            tensor._bump()

    # ---------------------------------------------------------------------------- checks
    def _size(self, what: str, size: Size) -> tuple[int, int, int]:
        numbers = (size,) if isinstance(size, int) else tuple(size)
        if not 1 <= len(numbers) <= 3 or any(not isinstance(n, int) or n < 0 for n in numbers):
            raise TypeError(f"{self.name}: {what} must be 1 to 3 ints, got {size!r}")
        x, y, z = (*numbers, 1, 1)[:3]
        return x, y, z

    def _checked(self, arguments: Sequence[Any]) -> tuple[list[Any], list[Tensor], list[Tensor]]:
        """Arguments as they are handed over; the tensors among them; those that are written."""
        if len(arguments) != len(self.parameters):
            names = ", ".join(p.name for p in self.parameters)
            raise TypeError(
                f"{self.name}() takes {len(self.parameters)} arguments ({names}), but "
                f"{len(arguments)} were given"
            )
        values: list[Any] = []
        tensors: list[Tensor] = []
        written: list[Tensor] = []
        for argument, parameter in zip(arguments, self.parameters):
            if not parameter.pointer:
                values.append(self._scalar(argument, parameter))
            elif argument is None:
                values.append(None)
            else:
                self._check_tensor(argument, parameter)
                values.append(argument.array)
                tensors.append(argument)
                if parameter.written:
                    written.append(argument)
        if len(tensors) > 1:
            same_device(*tensors)
        return values, tensors, written

    def _check_tensor(self, argument: Any, parameter: Parameter) -> None:
        what = f"{self.name}: {parameter.name}"
        wanted = "a Tensor" if parameter.dtype is None else f"a Tensor of dtype {parameter.dtype}"
        if not isinstance(argument, Tensor):
            raise TypeError(f"{what} must be {wanted}, but is of type {type(argument).__name__}")
        if parameter.dtype is not None and argument.array.dtype != parameter.dtype:
            raise TypeError(f"{what} must be {wanted}, but is one of {argument.array.dtype}")
        if not argument.array.flags.c_contiguous:
            raise RuntimeError(f"{what} must be contiguous: pass {parameter.name}.contiguous()")
        if argument.requires_grad and is_grad_enabled():
            raise RuntimeError(
                f"{what} requires grad, and a kernel is not recorded: launch it in an "
                "autograd.Function or in no_grad()"
            )

    def _scalar(self, argument: Any, parameter: Parameter) -> Any:
        dtype = parameter.dtype
        assert dtype is not None
        kinds = {"f": (int, float), "b": (bool,)}.get(dtype.kind, (int,))
        number = argument.item() if isinstance(argument, np.generic) else argument
        if not isinstance(number, kinds) or (isinstance(number, bool) and dtype.kind != "b"):
            raise TypeError(
                f"{self.name}: {parameter.name} must be a number of type {dtype}, but is of type "
                f"{type(argument).__name__}"
            )
        try:
            return dtype.type(number)
        except OverflowError:
            raise TypeError(
                f"{self.name}: {parameter.name} is {number}, which no {dtype} holds"
            ) from None

    # --------------------------------------------------------------------------- launches
    def _launch(self, grid: Any, block: Any, values: list[Any], shared: int) -> None:
        cupy = backend.module()
        if self._on_gpu is None:
            options = ("-std=c++17", *self._options)
            self._on_gpu = cupy.RawKernel(self._source, self.name, options)
        array = next(v for v in values if isinstance(v, cupy.ndarray))
        with array.device:
            try:
                run = self._on_gpu.kernel  # compiled at the first launch on each device
            except cupy.cuda.compiler.CompileException as error:
                raise RuntimeError(f"kernel {self.name} does not compile:\n{error}") from error
            run(grid, block, values, shared)

    def _run_on_cpu(self, grid: Any, block: Any, arguments: Any, values: list[Any]) -> None:
        if self._reference is not None:
            pairs = zip(arguments, values)
            self._reference(*(v if isinstance(a, Tensor) else a for a, v in pairs))
            return
        if self._on_cpu is None:
            self._on_cpu = self._compiled()
        boxes = [_box(value) for value in values]
        pointers = (ctypes.c_void_p * len(boxes))(*(box.ctypes.data for box in boxes))
        sizes = ctypes.c_uint * 3
        self._on_cpu(sizes(*grid), sizes(*block), pointers)

    def _compiled(self) -> Any:
        whole = (
            f'{text_of("plain_cuda.h")}\n#line 1 "{self.name}"\n{self._source}\n'
            'extern "C" void gradlite_run(const unsigned* grid, const unsigned* block, '
            f"void** arguments) {{ for_each_thread(&{self.name}, grid, block, arguments); }}\n"
        )
        try:
            path = native.build(self.name, whole)
        except (RuntimeError, OSError) as error:
            raise RuntimeError(
                f"kernel {self.name} cannot run on the CPU, where it is compiled as plain C++, "
                f"without barriers, shared memory and warps: pass reference=. {error}"
            ) from error
        return ctypes.PyDLL(str(path)).gradlite_run  # one thread at a time: see plain_cuda.h


def _box(value: Any) -> np.ndarray[Any, Any]:
    """An array that holds the bytes a kernel gets."""
    if value is None or isinstance(value, np.ndarray):
        return np.array(0 if value is None else value.ctypes.data, np.uint64)
    return np.array(value)


def _parameters(source: str, name: str, signature: str | None) -> tuple[Parameter, ...]:
    text = _COMMENT.sub("", source)
    if signature is None:
        found = re.search(rf"__global__[^;{{}}]*?\b{re.escape(name)}\s*\(([^)]*)\)\s*\{{", text)
        if found is None:
            raise ValueError(
                f'the source declares no kernel extern "C" __global__ void {name}(...); where a '
                "macro does, pass its signature"
            )
        signature = found[1]
    if 'extern "C"' not in text:
        raise ValueError(f'kernel {name} cannot be found by its name: declare it extern "C"')
    listed = [p for p in signature.split(",") if p.strip() not in ("", "void")]
    return tuple(_parameter(name, p) for p in listed)


def _parameter(kernel: str, declared: str) -> Parameter:
    plain = " ".join(re.sub(r"\b(__restrict__|__restrict|volatile)\b", " ", declared).split())
    match = re.fullmatch(r"(?P<type>[\w ]+?)(?P<pointer>( ?\*)?)( const)? ?\b(?P<name>\w+)", plain)
    if match is not None:
        words = [word for word in match["type"].split() if word != "const"]
        constant = len(words) < len(match["type"].split())
        pointer, kind = bool(match["pointer"]), " ".join(words)
        if kind in _TYPES or (pointer and kind == "void"):
            dtype = np.dtype(_TYPES[kind]) if kind in _TYPES else None
            return Parameter(match["name"], dtype, pointer, pointer and not constant)
    raise ValueError(
        f"kernel {kernel}: parameter '{' '.join(declared.split())}' is of no type known here; "
        f"known are pointers to and numbers of {', '.join(_TYPES)}"
    )
