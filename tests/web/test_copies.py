# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Copies for browsers that cannot show a video, and the folders of files."""

import os
import time
from pathlib import Path

import numpy as np
import pytest
from media_factory import click_times, clicks, frame_numbers, numbered_frames, write_media
from starlette.testclient import TestClient
from web_folder import DAMAGED, client_of, make_search

from modeling_vatt.processors import read_clip
from modeling_vatt.retrieval import VideoSearch
from modeling_vatt.web import copies


RATE = 48_000
SECONDS = 12.0


@pytest.fixture(scope="module")
def search(tmp_path_factory) -> VideoSearch:
    """Of one film whose frames tell the time, ten a second, with a click in the middle of each."""
    root = tmp_path_factory.mktemp("copies") / "videos"
    (root / "old").mkdir(parents=True)
    write_media(
        root / "old/film.avi",
        frames=numbered_frames(round(10 * SECONDS), 82, 64),
        fps=10,
        waveform=clicks(SECONDS, RATE),
        sampling_rate=RATE,
        video_codec="mpeg4",
        audio_codec="pcm_s16le",
    )
    (root / DAMAGED).parent.mkdir()
    (root / DAMAGED).write_bytes(b"no video")
    return make_search(root, tmp_path_factory.mktemp("model"))


def ask(client: TestClient, moment: float) -> dict:
    return client.post("/api/copy", params={"path": "old/film.avi", "t": moment}).json()


@pytest.mark.parametrize("moment, start, last", [(1.0, 0.0, 40), (8.1, 5.0, 90), (11.9, 5.0, 90)])
def test_a_copy_shows_and_sounds_what_the_original_does(search, moment, start, last, monkeypatch):
    monkeypatch.setattr(copies, "_PIECE", 12 * 82 * 64 * 3)  # several pieces
    with client_of(search, copy_seconds=4.0) as client:
        copy = ask(client, moment)
        assert copy["start"] == start
        answer = client.get(copy["url"], headers={"Range": "bytes=0-"})
    assert answer.status_code == 206 and answer.headers["content-type"] == "video/mp4"
    clip = read_clip(answer.content, fps=10.0, sampling_rate=RATE)
    assert frame_numbers(clip.frames) == list(range(round(10 * start), last))
    assert b"avc1" in answer.content
    found = click_times(clip.waveform, RATE)
    np.testing.assert_allclose(found, 0.05 + 0.1 * np.arange(len(found)), atol=2e-4)
    assert len(found) == 40


def test_copies_end_with_the_film_and_are_kept_within_limits(search, monkeypatch):
    made = []
    original = copies.encode_frames
    monkeypatch.setattr(copies, "encode_frames", lambda *a, **o: made.append(0) or original(*a, **o))
    with client_of(search, copy_seconds=9.0, max_copies_bytes=1) as client:
        late = ask(client, 8.1)
        assert ask(client, 9.9) == late and len(made) == 1  # near it
        content = client.get(late["url"]).content
        assert len(read_clip(content, fps=10.0).frames) == 70
        early = ask(client, 2.0)
        assert client.get(early["url"]).status_code == 200
        gone = client.get(late["url"])
        assert gone.status_code == 404 and "Make it again" in gone.json()["error"]


@pytest.mark.parametrize("path", ["secret.txt", DAMAGED, "../old/film.avi", "old", ""])
def test_only_of_videos_of_the_index(search, path, tmp_path):
    with client_of(search) as client:
        for answer in (
            client.post("/api/copy", params={"path": path, "t": 0}),
            client.post("/api/open", params={"path": path}),
            client.get("/api/place", params={"path": path}),
        ):
            assert answer.status_code == 404 and "error" in answer.json()
        assert client.get("/copy/../old/film.avi").status_code == 404
        assert client.get("/copy/film.avi").status_code == 404


def test_a_film_that_cannot_be_read_any_more(search):
    film = Path(search.index.root) / "old/film.avi"
    content = film.read_bytes()
    try:
        film.write_bytes(content[:100])
        with client_of(search) as client:
            answer = client.post("/api/copy", params={"path": "old/film.avi", "t": 1})
        assert answer.status_code == 422
        assert answer.json()["error"].startswith("No copy of film.avi can be made: ")
        assert str(film.parent) not in answer.text
    finally:
        film.write_bytes(content)


@pytest.mark.skipif(os.name == "nt", reason="a shell script stands for the file manager")
def test_the_folder_is_opened_for_people_at_this_machine_only(search, tmp_path, monkeypatch):
    film = (Path(search.index.root) / "old/film.avi").resolve()
    seen = tmp_path / "seen"
    manager = tmp_path / "xdg-open"
    manager.write_text(f'#!/bin/sh\necho "$@" > {seen}.part && mv {seen}.part {seen}\n')
    manager.chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    monkeypatch.setenv("DISPLAY", ":7")
    monkeypatch.setattr("sys.platform", "linux")
    params = {"path": "old/film.avi"}
    with client_of(search) as client:
        assert client.get("/api/info").json()["can_open"]
        assert client.get("/api/place", params=params).json() == {"place": str(film)}
        assert client.get("/api/open", params=params).status_code == 405  # a link must not do it
        assert client.post("/api/open", params=params).status_code == 200
        deadline = time.monotonic() + 20
        while not seen.exists():
            assert time.monotonic() < deadline
            time.sleep(0.02)
        assert seen.read_text() == f"{film.parent}\n"
        monkeypatch.delenv("DISPLAY")
        monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
        assert not client.get("/api/info").json()["can_open"]
        assert client.post("/api/open", params=params).status_code == 404
    for remote in ({"allow_remote": True}, {"allowed_hosts": ("films.example",)}):
        with client_of(search, **remote) as client:
            assert not client.get("/api/info").json()["can_open"]
            assert client.post("/api/open", params=params).status_code == 403
            assert client.get("/api/place", params=params).json() == {"place": "old/film.avi"}
