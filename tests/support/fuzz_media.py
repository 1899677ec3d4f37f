# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Small good media files of all kinds, damage that knows their formats, and what processors/media promises.

Imports no torch: the campaign of `benchmarks/fuzz.py` starts many processes.
"""

from __future__ import annotations

import io
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from media_factory import corner_frame, numbered_frames, tone, with_edits, write_media
from mutations import EDGES, Mutation, mutate
from PIL import Image


INTACT = "intact"
WIDTH, HEIGHT = 32, 24
SECONDS = 1.0


def _film(
    folder: Path, name: str, video: str | None = "libx264", audio: str | None = "aac", **more: Any
) -> None:
    rate = more.pop("sampling_rate", 48_000)
    channels = more.pop("channels", 1)
    options: dict[str, Any] = {"video_options": more.pop("video_options", {"g": "10"})}
    if video is not None:
        options["frames"] = more.pop("frames", None) or numbered_frames(25, WIDTH, HEIGHT)
        options["video_codec"] = video
    if audio is not None:
        sound = tone(SECONDS, rate)
        options |= {"waveform": np.stack([sound] * channels), "sampling_rate": rate, "audio_codec": audio}
    write_media(folder / name, **options, **more)


def write_samples(folder: Path) -> None:
    """Good files, one of each kind."""
    interlaced = {"g": "10", "flags": "+ilme+ildct"}
    times = np.cumsum([0.0, *[0.01, 0.02, 0.04, 0.1, 0.03] * 5]).tolist()[:25]
    _film(folder, "plain.mp4")
    _film(folder, "plain.mkv")
    _film(folder, "plain.mov", audio="pcm_s16le")
    _film(folder, "plain.webm", "libvpx", "libopus")
    _film(folder, "vp9.webm", "libvpx-vp9", "libopus")
    _film(folder, "plain.avi", "mpeg4", "libmp3lame")
    _film(folder, "motion.avi", "mjpeg", "pcm_s16le", pix_fmt="yuvj420p")
    _film(folder, "plain.ts")
    _film(folder, "plain.mpg", "mpeg2video", "mp2")
    _film(folder, "plain.flv", "flv", "libmp3lame", sampling_rate=44_100)
    _film(folder, "plain.gif", "gif", None, pix_fmt="rgb8", video_options={})
    _film(folder, "plain.ogv", "libvpx", "libopus")
    _film(folder, "hevc.mp4", "libx265", video_options={"x265-params": "log-level=none:keyint=10"})
    os.environ.setdefault("SVT_LOG", "0")  # its encoder talks otherwise
    _film(
        folder,
        "av1.mp4",
        "libsvtav1",
        None,
        video_options={"preset": "11", "svtav1-params": "lp=1"},
        frames=numbered_frames(8, 64, 64),
    )
    _film(folder, "prores.mov", "prores_ks", "pcm_s24le", pix_fmt="yuv422p10le", frames=numbered_frames(6))
    _film(folder, "lossless.mkv", "ffv1", "flac")
    _film(folder, "fragments.mp4", container_options={"movflags": "frag_keyframe+empty_moov"})
    _film(folder, "faststart.mp4", container_options={"movflags": "faststart"})
    _film(folder, "edits.mp4", video_offset=0.4)
    parts: list[tuple[float | None, float]] = [(0.5, 0.3), (None, 0.1), (0.1, 0.4)]
    with_edits(folder / "plain.mp4", folder / "parts.mp4", {"video": parts, "audio": parts})
    _film(folder, "late_sound.mkv", audio_offset=0.3)
    _film(
        folder,
        "before_zero.mkv",
        video_options={"bf": "2"},
        container_options={"avoid_negative_ts": "disabled"},
    )
    _film(folder, "variable.mp4", times=times)
    _film(folder, "variable.mkv", times=times)
    _film(folder, "rotated.mp4", rotation=90)
    _film(folder, "interlaced.mp4", video_options=interlaced)
    _film(folder, "interlaced.mpg", "mpeg2video", "mp2", video_options=interlaced)
    _film(folder, "plain.wav", None, "pcm_s16le")
    _film(folder, "slow.wav", None, "pcm_u8", sampling_rate=8_000)
    _film(folder, "fast.wav", None, "pcm_f32le", sampling_rate=192_000)
    _film(folder, "many.wav", None, "pcm_s16le", channels=8)
    _film(folder, "adpcm.wav", None, "adpcm_ima_wav")
    _film(folder, "vorbis.ogg", None, "vorbis", channels=2)
    _film(folder, "opus.ogg", None, "libopus")
    _film(folder, "plain.flac", None, "flac")
    _film(folder, "many.flac", None, "flac", channels=8, sampling_rate=96_000)
    _film(folder, "plain.mp3", None, "libmp3lame", sampling_rate=44_100)
    _film(folder, "cover.mp3", None, "libmp3lame", cover=corner_frame(16, 16))
    _film(folder, "plain.m4a", None, "alac")
    _film(folder, "many.m4a", None, "aac", channels=8)
    _film(folder, "plain.mka", None, "ac3", channels=6)
    for kind in ("png", "jpeg", "webp"):
        Image.fromarray(corner_frame(WIDTH, HEIGHT)).save(folder / f"picture_{kind}.mp4", kind)


# Fields of containers: a name in the file, and how far behind it numbers stand.
_FIELDS: dict[bytes, tuple[int, int]] = {
    # MP4 and MOV: boxes with durations, time scales, sizes, counts, edit lists, offsets
    **dict.fromkeys((b"mvhd", b"mdhd", b"tkhd", b"elst", b"stts", b"ctts", b"stsc", b"stsz"), (4, 48)),
    **dict.fromkeys((b"stco", b"stss", b"avc1", b"hev1", b"av01", b"mp4a", b"alac", b"trun"), (4, 48)),
    **dict.fromkeys((b"tfhd", b"tfdt", b"mfhd", b"moov", b"trak", b"mdat", b"esds", b"avcC"), (4, 32)),
    **dict.fromkeys((b"stbl", b"minf", b"mdia", b"moof", b"traf", b"ftyp"), (-4, 0)),
    # AVI and WAV
    **dict.fromkeys((b"avih", b"strh", b"strf", b"fmt ", b"idx1"), (4, 56)),
    **dict.fromkeys((b"RIFF", b"LIST", b"data", b"00dc", b"01wb", b"fact"), (4, 8)),
    # Matroska and WebM: duration, time scale, sides, rates, channels, cluster times, sizes
    **dict.fromkeys((b"D\x89", b"Sn", b"S\xab", b"S\xac", b"s\xa4"), (2, 10)),
    **dict.fromkeys((b"*\xd7\xb1", b"#\xe3\x83", b"c\xa2"), (3, 8)),
    **dict.fromkeys((b"\x1fC\xb6u", b"\x15I\xa9f", b"\x16T\xaek", b"\x1cS\xbbk"), (4, 8)),
    # FLAC, Ogg, MP3, PNG, GIF
    b"fLaC": (4, 42),
    b"OggS": (4, 28),
    b"OpusHead": (8, 19),
    b"\x01vorbis": (7, 30),
    **dict.fromkeys((b"Xing", b"Info", b"LAME"), (4, 120)),
    b"ID3": (3, 10),
    b"IHDR": (4, 13),
    b"GIF89a": (6, 13),
}


def write_lie(data: bytearray, rng: np.random.Generator) -> str:
    """Another number in a field that says how long, how large or how many."""
    names = [name for name in _FIELDS if name in data]
    if not names:
        return "no field known"
    name = names[int(rng.integers(len(names)))]
    places = list(_occurrences(bytes(data), name))
    low, high = _FIELDS[name]
    place = places[int(rng.integers(len(places)))] + int(rng.integers(low, high + 1))
    size = int(rng.choice([1, 2, 4, 4, 8]))
    edge = EDGES[int(rng.integers(len(EDGES)))] if rng.random() < 0.7 else int(rng.integers(2**63))
    value = (edge % (1 << 8 * size)).to_bytes(size, ("big", "little")[int(rng.integers(2))])  # type: ignore[arg-type]
    data[max(0, place) : max(0, place) + size] = value
    return f"{name!r}: {value.hex()} at {place}"


def _occurrences(data: bytes, name: bytes) -> Iterator[int]:
    place = data.find(name)
    while place >= 0:
        yield place
        place = data.find(name, place + 1)


MORE: tuple[Mutation, ...] = (write_lie,)


class MediaFuzz:
    """Mutants of the samples, and the check of one.

    Args:
        folder: gets the samples, unless they are there.
        isolated: decode in another process.
    """

    def __init__(self, folder: Path, isolated: bool = False) -> None:
        from modeling_vatt_media import reading, source  # see `benchmarks/fuzz.py`

        self.media, self.MediaError = reading, source.MediaError
        if not folder.is_dir():
            partial = folder.with_suffix(".partial")
            partial.mkdir(parents=True)
            write_samples(partial)
            partial.rename(folder)
        self.samples = {path.name: path.read_bytes() for path in sorted(folder.iterdir())}
        # Small enough to be reached by lies in small files.
        self.limits = source.MediaLimits(
            max_bytes=64 << 20, max_pixels=1 << 22, max_seconds=30.0, wall_seconds=5.0, isolated=isolated
        )

    def mutant(self, rng: np.random.Generator) -> tuple[str, bytes, str]:
        """Name, content and description; a good file now and then."""
        names = list(self.samples)
        name = names[int(rng.integers(len(names)))]
        if rng.random() < 0.04:  # a refusal of these would be a loss
            return name, self.samples[name], INTACT
        content, done = mutate(self.samples[name], rng, MORE, list(self.samples.values()))
        return name, content, done

    def check(self, name: str, content: bytes, done: str, rng: np.random.Generator, folder: Path) -> str:
        """Decode it one way or another, if intact from its beginning: what came of it.

        Raises:
            Exception: anything but `MediaError`; AssertionError for what is not as promised.
        """
        source: Any = content
        if rng.random() < 0.3:
            source = folder / name
            source.write_bytes(content)
        elif rng.random() < 0.3:
            source = io.BytesIO(content)
        try:
            return self._check(source, rng, done == INTACT)
        except self.MediaError as error:
            assert error.source and error.reason and error.remedy, f"says too little: {error!r}"
            return "refused: " + error.reason.split("(")[0].strip("0123456789 .")[:40]

    def _check(self, source: Any, rng: np.random.Generator, intact: bool) -> str:
        way = rng.uniform(0.23, 0.6) if intact else rng.random()
        if way < 0.1:
            info = self.media.probe(source, self.limits)
            assert info.has_video or info.has_audio
            return "probed"
        if way < 0.2:
            seconds = self.media.read_duration(source, self.limits)
            assert isinstance(seconds, float) and np.isfinite(seconds), f"{seconds} s long"
            return "measured"
        if way < 0.23:
            picture = self.media.read_picture(source, self.limits)
            assert picture.dtype == np.uint8 and picture.ndim == 3 and picture.shape[2] == 3
            return "picture"
        duration = None if way < 0.4 else 0.4
        rates = {
            "fps": float(rng.choice([3.0, 10.0, 25.0])),
            "sampling_rate": int(rng.choice([8000, 48_000])),
        }
        size = None if rng.random() < 0.5 else 16
        starts: Any = [0.0] if way < 0.6 else [0.0, 0.5, 0.2]
        if way > 0.8:
            starts = lambda length: [0.0, max(0.0, length - 0.4) / 2]  # noqa: E731
        clips = self.media.read_clips(
            source, starts, duration=duration, size=size, limits=self.limits, **rates
        )
        for clip in clips:
            check_clip(clip, duration, size=size, **rates)
        return "decoded"


def check_clip(clip: Any, duration: float | None, fps: float, sampling_rate: int, size: int | None) -> None:
    """Raises AssertionError unless a clip is as `read_clip` promises."""
    frames, waveform = clip.frames, clip.waveform
    assert any(part is not None and len(part) for part in (frames, waveform)), "nothing decoded"
    assert np.isfinite(clip.start) and np.isfinite(clip.duration) and clip.duration >= 0
    assert clip.timestamps.dtype == np.float64 and np.isfinite(clip.timestamps).all()
    if frames is not None:
        assert frames.dtype == np.uint8 and frames.ndim == 4 and frames.shape[3] == 3
        assert len(clip.timestamps) == len(frames)
        assert duration is None or len(frames) <= round(duration * fps)
        assert size is None or not len(frames) or min(frames.shape[1:3]) == size
        assert (np.diff(clip.timestamps) >= 0).all(), "frames out of order"
    if waveform is not None:
        assert waveform.dtype == np.float32 and waveform.ndim == 1
        assert np.isfinite(waveform).all(), "sound that is not finite"
        assert duration is None or len(waveform) <= round(duration * sampling_rate)
