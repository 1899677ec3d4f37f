# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The `vatt` command: index, search, embed, info."""

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from clip_folders import make_folder, save_model, write_clip
from media_factory import tone, write_media
from PIL import Image
from typer.testing import CliRunner, Result

from modeling_vatt import VattForPreTraining, __version__
from modeling_vatt.cli import app
from modeling_vatt.data import folder_clips, prepare_shards
from modeling_vatt.retrieval import Query, VattIndex, VideoSearch, store, unit


def vatt(*arguments: object, expect: int = 0) -> Result:
    result = CliRunner().invoke(app, list(map(str, arguments)))
    assert result.exit_code == expect, result.output + repr(result.exception)
    return result


@pytest.fixture(scope="module")
def place(tmp_path_factory) -> Path:
    """`model`, `videos` (indexed), `bark.wav`."""
    folder = tmp_path_factory.mktemp("place")
    save_model(folder / "model")
    (folder / "videos" / "deep").mkdir(parents=True)
    for number in range(4):
        write_clip(folder / "videos" / ("deep" if number == 3 else "") / f"clip{number}.mp4", number, 2.0)
    for number in range(7):
        (folder / "videos" / f"broken{number}.mp4").write_bytes(b"no video %d" % number)
    write_media(folder / "bark.wav", waveform=tone(1, 8000), sampling_rate=8000, audio_codec="pcm_s16le")
    result = vatt("index", folder / "videos", "--model", folder / "model")
    assert "12 windows of 4 files. 11 embedded" in result.output
    assert (
        "7 files could not be read" in result.output and result.output.count("broken") == 5
    )  # the first ones
    return folder


def test_help_teaches(place):
    shown = vatt("--help").output
    for name in ("index", "search", "embed", "info", "convert", "flops", "--install-completion"):
        assert name in shown
    for name in ("index", "search", "embed", "info"):
        assert "Examples:" in vatt(name, "--help").output


def test_what_needs_no_model_is_answered_without_torch(tmp_path):
    """Help, wrong usage and missing files, one after another in a process that names what it has loaded."""
    commands = {
        "--help": (0, "search"),
        "--version": (0, f"vatt {__version__}"),
        "search --help": (0, "--export"),
        "search --nonsense": (2, "--nonsense"),
        "search": (2, "Nothing to look for"),
        "search a --not=": (2, "holds no words"),
        "search a --index missing": (1, "missing: no index here"),
        "search a --index . ": (1, ".: no index here"),
        "index missing --model m": (1, "missing: no such folder"),
        "index .": (1, "--model DIR_OR_HUB_ID"),
        "index . --model ./m": (1, "./m: no such folder"),
        "index . --model . --media-limits {}x": (1, "must be a JSON object"),
        "index . --model . --exclude x[[:alpha:]]": (1, "classes such as"),
        "embed a.mp4 --audio b.wav --model .": (1, "a.mp4, b.wav: no such file"),
        "embed --text a --model m": (1, "m: no such folder"),
        "info clip.mp4": (1, "clip.mp4: no such folder"),
        "convert missing -o m": (1, "missing.index does not exist"),
        "convert --list": (0, "mbs"),
        "serve missing": (1, "missing: no index here"),
        "flops": (2, "Give a model"),
        "flops ./m": (1, "./m: no such folder"),
    }
    answered_without_torch(commands, tmp_path)


def test_searches_need_torch_for_their_model_only(place):
    """What can be known before it is loaded is; a moment of the index needs none."""
    index = f"--index {place / 'videos'}"
    like = f"search --like {place / 'videos/clip1.mp4'}@1 {index} -k 50 --json"
    commands = {
        like: (0, "clip"),
        f"search --like none.mp4@1 {index}": (1, "none.mp4: neither in the index nor a file"),
        f"search clip {index} --folder none": (2, "no such folder"),
        f"search clip {index} --model {place / 'none'}": (1, "no such folder"),
        f"forget none.mp4 {index}": (1, "holds no 'none.mp4'"),
        f"info {place / 'videos'}": (0, "windows"),
        f"info {place / 'videos/clip1.mp4'}": (0, "media file"),
    }
    found = json.loads(answered_without_torch(commands, place)[0])["moments"]
    search = VideoSearch.open(place / "videos")
    options = {"top_k": 50, "per_file": 3, "distinct": True}
    expected = search.find(Query(like=("clip1.mp4", 1.0)), **options)
    assert expected
    names = ("path", "start", "end", "share")
    assert [[row[name] for name in names] for row in found] == [
        [getattr(moment, name) for name in names] for moment in expected
    ]
    assert [row["score"] for row in found] == pytest.approx([m.score for m in expected], abs=1e-6)


