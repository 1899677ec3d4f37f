# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Media files that the tests of a module share."""

from collections.abc import Callable
from pathlib import Path

import pytest
from media_factory import write_media


@pytest.fixture(scope="module")
def make(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """write_media into a folder of the module, once for each name."""
    folder = tmp_path_factory.mktemp("media")

    def make_once(name: str, **options: object) -> Path:
        path = folder / name
        return path if path.exists() else write_media(path, **options)  # type: ignore[arg-type]

    return make_once
