# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The server of the web page: what it answers, and what it refuses."""

import asyncio
import contextlib
import hashlib
import itertools
import json
import math
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import urllib.error
import urllib.request
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from httpx2 import Response
from media_factory import tone, write_media
from PIL import Image
from starlette.requests import Request
from starlette.testclient import TestClient
from typer.testing import CliRunner
from web_folder import (
    BASE,
    DAMAGED,
    FILES,
    SECONDS,
    answer_to,
    client_of,
    make_search,
    request_of,
    write_video,
)

from modeling_vatt.cli import app
from modeling_vatt.processors import MediaLimits
from modeling_vatt.processors.media import VIDEO_SUFFIXES
from modeling_vatt.processors.media import isolation as media_isolation
from modeling_vatt.retrieval import Moment, Query, VideoSearch, strength, video_search
from modeling_vatt.web import WebSettings, create_app, service
from modeling_vatt.web.guard import SECURITY_HEADERS
from modeling_vatt.web.library import MEDIA_TYPES, Library
from modeling_vatt.web.uploads import Uploads, shown_name, size_text


BIRD = "garden/bird.mp4"


@pytest.fixture(scope="module")
def sound(tmp_path_factory) -> bytes:
    path = tmp_path_factory.mktemp("sound") / "tone.wav"
    return write_media(
        path, waveform=tone(1, 16000), sampling_rate=16000, audio_codec="pcm_s16le"
    ).read_bytes()


# --- searching ---


def assert_moments(answer: Response, expected: list[Moment]) -> None:
    """The page answers with what the index finds."""
    assert answer.status_code == 200, answer.text
    found = answer.json()["moments"]
    assert [(m["path"], m["start"], m["end"]) for m in found] == [(m.path, m.start, m.end) for m in expected]
    assert [m["score"] for m in found] == pytest.approx([m.score for m in expected], abs=1e-5)
    assert [m["duration"] for m in found] == pytest.approx([SECONDS] * len(found), abs=0.2)


def test_text_search_is_that_of_the_index(client, search):
    answer = client.get("/api/search", params={"q": "  grey \n number ", "top_k": 5})
    expected = search.text("grey number", top_k=5)
    assert len(expected) > 1
    assert_moments(answer, expected)


def test_words_the_model_does_not_know(client):
    def unknown(query: str) -> list[str]:
        return client.get("/api/search", params={"q": query}).json()["unknown"]

    assert unknown("grey \u2603 number \u2603") == ["\u2603"]
    assert unknown("a grey tone") == []


def test_filters(client):
    def paths(**options) -> list[str]:
        answer = client.get("/api/search", params={"q": "a tone", "top_k": 50, **options})
        return [moment["path"] for moment in answer.json()["moments"]]

    assert set(paths()) == set(FILES)
    assert set(paths(folder="street/market")) == {"street/market/stall.mp4"}
    assert set(paths(folder="street")) == {name for name in FILES if name.startswith("street")}
    scores = [m["score"] for m in client.get("/api/search?q=a+tone&top_k=50").json()["moments"]]
    middle = (min(scores) + max(scores)) / 2
    assert len(paths(min_score=middle)) == sum(score >= middle for score in scores) < len(scores)
    assert paths(min_score=1.0) == []


@pytest.mark.parametrize("seconds", [None, 0.0, 4.3, SECONDS])
def test_more_like_a_moment(client, search, seconds):
    options = {"like": BIRD, "top_k": 50} | ({} if seconds is None else {"t": seconds})
    expected = search.find(Query(like=(BIRD, seconds)), top_k=50, distinct=True)
    assert_moments(client.get("/api/search", params=options), expected)


@pytest.mark.parametrize(
    "path", ["nowhere.mp4", DAMAGED, "secret.txt", "/etc/passwd", "garden/../garden/bird.mp4", ""]
)
def test_more_like_a_file_that_the_index_does_not_hold(client, folder, monkeypatch, path):
    monkeypatch.chdir(folder / "garden")  # nor is it looked for on the disk
    for name in (path, "bird.mp4"):
        answer = client.get("/api/search", params={"like": name})
        assert (answer.status_code, answer.json()) == (404, {"error": "No such file in the index."})


