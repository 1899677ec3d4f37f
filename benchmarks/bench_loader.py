# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training clips a second: the data loader against bare decoding, and its memory over a long run.

    python benchmarks/bench_loader.py [--clips 96] [--workers 1 2] [--long 3000] [--keep FOLDER]

Generates H.264 + AAC files (480 x 360, 30 frames a second, 10 s) and reads random windows of 32 frames at 10
fps with 3.2 s of 48 kHz sound, in batches of 8, augmented to 224 x 224 as in pretraining: from a folder, from
shards, and from shards with two clips a video. "Bare" is `read_clips` alone, on the same windows of the same
files, in as many processes. The rates are medians of alternating rounds. The long run loads small files
(64 x 48) and samples resident memory and open files of all processes.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import platform
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import datasets
import numpy as np
import psutil
import torch
from torch.utils.data import DataLoader

from modeling_vatt import VattConfig
from modeling_vatt.data import (
    ClipDataset,
    StepSampler,
    collate_clips,
    folder_clips,
    open_clips,
    prepare_shards,
)
from modeling_vatt.processors import VattAugmentation, VattProcessor, VattTokenizer


ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT / "tests" / "support"), str(ROOT / "benchmarks")]
from bench_decoders import scene  # noqa: E402
from media_factory import numbered_frames, tone, write_media  # noqa: E402


BATCH = 8


