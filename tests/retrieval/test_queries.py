# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Queries of several parts, few moments of a file, copies, and what scores mean."""

import os
import shutil
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from clip_folders import save_model, write_clip
from indexes import IDENTITY, clustered, synthetic
from media_factory import tone, write_media

from modeling_vatt.retrieval import (
    STRENGTHS,
    Calibration,
    FileRecord,
    Query,
    VattIndex,
    VideoSearch,
    ask_server,
    combined,
    compare_searches,
    embed_query,
    parse_place,
    strength,
    unit,
)
from modeling_vatt.retrieval import index as indexing


PCM = {"sampling_rate": 8000, "audio_codec": "pcm_s16le"}


def expected(index: VattIndex, queries: dict) -> list[tuple[str, float, float]]:
    """(path, start, score) of all windows by NumPy, best first."""
    moments, _ = index.vectors("va")
    scores = sum(index.vectors(space)[1].astype(float) @ query for space, query in queries.items())
    rows = [(m.path, m.start, score) for m, score in zip(moments, scores, strict=True)]
    return sorted(rows, key=lambda row: -row[2])


@pytest.mark.parametrize("limit", [100_000, 10])
@pytest.mark.parametrize("built", [False, True])
def test_the_score_of_a_query_of_several_parts_is_the_weighted_mean_of_its_cosines(
    tmp_path, monkeypatch, limit, built
):
    monkeypatch.setattr(indexing, "EXACT_LIMIT", limit)
    index = synthetic(tmp_path / "i", 60, windows=5)
    if built:
        pytest.importorskip("faiss")
        index.build(force=True)
        with index.store.writing():  # a search of what came later
            pass
    generator = np.random.default_rng(1)
    words, sound, avoided = (generator.standard_normal(dim) for dim in (6, 12, 6))
    queries = combined([("vt", words, 2.0), ("va", sound, 1.0), ("vt", avoided, -0.5)])
    _, va = index.vectors("va")
    _, vt = index.vectors("vt")
    formula = (2 * vt @ unit(words) + va @ unit(sound) - 0.5 * vt @ unit(avoided)) / 3.5
    found = index.search(queries, top_k=8, merge=False)
    assert [(m.path, m.start) for m in found] == [row[:2] for row in expected(index, queries)[:8]]
    assert [m.score for m in found] == pytest.approx(sorted(formula, reverse=True)[:8], abs=1e-5)
    inside = index.search(queries, top_k=8, merge=False, folder="d03")
    assert [(m.path, m.start) for m in inside] == [
        row[:2] for row in expected(index, queries) if row[0].startswith("d03/")
    ][:8]


def test_shares_are_what_is_measured(tmp_path):
    """Of random queries in a space of random windows, a share of s has a declared share of at most s."""
    index = VattIndex.create(tmp_path / "i", None, IDENTITY, 1.0)
    generator = np.random.default_rng(0)
    for number in range(200):
        file = FileRecord(f"{number}.mp4", 1, 1, str(number), 5.0)
        rows = generator.standard_normal((5, 12)) + 1.5  # with a common part, as embeddings have
        index.add(file, np.arange(5.0), np.arange(5.0) + 1, rows, generator.standard_normal((5, 6)))
    calibration = Calibration(index)
    apart = np.where(np.arange(12) < 6, 1.5, -1.5)  # another common part
    queries = {
        "a modality apart": lambda: {"va": unit(generator.standard_normal(12) + apart)},
        "both spaces": lambda: combined(
            [("va", generator.standard_normal(12), 1.0), ("vt", generator.standard_normal(6), 2.0)]
        ),
    }
    tolerances = {0.01: 0.006, 0.05: 0.02, 0.3: 0.05}
    for make in queries.values():
        below = []
        for _ in range(40):
            query = make()
            scale = calibration.scale(query)
            scores = [score for *_, score in expected(index, query)]
            shares = np.array([scale.share(score) for score in scores])
            assert (np.diff(shares) >= 0).all() and shares[0] > 0 and shares[-1] <= 1
            below.append([(shares <= wanted).mean() for wanted in tolerances])
            for wanted in tolerances:
                least = scale.score(wanted)  # is the other way round
                assert [share <= wanted for share in shares] == [score >= least for score in scores]
        for found, (wanted, tolerance) in zip(np.mean(below, 0), tolerances.items(), strict=True):
            assert found == pytest.approx(wanted, abs=tolerance)
    assert strength(None) is None
    assert [strength(share) for share in (0.01, 0.02, 0.05, 0.06)] == ["strong", "likely", "likely", "weak"]


