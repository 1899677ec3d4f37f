# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Searches and maps, one at a time at the model, and never on the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any, Literal, TypeVar

import anyio
import anyio.to_thread
import numpy as np
import numpy.typing as npt
from fastapi import HTTPException

from ..retrieval import Moment, Query, VideoSearch, strength
from ..retrieval.remote import HASH
from ..retrieval.searchable import IndexedMoment
from ..retrieval.store import Space
from .desktop import can_show
from .library import Library
from .settings import WebSettings


Layout = Literal["tsne", "pca"]
Result = TypeVar("Result")
_DECODERS = 2  # uploads that are decoded at the same time
_PLACE = ("path", "start", "end", "duration", "version", "stale")  # of a moment that no search has found


class SearchService:
    """The searches and maps behind the routes."""

    def __init__(self, search: VideoSearch, settings: WebSettings) -> None:
        self.search = search
        self.settings = settings
        self.library = Library(search.index, settings.thumbnail_size)
        # One thread, as two forward passes at a time gain nothing.
        self._worker = ThreadPoolExecutor(1, "vatt-model")
        # Searches by words must not wait for a slow decoder.
        self._decoders = anyio.CapacityLimiter(_DECODERS)
        self._waiting = 0
        self._maps: dict[tuple[Space, Layout], tuple[int, int, list[Moment], list[list[float]]]] = {}
        self._map_locks: dict[tuple[Space, Layout], asyncio.Lock] = {}

    def close(self) -> None:
        """End the threads."""
        self._worker.shutdown(cancel_futures=True)
        self.library.close()

    async def run(self, function: Callable[..., Result], *args: Any) -> Result:
        """The result of a call in the worker thread; HTTPException (503) if too many wait."""
        if self._waiting >= self.settings.max_waiting:
            raise HTTPException(503, "Too many searches at the moment. Try again.", {"Retry-After": "5"})
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._worker, function, *args)
        finally:
            self._waiting -= 1

    async def info(self) -> dict[str, Any]:
        """What the page needs at its start."""

        def collect() -> dict[str, Any]:
            # Read first, so that a change meanwhile is noticed later.
            generation, known = self.library.generation(), self.library.info()
            return (
                {"generation": generation}
                | {name: known.get(name) for name in ("windows", "files", "seconds", "errors", "created")}
                | {
                    "model": str(known.get("model", "")).rstrip("/").rpartition("/")[2],
                    "version": known.get("version"),
                    "name": None if self.library.root is None else self.library.root.name,
                    "folders": self.library.folders(),
                    "unreadable": self.library.errors(),
                }
            )

        names = ("max_upload_bytes", "max_query_characters", "max_results", "max_map_points", "copy_seconds")
        limits: dict[str, Any] = {name: getattr(self.settings, name) for name in names}
        can_open = self.settings.local and self.library.root is not None and can_show()
        return await asyncio.to_thread(collect) | limits | {"can_open": can_open}

    async def find(
        self, query: Query, moment: IndexedMoment | None, options: dict[str, Any]
    ) -> dict[str, Any]:
        """Moments for a query (its files are uploads) or like a moment of the index, and unknown words.

        Raises:
            ValueError: no known words, or a silent sound.
            MediaError: an upload cannot be read, or exceeds the limits.
        """
        search, limits = self.search, self.settings.media_limits
        if query.audio is None and query.video is None and (query.like is None or moment is not None):
            read = search.read(query, limits, moment)  # has no files
        else:
            read = await anyio.to_thread.run_sync(search.read, query, limits, moment, limiter=self._decoders)
        moments, unknown = await self.run(
            lambda: (search.find(read, **options), search.unknown_words(*query.texts))
        )
        return await self._answer(moments) | {"unknown": unknown}

    async def moment(self, path: str, seconds: float | None) -> IndexedMoment | Path | None:
        """A moment of the index, its file if the index does not have it as it is now, or None. `path`: of the
        index, or `sha256:` and a hash; `seconds`: default the middle. ValueError if the file has no such
        second."""
        index, library = self.search.index, self.library

        def look() -> IndexedMoment | Path | None:
            if path.startswith(HASH):
                named = index.path_of_content(path.removeprefix(HASH))
                return None if named is None else index.moment_at(named, seconds)
            if library.root is None or library.locate(path) is None:  # from the index alone
                return index.moment_at(path, seconds)
            return index.moment_of(library.root / path, seconds) or library.root / path

        return await self.run(look)

    async def sample(self, count: int) -> dict[str, Any]:
        """Some moments, spread evenly over the index."""
        moments, _ = await self.run(lambda: self.search.index.vectors("vt", count))
        return await self._answer(moments, found=False)

    async def _answer(self, moments: list[Moment], found: bool = True) -> dict[str, Any]:
        """Moments with the versions of their files, and the state of the index; with scores if they were
        `found` by a search."""

        def collect() -> dict[str, Any]:
            versions = {path: self.library.version(path) for path in {moment.path for moment in moments}}
            shown = []
            for moment in self.library.marked(moments):
                entry = asdict(moment) | {
                    "version": versions[moment.path],
                    "strength": strength(moment.share),
                }
                shown.append(entry if found else {name: entry[name] for name in _PLACE})
            return {"moments": shown, "generation": self.library.generation()}

        return await asyncio.to_thread(collect)

    async def map(self, space: Space, layout: Layout) -> dict[str, Any]:
        """Places of moments on a plane, kept until the index changes."""
        lock = self._map_locks.setdefault((space, layout), asyncio.Lock())
        async with lock:  # others wait for the same map
            index = self.search.index
            generation, total = await self.run(lambda: (index.store.meta("generation"), len(index)))
            known = self._maps.get((space, layout))
            if known is None or known[0] != generation:
                moments, vectors = await self.run(lambda: index.vectors(space, self.settings.max_map_points))
                # Not in the worker, where searches would wait for it.
                places = await asyncio.to_thread(_places, np.asarray(vectors), layout)
                known = self._maps[space, layout] = generation, total, moments, places.round(4).tolist()
        generation, total, moments, spots = known
        shown = (await self._answer(moments, found=False))["moments"]  # files change without the index
        points = [moment | {"x": x, "y": y} for moment, (x, y) in zip(shown, spots, strict=True)]
        return {"total": total, "generation": generation, "points": points}


def _places(vectors: npt.NDArray, layout: Layout) -> npt.NDArray[np.float64]:
    """(points, 2) in [0, 1], both axes on the same scale."""
    from sklearn.decomposition import PCA
    from sklearn.preprocessing import normalize
    from threadpoolctl import threadpool_limits

    from ..analysis.projections import project

    count = len(vectors)
    if count < 4:  # too few for any method
        return np.stack([(np.arange(count) + 0.5) / max(count, 1), np.full(count, 0.5)], axis=1)
    if layout == "tsne":
        # One thread, to leave a core for searches.
        with threadpool_limits(1):
            places = project(vectors, "tsne")
    else:
        places = PCA(2, random_state=0).fit_transform(normalize(vectors.astype(np.float64)))
    low = places.min(axis=0)
    extent = float((places.max(axis=0) - low).max()) or 1.0
    return np.asarray((places - low) / extent, dtype=float)
