# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Media that strangers send: each is decoded as promised or refused by name, within its limits.

A small part of what `benchmarks/fuzz.py` does, always the same; and what it has found.
"""

from __future__ import annotations

import contextlib
import http.server
import io
import json
import os
import socket
import struct
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from fuzz_media import INTACT, MediaFuzz, check_clip
from hypothesis import given, settings
from hypothesis import strategies as st
from media_factory import corner_frame, tone, write_media
from PIL import Image

import modeling_vatt.processors
from modeling_vatt.processors import MediaError, MediaLimits, probe, read_clip, read_picture


CONTAINERS = ("mp4", "mkv", "webm", "avi", "mov", "wav", "ogg", "flac", "mp3")
QUICK = MediaLimits(max_bytes=64 << 20, max_pixels=1 << 22, max_seconds=30.0, wall_seconds=20.0, timeout=1.0)
RATES = {"fps": 10.0, "sampling_rate": 16_000}


@pytest.fixture(scope="module")
def fuzz(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MediaFuzz]:
    # The campaign loads processors/media without the package; here they are the same.
    sys.modules["modeling_vatt_media"] = modeling_vatt.processors.media
    yield MediaFuzz(tmp_path_factory.mktemp("fuzz") / "samples")
    del sys.modules["modeling_vatt_media"]


def read(source: object, **options: object) -> str:
    """Both ways a window may go: it is as promised, or the error says what and what to do."""
    try:
        clip = read_clip(source, limits=QUICK, **RATES, **options)  # type: ignore[arg-type]
    except MediaError as error:
        assert error.source and error.reason and error.remedy
        return "refused"
    check_clip(clip, options.get("duration"), size=options.get("size"), **RATES)  # type: ignore[arg-type]
    return "decoded"


# Mutants


def test_good_files_are_decoded(fuzz: MediaFuzz) -> None:
    assert len(fuzz.samples) > 35
    for name, content in fuzz.samples.items():
        assert read(content, duration=0.4) == "decoded", name
        assert read(content) == "decoded", name


@pytest.mark.parametrize("ending", CONTAINERS)
def test_files_cut_at_every_tenth(fuzz: MediaFuzz, ending: str, tmp_path: Path) -> None:
    names = [name for name in fuzz.samples if name.endswith(ending) and not name.startswith("picture")]
    assert names
    for name in names:
        content = fuzz.samples[name]
        results = []
        for tenth in range(10):
            path = tmp_path / name
            path.write_bytes(content[: len(content) * tenth // 10])
            results.append(read(path, duration=0.4))
        assert results[0] == "refused"
        if ending in ("mkv", "webm", "avi", "wav", "flac", "mp3"):  # readable from their beginning
            assert results[9] == "decoded", name


@pytest.mark.parametrize("part", range(4))
def test_mutants(fuzz: MediaFuzz, part: int, tmp_path: Path) -> None:
    results = []
    for number in range(150 * part, 150 * (part + 1)):
        rng = np.random.default_rng((77, number))
        name, content, done = fuzz.mutant(rng)
        results.append(fuzz.check(name, content, done, rng, tmp_path))
        assert done != INTACT or not results[-1].startswith("refused"), (number, name)
    refused = sum(result.startswith("refused") for result in results)
    assert 20 < refused < 130  # neither harmless nor hopeless


# What fuzzing has found


def test_eight_channels(tmp_path: Path) -> None:
    """PyAV's `to_ndarray` reads a ninth plane, at any address, and the process dies."""
    sound = np.stack([tone(0.5, 48_000) * (k + 1) / 8 for k in range(8)])
    for name, codec in (("a.m4a", "aac"), ("a.flac", "flac"), ("a.mka", "libopus"), ("a.wav", "pcm_s16le")):
        clip = read_clip(write_media(tmp_path / name, waveform=sound, audio_codec=codec), duration=0.4)
        assert clip.info.channels == 8 and clip.waveform is not None
        assert 0.25 < np.abs(clip.waveform[4800:]).max() < 0.3  # the mean of 1/8 .. 8/8, times 0.5


