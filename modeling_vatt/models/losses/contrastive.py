# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The contrastive losses by name: one function for every pair of modalities."""

import functools
import warnings
from collections.abc import Callable
from typing import Any

import torch

from ..collectives import world_size
from .nce import AsymmetricNCE, SymmetricNCE
from .pairs import ContrastiveLoss, make_pairs
from .sigmoid import SigmoidLoss


LOSSES: dict[str, ContrastiveLoss] = {
    "asymmetric": AsymmetricNCE(),
    "symmetric": SymmetricNCE(),
    "asymmetric_learned": AsymmetricNCE(is_learned=True),
    "symmetric_learned": SymmetricNCE(is_learned=True),
    "sigmoid": SigmoidLoss(is_learned=True),
}
_OLD_NAMES = {
    "video_embeds": "anchors",
    "other_embeds": "candidates",
    "mask": "candidate_mask",
    "video_mask": "anchor_mask",
}


def _with_old_names(function: Callable[..., torch.Tensor]) -> Callable[..., torch.Tensor]:
    """The function, also with the old names of its arguments."""

    @functools.wraps(function)
    def called(*args: Any, **kwargs: Any) -> torch.Tensor:
        for old in [name for name in _OLD_NAMES if name in kwargs]:
            new = _OLD_NAMES[old]
            if new in kwargs:
                raise TypeError(f"`{old}` is now `{new}`: give one of the two.")
            warnings.warn(f"`{old}` of `contrastive_loss` is now `{new}`.", FutureWarning, stacklevel=2)
            kwargs[new] = kwargs.pop(old)
        return function(*args, **kwargs)

    return called


@_with_old_names
def contrastive_loss(
    anchors: torch.Tensor,
    candidates: torch.Tensor,
    candidate_mask: torch.Tensor | None = None,
    temperature: float | torch.Tensor = 0.07,
    loss_type: str = "asymmetric",
    anchor_mask: torch.Tensor | None = None,
    bias: float | torch.Tensor = -10.0,
    video_ids: torch.Tensor | None = None,
    caption_ids: torch.Tensor | None = None,
    alike: float | None = None,
) -> torch.Tensor:
    r"""Loss between two modalities: one candidate per clip (NCE) or several (MIL-NCE).

    The result is the mean over present clips of the global batch; every process returns its part, scaled so
    that the average over processes (data-parallel training) is that mean.

    Args:
        anchors: (batch, dim), normalised here. Video, or sound where the candidates are text.
        candidates: (batch, dim) or (batch, per_clip, dim), normalised here.
        candidate_mask: (batch,) or (batch, per_clip), 1 for present candidates. Absent ones are neither
            positives nor negatives, clips without both sides have no loss, and if none has both it is 0.
        temperature: similarities are divided by it. A tensor of one element gets a gradient.
        loss_type: name in [`LOSSES`].
        anchor_mask: (batch,), the same for `anchors`.
        bias: of `"sigmoid"`; a tensor of one element gets a gradient.
        video_ids: (batch,) integers; clips with equal ones are no negatives of each other.
        caption_ids: integers of each candidate ([`caption_ids`]); the same for candidates.
        alike: candidates whose cosine with the mean of a clip's is larger are no negatives of it.

    Returns:
        Scalar loss.

    Raises:
        ValueError: an unknown name, or shapes that do not fit.
    """
    if loss_type not in LOSSES:
        raise ValueError(f"`loss_type` must be one of {', '.join(LOSSES)}, got {loss_type!r}.")
    pairs = make_pairs(
        anchors, candidates, candidate_mask, anchor_mask, temperature, bias, video_ids, caption_ids, alike
    )
    with torch.autocast(anchors.device.type, enabled=False):  # bfloat16 scores would be too coarse
        total = LOSSES[loss_type].total(pairs)
    return world_size() * total / pairs.clips.clamp(min=1)
