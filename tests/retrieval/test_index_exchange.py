# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Indexes as files and on the Hub, results as files, and the same search in PostgreSQL."""

import csv
import json
import os
from html.parser import HTMLParser
from pathlib import Path

import datasets
import numpy as np
import processes
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from clip_folders import write_clip
from hub_stand_in import TOKEN, HubStandIn
from indexes import assert_same, synthetic

from modeling_vatt.retrieval import (
    IndexDamaged,
    IndexMismatch,
    Moment,
    VattIndex,
    exchange,
    export_moments,
)
from modeling_vatt.retrieval.exchange import FILES, MANIFEST


@pytest.fixture
def index(tmp_path) -> VattIndex:
    index = synthetic(tmp_path / "index", 12, windows=5)
    file = index.store.files()[0][0]
    none = np.zeros((0, 12)), np.zeros((0, 6))
    index.add(type(file)("broken.mp4", 9, 9, "b", 0.0, "not a media file. Check it."), [], [], *none)
    return index


def test_written_and_read_again(index, tmp_path, monkeypatch):
    monkeypatch.setattr(exchange, "_SHARD_WINDOWS", 23)  # files lie in two shards
    index.save_pretrained(tmp_path / "out")
    names = sorted(path.name for path in (tmp_path / "out" / "data").iterdir())
    assert names == [f"windows-0000{n}-of-00003.parquet" for n in range(3)]
    assert not list((tmp_path / "out").rglob("*.sqlite*"))
    with VattIndex.from_pretrained(tmp_path / "out") as again:
        assert_same(index, again)
        assert again.root is None and again.identity == index.identity
        assert [file for file, _ in again.store.files()] == [file for file, _ in index.store.files()]
        query = np.ones(12)
        assert again.search(query, "va") == index.search(query, "va")
        place = again.store.folder
    assert not place.exists()  # it was temporary
    kept = VattIndex.from_pretrained(tmp_path / "out", tmp_path / "kept", root=tmp_path)
    assert kept.root == tmp_path and VattIndex.open(tmp_path / "kept").info()["errors"] == 1
    # A smaller index in the same place leaves nothing of the larger one.
    index.remove([file["path"] for file in index.files()[4:]])
    index.save_pretrained(tmp_path / "out")
    assert len(list((tmp_path / "out" / "data").iterdir())) == 1
    assert_same(index, VattIndex.from_pretrained(tmp_path / "out"))
    # An index that `vatt index` made is opened where it is.
    assert VattIndex.from_pretrained(tmp_path / "index").store.folder == tmp_path / "index"
    with pytest.raises(FileNotFoundError, match="no index here"):
        VattIndex.from_pretrained(tmp_path / "nothing")
    with pytest.raises(FileExistsError, match="already"):  # the saved one is not to blame
        VattIndex.from_pretrained(tmp_path / "out", tmp_path / "kept")
    assert len(VattIndex.open(tmp_path / "kept")) == 60
    (tmp_path / "kept").rename(tmp_path / "out/.vatt-index")  # which of them is meant?
    with pytest.raises(IndexMismatch, match="another index"):
        VattIndex.from_pretrained(tmp_path / "out")


def test_empty_index(tmp_path):
    empty = synthetic(tmp_path / "index", 0)
    assert empty.search(np.ones(12), "va") == [] and len(empty.to_dataset()) == 0
    empty.save_pretrained(tmp_path / "out")
    assert len(VattIndex.from_pretrained(tmp_path / "out")) == 0


def test_as_dataset(index, tmp_path):
    table = index.to_dataset()
    assert table.column_names == ["path", "start", "end", "duration", "va", "vt"] and len(table) == 60
    moments, va = index.vectors("va")
    row = table.with_format("numpy")[17]
    assert (row["path"], row["start"]) == (moments[17].path, moments[17].start)
    np.testing.assert_array_equal(row["va"], va[17])
    index.save_pretrained(tmp_path / "out")
    loaded = datasets.load_dataset(str(tmp_path / "out"), split="train", cache_dir=str(tmp_path / "cache"))
    assert loaded.to_dict() == table.to_dict()


