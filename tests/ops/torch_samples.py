"""PyTorch's own database of ops: their sample inputs, run on both libraries and compared.

``ops()`` are the entries whose op gradlite has under the same name; ``differences(op, dtype)`` says
where the two libraries differ on PyTorch's samples.
"""

from __future__ import annotations

import functools
import types
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np

import gradlite
from tests.library import seed as seed_generators
from tests.torch_databases import op_db, torch

LARGE = 200_000
METHOD_SAMPLES = 4

# Per dtype, relative to the largest number compared; gradients of float32 differ by the order in
# which they are summed.
TOLERANCES = {"float16": 4e-3, "bfloat16": 3e-2, "float32": 1e-5, "float64": 1e-9}
GRADIENTS = {"float32": 2e-4, "float64": 1e-9}

FACTS = ("kind", "dtypes", "requires_grad", "identity", "aliases", "strides", "gradient dtypes")


class UnknownError(Exception):
    """A sample of what gradlite does not have: complex numbers, generators, sparse tensors."""


# ------------------------------------------------------------------------------ PyTorch's samples


def numbers(tensor: Any) -> np.ndarray:
    """A copy of a tensor's numbers; float32 holds those of bfloat16."""
    tensor = tensor.detach()
    tensor = tensor.float() if dtype_name(tensor) == "bfloat16" else tensor
    return np.array(tensor.numpy(force=True))


def with_its_strides(tensor: torch.Tensor) -> np.ndarray:
    """A copy of a tensor's numbers in an array of the same strides, bfloat16 as int16."""
    tensor = tensor.detach()
    if tensor.is_complex() or tensor.layout is not torch.strided or tensor.is_quantized:
        raise UnknownError(f"{tensor.dtype}, {tensor.layout}")
    if tensor.dtype is torch.bfloat16:
        tensor = tensor.view(torch.int16)
    if not tensor.numel():
        return np.empty(tuple(tensor.shape), tensor.numpy().dtype)
    extent = 1 + sum((size - 1) * step for size, step in zip(tensor.shape, tensor.stride()))
    flat = tensor.as_strided((extent,), (1,), tensor.storage_offset()).numpy().copy()
    strides = tuple(step * flat.itemsize for step in tensor.stride())
    return np.lib.stride_tricks.as_strided(flat, tuple(tensor.shape), strides)


class Rebuild:
    """Arguments of a sample for `library`; a tensor that is there twice stays one tensor."""

    def __init__(self, library: Any) -> None:
        self.library = library
        self.seen: dict[int, tuple[torch.Tensor, Any]] = {}
        self.leaves: list[Any] = []

    def __call__(self, value: Any) -> Any:
        if isinstance(value, torch.Tensor):
            if id(value) not in self.seen:
                self.seen[id(value)] = (value, self.tensor(value))
            return self.seen[id(value)][1]
        if isinstance(value, torch.Size):
            return self.library.Size(value)
        if isinstance(value, (list, tuple)):
            return type(value)(self(item) for item in value)
        if isinstance(value, dict):
            return {key: self(item) for key, item in value.items()}
        if isinstance(value, slice):
            return slice(self(value.start), self(value.stop), self(value.step))
        if isinstance(value, torch.Generator):
            raise UnknownError(type(value).__name__)
        if isinstance(value, (torch.dtype, torch.layout, torch.memory_format)):
            if not hasattr(self.library, str(value).rpartition(".")[2]):
                raise UnknownError(str(value))
            return getattr(self.library, str(value).rpartition(".")[2])
        if isinstance(value, torch.device):
            return self.library.device(str(value))
        if isinstance(value, torch.nn.Module):
            return getattr(self.library.nn, type(value).__name__)()
        return rebound(value, self.library)

    def tensor(self, value: torch.Tensor) -> Any:
        made = self.library.from_numpy(with_its_strides(value))
        if value.dtype is torch.bfloat16:
            made = made.view(self.library.bfloat16)
        if isinstance(value, torch.nn.Parameter):
            made = self.library.nn.Parameter(made, requires_grad=value.requires_grad)
        if value.requires_grad:
            self.leaves.append(made.requires_grad_())
        return made


def unseeded(op: Any, *args: Any, **kwargs: Any) -> Any:
    return op(*args, **kwargs)


def in_the_database(function: Any) -> bool:
    return isinstance(function, types.FunctionType) and "._internal." in function.__module__


def rebound(function: Any, library: Any) -> Any:
    """A Python function of PyTorch's database, to which `library` is known as torch."""
    if not in_the_database(function):
        return function
    known = dict(function.__globals__, torch=library, F=library.nn.functional)
    known["wrapper_set_seed"] = unseeded
    cells = [
        cell if cell.cell_contents is function else types.CellType(rebound(held, library))
        for cell in function.__closure__ or ()
        for held in [cell.cell_contents]
    ]
    made = types.FunctionType(
        function.__code__, known, function.__name__, function.__defaults__, tuple(cells)
    )
    made.__kwdefaults__ = function.__kwdefaults__
    return made


