"""What the rules call F: every primitive op, on the arrays of one library or on Tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import numpy as np

from gradlite import dtypes, graph
from gradlite.backends import cuda
from gradlite.backends.kernels import CudaLauncher, DevicesLauncher
from gradlite.ops import guard
from gradlite.ops.guard import Guard
from gradlite.ops.twins import has_kernel, is_twin, twin


class Twins(dict[Any, Any]):
    """The form of each op that a namespace runs, made when it is first asked for."""

    def __init__(
        self, launcher: Any, guard: Guard | None, halves: frozenset[Any], lays_out: bool
    ) -> None:
        self.launcher, self.guard, self.halves, self.lays_out = launcher, guard, halves, lays_out

    def __missing__(self, op: Any) -> Any:
        if is_twin(op):
            return op
        found, has = op, self.launcher is not None and has_kernel(op, self.launcher)
        lays_out = self.lays_out and op.elementwise
        if has or lays_out or self.guard is not None or (self.halves and not op.moves):
            found = twin(op, self.launcher, self.guard, self.halves, lays_out)
        return self.setdefault(op, found)  # another thread may have made one meanwhile


class Namespace:
    """What a rule calls F: every primitive op under its ``fname``, on arrays or on Tensors.

    Ops are bound when they are first asked for: a recording, which has namespaces of its own, runs
    a few of hundreds.

    Attributes:
        twins: what runs in the place of each op, or None where every op runs as it is.
    """

    tensors = False

    def __init__(
        self, xp: Any, launcher: Any = None, guard: Guard | None = None, numbers: bool = False
    ) -> None:
        self.xp, self.guard, self.numbers = xp, guard, numbers
        self.use(launcher)

    def use(self, launcher: Any) -> None:
        """Run the ops that have kernels with a launcher's; None: run the rules alone."""
        halves = dtypes.halves_in_use()
        lays_out = self.numbers  # results of CuPy, and of kernels, are row-major
        plain = launcher is None and self.guard is None and not halves and not lays_out
        self.launcher = launcher
        self.twins = None if plain else Twins(launcher, self.guard, halves, lays_out)
        for name in OPS:
            self.__dict__.pop(name, None)

    def __getattr__(self, name: str) -> Any:
        op = OPS.get(name)
        if op is None:
            raise AttributeError(f"there is no op {name!r}")
        bound = self._bind(self.runs(op))
        setattr(self, name, bound)
        return bound

    def runs(self, op: Any) -> Any:
        """What runs in the place of an op."""
        return op if self.twins is None else self.twins[op]

    def complete(self) -> None:
        """Bind every op now: later ones would be bound to what is in its place by then."""
        for name in OPS:
            getattr(self, name)

    def _bind(self, op: Any) -> Callable[..., Any]:
        forward, xp = op.forward, self.xp
        if op.has_aux:

            def call(*args: Any) -> Any:
                return forward(xp, *args)[0]

            return call
        return partial(forward, xp)

    def zeros(self, shape: Sequence[int], like: Any) -> Any:
        """Zeros with another array's dtype and device."""
        return self.xp.zeros(shape, like.dtype)

    def zero_beside(self, like: Any) -> Any:
        """0 among the arguments of `where`, in another array's dtype.

        It is a number where an array would be made by a launch.
        """
        return 0.0 if self.numbers else self.zeros((), like)

    def detach(self, value: Any) -> Any:
        """The value as a constant."""
        return value

    def array(self, value: Any) -> Any:
        """The raw array of a value."""
        return value


class _Namespaces(dict[type, Namespace]):
    """The namespace of an array by its class; one look-up per op."""

    def __missing__(self, cls: type) -> Namespace:
        if issubclass(cls, (np.ndarray, np.generic)):
            return self[np.ndarray]
        if cls.__module__.partition(".")[0] == "cupy":  # made by the program itself
            import cupy

            enter_cupy(cupy)
            return self[cls]
        raise TypeError(f"expected a Tensor, but got {cls.__name__}")


def of_cupy(cupy: Any) -> Namespace:
    """The namespace of CuPy's arrays."""
    if cupy.cuda.runtime.getDeviceCount() == 1:
        return Namespace(cupy, CudaLauncher(cupy), numbers=True)
    guard.several = several = Guard(cupy)
    graph.add, graph.add_in_place = several.call(graph.add), several.call(graph.add_in_place)
    return Namespace(cupy, DevicesLauncher(cupy), several, True)


OPS: dict[str, Any] = {}
NAMESPACES = _Namespaces()
NAMESPACES[np.ndarray] = Namespace(np)


@cuda.when_used
def enter_cupy(cupy: Any) -> None:
    """Let the ops take arrays of GPUs: before there is one, for a copy to a GPU may be the first
    op of all, and several GPUs are to be told apart from the start."""
    if cupy.ndarray not in NAMESPACES:
        NAMESPACES[cupy.ndarray] = of_cupy(cupy)


@dtypes.when_used
def _enter_halves() -> None:
    """Let the ops take arrays of half precision."""
    for namespace in NAMESPACES.values():
        if not namespace.tensors:
            namespace.use(namespace.launcher)
