"""Every op of the table under autocast on the CPU: results have PyTorch's dtypes and values."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.ops.table import TABLE
from tests.ops.test_table import convert, outputs, samples_of, torch_function

torch = pytest.importorskip("torch", reason="PyTorch is the oracle of these tests")
pytest.importorskip("ml_dtypes", reason="bfloat16 needs ml_dtypes")

# What draws random numbers gives other values in PyTorch, and the same dtypes.
RANDOM = {
    "alpha_dropout", "dropout", "dropout1d", "dropout2d", "dropout3d", "feature_alpha_dropout",
    "gumbel_softmax", "rrelu",
}  # fmt: skip
# PyTorch rounds products inside to bfloat16 and adds them in float32.
ROUNDED_INSIDE = {"bilinear"}
# PyTorch's is composed of ops that are cast one by one: its last product rounds to bfloat16.
CAST_INSIDE = {"pinv"}
# It is inf and NaN in bfloat16 there.
BROKEN_THERE = {"matrix_exp"}
NAMES = sorted(
    name for name, entry in TABLE.items() if entry.torch and name not in CAST_INSIDE | BROKEN_THERE
)


def result_of(library: Any, function: Any, sample: Any, half: bool) -> Any:
    """What a function gives under autocast, from float32 or bfloat16, or the exception."""

    def make(array: np.ndarray) -> Any:
        t = library.tensor(np.asarray(array))
        if t.dtype == library.float64:
            return t.to(library.bfloat16 if half else library.float32)
        return t

    make.__name__ = "ours" if library is gradlite else "theirs"
    try:
        args, kwargs = convert(sample.args, make), convert(sample.kwargs, make)
        with library.autocast("cpu"), warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return function(*args, **kwargs)
    except (RuntimeError, ValueError, TypeError, IndexError, NotImplementedError) as error:
        return error


def tensors(result: Any, library: Any) -> list[Any]:
    return [r for r in outputs(result) if isinstance(r, library.Tensor)]


@pytest.mark.parametrize("half", [False, True], ids=["float32", "bfloat16"])
@pytest.mark.parametrize("name", NAMES)
def test_dtypes_and_values_are_pytorchs(name: str, half: bool) -> None:
    entry = TABLE[name]
    for sample in samples_of(name):
        expected = result_of(torch, torch_function(entry), sample, half)
        if isinstance(expected, Exception):
            assert half, f"PyTorch refuses {sample}: {expected}"
            continue  # it has no kernel for bfloat16 here
        found = result_of(gradlite, entry.function, sample, half)
        assert not isinstance(found, Exception), f"{sample}: {found!r}"
        pairs = list(zip(tensors(found, gradlite), tensors(expected, torch), strict=True))
        for ours, theirs in pairs:
            assert str(ours.dtype).rpartition(".")[2] == str(theirs.dtype).rpartition(".")[2], (
                f"{sample}: {ours.dtype}, PyTorch {theirs.dtype}"
            )
            if name in RANDOM or not ours.is_floating_point():
                continue
            a, b = ours.double().numpy(), theirs.double().numpy()
            assert a.shape == b.shape
            scale = np.max(np.abs(b), initial=0.1, where=np.isfinite(b))
            low = half or theirs.dtype == torch.bfloat16 or name in ROUNDED_INSIDE
            rtol = 0.04 if low else 1e-5
            np.testing.assert_allclose(a, b, rtol=rtol, atol=scale * rtol / 2)


# ------------------------------------------------------------------------------- as on CUDA
LOWER = {
    "addbmm", "addmm", "addmv", "addr", "baddbmm", "bmm", "conv1d", "conv2d", "conv3d",
    "conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "einsum", "linear", "matmul", "mm",
    "mv", "prelu", "scaled_dot_product_attention", "gru_sequence", "lstm_sequence", "rnn_sequence",
    # Composed of such.
    "corrcoef", "cov", "affine_grid", "matrix_power",
}  # fmt: skip
FLOAT32 = {
    "acos", "asin", "cosh", "erfinv", "exp", "expm1", "log", "log10", "log2", "log1p", "reciprocal",
    "rsqrt", "sinh", "tan", "pow", "softplus", "layer_norm", "group_norm", "cosine_similarity",
    "poisson_nll_loss", "cosine_embedding_loss", "nll_loss", "hinge_embedding_loss", "kl_div",
    "l1_loss", "smooth_l1_loss", "huber_loss", "mse_loss", "margin_ranking_loss",
    "multilabel_margin_loss", "soft_margin_loss", "triplet_margin_loss", "multi_margin_loss",
    "binary_cross_entropy_with_logits", "dist", "pdist", "cdist", "renorm", "logsumexp", "prod",
    "softmax", "log_softmax", "cumprod", "cumsum", "vector_norm", "matrix_norm", "sum", "norm",
    "interpolate",
    # Composed of such.
    "cross_entropy", "cumulative_trapezoid", "gaussian_nll_loss", "gumbel_softmax", "linalg_norm",
    "local_response_norm", "lp_pool1d", "lp_pool2d", "lp_pool3d", "multilabel_soft_margin_loss",
    "nanmean", "nansum", "normalize", "pairwise_distance", "softmin", "trapezoid",
    "triplet_margin_with_distance_loss", "vander",
}  # fmt: skip


@pytest.fixture
def cuda_mode(monkeypatch: pytest.MonkeyPatch) -> None:
    """The stand-in for CuPy, whose device is called cuda."""
    from tests import cublaslt_stand_in, cupy_stand_in
    from tests.cuda_on_cpu import compiler

    if compiler() is None:
        pytest.skip("kernels run thread by thread on Linux with g++ alone")
    cupy_stand_in.install(monkeypatch)
    cublaslt_stand_in.install(monkeypatch)


@pytest.mark.parametrize("name", sorted(LOWER | FLOAT32))
def test_dtypes_on_cuda_are_those_of_pytorchs_lists(name: str, cuda_mode: None) -> None:
    """PyTorch's lists for CUDA, written out from its documentation; there is no GPU to ask it."""
    entry = TABLE[name]
    expected = gradlite.float16 if name in LOWER else gradlite.float32
    given = gradlite.float32 if name in LOWER else gradlite.float16

    def ours(array: np.ndarray) -> Any:
        t = gradlite.tensor(np.asarray(array), device="cuda")
        return t.to(given) if t.is_floating_point() else t

    sample = samples_of(name)[0]
    with gradlite.autocast("cuda"):
        result = entry.function(*convert(sample.args, ours), **convert(sample.kwargs, ours))
    dtypes = {t.dtype for t in outputs(result) if t.is_floating_point()}
    assert dtypes == {expected}


