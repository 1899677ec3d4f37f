# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Put videos and their captions into shards, for training from large collections.

    python examples/prepare_shards.py --dataset my_videos --output_dir my_shards
    python examples/prepare_shards.py --dataset videos --layout howto100m --annotations raw_caption.json \\
        --output_dir howto_shards --reencode --segment_seconds 30
    python examples/prepare_shards.py --dataset videos --layout audioset --annotations train_segments.csv \\
        --output_dir audioset_shards --reencode

`my_shards/train/` then holds tar files in WebDataset format with an index, for `run_pretraining.py --dataset
my_shards`. The result does not depend on the number of workers. The same command takes up an interrupted run.
"""

import sys
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import datasets
from common import MediaArguments, check_output_dir, parse
from tqdm.auto import tqdm

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
class PreparationArguments(MediaArguments):
    """From where, how and to where."""

    dataset: str = field(metadata={"help": "Folder of videos."})
    output_dir: str = field(metadata={"help": "Gets a folder of shards for each split."})
    layout: Literal["folder", "howto100m", "audioset"] = field(
        default="folder",
        metadata={
            "help": "folder: with metadata.jsonl, see docs/data.md; howto100m: sentences with times; "
            "audioset: list of segments."
        },
    )
    annotations: str | None = field(
        default=None, metadata={"help": "Caption or segment file of the layouts howto100m and audioset."}
    )
    splits: list[str] = field(
        default_factory=lambda: ["train"],
        metadata={"help": "Splits of the folder; of the other layouts, the name of the one split made."},
    )
    shard_mb: int = field(default=1000, metadata={"help": "Megabytes of a shard, about."})
    reencode: bool = field(
        default=False, metadata={"help": "Store small re-encoded parts instead of the files as they are."}
    )
    segment_seconds: float | None = field(
        default=None, metadata={"help": "Cut re-encoded parts into equal segments of about this length."}
    )
    size: int = field(default=256, metadata={"help": "Shorter side of re-encoded frames, pixels."})
    fps: float = field(default=10.0, metadata={"help": "Frame rate of re-encoded parts."})
    sampling_rate: int = field(default=48_000, metadata={"help": "Of the sound of re-encoded parts, Hz."})
    num_workers: int = field(default=1, metadata={"help": "Processes, or Ray actors."})
    engine: Literal["processes", "ray"] = field(
        default="processes", metadata={"help": "ray: Ray Data, on the cluster at RAY_ADDRESS or here."}
    )


def find_clips(args: PreparationArguments, split: str) -> list[RawClip]:
    """What is to be stored."""
    if not Path(args.dataset).is_dir():
        raise ValueError(f"{args.dataset}: no such folder.")
    if args.layout == "folder":
        return folder_clips(args.dataset, split)
    if args.annotations is None:
        raise ValueError(f"--layout {args.layout} needs --annotations.")
    read = howto100m_clips if args.layout == "howto100m" else audioset_clips
    return read(args.dataset, args.annotations)


def main() -> None:
    (args,) = parse(__doc__, PreparationArguments)
    datasets.disable_progress_bars()
    settings = ShardSettings(args.reencode, args.segment_seconds, args.size, args.fps, args.sampling_rate)

    def run(function: Any, tasks: Any) -> Any:
        return tqdm(run_tasks(function, tasks, args.num_workers, args.engine), total=len(tasks), unit="shard")

    for split in args.splits:
        folder = Path(args.output_dir) / split
        try:
            check_output_dir(folder)
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