def test_moments_of_a_file_copies_and_what_scores_mean(search, folder, tmp_path):
    shutil.copytree(folder, tmp_path / "videos", ignore=shutil.ignore_patterns(".*"))
    shutil.copy(folder / BIRD, tmp_path / "videos/copy of bird.mp4")
    own = VideoSearch.create(tmp_path / "videos", search.index.identity.name)
    own.update()
    with client_of(own) as client:

        def found(**options) -> list[dict]:
            answer = client.get("/api/search", params={"q": "a tone", "top_k": 100, **options})
            return answer.json()["moments"]

        counts = Counter(moment["path"] for moment in found())
        assert max(counts.values()) > 1
        fewer = found(per_file=1)
        assert Counter(moment["path"] for moment in fewer) == dict.fromkeys(counts, 1)
        (bird,) = [moment for moment in fewer if moment["path"].endswith("bird.mp4")]
        assert {bird["path"], *bird["copies"]} == {BIRD, "copy of bird.mp4"}
        assert all(moment["strength"] == strength(moment["share"]) is not None for moment in fewer)
        upload = client.post("/api/search?by=video&per_file=1", content=(folder / BIRD).read_bytes()).json()
        assert upload["moments"][0]["strength"] is not None
        for plain in (
            client.get("/api/sample").json()["moments"],
            client.get("/api/map?layout=pca").json()["points"],
        ):
            assert not {"score", "strength", "copies"} & set(plain[0])


@pytest.mark.parametrize("by", ["video", "audio"])
def test_a_clip_finds_by_pictures_and_by_sound(client, search, folder, by):
    content = (folder / BIRD).read_bytes()
    answer = client.post("/api/search", params={"by": by, "name": "x.mp4", "top_k": 3}, content=content)
    assert_moments(answer, getattr(search, by)(folder / BIRD, top_k=3))


def test_several_parts(client, search, folder, sound, tmp_path):
    """Words, words to avoid, a sound, a clip and a moment, in one request, as without the page."""
    bird, other = (folder / BIRD).read_bytes(), tmp_path / "other.mp4"
    write_video(other, 77, 350.0, seconds=2.0)
    (tmp_path / "tone.wav").write_bytes(sound)
    weights = {"text": 2.0, "avoid": 1.0}
    words = {"q": "a tone", "not": ["dog", "a cat"], "weight": ["text=2", "avoid=1"], "top_k": 50}
    shared = {"text": "a tone", "avoid": ("dog", "a cat"), "weights": weights}

    def compare(answer, query, **options) -> None:
        assert_moments(answer, search.find(query, top_k=50, distinct=True, **options))

    compare(client.get("/api/search", params=words), Query(**shared))
    compare(client.get("/api/search", params=words | {"like": BIRD, "t": 2}), Query(**shared, like=(BIRD, 2)))
    for names, sources in (
        (["audio", "video"], [tmp_path / "tone.wav", folder / BIRD]),
        (["video", "audio", "like"], [other, tmp_path / "tone.wav", other]),
        (["like"], [folder / BIRD]),  # the index holds its content
    ):
        contents = [source.read_bytes() for source in sources]
        options = {"by": names, "size": [len(content) for content in contents[:-1]], "t": 1.5}
        files = dict(zip(names, sources, strict=True))
        if "like" in files:
            files["like"] = (files["like"], 1.5)
        answer = client.post("/api/search", params=words | options, content=b"".join(contents))
        compare(answer, Query(**shared, **files))
    digest = hashlib.sha256(bird).hexdigest()
    by_hash = {"like": f"sha256:{digest}", "t": 2, "top_k": 50, "merge": False}
    compare(client.get("/api/search", params=by_hash), Query(like=(BIRD, 2)), merge=False)
    assert client.get("/api/search", params={"like": f"sha256:{digest[1:]}0"}).status_code == 404
    for options, status in (
        ({"by": ["audio", "audio"], "size": 5}, 400),
        ({"by": ["audio", "video"]}, 400),
        ({"by": ["audio", "video"], "size": len(bird)}, 400),
        ({"by": ["audio", "video"], "size": -1}, 400),
        ({"by": ["audio", "video"], "size": 10}, 422),
        ({"by": "like", "like": BIRD}, 400),
        ({"by": "text"}, 400),
    ):
        answer = client.post("/api/search", params=options, content=bird)
        assert answer.status_code == status and set(answer.json()) == {"error"}, options


