# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Batch norm of the heads against that of PyTorch: Keras' rules, feature maps, precision, `update_bn`."""

import pytest
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel, update_bn

from modeling_vatt.models import heads
from modeling_vatt.models.heads import VattBatchNorm


def test_equals_pytorch_but_for_the_running_variance():
    """Same outputs and gradients as `nn.BatchNorm1d`; the running variance is the mean of biased ones."""
    ours = VattBatchNorm(3, eps=1e-5, momentum=0.1, sync=True).double()
    theirs = nn.BatchNorm1d(3, eps=1e-5, momentum=0.1).double()
    with torch.no_grad():
        ours.weight.copy_(torch.tensor([1.0, 0.5, -1.0]))
        ours.bias.copy_(torch.tensor([0.0, -1.0, 3.0]))
    theirs.load_state_dict(ours.state_dict(), strict=False)
    weights = torch.randn(6, 3, dtype=torch.float64)
    variance = torch.ones(3, dtype=torch.float64)
    for step in range(3):
        rows = (torch.randn(6, 3, dtype=torch.float64) * 3 + step).requires_grad_()
        results = []
        for norm in (ours, theirs):
            output = norm(rows)
            trained = (rows, norm.weight, norm.bias)
            results.append([output, *torch.autograd.grad((output * weights).sum(), trained)])
        torch.testing.assert_close(*results)
        torch.testing.assert_close(ours.running_mean, theirs.running_mean)
        variance = 0.9 * variance + 0.1 * rows.detach().var(0, correction=0)
        torch.testing.assert_close(ours.running_var, variance)
        assert not torch.allclose(theirs.running_var, variance)
    theirs.running_var.copy_(variance)
    torch.testing.assert_close(ours.eval()(rows), theirs.eval()(rows))
    torch.testing.assert_close(ours.running_mean, theirs.running_mean)


@pytest.mark.parametrize("sync", [False, True])
def test_feature_maps(sync):
    """Every place of a (batch, size, ...) map is a row, in whichever way the statistics are made."""
    maps, vectors = (VattBatchNorm(3, eps=1e-5, momentum=0.1, sync=sync).double() for _ in range(2))
    values = torch.randn(2, 3, 4, 5, dtype=torch.float64)
    rows = values.movedim(1, -1).reshape(-1, 3)
    for _ in range(2):
        torch.testing.assert_close(maps(values).movedim(1, -1).reshape(-1, 3), vectors(rows))
        maps.eval(), vectors.eval()
    torch.testing.assert_close(maps.state_dict(), vectors.state_dict())
    mean, variance = maps.batch_statistics(values)
    torch.testing.assert_close(mean, rows.mean(0))
    torch.testing.assert_close(variance, rows.var(0, correction=0))


def test_frozen_norms_keep_their_statistics():
    """Keras' rule: a norm that is not trained normalises with its running statistics, and leaves them."""
    norm = VattBatchNorm(3, eps=1e-5, momentum=0.1, sync=True).requires_grad_(False)
    rows = torch.randn(6, 3) + 5
    torch.testing.assert_close(norm(rows), rows, rtol=1e-4, atol=0)
    assert not norm.running_mean.any()


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
        norm = VattBatchNorm(64, 1e-5, 1.0, sync=True).train()
        normed = norm(values)
        assert normed.dtype == torch.bfloat16
        torch.testing.assert_close(norm.running_mean, values.float().mean(0), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(norm.running_var, values.float().var(0, correction=0))
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
