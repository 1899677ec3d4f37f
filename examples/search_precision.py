# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Share of right moments in search results, by columns that describe the videos.

vatt index my_videos/validation --model my_model
python examples/search_precision.py --index my_videos/validation --match colour shape
python examples/search_precision.py --index my_videos/validation --match colour --combine --calibrate

The first caption and the sound of each video are queries. A found moment is right if its video has the same
values in the columns of `--match` as the video of the query, which is left out of the results for its sound
(and of chance, the share of right windows). With `--combine`, pictures and pairs of parts are queries too,
and the video is left out of all results. `--calibrate` compares the shares behind the strengths (strong: at
most 1 %, likely: at most 5 %) with those measured on the windows of all other videos.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np
from common import fail, parse
from transformers.hf_argparser import HfArg
from transformers.utils import logging as transformers_logging

from modeling_vatt.processors import MediaError
from modeling_vatt.retrieval import Query, VideoSearch


DECLARED = (0.01, 0.05, 0.1, 0.25, 0.5)  # shares of random pairs; the first two are "strong" and "likely"


@dataclass
class PrecisionArguments:
    """What to ask, and what is right."""

    index: str = HfArg(help="Indexed folder, with a metadata.jsonl that describes the videos.")
    match: list[str] = HfArg(help="Columns whose values must agree.")
    caption_column: str = HfArg(default="captions", help="Column with a caption or several.")
    top_k: int = HfArg(default=5, help="Results that are looked at.")
    max_queries: int = HfArg(default=0, help="Ask only so often; 0: with every video.")
    combine: bool = HfArg(default=False, help="Ask by pictures and by two parts, too.")
    calibrate: bool = HfArg(default=False, help="Compare declared shares with measured ones.")
    output: str = HfArg(default="", help="JSON file for the figures.")


def questions(row: dict[str, Any], root: Path, args: PrecisionArguments) -> Iterator[tuple[str, Query]]:
    """(kind, query) of a video."""
    captions = row.get(args.caption_column) or []
    words = [captions] if isinstance(captions, str) else list(captions)
    file = root / row["file_name"]
    if words:
        yield "text", Query(text=words[0])
    yield "audio", Query(audio=file)
    if args.combine:
        yield "video", Query(video=file)
        yield "audio+video", Query(audio=file, video=file)
        if words:
            yield "text+audio", Query(text=words[0], audio=file)
            yield "text+video", Query(text=words[0], video=file)


def results(search: VideoSearch, queries: dict[Any, Any], allowed: set[str], top_k: int) -> list[str]:
    """The first found videos among the allowed ones."""
    count = top_k + 5
    while True:  # the windows of the video itself may come before all others
        found = search.near(queries, top_k=count)
        good = [moment.path for moment in found if moment.path in allowed]
        if len(good) >= top_k or len(found) < count:
            return good[:top_k]
        count *= 2


@dataclass
class Tally:
    """Figures of one kind of query."""

    shares: list[float] = field(default_factory=list)
    first: list[bool] = field(default_factory=list)
    chances: list[float] = field(default_factory=list)
    pairs: int = 0
    declared: dict[float, int] = field(default_factory=lambda: dict.fromkeys(DECLARED, 0))
    right: dict[float, int] = field(default_factory=lambda: dict.fromkeys(DECLARED, 0))

    def figures(self, top_k: int) -> dict[str, Any]:
        """The figures for JSON."""
        found: dict[str, Any] = {
            "queries": len(self.shares),
            "chance": round(mean(self.chances), 4),
            "P@1": round(mean(self.first), 4),
            f"P@{top_k}": round(mean(self.shares), 4),
        }
        if self.pairs:
            found["calibration"] = {
                str(share): {
                    "measured": round(count / self.pairs, 5),
                    "right": round(self.right[share] / count, 4) if count else None,
                }
                for share, count in self.declared.items()
            }
        return found


