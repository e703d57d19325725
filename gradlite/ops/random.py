"""Random tensors and the state of the default generator."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from gradlite import dtypes
from gradlite import random as core
from gradlite.backends.cpu import loud, quiet
from gradlite.device import as_device
from gradlite.ops import guard, shortcuts
from gradlite.ops.binary import mismatch
from gradlite.ops.creation import finish
from gradlite.ops.dims import sizes
from gradlite.ops.dispatch import apply
from gradlite.ops.draws import drawn
from gradlite.ops.guard import on_its_device
from gradlite.ops.inplace import check_inplace
from gradlite.ops.op import Op, c_name, type_name
from gradlite.ops.operands import cast
from gradlite.random import Generator, default_generator
from gradlite.tensor import Tensor, wrap

__all__ = [
    "fork_rng",
    "get_rng_state",
    "initial_seed",
    "manual_seed",
    "normal",
    "rand",
    "rand_like",
    "randint",
    "randint_like",
    "randn",
    "randn_like",
    "randperm",
    "seed",
    "set_rng_state",
]


def _draw(
    method: str,
    shape: Any,
    dtype: Any,
    device: Any,
    requires_grad: bool,
    generator: Any,
    *args: Any,
) -> Tensor:
    g = default_generator if generator is None else generator
    numpy_dtype = (dtypes.get_default_dtype() if dtype is None else dtypes.as_dtype(dtype)).numpy
    if method != "integers" and numpy_dtype not in dtypes.FLOATING:
        raise NotImplementedError(
            f'"{"normal_kernel_cpu" if method == "normal" else "check_uniform_bounds"}" '
            f"not implemented for '{type_name(numpy_dtype)}'"
        )
    return finish(drawn(g, method, shape, numpy_dtype, as_device(device), *args), requires_grad)


def manual_seed(seed: int) -> Generator:
    """Seed the default generator; the same seed gives the same numbers on CPU and GPU.

    >>> import gradlite
    >>> g = gradlite.manual_seed(0)
    >>> a = gradlite.rand(3)
    >>> g = gradlite.manual_seed(0)
    >>> bool((a == gradlite.rand(3)).all())
    True
    """
    return default_generator.manual_seed(seed)


def seed() -> int:
    """Seed the default generator from the system's entropy and return the seed."""
    return default_generator.seed()


def initial_seed() -> int:
    """The seed of the default generator."""
    return default_generator.initial_seed()


def get_rng_state() -> Tensor:
    """The default generator's state, for `set_rng_state`."""
    return wrap(default_generator.state_array())


def set_rng_state(new_state: Tensor) -> None:
    """Put the default generator back into a state from `get_rng_state`."""
    default_generator.set_state_array(new_state.numpy())


@contextmanager
def fork_rng(devices: Any = None, enabled: bool = True) -> Iterator[None]:
    """Leave the default generator's state as it was when the block ends."""
    state = default_generator.state_array()
    try:
        yield
    finally:
        if enabled:
            default_generator.set_state_array(state)


