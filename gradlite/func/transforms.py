"""grad, grad_and_value, vjp and jvp of functions of Tensors and of nested containers of them."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any

from gradlite import dtypes
from gradlite.autograd.strict import zeros
from gradlite.func.arguments import Argnums, chosen, replaced
from gradlite.func.trace import Trace, gradients
from gradlite.grad_mode import enable_grad, is_grad_enabled
from gradlite.tensor import Tensor
from gradlite.utils._pytree import TreeSpec, tree_flatten, tree_map, tree_unflatten

__all__ = ["grad", "grad_and_value", "jvp", "vjp"]


def grad_and_value(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The function that computes the gradient of another, and its value.

    Args:
        func: returns a Tensor without dimensions; with ``has_aux`` that and anything else.
        argnums: the argument to differentiate by, or a tuple of several; each may be a nested
            container of Tensors, and its gradient is one, too.

    Returns:
        A function of the same arguments that returns ``(gradient, value)``, with ``has_aux``
        ``(gradient, (value, aux))``.
    """

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        trace = Trace()
        with enable_grad():
            points, spec = tree_flatten(chosen(args, argnums))
            points = [trace.enter(p) for p in points]
            output = func(*replaced(args, tree_unflatten(points, spec), argnums), **kwargs)
            aux = None
            if has_aux:
                if not (isinstance(output, tuple) and len(output) == 2):
                    raise RuntimeError(
                        "grad_and_value(f)(*args): output of function f should be a tuple: "
                        "(output, aux) if has_aux is True"
                    )
                output, aux = output
            if not isinstance(output, Tensor):
                raise RuntimeError(
                    "grad_and_value(f)(*args): Expected f(*args) to return a Tensor, got "
                    f"{type(output)}"
                )
            if output.dim() != 0:
                raise RuntimeError(
                    "grad_and_value(f)(*args): Expected f(*args) to return a scalar Tensor, got "
                    f"tensor with {output.dim()} dims. Maybe you wanted to use the vjp or jacrev "
                    "APIs instead?"
                )
            outside = trace.reaches_outside((output,))
            found = gradients((output,), points, (None,), outside)
            results = [zeros(p) if g is None else g for g, p in zip(found, points)]
            value = trace.leave(output)
            if has_aux:
                aux = tree_map(trace.leave, aux)
        result = tree_unflatten([trace.leave(r) for r in results], spec)
        return (result, (value, aux)) if has_aux else (result, value)

    return wrapper


def grad(
    func: Callable[..., Any], argnums: Argnums = 0, has_aux: bool = False
) -> Callable[..., Any]:
    """The function that computes the gradient of another; with ``has_aux``, and its aux.

    It can be applied again, for higher derivatives. See `grad_and_value` for the arguments.

    >>> import gradlite
    >>> cos = gradlite.func.grad(gradlite.sin)
    >>> gradlite.func.grad(cos)(gradlite.tensor(0.5))
    tensor(-0.4794)
    """
    both = grad_and_value(func, argnums, has_aux)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        gradient, value = both(*args, **kwargs)
        return (gradient, value[1]) if has_aux else gradient

    return wrapper


# --------------------------------------------------------------------------------- products
def checked_outputs(values: list[Any], api: str) -> list[Tensor]:
    """RuntimeError unless a function returned Tensors, and at least one."""
    if not values or (len(values) == 1 and values[0] is None):
        raise RuntimeError(
            f"{api}: Expected f to be a function that has non-empty output (got output = {values})"
        )
    for value in values:
        if not isinstance(value, Tensor):
            raise RuntimeError(
                f"{api}: expected f(*primals) to return only tensors, got unsupported type "
                f"{type(value)}"
            )
    return values


def with_aux(output: Any, api: str) -> Any:
    """RuntimeError unless a function returned an output and an aux."""
    if not (isinstance(output, tuple) and len(output) == 2):
        raise RuntimeError(
            f"{api}: output of function f should be a tuple: (output, aux) if has_aux is True"
        )
    return output


