"""What `benchmarks.native` runs: every op that has native kernels on the CPU, and some that might.

The tests of native kernels run on the same calls.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

COLUMNS = 64


@dataclass(frozen=True)
class Case:
    """How an op comes to run on about n elements.

    Attributes:
        call: ``call(T, x, *more)``.
        shape: of x, from n.
        more: makes the other operands from the library and x.
    """

    call: Callable[..., Any]
    shape: Callable[[int], tuple[int, ...]] = lambda n: (n // COLUMNS, COLUMNS)
    more: Callable[[Any, Any], tuple[Any, ...]] = lambda T, x: ()

    def arguments(self, T: Any, n: int, dtype: Any) -> tuple[Any, ...]:
        """The operands, of which floating ones require grad."""
        T.manual_seed(0)
        x = T.randn(self.shape(n), dtype=dtype)
        return (x.requires_grad_(), *self.more(T, x))


def images(n: int) -> tuple[int, ...]:
    return (max(n // 1024, 1), 16, 8, 8)


def volumes(n: int) -> tuple[int, ...]:
    return (max(n // 512, 1), 8, 4, 4, 4)


def steps(n: int) -> tuple[int, ...]:
    return (max(n // 1024, 1), 16, 64)


def _leaf(T: Any, x: Any, *shape: int, scale: float = 1.0) -> Any:
    return (scale * T.randn(shape, dtype=x.dtype)).requires_grad_()


def _affine(T: Any, x: Any) -> tuple[Any, ...]:
    return _leaf(T, x, x.shape[-1]), _leaf(T, x, x.shape[-1])


def _channels(T: Any, x: Any) -> tuple[Any, ...]:
    return _leaf(T, x, x.shape[1]), _leaf(T, x, x.shape[1])


def _numbers(T: Any, x: Any) -> tuple[Any, ...]:
    return (T.randint(0, x.shape[1], (x.shape[0],)),)


def _labels(T: Any, x: Any) -> tuple[Any, ...]:
    """Three labels in each row."""
    y = T.randint(0, x.shape[1], x.shape)
    y[:, 3] = -1
    return (y,)


def _leaf_like(T: Any, x: Any) -> tuple[Any, ...]:
    return (_leaf(T, x, *x.shape),)


def _like(T: Any, x: Any) -> tuple[Any, ...]:
    return (T.rand(x.shape, dtype=x.dtype),)


def _points(T: Any, x: Any, *shape: int) -> Any:
    """Points of a grid, a few of them outside."""
    return (2.4 * T.rand((x.shape[0], *shape, len(shape)), dtype=x.dtype) - 1.2).requires_grad_()


def _sampled(T: Any, x: Any, points: Any) -> Any:
    return T.nn.functional.grid_sample(x, points, align_corners=False)


def _signs(T: Any, x: Any) -> tuple[Any, ...]:
    return (T.randn(x.shape, dtype=x.dtype).sign(),)


def _activation(name: str, *options: float) -> Case:
    return Case(lambda T, x: getattr(T.nn.functional, name)(x, *options))


CASES: dict[str, Case] = {
    **{
        name: _activation(name)
        for name in """relu leaky_relu elu celu gelu silu mish softplus softsign tanhshrink
        hardtanh hardsigmoid hardswish hardshrink softshrink""".split()
    },
    "threshold": _activation("threshold", 0.1, 0.5),
    "gelu_tanh": Case(lambda T, x: T.nn.functional.gelu(x, approximate="tanh")),
    "sigmoid": Case(lambda T, x: T.sigmoid(x)),
    "tanh": Case(lambda T, x: T.tanh(x)),
    "log_sigmoid": Case(lambda T, x: T.nn.functional.logsigmoid(x)),
    "softmax": Case(lambda T, x: T.softmax(x, -1)),
    "log_softmax": Case(lambda T, x: T.log_softmax(x, -1)),
    "logsumexp": Case(lambda T, x: T.logsumexp(x, -1)),
    "native_layer_norm": Case(
        lambda T, x, w, b: T.nn.functional.layer_norm(x, w.shape, w, b), more=_affine
    ),
    "rms_norm": Case(
        lambda T, x, w: T.nn.functional.rms_norm(x, w.shape, w),
        more=lambda T, x: (_leaf(T, x, x.shape[-1]),),
    ),
    "native_batch_norm": Case(
        lambda T, x, w, b: T.nn.functional.batch_norm(x, None, None, w, b, True), images, _channels
    ),
    "native_group_norm": Case(
        lambda T, x, w, b: T.nn.functional.group_norm(x, 4, w, b), images, _channels
    ),
    "instance_norm": Case(lambda T, x: T.nn.functional.instance_norm(x), images),
    "cross_entropy_loss": Case(lambda T, x, t: T.nn.functional.cross_entropy(x, t), more=_numbers),
    "nll_loss": Case(lambda T, x, t: T.nn.functional.nll_loss(x, t), more=_numbers),
    "pointwise_mse": Case(lambda T, x, y: T.nn.functional.mse_loss(x, y), more=_like),
    "pointwise_l1": Case(lambda T, x, y: T.nn.functional.l1_loss(x, y), more=_like),
    "smooth_l1_loss": Case(lambda T, x, y: T.nn.functional.smooth_l1_loss(x, y), more=_like),
    "huber_loss": Case(lambda T, x, y: T.nn.functional.huber_loss(x, y), more=_like),
    "binary_cross_entropy_with_logits": Case(
        lambda T, x, y: T.nn.functional.binary_cross_entropy_with_logits(x, y), more=_like
    ),
    "soft_margin_loss": Case(lambda T, x, y: T.nn.functional.soft_margin_loss(x, y), more=_like),
    "multilabel_soft_margin_loss": Case(
        lambda T, x, y: T.nn.functional.multilabel_soft_margin_loss(x, y), more=_like
    ),
    "poisson_nll_loss": Case(
        lambda T, y, x: T.nn.functional.poisson_nll_loss(x, y),
        more=lambda T, y: (T.rand(y.shape, dtype=y.dtype).requires_grad_(),),
    ),
    "hinge_embedding_loss": Case(
        lambda T, x, y: T.nn.functional.hinge_embedding_loss(x, y), more=_signs
    ),
    "margin_ranking_loss": Case(
        lambda T, x, y, z: T.nn.functional.margin_ranking_loss(x, y, z),
        more=lambda T, x: (_leaf(T, x, *x.shape), *_signs(T, x)),
    ),
    "gaussian_nll_loss": Case(
        lambda T, x, y, var: T.nn.functional.gaussian_nll_loss(x, y, var),
        more=lambda T, x: (*_like(T, x), (T.rand(x.shape, dtype=x.dtype) + 0.5).requires_grad_()),
    ),
    "normalize": Case(lambda T, x: T.nn.functional.normalize(x)),
    "embedding_dense_backward": Case(
        lambda T, x, t: T.nn.functional.embedding(t, x),
        lambda n: (max(n // COLUMNS // 8, 2), COLUMNS),
        lambda T, x: (T.randint(0, x.shape[0], (8 * x.shape[0],)),),
    ),
    "dropout": Case(lambda T, x: T.nn.functional.dropout(x, 0.1)),
    "sum": Case(lambda T, x: T.sum(x)),
    "sum_dim": Case(lambda T, x: T.sum(x, 0)),
    "mean": Case(lambda T, x: T.mean(x)),
    "lstm_sequence": Case(
        lambda T, x, *more: T.cat([t.flatten() for t in T.nn.functional.lstm_sequence(x, *more)]),
        steps,
        lambda T, x: (
            *(_leaf(T, x, 16, 128), _leaf(T, x, 16, 128), _leaf(T, x, 512, 64, scale=0.1)),
            *(_leaf(T, x, 512, 128, scale=0.1), _leaf(T, x, 512), _leaf(T, x, 512)),
        ),
    ),
    "grid_sampler_2d": Case(_sampled, images, lambda T, x: (_points(T, x, 8, 8),)),
    "grid_sampler_3d": Case(_sampled, volumes, lambda T, x: (_points(T, x, 4, 4, 4),)),
    "pairwise_distance": Case(
        lambda T, x, y: T.nn.functional.pairwise_distance(x, y), more=_leaf_like
    ),
    "cosine_similarity": Case(
        lambda T, x, y: T.nn.functional.cosine_similarity(x, y), more=_leaf_like
    ),
    "cdist": Case(
        lambda T, x, y: T.cdist(x, y),
        lambda n: (max(n // COLUMNS, 1), COLUMNS),
        lambda T, x: (_leaf(T, x, min(x.shape[0], 32), COLUMNS),),
    ),
    "triplet_margin_loss": Case(
        lambda T, x, y, z: T.nn.functional.triplet_margin_loss(x, y, z),
        more=lambda T, x: (*_leaf_like(T, x), *_leaf_like(T, x)),
    ),
    "cosine_embedding_loss": Case(
        lambda T, x, y, t: T.nn.functional.cosine_embedding_loss(x, y, t),
        more=lambda T, x: (*_leaf_like(T, x), 2 * T.randint(0, 2, x.shape[:1]) - 1),
    ),
    "multi_margin_loss": Case(
        lambda T, x, t: T.nn.functional.multi_margin_loss(x, t), more=_numbers
    ),
    "multilabel_margin_loss": Case(
        lambda T, x, t: T.nn.functional.multilabel_margin_loss(x, t), more=_labels
    ),
    "var": Case(lambda T, x: x.var(1)),
    "std": Case(lambda T, x: x.std(1)),
    "vector_norm": Case(lambda T, x: x.norm(dim=1)),
    "maximum": Case(lambda T, x, y: T.maximum(x, y), more=_leaf_like),
    "minimum": Case(lambda T, x, y: T.minimum(x, y), more=_leaf_like),
    "where": Case(
        lambda T, x, y, chosen: T.where(chosen, x, y),
        more=lambda T, x: (*_leaf_like(T, x), T.rand(x.shape) > 0.5),
    ),
    "clamp": Case(lambda T, x: x.clamp(-0.5, 0.5)),
    "pow_tensor": Case(
        lambda T, y, x: x**y,
        more=lambda T, y: ((T.rand(y.shape, dtype=y.dtype) + 0.5).requires_grad_(),),
    ),
    "addcmul": Case(
        lambda T, x, a, b: T.addcmul(x, a, b),
        more=lambda T, x: (*_leaf_like(T, x), *_leaf_like(T, x)),
    ),
    "addcdiv": Case(
        lambda T, x, a, b: T.addcdiv(x, a, b),
        more=lambda T, x: (*_leaf_like(T, x), *_leaf_like(T, x)),
    ),
    "lerp": Case(lambda T, x, y: T.lerp(x, y, 0.3), more=_leaf_like),
    "lerp_tensor": Case(
        lambda T, x, y, w: T.lerp(x, y, w), more=lambda T, x: (*_leaf_like(T, x), *_leaf_like(T, x))
    ),
    "gather": Case(
        lambda T, x, index: x.gather(0, index),
        more=lambda T, x: (T.randint(0, x.shape[0], x.shape),),
    ),
    "scatter_add": Case(
        lambda T, x, y, index: x.scatter_add(0, index, y),
        more=lambda T, x: (*_leaf_like(T, x), T.randint(0, x.shape[0], x.shape)),
    ),
    "index_add": Case(
        lambda T, x, y, index: x.index_add(0, index, y),
        more=lambda T, x: (*_leaf_like(T, x), T.randint(0, x.shape[0], x.shape[:1])),
    ),
    "cumsum": Case(lambda T, x: x.cumsum(0)),
    "cumprod": Case(lambda T, x: (x / 64 + 1).cumprod(0)),
    "logcumsumexp": Case(lambda T, x: x.logcumsumexp(1)),
    "clamp_min": Case(lambda T, x: x.clamp_min(-0.5)),
    "clamp_max": Case(lambda T, x: x.clamp_max(0.5)),
    "tril": Case(lambda T, x: x.tril()),
    "triu": Case(lambda T, x: x.triu()),
    "glu": Case(lambda T, x: T.nn.functional.glu(x)),
    "prelu": Case(lambda T, x, w: T.nn.functional.prelu(x, w), more=lambda T, x: (_leaf(T, x, 1),)),
}
