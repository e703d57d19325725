"""Products of matrices on CUDA: cuBLASLt through nvmath-python where that is, or CuPy's own.

`CublasLt` and `CupyGemm` have the same methods. CuPy's products are slower for stacks of float16
matrices, add biases by a kernel of their own, and cannot stand in a stream capture.

Activations are no epilogues here, although cuBLASLt has some. Its ReLU is max(x, 0), which drops
NaN, and the mask it keeps for the derivative counts 0 as positive: neither is PyTorch's. Its GELU
is the tanh approximation with a tanh that is one too, too coarse for float32. And its derivatives
belong to the product before them in the backward pass, that is to the node of the next layer,
which cannot know who else reads the activation.
"""

from __future__ import annotations

from typing import Any

from gradlite.backends.launches import note, recordings

PACKAGE = "nvmath-python"


class CupyGemm:
    """Products by CuPy.

    Attributes:
        reason: why cuBLASLt is not used.
    """

    def __init__(self, xp: Any, reason: str) -> None:
        self.xp, self.reason = xp, reason

    def matmul(self, a: Any, b: Any, out: Any = None, alpha: float = 1.0) -> Any:
        """``alpha * a @ b``, into ``out`` when given."""
        if a.dtype.kind not in "fV":
            return NotImplemented
        if recordings:
            note("matmul")
        if a.dtype.itemsize == 2 and a.ndim + b.ndim > 4:
            # CuPy has no tensor cores for these, and takes bfloat16 for an integer.
            product = self.xp.matmul(a.astype("f4"), b.astype("f4")).astype(a.dtype)
        elif out is not None and alpha == 1.0:
            return self.xp.matmul(a, b, out=out)
        else:
            product = self.xp.matmul(a, b)
        if alpha != 1.0:
            product *= a.dtype.type(alpha)
        if out is None:
            return product
        out[...] = product
        return out

    def linear(self, a: Any, b: Any, bias: Any) -> Any:
        """``a @ b + bias`` with a number for each column."""
        out = self.matmul(a, b)
        if out is not NotImplemented:
            out += bias
        return out

    def addmm(self, c: Any, a: Any, b: Any, beta: float = 1.0, alpha: float = 1.0) -> Any:
        """``beta * c + alpha * a @ b``; ``c`` broadcasts, and is not read when beta is 0."""
        out = self.matmul(a, b, None, alpha)
        if out is not NotImplemented and beta != 0:
            out += c if beta == 1 else c * c.dtype.type(beta)
        return out

    def add_into(self, total: Any, a: Any, b: Any) -> Any:
        """``total += a @ b``."""
        product = self.matmul(a, b)
        if product is not NotImplemented:
            total += product
            return total
        return product

    def with_row_sums(self, a: Any, b: Any, total: Any = None) -> tuple[Any, Any]:
        """``a @ b``, and None: the sums of the rows of ``a`` cost a kernel of their own."""
        return self.matmul(a, b) if total is None else self.add_into(total, a, b), None

    def with_column_sums(self, a: Any, b: Any) -> tuple[Any, Any]:
        """``a @ b``, and None: the sums of the columns of ``b`` cost a kernel of their own."""
        return self.matmul(a, b), None


def gemm(xp: Any) -> Any:
    """The products of the current device: a `CublasLt`, or a `CupyGemm` with the reason."""
    try:
        from nvmath.bindings import cublasLt

        from gradlite.backends.cublaslt import CublasLt
    except ImportError:
        return CupyGemm(xp, f"{PACKAGE} is not installed")
    try:
        return CublasLt(xp, cublasLt)
    except Exception as error:  # the library is missing or does not fit; there are many types
        return CupyGemm(xp, f"cuBLASLt cannot be used: {error}")


def described(products: Any) -> str:
    """What multiplies matrices, in a line."""
    if isinstance(products, CupyGemm):
        return f"CuPy ({products.reason}), not capturable"
    number = products.lt.get_version()
    version = f"{number // 10000}.{number // 100 % 100}.{number % 100}"
    return f"cuBLASLt {version} by {PACKAGE}"