def make_videos(folder: Path, count: int, small: bool) -> Path:
    """`count` files in `folder`/train with captions; few different ones, as encoding takes long."""
    train = folder / "train"
    if (train / "metadata.jsonl").is_file():
        return folder
    train.mkdir(parents=True)
    distinct = 4
    for number in range(count):
        path = train / f"{number:05d}.mp4"
        if number >= distinct:
            os.link(train / f"{number % distinct:05d}.mp4", path)
        elif small:
            sound = tone(4.0, 16_000, 200.0 + 50 * number)
            write_media(path, frames=numbered_frames(40), fps=10, waveform=sound, sampling_rate=16_000)
        else:
            sound = np.stack([tone(10, 48_000, 300.0 + 50 * number), tone(10, 48_000, 660.0)])
            frames = scene(480, 360, 300 + 20 * number)[20 * number :]
            write_media(path, frames=frames, fps=30, video_options={"preset": "fast"}, waveform=sound)
    rows = [{"file_name": f"{n:05d}.mp4", "captions": ["one two three"] * 5} for n in range(count)]
    (train / "metadata.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def make_dataset(data: Path, image_size: int, clips_per_video: int = 1) -> ClipDataset:
    config = VattConfig.from_preset("mbs")
    config.video_config.image_size = image_size
    tokenizer = VattTokenizer.train_from_iterator(["one two three"], model_max_length=16)
    processor = VattProcessor.from_config(config, tokenizer)
    processor.video_processor.decode_size = image_size * 8 // 7
    return ClipDataset(
        open_clips(data, "train"),
        processor,
        True,
        VattAugmentation(),
        clips_per_video=clips_per_video,
        late_colors=True,
    )


def loader(dataset: ClipDataset, clips: int, workers: int) -> DataLoader:
    sampler = StepSampler(len(dataset), BATCH, clips // BATCH, clips_per_video=dataset.clips_per_video)
    return DataLoader(
        dataset, batch_sampler=sampler, num_workers=workers, collate_fn=collate_clips, prefetch_factor=4
    )


def time_loader(dataset: ClipDataset, clips: int, workers: int) -> float:
    """Clips a second, from the arrival of the first batch of each worker on."""
    began = 0.0
    for step, batch in enumerate(loader(dataset, clips, workers), start=1):
        assert len(batch.inputs["audio_mask"]) == BATCH
        if step == workers:
            began = time.perf_counter()
    return (clips - workers * BATCH) / (time.perf_counter() - began)


def _decode(dataset: ClipDataset, items: list[tuple[int, int]], ready: Any, go: Any) -> None:
    torch.set_num_threads(1)
    ready.release()
    go.wait()
    for epoch, index in items:
        dataset._read(dataset.clips[index], np.random.default_rng((dataset.seed, epoch, index)))


def time_bare(dataset: ClipDataset, clips: int, workers: int) -> float:
    """Clips a second of decoding alone, in as many processes."""
    fork = multiprocessing.get_context("fork")
    ready, go = fork.Semaphore(0), fork.Event()
    steps = list(loader(dataset, clips, workers).batch_sampler)
    parts = [[item for step in steps[worker::workers] for item in step] for worker in range(workers)]
    processes = [fork.Process(target=_decode, args=(dataset, items, ready, go)) for items in parts]
    for process in processes:
        process.start()
    for _ in processes:
        ready.acquire()
    began = time.perf_counter()
    go.set()
    for process in processes:
        process.join()
    return len(steps) * BATCH / (time.perf_counter() - began)


def watch_memory(dataset: ClipDataset, clips: int, workers: int) -> list[tuple[int, float, int]]:
    """(clips, resident MB, open files) of this process and its workers, ten times in a run."""
    this = psutil.Process()
    samples = []
    steps = clips // BATCH
    for step, _ in enumerate(loader(dataset, clips, workers), start=1):
        if step % max(1, steps // 10) == 0 and step < steps:
            family = [this, *this.children()]
            resident = sum(process.memory_info().rss for process in family) / 1e6
            samples.append((step * BATCH, resident, sum(process.num_fds() for process in family)))
    return samples


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--clips", type=int, default=96, help="clips of a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--long", type=int, default=2400, help="clips of the run that watches memory")
    parser.add_argument(
        "--keep", type=Path, help="folder for the generated files, used again if they are there"
    )
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    datasets.disable_progress_bars()
    with tempfile.TemporaryDirectory() as temporary:
        datasets.config.HF_DATASETS_CACHE = Path(temporary) / "cache"
        root = arguments.keep or Path(temporary)
        videos = make_videos(root / "videos", max(arguments.clips, 2 * BATCH), small=False)
        prepare_shards(folder_clips(videos, "train"), root / "shards" / "train", shard_bytes=10_000_000)
        sources = {
            "folder": make_dataset(videos, 224),
            "shards": make_dataset(root / "shards", 224),
            "shards, 2 clips a video": make_dataset(root / "shards", 224, clips_per_video=2),
        }
        versions = f"PyAV {av.__version__}, torch {torch.__version__}, Python {platform.python_version()}"
        print(
            f"{versions}, {platform.machine()}, load {os.getloadavg()[0]:.1f}. Medians of clips a second.\n"
        )
        head = ["workers", "bare decoding", *(f"{name} (of bare)" for name in sources)]
        for row in (head, ["---"] * len(head)):
            print("| " + " | ".join(row) + " |")
        for workers in arguments.workers:
            bare: list[float] = []
            rates: dict[str, list[float]] = {name: [] for name in sources}
            for _ in range(arguments.rounds):
                bare.append(time_bare(sources["folder"], arguments.clips, workers))
                for name, dataset in sources.items():
                    rates[name].append(time_loader(dataset, arguments.clips, workers))
            base = statistics.median(bare)
            cells = [
                f"{statistics.median(r):.1f} ({statistics.median(r) / base:.2f})" for r in rates.values()
            ]
            print("| " + " | ".join([str(workers), f"{base:.1f}", *cells]) + " |", flush=True)
        small = make_videos(root / "small", 64, small=True)
        prepare_shards(folder_clips(small, "train"), root / "small_shards" / "train", shard_bytes=200_000)
        samples = watch_memory(make_dataset(root / "small_shards", 32), arguments.long, workers=2)
        print("\n| clips | resident MB | open files |\n| --- | --- | --- |")
        for clips, resident, opened in samples:
            print(f"| {clips} | {resident:.0f} | {opened} |")


if __name__ == "__main__":
    main()