# -------------------------------------------------------------------------------------- the ops


@dataclass
class Op:
    """An entry of the database with the functions of both libraries: {variant: (theirs, ours)}."""

    info: Any
    variants: dict[str, tuple[Callable[..., Any], Callable[..., Any]]] = field(default_factory=dict)

    @property
    def name(self) -> str:
        return self.info.full_name

    def takes(self, dtype: str) -> bool:
        return getattr(torch, dtype) in self.info.supported_dtypes("cpu")


def look_up(root: Any, path: str) -> Any:
    for part in path.split("."):
        root = getattr(root, part, None)
    return root


def paired(info: Any) -> Op:
    op = Op(info)
    theirs, ours = look_up(torch, info.name), look_up(gradlite, info.name)
    if theirs is None:
        method = look_up(gradlite.Tensor, info.name)
        if in_the_database(info.op):
            op.variants["function"] = rebound(info.op, torch), rebound(info.op, gradlite)
        elif method is not None:
            op.variants["function"] = info.op, method
    elif ours is not None:
        if in_the_database(info.op):
            theirs, ours = rebound(info.op, torch), rebound(info.op, gradlite)
        op.variants["function"] = theirs, ours
    for variant, method in (("method", info.method_variant), ("inplace", info.inplace_variant)):
        name = getattr(method, "__name__", "")
        if getattr(torch.Tensor, name, None) is method and hasattr(gradlite.Tensor, name):
            op.variants[variant] = method, getattr(gradlite.Tensor, name)
    return op


@functools.cache
def ops() -> list[Op]:
    return [op for op in map(paired, op_db()) if op.variants]


def samples(op: Op, dtype: str, gradients: bool, limit: int) -> list[Any]:
    """The first samples of an op that are not large."""
    seed_generators(torch, 0)
    numpy_state = np.random.get_state()
    np.random.seed(0)
    try:
        # Not `sample_inputs`, which inspects the whole stack of calls for every sample.
        function, kind = op.info.sample_inputs_func, getattr(torch, dtype)
        made = list(islice(function(op.info, "cpu", kind, gradients), limit))
    finally:
        np.random.set_state(numpy_state)
    return [
        sample
        for sample in made
        if sum(t.numel() for t in tensors_in([sample.input, sample.args, sample.kwargs])) <= LARGE
    ]


# ------------------------------------------------------------------- running and what comes of it


def tensors_in(value: Any) -> list[Any]:
    if isinstance(value, (torch.Tensor, gradlite.Tensor)):
        return [value]
    if isinstance(value, dict):
        value = list(value.values())
    if isinstance(value, (list, tuple)):
        return [tensor for item in value for tensor in tensors_in(item)]
    return []


def dtype_name(tensor: Any) -> str:
    return str(tensor.dtype).rpartition(".")[2]


def kind_of(value: Any) -> Any:
    if isinstance(value, (torch.Tensor, gradlite.Tensor)):
        return "tensor"
    if isinstance(value, (list, tuple)):
        return (type(value).__name__, *map(kind_of, value))
    if isinstance(value, (bool, int, float)):
        return type(value).__name__, repr(value)
    return type(value).__name__


def memory(tensor: Any) -> np.ndarray:
    if isinstance(tensor, gradlite.Tensor):
        return tensor.array
    tensor = tensor.detach()
    return (tensor.view(torch.int16) if tensor.dtype is torch.bfloat16 else tensor).numpy()


@dataclass
class Outcome:
    """What can be seen of a call: facts to be equal, arrays to be close."""

    facts: dict[str, Any]
    arrays: dict[str, list[np.ndarray | None]]


def run(library: Any, function: Any, variant: str, sample: Any, seed: int = 0) -> Outcome:
    """What a sample gives on `library`."""
    rebuild = Rebuild(library)
    given, args = rebuild(sample.input), rebuild(tuple(sample.args))
    kwargs = rebuild(dict(sample.kwargs))
    inputs = tensors_in([given, args, kwargs])
    given = given.clone() if variant == "inplace" else given
    seed_generators(library, seed)
    result = function(given, *args, **kwargs)
    results, inputs_now = tensors_in(result), tensors_in([given, *inputs])
    if library is torch and any(one.layout is not torch.strided for one in results):
        raise UnknownError("a sparse result")
    facts = {
        "kind": kind_of(result),
        "dtypes": [dtype_name(one) for one in results],
        "requires_grad": [one.requires_grad for one in results],
        "identity": [[one is other for other in inputs_now] for one in results],
        "aliases": [
            [np.may_share_memory(memory(one), memory(other)) for other in inputs_now]
            for one in results
        ],
        "strides": [
            [step for step, size in zip(one.stride(), one.shape) if size > 1 and one.numel()]
            for one in results
        ],
    }
    arrays: dict[str, list[np.ndarray | None]] = {
        "values": [numbers(one) for one in results],
        "inputs": [numbers(one) for one in inputs],
    }
    ends = tensors_in(rebound(sample.output_process_fn_grad, library)(result))
    ends = [end for end in ends if end.requires_grad]
    if ends and rebuild.leaves:
        generator = np.random.default_rng(3)
        weights = [generator.standard_normal(tuple(end.shape)) for end in ends]
        grads = library.autograd.grad(
            ends,
            rebuild.leaves,
            [library.tensor(weight).to(end.dtype) for weight, end in zip(weights, ends)],
            allow_unused=True,
        )
        facts["gradient dtypes"] = [None if grad is None else dtype_name(grad) for grad in grads]
        arrays["gradients"] = [None if grad is None else numbers(grad) for grad in grads]
    return Outcome(facts, arrays)