def rewrite(file: Path, **columns) -> None:
    table = pq.read_table(file)
    for name, change in columns.items():
        place = table.column_names.index(name)
        values = pa.array(change(table[name].to_pylist()), table.schema.field(name).type)
        table = table.set_column(place, name, values)
    pq.write_table(table, file)


def manifest(folder: Path, **changes) -> None:
    content = json.loads((folder / MANIFEST).read_text())
    for key, value in changes.items():
        target = content
        *parents, last = key.split("__")
        for parent in parents:
            target = target[parent]
        target[last] = value
    (folder / MANIFEST).write_text(json.dumps(content))


def first(value):
    """A column with another first value."""
    return lambda rows: [value, *rows[1:]]


STRANGE = {
    "path outside": lambda f: (
        rewrite(f / FILES, path=lambda rows: [r.replace("d00/f0001", "../f") for r in rows]),
        rewrite(data(f), path=lambda rows: [r.replace("d00/f0001", "../f") for r in rows]),
    ),
    "absolute path": lambda f: rewrite(f / FILES, path=first("/etc/passwd")),
    "windows of no file": lambda f: rewrite(data(f), path=first("other.mp4")),
    "windows of a file in two places": lambda f: rewrite(data(f), path=lambda r: [*r[:-1], r[0]]),
    "path twice": lambda f: rewrite(f / FILES, path=lambda rows: [rows[1], *rows[1:]]),
    "long path": lambda f: rewrite(f / FILES, path=first("a" * 5000)),
    "not a number": lambda f: rewrite(data(f), va=first([float("nan")] * 12)),
    "not normalised": lambda f: rewrite(data(f), vt=first([3.0] * 6)),
    "negative time": lambda f: rewrite(data(f), start=first(-1.0)),
    "endless": lambda f: rewrite(data(f), end=first(float("inf"))),
    "no value": lambda f: rewrite(data(f), start=first(None)),
    "no duration": lambda f: rewrite(f / FILES, duration=first(float("nan"))),
    "other columns": lambda f: pq.write_table(pa.table({"x": list(range(60))}), data(f)),
    "fewer windows": lambda f: manifest(f, windows=59),
    "fewer files": lambda f: manifest(f, files=1),
    "other width": lambda f: manifest(f, settings__model__dims={"va": 13, "vt": 6}),
    "no width": lambda f: manifest(f, settings__model__dims={"va": -1, "vt": 6}),
    "huge width": lambda f: manifest(f, settings__model__dims={"va": 10**9, "vt": 6}),
    "shard elsewhere": lambda f: manifest(f, shards=["../../windows-00000-of-00001.parquet"]),
    "no window": lambda f: manifest(f, settings__window=0),
    "settings that are none": lambda f: manifest(f, settings__model__video=["x"]),
    "unknown setting": lambda f: manifest(f, settings__model__more=1),
    "no JSON": lambda f: (f / MANIFEST).write_text("{"),
    "no Parquet": lambda f: data(f).write_bytes(b"PAR1" + bytes(100)),
    "missing": lambda f: data(f).unlink(),
}


def data(folder: Path) -> Path:
    return next((folder / "data").iterdir())


@pytest.mark.parametrize("name", STRANGE)
def test_what_a_stranger_may_send(index, tmp_path, name):
    folder = tmp_path / "out"
    index.save_pretrained(folder)
    STRANGE[name](folder)
    with pytest.raises(IndexDamaged):
        VattIndex.from_pretrained(folder, tmp_path / "new")
    assert not (tmp_path / "new" / "index.sqlite").exists()


def test_format_of_another_version(index, tmp_path):
    index.save_pretrained(tmp_path / "out")
    manifest(tmp_path / "out", format=2)
    with pytest.raises(IndexMismatch, match="version"):
        VattIndex.from_pretrained(tmp_path / "out")


