"""What `functional` says in strict mode, the zeros it gives otherwise, and unit vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from gradlite.ops import guard
from gradlite.ops.namespaces import NAMESPACES
from gradlite.tensor import Tensor, wrap


@guard.on_its_device
def zeros(like: Tensor) -> Tensor:
    """Zeros of a Tensor's shape, dtype and device, without history."""
    return wrap(NAMESPACES[like.array.__class__].xp.zeros_like(like.array))


def unit_vectors(like: Tensor) -> Iterator[Tensor]:
    """The unit vectors of a Tensor's shape, in order, without history."""
    for index in np.ndindex(like.array.shape):
        one_hot = zeros(like)
        with guard.on(one_hot):
            one_hot.array[index] = 1
        yield one_hot


def check_connected(values: Sequence[Tensor | None], what: str, strict: bool) -> None:
    """In strict mode, RuntimeError for the first value that has no graph."""
    if not strict:
        return
    for i, value in enumerate(values):
        if value is None:
            raise RuntimeError(
                f"The output of the user-provided function is independent of input {i}. This is "
                "not allowed in strict mode."
            )
        if not value.requires_grad:
            raise RuntimeError(_NOT_CONNECTED[what].format(i))


_NOT_CONNECTED = {
    "outputs": (
        "Output {} of the user-provided function does not require gradients. The outputs must be "
        "computed in a differentiable manner from the input when running in strict mode."
    ),
    "grad_inputs": (
        "The gradient with respect to input {} is independent of the inputs of the user-provided "
        "function. This is not allowed in strict mode."
    ),
    "jacobian": (
        "While computing the hessian, found that the jacobian of the user-provided function with "
        "respect to input {} is independent of the input. This is not allowed in strict mode. You "
        "should ensure that your function is twice differentiable and that the jacobian depends "
        "on the inputs (this would be violated by a linear function for example)."
    ),
    "hessian": (
        "The hessian of the user-provided function with respect to input {} is independent of the "
        "input. This is not allowed in strict mode. You should ensure that your function is "
        "thrice differentiable and that the hessian depends on the inputs."
    ),
}
_NO_PART = {
    "back": (
        "The output of the user-provided function is independent of input {}. This is not allowed "
        "in strict mode."
    ),
    "back_trick": (
        "The gradient with respect to the input is independent of entry {} in the grad_outputs "
        "when using the double backward trick to compute forward mode gradients. This is not "
        "allowed in strict mode."
    ),
    "double_back": (
        "The jacobian of the user-provided function is independent of input {}. This is not "
        "allowed in strict mode."
    ),
    "double_back_trick": (
        "The hessian of the user-provided function is independent of entry {} in the "
        "grad_jacobian. This is not allowed in strict mode as it prevents from using the double "
        "backward trick to replace forward mode AD."
    ),
}


def filled_in(
    found: Sequence[Tensor | None],
    like: Sequence[Tensor],
    strict: bool,
    create_graph: bool,
    stage: str,
) -> tuple[Tensor, ...]:
    """Gradients with zeros for those that are None, which in strict mode are errors."""
    filled = []
    for i, (gradient, t) in enumerate(zip(found, like)):
        if gradient is None:
            if strict:
                raise RuntimeError(_NO_PART[stage].format(i))
            gradient = zeros(t)
        elif strict and create_graph and not gradient.requires_grad:
            which = "hessian" if stage.startswith("double") else "jacobian"
            raise RuntimeError(
                f"The {which} of the user-provided function is independent of input {i}. This is "
                "not allowed in strict mode when create_graph=True."
            )
        filled.append(gradient)
    return tuple(filled)
