"""Transforms of all real numbers onto the sets where parameters and values lie.

``transform_to(constraint)`` is for optimizers: every parameter that they may come to becomes one
of the set. ``biject_to(constraint)`` has an inverse and a Jacobian, as samplers need them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gradlite.distributions import constraints, transforms
from gradlite.distributions.transform import Transform, is_number

__all__ = ["ConstraintRegistry", "biject_to", "transform_to"]

Factory = Callable[[Any], Transform]


class ConstraintRegistry:
    """Transforms by the classes of the constraints whose sets they lead to.

    >>> import gradlite
    >>> from gradlite.distributions import Normal, transform_to
    >>> transform_to(Normal.arg_constraints["scale"])(gradlite.tensor([-1.0, 0.0]))
    tensor([0.3679, 1.0000])
    """

    def __init__(self) -> None:
        self._registry: dict[type, Factory] = {}

    def register(self, constraint: Any, factory: Factory | None = None) -> Any:
        """Register a function that makes the transform of a constraint; also as a decorator.

        Args:
            constraint: a class of constraints, or one of that class.
            factory: the function.

        Raises:
            TypeError: something that is no constraint.
        """
        if factory is None:
            return lambda function: self.register(constraint, function)
        cls = type(constraint) if isinstance(constraint, constraints.Constraint) else constraint
        if not (isinstance(cls, type) and issubclass(cls, constraints.Constraint)):
            raise TypeError(
                "Expected constraint to be either a Constraint subclass or instance, but got "
                f"{constraint}"
            )
        self._registry[cls] = factory
        return factory

    def __call__(self, constraint: Any) -> Any:
        """The transform onto a constraint's set.

        Raises:
            NotImplementedError: nothing is registered for the constraint's class.
        """
        factory = self._registry.get(type(constraint))
        if factory is None:
            raise NotImplementedError(f"Cannot transform {type(constraint).__name__} constraints")
        return factory(constraint)


biject_to = ConstraintRegistry()
transform_to = ConstraintRegistry()


def _for_both(*kinds: Any) -> Callable[[Factory], Factory]:
    def enter(factory: Factory) -> Factory:
        for kind in kinds:
            for registry in (biject_to, transform_to):
                registry.register(kind, factory)
        return factory

    return enter


@_for_both(constraints.real)
def _onto_the_reals(constraint: Any) -> Any:
    return transforms.identity_transform


@_for_both(constraints.greater_than, constraints.greater_than_eq)
def _onto_a_ray(constraint: Any) -> Any:
    shift = transforms.AffineTransform(constraint.lower_bound, 1)
    return transforms.ComposeTransform([transforms.ExpTransform(), shift])


@_for_both(constraints.less_than)
def _onto_a_ray_to_the_left(constraint: Any) -> Any:
    shift = transforms.AffineTransform(constraint.upper_bound, -1)
    return transforms.ComposeTransform([transforms.ExpTransform(), shift])


@_for_both(constraints.interval, constraints.half_open_interval)
def _onto_an_interval(constraint: Any) -> Any:
    low, high = constraint.lower_bound, constraint.upper_bound
    squash = transforms.SigmoidTransform()
    if is_number(low) and is_number(high) and (low, high) == (0, 1):
        return squash
    return transforms.ComposeTransform([squash, transforms.AffineTransform(low, high - low)])


@_for_both(constraints.corr_cholesky)
def _onto_factors_of_correlations(constraint: Any) -> Any:
    return transforms.CorrCholeskyTransform()


biject_to.register(constraints.simplex, lambda _: transforms.StickBreakingTransform())
transform_to.register(constraints.simplex, lambda _: transforms.SoftmaxTransform())
transform_to.register(constraints.lower_cholesky, lambda _: transforms.LowerCholeskyTransform())
for _kind in (constraints.positive_definite, constraints.positive_semidefinite):
    transform_to.register(_kind, lambda _: transforms.PositiveDefiniteTransform())


def _of_other_constraints(registry: ConstraintRegistry) -> None:
    """Constraints that are made of others, to whose transforms the same registry leads."""

    def independent(constraint: Any) -> Any:
        base = registry(constraint.base_constraint)
        return transforms.IndependentTransform(base, constraint.reinterpreted_batch_ndims)

    def cat(constraint: Any) -> Any:
        parts = [registry(part) for part in constraint.cseq]
        return transforms.CatTransform(parts, constraint.dim, constraint.lengths)

    def stack(constraint: Any) -> Any:
        parts = [registry(part) for part in constraint.cseq]
        return transforms.StackTransform(parts, constraint.dim)

    registry.register(constraints.independent, independent)
    registry.register(constraints.cat, cat)
    registry.register(constraints.stack, stack)


_of_other_constraints(biject_to)
_of_other_constraints(transform_to)
