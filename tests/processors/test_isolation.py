# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Decoding in a process of its own: the same results, and what a crash, a hang or a lie of it costs."""

from __future__ import annotations

import contextlib
import io
import os
import signal
import subprocess
import sys
import textwrap
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from clip_folders import make_folder, small_processor
from hypothesis import given, settings
from hypothesis import strategies as st
from media_factory import clicks, corner_frame, numbered_frames, write_media
from PIL import Image
from processes import FORKS
from torch.utils.data import DataLoader

from modeling_vatt.data import (
    ClipDataset,
    SkippedClip,
    collate_clips,
    folder_clips,
    load_clips,
    prepare_shards,
)
from modeling_vatt.processors import (
    MediaClip,
    MediaError,
    MediaLimits,
    probe,
    read_clip,
    read_clips,
    read_duration,
    read_picture,
)
from modeling_vatt.processors.media import isolation as media_isolation


ISOLATED = MediaLimits(isolated=True)

# Goes before the start of the process: what a decoder with a hole in it may do, by the name of the file.
HOSTILE = """
import ctypes, os, time
def misbehave(path):
    name = os.path.basename(path)
    if "crash" in name:
        ctypes.string_at(0)
    if "hang" in name:
        time.sleep(60)
    if "print" in name:
        os.write(1, b"a library talks"), os.write(2, b"a library complains"), print("so do I", flush=True)
    if "lie" in name:
        return [{"clips": [{"frames": [2**40, 2**10, 2], "samples": None, "timestamps": 1, "start": 0}]}]
    if "nonsense" in name:
        return [{"clips": 5}]
    if "answer" in name:
        return [json.loads(bytes.fromhex(name.split(".")[1]))]
    if "write" in name:
        try:
            with open(path + ".new", "wb") as file:
                file.write(b"x")
        except OSError:
            raise AssertionError("as it should be")

def hostile():
    module = importlib.import_module("isolated_media." + stem)
    honest, decode_clips = module._answer, module.decode_clips
    def answer(request, *arguments):
        return misbehave(request["name"]) or honest(request, *arguments)
    def eat(source, *arguments, **options):
        if "eat" in os.path.basename(str(source)):
            bytearray(1 << 40)
        return decode_clips(source, *arguments, **options)
    module._answer, module.decode_clips = answer, eat

hostile()
"""


