# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From windows that fit a query to moments of videos."""

import math
from bisect import bisect_left
from collections import Counter
from collections.abc import Callable, Hashable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, field, replace
from itertools import islice, takewhile
from operator import attrgetter
from typing import Any, Literal


Strength = Literal["strong", "likely", "weak"]
# Largest share of random pairs that fit as well, for each strength.
STRENGTHS: dict[Strength, float] = {"strong": 0.01, "likely": 0.05, "weak": 1.0}
MARGIN = 0.05  # cosine below a moment's best window, up to which neighbours belong to it
Stale = Literal["gone", "changed"]
STALE_NOTES: dict[Stale | None, str] = {"gone": "gone", "changed": "changed since it was indexed"}
_FIRST_WINDOWS = 64  # looked at to find moments; then four times as many, as often as necessary
_TOUCHING = 0.05  # seconds between windows that count as neighbours


@dataclass(frozen=True)
class Moment:
    """A part of a video that fits a query.

    Args:
        path: of the file, relative to the root of the index, POSIX.
        start, end: seconds of the file.
        score: cosine similarity of the query and the moment's best window.
        duration: of the whole file, seconds.
        copies: other files of the same content, if those are one result.
        share: of random pairs of moments that fit as well, see [`Calibration`]; None if not known.
        stale: whether the file is gone or has changed since it was indexed, see [`VattIndex.marked`].
    """

    path: str
    start: float
    end: float
    score: float
    duration: float
    copies: tuple[str, ...] = field(default=(), compare=False)
    share: float | None = field(default=None, compare=False)
    stale: Stale | None = field(default=None, compare=False)

    def overlaps(self, other: "Moment") -> bool:
        """Whether both are of one file and overlap in time."""
        return self.path == other.path and self.meets(other)

    def meets(self, other: "Moment") -> bool:
        """Whether both overlap in time, in any files."""
        return self.start < other.end and other.start < self.end

    def holds(self, seconds: float | None) -> bool:
        """Whether a second of the file lies in it."""
        return seconds is None or self.start - _TOUCHING <= seconds <= self.end + _TOUCHING


def check_second(moment: Moment, seconds: float | None) -> None:
    """Raise `ValueError` for a second that the file of a moment does not have."""
    if seconds is not None and not 0 <= seconds <= moment.duration:
        raise ValueError(
            f"{moment.path} has no second {seconds:g}: it ends at {moment.duration:g}. Take an earlier one."
        )


def timecode(seconds: float) -> str:
    """`83.25` -> `"1:23.2"`, with hours where there are any."""
    tenths = int(seconds * 10 + 1e-6)
    minutes, rest = divmod(tenths, 600)
    hours, minutes = divmod(minutes, 60)
    clock = f"{hours}:{minutes:02d}" if hours else f"{minutes}"
    return f"{clock}:{rest // 10:02d}.{rest % 10}"


def strength(share: float | None) -> Strength | None:
    """`"strong"` up to a share of 1 % of random pairs, `"likely"` up to 5 %, otherwise `"weak"`."""
    if share is None:
        return None
    return next(name for name, largest in STRENGTHS.items() if share <= largest)


def moment_records(moments: Sequence[Moment]) -> list[dict[str, Any]]:
    """Moments as dicts for JSON: fields of [`Moment`], `rank`, `strength`, and the time codes `from`,
    `to`."""
    return [
        {
            "rank": rank,
            **asdict(moment),
            "score": round(moment.score, 6),
            "strength": strength(moment.share),
            "from": timecode(moment.start),
            "to": timecode(moment.end),
        }
        for rank, moment in enumerate(moments, start=1)
    ]


