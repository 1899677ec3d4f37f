# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Small runs of the pretrainer and of the fine-tuning trainer, and callbacks that disturb them."""

from pathlib import Path
from typing import Any

import torch
from clip_folders import small_processor
from small_models import small_config
from transformers import TrainerCallback

from modeling_vatt import VattForPreTraining
from modeling_vatt.data import ClipDataset, LabelledDataset, class_names, decode_clips, load_labelled
from modeling_vatt.processors import VattAugmentation
from modeling_vatt.training import (
    CLASSIFIERS,
    FinetuningArguments,
    Pretrainer,
    PretrainingArguments,
    finetuning_config,
)


def pretrainer(
    clips,
    output_dir: Path,
    evaluate=None,
    save_extra=None,
    drop_token_rate=0.5,
    dropout=0.1,
    accelerator=None,
    **options,
) -> Pretrainer:
    torch.manual_seed(0)
    # Dropout and DropToken are on: their draws must be resumed as well.
    drop_token = {"drop_token_rate": drop_token_rate}
    every = {"hidden_dropout_prob": dropout}
    config = small_config("agnostic", every=every, video=drop_token, audio=drop_token)
    dataset = ClipDataset(clips, small_processor(config), True, VattAugmentation(), seed=3)
    arguments = {
        "num_steps": 6,
        "batch_size": 4,
        "learning_rate": 1e-2,
        "warmup_steps": 2,
        "log_every": 1,
        "save_every": 2,
        **options,
    }
    return Pretrainer(
        VattForPreTraining(config),
        dataset,
        PretrainingArguments(str(output_dir), **arguments),
        accelerator,
        evaluate=evaluate,
        save_extra=save_extra,
    )


def tones(folder: Path, several: bool, **options: Any) -> LabelledDataset:
    table = load_labelled(folder, "train", "audio", "label" if several else "group")
    decoded, _ = decode_clips(table, small_processor(), media="audio")
    return LabelledDataset(decoded, small_processor(), "audio", **options)


def classifier(data: LabelledDataset, variant: str = "specific", **options: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    config = finetuning_config(
        small_config(variant), class_names(data.clips), data.media, data.several_labels, **options
    )
    return CLASSIFIERS[data.media](config)


def arguments(folder: Path, kind: type = FinetuningArguments, **overrides: Any) -> Any:
    fields = {
        "output_dir": str(folder),
        "per_device_train_batch_size": 4,
        "per_device_eval_batch_size": 4,
        "learning_rate": 0.05,
        "optim": "sgd",
        "optim_args": "momentum=0.9",
        "save_strategy": "no",
        "logging_steps": 1,
        "report_to": [],
        "use_cpu": True,
        "disable_tqdm": True,
    }
    return kind(**{**fields, **overrides})


def best_kept(every: int, metric: str) -> dict[str, Any]:
    """Options of a run that evaluates and saves every so many steps, and ends with the best model."""
    return {
        "eval_strategy": "steps",
        "save_strategy": "steps",
        "eval_steps": every,
        "save_steps": every,
        "save_total_limit": 1,
        "load_best_model_at_end": True,
        "metric_for_best_model": metric,
    }


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: values.clone() for name, values in model.state_dict().items()}


class StopAfter(TrainerCallback):
    """Ends a run early, as if it had been stopped from outside."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        control.should_training_stop = state.global_step >= self.steps


class At(TrainerCallback):
    """Does something after a step."""

    def __init__(self, step: int, task: Any) -> None:
        self.step, self.task = step, task

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if state.global_step == self.step:
            self.task()
