# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Search by words with locked towers from elsewhere: losses, batch sizes and projections on sets of videos.

    python benchmarks/bench_towers.py --datasets my_videos --work_dir out --video_tower DIR --text_tower DIR

Every window and caption passes the towers once. Each run trains the projections on the vectors and searches
the test splits by the first caption of each clip. Prints a table of mean and standard deviation over the
seeds; what is done lies in `runs.jsonl` of the work folder and is not done again.
"""

import argparse
import contextlib
import io
import json
import statistics
import tempfile
import time
from itertools import product
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers.utils import logging as transformers_logging

from modeling_vatt import VattConfig, VattForPreTraining
from modeling_vatt.data import all_captions, collate_clips, load_clips
from modeling_vatt.embedding.building import build_from_towers
from modeling_vatt.embedding.fitting import fit_projections
from modeling_vatt.embedding.locked_features import FeatureDataset, compute_locked_features
from modeling_vatt.evaluation import clip_retrieval
from modeling_vatt.retrieval import embed_batches
from modeling_vatt.training import Pretrainer, PretrainingArguments


SHOWN = ("R1", "R10", "MedianRank")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--datasets", nargs="+", required=True)
    parser.add_argument("--video_tower", required=True)
    parser.add_argument("--text_tower", required=True)
    parser.add_argument("--trust_remote_code", action="store_true")
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--test_splits", nargs="+", default=["test"], help="or folders in those of data sets")
    parser.add_argument("--max_train_clips", type=int, help="the first ones")
    parser.add_argument("--max_test_clips", type=int, help="of each test split, the first ones")
    parser.add_argument("--losses", nargs="+", default=["asymmetric"], help="values of `loss_type`")
    parser.add_argument("--heads", nargs="+", default=["fac"], help="fac, joint")
    parser.add_argument("--projections", nargs="+", default=["none"], help="none, mlp, linear, kernel")
    parser.add_argument("--batch_sizes", nargs="+", type=int, default=[64])
    parser.add_argument("--temperatures", nargs="+", type=float, default=[0.07])
    parser.add_argument("--rates", nargs="+", type=float, default=[1e-3], help="learning rates")
    parser.add_argument("--decays", nargs="+", type=float, default=[0.0], help="weight decays")
    parser.add_argument("--num_captions", type=int, default=1, help="of a clip and step")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"), help="of features")
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--epochs", type=int, default=40)
    parser.add_argument("--shuffle_captions", action="store_true", help="control: captions of other clips")
    return parser.parse_args()


class Bench:
    """Features of all splits of a data set, and runs on them."""

    def __init__(self, args: argparse.Namespace, dataset: str) -> None:
        self.args = args
        own = VattConfig.from_preset("tiny").to_dict()["audio_config"]
        self.model, self.processor = build_from_towers(
            video=args.video_tower,
            text=args.text_tower,
            trust_remote_code=args.trust_remote_code,
            processing={"num_captions": args.num_captions},
            audio_config=own,
        )
        self.processor.video_processor.decode_size = (
            self.processor.video_processor.crop_size["height"] * 8 // 7
        )
        self.model.lock("video", "audio", "text")
        began = time.perf_counter()
        self.clips = {"train": _load(dataset, "train", args.max_train_clips)}
        self.tests = [split for split in args.test_splits if split == "test" or Path(dataset, split).is_dir()]
        self.clips |= {split: _load(dataset, split, args.max_test_clips) for split in self.tests}
        self.known = {
            split: compute_locked_features(
                self.model,
                self.processor,
                clips,
                ["video", "text"],
                args.work_dir / "features",
                num_workers=2,
                dtype=args.dtype,
            )
            for split, clips in self.clips.items()
        }
        print(f"features of {dataset}: {time.perf_counter() - began:.0f} s", flush=True)

    def dataset(self, split: str, **options: Any) -> FeatureDataset:
        clips, known = self.clips[split], self.known[split]
        if split == "train" and self.args.shuffle_captions:
            captions = clips["captions"]
            order = torch.randperm(len(captions), generator=torch.Generator().manual_seed(0)).tolist()
            feature = clips.features["captions"]
            clips = clips.remove_columns("captions").add_column(
                "captions", [captions[place] for place in order], feature=feature
            )
        return _Silent(clips, self.processor, known, **options)

    def run(self, setting: dict[str, Any], seed: int) -> dict[str, float]:
        torch.manual_seed(seed)
        config = self.model.config
        towers = {name: dict(use) for name, use in config.towers.items()}
        for name in ("video", "text"):
            towers[name]["projection"] = {"kernel": "linear"}.get(
                setting["projection"], setting["projection"]
            )
        sizes = {"vt_projection_size": 512} if setting["head"] == "joint" else {}
        fields = {
            **{f"{name}_config": getattr(config, f"{name}_config") for name in towers},
            "towers": towers,
            "head_type": setting["head"],
            "loss_type": setting["loss"],
            **sizes,
            "video_audio_loss_weight": 0.0,
            "temperature": setting["temperature"],
        }
        model = VattForPreTraining(VattConfig(**fields))
        options = {"random_window": True, "window_choices": 1, "mask_captions": True}
        dataset = self.dataset("train", seed=seed, **options)
        steps = max(1, self.args.epochs * len(dataset) // setting["batch"])
        began = time.perf_counter()
        if setting["projection"] == "kernel":
            fit_projections(model, dataset.features, all_captions(dataset.clips), seed=seed)
            steps = 0
        else:
            self.train(model, dataset, setting, steps, seed)
        found = {"seconds": time.perf_counter() - began, "steps": steps}
        model.eval()
        for split in self.tests:
            loader = DataLoader(self.dataset(split), batch_size=256, collate_fn=collate_clips)
            metrics = clip_retrieval(embed_batches(model, (batch.inputs for batch in loader)))
            found |= {f"{split} {name}": metrics[f"txt2vid_{name}"] for name in SHOWN}
        return found

    def train(
        self,
        model: VattForPreTraining,
        dataset: FeatureDataset,
        setting: dict[str, Any],
        steps: int,
        seed: int,
    ) -> None:
        with tempfile.TemporaryDirectory() as folder:
            training = PretrainingArguments(
                folder,
                num_steps=steps,
                batch_size=setting["batch"],
                learning_rate=setting["rate"],
                final_learning_rate=setting["rate"] / 100,
                weight_decay=setting["decay"],
                warmup_steps=max(1, steps // 20),
                seed=seed,
                log_every=0,
                save_every=0,
            )
            Pretrainer(model, dataset, training).train()


def _load(dataset: str, split: str, count: int | None) -> Any:
    """The first clips of a split, or of a folder that is none."""
    folder = Path(dataset, split)
    clips = load_clips(folder, "train") if folder.is_dir() else load_clips(dataset, split)
    return clips if count is None else clips.select(range(min(count, len(clips))))


class _Silent(FeatureDataset):
    """Without sound: only words are searched by."""

    def _read_others(self, *args: Any) -> dict[str, Any]:
        return {}


def main() -> None:
    args = arguments()
    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
    file = args.work_dir / "runs.jsonl"
    done = [json.loads(line) for line in file.read_text().splitlines()] if file.exists() else []
    names = ("loss", "head", "projection", "batch", "temperature", "rate", "decay")
    choices = (
        *(args.losses, args.heads, args.projections, args.batch_sizes),
        *(args.temperatures, args.rates, args.decays),
    )
    same = ("video_tower", "text_tower", "dtype", "max_train_clips", "max_test_clips", "test_splits")
    same += ("epochs", "num_captions", "shuffle_captions")
    columns = [f"{split} {name}" for split in args.test_splits for name in SHOWN]
    rows: dict[tuple[Any, ...], list[dict[str, float]]] = {}
    for dataset in args.datasets:
        with contextlib.redirect_stderr(io.StringIO()):
            bench = Bench(args, dataset)
        for values, seed in product(product(*choices), range(args.seeds)):
            setting = dict(zip(names, values, strict=True))
            key = {
                **setting,
                "seed": seed,
                "dataset": dataset,
                **{name: getattr(args, name) for name in same},
            }
            found = next((row["found"] for row in done if row["key"] == key), None)
            if found is None:
                found = bench.run(setting, seed)
                with file.open("a") as log:
                    log.write(json.dumps({"key": key, "found": found}) + "\n")
            rows.setdefault((dataset, *values), []).append(found)
    print(f"| {' | '.join(('data', *names, *columns))} | s |")
    print("| --- " * (len(names) + len(columns) + 2) + "|")
    for case, runs in rows.items():
        cells = [_cell(runs, column) for column in columns]
        seconds = statistics.mean(run["seconds"] for run in runs)
        print(f"| {' | '.join(map(str, (*case, *cells)))} | {seconds:.0f} |")


def _cell(runs: list[dict[str, float]], column: str) -> str:
    """Mean and standard deviation over the seeds; recalls in per cent."""
    if column not in runs[0]:
        return "-"
    scale = 1 if column.endswith("Rank") else 100
    numbers = [scale * run[column] for run in runs]
    spread = f" ± {statistics.stdev(numbers):.1f}" if len(numbers) > 1 else ""
    return f"{statistics.mean(numbers):.1f}{spread}"


if __name__ == "__main__":
    main()
