# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Learning-rate schedules: the cosines of the release and the paper, and, for runs that can be extended,
constant and warm-up, stable, decay (WSD)."""

import logging
import math
from collections.abc import Mapping
from typing import Any

import torch
from torch.optim.lr_scheduler import LambdaLR


logger = logging.getLogger(__name__)


def pretraining_learning_rate(
    step: int,
    total_steps: int,
    warmup_steps: int,
    peak: float = 1e-4,
    final: float = 5e-5,
    period: str = "half",
) -> float:
    """Linear warm-up from 0 to `peak`, then a cosine down to `final`.

    Args:
        step: update, counted from 0; at and after `total_steps` the rate stays at `final` (the release
            yields NaN there).
        period: `"half"` period of the cosine between the two levels (release) or `"quarter"` (paper).
    """
    if period not in ("half", "quarter"):
        raise ValueError(f'`period` must be "half" or "quarter", got {period!r}.')
    if step < warmup_steps:
        return peak * step / warmup_steps
    if step >= total_steps:
        return final
    progress = (step - warmup_steps) / (total_steps - warmup_steps)
    if period == "half":
        return final + (peak - final) * (1 + math.cos(math.pi * progress)) / 2
    return final + (peak - final) * math.cos(math.pi / 2 * progress)


def finetuning_learning_rate(step: int, total_steps: int, warmup_steps: int, peak: float = 5e-3) -> float:
    """Linear warm-up from 0 to `peak`, then half a cosine period down to 0 (release and paper)."""
    return pretraining_learning_rate(step, total_steps, warmup_steps, peak, 0.0)


def stable_learning_rate(
    step: int, total_steps: int, warmup_steps: int, decay_steps: int, peak: float = 1e-4, final: float = 0.0
) -> float:
    """Linear warm-up from 0 to `peak`, constant, then over the last `decay_steps` linear down to `final` at
    `total_steps`."""
    if step < warmup_steps:
        return peak * step / warmup_steps
    left = max(0, total_steps - step)
    return peak if left >= decay_steps else final + (peak - final) * left / decay_steps


def warn_of_long_warmup(warmup_steps: int, total_steps: int, peak: float) -> None:
    """Log a warning if the run ends before its warm-up does."""
    if warmup_steps >= total_steps:
        logger.warning(
            "The warm-up (--warmup_steps %d) is not over when the run is (%d steps): the learning rate never "
            "reaches %g. Shorten it.",
            warmup_steps,
            total_steps,
            peak,
        )


def steps_before_decay(settings: Mapping[str, Any]) -> int:
    """Number of first updates that do not depend on the length of the run, -1 for none; `settings`: fields of
    [`PretrainingArguments`]."""
    if settings.get("schedule", "cosine") == "cosine":
        return -1
    return settings["num_steps"] - max(settings["decay_steps"], settings.get("all_token_steps", 0))


def get_pretraining_schedule(
    optimizer: torch.optim.Optimizer,
    total_steps: int,
    warmup_steps: int,
    final_ratio: float = 0.5,
    period: str = "half",
    schedule: str = "cosine",
    decay_steps: int = 0,
) -> LambdaLR:
    """Scheduler around [`pretraining_learning_rate`] (`schedule="cosine"`) or [`stable_learning_rate`]
    (`"constant"`, `"wsd"`): the optimizer's learning rates are the peaks, and `final_ratio` of them is
    reached at the end (release: 1e-4 and 5e-5)."""

    def ratio(step: int) -> float:
        if schedule == "cosine":
            return pretraining_learning_rate(step, total_steps, warmup_steps, 1.0, final_ratio, period)
        return stable_learning_rate(step, total_steps, warmup_steps, decay_steps, 1.0, final_ratio)

    return LambdaLR(optimizer, ratio)
