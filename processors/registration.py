# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The processors made known to transformers' Auto classes, for VATT by importing this module."""

from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedConfig,
)

# `transformers.AutoVideoProcessor` is a placeholder without torchvision; the class itself needs none.
from transformers.models.auto.video_processing_auto import AutoVideoProcessor

from ..configuration import VattConfig
from .feature_extraction_vatt import VattFeatureExtractor
from .image_processing_vatt import VattImageProcessor
from .processing_vatt import VattProcessor
from .tokenization_vatt import VattTokenizer
from .video_processing_vatt import VattVideoProcessor


def register_processors(*config_classes: type[PreTrainedConfig]) -> None:
    """Register these classes with the Auto classes for processors, video and image processors, feature
    extractors and tokenizers, for models of some `config_classes`. May be called again."""
    for config_class in config_classes:
        AutoTokenizer.register(config_class, tokenizer_class=VattTokenizer, exist_ok=True)
        AutoFeatureExtractor.register(config_class, VattFeatureExtractor, exist_ok=True)
        AutoVideoProcessor.register(config_class, VattVideoProcessor, exist_ok=True)
        backends = dict.fromkeys(("pil", "torchvision"), VattImageProcessor)  # one class serves both
        AutoImageProcessor.register(config_class, image_processor_classes=backends, exist_ok=True)
        AutoProcessor.register(config_class, VattProcessor, exist_ok=True)


register_processors(VattConfig)
