# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Collectives with gradients; the identity outside of a process group."""

import torch
import torch.distributed as dist
from torch.distributed.nn.functional import all_reduce


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if is_distributed() else 1


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over processes; gradients are summed over processes too."""
    return all_reduce(values) if is_distributed() else values


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx, rows: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        sizes = [torch.zeros(1, dtype=torch.long, device=rows.device) for _ in range(dist.get_world_size())]
        dist.all_gather(sizes, torch.tensor([rows.shape[0]], device=rows.device))
        counts = [int(size) for size in sizes]
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.start = sum(counts[: dist.get_rank()])
        ctx.length = rows.shape[0]
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx, grad: torch.Tensor) -> torch.Tensor:  # type: ignore[no-untyped-def]
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[ctx.start : ctx.start + ctx.length]


def gather_rows(rows: torch.Tensor) -> torch.Tensor:
    """Rows of all processes in rank order; processes may hold different numbers of rows.

    Gradients flow back to the process a row came from.
    """
    return _GatherRows.apply(rows) if is_distributed() else rows
