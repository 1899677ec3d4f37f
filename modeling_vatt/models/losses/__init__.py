# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses: one file for each formula. A new contrastive loss is a class with `total` in [`LOSSES`] and a name
in `VattConfig.loss_type`."""

from .contrastive import LOSSES, contrastive_loss
from .label_balanced import label_balanced_bce
from .pairs import ContrastiveLoss, Pairs, caption_ids
from .scale import VattLossScale
from .vectors import normalize, widen


__all__ = [
    "LOSSES",
    "ContrastiveLoss",
    "Pairs",
    "VattLossScale",
    "caption_ids",
    "contrastive_loss",
    "label_balanced_bce",
    "normalize",
    "widen",
]