class Evaluation:
    """A function evaluated at a trace's own Tensors, ready to be differentiated.

    Attributes: ``points`` with their structure ``spec``, ``outputs`` with theirs ``out_spec``,
    ``aux``, and ``outside``: whether the outputs depend on anything but the points.
    """

    def __init__(
        self,
        func: Callable[..., Any],
        args: tuple[Any, ...],
        argnums: Argnums | None,
        has_aux: bool,
        api: str,
    ) -> None:
        self.trace = Trace()
        with enable_grad():
            points, self.spec = tree_flatten(args if argnums is None else chosen(args, argnums))
            self.points = [self.trace.enter(p) for p in points]
            tree = tree_unflatten(self.points, self.spec)
            output = func(*(tree if argnums is None else replaced(args, tree, argnums)))
            self.aux = None
            if has_aux:
                output, aux = with_aux(output, api)
                self.aux = tree_map(self.trace.leave, aux)
            flat, self.out_spec = tree_flatten(output)
            self.outputs = checked_outputs(flat, api)
            self.outside = self.trace.reaches_outside(self.outputs)

    def value(self) -> Any:
        """The outputs as the caller gets them."""
        return tree_unflatten([self.trace.leave(o) for o in self.outputs], self.out_spec)

    def transpose(self) -> tuple[list[Tensor], list[Tensor | None]]:
        """Stand-ins for gradients of the outputs, and the gradients of the points for them.

        The latter depend linearly on the former, so that their own gradients by the former are
        products with the Jacobian (Townsend, "A new trick for calculating Jacobian vector
        products", 2017).
        """
        with enable_grad():
            floating = [o.array.dtype in dtypes.FLOATING for o in self.outputs]
            vectors = [
                zeros(o).requires_grad_() if f else zeros(o) for o, f in zip(self.outputs, floating)
            ]
            return vectors, gradients(self.outputs, self.points, vectors, create_graph=True)


def check_floating(outputs: Sequence[Tensor]) -> None:
    """RuntimeError for outputs that have no derivatives."""
    for output in outputs:
        if output.array.dtype not in dtypes.FLOATING:
            raise RuntimeError(
                "vjp(f, ...): All outputs of f must be floating-point or complex Tensors, got "
                f"Tensor with dtype {output.dtype}"
            )


def vjp(func: Callable[..., Any], *primals: Any, has_aux: bool = False) -> tuple[Any, ...]:
    """The value of a function, and the function that multiplies a vector with its Jacobian.

    Args:
        func: returns Tensors in a nested container; with ``has_aux`` that and anything else.
        primals: where to evaluate it.

    Returns:
        ``(value, vjp_fn)`` or ``(value, vjp_fn, aux)``. ``vjp_fn(cotangents)`` takes a container
        like the value and returns a tuple of one product per primal; call it as often as needed.

    >>> import gradlite
    >>> value, vjp_fn = gradlite.func.vjp(gradlite.exp, gradlite.zeros(2))
    >>> vjp_fn(gradlite.ones(2))
    (tensor([1., 1.]),)
    """
    at = Evaluation(func, primals, None, has_aux, "vjp(f, *primals)")
    check_floating(at.outputs)

    def vjp_fn(cotangents: Any, retain_graph: bool = True, create_graph: bool | None = None) -> Any:
        vectors, spec = tree_flatten(cotangents)
        if spec != at.out_spec:
            raise RuntimeError(
                "Expected pytree structure of cotangents to be the same as pytree structure of "
                f"outputs to the function. cotangents: {_drawn(spec)}, primal output: "
                f"{_drawn(at.out_spec)}"
            )
        return tree_unflatten(
            pulled_back(at, at.outputs, vectors, retain_graph, create_graph), at.spec
        )

    value = at.value()
    return (value, vjp_fn, at.aux) if has_aux else (value, vjp_fn)


