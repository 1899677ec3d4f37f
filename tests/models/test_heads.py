# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Batch norm of the heads: its precision over several processes, and `update_bn` of PyTorch."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from modeling_vatt.models import heads
from modeling_vatt.models.heads import VattBatchNorm


@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_several_processes_are_as_precise_as_one_in_bf16(
    monkeypatch: pytest.MonkeyPatch, mean: float
) -> None:
    values = (torch.randn(512, 64) + mean).bfloat16()
    wide = values.double()
    exact = (wide - wide.mean(0)) / (wide.var(0, unbiased=False) + 1e-5).sqrt()
    errors = []
    for several in (False, True):
        monkeypatch.setattr(heads, "is_distributed", lambda several=several: several)
        normed = VattBatchNorm(64, 1e-5, 0.1, sync=True).train()(values)
        assert normed.dtype == torch.bfloat16
        errors.append((normed.double() - exact).square().mean().sqrt().item())
    assert errors[1] < 1.1 * errors[0]


@pytest.mark.parametrize("frozen", [False, True])
def test_update_bn_gives_the_mean_over_the_batches(frozen: bool) -> None:
    """Also of an averaged model that takes no gradients."""
    averaged = AveragedModel(nn.Sequential(VattBatchNorm(8, 1e-5, 0.1, sync=True))).requires_grad_(not frozen)
    norm = averaged.module[0]
    batches = [torch.randn(16, 8) + place for place in range(5)]
    update_bn(batches, averaged)
    torch.testing.assert_close(norm.running_mean, torch.stack([rows.mean(0) for rows in batches]).mean(0))
    biased = torch.stack([rows.var(0, unbiased=False) for rows in batches]).mean(0)
    torch.testing.assert_close(norm.running_var, biased)
    assert norm.momentum == 0.1
    assert set(norm.state_dict()) == {"weight", "bias", "running_mean", "running_var"}
