# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""A gallery of embedded clips in memory, searched exactly."""

import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..embedding.embedding import embed_files, embed_query
from ..embedding.vectors import unit
from ..models.modeling_vatt import VattForPreTraining, VattModel
from ..processors import MediaError, MediaSource, VattProcessor
from .store import SPACES, Space


@dataclass(frozen=True)
class Hit:
    """A result: name of the clip and cosine similarity with the query."""

    name: str
    score: float


class Gallery:
    """Clips embedded in both spaces; queries are text, sound or video.

    Text is compared in the video-text space, sound and video in the video-audio space.

    Args:
        names: one per clip.
        va, vt: (clips, dim) embeddings of the clips' video in the two spaces; normalised here.
    """

    def __init__(self, names: Sequence[str], va: npt.NDArray, vt: npt.NDArray) -> None:
        if not len(names) == len(va) == len(vt):
            raise ValueError(
                f"{len(names)} names for {len(va)} and {len(vt)} embeddings: give one of each per clip."
            )
        self.names = list(names)
        self.va, self.vt = unit(va), unit(vt)

    @classmethod
    def from_files(
        cls,
        model: VattModel | VattForPreTraining,
        processor: VattProcessor,
        files: Iterable[str | os.PathLike],
        windows: int = 1,
        batch_size: int = 16,
    ) -> tuple["Gallery", list[MediaError]]:
        """Embed video files as the means of their `windows` uniform windows (paper A.3.3), `batch_size` files
        at a time. Returns the gallery, and the errors of files that could not be read."""
        names: list[str] = []

        def noted() -> Iterator[str]:
            for file in files:
                names.append(os.fspath(file))
                yield names[-1]

        found = embed_files(model, processor, noted(), windows=windows, batch_size=batch_size)
        va, vt = (found.arrays[f"video_{space}_embeds"].mean(axis=1) for space in SPACES)
        return cls([names[index] for index in found.kept], va, vt), found.errors

    def search(
        self,
        model: VattModel | VattForPreTraining,
        processor: VattProcessor,
        text: str | None = None,
        audio: MediaSource | None = None,
        video: MediaSource | None = None,
        top_k: int = 10,
    ) -> list[Hit]:
        """Clips most similar to one query, best first; arguments and errors as of [`embed_query`], with the
        model and processor of the gallery."""
        query = embed_query(model, processor, text, audio, video)
        return self.nearest(query, "va" if text is None else "vt", top_k)

    def nearest(self, query: npt.NDArray, space: Space, top_k: int = 10) -> list[Hit]:
        """Clips most similar to an embedding, best first.

        Args:
            query: (dim,), need not be normalised.
            space: `"va"` for sound and video, `"vt"` for text.
            top_k: number of results.

        Raises:
            ValueError: `top_k` below 1.
        """
        if top_k < 1:
            raise ValueError(f"`top_k` must be at least 1, got {top_k}.")
        scores = (self.va if space == "va" else self.vt) @ unit(query)
        best = np.argsort(-scores, kind="stable")[:top_k]
        return [Hit(self.names[index], float(scores[index])) for index in best]
