# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""`processors.media` where a file's own word about time or shape is not enough: stamps that err, clocks that
jump or start late, lengths that are estimates, pixels that are no squares."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from media_factory import (
    click_times,
    clicks,
    frame_number,
    frame_numbers,
    numbered_frames,
    retime,
    tone,
    with_edits,
)

from modeling_vatt.processors.media import MediaError, probe, read_clip, read_clips, read_duration


Maker = Callable[..., Path]


def noise(samples: int, scale: float = 0.5) -> np.ndarray:
    return np.random.default_rng(0).uniform(-scale, scale, size=samples).astype(np.float32)


# Sound joins sample for sample


@pytest.mark.parametrize("name", ["s.mka", "f.mka", "s.nut"])
def test_stamps_that_err_leave_sound_whole(make: Maker, name: str) -> None:
    """Sound follows sample for sample unless all stamps from a moment on are later."""
    sound = noise(96_000)
    whole = make(f"steady_{name}", waveform=sound, audio_codec="flac" if name[0] == "f" else "pcm_s16le")
    rng = np.random.default_rng(1)

    def later(_: str, moment: float) -> float:
        return float(rng.choice([0.0, 0.0, 0.0, 0.0, 0.009, -0.009])) if moment > 0.1 else 0.0

    path = retime(whole, whole.with_name(f"erring_{name}"), later)
    np.testing.assert_allclose(read_clip(path).waveform[: len(sound)], sound, atol=2**-14)


