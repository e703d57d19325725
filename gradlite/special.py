"""Special functions under PyTorch's names: ``gradlite.special.expit``, ``.gammaln``, ..."""

from __future__ import annotations

from gradlite.ops.activation import erf, erfc
from gradlite.ops.arguments import take_arguments
from gradlite.ops.bessel import i0, i0e, i1, i1e
from gradlite.ops.elementwise import exp2, expm1, log1p
from gradlite.ops.elementwise import sigmoid as expit
from gradlite.ops.incomplete_gamma import igamma as gammainc
from gradlite.ops.incomplete_gamma import igammac as gammaincc
from gradlite.ops.out import take_out
from gradlite.ops.rounding import round
from gradlite.ops.softmax import log_softmax, logsumexp, softmax
from gradlite.ops.special import (
    digamma,
    entr,
    erfinv,
    logit,
    ndtr,
    ndtri,
    polygamma,
    sinc,
    xlog1py,
    xlogy,
)
from gradlite.ops.special import lgamma as gammaln
from gradlite.ops.special import mvlgamma as multigammaln

__all__ = [
    "digamma",
    "entr",
    "erf",
    "erfc",
    "erfinv",
    "exp2",
    "expit",
    "expm1",
    "gammainc",
    "gammaincc",
    "gammaln",
    "i0",
    "i0e",
    "i1",
    "i1e",
    "log1p",
    "log_softmax",
    "logit",
    "logsumexp",
    "multigammaln",
    "ndtr",
    "ndtri",
    "polygamma",
    "psi",
    "round",
    "sinc",
    "softmax",
    "xlog1py",
    "xlogy",
]

psi = digamma
take_out(globals(), without=("log_softmax", "softmax"), prefix="special_")
take_arguments(globals(), "special_")
