# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Folders and files that cannot be looked at: nothing of the index is lost, and nothing waits for ever."""

import errno
import hashlib
import os
import shutil
import struct
import subprocess
import threading
from pathlib import Path

import numpy as np
import pytest
from clip_folders import save_model, write_clip
from indexes import content

from modeling_vatt.embedding import embedding
from modeling_vatt.processors import MediaLimits
from modeling_vatt.retrieval import IndexDamaged, VideoSearch, embed_windows, forget_files, remember_files
from modeling_vatt.retrieval import updating as indexing
from modeling_vatt.retrieval.ignoring import IGNORE_FILE, Ignored


@pytest.fixture(scope="module")
def indexed(tmp_path_factory) -> Path:
    """Three videos, one of them in a subfolder, with their index."""
    model = save_model(tmp_path_factory.mktemp("model"))
    videos = tmp_path_factory.mktemp("indexed") / "videos"
    (videos / "sub").mkdir(parents=True)
    for number, name in enumerate(("a.mp4", "b.mp4", "sub/c.mp4")):
        write_clip(videos / name, number, 1.0)
    search = VideoSearch.create(videos, model)
    assert search.update().embedded == 3
    search.index.close()
    return videos


@pytest.fixture
def search(indexed, tmp_path) -> VideoSearch:
    return VideoSearch.open(shutil.copytree(indexed, tmp_path / "videos"))


def paths(search: VideoSearch) -> dict[str, int]:
    return {file["path"]: file["windows"] for file in search.index.files()}


def refuse(monkeypatch, module, name: str, refused: Path, number: int) -> None:
    """Let a function of a module fail for one path."""
    original = getattr(module, name)

    def call(path, *args, **options):
        if os.fspath(path) == str(refused):
            raise OSError(number, os.strerror(number), str(path))
        return original(path, *args, **options)

    monkeypatch.setattr(module, name, call)


@pytest.mark.parametrize("number", [errno.EIO, errno.EACCES])
def test_folder_that_cannot_be_listed_keeps_its_files(search, monkeypatch, number):
    before = paths(search)
    refuse(monkeypatch, os, "scandir", search.index.root / "sub", number)
    (search.index.root / "a.mp4").unlink()
    report = search.update(prune=True)
    assert report.errors == {"sub": f"cannot be opened ({os.strerror(number)}). Check its permissions."}
    assert report.removed == 1
    assert paths(search) == {path: windows for path, windows in before.items() if path != "a.mp4"}
    monkeypatch.undo()
    report = search.update()
    assert (report.errors, report.unchanged, report.embedded) == ({}, 2, 0)


def test_root_that_cannot_be_listed(search, monkeypatch):
    before = paths(search)
    refuse(monkeypatch, os, "scandir", search.index.root, errno.EIO)
    with pytest.raises(OSError, match="Input/output"):
        search.update()
    assert paths(search) == before


def test_file_whose_properties_cannot_be_read_stays(search, monkeypatch):
    before = paths(search)
    original = Path.stat

    def stat(self, **options):
        if self.name == "b.mp4":
            raise OSError(errno.EIO, "Input/output error")
        return original(self, **options)

    monkeypatch.setattr(Path, "stat", stat)
    report = search.update()
    assert list(report.errors) == ["b.mp4"] and report.removed == 0
    assert paths(search) == before


def test_empty_mount_point_empties_no_index(search):
    before = paths(search)
    root = search.index.root
    elsewhere = root.parent / "elsewhere"
    elsewhere.mkdir()
    for name in ("a.mp4", "b.mp4", "sub"):
        (root / name).rename(elsewhere / name)
    with pytest.raises(FileNotFoundError, match=r"3 files of it are indexed.*mount it"):
        search.update()
    assert paths(search) == before
    for name in ("a.mp4", "b.mp4", "sub"):
        (elsewhere / name).rename(root / name)
    assert search.update().unchanged == 3


def test_a_drive_inside_the_folder_that_is_away_costs_no_embeddings(search, tmp_path):
    """Its mount point is empty then. The copy of a file does not take its place for good."""
    before, root = paths(search), search.index.root
    (root / "sub").rename(tmp_path / "away")
    (root / "sub").mkdir()
    report = search.update()
    assert (report.missing, report.removed, report.unchanged) == (["sub/c.mp4"], 0, 2)
    assert paths(search) == before
    (root / "sub").rmdir()
    (tmp_path / "away").rename(root / "sub")
    report = search.update()
    assert (report.missing, report.embedded, report.unchanged) == ([], 0, 3)
    shutil.rmtree(root / "sub")
    report = search.update(prune=True)
    assert (report.missing, report.removed) == ([], 1) and "sub/c.mp4" not in paths(search)


