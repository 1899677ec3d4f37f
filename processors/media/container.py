# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Containers and decoders; the only module that imports PyAV.

A `MediaReader` is an open source with one clock in seconds; zero is the start of the earlier of the video and
audio streams. It gives decoded frames with their times, from any moment on. Where the file's own clock jumps,
the file is read from its beginning and the stamps are moved onto one clock.
"""

import io
import math
import os
import re
import time
from bisect import bisect_right, insort
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import chain, pairwise, repeat
from types import TracebackType
from typing import Any, BinaryIO, Literal, Self, TypeAlias

import av
import numpy as np
from av.filter import Graph
from av.sidedata.sidedata import Type as SideDataType
from av.stream import Discard, Disposition
from av.video.reformatter import Interpolation, VideoReformatter

from .clock import FileClock, matroska_end
from .edits import Edit, are_joined, edit_lists, timeline
from .source import MediaError, MediaLimits, MediaSource, open_source, source_name


Kind: TypeAlias = Literal["video", "audio"]
Wanted: TypeAlias = Callable[[float, float], bool]

_KINDS: tuple[Kind, ...] = ("video", "audio")
# Seeks go to so many seconds before a window, further each time, until a frame before it is found. Transport
# streams have no index of key frames. Program streams stamp some frames only; after a seek other times are
# guesses.
_SEEK_BACK = (0.0, 2.0, 10.0, 60.0)
_SEEK_BACK_GUESSING = (10.0, 60.0)
# Flags of a format: its stamps may jump; are counted by FFmpeg; do not exist.
_TS_DISCONT, _GENERIC_INDEX, _NOTIMESTAMPS = 0x200, 0x100, 0x80
# Formats that seek and then stamp by bytes a second, which is right only for samples of one size.
_SEEKS_BY_RATE = ("wav", "w64", "aiff", "au", "voc", "sox", "ircam", "nistsphere", "caf")
_TIMED_IN_OGG = ("opus", "vorbis")  # others get a stamp of some packet of the page that was sought
_STATEFUL = ("speex", "adpcm", "g722", "g726")  # codecs whose packets need all those before them
# Formats whose header states a length of its own, however much of the file is there.
_HEADER_LENGTH = ("matroska", "flv", "flac")
_LATE = 0.05  # seconds; where a file's clock starts later, it matters whether its length counts this
_CUT_SHORT = 1.0  # seconds; headers err by less
_MAX_ASPECT = 20.0  # of a pixel; more is damage
_REORDER_DEPTH = 17  # packets over which H.264 reorders frames
_MAX_READ_ERRORS = 16
_MAX_READ = 1 << 20  # bytes at a time
_SAMPLE_TYPE = {"u8": "u1", "s16": "i2", "s32": "i4", "s64": "i8", "flt": "f4", "dbl": "f8"}
_FLOAT = re.compile(r"f(16|32)([lb])e$")  # names of formats of pixels
_LOUDEST = 2.0**31  # float samples with the range of 32-bit integers exist; more is damage


_MAX_CLOCKS = 1024
_clocks: dict[tuple[str | int, ...], FileClock] = {}  # of files that were looked through


@dataclass(frozen=True)
class MediaInfo:
    """What a container says about itself. Decoding uses only `duration`, which is measured where the
    container only estimates it.

    Attributes:
        source: printable name.
        duration: seconds from the start of the earlier stream. None if the container does not state it and
            reading the window did not need it.
        width, height: pixels as displayed, square (the stored height is kept) and turned by `rotation`.
        fps: average frame rate.
        rotation: degrees (0, 90, 180, 270) the stored frames are turned counter-clockwise for display.
        sampling_rate: Hz.
        clock_start: time of the file's own clock, which players show, at second 0 of the clock used here.
        missing: seconds that the header states but a truncated file does not hold; 0 if not known.
    None means not known, or no such stream.
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
    clock_start: float = 0.0
    missing: float = 0.0


def error_message(error: Exception) -> str:
    return getattr(error, "strerror", None) or str(error)


