# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What the two forms of NCE have in common."""

import torch

from ..collectives import all_reduce_max, all_reduce_sum
from .pairs import Pairs
from .tiles import log_sum_exp


def nce_terms(pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numerator and both denominators of every clip of this process, (batch,) each.

    With s_ij the similarities of the anchor of clip i and the candidates of clip j, divided by the
    temperature, and sums over the clips of all processes without false negatives:

        numerator_i     = log sum exp s_ii
        to_candidates_i = log sum_{j whose candidates are present} exp s_ij
        to_anchors_i    = log sum_{j whose anchor is present} exp s_ji
    """
    to_candidates, of_columns = log_sum_exp(
        pairs.anchors,
        pairs.everyones,
        pairs.anchor_terms,
        pairs.candidate_terms,
        pairs.anchor_ids,
        pairs.candidate_ids,
        pairs.start,
        pairs.candidates.shape[1],
    )
    # Each process knows its anchors' part of the other direction.
    largest = all_reduce_max(of_columns)
    of_columns = largest + all_reduce_sum((of_columns - largest).exp()).log()
    batch, per_clip = pairs.candidates.shape[:2]
    own = of_columns[pairs.start * per_clip : (pairs.start + batch) * per_clip]
    return pairs.of_one_clip.logsumexp(1), to_candidates, own.view(batch, per_clip).logsumexp(1)


__all__ = ["nce_terms"]