@pytest.mark.parametrize("rate", [48_000, 16_000])
@pytest.mark.parametrize(
    ("name", "codec", "kind"),
    [
        ("a.wav", "pcm_f32le", "<f4"),
        ("a.w64", "pcm_f64le", "<f8"),
        ("a.caf", "pcm_f32be", ">f4"),
        ("a.mka", "pcm_f64le", "<f8"),
    ],
)
def test_samples_that_are_no_sound_are_refused(
    tmp_path: Path, name: str, codec: str, kind: str, rate: int
) -> None:
    """In one channel of two, as in arrays; windows beside them are what they were."""
    sound = np.stack([tone(1.0, 48_000), tone(1.0, 48_000, 333.0)])
    path = write_media(tmp_path / name, waveform=sound, audio_codec=codec)
    before = read_clip(path, sampling_rate=rate).waveform
    content, stored = path.read_bytes(), sound.T.astype(kind)[30_000:30_016]
    assert before is not None and content.count(stored.tobytes()) == 1
    for value in (np.nan, np.inf, -np.inf, 1e38):
        new = stored.copy()
        new[8, 1] = value
        path.write_bytes(content.replace(stored.tobytes(), new.tobytes()))
        with pytest.raises(MediaError, match=r"NaN, infinite or beyond 2\^31 at 0\.63 s"):
            read_clip(path, start=0.5, duration=0.3, sampling_rate=rate)
        for start in (0.1, 0.65):
            window = read_clip(path, start=start, duration=0.3, sampling_rate=rate).waveform
            first = round(start * rate)
            np.testing.assert_allclose(window, before[first : first + len(window)], atol=1e-4)


def test_streams_that_appear_late_do_not_end_a_file(fuzz: MediaFuzz) -> None:
    """PyAV raises IndexError for a packet of a stream it has not seen at the beginning."""
    content = bytearray(fuzz.samples["plain.flv"])
    sounds = [place for place in _flv_tags(bytes(content)) if content[place] == 8]
    for place in sounds[5:10]:
        content[place] = 18  # now data, a third stream
    clip = read_clip(bytes(content))
    assert clip.frames is not None and len(clip.frames) >= 9


def _flv_tags(content: bytes) -> Iterator[int]:
    place = 13
    while place + 11 < len(content):
        yield place
        place += 11 + int.from_bytes(content[place + 1 : place + 4], "big") + 4


def test_reads_are_small(tmp_path: Path) -> None:
    """A header that speaks of gigabytes made the file object ask for as much memory."""
    path = write_media(
        tmp_path / "a.wav", waveform=tone(0.5, 8_000), sampling_rate=8_000, audio_codec="pcm_u8"
    )

    class Watched(io.FileIO):
        largest = 0

        def read(self, size: int = -1) -> bytes:  # type: ignore[override]
            Watched.largest = max(Watched.largest, size)
            return super().read(size)

    content = bytearray(path.read_bytes())
    place = content.index(b"data") + 4
    content[place : place + 4] = (2**31 - 8).to_bytes(4, "little")
    path.write_bytes(content)
    with Watched(path) as file:
        assert read(file) == "decoded"
    assert 0 < Watched.largest <= 1 << 20


def test_low_rates_do_not_multiply_memory(tmp_path: Path) -> None:
    """Half a second of sound that claims 1 Hz lasts for hours; at 48 kHz it would take gigabytes."""
    path = write_media(tmp_path / "a.wav", waveform=tone(0.5, 48_000), audio_codec="pcm_u8")
    content = bytearray(path.read_bytes())
    place = content.index(b"fmt ") + 12
    assert int.from_bytes(content[place : place + 4], "little") == 48_000
    content[place : place + 4] = (1).to_bytes(4, "little")
    assert read(bytes(content)) == "refused"


# Lies about size and length


