# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The whole way on one laptop: make a corpus of video files, pretrain on it, search it, and report.

    make demo            # or: python examples/run_demo.py --output_dir demo

Leaves the corpus, the model and `report.html` in the output folder. What is there already is kept; a run that
was stopped is continued by the same command.
"""

import json
import os
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from common import parse
from demo_report import write_report
from torch.utils.data import DataLoader
from transformers import AutoModelForPreTraining, AutoProcessor
from transformers.utils import logging as transformers_logging

import modeling_vatt  # noqa: F401 - makes the Auto classes know VATT
from modeling_vatt.data import ClipDataset, collate_clips, load_clips, source_of
from modeling_vatt.evaluation import clip_retrieval
from modeling_vatt.retrieval import Gallery, embed_batches


HERE = Path(__file__).resolve().parent
# Sized so that corpus, training and report take about six minutes on two cores.
PRETRAINING = {
    "preset": "ma_tiny",
    "num_steps": 400,
    "batch_size": 64,
    "num_captions": 2,
    "learning_rate": 3e-3,
    "final_learning_rate": 1e-4,
    "warmup_steps": 50,
    "adam_beta2": 0.98,
    "log_every": 10,
    "eval_every": 100,
    "save_every": 50,
    "num_workers": 1,
    "decode_once": True,
    "decode_size": 64,
    # Colours and sizes are what the captions speak of, so they are not augmented away.
    "crop_resize_style": "none",
    "color_augment": False,
    "normalize_audio": True,
}


@dataclass
class DemoArguments:
    """Where, and how long."""

    output_dir: str = field(default="demo", metadata={"help": "Folder for corpus, model and report."})
    train_clips: int = field(default=1000, metadata={"help": "Clips to train on."})
    test_clips: int = field(
        default=216, metadata={"help": "Clips to search; their attribute combinations are new."}
    )
    num_steps: int = field(default=PRETRAINING["num_steps"], metadata={"help": "Training steps."})
    batch_size: int = field(default=PRETRAINING["batch_size"], metadata={"help": "Clips per step."})
    shuffle_captions: bool = field(
        default=False,
        metadata={"help": "Control experiment: wrong captions in training; text search must fail."},
    )


def run_script(name: str, **options: object) -> None:
    """Run another example with this interpreter; its output goes to the terminal."""
    command = [sys.executable, str(HERE / name)]
    for key, value in options.items():
        command += [f"--{key}", str(value)]
    # Large blocks are kept instead of being returned to the system after every step (glibc).
    environment = {"MALLOC_TRIM_THRESHOLD_": "-1", "MALLOC_MMAP_THRESHOLD_": "4294967296", **os.environ}
    result = subprocess.run(command, env=environment, check=False)
    if result.returncode:
        sys.exit(f"{name} ended with {result.returncode}; see its message above.")


def print_table(metrics: dict[str, float], clips: int) -> None:
    """Retrieval next to chance."""
    print(f"\nUnseen test split: {clips} clips, every combination of attributes is new to the model.")
    print(f"{'':18s}{'R@1':>8s}{'R@5':>8s}{'R@10':>8s}{'median rank':>14s}")
    for title, prefix in (("text -> video", "txt2vid_"), ("sound -> video", "aud2vid_")):
        recalls = "".join(f"{100 * metrics[prefix + name]:7.1f}%" for name in ("R1", "R5", "R10"))
        print(f"{title:18s}{recalls}{metrics[prefix + 'MedianRank']:14.1f}")
    chance = "".join(f"{100 * k / clips:7.1f}%" for k in (1, 5, 10))
    print(f"{'chance':18s}{chance}{(clips + 1) / 2:14.1f}")


def main() -> None:
    (args,) = parse(__doc__, DemoArguments)
    transformers_logging.disable_progress_bar()
    began = time.perf_counter()
    output = Path(args.output_dir)
    corpus, model_dir = output / "corpus", output / "model"

    print("1. Corpus: rendering and encoding videos with sound", flush=True)
    run_script("make_corpus.py", output_dir=corpus, train_clips=args.train_clips, test_clips=args.test_clips)

    print(f"\n2. Pretraining from the files ({time.perf_counter() - began:.0f} s so far)", flush=True)
    chosen = {name: getattr(args, name) for name in ("num_steps", "batch_size", "shuffle_captions")}
    run_script("run_pretraining.py", dataset=corpus, output_dir=model_dir, **{**PRETRAINING, **chosen})

    print(f"\n3. Search ({time.perf_counter() - began:.0f} s so far)", flush=True)
    model = AutoModelForPreTraining.from_pretrained(model_dir).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    test = load_clips(corpus, "test")
    loader = DataLoader(ClipDataset(test, processor), batch_size=32, collate_fn=collate_clips)
    embeddings = embed_batches(model, (batch.inputs for batch in loader))
    metrics = clip_retrieval(embeddings)
    print_table(metrics, len(test))

    files = [os.path.relpath(source_of(video)) for video in test["video"]]
    gallery = Gallery(files, embeddings["video_va_embeds"], embeddings["video_vt_embeds"])
    truth = {
        file: f"{row['size']} {row['colour']} {row['shape']}, {row['motion']}"
        for file, row in zip(files, test.remove_columns("video"), strict=True)
    }
    searches = []
    for index in np.random.default_rng(0).choice(len(test), 3, replace=False):
        query = test[int(index)]["captions"][0]
        hits = gallery.search(model, processor, text=query, top_k=5)
        searches.append(("text", query, hits))
        print(f'\n"{query}"')
        for place, hit in enumerate(hits[:3], start=1):
            print(f"  {place}. {hit.name}  ({truth[hit.name]}; similarity {hit.score:.2f})")
    query = files[0]
    searches.append(("sound of", query, gallery.search(model, processor, audio=query, top_k=5)))

    metrics_file = model_dir / "metrics.jsonl"
    history = [json.loads(line) for line in metrics_file.read_text().splitlines()]
    report = write_report(output / "report.html", history, metrics, embeddings, test, truth, searches)
    (output / "test_metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"\nReport: {report}")
    print(f"Done in {time.perf_counter() - began:.0f} s on {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    main()
