# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Media files: the exact frames and samples of a time window, decoded here or in another process.

Times are seconds on one clock for pictures and sound; zero is the start of the earlier of the two streams.
Where the file's stamps start again or jump, as in recordings joined end to end, the clock goes on. Calls
share nothing, so they may run in several threads and in forked or spawned processes.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from .container import Kind, MediaInfo
from .decoding import MediaClip, check_starts, decode_clips, decode_duration, decode_info
from .isolation import call_isolated
from .picture import decode_picture
from .source import DEFAULT_LIMITS, MediaLimits, MediaSource


def probe(source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS) -> MediaInfo:
    """What a source contains. Decodes at most one frame; reads all packets if only they tell the length.

    Raises:
        MediaError: not a media file, or a limit exceeded.
    """
    if limits.isolated:
        return call_isolated("probe", source, limits)
    return decode_info(source, limits)


def read_duration(source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS) -> float:
    """Seconds of a source, from its packets if the container does not state or only estimates them.

    Raises:
        MediaError: not a media file, or a limit exceeded.
    """
    if limits.isolated:
        return call_isolated("read_duration", source, limits)
    return decode_duration(source, limits)


def read_picture(source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS) -> np.ndarray:
    """A picture, upright: uint8 (height, width, 3), RGB.

    Args:
        source: path, URL (see `MediaLimits.allowed_hosts`), bytes, or binary file object.

    Raises:
        MediaError: not a picture, or a limit exceeded.
    """
    if limits.isolated:
        return call_isolated("read_picture", source, limits)
    return decode_picture(source, limits)


def read_clip(source: MediaSource, *, start: float = 0.0, **options: Any) -> MediaClip:
    """Frames and sound of the window that begins at `start` seconds: [`read_clips`] for a single one."""
    (clip,) = read_clips(source, [start], **options)
    return clip


def read_clips(
    source: MediaSource,
    starts: Sequence[float] | Callable[[float], Sequence[float]],
    *,
    duration: float | None = None,
    fps: float = 10.0,
    sampling_rate: int = 48_000,
    video: bool = True,
    audio: bool = True,
    size: int | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> list[MediaClip]:
    """Frames and sound of several windows [start, start + duration) of a source that is opened once.

    Frame k is the one on the screen at start + k / fps, up to the rounding of the container's clock; the
    first frame of a file counts as shown from the beginning. There are round(duration * fps) frames and
    round(duration * sampling_rate) samples, fewer where a stream ends before the window. Sound is the mean of
    the channels; gaps, and the time before it, are zeros.

    Args:
        source: path, URL (see `MediaLimits.allowed_hosts`), bytes, or binary file object (is not closed).
        starts: seconds at which the windows begin, or a function of the length of the source in seconds.
        duration: seconds; None reads to the end.
        fps: frames chosen a second.
        sampling_rate: Hz, of the waveform returned.
        video, audio: whether to decode frames and sound.
        size: pixels of the shorter side of the frames, keeping their shape; None keeps the stored height.

    Raises:
        MediaError: no stream of the kinds asked for, nothing to decode in a window, or a limit exceeded.
        ValueError: an argument out of range.
    """
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be positive seconds or None, got {duration}.")
    if not (math.isfinite(fps) and fps > 0 and sampling_rate > 0 and (size is None or size > 0)):
        raise ValueError(f"fps, sampling_rate and size must be positive, got {fps}, {sampling_rate}, {size}.")
    if not (video or audio):
        raise ValueError("video and audio are both False: nothing to read.")
    if not callable(starts):
        check_starts(starts)
    kinds: list[Kind] = [kind for kind, wanted in (("video", video), ("audio", audio)) if wanted]
    options = {"duration": duration, "fps": fps, "sampling_rate": sampling_rate, "size": size}
    if limits.isolated:
        return call_isolated("read_clips", source, limits, starts=starts, kinds=kinds, **options)
    return decode_clips(source, starts, kinds, limits, **options)
