# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""NCE and MIL-NCE over the global batch: one function for every pair of modalities.

Sources: paper section 3.4; official modules `AsymmetricNCE` and `SymmetricNCE`. The matrix of similarities is
never stored: it is made tile by tile, once for both directions, and again in the backward pass.
"""

from collections.abc import Iterator
from typing import Any

import torch
from torch import nn

from ..fast_cpu import product
from .collectives import all_reduce_max, all_reduce_sum, gather_rows, world_size


# Similarities of a tile: enough for an efficient matrix product, few enough for a CPU's cache.
_TILE = {"cpu": 2**21}
_LARGE_TILE = 2**26
# Vectors that are shorter are not brought to unit length.
_SHORTEST = 1e-6
# In place of -inf, so that rows without any present clip stay finite.
_ABSENT = -1e9


def _tiles(
    rows: torch.Tensor,
    columns: torch.Tensor,
    temperature: float,
    row_terms: torch.Tensor | None,
    column_terms: torch.Tensor | None,
) -> Iterator[tuple[slice, slice, torch.Tensor]]:
    """Tiles of `rows @ columns.T / temperature`, and where they lie. The terms of rows and of columns
    are 0 or [`_ABSENT`]; None for zeros."""
    size = _TILE.get(rows.device.type, _LARGE_TILE)
    width = min(columns.shape[0], 2 * round(size**0.5))
    height = max(1, size // max(width, 1))
    for left in range(0, columns.shape[0], width):
        across = slice(left, left + width)
        for top in range(0, rows.shape[0], height):
            down = slice(top, top + height)
            terms = None if column_terms is None else column_terms[across]
            scores = product(rows[down] / temperature, columns[across], terms)
            yield down, across, scores if row_terms is None else scores.add_(row_terms[down, None])


class _LogSumExp(torch.autograd.Function):
    """Logsumexp of every row and every column of `rows @ columns.T / temperature` in linear memory."""

    @staticmethod
    def forward(
        ctx: Any,
        rows: torch.Tensor,
        columns: torch.Tensor,
        temperature: float,
        row_terms: torch.Tensor | None,
        column_terms: torch.Tensor | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        of_rows = rows.new_full((rows.shape[0],), -torch.inf)
        of_columns = rows.new_full((columns.shape[0],), -torch.inf)
        for down, across, scores in _tiles(rows, columns, temperature, row_terms, column_terms):
            of_rows[down] = torch.logaddexp(of_rows[down], scores.logsumexp(1))
            of_columns[across] = torch.logaddexp(of_columns[across], scores.logsumexp(0))
        ctx.save_for_backward(rows, columns, of_rows, of_columns, row_terms, column_terms)
        ctx.temperature = temperature
        return of_rows, of_columns

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad_of_rows: torch.Tensor, grad_of_columns: torch.Tensor
    ) -> tuple[torch.Tensor | None, ...]:
        rows, columns, of_rows, of_columns, *terms = ctx.saved_tensors
        grad_rows, grad_columns = torch.zeros_like(rows), torch.zeros_like(columns)
        with torch.autocast(rows.device.type, enabled=False):
            for down, across, scores in _tiles(rows, columns, ctx.temperature, *terms):
                grad = (scores - of_rows[down, None]).exp_().mul_(grad_of_rows[down, None])
                grad.addcmul_(scores.sub_(of_columns[across]).exp_(), grad_of_columns[across])
                grad_rows[down] += product(grad, columns[across].T)
                grad_columns[across] += product(grad.T, rows[down].T)
        return grad_rows.div_(ctx.temperature), grad_columns.div_(ctx.temperature), None, None, None


class _Normalize(torch.autograd.Function):
    """[`normalize`] whose backward pass makes one tensor instead of five: of many texts each is large."""

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


def _absence(present: torch.Tensor) -> torch.Tensor:
    return torch.where(present == 0, _ABSENT, 0.0).to(present.dtype)


def contrastive_loss(
    video_embeds: torch.Tensor,
    other_embeds: torch.Tensor,
    mask: torch.Tensor | None = None,
    temperature: float = 0.07,
    loss_type: str = "asymmetric",
    video_mask: torch.Tensor | None = None,
) -> torch.Tensor:
    r"""NCE (one candidate per clip) or MIL-NCE (several) between video and sound or text.

    With s the cosine similarity divided by the temperature, P_i the candidates of clip i, and sums over the
    clips of all processes:

        numerator_i   = log sum_{t in P_i} exp s(v_i, t)
        to_others_i   = log sum_{t in all candidates of present clips} exp s(v_i, t)
        to_videos_i   = log sum_{present j, t in P_i} exp s(v_j, t)
        "asymmetric":   loss_i = log(exp to_others_i + exp to_videos_i) - numerator_i
        "symmetric":    loss_i = (to_others_i - numerator_i) + (to_videos_i - numerator_i)

    The positives stand in both halves of the asymmetric denominator, so perfectly separated clips cost
    ln 2 (release). The result is the mean over present clips of the global batch; every process returns its
    part scaled such that averaging over processes, as data-parallel training does, gives that mean.

    Args:
        video_embeds: (batch, dim), normalised here.
        other_embeds: (batch, dim) or (batch, candidates, dim), normalised here.
        mask: (batch,), 1 where the clip has the other modality. Absent clips are no negatives and have no
            loss; if none is present the loss is 0.
        temperature: softmax temperature.
        loss_type: `"asymmetric"` or `"symmetric"`.
        video_mask: (batch,), the same for `video_embeds` (audio-text loss: the sounds stand there).

    Returns:
        Scalar loss.
    """
    if loss_type not in ("asymmetric", "symmetric"):
        raise ValueError(f'`loss_type` must be "asymmetric" or "symmetric", got {loss_type!r}.')
    video, other = (_Normalize.apply(widen(vectors)) for vectors in (video_embeds, other_embeds))
    other = other.unsqueeze(1) if other.ndim == 2 else other
    if other.ndim != 3 or other.shape[0] != video.shape[0]:
        raise ValueError(
            f"`other_embeds` must have one row per clip: got {tuple(other_embeds.shape)} for "
            f"{video.shape[0]} clips."
        )
    batch, candidates = other.shape[:2]
    for name, given in (("mask", mask), ("video_mask", video_mask)):
        if given is not None and given.shape != (batch,):
            raise ValueError(f"`{name}` must be of shape ({batch},), got {tuple(given.shape)}.")
    other_present = video.new_ones(batch) if mask is None else mask.to(video.dtype)
    video_present = video.new_ones(batch) if video_mask is None else video_mask.to(video.dtype)
    present = other_present * video_present
    # Candidates travel, videos stay where they are.
    (all_other, all_other_present, all_present), start = gather_rows(other, other_present, present)

    with torch.autocast(video.device.type, enabled=False):  # bfloat16 scores would be too coarse
        numerator = (torch.einsum("bd,bkd->bk", video, other) / temperature).logsumexp(1)
        # A clip without loss may count as absent in both directions. Other processes may have masks too.
        nobody_absent = mask is None and world_size() == 1
        to_others, of_columns = _LogSumExp.apply(
            video,
            all_other.flatten(0, 1),
            temperature,
            None if video_mask is None else _absence(video_present),
            None if nobody_absent else _absence(all_other_present).repeat_interleave(candidates),
        )
        # Each process knows its videos' part of the other direction.
        largest = all_reduce_max(of_columns)
        of_columns = largest + all_reduce_sum((of_columns - largest).exp()).log()
        own = of_columns[start * candidates : (start + batch) * candidates]
        to_videos = own.view(batch, candidates).logsumexp(1)
    if loss_type == "asymmetric":
        loss = torch.logaddexp(to_others, to_videos) - numerator
    else:
        loss = to_others + to_videos - 2 * numerator
    return world_size() * (loss * present).sum() / all_present.sum().clamp(min=1)


def label_balanced_bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sigmoid cross-entropy with the release's weighting of rare labels (AudioSet fine-tuning).

    A clip weighs the mean over its labels of 1 / (occurrences of the label in the batch); the loss is
    summed over classes and averaged over clips. Labels may be soft (mixup); a clip without labels weighs 0.

    Args:
        logits, labels: (batch, classes).
    """
    logits = widen(logits)
    labels = labels.to(logits.dtype)
    occurrences = labels.sum(0)
    rarity = torch.where(occurrences > 0, labels / occurrences.clamp(min=1e-12), 0.0).sum(1)
    weight = rarity / labels.sum(1).clamp(min=1e-12)
    per_class = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weight * per_class.sum(1)).mean()


def normalize(embeds: torch.Tensor) -> torch.Tensor:
    """L2-normalise the last axis as the release does; float32 at least."""
    return nn.functional.normalize(widen(embeds), dim=-1, eps=_SHORTEST)


def widen(values: torch.Tensor) -> torch.Tensor:
    """Values in float32 at least: half precision is too coarse for losses, too narrow for small numbers."""
    return values.to(torch.promote_types(values.dtype, torch.float32))
