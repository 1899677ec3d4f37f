# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`processors.media` on generated files: the right frames, the right samples, and errors that help."""

from __future__ import annotations

import contextlib
import http.server
import io
import multiprocessing
import os
import pickle
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from media_factory import (
    click_times,
    clicks,
    corner_frame,
    damage,
    frame_number,
    frame_numbers,
    numbered_frames,
    tone,
    truncate,
    write_media,
)
from PIL import Image, ImageOps, features

from modeling_vatt.processors.media import MediaError, MediaLimits, probe, read_clip, read_clips


Maker = Callable[..., Path]

SEEKABLE = {"g": "20"}  # a key frame every 20 frames, so that windows are reached by seeking
VIDEO_FILES = {
    "mp4": {"video_codec": "libx264"},
    "mkv": {"video_codec": "libx264"},
    "mov": {"video_codec": "libx264"},
    "ts": {"video_codec": "libx264"},
    "webm": {"video_codec": "libvpx"},
    "avi": {"video_codec": "mpeg4"},
    "ogv": {"video_codec": "libvpx"},
    "mpg": {"video_codec": "mpeg2video"},
}
NTSC = Fraction(30_000, 1001)


@pytest.fixture(scope="module")
def film(make: Maker) -> Path:
    """4 s of H.264 with B-frames, 100 numbered frames at 25 fps, and of AAC, a click each 0.1 s."""
    return make("film.mp4", frames=numbered_frames(100), video_options=SEEKABLE, waveform=clicks(4.0, 48_000))


def numbers_on_screen(
    times: np.ndarray, start: float, fps: float, count: int, tolerance: float = 1e-5
) -> list[int]:
    """The rule of read_clip, written independently: the last frame not later than start + k / fps."""
    asked = start + np.arange(count) / fps + tolerance
    return np.maximum(np.searchsorted(times, asked, side="right") - 1, 0).tolist()


# Frames


@pytest.mark.parametrize("ending", VIDEO_FILES)
def test_frames_are_those_on_the_screen_in_every_container(make: Maker, ending: str) -> None:
    path = make(f"plain.{ending}", frames=numbered_frames(120), video_options=SEEKABLE, **VIDEO_FILES[ending])
    times = np.arange(120) / 25
    for start in [
        0.0,
        0.04,
        0.05,
        0.8,
        0.81,
        0.99,
        1.0,
        1.6,
        2.013,
        2.5,
        3.19,
        3.77,
        *np.linspace(0, 3.5, 13),
    ]:
        clip = read_clip(path, start=start, duration=1.0, fps=10)
        expected = numbers_on_screen(times, start, 10, min(10, int(np.ceil((4.8 - start) * 10 - 1e-6))))
        assert frame_numbers(clip.frames) == expected, start
        np.testing.assert_allclose(clip.timestamps, times[expected], atol=1e-9)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
@pytest.mark.parametrize("fps", [1.0, 7.5, 10.0, 25.0, 30.0, 60.0])
def test_ntsc_rate(make: Maker, ending: str, fps: float) -> None:
    path = make(f"ntsc.{ending}", frames=numbered_frames(120), fps=NTSC, video_options=SEEKABLE)
    times, tolerance = np.arange(120) / float(NTSC), 1e-5
    if ending == "mkv":  # its clock ticks in milliseconds
        times, tolerance = np.round(times, 3), 5e-4
    for start in (0.0, 0.3, 1.001, 2.2):
        clip = read_clip(path, start=start, duration=1.5, fps=fps)
        assert frame_numbers(clip.frames) == numbers_on_screen(times, start, fps, round(1.5 * fps), tolerance)


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_variable_rate(make: Maker, ending: str) -> None:
    steps = np.random.default_rng(3).choice([0.01, 0.02, 0.04, 0.1, 0.35], size=99)
    times = np.round(np.concatenate([[0.0], np.cumsum(steps)]), 3)
    path = make(f"vfr.{ending}", frames=numbered_frames(100), times=times.tolist(), video_options=SEEKABLE)
    for start in (0.0, 0.5, 1.23, 2.0, 4.4):
        clip = read_clip(path, start=start, duration=2.0, fps=12.5)
        assert frame_numbers(clip.frames) == numbers_on_screen(times, start, 12.5, 25)


def test_b_frames_in_avi_are_put_in_order(make: Maker) -> None:
    """AVI knows decoding times only."""
    options = {"bf": "2", "g": "20"}
    xvid = make("b.avi", frames=numbered_frames(100), video_codec="mpeg4", video_options=options)
    h264 = make("h.avi", frames=numbered_frames(100), video_codec="libx264", video_options=SEEKABLE)
    for path in (xvid, h264):
        for start in (0.0, 0.9, 2.5):
            clip = read_clip(path, start=start, duration=1.0, fps=25)
            assert frame_numbers(clip.frames) == numbers_on_screen(np.arange(100) / 25, start, 25, 25)