def _png(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(corner_frame(16, 16)).save(file, "png")
    content = bytearray(file.getvalue())
    place = content.index(b"IHDR")
    content[place + 4 : place + 12] = struct.pack(">II", width, height)
    content[place + 17 : place + 21] = struct.pack(">I", zlib.crc32(bytes(content[place : place + 17])))
    return bytes(content)


def _gif(width: int, height: int) -> bytes:
    file = io.BytesIO()
    Image.fromarray(corner_frame(16, 16)).save(file, "gif")
    content = bytearray(file.getvalue())
    content[6:10] = struct.pack("<HH", width, height)
    return bytes(content)


@pytest.mark.parametrize("make", [_png, _gif])
def test_absurd_sizes(make: Callable[[int, int], bytes]) -> None:
    with pytest.raises(MediaError, match=r"pixels|not a readable|nothing to decode"):
        read_clip(make(65_535, 65_535), audio=False)
    with pytest.raises(MediaError, match=r"65535 x 65535 is more than \d+ pixels|cannot be read|no picture"):
        read_picture(make(65_535, 65_535))
    assert read_clip(make(16, 16), audio=False).frames is not None


def test_sizes_beyond_those_a_film_states(fuzz: MediaFuzz) -> None:
    """The box of an MP4 file says 65,535 x 65,535; the stream knows better."""
    content = bytearray(fuzz.samples["plain.mp4"])
    place = content.index(b"avc1", content.index(b"stsd")) + 28
    content[place : place + 4] = struct.pack(">HH", 65_535, 65_535)
    frames = read_clip(bytes(content), limits=QUICK).frames
    # FFmpeg takes the 32 that are displayed for a width of 65,535 pixels, and those for no squares.
    assert frames is not None and frames.shape[1:3] == (24, 43)
    frames = read_clip(bytes(content), limits=QUICK, size=12).frames
    assert frames is not None and frames.shape[1:3] == (12, 22)


def test_no_channels() -> None:
    form = struct.pack("<HHIIHH", 1, 0, 8000, 0, 0, 8)
    data = b"WAVEfmt " + struct.pack("<I", 16) + form + b"data" + struct.pack("<I", 800) + b"\x80" * 800
    assert read(b"RIFF" + struct.pack("<I", len(data)) + data) == "refused"


@pytest.mark.parametrize("scale", [1, 2**31 - 1])
def test_lying_time_scales(fuzz: MediaFuzz, scale: int) -> None:
    for name in ("plain.mp4", "edits.mp4", "variable.mp4", "plain.mov"):
        content = bytearray(fuzz.samples[name])
        for box in (b"mvhd", b"mdhd"):
            place = content.index(box) + 16
            content[place : place + 4] = struct.pack(">I", scale)
        for options in ({}, {"duration": 0.4}, {"start": 0.3, "duration": 0.4}):
            assert read(bytes(content), **options) in ("decoded", "refused")


# Things with names that are no files


def test_names_of_other_things(tmp_path: Path) -> None:
    (tmp_path / "loop.mp4").symlink_to(tmp_path / "loop.mp4")
    (tmp_path / "nowhere.mp4").symlink_to(tmp_path / "missing.mp4")
    (tmp_path / "folder.mp4").mkdir()
    listening = socket.socket(socket.AF_UNIX)
    listening.bind(str(tmp_path / "socket.mp4"))
    for name in ("loop.mp4", "nowhere.mp4", "folder.mp4", "socket.mp4", "x" * 5000, "a\0b.mp4"):
        with pytest.raises(MediaError, match=r"cannot be opened|device or socket"):
            read_clip(tmp_path / name)
    for device in ("/dev/zero", "/dev/null", "/dev/tty"):
        if Path(device).exists():
            with pytest.raises(MediaError, match=r"no file but a device|cannot be opened"):
                read_clip(device)
    listening.close()


def test_links_are_followed(fuzz: MediaFuzz, tmp_path: Path) -> None:
    (tmp_path / "film.mp4").write_bytes(fuzz.samples["plain.mp4"])
    (tmp_path / "link.mp4").symlink_to(tmp_path / "film.mp4")
    assert read(tmp_path / "link.mp4") == "decoded"


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_that_nobody_writes_to(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(MediaError, match=r"a pipe that did not end within 0\.2 s"):
        read_clip(tmp_path / "pipe", limits=MediaLimits(timeout=0.2))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no named pipes on this system")
def test_a_pipe_without_end(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")

    def write() -> None:
        with contextlib.suppress(BrokenPipeError), (tmp_path / "pipe").open("wb") as pipe:
            while True:
                pipe.write(bytes(1 << 16))

    feeder = threading.Thread(target=write, daemon=True)
    feeder.start()
    with pytest.raises(MediaError, match="more than 1000000 bytes"):
        read_clip(tmp_path / "pipe", limits=MediaLimits(max_bytes=1_000_000))
    feeder.join()


@pytest.mark.skipif(not hasattr(os, "geteuid"), reason="no users on this system")
def test_a_file_that_may_not_be_read(tmp_path: Path) -> None:
    path = tmp_path / "secret.mp4"
    path.write_bytes(b"x")
    path.chmod(0)
    user = os.geteuid()
    try:
        if not user:
            os.seteuid(65534)  # root may read anything
        with pytest.raises(MediaError, match=r"secret\.mp4: cannot be opened \(Permission denied\)\. Check"):
            probe(path)
    finally:
        if not user:
            os.seteuid(user)


# Time


def test_no_time_is_no_clip(fuzz: MediaFuzz, tmp_path: Path) -> None:
    (tmp_path / "a.mp4").write_bytes(fuzz.samples["plain.mp4"])
    for isolated in (False, True):
        with pytest.raises(MediaError, match=r"a\.mp4: not decoded within 0 s\. .*MediaLimits\.wall_seconds"):
            read_clip(tmp_path / "a.mp4", limits=MediaLimits(wall_seconds=0.0, isolated=isolated))


def test_time_ends_while_frames_come(fuzz: MediaFuzz) -> None:
    """Not only the opening is watched."""

    class Slow(io.BytesIO):
        def read(self, size: int | None = -1) -> bytes:
            time.sleep(0.05)
            return super().read(200)

    with pytest.raises(MediaError, match="not decoded within"):
        read_clip(Slow(fuzz.samples["prores.mov"]), limits=MediaLimits(wall_seconds=0.5))


@pytest.fixture
def hanging() -> Iterator[str]:
    """Servers on loopback: /silent never answers, /drip sends a byte of its header now and then."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            with contextlib.suppress(OSError):
                self.wfile.write(b"HTTP/1.1 200 OK\r\nX-Slow: ")
                while not over.wait(0.1):
                    if self.path == "/drip":
                        self.wfile.write(b"x")
                    if self.path == "/body":
                        self.wfile.write(b"\r\n\r\n" * 10)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    over = threading.Event()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        over.set()
        server.shutdown()


@pytest.mark.parametrize("path", ["/silent", "/drip", "/body"])
@pytest.mark.parametrize("isolated", [False, True])
def test_servers_that_do_not_answer(hanging: str, path: str, isolated: bool) -> None:
    limits = MediaLimits(allowed_hosts=("127.0.0.1",), timeout=0.4, isolated=isolated)
    with pytest.raises(MediaError, match=r"not fetched within 0\.4 s|cannot be fetched"):
        read_clip(hanging + path, limits=limits)


def test_addresses_are_refused_by_default(hanging: str) -> None:
    for address in (hanging, "https://example.org/film.mp4", "file:///etc/passwd", "rtmp://example.org/x"):
        for isolated in (False, True):
            with pytest.raises(MediaError, match=r"allowed_hosts|is not supported"):
                read_clip(address, limits=MediaLimits(isolated=isolated))


@pytest.mark.parametrize(
    "text",
    [
        "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP 96\n"
        "a=rtpmap:96 H264/90000\n",
        '<?xml version="1.0"?><MPD xmlns="urn:mpeg:dash:schema:mpd:2011" type="static"><Period>'
        '<AdaptationSet mimeType="video/mp4"><Representation id="1"><BaseURL>file:///etc/passwd</BaseURL></Representation>'
        "</AdaptationSet></Period></MPD>",
        *(
            f"#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXTINF:4,\n{address}\n#EXT-X-ENDLIST\n"
            for address in ("file:///etc/passwd", "film.mp4", "/FOLDER/film.mp4")
        ),
        *(f"ffconcat version 1.0\nfile {name}\n" for name in ("/etc/passwd", "film.mp4")),
    ],
)
def test_lists_open_nothing(fuzz: MediaFuzz, text: str, tmp_path: Path) -> None:
    """Neither files of the system nor the film beside them, by whatever name."""
    (tmp_path / "film.mp4").write_bytes(fuzz.samples["plain.mp4"])
    text = text.replace("/FOLDER", str(tmp_path))
    for name in ("list.mp4", "list.m3u8", "list.ffconcat"):
        (tmp_path / name).write_text(text)
        assert read(tmp_path / name) == "refused"
    assert read(text.encode()) == "refused"


# Settings

_VALUES = st.none() | st.booleans() | st.integers() | st.floats() | st.text() | st.lists(st.text())
_FIELDS = st.sampled_from(["max_bytes", "timeout", "isolated", "allowed_hosts", "other"])


@given(st.text() | _VALUES.map(json.dumps) | st.dictionaries(_FIELDS, _VALUES).map(json.dumps))
@settings(max_examples=100, deadline=None, derandomize=True)
def test_limits_from_any_text(text: str) -> None:
    try:
        limits = MediaLimits.from_json(text)
    except ValueError as error:
        assert "imit" in str(error)
    else:
        assert isinstance(limits.max_bytes, int) and isinstance(limits.isolated, bool)


def test_limits_from_json() -> None:
    found = MediaLimits.from_json('{"wall_seconds": 3, "allowed_hosts": ["a.org"]}', isolated=True)
    assert found == MediaLimits(wall_seconds=3.0, allowed_hosts=("a.org",), isolated=True)
    for text, message in (
        ('{"pixels": 3}', "max_pixels"),
        ('{"max_bytes": "many"}', "max_bytes must be of type int"),
        ('{"max_bytes": true}', "max_bytes must be of type int"),
        ('{"allowed_hosts": "*"}', "allowed_hosts must be of type tuple"),
        ("[]", "JSON object"),
        ("{", "JSON object"),
    ):
        with pytest.raises(ValueError, match=message):
            MediaLimits.from_json(text)
