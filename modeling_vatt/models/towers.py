# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A tower turns one modality into features: Transformer, convolutional network or linear text.

Sources: paper sections 3.1-3.3; official modules `ViT`/`WaT`/`SpT`/`UniversalTransformer`, `T5Encoder`,
`I3D`, `Resnet` and `LinearModel`.
"""

from typing import Any

import torch
from torch import nn
from transformers.activations import ACT2FN
from transformers.masking_utils import create_bidirectional_mask

from ..configuration import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig
from ..configuration.configuration_vatt import VattTowerConfig
from .cnn import VattI3D, VattResNet
from .embeddings import VattPatchEmbeddings, VattTextEmbeddings, channels_first, word_mask
from .encoder import VattEncoder
from .foreign import VattForeignTower
from .outputs import VattFeaturesOutput


class VattTower(nn.Module):
    """One modality: embeddings, encoder, optional post-projection; pooled at the AGG token. A
    modality-agnostic model passes its shared encoder to `forward`."""

    def __init__(self, config: VattTowerConfig, own_encoder: bool = True) -> None:
        super().__init__()
        self.config = config
        embeddings = VattTextEmbeddings if isinstance(config, VattTextConfig) else VattPatchEmbeddings
        self.embeddings = embeddings(config)
        self.encoder = VattEncoder(config) if own_encoder else None
        self.post_projection: nn.Linear | None = None
        if config.use_post_projection:
            # The T5-style tower's optional projection has no bias (release).
            bias = not (isinstance(config, VattTextConfig) and config.encoder_type == "t5")
            self.post_projection = nn.Linear(config.hidden_size, config.projection_size, bias=bias)
        self.activation = ACT2FN[config.projection_act]

    def forward(
        self,
        inputs: torch.Tensor,
        attention_mask: torch.Tensor | None = None,
        encoder: VattEncoder | None = None,
        output_hidden_states: bool = False,
        output_attentions: bool = False,
        **kwargs: Any,
    ) -> VattFeaturesOutput:
        """Inputs as of [`VattPatchEmbeddings`] or [`VattTextEmbeddings`]; the mask (batch, words), 1 for
        words, is for text."""
        info: dict[str, Any] = {}
        if isinstance(self.embeddings, VattPatchEmbeddings):
            hidden_states, info = self.embeddings(inputs)
        else:
            hidden_states = self.embeddings(inputs, attention_mask)
        encoder = self.encoder if encoder is None else encoder
        assert encoder is not None
        mask = None
        if attention_mask is not None:
            agg = attention_mask.new_ones((attention_mask.shape[0], 1))
            mask = create_bidirectional_mask(
                config=encoder.config,
                inputs_embeds=hidden_states,
                attention_mask=torch.cat([agg, attention_mask], dim=1),
            )
        hidden_states, states, attentions = encoder(
            hidden_states, mask, output_hidden_states, output_attentions, **kwargs
        )
        if self.post_projection is not None:
            hidden_states = self.activation(self.post_projection(hidden_states))
        return VattFeaturesOutput(
            last_hidden_state=hidden_states,
            pooler_output=hidden_states[:, 0],
            hidden_states=states,
            attentions=attentions,
            **info,
        )


class VattLinearTextTower(nn.Module):
    """The release's `LinearModel`: word table, 1x1 convolution with bias, ReLU, maximum over all places.

    The release pads every text to `max_position_embeddings` and masks nothing. So padding takes part in the
    maximum of shorter texts, however far they are padded here.
    """

    def __init__(self, config: VattTextConfig) -> None:
        super().__init__()
        self.config = config
        self.word_embeddings = nn.Embedding(config.vocab_size, config.embedding_size)
        self.word_embeddings.weight.requires_grad_(config.trainable_embeddings)
        self.projection = nn.Linear(config.embedding_size, config.hidden_size)

    def forward(
        self, inputs: torch.Tensor, attention_mask: torch.Tensor | None = None, **kwargs: Any
    ) -> VattFeaturesOutput:
        """(batch, words) ids and mask, 1 for words -> features without an AGG token."""
        mask = word_mask(inputs, attention_mask, self.config).bool()
        padding = inputs.new_full((inputs.shape[0], 1), self.config.pad_token_id or 0)
        words = self.word_embeddings(torch.cat([inputs, padding], dim=1))
        values = nn.functional.relu(self.projection(words))
        short = mask.sum(1, keepdim=True) < self.config.max_position_embeddings
        # Values are never negative, so zeros do not change the maximum.
        taking_part = torch.cat([mask, short], dim=1).unsqueeze(-1)
        return VattFeaturesOutput(
            last_hidden_state=values[:, :-1], pooler_output=(values * taking_part).max(dim=1).values
        )


class VattConvolutionalTower(nn.Module):
    """Video or sound through a convolutional network; pooled by the mean over all places."""

    def __init__(self, config: VattVideoConfig | VattAudioConfig) -> None:
        super().__init__()
        self.config = config
        self.backbone = VattI3D(config) if isinstance(config, VattVideoConfig) else VattResNet(config)

    def forward(
        self, inputs: torch.Tensor, output_hidden_states: bool = False, **kwargs: Any
    ) -> VattFeaturesOutput:
        """(batch, frames, channels, height, width) pixels or a (batch, frames, mel bins) spectrogram ->
        features without an AGG token."""
        values = channels_first(inputs, self.config)
        # Processors give float32, also for a model in half precision.
        values = values.to(self.backbone.stem.convolution.weight.dtype)
        values, states = self.backbone(values, output_hidden_states)
        places = values.flatten(2).transpose(1, 2)
        return VattFeaturesOutput(
            last_hidden_state=places, pooler_output=places.mean(1), hidden_states=states
        )


def make_tower(name: str, whole: VattConfig) -> nn.Module:
    """The tower of a modality (`"video"`, `"audio"`, `"text"`) that a config describes."""
    if whole.is_foreign(name):
        return VattForeignTower(name, whole)
    config = getattr(whole, f"{name}_config")
    if isinstance(config, VattTextConfig) and config.encoder_type == "linear":
        return VattLinearTextTower(config)
    if isinstance(config, VattVideoConfig | VattAudioConfig) and config.is_convolutional:
        return VattConvolutionalTower(config)
    return VattTower(config, own_encoder=not whole.modality_agnostic)