@pytest.mark.parametrize(
    ("name", "codec"),
    [("o.mp4", "h264"), ("o.mkv", "h264"), ("o.ts", "h264"), ("p.ts", "mpeg2"), ("p.mpg", "mpeg2")],
)
def test_open_groups_of_pictures(make: Maker, name: str, codec: str) -> None:
    """Frames after a key frame that are shown before it refer to frames before it."""
    h264 = {"x264-params": "open-gop=1:keyint=20:min-keyint=20:bframes=4:b-adapt=0:scenecut=0"}
    encoder, options = {"h264": ("libx264", h264), "mpeg2": ("mpeg2video", {"bf": "2", "g": "40"})}[codec]
    path = make(name, frames=numbered_frames(120), video_codec=encoder, video_options=options)
    for start in np.arange(0.02, 3.7, 0.12):
        clip = read_clip(path, start=start, duration=0.2, fps=25)
        assert frame_numbers(clip.frames) == numbers_on_screen(np.arange(120) / 25, start, 25, 5)


def test_frames_left_undecoded_change_no_pixel(make: Maker) -> None:
    """At 5 fps the reader skips frames nothing depends on; at 25 fps it needs them all."""
    rng = np.random.default_rng(0)
    texture = rng.integers(0, 256, size=(96, 200, 3), dtype=np.uint8)
    moving = [texture[: 64 + 0, 2 * k % 100 : 2 * k % 100 + 80] for k in range(75)]
    path = make(
        "moving.mp4", frames=[np.ascontiguousarray(frame) for frame in moving], video_options={"g": "50"}
    )
    every = read_clip(path, start=0.4, duration=2.4, fps=25).frames
    some = read_clip(path, start=0.4, duration=2.4, fps=5).frames
    assert every is not None and some is not None and len(some) == 12
    np.testing.assert_array_equal(some, every[::5])


def test_streams_without_times_are_counted(make: Maker) -> None:
    path = make("raw.h264", frames=numbered_frames(60))
    clip = read_clip(path, start=0.5, duration=1.0, fps=10)
    assert frame_numbers(clip.frames) == numbers_on_screen(np.arange(60) / 25, 0.5, 10, 10)


def test_number_of_frames_follows_what_the_file_covers(film: Path) -> None:
    assert len(read_clip(film, duration=3.2, fps=10).frames) == 32
    assert len(read_clip(film, fps=10).frames) == 40
    late = read_clip(film, start=3.5, duration=1.0, fps=10)
    assert frame_numbers(late.frames) == [87, 90, 92, 95, 97]
    assert late.duration == 1.0 and late.start == 3.5
    assert read_clip(film, start=1.0).duration == pytest.approx(3.0, abs=0.022)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm"])
def test_single_frame(make: Maker, ending: str) -> None:
    path = make(f"one.{ending}", frames=numbered_frames(1, first=5), **VIDEO_FILES[ending])
    clip = read_clip(path, duration=3.2)
    assert frame_numbers(clip.frames) == [5]
    assert clip.waveform is None


@pytest.mark.parametrize("ending", ["mp4", "mkv"])
def test_a_picture_that_starts_late_is_shown_from_the_beginning(make: Maker, ending: str) -> None:
    path = make(
        f"late_picture.{ending}", frames=numbered_frames(50), video_offset=0.6, waveform=clicks(2.6, 48_000)
    )
    clip = read_clip(path, duration=1.2, fps=10)
    assert frame_numbers(clip.frames) == [0] * 7 + [2, 5, 7, 10, 12]
    assert abs(click_times(clip.waveform, 48_000)[0] - 0.05) < 1e-3
    assert clip.timestamps[0] == pytest.approx(0.6, abs=1e-3)


def test_file_clock_starts_at_the_earliest_stream(make: Maker) -> None:
    """Transport streams start at 1.4 s and the like."""
    path = make("clock.ts", frames=numbered_frames(75), video_options=SEEKABLE, waveform=clicks(3.0, 48_000))
    clip = read_clip(path, start=1.0, duration=1.0, fps=25)
    sound = click_times(clip.waveform, 48_000) + 1.0
    lag = (
        clip.timestamps[0] - frame_numbers(clip.frames)[0] / 25
    )  # AAC priming comes before the first picture
    assert lag == pytest.approx(1024 / 48_000, abs=1e-3)
    np.testing.assert_allclose((sound - lag - 0.05) % 0.1 % 0.0999, 0.0, atol=1e-3)


