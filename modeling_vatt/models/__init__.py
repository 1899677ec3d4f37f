# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tensors to embeddings and losses: the network, its parts and its heads. Auto classes know them."""

from transformers import (
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
)

from ..configuration import VattConfig
from .classification import VattForAudioClassification, VattForImageClassification, VattForVideoClassification
from .modeling_vatt import VattForPreTraining, VattModel


AutoModel.register(VattConfig, VattModel, exist_ok=True)
AutoModelForPreTraining.register(VattConfig, VattForPreTraining, exist_ok=True)
AutoModelForVideoClassification.register(VattConfig, VattForVideoClassification, exist_ok=True)
AutoModelForAudioClassification.register(VattConfig, VattForAudioClassification, exist_ok=True)
AutoModelForImageClassification.register(VattConfig, VattForImageClassification, exist_ok=True)