def answered_without_torch(commands: dict[str, tuple[int, str]], folder: Path) -> list[str]:
    """Outputs of commands, given with exit code and a part of what is said, in one process in this folder."""
    code = (
        "import json, sys; from typer.testing import CliRunner; from modeling_vatt.cli import app\n"
        "results = [CliRunner().invoke(app, command.split()) for command in sys.argv[1:]]\n"
        "large = {'torch', 'transformers', 'pandas', 'datasets', 'faiss', 'psycopg'} & set(sys.modules)\n"
        "print(json.dumps([sorted(large), [(r.exit_code, r.output) for r in results]]))\n"
    )
    process = [sys.executable, "-c", code, *commands]
    answer = subprocess.run(process, capture_output=True, text=True, cwd=folder)
    large, results = json.loads(answer.stdout)
    assert not large, answer.stderr
    for (command, (exit_code, text)), (code, output) in zip(commands.items(), results, strict=True):
        assert code == exit_code and text in output, (command, output)
    return [output for _, output in results]


def test_index_again(place, tmp_path):
    videos = shutil.copytree(place / "videos", tmp_path / "videos", copy_function=shutil.copy2)
    report = json.loads(vatt("index", videos, "--json").output)
    assert report["unchanged"] == 11 and report["embedded"] == 0 and len(report["errors"]) == 7
    assert report["index"]["windows"] == 12
    (videos / "clip0.mp4").unlink()
    (videos / "notes.txt").touch()
    (videos / "poster.JPG").touch()
    told = vatt("index", videos).output
    assert "0 embedded, 0 known by their content, 10 unchanged, 0 removed" in told
    assert "1 files are gone and kept" in told and "\n  clip0.mp4\n" in told
    assert "Passed over: 1 .jpg, 1 .txt." in told
    os.utime(videos / "clip1.mp4", (1, 1))
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for rank in range(1, 5):  # of an earlier search
        (pictures / f"00{rank}.jpg").write_bytes(b"old")
    search = ("search", "clip", "--index", videos, "--per-file", 1)
    rows = json.loads(vatt(*search, "--thumbnails", pictures, "--json").stdout)["moments"]
    states = {row["path"]: row["stale"] for row in rows}
    assert states == {"clip0.mp4": "gone", "clip1.mp4": "changed", "clip2.mp4": None, "deep/clip3.mp4": None}
    for row in rows:
        there = row["stale"] != "gone"
        assert (pictures / f"00{row['rank']}.jpg").exists() == there == ("thumbnail" in row)
    told = vatt(*search).output
    assert "clip0.mp4 (gone)" in told and "clip1.mp4 (changed since it was indexed)" in told
    assert "1 known by their content, 9 unchanged, 1 removed" in vatt("index", videos, "--prune").output
    told = vatt(*search, "--at-least", "strong").output
    assert "too small to say" in told and told.count(".mp4") == 3


def test_files_are_excluded_and_forgotten(place, tmp_path):
    videos = shutil.copytree(place / "videos", tmp_path / "videos", copy_function=shutil.copy2)
    report = json.loads(vatt("index", videos, "--exclude", "broken*", "--exclude", "deep/", "--json").output)
    assert (report["unchanged"], report["removed"], report["errors"]) == (3, 8, {})
    assert "8 excluded" in vatt("index", videos).output
    assert "1 files removed" in vatt("forget", videos / "clip1.mp4", "--index", videos).output
    vatt("forget", "nothing.mp4", "--index", videos, expect=1)
    assert "2 unchanged" in vatt("index", videos).output
    vatt("forget", "clip1.mp4", "--undo", "--index", videos)
    assert "1 embedded" in vatt("index", videos, "--exclude", "broken*", "--exclude", "deep/").output
    assert "must be a pattern" in vatt("index", videos, "--exclude", "[z-a]", expect=1).output