# Shape and colour


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("rotation", [0, 90, 180, 270])
def test_display_matrix_is_applied(make: Maker, rotation: int, mirrored: bool) -> None:
    path = make(
        f"turned_{rotation}_{mirrored}.mp4", frames=[corner_frame()] * 5, rotation=rotation, mirrored=mirrored
    )
    upright = np.rot90(corner_frame(), rotation // 90)
    upright = upright[:, ::-1] if mirrored else upright
    clip = read_clip(path)
    assert clip.frames.shape[1:] == upright.shape
    assert np.abs(clip.frames[0].astype(int) - upright).mean() < 3
    assert (clip.info.height, clip.info.width) == upright.shape[:2]
    if not mirrored:
        assert clip.info.rotation == rotation
    small = read_clip(path, size=24)
    assert small.frames.shape[1:] == (upright.shape[0] // 2, upright.shape[1] // 2, 3)


@pytest.mark.parametrize(("size", "shape"), [(24, (24, 32)), (32, (32, 43)), (96, (96, 128)), (48, (48, 64))])
def test_size_is_the_shorter_side(film: Path, size: int, shape: tuple[int, int]) -> None:
    clip = read_clip(film, start=1.0, duration=1.0, size=size)
    assert clip.frames.shape == (10, *shape, 3)
    assert frame_numbers(clip.frames) == numbers_on_screen(np.arange(100) / 25, 1.0, 10, 10)


@pytest.mark.parametrize("size", [None, 24])
@pytest.mark.parametrize("pix_fmt", ["yuv420p", "yuv444p", "yuv422p10le"])
def test_colours(make: Maker, pix_fmt: str, size: int | None) -> None:
    path = make(f"colours_{pix_fmt}.mp4", frames=[corner_frame()] * 5, pix_fmt=pix_fmt)
    frame = read_clip(path, size=size).frames[0]
    height, width = frame.shape[:2]
    for y, x in [(0.25, 0.25), (0.25, 0.75), (0.75, 0.25), (0.75, 0.75)]:
        expected = corner_frame()[int(48 * y), int(64 * x)].astype(int)
        assert np.abs(frame[int(height * y), int(width * x)] - expected).max() <= 4


@pytest.mark.parametrize("channels", [1, 3])
def test_pictures_of_floating_point_numbers(channels: int) -> None:
    """Numbers beyond white are white; NaN is refused, as it is for sound."""
    pixels = np.linspace(0.0, 1.0, 8 * 6 * channels, dtype="<f4").reshape(6, 8, channels)  # rows upwards
    head = f"P{'F' if channels == 3 else 'f'}\n8 6\n-1.0\n".encode()
    expected = np.rint(np.broadcast_to(pixels[::-1], (6, 8, 3)) * 255)
    (frame,) = read_clip(head + pixels.tobytes(), duration=0.1).frames
    assert np.abs(frame - expected).max() <= 1
    pixels[0, 0] = np.inf
    assert (read_clip(head + pixels.tobytes(), duration=0.1).frames[0, -1, 0] == 255).all()
    pixels[2, 3, -1] = np.nan
    with pytest.raises(MediaError, match="NaN"):
        read_clip(head + pixels.tobytes(), size=3)


def test_resizing_averages(make: Maker) -> None:
    checks = np.indices((96, 128)).sum(axis=0) % 2 * 255
    frame = np.repeat(checks[..., None], 3, axis=2).astype(np.uint8)
    path = make("checks.mkv", frames=[frame] * 3, video_codec="ffv1")
    clip = read_clip(path, size=48)
    np.testing.assert_allclose(clip.frames[0].astype(int), 127, atol=2)


# Sound


@pytest.mark.parametrize(
    ("name", "codec"),
    [
        ("a.wav", "pcm_s16le"),
        ("a.flac", "flac"),
        ("a.mka", "pcm_s16le"),
        ("f.mka", "flac"),
        ("a.mov", "pcm_s16le"),
        ("a.avi", "pcm_s16le"),
    ],
)
def test_lossless_sound_is_exact_to_the_sample(make: Maker, name: str, codec: str) -> None:
    sound = tone(4.0, 48_000, 333.0) * np.linspace(0.1, 1.0, 192_000, dtype=np.float32)
    path = make(f"exact_{name}", waveform=sound, audio_codec=codec)
    for start in (0.0, 0.013, 0.7, 1.0, 2.53, 3.456):
        clip = read_clip(path, start=start, duration=0.5)
        first = round(start * 48_000)
        assert clip.frames is None and clip.waveform.dtype == np.float32 and len(clip.waveform) == 24_000
        np.testing.assert_allclose(clip.waveform, sound[first : first + 24_000], atol=2**-14)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("a.mp4", "aac", 48_000),
        ("b.mp4", "aac", 44_100),
        ("a.mkv", "aac", 48_000),
        ("a.mp3", "libmp3lame", 44_100),
        ("a.ogg", "libopus", 48_000),
        ("a.webm", "libopus", 48_000),
        ("b.mkv", "libmp3lame", 44_100),
    ],
)
def test_lossy_sound_is_aligned(make: Maker, name: str, codec: str, rate: int) -> None:
    """Encoder delay (AAC 1024 samples, MP3 1105, Opus 312) does not move the sound."""
    path = make(f"lossy_{name}", waveform=clicks(4.0, rate), sampling_rate=rate, audio_codec=codec)
    for start in (0.0, 0.31, 1.0, 2.53):
        found = click_times(read_clip(path, start=start, duration=1.0).waveform, 48_000) + start
        assert len(found) in (9, 10, 11)
        error = (found - 0.05 + 0.05) % 0.1 - 0.05
        assert np.abs(error).max() < 1e-4, start
    if name in ("a.mp3", "a.ogg"):  # measured, without what fills up the last packet
        assert probe(path).duration == pytest.approx(4.0, abs=1e-4)


