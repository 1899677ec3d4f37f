# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Tiny media files for tests, made with PyAV: frames that carry their number, click trains, any container.

A numbered frame is a grid of 4 x 3 black or white blocks that spell a 12-bit number, so that the number
survives lossy codecs, chroma subsampling and resizing, and `frame_number` can tell which frame came back.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
from av.stream import Disposition


GRID_ROWS, GRID_COLUMNS = 3, 4
CLOCK = 90_000  # ticks per second for frames with explicit times
LAYOUTS = {1: "mono", 2: "stereo", 6: "5.1", 8: "7.1"}
EXTRA_OPTIONS = {"vorbis": {"strict": "experimental"}, "libvpx": {"deadline": "realtime", "cpu-used": "8"}}


def numbered_frames(count: int, width: int = 64, height: int = 48, first: int = 0) -> list[np.ndarray]:
    """`count` uint8 frames (height, width, 3) that spell first, first + 1, ..."""
    frames = []
    for number in range(first, first + count):
        bits = np.array([(number >> bit) & 1 for bit in range(GRID_ROWS * GRID_COLUMNS)], dtype=np.uint8)
        blocks = bits.reshape(GRID_ROWS, GRID_COLUMNS) * 255
        rows = np.arange(height) * GRID_ROWS // height
        columns = np.arange(width) * GRID_COLUMNS // width
        frames.append(np.repeat(blocks[rows][:, columns][..., None], 3, axis=2))
    return frames


def frame_number(frame: np.ndarray) -> int:
    """The number spelt by a decoded frame (height, width, 3)."""
    height, width = frame.shape[:2]
    rows = (2 * np.arange(GRID_ROWS) + 1) * height // (2 * GRID_ROWS)
    columns = (2 * np.arange(GRID_COLUMNS) + 1) * width // (2 * GRID_COLUMNS)
    bits = (frame[rows][:, columns].mean(axis=-1) > 127).ravel()
    return int(sum(1 << int(bit) for bit in np.flatnonzero(bits)))


def frame_numbers(frames: np.ndarray) -> list[int]:
    return [frame_number(frame) for frame in frames]


