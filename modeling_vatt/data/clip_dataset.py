# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From folders and `datasets` to batches of clips: video, the sound of the same window, and captions."""

import hashlib
import io
import math
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Protocol

import datasets
import numpy as np
import torch
from datasets.packaged_modules.videofolder.videofolder import VideoFolder
from torch.utils.data import Dataset, default_collate
from transformers import BatchFeature

from ..processors.augmentation import change_colors
from ..processors.media import (
    DEFAULT_LIMITS,
    VIDEO_SUFFIXES,
    MediaClip,
    MediaError,
    MediaInfo,
    MediaLimits,
    MediaSource,
    read_clips,
)
from ..processors.processing_vatt import VattProcessor
from .sampler import Order, shuffle_shards


# Medium -> builder of `datasets` for folders, and the columns that hold it, the preferred first. Sound comes
# from sound files and from videos; the audiofolder cannot be built without torchcodec.
_MEDIA: dict[str, tuple[str, tuple[Any, ...]]] = {
    "video": ("videofolder", (datasets.Video,)),
    "audio": ("videofolder", (datasets.Audio, datasets.Video)),
    "image": ("imagefolder", (datasets.Image,)),
}
FOLDER_BUILDERS = ("videofolder", "imagefolder")
# `datasets` passes over other endings in folders without metadata, `.webm` among them.
_SOUND_ENDINGS = "wav flac mp3 ogg oga opus m4a aac aif aiff au caf mka wma"
VideoFolder.EXTENSIONS = [*sorted(VIDEO_SUFFIXES), *(f".{ending}" for ending in _SOUND_ENDINGS.split())]

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
    # Empty metadata ends in IndexError and the like.
    except (ValueError, LookupError, TypeError, datasets.exceptions.DatasetGenerationError) as error:
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
    if table.data.column(media).null_count:
        raise ValueError(f"{data}: rows without a file in the column {column!r}. Correct the metadata.")
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
        caption_column: column with a caption, a list of captions, or a list of sentences with their times
            (`{"start", "end", "text"}`, seconds); found by its name if left out; clips without it have no
            text.
        **kwargs: passed to `datasets.load_dataset`.

    Returns:
        Dataset with the columns `video` (`{"path", "bytes"}`), `captions` (list of str) or `sentences`, and
        the others.

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
    if _is_timed(table.features[caption_column]):
        return table.rename_column(caption_column, "sentences") if caption_column != "sentences" else table
    try:
        captions = [_as_list(value) for value in table[caption_column]]
    except ValueError as error:
        raise ValueError(f"{data}: column {caption_column!r}: {error}. Correct the metadata.") from error
    table = table.remove_columns(caption_column)
    feature = datasets.List(datasets.Value("string"))
    return table.add_column("captions", captions, feature=feature)


def _as_list(captions: str | Sequence[str] | None) -> list[str]:
    if captions is None:
        return []
    captions = [captions] if isinstance(captions, str) else captions
    if not isinstance(captions, list) or not all(isinstance(text, str | None) for text in captions):
        raise ValueError(f"{captions!r} is neither a caption nor a list of captions")
    return [caption for caption in captions if caption and caption.strip()]


def _is_timed(feature: Any) -> bool:
    item = getattr(feature, "feature", None)
    if not isinstance(item, dict) or not {"start", "end", "text"} <= set(item):
        return False
    kinds = [getattr(item[name], "dtype", "") for name in ("start", "end", "text")]
    return kinds[2] == "string" and all(kind.startswith(("int", "uint", "float")) for kind in kinds[:2])


class ClipTable(Protocol):
    """Videos with their captions, undecoded: what [`load_clips`] returns, or a [`ShardDataset`].

    A row has `video` (`{"path", "bytes"}`) and any of `captions` (list of str), `sentences` (list of
    `{"start", "end", "text"}`), and `start` and `end`, which limit the part of the file that is used. Times
    are seconds of the file.
    """

    def __len__(self) -> int: ...

    def __getitem__(self, index: int) -> dict[str, Any]: ...


def all_captions(clips: Any) -> Iterator[list[str]]:
    """What is said of each clip; reads no media.

    Args:
        clips: table of [`load_clips`], or a [`ShardDataset`].
    """
    table = getattr(clips, "table", clips)
    names = [name for name in ("captions", "sentences") if name in table.column_names]
    for row in table.select_columns(names):
        timed = [sentence["text"] for sentence in row.get("sentences") or []]
        yield [*(row.get("captions") or []), *timed]


