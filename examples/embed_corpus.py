# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embed all clips of a folder or of shards into Parquet files, on several workers or a Ray cluster.

    python examples/embed_corpus.py --model my_model --dataset my_shards --output_dir embeddings \\
        --num_workers 2 --engine ray

Each clip is embedded as in evaluation: one window in the middle, or `--clips_per_video` windows spread over
it, with the sound of the window. The rows, in the order of the dataset, hold `clip` (its number), `name`,
`window`, `video_va_embeds`, `video_vt_embeds` and `audio_va_embeds` (none for silent clips), or `error` for a
clip that could not be read. The same command takes up an interrupted run.
"""

import json
import os
import sys
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Literal

import datasets
import pyarrow as pa
import pyarrow.parquet as pq
import torch
from common import MediaArguments, check_output_dir, parse
from tqdm.auto import tqdm
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import ClipDataset, SkippedClip, clip_name, collate_clips, open_clips, run_tasks
from modeling_vatt.models.loading import load_pretrained
from modeling_vatt.processors import MediaLimits, VattProcessor
from modeling_vatt.retrieval import embed_batches, hash_weights


@dataclass(kw_only=True)
class EmbeddingArguments(MediaArguments):
    """What to embed, and with what."""

    model: str = field(metadata={"help": "Folder or Hub name of a pretrained model with its processor."})
    dataset: str = field(metadata={"help": "Folder of videos or of shards, or name of a dataset."})
    output_dir: str = field(metadata={"help": "Gets the Parquet files."})
    split: str = field(default="train", metadata={"help": "Split to embed."})
    allow_remote: bool = field(default=False, metadata={"help": "Let --dataset be a URL of shards."})
    clips_per_video: int = field(default=1, metadata={"help": "Windows of each clip."})
    batch_size: int = field(default=16, metadata={"help": "Clips at a time."})
    clips_per_file: int = field(default=1024, metadata={"help": "Clips of a Parquet file."})
    device: str = field(default="cpu", metadata={"help": "cpu, cuda, ..."})
    num_workers: int = field(default=1, metadata={"help": "Processes, or Ray actors."})
    engine: Literal["processes", "ray"] = field(
        default="processes", metadata={"help": "ray: Ray Data, on the cluster at RAY_ADDRESS or here."}
    )


COLUMNS = ("video_va_embeds", "video_vt_embeds", "audio_va_embeds")
SCHEMA = pa.schema(
    {
        "clip": pa.int64(),
        "name": pa.string(),
        "window": pa.int32(),
        **dict.fromkeys(COLUMNS, pa.list_(pa.float32())),
        "error": pa.string(),
    }
)


def open_dataset(args: Any, limits: MediaLimits) -> ClipDataset:
    """All clips."""
    clips = open_clips(args.dataset, args.split, remote=args.allow_remote)
    processor = VattProcessor.from_pretrained(args.model)
    return ClipDataset(clips, processor, clips_per_video=args.clips_per_video, limits=limits)


class Embedder:
    """Embeds a range of clips into one file; a worker loads the model at the first call."""

    def __init__(self, args: EmbeddingArguments) -> None:
        # Not the arguments themselves: machines of a Ray cluster do not have the file common.py.
        self.args, self.limits = SimpleNamespace(**vars(args)), args.limits()
        self.loaded: tuple[VattForPreTraining, ClipDataset] | None = None

    def __call__(self, task: tuple[str, int, int]) -> int:
        """Write the file of the clips from `first` to `last`, unless it is there; returns their number."""
        path, first, last = task
        if not os.path.exists(path):
            rows: list[dict[str, Any]] = []
            for begin in range(first, last, self.args.batch_size):
                rows += self._embed(range(begin, min(last, begin + self.args.batch_size)))
            partial = os.path.join(os.path.dirname(path), f"_{os.path.basename(path)}")
            pq.write_table(pa.Table.from_pylist(rows, schema=SCHEMA), partial)
            os.replace(partial, path)
        return last - first

    def _embed(self, numbers: range) -> list[dict[str, Any]]:
        if self.loaded is None:
            torch.set_num_threads(1)  # each worker has one core
            transformers_logging.disable_progress_bar()
            model = VattForPreTraining.from_pretrained(self.args.model).to(self.args.device).eval()
            self.loaded = model, open_dataset(self.args, self.limits)
        model, clips = self.loaded
        items = [clips[number] for number in numbers]
        batch = collate_clips(items)
        inputs = {k: v for k, v in batch.inputs.items() if k not in ("input_ids", "attention_mask")}
        found = embed_batches(model, [inputs]) if inputs else {}
        windows = self.args.clips_per_video
        rows: list[dict[str, Any]] = []
        done = 0  # rows of `found`
        for number, item in zip(numbers, items, strict=True):
            clip = {"clip": number, "name": clip_name(clips.clips, number)}
            if isinstance(item, SkippedClip):
                rows.append({**clip, "error": item.reason})
                continue
            for window in range(windows):
                embeds = {name: found[name][done] for name in COLUMNS}
                if not found["audio_mask"][done]:
                    embeds["audio_va_embeds"] = None
                rows.append({**clip, "window": window, **embeds})
                done += 1
        return rows


def main() -> None:
    (args,) = parse(__doc__, EmbeddingArguments)
    datasets.disable_progress_bars()
    folder = Path(args.output_dir)
    run_file = folder / "_run.json"  # readers of Parquet folders pass over such names
    try:
        check_output_dir(folder)
        clips = open_dataset(args, args.limits())
        # Not the model's name: what lies there may change between the parts of a run.
        model, line = load_pretrained(VattForPreTraining, args.model)
        print(line)
        weights = hash_weights(model)
        names = ("clips_per_video", "clips_per_file", "media_limits")
        run = {name: getattr(args, name) for name in names} | {"data": clips.fingerprint, "weights": weights}
        begun = json.loads(run_file.read_text()) if run_file.is_file() else None
        if begun != run and folder.exists() and any(folder.iterdir()):
            raise ValueError(f"{folder}: holds something else. Choose another --output_dir.")
        folder.mkdir(parents=True, exist_ok=True)
        run_file.write_text(json.dumps(run))
        tasks = []
        for first in range(0, len(clips), args.clips_per_file):
            path = folder.resolve() / f"part-{first:09d}.parquet"
            tasks.append((str(path), first, min(len(clips), first + args.clips_per_file)))
        with tqdm(total=len(clips), unit="clip") as bar:
            for count in run_tasks(Embedder(args), tasks, args.num_workers, args.engine):
                bar.update(count)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))
    errors = pq.read_table(folder, columns=["error"])["error"].drop_null().to_pylist()
    print(f"{folder}: {len(clips) - len(errors)} clips embedded in {len(tasks)} files")
    if errors:
        print(f"Skipped {len(errors)} of {len(clips)} clips that could not be read:")
        for error in errors[:5]:
            print(f"  {error}")


if __name__ == "__main__":
    main()