def test_files_that_were_replaced_with_the_same_size_and_time(search):
    root = search.index.root
    stat = (root / "a.mp4").stat()
    other = (root / "b.mp4").read_bytes()[: stat.st_size].ljust(stat.st_size, b"\0")
    (root / "a.mp4").write_bytes(other)
    os.utime(root / "a.mp4", ns=(stat.st_atime_ns, stat.st_mtime_ns))
    assert search.update().unchanged == 3
    before = search.index.vectors("va")[1][0]
    report = search.update(rehash=True)
    assert (report.embedded, report.unchanged) == (1, 2)
    assert search.index.store.files()[0][0].hash == hashlib.sha256(other).hexdigest()
    assert not np.allclose(search.index.vectors("va")[1][-1], before, atol=1e-4)
    assert search.update(rehash=True).unchanged == 3


def test_files_moved_onto_others_leave_nothing_behind(search):
    root = search.index.root
    before = {file.path: file.hash for file, _ in search.index.store.files()}
    vectors = content(search.index)
    for source, target in (("sub/c.mp4", "sub/z.mp4"), ("b.mp4", "sub/c.mp4"), ("a.mp4", "b.mp4")):
        os.replace(root / source, root / target)
    report = search.update()
    assert (report.reused, report.embedded, report.missing) == (3, 0, [])
    moved = {"b.mp4": "a.mp4", "sub/c.mp4": "b.mp4", "sub/z.mp4": "sub/c.mp4"}
    after = content(search.index)
    assert {file.path: file.hash for file, _ in search.index.store.files()} == {
        path: before[old] for path, old in moved.items()
    }
    assert all(np.array_equal(after[path][1], vectors[old][1]) for path, old in moved.items())
    os.replace(root / "sub/z.mp4", root / "b.mp4")  # over one that is replaced, and needed nowhere else
    report = search.update()
    assert (report.reused, report.embedded, report.missing) == (1, 0, [])
    assert paths(search).keys() == {"b.mp4", "sub/c.mp4"} and search.update().unchanged == 2


def test_an_index_that_is_removed_while_it_is_updated_is_not_written_to(search, monkeypatch):
    write_clip(search.index.root / "new.mp4", 9)
    original = indexing.embed_windows

    def embed(*arguments, **options):
        shutil.rmtree(search.index.store.folder)
        return original(*arguments, **options)

    monkeypatch.setattr(indexing, "embed_windows", embed)
    with pytest.raises(IndexDamaged, match="removed or replaced since it was opened"):
        search.update()


def test_what_is_passed_over_is_counted(search, tmp_path):
    root = search.index.root
    for name in ("picture.jpg", "other.JPG", "no_ending", ".hidden.mp4"):
        (root / name).touch()
    (root / ".folder").mkdir()
    write_clip(tmp_path / "outside.mp4", 1)
    (root / "link.mp4").symlink_to(tmp_path / "outside.mp4")
    (root / "folder").symlink_to(root / "sub")
    report = search.update()
    assert report.passed_over == {"": 1, ".jpg": 2, "hidden": 2, "links": 2} and report.unchanged == 3


def test_what_is_excluded_is_removed_and_stays_out(search):
    root = search.index.root
    before = paths(search)
    report = search.update(exclude=["sub/"])
    assert (report.removed, report.unchanged, report.missing) == (1, 2, [])
    assert report.passed_over["excluded"] == 1
    assert search.update().unchanged == 2  # kept
    (root / IGNORE_FILE).write_text("# by hand\n\n/a.*\n", encoding="utf-8")
    assert search.update().removed == 1 and set(paths(search)) == {"b.mp4"}
    (root / IGNORE_FILE).write_text("*\n!b.mp4\n")
    assert search.update(exclude=[]).unchanged == 1
    (root / IGNORE_FILE).unlink()
    assert search.update().embedded == 2 and paths(search).keys() == before.keys()
    (root / IGNORE_FILE).write_text("*")
    assert search.update().removed == 3  # was meant so, unlike a drive that is away
    (root / IGNORE_FILE).write_bytes(b"\xff")
    with pytest.raises(ValueError, match=r"vattignore: must be UTF-8"):
        search.update()


