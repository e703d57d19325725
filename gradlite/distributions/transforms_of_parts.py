"""Transforms of the parts that a tensor is concatenated or stacked of."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gradlite.distributions import constraints
from gradlite.distributions.transform import Transform
from gradlite.distributions.utils import lazy_property, sum_rightmost
from gradlite.ops.joining import cat, stack

__all__ = ["CatTransform", "StackTransform"]


class _OfParts(Transform):
    """Base of both: a transform for each part along a dimension."""

    def __init__(self, tseq: Sequence[Transform], dim: int, cache_size: int) -> None:
        if not all(isinstance(t, Transform) for t in tseq):
            raise AssertionError("All elements of tseq must be Transform instances")
        if cache_size:
            tseq = [t.with_cache(cache_size) for t in tseq]
        super().__init__(cache_size)
        self.transforms, self.dim = list(tseq), dim

    @property
    def bijective(self) -> bool:  # type: ignore[override]
        return all(t.bijective for t in self.transforms)

    def _parts(self, value: Any, name: str, kind: str = "tensor") -> list[Any]:
        """The parts of a value; messages call it by its name and kind."""
        raise NotImplementedError

    def _joined(self, parts: list[Any]) -> Any:
        """The value of parts."""
        raise NotImplementedError

    def _call(self, x: Any) -> Any:
        return self._joined([t(part) for t, part in zip(self.transforms, self._parts(x, "x"))])

    def _inverse(self, y: Any) -> Any:
        return self._joined([t.inv(part) for t, part in zip(self.transforms, self._parts(y, "y"))])

    def _jacobians(self, x: Any, y: Any) -> list[Any]:
        parts = self._parts(x, "x", "x"), self._parts(y, "y", "y")
        return [t.log_abs_det_jacobian(*pair) for t, *pair in zip(self.transforms, *parts)]

    def _check(self, value: Any, name: str, kind: str, wanted: int, told: str) -> None:
        dims = value.dim()
        if not -dims <= self.dim < dims:
            raise AssertionError(f"dim {self.dim} out of range for {kind} with {dims} dimensions")
        found = value.size(self.dim)
        if found != wanted:
            raise AssertionError(f"{name}.size({self.dim}) = {found} must equal {told} {wanted}")


class CatTransform(_OfParts):
    """A transform for each of the parts that values are concatenated of.

    Args:
        tseq: the transforms.
        dim: the dimension along which the parts lie.
        lengths: how long each part is, 1 by default.
        cache_size: of each transform, see `Transform`.

    Raises:
        AssertionError: what is no transform, not as many lengths, and values of another length.

    >>> import gradlite
    >>> from gradlite.distributions import ExpTransform, identity_transform
    >>> t = CatTransform([ExpTransform(), identity_transform], lengths=[1, 2])
    >>> t(gradlite.tensor([0.0, 1.0, 2.0]))
    tensor([1., 1., 2.])
    """

    def __init__(
        self,
        tseq: Sequence[Transform],
        dim: int = 0,
        lengths: Sequence[int] | None = None,
        cache_size: int = 0,
    ) -> None:
        super().__init__(tseq, dim, cache_size)
        count = len(self.transforms)
        self.lengths = [1] * count if lengths is None else list(lengths)
        if len(self.lengths) != count:
            raise AssertionError(f"lengths ({len(self.lengths)}) must match transforms ({count})")

    def _arguments(self) -> tuple[Any, ...]:
        return self.transforms, self.dim, self.lengths

    @lazy_property
    def event_dim(self) -> int:  # type: ignore[override]
        """That of the transform with the most dimensions."""
        return max(t.event_dim for t in self.transforms)

    @lazy_property
    def length(self) -> int:
        """Of all parts together."""
        return sum(self.lengths)

    @constraints.dependent_property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.domain for t in self.transforms], self.dim, self.lengths)

    @constraints.dependent_property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.cat([t.codomain for t in self.transforms], self.dim, self.lengths)

    def _parts(self, value: Any, name: str, kind: str = "tensor") -> list[Any]:
        self._check(value, name, kind, self.length, "length")
        start, parts = 0, []
        for length in self.lengths:
            parts.append(value.narrow(self.dim, start, length))
            start += length
        return parts

    def _joined(self, parts: list[Any]) -> Any:
        return cat(parts, self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        """Concatenated as well, or the sum where a value has all the parts."""
        terms = [
            sum_rightmost(term, self.event_dim - t.event_dim)
            for t, term in zip(self.transforms, self._jacobians(x, y))
        ]
        # Counted from the end of what the sums have left.
        dim = (self.dim if self.dim < 0 else self.dim - x.dim()) + self.event_dim
        return cat(terms, dim) if dim < 0 else sum(terms)


class StackTransform(_OfParts):
    """A transform for each of the parts that values are stacked of.

    Args:
        tseq: the transforms.
        dim: the dimension along which the parts are stacked.
        cache_size: of each transform, see `Transform`.

    Raises:
        AssertionError: what is no transform, and values of another length.

    >>> import gradlite
    >>> from gradlite.distributions import ExpTransform, identity_transform
    >>> t = StackTransform([ExpTransform(), identity_transform])
    >>> t(gradlite.tensor([[0.0, 0.0], [1.0, 2.0]]))
    tensor([[1., 1.],
            [1., 2.]])
    """

    def __init__(self, tseq: Sequence[Transform], dim: int = 0, cache_size: int = 0) -> None:
        super().__init__(tseq, dim, cache_size)

    def _arguments(self) -> tuple[Any, ...]:
        return self.transforms, self.dim

    @constraints.dependent_property
    def domain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.domain for t in self.transforms], self.dim)

    @constraints.dependent_property
    def codomain(self) -> Any:  # type: ignore[override]
        return constraints.stack([t.codomain for t in self.transforms], self.dim)

    def _parts(self, value: Any, name: str, kind: str = "tensor") -> list[Any]:
        self._check(value, name, kind, len(self.transforms), "len(transforms)")
        return list(value.unbind(self.dim))

    def _joined(self, parts: list[Any]) -> Any:
        return stack(parts, self.dim)

    def log_abs_det_jacobian(self, x: Any, y: Any) -> Any:
        return stack(self._jacobians(x, y), self.dim)
