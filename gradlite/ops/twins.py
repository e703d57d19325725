"""Twins: ops that run with kernels where a kernel can serve them, and as their rule elsewhere.

An op and its kernels stand together in the op's class, but an op does not know on which array
it will run. A namespace whose library has a launcher keeps a twin of each op with kernels: a
subclass whose forward and backward try the fused functions first. The twin, not the op, is what
the node of such an array holds, so the engine calls either in the same way and pays nothing
for ops without kernels. Names and all else are inherited. Where there are several GPUs, every op
has a twin, which also looks for the device to run on (`guard.py`), and once there is half
precision, every op that computes has one, which computes in float32 (`halves.py`). On a GPU
elementwise ops have one whose result lies as the operands do, which CuPy's results do not.
"""

from __future__ import annotations

from functools import cache
from typing import Any

from gradlite.ops import halves
from gradlite.ops.layout import as_operands_lie


def has_kernel(op: Any, launcher: Any) -> bool:
    """Whether an op can run with a launcher's kernels."""
    if op.multiplies and not launcher.multiplies:
        return False
    return fused(op, "forward") is not None or fused(op, "backward") is not None


def fused(op: Any, rule: str) -> Any:
    """The op's function with kernels for ``forward`` or ``backward``, or None.

    One that a base class defines stands for the base's rule, and not for the rule of a subclass
    that has its own.
    """
    for cls in op.__mro__:
        found = cls.__dict__.get(f"fused_{rule}")
        if found is not None:
            return found.__func__
        if rule in cls.__dict__:
            return None
    return None


def is_twin(cls: type) -> bool:
    """Whether a class is a twin, and not an op that is being defined."""
    return "rule" in cls.__dict__


def twin(
    op: Any,
    launcher: Any,
    guard: Any = None,
    kinds: frozenset[Any] = frozenset(),
    lays_out: bool = False,
) -> Any:
    """The op as it runs where a launcher has its kernels, or where there are several devices.

    Args:
        kinds: the dtypes of half precision that are in use, of which it takes arrays too.
        lays_out: whether it looks after where its result lies, being an elementwise op.
    """
    if launcher is None and guard is None:
        return _alone(op, kinds, lays_out)
    return _twin(op, launcher, guard, kinds, lays_out)


@cache
def _alone(op: Any, kinds: frozenset[Any], lays_out: bool) -> Any:
    """A twin without kernels: the same for every namespace, those of recordings too."""
    return _twin(op, None, None, kinds, lays_out)


def _twin(op: Any, launcher: Any, guard: Any, kinds: frozenset[Any], lays_out: bool) -> Any:
    body: dict[str, Any] = {"rule": op, "__module__": op.__module__, "__doc__": op.__doc__}
    for rule, made, wide in (
        ("forward", _forward, halves.forward_of),
        ("backward", _backward, halves.backward_of),
    ):
        function = fused(op, rule) if launcher is not None else None
        runs = getattr(op, rule)
        if kinds and not (op.moves or (op.delegates and rule == "backward")):
            runs = wide(op, kinds)
        if function is not None:
            runs = made(runs, function, launcher)
        if lays_out and rule == "forward":
            runs = as_operands_lie(runs, len(op.reads))
        if guard is not None:
            runs = getattr(guard, rule)(runs)
        if runs is not getattr(op, rule):
            body[rule] = staticmethod(runs)
    return type(op.__name__, (op,), body)


def _forward(rule: Any, fused: Any, launcher: Any) -> Any:
    def forward(xp: Any, *args: Any) -> Any:
        result = fused(launcher, *args)
        return rule(xp, *args) if result is NotImplemented else result

    return forward


def _backward(rule: Any, fused: Any, launcher: Any) -> Any:
    def backward(ctx: Any, grad: Any, F: Any) -> Any:
        if F.tensors:  # create_graph: what is computed has to be recorded, op by op
            return rule(ctx, grad, F)
        result = fused(launcher, ctx, grad)
        return rule(ctx, grad, F) if result is NotImplemented else result

    return backward
