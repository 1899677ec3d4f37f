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
from .gradient_cache import average_gradients, cached_backward
from .pretrainer import Pretrainer, PretrainingArguments
from .recomputation import recompute_activations
from .schedules import finetuning_learning_rate, get_pretraining_schedule, pretraining_learning_rate


__all__ = [
    "CLASSIFIERS",
    "RECIPES",
    "FinetuningArguments",
    "FinetuningRecipe",
    "Pretrainer",
    "PretrainingArguments",
    "VattTrainer",
    "average_gradients",
    "build_model_card",
    "cached_backward",
    "collate_labelled",
    "finetuning_config",
    "finetuning_learning_rate",
    "get_pretraining_schedule",
    "last_checkpoint",
    "mixup",
    "pretraining_learning_rate",
    "recompute_activations",
    "smooth_labels",
    "write_model_card",
]
