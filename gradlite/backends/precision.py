"""How exactly float32 matrices are multiplied on a GPU.

Tensor cores multiply float32 numbers after rounding them to 10 bits of mantissa (TF32): several
times faster, and about three decimal digits in each product. As in PyTorch it is off by default.
"""

from __future__ import annotations

import warnings

from gradlite import changes

_CHOICES = ("highest", "high", "medium")
_chosen = "highest"
tf32 = False  # read at every product
_named = "none"  # what fp32_precision says without TF32


def get_float32_matmul_precision() -> str:
    """The precision of products of float32 matrices: "highest", "high" or "medium".

    >>> get_float32_matmul_precision()
    'highest'
    """
    return _chosen


def set_float32_matmul_precision(precision: str) -> None:
    """Choose how exactly float32 matrices are multiplied on CUDA devices.

    Args:
        precision: "highest" multiplies in float32; "high" and "medium" in TF32, on tensor cores,
            with sums in float32. Products of a matrix and a vector are always in float32, and so
            is everything on the CPU.

    >>> set_float32_matmul_precision("high")
    >>> set_float32_matmul_precision("highest")

    Another name is warned about and changes nothing.

    Raises:
        RuntimeError: the precision is no string.
    """
    global _chosen, tf32
    if not isinstance(precision, str):
        raise RuntimeError(
            "set_float32_matmul_precision expects a str, but got " + type(precision).__name__
        )
    if precision not in _CHOICES:
        warnings.warn(
            f"{precision} is not one of 'highest', 'high', or 'medium'; the current "
            "set_float32_matmul_precision call has no effect.",
            stacklevel=2,
        )
        return
    changes.count[0] += 1
    _chosen, tf32 = precision, precision != "highest"


class CudaMatmul:
    """``gradlite.backends.cuda.matmul``: the switch for TF32 under PyTorch's older name."""

    __slots__ = ()

    @property
    def allow_tf32(self) -> bool:
        """Whether products of float32 matrices may be in TF32."""
        return tf32

    @allow_tf32.setter
    def allow_tf32(self, allow: bool) -> None:
        if not isinstance(allow, bool):
            got = type(allow).__name__
            raise RuntimeError(f"set_allow_tf32_cublas expects a bool, but got {got}")
        if allow != tf32:  # "medium" allows it too and stays
            set_float32_matmul_precision("high" if allow else "highest")

    @property
    def fp32_precision(self) -> str:
        """The same switch under PyTorch's newer name: "tf32", "ieee", or "none" when not set."""
        return "tf32" if tf32 else _named

    @fp32_precision.setter
    def fp32_precision(self, precision: str) -> None:
        global _named
        if precision == "bf16":
            raise RuntimeError("backend 'cuda' does not support precision 'bf16'")
        if precision not in ("ieee", "tf32", "none"):
            raise RuntimeError(f"Unknown precision: {precision}")
        self.allow_tf32 = precision == "tf32"
        _named = "none" if precision == "tf32" else precision


matmul = CudaMatmul()
