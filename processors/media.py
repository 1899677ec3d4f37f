# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Opening media files: exact frames and samples of a time window. Only this module knows a decoder (PyAV).

Times are seconds on the file's common clock, whose zero is the start of the video or the audio stream, the
earlier of the two, so that pictures and sound of a window belong together. A call closes what it opens and
shares nothing with other calls, so calls may run side by side in threads and in forked or spawned processes.
"""

from __future__ import annotations

import math
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import chain, repeat
from types import TracebackType
from typing import Any, Literal, TypeAlias

import av
import numpy as np
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard, Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from .media_sound import RESAMPLING_MARGIN, SoundTrack
from .media_source import DEFAULT_LIMITS, MediaError, MediaLimits, MediaSource, open_source, source_name


Kind: TypeAlias = Literal["video", "audio"]
Wanted: TypeAlias = Callable[[float, float], bool]

_KINDS: tuple[Kind, ...] = ("video", "audio")
# A window is sought this many seconds ahead of itself, further each time, until a frame before it is found.
# Most containers succeed at once; transport streams have no index of their key frames.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)
# Sound decoded ahead of the window, for AAC and Opus to settle and for the bit reservoir of MP3.
_PREROLL = 0.5
_REORDER_DEPTH = 17  # packets within which H.264 stores the frames that follow each other on the screen
_MAX_READ_ERRORS = 16
_INTEGER_SCALE = {np.dtype(np.int16): 2.0**-15, np.dtype(np.int32): 2.0**-31, np.dtype(np.uint8): 2.0**-7}


@dataclass(frozen=True)
class MediaInfo:
    """What a container says about itself. Decoding does not rely on it.

    Attributes:
        source: printable name.
        duration: seconds.
        width, height: pixels as displayed, that is after turning by `rotation`.
        fps: average frame rate.
        rotation: degrees (0, 90, 180, 270) the stored frames are turned counter-clockwise for display.
        sampling_rate: Hz.
    None stands for not known, or no such stream.
    """

    source: str
    duration: float | None
    has_video: bool
    has_audio: bool
    width: int | None = None
    height: int | None = None
    fps: float | None = None
    num_frames: int | None = None
    rotation: int = 0
    sampling_rate: int | None = None
    channels: int | None = None
    video_codec: str | None = None
    audio_codec: str | None = None


@dataclass
class MediaClip:
    """A decoded window.

    Attributes:
        frames: uint8 (T, H, W, 3), RGB. None without a video stream; T = 0 if it ends before the window.
        waveform: float32 (S,), mono, about [-1, 1]. None without an audio stream; S = 0 if it ends before.
        start: seconds.
        duration: seconds asked for; of what was found, if all the rest was asked for.
        timestamps: float64 (T,), when the chosen frames appear, in seconds on the file's clock.
        info: the container's claims.
    """

    frames: np.ndarray | None
    waveform: np.ndarray | None
    start: float
    duration: float
    timestamps: np.ndarray
    info: MediaInfo


def probe(source: MediaSource, limits: MediaLimits = DEFAULT_LIMITS) -> MediaInfo:
    """What a source contains; decodes one frame at most.

    Raises:
        MediaError: not a media file, or a limit exceeded.
    """
    with _Reader(source, limits) as media:
        return media.info()


def read_clip(
    source: MediaSource,
    *,
    start: float = 0.0,
    duration: float | None = None,
    fps: float = 10.0,
    sampling_rate: int = 48_000,
    video: bool = True,
    audio: bool = True,
    size: int | None = None,
    limits: MediaLimits = DEFAULT_LIMITS,
) -> MediaClip:
    """Frames and sound of the window [start, start + duration).

    Frame k is the one on the screen at start + k / fps: the last one whose time is not later, give or take
    the rounding of the container's clock. The first frame of a file counts as shown from the beginning. There
    are round(duration * fps) frames and round(duration * sampling_rate) samples, fewer where a stream ends
    before the window does. Sound is the mean of the channels; gaps, and the time before it, are zeros.

    Args:
        source: path, URL (see `MediaLimits.allowed_hosts`), bytes, or binary file object (is not closed).
        start: seconds.
        duration: seconds; None reads to the end.
        fps: frames chosen a second.
        sampling_rate: Hz, of the waveform returned.
        video, audio: whether to decode frames and sound.
        size: pixels of the shorter side of the frames, keeping their shape; None keeps the stored size.
        limits: what the source may cost.

    Raises:
        MediaError: no stream of the kinds asked for, nothing to decode in the window, or a limit exceeded.
        ValueError: an argument out of range.
    """
    if not (math.isfinite(start) and start >= 0):
        raise ValueError(f"start must be seconds from 0 on, got {start}.")
    if duration is not None and not (math.isfinite(duration) and duration > 0):
        raise ValueError(f"duration must be positive seconds or None, got {duration}.")
    if not (math.isfinite(fps) and fps > 0 and sampling_rate > 0 and (size is None or size > 0)):
        raise ValueError(f"fps, sampling_rate and size must be positive, got {fps}, {sampling_rate}, {size}.")
    if not (video or audio):
        raise ValueError("video and audio are both False: nothing to read.")
    kinds = [kind for kind, asked in (("video", video), ("audio", audio)) if asked]
    with _Reader(source, limits) as media:
        media.check_window(duration or 0.0)
        if not any(kind in media.streams for kind in kinds):
            raise media.error(f"no {' and no '.join(kinds)} stream that can be decoded", "Check the file.")
        frames, timestamps, waveform, end = None, np.zeros(0), None, start
        # Sound first: it makes better use of a container that has just been opened.
        if audio and "audio" in media.streams:
            waveform, end = _read_waveform(media, start, duration, sampling_rate)
        if video and "video" in media.streams:
            frames, timestamps, video_end = _read_frames(media, start, duration, fps, size)
            end = max(end, video_end)
        if not any(part is not None and len(part) for part in (frames, waveform)):
            damage = f" ({_message(media.last_error)})" if media.last_error else ""
            raise media.error(
                f"nothing to decode from {start:g} s on; it ends at {end:g} s{damage}",
                "Choose an earlier window, or check that the file is complete.",
            )
        length = end - start if duration is None else duration
        return MediaClip(frames, waveform, start, length, timestamps, media.info())


def _message(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class _Reader:
    """An open source: its container, the chosen stream of each kind, the common clock."""

    def __init__(self, source: MediaSource, limits: MediaLimits) -> None:
        self.name, self.limits = source_name(source), limits
        self.last_error: Exception | None = None
        self._orientation: _Orientation | None = None
        self._container: Any = None
        self._file, self._owns_file = open_source(source, limits)
        try:
            self._open()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self._container is not None:
            self._container.close()
        pixels = {"max_pixels": str(self.limits.max_pixels)}
        try:
            self._file.seek(0)
            # A playlist must not make the decoder open other files or addresses: no protocol is allowed.
            self._container = av.open(
                self._file,
                mode="r",
                options=pixels,
                container_options={"protocol_whitelist": "none"},
                metadata_errors="replace",
            )
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self.error(f"not a readable media file ({_message(error)})", "Check the file.") from error
        self._fresh = True
        self.streams: dict[Kind, Any] = {}
        for kind in _KINDS:
            streams = [
                stream
                for stream in getattr(self._container.streams, kind)
                if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
            ]
            if streams:
                self.streams[kind] = max(streams, key=lambda s: bool(s.disposition & Disposition.default))
        # "tty" draws the characters of a text file as if on a terminal.
        if not self.streams or self._container.format.name == "tty":
            raise self.error("no video and no audio stream that can be decoded", "Check the file.")
        self.tick = {kind: float(stream.time_base) for kind, stream in self.streams.items()}
        starts = {kind: (stream.start_time or 0) * self.tick[kind] for kind, stream in self.streams.items()}
        self.origin = min(starts.values())
        self.begin = {kind: moment - self.origin for kind, moment in starts.items()}
        for kind, stream in self.streams.items():
            context = stream.codec_context
            context.thread_count = 1  # data loaders run a reader on each core
            context.options = pixels
            if kind == "video" and context.width * context.height > self.limits.max_pixels:
                raise self.error(
                    f"{context.width} x {context.height} is more than {self.limits.max_pixels} pixels",
                    "Raise MediaLimits.max_pixels if the source can be trusted.",
                )

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        if self._owns_file:
            self._file.close()

    def __enter__(self) -> _Reader:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, av.FFmpegError | OSError):
            raise self.error(f"cannot be decoded ({_message(error)})", "Check the file.") from error

    def error(self, reason: str, remedy: str) -> MediaError:
        return MediaError(self.name, reason, remedy)

    def check_window(self, seconds: float) -> None:
        if seconds > self.limits.max_seconds:
            raise self.error(
                f"the window is longer than {self.limits.max_seconds:g} s",
                "Read shorter windows or raise MediaLimits.max_seconds.",
            )

    def check_memory(self, size: float) -> None:
        if size > self.limits.max_bytes:
            raise self.error(
                f"the frames of the window take {size:.0f} bytes, more than {self.limits.max_bytes}",
                "Read a shorter window, pass a smaller size, or raise MediaLimits.max_bytes.",
            )

    def frames_from(
        self, kind: Kind, seconds: float, wanted: Wanted | None = None
    ) -> Iterator[tuple[float, Any]]:
        """(time, decoded frame) in the order of presentation, from one at or before `seconds`, or the first.

        A frame may be left out if `wanted(its time, time of the next)` is false.
        """
        seconds = max(seconds, self.begin[kind])
        from_begin = seconds == self.begin[kind]
        # Two things need a fresh container: the delay of a sound encoder, which is lost on seeking to the
        # beginning, and elementary video streams, whose frames have no times and are counted.
        if kind == "audio":
            seekable = not from_begin
        else:
            seekable = self.streams[kind].start_time is not None and not (from_begin and self._fresh)
        for back in _SEEK_BACK if seekable else ():
            self._fresh = False
            target = round((seconds - back + self.origin) / self.tick[kind])
            try:
                self._container.seek(target, stream=self.streams[kind])
            except av.FFmpegError:
                continue
            frames = self._decode(kind, wanted)
            for moment, frame in frames:
                if moment > seconds:
                    break
                # What precedes a key frame after a seek refers to frames that were not decoded.
                if kind == "audio" or frame.key_frame:
                    yield moment, frame
                    yield from frames
                    return
        if not self._fresh:
            self._open()
        self._fresh = False
        yield from self._decode(kind, wanted)

    def _decode(self, kind: Kind, wanted: Wanted | None) -> Iterator[tuple[float, Any]]:
        """(time, decoded frame) from the current position on; damaged packets are left out."""
        stream, tick = self.streams[kind], self.tick[kind]
        context = stream.codec_context
        for other in self._container.streams:
            other.discard = Discard.default if other is stream else Discard.all
        # AVI knows decoding times only: frames come out in the order of presentation, late by the depth of the
        # reordering.
        avi = kind == "video" and self._container.format.name == "avi"
        # H.264 marks the frames that no other refers to: those need no decoding unless wanted themselves.
        selective = wanted is not None and context.name == "h264" and not avi
        following = 0.0
        for packet, next_stamp in _with_next_stamp(self._demux(stream)):
            if selective and wanted is not None:
                known = packet.pts is not None and next_stamp is not None
                skip = known and not wanted(packet.pts * tick - self.origin, next_stamp * tick - self.origin)
                context.skip_frame = "NONREF" if skip else "DEFAULT"
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self.last_error = error
                continue
            for frame in frames:
                stamp = frame.pts
                if avi:
                    stamp = None if frame.dts is None else frame.dts - context.reorder_depth
                moment = following if stamp is None else stamp * tick - self.origin
                length = frame.samples / frame.sample_rate if kind == "audio" else frame.duration * tick
                following = moment + length
                yield moment, frame

    def _demux(self, stream: Any) -> Iterator[Any]:
        for _ in range(_MAX_READ_ERRORS):
            try:
                yield from self._container.demux(stream)
                return
            except av.FFmpegError as error:
                self.last_error = error

    def orientation(self, frame: Any = None) -> _Orientation:
        """How frames are turned for display, according to a decoded one (None: the first of the file)."""
        if self._orientation is None:
            if frame is None:
                _, frame = next(self.frames_from("video", 0.0), (0.0, None))
            self._orientation = _Orientation() if frame is None else _Orientation.of(frame)
        return self._orientation

    def info(self) -> MediaInfo:
        claims: dict[str, Any] = {}
        if "video" in self.streams:
            orientation = self.orientation()
            stream = self.streams["video"]
            sides = stream.codec_context.width, stream.codec_context.height
            claims["width"], claims["height"] = sides[::-1] if orientation.transposed else sides
            claims["fps"] = float(stream.average_rate) if stream.average_rate else None
            claims["num_frames"] = stream.frames or None
            claims["rotation"] = orientation.rotation
            claims["video_codec"] = stream.codec_context.name
        if "audio" in self.streams:
            context = self.streams["audio"].codec_context
            claims["sampling_rate"], claims["channels"] = context.sample_rate, context.layout.nb_channels
            claims["audio_codec"] = context.name
        duration = None if self._container.duration is None else self._container.duration / av.time_base
        return MediaInfo(self.name, duration, "video" in self.streams, "audio" in self.streams, **claims)


def _with_next_stamp(packets: Iterator[Any]) -> Iterator[tuple[Any, int | None]]:
    """Packets, each with the presentation stamp that comes after its own, None where that is not known."""
    queue: deque[Any] = deque()
    stamps: list[int] = []
    for packet in chain(packets, repeat(None, _REORDER_DEPTH)):
        if packet is not None:
            queue.append(packet)
            if packet.pts is not None and not packet.is_discard:
                insort(stamps, packet.pts)
        if queue and (packet is None or len(queue) > _REORDER_DEPTH):
            first = queue.popleft()
            later = len(stamps) if first.pts is None else bisect_right(stamps, first.pts)
            yield first, stamps[later] if later < len(stamps) else None
            del stamps[: -4 * _REORDER_DEPTH]


@dataclass(frozen=True)
class _Orientation:
    """A display matrix as exchange of rows and columns, then mirroring; `rotation` is its angle."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False
    rotation: int = 0

    @classmethod
    def of(cls, frame: Any) -> _Orientation:
        matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        if matrix is None:
            return cls()
        # A stored pixel (x, y) is displayed at (a x + c y, b x + d y).
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
        transposed = abs(b) + abs(c) > abs(a) + abs(d)
        mirror_x, mirror_y = (c < 0, b < 0) if transposed else (a < 0, d < 0)
        return cls(transposed, mirror_x, mirror_y, round(frame.rotation / 90) % 4 * 90)

    def apply(self, image: np.ndarray) -> np.ndarray:
        image = image.swapaxes(0, 1) if self.transposed else image
        return image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