def test_native_vorbis_in_ogg(make: Maker) -> None:
    path = make("stereo.ogg", waveform=np.stack([clicks(2.0, 48_000)] * 2), audio_codec="vorbis")
    found = click_times(read_clip(path, start=1.0, duration=0.5).waveform, 48_000)
    np.testing.assert_allclose(found, [0.05, 0.15, 0.25, 0.35, 0.45], atol=1e-3)


@pytest.mark.parametrize("rate", [8_000, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("wanted", [16_000, 48_000])
def test_resampling_keeps_time_and_length(make: Maker, rate: int, wanted: int) -> None:
    path = make(f"rate_{rate}.wav", waveform=clicks(3.0, rate), sampling_rate=rate, audio_codec="pcm_s16le")
    clip = read_clip(path, start=0.9, duration=1.2, sampling_rate=wanted)
    assert len(clip.waveform) == round(1.2 * wanted)
    found = click_times(clip.waveform, wanted)
    np.testing.assert_allclose(found, 0.05 + 0.1 * np.arange(12), atol=5e-5)


def test_windows_tile_the_sound(make: Maker) -> None:
    """Resampled windows side by side are the resampled whole."""
    noise = np.random.default_rng(0).uniform(-0.5, 0.5, size=3 * 44_100).astype(np.float32)
    path = make("noise.wav", waveform=noise, sampling_rate=44_100, audio_codec="pcm_f32le")
    whole = read_clip(path, sampling_rate=48_000).waveform
    parts = [read_clip(path, start=k / 2, duration=0.5, sampling_rate=48_000).waveform for k in range(6)]
    assert len(whole) == 3 * 48_000
    np.testing.assert_allclose(np.concatenate(parts), whole, atol=1e-4)


@pytest.mark.parametrize(("channels", "codec"), [(1, "flac"), (2, "flac"), (6, "flac"), (2, "pcm_s16le")])
def test_channels_are_averaged(make: Maker, channels: int, codec: str) -> None:
    levels = np.linspace(-0.2, 0.6, channels, dtype=np.float32)
    sound = np.repeat(levels[:, None], 9600, axis=1)
    path = make(f"channels_{channels}_{codec}.mka", waveform=sound, audio_codec=codec)
    clip = read_clip(path)
    assert clip.info.channels == channels
    np.testing.assert_allclose(clip.waveform, levels.mean(), atol=2**-14)


@pytest.mark.parametrize("codec", ["pcm_u8", "pcm_s16le", "pcm_s24le", "pcm_s32le", "pcm_f32le", "pcm_f64le"])
def test_sample_formats(make: Maker, codec: str) -> None:
    sound = tone(0.2, 16_000)
    path = make(f"{codec}.wav", waveform=sound, sampling_rate=16_000, audio_codec=codec)
    found = read_clip(path, sampling_rate=16_000).waveform
    np.testing.assert_allclose(found, sound, atol=2**-7 if codec == "pcm_u8" else 2**-14)


@pytest.mark.parametrize(("name", "codec"), [("late.mp4", "aac"), ("late.mkv", "pcm_s16le")])
def test_sound_that_starts_late_is_preceded_by_silence(make: Maker, name: str, codec: str) -> None:
    path = make(
        name,
        frames=numbered_frames(75),
        waveform=clicks(2.0, 48_000, first=0.05),
        audio_codec=codec,
        audio_offset=1.0,
    )
    for start in (0.0, 0.6, 0.9):
        clip = read_clip(path, start=start, duration=1.5)
        assert len(clip.waveform) == 72_000
        assert np.abs(clip.waveform[: int((0.97 - start) * 48_000)]).max(initial=0.0) < 1e-6
        assert abs(click_times(clip.waveform, 48_000)[0] + start - 1.05) < 1e-3
    silent = read_clip(path, start=0.0, duration=0.5)
    assert len(silent.waveform) == 24_000 and not silent.waveform.any()


def test_gaps_are_silent(make: Maker) -> None:
    path = make("gap.mkv", waveform=clicks(2.0, 48_000), audio_codec="pcm_s16le", audio_gap=(1.0, 0.5))
    clip = read_clip(path, duration=2.4)
    found = click_times(clip.waveform, 48_000)
    before = 0.05 + 0.1 * np.arange(10)
    np.testing.assert_allclose(found, np.concatenate([before, before[:9] + 1.5]), atol=5e-4)
    assert not clip.waveform[49_200:71_900].any()


@pytest.mark.parametrize(("name", "codec"), [("pause.webm", "libopus"), ("pause.mkv", "aac")])
def test_windows_after_a_gap(make: Maker, name: str, codec: str) -> None:
    """Sound before the gap does not say where the sound after it lies."""
    path = make(name, waveform=clicks(3.0, 48_000), audio_codec=codec, audio_gap=(1.0, 1.5537))
    resumed = click_times(read_clip(path).waveform, 48_000)
    resumed = resumed[resumed > 2.0]
    for start in (2.0, 2.4, 2.6, 2.9):
        found = click_times(read_clip(path, start=start, duration=0.7).waveform, 48_000) + start
        right = resumed[(resumed > start + 0.01) & (resumed < start + 0.69)]
        assert len(right) and np.abs(found[:, None] - right).min(axis=0).max() < 2e-3
        assert np.abs(found[:, None] - resumed).min(axis=1).max() < 2e-3


def test_sound_shorter_than_the_picture(make: Maker) -> None:
    path = make(
        "short.mkv", frames=numbered_frames(75), waveform=clicks(1.5, 48_000), audio_codec="pcm_s16le"
    )
    assert len(read_clip(path, start=1.0, duration=1.0).waveform) == 24_000
    after = read_clip(path, start=2.0, duration=1.0)
    assert after.waveform.shape == (0,) and len(after.frames) == 10


def test_picture_shorter_than_the_sound(make: Maker) -> None:
    path = make("long.mkv", frames=numbered_frames(25), waveform=clicks(3.0, 48_000), audio_codec="pcm_s16le")
    clip = read_clip(path, start=2.0, duration=0.5)
    assert len(clip.frames) == 0 and clip.timestamps.shape == (0,) and len(clip.waveform) == 24_000


# What is in a file


def test_probe(make: Maker, film: Path) -> None:
    info = probe(film)
    assert (info.has_video, info.width, info.height, info.fps, info.num_frames) == (True, 64, 48, 25.0, 100)
    assert (info.has_audio, info.sampling_rate, info.channels) == (True, 48_000, 1)
    assert (info.video_codec, info.audio_codec, info.rotation) == ("h264", "aac", 0)
    assert info.duration == pytest.approx(4.0, abs=0.03) and info.source == str(film)
    sound = probe(make("exact_a.wav", waveform=clicks(1.0, 48_000), audio_codec="pcm_s16le"))
    assert not sound.has_video and sound.width is None and sound.fps is None


@pytest.mark.parametrize(("name", "codec"), [("cover.mp3", "libmp3lame"), ("cover.flac", "flac")])
def test_cover_art_is_no_video(make: Maker, name: str, codec: str) -> None:
    path = make(name, waveform=tone(1.0, 48_000), audio_codec=codec, cover=corner_frame())
    clip = read_clip(path)
    assert clip.frames is None and not clip.info.has_video and len(clip.waveform) == 48_000


@pytest.mark.skipif(not features.check("avif"), reason="Pillow is without AVIF")
def test_sequences_beside_a_still_picture() -> None:
    """AVIF holds the first picture twice, as a still and in the sequence."""
    delays = [100, 50, 200, 330, 20, 500]
    first, *others = map(Image.fromarray, numbered_frames(6))
    file = io.BytesIO()
    first.save(file, "avif", save_all=True, append_images=others, duration=delays, quality=90)
    times = np.cumsum([0, *delays]) / 1000
    clip = read_clip(file.getvalue(), fps=50)
    assert probe(file.getvalue()).duration == pytest.approx(1.2)
    assert frame_numbers(clip.frames) == numbers_on_screen(times[:-1], 0.0, 50, 60)


def test_only_what_is_asked_for(film: Path) -> None:
    sound = read_clip(film, duration=1.0, video=False)
    assert sound.frames is None and sound.info.has_video and len(sound.waveform) == 48_000
    picture = read_clip(film, duration=1.0, audio=False)
    assert picture.waveform is None and picture.info.has_audio and len(picture.frames) == 10
    np.testing.assert_array_equal(picture.frames, read_clip(film, duration=1.0).frames)


# Sources


def test_sources_are_equivalent(film: Path) -> None:
    expected = read_clip(film, start=1.0, duration=1.0)
    data = film.read_bytes()
    with film.open("rb") as file:
        sources = [str(film), data, io.BytesIO(data), file]
        for source in sources:
            clip = read_clip(source, start=1.0, duration=1.0)
            np.testing.assert_array_equal(clip.frames, expected.frames)
            np.testing.assert_array_equal(clip.waveform, expected.waveform)
        assert not file.closed


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
@pytest.mark.parametrize("by_name", [False, True])
def test_unseekable_stream(film: Path, tmp_path: Path, by_name: bool) -> None:
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    feeder = threading.Thread(target=lambda: pipe.write_bytes(film.read_bytes()))
    feeder.start()
    with contextlib.nullcontext(pipe) if by_name else pipe.open("rb") as source:
        assert len(read_clip(source, duration=1.0).frames) == 10
    feeder.join()


@pytest.fixture(scope="module")
def site(film: Path) -> Iterator[str]:
    """A server on loopback: the film, redirections to any address, an endless loop."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            path, _, query = self.path.partition("?")
            if path == "/film.mp4":
                self.send_response(200)
                self.end_headers()
                self.wfile.write(film.read_bytes())
            elif path in ("/to", "/loop"):
                self.send_response(302)
                self.send_header("Location", query if path == "/to" else "/loop")
                self.end_headers()
            else:
                self.send_error(404)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


def test_remote_source(site: str, film: Path) -> None:
    limits = MediaLimits(allowed_hosts=("127.0.0.1",))
    for address in (f"{site}/film.mp4?token=secret", f"{site}/to?/film.mp4"):
        clip = read_clip(address, start=1.0, duration=1.0, limits=limits)
        np.testing.assert_array_equal(clip.frames, read_clip(film, start=1.0, duration=1.0).frames)
        assert "secret" not in clip.info.source


@pytest.mark.parametrize(
    ("address", "limits", "message"),
    [
        ("/film.mp4", {}, "allowed_hosts"),
        ("/film.mp4", {"allowed_hosts": ("example.org",)}, "host '127.0.0.1' is not allowed"),
        ("/to?http://localhost:1/film.mp4", {"allowed_hosts": ("127.0.0.1",)}, "host 'localhost' is not"),
        ("/to?file:///etc/passwd", {"allowed_hosts": ("127.0.0.1",)}, "scheme 'file'"),
        ("/loop", {"allowed_hosts": ("*",)}, "redirections"),
        ("/missing.mp4", {"allowed_hosts": ("*",)}, "answers 404"),
        ("/film.mp4", {"allowed_hosts": ("*",), "max_bytes": 1000}, "max_bytes"),
        ("/film.mp4", {"allowed_hosts": ("*",), "timeout": 0.0}, "cannot be fetched|timeout"),
    ],
)
def test_remote_source_refused(site: str, address: str, limits: dict, message: str) -> None:
    with pytest.raises(MediaError, match=message):
        read_clip(site + address, limits=MediaLimits(**limits))


def test_other_schemes_and_closed_ports_are_errors() -> None:
    limits = MediaLimits(allowed_hosts=("*",))
    with pytest.raises(MediaError, match="scheme 'ftp'"):
        read_clip("ftp://example.org/film.mp4", limits=limits)
    with pytest.raises(MediaError, match=r"^http://127\.0\.0\.1:9/film\.mp4: cannot be fetched"):
        read_clip("http://user:pass@127.0.0.1:9/film.mp4?key=1", limits=limits)


# Files that are not what they should be


def broken_files(make: Maker, folder: Path) -> dict[str, tuple[Path, str]]:
    film = make("break.mp4", frames=numbered_frames(25), waveform=clicks(1.0, 48_000))
    files = {
        "missing": (folder / "missing.mp4", "cannot be opened"),
        "folder": (folder, "cannot be opened"),
        "empty": (folder / "empty.mp4", "empty"),
        "noise": (folder / "noise.mp4", "not a readable media file"),
        "text": (folder / "note.txt", "no video and no audio stream"),
        "cut": (truncate(film, folder / "cut.mp4"), "not a readable media file"),
    }
    files["empty"][0].touch()
    files["noise"][0].write_bytes(np.random.default_rng(0).bytes(50_000))
    files["text"][0].write_text("No film at all.\n" * 50)
    return files


@pytest.mark.parametrize("kind", ["missing", "folder", "empty", "noise", "text", "cut"])
@pytest.mark.parametrize("function", [probe, read_clip])
def test_broken_files(make: Maker, tmp_path: Path, kind: str, function: Callable[[Path], object]) -> None:
    path, message = broken_files(make, tmp_path)[kind]
    with pytest.raises(MediaError, match=message) as caught:
        function(path)
    error = caught.value
    assert error.source == str(path) and str(error) == f"{path}: {error.reason}. {error.remedy}"
    assert str(pickle.loads(pickle.dumps(error))) == str(error)


def test_truncated_matroska_gives_what_is_there(make: Maker, tmp_path: Path) -> None:
    whole = make("cut.mkv", frames=numbered_frames(100), waveform=clicks(4.0, 48_000))
    clip = read_clip(truncate(whole, tmp_path / "cut.mkv", 0.5))
    numbers = frame_numbers(clip.frames)
    assert 10 <= len(numbers) < 35
    # The last B-frames are in the part that is missing.
    assert numbers[:-3] == numbers_on_screen(np.arange(100) / 25, 0.0, 10, len(numbers) - 3)
    assert 1.0 < len(clip.waveform) / 48_000 < 3.5
    missing = probe(tmp_path / "cut.mkv").missing
    assert probe(whole).missing == 0.0 and abs(probe(whole).duration - clip.duration - missing) < 0.1


@pytest.mark.parametrize(("name", "codec"), [("half.flac", "flac"), ("half.wav", "pcm_s16le")])
def test_truncated_sound_is_as_long_as_what_is_there(
    make: Maker, tmp_path: Path, name: str, codec: str
) -> None:
    """Their headers state the length of the whole, RF64's even to FFmpeg."""
    options = {"rf64": "always"} if codec == "pcm_s16le" else {}
    sound = np.random.default_rng(0).uniform(-0.5, 0.5, size=4 * 48_000).astype(np.float32)
    whole = make(name, waveform=sound, audio_codec=codec, container_options=options)
    path = truncate(whole, tmp_path / name, 0.5)
    assert probe(whole).duration == pytest.approx(4.0) and probe(path).duration == pytest.approx(2.0, abs=0.1)
    (last,) = read_clips(path, lambda length: [length - 0.5], duration=0.5)
    first = round(last.start * 48_000)
    assert len(last.waveform) > 19_000
    np.testing.assert_allclose(last.waveform, sound[first : first + len(last.waveform)], atol=2**-14)


@pytest.mark.parametrize("ending", ["mp4", "ts", "avi"])
def test_damage_is_left_out(make: Maker, tmp_path: Path, ending: str) -> None:
    """Noise in the middle: frames before and long after it are right, and decoding reaches the end."""
    whole = make(f"good.{ending}", frames=numbered_frames(100), video_options=SEEKABLE, **VIDEO_FILES[ending])
    clip = read_clip(damage(whole, tmp_path / f"bad.{ending}", 0.4, 0.45), fps=25)
    numbers = {
        round(time * 25): number
        for time, number in zip(clip.timestamps, frame_numbers(clip.frames), strict=True)
    }
    right = [key for key, number in numbers.items() if key == number]
    assert set(range(30)) <= set(right) and set(range(85, 99)) <= set(right)


def test_nothing_in_the_window(film: Path) -> None:
    for options in ({"start": 9.0, "duration": 1.0}, {"start": 9.0}):
        with pytest.raises(MediaError, match=r"nothing to decode from 9 s on; it ends at 4\.01"):
            read_clip(film, **options)


def test_missing_streams(make: Maker) -> None:
    sound = make("exact_a.wav", waveform=clicks(1.0, 48_000), audio_codec="pcm_s16le")
    picture = make("plain.mp4", frames=numbered_frames(120), video_options=SEEKABLE)
    assert read_clip(sound, duration=0.5).frames is None
    assert read_clip(picture, duration=0.5).waveform is None
    with pytest.raises(MediaError, match="no video stream"):
        read_clip(sound, audio=False)
    with pytest.raises(MediaError, match="no audio stream"):
        read_clip(picture, video=False)


def test_limits(film: Path) -> None:
    refused = [
        ({"max_pixels": 64 * 48 - 1}, {}, "max_pixels"),
        ({"max_bytes": 1000}, {}, "max_bytes"),
        ({"max_bytes": 100_000}, {"fps": 25}, "window takes"),
        ({"max_bytes": 100_000}, {"fps": 25, "duration": 3.0}, "window takes"),
        ({"max_seconds": 2.0}, {"duration": 2.5}, "max_seconds"),
        ({"max_seconds": 2.0}, {"audio": False}, "max_seconds"),
        ({"max_seconds": 2.0}, {"video": False}, "max_seconds"),
    ]
    for limits, options, message in refused:
        with pytest.raises(MediaError, match=message):
            read_clip(film, limits=MediaLimits(**limits), **options)
    enough = MediaLimits(max_pixels=64 * 48, max_seconds=2.0)
    assert len(read_clip(film, duration=2.0, limits=enough).frames) == 20
    assert len(read_clip(film, start=2.5, limits=enough).frames) == 15


def test_a_header_that_understates_the_size_does_not_pass(make: Maker) -> None:
    """The stream itself says 64 x 48; the header of the file is changed to 16 x 16."""
    data = bytearray(make("header.mp4", frames=numbered_frames(10)).read_bytes())
    sides = data.find(b"avc1", data.find(b"stsd")) + 28
    assert data[sides : sides + 4] == bytes([0, 64, 0, 48])
    data[sides : sides + 4] = bytes([0, 16, 0, 16])
    with pytest.raises(MediaError):
        read_clip(bytes(data), limits=MediaLimits(max_pixels=1000))


def test_growing_frames_do_not_pass(make: Maker) -> None:
    small = make("small.h264", frames=numbered_frames(20, width=32, height=24)).read_bytes()
    large = make("large.h264", frames=numbered_frames(20, first=20)).read_bytes()
    assert len(read_clip(small + large, fps=25).frames) == 40
    numbers = frame_numbers(read_clip(small + large, fps=25, limits=MediaLimits(max_pixels=2000)).frames)
    assert len(numbers) > 10 and max(numbers) < 20


def test_metadata_that_is_no_text(make: Maker) -> None:
    data = make("tagged.mkv", frames=numbered_frames(5), title="a plain title").read_bytes()
    assert data.count(b"a plain title") == 1
    assert probe(data.replace(b"a plain title", b"\xff\xfe broken \xc3\x28")).width == 64


def test_lying_durations_do_not_matter(make: Maker) -> None:
    data = bytearray(make("lying.mp4", frames=numbered_frames(50), waveform=clicks(2.0, 48_000)).read_bytes())
    where = data.find(b"mvhd") + 20
    assert int.from_bytes(data[where : where + 4], "big") in range(2000, 2050)
    for claim in (1, 3_600_000):
        data[where : where + 4] = claim.to_bytes(4, "big")
        clip = read_clip(bytes(data), start=1.0, fps=10)
        assert frame_numbers(clip.frames) == numbers_on_screen(np.arange(50) / 25, 1.0, 10, 10)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"start": -0.1}, "start"),
        ({"start": float("nan")}, "start"),
        ({"duration": 0.0}, "duration"),
        ({"fps": 0.0}, "fps"),
        ({"sampling_rate": 0}, "sampling_rate"),
        ({"size": 0}, "size"),
        ({"video": False, "audio": False}, "nothing to read"),
    ],
)
def test_arguments_out_of_range(film: Path, options: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message) as caught:
        read_clip(film, **options)
    assert not isinstance(caught.value, MediaError)