HUB = """
import sys
import numpy as np
from modeling_vatt.retrieval import VattIndex

folder, name = sys.argv[1:]
index = VattIndex.open(folder)
print(index.push_to_hub(name, private=True))
with VattIndex.from_pretrained(name) as again:
    assert again.search(np.ones(12), "va") == index.search(np.ones(12), "va")
    assert again.files() == index.files()
index.remove([index.files()[0]["path"]])
index.push_to_hub(name)
with VattIndex.from_pretrained(name) as again:
    assert again.files() == index.files()
try:
    VattIndex.from_pretrained("someone/nothing")
except FileNotFoundError as error:
    assert "no index here" in str(error), error
else:
    raise AssertionError("found what is not there")
"""


def test_index_on_the_hub(index, tmp_path):
    with HubStandIn() as hub:
        environment = {**os.environ, **hub.environment(tmp_path / "home"), "HF_TOKEN": TOKEN}
        result = processes.run("-c", HUB, tmp_path / "index", "user/my-index", env=environment)
        assert result.returncode == 0, result.stdout + result.stderr
        assert TOKEN not in result.stdout + result.stderr
        files = hub.files("datasets/user/my-index")
        shard = "data/windows-00000-of-00001.parquet"
        assert set(files) - {".gitattributes"} == {"README.md", MANIFEST, FILES, shard}
        assert files[shard].lfs and hub.repositories["datasets/user/my-index"].private
        assert "data_files: data/windows-*.parquet" in files["README.md"].data.decode()


# --- results as files ---


class Pictures(HTMLParser):
    """Links, pictures and text of a page; fails on scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.links: list[str] = []
        self.pictures: list[str] = []
        self.words: list[str] = []

    def handle_starttag(self, tag, attributes):
        assert tag != "script"
        values = dict(attributes)
        assert not any(name.startswith("on") for name in values)
        self.links += [values["href"]] if tag == "a" else []
        self.pictures += [values["src"]] if tag == "img" else []

    def handle_data(self, text):
        self.words.append(text)


def test_results_as_files(tmp_path):
    root = tmp_path / "videos"
    root.mkdir()
    odd = "<script>alert(1)<&\"' #1,ä.mp4"
    write_clip(root / odd, 3, 4.0)
    moments = [
        Moment(odd, 1.2, 2.0, 0.51234567, 4.0),
        Moment("gone.mp4", 0.0, 0.8, 0.25, 3700.0, stale="gone"),
    ]
    formulas = ["=1+1.mp4", "+a.mp4", "-a.mp4", "@a.mp4", "\ta.mp4", "\ra\rb.mp4"]
    moments += [Moment(name, 0.0, 0.8, -0.25, 1.0) for name in formulas]
    query = 'a <b>dog</b> & "more"'
    for ending in ("csv", "json", "html"):
        export_moments(moments, tmp_path / "out" / f"found.{ending}", query, root)
    with open(tmp_path / "out" / "found.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows[:2]] == [odd, "gone.mp4"] and rows[0]["from"] == "0:01.2"
    assert [row["stale"] for row in rows[:2]] == ["", "gone"]
    assert [row["path"] for row in rows[2:]] == [f"'{name}" for name in formulas]
    assert {row["score"] for row in rows[2:]} == {"-0.25"}  # a number
    content = json.loads((tmp_path / "out" / "found.json").read_text(encoding="utf-8"))
    assert content["query"] == query and content["moments"][0]["score"] == 0.512346
    assert [row["stale"] for row in content["moments"][:2]] == [None, "gone"]
    page = Pictures()
    text = (tmp_path / "out" / "found.html").read_text(encoding="utf-8")
    page.feed(text)
    assert odd in "".join(page.words) and query in "".join(page.words)
    assert "0.250, gone" in text and text.count("gone<") == 1
    assert len(page.pictures) == 1 and page.pictures[0].startswith("data:image/jpeg;base64,")
    assert page.links[0].startswith("../videos/%3Cscript%3E") and page.links[0].endswith("#t=1.2,2")
    with pytest.raises(ValueError, match="endings"):
        export_moments(moments, tmp_path / "found.xlsx", query)
