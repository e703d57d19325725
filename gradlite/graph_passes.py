"""Edges, and what is known of a backward pass while it runs: for its hooks and rules."""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gradlite.graph import Node


class OutputEdge:
    """An edge to one output of a node that has several."""

    __slots__ = ("node", "nr")

    def __init__(self, node: Node, nr: int) -> None:
        self.node, self.nr = node, nr


def node_of(edge: Any) -> Node | None:
    return edge.node if edge.__class__ is OutputEdge else edge


def next_functions(edges: Iterable[Any]) -> tuple[tuple[Node | None, int], ...]:
    """Edges as users see them: each a node and the number of its output."""
    return tuple(
        (None, 0)
        if edge is None
        else (edge.node.shown, edge.nr)
        if edge.__class__ is OutputEdge
        else (edge.shown, 0)
        for edge in edges
    )


def reachable(roots: Iterable[Any], needed: set[Node] | None = None) -> set[Node]:
    """The nodes that some edges lead to, on ways through the needed ones alone."""
    reached: set[Node] = set()
    stack = list(roots)
    while stack:
        found = node_of(stack.pop())
        if found is None or found in reached:
            continue
        if needed is None or found in needed:
            reached.add(found)
            stack.extend(found.edges)
    return reached


class Pass:
    """One backward pass, for the hooks and rules that run in it.

    Attributes:
        to_all: whether it adds arrays to the ``.grad`` of every leaf, and nobody looks at them.
        callbacks: what is to be called when it is over; None where nobody asked for that.
        node: the one whose rule runs, in anomaly mode.
        sums: the gradients that have come so far and wait, by node; None where rules must not
            add to them.
        owned: the nodes whose sum is an array of the pass's own, to which may be added in place.
    """

    __slots__ = (
        "_roots",
        "_needed",
        "_reached",
        "to_all",
        "callbacks",
        "node",
        "sums",
        "owned",
        "depth",
        "__weakref__",
    )

    def __init__(
        self, roots: Iterable[Any], needed: set[Node] | None, to_all: bool, outer: Pass | None
    ) -> None:
        self._roots, self._needed, self.to_all = roots, needed, to_all
        self.depth: int = 0 if outer is None else outer.depth + 1
        self.node: Node | None = None
        self.sums: dict[Node, Any] | None = None
        self.owned: set[Node] = set()
        self._reached: set[Node] | None = None
        self.callbacks: list[Callable[[], Any]] | None = None

    def reaches(self, node: Node) -> bool:
        """Whether the pass will bring a gradient to a node, or has done so."""
        if self._reached is None:
            self._reached = reachable(self._roots, self._needed)
        return node in self._reached

    def is_deep(self) -> bool:
        """Whether passes in its rules had better run in a thread, and on a stack, of their own."""
        return self.depth >= 60


innermost_pass: contextvars.ContextVar[Pass | None] = contextvars.ContextVar(
    "gradlite_innermost_pass", default=None
)
current_pass = innermost_pass.get


# ----------------------------------------------------------------- passes in passes in passes
# What the backend hands in where CUDA is used: a function that runs another on the stream that
# is the current one now, in whatever thread.
on_same_stream: Callable[[Callable[[], Any]], Callable[[], Any]] | None = None


def in_another_thread(run: Callable[[], Any]) -> Any:
    """The value of ``run()``, or its exception, from a thread that starts with an empty stack."""
    answer: list[Any] = []
    context = contextvars.copy_context()
    context.run(innermost_pass.set, None)
    if on_same_stream is not None:
        run = on_same_stream(run)

    def target() -> None:
        try:
            answer.append(context.run(run))
        except BaseException as error:
            answer.extend([None, error])

    thread = threading.Thread(target=target, name="gradlite backward")
    thread.start()
    thread.join()
    if len(answer) > 1:
        raise answer[1]
    return answer[0]
