# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Training: schedules, checkpoints that survive a kill, and the pretraining loop."""

from ..model_card import build_model_card, write_model_card
from .gradient_cache import average_gradients, cached_backward
from .pretrainer import Pretrainer, PretrainingArguments
from .schedules import finetuning_learning_rate, get_pretraining_schedule, pretraining_learning_rate


__all__ = [
    "Pretrainer",
    "PretrainingArguments",
    "average_gradients",
    "build_model_card",
    "cached_backward",
    "finetuning_learning_rate",
    "get_pretraining_schedule",
    "pretraining_learning_rate",
    "write_model_card",
]
