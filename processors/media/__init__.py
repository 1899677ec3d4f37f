# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Media files to frames and samples: opening, decoding, isolation and writing."""

from .container import MediaInfo
from .decoding import MediaClip
from .endings import PICTURE_SUFFIXES, SOUND_SUFFIXES, VIDEO_SUFFIXES
from .reading import probe, read_clip, read_clips, read_duration, read_picture
from .source import DEFAULT_LIMITS, MediaError, MediaLimits, MediaSource


__all__ = [
    "DEFAULT_LIMITS",
    "PICTURE_SUFFIXES",
    "SOUND_SUFFIXES",
    "VIDEO_SUFFIXES",
    "MediaClip",
    "MediaError",
    "MediaInfo",
    "MediaLimits",
    "MediaSource",
    "probe",
    "read_clip",
    "read_clips",
    "read_duration",
    "read_picture",
]
