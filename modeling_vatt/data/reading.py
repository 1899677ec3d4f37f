# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Rows of tables to decoded windows; clips decoded once."""

import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import datasets
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from ..processors.media import (
    DEFAULT_LIMITS,
    MediaClip,
    MediaError,
    MediaInfo,
    MediaLimits,
    MediaSource,
    read_clips,
)
from ..processors.media.source import NamedBytes
from ..processors.processing_vatt import VattProcessor
from ..processors.windows import Part, check_part, read_windows, take_frames, take_samples, window_starts
from .captions import usable_sentences


logger = logging.getLogger(__name__)

# Column with the results of [`decode_clips`]; a user's column has no such name.
DECODED = "decoded clip"
# Seconds by which the length that a file states may be rounded, as in reading files.
_ROUNDING = 5e-4
read_options = VattProcessor.clip_options  # called with a processor


@dataclass(frozen=True)
class SkippedClip:
    """A clip that could not be used, and why."""

    name: str
    reason: str

    @classmethod
    def of(cls, row: Mapping[str, Any], error: MediaError) -> "SkippedClip":
        """The clip of a row, which cannot be read; parts of a file have names of their own."""
        start, end = row.get("start"), row.get("end")
        part = "" if start is None and end is None else f" ({start} to {end} s)"
        return cls(f"{error.source}{part}", str(error))


def source_of(video: dict[str, Any]) -> MediaSource:
    """What [`read_clips`] opens, from an undecoded `datasets.Video` value."""
    if video["bytes"] is None:
        return video["path"]
    return NamedBytes(video["bytes"], video["path"]) if video["path"] else video["bytes"]


def part_of(row: Mapping[str, Any]) -> Part:
    """Start and end, in seconds, of the part of a file that a row uses; the end may be infinite. MediaError
    if they are invalid."""
    return check_part(row.get("start"), row.get("end"), name_of(row))


def name_of(row: Mapping[str, Any]) -> str:
    """Name of a row's clip in messages."""
    media = row.get("video") or row.get("audio") or {}
    return row.get("name") or media.get("path") or row.get("source") or "a clip"


def read_row(
    row: dict[str, Any], column: str, options: dict[str, Any], places: Sequence[float]
) -> list[MediaClip]:
    """Windows of one row of a table, decoded or not, within its `start` and `end`.

    Args:
        row: of [`open_table`] or [`decode_clips`].
        column: of the file.
        options: of [`VattProcessor.clip_options`], and `limits`.
        places: of the windows, see [`window_places`].

    Raises:
        MediaError: a file that cannot be used.
    """
    seconds = options["duration"]
    if DECODED in row:
        starts = window_starts(row[DECODED]["seconds"], seconds, places)
        clips = [
            _cut(row[DECODED], start, seconds, options["fps"], options["sampling_rate"]) for start in starts
        ]
    else:
        others = {name: value for name, value in options.items() if name != "duration"}
        clips = read_windows(source_of(row[column]), seconds, places=places, segment=part_of(row), **others)
    if options.get("video", True):
        with_pictures(clips[0])
    return clips


def with_pictures(clip: MediaClip) -> MediaClip:
    """The clip; MediaError for a file without pictures."""
    if clip.frames is None or len(clip.frames) == 0:
        raise MediaError(clip.info.source, "no picture", "Leave sound files out of the folder.")
    return clip


def is_decoded(clips: Any) -> bool:
    """Whether a table is one of [`decode_clips`]."""
    return DECODED in (getattr(clips, "column_names", None) or ())


def decoded_row(table: datasets.Dataset, index: int) -> dict[str, Any]:
    """A row of [`decode_clips`] in Arrow's format, whose frames and sound are not copied."""
    row = table[index]
    cells = {name: row.column(name)[0] for name in row.column_names}
    clip = cells.pop(DECODED)
    views = {
        name: cell.as_buffer() if type(cell) is pa.BinaryScalar else cell.as_py()
        for name, cell in clip.items()
    }
    return {**{name: cell.as_py() for name, cell in cells.items()}, DECODED: views}


