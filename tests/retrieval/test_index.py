# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The index of moments: windows, merging, keeping up with a folder, sudden ends, approximate search."""

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import processes
import pytest
from clip_folders import save_model, small_processor, write_clip
from filelock import FileLock
from indexes import IDENTITY, add, assert_same, clustered, content, synthetic
from media_factory import truncate

from modeling_vatt import VattForPreTraining
from modeling_vatt.embedding import embedding
from modeling_vatt.processors import DEFAULT_LIMITS, MediaError
from modeling_vatt.retrieval import (
    FileRecord,
    Gallery,
    IndexBusy,
    IndexDamaged,
    IndexMismatch,
    Moment,
    VattIndex,
    VideoSearch,
    approximate,
    embed_query,
    embed_windows,
    merge_windows,
    store,
    strided_starts,
    thumbnail,
    timecode,
    unfinished,
    unit,
    writer_lock,
)
from modeling_vatt.retrieval import index as index_module
from modeling_vatt.retrieval import moments as moments_module
from modeling_vatt.retrieval import updating as indexing
from modeling_vatt.retrieval.locking import LOCK
from modeling_vatt.retrieval.store import DATABASE


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory) -> Path:
    return save_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def clips(tmp_path_factory) -> Path:
    """Six videos of 0.5 to 5.5 s, half of them in a subfolder, and one that is none."""
    root = tmp_path_factory.mktemp("clips")
    (root / "sub").mkdir()
    for number in range(6):
        write_clip(root / ("sub" if number % 2 else "") / f"clip{number}.mp4", number, 0.5 + number)
    (root / "broken.mp4").write_bytes(b"not a video" * 10)
    (root / "notes.txt").write_text("no video")
    return root


@pytest.fixture
def videos(clips, tmp_path) -> Path:
    return Path(shutil.copytree(clips, tmp_path / "videos"))


# --- windows and moments ---


def assert_as_fresh(index: VattIndex, videos: Path, model: Path, folder: Path, **options: Any) -> None:
    """The index holds what one made anew of the same videos, in `folder`, does."""
    fresh = VideoSearch.create(videos, model, folder, **options)
    fresh.update()
    assert_same(index, fresh.index)


@pytest.mark.parametrize(
    ("duration", "stride", "expected"),
    [
        (0.5, 1.0, [0.0]),  # shorter than a window
        (2.0, 2.0, [0.0]),
        (2.0005, 2.0, [0.0005]),  # a rest of less than a frame makes no window of its own
        (5.0, 2.0, [0.0, 2.0, 3.0]),  # the last one ends with the file
        (4.0, 1.0, [0.0, 1.0, 2.0]),
        (4.0, 5.0, [0.0, 2.0]),
    ],
)
def test_windows_cover_a_file(duration, stride, expected):
    assert strided_starts(duration, 2.0, stride) == pytest.approx(expected)


def window(path: str, start: float, score: float, length: float = 2.0) -> Moment:
    return Moment(path, start, start + length, score, 100.0)


def test_neighbours_of_equal_worth_become_one_moment():
    windows = [
        window("a", 0, 0.50),
        window("a", 2, 0.80),  # the best
        window("a", 4, 0.78),
        window("a", 6, 0.77),
        window("a", 8, 0.60),  # too far below
        window("a", 12, 0.79),  # not a neighbour
        window("b", 3, 0.79),
    ]
    found = merge_windows(reversed(windows), top_k=10, margin=0.05)
    assert [(m.path, m.start, m.end, m.score) for m in found] == [
        ("a", 2, 8, 0.80),
        ("a", 12, 14, 0.79),
        ("b", 3, 5, 0.79),
        ("a", 8, 10, 0.60),
        ("a", 0, 2, 0.50),
    ]
    assert merge_windows(windows, top_k=2) == found[:2]


def test_a_window_that_lies_mostly_in_a_moment_is_part_of_it():
    windows = [window("a", 0, 0.9), window("a", 0.5, 0.6), window("a", 1.5, 0.5)]
    assert [(m.start, m.end) for m in merge_windows(windows, 5, margin=0.05)] == [(0, 2), (1.5, 3.5)]


def test_moments_of_a_very_long_file_take_no_time(monkeypatch):
    looks = []
    original = moments_module._mostly_in
    monkeypatch.setattr(moments_module, "_mostly_in", lambda *pair: looks.append(1) or original(*pair))
    scores = np.random.default_rng(0).standard_normal(3000) / 10
    windows = [Moment("a.mp4", i, i + 2.0, float(score), 3001.0) for i, score in enumerate(scores)]
    found = merge_windows(windows, 3000)
    assert len(found) > 1000 and len(looks) < 10 * len(windows)
    assert not any(original(window, moment) for moment in found[:20] for window in found if window != moment)


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00.0"), (83.25, "1:23.2"), (3723.96, "1:02:03.9")])
def test_time_codes(seconds, text):
    assert timecode(seconds) == text


# --- store and search ---


