# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clip datasets, samplers and collators."""

from .clips import (
    VIDEO_SUFFIXES,
    ClipBatch,
    ClipDataset,
    SkippedClip,
    collate_clips,
    decode_clips,
    load_clips,
    open_table,
    skip_report,
    source_of,
)
from .labelled import LabelledDataset, class_names, has_several_labels, load_labelled, match_classes
from .layouts import (
    Split,
    cross_validation,
    load_esc50,
    load_hmdb51,
    load_msrvtt,
    load_ucf101,
    load_youcook2,
)
from .sampler import ChunkSampler, EpochSampler, StepSampler


__all__ = [
    "VIDEO_SUFFIXES",
    "ChunkSampler",
    "ClipBatch",
    "ClipDataset",
    "EpochSampler",
    "LabelledDataset",
    "SkippedClip",
    "Split",
    "StepSampler",
    "class_names",
    "collate_clips",
    "cross_validation",
    "decode_clips",
    "has_several_labels",
    "load_clips",
    "load_esc50",
    "load_hmdb51",
    "load_labelled",
    "load_msrvtt",
    "load_ucf101",
    "load_youcook2",
    "match_classes",
    "open_table",
    "skip_report",
    "source_of",
]
