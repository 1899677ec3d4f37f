# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From folders and `datasets` to batches of clips: video, the sound of the same window, and captions."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from torch.utils.data import Dataset
from transformers import BatchFeature

from ..processors.media import MediaClip, MediaError, MediaInfo, probe, read_clip
from ..processors.processing_vatt import VattProcessor


_CAPTION_COLUMNS = ("captions", "caption", "text", "sentences", "sentence", "texts")


def load_clips(
    data: str | os.PathLike,
    split: str,
    video_column: str | None = None,
    caption_column: str | None = None,
    **kwargs: Any,
) -> datasets.Dataset:
    """Videos with their captions, undecoded.

    Args:
        data: a folder of videos (plain, or with `metadata.csv`/`metadata.jsonl`; the layout of `datasets`'
            videofolder), or the name of a dataset with a video column.
        split: split to load.
        video_column: column of the videos; found by its type if left out.
        caption_column: column with a caption or a list of captions; found by its name if left out; clips
            without it have no text.
        **kwargs: passed to `datasets.load_dataset`.

    Returns:
        Dataset with the columns `video` (`{"path", "bytes"}`), `captions` (list of str), and the others.

    Raises:
        ValueError: an empty folder, or columns that are not there.
    """
    if Path(data).is_dir():
        try:
            table = datasets.load_dataset("videofolder", data_dir=str(data), split=split, **kwargs)
        except (FileNotFoundError, datasets.data_files.EmptyDatasetError) as error:
            raise ValueError(
                f"{data}: no video files in this folder. Put them there, or check the path."
            ) from error
    elif Path(data).is_absolute() or str(data).startswith(".") or str(data).count("/") > 1:
        raise ValueError(f"{data}: no such folder.")
    else:
        try:
            table = datasets.load_dataset(str(data), split=split, **kwargs)
        except (ConnectionError, datasets.exceptions.DatasetNotFoundError) as error:
            raise ValueError(
                f"{data}: no such folder here, and no such dataset on the Hub ({error})."
            ) from error
    if video_column is None:
        videos = [name for name, feature in table.features.items() if isinstance(feature, datasets.Video)]
        if not videos:
            raise ValueError(
                f"{data}: no video column among {table.column_names}; name it with `video_column`."
            )
        video_column = videos[0]
    if caption_column is None:
        caption_column = next((name for name in _CAPTION_COLUMNS if name in table.column_names), None)
    for name in (video_column, caption_column):
        if name is not None and name not in table.column_names:
            raise ValueError(f"{data}: no column {name!r} among {table.column_names}.")
    if video_column != "video":
        table = table.rename_column(video_column, "video")
    table = table.cast_column("video", datasets.Video(decode=False))
    if caption_column is None:
        return table.add_column("captions", [[] for _ in range(len(table))])
    captions = [_as_list(value) for value in table[caption_column]]
    table = table.remove_columns(caption_column)
    feature = datasets.List(datasets.Value("string"))
    return table.add_column("captions", captions, feature=feature)


def _as_list(captions: str | Sequence[str] | None) -> list[str]:
    if captions is None:
        return []
    captions = [captions] if isinstance(captions, str) else captions
    return [caption for caption in captions if caption and caption.strip()]


def source_of(video: dict[str, Any]) -> str | bytes:
    """What the media room opens, from an undecoded `datasets.Video` value."""
    return video["bytes"] if video["bytes"] is not None else video["path"]


@dataclass(frozen=True)
class SkippedClip:
    """A clip that could not be used, and why."""

    name: str
    reason: str


class ClipDataset(Dataset):
    """Clips as the model takes them; each item is one window of one video.

    Args:
        clips: table of [`load_clips`], or of [`decode_clips`].
        processor: makes the tensors.
        random_window: take a random window instead of the centred one (training).
        augmentation: passed to the processor (training).
        seed: of windows, augmentation and choice of captions; together with epoch and index it decides
            them, whichever worker process makes the item.

    An item is addressed by its index, or by (epoch, index). A clip that cannot be read is returned as
    [`SkippedClip`]; nothing else is caught.
    """

    def __init__(
        self,
        clips: datasets.Dataset,
        processor: VattProcessor,
        random_window: bool = False,
        augmentation: Any = None,
        seed: int = 0,
    ) -> None:
        self.clips = clips
        self.processor = processor
        self.random_window = random_window
        self.augmentation = augmentation
        self.seed = seed

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int | tuple[int, int]) -> BatchFeature | SkippedClip:
        epoch, index = (0, item) if isinstance(item, int) else item
        row = self.clips[index]
        random = np.random.default_rng((self.seed, epoch, index))
        try:
            clip = self._read(row, random)
        except MediaError as error:
            return SkippedClip(error.source, str(error))
        captions = row["captions"]
        wanted = self.processor.num_captions
        if self.random_window and len(captions) > wanted:
            captions = [captions[i] for i in random.permutation(len(captions))[:wanted]]
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        return self.processor(
            videos=[clip],
            text=[captions],
            augmentation=self.augmentation,
            generator=generator,
            return_tensors="pt",
        )

    def _read(self, row: dict[str, Any], random: np.random.Generator) -> MediaClip:
        options = self.processor.clip_options()
        window = options["duration"]
        place = float(random.random()) if self.random_window else 0.5
        if "frames" in row:  # decoded before
            start = place * max(0.0, row["duration"] - window)
            return _cut(row, start, window, options["fps"], options["sampling_rate"])
        source = source_of(row["video"])
        start = place * max(0.0, (probe(source).duration or 0.0) - window)
        return _read_pictures(source, start=start, **options)


