# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Media files to frames and samples: opening, decoding, isolation and writing."""

from __future__ import annotations

from .reading import (
    DEFAULT_LIMITS,
    VIDEO_SUFFIXES,
    MediaClip,
    MediaError,
    MediaInfo,
    MediaLimits,
    MediaSource,
    probe,
    read_clip,
    read_clips,
    read_duration,
)


__all__ = [
    "DEFAULT_LIMITS",
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
]
