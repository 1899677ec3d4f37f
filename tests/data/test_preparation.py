# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Preparation of shards under faults: two writers, dead writers, storage that drops, text that is missing."""

import builtins
import errno
import io
import json
import multiprocessing
import os
import signal
import time
from pathlib import Path
from typing import Any

import pytest
from clip_folders import write_clip

from modeling_vatt.data import (
    RawClip,
    ShardError,
    ShardSettings,
    audioset_clips,
    howto100m_clips,
    prepare_shards,
    run_tasks,
)
from modeling_vatt.files import FolderBusy


COUNT = 4
ONE_EACH = 1  # bytes of a shard, so that each clip gets its own


@pytest.fixture(scope="module")
def videos(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("raw") / "videos"
    folder.mkdir()
    for number in range(COUNT):
        write_clip(folder / f"{number}.mp4", number)
    return folder


def clips_of(folder: Path) -> list[RawClip]:
    return [RawClip(str(folder / f"{n}.mp4"), f"{n}.mp4", captions=[f"clip {n}"]) for n in range(COUNT)]


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if not path.name.startswith(".")}


# --- one writer ---


def test_a_second_writer_is_refused_by_name_and_nothing_is_lost(videos, tmp_path):
    clips = clips_of(videos)

    def run(function: Any, tasks: Any) -> Any:
        for number, task in enumerate(tasks):
            if number == 2:
                with pytest.raises(FolderBusy, match=f"process {os.getpid()} on .* has been writing here"):
                    prepare_shards(clips, tmp_path / "out", shard_bytes=ONE_EACH)
            yield function(task)

    dataset, failures = prepare_shards(clips, tmp_path / "out", shard_bytes=ONE_EACH, run=run)
    assert len(dataset) == COUNT and not failures
    assert not list((tmp_path / "out").glob("*.partial"))
    # One that waited until then finds it complete.
    assert prepare_shards(clips, tmp_path / "out", shard_bytes=ONE_EACH, run=None)[0].fingerprint  # type: ignore


def hang(task: Any) -> Any:
    Path(task.path).with_name("begun").touch()
    Path(f"{task.path}.0123456789ab.partial").write_bytes(b"half a shard")
    time.sleep(600)


def prepare_and_hang(videos: Path, out: Path) -> None:
    clips = clips_of(videos)
    prepare_shards(clips, out, run=lambda _, tasks: run_tasks(hang, tasks, 2))


def test_a_killed_writer_leaves_neither_a_lock_nor_workers(videos, tmp_path):
    out = tmp_path / "out"
    process = multiprocessing.get_context("fork").Process(target=prepare_and_hang, args=(videos, out))
    process.start()
    try:
        deadline = time.monotonic() + 60
        while not (out / "begun").exists():
            assert process.is_alive() and time.monotonic() < deadline
            time.sleep(0.02)
    finally:
        os.kill(process.pid, signal.SIGKILL)  # type: ignore[arg-type]
        process.join()
    (out / "begun").unlink()
    (out / "film.mkv.partial").touch()  # of another program
    dataset, _ = prepare_shards(clips_of(videos), out)  # the lock is free only when the workers have ended
    assert len(dataset) == COUNT and [path.name for path in out.glob("*.partial")] == ["film.mkv.partial"]


@pytest.mark.parametrize(
    "damage",
    [
        lambda out: (out / "shards.json").unlink(),
        lambda out: (out / "shards.json").write_text("{"),
        lambda out: (out / "index.arrow").write_bytes(b"of another writer"),
        lambda out: (out / "failures.json").unlink(),
        lambda out: (out / "shard-000001.tar").write_bytes((out / "shard-000001.tar").read_bytes()[:700]),
        lambda out: (out / "shard-000002.tar").unlink(),
    ],
)
def test_the_same_call_mends_what_is_damaged(videos, tmp_path, damage):
    clips = [*clips_of(videos), RawClip(None, "gone")]
    _, failures = prepare_shards(clips, tmp_path / "out", shard_bytes=ONE_EACH)
    before = contents(tmp_path / "out")
    damage(tmp_path / "out")
    dataset, again = prepare_shards(clips, tmp_path / "out", shard_bytes=ONE_EACH)
    assert len(dataset) == COUNT and again == failures == [{"name": "gone", "reason": "no such file"}]
    assert contents(tmp_path / "out") == before