def test_many_gaps(make: Maker) -> None:
    """Pauses after every other packet, as where speech is recorded without its silence."""
    sound = noise(32_768)
    whole = make("speech.nut", waveform=sound, audio_codec="pcm_s16le")
    path = retime(
        whole, whole.with_name("pauses.nut"), lambda _, moment: 0.1 * (round(moment * 48_000) // 2048)
    )
    right = np.zeros(32_768 + 15 * 4800, np.float32)
    for part in range(16):
        place = part * (2048 + 4800)
        right[place : place + 2048] = sound[2048 * part : 2048 * (part + 1)]
    np.testing.assert_allclose(read_clip(path).waveform, right, atol=2**-14)


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="PyAV has no encoder with two lengths of blocks")
@pytest.mark.parametrize(
    ("rate", "ending"), [(44_100, "ogg"), (22_050, "ogg"), (48_000, "ogg"), (44_100, "mka")]
)
def test_vorbis_with_two_lengths_of_blocks(tmp_path: Path, rate: int, ending: str) -> None:
    """Right is what the decoder gives, end to end."""
    rng, time = np.random.default_rng(3), np.arange(rate // 5) / rate
    sound = np.zeros(5 * rate, np.float32)
    for _ in range(40):  # struck tones: the encoder switches at each
        place = int(rng.integers(0, len(sound) - len(time)))
        struck = np.exp(-time / 0.03) * np.sin(time * rng.uniform(1e3, 3e4))
        sound[place : place + len(time)] += (0.3 * struck).astype(np.float32)
    sound = clicks(5.0, rate) if rate == 48_000 else sound  # every stamp after a click errs
    path = tmp_path / f"struck.{ending}"
    command = ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-"]
    if subprocess.run([*command, "-c:a", "libvorbis", str(path)], input=sound.tobytes()).returncode:
        pytest.skip("this ffmpeg has no libvorbis")
    with av.open(str(path)) as container:
        right = np.concatenate([frame.to_ndarray()[0] for frame in container.decode(audio=0)])
    if ending == "mka":  # its first packet, which gives no sound, has a time
        right = np.concatenate([np.zeros(round(0.003 * rate), np.float32), right])
    np.testing.assert_allclose(read_clip(path, sampling_rate=rate).waveform, right, atol=1e-6)
    for start in (0.5, 1.24, 2.68, 3.1):
        window = read_clip(path, start=start, duration=1.0, sampling_rate=rate).waveform
        np.testing.assert_allclose(window, right[round(start * rate) :][:rate], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "codec", "rate"),
    [
        ("blocks.wav", "adpcm_ms", 44_100),  # sought by bytes a second
        ("predicted.mov", "adpcm_ima_qt", 22_050),  # decoded from what came before
        ("coarse.ac3", "ac3", 44_100),  # lengths of frames rounded to 1/90,000 s, and added up
        ("still.rm", "real_144", 8_000),  # every stamp is 0
        ("pages.ogg", "flac", 44_100),  # the page that was sought gets the stamp of one of its packets
    ],
)
def test_windows_are_cut_from_the_whole(make: Maker, name: str, codec: str, rate: int) -> None:
    sound = np.repeat(noise(200), rate // 50)[: 4 * rate] * tone(4.0, rate, 440.0)
    path = make(name, waveform=sound, sampling_rate=rate, audio_codec=codec, audio_options={"strict": "-2"})
    with av.open(str(path)) as container:
        frames = [frame.to_ndarray() for frame in container.decode(audio=0)]
    scale = 1.0 if frames[0].dtype.kind == "f" else 2.0 ** (8 * frames[0].itemsize - 1)
    right = np.concatenate([frame.ravel() for frame in frames]) / scale
    np.testing.assert_allclose(read_clip(path, sampling_rate=rate).waveform, right, atol=1e-6)
    assert probe(path).duration == pytest.approx(len(right) / rate, abs=0.01)
    for start in (1.0, 2.9):
        window = read_clip(path, start=start, duration=0.8, sampling_rate=rate).waveform
        np.testing.assert_allclose(window, right[round(start * rate) :][: round(0.8 * rate)], atol=1e-3)


# Edit lists


@pytest.mark.parametrize(("ending", "codec"), [("mp4", "aac"), ("mp4", "libopus"), ("mov", "pcm_s16le")])
def test_parts_joined_by_an_edit_list(make: Maker, ending: str, codec: str) -> None:
    """Each part begins and ends where the list says, to the frame and the sample, also between key frames."""
    whole = make(
        f"uncut_{codec}.{ending}",
        frames=numbered_frames(150),
        waveform=clicks(6.0, 48_000),
        audio_codec=codec,
        video_options={"g": "25"},
    )
    parts = [(1.0, 0.72), (3.31, 0.88), (0.53, 1.12), (4.77, 0.6)]
    path = with_edits(
        whole, whole.with_name(f"cut_{codec}.{ending}"), {"video": parts, "audio": [(None, 0.4), *parts]}
    )
    begins = np.cumsum([0.0, *(seconds for _, seconds in parts)])
    moments = np.arange(83) / 25
    part = np.searchsorted(begins, moments + 1e-6, side="right") - 1
    pictures = np.floor((moments - begins[part] + np.array(parts)[part, 0]) * 25 + 1e-6).astype(int)
    heard = [  # clicks that are not cut
        0.4 + begin + click - at
        for begin, (at, seconds) in zip(begins, parts, strict=False)
        for click in 0.05 + np.arange(60) / 10
        if at + 0.005 < click < at + seconds - 0.005
    ]
    assert probe(path).duration == read_duration(path) == pytest.approx(begins[-1] + 0.4)
    for start in (None, 0.0, 0.6, 0.72, 1.52, 2.6, 2.8):
        window = {} if start is None else {"start": start, "duration": 0.6}
        clip = read_clip(path, fps=25, **window)
        first = round(25 * clip.start)
        assert frame_numbers(clip.frames) == pictures[first : first + len(clip.frames)].tolist()
        assert len(clip.frames) == (83 if start is None else min(15, 83 - first))
        assert (np.diff(clip.timestamps) >= 0).all() and clip.timestamps[-1] <= clip.start + len(
            clip.frames
        ) / 25
        found = click_times(clip.waveform, 48_000) + clip.start
        due = [one for one in heard if clip.start + 0.005 < one < clip.start + clip.duration - 0.005]
        assert max(np.abs(found - one).min() for one in due) < 1e-4
    assert [len(read_clip(path, duration=d, fps=25).frames) for d in (0.61, 0.63)] == [15, 16]


def test_a_part_that_is_shown_late(make: Maker) -> None:
    whole = make("uncut.mp4", frames=numbered_frames(100), waveform=clicks(4.0, 48_000))
    late, long = [(None, 0.7), (1.0, 2.0)], [(1.0, 2.7)]
    for first, parts in (
        ("sound", {"video": late, "audio": long}),
        ("pictures", {"video": long, "audio": late}),
    ):
        path = with_edits(whole, whole.with_name(f"{first}_first.mp4"), parts)
        assert probe(path).duration == pytest.approx(2.7, abs=2e-3)
        for kinds in ({"video": False}, {"audio": False}):
            (last,) = read_clips(path, lambda length: [length - 0.4], duration=0.4, fps=25, **kinds)
            assert last.start == pytest.approx(2.3, abs=2e-3)
            assert len(last.waveform if last.frames is None else last.frames) in (9, 10, 11, 19_200)


def test_edit_lists_that_cannot_be_followed(make: Maker) -> None:
    whole = make("listed.mp4", frames=numbered_frames(50), waveform=clicks(2.0, 48_000))
    for number, parts in enumerate([
        [(0.0, 4e6), (0.0, 4e6)],  # more than there is
        [(50.0, 1.0), (60.0, 1.0)],  # what is not there
        [(None, 4e6), (0.5, 1.0), (0.0, 1.0)],
        [(0.0, 1e-9), (0.5, 1.0)],  # no length
    ]):  # fmt: skip
        path = with_edits(whole, whole.with_name(f"{number}.mp4"), {"video": parts, "audio": parts})
        try:
            clip = read_clip(path, fps=25, size=16)
            assert len(clip.frames) <= 100 and np.isfinite(clip.waveform).all()
        except MediaError as error:
            assert number in (0, 1), error
    path = with_edits(whole, whole.with_name("none.mp4"), {"video": [(0.0, 0.4), (1.0, 0.4)], "audio": []})
    assert len(read_clip(path, fps=25).waveform) > 1.9 * 16_000  # without edits, all of it


# Lengths


@pytest.mark.parametrize(
    ("ending", "codec"), [("h264", "libx264"), ("flv", "libx264"), ("m2v", "mpeg2video")]
)
def test_pictures_without_a_length(make: Maker, ending: str, codec: str) -> None:
    path = make(
        f"no_length.{ending}",
        frames=numbered_frames(75),
        video_codec=codec,
        video_options={"bf": "2"},
        container_options={"flvflags": "no_duration_filesize"} if ending == "flv" else {},
    )
    assert probe(path).duration == read_duration(path) == pytest.approx(3.0, abs=1e-3)
    assert frame_numbers(read_clip(path, fps=25).frames) == list(range(75))
    (last,) = read_clips(path, lambda length: [length - 0.4], duration=0.4, fps=25)
    assert frame_numbers(last.frames)[-1] in (73, 74)


@pytest.mark.parametrize("loud_first", [False, True])
@pytest.mark.parametrize("name", ["e.aac", "e.mp3", "joined.mp3"])
def test_lengths_that_the_container_only_estimates(make: Maker, name: str, loud_first: bool) -> None:
    """FFmpeg takes the bit rate of the beginning for that of the whole."""
    sound = np.concatenate([np.zeros(4 * 48_000, np.float32), noise(6 * 48_000)][:: -1 if loud_first else 1])
    xing = {"write_xing": str(int(name == "joined.mp3")), "id3v2_version": "0"}
    path = make(
        f"{loud_first}_{name}",
        waveform=sound,
        audio_codec="aac" if name == "e.aac" else "libmp3lame",
        audio_options={"flags": "+qscale", "global_quality": "236"},
        container_options={} if name == "e.aac" else xing,
    )
    seconds = 10.0
    if name == "joined.mp3":  # the header tells of the first part only
        seconds, data = 20.0, path.read_bytes()
        path = path.with_name(f"{loud_first}_both.mp3")
        path.write_bytes(data + data)
    assert probe(path).duration == read_duration(path) == pytest.approx(seconds, abs=0.12)
    (last,) = read_clips(path, lambda length: [length - 1.0], duration=1.0, video=False)
    assert len(last.waveform) >= 47_000


@pytest.mark.parametrize("ending", ["mkv", "avi", "flv"])
def test_sound_that_ends_before_the_pictures(make: Maker, ending: str) -> None:
    """These containers state one length for all streams."""
    codecs = {"video_codec": "mpeg4", "audio_codec": "libmp3lame"} if ending == "avi" else {}
    path = make(f"short.{ending}", frames=numbered_frames(100), waveform=clicks(1.5, 48_000), **codecs)
    lengths: list[float] = []

    def starts(length: float) -> list[float]:
        lengths.append(length)
        return [length - 0.5]

    (clip,) = read_clips(path, starts, duration=0.5, video=False)
    assert lengths == [pytest.approx(1.5, abs=0.06)] and len(clip.waveform) >= 20_000
    assert read_duration(path) == pytest.approx(4.0, abs=0.06)


@pytest.mark.parametrize("ending", ["mp4", "mkv", "webm", "ts", "flv", "wmv"])
def test_a_clock_that_starts_late_makes_no_file_longer(make: Maker, ending: str) -> None:
    codecs = {"webm": ("libvpx", "libopus"), "wmv": ("wmv2", "libmp3lame")}.get(ending, ("libx264", "aac"))
    options = {"frames": numbered_frames(75), "waveform": clicks(3.0, 48_000)}
    options |= {"video_codec": codecs[0], "audio_codec": codecs[1]}
    plain = make(f"on_time.{ending}", **options)
    late = make(f"late_clock.{ending}", video_offset=5.0, audio_offset=5.0, **options)
    assert probe(late).duration == read_duration(late) == pytest.approx(3.0, abs=0.1)
    assert probe(late).clock_start - probe(plain).clock_start == pytest.approx(5.0, abs=0.1)
    whole, expected = read_clip(late, fps=25), read_clip(plain, fps=25)
    assert frame_numbers(whole.frames)[-70:] == frame_numbers(expected.frames)[-70:]
    ticks = [click_times(clip.waveform, 48_000) for clip in (whole, expected)]
    np.testing.assert_allclose(ticks[0][-28:], ticks[1][-28:], atol=0.025)
    for kinds in ({}, {"video": False}, {"audio": False}):
        (last,) = read_clips(late, lambda length: [length - 0.5], duration=0.5, fps=10, **kinds)
        assert last.frames is None or len(last.frames) == 5
        assert last.waveform is None or len(last.waveform) >= 22_000


# Clocks that jump


def join(make: Maker, name: str, *parts: dict) -> Path:
    """Recordings end to end, as `cat` joins them."""
    files = [make(f"{number}_{name}", **part) for number, part in enumerate(parts)]
    path = files[0].with_name(name)
    path.write_bytes(b"".join(file.read_bytes() for file in files))
    return path


def pitch(waveform: np.ndarray, rate: int) -> float:
    spectrum = np.abs(np.fft.rfft(waveform * np.hanning(len(waveform))))
    return float(spectrum.argmax() * rate / len(waveform))


@pytest.mark.parametrize(
    ("ending", "video_codec", "audio_codec"),
    [
        ("ts", "libx264", "aac"),
        ("mpg", "mpeg2video", "mp2"),
        ("mkv", "libx264", "aac"),
        ("webm", "libvpx", "libopus"),
    ],
)
def test_joined_recordings_have_one_clock(
    make: Maker, ending: str, video_codec: str, audio_codec: str
) -> None:
    """Pictures of a part come with its sound, in the whole, in windows and in what `probe` says."""
    pitches = [500.0, 1000.0, 2000.0]
    seconds = (2.0, 3.0, 2.0) if ending in ("ts", "mpg") else (2.0, 3.0)  # FFmpeg reads two of Matroska
    parts = [
        {
            "frames": numbered_frames(round(25 * length), first=1000 * number),
            "waveform": tone(length, 48_000, pitches[number]),
            "video_codec": video_codec,
            "audio_codec": audio_codec,
            "video_options": {"g": "25"},
        }
        for number, length in enumerate(seconds)
    ]
    path = join(make, f"recordings.{ending}", *parts)
    assert probe(path).duration == read_duration(path) == pytest.approx(sum(seconds), abs=0.08)
    begins = np.cumsum([0.0, *seconds])
    for start in (None, 0.3, 0.9, 1.9, 2.2, 4.0, *((4.8, 5.2, 6.2) if len(parts) == 3 else ())):
        window = {} if start is None else {"start": start, "duration": 0.7}
        clip = read_clip(path, fps=25, sampling_rate=16_000, **window)
        numbers = np.array(frame_numbers(clip.frames))
        assert start is None or len(numbers) == 18
        moments = clip.start + np.arange(len(numbers)) / 25
        part = np.searchsorted(begins[1:-1], moments, side="right")
        late = moments - begins[part]  # in its part; a frame and a half is left to rounding
        sure = (late > 0.1) & (late < np.array(seconds)[part] - 0.2)
        right = 1000 * part + 25 * late
        assert (np.abs(numbers - right)[sure] <= 1.6).all(), start
        for place in np.flatnonzero(sure)[::5]:
            heard = clip.waveform[640 * place : 640 * place + 1600]
            assert len(heard) < 1600 or abs(pitch(heard, 16_000) - pitches[part[place]]) <= 10, (start, place)


@pytest.mark.parametrize(("ending", "codec"), [("ts", "aac"), ("mp3", "libmp3lame")])
def test_sampling_rates_that_change(make: Maker, ending: str, codec: str) -> None:
    """A broadcast with another one between, songs of a radio station."""
    rates, pitches = (48_000, 32_000, 44_100), (125.0, 250.0, 500.0)
    parts = [
        {"waveform": tone(2.0, rate, one), "sampling_rate": rate, "audio_codec": codec}
        for rate, one in zip(rates, pitches, strict=True)
    ]
    path = join(make, f"rates.{ending}", *parts)
    whole = read_clip(path, sampling_rate=16_000).waveform
    assert len(whole) / 16_000 == pytest.approx(6.0, abs=0.25)  # encoders fill up their last packets
    for start in (0.5, 1.6, 2.4, 3.6, 4.5, 5.2):
        window = read_clip(path, start=start, duration=0.4, sampling_rate=16_000).waveform
        assert pitch(window, 16_000) == pytest.approx(pitches[int(start / 2)], abs=4)
        np.testing.assert_allclose(window, whole[round(start * 16_000) :][: len(window)], atol=0.1)
    crossing = read_clip(path, start=1.5, duration=1.0, sampling_rate=16_000).waveform
    assert [pitch(part, 16_000) for part in (crossing[:6400], crossing[-6400:])] == [125.0, 250.0]


def test_stamps_of_33_bits_wrap(make: Maker) -> None:
    whole = make(
        "steady.ts", frames=numbered_frames(150), waveform=tone(6.0, 48_000), video_options={"g": "25"}
    )
    path = retime(whole, whole.with_name("wrap.ts"), lambda *_: 2**33 / 90_000 - 4.4)
    assert probe(path).duration == pytest.approx(6.0, abs=0.06)
    assert frame_numbers(read_clip(path, start=0.025, fps=25).frames)[:150] == list(range(150))
    assert frame_numbers(read_clip(path, start=4.025, duration=0.4, fps=25).frames) == list(range(100, 110))


@pytest.mark.parametrize("jump", [500.0, -20.0])
def test_jumps_of_a_transport_stream(make: Maker, jump: float) -> None:
    """A jump of more than ten seconds ahead is none of the file's time, as for ffmpeg's command line."""
    options = {"frames": numbered_frames(150), "waveform": tone(6.0, 48_000), "video_options": {"g": "25"}}
    whole = make("steady.ts", **options)
    path = whole.with_name(f"jump_{jump}.ts")
    path.write_bytes(
        b"".join(
            retime(whole, whole.with_name(f"{begin}.ts"), lambda *_, begin=begin: begin).read_bytes()
            for begin in (30.0, 30.0 + jump)
        )
    )
    expected = [*range(150), *range(150)]
    assert probe(path).duration == pytest.approx(12.0, abs=0.06)
    begin = 0.025  # AAC's first block comes before the first picture
    assert frame_numbers(read_clip(path, start=begin, fps=25).frames)[:300] == expected
    for start in (3.0, 5.6, 8.0, 11.0):
        clip = read_clip(path, start=start + begin, duration=0.4, fps=25)
        assert frame_numbers(clip.frames) == expected[round(start * 25) :][:10]


@pytest.mark.parametrize("seconds", [10, 20])
def test_frames_far_apart_are_no_jumps(make: Maker, seconds: int) -> None:
    """Stored out of order, they are several times as far apart as on the screen."""
    path = make(f"lapse_{seconds}.ts", frames=numbered_frames(12), fps=Fraction(1, seconds))
    assert probe(path).duration == read_duration(path) == pytest.approx(12 * seconds)
    assert frame_numbers(read_clip(path, fps=1 / seconds).frames) == list(range(12))
    for number in (3, 7, 11):
        clip = read_clip(path, start=(number + 0.5) * seconds, duration=1.0)
        assert frame_numbers(clip.frames) == [number] * 10


def test_a_short_jump_ahead_is_a_gap(make: Maker) -> None:
    options = {"frames": numbered_frames(150), "waveform": tone(6.0, 48_000), "video_options": {"g": "25"}}
    whole = make("steady.ts", **options)
    path = retime(whole, whole.with_name("pause.ts"), lambda _, moment: 4.0 * (moment > 4.4))
    assert probe(path).duration == pytest.approx(10.0, abs=0.06)
    clip = read_clip(path, start=4.6, duration=2.0, fps=10, sampling_rate=16_000)
    assert len(set(frame_numbers(clip.frames))) == 1 and not clip.waveform[1600:].any()


@pytest.mark.skipif(shutil.which("ffmpeg") is None, reason="PyAV has no encoder of Vorbis worth the name")
@pytest.mark.parametrize(("codec", "rate"), [("libvorbis", 44_100), ("libopus", 48_000)])
def test_radio_captures(tmp_path: Path, codec: str, rate: int) -> None:
    """Each song is a recording of its own, whose encoder has a delay: that is none of the time."""
    songs = []
    for number, seconds in enumerate([1.5, 2.0, 1.0] * 2):
        songs.append(tmp_path / f"{number}.ogg")
        command = ["ffmpeg", "-v", "error", "-f", "f32le", "-ar", str(rate), "-ac", "1", "-i", "-"]
        sound = tone(seconds, rate, 300.0 * (number + 1))
        if subprocess.run([*command, "-c:a", codec, str(songs[-1])], input=sound.tobytes()).returncode:
            pytest.skip(f"this ffmpeg has no {codec}")
    path = tmp_path / "capture.ogg"
    path.write_bytes(b"".join(song.read_bytes() for song in songs))
    whole = read_clip(path, sampling_rate=rate).waveform
    assert 0 <= len(whole) - 9 * rate <= 5 * 128  # FFmpeg's Vorbis joins songs by a short block
    assert probe(path).duration == pytest.approx(9.0, abs=0.03)
    first = read_clip(songs[0], sampling_rate=rate).waveform
    np.testing.assert_allclose(whole[: len(first)], first, atol=1e-5)
    for start, number in ((0.2, 0), (2.0, 1), (5.0, 3), (8.2, 5)):
        window = read_clip(path, start=start, duration=0.5, sampling_rate=rate).waveform
        np.testing.assert_allclose(window, whole[round(start * rate) :][: rate // 2], atol=1e-3)
        assert pitch(window, rate) == pytest.approx(300.0 * (number + 1), abs=3)


def test_chained_ogg(make: Maker) -> None:
    sounds = [tone(2.0, 48_000, frequency) for frequency in (500.0, 1000.0)]
    path = join(make, "chain.ogg", *({"waveform": sound, "audio_codec": "flac"} for sound in sounds))
    right = np.concatenate(sounds)
    np.testing.assert_allclose(read_clip(path).waveform, right, atol=2**-14)
    window = read_clip(path, start=1.5, duration=1.0).waveform
    np.testing.assert_allclose(window, right[72_000:120_000], atol=2**-14)


# Shape


@pytest.mark.parametrize(
    ("ending", "rotation"), [("mp4", 0), ("mp4", 90), ("mkv", 0), ("ts", 0), ("avi", 0), ("mpg", 0)]
)
def test_pixels_that_are_no_squares(make: Maker, ending: str, rotation: int) -> None:
    """A European DVD of 16:9, a fifth as large: 144 x 116 pixels are displayed as 205 x 116."""
    path = make(
        f"wide_{rotation}.{ending}",
        frames=numbered_frames(10, width=144, height=116),
        pixel_shape=Fraction(64, 45),
        rotation=rotation,
        video_codec={"avi": "mpeg4", "mpg": "mpeg2video"}.get(ending, "libx264"),
    )
    info, clip, small = probe(path), read_clip(path, fps=25), read_clip(path, size=58)
    width = 206 if ending == "mpg" else 205  # MPEG-2 knows some shapes of pictures, such as 16:9
    sides = (width, 116)[:: -1 if rotation else 1]
    assert (info.width, info.height) == sides == (clip.info.width, clip.info.height)
    assert clip.frames.shape == (10, *sides[::-1], 3)
    assert small.frames.shape[1:3] == ((102, 58) if rotation else (58, 103 if ending == "mpg" else 102))
    if not rotation:
        assert frame_numbers(clip.frames) == list(range(10)) and frame_number(small.frames[0]) == 0