def test_a_model_in_a_relative_folder_is_found_from_elsewhere(place, tmp_path, monkeypatch):
    videos = tmp_path / "videos"
    videos.mkdir()
    shutil.copy(place / "videos" / "clip1.mp4", videos)
    monkeypatch.chdir(place)
    vatt("index", videos, "--model", "model")
    monkeypatch.chdir(tmp_path)
    assert "clip1.mp4" in vatt("search", "clip 1", "--index", "videos").output


def test_index_says_what_is_wrong(place, tmp_path):
    (tmp_path / "empty").mkdir()
    for arguments, message in (
        ((place / "videos" / "clip1.mp4",), "is a file"),
        ((tmp_path / "empty",), "--model"),
        ((place / "videos", "--stride", "0.3"), "stride"),
        ((place / "videos", "--device", "nowhere"), "another, such as `cpu`"),
        ((tmp_path / "empty", "--index", place / "videos" / ".vatt-index"), "--index"),
    ):
        result = vatt("index", *arguments, expect=1)
        assert "error: " in result.output and message in result.output and "Traceback" not in result.output
    if not torch.cuda.is_available():
        result = vatt("search", "a", "--index", place / "videos", "--device", "cuda", expect=1)
        assert "error: 'cuda': the model cannot be put on this device" in result.output
    for stride in ("0", "nan", "inf"):
        vatt("index", place / "videos", "--stride", stride, expect=2)


