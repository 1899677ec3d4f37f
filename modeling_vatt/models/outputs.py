# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What models return."""

from dataclasses import dataclass
from typing import Any

import torch
from transformers.modeling_outputs import BaseModelOutputWithPooling
from transformers.utils import ModelOutput


@dataclass
class VattFeaturesOutput(BaseModelOutputWithPooling):
    r"""
    Output of one modality.

    Args:
        last_hidden_state (`torch.Tensor` of shape `(batch, 1 + tokens, hidden_size)`):
            Output of the tower: the AGG token, then the tokens (time slowest, then height, then width).
            Without AGG token: the places of the last feature map (convolutional network), or the words
            (linear text tower).
        pooler_output (`torch.Tensor` of shape `(batch, output_size)`):
            The feature for classifiers and probes: AGG output, mean over places, or maximum over words.
        va_embeds (`torch.Tensor` of shape `(batch, va_projection_size)`, *optional*):
            Embedding in the video-audio space, not normalised.
        vt_embeds (`torch.Tensor` of shape `(batch, vt_projection_size)`, *optional*):
            Embedding in the video-text space, not normalised; `(batch, candidates, vt_projection_size)` for
            text ids `(batch, candidates, words)`.
        hidden_states, attentions (`tuple(torch.Tensor)`, *optional*):
            Input and output of every block; attention weights of every block. A convolutional network has the
            feature maps `(batch, channels, *extent)` of stem and blocks, and no attention.
        kept_tokens (`torch.LongTensor` of shape `(kept,)`, *optional*):
            Indices of the tokens that DropToken kept (training).
        masked_tokens (`torch.BoolTensor` of shape `(batch, tokens)`, *optional*):
            Tokens chosen by input masking (training, if configured).
    """

    va_embeds: torch.FloatTensor | None = None
    vt_embeds: torch.FloatTensor | None = None
    kept_tokens: torch.LongTensor | None = None
    masked_tokens: torch.BoolTensor | None = None


@dataclass
class VattModelOutput(ModelOutput):
    r"""
    Output of [`VattModel`]. Embeddings are not normalised; compare them by cosine within one space.

    Args:
        video_va_embeds, audio_va_embeds (`torch.Tensor` of shape `(batch, va_projection_size)`, *optional*):
            Video and sound in the video-audio space.
        video_vt_embeds (`torch.Tensor` of shape `(batch, vt_projection_size)`, *optional*):
            Video in the video-text space.
        text_vt_embeds (`torch.Tensor` of shape `(batch[, candidates], vt_projection_size)`, *optional*):
            Text in the video-text space.
        video_model_output, audio_model_output, text_model_output ([`VattFeaturesOutput`], *optional*):
            Everything about one modality.
    """

    video_va_embeds: torch.FloatTensor | None = None
    audio_va_embeds: torch.FloatTensor | None = None
    video_vt_embeds: torch.FloatTensor | None = None
    text_vt_embeds: torch.FloatTensor | None = None
    video_model_output: VattFeaturesOutput | None = None
    audio_model_output: VattFeaturesOutput | None = None
    text_model_output: VattFeaturesOutput | None = None

    def to_tuple(self) -> tuple[Any, ...]:
        """Fields that are not None, in order; the outputs of the modalities become tuples too."""
        values = (self[key] for key in self.keys())
        return tuple(value.to_tuple() if isinstance(value, ModelOutput) else value for value in values)


@dataclass
class VattLossOutput(ModelOutput):
    r"""
    Losses and similarities, the loss first as everywhere in transformers.

    Args:
        loss (`torch.Tensor` of shape `()`, *optional*):
            Contrastive loss.
        video_audio_loss, video_text_loss, audio_text_loss (`torch.Tensor` of shape `()`, *optional*):
            Its parts, before weighting.
        logits_video_audio (`torch.Tensor` of shape `(batch, batch)`, *optional*):
            Cosine similarity divided by the temperature.
        logits_video_text (`torch.Tensor` of shape `(batch, batch * candidates)`, *optional*):
            The same with all texts of the batch.
    """

    loss: torch.FloatTensor | None = None
    video_audio_loss: torch.FloatTensor | None = None
    video_text_loss: torch.FloatTensor | None = None
    audio_text_loss: torch.FloatTensor | None = None
    logits_video_audio: torch.FloatTensor | None = None
    logits_video_text: torch.FloatTensor | None = None


@dataclass
class VattForPreTrainingOutput(VattModelOutput, VattLossOutput):
    """Output of [`VattForPreTraining`]: fields of [`VattLossOutput`], then those of [`VattModelOutput`]."""
