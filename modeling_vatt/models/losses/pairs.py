# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Contrastive losses: formulas over pairs of two modalities of the clips of all processes."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch

from ..collectives import gather_rows, world_size
from .tiles import absence
from .vectors import unit_vectors


class Pairs(NamedTuple):
    """The two sides of the clips of a batch."""

    anchors: torch.Tensor  # (batch, dim), unit vectors
    candidates: torch.Tensor  # (batch, per_clip, dim), unit vectors
    temperature: torch.Tensor  # (1,), similarities are divided by it
    present: torch.Tensor  # (batch,), 1 where a clip has both sides
    clips: torch.Tensor  # how many clips of all processes have both
    captions: torch.Tensor  # how many candidates such a clip has, on average
    candidate_present: torch.Tensor  # (batch, per_clip), 1 for present candidates
    start: int  # place of this process's first clip among those of all
    bias: torch.Tensor  # (1,), added to similarities by losses that have one
    tiled: tuple[Any, ...]  # arguments of the sums over all similarities ([`tiles`])

    @property
    def of_one_clip(self) -> torch.Tensor:
        """Similarities of each clip's anchor and candidates: (batch, per_clip)."""
        return torch.einsum("bd,bkd->bk", self.anchors, self.candidates) / self.temperature


@dataclass(frozen=True)
class ContrastiveLoss:
    """A loss between two modalities.

    Args:
        is_learned: the temperature, and the bias if the loss has one, are parameters ([`VattLossScale`]).
    """

    is_learned: bool = False
    has_bias = False

    def total(self, pairs: Pairs) -> torch.Tensor:
        """Sum over the clips of this process with both sides; divided by their number in all processes."""
        raise NotImplementedError


def make_pairs(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    candidate_mask: torch.Tensor | None,
    anchor_mask: torch.Tensor | None,
    temperature: float | torch.Tensor,
    bias: float | torch.Tensor,
    video_ids: torch.Tensor | None,
    caption_ids: torch.Tensor | None,
    alike: float | None,
) -> Pairs:
    """Arguments and errors as of [`contrastive_loss`]."""
    anchor, candidate = unit_vectors(anchors), unit_vectors(candidates)
    candidate = candidate.unsqueeze(1) if candidate.ndim == 2 else candidate
    if candidate.ndim != 3 or candidate.shape[0] != anchor.shape[0]:
        raise ValueError(
            f"`candidates` must have one row per clip: got {tuple(candidates.shape)} for {anchor.shape[0]} "
            "clips."
        )
    batch, per_clip = candidate.shape[:2]
    per_candidate = (batch,) if candidates.ndim == 2 else (batch, per_clip)
    _check_shape("anchor_mask", anchor_mask, (batch,))
    _check_shape("candidate_mask", candidate_mask, (batch,), per_candidate)
    _check_shape("video_ids", video_ids, (batch,))
    _check_shape("caption_ids", caption_ids, per_candidate)

    def as_vector(value: float | torch.Tensor) -> torch.Tensor:
        return value.view(1) if isinstance(value, torch.Tensor) else anchor.new_full((1,), value)

    anchor_present = anchor.new_ones(batch) if anchor_mask is None else anchor_mask.to(anchor.dtype)
    candidate_present = anchor.new_ones(batch, per_clip)
    if candidate_mask is not None:
        candidate_present = candidate_present * candidate_mask.to(anchor.dtype).view(batch, -1)
    present = candidate_present.amax(1) * anchor_present
    # Numbers of a clip: its video's, then those of its captions.
    of_anchors, of_candidates = [], []
    if video_ids is not None:
        of_anchors.append(video_ids.unsqueeze(1))
        of_candidates.append(video_ids[:, None, None].expand(batch, per_clip, 1))
    if caption_ids is not None:
        captions = caption_ids.view(batch, per_clip)
        of_anchors.append(captions)
        of_candidates.append(captions.unsqueeze(2).expand(batch, per_clip, per_clip))
    ids = [torch.cat(of_candidates, 2)] if of_candidates else []
    guides = None
    if alike is not None:
        with torch.no_grad():
            guides = unit_vectors((candidate * candidate_present.unsqueeze(2)).sum(1)) / alike
    # Candidates are sent to all processes, anchors stay.
    gathered, start = gather_rows(candidate, candidate_present, present, *ids)
    everyones, everyones_present, all_present = gathered[:3]
    clips = all_present.sum()
    # A clip without loss may count as absent in both directions. Other processes may have masks too.
    nobody_absent = candidate_mask is None and world_size() == 1
    scale = as_vector(temperature)
    tiled = (
        anchor,
        everyones.flatten(0, 1),
        scale,
        None if anchor_mask is None else absence(anchor_present),
        None if nobody_absent else absence(everyones_present).flatten(),
        torch.cat(of_anchors, 1) if ids else None,
        gathered[3].flatten(0, 1) if ids else None,
        guides,
        start,
        per_clip,
    )
    captions_each = (everyones_present.sum(1) * all_present).sum() / clips.clamp(min=1)
    sides = (anchor, candidate, scale, present, clips, captions_each, candidate_present)
    return Pairs(*sides, start, as_vector(bias), tiled)


def _check_shape(name: str, given: torch.Tensor | None, *shapes: tuple[int, ...]) -> None:
    if given is not None and given.shape not in shapes:
        allowed = " or, for each candidate, ".join(map(str, dict.fromkeys(shapes)))
        raise ValueError(f"`{name}` must be of shape {allowed}, got {tuple(given.shape)}.")


def caption_ids(input_ids: torch.Tensor, attention_mask: torch.Tensor) -> torch.Tensor:
    """int64 (...) that are equal for captions of equal words, however far padded, from ids and masks
    (..., words) with words before padding."""
    place = torch.arange(1, input_ids.shape[-1] + 1, device=input_ids.device)
    mixed = input_ids.long() * 0x1E3779B97F4A7C15 + place * 0x3F58476D1CE4E5B9
    for shift, factor in ((30, 0x14D049BB133111EB), (27, 0x2545F4914F6CDD1D)):
        mixed = (mixed ^ (mixed >> shift)) * factor
    mixed = mixed ^ (mixed >> 31)
    return (mixed * (attention_mask != 0)).sum(-1)
