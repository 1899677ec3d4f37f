# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Sigmoid loss of SigLIP (Zhai et al., arXiv 2303.15343)."""

import torch
from torch import nn

from .pairs import ContrastiveLoss, Pairs
from .tiles import softplus_sum


class SigmoidLoss(ContrastiveLoss):
    r"""Every pair is a yes or a no of its own: yes for each candidate of a clip, no for all others.

        loss_i = 1 / K * (sum log(1 + exp(-(s_ii + b))) + sum_{present j != i} log(1 + exp(s_ij + b)))

    with s_ij the similarities of the anchor of clip i and the candidates of clip j, divided by the
    temperature, without false negatives, b the bias, and K how many candidates a clip has on average. Anchors
    of clips without candidates say no to the others' too.
    """

    has_bias = True

    def total(self, pairs: Pairs) -> torch.Tensor:
        yes = nn.functional.softplus(-(pairs.of_one_clip + pairs.bias)) * pairs.candidate_present
        yes = yes.sum(1) * pairs.present
        no = softplus_sum(pairs.bias, *pairs.tiled)
        # Without any clip that has both sides there is nothing to learn from.
        return (yes + no).sum() * (pairs.clips > 0) / pairs.captions.clamp(min=1)
