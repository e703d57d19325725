"""The writers of the lines of random programs, one for each kind of instruction."""

from __future__ import annotations

import math
from collections.abc import Callable

from tests.fuzz_pool import Pool

Writer = Callable[["Pool", int, int, int, int], "str | None"]
WRITERS: dict[str, Writer] = {}
WEIGHTS: dict[str, int] = {}

SHAPES = [(3,), (2, 3), (), (1, 3), (2, 1), (3, 2), (2, 2, 3), (1,), (0, 3), (2, 3, 1)]


def kind(weight: int = 1) -> Callable[[Writer], Writer]:
    """Registers a writer under its own name; a heavier one is drawn more often."""

    def register(writer: Writer) -> Writer:
        WRITERS[writer.__name__] = writer
        WEIGHTS[writer.__name__] = weight
        return writer

    return register


# ---------------------------------------------------------------- leaves and flags


@kind(0)
def nothing(pool: Pool, a: int, b: int, c: int, d: int) -> None:
    """What a shrunk instruction becomes."""


@kind(0)
def leaf_of_another_dtype(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    dtype = ["float32", "int64", "float16", "int32"][d % 4 if d % 3 == 0 else d % 2]
    flag = c % 4 != 0 and dtype.startswith("float")
    return f"{pool.new()} = values(T, {SHAPES[a % len(SHAPES)]}, {b % 7}, {flag}, '{dtype}')"


@kind(0)
def conversion(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    how = ["float()", "double()", "to(T.float32)", "long()", "type_as({y})", "to({y})", "half()"]
    return f"{pool.new()} = {pool.pick(a)}." + how[b % len(how)].format(y=pool.pick(c))


@kind(3)
def leaf(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    return f"{pool.new()} = values(T, {SHAPES[a % len(SHAPES)]}, {b % 7}, {c % 4 != 0})"


@kind()
def requires_grad(pool: Pool, a: int, b: int, c: int, d: int) -> str | None:
    """Not where views made in no_grad live on: PyTorch then finds some of them unusable only when
    it has to say where a value saved long ago came from."""
    x = pool.pick(a)
    if pool.has_views_without_grad(x):
        return None
    return f"{x}.requires_grad_({b % 2 == 0 or pool.has_views(x)})"


@kind()
def alias(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    how = ["", ".clone()", ".detach()", ".data", ".detach().requires_grad_()", ".contiguous()"]
    x = pool.pick(a)
    return f"{pool.new()} = {x}{'' if pool.is_inference(x) else how[b % len(how)]}"


@kind()
def detach_in_place(pool: Pool, a: int, b: int, c: int, d: int) -> str | None:
    """Not of leaves and not where views live on: PyTorch keeps what they recorded, in part. And
    not where the gradient is retained: an in-place op then runs into an assertion of PyTorch's."""
    x = pool.pick(a)
    if pool.has_views(x) or pool.look(x, "is_leaf") or pool.look(x, "retains_grad"):
        return None
    return f"{x}.detach_()"


@kind()
def hook(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    return f"add_hook({pool.pick(a)}, lambda g: {['g * 0.5', 'None', 'g.sin()'][b % 3]})"


@kind()
def retain_grad(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    return f"{pool.pick(a)}.retain_grad()"


# ---------------------------------------------------------------- values

UNARY = [
    "{x}.sin()",
    "{x} * 1.5",
    "{x} + 0.5",
    "{x}.tanh()",
    "2 - {x}",
    "-{x}",
    "{x} ** 2",
    "{x}.sigmoid()",
    "{x}.exp()",
    "{x}.relu()",
    "{x}.abs()",
    "1 / ({x} * {x} + 1)",
    "({x}.abs() + 0.5).sqrt()",
    "({x}.abs() + 0.5).log()",
    "{x}.clamp(-0.7, 0.9)",
    "{x}.cos()",
    "{x} / 2",
    "{x} ** 3",
    "T.where({x} > 0.123, {x}, 0.25)",
    "{x}.masked_fill({x} > 0.321, 0.5)",
]
BINARY = [
    "{x} * {y}",
    "{x} + {y}",
    "{x} - {y}",
    "{x} / ({y} * {y} + 1)",
    "T.where({x} > 0.123, {x}, {y})",
    "{x} * {y}.sin()",
    "T.add({x}, {y}, alpha=0.5)",
    "{x}.mul({y})",
]


def is_broadcastable(one: tuple[int, ...], other: tuple[int, ...]) -> bool:
    return all(a == b or 1 in (a, b) for a, b in zip(one[::-1], other[::-1]))


@kind(4)
def unary(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    return f"{pool.new()} = " + UNARY[b % len(UNARY)].format(x=pool.pick(a))


@kind(4)
def binary(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x = pool.pick(a)
    shape = pool.shape(x)
    y = pool.pick_where(c, lambda other: is_broadcastable(shape, other)) or x
    return f"{pool.new()} = " + BINARY[b % len(BINARY)].format(x=x, y=y)


@kind()
def matmul(pool: Pool, a: int, b: int, c: int, d: int) -> str | None:
    """Of equal ranks: what PyTorch folds otherwise shows in views and versions of the result.
    And of equal dtypes, to which PyTorch does not see where there are no elements."""
    x = pool.pick_where(a, lambda shape: len(shape) > 0)
    if x is None:
        return None
    rank, inner = len(pool.shape(x)), pool.shape(x)[-1]
    y = pool.pick_where(b, lambda s: len(s) == rank and s[-2 if rank > 1 else -1] == inner)
    if y is None or pool.look(x, "dtype") != pool.look(y, "dtype"):
        return None
    return f"{pool.new()} = {x} @ {y}"


@kind(2)
def reduction(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x = pool.pick(a)
    rank = len(pool.shape(x))
    if rank == 0 or b % 5 == 0:
        return f"{pool.new()} = {x}.{['sum', 'mean'][c % 2]}()"
    dim, keep = c % rank, d % 2 == 0
    whole = [f"sum({dim}, {keep})", f"mean({dim}, {keep})", f"logsumexp({dim}, {keep})"]
    forms = [*whole, f"softmax({dim})", f"cumsum({dim})", f"log_softmax({dim})"]
    forms += [f"max({dim})[0]", f"amin({dim})", f"prod({dim})", f"var({dim}, {keep})"]
    forms += [f"sort({dim})[0]", f"norm(2, {dim})"]
    return f"{pool.new()} = {x}.{forms[b % len(forms)]}"


@kind()
def join(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x = pool.pick(a)
    shape = pool.shape(x)
    y = pool.pick_where(b, lambda other: other == shape) or x
    if not shape or c % 2:
        return f"{pool.new()} = T.stack([{x}, {y}], {d % (len(shape) + 1)})"
    return f"{pool.new()} = T.cat([{x}, {y}], {d % len(shape)})"


@kind()
def gathered(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x = pool.pick_where(a, lambda shape: len(shape) > 0 and shape[0] > 0) or pool.pick(a)
    rows = pool.shape(x)[0] if pool.shape(x) else 1
    forms = [
        f"{x}[[{b % max(rows, 1)}, {c % max(rows, 1)}]]",
        f"{x}[{x} > 0.123]",
        f"{x}.index_select(0, T.tensor([{b % max(rows, 1)}, {c % max(rows, 1)}]))",
        f"{x}.flip(0)",
        f"{x}.repeat(2{', 1' * (len(pool.shape(x)) - 1)})",
        f"{x}[T.tensor([{b % max(rows, 1)}])]",
    ]
    return f"{pool.new()} = {forms[3 if pool.is_inference(x) else d % len(forms)]}"


# ---------------------------------------------------------------- views


def view_of(pool: Pool, x: str, b: int, c: int, d: int) -> str:
    shape = pool.shape(x)
    rank = len(shape)
    if rank == 0:
        return (
            x + [".unsqueeze(0)", ".view(1)", "[None]", ".expand(3)", "[...]", ".view(1, 1)"][b % 6]
        )
    dim = c % rank
    size = shape[dim]
    before = ":, " * dim
    forms = [
        f"{x}[{before}{d % max(size, 1)}]",
        f"{x}[{before}{d % 2}:]",
        f"{x}[{before}:{max(size - d % 2, 0)}]",
        f"{x}.transpose({dim}, {d % rank})",
        f"{x}[{before}::2]",
        f"{x}.view(-1)" if math.prod(shape) else f"{x}.view({shape[::-1]})",
        f"{x}.unsqueeze({d % (rank + 1)})",
        f"{x}.squeeze({dim})",
        f"{x}.unbind({dim})[{d % max(size, 1)}]",
        f"{x}.reshape({shape[::-1]})",
        f"{x}.narrow({dim}, 0, {min(size, 1 + d % 2)})",
        f"{x}.diagonal()" if rank > 1 else f"{x}.unsqueeze(0).diagonal()",
        f"{x}.expand(2, {', '.join(['-1'] * rank)})",
        f"{x}.split(2, {dim})[0]",
        f"{x}.chunk(2, {dim})[-1]",
        f"{x}.T" if rank == 2 else f"{x}.permute({', '.join(map(str, reversed(range(rank))))})",
        f"{x}.view_as({x})",
        f"{x}[..., {d % max(shape[-1], 1)}]",
        f"{x}.flatten()",
        f"{x}.select({dim}, {d % max(size, 1)})",
        f"{x}.squeeze()",
        f"{x}.unfold({dim}, {min(size, 2)}, 2)",
        f"{x}.movedim({dim}, 0)",
        f"{x}.unflatten({dim}, (1, -1))" if math.prod(shape) else f"{x}[None]",
        f"{x}[{before}None, {d % 2}:]",
    ]
    return forms[b % len(forms)]


@kind(6)
def view(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    return f"{pool.new()} = {view_of(pool, pool.pick(a), b, c, d)}"


@kind()
def view_without_grad(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    mode = "inference_mode" if a % 5 == 4 else "no_grad"
    return f"with T.{mode}(): {pool.new()} = {view_of(pool, pool.pick(a // 5), b, c, d)}"


@kind()
def value_without_grad(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    mode = "inference_mode" if a % 7 == 6 else "no_grad"
    return f"with T.{mode}(): {unary(pool, a // 7, b, c, d)}"


# ---------------------------------------------------------------- in place

UPDATES = [
    "{x}.mul_(0.5)",
    "{x}.add_(0.25)",
    "{x}.mul_({y})",
    "{x}.add_({y}, alpha=0.5)",
    "{x}.copy_({y})",
    "{x}.sub_({y})",
    "{x}.zero_()",
    "{x}.sin_()",
    "{x}.tanh_()",
    "{x}.exp_()",
    "{x}.relu_()",
    "{x}.sigmoid_()",
    "{x}.neg_()",
    "{x}.fill_(0.75)",
    "{x}.div_({y} * {y} + 1)",
    "{x}.clamp_(-0.7, 0.9)",
    "{x}.masked_fill_({x} > 0.123, 0.5)",
    "{x}.abs_()",
    "{x}.pow_(2)",
    "{x}.add_({x})",
    "{x}.mul_({x})",
    "{x}.addcmul_({y}, {y}, value=0.5)",
    "{x}.lerp_({x}, 0.5)",
    "{x} += {y}",
]


@kind(5)
def update(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x = pool.pick_non_leaf(a)
    shape = pool.shape(x)
    y = pool.pick_where(c, lambda other: fits_into(other, shape)) or x
    y = pool.apart(y if pool.may_take(x, y) else x, x)
    return UPDATES[b % len(UPDATES)].format(x=x, y=y)


@kind()
def reshape_in_place(pool: Pool, a: int, b: int, c: int, d: int) -> str | None:
    """Not where the gradient is retained: PyTorch goes on retaining it in the old shape."""
    x = pool.pick_non_leaf(a)
    if pool.look(x, "retains_grad"):
        return None
    rank = len(pool.shape(x))
    dims = c % max(rank, 1), d % max(rank, 1)
    forms = [f"unsqueeze_({c % (rank + 1)})", "squeeze_()", f"transpose_{dims}"]
    return f"{x}.{forms[b % 3]}"


@kind()
def update_without_grad(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    if d % 5 == 4 and not pool.is_inference(pool.pick(a)):
        return f"{pool.pick(a)}.data.mul_(0.5)"
    mode = ["no_grad()", "set_grad_enabled(False)", "no_grad(), T.enable_grad()"][d % 3]
    return f"with T.{mode}: {update(pool, a, b, c, d)}"


@kind()
def island_without_grad(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    """A view made and edited in one no_grad block, and used afterwards."""
    view = f"{pool.new()} = {view_of(pool, pool.pick_non_leaf(a), b, c, d)}"
    return f"with T.no_grad(): {view}; {pool.new()}.mul_(0.5)"


@kind(3)
def assignment(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x = pool.pick_non_leaf(a)
    shape = pool.shape(x)
    if not shape or not shape[0]:
        return f"{x}[...] = 0.5"
    index, part = [
        (f"{d % shape[0]}", shape[1:]),
        (f"{d % 2}:", (max(shape[0] - d % 2, 0), *shape[1:])),
        ("...", shape),
        (f"..., {d % max(shape[-1], 1)}", shape[:-1]),
        ("::2", (-(-shape[0] // 2), *shape[1:])),
        (f"[{d % shape[0]}]", (1, *shape[1:])),
        (f"{x} > 0.123", ()),
        (f"T.tensor([{d % shape[0]}, {(d + 1) % shape[0]}])", ()),
    ][b % 8]
    y = pool.pick_where(c // 2, lambda other: fits_into(other, part)) if c % 4 else None
    y = pool.apart(y, x) if y and pool.may_take(x, y) else None
    if y is None and c % 8 == 0 and len(part) == 0 and pool.may_take(x, x):
        y = f"{x}.sum()"
    return f"{x}[{index}] = {y or 0.75}"


def fits_into(other: tuple[int, ...], shape: tuple[int, ...]) -> bool:
    """Whether `other` broadcasts to `shape` without making it larger."""
    return len(other) <= len(shape) and all(
        a == b or a == 1 for a, b in zip(other[::-1], shape[::-1])
    )


# ---------------------------------------------------------------- backward


@kind(3)
def backward(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x, y = pool.pick_root(a), pool.pick_root(b)
    root = [f"{x}.sum()", f"({x} * {x}).sum()", f"({x}.sum() + {y}.sin().sum())"][c % 3]
    if b % 8 == 7:
        return f"{x}.backward(T.ones_like({x}))"
    stop = pool.pick_below(x, a)
    if b % 8 == 6 and stop not in pool.products:  # whose node PyTorch has a view in front of
        return f"{root}.backward(inputs=[{stop}])"
    if b % 8 == 5:
        return f"T.autograd.backward([{x}.mean(), {y}.sin().sum()])"
    return f"{root}.backward({'retain_graph=True' if d % 3 == 0 else ''})"


@kind()
def gradient(pool: Pool, a: int, b: int, c: int, d: int) -> str:
    x = pool.pick_root(a)
    y = pool.pick_below(x, b)
    options = "create_graph=True" if d % 3 else "retain_graph=True"
    if c % 3 == 0:
        options += ", allow_unused=True"
    # The clone hides how PyTorch computed the gradient: as a view, in place, or neither.
    return f"{pool.new()} = T.autograd.grad(({x} * {x}).sum(), {y}, {options})[0].clone()"


@kind()
def second_gradient(pool: Pool, a: int, b: int, c: int, d: int) -> str | None:
    """A gradient with a graph, used in a second backward."""
    x = pool.pick_root(a)
    y = pool.pick_below(x, b)
    inner = f"T.autograd.grad(({x} * {x}.sin()).sum(), {y}, create_graph=True)[0]"
    return f"({inner} ** 2).sum().backward()"


@kind()
def grad_of_leaf(pool: Pool, a: int, b: int, c: int, d: int) -> str | None:
    if not pool.leaves:
        return None
    name = pool.leaves[-1 - a % len(pool.leaves)]
    return f"{name}.grad = None" if b % 3 else f"{pool.new()} = {name}.grad.clone()"
