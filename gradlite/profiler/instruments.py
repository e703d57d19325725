"""What is different in the library while a profile is on; and nothing is while none is.

Ops are classes that the engine calls by their attributes ``forward`` and ``backward``. A profile
puts measuring functions in the place of those attributes, as it does with the few other functions
that compute, and puts the very same objects back at the end. So there is no question "is somebody
measuring?" on the path of an op, and graphs recorded before or during a profile run with it or
without it.
"""

from __future__ import annotations

import functools
import sys
import threading
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

import numpy as np

from gradlite import changes, dtypes, graph
from gradlite.autograd.function import _FunctionOp
from gradlite.backends import cuda as backend
from gradlite.backends.gemm import CupyGemm
from gradlite.backends.kernels import Launcher
from gradlite.backends.native import NativeLauncher
from gradlite.capturing import CapturedStep, recording
from gradlite.capturing.recording import is_recording, recording_lock
from gradlite.cuda.kernel import Kernel
from gradlite.ops import comparison, extrema, guard, sorting
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.op import Op
from gradlite.ops.table import TABLE
from gradlite.optim import optimizer
from gradlite.optim.optimizer import Optimizer
from gradlite.profiler.events import (
    BACKWARD,
    FUNCTION,
    KERNEL,
    OP,
    RANGE,
    begin,
    end,
    launched,
    shapes_of,
    traffic,
)
from gradlite.tensor import Tensor

MISSING = object()
_COMPARISONS = {
    "equal": "eq", "not_equal": "ne", "less": "lt", "less_equal": "le", "greater": "gt",
    "greater_equal": "ge",
}  # fmt: skip
_IN_PLACE = ("iadd", "isub", "imul", "itruediv", "ipow", "imod", "ifloordiv")


