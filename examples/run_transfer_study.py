# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""The effect of pretraining: classifiers of video and sound from random weights and from pretrained models,
with equal budgets and several seeds; fine-tuning with half of the tokens; linear probes of frozen features.

    python examples/run_transfer_study.py --dataset demo/corpus --specific my_model \
        --agnostic my_agnostic_model --output_dir study

Runs the scripts for fine-tuning and probing one after the other, except finished ones, and writes `study.md`
and `study.json`.
"""

import dataclasses
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from statistics import mean, stdev

from common import as_flags, check_output_dir, fail, parse
from transformers import AutoConfig, AutoModelForPreTraining, AutoProcessor, set_seed
from transformers.hf_argparser import HfArg

import modeling_vatt  # noqa: F401 - makes the Auto classes know VATT
from modeling_vatt.files import hash_file


HERE = Path(__file__).resolve().parent


@dataclass
class StudyArguments:
    """Models, data and budget."""

    dataset: str = HfArg(help="Folder with the splits.")
    specific: str = HfArg(help="Pretrained modality-specific model.")
    agnostic: str = HfArg(help="Pretrained modality-agnostic model.")
    output_dir: str = HfArg(help="Folder for the runs and the tables.")
    train_split: str = HfArg(default="train", help="Split to train on.")
    test_split: str = HfArg(default="test", help="Split to test on.")
    video_label: str = HfArg(default="motion", help="Column with the classes of videos.")
    audio_label: str = HfArg(default="shape", help="Column with the classes of sounds.")
    probe_labels: list[str] = HfArg(
        default_factory=lambda: ["colour", "size", "shape", "motion"], help="Columns for linear probes."
    )
    seeds: int = HfArg(default=3, help="Runs of each kind.")
    max_steps: int = HfArg(default=100, help="Updates of each run.")
    batch_size: int = HfArg(default=16, help="Clips of an update.")
    learning_rate: float = HfArg(default=5e-4, help="Peak.")
    warmup_steps: int = HfArg(default=10, help="Updates up to the peak.")
    optim: str = HfArg(default="adamw_torch", help="Optimizer, as transformers names it.")


def run(script: str, output_dir: Path, kept: str, **options: object) -> dict:
    """Results of a script, which is run unless they are stored under the name `kept`."""
    results = output_dir / kept
    asked = {name: str(value) for name, value in options.items()}
    weights = Path(str(options["model"]), "model.safetensors")
    asked["weights"] = hash_file(weights) if weights.is_file() else ""  # else on the Hub
    if results.is_file() and json.loads(results.read_text()).get("asked") != asked:
        sys.exit(f"{results} is from other settings: use them again, or choose another output folder.")
    if not results.is_file():
        command = [sys.executable, str(HERE / script), *as_flags(output_dir=output_dir, **options)]
        print(f"-- {output_dir.name}, {kept}", flush=True)
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            sys.exit(f"{script} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
        found = json.loads((output_dir / "results.json").read_text())
        results.write_text(json.dumps({**found, "asked": asked}, indent=2) + "\n")
    return json.loads(results.read_text())


def untrained(args: StudyArguments, seed: int) -> str:
    """Folder of a model of the same architecture as `specific`, with random weights."""
    folder = Path(args.output_dir) / f"untrained-{seed}"
    if not (folder / "model.safetensors").is_file():
        AutoProcessor.from_pretrained(args.specific).save_pretrained(folder)
        set_seed(seed)
        AutoModelForPreTraining.from_config(AutoConfig.from_pretrained(args.specific)).save_pretrained(folder)
    return str(folder)


def fine_tune(args: StudyArguments, media: str, seed: int, start: str, dropped: float) -> dict:
    """One run of a classifier."""
    name = start.split(",")[0]
    return run(
        f"run_{media}_classification.py",
        Path(args.output_dir) / f"{media}-{'half' if dropped else name}-{seed}",
        "study.json",
        dataset=args.dataset,
        train_split=args.train_split,
        validation_split=args.test_split,
        label_column=getattr(args, f"{media}_label"),
        decode_once=True,
        crop_resize_style="none",
        color_augment=False,
        normalize_audio=True,
        max_steps=args.max_steps,
        per_device_train_batch_size=args.batch_size,
        per_device_eval_batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        warmup_steps=args.warmup_steps,
        optim=args.optim,
        seed=seed,
        save_strategy="no",
        report_to="none",
        disable_tqdm=True,
        remote_code=False,
        model=untrained(args, seed) if name == "scratch" else getattr(args, name),
        drop_token_rate=dropped,
    )


def row(name: str, results: list[dict]) -> dict[str, str | float]:
    """Mean and deviation over seeds, in per cent."""
    top1 = [100 * result["metrics"]["top1"] for result in results]
    return {
        "start": name,
        "top-1 mean": mean(top1),
        "top-1 deviation": stdev(top1) if len(top1) > 1 else 0.0,
        "clips a second": mean(result["train_samples_per_second"] for result in results),
    }


def fine_tune_all(args: StudyArguments) -> tuple[dict[str, dict], list[str]]:
    """Classifiers of both media from all starts: results, and lines of the report."""
    starts = dict.fromkeys(("scratch", "specific", "agnostic"), 0.0)
    half = {"specific, half of the tokens": 0.5}
    study: dict[str, dict] = {}
    lines = [f"{args.max_steps} updates of {args.batch_size} clips, {args.seeds} seeds, top-1 in %."]
    for media, options in {"video": starts | half, "audio": starts}.items():
        rows = []
        for name, dropped in options.items():
            runs = [fine_tune(args, media, seed, name, dropped) for seed in range(args.seeds)]
            rows.append(row(name, runs))
        label, chance = getattr(args, f"{media}_label"), 100 / runs[0]["classes"]
        study[media] = {"label": label, "chance": chance, "rows": rows}
        lines += ["", f"{media}, label {label}, chance {chance:.1f} %:", ""]
        lines += ["| start | top-1 | clips/s |", "| --- | --- | --- |"]
        lines += [
            f"| {one['start']} | {one['top-1 mean']:.1f} ± {one['top-1 deviation']:.1f} "
            f"| {one['clips a second']:.1f} |"
            for one in rows
        ]
    return study, lines


def probe_all(args: StudyArguments) -> tuple[dict[str, dict], list[str]]:
    """Linear probes of both models and media: results, and lines of the report."""
    columns = [(media, name) for media in ("video", "audio") for name in ("specific", "agnostic")]
    lines = ["", "Linear probes (linear SVM / linear head):", ""]
    lines.append("| label | " + " | ".join(", ".join(column) for column in columns) + " |")
    lines.append("| --- |" + " --- |" * len(columns))
    probes: dict[str, dict] = {}
    for label in args.probe_labels:
        cells = []
        for media, name in columns:
            found = run(
                "run_linear_probe.py",
                Path(args.output_dir) / f"probe-{media}-{name}",  # the features are shared
                f"{label}.json",
                dataset=args.dataset,
                model=getattr(args, name),
                media=media,
                label_column=label,
                train_split=args.train_split,
                test_split=args.test_split,
                test_windows=1,
                svm_c=0.01,
                head_epochs=100,
            )
            probes[f"{media}, {name}, {label}"] = found
            cells.append(" / ".join(f"{100 * one['top1']:.1f}" for one in found["summary"].values()))
        lines.append(f"| {label} | " + " | ".join(cells) + " |")
    return probes, lines


def main() -> None:
    (args,) = parse(__doc__, StudyArguments)
    try:
        check_output_dir(args.output_dir)
    except ValueError as error:
        fail(error)
    tuned, lines = fine_tune_all(args)
    probes, more = probe_all(args)
    study = {"settings": dataclasses.asdict(args), **tuned, "probes": probes}
    output, text = Path(args.output_dir), "\n".join([*lines, *more])
    (output / "study.json").write_text(json.dumps(study, indent=2) + "\n")
    (output / "study.md").write_text(text + "\n")
    print(text)


if __name__ == "__main__":
    main()
