# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The same query in indexes of several models, to choose one."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from .moments import Moment
from .query import Query
from .video_search import VideoSearch


@dataclass(frozen=True)
class Answer:
    """What one model finds.

    Args:
        model: folder or Hub id.
        moments: found, best first.
        shared: of each of these, by how many of the other models it is found too.
    """

    model: str
    moments: list[Moment]
    shared: list[int]


def compare_searches(searches: Iterable[VideoSearch], query: Query, **options: Any) -> list[Answer]:
    """Moments that each model finds, and which of them others find, too: those that have time in common.

    Args:
        searches: of the same videos; each is let go of before the next is taken.
        query: what is looked for.
        **options: of [`VideoSearch.find`].
    """
    found: list[tuple[str, list[Moment]]] = []
    for search in searches:
        found.append((search.index.identity.name, search.find(query, **options)))
    return [
        Answer(
            model,
            moments,
            _shared(moments, [others for other, (_, others) in enumerate(found) if other != place]),
        )
        for place, (model, moments) in enumerate(found)
    ]


def _shared(moments: Sequence[Moment], lists: Sequence[Sequence[Moment]]) -> list[int]:
    return [sum(any(moment.overlaps(other) for other in others) for others in lists) for moment in moments]
