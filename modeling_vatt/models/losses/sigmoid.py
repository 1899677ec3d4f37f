# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Sigmoid loss of SigLIP (Zhai et al., arXiv 2303.15343)."""

import torch
from torch import nn

from .pairs import ContrastiveLoss, Pairs
from .tiles import softplus_sum


class SigmoidLoss(ContrastiveLoss):
    r"""Binary classification of every pair: a clip's own candidates match, all others do not.

        loss_i = 1 / K * (sum log(1 + exp(-(s_ii + b))) + sum_{present j != i} log(1 + exp(s_ij + b)))

    with s_ij the similarities of the anchor of clip i and the candidates of clip j, divided by the
    temperature, without false negatives, b the bias, and K the mean number of candidates of a clip. Anchors
    of clips without candidates are negatives too.
    """

    has_bias = True

    def total(self, pairs: Pairs) -> torch.Tensor:
        yes = nn.functional.softplus(-(pairs.of_one_clip + pairs.bias)) * pairs.candidate_present
        yes = yes.sum(1) * pairs.present
        no = softplus_sum(pairs.bias, *pairs.tiled)
        # No clip has both sides.
        return (yes + no).sum() * (pairs.clips > 0) / pairs.captions.clamp(min=1)
