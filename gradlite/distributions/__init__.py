"""Probability distributions: samples, log probabilities, entropies, divergences.

>>> import gradlite
>>> policy = gradlite.distributions.Categorical(logits=gradlite.zeros(2, 4))
>>> policy.log_prob(policy.sample())
tensor([-1.3863, -1.3863])
"""

from gradlite.distributions import constraint_registry as constraint_registry
from gradlite.distributions import constraints as constraints
from gradlite.distributions import divergences as _divergences  # noqa: F401 (registers them)
from gradlite.distributions import divergences_across as _across  # noqa: F401 (registers them)
from gradlite.distributions import kl as kl
from gradlite.distributions import transforms as transforms
from gradlite.distributions import utils as utils
from gradlite.distributions.bernoulli import Bernoulli
from gradlite.distributions.beta import Beta
from gradlite.distributions.binomial import Binomial
from gradlite.distributions.categorical import Categorical
from gradlite.distributions.cauchy import Cauchy
from gradlite.distributions.chi2 import Chi2
from gradlite.distributions.constraint_registry import biject_to, transform_to
from gradlite.distributions.continuous_bernoulli import ContinuousBernoulli
from gradlite.distributions.dirichlet import Dirichlet
from gradlite.distributions.distribution import Distribution
from gradlite.distributions.exp_family import ExponentialFamily
from gradlite.distributions.exponential import Exponential
from gradlite.distributions.fishersnedecor import FisherSnedecor
from gradlite.distributions.gamma import Gamma
from gradlite.distributions.generalized_pareto import GeneralizedPareto
from gradlite.distributions.geometric import Geometric
from gradlite.distributions.gumbel import Gumbel
from gradlite.distributions.half_cauchy import HalfCauchy
from gradlite.distributions.half_normal import HalfNormal
from gradlite.distributions.independent import Independent
from gradlite.distributions.inverse_gamma import InverseGamma
from gradlite.distributions.kl import kl_divergence, register_kl
from gradlite.distributions.kumaraswamy import Kumaraswamy
from gradlite.distributions.laplace import Laplace
from gradlite.distributions.lkj_cholesky import LKJCholesky
from gradlite.distributions.log_normal import LogNormal
from gradlite.distributions.logistic_normal import LogisticNormal
from gradlite.distributions.lowrank_multivariate_normal import LowRankMultivariateNormal
from gradlite.distributions.mixture_same_family import MixtureSameFamily
from gradlite.distributions.multinomial import Multinomial
from gradlite.distributions.multivariate_normal import MultivariateNormal
from gradlite.distributions.negative_binomial import NegativeBinomial
from gradlite.distributions.normal import Normal
from gradlite.distributions.one_hot_categorical import (
    OneHotCategorical,
    OneHotCategoricalStraightThrough,
)
from gradlite.distributions.pareto import Pareto
from gradlite.distributions.poisson import Poisson
from gradlite.distributions.relaxed_bernoulli import RelaxedBernoulli
from gradlite.distributions.relaxed_categorical import RelaxedOneHotCategorical
from gradlite.distributions.studentT import StudentT
from gradlite.distributions.transformed_distribution import TransformedDistribution
from gradlite.distributions.transforms import (
    AbsTransform,
    AffineTransform,
    CatTransform,
    ComposeTransform,
    CorrCholeskyTransform,
    CumulativeDistributionTransform,
    ExpTransform,
    IndependentTransform,
    LowerCholeskyTransform,
    PositiveDefiniteTransform,
    PowerTransform,
    ReshapeTransform,
    SigmoidTransform,
    SoftmaxTransform,
    SoftplusTransform,
    StackTransform,
    StickBreakingTransform,
    TanhTransform,
    Transform,
    identity_transform,
)
from gradlite.distributions.uniform import Uniform
from gradlite.distributions.von_mises import VonMises
from gradlite.distributions.weibull import Weibull
from gradlite.distributions.wishart import Wishart

__all__ = [
    "AbsTransform",
    "AffineTransform",
    "Bernoulli",
    "Beta",
    "Binomial",
    "CatTransform",
    "Categorical",
    "Cauchy",
    "Chi2",
    "ComposeTransform",
    "ContinuousBernoulli",
    "CorrCholeskyTransform",
    "CumulativeDistributionTransform",
    "Dirichlet",
    "Distribution",
    "ExpTransform",
    "Exponential",
    "ExponentialFamily",
    "FisherSnedecor",
    "Gamma",
    "GeneralizedPareto",
    "Geometric",
    "Gumbel",
    "HalfCauchy",
    "HalfNormal",
    "Independent",
    "IndependentTransform",
    "InverseGamma",
    "Kumaraswamy",
    "LKJCholesky",
    "Laplace",
    "LogNormal",
    "LogisticNormal",
    "LowRankMultivariateNormal",
    "LowerCholeskyTransform",
    "MixtureSameFamily",
    "Multinomial",
    "MultivariateNormal",
    "NegativeBinomial",
    "Normal",
    "OneHotCategorical",
    "OneHotCategoricalStraightThrough",
    "Pareto",
    "Poisson",
    "PositiveDefiniteTransform",
    "PowerTransform",
    "RelaxedBernoulli",
    "RelaxedOneHotCategorical",
    "ReshapeTransform",
    "SigmoidTransform",
    "SoftmaxTransform",
    "SoftplusTransform",
    "StackTransform",
    "StickBreakingTransform",
    "StudentT",
    "TanhTransform",
    "Transform",
    "TransformedDistribution",
    "Uniform",
    "VonMises",
    "Weibull",
    "Wishart",
    "biject_to",
    "identity_transform",
    "kl_divergence",
    "register_kl",
    "transform_to",
]
