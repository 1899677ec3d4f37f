# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training: schedules, checkpoints that survive a kill, and the pretraining loop."""

from ..model_card import build_model_card, write_model_card
from .pretrainer import Pretrainer, PretrainingArguments
from .schedules import finetuning_learning_rate, get_pretraining_schedule, pretraining_learning_rate


__all__ = [
    "Pretrainer",
    "PretrainingArguments",
    "build_model_card",
    "finetuning_learning_rate",
    "get_pretraining_schedule",
    "pretraining_learning_rate",
    "write_model_card",
]
