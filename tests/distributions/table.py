"""The distributions with parameters and values to try them with."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Case:
    """A distribution's name, its parameters (lists are tensors), and values of its support."""

    name: str
    parameters: dict[str, Any]
    values: Any
    outside: Any = None  # a value beyond the support
    wrong: dict[str, Any] = field(default_factory=dict)  # parameters that are refused
    rtol: float = 1e-10
    dtype: str = "float64"

    @property
    def id(self) -> str:
        dims = np.ndim(next(iter(self.parameters.values())))
        return f"{self.name}-{'-'.join(self.parameters)}-{dims}"

    def tensors(self, T: Any, **changed: Any) -> dict[str, Any]:
        """The parameters, those that are lists as tensors that require grad."""
        return {
            name: T.tensor(value, dtype=getattr(T, self.dtype), requires_grad=True)
            if isinstance(value, list)
            else value
            for name, value in {**self.parameters, **changed}.items()
        }

    def make(self, T: Any, **changed: Any) -> Any:
        """The distribution."""
        return getattr(T.distributions, self.name)(**self.tensors(T, **changed))


PROBABILITIES = [[0.1, 0.6, 0.3], [0.0, 0.25, 0.75]]
LOGITS = [[0.5, -1.0, 2.0], [3.0, 0.0, -0.3]]
COVARIANCE = [[2.0, 0.5], [0.5, 1.0]]
CORRELATIONS = [[1.0, 0.0, 0.0], [0.6, 0.8, 0.0], [-0.48, 0.6, 0.64]]
CASES = [
    Case("Normal", {"loc": [0.5, -1.0], "scale": [[1.0, 2.0], [0.3, 4.0]]}, [0.3, -2.0],
         np.nan, {"scale": [[1.0, 2.0], [0.0, 4.0]]}),
    Case("Normal", {"loc": 1, "scale": 2.5}, [0.3, -2.0], np.nan, {"scale": -1.0}),
    Case("Uniform", {"low": [0.0, -1.0], "high": [1.0, 3.0]}, [0.25, 0.5], [-0.5, 3.5],
         {"low": [0.0, 4.0]}),
    Case("Bernoulli", {"probs": [0.3, 0.5, 1.0]}, [1.0, 0.0, 1.0], 0.5, {"probs": [0.3, 0.5, 1.5]}),
    Case("Bernoulli", {"logits": [-0.3, 0.0, 4.0]}, [1.0, 0.0, 1.0], 2.0,
         {"logits": [np.nan, 0.0, 4.0]}),
    Case("Bernoulli", {"probs": 0.25}, [1.0, 0.0], -1.0, {"probs": -0.5}),
    Case("Categorical", {"probs": PROBABILITIES}, [2, 1], [3, 0], {"probs": [[0.5, 0.5, -0.5]]}),
    Case("Categorical", {"logits": LOGITS}, [[0, 1], [2, 2]], [-1, 0],
         {"logits": [[0.5, np.nan, 0.0]]}),
    Case("Categorical", {"logits": LOGITS[0]}, 2, 1.5),
    Case("OneHotCategorical", {"probs": PROBABILITIES}, [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
         [[0.0, 1.0, 1.0], [0.0, 1.0, 0.0]], {"probs": [[0.5, 0.5, -0.5]]}),
    Case("OneHotCategorical", {"logits": LOGITS}, [[0.0, 0.0, 1.0], [0.0, 1.0, 0.0]],
         [0.5, 0.5, 0.0]),
    Case("OneHotCategoricalStraightThrough", {"logits": LOGITS[0]}, [0.0, 0.0, 1.0]),
    Case("Laplace", {"loc": [0.5, -1.0], "scale": [[1.0, 2.0], [0.3, 4.0]]}, [0.3, -2.0], np.nan,
         {"scale": [0.0, 1.0]}),
    Case("Exponential", {"rate": [0.5, 3.0]}, [0.0, 2.0], -1.0, {"rate": [0.0, 3.0]}),
    Case("Cauchy", {"loc": [0.5, -1.0], "scale": [1.0, 2.0]}, [0.3, -2.0], np.nan,
         {"scale": [1.0, -2.0]}),
    Case("Gumbel", {"loc": [0.5, -1.0], "scale": [1.0, 2.0]}, [0.3, -2.0], np.nan,
         {"scale": [1.0, -2.0]}),
    Case("LogNormal", {"loc": [0.5, -1.0], "scale": [1.0, 0.4]}, [0.3, 2.0], -1.0,
         {"scale": [1.0, -2.0]}),
    Case("HalfNormal", {"scale": [1.0, 0.4]}, [0.3, 2.0], -1.0, {"scale": [1.0, -2.0]}),
    Case("Gamma", {"concentration": [0.3, 2.0, 40.0], "rate": [1.0, 0.5, 3.0]}, [0.1, 3.0, 12.0],
         -1.0, {"rate": [1.0, 0.0, 3.0]}, rtol=1e-8),
    Case("Chi2", {"df": [0.6, 5.0]}, [0.1, 3.0], -1.0, {"df": [0.6, -5.0]}, rtol=1e-8),
    Case("Beta", {"concentration1": [0.5, 2.0], "concentration0": [0.7, 5.0]}, [0.1, 0.4], 1.5,
         {"concentration0": [0.7, 0.0]}, rtol=1e-8),
    Case("Beta", {"concentration1": 2.0, "concentration0": 3.0}, [0.1, 0.4], 1.5,
         {"concentration0": 0.0}, rtol=5e-6),
    Case("Dirichlet", {"concentration": [[0.5, 1.0, 3.0], [0.2, 0.9, 0.4]]}, [0.1, 0.3, 0.6],
         [0.1, 0.3, 0.7], {"concentration": [[0.5, -1.0, 3.0]]}, rtol=1e-8),
    Case("StudentT", {"df": [0.5, 1.5, 6.0], "loc": [0.0, 1.0, 2.0], "scale": 2.0},
         [0.1, -3.0, 12.0], np.nan, {"df": [0.0, 1.5, 6.0]}, rtol=1e-8),
    Case("Poisson", {"rate": [0.5, 7.0, 30.0, 1e4]}, [0.0, 4.0, 33.0, 9990.0], 0.5,
         {"rate": [0.5, 7.0, -1.0, 1e4]}),
    Case("Geometric", {"probs": [0.2, 0.9, 1.0]}, [3.0, 1.0, 0.0], 0.5, {"probs": [0.2, 0.0, 1.0]}),
    Case("Geometric", {"logits": [0.2, -1.5]}, [3.0, 1.0], -1.0),
    Case("Binomial", {"total_count": [5, 5, 5], "probs": [0.2, 0.5, 0.9]}, [0.0, 3.0, 5.0], 6.0,
         {"probs": [0.2, 1.5, 1.0]}),
    Case("Binomial", {"total_count": 7, "logits": [0.2, 0.0, -2.0]}, [0.0, 3.0, 7.0], 0.5,
         {"total_count": -1}),
    Case("Binomial", {"total_count": [30, 400, 4000], "probs": [0.4, 0.97, 0.01]},
         [10.0, 390.0, 37.0]),
    Case("Multinomial", {"total_count": 6, "probs": PROBABILITIES}, [[1.0, 3.0, 2.0]] * 2,
         [[1.0, 3.0, 4.0]] * 2, {"probs": [[-0.5, 0.5, 1.0]]}, rtol=1e-7),
    Case("Multinomial", {"total_count": 4, "logits": LOGITS[0]}, [1.0, 3.0, 0.0], rtol=1e-7),
    Case("MultivariateNormal", {"loc": [0.5, -1.0], "covariance_matrix": COVARIANCE}, [0.3, -2.0],
         [0.3, np.nan], {"covariance_matrix": [[1.0, 0.5], [0.2, 1.0]]}),
    Case("MultivariateNormal", {"loc": [[0.5, -1.0], [1.0, 2.0]], "precision_matrix": COVARIANCE},
         [0.3, -2.0], [0.3, np.nan], {"precision_matrix": [[1.0, 0.5], [0.0, 1.0]]}),
    Case("MultivariateNormal", {"loc": [0.5, -1.0], "scale_tril": [[[1.0, 0.0], [0.3, 2.0]]] * 2},
         [0.3, -2.0], [np.nan, 0.0], {"scale_tril": [[1.0, 0.0], [0.3, -2.0]]}),
    Case("RelaxedBernoulli", {"temperature": [0.7], "probs": [0.3, 0.5, 0.9]}, [0.3, 0.01, 0.8],
         1.5, {"probs": [0.3, 0.5, 1.5]}),
    Case("RelaxedBernoulli", {"temperature": [2.0], "logits": [-0.3, 4.0]}, [0.3, 0.9], -0.1),
    Case("RelaxedOneHotCategorical", {"temperature": [0.7], "probs": PROBABILITIES},
         [0.1, 0.3, 0.6], [0.1, 0.3, 0.7], {"probs": [[-0.5, 0.5, 1.0]]}),
    Case("RelaxedOneHotCategorical", {"temperature": [2.0], "logits": LOGITS}, [0.1, 0.3, 0.6]),
    Case("HalfCauchy", {"scale": [1.0, 0.4]}, [0.3, 2.0], -1.0, {"scale": [1.0, -2.0]}),
    Case("Pareto", {"scale": [1.0, 2.0, 0.5], "alpha": [0.7, 1.5, 3.0]}, [1.5, 2.5, 0.6], 0.4,
         {"alpha": [0.0, 1.0, 2.0]}),
    Case("Weibull", {"scale": [1.0, 2.0], "concentration": [0.7, 3.0]}, [0.3, 2.5], -1.0,
         {"scale": [1.0, -2.0]}),
    Case("NegativeBinomial", {"total_count": [0.0, 3.0, 5.5], "probs": [0.2, 0.5, 0.9]},
         [0.0, 2.0, 40.0], -1.0, {"probs": [0.2, 0.5, 1.0]}),
    Case("NegativeBinomial", {"total_count": 4, "logits": [0.2, 0.0, -2.0]}, [0.0, 3.0, 7.0], 0.5,
         {"total_count": -1}),
    # PyTorch's Bessel functions have seven digits.
    Case("VonMises", {"loc": [0.5, -1.0, 3.0], "concentration": [0.3, 2.0, 8.0]},
         [0.3, 7.0, -3.1], np.nan, {"concentration": [0.0, 1.0, 2.0]}, rtol=1e-5),
    Case("LogisticNormal", {"loc": [[0.5, -1.0], [1.0, 0.0]], "scale": [0.7, 2.0]},
         [0.1, 0.3, 0.6], [0.1, 0.3, 0.7], {"scale": [0.7, -2.0]}),
    Case("LowRankMultivariateNormal",
         {"loc": [[0.5, -1.0, 0.0]] * 2, "cov_factor": [[1.0, 0.0], [0.3, 2.0], [-1.0, 0.5]],
          "cov_diag": [0.5, 1.0, 2.0]},
         [0.3, -2.0, 1.0], [np.nan, 0.0, 0.0]),
    Case("InverseGamma", {"concentration": [0.5, 1.5, 4.0], "rate": [1.0, 2.0, 0.5]},
         [0.3, 2.0, 0.1], -1.0, {"rate": [1.0, 0.0, 2.0]}, rtol=1e-8),
    Case("Kumaraswamy", {"concentration1": [0.5, 2.0, 3.0], "concentration0": [0.7, 5.0, 1.5]},
         [0.1, 0.4, 0.9], 1.5, {"concentration0": [0.7, 0.0, 1.0]}, rtol=1e-8),
    Case("FisherSnedecor", {"df1": [1.0, 3.0, 8.0], "df2": [2.0, 3.5, 7.0]}, [0.2, 1.0, 2.5],
         -1.0, {"df1": [1.0, -3.0, 8.0]}, rtol=1e-8),
    Case("LKJCholesky", {"dim": 3, "concentration": [0.5, 2.0]}, CORRELATIONS,
         (np.eye(3) * 2).tolist(), {"concentration": [0.5, 0.0]}),
    Case("LKJCholesky", {"dim": 2}, [[1.0, 0.0], [0.6, 0.8]], None, {"concentration": -1.0}),
    Case("ContinuousBernoulli", {"probs": [0.0, 0.3, 0.4995, 0.5, 0.9]}, [0.1, 0.4, 0.9, 0.0, 1.0],
         1.5, {"probs": [0.1, np.nan, 0.5, 0.3, 0.2]}, rtol=1e-8),
    Case("ContinuousBernoulli", {"logits": [-3.0, 0.001, 2.0]}, [0.1, 0.4, 0.9], -0.5,
         {"logits": [np.nan, 0.0, 1.0]}),
    # PyTorch's has no densities in double precision.
    Case("GeneralizedPareto", {"loc": [0.0, 0.5, 1.0, 0.0, 0.0], "scale": [1.0, 2.0, 0.5, 1.0, 1.0],
                               "concentration": [0.0, 0.3, -0.5, -0.8, 1.5]},
         [0.3, 2.0, 1.5, 0.7, 8.0], -1.0, {"scale": [1.0, 2.0, 0.0, 1.0, 1.0]}, rtol=1e-5,
         dtype="float32"),
    Case("Wishart", {"df": [3.0, 4.5], "covariance_matrix": COVARIANCE}, [[1.0, 0.2], [0.2, 3.0]],
         [[1.0, 2.0], [2.0, 1.0]], {"covariance_matrix": [[1.0, 0.5], [0.2, 1.0]]}, rtol=1e-8),
    Case("Wishart", {"df": 5, "precision_matrix": COVARIANCE}, [[1.0, 0.2], [0.2, 3.0]],
         [[1.0, 0.2], [0.1, 1.0]], {"df": 1}, rtol=1e-8),
    Case("Wishart", {"df": [3.0, 7.0], "scale_tril": [[1.0, 0.0], [0.3, 2.0]]},
         [[1.0, 0.2], [0.2, 3.0]], None, {"df": [3.0, 0.9]}, rtol=1e-8),
]  # fmt: skip
