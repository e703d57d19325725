"""What is different in the library while a step is recorded, and only for the thread that records.

``Tensor.array`` hands out recorded arrays, the library's NumPy makes recorded ones, and what has
its arithmetic on the host, random numbers and the steps of optimizers, notes that it was called.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite.amp import GradScaler
from gradlite.capturing import recorded
from gradlite.capturing.calls import CaptureError
from gradlite.capturing.recorded import Recorded, active, plain_values
from gradlite.capturing.recorder import Recorder, raw_array
from gradlite.ops import columns, pooling
from gradlite.ops.namespaces import NAMESPACES, Namespace
from gradlite.optim import optimizer
from gradlite.optim.lr_scheduler import LRScheduler
from gradlite.optim.optimizer import Optimizer
from gradlite.optim.swa_utils import AveragedModel
from gradlite.random import Generator
from gradlite.tensor import Tensor

# Modules of gradlite that deal with the host's data and are left alone.
HOST_MODULES = (
    "capturing", "cli", "datasets", "io", "ops.pad_sources", "random", "utils.data", "printing",
    "optim", "backends.kernels", "backends.native", "backends.staging", "backends.tables",
)  # fmt: skip
# Recorded as one call each, so that compiled code can do them its own way.
CONVOLUTIONS = (
    columns.convolve, columns.input_gradient, columns.weight_gradient, columns.gradients,
)  # fmt: skip
POOLINGS = (pooling.maxima, pooling.scatter)
DRAWS = ("words", "random", "normal", "integers", "bernoulli_mask", "permutation", "multinomial")


def is_recording() -> bool:
    """Whether this thread records a step."""
    recorder = recorded.current
    return recorder is not None and recorder.thread == threading.get_ident()


class _Library(types.ModuleType):
    """NumPy as the ops see it during a recording: the arrays that it makes are recorded."""

    def __init__(self, source: Any, recorder: Recorder) -> None:
        super().__init__(source.__name__)
        self._source, self._recorder = source, recorder

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._source, name)
        if isinstance(found, types.ModuleType):
            found = _Library(found, self._recorder)
        elif callable(found) and not isinstance(found, (type, np.ufunc)):
            found = _function(found, name, self._recorder)
        setattr(self, name, found)
        return found


def _function(function: Any, name: str, recorder: Recorder) -> Any:
    blank = name.startswith("empty")

    def call(*args: Any, **kwargs: Any) -> Any:
        if active() is not recorder:
            return function(*args, **kwargs)
        if _mentions_recorded(args) or _mentions_recorded(tuple(kwargs.values())):
            if name in ("empty_like", "zeros_like", "ones_like", "full_like"):
                return recorder.made(function(*plain_values(args), **plain_values(kwargs)), blank)
            return recorder.run(function, args, kwargs)
        return recorder.made(function(*args, **kwargs), blank)

    call.__name__ = name
    return call


def _mentions_recorded(value: Any) -> bool:
    cls = value.__class__
    if cls is tuple or cls is list:
        return any(_mentions_recorded(v) for v in value)
    return cls is Recorded


def _drawn(original: Any) -> Any:
    name = original.__name__

    def draw(self: Generator, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(self, *args, **kwargs)
        arguments = plain_values(args)
        if name == "multinomial":
            raise CaptureError("multinomial() reads its weights on the host: draw outside the step")
        return recorder.host_call(lambda: original(self, *arguments, **kwargs), undoable=True)

    draw.__name__ = name
    return draw


def _noting_leaf(original: Any) -> Any:
    def _accumulate(self: Tensor, *args: Any) -> None:
        recorder = active()
        if recorder is not None:
            recorder.used_grads[id(self)] = self
        original(self, *args)

    return _accumulate


def _as_one_call(original: Any) -> Any:
    @functools.wraps(original)
    def call(xp: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(xp, *args, **kwargs)
        return recorder.run(original, (np, *args), kwargs)

    return call


def _state_saved(original: Any) -> Any:
    def state_array(self: Generator) -> Any:
        recorder = active()
        if recorder is None:
            return original(self)
        return recorder.save_random_state(lambda: original(self))

    return state_array


def _state_restored(original: Any) -> Any:
    def set_state_array(self: Generator, state: Any) -> None:
        recorder = active()
        if recorder is None:
            original(self, state)
        else:
            recorder.restore_random_state(lambda value: original(self, value), state)

    return set_state_array


def _on_the_host(original: Any) -> Any:
    """A method of an optimizer, scheduler or scaler that a replay calls anew."""

    @functools.wraps(original)
    def method(self: Any, *args: Any, **kwargs: Any) -> Any:
        recorder = active()
        if recorder is None:
            return original(self, *args, **kwargs)
        if any(isinstance(a, Tensor) for a in (*args, *kwargs.values())):
            raise CaptureError(f"{original.__qualname__}() takes a tensor inside a captured step")
        params = [
            p
            for holder in (self, *args)
            if isinstance(holder, Optimizer)
            for group in holder.param_groups
            for p in group["params"]
        ]
        call = functools.partial(original, self, *args, **kwargs)
        functools.update_wrapper(call, original)
        return recorder.host_call(call, params)

    return method


def _step_on_the_host(step: Any, self: Any, args: Any, kwargs: Any) -> tuple[Any] | None:
    """What an optimizer's step asks first: its result, if it has been taken care of."""
    return None if active() is None else (_on_the_host(step)(self, *args, **kwargs),)


