"""Trade time for memory: drop the intermediate values of a part of the forward pass, and compute
them again when backward needs them (Chen, Xu, Zhang and Guestrin, "Training deep nets with
sublinear memory cost", 2016).

Two implementations, as in PyTorch. With ``use_reentrant=False``, the graph is recorded as always,
but what its nodes save is a `_Holder`, empty until the first of them is asked for its value; then
the function runs again and fills all of them. With ``use_reentrant=True``, the function is one op
whose backward runs it again with a graph of its own.
"""

from __future__ import annotations

import contextlib
import contextvars
import traceback
import warnings
import weakref
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from gradlite import autocast_mode, graph
from gradlite.autograd.backward import backward
from gradlite.autograd.function import Function
from gradlite.autograd.graph import saved_tensors_hooks
from gradlite.grad_mode import enable_grad, is_grad_enabled
from gradlite.random import default_generator
from gradlite.tensor import Tensor, wrap

__all__ = [
    "CheckpointError",
    "CheckpointFunction",
    "checkpoint",
    "checkpoint_sequential",
    "noop_context_fn",
    "set_checkpoint_debug_enabled",
    "set_checkpoint_early_stop",
]

Contexts = tuple[AbstractContextManager[Any], AbstractContextManager[Any]]


class CheckpointError(RuntimeError):
    """The second run of a checkpointed function differed from the first."""


def noop_context_fn() -> Contexts:
    """Contexts that do nothing, for the first run and for the second."""
    return contextlib.nullcontext(), contextlib.nullcontext()


_early_stop: contextvars.ContextVar[bool] = contextvars.ContextVar(
    "gradlite_checkpoint_early_stop", default=True
)
_debug: contextvars.ContextVar[bool | None] = contextvars.ContextVar(
    "gradlite_checkpoint_debug", default=None
)


@contextlib.contextmanager
def set_checkpoint_early_stop(enable: bool) -> Iterator[None]:
    """Whether the second run ends as soon as everything that backward needs is there."""
    token = _early_stop.set(enable)
    try:
        yield
    finally:
        _early_stop.reset(token)


@contextlib.contextmanager
def set_checkpoint_debug_enabled(enabled: bool | None) -> Iterator[None]:
    """Switch ``debug`` on or off for all checkpoints made inside; None leaves it to each."""
    token = _debug.set(enabled)
    try:
        yield
    finally:
        _debug.reset(token)


def checkpoint(
    function: Callable[..., Any],
    *args: Any,
    use_reentrant: bool | None = None,
    context_fn: Callable[[], Contexts] = noop_context_fn,
    determinism_check: str = "default",
    debug: bool = False,
    early_stop: bool = True,
    **kwargs: Any,
) -> Any:
    """Call a function whose intermediate values are computed again in backward, not kept.

    Kept are the arguments alone. Values and gradients are those of the plain call, bit for bit,
    random numbers included.

    Args:
        function: what to call; it must do the same when called twice.
        use_reentrant: False is recommended: it supports keyword arguments, Tensors in
            containers, `autograd.grad`, second derivatives and nesting. True needs an argument
            that requires grad. Leaving it out means True, with a warning.
        preserve_rng_state: draw the same random numbers in the second run (default True).
        context_fn: gives two contexts, for the two runs; not with ``use_reentrant=True``.
        determinism_check: "default" compares shapes, dtypes and devices of the two runs' values;
            "none" does not.
        debug: name the lines that saved values in the message when the runs differ.
        early_stop: let the second run end as soon as everything needed is there.

    Raises:
        CheckpointError: in backward, when the second run saved something else than the first.
        ValueError: arguments that ``use_reentrant=True`` does not know.

    >>> import gradlite
    >>> from gradlite.utils.checkpoint import checkpoint
    >>> x = gradlite.ones(2, requires_grad=True)
    >>> checkpoint(lambda x: x.exp().sin(), x, use_reentrant=False).sum().backward()
    >>> x.grad
    tensor([-2.4784, -2.4784])
    """
    if use_reentrant is None:
        warnings.warn(
            "gradlite.utils.checkpoint: the use_reentrant parameter should be passed explicitly. "
            "Starting in PyTorch 2.9, calling checkpoint without use_reentrant will raise an "
            "exception. use_reentrant=False is recommended, but if you need to preserve the "
            "current default behavior, you can pass use_reentrant=True. Refer to docs for more "
            "details on the differences between the two variants.",
            UserWarning,
            stacklevel=2,
        )
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    if use_reentrant:
        _refuse(kwargs)
        if context_fn is not noop_context_fn or debug is not False:
            raise ValueError(
                "Passing `context_fn` or `debug` is only supported when use_reentrant=False."
            )
        return CheckpointFunction.apply(function, preserve, *args)
    if determinism_check not in ("default", "none"):
        raise ValueError(
            f"determinism_check should be one of ['default', 'none'], but got {determinism_check}"
        )
    first, second = context_fn()
    if not is_grad_enabled():
        return function(*args, **kwargs)
    chosen = _debug.get()
    frame = _Frame(
        _Repetition(function, args, kwargs, second, preserve),
        early_stop=early_stop and _early_stop.get(),
        compare=determinism_check == "default",
        debug=debug if chosen is None else chosen,
    )
    with _holding(frame), first:
        result = function(*args, **kwargs)
    frame.complete = True
    return result