def test_an_index_that_is_replaced_while_it_is_open(tmp_path):
    index = synthetic(tmp_path / "i", 3)
    shutil.rmtree(tmp_path / "i")
    for work in (lambda: add(index, 4), lambda: index.search(np.ones(12), "va"), lambda: len(index)):
        with pytest.raises(IndexDamaged, match="removed or replaced since it was opened"):
            work()
    other = synthetic(tmp_path / "i", 3)
    with pytest.raises(IndexDamaged, match="removed or replaced"):
        index.search(np.ones(12), "va")
    assert len(other) == 15


def test_a_disk_that_is_full_while_files_are_added(tmp_path):
    """A sentence; what was there stays, and the index can be written to again."""
    index = synthetic(tmp_path / "i", 3)
    pages = index.store.connection.execute("PRAGMA page_count").fetchone()[0]
    index.store.connection.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(OSError, match=r"the disk is full.*kept"):
        add(index, 3, windows=2000)
    assert len(index.files()) == 3 and len(index) == 15
    index.store.connection.execute("PRAGMA max_page_count = 100000")
    add(index, 3)
    assert len(index) == 20


def test_readers_see_files_wholly_while_another_connection_writes(tmp_path):
    index = synthetic(tmp_path / "i", 3, windows=7)
    seen: list[int] = []
    stop = threading.Event()

    def read() -> None:
        reader = VattIndex.open(tmp_path / "i")
        while not stop.is_set():
            found = reader.search(np.ones(12), "va", top_k=1000, merge=False)
            counts = {m.path: sum(other.path == m.path for other in found) for m in found}
            seen.append(len(counts))
            assert set(counts.values()) == {7}, counts
        reader.close()

    with ThreadPoolExecutor() as pool:
        reading = pool.submit(read)
        for number in range(3, 40):
            add(index, number, 7)
            index.remove([f"d00/f{number - 3:04d}.mp4"])
        while len(seen) < 5 and not reading.done():
            pass
        stop.set()
        reading.result()
    assert seen


@pytest.mark.parametrize("limit", [100_000, 10])
def test_a_search_that_began_before_files_were_replaced_misses_none(tmp_path, monkeypatch, limit):
    """Threads share an index; one of them still sees the state before another process wrote."""
    monkeypatch.setattr(index_module, "EXACT_LIMIT", limit)  # 10: the windows after the built ones are cached
    index = synthetic(tmp_path / "i", 40, windows=1)
    query = index.vectors("va")[1][3]

    def found() -> dict[str, float]:
        moments = index.search(query, "va", 50, merge=False)
        return {moment.path: round(moment.score, 3) for moment in moments}

    if limit == 10 and approximate.is_available():
        index.build()
        add(index, 3, 1)
    expected = found()
    assert len(expected) == 40 and expected["d00/f0003.mp4"] == 1
    began, go, early = threading.Event(), threading.Event(), []

    def search_early() -> None:
        with index.store.reading() as connection:
            connection.execute("SELECT count(*) FROM files").fetchone()  # what it sees is decided here
            began.set()
            go.wait()
            early.append(found())

    thread = threading.Thread(target=search_early)
    thread.start()
    began.wait()
    writer = VattIndex.open(tmp_path / "i")
    for number in (3, 0, 7):
        add(writer, number, 1)
    writer.remove(["d00/f0005.mp4"])
    late = found()
    go.set()
    thread.join()
    assert early == [expected]
    assert late == found() == {path: score for path, score in expected.items() if path != "d00/f0005.mp4"}


def test_what_is_no_index_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError, match="vatt index"):
        VattIndex.open(tmp_path)
    (tmp_path / DATABASE).write_bytes(b"x" * 5000)
    with pytest.raises(IndexDamaged, match="index again"):
        VattIndex.open(tmp_path)
    (tmp_path / DATABASE).unlink()
    connection = sqlite3.connect(tmp_path / DATABASE)
    connection.execute("CREATE TABLE other (x)")
    connection.close()
    with pytest.raises(IndexDamaged, match="not the database"):
        VattIndex.open(tmp_path)
    (tmp_path / DATABASE).unlink()
    index = synthetic(tmp_path / "i", 1)
    with pytest.raises(FileExistsError):
        synthetic(tmp_path / "i", 1)
    refused = (
        ("UPDATE meta SET value = '99' WHERE key = 'format'", IndexMismatch),
        ("UPDATE meta SET value = '{}' WHERE key = 'settings'", IndexDamaged),
        ("DELETE FROM meta WHERE key = 'generation'", IndexDamaged),
        ("CREATE TRIGGER t AFTER DELETE ON files BEGIN SELECT 1; END", IndexDamaged),
    )
    for number, (statement, error) in enumerate(refused):
        copy = tmp_path / f"copy{number}"
        index.close()
        shutil.copytree(tmp_path / "i", copy)
        connection = sqlite3.connect(copy / DATABASE)
        connection.execute(statement)
        connection.commit()
        connection.close()
        with pytest.raises(error):
            VattIndex.open(copy).search(np.ones(12), "va")


