"""The functions that PyTorch has at the top level, and FloatTensor and its like."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import gradlite
from gradlite import functions, tensor_types
from tests.oracle import same, torch


def x(T: Any, *shape: int, dtype: str = "float64") -> Any:
    rng = np.random.default_rng(sum(shape))
    return T.tensor(rng.standard_normal(shape).astype(dtype), requires_grad=True)


CALLS = {
    "conv1d": lambda T: T.conv1d(x(T, 2, 3, 6), x(T, 4, 3, 2), None, 2),
    "conv2d": lambda T: T.conv2d(x(T, 2, 3, 4, 5), x(T, 4, 3, 2, 2), x(T, 4)),
    "conv3d": lambda T: T.conv3d(x(T, 2, 3, 4, 3, 3), x(T, 4, 3, 2, 2, 2)),
    "conv_transpose2d": lambda T: T.conv_transpose2d(x(T, 2, 3, 4, 5), x(T, 3, 2, 2, 2)),
    "max_pool2d": lambda T: T.max_pool2d(x(T, 2, 3, 4, 4), 2),
    "avg_pool1d": lambda T: T.avg_pool1d(x(T, 2, 3, 4), 2),
    "adaptive_avg_pool1d": lambda T: T.adaptive_avg_pool1d(x(T, 2, 3, 5), 2),
    "layer_norm": lambda T: T.layer_norm(x(T, 2, 4), (4,), x(T, 4)),
    "group_norm": lambda T: T.group_norm(x(T, 2, 4, 3), 2),
    "rms_norm": lambda T: T.rms_norm(x(T, 2, 4), (4,)),
    "batch_norm": lambda T: T.batch_norm(
        x(T, 4, 3), x(T, 3), None, T.zeros(3).double(), T.ones(3).double(), True, 0.1, 1e-5, False
    ),
    "batch_norm with statistics": lambda T: T.batch_norm(
        x(T, 4, 3), None, x(T, 3), T.zeros(3).double(), T.ones(3).double(), False, 0.1, 1e-5, False
    ),
    "instance_norm": lambda T: T.instance_norm(
        x(T, 2, 3, 5), None, None, None, None, True, 0.1, 1e-5, False
    ),
    "dropout": lambda T: T.dropout(x(T, 3), p=0.5, train=False),
    "embedding": lambda T: T.embedding(x(T, 5, 2), T.tensor([1, 4, 1])),
    "embedding with padding": lambda T: T.embedding(x(T, 5, 2), T.tensor([1, 4, 1]), 1, True),
    "bilinear": lambda T: T.bilinear(x(T, 2, 3), x(T, 2, 4), x(T, 5, 3, 4)),
    "cosine_similarity": lambda T: T.cosine_similarity(x(T, 2, 3), x(T, 1, 3)),
    "pixel_shuffle": lambda T: T.pixel_shuffle(x(T, 1, 4, 2, 2), 2),
}


@pytest.mark.parametrize("name", CALLS)
def test_functions_of_layers(name: str) -> None:
    def program(T: Any) -> Any:
        y = CALLS[name](T)
        leaves = [y.detach().clone()]
        return leaves, y.requires_grad

    same(program)


def test_adaptive_max_pool1d_tells_where() -> None:
    def program(T: Any) -> Any:
        values, places = T.adaptive_max_pool1d(x(T, 2, 5), 3)
        return values.detach(), places

    same(program)


QUESTIONS = {
    "numel": lambda T: T.numel(T.ones(2, 3)),
    "numel of a number": lambda T: T.numel(3),
    "is_floating_point": lambda T: [T.is_floating_point(T.ones(1, dtype=d)) for d in dtypes_of(T)],
    "is_signed": lambda T: [T.is_signed(T.ones(1, dtype=d)) for d in dtypes_of(T)],
    "is_complex": lambda T: T.is_complex(T.ones(1)),
    "is_inference": lambda T: T.is_inference(T.ones(1)),
    "is_nonzero": lambda T: [T.is_nonzero(T.tensor([v])) for v in (0.0, 2.0, True)],
    "is_nonzero of none": lambda T: T.is_nonzero(T.ones(0)),
    "is_nonzero of two": lambda T: T.is_nonzero(T.ones(2)),
    "is_same_size": lambda T: [T.is_same_size(T.ones(2), T.ones(n)) for n in (2, 3)],
    "typename": lambda T: [T.typename(v) for v in (T.ones(1), T.ones(1).long(), 3, "a")],
    "typename of a module": lambda T: T.typename(T.nn.Linear(1, 1)).rpartition(".")[2],
    "broadcast_shapes": lambda T: tuple(T.broadcast_shapes((2,), (3, 1), (1, 1, 1), 2)),
    "broadcast_shapes of none": lambda T: tuple(T.broadcast_shapes()),
    "broadcast_shapes that differ": lambda T: T.broadcast_shapes((4, 2), (3,)),
    "result_type": lambda T: [T.result_type(a, b) for a in operands_of(T) for b in operands_of(T)],
    "can_cast": lambda T: [T.can_cast(a, b) for a in dtypes_of(T) for b in dtypes_of(T)],
    "constants": lambda T: [T.pi, T.e, T.inf, math.isnan(T.nan), T.newaxis],
}


def dtypes_of(T: Any) -> list[Any]:
    return [T.float16, T.bfloat16, T.float32, T.float64, T.int64, T.int32, T.uint8, T.bool]


def operands_of(T: Any) -> list[Any]:
    tensors = [T.ones(shape, dtype=d) for d in dtypes_of(T) for shape in ((), (2,))]
    return [1, 1.5, True, *tensors]


@pytest.mark.parametrize("name", QUESTIONS)
def test_questions(name: str) -> None:
    fails = name.rpartition(" ")[2] in ("number", "none", "two", "differ")
    fails = fails and name != "broadcast_shapes of none"
    same(
        lambda T: QUESTIONS[name](T),
        raises=(RuntimeError, TypeError) if fails else None,
        message="exact",
    )


@pytest.mark.parametrize("name", [n for n in tensor_types.__all__ if n.endswith("Tensor")])
def test_tensor_types(name: str) -> None:
    def program(T: Any) -> Any:
        kind = getattr(T, name)
        made = [kind([1, 0, 2]), kind([[1], [2]]), kind(np.array([1, 0]).astype("uint8")), kind()]
        return (
            made,
            [tuple(kind(2, 3).shape), tuple(kind(T.Size([4])).shape)],
            [isinstance(t, kind) for t in (T.ones(1), T.ones(1).long(), made[0], [1])],
            T.ones(2).type(kind),
            T.ones(2).type(f"{T.__name__}.{name}"),
            kind.dtype,
        )

    same(program)


def test_tensor_itself_is_the_default_type() -> None:
    same(lambda T: [T.arange(3).type(T.Tensor), (T.ones(2, dtype=T.float64) < 2).type(T.Tensor)])


def test_a_tensor_type_refuses_tensors_of_another_dtype() -> None:
    same(lambda T: T.FloatTensor(T.ones(1).long()), raises=TypeError, message="type")
    same(lambda T: T.LongTensor(T.ones(1).long()))


def test_every_name_is_pytorchs() -> None:
    for name in [*functions.__all__, *tensor_types.__all__]:
        assert hasattr(torch, name), name
        assert hasattr(gradlite, name), name


def test_programs_may_choose_a_back_end_that_is_not_there() -> None:
    gradlite.backends.cudnn.deterministic = True
    assert not gradlite.backends.cudnn.is_available()
    assert gradlite.backends.cudnn.version() is None
    assert not gradlite.backends.mps.is_available() and not gradlite.backends.mps.is_built()
    gradlite.backends.cudnn.deterministic = False
