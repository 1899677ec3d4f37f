# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Time windows: where they lie in a clip, how they are read from files, how too short ones are filled.

The rules are those of DMVR, the reader below the official release (vatt.md 6.1): one test window is centred,
several are spread uniformly from the first possible to the last possible one, and a sequence that is too
short is repeated.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch

from .media import DEFAULT_LIMITS, MediaClip, MediaLimits, MediaSource, read_clip, read_clips


Items = TypeVar("Items", np.ndarray, torch.Tensor)
# One window: frames (T, C, H, W), if there are any, and sound, None where the clip is silent.
Window = tuple[torch.Tensor | None, np.ndarray | None]


def is_media_source(value: Any) -> TypeGuard[MediaSource]:
    """Whether `value` is something `media.read_clip` opens: a path, URL, bytes or a binary file object."""
    return isinstance(value, str | os.PathLike | bytes) or hasattr(value, "read")


def as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The array as tensor, copied only where torch cannot share it (read-only or mirrored memory)."""
    if isinstance(array, np.ndarray) and (not array.flags.writeable or min(array.strides, default=0) < 0):
        array = array.copy()
    return torch.as_tensor(array)


def window_starts(duration: float, seconds: float, windows: int = 1) -> list[float]:
    """Start times of `windows` windows of `seconds` in a clip of `duration`; one window is centred.

    Raises:
        ValueError: if `windows` is less than 1.
    """
    if windows < 1:
        raise ValueError(f"`windows` must be at least 1, got {windows}.")
    slack = max(0.0, duration - seconds)
    return [slack / 2] if windows == 1 else np.linspace(0.0, slack, windows).tolist()


def take_window(sequence: Items, start: float, rate: float, count: int) -> Items:
    """Up to `count` items along the first axis, from the one that is current at `start` seconds on."""
    first = int(start * rate + 1e-6)
    return sequence[first : first + count]


def repeat_to(sequence: Items, count: int) -> Items:
    """Exactly `count` items along the first axis: the centre of a longer sequence, repeats of a shorter
    one."""
    length = len(sequence)
    if length >= count:
        first = (length - count) // 2
        return sequence[first : first + count]
    return sequence[np.arange(count) % length]


def read_windows(
    source: MediaSource,
    seconds: float,
    *,
    start: float | None = None,
    windows: int = 1,
    segment: tuple[float, float] | None = None,
    video: bool = True,
    audio: bool = True,
    limits: MediaLimits = DEFAULT_LIMITS,
    **options: Any,
) -> list[MediaClip]:
    """Read one window at `start`, or `windows` uniformly spread ones (see `window_starts`), from a file.

    Args:
        segment: (start, end) in seconds of the clip that windows are spread over, for clips inside long
            files; nothing outside is read, so windows of a clip that is too short are shorter. Default: the
            whole file.
        options: `fps`, `sampling_rate`, `size` of `media.read_clip`.

    Raises:
        MediaError: see `media.read_clip`.
    """
    starts: list[float] | Callable[[float], list[float]]
    if start is not None:
        starts = [start]
    elif segment is not None:
        begin, length = segment[0], segment[1] - segment[0]
        starts = [begin + moment for moment in window_starts(length, seconds, windows)]
        seconds = min(seconds, length)
    else:
        starts = partial(window_starts, seconds=seconds, windows=windows)
    return read_clips(source, starts, duration=seconds, video=video, audio=audio, limits=limits, **options)


class WindowReader:
    """Reads windows of single clips, whatever form they come in.

    Args:
        videos, sounds: the video processor and the feature extractor.
        settings: of the video processor, for this call.
        limits: what a file may cost.
        listen: whether the sound of videos is wanted.
    """

    def __init__(
        self, videos: Any, sounds: Any, settings: dict[str, Any], limits: MediaLimits, listen: bool
    ) -> None:
        self.videos, self.sounds = videos, sounds
        self.settings, self.limits, self.listen = settings, limits, listen
        self.num_frames, self.fps = settings["num_frames"], settings["fps"]
        self.num_samples, self.rate = sounds.num_samples, sounds.sampling_rate

    def read(self, video: Any, sound: Any, start: float | None, windows: int, metadata: Any) -> list[Window]:
        """The window at `start`, or `windows` uniform ones, of one video, one sound, or both on one clock."""
        if start is not None and not start >= 0:
            raise ValueError(f"`start` must be seconds from the beginning of a clip, got {start}.")
        if video is None:
            return [(None, waveform) for waveform in self._sounds(sound, start, windows)]
        clips = self._clips(video, start, windows, metadata)
        return [
            (frames, self._sound_at(sound, moment) if sound is not None else waveform)
            for frames, waveform, moment in clips
        ]

    def _clips(
        self, video: Any, start: float | None, windows: int, metadata: Any
    ) -> list[tuple[torch.Tensor, np.ndarray | None, float]]:
        """(frames, sound, start) of each window of a video."""
        seconds = self.num_frames / self.fps
        if is_media_source(video):
            if self.listen:
                # Where the parts want windows of different lengths, both begin together.
                seconds = max(seconds, self.sounds.window_seconds)
            clips = read_windows(
                video,
                seconds,
                start=start,
                windows=windows,
                audio=self.listen,
                fps=self.fps,
                sampling_rate=self.rate,
                size=self.settings["decode_size"],
                limits=self.limits,
            )
            return [
                (
                    self.videos.load(clip, self.settings)[: self.num_frames],
                    self._heard(clip.waveform),
                    clip.start,
                )
                for clip in clips
            ]
        frames = self.videos.load(video, self.settings, metadata)
        waveform = video.waveform if self.listen and isinstance(video, MediaClip) else None
        starts = window_starts(len(frames) / self.fps, seconds, windows) if start is None else [start]
        result = []
        for moment in starts:
            part = take_window(frames, moment, self.fps, self.num_frames)
            if not len(part):
                raise ValueError(f"A clip of {len(frames) / self.fps:g} s has no frames at {moment:g} s.")
            heard = (
                None
                if waveform is None
                else self._heard(take_window(waveform, moment, self.rate, self.num_samples))
            )
            result.append((part, heard, moment))
        return result

    def _sounds(self, sound: Any, start: float | None, windows: int) -> list[np.ndarray | None]:
        """Each window of a sound without video."""
        if sound is None:
            return [None] * windows
        seconds = self.sounds.window_seconds
        if is_media_source(sound):
            clips = read_windows(
                sound,
                seconds,
                start=start,
                windows=windows,
                video=False,
                sampling_rate=self.rate,
                limits=self.limits,
            )
            return [clip.waveform for clip in clips]
        length = len(self.sounds.load(sound)) / self.rate
        starts = window_starts(length, seconds, windows) if start is None else [start]
        return [self._sound_at(sound, moment) for moment in starts]

    def _sound_at(self, sound: Any, start: float) -> np.ndarray | None:
        """The window of a sound at `start`."""
        if is_media_source(sound):
            seconds = self.sounds.window_seconds
            return read_clip(
                sound, start=start, duration=seconds, video=False, sampling_rate=self.rate, limits=self.limits
            ).waveform
        waveform = self.sounds.load(sound)
        part = take_window(waveform, start, self.rate, self.num_samples)
        if not len(part):
            raise ValueError(f"A sound of {len(waveform) / self.rate:g} s has no samples at {start:g} s.")
        return part

    def _heard(self, waveform: np.ndarray | None) -> np.ndarray | None:
        """The window's part of a sound track; None without one, or where it has ended."""
        return None if waveform is None or not len(waveform) else waveform[: self.num_samples]
