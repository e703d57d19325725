"""What is different in the library while a step is recorded, and only for the thread that records.

``Tensor.array`` hands out recorded arrays, the library's NumPy makes recorded ones, and what has
its arithmetic on the host, random numbers and the steps of optimizers, notes that it was called.
"""

from __future__ import annotations

import builtins
import functools
import io
import pathlib
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from gradlite import autocast_mode, printing
from gradlite.backends import cuda, special
from gradlite.capturing import asked, one_call, recorded
from gradlite.capturing.calls import CaptureError
from gradlite.capturing.handed import giving, handing, is_of_step, lending
from gradlite.capturing.host_methods import called_anew, on_the_host, step_taken
from gradlite.capturing.library import GpuLibrary, Library, RecordingLauncher
from gradlite.capturing.recorded import Recorded, active, plain_values
from gradlite.capturing.recorded_gpu import RecordedGpu
from gradlite.capturing.recorder import Recorder, raw_array
from gradlite.cuda.kernel import Kernel
from gradlite.description import Description
from gradlite.nn import Module
from gradlite.ops import (
    draws,
    many,
    natively,
    shortcuts,
)
from gradlite.ops.namespaces import NAMESPACES, Namespace
from gradlite.optim import Optimizer, optimizer, replayed
from gradlite.random import Generator
from gradlite.tensor import Tensor

# Modules of gradlite that deal with the host's data and are left alone.
HOST_MODULES = (
    "capturing", "cli", "datasets", "io", "ops.pad_sources", "ops.resampling", "random",
    "utils.data", "printing", "optim", "backends.kernels", "backends.native", "backends.staging",
    "backends.tables",
)  # fmt: skip
# Of a GPU: kernels that find their arrays by tables of addresses. Which arguments they write to.
TABLES = {"zero": 1, "clip": 1, "clamp": 1, "total_norm": 0, "unscale": 1, "average": 1}
# Of NumPy's functions those that would hand an ordinary array to the program.
MAKERS = (
    "array", "asarray", "asanyarray", "ascontiguousarray", "asfortranarray", "frombuffer",
)  # fmt: skip
# Modules of Python that read the code which is to run, or to be shown.
LOADING = ("importlib", "linecache", "tokenize", "traceback", "warnings", "zipimport")
DRAWS = ("words", "random", "normal", "integers", "bernoulli_mask", "permutation")


Replacement = tuple[Any, str, Callable[[Any], Any]]


def is_recording() -> bool:
    """Whether this thread records a step."""
    recorder = recorded.current
    return recorder is not None and recorder.thread == threading.get_ident()