@pytest.fixture(scope="module")
def film(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("isolation") / "film.mp4"
    return write_media(path, frames=numbered_frames(50), waveform=clicks(2.0, 48_000))


@pytest.fixture
def pool(monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
    """Processes of this test's own."""
    pool = media_isolation._DecoderPool()
    monkeypatch.setattr(media_isolation, "_decoders", pool)
    yield pool
    pool.close()


@pytest.fixture
def hostile(pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """The process misbehaves according to the names of files."""
    start = media_isolation._BOOTSTRAP.rindex("importlib.import_module")
    bootstrap = media_isolation._BOOTSTRAP
    monkeypatch.setattr(media_isolation, "_BOOTSTRAP", bootstrap[:start] + HOSTILE + bootstrap[start:])


def copy(film: Path, path: Path) -> Path:
    path.write_bytes(film.read_bytes())
    return path


def same(first: MediaClip, second: MediaClip) -> bool:
    arrays = (
        (first.frames, second.frames),
        (first.waveform, second.waveform),
        (first.timestamps, second.timestamps),
    )
    others = [(clip.start, clip.duration, clip.info) for clip in (first, second)]
    return others[0] == others[1] and all(
        (one is None and other is None) or (one.dtype == other.dtype and np.array_equal(one, other))
        for one, other in arrays
    )


def test_results_are_the_same(film: Path, tmp_path: Path) -> None:
    options: dict[str, Any] = {"duration": 0.5, "size": 24, "sampling_rate": 16_000}
    with film.open("rb") as file:
        for source in (film, str(film), film.read_bytes(), file, io.BytesIO(film.read_bytes())):
            if not isinstance(source, io.BytesIO):  # its name is its address
                assert probe(source, ISOLATED) == probe(source)
            for starts in ([0.0, 1.0], lambda length: [0.0, length / 2], lambda length: np.array([0.3])):
                expected = read_clips(source, starts, **options)
                found = read_clips(source, starts, limits=ISOLATED, **options)
                assert len(found) == len(expected) and all(map(same, found, expected))
    for more in ({"audio": False}, {"video": False}):
        assert same(read_clip(film, limits=ISOLATED, **more), read_clip(film, **more))
    assert read_duration(film, ISOLATED) == read_duration(film)
    Image.fromarray(corner_frame()).save(tmp_path / "picture.png")
    found = read_picture(tmp_path / "picture.png", ISOLATED)
    np.testing.assert_array_equal(found, read_picture(tmp_path / "picture.png"))


def test_errors_are_the_same(film: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "noise.mp4").write_bytes(b"no film" * 100)
    monkeypatch.chdir(tmp_path)
    for source in (film.parent / "missing.mp4", film.parent, "noise.mp4", b"", "http://localhost/film.mp4"):
        with pytest.raises(MediaError) as plain:
            read_clip(source)
        with pytest.raises(MediaError) as isolated:
            read_clip(source, limits=ISOLATED)
        assert plain.value.args == isolated.value.args
    with pytest.raises(ValueError, match="start must be"):
        read_clips(film, lambda length: [-length], limits=ISOLATED)

    def broken(length: float) -> list[float]:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        read_clips(film, broken, limits=ISOLATED)
    assert len(read_clip(film, limits=ISOLATED).frames) == 20


@pytest.mark.parametrize(
    ("name", "limits", "message"),
    [
        ("crash", {}, r"crash\.mp4: the decoder crashed \(SIGSEGV\)\. Leave it out"),
        ("hang", {"wall_seconds": 0.3}, r"hang\.mp4: not decoded within 0\.3 s\. Leave it out"),
        ("eat", {}, r"eat\.mp4: decoding takes more than \d+ bytes of memory\. .* MediaLimits\.max_memory"),
        ("lie", {}, r"lie\.mp4: the decoder crashed"),
        ("nonsense", {}, r"nonsense\.mp4: the decoder crashed"),
        ("write", {}, r"write\.mp4: the decoder crashed \(exit code 1\)"),
    ],
)
@pytest.mark.usefixtures("hostile")
def test_a_decoder_that_misbehaves_costs_one_file(
    name: str,
    limits: dict[str, Any],
    message: str,
    film: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(media_isolation, "_GRACE", 0.3)
    good = read_clip(film)
    assert same(read_clip(film, limits=ISOLATED), good)
    with pytest.raises(MediaError, match=message):
        read_clip(copy(film, tmp_path / f"{name}.mp4"), limits=replace(ISOLATED, **limits))
    assert not any(path.stat().st_size for path in tmp_path.glob("*.new"))
    assert same(read_clip(film, limits=ISOLATED), good)


@pytest.mark.parametrize(
    "answer",
    [
        '{"length": "x"}',
        '{"length": null}',
        '{"length": NaN}',
        '{"length": -1}',
        '{"error": 1}',
        '{"error": "MediaError"}',
        '{"error": "MediaError", "arguments": null}',
        '{"error": "MediaError", "arguments": [1]}',
        '{"error": "MediaError", "arguments": ["a", "b", "c", "d"]}',
        '{"error": "SystemExit", "arguments": ["0"]}',
        '{"seconds": 3}',
        "{}",
    ],
)
@pytest.mark.usefixtures("hostile")
def test_answers_that_are_none_cost_one_file(answer: str, film: Path, tmp_path: Path) -> None:
    name = tmp_path / f"answer.{answer.encode().hex()}.mp4"
    with pytest.raises(MediaError, match=r"\.mp4: the decoder crashed \(SIGKILL\)"):
        read_clips(copy(film, name), lambda length: [0.0], limits=ISOLATED)
    assert len(read_clip(film, limits=ISOLATED).frames) == 20


def test_a_process_that_died_while_it_waited_costs_no_file(film: Path, pool: Any) -> None:
    for _ in range(2):
        read_clip(film, limits=ISOLATED)
        (decoder,) = pool._idle
        decoder.process.send_signal(signal.SIGKILL)
        os.waitid(os.P_PID, decoder.process.pid, os.WEXITED | os.WNOWAIT)
    assert len(read_clip(film, limits=ISOLATED).frames) == 20
    assert len(pool._idle) == 1


def test_a_process_stopped_just_after_its_answer_serves_no_other_file(
    film: Path, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    unpack = media_isolation._result

    def late(function: str, answer: dict[str, Any], decoder: Any) -> Any:
        result = unpack(function, answer, decoder)
        decoder._stop()
        return result

    with monkeypatch.context() as patch:
        patch.setattr(media_isolation, "_result", late)
        assert len(read_clip(film, limits=ISOLATED).frames) == 20
    assert not pool._idle
    assert len(read_clip(film, limits=ISOLATED).frames) == 20


def test_a_caller_that_fails_leaves_no_half_asked_process(film: Path, pool: Any) -> None:
    def broken(length: float) -> list[float]:
        raise MediaError("the list of windows", "gone", "Make it again.")

    with pytest.raises(MediaError, match="list of windows"):
        read_clips(film, broken, limits=ISOLATED)
    assert not pool._idle


@pytest.mark.usefixtures("hostile")
def test_what_libraries_print_does_not_get_among_the_answers(film: Path, tmp_path: Path) -> None:
    assert len(read_clip(copy(film, tmp_path / "print.mp4"), limits=ISOLATED).frames) == 20


@pytest.mark.usefixtures("pool")
def test_a_process_that_cannot_start_is_no_fault_of_a_file(
    film: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture
) -> None:
    monkeypatch.setattr(media_isolation, "_BOOTSTRAP", "raise SystemExit('no such luck')")
    with pytest.raises(RuntimeError, match=r"process for decoding does not start .*exit code 1"):
        read_clip(film, limits=ISOLATED)
    assert "no such luck" in capfd.readouterr().err


def test_processes_are_used_again_and_replaced(
    film: Path, pool: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(media_isolation, "_CALLS", 3)
    seen = []
    for _ in range(5):
        read_clip(film, limits=ISOLATED)
        seen += [decoder.process.pid for decoder in pool._idle]
    assert len(seen) == 4 and seen[0] == seen[1] != seen[2] == seen[3]


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="no /proc on this system")
def test_the_process_knows_no_secrets(film: Path, pool: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    read_clip(film, limits=ISOLATED)
    (decoder,) = pool._idle
    environment = Path(f"/proc/{decoder.process.pid}/environ").read_bytes()
    assert b"PATH=" in environment and b"hf_secret" not in environment


def test_threads_have_processes_of_their_own(film: Path, pool: Any) -> None:
    expected = read_clip(film)
    with ThreadPoolExecutor(3) as threads:
        found = threads.map(lambda _: read_clip(film, limits=ISOLATED), range(15))
    assert all(same(clip, expected) for clip in found)
    assert 1 <= len(pool._idle) <= 3


# processors/media alone, as the process itself loads it: what forks has not used torch.
ALONE = """
import importlib, os, sys, types
package = types.ModuleType("room")
package.__path__ = [sys.argv[1]]
sys.modules["room"] = package
media, isolation = (importlib.import_module("room." + name) for name in ("reading", "isolation"))
limits = media.MediaLimits(isolated=True)
def read():
    clip = media.read_clip(sys.argv[2], limits=limits)
    assert clip.frames.shape[0] == 20
    return isolation._decoders._idle[0].process.pid
first = read()
"""


def alone(script: str, film: Path) -> str:
    folder = Path(media_isolation.__file__).parent
    command = [sys.executable, "-c", ALONE + textwrap.dedent(script), str(folder), str(film)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork on this system")
def test_forks_do_not_share_a_process(film: Path) -> None:
    script = """
        child = os.fork()
        if not child:
            os._exit(0 if read() != first else 1)
        assert os.waitpid(child, 0)[1] == 0
        assert read() == first
        print("as it should be")
    """
    assert "as it should be" in alone(script, film)


@pytest.mark.skipif(not hasattr(os, "killpg"), reason="no process groups on this system")
def test_signals_to_all_processes_of_a_run_are_its_callers_affair(film: Path) -> None:
    """By a terminal to the group, and by a scheduler to each process."""
    script = """
        import signal
        numbers = [signal.SIGINT, signal.SIGTERM, signal.SIGUSR1]
        got = []
        for number in numbers:
            signal.signal(number, lambda number, frame: got.append(number))
        def starts(length):  # the process waits for them, in the middle of a file
            for number in numbers:
                os.killpg(os.getpgid(0), number)
                os.kill(isolation._decoders.busy, number)
            return [0.0]
        take = isolation._decoders._take
        def noted(max_memory):
            found = take(max_memory)
            isolation._decoders.busy = found.process.pid
            return found
        isolation._decoders._take = noted
        os.setpgid(0, 0)
        (clip,) = media.read_clips(sys.argv[2], starts, limits=limits)
        assert clip.frames.shape[0] == 20
        assert read() == first
        assert sorted(got) == sorted(numbers), got
        print("as it should be")
    """
    assert "as it should be" in alone(script, film)


@pytest.mark.skipif(not Path("/proc/self/stat").exists(), reason="no /proc on this system")
def test_the_process_does_not_outlive_a_caller_that_dies(film: Path) -> None:
    process = int(alone("print(first, flush=True); os._exit(0)", film))
    for _ in range(100):
        try:
            state = Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return
        if state == "Z":  # nobody waits for it here
            return
        time.sleep(0.05)
    raise AssertionError("it is still there")


def test_workers_of_a_data_loader(tmp_path: Path) -> None:
    """They are daemons, which may have no children of multiprocessing."""
    root = make_folder(tmp_path / "clips", 4)
    (root / "train" / "clip01.mp4").write_bytes(b"no film")
    table = load_clips(root, "train")
    plain = ClipDataset(table, small_processor())
    isolated = ClipDataset(table, small_processor(), limits=ISOLATED)
    loader = DataLoader(
        isolated, batch_size=4, num_workers=1, collate_fn=collate_clips, multiprocessing_context=FORKS
    )
    (batch,) = loader
    expected = collate_clips([plain[index] for index in range(4)])
    assert batch.skipped == expected.skipped and len(batch.skipped) == 1
    for name, value in expected.inputs.items():
        np.testing.assert_array_equal(batch.inputs[name].numpy(), value.numpy())


@pytest.mark.usefixtures("hostile")
def test_a_crash_is_a_skipped_clip_and_a_failure_of_a_shard(tmp_path: Path) -> None:
    root = make_folder(tmp_path / "clips", 3)
    (root / "train" / "clip01.mp4").rename(root / "train" / "crash.mp4")
    metadata = root / "train" / "metadata.jsonl"
    metadata.write_text(metadata.read_text().replace("clip01.mp4", "crash.mp4"))
    items = ClipDataset(load_clips(root, "train"), small_processor(), limits=ISOLATED)
    skipped = [item for item in map(items.__getitem__, range(3)) if isinstance(item, SkippedClip)]
    assert [Path(clip.name).name for clip in skipped] == ["crash.mp4"]
    clips = folder_clips(root, "train")
    shards, failures = prepare_shards(clips, tmp_path / "shards", limits=ISOLATED)
    assert len(shards) == 2
    assert [failure["reason"] for failure in failures] == ["the decoder crashed (SIGSEGV)"]
    # What a file may cost is no part of what the shards are: the same command finds them finished.
    again, _ = prepare_shards(clips, tmp_path / "shards")
    assert again.fingerprint == shards.fingerprint


@given(st.binary(max_size=64))
@settings(max_examples=200, deadline=None, derandomize=True)
def test_headers_of_any_bytes(content: bytes) -> None:
    for pipe in (content, len(content).to_bytes(4, "big") + content):
        with contextlib.suppress(EOFError):
            assert isinstance(media_isolation._receive(io.BytesIO(pipe)), dict)
