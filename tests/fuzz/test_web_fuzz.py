# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The web page over its HTTP interface: whatever is asked, it answers, and shows nothing of other files."""

import asyncio
import json
import random
from typing import Any

import pytest


pytest.importorskip("fastapi", reason="the extra `web` is not installed")

from web_folder import answer_to, make_search, make_videos, request_of

from modeling_vatt.web import WebSettings, create_app


SECRET = b"nobody may read this"
REQUESTS = 600
# What clients get wrong, and what attackers try.
PIECES = [
    *(b"/", b"//", b"..", b"../", b"%2e%2e%2f", b"..%2f", b"%5c..%5c", b"\\", b"%00", b"\x00", b"%", b"%zz"),
    *(b"\xff\xfe", b"%ff", b"secret.txt", b"etc/passwd", b"index.db", b".vatt-index", b"~", b";", b"?", b"#"),
    *(b"media", b"thumbnail", b"static", b"api/search", b"api/map", b"api/info", b"api/sample", b"a" * 5000),
]
VALUES = [
    *("", "a", "nan", "inf", "-1", "1e999", "0", "9" * 400, "null", "[]", "{}", "\x00", "\ud800", ".."),
    *("va", "vt", "video", "audio", "tsne", "<script>", "' OR 1=1 --", "a" * 100_000, "\r\nX: 1"),
]
NAMES = ["q", "by", "name", "folder", "min_score", "top_k", "space", "layout", "t", "odd"]
HEADERS = [
    (b"host", b"evil.example"),
    (b"host", b""),
    (b"host", b"127.0.0.1:1:2"),
    (b"host", b"\xff"),
    (b"origin", b"http://evil.example"),
    (b"origin", b"null"),
    (b"sec-fetch-site", b"cross-site"),
    (b"range", b"bytes=0-"),
    (b"range", b"bytes=9999999999-"),
    (b"range", b"bytes=5-1,,"),
    (b"range", b"bytes=" + b"0-1," * 500),
    (b"content-length", b"99999999999999999999"),
    (b"content-length", b"-5"),
    (b"content-length", b"x"),
    (b"content-type", b"multipart/form-data; boundary="),
    (b"if-none-match", b"\xff" * 300),
    (b"if-none-match", b"*"),
    (b"if-range", b"W/"),
]


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> tuple[Any, list[str]]:
    """The page, and the paths of its files; beside them lies a file that is not of the index."""
    folder = make_videos(tmp_path_factory.mktemp("fuzz") / "videos")
    (folder / "secret.txt").write_bytes(SECRET)
    (folder.parent / "secret.txt").write_bytes(SECRET)
    search = make_search(folder, tmp_path_factory.mktemp("fuzz_model"))
    settings = WebSettings(max_upload_bytes=2**20)
    return create_app(search, settings), [entry["path"] for entry in search.index.files()]


def random_request(draw: random.Random, files: list[str]) -> tuple[dict[str, Any], list[bytes]]:
    kind = draw.random()
    if kind < 0.4:  # near something that is there
        known = draw.choice(files).encode()
        path = draw.choice([b"/media/", b"/thumbnail/", b"/static/"]) + known
        for _ in range(draw.randrange(3)):
            place = draw.randrange(len(path) + 1)
            path = path[:place] + draw.choice(PIECES) + path[place + draw.randrange(3) :]
    elif kind < 0.7:
        path = b"/" + draw.choice([b"api/search", b"api/map", b"api/info", b"api/sample", b""])
    else:
        path = b"/" + b"".join(draw.choice(PIECES) for _ in range(draw.randrange(1, 6)))
    names = draw.sample(NAMES, draw.randrange(5))
    query = "&".join(f"{name}={draw.choice(VALUES)}" for name in names).encode("utf-8", "surrogatepass")
    headers = [(b"host", b"127.0.0.1")]
    if draw.random() < 0.3:
        headers += draw.sample(HEADERS, draw.randrange(1, 3))
    if draw.random() < 0.1:
        headers = headers[1:]
    body = [draw.randbytes(draw.choice([0, 10, 5000, 400_000])) for _ in range(draw.randrange(5))]
    method = draw.choice(["GET"] * 4 + ["POST"] * 4 + ["HEAD", "PUT", "DELETE", "OPTIONS", "X"])
    if draw.random() < 0.15:  # an upload as it should be, of anything
        path, query, method = b"/api/search", b"by=" + draw.choice([b"video", b"audio"]), "POST"
    return request_of(method, path, query, headers), body


def test_whatever_is_asked_is_answered(site):
    app, files = site
    draw = random.Random(8)
    seen: dict[int, int] = {}

    async def run() -> None:
        for number in range(REQUESTS):
            request, body = random_request(draw, files)
            status, headers, content = await answer_to(app, request, body)
            shown = (
                number,
                request["method"],
                request["raw_path"][:100],
                request["query_string"][:100],
                status,
            )
            assert 200 <= status < 500, (*shown, content[:300])
            assert b"default-src 'none'" in headers[b"content-security-policy"], shown
            assert SECRET not in content and b"root:" not in content and b"Traceback" not in content, shown
            if status >= 400:
                assert json.loads(content)["error"], shown
            seen[status] = seen.get(status, 0) + 1

    asyncio.run(run())
    # The requests get as far as all parts of the page.
    assert {200, 400, 403, 404, 405, 413, 421, 422} <= set(seen), seen
