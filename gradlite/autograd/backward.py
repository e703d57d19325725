"""backward() and grad(): from Tensors to the engine and back."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from gradlite import dtypes, graph
from gradlite.autograd.graph import EdgeToken, GradientEdge, edge_of
from gradlite.description import Size
from gradlite.ops import guard
from gradlite.ops.joining import stack
from gradlite.ops.namespaces import NAMESPACES
from gradlite.tensor import Tensor, gradient_edge, wrap

Tensors = Any


def _listed(value: Any) -> list[Any]:
    return [value] if isinstance(value, (Tensor, GradientEdge)) else list(value)


def _likeness(output: Tensor | GradientEdge) -> Any:
    """Something with the shape, size, dtype and array class of an output."""
    if isinstance(output, Tensor):
        return EdgeToken(None, output.array)
    if not isinstance(output.ownership_token, EdgeToken):
        raise RuntimeError("an output's GradientEdge must come from get_gradient_edge")
    return output.ownership_token


def _initial_grads(
    outputs: Sequence[Tensor | GradientEdge], grads: Sequence[Any] | None, create_graph: bool
) -> list[Any]:
    """The gradients to start from: given ones checked, missing ones 1 for scalars."""
    result = []
    given = [None] * len(outputs) if grads is None else list(grads)
    if len(given) != len(outputs):
        raise RuntimeError(f"got {len(outputs)} tensors and {len(given)} gradients")
    for place, (output, grad) in enumerate(zip(outputs, given)):
        array = _likeness(output)
        if grad is None:
            if not isinstance(output, Tensor) or output.requires_grad:
                if array.size != 1:
                    raise RuntimeError("grad can be implicitly created only for scalar outputs")
                if array.dtype not in dtypes.FLOATING:
                    raise RuntimeError(
                        "grad can be implicitly created only for real scalar outputs but got "
                        f"{dtypes.from_numpy_dtype(array.dtype)}"
                    )
            with guard.at(array.device):
                start = NAMESPACES[array.array_class].xp.ones(array.shape, array.dtype)
            result.append(wrap(start) if create_graph else start)
            continue
        if not isinstance(grad, Tensor):
            raise TypeError(
                "gradients can be either Tensors or None, but got " + grad.__class__.__name__
            )
        if grad.array.shape != array.shape:
            raise RuntimeError(
                f"Mismatch in shape: grad_output[{place}] has a shape of {grad.shape} and "
                f"output[{place}] has a shape of {Size(array.shape)}."
            )
        if grad.array.dtype != array.dtype:
            grad = grad.to(array.dtype)  # type: ignore[attr-defined]
        result.append(grad if create_graph else grad.array)
    return result


def _root_edges(outputs: Sequence[Tensor | GradientEdge]) -> list[Any]:
    edges = []
    for place, output in enumerate(outputs):
        edge = edge_of(output)
        if edge is None:
            raise RuntimeError(
                f"element {place} of tensors does not require grad and does not have a grad_fn"
            )
        edges.append(edge)
    return edges


def backward(
    tensors: Tensors,
    grad_tensors: Tensors | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradients of ``tensors`` to the ``.grad`` of the leaves they were made from.

    Args:
        tensors: outputs; those with more than one element need an entry in ``grad_tensors``.
        grad_tensors: the gradients to start from, of the outputs' shapes.
        retain_graph: keep what the rules read, for a second pass; default: ``create_graph``.
        create_graph: record the pass itself, for derivatives of derivatives.
        inputs: accumulate into these tensors only.

    Raises:
        RuntimeError: an output requires no grad, a gradient's shape is wrong, or the graph's
            values were freed by an earlier pass.
    """
    outputs = _listed(tensors)
    grads = None if grad_tensors is None else _listed(grad_tensors)
    if inputs is not None:
        targets = _listed(inputs)
        if not targets:
            raise RuntimeError("`inputs` argument to `backward()` cannot be empty.")
    retain = create_graph if retain_graph is None else retain_graph
    starts = _initial_grads(outputs, grads, create_graph)
    roots = _root_edges(outputs)
    if create_graph:
        _warn_about_cycles()
    if inputs is None:
        graph.backward(roots, starts, retain, create_graph)
        return
    for target in targets:
        if isinstance(target, Tensor):
            target.retain_grad()  # so that a tensor that is no leaf gets its .grad as well
    graph.backward(roots, starts, retain, create_graph, [edge_of(t) for t in targets])


def _warn_about_cycles() -> None:
    warnings.warn(
        "Using backward() with create_graph=True will create a reference cycle between the "
        "parameter and its gradient which can cause a memory leak. We recommend using "
        "autograd.grad when creating the graph to avoid this. If you have to use this "
        "function, make sure to reset the .grad fields of your parameters to None after use "
        "to break the cycle and avoid the leak.",
        UserWarning,
        stacklevel=4,
    )


