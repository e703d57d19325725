"""Names of graph nodes and the walk over next_functions, compared with PyTorch."""

from __future__ import annotations

from typing import Any

import pytest

from tests.oracle import same


def leaf(T: Any, *values: float) -> Any:
    return T.tensor(values or (1.0, 2.0, 3.0), requires_grad=True)


# ---------------------------------------------------------------- grad_fn

NAMED = {
    "add": lambda x, y: x + y,
    "add_scalar": lambda x, y: x + 1,
    "radd": lambda x, y: 1 + x,
    "sub": lambda x, y: x - y,
    "rsub": lambda x, y: 1 - x,
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "rdiv": lambda x, y: 1 / x,
    "neg": lambda x, y: -x,
    "pow_scalar": lambda x, y: x**2,
    "pow": lambda x, y: x**y,
    "rpow": lambda x, y: 2**x,
    "matmul_2d": lambda x, y: x @ y.mT,
    "matmul_1d": lambda x, y: x[0] @ y[0],
    "matmul_2d_1d": lambda x, y: x @ y[0],
    "matmul_3d": lambda x, y: x[None] @ y.mT[None],
    "exp": lambda x, y: x.exp(),
    "log": lambda x, y: x.log(),
    "log1p": lambda x, y: x.log1p(),
    "remainder": lambda x, y: x.remainder(y),
    "remainder_scalar": lambda x, y: x % 2,
    "sqrt": lambda x, y: x.sqrt(),
    "tanh": lambda x, y: x.tanh(),
    "sigmoid": lambda x, y: x.sigmoid(),
    "relu": lambda x, y: x.relu(),
    "abs": lambda x, y: x.abs(),
    "sin": lambda x, y: x.sin(),
    "clamp": lambda x, y: x.clamp(0, 1),
    "sum": lambda x, y: x.sum(),
    "sum_dim": lambda x, y: x.sum(0),
    "mean": lambda x, y: x.mean(),
    "mean_dim": lambda x, y: x.mean(1),
    "max": lambda x, y: x.max(),
    "max_dim": lambda x, y: x.max(0)[0],
    "amax": lambda x, y: x.amax(0),
    "prod": lambda x, y: x.prod(),
    "var": lambda x, y: x.var(),
    "std": lambda x, y: x.std(),
    "logsumexp": lambda x, y: x.logsumexp(0),
    "softmax": lambda x, y: x.softmax(0),
    "log_softmax": lambda x, y: x.log_softmax(0),
    "cumsum": lambda x, y: x.cumsum(0),
    "view": lambda x, y: x.view(-1),
    "reshape": lambda x, y: x.reshape(3, 2),
    "reshape_copy": lambda x, y: x.t().reshape(-1),
    "transpose": lambda x, y: x.transpose(0, 1),
    "t": lambda x, y: x.t(),
    "T": lambda x, y: x.T,
    "mT": lambda x, y: x.mT,
    "permute": lambda x, y: x.permute(1, 0),
    "unsqueeze": lambda x, y: x.unsqueeze(0),
    "squeeze": lambda x, y: x[:1].squeeze(),
    "squeeze_dim": lambda x, y: x[:1].squeeze(0),
    "expand": lambda x, y: x[None].expand(4, 2, 3),
    "flatten": lambda x, y: x.flatten(),
    "select": lambda x, y: x[0],
    "slice": lambda x, y: x[:, 1:],
    "index": lambda x, y: x[[0, 1], [1, 2]],
    "mask": lambda x, y: x[x > 1],
    "newaxis": lambda x, y: x[None],
    "ellipsis": lambda x, y: x[..., 0],
    "narrow": lambda x, y: x.narrow(1, 0, 2),
    "unbind": lambda x, y: x.unbind(0)[1],
    "split": lambda x, y: x.split(2, 1)[0],
    "chunk": lambda x, y: x.chunk(2, 1)[0],
    "diagonal": lambda x, y: x.diagonal(),
    "clone": lambda x, y: x.clone(),
    "double": lambda x, y: x.double(),
    "float_is_the_same": lambda x, y: x.float() is x,
    "flip": lambda x, y: x.flip(0),
    "roll": lambda x, y: x.roll(1, 0),
    "repeat": lambda x, y: x.repeat(2, 1),
    "gather": lambda x, y: x.gather(1, (x > 100).long()),
    "tril": lambda x, y: x.tril(),
    "masked_fill": lambda x, y: x.masked_fill(x > 1, 0.0),
    "norm": lambda x, y: x.norm(),
    "contiguous_is_the_same": lambda x, y: x.contiguous() is x,
    "contiguous_copies": lambda x, y: x.t().contiguous(),
}


