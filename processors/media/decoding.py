# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding in this process: the frames and samples of a window, chosen from what a file holds."""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from .container import FrameConverter, Kind, MediaInfo, MediaReader, error_message, mono
from .edits import Edit
from .sound import RESAMPLING_MARGIN, SoundTrack
from .source import MediaLimits, MediaSource


_ROUNDING = 1e-3  # of a frame or sample
# Sound decoded ahead of the window, for AAC and Opus to settle and for the bit reservoir of MP3.
_PREROLL = 0.5


@dataclass
class MediaClip:
    """A decoded window.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB. None without a video stream; T = 0 if it ends before the window.
        waveform: float32 (S,), mono, about [-1, 1], finite. None without an audio stream; S = 0 as above.
        start: seconds.
        duration: seconds asked for, or found if that was None.
        timestamps: float64 (T,), times of the chosen frames in seconds.
        info: what the container states.
    """

    frames: np.ndarray | None
    waveform: np.ndarray | None
    start: float
    duration: float
    timestamps: np.ndarray
    info: MediaInfo


def decode_info(source: MediaSource, limits: MediaLimits) -> MediaInfo:
    """See [`probe`]."""
    with MediaReader(source, limits) as media:
        media.length(list(media.streams))
        return media.info()


def decode_duration(source: MediaSource, limits: MediaLimits) -> float:
    """See [`read_duration`]."""
    with MediaReader(source, limits) as media:
        return _length(media, ["video", "audio"])


def decode_clips(
    source: MediaSource,
    starts: Sequence[float] | Callable[[float], Sequence[float]],
    kinds: list[Kind],
    limits: MediaLimits,
    **options: Any,
) -> list[MediaClip]:
    """See [`read_clips`]."""
    with MediaReader(source, limits) as media:
        media.check_window(options["duration"] or 0.0)
        if not any(kind in media.streams for kind in kinds):
            raise media.error(f"no {' and no '.join(kinds)} stream that can be decoded", "Check the file.")
        if callable(starts):
            starts = starts(_length(media, kinds))
            check_starts(starts)
        return [_read_window(media, kinds, start, **options) for start in starts]


def check_starts(starts: Sequence[float]) -> None:
    for start in starts:
        if not (math.isfinite(start) and start >= 0):
            raise ValueError(f"start must be seconds from 0 on, got {start}.")


def _length(media: MediaReader, kinds: list[Kind]) -> float:
    """Seconds of the streams of these kinds."""
    present = [kind for kind in kinds if kind in media.streams]
    length = media.length(present)
    if length is None:  # no stamps at all
        return _read_window(media, present, 0.0, None, fps=1.0, sampling_rate=8000, size=16).duration
    return length


def _read_window(
    media: MediaReader,
    kinds: list[Kind],
    start: float,
    duration: float | None,
    fps: float,
    sampling_rate: int,
    size: int | None,
) -> MediaClip:
    frames, timestamps, waveform, end = None, np.zeros(0), None, start
    # Sound first: it may need a container that was just opened.
    if "audio" in kinds and "audio" in media.streams:
        waveform, end = _read_sound(media, start, duration, sampling_rate)
    if "video" in kinds and "video" in media.streams:
        frames, timestamps, video_end = _read_pictures(media, start, duration, fps, size)
        end = max(end, video_end)
    if not any(part is not None and len(part) for part in (frames, waveform)):
        damage = f" ({error_message(media.last_error)})" if media.last_error else ""
        raise media.error(
            f"nothing to decode from {start:g} s on; it ends at {end:g} s{damage}",
            "Choose an earlier window, or check that the file is complete.",
        )
    length = end - start if duration is None else duration
    return MediaClip(frames, waveform, start, length, timestamps, media.info())


def _parts(
    media: MediaReader, kind: Kind, start: float, duration: float | None, rate: float
) -> Iterator[tuple[int, float, float, Edit]]:
    """Of each edit within a window of `rate` items a second: the number of its first item there, where that
    lies in the stream, its seconds in the window, the edit."""
    count = math.inf if duration is None else round(duration * rate)
    for edit in media.edits[kind]:
        first = max(0, math.ceil((edit.begin - start) * rate - _ROUNDING))
        last = min(count, math.ceil((edit.end - start) * rate - _ROUNDING))
        if first < last:
            if duration is None:
                media.check_window(last / rate)
            yield first, start + first / rate + edit.media - edit.begin, (last - first) / rate, edit