def _target_edge(target: Tensor | GradientEdge) -> Any:
    edge = edge_of(target)
    if edge is None and not (isinstance(target, Tensor) and target.requires_grad):
        raise RuntimeError("One of the differentiated Tensors does not require grad")
    return edge


def grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Tensors | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of ``outputs`` with respect to ``inputs``; no ``.grad`` is touched.

    Args:
        allow_unused: give None for inputs that the outputs do not depend on.
        is_grads_batched: ``grad_outputs`` have one more dimension in front; one pass per entry.
        materialize_grads: give zeros for those instead.

    Returns:
        One Tensor (or None) per input.

    >>> import gradlite
    >>> x = gradlite.tensor(3.0, requires_grad=True)
    >>> (dx,) = gradlite.autograd.grad(x**2, x, create_graph=True)
    >>> gradlite.autograd.grad(dx, x)
    (tensor(2.),)

    Raises:
        RuntimeError: an input requires no grad or was not used, and what `backward` raises.
    """
    if is_grads_batched:
        return _batched_grad(
            outputs, inputs, grad_outputs, retain_graph, create_graph, allow_unused,
            materialize_grads,
        )  # fmt: skip
    if materialize_grads and allow_unused is False:
        raise ValueError(
            "Expected allow_unused to be True or not passed when materialize_grads=True, but got: "
            "allow_unused=False."
        )
    outs, targets = _listed(outputs), _listed(inputs)
    if not targets:
        raise RuntimeError("`inputs` argument to `grad()` cannot be empty.")
    retain = create_graph if retain_graph is None else retain_graph
    given = None if grad_outputs is None else _listed(grad_outputs)
    starts = _initial_grads(outs, given, create_graph)
    roots = _root_edges(outs)
    edges = [_target_edge(t) for t in targets]
    results = graph.backward(roots, starts, retain, create_graph, edges, accumulate=False)
    answers = []
    for place, (target, result) in enumerate(zip(targets, results)):
        if result is None:
            if materialize_grads and isinstance(target, GradientEdge):
                raise RuntimeError(
                    "materialize_grads cannot be used when the given input is a GradientEdge"
                )
            if materialize_grads:
                with guard.on(target):
                    zeros = NAMESPACES[target.array.__class__].xp.zeros_like(target.array)
                result = wrap(zeros).requires_grad_(create_graph)
            elif not allow_unused:
                raise RuntimeError(
                    f"The differentiated Tensor at index {place} appears to not have been used in "
                    "the graph. Set allow_unused=True if this is the desired behavior."
                )
        answers.append(None if result is None else wrap(result))
    return tuple(answers)


def _batched_grad(
    outputs: Tensors,
    inputs: Tensors,
    grad_outputs: Tensors,
    retain_graph: bool | None,
    create_graph: bool,
    allow_unused: bool | None,
    materialize_grads: bool,
) -> tuple[Any, ...]:
    batched = [g for g in _listed(grad_outputs) if g is not None]
    for place, (output, g) in enumerate(zip(_listed(outputs), _listed(grad_outputs))):
        expected = _likeness(output).shape
        if g is not None and g.array.shape[1:] != expected:
            raise RuntimeError(
                "If `is_grads_batched=True`, we interpret the first dimension of each grad_output "
                "as the batch dimension. The sizes of the remaining dimensions are expected to "
                "match the shape of corresponding output, but a mismatch was detected: "
                f"grad_output[{place}] has a shape of {g.shape} and output[{place}] has a shape "
                f"of {Size(expected)}. If you only want some tensors in `grad_output` to be "
                "considered batched, consider using vmap."
            )
    rows = []
    for row in range(batched[0].array.shape[0]):
        last = row == batched[0].array.shape[0] - 1
        keep = (create_graph if retain_graph is None else retain_graph) or not last
        grads = [None if g is None else g[row] for g in _listed(grad_outputs)]
        rows.append(
            grad(
                outputs, inputs, grads, keep, create_graph, allow_unused=allow_unused,
                materialize_grads=materialize_grads,
            )
        )  # fmt: skip
    return tuple(None if column[0] is None else stack(column) for column in zip(*rows))


def _method(
    self: Tensor,
    gradient: Tensor | None = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    inputs: Tensors | None = None,
) -> None:
    """Add the gradients of this tensor to the ``.grad`` of the leaves it was made from."""
    array = self.array
    if array.__class__ is np.ndarray and gradient is inputs is None and not create_graph:
        # Most passes by far: from a loss, on the CPU.
        if array.size == 1 and array.dtype in dtypes.FLOATING:
            edge = gradient_edge(self)
            if edge is not None:
                start = np.empty(array.shape, array.dtype)
                start.fill(1)
                graph.backward((edge,), (start,), bool(retain_graph), False)
                return
    backward(
        (self,),
        None if gradient is None else (gradient,),
        retain_graph,
        create_graph,
        inputs=inputs,
    )


_method.__name__ = _method.__qualname__ = "backward"
Tensor.backward = _method  # type: ignore[assignment, method-assign]
