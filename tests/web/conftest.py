# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A folder of videos with an index, and clients of its page."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from starlette.testclient import TestClient
from web_folder import client_of, make_search, make_videos

from modeling_vatt.retrieval import VideoSearch


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    return make_videos(tmp_path_factory.mktemp("web") / "videos")


@pytest.fixture(scope="session")
def search(folder, tmp_path_factory) -> VideoSearch:
    return make_search(folder, tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def client(search) -> Iterator[TestClient]:
    with client_of(search) as client:
        yield client
