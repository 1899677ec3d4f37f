# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Paper section 3.4; official module `AsymmetricNCE`."""

import torch

from .nce import nce_terms
from .pairs import ContrastiveLoss, Pairs


class AsymmetricNCE(ContrastiveLoss):
    r"""NCE with one denominator over both directions, MIL-NCE with several candidates; see [`nce_terms`].

        loss_i = log(exp to_candidates_i + exp to_anchors_i) - numerator_i

    The positives stand in both halves of the denominator, so perfectly separated clips cost ln 2 (release).
    """

    def total(self, pairs: Pairs) -> torch.Tensor:
        numerator, to_candidates, to_anchors = nce_terms(pairs)
        return ((torch.logaddexp(to_candidates, to_anchors) - numerator) * pairs.present).sum()


__all__ = ["AsymmetricNCE"]
