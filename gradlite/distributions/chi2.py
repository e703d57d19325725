"""The chi-squared distribution."""

from __future__ import annotations

from typing import Any, ClassVar

from gradlite.distributions import constraints
from gradlite.distributions.gamma import Gamma

__all__ = ["Chi2"]


class Chi2(Gamma):
    """The chi-squared distribution, of the sum of ``df`` squares of normal numbers.

    Args:
        df: the degrees of freedom, a number or a tensor.
        validate_args: see `Distribution`.

    >>> import gradlite
    >>> gradlite.distributions.Chi2(gradlite.tensor([3.0])).variance
    tensor([6.])
    """

    arg_constraints = {"df": constraints.positive}
    _expands: ClassVar[dict[str, int]] = Gamma._expands

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    @property
    def df(self) -> Any:
        """The degrees of freedom."""
        return self.concentration * 2