def test_what_fits_less_than_wanted_is_left_out_even_if_nothing_can_fit_more(tmp_path):
    """Of few subjects, where equal moments of other files are ordinary."""
    index, centres = clustered(tmp_path / "i", 3, 1)
    starts = np.arange(4.0)
    for number in range(12):
        noise = 1e-3 * np.random.default_rng(number).standard_normal((4, 12))
        file = FileRecord(f"{number}.mp4", 1, 1, f"c{number}", 4.0)
        index.add(file, starts, starts + 1, centres[number % 3] + noise, np.ones((4, 6)))
    calibration, calls = Calibration(index), 0
    for vector in index.vectors("va")[1][::5]:
        query = {"va": vector}
        calls += calibration.scale(query).score(STRENGTHS["strong"]) > 1
        everything = calibration.near(query, top_k=100, merge=False)
        for name, largest in STRENGTHS.items():
            found = calibration.near(query, at_least=name, top_k=100, merge=False)
            assert found == [m for m in everything if m.share <= largest]
    assert calls


@pytest.mark.parametrize("count", [40, 39])
def test_shares_are_those_of_what_is_there_now(tmp_path, count):
    """Of a page that is open for months: files come and go, and their number is about the same."""
    index, query = synthetic(tmp_path / "i", 40), {"va": np.ones(12, np.float32)}
    calibration = Calibration(index)
    before = calibration.scale(query)
    index.remove([file["path"] for file in index.files()])
    generator = np.random.default_rng(3)
    for number in range(count):
        rows = generator.standard_normal((5, 12)) + 2
        file = FileRecord(f"new{number}.mp4", 1, 1, f"new{number}", 5.0)
        index.add(file, np.arange(5.0), np.arange(5.0) + 1, rows, generator.standard_normal((5, 6)))
    now, fresh = calibration.scale(query), Calibration(index).scale(query)
    assert (now.mean, now.deviation) == (fresh.mean, fresh.deviation) != (before.mean, before.deviation)
    assert calibration.scale(query).random is now.random  # kept while nothing changes


@pytest.mark.parametrize("answer", [b"{}", b"[]", b'{"moments": [{"path": "a.mp4"}]}', b'{"moments": [1]}'])
def test_a_server_of_something_else_is_named(answer):
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(answer)

        def log_message(self, *_: object) -> None:
            pass

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        threading.Thread(target=server.handle_request, daemon=True).start()
        with pytest.raises(ConnectionError, match="not as `vatt serve` does"):
            ask_server(f"http://127.0.0.1:{server.server_port}", Query("x"))


def test_models_agree_on_a_moment_whatever_its_file_is_called(tmp_path):
    def searched(name: str, place: str) -> SimpleNamespace:
        index = synthetic(tmp_path / name, 0)
        starts = np.arange(0, 6, 2.0)
        rows = np.eye(12)[:3]
        index.add(FileRecord(place, 1, 1, "same", 6.0), starts, starts + 1, rows, np.eye(6)[:3])
        index.add(FileRecord("o.mp4", 1, 1, name, 6.0), starts, starts + 1, 0.1 * rows[::-1], np.eye(6)[:3])

        def find(_: Query, **options: Any) -> list:
            return index.search(np.eye(12)[0], "va", **options)

        return SimpleNamespace(index=index, find=find, unknown_words=lambda text: [])

    searches = [searched("one", "a.mp4"), searched("two", "moved/b.mp4")]
    answers = compare_searches(searches, Query("x"), top_k=2, merge=False, min_score=0.5)
    assert [[m.path for m in answer.moments] for answer in answers] == [
        ["a.mp4", "o.mp4"],
        ["moved/b.mp4", "o.mp4"],
    ]
    assert [answer.shared for answer in answers] == [[1, 0], [1, 0]]


def test_an_index_that_is_too_small_says_nothing_of_shares(tmp_path):
    one_file = synthetic(tmp_path / "i", 1)
    query = {"va": np.ones(12, np.float32)}
    assert Calibration(one_file).scale(query) is None
    assert Calibration(synthetic(tmp_path / "j", 0)).scale(query) is None
    many, _ = clustered(tmp_path / "k", 3, 40)
    assert Calibration(many).scale(query) is not None
    assert Calibration(many).scale({"va": np.zeros(12, np.float32)}) is None


