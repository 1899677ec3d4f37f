# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""How files are answered: conditions, ranges, versions; files that change or go while the page is open."""

import os
import shutil

import pytest
from web_folder import client_of, make_search, write_video

from modeling_vatt.retrieval import embed_query


BIRD = "garden/bird.mp4"


@pytest.mark.parametrize(
    "header, parts",
    [
        ("bytes=100-199", [(100, 199)]),
        ("Bytes = 100-199", [(100, 199)]),
        ("bytes=100-", [(100, None)]),
        ("bytes=-5", [(-5, None)]),
        ("bytes=-99999999999999999999", [(0, None)]),
        ("bytes=0-" + "9" * 5000, [(0, None)]),
        ("bytes=0-1,99999999-", [(0, 1)]),  # what does not exist is left out
        ("bytes=0-1, 10-11", [(0, 1), (10, 11)]),
        # Malformed, of other units, or more than it makes sense to answer: the whole file.
        ("bytes=5-1", None),
        ("bytes=5", None),
        ("bytes=--5", None),
        ("bytes=-", None),
        ("bytes=", None),
        ("bytes=0-1,x", None),
        ("bytes=a-b", None),
        ("bytes", None),
        ("chunks=0-1", None),
        ("bytes=\u0661-2", None),  # a digit, but none of ASCII
        ("bytes=" + "0-1," * 500, None),
        # Nothing of it exists.
        ("bytes=99999999-", []),
        ("bytes=" + "9" * 5000 + "-", []),
        ("bytes=-0", []),
    ],
)
def test_ranges(client, folder, header, parts):
    content = (folder / BIRD).read_bytes()
    answer = client.get(f"/media/{BIRD}", headers={"Range": header.encode()})
    if parts is None:
        assert (answer.status_code, answer.content) == (200, content)
    elif not parts:
        assert answer.status_code == 416
        assert answer.headers["content-range"] == f"bytes */{len(content)}"
        assert f"ends at {len(content)} bytes" in answer.json()["error"]
    else:
        assert answer.status_code == 206
        wanted = [content[first : None if last is None else last + 1] for first, last in parts]
        if len(wanted) == 1:
            first = len(content) - len(wanted[0]) if parts[0][0] < 0 else parts[0][0]
            place = f"bytes {first}-{first + len(wanted[0]) - 1}/{len(content)}"
            assert (answer.content, answer.headers["content-range"]) == (wanted[0], place)
        else:
            assert all(b"\r\n\r\n" + part + b"\r\n" in answer.content for part in wanted)


@pytest.mark.parametrize("path", ["/", f"/media/{BIRD}", f"/thumbnail/{BIRD}?t=1", "/static/main.js"])
def test_what_the_client_has_is_not_sent_again(client, path):
    first = client.get(path)
    tag = first.headers["etag"]
    assert first.status_code == 200
    for known in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = client.get(path, headers={"If-None-Match": known, "Range": "bytes=0-5"})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), known
    assert client.get(path, headers={"If-None-Match": '"other"'}).content == first.content
    head = client.head(path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(first.content)))


def test_ranges_of_what_has_changed_and_of_other_methods(client, folder):
    size = (folder / BIRD).stat().st_size
    ask = {"Range": "bytes=0-9"}
    tag = client.get(f"/media/{BIRD}").headers["etag"]
    for known, length in ((tag, 10), ('"other"', size), (f"W/{tag}", size)):
        answer = client.get(f"/media/{BIRD}", headers={**ask, "If-Range": known})
        assert len(answer.content) == length, known
    # Out of reach, but of a file that has changed: the new one.
    late = {"Range": "bytes=99999999-", "If-Range": '"other"'}
    assert client.get(f"/media/{BIRD}", headers=late).status_code == 200
    head = client.head(f"/media/{BIRD}", headers=ask)
    assert (head.status_code, head.headers["content-length"]) == (200, str(size))
    assert head.headers["accept-ranges"] == "bytes"


@pytest.mark.parametrize(
    "method, path, status",
    [
        ("GET", "/nowhere", 404),
        ("GET", "/static/nowhere.js", 404),
        ("GET", "/api/info/", 404),
        ("POST", "/", 405),
        ("DELETE", f"/media/{BIRD}", 405),
        ("GET", "/media/nowhere.mp4", 404),
        ("GET", f"/thumbnail/{BIRD}?t=999", 404),  # no picture there
        ("GET", f"/thumbnail/{BIRD}?t=-1", 400),
        ("GET", f"/thumbnail/{BIRD}?t=inf", 400),
        ("GET", "/api/map?space=x", 400),
        ("GET", "/api/map?layout=x", 400),
    ],
)
def test_errors_are_sentences_in_json(client, method, path, status):
    answer = client.request(method, path, follow_redirects=False)
    assert answer.status_code == status
    assert list(answer.json()) == ["error"] and answer.json()["error"]


