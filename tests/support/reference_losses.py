# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The losses once more: float64, plain loops, straight from the description of the release (and not from
`modeling_vatt/models/losses/`), as something to compare with."""

import math
from collections.abc import Sequence

import numpy as np


def unit(vector: Sequence[float]) -> list[float]:
    """x * rsqrt(max(sum x^2, 1e-12))"""
    length = math.sqrt(max(sum(float(x) ** 2 for x in vector), 1e-12))
    return [float(x) / length for x in vector]


def dot(first: Sequence[float], second: Sequence[float]) -> float:
    return sum(x * y for x, y in zip(first, second, strict=True))


def logsumexp(values: Sequence[float]) -> float:
    largest = max(values)
    return largest + math.log(sum(math.exp(value - largest) for value in values))


def pair_loss(
    anchors,
    candidates,
    tau: float,
    loss_type: str,
    candidate_mask=None,
    anchor_mask=None,
    bias: float = 0.0,
    video_ids=None,
    caption_ids=None,
    alike: float = math.inf,
) -> float:
    """Any loss between any two modalities; the mean over clips that have both. Where something is absent on
    the anchors' side too, the release computes nothing: no sound or text that is absent counts, as a negative
    or otherwise, so it is the loss over what remains. `candidate_mask` may be one of each candidate.
    `video_ids` (clips), `caption_ids` (clips, candidates) and the cosine `alike` of candidates with the mean
    of a clip's take out false negatives."""
    anchors = [unit(row) for row in np.asarray(anchors, dtype=np.float64)]
    candidates = np.asarray(candidates, dtype=np.float64).reshape(len(anchors), -1, len(anchors[0]))
    candidates = [[unit(row) for row in rows] for rows in candidates]
    everything = [1] * len(anchors)
    anchor_mask = everything if anchor_mask is None else anchor_mask
    candidate_mask = everything if candidate_mask is None else candidate_mask
    clips, per_clip = range(len(anchors)), range(len(candidates[0]))
    there = [np.broadcast_to(candidate_mask[i], len(candidates[i])).astype(bool) for i in clips]
    both = [i for i in clips if anchor_mask[i] and there[i].any()]
    if not both:
        return 0.0
    own = [[k for k in per_clip if there[i][k]] for i in clips]

    def is_negative(i: int, j: int, k: int) -> bool:
        """Whether candidate k of clip j is one for the anchor of clip i."""
        same_video = video_ids is not None and video_ids[i] == video_ids[j]
        same_words = caption_ids is not None and caption_ids[j][k] in list(caption_ids[i])
        texts = [candidates[i][k] for k in own[i]]
        similar = bool(texts) and dot(unit(np.sum(texts, axis=0)), candidates[j][k]) > alike
        is_false = same_video or same_words or similar
        return bool(anchor_mask[i] and there[j][k]) and i != j and not is_false

    def score(i: int, j: int, k: int) -> float:
        return dot(anchors[i], candidates[j][k]) / tau

    total = 0.0
    if loss_type == "sigmoid":
        for i in both:
            total += sum(math.log1p(math.exp(-score(i, i, k) - bias)) for k in own[i])
        for i in clips:
            negatives = [(j, k) for j in clips for k in per_clip if is_negative(i, j, k)]
            total += sum(math.log1p(math.exp(score(i, j, k) + bias)) for j, k in negatives)
        return total / sum(len(own[i]) for i in both)
    for i in both:
        positives = [score(i, i, k) for k in own[i]]
        to_candidates = [score(i, j, k) for j in clips for k in per_clip if is_negative(i, j, k)]
        to_anchors = [score(j, i, k) for j in clips for k in per_clip if is_negative(j, i, k)]
        numerator = logsumexp(positives)
        if loss_type.startswith("asymmetric"):
            total += logsumexp(2 * positives + to_candidates + to_anchors) - numerator
        else:
            total += logsumexp(positives + to_candidates) + logsumexp(positives + to_anchors) - 2 * numerator
    return total / len(both)


def label_balanced_bce(logits, labels) -> float:
    """AudioSet loss of the release; a clip without labels weighs nothing."""
    logits, labels = np.asarray(logits, dtype=np.float64), np.asarray(labels, dtype=np.float64)
    clips, classes = logits.shape
    count = [sum(labels[b, c] for b in range(clips)) for c in range(classes)]
    total = 0.0
    for b in range(clips):
        own = sum(labels[b, c] for c in range(classes))
        if own == 0:
            continue
        weight = sum(labels[b, c] / count[c] for c in range(classes) if count[c]) / own
        for c in range(classes):
            x, y = logits[b, c], labels[b, c]
            probability = 1 / (1 + math.exp(-x))
            total += weight * -(y * math.log(probability) + (1 - y) * math.log(1 - probability))
    return total / clips