def test_patterns_of_a_run_that_is_refused_are_not_kept(search):
    root, before = search.index.root, paths(search)
    search.update(exclude=["z*"])
    root.rename(root.parent / "away")  # with the index, which stays open
    (root.parent / "away/.vatt-index").rename(root.parent / "index")
    again = VideoSearch.open(root.parent / "index")
    again.index.root = root
    for error in (FileNotFoundError, ValueError):
        with pytest.raises(error):
            again.update(exclude=["sub/"])
        assert again.index.store.meta(indexing.EXCLUDED) == ["z*"]
        root.mkdir(exist_ok=True)
        (root / IGNORE_FILE).write_bytes(b"\xff")
    (root / IGNORE_FILE).unlink()
    with pytest.raises(FileNotFoundError, match="mount it"):
        again.update(exclude=["/a.mp4"])
    shutil.copytree(root.parent / "away", root, dirs_exist_ok=True)
    assert again.update().unchanged == 3 and paths(again) == before


def test_forgotten_files_stay_out_until_they_are_remembered(search):
    root = search.index.root
    with pytest.raises(ValueError, match=r"no 'none\.mp4'"):
        forget_files(search.index, ["sub", "none.mp4"])
    assert len(paths(search)) == 3
    assert forget_files(search.index, ["sub/", search.index.path_of(root / "a.mp4")]) == 2
    assert search.update().unchanged == 1 and set(paths(search)) == {"b.mp4"}
    with pytest.raises(ValueError, match=r"'b\.mp4' was not forgotten.*'a\.mp4', 'sub'"):
        remember_files(search.index, ["b.mp4"])
    remember_files(search.index, ["sub"])
    assert search.update().embedded == 1 and set(paths(search)) == {"b.mp4", "sub/c.mp4"}


def test_names_for_forgetting_stand_for_their_places(search, tmp_path):
    """Not for other files of their content, nor for what a link leads to."""
    index, root = search.index, search.index.root
    shutil.copy(root / "b.mp4", root / "copy.mp4")
    (root / "link.mp4").symlink_to("a.mp4")
    (root / "e\u0301te\u0301").mkdir()  # as macOS writes it
    shutil.copy(root / "b.mp4", root / "e\u0301te\u0301" / "d.mp4")
    (tmp_path / "elsewhere").symlink_to(root)
    assert index.place_of(tmp_path / "elsewhere") == "." and index.place_of("none.mp4") == "none.mp4"
    assert search.update().reused == 3
    for name, place in (("copy.mp4", "copy.mp4"), ("link.mp4", "link.mp4"), ("elsewhere/b.mp4", "b.mp4")):
        assert index.place_of((root if "/" not in name else tmp_path) / name) == place
        assert forget_files(index, [place]) == 1
    with pytest.raises(ValueError, match=r"no 'copy\.mp4'"):  # once more, though its content is known
        forget_files(index, [index.place_of(root / "copy.mp4")])
    assert forget_files(index, ["\u00e9t\u00e9/"]) == 1
    assert search.update().unchanged == 2 and set(paths(search)) == {"a.mp4", "sub/c.mp4"}
    remember_files(index, ["\u00e9t\u00e9", index.place_of(root / "link.mp4")])
    report = search.update()  # b.mp4 and its copy stay out, so that the content of d.mp4 is known no longer
    assert (report.embedded, report.reused, len(paths(search))) == (1, 1, 4)
    forget_files(index, ["\u00e9t\u00e9"])
    (root / "e\u0301te\u0301").rename(root / "\u00e9t\u00e9")  # as another system writes it
    report = search.update()
    assert (report.embedded, report.reused, len(paths(search))) == (0, 0, 3)
    remember_files(index, ["\u00e9t\u00e9"])
    assert search.update().embedded == 1
    assert search.update(exclude=["\u00c9*", "\u00e9t?/"]).removed == 1


