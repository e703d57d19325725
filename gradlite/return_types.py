"""What ops with several named results return: tuples whose fields have names."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

__all__ = [
    "aminmax",
    "cummax",
    "cummin",
    "frexp",
    "histogram",
    "kthvalue",
    "linalg_cholesky_ex",
    "linalg_eigh",
    "linalg_lstsq",
    "linalg_qr",
    "linalg_slogdet",
    "linalg_svd",
    "max",
    "median",
    "min",
    "mode",
    "nanmedian",
    "qr",
    "sort",
    "svd",
    "topk",
]


class NamedResults(tuple[Any, ...]):
    """A tuple that unpacks and indexes as usual, and whose items are attributes too.

    >>> import gradlite
    >>> result = gradlite.return_types.max((gradlite.tensor(5.0), gradlite.tensor(2)))
    >>> values, indices = result
    >>> result.values is values
    True
    """

    __slots__ = ()
    fields: tuple[str, ...] = ()
    n_fields = n_sequence_fields = 0
    n_unnamed_fields = 0

    def __new__(cls, results: Iterable[Any]) -> Any:
        items = tuple(results)
        if len(items) != cls.n_fields:
            raise TypeError(
                f"gradlite.return_types.{cls.__name__}() takes a {cls.n_fields}-sequence "
                f"({len(items)}-sequence given)"
            )
        return tuple.__new__(cls, items)

    def __getattr__(self, name: str) -> Any:
        try:
            return self[self.fields.index(name)]
        except ValueError:
            raise AttributeError(
                f"'gradlite.return_types.{self.__class__.__name__}' object has no attribute "
                f"'{name}'"
            ) from None

    def __repr__(self) -> str:
        parts = ",\n".join(f"{name}={item!r}" for name, item in zip(self.fields, self))
        return f"gradlite.return_types.{self.__class__.__name__}(\n{parts})"


def _type(name: str, *fields: str) -> Any:
    body: dict[str, Any] = {"__slots__": (), "__module__": __name__}
    body["fields"] = body["__match_args__"] = fields
    body["n_fields"] = body["n_sequence_fields"] = len(fields)
    return type(name, (NamedResults,), body)


aminmax = _type("aminmax", "min", "max")
cummax = _type("cummax", "values", "indices")
cummin = _type("cummin", "values", "indices")
frexp = _type("frexp", "mantissa", "exponent")
histogram = _type("histogram", "hist", "bin_edges")
kthvalue = _type("kthvalue", "values", "indices")
linalg_cholesky_ex = _type("linalg_cholesky_ex", "L", "info")
linalg_eigh = _type("linalg_eigh", "eigenvalues", "eigenvectors")
linalg_lstsq = _type("linalg_lstsq", "solution", "residuals", "rank", "singular_values")
linalg_qr = _type("linalg_qr", "Q", "R")
linalg_slogdet = _type("linalg_slogdet", "sign", "logabsdet")
linalg_svd = _type("linalg_svd", "U", "S", "Vh")
max = _type("max", "values", "indices")
median = _type("median", "values", "indices")
min = _type("min", "values", "indices")
mode = _type("mode", "values", "indices")
nanmedian = _type("nanmedian", "values", "indices")
qr = _type("qr", "Q", "R")
sort = _type("sort", "values", "indices")
svd = _type("svd", "U", "S", "V")
topk = _type("topk", "values", "indices")
