"""What a step returns: new tensors, inputs, tensors from before, and plain values."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite.capturing.calls import STATE, CaptureError
from gradlite.capturing.recorder import Recorder
from gradlite.capturing.watched import spelled
from gradlite.tensor import Tensor
from gradlite.utils._pytree import TreeSpec


def nesting(spec: TreeSpec) -> Any:
    """Something that is equal for equal nestings; tensors as keys are known by their ids."""
    keys = spec.context
    if isinstance(keys, (list, tuple)):
        keys = [id(key) if isinstance(key, Tensor) else repr(key) for key in keys]
    return spec.kind, repr(keys), tuple(map(nesting, spec.children))


def kinds(recorder: Recorder, inputs: Sequence[Any], results: Sequence[Any]) -> list[Any]:
    """``(kind, value)`` of every result.

    The value is an input's number, a tensor from before, a plain value, or the place of what the
    step has computed.

    Raises:
        CaptureError: a result is neither a tensor nor a plain value.
    """
    numbers = {id(t): i for i, t in enumerate(inputs) if isinstance(t, Tensor)}
    found: list[Any] = []
    for value in results:
        if not isinstance(value, Tensor):
            if spelled(value) is None:
                array = isinstance(value, np.ndarray)
                name = "an array of NumPy's" if array else type(value).__name__
                raise CaptureError(f"a captured step returned {name}: return tensors")
            found.append(("value", value))
        elif id(value) in numbers:
            found.append(("input", numbers[id(value)]))
        elif id(value) in recorder.touched and id(value) not in recorder.born:
            found.append(("state", value))
        else:
            found.append(("tensor", recorder.ref(value.array)))
    return found


def note(
    recorder: Recorder,
    inputs: Sequence[Any],
    results: Sequence[Any],
    grads: Sequence[tuple[Tensor, Tensor | None]],
    spec: TreeSpec,
    carried: Sequence[Tensor] = (),
) -> list[Any]:
    """`kinds`; the recorder keeps them, and the gradients left, for another recording to compare.

    Args:
        recorder: what has recorded the step.
        inputs, results: the step's.
        grads: parameters with the gradients that they had before.
        spec: how the results are nested.
        carried: tensors that replays find in their places; see `Carried`.
    """
    found = kinds(recorder, [*inputs, *carried], results)
    same = {"value": spelled, "state": id}
    recorder.left = [nesting(spec)]
    recorder.left += [(kind, same[kind](v) if kind in same else v) for kind, v in found]
    for p, old in grads:
        if p._grad is not old:
            grad = p._grad
            if grad is not None and grad.array.size:
                recorder.fill_anew(grad.array)  # whoever finds it there may edit it
            recorder.left.append((id(p), None if grad is None else recorder.ref(grad.array)))
    given: list[tuple[Any, Any]] = [
        (t.array, number) for number, t in enumerate(inputs) if isinstance(t, Tensor)
    ]
    given += [(old.array, "gradient") for _, old in grads if old is not None]
    for array, name in given:
        buffer = recorder.find(array)
        if buffer is not None and buffer.kind == STATE:
            recorder.own[buffer] = name
    return found
