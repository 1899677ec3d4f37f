# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Memory and open files over thousands of training steps and tens of thousands of opened files.

    python benchmarks/long_run.py [--steps 4000] [--seconds 3600] [--workers 2] [--keep FOLDER]

Pretrains a tiny model, with checkpoints and evaluation on the way, on 512 generated files of which every 64th
is broken; each step opens eight. Then loads windows of 3.2 s until they make up an hour. Prints, for the main
process and for its workers together, resident memory and open file descriptors after a quarter of the run and
at its end, and the slope of a straight line through the samples in between.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from pathlib import Path

import datasets
import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import ClipDataset, StepSampler, collate_clips, load_clips
from modeling_vatt.evaluation import clip_retrieval
from modeling_vatt.processors import VattAugmentation
from modeling_vatt.retrieval import embed_batches
from modeling_vatt.training import Pretrainer, PretrainingArguments


ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]
from bench_loader import make_dataset, make_videos  # noqa: E402
from clip_folders import make_folder, small_processor  # noqa: E402
from small_models import small_config  # noqa: E402


BATCH = 8
DISTINCT = 16


class Watch:
    """Samples of memory and open files, a given number of them in a run."""

    def __init__(self, total: int, samples: int = 200) -> None:
        self.every = max(1, total // samples)
        self.rows: list[tuple[float, ...]] = []
        self.this = psutil.Process()

    def __call__(self, step: int) -> None:
        """Take a sample if it is time for one."""
        if step % self.every == 0:
            workers = self.this.children(recursive=True)
            self.rows.append(
                (
                    step * BATCH,
                    self.this.memory_info().rss / 1e6,
                    sum(worker.memory_info().rss for worker in workers) / 1e6,
                    self.this.num_fds(),
                    sum(worker.num_fds() for worker in workers),
                )
            )

    def report(self, title: str, began: float) -> None:
        """Print what changed."""
        rows = np.array(self.rows[:-1])  # with the last step the workers end
        late = rows[len(rows) // 4 :]
        print(f"\n{title}: {rows[-1, 0]:.0f} files opened in {time.perf_counter() - began:.0f} s\n")
        print("| what | at a quarter | at the end | most | slope per 10,000 files |")
        print("| --- | --- | --- | --- | --- |")
        names = ("main process, MB", "workers, MB", "main process, open files", "workers, open files")
        for column, name in enumerate(names, start=1):
            slope = np.polyfit(late[:, 0], late[:, column], 1)[0] * 10_000
            first, last, most = late[0, column], late[-1, column], rows[:, column].max()
            print(f"| {name} | {first:.1f} | {last:.1f} | {most:.1f} | {slope:+.2f} |", flush=True)


def many_files(root: Path, count: int = 512) -> Path:
    """`count` files of which few are different, as encoding takes long; every 64th is broken."""
    folder = root / "train"
    if not folder.is_dir():
        make_folder(root, DISTINCT)
        rows = [json.loads(line) for line in (folder / "metadata.jsonl").read_text().splitlines()]
        names = [row["file_name"] for row in rows]
        for number in range(DISTINCT, count):
            name = f"more{number:04d}.mp4"
            if number % 64:
                os.link(folder / names[number % DISTINCT], folder / name)
            else:
                (folder / name).write_bytes(b"broken")
            rows.append({**rows[number % DISTINCT], "file_name": name})
        (folder / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return root


def train(root: Path, steps: int, workers: int) -> None:
    """The pretraining loop with all that belongs to it."""
    table = load_clips(many_files(root / "many"), "train")
    config = small_config("agnostic")
    processor = small_processor(config)
    config.text_config.vocab_size = len(processor.tokenizer)
    validation = ClipDataset(table.select(range(DISTINCT)), processor)

    def evaluate(model: VattForPreTraining) -> dict[str, float]:
        loader = DataLoader(validation, batch_size=BATCH, collate_fn=collate_clips)
        return clip_retrieval(embed_batches(model, (batch.inputs for batch in loader)))

    watch, began = Watch(steps), time.perf_counter()
    trainer = Pretrainer(
        VattForPreTraining(config),
        ClipDataset(table, processor, True, VattAugmentation()),
        PretrainingArguments(
            str(root / "run"),
            num_steps=steps,
            batch_size=BATCH,
            learning_rate=1e-4,
            warmup_steps=50,
            num_workers=workers,
            log_every=10,
            eval_every=max(1, steps // 40),
            save_every=max(1, steps // 40),
        ),
        evaluate=evaluate,
        on_step=watch,
    )
    metrics = trainer.train()
    watch.report(f"Training, {steps} steps, {metrics['skipped_clips']:.0f} broken files", began)


def load_an_hour(root: Path, seconds: float, workers: int) -> None:
    """The loader alone, on windows of the length of the paper's."""
    dataset = make_dataset(make_videos(root / "small", 256, small=True), 32)
    window = dataset.processor.clip_options()["duration"]
    steps = -(-int(seconds / window) // BATCH)
    watch, began = Watch(steps, 100), time.perf_counter()
    sampler = StepSampler(len(dataset), BATCH, steps)
    batches = DataLoader(
        dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate_clips, prefetch_factor=4
    )
    for step, _ in enumerate(batches, start=1):
        watch(step)
    watch.report(f"Loader, {steps * BATCH * window:.0f} s of clips ({window:.1f} s each)", began)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=4000, help="of training, eight files each")
    parser.add_argument("--seconds", type=float, default=3600, help="of clips that the loader makes")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", type=Path, help="folder for the files, used again if they are there")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    versions = f"torch {torch.__version__}, Python {platform.python_version()}, {platform.machine()}"
    print(f"{versions}, {os.cpu_count()} cores, {arguments.workers} workers")
    with tempfile.TemporaryDirectory() as temporary:
        datasets.config.HF_DATASETS_CACHE = Path(temporary) / "cache"
        root = arguments.keep or Path(temporary)
        train(root, arguments.steps, arguments.workers)
        load_an_hour(root, arguments.seconds, arguments.workers)


if __name__ == "__main__":
    main()