def test_other_types_are_no_sources(film: Path) -> None:
    with pytest.raises(TypeError, match="int"):
        read_clip(5)  # type: ignore[arg-type]
    with film.open(errors="ignore") as file, pytest.raises(TypeError, match="TextIOWrapper"):
        read_clip(file)  # type: ignore[arg-type]


# Side by side


def digest(arguments: tuple[Path, float]) -> int:
    clip = read_clip(arguments[0], start=arguments[1], duration=0.5, size=24)
    assert clip.frames is not None and clip.waveform is not None
    return hash((clip.frames.tobytes(), clip.waveform.tobytes()))


def test_threads(film: Path) -> None:
    jobs = [(film, k / 10) for k in range(12)]
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(digest, jobs)) == [digest(job) for job in jobs]


def first_number(path: Path) -> int:
    frames = read_clip(path, start=1.0, duration=0.1).frames
    assert frames is not None
    return frame_number(frames[0])


@pytest.mark.skipif("fork" not in multiprocessing.get_all_start_methods(), reason="no fork on this system")
@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_forked_workers(film: Path) -> None:
    assert first_number(film) == 25  # the parent has used the decoder
    with multiprocessing.get_context("fork").Pool(2) as pool:
        assert pool.map(first_number, [film] * 4) == [25] * 4


