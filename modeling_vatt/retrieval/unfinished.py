# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The first windows of files that are being embedded, from which a stopped run continues."""

import json
import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np

from ..embedding.cache import FeatureCache
from ..embedding.embedding import WindowEmbeddings, join_windows
from ..processors import MediaError


_EVERY = 5.0  # seconds of work that may be lost when the process is killed


class Unfinished:
    """Windows on disk, in pieces named by file and number of windows before. The key of a file must change,
    by `repr`, with its content; embeddings also depend on `state`."""

    def __init__(self, folder: Path, state: Any) -> None:
        self.cache = FeatureCache(folder, state)
        self._pieces: dict[Any, list[int]] = {}  # of a file: windows before each piece, then those of all
        self._waiting: list[WindowEmbeddings] = []
        self._file: Any = None  # that those waiting are of
        self._written = time.monotonic()

    def begin(self, file: Any, source: str, duration: float) -> WindowEmbeddings | None:
        """The saved first windows of a file (`source` in errors), or None."""
        self._pieces[file] = counts = [0]
        pieces = []
        while (arrays := self.cache.load([(file, counts[-1])])) is not None:
            starts, ends = arrays["starts"].tolist(), arrays["ends"].tolist()
            errors = [MediaError(source, *error[1:]) for error in json.loads(str(arrays["errors"]))]
            embeds = {name: rows for name, rows in arrays.items() if name.endswith("_embeds")}
            pieces.append(WindowEmbeddings(duration, starts, ends, embeds, errors))
            counts.append(counts[-1] + len(starts) + len(errors))
        return join_windows(pieces) if pieces else None

    def keep(self, file: Any, windows: WindowEmbeddings) -> None:
        """Add the next windows of a file, to be written with others a few seconds later."""
        if file != self._file:
            self._file, self._waiting = file, []
        self._waiting.append(windows)
        if time.monotonic() - self._written >= _EVERY:
            self.write()

    def write(self) -> None:
        """Write the waiting windows."""
        self._written = time.monotonic()
        pieces, self._waiting = self._waiting, []
        if not pieces:
            return
        counts, joined = self._pieces[self._file], join_windows(pieces)
        spans = {"starts": np.array(joined.starts), "ends": np.array(joined.ends)}
        errors = np.array(json.dumps([error.args for error in joined.errors]))
        self.cache.save([(self._file, counts[-1])], {**spans, "errors": errors, **joined.arrays})
        counts.append(counts[-1] + len(joined.starts) + len(joined.errors))

    def finish(self, file: Any) -> None:
        """Delete the pieces of a complete file."""
        if file == self._file:
            self._waiting = []
        for before in self._pieces.pop(file, [])[:-1]:
            self.cache.remove([(file, before)])

    def clear(self) -> None:
        """Delete all pieces."""
        shutil.rmtree(self.cache.folder, ignore_errors=True)
