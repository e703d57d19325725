"""Exponential families: what their log normalizers say of them."""

from __future__ import annotations

from typing import Any

from gradlite.autograd import grad
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.utils import Unsaid
from gradlite.grad_mode import enable_grad

__all__ = ["ExponentialFamily"]


class ExponentialFamily(Distribution):
    """A distribution with a density of the form exp(<t(x), theta> - F(theta) + k(x)).

    A subclass has the natural parameters theta, as a tuple of tensors ``_natural_params``, a method
    ``_log_normalizer(*theta)`` for F, and the mean of k, ``_mean_carrier_measure``. The entropy and
    the divergence of two members of a family then follow from the gradient of F, which is the mean
    of t(x): Nielsen and Nock, "Entropies and cross-entropies of exponential families", 2010.

    >>> import gradlite
    >>> from gradlite.distributions import Exponential
    >>> ExponentialFamily.entropy(Exponential(2.0)).detach(), Exponential(2.0).entropy()
    (tensor(0.3069), tensor(0.3069))
    """

    _natural_params: Any = Unsaid()
    _mean_carrier_measure: Any = Unsaid()

    def _log_normalizer(self, *natural_params: Any) -> Any:
        raise NotImplementedError

    def _means(self) -> tuple[list[Any], Any, Any]:
        """Natural parameters, the log normalizer, and the means of t(x)."""
        with enable_grad():
            given = self._natural_params
            params = [p if p.requires_grad else p.detach().requires_grad_() for p in given]
            normalizer = self._log_normalizer(*params)
            return params, normalizer, grad(normalizer.sum(), params, create_graph=True)

    def entropy(self) -> Any:
        measure = self._mean_carrier_measure
        params, result, means = self._means()
        for param, mean in zip(params, means):
            result = result - (param * mean).reshape((*self._batch_shape, -1)).sum(-1)
        return result - measure