@pytest.mark.parametrize("name", NAMED)
def test_grad_fn_is_named_as_in_pytorch(name):
    """The whole chain of names below the result, since a composite op shows what it is made of."""

    def names(node):
        return (
            None
            if node is None
            else [node.name(), [names(child) for child, _ in node.next_functions]]
        )

    def program(T):
        x = T.tensor([[1.0, 2.0, 3.0], [0.5, 1.5, 2.5]], requires_grad=True)
        y = T.tensor([[3.0, 1.0, 2.0], [1.0, 0.5, 2.0]], requires_grad=True)
        result = NAMED[name](x, y)
        return result if isinstance(result, bool) else (result, names(result.grad_fn))

    same(program)


MODULE_LEVEL_NAMED = {
    "stack": lambda T, x: T.stack([x, x]),
    "cat": lambda T, x: T.cat([x, x]),
    "where": lambda T, x: T.where(x > 1, x, 0.0),
    "maximum": lambda T, x: T.maximum(x, x * 2),
    "addmm": lambda T, x: T.addmm(x, x, x),
    "linear": lambda T, x: T.nn.functional.linear(x, x, x[0]),
    "linear_without_bias": lambda T, x: T.nn.functional.linear(x, x),
    "linear_3d": lambda T, x: T.nn.functional.linear(x[None], x, x[0]),
    "gelu": lambda T, x: T.nn.functional.gelu(x),
    "silu": lambda T, x: T.nn.functional.silu(x),
    "softplus": lambda T, x: T.nn.functional.softplus(x),
    "leaky_relu": lambda T, x: T.nn.functional.leaky_relu(x),
    "elu": lambda T, x: T.nn.functional.elu(x),
    "mse_loss": lambda T, x: T.nn.functional.mse_loss(x, T.zeros(2, 2)),
    "cross_entropy": lambda T, x: T.nn.functional.cross_entropy(x, T.tensor([0, 1])),
    "nll_loss": lambda T, x: T.nn.functional.nll_loss(x, T.tensor([0, 1])),
    "layer_norm": lambda T, x: T.nn.functional.layer_norm(x, (2,)),
    "embedding": lambda T, x: T.nn.functional.embedding(T.tensor([0, 1]), x),
    "binary_cross_entropy_with_logits": lambda T, x: (
        T.nn.functional.binary_cross_entropy_with_logits(x, T.ones(2, 2))
    ),
}


@pytest.mark.parametrize("name", MODULE_LEVEL_NAMED)
def test_grad_fn_of_functions_is_named_as_in_pytorch(name):
    def program(T):
        x = T.tensor([[1.0, 2.0], [3.0, 4.5]], requires_grad=True)
        result = MODULE_LEVEL_NAMED[name](T, x)
        return result, result.grad_fn

    same(program)


def test_grad_fn_repr():
    def program(T):
        return repr((leaf(T) * 2).grad_fn), str((leaf(T) + 1).grad_fn)

    same(program)


def test_next_functions_lead_down_to_accumulate_grad():
    def program(T):
        x, y = leaf(T), leaf(T)
        root = (x * y + x).grad_fn
        (mul, mul_output), (accumulate, _) = root.next_functions
        return {
            "root": root.name(),
            "mul": (mul.name(), mul_output),
            "accumulate": accumulate.name(),
            "its variable": accumulate.variable is x,
            "one node per leaf": mul.next_functions[0][0] is accumulate,
            "variables": [
                node.variable is leaf_ for (node, _), leaf_ in zip(mul.next_functions, (x, y))
            ],
            "end of the walk": accumulate.next_functions,
        }

    same(program)


def test_next_functions_say_which_output_they_read():
    def program(T):
        a, b, c = leaf(T).unbind()
        root = (c * a).grad_fn
        return [(node.name(), number) for node, number in root.next_functions], b.output_nr

    same(program)


def test_inputs_without_a_gradient_are_none_in_next_functions():
    def program(T):
        x, c = leaf(T), T.ones(3)
        return [
            [edge[0] for edge in node.next_functions] for node in ((x * c).grad_fn, (c * x).grad_fn)
        ]

    same(program)


def test_the_graph_can_be_walked_and_drawn():
    def program(T):
        w1, w2 = T.ones(3, 4, requires_grad=True), T.ones(4, 2, requires_grad=True)
        loss = ((T.ones(5, 3) @ w1).relu() @ w2).sum()
        names, stack = [], [loss.grad_fn]
        while stack:
            node = stack.pop()
            names.append(node.name())
            stack.extend(child for child, _ in node.next_functions if child is not None)
        return names

    same(program)


def test_grad_fn_is_the_same_object_each_time():
    def program(T):
        y = leaf(T) * 2
        return y.grad_fn is y.grad_fn, (y + 1).grad_fn.next_functions[0][0] is y.grad_fn

    same(program)
