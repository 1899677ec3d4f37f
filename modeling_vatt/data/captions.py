# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Which values count as text of a clip, for captions and for sentences with times."""

import math
import re
from collections.abc import Iterable
from typing import Any


_WRITTEN_LIST = re.compile(r"""\[(\s*['"].*['"]\s*|[\d\s.,]*)\]""", re.DOTALL)


def usable_text(value: Any) -> str | None:
    """A text without surrounding white space; None for blank and missing ones (None, NaN). Numbers are texts
    too; ValueError for anything else."""
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return None
    if not isinstance(value, str | int | float) or isinstance(value, bool):
        raise ValueError(f"{value!r:.200} is no text")
    # Halves of surrogate pairs (truncated emojis) have no UTF-8.
    return str(value).encode("utf-8", "replace").decode().strip() or None


def usable_captions(value: Any) -> list[str]:
    """The captions that are not blank, of a caption, a list or a missing value; ValueError otherwise."""
    values = value if isinstance(value, list | tuple) else [value]
    return [text for text in map(usable_text, values) if text is not None]


def check_lists(values: Iterable[Any]) -> None:
    """Raise ValueError if all texts among these values are lists that were written as text, as by pandas into
    CSV: they would be taken for single captions or labels."""
    texts = [text for value in values if isinstance(value, str) and (text := value.strip())]
    if texts and all(map(_WRITTEN_LIST.fullmatch, texts)):
        raise ValueError(f"{texts[0]!r:.200} is a list written as text: put lists into metadata.jsonl")


def usable_sentences(sentences: Iterable[Any] | None) -> tuple[list[dict[str, Any]], dict[str, list[int]]]:
    """The sentences (`{"start", "end", "text"}`, seconds) with finite times and a text, and the indices of
    the others by reason."""
    good: list[dict[str, Any]] = []
    bad: dict[str, list[int]] = {}
    for number, sentence in enumerate(sentences or []):
        fields = sentence if isinstance(sentence, dict) else {}
        start, end = (_seconds(fields.get(name)) for name in ("start", "end"))
        try:
            text = usable_text(fields.get("text"))
        except ValueError:
            text = None
        if text is None:
            bad.setdefault("no text", []).append(number)
        elif start is None or end is None:
            bad.setdefault("no time", []).append(number)
        elif end < start:
            bad.setdefault("ends before it begins", []).append(number)
        else:
            good.append({"start": start, "end": end, "text": text})
    return good, bad


def _seconds(value: Any) -> float | None:
    try:
        seconds = float(value)
    except (TypeError, ValueError, OverflowError):
        return None
    return seconds if math.isfinite(seconds) else None