@pytest.mark.parametrize("mode", ["delete", "wal", "wal, killed", "killed", "newer", "newer tables", "empty"])
def test_what_is_refused_stays_as_it_is(tmp_path, monkeypatch, mode):
    """Bytes and names in the folder, with the log of a process that was killed too."""
    (place := tmp_path / "other").mkdir()
    connection = sqlite3.connect(tmp_path / DATABASE, isolation_level=None)
    error: type[ValueError] = IndexDamaged
    if mode.startswith("newer"):
        error = IndexMismatch
        synthetic(tmp_path / "i", 1).close()
        shutil.copy(tmp_path / "i" / DATABASE, tmp_path)
        connection.executescript(
            "PRAGMA journal_mode=DELETE; UPDATE meta SET value = '2' WHERE key = 'format'"
        )
        connection.execute("CREATE TABLE frames (x)" if mode == "newer tables" else "SELECT 1")
    elif mode != "empty":
        if mode.startswith("wal"):
            connection.execute("PRAGMA journal_mode=WAL")
        connection.executescript("CREATE TABLE meta (key, value); INSERT INTO meta VALUES ('version', '1')")
        if mode == "wal":
            connection.close()
        elif mode == "killed":
            connection.executescript("PRAGMA cache_size=1; BEGIN; CREATE TABLE t (x)")
            connection.execute(
                "INSERT INTO t SELECT randomblob(9000) FROM json_each('[1, 2, 3, 4, 5, 6, 7]')"
            )
    for path in tmp_path.glob(f"{DATABASE}*"):  # as a process that is killed now leaves them
        shutil.copy(path, place)
    connection.close()
    assert (place / f"{DATABASE}-{'wal' if 'wal' in mode else 'journal'}").exists() == ("killed" in mode)
    before = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.iterdir()}
    for writable in (True, False):
        monkeypatch.setattr(store.os, "access", lambda path, mode, writable=writable: writable)
        with pytest.raises(error):
            VattIndex.open(place)
        after = {path.name: (path.read_bytes(), path.stat().st_mtime_ns) for path in place.iterdir()}
        assert after == before


def test_a_reader_that_may_not_write_sees_what_is_there(tmp_path, monkeypatch):
    """Also what the owner, who has the index open, has not yet moved into the database itself."""
    index = synthetic(tmp_path / "i", 1)
    assert (tmp_path / "i" / f"{DATABASE}-wal").stat().st_size > 0
    with monkeypatch.context() as patch:
        patch.setattr(store.os, "access", lambda path, mode: False)
        with VattIndex.open(tmp_path / "i") as reader:
            assert len(reader) == 5
            add(index, 1)
            assert len(reader) == 10
            with pytest.raises(PermissionError, match="readonly"):
                reader.remove(["d00/f0001.mp4"])


def test_a_user_who_may_not_write(tmp_path):
    """Really another user, where there is one to become."""
    if os.getuid() != 0:
        pytest.skip("only root can become another user")
    place = Path(tempfile.mkdtemp(prefix="vatt-owner-"))  # pytest's own folders are for their user only
    try:
        place.chmod(0o755)
        index = synthetic(place / "open", 2)
        synthetic(place / "closed", 2).close()  # nothing beside the database
        synthetic(place / "log", 2).close()
        (place / "log" / f"{DATABASE}-wal").write_bytes(b"x" * 100)
        seen = processes.run("-c", ANOTHER_USER, *(place / name for name in ("open", "closed", "log")))
        assert seen.stdout.split() == ["10", "10", "PermissionError"], seen.stderr
        index.close()
        # One that stays open sees what the owner adds, while he does it and afterwards.
        reader = [sys.executable, "-c", ANOTHER_USER + FOLLOWING, place / "closed"]
        pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
        with subprocess.Popen(reader, **pipes) as process:

            def told() -> str:
                process.stdin.write("\n")
                process.stdin.flush()
                return process.stdout.readline().strip()

            assert process.stdout.readline() == "10\n" and told() == "10"
            with VattIndex.open(place / "closed") as owner:
                add(owner, 2)
                assert told() == "15"
                add(owner, 3)
                assert told() == "20"
            assert told() == "20"
            with VattIndex.open(place / "closed") as owner:
                owner.remove(["d00/f0000.mp4"])
            assert told() == "15"
            process.stdin.close()
    finally:
        shutil.rmtree(place)


ANOTHER_USER = """
import os, sys
from modeling_vatt.retrieval import VattIndex
os.setgid(65534)
os.setuid(65534)
for folder in sys.argv[1:]:
    try:
        print(len(VattIndex.open(folder)), flush=True)
    except PermissionError as error:
        assert "owner" in str(error), error
        print("PermissionError")
"""


FOLLOWING = """
index = VattIndex.open(folder)
for _ in sys.stdin:
    print(len(index), flush=True)
"""


def test_two_that_make_an_index_at_once(tmp_path, monkeypatch):
    """The slower one is told, and does not take the other's settings for its own."""
    real = os.link

    def late(source, target):
        monkeypatch.setattr(store.os, "link", real)
        VattIndex.create(tmp_path / "i", None, IDENTITY, 1.0, 0.25).close()
        real(source, target)

    monkeypatch.setattr(store.os, "link", late)
    with pytest.raises(FileExistsError, match="already"):
        VattIndex.create(tmp_path / "i", None, IDENTITY, 1.0, 0.5)
    assert VattIndex.open(tmp_path / "i").stride == 0.25
    assert [path.name for path in (tmp_path / "i").iterdir() if path.suffix == ".partial"] == []