def test_on_cuda_binary_cross_entropy_is_refused(cuda_mode: None) -> None:
    p = gradlite.full((3,), 0.5, device="cuda")
    with gradlite.autocast("cuda"), pytest.raises(RuntimeError, match="unsafe to autocast"):
        gradlite.nn.functional.binary_cross_entropy(p, p)
    assert gradlite.nn.functional.binary_cross_entropy(p, p).item() == pytest.approx(0.6931472)


def test_on_cuda_a_dtype_that_the_caller_chose_counts(cuda_mode: None) -> None:
    x = gradlite.ones(3, dtype=gradlite.float16, device="cuda")
    with gradlite.autocast("cuda"):
        assert x.sum(dtype=gradlite.float64).dtype is gradlite.float64
        assert x.sum().dtype is gradlite.float32
        assert x.cpu().sum().dtype is gradlite.float16  # of another type of device


def test_on_cuda_the_widest_dtype_is_taken(cuda_mode: None) -> None:
    half = gradlite.ones(3, dtype=gradlite.float16, device="cuda")
    with gradlite.autocast("cuda"):
        assert gradlite.dot(half, half).dtype is gradlite.float16
        assert gradlite.dot(half, half.float()).dtype is gradlite.float32


def test_on_cuda_layers_that_run_as_one_op_are_cast_too(cuda_mode: None) -> None:
    nn = gradlite.nn
    with gradlite.device("cuda"):
        model = nn.Sequential(nn.Linear(4, 8), nn.GELU(), nn.Linear(8, 4))
        layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.5, batch_first=True)
        x, sequence = gradlite.randn(3, 4), gradlite.randn(2, 3, 8)
    kinds = []
    model[1].register_forward_hook(lambda *_: None)  # which keeps the layers apart
    with gradlite.autocast("cuda"):
        kinds.append(model(x).dtype)
        model[1]._forward_hooks.clear()
        kinds += [model[:2](x).dtype, model(x).dtype]
        y = layer(sequence)
    assert kinds == [gradlite.float16] * 3
    assert y.dtype is gradlite.float32
    y.sum().backward()
    assert {p.grad.dtype for p in layer.parameters()} == {gradlite.float32}
