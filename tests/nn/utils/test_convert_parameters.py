"""Parameters as one vector, and back."""

from __future__ import annotations

from typing import Any

import gradlite
from gradlite import nn
from tests.nn.programs import fill, tensor
from tests.oracle import outcome_of, same


def test_vectors() -> None:
    def program(library: Any) -> Any:
        utils = library.nn.utils
        model = fill(library, library.nn.Sequential(*(library.nn.Linear(2, 2) for _ in range(2))))
        vector = utils.parameters_to_vector(model.parameters())
        (vector * tensor(library, 1, 12)).sum().backward()
        grads = [p.grad for p in model.parameters()]
        utils.vector_to_parameters(tensor(library, 2, 12), model.parameters())
        return [
            *(vector.detach(), vector.requires_grad, grads),
            [p.detach() for p in model.parameters()],
            outcome_of(lambda: utils.vector_to_parameters(3, model.parameters())),
        ]

    same(program, message="exact")


def test_a_vector_that_is_too_short_or_empty() -> None:
    same(
        lambda library: library.nn.utils.vector_to_parameters(
            library.ones(2), library.nn.Linear(2, 2).parameters()
        ),
        raises=RuntimeError,
        message="type",
    )


def test_the_parameters_share_the_vectors_memory() -> None:
    linear = nn.Linear(2, 1)
    vector = gradlite.zeros(3)
    nn.utils.vector_to_parameters(vector, linear.parameters())
    vector += 1
    assert linear.weight.tolist() == [[1, 1]]
    assert linear.weight.requires_grad and linear.weight.is_leaf