def test_paths_of_a_stranger_do_not_leave_the_folder(tmp_path):
    index = synthetic(tmp_path / "i", 1)
    index.store.connection.execute("UPDATE files SET path = '../../etc/passwd'")
    with pytest.raises(IndexDamaged, match="not a path inside"):
        index.search(np.ones(12), "va")
    with pytest.raises(IndexDamaged, match="not a path inside"):
        index.files()


# --- a folder and its index ---


def test_index_of_a_folder(videos, model_folder):
    search = VideoSearch.create(videos, model_folder, stride=0.4)
    report = search.update()
    assert (report.embedded, report.unchanged, report.removed) == (7, 0, 0)
    assert (
        list(report.errors) == ["broken.mp4"] and "not a readable media file" in report.errors["broken.mp4"]
    )
    files = {file["path"]: file for file in search.index.files()}
    assert list(files) == sorted(files) and len(files) == 7
    assert files["broken.mp4"]["windows"] == 0 and files["broken.mp4"]["error"]
    assert files["clip0.mp4"]["windows"] == 1  # shorter than a window
    # 0.8 s windows every 0.4 s of 4.5 s: 0, 0.4, ..., 3.6, and 3.7 at the end.
    assert files["clip4.mp4"]["windows"] == 11
    spans = content(search.index)["clip4.mp4"][0]
    assert spans[0][:2] == pytest.approx((0, 0.8)) and spans[-1][:2] == pytest.approx((3.7, 4.5))
    info = search.index.info()
    assert info["files"] == 6 and info["errors"] == 1 and info["windows"] == len(search.index)
    assert info["seconds"] == pytest.approx(6 * 0.5 + 15, abs=0.3) and info["root"] == str(videos)

    # The same as embedding the windows without an index; words are compared in one space, sound in the other.
    loaded = {Path(str(source)).name: found for source, found in embed_windows(
        search.model, search.processor, [videos / "clip2.mp4"], 0.4)}  # fmt: skip
    _, va, vt = content(search.index)["clip2.mp4"]
    np.testing.assert_allclose(va, unit(loaded["clip2.mp4"].arrays["video_va_embeds"]), atol=1e-5)
    np.testing.assert_allclose(vt, unit(loaded["clip2.mp4"].arrays["video_vt_embeds"]), atol=1e-5)
    for words, files_, rows in (({"text": "clip 3"}, {}, 2), ({}, {"audio": videos / "clip4.mp4"}, 1)):
        query = unit(embed_query(search.model, search.processor, **words, **files_))
        best = max(content(search.index).items(), key=lambda item: float((item[1][rows] @ query).max()))[0]
        found = search.text(words["text"]) if words else search.audio(files_["audio"])
        assert found[0].path == best
    hit = search.video(videos / "sub" / "clip3.mp4", top_k=1)[0]
    assert hit.path == "sub/clip3.mp4" and hit.score > 0.99
    with pytest.raises(ValueError, match="no words"):
        search.text(" ")
    with pytest.raises(MediaError):
        search.audio(videos / "broken.mp4")
    image = thumbnail(videos / hit.path, hit.start, size=10)
    assert max(image.size) == 10
    with pytest.raises(MediaError, match=r"no picture|nothing to decode"):
        thumbnail(videos / hit.path, 100.0)


def test_only_what_changed_is_embedded(videos, model_folder):
    search = VideoSearch.create(videos, model_folder, stride=0.4)
    search.update()
    before = content(search.index)
    report = search.update()
    assert (report.embedded, report.reused, report.unchanged, report.windows) == (0, 0, 7, 0)
    assert list(report.errors) == ["broken.mp4"]  # listed, not tried again

    (videos / "clip0.mp4").rename(videos / "sub" / "zero.mp4")  # renamed,
    write_clip(videos / "clip0.mp4", 15, 1.5)  # and something new by its name
    shutil.copy(videos / "sub" / "clip5.mp4", videos / "five.mp4")  # copied,
    write_clip(videos / "sub" / "clip5.mp4", 17, 3.0)  # and replaced
    shutil.copy(videos / "clip4.mp4", videos / "copy.mp4")  # copied
    os.utime(videos / "sub" / "clip1.mp4", (1, 1))  # touched
    (videos / "clip2.mp4").unlink()  # gone
    write_clip(videos / "sub" / "clip3.mp4", 9, 2.0)  # changed
    write_clip(videos / "broken.mp4", 8, 1.0)  # repaired
    report = search.update(prune=True)
    assert (report.embedded, report.reused, report.unchanged, report.removed) == (4, 4, 1, 1)
    assert report.errors == {}
    after = content(search.index)
    for new, old in (
        ("sub/zero.mp4", "clip0.mp4"),
        ("copy.mp4", "clip4.mp4"),
        ("five.mp4", "sub/clip5.mp4"),
        ("sub/clip1.mp4", "sub/clip1.mp4"),
    ):
        assert after[new][0] == before[old][0] and np.array_equal(after[new][1], before[old][1])
    assert not np.allclose(after["sub/clip3.mp4"][1][0], before["sub/clip3.mp4"][1][0], atol=1e-4)
    assert_as_fresh(search.index, videos, model_folder, videos.parent / "fresh", stride=0.4)
    moved = videos.rename(videos.parent / "moved")
    search = VideoSearch.open(moved)
    assert search.index.root == moved and search.update().unchanged == 9


