"""What a step asks of its inputs beside their values: how they lie, gradients, attributes.

A recording works on copies of the inputs, so that such questions are put to the tensors that were
given; a replay holds as long as those that it is given answer in the same way.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence
from typing import Any

from gradlite.capturing.calls import CaptureError
from gradlite.capturing.recorded import active, plain
from gradlite.capturing.watched import alike
from gradlite.tensor import Tensor, make

ABSENT = object()
# What tensors keep in their dictionaries for the library.
OWN = frozenset(("_accumulator", "_extra", "_retains", "_undo", "_redo"))
METHODS = ("stride", "is_contiguous", "data_ptr", "storage_offset", "_is_view", "is_inference")
PROPERTIES = ("_base", "_version")


def replicas(leaves: Sequence[Any]) -> list[Any]:
    """Copies of the tensors among a step's arguments, of their classes: one twice stays one.

    Raises:
        CaptureError: one of them requires grad.
    """
    made: dict[int, Tensor] = {}
    return [_replica(leaf, made) if isinstance(leaf, Tensor) else leaf for leaf in leaves]


def _replica(leaf: Tensor, made: dict[int, Tensor]) -> Tensor:
    if leaf.requires_grad:
        raise CaptureError(
            "an input of a captured step requires grad: make it a variable of the step instead"
        )
    if id(leaf) not in made:
        made[id(leaf)] = make(leaf.__class__, leaf.array.copy())
    return made[id(leaf)]


def pattern(leaves: Sequence[Any]) -> tuple[int, ...]:
    """Which of a step's tensors are one and the same."""
    first: dict[int, int] = {}
    return tuple([first.setdefault(id(leaf), n) for n, leaf in enumerate(leaves)])


class Questions:
    """The questions of one recording.

    Args:
        inputs: the recorded inputs.
        leaves: those that were given.

    Attributes:
        answers: what was answered, by the input's number, the question's name and its arguments.
        identity: whether the step may look which tensor an input is.
    """

    def __init__(self, inputs: Sequence[Any], leaves: Sequence[Any]) -> None:
        tensors = [n for n, tensor in enumerate(inputs) if isinstance(tensor, Tensor)]
        self._places = {id(inputs[n]): n for n in reversed(tensors)}
        self._inputs, self._leaves = inputs, leaves
        self._functions: dict[tuple[int, str, Any], Callable[..., Any]] = {}
        self.answers: dict[tuple[int, str, Any], Any] = {}
        self.identity = False

    def takes(self, tensor: Any) -> bool:
        """Whether a tensor is an input."""
        return id(tensor) in self._places

    def ask(self, tensor: Tensor, name: str, function: Callable[..., Any], *args: Any) -> Any:
        """The answer of the tensor that was given."""
        place = self._places[id(tensor)]
        key = (place, name, args)
        if key not in self.answers:
            self._functions[key] = function
            with active().pause():
                self.answers[key] = function(self._leaves[place], *args)
        return self.answers[key]

    def same(self, other: Questions) -> bool:
        """Whether another recording has put the same questions, and got the same answers."""
        mine, theirs = self.answers, other.answers
        return mine.keys() == theirs.keys() and all(map(_same, mine.values(), theirs.values()))

    def gradient(self, tensor: Tensor) -> None:
        """Note that the step reads an input's gradient, or adds to it.

        Raises:
            CaptureError: there is one from before.
        """
        if self.takes(tensor) and self.ask(tensor, "grad", _has_gradient):
            raise CaptureError(
                "the step asks for the gradient of an input, which had one before: give it as "
                "another input, or give the step a detached tensor"
            )

    def attribute(self, tensor: Tensor, name: str) -> Any:
        """An attribute that somebody has given an input; AttributeError where there is none.

        Raises:
            CaptureError: it is no plain value.
        """
        value = self.ask(tensor, f"attribute {name}", _attribute, name)
        if value is ABSENT:
            kind = type(tensor).__name__
            raise AttributeError(f"{kind!r} object has no attribute {name!r}")
        if not alike(value, value) or isinstance(value, Tensor):
            raise CaptureError(
                f"the step asks for the attribute {name!r} of an input: give it to the step as an "
                "argument"
            )
        return value

    def check(self) -> None:
        """CaptureError when the step has given an input an attribute."""
        for number in self._places.values():
            names = self._inputs[number].__dict__.keys() - OWN
            if names:
                raise CaptureError(
                    f"the step sets the attribute {min(names)!r} of an input, which a replay would "
                    "not do: return the value"
                )

    def checks(self) -> list[tuple[int, Callable[..., Any], Any, Any]]:
        """``(place, function, arguments, answer)`` of every question."""
        return [
            (key[0], self._functions[key], key[2], answer) for key, answer in self.answers.items()
        ]