def _read_pictures(
    media: MediaReader, start: float, duration: float | None, fps: float, size: int | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Frames (T, H, W, 3) on the screen at start + k / fps, their times (T,), and when the last one ends."""
    convert = FrameConverter(media, size, None if duration is None else round(duration * fps))
    if not media.edits:
        images, times, end = _read_frames(media, start, duration, fps, convert)
    else:
        images, times, end = [], [], media.length(["video"]) or 0.0
        for first, place, seconds, edit in _parts(media, "video", start, duration, fps):
            part, moments, _ = _read_frames(media, place, seconds, fps, convert)
            if not part:
                continue
            media.check_memory((first + len(part)) * part[0].nbytes)
            missing = first - len(images)  # the last frame stays until the next part
            images.extend([images[-1] if images else part[0]] * missing + part)
            times.extend([times[-1] if times else edit.begin] * missing)
            times.extend(edit.begin + max(0.0, moment - edit.media) for moment in moments)
    return np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8), np.array(times), end


def _read_sound(
    media: MediaReader, start: float, duration: float | None, sampling_rate: int
) -> tuple[np.ndarray, float]:
    """Samples (S,) of the window, and when the sound ends, or a time after the window if it goes on."""
    if not media.edits:
        return _read_waveform(media, start, duration, sampling_rate)
    end, parts = media.length(["audio"]) or 0.0, [np.zeros(0, np.float32)]
    for first, place, seconds, _ in _parts(media, "audio", start, duration, sampling_rate):
        gap = np.zeros(max(0, first - sum(map(len, parts))), np.float32)
        parts += gap, _read_waveform(media, place, seconds, sampling_rate)[0]
        media.check_memory(sum(part.nbytes for part in parts))
    return np.concatenate(parts), end


def _read_frames(
    media: MediaReader, start: float, duration: float | None, fps: float, convert: FrameConverter
) -> tuple[list[np.ndarray], list[float], float]:
    """Frames (H, W, 3) of a stream, their times, and when the last one ends: see [`_read_pictures`]."""
    tick = media.tick["video"]
    # Half a tick absorbs the rounding of stamps, unless a tick is a whole frame (AVI).
    tolerance = min(tick / 2, 5e-4)
    count = None if duration is None else round(duration * fps)
    images: list[np.ndarray] = []
    times: list[float] = []
    shown: tuple[float, Any] | None = None
    end = 0.0

    def due(moment: float) -> int:
        """Number of frames of the clip shown before `moment`."""
        frames = max(0, math.ceil((moment - tolerance - start) * fps))
        return frames if count is None else min(frames, count)

    def show_until(moment: float) -> None:
        missing = due(moment) - len(images)
        if shown is not None and missing > 0:
            images.extend([convert(shown[1], len(images) + missing)] * missing)
            times.extend([shown[0]] * missing)

    def wanted(moment: float, following: float) -> bool:
        return due(moment) < due(following)

    for moment, frame in media.frames_from("video", start + tolerance, wanted):
        media.orientation(frame)  # for `info`
        if frame.is_corrupt or (shown is not None and moment <= shown[0]):
            continue
        show_until(moment)
        if len(images) == count:
            break
        if count is None:
            media.check_window(moment - start)
        interval = 0.0 if shown is None else moment - shown[0]
        shown = (moment, frame)
        end = moment + (frame.duration * tick or interval or tick)
    show_until(end)
    return images, times, end


def _read_waveform(
    media: MediaReader, start: float, duration: float | None, sampling_rate: int
) -> tuple[np.ndarray, float]:
    """Samples (S,) of a stream, and its end: see [`_read_sound`]."""
    stop = math.inf if duration is None else start + duration
    sought = start - _PREROLL > media.begin["audio"]
    grid = _frame_grid(media) if sought and media.one_clock else None
    tracks: list[SoundTrack] = []  # one for each stretch of one sampling rate
    held = beyond = 0
    for moment, frame in media.frames_from("audio", start - _PREROLL):
        stamp = None if frame.pts is None else moment
        if not tracks or frame.sample_rate != tracks[-1].rate:
            tracks.append(
                SoundTrack(frame.sample_rate, media.tick["audio"], sought, None if tracks else grid)
            )
            stamp = moment
        if duration is None:
            media.check_window(moment - start)
        held += 4 * frame.samples
        media.check_memory(held)
        tracks[-1].add(stamp, mono(frame))
        beyond += moment >= stop + RESAMPLING_MARGIN
        if beyond > 1:  # two tell a gap from a wrong stamp
            break
    if not tracks:
        return np.zeros(0, np.float32), 0.0
    for track in tracks:
        track.join()
    end = max(track.end / track.rate for track in tracks)
    first, last = round(start * sampling_rate), round(end * sampling_rate)
    if duration is not None and end >= stop:
        last = first + round(duration * sampling_rate)
    seconds = (last - first) / sampling_rate + 2 * RESAMPLING_MARGIN
    media.check_memory(4 * max(sampling_rate, *(track.rate for track in tracks)) * seconds)
    waveform = np.zeros(max(0, last - first), np.float32)
    for track in tracks:
        low = max(first, math.floor((track.begin / track.rate - RESAMPLING_MARGIN) * sampling_rate))
        high = min(last, math.ceil((track.end / track.rate + RESAMPLING_MARGIN) * sampling_rate))
        if low < high:
            waveform[low - first : high - first] += track.samples(low, high, sampling_rate)
    is_sound = np.isfinite(waveform)
    if not is_sound.all():
        moment = start + int(is_sound.argmin()) / sampling_rate
        raise media.error(
            f"samples that are NaN, infinite or beyond 2^31 at {moment:.2f} s",
            "Replace them, or choose another window.",
        )
    return waveform, end


def _frame_grid(media: MediaReader) -> int | None:
    """The sample at which the second frame begins, if stamps are too coarse to tell (Matroska: 1 ms)."""
    if media.tick["audio"] * media.streams["audio"].codec_context.sample_rate <= 1.0:
        return None
    for moment, frame in media.frames_from("audio", 0.0):
        return round(moment * frame.sample_rate) + int(frame.samples)
    return None