def checkpoint_sequential(
    functions: Sequence[Callable[[Any], Any]] | Any,
    segments: int,
    input: Any,
    use_reentrant: bool | None = None,
    **kwargs: Any,
) -> Any:
    """Call functions one after the other, in checkpointed segments of equal length.

    The last segment is not checkpointed, as backward needs it first.

    Args:
        functions: a `Sequential`, or a list of functions of one argument.
        segments: how many segments to make.
        preserve_rng_state: draw the same random numbers in the second run (default True).
    """
    if use_reentrant is None:
        warnings.warn(
            "gradlite.utils.checkpoint.checkpoint_sequential: the use_reentrant parameter should "
            "be passed explicitly. In version 2.9 we will raise an exception if use_reentrant is "
            "not passed. use_reentrant=False is recommended, but if you need to preserve the "
            "current default behavior, you can pass use_reentrant=True. Refer to docs for more "
            "details on the differences between the two variants.",
            UserWarning,
            stacklevel=2,
        )
        use_reentrant = True
    preserve = kwargs.pop("preserve_rng_state", True)
    _refuse(kwargs)
    parts = list(functions.children()) if hasattr(functions, "children") else list(functions)

    def segment(start: int, stop: int) -> Callable[[Any], Any]:
        def run(value: Any) -> Any:
            for part in parts[start:stop]:
                value = part(value)
            return value

        return run

    size = len(parts) // segments
    last = 0
    for start in range(0, size * (segments - 1), size):
        last = start + size
        input = checkpoint(
            segment(start, last),
            input,
            use_reentrant=use_reentrant,
            preserve_rng_state=preserve,
        )
    return segment(last, len(parts))(input)


def _refuse(kwargs: dict[str, Any]) -> None:
    if kwargs:
        raise ValueError("Unexpected keyword arguments: " + ",".join(kwargs))


# -------------------------------------------------------------------------- random numbers
@contextlib.contextmanager
def _random_state(state: np.ndarray[Any, Any] | None) -> Iterator[None]:
    """Draw from a state of the generator for a while; None draws on."""
    if state is None:
        yield
        return
    now = default_generator.state_array()
    default_generator.set_state_array(state)
    try:
        yield
    finally:
        default_generator.set_state_array(now)


# ---------------------------------------------------------------------------- not reentrant
class _Arguments(Function):
    """Saves a function's Tensor arguments as an op does: watched against in-place edits, and
    packed by the hooks of an enclosing checkpoint."""

    @staticmethod
    def forward(ctx: Any, stand_in: Tensor, *tensors: Tensor) -> Tensor:
        ctx.save_for_backward(*tensors)
        return wrap(np.zeros((), np.float32))

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise AssertionError("Did not expect to backward on this graph")