def test_files_that_are_damaged_or_odd(videos, model_folder):
    write_clip(videos / "whole.mkv", 3, 6.0)
    truncate(videos / "whole.mkv", videos / "half.mkv", 0.5)
    truncate(videos / "clip4.mp4", videos / "half.mp4", 0.5)
    (videos / "empty.mp4").touch()
    (videos / ".hidden.mp4").write_bytes(b"x")
    outside = write_clip(videos.parent / "outside.mp4", 1)
    (videos / "link.mp4").symlink_to(outside)
    for name in (b"/\xff.mp4", b"/\xfe.mp4"):
        Path(os.fsdecode(bytes(videos) + name)).write_bytes(b"x")
    search = VideoSearch.create(videos, model_folder)
    report = search.update()
    assert set(report.errors) == {"broken.mp4", "half.mkv", "half.mp4", "empty.mp4", "\\xff.mp4", "\\xfe.mp4"}
    files = {file["path"]: file for file in search.index.files()}
    assert "link.mp4" not in files and ".hidden.mp4" not in files
    # What can be read of a file is searched, and what cannot is said.
    assert files["half.mkv"]["windows"] > 0 and " of " in files["half.mkv"]["error"]
    assert files["half.mp4"]["windows"] == 0


def test_an_index_outside_its_folder_and_a_folder_that_is_gone(videos, model_folder, tmp_path):
    search = VideoSearch.create(videos, model_folder, tmp_path / "index")
    search.update()
    assert not (videos / ".vatt-index").exists()
    shutil.rmtree(videos)
    with pytest.raises(FileNotFoundError, match="no such folder"):
        search.update()
    assert len(search.index) > 0  # a drive that is not mounted empties no index
    with pytest.raises(FileNotFoundError, match="no such folder"):
        VideoSearch.create(videos, model_folder)


def test_an_index_behind_a_link_knows_its_folder_from_anywhere(videos, model_folder, tmp_path):
    """Where links lead to it, and where it leads to from a link in the folder; both can be moved together."""
    (tmp_path / "drive").mkdir()
    (videos / ".vatt-index").symlink_to(tmp_path / "drive")  # as to a faster drive
    VideoSearch.create(videos, model_folder, videos / ".vatt-index").index.close()
    within = VideoSearch.create(videos, model_folder, videos / "inside")
    (tmp_path / "links").mkdir()
    (tmp_path / "links/one").symlink_to(videos / "inside")
    (tmp_path / "links/two").symlink_to(videos)
    places = (videos, videos / ".vatt-index", tmp_path / "drive", videos / "inside", tmp_path / "links/one")
    for place in (*places, tmp_path / "links/two", tmp_path / "links/two/inside"):
        with VattIndex.open(place) as index:
            assert index.root is not None and index.root.samefile(videos), place
    within.index.close()
    videos.rename(tmp_path / "moved")
    assert VattIndex.open(tmp_path / "moved/inside").root == tmp_path / "moved"


def test_another_model_is_refused(videos, model_folder, tmp_path):
    VideoSearch.create(videos, model_folder, tmp_path / "index")
    other = save_model(tmp_path / "other", seed=1)
    with pytest.raises(IndexMismatch, match=r"differs .* the weights.*another folder"):
        VideoSearch.open(tmp_path / "index", other)
    processor = small_processor()
    processor.video_processor.fps = 5.0
    loaded = VattForPreTraining.from_pretrained(model_folder).eval()
    with pytest.raises(IndexMismatch, match="video setting `fps`"):
        VideoSearch(VattIndex.open(tmp_path / "index"), loaded, processor)
    changed = shutil.copytree(model_folder, tmp_path / "changed")
    settings = json.loads((changed / "config.json").read_text())
    settings["video_config"]["hidden_act"] = "relu"  # other embeddings of the same weights
    (changed / "config.json").write_text(json.dumps(settings))
    with pytest.raises(IndexMismatch, match=r"model setting `video_config.hidden_act` \(gelu and relu\)"):
        VideoSearch.open(tmp_path / "index", changed)
    moved = shutil.copytree(model_folder, tmp_path / "moved")
    assert VideoSearch.open(tmp_path / "index", moved).index.identity.name == str(model_folder)


KILLED = """
import os, signal, sys
from modeling_vatt.retrieval import VideoSearch
from modeling_vatt.retrieval.store import Store

folder, model, index, files = sys.argv[1:]
search = VideoSearch.create(folder, model, index, stride=0.4)
original = Store._insert_file
count = 0

def insert(connection, file):
    global count
    count += 1
    number = original(connection, file)
    if count == int(files):  # in the middle of a transaction: the file is in, its windows are not
        connection.execute("INSERT INTO windows VALUES (9999, ?, 0, 1)", (number,))
        os.kill(os.getpid(), signal.SIGKILL)
    return number

Store._insert_file = staticmethod(insert)
search.update(batch_size=1)
"""


