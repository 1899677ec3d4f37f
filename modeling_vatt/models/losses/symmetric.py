# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Official module `SymmetricNCE`."""

import torch

from .nce import nce_terms
from .pairs import ContrastiveLoss, Pairs


class SymmetricNCE(ContrastiveLoss):
    r"""NCE with a denominator for each direction, as CLIP (arXiv 2103.00020) has it; see [`nce_terms`].

    loss_i = (to_candidates_i - numerator_i) + (to_anchors_i - numerator_i)
    """

    def total(self, pairs: Pairs) -> torch.Tensor:
        numerator, to_candidates, to_anchors = nce_terms(pairs)
        return ((to_candidates + to_anchors - 2 * numerator) * pairs.present).sum()


__all__ = ["SymmetricNCE"]