class _WatchedFile:
    """What the decoder reads from; checks the time limit before every access."""

    def __init__(self, file: BinaryIO, check: Callable[[], None]) -> None:
        self._file, self._check = file, check
        self.tell = file.tell
        if isinstance(name := getattr(file, "name", None), str):
            self.name = name  # its ending helps to recognise the format

    def read(self, size: int) -> bytes:
        self._check()
        # A read allocates what it is asked for, and headers may state gigabytes.
        return self._file.read(min(size, _MAX_READ))

    def seek(self, offset: int, whence: int = 0) -> int:
        self._check()
        return self._file.seek(offset, whence)


class MediaReader:
    """An open source: its container, the chosen stream of each kind, the common clock."""

    def __init__(self, source: MediaSource, limits: MediaLimits) -> None:
        self.name, self.limits = source_name(source), limits
        self.last_error: Exception | None = None
        self._orientation: Orientation | None = None
        self._clock: FileClock | None = None
        self._container: Any = None
        self._demuxing = {"protocol_whitelist": "none"}  # so a playlist cannot open other files or addresses
        # Of films joined from several parts: then times of frames are those of the streams.
        self.edits: dict[Kind, list[Edit]] = {}
        self._film_begin = 0.0
        self._shown_until: dict[Kind, float] = {}
        self._file, self._owns_file = open_source(source, limits)
        self._deadline = time.monotonic() + limits.wall_seconds
        try:
            self._open()
            self._follow_edits()
        except BaseException:
            self.close()
            raise

    def _open(self) -> None:
        if self._container is not None:
            self._container.close()
        options = {"max_pixels": str(self.limits.max_pixels)}
        try:
            self._file.seek(0)
            self._container = av.open(
                _WatchedFile(self._file, self.check_time),
                mode="r",
                options=options,
                container_options=self._demuxing,
                metadata_errors="replace",
            )
        except MediaError:
            raise
        except (av.FFmpegError, OSError, ValueError) as error:
            raise self.error(
                f"not a readable media file ({error_message(error)})", "Check the file."
            ) from error
        self._fresh = True
        self.streams = self._choose_streams()
        # FFmpeg counts the frames of elementary streams in the order of decoding.
        self._unstamped = "video" in self.streams and bool(self._container.format.flags & _NOTIMESTAMPS)
        self.tick = {kind: float(stream.time_base) for kind, stream in self.streams.items()}
        starts = {kind: (stream.start_time or 0) * self.tick[kind] for kind, stream in self.streams.items()}
        self.origin = 0.0 if "ignore_editlist" in self._demuxing else min(starts.values())
        self.begin = {kind: moment - self.origin for kind, moment in starts.items()}
        for stream in self.streams.values():
            stream.codec_context.thread_count = 1  # data loaders run a reader on each core
            stream.codec_context.options = options
        if "video" in self.streams:
            self._check_size(self.streams["video"])

    def _follow_edits(self) -> None:
        """Follow the edit lists of MP4 here instead of in FFmpeg if a track has several parts."""
        whole = self._container.format.name.startswith("mov") and all(s.frames for s in self.streams.values())
        found = edit_lists(_WatchedFile(self._file, self.check_time)) if whole else {}  # type: ignore[arg-type]
        lists = {stream.id: found.get(stream.id, []) for stream in self.streams.values()}
        if not are_joined(lists.values()):
            for kind, stream in self.streams.items():
                entries = lists[stream.id]
                if entries and entries[0][1] < 0:  # nothing is shown at first, which FFmpeg counts twice
                    self._shown_until[kind] = sum(seconds for seconds, _ in entries) - self.origin
            return
        self._demuxing["ignore_editlist"] = "1"
        self._open()
        for kind, stream in self.streams.items():
            end = self.begin[kind] + (stream.duration or 0) * self.tick[kind]
            self.edits[kind] = timeline(lists[stream.id] or [(end, 0)], self.tick[kind], end)
        self._film_begin = min((edits[0].begin for edits in self.edits.values() if edits), default=0.0)
        for kind, edits in self.edits.items():
            self.edits[kind] = [
                Edit(begin - self._film_begin, end - self._film_begin, media) for begin, end, media in edits
            ]

    def _choose_streams(self) -> dict[Kind, Any]:
        """Choose of each kind the default stream, else the first; no attached pictures."""
        chosen: dict[Kind, Any] = {}
        for kind in _KINDS:
            streams = [
                stream
                for stream in getattr(self._container.streams, kind)
                if stream.codec_context is not None and not stream.disposition & Disposition.attached_pic
            ]
            if streams:
                chosen[kind] = max(streams, key=_preference)
        # "tty" renders text files.
        if not chosen or self._container.format.name == "tty":
            raise self.error("no video and no audio stream that can be decoded", "Check the file.")
        return chosen

    def _check_size(self, stream: Any) -> None:
        """Note the aspect ratio of pixels, and refuse frames that are too large before any is decoded."""
        context = stream.codec_context
        # The container's aspect ratio counts, unless it only repeats the codec's.
        stated = stream.sample_aspect_ratio
        self._pixel_shape = None if stated == context.sample_aspect_ratio else stated
        width, height = max(context.width, self.display_width(context.width)), context.height
        if width * height > self.limits.max_pixels:
            raise self.error(
                f"{width} x {height} is more than {self.limits.max_pixels} pixels",
                "Raise MediaLimits.max_pixels if the source can be trusted.",
            )

    def close(self) -> None:
        if self._container is not None:
            self._container.close()
        if self._owns_file:
            self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if isinstance(error, av.FFmpegError | OSError):
            raise self.error(f"cannot be decoded ({error_message(error)})", "Check the file.") from error

    def error(self, reason: str, remedy: str) -> MediaError:
        return MediaError(self.name, reason, remedy)

    def check_time(self) -> None:
        if time.monotonic() > self._deadline:
            raise self.error(
                f"not decoded within {self.limits.wall_seconds:g} s",
                "Leave it out, or raise MediaLimits.wall_seconds.",
            )

    def check_window(self, seconds: float) -> None:
        if seconds > self.limits.max_seconds:
            raise self.error(
                f"the window is longer than {self.limits.max_seconds:g} s",
                "Read shorter windows or raise MediaLimits.max_seconds.",
            )

    def check_memory(self, size: float) -> None:
        if size > self.limits.max_bytes:
            raise self.error(
                f"the window takes {size:.0f} bytes decoded, more than {self.limits.max_bytes}",
                "Read a shorter window, pass a smaller size, or raise MediaLimits.max_bytes.",
            )

    @cached_property
    def _layout(self) -> tuple[bool, bool]:
        """Whether the file has one clock, so seeking by time works; whether it states its length."""
        form, flags = self._container.format.name, self._container.format.flags
        one_clock = states_length = False
        if form.startswith("mov"):
            # Fragments are not in the list of samples, and may be of several recordings.
            one_clock = states_length = all(stream.frames for stream in self.streams.values())
        elif form == "avi":
            one_clock = True  # frames are counted
        elif "matroska" in form:
            end, size = matroska_end(self._file), self._container.size
            one_clock = end is not None and end >= size
            states_length = end == size and self.origin < _LATE
        elif flags & (_GENERIC_INDEX | _NOTIMESTAMPS) and not flags & _TS_DISCONT and form != "flac":
            one_clock = True
            states_length = all(
                s.codec_context.name.startswith("pcm_")
                and (s.duration or 0) * s.time_base * (s.codec_context.bit_rate or 0)
                <= 8 * self._container.size
                for s in self.streams.values()
            )
        return one_clock, states_length and self._container.duration is not None

    def _scan(self) -> FileClock:
        """Find from all packets, without decoding, where the clock jumps and the streams end. Remembered for
        files opened by name until they change."""
        if self._clock is not None:
            return self._clock
        identity = None
        if self._owns_file and isinstance(self._file, io.BufferedReader):
            status = os.fstat(self._file.fileno())
            place = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
            identity = (self._container.format.name, *place)
            self._clock = _clocks.get(identity)
        if self._clock is None:
            self._clock = self._look_through()
            if identity is not None:
                if len(_clocks) >= _MAX_CLOCKS:
                    _clocks.clear()
                _clocks[identity] = self._clock
        return self._clock

    def _look_through(self) -> FileClock:
        self._rewind()
        clock = FileClock(list(self.streams), bool(self._container.format.flags & _TS_DISCONT))
        kinds = {stream.index: kind for kind, stream in self.streams.items()}
        for packet in self._demux(*self.streams.values()):
            if packet.size:
                kind = kinds[packet.stream_index]
                stamp = packet.dts if packet.pts is None else packet.pts
                tick = self.tick[kind]
                moment = None if stamp is None or packet.is_discard or self._unstamped else stamp * tick
                length = (packet.duration or 0) * tick
                if kind == "audio" and packet.has_sidedata("skip_samples"):  # the decoder drops them
                    skipped = np.frombuffer(bytes(packet.get_sidedata("skip_samples"))[:8], "<u4")
                    # At its beginning and end; Ogg takes the latter off the length itself.
                    samples = skipped[0] if self._container.format.name == "ogg" else skipped.sum()
                    length -= float(samples) / max(1, packet.stream.codec_context.sample_rate)
                clock.add(kind, moment, max(0.0, length), packet.is_keyframe)
        return clock

    @property
    def one_clock(self) -> bool:
        """Whether the file has one clock; otherwise it is read from its beginning."""
        return self._layout[0] or not self._scan().jumps

    def _sound_from_begin(self) -> bool:
        """Whether sound must be decoded from its beginning, as samples or stamps after a seek are wrong."""
        form = self._container.format.name
        codec = self.streams["audio"].codec_context.name.removeprefix("lib")
        guessed = form in _SEEKS_BY_RATE and not codec.startswith("pcm_")
        guessed |= form == "ogg" and codec not in _TIMED_IN_OGG
        return guessed or codec.startswith(_STATEFUL) or self._counted()

    def _counted(self) -> bool:
        """Whether to count samples, as the stamps of sound add up rounded lengths, or repeat."""
        flags = self._container.format.flags
        if flags & _GENERIC_INDEX and not flags & _TS_DISCONT and "video" not in self.streams:
            sound = self.streams["audio"]
            return bool(1 / sound.time_base % max(1, sound.codec_context.sample_rate)) or not self.one_clock
        return not self._layout[0] and self._scan().stands_still

    def _rewind(self) -> None:
        if not self._fresh:
            self._open()
        self._fresh = False

    def frames_from(
        self, kind: Kind, seconds: float, wanted: Wanted | None = None
    ) -> Iterator[tuple[float, Any]]:
        """(time, decoded frame) in presentation order, from one at or before `seconds`, or the first; frames
        for which `wanted(time, time of the next)` is false may be left out."""
        seconds = max(seconds, self.begin[kind])
        from_begin = seconds == self.begin[kind]
        if kind == "audio" and self._sound_from_begin():
            frames = self._decode(kind, None, self._packets_from(kind, -math.inf), self.begin[kind])
            for each, following in pairwise(chain(frames, [(math.inf, None)])):
                if following[0] > seconds:
                    yield each
            return
        if not self.one_clock:
            packets = self._packets_from(kind, -math.inf if from_begin else seconds)
            yield from self._decode(kind, wanted, packets, self.begin[kind])
            return
        # A fresh container is needed for the delay of a sound encoder, which a seek to the beginning loses,
        # and for elementary video streams, whose frames have no times and are counted.
        if kind == "audio":
            seekable = not from_begin
        else:
            stamped = self.streams[kind].start_time is not None and not self._unstamped
            seekable = stamped and not (from_begin and self._fresh)
        backs = _SEEK_BACK_GUESSING if self._container.format.name == "mpeg" else _SEEK_BACK
        for back in backs if seekable else ():
            self._fresh = False
            target = round((seconds - back + self.origin) / self.tick[kind])
            try:
                self._container.seek(target, stream=self.streams[kind])
            except av.FFmpegError:
                continue
            frames = self._decode(kind, wanted, self._demux(self.streams[kind]))
            for moment, frame in frames:
                if moment > seconds:
                    break
                # After a seek, frames before the key frame refer to frames that were not decoded.
                if kind == "audio" or frame.key_frame:
                    yield moment, frame
                    yield from frames
                    return
        self._rewind()
        yield from self._decode(kind, wanted, self._demux(self.streams[kind]), self.begin[kind])

    def _packets_from(self, kind: Kind, seconds: float) -> Iterator[Any]:
        """Packets from the file's beginning, on one clock, for the frames from `seconds` on."""
        clock = None if self.one_clock else self._scan()
        counted = kind == "audio" and self._counted()
        self._rewind()
        held: list[Any] | None = [] if math.isfinite(seconds) else None
        number = 0
        for packet in self._demux(self.streams[kind]):
            if packet.size:
                shift = 0 if clock is None else round(clock.offset(kind, number) / self.tick[kind])
                number += 1
                packet.pts = None if counted or packet.pts is None else packet.pts + shift
                packet.dts = None if counted or packet.dts is None else packet.dts + shift
            if held is None:
                yield packet
                continue
            moment = None if packet.pts is None else packet.pts * self.tick[kind] - self.origin
            if packet.is_keyframe and moment is not None and moment <= seconds:
                held = []
            held.append(packet)
            if not packet.size or (moment is not None and moment > seconds):
                yield from held
                held = None

    def _decode(
        self, kind: Kind, wanted: Wanted | None, packets: Iterator[Any], following: float | None = None
    ) -> Iterator[tuple[float, Any]]:
        """(time, decoded frame) of packets without damaged ones. `following`: time of the first frame if it
        has no stamp; None leaves out frames before the first stamp."""
        stream, tick = self.streams[kind], self.tick[kind]
        context = stream.codec_context
        # AVI has decoding times only. Frames come in presentation order, late by the depth of the reordering.
        avi = kind == "video" and self._container.format.name == "avi"
        # H.264 marks frames to which no other refers: they are decoded only if wanted.
        selective = wanted is not None and context.name == "h264" and not avi
        for packet, next_stamp in _with_next_stamp(packets):
            if selective and wanted is not None:
                known = packet.pts is not None and next_stamp is not None
                skip = known and not wanted(packet.pts * tick - self.origin, next_stamp * tick - self.origin)
                context.skip_frame = "NONREF" if skip else "DEFAULT"
            self.check_time()
            try:
                frames = packet.decode()
            except av.FFmpegError as error:
                self.last_error = error
                continue
            for frame in frames:
                self.check_time()
                stamp = None if self._unstamped else frame.pts
                if avi:
                    stamp = None if frame.dts is None else frame.dts - context.reorder_depth
                moment = following if stamp is None else stamp * tick - self.origin
                if moment is None:
                    continue
                length = frame.samples / frame.sample_rate if kind == "audio" else frame.duration * tick
                following = moment + length
                yield moment, frame

    def _demux(self, *streams: Any) -> Iterator[Any]:
        for other in self._container.streams:
            other.discard = Discard.default if other in streams else Discard.all
        errors = 0
        while errors < _MAX_READ_ERRORS:
            try:
                yield from self._container.demux(*streams)
                return
            except av.FFmpegError as error:
                self.last_error = error
                errors += 1
            except IndexError:  # PyAV, for a stream that appears late
                self.check_time()

    def length(self, kinds: Sequence[Kind]) -> float | None:
        """Seconds until the streams of these kinds end, from the container or else its packets; None if
        neither tells."""
        if self.edits:
            return max((self.edits[kind][-1].end for kind in kinds if self.edits[kind]), default=0.0)
        if self._layout[1] and self._clock is None:
            ticks = [self.streams[kind].duration or 0 for kind in kinds]
            if min(ticks) > 0:
                return max(
                    min(self.begin[kind] + count * self.tick[kind], self._shown_until.get(kind, math.inf))
                    for kind, count in zip(kinds, ticks, strict=True)
                )
            if len(kinds) == len(self._container.streams):
                return self._container.duration / av.time_base
        clock = self._scan()
        if kinds == ["audio"] and not self.one_clock and self._counted():
            return None  # joined FLAC files: some packets have neither stamp nor length
        ends = [clock.end(kind) for kind in kinds if clock.packets[kind]]
        known = [end - self.origin for end in ends if end is not None]
        return max(known) if known and len(known) == len(ends) else None

    def display_width(self, width: int) -> int:
        """Pixels of a stored row as displayed, where pixels are square."""
        ratio = self._pixel_shape or self.streams["video"].codec_context.sample_aspect_ratio
        if not ratio or not 1 / _MAX_ASPECT <= ratio <= _MAX_ASPECT:
            return width
        return max(1, round(width * ratio))

    def orientation(self, frame: Any = None) -> "Orientation":
        """How frames are turned for display, from a decoded one (None: the first of the file)."""
        if self._orientation is None:
            if frame is None:
                _, frame = next(self.frames_from("video", 0.0), (0.0, None))
            self._orientation = Orientation() if frame is None else Orientation.of(frame)
        return self._orientation

    def info(self) -> MediaInfo:
        claims: dict[str, Any] = {"clock_start": self.origin + self._film_begin}
        if "video" in self.streams:
            orientation = self.orientation()
            stream = self.streams["video"]
            context = stream.codec_context
            sides = self.display_width(context.width), context.height
            claims["width"], claims["height"] = sides[::-1] if orientation.transposed else sides
            claims["fps"] = float(stream.average_rate) if stream.average_rate else None
            claims["num_frames"] = stream.frames or None
            claims["rotation"] = orientation.rotation
            claims["video_codec"] = stream.codec_context.name
        if "audio" in self.streams:
            context = self.streams["audio"].codec_context
            claims["sampling_rate"], claims["channels"] = context.sample_rate, context.layout.nb_channels
            claims["audio_codec"] = context.name
        known = self._layout[1] or self._clock is not None
        duration = self.length(list(self.streams)) if known else None
        stated = (self._container.duration or 0) / av.time_base
        if duration is not None and any(name in self._container.format.name for name in _HEADER_LENGTH):
            missing = stated - duration
            claims["missing"] = missing if missing > _CUT_SHORT else 0.0
        return MediaInfo(self.name, duration, "video" in self.streams, "audio" in self.streams, **claims)


