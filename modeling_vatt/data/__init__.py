# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clip datasets, shards, samplers and collators."""

from .clips import (
    VIDEO_SUFFIXES,
    ClipBatch,
    ClipDataset,
    SkippedClip,
    all_captions,
    clip_name,
    collate_clips,
    decode_clips,
    load_clips,
    nearest_sentences,
    source_of,
)
from .engine import run_tasks
from .preparation import (
    RawClip,
    ShardSettings,
    audioset_clips,
    folder_clips,
    howto100m_clips,
    prepare_shards,
)
from .sampler import StepSampler, shuffle_shards
from .shards import ShardDataset, ShardError, open_clips, write_index, write_shard


__all__ = [
    "VIDEO_SUFFIXES",
    "ClipBatch",
    "ClipDataset",
    "RawClip",
    "ShardDataset",
    "ShardError",
    "ShardSettings",
    "SkippedClip",
    "StepSampler",
    "all_captions",
    "audioset_clips",
    "clip_name",
    "collate_clips",
    "decode_clips",
    "folder_clips",
    "howto100m_clips",
    "load_clips",
    "nearest_sentences",
    "open_clips",
    "prepare_shards",
    "run_tasks",
    "shuffle_shards",
    "source_of",
    "write_index",
    "write_shard",
]
