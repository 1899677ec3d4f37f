# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Learning rates against the goldens of the release and hand-made cases."""

import json

import numpy as np
import pytest
import torch
from goldens import GOLDENS

from modeling_vatt.training import (
    finetuning_learning_rate,
    get_pretraining_schedule,
    pretraining_learning_rate,
)


@pytest.fixture(scope="module")
def schedules() -> dict:
    return json.loads((GOLDENS / "small" / "schedules.json").read_text())


def test_pretraining_rate_is_the_releases(schedules):
    for step, rate in schedules["pretrain"].items():
        if rate == rate:  # the release yields NaN at the last step
            assert pretraining_learning_rate(int(step), 500_000, 5000) == pytest.approx(rate, rel=1e-6)
    assert pretraining_learning_rate(500_000, 500_000, 5000) == 5e-5


def test_finetuning_rate_is_the_releases(schedules):
    for step, rate in schedules["finetune"].items():
        assert finetuning_learning_rate(int(step), 100_000, 2500) == pytest.approx(rate, rel=1e-6, abs=1e-9)


def test_quarter_period_is_the_papers():
    middle = 5000 + (500_000 - 5000) // 2
    rate = pretraining_learning_rate(middle, 500_000, 5000, period="quarter")
    assert rate == pytest.approx(5e-5 + 5e-5 * np.cos(np.pi / 4), rel=1e-6)
    with pytest.raises(ValueError, match="period"):
        pretraining_learning_rate(1, 10, 2, period="full")


def test_scheduler_multiplies_the_optimizers_rate():
    optimizer = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=2.0)
    scheduler = get_pretraining_schedule(optimizer, total_steps=10, warmup_steps=4, final_ratio=0.1)
    rates = []
    for _ in range(11):
        rates.append(scheduler.get_last_lr()[0])
        optimizer.step()
        scheduler.step()
    assert rates[:5] == [0.0, 0.5, 1.0, 1.5, 2.0]
    assert rates[10] == pytest.approx(0.2)