def _preference(stream: Any) -> tuple[bool, bool]:
    """What is larger for the stream to choose. A single picture (beside a sequence in AVIF) is no film."""
    return stream.type == "audio" or stream.frames != 1, bool(stream.disposition & Disposition.default)


def _with_next_stamp(packets: Iterator[Any]) -> Iterator[tuple[Any, int | None]]:
    """Packets, each with the next presentation stamp, None where that is not known."""
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


def _without_side_data(frame: Any, kind: int) -> Any:
    """The frame without its side data of one kind, a number of FFmpeg."""
    graph = Graph()
    form = {"width": frame.width, "height": frame.height, "format": frame.format}
    begin = graph.add_buffer(**form, time_base=frame.time_base)
    graph.link_nodes(begin, graph.add("sidedata", f"mode=delete:type={kind}"), graph.add("buffersink"))
    graph.configure()
    graph.push(frame)
    return graph.pull()


@dataclass(frozen=True)
class Orientation:
    """A display matrix as exchange of rows and columns, then mirroring; `rotation` is its angle."""

    transposed: bool = False
    mirror_x: bool = False
    mirror_y: bool = False
    rotation: int = 0

    @classmethod
    def of(cls, frame: Any) -> Self:
        # A stored pixel (x, y) is displayed at (a x + c y, b x + d y).
        try:
            matrix = frame.side_data.get(SideDataType.DISPLAYMATRIX)
        except ValueError as error:  # "31 is not a valid Type": kinds without a name in PyAV, such as EXIF
            return cls.of(_without_side_data(frame, int(str(error).split()[0])))
        if matrix is None:
            return cls()
        a, b, _, c, d = np.frombuffer(bytes(matrix), dtype=np.int32)[:5].tolist()
        transposed = abs(b) + abs(c) > abs(a) + abs(d)
        mirror_x, mirror_y = (c < 0, b < 0) if transposed else (a < 0, d < 0)
        return cls(transposed, mirror_x, mirror_y, round(frame.rotation / 90) % 4 * 90)

    def apply(self, image: np.ndarray) -> np.ndarray:
        image = image.swapaxes(0, 1) if self.transposed else image
        return image[:: -1 if self.mirror_y else 1, :: -1 if self.mirror_x else 1]


