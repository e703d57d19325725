"""What a step does to its inputs themselves: edits in place, flags and gradients.

A recording and its replays work on copies of the inputs; what the step does to them is handed on
to the tensors that were given.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradlite.capturing.arrays import bounds
from gradlite.capturing.calls import STATE, Buffer, Call, CaptureError, Ref
from gradlite.capturing.recorder import Recorder
from gradlite.tensor import Tensor, wrap


def written_state(recorder: Recorder) -> set[Buffer]:
    """The buffers from before the step that its calls write to."""
    return {
        ref.buffer
        for call in recorder.calls
        if isinstance(call, Call)
        for ref in (*call.outs, *call.writes)
        if ref.buffer.kind == STATE
    }


class InputEffects:
    """What a recorded step has done to its inputs.

    Args:
        inputs: the recorded inputs, copies of those that were given.
        recorder: what has recorded the step.

    Raises:
        CaptureError: an input has another shape than before, or is the result of ops by now.
    """

    def __init__(self, inputs: Sequence[Any], recorder: Recorder) -> None:
        written, tensors = written_state(recorder), set()
        self._edited: list[tuple[int, Any, Ref]] = []
        self._flags: list[int] = []
        self._grads: list[tuple[int, Any, Ref]] = []
        for place, tensor in enumerate(inputs):
            if not isinstance(tensor, Tensor) or id(tensor) in tensors:
                continue
            tensors.add(id(tensor))
            if any(tensor is other for other in recorder.replaced):
                raise CaptureError(
                    "the step gives an input another shape or other memory, which a replay would "
                    "not do to the tensor it is given: work on a view of it, such as x.view_as(x)"
                )
            if tensor.grad_fn is not None:
                raise CaptureError(
                    "the step writes what depends on parameters into an input, which a replay "
                    "would not do to the tensor it is given: write into a clone of it"
                )
            if tensor.array.size and recorder.find(tensor.array) in written:
                self._edited.append((place, tensor.array, recorder.ref(tensor.array)))
            if tensor._requires_grad:
                self._flags.append(place)
            if tensor._grad is not None:
                array = tensor._grad.array
                self._grads.append((place, array, recorder.ref(array)))
        own = {recorder.find(t.array) for t in inputs if isinstance(t, Tensor) and t.array.size}
        found = (
            (array, recorder.find(array))
            for _, array in recorder.touched.values()
            if self._edited and array.size
        )
        self._state = [
            bounds(array)
            for array, buffer in found
            if buffer is not None and buffer.kind == STATE and buffer not in own
        ]

    def __bool__(self) -> bool:
        return bool(self._edited or self._flags or self._grads)

    @property
    def edits(self) -> bool:
        """Whether an input is edited in place."""
        return bool(self._edited)

    @property
    def kept(self) -> list[Ref]:
        """The arrays of the plan that are read when it has run."""
        return [ref for _, _, ref in self._grads]

    def check(self, given: Sequence[Any]) -> None:
        """CaptureError where an edit of an input would show in another tensor of the step."""
        for place, _, _ in self._edited:
            array = given[place].array
            if any(step == 0 and size > 1 for size, step in zip(array.shape, array.strides)):
                raise CaptureError(
                    f"the step edits input {place} in place, which is expanded: give it a clone"
                )
            start, stop = bounds(array)
            tensors = [t for t in given if isinstance(t, Tensor) and t is not given[place]]
            others = [bounds(t.array) for t in tensors]
            if any(start < end and first < stop for first, end in (*others, *self._state)):
                raise CaptureError(
                    f"the step edits input {place} in place, and that shares memory with another "
                    "tensor of the step: give it a clone"
                )

        if any(_hooked(given[place]) for place in self._flags):
            raise CaptureError(
                "an input that the step lets require grad has hooks, which a replay would not "
                "call: give it a detached tensor"
            )

    def hand_on(self, given: Sequence[Any]) -> None:
        """Do to the tensors that were given what the step has done to its copies of them."""
        for place, array, _ in self._edited:
            given[place].array[...] = array
            counter = given[place]._counter
            if counter is not None:
                counter[0] += 1
        for place in self._flags:
            given[place].requires_grad_()
        for place, array, _ in self._grads:
            given[place]._grad = wrap(array.copy())

    def bind(self, place_of: Callable[[Ref], Any] | None) -> None:
        """Take the values from where a plan has them; None: let go of the recording's."""
        self._edited, self._grads = (
            [(p, place_of(r) if place_of else None, r) for p, _, r in found]
            for found in (self._edited, self._grads)
        )


def _hooked(tensor: Tensor) -> bool:
    extra = tensor._extra
    return extra is not None and bool(extra.prehooks or extra.post_accumulate)