def _read_frames(
    media: _Reader, start: float, duration: float | None, fps: float, size: int | None
) -> tuple[np.ndarray, np.ndarray, float]:
    """Frames (T, H, W, 3) on the screen at start + k / fps, their times (T,), and when the last one ends."""
    tick = media.tick["video"]
    # Half a tick absorbs the rounding of stamps; where a tick is a whole frame (AVI) there is none to absorb.
    tolerance = min(tick / 2, 5e-4)
    count = math.inf if duration is None else round(duration * fps)
    reformatter = VideoReformatter()
    sides: tuple[int, int] | None = None
    images: list[np.ndarray] = []
    times: list[float] = []
    shown: tuple[float, Any] | None = None
    end = 0.0

    def due(moment: float) -> float:
        """How many frames of the clip are on the screen before `moment`."""
        return min(count, max(0, math.ceil((moment - tolerance - start) * fps)))

    def convert(frame: Any, total: int) -> np.ndarray:
        nonlocal sides
        if sides is None:
            scale = 1.0 if size is None else size / min(frame.width, frame.height)
            sides = max(1, round(frame.width * scale)), max(1, round(frame.height * scale))
        media.check_memory(3 * sides[0] * sides[1] * (total if duration is None else count))
        # swscale resizes to planes twice as fast as to interleaved RGB, with the same result.
        layout = "rgb24" if sides == (frame.width, frame.height) else "gbrp"
        image = reformatter.reformat(frame, *sides, layout, interpolation=Interpolation.AREA, threads=1)
        return media.orientation(frame).apply(image.to_ndarray())

    def show_until(moment: float) -> None:
        missing = int(due(moment)) - len(images)
        if shown is not None and missing > 0:
            images.extend([convert(shown[1], len(images) + missing)] * missing)
            times.extend([shown[0]] * missing)

    def wanted(moment: float, following: float) -> bool:
        return due(moment) < due(following)

    for moment, frame in media.frames_from("video", start + tolerance, wanted):
        media.orientation(frame)
        if frame.is_corrupt or (shown is not None and moment <= shown[0]):
            continue
        show_until(moment)
        if len(images) >= count:
            break
        if duration is None:
            media.check_window(moment - start)
        interval = 0.0 if shown is None else moment - shown[0]
        shown = (moment, frame)
        end = moment + (frame.duration * tick or interval or tick)
    show_until(end)
    return np.stack(images) if images else np.zeros((0, 0, 0, 3), np.uint8), np.array(times), end