def corner_frame(width: int = 64, height: int = 48) -> np.ndarray:
    """One frame with a differently coloured quadrant in each corner: red, green / blue, white."""
    frame = np.empty((height, width, 3), dtype=np.uint8)
    frame[: height // 2, : width // 2] = (255, 0, 0)
    frame[: height // 2, width // 2 :] = (0, 255, 0)
    frame[height // 2 :, : width // 2] = (0, 0, 255)
    frame[height // 2 :, width // 2 :] = (255, 255, 255)
    return frame


def clicks(seconds: float, sampling_rate: int, every: float = 0.1, first: float = 0.05) -> np.ndarray:
    """float32 (samples,): silence with a smooth 2 ms bump centred on first, first + every, ... (seconds)."""
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    phase = (time - first + every / 2) % every - every / 2
    bump = 0.8 * np.exp(-0.5 * (phase / 0.0004) ** 2)
    return np.where(time > first - every / 2, bump, 0.0).astype(np.float32)


def click_times(waveform: np.ndarray, sampling_rate: int, threshold: float = 0.3) -> np.ndarray:
    """Centres (seconds) of the bumps in a mono waveform, to a fraction of a sample."""
    loud = np.flatnonzero(waveform > threshold)
    if not len(loud):
        return np.zeros(0)
    groups = np.split(loud, np.flatnonzero(np.diff(loud) > 0.01 * sampling_rate) + 1)
    return np.array([np.average(group, weights=waveform[group]) for group in groups]) / sampling_rate


def tone(seconds: float, sampling_rate: int, frequency: float = 440.0) -> np.ndarray:
    """float32 (samples,): a sine of amplitude 0.5."""
    time = np.arange(round(seconds * sampling_rate)) / sampling_rate
    return (0.5 * np.sin(2 * np.pi * frequency * time)).astype(np.float32)


def _video_packets(
    container: Any,
    frames: Sequence[np.ndarray],
    fps: float | Fraction,
    times: Sequence[float] | None,
    codec: str,
    options: dict[str, str] | None,
    pix_fmt: str,
    rotation: int,
    mirrored: bool,
    pixel_shape: Fraction | None,
    offset: float,
) -> list[Any]:
    rate = Fraction(fps).limit_denominator(100_000)
    if offset and times is None:
        times = [number / float(rate) for number in range(len(frames))]
    stream = container.add_stream(
        codec, rate=rate, options={**EXTRA_OPTIONS.get(codec, {}), **(options or {})}
    )
    stream.height, stream.width = frames[0].shape[:2]
    stream.pix_fmt = pix_fmt
    stream.codec_context.thread_count = 1
    if rotation or mirrored:
        stream.set_display_rotation(rotation, hflip=mirrored)
    if pixel_shape is not None:
        stream.codec_context.sample_aspect_ratio = pixel_shape
    base = 1 / rate if times is None else Fraction(1, CLOCK)
    stream.codec_context.time_base = base
    packets = []
    for number, array in enumerate(frames):
        frame = av.VideoFrame.from_ndarray(array, format="rgb24")
        seconds = Fraction(number) / rate if times is None else Fraction(times[number])
        frame.pts, frame.time_base = round((seconds + Fraction(offset)) / base), base
        packets += stream.encode(frame)
    return packets + stream.encode(None)


def _audio_packets(
    container: Any,
    waveform: np.ndarray,
    sampling_rate: int,
    codec: str,
    options: dict[str, str] | None,
    offset: float,
    gap: tuple[float, float],
) -> list[Any]:
    waveform = np.atleast_2d(np.asarray(waveform, dtype=np.float32))
    layout = LAYOUTS[len(waveform)]
    options = {**EXTRA_OPTIONS.get(codec, {}), **(options or {})}
    stream = container.add_stream(codec, rate=sampling_rate, layout=layout, options=options)
    context = stream.codec_context
    block = context.frame_size or 1024
    resampler = av.AudioResampler(format=context.format, layout=layout, rate=sampling_rate, frame_size=block)
    # Packed: PyAV fills eight planes at most, and miscounts those.
    packed = np.ascontiguousarray(waveform.T).reshape(1, -1)
    frame = av.AudioFrame.from_ndarray(packed, format="flt", layout=layout)
    frame.sample_rate, frame.time_base, frame.pts = sampling_rate, Fraction(1, sampling_rate), 0
    packets = []
    for part in resampler.resample(frame) + resampler.resample(None):
        late = offset + (gap[1] if part.pts >= gap[0] * sampling_rate else 0.0)
        part.pts += round(late * sampling_rate)
        packets += stream.encode(part)
    return packets + stream.encode(None)


def write_media(
    path: str | Path,
    *,
    frames: Sequence[np.ndarray] | None = None,
    fps: float | Fraction = 25,
    times: Sequence[float] | None = None,
    video_codec: str = "libx264",
    video_options: dict[str, str] | None = None,
    pix_fmt: str = "yuv420p",
    rotation: int = 0,
    mirrored: bool = False,
    pixel_shape: Fraction | None = None,
    video_offset: float = 0.0,
    waveform: np.ndarray | None = None,
    sampling_rate: int = 48_000,
    audio_codec: str = "aac",
    audio_options: dict[str, str] | None = None,
    audio_offset: float = 0.0,
    audio_gap: tuple[float, float] = (math.inf, 0.0),
    cover: np.ndarray | None = None,
    title: str | None = None,
    container_options: dict[str, str] | None = None,
) -> Path:
    """Write a file with the given streams and return its path; the ending of its name chooses the container.

    Args:
        frames: uint8 RGB arrays; None writes no video stream.
        fps: frame rate; `times` (seconds, one for each frame) makes the rate variable instead.
        rotation: counter-clockwise degrees a player has to turn the frames by; `mirrored`: left and right are
            exchanged after that.
        pixel_shape: width of a pixel divided by its height.
        waveform: (samples,) or (channels, samples) in [-1, 1] at `sampling_rate`; None writes no sound.
        video_offset, audio_offset: seconds by which a stream starts late.
        audio_gap: (moment, seconds): the sound from `moment` on comes that much later.
        cover: a picture attached to the file, as sound files carry them.
    """
    with av.open(str(path), "w", options=container_options or {}) as container:
        packets = []
        if title is not None:
            container.metadata["title"] = title
        if frames is not None:
            packets += _video_packets(
                container,
                frames,
                fps,
                times,
                video_codec,
                video_options,
                pix_fmt,
                rotation,
                mirrored,
                pixel_shape,
                video_offset,
            )
        if waveform is not None:
            packets += _audio_packets(
                container, waveform, sampling_rate, audio_codec, audio_options, audio_offset, audio_gap
            )
        if cover is not None:
            stream = container.add_stream("png", rate=1)
            stream.height, stream.width = cover.shape[:2]
            stream.pix_fmt = "rgb24"
            stream.disposition = Disposition.attached_pic
            packets += stream.encode(av.VideoFrame.from_ndarray(cover, format="rgb24")) + stream.encode(None)
        container.start_encoding()
        for packet in sorted(packets, key=lambda packet: packet.dts * packet.time_base):
            container.mux(packet)
    return Path(path)


def retime(source: Path, target: Path, later: Callable[[str, float], float]) -> Path:
    """A copy of a file whose packets have other stamps.

    Args:
        later: seconds to add, for the type of a stream (`"video"` or `"audio"`) and the stamp of a packet.
    """
    with av.open(str(source)) as whole, av.open(str(target), "w") as container:
        streams = {stream.index: container.add_stream_from_template(stream) for stream in whole.streams}
        for packet in whole.demux():
            if packet.size:
                shift = round(
                    later(packet.stream.type, float(packet.pts * packet.time_base)) / packet.time_base
                )
                packet.pts, packet.dts = packet.pts + shift, packet.dts + shift
                packet.stream = streams[packet.stream.index]
                container.mux(packet)
    return target


def with_edits(source: Path, target: Path, edits: dict[str, list[tuple[float | None, float]]]) -> Path:
    """A copy of an MP4 whose tracks show other parts.

    Args:
        edits: (second of the track, None for nothing; seconds) of each part, for `"video"` and `"audio"`.
    """

    def boxes(data: bytes) -> list[tuple[bytes, bytes]]:
        found, place = [], 0
        while place < len(data):
            size = int.from_bytes(data[place : place + 4], "big")
            found.append((data[place + 4 : place + 8], data[place + 8 : place + size]))
            place += size
        return found

    def box(name: bytes, body: bytes) -> bytes:
        return struct.pack(">I4s", 8 + len(body), name) + body

    def track(body: bytes, scale: int) -> bytes:
        parts = dict(boxes(body))
        media = dict(boxes(parts[b"mdia"]))
        ticks = int.from_bytes(media[b"mdhd"][12:16], "big")
        # Second 0 is where the only edit begins.
        (first,) = struct.unpack(">i", dict(boxes(parts[b"edts"]))[b"elst"][12:16])
        wanted = edits["audio" if b"smhd" in media[b"minf"] else "video"]
        entries = [
            struct.pack(
                ">IiI", round(seconds * scale), -1 if at is None else first + round(at * ticks), 1 << 16
            )
            for at, seconds in wanted
        ]
        listed = box(b"elst", struct.pack(">II", 0, len(entries)) + b"".join(entries))
        return b"".join(box(name, listed if name == b"edts" else content) for name, content in boxes(body))

    *before, (name, movie) = boxes(source.read_bytes())
    assert name == b"moov"  # at the end, so that no other place moves
    scale = int.from_bytes(dict(boxes(movie))[b"mvhd"][12:16], "big")
    changed = b"".join(
        box(name, track(body, scale) if name == b"trak" else body) for name, body in boxes(movie)
    )
    target.write_bytes(b"".join(box(*part) for part in before) + box(b"moov", changed))
    return target


def truncate(source: Path, target: Path, fraction: float = 0.5) -> Path:
    """The first part of a file."""
    data = source.read_bytes()
    target.write_bytes(data[: int(len(data) * fraction)])
    return target


def damage(source: Path, target: Path, first: float = 0.4, last: float = 0.6) -> Path:
    """A copy whose bytes between two fractions of its length are noise."""
    data = bytearray(source.read_bytes())
    begin, end = int(len(data) * first), int(len(data) * last)
    data[begin:end] = np.random.default_rng(0).bytes(end - begin)
    target.write_bytes(bytes(data))
    return target