class Instruments:
    """The measuring functions, in place while at least one profile is on.

    Attributes:
        timing: how many profiles want kernels on a GPU to stand between two marks.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = self.timing = 0
        self._replaced: list[tuple[Any, str, Any]] = []
        self._cells: list[tuple[Any, Any]] = []

    def enter(self, timing: bool) -> None:
        """Put the measuring functions in place, for one more profile.

        Raises:
            RuntimeError: inside a captured step, which is not run again but replayed.
        """
        _refuse_recording("begin")
        # A recording has replacements of its own, which must not be mixed with these.
        with self._lock, recording_lock:
            if self._users == 0:
                try:
                    self._install()
                except BaseException:
                    self._restore()
                    raise
                recording.aside = self._away
            self._users += 1
            self.timing += timing

    def leave(self, timing: bool) -> None:
        """One profile less; the last one puts everything back."""
        _refuse_recording("end")
        with self._lock, recording_lock:
            self._users -= 1
            self.timing -= timing
            if self._users == 0:
                self._restore()
                recording.aside = nullcontext

    @contextmanager
    def _away(self) -> Iterator[None]:
        """The library as it is without a profile, for a recording, which holds its lock."""
        self._restore()
        try:
            yield
        finally:
            self._install()

    def renew(self) -> None:
        """Put the measuring functions in place anew, since ops have got twins."""
        if is_recording():
            return  # they are away, and come back when it ends
        with self._lock, recording_lock:
            if self._users:
                self._restore()
                self._install()

    # --------------------------------------------------------------------------- places
    def _install(self) -> None:
        if backend.status()[0]:  # a namespace that was made later would keep measuring functions
            _ = NAMESPACES[backend.module().ndarray]
        for namespace in NAMESPACES.values():
            namespace.complete()
        planned = [*_ops(), *_functions(), *_ranges(), *_kernels()]
        for owner, name, made in planned:
            original = vars(owner).get(name, MISSING)
            self._replaced.append((owner, name, original))
            _put(owner, name, made)
            if isinstance(owner, type) and original is not MISSING:
                changes.measured[owner, name] = made, original
        changes.measurings[0] += 1
        for cell, made in _guarded():
            self._cells.append((cell, cell.cell_contents))
            cell.cell_contents = made

    def _restore(self) -> None:
        changes.measured.clear()
        changes.measurings[0] += 1
        while self._replaced:
            owner, name, original = self._replaced.pop()
            if original is MISSING:
                delattr(owner, name)
            else:
                _put(owner, name, original)
        while self._cells:
            cell, original = self._cells.pop()
            cell.cell_contents = original


def _refuse_recording(what: str) -> None:
    if is_recording():
        raise RuntimeError(
            f"a profile cannot {what} inside a captured step: put it around the calls of the step"
        )


INSTRUMENTS = Instruments()
dtypes.when_used(INSTRUMENTS.renew)
Replacement = tuple[Any, str, Any]


def _all_ops(cls: Any = Op) -> Iterator[Any]:
    for op in cls.__subclasses__():
        yield op
        yield from _all_ops(op)


def _ops() -> Iterator[Replacement]:
    """Forward and rule of every op, which inherits neither while it is measured."""
    for op in dict.fromkeys(_all_ops()):
        for rule, make in (("forward", _forward), ("backward", _backward)):
            found = getattr(op, rule, None)
            if found is not None:
                name = op.fname if rule == "forward" else op.grad_name
                yield op, rule, staticmethod(make(name, found))
    yield _FunctionOp, "backward", _backward_of_function(_FunctionOp.backward)
    yield Tensor, "_accumulate", _accumulation(Tensor._accumulate)


def _functions() -> Iterator[Replacement]:
    """What computes without a rule and is looked up where it is called."""
    yield comparison, "_compare_here", _named_function(comparison._compare_here, _COMPARISONS)
    yield extrema, "_arg", _named_function(extrema._arg, {})
    for name, method in list(vars(Tensor).items()):
        plain = name[:-1] if name.endswith("_") and not name.startswith("_") else ""
        if plain and (plain in TABLE or plain in ("copy", "fill", "zero")):
            yield Tensor, name, _function(name, method)
        elif name[2:-2] in _IN_PLACE:
            yield Tensor, name, _function(method.__name__, method)


def _ranges() -> Iterator[Replacement]:
    """What ops run in."""
    yield graph, "backward", _range(lambda *args: "backward", graph.backward)
    yield optimizer, "intercept", _step_of(optimizer.intercept)
    zero_grad = "Optimizer.zero_grad#{}.zero_grad"
    yield (
        Optimizer,
        "zero_grad",
        _range(lambda self, *args: zero_grad.format(type(self).__name__), Optimizer.zero_grad),
    )
    yield CapturedStep, "__call__", _range(_name_of_step, CapturedStep.__call__)


def _kernels() -> Iterator[Replacement]:
    """What launches kernels."""
    for launcher in (Launcher, NativeLauncher):
        yield launcher, "_launch", _launch(launcher._launch)
    yield CupyGemm, "matmul", _product(CupyGemm.matmul)
    cublaslt = sys.modules.get("gradlite.backends.cublaslt")
    if cublaslt is not None:
        yield cublaslt.CublasLt, "run", _product(cublaslt.CublasLt.run)
    yield Kernel, "_launch", _kernel_of_the_user(Kernel._launch, 2)
    yield Kernel, "_run_on_cpu", _kernel_of_the_user(Kernel._run_on_cpu, 3)


def _guarded() -> Iterator[tuple[Any, Any]]:
    """The cells from which `guard.on_its_device` calls what it is put around."""
    code = guard.on_its_device(lambda: None).__code__
    place = code.co_freevars.index("function")
    public = {entry.function for entry in TABLE.values()}
    modules = [m for name, m in list(sys.modules.items()) if name.startswith("gradlite.ops.")]
    values = [value for module in modules for value in list(vars(module).values())]
    guarded = dict.fromkeys(v for v in values if getattr(v, "__code__", None) is code)
    for function in guarded:
        cell = function.__closure__[place]
        inner = cell.cell_contents
        first = inner.__code__.co_varnames[0]
        if function in public:
            yield cell, _function(function.__name__, inner)
        elif first in ("name", "function"):
            yield cell, _named_function(inner, {"max": "argmax", "min": "argmin"})
        elif function is sorting.order_of:
            yield cell, _function("argsort", inner)


# ---------------------------------------------------------------------- what takes their place
def _forward(name: str, rule: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(rule)
    def forward(xp: Any, *args: Any) -> Any:
        event = begin(name, OP)
        try:
            result = rule(xp, *args)
        finally:
            end(event)
        event.input_shapes = shapes_of(args)
        event.bytes = traffic(args, result)
        return result

    return forward


def _backward(name: str, rule: Callable[..., Any]) -> Callable[..., Any]:
    @functools.wraps(rule)
    def backward(ctx: Any, grad: Any, F: Any) -> Any:
        event = begin(name, BACKWARD)
        try:
            result = rule(ctx, grad, F)
        finally:
            end(event)
        if not F.tensors:  # else the ops that it consists of are counted
            event.input_shapes = shapes_of((grad,))
            event.bytes = traffic((grad, ctx.saved, ctx.aux), _given(ctx, result))
        return result

    return backward


def _given(ctx: Any, result: Any) -> Any:
    """What a rule has made, with the ``.grad`` to which it has added by itself."""
    edges = ctx.edges if result.__class__ is tuple else ()
    return result, [
        edge.variable._grad.array
        for edge, part in zip(edges, result)
        if part is None
        and edge.__class__ is graph.AccumulateGrad
        and edge.variable._grad is not None
    ]


def _backward_of_function(rule: Callable[..., Any]) -> Callable[..., Any]:
    def backward(self: Any, node: Any, grad: Any, F: Any) -> Any:
        event = begin(self.grad_name, RANGE)  # the user's own, in which ops run
        try:
            return rule(self, node, grad, F)
        finally:
            end(event)

    return backward


def _accumulation(accumulate: Callable[..., Any]) -> Callable[..., Any]:
    def _accumulate(self: Tensor, grad: Any, private: bool, create_graph: bool) -> None:
        before = self._grad
        event = begin("AccumulateGrad", BACKWARD)
        try:
            accumulate(self, grad, private, create_graph)
        finally:
            end(event)
        if not create_graph and self._grad is not None:
            total = self._grad.array
            event.input_shapes = shapes_of((grad,))
            if before is not None:  # read, added and written
                event.bytes = int(2 * total.nbytes + grad.nbytes)
            else:
                event.bytes = traffic((grad,), total)

    return _accumulate


def _function(name: str, function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        event = begin(name, FUNCTION)
        try:
            result = function(*args, **kwargs)
        finally:
            end(event)
        _describe(event, args, result)
        return result

    return call


def _named_function(function: Callable[..., Any], names: dict[str, str]) -> Callable[..., Any]:
    """A function whose first argument is NumPy's name of what it does."""

    def call(name: str, *args: Any) -> Any:
        event = begin(names.get(name, name), FUNCTION)
        try:
            result = function(name, *args)
        finally:
            end(event)
        _describe(event, args, result)
        return result

    return call


