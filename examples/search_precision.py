# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""How many of the moments that a search finds are right, by columns that say what is in the videos.

vatt index my_videos/validation --model my_model
python examples/search_precision.py --index my_videos/validation --match colour shape

Each video asks once in words (its first caption) and once by its sound. A found moment is right if its video
has the same values in the columns of `--match` as the video that asked, which is left out of the results of
its sound, and of what chance would give them.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import mean
from typing import Any, NamedTuple

from common import fail, parse
from transformers.hf_argparser import HfArg
from transformers.utils import logging as transformers_logging

from modeling_vatt.processors import MediaError
from modeling_vatt.retrieval import VideoSearch


@dataclass
class PrecisionArguments:
    """What to ask, and what is right."""

    index: str = HfArg(help="Indexed folder, with a metadata.jsonl that describes the videos.")
    match: list[str] = HfArg(help="Columns whose values must agree.")
    caption_column: str = HfArg(default="captions", help="Column with a caption or several.")
    top_k: int = HfArg(default=5, help="Results that are looked at.")
    max_queries: int = HfArg(default=0, help="Ask only so often; 0: with every video.")
    output: str = HfArg(default="", help="JSON file for the figures.")


class Answer(NamedTuple):
    """Share of right ones among the results, whether the first is right, and the share of right videos."""

    right: float
    first: float
    chance: float


def questions(row: dict[str, Any], args: PrecisionArguments) -> Iterator[tuple[str, str]]:
    """(kind, query) of a video."""
    captions = row.get(args.caption_column) or []
    captions = [captions] if isinstance(captions, str) else captions
    if captions:
        yield "text", captions[0]
    yield "audio", row["file_name"]


def results(
    search: VideoSearch, kind: str, query: str, asking: str, known: set[str], top_k: int
) -> list[str]:
    """The first videos found that may be judged: described, and for a sound not the one that asked."""
    allowed = known - {asking} if kind == "audio" else known
    count = top_k + 5
    while True:  # the windows of the video itself may come before all others
        found = search.text(query, top_k=count) if kind == "text" else search.audio(query, top_k=count)
        good = [moment.path for moment in found if moment.path in allowed]
        if len(good) >= top_k or len(found) < count:
            return good[:top_k]
        count *= 2


def read_labels(root: Path, columns: list[str]) -> tuple[list[dict[str, Any]], dict[str, tuple[Any, ...]]]:
    """Rows of the metadata, and the values of some columns for each video."""
    rows = [json.loads(line) for line in (root / "metadata.jsonl").read_text().splitlines()]
    labels: dict[str, tuple[Any, ...]] = {}
    for row in rows:
        if missing := [column for column in columns if column not in row]:
            sys.exit(f"{row['file_name']}: no column {', '.join(missing)}; there are {', '.join(row)}.")
        labels[row["file_name"]] = tuple(row[column] for column in columns)
    return rows, labels


def measure(search: VideoSearch, root: Path, args: PrecisionArguments) -> dict[str, list[Answer]]:
    """Kind of query -> how right the answers are."""
    rows, labels = read_labels(root, args.match)
    searched = {file["path"] for file in search.index.files() if file["windows"]} & labels.keys()
    answers: dict[str, list[Answer]] = {"text": [], "audio": []}
    agreeing = False
    for row in rows[: args.max_queries or None]:
        asking = row["file_name"]
        right = [name for name in searched if labels[name] == labels[asking]]
        if asking not in searched or len(right) < 2:
            continue
        agreeing = True
        for kind, query in questions(row, args):
            source = query if kind == "text" else str(root / query)
            try:
                found = results(search, kind, source, asking, searched, args.top_k)
            except MediaError:  # silent
                continue
            good = [labels[path] == labels[asking] for path in found]
            left_out = int(kind == "audio")  # the video that asked
            chance = (len(right) - left_out) / (len(searched) - left_out)
            answers[kind].append(Answer(mean(good), good[0], chance))
    if not agreeing:
        sys.exit(f"No two videos agree in {', '.join(args.match)}.")
    return answers


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
    figures: dict[str, Any] = {"match": args.match}
    answers_by_kind = measure(search, root, args)
    print(f"Right in {', '.join(args.match)}")
    for kind, answers in answers_by_kind.items():
        if answers:
            right, first, chance = map(mean, zip(*answers, strict=True))
            shares = {"chance": chance, "P@1": first, f"P@{args.top_k}": right}
            figures[kind] = {"queries": len(answers)} | {k: round(v, 4) for k, v in shares.items()}
            print(
                f"{kind:5s}  {len(answers):5d} queries   P@1 {first:.1%}   P@{args.top_k} {right:.1%}   "
                f"by chance {chance:.1%}"
            )
    if args.output:
        Path(args.output).write_text(json.dumps(figures, indent=2) + "\n")


if __name__ == "__main__":
    main()