class Answers:
    """What the inputs of a replay must answer.

    Args:
        questions: those of the recording.
        leaves: the inputs of the recording.
        known: the ids of the tensors around the step.
        edited: whether the step edits an input.
    """

    def __init__(
        self, questions: Questions, leaves: Sequence[Any], known: frozenset[int], edited: bool
    ) -> None:
        self._checks = questions.checks()
        self._pattern = pattern(leaves) if questions.identity or edited else None
        self._known = known if questions.identity else frozenset[int]()

    def __bool__(self) -> bool:
        return bool(self._checks or self._pattern is not None)

    def hold(self, leaves: Sequence[Any]) -> bool:
        """Whether these inputs answer as those of the recording did."""
        for place, function, args, answer in self._checks:
            if not _same(function(leaves[place], *args), answer):
                return False
        if self._pattern is None:
            return True
        return self._known.isdisjoint(map(id, leaves)) and pattern(leaves) == self._pattern


def _same(a: Any, b: Any) -> bool:
    return a is b or not (isinstance(a, Tensor) or isinstance(b, Tensor)) and bool(a == b)


def _has_gradient(tensor: Tensor) -> bool:
    return tensor._grad is not None


def _attribute(tensor: Tensor, name: str) -> Any:
    return ABSENT if name in OWN else tensor.__dict__.get(name, ABSENT)


# ------------------------------------------------------------- in place while it records
def _questions(tensor: Any, what: str) -> Questions | None:
    """The questions of the recording, if the program asks something of an input.

    What it asks of other tensors is noted.
    """
    recorder = active()
    if recorder is None:
        return None
    name = sys._getframe(2).f_globals.get("__name__") or ""
    if name.startswith("gradlite."):
        return None
    if not recorder.questions.takes(tensor):
        recorder.asked_of.setdefault(id(tensor), set()).add(what)
        return None
    return recorder.questions  # type: ignore[no-any-return]


def asking(original: Any) -> Any:
    """A method or a property that is asked of the tensor that was given."""
    if isinstance(original, property):
        read: Any = original.fget
        name = read.__name__

        def value(self: Tensor) -> Any:
            questions = _questions(self, name)
            return read(self) if questions is None else questions.ask(self, name, read)

        return property(value)
    name = original.__name__

    def method(self: Tensor, *args: Any, **kwargs: Any) -> Any:
        questions = _questions(self, name)
        if questions is None or kwargs:
            return original(self, *args, **kwargs)
        return questions.ask(self, name, original, *args)

    return method


def looked_up(original: Any) -> Any:
    """``Tensor.__hash__``: the program looks which tensor it is."""

    def __hash__(self: Tensor) -> int:  # noqa: N807
        questions = _questions(self, "hash")
        if questions is not None:
            questions.identity = True
        return original(self)  # type: ignore[no-any-return]

    return __hash__


def shown(original: Callable[[Any], str]) -> Callable[[Any], str]:
    """``printing.tensor_str``: what a tensor shows is no value that a replay could show again."""

    def text(t: Any) -> str:
        recorder = active()
        if recorder is not None and recorder.depends(t.array):
            recorder.read(plain(t.array), "repr()")
        return original(t)

    return text


def missing(self: Tensor, name: str) -> Any:
    """``Tensor.__getattr__``: what is no attribute of the copies."""
    recorder = active()
    if recorder is None or not recorder.questions.takes(self):
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")
    return recorder.questions.attribute(self, name)
