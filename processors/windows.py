# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Time windows: where they lie in a clip, how they are read from files, how short ones are filled.

The rules are those of DMVR, the release's reader: one window is centred, several are spread uniformly from
the first possible to the last possible one, and a sequence that is too short is repeated. Windows of frames
and sound of different lengths begin together; the rule places the longer one.
"""

import math
import os
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any, TypeGuard, TypeVar

import numpy as np
import torch

from .media import MediaClip, MediaError, MediaLimits, MediaSource, read_clip, read_clips
from .media.source import source_name


Items = TypeVar("Items", np.ndarray, torch.Tensor)
# One window: frames (T, C, H, W), if there are any, and sound, None where the clip is silent.
Window = tuple[torch.Tensor | None, np.ndarray | None]
# (start, end) of a clip in seconds of its file
Part = tuple[float, float]
WHOLE: Part = (0.0, math.inf)


def is_media_source(value: Any) -> TypeGuard[MediaSource]:
    """Whether `value` is something `media.read_clip` opens: a path, URL, bytes or a binary file object."""
    return isinstance(value, str | os.PathLike | bytes) or hasattr(value, "read")


def as_tensor(array: np.ndarray | torch.Tensor) -> torch.Tensor:
    """The array as tensor, copied only where torch cannot share it (read-only or mirrored memory)."""
    if isinstance(array, np.ndarray) and (not array.flags.writeable or min(array.strides, default=0) < 0):
        array = array.copy()
    return torch.as_tensor(array)


def window_places(windows: int = 1, random: np.random.Generator | None = None) -> list[float]:
    """Places of `windows` windows in a clip, 0 for the first possible one to 1 for the last. With `random`
    one is drawn from each of as many equal intervals."""
    if windows < 1:
        raise ValueError(f"`windows` must be at least 1, got {windows}.")
    if random is not None:
        return ((np.arange(windows) + random.random(windows)) / windows).tolist()
    return [0.5] if windows == 1 else np.linspace(0.0, 1.0, windows).tolist()


def window_starts(
    duration: float, seconds: float, places: Sequence[float] = (0.5,), part: Part = WHOLE
) -> list[float]:
    """Start times of windows of `seconds` at `places` ([`window_places`]) of a `part` of a file."""
    first, last = part
    slack = max(0.0, min(duration, last) - first - seconds)
    return [first + place * slack for place in places]


def strided_starts(duration: float, seconds: float, stride: float) -> list[float]:
    """Start times of windows of `seconds` every `stride` seconds; the last one ends with the file."""
    return list(iterate_strided_starts(duration, seconds, stride))


def iterate_strided_starts(duration: float, seconds: float, stride: float) -> Iterator[float]:
    """[`strided_starts`] one by one: a header may state any duration."""
    slack = max(0.0, duration - seconds)
    # A last window within about a frame of the one before is the same.
    for number in range(max(0, math.ceil(slack / stride - 1e-3))):
        yield round(number * stride, 6)
    yield round(slack, 6)


def check_part(start: float | None, end: float | None, name: str) -> Part:
    """The part of a file from `start` (None: its beginning) to `end` (None: its end); MediaError for the file
    `name` if no file has such a part."""
    first, last = 0.0 if start is None else start, math.inf if end is None else end
    if not (0 <= first < last and math.isfinite(first)):
        raise MediaError(name, f"no part from {start} to {end} s", "Correct its `start` and `end`.")
    return first, last


def take_frames(frames: Items, start: float, fps: float, count: int) -> Items:
    """Up to `count` frames (T, ...), from the one that is on the screen at `start` seconds on."""
    first = int(start * fps + 1e-6)
    return frames[first : first + count]


def take_samples(waveform: Items, start: float, rate: float, count: int) -> Items:
    """Up to `count` samples (S,), from the one nearest to `start` seconds on."""
    first = round(start * rate)
    return waveform[first : first + count]


def repeat_to(sequence: Items, count: int) -> Items:
    """Exactly `count` items of the first axis: the centre of a longer sequence, repeats of a shorter one."""
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
    places: Sequence[float] = (0.5,),
    segment: tuple[float | None, float | None] | None = None,
    video: bool = True,
    **options: Any,
) -> list[MediaClip]:
    """Read the window at `start`, or the windows at `places`, from a file that is opened once.

    Where the sound of a video is longer than its pictures, later windows repeat the last one with pictures.

    Args:
        seconds: length of a window.
        places: see [`window_places`].
        segment: (start, end) in seconds of the clip in the file, None for the file's own. Nothing outside is
            read, so windows of a shorter clip are shorter.
        video, options: see `media.read_clips`.

    Raises:
        MediaError: see `media.read_clips`; a segment that is none.
    """
    part = WHOLE if segment is None else check_part(*segment, source_name(source))
    spread = partial(window_starts, seconds=seconds, places=places, part=part)
    starts = spread if start is None else [start]
    duration = min(seconds, part[1] - part[0])
    clips = read_clips(source, starts, duration=duration, video=video, **options)
    seen = [clip for clip in clips if clip.frames is not None and len(clip.frames)] if video else []
    return [seen[min(number, len(seen) - 1)] for number in range(len(clips))] if seen else clips


class WindowReader:
    """Reads windows of single clips of any form with the settings of one call; `listen`: read the sound of
    videos."""

    def __init__(
        self, videos: Any, sounds: Any, settings: dict[str, Any], limits: MediaLimits, listen: bool
    ) -> None:
        self.videos, self.sounds = videos, sounds
        self.settings, self.listen = settings, listen
        self.num_frames, self.fps = settings["num_frames"], settings["fps"]
        self.num_samples, self.rate = sounds.num_samples, sounds.sampling_rate
        self.reading: dict[str, Any] = {"sampling_rate": self.rate, "limits": limits}

    def read(self, video: Any, sound: Any, start: float | None, metadata: Any, windows: int) -> list[Window]:
        """The window at `start`, or `windows` uniform ones, of one video, one sound, or both on one clock."""
        if start is not None and not start >= 0:
            raise ValueError(f"`start` must be seconds from the beginning of a clip, got {start}.")
        places = window_places(windows)
        if video is None:
            return [(None, waveform) for waveform in self._sounds(sound, start, places)]
        seconds = self.num_frames / self.fps
        listens = self.listen and (is_media_source(video) or isinstance(video, MediaClip))
        if listens or sound is not None:
            seconds = max(seconds, self.sounds.window_seconds)
        if is_media_source(video):
            clips = self._file(video, seconds, start, places)
        else:
            clips = self._decoded(video, seconds, start, places, metadata)
        return [
            (frames, self._sound_at(sound, moment) if sound is not None else waveform)
            for frames, waveform, moment in clips
        ]

    def _file(
        self, video: MediaSource, seconds: float, start: float | None, places: Sequence[float]
    ) -> list[tuple[torch.Tensor, np.ndarray | None, float]]:
        """(frames, sound, start) of each window of `seconds` of a file."""
        options: dict[str, Any] = {
            "fps": self.fps,
            "size": self.settings["decode_size"],
            "audio": self.listen,
        }
        clips = read_windows(video, seconds, start=start, places=places, **self.reading, **options)
        return [
            (self.videos.load(clip, self.settings)[: self.num_frames], self._heard(clip.waveform), clip.start)
            for clip in clips
        ]

    def _decoded(
        self, video: Any, seconds: float, start: float | None, places: Sequence[float], metadata: Any
    ) -> list[tuple[torch.Tensor, np.ndarray | None, float]]:
        """(frames, sound, start) of each window of `seconds` of frames, or of a [`MediaClip`]."""
        frames = self.videos.load(video, self.settings, metadata)
        waveform = video.waveform if self.listen and isinstance(video, MediaClip) else None
        length = max(len(frames) / self.fps, 0.0 if waveform is None else len(waveform) / self.rate)
        result = []
        for moment in window_starts(length, seconds, places) if start is None else [start]:
            part = take_frames(frames, moment, self.fps, self.num_frames)
            if not len(part):
                raise ValueError(f"A clip of {len(frames) / self.fps:g} s has no frames at {moment:g} s.")
            heard = None
            if waveform is not None:
                heard = self._heard(take_samples(waveform, moment, self.rate, self.num_samples))
            result.append((part, heard, moment))
        return result

    def _sounds(self, sound: Any, start: float | None, places: Sequence[float]) -> list[np.ndarray | None]:
        """Each window of a sound without video."""
        if sound is None:
            return [None] * len(places)
        seconds = self.sounds.window_seconds
        if is_media_source(sound):
            clips = read_windows(sound, seconds, start=start, places=places, video=False, **self.reading)
            return [clip.waveform for clip in clips]
        length = len(self.sounds.load(sound)) / self.rate
        starts = window_starts(length, seconds, places) if start is None else [start]
        return [self._sound_at(sound, moment) for moment in starts]

    def _sound_at(self, sound: Any, start: float) -> np.ndarray | None:
        """The window of a sound at `start`."""
        if is_media_source(sound):
            seconds = self.sounds.window_seconds
            return read_clip(sound, start=start, duration=seconds, video=False, **self.reading).waveform
        waveform = self.sounds.load(sound)
        part = take_samples(waveform, start, self.rate, self.num_samples)
        if not len(part):
            raise ValueError(f"A sound of {len(waveform) / self.rate:g} s has no samples at {start:g} s.")
        return part

    def _heard(self, waveform: np.ndarray | None) -> np.ndarray | None:
        """The window's sound; None without a sound track, or after its end."""
        return None if waveform is None or not len(waveform) else waveform[: self.num_samples]