def _drawn(original: Any) -> Any:
    name = original.__name__

    def draw(self: Generator, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(self, *args, **kwargs)
        arguments = plain_values(args)
        call = functools.partial(original, self, *arguments, **kwargs)
        functools.update_wrapper(call, original)
        return recorder.host_call(call, undoable=True, generator=self)

    draw.__name__ = name
    return draw


def _noting_leaf(original: Any) -> Any:
    def _accumulate(self: Tensor, *args: Any) -> None:
        recorder = active()
        if recorder is not None:
            recorder.questions.gradient(self)
            recorder.used_grads[id(self)] = self
        original(self, *args)

    return _accumulate


def _noting_reader(original: Any) -> Any:
    """``Tensor.grad``, whose being None may decide what the step does."""

    def read(self: Tensor) -> Tensor | None:
        recorder = active()
        if recorder is not None:
            recorder.questions.gradient(self)
            recorder.used_grads[id(self)] = self
            recorder.asked_grads.setdefault(id(self), self._grad)
        return original.fget(self)  # type: ignore[no-any-return]

    def write(self: Tensor, value: Tensor | None) -> None:
        recorder = active()
        if recorder is not None and value is None:
            recorder.clears([self], drop=True)
        original.fset(self, value)

    def delete(self: Tensor) -> None:
        write(self, None)

    return property(read, write, delete, original.__doc__)


def _noting_cleared(original: Any) -> Any:
    """``zero_grad`` of modules and optimizers: also of those that have no gradients just now."""

    @functools.wraps(original)
    def zero_grad(self: Any, set_to_none: bool = True) -> None:
        recorder = active()
        if recorder is not None:
            groups = (
                [{"params": self.parameters()}] if isinstance(self, Module) else self.param_groups
            )
            for group in groups:
                recorder.clears(group["params"], set_to_none)
        original(self, set_to_none)

    return zero_grad


def _by_table(original: Any) -> Any:
    """A function of `many`, recorded as one call: a replay has tables of its own."""
    written = TABLES[original.__name__]

    @functools.wraps(original)
    def call(arrays: Any, *args: Any) -> Any:
        recorder = active()
        if recorder is None or not isinstance(arrays[0], RecordedGpu):
            return original(arrays, *args)
        function = _norm if original.__name__ == "total_norm" else original
        writes = list(arrays)[: written * len(arrays)]
        if original.__name__ == "unscale":
            writes.append(args[1])
        result = recorder.run(function, (list(arrays), *args), {}, writes)
        return None if result is False and function is _norm else result

    return call


_total_norm = many.total_norm


def _norm(arrays: Any, order: float) -> Any:
    """The norm of all arrays together, or False."""
    found = _total_norm(arrays, order)
    return False if found is None else found


def _kernel_launched(original: Any) -> Any:
    def _launch(self: Kernel, grid: Any, block: Any, values: Any, shared: int) -> None:
        recorder = active()
        if recorder is None:
            original(self, grid, block, values, shared)
            return
        parameters = zip(values, self.parameters)
        writes = [v for v, p in parameters if p.written and isinstance(v, RecordedGpu)]
        recorder.run(original, (self, grid, block, list(values), shared), {}, writes)

    return _launch


def _kernel_run(original: Any) -> Any:
    def _run_on_cpu(self: Kernel, grid: Any, block: Any, arguments: Any, values: Any) -> None:
        recorder = active()
        if recorder is None or self._reference is not None:
            original(self, grid, block, arguments, values)
            return
        parameters = zip(values, self.parameters)
        writes = [v for v, p in parameters if p.written and isinstance(v, Recorded)]
        recorder.run(original, (self, grid, block, (), list(values)), {}, writes)

    return _run_on_cpu


def _place_of_draw(generator: Generator, blocks: int) -> Any:
    """What a draw of a kernel asks first: where its state is, if a replay takes it anew."""
    recorder = active()
    return None if recorder is None else recorder.draw_place(generator, blocks)


def _state_saved(original: Any) -> Any:
    def state_array(self: Generator) -> Any:
        recorder = active()
        if recorder is None:
            return original(self)
        return recorder.save_random_state(self, lambda: original(self))

    return state_array


def _state_restored(original: Any) -> Any:
    def set_state_array(self: Generator, state: Any) -> None:
        recorder = active()
        if recorder is None:
            original(self, state)
        else:
            recorder.restore_random_state(self, lambda value: original(self, value), state)

    return set_state_array


def _avoidable(original: Any) -> Any:
    """Branches that another recording can do without are noted as such."""

    def branch(*args: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(*args)
        recorder.avoidable = True
        try:
            return original(*args)
        finally:
            recorder.avoidable = False

    return branch


def _required_of_branch(original: Any) -> Any:
    """A condition that the recording goes on with; a replay without it is recorded anew."""

    def require(condition: Any, error: Any, message: Any, *values: Any) -> None:
        recorder = active()
        if recorder is None:
            original(condition, error, message, *values)
            return
        recorder.avoidable = True
        try:
            fine = bool(condition)
        finally:
            recorder.avoidable = False
        with recorder.pause():  # the message is put together from values
            original(fine, error, message, *plain_values(values))

    return require


def _of_recorded(original: Any) -> Any:
    """What makes arrays of the program's own out of others: part of the recording."""

    @functools.wraps(original)
    def call(*args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is not None and args and recorder.is_of_step(sys._getframe(1).f_code):
            given = args[0].numpy() if isinstance(args[0], Tensor) else args[0]
            if is_of_step(given):
                return recorder.run(original, (given, *args[1:]), kwargs)
        return original(*args, **kwargs)

    return call


def _never(original: Any) -> Any:
    """No shortcuts for the thread that records."""
    return lambda usual: False if active() is not None else original(usual)


def _required_in_replays(original: Any) -> Any:
    def require(*args: Any) -> None:
        recorder = active()
        (original if recorder is None else recorder.require)(*args)

    return require


def _but_for_graphs(original: Any) -> Any:
    """A check that is left out of CUDA graphs: the calls before the recording made it."""

    def verify(condition: Any, *args: Any) -> None:
        if active() is None or not isinstance(condition, RecordedGpu):
            original(condition, *args)

    return verify


def _opened(original: Any) -> Any:
    """``open``: what a step reads of a file, a replay would not read again."""

    @functools.wraps(original)
    def opened(file: Any, mode: str = "r", *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is not None and ("r" in mode or "+" in mode) and _for_step(recorder):
            raise CaptureError(
                f"the step reads a file ({file!r}), which a replay would not do: read it outside "
                "of the step, and give it what depends on it"
            )
        return original(file, mode, *args, **kwargs)

    return opened


def _for_step(recorder: Recorder) -> bool:
    """Whether the step's code asks for what its caller's caller does, itself or by a library."""
    frame: Any = sys._getframe(2)
    found = False
    while frame is not None:
        name = frame.f_globals.get("__name__") or ""
        if name.partition(".")[0] in LOADING:
            return False
        found = found or recorder.is_of_step(frame.f_code)
        if name.startswith("gradlite.") and not name.startswith("gradlite.io"):
            if not found or name == "gradlite.capturing.step":
                return found
        frame = frame.f_back
    return found


def _seen_by_ops(original: Any, library: GpuLibrary, recorder: Recorder) -> Any:
    """What hands out CuPy: to the thread that records, CuPy as the recorder has it."""

    def found(*index: Any) -> Any:
        source = original(*index)  # which refuses a GPU that is not there
        return library if active() is recorder else source

    return found


def _special(library: GpuLibrary, recorder: Recorder) -> Any:
    """The same for CuPy's special functions."""

    def around(original: Any) -> Any:
        def found(*args: Any) -> Any:
            source = original(*args)
            if active() is not recorder:
                return source
            return GpuLibrary(source, recorder, library._ufunc)

        return found

    return around


recording_lock = threading.Lock()  # one recording at a time, and no other replacements meanwhile
# A profile's replacements, where there is one, are taken away for as long as something is recorded:
# what a replay calls is the library's own, and the same in every recording.
aside: Callable[[], AbstractContextManager[Any]] = nullcontext


def _kernels_recorded(library: Library, recorder: Recorder) -> Any:
    """What gives the ops the launcher of `natively` while they are recorded."""

    @functools.cache
    def launcher() -> Any:
        K = natively.LAUNCHERS[np]()
        return None if K is None else RecordingLauncher(K, library, recorder, Recorded)

    return launcher


@contextmanager
def recording(
    kernels: bool = False, branches: bool = True, no_scaling: str = ""
) -> Iterator[Recorder]:
    """Record what this thread does inside the block.

    On the CPU that is what the rules do, or with ``kernels`` what the step does as it is. Without
    ``branches`` ops take no shortcuts that depend on values. ``no_scaling`` is why the methods of
    a `GradScaler` are Python code on a GPU, if they are.

    While it lasts ``Tensor.array`` is a property, ``np`` in the library's modules is a `_Library`,
    and the generator's draws note themselves; other threads see no difference.
    """
    # Casts that outside keeps are of parameters as they were; those made here are no tensors there.
    own_casts = autocast_mode.again(autocast_mode.current_autocast())
    with recording_lock, aside(), own_casts, _in_place(kernels, branches) as recorder:
        recorder.scaling.outside = no_scaling
        yield recorder


def _replacements(kernels: bool, branches: bool) -> list[Replacement]:
    """What is replaced on any device: in which object, under which name, and by what around it."""
    found: list[Replacement] = [(Generator, name, _drawn) for name in DRAWS]
    openers = (builtins, io, getattr(np.lib, "_datasource", io))  # the last one has its own
    found += [(module, "open", _opened) for module in dict.fromkeys(openers)]
    accessor: Any = getattr(pathlib, "_NormalAccessor", None)  # of Python 3.10: `open` of paths
    if accessor is not None:
        found.append((accessor, "open", lambda f: staticmethod(_opened(f))))
    found += [
        (replayed, "intercept", lambda _: called_anew),
        (Generator, "state_array", _state_saved),
        (Generator, "set_state_array", _state_restored),
        (Generator, "manual_seed", on_the_host),
    ]
    found += [
        (cls, name, asked.asking)
        for cls in (Tensor, Description)
        for name in (*asked.METHODS, *asked.PROPERTIES)
        if name in cls.__dict__
    ]
    found += [
        (Tensor, "numpy", handing),
        (Tensor, "__array__", giving),
        (Tensor, "__dlpack__", lending),
        (Tensor, "__hash__", asked.looked_up),
        (printing, "tensor_str", asked.shown),
        (Tensor, "_accumulate", _noting_leaf),
        (Tensor, "grad", _noting_reader),
        (Module, "zero_grad", _noting_cleared),
        (Optimizer, "zero_grad", _noting_cleared),
    ]
    found += one_call.replacements(kernels)
    ways = (_avoidable, _required_of_branch) if branches else (_never, _required_in_replays)
    functions = (shortcuts.allowed, shortcuts.require)
    found += [(shortcuts, f.__name__, way) for f, way in zip(functions, ways)]
    found += [
        (shortcuts, "verify", _but_for_graphs),
        (optimizer, "intercept", lambda _: step_taken),
        (Kernel, "_run_on_cpu", _kernel_run),
    ]
    return found


def _replacements_on_gpu(library: GpuLibrary, recorder: Recorder) -> list[Replacement]:
    """The same for a GPU."""
    found: list[Replacement] = [
        (cuda, "module", lambda f: _seen_by_ops(f, library, recorder)),
        (special, "library", _special(library, recorder)),
        (draws, "intercept", lambda _: _place_of_draw),
        (Kernel, "_launch", _kernel_launched),
    ]
    return [*found, *((many, name, _by_table) for name in TABLES)]


@contextmanager
def _in_place(kernels: bool, branches: bool) -> Iterator[Recorder]:
    recorder = Recorder()
    recorder.shortcuts = branches
    library = Library(np, recorder)
    tensor_class: Any = Tensor
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("gradlite.")
        and not name.removeprefix("gradlite.").startswith(HOST_MODULES)
        and module.__dict__.get("np") is np
    ]
    for name in MAKERS:
        getattr(library, name)  # which is to have NumPy's own
    replaced: list[Replacement] = [(np, name, _of_recorded) for name in MAKERS]
    replaced += _replacements(kernels, branches)
    cupy = cuda.module() if cuda.in_use() else None
    launcher = None
    if cupy is not None:
        gpu = GpuLibrary(cupy, recorder, cupy.ufunc)
        real = NAMESPACES[cupy.ndarray].launcher
        launcher = None if real is None else RecordingLauncher(real, gpu, recorder)
        replaced += _replacements_on_gpu(gpu, recorder)
    # As they are found there: a class has functions and properties, no methods.
    originals = [(holder, name, holder.__dict__[name]) for holder, name, _ in replaced]
    try:
        for module in modules:
            module.__dict__["np"] = library
        for (holder, name, around), (*_, original) in zip(replaced, originals):
            setattr(holder, name, around(original))
        tensor_class.array = property(recorder.read_array, recorder.write_array)
        tensor_class.__getattr__ = asked.missing
        NAMESPACES[Recorded] = Namespace(library)
        if kernels and np in natively.LAUNCHERS:
            natively.LAUNCHERS[library] = _kernels_recorded(library, recorder)
        if cupy is not None:
            NAMESPACES[RecordedGpu] = Namespace(gpu, launcher, numbers=True)
        recorded.current = recorder
        yield recorder
    finally:
        recorded.current = None
        natively.LAUNCHERS.pop(library, None)
        NAMESPACES.pop(Recorded, None)
        NAMESPACES.pop(RecordedGpu, None)
        tensor_class.array = raw_array
        if "__getattr__" in tensor_class.__dict__:
            del tensor_class.__getattr__
        for holder, name, original in originals:
            setattr(holder, name, original)
        for module in modules:
            module.__dict__["np"] = np
