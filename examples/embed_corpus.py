# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Embed all clips of a folder or of shards into Parquet files, on several workers or a Ray cluster.

    python examples/embed_corpus.py --model my_model --dataset my_shards --output_dir embeddings \\
        --num_workers 2 --engine ray

Each clip is embedded as in evaluation: one window in the middle, or `--clips_per_video` windows spread over
it, with the sound of the window. The rows, in the order of the dataset, hold `clip` (its number), `name`,
`window`, `video_va_embeds`, `video_vt_embeds` and `audio_va_embeds` (none for silent clips), or `error` for a
clip that could not be read.

The same command continues an interrupted run, and embeds clips again whose files have changed or could not be
read. Everything else that decides the embeddings, such as the model or the split, is recorded in `_run.json`
and must be equal.
"""

import hashlib
import json
import os
import sys
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import datasets
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import torch
from common import WorkerArguments, check_output_dir, parse
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattForPreTraining, __version__
from modeling_vatt.data import (
    ClipDataset,
    ShardDataset,
    SkippedClip,
    clip_name,
    collate_clips,
    open_clips,
    run_tasks,
    skip_report,
    source_of,
)
from modeling_vatt.embedding.cache import content_of
from modeling_vatt.files import one_writer
from modeling_vatt.models.loading import load_pretrained
from modeling_vatt.processors import MediaLimits, VattProcessor
from modeling_vatt.repositories import require_repository
from modeling_vatt.retrieval import ModelIdentity, embed_batches


@dataclass(kw_only=True)
class EmbeddingArguments(WorkerArguments):
    """What to embed, and with what."""

    model: str = HfArg(help="Folder or Hub name of a pretrained model with its processor.")
    dataset: str = HfArg(help="Folder of videos or of shards, or name of a dataset.")
    output_dir: str = HfArg(help="Gets the Parquet files.")
    split: str = HfArg(default="train", help="Split to embed.")
    allow_remote: bool = HfArg(default=False, help="Let --dataset be a URL of shards.")
    clips_per_video: int = HfArg(default=1, help="Windows of each clip.")
    batch_size: int = HfArg(default=16, help="Clips at a time.")
    clips_per_file: int = HfArg(default=1024, help="Clips of a Parquet file.")
    device: str = HfArg(default="cpu", help="cpu, cuda, ...")


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


RECORD = "_run.json"  # ignored by readers of Parquet folders
Task = tuple[str, int, int]  # file, first clip, clip after the last


def open_dataset(args: Any, limits: MediaLimits) -> ClipDataset:
    """All clips."""
    require_repository(args.model)
    clips = open_clips(args.dataset, args.split, remote=args.allow_remote)
    processor = VattProcessor.from_pretrained(args.model)
    return ClipDataset(clips, processor, clips_per_video=args.clips_per_video, limits=limits)


def content_hash(clips: ClipDataset, numbers: Iterable[int]) -> str:
    """Hash of the files of some clips; shards have their checksums in `fingerprint` already."""
    digest = hashlib.sha256()
    for number in () if isinstance(clips.clips, ShardDataset) else numbers:
        digest.update(repr(content_of(source_of(clips.clips[number]["video"]))).encode())
    return digest.hexdigest()


def stored_hash(path: str) -> str | None:
    """The [`content_hash`] stored in a file; None if the file is missing or truncated."""
    try:
        return (pq.read_schema(path).metadata or {}).get(b"content", b"").decode()
    except (OSError, pa.ArrowInvalid):
        return None


class Embedder:
    """Embeds a range of clips into one file; a worker loads the model at the first call."""

    def __init__(self, args: EmbeddingArguments) -> None:
        # Not the arguments themselves: machines of a Ray cluster do not have the file common.py.
        self.args, self.limits = SimpleNamespace(**vars(args)), args.limits()

    @cached_property
    def clips(self) -> ClipDataset:
        """All clips."""
        return open_dataset(self.args, self.limits)

    @cached_property
    def model(self) -> VattForPreTraining:
        """The model, on one thread."""
        torch.set_num_threads(1)
        transformers_logging.disable_progress_bar()
        return VattForPreTraining.from_pretrained(self.args.model).to(self.args.device).eval()

    def __call__(self, task: Task) -> int:
        """Write the file of some clips unless it is up to date, and try clips again that could not be read;
        returns their number."""
        path, first, last = task
        content = content_hash(self.clips, range(first, last))
        done = SCHEMA.empty_table()
        if stored_hash(path) == content:
            done = pq.read_table(path).filter(pc.field("error").is_null())
        missing = sorted(set(range(first, last)).difference(done["clip"].to_pylist()))
        rows: list[dict[str, Any]] = []
        for begin in range(0, len(missing), self.args.batch_size):
            rows += self._embed(missing[begin : begin + self.args.batch_size])
        if not len(done) or not all("error" in row for row in rows):
            partial = os.path.join(os.path.dirname(path), f"_{os.path.basename(path)}")
            table = pa.concat_tables([done.cast(SCHEMA), pa.Table.from_pylist(rows, schema=SCHEMA)])
            table = table.sort_by([("clip", "ascending"), ("window", "ascending")])
            pq.write_table(table.replace_schema_metadata({"content": content}), partial)
            os.replace(partial, path)
        return last - first

    def _embed(self, numbers: list[int]) -> list[dict[str, Any]]:
        items = [self.clips[number] for number in numbers]
        batch = collate_clips(items)
        inputs = {k: v for k, v in batch.inputs.items() if k not in ("input_ids", "attention_mask")}
        found = embed_batches(self.model, [inputs]) if inputs else {}
        rows: list[dict[str, Any]] = []
        done = 0  # rows of `found`
        for number, item in zip(numbers, items, strict=True):
            clip = {"clip": number, "name": clip_name(self.clips.clips, number)}
            if isinstance(item, SkippedClip):
                rows.append({**clip, "error": item.reason})
                continue
            for window in range(self.args.clips_per_video):
                embeds = {name: found[name][done] for name in COLUMNS}
                if not found["audio_mask"][done]:
                    embeds["audio_va_embeds"] = None
                rows.append({**clip, "window": window, **embeds})
                done += 1
        return rows


def describe(args: EmbeddingArguments, clips: ClipDataset, model: VattForPreTraining) -> dict[str, Any]:
    """What decides the embeddings, except the content of files."""
    model_settings = ModelIdentity.of(model, clips.processor, name="").to_dict()
    found = {name: getattr(args, name) for name in ("split", "clips_per_video", "clips_per_file")}
    found |= {"media_limits": asdict(args.limits()), "data": clips.fingerprint, "model": model_settings}
    return json.loads(json.dumps(found | {"version": __version__}))


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """Differences of two descriptions, in words."""
    if not before:
        return ["what is not known"]
    found = [
        f"{name} {before.get(name)} (now {value})"
        for name, value in now.items()
        if name != "model" and before.get(name) != value
    ]
    return found + ModelIdentity(**before["model"]).differences(ModelIdentity(**now["model"]))


def check_folder(folder: Path, tasks: list[Task], now: dict[str, Any]) -> None:
    """ValueError if the folder holds anything but files of the same run."""
    names = sorted(path.name for path in folder.glob("[!._]*"))
    try:
        before = json.loads((folder / RECORD).read_text())
    except (OSError, ValueError):
        before = {}
    if names and (changed := differences(before, now)):
        raise ValueError(
            f"{folder} holds embeddings of something else: {'; '.join(changed)}. Choose another --output_dir."
        )
    if others := set(names) - {Path(path).name for path, *_ in tasks}:
        raise ValueError(f"{folder} holds other files too, such as {min(others)}: take them away.")


def report(folder: Path, clips: int, files: int) -> None:
    """Print the number of embedded clips, and why others failed."""
    errors = pq.read_table(folder, columns=["error"])["error"].drop_null().to_pylist()
    print(f"{folder}: {clips - len(errors)} clips embedded in {files} files")
    if errors:
        print(skip_report(dict(enumerate(errors)), clips))


def main() -> None:
    (args,) = parse(__doc__, EmbeddingArguments)
    datasets.disable_progress_bars()
    folder = Path(args.output_dir)
    try:
        check_output_dir(folder)
        clips = open_dataset(args, args.limits())
        model, line = load_pretrained(VattForPreTraining, args.model)
        print(line)
        count, size = len(clips), args.clips_per_file
        tasks = [
            (str(folder.resolve() / f"part-{first:09d}.parquet"), first, min(count, first + size))
            for first in range(0, count, size)
        ]
        now = describe(args, clips, model)
        check_folder(folder, tasks, now)  # before anything is written there
        with one_writer(folder), tqdm(total=count, unit="clip") as bar:
            check_folder(folder, tasks, now)
            (folder / RECORD).write_text(json.dumps(now, indent=1))
            for done in run_tasks(Embedder(args), tasks, args.num_workers, args.engine):
                bar.update(done)
    except (OSError, ValueError, RuntimeError) as error:
        sys.exit(str(error))
    report(folder, count, len(tasks))


if __name__ == "__main__":
    main()
