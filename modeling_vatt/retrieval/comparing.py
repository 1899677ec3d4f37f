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
    """Results of one model.

    Args:
        model: folder or Hub id.
        moments: found, best first.
        shared: for each of these, how many other models find it too.
        unknown: words of the query that the model does not know.
    """

    model: str
    moments: list[Moment]
    shared: list[int]
    unknown: list[str]


def compare_searches(searches: Iterable[VideoSearch], query: Query, **options: Any) -> list[Answer]:
    """Moments that each model finds, and how many others find an overlapping one.

    Args:
        searches: of the same videos; used one after the other.
        query: what is looked for.
        **options: of [`VideoSearch.find`].
    """
    found: list[tuple[str, list[Moment], list[str]]] = []
    for search in searches:
        unknown = [] if query.text is None else search.unknown_words(query.text)
        found.append((search.index.identity.name, search.find(query, **options), unknown))
    lists = [moments for _, moments, _ in found]
    return [
        Answer(model, moments, _shared(moments, lists[:place] + lists[place + 1 :]), unknown)
        for place, (model, moments, unknown) in enumerate(found)
    ]


def _shared(moments: Sequence[Moment], lists: Sequence[Sequence[Moment]]) -> list[int]:
    return [sum(any(moment.overlaps(other) for other in others) for others in lists) for moment in moments]