class FrameConverter:
    """Decoded frames to upright RGB arrays (H, W, 3), resized by swscale. `size`: shorter displayed side in
    pixels, None for the stored height; `count`: number of frames, None if not known."""

    def __init__(self, media: MediaReader, size: int | None, count: int | None) -> None:
        self._media, self._size, self._count = media, size, count
        self._reformatter = VideoReformatter()
        self._sides: tuple[int, int] | None = None

    def __call__(self, frame: Any, number: int) -> np.ndarray:
        """Convert a frame, the last of `number` so far."""
        if self._sides is None:
            width, height = self._media.display_width(frame.width), frame.height
            scale = 1.0 if self._size is None else self._size / min(width, height)
            self._sides = max(1, round(width * scale)), max(1, round(height * scale))
        self._media.check_memory(3 * self._sides[0] * self._sides[1] * (self._count or number))
        if numbers := _FLOAT.search(frame.format.name):
            planes = _float_planes(frame, *numbers.groups())
            if any(np.isnan(plane).any() for plane in planes):  # swscale makes it black
                raise self._media.error(
                    f"{frame.format.name} pixels that are NaN", "Replace them, or choose another window."
                )
            if frame.format.name.startswith("gray"):  # swscale takes 235 of 255 for white
                grey = np.rint(planes[0].clip(0.0, 1.0) * 255).astype(np.uint8)
                frame = av.VideoFrame.from_ndarray(grey, format="gray")
        # swscale resizes to planes twice as fast as to interleaved RGB, with the same result.
        layout = "rgb24" if self._sides == (frame.width, frame.height) else "gbrp"
        image = self._reformatter.reformat(
            frame, *self._sides, layout, interpolation=Interpolation.AREA, threads=1
        )
        return self._media.orientation(frame).apply(image.to_ndarray())