@pytest.mark.parametrize(
    "options, message",
    [
        ({"q": "   "}, "The query is empty"),
        ({"q": "x" * 501}, "501 characters; at most 500"),
        ({"q": "..."}, "holds no words"),
        ({}, "Nothing to look for"),
        ({"not": "dog"}, "Nothing to look for"),
        ({"q": "dog", "not": " "}, "The query is empty"),
        ({"q": "dog", "not": ["a"] * 21}, "not: "),
        ({"q": "dog", "weight": "text"}, "must be PART=NUMBER"),
        ({"q": "dog", "weight": "text=nan"}, "must be positive"),
        ({"q": "dog", "weight": "audio=1"}, "which the query has not"),
        ({"q": "dog", "at_least": "certain"}, "at_least: "),
        ({"like": BIRD, "t": 6.5}, "bird.mp4 has no second 6.5: it ends at 6"),
        ({"like": BIRD, "t": -1}, "t: "),
        ({"like": BIRD, "t": "nan"}, "t: "),
        ({"q": "dog", "per_file": 0}, "per_file"),
        ({"q": "dog", "top_k": 0}, "top_k"),
        ({"q": "dog", "top_k": 201}, "At most 200 results"),
        ({"q": "dog", "min_score": "nan"}, "min_score"),
        ({"q": "dog", "folder": "x" * 5000}, "folder"),
        ({"q": "dog", "folder": "../.."}, "no such folder"),
        ({"q": "dog", "folder": "nowhere"}, "no such folder"),
    ],
)
def test_wrong_queries_get_a_sentence(client, options, message):
    answer = client.get("/api/search", params=options)
    assert answer.status_code == 400
    assert message in answer.json()["error"]
    assert set(answer.json()) == {"error"}


# --- uploads ---


def test_bad_uploads(client, sound, tmp_path):
    silence = write_media(
        tmp_path / "s.wav",
        waveform=np.zeros((1, 8000), np.float32),
        sampling_rate=8000,
        audio_codec="pcm_s16le",
    )
    for by, content, message in (
        ("audio", b"hello, not media", "not a readable media file"),
        ("audio", bytes(5000), "not a readable media file"),
        ("audio", b"RIFF\x24\x00\x00\x00WAVEfmt ", "not a readable media file"),
        ("audio", silence.read_bytes(), "the sound to look for is silent"),
        ("video", sound, "no video stream"),
    ):
        answer = client.post(f"/api/search?by={by}&name=../../my%20song.wav", content=content)
        error = answer.json()["error"]
        assert answer.status_code == 422 and message in error
        assert error.startswith("my song.wav: ") and error.endswith("Try another file.")
        assert "vatt-upload" not in error and "Traceback" not in error
    for by, content, message in (("audio", b"", "empty"), ("smell", b"x", "by:")):
        answer = client.post(f"/api/search?by={by}", content=content)
        assert answer.status_code == 400 and message in answer.json()["error"]
    assert client.put("/api/search?by=audio", content=b"x").status_code == 405


def test_upload_limit_with_and_without_a_stated_length(search, sound):
    with client_of(search, max_upload_bytes=len(sound) - 1) as client:
        for content in (sound, iter([sound[:9000], sound[9000:]])):
            answer = client.post("/api/search?by=audio", content=content)
            assert answer.status_code == 413
            assert "larger than 31.3 kB" in answer.json()["error"]
    with client_of(search, max_upload_bytes=len(sound)) as client:
        assert client.post("/api/search?by=audio", content=iter([sound])).status_code == 200


def test_decoding_limits(search, folder):
    limits = replace(MediaLimits(), max_pixels=64 * 47)
    with client_of(search, media_limits=limits) as client:
        answer = client.post("/api/search?by=video", content=(folder / BIRD).read_bytes())
    assert answer.status_code == 422
    assert "64 x 48 is more than 3008 pixels" in answer.json()["error"]