def test_files_that_change_or_go_while_the_page_is_open(tmp_path):
    root = tmp_path / "videos"
    for name, level in (("in/a.mp4", 50), ("in/b.mp4", 200)):
        write_video(root / name, level, 400.0, 2.0)
    search = make_search(root, tmp_path / "model")
    with client_of(search) as client:

        def found() -> dict[str, str]:
            moments = client.get("/api/search?q=tone").json()["moments"]
            return {moment["path"]: moment["version"] for moment in moments}

        def on_the_map() -> set[str]:
            return {point["path"] for point in client.get("/api/map?layout=pca").json()["points"]}

        def picture(version: str) -> tuple[bytes, str]:
            answer = client.get("/thumbnail/in/a.mp4", params={"t": 0.5, "v": version})
            return answer.content, answer.headers["cache-control"]

        assert on_the_map() == {"in/a.mp4", "in/b.mp4"}
        before = found()
        dark, cache = picture(before["in/a.mp4"])
        assert "max-age" in cache
        state = client.get("/api/state").json()["generation"]
        # Another file under this name, with the time of the old one.
        times = (root / "in/a.mp4").stat()
        shutil.copy(root / "in/b.mp4", root / "in/a.mp4")
        os.utime(root / "in/a.mp4", ns=(times.st_atime_ns, times.st_mtime_ns))
        light, cache = picture(before["in/a.mp4"])
        assert light != dark and cache == "private, no-cache"
        assert found()["in/a.mp4"] != before["in/a.mp4"] and found()["in/b.mp4"] == before["in/b.mp4"]
        assert picture(found()["in/a.mp4"]) == (light, "private, max-age=86400")
        # Gone: said so, until the index follows.
        (root / "in/b.mp4").unlink()
        for route in ("media", "thumbnail"):
            answer = client.get(f"/{route}/in/b.mp4")
            assert answer.status_code == 404
            assert answer.json()["error"] == "b.mp4 is gone: moved or deleted since it was indexed."
        assert client.get("/api/state").json()["generation"] == state
        (root / "in").rename(root / "out")
        search.update(prune=True)
        info = client.get("/api/info").json()
        assert client.get("/api/state").json()["generation"] == info["generation"] > state
        assert (info["files"], info["folders"]) == (1, ["out"])
        assert client.get("/media/out/a.mp4").status_code == 200 and on_the_map() == {"out/a.mp4"}
        assert client.get("/api/search?q=tone").json()["generation"] == info["generation"]
        assert client.get("/api/map?layout=pca").json()["generation"] == info["generation"]
        assert "No such file" in client.get("/media/in/b.mp4").json()["error"]
        refusal = client.get("/api/search?q=tone&folder=in")
        assert refusal.json()["error"] == "The index has no such folder."


def test_files_that_are_not_as_they_were_indexed_are_marked_and_looked_at_anew(tmp_path):
    root = tmp_path / "videos"
    for name, level in (("a.mp4", 50), ("b.mp4", 200), ("c.mp4", 100)):
        write_video(root / name, level, 400.0, 2.0)
    search = make_search(root, tmp_path / "model")
    index = search.index
    with client_of(search) as client:

        def states(answer: str) -> dict[str, str | None]:
            entries = client.get(f"/api/{answer}").json()
            return {entry["path"]: entry["stale"] for entry in entries.get("points") or entries["moments"]}

        answers = ("search?q=tone", "sample", "map?layout=pca")
        assert [set(states(answer).values()) for answer in answers] == [{None}] * 3
        old, _ = index.window_at("a.mp4", 1.0)
        write_video(root / "a.mp4", 150, 400.0, 2.4)
        (root / "b.mp4").unlink()
        expected = {"a.mp4": "changed", "b.mp4": "gone", "c.mp4": None}
        assert [states(answer) for answer in answers] == [expected] * 3
        clip = {"video": root / "a.mp4", "start": 1.0 - index.window / 2}
        vector = embed_query(search.model, search.processor, **clip)
        alike = index.search(vector, "va", top_k=50, merge=False, distinct=True)
        found = client.get("/api/search?like=a.mp4&t=1.0&merge=false&top_k=50").json()["moments"]
        assert [(m["path"], m["start"]) for m in found] == [(m.path, m.start) for m in alike]
        assert [m["score"] for m in found] == pytest.approx([m.score for m in alike], abs=1e-5)
        assert client.get("/api/search?like=a.mp4&t=2.3").status_code == 200  # it has become longer
        # By what it was, for a client that has that file still; and from the index alone.
        digest = index.content_of("a.mp4")
        found = client.get(f"/api/search?like=sha256:{digest}&t=1&merge=false&top_k=50").json()["moments"]
        spans = [(m["start"], m["end"]) for m in found if m["path"] == "a.mp4"]
        assert spans and all(end <= old.start or start >= old.end for start, end in spans)
        assert client.get("/api/search?like=b.mp4&t=1.0").json()["moments"]
        (root / "a.mp4").write_bytes(b"no film any more")
        answer = client.get("/api/search?like=a.mp4&t=1.0")
        assert answer.status_code == 422 and answer.json()["error"].startswith("a.mp4: ")
        assert str(root) not in answer.text