class _Repetition:
    """The second run of a function, with the arguments and random numbers of the first."""

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        kwargs: dict[str, Any],
        context: AbstractContextManager[Any],
        preserve_rng_state: bool,
    ) -> None:
        self.function, self.context = function, context
        self.autocast = autocast_mode.current_autocast()
        self.random_state = default_generator.state_array() if preserve_rng_state else None
        self.names = list(kwargs)
        values = [*args, *kwargs.values()]
        places = [i for i, v in enumerate(values) if isinstance(v, Tensor)]
        stand_in = wrap(np.zeros((), np.float32)).requires_grad_()
        self.arguments = _Arguments.apply(stand_in, *(values[i] for i in places))
        self.values = [None if isinstance(v, Tensor) else v for v in values]
        self.places = places

    def run(self) -> None:
        values = list(self.values)
        for i, tensor in zip(self.places, self.arguments.grad_fn.saved_tensors):
            values[i] = tensor
        count = len(values) - len(self.names)
        mode = autocast_mode.again(self.autocast)
        with enable_grad(), mode, _random_state(self.random_state), self.context:
            self.function(*values[:count], **dict(zip(self.names, values[count:])))


class _Holder:
    """The place of one saved value: empty between forward and the second run."""

    __slots__ = ("tensor", "__weakref__")

    def __init__(self) -> None:
        self.tensor: Tensor | None = None


class _Stop(Exception):  # noqa: N818  no error: it ends the second run
    pass


class _Frame:
    """One checkpointed call: the holders that its nodes keep, in the order they were made.

    The nodes own the holders and, through their hooks, the frame; the frame knows the holders
    weakly, so that everything dies with the graph.
    """

    def __init__(
        self, repetition: _Repetition, early_stop: bool, compare: bool, debug: bool
    ) -> None:
        self.repetition, self.early_stop, self.compare = repetition, early_stop, compare
        self.holders: list[weakref.ref[_Holder]] = []
        self.looks: list[dict[str, Any]] = []
        self.lines: list[str] | None = [] if debug else None
        self.complete = False

    def hold(self, tensor: Tensor) -> _Holder:
        """The place for a value that an op of the first run saves."""
        holder = _Holder()
        self.holders.append(weakref.ref(holder))
        self.looks.append(_look(tensor))
        if self.lines is not None:
            self.lines.append(_line())
        return holder

    def value(self, holder: _Holder) -> Tensor:
        """The value of a holder, which gives it away; all are filled when it is empty."""
        if holder.tensor is None:
            self.refill()
        tensor, holder.tensor = holder.tensor, None
        assert tensor is not None  # refill has filled it or raised
        return tensor

    def refill(self) -> None:
        """Run the function again and keep what its ops save."""
        seen: list[dict[str, Any]] = []
        lines: list[str] = []
        expected = len(self.holders)
        too_many = False

        def pack(tensor: Tensor) -> Tensor:
            nonlocal too_many
            place = len(seen)
            seen.append(_look(tensor))
            if self.lines is not None:
                lines.append(_line())
            if place >= expected:
                too_many = True
                return tensor
            holder = self.holders[place]()
            if holder is not None:
                holder.tensor = tensor.detach() if tensor.requires_grad else tensor
            if self.early_stop and place + 1 == expected:
                raise _Stop
            return tensor

        with contextlib.suppress(_Stop), saved_tensors_hooks(pack, lambda tensor: tensor):
            self.repetition.run()
        if too_many and self.complete:
            raise CheckpointError(
                "gradlite.utils.checkpoint: trying to save more tensors during recomputation than "
                f"during the original forward pass.\n{self._story(lines)}"
            )
        if len(seen) < expected:
            raise CheckpointError(
                "gradlite.utils.checkpoint: A different number of tensors was saved during the "
                "original forward and recomputation.\nNumber of tensors saved during forward: "
                f"{expected}\nNumber of tensors saved during recomputation: {len(seen)}.\n"
                f"{self._story(lines)}"
            )
        self._compare(seen, lines)

    def _compare(self, seen: list[dict[str, Any]], lines: list[str]) -> None:
        differences = [
            f"tensor at position {place}:\nsaved metadata: {first}\nrecomputed metadata: {second}\n"
            for place, (first, second) in enumerate(zip(self.looks, seen))
            if first != second and self.holders[place]() is not None
        ]
        if differences and self.compare:
            raise CheckpointError(
                "gradlite.utils.checkpoint: Recomputed values for the following tensors have "
                "different metadata than during the forward pass.\n"
                f"{''.join(differences)}.\n{self._story(lines)}"
            )

    def _story(self, lines: list[str]) -> str:
        if self.lines is None:
            return (
                "\nTip: To see a more detailed error message, either pass `debug=True` to\n"
                "`gradlite.utils.checkpoint.checkpoint(...)` or wrap the code block\nwith `with "
                "gradlite.utils.checkpoint.set_checkpoint_debug_enabled(True):` to\nenable "
                "checkpoint-debug mode globally.\n"
            )
        return (
            "\nThese lines saved a tensor in the original run:\n"
            + "".join(self.lines)
            + "\nand these in the recomputation:\n"
            + "".join(lines)
        )


