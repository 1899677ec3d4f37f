# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder of videos with an index, and clients of its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from web_folder import BASE, make_search, make_videos

from modeling_vatt.retrieval import VideoSearch
from modeling_vatt.web import create_app


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return make_videos(tmp_path_factory.mktemp("web") / "videos")


@pytest.fixture(scope="session")
def search(folder, tmp_path_factory) -> VideoSearch:
    return make_search(folder, tmp_path_factory.mktemp("model"))


@pytest.fixture
def client(search) -> Iterator[TestClient]:
    with TestClient(create_app(search), base_url=BASE) as client:
        yield client
