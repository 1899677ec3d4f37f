# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Base of indexes of moments, on disk and on a server."""

import os
import unicodedata
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import cache
from pathlib import Path, PurePosixPath
from typing import Any, Self, TypeVar

import numpy as np
import numpy.typing as npt

from ..embedding.identity import ModelIdentity
from ..embedding.vectors import unit
from ..files import hash_file
from .moments import MARGIN, Moment, Stale, check_second, find_moments
from .store import INSIDE, SPACES, Space, check_path, folder_bounds


Result = TypeVar("Result")
Vectors = dict[Space, npt.NDArray[np.float32]]
MEETING = 1e-3  # seconds: where two windows meet, the one that begins there is meant
IndexedMoment = tuple[Moment, Vectors]  # a window with its embeddings


class SearchableIndex(ABC):
    """Windows of videos with their embeddings in two spaces.

    Attributes:
        identity: of the model whose embeddings are in it.
        window, stride: length of a window, and seconds from the start of one to that of the next.
        dims: width of the embeddings in each space.
    """

    identity: ModelIdentity
    window: float
    stride: float
    dims: dict[Space, int]

    @abstractmethod
    def close(self) -> None:
        """Close files and connections."""

    @abstractmethod
    def _read(self, work: Callable[[], Result]) -> Result:
        """Result of `work`, which sees one state of the index."""

    @abstractmethod
    def _nearest(
        self, queries: Vectors, folders: Sequence[str] | None, exact: bool | None
    ) -> Callable[[int], list[Moment]]:
        """A function that gives so many of the best windows."""

    @abstractmethod
    def _select(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Rows of SQL that every database knows; `{files}` and `{windows}` are its tables, `%s` a value."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __len__(self) -> int:
        return self._select("SELECT count(*) FROM {windows}")[0][0]

    def count(self, after: int) -> tuple[int, int, int]:
        """Windows, those of them whose number is above `after`, and the highest number. A window that is
        replaced gets a new one."""
        ((windows, new, last),) = self._select(
            "SELECT (SELECT count(*) FROM {windows}), (SELECT count(*) FROM {windows} WHERE id > %s), "
            "(SELECT coalesce(max(id), 0) FROM {windows})",
            after,
        )
        return windows, new, last

    def _facts(self) -> dict[str, Any]:
        """Facts of every index; files and seconds are of those with windows."""
        ((files, seconds, errors),) = self._select(
            "SELECT count(held), coalesce(sum(held), 0), count(error) FROM (SELECT error, CASE WHEN EXISTS "
            "(SELECT 1 FROM {windows} WHERE file = f.id) THEN duration END AS held FROM {files} f) AS known"
        )
        return {
            "model": self.identity.name,
            "revision": self.identity.revision,
            "weights": self.identity.weights,
            "window": self.window,
            "stride": self.stride,
            "dims": dict(self.dims),
            "files": files,
            "windows": len(self),
            "seconds": round(seconds, 3),
            "errors": errors,
        }

    def content_of(self, path: str) -> str:
        """Hash of a file; its path if the index has lost it meanwhile."""
        rows = self._select("SELECT hash FROM {files} WHERE path = %s", path)
        return rows[0][0] if rows else path

    def stale(self, paths: Iterable[str]) -> dict[str, Stale]:
        """Which files of the index are `"gone"` or `"changed"` since they were indexed; none if its videos
        are elsewhere."""
        return {}

    def marked(self, moments: Sequence[Moment]) -> list[Moment]:
        """The moments, each with the state of its file as `stale`."""
        states = self.stale({moment.path for moment in moments})
        return [replace(moment, stale=states.get(moment.path)) for moment in moments]

    def _copies(self, path: str) -> tuple[str, ...]:
        """Other files of the same content, by path."""
        rows = self._select(
            "SELECT other.path FROM {files} f JOIN {files} other ON other.hash = f.hash "
            "WHERE f.path = %s AND other.id != f.id ORDER BY other.path",
            path,
        )
        return tuple(row[0] for row in rows)

    def search(
        self,
        vector: npt.NDArray | Mapping[Space, npt.NDArray],
        space: Space | None = None,
        top_k: int = 10,
        folder: str | None = None,
        min_score: float | None = None,
        merge: bool = True,
        exact: bool | None = None,
        margin: float = MARGIN,
        per_file: int | None = None,
        distinct: bool = False,
        other_than: Moment | None = None,
    ) -> list[Moment]:
        """Moments most similar to an embedding, best first.

        Args:
            vector: (dim,), need not be normalised; or one for each of several spaces, not normalised here:
                the score is the sum of their products with a window's.
            space: `"va"` for sound and video, `"vt"` for text; None for several.
            top_k: number of results.
            folder: only files below this folder of the root, such as `holidays/2024` (in Unicode NFC or NFD).
            min_score: leave out what is less similar.
            merge, margin: join neighbouring windows, see [`merge_windows`].
            exact: compare with all windows; default: up to 100,000 windows, and in PostgreSQL for several
                spaces, or without graphs.
            per_file: at most so many moments of a file.
            distinct: files of the same content are one result, which names the others as its `copies`.
            other_than: leave out moments that overlap this one; with `distinct`, also in its copies.

        Raises:
            ValueError: a vector of another dimension, or an argument out of range.
        """
        queries = self._queries(vector, space)

        def find() -> list[Moment]:
            nearest = self._nearest(queries, self.folders(folder), exact)
            content: Callable[[str], str] = cache(self.content_of) if distinct else str
            moments = find_moments(nearest, top_k, min_score, merge, margin, per_file, content, other_than)
            copies = cache(self._copies)
            return [replace(m, copies=copies(m.path)) for m in moments] if distinct else moments

        return self._read(find)

    def _queries(self, vector: npt.NDArray | Mapping[Space, npt.NDArray], space: Space | None) -> Vectors:
        """The query in each space: one of length 1, or several unchanged."""
        if isinstance(vector, Mapping):
            queries = {name: np.asarray(part, dtype=np.float32) for name, part in vector.items()}
        else:
            queries = {space or "vt": unit(np.asarray(vector, dtype=np.float32))}
        known = queries.keys() <= self.dims.keys()
        if not queries or (space is None) != isinstance(vector, Mapping) or not known:
            raise ValueError(f"A query needs a space, one of {', '.join(self.dims)}, got {space!r}.")
        for name, query in queries.items():
            if query.shape != (self.dims[name],) or not np.isfinite(query).all():
                raise ValueError(
                    f"A query in `{name}` must have {self.dims[name]} finite values, got {query.shape}."
                )
        return queries

    def _rows(self, path: str, starts: Sequence[float], ends: Sequence[float], **vectors: Any) -> Vectors:
        """Embeddings (windows, dim) of the windows of a new file, normalised; errors: [`VattIndex.add`]."""
        rows: Vectors = {space: unit(np.asarray(vectors[space])) for space in SPACES}
        for space, values in rows.items():
            if values.shape != (len(starts), self.dims[space]) or len(starts) != len(ends):
                raise ValueError(
                    f"{len(starts)} starts and {len(ends)} ends for `{space}` of shape {values.shape}: "
                    f"the index wants ({len(starts)}, {self.dims[space]})."
                )
            if not np.isfinite(values).all():
                raise ValueError(f"{path}: the embeddings are not finite. Check the weights of the model.")
        check_path(path)
        return rows

    def file_of(self, name: str | os.PathLike) -> Path:
        """A file here, or else that of the index of this name, if it is here."""
        return Path(name)

    def path_of(self, file: str | os.PathLike) -> str:
        """A file as the index names it: by its place if it has not changed, or by an indexed file of the same
        content; its whole path if the index has none. What is no file here stays as given."""
        place, path = self.file_of(file), self.place_of(file)
        if not place.is_file():
            return path
        stat = place.stat()
        known = self._select("SELECT size, mtime_ns FROM {files} WHERE path = %s", path)
        if known == [(stat.st_size, stat.st_mtime_ns)]:
            return path
        size = "SELECT 1 FROM {files} WHERE size = %s LIMIT 1"
        content = hash_file(place) if self._select(size, stat.st_size) else ""
        return self.path_of_content(content, path) or place.absolute().as_posix()

    def path_of_content(self, content: str, wanted: str = "") -> str | None:
        """The first file of a hash, or the `wanted` one of them."""
        rows = self._select("SELECT path FROM {files} WHERE hash = %s ORDER BY path", content)
        paths = [path for (path,) in rows]
        return wanted if wanted in paths else next(iter(paths), None)

    @abstractmethod
    def window_at(self, path: str, seconds: float | None = None) -> IndexedMoment | None:
        """See [`VattIndex.window_at`]."""

    def moment_at(self, path: str, seconds: float | None) -> IndexedMoment | None:
        """See [`VattIndex.window_at`]; None too if no window holds the second, ValueError if the file has no
        such second."""
        found = self.window_at(path, seconds)
        if found is not None:
            check_second(found[0], seconds)
        return found if found is not None and found[0].holds(seconds) else None

    def moment_of(self, file: str | os.PathLike, seconds: float | None) -> IndexedMoment | None:
        """[`SearchableIndex.moment_at`] of a file in any place."""
        return self.moment_at(self.path_of(file), seconds)

    def place_of(self, file: str | os.PathLike) -> str:
        """Path of a file or folder relative to the index's folder, if it lies in there, or as given."""
        return Path(file).as_posix()

    def folders(self, folder: str | None) -> list[str] | None:
        """Prefixes of paths for a folder, in Unicode NFC or NFD (as macOS has it); None for the root;
        ValueError outside of it."""
        prefix = folder_prefix(folder)
        if prefix is None:
            return None
        found = [""]
        for name in PurePosixPath(prefix).parts:
            forms = dict.fromkeys((name, *(unicodedata.normalize(form, name) for form in ("NFC", "NFD"))))
            spelled = [f"{above}{form}" for above in found for form in forms]
            statement = f"SELECT 1 FROM {{files}} WHERE {INSIDE} LIMIT 1"
            found = [f"{place}/" for place in spelled if self._select(statement, *folder_bounds(place))]
        return [path.rstrip("/") for path in found]


def combined(parts: Sequence[tuple[Space, npt.NDArray, float]]) -> Vectors:
    """Embeddings as one query, whose score is the weighted mean of the cosines. `parts`: (space, embedding,
    weight), with negative weights for what is to be avoided."""
    total = sum(abs(weight) for _, _, weight in parts)
    queries: Vectors = {}
    for space, vector, weight in parts:
        queries[space] = queries.get(space, np.float32(0)) + np.float32(weight / total) * unit(vector)
    return queries


def folder_prefix(folder: str | None) -> str | None:
    """Prefix of the paths in a folder; None for the root; ValueError outside of it."""
    prefix = None if folder is None else str(PurePosixPath(folder))
    if prefix in (None, "."):
        return None
    if ".." in PurePosixPath(prefix).parts or prefix.startswith("/"):
        raise ValueError(f"`folder` must be a folder of the root, without `..`, got {folder!r}.")
    return prefix
