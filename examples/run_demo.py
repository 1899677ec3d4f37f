# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The whole way on one laptop: make a corpus of video files, pretrain on it, search it, and report.

    make demo            # or: python examples/run_demo.py --output_dir demo

Leaves the corpus, the model and `report.html` in the output folder. What is there already is kept; a run that
was stopped is continued by the same command. No compiler is needed.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import as_flags, parse
from demo_report import Search, write_report
from torch.utils.data import DataLoader
from transformers import AutoModelForPreTraining, AutoProcessor
from transformers.utils import logging as transformers_logging

import modeling_vatt  # noqa: F401 - makes the Auto classes know VATT
from modeling_vatt.data import ClipDataset, collate_clips, load_clips, source_of
from modeling_vatt.evaluation import clip_retrieval
from modeling_vatt.fast_cpu import computes_bfloat16
from modeling_vatt.retrieval import Gallery, embed_batches


HERE = Path(__file__).resolve().parent
HALF = computes_bfloat16()  # makes a step 1.6 times as fast
STEPS = 720 if HALF else 460
# Heads of 64 learn more than four of 32; three blocks learn as much in a step as four.
ENCODER = {"num_hidden_layers": 3, "num_attention_heads": 2, "head_dim": 64}
# Sized for six minutes of training on two cores; docs/results.md says what each of these brings.
PRETRAINING = {
    "preset": "ma_tiny",
    # Small patches show outlines. Pieces long in time make few tokens, of which few or none are dropped:
    # where parts of a sound are missing, so is its rhythm. Five frames a second will do.
    # Windows shorter than the clips begin anywhere in them, and cost less.
    "config_overrides": json.dumps(
        {
            "video_config": {
                **ENCODER,
                "num_frames": 12,
                "tubelet_size": 6,
                "patch_size": 8,
                "drop_token_rate": 0.25,
            },
            "audio_config": {**ENCODER, "num_samples": 38400, "patch_size": 1024, "drop_token_rate": 0.0},
            "text_config": ENCODER,
            # One space for all three, led by the captions: they say what is heard as well as what is seen.
            "head_type": "joint",
            "va_projection_size": 512,
            "vt_projection_size": 512,
            "loss_type": "symmetric",
            "audio_text_loss_weight": 1.0,
            "video_audio_loss_weight": 0.5,
        }
    ),
    "window_seconds": 2.4,
    "num_steps": STEPS,
    "mixed_precision": "bf16" if HALF else "no",
    "batch_size": 96,
    "num_captions": 1,
    # Colour and size are found first; from then on, clips that share both make shape and motion count.
    "group_by": ["colour", "size"],
    "group_from": STEPS * 36 // 100,
    "optimizer": "muon",
    "learning_rate": 3.5e-3,
    "final_learning_rate": 5e-5,
    "warmup_steps": 40,
    "weight_decay": 0.3,
    "adam_beta2": 0.98,
    "log_every": 10,
    "eval_every": 180,
    "save_every": 50,
    # On two cores a worker process takes from the model's threads what it gives.
    "num_workers": 0 if (os.cpu_count() or 1) <= 2 else 1,
    "decode_once": True,
    "decode_size": 64,
    # Places, sizes within a class and light vary. Colours stay: the captions speak of them.
    "augmentation": json.dumps(
        {
            "scale_range": [1.0, 1.3],
            "max_brightness_delta": 0.09,
            "saturation_range": [1, 1],
            "contrast_range": [0.75, 1.25],
            "max_hue_delta": 0,
        }
    ),
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
    preset: str = field(
        default=PRETRAINING["preset"],
        metadata={"help": "tiny: three towers with weights of their own, instead of one for all."},
    )
    num_steps: int = field(default=PRETRAINING["num_steps"], metadata={"help": "Training steps."})
    batch_size: int = field(default=PRETRAINING["batch_size"], metadata={"help": "Clips per step."})
    seed: int = field(default=0, metadata={"help": "Of the training."})
    shuffle_captions: bool = field(
        default=False,
        metadata={"help": "Control experiment: wrong captions in training; text search must fail."},
    )


def run_script(name: str, **options: object) -> None:
    """Run another example with this interpreter; its output goes to the terminal."""
    result = subprocess.run([sys.executable, str(HERE / name), *as_flags(**options)], check=False)
    if result.returncode:
        sys.exit(f"{name} ended with {result.returncode}; see its message above.")


def print_table(metrics: dict[str, float], clips: int) -> None:
    """Retrieval next to chance."""
    print(f"Unseen test split: {clips} clips, every combination of attributes is new to the model.")
    print(f"{'':18s}{'R@1':>8s}{'R@5':>8s}{'R@10':>8s}{'median rank':>14s}")
    for title, prefix in (("text -> video", "txt2vid_"), ("sound -> video", "aud2vid_")):
        recalls = "".join(f"{100 * metrics[prefix + name]:7.1f}%" for name in ("R1", "R5", "R10"))
        print(f"{title:18s}{recalls}{metrics[prefix + 'MedianRank']:14.1f}")
    chance = "".join(f"{100 * k / clips:7.1f}%" for k in (1, 5, 10))
    print(f"{'chance':18s}{chance}{(clips + 1) / 2:14.1f}")


@contextmanager
def part(title: str, seconds: float) -> Iterator[None]:
    """Say what begins and about how long it takes on two cores; afterwards, how long it took."""
    expected = f"{seconds:.0f} s" if seconds < 90 else f"{seconds / 60:.0f} minutes"
    print(f"\n{title} (about {expected} on two cores)", flush=True)
    began = time.perf_counter()
    yield
    print(f"   took {time.perf_counter() - began:.0f} s", flush=True)


def attributes_of(row: dict[str, Any]) -> dict[str, str]:
    """What is seen and heard in a clip."""
    return {name: row[name] for name in ("size", "colour", "shape", "motion")}


def search_test_clips(model_dir: Path, corpus: Path) -> tuple[dict[str, float], dict[str, Any], list[Search]]:
    """Retrieval among all test clips, their embeddings, and some searches to look at."""
    model = AutoModelForPreTraining.from_pretrained(model_dir).eval()
    processor = AutoProcessor.from_pretrained(model_dir)
    test = load_clips(corpus, "test")
    loader = DataLoader(ClipDataset(test, processor), batch_size=32, collate_fn=collate_clips)
    embeddings = embed_batches(model, (batch.inputs for batch in loader))
    files = [os.path.relpath(source_of(video)) for video in test["video"]]
    gallery = Gallery(files, embeddings["video_va_embeds"], embeddings["video_vt_embeds"])
    clips = dict(zip(files, test.remove_columns("video"), strict=True))
    searches = []
    for index in np.random.default_rng(0).choice(len(test), min(3, len(test)), replace=False):
        file = files[int(index)]
        for query in ({"text": clips[file]["captions"][0]}, {"audio": file}):
            hits = gallery.search(model, processor, top_k=5, **query)
            found = [(hit, attributes_of(clips[hit.name])) for hit in hits]
            searches.append(Search(query.get("text"), file, attributes_of(clips[file]), found))
    return clip_retrieval(embeddings), {**embeddings, "colour": np.array(test["colour"])}, searches


def main() -> None:
    (args,) = parse(__doc__, DemoArguments)
    transformers_logging.disable_progress_bar()
    began = time.perf_counter()
    output = Path(args.output_dir)
    corpus, model_dir = output / "corpus", output / "model"
    print(
        f"The demo makes videos with sound and captions, trains a model on them from scratch, and searches "
        f"clips that it has not seen.\nAll of it goes to {output}; what is there already is kept."
    )
    work = args.num_steps * args.batch_size / (DemoArguments.num_steps * DemoArguments.batch_size)
    with part("1. Corpus: videos are rendered and encoded", 10 + 0.03 * (args.train_clips + args.test_clips)):
        run_script(
            "make_corpus.py", output_dir=corpus, train_clips=args.train_clips, test_clips=args.test_clips
        )
    with part(f"2. Pretraining from the files, {args.num_steps} steps", 15 + 335 * work):
        flags = ("preset", "num_steps", "batch_size", "seed", "shuffle_captions")
        chosen = {name: getattr(args, name) for name in flags}
        run_script("run_pretraining.py", dataset=corpus, output_dir=model_dir, **{**PRETRAINING, **chosen})
    with part("3. Search among the test clips, and a report", 10):
        metrics, embeddings, searches = search_test_clips(model_dir, corpus)
        print_table(metrics, len(embeddings["colour"]))
        for search in searches:
            print(f'\n"{search.text}"' if search.text else f"  and by its sound, {search.file}:")
            for place, (hit, found) in enumerate(search.hits[:3], start=1):
                print(f"  {place}. {hit.name}  ({' '.join(found.values())}; similarity {hit.score:.2f})")
        lines = (model_dir / "metrics.jsonl").read_text().splitlines()
        history = [json.loads(line) for line in lines]
        report = write_report(output / "report.html", history, metrics, embeddings, searches)
        (output / "test_metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
    print(f"\nReport: {report}")
    print(f"Done in {time.perf_counter() - began:.0f} s on {torch.get_num_threads()} threads.")


if __name__ == "__main__":
    main()
