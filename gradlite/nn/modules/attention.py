"""Multi-head attention."""

from __future__ import annotations

from typing import Any

from gradlite.nn import init
from gradlite.nn.module import Module
from gradlite.nn.modules.linear import NonDynamicallyQuantizableLinear
from gradlite.nn.parameter import Parameter
from gradlite.ops.creation import empty
from gradlite.ops.multihead import attend
from gradlite.tensor import Tensor

__all__ = ["MultiheadAttention"]


class MultiheadAttention(Module):
    """Concat(head_1, ..., head_h) W_O with head_i = Attention(Q W_Qi, K W_Ki, V W_Vi).

    Attention(Q, K, V) = softmax(Q Kᵀ / sqrt(head size)) V (Vaswani et al., 2017).

    Args:
        embed_dim: size of the queries and of the output; ``num_heads`` divides it.
        dropout: probability of dropping an attention weight in training.
        add_bias_kv, add_zero_attn: let attention also go to a learned key and value, or to zeros.
        kdim, vdim: sizes of keys and values where they differ from ``embed_dim``.
        batch_first: whether tensors are ``(N, T, E)`` instead of ``(T, N, E)``.

    ``in_proj_weight`` ``(3 embed_dim, embed_dim)`` stacks W_Q, W_K and W_V, which are three
    parameters when kdim or vdim differ.

    Initialised by `init.xavier_uniform_`, the output projection like `Linear`; biases are 0.
    """

    in_proj_weight: Parameter | None
    in_proj_bias: Parameter | None
    q_proj_weight: Parameter | None
    k_proj_weight: Parameter | None
    v_proj_weight: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        if embed_dim <= 0 or num_heads <= 0:
            raise ValueError(
                f"embed_dim and num_heads must be greater than 0, got embed_dim={embed_dim} and "
                f"num_heads={num_heads} instead"
            )
        super().__init__()
        self.embed_dim = embed_dim
        self.kdim = embed_dim if kdim is None else kdim
        self.vdim = embed_dim if vdim is None else vdim
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim
        self.num_heads = num_heads
        self.dropout = dropout
        self.batch_first = batch_first
        self.head_dim = embed_dim // num_heads
        if self.head_dim * num_heads != embed_dim:
            raise AssertionError("embed_dim must be divisible by num_heads")
        self.add_zero_attn = add_zero_attn
        where = {"device": device, "dtype": dtype}
        same = self._qkv_same_embed_dim
        shapes: dict[str, tuple[int, ...] | None] = {
            "q_proj_weight": None if same else (embed_dim, embed_dim),
            "k_proj_weight": None if same else (embed_dim, self.kdim),
            "v_proj_weight": None if same else (embed_dim, self.vdim),
            "in_proj_weight": (3 * embed_dim, embed_dim) if same else None,
            "in_proj_bias": (3 * embed_dim,) if bias else None,
            "bias_k": (1, 1, embed_dim) if add_bias_kv else None,
            "bias_v": (1, 1, embed_dim) if add_bias_kv else None,
        }
        for name, shape in shapes.items():
            value = None if shape is None else Parameter(empty(shape, **where))
            self.register_parameter(name, value)
        self.out_proj = NonDynamicallyQuantizableLinear(embed_dim, embed_dim, bias, **where)
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        for weight in (
            *(self.in_proj_weight, self.q_proj_weight, self.k_proj_weight, self.v_proj_weight),
        ):
            if weight is not None:
                init.xavier_uniform_(weight)
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            assert self.out_proj.bias is not None
            init.zeros_(self.out_proj.bias)
        for bias in (self.bias_k, self.bias_v):
            if bias is not None:
                init.xavier_normal_(bias)

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        key_padding_mask: Tensor | None = None,
        need_weights: bool = True,
        attn_mask: Tensor | None = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Attend from ``query`` ``(T, N, E)`` to ``key`` and ``value`` ``(S, N, *)``.

        Args:
            key_padding_mask: ``(N, S)``, True for keys to ignore, or floats to add.
            need_weights: also return the attention weights; False is faster.
            attn_mask: ``(T, S)`` or ``(N * num_heads, T, S)``, True for pairs to ignore, or
                floats to add.
            average_attn_weights: the weights' mean over the heads instead of one set per head.
            is_causal: a hint that ``attn_mask`` is the causal mask.

        Returns:
            The output ``(T, N, E)`` and the weights ``(N, T, S)`` or ``(N, num_heads, T, S)``.
        """
        return attend(
            *(query, key, value, self.embed_dim, self.num_heads),
            *(self.in_proj_weight, self.in_proj_bias, self.bias_k, self.bias_v),
            *(self.add_zero_attn, self.dropout, self.out_proj.weight, self.out_proj.bias),
            *(self.training, key_padding_mask, need_weights, attn_mask),
            not self._qkv_same_embed_dim,
            *(self.q_proj_weight, self.k_proj_weight, self.v_proj_weight, None, None),
            *(average_attn_weights, is_causal, self.batch_first),
        )