def test_killed_and_started_again(videos, model_folder, tmp_path):
    result = processes.run("-c", KILLED, videos, model_folder, tmp_path / "killed", 4)
    assert result.returncode == -signal.SIGKILL, result.stderr
    search = VideoSearch.open(tmp_path / "killed")
    assert len(search.index.files()) == 3  # those before, wholly
    assert all(len(rows) == len(va) for rows, va, _ in content(search.index).values())
    report = search.update()
    assert (report.embedded, report.unchanged) == (4, 3)
    assert_as_fresh(search.index, videos, model_folder, tmp_path / "whole", stride=0.4)


def test_two_processes_at_once(videos, model_folder, tmp_path):
    """Both find another writer and wait; then one of them does the work, while the other waits on."""
    where = tmp_path / "index"
    where.mkdir()
    command = ["-m", "modeling_vatt.cli", "index", videos, "--model", model_folder]
    command += ["--index", where, "--json"]
    reports = []
    with FileLock(where / LOCK) as lock:
        both = [processes.Program(*command) for _ in range(2)]
        for process in both:
            process.wait_for("waiting for it to end")
        assert [process.poll() for process in both] == [None, None]
        lock.release()
        for process in both:
            output, errors = process.communicate(timeout=300)
            assert process.returncode == 0, errors
            reports.append(json.loads(output))
    assert sorted(report["embedded"] for report in reports) == [0, 7]
    assert sorted(report["unchanged"] for report in reports) == [0, 7]
    assert_as_fresh(VattIndex.open(where), videos, model_folder, tmp_path / "fresh")


def test_one_writer_at_a_time(tmp_path):
    index = synthetic(tmp_path / "i", 1)
    told = threading.Event()
    order = []

    def second() -> None:
        with writer_lock(VattIndex.open(tmp_path / "i"), wait=True, waiting=told.set):
            order.append("second")

    with writer_lock(index, wait=False):
        with pytest.raises(IndexBusy, match="another process"), writer_lock(index, wait=False):
            pass
        thread = threading.Thread(target=second)
        thread.start()
        assert told.wait(60)
        order.append("first")
    thread.join(60)
    assert order == ["first", "second"]


# --- approximate search ---


@pytest.fixture
def small_limits(monkeypatch):
    pytest.importorskip("faiss", reason="the extra `faiss` is not installed")
    for name, value in (("EXACT_LIMIT", 2000), ("_FEW", 20)):
        monkeypatch.setattr(index_module, name, value)


def recall(index: VattIndex, queries: np.ndarray, space: str = "va", **options) -> float:
    shares = []
    for query in queries:
        best = {(m.path, m.start) for m in index.search(query, space, 10, merge=False, exact=True, **options)}
        found = {(m.path, m.start) for m in index.search(query, space, 10, merge=False, **options)}
        shares.append(len(best & found) / len(best))
    return float(np.mean(shares))


def test_large_indexes_are_searched_approximately(small_limits, tmp_path, monkeypatch):
    index = synthetic(tmp_path / "i", 300, windows=10, dims={"va": 16, "vt": 8})
    assert index.info()["approximate"] is None
    notes = index.build()
    assert notes == index.info()["approximate"] and notes["windows"] == 3000
    for space in ("va", "vt"):
        assert notes[space]["recall@10"] >= 0.95 and notes[space]["lists"] > notes[space]["probes"] > 0
    queries = np.random.default_rng(5).standard_normal((20, 16))
    words = np.random.default_rng(6).standard_normal((20, 8))
    calls = []
    original = approximate.ApproximateIndex.candidates

    def spy(self, *args):
        calls.append(1)
        return original(self, *args)

    monkeypatch.setattr(approximate.ApproximateIndex, "candidates", spy)
    assert recall(index, queries) >= 0.95 and len(calls) == 20
    assert recall(index, words, "vt") >= 0.95 and len(calls) == 40
    assert recall(index, queries, folder="d07") >= 0.95
    scores = index.search(queries[0], "va", 5, merge=False)
    exact = index.search(queries[0], "va", 5, merge=False, exact=True)
    assert [m.score for m in scores] == pytest.approx([m.score for m in exact], abs=1e-6)  # scores are exact

    # What is new is found at once, what is gone is not, before anything is built again.
    add(index, 300, 10)
    fresh = index.vectors("va")[1][-1]
    assert index.search(fresh, "va", 1, merge=False)[0].path == "d30/f0300.mp4"
    gone = index.search(queries[0], "va", 1, merge=False)[0].path
    index.remove([gone])
    assert gone not in {m.path for m in index.search(queries[0], "va", 50, merge=False)}
    assert index.build() == notes  # not worth it yet
    index.remove([f"d{n // 10:02d}/f{n:04d}.mp4" for n in range(80)])
    again = index.build()
    assert again["windows"] == len(index) and again["generation"] > notes["generation"]
    assert {path.name for path in (tmp_path / "i").glob("*.faiss")} == {f"{space}-{again['generation']}.faiss" for space in ("va", "vt")}  # fmt: skip  # noqa: E501
    assert recall(VattIndex.open(tmp_path / "i"), queries) >= 0.95
    assert recall(VattIndex.open(tmp_path / "i"), words, "vt") >= 0.95

    # Without its file the search is slower, not wrong, and the file is made again; leftovers go.
    for space, asked, other in (("va", queries, words), ("vt", words, queries)):
        file = tmp_path / "i" / f"{space}-{again['generation']}.faiss"
        file.unlink()
        (tmp_path / "i" / f"{space}-0.tmp").touch()
        calls.clear()
        opened = VattIndex.open(tmp_path / "i")
        assert recall(opened, asked, space) == 1.0 and not calls
        assert recall(opened, other, "vt" if space == "va" else "va") >= 0.95 and len(calls) == 20
        again = VattIndex.open(tmp_path / "i").build()
        names = {path.name for path in (tmp_path / "i").iterdir() if path.suffix in (".faiss", ".tmp")}
        assert names == {f"{space}-{again['generation']}.faiss" for space in ("va", "vt")}
    file = tmp_path / "i" / f"va-{again['generation']}.faiss"
    file.write_bytes(file.read_bytes()[:100])
    assert index.build()["generation"] > again["generation"]
    index.store.set_meta(approximate.META, {})  # notes that make no sense are none
    assert index.info()["approximate"] is None and recall(index, queries) == 1.0
    assert index.build() == index.info()["approximate"]
    # An index that has become small is searched exactly, and says so.
    index.remove([f"d{n // 10:02d}/f{n:04d}.mp4" for n in range(80, 200)])
    assert index.info()["approximate"] is None


