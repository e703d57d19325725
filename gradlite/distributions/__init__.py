"""Probability distributions: samples, log probabilities, entropies, divergences.

>>> import gradlite
>>> policy = gradlite.distributions.Categorical(logits=gradlite.zeros(2, 4))
>>> policy.log_prob(policy.sample())
tensor([-1.3863, -1.3863])
"""

from gradlite.distributions import constraints as constraints
from gradlite.distributions import kl as kl
from gradlite.distributions import utils as utils
from gradlite.distributions.bernoulli import Bernoulli
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.independent import Independent
from gradlite.distributions.kl import kl_divergence, register_kl
from gradlite.distributions.normal import Normal
from gradlite.distributions.one_hot_categorical import (
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from gradlite.distributions.uniform import Uniform

__all__ = [
    "Bernoulli",
    "Categorical",
    "Distribution",
    "Independent",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Uniform",
    "kl_divergence",
    "register_kl",
]
