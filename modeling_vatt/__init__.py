# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""VATT (Video-Audio-Text Transformer) as a Hugging Face model package.

Importing it registers models, processors and pipelines with transformers. It is quick: the names below, torch
and transformers are loaded on first use.
"""

from typing import TYPE_CHECKING

from ._auto_classes import follow_transformers
from ._lazy import lazy_names
from ._renamed import keep_old_names
from ._version import __version__


if TYPE_CHECKING:
    from .configuration import VattAudioConfig, VattConfig, VattTextConfig, VattVideoConfig
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
else:
    __getattr__, __dir__ = lazy_names(__name__)

keep_old_names()
follow_transformers()


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
