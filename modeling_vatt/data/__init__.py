# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clip datasets, samplers and collators."""

from .clips import (
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
from .sampler import ChunkSampler, EpochSampler, StepSampler


__all__ = [
    "ChunkSampler",
    "ClipBatch",
    "ClipDataset",
    "EpochSampler",
    "LabelledDataset",
    "SkippedClip",
    "StepSampler",
    "class_names",
    "collate_clips",
    "decode_clips",
    "has_several_labels",
    "load_clips",
    "load_labelled",
    "match_classes",
    "open_table",
    "skip_report",
    "source_of",
]
