# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Put videos and their captions into shards, for training from large collections.

    python examples/prepare_shards.py --dataset my_videos --output_dir my_shards
    python examples/prepare_shards.py --dataset videos --layout howto100m --annotations raw_caption.json \\
        --output_dir howto_shards --reencode --segment_seconds 30
    python examples/prepare_shards.py --dataset videos --layout audioset --annotations train_segments.csv \\
        --output_dir audioset_shards --reencode

`my_shards/train/` then holds tar files in WebDataset format with an index, for `run_pretraining.py --dataset
my_shards`. The result does not depend on the number of workers. The same command continues an interrupted
run.
"""

import sys
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import datasets
from common import WorkerArguments, check_output_dir, parse
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg

from modeling_vatt.data import (
    RawClip,
    ShardSettings,
    audioset_clips,
    folder_clips,
    howto100m_clips,
    prepare_shards,
    run_tasks,
)


@dataclass(kw_only=True)
class PreparationArguments(WorkerArguments):
    """From where, how and to where."""

    dataset: str = HfArg(help="Folder of videos.")
    output_dir: str = HfArg(help="Gets a folder of shards for each split.")
    layout: Literal["folder", "howto100m", "audioset"] = HfArg(
        default="folder",
        help="folder: with metadata.jsonl, see docs/data.md; howto100m: sentences with times; "
        "audioset: list of segments.",
    )
    annotations: str | None = HfArg(
        default=None, help="Caption or segment file of the layouts howto100m and audioset."
    )
    splits: list[str] = HfArg(
        default_factory=lambda: ["train"],
        help="Splits of the folder; of the other layouts, the name of the one split made.",
    )
    shard_mb: int = HfArg(default=1000, help="Megabytes of a shard, about.")
    reencode: bool = HfArg(
        default=False, help="Store small re-encoded parts instead of the files as they are."
    )
    segment_seconds: float | None = HfArg(
        default=None, help="Cut re-encoded parts into equal segments of about this length."
    )
    size: int = HfArg(default=256, help="Shorter side of re-encoded frames, pixels.")
    fps: float = HfArg(default=10.0, help="Frame rate of re-encoded parts.")
    sampling_rate: int = HfArg(default=48_000, help="Of the sound of re-encoded parts, Hz.")


def find_clips(args: PreparationArguments, split: str) -> list[RawClip]:
    """What is to be stored."""
    if not Path(args.dataset).is_dir():
        raise ValueError(f"{args.dataset}: no such folder.")
    if args.layout == "folder":
        if args.annotations is not None:
            raise ValueError(
                "--annotations is for --layout howto100m or audioset. Name one, or leave it out."
            )
        return folder_clips(args.dataset, split)
    if args.annotations is None:
        raise ValueError(f"--layout {args.layout} needs --annotations.")
    read = howto100m_clips if args.layout == "howto100m" else audioset_clips
    return read(args.dataset, args.annotations)


def main() -> None:
    (args,) = parse(__doc__, PreparationArguments)
    datasets.disable_progress_bars()

    def run(function: Any, tasks: Any) -> Any:
        return tqdm(run_tasks(function, tasks, args.num_workers, args.engine), total=len(tasks), unit="shard")

    for split in args.splits:
        folder = Path(args.output_dir) / split
        try:
            check_output_dir(folder)
            settings = ShardSettings(
                args.reencode, args.segment_seconds, args.size, args.fps, args.sampling_rate
            )
            limits = args.limits()
            clips = find_clips(args, split)
            size = args.shard_mb * 1_000_000
            shards, failures = prepare_shards(clips, folder, settings, size, run, limits)
        except (OSError, ValueError, RuntimeError) as error:
            sys.exit(str(error))
        print(f"{folder}: {len(shards)} clips in {len(shards.shards)} shards, from {len(clips)} entries")
        if failures:
            print(f"{len(failures)} could not be used, listed in {folder / 'failures.json'}:")
            for reason, count in Counter(failure["reason"] for failure in failures).most_common(10):
                print(f"{count:7d}  {reason}")


if __name__ == "__main__":
    main()