@pytest.mark.parametrize(
    ("patterns", "out", "stays"),
    [
        (["*.mkv"], ["a.mkv", "x/y/b.mkv"], ["a.mp4", "mkv"]),
        (["/a.mp4"], ["a.mp4"], ["x/a.mp4"]),
        (["x/*.mp4"], ["x/a.mp4"], ["x/y/a.mp4", "z/x/a.mp4"]),
        (["x/**/a.mp4"], ["x/a.mp4", "x/y/z/a.mp4"], ["a.mp4", "y/x/a.mp4"]),
        (["**/x/"], ["x/a.mp4", "y/x/a.mp4"], ["x"]),
        (["x/**"], ["x/a.mp4", "x/y/a.mp4"], ["x"]),
        (["drafts/"], ["drafts/a.mp4", "x/drafts/y/a.mp4"], ["drafts"]),
        (["*", "!keep.mp4"], ["a.mp4"], ["keep.mp4"]),
        (["a?.[m-o]p4", "[!a]b.mp4"], ["ab.mp4", "ac.np4", "cb.mp4"], ["a.mp4", "ac.zp4"]),
        (["(x+)|.mp4"], ["(x+)|.mp4"], ["ab.mp4", "xx.mp4"]),
        (["", "   ", "!"], [], ["a.mp4"]),
        # Stars stand for folders as a whole name only; elsewhere they stay within a name.
        (["?**/b.mp4", "c**d.mp4"], ["a/b.mp4", "ax/b.mp4", "cxd.mp4"], ["ab.mp4", "a/x/b.mp4", "c/d.mp4"]),
        (
            ["a**/b.mp4", "***/c.mp4"],
            ["a/b.mp4", "ab.mp4", "a/x/b.mp4", "x/y/c.mp4"],
            ["xb.mp4"],
        ),  # odd, but git's
        (["x/**/**/a.mp4"], ["x/a.mp4", "x/y/z/a.mp4"], ["a.mp4"]),
        # A backslash takes signs as they are.
        (["\\!a.mp4", "\\#b.mp4", "c\\*.mp4"], ["!a.mp4", "#b.mp4", "c*.mp4"], ["a.mp4", "cx.mp4"]),
        (["[\\]]a.mp4", "[\\d]b.mp4"], ["]a.mp4", "db.mp4"], ["5b.mp4", "\\a.mp4"]),
        (["x[^b]a.mp4", "y[.-0]a.mp4"], ["xca.mp4", "y.a.mp4"], ["xba.mp4", "x/a.mp4", "y/a.mp4"]),
        ([" a.mp4", "b.mp4  "], [" a.mp4", "b.mp4"], ["a.mp4"]),
    ],
)
def test_patterns_are_those_of_gitignore(tmp_path, patterns, out, stays):
    ignored = Ignored(patterns)
    assert [path for path in (*out, *stays) if ignored(path)] == out
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q"], cwd=tmp_path, check=True)
        (tmp_path / ".gitignore").write_text("\n".join(patterns))
        command = ["git", "-c", "core.quotepath=off", "check-ignore", "--no-index", "--stdin"]
        given = "\n".join((*out, *stays))
        told = subprocess.run(command, cwd=tmp_path, input=given, capture_output=True, text=True)
        assert told.stdout.splitlines() == out


def test_classes_by_name_are_refused():
    with pytest.raises(ValueError, match=r"\[\[:alpha:\]\]"):
        Ignored(["x[[:alpha:]].mp4"])


def test_changes_are_indexed_as_they_come(search):
    pytest.importorskip("watchfiles", reason="needs pip install 'modeling_vatt[watch]'")
    root, stop = search.index.root, threading.Event()
    reports = search.watch(stop, exclude=["x*"])
    assert next(reports).unchanged == 3
    search.index.store.set_meta(indexing.EXCLUDED, ["y*"])  # by another process, for later
    write_clip(root / "sub" / "new.mp4", 7)
    assert next(reports).embedded == 1
    (root / "a.mp4").rename(root / "z.mp4")
    assert next(reports).reused == 1 and set(paths(search)) == {"b.mp4", "sub/c.mp4", "sub/new.mp4", "z.mp4"}
    (root / ".vatt-another").mkdir()
    for name in (".vatt-another/index.sqlite", ".part.mp4"):
        (root / name).touch()
    threading.Timer(2.5, stop.set).start()
    assert search.index.store.meta(indexing.EXCLUDED) == ["y*"]
    assert list(reports) == []  # its own writing is no change, nor what is hidden


def test_seconds_of_video_are_told(search, tmp_path):
    root = search.index.root
    for number in range(3):
        write_clip(root / f"new{number}.mp4", 20 + number, 4.0)
    told: list[tuple[float, float]] = []
    search.update(seconds=lambda *numbers: told.append(numbers), batch_size=1)
    assert told[0] == (0, 0) and told[-1] == pytest.approx((12, 12), abs=0.3)
    assert all(done <= total or not total for done, total in told)
    halfway = next(total for done, total in told if 3.9 <= done < 5 and total)
    assert halfway == pytest.approx(12, rel=0.3)  # by the bytes


