# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Clips for pretraining, and sounds with labels for fine-tuning."""

from pathlib import Path

import datasets
import numpy as np
import pytest
from clip_folders import RATE, make_folder, write_rows
from media_factory import tone, truncate, write_media

from modeling_vatt.data import load_clips


PITCHES = {"low": 300.0, "middle": 900.0, "high": 2400.0}


@pytest.fixture(scope="module")
def sounds(tmp_path_factory) -> Path:
    """Mixtures of one to three tones, labelled with the tones."""
    folder = tmp_path_factory.mktemp("sounds")
    random = np.random.default_rng(0)
    rows = []
    for number in range(13):
        labels = [name for name in PITCHES if random.random() < 0.5] or ["low"]
        mixture = sum(tone(0.5, RATE, PITCHES[name]) for name in labels) / len(labels)
        noise = 0.05 * random.standard_normal(len(mixture)).astype(np.float32)
        write_media(
            folder / f"{number}.wav", waveform=mixture + noise, sampling_rate=RATE, audio_codec="pcm_s16le"
        )
        rows.append({"file_name": f"{number}.wav", "label": labels, "group": number % 3})
    write_rows(folder, rows)
    return folder


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> datasets.Dataset:
    root = tmp_path_factory.mktemp("clips")
    folder = make_folder(root / "clips", 8, silent=[1], speechless=[2])
    truncate(folder / "train" / "clip05.mp4", folder / "train" / "clip05.mp4", 0.2)
    return load_clips(folder, "train", cache_dir=str(root / "cache"))
