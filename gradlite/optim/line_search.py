"""A line search for the strong Wolfe conditions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Point(NamedTuple):
    """A trial step: its length, the value there, the gradient, and its slope along the line."""

    t: Any
    value: Any
    grad: Any
    slope: Any


def cubic_minimum(a: Point, b: Point, bounds: tuple[Any, Any] | None = None) -> Any:
    """Where the cubic through two points with these slopes is smallest, within bounds."""
    low, high = bounds or (min(a.t, b.t), max(a.t, b.t))
    d1 = a.slope + b.slope - 3 * (a.value - b.value) / (a.t - b.t)
    square = d1**2 - a.slope * b.slope
    if not square >= 0:
        return (low + high) / 2.0
    d2 = square**0.5
    if a.t > b.t:
        a, b = b, a
    t = b.t - (b.t - a.t) * ((b.slope + d2 - d1) / (b.slope - a.slope + 2 * d2))
    return min(max(t, low), high)


def strong_wolfe(
    evaluate: Callable[[Any], tuple[Any, Any, Any]],
    t: Any,
    start: Point,
    largest_direction: Any,
    c1: float = 1e-4,
    c2: float = 0.9,
    tolerance_change: float = 1e-9,
    max_iterations: int = 25,
) -> tuple[Any, Any, Any, int]:
    """Find a step that lowers the value and flattens the slope enough.

    Args:
        evaluate: gives value, gradient and slope of a step length.
        t: the first step length to try.
        start: the point of length 0.
        largest_direction: the largest absolute element of the direction.
        c1, c2: how much lower, how much flatter.
        tolerance_change: give up when the bracket is that small.
        max_iterations: evaluations after the first.

    Returns:
        value, gradient, step length, number of evaluations.

    Source: Nocedal and Wright, "Numerical Optimization", 2nd edition, algorithms 3.5 and 3.6.
    """
    flat_enough = -c2 * start.slope

    def too_high(point: Point) -> Any:
        return point.value > start.value + c1 * point.t * start.slope

    point, before = Point(t, *evaluate(t)), start
    evaluations, iteration = 1, 0
    bracket = [start, point]
    while iteration < max_iterations:
        if too_high(point) or (iteration > 1 and point.value >= before.value):
            bracket = [before, point]
            break
        if abs(point.slope) <= flat_enough:
            return point.value, point.grad, point.t, evaluations
        if point.slope >= 0:
            bracket = [before, point]
            break
        nearest, farthest = point.t + 0.01 * (point.t - before.t), point.t * 10
        t = cubic_minimum(before, point, (nearest, farthest))
        before, point = point, Point(t, *evaluate(t))
        evaluations += 1
        iteration += 1
    else:
        bracket = [start, point]

    # The bracket holds a step that will do: narrow it. bracket[low] is the better end.
    low = 0 if bracket[0].value <= bracket[1].value else 1
    stuck = False
    while iteration < max_iterations:
        left, right = sorted((bracket[0].t, bracket[1].t))
        if (right - left) * largest_direction < tolerance_change:
            break
        t = cubic_minimum(bracket[0], bracket[1])
        # Close to an end twice, or on it: move away by a tenth of the width.
        margin = 0.1 * (right - left)
        if min(right - t, t - left) < margin:
            if stuck or t >= right or t <= left:
                t = right - margin if abs(t - right) < abs(t - left) else left + margin
                stuck = False
            else:
                stuck = True
        else:
            stuck = False
        point = Point(t, *evaluate(t))
        evaluations += 1
        iteration += 1
        high = 1 - low
        if too_high(point) or point.value >= bracket[low].value:
            bracket[high] = point
            low = 0 if bracket[0].value <= bracket[1].value else 1
            continue
        done = abs(point.slope) <= flat_enough
        if not done and point.slope * (bracket[high].t - bracket[low].t) >= 0:
            bracket[high] = bracket[low]
        bracket[low] = point
        if done:
            break
    best = bracket[low]
    return best.value, best.grad, best.t, evaluations
