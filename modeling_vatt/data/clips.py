# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From folders and `datasets` to batches of clips: video, the sound of the same window, and captions."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
import numpy as np
import torch
from datasets.packaged_modules.videofolder.videofolder import VideoFolder
from torch.utils.data import Dataset
from transformers import BatchFeature

from ..processors.media import MediaClip, MediaError, MediaInfo, probe
from ..processors.processing_vatt import VattProcessor
from ..processors.windows import read_windows, window_starts


# Medium -> builder of `datasets` for folders, and the columns that hold it, the preferred first. Sound comes
# from sound files and from videos; the audiofolder cannot be built without torchcodec.
_MEDIA: dict[str, tuple[str, tuple[Any, ...]]] = {
    "video": ("videofolder", (datasets.Video,)),
    "audio": ("videofolder", (datasets.Audio, datasets.Video)),
    "image": ("imagefolder", (datasets.Image,)),
}
FOLDER_BUILDERS = ("videofolder", "imagefolder")
# `datasets` passes over other endings in folders without metadata, `.webm` among them.
_VIDEO_ENDINGS = "mp4 m4v mov mkv webm avi mpg mpeg ts ogv flv wmv 3gp gif"
VIDEO_SUFFIXES = frozenset(f".{ending}" for ending in _VIDEO_ENDINGS.split())
_SOUND_ENDINGS = "wav flac mp3 ogg oga opus m4a aac aif aiff au caf mka wma"
VideoFolder.EXTENSIONS = [f".{ending}" for ending in f"{_VIDEO_ENDINGS} {_SOUND_ENDINGS}".split()]

_CAPTION_COLUMNS = ("captions", "caption", "text", "sentences", "sentence", "texts")


def open_table(
    data: str | os.PathLike, split: str, media: str, column: str | None = None, **kwargs: Any
) -> datasets.Dataset:
    """A table with a column of undecoded media files.

    Args:
        data: a folder (plain, a folder per class, or with `metadata.csv`/`metadata.jsonl`: the layouts of
            `datasets`' videofolder and imagefolder), or the name of a dataset.
        split: split to load.
        media: `"video"`, `"audio"` (files of sound, or videos for their sound) or `"image"`; also the name of
            the column.
        column: column of the files; found by its type if left out.
        **kwargs: passed to `datasets.load_dataset`.

    Raises:
        ValueError: no such folder, data set, split or column.
    """
    if media not in _MEDIA:
        raise ValueError(f"`media` must be one of {', '.join(_MEDIA)}, got {media!r}.")
    builder, kinds = _MEDIA[media]
    folder = Path(data).is_dir()
    if not folder and (Path(data).is_absolute() or str(data).startswith(".") or str(data).count("/") > 1):
        raise ValueError(f"{data}: no such folder.")
    source = {"path": builder, "data_dir": str(data)} if folder else {"path": str(data)}
    empty = f"{data}: no {media} files in this folder. Put them there, or check the path."
    try:
        table = datasets.load_dataset(**source, split=split, **kwargs)
    except (datasets.data_files.EmptyDatasetError, FileNotFoundError, ConnectionError) as error:
        missing = f"{data}: no such folder here, and no such dataset on the Hub ({error})."
        raise ValueError(empty if folder else missing) from error
    except (ValueError, datasets.exceptions.DatasetGenerationError) as error:
        nothing = folder and "corresponds to no data" in str(error)
        raise ValueError(empty if nothing else f"{data}: {error.__cause__ or error}") from error
    if column is None:
        found = [
            name for kind in kinds for name, feature in table.features.items() if isinstance(feature, kind)
        ]
        if not found:
            raise ValueError(
                f"{data}: no {media} column among {table.column_names}; name it with `{media}_column`."
            )
        column = found[0]
    if column not in table.column_names:
        raise ValueError(f"{data}: no column {column!r} among {table.column_names}.")
    if column != media:
        if media in table.column_names:
            table = table.remove_columns(media)
        table = table.rename_column(column, media)
    feature = table.features[media]
    kind = type(feature) if isinstance(feature, kinds) else kinds[-1]  # paths in plain strings
    table = table.cast_column(media, kind(decode=False))
    if folder and media == "video":
        paths = [str(value["path"]) for value in table[media]]
        sounds = tuple(f".{ending}" for ending in _SOUND_ENDINGS.split())
        good = [index for index, path in enumerate(paths) if not path.lower().endswith(sounds)]
        if not good:
            raise ValueError(empty)
        table = table.select(good) if len(good) < len(table) else table
    return table


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
    table = open_table(data, split, "video", video_column, **kwargs)
    if caption_column is None:
        caption_column = next((name for name in _CAPTION_COLUMNS if name in table.column_names), None)
    elif caption_column not in table.column_names:
        raise ValueError(f"{data}: no column {caption_column!r} among {table.column_names}.")
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
            place = float(random.random()) if self.random_window else 0.5
            (clip,) = read_row(row, "video", read_options(self.processor), place)
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


