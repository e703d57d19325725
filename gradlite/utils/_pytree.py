"""Nested tuples, lists and dictionaries ("pytrees") taken apart into leaves and put together.

A leaf is everything that is not a tuple, list, dict, OrderedDict, named tuple, or what an op with
named results returns.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from gradlite.return_types import NamedResults

__all__ = [
    "TreeSpec",
    "broadcast_prefix",
    "tree_flatten",
    "tree_leaves",
    "tree_map",
    "tree_unflatten",
]


class TreeSpec:
    """The structure of a pytree without its leaves.

    Slots: ``kind`` (the container's class; None for a leaf), ``context`` (a dict's keys, a named
    tuple's class) and ``children``.
    """

    __slots__ = ("kind", "context", "children", "num_leaves")

    def __init__(self, kind: type | None, context: Any, children: Sequence[TreeSpec]) -> None:
        self.kind, self.context, self.children = kind, context, tuple(children)
        self.num_leaves: int = 1 if kind is None else sum(c.num_leaves for c in self.children)

    def __eq__(self, other: object) -> bool:
        return (
            isinstance(other, TreeSpec)
            and self.kind is other.kind
            and self.context == other.context
            and self.children == other.children
        )

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        if self.kind is None:
            return "*"
        inner = ",\n  ".join(map(repr, self.children))
        return f"TreeSpec({self.kind.__name__}, {self.context}, [{inner}])"


LEAF = TreeSpec(None, None, ())


def _open(tree: Any) -> tuple[Any, Any, list[Any]] | None:
    """The kind, context and children of a container; None for a leaf."""
    kind = tree.__class__
    if kind is tuple or kind is list:
        return kind, None, list(tree)
    if kind is dict or kind is OrderedDict:
        return kind, list(tree), list(tree.values())
    if isinstance(tree, NamedResults):
        return kind, None, list(tree)
    if isinstance(tree, tuple) and hasattr(kind, "_fields"):
        return kind, kind, list(tree)
    return None


def tree_flatten(tree: Any) -> tuple[list[Any], TreeSpec]:
    """The leaves of a pytree from left to right, and its structure.

    >>> tree_flatten({"a": 1, "b": (2, [3])})[0]
    [1, 2, 3]
    """
    leaves: list[Any] = []
    spec = _visit(tree, leaves)
    return leaves, spec


def _visit(part: Any, leaves: list[Any]) -> TreeSpec:
    opened = _open(part)
    if opened is None:
        leaves.append(part)
        return LEAF
    kind, context, children = opened
    return TreeSpec(kind, context, [_visit(child, leaves) for child in children])


def tree_unflatten(leaves: Sequence[Any], spec: TreeSpec) -> Any:
    """The pytree of a structure with these leaves.

    Raises:
        ValueError: the number of leaves is wrong.
    """
    if len(leaves) != spec.num_leaves:
        raise ValueError(
            f"tree_unflatten(leaves, treespec): `leaves` has length {len(leaves)} but the spec "
            f"refers to a pytree that holds {spec.num_leaves} items ({spec})."
        )
    return _build(spec, iter(leaves))


def _build(part: TreeSpec, remaining: Iterator[Any]) -> Any:
    if part.kind is None:
        return next(remaining)
    children = [_build(child, remaining) for child in part.children]
    if part.kind in (dict, OrderedDict):
        return part.kind(zip(part.context, children))
    return part.kind(*children) if part.context is not None else part.kind(children)


def tree_map(function: Callable[[Any], Any], tree: Any) -> Any:
    """The pytree with a function applied to every leaf."""
    leaves, spec = tree_flatten(tree)
    return tree_unflatten([function(leaf) for leaf in leaves], spec)


def tree_leaves(tree: Any) -> list[Any]:
    """The leaves of a pytree from left to right."""
    return tree_flatten(tree)[0]


def broadcast_prefix(prefix: Any, spec: TreeSpec) -> list[Any] | None:
    """One value per leaf of a structure, from a pytree that may end earlier.

    Returns None when the prefix does not fit the structure.

    >>> broadcast_prefix((0, None), tree_flatten((1, {"a": 2, "b": 3}))[1])
    [0, None, None]
    """
    opened = _open(prefix)
    if opened is None:
        return [prefix] * spec.num_leaves
    kind, context, children = opened
    if kind is not spec.kind or context != spec.context or len(children) != len(spec.children):
        return None
    values: list[Any] = []
    for child, part in zip(children, spec.children):
        inner = broadcast_prefix(child, part)
        if inner is None:
            return None
        values.extend(inner)
    return values
