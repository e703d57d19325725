"""What `benchmarks.kernels` runs to have each kernel launched, and how many bytes that moves.

Every kernel of ``kernels/`` is either in `CASES` or, with a reason, in `UNTIMED`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COLUMNS = 1024  # of a row at most


def flat(n: int) -> tuple[int, ...]:
    return (n,)


def rows(n: int) -> tuple[int, ...]:
    return (n // min(n, COLUMNS), min(n, COLUMNS))


def features(n: int) -> tuple[int, ...]:
    return (n // 64, 64)


def planes(n: int) -> tuple[int, ...]:
    size = min(n, 1 << 16)
    return (n // size, 64, size // 64)


@dataclass(frozen=True)
class Case:
    """How a kernel comes to run on n elements.

    Attributes:
        passes: arrays of n elements that it reads or writes, each once; what it reads and writes
            in the same place counts twice.
        call: ``call(T, x, *more)`` in any library with PyTorch's API.
        more: makes the other operands from the library and x.
        shape: of x.
        backward: whether the kernel runs in the backward pass of the call.
        step: whether the call is an optimizer's step, whose arrays stand in a table.
        own: ``call`` for gradlite, where PyTorch takes several functions for it.
        least: elements below which the op does without the kernel.
        both: whether the kernel makes the gradient of the first of ``more`` too.
    """

    passes: int
    call: Callable[..., Any]
    more: Callable[[Any, Any], tuple[Any, ...]] = lambda T, x: ()
    shape: Callable[[int], tuple[int, ...]] = flat
    backward: bool = False
    step: bool = False
    own: Callable[..., Any] | None = None
    least: int = 0
    both: bool = False


ACTIVATIONS: dict[str, Callable[..., Any]] = {
    "gelu_tanh": lambda T, x: T.nn.functional.gelu(x, approximate="tanh"),
    "sigmoid": lambda T, x: T.sigmoid(x),
    "tanh": lambda T, x: T.tanh(x),
    "threshold": lambda T, x: T.nn.functional.threshold(x, 0.1, 0.0),
    **{
        name: lambda T, x, name=name: getattr(T.nn.functional, name)(x)
        for name in """relu leaky_relu elu gelu silu mish softplus logsigmoid tanhshrink softsign
        hardtanh hardsigmoid hardswish hardshrink softshrink""".split()
    },
}
# With what gradlite's op takes beside x and the bias.
WITH_BIAS: dict[str, tuple[float, ...]] = {
    "relu": (), "leaky_relu": (0.01,), "elu": (1.0, 1.0, 1.0), "gelu": (), "gelu_tanh": (),
    "silu": (), "mish": (), "softplus": (1.0, 20.0), "sigmoid": (), "tanh": (),
    "hardtanh": (-1.0, 1.0), "hardswish": (),
}  # fmt: skip


def _with_bias(name: str, passes: int, backward: bool) -> Case:
    def own(T: Any, x: Any, bias: Any) -> Any:
        from gradlite.ops.bias_activation import bias_activation

        return bias_activation(x, bias, name, *WITH_BIAS[name])

    return Case(
        passes,
        lambda T, x, bias: ACTIVATIONS[name](T, x + bias),
        lambda T, x: (T.rand(x.shape[-1], device="cuda"),),
        rows,
        backward,
        own=own,
        both=backward,
    )


def _norm(T: Any, x: Any, weight: Any, bias: Any) -> Any:
    return T.nn.functional.layer_norm(x, (x.shape[-1],), weight, bias)


def _parameters(T: Any, x: Any) -> tuple[Any, ...]:
    return T.ones(x.shape[-1], device="cuda"), T.zeros(x.shape[-1], device="cuda")


def _of_channels(T: Any, x: Any) -> tuple[Any, ...]:
    return T.ones(x.shape[1], device="cuda"), T.zeros(x.shape[1], device="cuda")


def _numbers(T: Any, x: Any) -> tuple[Any, ...]:
    return (T.zeros(x.shape[0], dtype=T.int64, device="cuda"),)


def _like(T: Any, x: Any) -> tuple[Any, ...]:
    return (T.rand(x.shape, device="cuda"),)


def _cross_entropy(T: Any, x: Any, numbers: Any) -> Any:
    return T.nn.functional.cross_entropy(x, numbers)


def _distance(T: Any, x: Any, y: Any) -> Any:
    return T.nn.functional.pairwise_distance(x, y)


def _cosine(T: Any, x: Any, y: Any) -> Any:
    return T.nn.functional.cosine_similarity(x, y)


def _signed(T: Any, x: Any) -> tuple[Any, ...]:
    return T.rand(x.shape, device="cuda"), T.ones(x.shape[0], dtype=T.int64, device="cuda")


def _embedding(T: Any, x: Any, y: Any, target: Any) -> Any:
    return T.nn.functional.cosine_embedding_loss(x, y, target)


def _two_like(T: Any, x: Any) -> tuple[Any, ...]:
    return T.rand(x.shape, device="cuda"), T.rand(x.shape, device="cuda")


def _triplet(T: Any, x: Any, positive: Any, negative: Any) -> Any:
    return T.nn.functional.triplet_margin_loss(x, positive, negative)


def _margin(T: Any, x: Any, numbers: Any) -> Any:
    return T.nn.functional.multi_margin_loss(x, numbers)


def _batch_norm(T: Any, x: Any, weight: Any, bias: Any) -> Any:
    return T.nn.functional.batch_norm(x, None, None, weight, bias, training=True)


def _inference(T: Any, x: Any, weight: Any, bias: Any) -> Any:
    return T.nn.functional.batch_norm(x, bias, weight, weight, bias)


def _group_norm(T: Any, x: Any, weight: Any, bias: Any) -> Any:
    return T.nn.functional.group_norm(x, 8, weight, bias)


def _slope(T: Any, x: Any) -> tuple[Any, ...]:
    return (T.full((1,), 0.25, device="cuda"),)


def _prelu(T: Any, x: Any, slope: Any) -> Any:
    return T.nn.functional.prelu(x, slope)


def _squares(reduction: str) -> Callable[..., Any]:
    return lambda T, x, y: T.nn.functional.mse_loss(x, y, reduction=reduction)


def _unit_vectors(T: Any, x: Any) -> Any:
    return T.nn.functional.normalize(x)


def _poisson(reduction: str) -> Callable[..., Any]:
    return lambda T, x, y: T.nn.functional.poisson_nll_loss(x, y, reduction=reduction)


def _product(T: Any, x: Any, a: Any, b: Any) -> Any:
    return T.addcmul(x, a, b)


def _quotient(T: Any, x: Any, a: Any, b: Any) -> Any:
    return T.addcdiv(x, a, b)


def _lerp(T: Any, x: Any, end: Any, weight: Any) -> Any:
    return T.lerp(x, end, weight)


# Parameters, gradients and states that a step reads, and parameters and states that it writes.
STEPS: dict[str, tuple[int, str, dict[str, Any]]] = {
    "sgd": (3, "SGD", {}),
    "sgd_momentum": (5, "SGD", {"momentum": 0.9}),
    "sgd_nesterov": (5, "SGD", {"momentum": 0.9, "nesterov": True}),
    "adam": (7, "Adam", {}),
    "adam_amsgrad": (9, "Adam", {"amsgrad": True}),
    "nadam": (7, "NAdam", {}),
    "radam": (7, "RAdam", {}),
    "adamax": (7, "Adamax", {}),
    "lion": (5, "Lion", {}),
    "rmsprop": (5, "RMSprop", {}),
    "rmsprop_momentum": (7, "RMSprop", {"momentum": 0.9}),
    "rmsprop_centered": (7, "RMSprop", {"centered": True}),
    "rmsprop_centered_momentum": (9, "RMSprop", {"centered": True, "momentum": 0.9}),
    "rprop": (7, "Rprop", {}),
    "adagrad": (5, "Adagrad", {}),
    "adadelta": (7, "Adadelta", {}),
    "asgd": (5, "ASGD", {}),
}

CASES: dict[str, Case] = {
    **{f"{name}_forward": Case(2, call) for name, call in ACTIVATIONS.items()},
    **{f"{name}_backward": Case(3, call, backward=True) for name, call in ACTIVATIONS.items()},
    **{f"bias_{name}_forward": _with_bias(name, 2, False) for name in WITH_BIAS},
    **{f"bias_{name}_backward": _with_bias(name, 3, True) for name in WITH_BIAS},
    "softmax_forward": Case(2, lambda T, x: T.softmax(x, -1), shape=rows),
    "softmax_backward": Case(3, lambda T, x: T.softmax(x, -1), shape=rows, backward=True),
    "log_softmax_forward": Case(2, lambda T, x: T.log_softmax(x, -1), shape=rows),
    "log_softmax_backward": Case(3, lambda T, x: T.log_softmax(x, -1), shape=rows, backward=True),
    **{
        f"{name}_strided_{way}": Case(
            passes, lambda T, x, name=name: getattr(T, name)(x, 0), shape=rows,
            backward=way == "backward")
        for name in ("softmax", "log_softmax")
        for way, passes in (("forward", 2), ("backward", 3))
    },
    "softmax_strided_parts": Case(1, lambda T, x: T.softmax(x, 0), shape=rows, least=1 << 18),
    "softmax_strided_sums": Case(
        2, lambda T, x: T.softmax(x, 0), shape=rows, backward=True, least=1 << 18),
    "logsumexp_forward": Case(1, lambda T, x: T.logsumexp(x, -1), shape=rows),
    "logsumexp_backward": Case(2, lambda T, x: T.logsumexp(x, -1), shape=rows, backward=True),
    "layer_norm_forward": Case(2, _norm, _parameters, rows),
    "layer_norm_backward": Case(3, _norm, _parameters, rows, backward=True),
    "norm_short_forward": Case(2, _group_norm, _parameters, rows, least=1 << 19),
    "norm_short_backward": Case(3, _group_norm, _parameters, rows, backward=True, least=1 << 19),
    "group_norm_forward": Case(2, _group_norm, _of_channels, planes),
    "group_norm_backward": Case(3, _group_norm, _of_channels, planes, backward=True),
    "batch_norm_forward": Case(2, _batch_norm, _parameters, features),
    "batch_norm_backward": Case(3, _batch_norm, _parameters, features, backward=True),
    "batch_norm_inference": Case(2, _inference, _parameters, features),
    "prelu_forward": Case(2, _prelu, _slope),
    "prelu_backward": Case(3, _prelu, _slope, backward=True),
    "reduce_rows": Case(1, lambda T, x: x.sum(-1), shape=rows),
    "reduce_columns": Case(1, lambda T, x: x.sum(0), shape=rows),
    "extreme_rows": Case(1, lambda T, x: x.amax(-1), shape=rows),
    "extreme_columns": Case(1, lambda T, x: x.amax(0), shape=rows),
    "extreme_backward": Case(2, lambda T, x: x.amax(-1), shape=rows, backward=True),
    "extreme_ties": Case(1, lambda T, x: x.max(), backward=True, least=8192),
    "extreme_share": Case(2, lambda T, x: x.max(), backward=True, least=8192),
    "rrelu_forward": Case(4, lambda T, x: T.nn.functional.rrelu(x, training=True)),
    "random_uniform": Case(1, lambda T, x: T.rand(x.shape, device="cuda")),
    "random_normal": Case(1, lambda T, x: T.randn(x.shape, device="cuda")),
    "cross_entropy_rows": Case(1, _cross_entropy, _numbers, rows),
    "cross_entropy_rows_backward": Case(2, _cross_entropy, _numbers, rows, backward=True),
    "normalize_forward": Case(2, _unit_vectors, shape=rows),
    "normalize_backward": Case(3, _unit_vectors, shape=rows, backward=True),
    "loss_values": Case(3, _squares("none"), _like),
    "loss_parts": Case(2, _squares("mean"), _like),
    "loss_backward": Case(3, _squares("mean"), _like, backward=True),
    "loss_of_three_values": Case(3, _poisson("none"), _like),
    "loss_of_three_parts": Case(2, _poisson("mean"), _like),
    "loss_of_three_backward": Case(3, _poisson("mean"), _like, backward=True),
    "distance_forward": Case(2, _distance, _like, rows),
    "distance_backward": Case(3, _distance, _like, rows, backward=True),
    "cosine_forward": Case(2, _cosine, _like, rows),
    "cosine_backward": Case(3, _cosine, _like, rows, backward=True),
    "cosine_embedding_forward": Case(2, _embedding, _signed, rows),
    "cosine_embedding_backward": Case(3, _embedding, _signed, rows, backward=True),
    "triplet_forward": Case(3, _triplet, _two_like, rows),
    "triplet_backward": Case(4, _triplet, _two_like, rows, backward=True),
    "multi_margin_forward": Case(1, _margin, _numbers, rows),
    "multi_margin_backward": Case(2, _margin, _numbers, rows, backward=True),
    "variance_rows": Case(1, lambda T, x: x.var(1), shape=rows),
    "variance_backward": Case(2, lambda T, x: x.var(1), shape=rows, backward=True),
    "vector_norm_rows": Case(1, lambda T, x: x.norm(dim=1), shape=rows),
    "vector_norm_backward": Case(2, lambda T, x: x.norm(dim=1), shape=rows, backward=True),
    "running_sum": Case(2, lambda T, x: x.cumsum(1), shape=rows),
    "running_product": Case(2, lambda T, x: x.cumprod(1), shape=rows),
    "running_product_slopes": Case(5, lambda T, x: x.cumprod(1), shape=rows, backward=True),
    "running_product_backward": Case(5, lambda T, x: x.cumprod(1), shape=rows, backward=True),
    "running_log_sum": Case(2, lambda T, x: x.logcumsumexp(1), shape=rows),
    "running_log_sum_backward": Case(
        4, lambda T, x: x.logcumsumexp(1), shape=rows, backward=True),
    "prod_backward": Case(2, lambda T, x: x.prod(1), shape=rows, backward=True),
    "masked_scatter": Case(
        5, lambda T, x, mask, source: x.masked_scatter(mask, source),
        lambda T, x: (T.rand(x.shape, device="cuda") > 0.5, T.rand_like(x))),
    "where_backward": Case(
        3, lambda T, x, chosen: T.where(chosen, x, 0.5),
        lambda T, x: (T.rand(x.shape, device="cuda") > 0.5,), backward=True),
    "clamp_forward": Case(2, lambda T, x: x.clamp(0.25, 0.75)),
    "clamp_backward": Case(3, lambda T, x: x.clamp(0.25, 0.75), backward=True),
    "clamp_between_forward": Case(4, lambda T, x, a, b: T.clamp(x, a, b), _two_like),
    "clamp_between_backward": Case(
        5, lambda T, x, a, b: T.clamp(x, a, b), _two_like, backward=True),
    "unary_forward": Case(2, lambda T, x: T.rsqrt(x)),
    "unary_backward": Case(3, lambda T, x: T.sin(x), backward=True),
    "binary_forward": Case(3, lambda T, x, y: T.remainder(x, y), _like),
    "binary_backward": Case(4, lambda T, x, y: T.atan2(x, y), _like, backward=True),
    "product_backward": Case(5, lambda T, x, y: x * y, _like, backward=True, both=True),
    "add_scaled_forward": Case(
        3, lambda T, x, y: T.add(x, y, alpha=0.5), lambda T, x: (T.rand_like(x),)),
    "addcmul_forward": Case(4, _product, _two_like),
    "addcmul_backward": Case(
        3, lambda T, a, x, b: T.addcmul(x, a, b), _two_like, backward=True),
    "addcdiv_forward": Case(4, _quotient, _two_like),
    "addcdiv_backward": Case(
        3, lambda T, a, x, b: T.addcdiv(x, a, b), _two_like, backward=True),
    "lerp_forward": Case(4, _lerp, _two_like),
    "lerp_backward": Case(3, _lerp, _two_like, backward=True),
    "triangle": Case(2, lambda T, x: x.tril(), shape=rows),
    "dropout_rows": Case(2, lambda T, x: T.nn.functional.dropout1d(x[:, None], 0.5),
                         shape=rows),
    "dropout": Case(2, lambda T, x: T.nn.functional.dropout(x, 0.5)),
    **{
        name: Case(passes, lambda T, x, kind=kind, options=options: getattr(T.optim, kind)(
            [x], lr=1e-3, **options), step=True)
        for name, (passes, kind, options) in STEPS.items()
    },
}  # fmt: skip

# What is not timed here, by the reason.
UNTIMED: dict[str, str] = {
    "few threads: counters and scalars of a step": """sgd_advance sgd_momentum_advance adam_advance
        nadam_advance radam_advance adamax_advance lion_advance rmsprop_advance adagrad_advance
        adadelta_advance rprop_advance asgd_advance scale_update""",
    "the second of two launches, over the parts that the first leaves": """columns_total
        losses_parts losses_total norm_total norm_slopes_total prelu_total reduce_columns_total
        reduce_channels_total batch_norm_statistics variance_total vector_norm_total""",
    "how often it reads a row depends on the labels": """multilabel_margin_forward
        multilabel_margin_backward""",
    "each row meets many others, which the caches have": "cdist_forward cdist_backward",
    "arithmetic bounds it, not memory": """attention_forward_32 attention_backward_32
        attention_forward_64 attention_backward_64 attention_forward_128 attention_backward_128
        depthwise_forward depthwise_input_gradient depthwise_weight_gradient""",
    "what it reads more than once comes from the caches": """response_norm_forward
        response_norm_backward border_pad border_pad_backward
        image_to_columns columns_to_image volume_to_columns columns_to_volume
        max_pool_forward max_pool_backward avg_pool_forward avg_pool_backward
        adaptive_avg_pool_forward adaptive_avg_pool_backward adaptive_max_pool_forward
        adaptive_max_pool_backward resample""",
    "what it moves depends on the indices": """take_rows add_rows_sorted add_rows_searched
        take_along add_along add_along_atomic put_along row_numbers scatter_reduce
        scatter_reduce_whole scatter_reduce_parts scatter_reduce_backward
        scatter_reduce_values_backward one_hot nll_loss_forward nll_loss_backward
        embedding_bag_forward embedding_bag_spread embedding_bag_factors""",
    "few numbers are read, or written, for many": "affine_grid_forward affine_grid_backward",
    "what it reads depends on the points": """grid_sample_nearest grid_sample_nearest_backward
        grid_sample_linear grid_sample_linear_backward grid_sample_cubic grid_sample_cubic_backward
        grid_sample_volume_nearest grid_sample_volume_nearest_backward grid_sample_volume_linear
        grid_sample_volume_linear_backward""",
    "it reads the indices alone, which are few beside what they choose": "check_indices",
    "one step of many, of a size that the model gives": """lstm_forward lstm_backward gru_forward
        gru_backward rnn_forward rnn_backward""",
    "it waits for one step of a sequence after another": """ctc_loss_forward ctc_loss_backward
        lstm_sequence_forward lstm_sequence_backward gru_sequence_forward
        gru_sequence_backward rnn_sequence_forward rnn_sequence_backward""",
    "a variant of one that is timed: other layouts of the same loop": """attention_weights_forward
        cross_entropy_positions cross_entropy_positions_backward cross_entropy_targets_backward
        bias_dropout_add_forward bias_dropout_add_backward layer_norm_parameters batch_norm_planes
        batch_norm_samples norm_slopes_planes norm_slopes_samples columns_parts planes_parts
        normalize_strided_forward normalize_strided_backward
        gaussian_rows_backward soft_label_rows prelu_columns_forward prelu_columns_backward
        glu_forward glu_backward reduce_column_products reduce_blocks
        recurrence masked_scatter_backward""",
    "over all parameters, from a table: no size of its own": """norm_parts clip_tensors
        clamp_tensors zero_tensors unscale_tensors average_tensors""",
    "it writes alone, and whole numbers": "random_integers random_words random_mask",
    "it writes whole numbers or bools, of another size": """running_extreme
        running_extreme_integers running_count is_close box_places""",
    "it reads nothing but of products that are 0 or NaN": "prod_parts",
}  # fmt: skip