@pytest.mark.parametrize("reencode", [False, True])
def test_files_that_were_replaced_are_put_in_anew(videos, tmp_path, reencode):
    """Also one that was missing, and in a run that was not finished; what is gone stays."""
    source = tmp_path / "videos"
    source.mkdir()
    for path in videos.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    (source / "3.mp4").unlink()
    settings = ShardSettings(reencode, size=16, sampling_rate=8000)
    options: Any = {"settings": settings, "shard_bytes": ONE_EACH}
    clips, out = clips_of(source), tmp_path / "out"
    before, failures = prepare_shards(clips, out, **options)
    assert len(before) == COUNT - 1 and len(failures) == 1
    third = before[2]["video"]["bytes"]
    written = {path.name: path.stat().st_mtime_ns for path in out.glob("*.tar")}
    assert prepare_shards(clips, out, run=None, **options)[0].fingerprint == before.fingerprint  # type: ignore
    (source / "0.mp4").rename(tmp_path / "0.mp4")
    assert prepare_shards(clips, out, run=None, **options)[0].fingerprint == before.fingerprint  # type: ignore
    (tmp_path / "0.mp4").rename(source / "0.mp4")
    (source / "1.mp4").write_bytes((videos / "2.mp4").read_bytes())
    (source / "3.mp4").write_bytes((videos / "3.mp4").read_bytes())

    def stopped(function: Any, tasks: Any) -> Any:
        yield function(tasks[0])
        raise RuntimeError("stopped")

    with pytest.raises(RuntimeError, match="stopped"):
        prepare_shards(clips, out, run=stopped, **options)
    (source / "2.mp4").write_bytes((videos / "0.mp4").read_bytes())
    again, failures = prepare_shards(clips, out, **options)
    fresh, _ = prepare_shards(clips, tmp_path / "fresh", **options)
    assert not failures and again.fingerprint == fresh.fingerprint != before.fingerprint
    assert again[1]["video"]["bytes"] == third
    assert [path.name for path in out.glob("*.tar") if path.stat().st_mtime_ns == written[path.name]] == [
        "shard-000000.tar"
    ]


# --- storage ---


class Dropping(io.FileIO):
    """A file whose storage fails after its first kilobyte."""

    def read(self, size: int = -1) -> bytes:
        if self.tell() >= 1024 or size < 0:
            raise OSError(errno.EIO, "Input/output error")
        return super().read(min(size, 1024))


@pytest.mark.parametrize("reencode", [False, True])
@pytest.mark.parametrize("fault", ["reading", "opening", "gone"])
def test_storage_that_drops_ends_the_preparation_which_then_goes_on(
    videos, tmp_path, monkeypatch, fault, reencode
):
    source = tmp_path / "videos"
    source.mkdir()
    for path in videos.iterdir():
        (source / path.name).write_bytes(path.read_bytes())
    clips, settings = clips_of(source), ShardSettings(reencode, size=16, sampling_rate=8000)
    options: Any = {"settings": settings, "shard_bytes": ONE_EACH}
    honest = builtins.open

    def failing(path: Any, *args: Any, **kwargs: Any) -> Any:
        if Path(str(path)).parent != source:
            return honest(path, *args, **kwargs)
        if fault == "opening":
            raise OSError(errno.ESTALE, "Stale file handle")
        return Dropping(str(path))

    def run(function: Any, tasks: Any) -> Any:
        for number, task in enumerate(tasks):
            if number == 2 and fault == "gone":
                source.rename(tmp_path / "away")
            elif number == 2:
                monkeypatch.setattr(builtins, "open", failing)
            yield function(task)

    with pytest.raises(ShardError, match=r"2\.mp4: cannot be read .*run the same command again"):
        prepare_shards(clips, tmp_path / "out", run=run, **options)
    monkeypatch.setattr(builtins, "open", honest)
    if fault == "gone":
        with pytest.raises(ShardError, match="cannot be read"):
            prepare_shards(clips, tmp_path / "out", **options)  # still away
        with pytest.raises(ShardError, match="cannot be read"):
            prepare_shards(clips, tmp_path / "new", **options)  # nothing is planned without the files
        (tmp_path / "away").rename(source)
    dataset, failures = prepare_shards(clips, tmp_path / "out", **options)
    whole, _ = prepare_shards(clips, tmp_path / "new", **options)
    assert failures == [] and dataset.fingerprint == whole.fingerprint and len(dataset) == COUNT


