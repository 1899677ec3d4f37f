# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The indexed files for the page; nothing else is ever served."""

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache
from pathlib import Path
from typing import Any

from ..processors.media import VIDEO_SUFFIXES
from ..retrieval import Moment, VattIndex, thumbnail
from .media import version_of


_THUMBNAILS = 1000  # kept in memory

# Types for browsers; anything else is bytes, never a page or a script.
MEDIA_TYPES = {
    ".3gp": "video/3gpp",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".ogv": "video/ogg",
    ".ts": "video/mp2t",
    ".webm": "video/webm",
}


class Library:
    """Files of an index, by their relative paths.

    Args:
        index: without a `root` there is nothing to show or play.
        thumbnail_size: pixels of the longer side.
    """

    def __init__(self, index: VattIndex, thumbnail_size: int = 480) -> None:
        self.index = index
        self.thumbnail_size = thumbnail_size
        self.root = None if index.root is None else Path(index.root).resolve()
        # The index keeps a connection per thread, and the server's threads come and go.
        self._reader = ThreadPoolExecutor(1, "vatt-files")
        self._generation = -1
        self._known: tuple[dict[str, dict[str, Any]], list[str]] = ({}, [])
        self._picture = lru_cache(_THUMBNAILS)(self._decode)

    def close(self) -> None:
        """End the thread that reads the index."""
        self._reader.shutdown()

    def files(self) -> dict[str, dict[str, Any]]:
        """Current entries of `VattIndex.files` by path."""
        return self._reader.submit(self._read).result()[0]

    def folders(self) -> list[str]:
        """Folders with moments, and the folders above them; sorted."""
        return self._reader.submit(self._read).result()[1]

    def has_folder(self, name: str) -> bool:
        """Whether files of the index lie below a folder, however its name is spelled."""
        try:
            return self._reader.submit(self.index.folders, name).result() != []
        except ValueError:  # one outside of the root
            return False

    def generation(self) -> int:
        """Changes with the index."""
        return self._reader.submit(self.index.store.generation).result()

    def info(self) -> dict[str, Any]:
        """Current `VattIndex.info`."""
        return self._reader.submit(self.index.info).result()

    def marked(self, moments: Sequence[Moment]) -> list[Moment]:
        """See `VattIndex.marked`."""
        return self._reader.submit(self.index.marked, moments).result()

    def _read(self) -> tuple[dict[str, dict[str, Any]], list[str]]:
        generation = self.index.store.meta("generation")
        if generation != self._generation:
            files = {entry["path"]: entry for entry in self.index.files()}
            folders: set[str] = set()
            for path, entry in files.items():
                if entry["windows"]:
                    parts = path.split("/")[:-1]
                    folders |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
            self._known, self._generation = (files, sorted(folders)), generation
        return self._known

    def errors(self) -> list[dict[str, Any]]:
        """Files that could not be read, or only in part, and why, without the folder's place."""
        places = [f"{place}/" for place in {str(self.root), str(self.index.root)}]

        def shown(error: str) -> str:
            for place in places:
                error = error.replace(place, "")
            return error

        return [
            {"path": path, "error": shown(entry["error"]), "partly": entry["windows"] > 0}
            for path, entry in self.files().items()
            if entry["error"] is not None
        ]

    def locate(self, path: str) -> Path | None:
        """The file of a path; None unless it is a video with moments in the index, inside the root."""
        # An untrusted index may name any root and files; `vatt index` takes only videos that are not hidden.
        hidden = any(part.startswith(".") for part in path.split("/"))
        if hidden or Path(path).suffix.lower() not in VIDEO_SUFFIXES:
            return None
        entry = self.files().get(path)
        if entry is None or not entry["windows"] or self.root is None:
            return None
        try:
            file = (self.root / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # gone, a NUL in it, a loop of links
            return None
        # Names and links may lead anywhere.
        return file if file.is_relative_to(self.root) and file.is_file() else None

    def is_gone(self, path: str) -> bool:
        """Whether a file of the index is missing now."""
        entry = self.files().get(path)
        known = entry is not None and entry["windows"] > 0 and self.root is not None
        return known and not os.path.lexists(self.root / path)  # type: ignore[operator]

    def version(self, path: str) -> str | None:
        """A text that changes with the file; None without one."""
        file = self.locate(path)
        try:
            return None if file is None else version_of(file.stat())
        except OSError:
            return None

    def thumbnail(self, path: str, seconds: float) -> tuple[bytes, str] | None:
        """JPEG of the picture at a moment, and the version of its file; None without the file, MediaError if
        no picture can be decoded there."""
        file, version = self.locate(path), self.version(path)
        if file is None or version is None:
            return None
        return self._picture(file, version, seconds), version

    def _decode(self, file: Path, version: str, seconds: float) -> bytes:
        """Thumbnail of a file of this version."""
        buffer = io.BytesIO()
        thumbnail(file, seconds, self.thumbnail_size).convert("RGB").save(buffer, "JPEG", quality=82)
        return buffer.getvalue()
