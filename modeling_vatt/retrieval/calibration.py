# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""What a score means in an index: how many random pairs of its moments fit as well.

Cosines between text and video are lower than those between videos, and both differ between models. So a score
is first expressed in standard deviations from the mean score of its query, and then compared with pairs of
windows of different files, expressed in the same way.
"""

import threading
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import numpy.typing as npt

from .moments import STRENGTHS, Moment, Strength
from .store import SPACES, Space


_SAMPLE = 500  # windows, so 250,000 pairs
_FEWEST_PAIRS = 100
_SAME = 0.9999  # cosine: copies of a file
_CHANGED = 0.1  # windows that came or went, as a share, after which another sample is drawn


class Calibration:
    """Scores of an index, a [`VattIndex`] or a `PgVectorIndex`, as shares of random pairs."""

    def __init__(self, index: Any) -> None:
        self.index = index
        self._guard = threading.Lock()
        self._drawn = (0, -1)  # windows, and the last number, when the sample was drawn
        self._moments: list[Moment] = []
        self._vectors: dict[Space, npt.NDArray[np.float32]] = {}
        self._random: dict[tuple[float, ...], npt.NDArray[np.float32]] = {}

    def scale(self, queries: Mapping[Space, npt.NDArray[np.float32]]) -> "Scale | None":
        """Meaning of the scores of a query (see [`VattIndex.search`]); None if the index is too small."""
        norms = tuple(float(np.linalg.norm(queries[space])) if space in queries else 0.0 for space in SPACES)
        total = sum(norms)
        if not total:
            return None
        parts = tuple(round(norm / total, 3) for norm in norms)
        with self._guard:
            size, last = self._drawn
            now, new, newest = self.index.count(last)
            if new + (size + new - now) > _CHANGED * size or last < 0:
                self._draw()
                self._drawn = (now, newest)
            if parts not in self._random:
                self._random[parts] = self._pairs(parts)
            random = self._random[parts]
            scores = sum(self._vectors[space] @ query for space, query in queries.items())
        if len(random) < _FEWEST_PAIRS or not np.std(scores) > 0:
            return None
        return Scale(float(np.mean(scores)), float(np.std(scores)), random)

    def near(
        self, queries: Mapping[Space, npt.NDArray[np.float32]], at_least: Strength = "weak", **options: Any
    ) -> list[Moment]:
        """Moments that fit embeddings, with the meaning of their scores. Needs no model.

        Args:
            queries: in each space, see [`combined`].
            at_least: leave out what fits less, see [`strength`].
            **options: of [`VattIndex.search`].
        """
        scale = self.scale(queries)
        if scale is not None and at_least != "weak":
            least = scale.score(STRENGTHS[at_least])
            given = options.get("min_score")
            options["min_score"] = float(np.clip(least, -1.0 if given is None else given, 1.0))
        moments = self.index.search(queries, **options)
        if scale is None:
            return moments
        found = [replace(moment, share=scale.share(moment.score)) for moment in moments]
        # Where less than this fits by chance, even a score of 1 may be too low.
        return [moment for moment in found if moment.share <= STRENGTHS[at_least]]

    def _draw(self) -> None:
        while True:  # another process may write between the two
            moments, vectors = zip(*(self.index.vectors(space, _SAMPLE) for space in SPACES), strict=True)
            if moments[0] == moments[1]:
                break
        self._moments, self._vectors = moments[0], dict(zip(SPACES, vectors, strict=True))
        self._random.clear()

    def _pairs(self, parts: tuple[float, ...]) -> npt.NDArray[np.float32]:
        """Relative scores of pairs of windows of different files, ascending."""
        _, files = np.unique([moment.path for moment in self._moments], return_inverse=True)
        if not len(files):
            return np.zeros(0, np.float32)
        spaces = zip(parts, self._vectors.values(), strict=True)
        scores = np.sum([part * (vectors @ vectors.T) for part, vectors in spaces], axis=0)
        same = (files[:, None] == files) | (scores > _SAME)
        # Without what all windows have in common, which queries of another modality lack.
        scores = np.where(same, np.nan, scores - scores.mean(axis=0))
        rows = scores[(~np.isnan(scores)).sum(axis=1) > 1]
        if not len(rows):
            return np.zeros(0, np.float32)
        deviations = np.nanstd(rows, axis=1, keepdims=True)
        relative = (rows - np.nanmean(rows, axis=1, keepdims=True)) / np.where(deviations > 0, deviations, 1)
        return np.sort(relative[~np.isnan(relative)]).astype(np.float32)


@dataclass(frozen=True)
class Scale:
    """Meaning of the scores of one query.

    Args:
        mean, deviation: of the query's scores with all windows.
        random: relative scores of random pairs, ascending.
    """

    mean: float
    deviation: float
    random: npt.NDArray[np.float32]

    def share(self, score: float) -> float:
        """Share of random pairs that fit at least as well; never 0."""
        relative = (score - self.mean) / self.deviation
        as_well = len(self.random) - int(np.searchsorted(self.random, relative))
        return (as_well + 1) / (len(self.random) + 1)

    def score(self, share: float) -> float:
        """The least score whose share is at most this."""
        allowed = int(share * (len(self.random) + 1)) - 1  # pairs that fit as well
        if allowed >= len(self.random):
            return -1.0
        limit = self.random[len(self.random) - 1 - max(allowed, 0)]
        return self.mean + self.deviation * float(np.nextafter(limit, np.float32(np.inf)))