def attempt(library: Any, function: Any, variant: str, sample: Any) -> Any:
    """The outcome, or the exception."""
    try:
        return run(library, function, variant, sample)
    except Exception as error:
        return error


def apart(actual: np.ndarray, expected: np.ndarray, tolerance: float) -> str | None:
    """How two arrays differ, or None."""
    if actual.shape != expected.shape:
        return f"shape {actual.shape}, PyTorch has {expected.shape}"
    actual, expected = actual.astype(np.float64), expected.astype(np.float64)
    scale = np.abs(expected[np.isfinite(expected)]).max(initial=1.0)
    wrong = ~np.isclose(actual, expected, tolerance, tolerance * min(scale, 1e3), equal_nan=True)
    if not wrong.any():
        return None
    first = tuple(np.argwhere(wrong)[0])
    return (
        f"{actual[first]!r}, PyTorch has {expected[first]!r}, "
        f"at {tuple(map(int, first))} and {int(wrong.sum()) - 1} other places"
    )


def compare(ours: Outcome, theirs: Outcome, dtype: str) -> Iterator[tuple[str, str]]:
    """(what, how) for everything in which two outcomes differ."""
    for name in FACTS:
        one, other = ours.facts.get(name), theirs.facts.get(name)
        if one != other:
            yield name, f"{one}, PyTorch has {other}"
    if ours.facts["kind"] != theirs.facts["kind"]:
        return
    for name, expected in theirs.arrays.items():
        for place, (one, other) in enumerate(zip(ours.arrays.get(name, []), expected)):
            if one is None or other is None:
                continue  # the dtypes of gradients say it
            dtypes = {"values": "dtypes", "gradients": "gradient dtypes"}.get(name)
            of = dtype if dtypes is None else theirs.facts[dtypes][place]
            how = apart(one, other, (GRADIENTS if name == "gradients" else TOLERANCES).get(of, 0.0))
            if how is not None:
                yield name, f"result {place}: {how}"


def arbitrary(op: Op, function: Any, variant: str, sample: Any, theirs: Outcome) -> bool:
    """Whether the numbers are drawn, so that another seed gives others, or were never set."""
    others = [run(torch, function, variant, sample, seed) for seed in range(1, 8)]
    return "empty" in op.name or any(
        apart(one, two, 0.0)
        for name in ("values", "inputs")
        for other in others
        for one, two in zip(theirs.arrays[name], other.arrays[name])
    )


def differences(op: Op, dtype: str, limit: int = 40) -> Iterator[tuple[str, str]]:
    """(what differs, how and on which sample) between the two libraries on PyTorch's samples."""
    gradients = dtype in GRADIENTS and op.info.supports_autograd
    for number, sample in enumerate(samples(op, dtype, gradients, limit)):
        for variant, (theirs, ours) in op.variants.items():
            if variant != "function" and number >= METHOD_SAMPLES:
                continue
            if variant == "inplace" and sample.broadcasts_input:
                continue
            where = f"{variant}, sample {number}: {sample.summary()}"
            expected = attempt(torch, theirs, variant, sample)
            actual = attempt(gradlite, ours, variant, sample)
            if isinstance(
                expected, (UnknownError, NotImplementedError)
            ):  # some have no derivative in place
                continue
            if isinstance(actual, Exception) or isinstance(expected, Exception):
                if type(actual).__name__ != type(expected).__name__:
                    ends = [
                        end if isinstance(end, Exception) else "a result"
                        for end in (actual, expected)
                    ]
                    yield "raises", f"{ends[0]!r}, PyTorch has {ends[1]!r} ({where})"
                continue
            found = list(compare(actual, expected, dtype))
            numeric = [what for what, _ in found if what in ("values", "inputs", "gradients")]
            if numeric and arbitrary(op, theirs, variant, sample, expected):
                found = [
                    (what, how) for what, how in found if what not in numeric or "shape" in how
                ]
            for what, how in found:
                yield what, f"{how} ({where})"
