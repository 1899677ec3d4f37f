# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Unit vectors, and the precision of losses."""

from typing import Any

import torch
from torch import nn


# Shorter vectors are not brought to unit length.
_SHORTEST = 1e-6


class _Normalize(torch.autograd.Function):
    """[`normalize`] whose backward pass allocates one tensor instead of five."""

    @staticmethod
    def forward(ctx: Any, vectors: torch.Tensor) -> torch.Tensor:
        lengths = torch.linalg.vector_norm(vectors, dim=-1, keepdim=True)
        units = vectors / lengths.clamp(min=_SHORTEST)
        ctx.save_for_backward(units, lengths)
        return units

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        units, lengths = ctx.saved_tensors
        along = torch.einsum("...d,...d->...", grad, units).unsqueeze(-1)
        along = torch.where(lengths > _SHORTEST, along, 0)  # shorter ones are only scaled
        return torch.addcmul(grad, units, along, value=-1).div_(lengths.clamp(min=_SHORTEST))


def unit_vectors(vectors: torch.Tensor) -> torch.Tensor:
    """[`normalize`] with less memory in the backward pass, except in generated code."""
    return normalize(vectors) if torch.compiler.is_compiling() else _Normalize.apply(widen(vectors))


def normalize(embeds: torch.Tensor) -> torch.Tensor:
    """L2-normalise the last axis as the release does; float32 at least."""
    return nn.functional.normalize(widen(embeds), dim=-1, eps=_SHORTEST)


def widen(values: torch.Tensor) -> torch.Tensor:
    """Values in float32 at least: half precision is too coarse for losses."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
