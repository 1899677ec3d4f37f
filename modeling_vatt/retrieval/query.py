# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Queries: words, a sound, a clip, a moment of the index and words to avoid, alone or together."""

import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING


if TYPE_CHECKING:
    from ..processors import MediaSource


PARTS = ("text", "audio", "video", "like", "avoid")
_AVOIDED = 0.5  # weight of each of the words to avoid, if none is given
_TIME = re.compile(r"(?:(?:(\d+):)?(\d+):)?(\d+(?:\.\d*)?)")


@dataclass(frozen=True)
class Query:
    """A query of one part or of several.

    The score of a window is the weighted mean of its cosines with the parts; words to avoid are subtracted.

    Args:
        text: words.
        audio: file whose sound is looked for; its centred window.
        video: file whose pictures are looked for; its centred window. A picture is a video of one frame.
        like: (file, seconds) of a moment whose pictures are looked for, in the index or not; None: the middle
            of the file. The moment itself is not a result, also in copies of the file.
        avoid: words that do not describe what is looked for.
        weights: of the parts by name; default 1, and 0.5 for each of `avoid`.

    Raises:
        ValueError: nothing to look for, blank texts, weights that are not positive or of missing parts.
    """

    text: str | None = None
    audio: "MediaSource | None" = None
    video: "MediaSource | None" = None
    like: tuple[str | os.PathLike, float | None] | None = None
    avoid: tuple[str, ...] = ()
    weights: Mapping[str, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = self.parts
        if not set(given) - {"avoid"}:
            raise ValueError("Nothing to look for. Give one of `text`, `audio`, `video` and `like`.")
        for words in (self.text, *self.avoid):
            if words is not None and not words.strip():
                raise ValueError(f"{words!r} holds no words. Give some, or leave it out.")
        for name, weight in self.weights.items():
            if name not in given:
                raise ValueError(f"A weight of {name!r}, which the query has not. Take one of {given}.")
            if not 0 < weight < math.inf:
                raise ValueError(f"The weight of {name!r} must be positive, got {weight}.")

    @property
    def parts(self) -> list[str]:
        """Names of its parts."""
        return [name for name in PARTS if getattr(self, name) not in (None, ())]

    def weight(self, part: str) -> float:
        """Weight of a part."""
        return self.weights.get(part, _AVOIDED if part == "avoid" else 1.0)

    @property
    def texts(self) -> list[str]:
        """Its words, and those to avoid."""
        return [*([] if self.text is None else [self.text]), *self.avoid]

    @property
    def name(self) -> str:
        """The query in words, for titles."""
        sources = [str(self.text)] if self.text is not None else []
        sources += [str(source) for source in (self.audio, self.video) if source is not None]
        if self.like is not None:
            file, seconds = self.like
            sources.append(f"like {file}" + ("" if seconds is None else f"@{seconds:g}"))
        return " + ".join(sources) + "".join(f" - {words}" for words in self.avoid)


def parse_place(text: str) -> tuple[str, float | None]:
    """`FILE@SECONDS` or `FILE@1:23.5` as (file, seconds), the middle of `FILE@FROM-TO`; without a time at its
    end, the file alone."""
    file, _, times = text.rpartition("@")
    matches = [_TIME.fullmatch(time) for time in times.split("-")]
    if not file or len(matches) > 2 or None in matches:
        return text, None
    found = [[float(part or 0) for part in match.groups()] for match in matches if match is not None]
    seconds = [hours * 3600 + minutes * 60 + rest for hours, minutes, rest in found]
    return file, sum(seconds) / len(seconds)


def parse_weight(text: str) -> tuple[str, float]:
    """`PART=NUMBER` as (part, number); ValueError for anything else."""
    part, _, number = text.partition("=")
    try:
        return part, float(number)
    except ValueError:
        raise ValueError(f"must be PART=NUMBER, got {text!r}.") from None
