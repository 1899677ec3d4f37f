# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training: schedules, checkpoints that survive a kill, the pretraining loop, and fine-tuning."""

from ..model_card import build_model_card, write_model_card
from .finetuning import (
    CLASSIFIERS,
    RECIPES,
    FinetuningArguments,
    FinetuningRecipe,
    VattTrainer,
    collate_labelled,
    finetuning_config,
    last_checkpoint,
    mixup,
    smooth_labels,
)
from .pretrainer import Pretrainer, PretrainingArguments
from .schedules import finetuning_learning_rate, get_pretraining_schedule, pretraining_learning_rate


__all__ = [
    "CLASSIFIERS",
    "RECIPES",
    "FinetuningArguments",
    "FinetuningRecipe",
    "Pretrainer",
    "PretrainingArguments",
    "VattTrainer",
    "build_model_card",
    "collate_labelled",
    "finetuning_config",
    "finetuning_learning_rate",
    "get_pretraining_schedule",
    "last_checkpoint",
    "mixup",
    "pretraining_learning_rate",
    "smooth_labels",
    "write_model_card",
]