def test_renamed_file_that_cannot_be_opened(search, monkeypatch):
    root = search.index.root
    (root / "a.mp4").rename(root / "z.mp4")
    original = indexing.hash_file

    def refused(path):
        if Path(path).name == "z.mp4":
            raise PermissionError(errno.EACCES, "Permission denied")
        return original(path)

    monkeypatch.setattr(indexing, "hash_file", refused)
    report = search.update()
    assert report.errors == {"z.mp4": "cannot be opened (Permission denied). Check its permissions."}
    assert report.missing == ["a.mp4"]
    assert set(paths(search)) == {"a.mp4", "b.mp4", "sub/c.mp4"}
    monkeypatch.undo()
    report = search.update()
    assert (report.reused, report.missing) == (1, []) and "a.mp4" not in paths(search)


def test_pipes_and_links_in_a_circle_are_not_opened(search):
    root = search.index.root
    os.mkfifo(root / "pipe.mp4")
    (root / "round.mp4").symlink_to("round.mp4")
    report = search.update()
    assert set(report.errors) == {"pipe.mp4", "round.mp4"}
    assert "a pipe" in report.errors["pipe.mp4"]
    assert report.unchanged == 3


def test_files_that_failed_by_limits_are_tried_again_when_asked(search):
    root = search.index.root
    write_clip(root / "new.mp4", 7, 1.0)
    shutil.copy(root / "new.mp4", root / "copy.mp4")
    report = search.update(limits=MediaLimits(max_pixels=10))
    assert set(report.errors) == {"new.mp4", "copy.mp4"}
    report = search.update()
    assert set(report.errors) == {"new.mp4", "copy.mp4"} and report.unchanged == 5
    (root / "copy.mp4").rename(root / "moved.mp4")
    report = search.update(retry=True)
    assert report.errors == {} and report.unchanged == 3 and report.embedded + report.reused == 2
    found = paths(search)
    assert found["new.mp4"] == found["moved.mp4"] > 0
    assert search.update(retry=True).unchanged == 5


def lying_duration(path: Path, seconds: float) -> None:
    """Let the header of a Matroska file state another duration (element 0x4489, a float of 8 bytes)."""
    content = path.read_bytes()
    place = content.index(b"\x44\x89\x88")
    path.write_bytes(content[: place + 3] + struct.pack(">d", seconds * 1000) + content[place + 11 :])


def test_duration_of_the_header_is_not_believed(search, tmp_path, monkeypatch):
    monkeypatch.setattr(embedding, "_MOST_MISSING", 20)
    honest, lying = (write_clip(tmp_path / name, 3, 2.0) for name in ("honest.mkv", "lying.mkv"))
    lying_duration(lying, 1e12)
    after = search.index.root / "a.mp4"
    found = embed_windows(search.model, search.processor, [honest, lying, after], stride=0.4, batch_size=4)
    (_, expected), (_, result), (_, other) = found
    assert result.errors[0].reason.startswith("left out from ")
    assert "20 windows in a row" in result.errors[0].reason
    assert 20 < len(result.errors) < 60
    assert len(result.starts) >= len(expected.starts) - 1 and result.duration < 3
    same = [start for start in result.starts if start in expected.starts]
    assert same[:4] == pytest.approx([0, 0.4, 0.8, 1.2])
    for name, rows in result.arrays.items():
        np.testing.assert_allclose(rows[: len(same)], expected.arrays[name][: len(same)], atol=1e-5)
    assert other.errors == [] and len(other.starts) == len(next(iter(other.arrays.values()))) > 0


def test_windows_of_a_file_are_limited(search, monkeypatch):
    monkeypatch.setattr(embedding, "_MOST_WINDOWS", 8)
    path = search.index.root / "a.mp4"
    ((_, whole),) = embed_windows(search.model, search.processor, [path], stride=0.02)
    assert len(whole.starts) == 8 and "more than 8 windows" in whole.errors[0].reason
    monkeypatch.setattr(embedding, "_MOST_WINDOWS", 12)
    ((_, whole),) = embed_windows(search.model, search.processor, [path], stride=0.02)
    assert len(whole.starts) == 11 and whole.errors == []