def clip_name(clips: Any, index: int) -> str:
    """What a clip is called; reads no media.

    Args:
        clips: table of [`load_clips`], or a [`ShardDataset`].
        index: of the clip.
    """
    if hasattr(clips, "table"):
        row = clips.table[index]
        return row["source"] or row["key"]
    return clips[index]["video"]["path"] or str(index)


def _paths(clips: datasets.Dataset) -> Iterator[str | None]:
    """Where the videos of a table lie, without touching their bytes."""
    for batch in clips.select_columns("video").with_format("arrow").iter(batch_size=1000):
        for part in batch["video"].chunks:
            yield from part.field("path").to_pylist()


def nearest_sentences(sentences: Sequence[dict[str, Any]], start: float, end: float, count: int) -> list[str]:
    """The texts nearest in time to a window, the nearest first (paper: the five of a clip).

    The distance of a sentence is the time between it and the window, 0 if they overlap. Of sentences at the
    same distance the one comes first whose middle is nearer to that of the window, then the earlier one.

    Args:
        sentences: `{"start", "end", "text"}`, seconds.
        start, end: of the window, on the same clock.
        count: at most so many.
    """

    def distance(sentence: dict[str, Any]) -> tuple[float, float, float]:
        first, last = sentence["start"], sentence["end"]
        return max(0.0, first - end, start - last), abs(first + last - start - end), first

    return [sentence["text"] for sentence in sorted(sentences, key=distance)[:count]]


class _NamedBytes(io.BytesIO):
    """Bytes that errors can name."""

    def __init__(self, content: bytes, name: str) -> None:
        super().__init__(content)
        self.name = name


def source_of(video: dict[str, Any]) -> MediaSource:
    """What the media room opens, from an undecoded `datasets.Video` value."""
    if video["bytes"] is None:
        return video["path"]
    return _NamedBytes(video["bytes"], video["path"]) if video["path"] else video["bytes"]


@dataclass(frozen=True)
class SkippedClip:
    """A clip that could not be used, and why."""

    name: str
    reason: str


