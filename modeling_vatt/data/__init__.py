# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clip datasets, samplers and collators."""

from .clips import ClipBatch, ClipDataset, SkippedClip, collate_clips, decode_clips, load_clips, source_of
from .sampler import ChunkSampler, StepSampler


__all__ = [
    "ChunkSampler",
    "ClipBatch",
    "ClipDataset",
    "SkippedClip",
    "StepSampler",
    "collate_clips",
    "decode_clips",
    "load_clips",
    "source_of",
]
