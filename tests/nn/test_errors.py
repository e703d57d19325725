"""Constructor arguments and inputs that PyTorch refuses are refused alike."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from tests.oracle import same

CONSTRUCTORS: dict[str, Any] = {
    "dropout above 1": lambda nn: nn.Dropout(3),
    "dropout below 0": lambda nn: nn.Dropout2d(-0.1),
    "dropout of a string": lambda nn: nn.Dropout("a"),
    "hardtanh": lambda nn: nn.Hardtanh(2, 1),
    "bilinear": lambda nn: nn.Bilinear(0, 1, 1),
    "unflatten to a number": lambda nn: nn.Unflatten(1, 3),
    "unflatten to strings": lambda nn: nn.Unflatten(1, (2, "a")),
    "padding_idx": lambda nn: nn.Embedding(10, 3, 20),
    "negative padding_idx": lambda nn: nn.Embedding(10, 3, -11),
    "group norm": lambda nn: nn.GroupNorm(3, 4),
    "conv groups": lambda nn: nn.Conv2d(2, 4, 3, groups=0),
    "conv in_channels": lambda nn: nn.Conv2d(3, 4, 3, groups=2),
    "conv out_channels": lambda nn: nn.Conv2d(2, 3, 3, groups=2),
    "conv padding": lambda nn: nn.Conv2d(2, 4, 3, padding="full"),
    "conv strided same": lambda nn: nn.Conv2d(2, 4, 3, stride=2, padding="same"),
    "conv padding_mode": lambda nn: nn.Conv2d(2, 4, 3, padding_mode="mirror"),
    "transposed padding_mode": lambda nn: nn.ConvTranspose2d(2, 4, 3, padding_mode="reflect"),
    "rnn nonlinearity": lambda nn: nn.RNN(3, 4, nonlinearity="sin"),
    "rnn hidden_size": lambda nn: nn.LSTM(3, 0),
    "rnn hidden_size type": lambda nn: nn.LSTM(3, 4.5),
    "rnn num_layers": lambda nn: nn.GRU(3, 4, 0),
    "rnn dropout": lambda nn: nn.GRU(3, 4, 2, dropout=2),
    "rnn bool dropout": lambda nn: nn.GRU(3, 4, 2, dropout=True),
    "gru proj_size": lambda nn: nn.GRU(3, 4, proj_size=2),
    "lstm proj_size": lambda nn: nn.LSTM(3, 4, proj_size=4),
    "lstm negative proj_size": lambda nn: nn.LSTM(3, 4, proj_size=-1),
    "bag padding_idx": lambda nn: nn.EmbeddingBag(10, 3, padding_idx=10),
    "attention heads": lambda nn: nn.MultiheadAttention(4, 3),
    "attention size": lambda nn: nn.MultiheadAttention(0, 3),
    "transformer activation": lambda nn: nn.TransformerEncoderLayer(4, 2, activation="sin"),
    "triplet margin": lambda nn: nn.TripletMarginLoss(margin=0),
    "triplet distance margin": lambda nn: nn.TripletMarginWithDistanceLoss(margin=-1),
    "gaussian size_average": lambda nn: nn.GaussianNLLLoss(None),
    "linear arguments": lambda nn: nn.Linear(3),
    "relu arguments": lambda nn: nn.ReLU(True, 3),
}
# Here PyTorch prints a set, in any order.
UNORDERED = {"conv padding", "conv padding_mode"}


@pytest.mark.parametrize("what", CONSTRUCTORS)
def test_constructor(what: str) -> None:
    same(
        lambda library: CONSTRUCTORS[what](library.nn),
        raises=(ValueError, TypeError, AssertionError, RuntimeError),
        message="type" if what in UNORDERED else "exact",
    )


CALLS: dict[str, Any] = {
    "linear": lambda nn, T: nn.Linear(3, 4)(T(2, 4)),
    "bilinear": lambda nn, T: nn.Bilinear(3, 4, 5)(T(2, 4), T(2, 4)),
    "batch norm 1d": lambda nn, T: nn.BatchNorm1d(3)(T(2, 3, 4, 5)),
    "batch norm 2d": lambda nn, T: nn.BatchNorm2d(3)(T(2, 3, 4)),
    "batch norm 3d": lambda nn, T: nn.BatchNorm3d(3)(T(2, 3, 4)),
    "batch norm of one value": lambda nn, T: nn.BatchNorm1d(3)(T(1, 3)),
    "instance norm dims": lambda nn, T: nn.InstanceNorm2d(3)(T(2, 3)),
    "instance norm channels": lambda nn, T: nn.InstanceNorm2d(3, affine=True)(T(2, 4, 5, 5)),
    "softmax2d": lambda nn, T: nn.Softmax2d()(T(2, 3)),
    "layer norm": lambda nn, T: nn.LayerNorm(5)(T(2, 3)),
    "output_size range": lambda nn, T: nn.ConvTranspose2d(1, 1, 3, 2)(T(1, 1, 4, 4), [20, 20]),
    "output_size length": lambda nn, T: nn.ConvTranspose2d(1, 1, 3, 2)(T(1, 1, 4, 4), [9]),
    "rnn dims": lambda nn, T: nn.LSTM(3, 4)(T(2, 2, 2, 2)),
    "rnn input_size": lambda nn, T: nn.GRU(3, 4)(T(2, 2, 5)),
    "rnn dtype": lambda nn, T: nn.LSTM(3, 4)(T(2, 2, 3).double()),
    "lstm state": lambda nn, T: nn.LSTM(3, 4)(T(2, 2, 3), (T(1, 3, 4), T(1, 2, 4))),
    "lstm cell state": lambda nn, T: nn.LSTM(3, 4)(T(2, 2, 3), (T(1, 2, 4), T(2, 2, 4))),
    "lstm state dims": lambda nn, T: nn.LSTM(3, 4)(T(2, 2, 3), (T(1, 4), T(1, 4))),
    "lstm unbatched state": lambda nn, T: nn.LSTM(3, 4)(T(2, 3), (T(1, 2, 4), T(1, 2, 4))),
    "gru state": lambda nn, T: nn.GRU(3, 4)(T(2, 2, 3), T(1, 3, 4)),
    "gru state dims": lambda nn, T: nn.GRU(3, 4)(T(2, 2, 3), T(1, 4)),
    "gru unbatched state": lambda nn, T: nn.GRU(3, 4)(T(2, 3), T(1, 3, 4)),
    "cell dims": lambda nn, T: nn.LSTMCell(3, 4)(T(2, 2, 3)),
    "cell input_size": lambda nn, T: nn.GRUCell(3, 4)(T(2, 5)),
    "cell batch": lambda nn, T: nn.RNNCell(3, 4)(T(2, 3), T(3, 4)),
    "cell state dims": lambda nn, T: nn.RNNCell(3, 4)(T(3), T(1, 2, 4)),
    "cell hidden_size": lambda nn, T: nn.LSTMCell(3, 4)(T(2, 3), (T(2, 5), T(2, 5))),
    "cell nonlinearity": lambda nn, T: nn.RNNCell(3, 4, True, "sin")(T(2, 3)),
    "query dims": lambda nn, T: nn.MultiheadAttention(4, 2)(T(4), T(4), T(4)),
    "key dims": lambda nn, T: nn.MultiheadAttention(4, 2)(T(2, 3, 4), T(2, 4), T(2, 3, 4)),
    "embed_dim": lambda nn, T: nn.MultiheadAttention(4, 2)(*[T(2, 3, 5)] * 3),
    "key and value": lambda nn, T: nn.MultiheadAttention(4, 2)(*[T(2, 3, 4)] * 2, T(3, 3, 4)),
    "mask shape": lambda nn, T: nn.MultiheadAttention(4, 2)(*[T(2, 3, 4)] * 3, attn_mask=T(3, 3)),
    "mask shape in 3d": lambda nn, T: nn.MultiheadAttention(4, 2)(
        *[T(2, 3, 4)] * 3, attn_mask=T(2, 2, 2)
    ),
    "mask dims": lambda nn, T: nn.MultiheadAttention(4, 2)(
        *[T(2, 3, 4)] * 3, attn_mask=T(2, 2, 2, 2)
    ),
    "mask dtype": lambda nn, T: nn.MultiheadAttention(4, 2)(
        *[T(2, 3, 4)] * 3, attn_mask=T(2, 2).int()
    ),
    "padding mask": lambda nn, T: nn.MultiheadAttention(4, 2)(
        *[T(2, 3, 4)] * 3, key_padding_mask=T(2, 2)
    ),
    "causal without a mask": lambda nn, T: nn.MultiheadAttention(4, 2)(
        *[T(2, 3, 4)] * 3, is_causal=True
    ),
    "transformer batch": lambda nn, T: nn.Transformer(4, 2, 1, 1, 8)(T(2, 3, 4), T(2, 2, 4)),
    "transformer size": lambda nn, T: nn.Transformer(4, 2, 1, 1, 8)(T(2, 3, 5), T(2, 3, 5)),
    "ranking dims": lambda nn, T: nn.MarginRankingLoss()(T(2, 2), T(2), T(2)),
    "cosine target": lambda nn, T: nn.CosineEmbeddingLoss()(T(2, 3), T(2, 3), T(2, 2)),
    "cosine input": lambda nn, T: nn.CosineEmbeddingLoss()(T(3), T(3), T(2)),
    "triplet dims": lambda nn, T: nn.TripletMarginLoss()(T(2, 3), T(3), T(2, 3)),
    "gaussian var shape": lambda nn, T: nn.GaussianNLLLoss()(T(2, 3), T(2, 3), T(3)),
    "gaussian var sign": lambda nn, T: nn.GaussianNLLLoss()(T(2, 3), T(2, 3), -T(2, 3)),
    "gaussian reduction": lambda nn, T: nn.GaussianNLLLoss(reduction="x")(*[T(2, 3)] * 3),
    "poisson reduction": lambda nn, T: nn.PoissonNLLLoss(reduction="x")(T(2, 3), T(2, 3)),
    "hinge reduction": lambda nn, T: nn.HingeEmbeddingLoss(reduction="x")(T(2, 3), T(2, 3)),
    "mse reduction": lambda nn, T: nn.MSELoss(reduction="x")(T(2, 3), T(2, 3)),
    "class range": lambda nn, T: nn.CrossEntropyLoss()(T(2, 3), T(2).long() * 5),
    "class batch": lambda nn, T: nn.CrossEntropyLoss()(T(2, 3), T(3).long()),
    "embedding range": lambda nn, T: nn.Embedding(3, 2)(T(2).long() * 7),
    "embedding dtype": lambda nn, T: nn.Embedding(3, 2)(T(2)),
    "conv channels": lambda nn, T: nn.Conv2d(3, 4, 3)(T(1, 2, 5, 5)),
    "conv dims": lambda nn, T: nn.Conv2d(3, 4, 3)(T(5, 5)),
    "conv size": lambda nn, T: nn.Conv2d(3, 4, 3)(T(1, 3, 2, 2)),
    "pool dims": lambda nn, T: nn.MaxPool2d(2)(T(4)),
    "pool padding": lambda nn, T: nn.MaxPool2d(2, padding=2)(T(1, 1, 4, 4)),
    "flatten dims": lambda nn, T: nn.Flatten(2)(T(4, 2)),
}


@pytest.mark.parametrize("what", CALLS)
def test_call(what: str) -> None:
    def program(library: Any) -> Any:
        with warnings.catch_warnings():
            # What PyTorch has to say about nested tensors.
            warnings.filterwarnings("ignore", "enable_nested_tensor")
            return CALLS[what](library.nn, library.ones)

    same(
        program,
        raises=(ValueError, TypeError, AssertionError, RuntimeError, IndexError),
        message="exact",
    )


@pytest.mark.parametrize("size_average", [None, True, False])
@pytest.mark.parametrize("reduce", [None, True, False])
@pytest.mark.parametrize("name", ["MSELoss", "HingeEmbeddingLoss", "CrossEntropyLoss"])
def test_older_ways_to_say_reduction(name: str, size_average: Any, reduce: Any) -> None:
    def program(library: Any) -> Any:
        loss = getattr(library.nn, name)(size_average=size_average, reduce=reduce)
        return loss.reduction

    warns = None if size_average is reduce is None else "will be deprecated"
    same(program, warns=warns, message="exact")


def test_dropout_of_a_single_layer_is_warned_about() -> None:
    same(
        lambda library: repr(library.nn.LSTM(3, 4, dropout=0.5)),
        warns="num_layers greater than 1",
        message="exact",
    )


def test_instance_norm_warns_about_channels() -> None:
    same(
        lambda library: library.nn.InstanceNorm2d(3)(library.ones(2, 4, 5, 5)).shape[1],
        warns="does not match num_features",
        message="exact",
    )


def test_masks_of_two_kinds_are_warned_about() -> None:
    def program(library: Any) -> Any:
        x = library.ones(2, 3, 4)
        attention = library.nn.MultiheadAttention(4, 2)
        hidden = library.zeros(3, 2).bool()
        mask = library.zeros(2, 2)
        return attention(x, x, x, key_padding_mask=hidden, attn_mask=mask)[1].shape[0]

    same(program, warns="mismatched", message="exact")
