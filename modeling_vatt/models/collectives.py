# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Collectives with gradients; the identity outside of a process group."""

from typing import Any

import torch
import torch.distributed as dist


def is_distributed() -> bool:
    """Whether several processes train together."""
    return dist.is_available() and dist.is_initialized() and dist.get_world_size() > 1


def world_size() -> int:
    """Number of processes that train together."""
    return dist.get_world_size() if is_distributed() else 1


class _AllReduceSum(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: torch.Tensor) -> torch.Tensor:
        total = values.clone(memory_format=torch.contiguous_format)
        dist.all_reduce(total)
        return total

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
        return _AllReduceSum.apply(grad)


def all_reduce_sum(values: torch.Tensor) -> torch.Tensor:
    """Sum over processes; gradients are summed over processes too."""
    return _AllReduceSum.apply(values) if is_distributed() else values


def only_somewhere(flags: list[bool], device: torch.device) -> list[bool]:
    """Which of the flags are set in some processes but not in all."""
    both = torch.tensor([*flags, *(not flag for flag in flags)], dtype=torch.float32, device=device)
    somewhere = all_reduce_max(both).bool()
    return (somewhere[: len(flags)] & somewhere[len(flags) :]).tolist()


def all_reduce_max(values: torch.Tensor) -> torch.Tensor:
    """Elementwise maximum over processes; no gradient."""
    values = values.detach()
    if is_distributed():
        values = values.clone()
        dist.all_reduce(values, op=dist.ReduceOp.MAX)
    return values


class _GatherRows(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: torch.Tensor, counts: list[int]) -> torch.Tensor:
        padded = rows.new_zeros((max(counts), *rows.shape[1:]))
        padded[: rows.shape[0]] = rows
        parts = [torch.empty_like(padded) for _ in counts]
        dist.all_gather(parts, padded)
        ctx.start = sum(counts[: dist.get_rank()])
        ctx.length = rows.shape[0]
        return torch.cat([part[:count] for part, count in zip(parts, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, grad: torch.Tensor) -> tuple[torch.Tensor, None]:
        grad = grad.contiguous()
        dist.all_reduce(grad)
        return grad[ctx.start : ctx.start + ctx.length], None


def gather_rows(*tensors: torch.Tensor) -> tuple[list[torch.Tensor], int]:
    """Rows of all processes in rank order, and the index of this process's first row.

    Processes may have different numbers of rows; all tensors of one call have the same number. Gradients flow
    back to a row's process.
    """
    if not is_distributed():
        return list(tensors), 0
    own = tensors[0].shape[0]
    sizes = [torch.zeros(1, dtype=torch.long, device=tensors[0].device) for _ in range(world_size())]
    dist.all_gather(sizes, torch.tensor([own], device=tensors[0].device))
    counts = [int(size) for size in sizes]
    return [_GatherRows.apply(tensor, counts) for tensor in tensors], sum(counts[: dist.get_rank()])