def test_queries_that_make_no_sense():
    for arguments, message in (
        ({}, "Nothing to look for"),
        ({"avoid": ("a",)}, "Nothing to look for"),
        ({"text": " "}, "' ' holds no words"),
        ({"text": "a", "avoid": ("b", "")}, "'' holds no words"),
        ({"text": "a", "weights": {"audio": 1.0}}, "'audio', which the query has not"),
        ({"text": "a", "weights": {"text": 0.0}}, "positive"),
        ({"text": "a", "weights": {"text": float("nan")}}, "positive"),
    ):
        with pytest.raises(ValueError, match=message):
            Query(**arguments)
    query = Query("a", "b.wav", like=("c.mp4", 1.5), avoid=("d",), weights={"text": 2})
    assert query.name == "a + b.wav + like c.mp4@1.5 - d"
    assert [query.weight(part) for part in ("text", "audio", "avoid")] == [2, 1, 0.5]


@pytest.mark.parametrize(
    ("text", "place"),
    [
        ("a.mp4@12.5", ("a.mp4", 12.5)),
        ("a@b/c.mp4@1:02:03.5", ("a@b/c.mp4", 3723.5)),
        ("a.mp4@1:30", ("a.mp4", 90.0)),
        ("a-b.mp4@0:03.0-0:06.5", ("a-b.mp4", 4.75)),  # as results are shown
        ("a@1-2-3", ("a@1-2-3", None)),
        ("a@-3", ("a@-3", None)),
        ("a@b.mp4", ("a@b.mp4", None)),
        ("@3", ("@3", None)),
        ("a.mp4@", ("a.mp4@", None)),
    ],
)
def test_places_in_files(text, place):
    assert parse_place(text) == place


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> VideoSearch:
    folder = tmp_path_factory.mktemp("queries")
    save_model(folder / "model")
    (folder / "videos").mkdir()
    for number in range(6):
        write_clip(folder / "videos" / f"{number}.mp4", number, 2.0)
    search = VideoSearch.create(folder / "videos", folder / "model")
    search.update()
    return search


def test_parts_are_compared_in_their_spaces(search, tmp_path):
    sound = write_media(tmp_path / "s.wav", waveform=tone(1, 8000), **PCM)
    clip = search.index.root / "3.mp4"
    embed = {
        name: unit(embed_query(search.model, search.processor, **{name.rstrip("2"): source}))
        for name, source in (("text", "a grey tone"), ("audio", sound), ("video", clip), ("text2", "number"))
    }
    query = Query("a grey tone", sound, clip, avoid=("number",), weights={"audio": 3.0, "avoid": 1.0})
    _, va = search.index.vectors("va")
    _, vt = search.index.vectors("vt")
    formula = (vt @ embed["text"] + 3 * va @ embed["audio"] + va @ embed["video"] - vt @ embed["text2"]) / 6
    found = search.find(query, top_k=100, merge=False)
    assert [m.score for m in found] == pytest.approx(sorted(formula, reverse=True), abs=1e-5)
    assert [m.share for m in found] == sorted(m.share for m in found)
    for name in ("strong", "likely"):
        chosen = search.find(query, at_least=name, top_k=100, merge=False)
        assert chosen == [m for m in found if m.share <= STRENGTHS[name]]


def test_words_that_the_model_does_not_take_in(search):
    """It reads five; of each text, those to avoid too, and of a server's answer as well as here."""
    beyond = "a grey tone number clip zebra number 7"
    read = search.embed(search.read(Query(beyond)))["vt"]
    np.testing.assert_array_equal(read, search.embed(search.read(Query("a grey tone number clip")))["vt"])
    assert search.unknown_words(beyond) == ["zebra", "7"]
    assert search.unknown_words(*Query("a grey tone", avoid=("a dog", "clip 3")).texts) == ["dog"]
    assert search.unknown_words(*Query(like=("2.mp4", 1.0)).texts) == []


def test_more_like_a_moment(search, tmp_path):
    index = search.index
    window, vectors = index.window_at("2.mp4", 1.0)
    middles = [(m.start + m.end) / 2 for m in index.vectors("va")[0] if m.path == "2.mp4"]
    for second in (None, 0.0, 1.0, 2.0):
        nearest, _ = index.window_at("2.mp4", second)
        place = nearest.duration / 2 if second is None else second
        assert (nearest.start + nearest.end) / 2 == min(middles, key=lambda middle: abs(middle - place))
    found = search.find(Query(like=("2.mp4", 1.0)), top_k=100, merge=False)
    best = [m for m in index.search(vectors["va"], "va", top_k=100, merge=False) if not m.overlaps(window)]
    assert [(m.path, m.start) for m in found] == [(m.path, m.start) for m in best]
    # The same by the path of the file, and for a copy that is not in the index.
    assert search.find(Query(like=(index.root / "2.mp4", 1.0)), top_k=100, merge=False) == found
    other = tmp_path / "other.mp4"
    other.write_bytes((index.root / "2.mp4").read_bytes())
    assert search.find(Query(like=(other, 1.0)), top_k=100, merge=False) == found
    # Another file is looked at as it is.
    write_clip(other, 2, 2.4)
    almost = search.find(Query(like=(other, 1.0)), top_k=100, merge=False)
    assert len(almost) == len(index) and almost[0].path == "2.mp4" and almost[0].score > 0.9
    with pytest.raises(ValueError, match=r"none\.mp4"):
        search.find(Query(like=("none.mp4", None)))
    for seconds in (2.45, 100.0, -1.0):  # the nearest window would be another moment
        with pytest.raises(ValueError, match=rf"2\.mp4 has no second {seconds:g}: it ends at 2"):
            search.find(Query(like=("2.mp4", seconds)))
        with pytest.raises(ValueError, match=rf"other\.mp4: it has no second {seconds:g}"):
            search.find(Query(like=(other, seconds)))


