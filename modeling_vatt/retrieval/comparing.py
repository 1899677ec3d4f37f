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
        unknown: words of the query that the model ignores.
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
    answers: list[Answer] = []
    known: list[list[tuple[str, Moment]]] = []  # the same content may have other names in other indexes
    for search in searches:
        unknown = search.unknown_words(*query.texts)
        moments = search.index.marked(search.find(query, **options))
        known.append([(search.index.content_of(moment.path), moment) for moment in moments])
        answers.append(Answer(search.index.identity.name, moments, [], unknown))
    for place, answer in enumerate(answers):
        others = known[:place] + known[place + 1 :]
        answer.shared.extend(sum(_holds(found, *pair) for found in others) for pair in known[place])
    return answers


def _holds(found: Sequence[tuple[str, Moment]], content: str, moment: Moment) -> bool:
    """Whether there is a moment of this content that has time in common with this one."""
    return any(content == other and moment.meets(candidate) for other, candidate in found)
