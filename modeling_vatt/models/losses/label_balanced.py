# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Loss of multi-label classifiers."""

import torch
from torch import nn

from .vectors import widen


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
