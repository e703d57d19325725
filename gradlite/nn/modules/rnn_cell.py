"""One step of a recurrent network: RNNCell, LSTMCell, GRUCell."""

from __future__ import annotations

import math
from typing import Any

from gradlite.nn import functional as F
from gradlite.nn import init
from gradlite.nn.module import Module
from gradlite.nn.parameter import Parameter
from gradlite.ops.casting import under
from gradlite.ops.creation import empty, zeros
from gradlite.tensor import Tensor

__all__ = ["GRUCell", "LSTMCell", "RNNCell", "RNNCellBase"]


# A cell on the CPU keeps its state in float32 under autocast, as PyTorch's does.
_lstm_step = under(("plain", "lower"), F.lstm_sequence)


class RNNCellBase(Module):
    """What the cells share: parameters, initial values and checks."""

    weight_ih: Parameter
    weight_hh: Parameter
    bias_ih: Parameter | None
    bias_hh: Parameter | None

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool,
        num_chunks: int,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.input_size = input_size
        self.hidden_size = hidden_size
        self.bias = bias
        rows = num_chunks * hidden_size
        where = {"device": device, "dtype": dtype}
        self.weight_ih = Parameter(empty(rows, input_size, **where))
        self.weight_hh = Parameter(empty(rows, hidden_size, **where))
        for name in ("bias_ih", "bias_hh"):
            self.register_parameter(name, Parameter(empty(rows, **where)) if bias else None)
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """Draw the initial values again: uniform up to 1/sqrt(hidden_size)."""
        bound = 1.0 / math.sqrt(self.hidden_size) if self.hidden_size > 0 else 0
        for weight in self.parameters():
            init.uniform_(weight, -bound, bound)

    def _step(
        self, sequence: Any, input: Tensor, hx: tuple[Tensor, ...] | None, states: int, *extra: Any
    ) -> tuple[Tensor, ...]:
        """Run a sequence op over one step; the new state."""
        name = type(self).__name__
        if input.dim() not in (1, 2):
            raise ValueError(f"{name}: Expected input to be 1D or 2D, got {input.dim()}D instead")
        for place, h in enumerate(hx or ()):
            if h.dim() not in (1, 2):
                which = "hidden" if states == 1 else f"hx[{place}]"
                raise ValueError(f"{name}: Expected {which} to be 1D or 2D, got {h.dim()}D instead")
        single = input.dim() == 1
        if single:
            input = input.unsqueeze(0)  # type: ignore[attr-defined]
            hx = None if hx is None else tuple(h.unsqueeze(0) for h in hx)  # type: ignore[attr-defined]
        if hx is None:
            shape = (input.shape[0], self.hidden_size)
            hx = (zeros(shape, dtype=input.dtype, device=input.device),) * states
        if input.shape[1] != self.input_size:
            raise RuntimeError(
                f"input has inconsistent input_size: got {input.shape[1]} expected "
                f"{self.input_size}"
            )
        for place, h in enumerate(hx):
            if h.shape[0] != input.shape[0]:
                raise RuntimeError(
                    f"Input batch size {input.shape[0]} doesn't match hidden{place} batch size "
                    f"{h.shape[0]}"
                )
            if h.shape[1] != self.hidden_size:
                raise RuntimeError(
                    f"hidden{place} has inconsistent hidden_size: got {h.shape[1]}, expected "
                    f"{self.hidden_size}"
                )
        weights = (self.weight_ih, self.weight_hh, self.bias_ih, self.bias_hh)
        _, *state = sequence(input.unsqueeze(0), *hx, *weights, *extra, False)  # type: ignore[attr-defined]
        return tuple(h.squeeze(0) for h in state) if single else tuple(state)

    def extra_repr(self) -> str:
        extra = f"{self.input_size}, {self.hidden_size}"
        if not self.bias:
            extra += f", bias={self.bias}"
        nonlinearity = self.__dict__.get("nonlinearity", "tanh")
        if nonlinearity != "tanh":
            extra += f", nonlinearity={nonlinearity}"
        return extra


class RNNCell(RNNCellBase):
    """h' = tanh(W_ih x + b_ih + W_hh h + b_hh), or relu; see `RNN`.

    Shapes: x ``(N, input_size)`` or ``(input_size,)``, h ``(N, hidden_size)``, zeros when left
    out.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        nonlinearity: str = "tanh",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 1, device, dtype)
        self.nonlinearity = nonlinearity

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        if self.nonlinearity not in ("tanh", "relu"):
            raise RuntimeError(f"Unknown nonlinearity: {self.nonlinearity}")
        state = None if hx is None else (hx,)
        (h,) = self._step(F.rnn_sequence, input, state, 1, self.nonlinearity)
        return h


class LSTMCell(RNNCellBase):
    """One step of an `LSTM`: from x and (h, c) to the next (h, c)."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 4, device, dtype)

    def forward(
        self, input: Tensor, hx: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        state = None if hx is None else (hx[0], hx[1])
        h, c = self._step(_lstm_step, input, state, 2)
        return h, c


class GRUCell(RNNCellBase):
    """One step of a `GRU`: from x and h to the next h."""

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(input_size, hidden_size, bias, 3, device, dtype)

    def forward(self, input: Tensor, hx: Tensor | None = None) -> Tensor:
        state = None if hx is None else (hx,)
        (h,) = self._step(F.gru_sequence, input, state, 1)
        return h
