"""Transforms beside PyTorch's, and what distributions become of them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gradlite
from tests.oracle import outcome_of, same, torch

X = np.array([[-1.5, 0.25, 2.0], [0.5, -0.75, 1.25]])
MATRICES = np.arange(18.0).reshape(2, 3, 3) / 9 - 1


def constant(T: Any, *values: float) -> Any:
    return T.tensor(values, dtype=T.float64)


TRANSFORMS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "exp": (lambda T: T.distributions.ExpTransform(), X),
    "sigmoid": (lambda T: T.distributions.SigmoidTransform(), X),
    "tanh": (lambda T: T.distributions.TanhTransform(), X),
    "softplus": (lambda T: T.distributions.SoftplusTransform(), X),
    "abs": (lambda T: T.distributions.AbsTransform(), X),
    "power": (lambda T: T.distributions.PowerTransform(constant(T, 2.0, 3.0, -1.0)), abs(X)),
    "affine": (lambda T: T.distributions.AffineTransform(1.0, -2.0), X),
    "affine of tensors": (
        lambda T: T.distributions.AffineTransform(constant(T, 1.0), constant(T, 2.0, -3.0, 1.0)),
        X,
    ),
    "affine of vectors": (
        lambda T: T.distributions.AffineTransform(0.5, constant(T, 2.0, -3.0, 1.0), event_dim=1),
        X,
    ),
    "affine of vectors by a number": (
        lambda T: T.distributions.AffineTransform(0.5, 3.0, event_dim=1),
        X,
    ),
    "softmax": (lambda T: T.distributions.SoftmaxTransform(), X),
    "stick breaking": (lambda T: T.distributions.StickBreakingTransform(), X),
    "lower cholesky": (lambda T: T.distributions.LowerCholeskyTransform(), MATRICES),
    "reshape": (lambda T: T.distributions.ReshapeTransform((3,), (3, 1)), X),
    "independent": (
        lambda T: T.distributions.IndependentTransform(T.distributions.ExpTransform(), 1),
        X,
    ),
    "cumulative": (
        lambda T: T.distributions.CumulativeDistributionTransform(T.distributions.Normal(0.5, 2.0)),
        X,
    ),
    "inverse": (lambda T: T.distributions.ExpTransform().inv, abs(X)),
    "composed": (
        lambda T: T.distributions.ComposeTransform(
            [T.distributions.AffineTransform(0.5, 2.0), T.distributions.TanhTransform()]
        ),
        X,
    ),
    "composed of vectors": (
        lambda T: T.distributions.ComposeTransform(
            [T.distributions.ExpTransform(), T.distributions.StickBreakingTransform()]
        ),
        X,
    ),
    "positive definite": (lambda T: T.distributions.PositiveDefiniteTransform(), MATRICES),
    "correlations": (lambda T: T.distributions.CorrCholeskyTransform(), X),
    "concatenated": (
        lambda T: T.distributions.CatTransform(
            [T.distributions.ExpTransform(), T.distributions.TanhTransform()], 1, [1, 2]
        ),
        X,
    ),
    "concatenated vectors": (
        lambda T: T.distributions.CatTransform(
            [T.distributions.ExpTransform(), T.distributions.AffineTransform(0.5, 2.0, 1)],
            -1,
            [2, 1],
        ),
        X,
    ),
    "concatenated batches": (
        lambda T: T.distributions.CatTransform(
            [T.distributions.ExpTransform(), T.distributions.AffineTransform(0.5, 2.0, 1)]
        ),
        X,
    ),
    "stacked": (
        lambda T: T.distributions.StackTransform(
            [T.distributions.ExpTransform(), T.distributions.TanhTransform()]
        ),
        X,
    ),
    "stacked at the end": (
        lambda T: T.distributions.StackTransform(
            [T.distributions.ExpTransform(), T.distributions.TanhTransform()] * 2, -1
        ),
        np.stack([X, X, X + 1, X - 1], -1),
    ),
    "nothing": (lambda T: T.distributions.identity_transform, X),
}

transforms = pytest.mark.parametrize("name", TRANSFORMS)


def sloped(T: Any, function: Callable[[Any], Any], x: Any) -> Any:
    """The result of a function, and the gradient of a weighted sum of it."""
    leaf = T.tensor(np.asarray(x), requires_grad=True)
    result = outcome_of(lambda: function(leaf))
    if isinstance(result, Exception) or not result.requires_grad:
        return result
    weights = T.linspace(0.5, 1.5, result.numel(), dtype=result.dtype).reshape(result.shape)
    (grad,) = T.autograd.grad((result * weights).sum(), leaf, allow_unused=True)
    return result.detach(), grad if grad is None else grad.detach()


@transforms
def test_values_inverses_and_jacobians(name: str) -> None:
    make, x = TRANSFORMS[name]

    def program(T: Any) -> Any:
        t = make(T)
        y = t(T.tensor(x))
        return (
            sloped(T, t, x),
            sloped(T, t.inv, np.asarray(y)),
            sloped(T, lambda leaf: t.log_abs_det_jacobian(leaf, t(leaf)), x),
            sloped(T, lambda leaf: t.inv.log_abs_det_jacobian(leaf, t.inv(leaf)), np.asarray(y)),
        )

    # CPython's float32 constants of a Normal of numbers; otherwise double precision.
    same(program, rtol=1e-6 if name == "cumulative" else 1e-10, message="type")


@transforms
def test_words_domains_and_shapes(name: str) -> None:
    make, x = TRANSFORMS[name]

    def program(T: Any) -> Any:
        t = make(T)
        y = t(T.tensor(x))
        return [
            (repr(t), repr(t.inv), repr(t.domain), repr(t.codomain), t.bijective),
            outcome_of(lambda: t.event_dim), outcome_of(lambda: t.sign),
            t == make(T), t.inv == t, t.inv.inv is t, t.inv == make(T).inv,
            tuple(t.forward_shape(T.Size(np.shape(x)))), tuple(t.inverse_shape(y.shape)),
            outcome_of(lambda: tuple(t.forward_shape(T.Size(())))),
            type(t.with_cache()).__name__, t.with_cache()._cache_size,
        ]  # fmt: skip

    same(program, message="type")


def test_a_cache_gives_back_what_rounding_has_lost() -> None:
    def program(T: Any) -> Any:
        x = T.tensor([0.5, 30.0])
        plain, cached = T.distributions.TanhTransform(), T.distributions.TanhTransform(cache_size=1)
        y = cached(x)
        assert cached.inv(y) is x
        assert cached(x) is y
        return plain.inv(plain(x)), cached.inv(y.clone())

    same(program)
    same(lambda T: T.distributions.TanhTransform(cache_size=2), raises=ValueError, message="exact")


def squashed(T: Any, **kwargs: Any) -> Any:
    """The policy of soft actor-critic."""
    D = T.distributions
    base = D.Independent(D.Normal(constant(T, 0.5, -1.0), constant(T, 1.0, 0.3)), 1)
    return D.TransformedDistribution(base, [D.TanhTransform(), D.AffineTransform(0.0, 2.0)])


def logistic(T: Any) -> Any:
    D = T.distributions
    base = D.Uniform(constant(T, 0.0, 0.0), constant(T, 1.0, 1.0))
    return D.TransformedDistribution(
        base, [D.SigmoidTransform().inv, D.AffineTransform(constant(T, 1.0, 2.0), 0.5)]
    )


def simplex(T: Any) -> Any:
    D = T.distributions
    base = D.Normal(T.zeros(2, 3, dtype=T.float64), 1.0)
    return D.TransformedDistribution(base, D.StickBreakingTransform())


def widened(T: Any) -> Any:
    D = T.distributions
    return D.TransformedDistribution(
        D.Normal(constant(T, 0.0), 1.0), [D.AffineTransform(constant(T, 1.0, 2.0, 3.0), -0.5)]
    )


@pytest.mark.parametrize(
    ("make", "value"),
    [
        (squashed, [[0.3, -1.0], [1.9, 0.0]]),
        (logistic, [0.3, 1.0]),
        (simplex, [[0.1, 0.2, 0.3, 0.4]]),
        (widened, [0.5, 1.0, 4.0]),
    ],
)
def test_transformed_distributions(make: Any, value: Any) -> None:
    def program(T: Any) -> Any:
        d = make(T)
        x = T.tensor(value, dtype=T.float64)
        wide = d.expand((2, *d.batch_shape))
        return [
            tuple(d.batch_shape), tuple(d.event_shape), repr(d), d.has_rsample, repr(d.support),
            d.log_prob(x), outcome_of(lambda: d.cdf(x)), outcome_of(lambda: d.icdf(x.sigmoid())),
            outcome_of(lambda: d.mean), outcome_of(d.entropy),
            tuple(wide.batch_shape), wide.log_prob(x), tuple(wide.sample((5,)).shape),
            outcome_of(lambda: d.log_prob(x * 100)),
        ]  # fmt: skip

    same(program, message="prefix")
    gradlite.manual_seed(1)
    d = make(gradlite)
    samples = d.rsample((1000,))
    assert d.support.check(samples).all()
    # Of values far out, rounding of the inverse is magnified.
    inner = (samples.abs() < 1.9).all(-1) if make is squashed else slice(None)
    again = d.log_prob(samples[inner])
    assert gradlite.isfinite(again).all()


def test_what_is_no_transform_is_refused() -> None:
    for wrong in (None, [1], 3):

        def program(T: Any, wrong: Any = wrong) -> Any:
            return T.distributions.TransformedDistribution(T.distributions.Normal(0.0, 1.0), wrong)

        same(program, raises=ValueError, message="exact")
    same(
        lambda T: T.distributions.TransformedDistribution(
            T.distributions.Normal(0.0, 1.0), T.distributions.StickBreakingTransform()
        ),
        raises=ValueError,
        message="exact",
    )


def test_the_names_are_pytorchs() -> None:
    for name in ("transforms", "constraints", "constraint_registry"):
        mine = getattr(gradlite.distributions, name)
        assert set(mine.__all__) == set(getattr(torch.distributions, name).__all__)


CONSTRAINTS: dict[str, tuple[Callable[[Any], Any], Any]] = {
    "real": (lambda C: C.real, X),
    "positive": (lambda C: C.positive, X),
    "nonnegative": (lambda C: C.nonnegative, X),
    "greater_than": (lambda C: C.greater_than(2.0), X),
    "less_than": (lambda C: C.less_than(-1.0), X),
    "unit_interval": (lambda C: C.unit_interval, X),
    "interval": (lambda C: C.interval(-1.0, 3.0), X),
    "half_open_interval": (lambda C: C.half_open_interval(0, 1), X),
    "simplex": (lambda C: C.simplex, X),
    "lower_cholesky": (lambda C: C.lower_cholesky, MATRICES),
    "corr_cholesky": (lambda C: C.corr_cholesky, X),
    "positive_definite": (lambda C: C.positive_definite, MATRICES),
    "positive_semidefinite": (lambda C: C.positive_semidefinite, MATRICES),
    "independent": (lambda C: C.independent(C.positive, 1), X),
    "cat": (lambda C: C.cat([C.positive, C.unit_interval], -1, [2, 1]), X),
    "stack": (lambda C: C.stack([C.positive, C.real, C.less_than(1.0)], -1), X),
    "boolean": (lambda C: C.boolean, X),
    "dependent": (lambda C: C.dependent, X),
}


@pytest.mark.parametrize("registry", ["biject_to", "transform_to"])
@pytest.mark.parametrize("name", CONSTRAINTS)
def test_transforms_onto_constraints(name: str, registry: str) -> None:
    make, x = CONSTRAINTS[name]

    def program(T: Any) -> Any:
        constraint = make(T.distributions.constraints)
        t = outcome_of(lambda: getattr(T.distributions, registry)(constraint))
        if isinstance(t, NotImplementedError):
            return t
        y = t(T.tensor(x))
        assert constraint.check(y).all()
        return repr(t), repr(t.domain), repr(t.codomain), y, t.inv(y)

    same(program, message="exact", rtol=1e-10)


def test_registering_transforms() -> None:
    def program(T: Any) -> Any:
        D = T.distributions
        registry = D.constraint_registry.ConstraintRegistry()

        class Even(D.constraints.Constraint):  # type: ignore[misc, name-defined]
            pass

        @registry.register(Even)
        def double(constraint: Any) -> Any:
            return D.AffineTransform(0, 2)

        registry.register(D.constraints.boolean, lambda constraint: D.ExpTransform())
        return [
            double.__name__, registry(Even()).scale, repr(registry(D.constraints.boolean)),
            outcome_of(lambda: registry(D.constraints.real)),
            outcome_of(lambda: registry.register(int, double)),
        ]  # fmt: skip

    same(program, message="exact")


def test_parts_and_triangles_that_do_not_fit() -> None:
    def program(T: Any) -> Any:
        D = T.distributions
        exp, x, m = D.ExpTransform(), T.ones(4), T.ones(3, 2)
        cat, stacked = D.CatTransform([exp, exp], 1), D.StackTransform([exp], -2)
        corr, utils = D.CorrCholeskyTransform(), D.utils
        asked = [
            lambda: D.CatTransform([exp, 3]), lambda: D.CatTransform([exp], 0, [1, 2]),
            lambda: D.StackTransform([None]),
            lambda: cat(x), lambda: cat(m.T), lambda: cat.inv(x), lambda: cat.inv(m.T),
            lambda: cat.log_abs_det_jacobian(x, x), lambda: cat.log_abs_det_jacobian(m, m.T),
            lambda: stacked(x), lambda: stacked(m), lambda: stacked.inv(m),
            lambda: stacked.log_abs_det_jacobian(x, x), lambda: stacked.log_abs_det_jacobian(m, m),
            lambda: corr(T.ones(5)),
            lambda: corr.forward_shape(()), lambda: corr.forward_shape((4,)),
            lambda: corr.inverse_shape((2,)), lambda: corr.inverse_shape((3, 2)),
            lambda: tuple(corr.forward_shape((2, 6))), lambda: tuple(corr.inverse_shape((2, 4, 4))),
            lambda: utils.tril_matrix_to_vec(T.ones(2, 2), 2),
            lambda: utils.vec_to_tril_matrix(T.ones(5)),
        ]  # fmt: skip
        return [outcome_of(f) for f in asked]

    same(program, message="exact")


@pytest.mark.parametrize("diag", [-2, -1, 0])
def test_triangles_of_vectors(diag: int) -> None:
    def program(T: Any) -> Any:
        utils = T.distributions.utils
        vec = T.arange(1.0, 13.0).reshape(2, 6)
        mat = utils.vec_to_tril_matrix(vec, diag)
        return mat, utils.tril_matrix_to_vec(mat, diag)

    same(program)
