"""Decompositions under the names that they had before ``gradlite.linalg``."""

from __future__ import annotations

import warnings
from typing import Any

from gradlite import return_types
from gradlite.ops.factorizations import linalg_qr, svd_of, svdvals
from gradlite.ops.samples import S, normal
from gradlite.ops.table import public
from gradlite.tensor import Tensor

__all__ = ["qr", "svd"]


@public(
    samples=lambda: [S(normal(3, 3)), S(normal(4, 2)), S(normal(2, 2, 3)), S(normal(3, 2), True)],
    torch="",  # signs are the library's: tests/ops/test_older_linalg.py compares what has none
    method=True,
    autocast=("float32", ""),
)
def svd(input: Tensor, some: bool = True, compute_uv: bool = True) -> Any:
    """U, S and V of ``input = U diag(S) V^T``; see ``linalg.svd``, which gives V^T.

    ``some`` is the contrary of its ``full_matrices``. U and V are zeros with ``compute_uv=False``.

    >>> import gradlite
    >>> gradlite.svd(gradlite.tensor([[0.0, 2.0], [3.0, 0.0]])).S
    tensor([3., 2.])
    """
    shape: Any = input.shape
    if len(shape) < 2:
        raise RuntimeError(
            f"linalg.svd: input should have at least 2 dimensions, but has {len(shape)} dimensions "
            "instead"
        )
    if not compute_uv:
        zeros: Any = input.new_zeros  # type: ignore[attr-defined]
        u, v = (zeros((*shape[:-2], n, n)) for n in shape[-2:])
        return return_types.svd((u, svdvals(input), v))
    u, s, vh = svd_of("linalg.svd", input, not some)
    return return_types.svd((u, s, vh.mT))


DEPRECATED = (
    "gradlite.qr is deprecated in favor of gradlite.linalg.qr and will be removed in a future "
    "PyTorch release.\nThe boolean parameter 'some' has been replaced with a string parameter "
    "'mode'.\nQ, R = gradlite.qr(A, some)\nshould be replaced with\n"
    "Q, R = gradlite.linalg.qr(A, 'reduced' if some else 'complete')"
)


def qr(input: Tensor, some: bool = True) -> Any:
    """Q and R of ``input = Q R``: deprecated; see ``linalg.qr``.

    >>> import gradlite
    >>> import warnings
    >>> warnings.simplefilter("ignore")
    >>> gradlite.qr(gradlite.tensor([[3.0], [4.0]])).R.abs()
    tensor([[5.]])
    """
    warnings.warn(DEPRECATED, UserWarning, stacklevel=2)
    return return_types.qr(linalg_qr(input, "reduced" if some else "complete"))


def _attach() -> None:
    t: Any = Tensor
    t.qr = qr


_attach()
