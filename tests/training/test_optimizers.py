# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Optimizers of pretraining."""

import copy

import pytest
import torch
from torch import nn

from modeling_vatt.training import optimizers
from modeling_vatt.training.optimizers import Muon, pretraining_optimizer


SETTINGS = {"learning_rate": 0.01, "betas": (0.9, 0.98), "eps": 1e-7, "weight_decay": 0.1}
MATRICES = ("inner.weight", "outer.weight")


class Network(nn.Module):
    """Matrices for Muon, and what is none: a word table, a norm, biases, a scale of the loss."""

    def __init__(self) -> None:
        super().__init__()
        self.words, self.norm = nn.Embedding(5, 4), nn.LayerNorm(4)
        self.inner, self.outer = nn.Linear(4, 6), nn.Linear(6, 3, bias=False)
        self.loss_scales = nn.ParameterDict({"bias": nn.Parameter(torch.tensor(2.0))})

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        return self.outer(self.inner(self.norm(self.words(ids))).tanh()) * self.loss_scales["bias"]


def orthogonal(matrix: torch.Tensor) -> torch.Tensor:
    """What Muon's quintic makes of a matrix, by its singular values in float64."""
    left, values, right = torch.linalg.svd(matrix.double(), full_matrices=False)
    values = values / values.norm()
    for _ in range(5):
        values = 3.4445 * values - 4.7750 * values**3 + 2.0315 * values**5
    return (left * values) @ right


def test_muon_is_for_matrices_and_adam_for_the_rest():
    torch.manual_seed(0)
    model = Network()
    expected = copy.deepcopy(model)
    optimizer = pretraining_optimizer("muon", model, **SETTINGS)
    rest = [value for name, value in expected.named_parameters() if name not in MATRICES]
    adam = torch.optim.AdamW(rest[:-1], 0.01, (0.9, 0.98), 1e-7, 0.1)
    scale = torch.optim.AdamW(rest[-1:], 0.01, (0.9, 0.98), 1e-7, 0.0)
    for network in (model, expected):
        network(torch.arange(5)).square().sum().backward()
    optimizer.step()
    adam.step()
    scale.step()
    # The first step of Nesterov's momentum of 0.95: 0.05 of the gradient, then its mean with the gradient
    # itself; both have the gradient's direction.
    for name in MATRICES:
        value = expected.get_parameter(name)
        step = 0.2 * max(value.shape) ** 0.5 * orthogonal(value.grad)
        value.data = (value.double() * (1 - 0.01 * 0.1) - 0.01 * step).float()
    for name, value in model.named_parameters():
        # Muon may compute in bfloat16.
        torch.testing.assert_close(value, expected.get_parameter(name), atol=3e-4, rtol=1e-5)


@pytest.mark.parametrize("half", [True, False])
def test_matrices_of_one_shape_are_computed_as_one_by_one(half, monkeypatch):
    """Several steps, tall ones turned, one without a gradient; in float32 nearer to the exact step."""
    monkeypatch.setattr(optimizers, "computes_bfloat16", lambda: half)
    torch.manual_seed(0)
    shapes = [(6, 8), (8, 6), (4, 4), (6, 8), (5, 5), (4, 4)]
    ours = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    alone = [nn.Parameter(value.detach().clone()) for value in ours]
    together = Muon(ours, lr=0.01, weight_decay=0.1)
    singly = [Muon([value], lr=0.01, weight_decay=0.1) for value in alone]
    if half and hasattr(torch.optim, "Muon"):  # torch 2.9
        singly = [torch.optim.Muon(alone, 0.01, 0.1, adjust_lr_fn="match_rms_adamw")]
    for step in range(3):
        for one, other in zip(ours, alone, strict=True):
            one.grad = torch.randn_like(one)
            other.grad = one.grad.clone()
        ours[-1].grad = alone[-1].grad = None
        before = ours[0].detach().clone()
        for optimizer in (together, *singly):
            optimizer.step()
        for one, other in zip(ours, alone, strict=True):
            torch.testing.assert_close(one, other, atol=2e-4 if half else 1e-6, rtol=0)
        if step == 0:
            exact = before.double() * (1 - 0.01 * 0.1) - 0.01 * 0.2 * 8**0.5 * orthogonal(ours[0].grad)
            torch.testing.assert_close(ours[0].double(), exact, atol=3e-4 if half else 1e-6, rtol=0)


def test_state_and_rates_are_those_of_one_optimizer():
    """Loaded into another, all groups follow the schedule, and go on to the same weights."""
    torch.manual_seed(0)
    first = Network()
    one = pretraining_optimizer("muon", first, **SETTINGS)

    def step(model: nn.Module, optimizer: torch.optim.Optimizer) -> None:
        optimizer.zero_grad()
        model(torch.arange(5)).square().sum().backward()
        optimizer.step()

    step(first, one)
    second = copy.deepcopy(first)
    two = pretraining_optimizer("muon", second, **SETTINGS)
    two.load_state_dict(copy.deepcopy(one.state_dict()))
    for optimizer in (one, two):
        for group in optimizer.param_groups:
            group["lr"] = 0.003
    step(first, one)
    step(second, two)
    for name, value in first.named_parameters():
        assert torch.equal(value, second.get_parameter(name)), name
    frozen = copy.deepcopy(first)
    for group in two.param_groups:
        group["lr"] = 0.0
    step(second, two)
    for name, value in second.named_parameters():
        assert torch.equal(value, frozen.get_parameter(name)), name


def test_nothing_for_muon_is_refused():
    with pytest.raises(ValueError, match="no linear layer trains"):
        pretraining_optimizer("muon", nn.Embedding(3, 2), **SETTINGS)
