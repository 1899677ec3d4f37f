# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Losses against each other: retrieval after pretraining on the same number of clips.

    python examples/run_demo.py --output_dir demo          # makes the corpus
    python benchmarks/compare_losses.py --work_dir losses -- --dataset demo/corpus --preset ma_tiny \
        --learning_rate 3e-3 --warmup_steps 20 --num_captions 2 --decode_once --normalize_audio

What follows `--` are flags of `examples/run_pretraining.py`, the same for all runs; with `--lock` and
`--cache_features` a run takes seconds. Prints mean and range over the seeds, in percent. Runs that are
finished are not made again.
"""

import argparse
import json
import subprocess
import sys
from itertools import product
from pathlib import Path


SCRIPT = Path(__file__).resolve().parent.parent / "examples" / "run_pretraining.py"


def run(args: argparse.Namespace, loss: str, batch_size: int, seed: int) -> dict[str, float]:
    """Metrics of the last evaluation of a run."""
    folder = args.work_dir / f"{loss}-{batch_size}-{seed}"
    flags = {
        "output_dir": folder,
        "loss": loss,
        "batch_size": batch_size,
        "seed": seed,
        "num_steps": max(1, args.clips // batch_size),
        "save_every": 0,
        "report_to": "none",
        "remote_code": False,
        "keep_last": True,
    }
    metrics = folder / "metrics.jsonl"
    if not (folder / "config.json").exists():
        command = [sys.executable, str(SCRIPT), *args.flags]
        command += [part for name, value in flags.items() for part in (f"--{name}", str(value))]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    lines = [json.loads(line) for line in metrics.read_text().splitlines()]
    return next(line for line in reversed(lines) if args.metrics[0] in line)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--work_dir", type=Path, required=True)
    parser.add_argument("--clips", type=int, default=25_600, help="Clips that each run sees.")
    parser.add_argument("--losses", nargs="+", default=["asymmetric", "asymmetric_learned", "sigmoid"])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[32, 64, 256])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--metrics", nargs="+", default=["txt2vid_R1", "txt2vid_R10"])
    parser.add_argument("flags", nargs="*", help="After `--`: flags of run_pretraining.py.")
    args = parser.parse_args()
    cases = list(product(args.losses, args.batch_sizes))
    found = {(*case, seed): run(args, *case, seed) for seed in args.seeds for case in cases}
    print("| loss | batch |", " | ".join(args.metrics), "|")
    print("| --- | --- |" + " --- |" * len(args.metrics))
    for case in cases:
        cells = []
        for name in args.metrics:
            values = [100 * found[*case, seed][name] for seed in args.seeds]
            cells.append(f"{sum(values) / len(values):.1f} ({min(values):.1f} to {max(values):.1f})")
        print("|", " | ".join([*map(str, case), *cells]), "|")


if __name__ == "__main__":
    main()