def _holding(frame: _Frame) -> saved_tensors_hooks:
    return saved_tensors_hooks(frame.hold, frame.value)


def _look(tensor: Tensor) -> dict[str, Any]:
    return {"shape": tensor.shape, "dtype": tensor.dtype, "device": tensor.device}


def _line() -> str:
    """The innermost line of the stack that is not gradlite's own."""
    package = __name__.partition(".")[0]
    for frame, _ in traceback.walk_stack(None):
        if frame.f_globals.get("__name__", "").partition(".")[0] != package:
            return "".join(
                traceback.format_list(
                    traceback.StackSummary.extract([(frame, frame.f_lineno)].__iter__())
                )
            )
    return "  (unknown line)\n"


# -------------------------------------------------------------------------------- reentrant
class CheckpointFunction(Function):
    """A function as one op, whose backward runs it again and differentiates that."""

    @staticmethod
    def forward(
        ctx: Any, run_function: Callable[..., Any], preserve_rng_state: bool, *args: Any
    ) -> Any:
        """Run the function without recording it."""
        if not any(isinstance(a, Tensor) and a.requires_grad for a in args):
            warnings.warn(
                "None of the inputs have requires_grad=True. Gradients will be None",
                UserWarning,
                stacklevel=4,
            )
        ctx.run_function, ctx.autocast = run_function, autocast_mode.current_autocast()
        ctx.random_state = default_generator.state_array() if preserve_rng_state else None
        ctx.args = [None if isinstance(a, Tensor) else a for a in args]
        ctx.places = [i for i, a in enumerate(args) if isinstance(a, Tensor)]
        ctx.save_for_backward(*(args[i] for i in ctx.places))
        return run_function(*args)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        """Run it again with a graph, and let gradients flow through that."""
        current = graph.current_pass()
        if current is not None and current._needed is not None:
            raise RuntimeError(
                "When use_reentrant=True, gradlite.utils.checkpoint is incompatible with .grad() "
                "or passing an `inputs` parameter to .backward(). To resolve this error, you can "
                "either set use_reentrant=False, or call .backward() without passing the `inputs` "
                "argument."
            )
        args = list(ctx.args)
        for i, tensor in zip(ctx.places, ctx.saved_tensors):
            args[i] = tensor.detach().requires_grad_(tensor.requires_grad)
        mode = autocast_mode.again(ctx.autocast)
        with enable_grad(), mode, _random_state(ctx.random_state):
            outputs = ctx.run_function(*args)
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        pairs = [
            (o, g) for o, g in zip(outputs, grads) if isinstance(o, Tensor) and o.requires_grad
        ]
        if not pairs:
            raise RuntimeError(
                "none of output has requires_grad=True, this checkpoint() is not necessary"
            )
        backward([o for o, _ in pairs], [g for _, g in pairs])
        return (None, None, *(a.grad if isinstance(a, Tensor) else None for a in args))
