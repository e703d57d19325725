"""Jacobians, Hessians and products with them, of functions of Tensors.

Every function here takes a function of one or several Tensors, the inputs to evaluate it at (a
Tensor or a tuple), and returns Tensors in the structure of inputs and outputs. Without
``create_graph`` the results have no history. ``strict`` turns zeros that stand for "does not
depend on it" into errors.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gradlite.autograd.backward import grad
from gradlite.autograd.strict import check_connected, filled_in, unit_vectors, zeros
from gradlite.grad_mode import enable_grad, is_grad_enabled, set_grad_enabled
from gradlite.ops import guard
from gradlite.ops.joining import stack
from gradlite.ops.namespaces import NAMESPACES
from gradlite.tensor import Tensor, wrap

__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]

Tensors = tuple[Tensor, ...]
OneOrMore = Any  # a Tensor or a tuple of them


# ------------------------------------------------------------------- products: J and its transpose
def vjp(
    func: Callable[..., Any],
    inputs: OneOrMore,
    v: OneOrMore | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The outputs, and the product of a vector with the Jacobian: one backward pass.

    Args:
        v: of the outputs' shapes; may be left out when the output is a single number.

    >>> import gradlite
    >>> x = gradlite.tensor([1.0, 2.0])
    >>> gradlite.autograd.functional.vjp(lambda x: x**2, x, gradlite.ones(2))
    (tensor([1., 4.]), tensor([2., 4.]))
    """
    with enable_grad():
        several, points = _checked(inputs, "inputs", "vjp")
        points = _points(points, create_graph)
        many, outputs = _evaluated(func, points, "vjp", strict)
        if v is None:
            if len(outputs) != 1 or outputs[0].array.size != 1:
                raise RuntimeError(
                    "The vector v can only be None if the user-provided function returns a single "
                    "Tensor with a single element."
                )
            vectors: Sequence[Tensor | None] = (None,)
        else:
            vectors = _vectors(v, outputs, many, "vjp", create_graph)
    with set_grad_enabled(create_graph or is_grad_enabled()):
        found = _gradients(outputs, points, vectors, create_graph)
        products = filled_in(found, points, strict, create_graph, "back")
    return _result(outputs, many, create_graph), _result(products, several, create_graph)


