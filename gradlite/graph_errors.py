"""What the engine says when it cannot go on."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlite.graph import Node

has_nan: Callable[[Any], bool]  # handed in by tensor.py


SECOND_BACKWARD = (
    "Trying to backward through the graph a second time (or directly access saved tensors "
    "after they have already been freed). Saved intermediate values of the graph are freed "
    "when you call .backward() or autograd.grad(). Specify retain_graph=True if you need to "
    "backward through the graph a second time or if you need to access saved tensors after "
    "calling backward."
)
MOVED_LEAF = "leaf variable has been moved into the graph interior"
STALE_MULTIPLE_VIEW = (
    "is a view and its base or another view of its base has been modified inplace. This view is "
    "the output of a function that returns multiple views. Such functions do not allow the output "
    "views to be modified inplace. You should replace the inplace operation by an out-of-place one."
)


def modified(
    node: Node, place: int, version: tuple[list[Any], int], maker: str, traced: bool
) -> RuntimeError:
    """What to raise when a saved value is not of the version that was saved.

    ``maker`` says what made the value, as in "output 0 of Exp"; it is empty for a leaf.
    ``traced`` tells whether the node's forward trace has been shown.
    """
    which = f", which is {maker}," if maker else ""
    assert node.saved is not None
    value = node.saved[place]
    described = node.op.describe(value)
    hint = (
        "Hint: enable anomaly detection to find the operation that failed to compute its "
        "gradient, with gradlite.autograd.set_detect_anomaly(True, check_nan=False)."
    )
    if traced:
        hint = (
            "Hint: the backtrace further above shows the operation that failed to compute its "
            "gradient. The variable in question was changed in there or anywhere later. Good luck!"
        )
    return RuntimeError(
        "one of the variables needed for gradient computation has been modified by an inplace "
        f"operation: [{described}]{which} is at version {version[0][0]}; expected version "
        f"{version[1]} instead. {hint}"
    )


def plain_name(node: Node) -> str:
    """The op's name in messages: without "Backward" and a final 0."""
    name, _, variant = node.name().partition("Backward")
    return name + variant.removeprefix("0")


def check_nan(node: Node, grads: Sequence[Any]) -> None:
    """RuntimeError when a rule has returned NaNs, in anomaly mode."""
    for place, grad in enumerate(grads):
        if grad is not None and has_nan(grad):
            warn_trace(node)
            raise RuntimeError(
                f"Function '{node.name()}' returned nan values in its {place}th output."
            )


def warn_trace(node: Node) -> None:
    """Warn with the place in the forward pass where a node was made.

    A node made in a backward pass has another, whose rule made it; that one's place follows.
    """
    made_by: Node | None = node
    while made_by is not None:
        extra = made_by.extra
        trace = extra.trace if extra is not None else None
        if trace is None:
            text = (
                f"Error detected in {made_by.name()}. No forward pass information available. "
                "Enable detect anomaly during forward pass for more information."
            )
        elif made_by is node:
            text = (
                f"Error detected in {node.name()}. Traceback of forward call that caused the "
                "error:\n" + "".join(trace)
            )
        else:
            text = (
                f"\n\nPrevious calculation was induced by {made_by.name()}. Traceback of forward "
                "call that induced the previous calculation:\n" + "".join(trace)
            )
        try:
            warnings.warn(text, UserWarning, stacklevel=4)
        except UserWarning:  # warnings are errors: not in the place of the error they explain
            print(f"UserWarning: {text}", file=sys.stderr)
        made_by = extra.induced_by if extra is not None else None
