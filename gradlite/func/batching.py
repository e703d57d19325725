"""vmap: a function of one example made a function of a batch."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

from gradlite.ops.joining import stack
from gradlite.random import default_generator
from gradlite.tensor import Tensor
from gradlite.utils._pytree import (
    TreeSpec,
    broadcast_prefix,
    tree_flatten,
    tree_leaves,
    tree_unflatten,
)

__all__ = ["vmap"]

Dims = Any  # an int, None, or a nested container of them
RANDOMNESS = ("error", "different", "same")


def vmap(
    func: Callable[..., Any],
    in_dims: Dims = 0,
    out_dims: Dims = 0,
    randomness: str = "error",
    *,
    chunk_size: int | None = None,
) -> Callable[..., Any]:
    """Apply a function to every slice of its arguments and stack the results.

    This is a loop over the slices: always right, differentiable, and as slow as the loop. It
    saves writing indices, not time. The function sees ordinary Tensors, so unlike PyTorch's it
    may look at values, too.

    Args:
        in_dims: the dimension of each argument to loop over; None passes it whole. An int for
            all, or a tuple with an entry per argument, which may follow its structure.
        out_dims: where the new dimension of each output goes; None for an output that is the
            same in each call.
        randomness: what a draw from the default generator does: raise ("error"), give each slice
            its own numbers ("different") or all the same ("same").
        chunk_size: accepted, without effect.

    Raises:
        ValueError: dimensions that do not fit the arguments or outputs, or arguments of different
            sizes along them.
        RuntimeError: a random draw with randomness "error".

    >>> import gradlite
    >>> batched_dot = gradlite.func.vmap(gradlite.dot)
    >>> batched_dot(gradlite.ones(2, 3), gradlite.ones(2, 3))
    tensor([3., 3.])
    """
    if randomness not in RANDOMNESS:
        raise RuntimeError(
            "Only allowed values for randomness are 'error', 'different', or 'same'. Got "
            f"{randomness}"
        )
    if not (chunk_size is None or chunk_size > 0):
        raise ValueError(f"vmap: chunk_size should be None or greater than 0. (got {chunk_size})")
    name = _name(func)

    @functools.wraps(func)
    def wrapper(*args: Any, **kwargs: Any) -> Any:
        _check_out_dims(out_dims, name)
        values, spec = tree_flatten(args)
        dims = _flat_in_dims(in_dims, args, values, spec, name)
        size = _batch_size(values, dims)
        calls = []
        start = default_generator.state_array()
        # An empty batch is tried with zeros, for the shapes of the results.
        for i in range(size) if size else [None]:
            if randomness == "same":
                default_generator.set_state_array(start)
            slices = [_slice(v, d, i) for v, d in zip(values, dims)]
            calls.append(func(*tree_unflatten(slices, spec), **kwargs))
            if randomness == "error" and (default_generator.state_array() != start).any():
                raise RuntimeError(
                    "vmap: called random operation while in randomness error mode. Please either "
                    "use the 'same' or 'different' randomness flags on vmap or perform the "
                    "randomness operation out of vmap"
                )
        return _joined(calls, out_dims, name, empty=size == 0)

    return wrapper


def _name(func: Any) -> str:
    if hasattr(func, "__name__"):
        return str(func.__name__)
    if isinstance(func, functools.partial):
        return f"functools.partial({_name(func.func)}, ...)"
    return repr(func)


# ------------------------------------------------------------------------------------ inputs
def _flat_in_dims(
    in_dims: Dims, args: tuple[Any, ...], values: list[Any], spec: TreeSpec, name: str
) -> list[int | None]:
    """The dimension of each leaf of the arguments, counted from the front."""
    start = f"vmap({name}, in_dims={in_dims}, ...)(<inputs>): "
    if not isinstance(in_dims, (int, tuple)):
        raise ValueError(
            f"{start}expected `in_dims` to be int or a (potentially nested) tuple matching the "
            f"structure of inputs, got: {type(in_dims)}."
        )
    if not args:
        raise ValueError(
            f"vmap({name})(<inputs>): got no inputs. Maybe you forgot to add inputs, or you are "
            "trying to vmap over a function with no inputs. The latter is unsupported."
        )
    dims = broadcast_prefix(in_dims, spec)
    if dims is None:
        raise ValueError(
            f"{start}in_dims is not compatible with the structure of `inputs`. in_dims has "
            f"structure {tree_flatten(in_dims)[1]} but inputs has structure {spec}."
        )
    for i, (value, dim) in enumerate(zip(values, dims)):
        if dim is None:
            continue
        if not isinstance(dim, int):
            raise ValueError(
                f"{start}Got in_dim={dim} for an input but in_dim must be either an integer "
                "dimension or None."
            )
        if not isinstance(value, Tensor):
            raise ValueError(
                f"{start}Got in_dim={dim} for an input but the input is of type {type(value)}. We "
                "cannot vmap over non-Tensor arguments, please use None as the respective in_dim"
            )
        n = value.dim()
        if not -n <= dim < n:
            raise ValueError(
                f"{start}Got in_dim={dim} for some input, but that input is a Tensor of "
                f"dimensionality {n} so expected in_dim to satisfy -{n} <= in_dim < {n}."
            )
        dims[i] = dim % n
    return dims


def _batch_size(values: list[Any], dims: list[int | None]) -> int:
    sizes = [v.size(d) for v, d in zip(values, dims) if d is not None]
    if not sizes:
        raise ValueError("vmap: Expected at least one Tensor to vmap over")
    if len(set(sizes)) > 1:
        raise ValueError(
            "vmap: Expected all tensors to have the same size in the mapped dimension, got sizes "
            f"{sizes} for the mapped dimension"
        )
    return int(sizes[0])


def _slice(value: Any, dim: int | None, i: int | None) -> Any:
    if dim is None:
        return value
    if i is None:
        return value.new_zeros([n for d, n in enumerate(value.shape) if d != dim])
    return value.select(dim, i)


# ----------------------------------------------------------------------------------- outputs
def _check_out_dims(out_dims: Dims, name: str) -> None:
    for dim in tree_leaves(out_dims):
        if dim is not None and not isinstance(dim, int):
            raise ValueError(
                f"vmap({name}, ..., out_dims={out_dims}): `out_dims` must be an int, None or a "
                "python collection of ints representing where in the outputs the vmapped dimension "
                "should appear."
            )


def _joined(calls: list[Any], out_dims: Dims, name: str, empty: bool) -> Any:
    flat, spec = tree_flatten(calls[0])
    # A tuple of one dimension also serves a bare output.
    alone = spec.kind is None and isinstance(out_dims, tuple) and len(out_dims) == 1
    dims = broadcast_prefix(out_dims[0] if alone else out_dims, spec)
    if dims is None:
        raise ValueError(
            f"vmap({name}, ..., out_dims={out_dims})(<inputs>): out_dims is not compatible with "
            f"the structure of `outputs`. out_dims has structure {tree_flatten(out_dims)[1]} but "
            f"outputs has structure {spec}."
        )
    leaves = [flat, *(tree_leaves(call) for call in calls[1:])]
    return tree_unflatten(
        [_column(list(column), dim, name, empty) for column, dim in zip(zip(*leaves), dims)], spec
    )


def _column(values: list[Any], dim: int | None, name: str, empty: bool) -> Any:
    """One output of all calls."""
    first = values[0]
    if dim is None:
        if isinstance(first, Tensor) and any(v is not first for v in values):
            raise ValueError(
                f"vmap({name}, ...): `{name}` can not return a BatchedTensor when out_dim is None"
            )
        return first
    if not isinstance(first, Tensor):
        raise ValueError(
            f"vmap({name}, ...): `{name}` must only return Tensors, got type {type(first)}. Did "
            "you mean to set out_dims= to None for output?"
        )
    result: Tensor = stack(values, dim)
    if empty:
        shape = list(result.shape)
        shape[dim] = 0
        return result.new_zeros(shape)  # type: ignore[attr-defined]
    return result
