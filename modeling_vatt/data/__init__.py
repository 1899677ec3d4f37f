# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clip datasets, samplers and collators."""

from .clips import ClipBatch, ClipDataset, SkippedClip, collate_clips, decode_clips, load_clips, source_of
from .layouts import (
    VIDEO_SUFFIXES,
    Split,
    cross_validation,
    load_esc50,
    load_hmdb51,
    load_msrvtt,
    load_ucf101,
    load_youcook2,
)
from .sampler import StepSampler


__all__ = [
    "VIDEO_SUFFIXES",
    "ClipBatch",
    "ClipDataset",
    "SkippedClip",
    "Split",
    "StepSampler",
    "collate_clips",
    "cross_validation",
    "decode_clips",
    "load_clips",
    "load_esc50",
    "load_hmdb51",
    "load_msrvtt",
    "load_ucf101",
    "load_youcook2",
    "source_of",
]
