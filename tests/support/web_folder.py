# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder of videos that browsers play, its index, and a server of the page in a thread."""

import asyncio
import contextlib
import threading
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import numpy as np
import uvicorn
from clip_folders import RATE, save_model
from media_factory import tone, write_media
from starlette.testclient import TestClient
from starlette.types import ASGIApp

from modeling_vatt.retrieval import VideoSearch
from modeling_vatt.web import WebSettings, create_app


BASE = "http://127.0.0.1:8000"  # of the server for test clients
SECONDS = 6.0
FILES = {
    "garden/bird.mp4": (60, 300.0),
    "garden/dog & cat #1.mp4": (110, 500.0),
    "street/market/stall.mp4": (160, 700.0),
    "street/tram.webm": (210, 900.0),
    "old/film.avi": (80, 1100.0),  # no browser plays it
}
CODECS = {
    ".webm": {"video_codec": "libvpx", "audio_codec": "opus"},
    ".avi": {"video_codec": "mpeg4", "audio_codec": "pcm_s16le"},
}
DAMAGED = "street/<b>broken.mp4"


def write_video(path: Path, level: int, pitch: float, seconds: float = SECONDS, **options: Any) -> Path:
    """A picture that grows lighter, with a tone; darker in its second half, with a yellow bar.

    Args:
        options: of `write_media`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    count = round(10 * seconds)
    frames = [np.full((48, 64, 3), level + 30 * number // count, np.uint8) for number in range(count)]
    for frame in frames[count // 2 :]:
        frame[:, 32:48] = (255, 255, 0)
        frame[24:] = frame[24:] // 3
    options = {**CODECS.get(path.suffix, {}), **options}
    rate = 48_000 if path.suffix == ".webm" else RATE
    return write_media(
        path, frames=frames, fps=10, waveform=tone(seconds, rate, pitch), sampling_rate=rate, **options
    )


def make_videos(root: Path) -> Path:
    """`FILES` and a damaged one below `root`."""
    for name, (level, pitch) in FILES.items():
        write_video(root / name, level, pitch)
    (root / DAMAGED).write_bytes(b"not a video at all")
    (root / "secret.txt").write_text("not to be served")
    return root


def make_search(root: Path, model_dir: Path) -> VideoSearch:
    """An index of `root` with a small model that was saved in `model_dir`."""
    search = VideoSearch.create(root, save_model(model_dir))
    search.update()
    return search


def client_of(search: Any, **settings: Any) -> TestClient:
    """A client of the page of `search`, made with `WebSettings`."""
    return TestClient(create_app(search, WebSettings(**settings)), base_url=BASE)


def request_of(method: str, path: bytes, query: bytes = b"", headers: Any = ()) -> dict[str, Any]:
    """A request as uvicorn hands it on; clients would tidy up its path."""
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(path.decode("latin-1")),
        "raw_path": path,
        "query_string": query,
        "root_path": "",
        "headers": list(headers),
        "client": ("127.0.0.1", 1),
        "server": ("127.0.0.1", 80),
    }


async def answer_to(
    app: ASGIApp, request: dict[str, Any], body: Sequence[bytes] = ()
) -> tuple[int, dict[bytes, bytes], bytes]:
    """Status, headers and body of the answer."""
    pending = [{"type": "http.request", "body": part, "more_body": True} for part in body]
    pending.append({"type": "http.request", "body": b"", "more_body": False})
    answer: dict[str, Any] = {"body": b""}

    async def receive() -> dict[str, Any]:
        return pending.pop(0) if pending else {"type": "http.disconnect"}

    async def send(message: Any) -> None:
        if message["type"] == "http.response.start":
            answer.update(status=message["status"], headers=dict(message["headers"]))
        else:
            answer["body"] += message.get("body", b"")

    await asyncio.wait_for(app(request, receive, send), 60)
    return answer["status"], answer["headers"], answer["body"]


@contextlib.contextmanager
def serving(app: ASGIApp) -> Iterator[str]:
    """The address of a server that runs in a thread meanwhile."""
    server = uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning"))
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    while not server.started:
        assert thread.is_alive(), "the server did not start"
        time.sleep(0.02)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join()