def test_uploads_leave_no_files(search, sound, tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    seen = []

    original = video_search.read_query

    def watched(processor, audio, **options):
        seen.append((audio.stat().st_size, audio.parent.parent))
        return original(processor, audio=audio, **options)

    monkeypatch.setattr(video_search, "read_query", watched)
    with client_of(search, max_upload_bytes=len(sound)) as client:
        assert client.post("/api/search?by=audio", content=sound).status_code == 200
        assert client.post("/api/search?by=audio", content=b"bad").status_code == 422
        assert client.post("/api/search?by=audio", content=iter([sound, b"more"])).status_code == 413
    assert seen == [(len(sound), tmp_path), (3, tmp_path)]
    assert list(tmp_path.iterdir()) == []


def receive_upload(settings: WebSettings, messages: list, sent: float = 0.0) -> int:
    """Size of what arrives, with pauses of `sent` seconds."""

    async def receive() -> dict:
        await asyncio.sleep(sent)
        return messages.pop(0)

    async def run() -> int:
        request = Request({"type": "http", "method": "POST", "headers": []}, receive)
        async with Uploads(settings).receive(request) as (path,):
            return path.stat().st_size

    return asyncio.run(run())


def test_slow_and_broken_uploads(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    part = {"type": "http.request", "body": b"1234", "more_body": True}
    last = {**part, "more_body": False}
    assert receive_upload(WebSettings(), [part, last]) == 8
    with pytest.raises(Exception, match="took too long"):
        receive_upload(WebSettings(upload_seconds=0.01), [part, part, last], sent=1.0)
    with pytest.raises(Exception, match="broken off"):
        receive_upload(WebSettings(), [part, {"type": "http.disconnect"}])
    with pytest.raises(Exception, match="Too many uploads"):
        receive_upload(WebSettings(max_uploads=0), [last])
    assert list(tmp_path.iterdir()) == []


def test_texts():
    assert shown_name("C:\\a\\b.wav") == "b.wav"
    assert shown_name("../\x1b[31m\n") == "[31m"
    assert shown_name("") == "the upload"
    assert [size_text(n) for n in (512, 200 * 1024**2, 3 * 1024**3)] == ["512 bytes", "200 MB", "3 GB"]


# --- files ---


@pytest.mark.parametrize("name", FILES)
def test_files_of_the_index_are_served(client, folder, name):
    answer = client.get(f"/media/{quote(name)}")
    assert answer.status_code == 200
    assert answer.content == (folder / name).read_bytes()
    kinds = {".mp4": "video/mp4", ".webm": "video/webm", ".avi": "application/octet-stream"}
    assert answer.headers["content-type"] == kinds[Path(name).suffix]


TRAVERSALS = [
    "secret.txt",  # inside the folder, not in the index
    ".vatt-index/index.sqlite",
    quote(DAMAGED),  # in the index, not readable
    "garden",
    "",
    "../secret.txt",
    "garden/../secret.txt",
    "garden/../garden/bird.mp4",
    "./garden/bird.mp4",
    "garden//bird.mp4",
    "%2e%2e/%2e%2e/etc/passwd",
    "..%2f..%2f..%2fetc%2fpasswd",
    "%252e%252e/etc/passwd",
    "....//....//etc/passwd",
    "/etc/passwd",
    "%2fetc%2fpasswd",
    "..\\..\\etc\\passwd",
    "..%5c..%5cetc%5cpasswd",
    "garden%5cbird.mp4",
    "garden/bird.mp4%00",
    "garden/bird.mp4%00.txt",
    "%00",
    "garden/bird.mp4/",
    "garden/bird.mp4/.",
    "%c0%ae%c0%ae/etc/passwd",
    "file:///etc/passwd",
    "~/.ssh/id_rsa",
    "x" * 5000,
]


@pytest.mark.parametrize("path", TRAVERSALS)
@pytest.mark.parametrize("route", ["media", "thumbnail"])
def test_nothing_else_is_served(search, route, path):
    request = request_of("GET", f"/{route}/{path}".encode(), headers=[(b"host", b"127.0.0.1")])
    status, _, body = asyncio.run(answer_to(create_app(search), request))
    assert status == 404
    assert b"root:" not in body and b"not to be served" not in body


def test_links_that_lead_out_are_not_followed(tmp_path):
    root = tmp_path / "videos"
    outside = write_video(tmp_path / "outside.mp4", 50, 400.0, 2.0)
    for name in ("a.mp4", "b.mp4", "deep/c.mp4"):
        write_video(root / name, 80, 400.0, 2.0)
    search = make_search(root, tmp_path / "model")
    with client_of(search) as client:
        for name in ("a.mp4", "b.mp4", "deep/c.mp4"):
            assert client.get(f"/media/{name}").status_code == 200
        # After indexing, files and a folder become links.
        (root / "a.mp4").unlink()
        (root / "a.mp4").symlink_to(outside)
        shutil.move(root / "deep", tmp_path / "elsewhere")
        (root / "deep").symlink_to(tmp_path / "elsewhere")
        for name in ("a.mp4", "deep/c.mp4"):
            for route in ("media", "thumbnail"):
                assert client.get(f"/{route}/{name}").status_code == 404, name
        # A link to a file inside is one of the folder's files.
        (root / "a.mp4").unlink()
        (root / "a.mp4").symlink_to(root / "b.mp4")
        assert client.get("/media/a.mp4").content == (root / "b.mp4").read_bytes()
        # A pipe would hold the request for ever.
        (root / "a.mp4").unlink()
        os.mkfifo(root / "a.mp4")
        assert client.get("/media/a.mp4").status_code == 404
        (root / "b.mp4").unlink()
        assert client.get("/media/b.mp4").status_code == 404


def test_root_that_is_a_link(folder, search, tmp_path):
    (tmp_path / "link").symlink_to(folder)
    again = VideoSearch(type(search.index).open(tmp_path / "link"), search.model, search.processor)
    with client_of(again) as client:
        assert client.get(f"/media/{BIRD}").status_code == 200
        assert client.get("/media/secret.txt").status_code == 404


def test_only_videos_are_served_whatever_the_index_names(folder, search):
    """The index of a stranger, who chose its root and its files."""

    class Hostile:
        root = folder

        def __getattr__(self, name):
            return getattr(search.index, name)

        def files(self):
            entry = next(entry for entry in search.index.files() if entry["path"] == BIRD)
            names = ("secret.txt", ".vatt-index/index.sqlite", ".vatt-index/clip.mp4", BIRD)
            return [{**entry, "path": name} for name in names]

    hidden = folder / ".vatt-index" / "clip.mp4"
    shutil.copy(folder / BIRD, hidden)
    try:
        library = Library(Hostile())
        assert (folder / "secret.txt").is_file() and library.locate(BIRD) == (folder / BIRD).resolve()
        for name in library.files().keys() - {BIRD}:
            assert library.locate(name) is None, name
        library.close()
    finally:
        hidden.unlink()


def test_media_types_are_those_of_videos():
    assert MEDIA_TYPES.keys() <= VIDEO_SUFFIXES
    assert all(kind.startswith("video/") for kind in MEDIA_TYPES.values())


def test_thumbnails(client):
    answer = client.get(f"/thumbnail/{BIRD}", params={"t": 2.5})
    assert answer.headers["content-type"] == "image/jpeg"
    picture = Image.open(BytesIO(answer.content))
    assert picture.size == (64, 48)
    level = FILES[BIRD][0]
    assert picture.getpixel((32, 24))[0] == pytest.approx(level + 12, abs=4)
    assert client.get(f"/thumbnail/{BIRD}", params={"t": 2.5}).content == answer.content


def test_index_without_videos(search):
    """As from the Hub: it can be searched, but there is nothing to see."""

    class Bare:
        root = None

        def __getattr__(self, name):
            return getattr(search.index, name)

        def __len__(self):
            return len(search.index)

    bare = VideoSearch(Bare(), search.model, search.processor)
    with client_of(bare) as client:
        assert client.get("/api/info").json()["name"] is None
        assert client.get("/api/search?q=tone").json()["moments"]
        assert client.get(f"/media/{BIRD}").status_code == 404


# --- information and map ---


def test_info_and_report(client, folder, search):
    answer = client.get("/api/info").json()
    assert (answer["files"], answer["windows"], answer["name"]) == (len(FILES), len(search.index), "videos")
    assert answer["folders"] == ["garden", "old", "street", "street/market"]
    assert answer["seconds"] == pytest.approx(SECONDS * len(FILES), abs=1)
    assert answer["max_upload_bytes"] == WebSettings().max_upload_bytes
    (report,) = answer["unreadable"]
    assert report["path"] == DAMAGED and report["error"] and not report["partly"]
    assert str(folder) not in client.get("/api/info").text


@pytest.mark.parametrize("layout", ["tsne", "pca"])
@pytest.mark.parametrize("space", ["vt", "va"])
def test_map(client, search, space, layout):
    answer = client.get("/api/map", params={"space": space, "layout": layout}).json()
    points = answer["points"]
    assert len(points) == answer["total"] == len(search.index)
    moments, _ = search.index.vectors(space)
    assert [(p["path"], p["start"], p["end"]) for p in points] == [(m.path, m.start, m.end) for m in moments]
    for axis in ("x", "y"):
        assert all(0 <= point[axis] <= 1 for point in points)
    assert max(max(p["x"] for p in points), max(p["y"] for p in points)) == pytest.approx(1)


def test_neighbours_on_the_map_are_alike(client):
    """Windows of one file, a nearly even picture, lie closer together than the files do."""
    points = client.get("/api/map?layout=pca").json()["points"]
    places = {name: np.array([(p["x"], p["y"]) for p in points if p["path"] == name]) for name in FILES}
    within = [math.dist(place, found.mean(0)) for found in places.values() for place in found]
    between = [math.dist(a.mean(0), b.mean(0)) for a, b in itertools.combinations(places.values(), 2)]
    assert np.mean(within) < np.mean(between)


def test_map_is_capped_and_computed_once(search, monkeypatch):
    calls = []
    original = service._places
    monkeypatch.setattr(service, "_places", lambda *args: calls.append(args) or original(*args))
    with client_of(search, max_map_points=5) as client, ThreadPoolExecutor(3) as pool:
        answers = list(pool.map(lambda _: client.get("/api/map?layout=pca").json(), range(3)))
    assert len(calls) == 1
    assert [len(answer["points"]) for answer in answers] == [5, 5, 5]
    assert answers[0]["total"] == len(search.index)


# --- who may ask ---


@pytest.mark.parametrize(
    "host, allowed",
    [
        ("127.0.0.1:8000", True),
        ("localhost", True),
        ("LocalHost:1", True),
        ("[::1]:8000", True),
        ("evil.example", False),
        ("evil.example:8000", False),
        ("127.0.0.1.evil.example", False),
        ("localhost.evil.example", False),
        ("192.168.0.5:8000", False),
        ("127.0.0.1:8000@evil.example", False),
        ("127.0.0.1/", False),
        ("localhost\x00", False),
        ("", False),
    ],
)
def test_only_loopback_names(client, host, allowed):
    for path in ("/", "/api/info", f"/media/{BIRD}", "/static/main.js"):
        answer = client.get(path, headers={"Host": host})
        assert (answer.status_code == 200) == allowed, (path, answer.status_code)
        if not allowed:
            assert answer.status_code == 421 and "does not go by this name" in answer.json()["error"]


def test_remote_settings(search):
    with client_of(search, allow_remote=True, allowed_hosts=("Films.example",)) as client:
        for host, allowed in {
            "192.168.0.5:8000": True,
            "[fe80::1]": True,
            "films.example:80": True,
            "evil.example": False,
            "localhost": True,
        }.items():
            assert (client.get("/api/info", headers={"Host": host}).status_code == 200) == allowed, host


@pytest.mark.parametrize(
    "headers, allowed",
    [
        ({}, True),
        ({"Sec-Fetch-Site": "same-origin"}, True),
        ({"Sec-Fetch-Site": "none"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, False),
        ({"Sec-Fetch-Site": "same-site"}, False),  # another port of this machine
        ({"Origin": BASE}, True),
        ({"Origin": "http://evil.example"}, False),
        ({"Origin": "http://127.0.0.1:9999"}, False),
        ({"Origin": "null"}, False),
    ],
)
def test_other_sites_are_refused(client, headers, allowed):
    for answer in (
        client.get("/api/info", headers=headers),
        client.get(f"/media/{BIRD}", headers=headers),
        client.post("/api/search?by=audio", content=b"x", headers=headers),
    ):
        assert (answer.status_code != 403) == allowed
        assert not [name for name in answer.headers if name.startswith("access-control")]
    # A link from elsewhere leads to the page.
    assert client.get("/", headers=headers).status_code == 200
    preflight = client.options("/api/search", headers={**headers, "Access-Control-Request-Method": "POST"})
    assert preflight.status_code in (403, 405)
    assert not [name for name in preflight.headers if name.startswith("access-control")]


def test_headers_of_every_answer(client):
    for path in ("/", "/static/main.js", "/api/info", f"/media/{BIRD}", "/media/none", "/api/search"):
        headers = client.get(path).headers
        for name, value in SECURITY_HEADERS.items():
            assert headers[name] == value, path
    policy = SECURITY_HEADERS["Content-Security-Policy"]
    assert "unsafe" not in policy and "http" not in policy and "frame-ancestors 'none'" in policy
    assert client.get("/", headers={"Host": "evil.example"}).headers["X-Content-Type-Options"] == "nosniff"


def test_page_needs_nothing_from_elsewhere(client):
    page = client.get("/")
    assert page.headers["content-type"].startswith("text/html")
    for name in ("style.css", "main.js", "address.js", "map.js", "player.js", "format.js", "icon.svg"):
        answer = client.get(f"/static/{name}")
        assert answer.status_code == 200
        text = answer.text.replace("http://www.w3.org/2000/svg", "")
        assert "http:" not in text and "https:" not in text and "innerHTML" not in text
    assert "<script>" not in page.text and "style=" not in page.text and "onclick" not in page.text
    for path in ("/docs", "/redoc", "/openapi.json", "/static/../app.py", "/static/%2e%2e/app.py"):
        assert client.get(path).status_code == 404


# --- failures and load ---


def test_failures_are_not_shown(search, caplog):
    class Broken:
        index, processor = search.index, search.processor

        def text(self, query, **options):
            raise RuntimeError("secret path /home/me")

    client = TestClient(create_app(Broken()), base_url=BASE, raise_server_exceptions=False)
    with client:
        answer = client.get("/api/search?q=dog")
        assert answer.status_code == 500
        assert "secret" not in answer.text and "its log says why" in answer.json()["error"]
        assert answer.headers["X-Content-Type-Options"] == "nosniff"
        assert client.get("/api/info").status_code == 200  # the server goes on


def test_model_works_for_one_at_a_time_and_the_rest_goes_on(search, monkeypatch):
    inside, most, asked = [], [], []
    release, started, full = threading.Event(), threading.Event(), threading.Event()
    run = service.SearchService.run

    async def counted(self, *call):
        asked.append(call)
        if len(asked) == 3:
            full.set()
        return await run(self, *call)

    monkeypatch.setattr(service.SearchService, "run", counted)

    class Slow:
        index, processor, unknown_words = search.index, search.processor, search.unknown_words
        read = staticmethod(search.read)

        def find(self, query, **options):
            inside.append(query)
            most.append(len(inside))
            started.set()
            assert release.wait(30)
            inside.remove(query)
            return []

    with client_of(Slow(), max_waiting=3) as client, ThreadPoolExecutor(3) as pool:
        answers = [pool.submit(client.get, "/api/search?q=dog") for _ in range(3)]
        assert started.wait(30) and full.wait(30)
        # Neither files nor the page, with what it asks for at its start, wait for the model.
        assert client.get("/").status_code == 200
        assert client.get("/api/info").json()["windows"] == len(search.index)
        assert client.get(f"/media/{BIRD}").status_code == 200
        assert client.get(f"/thumbnail/{BIRD}?t=1").status_code == 200
        extra = client.get("/api/search?q=dog")
        assert extra.status_code == 503 and "Try again" in extra.json()["error"]
        assert extra.headers["retry-after"] == "5"
        release.set()
    assert [answer.result().status_code for answer in answers] == [200] * 3
    assert max(most) == 1


def test_upload_that_hangs_the_decoder_holds_up_nobody_else(search, sound, monkeypatch):
    started, release = threading.Event(), threading.Event()
    original = video_search.read_query

    def hanging(processor, **query):
        started.set()
        assert release.wait(60)
        return original(processor, **query)

    monkeypatch.setattr(video_search, "read_query", hanging)
    with client_of(search) as client, ThreadPoolExecutor() as pool:
        hung = pool.submit(client.post, "/api/search?by=audio&top_k=1", content=sound)
        try:
            assert started.wait(30)
            assert client.get("/api/search?q=tone").json()["moments"]
            assert client.get("/api/info").status_code == 200
            assert client.get("/api/map?layout=pca").status_code == 200
            assert client.get(f"/thumbnail/{BIRD}?t=1").status_code == 200
            assert not hung.done()
        finally:
            release.set()
        assert_moments(hung.result(), search.audio(sound, top_k=1))


# --- the command ---


def vatt_serve(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "modeling_vatt.cli", "serve", *arguments]


def test_command_serves_until_it_is_interrupted(search, folder):
    """From the start of the program to its end."""
    command = vatt_serve(str(folder), "--port", "0", "--max-query", "5")
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        try:
            line = process.stdout.readline()
            address = line.split()[0]
            assert address.startswith("http://127.0.0.1:")
            assert f"{len(search.index)} moments of {folder}" in line
            with urllib.request.urlopen(f"{address}api/search?q=tone&top_k=1", timeout=60) as answer:
                (moment,) = json.load(answer)["moments"]
            assert moment["path"] == search.text("tone", top_k=1)[0].path
            assert answer.headers["Server"] is None
            with pytest.raises(urllib.error.HTTPError, match="400"):
                urllib.request.urlopen(f"{address}api/search?q=longer", timeout=60)
            taken = CliRunner().invoke(
                app, ["serve", str(folder), "--port", address.split(":")[-1].strip("/")]
            )
            assert taken.exit_code == 1 and "Address already in use. Choose another --port" in taken.stderr
        finally:
            process.send_signal(signal.SIGINT)
        _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    assert "Traceback" not in errors


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--host", "0.0.0.0"], "add --allow-remote"),
        (["--host", "::"], "add --allow-remote"),
        (["--host", "name.invalid"], "Give a name or an address of this machine"),
        (["--host", "192.0.2.1", "--allow-remote"], "192.0.2.1, port 8000"),
        (["--port", "0", "--model", "no/such/model"], "no/such/model"),
    ],
)
def test_command_refuses(folder, search, arguments, message):
    result = CliRunner().invoke(app, ["serve", str(folder), *arguments])
    assert result.exit_code == 1
    assert message in result.stderr
    assert result.stderr.startswith("error: ")


def test_command_without_an_index(tmp_path):
    result = CliRunner().invoke(app, ["serve", str(tmp_path), "--port", "0"])
    assert result.exit_code == 1 and "no index here" in result.stderr


def test_command_with_remote_visitors(folder, search, monkeypatch):
    """They are warned of, and asked for addresses of this machine, not for names of others."""
    served = []
    monkeypatch.setattr("modeling_vatt.web.server.serve", lambda app, socket: served.append((app, socket)))
    command = ["serve", str(folder), "--host", "0.0.0.0", "--port", "0", "--allow-remote"]
    result = CliRunner().invoke(app, [*command, "--allow-host", "films.example"])
    assert result.exit_code == 0, result.stderr
    assert "warning: everyone who can reach this machine" in result.stderr
    ((application, socket),) = served
    socket.close()
    with TestClient(application) as client:
        for host, status in {"10.1.2.3:8000": 200, "films.example": 200, "evil.example": 421}.items():
            assert client.get("/api/info", headers={"Host": host}).status_code == status


@pytest.mark.parametrize("clips", [0, 1])
def test_index_with_next_to_nothing(tmp_path, clips):
    root = tmp_path / "videos"
    root.mkdir()
    (root / "broken.mp4").write_bytes(b"no video")
    for number in range(clips):
        write_video(root / f"{number}.mp4", 100, 300.0, 1.0)
    search = make_search(root, tmp_path / "model")
    windows = len(search.index)
    assert (windows > 0) == (clips > 0) and windows < 4
    with client_of(search) as client:
        assert client.get("/api/info").json()["windows"] == windows
        assert len(client.get("/api/sample").json()["moments"]) == windows
        assert len(client.get("/api/search?q=tone").json()["moments"]) == min(windows, 1)
        for layout in ("tsne", "pca"):
            assert len(client.get(f"/api/map?layout={layout}").json()["points"]) == windows


# --- hostile uploads ---


def test_decoding_is_left_to_another_process(search, sound, monkeypatch):
    """Uploads and pictures: what crashes it costs one file (test_isolation.py). Here it cannot start."""
    monkeypatch.setattr(media_isolation, "_BOOTSTRAP", "raise SystemExit")
    monkeypatch.setattr(media_isolation, "_decoders", media_isolation._DecoderPool())
    refused = pytest.raises(RuntimeError, match="process for decoding does not start")
    with contextlib.closing(Library(search.index)) as library, refused:
        library.thumbnail(BIRD, 1.0)
    with TestClient(create_app(search), base_url=BASE, raise_server_exceptions=False) as client:
        assert client.post("/api/search?by=audio&name=tone.wav", content=sound).status_code == 500
