"""An activation of x + bias as one op, for layers that would add the bias and then activate.

With kernels both ways read and write memory once, and the gradient of the bias is summed on the
way of the backward pass (``kernels/bias_activation.cu``).
"""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from gradlite.ops.binary import sum_to
from gradlite.ops.column_sums import map_columns, sum_parts, total
from gradlite.ops.dispatch import OUT, apply
from gradlite.ops.namespaces import OPS
from gradlite.ops.op import Op
from gradlite.tensor import Tensor


class BiasActivation(Op):
    """activation(x + bias), the bias being a vector along the last dimension.

    Its attrs are the activation's name among the ops and its own attrs.
    """

    reads: tuple[tuple[int, ...], ...] = ((0, 1), (0, 1))

    def forward(xp: Any, x: Any, bias: Any, name: str, *parameters: float) -> Any:
        op = OPS[name]
        made = op.forward(xp, x + bias, *parameters)
        return made[0] if op.has_aux else made

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        name, *parameters = ctx.attrs
        saved = ctx.saved if len(ctx.saved) == 1 else (ctx.saved[0] + ctx.saved[1],)
        inner = SimpleNamespace(saved=saved, attrs=tuple(parameters), aux=None)
        (left,) = OPS[name].backward(inner, grad, F)
        wanted = ctx.edges[1] is not None
        return left, sum_to(F, left, tuple(ctx.shapes[1])) if wanted else None

    def fused_forward(K: Any, x: Any, bias: Any, name: str, *parameters: float) -> Any:
        if not K.takes(x, bias):
            return NotImplemented
        x, bias = K.dense(x), K.dense(bias)
        out = K.empty_like(x)
        columns = bias.size
        rows = x.size // columns
        values = map(float, parameters)
        map_columns(K, f"bias_{name}_forward", x.dtype, rows, columns, x, bias, out, *values)
        return out

    def fused_backward(K: Any, ctx: Any, grad: Any) -> Any:
        name, *parameters = ctx.attrs
        if not K.takes(grad, *ctx.saved):
            return NotImplemented
        saved = [K.dense(a) for a in ctx.saved]
        dx, dtype = K.empty_like(saved[0]), grad.dtype
        (columns,) = ctx.shapes[1]
        arguments = K.dense(grad), *saved, dx, *map(float, parameters)
        rows = dx.size // columns
        kernel = f"bias_{name}_backward"
        partials, _ = sum_parts(K, kernel, dtype, 1, rows, columns, *arguments)
        if ctx.edges[1] is None:
            return dx, None
        db = K.empty((columns,), dtype)
        total(K, dtype, partials, db)
        return dx, db


class BiasActivationOfResult(BiasActivation):
    """The same for activations whose rule reads the result alone."""

    reads = ((OUT,), (OUT,))


# By the names of their ops; what PyTorch's graph calls the node.
ACTIVATIONS: dict[str, Any] = {
    name: type(
        f"Bias{name.title().replace('_', '')}",
        (BiasActivationOfResult if OPS[name].saves == (OUT,) else BiasActivation,),
        {"grad_name": OPS[name].grad_name, "__module__": __name__},
    )
    for name in (
        "relu leaky_relu elu gelu gelu_tanh silu mish softplus sigmoid tanh hardtanh hardswish"
    ).split()
}


def bias_activation(x: Tensor, bias: Tensor, name: str, *parameters: float) -> Tensor:
    """An activation of ``x + bias``.

    Args:
        x: (*, columns).
        bias: (columns,), of the same dtype.
        name: of the activation's op, one of `ACTIVATIONS`.
        parameters: the op's attrs.

    >>> import gradlite
    >>> bias_activation(gradlite.ones(2), gradlite.tensor([1.0, -3.0]), "relu")
    tensor([2., 0.])
    """
    return apply(ACTIVATIONS[name], (x, bias), name, *parameters)  # type: ignore[no-any-return]
