"""The Transformer of Vaswani et al. (2017): encoder, decoder and both together."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

from gradlite.nn import functional as F
from gradlite.nn import init
from gradlite.nn.fusion import linear_activation, linear_residual, residual
from gradlite.nn.module import Module
from gradlite.nn.modules.attention import MultiheadAttention
from gradlite.nn.modules.container import ModuleList
from gradlite.nn.modules.dropout import Dropout
from gradlite.nn.modules.linear import Linear
from gradlite.nn.modules.normalization import LayerNorm
from gradlite.ops.creation import full
from gradlite.tensor import Tensor

__all__ = [
    "Transformer",
    "TransformerDecoder",
    "TransformerDecoderLayer",
    "TransformerEncoder",
    "TransformerEncoderLayer",
]

Activation = Callable[[Tensor], Tensor]


def _activation(activation: str | Activation) -> Any:
    if not isinstance(activation, str):
        return activation
    if activation not in ("relu", "gelu"):
        raise RuntimeError(f"activation should be relu/gelu, not {activation}")
    return getattr(F, activation)


def _clones(module: Module, count: int) -> ModuleList:
    return ModuleList([copy.deepcopy(module) for _ in range(count)])


def _causal_mask(size: int, device: Any = None, dtype: Any = None) -> Tensor:
    mask = full((size, size), float("-inf"), device=device, dtype=dtype)
    return mask.triu(1)  # type: ignore[attr-defined, no-any-return]


class TransformerEncoderLayer(Module):
    """Self-attention and a two-layer network, each with dropout, a shortcut and a layer norm.

    Args:
        d_model: size of the features.
        nhead: number of attention heads.
        dim_feedforward: size of the network's hidden layer.
        activation: "relu", "gelu" or a function of a tensor.
        batch_first: whether tensors are ``(N, T, E)`` instead of ``(T, N, E)``.
        norm_first: normalise what goes into the two blocks instead of the sums after them.
        bias: whether the linear layers and norms have biases.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        self.self_attn = MultiheadAttention(
            d_model, nhead, dropout=dropout, bias=bias, batch_first=batch_first, **where
        )
        self.linear1 = Linear(d_model, dim_feedforward, bias, **where)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **where)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **where)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **where)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        src: Tensor,
        src_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool = False,
    ) -> Tensor:
        """Encode ``(T, N, d_model)``; for the masks see `MultiheadAttention`."""
        masks = src_mask, src_key_padding_mask, is_causal
        x: Any = src
        if self.norm_first:
            x = residual(self.dropout1, self._attend(self.norm1(x), *masks), x)
            return self._feed_forward(self.norm2(x), x)
        x = self.norm1(residual(self.dropout1, self._attend(x, *masks), x))
        return self.norm2(self._feed_forward(x, x))  # type: ignore[no-any-return]

    def _attend(
        self, x: Tensor, mask: Tensor | None, key_padding: Tensor | None, is_causal: bool
    ) -> Tensor:
        x, _ = self.self_attn(
            *(x, x, x),
            attn_mask=mask,
            key_padding_mask=key_padding,
            need_weights=False,
            is_causal=is_causal,
        )
        return x

    def _feed_forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        hidden = self.dropout(linear_activation(self.linear1, self.activation, x))
        return linear_residual(self.linear2, self.dropout2, hidden, shortcut)  # type: ignore[no-any-return]


class TransformerEncoder(Module):
    """A stack of copies of one encoder layer, and a norm after them if given.

    ``enable_nested_tensor`` and ``mask_check`` have no effect: there are no nested tensors.
    """

    def __init__(
        self,
        encoder_layer: TransformerEncoderLayer,
        num_layers: int,
        norm: Module | None = None,
        enable_nested_tensor: bool = True,
        mask_check: bool = True,
    ) -> None:
        super().__init__()
        self.layers = _clones(encoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        src: Tensor,
        mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        is_causal: bool | None = None,
    ) -> Tensor:
        """Encode ``(T, N, d_model)`` through all layers."""
        for layer in self.layers:
            src = layer(
                src,
                src_mask=mask,
                src_key_padding_mask=src_key_padding_mask,
                is_causal=bool(is_causal),
            )
        return src if self.norm is None else self.norm(src)


