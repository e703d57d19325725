"""Parameter and Buffer."""

from __future__ import annotations

import copy
from typing import Any

from tests.oracle import outcome_of, same


def test_parameter() -> None:
    def program(library: Any) -> Any:
        Parameter = library.nn.Parameter
        source = library.ones(2)
        parameter = Parameter(source)
        frozen = Parameter(library.ones(2), requires_grad=False)
        source[0] = 5
        tagged = Parameter(library.ones(1))
        tagged.tag = "decay"
        return [
            repr(parameter),
            repr(frozen),
            repr(Parameter()),
            parameter.requires_grad,
            parameter.is_leaf,
            type(parameter),
            type(parameter * 2),
            type(parameter.detach()),
            type(parameter.data),
            isinstance(parameter, library.Tensor),
            tagged.tag,
            outcome_of(lambda: Parameter(3)),
            outcome_of(lambda: Parameter([1.0])),
            Parameter(library.arange(2), requires_grad=False).dtype,
            type(copy.deepcopy(frozen)),
            copy.deepcopy(frozen).requires_grad,
        ]

    same(program)


def test_an_integer_parameter_needs_requires_grad_false() -> None:
    same(
        lambda library: library.nn.Parameter(library.arange(2)),
        raises=RuntimeError,
        message="type",
    )


def test_buffer() -> None:
    def program(library: Any) -> Any:
        Buffer = library.nn.Buffer
        buffer = Buffer(library.ones(2))
        return [
            type(buffer),
            isinstance(buffer, Buffer),
            isinstance(library.ones(2), Buffer),
            isinstance(buffer * 2, Buffer),
            buffer.persistent,
            Buffer(library.ones(1), persistent=False).persistent,
            repr(buffer),
            repr(Buffer()),
        ]

    same(program)
