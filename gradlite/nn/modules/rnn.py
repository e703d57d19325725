"""Recurrent networks over whole sequences: RNN, LSTM, GRU."""

from __future__ import annotations

import math
import numbers
import warnings
from typing import Any

from gradlite.nn import functional as F
from gradlite.nn import init
from gradlite.nn.module import Module
from gradlite.nn.parameter import Parameter
from gradlite.nn.utils.rnn import PackedSequence, runs
from gradlite.ops.creation import empty, zeros
from gradlite.ops.joining import cat, stack
from gradlite.tensor import Tensor

__all__ = ["GRU", "LSTM", "RNN", "RNNBase"]

GATES = {"LSTM": 4, "GRU": 3, "RNN_TANH": 1, "RNN_RELU": 1}
State = tuple[Tensor, ...]  # (h,), or (h, c) of an LSTM
Span = tuple[int, int, int]  # steps from start to stop in which so many sequences go on


class RNNBase(Module):
    """What RNN, LSTM and GRU share: the parameters and the walk over layers and directions.

    The parameters of layer k are ``weight_ih_lk`` ``(gates * hidden_size, input size)``,
    ``weight_hh_lk`` ``(gates * hidden_size, hidden_size)``, ``bias_ih_lk`` and ``bias_hh_lk``;
    those of the backward direction end in ``_reverse``. With ``proj_size``, ``weight_hr_lk``
    ``(proj_size, hidden_size)`` comes last, and hidden states have that size.
    """

    def __init__(
        self,
        mode: str,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if (
            not isinstance(dropout, numbers.Number)
            or isinstance(dropout, bool)
            or not 0 <= dropout <= 1
        ):
            raise ValueError(
                "dropout should be a number in range [0, 1] representing the probability of an "
                "element being zeroed"
            )
        if dropout > 0 and num_layers == 1:
            warnings.warn(
                "dropout option adds dropout after all but last recurrent layer, so non-zero "
                f"dropout expects num_layers greater than 1, but got dropout={dropout} and "
                f"num_layers={num_layers}",
                stacklevel=3,
            )
        for name, flag in (("bias", bias), ("batch_first", batch_first)):
            if not isinstance(flag, bool):
                raise TypeError(f"{name} should be of type bool, got: {type(flag).__name__}")
        if not isinstance(input_size, int):
            raise TypeError(f"input_size should be of type int, got: {type(input_size).__name__}")
        if input_size <= 0:
            raise ValueError("input_size must be greater than zero")
        if not isinstance(hidden_size, int):
            raise TypeError(f"hidden_size should be of type int, got: {type(hidden_size).__name__}")
        if hidden_size <= 0:
            raise ValueError("hidden_size must be greater than zero")
        if num_layers <= 0:
            raise ValueError("num_layers must be greater than zero")
        if proj_size != 0:
            if mode != "LSTM":
                raise ValueError("proj_size argument is only supported for LSTM, not RNN or GRU")
            if proj_size < 0:
                raise ValueError(
                    "proj_size should be a positive integer or zero to disable projections"
                )
            if proj_size >= hidden_size:
                raise ValueError("proj_size has to be smaller than hidden_size")
        self.mode = mode
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.num_layers = num_layers
        self.bias = bias
        self.batch_first = batch_first
        self.dropout = float(dropout)
        self.bidirectional = bidirectional
        self.proj_size = proj_size
        directions = 2 if bidirectional else 1
        rows = GATES[mode] * hidden_size
        where = {"device": device, "dtype": dtype}
        for layer in range(num_layers):
            columns = input_size if layer == 0 else (proj_size or hidden_size) * directions
            shapes = {
                "weight_ih": (rows, columns),
                "weight_hh": (rows, proj_size or hidden_size),
                "weight_hr": (proj_size, hidden_size),
            }
            for reverse in range(directions):
                for name in self._names(layer, reverse):
                    shape = shapes.get(name[:9], (rows,))
                    setattr(self, name, Parameter(empty(shape, **where)))
        self.reset_parameters()

    def _names(self, layer: int, reverse: int) -> list[str]:
        kinds = ["weight_ih", "weight_hh", *(["bias_ih", "bias_hh"] if self.bias else [])]
        kinds += ["weight_hr"] if self.proj_size else []
        return [f"{kind}_l{layer}{'_reverse' if reverse else ''}" for kind in kinds]

    @property
    def all_weights(self) -> list[list[Parameter]]:
        """The parameters, one list per layer and direction."""
        directions = 2 if self.bidirectional else 1
        return [
            [getattr(self, name) for name in self._names(layer, reverse)]
            for layer in range(self.num_layers)
            for reverse in range(directions)
        ]

    def flatten_parameters(self) -> None:
        """Nothing to do: there is no cuDNN that wants one block of memory."""

    def reset_parameters(self) -> None:
        """Draw the initial values again: uniform up to 1/sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size)
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _sequence(self, input: Tensor, state: State, weights: list[Any], reverse: bool) -> Any:
        """One layer in one direction over ``(T, N, input)``: the outputs, then the last state."""
        raise NotImplementedError

    # --------------------------------------------------------------------------- checks
    def _is_batched(self, input: Tensor, hx: State | None) -> bool:
        if input.dim() not in (2, 3):
            raise ValueError(
                f"{type(self).__name__}: Expected input to be 2D or 3D, got {input.dim()}D instead"
            )
        batched = input.dim() == 3
        if hx is not None:
            dims = [h.dim() for h in hx]
            if any(dim != input.dim() for dim in dims):
                form = "batched" if batched else "unbatched"
                names, got = "hx", f"{dims[0]}-D tensor"
                if len(dims) == 2:
                    names, got = "hx and cx", f"({dims[0]}-D, {dims[1]}-D) tensors"
                raise RuntimeError(
                    f"For {form} {input.dim()}-D input, {names} should also be {input.dim()}-D "
                    f"but got {got}"
                )
        return batched

    def _check_input(self, input: Tensor) -> None:
        weight = self.weight_ih_l0
        if input.dtype is not weight.dtype:
            raise ValueError(
                f"RNN input dtype ({input.dtype}) does not match weight dtype ({weight.dtype}). "
                f"Convert input: input.to({weight.dtype}), or convert model: "
                f"model.to({input.dtype})"
            )
        if input.shape[-1] != self.input_size:
            raise RuntimeError(
                "input.size(-1) must be equal to input_size. Expected "
                f"{self.input_size}, got {input.shape[-1]}"
            )

    def _check_state(self, state: State, batch: int) -> None:
        count = self.num_layers * (2 if self.bidirectional else 1)
        for place, (h, size) in enumerate(zip(state, self._sizes())):
            expected = (count, batch, size)
            if h.shape != expected:
                name = f"hidden[{place}]" if len(state) == 2 else "hidden"
                raise RuntimeError(f"Expected {name} size {expected}, got {list(h.shape)}")

    # -------------------------------------------------------------------------- forward
    def _forward(self, input: Any, hx: State | None, states: int) -> tuple[Any, State]:
        if isinstance(input, PackedSequence):
            return self._forward_packed(input, hx, states)
        batched = self._is_batched(input, hx)
        self._check_input(input)
        if not batched:
            input = input.unsqueeze(1)
            hx = None if hx is None else tuple(h.unsqueeze(1) for h in hx)  # type: ignore[attr-defined]
        elif self.batch_first:
            input = input.transpose(0, 1)
        if input.shape[0] == 0:
            raise RuntimeError("Expected sequence length to be larger than 0 in RNN")
        batch = input.shape[1]
        state = self._initial(input, batch, states) if hx is None else hx
        self._check_state(state, batch)
        output, state = self._layers(input, state, None)
        if not batched:
            return output.squeeze(1), tuple(h.squeeze(1) for h in state)  # type: ignore[attr-defined]
        return (output.transpose(0, 1) if self.batch_first else output), state  # type: ignore[attr-defined]

    def _forward_packed(
        self, input: PackedSequence, hx: State | None, states: int
    ) -> tuple[PackedSequence, State]:
        data, batch_sizes, sorted_indices, unsorted_indices = input
        self._check_input(data)
        spans = runs(batch_sizes.array)
        batch = spans[0][2]
        if hx is None:
            state = self._initial(data, batch, states)
        else:
            state = _permuted(hx, sorted_indices)
        self._check_state(state, batch)
        output, state = self._layers(data, state, spans)
        packed = PackedSequence(output, batch_sizes, sorted_indices, unsorted_indices)
        return packed, _permuted(state, unsorted_indices)

    def _initial(self, input: Tensor, batch: int, states: int) -> State:
        count = self.num_layers * (2 if self.bidirectional else 1)
        where: dict[str, Any] = {"dtype": input.dtype, "device": input.device}
        return tuple(zeros((count, batch, size), **where) for size in self._sizes()[:states])

    def _sizes(self) -> tuple[int, int]:
        """The sizes of h and of c."""
        return self.proj_size or self.hidden_size, self.hidden_size

    def _layers(
        self, input: Tensor, state: State, spans: list[Span] | None
    ) -> tuple[Tensor, State]:
        directions = 2 if self.bidirectional else 1
        weights = self.all_weights
        last: list[State] = []
        for layer in range(self.num_layers):
            outputs = []
            for reverse in range(directions):
                place = layer * directions + reverse
                initial = tuple(h[place] for h in state)  # type: ignore[index]
                given = [*weights[place][:2], *(weights[place][2:4] if self.bias else [None, None])]
                given += weights[place][-1:] if self.proj_size else []
                if spans is None:
                    output, *final = self._sequence(input, initial, given, bool(reverse))
                else:
                    output, *final = self._packed(input, initial, given, bool(reverse), spans)
                outputs.append(output)
                last.append(tuple(final))
            input = outputs[0] if directions == 1 else cat(outputs, -1)
            if self.dropout > 0 and layer < self.num_layers - 1:
                input = F.dropout(input, self.dropout, self.training)
        return input, tuple(stack(list(h)) for h in zip(*last, strict=True))

    def _packed(
        self, data: Tensor, initial: State, weights: list[Any], reverse: bool, spans: list[Span]
    ) -> tuple[Tensor, ...]:
        """`_sequence` over packed data, span by span of steps with one batch size."""
        offsets, offset = [], 0
        for start, stop, size in spans:
            offsets.append(offset)
            offset += (stop - start) * size
        order = range(len(spans))
        outputs: list[Tensor] = []
        ended: list[State] = []  # The last states of sequences that have ended, longest first.
        running = spans[-1 if reverse else 0][2]
        state = tuple(h[:running] for h in initial)  # type: ignore[index]
        for place in reversed(order) if reverse else order:
            start, stop, size = spans[place]
            if size < running:
                ended.insert(0, tuple(h[size:] for h in state))  # type: ignore[index]
                state = tuple(h[:size] for h in state)  # type: ignore[index]
            elif size > running:
                state = tuple(
                    cat([h, h0[running:size]])  # type: ignore[index]
                    for h, h0 in zip(state, initial, strict=True)
                )
            running = size
            piece = data[offsets[place] : offsets[place] + (stop - start) * size]  # type: ignore[index]
            piece = piece.reshape(stop - start, size, -1)
            output, *final = self._sequence(piece, state, weights, reverse)
            state = tuple(final)
            outputs.insert(0 if reverse else place, output.reshape(-1, output.shape[-1]))
        final_state = [cat(list(parts)) for parts in zip(state, *ended, strict=True)]
        return (cat(outputs), *final_state)

    def extra_repr(self) -> str:
        extra = f"{self.input_size}, {self.hidden_size}"
        if self.proj_size:
            extra += f", proj_size={self.proj_size}"
        if self.num_layers != 1:
            extra += f", num_layers={self.num_layers}"
        if not self.bias:
            extra += f", bias={self.bias}"
        if self.batch_first:
            extra += f", batch_first={self.batch_first}"
        if self.dropout != 0:
            extra += f", dropout={self.dropout}"
        if self.bidirectional:
            extra += f", bidirectional={self.bidirectional}"
        return extra


def _permuted(state: State, order: Tensor | None) -> State:
    if order is None:
        return state
    return tuple(h.index_select(1, order) for h in state)  # type: ignore[attr-defined]


class RNN(RNNBase):
    """h_t = tanh(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh), or relu (Elman, 1990).

    Args:
        input_size, hidden_size: sizes of x_t and h_t.
        num_layers: layers on top of each other.
        nonlinearity: "tanh" or "relu".
        batch_first: whether input and output are ``(N, T, *)`` instead of ``(T, N, *)``.
        dropout: probability of dropping outputs between the layers.
        bidirectional: also run backwards, the outputs side by side.

    Shapes: input ``(T, N, input_size)``, or ``(T, input_size)``, or a PackedSequence; hx
    ``(num_layers * directions, N, hidden_size)``, zeros when left out. Returns the output
    ``(T, N, directions * hidden_size)`` and the last hx.

    Initialised uniformly between -1/sqrt(hidden_size) and 1/sqrt(hidden_size).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        nonlinearity: str = "tanh",
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        device: Any = None,
        dtype: Any = None,
        *,
        proj_size: int = 0,
    ) -> None:
        if nonlinearity not in ("tanh", "relu"):
            raise ValueError(
                f"Unknown nonlinearity '{nonlinearity}'. Select from 'tanh' or 'relu'."
            )
        super().__init__(
            f"RNN_{nonlinearity.upper()}",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )
        self.nonlinearity = nonlinearity

    def _sequence(self, input: Tensor, state: State, weights: list[Any], reverse: bool) -> Any:
        (h,) = state
        w_ih, w_hh, b_ih, b_hh = weights
        return F.rnn_sequence(input, h, w_ih, w_hh, b_ih, b_hh, self.nonlinearity, reverse)

    def forward(self, input: Any, hx: Tensor | None = None) -> Any:
        output, (h,) = self._forward(input, None if hx is None else (hx,), 1)
        return output, h