class ClipDataset(Dataset):
    """Clips as the model takes them; each item is one window of one video, or several.

    Args:
        clips: table of [`load_clips`] or [`decode_clips`], or a [`ShardDataset`].
        processor: makes the tensors.
        random_window: take random windows instead of the centred one or evenly spread ones (training).
        augmentation: passed to the processor (training).
        seed: of windows, augmentation and choice of captions; together with epoch and index it decides
            them, whichever worker process makes the item.
        clips_per_video: windows of each item. The file is opened once for all of them. Random ones are drawn
            from as many equal parts of the video, one from each.
        limits: what a file may cost, and whether it is decoded in a process of its own.
        late_colors: leave the changes of colour to [`ClipBatch.to`], on the training device: frames stay
            uint8, a quarter of the memory and of what worker processes send.

    An item is addressed by its index, or by (epoch, index). A clip that cannot be read is returned as
    [`SkippedClip`]; nothing else is caught. Of sentences with times, a window gets those of
    [`nearest_sentences`].
    """

    def __init__(
        self,
        clips: ClipTable,
        processor: VattProcessor,
        random_window: bool = False,
        augmentation: Any = None,
        seed: int = 0,
        clips_per_video: int = 1,
        limits: MediaLimits = DEFAULT_LIMITS,
        late_colors: bool = False,
    ) -> None:
        if clips_per_video < 1:
            raise ValueError(f"`clips_per_video` must be at least 1, got {clips_per_video}.")
        self.clips = clips
        self.processor = processor
        self.random_window = random_window
        self.augmentation = augmentation
        self.seed = seed
        self.clips_per_video = clips_per_video
        self.limits = limits
        self.late_colors = late_colors

    def __len__(self) -> int:
        return len(self.clips)

    def __getitem__(self, item: int | tuple[int, int]) -> BatchFeature | SkippedClip:
        epoch, index = (0, item) if isinstance(item, int) else item
        random = np.random.default_rng((self.seed, epoch, index))
        try:
            row = self.clips[index]
            clips = self._read(row, random)
        except MediaError as error:
            return SkippedClip(error.source, str(error))
        captions = [self._captions(row, clip, random) for clip in clips]
        generator = torch.Generator().manual_seed(int(random.integers(2**62)))
        return self.processor(
            videos=clips,
            text=captions,
            augmentation=self.augmentation,
            generator=generator,
            late_colors=self.late_colors,
            return_tensors="pt",
        )

    def _captions(self, row: dict[str, Any], clip: MediaClip, random: np.random.Generator) -> list[str]:
        wanted = self.processor.num_captions
        if row.get("sentences"):
            return nearest_sentences(row["sentences"], clip.start, clip.start + clip.duration, wanted)
        captions = row.get("captions") or []
        if self.random_window and len(captions) > wanted:
            captions = [captions[i] for i in random.permutation(len(captions))[:wanted]]
        return captions

    def _read(self, row: dict[str, Any], random: np.random.Generator) -> list[MediaClip]:
        options, count = {**read_options(self.processor), "limits": self.limits}, self.clips_per_video
        first, end = part_of(row)
        options["duration"] = min(options["duration"], end - first)  # nothing beyond the part
        if self.random_window:
            places = (np.arange(count) + random.random(count)) / count
        else:
            places = np.linspace(0.0, 1.0, count) if count > 1 else np.array([0.5])

        def starts(length: float) -> list[float]:
            return (first + places * max(0.0, min(end, length) - first - options["duration"])).tolist()

        return read_row(row, "video", options, starts)

    @cached_property
    def fingerprint(self) -> str:
        """Tells whether this is the data of an earlier run, wherever the folder is now.

        Made of the names and captions of a table; of every byte of shards.
        """
        if hasattr(self.clips, "fingerprint"):
            return self.clips.fingerprint
        digest = hashlib.sha256()
        for path, captions in zip(_paths(self.clips), all_captions(self.clips), strict=True):
            digest.update(repr((os.path.basename(path or ""), captions)).encode())
        return digest.hexdigest()

    def order(self, shuffle: int = 0) -> Order | None:
        """The order function for [`StepSampler`].

        Args:
            shuffle: shards of which clips are mixed at a time, see [`shuffle_shards`]; 0 for all, the
                sampler's default.

        Raises:
            ValueError: the clips are not in shards.
        """
        if not shuffle:
            return None
        sizes = getattr(self.clips, "shard_sizes", None)
        if sizes is None:
            raise ValueError("Only shards can be shuffled a few at a time; leave `shuffle_shards` at 0.")
        return shuffle_shards(sizes, shuffle)


def part_of(row: Mapping[str, Any]) -> tuple[float, float]:
    """Where the part of a file that is used begins and ends, in seconds; the end is infinite where none is
    stated.

    Args:
        row: of a [`ClipTable`].

    Raises:
        MediaError: `start` and `end` of the row are no part of a file.
    """
    start, end = row.get("start"), row.get("end")
    first, last = 0.0 if start is None else start, math.inf if end is None else end
    if not 0 <= first < last or not math.isfinite(first) or math.isnan(last):
        video = row.get("video") or {}
        name = row.get("name") or video.get("path") or row.get("source") or "a clip"
        raise MediaError(name, f"no part from {start} to {end} s", "Correct its `start` and `end`.")
    return first, last


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
    row: dict[str, Any], column: str, options: dict[str, Any], starts: Callable[[float], Sequence[float]]
) -> list[MediaClip]:
    """Windows of one row of a table, decoded or not.

    Args:
        row: of [`open_table`] or [`decode_clips`].
        column: of the file.
        options: of [`read_options`], and `limits`.
        starts: where the windows begin, for the length of the file; both in seconds.

    Raises:
        MediaError: a file that cannot be used.
    """
    if "frame_shape" in row:  # decoded before
        rates = (options["duration"], options["fps"], options["sampling_rate"])
        clips = [_cut(row, start, *rates) for start in starts(row["duration"])]
    else:
        clips = read_clips(source_of(row[column]), starts, **options)
    if not options.get("video", True):
        return clips
    seen = [clip for clip in clips if clip.frames is not None and len(clip.frames)]
    if not seen:
        with_pictures(clips[0])
    # Where the sound goes on after the pictures, the last windows may have none.
    return [seen[min(place, len(seen) - 1)] for place in range(len(clips))]


