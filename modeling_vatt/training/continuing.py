# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""From which checkpoint a pretraining run continues, and what must not have changed since."""

import json
import logging
import shutil
from pathlib import Path
from typing import Any

import datasets

from ..data import ClipDataset, is_decoded
from ..models.modeling_vatt import VattForPreTraining
from .arguments import PretrainingArguments
from .checkpoints import checkpoints, is_whole, read_state
from .run_record import settings_digest, table_fingerprint
from .schedules import steps_before_decay


logger = logging.getLogger(__name__)

# Arguments that decide later rates; they may change where the rates do not yet depend on them.
_SCHEDULE = (
    "schedule",
    "num_steps",
    "decay_steps",
    "final_learning_rate",
    "cosine_period",
    "all_token_steps",
)
# Arguments that do not change the weights. A run is not continued with other values of the rest.
_FREE = (
    "output_dir",
    "resume_from",
    "ema_decay",
    "deterministic",
    "num_workers",
    "prefetch_factor",
    "log_every",
    "eval_every",
    "save_every",
    "keep_checkpoints",
    "metric_for_best_model",
)
# Fields of a config that depend on versions and places.
_PASSING = ("transformers_version", "_name_or_path", "dtype", "architectures")


def run_fingerprint(
    args: PretrainingArguments,
    dataset: ClipDataset,
    model: VattForPreTraining,
    mixed_precision: str,
    locked: dict[str, str],
) -> dict[str, Any]:
    """What must not change between the parts of a run; `data`: names, captions and sizes of files, or every
    byte of shards; `locked`: of [`hash_locked`]."""
    clips: Any = dataset.clips
    files = table_fingerprint(clips, "video") if isinstance(clips, datasets.Dataset) else ""
    processor = dataset.processor
    views = [
        processor.video_processor.to_dict(),
        processor.feature_extractor.to_dict(),
        processor.num_captions,
        dataset.augmentation,
        dataset.random_window,
        dataset.seed,
    ]
    config = {name: value for name, value in model.config.to_diff_dict().items() if name not in _PASSING}
    return {
        **{name: value for name, value in vars(args).items() if name not in _FREE},
        "mixed_precision": mixed_precision,
        "num_clips": len(dataset),
        "clips_per_video": dataset.clips_per_video,
        "data": settings_digest([dataset.fingerprint, files]),
        "processing": settings_digest(views),
        "tokenizer": settings_digest(processor.tokenizer.get_vocab()),
        "decoded_once": is_decoded(clips),
        "model_config": settings_digest(config),
        "window_choices": dataset.window_choices,
        "mask_captions": dataset.mask_captions,
        **({"locked_towers": settings_digest(locked)} if locked else {}),
        "num_parameters": sum(parameter.numel() for parameter in model.parameters()),
    }


def starting_point(args: PretrainingArguments, found: list[Path]) -> Path | None:
    """The checkpoint to continue from: the newest one `found` (oldest first); for a longer run the newest one
    before the decay; in a new folder that of `resume_from`. ValueError if that is no checkpoint, or lies in
    the output folder."""
    branch = args.resume_from
    if branch is not None and Path(branch).resolve().parent == Path(args.output_dir).resolve():
        raise ValueError(f"--resume_from {branch} lies in the output folder: choose another --output_dir.")
    if not found:
        if branch is not None and Path(branch) not in checkpoints(Path(branch).parent):
            raise ValueError(
                f"--resume_from {branch}: no whole checkpoint of pretraining. Name a folder checkpoint-N."
            )
        return None if branch is None else Path(branch)
    newest = read_state(found[-1])
    decayed = newest["progress"]["step"] > steps_before_decay(newest["arguments"]) >= 0
    longer = args.num_steps > newest["arguments"]["num_steps"]
    if _same_rates(args, newest) or not (decayed and longer):
        return found[-1]
    before = [path for path in found if _same_rates(args, read_state(path))]
    return before[-1] if before else found[-1]


def _same_rates(args: PretrainingArguments, state: dict[str, Any]) -> bool:
    """Whether the learning rates up to a checkpoint are those of this run."""
    then, now = state["arguments"], vars(args)
    if all(then.get(name, now[name]) == now[name] for name in _SCHEDULE):
        return True
    return state["progress"]["step"] <= min(steps_before_decay(then), steps_before_decay(now))


def check_unchanged(
    args: PretrainingArguments, checkpoint: Path, state: dict[str, Any], now: dict[str, Any]
) -> None:
    """Raise `ValueError` if a checkpoint has another fingerprint than `now`, of [`run_fingerprint`]."""
    then, same_rates = state["arguments"], _same_rates(args, state)
    changed = [
        name
        for name, value in then.items()
        if name in now and now[name] != value and not (name in _SCHEDULE and same_rates)
    ]
    if not changed:
        return
    advice = "use them again, or choose another output folder."
    if set(changed) <= set(_SCHEDULE):
        advice = (
            "the learning rate up to there would have been another. Use them again; a run that is to be "
            'extended needs `schedule` "constant" or "wsd" and goes on from before its decay. To train the '
            "result further, begin a run with its weights (--model) in another folder."
        )
    listed = ", ".join(f"{name}={then[name]} (now {now[name]})" for name in changed)
    raise ValueError(f"{checkpoint} was written with other arguments {listed}: {advice}")


def forget_others(output_dir: Path, found: list[Path], step: int, best_step: int | None) -> None:
    """Remove from the output folder the best model (unless of `best_step`), lines and checkpoints of an
    earlier run or of steps that will be repeated."""
    for path in found:
        if read_state(path)["progress"]["step"] > step:
            logger.warning("%s belongs to a decay that is not continued: removed.", path)
            shutil.rmtree(path)
    best = output_dir / "best"
    if best.is_dir() and (not is_whole(best) or read_state(best).get("step") != best_step):
        logger.warning("%s is not the best model of this run up to here: removed.", best)
        shutil.rmtree(best)
    metrics_file = output_dir / "metrics.jsonl"
    if not found:
        metrics_file.unlink(missing_ok=True)
    elif metrics_file.exists():
        lines = [line for line in metrics_file.read_text().splitlines() if line.endswith("}")]
        kept = [line for line in lines if json.loads(line)["step"] <= step]
        metrics_file.write_text("".join(line + "\n" for line in kept))