def decode_clips(
    clips: datasets.Dataset, processor: VattProcessor, num_proc: int | None = None, max_seconds: float = 30.0
) -> tuple[datasets.Dataset, list[SkippedClip]]:
    """Decode short clips once, at the processor's frame size and rates, into an Arrow table on disk.

    For many epochs over few, short clips decoding costs more than training; for anything larger leave it to
    the workers of the data loader.

    Args:
        clips: table of [`load_clips`].
        processor: says the rates and the frame size.
        num_proc: worker processes.
        max_seconds: longer videos are cut to this length.

    Returns:
        The table for [`ClipDataset`], and what could not be read.
    """
    options = processor.clip_options()

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        empty = {"frames": b"", "frame_shape": [0, 0, 0, 0], "waveform": None, "duration": 0.0, "name": ""}
        try:
            clip = _read_pictures(source_of(row["video"]), **{**options, "duration": max_seconds})
        except MediaError as error:
            return {**empty, "name": error.source, "error": str(error)}
        seconds = [len(clip.frames) / options["fps"]]
        if clip.waveform is not None:
            seconds.append(len(clip.waveform) / options["sampling_rate"])
        return {
            "frames": clip.frames.tobytes(),
            "frame_shape": list(clip.frames.shape),
            "waveform": None if clip.waveform is None else clip.waveform.astype(np.float32).tobytes(),
            "duration": max(seconds),
            "name": clip.info.source,
            "error": "",
        }

    features = datasets.Features(
        {
            **clips.features,
            "frames": datasets.Value("binary"),
            "frame_shape": datasets.List(datasets.Value("int32")),
            "waveform": datasets.Value("binary"),
            "duration": datasets.Value("float64"),
            "name": datasets.Value("string"),
            "error": datasets.Value("string"),
        }
    )
    decoded = clips.map(decode, num_proc=num_proc, features=features, desc="Decoding clips")
    errors = decoded["error"]
    skipped = [SkippedClip(name, error) for name, error in zip(decoded["name"], errors, strict=True) if error]
    good = [index for index, error in enumerate(errors) if not error]
    return decoded.select(good), skipped


def _read_pictures(source: str | bytes, **options: Any) -> MediaClip:
    """`read_clip`, for files that must have pictures."""
    clip = read_clip(source, **options)
    if clip.frames is None or len(clip.frames) == 0:
        raise MediaError(clip.info.source, "no picture", "Leave sound files out of the folder.")
    return clip


def _cut(row: dict[str, Any], start: float, window: float, fps: float, sampling_rate: int) -> MediaClip:
    """A window of a decoded clip, beginning with the frame that is on the screen at `start`."""
    frames = np.frombuffer(row["frames"], dtype=np.uint8).reshape(row["frame_shape"])
    first = min(int(start * fps), len(frames) - 1)
    start = first / fps
    frames = frames[first : first + round(window * fps)]
    waveform = None
    if row["waveform"] is not None:
        samples = np.frombuffer(row["waveform"], dtype=np.float32)
        offset = round(start * sampling_rate)
        waveform = samples[offset : offset + round(window * sampling_rate)]
    info = MediaInfo(row["name"], row["duration"], True, waveform is not None)
    return MediaClip(frames, waveform, start, window, start + np.arange(len(frames)) / fps, info)


@dataclass
class ClipBatch:
    """Model inputs of a step, and the clips that had to be left out."""

    inputs: dict[str, torch.Tensor]
    skipped: list[SkippedClip]


def collate_clips(items: Sequence[BatchFeature | SkippedClip]) -> ClipBatch:
    """Stack clips; `inputs` is empty if none could be read."""
    skipped = [item for item in items if isinstance(item, SkippedClip)]
    good = [item for item in items if not isinstance(item, SkippedClip)]
    inputs = {key: torch.cat([item[key] for item in good]) for key in good[0]} if good else {}
    return ClipBatch(inputs, skipped)
