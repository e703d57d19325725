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

    @property
    def id(self) -> str:
        dims = np.ndim(next(iter(self.parameters.values())))
        return f"{self.name}-{'-'.join(self.parameters)}-{dims}"

    def tensors(self, T: Any, **changed: Any) -> dict[str, Any]:
        """The parameters, those that are lists as double tensors that require grad."""
        return {
            name: T.tensor(value, dtype=T.float64, requires_grad=True)
            if isinstance(value, list)
            else value
            for name, value in {**self.parameters, **changed}.items()
        }

    def make(self, T: Any, **changed: Any) -> Any:
        """The distribution."""
        return getattr(T.distributions, self.name)(**self.tensors(T, **changed))


PROBABILITIES = [[0.1, 0.6, 0.3], [0.0, 0.25, 0.75]]
LOGITS = [[0.5, -1.0, 2.0], [3.0, 0.0, -0.3]]
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
]  # fmt: skip
