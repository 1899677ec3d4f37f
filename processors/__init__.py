# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From media files and captions to tensors: video processor, feature extractor, tokenizer, processor,
augmentation. Each is loaded when it is asked for."""

from typing import TYPE_CHECKING

from .._lazy import lazy_names


if TYPE_CHECKING:
    from .augmentation import VattAugmentation
    from .feature_extraction_vatt import VattFeatureExtractor
    from .image_processing_vatt import VattImageProcessor
    from .media import (
        DEFAULT_LIMITS,
        MediaClip,
        MediaError,
        MediaInfo,
        MediaLimits,
        MediaSource,
        probe,
        read_clip,
        read_clips,
        read_duration,
        read_picture,
    )
    from .processing_vatt import VattProcessor
    from .registration import register_processors
    from .tokenization_vatt import VattTokenizer
    from .video_processing_vatt import VattVideoProcessor
else:
    __getattr__, __dir__ = lazy_names(__name__)


__all__ = [
    "DEFAULT_LIMITS",
    "MediaClip",
    "MediaError",
    "MediaInfo",
    "MediaLimits",
    "MediaSource",
    "VattAugmentation",
    "VattFeatureExtractor",
    "VattImageProcessor",
    "VattProcessor",
    "VattTokenizer",
    "VattVideoProcessor",
    "probe",
    "read_clip",
    "read_clips",
    "read_duration",
    "read_picture",
    "register_processors",
]