def pulled_back(
    at: Evaluation,
    outputs: Sequence[Tensor],
    vectors: Sequence[Any],
    retain_graph: bool = True,
    create_graph: bool | None = None,
) -> list[Tensor]:
    """The products of vectors with the Jacobian of an evaluated function, one per point."""
    records = is_grad_enabled() if create_graph is None else create_graph
    records = records and (at.outside or any(v.requires_grad for v in vectors))
    found = gradients(outputs, at.points, vectors, records, retain_graph)
    results = [zeros(p) if g is None else g for g, p in zip(found, at.points)]
    return results if records else [r.detach() for r in results]


def _drawn(spec: TreeSpec) -> str:
    class Star:
        def __repr__(self) -> str:
            return "*"

    return repr(tree_unflatten([Star()] * spec.num_leaves, spec))


JVP = "jvp(f, primals, tangents)"


def jvp(
    func: Callable[..., Any],
    primals: tuple[Any, ...],
    tangents: tuple[Any, ...],
    *,
    strict: bool = False,
    has_aux: bool = False,
) -> tuple[Any, ...]:
    """The value of a function, and the product of its Jacobian with a vector.

    Computed with two backward passes, as there is no forward mode.

    Args:
        primals: where to evaluate it, as a tuple.
        tangents: the vector, in a container like the primals.
        strict: raise when the value does not depend on the primals, rather than give zeros.

    Returns:
        ``(value, product)`` or ``(value, product, aux)``.

    >>> import gradlite
    >>> gradlite.func.jvp(gradlite.exp, (gradlite.zeros(2),), (gradlite.ones(2),))
    (tensor([1., 1.]), tensor([1., 1.]))
    """
    if not isinstance(primals, tuple):
        raise RuntimeError(
            f"{JVP}: Expected primals to be a tuple. E.g. it should be valid to call f(*primals)."
        )
    points, spec = tree_flatten(primals)
    vectors, vector_spec = tree_flatten(tangents)
    if spec != vector_spec:
        raise RuntimeError(
            f"{JVP}: Expected primals and tangents to have the same python structure. For example, "
            "if primals is a tuple of 3 tensors, tangents also must be. Got primals with structure "
            f"{spec} and tangents with structure {vector_spec}"
        )
    for values, name in ((points, "primals"), (vectors, "tangents")):
        if not values:
            raise RuntimeError(f"{JVP}: Expected {name} to contain at least one Tensor.")
        for value in values:
            if not isinstance(value, Tensor):
                raise RuntimeError(
                    f"{JVP}: Expected {name} to only contain Tensors, got {type(value)}"
                )
    for point, vector in zip(points, vectors):
        if point.shape != vector.shape:
            raise RuntimeError(
                "Trying to set a forward gradient that has a different size than that of the "
                f"original Tensor, this is not supported. Tensor is of size {list(point.shape)} "
                f"while the given forward gradient is of size {list(vector.shape)}."
            )
    at = Evaluation(func, primals, None, has_aux, JVP)
    if strict and not any(o.requires_grad for o in at.outputs):
        raise RuntimeError(
            "jvp(f, primals, tangents, strict=True): The output of f is independent of the inputs. "
            "This is not allowed with strict=True."
        )
    stand_ins, transposed = at.transpose()
    products = pushed_forward(at, stand_ins, transposed, vectors)
    results = (at.value(), tree_unflatten(products, at.out_spec))
    return (*results, at.aux) if has_aux else results


def pushed_forward(
    at: Evaluation,
    stand_ins: Sequence[Tensor],
    transposed: Sequence[Tensor | None],
    vectors: Sequence[Tensor],
    retain_graph: bool | None = None,
) -> list[Tensor]:
    """The products of the Jacobian of an evaluated function with vectors, one per output."""
    records = is_grad_enabled() and (at.outside or any(v.requires_grad for v in vectors))
    asked = [v for v in stand_ins if v.requires_grad]
    found = iter(gradients(transposed, asked, vectors, records, retain_graph))
    products = []
    for v in stand_ins:
        product = next(found) if v.requires_grad else None
        products.append(zeros(v) if product is None else product)
    return products if records else [p.detach() for p in products]