def test_a_folder_whose_videos_are_far_from_the_query(small_limits, tmp_path):
    index, centres = clustered(tmp_path / "i", 9, 300)
    assert index.build() is not None
    away = -centres[7]  # nothing in the folder is near
    assert len(index.search(away, "va", 10, folder="t7", merge=False)) == 10
    assert recall(index, np.stack([away, centres[3]]), folder="t7") >= 0.95
    # What was removed since takes no places of what is left.
    index.remove(["t7/f.mp4"])
    assert len(index.search(centres[7], "va", 10, merge=False)) == 10


def test_one_long_moment_leaves_room_for_others(tmp_path):
    """Thousands of windows that fit equally are one moment, not as many as are asked for."""
    index, centres = clustered(tmp_path / "i", 3, 1)
    starts = np.arange(6000, dtype=float)
    va = centres[0] + 0.001 * np.random.default_rng(1).standard_normal((6000, 12))
    index.add(FileRecord("long.mp4", 1, 1, "l", 6000.0), starts, starts + 1, va, np.ones((6000, 6)))
    found = index.search(centres[0], "va", 4)
    assert len(found) == 4 and {m.path for m in found} == {"long.mp4", "t0/f.mp4", "t1/f.mp4", "t2/f.mp4"}
    assert [(m.start, m.end) for m in found if m.path == "long.mp4"] == [(0, 6000)]


def test_a_disk_that_is_full_when_the_search_is_built(small_limits, tmp_path, monkeypatch):
    import faiss

    def full(*_: object) -> None:
        raise RuntimeError("write error: 1 != 2 (No space left on device)")

    monkeypatch.setattr(faiss, "write_index", full)
    index = synthetic(tmp_path / "i", 300, windows=10)
    with pytest.raises(OSError, match=r"No space left.*Free some space"):
        index.build()
    assert len(index.search(np.ones(12), "va", 5)) == 5 and not list((tmp_path / "i").glob("*.partial"))