def rand(
    *shape: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Uniform numbers of [0, 1)."""
    return _draw("random", sizes(shape, size), dtype, device, requires_grad, generator)


def randn(
    *shape: Any,
    size: Any = None,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Standard normal numbers."""
    return _draw("normal", sizes(shape, size), dtype, device, requires_grad, generator)


def randint(
    low: Any = None,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Integers of [low, high); ``randint(high, size)`` starts at 0.

    Raises:
        RuntimeError: an empty interval.
    """
    if size is None:
        low, high, size = None, low, high
    if low is None or high is None:
        low, high = 0, low if high is None else high
    if high <= low:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    kind = dtypes.int64 if dtype is None else dtypes.as_dtype(dtype)
    _check_range(kind.numpy, low, high)
    shape = sizes((size,))
    return _draw("integers", shape, kind, device, requires_grad, generator, int(low), int(high))


def randperm(
    n: int,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """A random order of the integers below n."""
    g = default_generator if generator is None else generator
    numpy_dtype = dtypes.as_dtype(dtypes.int64 if dtype is None else dtype).numpy
    if n < 0:
        raise RuntimeError(f"Trying to create tensor with negative dimension {n}: [{n}]")
    if n and n - 1 > _exact(numpy_dtype):
        if numpy_dtype in dtypes.FLOATING:
            most = _exact(numpy_dtype) + 1
            raise RuntimeError(
                f"n cannot be greater than {most} for {type_name(numpy_dtype)} type."
            )
        dtypes.check_fits(n, n, numpy_dtype)
    order = drawn(g, "permutation", (n,), np.dtype(np.int64), as_device(device))
    with guard.on(order):
        return finish(order.astype(numpy_dtype, copy=False), requires_grad)


def rand_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`rand` with another tensor's shape, dtype and device."""
    return rand(
        *input.array.shape,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
        requires_grad=requires_grad,
    )


def randn_like(
    input: Tensor, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Tensor:
    """`randn` with another tensor's shape, dtype and device."""
    return randn(
        *input.array.shape,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
        requires_grad=requires_grad,
    )


def randint_like(
    input: Tensor,
    low: int | None = None,
    high: int | None = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """`randint` with another tensor's shape, dtype and device."""
    return randint(
        low,
        high,
        input.array.shape,
        dtype=input.dtype if dtype is None else dtype,
        device=input.device if device is None else device,
        requires_grad=requires_grad,
    )


class _NormalOfBoth(Op):
    """draws * std + mean, constant for autograd: the gradients are 0."""

    grad_name = "NormalBackward3"
    constants = (2,)

    def forward(xp: Any, mean: Any, std: Any, draws: Any, *shapes: Any) -> Any:
        return draws * std + mean

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (*(F.zeros(shape, grad) for shape in ctx.attrs), None)


class _NormalOfMean(Op):
    """The same with a number for std."""

    grad_name = "NormalBackward1"
    constants = (1,)

    def forward(xp: Any, mean: Any, draws: Any, std: float) -> Any:
        return draws * draws.dtype.type(std) + mean

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad), None)


class _NormalOfStd(Op):
    """The same with a number for mean."""

    grad_name = "NormalBackward2"
    constants = (1,)

    def forward(xp: Any, std: Any, draws: Any, mean: float) -> Any:
        return draws * std + draws.dtype.type(mean)

    def backward(ctx: Any, grad: Any, F: Any) -> tuple[Any, ...]:
        return (F.zeros(grad.shape, grad), None)


@on_its_device
def _of_tensors(mean: Any, std: Any, draws: Tensor) -> Tensor:
    if not isinstance(std, Tensor):
        return apply(_NormalOfMean, (mean, draws), float(std))  # type: ignore[no-any-return]
    some = "normal expects all elements of std >= 0.0"
    shortcuts.require(~(std.array < 0).any(), RuntimeError, some)
    if not isinstance(mean, Tensor):
        return apply(_NormalOfStd, (std, draws), float(mean))  # type: ignore[no-any-return]
    shapes = mean.array.shape, std.array.shape
    return apply(_NormalOfBoth, (mean, std, draws), *shapes)  # type: ignore[no-any-return]


def normal(
    mean: Any = 0.0,
    std: Any = 1.0,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Tensor:
    """Normal numbers of given means and standard deviations, numbers or tensors.

    >>> import gradlite
    >>> gradlite.normal(0.0, 1.0, (2, 3), dtype=gradlite.float64).shape
    gradlite.Size([2, 3])
    """
    tensors = [t for t in (mean, std) if isinstance(t, Tensor)]
    if not isinstance(std, Tensor) and std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")
    if not tensors:
        if size is None:
            raise TypeError("normal() needs a size where mean and std are numbers")
        values = randn(size=size, generator=generator, dtype=dtype, device=device)
        _scale(values.array, std, mean)
        return values.requires_grad_(requires_grad)
    if size is not None or dtype is not None or device is not None:
        raise TypeError("normal() takes no size, dtype and device where mean or std is a tensor")
    if len(tensors) == 2:
        std = cast(std, mean.array.dtype)
    first = tensors[0]
    try:
        shape = np.broadcast_shapes(*(t.array.shape for t in tensors))
    except ValueError:
        raise RuntimeError(mismatch(*(t.array.shape for t in tensors))) from None
    draws = randn(*shape, generator=generator, dtype=first.dtype, device=first.device)
    return _of_tensors(mean, std, draws)


# ------------------------------------------------------------------------------ in place
def fill_with(self: Tensor, array: Any) -> Tensor:
    """Write an array into a tensor, in place for autograd too."""
    check_inplace(self)
    guard.fill(self.array, array)
    self._bump()
    return self


def _like(self: Tensor, method: str, dtype: Any, generator: Generator | None) -> Any:
    """As many numbers as a tensor has, on its device."""
    g = default_generator if generator is None else generator
    return drawn(g, method, self.array.shape, dtype, self.device)


@on_its_device
def uniform_(
    self: Tensor, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with uniform numbers of [from_, to)."""
    _floating("check_uniform_bounds", self)
    _, most, _ = dtypes.limits(self.array.dtype)
    for name, bound in (("from", from_), ("to", to)):
        if not -most <= bound <= most:
            raise RuntimeError(f"{name} is out of bounds for {c_name(self.array.dtype)}")
    if to - from_ > most:
        raise RuntimeError(
            f"uniform_ expects to-from <= std::numeric_limits<{type_name(self.array.dtype)}>::"
            f"max(), but found to={to:g} and from={from_:g} which result in to-from to exceed the "
            "limit"
        )
    if from_ > to:
        raise RuntimeError(
            f"uniform_ expects to return a [from, to) range, but found from={from_:g} > to={to:g}"
        )
    draws = _like(self, "random", self.array.dtype, generator)
    _scale(draws, to - from_, from_)
    return fill_with(self, draws)


@on_its_device
def normal_(
    self: Tensor, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with normal numbers."""
    _floating("normal_kernel_cpu", self)
    if std < 0:
        raise RuntimeError(f"normal expects std >= 0.0, but found std {std:g}")
    draws = _like(self, "normal", self.array.dtype, generator)
    _scale(draws, std, mean)
    return fill_with(self, draws)


@on_its_device
def _scale(draws: Any, by: float, shift: float) -> None:
    """Multiply draws in place by a number, and add one, both in the draws' dtype."""
    number, token = draws.dtype.type, quiet()
    try:
        if by != 1:
            draws *= number(by)
        if shift != 0:
            draws += number(shift)
    finally:
        loud(token)


@functools.cache
def _exact(numpy_dtype: Any) -> int:
    """The largest int up to which a dtype holds all."""
    if numpy_dtype in dtypes.FLOATING:
        digits = {"float16": 11, "bfloat16": 8, "float32": 24}.get(numpy_dtype.name, 53)
        return 1 << digits
    return 1 if numpy_dtype.kind == "b" else int(np.iinfo(numpy_dtype).max)


@functools.cache
def _range(numpy_dtype: Any) -> tuple[int, int]:
    """The least and the largest integer that a dtype can hold or come near to."""
    if numpy_dtype in dtypes.FLOATING:
        least, most, _ = dtypes.limits(numpy_dtype)
        return int(least), int(most)
    most = _exact(numpy_dtype)
    return 0 if numpy_dtype.kind in "ub" else -most - 1, most


def _check_range(numpy_dtype: Any, low: int, high: int) -> None:
    """RuntimeError when integers of [low, high) are not all of a dtype."""
    least, most = _range(numpy_dtype)
    if least <= low and high - 1 <= most:
        return
    for name, bound in (("from", low), ("to - 1", high - 1)):
        if not least <= bound <= most:
            raise RuntimeError(f"{name} is out of bounds for {c_name(numpy_dtype)}")


@on_its_device
def random_(
    self: Tensor, from_: int = 0, to: int | None = None, *, generator: Generator | None = None
) -> Tensor:
    """Fill with integers of [from_, to), or of [0, from_) where that is given alone."""
    g = default_generator if generator is None else generator
    low, high = from_, to
    if high is None:
        kind = self.array.dtype
        top = min(_exact(kind) + 1, np.iinfo(np.int64).max)
        low, high = (0, low) if low else (0, top)
    if high <= low:
        raise RuntimeError(
            f"random_ expects 'from' to be less than 'to', but got from={low} >= to={high}"
        )
    if to is not None or from_:
        _check_range(self.array.dtype, low, high)
    shape, where = self.array.shape, self.device
    return fill_with(self, drawn(g, "integers", shape, np.dtype(np.int64), where, low, high))


@on_its_device
def exponential_(self: Tensor, lambd: float = 1.0, *, generator: Generator | None = None) -> Tensor:
    """Fill with exponentially distributed numbers of rate ``lambd``."""
    _continuous("Exponential", self)
    if lambd <= 0:
        raise RuntimeError(f"exponential_ expects lambda > 0.0, but found lambda={lambd:g}")
    draws = _like(self, "random", np.dtype(np.float64), generator)
    return fill_with(self, -np.log1p(-draws) / lambd)


@on_its_device
def cauchy_(
    self: Tensor, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers of Cauchy's distribution."""
    _continuous("Cauchy", self)
    if sigma <= 0:
        raise RuntimeError(f"cauchy_ expects sigma > 0.0, but found sigma={sigma:g}")
    draws = _like(self, "random", np.dtype(np.float64), generator)
    return fill_with(self, median + sigma * np.tan(np.pi * (draws - 0.5)))


@on_its_device
def log_normal_(
    self: Tensor, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None
) -> Tensor:
    """Fill with numbers whose logarithms are normal, of that mean and standard deviation."""
    _floating("log_normal_cpu", self)
    if std <= 0:
        raise RuntimeError(f"log_normal_ expects std > 0.0, but found std={std:g}")
    draws = _like(self, "normal", np.dtype(np.float64), generator)
    return fill_with(self, np.exp(mean + std * draws))


@on_its_device
def geometric_(self: Tensor, p: float, *, generator: Generator | None = None) -> Tensor:
    """Fill with how many trials it took until the first success, each one of probability p."""
    if self.array.dtype == np.bool_:
        raise NotImplementedError("\"geometric_cpu\" not implemented for 'Bool'")
    if not 0 < p < 1:
        raise RuntimeError(f"geometric_ expects p to be in (0, 1), but got p={p:g}")
    draws = _like(self, "random", np.dtype(np.float64), generator)
    return fill_with(self, np.floor(np.log1p(-draws) / np.log1p(-p)) + 1)


def _floating(kernel: str, tensor: Tensor) -> None:
    if tensor.array.dtype not in dtypes.FLOATING:
        name = type_name(tensor.array.dtype)
        raise NotImplementedError(f"\"{kernel}\" not implemented for '{name}'")


def _continuous(distribution: str, tensor: Tensor) -> None:
    if tensor.array.dtype not in dtypes.FLOATING:
        raise RuntimeError(
            f"{distribution} distribution is a continuous probability distribution. dtype must be "
            f"a floating point but you specified {type_name(tensor.array.dtype)}"
        )


def _attach() -> None:
    t: Any = Tensor
    t.uniform_, t.normal_, t.random_ = uniform_, normal_, random_
    t.exponential_, t.geometric_ = exponential_, geometric_
    t.cauchy_, t.log_normal_ = cauchy_, log_normal_
    # PyTorch has them in torch.random too, which here is what they build on.
    for function in (manual_seed, seed, initial_seed, get_rng_state, set_rng_state, fork_rng):
        setattr(core, function.__name__, function)


Generator.wrap_state = staticmethod(wrap)  # type: ignore[method-assign]
_attach()
