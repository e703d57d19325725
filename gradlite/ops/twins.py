"""Twins: ops that run with kernels where a kernel can serve them, and as their rule elsewhere.

An op and its kernels stand together in the op's class, but an op does not know on which array
it will run. A namespace whose library has a launcher keeps a twin of each op with kernels: a
subclass whose forward and backward try the fused functions first. The twin, not the op, is what
the node of such an array holds, so the engine calls either in the same way and pays nothing
for ops without kernels. Names and all else are inherited. Where there are several GPUs, every op
has a twin, which also looks for the device to run on (`guard.py`).
"""

from __future__ import annotations

from typing import Any


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


def twin(op: Any, launcher: Any, guard: Any = None) -> Any:
    """The op as it runs where a launcher has its kernels, or where there are several devices."""
    body: dict[str, Any] = {"rule": op, "__module__": op.__module__, "__doc__": op.__doc__}
    for rule, made in (("forward", _forward), ("backward", _backward)):
        function = fused(op, rule) if launcher is not None else None
        if function is not None:
            body[rule] = staticmethod(made(getattr(op, rule), function, launcher))
        if guard is not None:
            runs = body[rule].__func__ if rule in body else getattr(op, rule)
            body[rule] = staticmethod(getattr(guard, rule)(runs))
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
