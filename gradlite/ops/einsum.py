"""einsum: an equation taken apart into diagonals, sums, permutations and matrix products.

How it is taken apart depends on the equation and the shapes alone, and is kept.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Any

from gradlite.ops.op import type_name
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["einsum"]

ELLIPSIS = "..."
Labels = list[Any]  # a letter for a subscript, an int < 0 for a dimension of the ellipsis
Term = tuple[Any, ...]  # what is written: letters and `ELLIPSIS`
Shape = tuple[int, ...]


def _letters(term: str, start: int, which: str) -> Term:
    """The subscripts of one term, the ellipsis as one item.

    ``start`` and ``which`` are the place and the name of the term, for messages.
    """
    labels: Labels = []
    place = 0
    while place < len(term):
        letter = term[place]
        if letter == " ":
            place += 1
            continue
        if term.startswith(ELLIPSIS, place):
            if ELLIPSIS in labels:
                raise RuntimeError(
                    f"einsum(): found '.' for {which} for which an ellipsis was already found"
                )
            labels.append(ELLIPSIS)
            place += 3
            continue
        if letter == ".":
            raise RuntimeError(f"einsum(): found '.' for {which} that is not part of any ellipsis")
        if not (letter.isascii() and letter.isalpha()):
            raise RuntimeError(
                f"einsum(): invalid subscript given at index {start + place} in the equation "
                "string, subscripts must be in [a-zA-Z]"
            )
        labels.append(letter)
        place += 1
    return tuple(labels)


@lru_cache(maxsize=256)
def _parse(equation: str, count: int) -> tuple[tuple[Term, ...], Term | None]:
    """The subscripts of the operands and of the result."""
    left, arrow, right = equation.partition("->")
    terms, start = [], 0
    for place, term in enumerate(left.split(",")):
        terms.append(_letters(term, start, f"operand {place}"))
        start += len(term) + 1
    if len(terms) != count:
        which = "fewer" if count < len(terms) else "more"
        raise RuntimeError(
            f"einsum(): {which} operands were provided than specified in the equation"
        )
    return tuple(terms), _letters(right, len(left) + 2, "output") if arrow else None


def _from_sublists(
    operands: tuple[Any, ...],
) -> tuple[tuple[Term, ...], Term | None, list[Any]]:
    """einsum(a, [0, 1], b, [1, 2], [0, 2]): numbers as subscripts."""

    def labels(numbers: Any) -> Term:
        return tuple(ELLIPSIS if i is Ellipsis else _numbered(int(i)) for i in numbers)

    pairs = len(operands) // 2
    tensors = [operands[2 * i] for i in range(pairs)]
    terms = tuple(labels(operands[2 * i + 1]) for i in range(pairs))
    return terms, labels(operands[-1]) if len(operands) % 2 else None, tensors


def _numbered(number: int) -> str:
    if not 0 <= number < 52:
        raise RuntimeError(
            f"einsum(): subscripts in the sublist format must be in the range [0, 52), got {number}"
        )
    return chr(ord("A") + number) if number < 26 else chr(ord("a") + number - 26)


def _without_ellipses(terms: list[Labels], shapes: tuple[Shape, ...]) -> int:
    """Replace each ellipsis by numbered dimensions, counted from the right; returns how many."""
    widest = 0
    for place, (labels, shape) in enumerate(zip(terms, shapes)):
        n = len(shape)
        if ELLIPSIS not in labels:
            if len(labels) != n:
                raise RuntimeError(
                    f"einsum(): the number of subscripts in the equation ({len(labels)}) does not "
                    f"match the number of dimensions ({n}) for operand {place} and no ellipsis was "
                    "given"
                )
            continue
        extra = n - len(labels) + 1
        if extra < 0:
            raise RuntimeError(
                f"einsum(): the number of subscripts in the equation ({len(labels) - 1}) is more "
                f"than the number of dimensions ({n}) for operand {place}"
            )
        at = labels.index(ELLIPSIS)
        terms[place] = [*labels[:at], *range(-extra, 0), *labels[at + 1 :]]
        widest = max(widest, extra)
    return widest


def _output(terms: list[Labels], given: Term | None, widest: int) -> Labels:
    seen = [label for labels in terms for label in labels]
    if given is None:
        once = sorted(s for s in set(seen) if isinstance(s, str) and seen.count(s) == 1)
        return [*range(-widest, 0), *once]
    result: Labels = []
    for label in given:
        if label == ELLIPSIS:
            result.extend(range(-widest, 0))
            continue
        if label in result:
            raise RuntimeError(
                f"einsum(): output subscript {label} appears more than once in the output"
            )
        if label not in seen:
            raise RuntimeError(
                f"einsum(): output subscript {label} does not appear in the equation for any "
                "input operand"
            )
        result.append(label)
    return result


def _check_sizes(terms: list[Labels], shapes: tuple[Shape, ...]) -> None:
    known: dict[Any, int] = {}
    for place, (labels, shape) in enumerate(zip(terms, shapes)):
        for label, n in zip(labels, shape):
            size = known.setdefault(label, n)
            if size == 1:
                known[label] = n
            elif n not in (1, size):
                what = f"subscript {label}" if isinstance(label, str) else "ellipsis"
                raise RuntimeError(
                    f"einsum(): {what} has size {n} for operand {place} which does not broadcast "
                    f"with previously seen size {size}"
                )


class Plan:
    """What to call on which tensors, one after the other.

    Attributes:
        steps: a method's name, the place of the tensor it is a method of, that of another operand
            or -1, and the other arguments. Each result gets the next place; each is used once.
    """

    def __init__(self, operands: int) -> None:
        self.steps: list[tuple[str, int, int, tuple[Any, ...]]] = []
        self._places = operands

    def add(self, name: str, first: int, second: int, args: tuple[Any, ...], shape: Any) -> Sketch:
        """Another step, whose result has this shape."""
        self.steps.append((name, first, second, args))
        self._places += 1
        return Sketch(self, self._places - 1, tuple(shape))

    def run(self, tensors: list[Any]) -> Any:
        """The result of the last step, or the only operand where there are no steps."""
        values = [*tensors]
        for name, first, second, args in self.steps:
            method = getattr(values[first], name)
            values[first] = None  # nothing is kept for longer than it is needed
            values.append(method(*args) if second < 0 else method(values[second]))
        return values[-1]


class Sketch:
    """An operand or a result while a plan is made: its shape, and its place among the values."""

    def __init__(self, plan: Plan, place: int, shape: tuple[int, ...]) -> None:
        self.plan, self.place, self.shape = plan, place, shape

    def _step(self, name: str, shape: Any, *args: Any) -> Sketch:
        return self.plan.add(name, self.place, -1, args, shape)

    def diagonal(self, first: int, second: int) -> Sketch:
        """Two dimensions become one, the last."""
        rest = [n for d, n in enumerate(self.shape) if d not in (first, second)]
        return self._step("diagonal", (*rest, self.shape[first]), 0, first, second)

    def without(self, name: str, dims: list[int]) -> Sketch:
        """Some dimensions summed or squeezed."""
        rest = [n for d, n in enumerate(self.shape) if d not in dims]
        return self._step(name, rest, dims)

    def permute(self, dims: list[int]) -> Sketch:
        """The dimensions in another order, itself where that is its own."""
        if dims == list(range(len(dims))):
            return self
        return self._step("permute", [self.shape[d] for d in dims], dims)

    def reshape(self, *shape: int) -> Sketch:
        """In another shape, itself where that is its own."""
        return self if self.shape == shape else self._step("reshape", shape, shape)

    def by(self, name: str, other: Sketch, *shape: int) -> Sketch:
        """The product with another, of this shape."""
        return self.plan.add(name, self.place, other.place, (), shape)


def _diagonals(part: Sketch, labels: Labels) -> tuple[Sketch, Labels]:
    """Subscripts that repeat within one operand, as diagonals."""
    labels = list(labels)
    for label in dict.fromkeys(labels):
        while labels.count(label) > 1:
            first = labels.index(label)
            second = labels.index(label, first + 1)
            a, b = part.shape[first], part.shape[second]
            if a != b:
                raise RuntimeError(
                    f"einsum(): subscript {label} is repeated for operand but the sizes don't "
                    f"match, {b} != {a}"
                )
            part = part.diagonal(first, second)
            labels = [s for d, s in enumerate(labels) if d not in (first, second)] + [label]
    return part, labels


def _sum_out(part: Sketch, labels: Labels, keep: set[Any]) -> tuple[Sketch, Labels]:
    """Sum over the dimensions that nobody needs any more."""
    drop = [d for d, label in enumerate(labels) if label not in keep]
    if not drop:
        return part, labels
    return part.without("sum", drop), [label for label in labels if label in keep]


def _ordered(part: Sketch, labels: Labels, order: Labels) -> Sketch:
    """The dimensions in another order."""
    return part.permute([labels.index(label) for label in order])


def _spread_ones(part: Sketch, labels: Labels, sizes: dict[Any, int]) -> tuple[Sketch, Labels]:
    """Drop dimensions of size 1 that the other operand has in full size."""
    drop = [d for d, s in enumerate(labels) if part.shape[d] == 1 and sizes.get(s, 1) != 1]
    if not drop:
        return part, labels
    return part.without("squeeze", drop), [s for d, s in enumerate(labels) if d not in drop]


def _pair(
    a: Sketch, left: Labels, b: Sketch, right: Labels, keep: set[Any]
) -> tuple[Sketch, Labels]:
    """The product of two operands, summed over the subscripts that only they have."""
    sizes_a, sizes_b = dict(zip(left, a.shape)), dict(zip(right, b.shape))
    a, left = _spread_ones(a, left, sizes_b)
    b, right = _spread_ones(b, right, sizes_a)
    a, left = _sum_out(a, left, keep | set(right))
    b, right = _sum_out(b, right, keep | set(left))
    both = [s for s in left if s in right]
    batch, summed = [s for s in both if s in keep], [s for s in both if s not in keep]
    rows, columns = [s for s in left if s not in both], [s for s in right if s not in both]
    sizes = {**dict(zip(left, a.shape)), **dict(zip(right, b.shape))}

    def shape(labels: Labels) -> list[int]:
        return [sizes[s] for s in labels]

    def count(labels: Labels) -> int:
        return math.prod(shape(labels))

    made = batch + rows + columns
    if not summed:  # nothing to add up: a product with broadcasting
        wide = _ordered(a, left, batch + rows)
        wide = wide.reshape(*shape(batch + rows), *[1] * len(columns))
        tall = _ordered(b, right, batch + columns)
        tall = tall.reshape(*shape(batch), *[1] * len(rows), *shape(columns))
        return wide.by("mul", tall, *shape(made)), made
    sides = (count(rows), count(summed)), (count(summed), count(columns))
    many, name = ((count(batch),), "bmm") if batch else ((), "matmul")
    wide = _ordered(a, left, batch + rows + summed).reshape(*many, *sides[0])
    tall = _ordered(b, right, batch + summed + columns).reshape(*many, *sides[1])
    product = wide.by(name, tall, *many, sides[0][0], sides[1][1])
    return product.reshape(*shape(made)), made


@lru_cache(maxsize=512)
def _plan(written: tuple[Term, ...], given: Term | None, shapes: tuple[Shape, ...]) -> Plan:
    """How to compute an equation of operands of these shapes."""
    terms: list[Labels] = [[*term] for term in written]
    widest = _without_ellipses(terms, shapes)
    output = _output(terms, given, widest)
    _check_sizes(terms, shapes)
    plan = Plan(len(shapes))
    sketches = [Sketch(plan, place, shape) for place, shape in enumerate(shapes)]
    parts = [_diagonals(part, labels) for part, labels in zip(sketches, terms)]
    result, labels = parts[0]
    for place in range(1, len(parts)):
        needed = set(output).union(*(rest for _, rest in parts[place + 1 :]))
        first, second = (result, labels), parts[place]
        own = [s for s in output if (s in labels) != (s in second[1])]
        if own and own[0] in second[1]:  # so that the product comes in the order of the output
            first, second = second, first
        result, labels = _pair(*first, *second, needed)
    result, labels = _sum_out(result, labels, set(output))
    result = _ordered(result, labels, output)
    if not plan.steps:
        result._step("view", result.shape, result.shape)
    return plan


@public(
    samples=lambda: [
        S("ij,jk->ik", normal(2, 3), normal(3, 4)),
        S("ij,jk", normal(2, 3), normal(3, 4)),
        S("bij,bjk->bik", normal(2, 3, 4), normal(2, 4, 2)),
        S("bhid,bhjd->bhij", normal(2, 2, 3, 4), normal(2, 2, 3, 4)),
        S("ii", normal(3, 3)),
        S("ii->i", normal(3, 3)),
        S("iji->j", normal(3, 2, 3)),
        S("ij->ji", normal(2, 3)),
        S("ij->", normal(2, 3)),
        S("i,j->ij", normal(2), normal(3)),
        S("i,i->i", normal(3), normal(3)),
        S("ij,kj,lk->il", normal(2, 3), normal(4, 3), normal(2, 4)),
        S("...ij->...ji", normal(2, 3, 4)),
        S("...i,i->...", normal(2, 3, 4), normal(4)),
        S("i...,i...->...", normal(2, 3, 4), normal(2, 4)),
        S("bij,bjk->b", normal(2, 3, 4), normal(2, 4, 3)),
        S("ij,j->i", normal(2, 3), normal(1)),
        S("i j, j k -> k i", normal(2, 3), normal(3, 4)),
        S(normal(2, 3), [0, 1], normal(3, 4), [1, 2], [0, 2]),
        S("", normal()),
        S("i,->i", normal(3), normal()),
    ],
    errors=lambda: [
        S("ij,kj->ik", normal(2, 3), normal(3, 4)),
        S("ij,j->ik", normal(2, 3), normal(3)),
        S("ij->iij", normal(2, 3)),
        S("ij", normal(3)),
        S("ij,jk->ik", normal(2, 3)),
        S("i1->i", normal(2, 3)),
        S("ij->i->", normal(2, 3)),
        S("ii->i", normal(2, 3)),
    ],
    autocast=("", "lower"),
)
def einsum(equation: Any, *operands: Any) -> Tensor:
    """Products of the operands summed over subscripts, as in Einstein's notation.

    The equation names every dimension of every operand by a letter (``...`` stands for any
    number of them); dimensions whose letter is not behind ``->`` are summed. Without ``->``,
    letters that occur once remain, in alphabetical order.

    >>> import gradlite
    >>> gradlite.einsum("ij,jk->ik", gradlite.ones(2, 3), gradlite.ones(3, 1))
    tensor([[3.],
            [3.]])

    Raises:
        RuntimeError: the equation does not fit the operands.
    """
    if not isinstance(equation, str):
        if not isinstance(equation, Tensor):
            raise TypeError(
                "einsum(): argument 'equation' (position 1) must be str, not "
                f"{equation.__class__.__name__}"
            )
        terms, given, tensors = _from_sublists((equation, *operands))
    else:
        if not operands:
            raise ValueError(
                "einsum(): must specify the equation string and at least one operand, or at least "
                "one operand and its subscripts list"
            )
        if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
            operands = tuple(operands[0])
        tensors = list(operands)
        terms, given = _parse(equation, len(tensors))
    if not tensors:
        raise RuntimeError("einsum(): must provide at least one operand")
    plan = _plan(terms, given, tuple([tensor.array.shape for tensor in tensors]))
    for tensor in tensors[1:]:
        if tensor.array.dtype != tensors[0].array.dtype:
            raise RuntimeError(
                f"expected scalar type {type_name(tensors[0].array.dtype)} but found "
                f"{type_name(tensor.array.dtype)}"
            )
    return plan.run(tensors)  # type: ignore[no-any-return]
