"""Half precision as on CUDA, on the stand-in for CuPy: kernels are chosen, and give the numbers.

The reference is float64 on the CPU with the same numbers. Between the kernels of an op results are
rounded, so an op of several is off by several roundings. bfloat16 is asked of every op, float16 of
those that no kernel serves: their rules compute in float32 on either.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite.backends import kernels
from gradlite.ops import samples
from gradlite.ops.namespaces import NAMESPACES
from gradlite.ops.table import TABLE
from tests import cupy_stand_in as stand_in
from tests.test_stand_in import NO_HALVES, tensors

ROUNDING = {"float16": 2.0**-11, "bfloat16": 2.0**-8}
NAMES = sorted(set(TABLE) - {"empty_like"})
USUAL = 6  # roundings, of each number or of a tenth of the largest
MORE = {
    "multi_head_attention_forward": 60,
    "gru_sequence": 40,
    "lstm_sequence": 40,
    "rnn_sequence": 60,
    # As on the CPU, and in PyTorch.
    "addmv": 25,
    "binary_cross_entropy_with_logits": 15,
    "cdist": 8,
    "corrcoef": 150,
    "cosine_embedding_loss": 10,
    "cosine_similarity": 25,
    "cov": 8,
    "cross_entropy": 15,
    "cumulative_trapezoid": 12,
    "gradient": 7,
    "kron": 8,
    "nan_to_num": 256,  # another largest number
    "normalize": 12,
    "renorm": 7,
    "softmax": 8,
    "trapezoid": 20,
    "triplet_margin_loss": 7,
}
MORE_ON_A_GPU = {**MORE, "multi_head_attention_forward": 70}  # 61 by cuBLASLt on an H100
IN_FLOAT16 = """cdist conv_transpose1d corrcoef cosine_similarity cov cumprod cumsum linalg_norm
    logaddexp logcumsumexp lp_pool1d lp_pool2d median nanmean norm pdist renorm std
    triplet_margin_loss var""".split()
# Draws are of another size for every dtype.
RANDOM = {"rand_like", "randn_like", "bernoulli", "multinomial"}
# Kernels that a rule in float32 calls, or that move whole numbers.
AVERAGES = {"avg_pool_forward", "adaptive_avg_pool_forward", "reduce_rows", "take_along"}
WIDENED = {
    "renorm": {"vector_norm_rows", "unary_forward"},
    "adaptive_avg_pool3d": AVERAGES,
    "adaptive_max_pool3d": {"take_along"},
    "avg_pool3d": AVERAGES,
    "gumbel_softmax": {"random_uniform", "unary_forward"},  # in float64
    "interpolate": AVERAGES | {"take_rows"},
    "lp_pool3d": AVERAGES,
    "matrix_exp": {"vector_norm_rows", "extreme_rows"},
    "max_pool3d": {"take_along"},
    "one_hot": {"one_hot"},
}


@pytest.fixture(autouse=True)
def cupy(monkeypatch: pytest.MonkeyPatch) -> Any:
    return stand_in.install(monkeypatch)


def run(name: str, sample: Any, device: str, dtype: Any, half: Any) -> tuple[list[Any], list[str]]:
    """Outputs and gradients in a dtype, of a half's numbers, and kernels launched for outputs."""
    gradlite.manual_seed(3)

    def convert(value: Any) -> Any:
        if isinstance(value, np.ndarray):
            tensor = gradlite.tensor(np.asarray(value), device=device)
            if value.dtype != np.float64:
                return tensor
            wanted = not isinstance(value, samples.Constant)
            return tensor.to(half).to(dtype).requires_grad_(wanted)
        if isinstance(value, (list, tuple)):
            return type(value)(map(convert, value))
        if isinstance(value, dict):
            return {k: convert(v) for k, v in value.items()}
        return value.of(gradlite) if isinstance(value, samples.Dtype) else value

    args, kwargs = convert(sample.args), convert(sample.kwargs)
    with kernels.record() as launched:
        outs = tensors(TABLE[name].function(*args, **kwargs))
    leaves = [t for t in tensors((args, kwargs)) if t.requires_grad and t.is_leaf]
    kept = [o for o in outs if o.requires_grad and TABLE[name].differentiable]
    generator = np.random.default_rng(11)
    weights = [gradlite.tensor(generator.standard_normal(o.shape), device=device) for o in kept]
    if kept and leaves:
        gradlite.autograd.backward(kept, [w.to(half).to(o.dtype) for w, o in zip(weights, kept)])
    return [*outs, *(leaf.grad for leaf in leaves)], launched


def roundings(actual: Any, exact: Any) -> float:
    rounding = ROUNDING.get(str(actual.dtype).rpartition(".")[2], ROUNDING["bfloat16"])
    a, e = (t.detach().cpu().double().numpy() for t in (actual, exact))
    assert a.shape == e.shape
    np.testing.assert_array_equal(np.isnan(a), np.isnan(e))
    finite = np.isfinite(a) & np.isfinite(e)
    a, e = a[finite], e[finite]
    size = np.maximum(np.abs(e), max(0.1 * np.abs(e).max(initial=0.0), 1e-3))
    return float((np.abs(a - e) / (rounding * size)).max(initial=0.0))


@pytest.mark.parametrize(
    ("name", "dtype"),
    [*((n, "bfloat16") for n in NAMES), *((n, "float16") for n in IN_FLOAT16)],
)
def test_values_gradients_and_kernels(name: str, dtype: str) -> None:
    samples.fresh()
    half, found = getattr(gradlite, dtype), set()
    array = type(gradlite.zeros(1, device="cuda").array)
    limit = MORE.get(name, USUAL) if array is stand_in.Array else MORE_ON_A_GPU.get(name, USUAL)
    for number, sample in enumerate(TABLE[name].samples()):
        what = f"{name} sample {number}"
        try:
            exact, _ = run(name, sample, "cpu", gradlite.float64, half)
            mine, launched = run(name, sample, "cuda", half, half)
        except (RuntimeError, NotImplementedError) as error:
            assert NO_HALVES.search(str(error))
            continue
        found |= set(launched)
        for a, e in zip(mine, exact, strict=True):
            assert (a is None) == (e is None), what
            if a is not None and name not in RANDOM:
                error = roundings(a, e)
                assert error <= limit, f"{what}: off by {error:.2f} roundings"
    entries = NAMESPACES[array].launcher._entries
    chosen = {kernel for kernel in found if (kernel, half.numpy) in entries}
    # Products, and of integers.
    others = set(
        """matmul gemm gemm_bias check_indices row_numbers running_extreme_integers
        scatter_reduce_whole box_places running_count""".split()
    )
    assert found - chosen - others <= WIDENED.get(name, set())