def find_moments(
    nearest: Callable[[int], list[Moment]],
    top_k: int,
    min_score: float | None = None,
    merge: bool = True,
    margin: float = MARGIN,
    per_file: int | None = None,
    content: Callable[[str], Hashable] = lambda path: path,
    other_than: Moment | None = None,
) -> list[Moment]:
    """Moments that fit a query, from as few of the best windows as necessary.

    Args:
        nearest: gives so many of the best windows, best first.
        top_k: number of results.
        min_score: leave out moments that are less similar.
        merge: join windows, see [`merge_windows`].
        margin: see [`merge_windows`].
        per_file: at most so many moments of a file.
        content: of a file, by its path; of files of the same content only the first is a result.
        other_than: leave out moments that overlap this one, in all files of its content.

    Raises:
        ValueError: `top_k` or `per_file` below 1, or a `min_score` that is no cosine.
    """
    for name, number in (("top_k", top_k), ("per_file", per_file)):
        if number is not None and number < 1:
            raise ValueError(f"`{name}` must be at least 1, got {number}.")
    if min_score is not None and not -1 <= min_score <= 1:
        raise ValueError(f"`min_score` must be a cosine, -1 to 1, got {min_score}.")
    least = -math.inf if min_score is None else min_score
    same = None if other_than is None else content(other_than.path)

    def is_another(moment: Moment) -> bool:
        return other_than is None or not (moment.meets(other_than) and content(moment.path) == same)

    count = max(_FIRST_WINDOWS, 4 * top_k) if merge else top_k
    while True:
        windows = nearest(count)
        more, lowest = len(windows) == count, windows[-1].score if windows else -math.inf
        # Neighbours of a moment may fit less.
        last = not more or lowest < (least - margin if merge else least)
        found = _merged(windows, margin) if merge else windows
        good = takewhile(lambda moment: moment.score >= least, found)
        moments = _choose(filter(is_another, good), top_k, per_file, content)
        # Enough windows are seen when none of the others could belong to one of the moments.
        whole = len(moments) == top_k and (not merge or lowest < moments[-1].score - margin)
        if whole or last:
            return moments
        count *= 4


def _choose(
    moments: Iterable[Moment], top_k: int, per_file: int | None, content: Callable[[str], Hashable]
) -> list[Moment]:
    shown: dict[Hashable, str] = {}
    counts: Counter[str] = Counter()

    def is_wanted(moment: Moment) -> bool:
        if shown.setdefault(content(moment.path), moment.path) != moment.path:
            return False
        counts[moment.path] += 1
        return per_file is None or counts[moment.path] <= per_file

    return list(islice(filter(is_wanted, moments), top_k))


def merge_windows(windows: Iterable[Moment], top_k: int, margin: float = MARGIN) -> list[Moment]:
    """Join neighbouring windows of a file to moments, best first.

    The best remaining window starts a moment, which grows to both sides over touching or overlapping windows
    whose scores are at most `margin` lower. Windows that lie more than half in an earlier moment belong to
    it.

    Args:
        windows: windows with their scores.
        top_k: number of moments wanted.
        margin: difference of scores up to which neighbours are joined.
    """
    return list(islice(_merged(windows, margin), top_k))


def _merged(windows: Iterable[Moment], margin: float) -> Iterator[Moment]:
    ranked = sorted(windows, key=lambda window: (-window.score, window.path, window.start))
    files: dict[str, list[Moment]] = {}
    for window in sorted(ranked, key=lambda window: (window.start, window.end)):
        files.setdefault(window.path, []).append(window)
    by_start = attrgetter("start")
    longest = {path: max(window.end - window.start for window in rows) for path, rows in files.items()}
    places = {id(window): place for rows in files.values() for place, window in enumerate(rows)}
    taken: set[int] = set()
    for best in ranked:
        if id(best) in taken:
            continue
        rows = files[best.path]
        first = last = places[id(best)]
        taken.add(id(best))
        while first > 0 and _joins(rows[first - 1], rows[first], best, taken, margin):
            first -= 1
            taken.add(id(rows[first]))
        while last + 1 < len(rows) and _joins(rows[last + 1], rows[last], best, taken, margin):
            last += 1
            taken.add(id(rows[last]))
        joined = rows[first : last + 1]
        moment = replace(best, start=min(w.start for w in joined), end=max(w.end for w in joined))
        # Not over all of the file, of which hours may have thousands of moments.
        low = bisect_left(rows, moment.start - longest[best.path], key=by_start)
        high = bisect_left(rows, moment.end, key=by_start)
        taken.update(id(window) for window in rows[low:high] if _mostly_in(window, moment))
        yield moment


def _joins(window: Moment, neighbour: Moment, best: Moment, taken: set[int], margin: float) -> bool:
    early, late = sorted((window, neighbour), key=lambda w: w.start)
    touches = late.start <= early.end + _TOUCHING
    return touches and id(window) not in taken and window.score >= best.score - margin


def _mostly_in(window: Moment, moment: Moment) -> bool:
    common = min(window.end, moment.end) - max(window.start, moment.start)
    return common > (window.end - window.start) / 2