def test_bad_files_are_still_only_bad_files(videos, tmp_path):
    (tmp_path / "bad.mp4").write_bytes(b"no video")
    (tmp_path / "broken.mp4").symlink_to("nothing.mp4")
    (tmp_path / "folder.mp4").mkdir()
    os.mkfifo(tmp_path / "pipe.mp4")
    names = ["bad.mp4", "broken.mp4", "folder.mp4"]
    clips = [*clips_of(videos), *(RawClip(str(tmp_path / name), name) for name in names)]
    dataset, failures = prepare_shards(clips, tmp_path / "out")
    assert len(dataset) == COUNT and [failure["name"] for failure in failures] == names
    assert failures[1]["reason"] == "no such file"


# --- text ---

TIMES = {"start": [0, None, 0.2, 0.4, "x", 0.5, 3], "end": [1, 1, float("nan"), 1, 1, 1, 2]}
TEXTS = ["spoken", "no start", "no end", None, "no number", " ", "backwards"]
LEFT_OUT = [
    {"name": "0, sentence 2, 3, 5", "reason": "no time"},
    {"name": "0, sentence 4, 6", "reason": "no text"},
    {"name": "0, sentence 7", "reason": "ends before it begins"},
]


@pytest.mark.parametrize("form", ["json", "csv"])
def test_sentences_without_time_or_text_are_left_out_and_listed(videos, tmp_path, form):
    if form == "json":
        annotations = tmp_path / "captions.json"
        texts = [float("nan") if text == " " else text for text in TEXTS]
        annotations.write_text("\ufeff" + json.dumps({"0": {**TIMES, "text": texts}}))
    else:
        annotations = tmp_path / "captions"
        annotations.mkdir()
        rows = zip(TIMES["start"], TIMES["end"], TEXTS, strict=True)
        lines = [",".join("" if value is None else str(value) for value in row) for row in rows]
        (annotations / "0.csv").write_text("\n".join(["\ufeffstart,end,text", *lines]) + "\n")
    dataset, failures = prepare_shards(howto100m_clips(videos, annotations), tmp_path / "out")
    assert sorted(failures, key=str) == sorted(LEFT_OUT, key=str)
    assert dataset[0]["sentences"] == [{"start": 0.0, "end": 1.0, "text": "spoken"}]
    assert json.loads((tmp_path / "out" / "failures.json").read_text()) == failures
    assert prepare_shards(howto100m_clips(videos, annotations), tmp_path / "out")[1] == failures


def test_text_of_clips_made_in_python(videos, tmp_path):
    sentences = [
        {"start": float("nan"), "end": 1.0, "text": "x"},
        {"start": 0.0, "end": 0.5, "text": "half \ud83d"},
    ]
    clip = RawClip(
        str(videos / "0.mp4"),
        "\udce9.mp4",
        captions=["", "a", None],
        sentences=sentences,  # type: ignore
    )
    dataset, failures = prepare_shards([clip], tmp_path / "out")
    assert dataset[0]["captions"] == ["a"] and dataset[0]["source"] == "?.mp4"
    assert [sentence["text"] for sentence in dataset[0]["sentences"]] == ["half ?"]
    assert [failure["reason"] for failure in failures] == ["no time"]
    with pytest.raises(ValueError, match=r"x: .* is no text"):
        prepare_shards([RawClip(None, "x", captions=[{}])], tmp_path / "odd")  # type: ignore[list-item]
    assert not (tmp_path / "odd").exists()


def test_lists_in_csv(videos, tmp_path):
    (tmp_path / "0.csv").write_text('start,end,text\n0,1,"two\nlines \u2028 and more"\n', encoding="utf-8")
    (clip,) = howto100m_clips(videos, tmp_path)
    assert clip.sentences[0]["text"] == "two lines and more"
    (tmp_path / "0.csv").write_text("begin,end,text\n0,1,x\n")
    with pytest.raises(ValueError, match=r"0\.csv: no columns start, end, text"):
        howto100m_clips(videos, tmp_path)
    (tmp_path / "0.csv").write_bytes("start,end,text\n0,1,caf\xe9\n".encode("latin-1"))
    with pytest.raises(ValueError, match=r"0\.csv: not UTF-8"):
        howto100m_clips(videos, tmp_path)
    (tmp_path / "segments.csv").write_text('\ufeff# a comment\n0, 0.0, 1.0, "/m/1"\n')
    assert [clip.end for clip in audioset_clips(videos, tmp_path / "segments.csv")] == [1.0]
