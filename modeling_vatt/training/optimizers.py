# Copyright 2026 The modeling_vatt authors.
# SPDX-License-Identifier: Apache-2.0
"""Optimizers of pretraining by name: Adam (release), and Muon for the matrices of the network."""

from collections.abc import Callable
from typing import Any

import torch
from torch import nn


def pretraining_optimizer(
    name: str,
    model: nn.Module,
    learning_rate: float,
    betas: tuple[float, float],
    eps: float,
    weight_decay: float,
) -> torch.optim.Optimizer:
    """Optimizer of all that trains in `model`; temperatures and biases of the loss do not decay.

    Args:
        name: `"adam"`, or `"muon"`, which needs torch 2.9 and is for matrices of linear layers; the rest
            stays with Adam. Its updates are scaled to the size of Adam's, so both take the same rate
            (`match_rms_adamw`).
        betas, eps: of Adam.

    Raises:
        ValueError: this torch has no Muon, or nothing trains that is for Muon.
    """
    trained = {key: value for key, value in model.named_parameters() if value.requires_grad}
    matrices = {}
    if name == "muon":
        linear = {
            f"{key}.weight".removeprefix(".")
            for key, part in model.named_modules()
            if isinstance(part, nn.Linear)
        }
        matrices = {key: value for key, value in trained.items() if key in linear}
        if not hasattr(torch.optim, "Muon"):
            raise ValueError(
                f'`optimizer="muon"` needs torch 2.9, this is {torch.__version__}: use "adam", or update it.'
            )
        if not matrices:
            raise ValueError('`optimizer="muon"`: no linear layer trains. Use "adam".')
    scales = [value for key, value in trained.items() if key.startswith("loss_scales.")]
    others = [
        value for key, value in trained.items() if key not in matrices and not key.startswith("loss_scales.")
    ]
    groups: list[dict[str, Any]] = [{"params": others}] if others or not matrices else []
    if scales:
        groups.append({"params": scales, "weight_decay": 0.0})
    settings: dict[str, Any] = {"lr": learning_rate, "weight_decay": weight_decay}
    parts: list[torch.optim.Optimizer] = []
    if matrices:
        parts.append(torch.optim.Muon(matrices.values(), adjust_lr_fn="match_rms_adamw", **settings))
    if groups:
        parts.append(torch.optim.AdamW(groups, betas=betas, eps=eps, fused=True, **settings))
    return parts[0] if len(parts) == 1 else JoinedOptimizer(parts)


class JoinedOptimizer(torch.optim.Optimizer):
    """Several optimizers, each of some parameters, as one: one list of groups, one state, one step."""

    def __init__(self, parts: list[torch.optim.Optimizer]) -> None:
        self.parts = parts
        super().__init__([group for part in parts for group in part.param_groups], {})
        self._share()

    def _share(self) -> None:
        """Let the parts work on the groups and the state of the whole."""
        groups = iter(self.param_groups)
        for part in self.parts:
            part.param_groups = [next(groups) for _ in part.param_groups]
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """See torch."""
        super().load_state_dict(state_dict)
        self._share()

    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """See torch."""
        loss = None if closure is None else closure()
        for part in self.parts:
            part.step()
        return loss
