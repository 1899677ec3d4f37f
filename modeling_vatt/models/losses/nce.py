# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""NCE of one candidate, MIL-NCE of several: paper section 3.4; official modules `AsymmetricNCE` and
`SymmetricNCE`."""

import torch

from ..collectives import all_reduce_max, all_reduce_sum
from .pairs import ContrastiveLoss, Pairs
from .tiles import absence, log_sum_exp


def _nce_terms(pairs: Pairs) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Numerator and both denominators of every clip of this process, (batch,) each.

    With s_ij the similarities of the anchor of clip i and the candidates of clip j, divided by the
    temperature, and sums over the clips of all processes without false negatives:

        numerator_i     = log sum exp s_ii over the present candidates
        to_candidates_i = log sum_{j whose candidates are present} exp s_ij
        to_anchors_i    = log sum_{j whose anchor is present} exp s_ji
    """
    to_candidates, of_columns = log_sum_exp(*pairs.tiled)
    # Each process has its anchors' part of the other direction.
    largest = all_reduce_max(of_columns)
    of_columns = largest + all_reduce_sum((of_columns - largest).exp()).log()
    batch, per_clip = pairs.candidates.shape[:2]
    own = of_columns[pairs.start * per_clip : (pairs.start + batch) * per_clip]
    positives = pairs.of_one_clip + absence(pairs.candidate_present)
    return positives.logsumexp(1), to_candidates, own.view(batch, per_clip).logsumexp(1)


class AsymmetricNCE(ContrastiveLoss):
    r"""One denominator over both directions; see [`_nce_terms`].

        loss_i = log(exp to_candidates_i + exp to_anchors_i) - numerator_i

    The positives stand in both halves of the denominator, so perfectly separated clips cost ln 2 (release).
    """

    def total(self, pairs: Pairs) -> torch.Tensor:
        numerator, to_candidates, to_anchors = _nce_terms(pairs)
        return ((torch.logaddexp(to_candidates, to_anchors) - numerator) * pairs.present).sum()


class SymmetricNCE(ContrastiveLoss):
    r"""A denominator for each direction, as in CLIP (arXiv 2103.00020); see [`_nce_terms`].

    loss_i = (to_candidates_i - numerator_i) + (to_anchors_i - numerator_i)
    """

    def total(self, pairs: Pairs) -> torch.Tensor:
        numerator, to_candidates, to_anchors = _nce_terms(pairs)
        return ((to_candidates + to_anchors - 2 * numerator) * pairs.present).sum()
