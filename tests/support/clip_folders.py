# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders of tiny videos with captions, a processor for them, and the losses of runs on them."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from media_factory import tone, write_media
from small_models import seeded, small_config

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.processors import VattProcessor, VattTokenizer


RATE = 8000  # Hz


def write_clip(path: Path, number: int, seconds: float = 1.2, sound: bool = True) -> Path:
    """A grey video whose brightness and pitch tell its number."""
    frames = [np.full((16, 16, 3), 20 + 12 * (number % 18), dtype=np.uint8)] * round(10 * seconds)
    waveform = tone(seconds, RATE, 200.0 + 50 * number) if sound else None
    return write_media(path, frames=frames, fps=10, waveform=waveform, sampling_rate=RATE)


def write_rows(folder: Path, rows: Sequence[dict[str, Any]]) -> None:
    """`metadata.jsonl` of a folder."""
    (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))


def make_folder(
    root: Path,
    count: int,
    split: str = "train",
    silent: Sequence[int] = (),
    speechless: Sequence[int] = (),
    first: int = 0,
) -> Path:
    """`root`/`split` with clips, captions in `metadata.jsonl`; some without sound, some without captions."""
    folder = root / split
    folder.mkdir(parents=True)
    rows = []
    for number in range(first, first + count):
        name = f"clip{number:02d}.mp4"
        write_clip(folder / name, number, sound=number not in silent)
        captions = [] if number in speechless else [f"clip {number}", f"grey number {number}", "a tone"]
        rows.append({"file_name": name, "captions": captions})
    write_rows(folder, rows)
    return root


def small_processor(config: VattConfig | None = None) -> VattProcessor:
    """For 8 frames of 8 px at 10 per second and 96 samples; words of the captions above."""
    words = ["clip grey number a tone", *(str(number) for number in range(20))]
    tokenizer = VattTokenizer.train_from_iterator(words, 40, model_max_length=5)
    return VattProcessor.from_config(config or small_config(), tokenizer, num_captions=2)


def save_model(folder: Path, config: VattConfig | None = None, seed: int = 0) -> Path:
    """A small pretraining model with its processor, as scripts and indexes take it."""
    config = config or small_config()
    seeded(VattForPreTraining, config, seed).save_pretrained(folder)
    small_processor(config).save_pretrained(folder)
    return folder


def losses(output_dir: Path) -> list[tuple[int, float]]:
    """Step and loss of every line that a pretraining run logged."""
    lines = (output_dir / "metrics.jsonl").read_text().splitlines()
    return [(line["step"], line["loss"]) for line in map(json.loads, lines) if "loss" in line]
