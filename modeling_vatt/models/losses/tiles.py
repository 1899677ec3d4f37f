# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Sums over all similarities of rows and columns. These are computed tile by tile, again in the backward
pass, and never stored, so memory is linear in the number of clips.

The sums are custom operators: one node in the graph of a compiled model for any batch size.
"""

import re
from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ...fast_cpu import product


# Similarities of a tile: enough for an efficient matrix product, few enough for a CPU's cache.
_TILE = {"cpu": 2**21}
_LARGE_TILE = 2**26
# Instead of -inf, so that rows without any present clip stay finite.
_ABSENT = -1e9
# Of the operators. Named after the module, of which a checkpoint may have a copy.
_NAMESPACE = re.sub(r"[^A-Za-z0-9]", "_", __name__)
# Of the operators, as [`_tiles`] explains them.
_PAIRS = (
    "Tensor rows, Tensor columns, Tensor temperature, Tensor? row_terms, Tensor? column_terms, "
    "Tensor? row_ids, Tensor? column_ids, Tensor? row_guides, SymInt start, SymInt per_clip"
)


def absence(present: torch.Tensor) -> torch.Tensor:
    """Added to the similarities of clips: 0 for present ones, else a large negative number."""
    return torch.where(present == 0, _ABSENT, 0.0).to(present.dtype)


def _tiles(
    rows: torch.Tensor,  # (r, dim), one for each clip
    columns: torch.Tensor,  # (c, dim), `per_clip` of each clip, clip after clip
    temperature: torch.Tensor,
    row_terms: torch.Tensor | None,  # (r,), see [`absence`]; None for zeros
    column_terms: torch.Tensor | None,  # (c,)
    row_ids: torch.Tensor | None,  # (r, n); pairs of two clips are absent if any of the n is equal
    column_ids: torch.Tensor | None,  # (c, n)
    row_guides: torch.Tensor | None,  # (r, dim); pairs where `row_guides @ columns.T` is above 1 are, too
    start: int,  # place of the first row's clip among the clips of the columns
    per_clip: int,
    *,
    own_absent: bool = False,  # whether pairs of a row and a column of the same clip are absent
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Tiles of `rows @ columns.T / temperature`, and where they lie."""
    size = _TILE.get(rows.device.type, _LARGE_TILE)
    width = min(columns.shape[0], 2 * round(size**0.5))
    height = max(1, size // max(width, 1))
    clips_of_rows = torch.arange(start, start + rows.shape[0], device=rows.device)[:, None]
    clips_of_columns = torch.arange(columns.shape[0], device=rows.device) // per_clip
    for left in range(0, columns.shape[0], width):
        across = slice(left, left + width)
        for top in range(0, rows.shape[0], height):
            down = slice(top, top + height)
            scores = product(
                rows[down] / temperature,
                columns[across],
                None if column_terms is None else column_terms[across],
            )
            if row_terms is not None:
                scores.add_(row_terms[down, None])
            if own_absent or row_ids is not None or row_guides is not None:
                own = clips_of_rows[down] == clips_of_columns[across]
                absent = torch.zeros_like(own)
                if row_ids is not None and column_ids is not None:
                    for row_id, column_id in zip(row_ids[down].T, column_ids[across].T, strict=True):
                        absent |= row_id[:, None] == column_id
                if row_guides is not None:
                    absent |= product(row_guides[down], columns[across]) > 1
                scores.masked_fill_(absent | own if own_absent else absent & ~own, _ABSENT)
            yield down, across, scores


class _Gradients:
    """Of rows, columns and temperature, from those of the similarities."""

    def __init__(self, rows: torch.Tensor, columns: torch.Tensor, temperature: torch.Tensor) -> None:
        self.rows, self.columns, self.temperature = rows, columns, temperature
        self.of_rows, self.of_columns = torch.zeros_like(rows), torch.zeros_like(columns)

    def add(self, down: slice, across: slice, grad: torch.Tensor) -> None:
        self.of_rows[down] += product(grad, self.columns[across].T)
        self.of_columns[across] += product(grad.T, self.rows[down].T)

    def result(self) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        self.of_rows.div_(self.temperature)
        along = torch.einsum("rd,rd->", self.of_rows, self.rows)
        return self.of_rows, self.of_columns.div_(self.temperature), -along / self.temperature


def _operator(schema: str) -> Any:
    """Decorator of an operator whose last arguments are those of [`_tiles`] up to `per_clip`."""
    schema = schema.replace("*pairs", _PAIRS)
    return lambda function: torch.library.custom_op(
        f"{_NAMESPACE}::{function.__name__.strip('_')}", function, mutates_args=(), schema=schema
    )


# --- logsumexp of every row and of every column ----------------------------------------------------------


@_operator("(*pairs) -> (Tensor, Tensor)")
def log_sum_exp(*pairs: Any) -> tuple[torch.Tensor, torch.Tensor]:
    """Logsumexp of every row and of every column of the similarities, (r,) and (c,)."""
    rows, columns = pairs[:2]
    of_rows = rows.new_full((rows.shape[0],), -torch.inf)
    of_columns = rows.new_full((columns.shape[0],), -torch.inf)
    with torch.autocast(rows.device.type, enabled=False):
        for down, across, scores in _tiles(*pairs):
            of_rows[down] = torch.logaddexp(of_rows[down], scores.logsumexp(1))
            of_columns[across] = torch.logaddexp(of_columns[across], scores.logsumexp(0))
    return of_rows, of_columns


@_operator(
    "(Tensor grad_of_rows, Tensor grad_of_columns, Tensor of_rows, Tensor of_columns, *pairs) "
    "-> (Tensor, Tensor, Tensor)"
)
def _log_sum_exp_grad(
    grad_of_rows: torch.Tensor,
    grad_of_columns: torch.Tensor,
    of_rows: torch.Tensor,
    of_columns: torch.Tensor,
    *pairs: Any,
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    grads = _Gradients(*pairs[:3])
    with torch.autocast(of_rows.device.type, enabled=False):
        for down, across, scores in _tiles(*pairs):
            grad = (scores - of_rows[down, None]).exp_().mul_(grad_of_rows[down, None])
            grad.addcmul_(scores.sub_(of_columns[across]).exp_(), grad_of_columns[across])
            grads.add(down, across, grad)
        return grads.result()


def _keep(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    """Save the tensors among the inputs, and the output if the backward pass needs it."""
    *tensors, ctx.start, ctx.per_clip = inputs
    ctx.save_for_backward(*tensors, *(output if isinstance(output, tuple) else ()))


def _log_sum_exp_backward(
    ctx: Any, grad_of_rows: torch.Tensor, grad_of_columns: torch.Tensor
) -> tuple[torch.Tensor | None, ...]:
    *tensors, of_rows, of_columns = ctx.saved_tensors
    grads = _log_sum_exp_grad(
        grad_of_rows, grad_of_columns, of_rows, of_columns, *tensors, ctx.start, ctx.per_clip
    )
    return *grads, *[None] * 7


log_sum_exp.register_fake(lambda *pairs: tuple(side.new_empty(side.shape[0]) for side in pairs[:2]))
_log_sum_exp_grad.register_fake(lambda *arguments: tuple(map(torch.empty_like, arguments[4:7])))
log_sum_exp.register_autograd(_log_sum_exp_backward, setup_context=_keep)


# --- softplus of every pair of two clips -----------------------------------------------------------------


@_operator("(Tensor bias, *pairs) -> Tensor")
def softplus_sum(bias: torch.Tensor, *pairs: Any) -> torch.Tensor:
    """Sums of softplus(similarity + bias) over the columns of other clips, (r,); bias of shape (1,)."""
    rows = pairs[0]
    sums = rows.new_zeros(rows.shape[0])
    with torch.autocast(rows.device.type, enabled=False):
        for down, _, scores in _tiles(*pairs, own_absent=True):
            sums[down] += nn.functional.softplus(scores.add_(bias)).sum(1)
    return sums


@_operator("(Tensor grad_of_sums, Tensor bias, *pairs) -> (Tensor, Tensor, Tensor, Tensor)")
def _softplus_sum_grad(
    grad_of_sums: torch.Tensor, bias: torch.Tensor, *pairs: Any
) -> tuple[torch.Tensor, ...]:
    grad_bias, grads = torch.zeros_like(bias), _Gradients(*pairs[:3])
    with torch.autocast(bias.device.type, enabled=False):
        for down, across, scores in _tiles(*pairs, own_absent=True):
            grad = scores.add_(bias).sigmoid_().mul_(grad_of_sums[down, None])
            grads.add(down, across, grad)
            grad_bias += grad.sum()
        return grad_bias, *grads.result()


def _softplus_sum_backward(ctx: Any, grad_of_sums: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
    grads = _softplus_sum_grad(grad_of_sums, *ctx.saved_tensors, ctx.start, ctx.per_clip)
    return *grads, *[None] * 7


softplus_sum.register_fake(lambda bias, rows, *_: rows.new_empty(rows.shape[0]))
_softplus_sum_grad.register_fake(lambda *arguments: tuple(map(torch.empty_like, arguments[1:5])))
softplus_sum.register_autograd(_softplus_sum_backward, setup_context=_keep)
