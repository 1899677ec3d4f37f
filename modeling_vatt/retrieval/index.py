# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""An index of moments on disk: embedded windows of videos and their search, without torch and
transformers."""

import logging
import os
import threading
from collections.abc import Callable, Iterable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from .._version import __version__
from ..embedding.identity import ModelIdentity
from . import approximate
from .approximate import ApproximateIndex
from .errors import IndexDamaged, IndexMismatch
from .moments import Moment, Stale
from .searchable import MEETING, IndexedMoment, Result, SearchableIndex, Vectors
from .store import EXPORTED, SPACES, FileRecord, Space, Store, check_path, find_index


if TYPE_CHECKING:
    from datasets import Dataset

logger = logging.getLogger(__name__)

EXACT_LIMIT = 100_000  # windows up to which all are compared with a query
_FEW = 20_000  # windows of a folder that are compared one by one in a large index

# Count -> (numbers, scores) of the best windows, best first.
_Candidates = tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]


class VattIndex(SearchableIndex):
    """Embedded windows of the videos of a folder, on disk, made by [`VattIndex.create`] and
    [`VattIndex.open`].

    Holds vectors and metadata; [`VideoSearch`] adds the model. Several threads and processes may use it;
    while one writes, the others see each file completely or not at all.
    """

    def __init__(self, store: Store) -> None:
        self.store = store
        settings = store.meta("settings")
        try:
            self.identity = ModelIdentity(**settings["model"])
            self.window, self.stride = float(settings["window"]), float(settings["stride"])
            self.settings: dict[str, Any] = settings
            root = settings["root"]
            dims = {space: int(self.identity.dims[space]) for space in SPACES}
        except (KeyError, TypeError, ValueError) as error:
            raise IndexDamaged(f"{store.file}: settings that cannot be read ({error!r}).") from error
        self.dims: dict[Space, int] = dims
        # Relative if the index lies in the folder of the videos, so that both can be moved; to its real
        # place, as links may lead there from anywhere.
        self.root: Path | None = (
            None if root is None else Path(os.path.normpath(store.folder.resolve() / root))
        )
        self._guard = threading.Lock()
        self._cache: dict[tuple[Space, int], tuple[int, npt.NDArray[np.int64], npt.NDArray[np.float32]]] = {}
        self._approximate: dict[Space, ApproximateIndex] = {}
        self._counted = (-1, 0)
        self._temporary = ExitStack()  # removes a folder that holds the store

    @classmethod
    def create(
        cls,
        folder: str | os.PathLike,
        root: str | os.PathLike | None,
        identity: ModelIdentity,
        window: float,
        stride: float | None = None,
    ) -> "VattIndex":
        """A new, empty index.

        Args:
            folder: of the index; it is made.
            root: folder of the videos.
            identity: of the model whose embeddings will be added.
            window: length of a window, seconds.
            stride: seconds from window to window; default: their length.

        Raises:
            ValueError: a stride or window that is not positive.
            FileExistsError: there is an index already.
        """
        stride = window if stride is None else stride
        if not (window > 0 and stride > 0):
            raise ValueError(f"`window` and `stride` must be positive seconds, got {window} and {stride}.")
        where = None
        if root is not None:
            place, videos = Path(folder).resolve(), Path(root).resolve()
            inside = videos in place.parents
            where = os.path.relpath(videos, place) if inside else str(Path(root).absolute())
        settings = {
            "model": identity.to_dict(),
            "root": where,
            "window": window,
            "stride": stride,
            "version": __version__,
            "created": datetime.now(UTC).isoformat(timespec="seconds"),
        }
        return cls(Store.create(folder, settings))

    @classmethod
    def open(cls, folder: str | os.PathLike) -> "VattIndex":
        """The index in a folder, or that of the videos in a folder.

        Raises:
            FileNotFoundError: no index there.
            IndexDamaged, IndexMismatch: one that cannot be used.
        """
        return cls(Store(folder))

    @classmethod
    def from_pretrained(
        cls,
        name: str | os.PathLike,
        folder: str | os.PathLike | None = None,
        root: str | os.PathLike | None = None,
        revision: str | None = None,
        token: str | None = None,
    ) -> "VattIndex":
        """An index from a folder, or from a dataset of the Hub.

        The JSON and Parquet files of [`VattIndex.save_pretrained`] are not trusted, but checked and written
        to a new index. A folder of `vatt index` is opened directly by SQLite and faiss, and names the folder
        whose videos are shown, so open only your own.

        Args:
            name: folder of an index or of [`VattIndex.save_pretrained`], or Hub id of a dataset.
            folder: for the new index; default: a temporary one.
            root: folder of the videos, if they are here.
            revision: commit, branch or tag on the Hub.
            token: for the Hub.

        Raises:
            FileNotFoundError: no such folder and no such dataset.
            FileExistsError: there is an index in `folder`.
            IndexDamaged, IndexMismatch: an index that cannot be used, or two in one folder.
        """
        if Path(name).exists() and not Path(name, EXPORTED).is_file():
            return cls.open(name)
        if (found := find_index(name)) is not None:
            raise IndexMismatch(
                f"{name}: holds {EXPORTED} of an index that was saved, and another index ({found}). Move one "
                "of them to another folder."
            )
        from .exchange import download, read

        source = Path(name) if Path(name).exists() else download(str(name), revision, token)
        with ExitStack() as stack:
            if folder is None:
                folder = Path(stack.enter_context(TemporaryDirectory(prefix="vatt-index-")), "index")
            index = cls(read(source, Path(folder), root))
            index._temporary = stack.pop_all()
        index.build()
        return index

    def save_pretrained(self, folder: str | os.PathLike) -> None:
        """Write the index, without the videos, as Parquet for `datasets`, with settings and a card."""
        from .exchange import save

        save(self.store, self.info(), folder)

    def push_to_hub(
        self,
        repo_id: str,
        private: bool = False,
        token: str | None = None,
        commit_message: str = "Upload index",
    ) -> str:
        """Upload the files of [`VattIndex.save_pretrained`] as a dataset of the Hub.

        Args:
            repo_id: name of the dataset, which is made if necessary.
            private: whether a new one is private.
            token: for the Hub.
            commit_message: of the upload.

        Returns:
            Address of the commit.
        """
        from huggingface_hub import HfApi

        from .exchange import DATA, save

        api = HfApi(token=token)
        options: dict[str, Any] = {"repo_type": "dataset", "commit_message": commit_message}
        name = api.create_repo(repo_id, repo_type="dataset", private=private, exist_ok=True).repo_id
        with TemporaryDirectory() as folder:
            save(self.store, self.info(), folder, shared=True)
            done = api.upload_folder(
                repo_id=name, folder_path=folder, delete_patterns=f"{DATA}/*.parquet", **options
            )
        return str(done.commit_url)

    def to_dataset(self) -> "Dataset":
        """All windows as a table in memory: `path`, `start`, `end`, `duration`, `va`, `vt`."""
        from datasets import Dataset

        from .exchange import table

        return Dataset(table(self.store))

    def close(self) -> None:
        """Close the files of the index."""
        self.store.close()
        self._temporary.close()

    def info(self) -> dict[str, Any]:
        """What the index holds and what it was made with."""
        facts = self._read(self._facts)
        return {
            "index": str(self.store.folder),
            "root": None if self.root is None else str(self.root),
            "version": self.settings["version"],
            "created": self.settings["created"],
            **facts,
            # Up to the limit all windows are compared, even if there were more before.
            "approximate": approximate.read_notes(self.store) if facts["windows"] > EXACT_LIMIT else None,
            "bytes": sum(path.stat().st_size for path in self.store.folder.iterdir() if path.is_file()),
        }

    def files(self) -> list[dict[str, Any]]:
        """`path`, `duration`, `windows` and `error` (None if all could be read) of all files."""
        return [
            {
                "path": check_path(file.path, self.store.file),
                "duration": file.duration,
                "windows": windows,
                "error": file.error,
            }
            for file, windows in self.store.files()
        ]

    def add(
        self,
        file: FileRecord,
        starts: Sequence[float],
        ends: Sequence[float],
        va: npt.NDArray,
        vt: npt.NDArray,
    ) -> None:
        """Add a file with its windows, replacing the one of the same path.

        Args:
            file: its path and properties.
            starts, ends: of the windows, seconds.
            va, vt: (windows, dim) embeddings of the windows' video in both spaces; normalised here.

        Raises:
            ValueError: numbers that do not fit together, or embeddings that are not finite.
            IndexDamaged: a path that leads out of the folder.
        """
        self.store.put([(file, starts, ends, self._rows(file.path, starts, ends, va=va, vt=vt))])

    def remove(self, paths: Iterable[str]) -> int:
        """Remove files; returns their number."""
        return self.store.remove(paths)

    def _read(self, work: Callable[[], Result]) -> Result:
        with self.store.reading():
            return work()

    def _select(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return list(self.store.select(statement.format(files="files", windows="windows"), values))

    def stale(self, paths: Iterable[str]) -> dict[str, Stale]:
        """See [`SearchableIndex.stale`]."""
        found: dict[str, Stale] = {}
        if self.root is None:
            return found
        for path in set(paths):
            try:
                stat = (self.root / path).stat()
            except OSError:
                found[path] = "gone"
                continue
            known = self._select("SELECT size, mtime_ns FROM {files} WHERE path = %s", path)
            if known != [(stat.st_size, stat.st_mtime_ns)]:
                found[path] = "changed"
        return found

    def file_of(self, name: str | os.PathLike) -> Path:
        """See [`SearchableIndex.file_of`]."""
        file = Path(name)
        return file if self.root is None or file.exists() else self.root / file

    def place_of(self, file: str | os.PathLike) -> str:
        """See [`SearchableIndex.place_of`]."""
        file = Path(file)
        if self.root is not None and (file.is_absolute() or os.path.lexists(file)):
            absolute, root = Path(os.path.abspath(file)), self.root.resolve()
            # A link in the folder is a file of its own, wherever it leads.
            for place in (absolute.parent.resolve() / absolute.name, absolute.resolve()):
                if place.is_relative_to(root):
                    return place.relative_to(root).as_posix()
        return file.as_posix()

    def window_at(self, path: str, seconds: float | None = None) -> IndexedMoment | None:
        """The window whose middle is nearest to a second of a file (default: its middle), with its
        embeddings; None if there is none."""
        with self.store.reading():
            rows = self._select(
                "SELECT w.id FROM windows w JOIN files f ON f.id = w.file WHERE path = %s "
                "ORDER BY abs((start + end) / 2 - coalesce(%s, duration / 2)), w.id LIMIT 1",
                path,
                None if seconds is None else seconds + MEETING,
            )
            if not rows:
                return None
            ids = np.array(rows[0])
            vectors = {
                space: next(self.store.vectors(space, self.dims[space], ids=ids))[1][0] for space in SPACES
            }
            return self._moments(ids, np.ones(1, np.float32))[0], vectors

    def _moments(self, ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32]) -> list[Moment]:
        known = self.store.describe(ids)
        result = []
        for number, score in zip(ids.tolist(), scores.tolist(), strict=True):
            if number in known:
                path, start, end, duration = known[number]
                result.append(Moment(check_path(path, self.store.file), start, end, score, duration))
        return result

    def _nearest(
        self, queries: Vectors, folders: Sequence[str] | None, exact: bool | None
    ) -> Callable[[int], list[Moment]]:
        best = self._candidates(queries, folders, exact)
        return lambda count: self._moments(*best(count))

    def _candidates(
        self, queries: Vectors, folders: Sequence[str] | None, exact: bool | None
    ) -> Callable[[int], _Candidates]:
        """As [`VattIndex._nearest`], with numbers and scores."""
        chosen = None if folders is None else self.store.window_ids(folders)
        if self._size() <= EXACT_LIMIT:
            ids, scores = self._compared(queries, chosen)
            return lambda count: _best(ids, scores, count)
        few = chosen is not None and len(chosen) <= _FEW
        indexes = [] if exact or few else [self._approximate_index(space) for space in queries]
        found = {space: index for space, index in zip(queries, indexes, strict=False) if index is not None}
        if len(found) < len(queries):
            return lambda count: self._scan(queries, chosen, count)
        built = max(index.last for index in found.values())
        tail, late = self._compared(queries, chosen, built)

        def nearest(count: int) -> _Candidates:
            # The best sums may not be the best in each space.
            wanted = count if len(queries) == 1 else 4 * count
            candidates = [index.candidates(queries[space], wanted, chosen) for space, index in found.items()]
            ids, scores = self._scan(queries, np.unique(np.concatenate(candidates)), count)
            if len(ids) < count:  # some were removed, or the lists hold too few
                return self._scan(queries, chosen, count)
            return _best(np.concatenate([ids, tail]), np.concatenate([scores, late]), count)

        return nearest

    def _compared(
        self,
        queries: Vectors,
        chosen: npt.NDArray[np.int64] | None,
        after: int = 0,
    ) -> _Candidates:
        """Scores of the windows after a number, which are kept in memory."""
        loaded = {space: self._loaded(space, after) for space in queries}
        ids = next(iter(loaded.values()))[0]
        for others, _ in loaded.values():
            self._check_order(ids, others)
        scores = np.sum([vectors @ queries[space] for space, (_, vectors) in loaded.items()], axis=0)
        if chosen is not None:
            mask = np.isin(ids, chosen, assume_unique=True)
            ids, scores = ids[mask], scores[mask]
        return ids, scores

    def _check_order(self, ids: npt.NDArray[np.int64], others: npt.NDArray[np.int64]) -> None:
        if not np.array_equal(ids, others):
            raise IndexDamaged(f"{self.store.file}: windows without vectors. Index again.")

    def _size(self) -> int:
        """`len(self)`, counted once until something changes."""
        generation = self.store.generation()
        known, size = self._counted
        if known != generation:
            size = len(self)
            self._counted = (generation, size)
        return size

    def _approximate_index(self, space: Space) -> ApproximateIndex | None:
        """Approximate index of a space, if it was built and faiss is installed."""
        notes = approximate.read_notes(self.store)
        if notes is None or not approximate.is_available():
            return None
        with self._guard:
            known = self._approximate.get(space)
            if known is None or known.generation != notes["generation"]:
                try:
                    known = ApproximateIndex(self.store, space, notes)
                except OSError as error:  # until it is rebuilt, the search is slow
                    logger.warning(f"{error}. All windows are compared; `vatt index` makes the file again.")
                    return None
                self._approximate[space] = known
            return known

    def build(self, force: bool = False) -> dict[str, Any] | None:
        """Build the approximate search of an index of more than `EXACT_LIMIT` windows, if it is missing,
        damaged or out of date and faiss is installed. Hold [`writer_lock`].

        Args:
            force: build it in any case.

        Returns:
            Its parameters and measured recall; None if there is none.

        Raises:
            ImportError: with `force`, if faiss is not installed.
        """
        notes = approximate.read_notes(self.store)
        ids = self.store.window_ids()
        if not force:
            if len(ids) <= EXACT_LIMIT:
                return None
            if not approximate.is_available():
                logger.warning(
                    f"{len(ids)} windows are searched one by one. Faster: pip install '{approximate.EXTRA}'."
                )
                return None
            if (
                notes is not None
                and not approximate.is_stale(notes, ids)
                and approximate.can_be_read(self.store, notes)
            ):
                return notes
        return approximate.build(self.store, self.dims)

    def _scan(
        self,
        queries: Vectors,
        chosen: npt.NDArray[np.int64] | None,
        count: int,
    ) -> _Candidates:
        """The best of all windows, read from disk in blocks."""
        ids, scores = np.zeros(0, np.int64), np.zeros(0, np.float32)
        spaces = (self.store.vectors(space, self.dims[space], ids=chosen) for space in queries)
        for blocks in zip(*spaces, strict=True):
            numbers = blocks[0][0]
            for others, _ in blocks[1:]:
                self._check_order(numbers, others)
            found = sum(vectors @ query for (_, vectors), query in zip(blocks, queries.values(), strict=True))
            ids, scores = _best(np.concatenate([ids, numbers]), np.concatenate([scores, found]), count)
        return ids, scores

    def _loaded(self, space: Space, after: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float32]]:
        """Windows of a space after a number, kept in memory; after a change only new ones are read."""
        with self._guard:
            generation = self.store.generation()
            dim = self.dims[space]
            known, ids, vectors = self._cache.get(
                (space, after), (-1, np.zeros(0, np.int64), np.zeros((0, dim), np.float32))
            )
            if known != generation:
                # A search may see an older state than the cached one. Numbers always stand for the same
                # vectors, so missing ones are read, and the rest is kept.
                wanted = self.store.window_ids(after=after)
                stay = np.isin(ids, wanted, assume_unique=True)
                missing = np.setdiff1d(wanted, ids, assume_unique=True)
                last = int(ids[-1]) if len(ids) else after
                later = bool(len(missing)) and missing[0] > last  # faster to read at once
                place = {"after": last} if later else {"ids": missing}
                read = self.store.vectors(space, dim, **place) if len(missing) else ()
                blocks = [(ids[stay], vectors[stay]), *read]
                ids = np.concatenate([block[0] for block in blocks])
                vectors = np.concatenate([block[1] for block in blocks])
                if not later:
                    order = np.argsort(ids)
                    ids, vectors = ids[order], vectors[order]
                if known < generation:
                    self._cache = {key: value for key, value in self._cache.items() if key[0] != space}
                    self._cache[space, after] = (generation, ids, vectors)
            return ids, vectors

    def vectors(self, space: Space, limit: int | None = None) -> tuple[list[Moment], npt.NDArray[np.float32]]:
        """Windows with their embeddings (windows, dim), for maps and other tools; scores are 1.

        Args:
            space: `"va"` or `"vt"`.
            limit: at most so many, spread evenly over all.
        """
        with self.store.reading():
            ids = self.store.window_ids()
            if limit is not None and len(ids) > limit:
                ids = ids[np.linspace(0, len(ids) - 1, limit).round().astype(np.int64)]
            moments = self._moments(ids, np.ones(len(ids), np.float32))
            blocks = list(self.store.vectors(space, self.dims[space], ids=ids))
        empty = np.zeros((0, self.dims[space]), np.float32)
        return moments, np.concatenate([empty, *(block[1] for block in blocks)])


def _best(ids: npt.NDArray[np.int64], scores: npt.NDArray[np.float32], count: int) -> _Candidates:
    """The best, best first; of equal scores the earlier one."""
    if count < len(scores):
        chosen = scores >= np.partition(scores, -count)[-count]
        ids, scores = ids[chosen], scores[chosen]
    order = np.lexsort((ids, -scores))[:count]
    return ids[order], scores[order]
