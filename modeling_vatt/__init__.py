# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""VATT (Video-Audio-Text Transformer) as a Hugging Face model package."""

from ._version import __version__
from .classification import (
    VattForAudioClassification,
    VattForImageClassification,
    VattForVideoClassification,
)
from .configuration import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig
from .modeling_vatt import (
    VattFeaturesOutput,
    VattForPreTraining,
    VattForPreTrainingOutput,
    VattModel,
    VattModelOutput,
    VattPreTrainedModel,
)


__all__ = [
    "VattAudioConfig",
    "VattConfig",
    "VattFeaturesOutput",
    "VattForAudioClassification",
    "VattForImageClassification",
    "VattForPreTraining",
    "VattForPreTrainingOutput",
    "VattForVideoClassification",
    "VattModel",
    "VattModelOutput",
    "VattPreTrainedModel",
    "VattTextConfig",
    "VattVideoConfig",
    "__version__",
]
