# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The Transformer encoder: one class for video, audio, the agnostic backbone and the T5-style text tower.

Sources: paper section 3.3; official modules `TransformerEncoder` and `T5EncoderLM`. The text variant
differs in four places: RMS norm before attention and at the end, unscaled scores, no biases, and a relative
position bias shared by all layers.
"""

import math
from collections.abc import Callable
from contextlib import nullcontext
from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.modeling_layers import GradientCheckpointingLayer
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS

from ..configuration import VattTextConfig
from ..configuration.configuration_vatt import VattTowerConfig
from ..fast_cpu import (
    VattDropout,
    VattLinear,
    attend,
    attends_short,
    attends_slowly,
    drop_out,
    drops_fast,
    project,
)


class VattRMSNorm(nn.Module):
    """T5's norm: no mean subtraction and no bias; statistics in float32."""

    def __init__(self, hidden_size: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(hidden_size))
        self.eps = eps

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        dtype = torch.promote_types(hidden_states.dtype, torch.float32)
        normed = hidden_states.to(dtype)
        normed = normed * torch.rsqrt(normed.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * normed.to(hidden_states.dtype)

    def extra_repr(self) -> str:
        return f"{self.weight.shape[0]}, eps={self.eps}"


class VattRelativeBiasTable(nn.Embedding):
    """Bias of every bucket and head; a separate class for its initialisation."""


class VattRelativePositionBias(nn.Module):
    """T5's bidirectional relative bias: half of the buckets per sign, half of those exact, the rest
    logarithmic up to the maximum distance (official `T5` attention, max distance 64)."""

    def __init__(self, num_buckets: int, max_distance: int, num_heads: int) -> None:
        super().__init__()
        self.num_buckets = num_buckets
        self.max_distance = max_distance
        self.bias = VattRelativeBiasTable(num_buckets, num_heads)

    def buckets(self, length: int, device: torch.device) -> torch.Tensor:
        """Bucket of key position minus query position, (length, length)."""
        place = torch.arange(length, device=device)
        relative = place[None, :] - place[:, None]
        half = self.num_buckets // 2
        exact = half // 2
        distance = relative.abs()
        ratio = torch.log(distance.clamp(min=1) / exact) / math.log(self.max_distance / exact)
        far = (exact + (ratio * (half - exact)).long()).clamp(max=half - 1)
        return torch.where(distance < exact, distance, far) + torch.where(relative > 0, half, 0)

    def forward(self, length: int, device: torch.device) -> torch.Tensor:
        """Bias (1, heads, length, length). `device` is given, as the weight may be offloaded."""
        return self.bias(self.buckets(length, device)).permute(2, 0, 1).unsqueeze(0)


def eager_attention_forward(
    module: nn.Module,
    query: torch.Tensor,
    key: torch.Tensor,
    value: torch.Tensor,
    attention_mask: torch.Tensor | None,
    scaling: float,
    dropout: float = 0.0,
    position_bias: torch.Tensor | None = None,
    **kwargs: Any,
) -> tuple[torch.Tensor, torch.Tensor]:
    """Plain attention; (batch, heads, length, head_dim) in, (batch, length, heads, head_dim) out."""
    scores = torch.matmul(query * scaling, key.transpose(2, 3))
    if position_bias is not None:
        scores = scores + position_bias
    if attention_mask is not None and attention_mask.dtype == torch.bool:  # as SDPA has it, True for words
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = drop_out(nn.functional.softmax(scores, dim=-1), dropout, module.training)
    return torch.matmul(weights, value).transpose(1, 2).contiguous(), weights


class VattAttention(nn.Module):
    """Multi-head self-attention through transformers' attention interface."""

    def __init__(self, config: VattTowerConfig, use_bias: bool, scaling: float) -> None:
        super().__init__()
        self.config = config
        self.head_dim = config.head_dim
        self.scaling = scaling
        self.is_causal = False
        inner = config.num_attention_heads * config.head_dim
        self.q_proj = VattLinear(config.hidden_size, inner, bias=use_bias)
        self.k_proj = VattLinear(config.hidden_size, inner, bias=use_bias)
        self.v_proj = VattLinear(config.hidden_size, inner, bias=use_bias)
        self.o_proj = VattLinear(inner, config.hidden_size, bias=use_bias)

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        position_bias: torch.Tensor | None = None,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        projected = project(hidden_states, self.q_proj, self.k_proj, self.v_proj)
        query, key, value = (values.view(shape).transpose(1, 2) for values in projected)
        attention: Callable = ALL_ATTENTION_FUNCTIONS.get_interface(
            self.config._attn_implementation, eager_attention_forward
        )
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        slow = dropout > 0 and attention is sdpa_attention_forward and not kwargs.get("output_attentions")
        if slow and drops_fast(query):
            # SDPA has no CPU kernel with dropout; it would compute the same with slow dropout.
            attention = eager_attention_forward
        half = attends_slowly(query)
        bare = attention is sdpa_attention_forward and not dropout and not kwargs.get("output_attentions")
        if half and bare and position_bias is None and attends_short(query):
            with torch.autocast("cpu", enabled=False):
                context = attend(query, key, value, attention_mask, self.scaling)
            return self.o_proj(context.reshape(*hidden_states.shape[:-1], -1)), None
        with torch.autocast("cpu", enabled=False) if half else nullcontext():
            if half:
                query, key, value = query.float(), key.float(), value.float()
            kwargs |= {"dropout": dropout, "scaling": self.scaling}
            if position_bias is not None:  # flash attention does not know the argument
                kwargs["position_bias"] = position_bias.float() if half else position_bias
            context, weights = attention(self, query, key, value, attention_mask, **kwargs)
        return self.o_proj(context.reshape(*hidden_states.shape[:-1], -1)), weights


class VattMLP(nn.Module):
    """Dense, activation, dropout, dense; `"geglu"` multiplies the activation with a second dense output."""

    def __init__(self, config: VattTowerConfig, use_bias: bool) -> None:
        super().__init__()
        gated = config.hidden_act == "geglu"
        outer, inner = config.hidden_size, config.intermediate_size
        self.fc1 = VattLinear(outer, inner, bias=use_bias)
        self.fc1_gate = VattLinear(outer, inner, bias=use_bias) if gated else None
        self.activation = ACT2FN["gelu" if gated else config.hidden_act]
        self.dropout = VattDropout(config.hidden_dropout_prob)
        self.fc2 = VattLinear(inner, outer, bias=use_bias)

    def forward(self, hidden_states: torch.Tensor) -> torch.Tensor:
        inner = self.activation(self.fc1(hidden_states))
        if self.fc1_gate is not None:
            inner = inner * self.fc1_gate(hidden_states)
        return self.fc2(self.dropout(inner))


class VattEncoderLayer(GradientCheckpointingLayer):
    """One block, pre-norm or post-norm."""

    def __init__(self, config: VattTowerConfig, is_t5: bool) -> None:
        super().__init__()
        self.pre_norm = config.pre_norm or is_t5
        use_bias = config.use_bias and not is_t5
        norm = VattRMSNorm if is_t5 else nn.LayerNorm
        self.layer_norm1 = norm(config.hidden_size, eps=config.layer_norm_eps)
        self.self_attn = VattAttention(config, use_bias, 1.0 if is_t5 else config.head_dim**-0.5)
        self.layer_norm2 = nn.LayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.mlp = VattMLP(config, use_bias)
        self.dropout = VattDropout(config.hidden_dropout_prob)

    def forward(
        self, hidden_states: torch.Tensor, *masks: torch.Tensor | None, **kwargs: Any
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Arguments as of [`VattAttention`]. Returns the hidden states (batch, length, hidden_size) and, if
        the attention implementation has them, the attention weights (batch, heads, length, length)."""
        normed = self.layer_norm1(hidden_states) if self.pre_norm else hidden_states
        attended, weights = self.self_attn(normed, *masks, **kwargs)
        hidden_states = hidden_states + self.dropout(attended)
        if not self.pre_norm:
            hidden_states = self.layer_norm1(hidden_states)
            return self.layer_norm2(hidden_states + self.dropout(self.mlp(hidden_states))), weights
        return hidden_states + self.dropout(self.mlp(self.layer_norm2(hidden_states))), weights


class VattEncoder(nn.Module):
    """Stack of blocks with final norm and dropout."""

    def __init__(self, config: VattTowerConfig) -> None:
        super().__init__()
        self.config = config
        is_t5 = isinstance(config, VattTextConfig) and config.encoder_type == "t5"
        self.relative_position_bias: nn.Module | None = None
        if isinstance(config, VattTextConfig) and is_t5:
            sizes = (config.relative_attention_num_buckets, config.relative_attention_max_distance)
            self.relative_position_bias = VattRelativePositionBias(*sizes, config.num_attention_heads)
        self.layers = nn.ModuleList(VattEncoderLayer(config, is_t5) for _ in range(config.num_hidden_layers))
        self.final_layer_norm: nn.Module = nn.Identity()
        self.dropout: nn.Module = nn.Identity()
        if config.pre_norm or is_t5:  # post-norm blocks end normalised
            norm = VattRMSNorm if is_t5 else nn.LayerNorm
            self.final_layer_norm = norm(config.hidden_size, eps=config.layer_norm_eps)
            self.dropout = VattDropout(config.hidden_dropout_prob)

    def _checkpoints(self) -> bool:
        """Whether blocks are computed again in the backward pass. Reentrant checkpointing gives no gradients
        if no input needs one, as after frozen embeddings."""
        return (
            self.training
            and torch.is_grad_enabled()
            and any(layer.gradient_checkpointing for layer in self.layers)
            and any(parameter.requires_grad for parameter in self.parameters())
        )

    def forward(
        self,
        hidden_states: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> tuple[torch.Tensor, tuple[torch.Tensor, ...] | None, tuple[torch.Tensor | None, ...] | None]:
        """
        Args:
            hidden_states: (batch, length, hidden_size).
            attention_mask: as `create_bidirectional_mask` makes it for the attention implementation.

        Returns:
            Normalised output (batch, length, hidden_size); if asked for, the input and the output of every
            block; if asked for, the attention weights of every block.
        """
        position_bias: torch.Tensor | None = None
        if self.relative_position_bias is not None:
            position_bias = self.relative_position_bias(hidden_states.shape[1], hidden_states.device)
            position_bias = position_bias.to(hidden_states.dtype)
            # Flex attention indexes it by batch; a view, no copy.
            position_bias = position_bias.expand(hidden_states.shape[0], -1, -1, -1)
        if output_attentions:
            kwargs["output_attentions"] = True  # implementations without weights warn
        if self._checkpoints() and not hidden_states.requires_grad:
            hidden_states = hidden_states.detach().requires_grad_()
        states, attentions = [hidden_states], []
        for layer in self.layers:
            # All tensors by position: reentrant checkpointing would lose gradients of keyword arguments.
            hidden_states, weights = layer(hidden_states, attention_mask, position_bias, **kwargs)
            if output_hidden_states:
                states.append(hidden_states)
            if output_attentions:
                attentions.append(weights)
        output = self.dropout(self.final_layer_norm(hidden_states))
        return (
            output,
            tuple(states) if output_hidden_states else None,
            tuple(attentions) if output_attentions else None,
        )
