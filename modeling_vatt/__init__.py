# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""VATT (Video-Audio-Text Transformer) as a Hugging Face model package.

Importing it registers the models and processors with transformers' Auto classes, and its pipelines.
"""

from transformers import (
    AutoConfig,
    AutoModel,
    AutoModelForAudioClassification,
    AutoModelForImageClassification,
    AutoModelForPreTraining,
    AutoModelForVideoClassification,
)

from ._renamed import keep_old_names
from ._version import __version__
from .configuration import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig
from .embedding.registration import register_embedder
from .models.classification import (
    VattForAudioClassification,
    VattForImageClassification,
    VattForVideoClassification,
)
from .models.modeling_vatt import (
    VattFeaturesOutput,
    VattForPreTraining,
    VattForPreTrainingOutput,
    VattModel,
    VattModelOutput,
    VattPreTrainedModel,
)
from .pipelines import register_pipelines
from .processors import register_processors


keep_old_names()
for _config_class in (VattConfig, VattVideoConfig, VattAudioConfig, VattTextConfig):
    AutoConfig.register(_config_class.model_type, _config_class, exist_ok=True)
AutoModel.register(VattConfig, VattModel, exist_ok=True)
AutoModelForPreTraining.register(VattConfig, VattForPreTraining, exist_ok=True)
AutoModelForVideoClassification.register(VattConfig, VattForVideoClassification, exist_ok=True)
AutoModelForAudioClassification.register(VattConfig, VattForAudioClassification, exist_ok=True)
AutoModelForImageClassification.register(VattConfig, VattForImageClassification, exist_ok=True)
register_processors(VattConfig)
register_pipelines()
register_embedder()


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