class TransformerDecoderLayer(Module):
    """Self-attention, attention to the encoder's output and a two-layer network, each with
    dropout, a shortcut and a layer norm. Arguments as for `TransformerEncoderLayer`.
    """

    def __init__(
        self,
        d_model: int,
        nhead: int,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        attention = {"dropout": dropout, "bias": bias, "batch_first": batch_first, **where}
        self.self_attn = MultiheadAttention(d_model, nhead, **attention)
        self.multihead_attn = MultiheadAttention(d_model, nhead, **attention)
        self.linear1 = Linear(d_model, dim_feedforward, bias, **where)
        self.dropout = Dropout(dropout)
        self.linear2 = Linear(dim_feedforward, d_model, bias, **where)
        self.norm_first = norm_first
        self.norm1 = LayerNorm(d_model, layer_norm_eps, bias=bias, **where)
        self.norm2 = LayerNorm(d_model, layer_norm_eps, bias=bias, **where)
        self.norm3 = LayerNorm(d_model, layer_norm_eps, bias=bias, **where)
        self.dropout1 = Dropout(dropout)
        self.dropout2 = Dropout(dropout)
        self.dropout3 = Dropout(dropout)
        self.activation = _activation(activation)

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool = False,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Decode ``tgt`` ``(T, N, d_model)`` with the encoder's output ``memory``."""
        to_self = tgt_mask, tgt_key_padding_mask, tgt_is_causal
        to_memory = memory, memory_mask, memory_key_padding_mask, memory_is_causal
        x: Any = tgt
        if self.norm_first:
            y = self.norm1(x)
            x = residual(self.dropout1, self._attend(self.self_attn, y, y, *to_self), x)
            y = self._attend(self.multihead_attn, self.norm2(x), *to_memory)
            x = residual(self.dropout2, y, x)
            x = self._feed_forward(self.norm3(x), x)
        else:
            y = self._attend(self.self_attn, x, x, *to_self)
            x = self.norm1(residual(self.dropout1, y, x))
            y = self._attend(self.multihead_attn, x, *to_memory)
            x = self.norm2(residual(self.dropout2, y, x))
            x = self.norm3(self._feed_forward(x, x))
        return x  # type: ignore[no-any-return]

    @staticmethod
    def _attend(
        attention: Module,
        x: Tensor,
        memory: Tensor,
        mask: Tensor | None,
        key_padding: Tensor | None,
        is_causal: bool,
    ) -> Tensor:
        output, _ = attention(
            *(x, memory, memory),
            attn_mask=mask,
            key_padding_mask=key_padding,
            need_weights=False,
            is_causal=is_causal,
        )
        return output  # type: ignore[no-any-return]

    def _feed_forward(self, x: Tensor, shortcut: Tensor) -> Tensor:
        hidden = self.dropout(linear_activation(self.linear1, self.activation, x))
        return linear_residual(self.linear2, self.dropout3, hidden, shortcut)  # type: ignore[no-any-return]


class TransformerDecoder(Module):
    """A stack of copies of one decoder layer, and a norm after them if given."""

    def __init__(
        self,
        decoder_layer: TransformerDecoderLayer,
        num_layers: int,
        norm: Module | None = None,
    ) -> None:
        super().__init__()
        self.layers = _clones(decoder_layer, num_layers)
        self.num_layers = num_layers
        self.norm = norm

    def forward(
        self,
        tgt: Tensor,
        memory: Tensor,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Decode ``(T, N, d_model)`` through all layers."""
        for layer in self.layers:
            tgt = layer(
                *(tgt, memory, tgt_mask, memory_mask),
                *(tgt_key_padding_mask, memory_key_padding_mask),
                *(bool(tgt_is_causal), memory_is_causal),
            )
        return tgt if self.norm is None else self.norm(tgt)


class Transformer(Module):
    """Encoder and decoder stacks, each with a norm at its end.

    Initialised by `init.xavier_uniform_` wherever a parameter has more than one dimension.
    """

    def __init__(
        self,
        d_model: int = 512,
        nhead: int = 8,
        num_encoder_layers: int = 6,
        num_decoder_layers: int = 6,
        dim_feedforward: int = 2048,
        dropout: float = 0.1,
        activation: str | Activation = "relu",
        custom_encoder: Any = None,
        custom_decoder: Any = None,
        layer_norm_eps: float = 1e-5,
        batch_first: bool = False,
        norm_first: bool = False,
        bias: bool = True,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        where = {"device": device, "dtype": dtype}
        layer: tuple[Any, ...] = (d_model, nhead, dim_feedforward, dropout, activation)
        layer += (layer_norm_eps, batch_first, norm_first, bias)

        def norm() -> LayerNorm:
            return LayerNorm(d_model, layer_norm_eps, bias=bias, **where)

        self.encoder = custom_encoder or TransformerEncoder(
            TransformerEncoderLayer(*layer, **where), num_encoder_layers, norm()
        )
        self.decoder = custom_decoder or TransformerDecoder(
            TransformerDecoderLayer(*layer, **where), num_decoder_layers, norm()
        )
        for parameter in self.parameters():
            if parameter.dim() > 1:
                init.xavier_uniform_(parameter)
        self.d_model = d_model
        self.nhead = nhead
        self.batch_first = batch_first

    def forward(
        self,
        src: Tensor,
        tgt: Tensor,
        src_mask: Tensor | None = None,
        tgt_mask: Tensor | None = None,
        memory_mask: Tensor | None = None,
        src_key_padding_mask: Tensor | None = None,
        tgt_key_padding_mask: Tensor | None = None,
        memory_key_padding_mask: Tensor | None = None,
        src_is_causal: bool | None = None,
        tgt_is_causal: bool | None = None,
        memory_is_causal: bool = False,
    ) -> Tensor:
        """Encode ``src`` ``(S, N, d_model)`` and decode ``tgt`` ``(T, N, d_model)``."""
        batch = 0 if self.batch_first else 1
        if src.dim() == 3 and src.shape[batch] != tgt.shape[batch]:
            raise RuntimeError("the batch number of src and tgt must be equal")
        if src.shape[-1] != self.d_model or tgt.shape[-1] != self.d_model:
            raise RuntimeError("the feature number of src and tgt must be equal to d_model")
        memory = self.encoder(
            src,
            mask=src_mask,
            src_key_padding_mask=src_key_padding_mask,
            is_causal=src_is_causal,
        )
        return self.decoder(  # type: ignore[no-any-return]
            *(tgt, memory, tgt_mask, memory_mask),
            *(tgt_key_padding_mask, memory_key_padding_mask),
            *(tgt_is_causal, memory_is_causal),
        )

    @staticmethod
    def generate_square_subsequent_mask(sz: int, device: Any = None, dtype: Any = None) -> Tensor:
        """The ``(sz, sz)`` mask that hides later positions: -inf above the diagonal, else 0."""
        return _causal_mask(sz, device, dtype)