def _read_waveform(
    media: _Reader, start: float, duration: float | None, sampling_rate: int
) -> tuple[np.ndarray, float]:
    """Samples (S,) of the window and when the sound ends, or the window at least."""
    stop = math.inf if duration is None else start + duration
    sought = start - _PREROLL > media.begin["audio"]
    grid = _frame_grid(media) if sought else None
    track: SoundTrack | None = None
    for moment, frame in media.frames_from("audio", start - _PREROLL):
        if track is None:
            track = SoundTrack(frame.sample_rate, grid)
        if frame.sample_rate != track.rate:
            raise media.error(
                f"the sampling rate changes from {track.rate} to {frame.sample_rate} Hz at {moment:g} s",
                "Choose a window before or after the change.",
            )
        if moment >= stop + RESAMPLING_MARGIN:
            track.end = max(track.end, round(moment * track.rate))
            break
        if duration is None:
            media.check_window(moment - start)
        track.add(moment, _mono(frame))
    if track is None:
        return np.zeros(0, np.float32), 0.0
    end = track.end / track.rate
    first, last = round(start * sampling_rate), round(end * sampling_rate)
    if duration is not None and end >= stop:
        last = first + round(duration * sampling_rate)
    begin = max(0, round(media.begin["audio"] * track.rate))
    return track.samples(first, max(first, last), sampling_rate, begin), end


def _frame_grid(media: _Reader) -> int | None:
    """The sample at which the second frame begins, if stamps are too coarse to tell (Matroska: 1 ms)."""
    if media.tick["audio"] * media.streams["audio"].codec_context.sample_rate <= 1.0:
        return None
    for moment, frame in media.frames_from("audio", 0.0):
        return round(moment * frame.sample_rate) + int(frame.samples)
    return None


def _mono(frame: Any) -> np.ndarray:
    """float32 (samples,): the mean of the channels of a decoded frame."""
    stored = frame.to_ndarray()
    if not frame.format.is_planar:
        stored = stored.reshape(-1, frame.layout.nb_channels).T
    samples = stored.astype(np.float32)
    if stored.dtype in _INTEGER_SCALE:
        samples = (samples - 128 * (stored.dtype == np.uint8)) * np.float32(_INTEGER_SCALE[stored.dtype])
    return samples.mean(axis=0) if len(samples) > 1 else samples[0]