def _float_planes(frame: Any, bits: str, order: str) -> list[np.ndarray]:
    """The numbers of a decoded picture, (height, width * components of the plane)."""
    # Not frame.to_ndarray(), which does not know all formats.
    dtype = np.dtype(f"{'<' if order == 'l' else '>'}f{int(bits) // 8}")
    used = len(frame.format.components) // len(frame.planes)
    return [  # rows are padded, and those of PFM stored upwards
        np.frombuffer(plane, dtype).reshape(plane.height, -1)[
            :: -1 if plane.line_size < 0 else 1, : plane.width * used
        ]
        for plane in frame.planes
    ]


def mono(frame: Any) -> np.ndarray:
    """float32 (samples,): the mean of the channels of a decoded frame; NaN where a sample is not finite or
    beyond 2^31."""
    # Not frame.to_ndarray(): with eight or more channels it reads beyond the last plane.
    channels, planes = frame.layout.nb_channels, frame.planes
    dtype = np.dtype(_SAMPLE_TYPE[frame.format.name.removesuffix("p")])
    if frame.format.is_planar:
        stored = np.stack([np.frombuffer(plane, dtype, frame.samples) for plane in planes[:channels]])
    else:
        stored = np.frombuffer(planes[0], dtype, frame.samples * channels).reshape(-1, channels).T
    if dtype.kind == "f":
        stored = np.where(np.abs(stored) <= _LOUDEST, stored, np.nan)  # NaN fails the comparison
    samples = stored.astype(np.float32)
    if dtype.kind != "f":  # the most negative number becomes -1; of bytes 128 is silence
        samples = (samples - 128 * (dtype.kind == "u")) * np.float32(2.0 ** (1 - 8 * dtype.itemsize))
    return samples.mean(axis=0) if len(samples) > 1 else samples[0]
