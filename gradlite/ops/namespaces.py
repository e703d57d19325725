"""What the rules call F: every primitive op, on the arrays of one library or on Tensors."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from gradlite import dtypes, graph
from gradlite.backends import cuda
from gradlite.backends.kernels import CudaLauncher, DevicesLauncher
from gradlite.ops import guard
from gradlite.ops.guard import Guard
from gradlite.ops.twins import has_kernel, twin


class Namespace:
    """What a rule calls F: every primitive op under its ``fname``, on arrays or on Tensors."""

    tensors = False

    if TYPE_CHECKING:
        # Ops are attributes that no checker can know of.
        def __getattr__(self, name: str) -> Any: ...

    def __init__(
        self, xp: Any, launcher: Any = None, guard: Guard | None = None, numbers: bool = False
    ) -> None:
        self.xp, self.guard, self.numbers = xp, guard, numbers
        self.use(launcher)

    def use(self, launcher: Any) -> None:
        """Run the ops that have kernels with a launcher's; None: run the rules alone."""
        self.launcher = launcher
        self.halves = dtypes.halves_in_use()
        self.twins: dict[Any, Any] = {}
        for op in OPS.values():
            self.enter(op)

    def enter(self, op: Any) -> None:
        """Enter one op."""
        runs = op
        has = self.launcher is not None and has_kernel(op, self.launcher)
        if has or self.guard is not None or (self.halves and not op.moves):
            runs = self.twins[op] = twin(op, self.launcher, self.guard, self.halves)
        setattr(self, op.fname, self._bind(runs))

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