@pytest.mark.parametrize(("kind", "seconds"), [("video", 2.0), ("audio", 5.0)])
def test_windows_of_one_stream_lie_within_it(tmp_path: Path, kind: str, seconds: float) -> None:
    """The sound goes on for three seconds after the pictures."""
    path = write_media(
        tmp_path / "long.mp4",
        frames=numbered_frames(20),
        fps=10,
        waveform=tone(5.0, 16_000),
        sampling_rate=16_000,
    )
    lengths: list[float] = []

    def starts(length: float) -> list[float]:
        lengths.append(length)
        return [length - 0.5]

    (clip,) = read_clips(path, starts, duration=0.5, video=kind == "video", audio=kind == "audio")
    assert lengths == [pytest.approx(seconds, abs=0.1)]
    assert (clip.frames if kind == "video" else clip.waveform) is not None


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="no /proc on this system")
def test_no_file_stays_open(make: Maker, film: Path, tmp_path: Path) -> None:
    files = [film, *(path for path, _ in broken_files(make, tmp_path).values())]
    limits = [MediaLimits(), MediaLimits(max_pixels=10), MediaLimits(max_bytes=100)]
    before = len(os.listdir("/proc/self/fd"))
    errors = []  # an error that is kept keeps the frames it passed, and their variables
    for path in files:
        for options in ({}, {"start": 9.0}, *({"limits": limit} for limit in limits)):
            try:
                read_clip(path, **options)
            except MediaError as error:
                errors.append(error)
    assert len(errors) > 20
    assert len(os.listdir("/proc/self/fd")) == before


@pytest.mark.parametrize("orientation", range(1, 9))
def test_pictures_with_exif_data(orientation):
    """Motion JPEG may carry EXIF, a kind of side data that PyAV cannot name."""
    picture = np.zeros((32, 48, 3), dtype=np.uint8)
    picture[:16, :24] = 255  # the upper left quarter
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010F] = "maker"
    file = io.BytesIO()
    Image.fromarray(picture).save(file, "jpeg", exif=exif, quality=95)
    (frame,) = read_clip(file.getvalue(), audio=False).frames
    upright = np.asarray(ImageOps.exif_transpose(Image.open(file)))
    assert frame.shape == upright.shape
    assert np.abs(frame.astype(int) - upright).mean() < 3