def _describe(event: Any, args: Any, result: Any) -> None:
    read = [a.array if isinstance(a, Tensor) else a for a in args]
    results = result if isinstance(result, tuple) else (result,)
    written = [r.array if isinstance(r, Tensor) else r for r in results]
    event.input_shapes = shapes_of(read)
    event.bytes = traffic(read, written)
    if event.name.endswith("_"):  # in place: read and written
        event.bytes = sum(int(a.nbytes) for a in read if hasattr(a, "nbytes"))
        event.bytes += int(read[0].nbytes)


def _range(name: Callable[..., str], function: Callable[..., Any]) -> Callable[..., Any]:
    def call(*args: Any, **kwargs: Any) -> Any:
        event = begin(name(*args), RANGE)
        try:
            return function(*args, **kwargs)
        finally:
            end(event)

    call.__name__ = getattr(function, "__name__", "call")
    return call


def _name_of_step(step: CapturedStep, *args: Any) -> str:
    return f"capture#{getattr(step.step, '__name__', 'step')}"


def _step_of(before: Any) -> Callable[..., Any]:
    """What an optimizer's step asks first: here, to run inside an event."""
    running: set[tuple[int, int]] = set()

    def intercept(step: Any, self: Any, args: Any, kwargs: Any) -> tuple[Any] | None:
        if before is not None:
            taken = before(step, self, args, kwargs)
            if taken is not None:
                return taken  # type: ignore[no-any-return]
        here = (threading.get_ident(), id(self))
        if here in running:
            return None
        running.add(here)
        name = type(self).__name__
        event = begin(f"Optimizer.step#{name}.step", RANGE)
        try:
            return (step(self, *args, **kwargs),)
        finally:
            end(event)
            running.discard(here)

    return intercept


def _launch(launch: Callable[..., Any]) -> Callable[..., Any]:
    def _launch(
        self: Any, name: str, dtype: Any, grid: Any, block: Any, arguments: Any, shared: int
    ) -> None:
        event = begin(name, KERNEL)
        _mark(event, self.xp, 0)
        try:
            launch(self, name, dtype, grid, block, arguments, shared)
        finally:
            _mark(event, self.xp, 1)
            end(event)
            launched(event)
        event.bytes = sum(int(a.nbytes) for a in arguments if hasattr(a, "nbytes"))

    return _launch


def _product(multiply: Callable[..., Any]) -> Callable[..., Any]:
    def product(self: Any, a: Any, b: Any, *args: Any, **kwargs: Any) -> Any:
        event = begin("gemm", KERNEL)
        _mark(event, self.xp, 0)
        try:
            result = multiply(self, a, b, *args, **kwargs)
        finally:
            _mark(event, self.xp, 1)
            end(event)
        if result is NotImplemented or event.launches:  # another product was made in its place
            event.marks = None
        else:
            launched(event)
            event.bytes = traffic((a, b), result)
        return result

    return product


def _kernel_of_the_user(launch: Callable[..., Any], values_at: int) -> Callable[..., Any]:
    def _launch(self: Kernel, *args: Any) -> None:
        arrays = [v for v in args[values_at] if v is not None and not isinstance(v, np.generic)]
        xp = backend.module() if backend.in_use() else np
        event = begin(self.name, KERNEL)
        _mark(event, xp, 0)
        try:
            launch(self, *args)
        finally:
            _mark(event, xp, 1)
            end(event)
            launched(event)
        event.bytes = sum(int(a.nbytes) for a in arrays)

    return _launch


def _put(owner: Any, name: str, value: Any) -> None:
    """Put something in the library's place that captured steps need not notice."""
    if isinstance(owner, types.ModuleType):
        vars(owner)[name] = value
    else:
        setattr(owner, name, value)


def _mark(event: Any, xp: Any, place: int) -> None:
    """Put one of the two marks around a kernel into the stream of a GPU."""
    if xp is np or not INSTRUMENTS.timing or xp.cuda.get_current_stream().is_capturing():
        return  # a mark in a CUDA graph has no time
    made = xp.cuda.Event()
    made.record()
    event.marks = (made, made) if place == 0 else (event.marks[0], made)