def _methods_of_the_host() -> Iterator[tuple[type, str]]:
    """The methods whose arithmetic is on the host: steps of schedulers and scalers."""
    stack: list[tuple[type, tuple[str, ...]]] = [
        (LRScheduler, ("step",)),
        (GradScaler, ("step", "update", "unscale_")),
        (AveragedModel, ("update_parameters",)),
    ]
    while stack:
        cls, names = stack.pop()
        yield from ((cls, name) for name in names if name in cls.__dict__)
        children: list[type] = cls.__subclasses__()
        stack += [(child, names) for child in children]


recording_lock = threading.Lock()  # one recording at a time, and no other replacements meanwhile


@contextmanager
def recording() -> Iterator[Recorder]:
    """Record what this thread does inside the block.

    While it lasts ``Tensor.array`` is a property, ``np`` in the library's modules is a `_Library`,
    and the generator's draws note themselves; other threads see no difference.
    """
    recording_lock.acquire()
    recorder = Recorder()
    library = _Library(np, recorder)
    tensor_class: Any = Tensor
    modules = [
        module
        for name, module in list(sys.modules.items())
        if name.startswith("gradlite.")
        and not name.removeprefix("gradlite.").startswith(HOST_MODULES)
        and module.__dict__.get("np") is np
    ]
    methods: list[tuple[Any, str, Any, Any]] = [
        (Generator, name, Generator.__dict__[name], _drawn) for name in DRAWS
    ]
    methods += [(c, n, c.__dict__[n], _on_the_host) for c, n in _methods_of_the_host()]
    for name, around in (
        ("state_array", _state_saved),
        ("set_state_array", _state_restored),
        ("manual_seed", _on_the_host),
    ):
        methods.append((Generator, name, Generator.__dict__[name], around))
    methods.append((Tensor, "_accumulate", Tensor._accumulate, _noting_leaf))
    whole: list[tuple[Any, Any]] = [(columns, f) for f in CONVOLUTIONS]
    whole += [(pooling, f) for f in POOLINGS]
    methods += [(module, f.__name__, f, _as_one_call) for module, f in whole]
    methods.append((optimizer, "intercept", optimizer.intercept, lambda _: _step_on_the_host))
    try:
        for module in modules:
            module.__dict__["np"] = library
        for cls, name, original, wrapped in methods:
            setattr(cls, name, wrapped(original))
        tensor_class.array = property(recorder.read_array, recorder.write_array)
        NAMESPACES[Recorded] = Namespace(library)
        recorded.current = recorder
        yield recorder
    finally:
        recorded.current = None
        NAMESPACES.pop(Recorded, None)
        tensor_class.array = raw_array
        for cls, name, original, _ in methods:
            setattr(cls, name, original)
        for module in modules:
            module.__dict__["np"] = np
        recording_lock.release()