def read_options(processor: VattProcessor, media: str | None = None) -> dict[str, Any]:
    """Arguments of `media.read_clip` for a window of what is wanted: None for frames and sound, else
    `"video"` or `"audio"` alone."""
    options = processor.clip_options()
    if media == "video":
        return {**options, "audio": False, "duration": processor.video_processor.window_seconds}
    if media == "audio":
        return {**options, "video": False, "duration": processor.feature_extractor.window_seconds}
    return options


def read_row(
    row: dict[str, Any], column: str, options: dict[str, Any], place: float | None, windows: int = 1
) -> list[MediaClip]:
    """Windows of one row of a table, decoded or not.

    Args:
        row: of [`open_table`] or [`decode_clips`].
        column: of the file.
        options: of [`read_options`].
        place: where the one window lies: 0 at the beginning, 1 at the end; None for uniform ones.
        windows: number of uniform windows.

    Raises:
        MediaError: a file that cannot be used.
    """
    options = dict(options)
    seconds = options.pop("duration")
    if "frame_shape" in row:  # decoded before
        slack = max(0.0, row["duration"] - seconds)
        starts = window_starts(row["duration"], seconds, windows) if place is None else [place * slack]
        clips = [_cut(row, start, seconds, options["fps"], options["sampling_rate"]) for start in starts]
        name = row["name"]
    else:
        source = source_of(row[column])
        start = None if place is None else place * max(0.0, (probe(source).duration or 0.0) - seconds)
        clips = read_windows(source, seconds, start=start, windows=windows, **options)
        name = clips[0].info.source
    if not options.get("video", True):
        return clips
    seen = [clip for clip in clips if clip.frames is not None and len(clip.frames)]
    if not seen:
        raise MediaError(name, "no picture", "Leave sound files out of the folder.")
    # Where the sound goes on after the pictures, the last windows may have none.
    return [seen[min(place, len(seen) - 1)] for place in range(len(clips))]


def decode_clips(
    clips: datasets.Dataset,
    processor: VattProcessor,
    num_proc: int | None = None,
    max_seconds: float = 30.0,
    media: str | None = None,
) -> tuple[datasets.Dataset, list[SkippedClip]]:
    """Decode short clips once, at the processor's frame size and rates, into an Arrow table on disk.

    For many epochs over few, short clips decoding costs more than training; for anything larger leave it to
    the workers of the data loader.

    Args:
        clips: table of [`load_clips`], or of [`load_labelled`].
        processor: says the rates and the frame size.
        num_proc: worker processes.
        max_seconds: longer videos are cut to this length.
        media: `"video"` or `"audio"` of [`load_labelled`], to decode nothing else; None for videos with their
            sound.

    Returns:
        The table for [`ClipDataset`] or [`LabelledDataset`], and what could not be read.
    """
    options = {**read_options(processor, media), "duration": max_seconds}
    column = media or "video"

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        empty = {"frames": b"", "frame_shape": [0, 0, 0, 0], "waveform": None, "duration": 0.0, "name": ""}
        try:
            (clip,) = read_row(row, column, options, place=0.0)
        except MediaError as error:
            return {**empty, "name": error.source, "error": str(error)}
        decoded = {**empty, "name": clip.info.source, "error": ""}
        seconds = []
        if clip.frames is not None:
            decoded |= {"frames": clip.frames.tobytes(), "frame_shape": list(clip.frames.shape)}
            seconds.append(len(clip.frames) / options["fps"])
        if clip.waveform is not None:
            decoded["waveform"] = clip.waveform.astype(np.float32).tobytes()
            seconds.append(len(clip.waveform) / options["sampling_rate"])
        return {**decoded, "duration": max(seconds)}

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


def _cut(row: dict[str, Any], start: float, window: float, fps: float, sampling_rate: int) -> MediaClip:
    """A window of a decoded clip, beginning with the frame that is on the screen at `start`."""
    frames, waveform = None, None
    if row["frames"]:
        frames = np.frombuffer(row["frames"], dtype=np.uint8).reshape(row["frame_shape"])
        first = min(int(start * fps), len(frames) - 1)
        start = first / fps
        frames = frames[first : first + round(window * fps)]
    if row["waveform"] is not None:
        samples = np.frombuffer(row["waveform"], dtype=np.float32)
        offset = round(start * sampling_rate)
        waveform = samples[offset : offset + round(window * sampling_rate)]
    info = MediaInfo(row["name"], row["duration"], frames is not None, waveform is not None)
    times = start + np.arange(0 if frames is None else len(frames)) / fps
    return MediaClip(frames, waveform, start, window, times, info)


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


def skip_report(skipped: Mapping[str, str], total: int) -> str:
    """What could not be read, for the end of a run; empty if everything could.

    Args:
        skipped: name of a clip -> reason.
        total: clips there were.
    """
    if not skipped:
        return ""
    reasons = list(skipped.values())
    listed = "\n".join(f"  {reason}" for reason in reasons[:5])
    more = f"\n  ... and {len(reasons) - 5} more" if len(reasons) > 5 else ""
    return f"Skipped {len(skipped)} of {total} clips that could not be read:\n{listed}{more}"