class LSTM(RNNBase):
    """i, f, o = sigmoid, g = tanh of W_ih x_t + b_ih + W_hh h_(t-1) + b_hh, in the order i f g o;
    c_t = f c_(t-1) + i g; h_t = o tanh(c_t) (Hochreiter and Schmidhuber, 1997; Gers et al., 2000).

    Arguments and shapes are those of `RNN`, without ``nonlinearity``; the state is a pair
    ``(h, c)``. Returns the output and the last ``(h, c)``.

    >>> import gradlite
    >>> output, (h, c) = LSTM(10, 20, 2)(gradlite.zeros(5, 3, 10))
    >>> output.shape, h.shape
    (gradlite.Size([5, 3, 20]), gradlite.Size([2, 3, 20]))
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "LSTM",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    def _sequence(self, input: Tensor, state: State, weights: list[Any], reverse: bool) -> Any:
        h, c = state
        w_ih, w_hh, b_ih, b_hh, *projection = weights
        return F.lstm_sequence(input, h, c, w_ih, w_hh, b_ih, b_hh, reverse, *projection)

    def forward(self, input: Any, hx: State | None = None) -> Any:
        return self._forward(input, None if hx is None else (hx[0], hx[1]), 2)


class GRU(RNNBase):
    """r, z = sigmoid(W_ih x_t + b_ih + W_hh h_(t-1) + b_hh); n = tanh(W_in x_t + b_in + r (W_hn
    h_(t-1) + b_hn)); h_t = (1 - z) n + z h_(t-1); in the order r z n (Cho et al., 2014).

    Arguments and shapes are those of `RNN`, without ``nonlinearity``.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        bias: bool = True,
        batch_first: bool = False,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            "GRU",
            input_size,
            hidden_size,
            num_layers,
            bias,
            batch_first,
            dropout,
            bidirectional,
            proj_size,
            device,
            dtype,
        )

    def _sequence(self, input: Tensor, state: State, weights: list[Any], reverse: bool) -> Any:
        (h,) = state
        w_ih, w_hh, b_ih, b_hh = weights
        return F.gru_sequence(input, h, w_ih, w_hh, b_ih, b_hh, reverse)

    def forward(self, input: Any, hx: Tensor | None = None) -> Any:
        output, (h,) = self._forward(input, None if hx is None else (hx,), 1)
        return output, h
