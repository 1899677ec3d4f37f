# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Projections of locked towers without training: kernel ridge regression from video to captions."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import nn

from ..models.heads import VattKernelFeatures
from ..models.losses import normalize
from ..models.modeling_vatt import VattForPreTraining, VattModel
from .identity import base_model
from .locked_features import LockedFeatures


_ROWS = 8192  # at a time
_LEAST = 1e-6  # share of the largest variance; directions of captions with less are left out


@torch.no_grad()
def fit_projections(
    model: VattForPreTraining,
    features: LockedFeatures,
    captions: Sequence[Sequence[str]],
    noise: float = 0.1,
    most: int = 4096,
    seed: int = 0,
) -> None:
    r"""
    Fit the projections of locked video and text towers into the joint space in closed form.

    With k the kernel of [`VattKernelFeatures`], the space is that of the kernel principal components of the
    captions, where cosines are k(t, t'), and a video v is projected to the mean of a Gaussian process,

        sum_i a_i(v) * mean of the captions of clip i,    a(v) = (K + noise I)^-1 k(v, clips).

    Both are dense layers on kernel features, saved with the model (`projection="kernel"`) and not trained
    afterwards. Words and pictures that are in no clip are placed by their similarity to those that are.

    Args:
        model: with the joint head; changed in place.
        features: of the training clips, video and text, by [`compute_locked_features`].
        captions: of each clip; clips without any are not used.
        noise: variance that captions do not explain; larger is smoother.
        most: centres of a tower; of more clips so many are drawn (Nystroem).

    Raises:
        ValueError: another head, or a tower without features.
    """
    base = base_model(model)
    if base.config.head_type != "joint":
        raise ValueError('`fit_projections` needs the joint head: set `head_type="joint"`.')
    if "video" not in features.media or features.text is None or features.text_mask is None:
        raise ValueError("`fit_projections` needs features of video and text: lock both towers.")
    generator = torch.Generator().manual_seed(seed)
    rows, known = features.captions, features.text_mask.bool().tolist()
    used = [sorted({rows[text] for text in texts if known[rows[text]]}) for texts in captions]
    clips = [clip for clip, texts in enumerate(used) if texts and clip not in features.skipped]
    if not clips:
        raise ValueError("`fit_projections` needs clips with both video and a caption: there is none.")
    distinct = sorted({row for clip in clips for row in used[clip]})
    text = features.text[distinct].double()
    kernel = _kernel(text, most, generator)
    values, directions = torch.linalg.eigh(kernel.likeness(kernel.centres))
    size = base.config.va_projection_size
    kept = values > _LEAST * values[-1]
    components = (directions[:, kept] / values[kept].sqrt())[:, -size:]
    text_weight = torch.zeros(size, len(values), dtype=torch.float64)
    text_weight[: components.shape[1]] = components.T
    place = {row: number for number, row in enumerate(distinct)}
    embeds = kernel(text) @ text_weight.T
    targets = torch.stack([embeds[[place[row] for row in used[clip]]].mean(0) for clip in clips])
    _set(base, "text", kernel, text_weight)

    video = features.media["video"][clips].double()
    targets = targets.repeat_interleave(video.shape[1], 0)
    kernel = _kernel(video.flatten(0, 1), most, generator)
    own = kernel.likeness(kernel.centres)
    gram, product = noise * own, own.new_zeros(len(own), size)
    for part, wanted in zip(video.flatten(0, 1).split(_ROWS), targets.split(_ROWS), strict=True):
        likeness = kernel(part)
        gram += likeness.T @ likeness
        product += likeness.T @ wanted
    gram.diagonal().add_(_LEAST * noise)
    _set(base, "video", kernel, torch.linalg.solve(gram, product).T)
    model._freeze()


def _kernel(values: torch.Tensor, most: int, generator: torch.Generator) -> VattKernelFeatures:
    """Kernel of features (rows, size), with some of them as centres."""
    chosen = torch.randperm(len(values), generator=generator)[:most].sort().values
    kernel = VattKernelFeatures(values.shape[1], len(chosen)).double()
    kernel.mean.copy_(normalize(values).mean(0))
    kernel.centres.copy_(kernel.normalized(values[chosen]))
    return kernel


def _set(base: VattModel, name: str, kernel: VattKernelFeatures, weight: torch.Tensor) -> None:
    """Put a kernel and its dense layer (space, centres) into a model."""
    head: Any = base.head
    base.config.set_use(name, projection="kernel", centres=weight.shape[1])
    if name in base.feature_mlps:
        del base.feature_mlps[name]
    if name in head.norms:
        del head.norms[name]
    like = head.projections[name].weight
    base.feature_kernels[name] = kernel.to(like)
    head.projections[name] = nn.Linear(weight.shape[1], weight.shape[0], bias=False).to(like)
    head.projections[name].weight.copy_(weight)
