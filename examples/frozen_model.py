# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Shared by the evaluations of a frozen model: arguments, loading, embedding files."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import datasets
from common import check_output_dir
from tqdm.auto import tqdm
from transformers.hf_argparser import HfArg
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattModel
from modeling_vatt.data import skip_report, source_of
from modeling_vatt.models.loading import load_pretrained
from modeling_vatt.processors import VattProcessor
from modeling_vatt.retrieval import FileEmbeddings, embed_files
from modeling_vatt.training import without_secrets, write_run_record


@dataclass
class ModelArguments:
    """Which model, how it sees clips, and where the results go."""

    model: str = HfArg(help="Folder or Hub name of a pretrained model with its processor.")
    output_dir: str = HfArg(
        help="Folder for the results, and for features, which a second run takes from there."
    )
    fps: float | None = HfArg(
        default=None,
        help="Frames a second; the processor's if left out. 12.5 is what the release evaluates at.",
    )
    batch_size: int = HfArg(default=16, help="Files at a time.")
    num_workers: int = HfArg(default=2, help="Threads that decode files.")
    device: str = HfArg(default="cpu", help="cpu, cuda, ...")
    trust_remote_code: bool = HfArg(
        default=False, help="Run code of towers that came with the model. Read it first."
    )


def load(args: ModelArguments, may_be_new: Sequence[str] = ()) -> tuple[Any, VattProcessor]:
    """Model and processor; OSError or ValueError if they do not exist, lack parts other than `may_be_new`, or
    if the output folder cannot be written."""
    check_output_dir(args.output_dir)
    transformers_logging.disable_progress_bar()
    trusted: dict[str, Any] = {"trust_remote_code": True} if args.trust_remote_code else {}
    model, line = load_pretrained(VattModel, args.model, may_be_new, **trusted)
    print(line)
    model = model.to(args.device).eval()
    processor = VattProcessor.from_pretrained(args.model)
    if args.fps is not None:
        processor.video_processor.fps = args.fps
    return model, processor


def embed(
    args: ModelArguments,
    model: Any,
    processor: VattProcessor,
    table: datasets.Dataset,
    column: str,
    what: str,
    **options: Any,
) -> FileEmbeddings:
    """Embeddings of the files in a column, or of their parts from `start` to `end`, with a progress bar,
    cached in the output folder."""
    files = [source_of(value) for value in table[column]]
    whole = [None] * len(table)
    times = (table[name] if name in table.column_names else whole for name in ("start", "end"))
    parts = [None if part == (None, None) else part for part in zip(*times, strict=True)]
    return embed_files(
        model,
        processor,
        tqdm(files, unit="clip", desc=what),
        batch_size=args.batch_size,
        num_workers=args.num_workers,
        segments=parts,
        cache_dir=Path(args.output_dir) / "features",
        **options,
    )


def report_skipped(reasons: Sequence[str], total: int) -> None:
    """Print the reasons for unreadable files."""
    report = skip_report(dict(enumerate(reasons)), total)
    if report:
        print(f"\n{report}")


def write_results(args: ModelArguments, results: dict[str, Any], kind: str, model: Any, data: str) -> None:
    """Write `results.json` and `run.json` into the output folder. `results`: JSON-serialisable, with
    `settings`; `kind`: of evaluation; `data`: fingerprint of the clips."""
    file = Path(args.output_dir) / "results.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    results = {**results, "settings": without_secrets(results["settings"])}
    file.write_text(json.dumps(results, indent=2) + "\n")
    config = model.config.to_dict()
    write_run_record(args.output_dir, kind, config, results["settings"], {"fingerprint": data})
    print(f"\nResults: {file}")