def jvp(
    func: Callable[..., Any],
    inputs: OneOrMore,
    v: OneOrMore | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The outputs, and the product of the Jacobian with a vector: two backward passes.

    The gradient for a vector ``u`` is ``Jᵀ u``, linear in ``u``; its own gradient for ``v`` is
    ``J v`` (Townsend, "A new trick for calculating Jacobian vector products", 2017).

    Args:
        v: of the inputs' shapes; may be left out when the input is a single number.
    """
    with enable_grad():
        several, points = _checked(inputs, "inputs", "jvp")
        points = _points(points, create_graph)
        if v is None:
            if len(points) != 1 or points[0].array.size != 1:
                raise RuntimeError(
                    "The vector v can only be None if the input to the user-provided function is "
                    "a single Tensor with a single element."
                )
            vectors: Sequence[Tensor | None] = (None,)
        else:
            vectors = _vectors(v, points, several, "jvp", create_graph)
        many, outputs = _evaluated(func, points, "jvp", strict)
        stand_ins = tuple(zeros(o).requires_grad_() for o in outputs)
        transposed = _gradients(outputs, points, stand_ins, create_graph=True)
        check_connected(transposed, "grad_inputs", strict)
    with set_grad_enabled(create_graph or is_grad_enabled()):
        found = _gradients(transposed, stand_ins, vectors, create_graph)
        products = filled_in(found, outputs, strict, create_graph, "back_trick")
    return _result(outputs, many, create_graph), _result(products, many, create_graph)


# ------------------------------------------------------------------------------- matrices
def jacobian(
    func: Callable[..., Any],
    inputs: OneOrMore,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """The Jacobian: for each output and input, a Tensor of both shapes, one after the other.

    One backward pass per element of the outputs, or with strategy "forward-mode" per element of
    the inputs.

    Args:
        vectorize: accepted; the passes run one by one all the same.

    Returns:
        A Tensor; a tuple over the inputs when they were a tuple; a tuple over the outputs (of
        those) when the function returns one.

    >>> import gradlite
    >>> gradlite.autograd.functional.jacobian(lambda x: x**2, gradlite.tensor([1.0, 2.0]))
    tensor([[2., 0.],
            [0., 4.]])
    """
    if strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError(
            'Expected strategy to be either "forward-mode" or "reverse-mode". Hint: If your '
            'function has more outputs than inputs, "forward-mode" tends to be more performant. '
            'Otherwise, prefer to use "reverse-mode".'
        )
    if strategy == "forward-mode":
        return _forward_jacobian(func, inputs, create_graph, strict, vectorize)
    with enable_grad():
        several, points = _checked(inputs, "inputs", "jacobian")
        points = _points(points, create_graph)
        many, outputs = _evaluated(func, points, "jacobian", strict)
        if vectorize and strict:
            raise RuntimeError(
                "gradlite.autograd.functional.jacobian: `strict=True` and `vectorized=True` are "
                "not supported together. Please either set `strict=False` or `vectorize=False`."
            )
        table = []
        for nr, output in enumerate(outputs):
            rows = []
            for one_hot in unit_vectors(output):
                found = _gradients((output,), points, (one_hot,), create_graph, retain=True)
                rows.append(_row(found, points, nr, strict, create_graph))
            table.append(
                tuple(
                    _stacked([row[i] for row in rows], output, point)
                    for i, point in enumerate(points)
                )
            )
    return _matrix(table, many, several, create_graph)


def _row(
    found: Sequence[Tensor | None], points: Tensors, nr: int, strict: bool, create_graph: bool
) -> Tensors:
    """The gradients of one element of an output, zeros where there are none."""
    row = []
    for i, (gradient, point) in enumerate(zip(found, points)):
        if strict and gradient is None:
            raise RuntimeError(
                f"Output {nr} of the user-provided function is independent of input {i}. This is "
                "not allowed in strict mode."
            )
        if strict and create_graph and gradient is not None and not gradient.requires_grad:
            raise RuntimeError(
                "The jacobian of the user-provided function is independent of input "
                f"{i}. This is not allowed in strict mode when create_graph=True."
            )
        row.append(zeros(point) if gradient is None else gradient)
    return tuple(row)


def _forward_jacobian(
    func: Callable[..., Any], inputs: OneOrMore, create_graph: bool, strict: bool, vectorize: bool
) -> Any:
    """Column by column: the product with each unit vector of the inputs, from one evaluation."""
    if create_graph:
        raise NotImplementedError(
            "gradlite.autograd.functional.jacobian: `create_graph=True` and "
            '`strategy="forward-mode"` are not supported together (yet). Please either set '
            '`create_graph=False` or `strategy="reverse-mode"`.'
        )
    if strict:
        raise RuntimeError(
            'gradlite.autograd.functional.jacobian: `strict=True` and `strategy="forward-mode"` '
            "are not supported together (yet). Please either set `strict=False` or "
            '`strategy="reverse-mode"`.'
        )
    if not vectorize:
        raise NotImplementedError(
            "Computing Jacobian using forward-AD or forward-over-reverse Hessian is"
            "only implemented for `vectorize=True`."
        )
    with enable_grad():
        several, points = _checked(inputs, "inputs", "jacobian")
        points = _points(points, create_graph)
        many, outputs = _evaluated(func, points, "jacobian", strict)
        stand_ins = tuple(zeros(o).requires_grad_() for o in outputs)
        transposed = _gradients(outputs, points, stand_ins, create_graph=True)
        columns: list[list[Tensors]] = []
        for point, image in zip(points, transposed):
            columns.append([])
            for one_hot in unit_vectors(point):
                found = _gradients((image,), stand_ins, (one_hot,), create_graph, retain=True)
                columns[-1].append(filled_in(found, outputs, False, create_graph, "back_trick"))
    table = []
    for nr, output in enumerate(outputs):
        blocks = []
        for point, column in zip(points, columns):
            blocks.append(_side_by_side([c[nr].array for c in column], output, point))
        table.append(tuple(blocks))
    return _matrix(table, many, several, create_graph)


def hessian(
    func: Callable[..., Any],
    inputs: OneOrMore,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a function that returns one number.

    Returns:
        A Tensor of the input's shape, twice; for a tuple of inputs, a tuple of tuples of them.

    Raises:
        RuntimeError: the function returns something else than one Tensor of one element.
    """
    several, _ = _checked(inputs, "inputs", "hessian")
    if outer_jacobian_strategy not in ("forward-mode", "reverse-mode"):
        raise AssertionError('Expected strategy to be either "forward-mode" or "reverse-mode".')

    def number(*points: Tensor) -> Tensor:
        return _single(func(*points), "hessian", strict)

    def gradient(*points: Tensor) -> Tensors:
        if outer_jacobian_strategy == "forward-mode":
            points = tuple(p.requires_grad_() for p in points)
        found: Tensors = jacobian(number, points, create_graph=True)
        check_connected(found, "jacobian", strict)
        return found

    rows = jacobian(
        gradient,
        inputs if several else (inputs,),
        create_graph=create_graph,
        strict=strict,
        vectorize=vectorize,
        strategy=outer_jacobian_strategy,
    )
    return rows if several else rows[0][0]


# --------------------------------------------------------------- products with the Hessian
def vhp(
    func: Callable[..., Any],
    inputs: OneOrMore,
    v: OneOrMore | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The function's value, and the product of a vector with its Hessian.

    Args:
        v: of the inputs' shapes; may be left out when the input is a single number.
    """
    with enable_grad():
        several, points, vectors = _hessian_start(inputs, v, create_graph, "vhp")
        output = _single(func(*points), "vhp", strict)
        slopes = _slopes(output, points, strict)
    with set_grad_enabled(create_graph or is_grad_enabled()):
        found = _gradients(slopes, points, vectors, create_graph)
        products = filled_in(found, points, strict, create_graph, "double_back")
    return _result((output,), False, create_graph), _result(products, several, create_graph)


def hvp(
    func: Callable[..., Any],
    inputs: OneOrMore,
    v: OneOrMore | None = None,
    create_graph: bool = False,
    strict: bool = False,
) -> tuple[Any, Any]:
    """The function's value, and the product of its Hessian with a vector.

    The same numbers as `vhp`, which costs less, as the Hessian of a smooth function is symmetric.
    """
    with enable_grad():
        several, points, vectors = _hessian_start(inputs, v, create_graph, "hvp")
        output = _single(func(*points), "hvp", strict)
        slopes = _slopes(output, points, strict)
        stand_ins = tuple(zeros(p).requires_grad_() for p in points)
        transposed = _gradients(slopes, points, stand_ins, create_graph=True)
        check_connected(transposed, "hessian", strict)
    with set_grad_enabled(create_graph or is_grad_enabled()):
        found = _gradients(transposed, stand_ins, vectors, create_graph)
        products = filled_in(found, points, strict, create_graph, "double_back_trick")
    return _result((output,), False, create_graph), _result(products, several, create_graph)


def _hessian_start(
    inputs: OneOrMore, v: OneOrMore | None, create_graph: bool, name: str
) -> tuple[bool, Tensors, Sequence[Tensor | None]]:
    several, points = _checked(inputs, "inputs", name)
    points = _points(points, create_graph)
    if v is not None:
        return several, points, _vectors(v, points, several, name, create_graph)
    if len(points) != 1 or points[0].array.size != 1:
        raise RuntimeError(
            "The vector v can only be None if the input to the user-provided function is a single "
            "Tensor with a single element."
        )
    return several, points, (None,)


def _slopes(output: Tensor, points: Tensors, strict: bool) -> Sequence[Tensor | None]:
    found = _gradients((output,), points, (None,), create_graph=True)
    check_connected(found, "jacobian", strict)
    return found


# ----------------------------------------------------------------------- inputs and outputs
def _checked(value: OneOrMore, what: str, name: str) -> tuple[bool, Tensors]:
    """Whether a value is a tuple, and it as a tuple of Tensors."""
    several = isinstance(value, tuple)
    values = value if several else (value,)
    for i, element in enumerate(values):
        if not isinstance(element, Tensor):
            found = f"value at index {i}" if several else f"given {what}"
            raise TypeError(
                f"The {what} given to {name} must be either a Tensor or a tuple of Tensors but the "
                f"{found} has type {type(element)}."
            )
    return several, values


def _points(inputs: Tensors, create_graph: bool) -> Tensors:
    """New Tensors to evaluate at: they tell an argument from the same Tensor inside a closure."""
    return tuple(
        t.view_as(t) if create_graph and t.requires_grad else t.detach().requires_grad_()  # type: ignore[attr-defined]
        for t in inputs
    )


def _vectors(v: OneOrMore, like: Tensors, several: bool, name: str, create_graph: bool) -> Tensors:
    _, vectors = _checked(v, "v", name)
    if not create_graph:
        vectors = tuple(t.detach() for t in vectors)
    if len(vectors) != len(like):
        if several:
            raise RuntimeError(
                f"v is a tuple of invalid length: should be {len(like)} but got {len(vectors)}."
            )
        raise RuntimeError("The given v should contain a single Tensor.")
    for i, (vector, expected) in enumerate(zip(vectors, like)):
        if vector.shape != expected.shape:
            entry = f"Entry {i} in " if several else ""
            raise RuntimeError(
                f"{entry}v has invalid size: should be {expected.shape} but got {vector.shape}."
            )
    return vectors


def _evaluated(
    func: Callable[..., Any], points: Tensors, name: str, strict: bool
) -> tuple[bool, Tensors]:
    many, outputs = _checked(func(*points), "outputs of the user-provided function", name)
    check_connected(outputs, "outputs", strict)
    return many, outputs


def _single(output: Any, name: str, strict: bool) -> Tensor:
    """The output of a function that must return one number."""
    many, outputs = _checked(output, "outputs of the user-provided function", name)
    check_connected(outputs, "outputs", strict)
    if many:
        raise RuntimeError(f"The function given to {name} should return a single Tensor")
    if outputs[0].array.size != 1:
        raise RuntimeError(
            f"The Tensor returned by the function given to {name} should contain a single element"
        )
    return outputs[0].squeeze() if name == "hessian" else outputs[0]  # type: ignore[attr-defined,no-any-return]


def _result(values: Sequence[Tensor], several: bool, create_graph: bool) -> Any:
    kept = tuple(values) if create_graph else tuple(t.detach() for t in values)
    return kept if several else kept[0]


def _matrix(table: Sequence[Tensors], many: bool, several: bool, create_graph: bool) -> Any:
    rows = tuple(_result(row, several, create_graph) for row in table)
    return rows if many else rows[0]


# -------------------------------------------------------------------------------- gradients
def _side_by_side(columns: list[Any], output: Tensor, point: Tensor) -> Tensor:
    xp = NAMESPACES[output.array.__class__].xp
    shape = (*output.array.shape, *point.array.shape)
    with guard.on(output):
        block = xp.stack(columns, axis=-1) if columns else xp.zeros((*output.shape, 0))
        return wrap(block.astype(output.array.dtype).reshape(shape))  # type: ignore[no-any-return]


def _stacked(rows: list[Tensor], output: Tensor, point: Tensor) -> Tensor:
    shape = (*output.array.shape, *point.array.shape)
    if not rows:
        xp = NAMESPACES[point.array.__class__].xp
        with guard.on(point):
            return wrap(xp.zeros(shape, point.array.dtype))
    return stack(rows).reshape(shape)  # type: ignore[attr-defined,no-any-return]


def _gradients(
    outputs: Sequence[Tensor | None],
    inputs: Tensors,
    vectors: Sequence[Tensor | None],
    create_graph: bool,
    retain: bool | None = None,
) -> Sequence[Tensor | None]:
    """`grad` that passes over outputs without a graph, and gives None for what has no part."""
    pairs = [(o, v) for o, v in zip(outputs, vectors) if o is not None and o.requires_grad]
    if not pairs:
        return (None,) * len(inputs)
    tensors, weights = zip(*pairs)
    return grad(tensors, inputs, weights, retain, create_graph, allow_unused=True)