def test_without_faiss_all_windows_are_compared(small_limits, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(approximate, "is_available", lambda: False)
    index = synthetic(tmp_path / "i", 300, windows=10)
    assert index.build() is None
    query = np.ones(12)
    expected = index.vectors("va")[1] @ unit(query)
    assert index.search(query, "va", 1, merge=False)[0].score == pytest.approx(
        float(expected.max()), abs=1e-6
    )


def test_gallery_and_index_agree(videos, model_folder):
    """One window a file: the mean that a gallery takes is that window."""
    search = VideoSearch.create(videos, model_folder, stride=100.0)
    search.update()
    short = [videos / "clip0.mp4", videos / "sub" / "clip1.mp4"]
    gallery, _ = Gallery.from_files(search.model, search.processor, short)
    hits = gallery.search(search.model, search.processor, text="clip 3")
    with pytest.raises(ValueError, match="top_k"):
        gallery.nearest(np.ones(gallery.vt.shape[1]), "vt", top_k=-1)
    found = {m.path: m.score for m in search.text("clip 3")}
    assert found["clip0.mp4"] == pytest.approx(next(h.score for h in hits if "clip0" in h.name), abs=1e-5)


@pytest.mark.parametrize("killed", [True, False])
def test_a_long_file_goes_on_where_it_stopped(model_folder, tmp_path, monkeypatch, killed):
    """Behind what was embedded of it, however the run ended, twice. The files before it stay, the right to
    write is given back, a window is embedded once, and the index is that of a run that was not stopped."""
    root, where = tmp_path / "videos", tmp_path / "index"
    root.mkdir()
    write_clip(root / "a.mp4", 1, 2.0)
    long = write_clip(root / "b.mp4", 2, 20.0)
    monkeypatch.setattr(unfinished, "_EVERY", 0.0 if killed else 1e9)
    read, tried = embedding.read_clips, []

    def with_a_hole(source, starts, **options):
        if len(starts) == 1 and str(source) == str(long):
            tried.extend(starts)
        if str(source) == str(long) and any(5.1 < start < 5.35 for start in starts):
            raise MediaError(str(source), "has a hole", "Fill it.")
        return read(source, starts, **options)

    monkeypatch.setattr(embedding, "read_clips", with_a_hole)
    whole = VideoSearch.create(root, model_folder, tmp_path / "whole", stride=0.1)
    expected = whole.update(batch_size=8)
    search = VideoSearch.create(root, model_folder, where, stride=0.1)
    embedded, told = [], []
    for stop_at in (70, 60):

        def stop(files: int, total: int, windows: int, stop_at: int = stop_at) -> None:
            if windows >= stop_at:
                embedded.append(windows)
                if killed:  # what a process leaves that ends here
                    shutil.copytree(where, tmp_path / "left")
                raise KeyboardInterrupt

        with pytest.raises(KeyboardInterrupt):
            search.update(batch_size=8, progress=stop)
        with writer_lock(VattIndex.open(where), wait=False):
            pass
        if killed:
            search.index.close()
            shutil.rmtree(where)
            (tmp_path / "left").rename(where)
            search = VideoSearch.open(where)
        assert list((where / "unfinished").glob("*.npz"))
        assert [file["path"] for file in search.index.files()] == ["a.mp4"]
    report = search.update(batch_size=8, seconds=lambda *numbers: told.append(numbers))
    assert (report.unchanged, report.embedded) == (1, 1)
    assert sum(embedded) + report.windows <= expected.windows + 2 * 8 * killed  # those of the last batch
    assert report.errors == expected.errors and "2 of 193 windows: has a hole" in report.errors["b.mp4"]
    assert_same(search.index, whole.index)
    assert not (where / "unfinished").exists()
    assert told[0] == (0, 0) and told[-1][0] == pytest.approx(told[-1][1])
    lengths = [total for _, total in told if total]
    assert max(lengths) < 12 and lengths[0] == pytest.approx(lengths[-1])  # known before the file is done


def test_windows_of_other_content_or_limits_are_not_taken(model_folder, tmp_path, monkeypatch):
    """Nor those of a damaged file; an identical copy of a file that is being embedded is not embedded."""
    root = tmp_path / "videos"
    root.mkdir()
    write_clip(root / "a.mp4", 2, 8.0)
    shutil.copy(root / "a.mp4", root / "b.mp4")
    monkeypatch.setattr(unfinished, "_EVERY", 0.0)
    search = VideoSearch.create(root, model_folder, stride=0.1)

    def stop(files: int, total: int, windows: int) -> None:
        if windows >= 40:
            raise KeyboardInterrupt

    def stopped() -> None:
        with pytest.raises(KeyboardInterrupt):
            search.update(batch_size=8, progress=stop)

    stopped()
    write_clip(root / "a.mp4", 7, 8.0)
    stopped()
    *_, last = sorted(
        (root / ".vatt-index" / "unfinished").iterdir(), key=lambda path: path.stat().st_mtime_ns
    )
    last.write_bytes(last.read_bytes()[:-30])
    report = search.update(batch_size=8, limits=replace(DEFAULT_LIMITS, wall_seconds=77.0))
    assert report.windows == 2 * 73 and report.embedded == 2
    whole = VideoSearch.create(root, model_folder, tmp_path / "whole", stride=0.1)
    whole.update(batch_size=8)
    assert_same(search.index, whole.index)
    for name in ("c.mp4", "d.mp4"):
        write_clip(root / name, 9, 2.0)
    report = search.update(batch_size=64)
    assert (report.embedded, report.reused, report.windows) == (1, 1, 13)
    assert {"c.mp4", "d.mp4"} <= content(search.index).keys()


def test_files_that_change_while_they_are_read(model_folder, tmp_path):
    """Are not taken for what they were: nothing is noted of them, and the next run embeds them."""
    root = tmp_path / "videos"
    root.mkdir()
    for number, name in enumerate(("a.mp4", "b.mp4", "c.mp4")):
        write_clip(root / name, number, 4.0)
    shutil.copy(root / "a.mp4", root / "d.mp4")
    (tmp_path / "new.mp4").write_bytes(write_clip(tmp_path / "n.mp4", 9, 4.0).read_bytes())
    search = VideoSearch.create(root, model_folder, stride=0.1)

    def change(files: int, total: int, windows: int) -> None:
        if windows and (root / "b.mp4").exists():
            (root / "b.mp4").rename(root / "e.mp4")
            os.replace(tmp_path / "new.mp4", root / "a.mp4")

    report = search.update(batch_size=4, progress=change)
    assert report.errors.keys() == {"a.mp4", "b.mp4", "d.mp4"}
    assert report.errors["a.mp4"] == report.errors["d.mp4"] == indexing.CHANGED
    assert content(search.index).keys() == {"c.mp4"}
    report = search.update()
    assert (report.embedded, report.errors) == (3, {})
    assert_as_fresh(search.index, root, model_folder, tmp_path / "whole", stride=0.1)
