# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clip datasets, shards, samplers and collators."""

from .clip_dataset import ClipBatch, ClipDataset, collate_clips, skip_report
from .engine import run_tasks
from .labelled import LabelledDataset, class_names, has_several_labels, load_labelled, match_classes
from .layouts import Split, cross_validation, load_esc50, load_hmdb51, load_msrvtt, load_ucf101, load_youcook2
from .preparation import RawClip, ShardSettings, audioset_clips, folder_clips, howto100m_clips, prepare_shards
from .reading import SkippedClip, decode_clips, is_decoded, read_options, read_row, source_of
from .sampler import ChunkSampler, EpochSampler, StepSampler, group_alike, shuffle_shards
from .shards import ShardDataset, ShardError, open_clips, write_index, write_shard
from .tables import VIDEO_SUFFIXES, all_captions, clip_name, load_clips, nearest_sentences, open_table


__all__ = [
    "VIDEO_SUFFIXES",
    "ChunkSampler",
    "ClipBatch",
    "ClipDataset",
    "EpochSampler",
    "LabelledDataset",
    "RawClip",
    "ShardDataset",
    "ShardError",
    "ShardSettings",
    "SkippedClip",
    "Split",
    "StepSampler",
    "all_captions",
    "audioset_clips",
    "class_names",
    "clip_name",
    "collate_clips",
    "cross_validation",
    "decode_clips",
    "folder_clips",
    "group_alike",
    "has_several_labels",
    "howto100m_clips",
    "is_decoded",
    "load_clips",
    "load_esc50",
    "load_hmdb51",
    "load_labelled",
    "load_msrvtt",
    "load_ucf101",
    "load_youcook2",
    "match_classes",
    "nearest_sentences",
    "open_clips",
    "open_table",
    "prepare_shards",
    "read_options",
    "read_row",
    "run_tasks",
    "shuffle_shards",
    "skip_report",
    "source_of",
    "write_index",
    "write_shard",
]
