# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The indexed files as the page may see them: nothing else on the machine is ever served."""

import io
import threading
import time
from collections import OrderedDict
from pathlib import Path
from typing import Any

from ..retrieval import VattIndex
from ..retrieval.thumbnails import thumbnail


# Seconds for which a list of files is taken as current, as another process may be indexing.
_FRESH = 5.0
_THUMBNAILS = 1000

# What browsers are told; anything else is bytes to them, never a page or a script.
MEDIA_TYPES = {
    ".3gp": "video/3gpp",
    ".aac": "audio/aac",
    ".flac": "audio/flac",
    ".m4a": "audio/mp4",
    ".m4v": "video/mp4",
    ".mkv": "video/x-matroska",
    ".mov": "video/quicktime",
    ".mp3": "audio/mpeg",
    ".mp4": "video/mp4",
    ".mpeg": "video/mpeg",
    ".mpg": "video/mpeg",
    ".oga": "audio/ogg",
    ".ogg": "audio/ogg",
    ".ogv": "video/ogg",
    ".opus": "audio/ogg",
    ".ts": "video/mp2t",
    ".wav": "audio/wav",
    ".webm": "video/webm",
}


class Library:
    """Files of an index, by their relative paths.

    Args:
        index: its `root` may be None; then there is nothing to show or play.
        thumbnail_size: pixels of the longer side.
    """

    def __init__(self, index: VattIndex, thumbnail_size: int = 480) -> None:
        self.index = index
        self.thumbnail_size = thumbnail_size
        self.root = None if index.root is None else Path(index.root).resolve()
        self._lock = threading.Lock()
        self._files: dict[str, dict[str, Any]] = {}
        self._until = 0.0
        self._pictures: OrderedDict[tuple[str, int, float], bytes] = OrderedDict()

    def files(self) -> dict[str, dict[str, Any]]:
        """Entries of `VattIndex.files` by path."""
        with self._lock:
            if time.monotonic() > self._until:
                self._files = {entry["path"]: entry for entry in self.index.files()}
                self._until = time.monotonic() + _FRESH
            return self._files

    def folders(self) -> list[str]:
        """Folders that hold readable files, and the folders above them; sorted."""
        found: set[str] = set()
        for path, entry in self.files().items():
            if entry["error"] is None:
                parts = path.split("/")[:-1]
                found |= {"/".join(parts[:depth]) for depth in range(1, len(parts) + 1)}
        return sorted(found)

    def errors(self) -> list[dict[str, str]]:
        """Files that could not be read, and why; without the place of the folder on this machine."""
        place = "" if self.root is None else f"{self.root}/"
        return [
            {"path": path, "error": str(entry["error"]).replace(place, "") if place else str(entry["error"])}
            for path, entry in self.files().items()
            if entry["error"] is not None
        ]

    def locate(self, path: str) -> Path | None:
        """The file itself; None unless it is in the index, was readable, and lies within the root."""
        entry = self.files().get(path)
        if entry is None or entry["error"] is not None or self.root is None:
            return None
        try:
            file = (self.root / path).resolve(strict=True)
        except (OSError, ValueError, RuntimeError):  # gone, a NUL in it, a loop of links
            return None
        # An index that was made elsewhere or tampered with may name anything, and links lead anywhere.
        return file if file.is_relative_to(self.root) and file.is_file() else None

    def thumbnail(self, path: str, seconds: float) -> bytes | None:
        """JPEG of the picture at a moment; None if there is no such file.

        Raises:
            MediaError: no picture can be decoded there.
        """
        file = self.locate(path)
        if file is None:
            return None
        key = (path, file.stat().st_mtime_ns, round(seconds, 2))
        with self._lock:
            if key in self._pictures:
                self._pictures.move_to_end(key)
                return self._pictures[key]
        buffer = io.BytesIO()
        thumbnail(file, seconds, self.thumbnail_size).convert("RGB").save(buffer, "JPEG", quality=82)
        with self._lock:
            self._pictures[key] = buffer.getvalue()
            while len(self._pictures) > _THUMBNAILS:
                self._pictures.popitem(last=False)
        return buffer.getvalue()