class Windows:
    """All windows of an index, to check the declared shares."""

    def __init__(self, search: VideoSearch, labels: dict[str, tuple[Any, ...]]) -> None:
        self.search = search
        self.vectors = {}
        for space in search.index.dims:
            moments, self.vectors[space] = search.index.vectors(space)
        self.paths = np.array([moment.path for moment in moments])
        self.labels = [labels.get(moment.path) for moment in moments]

    def count(self, tally: Tally, queries: dict[Any, Any], asking: str, label: tuple[Any, ...]) -> None:
        """Add the pairs of a query with the windows of all other videos."""
        scale = self.search.calibration.scale(queries)
        if scale is None:
            return
        scores = sum(self.vectors[space] @ query for space, query in queries.items())
        others = self.paths != asking
        right = np.array([other == label for other in self.labels])
        tally.pairs += int(others.sum())
        for share in DECLARED:
            fits = others & (scores >= scale.score(share))
            tally.declared[share] += int(fits.sum())
            tally.right[share] += int((fits & right).sum())


def read_labels(root: Path, columns: list[str]) -> tuple[list[dict[str, Any]], dict[str, tuple[Any, ...]]]:
    """Rows of the metadata, and the values of some columns for each video."""
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    labels: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        if missing := [column for column in columns if column not in row]:
            sys.exit(f"{row['file_name']}: no column {', '.join(missing)}; there are {', '.join(row)}.")
        labels[row["file_name"]] = tuple(row[column] for column in columns)
    return rows, labels


def measure(search: VideoSearch, root: Path, args: PrecisionArguments) -> dict[str, dict[str, Any]]:
    """Kind of query -> figures."""
    rows, labels = read_labels(root, args.match)
    counts = {file["path"]: file["windows"] for file in search.index.files()}
    searched = {path for path, count in counts.items() if count} & labels.keys()
    windows = Windows(search, labels) if args.calibrate else None
    tallies: dict[str, Tally] = {}
    agreeing = False
    for row in rows[: args.max_queries or None]:
        asking = row["file_name"]
        right = {name for name in searched if labels[name] == labels[asking]}
        if asking not in searched or len(right) < 2:
            continue
        agreeing = True
        for kind, query in questions(row, root, args):
            try:
                queries = search.embed(search.read(query))
            except MediaError:  # silent
                continue
            own = {asking} if args.combine or kind != "text" else set()
            allowed = searched - own
            found = results(search, queries, allowed, args.top_k)
            good = [labels[path] == labels[asking] for path in found]
            tally = tallies.setdefault(kind, Tally())
            tally.shares.append(mean(good))
            tally.first.append(good[0])
            tally.chances.append(sum(counts[p] for p in right - own) / sum(counts[p] for p in allowed))
            if windows is not None:
                windows.count(tally, queries, asking, labels[asking])
    if not agreeing:
        sys.exit(f"No two videos agree in {', '.join(args.match)}.")
    return {kind: tally.figures(args.top_k) for kind, tally in tallies.items()}


def main() -> None:
    (args,) = parse(__doc__, PrecisionArguments)
    transformers_logging.disable_progress_bar()
    try:
        search = VideoSearch.open(args.index)
    except (OSError, ValueError) as error:
        fail(error)
    root = search.index.root
    if root is None or not (root / "metadata.jsonl").is_file():
        sys.exit(f"{args.index}: no metadata.jsonl beside the videos.")
    figures = measure(search, root, args)
    show(figures, args)
    if args.output:
        content = json.dumps({"match": args.match, **figures}, indent=2)
        Path(args.output).write_text(content + "\n")


def show(figures: dict[str, dict[str, Any]], args: PrecisionArguments) -> None:
    """Print the figures."""
    print(f"Right in {', '.join(args.match)}")
    for kind, found in figures.items():
        print(
            f"{kind:11s}  {found['queries']:5d} queries   P@1 {found['P@1']:.1%}   "
            f"P@{args.top_k} {found[f'P@{args.top_k}']:.1%}   by chance {found['chance']:.1%}"
        )
    if not args.calibrate:
        return
    print("\nOf the windows of other videos, so many fit at least as well as is declared; right among these")
    for kind, found in figures.items():
        for share, measured in found.get("calibration", {}).items():
            right = "" if measured["right"] is None else f"right {measured['right']:.1%}"
            print(
                f"{kind:11s}  declared {float(share):6.1%}   measured {measured['measured']:7.2%}   {right}"
            )


if __name__ == "__main__":
    main()
