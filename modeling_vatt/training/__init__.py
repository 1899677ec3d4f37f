# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training: schedules, checkpoints, the pretraining loop, and fine-tuning."""

from ..hub.model_card import build_model_card, write_model_card
from .arguments import PretrainingArguments
from .checkpoints import files_at_once
from .faults import EXIT_STOPPED, NonFiniteLossError, RunStopped, StopSignals, TrainingError, explained
from .gradient_cache import average_gradients, cached_backward
from .pretrainer import Pretrainer
from .recipes import CLASSIFIERS, RECIPES, FinetuningRecipe, finetuning_config
from .recomputation import recompute_activations
from .run_record import read_run_record, seed_everything, table_fingerprint, without_secrets, write_run_record
from .schedules import finetuning_learning_rate, get_pretraining_schedule, pretraining_learning_rate
from .trainer import FinetuningArguments, VattTrainer, collate_labelled, last_checkpoint, mixup, smooth_labels


__all__ = [
    "CLASSIFIERS",
    "EXIT_STOPPED",
    "RECIPES",
    "FinetuningArguments",
    "FinetuningRecipe",
    "NonFiniteLossError",
    "Pretrainer",
    "PretrainingArguments",
    "RunStopped",
    "StopSignals",
    "TrainingError",
    "VattTrainer",
    "average_gradients",
    "build_model_card",
    "cached_backward",
    "collate_labelled",
    "explained",
    "files_at_once",
    "finetuning_config",
    "finetuning_learning_rate",
    "get_pretraining_schedule",
    "last_checkpoint",
    "mixup",
    "pretraining_learning_rate",
    "read_run_record",
    "recompute_activations",
    "seed_everything",
    "smooth_labels",
    "table_fingerprint",
    "without_secrets",
    "write_model_card",
    "write_run_record",
]
