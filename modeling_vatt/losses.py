# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""NCE and MIL-NCE over the global batch: one function for every pair of modalities.

Sources: paper section 3.4; official modules `AsymmetricNCE` and `SymmetricNCE`.
"""

import torch
from torch import nn

from .distributed import all_reduce_sum, gather_rows, world_size


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
    video, other = normalize(video_embeds), normalize(other_embeds)
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
    all_video, all_other = gather_rows(video), gather_rows(other)
    absent_other = (gather_rows(other_present) == 0).repeat_interleave(candidates)
    absent_video = gather_rows(video_present) == 0

    with torch.autocast(video.device.type, enabled=False):  # bfloat16 scores would be too coarse
        numerator = (torch.einsum("bd,bkd->bk", video, other) / temperature).logsumexp(1)
        to_others = video @ all_other.flatten(0, 1).T / temperature
        # A large negative number rather than -inf: rows without any present clip must stay finite.
        to_others = to_others.masked_fill(absent_other, -1e9).logsumexp(1)
        to_videos = other.flatten(0, 1) @ all_video.T / temperature
        to_videos = to_videos.masked_fill(absent_video, -1e9).view(batch, -1).logsumexp(1)
    if loss_type == "asymmetric":
        loss = torch.logaddexp(to_others, to_videos) - numerator
    else:
        loss = to_others + to_videos - 2 * numerator
    total_present = all_reduce_sum(present.sum())
    return world_size() * (loss * present).sum() / total_present.clamp(min=1)


def label_balanced_bce(logits: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    """Sigmoid cross-entropy with the release's weighting of rare labels (AudioSet fine-tuning).

    A clip weighs the mean over its labels of 1 / (occurrences of the label in the batch); the loss is
    summed over classes and averaged over clips. Labels may be soft (mixup); a clip without labels weighs 0.

    Args:
        logits, labels: (batch, classes).
    """
    labels = labels.to(logits.dtype)
    occurrences = labels.sum(0)
    rarity = torch.where(occurrences > 0, labels / occurrences.clamp(min=1e-12), 0.0).sum(1)
    weight = rarity / labels.sum(1).clamp(min=1e-12)
    per_class = nn.functional.binary_cross_entropy_with_logits(logits, labels, reduction="none")
    return (weight * per_class.sum(1)).mean()


def normalize(embeds: torch.Tensor) -> torch.Tensor:
    """L2-normalise the last axis as the release does; float32 at least."""
    dtype = torch.promote_types(embeds.dtype, torch.float32)
    return nn.functional.normalize(embeds.to(dtype), dim=-1, eps=1e-6)