@pytest.mark.parametrize("name", ["my_modle", "deep/er/my_modle", "./my_modle", "owner/my_modle"])
def test_a_model_that_is_not_there_is_said_at_once(place, tmp_path, monkeypatch, no_network, name):
    """Without a network transformers tries for half a minute, and says nothing of folders."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "videos").mkdir()
    began = time.perf_counter()
    for arguments in (
        ("index", "videos", "--model", name),
        ("embed", "x.mp4", "--model", name),
        ("info", name),
        ("search", "a", "--index", place / "videos", "--model", name),
        ("search", "a", "--index", name),
        ("serve", name),
    ):
        assert f"{name.removeprefix('./')}: no " in vatt(*arguments, expect=1).output
    with pytest.raises(FileNotFoundError, match="no such folder"):
        VideoSearch.create("videos", name)
    assert time.perf_counter() - began < 5


def test_names_of_files_do_not_steer_the_terminal(place, tmp_path):
    videos = tmp_path / "videos"
    videos.mkdir()
    name = "a\x1b[2J\x9b31m\u202e\n.mp4"
    shutil.copy(place / "videos" / "clip1.mp4", videos / name)
    (videos / f"b{name}").write_bytes(b"none")
    written = vatt("index", videos, "--model", place / "model").output
    for command in (("search", "clip 1", "--index", videos), ("info", "--files", videos)):
        for options in ((), ("--json",)):
            result = vatt(*command, *options)
            written += result.output
            if options:
                facts = json.loads(result.stdout)
                assert name in [row["path"] for row in facts.get("moments", facts.get("listed"))]
    written += vatt("embed", videos / f"b{name}", "--model", place / "model", expect=1).output
    assert "\\x1b[2J\\x9b31m\\u202e\\x0a" in written
    assert not set("\x1b\x9b\u202e") & set(written)


def test_a_stopped_command_says_what_is_kept(place, tmp_path, monkeypatch):
    def stop(*_args, **_options):
        raise KeyboardInterrupt

    monkeypatch.setattr(VideoSearch, "update", stop)
    result = vatt("index", place / "videos", expect=130)
    assert "stopped." in result.output and "kept" in result.output


def test_disks_that_are_full_and_folders_that_cannot_be_written(place, tmp_path, monkeypatch):
    """`/dev/full` is a disk without room; a file in the place of a folder can be no folder, even for root."""
    search = ("search", "clip 1", "--index", place / "videos")
    (tmp_path / "file").touch()
    for arguments in (
        (*search, "--export", tmp_path / "file" / "x.csv"),
        (*search, "--thumbnails", tmp_path / "file" / "pictures"),
        ("embed", "--text", "a", "--model", place / "model", "--output", tmp_path / "file" / "x.npz"),
        ("index", place / "videos", "--model", place / "model", "--index", tmp_path / "file" / "index"),
    ):
        result = vatt(*arguments, expect=1)
        assert result.output.splitlines()[-1].startswith("error: ") and "file" in result.output
    with open("/dev/full", "w") as full:
        command = [sys.executable, "-m", "modeling_vatt.cli", "info", place / "model"]
        result = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, check=False)
    assert result.returncode == 1 and result.stderr.splitlines()[-1].startswith("error: No space left")
    monkeypatch.setattr(store, "_make_tables", full_disk)
    result = vatt("index", tmp_path, "--model", place / "model", expect=1)
    assert "the disk is full. Free some space" in result.output and not any(
        (tmp_path / ".vatt-index").iterdir()
    )


def full_disk(file: Path, _meta: object) -> None:
    connection = sqlite3.connect(file)
    connection.execute("PRAGMA max_page_count = 1")
    connection.execute("CREATE TABLE large (x)")


def test_search_by_words_sound_and_video(place, tmp_path):
    index = ("--index", place / "videos")
    search = VideoSearch.open(place / "videos")
    lines = vatt("search", "clip 3", *index, "-k", 2).output.splitlines()
    expected = search.text("clip 3", top_k=2)
    assert len(lines) == 2 and [line.split()[-1] for line in lines] == [m.path for m in expected]
    assert lines[0].split()[:2] == ["1", f"{expected[0].score:.3f}"]
    sound = json.loads(vatt("search", "--audio", place / "bark.wav", *index, "--json").output)
    best = search.audio(place / "bark.wav")[0]
    assert sound["moments"][0]["path"] == best.path
    assert sound["moments"][0]["score"] == pytest.approx(best.score, abs=1e-6)
    clip = place / "videos" / "deep" / "clip3.mp4"
    picture = json.loads(
        vatt("search", "--video", clip, *index, "--json", "--folder", "deep", "--no-merge", "--exact").output
    )
    assert picture["moments"][0]["score"] > 0.99 and len(picture["moments"]) == 3
    result = vatt(
        "search", "clip 1", *index, "-k", 3, "--thumbnails", tmp_path / "pictures", "--json",
        "--export", tmp_path / "found.csv", "--export", tmp_path / "found.html",
    )  # fmt: skip
    for moment in json.loads(result.output)["moments"]:
        assert Image.open(moment["thumbnail"]).size == (16, 16)
    assert (tmp_path / "found.csv").read_text().count(".mp4") == 3
    assert (tmp_path / "found.html").read_text().count("data:image/jpeg") == 3


def test_queries_of_several_parts(place, tmp_path):
    videos = shutil.copytree(place / "videos", tmp_path / "videos", copy_function=shutil.copy2)
    shutil.copy2(videos / "clip1.mp4", videos / "same.mp4")
    vatt("index", videos)
    index = ("--index", videos, "--json", "--no-merge")
    several = ("clip 1", "--audio", place / "bark.wav", "--weight", "audio=0.5", "--not", "clip 2")
    answer = json.loads(vatt("search", *several, *index, "-k", 50).stdout)
    assert answer["query"] == f"clip 1 + {place / 'bark.wav'} - clip 2"
    rows = answer["moments"]
    assert {row["path"] for row in rows} == {f"clip{n}.mp4" for n in (0, 1, 2)} | {"deep/clip3.mp4"}
    assert [row["copies"] for row in rows if row["path"] == "clip1.mp4"] == [["same.mp4"]] * 3
    assert all(0 < row["share"] <= 1 and row["strength"] in ("strong", "likely", "weak") for row in rows)
    strong = ("search", *several, *index, "--at-least", "strong")
    kept = [row for row in rows if row["strength"] == "strong"]
    assert json.loads(vatt(*strong, expect=0 if kept else 3).stdout)["moments"] == kept
    one = json.loads(vatt("search", *several, *index, "--per-file", 1).stdout)["moments"]
    assert len(one) == 4
    like = json.loads(vatt("search", "--like", "clip1.mp4@1", *index, "-k", 50).stdout)["moments"]
    assert like and all(row["path"] != "clip1.mp4" or not row["start"] < 1 < row["end"] for row in like)


def test_models_are_compared(place, tmp_path):
    videos = shutil.copytree(place / "videos", tmp_path / "videos", copy_function=shutil.copy2)
    save_model(tmp_path / "another", seed=5)
    vatt("index", videos, "--model", tmp_path / "another", "--index", videos / ".vatt-another")
    both = (videos, videos / ".vatt-another")
    answers = json.loads(vatt("compare", "clip 3", *both, "-k", 2, "--json").stdout)["answers"]
    assert [answer["model"] for answer in answers] == [str(place / "model"), str(tmp_path / "another")]
    lists = [[(row["path"], row["start"], row["end"]) for row in answer["moments"]] for answer in answers]
    for answer, found in zip(answers, lists, strict=True):
        alone = VideoSearch.open(answer["index"]).text("clip 3", top_k=2)
        assert found == [(m.path, m.start, m.end) for m in alone]
    for answer, others in zip(answers, reversed(lists), strict=True):
        for row in answer["moments"]:
            common = [o for o in others if o[0] == row["path"] and o[1] < row["end"] and row["start"] < o[2]]
            assert row["shared"] == bool(common)
    told = vatt("compare", "clip 3", *both).output
    assert told.count("(1 of 1)") == 8 and str(tmp_path / "another") in told
    before = (videos / "clip2.mp4").stat()
    os.utime(videos / "clip2.mp4", (1, 1))
    told = vatt("compare", "clip 3", *both).output
    assert told.count("clip2.mp4 (changed since it was indexed; 1 of 1)") == 2
    os.utime(videos / "clip2.mp4", ns=(before.st_atime_ns, before.st_mtime_ns))
    answers = json.loads(vatt("compare", "clip zebra", *both, "--json").stdout)["answers"]
    assert [answer["unknown_words"] for answer in answers] == [["zebra"], ["zebra"]]
    assert f"{tmp_path / 'another'} ignores 'zebra'" in vatt("compare", "clip zebra", *both).output
    vatt("compare", "clip 3", videos, expect=2)
    with VattIndex.open(videos / ".vatt-another") as index:
        index.remove(["deep/clip3.mp4"])
        index.save_pretrained(tmp_path / "saved")
    given = ("compare", "clip 3", videos, tmp_path / "saved")
    assert "no such folder" in vatt(*given, "--folder", "deep", expect=2).output
    vatt("compare", "clip 3", videos, tmp_path, expect=1)
    (tmp_path / "another").rename(tmp_path / "away")
    given = f"compare clip {videos} {videos / '.vatt-another'}"
    commands = {f"{given} --folder none": (2, "no such folder"), given: (1, "another: no such folder")}
    answered_without_torch(commands, tmp_path)


def test_a_running_server_is_asked(place, tmp_path):
    uvicorn = pytest.importorskip("uvicorn", reason="the extra `web` is not installed")
    from modeling_vatt.web import create_app
    from modeling_vatt.web.server import address_of, listen

    search = VideoSearch.open(place / "videos")
    listening = listen("127.0.0.1", 0)
    server = uvicorn.Server(uvicorn.Config(create_app(search), log_level="warning"))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    ask = ("--server", address_of(listening), "--json")
    try:
        shutil.copy(place / "videos/clip1.mp4", tmp_path / "copy.mp4")
        write_clip(tmp_path / "other.mp4", 5)
        several = ("clip 3", "--audio", place / "bark.wav", "--video", place / "videos/clip1.mp4")
        for query in (
            ("clip 3",),
            ("--audio", place / "bark.wav"),
            ("--video", place / "videos/clip1.mp4"),
            (*several, "--not", "dog", "--weight", "text=3", "--at-least", "weak"),
            (*several, "--like", "clip1.mp4@0.5", "--no-merge", "--exact"),
            ("clip 3", "--like", f"{place / 'videos/clip1.mp4'}@0.5"),
            ("--like", f"{tmp_path / 'copy.mp4'}@0.5"),
            ("--like", tmp_path / "other.mp4", "--audio", place / "bark.wav"),
        ):
            options = ("-k", 3, "--per-file", 1, "--min-score", -0.9)
            here = json.loads(vatt("search", *query, *options, "-i", place / "videos", "--json").stdout)
            there = json.loads(vatt("search", *query, *options, *ask).stdout)
            assert [row["path"] for row in here["moments"]] == [row["path"] for row in there["moments"]]
            assert here["unknown_words"] == there["unknown_words"] == (["dog"] if "--not" in query else [])
            assert [row["score"] for row in here["moments"]] == pytest.approx(
                [row["score"] for row in there["moments"]], abs=1e-5
            )
        inside = json.loads(vatt("search", "clip", "--folder", "deep/", *ask).stdout)["moments"]
        assert {row["path"] for row in inside} == {"deep/clip3.mp4"}
        assert vatt("search", "clip", "--export", tmp_path / "found.csv", *ask).exit_code == 0
        changed = place / "videos/clip2.mp4"
        before = changed.stat()
        os.utime(changed, (1, 1))
        asked = ("search", "clip", "--per-file", 1, "--export", tmp_path / "found.html")
        for where in (ask, ("-i", place / "videos", "--json")):
            rows = json.loads(vatt(*asked, *where).stdout)["moments"]
            assert {row["path"]: row["stale"] for row in rows} == {
                **dict.fromkeys(("clip0.mp4", "clip1.mp4", "deep/clip3.mp4")),
                "clip2.mp4": "changed",
            }
            assert "changed since it was indexed" in (tmp_path / "found.html").read_text()
        assert "clip2.mp4 (changed since it was indexed)" in vatt(*asked, *ask[:2]).output
        os.utime(changed, ns=(before.st_atime_ns, before.st_mtime_ns))
        for wrong, code, message in (
            (("clip", "--folder", "none"), 1, "no such folder"),
            (("--like", "nowhere.mp4"), 1, "No such file in the index"),
            (("--like", f"{place / 'videos/clip1.mp4'}@9"), 1, "clip1.mp4 has no second 9: it ends at 2"),
            (("--like", f"{tmp_path / 'other.mp4'}@9"), 1, "it has no second 9"),
            (("clip", "--thumbnails", tmp_path), 2, "takes neither"),
            (("clip", "--index", place / "videos"), 2, "takes neither"),
            (("clip", "--device", "cpu"), 2, "takes neither"),
        ):
            assert message in vatt("search", *wrong, *ask, expect=code).output
        code = (
            "import sys; from typer.testing import CliRunner; from modeling_vatt.cli import app\n"
            f"print(CliRunner().invoke(app, {['search', 'clip 3', *ask]!r}).exit_code)\n"
            "print({'torch', 'transformers', 'fastapi'} & set(sys.modules))\n"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=tmp_path)
        assert told.stdout.split() == ["0", "set()"], told.stderr
    finally:
        server.should_exit = True
        thread.join()
    assert "no `vatt serve` answers" in vatt("search", "clip", *ask, expect=1).output
    assert "begins with http" in vatt("search", "clip", "--server", "file:///etc/passwd", expect=1).output


def test_search_that_finds_nothing_and_wrong_usage(place, tmp_path, monkeypatch):
    index = ("--index", place / "videos")
    result = vatt("search", "clip", *index, "--min-score", "1", "--json", expect=3)
    assert json.loads(result.stdout)["moments"] == [] and "nothing found" in result.output
    (place / "videos" / "empty").mkdir(exist_ok=True)
    vatt("search", "clip", *index, "--folder", "empty", expect=3)
    for arguments in (
        ("a", "--min-score", "nan"),
        ("a", "--min-score", "5"),
        ("a", "--folder", "no such folder"),
        ("a", "--folder", "../x"),
        ("--not", "a"),
        ("a", "--weight", "audio=2"),
        ("a", "--weight", "text"),
        ("a", "--at-least", "certain"),
        ("a", "--export", "x.xlsx"),
        ("a", "-k", "0"),
    ):
        vatt("search", *arguments, *index, expect=2)
    vatt("search", "--audio", tmp_path / "missing.wav", *index, expect=2)
    for arguments, message in (
        (("a", "--index", tmp_path), "no index here"),
        (("...", *index), "no words"),
        (("--audio", place / "videos" / "broken1.mp4", *index), "not a readable media file"),
        (("--video", place / "bark.wav", *index), "no video"),
        (("a", "--model", tmp_path / "no", *index), "no"),
    ):
        result = vatt("search", *arguments, expect=1)
        assert "error: " in result.output and message in result.output and "Traceback" not in result.output
    monkeypatch.setenv("VATT_INDEX", str(place / "videos"))
    assert vatt("search", "clip 2").output.count(".mp4") == 4


def test_embed(place, tmp_path):
    clip, model = place / "videos" / "clip1.mp4", ("--model", place / "model")
    output = tmp_path / "out" / "e.npz"
    vatt("embed", clip, *model, "--text", "clip 1", "--audio", place / "bark.wav", "--output", output)
    with np.load(output) as arrays:
        rows = dict(arrays)
    assert rows["kind"].tolist() == ["video"] * 3 + ["audio", "text"]
    assert rows["start"][:3] == pytest.approx([0, 0.8, 1.2]) and np.isnan(rows["start"][3:]).all()
    search = VideoSearch.open(place / "videos")
    moments, va = search.index.vectors("va")
    own = [row for row, moment in zip(va, moments, strict=True) if moment.path == "clip1.mp4"]
    np.testing.assert_allclose(rows["va"][:3], own, atol=1e-5)
    assert not rows["vt"][3].any() and not rows["va"][4].any()
    line = json.loads(vatt("embed", *model, "--text", "clip 1").output)
    np.testing.assert_allclose(unit(np.array(line["vt"])), rows["vt"][4], atol=1e-5)
    assert line["va"] is None
    result = vatt("embed", place / "videos" / "broken0.mp4", *model, expect=1)
    assert "broken0.mp4: not a readable media file" in result.output
    more = vatt(
        "embed", clip, *model, "--audio", place / "videos" / "broken0.mp4", "--text", "...",
        "--text", "clip 1", "--audio", place / "missing.wav", "--output", output, expect=1,
    )  # fmt: skip
    for message in ("broken0.mp4: not a readable", "missing.wav", "no words", "4 embeddings"):
        assert message in more.output
    with np.load(output) as arrays:
        assert arrays["kind"].tolist() == ["video"] * 3 + ["text"]
    vatt("embed", *model, expect=2)
    vatt("embed", clip, *model, "--output", "x.txt", expect=2)


def test_info(place, tmp_path):
    facts = json.loads(vatt("info", place / "videos", "--json", "--files").output)
    assert (facts["kind"], facts["windows"], facts["errors"]) == ("index", 12, 7)
    assert sum(file["error"] is not None for file in facts["listed"]) == 7
    assert "broken3.mp4: not a readable" in vatt("info", place / "videos", "--files").output
    VideoSearch.open(place / "videos").index.save_pretrained(tmp_path / "saved")
    assert json.loads(vatt("info", tmp_path / "saved", "--json").output)["windows"] == 12
    facts = json.loads(vatt("info", place / "model", "--json").output)
    model = VattForPreTraining.from_pretrained(place / "model")
    stored = sum(value.numel() for value in model.state_dict().values())
    assert facts["kind"] == "model" and facts["values"] == stored
    facts = json.loads(vatt("info", place / "videos" / "clip1.mp4", "--json").output)
    assert (facts["kind"], facts["num_frames"], facts["video_codec"]) == ("media file", 20, "h264")
    make_folder(tmp_path / "corpus", 3)
    prepare_shards(folder_clips(tmp_path / "corpus", "train"), tmp_path / "shards")
    facts = json.loads(vatt("info", tmp_path / "shards", "--json").output)
    assert (facts["kind"], facts["clips"]) == ("shards", 3)
    for wrong, message in (
        (tmp_path, "neither a model"),
        (place / "videos" / "broken1.mp4", "not a readable"),
    ):
        assert message in vatt("info", wrong, expect=1).output
    assert "of an index" in vatt("info", place / "model", "--files", expect=2).output


def test_media_limits(place, tmp_path):
    """Both commands decode in another process if told so, and say what a file may cost."""
    clip = place / "videos" / "clip0.mp4"
    plain = [json.loads(line) for line in vatt("embed", clip, "--model", place / "model").output.splitlines()]
    isolated = vatt("embed", clip, "--model", place / "model", "--isolate").output.splitlines()
    assert [json.loads(line) for line in isolated] == plain and plain
    (tmp_path / "videos").mkdir()
    shutil.copy(clip, tmp_path / "videos")
    options = ("--model", place / "model", "--isolate", "--json")
    small = vatt("index", tmp_path / "videos", *options, "--media-limits", '{"max_bytes": 100}')
    assert "more than 100 bytes" in json.loads(small.output)["errors"]["clip0.mp4"]
    wrong = vatt("index", tmp_path / "videos", *options, "--media-limits", '{"bytes": 100}', expect=1)
    assert "max_bytes" in wrong.output