def test_more_like_a_file_that_has_changed_is_like_what_it_is_now(search, tmp_path, monkeypatch):
    """Given by its place or by its name in the index. Touched files are known; so are those that came in
    their place and are indexed under other names."""
    root = shutil.copytree(search.index.root, tmp_path / "videos")
    with VideoSearch.open(root).index as index:
        own = VideoSearch(index, search.model, search.processor)
        before = own.find(Query(like=("2.mp4", 1.0)), top_k=100)
        os.utime(root / "2.mp4", (1, 1))
        assert own.find(Query(like=("2.mp4", 1.0)), top_k=100) == before
        write_clip(root / "2.mp4", 9, 2.4)
        clip = {"video": root / "2.mp4", "start": 1.0 - index.window / 2}
        expected = index.search(embed_query(own.model, own.processor, **clip), "va", top_k=100)
        assert expected[0].score != pytest.approx(before[0].score, abs=1e-3)
        for name in ("2.mp4", root / "2.mp4"):
            found = own.find(Query(like=(name, 1.0)), top_k=100)
            assert [(m.path, m.start) for m in found] == [(m.path, m.start) for m in expected]
            assert [m.score for m in found] == pytest.approx([m.score for m in expected], abs=1e-5)
        shutil.copy(root / "4.mp4", root / "2.mp4")
        assert own.index.moment_of("2.mp4", 1.0)[0].path == "4.mp4"
        # A file here, not one of the index that has its name by chance.
        (tmp_path / "here").mkdir()
        monkeypatch.chdir(tmp_path / "here")
        write_clip(tmp_path / "here/1.mp4", 8, 2.0)
        assert index.moment_of("1.mp4", 1.0) is None
        (root / "3.mp4").unlink()  # is known by the index alone
        assert index.moment_of("3.mp4", 1.0)[0].path == "3.mp4"


def test_seconds_that_no_window_holds_and_ends_of_files(search, tmp_path):
    """Windows lie far apart: the nearest would be another moment. The last one ends with the file, as those
    do that are read from files."""
    root = tmp_path / "videos"
    root.mkdir()
    pictures = np.random.default_rng(0).integers(0, 256, (5, 4, 4, 3), np.uint8)
    frames = pictures.repeat(10, 0).repeat(4, 1).repeat(4, 2)  # another one every second
    write_media(root / "a.mp4", frames=frames, fps=10)
    own = VideoSearch.create(root, search.index.identity.name, stride=2.0)
    own.update()
    moments, rows = own.index.vectors("va")
    assert [m.start for m in moments] == pytest.approx([0, 2, 4, 4.2])
    other = tmp_path / "other.mp4"
    other.write_bytes((root / "a.mp4").read_bytes() + b"\0")  # another content, the same film

    def embedded(name: object, second: float) -> np.ndarray:
        return unit(own.embed(own.read(Query(like=(name, second))))["va"])

    for name in ("a.mp4", other):
        clip = {"video": other, "start": 1.4 - own.index.window / 2}
        now = unit(embed_query(own.model, own.processor, **clip))
        np.testing.assert_allclose(embedded(name, 1.4), now, atol=1e-5)
        assert np.abs(now - rows).max(1).min() > 1e-3
        np.testing.assert_allclose(embedded(name, 5.0), rows[-1], atol=1e-5)
    assert len(own.find(Query(like=("a.mp4", 2.4)), merge=False)) == len(own.index) - 1  # is in the index
    (root / "a.mp4").unlink()
    with pytest.raises(ValueError, match=r"a\.mp4"):
        own.find(Query(like=("a.mp4", 1.4)))


def test_silence_is_no_query(search, tmp_path):
    silent = write_media(tmp_path / "s.wav", waveform=np.zeros((1, 8000), np.float32), **PCM)
    with pytest.raises(ValueError, match=r"s\.wav: the sound to look for is silent"):
        search.audio(silent)