def decode_clips(
    clips: datasets.Dataset,
    processor: VattProcessor,
    num_proc: int | None = None,
    max_seconds: float = 30.0,
    media: str | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> tuple[datasets.Dataset, list[SkippedClip]]:
    """Decode short clips once, at the processor's frame size and rates, into an Arrow table on disk.

    For many epochs over few, short clips decoding costs more than training; for anything larger leave it to
    the workers of the data loader.

    Args:
        clips: table of [`load_clips`], or of [`load_labelled`].
        processor: says the rates and the frame size.
        num_proc: worker processes.
        max_seconds: longer videos, or parts of them, are cut to this length.
        media: `"video"` or `"audio"` of [`load_labelled`], to decode nothing else; None for videos with their
            sound.
        limits: what a file may cost.

    Returns:
        The table for [`ClipDataset`] or [`LabelledDataset`], and what could not be read. Of a row with
        `start` and `end` (without `media`) that part is decoded; its times then count from the part's
        beginning.
    """
    options = {**read_options(processor, media), "duration": max_seconds, "limits": limits}
    column = media or "video"
    parts = [name for name in ("start", "end") if media is None and name in clips.column_names]
    timed = media is None and "sentences" in clips.column_names

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        empty = {"frames": b"", "frame_shape": [0, 0, 0, 0], "waveform": None, "duration": 0.0, "name": ""}
        try:
            first, last = part_of(row) if parts else (0.0, math.inf)
            seconds = min(max_seconds, last - first)
            (clip,) = read_row(row, column, {**options, "duration": seconds}, lambda _: [first])
        except MediaError as error:
            return {**empty, "name": error.source, "error": str(error)}
        decoded = {**empty, "name": clip.info.source, "error": ""}
        lengths = []
        if clip.frames is not None:
            decoded |= {"frames": clip.frames.tobytes(), "frame_shape": list(clip.frames.shape)}
            lengths.append(len(clip.frames) / options["fps"])
        if clip.waveform is not None:
            decoded["waveform"] = clip.waveform.astype(np.float32).tobytes()
            lengths.append(len(clip.waveform) / options["sampling_rate"])
        decoded |= dict.fromkeys(parts)
        if timed and first:
            shifted = [
                {**sentence, "start": sentence["start"] - first, "end": sentence["end"] - first}
                for sentence in row["sentences"] or []
            ]
            decoded["sentences"] = shifted
        return {**decoded, "duration": max(lengths)}

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


def with_pictures(clip: MediaClip) -> MediaClip:
    """The clip; files without pictures are no videos."""
    if clip.frames is None or len(clip.frames) == 0:
        raise MediaError(clip.info.source, "no picture", "Leave sound files out of the folder.")
    return clip


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
    """Model inputs of a step, and the clips that had to be left out.

    With `late_colors` of [`ClipDataset`], `inputs` are complete only after [`to`].
    """

    inputs: dict[str, torch.Tensor]
    skipped: list[SkippedClip]

    def to(self, device: torch.device | str) -> dict[str, torch.Tensor]:
        """The inputs on a device, with what was left for it done."""
        colors = self.inputs.get("video_colors")  # stay on the CPU, where the draws are read
        inputs = {
            name: value.to(device, non_blocking=True)
            for name, value in self.inputs.items()
            if value is not colors
        }
        if colors is not None:
            inputs["pixel_values_videos"] = change_colors(inputs["pixel_values_videos"], colors)
        return inputs

    def pin_memory(self) -> "ClipBatch":
        """The same in memory from which a GPU copies directly; called by `DataLoader(pin_memory=True)`."""
        return ClipBatch({name: value.pin_memory() for name, value in self.inputs.items()}, self.skipped)


def collate_clips(items: Sequence[BatchFeature | SkippedClip]) -> ClipBatch:
    """Stack clips; `inputs` is empty if none could be read."""
    # `default_collate` writes straight into the memory that worker processes share with the loader.
    skipped = [item for item in items if isinstance(item, SkippedClip)]
    good = [item for item in items if not isinstance(item, SkippedClip)]
    names = good[0] if good else ()
    inputs = {name: default_collate([clip for item in good for clip in item[name]]) for name in names}
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