def decode_clips(
    clips: datasets.Dataset,
    processor: VattProcessor,
    num_proc: int | None = None,
    max_seconds: float = 30.0,
    media: str | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
    retry: bool = True,
) -> tuple[datasets.Dataset, list[SkippedClip]]:
    """Decode short clips once, at the processor's frame size and rates, into an Arrow table on disk.

    For many epochs over few, short clips; otherwise leave decoding to the workers of the data loader. Windows
    have the same places as in the files; their frames are those at multiples of 1 / fps, so up to 1 / fps
    earlier than in a window decoded by itself.

    Args:
        clips: table of [`load_clips`] or [`load_labelled`].
        processor: gives rates and frame size.
        num_proc: worker processes.
        max_seconds: longer videos, or parts of them, are cut to this length, with a warning.
        media: decode only `"video"` or `"audio"` of [`load_labelled`]; None for videos with sound.
        limits: what a file may cost.
        retry: try clips again that no call could read yet; without, the clips are those of the latest call,
            as a run that continues and the other processes of a run need them.

    Returns:
        The table for [`ClipDataset`] or [`LabelledDataset`], and the skipped clips. Of a row with `start` and
        `end` only that part is decoded, with times from its beginning.
    """
    options = {**processor.clip_options(media), "limits": limits}
    column = media or "video"
    parts = [name for name in ("start", "end") if name in clips.column_names]
    timed = media is None and "sentences" in clips.column_names

    def decode(row: dict[str, Any]) -> dict[str, Any]:
        lengths: list[float] = []
        try:
            first, last = part_of(row)

            def starts(length: float) -> list[float]:
                lengths.append(length)
                return [first]

            whole_part = {**options, "duration": min(max_seconds, last - first)}
            (clip,) = read_clips(source_of(row[column]), starts, **whole_part)
            clip = clip if media == "audio" else with_pictures(clip)
            decoded = _decoded(clip, whole_part, lengths[0] - first)
            decoded["cut"] = min(lengths[0], last) - first > max_seconds + _ROUNDING
        except MediaError as error:
            clip_of_row = SkippedClip.of(row, error)
            return {DECODED: {**_NOTHING, "name": clip_of_row.name, "error": clip_of_row.reason}}
        result = {DECODED: decoded, **dict.fromkeys(parts)}
        if timed and first:
            result["sentences"] = [
                {**sentence, "start": sentence["start"] - first, "end": sentence["end"] - first}
                for sentence in usable_sentences(row["sentences"])[0]
            ]
        return result

    features = datasets.Features({**clips.features, DECODED: _DECODED_FEATURES})

    def decode_all(clips: datasets.Dataset, cached: bool = True) -> datasets.Dataset:
        return clips.map(
            decode, num_proc=num_proc, features=features, load_from_cache_file=cached, desc="Decoding clips"
        )

    decoded, places = _until_read(clips, decode_all, retry)
    outcomes = _outcomes(decoded)
    if cut := sum(outcomes[place][2] for place in places):
        logger.warning("%d clips are longer than %g s: only their beginning is used.", cut, max_seconds)
    skipped = [SkippedClip(name, error) for name, error, _ in (outcomes[p] for p in places) if error]
    return decoded.select([place for place in places if not outcomes[place][1]]), skipped


def _until_read(
    clips: datasets.Dataset, decode_all: Callable[..., datasets.Dataset], retry: bool
) -> tuple[datasets.Dataset, list[int]]:
    """A table of decoded clips, and the row of each clip in it. `datasets` caches errors too, though they may
    have passed: what failed is looked up as a table of its own, and if all of that failed, decoded again."""
    decoded, places = decode_all(clips), list(range(len(clips)))
    failed = [place for place, (_, error, _) in enumerate(_outcomes(decoded)) if error]
    if len(failed) == len(clips) > 0 and retry:
        decoded = decode_all(clips, cached=False)
    elif 0 < len(failed) < len(clips):
        again, rows = _until_read(clips.select(failed), decode_all, retry)
        for place, row in zip(failed, rows, strict=True):
            places[place] = len(clips) + row
        decoded = datasets.concatenate_datasets([decoded, again])
    return decoded, places


def _outcomes(decoded: datasets.Dataset) -> list[tuple[str, str, bool]]:
    """Name, error and whether the end was cut off, of each row."""
    cells = decoded.data.column(DECODED)
    return list(
        zip(*(pc.struct_field(cells, name).to_pylist() for name in ("name", "error", "cut")), strict=True)
    )


# frames: uint8 (T, H, W, 3) of this shape; waveform: float32, or none; seconds: the length over which windows
# are spread; name: of the file; cut: whether it is longer than `max_seconds`.
_DECODED_FEATURES = {
    "frames": datasets.Value("binary"),
    "shape": datasets.List(datasets.Value("int32")),
    "waveform": datasets.Value("binary"),
    "seconds": datasets.Value("float64"),
    "name": datasets.Value("string"),
    "error": datasets.Value("string"),
    "cut": datasets.Value("bool"),
}
_NOTHING = {
    "frames": b"",
    "shape": [0, 0, 0, 0],
    "waveform": None,
    "seconds": 0.0,
    "name": "",
    "error": "",
    "cut": False,
}


def _decoded(clip: MediaClip, options: dict[str, Any], stated: float) -> dict[str, Any]:
    """Row of a decoded clip; `stated`: length according to the file."""
    decoded = {**_NOTHING, "name": clip.info.source}
    length = 0.0
    if clip.frames is not None:
        decoded |= {"frames": clip.frames.tobytes(), "shape": list(clip.frames.shape)}
        length = len(clip.frames) / options["fps"]
    if clip.waveform is not None:
        decoded["waveform"] = clip.waveform.astype(np.float32).tobytes()
        length = max(length, len(clip.waveform) / options["sampling_rate"])
    stated = min(stated, clip.duration)
    # The file's length places windows, unless decoding shows that it is wrong.
    return {**decoded, "seconds": stated if abs(stated - length) < 1 / options["fps"] else length}


def _cut(decoded: dict[str, Any], start: float, window: float, fps: float, sampling_rate: int) -> MediaClip:
    """A window of a decoded clip: the frames on the screen from `start` on, and the sound."""
    frames, waveform, first = None, None, start
    if decoded["frames"]:
        frames = np.frombuffer(decoded["frames"], dtype=np.uint8).reshape(decoded["shape"])
        # After the end of the pictures: the last frame.
        first = min(start + _ROUNDING, (len(frames) - 1) / fps)
        frames = take_frames(frames, first, fps, round(window * fps))
    if decoded["waveform"] is not None:
        samples = np.frombuffer(decoded["waveform"], dtype=np.float32)
        waveform = take_samples(samples, start, sampling_rate, round(window * sampling_rate))
    info = MediaInfo(decoded["name"], decoded["seconds"], frames is not None, waveform is not None)
    times = int(first * fps + 1e-6) / fps + np.arange(0 if frames is None else len(frames)) / fps
    return MediaClip(frames, waveform, start, window, times, info)
